"""``venvflow unsquish``: give venvs private files again."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from venvflow.cli.context import Context, open_context
from venvflow.cli.parser import Commands, add_command
from venvflow.cli.render import Output, counted
from venvflow.cli.resolve import need_venv, path_of
from venvflow.errors import VenvflowError, shown
from venvflow.pure.units import show_duration, show_size


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "unsquish",
        run,
        summary="give venvs private files again, so that they need no store",
        more="What the files hold, their executable bits and links stay. The store forgets the venv.\n"
        "A venv of a config is shared again by the next doit. Run again, it finishes what was cut short.",
        example="venvflow unsquish ~/src/demo/.venv",
    )
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="a venv: its directory, or its name in the config"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Make the venvs private; the exit code is that of the first one that could not be, or 0.

    JSON: ``store`` (its path) and ``venvs``, each with ``path``, ``did`` (unsquished, kept, failed),
    ``reason``, ``figures`` (``files``, ``bytes``, ``seconds``) and ``warnings``.
    """
    context = open_context(args, out)
    records: list[dict[str, Any]] = []
    paths = list(dict.fromkeys(path_of(context, word) for word in args.paths))
    codes = [_serve(context, out, path, records) for path in paths]
    if out.as_json:
        out.document({"store": context.store.path, "venvs": records})
    return next((code for code in codes if code), 0)


def _serve(context: Context, out: Output, path: str, records: list[dict[str, Any]]) -> int:
    try:
        need_venv(context, path)
        records.append(_unsquish(context, out, path))
    except VenvflowError as error:
        out.fail(str(error))
        records.append({"path": path, "did": "failed", "reason": error.what, "figures": {}, "warnings": []})
        return error.exit_code
    return 0


def _unsquish(context: Context, out: Output, path: str) -> dict[str, Any]:
    from venvflow.disk import locks  # noqa: PLC0415 - not for wrong words
    from venvflow.disk.places import Place  # noqa: PLC0415
    from venvflow.state.accounts import Ledger  # noqa: PLC0415
    from venvflow.state.store import Store  # noqa: PLC0415
    from venvflow.steps.squish_path import Errand, Sharing  # noqa: PLC0415
    from venvflow.steps.unsquish import refuse_unless_changeable, unsquish  # noqa: PLC0415

    def tell(file: str, how: str) -> None:
        if out.verbose:
            out.say(f"{shown(path)}/{shown(file)}: {how}")

    errand = Errand(
        Place(path), Sharing(("copy",), 1), os.environ, time.time, Ledger(context.store.path),
        context.job_at(path), out.say, tell,
    )  # fmt: skip
    refuse_unless_changeable(errand.place)  # before a store is made
    with Store(context.store, timeout=locks.lock_timeout(os.environ), on_wait=out.say) as store:
        outcome = unsquish(store, errand)
    if not out.as_json:
        figures = outcome.figures
        did = f"{outcome.did}: {outcome.reason}" if outcome.reason else outcome.did
        out.answer(
            f"{shown(path)}: {did}, {counted(int(figures['files']), 'file')}, "
            f"{show_size(int(figures['bytes']))} in {show_duration(float(figures['seconds']))}"
        )
    for warning in outcome.warnings:
        out.warn(f"{shown(path)}: {warning}")
    return {
        "path": path,
        "did": outcome.did,
        "reason": outcome.reason,
        "figures": outcome.figures,
        "warnings": list(outcome.warnings),
    }
