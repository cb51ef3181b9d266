"""Compressed trees that are kept, so that packing again compresses only what is new.

A frame depends on its tree, the compression level, the version of libzstd and the directory name in the
archive, and its name says so. In the file system the name ends with the SHA-256 of the frame itself: a
frame that was damaged is noticed before it is used, and made anew.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Protocol

from venvflow.archive.contents import PACK_FORMAT, Options
from venvflow.archive.formats import CHUNK, zstd_version
from venvflow.archive.staging import sync_directory, temporary_name
from venvflow.model import Durability, Tree


class FrameStore(Protocol):
    """Where frames are kept between runs."""

    def get(self, name: str) -> str | None:
        """Return the path of the frame called *name*, its bytes checked, or None."""

    def put(self, name: str, write: Callable[[BinaryIO], None]) -> str:
        """Keep the frame that *write* writes, whole or not at all, and return its path."""


def frame_name(tree: Tree, options: Options) -> str:
    """Return the name of the frame of *tree*: all that its bytes depend on, the tree's digest first."""
    name = f"{tree.digest}.f{PACK_FORMAT}.l{options.effective_level}.z{zstd_version()}"
    if options.arcroot:
        name += ".r" + hashlib.sha256(options.arcroot.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return name


class FrameDirectory:
    """Frames as files below the directory *root*, in one sub-directory per first two digits.

    With *durability* ``none`` frames are not flushed to disk: one that a power cut damages is noticed.
    """

    def __init__(self, root: str, *, durability: Durability = "full") -> None:
        self.root = root
        self.durability = durability

    def get(self, name: str) -> str | None:
        """Return the path of the frame called *name*, or None; one with other bytes is deleted."""
        for path, digest in self._named(name):
            # Another process may have found the same damage and deleted it first.
            with suppress(FileNotFoundError):
                if _digest_of(path) == digest:
                    return path
                os.unlink(path)
        return None

    def put(self, name: str, write: Callable[[BinaryIO], None]) -> str:
        """Keep the frame that *write* writes and return its path; raises ``OSError`` as files do."""
        directory = os.path.join(self.root, name[:2])
        os.makedirs(directory, exist_ok=True)
        with self._temporary(directory) as (temporary, file):
            hashing = _Hashing(file)
            write(hashing)  # type: ignore[arg-type]  # it is only written to
            file.flush()
            if self.durability == "full":
                os.fsync(file.fileno())
            path = os.path.join(directory, f"{name}.{hashing.digest}")
            os.rename(temporary, path)
        if self.durability == "full":
            sync_directory(directory)
        return path

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

    @contextmanager
    def _temporary(self, directory: str) -> Iterator[tuple[str, BinaryIO]]:
        path = os.path.join(directory, temporary_name())
        try:
            with open(path, "xb") as file:
                yield path, file
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(path)
            raise


class _Hashing:
    """A file that knows the SHA-256 of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hasher = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hasher.update(data)
        return self._file.write(data)

    @property
    def digest(self) -> str:
        return self._hasher.hexdigest()


def _digest_of(path: str) -> str:
    hasher = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            hasher.update(chunk)
    return hasher.hexdigest()
