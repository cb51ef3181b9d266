"""``restore``: brings the whole venv to its place on a hit; a miss says why and changes nothing."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from shlex import quote

from venvflow.disk.bytecode import Source, can_be_compiled, compile_sources, is_source, pyc_path
from venvflow.disk.links import Linker
from venvflow.disk.places import directory_mtimes, write_receipt
from venvflow.errors import BuildFailed, shown
from venvflow.model import Interpreter, Manifest, Outcome, Receipt, Remembered, Snapshot
from venvflow.pure.manifest import Corrupt
from venvflow.pure.plan import FRESH, VenvFacts, plan, without
from venvflow.pure.sharing import settings_of
from venvflow.pure.units import show_duration, show_size
from venvflow.state import notes
from venvflow.state.changes import Drift, give_bytecode_back, give_stats_back, summary, told_newer
from venvflow.state.contents import encode_contents
from venvflow.state.file_stats import digest_of_stats, forget_stats, suspect_venvs
from venvflow.state.materialise import Damaged, Materialised, Materialiser
from venvflow.state.store import Store
from venvflow.steps.facts import FoundVenv, facts_of, find_replaceable, find_venv
from venvflow.steps.hash_lockfiles import KeyNow
from venvflow.steps.job import Job
from venvflow.steps.new_venv import check_in_place, check_new, errors_explained, put_in_place
from venvflow.steps.noting import changed, noted, packages_at
from venvflow.steps.pull import pull_locked
from venvflow.steps.state_files import KeyRecord, need_key, write_answer
from venvflow.steps.take import take


def restore(job: Job, *, may_ask: bool = True) -> Outcome:
    """Restore the job's venv from the snapshot for its key.

    *may_ask*: tools may be run, in the project, to tell whether the venv is what its lock says.
    Answers ``kept`` (it is there already), ``taken`` (so it is, and another tool made it what its lock says),
    ``hit`` or ``miss``. Raises Refused when a venv that was changed by hand, or something that is not a venv,
    would have to be replaced, and BuildFailed when the venv that is there does not pass a check that is new
    in the config.
    """
    record = need_key(job)
    with job.locked(), job.open_store() as store, store.use():
        outcome = restore_locked(job, store, record, may_ask=may_ask)
    unfit = str(outcome.figures.get("unfit", ""))
    write_answer(job, record, hit=outcome.did != "miss", reason=outcome.reason, unfit=unfit)
    return outcome


def restore_locked(job: Job, store: Store, record: KeyRecord, *, may_ask: bool = True) -> Outcome:
    """Restore while the venv and the store are held."""
    return noted("restore", job, store, partial(_restore, job, store, record, may_ask=may_ask))


def _restore(job: Job, store: Store, record: KeyRecord, *, may_ask: bool) -> Outcome:
    job.place.settle()
    venv = find_venv(job, store, "directories")
    facts = facts_of(job, store, KeyNow(record, record), venv)
    action = plan(facts)["restore"]
    if may_ask and facts.may_be_taken and (taken := take(job, store, record)) is not None:
        return taken
    # It is kept, or given back what it lost: its files count. Those of another are looked at when it goes.
    if facts.is_for_key and action.did != "miss":
        keeps = action.would == "nothing"
        venv = find_venv(job, store, "bytes") if keeps else find_replaceable(job, store)
        facts = facts_of(job, store, KeyNow(record, record), venv)
        action = plan(facts)["restore"]
    if action.error is not None:
        raise action.error
    if action.would == "nothing":
        return _keep(job, store, venv, facts)
    if facts.fresh or not facts.may_restore:
        return Outcome("miss", FRESH if facts.fresh else "the config says restore: false")
    pulled = pull_locked(job, store, record) if facts.snapshot is None else None
    if pulled is not None and pulled.did == "pulled":
        facts = facts_of(job, store, KeyNow(record, record), venv)
    if facts.snapshot is None or facts.lacking:
        outcome = Outcome("miss", without(facts.lacking) if facts.lacking else "no snapshot for this key")
        return outcome if pulled is None else _with_remote(outcome, pulled)
    outcome = _bring(job, store, record, facts.snapshot)
    if pulled is not None:
        outcome = _with_remote(outcome, pulled)
    if facts.is_for_key and outcome.did == "hit" and not job.force:
        damage = f"the venv was damaged ({facts.damage})"
        return replace(outcome, warnings=(damage, *outcome.warnings))
    return outcome


def _with_remote(outcome: Outcome, pulled: Outcome) -> Outcome:
    """Return what restore answers with what the remote answered before."""
    reason, warnings = f"{outcome.reason}; {pulled.reason}", pulled.warnings
    if pulled.did == "pulled" and outcome.did == "miss":  # it was whole, and signed, and cannot be right
        reason = f"{outcome.reason}; it was pulled: {pulled.reason}"
        warnings = (*warnings, reason)
    elif pulled.did == "pulled":
        reason = pulled.reason
        if came := pulled.figures.get("bytes"):
            reason += f", {show_size(int(came))} in {show_duration(float(pulled.figures['seconds']))}"
    figures = {f"remote_{name}": value for name, value in pulled.figures.items()}
    return replace(
        outcome,
        reason=reason,
        figures={**outcome.figures, **figures},
        warnings=(*warnings, *outcome.warnings),
    )


def _keep(job: Job, store: Store, venv: FoundVenv, facts: VenvFacts) -> Outcome:
    """Keep the venv that is there: what somebody added or edited is theirs, and only reported."""
    receipt, drift = venv.receipt, venv.drift
    assert receipt is not None  # noqa: S101 - what is kept is ours
    if not (drift or drift.touched) and _is_suspected(job, receipt):
        forget_stats(job.config)  # what is written down of looks is wrong: each run would suspect it
    known, receipt = receipt, told_newer(store, job.place.path, receipt, drift.touched)
    give_stats_back(store, job.place.path, drift.touched, receipt, job.spec.min_size)
    give_bytecode_back(store, job.place.path, drift.lost, receipt.link)
    warnings = (_relabelled(drift.relabelled),) if drift.relabelled else ()
    if drift.by_hand:
        outcome = Outcome("kept", "changed by hand", warnings=(*warnings, _left(job, drift)))
    else:
        outcome = Outcome("kept", "it is what its key says", warnings=warnings)
        if not job.place.has_same_directories(receipt) or drift.stats or receipt != known:
            fresh = replace(
                receipt,
                directories=directory_mtimes(job.place.path, receipt.directories),
                stats=drift.stats or receipt.stats,
            )
            write_receipt(job.place.path, fresh, sync=job.config.store.durability == "full")
    if not facts.passed_check:
        _prove(job)
    return outcome


def _is_suspected(job: Job, receipt: Receipt) -> bool:
    return receipt.state == "shared" and bool(suspect_venvs(job.config, {job.spec.name: receipt}, whole=True))


def _relabelled(paths: tuple[str, ...]) -> str:
    return (
        f"mode or owner changed: {summary(paths)}; changed back, because all venvs that share a file have "
        "it. To close a venv to others, change the mode of its directory"
    )


def _prove(job: Job) -> None:
    """Run the check in a venv that is in its place; raises BuildFailed.

    A new build would be the same, so none is tried: what has to change is the lock file, or the check.
    """
    wrong = check_in_place(job)
    if wrong:
        raise BuildFailed(
            f"the venv is what its lock files say, but {wrong}",
            where=job.spec.name,
            state="It was left as it is, and so was its snapshot.",
            hint="Fix check: or the lock file, or delete a bad venv; then run doit again.",
        )


def _left(job: Job, drift: Drift) -> str:
    """Return what to say of changes by hand, and which commands drop them."""
    name = quote(job.spec.name)
    do = job.ways_out
    if drift.shared:
        do = (
            'The store and all venvs that share it have the edit: "venvflow verify --heal" gives all of them '
            f'their bytes back, "venvflow verify {name} --heal" all but this one.'
        )
    return f"changed by hand ({drift}); left as it is. {do}"


def _bring(job: Job, store: Store, record: KeyRecord, snapshot: Snapshot) -> Outcome:
    """Make *snapshot* beside the place, check it and swap it in; anything amiss is a miss."""
    start = time.monotonic()
    try:
        manifest = store.load(snapshot)
        with errors_explained(job), job.place.staged() as venv:
            made = _make(job, store, record.interpreter, manifest, venv)
            _refuse_unfit(check_new(job, venv))
            notes.give(venv, snapshot.notes, job.environ)
            receipt = Receipt(
                key=record.key.digest,
                path=job.place.path,
                state="shared",
                made="restored",
                python=record.interpreter.executable,
                trees=snapshot.trees,
                bound=manifest.bound,
                link=made.link,
                stats=digest_of_stats(made.stats),
                contents=encode_contents(made.digests),
                store=store.path if made.link == "symlink" else "",
                warnings=snapshot.warnings,
                written=made.written,
                needs=tuple(os.path.join(job.root, path) for path in snapshot.needs),
                settings=settings_of(job.spec),
                copies=job.copies(entry for tree in manifest.trees for entry in tree.entries),
                build_seconds=snapshot.build_seconds,
            )
            receipt = replace(receipt, directories=directory_mtimes(venv, made.directories))
            before, packages = store.registration(job.place.path), packages_at(job, store)
            # First: a venv of symlinks needs its objects from now on. A rename keeps the directory's inode.
            _register(job, store, snapshot, made.link, os.lstat(venv).st_ino)
            kept_as = put_in_place(job, store, venv, receipt, ours=before.inode if before else None)
    except _Unfit as error:
        # Perhaps it is the check that is wrong: the snapshot stays until a build proves that it is not.
        return Outcome("miss", f"snapshot {snapshot.id[:12]} cannot be used: {error}", {"unfit": snapshot.id})
    except (Damaged, Corrupt) as error:
        if isinstance(error, Damaged):
            store.objects.quarantine(error.name)
        store.quarantine_snapshot(snapshot.id)
        return Outcome("miss", f"snapshot {snapshot.id[:12]} was put aside: {error}")
    figures = {"files": made.files, "bytes": made.size, "seconds": time.monotonic() - start}
    warnings = (f"the venv that was there is kept as {shown(kept_as)}",) if kept_as else ()
    after = {tree.name: tree.version for tree in manifest.trees if tree.version}
    remembered = Remembered(snapshot.id, snapshot.build_seconds, changed(packages, after))
    return Outcome("hit", snapshot.id[:12], {**figures, "link": made.link}, warnings, remembered)


class _Unfit(Exception):
    """A venv that was made from a snapshot does not work."""


def _refuse_unfit(wrong: str) -> None:
    if wrong:
        raise _Unfit(wrong)


def _make(job: Job, store: Store, interpreter: Interpreter, manifest: Manifest, venv: str) -> Materialised:
    linker = Linker(job.spec.link)
    made = Materialiser(
        store.objects,
        job.places(interpreter),
        linker,
        min_size=store.smallest_shared(job.spec.min_size),
        private=job.keeps_private,
        adopted=store.adopted(),
        relabel=store.relabel,
        verify_all=job.config.store.verify == "full" or store.untrusted,
        untrusted=store.untrusted,
        progress=partial(job.meter.count, ""),
    ).make(manifest, venv)
    if job.spec.bytecode == "canonical":
        _compile_templates(job, manifest, venv, interpreter)
    return made


def _compile_templates(job: Job, manifest: Manifest, venv: str, interpreter: Interpreter) -> None:
    """Compile sources that name local paths: their bytecode cannot be shared, but should be there too."""
    sources = [
        Source(entry.digest, entry.path, f"{venv}/{entry.path}", filled=True)
        for tree in manifest.trees
        for entry in tree.entries
        if entry.kind == "template"
        and is_source(entry.path)
        and can_be_compiled(entry.path, entry.size, interpreter.cache_tag)
        and not (job.matcher and job.matcher.excludes_file(pyc_path(entry.path, interpreter.cache_tag)))
    ]
    if not sources:
        return
    staging = f"{os.path.dirname(venv)}/bytecode"
    os.mkdir(staging)
    for source, made in compile_sources(interpreter, sources, staging).items():
        if made is not None:
            target = f"{venv}/{pyc_path(source.path, interpreter.cache_tag)}"
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(made.file, target)


def _register(job: Job, store: Store, snapshot: Snapshot, link: str, inode: int) -> None:
    """Tell the store of the venv; one that cannot be written was good enough to restore from."""
    if not store.read_only:
        trees = snapshot.trees if link == "symlink" else ()
        job.register(
            store, snapshot.key.digest, link=link, trees=trees, bound=snapshot.place is not None, inode=inode
        )
