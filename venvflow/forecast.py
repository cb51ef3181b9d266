"""What ``doit`` would do to a venv, task by task, and why: foretold without doing it.

It asks what the steps ask, in their order, and takes for each the answer that the steps before would leave.
So it holds as long as nobody changes anything meanwhile. What nobody can know is whether a builder succeeds,
and what it gives: the very files of an archive that is there already, perhaps.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple

from venvflow.disk import builders
from venvflow.disk.databases import can_be_database
from venvflow.errors import VenvflowError, shown
from venvflow.flow import Flow
from venvflow.model import Snapshot
from venvflow.pure.comparison import part_changes
from venvflow.pure.manifest import snapshot_id
from venvflow.state.looks import Watch
from venvflow.state.reader import StoreReader
from venvflow.state.usage import StoreContents
from venvflow.steps.drift import drift_of
from venvflow.steps.explain import KeyNow, key_now
from venvflow.steps.job import Job
from venvflow.steps.patrol import Post, looks_as_made
from venvflow.steps.records import OTHER_MANIFEST, KeyRecord, has_passed, why_pack
from venvflow.steps.replace import Present, is_whole, look, matcher_of, refuse_changed, refuse_to_lose

Would = Literal["run", "nothing", "fail", "not run"]
STEPS = ("hash-lockfiles", "restore", "build-venv", "squish", "pack", "store")


class Forecast(NamedTuple):
    """What one task would do.

    *would*: ``run`` (*did* is what it will answer: new, hit, miss, built …), ``nothing`` (it is up to date,
    or will find nothing to do), ``fail``, or ``not run``, because of a task before it. *reason* says why. It
    is not *certain* where a build may give just what was there before, or trim may find nothing to drop.
    """

    task: str
    would: Would
    did: str
    reason: str
    certain: bool = True


def forecast(flow: Flow, venv: str, store: StoreReader | None, key: KeyNow | None = None) -> list[Forecast]:
    """Return what the seven tasks would do for *venv* if ``doit`` ran now, in their order.

    *store* is the one of the config, None if there is none yet; *key* that of the venv, if it is known.
    """
    before, after = _others(flow, venv, store)
    job = flow.job(venv)
    key = key or key_now(job)
    told = _of_venv(_Steps(job, store, key, promised=_promised(before, key)))
    return [*told, _of_trim(flow, [told, *(other.told for other in (*before, *after))])]


class _Other(NamedTuple):
    """Another venv of the config: its key, and what its tasks would do."""

    key: KeyNow
    told: list[Forecast]


def _others(flow: Flow, venv: str, store: StoreReader | None) -> tuple[list[_Other], list[_Other]]:
    """Return what would be done to the venvs that doit comes to before *venv*, and after it."""
    found = []
    for name in flow.config.venvs:
        if name != venv:
            job = flow.job(name)
            key = key_now(job)
            # Walking through a hundred venvs for two lines of an answer about one would be too much.
            found.append(_Other(key, _of_venv(_Steps(job, store, key, thorough=False))))
    place = list(flow.config.venvs).index(venv)
    return found[:place], found[place:]


def _promised(before: Sequence[_Other], key: KeyNow) -> str:
    """Return the task that would publish a snapshot for the key before it is needed, or nothing."""
    for other in before:
        same = key.now is not None and other.key.now is not None and key.now.key == other.key.now.key
        if same and other.told[-1].did == "stored":
            return other.told[-1].task
    return ""


def _of_venv(steps: _Steps) -> list[Forecast]:
    told: list[Forecast] = []
    turns = steps.in_turn()
    for verb in STEPS:
        task = f"{verb}:{steps.job.spec.name}"
        if told and told[-1].would in ("fail", "not run"):
            failed = next(each.task for each in told if each.would == "fail")
            told.append(Forecast(task, "not run", "", f"{failed} fails"))
            continue
        try:
            told.append(Forecast(task, *next(turns)))
        except VenvflowError as error:
            told.append(Forecast(task, "fail", "", " ".join(error.what.split())))
    return told


class _Told(NamedTuple):
    would: Would
    did: str
    reason: str
    certain: bool = True


def _nothing(reason: str) -> _Told:
    return _Told("nothing", "", reason)


def _runs(did: str, reason: str) -> _Told:
    return _Told("run", did, reason)


@dataclass
class _Venv:
    """The venv as the steps after restore and build find it; *trees* None: what a build gives.

    *came* is how it came there: ``kept`` (it was there before), ``hit`` or ``built``.
    """

    came: Literal["kept", "hit", "built"]
    trees: Sequence[str] | None
    bound: bool | None
    shared: bool


class _Steps:
    """The steps of one venv, each answering for itself; raises what the step would raise.

    Unless it is *thorough*, a venv of which no directory changed counts as not changed by hand. *promised* is
    the task of another venv that would publish a snapshot for the key before.
    """

    def __init__(
        self, job: Job, store: StoreReader | None, key: KeyNow, *, thorough: bool = True, promised: str = ""
    ) -> None:
        self.job = job
        self.store = store
        self.key = key
        self.thorough = thorough
        self.promised = promised
        self.read_only = store is not None and store.read_only

    def in_turn(self) -> Iterator[_Told]:
        """Yield what each step would do."""
        yield self._hash()
        assert self.key.now is not None  # noqa: S101 - else it has raised
        record = self.key.now
        present = look(self.job, self.store)
        snapshot = self._snapshot(record)
        restored, venv = self._restore(record, present, snapshot)
        yield restored
        if venv is None:
            yield self._build(present)
            venv = _Venv("built", None, None, shared=False)
        else:
            yield _nothing("the venv is there" if venv.came == "kept" else "restore brings the venv")
        yield self._squish(venv, present)
        yield self._pack(record, venv, present)
        yield self._store(record, venv, present, snapshot)

    # ----------------------------------------------------------------------- hash-lockfiles

    def _hash(self) -> _Told:
        noted, now = self.key.noted, self.key.now
        if now is None:
            raise self.key.problem or VenvflowError("its key cannot be computed")
        if noted is None:
            return _runs("new", "no key is written down yet")
        names = [each.name for each in part_changes(noted.key.parts, now.key.parts)]
        if noted.key.digest == now.key.digest:
            return _nothing("the key is the same")
        return _runs("new", f"changed: {', '.join(map(shown, names))}")

    # ----------------------------------------------------------------------- restore and build

    def _snapshot(self, record: KeyRecord) -> Snapshot | None:
        """Return the snapshot that restore would take, None if it has none that is whole."""
        store = self.store
        found = store.find(record.key.digest, self.job.position) if store is not None else None
        if found is None or store is None or not all(store.has_tree(digest) for digest in found.trees):
            return None
        return found

    def _restore(
        self, record: KeyRecord, present: Present, snapshot: Snapshot | None
    ) -> tuple[_Told, _Venv | None]:
        job, receipt = self.job, present.receipt
        if receipt is not None and present.is_for(record.key.digest, job.place.path):
            kept = _Venv("kept", receipt.trees, receipt.bound, receipt.state == "shared")
            present = self._looked_through(present)
            if present.drift.by_hand:
                return _nothing(f"changed by hand ({present.drift}): left as it is"), kept
            if is_whole(job, present):
                return self._kept(record), kept
        told, venv = self._brought(present, snapshot, _why_restore(record, present, job.place.path))
        if present.state == "absent" and os.path.lexists(job.place.staging):
            settled = f"{told.reason}; first a run that is at work, or was killed, has to be settled"
            told = told._replace(reason=settled, certain=False)
        return told, venv

    def _looked_through(self, present: Present) -> Present:
        """Return a venv of which no directory changed with what restore would see: edits in place."""
        job, receipt, store = self.job, present.receipt, self.store
        if not self.thorough or present.drift or receipt is None or store is None:
            return present
        if looks_as_made(Post(job, receipt), Watch(store.objects.root, StoreContents(store).looks)):
            return present
        return present._replace(drift=drift_of(job.place.path, receipt, store, matcher_of(job)))

    def _brought(self, present: Present, snapshot: Snapshot | None, why: str) -> tuple[_Told, _Venv | None]:
        """Return what restore does where there is no venv that could be kept, and the venv that it brings."""
        job = self.job
        if not job.spec.restore:
            return _runs("miss", f"{why}; the config says restore: false"), None
        if snapshot is None and not self.promised:
            return _runs("miss", f"{why}; the store has no snapshot for the key"), None
        self._refuse_to_lose(present)
        if snapshot is None:  # one that names files of the project would not fit: nobody knows before
            told = _Told("run", "hit", f"{why}; {self.promised} adds a snapshot for the key", certain=False)
            return told, _Venv("hit", None, None, shared=True)
        came = _Venv("hit", snapshot.trees, snapshot.place is not None, shared=True)
        return _runs("hit", f"{why}; the store has a snapshot for the key"), came

    def _kept(self, record: KeyRecord) -> _Told:
        if has_passed(self.job, record.key.digest):
            return _nothing("the venv is what its key says")
        return _nothing("the venv is what its key says, if it passes its new check")._replace(certain=False)

    def _build(self, present: Present) -> _Told:
        self._refuse_to_lose(present)
        plan = builders.choose(self.job.spec, self.job.environ)
        beside = "; the venv there is kept beside" if present.state == "venv" else ""
        return _runs("built", f"restore misses; by {plan.name}{beside}")

    # ----------------------------------------------------------------------- squish, pack, store

    def _squish(self, venv: _Venv, present: Present) -> _Told:
        if venv.shared:
            return _nothing("its files are the store's")
        self._refuse_read_only()
        if venv.came == "built":
            return _runs("squished", "the venv is built anew")
        self._refuse_changed(present)
        venv.trees = None
        return _runs("squished", "its files are not the store's yet")

    def _pack(self, record: KeyRecord, venv: _Venv, present: Present) -> _Told:
        if self.job.spec.pack is None:
            return _nothing("the config asks for no archive")
        trees = None if venv.trees is None else list(venv.trees)
        why = why_pack(self.job, trees, record.key.digest)
        if not why:
            return _nothing("the archive is of this manifest")
        self._refuse_unless_filled(venv, present)
        if venv.trees is None and why == OTHER_MANIFEST:
            return _Told("run", "packed", "unless the build gives the same as before", certain=False)
        return _runs("packed", why)

    def _store(self, record: KeyRecord, venv: _Venv, present: Present, snapshot: Snapshot | None) -> _Told:
        if venv.came == "hit" or (venv.came == "built" and snapshot is not None):
            return _nothing("the snapshot is there")
        if venv.came == "kept":
            identifier = snapshot_id(record.key.digest, self.job.position if venv.bound else None)
            if os.path.lexists(f"{self.job.config.store.path}/snapshots/{identifier}.json"):
                return _nothing("the snapshot is there")
            if self.promised and not venv.bound:
                return _nothing(f"{self.promised} adds the snapshot")
            self._refuse_unless_filled(venv, present)
        return _runs("stored", "the store has no snapshot for the key")

    def _refuse_to_lose(self, present: Present) -> None:
        if self.thorough or present.receipt is None or present.drift:
            refuse_to_lose(self.job, self.store, present)

    def _refuse_read_only(self) -> None:
        if self.read_only:
            raise VenvflowError("the store is read-only")

    def _refuse_unless_filled(self, venv: _Venv, present: Present) -> None:
        """Raise if the store has lost what the venv is made of, and may not be filled from it again."""
        store = self.store
        lost = store is None or not all(store.has_tree(digest) for digest in venv.trees or ())
        if venv.came == "kept" and venv.shared and lost:
            self._refuse_read_only()
            self._refuse_changed(present)

    def _refuse_changed(self, present: Present) -> None:
        if present.receipt is not None and present.receipt.made != "shared":
            refuse_changed(self.job, self.store, present.receipt)


def _why_restore(record: KeyRecord, present: Present, path: str) -> str:
    """Return why the venv that is there, if any, will not do."""
    receipt = present.receipt
    if receipt is None:
        there = {
            "absent": "there is no venv",
            "empty": "there is no venv",
            "venv": "another tool made the venv",
        }
        return there.get(present.state, "what is there is no venv that is whole")
    if receipt.path != path:
        return f"the venv was made for {shown(receipt.path)}"
    if receipt.key != record.key.digest:
        return f"the venv is for another key ({receipt.key[:12]})"
    return f"the venv is damaged ({present.drift})" if present.drift else "its interpreter is gone"


# --------------------------------------------------------------------------- trim


def _of_trim(flow: Flow, everybody: Sequence[Sequence[Forecast]]) -> Forecast:
    """Return what trim would do: it comes after the tasks of all venvs."""
    failing = next((each.task for told in everybody for each in told if each.would == "fail"), "")
    if failing:
        return Forecast("trim", "not run", "", f"{failing} fails")
    stored = next((each.task for told in everybody for each in told if each.did == "stored"), "")
    why = f"{stored} adds a snapshot" if stored else flow.why_trim()
    if not why and not _has_run(f"{flow.config.state_dir}/state.db", "trim"):
        why = "doit does not know of an earlier time"
    if not why:
        return Forecast("trim", "nothing", "", "nothing new")
    return Forecast("trim", "run", "dropped", why, certain=False)


def _has_run(state: str, task: str) -> bool:
    """Return whether doit's state at that path knows of a success of *task*; leaves no file beside it."""
    if not (os.path.isfile(state) and can_be_database(state)):
        return False
    alone = "&immutable=1" if not os.path.lexists(f"{state}-wal") else ""
    from urllib.parse import quote  # noqa: PLC0415 - rarely needed

    address = f"file:{quote(os.fsencode(os.path.abspath(state)))}?mode=ro{alone}"
    with suppress(sqlite3.Error):
        db = sqlite3.connect(address, uri=True)
        try:
            return db.execute("SELECT 1 FROM task_state WHERE task = ?", (task,)).fetchone() is not None
        finally:
            db.close()
    return False
