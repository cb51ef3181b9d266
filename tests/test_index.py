"""The index: answers, damage, other processes, and names of any bytes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contents import (
    KILLED,
    NOBODY,
    file_entry,
    for_everybody,
    in_child,
    name_of,
    needs_root,
    snapshot_of,
    tree_of,
)

from venvflow.cli.render import moment
from venvflow.disk.objects import MtimeMode, Name, sealed
from venvflow.disk.scan import Stamp
from venvflow.errors import EnvironmentFailure, LockTimeout
from venvflow.model import Entry, Manifest, Slot
from venvflow.pure.retention import Usage
from venvflow.state import index as module
from venvflow.state import schema
from venvflow.state.index import VERSION, Index, Stamped

NASTY = [
    "a b",
    "it's",
    '"quoted"',
    "a; DROP TABLE objects; --",
    "line\nbreak",
    "\udcff\udcfe",
    "%s",
    "Ä",
    "?1",
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Give a path for a database."""
    return str(tmp_path / "index.db")


@pytest.fixture
def index(path: str) -> Iterator[Index]:
    """Give an open, empty index."""
    with closing(Index(path)) as opened:
        yield opened


def others_are_kept_out(path: str) -> bool:
    """Return whether nobody else can begin to write."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        return False


def test_writing_keeps_others_out_from_its_begin(index: Index, path: str) -> None:
    """Who reads first and then wants to write would be refused, and no patience would help."""
    assert not others_are_kept_out(path)
    with index.writing():
        assert others_are_kept_out(path)
    assert not others_are_kept_out(path)


def test_a_migration_keeps_others_out_from_its_begin(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two programs that make one database, the second finds it made."""
    real, seen = module._apply_schema, list[bool]()

    def apply(db: sqlite3.Connection) -> None:
        seen.append(others_are_kept_out(path))
        real(db)

    monkeypatch.setattr(module, "_apply_schema", apply)
    Index(path).close()
    assert seen == [True]


def fill(index: Index, *contents: dict[str, bytes]) -> Manifest:
    """Add trees of *contents* with their objects, and return their manifest."""
    index.add_objects({name_of(d): len(d) for files in contents for d in files.values()}, {})
    trees = tuple(tree_of(files, f"demo{number}") for number, files in enumerate(contents))
    index.add_trees(trees)
    return Manifest(trees)


def view(index: Index, name: str) -> list[dict[str, object]]:
    """Return the rows of a view, as a user would see them."""
    with closing(sqlite3.connect(index.path)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(f"SELECT * FROM {name}")]  # noqa: S608 - a name of our own


# --------------------------------------------------------------------------- opening


def test_a_new_index_is_fresh_until_it_was_filled(path: str) -> None:
    """A kill between making and filling it must not leave an empty one that is believed."""
    for _ in range(2):
        with closing(Index(path)) as index:
            assert index.fresh
    with closing(Index(path)) as index:
        index.mark_filled()
        assert not index.fresh
    with closing(Index(path)) as index:
        assert not index.fresh


def test_the_database_is_in_wal_mode_and_has_its_version(index: Index) -> None:
    """Readers never wait for a writer."""
    assert index.rows("PRAGMA journal_mode") == [("wal",)]
    assert index.rows("PRAGMA user_version") == [(VERSION,)]
    assert index.rows("PRAGMA foreign_keys") == [(1,)]
    assert {name for (name,) in index.rows("SELECT name FROM sqlite_master WHERE type = 'view'")} == {
        *schema.VIEWS
    }


@pytest.mark.slow
def test_six_processes_open_a_fresh_file_at_once(path: str) -> None:
    """Each finds the whole schema and can write, whoever made it."""
    code = (
        "import sys\nfrom venvflow.state.index import Index\nfrom venvflow.disk.objects import Name\n"
        "sys.stdin.readline()\nindex = Index(sys.argv[1])\n"
        "index.add_objects({Name(sys.argv[2] * 64, False): 1}, {})\nindex.close()\n"
    )
    command = [sys.executable, "-c", code, path]
    processes = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for number in range(6)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    with closing(Index(path)) as index:
        assert index.rows("SELECT count(*) FROM objects") == [(6,)]


def damage_header(path: Path) -> None:
    """Overwrite the first bytes."""
    with path.open("r+b") as file:
        file.write(b"garbage!" * 4)


def damage_pages(path: Path) -> None:
    """Overwrite everything but the header."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * (size - 100))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"this is no database, but a text about something else " * 40),
        lambda path: path.write_bytes(path.read_bytes()[:50]),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        damage_header,
        damage_pages,
        lambda path: (path.unlink(), path.mkdir(), (path / "x").touch()),
    ],
    ids=["garbage", "50 bytes", "half", "header", "pages", "directory"],
)
def test_a_damaged_database_is_kept_aside_and_made_anew(path: str, damage: Callable[[Path], object]) -> None:
    """At once, or by the next run after the one that met the damage; never is it worked with."""
    with closing(Index(path)) as index:
        index.mark_filled()
        fill(index, {"a": b"a"})
    damage(Path(path))
    try:
        with closing(Index(path)) as index:
            if not index.fresh:
                index.rows("SELECT * FROM objects, trees, files, venvs, snapshots, bytecode, stamps")
                index.rows("PRAGMA integrity_check")
    except EnvironmentFailure as error:
        assert error.exit_code == 3  # noqa: PT017 - both are right
    with closing(Index(path)) as index:
        assert index.fresh
        fill(index, {"a": b"a"})
    assert Path(f"{path}.damaged-1").exists()


def test_a_damaged_database_keeps_its_log(path: str) -> None:
    """Under names that belong together, so that it can be looked into with all that was written."""
    with closing(Index(path)) as index:
        index.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        Path(path).write_bytes(b"garbage" * 1000)
        with closing(Index(path)) as other:
            assert other.fresh
    assert {"index.db.damaged-1", "index.db.damaged-1-wal"} <= {*os.listdir(os.path.dirname(path))}


def test_damage_that_is_met_late_is_told_with_where_it_is_now(path: str) -> None:
    """Nothing but running again is left to do: neither owner nor mode has to do with it."""
    with closing(Index(path)) as index:
        fill(index, {"a": b"a"})
        ((page,),) = index.rows("SELECT rootpage FROM sqlite_master WHERE name = 'objects'")
        ((size,),) = index.rows("PRAGMA page_size")
        index.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(path, "r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with closing(Index(path)) as index, pytest.raises(EnvironmentFailure) as raised:
        index.rows("SELECT * FROM objects")
    text = f"It is kept as {path}.damaged-1. Run again: a new one is made from what the store has."
    assert str(raised.value).endswith(text)


def test_only_the_damaged_database_is_moved_aside(path: str) -> None:
    """Who met the damage late does not move the new one that another has made meanwhile."""
    with closing(Index(path)) as late:
        late.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        Path(path).write_bytes(b"garbage" * 1000)
        with closing(Index(path)) as index:
            index.mark_filled()
        late._move_aside()
    with closing(Index(path)) as index:
        assert not index.fresh
    assert not Path(f"{path}.damaged-2").exists()


@pytest.mark.parametrize("offset", [*range(0, 100, 7), 18, 19, 100, 105])
def test_a_flipped_byte_of_the_header_stops_nobody_for_ever(path: str, offset: int) -> None:
    """The second run at the latest works: with the index as it is, or with a new one."""
    with closing(Index(path)) as index:
        index.mark_filled()
    data = bytearray(Path(path).read_bytes())
    data[offset] ^= 0xFF
    Path(path).write_bytes(data)
    try:
        with closing(Index(path)) as index:
            fill(index, {"a": b"a"})
    except EnvironmentFailure as error:
        if "of version" in error.what:
            return
    with closing(Index(path)) as index:
        fill(index, {"a": b"a"})


def test_an_empty_file_is_a_new_index(path: str) -> None:
    """That is what a kill in the first moment leaves."""
    Path(path).touch()
    with closing(Index(path)) as index:
        assert index.fresh
    assert not Path(f"{path}.damaged-1").exists()


def test_a_database_without_our_tables_is_kept_aside(path: str) -> None:
    """Whoever put it there finds it again."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("CREATE TABLE mine (x)")
    with pytest.raises(EnvironmentFailure), closing(Index(path)) as index:
        index.usage()
    with closing(Index(path)) as index:
        assert index.fresh


@pytest.mark.parametrize(
    "view", ["SELECT load_extension('/x') AS digest", "SELECT unknown(1) AS digest", "SELECT 1 AS digest"]
)
def test_a_view_in_the_place_of_a_table_is_damage(path: str, view: str) -> None:
    """Whatever it would run: SQLite refuses to, and the next run makes the index again."""
    with closing(Index(path)) as index:
        index.mark_filled()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"PRAGMA foreign_keys = off; DROP TABLE objects; CREATE VIEW objects AS {view};")
    with suppress(EnvironmentFailure), closing(Index(path)) as index:
        fill(index, {"a": b"a"})
    with closing(Index(path)) as index:
        fill(index, {"a": b"a"})
        assert index.fresh


def test_a_newer_version_is_not_touched(path: str) -> None:
    """The error names both versions; the file has the same bytes afterwards."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
        db.execute("PRAGMA journal_mode = WAL")
    before = Path(path).read_bytes()
    with pytest.raises(EnvironmentFailure, match=rf"version {VERSION + 1}.*knows {VERSION}"):
        Index(path)
    assert Path(path).read_bytes() == before


@pytest.fixture
def older(path: str) -> str:
    """Give an index as the first version left it: the same tables, views of its own, history of use."""
    with closing(Index(path)) as index:
        index.mark_filled()
        index.add_snapshot(snapshot_of(fill(index, {"a": b"a"}), 1), 77.0)
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP VIEW venv_content")
        db.execute("DROP VIEW packages")
        db.execute("CREATE VIEW packages AS SELECT 'of the first version' AS package")
        db.execute("PRAGMA user_version = 1")
    return path


def test_an_older_version_is_brought_up_to_date_and_keeps_its_history(older: str) -> None:
    """Tables stay, views are made anew."""
    with closing(Index(older)) as index:
        assert not index.fresh
        assert index.rows("PRAGMA user_version") == [(VERSION,)]
        assert [usage.at for usage in index.usage().values()] == [77.0]
        assert view(index, "packages") == []
    assert os.listdir(os.path.dirname(older)) == ["index.db"]


def test_a_migration_that_is_killed_is_done_again(older: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a part of it was done, and after all of it but the end."""
    real = schema.apply

    def half(db: sqlite3.Connection) -> None:
        db.execute("DROP VIEW packages")
        os._exit(KILLED)

    def whole(db: sqlite3.Connection) -> None:
        real(db)
        os._exit(KILLED)

    for apply in (half, whole):
        with monkeypatch.context() as patch:
            patch.setattr(schema, "apply", apply)
            assert in_child(lambda: Index(older).close()) == KILLED
        with closing(sqlite3.connect(older)) as db:
            assert db.execute("SELECT package FROM packages").fetchall() == [("of the first version",)]
    with closing(Index(older)) as index:
        assert [usage.at for usage in index.usage().values()] == [77.0]
        assert view(index, "packages") == []


def test_a_failed_migration_leaves_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either all tables are there, or none."""

    def fail(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE half (x)")
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(schema, "apply", fail)
        with pytest.raises(RuntimeError):
            Index(path)
    with closing(Index(path)) as index:
        assert index.rows("SELECT name FROM sqlite_master WHERE name = 'half'") == []


def test_deletion_while_open_costs_history_only(path: str) -> None:
    """Who has it open works on, who comes later makes a new one; stale logs are not taken for its own."""
    with closing(Index(path)) as index:
        fill(index, {"a": b"a"})
        os.unlink(path)
        fill(index, {"b": b"b"})
        with closing(Index(path)) as later:
            assert later.fresh
            assert later.rows("SELECT count(*) FROM objects") == [(0,)]
            fill(later, {"c": b"c"})
    with closing(Index(path)) as last:
        assert last.rows("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.slow
def test_a_busy_holder_is_a_lock_timeout(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening waits no longer than it may, and so does writing; reading does not wait at all."""
    monkeypatch.setattr(module, "_WAIT_SECONDS", 0.05)
    with closing(Index(path)) as index, closing(sqlite3.connect(path, isolation_level=None)) as holder:
        fill(index, {"a": b"a"})
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(LockTimeout) as caught:
            index.add_objects({name_of(b"x"): 1}, {})
        assert caught.value.exit_code == 5
        assert len(index.rows("SELECT * FROM objects")) == 1
        holder.execute("ROLLBACK")
        index.add_objects({name_of(b"x"): 1}, {})


@pytest.mark.slow
def test_a_holder_of_a_fresh_file_is_a_lock_timeout_too(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not mistaken for damage and moved aside."""
    monkeypatch.setattr(module, "_WAIT_SECONDS", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LockTimeout):
            Index(path)
    assert os.listdir(os.path.dirname(path)) in (["index.db"], [])


def test_many_may_make_the_same_index_at_once(tmp_path: Path) -> None:
    """SQLite tells some of those who switch a new database to WAL together that it is locked, at once."""
    rounds, openers = 40, 6
    together = threading.Barrier(openers)

    def open_all(_: int) -> None:
        try:
            for number in range(rounds):
                together.wait()
                Index(str(tmp_path / f"{number}.db")).close()
        finally:
            together.abort()  # the others need not wait for who failed

    with ThreadPoolExecutor(openers) as pool:
        ended = [pool.submit(open_all, opener) for opener in range(openers)]
    errors = [error for each in ended if (error := each.exception()) is not None]
    assert [error for error in errors if not isinstance(error, threading.BrokenBarrierError)] == []


def test_a_directory_that_is_not_there_is_an_error_in_four_parts(tmp_path: Path) -> None:
    """Nothing is made but where a store is."""
    with pytest.raises(EnvironmentFailure) as caught:
        Index(str(tmp_path / "none" / "index.db"))
    assert all((caught.value.what, caught.value.where, caught.value.state, caught.value.hint))


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("name", ["index.db", "in de#x?%41.db"])
def test_who_may_not_write_can_read(name: str) -> None:
    """A store that somebody else keeps is good enough to restore from; writing is an error."""
    with for_everybody() as directory:
        path = f"{directory}/{name}"
        with closing(Index(path)) as index:
            fill(index, {"a": b"a"})
            index.add_objects({name_of(b"b"): 1}, {name_of(b"b"): MtimeMode(77, 0o644)})

        def work() -> None:
            with closing(Index(path)) as index:
                assert index.adopted() == {name_of(b"b"): MtimeMode(77, 0o644)}
                with pytest.raises(EnvironmentFailure):
                    index.add_objects({name_of(b"c"): 1}, {})

        assert in_child(work, user=NOBODY) == 0
        assert os.listdir(directory) == [name]
        os.chmod(path, 0)

        def cannot() -> None:
            with pytest.raises(EnvironmentFailure):
                Index(path)

        assert in_child(cannot, user=NOBODY) == 0


# --------------------------------------------------------------------------- transactions


def test_nested_writes_are_one_transaction(index: Index) -> None:
    """An error takes back all of it."""
    with pytest.raises(RuntimeError), index.writing():  # noqa: PT012 - the work before counts
        fill(index, {"a": b"a"})
        raise RuntimeError
    assert index.rows("SELECT count(*) FROM objects") == [(0,)]
    fill(index, {"a": b"a"})
    assert index.rows("SELECT count(*) FROM objects") == [(1,)]


# --------------------------------------------------------------------------- rows


def test_objects_are_remembered_with_what_is_known_of_them_last(index: Index) -> None:
    """An object that was adopted once and is our own now has no mtime of its own any more."""
    plain, script = name_of(b"x"), Name(name_of(b"x").digest, executable=True)
    index.add_objects({plain: 1, script: 1}, {plain: MtimeMode(5, 0o600), script: MtimeMode(6, 0o755)})
    assert index.adopted() == {plain: MtimeMode(5, 0o600), script: MtimeMode(6, 0o755)}
    index.add_objects({plain: 1}, {})
    assert index.adopted() == {script: MtimeMode(6, 0o755)}


@pytest.mark.slow
def test_tens_of_thousands_of_rows_go_in_and_out(index: Index) -> None:
    """A large venv is one transaction."""
    files = {f"lib/{number}.py": b"%d" % number for number in range(20_000)}
    manifest = fill(index, files)
    fill(index, files)
    assert index.rows("SELECT count(*) FROM files") == [(20_000,)]
    stamped = {path: Stamped(Stamp(1, 2, 3, 4), file_entry(path, data)) for path, data in files.items()}
    index.set_stamps("/v", stamped)
    assert index.stamps("/v") == stamped
    index.retain([], [])
    assert index.rows("SELECT count(*) FROM files") == [(0,)]
    assert manifest.trees


def test_names_of_any_bytes_come_back(index: Index) -> None:
    """Quotes, semicolons and non-UTF-8 are only names, wherever they stand."""
    files = {f"lib/{name}": name.encode("utf-8", "surrogateescape") for name in NASTY}
    (tree,) = fill(index, files).trees
    paths = {os.fsdecode(path) for (path,) in index.rows("SELECT path FROM files")}
    assert paths == {*files}
    for name in NASTY:
        stamped = {
            name: Stamped(
                Stamp(1, 2, -3, 4),
                Entry(name, "template", "d" * 64, True, 5, "", (Slot(1, "venv", "sh", name),)),
            )
        }
        index.set_stamps(f"/{name}", stamped)
        assert index.stamps(f"/{name}") == stamped
        index.register(f"/{name}", snapshot=None, now=1.0)
        made = {("c" * 64, name): None}
        index.add_objects({Name("c" * 64, executable=False): 1}, {})
        index.add_bytecode(f"i{name}".encode("utf-8", "replace").decode(), made)
        assert index.bytecode(f"i{name}".encode("utf-8", "replace").decode()) == made
    snapshot = snapshot_of(Manifest((tree_of({}, NASTY[5], NASTY[5]), tree)), place=NASTY[5])
    index.add_trees([tree_of({}, NASTY[5], NASTY[5])])
    index.add_snapshot(replace(snapshot, command=NASTY[5], venv=NASTY[3]), 1.0)
    assert len(index.rows("SELECT * FROM snapshot_trees")) == 2
    for name in NASTY:
        index.forget_venv(f"/{name}")
    assert index.rows("SELECT count(*) FROM venvs") == [(0,)]
    assert index.rows("SELECT count(*) FROM stamps") == [(0,)]


def test_stamps_are_replaced_as_a_whole_and_by_venv(index: Index) -> None:
    """What is not there any more is forgotten; another venv's are left alone."""
    one, two = (Stamped(Stamp(1, 2, 3, 4), file_entry(path, b"x")) for path in "ab")
    index.set_stamps("/v", {"a": one})
    index.set_stamps("/w", {"a": one})
    index.set_stamps("/v", {"b": two})
    assert index.stamps("/v") == {"b": two}
    assert index.stamps("/w") == {"a": one}
    assert index.stamps("/none") == {}


def test_bytecode_is_remembered_by_source_path_and_interpreter(index: Index) -> None:
    """A source that does not compile is known as such; what compiled to something lost is unknown."""
    source, pyc, lost = (name_of(data) for data in (b"s", b"p", b"lost"))
    index.add_objects({source: 1, pyc: 1}, {})
    index.add_bytecode(
        "i",
        {
            (source.digest, "a.py"): (pyc, 1),
            (source.digest, "b.py"): None,
            (source.digest, "c.py"): (lost, 4),
        },
    )
    index.add_bytecode("i", {("unknown source", "d.py"): (pyc, 1)})
    assert index.bytecode("i") == {(source.digest, "a.py"): (pyc, 1), (source.digest, "b.py"): None}
    assert index.bytecode("other") == {}
    assert index.bytecode("i", [pyc.digest, source.digest]) == index.bytecode("i")
    assert index.bytecode("i", [pyc.digest]) == index.bytecode("other", [source.digest]) == {}
    script = name_of(b"script", executable=True)
    index.add_objects({script: 6}, {})
    index.add_bytecode("i", {(script.digest, "e.py"): (pyc, 1)})
    assert index.bytecode("i")[script.digest, "e.py"] == (pyc, 1)
    index.forget_objects([pyc])
    assert index.bytecode("i") == {(source.digest, "b.py"): None}


def test_a_source_that_lies_at_many_paths_is_looked_up_once(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of the sources of a venv are empty: for each of them, all of them would be answered."""
    source, pyc = name_of(b""), name_of(b"p")
    index.add_objects({source: 0, pyc: 1}, {})
    index.add_bytecode("i", {(source.digest, f"{number}.py"): (pyc, 1) for number in range(20)})
    read: list[Any] = []
    rows = Index.rows

    def counted(asked: Index, *words: Any) -> list[Any]:
        read.extend(found := rows(asked, *words))
        return found

    monkeypatch.setattr(Index, "rows", counted)
    assert len(index.bytecode("i", [source.digest] * 20)) == len(read) == 20


def test_forgetting_an_object_forgets_the_trees_that_list_it(index: Index) -> None:
    """Whatever order things were lost in, forgetting never fails."""
    fill(index, {"a": b"a", "b": b"b"}, {"b": b"b"}, {"c": b"c"})
    index.forget_objects([name_of(b"a")])
    assert [name for (name,) in index.rows("SELECT name FROM trees ORDER BY name")] == ["demo1", "demo2"]


def test_retain_keeps_what_is_named_and_nothing_else(index: Index) -> None:
    """What vanished from disk unnoticed goes, too."""
    manifest = fill(index, {"a": b"a", "s": b"s"}, {"b": b"b", "s": b"s"})
    kept = manifest.trees[0]
    index.retain([kept.digest, "unknown"], [name_of(b"a"), name_of(b"s"), name_of(b"unknown")])
    assert index.rows("SELECT digest FROM trees") == [(kept.digest,)]
    assert {digest for (digest,) in index.rows("SELECT digest FROM objects")} == {
        name_of(b"a").digest, name_of(b"s").digest,
    }  # fmt: skip


def test_uses_are_counted_in_order_whatever_the_clock_says(index: Index) -> None:
    """The counter decides what was used last."""
    manifest = fill(index, {"a": b"a"})
    one, two = snapshot_of(manifest, 1), snapshot_of(manifest, 2)
    index.add_snapshot(one, 200.0)
    index.add_snapshot(two, 100.0)
    assert index.usage() == {one.id: Usage(1, 200.0), two.id: Usage(2, 100.0)}
    index.touch_snapshot(one.id, 50.0)
    assert index.usage()[one.id] == Usage(3, 50.0)
    index.forget_snapshots([one.id])
    assert index.usage().keys() == {two.id}


# --------------------------------------------------------------------------- views


def test_package_usage_says_which_venvs_have_what(index: Index) -> None:
    """One row per distribution and snapshot."""
    manifest = fill(index, {"a": b"aaa", "b": b"b"}, {"c": b"c"})
    index.add_snapshot(snapshot_of(manifest, 1), 1.0)
    index.add_snapshot(snapshot_of(Manifest(manifest.trees[:1]), 2), 1.0)
    rows = {
        (row["package"], row["venv"]): (row["version"], row["files"], row["bytes"])
        for row in view(index, "package_usage")
    }
    assert rows == {
        ("demo0", "venv1"): ("1.0", 2, 4),
        ("demo0", "venv2"): ("1.0", 2, 4),
        ("demo1", "venv1"): ("1.0", 1, 1),
    }


def test_venv_sizes_tell_own_bytes_from_shared_ones(index: Index) -> None:
    """A file twice in one venv is still its own; one in two venvs is neither's."""
    manifest = fill(index, {"a": b"own!", "again": b"own!", "s": b"shared"}, {"t": b"shared"}, {})
    for number, trees in enumerate([manifest.trees[:1], manifest.trees[1:2], manifest.trees[2:]]):
        index.add_snapshot(snapshot_of(Manifest(trees), number), 1.0)
    rows = {row["venv"]: (row["files"], row["bytes"], row["own_bytes"]) for row in view(index, "venv_sizes")}
    assert rows == {"venv0": (3, 14, 4), "venv1": (1, 6, 0), "venv2": (0, 0, 0)}


def place(index: Index, path: str, manifest: Manifest, snapshot: str | None = None) -> None:
    """Register a venv: with its snapshot, or with what is in it."""
    trees = [] if snapshot else [tree.digest for tree in manifest.trees]
    index.register(path, snapshot=snapshot, now=1.0, trees=trees)


def test_savings_add_up(index: Index) -> None:
    """What the venvs show, less the bytes behind it, each once."""
    assert view(index, "savings")[0]["saved_bytes"] == 0
    manifest = fill(index, {"a": b"12345"}, {"b": b"123"})
    first = snapshot_of(Manifest(manifest.trees[:1]), 1)
    index.add_snapshot(first, 1.0)
    place(index, "/a", manifest, first.id)
    place(index, "/b", manifest, first.id)
    place(index, "/c", Manifest(manifest.trees[:1]))
    assert view(index, "savings") == [
        {
            "venvs": 3, "venv_bytes": 15, "snapshots": 1, "snapshot_bytes": 5, "objects": 2,
            "stored_bytes": 8, "saved_bytes": 10,
        }
    ]  # fmt: skip


def test_packages_say_what_each_costs(index: Index) -> None:
    """In how many venvs, at how many versions, bytes as they show and as they are stored."""
    manifest = fill(index, {"a": b"12345", "s": b"same"}, {"b": b"1", "s": b"same"})
    place(index, "/a", manifest)
    place(index, "/b", Manifest(manifest.trees[:1]))
    assert {row["package"]: tuple(row.values())[1:] for row in view(index, "packages")} == {
        "demo0": (1, 2, 18, 9),
        "demo1": (1, 1, 5, 5),
    }
    index.register("/a", snapshot=None, now=2.0)
    assert [row["package"] for row in view(index, "packages")] == ["demo0"]


# --------------------------------------------------------------------------- rows that others wrote


WRONG = [
    None, -1, 1 << 62, -(1 << 63), 1.5, float("inf"), -1e308, "", "x", "\0", "../../../x", "[" * 5000,
    '{"a": [1]}', "[[1, 2, 3, 4], [5]]", b"\xff", b"a",
]  # fmt: skip


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Index, Manifest]]:
    """Give an index with something in every table, each of whose columns takes anything."""
    path = str(tmp_path_factory.mktemp("loose") / "index.db")
    with closing(Index(path)) as index:
        manifest = fill(index, {"lib/a.py": b"a", "lib/b.py": b"b"})
        index.add_objects({name_of(b"a"): 1}, {name_of(b"a"): MtimeMode(7, 0o644)})
        index.add_bytecode("i", {(name_of(b"a").digest, "lib/a.py"): (name_of(b"b"), 1)})
        index.add_snapshot(snapshot_of(manifest, place="p"), 1.0)
        index.set_stamps("/v", {"a": Stamped(Stamp(1, 2, 3, 4), file_entry("a", b"a"))})
        index.register("/v", snapshot=None, now=1.0)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            "UPDATE sqlite_master SET sql ="
            " replace(replace(replace(sql, 'STRICT,', ''), 'STRICT', ''), 'NOT NULL', '')"
        )
        db.commit()
    with closing(Index(path)) as index:
        yield index, manifest


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: ascii(value)[:20])
def test_rows_of_wrong_types_are_not_believed(loose: tuple[Index, Manifest], wrong: object) -> None:
    """Whatever somebody writes into a column, answers are of the types that they should be, or left out."""
    index, manifest = loose
    tables = [name for (name,) in index.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = [(table, row[1]) for table in tables for row in index.rows(f"PRAGMA table_info({table})")]
    taken = 0
    for table, column in columns:
        with suppress(_Undone, sqlite3.IntegrityError, EnvironmentFailure), index.writing() as db:
            db.execute(f"UPDATE {table} SET {column} = ?", (wrong,))  # noqa: S608 - names of our own
            taken += 1
            _ask_everything(index, manifest)
            raise _Undone
    assert taken > len(columns) / 2


class _Undone(Exception):
    """Ends a transaction of which nothing is to stay."""


def _ask_everything(index: Index, manifest: Manifest) -> None:
    """See that all answers are of their types and can be told, and that what writes goes on."""
    assert all(
        len(name.digest) == 64 and {int} == {*map(type, look)} for name, look in index.adopted().items()
    )
    for source, found in index.bytecode("i").items():
        assert all(type(each) is str for each in source)
        assert found is None or (len(found[0].digest) == 64 and type(found[1]) is int)
    for summary in index.summaries().values():
        assert summary.used is not None
        assert all(map(moment, (summary.created, summary.used.at)))
        assert {type(each) for each in (summary.id, summary.key, summary.venv, summary.python)} == {str}
    assert all(type(each.seq) is int and type(each.at) is float for each in index.usage().values())
    for identifier, parts, venv, seq in index.snapshot_keys():
        assert [type(each) for each in (identifier, parts, venv, seq)] == [str, dict, str, int]
    assert all(len(each.entry.digest) == 64 for each in index.stamps("/v").values())
    assert all(type(path) is str for path in index.seen())
    index.add_snapshot(snapshot_of(manifest, 2), 1.0)
    index.touch_snapshot("a" * 64, 2.0)
    index.pull_back(3.0)
    index.set_stamps("/v", {})
    index.retain([], [])


def test_text_that_is_not_utf8_makes_the_index_anew(path: str) -> None:
    """SQLite does not look at what it keeps: what cannot be read is damage, and stops nobody for ever."""
    with closing(Index(path)) as index:
        fill(index, {"lib/a.py": b"a"})
        index.mark_filled()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE trees SET digest = CAST(X'ff' AS TEXT)")
    with closing(Index(path)) as index, pytest.raises(EnvironmentFailure, match="cannot use the index"):
        index.unknown_trees([])
    with closing(Index(path)) as index:
        assert index.fresh
    assert Path(f"{path}.damaged-1").exists()


@pytest.mark.parametrize("number", [1 << 63, (1 << 64) - 1, 32_503_680_000 * 10**9, -(1 << 70)])
def test_numbers_that_fit_into_no_column_are_kept_all_the_same(index: Index, number: int) -> None:
    """Inodes of some file systems, and times after 2262: a venv with such files is a venv like others."""
    stamped = {"a": Stamped(Stamp(number, 1, number, number), file_entry("a", b"x"))}
    index.set_stamps("/v", stamped)
    assert index.stamps("/v") == stamped
    index.add_objects({name_of(b"x"): 1}, {name_of(b"x"): MtimeMode(number, 0o644)})
    assert index.adopted()[name_of(b"x")].mtime_ns != sealed(name_of(b"x")).mtime_ns
