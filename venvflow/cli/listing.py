"""``venvflow list``: the snapshots in the store."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from venvflow.cli.arguments import Parser
from venvflow.cli.context import Context, open_context
from venvflow.cli.operands import select
from venvflow.cli.render import Column, Output, moment, since, table
from venvflow.errors import EnvironmentFailure, shown
from venvflow.pure.keys import snapshot_id
from venvflow.pure.units import counted, show_size
from venvflow.state.index import SnapshotSummary
from venvflow.state.reader import StoreReader, open_reader
from venvflow.state.registry import Registration
from venvflow.state.sweeping import own_bytes_since
from venvflow.state.usage import StoreContents
from venvflow.steps.hash_lockfiles import key_now

MORE = """\
Of this project, the ones that its venvs are or were made from; with --all, and outside of projects, all.
The one that was used last comes first; -v names every venv that was made for a snapshot's key.
Unique is what only that snapshot needs: what dropping it can free. A venv that refers to its
own project is bound to its place there: its snapshot then has a key besides its id."""
EXAMPLE = "venvflow list api --json"

_COLUMNS = (
    Column("id"),
    Column("venv", least=8),
    Column("python", rank=3),
    Column("created", right=True, rank=6),
    Column("last used", right=True, rank=4),
    Column("size", right=True, rank=1),
    Column("unique", right=True, rank=5),
    Column("used by", least=12, rank=2),
)
_KEY = Column("key", rank=7)


class _Row(NamedTuple):
    snapshot: SnapshotSummary
    unique: int
    users: tuple[Registration, ...]

    @property
    def used(self) -> float | None:
        """When the snapshot was last used, if that is known."""
        return self.snapshot.used.at if self.snapshot.used is not None else None


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument("--all", action="store_true", help="all snapshots in the store, not this project's")
    parser.add_argument(
        "venv",
        metavar="VENV",
        nargs="?",
        help="only snapshots of venvs of this name or set, or that it fits as a pattern",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """List snapshots, the one that was used last first; always 0.

    JSON: ``store`` (its path), ``project`` (the root of the one that it is about, null: all) and
    ``snapshots``, each with ``id``, ``key`` (its digest), ``venv``, ``place`` (path below the project if it
    is bound to that, else null), ``python``, ``created`` and ``last_used``
    (ISO 8601 in UTC), ``host`` and ``command`` (that made it), ``files`` (their number), ``size`` (their
    bytes, as they appear), ``unique_size`` (bytes of files that no other snapshot has) and ``used_by``: the
    venvs of this machine that are for its key, each with ``path``, ``project`` and ``name``.
    """
    context = open_context(args, out)
    root = context.scope(everything=args.all)
    with open_reader(context.store) as store:
        everything = _look(store) if store is not None else []
        ours = _of_project(context, store, root) if store is not None and root is not None else None
    rows = [row for row in everything if ours is None or row.snapshot.id in ours]
    rows.sort(key=lambda row: row.used or row.snapshot.created, reverse=True)
    if args.venv is not None:
        names = select(
            [args.venv], [*context.venvs, *(row.snapshot.venv for row in everything)], context.sets
        )
        rows = [row for row in rows if row.snapshot.venv in names]
    if out.as_json:
        records = [_as_record(row) for row in rows]
        out.document({"store": context.store.path, "project": root, "snapshots": records})
    elif rows:
        out.answer(_as_table(out, rows, time.time()))
    else:
        others = f"; --all lists {len(everything):,} of others" if everything and root is not None else ""
        out.say(f"no snapshots{' of this project' if others else ''} in {shown(context.store.path)}{others}")
    return 0


def _look(store: StoreReader) -> list[_Row]:
    snapshots, unique = _snapshots(store)
    users = _users(store)
    return [_Row(each, unique.get(each.id, 0), users.get(each.id, ())) for each in snapshots]


def _of_project(context: Context, store: StoreReader, root: str) -> set[str]:
    """Return the ids of the snapshots that are the project's at *root*: what its venvs are, were, or want."""
    found: set[str] = set()
    with suppress(EnvironmentFailure):  # a sweep says what is wrong there
        for each in store.holders():
            if each.project == root:
                found |= each.held.keys()
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


def _snapshots(store: StoreReader) -> tuple[list[SnapshotSummary], Mapping[str, int]]:
    """Return all snapshots, oldest first, and by id the bytes that only one of them needs.

    The last trim counted them. If a snapshot came, went or changed since, everything is looked into.
    """
    known = own_bytes_since(store)
    if known is not None:
        return store.summaries(), known
    contents = StoreContents(store)
    return store.summaries_of(contents.snapshots.values()), contents.own_bytes()


# --------------------------------------------------------------------------- showing


def _as_table(out: Output, rows: Sequence[_Row], now: float) -> str:
    """Return the table; with ``-v``, the venvs that use a snapshot below its line.

    Keys are shown only where some snapshot has another id than its key.
    """
    bound = any(row.snapshot.id != row.snapshot.key for row in rows)
    columns = (*_COLUMNS, _KEY) if bound else _COLUMNS
    cells = [(*_cells(row, now), row.snapshot.key[:12])[: len(columns)] for row in rows]
    lines = table(out, columns, cells).splitlines()
    if not out.verbose:
        return "\n".join(lines)
    below = [[f"  {shown(each.path)}" for each in row.users] for row in rows]
    return "\n".join(
        [lines[0], *(text for line, more in zip(lines[1:], below, strict=True) for text in (line, *more))]
    )


def _cells(row: _Row, now: float) -> tuple[str, ...]:
    snapshot = row.snapshot
    return (
        snapshot.id[:12],
        shown(snapshot.venv),
        snapshot.python,
        since(snapshot.created, now),
        since(row.used, now),
        show_size(snapshot.size),
        show_size(row.unique),
        _used_by(row.users),
    )


def _used_by(users: Sequence[Registration]) -> str:
    """Return the project of the only venv that is for a snapshot, or how many there are."""
    if not users:
        return "-"
    projects = list(dict.fromkeys(each.project for each in users))
    return _from_home(projects[0]) if len(projects) == 1 else counted(len(users), "venv")


def _from_home(path: str, environ: Mapping[str, str] = os.environ) -> str:
    home = environ.get("HOME", "").rstrip("/")
    return f"~{shown(path[len(home) :])}" if home and f"{path}/".startswith(f"{home}/") else shown(path)


def _as_record(row: _Row) -> dict[str, Any]:
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
    }
