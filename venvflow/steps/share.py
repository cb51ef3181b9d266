"""Shares a venv, whatever made it: its files become objects of the store, its names links to them."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from venvflow.disk import interpreters
from venvflow.disk.attributes import modes_of, times_of
from venvflow.disk.descriptors import directory
from venvflow.disk.files import temporary_name
from venvflow.disk.links import Linker, prevailing
from venvflow.disk.objects import object_name
from venvflow.disk.occupants import occupants
from venvflow.disk.places import Place, directory_mtimes, write_receipt
from venvflow.disk.scan import Changing, Found, walk
from venvflow.disk.system_errors import explained, failure, path_of
from venvflow.errors import EnvironmentFailure, Refused, shown
from venvflow.model import Entry, Interpreter, LinkMode, Outcome, Receipt
from venvflow.pure.manifest import Corrupt, directories
from venvflow.pure.sharing import settings_of, stays_private
from venvflow.state.changes import Known, drift_of, is_object, known_of, without_excluded
from venvflow.state.confidential import Withheld, withhold
from venvflow.state.contents import encode_contents
from venvflow.state.file_stats import digest_of_found, look_as_made
from venvflow.state.index import Stamped
from venvflow.state.intake import Intake, Taken
from venvflow.state.reader import StoreReader
from venvflow.state.recorded import broken_in, told
from venvflow.state.registry import Registration
from venvflow.state.relink import Relinked, Relinker
from venvflow.state.store import Store
from venvflow.state.survey import NAMING, Survey, survey, unusual_modes
from venvflow.state.usage import Ledger
from venvflow.steps.any_venv import in_use
from venvflow.steps.facts import FoundVenv, why_not_published, why_not_written
from venvflow.steps.job import Job
from venvflow.steps.lock_part import LockPart

OnFile = Callable[[str, str], None]
"""Is called with the path of each file, below the venv, and what became of it."""


def share(
    job: Job,
    store: Store,
    receipt: Receipt,
    *,
    interpreter: Interpreter | None = None,
    ledger: Ledger | None = None,
    on_file: OnFile | None = None,
    part: LockPart | None = None,
    by_records: bool = False,
) -> Outcome:
    """Share the job's venv: ``squished``, or ``kept`` when that was done and nothing changed since.

    *receipt* says what is known of the venv (see :func:`receipt_of_unknown`), *interpreter* is the venv's
    (None: the venv is run to find it). *ledger* counts the venv before it changes and after. *part* is what
    is to be shared of a venv that is taken: the rest stays as it is, a change by hand. *by_records*: nothing
    but its RECORDs says what should be in it. Venv and store are held by the caller, who has seen that
    the venv is what its receipt says.

    The store knows of the venv before any name becomes a link: a venv of symlinks needs its objects from then
    on, even if a trim comes after a kill. Raises Refused when sharing it would not be safe, or when its
    RECORDs say that it is not whole, EnvironmentFailure when venv or store cannot be read or written; every
    file of the venv holds what it held then.
    """
    start = time.monotonic()
    if (error := why_not_written(job, store)) is not None:
        raise error
    store.objects.drop_litter()
    venv = job.place.path
    found = [*without_excluded(walk(venv), job.matcher)] if receipt.state == "shared" else []
    if _is_settled(job, store, receipt, found):
        return Outcome("kept", "nothing changed since it was shared", {"seconds": time.monotonic() - start})
    python = interpreter or interpreter_of(job)
    if ledger is not None:
        ledger.open(venv)
    users = occupants(venv) if receipt.made != "built" else []
    known = known_of(store, receipt, found) if receipt.is_at(venv) else Known({})
    with _explained(job, store):
        part = part or LockPart(venv, survey_venv(job, python, known.stamped))
        if by_records:
            receipt = replace(receipt, warnings=_accepted(job, receipt, part.survey))
        shared = _share(job, store, receipt, python, part, known=known, on_file=on_file)
    fresh = shared_receipt(shared, receipt, python, store.path)
    _register(job, store, fresh)
    write_receipt(venv, fresh, sync=store.durable)  # until then the stamps say what is whose
    store.index.set_stamps(venv, {})
    accepted = receipt.warnings if by_records else ()
    return Outcome("squished", "", _figures(shared, start), (*accepted, *_warnings(shared, receipt, users)))


def receipt_of_unknown(place: Place) -> Receipt:
    """Return the receipt of a venv that is not known: no key says what is in it."""
    return Receipt("", place.path, "built", "shared")


# --------------------------------------------------------------------------- how it is done


@dataclass(frozen=True, slots=True)
class _Shared:
    """What sharing a venv gave: what was read, what the store got and what it did not, what files became.

    *modes* and *times* are those that they had, as a receipt notes them; *unusual* files have bits that are
    not kept.
    """

    job: Job
    part: LockPart
    withheld: Withheld
    taken: Taken
    relinked: Relinked
    modes: dict[str, int]
    times: dict[str, int]
    unusual: tuple[str, ...]

    @property
    def surveyed(self) -> Survey:
        """Return what was read and shared."""
        return self.part.survey

    @property
    def private(self) -> dict[str, str]:
        """Return the files that stay in this venv alone, with the SHA-256 of their bytes."""
        return self.withheld.digests | self.part.own


def _share(
    job: Job,
    store: Store,
    receipt: Receipt,
    python: Interpreter,
    part: LockPart,
    *,
    known: Known,
    on_file: OnFile | None,
) -> _Shared:
    """Give the venv's files to the store and link their names; what is *known* was not read."""
    venv, spec, surveyed = job.place.path, job.spec, part.survey
    withheld = withhold(venv, surveyed, store.path, whole=bool(receipt.key))
    found = [surveyed.found[path] for path in surveyed.entries if path in surveyed.found]
    digests = {path: entry.digest for path, entry in surveyed.entries.items() if entry.digest}
    modes = modes_of(found, digests, receipt.modes if receipt.trees else None)
    times = {} if receipt.key else times_of(found, digests, receipt.times)
    unusual = tuple(unusual_modes(surveyed))
    intake = Intake(
        store, venv, python, mode=_first_mode(job, store), min_size=store.smallest_shared(spec.min_size),
        built_here=receipt.made == "built", private=job.keeps_private, progress=job.meter.count,
        excluded=job.matcher.excludes_file if job.matcher else lambda _path: False,
    )  # fmt: skip
    taken = intake.take(surveyed, bytecode=spec.bytecode, sound=known.sound)
    link = "symlink" if "symlink" in spec.link else ""
    _register(job, store, replace(receipt, trees=taken.trees, link=link, bound=taken.manifest.bound))
    relinker = Relinker(
        store.objects, venv, Linker(spec.link), min_size=store.smallest_shared(spec.min_size),
        origins=taken.origins, own=taken.own, adopted=store.adopted(), linked=known.linked,
        private=job.keeps_private,
        on_file=on_file or _counting(job, taken.entries.values()),
    )  # fmt: skip
    state = "Every file of the venv holds what it held; some may be shared already."
    with explained("cannot share the files of the venv", at=venv, state=state):
        theirs = {path: entry for path, entry in taken.entries.items() if path not in part.edited}
        relinked = relinker.relink(theirs, surveyed.found)
    return _Shared(job, part, withheld, taken, relinked, modes, times, unusual)


def _is_settled(job: Job, store: StoreReader, receipt: Receipt, found: list[Found]) -> bool:
    """Return whether the venv was shared in this store, in this way, and looks as it did then."""
    registration = store.registration(job.place.path)
    return (
        receipt.state == "shared"
        and registration is not None
        and receipt.settings == settings_of(job.spec)
        and registration.trees == receipt.trees
        and look_as_made(found, receipt)
        and all(store.has_tree(digest) for digest in receipt.trees)
        and (receipt.link != "hardlink" or _is_linked_here(store, receipt, found, job.spec.min_size))
    )


def _is_linked_here(store: StoreReader, receipt: Receipt, found: list[Found], min_size: int) -> bool:
    """Return whether a linked file is an object of this store, not of one that was here before.

    One is enough: a venv is linked to one store. Only the first tree that has files to share is read.
    """
    files = {item.path: item for item in found if item.kind == "file"}
    copies = frozenset(receipt.copies)
    with suppress(Corrupt):
        for digest in receipt.trees:
            entries = store.tree(digest).entries
            files_of_it = (each for each in entries if each.kind == "file" and each.path not in copies)
            shared = [each for each in files_of_it if not stays_private(each, min_size)]
            if shared:
                known = (each for each in shared if each.path in files)
                return any(is_object(store, object_name(each), files[each.path]) for each in known)
        return True
    return False


def survey_venv(job: Job, python: Interpreter, known: Mapping[str, Stamped]) -> Survey:
    """Read the venv, but for what is *known*. Raises EnvironmentFailure."""
    matcher = job.matcher
    return survey(
        job.place.path,
        job.places(python),
        bytecode=job.spec.bytecode,
        known=known,
        excludes_file=matcher.excludes_file if matcher else None,
        excludes_directory=matcher.excludes_dir if matcher else None,
        progress=job.meter.count,
    )


def interpreter_of(job: Job) -> Interpreter:
    """Ask the venv's own interpreter what it is. Raises EnvironmentFailure."""
    place = job.place
    try:
        return interpreters.resolve(f"{place.path}/bin/python", root=place.parent, environ=job.environ)
    except EnvironmentFailure as error:
        raise EnvironmentFailure(
            error.what,
            where=shown(place.path),
            state="Nothing was changed.",
            hint="Install that interpreter again, or make the venv anew.",
        ) from error


def _first_mode(job: Job, store: Store) -> LinkMode:
    """Return the link mode that will work between the store and the venv, found out by trying it."""
    if store.untrusted:
        return "copy"
    name = temporary_name()
    with store.objects.batch() as batch, directory(job.place.path) as fd:
        mode = Linker(job.spec.link).place(batch.add_probe(), name, fd, executable=False, mtime_ns=0)
        os.unlink(name, dir_fd=fd)
    return mode


def _counting(job: Job, entries: Iterable[Entry]) -> OnFile:
    """Return what counts the files among *entries* that are linked, for the person who waits."""
    files = sum(1 for entry in entries if entry.kind in ("file", "template"))
    numbers = itertools.count(1)
    return lambda _path, _how: job.meter.count("linking", next(numbers), files)


def _register(job: Job, store: Store, receipt: Receipt) -> None:
    """Tell the store which trees the venv needs, and by which links, in place of what was known of it.

    Whose it is stays known of a venv that doit made for a config that is not ours.
    """
    if receipt.key and job.spec.name:
        job.register(store, receipt.key, link=receipt.link, trees=receipt.trees, bound=receipt.bound)
        return
    place = job.place
    known = store.registration(place.path) if receipt.key else None
    blank = Registration(
        path=place.path, project="", name="", key=receipt.key, place="", link=receipt.link,
        trees=receipt.trees, inode=place.inode(), seen=job.now(),
    )  # fmt: skip
    if known is not None:
        blank = replace(blank, project=known.project, name=known.name, place=known.place)
    store.register(blank)


# --------------------------------------------------------------------------- what came of it


def shared_receipt(shared: _Shared, receipt: Receipt, python: Interpreter, store: str) -> Receipt:
    """Return the receipt of a venv that is shared now, with the store at the path *store*."""
    venv, taken = shared.job.place.path, shared.taken
    link = prevailing(shared.relinked.modes) or receipt.link or "copy"
    return replace(
        receipt,
        path=venv,
        state="shared",
        python=python.executable,
        trees=taken.trees,
        bound=taken.manifest.bound,
        link=link,
        store=store if link == "symlink" else "",
        modes=shared.modes,
        times=shared.times,
        private=shared.private,
        settings=settings_of(shared.job.spec),
        copies=shared.job.copies(taken.entries.values()),
        stats=digest_of_found(without_excluded(shared.surveyed.found.values(), shared.job.matcher)),
        contents=_contents(shared, receipt),
        # What lies beyond the lock is told by every run: the next one is to look for it.
        directories={"bin": 0} if shared.part.beyond else directory_mtimes(venv, directories(taken.entries)),
    )


def _contents(shared: _Shared, receipt: Receipt) -> str:
    """Return the contents of a venv; what was not read now is as it was when its receipt was written."""
    digests = shared.surveyed.digests()
    if digests is not None:
        return encode_contents([*digests, *shared.private.items()])
    return receipt.contents if receipt.key else ""


def _figures(shared: _Shared, start: float) -> dict[str, int | float | str]:
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
        "excluded": shared.surveyed.excluded,
        "link": prevailing(shared.relinked.modes) or "copy",
        "seconds": time.monotonic() - start,
    }


_STAYS = "it stays in this venv only, not in snapshots or archives"


def _warnings(shared: _Shared, receipt: Receipt, users: list[int]) -> tuple[str, ...]:
    """Return what a user should know who shares a venv; *users* are the processes that use it."""
    surveyed, relinked = shared.surveyed, shared.relinked
    notes: list[tuple[Sequence[str], str]] = [
        (relinked.kept, "changed while it was shared and stays private"),
        (relinked.attributed, "has extended attributes, which a link would not keep, and stays private"),
        (surveyed.special, "is a device, FIFO or socket and is not stored"),
        (surveyed.naming if receipt.key else (), NAMING),
        (surveyed.embedding, "is a binary file that contains the path it was built at"),
        (shared.withheld.secret, f"holds credentials: {_STAYS}"),
        (shared.withheld.hidden, f"cannot be read by other users: {_STAYS}"),
        (shared.unusual, "has setuid, setgid or world-writable bits, which are not kept"),
    ]
    warnings = [
        f"{shown(paths[0])}{f' (and {len(paths) - 1} more)' if len(paths) > 1 else ''} {text}"
        for paths, text in notes
        if paths
    ]
    if users:
        warnings.append(in_use(users))
    if shared.taken.uncompilable and not receipt.key:
        warnings.append(f"{shared.taken.uncompilable} of its sources do not compile and were left alone")
    return (*warnings,)


# --------------------------------------------------------------------------- what went wrong


def refuse_to_publish(job: Job, store: Store, receipt: Receipt) -> None:
    """Raise why the venv is not what its key says any more, if it is not.

    The next ``restore`` is to look through a venv that is not whole: no directory showed what is missing, or
    it would have been restored before.
    """
    venv = FoundVenv("ours", receipt, drift_of(job.place.path, receipt, store, job.matcher))
    error = why_not_published(job, venv)
    if error is None:
        return
    if not venv.drift.by_hand:
        write_receipt(job.place.path, replace(receipt, directories={"bin": 0}))
    raise error


def _accepted(job: Job, receipt: Receipt, surveyed: Survey) -> tuple[str, ...]:
    """Return in words how the venv is not what its RECORDs say, or raise Refused if it must not be so.

    An edit is a venv's own affair as long as nobody else gets it. A file that is gone is damage, unless that
    is meant: then the job is forced.
    """
    broken = broken_in(job.place.path, surveyed, job.matcher)
    if not job.force and any(receipt.key or each.missing for each in broken):
        others = " and was not stored: others would get it like that" if receipt.key else ""
        raise Refused(
            f"the venv is {told(broken)}",
            where=job.where,
            state=f"It was left as it is{others}.",
            hint="Install these packages again, or use --force if that is meant.",
        )
    return (told(broken),) if broken else ()


@contextmanager
def _explained(job: Job, store: Store) -> Iterator[None]:
    """Explain an error that comes while files are read and go into the store."""
    try:
        yield
    except Changing as error:
        raise EnvironmentFailure(
            f"{shown(str(error))} keeps changing",
            where=job.spec.name or shown(job.place.path),
            state="The venv is whole, nothing half-written is kept.",
            hint="Let what writes to the venv finish, then run again.",
        ) from error
    except OSError as error:
        in_store = f"{path_of(error, store.path)}/".startswith(f"{store.path}/")
        doing = "cannot write to the store" if in_store else "cannot take it into the store"
        state = "Nothing half-written is kept in the store, and the venv is as it was."
        raise failure(error, doing, at=store.path, state=state) from error
