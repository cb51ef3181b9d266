"""Whatever looks at path, size and time sees an upgrade: import, mypy, rsync; and zip can hold every time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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
