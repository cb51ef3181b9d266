"""Mending: a good copy takes the place of what is damaged, and venvs get their bytes back.

An edit is never lost: it stays as the private file of the venv it was made in, or goes to quarantine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

from venvflow.disk.files import open_regular
from venvflow.disk.links import write_private
from venvflow.disk.objects import Name
from venvflow.disk.scan import Changing, look, read
from venvflow.model import MTIME_NS
from venvflow.state.relink import give_again, replacing
from venvflow.state.store import Store
from venvflow.steps.verify import rescue
from venvflow.steps.verify.findings import Finding
from venvflow.steps.verify.holders import Inode, Use, inode_of
from venvflow.steps.verify.inspection import Inspection

_HOPELESS = (
    "no good copy is left in venvs, store or caches: nothing will be made from it, and snapshots with it are "
    "misses. Install again what it belongs to (or delete the venv and run doit)"
)


class Healing:
    """Mends in *store* what an inspection finds; good copies may be in *caches*, directories of builders."""

    def __init__(self, inspection: Inspection, store: Store, caches: Sequence[str]) -> None:
        self._inspection = inspection
        self._store = store
        self._objects = inspection.objects
        self._caches = caches

    # ----------------------------------------------------------------------- objects

    def mend(self, name: Name, finding: Finding, bad: Inode | None, editor: Use | None) -> None:
        """Make an object anew from a good copy, and give it to all venvs but the *editor*'s.

        *bad* is the inode of the damaged one, None if it is missing. *finding* says afterwards what was done.
        """
        good = self._made_anew(name, bad)
        if good is None:
            # It stays where it is: venvs may be symlinked to it, and nothing links to it unhashed.
            finding.note = _HOPELESS
            return
        edited = f"{self._objects.quarantined}/{name.digest}.{bad[1]}" if bad is not None else ""
        size = look(self._objects.path(name)).stamp.size
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

    def _made_anew(self, name: Name, bad: Inode | None) -> str | None:
        """Put a good copy in the place of the object; return which, None if there is none."""
        path = self._objects.path(name)
        if os.path.lexists(path) and self._objects.verified(name):
            return path  # an earlier run came as far as this
        with self._objects.batch() as batch:
            good = self._good_copy(name, bad, batch.staging)
            if good is not None:
                if os.path.lexists(path):
                    self._objects.quarantine(name)
                batch.add_copy(good, name, look(good).stamp)
                batch.publish()
        return good

    def _good_copy(self, name: Name, bad: Inode | None, scratch: str) -> str | None:
        """Return a file that has the bytes that *name* says; what is made for that goes into *scratch*."""
        for path in self._candidates(name, bad, scratch):
            with suppress(OSError, Changing):
                if read(path).digest == name.digest:
                    return path
        return None

    def _candidates(self, name: Name, bad: Inode | None, scratch: str) -> Iterator[str]:
        store = self._store
        for either in (name, Name(name.digest, not name.executable)):
            for use in self._inspection.uses(either):
                item = use.holder.found.get(use.entry.path)
                if item is not None and item.kind == "file" == use.entry.kind and inode_of(item) != bad:
                    yield use.path
        yield from rescue.stored_copies(store, name)
        uses = self._inspection.uses(name)
        yield from rescue.cached_copies(self._caches, uses)
        trees = dict.fromkeys(digest for each in self._inspection.holders for digest in each.receipt.trees)
        yield from rescue.packed_copies(store, [*trees], uses, scratch)
        yield from rescue.compiled_copies(store, uses, scratch)

    def relabel(self, name: Name, size: int, uses: Sequence[Use], finding: Finding) -> None:
        """Let an object with the right bytes look as it should, and so the *uses* of it that look wrong."""
        adopted = self._inspection.adopted.get(name)
        made = self._store.relabel(name, size, adopted)
        if made is None:
            finding.note = f"{finding.note}; it cannot be changed, nor can a copy take its place".lstrip("; ")
            return
        if made != adopted:
            self._inspection.adopted.pop(name, None)
        now = inode_of(look(self._objects.path(name)))
        for use in uses:
            if not use.holder.has(use.entry.path, now):  # a copy took its place
                self.put_back(use)
            _look_again(use)
        finding.healed = f"given back its {'mode and owner' if finding.kind == 'mode changed' else 'time'}"

    # ----------------------------------------------------------------------- files of venvs

    def put_back(self, use: Use) -> None:
        """Give a venv a file as it should be, linked as its others are. Raises ``OSError``."""
        give_again(self._objects, use.entry, use.holder.path, use.holder.receipt.link)
        _look_again(use)

    def _keep_edit(self, use: Use, bad: Inode | None, edited: str) -> None:
        """Make an edit, whose bytes are in the file *edited*, the private file of the venv it was made in."""
        holder, entry = use
        if not (_has_bad(use, bad) or holder.is_linked(entry)):
            return
        with (
            replacing(holder.path, entry.path, quietly=False) as (fd, temporary),
            open_regular(edited) as file,
        ):
            write_private(temporary, fd, file.read(), executable=entry.executable)
            os.utime(temporary, dir_fd=fd)  # it shows as edited
        self._inspection.judged.add(_look_again(use))
        holder.private[entry.path] = read(use.path).digest


def give_time_back(path: str, finding: Finding) -> None:
    """Give a file whose bytes are right the constant mtime again."""
    os.utime(path, ns=(MTIME_NS, MTIME_NS), follow_symlinks=False)
    finding.healed = "given back its time"


def _has_bad(use: Use, bad: Inode | None) -> bool:
    """Return whether the file is the damaged object itself."""
    return bad is not None and use.holder.has(use.entry.path, bad)


def _look_again(use: Use) -> Inode:
    """Note how a file looks that has just been put there, and return which it is."""
    now = use.holder.found[use.entry.path] = look(use.path)._replace(path=use.entry.path)
    return inode_of(now)


def _called(path: str, tmp: str) -> str:
    """Return in words where good bytes came from; what was made in *tmp* is gone by then."""
    if not path.startswith(tmp + "/"):
        return path
    return "a packed tree of the store" if "/packed-" in path else "compiling it anew"
