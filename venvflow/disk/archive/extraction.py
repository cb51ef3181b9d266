"""Extracts an archive that nobody vouches for.

No name in an archive is believed. Every component of a path is opened from its parent's descriptor and
never through a link, files are only ever created, links come last and may not lead out, and what is written
is counted while it is. An archive of ours says first what comes and what unpacking makes of it: that is held
against the limits and the free space before anything is written, and what comes against that. It says which
links lead to the interpreter, and where: no other leads out, and nobody runs that one here. All of it happens
in a directory beside the destination, which becomes the destination when everything was right, or is removed.
This holds on every Python: nothing of ``tarfile`` is used, whose filters have let links escape.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import NoReturn

from venvflow import postinstall
from venvflow.disk.archive.belonging import in_their_order, rows_of
from venvflow.disk.archive.contents import DOCUMENT, TEMPLATES, neutral_places
from venvflow.disk.archive.file import Hashed, hashed, recorded_digest
from venvflow.disk.archive.formats import Malformed, Progress
from venvflow.disk.archive.reading import Item, items, unsafe
from venvflow.disk.descriptors import CREATE, Directories, opened
from venvflow.disk.files import open_regular
from venvflow.disk.links import write_all
from venvflow.disk.scratch import need_free, new_directory
from venvflow.disk.system_errors import failure
from venvflow.errors import EnvironmentFailure, Refused, shown
from venvflow.postinstall import (
    DEEPEST,
    LONGEST_PATH,
    METADATA,
    folded,
    leads_out,
    need_room,
    reserved_name,
    unsafe_name,
)

_MOST_NAME_BYTES = 256 << 20
_MOST_BEFORE = 2  # directories before our metadata: the arcroot and their own


_TOLD_EACH = 1 << 14
"""Bytes after which it is told how far unpacking is: most files take microseconds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold, however little it announces: *entries*, and *size* in bytes."""

    entries: int = 1_000_000
    size: int = 64 << 30


@dataclass(frozen=True, slots=True)
class Extracted:
    """What was extracted to *path*. *root* is the venv there: *path* itself, or its arcroot.

    *pack* is what the archive says of itself, None if another tool made it. *verified* tells whether all of
    it was compared with a SHA-256.
    """

    path: str
    root: str
    entries: int
    size: int
    verified: bool
    pack: postinstall.Pack | None


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
    become 0755 or 0644 (less the umask), times those of their content. *progress* is called with bytes done
    and in all, if the archive announces them. Raises Refused, with the entry named, for anything unsafe,
    damaged or larger than *limits* or its own announcement, and EnvironmentFailure when it cannot be read or
    written. Then nothing is left behind.
    """
    destination = os.path.abspath(destination)
    extracting = _extracting([archive], destination, limits=limits, expected=expected, progress=progress)
    with extracting as (found, _):
        return found


def unpack(
    archives: str | Sequence[str],
    destination: str,
    python: str | None = None,
    *,
    project: str | None = None,
    force: bool = False,
    compile_library: bool = False,
    limits: Limits | None = None,
    expected: str | None = None,
    progress: Progress | None = None,
) -> tuple[Extracted, postinstall.Completion]:
    """Extract *archives* and make them work at *destination*, with the interpreter *python*: all or nothing.

    Does what the ``postinstall.py`` in the archive does, but with our own code, never the archive's. *python*
    None takes the first one that fits. Several archives are all parts of one venv, in any order; *expected*
    is the SHA-256 of the last part, which names those of the others. Raises what :func:`extract` raises.
    """
    destination = os.path.abspath(destination)
    home = _Home(destination, project or "", python or "", force)
    arranged = in_their_order([archives] if isinstance(archives, str) else archives)
    extracting = _extracting(
        arranged, destination, limits=limits, expected=expected, progress=progress, home=home
    )
    with extracting as (found, fd):
        report = home.complete(fd)
    if compile_library:
        left = postinstall.compile_library(found.root, report.compiler)
        report.notes.extend([f"not everything could be compiled:\n{left}"] if left else [])
    return found, report


@contextmanager
def _extracting(
    archives: Sequence[str],
    destination: str,
    *,
    limits: Limits | None,
    expected: str | None,
    progress: Progress | None,
    home: _Home | None = None,
) -> Iterator[tuple[Extracted, int]]:
    """Extract to a directory that becomes *destination* at the end of the block, and give what it has become.

    It is open as the second value. The first of *archives* is the one that speaks for all. Every failure is
    one of ours, and leaves nothing.
    """
    need_free(destination, "Nothing was unpacked.")
    archive, *others = archives
    limits = limits or Limits()
    try:
        expected = expected or recorded_digest(archive)
        with new_directory(destination) as staging:
            target = _Target(archive, staging.fd, limits, destination, home=home, progress=progress)
            target.others = others
            with closing(target):
                _read(target, expected)
                for archive, part in zip(others, target.parts, strict=True):
                    target.begin(archive, part)
                    _read(target, part.sha256)
                target.finish()
            root = os.path.join(destination, target.root).rstrip("/")
            found = Extracted(destination, root, target.entries, target.size, bool(expected), target.pack)
            yield found, staging.fd
    except Malformed as error:
        raise unsafe(archive, f"is damaged: {error}") from error
    except OSError as error:
        doing = f"cannot unpack {shown(archive)} there"
        raise failure(error, doing, at=destination, state="Nothing was unpacked.") from error


def _read(target: _Target, expected: str | None) -> None:
    """Let *target* have all entries of its archive, and compare that with the SHA-256 *expected*, if any."""
    archive = target.archive
    with (
        open_regular(archive, follow=True) as raw,
        hashed(raw) if expected else nullcontext(raw) as file,
    ):
        with closing(items(archive, file, target.limits.entries + 1)) as entries:
            for item in entries:
                target.add(item)
        target.end()
        if isinstance(file, Hashed) and file.hexdigest() != expected:
            raise unsafe(archive, "does not have the SHA-256 that was written for it")


@dataclass(slots=True)
class _Home:
    """Where an archive is to work: the local *places* that are filled in, known when its metadata is read."""

    destination: str
    project: str
    python: str
    force: bool
    root: str = ""
    places: postinstall.Places = field(init=False)
    notes: list[str] = field(default_factory=list)

    def growth(self, pack: postinstall.Pack, root: str) -> int:
        """Return how many bytes more than the archive's own files are needed at most, while it is made.

        Chooses the interpreter, before anything of the archive is there that could be taken for one.
        """
        self.root = root
        place = os.path.join(self.destination, root).rstrip("/")
        self.places, self.notes = postinstall.places_for(
            pack, place, self.project, self.python, force=self.force, root=self.destination
        )
        here, there = postinstall.filled_sizes(pack.lengths, self.places), _neutral_sizes(pack)
        more = sum(max(0, size - there[path][0]) for path, size in here.items())
        return more + max(here.values(), default=0)

    def complete(self, staging: int) -> postinstall.Completion:
        """Fill in what was extracted to the directory *staging*."""
        with _errors_explained(self.places.venv), postinstall.inside(staging, self.root) as fd:
            pack, blob = postinstall.load(fd)
            report = postinstall.begun(pack, self.places, self.python, self.notes)
            postinstall.apply(fd, pack, blob, self.places, report=report, dry_run=False)
        return report


@contextmanager
def _errors_explained(where: str) -> Iterator[None]:
    try:
        yield
    except postinstall.Problem as problem:
        kind = Refused if problem.code == postinstall.DAMAGED else EnvironmentFailure
        raise kind(str(problem), where=shown(where), state="Nothing was unpacked.") from problem


# --------------------------------------------------------------------------- writing what was read


class _Target:
    """The directory *fd* that entries are written to, with everything that must be remembered about them.

    It becomes *destination*, which messages name. With a *home*, only an archive of ours will do. It takes
    the entries of *archive*, then those of the *others*, one after the other: *parts* is what the first one
    says of them.
    """

    def __init__(
        self,
        archive: str,
        fd: int,
        limits: Limits,
        destination: str,
        *,
        home: _Home | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.archive = archive
        self.limits = limits
        self._destination = destination
        self._home = home
        self._progress = progress
        self.entries = 0
        self.size = 0
        self.root = ""
        self.others: Sequence[str] = ()
        self.parts: list[postinstall.PartRow] = []
        self.pack: postinstall.Pack | None = None
        self._expected: _Expected | None = None
        self._announced = limits  # and no more than that
        self._told = 0
        self._files = 0
        self._implied: set[str] = set()
        space = os.fstatvfs(fd)
        self._free = space.f_bavail * space.f_frsize
        self._name_bytes = 0
        self._links: list[Item] = []
        self._explicit: set[str] = set()
        self._own_directories: set[str] = set()
        self._spelled: dict[str, str] = {}
        self._twins: dict[str, set[str]] = {}
        self._directories = Directories(fd, self._made, new=True)

    def close(self) -> None:
        """Close all descriptors."""
        self._directories.close()

    def add(self, item: Item) -> None:
        """Write one entry, or remember it if it is a link."""
        self._check(item)
        try:
            if item.kind == "dir":
                self._directories.open(item.name)
            elif item.kind == "link":
                self._links.append(item)
            else:
                self._add_file(item)
        except OSError as error:
            self._explain(item.name, error)
        if self._progress is not None and self._expected is not None and self.size - self._told >= _TOLD_EACH:
            self._tell()

    def _tell(self) -> None:
        """Say how far it is."""
        if self._progress is not None and self._expected is not None:
            self._told = self.size
            self._progress(self.size, self._announced.size)

    def begin(self, archive: str, part: postinstall.PartRow) -> None:
        """Take the entries of another *archive*, which is that *part*; directories may be in several."""
        assert self._expected is not None  # noqa: S101 - others() knows of parts by it
        self.archive = archive
        self._expected.begin(part)
        self._explicit -= self._own_directories
        self._own_directories.clear()

    def end(self) -> None:
        """See whether everything came that the archive announces."""
        self._tell()
        if self._home is not None and self._expected is None:
            raise _not_ours(self.archive)
        self._refuse_other(self._expected.incomplete() if self._expected else "")

    def finish(self) -> None:
        """Make the links, and see whether everything came that was announced.

        Those to the interpreter are made anew where it was chosen.
        """
        for item in self._links:
            if self._home is not None and self._leads_to_python(item):
                continue
            try:
                parent, name = self._directories.parent(item.name)
                os.symlink(item.target, name, dir_fd=parent)
            except OSError as error:
                self._explain(item.name, error)
        self._refuse_other(self._expected.missing() if self._expected else "")

    def _refuse_other(self, why: str) -> None:
        if why:
            raise unsafe(self.archive, f"holds something else than it announces: {why}")

    def _check(self, item: Item) -> None:
        """Refuse what must not be written; count the rest."""
        why = unsafe_name(item.name) or reserved_name(item.name)
        if not why and (item.name.count("/") >= DEEPEST or len(os.fsencode(item.name)) > LONGEST_PATH):
            why = "lies too deep"
        if (
            not why
            and item.kind == "link"
            and (leads_out(item.name, item.target) or len(os.fsencode(item.target)) > LONGEST_PATH)
            and not self._leads_to_python(item)
        ):
            why = f"is a link that may lead out (to {shown(item.target)})"
        if not why and self._expected is not None:
            why = self._expected.refusal(item)
        if why:
            self._refuse(item.name, why)
        self._claim(item.name)
        if item.name in self._explicit:
            self._refuse(item.name, "is there twice")
        self._explicit.add(item.name)
        if item.kind == "dir":
            self._own_directories.add(item.name)
        self._count(item)

    def _leads_to_python(self, item: Item) -> bool:
        """Return whether *item* is the link to the interpreter that was announced, letter for letter."""
        return self._expected is not None and self._expected.is_link_to_python(item)

    def _count(self, item: Item) -> None:
        self.entries += 1
        self.size += item.size if item.kind == "file" else 0
        self._name_bytes += len(item.name) + len(item.target)
        if self._home is not None and self._expected is None and self.entries > _MOST_BEFORE + 1:
            raise _not_ours(self.archive)
        self._hold(item.name)

    def _hold(self, name: str) -> None:
        """Refuse what is more than may come."""
        entries, size = self._announced.entries, self._announced.size
        count = self.entries + len(self._implied)
        if self.size > self._free:
            raise OSError(errno.ENOSPC, f"No space left on device: it needs more than {self._free} bytes")
        if count > entries or self.size > size or self._name_bytes > _MOST_NAME_BYTES:
            self._refuse(name, f"is more than the {entries} entries or {size} bytes that are allowed")

    def _made(self, path: str) -> None:
        """Count a directory that a name implies, before it is made."""
        self._claim(path)
        if path not in self._explicit and path not in self._implied:
            self._implied.add(path)
            self._name_bytes += len(path)
            self._hold(path)

    def _claim(self, name: str) -> None:
        """Refuse a second spelling of a name that this file system takes for the same."""
        key = folded(name)
        first = self._spelled.setdefault(key, name)
        if first == name:
            return
        twins = self._twins.setdefault(key, {first})
        for other in () if name in twins else twins:
            if not tells_apart(self._directories.open(""), other, name):
                raise unsafe(
                    self.archive,
                    f"holds {shown(name)}, which this file system takes for {shown(other)}",
                    hint="Unpack it on a file system that tells case.",
                )
        twins.add(name)

    def _refuse(self, name: str, why: str) -> NoReturn:
        raise unsafe(self.archive, f"holds {shown(name)}, which {why}")

    def _explain(self, name: str, error: OSError) -> NoReturn:
        """Raise what the answer of a file system means: a refusal, if that is to an impossible *name*."""
        if isinstance(error, FileExistsError):
            self._refuse(name, "is there twice, or lies where something else is")
        if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EISDIR):
            self._refuse(name, "lies below something that is not a directory")
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
            self._refuse(name, "has a name that this file system cannot hold")
        raise error

    def _add_file(self, item: Item) -> None:
        self._files += 1
        parent, name = self._directories.parent(item.name)
        parts: Iterable[bytes | memoryview] = item.parts
        if self._files == 1 and (item.name == DOCUMENT or item.name.endswith("/" + DOCUMENT)):
            parts = [self._read_document(item)]
        elif self._home is not None and self._expected is None:
            raise _not_ours(self.archive)
        fd = os.open(name, CREATE, 0o755 if item.executable else 0o644, dir_fd=parent)
        try:
            for part in parts:
                write_all(fd, part)
            os.utime(fd, (item.mtime, item.mtime))
        finally:
            os.close(fd)

    def _read_document(self, item: Item) -> bytes:
        """Return the bytes of ``pack.json``, after taking from it all that is to follow."""
        if item.size > postinstall.LARGEST_DOCUMENT:
            self._refuse(item.name, f"has {item.size} bytes")
        data = b"".join(item.parts)
        try:
            self.pack = postinstall.decode(data)
            self.root = item.name[: -len(DOCUMENT)].rstrip("/")
            self.parts = rows_of(self.archive, self.pack.parts, self.others)
            self._expected = _Expected(self.pack, self.root)
            self._prepare(self.pack, item.name)
        except postinstall.InvalidPack as error:
            self._refuse(item.name, f"is damaged: {error}")
        return data

    def _prepare(self, pack: postinstall.Pack, name: str) -> None:
        """Hold all that is going to be made against the limits and the free space, before any of it is."""
        for row in pack.rows:
            self._claim(f"{self.root}/{row.path}".lstrip("/"))
        growth = 0
        with _errors_explained(self._destination):
            if self._home is not None:
                growth = self._home.growth(pack, self.root)
            all_parts = (pack.announced, *(part.announced for part in pack.parts))
            entries = self.entries + len(self._implied) + sum(each.entries for each in all_parts)
            size = self.size + sum(each.bytes for each in all_parts)
            if entries + len(pack.links) > self.limits.entries or size + growth > self.limits.size:
                self._refuse(
                    name, f"announces {entries} entries and {size + growth} bytes, more than are allowed"
                )
            need_room(self._directories.open(""), size + growth, entries + len(pack.links))
        self._announced = replace(self.limits, entries=entries, size=size)


def tells_apart(directory: int, one: str, other: str) -> bool:
    """Return whether two paths that are alike but for case or form are two in a *directory*: by trying."""
    probe = postinstall.temporary_name()
    os.mkdir(probe, dir_fd=directory)
    with postinstall.inside(directory, probe) as fd:
        for name, twin in zip(one.split("/"), other.split("/"), strict=True):
            if name == twin:
                continue
            with opened(name, CREATE, dir_fd=fd):
                is_told = postinstall.kind_of(twin, fd) is None
            os.unlink(name, dir_fd=fd)
            if is_told:
                break
        else:
            is_told = False
    os.rmdir(probe, dir_fd=directory)
    return is_told


def _not_ours(archive: str) -> Refused:
    return unsafe(
        archive, "was not written by venvflow", hint="Look into it with tar or unzip, which do not care."
    )


class _Expected:
    """What must come behind the metadata of an archive of ours, for everything that it says to be true.

    After :meth:`begin` it is what must come in another archive, a part of the same venv.
    """

    def __init__(self, pack: postinstall.Pack, root: str) -> None:
        self._root = root
        self._prefix = f"{root}/" if root else ""
        self._links = {link.path for link in pack.links}
        self._to_python = {link.path for link in pack.links if link.slots and link.slots[0].kind == "python"}
        self._python = pack.python
        self._sizes = {**_neutral_sizes(pack), TEMPLATES: (pack.length, pack.length)}
        self._all_directories = {""}
        self._start(pack.announced, "")
        self._directories.add(METADATA)

    def begin(self, part: postinstall.PartRow) -> None:
        """Expect what is in *part*, from its first entry on."""
        self._start(part.announced, part.mark)

    def _start(self, announced: postinstall.Announced, mark: str) -> None:
        self._announced = announced
        self._mark = mark
        self._directories = {""}
        self._counts = {"dir": 0, "file": 0, "link": 0}
        self._size = 0

    def refusal(self, item: Item) -> str:
        """Return why *item* does not belong here, as the end of a sentence, or count it."""
        is_root = bool(self._mark and self._root) and item.name == self._root and item.kind == "dir"
        if not (item.name.startswith(self._prefix) or is_root):
            return "lies outside of the archive's directory"
        path = "" if is_root else item.name[len(self._prefix) :]
        if path.rpartition("/")[0] not in self._directories:
            return "lies in a directory that does not come before it"
        if path in self._links and not self.is_link_to_python(item):
            return "stands where a link is to be made"
        if self._mark and (why := self._not_in_part(path, item)):
            return why
        if path in self._sizes:
            least, most = self._sizes.pop(path)
            if item.kind != "file" or not least <= item.size <= most:
                return "is not what its template becomes"
        if item.kind == "dir":
            self._directories.add(path)
            self._all_directories.add(path)
        self._counts[item.kind] += 1
        self._size += item.size if item.kind == "file" else 0
        return ""

    def is_link_to_python(self, item: Item) -> bool:
        """Return whether *item* is a link to the interpreter as it was announced."""
        path = item.name[len(self._prefix) :]
        is_such = item.kind == "link" and bool(self._python) and item.target == self._python
        return is_such and path in self._to_python and item.name.startswith(self._prefix)

    def _not_in_part(self, path: str, item: Item) -> str:
        """Return why an entry cannot be in a part that is not the last one: its mark comes first."""
        if item.kind == "file" and not self._counts["file"] and path != self._mark:
            return "is not the first file of the part that it should be"
        if folded(path).startswith(f"{METADATA}/") and path != self._mark:
            return "is not its own to say"
        return ""

    def incomplete(self) -> str:
        """Return what did not come that the archive announces, or nothing."""
        counts = self._counts
        came = (self._size, counts["dir"], sum(counts.values()), counts["file"], counts["link"])
        if came != self._announced:
            return f"{sum(counts.values())} entries, {self._size} bytes"
        return ""

    def missing(self) -> str:
        """Return what did not come that should be in one of the archives, or nothing."""
        for path in self._sizes:
            return f"{shown(path)} is missing"
        for path in self._links:
            if path.rpartition("/")[0] not in self._all_directories:
                return f"the directory of {shown(path)} is missing"
        return ""


def _neutral_sizes(pack: postinstall.Pack) -> dict[str, tuple[int, int]]:
    """Return how many bytes each template has at least and at most in an archive, filled in as it is there.

    One that finds its place may do so as in another version, in any number of bytes that is announced. So the
    numbers in a RECORD may have any number of digits.
    """
    sizes = postinstall.filled_sizes(pack.lengths, neutral_places(pack.python, pack.place))
    found = {}
    for path, _, slots in pack.lengths:
        digits = [len(str(sizes[slot.argument])) for slot in slots if slot.form == "record"]
        least, most = sizes[path] - sum(digits) + len(digits), sizes[path] + 20 * len(digits)
        if postinstall.finds_its_place(path, slots):
            least, most = 0, postinstall.LARGEST_FILLED
        found[path] = (least, most)
    return found
