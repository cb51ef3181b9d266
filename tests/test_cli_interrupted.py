"""Ctrl-C and SIGTERM in the middle of every command that takes its time."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from forks import forked
from tiers import first_quick

if TYPE_CHECKING:
    from pathlib import Path

    from cli_project import Project


WHERE = ("open", "rename", "link", "unlink", "mkdir", "lstat")
"""Functions of ``os`` in which the signal comes: before something is looked at, made, named, taken away."""


class Long(NamedTuple):
    """A command that takes its time, on the venv ``api``: absent, in place, or made by another tool."""

    words: str
    venv: str

    @property
    def name(self) -> str:
        """Return what the test is called by."""
        return self.words.split()[0]


LONG = (
    Long("restore api", "absent"),
    Long("build api", "absent"),
    Long("store api --force", "foreign"),
    Long("squish api", "foreign"),
    Long("unsquish api", "present"),
    Long("verify --full", "present"),
    Long("verify --full --heal", "present"),
    Long("pack api -o ../made.tar", "present"),
    Long("unpack ../api.tar ../made", "present"),
    Long("export api ../made", "present"),
    Long("trim", "present"),
    Long("erase --yes", "present"),
)


def interrupted_in(function: str, call: int, number: signal.Signals) -> Callable[[], None]:
    """Return what makes the process send itself a signal in the *call*-th call, from 0, of a function."""
    real = getattr(os, function)
    left = [call]

    def interrupting(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == -1:
            os.kill(os.getpid(), number)
        return real(*args, **kwargs)

    return lambda: setattr(os, function, interrupting)


@pytest.fixture
def arranged(ready: Project, long: Long) -> Project:
    """Give the project with its venv as the command needs it."""
    if long.venv != "present":
        shutil.rmtree(ready.root / "api" / ".venv")
    if long.venv == "foreign":
        ready.make_foreign_venv()
    return ready


def everything(project: Project) -> set[str]:
    """Return the paths of what a user would miss: venvs, whole, and the archive, but none of our notes."""
    found = set()
    for directory, below, files in os.walk(project.root.parent):
        below[:] = [name for name in below if name not in ("store", ".venvflow")]
        names = {name for name in files if not name.endswith(".venvflow.json")}
        links = {name for name in below if os.path.islink(f"{directory}/{name}")}
        found |= {f"{directory}/{name}" for name in names | links}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("long", LONG, ids=lambda long: long.words)
def test_a_signal_ends_every_long_command(long: Long, arranged: Project) -> None:
    """Exit code and one line that says how things are; the old state or the new one; again, it finishes."""
    parent = arranged.root.parent
    kept = parent.with_name(f"{parent.name}-kept")
    shutil.copytree(parent, kept, symlinks=True)
    before, ended = everything(arranged), 0
    for number, function in zip(cycle((signal.SIGINT, signal.SIGTERM)), WHERE, strict=False):
        for call in (0, 3, 20):
            _reset(parent, kept)
            said = forked(long.words, first=interrupted_in(function, call, number))
            at = f"{long.words}: {number.name} in {function} {call}: {said}"
            if said.code in (0, 1):
                break  # so often is it not called
            assert said.code == 128 + number, at
            assert said.err.splitlines()[-1] == (
                "venvflow: interrupted. Every venv is the old one or the new one, whole. Run again to finish."
            ), at
            assert said.out == "" or long.name == "build", at  # which tells of each task that is done
            ended += 1
            assert everything(arranged) >= before, at
            again = forked(long.words)
            assert again.code == 0 or (again.code == 6 and (parent / "made").exists()), f"{again} after {at}"
            now = everything(arranged)
            assert now >= before, at
            assert not [name for name in now if ".vf-" in name or "vf-new" in name], at
    assert ended > 3


def _reset(directory: Path, kept: Path) -> None:
    here = os.getcwd()
    shutil.rmtree(directory)
    shutil.copytree(kept, directory, symlinks=True)
    os.chdir(here)


@pytest.mark.parametrize("number", first_quick([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
def test_a_second_signal_changes_nothing(number: signal.Signals, ready: Project) -> None:
    """Whoever presses Ctrl-C twice gets the same line and exit code, and no traceback."""

    def twice() -> None:
        interrupted_in("lstat", 3, number)()
        interrupted_in("unlink", 0, number)()

    said = forked("verify --full", first=twice)
    assert said.code == 128 + number
    assert len(said.err.splitlines()) == 1
