"""The same archive from root and from somebody else: other rights, umask, locale, time zone, home, store."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from contents import for_everybody, needs_root
from scenario import BESIDE, MINOR, UV, Machine, Project

pytestmark = [pytest.mark.slow, pytest.mark.root, needs_root]

SOMEBODY = 1234
FORMATS = ("tar.xz", "zip")


@dataclass(frozen=True, eq=False)
class User:
    """Who runs doit: *uid* with a *umask* and an environment."""

    name: str
    uid: int
    umask: int
    environ: Mapping[str, str] = field(default_factory=dict)

    def run(
        self, words: list[str], cwd: Path | str, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this user, who is in no other group."""
        return subprocess.run(
            words, cwd=cwd, env=env, user=self.uid, group=self.uid, extra_groups=[], umask=self.umask,
            capture_output=True, text=True, check=False,
        )  # fmt: skip


ROOT = User("root", 0, 0o022, {"TZ": "UTC", "LC_ALL": "C.UTF-8"})
OTHER = User("other", SOMEBODY, 0o077, {"TZ": "Asia/Kolkata", "LC_ALL": "C"})


@pytest.fixture(scope="module")
def python() -> str:
    """Give a Python that everybody may run and that finds our libraries, or skip the test."""
    names = [sys.executable, *(f"{place}/python{MINOR}" for place in ("/usr/bin", "/usr/local/bin"))]
    for name in names:
        if _may_run([name, "-c", "import doit, sqlite_utils, venvflow.tasks"]) and _may_run(
            [UV, "--version"]
        ):
            return name
    pytest.skip(f"there is no Python {MINOR} with uv that user {SOMEBODY} may run")


def _may_run(words: list[str]) -> bool:
    try:
        return OTHER.run(words, "/", {"PYTHONPATH": _libraries()}).returncode == 0
    except OSError:
        return False


def _libraries() -> str:
    return os.pathsep.join(path for path in sys.path if os.path.isdir(path))


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Give a machine whose wheels everybody may read."""
    with for_everybody() as place:
        machine = Machine(place, place / "wheels")
        modules = {"heavy/__init__.py": "VERSION = '1.0'\n", "heavy/caf\u00e9.py": "TEXT = '\u00e9'\n"}
        machine.wheel(
            "heavy", scripts={"heavy": "heavy:main"}, modules=modules, data={"heavy/a.h": b"h" * 900}
        )
        machine.wheel("alpha")
        for path in machine.wheelhouse.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield machine


def _checkout(machine: Machine, user: User, python: str) -> Project:
    """Return a project of *user*, in a home of a different length, with a store and caches of its own."""
    home = machine.root / f"home-of-{user.name * (user.uid % 5 + 1)}"
    venv = {"python": python, "build": "uv", "pack": {"output": "dist/"}}
    project = machine.project(f"{home.name}/work", {"api": venv}, store={"durability": "none"})
    project.lock("api", *sorted(machine.wheelhouse.glob("*.whl")))
    for path in (home, *home.rglob("*")):
        os.chown(path, user.uid, user.uid)
        path.chmod(0o777 & ~user.umask if path.is_dir() else 0o666 & ~user.umask)
    return project


def _environ(project: Project, user: User) -> dict[str, str]:
    """Return the environment in which *user* works."""
    home = project.root.parent
    own = {"HOME": str(home), "TMPDIR": str(home), "VENVFLOW_STORE": str(home / "store")}
    own |= {"UV_CACHE_DIR": str(home / "cache"), "PYTHONPATH": _libraries(), **user.environ}
    usual = project.machine.environ
    return {**usual, "PATH": f"{BESIDE}{os.pathsep}{usual['PATH']}", **own}  # uv lies there


def _digests(project: Project, user: User, python: str) -> dict[str, str]:
    """Build, share and pack the venv as *user*; return the SHA-256 of an archive of each format."""
    commands = [["doit"], *(["venvflow", "pack", "api", "-o", f"out/api.{name}"] for name in FORMATS)]
    for words in commands:
        done = user.run([python, "-m", *words], project.root, _environ(project, user))
        assert done.returncode == 0, f"{user.name}: {words}\n{done.stdout}{done.stderr}"
    built = project.root / "dist" / "api.tar.zst"
    archives = [built, *(project.root / "out" / f"api.{name}" for name in FORMATS)]
    assert {path.stat().st_uid for path in archives} == {user.uid}
    return {str(path.relative_to(project.root)): _sha256(path) for path in archives}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_root_and_somebody_else_pack_the_same_bytes(machine: Machine, python: str) -> None:
    """Each builds the same lock on a checkout of their own; root unpacks what the other packed."""
    checkouts = {user: _checkout(machine, user, python) for user in (ROOT, OTHER)}
    ours, theirs = (_digests(project, user, python) for user, project in checkouts.items())
    assert ours == theirs
    assert len(set(ours.values())) == len(ours)
    archive, unpacked = checkouts[OTHER].root / "dist" / "api.tar.zst", machine.root / "unpacked"
    words = [python, "-m", "venvflow", "unpack", str(archive), str(unpacked)]
    done = ROOT.run(words, machine.root, _environ(checkouts[ROOT], ROOT))
    assert done.returncode == 0, done.stderr
    assert {path.lstat().st_uid for path in unpacked.rglob("*")} == {0}
    said = ROOT.run([str(unpacked / "bin" / "alpha")], "/", machine.environ)
    assert (said.returncode, said.stderr) == (0, "")


def test_a_python_that_does_not_read_utf_8_makes_the_same_venv(machine: Machine, python: str) -> None:
    """Programs of ours start anew as one that does; one around doit says what is wrong."""
    project = _checkout(machine, OTHER, python)
    (project.root / "dodo.py").write_text(f"{project.root.joinpath('dodo.py').read_text()}{_PROGRAM}")
    store = project.root.parent / "store"
    usual = _environ(project, OTHER)
    wrong = {**usual, "PYTHONUTF8": "0"}
    done = OTHER.run([python, "dodo.py"], project.root, wrong)
    assert done.returncode == 3
    assert "reads file names as ascii" in done.stdout + done.stderr
    assert "PYTHONUTF8=1" in done.stdout + done.stderr
    assert not [*store.glob("trees/*/*"), *store.glob("snapshots/*")]
    done = OTHER.run([python, "-m", "doit"], project.root, wrong)
    assert (done.returncode, "stored" in done.stdout) == (0, True), done.stderr
    done = OTHER.run([python, "-m", "doit"], project.root, usual)
    assert "nothing to do" in done.stdout
    shutil.rmtree(project.venv("api"))
    done = OTHER.run([python, "dodo.py"], project.root, wrong)
    assert (done.returncode, "reads file names as ascii" in done.stdout + done.stderr) == (3, True)
    assert not project.venv("api").exists()


_PROGRAM = """
if __name__ == "__main__":
    import doit
    doit.run(globals())
"""
