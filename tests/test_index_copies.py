"""The index under other names, copied without its log, put back from an older backup: with real SQLite."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from contents import name_of, open_store, snapshot_of, stock
from test_index import fill
from test_store import answers, registration

from venvflow.disk.mounts import Mount
from venvflow.state import index as databases
from venvflow.state.index import Index
from venvflow.state.store import Store
from venvflow.state.sweeping import sweep


def counted(index: Index) -> int:
    """Return how many objects an index knows."""
    ((number,),) = index.rows("SELECT count(*) FROM objects")
    return int(number)


@pytest.fixture
def linked(tmp_path: Path) -> tuple[str, str]:
    """Give an index with one object, under two names in two directories, as ``cp -al`` makes them."""
    paths = [tmp_path / name / "index.db" for name in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
    with closing(Index(str(paths[0]))) as index:
        fill(index, {"a": b"a"})
    os.link(*paths)
    return str(paths[0]), str(paths[1])


# --------------------------------------------------------------------------- other names


def test_a_database_of_two_names_becomes_two(linked: tuple[str, str]) -> None:
    """Whoever opens it by one of them gets all that is in it; what is written there stays there."""
    one, two = linked
    with closing(Index(one)) as first, closing(Index(two)) as second:
        for number in range(50):
            first.add_objects({name_of(b"1 %d" % number): 1}, {})
            second.add_objects({name_of(b"2 %d" % number): 1, name_of(b"more %d" % number): 1}, {})
        assert (counted(first), counted(second)) == (51, 101)
    assert not os.path.samefile(one, two)
    for path in linked:
        with closing(Index(path)) as index:
            assert index.rows("PRAGMA integrity_check") == [("ok",)]
            assert index.rows("PRAGMA journal_mode") == [("wal",)]
    assert {name for path in linked for name in os.listdir(os.path.dirname(path))} == {"index.db"}


def test_what_is_in_the_log_is_not_left_behind(tmp_path: Path, linked: tuple[str, str]) -> None:
    """A killed run leaves its log, which belongs to the file whichever name that has."""
    one, _ = linked
    with closing(sqlite3.connect(one)) as killed:
        killed.execute("INSERT INTO objects(digest, executable, size) VALUES ('x', 0, 1)")
        killed.commit()
        for suffix in ("", "-wal"):
            shutil.copy(f"{one}{suffix}", tmp_path / f"index.db{suffix}")
    copied = str(tmp_path / "index.db")
    os.link(copied, tmp_path / "other.db")
    with closing(Index(copied)) as index:
        assert counted(index) == 2
    assert os.stat(copied).st_nlink == 1


def test_a_database_that_somebody_has_open_keeps_its_names(linked: tuple[str, str]) -> None:
    """A copy made beside a writer could miss what it writes; it is made when nobody has it open."""
    one, two = linked
    holder = sqlite3.connect(two)
    try:
        holder.execute("BEGIN")
        holder.execute("SELECT count(*) FROM objects").fetchone()
        with closing(Index(one)) as index:
            assert counted(index) == 1
        assert os.path.samefile(one, two)
    finally:
        holder.close()
    Index(one).close()
    assert not os.path.samefile(one, two)
    assert not list(Path(one).parent.glob("*.damaged-*"))


def test_what_a_kill_left_of_a_copy_is_written_over(linked: tuple[str, str]) -> None:
    """It is nobody's."""
    one, two = linked
    Path(f"{one}.own").write_bytes(b"half of a database")
    with closing(Index(one)) as index:
        assert counted(index) == 1
    assert not os.path.samefile(one, two)
    assert os.listdir(os.path.dirname(one)) == ["index.db"]


def test_a_damaged_database_of_two_names_is_put_aside_by_one(linked: tuple[str, str]) -> None:
    """The other name keeps it: who has that will find out by himself."""
    one, two = linked
    Path(one).write_bytes(b"no database at all " * 400)
    with closing(Index(one)) as index:
        assert index.fresh
    assert os.path.samefile(f"{one}.damaged-1", two)


# --------------------------------------------------------------------------- other machines


def test_on_a_network_file_system_there_is_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other machines would not see what is in it; locks of the file itself they see."""
    monkeypatch.setattr(databases, "mount_of", lambda _: Mount("nfs4", "/"))
    path = str(tmp_path / "index.db")
    with closing(Index(path)) as one, closing(Index(path)) as other:
        fill(one, {"a": b"a"})
        other.add_objects({name_of(b"b"): 1}, {})
        assert counted(one) == 2
        assert one.rows("PRAGMA journal_mode") == [("delete",)]
    assert os.listdir(tmp_path) == ["index.db"]
    monkeypatch.undo()
    with closing(Index(path)) as index:
        assert index.rows("PRAGMA journal_mode") == [("wal",)]


# --------------------------------------------------------------------------- other times


def publish(store: Store, *contents: dict[str, bytes], number: int) -> None:
    """Publish a snapshot of *contents*, and register the venv that was made from it."""
    store.publish(snapshot_of(stock(store, *contents), number), float(number))
    store.register(registration(f"/p/{number}/.venv", seen=float(number)))


def backed_up(store: Store, *, log: bool) -> dict[str, bytes]:
    """Return the files of the index, as somebody copies them while it is open."""
    wanted = ("index.db", "index.db-wal") if log else ("index.db",)
    return {name: Path(store.path, name).read_bytes() for name in wanted}


def put_back(store: Path, files: dict[str, bytes]) -> None:
    """Put a copy of the index in the place of the one that is there, with its log or without."""
    for name in ("index.db", "index.db-wal", "index.db-shm"):
        (store / name).unlink(missing_ok=True)
    for name, data in files.items():
        (store / name).write_bytes(data)


@pytest.mark.parametrize("log", [True, False], ids=["with its log", "without its log"])
def test_an_older_index_catches_up_with_the_store(tmp_path: Path, *, log: bool) -> None:
    """What came since is in it again, what went is not; only the history of use is the older one."""
    with open_store(tmp_path / "s") as store:
        publish(store, {"a": b"a", "b": b"bbb"}, number=1)
    with open_store(tmp_path / "s") as store:
        publish(store, {"b": b"bbb"}, {"c": b"c"}, number=2)
        used = store.index.usage()
        old = backed_up(store, log=log)
        gone, kept = (each.id for each in store.snapshots())
        store.drop([gone])
        store.unregister("/p/1/.venv")
        publish(store, {"c": b"c"}, {"d": b"d" * 100}, number=3)
        sweep(store)
        newest = answers(store)
    put_back(tmp_path / "s", old)
    with open_store(tmp_path / "s") as store:
        assert answers(store) != newest
        found = {summary.id for summary in store.summaries()}
        assert found == {snapshot.id for snapshot in store.snapshots()}  # whatever the index says
        store.catch_up(store.registrations())
        sweep(store)
        assert answers(store) == newest
        if log:
            assert store.index.usage()[kept] == used[kept]
