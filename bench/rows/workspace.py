"""Row 15: one package of one member bumped in the lock file of a workspace, by uv."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

from bench import checks
from bench.bumps import VERSIONS
from bench.project import PYTHON, Project
from bench.rounds import in_turn
from bench.table import Line
from bench.world import CommandFailed, World

_COMMON = (
    "fastapi", "uvicorn", "sqlalchemy", "celery", "boto3", "httpx", "pydantic", "requests", "sentry-sdk",
    "alembic", "gunicorn", "pytest",
)  # fmt: skip
_FEW_COMMON = ("fastapi", "requests")
_OWN = "rich"
"""What only the first member needs."""


def measure_workspace(world: World) -> list[Line]:
    """Measure doit after a package of one member is bumped in the lock file of a workspace."""
    count = 3 if world.quick else 20
    members = [f"member-{number:02}" for number in range(count)]
    world.say(f"row 15: making a workspace of {count} members, and one with one venv")
    locks = _Locks(world, members, _FEW_COMMON if world.quick else _COMMON)
    ours, alone = (_workspace(world, name, venvs) for name, venvs in (("all", members), ("one", members[:1])))
    for project in (ours, alone):
        locks.use(project, 0)
        project.run("-n", "2")
    before = {name: checks.trees(ours.path(name, ".venv")) for name in members}
    numbers = {project.root: itertools.count(1) for project in (ours, alone)}

    def bump(project: Project) -> float:
        number = next(numbers[project.root])
        locks.use(project, number)
        seconds = project.timed()
        checks.installed(project.path(members[0], ".venv"), locks.version(number))
        return seconds

    def parts() -> float:
        return ours.timed() + bump(alone)

    bump(ours)
    parts()
    _check_workspace(ours, alone, before)
    rounds = min(world.few_rounds, len(VERSIONS[_OWN]) - 1 - world.profiling)
    world.say(f"row 15: {rounds} rounds")
    seconds = in_turn({"ours": lambda: bump(ours), "theirs": parts}, rounds)
    if world.profiling:
        locks.use(ours, next(numbers[ours.root]))
        ours.profile("row 15: doit after a bump of one member")
    job = f"doit, one member's package bumped in the uv.lock of {count} members"
    against = "doit with nothing to do + doit of that member alone"
    note = (
        "the members have most packages in common; only one member has the bumped one; each run brings a "
        "version that was never there; the others are what they were; uv's cache and the page cache warm; "
        "whole processes"
    )
    return [Line(15, job, against, 1.5, seconds["ours"], seconds["theirs"], note=note)]


def _workspace(world: World, name: str, members: Sequence[str]) -> Project:
    entries = {
        member: {"path": f"{member}/.venv", "locks": ["uv.lock"], "packages": [member]} for member in members
    }
    return Project(world, os.path.join("workspace", name), entries)


class _Locks:
    """The files of a workspace with a lock file for each bump, made by uv."""

    def __init__(self, world: World, members: Sequence[str], common: Sequence[str]) -> None:
        self._root = world.path("workspace", "lock")
        self._world = world
        os.makedirs(self._root)
        self._files = {
            "pyproject.toml": _pyproject("root", [], f"[tool.uv.workspace]\nmembers = {_toml(members)}\n")
        }
        for place, name in enumerate(members):
            needs = [
                need for index, need in enumerate(common) if index != place % len(common) or len(common) < 3
            ]
            self._files[f"{name}/pyproject.toml"] = _pyproject(name, [*needs, *([] if place else [_OWN])])
        for name, text in self._files.items():
            path = os.path.join(self._root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="ascii") as file:
                file.write(text)
        for number in range(len(VERSIONS[_OWN]) + 1):
            self._lock(number)

    def _lock(self, number: int) -> None:
        """Make the lock file after *number* bumps, and see that all of it is in uv's cache."""
        words = ["lock", "--quiet", "--python", PYTHON]
        if number:
            words += ["--upgrade-package", f"{_OWN}=={VERSIONS[_OWN][number - 1]}"]
        _offline_first(self._world, [self._world.uv, *words], self._root)
        lock = os.path.join(self._root, "uv.lock")
        with open(lock, encoding="utf-8") as file, open(self._kept(number), "w", encoding="utf-8") as kept:
            kept.write(file.read())
        sync = [self._world.uv, "sync", "--quiet", "--frozen", "--all-packages", "--python", PYTHON]
        _offline_first(self._world, sync, self._root)

    def _kept(self, number: int) -> str:
        return os.path.join(self._root, f"uv-{number}.lock")

    def use(self, project: Project, number: int) -> None:
        """Give a project the workspace's files, and the lock file after *number* bumps."""
        for name, text in self._files.items():
            if not os.path.exists(project.path(name)):
                project.write(name, text)
        project.use_lock(self._kept(number), "uv.lock")

    @staticmethod
    def version(number: int) -> str:
        """Return what a bump brings."""
        return f"{_OWN}-{VERSIONS[_OWN][number - 1]}"


def _offline_first(world: World, command: list[str], cwd: str) -> None:
    """Run a command of uv, with the package index only where its cache does not do."""
    try:
        world.run(command, cwd)
    except CommandFailed:
        world.run(command, cwd, settings={"UV_OFFLINE": "false"})


def _pyproject(name: str, needs: Sequence[str], more: str = "") -> str:
    return (
        f'[project]\nname = "{name}"\nversion = "0"\nrequires-python = ">=3.10"\n'
        f"dependencies = {_toml(needs)}\n[tool.uv]\npackage = false\n{more}"
    )


def _toml(words: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


def _check_workspace(ours: Project, alone: Project, before: dict[str, tuple[str, ...]]) -> None:
    """See that the bumped member's venv is another, the same as alone, and the others what they were."""
    first = next(iter(before))
    changed = {name for name, trees in before.items() if checks.trees(ours.path(name, ".venv")) != trees}
    if changed != {first}:
        raise checks.WrongResult(f"by a bump of {first}, {sorted(changed)} changed")
    checks.same_trees(ours.path(first, ".venv"), alone.path(first, ".venv"))
