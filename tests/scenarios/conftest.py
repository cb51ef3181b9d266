"""Fixtures of the scenarios."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario import Machine


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of the wheels that the scenarios install; uv's cache lies in it too."""
    return tmp_path_factory.mktemp("wheelhouse")


@pytest.fixture
def machine(tmp_path: Path, wheelhouse: Path) -> Iterator[Machine]:
    """Give a machine with an empty store."""
    machine = Machine(tmp_path, wheelhouse)
    yield machine
    machine.end()
