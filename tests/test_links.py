"""Links: the ladder of modes, real bytes, swaps and syncs."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contents import elsewhere, in_child, linux_only, mounted, needs_root, time_of

from venvflow.disk import kernel, links
from venvflow.disk.descriptors import directory
from venvflow.disk.kernel import exchange, sync_file_system
from venvflow.disk.links import Linker, copy_bytes, has_writer, name_new, write_private
from venvflow.model import LinkMode

DATA = b"shared\n" * 1000
TIME = time_of(DATA)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Give an object as it lies in a store: read-only, with the mtime of its content."""
    path = tmp_path / "object"
    path.write_bytes(DATA)
    path.chmod(0o444)
    os.utime(path, ns=(TIME, TIME))
    return path


@pytest.fixture
def venv(tmp_path: Path) -> Iterator[int]:
    """Give a descriptor of an empty directory called ``venv``."""
    (tmp_path / "venv").mkdir()
    fd = os.open(tmp_path / "venv", os.O_RDONLY)
    yield fd
    os.close(fd)


def refuse(function: str, code: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let an ``os`` function fail with *code*; return a list that grows with each call."""
    calls: list[int] = []

    def failing(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, function, failing)
    return calls


def test_a_hard_link_is_the_object_itself(source: Path, venv: int, tmp_path: Path) -> None:
    """The first mode that works is used, and counted."""
    linker = Linker(("hardlink", "copy"))
    assert linker.place(str(source), "a.py", venv, executable=False, mtime_ns=TIME) == "hardlink"
    assert (tmp_path / "venv/a.py").stat().st_ino == source.stat().st_ino
    assert linker.used == {"hardlink": 1}


def test_a_symlink_points_at_the_object(source: Path, venv: int, tmp_path: Path) -> None:
    """The link is absolute, so the venv's place does not matter."""
    assert Linker(("symlink",)).place(str(source), "a.py", venv, executable=False, mtime_ns=TIME) == "symlink"
    assert os.readlink(tmp_path / "venv/a.py") == str(source)


@pytest.mark.parametrize("executable", [False, True])
def test_a_copy_is_private_and_writable_and_has_the_time_of_its_content(
    source: Path, venv: int, tmp_path: Path, executable: bool
) -> None:
    """It is the user's to edit, and looks like the object by its time."""
    copied = Linker(("copy",)).place(str(source), "a.py", venv, executable=executable, mtime_ns=TIME)
    assert copied == "copy"
    st = (tmp_path / "venv/a.py").stat()
    assert (tmp_path / "venv/a.py").read_bytes() == DATA
    assert (st.st_nlink, st.st_mtime_ns) == (1, TIME)
    umask = os.umask(0)
    os.umask(umask)
    assert st.st_mode & 0o777 == (0o755 if executable else 0o644) & ~umask


def test_reflink_falls_back_to_hardlink_and_is_not_tried_again(
    source: Path, venv: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file system that cannot clone says so once per venv, not once per file."""
    calls: list[int] = []

    def clone(reading: int, writing: int) -> None:
        calls.append(writing)
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(links, "clone", clone)
    linker = Linker(("reflink", "hardlink", "copy"))
    for name in ("a", "b"):
        assert linker.place(str(source), name, venv, executable=False, mtime_ns=TIME) == "hardlink"
    assert len(calls) == 1
    assert linker.mode == "hardlink"
    assert sorted(os.listdir(tmp_path / "venv")) == ["a", "b"]


def test_reflink_works_or_falls_back_on_this_file_system(source: Path, venv: int, tmp_path: Path) -> None:
    """Whatever the real ioctl answers here, the file has its bytes and is private."""
    assert Linker(("reflink",)).place(str(source), "a", venv, executable=False, mtime_ns=TIME) in (
        "reflink",
        "copy",
    )
    assert (tmp_path / "venv/a").read_bytes() == DATA
    assert (tmp_path / "venv/a").stat().st_nlink == 1


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_mode_that_cannot_work_here_is_given_up(
    source: Path, venv: int, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Another file system, or a kernel that protects hard links, costs one failed call."""
    calls = refuse("link", code, monkeypatch)
    linker = Linker(("hardlink",))
    assert [linker.place(str(source), name, venv, executable=False, mtime_ns=TIME) for name in "ab"] == [
        "copy",
        "copy",
    ]
    assert len(calls) == 1
    assert linker.mode == "copy"


def test_an_object_with_too_many_links_is_copied_and_others_are_linked(
    source: Path, venv: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EMLINK is about one object, so hard links are tried again for the next."""
    linker = Linker(("hardlink", "copy"))
    with monkeypatch.context() as patch:
        refuse("link", errno.EMLINK, patch)
        assert linker.place(str(source), "a", venv, executable=False, mtime_ns=TIME) == "copy"
    assert linker.mode == "hardlink"
    assert linker.place(str(source), "b", venv, executable=False, mtime_ns=TIME) == "hardlink"


@pytest.mark.slow
def test_the_65001st_link_is_a_copy(source: Path, venv: int, tmp_path: Path) -> None:
    """The limit of the real file system does not stop anything."""
    many = tmp_path / "many"
    many.mkdir()
    for number in range(65_100):
        try:
            os.link(source, many / str(number))
        except OSError as error:
            assert error.errno == errno.EMLINK  # noqa: PT017 - the loop finds out which one it is
            break
    else:
        pytest.skip("this file system allows more than 65,100 links")
    assert (
        Linker(("hardlink", "copy")).place(str(source), "a", venv, executable=False, mtime_ns=TIME) == "copy"
    )
    assert (tmp_path / "venv/a").read_bytes() == DATA


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_real_failure_is_raised_and_nothing_else_is_tried(
    source: Path, venv: int, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A full disk is not a reason to copy."""
    refuse("link", code, monkeypatch)
    with pytest.raises(OSError, match=r".") as caught:
        Linker(("hardlink", "copy")).place(str(source), "a", venv, executable=False, mtime_ns=TIME)
    assert caught.value.errno == code


@pytest.mark.parametrize("mode", ["hardlink", "copy", "symlink", "reflink"])
def test_nothing_is_ever_replaced(source: Path, venv: int, tmp_path: Path, mode: LinkMode) -> None:
    """A taken name is an error, and what has it stays."""
    (tmp_path / "venv/a").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        Linker((mode,)).place(str(source), "a", venv, executable=False, mtime_ns=TIME)
    assert (tmp_path / "venv/a").read_bytes() == b"mine"


@pytest.mark.parametrize("mode", ["hardlink", "copy", "symlink", "reflink"])
def test_a_missing_object_is_an_error_in_every_mode(venv: int, tmp_path: Path, mode: LinkMode) -> None:
    """A dangling symlink would only be found out by a failing import."""
    with pytest.raises(FileNotFoundError):
        Linker((mode,)).place(str(tmp_path / "none"), "a", venv, executable=False, mtime_ns=TIME)
    assert os.listdir(tmp_path / "venv") == []


@pytest.mark.parametrize("mode", ["copy", "reflink"])
def test_an_object_that_is_a_symlink_is_not_followed(venv: int, tmp_path: Path, mode: LinkMode) -> None:
    """What somebody planted in the store does not bring in other files."""
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "planted").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match=r".") as caught:
        Linker((mode,)).place(str(tmp_path / "planted"), "a", venv, executable=False, mtime_ns=TIME)
    assert caught.value.errno == errno.ELOOP


def test_a_copy_that_fails_leaves_nothing(
    source: Path, venv: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file never stands under the name."""

    def full(reading: int, writing: int) -> None:
        os.write(writing, b"half")
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(links, "copy_bytes", full)
    with pytest.raises(OSError, match="full"):
        Linker(("copy",)).place(str(source), "a", venv, executable=False, mtime_ns=TIME)
    assert os.listdir(tmp_path / "venv") == []


@linux_only
@needs_root
@pytest.mark.root
def test_a_private_file_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    """On a real full disk no torn file stays behind."""
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=16k", "none") as small:
        fd = os.open(small, os.O_RDONLY)
        try:
            with pytest.raises(OSError, match="No space"):
                write_private("a", fd, bytes(100_000), executable=False)
        finally:
            os.close(fd)
        assert os.listdir(small) == []


def test_across_file_systems_files_are_copied(source: Path, tmp_path: Path) -> None:
    """A store elsewhere makes a venv of copies, silently."""
    with elsewhere(tmp_path) as other:
        fd = os.open(other, os.O_RDONLY)
        try:
            linker = Linker(("reflink", "hardlink", "copy"))
            assert linker.place(str(source), "a", fd, executable=False, mtime_ns=TIME) == "copy"
        finally:
            os.close(fd)
        assert (other / "a").read_bytes() == DATA
        assert linker.used == {"copy": 1}


@linux_only
@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
@pytest.mark.parametrize("sender", ["kernel", "none", "fails", "says 0"])
@pytest.mark.parametrize("told", [True, False])
def test_all_bytes_are_copied_whatever_the_kernel_offers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, sender: str, told: bool
) -> None:
    """Kernels without copy_file_range, or file systems on which it does nothing, cost no byte."""
    if sender == "none":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    elif sender == "fails":
        refuse("copy_file_range", errno.EXDEV, monkeypatch)
    elif sender == "says 0":
        monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    with open(tmp_path / "a", "rb") as reading, open(tmp_path / "b", "wb") as writing:
        copy_bytes(reading.fileno(), writing.fileno(), size if told else -1)
    assert (tmp_path / "b").read_bytes() == data


@linux_only
def test_a_small_file_of_known_size_is_copied_in_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are ten thousand of them in a venv."""
    calls: list[int] = []
    real = os.copy_file_range

    def counting(reading: int, writing: int, count: int) -> int:
        calls.append(count)
        return real(reading, writing, count)

    monkeypatch.setattr(os, "copy_file_range", counting)
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("nothing is left to read"))
    (tmp_path / "a").write_bytes(b"12345")
    with open(tmp_path / "a", "rb") as reading, open(tmp_path / "b", "wb") as writing:
        copy_bytes(reading.fileno(), writing.fileno(), 5)
    assert (calls, (tmp_path / "b").stat().st_size) == ([5], 5)


@linux_only
@pytest.mark.parametrize(
    ("size", "data"),
    [
        (1 << 20, []),
        (1 << 20, [(0, b"head")]),
        ((1 << 20) + 3, [((1 << 20), b"end")]),
        (3 << 20, [(5000, b"x" * 70_000), (2 << 20, b"y")]),
        (4 << 20, [(1 << 20, b"z" * (5 << 18))]),
    ],
)
def test_holes_are_copied_as_holes(tmp_path: Path, size: int, data: list[tuple[int, bytes]]) -> None:
    """Wherever they are; where the file system has none, the bytes are right all the same."""
    sparse, copy = tmp_path / "a", tmp_path / "b"
    with sparse.open("wb") as file:
        for offset, text in data:
            file.seek(offset)
            file.write(text)
        file.truncate(size)
    with sparse.open("rb") as reading, copy.open("wb") as writing:
        copy_bytes(reading.fileno(), writing.fileno())
    assert copy.read_bytes() == sparse.read_bytes()
    assert copy.stat().st_blocks <= sparse.stat().st_blocks


def test_a_copy_under_a_wide_open_umask_is_not_writable_by_all(
    source: Path, venv: int, tmp_path: Path
) -> None:
    """The mode is ours, less the umask, never more."""

    def work() -> None:
        os.umask(0)
        Linker(("copy",)).place(str(source), "a", venv, executable=False, mtime_ns=TIME)

    assert in_child(work) == 0
    assert (tmp_path / "venv/a").stat().st_mode & 0o777 == 0o644


def test_exchange_swaps_two_names_or_says_that_it_cannot(tmp_path: Path, venv: int) -> None:
    """Either both have changed places in one step, or nothing has happened."""
    for name in ("a", "b"):
        (tmp_path / "venv" / name).mkdir()
        (tmp_path / "venv" / name / name).touch()
    done = exchange("a", "b", first_fd=venv, second_fd=venv)
    assert os.listdir(tmp_path / "venv/a") == (["b"] if done else ["a"])
    assert os.listdir(tmp_path / "venv/b") == (["a"] if done else ["b"])


@linux_only
def test_exchange_raises_for_a_name_that_is_not_there(tmp_path: Path, venv: int) -> None:
    """That is no missing feature of the kernel."""
    (tmp_path / "venv/a").mkdir()
    if not hasattr(ctypes.CDLL(None), "renameat2"):
        pytest.skip("no renameat2 here")
    with pytest.raises(FileNotFoundError):
        exchange("a", "none", first_fd=venv, second_fd=venv)


def test_exchange_is_false_where_the_library_has_no_such_call(
    venv: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On other systems the caller renames twice."""
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    assert exchange("a", "b", first_fd=venv, second_fd=venv) is False


def test_syncing_works_with_and_without_syncfs(venv: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no call for one file system, all are synced."""
    sync_file_system(venv)
    called: list[bool] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    monkeypatch.setattr(os, "sync", lambda: called.append(True))
    sync_file_system(venv)
    assert called == [True]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_where_the_kernel_refuses_syncfs_all_is_synced(
    venv: int, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A sandbox may know the name and not the call: that is no full disk."""
    called: list[bool] = []
    monkeypatch.setattr(kernel, "_call", lambda *_: code)
    monkeypatch.setattr(os, "sync", lambda: called.append(True))
    sync_file_system(venv)
    assert called == [True]


@pytest.fixture(params=["link", "moved in one step", "moved after a look"])
def naming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with hard links, without them, and on a kernel that moves nothing carefully either."""
    if request.param != "link":
        refuse("link", errno.EPERM, monkeypatch)
    if request.param == "moved after a look":
        monkeypatch.setattr(kernel, "_call", lambda *_: errno.ENOSYS)
    return str(request.param)


@pytest.mark.usefixtures("naming")
def test_a_finished_file_gets_a_name_that_is_free(tmp_path: Path, venv: int) -> None:
    """With its bytes, and in no other way than whole; a name that is taken stays whose it is."""
    source = tmp_path / "venv/source"
    source.write_bytes(b"new")
    name_new("source", "name", source_fd=venv, fd=venv)
    assert (tmp_path / "venv/name").read_bytes() == b"new"
    source.unlink(missing_ok=True)
    source.write_bytes(b"newer")
    with pytest.raises(FileExistsError):
        name_new("source", "name", source_fd=venv, fd=venv)
    assert (source.read_bytes(), (tmp_path / "venv/name").read_bytes()) == (b"newer", b"new")


def test_a_real_error_is_not_taken_for_a_missing_call(
    tmp_path: Path, venv: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk says so, whichever way a file gets its name."""
    (tmp_path / "venv/source").touch()
    refuse("link", errno.ENOSPC, monkeypatch)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        name_new("source", "name", source_fd=venv, fd=venv)
    refuse("link", errno.EPERM, monkeypatch)
    monkeypatch.setattr(kernel, "_call", lambda *_: errno.ENOSPC)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        name_new("source", "name", source_fd=venv, fd=venv)
    assert sorted(os.listdir(tmp_path / "venv")) == ["source"]


@linux_only
def test_a_failed_sync_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written to disk must not be published."""
    if not hasattr(ctypes.CDLL(None), "syncfs"):
        pytest.skip("no syncfs here")
    with pytest.raises(OSError, match=r".") as caught:
        sync_file_system(-1)
    assert caught.value.errno == errno.EBADF


def test_a_file_system_that_knows_no_links_does_not_get_spares_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EMLINK for a fresh spare means that there are no links at all: the file is copied."""
    source = tmp_path / "object"
    source.write_bytes(b"bytes")
    asked: list[str] = []

    def spare(path: str) -> str:
        asked.append(path)
        fresh = f"{path}.{len(asked)}"
        shutil.copy(path, fresh)
        return fresh

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMLINK, "Too many links")

    monkeypatch.setattr(os, "link", full)
    linker = Linker(("hardlink",))
    linker.spare = spare
    with directory(str(tmp_path)) as fd:
        mode = linker.place(str(source), "name", fd, executable=False, mtime_ns=TIME)

    assert (mode, len(asked)) == ("copy", 1)
    assert (tmp_path / "name").read_bytes() == b"bytes"


# --------------------------------------------------------------------------- who writes, and new names


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_a_writer_is_seen_however_it_writes(source: Path, how: str) -> None:
    """A mapping outlives the descriptor that it was made with, and moves no time when it is written to."""
    source.chmod(0o644)
    fd = os.open(source, os.O_RDONLY)
    try:
        if has_writer(fd) is None:
            pytest.skip("this file system knows no leases")
        os.close(fd)
        with source.open("r+b") as file:
            mapped = mmap.mmap(file.fileno(), 0) if how == "mapped" else None
            if how == "mapped":
                file.close()
            fd = os.open(source, os.O_RDONLY)
            assert has_writer(fd) is True
            if mapped is not None:
                mapped.close()
        os.close(fd)
        fd = os.open(source, os.O_RDONLY)
        assert has_writer(fd) is False
    finally:
        os.close(fd)


def test_who_opens_the_file_to_write_while_we_look_waits_and_nobody_dies(source: Path) -> None:
    """The kernel tells us by a signal; the usual one would end this process."""
    source.chmod(0o644)
    fd = os.open(source, os.O_RDONLY)
    try:
        if has_writer(fd) is not False:
            pytest.skip("this file system knows no leases")
        with pytest.raises(BlockingIOError):
            os.open(source, os.O_WRONLY | os.O_NONBLOCK)
        assert signal.getsignal(signal.SIGIO) == signal.SIG_DFL
    finally:
        os.close(fd)
    os.close(os.open(source, os.O_WRONLY | os.O_NONBLOCK))


@linux_only
def test_where_leases_are_unknown_nobody_can_tell(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other systems, and file systems of other machines."""

    def refused(*_: Any) -> None:
        raise OSError(errno.EINVAL, "invalid argument")

    fd = os.open(source, os.O_RDONLY)
    try:
        monkeypatch.setattr(fcntl, "fcntl", refused)
        assert has_writer(fd) is None
        monkeypatch.delattr(fcntl, "F_SETSIG")
        assert has_writer(fd) is None
    finally:
        os.close(fd)


def test_a_new_name_is_linked_in_one_step(source: Path, venv: int, tmp_path: Path) -> None:
    """Nothing is replaced, and other modes take the longer way."""
    linker = Linker(("hardlink", "copy"))
    assert linker.link_new(str(source), "a.pyc", venv)
    assert (tmp_path / "venv/a.pyc").samefile(source)
    (tmp_path / "venv/b.pyc").write_bytes(b"mine")
    assert not linker.link_new(str(source), "b.pyc", venv)
    assert (tmp_path / "venv/b.pyc").read_bytes() == b"mine"
    assert linker.used == {"hardlink": 1}
    assert not Linker(("copy",)).link_new(str(source), "c.pyc", venv)
    with pytest.raises(FileNotFoundError):
        linker.link_new(str(tmp_path / "gone"), "d.pyc", venv)
