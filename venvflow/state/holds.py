"""Holds: which venv was built as which snapshots or restored from them, one small file each in ``holds/``.

A snapshot stays while somebody holds it, so this is read from these files and never from the index. A venv
that is not registered any more, because its files are its own again, holds what it held.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from venvflow.disk.files import read_small
from venvflow.disk.layout import Layout
from venvflow.disk.mounts import mount_of
from venvflow.errors import EnvironmentFailure, shown
from venvflow.pure import decoding
from venvflow.pure.retention import Usage, VenvName
from venvflow.state.registry import records_in, venv_name


@dataclass(frozen=True, slots=True)
class VenvHolds:
    """A venv that holds snapshots: the path of its *project*, its *name* there, and its own *path*.

    *mount* is where the file system is mounted that the project lies in. *held* has by their ids all that it
    was built as or restored from, and when it was that last. *pin*: the config keeps them all.
    """

    project: str
    name: str
    path: str
    mount: str
    pin: bool
    held: Mapping[str, Usage]

    @property
    def venv(self) -> VenvName:
        """Return what tells it from all others."""
        return VenvName(self.project, self.name)

    @property
    def current(self) -> str | None:
        """Return the id of the snapshot that it was last."""
        return max(self.held, key=lambda each: self.held[each], default=None)

    @property
    def gone(self) -> bool:
        """Return whether the project was deleted: one whose file system is not mounted may come back."""
        return not os.path.lexists(self.project) and mount_of(self.project).point == self.mount

    def until(self, now: float) -> VenvHolds:
        """Return the same with no use after *now*: the clock was wrong then, and it would never grow old."""
        held = {each: used._replace(at=min(used.at, now)) for each, used in self.held.items()}
        return replace(self, held=held)

    def without(self, snapshots: Container[str]) -> VenvHolds:
        """Return the same without its holds on *snapshots*, by their ids."""
        return replace(self, held={each: used for each, used in self.held.items() if each not in snapshots})


def write(layout: Layout, holder: VenvHolds, *, sync: bool = False) -> None:
    """Write down what a venv holds, in place of what it held; raises ``OSError``.

    With *sync* it survives a power cut: a file that makes no sense would keep everything from being dropped.
    """
    file = _file(holder.venv)
    if holder.held:
        layout.write(file, json.dumps(asdict(holder)).encode("ascii"), sync=sync)
    else:
        with suppress(FileNotFoundError):
            layout.unlink(file)


def holder_of(store: str, venv: VenvName) -> VenvHolds | None:
    """Return what a venv holds in the store at *store*; None as well for a file that makes no sense."""
    try:
        return _read(store, _file(venv))
    except (OSError, decoding.Corrupt):
        return None


def holders_in(store: str) -> Iterator[VenvHolds]:
    """Yield all venvs that hold snapshots of the store at *store*.

    Raises EnvironmentFailure for a file that cannot be read or makes no sense: what its venv holds is not
    known then, and must not be taken for nothing.
    """
    return records_in(store, "holds", _read, _unreadable)


def _read(store: str, file: str) -> VenvHolds:
    """Return what a file says; it has the name that goes with the venv, and no other."""
    found = decode_holder(read_small(f"{store}/{file}"))
    if _file(found.venv) != file:
        raise decoding.Corrupt("it has the name of another venv's holds")
    return found


def _file(venv: VenvName) -> str:
    return f"holds/{hashlib.sha256(b'/'.join(map(os.fsencode, venv))).hexdigest()[:32]}.json"


def decode_holder(data: bytes) -> VenvHolds:
    """Return the holder that *data* spells; raises :class:`~venvflow.pure.decoding.Corrupt`."""
    return VenvHolds(
        **decoding.fields(
            decoding.parse(data),
            project=decoding.absolute,
            name=venv_name,
            path=decoding.absolute,
            mount=decoding.absolute,
            pin=decoding.flag,
            held=decoding.mapped(decoding.digest, _usage),
        )
    )


_USAGE = decoding.row(decoding.count, decoding.moment)


def _usage(value: object) -> Usage:
    return Usage(*_USAGE(value))


def _unreadable(file: str, why: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"cannot read which snapshots a venv holds: {why}",
        where=shown(file),
        state="Nothing was deleted, because that venv may hold it.",
        hint="Fix its permissions, or delete this file: its venv holds what it is made of next.",
    )
