"""Somebody changes modes and owners, or puts links into the way: nothing is lost, nothing outside touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from random import Random
from typing import TypeVar

import pytest
from fixtures import MADE, memory, sample, server, shim, world
from parts import CHANGES, DIRECTORIES, PARTS, disturbed, part, plant
from rehearsal import Rehearsal, rehearsed
from scenes import SCENES, Scene
from shim import Answer
from worlds import World, interesting

__all__ = ["memory", "sample", "server", "shim", "world"]

pytestmark = pytest.mark.slow

T = TypeVar("T")

FEW = 3
"""Cases of a scene that are tried, unless all are."""

CODES = (0, 1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_modes_and_owners_are_met_with_words(world: World, scene: Scene, sample: int | None) -> None:
    """Before the action and in the middle of it, as an ordinary user; taken back, the next run works."""
    rehearsal = rehearsed(world, scene)
    moments = (0, 1 + rehearsal.calls // 2)
    for pattern, change, call in _some([*product(PARTS, CHANGES, moments)], sample, scene.name):
        world.reset()
        path = part(world, pattern)
        if path is None or (change.owner >= 0 and os.geteuid() != 0):
            continue
        answer, undo = _acted(rehearsal, call, partial(change.make, path))
        at = f"{change.name} of {pattern} at call {call}: {answer.code}\n{answer.output}"
        MADE[change.name] += 1
        _ended_well(answer, at)
        undo()
        _goes_on(rehearsal, at)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_links_in_the_way_lead_nowhere(world: World, scene: Scene, sample: int | None) -> None:
    """A directory is replaced by a link before the action, or in the middle of it: what is behind is safe."""
    rehearsal = rehearsed(world, scene)
    behind = world.base / "behind"
    moments = (0, *interesting(rehearsal.calls, 8))
    for pattern, call in _some([*product(DIRECTORIES, moments)], sample, scene.name):
        world.reset()
        path = part(world, pattern)
        if path is None:
            continue
        answer, undo = _acted(rehearsal, call, partial(plant, path, behind))
        at = f"link: {pattern} at call {call} ({answer.call}): {answer.code}\n{answer.output}"
        MADE["planted link"] += 1
        _ended_well(answer, at)
        # Of a project it may be the user's own link when a step begins: a venv behind it is made there.
        assert not disturbed(behind, whole=pattern.startswith("store/")), at
        undo()
        _goes_on(rehearsal, at)


def _acted(
    rehearsal: Rehearsal, call: int, change: Callable[[], Callable[[], None]]
) -> tuple[Answer, Callable[[], None]]:
    """Do the action of the scene, with a *change* before it, or when it has come to a *call*."""
    world, action = rehearsal.world, rehearsal.scene.action
    if not call:
        undo = change()
        return world.server.do(action, world.root, ordinary=True), undo
    stopped = world.server.do(action, world.root, "stop", call, ordinary=True)
    if not stopped.stopped:  # the order of threads is not always the same
        return stopped, lambda: None
    try:
        undo = change()
    except FileNotFoundError:  # by now it is not there any more
        return world.server.go_on(stopped), lambda: None
    return world.server.go_on(stopped), undo


def _ended_well(answer: Answer, at: str) -> None:
    assert answer.code in CODES, at
    assert "Traceback" not in answer.output, at
    assert "should not happen" not in answer.output, at
    assert answer.code == 0 or answer.output.strip(), at


def _goes_on(rehearsal: Rehearsal, at: str) -> None:
    """Do the action once more, now that all is as it should be."""
    world, scene = rehearsal.world, rehearsal.scene
    again = world.server.do(scene.action, world.root)
    assert again.code in scene.again, f"{again.code}: {again.output}\nafter {at}"
    if not scene.damaged:  # who edited what is shared may be told from who can be read
        assert rehearsal.looks() == rehearsal.after, f"not finished after {at}"
    world.done("trimmed")
    assert not list(world.wrong()), f"{list(world.wrong())} in the end, after {at}"
    assert not world.litter(), f"{world.litter()} after {at}"


def _some(cases: Sequence[T], sample: int | None, seed: str) -> Sequence[T]:
    """Return all cases, or a few that the *seed* chooses."""
    return cases if sample is None else Random(seed).sample(cases, FEW)
