"""Row 7: canonical bytecode for a second venv of the same packages, against the first."""

from __future__ import annotations

import os

from bench import checks
from bench.project import PYTHON
from bench.table import Line
from bench.world import World

_NOTE = (
    "two venvs by uv, linked from its warm cache, shared before without bytecode, so that only bytecode is "
    "left to do; whole processes of `venvflow squish PATH`; first: compiled by all cores, stored, linked; "
    "second: found in the store, linked; what was made is seen to be there, valid, and the same file in both"
)


def measure_bytecode(world: World) -> list[Line]:
    """Measure pairs of ``data`` (quick: ``tiny``), each with a store of its own."""
    name = "tiny" if world.quick else "data"
    first: list[float] = []
    second: list[float] = []
    count = 0
    for number in range(world.few_rounds):
        world.say(f"row 7: {name}, round {number + 1} of {world.few_rounds}")
        round_ = _Round(world, name)
        first.append(round_.compiled("a"))
        second.append(round_.compiled("b"))
        count = round_.check()
        if number == world.few_rounds - 1:
            round_.profile(name)
        round_.close()
    job = f"canonical bytecode for a second {name}, {count:,} files"
    return [Line(7, job, "for the first", 0.05, tuple(second), tuple(first), note=_NOTE)]


class _Round:
    """Two venvs of the lock file *name*, *a* and *b*, shared without bytecode."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._root = world.path("bytecode")
        self._settings = {"VENVFLOW_STORE": os.path.join(self._root, "store")}
        for venv in "ab":
            self._make(venv, world.lock_file(name))
        world.run(self._squish("ab", "none"), self._root, settings=self._settings)

    def _make(self, venv: str, lock: str) -> None:
        place, uv = self._place(venv), self._world.uv
        self._world.run([uv, "venv", "--quiet", "--offline", "--python", PYTHON, place])
        sync = [uv, "pip", "sync", "--quiet", "--offline", "--link-mode", "hardlink", "--python"]
        self._world.run([*sync, os.path.join(place, "bin", "python"), lock])

    def _place(self, venv: str) -> str:
        return os.path.join(self._root, venv, ".venv")

    def _squish(self, venvs: str, bytecode: str) -> list[str]:
        return self._world.venvflow("squish", *map(self._place, venvs), "--bytecode", bytecode)

    def compiled(self, venv: str) -> float:
        """Return the seconds that it takes to give a venv its bytecode."""
        squish = self._squish(venv, "canonical")
        return self._world.timed(squish, cwd=self._root, settings=self._settings)

    def check(self) -> int:
        """Raise WrongResult unless both have their bytecode; return how many files that is."""
        found = {venv: set(checks.files(self._place(venv))) for venv in "ab"}
        compiled = {venv: {path for path in found[venv] if path.endswith(".pyc")} for venv in "ab"}
        sources = sum(path.endswith(".py") for path in found["a"])
        if compiled["a"] != compiled["b"] or len(compiled["a"]) < 0.9 * sources:
            text = f"{len(compiled['a'])} and {len(compiled['b'])} .pyc for {sources} sources"
            raise checks.WrongResult(text)
        stale = sorted(checks.stale_bytecode(self._place("b"), found["b"]))
        shared = sum(self._is_shared(path) for path in compiled["a"])
        if stale or shared < 0.99 * len(compiled["a"]):
            raise checks.WrongResult(f"{len(stale)} .pyc are stale, {shared} of {len(compiled['a'])} shared")
        return shared

    def _is_shared(self, path: str) -> bool:
        return os.path.samefile(*(os.path.join(self._place(venv), path) for venv in "ab"))

    def profile(self, name: str) -> None:
        """Profile a third venv that gets its bytecode, if profiles are wanted."""
        if self._world.profiling:
            self._make("c", self._world.lock_file(name))
            self._world.run(self._squish("c", "none"), self._root, settings=self._settings)
            title = f"row 7: canonical bytecode for another {name}"
            self._world.profile(title, self._squish("c", "canonical"), self._root, settings=self._settings)

    def close(self) -> None:
        """Move all of it aside."""
        self._world.put_aside(self._root)
