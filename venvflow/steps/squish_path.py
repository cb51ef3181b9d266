"""Sharing any venv by its path, whoever made it: in a config or not, shared before or not."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from venvflow.disk import interpreters, locks
from venvflow.disk.objects import Look, Name, object_name
from venvflow.disk.occupants import occupants
from venvflow.disk.places import RECEIPT, Place, Receipt, write_receipt
from venvflow.disk.scan import Found, look, walk
from venvflow.errors import EnvironmentFailure, Refused, UsageError, shown
from venvflow.model import BytecodePolicy, Entry, LinkMode, Manifest, Outcome
from venvflow.pure.manifest import Corrupt, entries_of
from venvflow.pure.patterns import Matcher, compile_patterns
from venvflow.pure.relocate import Places
from venvflow.pure.sharing import stays_private
from venvflow.state.accounts import Ledger
from venvflow.state.index import Stamped
from venvflow.state.reader import StoreReader
from venvflow.state.registry import Registration
from venvflow.state.relink import is_temporary
from venvflow.state.store import Store
from venvflow.state.witness import witness_of
from venvflow.steps.drift import WAY_OUT, as_made, drift_of
from venvflow.steps.job import Job
from venvflow.steps.records import read_key
from venvflow.steps.squish import (
    Subject,
    figures_of,
    share,
    shared_receipt,
    squish_locked,
    warnings_of,
    without_excluded,
)


@dataclass(frozen=True, slots=True)
class Sharing:
    """How a venv is to be shared: the ladder of link modes, *min_size* in bytes, patterns, bytecode."""

    link: tuple[LinkMode, ...]
    min_size: int
    exclude: tuple[str, ...] = ()
    bytecode: BytecodePolicy = "canonical"

    @property
    def text(self) -> str:
        """Return it in one line: a venv that was shared in another way is not done yet."""
        return f"{','.join(self.link)} {self.min_size} {self.bytecode} {' '.join(map(ascii, self.exclude))}"

    @property
    def matcher(self) -> Matcher | None:
        """Return what decides which files are left alone, None if all are shared."""
        return compile_patterns(self.exclude) if self.exclude else None


@dataclass(frozen=True)
class Errand:
    """One venv by its path, and what to do with it.

    *job* is that of the config, if that names the venv. *ledger* is told before anything is changed. *tell*
    is called with each file and what became of it.
    """

    place: Place
    how: Sharing
    environ: Mapping[str, str]
    now: Callable[[], float]
    ledger: Ledger
    job: Job | None = None
    say: Callable[[str], None] = lambda _: None
    tell: Callable[[str, str], None] = lambda _path, _how: None


def squish_path(store: Store, errand: Errand) -> Outcome:
    """Share the venv at a path: ``squished``, or ``kept`` when that was done and nothing changed since.

    Raises UsageError when there is no venv, Refused when sharing it would not be safe, EnvironmentFailure
    when venv or store cannot be read or written; the venv is whole then.
    """
    place = errand.place
    refuse_unless_sharable(place, store.path)
    with held(store, errand), store.use():
        receipt = place.receipt() or Receipt("", place.path, "built", "shared")
        if receipt.path != place.path:  # it was copied or moved here: what it says is not about this venv
            receipt = Receipt("", place.path, "built", "shared")
        if receipt.key and receipt.state == "shared":
            return _kept(store, errand, receipt)
        _refuse_read_only(store)
        if receipt.key:
            _refuse_changed(store, errand, receipt)
            record = read_key(errand.job) if errand.job is not None else None
            if errand.job is not None and record is not None and record.key.digest == receipt.key:
                errand.ledger.open(place.path)
                return squish_locked(errand.job, store, record)
        return _share(store, errand, receipt)


def _share(store: Store, errand: Errand, receipt: Receipt) -> Outcome:
    start = time.monotonic()
    place = errand.place
    if not store.read_only:
        store.objects.drop_litter()
    walked = walk(place.path)
    found = [*without_excluded(walked, errand.how.matcher)]
    if _is_settled(store, errand, receipt, found):
        return Outcome("kept", "nothing changed since it was shared", {"seconds": time.monotonic() - start})
    subject = subject_of(errand)
    errand.ledger.open(place.path, walked)
    users = occupants(place.path)

    def register(trees: tuple[str, ...], link: str, *, bound: bool) -> None:
        planned = replace(receipt, trees=trees, link=link, bound=bound)
        store.register(_registration(store, errand, planned))

    known = known_of(store, receipt, found)
    found.clear()
    shared = share(
        subject,
        store,
        known.stamped,
        register,
        built_here=False,
        modes=receipt.modes if receipt.trees else None,
        walked=walked,
        sound=known.stamped,
        linked=known.linked,
        whole=bool(receipt.key),
    )
    fresh = shared_receipt(shared, receipt, subject.interpreter, store.path)
    store.register(_registration(store, errand, fresh))
    write_receipt(place.path, fresh, sync=store.durable)
    store.index.set_stamps(place.path, {})
    if subject.matcher is None:
        errand.ledger.settle(place.path, _as_it_is_now(place.path, shared.looked.found))
    warnings = warnings_of(shared)
    if users:
        warnings += (in_use(users),)
    if shared.taken.uncompilable:
        warnings += (f"{shared.taken.uncompilable} of its sources do not compile and were left alone",)
    return Outcome("squished", "", figures_of(shared, start), warnings)


def subject_of(errand: Errand) -> Subject:
    """Return the venv as something to share; its own interpreter is asked. Raises EnvironmentFailure."""
    place, how = errand.place, errand.how
    try:
        python = interpreters.resolve(f"{place.path}/bin/python", root=place.parent, environ=errand.environ)
    except EnvironmentFailure as error:
        raise EnvironmentFailure(
            error.what,
            where=shown(place.path),
            state="Nothing was changed.",
            hint="Install that interpreter again, or make the venv anew.",
        ) from error
    project = errand.job.root if errand.job is not None else place.parent
    places = Places(place.path, project, python.executable)
    return Subject(
        shown(place.path), place.path, places, python, how.bytecode, how.matcher, how.link, how.min_size,
        errand.tell,
    )  # fmt: skip


def in_use(users: list[int]) -> str:
    """Return the warning about processes that use a venv whose files are replaced."""
    named = ", ".join(map(str, users[:8])) + (" ..." if len(users) > 8 else "")
    many = len(users) > 1
    return (
        f"in use by process{'es' * many} {named}: {'they keep' if many else 'it keeps'} the files it has open"
    )


# --------------------------------------------------------------------------- may it be shared?


_NO_VENV = {
    "absent": "there is no such directory",
    "empty": "the directory is empty",
    "file": "it is a file, not a venv",
    "stranger": "it is not a venv: it has no pyvenv.cfg",
}

_NAME_ONE = "Name a venv: its directory, with a pyvenv.cfg in it, or its name in the config."


def refuse_unless_sharable(place: Place, store: str) -> None:
    """Raise UsageError unless there is a venv at *place*, Refused when it must not be touched.

    *store* is the resolved path of the store: a venv may neither be in it nor contain it.
    """
    state = place.state()
    if state in _NO_VENV:
        raise UsageError(
            _NO_VENV[state], where=shown(place.path), state="Nothing was changed.", hint=_NAME_ONE
        )
    if state == "symlink":
        place.refuse_unless_replaceable(state)
    st = os.lstat(place.path)
    if st.st_uid != os.geteuid():
        raise _refused(place, "the venv belongs to another user", "Run as its owner.")
    if not os.path.lexists(f"{place.path}/pyvenv.cfg"):
        raise UsageError(
            _NO_VENV["stranger"], where=shown(place.path), state="Nothing was changed.", hint=_NAME_ONE
        )
    if _contains(store, place.path) or _contains(place.path, store):
        text = (
            "the venv is inside the store" if _contains(store, place.path) else "the store is inside the venv"
        )
        raise _refused(place, text, "Use a store that is apart from all venvs (VENVFLOW_STORE).")


def _contains(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(f"{outer}/")


def _refused(place: Place, what: str, hint: str) -> Refused:
    return Refused(what, where=shown(place.path), state="It was left as it is.", hint=hint)


def _refuse_read_only(store: Store) -> None:
    if store.read_only:
        raise EnvironmentFailure(
            "the store is read-only",
            where=shown(store.path),
            state="Nothing was changed.",
            hint="Make the store writable, or use another one (VENVFLOW_STORE).",
        )


def _refuse_changed(store: Store, errand: Errand, receipt: Receipt) -> None:
    drift = drift_of(errand.place.path, receipt, store, errand.how.matcher)
    if drift.by_hand:
        raise _refused(
            errand.place,
            f"the venv was changed by hand since it was made ({drift})",
            WAY_OUT,
        )


@contextmanager
def held(store: Store, errand: Errand) -> Iterator[None]:
    """Hold the venv against other runs, those of the project that it belongs to too."""
    path = errand.place.path
    timeout, what = locks.lock_timeout(errand.environ), f"the venv {shown(path)}"
    registration = store.registration(path)
    files = []
    if errand.job is not None:
        files.append(errand.job.file("lock"))
    elif registration is not None and os.path.isdir(f"{registration.project}/.venvflow/{registration.name}"):
        files.append(f"{registration.project}/.venvflow/{registration.name}/lock")
    tag = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    files.append(f"{store.path}/locks/venv-{tag}")
    with ExitStack() as stack:
        for file in files:
            stack.enter_context(locks.exclusive(file, timeout=timeout, what=what, on_wait=errand.say))
        yield


# --------------------------------------------------------------------------- shared before


def _kept(store: Store, errand: Errand, receipt: Receipt) -> Outcome:
    """Answer for a venv that doit made and shared: what was changed in it by hand stays private."""
    drift = drift_of(errand.place.path, receipt, store, errand.how.matcher)
    changed = (f"changed by hand ({drift}): that stays private",) if drift.by_hand else ()
    return Outcome("kept", "its files are the store's already", warnings=changed)


def _is_settled(store: Store, errand: Errand, receipt: Receipt, found: list[Found]) -> bool:
    """Return whether the venv was shared in this store, in this way, and looks as it did then."""
    registration = store.registration(errand.place.path)
    return (
        receipt.state == "shared"
        and registration is not None
        and registration.settings == errand.how.text
        and registration.trees == receipt.trees
        and witness_of(found) == receipt.witness
        and all(store.has_tree(digest) for digest in receipt.trees)
        and (receipt.link != "hardlink" or _is_linked_here(store, receipt, found, errand.how.min_size))
    )


def _is_linked_here(store: Store, receipt: Receipt, found: list[Found], min_size: int) -> bool:
    """Return whether a linked file is an object of this store, not of one that was here before.

    One is enough: a venv is linked to one store. Only the first tree that has files to share is read.
    """
    items = {item.path: item for item in found if item.kind == "file"}
    with suppress(Corrupt):
        for digest in receipt.trees:
            entries = store.tree(digest).entries
            shared = [each for each in entries if each.kind == "file" and not stays_private(each, min_size)]
            if shared:
                return any(_is_object(store, entry, items.get(entry.path)) for entry in shared)
        return True
    return False


def _is_object(store: Store, entry: Entry, item: Found | None) -> bool:
    with suppress(OSError):
        return item is not None and store.objects.is_at(object_name(entry), item.stamp.inode, item.device)
    return False


class Known(NamedTuple):
    """Files that need no reading, with their objects sound in the store; *linked* are names of theirs."""

    stamped: dict[str, Stamped]
    linked: set[str]


def known_of(store: StoreReader, receipt: Receipt, found: Iterable[Found]) -> Known:
    """Return the files that are, by their stat, what they were when the venv was shared; none if unknown."""
    known = Known({}, set())
    if receipt.state != "shared":
        return known
    try:
        entries = entries_of(Manifest(tuple(store.tree(digest) for digest in receipt.trees)))
    except Corrupt:
        return known
    adopted = store.adopted()
    for item in found:
        entry = entries.get(item.path)
        if entry is None or not _may_be_known(item, entry, adopted):
            continue
        name = object_name(entry)
        inode = store.objects.sound_inode(name, entry.size, adopted.get(name))
        if inode is not None:
            known.stamped[item.path] = Stamped(item.stamp, entry)
            if inode == (item.stamp.inode, item.device):
                known.linked.add(item.path)
    return known


def _may_be_known(item: Found, entry: Entry, adopted: Mapping[Name, Look]) -> bool:
    same_kind = item.kind == "file" and entry.digest and item.executable == entry.executable
    return bool(same_kind) and as_made(item, entry, adopted)


def _as_it_is_now(venv: str, found: Mapping[str, Found]) -> Iterator[Found]:
    """Yield all that is in a venv now that was shared, by what is known: only directories changed besides."""
    directories = {path for path, item in found.items() if item.kind == "dir"}
    directories |= {path.rpartition("/")[0] for path in found} - {""}
    for path in (*directories, RECEIPT):
        yield look(f"{venv}/{path}", known_as=path)
    for path, item in found.items():
        if item.kind != "dir" and path != RECEIPT and not is_temporary(path):
            yield item


def _registration(store: Store, errand: Errand, receipt: Receipt) -> Registration:
    place = errand.place
    known = store.registration(place.path) if receipt.key else None
    blank = Registration(
        path=place.path, project="", name="", key=receipt.key, place="", link=receipt.link,
        trees=receipt.trees, inode=place.inode(), seen=errand.now(), settings=errand.how.text,
    )  # fmt: skip
    if known is None:
        return blank
    return replace(blank, project=known.project, name=known.name, place=known.place, pin=known.pin)
