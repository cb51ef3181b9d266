"""A receipt that somebody else wrote: whatever it says, nothing outside the venv is touched or run."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from venvflow.disk.places import read_receipt

if TYPE_CHECKING:
    from cli_project import Project

A = "a" * 64
COMMANDS = (
    "status", "list", "stats --packages", "diff api api", "verify", "squish --dry-run api/.venv",
    "squish api/.venv", "store api", "pack api -o ../c.tar", "export api -o ../exported", "verify --heal",
    "trim", "restore api", "unsquish api/.venv", "erase api --yes", "restore api",
)  # fmt: skip


class Neighbour:
    """What lies beside the project and must stay as it is; *evil* leaves a trace when it is run."""

    def __init__(self, base: Path) -> None:
        self.home = base / "neighbour"
        self.home.mkdir()
        self.precious = self.home / "precious"
        self.precious.write_text("precious")
        self.precious.chmod(0o640)
        self.evil = self.home / "evil"
        self.evil.write_text(f"#!/bin/sh\ntouch {self.home}/ran\n")
        self.evil.chmod(0o755)
        self.before = self.looks()

    def looks(self) -> dict[str, tuple[int, int, int, bytes]]:
        """Return how everything there looks."""
        return {
            str(path): (
                path.lstat().st_mode,
                path.lstat().st_mtime_ns,
                path.lstat().st_ino,
                path.read_bytes(),
            )
            for path in sorted(self.home.iterdir())
        }


@pytest.fixture
def neighbour(project: Project) -> Neighbour:
    """Give what lies beside the project."""
    return Neighbour(project.root.parent)


def _up(neighbour: Neighbour) -> str:
    return "../" * 30 + str(neighbour.precious)[1:]


LIES: dict[str, Callable[[Neighbour], dict[str, Any]]] = {
    "a tree that is a path": lambda it: {"trees": [f"..//{_up(it)}"]},
    "a tree that is absolute": lambda it: {"trees": [f"ab{it.precious}"]},
    "a key that is a path": lambda it: {"key": _up(it)},
    "no key": lambda _: {"key": ""},
    "another place": lambda it: {"path": str(it.home)},
    "another store": lambda it: {"link": "symlink", "store": str(it.home)},
    "another python": lambda it: {"python": str(it.evil)},
    "modes of others": lambda it: {"modes": {_up(it): 0o777}},
    "modes that run as others": lambda _: {"modes": {"bin/demo": 0o6755, "": 0o4755, "/": 0o2777}},
    "a mode for all": lambda _: {"modes": {"": 0o777, "/": 0o777}},
    "private files of others": lambda it: {"private": {_up(it): A}},
    "private files of its own": lambda _: {"private": {"bin/demo": A}},
    "directories of others": lambda it: {"directories": {_up(it): 1, str(it.home): 1}},
    "a tree that nobody has": lambda _: {"trees": [A], "witness": A},
    "all trees, not shared": lambda _: {"state": "built", "made": "shared"},
    "made by a builder": lambda _: {"state": "built", "made": "built"},
}


QUICK = ("a tree that is a path", "modes that run as others")


@pytest.mark.parametrize(
    "lie", [pytest.param(lie, marks=() if lie in QUICK else pytest.mark.slow) for lie in LIES]
)
def test_nothing_outside_the_venv_is_touched(project: Project, neighbour: Neighbour, lie: str) -> None:
    """By no command: not read, written, given another mode, deleted or run."""
    project.run("restore", "api")
    receipt = project.root / "api" / ".venv" / ".venvflow.json"
    document = json.loads(receipt.read_text(encoding="ascii"))
    for words in COMMANDS:
        if receipt.parent.is_dir():
            receipt.write_text(json.dumps({**document, **LIES[lie](neighbour)}), encoding="ascii")
        answer = project.run(*words.split())
        assert answer.code in (0, 1, 2, 3, 6), words
        assert "should not happen" not in answer.err
        assert neighbour.looks() == neighbour.before, words
    for path in receipt.parent.rglob("*"):
        assert not stat.S_IMODE(path.lstat().st_mode) & 0o7000 or path.is_dir()


@pytest.mark.parametrize("lie", [each for each in LIES if "others" in each or "is a path" in each])
def test_a_receipt_that_names_what_is_not_its_own_is_none(
    project: Project, neighbour: Neighbour, lie: str
) -> None:
    """The venv counts as another tool's, which made it what its lock says: it is taken."""
    project.run("restore", "api")
    receipt = project.root / "api" / ".venv" / ".venvflow.json"
    document = json.loads(receipt.read_text(encoding="ascii"))
    assert read_receipt(os.fspath(receipt.parent)) is not None
    receipt.write_text(json.dumps({**document, **LIES[lie](neighbour)}), encoding="ascii")
    assert read_receipt(os.fspath(receipt.parent)) is None
    assert project.run("restore", "api").code == 0
    receipt_now = read_receipt(os.fspath(receipt.parent))
    assert receipt_now is not None
    assert (receipt_now.made, receipt_now.key) == ("taken", document["key"])


def test_a_registration_is_known_by_its_file_name_only(project: Project, neighbour: Neighbour) -> None:
    """One that speaks of another path would forget, or hold, what that one has; it stops the sweep."""
    project.run("restore", "api")
    (file,) = (project.store / "venvs").iterdir()
    for wrong in (
        {"path": str(neighbour.home)},
        {"name": f"x/{_up(neighbour)}"},
        {"trees": [_up(neighbour)]},
    ):
        document = {**json.loads(file.read_text(encoding="ascii")), **wrong}
        other = file.with_name("0" * 32 + ".json")
        other.write_text(json.dumps(document), encoding="ascii")
        answer = project.run("trim")
        assert (answer.code, other.name in answer.err) == (3, True)
        assert file.exists()
        assert neighbour.looks() == neighbour.before
        other.unlink()
    assert project.run("trim").code == 0
