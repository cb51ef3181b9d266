"""What the commands share: the project that the words name, and one of its venvs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from venvflow.errors import UsageError, shown
from venvflow.pure.units import show_duration, show_size

if TYPE_CHECKING:
    from venvflow.cli.render import Output
    from venvflow.flow import Flow
    from venvflow.model import Outcome


def open_flow(args: argparse.Namespace, out: Output) -> Flow:
    """Return the flow of the project that *args* name. Raises ConfigError, Refused or UsageError."""
    from venvflow.flow import load  # noqa: PLC0415 - imports the YAML library

    flow = load(args.work_dir, os.environ, explicit=args.config)
    flow.say = out.say
    flow.command = " ".join(["venvflow", *map(shown, args.words)])
    for warning in flow.config.warnings:
        out.warn(warning)
    return flow


def need_known(name: str, known: Iterable[str]) -> None:
    """Raise UsageError, with the nearest name there is, unless *name* is among the *known* venvs."""
    known = sorted(set(known))
    if name in known:
        return
    from venvflow.pure.nearest import meant  # noqa: PLC0415 - only for mistakes

    raise UsageError(f"there is no venv called {shown(name)!r}", hint=meant(name, known))


def show_outcome(out: Output, venv: str, key: str, outcome: Outcome, warnings: Iterable[str]) -> None:
    """Answer with what a step did; its warnings go to standard error.

    JSON: ``venv``, ``key`` (its digest), ``did`` (one word), ``reason``, ``figures`` (counts, ``bytes`` and
    ``seconds`` by name) and ``warnings``.
    """
    warnings = [*warnings, *outcome.warnings]
    if out.as_json:
        out.document(
            {
                "venv": venv,
                "key": key,
                "did": outcome.did,
                "reason": outcome.reason,
                "figures": outcome.figures,
                "warnings": warnings,
            }
        )
    else:
        out.answer(f"{shown(venv)}: {_told(outcome)}")
    for warning in warnings:
        out.warn(f"{shown(venv)}: {warning}")


def _told(outcome: Outcome) -> str:
    parts = [
        f"{outcome.did}: {outcome.reason}" if outcome.reason else outcome.did,
        *_figures(outcome.figures),
    ]
    took = outcome.figures.get("seconds")
    return ", ".join(parts) + (f" in {show_duration(float(took))}" if took is not None else "")


def _figures(figures: dict[str, Any]) -> Iterable[str]:
    if "files" in figures:
        yield f"{figures['files']:,} files"
    if "bytes" in figures:
        yield show_size(int(figures["bytes"]))
    if figures.get("new_bytes"):
        yield f"{show_size(int(figures['new_bytes']))} new in the store"
    if figures.get("link"):
        yield f"by {figures['link']}"
