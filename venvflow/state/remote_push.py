"""What a remote is given: the trees of a snapshot that it lacks, and last its record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from venvflow.disk.remote.channel import Channel, ChannelFailure, encoded
from venvflow.model import Snapshot
from venvflow.pure.ci import origin_of
from venvflow.pure.decoding import Corrupt
from venvflow.pure.expiry import condemned_since, doomed
from venvflow.pure.manifest import encode_tree
from venvflow.pure.parcels import announced_size, is_condemned, largest_first, parcel_path
from venvflow.pure.records import RemoteRecord, encode_record, record_path
from venvflow.state.reader import StoreReader
from venvflow.state.remote import (
    FORMAT,
    FORMAT_TEXT,
    Progress,
    Remote,
    RemoteDown,
    Signer,
    Standing,
    boot_seconds,
    has_format,
)
from venvflow.state.remote_marks import read_marks

_SILENCE = 60
"""Seconds without a byte in a push: what is sent is counted when it has arrived."""

_LONGEST = 1800.0
"""Seconds that a push may take, whatever its config says: the least grace of a trim is twice as long."""

_FOR_RECORD = 60.0
"""Seconds that writing the record may take, the last thing that a push does."""

FOR_EVER = 1e12
"""As the time since which a tree is condemned: whatever is there is sent anew."""

_DAY = 86_400.0
"""Seconds after which a push says again that a record is used."""


class Pushed(NamedTuple):
    """What a push did: whether it made a *record*, how many bytes it sent, and how many trees.

    *written* is when the record that is there was, by our clock if we did.
    """

    record: bool
    written: float
    stored: int = 0
    trees: int = 0


@contextmanager
def sending(remote: Remote) -> Iterator[Channel]:
    """Give the way to the remote, patiently.

    Raises what :meth:`Remote.asking` does, and :class:`Corrupt` if an object of ours is damaged.
    """
    with remote.asking() as channel:
        try:
            channel.silence, before = max(channel.silence, _SILENCE), channel.silence
            yield channel
        except ChannelFailure as error:
            if error.kind == "damaged":
                raise Corrupt(f"the object {str(error)[:12]} is damaged") from error
            raise
        finally:
            channel.silence = before


def begin(channel: Channel) -> None:
    """Write down which format the remote has, if nobody has; raises ChannelFailure for another one."""
    if not has_format(channel):
        channel.ask("put", path=FORMAT, data=encoded(FORMAT_TEXT))


@dataclass(eq=False)
class Push:
    """One snapshot on its way to a remote; *scratch* is a directory for what is sent.

    *before* is another that the remote had at some time: if it still has that, what both need is there.
    *refused* is the digest of a tree that is not what it should be there, so that it is sent anew.
    *is_needed*: the remote was found to lack something of it.
    """

    remote: Remote
    store: StoreReader
    snapshot: Snapshot
    signer: Signer
    scratch: str
    progress: Progress
    before: Snapshot | None = None
    refused: str = ""
    is_needed: bool = False
    _since: dict[str, float] = field(default_factory=dict)

    def run(self) -> Pushed:
        """Send what the remote lacks, the record last.

        A record that is there, believed, of the same trees and with all of them stays; that it is used is
        told once a day, by writing its very bytes again. Raises RemoteDown, EnvironmentFailure, and
        :class:`Corrupt` if a tree or an object of ours is damaged.
        """
        end = boot_seconds() + min(self.remote.config.limit, _LONGEST)
        with sending(self.remote) as channel:
            begin(channel)
            there = self._look(channel)
            if there is not None and self._is_same(there) and not self._lacking(channel, self.snapshot.trees):
                if abs(time.time() - there.written) <= _DAY:
                    return Pushed(False, there.written)
                self._write(channel, there.path, there.data, end)
                return Pushed(False, time.time())
            self.is_needed = True
            known = self._known(channel, there)
            sizes = plain_sizes(self.store, [tree for tree in self.snapshot.trees if tree not in known])
            pushed = self._send(channel, sizes)
            raw = tuple((known | sizes)[tree] for tree in self.snapshot.trees)
            origin = origin_of(self.remote.environ) if self.remote.config.origin else ""
            record = RemoteRecord(self.snapshot, raw, self.signer.issuer, origin)
            data = encode_record(record, self.signer.secret)
            self._write(channel, record_path(self.snapshot.id), data, end)
        return pushed

    def foresee(self) -> dict[str, int] | None:
        """Return the trees that :meth:`run` would send, and their plain bytes; None if all is there.

        Nothing is written. Without trees it would write a record alone. Raises as :meth:`run` does.
        """
        with sending(self.remote) as channel:
            has_format(channel)
            there = self._look(channel)
            known = self._known(channel, there)
            lacking = self._lacking(channel, [tree for tree in self.snapshot.trees if tree not in known])
        if there is not None and self._is_same(there) and not lacking:
            return None
        return plain_sizes(self.store, lacking)

    def _look(self, channel: Channel) -> Standing | None:
        """Return the record that is there, and remember what a trim has condemned."""
        found = self.remote.judged(channel, self.snapshot.key.digest, [self.snapshot.place])
        self._since = condemned_since(read_marks(channel, self.remote.config.connections))
        if self.refused:
            self._since[self.refused] = FOR_EVER
        return next(iter(found), None)

    def _is_same(self, there: Standing) -> bool:
        return there.record is not None and there.record.snapshot.trees == self.snapshot.trees

    def _known(self, channel: Channel, there: Standing | None) -> dict[str, int]:
        """Return the trees that need not be looked for, with their plain sizes.

        A record has all of its trees for as long as it is there: so those of the one before are there, except
        what a trim has condemned. If this snapshot has a record, something was amiss: then all is looked for.
        """
        if self.before is None or there is not None:
            return {}
        found = self.remote.judged(channel, self.before.key.digest, [self.before.place])
        return {
            tree: raw
            for each in found
            if each.record is not None
            for tree, raw in zip(each.record.snapshot.trees, each.record.raw, strict=True)
            if tree not in self._since
        }

    def _lacking(self, channel: Channel, trees: Iterable[str]) -> list[str]:
        """Return those of *trees* whose parcels are not there, or are to go."""
        paths = {parcel_path(tree): tree for tree in trees}
        connections = self.remote.config.connections
        heads = channel.ask("head", paths=list(paths), connections=connections)["heads"]
        return [
            paths[path]
            for path, head in heads.items()
            if head is None or is_condemned(paths[path], head[2], self._since)
        ]

    def _send(self, channel: Channel, sizes: Mapping[str, int]) -> Pushed:
        total, sent, trees = sum(sizes.values()), 0, 0

        def heard(answer: dict[str, Any]) -> None:
            nonlocal sent, trees
            if "pushed" in answer:
                sent += answer["sent"]
                trees += bool(answer["sent"])
            elif "done" in answer:
                self.progress(min(answer["done"], total), total)

        send_trees(channel, self.remote, self.store, sizes, self.scratch, heard=heard, since=self._since)
        return Pushed(True, time.time(), sent, trees)

    def _write(self, channel: Channel, path: str, data: bytes, end: float) -> None:
        """Write the record, the last thing that a push does, unless it is later than *end*."""
        self._give_up_late(channel, end)
        channel.ask("put", path=path, data=encoded(data), within=_FOR_RECORD)

    def _give_up_late(self, channel: Channel, end: float) -> None:
        """Raise RemoteDown if a trim may be deleting what was sent, or may be before the record is there."""
        marks = read_marks(channel, self.remote.config.connections)
        if taken := doomed(marks).intersection(self.snapshot.trees):
            raise RemoteDown(f"a trim is just deleting tree {min(taken)[:12]}, which it needs")
        paths = [parcel_path(tree) for tree in self.snapshot.trees if tree in self._since]
        heads = channel.ask("head", paths=paths, connections=self.remote.config.connections)["heads"]
        if None in heads.values():
            raise RemoteDown("a trim has just deleted a tree that it needs")
        if boot_seconds() > end:
            raise RemoteDown("it took longer than it may")


def plain_sizes(store: StoreReader, trees: Iterable[str]) -> dict[str, int]:
    """Return by tree how many plain bytes its parcel has; raises :class:`Corrupt` for one that is damaged."""
    return {tree.digest: announced_size(tree, len(encode_tree(tree))) for tree in store.manifest(trees).trees}


def send_trees(
    channel: Channel,
    remote: Remote,
    store: StoreReader,
    sizes: Mapping[str, int],
    scratch: str,
    *,
    heard: Callable[[dict[str, Any]], object],
    since: Mapping[str, float],
) -> None:
    """Send the trees in *sizes* that are not there, or were condemned *since* they were written."""
    channel.ask(
        "push",
        heard=heard,
        trees=[digest for digest, _ in largest_first(sizes.items())],
        staging=scratch,
        store=store.path,
        condemned={tree: since[tree] for tree in sizes if tree in since},
        connections=remote.config.connections,
    )
