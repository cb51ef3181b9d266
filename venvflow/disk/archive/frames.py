"""Frames: compressed trees, joined into an archive and kept, so that only what is new is compressed again.

A frame depends on its tree, the compression level, the version of libzstd, the directory name in the archive
and, where that is in it, the interpreter's path and how files find their place; its name says so. In the
file system the name ends with the SHA-256 of the frame itself: a frame that was damaged is noticed before it
is used, and made anew. So none is flushed to disk either: what a power cut leaves of it is noticed likewise.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import IO, Any, Protocol

from venvflow.disk.archive.contents import Options, names_python
from venvflow.disk.archive.file import digest_of
from venvflow.disk.archive.pipeline import Lane
from venvflow.disk.descriptors import SAFE
from venvflow.disk.files import open_regular, temporary_name
from venvflow.disk.layout import Layout
from venvflow.disk.zstandard import zstd_version
from venvflow.model import Tree
from venvflow.postinstall import FINDERS, FORMS

FRAME_FORMAT = 4
"""Version of how trees become frames: of headers and order, and of the compressor's settings."""


def frame_name(tree: Tree, options: Options) -> str:
    """Return the name of the frame of *tree*: all that its bytes depend on, the tree's digest first."""
    name = f"{tree.digest}.f{FRAME_FORMAT}.l{options.effective_level}.z{zstd_version()}"
    if options.arcroot:
        name += ".r" + _short(options.arcroot)
    if any(entry.kind == "template" or entry.path in FINDERS for entry in tree.entries):
        name += f".a{FORMS[:16]}"
    if options.python and names_python(tree):
        name += ".p" + _short(f"{options.symlinks} {options.python}")
    if options.place and any(entry.slots for entry in tree.entries):
        name += ".d" + _short(options.place)
    return name


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class FrameDirectory:
    """Frames as files below the directory *root*, in one sub-directory per first two digits."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._layout = Layout(root)

    def open(self, name: str) -> IO[bytes] | None:
        """Return the frame called *name*, or None; one with other bytes is deleted."""
        for path, digest in self._named(name):
            # It may be swept meanwhile, or found damaged by another process too, or not be a file at all.
            with suppress(OSError):
                file = open_regular(path)  # the caller closes it
                if digest_of(file) == digest:
                    file.seek(0)
                    return file
                file.close()
                self._layout.unlink(os.path.relpath(path, self.root))
        return None

    def new(self, name: str) -> NewFrame:
        """Return a frame to write; it gets its name when it is finished. Raises ``OSError`` as files do."""
        os.makedirs(self.root, exist_ok=True)
        with self._layout.opened(name[:2], make=True) as fd:
            return NewFrame(os.dup(fd), name)

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


class NewFrame:
    """A frame that is being written in the directory *fd*: :meth:`finish` or :meth:`discard` ends it."""

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
        """Write the next bytes."""
        self._hasher.update(data)
        self._file.write(data)

    def finish(self) -> None:
        """Give it its name: it is whole."""
        self._file.close()
        final = f"{self._name}.{self._hasher.hexdigest()}"
        os.rename(self._temporary, final, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def discard(self) -> None:
        """Remove it."""
        with suppress(OSError):  # a full disk says so once more
            self._file.close()
        with suppress(FileNotFoundError):  # a whole one that could not be copied is kept
            os.unlink(self._temporary, dir_fd=self._fd)


# --------------------------------------------------------------------------- on the way into an archive

_WAITING = 8 << 20
"""Bytes that may wait to be written."""

_ENDING = 1
"""Frames whose compressor still works while the next one is begun: each has buffers of its own."""


class Target(Protocol):
    """The archive that is written."""

    def write(self, data: bytes) -> None:
        """Write the next bytes."""

    def copy(self, file: IO[bytes]) -> None:
        """Write all that is left in *file*."""


@contextmanager
def joining(target: Target) -> Iterator[Joiner]:
    """Give what writes frames to *target*; at the end of the block all is written.

    When the block fails, frames that are not finished are discarded.
    """
    unfinished: list[Callable[[], None]] = []
    try:
        with Lane(_WAITING) as lane:
            yield Joiner(target, lane, unfinished)
    finally:
        for discard in unfinished:
            discard()


class Joiner:
    """Writes each frame to where it is kept and to *target* at once, in a *lane*: the reader does not wait.

    There the end of a frame waits for its compressor, too, while the next one is begun. A frame of None is
    not kept. Every method may raise what went wrong with something before.
    """

    def __init__(self, target: Target, lane: Lane, unfinished: list[Callable[[], None]]) -> None:
        self._target = target
        self._lane = lane
        self._unfinished = unfinished
        self._ending: deque[Future[None]] = deque()

    def begin(self, frame: NewFrame | None) -> None:
        """Take a new frame, to finish or to discard it; its bytes come next."""
        if frame is not None:
            self._unfinished.append(frame.discard)

    def add(self, frame: NewFrame | None, data: bytes) -> None:
        """Write the next bytes of a frame."""
        if data:
            self._lane.put(lambda: self._write(frame, data), len(data))

    def end(self, frame: NewFrame | None, compressor: Any) -> None:
        """Write what *compressor* still holds when it is done, and finish the frame."""
        self._ending.append(self._lane.put(lambda: self._finish(frame, compressor), 0))
        while len(self._ending) > _ENDING:
            self._ending.popleft().result()

    def copy(self, file: IO[bytes]) -> None:
        """Write a frame that was there already, and close its *file*."""
        self._unfinished.append(file.close)
        self._lane.put(lambda: self._copy(file), _WAITING // 8)  # so that few are open at a time

    def _write(self, frame: NewFrame | None, data: bytes) -> None:
        if frame is not None:
            frame.write(data)
        self._target.write(data)

    def _finish(self, frame: NewFrame | None, compressor: Any) -> None:
        self._write(frame, compressor.flush())
        if frame is not None:
            frame.finish()
            self._unfinished.remove(frame.discard)

    def _copy(self, file: IO[bytes]) -> None:
        self._target.copy(file)
        file.close()
        self._unfinished.remove(file.close)
