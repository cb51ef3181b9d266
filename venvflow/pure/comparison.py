"""Compares two keys, two lists of packages, or two manifests."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Generic, Literal, NamedTuple, TypeVar

from venvflow.model import Entry, Manifest, Tree
from venvflow.pure.manifest import source_of
from venvflow.pure.relocate import relative_link

_NUMBER = re.compile(r"#\d+(?=:)")
_LISTS = ("lock", "include", "file")
"""Roles of the parts that may be lists of packages."""

SEEDS = frozenset({"pip", "setuptools", "wheel", "distribute"})
"""What tools put into a fresh venv without being asked."""


def seeds_among(names: AbstractSet[str]) -> AbstractSet[str]:
    """Return which of the normalised *names* of a venv's distributions nobody asked for.

    What ``uv venv --seed`` brings for a Python before 3.12 has ``wheel``, and since its 0.46 what that needs.
    """
    return (SEEDS | {"packaging"} if "wheel" in names else SEEDS) & names


How = Literal["added", "removed", "changed"]


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """Something named that has another value; None where it is not there."""

    name: str
    old: T | None
    new: T | None

    @property
    def how(self) -> How:
        """Return what became of it; what has the same value in another form has changed too."""
        return "added" if self.old is None else "removed" if self.new is None else "changed"


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[Change[str], ...]:
    """Return what differs between two sets of named values, in order of the names."""
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return tuple(Change(name, old.get(name), new.get(name)) for name in names)


# --------------------------------------------------------------------------- keys


@dataclass(frozen=True, slots=True)
class Keyed:
    """A key's *parts* with what is known of the packages behind them.

    *packages* are what the lock files list, by the name of their part. *installed* are the versions of the
    distributions, None where they are not known.
    """

    parts: Mapping[str, str]
    packages: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    installed: Mapping[str, str] | None = None

    def lists(self) -> dict[str, Mapping[str, str]]:
        """Return the lists of packages by the digest of their file."""
        return {self.parts[name]: listed for name, listed in self.packages.items() if name in self.parts}


class ListChange(NamedTuple):
    """What changed in one lock file.

    *old* and *new* name its part in the two keys, empty where it is not there. *basis* says what was
    compared: two ``lists``, the new list with what was ``installed``, or ``nothing``: it cannot be read.
    """

    old: str
    new: str
    basis: Literal["lists", "installed", "nothing"]
    changes: tuple[Change[str], ...] = ()

    @property
    def name(self) -> str:
        """Return the name of the part, the new one if it has two."""
        return self.new or self.old


@dataclass(frozen=True, slots=True)
class KeyComparison:
    """The parts in which two keys differ, and what changed in their lock files."""

    parts: tuple[Change[str], ...]
    lists: tuple[ListChange, ...]


def compare_keys(old: Keyed, new: Keyed) -> KeyComparison:
    """Return what differs between two keys."""
    parts = part_changes(old.parts, new.parts)
    return KeyComparison(parts, tuple(_list_changes(parts, old, new)))


def part_changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[Change[str], ...]:
    """Return the parts in which two keys differ, in order of their names.

    Files of one role and name are numbered by their digests, so one that changed may change the numbers of
    the others: those that both keys have, under whatever number, do not differ.
    """
    found = list(changes(old, new))
    numbered = {_NUMBER.sub("", each.name) for each in found if _NUMBER.search(each.name)}
    kept = [each for each in found if _NUMBER.sub("", each.name) not in numbered]
    for group in sorted(numbered):
        kept += _unpaired(group, _of_group(group, old), _of_group(group, new))
    return tuple(sorted(kept, key=lambda each: each.name))


def _of_group(group: str, parts: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in parts.items() if _NUMBER.sub("", name) == group}


def _unpaired(group: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[Change[str]]:
    """Return the changes of a numbered group, without the files that both have."""
    gone, come = Counter(old.values()), Counter(new.values())
    pairs = zip_longest(sorted((gone - come).elements()), sorted((come - gone).elements()))
    return [
        Change(group if number == 1 else group.replace(":", f"#{number}:", 1), *pair)
        for number, pair in enumerate(pairs, 1)
    ]


def in_common(old: Keyed, new: Keyed) -> float:
    """Return the share of packages that both have, in any version, of those that one has: from 0 to 1.

    It is 1 where one of them has none that are known.
    """
    before, after = _names(old), _names(new)
    return len(before & after) / len(before | after) if before and after else 1.0


def _names(keyed: Keyed) -> set[str]:
    return set().union(*keyed.packages.values()) or {*(keyed.installed or ())} - SEEDS


def role_of(part: str) -> str:
    """Return the role of a part that is a file (lock, include, project, local, file), else its whole name."""
    return _NUMBER.sub("", part).partition(":")[0]


def _list_changes(parts: Iterable[Change[str]], old: Keyed, new: Keyed) -> Iterator[ListChange]:
    before, after = old.lists(), new.lists()
    installed = _by_installed(old, new)
    said = False  # what was installed is that of all lock files together: once is enough
    for gone, come in _pairs(parts):
        names = gone.name if gone else "", come.name if come else ""
        one = before.get(gone.old or "") if gone else {}
        other = after.get(come.new or "") if come else {}
        if one is not None and other is not None:
            yield ListChange(*names, "lists", changes(one, other))
        elif installed is not None:
            if not said:
                yield ListChange(*names, "installed", installed)
            said = True
        elif role_of(names[1] or names[0]) == "lock":  # other files are seldom lists
            yield ListChange(*names, "nothing")


def _pairs(parts: Iterable[Change[str]]) -> Iterator[tuple[Change[str] | None, Change[str] | None]]:
    """Yield each lock file that changed as it was and as it is; one that went and one that came are one."""
    files = [each for each in parts if role_of(each.name) in _LISTS]
    yield from ((each, each) for each in files if each.how == "changed")
    for role in _LISTS:
        gone, come = (
            [each for each in files if role_of(each.name) == role and each.how == how]
            for how in ("removed", "added")
        )
        yield from zip_longest(gone, come)


def _by_installed(old: Keyed, new: Keyed) -> tuple[Change[str], ...] | None:
    """Return what differs if at least one side is known only by what was installed, None if that is not."""
    if old.installed is not None and new.packages:
        return _unlike_installed(old.installed, new.packages)
    if new.installed is not None and old.packages:
        found = _unlike_installed(new.installed, old.packages)
        return tuple(Change(each.name, each.new, each.old) for each in found)
    if old.installed is not None and new.installed is not None:
        return changes(old.installed, new.installed)
    return None


def _unlike_installed(
    installed: Mapping[str, str], packages: Mapping[str, Mapping[str, str]]
) -> tuple[Change[str], ...]:
    """Return how what was *installed* differs from what all lists together ask for.

    Only a plain version can be compared: a range, a URL or a path may well be what is installed.
    """
    listed: dict[str, str] = {}
    for each in packages.values():
        listed |= each
    wanted = {
        name: installed[name] if name in installed and allows(text, installed[name]) else text
        for name, text in listed.items()
    }
    there = {name: version for name, version in installed.items() if name in wanted or name not in SEEDS}
    return changes(there, wanted)


def allows(listed: str, version: str) -> bool:
    """Return whether a *version* may be what a lock file lists; of a range, URL or path that is not known."""
    versions = [each.partition("+")[0] for each in listed.split(", ")]
    plain = "@" not in listed and all(each[:1].isdigit() for each in versions)
    return not plain or version.partition("+")[0] in versions


# --------------------------------------------------------------------------- manifests


class Weight(NamedTuple):
    """What is compared of a distribution: its version, how many files it has, and their bytes."""

    version: str
    files: int
    size: int


class FileChange(Change[Entry]):
    """A path, its name, at which two manifests differ."""

    __slots__ = ()

    @property
    def what(self) -> str:
        """Return in what a changed one differs: kind, content, mode or target; empty for the others."""
        if self.old is None or self.new is None:
            return ""
        if self.old.kind != self.new.kind and {self.old.kind, self.new.kind} & {"link", "dir"}:
            return "kind"
        if self.new.kind == "link":
            return "target"
        same = self.old._replace(executable=False) == self.new._replace(executable=False)
        return "mode" if same else "content"

    @property
    def weight(self) -> int:
        """Return the bytes of the larger side: what makes one file matter more than another."""
        return max(self.old.size if self.old else 0, self.new.size if self.new else 0)


@dataclass(frozen=True, slots=True)
class ManifestComparison:
    """What differs between two manifests: distributions in order of name, files in order of path."""

    distributions: tuple[Change[Weight], ...]
    files: tuple[FileChange, ...]

    @property
    def equal(self) -> bool:
        """Return whether nothing differs."""
        return not self.distributions and not self.files


def compare_manifests(old: Manifest, new: Manifest) -> ManifestComparison:
    """Return what differs between two manifests.

    Templates are compared as such: two venvs that differ only in where they lie are equal, and links into a
    venv, by its path or relative ones, if they lead to the same. Bytecode in
    ``__pycache__`` follows from its source, and does nothing without; it is left out. Where each has one
    Python, of different minor versions, its directory below ``lib`` counts as the same, as ``lib/python*``.
    """
    common = _common(old, new)
    minors = _minor(old), _minor(new)
    neutral = None not in minors and minors[0] != minors[1]
    before = _own(old, common, neutral=neutral)
    after = _own(new, common, neutral=neutral)
    left, right = _by_path(before), _by_path(after)
    paths = sorted(path for path in left.keys() | right.keys() if left.get(path) != right.get(path))
    files = tuple(FileChange(path, left.get(path), right.get(path)) for path in paths)
    return ManifestComparison(tuple(_distributions(before, after)), files)


def _common(old: Manifest, new: Manifest) -> set[str]:
    """Return the trees that need no comparison.

    Of a distribution that two trees claim, as after a careless upgrade, one alone may be in both: not it.
    """
    common = {tree.digest for tree in old.trees} & {tree.digest for tree in new.trees}
    names = {tree.name for tree in (*old.trees, *new.trees) if tree.digest not in common}
    return {tree.digest for tree in old.trees if tree.digest in common and tree.name not in names}


_LIBRARY = re.compile(r"lib/(python3\.\d+t?)/")


def _minor(manifest: Manifest) -> str | None:
    """Return the one Python whose library directory the entries lie in, None unless there is just one."""
    found = {
        match[1]
        for tree in manifest.trees
        for entry in tree.entries
        if (match := _LIBRARY.match(entry.path)) is not None
    }
    return found.pop() if len(found) == 1 else None


def _own(manifest: Manifest, common: Collection[str], *, neutral: bool) -> list[Tree]:
    """Return the trees that are not *common*, without what is not compared."""
    return [_compared(tree, neutral=neutral) for tree in manifest.trees if tree.digest not in common]


def _compared(tree: Tree, *, neutral: bool) -> Tree:
    entries = tuple(relative_link(entry) for entry in tree.entries if source_of(entry.path) is None)
    if neutral:
        entries = tuple(
            entry._replace(path=_LIBRARY.sub("lib/python*/", entry.path, count=1)) for entry in entries
        )
    return Tree(tree.digest, tree.name, tree.version, entries)


def _by_path(trees: Iterable[Tree]) -> dict[str, Entry]:
    return {entry.path: entry for tree in trees for entry in tree.entries}


def _distributions(before: Iterable[Tree], after: Iterable[Tree]) -> Iterator[Change[Weight]]:
    old, new = _by_name(before), _by_name(after)
    for name in sorted(old.keys() | new.keys()):
        one, other = old.get(name, ()), new.get(name, ())
        if [(tree.version, tree.entries) for tree in one] != [(tree.version, tree.entries) for tree in other]:
            yield Change(name, _weight(one), _weight(other))


def _by_name(trees: Iterable[Tree]) -> dict[str, tuple[Tree, ...]]:
    """Return the distributions by name; a careless upgrade leaves two versions of one."""
    found: dict[str, tuple[Tree, ...]] = {}
    for tree in trees:
        if tree.version:
            found[tree.name] = (*found.get(tree.name, ()), tree)
    return found


def _weight(trees: tuple[Tree, ...]) -> Weight | None:
    if not trees:
        return None
    entries = [entry for tree in trees for entry in tree.entries if entry.digest]
    return Weight(", ".join(tree.version for tree in trees), len(entries), sum(each.size for each in entries))
