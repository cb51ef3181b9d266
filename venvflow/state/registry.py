"""The registry: the venvs of this machine that use a store, one small file each in ``venvs/``.

It decides what a sweep must spare besides the snapshots, so it is read from these files and never from
the index.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TypeVar, get_args

from venvflow.disk.files import read_small
from venvflow.disk.layout import Layout
from venvflow.errors import EnvironmentFailure, shown
from venvflow.model import LinkMode
from venvflow.pure import decoding
from venvflow.pure.keys import snapshot_id


@dataclass(frozen=True, slots=True)
class Registration:
    """A venv of this machine that uses the store.

    *trees* are kept alive for it: those of a venv that is linked by symlinks, or that was squished and not
    stored (yet). *inode* is that of the directory that venvflow made. *seen* is in seconds since 1970.
    A venv that is in no config has neither *project*, *name* nor *key*.
    """

    path: str
    project: str
    name: str
    key: str
    place: str
    link: str
    trees: tuple[str, ...]
    inode: int | None
    seen: float

    @property
    def snapshot(self) -> str | None:
        """Return the id of the snapshot that it is of now, whether that was published or not."""
        return snapshot_id(self.key, self.place or None) if self.key else None

    def is_of(self, root: str) -> bool:
        """Return whether it is a venv of the project at *root*, or of no project and lies below it."""
        return self.project == root or (not self.project and self.path.startswith(f"{root}/"))

    @property
    def gone(self) -> bool:
        """Return whether the project was deleted; one whose parent is missing too may only be unmounted.

        A venv without a project is gone when it is not there itself, or the directory that it was in is not.
        """
        if self.project:
            return _is_gone(self.project)
        return _is_gone(self.path) or _is_gone(os.path.dirname(self.path))


def _is_gone(path: str) -> bool:
    return not os.path.lexists(path) and os.path.isdir(os.path.dirname(path))


def add(layout: Layout, registration: Registration, *, sync: bool = False) -> None:
    """Remember a venv, in place of what was known of its path; raises ``OSError``.

    With *sync* it survives a power cut: one that makes no sense would keep everything from being swept.
    """
    data = json.dumps(asdict(registration)).encode("ascii")
    layout.write(_file(registration.path), data, sync=sync)


def remove(layout: Layout, path: str) -> None:
    """Forget the venv at *path*."""
    with suppress(FileNotFoundError):
        layout.unlink(_file(path))


def registration_at(store: str, path: str) -> Registration | None:
    """Return what the store at *store* knows of the venv at *path*; None for a file that makes no sense."""
    try:
        return _read(store, _file(path))
    except (OSError, decoding.Corrupt):
        return None


def registrations_in(store: str) -> Iterator[Registration]:
    """Yield all venvs that use the store at *store*.

    Raises EnvironmentFailure for a file that cannot be read or makes no sense: what its venv needs is
    not known then, and must not be taken for nothing.
    """
    return records_in(store, "venvs", _read, _unreadable)


_Record = TypeVar("_Record")


def records_in(
    store: str,
    part: str,
    read: Callable[[str, str], _Record],
    unreadable: Callable[[str, str], EnvironmentFailure],
) -> Iterator[_Record]:
    """Yield what *read* makes of each record in a *part* of the store at *store*.

    Raises what *unreadable* makes of a file, and of why it cannot be read or makes no sense.
    """
    root = f"{store}/{part}"
    for name in os.listdir(root) if os.path.lexists(root) else ():  # lost, where nothing can be made
        if name.endswith(".json"):
            try:
                yield read(store, f"{part}/{name}")
            except FileNotFoundError:  # forgotten by somebody else just now
                continue
            except (OSError, decoding.Corrupt) as error:
                why = getattr(error, "strerror", None) or f"it makes no sense ({error})"
                raise unreadable(f"{root}/{name}", why) from error


def _read(store: str, file: str) -> Registration:
    """Return what a file says; it has the name that goes with the venv's path, and no other."""
    found = decode_registration(read_small(f"{store}/{file}"))
    if _file(found.path) != file:
        raise decoding.Corrupt("it has the name of another venv's registration")
    return found


def _file(path: str) -> str:
    return f"venvs/{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def decode_registration(data: bytes) -> Registration:
    """Return the registration that *data* spells; raises :class:`~venvflow.pure.decoding.Corrupt`."""
    return Registration(
        **decoding.fields(
            decoding.parse(data),
            path=decoding.absolute,
            project=decoding.or_nothing(decoding.absolute),
            name=decoding.or_nothing(venv_name),
            key=decoding.or_nothing(decoding.digest),
            place=decoding.text,
            link=decoding.one_of("", *get_args(LinkMode)),
            trees=decoding.listed(decoding.digest),
            inode=decoding.optional(decoding.inode),
            seen=decoding.moment,
        )
    )


def venv_name(value: object) -> str:
    """Return the name of a venv: it is one part of a path, in the project's state."""
    name = decoding.path(value)
    if "/" in name:
        raise decoding.unlike(value, "the name of a venv")
    return name


def _unreadable(file: str, why: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"cannot read which venv is registered here: {why}",
        where=shown(file),
        state="Nothing was deleted, because that venv may need it.",
        hint="Fix its permissions, or delete this file and run doit in the project of that venv.",
    )
