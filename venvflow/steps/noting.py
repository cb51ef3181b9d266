"""What steps tell the history, in the store that they have open anyway. No step fails because of that."""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeVar

from venvflow.errors import Refused, VenvflowError
from venvflow.model import Config, Outcome
from venvflow.pure.comparison import changes
from venvflow.state import history
from venvflow.state.history import Change, Event
from venvflow.state.store import Store
from venvflow.steps.job import Job

_UNCHANGED = frozenset({"kept", "none", "warned"})
"""What steps answer that did nothing: that is no history."""

_SELDOM = 100_000, 50, 50
"""How many more objects there are, and how many looks at the youngest, before Python looks for garbage."""

_FAILED = "failed"
_Outcome = TypeVar("_Outcome", bound=Outcome)


def noted(step: str, job: Job, store: Store, act: Callable[[], _Outcome]) -> _Outcome:
    """Return what *act* answers, and write it down as the outcome of *step*, as well as that it failed."""
    start = time.monotonic()
    try:
        with _seldom_collected():
            outcome = act()
    except Exception as error:
        did = "refused" if isinstance(error, Refused) else _FAILED
        _note(job, store, _event(job, step, Outcome(did), time.monotonic() - start))
        raise
    if outcome.did not in _UNCHANGED:
        _note(job, store, _event(job, step, outcome, time.monotonic() - start))
    return outcome


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Let garbage be looked for less often in the block.

    What a step knows of a large venv are hundreds of thousands of records, none of them in a cycle. Python
    would look at all of them again and again: for a twentieth of the time of a build.
    """
    before = gc.get_threshold()
    gc.set_threshold(*_SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def note_later(job: Job, step: str, outcome: Outcome, seconds: float) -> None:
    """Write down the *outcome* of a step that has no store open, with the next one of the same venv."""
    job.unwritten.append(_event(job, step, outcome, seconds))


def note_for_all(
    store: Store, config: Config, step: str, outcome: Outcome, *, now: float, seconds: float
) -> None:
    """Write down what was done for all venvs of a *config*."""
    event = Event(now, os.path.realpath(config.root), "", step, outcome.did, seconds)
    _write(store, [_of(event, outcome)])


def packages_at(job: Job, store: Store) -> Mapping[str, str] | None:
    """Return name and version of what is in the venv at the job's place, as it was made; None: not known."""
    known = store.registration(job.place.path)
    if known is None:
        return None
    with suppress(VenvflowError):
        return history.packages_of(store.index, known.snapshot or "", known.trees)
    return None


def changed(before: Mapping[str, str] | None, after: Mapping[str, str]) -> tuple[Change, ...] | None:
    """Return which packages a venv has in another version than *before*; None: that is not known."""
    if before is None:
        return None
    return tuple((each.name, each.old, each.new) for each in changes(before, after))


def _event(job: Job, step: str, outcome: Outcome, seconds: float) -> Event:
    did = _FAILED if " " in outcome.did else outcome.did  # "not pushed": the next run goes on
    return _of(Event(job.now(), job.root, job.spec.name, step, did, seconds), outcome)


def _of(event: Event, outcome: Outcome) -> Event:
    """Return *event* with what is known of the outcome."""
    remembered, moved = outcome.remembered, outcome.figures.get("bytes")
    spared_build = outcome.did == "hit" and remembered.build_seconds
    return event._replace(
        bytes=int(moved) if moved is not None else None,
        spared=remembered.build_seconds - event.seconds if spared_build else None,
        packages=remembered.packages,
        host=socket.gethostname(),
        snapshot=remembered.snapshot or None,
    )


def _note(job: Job, store: Store, event: Event) -> None:
    if job.spec.name:
        job.unwritten.append(event)
        if _write(store, job.unwritten):
            job.unwritten.clear()


def _write(store: Store, events: list[Event]) -> bool:
    """Write *events*, unless the index cannot be written now; return whether they are."""
    if store.read_only:
        return False
    with suppress(VenvflowError):
        history.note(store.index, events)
        return True
    return False
