"""Sameness: whether a file of a venv still says what its manifest says, whatever its times are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property

from venvflow.disk.objects import Objects, object_name
from venvflow.disk.scan import Content
from venvflow.model import Entry
from venvflow.postinstall import LARGEST_FILLED
from venvflow.pure.manifest import Corrupt
from venvflow.pure.relocate import Places, digest_of, fill, find, find_in_record, is_record
from venvflow.state.contents import Contents

LARGEST_TEMPLATE = 4 << 20
"""Bytes of the largest file that is taken apart: generated scripts are never so large."""


def may_hold(entry: Entry, size: int) -> bool:
    """Return whether a file of *size* bytes may be what *entry* says; who knows need not read it.

    What is filled into a template has a limit, and a hole in a file has none.
    """
    return size <= LARGEST_FILLED if entry.kind == "template" else size == entry.size


class Sameness:
    """Compares files of one venv, made for *places*, with its *entries* by path and its *contents*."""

    def __init__(
        self, entries: Mapping[str, Entry], places: Places, objects: Objects, contents: Contents
    ) -> None:
        self._entries = entries
        self._contents = contents
        self._places = places
        self._objects = objects

    def holds(self, entry: Entry, content: Content) -> bool:
        """Return whether *content* is what *entry* says; a template may spell local paths as it likes.

        Of a template, the bytes were kept.
        """
        if entry.kind == "file":
            return content.digest == entry.digest
        if self._contents.holds(entry.path, content.digest):
            return True
        with suppress(KeyError, ValueError, Corrupt):
            if self._filled(entry)[0].hex() == content.digest:
                return True
        return any(
            found is not None
            and found.slots == entry.slots
            and hashlib.sha256(found.data).hexdigest() == entry.digest
            for found in (
                find(entry.path, content.data, self._places),
                find_in_record(entry.path, content.data, self._templates, self._places),
            )
        )

    @cached_property
    def _templates(self) -> set[str]:
        return {path for path, entry in self._entries.items() if entry.kind == "template"}

    def _filled(self, entry: Entry) -> tuple[bytes, int]:
        """Return digest and size of a template, filled in; raises ``KeyError`` when it cannot be.

        What a RECORD describes is never a RECORD itself: two that describe each other have no end.
        """
        if entry.kind != "template":
            return bytes.fromhex(entry.digest), entry.size
        data = self._objects.read(object_name(entry))
        if data is None:
            raise KeyError(entry.path)
        described = {slot.argument for slot in entry.slots if slot.form == "record"}
        if any(is_record(self._entries[path]) for path in described):
            raise KeyError(entry.path)
        digests = {path: self._filled(self._entries[path]) for path in described}
        return digest_of(fill(data, entry.slots, self._places, digests))
