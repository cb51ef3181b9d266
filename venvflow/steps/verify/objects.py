"""The store's half: whether each object that something needs is there and what its name says."""

from __future__ import annotations

import os
from contextlib import suppress

from venvflow.disk.objects import Look, Name, is_promised, sealed
from venvflow.disk.scan import Found, look
from venvflow.pure.sharing import stays_private
from venvflow.steps.verify.findings import Finding, Kind
from venvflow.steps.verify.healing import Healing
from venvflow.steps.verify.holders import Inode, Use, editor_of, inode_of
from venvflow.steps.verify.inspection import Inspection


class ObjectJudge:
    """Judges the objects of an inspection; *healing* mends them, if it was asked for."""

    def __init__(self, inspection: Inspection, healing: Healing | None) -> None:
        self._inspection = inspection
        self._objects = inspection.objects
        self._healing = healing
        self._quarantine = _quarantined(inspection.objects.quarantined)

    def judge_all(self) -> None:
        """Find objects that are not what their names say."""
        for name, size in self._inspection.sizes.items():
            self._inspection.result.objects += 1
            self._judge(name, size)

    def _judge(self, name: Name, size: int) -> None:
        path = self._objects.path(name)
        aside = self._aside(name)
        if aside is not None:
            self._judge_damage(name, aside, again=True)
        elif not os.path.lexists(path):
            self._judge_missing(name, size)
        elif self._must_read(name, size):
            self._judge_content(name, size, path)

    def _must_read(self, name: Name, size: int) -> bool:
        adopted = self._inspection.adopted.get(name)
        return self._inspection.full or not self._objects.sound(name, size, adopted)

    def _aside(self, name: Name) -> Inode | None:
        """Return the damaged object that was put aside while venvs still have it: a mending was cut short."""
        for inode in self._quarantine.get(name.digest, ()):
            if any(use.holder.has(use.entry.path, inode) for use in self._inspection.uses(name)):
                return inode
        return None

    def _judge_missing(self, name: Name, size: int) -> None:
        if size == 0:
            return
        uses = self._inspection.uses(name)
        if uses and all(stays_private(use.entry, 1) for use in uses):
            return  # nobody needs it while its venvs have their own copies
        finding = self._inspection.find(
            Finding("object missing", self._objects.path(name), others=_paths(uses))
        )
        if self._healing is not None:
            self._healing.mend(name, finding, None, None)

    def _judge_content(self, name: Name, size: int, path: str) -> None:
        self._inspection.has_read(size)
        item = look(path)
        if os.access(path, os.R_OK) and not self._objects.verified(name):
            self._judge_damage(name, inode_of(item))
        elif not self._objects.sound(name, size, self._inspection.adopted.get(name)):
            self._judge_look(name, size, item)

    def _judge_look(self, name: Name, size: int, item: Found) -> None:
        """Tell of an object that has its bytes and does not look as it should."""
        path = self._objects.path(name)
        st = os.lstat(path)
        if self._inspection.store.index.fresh and self._objects.may_be_adopted(st, name):
            self._inspection.adopted[name] = Look(st.st_mtime_ns, item.mode)  # nobody knows any other
            return
        self._inspection.judged.add(inode_of(item))
        promised = (self._inspection.adopted.get(name) or sealed(name)).mode
        note = ""
        if st.st_uid not in self._objects.owners:
            note = f"it belongs to user {st.st_uid}"
        elif not is_promised(item.mode, promised):
            note = f"{item.mode:04o} in place of {promised:04o}"
        uses = [use for use in self._inspection.uses(name) if use.holder.has(use.entry.path, inode_of(item))]
        kind: Kind = "mode changed" if note else "mtime moved"
        finding = Finding(kind, path, others=_paths(uses) if note else (), note=note)
        if note or st.st_nlink > 1:  # whoever links to it later gives it its time first
            self._inspection.find(finding)
        if self._healing is not None:
            self._healing.relabel(name, size, uses, finding)

    def _judge_damage(self, name: Name, bad: Inode, *, again: bool = False) -> None:
        """Tell of the damaged object *bad*, and who has it; make it anew, or *again* what was cut short."""
        self._inspection.judged.add(bad)
        uses = [use for use in self._inspection.uses(name) if use.holder.has(use.entry.path, bad)]
        uses = uses or [use for use in self._inspection.uses(name) if use.holder.is_linked(use.entry)]
        editor = editor_of(uses, self._inspection.only, cut_short=again)
        finding = self._inspection.find(self._of_damage(name, uses, editor))
        if self._healing is not None:
            self._healing.mend(name, finding, bad, editor)

    def _of_damage(self, name: Name, uses: list[Use], editor: Use | None) -> Finding:
        if editor is None:
            return Finding("object damaged", self._objects.path(name), others=_paths(uses))
        others = _paths([use for use in uses if use != editor])
        return Finding("file edited", editor.entry.path, editor.holder.path, others)


def _paths(uses: list[Use]) -> tuple[str, ...]:
    return tuple(use.path for use in uses)


def _quarantined(directory: str) -> dict[str, list[Inode]]:
    """Return the damaged objects that were put aside, by digest."""
    found: dict[str, list[Inode]] = {}
    with suppress(FileNotFoundError):
        for name in os.listdir(directory):
            item = look(f"{directory}/{name}")
            found.setdefault(name.partition(".")[0], []).append(inode_of(item))
    return found
