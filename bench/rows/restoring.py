"""Row 1: the restore of a compiled venv where there is none, against linking, building and copying it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from bench import checks, peers
from bench.project import Project, built
from bench.rounds import in_turn
from bench.table import Line
from bench.world import Unavailable, World

_NOTE = (
    "no venv at the place; store, uv's cache, the other's cache and the page cache warm; whole processes; "
    "what was made is moved aside after each run and compared with the finished venv before any timing"
)


class _Peer(NamedTuple):
    name: str
    target: float
    prepare: Callable[[], peers.Commands]


def measure_restore(world: World) -> list[Line]:
    """Measure the restore of the main input, for each peer that is there."""
    name = world.main
    project = built(world, name)
    place, finished = project.path(".venv"), project.path("finished")
    os.rename(place, finished)
    known = _peers(world, project, name)
    contenders: dict[str, peers.Commands] = {"ours": [world.venvflow("restore", name)]}
    skipped = {}
    for peer in known:
        try:
            contenders[peer.name] = peer.prepare()
        except Unavailable as error:
            skipped[peer.name] = str(error)
    for who, commands in contenders.items():
        _check(world, project, who, commands)
    world.say(f"row 1: {world.rounds} rounds of {', '.join(contenders)}")
    seconds = in_turn(
        {who: partial(_time, world, project, commands) for who, commands in contenders.items()}, world.rounds
    )
    _profile(world, project, name)
    job = f"restore of compiled {name}, {checks.count(finished):,} files"
    os.rename(finished, place)
    note = f"ours is `python -m venvflow restore {name}`; {_NOTE}"
    return [
        Line(1, job, peer.name, peer.target, skipped=skipped[peer.name])
        if peer.name in skipped
        else Line(1, job, peer.name, peer.target, seconds["ours"], seconds[peer.name], note=note)
        for peer in known
    ]


def _peers(world: World, project: Project, name: str) -> list[_Peer]:
    place, finished = project.path(".venv"), project.path("finished")
    lock = world.lock_file(name)
    return [
        _Peer("cp -al", 1.5, partial(peers.link_copy, world, finished, place)),
        _Peer("uv venv + sync --compile-bytecode", 0.1, partial(peers.uv_sync, world, lock, place)),
        _Peer(
            "virtualenv-cache restore", 0.1,
            partial(peers.virtualenv_cache, world, project, finished, place),
        ),
    ]  # fmt: skip


def _profile(world: World, project: Project, name: str) -> None:
    ours = world.venvflow("restore", name)
    world.profile(f"row 1: restore of {name}", ours, project.root, settings=project.settings)
    world.put_aside(project.path(".venv"))


def _check(world: World, project: Project, who: str, commands: peers.Commands) -> None:
    """Run *commands* once, which warms everything, and compare what they made with the finished venv."""
    _time(world, project, commands, check=partial(checks.compare, who=who))


def _time(
    world: World,
    project: Project,
    commands: peers.Commands,
    *,
    check: Callable[[str, str], None] | None = None,
) -> float:
    place, finished = project.path(".venv"), project.path("finished")
    seconds = world.timed(*commands, cwd=project.root, settings=project.settings)
    (check or _count)(place, finished)
    world.put_aside(place)
    return seconds


def _count(place: str, finished: str) -> None:
    made, expected = checks.count(place), checks.count(finished)
    if abs(made - expected) > 0.01 * expected:
        raise checks.WrongResult(f"{made} files were made, not {expected}")
