"""The fixtures of the faults, and the count of those that were made.

Test modules import what they use: only one conftest is type-checked.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from shim import Server, compiled
from worlds import World

SAMPLE = 4
"""How many calls of an action get a fault of each kind, unless all do."""

MADE: Counter[str] = Counter()
"""How many faults of each kind this process made."""


def summary() -> str:
    """Return how many faults were made, as a line."""
    each = ", ".join(f"{count:,} x {kind}" for kind, count in sorted(MADE.items()))
    return f"{sum(MADE.values()):,} injected faults: {each}"


@pytest.fixture(scope="session")
def sample(pytestconfig: pytest.Config) -> int | None:
    """Give the number of calls of an action that get a fault; None for all."""
    return None if pytestconfig.getoption("--all-faults") else SAMPLE


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """Give a directory in memory, if there is one: syncing it costs nothing."""
    shm = "/dev/shm"  # noqa: S108 - a directory of our own is made in it
    beside = shm if os.access(shm, os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="venvflow-faults-", dir=beside))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def shim(memory: Path) -> Path:
    """Give the compiled shim."""
    return compiled(memory)


@pytest.fixture(scope="module")
def server(shim: Path, memory: Path) -> Iterator[Server]:
    """Give a server whose actions wait long for locks."""
    server = Server(shim, memory)
    yield server
    server.end()


@pytest.fixture
def world(request: pytest.FixtureRequest, memory: Path, server: Server) -> Iterator[World]:
    """Give an empty world: of the kind that the test asks for."""
    base = Path(tempfile.mkdtemp(dir=memory))
    world: World = getattr(request, "param", World)(base, base / "world", server)
    world.root.mkdir()
    yield world
    world.end()
    shutil.rmtree(base)
