"""Row 4: squish and store of a venv that differs in one package from a stored one, against the first."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from functools import partial

from bench import checks
from bench.bumps import bumped
from bench.project import Project
from bench.table import Line
from bench.world import World

_NOTE = (
    "an empty store before each pair, made durable; venvs built by uv, linked from its warm cache; "
    "building is not timed"
)


def measure_second_squish(world: World) -> list[Line]:
    """Measure both squishes of each pair, and how much the index grows by the second."""
    name = world.main
    project = Project(world, "second", {name: {"path": ".venv", "locks": ["requirements.txt"]}})
    first, second, before, after = [], [], [], []
    for number in range(world.few_rounds):
        world.say(f"row 4: {name} and then {name}', round {number + 1} of {world.few_rounds}")
        first.append(_first(world, project, name))
        before.append(_index_size(project))
        second.append(project.timed(*_built(project, name, bumped(world, name, 1))))
        after.append(_index_size(project))
        _check(project)
    _profile(world, project, name)
    what = f"squish + store of {name}' when {name} is stored"
    share = _changed_share(project, world.lock_file(name), bumped(world, name, 1))
    line = partial(Line, 4, note=f"{share}; {_NOTE}")
    return [
        line(what, f"first squish + store of {name}", 0.3, tuple(second), tuple(first)),
        line("index.db after it", "index.db before", 1.03, tuple(after), tuple(before), unit="MB"),
    ]


def _first(world: World, project: Project, name: str) -> float:
    """Return the seconds that the first squish and store take, with a store that does not exist yet."""
    project.forget_all()
    return project.timed(*_built(project, name, bumped(world, name, 0)))


def _built(project: Project, name: str, lock: str) -> tuple[str, ...]:
    """Build the venv for the file *lock*, and return the tasks that squish and store it."""
    project.use_lock(lock)
    project.run(f"build-venv:{name}")
    return f"squish:{name}", f"store:{name}"


def _profile(world: World, project: Project, name: str) -> None:
    """Profile both sides of one more pair, if profiles are wanted."""
    if not world.profiling:
        return
    project.forget_all()
    project.profile(f"row 4: first squish + store of {name}", *_built(project, name, bumped(world, name, 0)))
    next_ = _built(project, name, bumped(world, name, 1))
    project.profile(f"row 4: squish + store of {name}'", *next_)


def _changed_share(project: Project, before: str, after: str) -> str:
    """Return in words which package two lock files differ in, and how many of the venv's files are its."""
    changed = {name.partition("==")[0] for name in _pins(before) ^ _pins(after)}
    paths = list(checks.files(project.path(".venv")))
    theirs = sum(_unit(path) in changed for path in paths)
    return f"{', '.join(sorted(changed))} at another version, {theirs:,} of {len(paths):,} files"


def _pins(lock: str) -> set[str]:
    with open(lock, encoding="utf-8") as file:
        return {line.split()[0] for line in file if "==" in line and not line.startswith(("#", " "))}


def _unit(path: str) -> str:
    """Return the top name below site-packages that a file lies in, without a version."""
    return path.partition("/site-packages/")[2].partition("/")[0].partition("-")[0]


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
    private = [path for path in paths if path.endswith(".pyc") and _links(venv, path) < 2]
    if len(private) > 0.01 * len(paths):
        raise checks.WrongResult(f"{len(private)} .pyc are not shared, the first is {min(private)}")
    stale = sorted(checks.stale_bytecode(venv, paths))
    if stale:
        raise checks.WrongResult(f"{len(stale)} .pyc are not valid, the first is {stale[0]}")


def _links(venv: str, path: str) -> int:
    return os.lstat(os.path.join(venv, path)).st_nlink
