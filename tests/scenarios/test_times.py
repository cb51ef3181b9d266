"""Whatever looks at times sees an upgrade: import, mypy, rsync, make; and zip can hold every time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flows import World
from wheels import make_wheel

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give a project with one venv."""
    world = World(tmp_path, tmp_path / "house")
    world.configure({"api": {}})
    return world


def _release(world: World, version: str, result: str) -> Path:
    """Make a release of tool whose files have the sizes of every other one; *result* has three letters."""
    text = f"def f() -> {result}:\n    return {result}()\n"
    modules = {"tool/__init__.py": text, "tool/py.typed": "", "tool/data.txt": result}
    return make_wheel(world.house, "tool", version, modules=modules)


def _ask(words: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(words, env={**variables, **environ}, capture_output=True, text=True, check=False)


def test_an_upgrade_between_files_of_one_size_is_seen(world: World, tmp_path: Path) -> None:
    """By an import that keeps its bytecode elsewhere, by mypy's cache, and by what copies what changed."""
    user = tmp_path / "user.py"
    user.write_text("import tool\n\nnumber: int = tool.f()\n", encoding="ascii")
    said, copied = [], tmp_path / "copied"
    copied.mkdir()
    for version, result in (("1.0", "int"), ("1.1", "str")):
        world.lock("api", _release(world, version, result))
        world.run()
        python = str(world.venv() / "bin/python")
        imported = _ask(
            [python, "-c", "import tool; print(repr(tool.f()))"],
            PYTHONPYCACHEPREFIX=str(tmp_path / "bytecode"),
        )
        checked = _ask(
            [sys.executable, "-m", "mypy", "--python-executable", python, "--cache-dir", "cache", str(user)],
            MYPY_FORCE_COLOR="0",
            HOME=str(tmp_path),
        )
        said.append((imported.stdout.strip(), checked.returncode))
        _copy_what_changed(world.module("tool").with_suffix(""), copied)
    assert said == [("0", 0), ("''", 1)]
    assert (copied / "data.txt").read_text() == "str"


def _copy_what_changed(source: Path, target: Path) -> None:
    """Do as ``rsync -a``, or in its place: copy files whose size or time is another one."""
    if shutil.which("rsync"):
        subprocess.run(["rsync", "-a", f"{source}/", f"{target}/"], check=True)
        return
    for file in (path for path in source.iterdir() if path.is_file()):
        there = target / file.name
        stats = [file.stat(), there.stat()] if there.exists() else []
        if len({(st.st_size, int(st.st_mtime)) for st in stats}) != 1:
            shutil.copy2(file, there)


def test_a_venv_can_be_zipped_in_every_zone(world: World, tmp_path: Path) -> None:
    """A zip holds local times from 1980 on."""
    world.lock("api", _release(world, "1.0", "int"))
    world.run()
    code = "import shutil, sys; shutil.make_archive(sys.argv[1], 'zip', sys.argv[2])"
    for hours in (-14, -12, -11, -8, -5, 0, 1, 5, 12):
        done = _ask([sys.executable, "-c", code, str(tmp_path / "x"), str(world.venv())], TZ=f"X{hours:+d}")
        assert (done.returncode, done.stderr) == (0, ""), hours


MAKEFILE = """\
VENV := api/.venv
SITE := $(wildcard $(VENV)/lib/python3*/site-packages)
all: by-activate by-script by-settings by-record by-directory by-receipt
$(VENV)/bin/activate: api/requirements.txt
	echo install && touch $@
by-activate: $(VENV)/bin/activate ; echo $@ && touch $@
by-script: $(VENV)/bin/tool ; echo $@ && touch $@
by-settings: $(VENV)/pyvenv.cfg ; echo $@ && touch $@
by-record: $(wildcard $(SITE)/tool-*/RECORD) ; echo $@ && touch $@
by-directory: $(SITE) ; echo $@ && touch $@
by-receipt: $(VENV)/.venvflow.json ; echo $@ && touch $@
"""
TARGETS = ["by-activate", "by-script", "by-settings", "by-record", "by-directory", "by-receipt"]


@pytest.fixture
def make(world: World) -> Callable[[], list[str]]:
    """Give what make says it had to do; the venv is made by the flow, in place of a call of doit there."""
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    (world.root / "Makefile").write_text(MAKEFILE)

    def run() -> list[str]:
        done = _ask(["make", "--silent", "-C", str(world.root)])
        assert done.returncode == 0, done.stderr
        assert "Clock skew" not in done.stderr
        return done.stdout.split()

    return run


def test_make_sees_an_upgrade_and_a_way_back(world: World, make: Callable[[], list[str]]) -> None:
    """What is made from a file that is written for the venv is made anew when the venv is, and only then."""
    world.lock("api", world.wheel("tool", "1.0"))
    world.run()
    assert make() == TARGETS
    assert make() == []
    world.run()
    assert make() == []
    for version, last in (("1.1", "squish"), ("1.0", "restore")):
        world.lock("api", world.wheel("tool", version))
        done = world.run()
        assert done[last].did in ("squished", "hit")
        assert make() == TARGETS
        assert make() == []


def test_a_touch_of_a_makefile_stays(world: World, make: Callable[[], list[str]]) -> None:
    """A lock file that is only newer is no change: make notes that by a touch, and no run takes it back."""
    world.lock("api", world.wheel("tool", "1.0"))
    world.run()
    make()
    lock = world.root / "api/requirements.txt"
    os.utime(lock)
    assert make()[:2] == ["install", "by-activate"]
    touched = (world.venv() / "bin/activate").stat().st_mtime_ns
    for _ in range(2):
        done = world.run()
        assert done["restore"].did == "kept"
        assert (world.venv() / "bin/activate").stat().st_mtime_ns == touched
    assert "install" not in make()
    assert make() == []
    assert world.run()["restore"].warnings == ()
