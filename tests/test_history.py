"""The history: what ran, what it says of packages and time, and that no step depends on it."""

from __future__ import annotations

import gc
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from contents import tree_of
from flows import World

from venvflow.disk.databases import patiently
from venvflow.errors import BuildFailed, Refused
from venvflow.model import Outcome
from venvflow.state import history
from venvflow.state import index as index_module
from venvflow.state.history import Event, Totals, events, forget_old, note, packages_of, totals
from venvflow.state.index import VERSION, Index, IndexReader
from venvflow.steps.build_venv import build_venv
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.noting import noted
from venvflow.steps.restore import restore
from venvflow.steps.trim import trim

HIT = Event(
    1_000.0, "/src/p", "api", "restore", "hit", 0.5, 100, 2.5, (("six", "1.0", "2.0"),), "ci-1", "a" * 64
)
MISS = Event(2_000.0, "/src/p", "web", "restore", "miss", 0.25)
BUILT = Event(3_000.0, "/src/p", "web", "build-venv", "built", 12.0, packages=(("six", None, "2.0"),))
NOWHERE = f"no-such-thing==1 --hash=sha256:{'0' * 64}\n"
FAILED = Event(4_000.0, "/src/q", "api", "build-venv", "failed", 3.0)
ALL = [HIT, MISS, BUILT, FAILED]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Give a path for an index."""
    return str(tmp_path / "index.db")


@pytest.fixture
def index(path: str) -> Iterator[Index]:
    """Give an open index in which nothing but history is written."""
    with closing(Index(path)) as opened:
        note(opened, ALL)
        yield opened


def read(world: World) -> list[Event]:
    """Return what the store of a world remembers, oldest first."""
    with closing(IndexReader(str(world.store / "index.db"))) as reader:
        return events(reader)[::-1]


# --------------------------------------------------------------------------- the table


def test_what_is_noted_is_read_newest_first(index: Index) -> None:
    """All of it, of a project, of venvs by name, since a time, and not more than asked for."""
    assert events(index) == ALL[::-1]
    assert events(index, project="/src/p") == [BUILT, MISS, HIT]
    assert events(index, venvs={"api"}) == [FAILED, HIT]
    assert events(index, since=2_000.0, limit=2) == [FAILED, BUILT]
    assert events(index, project="/src") == events(index, venvs=()) == []


def test_names_of_any_bytes_and_credentials_do_not_get_in_the_way(index: Index) -> None:
    """A path keeps its bytes; what others call things has no escapes that a terminal would obey."""
    nasty = Event(
        5.0, "/src/\udcff", "a\x1b[31m\udcfe", "squish", "squished", 1.0, packages=(("x\x1b", "1\n", None),)
    )
    note(index, [nasty])
    (found,) = events(index, project="/src/\udcff")
    assert found.project == "/src/\udcff"
    assert found.venv == "a\\x1b[31m\\xfe"
    assert found.packages == (("x\\x1b", "1\\n", None),)
    assert events(index, venvs=[nasty.venv]) == [found]


def test_a_row_that_makes_no_sense_is_skipped(index: Index) -> None:
    """Somebody wrote into the database; the other rows count."""
    with index.writing() as db:
        db.execute("UPDATE history SET packages = '[[1]]' WHERE venv = 'web' AND outcome = 'built'")
        db.execute("UPDATE history SET at = 9e99 WHERE outcome = 'miss'")
    assert events(index) == [FAILED, HIT]


def test_it_is_bounded_in_rows_and_in_age(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go."""
    forget_old(index, 2_500.0 + history.LONGEST)
    assert events(index) == [FAILED, BUILT]
    monkeypatch.setattr(history, "MOST_ROWS", 3)
    note(index, [replace_at(MISS, n) for n in (5.0, 6.0, 7.0, 8.0)])
    assert [each.at for each in events(index)] == [8.0, 7.0, 6.0]


def replace_at(event: Event, at: float) -> Event:
    """Return an event at another time."""
    return event._replace(at=at)


def test_the_views_count_days_and_packages(index: Index) -> None:
    """In local time; what failed was spent, too; what is not about having a venv is not counted."""
    note(index, [Event(4_500.0, "/src/p", "", "trim", "trimmed", 9.0, 5)])
    day = time.strftime("%Y-%m-%d", time.localtime(1_000))
    rows = index.rows("SELECT * FROM history_days ORDER BY project, venv")
    assert rows == [
        (day, "/src/p", "api", 1, 0, 0, 0.0, 2.5),
        (day, "/src/p", "web", 0, 1, 1, 12.0, 0.0),
        (day, "/src/q", "api", 0, 0, 0, 3.0, 0.0),
    ]
    assert totals(index) == Totals(1, 1, 1, 15.0, 2.5)
    assert totals(index, "/src/q") == Totals(0, 0, 0, 3.0, 0.0)
    assert totals(index, "/none") == Totals(0, 0, 0, 0.0, 0.0)
    assert index.rows("SELECT venv, package, before, after FROM package_changes ORDER BY at") == [
        ("api", "six", "1.0", "2.0"),
        ("web", "six", None, "2.0"),
    ]


def test_packages_are_known_by_trees_or_not_at_all(index: Index) -> None:
    """Half of what was there would show the other half as new."""
    trees = [
        replace(tree_of({}), digest=letter * 64, name=letter, version=letter.strip("b")) for letter in "abc"
    ]
    index.add_trees(trees)
    assert packages_of(index, "", ["a" * 64, "b" * 64, "c" * 64]) == {"a": "a", "c": "c"}
    assert packages_of(index, "", ["a" * 64, "d" * 64]) is None
    assert packages_of(index, "f" * 64) is None


def test_an_index_of_an_older_version_has_no_history_until_it_is_written(path: str) -> None:
    """A reader changes nothing, and a writer makes the table."""
    with closing(Index(path)) as made, made.writing() as db:
        for view in ("history_days", "package_changes"):
            db.execute(f"DROP VIEW {view}")
        db.execute("DROP TABLE history")
        db.execute("DELETE FROM _sqlite_migrations WHERE name = 'history'")
        db.execute(f"PRAGMA user_version = {VERSION - 1}")
    with closing(IndexReader(path)) as reader:
        assert events(reader) == []
        assert totals(reader) == Totals(0, 0, 0, 0.0, 0.0)
    with closing(Index(path)) as opened:
        note(opened, [HIT])
        assert events(opened) == [HIT]


def test_several_processes_write_at_once(path: str) -> None:
    """No row is lost, whoever waits for whom."""
    with closing(Index(path)):  # made before
        pass

    def work(number: int) -> None:
        with closing(Index(path)) as own:
            for step in range(10):
                note(own, [Event(float(step), "/p", f"v{number}", "restore", "hit", 0.1)])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    with closing(IndexReader(path)) as reader:
        assert len(events(reader)) == 60


# --------------------------------------------------------------------------- what steps write


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, wheelhouse: Path) -> World:
    """Return a world in which a venv was built, lost and restored, changed, and failed."""
    world = World(tmp_path_factory.mktemp("told"), wheelhouse)
    world.configure({"api": {}})
    world.lock("api", world.wheel("alpha"))
    world.run()
    world.run()  # nothing to do
    os.rename(world.venv(), world.venv().with_name("lost"))
    world.run()
    world.lock("api", world.wheel("alpha", "2.0"), world.wheel("beta"))
    world.run()
    world.lock("api", world.wheel("alpha")).write_text(NOWHERE)
    with pytest.raises(BuildFailed):
        world.run()
    return world


def test_steps_write_down_what_they_did_and_nothing_of_what_they_did_not(told: World) -> None:
    """In order, each once; steps that found nothing to do leave no row."""
    assert [(each.step, each.outcome) for each in read(told)] == [
        *(("hash-lockfiles", "new"), ("restore", "miss"), ("build-venv", "built")),
        *(("squish", "squished"), ("store", "stored")),
        ("restore", "hit"),
        *(("hash-lockfiles", "new"), ("restore", "miss"), ("build-venv", "built")),
        *(("squish", "squished"), ("store", "stored")),
        *(("hash-lockfiles", "new"), ("restore", "miss"), ("build-venv", "failed")),
    ]
    assert {(each.project, each.venv) for each in read(told)} == {(os.path.realpath(told.root), "api")}
    assert all(each.host == os.uname().nodename for each in read(told))


def test_rows_say_what_a_hit_spared_and_which_packages_changed(told: World) -> None:
    """Against the build that made its snapshot; a venv that was there before is compared with the new one."""
    rows = read(told)
    first, second = (each for each in rows if each.outcome == "built")
    (hit,) = (each for each in rows if each.outcome == "hit")
    stored = next(each for each in rows if each.outcome == "stored")
    assert hit.snapshot == stored.snapshot
    with told.job().open_store() as store:
        snapshot = store.snapshot(str(hit.snapshot))
    assert snapshot is not None
    assert 0 < snapshot.build_seconds <= first.seconds
    assert hit.spared == snapshot.build_seconds - hit.seconds
    assert hit.bytes == stored.bytes
    assert first.packages is None
    assert hit.packages == ()
    assert second.packages == (("alpha", "1.0", "2.0"), ("beta", None, "1.0"))
    with closing(IndexReader(str(told.store / "index.db"))) as reader:
        assert totals(reader) == Totals(
            1, 3, 2, sum(each.seconds for each in rows if each.step == "build-venv"), hit.spared
        )


def test_a_refusal_is_history_and_so_is_a_trim(told: World) -> None:
    """What was changed by hand is not replaced, and that is written down."""
    told.lock("api", told.wheel("alpha"))
    told.module("alpha").with_name("mine.py").write_text("1")
    with pytest.raises(Refused):
        told.run()
    assert [(each.step, each.outcome) for each in read(told)][-1] == ("restore", "refused")
    told.module("mine").unlink()
    told.run()
    with told.job().open_store() as opened:
        (had,) = (each for each in opened.snapshots() if each.id == read(told)[-1].snapshot)
        opened.drop([had.id])
    told.run()  # stored once more, from the venv that was restored
    with told.job().open_store() as opened:
        again = opened.snapshot(had.id)
    assert again is not None
    assert again.build_seconds == had.build_seconds > 0
    config = told.flow().config
    trim(replace(config, trim=replace(config.trim, keep=0, keep_per_venv=0)), {}, now=told.clock)
    trim(config, {}, now=told.clock)  # nothing to do
    back, *_, trimmed = read(told)[-3:]
    assert back.packages == (("alpha", "2.0", "1.0"), ("beta", "1.0", None))
    assert (trimmed.step, trimmed.venv, trimmed.outcome) == ("trim", "", "trimmed")
    assert trimmed.bytes


# --------------------------------------------------------------------------- what must not happen


def missed(world: World) -> Outcome:
    """Hash and miss, in one run."""
    job = world.job()
    hash_lockfiles(job)
    return restore(job)


@pytest.fixture
def world(tmp_path: Path, wheelhouse: Path) -> World:
    """Return a world with a venv that was never built, in a store that is there."""
    world = World(tmp_path, wheelhouse)
    world.configure({"api": {}})
    world.lock("api", world.wheel("alpha"))
    assert missed(world).did == "miss"
    return world


def test_a_locked_index_delays_a_step_a_little_and_then_the_next_one_writes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key that was new meanwhile comes with it."""
    waits: list[float] = []

    def never(act: Callable[[], object], *, seconds: float) -> object:
        waits.append(seconds)
        return patiently(act, seconds=0.0)

    monkeypatch.setattr(index_module, "patiently", never)
    before = len(read(world))
    world.lock("api", world.wheel("beta"))
    job = world.job()
    hash_lockfiles(job)
    with closing(sqlite3.connect(world.store / "index.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert restore(job).did == "miss"
        assert len(read(world)) == before
        assert waits[-1] == history.PATIENCE < 2
        other.execute("ROLLBACK")
    restore(job)
    assert [(each.step, each.outcome) for each in read(world)[before:]] == [
        ("hash-lockfiles", "new"),
        ("restore", "miss"),
        ("restore", "miss"),
    ]


@pytest.mark.parametrize(
    "error", ["database or disk is full", "disk I/O error", "attempt to write a readonly database"]
)
def test_an_index_that_cannot_be_written_fails_no_step(
    world: World, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    """Nothing is written then."""
    before = read(world)

    def refuse(index: Index, events: object) -> None:
        with index.writing():
            raise sqlite3.OperationalError(error)

    monkeypatch.setattr(history, "note", refuse)
    assert missed(world).did == "miss"
    assert read(world) == before


def test_a_step_fails_as_it_would_without_a_history(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the step's own error that is raised."""

    def refuse(*_: object) -> None:
        with index_of(world) as index, index.writing():
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(history, "note", refuse)
    world.lock("api", world.wheel("alpha")).write_text(NOWHERE)
    missed(world)
    with pytest.raises(BuildFailed):
        build_venv(world.job())


def index_of(world: World) -> closing[Index]:
    """Return the index of a world's store, open."""
    return closing(Index(str(world.store / "index.db")))


@pytest.mark.parametrize("fails", [False, True])
def test_while_a_step_is_at_work_garbage_is_looked_for_less_often(fails: bool) -> None:
    """What it knows of a large venv would be looked at again and again; what others set is set afterwards."""
    before, within = gc.get_threshold(), list[tuple[int, ...]]()

    def act() -> Outcome:
        within.append(gc.get_threshold())
        if fails:
            raise KeyboardInterrupt
        return Outcome("kept")

    with suppress(KeyboardInterrupt):
        noted("squish", mock.Mock(), mock.Mock(), act)
    assert within[0][0] > 10 * before[0]
    assert gc.get_threshold() == before
