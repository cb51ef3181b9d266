"""Reading a venv: everything is seen, nothing is followed, nothing blocks, nothing is silently missed."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from contents import open_descriptors
from hypothesis import given
from hypothesis import strategies as st

from venvflow.disk import scan
from venvflow.disk.descriptors import directory
from venvflow.disk.scan import Changing, in_threads, lstat, read, walk
from venvflow.errors import EnvironmentFailure
from venvflow.pure.manifest import directories_of


def kinds(root: Path) -> dict[str, str]:
    """Return what a walk finds, by path."""
    return {item.path: item.kind for item in walk(str(root))}


# --------------------------------------------------------------------------- walking


def test_names_of_any_bytes_are_found(tmp_path: Path) -> None:
    """Not UTF-8, line breaks, 255 bytes, and names that look like options."""
    names = [b"\xff\xfe", b"a\nb", b"n" * 255, "é☃".encode(), b"-rf", b" ", b"\\", b"*"]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
            pass
    assert kinds(tmp_path) == {os.fsdecode(name): "file" for name in names}


def test_links_are_found_and_never_followed(tmp_path: Path) -> None:
    """Loops, dangling ones, ones to directories and out of the venv are one entry each."""
    root = tmp_path / "venv"
    (root / "lib").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    targets = {
        "self": "self",
        "up": "..",
        "lib64": "lib",
        "out": str(tmp_path / "outside"),
        "gone": "/no/where",
    }
    for name, target in targets.items():
        (root / name).symlink_to(target)
    assert kinds(root) == {"lib": "dir", **dict.fromkeys(targets, "link")}


def test_fifos_sockets_and_devices_are_special(tmp_path: Path) -> None:
    """They are named, so that somebody can be told, and not opened."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        assert kinds(tmp_path) == {"fifo": "special", "socket": "special"}
    assert lstat("/dev/null").kind == "special"


def test_the_order_is_that_of_names(tmp_path: Path) -> None:
    """The same tree gives the same list, wherever it was made, and directories come before their files."""
    for path in ("b/2", "b/1", "a/z/y", "a/x", "c", "b-a"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    order = ["a", "b", "b-a", "c", "a/x", "a/z", "a/z/y", "b/1", "b/2"]
    assert [item.path for item in walk(str(tmp_path))] == order


def test_directories_that_are_not_wanted_are_listed_but_not_entered(tmp_path: Path) -> None:
    """The question is asked with the path, for directories only."""
    (tmp_path / "a/tests/deep").mkdir(parents=True)
    (tmp_path / "a/x").touch()
    asked: list[str] = []

    def enter(path: str) -> bool:
        asked.append(path)
        return not path.endswith("tests")

    assert [item.path for item in walk(str(tmp_path), enter=enter)] == ["a", "a/tests", "a/x"]
    assert asked == ["a", "a/tests"]


def test_what_is_found_says_how_it_is(tmp_path: Path) -> None:
    """Stamp, mode, links and the executable bit are those of the file itself."""
    path = tmp_path / "tool"
    path.write_bytes(b"12345")
    path.chmod(0o4710)
    os.link(path, tmp_path / "twin")
    found = walk(str(tmp_path))[0]
    st_ = path.stat()
    assert found == lstat(str(path))._replace(path="tool")
    assert found.stamp == (st_.st_ino, 5, st_.st_mtime_ns, st_.st_ctime_ns)
    assert (found.mode, found.links, found.device, found.executable) == (0o4710, 2, st_.st_dev, True)
    path.chmod(0o077)
    assert not lstat(str(path)).executable


@pytest.mark.parametrize("depth", [scan.DEEPEST, scan.DEEPEST + 1])
def test_directories_are_entered_to_a_limit(depth: int, tmp_path: Path) -> None:
    """One level more is an error that says so, not a recursion error and not silence."""
    fds = [os.open(tmp_path, os.O_RDONLY)]
    try:
        for _ in range(depth):
            os.mkdir("d", dir_fd=fds[-1])
            fds.append(os.open("d", os.O_RDONLY, dir_fd=fds[-1]))
        if depth <= scan.DEEPEST:
            assert len(walk(str(tmp_path))) == depth
        else:
            with pytest.raises(EnvironmentFailure, match="nested deeper than 200"):
                walk(str(tmp_path))
    finally:
        for fd in reversed(fds[:-1]):
            os.rmdir("d", dir_fd=fd)
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("make", ["link", "file", "nothing"])
def test_a_root_that_is_no_directory_is_an_error(make: str, tmp_path: Path) -> None:
    """A symlink is not followed even there."""
    root = tmp_path / "venv"
    if make == "link":
        root.symlink_to(tmp_path)
    elif make == "file":
        root.touch()
    with pytest.raises(EnvironmentFailure, match=r"cannot read .*/venv: ") as caught:
        walk(str(root))
    assert caught.value.state
    assert caught.value.hint


def test_what_helps_depends_on_the_error(tmp_path: Path) -> None:
    """Permissions, or a venv that is deleted, give nobody more open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    (tmp_path / "/".join("d" * 40)).mkdir(parents=True)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 20, hard))
    try:
        with pytest.raises(EnvironmentFailure, match=r"cannot read .*: Too many open files") as caught:
            walk(str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.hint == "Allow more open files (ulimit -n), then run again."
    with pytest.raises(EnvironmentFailure) as caught:
        walk(str(tmp_path / "nothing"))
    assert "delete the venv" in caught.value.hint


UNPRIVILEGED = """
import os, shlex, sys  # all that is imported later, too: who has no rights may not read it
sys.path.insert(0, sys.argv[2])
from venvflow.errors import EnvironmentFailure
from venvflow.disk.scan import walk
root = os.open(sys.argv[1], os.O_RDONLY)
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.fchdir(root)
try:
    walk(".")
except EnvironmentFailure as error:
    print(error.what)
"""


def test_a_directory_that_cannot_be_read_is_an_error_with_its_whole_path(tmp_path: Path) -> None:
    """What was not seen must not be called gone. Asked without privileges, also where tests run as root."""
    (tmp_path / "a/b/closed").mkdir(parents=True)
    for path in (tmp_path, tmp_path / "a", tmp_path / "a/b"):
        path.chmod(0o755)
    (tmp_path / "a/b/closed").chmod(0)
    command = [sys.executable, "-c", UNPRIVILEGED, str(tmp_path), str(Path(scan.__file__).parent.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "cannot read ./a/b/closed: Permission denied\n", done.stderr


def test_a_directory_that_becomes_a_link_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swapped between being listed and being entered, it is an error."""
    (tmp_path / "venv/lib").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()

    def swap(_: str) -> bool:
        (tmp_path / "venv/lib").rmdir()
        (tmp_path / "venv/lib").symlink_to(tmp_path / "outside")
        return True

    with pytest.raises(EnvironmentFailure, match="venv/lib"):
        walk(str(tmp_path / "venv"), enter=swap)


def test_a_file_that_vanishes_meanwhile_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody is changing the venv: better to fail than to store half of it."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").touch()
    real = os.stat

    def vanish(path: str, **words: object) -> os.stat_result:
        if path == "a":
            (tmp_path / "d/a").unlink()
        return real(path, **words)  # type: ignore[arg-type] # the same words as it was called with

    monkeypatch.setattr(os, "stat", vanish)
    with pytest.raises(EnvironmentFailure, match=r"/d: No such file"):
        walk(str(tmp_path))


# --------------------------------------------------------------------------- reading


@pytest.mark.parametrize("size", [0, 1, scan._CHUNK - 1, scan._CHUNK, scan._CHUNK + 1, 3 * scan._CHUNK + 5])
def test_a_file_of_any_size_is_read_whole(size: int, tmp_path: Path) -> None:
    """Digest and bytes are right at the edges of the chunks; what is too large is not kept."""
    data = os.urandom(size)
    path = tmp_path / "f"
    path.write_bytes(data)
    content = read(str(path), keep=size)
    assert content.digest == hashlib.sha256(data).hexdigest()
    assert content.data == data
    assert content.stamp == lstat(str(path)).stamp
    assert read(str(path), keep=size - 1).data == b""
    assert read(str(path), keep=size - 1).digest == content.digest


def test_a_fifo_a_socket_a_link_and_a_directory_are_refused_at_once(tmp_path: Path) -> None:
    """Opening a FIFO would wait for a writer for ever; a link would be read as what it points at."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "f").touch()
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "dir").mkdir()
    for name in ("fifo", "link", "dir", "gone"):
        with pytest.raises(OSError, match=name):
            read(str(tmp_path / name))


def test_reading_works_relative_to_a_directory(tmp_path: Path) -> None:
    """A descriptor stands for the directory, whatever its path is by now."""
    (tmp_path / "f").write_bytes(b"x")
    with directory(str(tmp_path)) as fd:
        (tmp_path / "f").rename(tmp_path / "g")
        assert read("g", dir_fd=fd, keep=1).data == b"x"


def test_a_file_that_changes_once_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newer content wins, and digest, bytes and stamp belong together."""
    path = tmp_path / "f"
    path.write_bytes(b"old")
    real, changes = scan._consume, [b"newer"]

    def consume(fd: int, size: int, keep: int) -> tuple[str, bytes]:
        answer = real(fd, size, keep)
        if changes:
            path.write_bytes(changes.pop())
        return answer

    monkeypatch.setattr(scan, "_consume", consume)
    content = read(str(path), keep=99)
    assert (content.data, content.digest) == (b"newer", hashlib.sha256(b"newer").hexdigest())
    assert content.stamp == lstat(str(path)).stamp


def test_a_file_that_keeps_changing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three attempts; also when only its times move."""
    path = tmp_path / "f"
    path.write_bytes(b"x")
    real, attempts = scan._consume, []

    def consume(fd: int, size: int, keep: int) -> tuple[str, bytes]:
        attempts.append(fd)
        os.utime(path, ns=(0, len(attempts)))
        return real(fd, size, keep)

    monkeypatch.setattr(scan, "_consume", consume)
    with pytest.raises(Changing, match="f"):
        read(str(path))
    assert len(attempts) == 3


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Neither after success nor after failure."""
    (tmp_path / "a/b").mkdir(parents=True)
    os.mkfifo(tmp_path / "fifo")
    before = open_descriptors()
    walk(str(tmp_path))
    with pytest.raises(OSError, match="fifo"):
        read(str(tmp_path / "fifo"))
    with pytest.raises(EnvironmentFailure):
        walk(str(tmp_path / "fifo"))
    assert open_descriptors() == before


# --------------------------------------------------------------------------- helpers


@pytest.mark.parametrize("count", [0, 1, 4, 5, 23])
def test_threads_change_the_speed_and_not_the_answer(count: int) -> None:
    """Order is kept, and a small input needs no thread."""
    seen = set()

    def work(number: int) -> int:
        seen.add(threading.current_thread())
        return number * number

    assert in_threads(work, range(count), chunk=4) == [number * number for number in range(count)]
    assert (seen <= {threading.main_thread()}) == (count <= 4)


def test_an_error_in_a_thread_is_raised() -> None:
    """It is not lost with the thread."""

    def work(number: int) -> float:
        return 1 / (number - 7)

    with pytest.raises(ZeroDivisionError):
        in_threads(work, range(20), chunk=4)


@given(st.lists(st.lists(st.sampled_from(["a", "a-b", "b", "c"]), min_size=1, max_size=4).map("/".join)))
def test_directories_come_before_what_lies_in_them(paths: list[str]) -> None:
    """Every parent of every path is there once, and the root is not."""
    directories = directories_of(paths)
    expected = {"/".join(p.split("/")[:n]) for p in paths for n in range(1, p.count("/") + 1)}
    assert sorted(directories) == sorted(expected)
    for position, path in enumerate(directories):
        assert os.path.dirname(path) in ["", *directories[:position]]
