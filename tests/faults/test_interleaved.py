"""One action stopped at its calls while another runs to its end, then the first goes on: both end well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fixtures import MADE, memory, sample, shim, world
from rehearsal import rehearsed
from scenes import SCENES, Scene
from shim import Server
from worlds import World

__all__ = ["memory", "sample", "shim", "world"]

pytestmark = pytest.mark.slow

PATIENCE = "0.3"
"""Seconds for which the other action waits for the stopped one's locks."""

BLOCKED = 5


@pytest.fixture(scope="module")
def server(shim: Path, memory: Path) -> Iterator[Server]:
    """Give a server whose actions wait shortly for locks: who holds them is stopped."""
    server = Server(shim, memory, patience=PATIENCE)
    yield server
    server.end()


@dataclass(frozen=True)
class Pair:
    """Two actions at once, from the beginning of a scene that has the first; *other* is done meanwhile."""

    first: Scene
    other: str

    def __str__(self) -> str:
        return f"{self.first.name}, {self.other} meanwhile"


_BY_NAME = {scene.name: scene for scene in SCENES}
PAIRS = (
    Pair(_BY_NAME["a restore over another venv"], "trimmed"),
    Pair(_BY_NAME["a restore where nothing is"], "erased"),
    Pair(_BY_NAME["a build after a change"], "trimmed"),
    Pair(_BY_NAME["a build after a change"], "flow"),
    Pair(_BY_NAME["squish"], "trimmed"),
    Pair(_BY_NAME["squish"], "squished"),
    Pair(_BY_NAME["unsquish"], "erased"),
    Pair(_BY_NAME["pack"], "erased"),
    Pair(_BY_NAME["a trim"], "restored"),
    Pair(_BY_NAME["a trim"], "flow"),
    Pair(_BY_NAME["erase"], "flow"),
)


OFTEN = {
    ("a restore over another venv", "trimmed"),
    ("a build after a change", "flow"),
    ("squish", "squished"),
    ("unsquish", "erased"),
    ("a trim", "restored"),
}
"""What ``make test`` tries; ``make long`` and ``make faults`` try all."""


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(
            pair, marks=[] if (pair.first.name, pair.other) in OFTEN else [pytest.mark.long], id=str(pair)
        )
        for pair in PAIRS
    ],
)
def test_both_end_well(world: World, pair: Pair, sample: int | None) -> None:
    """The other one waits in vain, or does its work; the venvs are whole and the store is sound after all."""
    scene = pair.first
    rehearsal = rehearsed(world, scene)
    for call in rehearsal.faulty_calls(sample):
        world.reset()
        stopped = world.server.do(scene.action, world.root, "stop", call)
        if not stopped.stopped:  # the order of threads is not always the same
            continue
        MADE["stop"] += 1
        other = world.server.do(pair.other, world.root)
        first = world.server.go_on(stopped)
        said = f"first: {first.output}\nother: {other.output}"
        at = f"stopped at call {call} of {rehearsal.calls} ({stopped.call})\n{said}"
        assert other.code in (0, 1, BLOCKED), f"{other.code}: {at}"
        assert first.code in (0, 1, BLOCKED), f"{first.code}: {at}"
        assert "Traceback" not in first.output + other.output, at
        assert not rehearsal.mixtures(), f"{rehearsal.mixtures()} are mixtures: {at}"
        assert not list(world.wrong()), f"{list(world.wrong())} {at}"
        world.done("flow")
        world.done("trimmed")
        assert not list(world.wrong()), f"{list(world.wrong())} in the end, {at}"
        assert not world.litter(), f"{world.litter()} {at}"
