"""``venvflow history``: what ran, when, how long it took, and what changed."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from venvflow.cli.arguments import Parser
from venvflow.cli.context import Context, open_context
from venvflow.cli.operands import select
from venvflow.cli.render import Colour, Column, Output, from_home, moment, show_spared, table
from venvflow.errors import shown, some
from venvflow.pure.units import counted, parse_duration, show_duration, show_size
from venvflow.state.history import LONGEST, MOST_ROWS, Event, events, venvs_in
from venvflow.state.index import IndexReader
from venvflow.state.reader import open_reader

MORE = f"""\
Of this project's venvs; with --all, and outside of projects, of all that use the store. The newest comes
first. Steps that found nothing to do are not in it; new keys, and the steps that share and store a venv
after its build, only with -v. A hit spares the time that the build of its snapshot took, less its own.
The index of the store keeps {MOST_ROWS:,} steps of {LONGEST / 86_400:.0f} days."""
EXAMPLE = "venvflow history api --since 7d"

_COLUMNS = (
    Column("when"),
    Column("venv", least=8),
    Column("step", rank=3),
    Column("outcome"),
    Column("took", right=True, rank=2),
    Column("size", right=True, rank=4),
    Column("what", least=20, rank=1),
)
_FOLLOWING = {"hash-lockfiles": "new", "squish": "squished", "store": "stored"}
"""Steps whose usual outcome says no more than the restore or the build beside it."""

_USUAL_LIMIT = 100
_MOST_NAMED = 3
"""How many packages that changed are named without ``-v``."""


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument("--all", action="store_true", help="of all venvs that use the store")
    parser.add_argument(
        "--since",
        metavar="WHEN",
        type=_past,
        default=-math.inf,
        help="no older than that: 12h, 7d, 4w, or a date, 2026-11-30",
    )
    parser.add_argument(
        "--limit", metavar="N", type=_count, default=_USUAL_LIMIT, help=f"so many ({_USUAL_LIMIT}); 0: all"
    )
    parser.add_argument("venvs", metavar="VENV", nargs="*", help="only of these, by name, set or pattern")


def run(args: argparse.Namespace, out: Output) -> int:
    """Show what ran, the newest first; always 0.

    JSON: ``store`` (its path), ``project`` (the root of the one that it is about, null: all) and ``steps``,
    each with ``at`` (when it ended, ISO 8601 in UTC), ``project``, ``venv`` (null: it was about all venvs),
    ``step`` (the name of its task), ``outcome`` (one word), ``seconds``, ``bytes``, ``spared`` (seconds),
    ``packages`` (``name``, ``before`` and ``after``, null where it is not there), ``host`` and ``snapshot``
    (its id). What is not known, or is nothing, is null.
    """
    context = open_context(args, out)
    root = context.scope(everything=args.all)
    limit = args.limit or MOST_ROWS
    with open_reader(context.store) as store:
        index = store.index if store is not None else None
        found = []
        if index is not None:
            every = out.as_json or out.verbose
            found = _look(index, context, args, project=root, limit=limit + 1, all_steps=every)
        others = index is not None and not found and bool(events(index, limit=1))
    if out.as_json:
        steps = [_as_record(each) for each in found[:limit]]
        out.document({"store": context.store.path, "project": root, "steps": steps})
    elif found:
        out.answer(_as_table(out, found[:limit], with_project=root is None))
        if len(found) > limit:
            out.say(f"the last {counted(limit, 'step')}; --limit 0 shows all")
    else:
        out.say(_nothing(args, context, is_some=others))
    return 0


def _look(
    index: IndexReader,
    context: Context,
    args: argparse.Namespace,
    *,
    project: str | None,
    limit: int,
    all_steps: bool,
) -> list[Event]:
    """Return what ran; venvs may be named that are in the config, or that were once."""
    venvs = None
    if args.venvs:
        here = {shown(name) for name in context.venvs}
        gone = sorted(venvs_in(index, project) - here)
        venvs = select(args.venvs, [*context.venvs, *gone], context.sets)
    without = {} if all_steps else _FOLLOWING
    return events(index, project=project, venvs=venvs, since=args.since, limit=limit, without=without)


def _nothing(args: argparse.Namespace, context: Context, *, is_some: bool) -> str:
    """Return what to say where nothing is found, although there *is_some* history of others, or older."""
    narrowed = [
        *(["of these venvs"] if args.venvs else []),
        *(["since then"] if math.isfinite(args.since) else []),
        *(["of this project"] if context.flow is not None and not (args.all or args.venvs) else []),
    ]
    which = f" {' '.join(narrowed)}" if is_some and narrowed else " yet"
    more = "; --all shows what others did" if is_some and context.flow is not None and not args.all else ""
    return f"nothing is written down{which} in {shown(context.store.path)}{more}"


def _past(text: str) -> float:
    """Return the moment that *text* means, in seconds since 1970, as a type of argparse."""
    from datetime import datetime  # noqa: PLC0415 - few ask for it

    try:
        return datetime.strptime(text, "%Y-%m-%d").timestamp()  # noqa: DTZ007 - a day of the person who asks
    except (ValueError, OverflowError):
        try:
            return time.time() - parse_duration(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error}, nor a date such as 2026-11-30") from error


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > len(str(MOST_ROWS)):
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is not a number from 0 to {MOST_ROWS}")
    return int(text)


# --------------------------------------------------------------------------- showing


def _as_table(out: Output, found: Sequence[Event], *, with_project: bool) -> str:
    cells = [
        (
            time.strftime("%Y-%m-%d %H:%M", time.localtime(each.at)),
            _venv_cell(each, with_project=with_project),
            each.step,
            each.outcome,
            show_duration(each.seconds),
            "-" if each.bytes is None else show_size(each.bytes),
            _what(each, most=MOST_ROWS if out.verbose else _MOST_NAMED),
        )
        for each in found
    ]
    when, venv, *others = _COLUMNS
    columns = (when, replace(venv, least=20) if with_project else venv, *others)
    return table(out, columns, cells, [(3, _colour(each)) for each in found])


def _venv_cell(event: Event, *, with_project: bool) -> str:
    if not with_project:
        return event.venv or "(all)"
    return from_home(event.project) + (f":{event.venv}" if event.venv else "")


def _what(event: Event, *, most: int) -> str:
    """Return what a step spared, and which packages changed: ``+six 1.17.0``, ``rich 13 -> 14``."""
    texts = []
    for name, before, after in event.packages or ():
        versions = [version for version in (before, after) if version is not None]
        sign = "" if len(versions) > 1 else "+" if before is None else "-"
        texts.append(f"{sign}{shown(name)} {' -> '.join(map(shown, versions))}")
    spared = "" if event.spared is None else show_spared(event.spared)
    return "; ".join(filter(None, (spared, some(texts, most))))


def _colour(event: Event) -> Colour:
    """Return green for what came without a build, and what is to be looked at in the usual colours."""
    colours: dict[str, Colour] = {"failed": "red", "refused": "yellow", "hit": "green", "taken": "green"}
    return colours.get(event.outcome, "")


def _as_record(event: Event) -> dict[str, Any]:
    packages = event.packages
    return {
        **event._asdict(),
        "at": moment(event.at),
        "venv": event.venv or None,
        "packages": None
        if packages is None
        else [{"name": name, "before": before, "after": after} for name, before, after in packages],
    }
