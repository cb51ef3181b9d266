"""The questions that are asked on every run: what each of them looks at, and that it costs no program."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest
from flows import World

from venvflow.errors import ConfigError, UsageError
from venvflow.flow import Flow, load
from venvflow.pure.plan import VERBS
from venvflow.steps.state_files import TRIM_INTERVAL
from venvflow.steps.trim import trim


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Give a project whose venv is built and stored: what others restore."""
    world = World(tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("house"))
    world.configure({"api": {}})
    world.lock("api", world.wheel("alpha"))
    world.run()
    return world


@pytest.fixture
def world(first: World, tmp_path: Path) -> World:
    """Give a project whose venv is made, packed and stored."""
    world = World(tmp_path, first.house)
    shutil.copytree(
        first.store, world.store, ignore=lambda path, _: os.listdir(path) * path.endswith("venvs")
    )
    world.configure({"api": {"pack": {"output": "dist/"}}})
    world.lock("api", world.wheel("alpha"))
    world.run()
    trim(world.flow().config, {}, now=world.clock)
    return world


def _due(world: World) -> set[str]:
    """Return the tasks that are due."""
    flow = world.flow()
    return {verb for verb in VERBS if flow.is_due(verb, "api")}


def test_after_a_run_nothing_is_due(world: World) -> None:
    """Nothing changed: nothing to do."""
    assert _due(world) == set()
    assert world.flow().is_trimmed()


@pytest.mark.parametrize("changed", [False, True], ids=["the same lock", "another lock"])
def test_files_are_looked_at_only_where_the_venv_may_stay(
    world: World, monkeypatch: pytest.MonkeyPatch, *, changed: bool
) -> None:
    """One whose lock changed is looked at when its new key is known."""
    if changed:
        world.lock("api", world.wheel("alpha"), world.wheel("beta"))
    looked = []
    monkeypatch.setattr(Flow, "_is_suspect", lambda _flow, job, _receipt: looked.append(job.spec.name))
    assert world.flow().is_due("hash-lockfiles", "api") is changed
    assert looked == ([] if changed else ["api"])


def test_before_the_first_run_everything_is_due(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Except that a store which is not there needs no trim."""
    world = World(tmp_path, tmp_path_factory.mktemp("house"))
    world.configure({"api": {"pack": {"output": "dist/"}}})
    world.lock("api", world.wheel("alpha"))
    assert _due(world) == set(VERBS)
    assert world.flow().is_trimmed()


def test_a_changed_lock_is_seen_by_its_bytes(world: World) -> None:
    """Only the hash is out of date: the rest is asked after it ran."""
    world.lock("api", world.wheel("beta"))
    assert _due(world) == {"hash-lockfiles"}


def _lose_venv(world: World) -> None:
    shutil.rmtree(world.venv())


def _lose_module(world: World) -> None:
    world.module("alpha").unlink()


def _edit_module(world: World) -> None:
    before = world.module("alpha").parent.stat().st_mtime_ns
    world.module("alpha").chmod(0o644)
    world.module("alpha").write_text("EDITED = 1\n")
    assert world.module("alpha").parent.stat().st_mtime_ns == before


def _edit_script(world: World) -> None:
    with open(world.venv() / "bin" / "alpha", "a") as file:
        file.write("# mine\n")


def _lose_key(world: World) -> None:
    (world.root / ".venvflow" / "api" / "key.json").unlink()


def _lose_archive(world: World) -> None:
    (world.root / "dist" / "api.tar.zst").unlink()


def _alter_archive(world: World) -> None:
    with open(world.root / "dist" / "api.tar.zst", "ab") as file:
        file.write(b"x")


def _lose_snapshot(world: World) -> None:
    next((world.store / "snapshots").glob("*.json")).unlink()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_lose_venv, {"restore", "build-venv", "squish", "pack", "store"}),
        (_lose_module, {"restore"}),
        (_edit_module, {"restore"}),
        (_edit_script, {"restore"}),
        (_lose_key, {"hash-lockfiles", "restore", "build-venv", "squish", "pack", "store"}),
        (_lose_archive, {"pack"}),
        (_alter_archive, {"pack"}),
        (_lose_snapshot, {"store"}),
    ],
)  # fmt: skip
def test_each_loss_is_seen_by_who_has_to_mend_it(world: World, change: Any, expected: set[str]) -> None:
    """And by nobody else."""
    change(world)
    assert _due(world) == expected


def test_trim_is_asked_for_when_the_store_grew_or_a_day_passed(world: World) -> None:
    """A clock that went back counts as passed."""
    assert world.flow().is_trimmed()
    world.clock += TRIM_INTERVAL + 1
    assert not world.flow().is_trimmed()
    world.clock -= 2 * TRIM_INTERVAL
    assert not world.flow().is_trimmed()
    world.clock = 1_000_000.0
    _lose_snapshot(world)
    assert not world.flow().is_trimmed()


def test_asking_runs_no_program(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked thousands of times a day, they only read small files and ask for stats."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a program was run")

    for module, name in ((subprocess, "Popen"), (os, "posix_spawn"), (os, "fork"), (os, "system")):
        monkeypatch.setattr(module, name, refuse)
    assert _due(world) == set()


def test_a_job_is_one_per_venv_and_force(world: World) -> None:
    """So what a job found out about its place is found out once."""
    flow = world.flow()
    assert flow.job("api") is flow.job("api")
    assert flow.job("api", force=True) is not flow.job("api")
    assert flow.job("api", force=True).force


def test_loading_looks_in_parents_and_heeds_the_environment(world: World, tmp_path: Path) -> None:
    """VENVFLOW_CONFIG names the file, from anywhere; an explicit one wins; without any it is said."""
    file = str(world.root / "venvflow.yaml")
    assert load(str(world.root / "api"), {}).config.root == str(world.root)
    assert load("/", {"VENVFLOW_CONFIG": file}).config.file == file
    assert load("/", {"VENVFLOW_CONFIG": "/nowhere"}, explicit=file).config.file == file
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError):
        load(str(empty), {})
    (world.root / "venvflow.yaml").write_text("{")
    with pytest.raises(ConfigError):
        load(str(world.root), {})


def test_a_step_that_ends_in_another_thread_disturbs_no_question(world: World) -> None:
    """What was found is forgotten then, even between asking for it and reading it."""
    flow = world.flow()
    done = threading.Event()

    def forget() -> None:
        while not done.is_set():
            flow.forget_plans()

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        assert not any(flow.is_due(verb, "api") for _ in range(20) for verb in VERBS)
    finally:
        done.set()
        thread.join()
