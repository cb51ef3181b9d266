"""``venvflow erase``: drops snapshots; venvs stay whole."""

from __future__ import annotations

import argparse
import os

from venvflow.cli.arguments import Parser
from venvflow.cli.context import open_flow
from venvflow.cli.operands import select
from venvflow.cli.render import Column, Output, moment, table
from venvflow.disk import locks
from venvflow.errors import Refused, shown
from venvflow.flow import Flow
from venvflow.model import Snapshot
from venvflow.pure.units import counted, show_size
from venvflow.state.reader import open_reader
from venvflow.state.store import Store
from venvflow.state.sweeping import Swept, sweep

MORE = """\
Without --yes it shows what it would drop, drops nothing, and exits with 6. It never asks.
Snapshots are chosen by the name of their venv, whichever project on this store made them.
Venvs stay whole."""
EXAMPLE = "venvflow erase api --yes"

_COLUMNS = (
    Column("id"),
    Column("venv", least=8),
    Column("size", right=True),
    Column("key of", wrap=True, least=20),
)


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument(
        "venv",
        metavar="VENV",
        nargs="?",
        help="only snapshots of venvs of this name or set, or that it fits as a pattern",
    )
    parser.add_argument("--yes", action="store_true", help="do it")


def run(args: argparse.Namespace, out: Output) -> int:
    """Drop snapshots; 0, also when there are none; Refused without ``--yes`` when there are some.

    JSON: ``store`` (its path), ``erased`` (whether it was done), ``snapshots`` (``id``, ``venv``, ``size``,
    ``created``, ``key_of``: paths of venvs that have its key now) and ``freed`` (bytes that the file system
    got back; null when nothing was done).
    """
    flow = open_flow(args, out)
    chosen, users = _choose(flow, args.venv)
    swept = _erase(flow, chosen) if chosen and args.yes else None
    if out.as_json:
        out.document(_as_document(flow, chosen, users, swept, yes=args.yes))
    elif not chosen:
        out.say("there is nothing to erase")
    elif swept is None:
        out.answer(_as_table(out, flow.config.root, chosen, users))
    else:
        out.answer(f"erased {counted(len(chosen), 'snapshot')}, freed {show_size(swept.bytes)}")
    if chosen and swept is None:
        raise Refused(
            f"{counted(len(chosen), 'snapshot')} would be erased",
            where=shown(flow.config.store.path),
            state="Nothing was erased.",
            hint="To do it, say --yes.",
        )
    return 0


Users = dict[str, list[str]]
"""The paths of the venvs that have a key now, by its digest."""


def _choose(flow: Flow, venv: str | None) -> tuple[list[Snapshot], Users]:
    """Return the snapshots to drop, and who has their keys."""
    with open_reader(flow.config.store) as store:
        snapshots = store.snapshots() if store is not None else []
        users: Users = {}
        for each in store.registrations() if store is not None else ():
            users.setdefault(each.key, []).append(each.path)
    if venv is not None:
        names = select(
            [venv], [*flow.config.venvs, *(snapshot.venv for snapshot in snapshots)], flow.config.sets
        )
        snapshots = [snapshot for snapshot in snapshots if snapshot.venv in names]
    return snapshots, users


def _erase(flow: Flow, chosen: list[Snapshot]) -> Swept:
    """Drop the chosen snapshots, whatever became of the others meanwhile, and sweep."""
    timeout = locks.lock_timeout(flow.environ)
    with Store(flow.config.store, timeout=timeout, on_wait=flow.say) as store, store.alone():
        store.drop(snapshot.id for snapshot in chosen)
        return sweep(store)


def _as_table(out: Output, root: str, chosen: list[Snapshot], users: Users) -> str:
    rows = [
        (
            snapshot.id[:12],
            shown(snapshot.venv),
            show_size(snapshot.size),
            ", ".join(_short(path, root) for path in users.get(snapshot.key.digest, ())) or "-",
        )
        for snapshot in chosen
    ]
    return table(out, _COLUMNS, rows)


def _short(path: str, root: str) -> str:
    """Return *path* as seen from the project, if it lies in there."""
    real = os.path.realpath(root)
    return shown(os.path.relpath(path, real) if path.startswith(f"{real}/") else path)


def _as_document(
    flow: Flow, chosen: list[Snapshot], users: Users, swept: Swept | None, *, yes: bool
) -> dict[str, object]:
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
                "key_of": users.get(snapshot.key.digest, []),
            }
            for snapshot in chosen
        ],
    }
