"""``venvflow trim``: applies the trim policy of the config, or shows what it would drop."""

from __future__ import annotations

import argparse
import os
from typing import Any

from venvflow.cli.arguments import Parser
from venvflow.cli.context import open_flow
from venvflow.cli.render import TRIMMED, Colour, Output, held_by, table
from venvflow.errors import shown
from venvflow.pure.units import counted, show_size
from venvflow.steps.trim import Trimmed, trim

MORE = """\
It ends what venvs of this project hold; what nobody holds is dropped, and what nothing needs
any more is deleted. The limits of size are the store's, and drop what any project holds.
Says of every snapshot why it is kept or dropped. It waits until nobody uses the store.
With --remote, the policy is store.remote.keep, for all that is in the remote: what no snapshot needs
there is deleted by a later trim, when the grace is over. Let one scheduled job do it."""
EXAMPLE = "venvflow trim --dry-run"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument("-n", "--dry-run", action="store_true", help="only show what would be done")
    parser.add_argument("--remote", action="store_true", help="trim the remote, not the store")


def run(args: argparse.Namespace, out: Output) -> int:
    """Apply the policy, or show what it would do; 0.

    JSON: ``store`` (its path), ``dry_run``, ``keep`` (``id``, ``venv``, ``held_by``, ``reasons``), ``drop``
    (``id``, ``venv``, ``held_by``, ``reason``, ``freed``), ``freed`` (bytes in all that the file system got
    back, or would), ``objects`` (files deleted, null for a dry run), ``forgotten`` (paths of venvs that are
    gone) and ``problems`` (limits that cannot be met). With ``--remote`` as
    :func:`~venvflow.cli.remote.trim_in_remote` has it.
    """
    if args.remote:
        from venvflow.cli.remote import trim_in_remote  # noqa: PLC0415 - few ask for it

        return trim_in_remote(args, out)
    flow = open_flow(args, out)
    path = flow.config.store.path
    trimmed = None
    if os.path.lexists(os.path.join(path, "format")):
        trimmed = trim(flow.config, flow.environ, now=flow.now(), say=flow.say, dry_run=args.dry_run)
    if out.as_json:
        out.document({"store": path, "dry_run": args.dry_run, **_as_document(trimmed)})
    elif trimmed is None:
        out.say(f"there is no store at {shown(path)} yet")
    else:
        _show(out, trimmed)
    for problem in trimmed.plan.problems if trimmed is not None else ():
        out.warn(problem)
    return 0


def _show(out: Output, trimmed: Trimmed) -> None:
    plan, snapshots = trimmed.plan, trimmed.snapshots
    rows = [("keep", each.id, "-", "; ".join(each.reasons)) for each in plan.keep]
    rows += [("drop", each.id, show_size(each.freed_bytes), each.reason) for each in plan.drop]
    colours: list[tuple[int, Colour]] = [(0, "yellow" if row[0] == "drop" else "") for row in rows]
    cells = [(did, name[:12], shown(snapshots[name].venv), frees, why) for did, name, frees, why in rows]
    if cells:
        out.answer(table(out, TRIMMED, cells, colours))
    out.answer(_summary(trimmed))
    for path in trimmed.forgotten:
        out.say(f"{'would forget' if trimmed.swept is None else 'forgot'} {shown(path)}: its project is gone")


def _summary(trimmed: Trimmed) -> str:
    plan, swept = trimmed.plan, trimmed.swept
    number = f"{len(plan.drop)} of {counted(len(trimmed.snapshots), 'snapshot')}"
    if swept is None:
        return f"would drop {number} and free {show_size(plan.freed_bytes)}"
    return f"dropped {number}, freed {show_size(swept.bytes)}"


def _as_document(trimmed: Trimmed | None) -> dict[str, Any]:
    if trimmed is None:
        return {"keep": [], "drop": [], "freed": 0, "objects": None, "forgotten": [], "problems": []}
    plan, swept = trimmed.plan, trimmed.swept

    def record(identifier: str) -> dict[str, Any]:
        snapshot = trimmed.snapshots[identifier]
        holds = trimmed.holders.holds_of(snapshot)
        return {"id": identifier, "venv": snapshot.venv, "held_by": held_by(holds)}

    return {
        "keep": [{**record(k.id), "reasons": list(k.reasons)} for k in plan.keep],
        "drop": [{**record(d.id), "reason": d.reason, "freed": d.freed_bytes} for d in plan.drop],
        "freed": plan.freed_bytes if swept is None else swept.bytes,
        "objects": swept.objects if swept is not None else None,
        "forgotten": list(trimmed.forgotten),
        "problems": list(plan.problems),
    }
