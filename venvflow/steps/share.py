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
from venvflow.disk.scan import Changing, Found
from venvflow.disk.system_errors import explained, failure, path_of
from venvflow.errors import EnvironmentFailure, Refused, first_of, shown
from venvflow.model import Entry, Interpreter, Manifest, Outcome, Receipt
from venvflow.pure.manifest import Corrupt, directories
from venvflow.pure.sharing import is_written, settings_of, stays_private, time_of
from venvflow.state import needs
from venvflow.state.carried import Built, Carried
from venvflow.state.changes import (
    Known,
    Seen,
    drift_of,
    is_object,
    known_of,
    look_at,
    without_excluded,
)
from venvflow.state.confidential import Withheld, withhold
from venvflow.state.contents import encode_contents
from venvflow.state.file_stats import digest_of_stats, look_as_made, stats_of_found
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
    seen: Seen | None = None,
    built: Built | None = None,
) -> Outcome:
    """Share the job's venv: ``squished``, or ``kept`` when that was done and nothing changed since.

    *receipt* says what is known of the venv (see :func:`receipt_of_unknown`), *interpreter* is the venv's
    (None: the venv is run to find it). *ledger* counts the venv before it changes and after. *part* is what
    is to be shared of a venv that is taken: the rest stays as it is, a change by hand. *by_records*: nothing
    but its RECORDs says what should be in it. Venv and store are held by the caller, who has seen that
    the venv is what its receipt says, and may have *seen* all of it just now. *built*: this process has built
    it, knows it, and it is that still.

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
    if built is None:
        seen = seen or look_at(venv, receipt, store)
    if seen and _is_settled(job, store, receipt, [*without_excluded(seen.found, job.matcher)]):
        return Outcome("kept", "nothing changed since it was shared", {"seconds": time.monotonic() - start})
    python = interpreter or interpreter_of(job)
    if ledger is not None:
        ledger.open(venv)
    users = occupants(venv) if receipt.made != "built" else []
    known = known_of(store, receipt, seen) if seen and receipt.is_at(venv) else Known({})
    with _explained(job, store):
        if built is not None:
            part = LockPart(venv, built.survey)
        elif part is None:
            part = LockPart(venv, survey_venv(job, python, known.stamped, seen.found if seen else None))
        if by_records:
            receipt = replace(receipt, warnings=_accepted(job, receipt, part.survey))
        shared = _share(job, store, receipt, python, part, known=known, built=built, on_file=on_file)
    fresh = shared_receipt(shared, receipt, python, store.path)
    job.manifests.clear()
    job.manifests[fresh.trees] = shared.taken.manifest, store.objects.times()
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

    *modes*, *times* and *written* are as a receipt notes them; *unusual* files have bits that are not kept.
    What is *carried* was shared before: of what was taken, only the manifest has it.
    """

    job: Job
    part: LockPart
    withheld: Withheld
    taken: Taken
    relinked: Relinked
    modes: dict[str, int]
    times: dict[str, int]
    written: int
    unusual: tuple[str, ...]
    carried: Carried | None

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
    built: Built | None,
    on_file: OnFile | None,
) -> _Shared:
    """Give the venv's files to the store and link their names; what is *known* was not read.

    What is carried over in a venv that was *built* just now is there already, and gets no more than the time
    of the others that are written for it.
    """
    venv, spec, surveyed = job.place.path, job.spec, part.survey
    carried = built.carried if built is not None else None
    withheld = withhold(venv, surveyed, store.path, whole=bool(receipt.key))
    found = [surveyed.found[path] for path in surveyed.entries if path in surveyed.found]
    digests = {path: entry.digest for path, entry in surveyed.entries.items() if entry.digest}
    modes = modes_of(found, digests, receipt.modes if receipt.trees else None)
    given = {
        path: time_of(entry, receipt.written) for path, entry in surveyed.entries.items() if entry.digest
    }
    times = {} if receipt.key else times_of(found, given, receipt.times)
    written = _newest_written(surveyed, carried)
    unusual = tuple(unusual_modes(surveyed))
    linker = _tried_linker(job, store)
    intake = Intake(
        store, venv, python, mode="copy" if store.untrusted else linker.mode,
        min_size=store.smallest_shared(spec.min_size),
        built_here=receipt.made == "built", private=job.keeps_private, progress=job.meter.count,
        excluded=job.matcher.excludes_file if job.matcher else lambda _path: False,
    )  # fmt: skip
    relinked, done, numbers = Relinked(), set[str](), itertools.count(1)

    def link_names(taken: Taken) -> None:
        """Let names become links to objects that the store has by now, if they are not yet."""
        theirs = {
            path: entry
            for path, entry in taken.entries.items()
            if path not in part.edited and path not in done
        }
        done.update(theirs)
        relinker = Relinker(
            store.objects, venv, linker, min_size=store.smallest_shared(spec.min_size),
            origins=taken.origins, own=taken.own, adopted={**store.adopted(), **taken.shared},
            linked={*known.linked, *taken.linked}, written=written, private=job.keeps_private,
            on_file=on_file or _counting(job, numbers, taken.entries.values()),
        )  # fmt: skip
        with explained("cannot share the files of the venv", at=venv, state=_HOLDS):
            relinked.add(relinker.relink(theirs, surveyed.found))

    # A venv needs the objects of its symlinks, of which a file with too many names becomes one, too: so the
    # store has to know of it before. In one that is somebody's own, nothing is touched before all is in the
    # store: only its receipt will know which times files had.
    early = link_names if receipt.made == "built" and "symlink" not in spec.link else None
    taken = intake.take(
        surveyed, bytecode=spec.bytecode, sound=known.sound,
        precompiled=built.precompiled if built is not None else None, meanwhile=early,
    )  # fmt: skip
    if carried is not None:
        trees = sorted((*taken.manifest.trees, *carried.trees), key=lambda tree: (tree.name, tree.version))
        taken.manifest = Manifest((*trees,), taken.manifest.bound)
    link = "symlink" if "symlink" in spec.link else ""
    _register(job, store, replace(receipt, trees=taken.trees, link=link, bound=taken.manifest.bound))
    link_names(taken)
    with explained("cannot share the files of the venv", at=venv, state=_HOLDS):
        if carried is not None:
            _count_carried(relinked, carried)
            with directory(venv) as fd:
                for path in carried.written:
                    os.utime(path, ns=(written, written), dir_fd=fd, follow_symlinks=False)
    return _Shared(job, part, withheld, taken, relinked, modes, times, written, unusual, carried)


_HOLDS = "Every file of the venv holds what it held; some may be shared already."


def _count_carried(relinked: Relinked, carried: Carried) -> None:
    for mode, number in carried.made.modes.items():
        relinked.modes[mode] = relinked.modes.get(mode, 0) + number


def _newest_written(surveyed: Survey, carried: Carried | None) -> int:
    """Return the newest mtime (nanoseconds, 0 for none) of files that were written for the venv alone.

    All of them get it: what somebody made later from the venv is still newer, and what was made before it was
    brought to its lock is not.
    """
    entries = (entry for path, entry in surveyed.entries.items() if path in surveyed.found)
    times = (surveyed.found[each.path].stamp.mtime_ns for each in entries if is_written(each))
    return max(times, default=carried.made.written if carried is not None and carried.written else 0)


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


def survey_venv(
    job: Job, python: Interpreter, known: Mapping[str, Stamped], found: Iterable[Found] | None = None
) -> Survey:
    """Read the venv, but for what is *known*; *found* is what a walk has found in it just now, if one has.

    Raises EnvironmentFailure.
    """
    matcher = job.matcher
    return survey(
        job.place.path,
        job.places(python),
        bytecode=job.spec.bytecode,
        found=found,
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


def _tried_linker(job: Job, store: Store) -> Linker:
    """Return what links the venv's files, and knows which mode works between the store and the venv."""
    linker = Linker(job.spec.link)
    if not store.untrusted:
        name = temporary_name()
        with store.objects.batch() as batch, directory(job.place.path) as fd:
            linker.place(batch.add_probe(), name, fd, executable=False, mtime_ns=0)
            os.unlink(name, dir_fd=fd)
        linker.used.clear()
    return linker


def _counting(job: Job, numbers: Iterator[int], entries: Iterable[Entry]) -> OnFile:
    """Return what gives *numbers* to the files among *entries* as they are linked, for who waits."""
    files = sum(1 for entry in entries if entry.kind in ("file", "template"))
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
    venv, taken, carried = shared.job.place.path, shared.taken, shared.carried
    stats = [*stats_of_found(without_excluded(shared.surveyed.found.values(), shared.job.matcher))]
    made = {*directories(taken.entries)}
    if carried is not None:
        stats += carried.stats(shared.written)
        made |= {*carried.made.directories}
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
        written=shared.written,
        needs=needs.remember(venv, shared.job.root, python.cache_tag) if receipt.key else (),
        settings=settings_of(shared.job.spec),
        copies=shared.job.copies(entry for tree in taken.manifest.trees for entry in tree.entries),
        stats=digest_of_stats(stats),
        contents=_contents(shared, receipt),
        # What lies beyond the lock is told by every run: the next one is to look for it.
        directories={"bin": 0} if shared.part.beyond else directory_mtimes(venv, sorted(made)),
    )


def _contents(shared: _Shared, receipt: Receipt) -> str:
    """Return the contents of a venv; what was not read now is as it was when its receipt was written."""
    digests = shared.surveyed.digests()
    if digests is not None:
        known = shared.carried.contents() if shared.carried is not None else b""
        return encode_contents([*digests, *shared.private.items()], known)
    return receipt.contents if receipt.key else ""


def _figures(shared: _Shared, start: float) -> dict[str, int | float | str]:
    """Return counts, bytes and seconds since *start* (by the monotonic clock) for the outcome."""
    taken = shared.taken
    entries = [entry for tree in taken.manifest.trees for entry in tree.entries]
    return {
        "files": sum(1 for entry in entries if entry.digest),
        "bytes": sum(entry.size for entry in entries),
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
    warnings = [f"{first_of(paths)} {text}" for paths, text in notes if paths]
    if users:
        warnings.append(in_use(users))
    if shared.taken.uncompilable and not receipt.key:
        warnings.append(f"{shared.taken.uncompilable} of its sources do not compile and were left alone")
    return (*warnings,)


# --------------------------------------------------------------------------- what went wrong


def still_built(job: Job, store: StoreReader, receipt: Receipt) -> Built | None:
    """Return what this process knows of the venv that it has built, None if the venv may be another by now.

    That its directories and the files that were read look as they did will do: what was carried over are
    objects of the store, and the snapshot says what they were. An edit of one shows when it is looked for.
    """
    built = job.built.pop(receipt.key, None)
    if built is None or receipt.state != "built" or built.inode != job.place.inode():
        return None
    if (receipt.stats, receipt.contents) != (built.receipt.stats, built.receipt.contents):
        return None
    carried = built.carried.trees if built.carried is not None else ()
    with suppress(OSError):
        if job.place.has_same_directories(receipt) and built.is_as_read(job.place.path):
            return built if all(store.has_tree(tree.digest) for tree in carried) else None
    return None


def refuse_to_publish(job: Job, store: Store, receipt: Receipt) -> Seen:
    """Raise why the venv is not what its key says any more, if it is not; return what was seen of it.

    The next ``restore`` is to look through a venv that is not whole: no directory showed what is missing, or
    it would have been restored before.
    """
    seen = look_at(job.place.path, receipt, store)
    drift = drift_of(job.place.path, receipt, store, job.matcher, seen=seen)
    venv = FoundVenv("ours", receipt, drift)
    error = why_not_published(job, venv)
    if error is None:
        return seen
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
        state = "Nothing half-written is kept in the store, and every file of the venv holds what it held."
        raise failure(error, doing, at=store.path, state=state) from error
