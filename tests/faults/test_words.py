"""What an error says of the state of things is true: words like "nothing was changed" against the disk."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from contents import picture
from fixtures import MADE, memory, sample, server, shim, world
from rehearsal import Rehearsal, rehearsed
from scenes import SINGLE, Scene
from worlds import World, interesting, look

__all__ = ["memory", "sample", "server", "shim", "world"]

pytestmark = pytest.mark.slow

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)

Contents = Mapping[str, object]


def _venvs(root: Path) -> Contents:
    return {name: look(root / name) for name in ("p/api/.venv", "one", "two")}


def _published(root: Path) -> Contents:
    """Return the snapshots, and all that they and venvs need."""
    return {part: picture(root / "store" / part) for part in ("objects", "trees", "snapshots", "venvs")}


def _made(root: Path) -> Contents:
    """Return what is made for people: archives and directories."""
    return {part: picture(root / part) for part in ("out", "three", "four")}


def _snapshots(root: Path) -> Contents:
    return picture(root / "store" / "snapshots")


def _everything(root: Path) -> Contents:
    return {**_venvs(root), **_made(root), "snapshots": _snapshots(root)}


CLAIMS: tuple[tuple[str, Callable[[Path], Contents]], ...] = (
    (r"nothing (was|has been) (changed|done|touched|deleted|erased|built|run)", _everything),
    (r"nothing (was|is) (stored|published|written or published)|was not stored", _snapshots),
    (r"nothing was (written|unpacked|exported|put in place)", _made),
    (
        r"(no venv was changed|(the|every) venv[^.;]* (is|was) unchanged|what is at its place is unchanged)",
        _venvs,
    ),
    (r"the venv and its key are as they were|it was left as it is|there is none now", _venvs),
    (r"(the|every) venv (is|was) as it was", _venvs),
    (r"the venv and the store are as they were", lambda root: {**_venvs(root), **_published(root)}),
)
"""What is said, and what must be as it was then."""

WHOLE = r"old one or the new one|at the venv's place is whole|holds what it held"
LITTER = r"nothing half-written is kept( in the store)?"


def lies(rehearsal: Rehearsal, text: str, before: Mapping[str, Contents]) -> list[str]:
    """Return which of the words in *text* are not true of the world."""
    world = rehearsal.world
    told = [said for said, look_at in CLAIMS if _says(said, text) and look_at(world.root) != before[said]]
    if _says(WHOLE, text) and rehearsal.mixtures():
        told.append(f"{WHOLE}: {rehearsal.mixtures()}")
    where = _says(LITTER, text)
    if where and any(path.startswith("store/tmp/" if where[1] else "") for path in world.litter()):
        told.append(f"{LITTER}: {world.litter()}")
    return told


def _says(words: str, text: str) -> re.Match[str] | None:
    return re.search(words, text, re.IGNORECASE)


@pytest.mark.parametrize("scene", SINGLE, ids=lambda scene: scene.name)
def test_errors_tell_the_truth(world: World, scene: Scene, sample: int | None) -> None:
    """Every call fails once, in every way, and the words are held against the disk."""
    rehearsal = rehearsed(world, scene)
    world.reset()
    before = {said: look_at(world.root) for said, look_at in CLAIMS}
    found = []
    for call, error in _faults(rehearsal, sample):
        world.reset()
        answer = world.server.do(scene.action, world.root, "once", call, error)
        MADE["error in words"] += bool(answer.fired)
        told = lies(rehearsal, answer.output, before) if answer.code else []
        if told:
            why = f"{errno.errorcode[error]} at call {call} of {rehearsal.calls} ({answer.call})"
            found.append(f"{why}: {told}\n  {answer.output}")
    assert not found, "\n".join([f"{len(found)} untrue:", *found])


def _faults(rehearsal: Rehearsal, sample: int | None) -> list[tuple[int, int]]:
    """Return calls, and the error of each: all in all ways, or a few in one way each."""
    calls = interesting(rehearsal.calls, sample)
    if sample is None:
        return [(call, error) for call in calls for error in ERRORS]
    return [(call, ERRORS[number % len(ERRORS)]) for number, call in enumerate(calls)]
