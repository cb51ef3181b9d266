"""``verify --remote``: reads what lies in a remote, names what is damaged or missing, and sends it again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from venvflow.errors import shown
from venvflow.pure.decoding import Corrupt
from venvflow.pure.manifest import encode_tree
from venvflow.pure.parcels import announced_size
from venvflow.pure.records import SeenRecord
from venvflow.state.remote import Progress, Remote, using
from venvflow.state.remote_contents import RemoteContents, look_into
from venvflow.state.remote_pull import has_whole
from venvflow.state.remote_push import FOR_EVER, send_trees, sending
from venvflow.state.store import Store

_GROUP = 256 << 20
"""Bytes of parcels that are read by one request of ours."""


@dataclass
class RemoteFinding:
    """A tree that is not there as it should be, or a record that cannot be read.

    *id* is that of the tree or of the record, *needed_by* are the records that need the tree. *healed*: it
    was sent anew, and read again.
    """

    kind: Literal["parcel damaged", "parcel missing", "record unreadable"]
    id: str
    note: str
    needed_by: Sequence[SeenRecord] = ()
    healed: bool = False


@dataclass
class RemoteVerified:
    """What was looked at: *records*, *disbelieved* ones among them, and *parcels* with their *bytes*."""

    records: int = 0
    parcels: int = 0
    bytes: int = 0
    disbelieved: int = 0
    findings: list[RemoteFinding] = field(default_factory=list)

    @property
    def left(self) -> list[RemoteFinding]:
        """The findings that are not healed."""
        return [each for each in self.findings if not each.healed]


def verify_remote(
    remote: Remote,
    *,
    sample: int | None = None,
    store: Store | None = None,
    progress: Progress = lambda _done, _of: None,
) -> RemoteVerified:
    """Read what believed records need, all or a *sample* of so many; heal it from the *store*, if any.

    Raises EnvironmentFailure when the remote cannot be used.
    """
    with using(remote, "What is in the remote is as it was.") as channel:
        contents = look_into(remote, channel)
        checking = _Checking(remote, contents)
        checking.run(sample, progress)
        if store is not None:
            checking.heal(store)
    return checking.result


class _Checking:
    """One look at the parcels of a remote."""

    def __init__(self, remote: Remote, contents: RemoteContents) -> None:
        self._remote, self._contents = remote, contents
        records = sorted(contents.records.values(), key=lambda each: (each.venv, each.id))
        self.result = RemoteVerified(len(records), disbelieved=sum(bool(each.doubt) for each in records))
        self._raw: dict[str, int] = {}
        self._needed_by: dict[str, list[SeenRecord]] = {}
        for record in records:
            if record.trees is None:
                self.result.disbelieved -= 1
                self.result.findings.append(RemoteFinding("record unreadable", record.id, record.doubt))
            if record.doubt:  # nobody takes what it names for its sake
                continue
            for tree, raw in zip(record.trees or (), record.raw, strict=True):
                self._needed_by.setdefault(tree, []).append(record)
                self._raw[tree] = raw

    def run(self, sample: int | None, progress: Progress) -> None:
        """Read the parcels, or some."""
        there = [tree for tree in sorted(self._raw) if tree in self._contents.parcels]
        for tree in sorted(self._raw.keys() - {*there}):
            self._find("parcel missing", tree, "it is not there")
        if sample is not None and sample < len(there):
            there = sorted(random.sample(there, sample))
        total = sum(self._contents.parcels[tree].size for tree in there)
        for group in self._groups(there):
            for tree, why in self._read(group).items():
                if why:
                    self._find("parcel damaged", tree, why)
                self.result.parcels += 1
                self.result.bytes += self._contents.parcels[tree].size
            progress(self.result.bytes, total)

    def _groups(self, trees: Sequence[str]) -> Iterator[list[str]]:
        group: list[str] = []
        size = 0
        for tree in trees:
            group.append(tree)
            size += self._contents.parcels[tree].size
            if size >= _GROUP:
                yield group
                group, size = [], 0
        if group:
            yield group

    def _read(self, trees: Sequence[str]) -> Mapping[str, str]:
        """Return what is wrong with each parcel, empty: nothing."""
        found: dict[str, str] = {}

        def heard(answer: dict[str, Any]) -> None:
            if "bad" in answer:
                found[answer["bad"]] = shown(str(answer["why"]))
            elif "sound" in answer:
                found[answer["sound"]] = ""

        sizes = [(tree, self._raw[tree]) for tree in trees]
        self._remote.read_parcels("verify", sizes, heard, staging="", store="")
        return found

    def _find(self, kind: Literal["parcel damaged", "parcel missing"], tree: str, note: str) -> None:
        self.result.findings.append(RemoteFinding(kind, tree, note, self._needed_by[tree]))

    def heal(self, store: Store) -> None:
        """Send the trees that the store has whole, one by one, and read them again."""
        for finding in self.result.findings:
            if finding.kind == "record unreadable":
                continue
            if not has_whole(store, finding.id):
                finding.note += "; this store has not got it"
                continue
            try:
                self._send(store, finding.id)
            except Corrupt as error:
                finding.note += f"; it cannot be sent: {error}"
                continue
            why = self._read([finding.id]).get(finding.id, "it is not there")
            finding.healed = not why

    def _send(self, store: Store, tree: str) -> None:
        loaded = store.tree(tree)
        size = announced_size(loaded, len(encode_tree(loaded)))
        with store.objects.batch() as batch, sending(self._remote) as channel:
            send_trees(
                channel,
                self._remote,
                store,
                {tree: size},
                batch.staging,
                heard=lambda _answer: None,
                since={tree: FOR_EVER},
            )
