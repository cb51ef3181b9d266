"""What is known of a venv since it was surveyed or shared, so that its files need not be read again."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from venvflow.disk.objects import Name, object_name
from venvflow.disk.scan import Found
from venvflow.model import Manifest, Receipt, VenvSpec
from venvflow.pure.manifest import Corrupt, entries_of
from venvflow.pure.patterns import Matcher
from venvflow.pure.sharing import stays_private
from venvflow.state.changes import as_made
from venvflow.state.file_stats import digest_of_found
from venvflow.state.index import Stamped
from venvflow.state.reader import StoreReader
from venvflow.steps.job import Job


def without_excluded(found: Iterable[Found], matcher: Matcher | None) -> Iterator[Found]:
    """Yield what a walk has found, but for the files that *matcher* excludes."""
    for item in found:
        if matcher is None or item.kind == "dir" or not matcher.excludes_file(item.path):
            yield item


def settings_of(spec: VenvSpec) -> str:
    """Return how a venv is shared, in one line: one that was shared in another way is not done yet."""
    return f"{','.join(spec.link)} {spec.min_size} {spec.bytecode} {' '.join(map(ascii, spec.exclude))}"


def is_settled(job: Job, store: StoreReader, receipt: Receipt, walked: list[Found]) -> bool:
    """Return whether the venv was shared in this store, in this way, and looks as it did then."""
    registration = store.registration(job.place.path)
    return (
        receipt.state == "shared"
        and registration is not None
        and registration.settings == settings_of(job.spec)
        and registration.trees == receipt.trees
        and digest_of_found(without_excluded(walked, job.matcher)) == receipt.stats
        and all(store.has_tree(digest) for digest in receipt.trees)
        and (receipt.link != "hardlink" or _is_linked_here(store, receipt, walked, job.spec.min_size))
    )


def _is_linked_here(store: StoreReader, receipt: Receipt, walked: list[Found], min_size: int) -> bool:
    """Return whether a linked file is an object of this store, not of one that was here before.

    One is enough: a venv is linked to one store. Only the first tree that has files to share is read.
    """
    items = {item.path: item for item in walked if item.kind == "file"}
    with suppress(Corrupt):
        for digest in receipt.trees:
            entries = store.tree(digest).entries
            shared = [each for each in entries if each.kind == "file" and not stays_private(each, min_size)]
            if shared:
                return any(
                    each.path in items and is_object(store, object_name(each), items[each.path])
                    for each in shared
                )
        return True
    return False


def is_object(store: StoreReader, name: Name, item: Found) -> bool:
    """Return whether a file that was found is the store's object of that *name*."""
    with suppress(OSError):
        return store.objects.is_at(name, item.stamp.inode, item.device)
    return False


class Known(NamedTuple):
    """Files that need no reading, by path.

    *sound* are those whose objects were seen to be sound in the store just now, *linked* those that are names
    of their objects.
    """

    stamped: Mapping[str, Stamped]
    sound: Container[str] = ()
    linked: Container[str] = ()


def known_of(store: StoreReader, receipt: Receipt, found: Iterable[Found]) -> Known:
    """Return what is known of a venv since it was surveyed or shared; nothing, if that is lost."""
    if receipt.state == "built":
        return Known(store.index.stamps(receipt.path))
    try:
        entries = entries_of(Manifest(tuple(store.tree(digest) for digest in receipt.trees)))
    except Corrupt:
        return Known({})
    stamped: dict[str, Stamped] = {}
    linked: set[str] = set()
    adopted = store.adopted()
    for item in found:
        entry = entries.get(item.path)
        if (
            entry is None or item.kind != "file" or not entry.digest
            or item.executable != entry.executable or not as_made(item, entry, adopted)
        ):  # fmt: skip
            continue
        name = object_name(entry)
        inode = store.objects.sound_inode(name, entry.size, adopted.get(name))
        if inode is not None:
            stamped[item.path] = Stamped(item.stamp, entry)
            if inode == (item.stamp.inode, item.device):
                linked.add(item.path)
    return Known(stamped, stamped, linked)
