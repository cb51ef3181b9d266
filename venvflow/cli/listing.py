"""``venvflow list``: the snapshots in the store, or in the remote."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from venvflow.cli.arguments import Parser
from venvflow.cli.context import Context, open_context
from venvflow.cli.operands import select
from venvflow.cli.render import Column, Output, from_home, held_by, moment, since, table
from venvflow.errors import EnvironmentFailure, shown
from venvflow.pure.keys import snapshot_id
from venvflow.pure.retention import Hold
from venvflow.pure.units import counted, show_size
from venvflow.state.index import SnapshotSummary
from venvflow.state.reader import StoreReader, open_reader
from venvflow.state.registry import Registration
from venvflow.state.sweeping import own_bytes_since
from venvflow.state.usage import StoreContents
from venvflow.steps.hash_lockfiles import key_now
from venvflow.steps.holders import Holders

MORE = """\
Of this project, the ones that its venvs are or were made from; with --all, and outside of projects, all.
The one that was used last comes first. Held by: the venvs, as project:name, that were built as it or
restored from it; -v names all of them, when it was last, and from which remote it came, signed by whom.
Unique is what only that snapshot needs: what dropping it can free. A venv that refers to its
own project is bound to its place there: its snapshot then has a key besides its id.
With --remote, those in the remote, of all projects: who signed them, whether they are believed here
and whole, and when each was last pushed. Size is in bytes as they lie there."""
EXAMPLE = "venvflow list api --json"

_COLUMNS = (
    Column("id"),
    Column("venv", least=8),
    Column("python", rank=3),
    Column("created", right=True, rank=6),
    Column("last used", right=True, rank=4),
    Column("size", right=True, rank=1),
    Column("unique", right=True, rank=5),
    Column("held by", least=12, rank=2),
)
_KEY = Column("key", rank=7)


class SnapshotRow(NamedTuple):
    """A snapshot, the bytes that only it needs, the venvs that are for its key, and who holds it."""

    snapshot: SnapshotSummary
    unique: int
    users: tuple[Registration, ...]
    holds: tuple[Hold, ...]

    @property
    def used(self) -> float | None:
        """When the snapshot was last used, if that is known."""
        uses = [self.snapshot.used, *(each.used for each in self.holds)]
        return max((each.at for each in uses if each is not None), default=None)

    def names(self, root: str | None) -> set[str]:
        """Return the names of the venvs that hold it, of one project or all; else that of its first one."""
        held = {each.venv.name for each in self.holds if root in (None, each.venv.project)}
        return held or {self.snapshot.venv}


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument("--all", action="store_true", help="all snapshots in the store, not this project's")
    parser.add_argument("--remote", action="store_true", help="the snapshots in the remote")
    parser.add_argument(
        "venv",
        metavar="VENV",
        nargs="?",
        help="only what venvs of this name or set hold, or that it fits as a pattern",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """List snapshots, the one that was used last first; always 0.

    JSON: ``store`` (its path), ``project`` (the root of the one that it is about, null: all) and
    ``snapshots``, each with ``id``, ``key`` (its digest), ``venv``, ``place`` (path below the project if it
    is bound to that, else null), ``python``, ``created`` and ``last_used``
    (ISO 8601 in UTC), ``host`` and ``command`` (that made it), ``files`` (their number), ``size`` (their
    bytes, as they appear), ``unique_size`` (bytes of files that no other snapshot has), ``used_by``: the
    venvs of this machine that are for its key, each with ``path``, ``project`` and ``name``, and ``held_by``:
    who holds it, each with ``project``, ``name`` and ``last_used``. With ``--remote`` as
    :func:`~venvflow.cli.remote.list_remote` has it.
    """
    if args.remote:
        from venvflow.cli.remote import list_remote, refuse_local_words  # noqa: PLC0415 - few ask for it

        refuse_local_words(args, ["--all"] if args.all else [])
        return list_remote(args, out)
    context = open_context(args, out)
    root = context.scope(everything=args.all)
    with open_reader(context.store) as store:
        everything = snapshot_rows(store, context) if store is not None else []
    rows = rows_of_project(everything, context) if root is not None else everything
    rows.sort(key=lambda row: row.used or row.snapshot.created, reverse=True)
    if args.venv is not None:
        known = {name for row in everything for name in row.names(None)}
        names = {*select([args.venv], [*context.venvs, *sorted(known)], context.sets)}
        rows = [row for row in rows if not names.isdisjoint(row.names(root))]
    if out.as_json:
        records = [_as_record(row) for row in rows]
        out.document({"store": context.store.path, "project": root, "snapshots": records})
    elif rows:
        out.answer(_as_table(out, rows, time.time()))
    else:
        others = f"; --all lists {len(everything):,} of others" if everything and root is not None else ""
        out.say(f"no snapshots{' of this project' if others else ''} in {shown(context.store.path)}{others}")
    return 0


def snapshot_rows(
    store: StoreReader, context: Context, contents: StoreContents | None = None
) -> list[SnapshotRow]:
    """Return all snapshots in the store, oldest first; *contents* are its own, if they were looked at."""
    snapshots, unique = _snapshots(store, contents)
    users, holders = _users(store), _holders(store, context)
    return [
        SnapshotRow(each, unique.get(each.id, 0), users.get(each.id, ()), holders.holds_of(each))
        for each in snapshots
    ]


def rows_of_project(rows: Iterable[SnapshotRow], context: Context) -> list[SnapshotRow]:
    """Return those of *rows* that the project's venvs hold or want."""
    root, wanted = context.scope(everything=False), _wanted(context)
    return [
        row
        for row in rows
        if row.snapshot.id in wanted or any(each.venv.project == root for each in row.holds)
    ]


def _holders(store: StoreReader, context: Context) -> Holders:
    config = context.flow.config if context.flow is not None else None
    try:
        return Holders(store.holders(), config)
    except EnvironmentFailure:  # a trim says what is wrong there
        return Holders((), config)


def _wanted(context: Context) -> set[str]:
    """Return the ids of the snapshots that the project's venvs want."""
    found: set[str] = set()
    for job in context.jobs:
        key = key_now(job)
        digests = (record.key.digest for record in (key.noted, key.now) if record is not None)
        found |= {snapshot_id(digest, place) for digest in digests for place in (None, job.position)}
    return found


def _users(store: StoreReader) -> dict[str, tuple[Registration, ...]]:
    """Return the venvs that are there by the snapshot that is for their key."""
    users: dict[str, tuple[Registration, ...]] = {}
    with suppress(EnvironmentFailure):  # a sweep says what is wrong there
        for each in store.registrations():
            if each.snapshot is not None and os.path.lexists(each.path):
                users[each.snapshot] = (*users.get(each.snapshot, ()), each)
    return users


def _snapshots(
    store: StoreReader, contents: StoreContents | None
) -> tuple[list[SnapshotSummary], Mapping[str, int]]:
    """Return all snapshots, oldest first, and by id the bytes that only one of them needs.

    The last trim counted them. If a snapshot came, went or changed since, everything is looked into.
    """
    known = own_bytes_since(store)
    if known is not None:
        return store.summaries(), known
    contents = contents or StoreContents(store)
    return store.summaries_of(contents.snapshots.values()), contents.own_bytes()


# --------------------------------------------------------------------------- showing


def _as_table(out: Output, rows: Sequence[SnapshotRow], now: float) -> str:
    """Return the table; with ``-v``, where a snapshot came from and the venvs that hold it below its line.

    Keys are shown only where some snapshot has another id than its key.
    """
    bound = any(row.snapshot.id != row.snapshot.key for row in rows)
    columns = (*_COLUMNS, _KEY) if bound else _COLUMNS
    cells = [(*_cells(row, now), row.snapshot.key[:12])[: len(columns)] for row in rows]
    lines = table(out, columns, cells).splitlines()
    if not out.verbose:
        return "\n".join(lines)
    below = [
        [*_origin(row), *(f"  {_named(each)}, {since(each.used.at, now)}" for each in row.holds)]
        for row in rows
    ]
    return "\n".join(
        [lines[0], *(text for line, more in zip(lines[1:], below, strict=True) for text in (line, *more))]
    )


def _origin(row: SnapshotRow) -> tuple[str, ...]:
    """Return the line of a snapshot that came from a remote."""
    return (f"  from {shown(row.snapshot.host)}",) if "://" in row.snapshot.host else ()


def _cells(row: SnapshotRow, now: float) -> tuple[str, ...]:
    snapshot = row.snapshot
    return (
        snapshot.id[:12],
        shown(snapshot.venv),
        snapshot.python,
        since(snapshot.created, now),
        since(row.used, now),
        show_size(snapshot.size),
        show_size(row.unique),
        _held_by(row.holds),
    )


def _held_by(holds: Sequence[Hold]) -> str:
    """Return the only venv that holds a snapshot, or how many do."""
    if len(holds) == 1:
        return _named(holds[0])
    return counted(len(holds), "venv") if holds else "-"


def _named(hold: Hold) -> str:
    return f"{from_home(hold.venv.project)}:{shown(hold.venv.name)}"


def _as_record(row: SnapshotRow) -> dict[str, Any]:
    snapshot = row.snapshot
    return {
        "id": snapshot.id,
        "key": snapshot.key,
        "venv": snapshot.venv,
        "place": snapshot.place,
        "python": snapshot.python,
        "created": moment(snapshot.created),
        "last_used": moment(row.used),
        "host": snapshot.host,
        "command": snapshot.command,
        "files": snapshot.files,
        "size": snapshot.size,
        "unique_size": row.unique,
        "used_by": [{"path": each.path, "project": each.project, "name": each.name} for each in row.users],
        "held_by": held_by(row.holds),
    }
