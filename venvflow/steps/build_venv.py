"""``build-venv``: the configured builder makes the venv beside its place; it is relocated and swapped in."""

from __future__ import annotations

import glob
import os
import time
from functools import partial

from venvflow.builders import choose
from venvflow.builders.build import Build
from venvflow.builders.checks import drop, records_in, rewrite
from venvflow.disk import locks
from venvflow.disk.files import read_small, temporary_name
from venvflow.disk.places import directory_mtimes
from venvflow.disk.scan import lstat
from venvflow.disk.system_errors import explained
from venvflow.errors import BuildFailed, shown, some
from venvflow.model import Outcome, Receipt, Saved, Snapshot
from venvflow.pure.manifest import directories
from venvflow.pure.patterns import saved_by
from venvflow.pure.plan import plan
from venvflow.pure.redaction import redact
from venvflow.pure.relocate import Places, digest_of, fill, fill_link, find_in_record, is_record
from venvflow.state.confidential import closed, credentials, refuse_to_show
from venvflow.state.contents import encode_contents
from venvflow.state.file_stats import digest_of_found
from venvflow.state.recorded import broken_in, told
from venvflow.state.store import Store
from venvflow.state.survey import NAMING, Survey, survey
from venvflow.steps import claims
from venvflow.steps.facts import facts_of, find_venv
from venvflow.steps.hash_lockfiles import KeyNow
from venvflow.steps.job import Job
from venvflow.steps.new_venv import (
    check_new,
    errors_explained,
    put_in_place,
    same_inputs,
    unchanged,
)
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
            facts = facts_of(job, store, KeyNow(record, record), find_venv(job, store, "bytes"))
            actions = plan(facts)
            error = actions["restore"].error or actions["build-venv"].error
            if error is not None:
                raise error
            if actions["restore"].would == "nothing":
                return Outcome("kept", "it is what its key says")
        unfit = unfit_snapshot(job, record.key.digest)
        claim = None
        if not store.read_only:
            claim = claims.wait_for(job, store, record.key.digest, _finish_other, unfit=unfit)
        if isinstance(claim, Snapshot):
            with store.use():
                outcome = restore_locked(job, store, record)
            if outcome.did != "miss":
                return outcome
            claim = None
        try:
            with errors_explained(job):
                outcome = _build(job, store, record, (lock, claim))
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


def _finish_other(job: Job) -> None:
    """Publish what this process has built for another venv, whose own tasks may be waiting for a worker."""
    record = need_key(job)
    with job.locked(), job.open_store() as store, store.use():
        squish_locked(job, store, record)
        store_locked(job, store, record)


def _build(job: Job, store: Store, record: KeyRecord, held: tuple[locks.Lock, locks.Lock | None]) -> Outcome:
    start = time.monotonic()
    log = job.file("build.log")
    with job.place.staged() as venv:
        build = Build(
            job.spec, choose(job.spec, job.environ), job.root, venv, record.interpreter,
            job.environ, log, (job.place.guard, *(lock.fd for lock in held if lock is not None)),
            partial(job.meter.count, unit="package"),
        )  # fmt: skip
        with same_inputs(job, record):
            missing = build.run()
        _hide_credentials(venv)
        saved = _drop_excluded(job, venv)
        surveyed = _relocate(job, record, venv)
        refuse_to_show(venv, surveyed, store.path)
        # A wheel whose RECORD is wrong gives the same venv each time: it is told, and published.
        unlike = told(broken_in(venv, surveyed, job.matcher, job.place.path))
        warnings = [*missing, *_not_relocated(surveyed), *filter(None, [unlike])]
        _refuse_unfit(job, venv, log)
        receipt = _receipt(job, record, venv, surveyed, warnings)
        if job.spec.exclude:
            write_excluded(job, record.key.digest, saved)
        with store.use():
            kept_as = put_in_place(job, store, venv, receipt)
            if not store.read_only:  # only now are they the stamps of what is at the place
                _stamp(job, store, surveyed)
    if kept_as:
        warnings.append(f"the venv that was there is kept as {shown(kept_as)}")
    figures: dict[str, int | float | str] = {
        "files": len(surveyed.entries),
        "seconds": time.monotonic() - start,
        "log": log,
    }
    return Outcome("built", build.recipe.name, figures, tuple(warnings))


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


def _receipt(job: Job, record: KeyRecord, venv: str, surveyed: Survey, warnings: list[str]) -> Receipt:
    """Return the receipt of a new venv, which is not shared yet."""
    return Receipt(
        record.key.digest,
        job.place.path,
        "built",
        "built",
        record.interpreter.executable,
        bound=surveyed.bound,
        directories=directory_mtimes(venv, directories(surveyed.entries)),
        stats=digest_of_found(surveyed.found.values()),
        contents=encode_contents(surveyed.digests() or ()),
        warnings=tuple(warnings),
    )


def _not_relocated(surveyed: Survey) -> list[str]:
    """Warn of files that name local paths and were left as they are."""
    kinds = (
        (surveyed.embedding, "contains the path it was built at, which is gone"),
        (surveyed.naming, NAMING),
    )
    return [f"{shown(some(paths, 1))} {text}" for paths, text in kinds if paths]


def _relocate(job: Job, record: KeyRecord, venv: str) -> Survey:
    """Make every file name the venv's place instead of the staging path."""
    staged = Places(venv, job.root, record.interpreter.executable)
    final = job.places(record.interpreter)
    surveyed = survey(venv, staged, fresh=True, bytecode=job.spec.bytecode, progress=job.meter.count)
    digests: dict[str, tuple[bytes, int]] = {}
    for path, template in sorted(
        surveyed.templates.items(), key=lambda item: is_record(surveyed.entries[item[0]])
    ):
        data = fill(template.data, template.slots, final, digests)
        digests[path] = digest_of(data)
        surveyed.filled[path] = digests[path][0].hex()
        rewrite(f"{venv}/{path}", data, executable=surveyed.entries[path].executable)
        surveyed.found[path] = lstat(f"{venv}/{path}")._replace(path=path)
    for path, entry in surveyed.entries.items():
        if entry.kind == "link" and entry.slots:
            temporary = os.path.join(venv, os.path.dirname(path), temporary_name())
            os.symlink(fill_link(entry, final), temporary)
            os.rename(temporary, f"{venv}/{path}")
    return surveyed


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
