"""Claims: waiting for somebody else's build, and knowing whose it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from contents import snapshot_of, stock
from flows import World
from test_locks import holder, needs_proc_locks

from venvflow.disk import locks
from venvflow.errors import LockTimeout
from venvflow.steps import claims
from venvflow.steps.job import Job

KEY = "ab" * 32


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give a project with one venv that nothing is done for."""
    world = World(tmp_path, tmp_path)
    world.configure({"api": {}})
    world.lock("api")
    return world


def _idle(_: Job) -> None:
    pass


@needs_proc_locks
def test_who_builds_the_same_venv_is_named_while_and_after_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By pid and command, after two seconds, and with how to end it when it took too long."""
    monkeypatch.setattr(locks, "NOTICE_AFTER", 0.0)
    job = world.job(VENVFLOW_LOCK_TIMEOUT="0.1")
    with job.open_store() as store, holder(f"{store.path}/locks/key-{KEY}") as child:
        with pytest.raises(LockTimeout) as caught:
            claims.wait_for(job, store, KEY, _idle)
        named = f"another run that builds the same venv: pid {child.pid} ("
        assert len(world.said) == 1
        assert world.said[0].startswith(f"api: waiting for {named}")
        assert f"builds the same venv and does not finish: pid {child.pid} (" in str(caught.value)
        assert f'"kill {child.pid}"' in str(caught.value)
        assert "Gave up after 0.1 s; nothing was changed." in str(caught.value)


def test_a_claim_that_is_given_back_is_taken(world: World) -> None:
    """Without a word about it, if that was soon."""
    job = world.job()
    with job.open_store() as store:
        with holder(f"{store.path}/locks/key-{KEY}"):
            assert store.claim(KEY) is None
        claim = claims.wait_for(job, store, KEY, _idle)
        assert isinstance(claim, locks.Lock)
        claim.release()
    assert world.said == []


OTHER = "cd" * 32


def _wait_in_a_thread(job: Job, finish: Callable[[Job], None]) -> None:
    """Wait for a claim that somebody else keeps, as one of several threads of a run, until patience ends."""

    def work() -> None:
        with job.open_store() as store, pytest.raises(LockTimeout):
            claims.wait_for(job, store, KEY, finish)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


@pytest.fixture
def both(world: World) -> Iterator[tuple[Job, Job]]:
    """Give a job whose key we have claimed, and one whose key somebody else has."""
    world.configure({"api": {}, "web": {}})
    world.lock("web")
    built, wanted = world.job("api"), world.job("web", VENVFLOW_LOCK_TIMEOUT="0")
    with built.open_store() as store:
        theirs, ours = store.claim(KEY), store.claim(OTHER)
        assert theirs
        assert ours
        claims.keep(OTHER, ours, built)
        yield built, wanted
        claims.release(OTHER)
        theirs.release()


def test_what_is_held_is_finished_before_waiting_for_another(both: tuple[Job, Job]) -> None:
    """Two runs that each hold what the other wants would wait for ever."""
    _, wanted = both
    finished: list[str] = []
    _wait_in_a_thread(wanted, lambda job: finished.append(job.spec.name))
    assert set(finished) == {"api"}


def test_what_cannot_be_finished_is_given_back(both: tuple[Job, Job]) -> None:
    """Its own task says why; somebody else may do better."""

    def fails(_: Job) -> None:
        raise LockTimeout("no", where="api", state="Nothing.", hint="Wait.")

    built, wanted = both
    _wait_in_a_thread(wanted, fails)
    with built.open_store() as store:
        claim = store.claim(OTHER)
    assert claim
    claim.release()


def test_a_claim_for_the_venv_that_is_built_anew_is_void(both: tuple[Job, Job]) -> None:
    """What it was built for is not at its place any more: there is nothing to publish."""
    built, _ = both
    again = replace(built, environ={**built.environ, "VENVFLOW_LOCK_TIMEOUT": "0"})
    finished: list[Job] = []
    _wait_in_a_thread(again, finished.append)
    assert finished == []
    with built.open_store() as store:
        claim = store.claim(OTHER)
    assert claim
    claim.release()


def test_a_snapshot_that_is_published_meanwhile_is_taken(world: World) -> None:
    """And the claim on its key is given back: nothing is to be built."""
    job = world.job()
    with job.open_store() as store:
        made = store.publish(snapshot_of(stock(store, {"a": b"a"})), 1.0)
        assert claims.wait_for(job, store, made.key.digest, _idle) == made
        claim = store.claim(made.key.digest)
    assert claim
    claim.release()


def test_a_snapshot_that_is_no_use_is_not_waited_for(world: World) -> None:
    """It was looked at already: to be given it again would be to build nothing, for ever."""
    job = world.job()
    with job.open_store() as store:
        made = store.publish(snapshot_of(stock(store, {"a": b"a"})), 1.0)
        claim = claims.wait_for(job, store, made.key.digest, _idle, unfit=made.id)
    assert isinstance(claim, locks.Lock)
    claim.release()


def test_who_does_not_restore_builds_although_there_is_a_snapshot(world: World) -> None:
    """``restore: false`` is asked for by those who want what the builder makes today."""
    world.configure({"api": {"restore": False}})
    job = world.job()
    with job.open_store() as store:
        made = store.publish(snapshot_of(stock(store, {"a": b"a"})), 1.0)
        claim = claims.wait_for(job, store, made.key.digest, _idle)
    assert isinstance(claim, locks.Lock)
    claim.release()


def test_the_next_build_of_a_run_gives_back_what_was_not_published(world: World) -> None:
    """A run that does one venv after the other is done with the earlier ones; others may need theirs."""
    job = world.job()
    with job.open_store() as store:
        earlier = store.claim(OTHER)
        assert earlier
        claims.keep(OTHER, earlier, job)
        lock = claims.wait_for(job, store, KEY, _idle)
        assert isinstance(lock, locks.Lock)
        lock.release()
        again = store.claim(OTHER)
    assert again
    again.release()


def test_a_claim_ends_with_what_fails(world: World) -> None:
    """And is kept by what succeeds."""
    job = world.job()
    with job.open_store() as store:
        lock = store.claim(KEY)
        assert lock
        claims.keep(KEY, lock, job)
        with claims.publishing(job, KEY):
            pass
        assert store.claim(KEY) is None
        with pytest.raises(KeyboardInterrupt), claims.publishing(job, KEY):
            raise KeyboardInterrupt
        again = store.claim(KEY)
    assert again
    again.release()
