"""A small world in which venvs are built within a moment, for what may happen to them and to their store.

Two venvs, ``a`` and ``b``, share the package demo; each has a release of the package own, whose WHEEL says
the same as the other's. The builder links files from a cache, as uv does. A run is all steps that have to
run, as ``doit`` would take them, in this process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pythons import BASE, SITE

from venvflow.cli import main
from venvflow.errors import VenvflowError
from venvflow.flow import load
from venvflow.model import Outcome
from venvflow.steps.build_venv import build_venv
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.restore import restore
from venvflow.steps.squish import squish
from venvflow.steps.store import store

BUILDER = r"""
import os, sys
python, venv, cache = sys.argv[1:4]
number = open(sys.argv[4]).read().strip()
site = os.path.join(venv, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
os.makedirs(os.path.join(venv, "bin"))

def put(path, text):
    file = os.path.join(site, path)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    with open(file, "w") as opened:
        opened.write(text)

def link(path, text):
    kept = os.path.join(cache, number, path)
    if not os.path.exists(kept):
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        with open(kept, "w") as opened:
            opened.write(text)
        os.chmod(kept, 0o644)
        os.utime(kept, (1_500_000_000 + int(number), 1_500_000_000 + int(number)))
    os.makedirs(os.path.dirname(os.path.join(site, path)), exist_ok=True)
    os.link(kept, os.path.join(site, path))

with open(os.path.join(venv, "pyvenv.cfg"), "w") as cfg:
    cfg.write("home = %s\nversion = %d.%d.%d\n" % (os.path.dirname(python), *sys.version_info[:3]))
os.symlink(python, os.path.join(venv, "bin", "python"))
os.symlink("lib", os.path.join(venv, "lib64"))
with open(os.path.join(venv, "bin", "tool"), "w") as tool:
    tool.write("#!%s/bin/python\nimport demo\nprint(demo.NAME)\n" % venv)
os.chmod(os.path.join(venv, "bin", "tool"), 0o755)
put("demo/__init__.py", "NAME = 'demo'\n")
put("demo/more.py", "MORE = 1\n")
put("demo-1.0.dist-info/METADATA", "Name: demo\nVersion: 1.0\n")
put("demo-1.0.dist-info/RECORD", "demo/__init__.py,,\ndemo/more.py,,\n../../../bin/tool,,\n"
    "demo-1.0.dist-info/METADATA,,\ndemo-1.0.dist-info/RECORD,,\n")
link("own/table.txt", "table %s\n" % number)
info = "own-%s.dist-info" % number
link(info + "/WHEEL", "Wheel-Version: 1.0\n")
link(info + "/METADATA", "Name: own\nVersion: %s\n" % number)
put("zz/last.py", "MORE = 1\n")
put(info + "/RECORD", "own/table.txt,,\n"
    "zz/last.py,,\n%s/WHEEL,,\n%s/METADATA,,\n%s/RECORD,,\n" % (info, info, info))
"""

STEPS: tuple[tuple[str, Callable[..., Outcome]], ...] = (
    ("hash-lockfiles", hash_lockfiles),
    ("restore", restore),
    ("build-venv", build_venv),
    ("squish", squish),
    ("store", store),
)


@dataclass
class Ran:
    """A run: what each step did, by task; what was warned of; the exit code and the message."""

    did: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    code: int = 0
    said: str = ""

    @property
    def nothing_to_do(self) -> bool:
        """Return whether no step had to run, and all was well."""
        return not (self.did or self.code)


@dataclass(frozen=True)
class World:
    """The world in the directory *root*."""

    root: Path

    @property
    def project(self) -> Path:
        """Return the project's directory."""
        return self.root / "project"

    @property
    def store(self) -> Path:
        """Return the store."""
        return self.root / "store"

    @property
    def cache(self) -> Path:
        """Return the builder's cache."""
        return self.root / "cache"

    def venv(self, name: str, project: Path | None = None) -> Path:
        """Return a venv's place."""
        return (project or self.project) / name / ".venv"

    def site(self, name: str, project: Path | None = None) -> Path:
        """Return a venv's site-packages."""
        return self.venv(name, project) / SITE

    def configure(self, **venvs: dict[str, object]) -> None:
        """Write the config: *venvs* by name, with what their entries have besides the usual."""
        build = [["{python}", "-I", "{project}/build.py", "{python}", "{venv}", str(self.cache), "{lock}"]]
        usual = {"build": build, "python": BASE}
        document = {
            "version": 1,
            "store": {"path": str(self.store), "durability": "none", "adopt": True},
            "venvs": {
                name: {"path": f"{name}/.venv", "locks": [f"{name}/lock.txt"], **usual, **more}
                for name, more in venvs.items()
            },
        }
        (self.project / "venvflow.yaml").write_text(json.dumps(document), encoding="utf-8")

    def lock(self, name: str, number: int) -> None:
        """Say which release of own a venv has."""
        file = self.project / name / "lock.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{number}\n", encoding="utf-8")

    def doit(self, *names: str, project: Path | None = None, until: str = "") -> Ran:
        """Run what has to run, for all venvs or those of *names*; *until* is the last step."""
        ran = Ran()
        flow = load(str(project or self.project), os.environ)
        flow.named = frozenset(names)
        for venv in names or flow.config.venvs:
            for verb, step in STEPS:
                try:
                    if flow.is_due(verb, venv):
                        outcome = step(flow.job(venv))
                        ran.did[f"{verb}:{venv}"] = f"{outcome.did}: {outcome.reason}"
                        ran.warnings += [f"{verb}:{venv} {warning}" for warning in outcome.warnings]
                        flow.forget_plans()
                except VenvflowError as error:
                    ran.code, ran.said = error.exit_code, f"{verb}:{venv} {error}"
                    break
                if verb == until:
                    break
        return ran

    def run(self, *words: str) -> int:
        """Run a command in the project and return its exit code."""
        return main(["-C", str(self.project), *words])

    def works(self, name: str, project: Path | None = None) -> bool:
        """Return whether a venv's script runs, and finds its package."""
        tool = str(self.venv(name, project) / "bin" / "tool")
        with suppress(OSError):
            return subprocess.run([tool], capture_output=True, text=True, check=False).stdout == "demo\n"
        return False


@pytest.fixture(scope="session")
def finished_world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return where a world is to lie, and one with nothing left to do to copy there."""
    root = tmp_path_factory.mktemp("ways")
    world = World(root / "world")
    (root / "world").mkdir()
    world.lock("a", 1)
    world.lock("b", 2)
    (world.project / "build.py").write_text(BUILDER, encoding="utf-8")
    world.configure(a={}, b={})
    first = world.doit()
    assert first.code == 0, first.said
    second = world.doit()
    assert second.nothing_to_do, second
    shutil.move(root / "world", root / "saved")
    return root / "world", root / "saved"


@pytest.fixture
def world(finished_world: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Give a world with nothing left to do, at the place where it was made."""
    place, saved = finished_world
    for name in [name for name in os.environ if name.startswith("VENVFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_CACHE_DIR", str(place / "cache"))
    # Links stay links, times stay times.
    subprocess.run(["cp", "-a", str(saved), str(place)], check=True)
    try:
        yield World(place)
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", str(place)], check=False)
        shutil.rmtree(place)
