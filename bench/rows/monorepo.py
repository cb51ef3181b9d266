"""Row 14: a package that all venvs of a monorepo have is bumped in all of their lock files."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence

from bench import checks
from bench.bumps import BUMPED, blocks_of, bumped, bumps, version
from bench.project import PYTHON, Project
from bench.rounds import in_turn
from bench.table import Line
from bench.world import World

SHARED = "web"
"""The lock file that the venvs of a monorepo take their packages from; in quick runs, ``small``."""

_WARM = "uv's cache and the page cache warm; whole processes"


def measure_shared_bump(world: World) -> list[Line]:
    """Measure doit after a package that all venvs have is bumped in all of their lock files."""
    lock, count = ("small", 3) if world.quick else (SHARED, 20)
    services = [f"s{number:02}" for number in range(count)]
    entries = {name: {"path": f"{name}/.venv", "locks": [f"{name}/requirements.txt"]} for name in services}
    project = Project(world, "monorepo", entries)
    theirs = _InPlace(world, project, services)
    world.say(f"row 14: making {count} venvs twice")
    write_locks(project, services, lock, 0)
    project.run("-n", "2")
    theirs.make()
    ours, others = itertools.count(1), itertools.count(1)

    def our_run() -> float:
        number = next(ours)
        write_locks(project, services, lock, number)
        seconds = project.timed("-n", "2")
        for name in services:
            checks.installed(project.path(name, ".venv"), version(lock, number))
        return seconds

    def their_run() -> float:
        number = next(others)
        write_locks(project, services, lock, number)
        seconds = theirs.timed()
        for name in services:
            checks.installed(theirs.place(name), version(lock, number))
        return seconds

    our_run()
    their_run()
    for name in services:
        checks.compare(theirs.place(name), project.path(name, ".venv"), who="uv in place")
    _check_fresh(world, project, services[-1])
    rounds = min(world.few_rounds, bumps(lock) - 1 - world.profiling)
    world.say(f"row 14: {rounds} rounds")
    seconds = in_turn({"ours": our_run, "theirs": their_run}, rounds)
    if world.profiling:
        write_locks(project, services, lock, next(ours))
        project.profile("row 14: doit after a bump in all venvs", "-n", "2")
    packages = len(_pins(project, services[0]))
    job = f"doit -n 2, one package bumped in {count} venvs of {packages} packages"
    note = (
        "no two venvs have the same packages; each run brings a version that was never there; trees of a "
        f"bumped venv are those of a fresh build; theirs is xargs -P 2; {_WARM}"
    )
    against = "uv pip sync --compile-bytecode in place in each, two at a time"
    return [Line(14, job, against, 1.5, seconds["ours"], seconds["theirs"], note=note)]


def write_locks(project: Project, services: Sequence[str], lock: str, number: int) -> None:
    """Write each service's lock file: that of *lock* after *number* bumps, without a few packages."""
    with open(bumped(project.world, lock, number), encoding="utf-8") as file:
        blocks = list(blocks_of(file.read()))
    for place, name in enumerate(services):
        kept = [block for index, block in enumerate(blocks) if _has(place, index, block, lock)]
        project.write(f"{name}/requirements.txt", "".join(kept))


def _has(service: int, index: int, block: str, lock: str) -> bool:
    """Return whether a service has a package: every one has the bumped one, and lacks a few of the others."""
    return block.startswith(f"{BUMPED[lock]}==") or index % 20 not in (service, (service + 3) % 20)


def _pins(project: Project, name: str) -> set[str]:
    with open(project.path(name, "requirements.txt"), encoding="utf-8") as file:
        return {line.partition("==")[0] for line in file if "==" in line and not line.startswith((" ", "#"))}


class _InPlace:
    """The same venvs without venvflow: each made once by uv, and brought to its lock file in place."""

    def __init__(self, world: World, project: Project, services: Sequence[str]) -> None:
        self._world = world
        self._project = project
        self._services = services

    def place(self, name: str) -> str:
        """Return where the venv of a service is."""
        return self._world.path("in-place-monorepo", name)

    def make(self) -> None:
        """Make all of them."""
        for name in self._services:
            self._world.run(
                [self._world.uv, "venv", "--quiet", "--offline", "--python", PYTHON, self.place(name)]
            )
        self.timed()

    def timed(self) -> float:
        """Return the seconds that it takes to bring all to their lock files, two at a time."""
        sync = (
            f"printf '%s\\n' {' '.join(self._services)} | "
            f"xargs -P 2 -I NAME {shlex.quote(self._world.uv)} pip sync --quiet --offline "
            "--link-mode hardlink --compile-bytecode --require-hashes "
            f"--python {shlex.quote(self.place('NAME'))}/bin/python NAME/requirements.txt"
        )
        return self._world.timed(["sh", "-c", sync], cwd=self._project.root)


def _check_fresh(world: World, project: Project, name: str) -> None:
    """See that a bumped venv is what a fresh build in an empty store makes of its lock file."""
    fresh = Project(world, "fresh", {name: {"path": ".venv", "locks": ["requirements.txt"]}})
    fresh.use_lock(project.path(name, "requirements.txt"))
    fresh.run()
    checks.same_trees(project.path(name, ".venv"), fresh.path(".venv"))
    world.put_aside(fresh.root)
