"""Which file or file system an error is about, and what helps: asked of real ones where that can be made."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from contents import mounted, needs_proc, needs_root

from venvflow.disk.descriptors import directory
from venvflow.disk.directories import discard
from venvflow.disk.mounts import mount_of
from venvflow.disk.system_errors import failure, from_system, of_database, path_of


def told(error: OSError, at: Path) -> str:
    """Return the message for *error*, as a step shows it."""
    return str(failure(error, "cannot do it", at=str(at), state="S."))


@pytest.mark.parametrize(
    ("number", "words", "hint"),
    [
        (errno.ENOSPC, "No space left on device (the file system mounted at /", "Free space there"),
        (errno.EDQUOT, "Disk quota exceeded (the file system mounted at /", "Your quota is used up"),
        (errno.EROFS, "Read-only file system (the file system mounted at /", "Make it writable"),
        (errno.EMFILE, "Too many open files", "Allow more open files"),
        (errno.ENFILE, "Too many open files in system", "Let others close files"),
        (errno.EIO, "Input/output error", "Look at the disk"),
        (errno.EACCES, "Permission denied", "Check owner and mode of it and"),
        (errno.EPERM, "Operation not permitted", "Check owner and mode"),
        (errno.ELOOP, "Too many levels of symbolic links", "Put a directory or file in the place"),
        (errno.ENAMETOOLONG, "File name too long", "Use a directory with a shorter path"),
        (errno.ESTALE, "Stale file handle", "Mount that network file system again"),
        (errno.EXDEV, "Invalid cross-device link", "Check owner and mode"),
        (errno.EFBIG, "File too large", "Allow larger files"),
    ],
)
def test_each_error_gets_its_own_advice(tmp_path: Path, number: int, words: str, hint: str) -> None:
    """A disk that fails is not helped by free space, nor a full one by permissions."""
    message = told(OSError(number, os.strerror(number), str(tmp_path / "x\n")), tmp_path)
    assert message.startswith(f"{tmp_path}/x\\n: cannot do it: {words}")
    assert f" S. {hint}" in message


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded. S. Free space"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device. S. Free space"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files. S. Allow more open files"),
        (OSError(errno.EACCES, "Permission denied", "/p"), "/p: Permission denied. S. Check owner"),
        (OSError("odd"), "odd. S. Check permissions"),
        (MemoryError(), "there is not enough memory. S. Free some"),
    ],
)
def test_errors_that_name_no_file_say_what_they_can(error: OSError | MemoryError, text: str) -> None:
    """And end with 3."""
    message = from_system(error, "S.")
    assert str(message).startswith(text)
    assert message.exit_code == 3


def test_a_working_directory_that_is_gone_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system says only that something is not there."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        os.getcwd()
    assert str(from_system(caught.value, "S.")) == (
        "the working directory is gone. S. Change to a directory that exists."
    )


def test_of_two_paths_it_is_the_one_that_was_to_be_written() -> None:
    """And a name in a directory that nobody knows is put after the one that was worked in."""
    assert path_of(OSError(28, "x", "/a", None, "/b"), "/c") == "/b"
    assert path_of(OSError(28, "x", "/a", None, "b"), "/c") == "/a"
    assert path_of(OSError(28, "x", b"a", None, b"b"), "/c") == "/c/b"
    assert path_of(OSError(28, "x"), "/c") == "/c"


@needs_proc
def test_names_in_directories_get_their_paths(tmp_path: Path) -> None:
    """What fails in a directory that is open by its number is found again by whoever reads the message."""
    with pytest.raises(FileNotFoundError) as caught, directory(str(tmp_path)) as fd:
        os.unlink("gone", dir_fd=fd)
    assert caught.value.filename == f"{tmp_path}/gone"
    (tmp_path / "one").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(OSError, match="full") as refused, directory(str(tmp_path)) as fd:
        os.rename("one", "full", src_dir_fd=fd, dst_dir_fd=fd)
    assert path_of(refused.value, "") == f"{tmp_path}/full"


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    """A file where a directory should be, however far above."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a" / "b"
    with pytest.raises(NotADirectoryError) as caught:
        path.touch()
    assert f"({tmp_path}/file is not a directory). S. Move that away" in told(caught.value, path)


def test_what_a_database_says_is_told_in_its_words(tmp_path: Path) -> None:
    """Where the disk has room and can be written, nothing more is known; an error of the system stays one."""
    refused = of_database(sqlite3.OperationalError("disk I/O error"), str(tmp_path / "x.db"))
    assert (refused.errno, path_of(refused, "")) == (0, str(tmp_path / "x.db"))
    assert "cannot do it: disk I/O error. S. Check" in told(refused, tmp_path)
    full = of_database(sqlite3.OperationalError("database or disk is full"), str(tmp_path / "x.db"))
    assert "is full). S. Free space there" in told(full, tmp_path)
    own = OSError(errno.EIO, "x")
    assert of_database(own, "/") is own


# --------------------------------------------------------------------------- real ones


@needs_root
@pytest.mark.root
def test_the_file_system_that_is_full_is_named(tmp_path: Path) -> None:
    """By bytes or by inodes, by where it is mounted; also for an error that names no file."""
    for options, words in (("size=64k", "is full"), ("size=8m,nr_inodes=8", "has no inodes left")):
        with mounted(tmp_path / "small", "-t", "tmpfs", "-o", options, "none") as small:
            with pytest.raises(OSError, match="No space") as caught:
                _fill(small)
            message = told(caught.value, small / "x" / "y")
            assert f"(the file system mounted at {small} {words}). S. " in message
            assert mount_of(str(small / "x")).point == str(small)
            database = of_database(sqlite3.OperationalError("disk I/O error"), str(small / "x.db"))
            assert database.errno == errno.ENOSPC
    assert mount_of(str(tmp_path / "small")).point != str(tmp_path / "small")


def _fill(directory_: Path) -> None:
    for number in range(1000):
        (directory_ / str(number)).write_bytes(bytes(4096))


@needs_root
@pytest.mark.root
def test_a_mount_that_is_read_only_is_named(tmp_path: Path) -> None:
    """Also one of the same file system, which has the same device."""
    inside = tmp_path / "venv" / "inside"
    inside.mkdir(parents=True)
    with mounted(inside, "--bind", str(inside)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(inside)], check=True)
        with pytest.raises(OSError, match="Read-only") as caught:
            (inside / "x").touch()
        assert f"(the file system mounted at {inside}). S. Make it writable" in told(caught.value, inside)


@needs_proc
@needs_root
@pytest.mark.root
@pytest.mark.parametrize(("flag", "word"), [("i", "immutable"), ("a", "append-only")])
def test_a_file_that_nobody_may_change_is_named(tmp_path: Path, flag: str, word: str) -> None:
    """With its path, however deep it lies in what is removed, and what lets it be changed."""
    file = tmp_path / "venv" / "lib" / "a.txt"
    file.parent.mkdir(parents=True)
    file.touch()
    if shutil.which("chattr") is None:
        pytest.skip("chattr is not installed")
    if subprocess.run(["chattr", f"+{flag}", str(file)], check=False, capture_output=True).returncode:
        pytest.skip("this file system knows no such flags")
    try:
        with pytest.raises(OSError, match="not permitted") as caught, directory(str(tmp_path)) as fd:
            discard("venv", fd)
        message = told(caught.value, tmp_path)
        assert message.startswith(f"{file}: cannot do it: Operation not permitted (it is {word}). S. ")
        assert f"(chattr -{flag})" in message
    finally:
        subprocess.run(["chattr", f"-{flag}", str(file)], check=True)
