"""Row 2: doit with nothing to do for 100 venvs, against doit itself with 700 empty tasks."""

from __future__ import annotations

import os
import sys
from functools import partial

from bench.checks import WrongResult
from bench.fleet import PACKAGES, make_fleet
from bench.project import Project
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


def measure_nothing_to_do(world: World) -> list[Line]:
    """Measure a run of a fleet that is up to date."""
    world.say(f"row 2: making {VENVS} venvs, unless an earlier run did")
    packages = 8 if world.quick else PACKAGES
    fleet = make_fleet(world, world.kept(f"fleet-{packages}"), VENVS, packages=packages, bytecode="none")
    bare = _empty_tasks(world)
    _check(fleet)
    ours = partial(fleet.timed)
    theirs = partial(world.timed, [sys.executable, "-m", "doit"], cwd=bare)
    world.timed([sys.executable, "-m", "doit"], cwd=bare)
    rounds = 3 * world.rounds
    world.say(f"row 2: {rounds} rounds")
    seconds = in_turn({"ours": ours, "theirs": theirs}, rounds)
    fleet.profile("row 2: doit with nothing to do")
    note = (
        f"{_directories(fleet)} directories in each venv, bytecode caches (which are not watched) left out; "
        "page cache warm; same interpreter and doit, which uses its default backend; whole processes"
    )
    return [
        Line(
            2, f"doit, nothing to do, {VENVS} venvs", f"doit, {VENVS * TASKS_PER_VENV} empty tasks", 1.5,
            seconds["ours"], seconds["theirs"], note=note,
        )
    ]  # fmt: skip


def _empty_tasks(world: World) -> str:
    """Make a project of empty tasks, with one input for every seven, as a fleet has locks; run it."""
    root = world.path("empty-tasks")
    os.makedirs(os.path.join(root, "inputs"))
    with open(os.path.join(root, "dodo.py"), "w", encoding="ascii") as file:
        file.write(_DODO.format(tasks=VENVS * TASKS_PER_VENV, each=TASKS_PER_VENV))
    for number in range(VENVS):
        with open(os.path.join(root, "inputs", str(number)), "w", encoding="ascii") as file:
            file.write(f"{number}\n")
    world.run([sys.executable, "-m", "doit"], root)
    said = world.run([sys.executable, "-m", "doit"], root)
    if said.count("-- empty:") != VENVS * TASKS_PER_VENV:
        raise WrongResult(f"doit alone is not up to date:\n{said[-500:]}")
    return root


def _check(fleet: Project) -> None:
    fleet.run()  # what one run made, the next one may want to look at once
    said = fleet.run()
    if "nothing to do" not in said:
        raise WrongResult(f"the fleet is not up to date:\n{said[-500:]}")
    made = sum(
        os.path.exists(fleet.path(f"v{number:04}", ".venv", "bin", "python")) for number in range(VENVS)
    )
    if made != VENVS:
        raise WrongResult(f"only {made} venvs were made")


def _directories(fleet: Project) -> int:
    """Return how many directories one venv has, bytecode caches apart."""
    walk = os.walk(fleet.path("v0000", ".venv"))
    return sum(os.path.basename(directory) != "__pycache__" for directory, _, _ in walk)
