"""A crowd of snapshots: a store as it is after many versions of one venv, without building each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from venvflow.disk.objects import Batch, object_name
from venvflow.model import Entry, Manifest, Snapshot, StoreConfig, Tree
from venvflow.pure.keys import make_key, snapshot_id
from venvflow.pure.manifest import make_tree
from venvflow.state.store import Store

CHANGED = 24
"""Files that one version of a package changes: a dozen modules and their bytecode."""

_HOUR = 3600


def add_snapshots(config: StoreConfig, number: int) -> None:
    """Add *number* snapshots to the store of *config*, each unlike the one that is there in one package.

    They are what venvflow itself would have published, by its own functions: new objects, a new tree that
    lists them, a snapshot under a key of its own, an hour older than the one before. Changed files are the
    old ones with a line more (bytecode stays loadable that way). Raises ValueError for a store that has none.
    """
    with Store(config) as store, store.use():
        known = store.snapshots()
        if not known:
            raise ValueError(f"{config.path} has no snapshot to start from")
        original = known[-1]
        manifest = store.load(original)
        for first in range(0, number, _AT_ONCE):
            _add(store, original, manifest, range(first, min(first + _AT_ONCE, number)))


_AT_ONCE = 100


def _add(store: Store, original: Snapshot, manifest: Manifest, numbers: range) -> None:
    with store.objects.batch() as batch:
        versions = [(number, list(_trees(store, batch, manifest, number))) for number in numbers]
        for _, trees in versions:
            store.stage_trees(batch, trees)
        batch.publish()
        index = store.index
        with index.writing():
            index.add_objects(batch.added, {})
            for number, trees in versions:
                snapshot = _snapshot(original, trees, number)
                store.learn(trees, snapshot.key)
                store.publish(snapshot, snapshot.created)


def _trees(store: Store, batch: Batch, manifest: Manifest, number: int) -> Iterator[Tree]:
    """Yield the trees of a version: one distribution changed, in turn, the others as they are."""
    distributions = [tree.digest for tree in manifest.trees if tree.version]
    changed = distributions[number % len(distributions)]
    for tree in manifest.trees:
        yield _changed(store, batch, tree, number) if tree.digest == changed else tree


def _changed(store: Store, batch: Batch, tree: Tree, number: int) -> Tree:
    left = CHANGED
    entries = []
    for entry in tree.entries:
        is_code = entry.kind == "file" and entry.size > 0
        entries.append(_longer(store, batch, entry, number) if left and is_code else entry)
        left -= bool(left and is_code)
    return make_tree(tree.name, f"{tree.version}.{number}", entries)


def _longer(store: Store, batch: Batch, entry: Entry, number: int) -> Entry:
    data = store.objects.read(object_name(entry))
    assert data is not None, f"the object of {entry.path} is gone"
    data += f"# {number}\n".encode("ascii")
    name = batch.add_bytes(data, executable=entry.executable)
    return entry._replace(digest=name.digest, size=len(data))


def _snapshot(original: Snapshot, trees: list[Tree], number: int) -> Snapshot:
    lock = hashlib.sha256(b"%d" % number).hexdigest()
    parts = {name: lock if name.startswith("lock") else value for name, value in original.key.parts.items()}
    key = make_key(parts)
    return replace(
        original,
        id=snapshot_id(key.digest, original.place),
        key=key,
        trees=tuple(tree.digest for tree in trees),
        created=original.created - _HOUR * (number + 1),
        size=sum(entry.size for tree in trees for entry in tree.entries if entry.digest),
    )
