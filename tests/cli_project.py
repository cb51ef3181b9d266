"""A small project with a store, for the tests of the command line.

The venv ``api`` is built once per session, by the real uv and offline; every test gets its own copy of the
store that it was stored in, so that ``restore api`` is a hit. ``web`` has never been built.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from json_schemas import check_answer
from pythons import foreign_venv
from wheels import make_wheel, offline_environment, requirements

from venvflow.cli import main
from venvflow.flow import load
from venvflow.steps.build_venv import build_venv
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.squish import squish
from venvflow.steps.store import store

CONFIG = """\
version: 1
store: {path: ../store, durability: none}
venvs:
  api: {path: api/.venv, locks: [api/requirements.txt]}
  web: {path: web/.venv, locks: [web/requirements.txt]}
"""

_OURS = re.compile(r"VENVFLOW_|PIP_|UV_|PYTHON|NO_COLOR|FORCE_COLOR|XDG_")


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Return standard output as JSON."""
        return json.loads(self.out)

    @property
    def record(self) -> Any:
        """Return the record of the only venv of the answer."""
        (record,) = self.document["venvs"]
        return record


@dataclass(frozen=True)
class Project:
    """A project at *root*, beside its store."""

    root: Path
    house: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def store(self) -> Path:
        """Return the path of the store."""
        return self.root.parent / "store"

    @property
    def config(self) -> Path:
        """Return the path of the config."""
        return self.root / "venvflow.yaml"

    @property
    def site(self) -> Path:
        """Return ``site-packages`` of the venv ``api``."""
        (found,) = self.root.glob("api/.venv/lib/python*/site-packages")
        return found

    def run(self, *words: str) -> Answer:
        """Run a command in this process, in the project's directory."""
        self.capsys.readouterr()
        code = main(words)
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        check_answer(words, out)
        return Answer(code, out, err)

    def spawn(self, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in a process of its own."""
        return subprocess.run(
            [*command(), *words], cwd=self.root, text=True, check=False, capture_output=True, **how
        )

    def make_foreign_venv(self, name: str = "api") -> Path:
        """Make an empty venv as another tool would, and return it."""
        return foreign_venv(self.root / name / ".venv")

    def hashes(self) -> set[str]:
        """Return what lies in project and store, with times, but for what looking may leave."""
        found = set()
        for base in (self.root, self.store):
            for path in base.rglob("*"):
                st = path.lstat()
                found.add(f"{path} {st.st_mode} {st.st_size} {st.st_mtime_ns} {st.st_ino}")
        return found


def command() -> list[str]:
    """Return the words that start the console script."""
    return [str(Path(sys.executable).parent / "venvflow")]


def clean_environment() -> dict[str, str]:
    """Return this process's variables without those that change what we do."""
    return {name: value for name, value in os.environ.items() if not _OURS.match(name)}


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a wheelhouse, and a store that has the venv ``api``."""
    stock = tmp_path_factory.mktemp("stock")
    wheel = make_wheel(stock / "house", "demo", "1.0", scripts={"demo": "demo:main"})
    other = make_wheel(stock / "house", "other", "2.0")
    requirements(stock / "project" / "api", [wheel])
    requirements(stock / "project" / "web", [wheel, other])
    (stock / "project" / "venvflow.yaml").write_text(CONFIG, encoding="utf-8")
    environ = {**clean_environment(), **offline_environment(stock / "house")}
    job = load(str(stock / "project"), environ).job("api")
    for step in (hash_lockfiles, build_venv, squish, store):
        step(job)
    # Registered for a project that every test believes to exist elsewhere.
    shutil.rmtree(stock / "project" / "api" / ".venv")
    shutil.rmtree(stock / "project" / ".venvflow")
    shutil.rmtree(stock / "store" / "holds")  # what a test does with it says whose it is
    return stock


@pytest.fixture
def project(
    stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Project:
    """Return a fresh checkout beside a copy of the store; it is the working directory."""
    for name in list(os.environ):
        if _OURS.match(name):
            monkeypatch.delenv(name)
    for name, value in offline_environment(stock / "house").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(stock / "store", tmp_path / "store", symlinks=True)
    for file in (tmp_path / "store" / "venvs").iterdir():
        file.unlink()
    shutil.copytree(stock / "project", tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Project(tmp_path / "project", stock / "house", capsys)


@pytest.fixture
def ready(project: Project) -> Project:
    """Give a project in a git repository whose venv is in place, with an archive of it beside."""
    subprocess.run(["git", "init", "--quiet"], cwd=project.root, check=True)
    (project.root.parent / "fresh").mkdir()
    project.make_foreign_venv("web")
    assert project.run("restore", "api").code == 0
    assert project.run("pack", "api", "-o", "../api.tar").code == 0
    return project


_TYPES = {
    "bytes", "created", "files", "format", "freed", "last_used", "new_bytes", "objects", "packages",
    "python", "seconds", "size", "unique_size", "host",
}  # fmt: skip


def blurred(value: Any, base: Path, key: str = "") -> Any:
    """Return a JSON document without what differs from run to run: numbers, times, paths and hashes."""
    if isinstance(value, dict):
        return {name: blurred(each, base, name) for name, each in value.items()}
    if isinstance(value, list):
        return [blurred(each, base, key) for each in value]
    if key in _TYPES and value is not None:
        return type(value).__name__
    if isinstance(value, str):
        text = value.replace(str(base), "<base>")
        return re.sub(r"\b[0-9a-f]{64}\b", "<digest>", re.sub(r"\b[0-9a-f]{12}\b", "<id>", text))
    return value
