"""One verification: which venvs and objects it is about, what is known of them, and what was found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from venvflow.disk.objects import Look, Name, Objects, object_name, object_names
from venvflow.disk.scan import Found
from venvflow.pure.manifest import Corrupt
from venvflow.state.reader import StoreReader
from venvflow.state.registry import Registration
from venvflow.steps.verify.findings import Finding, Verified
from venvflow.steps.verify.holders import Holder, Inode, Use, holder_of, inode_of


@dataclass
class Inspection:
    """What all parts of a verification share.

    *only* are the paths of the venvs that were named; *judged* are inodes of which a finding tells already,
    *sizes* the objects that are needed, *adopted* those that keep a look of somebody else's.
    """

    store: StoreReader
    full: bool
    only: frozenset[str]
    progress: Callable[[int, int], None]
    holders: list[Holder] = field(default_factory=list)
    sizes: dict[Name, int] = field(default_factory=dict)
    judged: set[Inode] = field(default_factory=set)
    result: Verified = field(default_factory=Verified)

    @property
    def objects(self) -> Objects:
        """The store's objects."""
        return self.store.objects

    @cached_property
    def adopted(self) -> dict[Name, Look]:
        """The adopted objects, with the looks that they came with."""
        return self.store.adopted()

    @property
    def chosen(self) -> list[Holder]:
        """The venvs that were asked for: all, unless some were named."""
        return [holder for holder in self.holders if not self.only or holder.path in self.only]

    def look(self, registrations: Iterable[Registration]) -> None:
        """Walk all venvs, and learn which objects are needed. Raises EnvironmentFailure as walking does."""
        for registration in registrations:
            holder = holder_of(self.store, registration)
            if isinstance(holder, Holder):
                self.holders.append(holder)
            elif holder is not None and (not self.only or registration.path in self.only):
                self.result.findings += holder
                self.result.venvs += 1
        for holder in self.chosen:
            self.sizes |= {
                object_name(entry): entry.size for entry in holder.entries.values() if entry.digest
            }
        if not self.only:
            self._add_snapshots()
        self.result.venvs += len(self.chosen)

    def _add_snapshots(self) -> None:
        for snapshot in self.store.snapshots():
            with suppress(Corrupt):
                for tree in self.store.load(snapshot).trees:
                    sizes = (entry.size for entry in tree.entries if entry.digest)
                    self.sizes.update(zip(object_names(tree), sizes, strict=True))

    def find(self, finding: Finding) -> Finding:
        """Take a note of a finding, and return it."""
        self.result.findings.append(finding)
        return finding

    def has_read(self, size: int) -> None:
        """Count *size* bytes as read, and tell of it."""
        self.result.read += size
        self.progress(min(self.result.read, self._total), self._total)

    @cached_property
    def _total(self) -> int:
        return sum(self.sizes.values())

    def uses(self, name: Name) -> list[Use]:
        """Return the files whose bytes are that object's, in all venvs."""
        return self._uses.get(name, [])

    @cached_property
    def _uses(self) -> dict[Name, list[Use]]:
        """All files by object: of a million it takes seconds, so only where something is wrong."""
        uses: dict[Name, list[Use]] = defaultdict(list)
        for holder in self.holders:
            for entry in holder.entries.values():
                if entry.digest:
                    uses[object_name(entry)].append(Use(holder, entry))
        return uses

    def sharers(self, holder: Holder, item: Found) -> Iterator[str]:
        """Yield the files of other venvs that are the same inode; for when all objects were mended."""
        if item.links > 1:
            for other, path in self._names.get(inode_of(item), []):
                if other is not holder:
                    yield f"{other.path}/{path}"

    @cached_property
    def _names(self) -> dict[Inode, list[tuple[Holder, str]]]:
        names: dict[Inode, list[tuple[Holder, str]]] = defaultdict(list)
        for holder in self.holders:
            for path, item in holder.found.items():
                if item.links > 1:
                    names[inode_of(item)].append((holder, path))
        return names
