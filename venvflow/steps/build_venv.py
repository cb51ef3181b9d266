"""``build-venv``: the configured builder makes the venv beside its place; it is relocated and swapped in."""

from __future__ import annotations

import glob
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from venvflow.builders import choose
from venvflow.builders.build import Build
from venvflow.builders.checks import drop, records_in, rewrite
from venvflow.disk import locks
from venvflow.disk.files import read_small, temporary_name
from venvflow.disk.places import directory_mtimes
from venvflow.disk.scan import lstat, walk
from venvflow.disk.system_errors import explained
from venvflow.errors import BuildFailed, first_of, shown
from venvflow.model import Entry, Outcome, Receipt, Remembered, Saved, Snapshot
from venvflow.pure.manifest import directories
from venvflow.pure.patterns import saved_by
from venvflow.pure.plan import plan
from venvflow.pure.redaction import redact
from venvflow.pure.relocate import Places, digest_of, fill, fill_link, find_in_record, is_record
from venvflow.pure.sharing import time_of
from venvflow.state.carried import Built, Carried
from venvflow.state.changes import known_placed
from venvflow.state.confidential import closed, credentials, refuse_to_show
from venvflow.state.contents import encode_contents
from venvflow.state.file_stats import digest_of_stats, stats_of_found
from venvflow.state.intake import Intake, Precompiled
from venvflow.state.recorded import broken_in, told
from venvflow.state.store import Store
from venvflow.state.survey import EMBEDDING, NAMING, Survey, survey
from venvflow.steps import claims
from venvflow.steps.base import Base, Unsure, bases_for, came_of, carried_from, judge, lay
from venvflow.steps.facts import facts_of, find_replaceable, find_venv, why_not_replaced
from venvflow.steps.hash_lockfiles import KeyNow
from venvflow.steps.job import Job
from venvflow.steps.new_venv import (
    check_new,
    errors_explained,
    put_in_place,
    same_inputs,
    unchanged,
)
from venvflow.steps.noting import changed, noted, packages_at
from venvflow.steps.restore import restore_locked
from venvflow.steps.squish import squish_locked
from venvflow.steps.state_files import (
    KeyRecord,
    need_key,
    unfit_snapshot,
    write_answer,
    write_excluded,
)
from venvflow.steps.store import store_locked


def build_venv(job: Job) -> Outcome:
    """Build the job's venv, unless it is there already or somebody else has just built the same one.

    Answers ``kept``, ``hit`` or ``built``. Raises BuildFailed with the builder's last lines; the venv that
    was there before stays, whole, in that and in every other case of failure.
    """
    record = need_key(job)
    outcome = _build_unless_there(job, record)
    write_answer(job, record, hit=True, reason=outcome.did)
    return outcome


def _build_unless_there(job: Job, record: KeyRecord) -> Outcome:
    with job.locked() as lock, job.open_store() as store:
        with store.use():
            job.place.settle()
            # By each file it is looked at when it is about to be replaced, and before all that takes long.
            facts = facts_of(job, store, KeyNow(record, record), find_venv(job, store, "directories"))
            actions = plan(facts)
            error = actions["restore"].error or actions["build-venv"].error
            if error is not None:
                raise error
            if actions["restore"].would == "nothing":
                return Outcome("kept", "it is what its key says")
        unfit = unfit_snapshot(job, record.key.digest)
        claim = None
        if not store.read_only:
            claim = claims.wait_for(job, store, record.key.digest, finish_other, unfit=unfit)
        if isinstance(claim, Snapshot):
            with store.use():
                outcome = restore_locked(job, store, record)
            if outcome.did != "miss":
                return outcome
            claim = None
        try:
            with errors_explained(job):
                build = partial(_build, job, store, record, (lock, claim), nothing_of=unfit)
                outcome = noted("build-venv", job, store, build)
                if unfit:  # what was built of the same passes, so it was the snapshot that is bad
                    with store.use():
                        store.quarantine_snapshot(unfit)
        except BaseException:
            if claim is not None:
                claim.release()
            raise
        if claim is not None:
            claims.keep(record.key.digest, claim, job)
        return outcome


def finish_other(job: Job) -> None:
    """Publish what this process has built for another venv, whose own tasks may be waiting for a worker."""
    record = need_key(job)
    with job.locked(), job.open_store() as store, store.use():
        squish_locked(job, store, record)
        store_locked(job, store, record)


def _build(
    job: Job,
    store: Store,
    record: KeyRecord,
    held: tuple[locks.Lock, locks.Lock | None],
    *,
    nothing_of: str,
) -> Outcome:
    """Build from the nearest snapshot, and from nothing where there is none or that does not succeed.

    *nothing_of* is a snapshot for the same key that is no use: then nothing of the store is used.
    """
    start, warnings = time.monotonic(), tuple[str, ...]()
    with store.use():
        bases = bases_for(job, store, record) if not nothing_of else []
    for base in bases:
        try:
            return _build_from(job, store, record, held, base, start=start)
        except Unsure as error:
            warnings = _why_from_nothing(base, str(error))
        except BuildFailed as error:
            warnings = _why_from_nothing(base, error.what)
            break
    with store.use():
        obstacle = why_not_replaced(job, find_replaceable(job, store))
    if obstacle is not None:
        raise obstacle
    outcome = _build_from(job, store, record, held, None, start=start)
    return replace(outcome, warnings=(*outcome.warnings, *warnings))


def _why_from_nothing(base: Base, why: str) -> tuple[str, ...]:
    """Return the warning that says why a build did not start from its base; none if that is usual."""
    return (f"built from nothing, not from {base.names}: {shown(why)}",) if why else ()


def _build_from(
    job: Job,
    store: Store,
    record: KeyRecord,
    held: tuple[locks.Lock, locks.Lock | None],
    base: Base | None,
    *,
    start: float,
) -> Outcome:
    """Build the venv, from *base* if there is one, and put it in its place; it all began at *start*.

    Raises BuildFailed, and Unsure where it has to be built from nothing; nothing was put in place then.
    """
    log = job.file("build.log")
    with job.place.staged() as venv, ExitStack() as meanwhile:
        build = Build(
            job.spec, choose(job.spec, job.environ), job.root, venv, record.interpreter,
            job.environ, log, (job.place.guard, *(lock.fd for lock in held if lock is not None)),
            partial(job.meter.count, unit="package"),
        )  # fmt: skip
        with same_inputs(job, record):
            staged = Places(venv, job.root, record.interpreter.executable)
            missing = build.run(partial(lay, job, store, base, staged) if base else None)
        _hide_credentials(venv)
        saved = _drop_excluded(job, venv)
        surveyed, carried = _survey(job, staged, base)
        precompiled = Precompiled()
        if carried is not None:  # so that little came: squish does better with much, while files are copied
            precompiled = meanwhile.enter_context(_precompiling(job, store, record, venv, surveyed))
        _relocate(job.places(record.interpreter), venv, surveyed, carried)
        refuse_to_show(venv, surveyed, store.path)
        # A wheel whose RECORD is wrong gives the same venv each time: it is told, and published.
        unlike = told(
            broken_in(venv, surveyed, job.matcher, job.place.path, base.whole if base is not None else ())
        )
        warnings = [*missing, *_not_relocated(surveyed), *filter(None, [unlike])]
        _refuse_unfit(job, venv, log)
        receipt = _receipt(job, record, venv, (surveyed, carried), warnings)
        receipt = replace(receipt, build_seconds=time.monotonic() - start)
        if job.spec.exclude and base is None:  # what a base had left out is not known
            write_excluded(job, record.key.digest, saved)
        with store.use():
            before = packages_at(job, store)
            kept_as = put_in_place(job, store, venv, receipt)
            if not store.read_only:  # only now are they the stamps of what is at the place
                _stamp(job, store, surveyed)
                _pass_on(job, Built(receipt, job.place.inode(), surveyed, carried, precompiled))
    if kept_as:
        warnings.append(f"the venv that was there is kept as {shown(kept_as)}")
    figures: dict[str, int | float | str] = {
        "files": len(surveyed.entries) + (carried.files if carried is not None else 0),
        "seconds": time.monotonic() - start,
        "log": log,
    }
    by = build.recipe.name
    if base is not None:
        figures |= came_of(base, surveyed, carried)
        by += f" from {base.names}"
    after = {each.name: each.version for each in surveyed.distributions}
    if carried is not None:
        after |= {tree.name: tree.version for tree in carried.trees}
    return Outcome("built", by, figures, tuple(warnings), Remembered(packages=changed(before, after)))


def _refuse_unfit(job: Job, venv: str, log: str) -> None:
    """Raise BuildFailed for a new venv that does not pass its check."""
    wrong = check_new(job, venv)
    if wrong:
        raise BuildFailed(
            f"the venv was built, but {wrong}",
            where=job.spec.name,
            state=unchanged(job),
            hint="Fix the lock file or check: in the config, then run doit again.",
            log=log,
        )


def _receipt(
    job: Job, record: KeyRecord, venv: str, read: tuple[Survey, Carried | None], warnings: list[str]
) -> Receipt:
    """Return the receipt of a new venv, which is not shared yet."""
    surveyed, carried = read
    stats, digests = [*stats_of_found(surveyed.found.values())], surveyed.digests() or []
    made, known = {*directories(surveyed.entries)}, b""
    if carried is not None:
        stats += carried.stats(carried.made.written)
        known = carried.contents()
        made |= {*carried.made.directories}
    return Receipt(
        record.key.digest,
        job.place.path,
        "built",
        "built",
        record.interpreter.executable,
        bound=surveyed.bound,
        directories=directory_mtimes(venv, sorted(made)),
        stats=digest_of_stats(stats),
        contents=encode_contents(digests, known),
        warnings=tuple(warnings),
    )


def _not_relocated(surveyed: Survey) -> list[str]:
    """Warn of files that name local paths and were left as they are."""
    kinds = (surveyed.embedding, EMBEDDING), (surveyed.naming, NAMING)
    return [f"{first_of(paths)} {text}" for paths, text in kinds if paths]


def _survey(job: Job, staged: Places, base: Base | None) -> tuple[Survey, Carried | None]:
    """Survey what the builder put into the venv, and return what of *base* is carried over as it is.

    Where that may not be, all is surveyed; what the base brought is not read. Raises Unsure if it is not
    known whether that is what a fresh build gives.
    """
    venv = staged.venv
    carried = carried_from(base, venv) if base is not None else None
    while True:
        found = walk(venv) if carried is None else carried.came
        placed = base.laid.placed if base is not None and carried is None else {}
        surveyed = survey(
            venv, staged, fresh=True,
            bytecode=job.spec.bytecode, progress=job.meter.count, found=found,
            known=known_placed(placed, found),
        )  # fmt: skip
        if base is None or judge(base, venv, surveyed, carried):
            return surveyed, carried
        carried = None


def _relocate(final: Places, venv: str, surveyed: Survey, carried: Carried | None) -> None:
    """Make every file name the venv's *final* place instead of the staging path."""
    digests: dict[str, tuple[bytes, int]] = {}
    if carried is not None:
        _relocate_carried(final, venv, carried)
    for path, template in sorted(
        surveyed.templates.items(), key=lambda item: is_record(surveyed.entries[item[0]])
    ):
        data = fill(template.data, template.slots, final, digests)
        digests[path] = digest_of(data)
        surveyed.filled[path] = digests[path][0].hex()
        rewrite(f"{venv}/{path}", data, executable=surveyed.entries[path].executable)
        surveyed.found[path] = lstat(f"{venv}/{path}")._replace(path=path)
    for entry in surveyed.entries.values():
        if entry.kind == "link" and entry.slots:
            _link_again(venv, entry, final)


def _relocate_carried(final: Places, venv: str, carried: Carried) -> None:
    """Do the same to what is carried over: its templates are known."""
    digests: dict[str, tuple[bytes, int]] = {}
    own = (carried.made.own[path].entry for path in carried.made.templates)
    for entry in sorted(own, key=is_record):
        data = fill(carried.made.templates[entry.path], entry.slots, final, digests)
        digests[entry.path] = digest_of(data)
        carried.filled[entry.path] = digests[entry.path][0].hex(), len(data)
        rewrite(f"{venv}/{entry.path}", data, executable=entry.executable)
        time = time_of(entry, carried.made.written)
        os.utime(f"{venv}/{entry.path}", ns=(time, time), follow_symlinks=False)
    for entry in carried.entries:
        if entry.kind == "link" and entry.slots:
            _link_again(venv, entry, final)


def _link_again(venv: str, entry: Entry, final: Places) -> None:
    temporary = os.path.join(venv, os.path.dirname(entry.path), temporary_name())
    os.symlink(fill_link(entry, final), temporary)
    os.rename(temporary, f"{venv}/{entry.path}")


def _drop_excluded(job: Job, venv: str) -> list[Saved]:
    """Delete excluded files of the new venv, so that a built one equals a restored one.

    Return what that saves.
    """
    matcher = job.matcher
    if matcher is None:
        return []
    return saved_by(drop(venv, matcher.excludes_file, matcher.excludes_dir), matcher)


_NOTED_URLS = (
    "lib/*/site-packages/*.dist-info/direct_url.json",
    *(f"src/*/.git/{name}" for name in ("config", "FETCH_HEAD", "logs/**")),
)
"""Where installers, and the repositories that they clone, note where things came from."""


def _hide_credentials(venv: str) -> None:
    """Take credentials out of what is noted of URLs: the venv will be shared, stored and packed."""
    digests: dict[str, tuple[bytes, int]] = {}
    for pattern in _NOTED_URLS:
        for file in glob.iglob(f"{glob.escape(venv)}/{pattern}", recursive=True):
            if not os.path.isfile(file) or os.path.islink(file):
                continue
            text = os.fsdecode(read_small(file))
            clean = redact(text)
            if clean != text:
                path = os.path.relpath(file, venv)
                rewrite(file, os.fsencode(clean))
                digests[path] = digest_of(os.fsencode(clean))
    for record in records_in(venv) if digests else ():
        template = find_in_record(record, read_small(f"{venv}/{record}"), digests)
        if template is not None:
            filled = fill(template.data, template.slots, Places(venv, venv, venv), digests)
            rewrite(f"{venv}/{record}", filled)


@contextmanager
def _precompiling(
    job: Job, store: Store, record: KeyRecord, venv: str, surveyed: Survey
) -> Iterator[Precompiled]:
    """Compile what came while the venv is completed and put in its place: nobody needs to wait for that."""
    if job.spec.bytecode != "canonical":
        yield Precompiled()
        return
    intake = Intake(
        store, venv, record.interpreter, mode="copy", min_size=job.spec.min_size, built_here=True,
        excluded=job.matcher.excludes_file if job.matcher else lambda _path: False,
        progress=job.meter.count,
    )  # fmt: skip
    with store.use(), intake.precompiling(surveyed) as precompiled:
        yield precompiled


def _stamp(job: Job, store: Store, surveyed: Survey) -> None:
    """Keep what was read for squish: templates in the store, stamps in the index."""
    private = {*credentials(job.place.path, surveyed), *closed(surveyed)}
    state = "The new venv is in its place, and not shared yet."
    with explained("cannot write to the store", at=store.path, state=state), store.objects.batch() as batch:
        for path, template in surveyed.templates.items():
            if path not in private:
                batch.add_bytes(template.data)
        batch.publish()
    store.index.set_stamps(job.place.path, surveyed.stamped())


def _pass_on(job: Job, built: Built) -> None:
    """Keep what is known of the venv for squish, if that comes in this process: then it need not look again.

    What is told of a build is told once. Where venvs are built one after the other and not shared, only what
    is known of the last ones is kept: of a large one that is megabytes.
    """
    built.survey.embedding.clear()
    built.survey.naming.clear()
    job.built.clear()
    job.built[built.receipt.key] = built
    with _kept_lock:
        _kept.append(job.built)
        while len(_kept) > _MOST_KEPT:
            _kept.popleft().clear()


_MOST_KEPT = 4
_kept: deque[dict[str, Built]] = deque()
_kept_lock = threading.Lock()
