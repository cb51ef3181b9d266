"""Row 6: unpacking, every path checked, against tar of the same archive."""

from __future__ import annotations

import os
from functools import partial

from bench import checks
from bench.project import Project, built
from bench.rounds import in_turn
from bench.table import Line
from bench.world import World


def measure_unpack(world: World) -> list[Line]:
    """Measure ``venvflow unpack`` of the main input as zstd."""
    name = world.main
    project = built(world, name)
    archive = project.path("dist", f"{name}.tar.zst")
    ours = world.venvflow("unpack", archive, project.path("place"))
    theirs = [world.tool("tar"), "--zstd", "-xf", archive, "-C", project.path("place")]
    _time(project, [ours])
    _time(project, [theirs], make=True)
    world.say(f"row 6: {world.rounds} rounds of ours, tar")
    seconds = in_turn(
        {"ours": partial(_time, project, [ours]), "theirs": partial(_time, project, [theirs], make=True)},
        world.rounds,
    )
    world.profile(f"row 6: unpack of {name}", ours, project.root)
    note = (
        "ours also compares the whole archive with its SHA-256, refuses what is unsafe, links the "
        "interpreter and fills in scripts and RECORDs; page cache warm; whole processes; files are counted "
        "after each run"
    )
    job = f"unpack of {name}, {checks.count(project.path('.venv')):,} files"
    return [Line(6, job, "tar --zstd -xf", 1.2, seconds["ours"], seconds["theirs"], note=note)]


def _time(project: Project, commands: list[list[str]], *, make: bool = False) -> float:
    """Return the seconds of unpacking to a place that is not there (*make*: that is empty)."""
    place = project.path("place")
    if make:
        os.mkdir(place)
    seconds = project.world.timed(*commands, cwd=project.root)
    made, expected = checks.count(place), checks.count(project.path(".venv"))
    if abs(made - expected) > 5:
        raise checks.WrongResult(f"{made} files were unpacked, not {expected}")
    project.world.put_aside(place)
    return seconds
