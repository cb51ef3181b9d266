"""Frames are compressed once, checked before they are used again, and the same wherever they stand."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import DESCRIPTION, Objects, contents, make_venv, pack, read_venv
from pythons import SITE

from venvflow.disk.archive import DamagedObject, FrameDirectory, Options, Written, write_archive
from venvflow.disk.archive.frames import frame_name
from venvflow.model import Manifest


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """Return an empty store of objects."""
    return Objects(tmp_path / "objects")


@pytest.fixture
def frames(tmp_path: Path) -> FrameDirectory:
    """Return an empty store of frames."""
    return FrameDirectory(str(tmp_path / "frames"))


def _pack(manifest: Manifest, objects: Objects, path: Path, frames: FrameDirectory | None) -> Written:
    return write_archive(manifest, objects, str(path), Options(), description=DESCRIPTION, frames=frames)


def _all_frames(frames: FrameDirectory) -> list[Path]:
    return sorted(path for path in Path(frames.root).rglob("*") if path.is_file())


def test_kept_frames_change_nothing_but_the_time(
    tmp_path: Path, objects: Objects, frames: FrameDirectory
) -> None:
    """Without frames, with new ones and with kept ones the archive is the same."""
    manifest = read_venv(make_venv(tmp_path / "venv"), objects)
    without = _pack(manifest, objects, tmp_path / "a.tar.zst", None)
    first = _pack(manifest, objects, tmp_path / "b.tar.zst", frames)
    second = _pack(manifest, objects, tmp_path / "c.tar.zst", frames)
    assert without.sha256 == first.sha256 == second.sha256
    assert (first.frames_reused, second.frames_reused) == (0, second.frames)


def test_only_the_tree_that_changed_is_compressed_again(
    tmp_path: Path, objects: Objects, frames: FrameDirectory
) -> None:
    """After one package changes, every other frame is used again, and its objects are not even read."""
    root = make_venv(tmp_path / "venv")
    manifest = read_venv(root, objects)
    _pack(manifest, objects, tmp_path / "a.tar.zst", frames)
    has_same_directories = next(
        e for t in manifest.trees for e in t.entries if e.path == f"{SITE}/pkg1/data.bin"
    )
    os.unlink(objects.root / has_same_directories.digest)
    (root / SITE / "pkg2/__init__.py").write_text("changed = True\n")
    written = _pack(read_venv(root, _Only(objects)), objects, tmp_path / "b.tar.zst", frames)
    assert written.frames_reused == written.frames - 1
    assert contents(tmp_path / "b.tar.zst")[f"{SITE}/pkg2/__init__.py"][1] == b"changed = True\n"


class _Only(Objects):
    """Objects of which one is gone and stays gone."""

    def __init__(self, objects: Objects) -> None:
        self.root = objects.root
        self._there = set(os.listdir(objects.root))

    def put(self, data: bytes) -> str:
        digest = super().put(data)
        if data.startswith(b"pkg1 0\n"):
            os.unlink(self.root / digest)
        return digest


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "empty"])
def test_a_damaged_frame_is_made_anew(
    damage: str, tmp_path: Path, objects: Objects, frames: FrameDirectory
) -> None:
    """A frame whose bytes are not those its name ends with is deleted, and the archive is right."""
    manifest = read_venv(make_venv(tmp_path / "venv"), objects)
    first = _pack(manifest, objects, tmp_path / "a.tar.zst", frames)
    before = _all_frames(frames)
    data = before[0].read_bytes()
    flipped = data[:30] + bytes([data[30] ^ 1]) + data[31:]
    before[0].write_bytes({"flip": flipped, "cut": data[:-1], "grow": data + b"\0", "empty": b""}[damage])
    second = _pack(manifest, objects, tmp_path / "b.tar.zst", frames)
    assert second.sha256 == first.sha256
    assert second.frames_reused == second.frames - 1
    assert _all_frames(frames) == before
    assert before[0].read_bytes() == data


def test_a_damaged_frame_is_deleted_when_it_is_noticed(frames: FrameDirectory) -> None:
    """It is of no use to anybody, and a full disk may need the room."""
    new = frames.new("abc.l3")
    new.write(b"content")
    new.finish()
    (path,) = _all_frames(frames)
    path.write_bytes(b"Content")
    assert frames.open("abc.l3") is None
    assert _all_frames(frames) == []


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_no_frame(
    tmp_path: Path, objects: Objects, frames: FrameDirectory, make: Callable[[Path], None]
) -> None:
    """Nobody waits for it, and the archive is the same."""
    manifest = read_venv(make_venv(tmp_path / "venv"), objects)
    first = _pack(manifest, objects, tmp_path / "a.tar.zst", frames)
    for path in _all_frames(frames):
        path.unlink()
        make(path.with_name(path.name[:-1] + "_"))
    assert _pack(manifest, objects, tmp_path / "b.tar.zst", frames).sha256 == first.sha256


def test_a_frame_is_whole_or_not_there(tmp_path: Path, frames: FrameDirectory) -> None:
    """Until it is finished a frame has no name that anyone looks for, and a discarded one leaves nothing."""
    name = "ab" + "0" * 62
    frame = frames.new(name)
    frame.write(b"half")
    assert frames.open(name) is None
    frame.discard()
    assert _all_frames(frames) == []


def test_a_damaged_object_leaves_no_frame(tmp_path: Path, objects: Objects, frames: FrameDirectory) -> None:
    """A frame of wrong bytes is never kept, and the ones that are kept are right."""
    manifest = read_venv(make_venv(tmp_path / "venv"), objects)
    victim = next(e for t in manifest.trees for e in t.entries if e.path == f"{SITE}/pkg2/data.bin")
    (objects.root / victim.digest).unlink()
    (objects.root / victim.digest).write_bytes(b"x" * victim.size)
    with pytest.raises(DamagedObject):
        _pack(manifest, objects, tmp_path / "a.tar.zst", frames)
    tree = next(tree for tree in manifest.trees if tree.name == "pkg2")
    assert frames.open(frame_name(tree, Options())) is None
    assert not [path for path in _all_frames(frames) if path.name.startswith(".")]


def test_a_frame_that_is_kept_can_be_opened(frames: FrameDirectory) -> None:
    """From its first byte, each time; names are taken whole: one that starts like another is another."""
    new = frames.new("abc.l3")
    new.write(b"cont")
    new.write(b"ent")
    new.finish()
    for _ in range(2):
        kept = frames.open("abc.l3")
        assert kept is not None
        with kept:
            assert kept.read() == b"content"
    assert frames.open("abc.l") is None
    assert frames.open("abc.l33") is None


def test_a_frame_that_is_swept_while_it_is_used_stays_readable(frames: FrameDirectory) -> None:
    """It is open by then; another process finds it gone and makes it anew."""
    new = frames.new("abc.l3")
    new.write(b"content")
    new.finish()
    file = frames.open("abc.l3")
    assert file is not None
    with file:
        _all_frames(frames)[0].unlink()
        assert file.read() == b"content"
    assert frames.open("abc.l3") is None


def test_everything_a_frame_depends_on_is_in_its_name(tmp_path: Path, objects: Objects) -> None:
    """Another tree, level, directory name or place means another frame; the number of threads does not."""
    one, other = read_venv(make_venv(tmp_path / "venv"), objects).trees[:2]
    assert any(entry.slots for entry in one.entries)
    names = [
        frame_name(one, Options()),
        frame_name(other, Options()),
        frame_name(one, Options(level=4)),
        frame_name(one, Options(arcroot="a")),
        frame_name(one, Options(arcroot="b")),
        frame_name(one, Options(place="/a")),
        frame_name(one, Options(place="/b")),
    ]
    assert len(set(names)) == len(names)
    assert frame_name(one, Options(threads=1, level=3)) == names[0]
    assert names[0].startswith(one.digest)


def test_a_frame_is_a_part_of_every_archive_that_has_its_tree(
    tmp_path: Path, objects: Objects, frames: FrameDirectory
) -> None:
    """The bytes of a frame stand unchanged in archives of different venvs."""
    manifest = read_venv(make_venv(tmp_path / "venv"), objects)
    smaller = Manifest(tuple(tree for tree in manifest.trees if tree.name != "pkg1"))
    _pack(manifest, objects, tmp_path / "a.tar.zst", frames)
    _pack(smaller, objects, tmp_path / "b.tar.zst", frames)
    for path in _all_frames(frames):
        if not path.name.startswith(manifest.trees[1].digest):
            assert path.read_bytes() in (tmp_path / "a.tar.zst").read_bytes()
    shared = next(p for p in _all_frames(frames) if p.name.startswith(smaller.trees[-1].digest))
    assert shared.read_bytes() in (tmp_path / "b.tar.zst").read_bytes()


def test_zstd_reads_one_frame_alone(tmp_path: Path, objects: Objects, frames: FrameDirectory) -> None:
    """A kept frame is a file that the zstd command tests, with a checksum of its own."""
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    _pack(read_venv(make_venv(tmp_path / "venv"), objects), objects, tmp_path / "a.tar.zst", frames)
    for path in _all_frames(frames):
        subprocess.run(["zstd", "-q", "-t", "-f", "--", str(path)], check=True)


def test_a_disk_that_cannot_keep_frames_is_an_error_with_a_name(tmp_path: Path, objects: Objects) -> None:
    """When the frame store cannot be written, no archive appears under the final name."""
    from venvflow.errors import EnvironmentFailure

    (tmp_path / "file").write_text("not a directory")
    manifest = read_venv(make_venv(tmp_path / "venv"), objects)
    with pytest.raises(EnvironmentFailure, match="cannot write"):
        _pack(manifest, objects, tmp_path / "a.tar.zst", FrameDirectory(str(tmp_path / "file/frames")))
    assert not (tmp_path / "a.tar.zst").exists()
    assert pack(manifest, objects, tmp_path / "a.tar").entries
