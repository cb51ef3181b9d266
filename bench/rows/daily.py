"""Rows 10, 11 and 13: what people wait for every day with one venv: a bump, a first doit, the way back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

from bench import checks, peers
from bench.bumps import bumped, bumps, version
from bench.project import Project, built
from bench.rounds import in_turn
from bench.table import Line
from bench.world import World

_WARM = "uv's cache and the page cache warm; whole processes"


# --------------------------------------------------------------------------- row 10: a bump


def measure_bump(world: World) -> list[Line]:
    """Measure doit after one package of the main input is at another version, one version after the other."""
    name = world.main
    project, place = one_venv(world, "bump", name), world.path("in-place")
    world.say(f"row 10: making {name} twice")
    project.use_lock(bumped(world, name, 0))
    project.run()
    for command in peers.uv_sync(world, bumped(world, name, 0), place):
        world.run(command)
    ours, theirs = itertools.count(1), itertools.count(1)
    contenders: dict[str, Callable[[], float]] = {
        "ours": lambda: _bump(project, name, next(ours)),
        "theirs": lambda: _sync(world, name, next(theirs), place),
    }
    for contender in contenders.values():
        contender()
    _check_bump(world, project, name, place)
    rounds = min(world.rounds, bumps(name) - 1 - world.profiling)
    world.say(f"row 10: {rounds} rounds")
    seconds = in_turn(contenders, rounds)
    if world.profiling:
        project.use_lock(bumped(world, name, next(ours)))
        project.profile(f"row 10: doit after a bump in {name}")
    note = (
        "each run brings a version that was never there; ours also shares, stores and keeps what was before; "
        f"the tree digests of a bumped venv are those of a fresh build in an empty store; {_WARM}"
    )
    job = f"doit, one package of {name} bumped, {checks.count(place):,} files"
    against = "uv pip sync --compile-bytecode in place"
    return [Line(10, job, against, 2.0, seconds["ours"], seconds["theirs"], note=note)]


def one_venv(world: World, directory: str, name: str) -> Project:
    """Return a project with an empty store and one venv, *name*, that is not there yet."""
    return Project(world, directory, {name: {"path": ".venv", "locks": ["requirements.txt"]}})


def _bump(project: Project, name: str, number: int) -> float:
    """Return the seconds that doit takes for a bump."""
    project.use_lock(bumped(project.world, name, number))
    seconds = project.timed()
    checks.installed(project.path(".venv"), version(name, number))
    return seconds


def _sync(world: World, name: str, number: int, place: str) -> float:
    """Return the seconds that uv takes for a bump of the venv at *place*."""
    _, sync = peers.uv_sync(world, bumped(world, name, number), place)
    seconds = world.timed(sync, cwd=world.run_dir)
    checks.installed(place, version(name, number))
    return seconds


def _check_bump(world: World, project: Project, name: str, place: str) -> None:
    """See that the first bump gave both the same venv, and ours what a fresh build gives."""
    checks.compare(place, project.path(".venv"), who="uv in place")
    fresh = one_venv(world, "fresh", name)
    fresh.use_lock(bumped(world, name, 1))
    fresh.run()
    checks.same_trees(project.path(".venv"), fresh.path(".venv"))
    world.put_aside(fresh.root)


# --------------------------------------------------------------------------- row 11: the first doit


def measure_first(world: World) -> list[Line]:
    """Measure doit for the main input when neither venv nor store is there."""
    name = world.main
    project, place = one_venv(world, "first", name), world.path("by-uv")
    project.use_lock(world.lock_file(name))
    sync = peers.uv_sync(world, world.lock_file(name), place)
    ours = partial(_first, project)
    theirs = partial(world.timed, *sync, cwd=world.run_dir)
    ours()
    theirs()
    checks.compare(project.path(".venv"), place, who="ours")
    world.put_aside(place)
    world.say(f"row 11: {world.few_rounds} rounds")
    seconds = in_turn({"ours": ours, "theirs": lambda: _aside(world, theirs(), place)}, world.few_rounds)
    if world.profiling:
        project.forget_all()
        project.profile(f"row 11: first doit for {name}")
    job = f"first doit for {name}, {checks.count(project.path('.venv')):,} files"
    note = f"an empty store before each run; ours is shared, stored and on disk; {_WARM}"
    against = "uv venv + sync --compile-bytecode"
    return [Line(11, job, against, 1.15, seconds["ours"], seconds["theirs"], note=note)]


def _first(project: Project) -> float:
    project.forget_all()
    return project.timed()


def _aside(world: World, seconds: float, place: str) -> float:
    """Move away what took *seconds* to make, and return them."""
    world.put_aside(place)
    return seconds


# --------------------------------------------------------------------------- row 13: a lock changed back


def measure_back(world: World) -> list[Line]:
    """Measure doit when the lock of the main input is again what it was before, and the venv is there."""
    name = world.main
    project = built(world, name, packed=False)
    trees = []
    for number in (1, 0):
        project.use_lock(bumped(world, name, number))
        project.run()
        trees.append(checks.trees(project.path(".venv")))
    if trees[0] == trees[1]:
        raise checks.WrongResult("both locks give the same venv")
    numbers = itertools.cycle((1, 0))
    copy = world.path("linked")
    link = peers.link_copy(world, project.path(".venv"), copy)
    contenders = {
        "ours": lambda: _back(project, name, next(numbers)),
        "theirs": lambda: _aside(world, world.timed(*link, cwd=world.run_dir), copy),
    }
    said = [_said(project, name, number) for number in (1, 0)]
    if not all("restore:" in each and "hit" in each and "built" not in each for each in said):
        raise checks.WrongResult(f"that was no hit:\n{said[0][-500:]}{said[1][-500:]}")
    if checks.trees(project.path(".venv")) != trees[1]:
        raise checks.WrongResult("a hit gives another venv than the build did")
    contenders["theirs"]()
    world.say(f"row 13: {world.rounds} rounds")
    seconds = in_turn(contenders, world.rounds)
    if world.profiling:
        project.use_lock(bumped(world, name, next(numbers)))
        project.profile(f"row 13: a hit over {name}")
    job = f"doit, lock of {name} changed back, {checks.count(project.path('.venv')):,} files"
    note = f"a hit over a venv that is there, which differs in one package; theirs has no venv there; {_WARM}"
    return [Line(13, job, "cp -al", 2.5, seconds["ours"], seconds["theirs"], note=note)]


def _said(project: Project, name: str, number: int) -> str:
    project.use_lock(bumped(project.world, name, number))
    return project.run()


def _back(project: Project, name: str, number: int) -> float:
    """Return the seconds of a hit."""
    project.use_lock(bumped(project.world, name, number))
    seconds = project.timed()
    if number:
        checks.installed(project.path(".venv"), version(name, number))
    return seconds
