"""``venvflow doctor``: looks for what goes wrong in practice, and says how to fix it."""

from __future__ import annotations

import argparse
import os
import textwrap
import time
from dataclasses import asdict
from functools import partial
from itertools import chain

from venvflow import config as configs
from venvflow.cli.render import Colour, Output
from venvflow.errors import VenvflowError, shown
from venvflow.flow import load
from venvflow.model import TrimPolicy
from venvflow.pure.units import counted
from venvflow.steps.doctor import CheckContext, CheckResult, Verdict, examine
from venvflow.steps.doctor.check import fail, ok, warn

_COLOURS: dict[Verdict, Colour] = {"ok": "green", "warn": "yellow", "fail": "red"}
_MARGIN = 6
"""Columns of a line before its text: the verdict."""

MORE = """\
Looks at interpreters, builders and their versions, at permissions and owners, free space, the index, the
clock and the environment's variables, and tries links, locks and a swap of names between the store and
each venv's directory, in a temporary directory. Works without a config too.
Exits 1 when a check failed; with warnings only, 0. With -q only what is not ok is shown."""
EXAMPLE = "venvflow doctor"


def run(args: argparse.Namespace, out: Output) -> int:
    """Show one line for each check, with the remedy below where there is one; 1 when one of them failed.

    JSON: ``ok`` (none failed) and ``checks``, each with ``name``, ``verdict`` (ok, warn, fail), ``text`` and
    ``remedy`` (empty where nothing has to be done).
    """
    results = []
    context, config = _world(args)
    for result in chain([config], examine(context)):
        results.append(result)
        if not out.as_json and not (out.quiet and result.verdict == "ok"):
            out.answer(_text(out, result))
    failed = any(result.verdict == "fail" for result in results)
    if out.as_json:
        out.document({"ok": not failed, "checks": [asdict(each) for each in results]})
    return 1 if failed else 0


def _world(args: argparse.Namespace) -> tuple[CheckContext, CheckResult]:
    """Return what is to be looked at, and what is to be said of the config: without one, the machine."""
    context = partial(CheckContext, args.work_dir, os.environ, time.time())

    def bare() -> CheckContext:
        return context(configs.usual_store(args.work_dir, os.environ), TrimPolicy())

    try:
        configs.find_config(args.work_dir, args.config)
    except VenvflowError as error:
        if args.config is not None:
            raise
        return bare(), ok("config", f"{error.what}: only the machine and the usual store are checked")
    try:
        flow = load(args.work_dir, os.environ, explicit=args.config)
    except VenvflowError as error:
        text = "\n".join([error.what, *error.lines])
        return bare(), fail("config", text, error.hint or "Fix it first.")
    config = flow.config
    jobs = tuple(flow.job(name) for name in config.venvs)
    full = context(config.store, config.trim, config, jobs)
    if config.warnings:
        return full, warn("config", "; ".join(config.warnings), f"See {shown(config.file)}.")
    return full, ok("config", f"{shown(config.file)}, {counted(len(config.venvs), 'venv')}")


def _text(out: Output, result: CheckResult) -> str:
    """Return a result as lines that fit, the remedy below."""
    verdict = out.paint(result.verdict, _COLOURS[result.verdict])
    first, *more = _wrapped(f"{result.name}: {result.text}", out.width() - _MARGIN)
    more += [
        f"{'   ' if number else '-> '}{line}"
        for number, line in enumerate(_wrapped(result.remedy, out.width() - _MARGIN - 3))
    ]
    padding = " " * (_MARGIN - len(result.verdict))
    return "\n".join([f"{verdict}{padding}{first}", *(f"{' ' * _MARGIN}{line}" for line in more)])


def _wrapped(text: str, width: int) -> list[str]:
    """Return *text* in lines; a word that is too long, like a path, stays whole: half of it is useless."""
    wrapper = textwrap.TextWrapper(max(width, 20), break_long_words=False, break_on_hyphens=False)
    return [line for part in text.splitlines() for line in wrapper.wrap(part)]
