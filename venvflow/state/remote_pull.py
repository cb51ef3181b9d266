"""What comes from a remote into the store: the trees of a snapshot that it lacks, with their objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from venvflow.disk.objects import Batch, Name, object_name
from venvflow.disk.system_errors import explained
from venvflow.errors import EnvironmentFailure, shown
from venvflow.model import Key, Tree
from venvflow.pure.decoding import Corrupt
from venvflow.pure.manifest import decode_tree
from venvflow.pure.parcels import largest_first
from venvflow.pure.records import RemoteRecord
from venvflow.state.reader import StoreReader
from venvflow.state.remote import Progress, Remote
from venvflow.state.store import Store

_GROUP = 64 << 20
"""Plain bytes of trees after which what came is published: a kill loses no more."""


class Fetched(NamedTuple):
    """What a pull brought: bytes that came, and why it is not whole, or nothing; the tree it *refused*."""

    stored: int
    reason: str = ""
    doubt: str = ""
    refused: str = ""


def missing_trees(store: StoreReader, record: RemoteRecord) -> list[tuple[str, int]]:
    """Return the trees that the store does not have whole, with their plain sizes, largest first."""
    return largest_first(
        (digest, raw)
        for digest, raw in zip(record.snapshot.trees, record.raw, strict=True)
        if not has_whole(store, digest)
    )


def fetch(
    remote: Remote,
    store: Store,
    record: RemoteRecord,
    missing: list[tuple[str, int]],
    progress: Progress,
) -> Fetched:
    """Bring the *missing* trees and their objects into the store.

    What came is published tree by tree: a killed pull goes on where it was. Raises RemoteDown and
    EnvironmentFailure.
    """
    total = sum(raw for _, raw in missing)
    _need_room(store, total)
    state = "What came whole stays in the store, and is not fetched again."
    with (
        explained("cannot write to the store", at=store.path, state=state),
        store.objects.batch() as batch,
    ):
        arrivals = _Arrivals(store, batch, record.snapshot.key, dict(missing), total, progress)
        if missing:
            with remote.asking():
                remote.read_parcels("pull", missing, arrivals.take, staging=batch.staging, store=store.path)
        arrivals.publish()
    if arrivals.bad and arrivals.is_absent:
        return Fetched(arrivals.stored, arrivals.reason())
    if arrivals.bad:
        return Fetched(arrivals.stored, arrivals.reason(), arrivals.reason(), arrivals.bad)
    known = store.index.known_trees()  # the others came with a pull that was cut off
    arrivals.learn([store.tree(each) for each in record.snapshot.trees if each not in known])
    return Fetched(arrivals.stored)


@dataclass(eq=False)
class _Arrivals:
    """Takes what a pull of the snapshot for *key* says that it has staged, and publishes it in groups."""

    store: Store
    batch: Batch
    key: Key
    wanted: Mapping[str, int]
    total: int
    progress: Progress
    stored: int = 0
    bad: str = ""
    is_absent: bool = False
    _why: str = ""
    _trees: list[Tree] = field(default_factory=list)
    _waiting: int = 0
    _done: int = 0

    def take(self, answer: dict[str, Any]) -> None:
        if "bad" in answer:
            self.bad, self._why = str(answer["bad"]), str(answer["why"])
            self.is_absent = bool(answer["absent"])
        elif "tree" in answer:
            self._take_tree(answer)

    def _take_tree(self, answer: dict[str, Any]) -> None:
        _ = self.store.index  # a new one is made from what lies there: better now than when there is more
        digest = answer["tree"]
        with open(f"{self.batch.staging}/{answer['file']}", "rb") as file:
            tree = decode_tree(digest, file.read())
        for name, object_, executable, size in answer["objects"]:
            self.batch.add_sealed(name, Name(object_, executable), size)
        self.store.stage_trees(self.batch, [tree])
        self._trees.append(tree)
        self.stored += answer["stored"]
        self._done += self.wanted[digest]
        self._waiting += self.wanted[digest]
        self.progress(self._done, self.total)
        if self._waiting >= _GROUP:
            self.publish()

    def publish(self) -> None:
        """Give what was staged its names, and tell the index: there is time while more is on its way."""
        self._waiting = 0
        self.batch.publish()
        self.learn(self._trees)
        self._trees = []

    def learn(self, trees: Sequence[Tree]) -> None:
        """Tell the index of trees that are there."""
        if not trees:
            return
        entries = (entry for tree in trees for entry in tree.entries)
        sizes = {object_name(entry): entry.size for entry in entries if entry.digest and entry.size}
        adopted = self.store.adopted()
        with self.store.index.writing():
            self.store.index.add_objects(
                {name: size for name, size in sizes.items() if name in self.batch or name not in adopted},
                self.batch.adopted,
            )
            self.store.learn(trees, self.key)

    def reason(self) -> str:
        """Return why the pull is not whole."""
        what = f"tree {self.bad[:12]}"
        if self.is_absent:
            return f"the snapshot is not whole there: {what} is missing"
        return f"{what} was refused: {shown(self._why)}"


def has_whole(store: StoreReader, digest: str) -> bool:
    """Return whether the store has a tree with all of its objects."""
    if not store.has_tree(digest):
        return False
    adopted = store.adopted()
    try:
        return all(
            size == 0 or store.objects.sound(name, size, adopted.get(name))
            for name, size in store.tree_objects(digest)
        )
    except (Corrupt, EnvironmentFailure):
        return False


def _need_room(store: Store, size: int) -> None:
    if size > (free := store.free_bytes()):
        from venvflow.pure.units import show_size  # noqa: PLC0415 - for this message only

        raise EnvironmentFailure(
            f"the snapshot in the remote needs {show_size(size)}, and {show_size(free)} are free",
            where=shown(store.path),
            state="Nothing was fetched.",
            hint='Make room ("venvflow trim" may), or choose another store.',
        )
