"""Marks of a remote: what a trim writes down there, for pushes and for other trims.

What they are for, :mod:`venvflow.pure.expiry` says.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from venvflow.disk.remote.channel import Channel, ChannelFailure, decoded, encoded
from venvflow.pure.decoding import Corrupt
from venvflow.pure.expiry import LARGEST_MARK, MARKS, Kind, Mark, decode_mark, encode_mark, kind_of

_TRIES = 5


def read_marks(channel: Channel, connections: int) -> list[Mark]:
    """Return the marks that are there; raises ChannelFailure.

    Those that go while they are read may have been about what somebody is deleting: then all are read anew.
    """
    for _ in range(_TRIES):
        listed = channel.ask("list", path=MARKS)["listed"]
        times = {path.rpartition("/")[2]: written for path, _, written in listed}
        kinds = {name: kind for name in sorted(times) if (kind := kind_of(name)) is not None}
        paths = [_path(name) for name in kinds]
        found = {}
        if paths:
            found = channel.ask("get", paths=paths, most=LARGEST_MARK, connections=connections)["found"]
        if None not in found.values():
            return [Mark(name, kind, times[name], _trees(found[_path(name)])) for name, kind in kinds.items()]
    raise ChannelFailure("unusable", "trims keep changing what is to go")


def _trees(found: tuple[str, float]) -> tuple[str, ...] | None:
    try:
        return decode_mark(decoded(found[0]))
    except Corrupt:
        return None


def write_mark(channel: Channel, kind: Kind, trees: Iterable[str]) -> str:
    """Write a mark and return its name; raises ChannelFailure."""
    name = f"{kind}-{os.urandom(16).hex()}"
    channel.ask("put", path=_path(name), data=encoded(encode_mark(trees)))
    return name


def time_of_mark(channel: Channel, name: str) -> float:
    """Return when a mark was written, by the server's clock; raises ChannelFailure."""
    found = channel.ask("head", paths=[_path(name)], connections=1)["heads"][_path(name)]
    return float(found[2]) if found is not None else 0.0


def remove_marks(channel: Channel, names: Iterable[str]) -> None:
    """Delete marks; raises ChannelFailure."""
    if paths := [_path(name) for name in names]:
        channel.ask("delete", paths=paths, connections=4)


def _path(name: str) -> str:
    return f"{MARKS}/{name}"
