"""``squish``: the venv's files become the store's, its manifest is written, its names become links."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from venvflow.disk.blame import failure, path_of
from venvflow.disk.descriptors import directory
from venvflow.disk.files import temporary_name
from venvflow.disk.links import Linker, prevailing
from venvflow.disk.modes import modes_of
from venvflow.disk.places import Receipt, watched, write_receipt
from venvflow.disk.scan import Changing, Found
from venvflow.errors import EnvironmentFailure, Refused, shown
from venvflow.model import BytecodePolicy, Interpreter, LinkMode, Outcome
from venvflow.pure.manifest import directories
from venvflow.pure.patterns import Matcher
from venvflow.pure.relocate import Places
from venvflow.state.contents import encode_contents
from venvflow.state.index import Stamped
from venvflow.state.intake import Intake, Taken
from venvflow.state.reader import StoreReader
from venvflow.state.relink import Relinked, Relinker
from venvflow.state.store import Store, bytecode_id
from venvflow.state.survey import Survey, survey, unusual_modes
from venvflow.state.withheld import closed, credentials, refuse_to_show
from venvflow.state.witness import witness_of
from venvflow.steps import claims
from venvflow.steps.drift import WAY_OUT, drift_of
from venvflow.steps.job import Job
from venvflow.steps.meter import Meter
from venvflow.steps.records import KeyRecord, need_key
from venvflow.steps.replace import matcher_of


def squish(job: Job, *, any_venv: bool = False) -> Outcome:
    """Share the job's venv through the store, and leave its manifest in the receipt.

    A venv that was restored, or squished before, is shared already. *any_venv*: one that venvflow did not
    make will do; its receipt is written then. Raises EnvironmentFailure when there is no venv, or when
    venv or store cannot be read or written.
    """
    record = need_key(job)
    with (
        claims.given_back_on_failure(record.key.digest),
        job.locked(),
        job.open_store() as store,
        store.use(),
    ):
        return squish_locked(job, store, record, any_venv=any_venv)


def squish_locked(job: Job, store: Store, record: KeyRecord, *, any_venv: bool = False) -> Outcome:
    """Squish while the venv and the store are held."""
    receipt = _receipt(job, record, any_venv=any_venv)
    if receipt.state == "shared" and receipt.path == job.place.path:
        return Outcome("kept", "its files are the store's already")
    if store.read_only:
        raise EnvironmentFailure(
            "the store is read-only",
            where=f"{job.spec.name}: {shown(store.path)}",
            state="The venv works, its files are its own.",
            hint="Make the store writable, or use another one (VENVFLOW_STORE).",
        )
    if receipt.made != "shared":
        refuse_to_publish(job, store, receipt)
    start = time.monotonic()
    store.objects.drop_litter()
    known = store.index.stamps(job.place.path)

    def register(trees: tuple[str, ...], link: str, *, bound: bool) -> None:
        job.register(store, record.key.digest, link=link, trees=trees, bound=bound)

    subject = subject_of(job, record)
    shared = share(
        subject,
        store,
        known,
        register,
        built_here=receipt.made == "built",
        modes=receipt.modes if receipt.trees else None,
    )
    fresh = shared_receipt(shared, receipt, record.interpreter, store.path)
    register(fresh.trees, fresh.link, bound=fresh.bound)
    write_receipt(job.place.path, fresh, sync=store.durable)  # until then the stamps say what is whose
    store.index.set_stamps(job.place.path, {})
    return Outcome("squished", "", figures_of(shared, start), warnings_of(shared))


def _receipt(job: Job, record: KeyRecord, *, any_venv: bool) -> Receipt:
    receipt = job.place.receipt()
    if receipt is not None and (any_venv or receipt.key == record.key.digest):
        if receipt.key == record.key.digest:
            return receipt
        return replace(receipt, key=record.key.digest, state="built", made="shared")
    if any_venv and job.place.state() == "venv":
        return Receipt(record.key.digest, job.place.path, "built", "shared")
    raise EnvironmentFailure(
        "there is no venv for this key",
        where=f"{job.spec.name}: {shown(job.place.path)}",
        state="Nothing was changed.",
        hint=f'Run "{job.doit}".',
    )


def refuse_changed(job: Job, store: StoreReader | None, receipt: Receipt) -> None:
    """Raise Refused if somebody changed the venv since it was made: it is not what its key says any more."""
    drift = drift_of(job.place.path, receipt, store, matcher_of(job))
    if drift.by_hand:
        raise Refused(
            f"the venv was changed by hand since it was made ({drift})",
            where=f"{job.spec.name}: {shown(job.place.path)}",
            state="It was left as it is and was not stored: others would get your changes.",
            hint=WAY_OUT,
        )
    missing = [path for path in drift.missing if not path.endswith(".pyc")]  # bytecode is made anew
    if missing:
        raise EnvironmentFailure(
            f"files of the venv are missing ({drift})",
            where=f"{job.spec.name}: {shown(job.place.path)}",
            state="Nothing was stored: others would get a venv that is not whole.",
            hint=f'Run "{job.doit}": it is restored, or built anew.',
        )


def refuse_to_publish(job: Job, store: Store, receipt: Receipt) -> None:
    """Do as :func:`refuse_changed`, and let the next ``restore`` look through a venv that is not whole.

    No directory told of what is missing, or it would have been restored before.
    """
    try:
        refuse_changed(job, store, receipt)
    except EnvironmentFailure:
        write_receipt(job.place.path, replace(receipt, directories={"bin": 0}))
        raise


@dataclass(frozen=True, slots=True)
class Subject:
    """A venv to share, whoever made it, and how: *name* is what messages call it, *path* where it lies.

    *bytecode* says what becomes of its ``.pyc`` files, *matcher* what is left alone, *link* and *min_size*
    (bytes) what its files become. *tell* is called with the path of each file and what became of it.
    """

    name: str
    path: str
    places: Places
    interpreter: Interpreter
    bytecode: BytecodePolicy
    matcher: Matcher | None
    link: tuple[LinkMode, ...]
    min_size: int
    tell: Callable[[str, str], None] = lambda _path, _how: None


def subject_of(job: Job, record: KeyRecord) -> Subject:
    """Return the venv of a job as something to share."""
    spec = job.spec
    return Subject(
        spec.name, job.place.path, job.places(record.interpreter), record.interpreter, spec.bytecode,
        matcher_of(job), spec.link, spec.min_size, _counting(job.meter),
    )  # fmt: skip


def _counting(meter: Meter) -> Callable[[str, str], None]:
    """Return what counts the files that are linked, for whoever waits."""
    meter.say("reading")
    numbers = itertools.count(1)

    def tell(_path: str, _how: str) -> None:
        if not (number := next(numbers)) % 100:
            meter.say(f"{number:,} files linked")

    return tell


@dataclass(frozen=True, slots=True)
class Shared:
    """What sharing a venv gave: what was read, what the store got, what became of the files.

    *modes* are those that they had, as a receipt notes them, *unusual* the files with bits that are not kept.
    *secret* are credentials, *hidden* what other users cannot read: neither was taken; *private* are both,
    with their SHA-256.
    """

    subject: Subject
    looked: Survey
    taken: Taken
    relinked: Relinked
    modes: dict[str, int]
    unusual: tuple[str, ...]
    secret: tuple[str, ...]
    hidden: tuple[str, ...]
    private: dict[str, str]


class Register(Protocol):
    """Tells the store which trees a venv needs, and by which links."""

    def __call__(self, trees: tuple[str, ...], link: str, *, bound: bool) -> None:
        """Register the venv, in place of what was known of it."""


def share(
    subject: Subject,
    store: Store,
    known: Mapping[str, Stamped],
    register: Register,
    *,
    built_here: bool,
    modes: Mapping[str, int] | None,
    walked: list[Found] | None = None,
    sound: Container[str] = (),
    linked: Container[str] = (),
    whole: bool = True,
) -> Shared:
    """Give a venv's files to the store and link their names; *known* need not be read again.

    *sound* are paths whose objects were seen to be sound just now, *linked* those that are names of theirs.
    *modes* are those noted when it was shared before (None: it never was), *walked* is what a walk of all of
    it has found just now, if there was one; it is used up. Venv and store are held by the caller. *register*
    is called before any name becomes a link: a venv of symlinks needs its objects from then on, whoever
    trims after a kill. *built_here*: our builder has just made it. *whole*: a snapshot may be made of it,
    which needs all that packages brought. Raises EnvironmentFailure when venv or store cannot be read or
    written; the venv holds what it held then.
    """
    try:
        looked = look_through(subject, known, walked)
        if walked is not None:
            walked.clear()  # of a large venv it is megabytes, and soon out of date
        refuse_to_show(subject.path, looked, store.path, whole=whole)
        secret = tuple(sorted(credentials(subject.path, looked, whole=whole)))
        private = looked.withhold(secret)
        hidden = tuple(sorted(closed(looked, whole=whole)))
        private |= looked.withhold(hidden)
        had = modes_of((looked.found[path] for path in looked.entries if path in looked.found), modes)
        unusual = tuple(unusual_modes(looked))
        taken = _intake(subject, store, built_here=built_here).take(
            looked, canonical=subject.bytecode == "canonical", sound=sound
        )
        trees = tuple(tree.digest for tree in taken.manifest.trees)
        register(trees, "symlink" if "symlink" in subject.link else "", bound=taken.manifest.bound)
        relinker = Relinker(
            store.objects, subject.path, Linker(subject.link), min_size=store.least_shared(subject.min_size),
            origins=taken.origins, own=taken.own, adopted=store.adopted(), linked=linked, tell=subject.tell,
        )  # fmt: skip
        with _relinking(subject.path):
            relinked = relinker.relink(taken.entries, looked.found)
        return Shared(subject, looked, taken, relinked, had, unusual, secret, hidden, private)
    except Changing as error:
        raise _changing(subject.name, str(error)) from error
    except OSError as error:
        in_store = f"{path_of(error, store.path)}/".startswith(f"{store.path}/")
        doing = "cannot write to the store" if in_store else "cannot take it into the store"
        state = "Nothing half-written is kept in the store, and the venv is as it was."
        raise failure(error, doing, at=store.path, state=state) from error


@contextmanager
def _relinking(venv: str) -> Iterator[None]:
    """Explain an error that comes while the files of the venv at path *venv* become names of objects."""
    try:
        yield
    except OSError as error:
        state = "Every file of the venv holds what it held; some may be shared already."
        raise failure(error, "cannot share the files of the venv", at=venv, state=state) from error


def look_through(
    subject: Subject, known: Mapping[str, Stamped], walked: Sequence[Found] | None = None
) -> Survey:
    """Read the venv, but for what is *known*; it need not be *walked* again. Raises EnvironmentFailure."""
    matcher = subject.matcher
    if walked is not None and matcher is not None:
        walked = [*_entered(walked, matcher)]
    return survey(
        subject.path,
        subject.places,
        bytecode=subject.bytecode,
        known=known,
        excludes_file=matcher.excludes_file if matcher else None,
        excludes_directory=matcher.excludes_dir if matcher else None,
        walked=walked,
    )


def _entered(walked: Sequence[Found], matcher: Matcher) -> Iterator[Found]:
    """Yield what a walk finds that does not enter excluded directories."""
    closed: set[str] = set()
    for item in walked:
        inside = os.path.dirname(item.path) in closed
        if item.kind == "dir" and (inside or matcher.excludes_dir(item.path)):
            closed.add(item.path)
        if not inside:
            yield item


def _intake(subject: Subject, store: Store, *, built_here: bool) -> Intake:
    return Intake(
        store,
        subject.path,
        subject.interpreter,
        bytecode_key=bytecode_of(subject.interpreter),
        mode=_first_mode(subject, store) if not store.doubted else "copy",
        min_size=store.least_shared(subject.min_size),
        built_here=built_here,
    )


def bytecode_of(interpreter: Interpreter) -> str:
    """Return what two venvs must agree on to share bytecode: the same text that a key gives."""
    python = f"{interpreter.implementation} {interpreter.version}"
    return bytecode_id({"python": python, "abi": interpreter.abi})


def _first_mode(subject: Subject, store: Store) -> LinkMode:
    """Return the link mode that will work between the store and the venv, found out by trying it."""
    linker = Linker(subject.link)
    name = temporary_name()
    with store.objects.batch() as batch, directory(subject.path) as fd:
        mode = linker.place(batch.add_probe(), name, fd, executable=False)
        os.unlink(name, dir_fd=fd)
    return mode


def shared_receipt(shared: Shared, receipt: Receipt, interpreter: Interpreter, store: str) -> Receipt:
    """Return the receipt of a venv that is shared now, with the store at the path *store*."""
    manifest = shared.taken.manifest
    link = prevailing(shared.relinked.modes) or receipt.link or "copy"
    return replace(
        receipt,
        path=shared.subject.path,
        state="shared",
        python=interpreter.executable,
        trees=tuple(tree.digest for tree in manifest.trees),
        bound=manifest.bound,
        link=link,
        store=store if link == "symlink" else "",
        modes=shared.modes,
        private=shared.private,
        witness=witness_of(without_excluded(shared.looked.found.values(), shared.subject.matcher)),
        contents=_contents(shared, receipt),
        directories=watched(shared.subject.path, directories(shared.taken.entries)),
    )


def _contents(shared: Shared, receipt: Receipt) -> str:
    """Return the contents of a venv; what was not read now is as it was when its receipt was written."""
    digests = shared.looked.digests()
    if digests is not None:
        return encode_contents([*digests, *shared.private.items()])
    return receipt.contents if receipt.key else ""


def without_excluded(found: Iterable[Found], matcher: Matcher | None) -> Iterator[Found]:
    """Yield what a walk has found, but for the files that *matcher* excludes."""
    for item in found:
        if matcher is None or item.kind == "dir" or not matcher.excludes_file(item.path):
            yield item


def figures_of(shared: Shared, start: float) -> dict[str, int | float | str]:
    """Return counts, bytes and seconds since *start* (by the monotonic clock) for the outcome."""
    taken = shared.taken
    return {
        "files": sum(1 for entry in taken.entries.values() if entry.digest),
        "bytes": sum(entry.size for entry in taken.entries.values()),
        "new_objects": taken.new_objects,
        "new_bytes": taken.new_bytes,
        "adopted": taken.adopted,
        "adopted_bytes": taken.adopted_bytes,
        "compiled": taken.compiled,
        "uncompilable": taken.uncompilable,
        "excluded": shared.looked.excluded,
        "link": prevailing(shared.relinked.modes) or "copy",
        "seconds": time.monotonic() - start,
    }


_STAYS = "it stays in this venv alone, and is in no snapshot and no archive"


def warnings_of(shared: Shared) -> tuple[str, ...]:
    """Return what whoever shares a venv should know of it."""
    looked, relinked = shared.looked, shared.relinked
    notes: list[tuple[Sequence[str], str]] = [
        (relinked.kept, "changed while it was shared and stays private"),
        (relinked.attributed, "has extended attributes, which a link would not keep, and stays private"),
        (looked.special, "is a device, FIFO or socket and is not stored"),
        (looked.embedding, "is a binary file that contains the path it was built at"),
        (shared.secret, f"holds credentials: {_STAYS}"),
        (shared.hidden, f"cannot be read by other users: {_STAYS}"),
        (shared.unusual, "has setuid, setgid or world-writable bits, which are not kept"),
    ]
    return tuple(_note(paths, text) for paths, text in notes if paths)


def _note(paths: Sequence[str], text: str) -> str:
    more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
    return f"{shown(paths[0])}{more} {text}"


def _changing(name: str, path: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"{shown(path)} keeps changing",
        where=name,
        state="The venv is whole, nothing half-written is kept.",
        hint="Let what writes to the venv finish, then run again.",
    )
