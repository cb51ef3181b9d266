"""Claims: waiting for somebody else's build, and knowing whose it is."""

from __future__ import annotations

from pathlib import Path

import pytest
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
