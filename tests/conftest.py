"""What holds for all tests: the world outside must not change their results. And the scenarios' fixtures."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import plain

if os.environ.get("PLAIN"):  # before anything of ours asks what this system can do
    plain.hide()

import fixtures
import pytest
import standins
from contents import MEMORY
from hypothesis import HealthCheck, settings
from scenario import Machine

from venvflow import interrupts
from venvflow.pure import ci

pytest_plugins = ("cli_project",)
"""Fixtures of all tests of the command line; named here, before any test module imports it."""

# A shell lets what it starts in the background ignore Ctrl-C, and nohup the end of the terminal. So would all
# commands that tests interrupt: what is handled here is theirs again.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

os.environ["LANGUAGE"] = "C"
"""argparse translates what it says, and looks for a translation each time."""

_FOREIGN = ("VENVFLOW_", "AWS_", "CI", "GITHUB_", "GITLAB_", *(service.mark for service in ci.SERVICES))
"""How the variables begin by which a CI service, or somebody's shell, would change what tests find."""

for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
    del os.environ[name]

_ROOM = 3 << 30
"""Bytes that tests may need at once, with those of the runs before that pytest keeps: of what failed."""

# How many examples a property is tried with: the Makefile chooses. No machine is too slow.
for profile, examples in {"quick": 10, "test": 50, "long": 1000}.items():
    settings.register_profile(
        profile, deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile("test")


def pytest_report_header() -> str:
    """Say what is hidden from all that runs."""
    return f"without Linux's extras {plain.left and f'({plain.left})'}" if os.environ.get("PLAIN") else ""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker of the few scenarios that are not slow known; put files into memory if asked to."""
    config.addinivalue_line("markers", "quick: a scenario that runs with the quick tests, too")
    if config.getoption("dist", "no") == "no":  # with xdist, that is where tests are run
        _forbid_bytecode()
    if config.getoption("in_memory") and _memory_will_do():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)


def _forbid_bytecode() -> None:
    """Let what tests start write no bytecode, whatever the shell says; those that are about it unset this.

    They run the Python of venvs that they compare file by file afterwards. xdist's workers must be started
    without it: what pytest makes of the test modules would not be kept, and each would make it each time.
    """
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def _memory_will_do() -> bool:
    """Return whether there are room and programs in memory.

    What a test does again and again there takes two thirds of the processor's time, and waits for nobody.
    """
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return False
    return not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize > _ROOM


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switches for tests that need more than this machine, and for writing golden files anew."""
    parser.addoption("--run-network", action="store_true", help="run the tests that need a package index")
    parser.addoption("--run-long", action="store_true", help="run the tests that take a minute each")
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")
    parser.addoption(
        "--in-memory", action="store_true", help="put the files of tests into memory, if it will do"
    )
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


def pytest_collection_finish() -> None:
    """Spare the thousands of tests that were found from being looked through for garbage, again and again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let this process answer for its Python, but where a test is about the programs that ask it."""
    if item.path.parent.name != "faults" and item.get_closest_marker("programs") is None:
        standins.begin()


def pytest_runtest_teardown() -> None:
    """Forget the signals that a test sent to this process: they are not the next one's."""
    standins.end()
    interrupts._program.received.clear()


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
