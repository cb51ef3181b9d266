"""``venvflow list``: the snapshots in the store."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

from venvflow.cli.parser import Commands, add_command
from venvflow.cli.project import need_known, open_flow
from venvflow.cli.render import Column, Output, moment, since, table
from venvflow.errors import shown
from venvflow.units import show_size

if TYPE_CHECKING:
    from venvflow.cli.glance import Glance
    from venvflow.model import Snapshot, StoreConfig
    from venvflow.objects import Name

_COLUMNS = (
    Column("id"),
    Column("venv", least=8),
    Column("python", rank=2),
    Column("created", right=True, rank=5),
    Column("last used", right=True, rank=3),
    Column("host", least=6, rank=6),
    Column("size", right=True, rank=1),
    Column("unique", right=True, rank=4),
)


class _Row(NamedTuple):
    snapshot: Snapshot
    used: float | None
    unique: int


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "list",
        run,
        summary="list the snapshots in the store",
        more="Of all projects that use the store.\n"
        "Unique is what only that snapshot needs: what dropping it can free.",
        example="venvflow list api --json",
    )
    parser.add_argument("venv", metavar="VENV", nargs="?", help="only snapshots of venvs of this name")


def run(args: argparse.Namespace, out: Output) -> int:
    """List snapshots, oldest first; always 0.

    JSON: ``store`` (its path) and ``snapshots``, each with ``id``, ``key`` (its digest), ``venv``, ``place``
    (path below the project if it is bound to that, else null), ``python``, ``created`` and ``last_used``
    (ISO 8601 in UTC), ``host`` and ``command`` (that made it), ``files`` (their number), ``size`` (their
    bytes, as they appear) and ``unique_size`` (bytes of files that no other snapshot has).
    """
    flow = open_flow(args, out, require_locks=False)
    rows = _look(flow.config.store)
    if args.venv is not None:
        need_known(args.venv, [*flow.config.venvs, *(row.snapshot.venv for row in rows)])
        rows = [row for row in rows if row.snapshot.venv == args.venv]
    if out.as_json:
        out.document({"store": flow.config.store.path, "snapshots": [_as_record(row) for row in rows]})
    elif rows:
        now = flow.now()
        out.answer(table(out, _COLUMNS, [_cells(row, now) for row in rows]))
    else:
        out.say(f"no snapshots in {shown(flow.config.store.path)}")
    return 0


def _look(config: StoreConfig) -> list[_Row]:
    from venvflow.cli.glance import open_glance  # noqa: PLC0415 - not for wrong words

    with open_glance(config) as store:
        if store is None:
            return []
        snapshots = store.snapshots()
        usage = store.usage()
        unique = _unique_sizes(store, snapshots)
    return [
        _Row(each, usage[each.id].at if each.id in usage else None, unique[each.id]) for each in snapshots
    ]


def _unique_sizes(store: Glance, snapshots: list[Snapshot]) -> dict[str, int]:
    """Return the bytes that only one snapshot needs, by its id.

    Every tree is read once, however many snapshots share it. None stands for what several need.
    """
    trees: dict[str, str | None] = {}
    for snapshot in snapshots:
        for digest in snapshot.trees:
            trees[digest] = snapshot.id if trees.get(digest, snapshot.id) == snapshot.id else None
    owners: dict[Name, str | None] = {}
    sizes: dict[Name, int] = {}
    for digest, owner in trees.items():
        for name, size in _objects(store, digest):
            owners[name] = owner if owners.get(name, owner) == owner else None
            sizes[name] = size
    unique = dict.fromkeys((snapshot.id for snapshot in snapshots), 0)
    for name, owner in owners.items():
        if owner is not None:
            unique[owner] += sizes[name]
    return unique


def _objects(store: Glance, digest: str) -> list[tuple[Name, int]]:
    from venvflow.manifest import Corrupt  # noqa: PLC0415
    from venvflow.objects import object_names  # noqa: PLC0415

    try:
        tree = store.tree(digest)
    except Corrupt:
        return []  # its snapshots are misses; verify says more
    sizes = [entry.size for entry in tree.entries if entry.digest]
    return list(zip(object_names(tree), sizes, strict=True))


def _cells(row: _Row, now: float) -> tuple[str, ...]:
    snapshot = row.snapshot
    return (
        snapshot.id[:12],
        shown(snapshot.venv),
        snapshot.python,
        since(snapshot.created, now),
        since(row.used, now),
        shown(snapshot.host),
        show_size(snapshot.size),
        show_size(row.unique),
    )


def _as_record(row: _Row) -> dict[str, Any]:
    snapshot = row.snapshot
    return {
        "id": snapshot.id,
        "key": snapshot.key.digest,
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
    }
