"""The store: its directory, snapshots, registered venvs, index and sweeps."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contents import (
    KILLED,
    NOBODY,
    dies_at,
    for_everybody,
    in_child,
    killed_at_each,
    mounted,
    name_of,
    needs_root,
    open_store,
    picture,
    put,
    snapshot_of,
    stock,
    tree_of,
)
from hypothesis import given
from hypothesis import strategies as st
from tiers import first_quick

from venvflow.disk.files import read_small
from venvflow.disk.objects import MtimeMode, Name, object_names
from venvflow.errors import EnvironmentFailure, LockTimeout, Refused, StoreFormatError
from venvflow.model import FORMAT, Manifest, Snapshot, StoreConfig
from venvflow.pure.manifest import Corrupt, encode_snapshot
from venvflow.state.reader import README, open_reader
from venvflow.state.registry import Registration
from venvflow.state.store import Store, bytecode_id
from venvflow.state.sweeping import Swept, sweep

PYC = "lib/python3.12/site-packages/__pycache__/a.cpython-312.pyc"


def registration(path: str, **more: Any) -> Registration:
    """Return the registration of a venv at *path*."""
    values: dict[str, Any] = {
        "project": os.path.dirname(path), "name": "api", "key": "c" * 64, "place": "", "link": "hardlink",
        "trees": (), "inode": 12, "seen": 5.0,
    }  # fmt: skip
    return Registration(path=path, **{**values, **more})


def names_in(store: Store) -> set[Name]:
    """Return all objects on disk."""
    return {name for name, _ in store.objects.names()}


def blocks(directory: str) -> int:
    """Return the bytes that everything below *directory* occupies, as du counts them, but for directories."""
    seen = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            found = os.lstat(os.path.join(parent, name))
            seen[found.st_ino] = found.st_blocks * 512
    return sum(seen.values())


# --------------------------------------------------------------------------- opening


def test_a_new_store_has_its_layout_and_says_what_it_is(tmp_path: Path) -> None:
    """People find out what it is and how to get rid of it; backups do not leave it out."""
    with open_store(tmp_path / "deep" / "store") as store:
        assert sorted(os.listdir(store.path)) == sorted(
            ["README", "format", "objects", "trees", "snapshots", "venvs", "holds", "frames", "tmp", "locks"]
        )
        assert Path(store.path, "README").read_text() == README
        assert Path(store.path, "format").read_text() == f"{FORMAT}\n"
        assert not store.read_only
    assert not list(tmp_path.rglob("CACHEDIR.TAG"))


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_store_works_under_every_umask(tmp_path: Path, umask: int) -> None:
    """None makes a store that everybody may write, which the next run would refuse."""

    def work() -> None:
        os.umask(umask)
        for _ in range(2):
            with open_store(tmp_path / "store") as store:
                store.publish(snapshot_of(stock(store, {"a": b"a"})), 1.0)

    assert in_child(work) == 0
    for parent, _, names in os.walk(tmp_path / "store"):
        for path in [parent, *(os.path.join(parent, name) for name in names)]:
            assert not os.stat(path).st_mode & stat.S_IWOTH or path.endswith(("-wal", "-shm", ".db")), path


@pytest.mark.parametrize(
    "prepare",
    [lambda _: None, lambda path: (path / ".DS_Store").touch(), lambda path: (path / "lost+found").mkdir()],
)
def test_an_empty_directory_becomes_a_store(tmp_path: Path, prepare: Callable[[Path], object]) -> None:
    """A freshly mounted volume, for instance."""
    (tmp_path / "store").mkdir()
    prepare(tmp_path / "store")
    open_store(tmp_path / "store").close()
    assert (tmp_path / "store/format").exists()


@pytest.mark.parametrize(
    "files",
    [
        ["thesis.tex"],
        ["README"],
        ["tmp/mine"],
        ["README", "tmp/mine"],
        ["objects"],
        ["format.txt"],
        ["trees/x/y"],
    ],
)
def test_a_foreign_directory_is_refused_and_left_as_it_is(tmp_path: Path, files: list[str]) -> None:
    """Even if its names are those of a store: what lies in ``tmp`` would be deleted one day."""
    for name in files:
        (tmp_path / "store" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / name).touch()
    before = picture(tmp_path)
    with pytest.raises(Refused, match="not empty and not a store") as caught:
        open_store(tmp_path / "store")
    assert caught.value.exit_code == 6
    assert picture(tmp_path) == before


@pytest.mark.slow
def test_whenever_making_a_store_is_killed_the_next_run_completes_it(tmp_path: Path) -> None:
    """What was begun is known for what it is."""
    path = tmp_path / "store"
    functions = ("mkdir", "link", "unlink", "open")
    for when in killed_at_each(
        lambda: open_store(path).close(), functions, lambda: shutil.rmtree(path, ignore_errors=True)
    ):
        open_store(path).close()
        assert (path / "README").read_text() == README, when


def test_a_store_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    """The message has the command that mends it, with all that is below."""
    with open_store(tmp_path / "my store") as store:
        stock(store, {"lib/one": b"1", "lib/two": b"2"})
    subprocess.run(["chmod", "-R", "a+rwX", str(tmp_path / "my store")], check=True)
    with pytest.raises(Refused, match="everybody may write") as caught:
        open_store(tmp_path / "my store")
    subprocess.run(["sh", "-c", caught.value.hint], check=True)
    open_store(tmp_path / "my store").close()


@pytest.mark.parametrize("text", [f"{FORMAT + 1}\n", "1.5"])
def test_another_format_is_not_touched(tmp_path: Path, text: str) -> None:
    """The error names both formats and what to do."""
    open_store(tmp_path / "store").close()
    (tmp_path / "store/format").write_text(text, encoding="latin-1")
    before = picture(tmp_path)
    with pytest.raises(StoreFormatError, match=f"this venvflow knows {FORMAT}") as caught:
        open_store(tmp_path / "store")
    assert caught.value.exit_code == 3
    assert picture(tmp_path) == before


@pytest.mark.parametrize("make", [lambda path: path.touch(), lambda path: path.symlink_to("none/none")])
def test_what_cannot_be_opened_is_an_error_in_four_parts(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    """A file, or a link to where nothing can be made."""
    (tmp_path / "none").touch()
    make(tmp_path / "store")
    with pytest.raises(EnvironmentFailure) as caught:
        open_store(tmp_path / "store")
    assert all((caught.value.what, caught.value.where, caught.value.state, caught.value.hint))


def test_a_store_where_files_have_one_name_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects, trees, snapshots and registrations get theirs by moving; what is there already stays."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    for _ in range(2):
        with open_store(tmp_path / "store", durability="full") as store:
            manifest = stock(store, {"a": b"one", "b": b"two"})
            store.publish(snapshot_of(manifest), 1.0)
            assert store.snapshot(snapshot_of(manifest).id) == snapshot_of(manifest)
            assert all(store.objects.verified(name) for tree in manifest.trees for name in object_names(tree))
    assert os.listdir(tmp_path / "store/tmp") == []
    assert not os.path.lexists(tmp_path / "store/quarantine") or not os.listdir(tmp_path / "store/quarantine")


def test_a_file_system_without_executable_bits_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On FAT all files have one mode: every object would look damaged, and every restore be a miss."""
    real = os.fchmod
    monkeypatch.setattr(os, "fchmod", lambda fd, _: real(fd, 0o700))
    with pytest.raises(EnvironmentFailure, match="has no executable bits"):
        open_store(tmp_path / "store")
    with pytest.raises(EnvironmentFailure, match="has no executable bits"):
        open_store(tmp_path / "store")
    assert not (tmp_path / "store/format").exists()


@needs_root
@pytest.mark.root
def test_a_store_that_one_may_not_read_is_an_error() -> None:
    """It names the path and what to check."""
    with for_everybody() as directory:
        open_store(directory / "store").close()
        (directory / "store").chmod(0o700)

        def work() -> None:
            with pytest.raises(EnvironmentFailure, match="cannot open the store"):
                open_store(directory / "store")

        assert in_child(work, user=NOBODY) == 0


def can_be_read(directory: Path, snapshot: Snapshot) -> None:
    """Fail unless all that reading needs works, and nothing is written."""
    with open_store(directory) as store:
        assert store.read_only
        with store.use():
            assert store.find(snapshot.key.digest, "x") == snapshot
            (tree,) = store.load(snapshot).trees
            assert all(store.objects.verified(name) for name in object_names(tree))
            assert store.adopted() == {name_of(b"adopted"): MtimeMode(7, 0o644)}
            assert store.index.usage().keys() == {snapshot.id}
            damaged = directory / "snapshots" / f"{'0' * 64}.json"
            assert store.snapshot("0" * 64) is None
            assert damaged.exists()
            store.objects.quarantine(name_of(b"a"))
            assert store.objects.verified(name_of(b"a"))
            with pytest.raises(EnvironmentFailure):
                store.publish(replace(snapshot, id="1" * 64), 1.0)


def furnish(directory: Path) -> Snapshot:
    """Make a store with a snapshot, an adopted object and a damaged snapshot."""
    with open_store(directory) as store:
        snapshot = snapshot_of(stock(store, {"lib/a": b"a"}))
        store.publish(snapshot, 1.0)
        store.index.add_objects({name_of(b"adopted"): 7}, {name_of(b"adopted"): MtimeMode(7, 0o644)})
        with store.use():
            pass
    (directory / "snapshots" / f"{'0' * 64}.json").write_bytes(b"damaged")
    return snapshot


@needs_root
@pytest.mark.root
def test_a_store_on_a_read_only_mount_can_be_read(tmp_path: Path) -> None:
    """Restoring from it works; nothing tries to mend it."""
    snapshot = furnish(tmp_path / "store")
    with mounted(tmp_path / "mount", "--bind", "-o", "ro", str(tmp_path / "store")) as mount:
        if os.access(mount, os.W_OK):
            os.system(f"mount -o remount,ro,bind {mount}")  # noqa: S605 - a path of our own
        can_be_read(mount, snapshot)


@needs_root
@pytest.mark.root
def test_another_users_store_can_be_read() -> None:
    """A store that the administrator fills, for instance."""
    with for_everybody() as directory:
        snapshot = furnish(directory / "store")
        (directory / "store").chmod(0o755)
        assert in_child(lambda: can_be_read(directory / "store", snapshot), user=NOBODY) == 0


# --------------------------------------------------------------------------- locks


def test_nobody_sweeps_while_somebody_uses_the_store(tmp_path: Path) -> None:
    """Users share it; who wants it alone waits for all of them."""
    with open_store(tmp_path / "s") as one, open_store(tmp_path / "s") as two:
        two.timeout = 0.05
        with one.use(), two.use():
            pass
        with one.use(), pytest.raises(LockTimeout), two.alone():
            pass
        with one.alone(), pytest.raises(LockTimeout), two.use():
            pass


def test_a_build_is_claimed_by_one(tmp_path: Path) -> None:
    """Per key; and the claim can be given back."""
    with open_store(tmp_path / "s") as store:
        first = store.claim("a")
        assert first is not None
        assert store.claim("a") is None
        other = store.claim("b")
        assert other is not None
        first.release()
        again = store.claim("a")
        assert again is not None
        again.release()
        other.release()


# --------------------------------------------------------------------------- snapshots


def test_a_snapshot_is_found_by_its_key_and_gives_back_its_manifest(tmp_path: Path) -> None:
    """One for any place before one for this place; never one that is bound to another."""
    with open_store(tmp_path / "s") as store:
        manifest = stock(store, {"a": b"a"}, {"b": b"b"})
        bound = snapshot_of(manifest, 1, place="api/.venv")
        store.publish(bound, 1.0)
        assert store.find(bound.key.digest, "api/.venv") == bound
        assert store.find(bound.key.digest, "web/.venv") is None
        free = snapshot_of(manifest, 1)
        store.publish(free, 1.0)
        assert store.find(bound.key.digest, "api/.venv") == free
        assert store.load(free) == manifest
        assert store.load(bound) == Manifest(manifest.trees, bound=True)
        assert store.find("0" * 64, "") is None
        assert store.snapshots() == sorted([free, bound], key=lambda each: each.id)


def test_the_first_snapshot_of_an_id_stays(tmp_path: Path) -> None:
    """A build that is not reproducible cannot change what others have restored."""
    with open_store(tmp_path / "s") as store:
        one, two = stock(store, {"a": b"a"}), stock(store, {"b": b"b"})
        first = store.publish(snapshot_of(one), 1.0)
        assert store.publish(snapshot_of(two), 2.0) == first
        assert store.snapshots() == [first]
        assert store.index.usage()[first.id].at == 2.0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path, _: path.write_bytes(path.read_bytes()[:-10]),
        lambda path, _: path.write_bytes(path.read_bytes().replace(b"venv0", b"venv9")),
        lambda path, _: path.write_bytes(b""),
        lambda path, made: path.write_bytes(encode_snapshot(replace(made, id="f" * 64))),
        lambda path, made: path.write_bytes(
            encode_snapshot(replace(made, key=replace(made.key, parts={"python": "other"})))
        ),
        lambda path, made: path.write_bytes(encode_snapshot(replace(made, place="elsewhere"))),
    ],
    ids=["truncated", "edited", "empty", "other id", "other parts", "other place"],
)
def test_a_snapshot_that_cannot_be_believed_is_a_miss_and_can_be_published_again(
    tmp_path: Path, spoil: Callable[[Path, Snapshot], object]
) -> None:
    """It is put aside, for whoever asks why."""
    with open_store(tmp_path / "s") as store:
        made = store.publish(snapshot_of(stock(store, {"a": b"a"})), 1.0)
        spoil(Path(store.path, "snapshots", f"{made.id}.json"), made)
        assert store.find(made.key.digest, "elsewhere") is None
        assert store.index.usage() == {}
        assert os.listdir(f"{store.path}/quarantine") == [f"{made.id}.json"]
        assert store.publish(made, 2.0) == made
        assert store.find(made.key.digest, "") == made


def test_a_damaged_tree_is_corrupt_and_written_anew_by_the_next_batch(tmp_path: Path) -> None:
    """A tree that is believed to be there must be there."""
    with open_store(tmp_path / "s") as store:
        manifest = stock(store, {"a": b"a"})
        digest = manifest.trees[0].digest
        path = Path(store.path, "trees", digest[:2], digest[2:])
        path.chmod(0o644)
        path.write_bytes(path.read_bytes().replace(b"demo0", b"demo1"))
        with pytest.raises(Corrupt, match="damaged"):
            store.tree(digest)
        with pytest.raises(Corrupt, match="cannot be read"):
            store.tree(digest)
        stock(store, {"a": b"a"})
        assert store.tree(digest) == manifest.trees[0]


def test_dropped_snapshots_are_gone_and_the_generation_moves(tmp_path: Path) -> None:
    """What they needed stays until the store is swept; dropping twice is no error."""
    with open_store(tmp_path / "s", durability="full") as store:
        made = store.publish(snapshot_of(stock(store, {"a": b"a"})), 1.0)
        os.utime(f"{store.path}/snapshots", ns=(1, 1))
        before = store.generation()
        for _ in range(2):
            store.drop(iter([made.id]))
        assert store.generation() != before
        assert store.snapshots() == []
        assert store.index.usage() == {}
        assert store.objects.verified(name_of(b"a"))


@pytest.mark.parametrize("function", ["open", "link", "unlink"])
@pytest.mark.parametrize("call", first_quick(range(3)))
def test_a_kill_while_publishing_leaves_a_whole_snapshot_or_none(
    tmp_path: Path, function: str, call: int
) -> None:
    """Nor any litter beside the others."""
    with open_store(tmp_path / "s") as store:
        made = snapshot_of(stock(store, {"a": b"a"}))

    def work() -> None:
        with open_store(tmp_path / "s") as store:
            setattr(os, function, dies_at(function, call))
            store.publish(made, 1.0)

    assert in_child(work) in (0, KILLED)
    with open_store(tmp_path / "s") as store:
        assert store.snapshots() in ([], [made])
        assert set(os.listdir(f"{store.path}/snapshots")) <= {f"{made.id}.json"}
        assert store.publish(made, 1.0) == made


def test_a_full_disk_while_publishing_is_an_error_in_four_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no half snapshot is there."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_store(tmp_path / "s") as store:
        made = snapshot_of(stock(store, {"a": b"a"}))
        monkeypatch.setattr(store.layout, "write", full)
        with pytest.raises(EnvironmentFailure, match="No space left") as caught:
            store.publish(made, 1.0)
        assert all((caught.value.where, caught.value.state, caught.value.hint))
        assert store.snapshots() == []


def test_a_reader_leaves_everything_as_it_is(tmp_path: Path) -> None:
    """What is damaged counts as missing, and stays; what is lost is not made anew."""
    with open_store(tmp_path / "s") as store:
        whole, damaged, lost = (
            snapshot_of(stock(store, {name: name.encode()}), number) for number, name in enumerate("abc")
        )
        for number, each in enumerate((whole, damaged, lost)):
            store.publish(each, float(number))
        (tree,) = (Path(store.path, "trees", each[:2], each[2:]) for each in lost.trees)
        for file in (tree, Path(store.path, "snapshots", f"{damaged.id}.json")):
            file.chmod(0o644)
            file.write_bytes(b"garbage")
        os.rmdir(Path(store.path, "frames"))
    before = {file: file.lstat().st_mtime_ns for file in sorted(tmp_path.rglob("*"))}
    with open_reader(StoreConfig(str(tmp_path / "s"))) as reader:
        assert reader is not None
        assert {each.id for each in reader.snapshots()} == {whole.id, lost.id}
        assert reader.index.usage().keys() == {whole.id, damaged.id, lost.id}
        with pytest.raises(Corrupt):
            reader.load(lost)
        assert not hasattr(reader, "publish")
    assert {file: file.lstat().st_mtime_ns for file in sorted(tmp_path.rglob("*"))} == before


# --------------------------------------------------------------------------- registrations


def test_registrations_come_back_and_can_be_forgotten(tmp_path: Path) -> None:
    """In order of their paths, whatever bytes those are made of."""
    with open_store(tmp_path / "s") as store:
        made = [registration(path, trees=("a" * 64,)) for path in ("/p/\udcff", "/p/b c", "/p/a;")]
        for each in made:
            store.register(each)
        store.register(replace(made[0], link="copy"))
        made[0] = replace(made[0], link="copy")
        assert store.registrations() == sorted(made, key=lambda each: each.path)
        assert store.registration("/p/\udcff") == made[0]
        for _ in range(2):
            store.unregister("/p/\udcff")
        assert store.registration("/p/\udcff") is None
        assert len(store.registrations()) == 2
        assert store.index.rows("SELECT count(*) FROM venvs") == [(2,)]
        assert os.listdir(store.objects.tmp) == []


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"trees": 1}', b"null"])
def test_a_registration_that_makes_no_sense_stops_the_sweep(tmp_path: Path, data: bytes) -> None:
    """What that venv needs is not known, so nothing may be deleted; the file is named."""
    with open_store(tmp_path / "s") as store:
        stock(store, {"a": b"a"})
        store.register(registration("/p/.venv"))
        (file,) = Path(store.path, "venvs").iterdir()
        file.write_bytes(data)
        with pytest.raises(EnvironmentFailure, match=file.name):
            sweep(store)
        assert names_in(store) == {name_of(b"a")}
        assert store.registration("/p/.venv") is None
        store.register(registration("/p/.venv"))
        assert sweep(store).objects == 1


def test_a_project_is_gone_only_if_its_parent_is_there(tmp_path: Path) -> None:
    """One on a volume that is not mounted just now is not."""
    (tmp_path / "here").mkdir()
    assert not registration(f"{tmp_path}/here/.venv").gone
    assert registration(f"{tmp_path}/deleted/.venv").gone
    assert not registration(f"{tmp_path}/unmounted/p/.venv").gone
    assert registration(f"{tmp_path}/deleted/.venv", project="").gone


# --------------------------------------------------------------------------- the index


def answers(store: Store) -> dict[str, object]:
    """Return all that the index says but the history of use."""
    queries = {
        "objects": "SELECT digest, executable, size, adopted_mtime, adopted_mode FROM objects",
        "trees": "SELECT digest, name, version, files, size FROM trees",
        "files": "SELECT trees.digest, path, objects.digest FROM files"
        " JOIN trees ON trees.id = tree JOIN objects ON objects.id = object",
        "snapshots": "SELECT id, key, parts, venv, place, python, host, command, created, files, size"
        " FROM snapshots",
        "snapshot_trees": "SELECT snapshot, digest FROM snapshot_trees JOIN trees ON trees.id = tree",
        "venvs": "SELECT path, snapshot, seen_at FROM venvs",
        "savings": "SELECT * FROM savings",
        "venv_sizes": "SELECT * FROM venv_sizes",
        "package_usage": "SELECT * FROM package_usage",
    }
    found: dict[str, object] = {
        name: sorted(store.index.rows(sql), key=repr) for name, sql in queries.items()
    }
    return {**found, "bytecode": store.index.bytecode("CPython 3.12.1 x")}


def test_a_lost_index_is_made_again_and_gives_the_same_answers(tmp_path: Path) -> None:
    """All of it lies on disk, but for when what was used."""
    source = "lib/python3.12/site-packages/a.py"
    with open_store(tmp_path / "s") as store:
        one = stock(store, {source: b"a = 1", PYC: b"pyc", "b": b"b"}, {"c": b"c" * 99})
        two = stock(store, {"b": b"b", "\udcff": b"d"})
        adopted = put(store.objects, b"adopted")[0]
        os.utime(store.objects.path(adopted), ns=(5, 5))
        store.index.add_objects({adopted: 7}, {adopted: MtimeMode(5, 0o444)})
        for number, manifest in enumerate([one, two, Manifest(one.trees[:1] + two.trees)]):
            made = snapshot_of(manifest, number, parts={"bytecode": "canonical"})
            store.publish(made, 1.0)
            store.learn(manifest.trees, made.key)
        store.publish(snapshot_of(two, 7, place="x"), 1.0)
        store.register(registration("/p/.venv"))
        store.register(registration("/p/w", place="w"))
        before = answers(store)
        assert before["bytecode"] == {(name_of(b"a = 1").digest, source): (name_of(b"pyc"), 3)}
    for name in ("index.db", "index.db-wal", "index.db-shm"):
        Path(store.path, name).unlink(missing_ok=True)
    with open_store(tmp_path / "s") as store:
        assert answers(store) == before


def test_a_rebuild_that_was_killed_is_done_again(tmp_path: Path) -> None:
    """An index that was made and not filled is never believed."""
    with open_store(tmp_path / "s") as store:
        made = store.publish(snapshot_of(stock(store, {"a": b"a"})), 1.0)
    Path(store.path, "index.db").unlink()

    def work() -> None:
        with open_store(tmp_path / "s") as store:
            store.snapshots = lambda: os._exit(KILLED)  # type: ignore[method-assign]
            assert store.index.usage()

    assert in_child(work) == KILLED
    with open_store(tmp_path / "s") as store:
        assert store.index.usage().keys() == {made.id}


def test_a_rebuild_puts_damaged_objects_aside_and_knows_touched_ones(tmp_path: Path) -> None:
    """What has another time than ours must prove its content."""
    with open_store(tmp_path / "s") as store:
        put(store.objects, b"good", b"touched", b"edited")
        touched = Path(store.objects.path(name_of(b"touched")))
        os.link(touched, tmp_path / "a venv's name")
        touched.chmod(0o644)
        os.utime(touched, ns=(9, 9))
        edited = Path(store.objects.path(name_of(b"edited")))
        edited.chmod(0o644)
        edited.write_bytes(b"EDITED")
        assert store.adopted() == {name_of(b"touched"): MtimeMode(9, 0o644)}
        assert names_in(store) == {name_of(b"good"), name_of(b"touched")}


def test_an_index_that_cannot_be_opened_costs_a_restore_nothing(tmp_path: Path) -> None:
    """Adopted objects are verified then."""
    with open_store(tmp_path / "s") as store:
        made = store.publish(snapshot_of(stock(store, {"a": b"a"})), 1.0)
    with open_store(tmp_path / "s") as store:
        store._index = None
        (tmp_path / "s/index.db").unlink()
        (tmp_path / "s/index.db").symlink_to(tmp_path / "nowhere/index.db")
        assert store.adopted() == {}
        assert store.find(made.key.digest, "") == made
        store.drop([made.id])
        assert sweep(store).objects == 1


def test_bytecode_is_shared_by_interpreters_of_one_version_and_abi() -> None:
    """And by no others."""
    assert bytecode_id({"python": "CPython 3.12.1", "abi": "x", "platform": "p"}) == "CPython 3.12.1 x"
    assert bytecode_id({}) == " "


# --------------------------------------------------------------------------- sweeping

TREES = [
    {f"f{number}-{i}": bytes([i % 7]) * (i % 7 * 40 + 1) for i in range(number, number + 4)}
    for number in range(6)
]


@given(
    snapshots=st.lists(st.sets(st.integers(0, 5)), max_size=6),
    dropped=st.sets(st.integers(0, 5)),
    registered=st.sets(st.integers(0, 5), max_size=2),
)
def test_a_sweep_keeps_what_is_needed_and_nothing_else(
    snapshots: list[set[int]], dropped: set[int], registered: set[int]
) -> None:
    """Whatever is dropped: every object of every snapshot that is kept is there, and no other."""
    with tempfile.TemporaryDirectory() as directory, open_store(Path(directory) / "s") as store:
        trees = stock(store, *TREES).trees
        made = [
            store.publish(snapshot_of(Manifest(tuple(trees[i] for i in sorted(chosen))), number), 1.0)
            for number, chosen in enumerate(snapshots)
        ]
        store.register(registration("/p/v", trees=tuple(trees[i].digest for i in registered)))
        store.drop(made[number].id for number in dropped if number < len(made))
        before = blocks(store.path + "/objects") + blocks(store.path + "/trees")
        swept = sweep(store)
        after = blocks(store.path + "/objects") + blocks(store.path + "/trees")
        kept = [chosen for number, chosen in enumerate(snapshots) if number not in dropped]
        live = set().union(*kept, registered)
        assert names_in(store) == {name for i in live for name in object_names(trees[i])}
        assert all(store.objects.verified(name) for name in names_in(store))
        assert {os.path.basename(p) for p in _files(f"{store.path}/trees")} == {
            trees[i].digest[2:] for i in live
        }
        assert swept.trees == len(trees) - len(live)
        assert swept.bytes == before - after
        assert len(store.index.rows("SELECT * FROM trees")) == len(live)
        assert len(store.index.rows("SELECT * FROM objects")) == len(names_in(store))
        assert sweep(store) == Swept(0, 0, 0)


def _files(directory: str) -> list[str]:
    return [os.path.join(parent, name) for parent, _, names in os.walk(directory) for name in names]


def test_what_a_venv_is_linked_to_frees_nothing(tmp_path: Path) -> None:
    """The venv stays whole, and the figure is what the file system gets back."""
    with open_store(tmp_path / "s") as store:
        put(store.objects, b"x" * 5000, b"y" * 9000)
        os.link(store.objects.path(name_of(b"x" * 5000)), tmp_path / "venv.py")
        expected = os.stat(store.objects.path(name_of(b"y" * 9000))).st_blocks * 512
        assert sweep(store) == Swept(2, 0, expected)
        assert (tmp_path / "venv.py").read_bytes() == b"x" * 5000


def test_a_sweep_cleans_staging_and_frames(tmp_path: Path) -> None:
    """Litter of killed runs goes, and so do frames of dead trees; links are not followed."""
    with open_store(tmp_path / "s") as store:
        manifest = stock(store, {"a": b"a"}, {"b": b"b"})
        store.publish(snapshot_of(Manifest(manifest.trees[:1])), 1.0)
        live, dead = (f"{tree.digest}.zst.3" for tree in manifest.trees)
        root = Path(store.path)
        for path in (
            f"frames/{live[:2]}/{live}",
            f"frames/{dead[:2]}/{dead}",
            "tmp/1-aa/1",
            "tmp/1-aa/b/c",
            "tmp/x",
        ):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(b"z" * 5000)
        (tmp_path / "out").mkdir()
        (tmp_path / "out/canary").touch()
        (root / "tmp/link").symlink_to(tmp_path / "out")
        before = blocks(store.path)
        swept = sweep(store)
        assert os.listdir(root / "tmp") == []
        assert [os.path.basename(path) for path in _files(f"{root}/frames")] == [live]
        assert (tmp_path / "out/canary").exists()
        index = blocks(store.path) - before + swept.bytes
        assert swept.bytes >= 4 * 5000
        assert abs(index) <= 1 << 20  # the index's own files grow and shrink as SQLite likes


def test_a_sweep_that_is_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    """Live snapshots are whole at every moment, and no tree lists what is gone."""
    path = tmp_path / "s"
    manifest = Manifest(())

    def prepare() -> None:
        nonlocal manifest
        shutil.rmtree(path, ignore_errors=True)
        with open_store(path) as store:
            manifest = stock(store, {"a": b"a", "s": b"s"}, {"b": b"b", "s": b"s"})
            store.publish(snapshot_of(Manifest(manifest.trees[:1])), 1.0)

    def work() -> None:
        with open_store(path) as store:
            sweep(store)

    for when in killed_at_each(work, ("unlink",), prepare):
        with open_store(path) as store:
            for file in _files(f"{path}/trees"):
                tree = store.tree(os.path.basename(os.path.dirname(file)) + os.path.basename(file))
                assert all(store.objects.verified(name) for name in object_names(tree)), when
            sweep(store)
            assert names_in(store) == {name_of(b"a"), name_of(b"s")}, when
    with open_store(path) as store:
        assert names_in(store) == {name_of(b"a"), name_of(b"s")}


def test_files_that_cannot_be_deleted_do_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are named at the end, with what was done."""
    with open_store(tmp_path / "s") as store:
        stuck, *_ = put(store.objects, b"a", b"b", b"c")
        real = os.unlink

        def unlink(path: str, **more: Any) -> None:
            if path == stuck.digest[2:]:
                raise PermissionError(errno.EPERM, "Operation not permitted", path)
            real(path, **more)

        monkeypatch.setattr(os, "unlink", unlink)
        with pytest.raises(EnvironmentFailure, match=stuck.digest[2:]) as caught:
            sweep(store)
        assert caught.value.exit_code == 3
        assert names_in(store) == {stuck}


def test_a_snapshot_with_a_damaged_tree_does_not_stop_the_sweep(tmp_path: Path) -> None:
    """It is a miss anyway; the index forgets what the disk has no more."""
    with open_store(tmp_path / "s") as store:
        manifest = stock(store, {"a": b"a"}, {"b": b"b"})
        store.publish(snapshot_of(manifest), 1.0)
        digest = manifest.trees[0].digest
        Path(store.path, "trees", digest[:2], digest[2:]).unlink()
        assert sweep(store).objects == 1
        assert names_in(store) == {name_of(b"b")}
        assert store.index.rows("SELECT digest FROM objects") == [(name_of(b"b").digest,)]


def fill_up(path: Path) -> None:
    """Write to a file for as long as there is space."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


@needs_root
@pytest.mark.root
def test_a_sweep_works_on_a_full_disk(tmp_path: Path) -> None:
    """That is when it is needed most."""
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=600k", "none") as small:
        with open_store(small / "s") as store:
            keep = stock(store, {"keep": b"keep"})
            store.publish(snapshot_of(keep), 1.0)
            put(store.objects, *(bytes([n]) * 40_000 for n in range(4)))
        fill_up(small / "filler")
        with open_store(small / "s") as store:
            swept = sweep(store)
            assert swept.objects == 4
            assert swept.bytes >= 160_000
            assert names_in(store) == {name_of(b"keep")}


def test_sizes_are_those_of_the_disk(tmp_path: Path) -> None:
    """Each inode counts once, whatever the index is doing."""
    with open_store(tmp_path / "s") as store:
        put(store.objects, b"x" * 10_000)
        os.link(store.objects.path(name_of(b"x" * 10_000)), os.path.join(store.objects.tmp, "twice"))
        assert store.size_on_disk() == blocks(store.path)
        vfs = os.statvfs(tmp_path)
        assert abs(store.free_bytes() - vfs.f_bavail * vfs.f_frsize) < 1 << 30


def test_trees_are_staged_once(tmp_path: Path) -> None:
    """What the store has is not written again, and is read-only."""
    with open_store(tmp_path / "s") as store:
        tree = tree_of({"a": b"a"})
        for _ in range(2):
            with store.objects.batch() as batch:
                store.stage_trees(batch, [tree])
                batch.publish()
        (file,) = _files(f"{store.path}/trees")
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o444
        assert json.loads(Path(file).read_bytes())["name"] == "demo"


@pytest.mark.parametrize("part", ["trees/*/*", "snapshots/*"])
def test_what_cannot_be_read_is_not_taken_for_nothing(
    tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mode that keeps us out costs no object and no snapshot: the sweep stops and names the file."""
    with open_store(tmp_path / "s") as store:
        snapshot = snapshot_of(stock(store, {"a": b"a"}))
        store.publish(snapshot, 1.0)
        (file,) = Path(store.path).glob(part)

        def read(path: str, **more: Any) -> bytes:
            if path == str(file):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return read_small(path, **more)

        before = names_in(store)
        with monkeypatch.context() as patch:
            patch.setattr("venvflow.state.reader.read_small", read)
            with pytest.raises(EnvironmentFailure, match="cannot read what the store has") as caught:
                sweep(store)
            assert str(file) == caught.value.where
        assert names_in(store) == before
        assert store.snapshot(snapshot.id) == snapshot
        assert sweep(store).objects == 0


def test_all_damaged_trees_of_a_manifest_are_found_at_once(tmp_path: Path) -> None:
    """Who makes them anew makes all of them."""
    with open_store(tmp_path / "s") as store:
        trees = [stock(store, {name: name.encode()}).trees[0].digest for name in "abc"]
        for digest in trees[:2]:
            path = Path(store.path, "trees", digest[:2], digest[2:])
            path.chmod(0o644)
            path.write_bytes(b"{}")
        with pytest.raises(Corrupt, match=trees[0][:12]):
            store.manifest(trees)
        assert [store.has_tree(digest) for digest in trees] == [False, False, True]
