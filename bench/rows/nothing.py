"""Rows 2 and 12: doit with nothing to do, for 100 venvs and for a large one, against doit alone."""

from __future__ import annotations

import os
import sys
from functools import partial

from bench import checks
from bench.checks import WrongResult
from bench.fleet import PACKAGES, make_fleet
from bench.project import Project, built
from bench.rounds import in_turn
from bench.table import Line
from bench.world import World

VENVS = 100
TASKS_PER_VENV = 7

_DODO = """\
def task_empty():
    for number in range({tasks}):
        yield {{"name": str(number), "actions": [empty], "file_dep": [f"inputs/{{number // {each}}}"]}}


def empty():
    pass
"""


_NOTE = "page cache warm; same interpreter and doit, which uses its default backend; whole processes"


def measure_nothing_to_do(world: World) -> list[Line]:
    """Measure a run of a fleet that is up to date."""
    world.say(f"row 2: making {VENVS} venvs, unless an earlier run did")
    packages = 8 if world.quick else PACKAGES
    fleet = make_fleet(world, world.kept(f"fleet-{packages}"), VENVS, packages=packages, bytecode="none")
    _check(fleet)
    seconds = _in_turn(world, 2, fleet, VENVS)
    fleet.profile("row 2: doit with nothing to do")
    watched = f"{_directories(fleet)} directories in each venv, bytecode caches (not watched) left out"
    job, against = f"doit, nothing to do, {VENVS} venvs", f"doit, {VENVS * TASKS_PER_VENV} empty tasks"
    return [Line(2, job, against, 1.5, seconds["ours"], seconds["theirs"], note=f"{watched}; {_NOTE}")]


def measure_nothing_to_do_once(world: World) -> list[Line]:
    """Measure a run of one venv, the main input, that is up to date."""
    name = world.main
    project = built(world, name, packed=False)
    _check_nothing(project)
    seconds = _in_turn(world, 12, project, 1)
    project.profile(f"row 12: doit with nothing to do, {name}")
    job = f"doit, nothing to do, {name}, {checks.count(project.path('.venv')):,} files"
    against = f"doit, {TASKS_PER_VENV} empty tasks"
    return [Line(12, job, against, 2.5, seconds["ours"], seconds["theirs"], note=_NOTE)]


def _in_turn(world: World, row: int, project: Project, venvs: int) -> dict[str, tuple[float, ...]]:
    """Return the seconds of doit in the *project*, and of doit with empty tasks for as many *venvs*."""
    bare = _empty_tasks(world, venvs)
    alone = partial(world.timed, [sys.executable, "-m", "doit"], cwd=bare)
    alone()
    rounds = 3 * world.rounds
    world.say(f"row {row}: {rounds} rounds")
    return in_turn({"ours": project.timed, "theirs": alone}, rounds)


def _empty_tasks(world: World, venvs: int) -> str:
    """Make a project of empty tasks, with one input for every seven, as *venvs* have locks; run it."""
    root, tasks = world.path(f"empty-tasks-{venvs}"), venvs * TASKS_PER_VENV
    os.makedirs(os.path.join(root, "inputs"))
    with open(os.path.join(root, "dodo.py"), "w", encoding="ascii") as file:
        file.write(_DODO.format(tasks=tasks, each=TASKS_PER_VENV))
    for number in range(venvs):
        with open(os.path.join(root, "inputs", str(number)), "w", encoding="ascii") as file:
            file.write(f"{number}\n")
    world.run([sys.executable, "-m", "doit"], root)
    said = world.run([sys.executable, "-m", "doit"], root)
    if said.count("-- empty:") != tasks:
        raise WrongResult(f"doit alone is not up to date:\n{said[-500:]}")
    return root


def _check(fleet: Project) -> None:
    _check_nothing(fleet)
    made = sum(
        os.path.exists(fleet.path(f"v{number:04}", ".venv", "bin", "python")) for number in range(VENVS)
    )
    if made != VENVS:
        raise WrongResult(f"only {made} venvs were made")


def _check_nothing(project: Project) -> None:
    project.run()  # what one run made, the next one may want to look at once
    said = project.run()
    if "nothing to do" not in said:
        raise WrongResult(f"the project is not up to date:\n{said[-500:]}")


def _directories(fleet: Project) -> int:
    """Return how many directories one venv has, bytecode caches apart."""
    walk = os.walk(fleet.path("v0000", ".venv"))
    return sum(os.path.basename(directory) != "__pycache__" for directory, _, _ in walk)
