"""Decides from which snapshot a build starts, and whether what came of it is what a fresh build gives.

A build that starts from a *base* finds in its empty venv the distributions of which both locks say the same,
and its tool installs the rest. So nothing is ever uninstalled; what it does to the venv is that of a fresh
build, but for what two distributions do to each other. Where they may, and where anything else is in doubt,
:func:`why_unsure` says so: then the venv is built fresh.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from venvflow.model import Entry, Tree
from venvflow.pure.comparison import part_changes, role_of
from venvflow.pure.entries import BESIDE
from venvflow.pure.manifest import Distribution, source_of
from venvflow.pure.names import normalised

ENOUGH = 0.3
"""The share of the packages of a lock that has to be there for a build to start from them."""

_OF_LOCKS = ("lock", "include", "local")
"""Roles of the parts of a key in which a base may differ: what locks say is compared package by package."""


class Near(NamedTuple):
    """A snapshot with the *parts* of its key, and what its locks say of each package."""

    id: str
    parts: Mapping[str, str]
    entries: Mapping[str, str]


def may_be_base(parts: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Return whether two keys agree in all that decides a venv besides what its locks say."""
    return all(role_of(each.name) in _OF_LOCKS for each in part_changes(parts, wanted))


def same_entries(one: Mapping[str, str], other: Mapping[str, str]) -> frozenset[str]:
    """Return the packages of which two sets of locks say the same; none if they differ in what is for all."""
    if one.get(BESIDE) != other.get(BESIDE):
        return frozenset()
    return frozenset(name for name, said in one.items() if name != BESIDE and other.get(name) == said)


def ranked(candidates: Iterable[Near], entries: Mapping[str, str]) -> list[Near]:
    """Return those of the *candidates*, the last used first, from which a build may start: the best first.

    *entries* are what the locks of the venv to be built say.
    """
    wanted = len(entries.keys() - {BESIDE})
    shared = [(len(same_entries(each.entries, entries)), each) for each in candidates]
    worth = [(count, each) for count, each in shared if count and count >= ENOUGH * wanted]
    return [each for _, each in sorted(worth, key=lambda found: -found[0])]


class Division(NamedTuple):
    """The trees of a base: those that are *kept* for the new venv, and those of distributions *left out*.

    *unowned* are the paths of its files that are no distribution's, *bundled* the digests of trees of which
    one carries the other.
    """

    kept: tuple[Tree, ...]
    left_out: tuple[Tree, ...]
    unowned: frozenset[str]
    bundled: frozenset[str]


def divide(trees: Sequence[Tree], names: Collection[str]) -> Division:
    """Divide the *trees* of a base: kept are the distributions of these *names* that name no project.

    What a distribution carries within it shares its fate. It may be in one tree with what is installed of the
    same name and version: then that does, too.
    """
    distributions = [tree for tree in trees if tree.version]
    mains = [tree for tree in distributions if any(_RECORD.fullmatch(each.path) for each in tree.entries)]
    count = Counter(normalised(tree.name) for tree in mains)
    keep = {
        tree.digest
        for tree in mains
        if normalised(tree.name) in names and count[normalised(tree.name)] == 1 and not _names_project(tree)
    }
    bundles = []
    carriers: dict[str, set[str]] = {}
    for tree in distributions:
        if carried := _carried_in(tree, is_main=tree in mains):
            carriers = carriers or _by_package(mains)
            owners = {owner for path in carried for owner in carriers.get(_package(path), ("",))}
            bundles.append(owners | {tree.digest})
            if tree not in mains:
                keep.add(tree.digest)
    while apart := next((each for each in bundles if each & keep and not each <= keep), None):
        keep -= apart
    unowned = (entry.path for tree in trees if not tree.version for entry in tree.entries)
    return Division(
        tuple(tree for tree in distributions if tree.digest in keep),
        tuple(tree for tree in distributions if tree.digest not in keep),
        frozenset(path for path in unowned if source_of(path) is None),
        frozenset().union(*bundles),
    )


def _carried_in(tree: Tree, *, is_main: bool) -> list[str]:
    """Return paths that tell in which packages a tree lies that another distribution may have brought."""
    paths = [entry.path for entry in tree.entries]
    if is_main:
        return [each for each in paths if each.endswith(".dist-info/RECORD") and not _RECORD.fullmatch(each)]
    return paths


class Loan(NamedTuple):
    """What a base has of another snapshot: *trees*, and all *paths* that these have or name."""

    trees: tuple[Tree, ...] = ()
    paths: frozenset[str] = frozenset()


def loan_of(
    base: Division, lender: Division, names: Collection[str], named: Callable[[Tree], Collection[str]]
) -> Loan:
    """Return what another snapshot, the *lender*, can lend to *base* of the distributions of these *names*.

    *named* returns the paths that the RECORDs of a tree name. A distribution is lent if it shares no path
    with what is kept of the base, and none with any other of the lender that is not there as well, if neither
    carries the other. Nothing is if the lender has files that no distribution has, and the base has not.
    """
    if not lender.unowned <= base.unowned:
        return Loan()
    kept = {tree.digest for tree in base.kept}
    there = {entry.path for tree in base.kept for entry in tree.entries}
    # Of two distributions of one name and version, one tree is made.
    called = {(tree.name, tree.version) for tree in base.kept}
    others = [tree for tree in (*lender.kept, *lender.left_out) if tree.digest not in kept]
    paths = {tree.digest: {entry.path for entry in tree.entries}.union(named(tree)) for tree in others}
    count = Counter(path for each in paths.values() for path in each)
    lent = [
        tree
        for tree in lender.kept
        if tree.digest in paths
        and tree.digest not in lender.bundled
        and (tree.name, tree.version) not in called
        and normalised(tree.name) in names
        and there.isdisjoint(paths[tree.digest])
        and all(count[path] == 1 for path in paths[tree.digest])
    ]
    return Loan((*lent,), frozenset().union(*(paths[tree.digest] for tree in lent)))


_RECORD = re.compile(r"lib/[^/]+/site-packages/[^/]+\.dist-info/RECORD")


def _by_package(trees: Iterable[Tree]) -> dict[str, set[str]]:
    """Return the digests of the trees that have files in each directory or module of site-packages."""
    found: dict[str, set[str]] = {}
    for tree in trees:
        for entry in tree.entries:
            found.setdefault(_package(entry.path), set()).add(tree.digest)
    return found


def _package(path: str) -> str:
    return "/".join(path.split("/", 4)[:4])


def _names_project(tree: Tree) -> bool:
    return any(slot.kind == "project" for entry in tree.entries for slot in entry.slots)


# --------------------------------------------------------------------------- what came of it


class Made(NamedTuple):
    """A venv that was built from a base: its *entries* by path, *present* paths, and its distributions.

    Bytecode is present, and no entry: it is made anew.
    """

    entries: Mapping[str, Entry]
    present: Collection[str]
    distributions: Sequence[Distribution]


def why_unsure(
    base: Division, listed: Collection[str], made: Made, is_undisputed: Callable[[str], bool]
) -> str:
    """Return why it is not known that a fresh build gives what was *made* from *base*; empty if it is.

    *listed* are the paths that the RECORDs of the base's left out distributions name. What of the base was
    kept is untouched, or gone as a whole; a file that one that was kept shares with one that came, or that
    was left out, is there, and all that have it say so (*is_undisputed*); and what no RECORD names is there
    without the base.
    """
    whole, touched = _kept_of(base.kept, made)
    if touched:
        return f"its tool changed {touched}"
    ours = {entry.path for tree in whole for entry in tree.entries}
    records = {path for path in ours if path.endswith(".dist-info/RECORD")}
    stayed = [each.paths for each in made.distributions if not records.isdisjoint(each.paths)]
    named = set().union(*stayed)
    came = set().union(*(each.paths for each in made.distributions if records.isdisjoint(each.paths)))
    left_out = {entry.path for tree in base.left_out for entry in tree.entries}
    for theirs in (came, {*listed, *left_out}):
        for path in sorted(theirs & (ours | named)):
            if not is_undisputed(path):
                return f"two packages have {path}"
    if lost := min(base.unowned - made.entries.keys(), default=""):
        return f"no package says that it has {lost}"
    return ""


def _kept_of(kept: Iterable[Tree], made: Made) -> tuple[list[Tree], str]:
    """Return the trees that are whole, and the first path of one that is neither that nor gone."""
    whole: list[Tree] = []
    for tree in kept:
        if not any(entry.path in made.present for entry in tree.entries):
            emptied = {entry.path.rpartition("/")[0] for entry in tree.entries} & made.entries.keys()
            if emptied:
                return whole, min(emptied)
            continue
        for entry in tree.entries:
            is_there = made.entries.get(entry.path) == entry
            if not (is_there or (source_of(entry.path) and entry.path in made.present)):
                return whole, entry.path
        whole.append(tree)
    return whole, ""
