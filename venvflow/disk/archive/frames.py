"""Compressed trees that are kept, so that packing again compresses only what is new.

A frame depends on its tree, the compression level, the version of libzstd and the directory name in the
archive, and its name says so. In the file system the name ends with the SHA-256 of the frame itself: a
frame that was damaged is noticed before it is used, and made anew. So none is flushed to disk either: what a
power cut leaves of it is noticed in the same way.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Protocol

from venvflow.disk.archive.contents import Options
from venvflow.disk.archive.formats import CHUNK, zstd_version
from venvflow.disk.descriptors import SAFE
from venvflow.disk.files import open_regular, temporary_name
from venvflow.disk.layout import Layout
from venvflow.model import Tree

FRAME_FORMAT = 3
"""Version of how trees become frames: of headers and order, and of what the compressor is told."""


class NewFrame(Protocol):
    """A frame that is being written: :meth:`finish` or :meth:`discard` ends it, in any thread."""

    def write(self, data: bytes) -> object:
        """Write the next bytes."""

    def finish(self) -> object:
        """End it: it is whole."""

    def discard(self) -> None:
        """Forget it."""


class FrameStore(Protocol):
    """Where frames are kept between runs."""

    def open(self, name: str) -> IO[bytes] | None:
        """Return the frame called *name*, its bytes checked, open for reading at its start, or None."""

    def new(self, name: str) -> NewFrame:
        """Return a frame to write that will be called *name*."""


def frame_name(tree: Tree, options: Options) -> str:
    """Return the name of the frame of *tree*: all that its bytes depend on, the tree's digest first."""
    name = f"{tree.digest}.f{FRAME_FORMAT}.l{options.effective_level}.z{zstd_version()}"
    if options.arcroot:
        name += ".r" + hashlib.sha256(options.arcroot.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return name


class FrameDirectory:
    """Frames as files below the directory *root*, in one sub-directory per first two digits."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._layout = Layout(root)

    def open(self, name: str) -> IO[bytes] | None:
        """Return the frame called *name*, or None; one with other bytes is deleted."""
        for path, digest in self._named(name):
            # It may be swept meanwhile, or found damaged by another process too, or be no file at all.
            with suppress(OSError):
                file = open_regular(path)  # whoever asked for it closes it
                if _digest_of(file) == digest:
                    file.seek(0)
                    return file
                file.close()
                self._layout.unlink(os.path.relpath(path, self.root))
        return None

    def new(self, name: str) -> NewFrame:
        """Return a frame to write; it gets its name when it is finished. Raises ``OSError`` as files do."""
        os.makedirs(self.root, exist_ok=True)
        with self._layout.opened(name[:2], make=True) as fd:
            return _Kept(os.dup(fd), name)

    def _named(self, name: str) -> Iterator[tuple[str, str]]:
        directory = os.path.join(self.root, name[:2])
        try:
            found = sorted(os.listdir(directory))
        except FileNotFoundError:
            return
        for candidate in found:
            start, _, digest = candidate.rpartition(".")
            if start == name:
                yield os.path.join(directory, candidate), digest


class _Kept:
    """A new frame that will be kept."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._temporary = temporary_name()
        self._hasher = hashlib.sha256()
        weakref.finalize(self, os.close, fd)
        self._file = open(self._temporary, "xb", opener=self._open)  # noqa: SIM115  # finish() or discard() closes it

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags | SAFE, 0o644, dir_fd=self._fd)

    def write(self, data: bytes) -> None:
        self._hasher.update(data)
        self._file.write(data)

    def finish(self) -> None:
        self._file.close()
        final = f"{self._name}.{self._hasher.hexdigest()}"
        os.rename(self._temporary, final, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def discard(self) -> None:
        with suppress(OSError):  # a full disk says so once more
            self._file.close()
        with suppress(FileNotFoundError):  # a whole one that could not be copied is kept
            os.unlink(self._temporary, dir_fd=self._fd)


class Unkept:
    """Frames that are for one archive only."""

    def open(self, name: str) -> None:  # noqa: ARG002 - there is none of any name
        """Return None."""
        return

    def new(self, name: str) -> NewFrame:  # noqa: ARG002 - they have none
        """Return a frame of which nothing is kept."""
        return _Forgotten()


class _Forgotten:
    def write(self, data: bytes) -> None:
        """Forget it: it is in the archive."""

    def finish(self) -> None:
        pass

    def discard(self) -> None:
        pass


def _digest_of(file: IO[bytes]) -> str:
    hasher = hashlib.sha256()
    for chunk in iter(lambda: file.read(CHUNK), b""):
        hasher.update(chunk)
    return hasher.hexdigest()
