"""Sharing on real file systems: reflink where there is one, real limits, and none of either."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from contents import elsewhere, mounted, name_of, needs_root, objects_in, put, time_of
from machines import FILES, Machine, machine

from venvflow.disk.archive import FrameDirectory
from venvflow.disk.links import Linker, share_blocks
from venvflow.disk.objects import Objects

__all__ = ["machine"]

MIB = 1 << 20


@contextmanager
def disk(root: Path, kind: str, *options: str, size: int = 320 * MIB) -> Iterator[Path]:
    """Give a new file system of a kind, or skip the test with the reason."""
    maker = shutil.which(f"mkfs.{kind}")
    if maker is None:
        pytest.skip(f"there is no mkfs.{kind} on this machine")
    image = root / f"{kind}.img"
    with image.open("wb") as file:
        file.truncate(size)
    made = subprocess.run([maker, *options, str(image)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"mkfs.{kind} does not work here: {made.stderr.strip()}")
    with mounted(root / "mnt", "-o", "loop", str(image)) as place:
        yield place


@contextmanager
def on(machine: Machine, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Let the machine's venvs and its store be at *place*."""
    machine.root, machine.store = place, place / "store"
    monkeypatch.setenv("VENVFLOW_STORE", str(machine.store))
    yield machine


def used(place: Path) -> int:
    """Return the bytes in use on a file system, by its own account."""
    os.sync()
    vfs = os.statvfs(place)
    return (vfs.f_blocks - vfs.f_bfree) * vfs.f_frsize


BIG = {**FILES, "demo/big.bin": os.urandom(24 * MIB)}


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_with_reflink_venvs_keep_their_inodes_and_share_blocks(
    machine: Machine, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel compares and shares; an edit in one venv is in no other, and the store is whole."""
    with disk(tmp_path, kind) as place, on(machine, place, monkeypatch):
        venvs = [machine.venv(name, files=BIG) for name in "abc"]
        big = [machine.site(venv) / "demo/big.bin" for venv in venvs]
        before = [(path.lstat().st_ino, path.lstat().st_mode, path.read_bytes()) for path in big]
        occupied = used(place)
        answer = machine.done("squish", *venvs)
        assert "by reflink" in answer.out
        assert [(path.lstat().st_ino, path.lstat().st_mode, path.read_bytes()) for path in big] == before
        assert all(path.lstat().st_mtime_ns == time_of(BIG["demo/big.bin"]) for path in big)
        assert occupied - used(place) > 40 * MIB
        big[0].write_bytes(b"edited")
        assert big[1].read_bytes() == BIG["demo/big.bin"]
        found = machine.run("verify", "--full", "--json").document["findings"]
        assert [(each["kind"], each["venv"]) for each in found] == [("file edited", str(venvs[0]))]
        assert all(machine.works(venv) for venv in venvs)
        machine.done("unsquish", *venvs)
        shutil.rmtree(machine.store)
        assert big[1].read_bytes() == BIG["demo/big.bin"]


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
@pytest.mark.parametrize("link", ["reflink,hardlink", "hardlink", "symlink"])
def test_stats_say_what_du_says_to_the_block(
    machine: Machine, tmp_path: Path, kind: str, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However blocks are counted there, and with compressed trees in the store."""
    with disk(tmp_path, kind) as place, on(machine, place, monkeypatch):
        venvs = [machine.venv(name, files=BIG) for name in "ab"]
        machine.done("squish", *venvs, "--link", link)
        frame = FrameDirectory(f"{machine.store}/frames").new("0" * 64 + ".f3.l3")
        frame.write(os.urandom(100_000))
        frame.finish()
        os.sync()  # btrfs and xfs count what they have allocated
        answer = machine.done("stats", "--json").document
        assert [record["disk"] for record in answer["venvs"]] == [machine.du(venv) for venv in venvs]
        assert answer["totals"]["store"] == machine.du(machine.store)
        assert answer["totals"]["disk"] == machine.du(machine.store, *venvs)


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_files_that_differ_share_nothing(tmp_path: Path, kind: str) -> None:
    """Whatever their size: the kernel says so, and neither changes."""
    with disk(tmp_path, kind) as place:
        for size in (1, 4095, 4096, 5000, 20 * MIB):
            for changed in (None, 0, size - 1):
                one, two = place / "one", place / "two"
                data = bytearray(os.urandom(size))
                one.write_bytes(data)
                if changed is not None:
                    data[changed] ^= 1
                two.write_bytes(data)
                with one.open("rb") as source, two.open("rb") as target:
                    assert share_blocks(source.fileno(), target.fileno(), size) == (changed is None)
                assert two.read_bytes() == data


def test_without_reflink_sharing_blocks_is_an_error(tmp_path: Path) -> None:
    """As on ext4 and in memory; the next way is tried then."""
    with elsewhere(tmp_path) as place:
        for name in ("one", "two"):
            (place / name).write_bytes(b"same" * 5000)
        with (
            (place / "one").open("rb") as source,
            (place / "two").open("rb") as target,
            pytest.raises(OSError, match=r"\w"),
        ):
            share_blocks(source.fileno(), target.fileno(), 20_000)


def test_in_memory_venvs_are_shared_by_hard_links(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store and venvs on tmpfs."""
    with elsewhere(machine.root) as place, on(machine, place, monkeypatch):
        venvs = [machine.venv(name) for name in "ab"]
        assert "by hardlink" in machine.done("squish", *venvs).out
        assert os.path.samefile(*(machine.site(venv) / "demo/table.bin" for venv in venvs))
        assert machine.done("verify", "--full").code == 0


@needs_root
@pytest.mark.slow
def test_sixty_five_thousand_names_and_one_more(tmp_path: Path) -> None:
    """ext4 stops there; a spare of the object takes the next ones, and it is swept when nobody has it."""
    with disk(tmp_path, "ext4", "-q", "-N", "2000") as place:
        objects: Objects = objects_in(place / "store")
        (name,) = put(objects, b"shared by all" * 100)
        (place / "venv").mkdir()
        linker = Linker(("hardlink", "copy"))
        linker.spare = objects.spare
        fd = os.open(place / "venv", os.O_RDONLY)
        try:
            for number in range(65_010):
                assert (
                    linker.place(objects.path(name), str(number), fd, executable=False, mtime_ns=5)
                    == "hardlink"
                )
        finally:
            os.close(fd)
        first, second = os.stat(objects.path(name)), os.stat(f"{objects.path(name)}.1")
        assert (first.st_nlink, second.st_nlink) == (65_000, 12)
        assert (place / "venv/65009").read_bytes() == b"shared by all" * 100
        last = os.stat(place / "venv/65009")
        assert objects.is_at(name, last.st_ino, last.st_dev)
        assert [each[0] for each in objects.spares()] == [name]


def test_a_damaged_spare_is_made_anew(tmp_path: Path) -> None:
    """It is put aside; the object itself is hashed before it is copied."""
    objects = objects_in(tmp_path / "store")
    (name,) = put(objects, b"bytes")
    spare = objects.spare(objects.path(name))
    assert spare == f"{objects.path(name)}.1"
    assert objects.spare(objects.path(name)) == spare
    assert objects.spare(spare) == f"{objects.path(name)}.2"
    Path(spare).chmod(0o644)
    Path(spare).write_bytes(b"wrong")
    assert objects.spare(objects.path(name)) == spare
    assert Path(spare).read_bytes() == b"bytes"
    Path(objects.path(name)).chmod(0o644)
    Path(objects.path(name)).write_bytes(b"wrong")
    Path(spare).unlink()
    assert objects.spare(objects.path(name)) is None
    assert objects.spare(str(tmp_path / "elsewhere")) is None
    assert name == name_of(b"bytes")


def fill(filler: Path, *, leave: int) -> None:
    """Let a file grow until its file system has *leave* bytes left, or a little less."""
    status = os.statvfs(filler.parent)
    with filler.open("ab") as file:
        file.write(b"x" * max(0, status.f_bavail * status.f_frsize - leave))


@needs_root
def test_a_full_disk_stops_squish_and_unsquish_and_loses_nothing(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message, the exit code of the environment, and a venv that works."""
    with (
        mounted(tmp_path / "mnt", "-t", "tmpfs", "-o", "size=4m", "none") as place,
        on(machine, place, monkeypatch),
    ):
        data = os.urandom(1_500_000)
        venv = machine.venv("a", files={**FILES, "demo/big.bin": data})
        machine.done("squish", venv)
        filler = place / "filler"
        fill(filler, leave=400_000)
        answer = machine.run("unsquish", venv)
        assert answer.code == 3
        assert "The venv works" in answer.err
        assert machine.works(venv)
        assert (machine.site(venv) / "demo/big.bin").read_bytes() == data
        other = machine.venv("b", files={**FILES, "demo/other.bin": os.urandom(250_000)})
        fill(filler, leave=20_000)
        answer = machine.run("squish", other)
        assert answer.code == 3
        assert machine.works(other)
        filler.unlink()
        machine.done("unsquish", venv)
        machine.done("squish", other)
