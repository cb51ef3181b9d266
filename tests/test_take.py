"""Taking a venv that is what its lock says: when it is asked about, what stops it, and what comes of it."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flows import World
from wheels import offline_environment

from venvflow.builders.agreement import Agreement
from venvflow.errors import EnvironmentFailure, Refused
from venvflow.model import Outcome
from venvflow.steps import take
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.job import Job
from venvflow.steps.restore import restore
from venvflow.steps.state_files import KeyRecord

pytestmark = pytest.mark.slow
UV = os.path.join(os.path.dirname(sys.executable), "uv")


def sync(world: World, venv: str = "api") -> None:
    """Let uv make a venv what its lock says."""
    environ = {**os.environ, **offline_environment(world.house)}
    place = world.venv(venv)
    if not place.exists():
        subprocess.run([UV, "venv", "-q", "--python", sys.executable, place], check=True, env=environ)
    lock = str(world.root / venv / "requirements.txt")
    subprocess.run([UV, "pip", "sync", "-q", lock, "--python", str(place)], check=True, env=environ)


def update(world: World) -> None:
    """Bring lock and venv to another version."""
    world.lock("api", world.wheel("alpha", "2.0"))
    sync(world)


def restored(world: World, venv: str = "api", *, force: bool = False) -> Outcome:
    """Return what restore answers."""
    job = dataclasses.replace(world.job(venv), force=force)
    hash_lockfiles(job)
    return restore(job)


@pytest.fixture
def world(tmp_path: Path, wheelhouse: Path) -> World:
    """Give a project with one venv, nothing done."""
    world = World(tmp_path, wheelhouse)
    world.configure({"api": {}})
    world.lock("api", world.wheel("alpha"))
    return world


@pytest.fixture
def built(world: World) -> World:
    """Give a world whose venv was built for an older lock, and brought to the new one by uv."""
    world.run()
    update(world)
    return world


def snapshots(world: World) -> int:
    """Return how many snapshots the store has."""
    return len(list((world.store / "snapshots").iterdir()))


def test_one_that_nobody_touched_is_not_asked_about(built: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """That would take a second at each change of a lock. Nor is one by force, or where no tool may be run."""
    taken = restored(built)
    assert (taken.did, taken.remembered.packages) == ("taken", (("alpha", "1.0", "2.0"),))

    def asked(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(take, "agrees", asked)
    assert restored(built).did == "kept"
    built.lock("api", built.wheel("alpha"))
    assert restored(built).did == "hit"
    built.lock("api", built.wheel("alpha", "3.0"))
    assert restored(built).did == "miss"
    built.lock("api", built.wheel("alpha"))
    (built.module("alpha").parent / "mine.py").write_text("")
    assert restored(built).did == "kept"
    update(built)
    hash_lockfiles(built.job())
    with pytest.raises(AssertionError):
        restore(built.job())
    assert restore(built.job(), may_ask=False).did == "miss"
    built.lock("api", built.wheel("alpha"))
    assert restored(built, force=True).did == "hit"


def test_a_second_one_is_no_build_that_cannot_be_repeated(built: World) -> None:
    """Makers of venvs and installers leave traces of their own; the store keeps what it had."""
    built.configure({"api": {"restore": False}, "web": {}})
    outcomes = built.run("api")
    assert (outcomes["restore"].did, outcomes["store"].did) == ("taken", "stored")
    built.lock("web", built.wheel("alpha", "2.0"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", built.venv("web")], check=True)
    sync(built, "web")
    venv = str(built.venv("web"))
    pip = [sys.executable, "-m", "pip", "--python", venv, "install", "-q", "--force-reinstall"]
    environ = {**os.environ, **offline_environment(built.house)}
    subprocess.run([*pip, "alpha==2.0"], check=True, env=environ)
    outcomes = built.run("web")
    assert (outcomes["restore"].did, outcomes["store"].did) == ("taken", "kept")
    assert [each.warnings for each in outcomes.values()] == [()] * len(outcomes)
    assert snapshots(built) == 2
    assert built.run("web")["restore"].did == "kept"


def test_its_lock_may_not_change_meanwhile(built: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is published under a key must be what that key says."""
    agrees = take.agrees

    def changing(job: Job, record: KeyRecord) -> Agreement | None:
        agreed = agrees(job, record)
        built.lock("api", built.wheel("alpha"))
        return agreed

    monkeypatch.setattr(take, "agrees", changing)
    with pytest.raises(EnvironmentFailure, match="changed meanwhile"):
        restored(built)
    assert snapshots(built) == 1


@pytest.mark.parametrize("at_work", ["uv", "another"])
def test_no_tool_may_be_at_work_in_it(built: World, monkeypatch: pytest.MonkeyPatch, at_work: str) -> None:
    """Uv locks a venv; others are seen by what they leave."""
    monkeypatch.setattr(take, "_PATIENCE", 0)
    agrees = take.agrees

    def working(job: Job, record: KeyRecord) -> Agreement | None:
        agreed = agrees(job, record)
        if at_work == "uv":
            fcntl.flock(lock, fcntl.LOCK_EX)
        else:
            file = next(built.venv().glob("lib/*/site-packages/alpha-*/RECORD"))
            data = file.read_bytes()
            file.unlink()
            file.write_bytes(data)
        return agreed

    monkeypatch.setattr(take, "agrees", working)
    with open(built.venv() / ".lock") as lock:
        assert restored(built).did == "miss"


def test_it_has_to_pass_the_check_of_the_config(built: World) -> None:
    """Else a build has to prove that it is the check that is wrong."""
    built.configure({"api": {"check": ["-c", "import alpha; assert alpha.VERSION == '1.0'"]}})
    assert restored(built).did == "miss"
    built.configure({"api": {"check": ["-c", "import alpha; assert alpha.VERSION == '2.0'"]}})
    assert restored(built).did == "taken"
    assert restored(built).did == "kept"


def test_what_is_excluded_stays_in_it_and_is_not_published(built: World) -> None:
    """That is no change by hand."""
    built.configure({"api": {"exclude": ["bin/alpha"]}})
    outcomes = built.run()
    assert (outcomes["restore"].did, outcomes["store"].did) == ("taken", "stored")
    assert [each.warnings for each in outcomes.values()] == [()] * len(outcomes)
    assert (built.venv() / "bin" / "alpha").exists()
    assert built.run()["restore"].warnings == ()
    built.configure({"api": {"exclude": ["bin/alpha"]}, "web": {"exclude": ["bin/alpha"]}})
    built.lock("web", built.wheel("alpha", "2.0"))
    assert built.run("web")["restore"].did == "hit"
    assert not (built.venv("web") / "bin" / "alpha").exists()


def test_a_link_to_a_venv_is_not_followed(built: World) -> None:
    """Whatever lies there is somebody's."""
    built.venv().rename(built.root / "elsewhere")
    built.venv().symlink_to(built.root / "elsewhere")
    with pytest.raises(Refused, match="symlink"):
        built.run()
    assert snapshots(built) == 1


def test_bytecode_that_is_kept_cannot_be_held_against_anything(built: World) -> None:
    """So such a venv is not taken."""
    built.configure({"api": {"bytecode": "keep"}})
    assert restored(built).did == "miss"


def test_a_venv_of_symlinks_is_taken(world: World) -> None:
    """Its files are the store's: what the tool left alone is not read as a link to somewhere."""
    world.configure({"api": {"squish": {"link": ["symlink"]}}})
    world.lock("api", world.wheel("alpha"), world.wheel("beta"))
    world.run()
    world.lock("api", world.wheel("alpha", "2.0"), world.wheel("beta"))
    sync(world)
    assert world.module("beta").is_symlink()
    outcomes = world.run()
    assert (outcomes["restore"].did, outcomes["store"].did) == ("taken", "stored")
    assert world.module("alpha").is_symlink()
    assert world.run()["restore"].did == "kept"
