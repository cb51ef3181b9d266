"""The types of doctor's checks: what a check looks at, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from venvflow.model import Config, StoreConfig, TrimPolicy
from venvflow.steps.job import Job

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: its *name* (the same in every run), how it went, what was found, and how to fix it."""

    name: str
    verdict: Verdict
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What a check looks at: the machine by *environ*, the store, and the venvs of a config if there is one.

    *directory* is where we work, *now* the time in seconds since 1970.
    """

    directory: str
    environ: Mapping[str, str]
    now: float
    store: StoreConfig
    trim: TrimPolicy
    config: Config | None = None
    jobs: tuple[Job, ...] = ()


Check = Callable[[CheckContext], CheckResult | Iterable[CheckResult]]
"""Looks at one thing; there may be nothing to say of it. What it cannot look at is an ``OSError``."""


def ok(name: str, text: str) -> CheckResult:
    """Return that all is well."""
    return CheckResult(name, "ok", text)


def warn(name: str, text: str, remedy: str) -> CheckResult:
    """Return that something works, but not as it could, or may surprise."""
    return CheckResult(name, "warn", text, remedy)


def fail(name: str, text: str, remedy: str) -> CheckResult:
    """Return that something will not work."""
    return CheckResult(name, "fail", text, remedy)
