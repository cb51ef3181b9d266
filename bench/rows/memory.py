"""Row 9: the most memory that each step and command uses on a large venv, its children apart."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

from bench import checks, fleet, peak
from bench.project import Project
from bench.synthetic import Shape
from bench.table import Line
from bench.world import World

LIMIT = 200.0
"""What any of them may use, in MB."""

_SHAPE = Shape(
    directories=25, modules=150, module_size=5000, data_files=195, data_size=16_000, library_size=16_000_000
)
"""One package; with 100 of them a venv has 50,000 files with their bytecode, and 2 GB."""


class _Step(NamedTuple):
    """One process to measure: its module and words, what comes before, what must be so after it.

    *store* is the name of another store than the project's, in the project's directory.
    """

    words: tuple[str, ...]
    before: Callable[[Project], None] = lambda _: None
    check: Callable[[Project], None] = lambda _: None
    store: str = ""


def measure_memory(world: World) -> list[Line]:
    """Measure each once, in a process of its own, on a synthetic venv (quick: a twentieth of it)."""
    packages = 5 if world.quick else 100
    pack = {"pack": {"format": "tar.zst", "level": 3, "output": "dist/"}}
    project = Project(world, "memory", {"large": fleet.entry("large", _SHAPE) | pack})
    project.write("large/requirements.txt", fleet.lock_text(packages, 0))
    peaks = {}
    for name, step in _STEPS.items():
        world.say(f"row 9: {name}")
        step.before(project)
        peaks[name] = _peak(project, step)
        step.check(project)
    files, size = _size_of(project.path("large", ".venv"))
    job = "peak memory of {} on " + f"{files:,} files, {size / 1e9:.1f} GB"
    note = "largest resident size of one process per step, its children apart; one run each"
    if world.quick:
        note += "; a twentieth of the size that the target is meant for"
    return [Line(9, job.format(name), "limit", 1.0, (peaks[name],), (LIMIT,), "MB", note) for name in _STEPS]


def _peak(project: Project, step: _Step) -> float:
    """Return the MB that a step's process used at most. Raises WrongResult if it had nothing to do."""
    output = project.world.path("peak")
    command = [sys.executable, peak.__file__, output, *step.words]
    store = {"VENVFLOW_STORE": project.path(step.store)} if step.store else project.settings
    said = project.world.run(command, project.root, settings=store)
    if "nothing to do" in said or ": kept" in said:
        raise checks.WrongResult(f"{' '.join(step.words)} had nothing to do")
    with open(output, encoding="ascii") as file:
        return int(file.read()) / 1e6


def _size_of(venv: str) -> tuple[int, int]:
    sizes = [os.lstat(os.path.join(venv, path)).st_size for path in checks.files(venv)]
    return len(sizes), sum(sizes)


# --------------------------------------------------------------------------- before and after


def _forget_venv(project: Project) -> None:
    """Move the venv aside, so that it has to be restored."""
    project.world.put_aside(project.path("large", ".venv"))


def _is_unpacked(project: Project) -> None:
    made, expected = (checks.count(project.path(*words)) for words in (("unpacked",), ("large", ".venv")))
    if abs(made - expected) > 5:
        raise checks.WrongResult(f"{made} files were unpacked, not {expected}")


def _is_shared(project: Project) -> None:
    _check_links(project.path("unpacked"), most=False)


def _is_private(project: Project) -> None:
    _check_links(project.path("large", ".venv"), most=True)


def _check_links(venv: str, *, most: bool) -> None:
    """Raise WrongResult unless (almost) every file has one name (*most*), or more than one."""
    paths = list(checks.files(venv))
    private = sum(os.lstat(os.path.join(venv, path)).st_nlink == 1 for path in paths)
    if (private > 0.95 * len(paths)) is not most:
        raise checks.WrongResult(f"{private} of {len(paths)} files of {venv} are private")


def _task(name: str, before: Callable[[Project], None] = lambda _: None) -> _Step:
    return _Step(("doit", name), before)


_STEPS: Mapping[str, _Step] = {
    "hash-lockfiles": _task("hash-lockfiles:large"),
    "build-venv": _task("build-venv:large"),
    "squish": _task("squish:large"),
    "pack": _task("pack:large"),
    "store": _task("store:large"),
    "restore": _task("restore:large", _forget_venv),
    "trim": _task("trim"),
    "verify --full": _Step(("venvflow", "verify", "--full")),
    "list": _Step(("venvflow", "list")),
    "stats": _Step(("venvflow", "stats")),
    "unpack": _Step(("venvflow", "unpack", "dist/large.tar.zst", "unpacked"), check=_is_unpacked),
    # Into a store of its own, as somebody would begin with a venv that venvflow does not know.
    "squish PATH": _Step(("venvflow", "squish", "unpacked"), check=_is_shared, store="other-store"),
    "unsquish": _Step(("venvflow", "unsquish", "large"), check=_is_private),
}
"""In the order in which they are run: each starts from what those before it left."""
