"""Extracting an archive that nobody vouches for.

No name in an archive is believed. Every component of a path is opened from its parent's descriptor and
never through a link, files are only ever created, links come last and may not lead out, and what is written
is counted while it is. All of it happens in a directory beside the destination, which becomes the
destination when everything was right, or is removed. This holds on every Python: nothing of ``tarfile``
is used, whose filters have let links escape.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from venvflow.disk.archive import tar, zipfile
from venvflow.disk.archive.beside import recorded_digest
from venvflow.disk.archive.contents import METADATA, leads_out, unsafe_name
from venvflow.disk.archive.formats import CHUNK, Progress, Undecodable
from venvflow.disk.archive.reading import LONGEST_PATH, Item, items, unsafe
from venvflow.disk.archive.staging import need_free, new_directory
from venvflow.errors import EnvironmentFailure, Refused, shown
from venvflow.model import MTIME_TIMES

if TYPE_CHECKING:
    from venvflow import postinstall

_DEEPEST = 200
_LARGEST_DOCUMENT = 32 << 20
_MOST_NAME_BYTES = 256 << 20
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold, however little it announces: *entries*, and *size* in bytes.

    With *case_pairs*, names that differ by case only are let through, for file systems that tell them apart.
    """

    entries: int = 1_000_000
    size: int = 64 << 30
    case_pairs: bool = False


@dataclass(frozen=True, slots=True)
class Extracted:
    """What was extracted to *path*. *root* is the venv there: *path* itself, or its arcroot.

    *document* is what the archive says of itself (``pack.json``), None if another tool made it. *verified*
    tells whether the whole archive was compared with a SHA-256.
    """

    path: str
    root: str
    entries: int
    size: int
    verified: bool
    document: dict[str, Any] | None


def extract(
    archive: str,
    destination: str,
    *,
    limits: Limits | None = None,
    expected: str | None = None,
    progress: Progress | None = None,
) -> Extracted:
    """Extract *archive* to *destination*, which must not exist or be an empty directory.

    The archive is compared with *expected*, or with the ``.sha256`` beside it where there is one. Modes
    become 0755 or 0644 (less the umask), times the constant one. *progress* is called with bytes done and in
    all, if the archive announces them. Raises Refused, with the entry named, for
    anything unsafe, damaged or larger than *limits* or its own announcement, and EnvironmentFailure when it
    cannot be read or written. Then nothing is left behind.
    """
    destination = os.path.abspath(destination)
    with _into(archive, destination) as staging:
        found = _extract_into(archive, staging, limits or Limits(), expected, progress)
    return _moved(found, staging, destination)


def unpack(
    archive: str,
    destination: str,
    python: str | None = None,
    *,
    project: str | None = None,
    force: bool = False,
    compile_library: bool = False,
    limits: Limits | None = None,
    expected: str | None = None,
    progress: Progress | None = None,
) -> tuple[Extracted, postinstall.Report]:
    """Extract *archive* and make it work at *destination*, with the interpreter *python*: all or nothing.

    Does what the ``postinstall.py`` in the archive does, but with our own code, never the archive's. *python*
    None takes the first one that fits. Raises what :func:`extract` raises.
    """
    destination = os.path.abspath(destination)
    with _into(archive, destination) as staging:
        found = _extract_into(archive, staging, limits or Limits(), expected, progress)
        if found.document is None:
            raise unsafe(archive, "was not written by venvflow", hint="Use extract, or tar.")
        moved = _moved(found, staging, destination)
        report = _completed(found.root, moved.root, project, python, force)
    if compile_library:
        from venvflow import postinstall  # noqa: PLC0415  # see _completed

        left = postinstall.compile_library(moved.root)
        report.notes.extend([f"not everything could be compiled:\n{left}"] if left else [])
    return moved, report


def _moved(found: Extracted, staging: str, destination: str) -> Extracted:
    return replace(found, path=destination, root=destination + found.root[len(staging) :])


def _completed(
    root: str, place: str, project: str | None, python: str | None, force: bool
) -> postinstall.Report:
    # It brings argparse and subprocess, which writing an archive does not need.
    from venvflow import postinstall  # noqa: PLC0415

    try:
        return postinstall.complete(
            root, place=place, project=project or "", python=python or "", force=force
        )
    except postinstall.Problem as problem:
        kind = Refused if problem.code == postinstall.DAMAGED else EnvironmentFailure
        raise kind(str(problem), where=shown(place), state="Nothing was unpacked.") from problem


# --------------------------------------------------------------------------- around it


@contextmanager
def _into(archive: str, destination: str) -> Iterator[str]:
    """Give a directory that becomes *destination*; every failure is one of ours, and leaves nothing."""
    need_free(destination, "Nothing was unpacked.")
    try:
        os.makedirs(os.path.dirname(destination), exist_ok=True)
        with new_directory(destination) as staging:
            yield staging
    except (tar.Malformed, zipfile.Malformed, Undecodable) as error:
        raise unsafe(archive, f"is damaged: {error}") from error
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot unpack {shown(archive)} to {shown(destination)}: {error.strerror or error}",
            state="Nothing was unpacked.",
            hint="Free space or mend the permissions, then try again.",
        ) from error


def _extract_into(
    archive: str, staging: str, limits: Limits, expected: str | None, progress: Progress | None
) -> Extracted:
    """Extract into the empty directory *staging*, and compare the archive's SHA-256 at the same time."""
    expected = expected or recorded_digest(archive)
    with open(archive, "rb") as raw, ThreadPoolExecutor(1) as pool:
        actual = pool.submit(_digest_of, raw.fileno()) if expected else None
        target = _Target(archive, staging, limits, progress)
        try:
            with closing(items(archive, raw, limits.entries + 1)) as entries:
                for item in entries:
                    target.add(item)
            target.finish()
        finally:
            target.close()
        if actual is not None and actual.result() != expected:
            raise unsafe(archive, "is not the one that its SHA-256 was written for")
    return Extracted(
        staging,
        os.path.join(staging, target.root).rstrip("/"),
        target.entries,
        target.size,
        actual is not None,
        target.document,
    )


def _digest_of(fd: int) -> str:
    hasher = hashlib.sha256()
    position = 0
    while chunk := os.pread(fd, CHUNK, position):
        hasher.update(chunk)
        position += len(chunk)
    return hasher.hexdigest()


# --------------------------------------------------------------------------- writing what was read


class _Target:
    """The directory that entries are written to, with everything that must be remembered about them."""

    def __init__(self, archive: str, path: str, limits: Limits, progress: Progress | None = None) -> None:
        self.archive = archive
        self.limits = limits
        self._progress = progress
        self.entries = 0
        self.size = 0
        self.root = ""
        self.document: dict[str, Any] | None = None
        self._announced: tuple[int, int] | None = None  # entries and bytes in all, from pack.json
        self._files = 0
        self._name_bytes = 0
        self._links: list[Item] = []
        self._explicit: set[str] = set()
        self._spelled: dict[str, str] = {}
        self._directories = _Directories(path, self._claim)

    def close(self) -> None:
        """Close all descriptors."""
        self._directories.close()

    def add(self, item: Item) -> None:
        """Write one entry, or remember it if it is a link."""
        self._check(item)
        with self._naming(item.name):
            if item.kind == "dir":
                self._directories.open(item.name)
            elif item.kind == "link":
                self._links.append(item)
            else:
                self._add_file(item)
        if self._progress is not None and self._announced is not None:
            self._progress(self.size, self._announced[1])

    def finish(self) -> None:
        """Make the links, and see whether everything came that was announced."""
        for item in self._links:
            with self._naming(item.name):
                parent, name = self._parent(item.name)
                os.symlink(item.target, name, dir_fd=parent)
        if self._announced not in (None, (self.entries, self.size)):
            raise unsafe(
                self.archive, f"holds less than it announces: {self.entries} entries, {self.size} bytes"
            )

    def _check(self, item: Item) -> None:
        """Refuse what must not be written; count the rest."""
        why = unsafe_name(item.name)
        if not why and (item.name.count("/") >= _DEEPEST or len(item.name) > LONGEST_PATH):
            why = "lies too deep"
        if (
            not why
            and item.kind == "link"
            and (leads_out(item.name, item.target) or len(item.target) > LONGEST_PATH)
        ):
            why = f"is a link that may lead out (to {shown(item.target)})"
        if why:
            self._refuse(item.name, why)
        self._claim(item.name)
        if item.name in self._explicit:
            self._refuse(item.name, "is there twice")
        self._explicit.add(item.name)
        self._count(item)

    def _count(self, item: Item) -> None:
        self.entries += 1
        self.size += item.size if item.kind == "file" else 0
        self._name_bytes += len(item.name) + len(item.target)
        entries, size = self.limits.entries, self.limits.size
        if self._announced is not None:
            entries, size = min(entries, self._announced[0]), min(size, self._announced[1])
        if self.entries > entries or self.size > size or self._name_bytes > _MOST_NAME_BYTES:
            self._refuse(item.name, f"is more than the {entries} entries or {size} bytes that are allowed")

    def _claim(self, name: str) -> None:
        """Refuse a second spelling of a name that many file systems take for the same."""
        if self.limits.case_pairs:
            return
        folded = name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
        other = self._spelled.setdefault(folded, name)
        if other != name:
            self._refuse(name, f"differs from {shown(other)} by case only")

    def _refuse(self, name: str, why: str) -> NoReturn:
        raise unsafe(self.archive, f"holds {shown(name)}, which {why}")

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Turn the answers of a file system to impossible names into refusals."""
        try:
            yield
        except FileExistsError:
            self._refuse(name, "is there twice, or lies where something else is")
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EISDIR):
                self._refuse(name, "lies below something that is no directory")
            if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
                self._refuse(name, "has a name that this file system cannot hold")
            raise

    def _parent(self, name: str) -> tuple[int, str]:
        directory, _, base = name.rpartition("/")
        return self._directories.open(directory), base

    def _add_file(self, item: Item) -> None:
        self._files += 1
        parts: Iterable[bytes | memoryview] = item.parts
        if self._files == 1 and (item.name == _DOCUMENT or item.name.endswith("/" + _DOCUMENT)):
            parts = [self._read_document(item)]
        parent, name = self._parent(item.name)
        fd = os.open(name, _CREATE, 0o755 if item.executable else 0o644, dir_fd=parent)
        try:
            for part in parts:
                _write_all(fd, part)
            os.utime(fd, ns=MTIME_TIMES)
        finally:
            os.close(fd)

    def _read_document(self, item: Item) -> bytes:
        """Return the bytes of ``pack.json``, after taking from it how much is to follow."""
        if item.size > _LARGEST_DOCUMENT:
            self._refuse(item.name, f"has {item.size} bytes")
        data = b"".join(item.parts)
        try:
            document = json.loads(data)
            announced = document["announced"]
            entries, size = announced["entries"], announced["bytes"]
            if not (isinstance(entries, int) and isinstance(size, int)):
                self._refuse(item.name, "announces no numbers")
        except (ValueError, KeyError, TypeError, RecursionError):
            self._refuse(item.name, "is damaged")
        self._announced = (self.entries + entries, self.size + size)
        self.document = document
        self.root = item.name[: -len(_DOCUMENT)].rstrip("/")
        return data


_DOCUMENT = f"{METADATA}/pack.json"


def _write_all(fd: int, data: bytes | memoryview) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


class _Directories:
    """Descriptors of directories below one that is ours, made on the way, never reached through a link."""

    _MOST = 64

    def __init__(self, root: str, claim: Callable[[str], None]) -> None:
        self._root = os.open(root, _DIRECTORY)
        self._claim = claim
        self._open: OrderedDict[str, int] = OrderedDict()

    def open(self, path: str) -> int:
        """Return a descriptor of the directory *path*, valid until the next call."""
        if not path:
            return self._root
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        directory, _, name = path.rpartition("/")
        parent = self.open(directory)
        try:
            self._claim(path)
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            pass  # whatever it is, opening it will tell
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        self._open[path] = fd
        if len(self._open) > self._MOST:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def close(self) -> None:
        for fd in (self._root, *self._open.values()):
            os.close(fd)
        self._open.clear()
