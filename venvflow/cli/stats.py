"""``venvflow stats``: what sharing saves, in bytes as ``du`` counts them."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from typing import Any

from venvflow.cli.arguments import Parser
from venvflow.cli.context import open_context
from venvflow.cli.render import Bar, Column, Output, from_home, show_spared, table
from venvflow.errors import shown
from venvflow.pure.units import counted, show_duration, show_size
from venvflow.state.history import NOTHING, Totals, totals
from venvflow.state.reader import open_reader
from venvflow.state.usage import StoreContents
from venvflow.steps.stats import Costs, PackageCost, costs, packages

MORE = """\
The venvs of this project are counted, by blocks on disk, as du does; with --all, and outside of projects,
all of this machine that use the store, and the store with them.
Own is what no other venv of the machine has. The store keeps what it has until trim drops it. What restores
spared is what the builds of their snapshots took, less what they took themselves."""
EXAMPLE = "venvflow stats --packages"

_VENVS = (
    Column("venv", least=20),
    Column("apparent", right=True, rank=2),
    Column("on disk", right=True),
    Column("own", right=True, rank=1),
    Column("shared", right=True),
    Column("deleting frees", right=True, rank=3, yields=True),
)
_PACKAGES = (
    Column("package", least=12),
    Column("venvs", right=True),
    Column("in venvs", right=True),
    Column("stored", right=True),
    Column("versions", least=10),
)


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument("--all", action="store_true", help="all venvs that use the store, not this project's")
    parser.add_argument("--packages", action="store_true", help="which packages cost most, in how many venvs")


def run(args: argparse.Namespace, out: Output) -> int:
    """Show what is occupied and saved; always 0.

    JSON: ``store`` (its path), ``project`` (the root of the one that it is about, null: all), ``venvs``,
    each with ``path``, ``apparent``, ``disk``, ``own``, ``shared`` and ``frees``, ``totals`` with
    ``apparent``, ``alone`` (the venvs' ``disk`` in sum), ``store``, ``disk`` (the venvs together; of
    all, with the store), ``frees`` and ``saved``, all in bytes, and ``history``: ``hits``, ``misses`` and
    ``builds``, how many there were, and the seconds that builds ``spent`` and hits ``spared``. With
    ``--packages`` also ``packages``: ``name``, ``versions``, ``venvs`` (how many), ``bytes`` (in all venvs)
    and ``stored``.
    """
    context = open_context(args, out)
    path, root = os.path.realpath(context.store.path), context.scope(everything=args.all)
    with open_reader(context.store) as store:
        registrations = store.registrations() if store is not None else []
        asked = [each for each in registrations if root is None or each.is_of(root)]
        only = None if root is None else {each.path for each in asked}
        found = costs(path, [each.path for each in registrations], only)
        used = packages(StoreContents(store), asked) if store is not None and args.packages else []
        ran = totals(store.index, root) if store is not None else NOTHING
    if out.as_json:
        document = _as_document(path, found, used if args.packages else None)
        out.document({"project": root, "history": ran._asdict(), **document})
    elif not found.venvs:
        which = "no venv" if root is None else "no venv of this project"
        out.say(f"{which} uses the store at {shown(path)} yet")
    elif args.packages:
        out.answer(_package_table(out, used))
    else:
        out.answer(_venv_table(out, found, root))
        if told := _history(ran):
            out.answer(out.wrapped(told))
        out.answer(out.wrapped(_total(found) if root is None else _project_total(found)))
    return 0


def _venv_table(out: Output, found: Costs, root: str | None) -> str:
    rows = [
        (
            _path(out, each.path, root),
            *map(show_size, (each.apparent, each.disk, each.own, each.shared, each.frees)),
        )
        for each in found.venvs
    ]
    return table(out, _VENVS, rows, bars=[Bar(each.own, each.shared) for each in found.venvs])


def _path(out: Output, path: str, root: str | None) -> str:
    """Return the path of a venv as a program needs it, or for people, from the project or from home."""
    if not out.on_terminal:
        return shown(path)
    below = path.removeprefix(f"{root}/") if root is not None else path
    return shown(below) if below != path else from_home(path)


def _history(ran: Totals) -> str:
    """Return what is remembered of restores and builds, empty if there were none."""
    parts = []
    if ran.hits:
        parts.append(f"{counted(ran.hits, 'restore')}: {show_spared(ran.spared)}")
    if ran.builds:
        parts.append(f"{counted(ran.builds, 'build')}: {show_duration(ran.spent)}")
    return "; ".join(parts)


def _total(found: Costs) -> str:
    text = (
        f"{counted(len(found.venvs), 'venv')} of {show_size(found.alone)} and a store of "
        f"{show_size(found.store)} occupy {show_size(found.disk)}: "
    )
    saved = found.saved
    return text + (f"{show_size(saved)} saved" if saved >= 0 else f"the store keeps {show_size(-saved)} more")


def _project_total(found: Costs) -> str:
    return (
        f"{counted(len(found.venvs), 'venv')} of {show_size(found.alone)} occupy {show_size(found.disk)}: "
        f"{show_size(found.saved)} saved, and deleting all frees {show_size(found.frees)} (--all: the whole "
        f"store of {show_size(found.store)})"
    )


def _package_table(out: Output, used: list[PackageCost]) -> str:
    rows = [
        (
            each.name,
            f"{each.venvs:,}",
            show_size(each.bytes),
            show_size(each.stored),
            ", ".join(each.versions),
        )
        for each in used
    ]
    return table(out, _PACKAGES, rows)


def _as_document(store: str, found: Costs, used: list[PackageCost] | None) -> dict[str, Any]:
    totals = {**asdict(found), "saved": found.saved}
    document = {"store": store, "venvs": totals.pop("venvs"), "totals": totals}
    if used is not None:
        document["packages"] = [asdict(each) for each in used]
    return document
