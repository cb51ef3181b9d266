"""Death, a failing disk and a full one at the calls of every action: nothing is lost."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest
from contents import needs_root
from fixtures import MADE, memory, sample, server, shim, world
from rehearsal import Rehearsal, rehearsed
from scenes import LAYERED, SCENES, Scene
from shim import Answer
from worlds import LayeredWorld, World

__all__ = ["memory", "sample", "server", "shim", "world"]

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Fault:
    """A kind of fault, and the exit codes that an action may end with when it happens."""

    name: str
    mode: Literal["kill", "once", "lasting"]
    error: int
    codes: tuple[int, ...]


FAULTS = (
    Fault("kill", "kill", 0, (-9,)),
    Fault("one failing call", "once", errno.EIO, (0, 3)),
    Fault("full disk", "lasting", errno.ENOSPC, (0, 3)),
)


EACH = 3
"""How many calls of an action get a fault of each kind, unless all do."""


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_nothing_is_lost_and_the_next_run_finishes(world: World, scene: Scene, sample: int | None) -> None:
    """Each venv looks as before or as after, the store is sound, and doing it again leads to the end."""
    rehearsal = rehearsed(world, scene)
    for fault, calls in _dealt(rehearsal, sample):
        _interrupt(rehearsal, fault, calls)


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("scene", LAYERED, ids=lambda scene: scene.name)
@pytest.mark.parametrize("world", [LayeredWorld], indirect=True, ids=[""])
def test_so_it_is_with_what_lies_in_a_layer_of_an_image(
    world: World, scene: Scene, sample: int | None
) -> None:
    """No directory of it can be moved; each venv looks as before or as after once the next run has begun."""
    rehearsal = rehearsed(world, scene)
    for fault in FAULTS if sample is None else FAULTS[:1]:
        _interrupt(rehearsal, fault, rehearsal.faulty_calls(sample), layered=True)


def _dealt(rehearsal: Rehearsal, sample: int | None) -> Iterator[tuple[Fault, list[int]]]:
    """Yield each kind of fault with its calls: of a sample, each kind gets others than the kinds before."""
    calls = rehearsal.faulty_calls(None if sample is None else EACH * len(FAULTS))
    for number, fault in enumerate(FAULTS):
        few = sample is None or len(calls) < EACH * len(FAULTS)
        yield fault, calls if few else calls[number :: len(FAULTS)]


def _interrupt(rehearsal: Rehearsal, fault: Fault, calls: list[int], *, layered: bool = False) -> None:
    """Let a fault happen at each of the *calls*; *layered*: venvs may be mixtures until the next run."""
    world, scene = rehearsal.world, rehearsal.scene
    for call in calls:
        world.reset()
        answer = world.server.do(scene.action, world.root, fault.mode, call, fault.error)
        at = f"{fault.name} at call {call} of {rehearsal.calls} ({answer.call})\n{answer.output}"
        MADE[f"{fault.name}{' in an image' * layered}"] += bool(answer.fired)
        _ended_as_it_may(fault, answer, at)
        assert layered or not rehearsal.mixtures(), f"{rehearsal.mixtures()} are mixtures: {at}"
        wrong = list(world.wrong(rows=fault.mode == "kill"))  # else the index may be out of reach
        assert scene.damaged or not wrong, f"{wrong} {at}"
        _finishes(rehearsal, at)


def _ended_as_it_may(fault: Fault, answer: Answer, at: str) -> None:
    # The order of threads is not always the same, so the last calls may not be reached.
    assert answer.code in (fault.codes if answer.fired else (0,)), at
    assert "Traceback" not in answer.output, at
    if answer.code == 3:
        assert answer.output.strip(), at


def _finishes(rehearsal: Rehearsal, at: str) -> None:
    world, scene = rehearsal.world, rehearsal.scene
    again = world.server.do(scene.action, world.root)
    assert again.code in scene.again, f"{again.code}: {again.output}\nafter {at}"
    assert rehearsal.looks() == rehearsal.after, f"not finished after {at}"
    world.done("trimmed")
    wrong = list(world.wrong())
    assert not wrong, f"{wrong} in the end, after {at}"
    assert not world.litter(), f"{world.litter()} after {at}"
