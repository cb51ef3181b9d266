"""Row 4: squish and store of a venv that differs in one package from a stored one, against the first."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from functools import partial

from bench import checks
from bench.project import Project
from bench.table import Line
from bench.world import World

_NOTE = (
    "an empty store before each pair, made durable; venvs built by uv, linked from its warm cache; "
    "building is not timed"
)


def measure_second_squish(world: World) -> list[Line]:
    """Measure both squishes of each pair, and how much the index grows by the second."""
    name = "small" if world.quick else "data"
    project = Project(world, "second", {name: {"path": ".venv", "locks": ["requirements.txt"]}})
    first, second, before, after = [], [], [], []
    for number in range(world.rounds):
        world.say(f"row 4: {name} and then {name}', round {number + 1} of {world.rounds}")
        project.forget_all()
        first.append(_squish(world, project, name, name))
        before.append(_index_size(project))
        second.append(_squish(world, project, name, f"{name}-next", profiled=number + 1 == world.rounds))
        after.append(_index_size(project))
        _check(project)
    what = f"squish + store of {name}' when {name} is stored"
    line = partial(Line, 4, note=_NOTE)
    return [
        line(what, f"first squish + store of {name}", 0.3, tuple(second), tuple(first)),
        line("index.db after it", "index.db before", 1.03, tuple(after), tuple(before), unit="MB"),
    ]


def _squish(world: World, project: Project, name: str, lock: str, *, profiled: bool = False) -> float:
    """Build the venv for *lock*, and return the seconds that squish and store take."""
    project.use_lock(world.lock_file(lock))
    project.run(f"build-venv:{name}")
    tasks = (f"squish:{name}", f"store:{name}")
    seconds = project.timed(*tasks)
    if profiled:
        project.profile("row 4: squish + store, all of it known", *tasks)
    return seconds


def _index_size(project: Project) -> float:
    """Return the size of the index in MB, all that waits beside it written into it."""
    path = os.path.join(project.store, "index.db")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return os.path.getsize(path) / 1e6


def _check(project: Project) -> None:
    """See that there are two snapshots, and that the venv's files are the store's, with valid bytecode."""
    snapshots = os.listdir(os.path.join(project.store, "snapshots"))
    if len(snapshots) != 2:
        raise checks.WrongResult(f"{len(snapshots)} snapshots are stored, not 2")
    venv = project.path(".venv")
    paths = set(checks.files(venv))
    private = [
        path for path in paths if path.endswith(".pyc") and os.lstat(os.path.join(venv, path)).st_nlink < 2
    ]
    stale = list(checks.stale_bytecode(venv, paths))
    if len(private) > 0.01 * len(paths) or stale:
        raise checks.WrongResult(f"{len(private)} .pyc are not shared, {len(stale)} are not valid")
