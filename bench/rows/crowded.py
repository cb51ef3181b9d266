"""Row 8: what one does every day, with 1,000 snapshots in the store, against the same with one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import partial

from bench import checks, fleet
from bench.crowd import add_snapshots
from bench.project import Project
from bench.rounds import in_turn
from bench.synthetic import Shape
from bench.table import Line
from bench.world import World
from venvflow.model import StoreConfig

SNAPSHOTS = 1000

_SHAPE = Shape(directories=8, modules=40, module_size=1500)

_NOTE = (
    "the same synthetic venv in both; the other 999 snapshots differ from it by one package each, 24 of its "
    "files; stores and page cache warm; whole processes of venvflow; {particular}"
)

_Measured = Callable[[Project], float]


def measure_crowded(world: World) -> list[Line]:
    """Measure restore, list, explain (of a miss) and trim, in both projects in turn."""
    packages = 20 if world.quick else 100
    alone = _project(world, "alone", packages)
    crowded = _project(world, "crowded", packages)
    _fill(world, crowded)
    for project, number in ((alone, 1), (crowded, SNAPSHOTS)):
        _check(project, number)
    files = checks.count(alone.path("v", ".venv"))
    lines = []
    for job, (measure, particular) in _JOBS.items():
        if job == "explain" and not _is_there(alone, job):
            lines.append(_skipped(job, "this venvflow has no such command"))
            continue
        world.say(f"row 8: {world.rounds} rounds of {job}")
        for project in (alone, crowded):
            measure(project)
        contenders = {"crowded": partial(measure, crowded), "alone": partial(measure, alone)}
        seconds = in_turn(contenders, world.rounds)
        note = _NOTE.format(particular=particular)
        what = f"{job} with {SNAPSHOTS:,} snapshots, a venv of {files:,} files"
        lines.append(Line(8, what, "with 1", 1.3, seconds["crowded"], seconds["alone"], note=note))
    _profile(crowded)
    return lines


def _skipped(job: str, reason: str) -> Line:
    return Line(8, f"{job} with {SNAPSHOTS:,} snapshots", "with 1", 1.3, skipped=reason)


def _is_there(project: Project, command: str) -> bool:
    return command in project.venvflow("--help")


# --------------------------------------------------------------------------- the two stores


def _project(world: World, name: str, packages: int) -> Project:
    """Return a project with one synthetic venv that is stored, kept between runs."""
    entries = {"v": fleet.entry("v", _SHAPE)}
    project = Project(world, world.kept(f"{name}-{packages}"), entries, durability="none")
    world.put_aside(project.path("finished"))
    _use_lock(project, packages, version=0)
    project.run()
    return project


def _use_lock(project: Project, packages: int, version: int) -> None:
    project.write(os.path.join("v", "requirements.txt"), fleet.lock_text(packages, version))


def _fill(world: World, project: Project) -> None:
    """Bring the store to the number of snapshots, if a run before did not."""
    missing = SNAPSHOTS - len(_listed(project))
    if missing:
        world.say(f"row 8: adding {missing} snapshots")
        add_snapshots(StoreConfig(project.store, durability="none"), missing)
        project.venvflow("trim")  # after so many changes, the first one has more to do


def _listed(project: Project) -> list[Mapping[str, object]]:
    document = json.loads(project.venvflow("list", "--json"))
    return list(document["snapshots"])


def _check(project: Project, number: int) -> None:
    """Raise WrongResult unless the store has that many snapshots, and trim would drop none of them."""
    listed = _listed(project)
    unlike = sum(bool(each["unique_size"]) for each in listed)
    if len(listed) != number or unlike < max(1, number - 1):  # the first has nothing that no other has
        raise checks.WrongResult(f"{len(listed)} snapshots are listed, {unlike} with bytes of their own")
    document = json.loads(project.venvflow("trim", "--json"))
    if len(document["keep"]) != number or document["drop"]:
        raise checks.WrongResult(f"trim keeps {len(document['keep'])} snapshots of {number}")


# --------------------------------------------------------------------------- the jobs


def _restore(project: Project) -> float:
    """Return the seconds of a restore; the venv that was there is moved aside before."""
    place = project.path("v", ".venv")
    before = checks.count(place)
    project.world.put_aside(place)
    seconds = project.timed_venvflow("restore", "v")
    if checks.count(place) != before:
        raise checks.WrongResult(f"{checks.count(place)} files were restored, not {before}")
    return seconds


def _explain(project: Project) -> float:
    """Return the seconds of explaining a miss: the lock file is one that was never built."""
    lock = project.path("v", "requirements.txt")
    with open(lock, encoding="ascii") as file:
        before = file.read()
    project.write(lock, before.replace("==0", "==never", 1))
    try:
        return project.timed_venvflow("explain", "v")
    finally:
        project.write(lock, before)


_JOBS: Mapping[str, tuple[_Measured, str]] = {
    "restore": (_restore, "the venv's place is empty"),
    "list": (lambda project: project.timed_venvflow("list"), "a line for each snapshot"),
    "explain": (_explain, "of a miss, which looks for the nearest snapshot"),
    "trim": (lambda project: project.timed_venvflow("trim"), "a line for each snapshot, nothing to drop"),
}


def _profile(project: Project) -> None:
    for job in ("list", "trim"):
        argv = project.world.venvflow(job)
        project.world.profile(f"row 8: {job}", argv, project.root, settings=project.settings)
