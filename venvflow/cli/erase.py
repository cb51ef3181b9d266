"""``venvflow erase``: gives up snapshots, and drops what nobody else holds; venvs stay whole."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from venvflow.cli.arguments import Parser
from venvflow.cli.context import open_flow
from venvflow.cli.operands import select
from venvflow.cli.render import Column, Output, moment, table
from venvflow.disk import locks
from venvflow.errors import Refused, shown
from venvflow.flow import Flow
from venvflow.pure.retention import VenvName
from venvflow.pure.units import counted, show_size
from venvflow.state.index import SnapshotSummary
from venvflow.state.reader import StoreReader, open_reader
from venvflow.state.store import Store
from venvflow.state.sweeping import Swept, sweep
from venvflow.steps.holders import Holders

MORE = """\
Without --yes it shows what it would drop, drops nothing, and exits with 6. It never asks.
It is about the snapshots that venvs of this project hold. One that another project holds, too,
stays for that; with --all it goes, whoever holds it. Venvs stay whole."""
EXAMPLE = "venvflow erase api --yes"

_COLUMNS = (
    Column("id"),
    Column("venv", least=8),
    Column("size", right=True),
    Column("key of", wrap=True, least=20),
)
_STAYS = Column("stays for", wrap=True, least=20)


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument(
        "venv",
        metavar="VENV",
        nargs="?",
        help="only what venvs of this name or set hold, or that it fits as a pattern",
    )
    parser.add_argument("--all", action="store_true", help="what any project holds, and what nobody does")
    parser.add_argument("--yes", action="store_true", help="do it")


class _Chosen(NamedTuple):
    """A snapshot to give up: *stays_for* are the venvs that hold it still; without any it is dropped."""

    snapshot: SnapshotSummary
    stays_for: tuple[VenvName, ...]


class _Choice(NamedTuple):
    """What to give up, which *venvs* do, and the paths of the venvs that have a key now, by its digest."""

    chosen: list[_Chosen]
    venvs: frozenset[VenvName]
    users: Mapping[str, Sequence[str]]

    @property
    def dropped(self) -> list[str]:
        """The ids of those that nobody holds then."""
        return [each.snapshot.id for each in self.chosen if not each.stays_for]


def run(args: argparse.Namespace, out: Output) -> int:
    """Give snapshots up; 0, also when there are none; Refused without ``--yes`` when there are some.

    JSON: ``store`` (its path), ``erased`` (whether it was done), ``snapshots`` (``id``, ``venv``, ``size``,
    ``created``, ``key_of``: paths of venvs that have its key now, ``stays_for``: the venvs that hold it
    still, each with ``project`` and ``name``; dropped if there is none) and ``freed`` (bytes that the file
    system got back; null when nothing was done).
    """
    flow = open_flow(args, out)
    with open_reader(flow.config.store) as store:
        choice = _choose(flow, store, args) if store is not None else _Choice([], frozenset(), {})
    swept = None
    if choice.chosen and args.yes:
        choice, swept = _erase(flow, args)
    if out.as_json:
        out.document(_as_document(flow, choice, swept, yes=args.yes))
    elif not choice.chosen:
        out.say("there is nothing to erase")
    elif swept is None:
        out.answer(_as_table(out, flow.config.root, choice))
    else:
        out.answer(f"{_said(choice, 'erased')}, freed {show_size(swept.bytes)}")
    if choice.chosen and swept is None:
        raise Refused(
            _said(choice, "would be erased", first=False),
            where=shown(flow.config.store.path),
            state="Nothing was erased.",
            hint="To do it, say --yes.",
        )
    return 0


def _choose(flow: Flow, store: StoreReader, args: argparse.Namespace) -> _Choice:
    """Return what to give up: what the venvs that are meant hold, and with ``--all`` what nobody does."""
    root = os.path.realpath(flow.config.root)
    records, summaries = store.holders(), store.summaries()
    holders = Holders(records, flow.config)
    names = {*flow.config.venvs, *holders.names, *(each.venv for each in summaries)}
    meant = names if args.venv is None else {*select([args.venv], sorted(names), flow.config.sets)}
    held = {(each.venv, identifier) for each in records for identifier in each.held}
    chosen, venvs = [], set()
    for each in summaries:
        holding = {hold.venv for hold in holders.holds_of(each)}
        ours = {venv for venv in holding if venv.name in meant and (args.all or venv.project == root)}
        others = tuple(sorted(holding - ours))
        if ours if not others else any((venv, each.id) in held for venv in ours):
            chosen.append(_Chosen(each, others))
        elif not holding and args.all and each.venv in meant:
            chosen.append(_Chosen(each, ()))
        venvs |= ours
    users: dict[str, list[str]] = {}
    for registration in store.registrations():
        users.setdefault(registration.key, []).append(registration.path)
    return _Choice(chosen, frozenset(venvs), users)


def _erase(flow: Flow, args: argparse.Namespace) -> tuple[_Choice, Swept]:
    """Choose again, now that nobody else can, give up, drop and sweep: holds end before snapshots go."""
    timeout = locks.lock_timeout(flow.environ)
    with Store(flow.config.store, timeout=timeout, on_wait=flow.say) as store, store.alone():
        choice = _choose(flow, store, args)
        given_up = {each.snapshot.id for each in choice.chosen}
        for each in store.holders():
            if each.venv in choice.venvs and not given_up.isdisjoint(each.held):
                store.hold(each.without(given_up))
        store.drop(choice.dropped)
        return choice, sweep(store)


def _said(choice: _Choice, what: str, *, first: bool = True) -> str:
    """Return how many snapshots were given up, and how many of these stay for others."""
    count, stay = len(choice.dropped), len(choice.chosen) - len(choice.dropped)
    text = f"{what} {counted(count, 'snapshot')}" if first else f"{counted(count, 'snapshot')} {what}"
    return f"{text}, {stay} given up that others hold" if stay else text


def _as_table(out: Output, root: str, choice: _Choice) -> str:
    stays = [", ".join(shown(str(venv)) for venv in each.stays_for) or "-" for each in choice.chosen]
    columns = (*_COLUMNS, _STAYS) if any(each.stays_for for each in choice.chosen) else _COLUMNS
    rows = [
        (
            snapshot.id[:12],
            shown(snapshot.venv),
            show_size(snapshot.size),
            ", ".join(_short(path, root) for path in choice.users.get(snapshot.key, ())) or "-",
            who,
        )[: len(columns)]
        for (snapshot, _), who in zip(choice.chosen, stays, strict=True)
    ]
    return table(out, columns, rows)


def _short(path: str, root: str) -> str:
    """Return *path* as seen from the project, if it lies in there."""
    real = os.path.realpath(root)
    return shown(os.path.relpath(path, real) if path.startswith(f"{real}/") else path)


def _as_document(flow: Flow, choice: _Choice, swept: Swept | None, *, yes: bool) -> dict[str, object]:
    return {
        "store": flow.config.store.path,
        "erased": yes,
        "freed": swept.bytes if swept is not None else (0 if yes else None),
        "snapshots": [
            {
                "id": snapshot.id,
                "venv": snapshot.venv,
                "size": snapshot.size,
                "created": moment(snapshot.created),
                "key_of": [*choice.users.get(snapshot.key, ())],
                "stays_for": [venv._asdict() for venv in stays_for],
            }
            for snapshot, stays_for in choice.chosen
        ],
    }
