"""Finds where symlinks really lead, and makes them portable in place."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from venvflow.disk.descriptors import Directories, directory
from venvflow.disk.files import replacing
from venvflow.disk.scan import walk
from venvflow.errors import UsageError, shown

_Path: TypeAlias = "str | os.PathLike[str]"
_Pairs: TypeAlias = "list[tuple[Path, Path]]"


class NotContaining(UsageError, ValueError):
    """The containing directory is not a parent of the environment."""


class NoSource(UsageError, FileNotFoundError):
    """There is nothing at the path of an environment."""


class SourceNotDirectory(UsageError, NotADirectoryError):
    """There is something else than a directory at the path of an environment."""


def source_directory(path: _Path, hint: str) -> str:
    """Return the real path of the environment at *path*, which may begin with ``~``.

    Raises NoSource or SourceNotDirectory, which are also the OSErrors of these names.
    """
    source = os.path.realpath(os.path.expanduser(path))
    if os.path.isdir(source):
        return source
    kind, number = (SourceNotDirectory, errno.ENOTDIR) if os.path.exists(source) else (NoSource, errno.ENOENT)
    error = kind("there is no such directory", where=shown(path), state="Nothing was written.", hint=hint)
    error.errno, error.strerror, error.filename = number, os.strerror(number), os.fspath(path)
    raise error


class Way(NamedTuple):
    """Where a symlink leads: its *text*, the next path (*hop*, in directories that are real), the *end*.

    *inside*: the hop lies within the boundary. It may be a symlink itself, with a way of its own.
    """

    text: str
    hop: str
    end: str
    inside: bool
    state: Literal["there", "dangling", "cyclic"]


def way_of(link: str, boundary: str) -> Way:
    """Return where the symlink at *link* leads, as the kernel would go and not as the text looks.

    The directory that *link* lies in and *boundary* are real paths. Raises ``OSError`` for anything else.
    """
    text = os.readlink(link)
    hop = _next_hop(os.path.dirname(link), text)
    inside = hop == boundary or hop.startswith(boundary.rstrip("/") + "/")
    return Way(text, hop, os.path.realpath(link), inside, _state(link))


def _next_hop(directory: str, text: str) -> str:
    """Return the path that *text* names, resolved but for its last component: chains of links stay chains."""
    joined = os.path.join(directory, text).rstrip("/") or "/"
    head, tail = os.path.split(joined)
    if tail in ("", ".", ".."):
        return os.path.realpath(joined)
    return os.path.join(os.path.realpath(head), tail)


def _state(link: str) -> Literal["there", "dangling", "cyclic"]:
    try:
        os.stat(link)
    except OSError as error:
        return "cyclic" if error.errno == errno.ELOOP else "dangling"
    return "there"


def convert_symlinks(env_dir: _Path, containing_dir: _Path | None = None) -> tuple[_Pairs, _Pairs]:
    """Make internal symlinks of *env_dir* relative and external ones hard links, in place.

    Internal are those that lead into *containing_dir*, which must be a parent directory of the environment
    (NotContaining, also a ValueError), or without it into the environment itself: by where they really lead,
    so ``../../outside`` and a path through another link are external if what they reach is. Of a chain of
    links, only the one that leaves becomes a hard link.

    Each link is replaced by rename, by one that was made beside it, or left alone: when it leads nowhere, to
    a directory, to another file system, or cannot be replaced for any other reason. A hard link shares its
    file with the outside: an edit of one is seen in the other.

    Returns the links that were made relative and those that became hard links, each with its target.
    """
    env = os.path.abspath(os.path.expanduser(env_dir))
    real = source_directory(env, "Name the directory whose links are to be converted.")
    boundary = real if containing_dir is None else os.path.realpath(os.path.expanduser(containing_dir))
    if real != boundary and not real.startswith(boundary.rstrip("/") + "/"):
        raise NotContaining(f"{shown(env)} is not within {shown(boundary)}", state="Nothing was changed.")
    relative: _Pairs = []
    external: _Pairs = []
    with directory(real) as root, Directories(root, make=False) as places:
        for found in walk(real):
            if found.kind != "link":
                continue
            link = os.path.join(real, found.path)
            way = way_of(link, boundary)
            listed = Path(env, found.path)
            if way.inside:
                text = os.path.relpath(way.hop, os.path.dirname(link))
                if text != way.text and _replaced(found.path, places, partial(_relative, text)):
                    relative.append((listed, Path(text)))
            elif os.path.isfile(way.end) and _replaced(found.path, places, partial(_hard, way.end)):
                external.append((listed, Path(way.end)))
    return relative, external


def _relative(text: str, name: str, parent: int) -> None:
    os.symlink(text, name, dir_fd=parent)


def _hard(source: str, name: str, parent: int) -> None:
    os.link(source, name, dst_dir_fd=parent, follow_symlinks=False)


def _replaced(path: str, places: Directories, make: Callable[[str, int], None]) -> bool:
    """Replace the link at *path* by what *make* makes under another name in its directory.

    Return False if it had to be left alone, as where a directory became a link meanwhile.
    """
    try:
        parent, name = places.parent(path)
        with replacing(name, parent) as temporary:
            make(temporary, parent)
    except OSError:  # the caller sees that in its lists
        return False
    return True
