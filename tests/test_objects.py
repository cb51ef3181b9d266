"""Objects: whole or not there, whoever their files belong to, on whatever disk."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contents import (
    KILLED,
    NOBODY,
    dies_at,
    elsewhere,
    file_entry,
    for_everybody,
    in_child,
    linux_only,
    mounted,
    name_of,
    needs_proc,
    needs_root,
    objects_in,
    picture,
    put,
    time_of,
)
from tiers import first_quick

from venvflow.disk import objects as module
from venvflow.disk.objects import Batch, MtimeMode, Name, Objects, file_of, object_name, sealed, sealed_file
from venvflow.disk.scan import Changing, Found, lstat, read
from venvflow.errors import Refused

DATA = b"print('hello')\n"
OTHER = b"print('HELLO')\n"


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """Give an empty object store."""
    return objects_in(tmp_path / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Give a file of a venv."""
    path = tmp_path / "source.py"
    path.write_bytes(DATA)
    path.chmod(0o664)
    return path


def found(path: Path) -> Found:
    """Return what a survey finds there."""
    return lstat(str(path))


def attributes(path: Path) -> tuple[bytes, int, int]:
    """Return what of a stranger's file must not change."""
    st = path.lstat()
    return path.read_bytes(), st.st_mode, st.st_mtime_ns


def published(objects: Objects, add: Callable[[Batch], object]) -> Batch:
    """Publish what *add* adds."""
    with objects.batch() as batch:
        add(batch)
        batch.publish()
    return batch


def take(how: str, batch: Batch, source: Path) -> None:
    """Add *source*, surveyed just now, in one of the ways."""
    name = name_of(source.read_bytes(), executable=found(source).executable)
    add_from(how, batch, source, name, found(source))


def add_from(how: str, batch: Batch, source: Path, name: Name, seen: Found) -> None:
    """Add *source*, which was surveyed as *seen*, in one of the ways."""
    if how == "copy":
        batch.add_copy(str(source), name, seen.stamp)
    elif how == "own":
        batch.add_own(str(source), name, seen)
    else:
        batch.adopt(str(source), name, seen)


# --------------------------------------------------------------------------- what objects look like


@pytest.mark.parametrize("umask", [0o077, 0o000])
@pytest.mark.parametrize("executable", [False, True])
def test_objects_look_the_same_under_every_umask(tmp_path: Path, umask: int, executable: bool) -> None:
    """Read-only for all, with the mtime of its content; no directory is open to all for writing."""
    store = tmp_path / "store"

    def work() -> None:
        os.umask(umask)
        put(objects_in(store), DATA, executable=executable)

    store.mkdir(mode=0o755)
    assert in_child(work) == 0
    path = Path(Objects(str(store)).path(name_of(DATA, executable=executable)))
    st = path.stat()
    assert stat.S_IMODE(st.st_mode) == (0o555 if executable else 0o444)
    assert st.st_mtime_ns == time_of(DATA)
    assert not path.parent.stat().st_mode & 0o022


@pytest.mark.parametrize("executable", [False, True])
def test_where_and_how_an_object_lies_is_said_in_one_call_as_in_two(executable: bool) -> None:
    """The short way is for every file of a venv."""
    entry = file_entry("a", b"data", executable=executable)
    name = object_name(entry)
    mtime_ns, mode = sealed(name)
    assert sealed_file(entry) == (file_of(name), mtime_ns, stat.S_IFREG | mode)


def test_the_executable_bit_is_part_of_the_name(objects: Objects) -> None:
    """The same bytes as script and as data are two objects."""
    put(objects, DATA)
    put(objects, DATA, executable=True)
    assert {name for name, _ in objects.names()} == {name_of(DATA), name_of(DATA, executable=True)}


def test_a_path_gives_its_name_and_no_other_path_does(objects: Objects, tmp_path: Path) -> None:
    """What only looks like an object of another store, or lies beside, is none."""
    for name in (name_of(DATA), name_of(DATA, executable=True)):
        path = objects.path(name)
        assert objects.name_at(path) == name
        for other in (
            f"{tmp_path}{path}",
            f"{path}y",
            path[:-2],
            f"{objects.root}/../objects/{path[-65:]}",
            "",
        ):
            assert objects.name_at(other) is None


def test_names_leave_out_what_is_no_object(objects: Objects, tmp_path: Path) -> None:
    """Stray files and longer fans are not taken for objects; a planted link is refused."""
    (name,) = put(objects, DATA)
    root = Path(objects.root)
    (root / "stray").touch()
    (root / name.digest[:2] / "short").touch()
    (root / name.digest[:3]).mkdir()
    (root / name.digest[:3] / name.digest[3:]).touch()
    assert [name for name, _ in objects.names()] == [name]
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / ("0" * 62)).touch()
    (root / "00").symlink_to(tmp_path / "outside")
    with pytest.raises(Refused, match="symbolic link"):
        list(objects.names())


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(OTHER),
        lambda path: path.write_bytes(DATA[:-1]),
        lambda path: path.write_bytes(DATA + b"x"),
        lambda path: path.unlink(),
        lambda path: path.chmod(0o755),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: [path.unlink(), os.mkfifo(path)],  # type: ignore[func-returns-value]
        lambda path: (path.rename(f"{path}-"), path.symlink_to(f"{path}-")),
    ],
    ids=["edited", "truncated", "appended", "gone", "executable", "directory", "fifo", "symlink"],
)
def test_damage_is_seen_by_stat_and_by_content(objects: Objects, damage: Callable[[Path], object]) -> None:
    """An object that anything happened to is not sound; if its bytes are right, they are still good."""
    (name,) = put(objects, DATA)
    assert objects.sound(name, len(DATA))
    assert objects.verified(name)
    path = Path(objects.path(name))
    path.chmod(0o644)
    damage(path)
    assert not objects.sound(name, len(DATA))
    assert objects.verified(name) == (path.is_file() and not path.is_symlink() and path.read_bytes() == DATA)


def test_an_edit_that_restores_size_and_time_is_seen_by_content_alone(objects: Objects) -> None:
    """A stat says nothing about it; reading does."""
    (name,) = put(objects, DATA)
    path = Path(objects.path(name))
    path.chmod(0o644)
    path.write_bytes(OTHER)
    path.chmod(0o444)
    os.utime(path, ns=(time_of(DATA), time_of(DATA)))
    assert objects.sound(name, len(DATA))
    assert not objects.verified(name)
    assert objects.read(name) is None


def test_reading_gives_the_bytes_or_nothing(objects: Objects) -> None:
    """Nothing that is not called by its hash is ever returned."""
    (name,) = put(objects, DATA)
    assert objects.read(name) == DATA
    assert objects.read(name_of(OTHER)) is None


def test_a_touched_object_is_not_sound_but_verified(objects: Objects) -> None:
    """A moved mtime makes it suspect, its bytes clear it."""
    (name,) = put(objects, DATA)
    os.utime(objects.path(name))
    assert not objects.sound(name, len(DATA))
    assert objects.verified(name)
    assert objects.sound(name, len(DATA), MtimeMode(os.stat(objects.path(name)).st_mtime_ns, 0o444))


def test_quarantine_keeps_the_bytes_under_another_name(objects: Objects) -> None:
    """Whoever wants to know what happened finds the file; the object is gone, twice is no error."""
    (name,) = put(objects, DATA)
    objects.quarantine(name)
    objects.quarantine(name)
    assert not os.path.lexists(objects.path(name))
    (kept,) = Path(objects.quarantined).iterdir()
    assert kept.name.startswith(name.digest)
    assert kept.read_bytes() == DATA


def test_quarantine_keeps_each_damage_of_an_object(objects: Objects) -> None:
    """The second does not take the place of the first: somebody may look for his edit there."""
    for data in (DATA, OTHER):
        (name,) = put(objects, DATA)
        path = Path(objects.path(name))
        path.chmod(0o644)
        path.write_bytes(data)
        objects.quarantine(name)
    assert {kept.read_bytes() for kept in Path(objects.quarantined).iterdir()} == {DATA, OTHER}


# --------------------------------------------------------------------------- publishing


def test_nothing_has_its_name_before_everything_is_staged_and_synced(
    objects: Objects, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk is told to write, no name is there yet; when it is told again, all are."""
    objects.durability = "full"
    seen: list[list[str]] = []
    record = "trees/aa/tree"

    def sync(_: int) -> None:
        seen.append([*picture(objects.root)] + [record] * os.path.lexists(f"{objects.root}/../{record}"))

    monkeypatch.setattr(module, "sync_file_system", sync)
    with objects.batch() as batch:
        batch.add_bytes(DATA)
        batch.add_bytes(OTHER, executable=True)
        batch.add_record(record, b"tree")
        assert list(objects.names()) == []
        batch.publish()
    assert seen[0] == []
    assert len([path for path in seen[1] if len(path) > 2]) == 3
    assert len(seen) == 2


def test_without_durability_nothing_is_synced(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch does what it says."""
    monkeypatch.setattr(module, "sync_file_system", lambda _: pytest.fail("synced"))
    put(objects, DATA)


def test_durability_full_works_on_the_real_disk(tmp_path: Path) -> None:
    """The same objects come out of it."""
    objects = objects_in(tmp_path / "store", "full")
    (name,) = put(objects, DATA)
    assert objects.verified(name)


@pytest.mark.parametrize("function", ["link", "unlink", "rename"])
@pytest.mark.parametrize("call", first_quick(range(4)))
def test_a_kill_while_publishing_leaves_only_whole_objects(tmp_path: Path, function: str, call: int) -> None:
    """What has a name has all its bytes, no record comes before its objects, a second run completes it."""
    store = tmp_path / "store"
    objects = objects_in(store)
    record = store / "trees/aa/tree"

    def work() -> None:
        setattr(os, function, dies_at(function, call))
        published(objects, fill)

    def fill(batch: Batch) -> None:
        for data in (DATA, OTHER, b"third"):
            batch.add_bytes(data)
        batch.add_record("trees/aa/tree", b"tree")

    assert in_child(work) in (0, KILLED)
    assert all(objects.verified(name) for name, _ in objects.names())
    if record.exists():
        assert len(list(objects.names())) == 3
    published(objects, fill)
    assert len(list(objects.names())) == 3
    assert record.read_bytes() == b"tree"


def test_a_batch_that_is_not_published_leaves_nothing(objects: Objects) -> None:
    """An error on the way takes everything staged with it."""
    with pytest.raises(RuntimeError), objects.batch() as batch:  # noqa: PT012 - the work before counts
        batch.add_bytes(DATA)
        batch.add_record("trees/aa/tree", b"")
        raise RuntimeError
    assert list(objects.names()) == []
    assert os.listdir(objects.tmp) == []


def test_leftovers_of_killed_runs_are_in_nobodys_way(objects: Objects) -> None:
    """Staging directories have names of their own; whose they are not, they are not touched."""
    left = Path(objects.tmp) / f"{os.getpid()}-00000000"
    left.mkdir()
    (left / "1").write_bytes(b"half")
    assert put(objects, DATA) == [name_of(DATA)]
    assert (left / "1").read_bytes() == b"half"


def test_what_the_store_has_is_not_written_again(objects: Objects) -> None:
    """A sound object stays the very same file."""
    (name,) = put(objects, DATA)
    before = os.stat(objects.path(name)).st_ino
    with objects.batch() as batch:
        assert batch.add_bytes(DATA) == name
        assert name not in batch
        batch.publish()
    assert os.stat(objects.path(name)).st_ino == before


def test_an_object_with_wrong_bytes_is_put_aside_and_replaced(objects: Objects, source: Path) -> None:
    """Damage under the right name never survives a run that has the right bytes."""
    (name,) = put(objects, DATA)
    path = Path(objects.path(name))
    path.unlink()
    path.write_bytes(OTHER)
    batch = published(objects, lambda batch: take("copy", batch, source))
    assert objects.verified(name)
    assert objects.sound(name, len(DATA))
    assert batch.origins == {name: str(source)}
    assert [kept.read_bytes() for kept in Path(objects.quarantined).iterdir()] == [OTHER]


def test_one_that_was_published_meanwhile_stays(objects: Objects, source: Path) -> None:
    """Two runs with one content end with one object, the first; it was not made from our file."""
    with objects.batch() as batch:
        take("copy", batch, source)
        put(objects, DATA)
        before = os.stat(objects.path(name_of(DATA))).st_ino
        batch.publish()
    assert os.stat(objects.path(name_of(DATA))).st_ino == before
    assert batch.origins == {}
    assert os.listdir(objects.tmp) == []


def test_one_that_was_adopted_meanwhile_is_known_as_adopted(
    objects: Objects, source: Path, tmp_path: Path
) -> None:
    """Else the index would expect our mtime, and every venv linked to it would look edited."""
    stranger = tmp_path / "stranger"
    stranger.write_bytes(DATA)
    with objects.batch() as batch:
        batch.add_bytes(DATA)
        published(objects, lambda other: take("adopt", other, stranger))
        batch.publish()
    assert batch.adopted == {name_of(DATA): MtimeMode(stranger.stat().st_mtime_ns, 0o644)}


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_the_object_of_a_run_that_was_first_stays_whatever_mode_its_cache_has(
    objects: Objects, source: Path, tmp_path: Path, mode: int
) -> None:
    """Its venv is linked to it by now, and the index may not know of it yet."""
    stranger = tmp_path / "stranger"
    stranger.write_bytes(DATA)
    for file in (source, stranger):
        file.chmod(mode)
    with objects.batch() as batch:
        take("adopt", batch, source)
        published(objects, lambda other: take("adopt", other, stranger))
        before = os.stat(objects.path(name_of(DATA))).st_ino
        batch.publish()
    assert os.stat(objects.path(name_of(DATA))).st_ino == before


def test_what_was_to_be_adopted_is_not_when_another_was_first(objects: Objects, source: Path) -> None:
    """The object has the mtime of its content then."""
    with objects.batch() as batch:
        take("adopt", batch, source)
        put(objects, DATA)
        batch.publish()
    assert batch.adopted == {}
    assert objects.sound(name_of(DATA), len(DATA))


def test_a_record_replaces_a_damaged_one(objects: Objects, tmp_path: Path) -> None:
    """It comes by rename, read-only, in a directory made for it."""
    record = tmp_path / "store/trees/ab/c"
    for data in (b"old", b"new"):
        published(objects, lambda batch, data=data: batch.add_record("trees/ab/c", data))  # type: ignore[misc]
    assert record.read_bytes() == b"new"
    assert stat.S_IMODE(record.stat().st_mode) == 0o444


# --------------------------------------------------------------------------- ways in


@pytest.mark.parametrize(("error", "tries"), [(errno.EOPNOTSUPP, 1), (errno.EXDEV, 2), (errno.EINVAL, 2)])
def test_where_no_blocks_can_be_shared_that_is_tried_once(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, tries: int
) -> None:
    """Another answer than that is about one file; all are copied whatever it is."""
    asked: list[int] = []

    def refuse(_reading: int, writing: int) -> None:
        asked.append(writing)
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(module, "clone", refuse)

    def add_both(batch: Batch) -> None:
        for text in (b"one", b"two"):
            file = tmp_path / os.fsdecode(text)
            file.write_bytes(text)
            batch.add_copy(str(file), name_of(text), found(file).stamp)

    published(objects, add_both)
    assert len(asked) == tries
    assert [objects.read(name_of(text)) for text in (b"one", b"two")] == [b"one", b"two"]


def test_a_copy_leaves_its_source_alone(objects: Objects, source: Path) -> None:
    """Not its mode, not its mtime, not its inode."""
    before = attributes(source), source.stat().st_ino
    batch = published(objects, lambda batch: take("copy", batch, source))
    assert (attributes(source), source.stat().st_ino) == before
    assert source.stat().st_nlink == 1
    assert objects.sound(name_of(DATA), len(DATA))
    assert batch.origins == {name_of(DATA): str(source)}


@linux_only
@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_our_own_file_becomes_the_object(objects: Objects, source: Path, mode: int) -> None:
    """One inode for both, read-only, with the mtime of its content; nothing is written."""
    source.chmod(mode)
    name = name_of(DATA, executable=mode == 0o755)
    batch = published(objects, lambda batch: take("own", batch, source))
    st = source.stat()
    assert os.path.samefile(source, objects.path(name))
    assert stat.S_IMODE(st.st_mode) == mode & 0o555
    assert st.st_mtime_ns == time_of(DATA)
    assert objects.sound(name, len(DATA))
    assert (batch.adopted, batch.origins) == ({}, {})


def test_a_file_that_somebody_linked_to_meanwhile_is_not_our_own(
    objects: Objects, source: Path, tmp_path: Path
) -> None:
    """It is copied, and the stranger sees nothing."""
    seen = found(source)
    os.link(source, tmp_path / "stranger")
    before = attributes(tmp_path / "stranger")
    published(objects, lambda batch: batch.add_own(str(source), name_of(DATA), seen))
    assert attributes(tmp_path / "stranger") == before
    assert not os.path.samefile(source, objects.path(name_of(DATA)))
    assert objects.sound(name_of(DATA), len(DATA))


def test_a_file_that_gets_a_name_before_it_is_published_is_copied_after_all(
    objects: Objects, source: Path, tmp_path: Path
) -> None:
    """Until then it could have become the object itself; the stranger sees nothing."""
    with objects.batch() as batch:
        take("own", batch, source)
        os.link(source, tmp_path / "stranger")
        before = attributes(tmp_path / "stranger")
        batch.publish()
    assert attributes(tmp_path / "stranger") == before
    assert not os.path.samefile(source, objects.path(name_of(DATA)))
    assert (objects.verified(name_of(DATA)), batch.own) == (True, {})


def test_a_file_that_changes_before_it_is_published_makes_no_object(objects: Objects, source: Path) -> None:
    """It is not what was hashed any more."""
    with objects.batch() as batch:
        take("own", batch, source)
        source.write_bytes(OTHER)
        with pytest.raises(Changing):
            batch.publish()
    assert list(objects.names()) == []
    assert source.stat().st_mode & 0o200


def test_an_adopted_file_keeps_all_that_it_has(objects: Objects, source: Path, tmp_path: Path) -> None:
    """The stranger's mode, mtime and bytes stay; the object is the same file."""
    os.link(source, tmp_path / "cache")
    before = attributes(tmp_path / "cache")
    batch = published(objects, lambda batch: take("adopt", batch, source))
    assert attributes(tmp_path / "cache") == before
    assert os.path.samefile(source, objects.path(name_of(DATA)))
    look = MtimeMode(before[2], before[1] & 0o7777)
    assert batch.adopted == {name_of(DATA): look}
    assert objects.sound(name_of(DATA), len(DATA), look)
    (tmp_path / "cache").write_bytes(OTHER)
    os.utime(tmp_path / "cache", ns=(0, before[2] + 1))
    assert not objects.sound(name_of(DATA), len(DATA), look)


def test_a_staged_file_is_taken_over(objects: Objects) -> None:
    """What a compiler wrote into the staging directory becomes an object like any other."""
    with objects.batch() as batch:
        path = Path(batch.staging) / "x.pyc"
        path.write_bytes(DATA)
        batch.add_staged(str(path), name_of(DATA), len(DATA))
        batch.publish()
    assert objects.sound(name_of(DATA), len(DATA))
    assert os.listdir(objects.tmp) == []


@pytest.mark.parametrize("how", ["copy", "own", "adopt"])
@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(OTHER),
        lambda path: path.write_bytes(OTHER * 2),
        lambda path: (path.rename(f"{path}-"), path.write_bytes(OTHER)),
    ],
    ids=["edited", "grown", "replaced"],
)
def test_a_file_that_changed_since_it_was_hashed_is_refused(
    objects: Objects, source: Path, how: str, change: Callable[[Path], object]
) -> None:
    """No object is ever made from bytes that nobody hashed."""
    os.utime(source, ns=(0, 10**18))
    seen = found(source)
    change(source)
    with pytest.raises(Changing), objects.batch() as batch:
        add_from(how, batch, source, name_of(DATA), seen)
    assert list(objects.names()) == []


@pytest.mark.parametrize("how", ["own", "adopt"])
@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_a_file_that_changed_is_refused_where_it_cannot_be_linked_too(
    objects: Objects, source: Path, monkeypatch: pytest.MonkeyPatch, how: str, code: int
) -> None:
    """The copy that is made instead looks as closely."""
    seen = found(source)
    source.write_bytes(OTHER)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(Changing), objects.batch() as batch:
        add_from(how, batch, source, name_of(DATA), seen)


def test_an_edit_that_hides_its_mtime_is_refused_when_copied(objects: Objects, source: Path) -> None:
    """Size and mtime as before do not deceive: the ctime moved, so the bytes are hashed again."""
    seen = found(source)
    source.write_bytes(OTHER)
    os.utime(source, ns=(0, seen.stamp.mtime_ns))
    with pytest.raises(Changing), objects.batch() as batch:
        batch.add_copy(str(source), name_of(DATA), seen.stamp)


def test_a_file_that_only_got_another_link_is_copied(objects: Objects, source: Path, tmp_path: Path) -> None:
    """Another venv being built from the same cache moves the ctime, and is no change."""
    seen = found(source)
    os.link(source, tmp_path / "another")
    published(objects, lambda batch: batch.add_copy(str(source), name_of(DATA), seen.stamp))
    assert objects.sound(name_of(DATA), len(DATA))


@pytest.mark.parametrize("how", ["copy", "own", "adopt"])
def test_a_symlink_is_not_followed(objects: Objects, source: Path, tmp_path: Path, how: str) -> None:
    """A file that became a link is neither read nor changed through it."""
    seen = found(source)
    source.rename(tmp_path / "target")
    source.symlink_to(tmp_path / "target")
    before = attributes(tmp_path / "target")
    with pytest.raises((Changing, OSError)), objects.batch() as batch:
        add_from(how, batch, source, name_of(DATA), seen)
    assert attributes(tmp_path / "target") == before


# --------------------------------------------------------------------------- other file systems


@pytest.mark.parametrize("how", ["copy", "own", "adopt"])
def test_a_store_on_another_file_system_gets_copies(source: Path, tmp_path: Path, how: str) -> None:
    """The venv's file stays as it is, whichever way it was to come in."""
    with elsewhere(tmp_path) as other:
        objects = objects_in(other)
        before = attributes(source)
        batch = published(objects, lambda batch: take(how, batch, source))
        assert attributes(source) == before
        assert objects.sound(name_of(DATA), len(DATA))
        assert batch.adopted == {}
        assert batch.origins == {name_of(DATA): str(source)}


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("how", ["bytes", "copy"])
def test_a_full_disk_publishes_nothing_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    """The error is the system's own, staging is emptied, what was there before stays."""
    large = tmp_path / "large"
    large.write_bytes(os.urandom(400_000))
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=200k", "none") as small:
        objects = objects_in(small)
        (name,) = put(objects, DATA)
        with pytest.raises(OSError, match="No space"), objects.batch() as batch:
            (take("copy", batch, large) if how == "copy" else batch.add_bytes(large.read_bytes()))
        assert [name for name, _ in objects.names()] == [name]
        assert os.listdir(objects.tmp) == []


@needs_root
@pytest.mark.root
def test_running_out_of_inodes_while_publishing_leaves_whole_objects(tmp_path: Path) -> None:
    """Names that were given stay, each with all its bytes; trying again after making room completes it."""
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "nr_inodes=24", "none") as small:
        objects = objects_in(small)
        datas = [bytes([number]) for number in range(12)]
        with pytest.raises(OSError, match="No space"):
            put(objects, *datas)
        assert all(objects.verified(name) for name, _ in objects.names())
        assert os.listdir(objects.tmp) == []
        os.system(f"mount -o remount,nr_inodes=100 {small}")  # noqa: S605 - a path of our own
        put(objects, *datas)
        assert len(list(objects.names())) == 12


def test_a_read_only_store_is_not_changed_by_finding_damage(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage there is everybody's to see, and nobody's to clear away."""
    (name,) = put(objects, DATA)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(os, "rename", refuse)
    objects.quarantine(name)
    assert read(objects.path(name)).digest == name.digest


# --------------------------------------------------------------------------- modes and owners


def _modes(objects: Objects, name: Name) -> tuple[int, int]:
    st = os.stat(objects.path(name))
    return st.st_mode & 0o7777, st.st_mtime_ns


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o600, 0o644, 0o555, 0o777, 0o4444, 0o1444])
@pytest.mark.parametrize("link", [False, True])
def test_a_mode_that_was_changed_is_seen_and_given_back(
    objects: Objects, tmp_path: Path, mode: int, link: bool
) -> None:
    """In place, for all who have the file: time tells that it is ours."""
    (name,) = put(objects, DATA)
    if link:
        os.link(objects.path(name), tmp_path / "a venv's name")
    os.chmod(objects.path(name), mode)
    assert objects.sound(name, len(DATA)) == (mode == 0o444)
    inode = os.stat(objects.path(name)).st_ino
    assert objects.relabel(name) == MtimeMode(time_of(DATA), 0o444)
    assert _modes(objects, name) == (0o444, time_of(DATA))
    assert os.stat(objects.path(name)).st_ino == inode


@pytest.mark.parametrize("mode", [0o777, 0o600, 0o4644, 0o755])
def test_a_strangers_file_keeps_its_mode_and_a_copy_becomes_the_object(
    objects: Objects, source: Path, tmp_path: Path, mode: int
) -> None:
    """What was adopted, and is not as it came: nothing of it is touched, and nothing is lost."""
    os.link(source, tmp_path / "cache")
    name = name_of(DATA)
    batch = published(objects, lambda batch: take("adopt", batch, source))
    (tmp_path / "cache").chmod(mode)
    before = attributes(tmp_path / "cache")
    assert not objects.sound(name, len(DATA), batch.adopted[name])
    assert objects.relabel(name, batch.adopted[name]) == MtimeMode(time_of(DATA), 0o444)
    assert attributes(tmp_path / "cache") == before
    assert not os.path.samefile(tmp_path / "cache", objects.path(name))
    assert _modes(objects, name) == (0o444, time_of(DATA))
    assert os.listdir(objects.tmp) == []


def test_an_adopted_file_that_was_only_touched_gets_its_own_time_back(
    objects: Objects, source: Path, tmp_path: Path
) -> None:
    """It is shared with the stranger as before."""
    os.link(source, tmp_path / "cache")
    name = name_of(DATA)
    look = published(objects, lambda batch: take("adopt", batch, source)).adopted[name]
    os.utime(tmp_path / "cache")
    assert objects.relabel(name, look) == look
    assert _modes(objects, name) == (look.mode, look.mtime_ns)
    assert os.path.samefile(tmp_path / "cache", objects.path(name))


@pytest.mark.parametrize("mode", [0o666, 0o4755, 0o2755, 0o1644, 0o640, 0o600])
def test_what_others_may_change_at_will_or_not_read_is_not_adopted(
    objects: Objects, source: Path, tmp_path: Path, mode: int
) -> None:
    """It becomes an object by copy."""
    os.link(source, tmp_path / "cache")
    source.chmod(mode)
    with objects.batch() as batch:
        name = name_of(DATA)
        batch.adopt(str(source), name, lstat(str(source)))
        batch.publish()
    assert batch.adopted == {}
    assert _modes(objects, name) == (0o444, time_of(DATA))
    assert source.stat().st_mode & 0o7777 == mode


def test_wrong_bytes_never_get_the_look_of_right_ones(objects: Objects) -> None:
    """Or nobody would read them again."""
    (name,) = put(objects, DATA)
    path = Path(objects.path(name))
    path.chmod(0o644)
    path.write_bytes(OTHER)
    assert objects.relabel(name) is None
    assert not objects.sound(name, len(OTHER))
    path.unlink()
    assert objects.relabel(name) is None
    os.mkfifo(path)
    assert objects.relabel(name) is None


@pytest.mark.root
@needs_root
def test_an_object_of_another_user_is_replaced_by_a_copy(objects: Objects, tmp_path: Path) -> None:
    """He could change it at any time; what he has, he keeps."""
    (name,) = put(objects, DATA)
    os.link(objects.path(name), tmp_path / "venv")
    os.chown(tmp_path / "venv", NOBODY, NOBODY)
    assert not objects.sound(name, len(DATA))
    assert objects.relabel(name) == MtimeMode(time_of(DATA), 0o444)
    assert objects.sound(name, len(DATA))
    assert os.stat(tmp_path / "venv").st_uid == NOBODY


@needs_proc
@pytest.mark.root
@needs_root
def test_a_file_that_its_owner_may_not_read_gets_its_mode_back(tmp_path: Path) -> None:
    """As after ``chmod -R 000``, for everybody but root."""
    with for_everybody() as directory:
        os.chown(directory, NOBODY, NOBODY)

        def work() -> None:
            objects = objects_in(directory / "store")
            (name,) = put(objects, DATA)
            os.link(objects.path(name), directory / "venv")
            os.chmod(objects.path(name), 0)
            assert objects.relabel(name) == MtimeMode(time_of(DATA), 0o444)
            assert os.path.samefile(objects.path(name), directory / "venv")

        assert in_child(work, user=NOBODY) == 0


@needs_proc
@pytest.mark.root
@needs_root
def test_what_its_owner_may_not_read_is_read_and_copied_all_the_same(tmp_path: Path) -> None:
    """Right bytes in a wrong mode are not damage: neither a template nor a file that a cache has, too."""
    with for_everybody() as directory:
        os.chown(directory, NOBODY, NOBODY)

        def work() -> None:
            objects = objects_in(directory / "store")
            (name,) = put(objects, DATA)
            os.chmod(objects.path(name), 0)
            assert objects.read(name) == DATA
            assert _modes(objects, name) == (0o444, time_of(DATA))
            cached, other = directory / "cached", b"of the cache"
            cached.write_bytes(other)
            batch = published(objects, lambda batch: take("adopt", batch, cached))
            cached.chmod(0)
            assert objects.relabel(name_of(other), batch.adopted[name_of(other)]) == MtimeMode(
                time_of(other), 0o444
            )
            assert objects.verified(name_of(other))
            assert cached.stat().st_mode & 0o777 == 0o400

        assert in_child(work, user=NOBODY) == 0
