"""All that is in a remote: its records, whoever vouches for them, its parcels, and the marks of its trims."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from venvflow.disk.remote.channel import Channel, ChannelFailure, decoded
from venvflow.pure.expiry import Mark, Parcel
from venvflow.pure.parcels import parcel_path
from venvflow.pure.records import LARGEST, SeenRecord, record_path, seen
from venvflow.state.remote import Progress, Remote, boot_seconds, has_format
from venvflow.state.remote_marks import read_marks

_AT_ONCE = 100
"""Records that are fetched by one request of ours, and held as they came: at most 100 MiB."""

_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RemoteContents:
    """What a remote has: *records* by their id, *parcels* by their tree, *marks*.

    *strange* are the paths of what is there and is none of these.
    """

    records: Mapping[str, SeenRecord]
    parcels: Mapping[str, Parcel]
    marks: Sequence[Mark]
    strange: Sequence[str] = ()

    def missing(self, record: SeenRecord) -> list[str]:
        """Return the trees of a record whose parcels are not there."""
        return [tree for tree in record.trees or () if tree not in self.parcels]

    def size(self, record: SeenRecord) -> int:
        """Return the bytes of a record's parcels."""
        return sum(self.parcels[tree].size for tree in record.trees or () if tree in self.parcels)


def look_into(
    remote: Remote,
    channel: Channel,
    known: Mapping[str, SeenRecord] | None = None,
    progress: Progress = lambda _done, _of: None,
) -> RemoteContents:
    """Return all that is in the remote; of *known* records, only those are fetched that were written since.

    Raises ChannelFailure, also for a remote of another format.
    """
    has_format(channel)
    connections = remote.config.connections
    marks = read_marks(channel, connections)
    listed, strange = _named(channel, "v1/records", record_path)
    records = {
        name: known[name]
        for name, (_, written) in listed.items()
        if known is not None and name in known and known[name].written == written
    }
    missing = iter([name for name in sorted(listed) if name not in records])
    while group := list(islice(missing, _AT_ONCE)):
        paths = {record_path(name): name for name in group}
        answer = channel.ask("get", paths=list(paths), most=LARGEST, connections=connections)
        if answer["denied"]:
            raise ChannelFailure("denied", next(iter(answer["denied"].values())))
        for path, text in answer["found"].items():
            if text is not None:  # else it went in between
                name = paths[path]
                records[name] = seen(decoded(text[0]), name, listed[name][1], remote.trust())
        progress(len(records), len(listed))
    trees, others = _named(channel, "v1/trees", parcel_path)
    return RemoteContents(
        records, {tree: Parcel(*looks) for tree, looks in trees.items()}, marks, [*strange, *others]
    )


def _named(channel: Channel, below: str, path_of: Any) -> tuple[dict[str, tuple[int, float]], list[str]]:
    """Return sizes and times of what is *below* a path by the digests that are its names, and other paths."""
    found, strange = {}, []
    for path, size, written in channel.ask("list", path=below)["listed"]:
        name = path.rpartition("/")[2]
        if _ID.fullmatch(name) and path == path_of(name):
            found[name] = (size, written)
        else:
            strange.append(path)
    return found, strange


def delete(channel: Channel, paths: Iterable[str], connections: int, end: float = float("inf")) -> None:
    """Delete objects, a hundred at a time, until the moment *end*; raises ChannelFailure."""
    every = sorted(paths)
    for start in range(0, len(every), _AT_ONCE):
        group = every[start : start + _AT_ONCE]
        channel.ask("delete", paths=group, connections=connections, within=end - boot_seconds())
