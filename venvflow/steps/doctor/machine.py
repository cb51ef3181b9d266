"""Checks of the machine: the Python that runs venvflow, doit, environment variables, the umask."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator

from venvflow import __version__
from venvflow.builders.environment import child_environment
from venvflow.disk import locks
from venvflow.errors import VenvflowError, shown
from venvflow.steps.doctor.check import Check, CheckContext, CheckResult, fail, ok, warn

_OLDEST_SQLITE = (3, 37, 0)
"""The first one with strict tables."""

_DECIDING = frozenset(
    {
        *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONSTRAINT", "PIP_PRE"),
        *("PIP_NO_BINARY", "PIP_ONLY_BINARY", "PIP_NO_INDEX"),
        *("UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS"),
        *("UV_CONSTRAINT", "UV_OVERRIDE", "UV_NO_BINARY", "UV_PRERELEASE", "UV_NO_INDEX"),
    }
)
"""Variables that builders see and that may decide what they install."""

_OLDEST_TIME = 1_700_000_000
"""Seconds since 1970 before which no clock that is right can be: this program did not exist."""


def _program(_: CheckContext) -> CheckResult:
    running = f"Python {platform.python_version()} ({shown(sys.executable)})"
    return ok("venvflow", f"{__version__} on {running}, {platform.system()} {platform.machine()}")


def _doit(context: CheckContext) -> CheckResult:
    """Find the doit that a person would start: another one may not know venvflow."""
    ours = os.path.join(os.path.dirname(sys.executable), "doit")
    found = shutil.which("doit", path=context.environ.get("PATH", os.defpath))
    if found is None:
        where = f"It is at {shown(ours)}" if os.path.exists(ours) else "Install it beside venvflow"
        return warn("doit", "not on PATH", f"{where}; add that directory to PATH.")
    if os.path.exists(ours) and not os.path.samefile(found, ours):
        return warn(
            "doit",
            f"{shown(found)}, which belongs to another Python: it may not find venvflow",
            f"Start {shown(ours)}, or put its directory first in PATH.",
        )
    return ok("doit", shown(found))


def _sqlite(_: CheckContext) -> CheckResult:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        oldest = ".".join(map(str, _OLDEST_SQLITE))
        return fail(
            "sqlite", f"{version} is too old", f"Run venvflow by a Python with SQLite {oldest} or newer."
        )
    return ok("sqlite", version)


def _clock(context: CheckContext) -> CheckResult:
    shown_time = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(context.now))
    if context.now < _OLDEST_TIME:
        return fail(
            "clock",
            f"it says {shown_time}",
            "Set it: certificates fail, and snapshots look older than they are.",
        )
    return ok("clock", shown_time)


def _umask(_: CheckContext) -> CheckResult:
    mask = os.umask(0o077)
    os.umask(mask)
    text = f"{mask:04o}"
    if mask & 0o700:
        return fail("umask", f"{text} keeps you from your own files", 'Run "umask 022" before.')
    if not mask & 0o002:
        remedy = 'Run "umask 022" before: a store that everybody may write to is refused.'
        return warn("umask", f"{text} lets everybody write to new files", remedy)
    return ok("umask", text)


def _timeout(context: CheckContext) -> CheckResult:
    try:
        seconds = locks.lock_timeout(context.environ)
    except VenvflowError as error:
        return fail("lock timeout", error.what, error.hint)
    return ok("lock timeout", f"{seconds:g} s")


def _python_variables(context: CheckContext) -> Iterator[CheckResult]:
    environ = context.environ
    for name, what in (
        ("PYTHONPATH", "every venv imports what lies there before its own packages"),
        ("PYTHONHOME", "every interpreter looks for its library there"),
    ):
        if environ.get(name):
            yield warn(name, f"set: {what}", f"unset {name}, or set it for the one program that needs it.")
    if environ.get("PYTHONDONTWRITEBYTECODE"):
        bare = [job.spec.name for job in context.jobs if job.spec.bytecode != "canonical"]
        if bare:
            text = f"set: Python compiles sources anew at each start in {', '.join(bare)}"
            yield warn("PYTHONDONTWRITEBYTECODE", text, "unset it, or let them have bytecode: canonical.")
        else:
            yield ok("PYTHONDONTWRITEBYTECODE", "set; it does no harm, because venvs come compiled")
    active = environ.get("VIRTUAL_ENV")
    if active and not os.path.isdir(active):
        text = f"{shown(active)} is active, but not there"
        yield warn("VIRTUAL_ENV", text, 'Run "deactivate", or start a new shell.')
    elif active:
        yield ok("VIRTUAL_ENV", f"{shown(active)} is active; builders do not see it")


def _tool_variables(context: CheckContext) -> Iterator[CheckResult]:
    """Tell of variables that builders never see, and of those that they see, but that no key names."""
    environ = context.environ
    seen = child_environment(environ)
    hidden = sorted(
        name for name in environ if name.startswith(("PIP_", "UV_", "POETRY_", "PDM_", "PIPENV_"))
    )
    hidden = [name for name in hidden if name not in seen]
    if hidden:
        yield ok("tool variables", f"builders do not see {', '.join(hidden)}")
    listed = [set(job.spec.key_env) for job in context.jobs]
    named = set.intersection(*listed) if listed else set()
    deciding = sorted(name for name in _DECIDING & seen.keys() - named if environ.get(name))
    if deciding and context.jobs:
        yield warn(
            "tool variables",
            f"no key has {', '.join(deciding)}, and that may decide what is installed",
            f"Put them into the key: key: {{env: [{', '.join(deciding)}]}}, under defaults or a venv.",
        )


CHECKS: dict[str, Check] = {
    "venvflow": _program,
    "doit": _doit,
    "sqlite": _sqlite,
    "clock": _clock,
    "umask": _umask,
    "lock timeout": _timeout,
    "variables": _python_variables,
    "tool variables": _tool_variables,
}
