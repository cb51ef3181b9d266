"""What holds for all tests: the world outside must not change their results. And the scenarios' fixtures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fixtures
import pytest
from hypothesis import settings
from scenario import Machine

pytest_plugins = ("cli_project",)
"""Fixtures of all tests of the command line; named here, before any test module imports it."""

# Tests run the Python of venvs that they compare file by file afterwards; a shell may or may not forbid it
# to write bytecode there. Those that are about bytecode unset this for their children.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

# A machine that is busy is no reason to fail.
settings.register_profile("venvflow", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)
settings.load_profile("venvflow")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker of the few scenarios that are not slow known; with the quick tests, try less."""
    config.addinivalue_line("markers", "quick: a scenario that runs with the quick tests, too")
    if "not slow" in config.getoption("markexpr"):
        settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switches for tests that need more than this machine, and for writing golden files anew."""
    parser.addoption("--run-network", action="store_true", help="run the tests that need a package index")
    parser.addoption("--run-long", action="store_true", help="run the tests that take a minute each")
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")
    parser.addoption("--all-faults", action="store_true", help="make a fault at every call, not at a sample")


_ONLY_WHEN_ASKED = {
    "network": "needs a package index: make network",
    "long": "takes a minute, or gigabytes: make long",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every scenario as slow, but for those that stand for all of them in ``-m "not slow"``."""
    for item in items:
        for marker, reason in _ONLY_WHEN_ASKED.items():
            if item.get_closest_marker(marker) and not config.getoption(f"--run-{marker}"):
                item.add_marker(pytest.mark.skip(reason=reason))
        if item.path.parent.name == "scenarios" and item.get_closest_marker("quick") is None:
            item.add_marker(pytest.mark.slow)


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many faults were made, if any were, and if it was this process that made them."""
    if fixtures.MADE:
        terminalreporter.write_line(fixtures.summary())
