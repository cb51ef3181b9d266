"""Row 9: the most memory that each step uses on a large venv, its children apart."""

from __future__ import annotations

import os
import sys

from bench import checks, fleet, peak
from bench.project import Project
from bench.synthetic import Shape
from bench.table import Line
from bench.world import World

LIMIT = 200.0
"""What any step may use, in MB."""

_SHAPE = Shape(
    directories=25, modules=150, module_size=5000, data_files=195, data_size=16_000, library_size=16_000_000
)
"""One package; with 100 of them a venv has 50,000 files with their bytecode, and 2 GB."""

_STEPS = ("hash-lockfiles", "build-venv", "squish", "pack", "store", "restore", "trim")


def measure_memory(world: World) -> list[Line]:
    """Measure each step once, in a process of its own, on a synthetic venv (quick: a tenth of it)."""
    packages = 10 if world.quick else 100
    pack = {"pack": {"format": "tar.zst", "level": 3, "output": "dist/"}}
    project = Project(world, "memory", {"large": fleet.entry("large", _SHAPE) | pack})
    project.write("large/requirements.txt", fleet.lock_text(packages, 0))
    peaks = {}
    for step in _STEPS:
        world.say(f"row 9: {step}")
        if step == "restore":
            _forget_venv(world, project)
        peaks[step] = _peak(world, project, "trim" if step == "trim" else f"{step}:large")
    files, size = _size_of(project.path("large", ".venv"))
    job = "peak memory of {} on " + f"{files:,} files, {size / 1e9:.1f} GB"
    note = "largest resident size of one doit process per step, its children apart; one run each"
    if world.quick:
        note += "; a tenth of the size that the target is meant for"
    return [Line(9, job.format(step), "limit", 1.0, (peaks[step],), (LIMIT,), "MB", note) for step in _STEPS]


def _forget_venv(world: World, project: Project) -> None:
    """Move the venv aside, so that it has to be restored."""
    world.put_aside(project.path("large", ".venv"))


def _peak(world: World, project: Project, task: str) -> float:
    output = world.path("peak")
    said = world.run(
        [sys.executable, peak.__file__, output, "doit", task], project.root, settings=project.settings
    )
    if "nothing to do" in said:
        raise checks.WrongResult(f"{task} had nothing to do")
    with open(output, encoding="ascii") as file:
        return int(file.read()) / 1e6


def _size_of(venv: str) -> tuple[int, int]:
    sizes = [os.lstat(os.path.join(venv, path)).st_size for path in checks.files(venv)]
    return len(sizes), sum(sizes)
