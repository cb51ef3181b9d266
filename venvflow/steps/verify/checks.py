"""Checks that objects are what their names say, and venvs what their manifests say."""

from __future__ import annotations

import os
from contextlib import suppress

from venvflow.disk.files import read_small
from venvflow.disk.objects import MtimeMode, Name, is_promised, object_name, sealed
from venvflow.disk.scan import Changing, Found, lstat, read
from venvflow.model import Entry
from venvflow.pure.relocate import leads_there, listed_in
from venvflow.pure.sharing import stays_private
from venvflow.state.changes import Bytes, as_made, bytes_to_keep, can_run, is_object, let_run, may_hold
from venvflow.state.contents import Contents
from venvflow.state.file_stats import is_ignored
from venvflow.state.recorded import compared, records_of
from venvflow.state.usage import InodeId
from venvflow.steps.verify.healing import Healing, give_time_back
from venvflow.steps.verify.inspection import Finding, Inspection, Kind, SharedVenv, Use, editor_of, inode_of


class ObjectChecks:
    """Checks the objects of an inspection; *healing* fixes them, if it was asked for."""

    def __init__(self, inspection: Inspection, healing: Healing | None) -> None:
        self._inspection = inspection
        self._objects = inspection.objects
        self._healing = healing
        self._adopted = inspection.adopted  # first: an index that is made for that puts damaged objects aside
        self._quarantine = _quarantined(self._objects.quarantined)

    def run(self) -> None:
        """Find objects that are not what their names say."""
        for name, size in self._inspection.sizes.items():
            self._inspection.result.objects += 1
            self._check(name, size)

    def _check(self, name: Name, size: int) -> None:
        path = self._objects.path(name)
        aside = self._aside(name)
        if aside is not None:
            self._check_damage(name, aside, again=True)
        elif not os.path.lexists(path):
            self._check_missing(name, size)
        elif self._must_read(name, size):
            self._check_content(name, size, path)

    def _must_read(self, name: Name, size: int) -> bool:
        adopted = self._adopted.get(name)
        return self._inspection.full or not self._objects.sound(name, size, adopted)

    def _aside(self, name: Name) -> InodeId | None:
        """Return the damaged object that was put aside while venvs still have it: healing was cut short."""
        for inode in self._quarantine.get(name.digest, ()):
            if any(use.venv.has(use.entry.path, inode) for use in self._inspection.uses(name)):
                return inode
        return None

    def _check_missing(self, name: Name, size: int) -> None:
        if size == 0:
            return
        uses = self._inspection.uses(name)
        if uses and all(stays_private(use.entry, 1) for use in uses):
            return  # nobody needs it while its venvs have their own copies
        finding = self._inspection.find(
            Finding("object missing", self._objects.path(name), others=_paths(uses))
        )
        if self._healing is not None:
            self._healing.heal(name, finding, None, None)

    def _check_content(self, name: Name, size: int, path: str) -> None:
        self._inspection.has_read(size)
        item = lstat(path)
        if os.access(path, os.R_OK) and not self._objects.verified(name):
            self._check_damage(name, inode_of(item))
        elif not self._objects.sound(name, size, self._inspection.adopted.get(name)):
            self._check_mtime_mode(name, size, item)

    def _check_mtime_mode(self, name: Name, size: int, item: Found) -> None:
        """Tell of an object that has its bytes and does not look as it should."""
        path = self._objects.path(name)
        st = os.lstat(path)
        if self._inspection.store.index.fresh and self._objects.may_be_adopted(st, name):
            self._inspection.adopted[name] = MtimeMode(st.st_mtime_ns, item.mode)  # no other is known
            return
        self._inspection.judged.add(inode_of(item))
        promised = (self._inspection.adopted.get(name) or sealed(name)).mode
        note = ""
        if st.st_uid not in self._objects.owners:
            note = f"it belongs to user {st.st_uid}"
        elif not is_promised(item.mode, promised):
            note = f"{item.mode:04o} in place of {promised:04o}"
        uses = [use for use in self._inspection.uses(name) if use.venv.has(use.entry.path, inode_of(item))]
        kind: Kind = "mode changed" if note else "mtime moved"
        finding = Finding(kind, path, others=_paths(uses) if note else (), note=note)
        if note or st.st_nlink > 1:  # relink gives it its time before it links to it
            self._inspection.find(finding)
        if self._healing is not None:
            self._healing.give_mtime_mode_back(name, size, uses, finding)

    def _check_damage(self, name: Name, bad: InodeId, *, again: bool = False) -> None:
        """Tell of the damaged object *bad*, and who has it; make it anew, or *again* what was cut short."""
        self._inspection.judged.add(bad)
        uses = [use for use in self._inspection.uses(name) if use.venv.has(use.entry.path, bad)]
        uses = uses or [use for use in self._inspection.uses(name) if use.venv.is_linked(use.entry)]
        editor = editor_of(uses, self._inspection.only, cut_short=again)
        finding = self._inspection.find(self._of_damage(name, uses, editor))
        if self._healing is not None:
            self._healing.heal(name, finding, bad, editor)

    def _of_damage(self, name: Name, uses: list[Use], editor: Use | None) -> Finding:
        if editor is None:
            return Finding("object damaged", self._objects.path(name), others=_paths(uses))
        others = _paths([use for use in uses if use != editor])
        return Finding("file edited", editor.entry.path, editor.venv.path, others)


def _paths(uses: list[Use]) -> tuple[str, ...]:
    return tuple(use.path for use in uses)


def _quarantined(directory: str) -> dict[str, list[InodeId]]:
    """Return the damaged objects that were put aside, by digest."""
    found: dict[str, list[InodeId]] = {}
    with suppress(FileNotFoundError):
        for name in os.listdir(directory):
            item = lstat(f"{directory}/{name}")
            found.setdefault(name.partition(".")[0], []).append(inode_of(item))
    return found


# --------------------------------------------------------------------------- files of venvs


class FileChecks:
    """Checks the files of a venv; *healing* fixes them, if it was asked for."""

    def __init__(self, inspection: Inspection, healing: Healing | None, venv: SharedVenv) -> None:
        self._inspection = inspection
        self._objects = inspection.objects
        self._healing = healing
        self._venv = venv
        self._bytes = Bytes(venv.entries, venv.places, self._objects, Contents(venv.receipt.contents))

    def run(self) -> None:
        """Find what is missing, added or changed."""
        for path, entry in self._venv.entries.items():
            self._inspection.result.files += 1
            self._check(entry, self._venv.found.get(path))
        known = self._venv.entries.keys() | self._venv.private.keys()
        for path, item in self._venv.found.items():
            if item.kind != "dir" and path not in known and not is_ignored(path):
                self._find("file added", path)
        self._check_new_records()

    def _check_new_records(self) -> None:
        """Name distributions that came since the venv was shared and are not whole: an installer was killed.

        Of the others, the manifest knows better what should be there.
        """
        venv = self._venv
        records = {}
        for path in records_of(venv.found):
            if path not in venv.entries:
                with suppress(OSError, ValueError):
                    records[path] = listed_in(
                        path, read_small(f"{venv.path}/{path}"), venv.path, strict=False
                    )
        for each in compared(records, lambda path: os.path.lexists(f"{venv.path}/{path}"), self._holds):
            kind: Kind = "file missing" if each.missing else "file edited"
            self._find(kind, (each.missing or each.changed)[0]).note = str(each)

    def _holds(self, path: str, digest: str) -> bool:
        """Return whether a file has that SHA-256; one that the manifest names is judged by that."""
        if path in self._venv.entries:
            return True
        with suppress(OSError, Changing):
            content = read(f"{self._venv.path}/{path}")
            self._inspection.has_read(content.stamp.size)
            return content.digest == digest
        return True

    def _find(self, kind: Kind, path: str, others: tuple[str, ...] = ()) -> Finding:
        return self._inspection.find(Finding(kind, path, self._venv.path, others))

    def _check(self, entry: Entry, item: Found | None) -> None:
        if item is None:
            self._check_gone(entry)
        elif entry.digest:
            self._check_file(entry, item)
        elif item.kind != entry.kind or not self._leads_there(entry):
            self._find("file edited", entry.path)

    def _leads_there(self, entry: Entry) -> bool:
        """Return whether the venv's link leads where *entry* says, if that is one."""
        target = os.readlink(f"{self._venv.path}/{entry.path}") if entry.kind == "link" else ""
        return not target or leads_there(entry, target, self._venv.places, os.path.realpath)

    def _check_gone(self, entry: Entry) -> None:
        finding = self._find("file missing", entry.path)
        if self._healing is None or entry.kind != "file" or not self._objects.verified(object_name(entry)):
            return
        with suppress(OSError):
            self._healing.put_back(Use(self._venv, entry))
            finding.healed = "put there again from the store"

    def _check_file(self, entry: Entry, item: Found) -> None:
        target = os.readlink(f"{self._venv.path}/{entry.path}") if item.kind == "link" else ""
        if self._objects.name_at(target) == object_name(entry):
            return  # it is the object, and that was judged
        if inode_of(item) in self._inspection.judged:
            return
        if item.kind != "file":
            self._find("file edited", entry.path)
        elif self._needs_reading(entry, item):
            self._check_content(entry, item)
        elif not self._has_mode(entry, item):
            self._fix_mtime_mode(self._find("mode changed", entry.path), entry, item)

    def _is_as_made(self, entry: Entry, item: Found) -> bool:
        return as_made(item, entry, self._inspection.adopted, self._venv.receipt.written)

    def _needs_reading(self, entry: Entry, item: Found) -> bool:
        if not self._is_as_made(entry, item):
            return True
        if not self._inspection.full:
            return False
        return not is_object(self._inspection.store, object_name(entry), item)

    def _check_content(self, entry: Entry, item: Found) -> None:
        path = f"{self._venv.path}/{entry.path}"
        is_known = self._healing is not None or entry.path in self._venv.private
        if not may_hold(entry, item.stamp.size) and (entry.kind == "template" or not is_known):
            self._check_edit(entry, item, "")  # which bytes it has is of no use
            return
        self._inspection.has_read(item.stamp.size)
        content = None
        with suppress(OSError, Changing):
            content = read(path, keep=bytes_to_keep(entry))
        if content is None or not self._bytes.holds(entry, content):
            self._check_edit(entry, item, content.digest if content else "")
        elif not self._is_as_made(entry, item) and not is_ignored(entry.path):
            self._fix_mtime_mode(self._find("mtime moved", entry.path), entry, item)

    def _has_mode(self, entry: Entry, item: Found) -> bool:
        """Return whether a file that others have too has a mode of its object, and any other can be run."""
        name = object_name(entry)
        adopted = self._inspection.adopted.get(name)
        if item.links == 1 or not self._is_shared(entry):
            return can_run(item, entry)
        return any(is_promised(item.mode, each.mode) for each in (sealed(name), adopted or sealed(name)))

    def _is_shared(self, entry: Entry) -> bool:
        """Return whether the file should be one of the store's own."""
        adopted = object_name(entry) in self._inspection.adopted
        linked = self._venv.receipt.link == "hardlink" and entry.kind == "file"
        return linked and not stays_private(entry, 1, adopted=adopted)

    def _fix_mtime_mode(self, finding: Finding, entry: Entry, item: Found) -> None:
        """Fix a file that has its bytes and does not look as it should."""
        if self._healing is None:
            return
        with suppress(OSError):
            if item.links == 1 and not can_run(item, entry):
                let_run(f"{self._venv.path}/{entry.path}")
                finding.healed = "can be run again"
            elif item.links == 1:
                give_time_back(Use(self._venv, entry), finding)
            elif self._is_shared(entry) and self._objects.verified(object_name(entry)):
                self._healing.put_back(Use(self._venv, entry))
                finding.healed = "given the store's own file again"

    def _check_edit(self, entry: Entry, item: Found, digest: str) -> None:
        """Name a file with other bytes, unless they are known to be the venv's own; know them if asked to."""
        venv = self._venv
        if digest and venv.private.get(entry.path) == digest:
            self._inspection.result.private += 1
            return
        others = tuple(self._inspection.sharers(venv, item))
        finding = self._find("file edited", entry.path, others)
        if self._healing is not None and digest and item.links == 1:
            venv.private[entry.path] = digest
            finding.healed = "known as a private file of this venv from now on"
