"""Forecasts what ``doit`` would do, task by task, and why: the plans of all venvs in order, then trim.

It holds as long as nobody changes anything meanwhile. It cannot tell whether a builder succeeds, and
what it gives: the very files of an archive that is there already, perhaps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace

from venvflow.disk.databases import open_to_read
from venvflow.errors import VenvflowError
from venvflow.flow import Flow
from venvflow.pure.plan import Action, VenvFacts, plan
from venvflow.state import needs
from venvflow.state.changes import Depth
from venvflow.state.file_stats import StatChecker
from venvflow.state.reader import StoreReader
from venvflow.state.usage import StoreContents
from venvflow.steps.facts import facts_of, find_venv, unreadable_facts
from venvflow.steps.hash_lockfiles import KeyNow, key_now
from venvflow.steps.job import Job
from venvflow.steps.pull import RemoteView
from venvflow.steps.take import agrees


def forecast(
    flow: Flow,
    venv: str,
    store: StoreReader | None,
    key: KeyNow | None = None,
    remote: RemoteView | None = None,
) -> dict[str, Action]:
    """Return what the seven tasks would do for *venv* if ``doit`` ran now, by task, in their order.

    *store* is the one of the config, None if there is none yet; *key* that of the venv, if it is known, and
    *remote* what is known of the remote: unless it was asked now, nobody can tell what it has.
    """
    names = list(flow.config.venvs)
    keys = {name: key if key and name == venv else key_now(flow.job(name)) for name in names}
    plans: dict[str, Mapping[str, Action]] = {}
    for name in names:
        # Walking through a hundred venvs for two lines of an answer about one would be too much.
        depth: Depth = "stat" if name == venv else "directories"
        before = {each: plans[each] for each in plans if _digest(keys[each]) == _digest(keys[name])}
        promised = _promised(before) if name == venv and _digest(keys[name]) else ""
        asked = remote if name == venv else None
        plans[name] = _plan(flow.job(name), store, keys[name], depth, promised, remote=asked)
    tasks = {f"{verb}:{venv}": action for verb, action in plans[venv].items()}
    return {**tasks, "trim": _trim(flow, venv, plans)}


def _digest(key: KeyNow) -> str:
    return key.now.key.digest if key.now is not None else ""


def _promised(before: Mapping[str, Mapping[str, Action]]) -> str:
    """Return the task that would publish a snapshot for the key before it is needed, or nothing."""
    return next((f"store:{name}" for name, actions in before.items() if actions["store"].did == "stored"), "")


def _plan(
    job: Job,
    store: StoreReader | None,
    key: KeyNow,
    depth: Depth,
    promised: str,
    *,
    remote: RemoteView | None,
) -> Mapping[str, Action]:
    checker = StatChecker(store.objects.root, StoreContents(store).stats) if store is not None else None
    try:
        venv = find_venv(job, store, depth, checker=checker)
    except VenvflowError as error:
        return plan(unreadable_facts(job, key, error))
    facts = facts_of(job, store, key, venv, promised_by=promised)
    if depth == "stat" and facts.may_be_taken and key.now is not None:
        facts = replace(facts, as_locked=agrees(job, key.now) is not None)
    if remote is not None and facts.snapshot is None and remote.may.read and not facts.read_only:
        facts = _with_remote(job, facts, remote)
    return plan(facts)


def _with_remote(job: Job, facts: VenvFacts, remote: RemoteView) -> VenvFacts:
    """Return the facts of a venv that the store has not, with what is known of the remote."""
    if remote.record is not None:
        snapshot = remote.record.snapshot
        lacking = needs.lacking(snapshot.needs, job.root)
        return replace(facts, snapshot=snapshot, snapshot_whole=True, lacking=lacking, remote="has it")
    return facts if remote.is_now else replace(facts, remote="asked")


def _trim(flow: Flow, venv: str, plans: Mapping[str, Mapping[str, Action]]) -> Action:
    """Return what trim would do: it comes after the tasks of all venvs; *venv* is named first as a reason."""
    order = [venv, *(name for name in plans if name != venv)]
    everything = {f"{verb}:{name}": action for name in order for verb, action in plans[name].items()}
    failing = next((task for task, action in everything.items() if action.would == "fail"), "")
    if failing:
        return Action("trim", "not run", reason=f"{failing} fails")
    stored = next((task for task, action in everything.items() if action.did == "stored"), "")
    why = f"{stored} adds a snapshot" if stored else flow.why_trim()
    if not why and not _has_trimmed(f"{flow.config.state_dir}/state.db"):
        why = "doit does not know of an earlier time"
    if not why:
        return Action("trim", "nothing", reason="nothing new", due=False)
    return Action("trim", "run", "dropped", why, certain=False)


def _has_trimmed(state: str) -> bool:
    """Return whether doit's state at that path knows that trim succeeded; leaves no file beside it."""
    with suppress(sqlite3.Error), closing(open_to_read(state)) as db:
        return db.execute("SELECT 1 FROM task_state WHERE task = 'trim'").fetchone() is not None
    return False
