"""Small files: read with care, written whole or not at all, and what a kill leaves of them."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from contents import needs_proc, open_descriptors

from venvflow.disk.files import (
    is_temporary_name,
    new_file,
    read_beginning,
    read_small,
    remove_leftovers,
    sync_directory,
    temporary_name,
    write_whole,
)
from venvflow.state.file_stats import is_ignored
from venvflow.state.relink import is_temporary


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Give the directory that the file is for."""
    return _made(tmp_path / "home")


@pytest.fixture(scope="module")
def dead() -> int:
    """Give the number of a process that is gone."""
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    return ended.pid


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def _left(home: Path) -> list[str]:
    return [name for name in os.listdir(home) if name != "file"]


# --------------------------------------------------------------------------- read with care


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 4 << 30)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


STRANGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda _path: None,
    "FIFO": os.mkfifo,
    "directory": os.mkdir,
    "socket": _socket,
    "4 GiB": _sparse,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_not_a_small_file_is_an_error_that_says_why(home: Path, kind: str, follow: bool) -> None:
    """Nobody waits for the other end of a FIFO, and nothing large is read."""
    path = home / "file"
    STRANGE[kind](path)
    with pytest.raises(OSError, match=r"No such file|it is ") as caught:
        read_small(str(path), follow=follow)
    assert caught.value.filename == str(path)


@pytest.mark.parametrize("kind", [each for each in STRANGE if each != "4 GiB"])
def test_the_beginning_of_what_is_not_a_file_is_an_error_too(home: Path, kind: str) -> None:
    """It is read by the same rule, but for the size."""
    path = home / "file"
    STRANGE[kind](path)
    with pytest.raises(OSError, match=r"No such file|it is "):
        read_beginning(str(path), 10)


def test_a_file_is_read_up_to_its_limit_and_not_a_byte_more(home: Path) -> None:
    """The limit is part of what is allowed; of a larger file, the beginning can be had."""
    path = home / "file"
    path.write_bytes(b"12345678")
    assert read_small(str(path), largest=8) == b"12345678"
    with pytest.raises(OSError, match="larger than 7 bytes"):
        read_small(str(path), largest=7)
    assert read_beginning(str(path), 3) == b"123"


@needs_proc
def test_a_file_without_a_size_is_read_up_to_the_limit() -> None:
    """Files of the kernel say that they are empty, and one may grow while it is read."""
    assert read_small("/proc/self/status", follow=True).startswith(b"Name:")
    with pytest.raises(OSError, match="larger than 9 bytes"):
        read_small("/proc/self/status", largest=9)


def test_a_link_is_followed_only_when_told_to(home: Path) -> None:
    """Notes of ours are never links, files of the user's may be."""
    (home / "real").write_bytes(b"text")
    (home / "file").symlink_to("real")
    assert read_small(str(home / "file"), follow=True) == b"text"
    with pytest.raises(OSError, match="it is a symbolic link"):
        read_small(str(home / "file"))


def test_a_name_that_no_file_can_have_is_an_error_like_others() -> None:
    """It comes out of a record that somebody else wrote."""
    for name in ("a\0b", "\ud800"):
        with pytest.raises(OSError, match="no file can have this name"):
            read_small(name)


def test_reading_small_files_leaves_nothing_open(home: Path) -> None:
    """Neither those that were read nor those that were refused."""
    (home / "file").write_bytes(b"text")
    os.mkfifo(home / "pipe")
    before = open_descriptors()
    for _ in range(3):
        read_small(str(home / "file"))
        for name, largest in (("pipe", 10), ("file", 1)):
            with pytest.raises(OSError, match="it is "):
                read_small(str(home / name), largest=largest)
    assert open_descriptors() == before


# --------------------------------------------------------------------------- whole or not at all


def test_a_file_appears_whole_and_replaces_what_was_there(home: Path) -> None:
    """Until the block ends, the old one stands."""
    path = home / "file"
    write_whole(str(path), b"one", sync=True)
    with new_file(str(path)) as file:
        file.write(b"two")
        file.flush()
        assert path.read_bytes() == b"one"
    sync_directory(str(home))
    assert path.read_bytes() == b"two"
    assert not _left(home)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_has_done_nothing(home: Path, error: type[BaseException]) -> None:
    """Neither to the file nor to the directory that it was made in."""
    path = home / "file"
    path.write_bytes(b"one")

    def fail() -> None:
        with new_file(str(path)) as file:
            file.write(b"two")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"one"
    assert not _left(home)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_changes_nothing(call: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is passed on as it is."""

    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, call, failing)
    (home / "file").write_bytes(b"one")
    with pytest.raises(OSError, match="Input/output error"):
        write_whole(str(home / "file"), b"two", sync=True)
    assert (home / "file").read_bytes() == b"one"
    assert not _left(home)


def test_what_is_synced_is_on_disk_before_it_has_its_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all its bytes: none wait in a buffer."""
    seen: list[tuple[int, bool]] = []
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append((os.fstat(fd).st_size, (home / "file").exists())))
    write_whole(str(home / "file"), b"three", sync=True)
    write_whole(str(home / "file"), b"four")
    assert seen == [(5, False)]


def test_a_relative_path_is_one_in_the_working_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it has no directory at all."""
    monkeypatch.chdir(home)
    write_whole("file", b"one", sync=True)
    sync_directory("")
    assert (home / "file").read_bytes() == b"one"


# --------------------------------------------------------------------------- names


def test_all_who_look_for_litter_know_the_names() -> None:
    """Here, in a venv, and where a venv is compared with what it should be."""
    names = {temporary_name() for _ in range(100)}
    assert len(names) == 100
    for knows in (is_temporary_name, is_temporary, is_ignored):
        assert all(knows(name) for name in names), knows
    assert max(map(len, names)) < 40


@pytest.mark.parametrize(
    "name",
    [".vf-0123abcd", ".vf-1", ".vf-1-2.py", "x.vf-1-2", ".vf-a-1", "1-2", ".vf-99999999999999999999-1"],
)
def test_no_other_name_is_taken_for_one(name: str) -> None:
    """Not that of a venv's staging directory either."""
    assert not is_temporary_name(name)


# --------------------------------------------------------------------------- what killed runs leave


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir], ids=["file", "directory"])
def test_what_a_killed_run_left_goes_with_the_next_file(
    make: Callable[[Path], None], dead: int, home: Path
) -> None:
    """Also directories with something in them."""
    left = home / f".vf-{dead}-77"
    make(left)
    if left.is_dir():
        (left / "file").touch()
    write_whole(str(home / "file"), b"")
    assert not _left(home)


def test_what_somebody_works_on_stays(dead: int, home: Path) -> None:
    """Be it a process of this machine, or one that we cannot see and that holds it; others do not stay."""
    (alive, held, left) = (home / f".vf-{pid}-{n}" for pid, n in ((os.getpid(), 1), (dead, 2), (dead, 3)))
    for path in (alive, held, left):
        path.touch()
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_leftovers(str(home))
    assert sorted(home.iterdir()) == sorted((alive, held))


def test_a_number_that_no_process_has_is_no_process(home: Path) -> None:
    """The kernel has no room for it, and what is named by it is in nobody's way: it is removed."""
    (home / ".vf-9999999999-1").touch()
    (home / ".vf-99999999999999999999-1").touch()
    write_whole(str(home / "file"), b"")
    assert _left(home) == [".vf-99999999999999999999-1"]


def test_a_file_is_held_while_it_is_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So nobody takes it away, even who sees no process of that number."""
    monkeypatch.setattr("venvflow.disk.locks.is_alive", lambda _: False)
    with new_file(str(home / "file")) as file:
        file.write(b"one")
        remove_leftovers(str(home))
    assert (home / "file").read_bytes() == b"one"


def test_leftovers_are_never_removed_through_a_link(dead: int, home: Path, tmp_path: Path) -> None:
    """Nor does one that cannot be removed stop us."""
    canary = _made(tmp_path / "canary")
    (canary / "file").touch()
    (home / f".vf-{dead}-1").symlink_to(canary)
    os.mkfifo(home / f".vf-{dead}-2")
    write_whole(str(home / "file"), b"")
    assert os.listdir(canary) == ["file"]


def test_without_locks_files_are_made_all_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems have none."""

    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    write_whole(str(home / "file"), b"one")
    assert (home / "file").read_bytes() == b"one"
