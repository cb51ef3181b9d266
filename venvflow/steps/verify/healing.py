"""Heals: a good copy replaces what is damaged, and venvs get their bytes back.

An edit is never lost: it stays as the private file of the venv it was made in, or goes to quarantine.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

from venvflow.disk import interpreters
from venvflow.disk.archive.reading import items
from venvflow.disk.bytecode import Source, compile_sources
from venvflow.disk.files import open_regular
from venvflow.disk.links import write_private
from venvflow.disk.objects import Name, object_name
from venvflow.disk.scan import Changing, lstat, read
from venvflow.errors import VenvflowError
from venvflow.pure.manifest import source_of
from venvflow.pure.sharing import time_of
from venvflow.state.reader import StoreReader
from venvflow.state.relink import give_again, replacing_in_venv
from venvflow.state.store import Store
from venvflow.state.usage import InodeId
from venvflow.steps.verify.inspection import Finding, Inspection, Use, inode_of

_HOPELESS = (
    "no good copy is left in venvs, store or caches: it is not used again, and snapshots with it are "
    'misses. Run "venvflow build --force" where a config names the venvs; elsewhere install again what it '
    "belongs to"
)


class Healing:
    """Fixes in *store* what an inspection finds."""

    def __init__(self, inspection: Inspection, store: Store) -> None:
        self._inspection = inspection
        self._store = store
        self._objects = inspection.objects

    # ----------------------------------------------------------------------- objects

    def heal(self, name: Name, finding: Finding, bad: InodeId | None, editor: Use | None) -> None:
        """Make an object anew from a good copy, and give it to all venvs but the *editor*'s.

        *bad* is the inode of the damaged one, None if it is missing. *finding* says afterwards what was done.
        """
        good = self._made_anew(name, bad)
        if good is None:
            # It stays where it is: venvs may be symlinked to it, and nothing links to it unhashed.
            finding.note = _HOPELESS
            return
        edited = f"{self._objects.quarantined}/{name.digest}.{bad[1]}" if bad is not None else ""
        size = lstat(self._objects.path(name)).stamp.size
        self._store.index.add_objects({name: size}, {})
        self._inspection.adopted.pop(name, None)
        for use in self._inspection.uses(name):
            if use == editor:
                self._keep_edit(use, bad, edited)
            elif _has_bad(use, bad):
                self.put_back(use)
        finding.healed = f"its bytes came from {_called(good, self._objects.tmp)}"
        if edited and editor is None:
            finding.note = f"the damaged bytes are in {edited}"
        elif edited:
            finding.note = "the edit was kept there as a private file"

    def _made_anew(self, name: Name, bad: InodeId | None) -> str | None:
        """Put a good copy in the place of the object; return which, None if there is none."""
        path = self._objects.path(name)
        if os.path.lexists(path) and self._objects.verified(name):
            return path  # an earlier run came as far as this
        with self._objects.batch() as batch:
            good = self._good_copy(name, bad, batch.staging)
            if good is not None:
                if os.path.lexists(path):
                    self._objects.quarantine(name)
                batch.add_copy(good, name, lstat(good).stamp)
                batch.publish()
        return good

    def _good_copy(self, name: Name, bad: InodeId | None, scratch: str) -> str | None:
        """Return a file that has the bytes that *name* says; what is made for that goes into *scratch*."""
        for path in self._candidates(name, bad, scratch):
            with suppress(OSError, Changing):
                if read(path).digest == name.digest:
                    return path
        return None

    def _candidates(self, name: Name, bad: InodeId | None, scratch: str) -> Iterator[str]:
        store = self._store
        for either in (name, Name(name.digest, not name.executable)):
            for use in self._inspection.uses(either):
                item = use.venv.found.get(use.entry.path)
                if item is not None and item.kind == "file" == use.entry.kind and inode_of(item) != bad:
                    yield use.path
        yield from _stored_copies(store, name)
        uses = self._inspection.uses(name)
        yield from _cached_copies(uses)
        trees = dict.fromkeys(digest for each in self._inspection.venvs for digest in each.receipt.trees)
        yield from _packed_copies(store, [*trees], uses, scratch)
        yield from _compiled_copies(store, uses, scratch)

    def give_mtime_mode_back(self, name: Name, size: int, uses: Sequence[Use], finding: Finding) -> None:
        """Let an object with the right bytes look as it should, and so the *uses* of it that look wrong."""
        adopted = self._inspection.adopted.get(name)
        made = self._store.relabel(name, size, adopted)
        if made is None:
            finding.note = f"{finding.note}; it cannot be changed, nor can a copy take its place".lstrip("; ")
            return
        if made != adopted:
            self._inspection.adopted.pop(name, None)
        now = inode_of(lstat(self._objects.path(name)))
        for use in uses:
            if not use.venv.has(use.entry.path, now):  # a copy took its place
                self.put_back(use)
            _look_again(use)
        finding.healed = f"given back its {'mode and owner' if finding.kind == 'mode changed' else 'time'}"

    # ----------------------------------------------------------------------- files of venvs

    def put_back(self, use: Use) -> None:
        """Give a venv a file as it should be, linked as its others are. Raises ``OSError``."""
        receipt = use.venv.receipt
        link = "copy" if use.entry.path in receipt.copies else receipt.link
        give_again(self._objects, use.entry, use.venv.path, link, receipt.written)
        _look_again(use)

    def _keep_edit(self, use: Use, bad: InodeId | None, edited: str) -> None:
        """Make an edit, whose bytes are in the file *edited*, the private file of the venv it was made in."""
        venv, entry = use
        if not (_has_bad(use, bad) or venv.is_linked(entry)):
            return
        with (
            replacing_in_venv(venv.path, entry.path, quietly=False) as (fd, temporary),
            open_regular(edited) as file,
        ):
            write_private(temporary, fd, file.read(), executable=entry.executable)
            os.utime(temporary, dir_fd=fd)  # it shows as edited
        self._inspection.judged.add(_look_again(use))
        venv.private[entry.path] = read(use.path).digest


def give_time_back(use: Use, finding: Finding) -> None:
    """Give a file that has its bytes the time that it should have."""
    mtime_ns = time_of(use.entry, use.venv.receipt.written)
    os.utime(use.path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
    finding.healed = "given back its time"


def _has_bad(use: Use, bad: InodeId | None) -> bool:
    """Return whether the file is the damaged object itself."""
    return bad is not None and use.venv.has(use.entry.path, bad)


def _look_again(use: Use) -> InodeId:
    """Note how a file looks that has just been put there, and return which it is."""
    now = use.venv.found[use.entry.path] = lstat(use.path)._replace(path=use.entry.path)
    return inode_of(now)


def _called(path: str, tmp: str) -> str:
    """Return in words where good bytes came from; what was made in *tmp* is gone by then."""
    if not path.startswith(tmp + "/"):
        return path
    return "a packed tree of the store" if "/packed-" in path else "compiling it anew"


# --------------------------------------------------------------------------- where good bytes may be

_SITE = "/site-packages/"


def _stored_copies(store: StoreReader, name: Name) -> Iterator[str]:
    """Yield files of the store: the same bytes with the other executable bit, spares, what was put aside."""
    objects = store.objects
    yield objects.path(Name(name.digest, not name.executable))
    spares = (f"{objects.path(name)}.{number}" for number in itertools.count(1))
    yield from itertools.takewhile(os.path.lexists, spares)
    with suppress(OSError):
        for file in os.listdir(objects.quarantined):
            if file.startswith(name.digest):
                yield f"{objects.quarantined}/{file}"


def _cached_copies(uses: Sequence[Use]) -> Iterator[str]:
    """Yield files of uv's cache, to which it links venvs, that lie where the distribution has the file."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = os.path.join(os.environ.get("UV_CACHE_DIR") or os.path.join(base, "uv"), "archive-v0")
    wanted = {use.entry.path.partition(_SITE)[2] for use in uses} - {""}
    with suppress(OSError):
        for archive in sorted(os.listdir(cache)):
            for path in sorted(wanted):
                candidate = os.path.join(cache, archive, path)
                if os.path.isfile(candidate):
                    yield candidate


def _packed_copies(
    store: StoreReader, trees: Sequence[str], uses: Sequence[Use], scratch: str
) -> Iterator[str]:
    """Yield what the compressed *trees* that pack keeps have, written into the directory *scratch*."""
    wanted = {use.entry.path for use in uses}
    for number, frame in enumerate(_frames(store, trees)):
        target = os.path.join(scratch, f"packed-{number}")
        # A frame is cut out of an archive, so it ends where an archive would not.
        with suppress(VenvflowError, OSError, ValueError), open_regular(frame) as raw:
            for item in items(frame, raw, 1 << 40):
                if item.kind == "file" and any(item.name.endswith(path) for path in wanted):
                    with open(target, "wb") as file:
                        file.writelines(item.parts)
                    yield target


def _frames(store: StoreReader, trees: Sequence[str]) -> Iterator[str]:
    for digest in trees:
        directory = os.path.join(store.path, "frames", digest[:2])
        with suppress(OSError):
            for file in sorted(os.listdir(directory)):
                if file.startswith(digest):
                    yield os.path.join(directory, file)


def _compiled_copies(store: StoreReader, uses: Sequence[Use], scratch: str) -> Iterator[str]:
    """Yield bytecode that was compiled anew from its source, into the directory *scratch*."""
    for use in uses:
        source = use.venv.entries.get(source_of(use.entry.path) or "")
        if source is None or not store.objects.verified(object_name(source)):
            continue
        with suppress(VenvflowError, OSError):
            python = interpreters.resolve(
                f"{use.venv.path}/bin/python", root=use.venv.path, environ=os.environ
            )
            job = Source(source.digest, source.path, store.objects.path(object_name(source)))
            made = compile_sources(python, [job], scratch)[job]
            if made is not None:
                yield made.file
