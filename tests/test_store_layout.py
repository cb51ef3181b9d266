"""A store of which any part is a symlink, a file, a FIFO, a directory, or lost: nothing escapes.

The whole layout, times everything that may be in its place, times everything that is done to a store.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from contents import grow, mounted, name_of, needs_root, open_store, picture, put, snapshot_of, stock
from tiers import first_quick

from venvflow.disk.objects import object_names
from venvflow.errors import EnvironmentFailure, Refused, VenvflowError
from venvflow.state.registry import Registration
from venvflow.state.store import Store
from venvflow.state.sweeping import note_sweep, sweep

DIRECTORIES = (
    "objects", "objects/<>", "trees", "trees/<>", "snapshots", "venvs", "frames", "frames/ab", "tmp", "locks",
    "quarantine",
)  # fmt: skip
FILES = ("format", "index.db", "index.db-wal", "README", "trim.json", "settled.json", "locks/store")
A = name_of(b"a").digest


def registration(path: str) -> Registration:
    """Return the registration of a venv at *path*."""
    return Registration(path, os.path.dirname(path), "api", "f" * 64, "", "hardlink", (), 12, 5.0)


def furnish(path: Path) -> None:
    """Make a store that has some of everything."""
    with open_store(path) as store:
        store.publish(snapshot_of(stock(store, {"a": b"a"})), 1.0)
        store.register(registration("/p/v"))
        note_sweep(store, [], 0, {})
        put(store.objects, b"not needed")
        grow(
            path, {f"frames/ab/{'ab' * 32}.f": "", "tmp/left/over": "", "quarantine/bad": "", "trim.json": ""}
        )


def part(store: Path, name: str) -> Path:
    """Return the path of a part; ``<>`` stands for the first of what is there."""
    path = store
    for word in name.split("/"):
        path = min(path.iterdir()) if word == "<>" else path / word
    return path


def publish(store: Store) -> None:
    """Share a venv: objects, trees, a snapshot, a registration."""
    store.objects.drop_litter()
    with store.use():
        store.publish(snapshot_of(stock(store, {"a": b"a", "b": b"b"}), 1), 2.0)
        store.register(registration("/p/w"))


def drop(store: Store) -> None:
    """Delete everything, as erase and trim do."""
    with store.alone():
        store.drop([each.id for each in store.snapshots()])
        store.unregister("/p/v")
        sweep(store)
        note_sweep(store, [], 0, {})


def reject(store: Store) -> None:
    """Put an object and a snapshot aside, as whoever finds them damaged does."""
    for name, _ in [*store.objects.names()]:
        store.objects.quarantine(name)
    for snapshot in store.snapshots():
        store.quarantine_snapshot(snapshot.id)


def rebuild(store: Store) -> None:
    """Fill the index anew."""
    store.rebuild_index()


ACTS: tuple[Callable[[Store], None], ...] = (publish, drop, reject, rebuild)


def is_whole(path: Path) -> bool:
    """Return whether the last snapshot can be read, and has all its objects."""
    with open_store(path) as store:
        manifest = store.load(store.snapshots()[-1])
        return all(store.objects.verified(name) for tree in manifest.trees for name in object_names(tree))


def attempt(path: Path, act: Callable[[Store], None]) -> VenvflowError | None:
    """Open the store and do something to it; return the error, which must be one of ours."""
    try:
        with open_store(path) as store:
            act(store)
    except VenvflowError as error:
        return error
    return None


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Give a directory outside that looks like any part of a store."""
    rest = "c" * 62
    files = ("x.json", "ab/" + rest, rest, "bad", "index.db", "store", "1-00000000/1", "left/over")
    return grow(tmp_path / "outside", dict.fromkeys(files, "precious"))


@pytest.mark.parametrize("name", first_quick([*DIRECTORIES, *FILES]))
def test_a_link_in_the_layout_is_refused_and_not_followed(tmp_path: Path, canary: Path, name: str) -> None:
    """Whatever it leads to, and whatever is done: what is behind it stays as it is."""
    furnish(tmp_path / "stock")
    for act in ACTS:
        for target in ("outside", "outside/bad", "moved", "nowhere"):
            store = tmp_path / "store"
            shutil.copytree(tmp_path / "stock", store, symlinks=True)
            path = part(store, name)
            if os.path.lexists(path):
                path.rename(tmp_path / "moved")
            path.symlink_to(tmp_path / target)
            before = picture(tmp_path / "moved"), picture(canary)
            error = attempt(store, act)
            if error is not None or name != "locks/store":  # not all that is done takes a lock
                assert isinstance(error, Refused), (act, target, error)
                assert error.where == str(path)
            assert (picture(tmp_path / "moved"), picture(canary)) == before, (act, target)
            assert path.is_symlink()
            shutil.rmtree(store)
            for moved in tmp_path.glob("moved"):
                shutil.rmtree(moved) if moved.is_dir() else moved.unlink()


@pytest.mark.parametrize("name", [*DIRECTORIES, "index.db", "README", "trim.json", "settled.json"])
def test_what_was_lost_is_made_again(tmp_path: Path, name: str) -> None:
    """By the run that finds it lost, whatever it is about to do."""
    furnish(tmp_path / "stock")
    for act in ACTS:
        store = tmp_path / "store"
        shutil.copytree(tmp_path / "stock", store, symlinks=True)
        path = part(store, name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert attempt(store, act) is None, act
        assert attempt(store, publish) is None, act
        assert is_whole(store)
        shutil.rmtree(store)


def test_a_store_that_lost_its_format_is_known_by_its_readme(tmp_path: Path) -> None:
    """Without both it may be anything, and stays as it is."""
    furnish(tmp_path / "store")
    (tmp_path / "store/format").unlink()
    assert attempt(tmp_path / "store", publish) is None
    (tmp_path / "store/format").unlink()
    (tmp_path / "store/README").unlink()
    before = picture(tmp_path)
    assert isinstance(attempt(tmp_path / "store", publish), Refused)
    assert picture(tmp_path) == before


@pytest.mark.parametrize("text", [b"", b"x", b"\xff\x00"])
def test_a_format_that_is_not_a_number_is_named_with_a_way_out(tmp_path: Path, text: bytes) -> None:
    """As a full disk or a power cut leaves it: no newer venvflow wrote that."""
    furnish(tmp_path / "store")
    path = tmp_path / "store/format"
    path.write_bytes(text)
    error = attempt(tmp_path / "store", publish)
    assert isinstance(error, EnvironmentFailure)
    assert (error.where, error.hint.startswith("Delete this file")) == (str(path), True)
    path.unlink()
    assert attempt(tmp_path / "store", publish) is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), os.mkfifo], ids=["file", "fifo"])
@pytest.mark.parametrize("name", DIRECTORIES)
def test_what_is_no_directory_is_named_and_left(
    tmp_path: Path, make: Callable[[Path], object], name: str
) -> None:
    """It is somebody's: who moves it away has a store that works."""
    furnish(tmp_path / "store")
    path = part(tmp_path / "store", name)
    shutil.rmtree(path)
    make(path)
    for act in ACTS:
        error = attempt(tmp_path / "store", act)
        assert isinstance(error, EnvironmentFailure)
        assert (error.where, "Move it away" in error.hint) == (str(path), True)
    assert os.path.lexists(path)
    path.unlink()
    assert attempt(tmp_path / "store", publish) is None


@pytest.mark.parametrize("name", ["trees/<>/<>", "objects/<>/<>", "snapshots/<>", "settled.json", "index.db"])
def test_a_directory_where_a_record_belongs_is_put_aside(tmp_path: Path, name: str) -> None:
    """The record is made again, and what was in the directory is not lost."""
    furnish(tmp_path / "store")
    path = part(tmp_path / "store", name)
    if name == "objects/<>/<>":
        path = tmp_path / "store/objects" / A[:2] / A[2:]
    path.unlink()
    grow(path, {"inside": "mine"})
    with open_store(tmp_path / "store") as store:
        store.publish(snapshot_of(stock(store, {"a": b"a"})), 2.0)
        note_sweep(store, [], 0, {})
    assert is_whole(tmp_path / "store")
    kept = [*(tmp_path / "store").rglob("inside")]
    assert [file.read_text() for file in kept] == ["mine"]
    assert path not in kept[0].parents


@pytest.mark.parametrize("name", ["trees", "objects"])
def test_a_directory_that_is_no_record_does_not_stop_a_sweep(tmp_path: Path, name: str) -> None:
    """It is put aside, whatever it is called, and goes with what else was put aside."""
    furnish(tmp_path / "store")
    grow(tmp_path / "store" / name, {f"ab/{'c' * 62}/inside": "mine"})
    assert attempt(tmp_path / "store", drop) is None
    assert attempt(tmp_path / "store", drop) is None
    assert not (tmp_path / "store" / name / "ab" / ("c" * 62)).exists()
    assert [file.read_text() for file in (tmp_path / "store").rglob("inside")] == ["mine"]


@pytest.mark.parametrize("moment", ["objects", "trees", "tmp", "snapshots", "venvs"])
def test_a_link_that_comes_after_the_store_was_opened_is_not_followed(
    tmp_path: Path, canary: Path, moment: str
) -> None:
    """To look once is not enough: each directory is opened anew, without following a link."""
    furnish(tmp_path / "store")
    before = picture(canary)
    for act in (publish, drop):
        with open_store(tmp_path / "store") as store:
            (tmp_path / "store" / moment).rename(tmp_path / "moved")
            (tmp_path / "store" / moment).symlink_to(canary)
            with pytest.raises(Refused):
                act(store)
        assert picture(canary) == before
        (tmp_path / "store" / moment).unlink()
        (tmp_path / "moved").rename(tmp_path / "store" / moment)


@pytest.mark.root
@needs_root
def test_a_store_that_is_mounted_there_works(tmp_path: Path) -> None:
    """That is how a store is elsewhere, as the refusal of a link says."""
    furnish(tmp_path / "elsewhere")
    with mounted(tmp_path / "store", "--bind", str(tmp_path / "elsewhere")):
        for act in (reject, publish):
            assert attempt(tmp_path / "store", act) is None
        assert is_whole(tmp_path / "store")
        assert attempt(tmp_path / "store", drop) is None


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("name", ["tmp", "locks", "venvs", "snapshots", "frames", "trees", "index.db"])
def test_a_part_that_is_lost_where_nothing_can_be_written_is_no_crash(tmp_path: Path, name: str) -> None:
    """A backup on a medium that is read-only: what is there can be read, what is not is named or a miss."""
    furnish(tmp_path / "lost")
    path = tmp_path / "lost" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with mounted(tmp_path / "store", "--bind", str(tmp_path / "lost")):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(tmp_path / "store")], check=True)
        with open_store(tmp_path / "store") as store:
            assert store.read_only
            assert len(store.snapshots()) == (name != "snapshots")
            assert [each.path for each in store.registrations()] == ["/p/v"] * (name != "venvs")
            assert store.find("k", "v") is None
        assert attempt(tmp_path / "store", reject) is None
        for act in (publish, drop):
            assert isinstance(attempt(tmp_path / "store", act), EnvironmentFailure)


def test_a_copy_or_a_moved_store_is_as_good(tmp_path: Path) -> None:
    """It knows no path of its own; a second name for the index is parted."""
    furnish(tmp_path / "store")
    subprocess.run(["cp", "-a", str(tmp_path / "store"), str(tmp_path / "copy")], check=True)
    subprocess.run(["cp", "-al", str(tmp_path / "store"), str(tmp_path / "links")], check=True)
    (tmp_path / "store").rename(tmp_path / "moved")
    for name in ("copy", "links", "moved"):
        assert attempt(tmp_path / name, publish) is None
        assert is_whole(tmp_path / name)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


def test_a_new_store_is_closed_to_others(tmp_path: Path) -> None:
    """Whatever the umask, and whoever made the empty directory; opened on purpose, it stays open."""
    before = os.umask(0o000)
    try:
        (tmp_path / "made").mkdir(mode=0o777)
        for name in ("new", "made"):
            open_store(tmp_path / name).close()
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o700
            (tmp_path / name).chmod(0o755)
            open_store(tmp_path / name).close()
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)
