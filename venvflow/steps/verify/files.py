"""The venvs' half: whether each file of a venv is what its manifest says."""

from __future__ import annotations

import os
from contextlib import suppress

from venvflow.disk.objects import is_promised, object_name, sealed
from venvflow.disk.scan import Changing, Found, read
from venvflow.model import Entry
from venvflow.pure.relocate import leads_there
from venvflow.pure.sharing import stays_private
from venvflow.state.contents import Contents
from venvflow.state.witness import is_ignored
from venvflow.steps.drift import as_made, can_run, let_run
from venvflow.steps.sameness import LARGEST_TEMPLATE, Sameness, may_hold
from venvflow.steps.verify.findings import Finding
from venvflow.steps.verify.healing import Healing, give_time_back
from venvflow.steps.verify.holders import Holder, Use, inode_of
from venvflow.steps.verify.inspection import Inspection


class FileJudge:
    """Judges the files of one venv, the *holder*; *healing* mends them, if it was asked for."""

    def __init__(self, inspection: Inspection, healing: Healing | None, holder: Holder) -> None:
        self._inspection = inspection
        self._objects = inspection.objects
        self._healing = healing
        self._holder = holder
        self._sameness = Sameness(
            holder.entries, holder.places, self._objects, Contents(holder.receipt.contents)
        )

    def judge_all(self) -> None:
        """Find what is missing, added or changed."""
        for path, entry in self._holder.entries.items():
            self._inspection.result.files += 1
            self._judge(entry, self._holder.found.get(path))
        known = self._holder.entries.keys() | self._holder.private.keys()
        for path, item in self._holder.found.items():
            if item.kind != "dir" and path not in known and not is_ignored(path):
                self._inspection.find(Finding("file added", path, self._holder.path))

    def _judge(self, entry: Entry, item: Found | None) -> None:
        if item is None:
            self._judge_gone(entry)
        elif entry.digest:
            self._judge_file(entry, item)
        elif item.kind != entry.kind or not self._leads_there(entry):
            self._inspection.find(Finding("file edited", entry.path, self._holder.path))

    def _leads_there(self, entry: Entry) -> bool:
        """Return whether the venv's link leads where *entry* says, if that is one."""
        target = os.readlink(f"{self._holder.path}/{entry.path}") if entry.kind == "link" else ""
        return not target or leads_there(entry, target, self._holder.places, os.path.realpath)

    def _judge_gone(self, entry: Entry) -> None:
        finding = self._inspection.find(Finding("file missing", entry.path, self._holder.path))
        if self._healing is None or entry.kind != "file" or not self._objects.verified(object_name(entry)):
            return
        with suppress(OSError):
            self._healing.put_back(Use(self._holder, entry))
            finding.healed = "put there again from the store"

    def _judge_file(self, entry: Entry, item: Found) -> None:
        if item.kind == "link" and self._is_link_to_object(entry):
            return  # it is the object, and that was judged
        if inode_of(item) in self._inspection.judged:
            return
        if item.kind != "file":
            self._inspection.find(Finding("file edited", entry.path, self._holder.path))
        elif self._needs_reading(entry, item):
            self._judge_content(entry, item)
        elif not self._has_mode(entry, item):
            self._judge_look(Finding("mode changed", entry.path, self._holder.path), entry, item)

    def _is_link_to_object(self, entry: Entry) -> bool:
        target = os.readlink(f"{self._holder.path}/{entry.path}")
        return self._objects.name_at(target) == object_name(entry)

    def _needs_reading(self, entry: Entry, item: Found) -> bool:
        if not as_made(item, entry, self._inspection.adopted):
            return True
        if not self._inspection.full:
            return False
        with suppress(OSError):
            return not self._objects.is_at(object_name(entry), item.stamp.inode, item.device)
        return True

    def _judge_content(self, entry: Entry, item: Found) -> None:
        path = f"{self._holder.path}/{entry.path}"
        is_known = self._healing is not None or entry.path in self._holder.private
        if not may_hold(entry, item.stamp.size) and (entry.kind == "template" or not is_known):
            self._judge_edit(entry, item, "")  # which bytes it has is of no use
            return
        self._inspection.has_read(item.stamp.size)
        content = None
        with suppress(OSError, Changing):
            content = read(path, keep=LARGEST_TEMPLATE if entry.kind == "template" else 0)
        if content is None or not self._sameness.holds(entry, content):
            self._judge_edit(entry, item, content.digest if content else "")
        elif not as_made(item, entry, self._inspection.adopted) and not is_ignored(entry.path):
            self._judge_look(Finding("mtime moved", entry.path, self._holder.path), entry, item)

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
        linked = self._holder.receipt.link == "hardlink" and entry.kind == "file"
        return linked and not stays_private(entry, 1, adopted=adopted)

    def _judge_look(self, finding: Finding, entry: Entry, item: Found) -> None:
        """Tell of a file that has its bytes and does not look as it should."""
        self._inspection.find(finding)
        if self._healing is None:
            return
        with suppress(OSError):
            if item.links == 1 and not can_run(item, entry):
                let_run(f"{self._holder.path}/{entry.path}")
                finding.healed = "can be run again"
            elif item.links == 1:
                give_time_back(f"{self._holder.path}/{entry.path}", finding)
            elif self._is_shared(entry) and self._objects.verified(object_name(entry)):
                self._healing.put_back(Use(self._holder, entry))
                finding.healed = "given the store's own file again"

    def _judge_edit(self, entry: Entry, item: Found, digest: str) -> None:
        """Name a file with other bytes, unless they are known to be the venv's own; know them if asked to."""
        holder = self._holder
        if digest and holder.private.get(entry.path) == digest:
            self._inspection.result.private += 1
            return
        others = tuple(self._inspection.sharers(holder, item))
        finding = self._inspection.find(Finding("file edited", entry.path, holder.path, others))
        if self._healing is not None and digest and item.links == 1:
            holder.private[entry.path] = digest
            finding.healed = "known as a private file of this venv from now on"
