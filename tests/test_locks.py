"""Locks: between processes, threads and the children that inherit them."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from contents import fork, open_descriptors

from venvflow.disk import locks
from venvflow.errors import EnvironmentFailure, LockTimeout, Refused, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
from typing import Any

needs_proc_locks = pytest.mark.skipif(
    not os.path.exists("/proc/locks"), reason="needs /proc/locks to name the holder"
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return where a lock file will be, two directories that do not exist deeper."""
    return str(tmp_path / "a" / "b" / "venv.lock")


@contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python *code* in a real process that says "ready" when it may be used."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys, os, time\nfrom venvflow.disk import locks\n" + code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "ready"
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def holder(path: str, mode: str = "exclusive") -> AbstractContextManager[subprocess.Popen[str]]:
    """Return a process that holds a lock on *path* until it is told or killed."""
    return process(
        f"lock = locks.{mode}(sys.argv[1], timeout=5, what='it')\nprint('ready', flush=True)\ninput()", path
    )


def test_a_lock_file_and_its_parents_are_made_and_stay(path: str) -> None:
    """The file is made with its directories, names its holder, and is there afterwards, empty."""
    with locks.exclusive(path, timeout=0, what="it") as lock:
        with open(path) as file:
            assert file.read().split()[0] == str(os.getpid())
        assert os.get_inheritable(lock.fd) is False
    assert os.path.getsize(path) == 0
    assert os.stat(path).st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


def test_an_exclusive_lock_keeps_other_processes_out_and_names_the_holder(path: str) -> None:
    """Waiting ends in LockTimeout, which names lock, holder's pid, what to do, and has exit code 5."""
    with holder(path) as child:
        with pytest.raises(LockTimeout) as failure:
            locks.exclusive(path, timeout=0.05, what="the venv api")
        text = str(failure.value)
        assert f"pid {child.pid} (" in text
        assert "the venv api" in text
        assert "VENVFLOW_LOCK_TIMEOUT" in text
        assert path in text
        assert failure.value.exit_code == 5


@needs_proc_locks
def test_all_shared_holders_are_named(path: str) -> None:
    """Shared holders leave no note in the file; the kernel's list names each of them."""
    with holder(path, "shared") as one, holder(path, "shared") as two:
        with pytest.raises(LockTimeout) as failure:
            locks.exclusive(path, timeout=0, what="the store")
        assert f"pid {one.pid} (" in str(failure.value)
        assert f"pid {two.pid} (" in str(failure.value)


def test_without_the_list_of_the_kernel_shared_holders_are_unknown(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel names nobody, an earlier exclusive holder is not blamed."""
    monkeypatch.setattr(locks, "_holding_pids", lambda _path: [])
    with holder(path) as killed:
        killed.kill()
        killed.wait()
    assert os.path.getsize(path) > 0
    with (
        locks.shared(path, timeout=5, what="it"),
        pytest.raises(LockTimeout, match="locked by an unknown process"),
    ):
        locks.exclusive(path, timeout=0, what="it")


def test_a_killed_holder_frees_its_lock_at_once(path: str) -> None:
    """Nothing is left behind by kill -9 that anybody would have to remove."""
    with holder(path) as child:
        assert locks.try_exclusive(path, what="it") is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        lock = locks.try_exclusive(path, what="it")
        assert lock is not None
        lock.release()


@needs_proc_locks
def test_a_child_that_inherited_the_lock_keeps_it_and_is_named(path: str) -> None:
    """An orphaned builder keeps others away until it ends too."""
    code = (
        "import subprocess\n"
        "lock = locks.exclusive(sys.argv[1], timeout=5, what='it')\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], pass_fds=[lock.fd], stdout=2)\n"
        "print('ready', flush=True)\n"
        "print(child.pid, flush=True)\n"
        "input()"
    )
    with process(code, path) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        with pytest.raises(LockTimeout) as failure:
            locks.shared(path, timeout=0, what="it")
        assert f"started by pid {parent.pid}, which has ended" in str(failure.value)
        assert f"pid {orphan} (" in str(failure.value)
        assert f'end it if it hangs ("kill {orphan}"' in str(failure.value)
        os.kill(orphan, signal.SIGKILL)
        locks.exclusive(path, timeout=5, what="it").release()


@needs_proc_locks
def test_a_number_that_was_given_out_again_is_not_blamed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel goes on naming who took the lock; by then the number may be a stranger's."""
    with process("print('ready', flush=True); input()") as stranger, holder(path) as child:
        monkeypatch.setattr(locks, "_holding_pids", lambda _: [stranger.pid])
        found = locks.holder(path)
        assert found.pids == (child.pid,)
        assert found.words.startswith(f"pid {child.pid} (")
        assert found.words.endswith(f"started by pid {stranger.pid}, which has ended")


@needs_proc_locks
def test_who_writes_to_a_database_is_named(tmp_path: Path) -> None:
    """In a log or without one; who only reads it keeps nobody waiting."""
    for number, mode in enumerate(("WAL", "DELETE")):
        path = str(tmp_path / f"{number}.db")
        code = (
            "import sqlite3; run = sqlite3.connect(sys.argv[1], isolation_level=None).execute\n"
            "run('PRAGMA journal_mode = ' + sys.argv[3]); run('CREATE TABLE IF NOT EXISTS t (a)')\n"
            "run(sys.argv[2]); run('SELECT * FROM t').fetchall(); print('ready', flush=True); input()"
        )
        with process(code, path, "BEGIN IMMEDIATE", mode) as child:
            found = locks.writer(path)
            assert found.pids == (child.pid,)
            assert found.words.startswith(f"pid {child.pid} (")
        with process(code, path, "BEGIN", mode):
            assert locks.writer(path) == locks.Holder("another program")


@pytest.mark.slow
def test_an_open_directory_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    """Waited for as long as one likes, and told apart from one that was removed meanwhile."""
    one, other = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    assert locks.hold(one, 0)
    assert not locks.hold(other, 0.01)
    threading.Timer(0.1, os.close, [one]).start()
    assert locks.hold(other, 30)
    assert locks.is_at(other, str(tmp_path))
    tmp_path.rmdir()
    assert not locks.is_at(other, str(tmp_path))
    os.close(other)


def test_releasing_frees_the_lock_although_a_child_still_has_the_descriptor(path: str) -> None:
    """A daemon that a build leaves behind does not lock the venv for good."""
    lock = locks.exclusive(path, timeout=0, what="it")
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock.fd]
    ) as child:
        lock.release()
        again = locks.try_exclusive(path, what="it")
        child.communicate(b"\n")
    assert again is not None
    again.release()


def test_a_forked_copy_cannot_release_its_parents_lock(path: str) -> None:
    """Leaving the context in a forked worker does not give away what the parent holds."""
    with locks.exclusive(path, timeout=0, what="it") as lock:
        pid = fork(os.fork)
        if pid == 0:  # pragma: no cover
            lock.release()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert locks.try_exclusive(path, what="it") is None
        assert os.path.getsize(path) > 0


def test_threads_of_one_process_exclude_each_other(path: str) -> None:
    """Of many threads only one is inside at any time."""
    inside, most, total = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, total
        for _ in range(20):
            with locks.exclusive(path, timeout=30, what="it"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0001)
                inside -= 1
                total += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, total) == (1, 80)


def test_taking_a_lock_twice_ends_and_says_who_is_to_blame(path: str) -> None:
    """A lock held by ourselves is not waited for silently."""
    with (
        locks.exclusive(path, timeout=0, what="it"),
        pytest.raises(LockTimeout, match="another task of this run"),
    ):
        locks.shared(path, timeout=0, what="it")


def test_shared_locks_do_not_exclude_each_other(path: str) -> None:
    """Two may share, but then nobody may have it alone."""
    with locks.shared(path, timeout=0, what="it"), locks.shared(path, timeout=0, what="it"):
        assert locks.try_exclusive(path, what="it") is None


def test_waiting_is_announced_once_and_ends_when_the_holder_does(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the notice, the waiter gets the lock as soon as the holder is gone."""
    monkeypatch.setattr(locks, "NOTICE_AFTER", 0.01)
    said: list[str] = []
    with holder(path) as child:

        def on_wait(sentence: str) -> None:
            said.append(sentence)
            threading.Timer(0.05, child.kill).start()

        locks.exclusive(path, timeout=30, what="the venv api", on_wait=on_wait).release()
    assert len(said) == 1
    assert f"waiting for the venv api, which is locked by pid {child.pid} (" in said[0]


def test_threads_that_wait_for_one_holder_say_so_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again when there is somebody else to wait for later."""
    monkeypatch.setattr(locks, "NOTICE_AFTER", 0.01)
    said: list[str] = []

    def wait() -> None:
        locks.shared(path, timeout=30, what="the store", on_wait=said.append).release()

    for count in (1, 2):
        with holder(path):
            threads = [threading.Thread(target=wait) for _ in range(3)]
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + 10
            while len(said) < count and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)
        for thread in threads:
            thread.join(30)
        assert len(said) == count


def test_a_wait_for_another_thread_of_this_process_is_not_announced(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What that thread is at is shown anyway; the error in the end names it."""
    monkeypatch.setattr(locks, "NOTICE_AFTER", 0.01)
    with (
        locks.exclusive(path, timeout=0, what="it"),
        pytest.raises(LockTimeout, match="another task of this run"),
    ):
        locks.exclusive(path, timeout=0.2, what="it", on_wait=pytest.fail)


def test_nobody_is_told_of_a_wait_that_was_short(path: str) -> None:
    """A free lock is taken without a word."""
    locks.exclusive(path, timeout=5, what="it", on_wait=pytest.fail).release()


def test_release_is_idempotent_and_does_not_close_a_stranger(path: str) -> None:
    """A second release does not touch a descriptor that has the same number by now."""
    lock = locks.exclusive(path, timeout=0, what="it")
    number = lock.fd
    lock.release()
    others = [os.open(path, os.O_RDONLY) for _ in range(2)]
    (other,) = (fd for fd in others if fd == number)
    lock.release()
    os.fstat(other)
    for fd in others:
        os.close(fd)
    with pytest.raises(ValueError, match="released"):
        _ = lock.fd


def test_a_failing_block_releases_and_no_descriptor_leaks(path: str) -> None:
    """Errors inside, timeouts and failed tries leave no descriptor open."""
    before = open_descriptors()

    def fail_inside() -> None:
        with locks.exclusive(path, timeout=0, what="it"):
            assert locks.try_exclusive(path, what="it") is None
            with pytest.raises(LockTimeout):
                locks.shared(path, timeout=0.02, what="it")
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert open_descriptors() == before
    locks.exclusive(path, timeout=0, what="it").release()


def test_a_lock_file_deleted_while_held_is_made_again(path: str) -> None:
    """Deleting the state directory by hand does not break locking for those who come later."""
    with locks.exclusive(path, timeout=0, what="it"):
        os.unlink(path)
        with locks.exclusive(path, timeout=0, what="it"):
            assert locks.try_exclusive(path, what="it") is None


def test_a_file_deleted_between_opening_and_locking_is_not_the_lock(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on a file that nobody else can find any more would protect nothing."""
    real = fcntl.flock
    deleted: list[str] = []

    def flock(fd: int, mode: int) -> None:
        real(fd, mode)
        if not deleted:
            deleted.append(path)
            os.unlink(path)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locks.exclusive(path, timeout=0, what="it") as lock:
        assert os.path.samestat(os.stat(path), os.fstat(lock.fd))


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(
    path: str, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Going on without a lock would risk what others need."""

    def flock(_fd: int, _mode: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(EnvironmentFailure, match="this file system has no locks"):
        locks.shared(path, timeout=0, what="the store")


def test_a_link_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """Nothing is written through a symbolic link."""
    (tmp_path / "target").write_text("precious")
    (tmp_path / "lock").symlink_to("target")
    with pytest.raises(Refused, match="symbolic link"):
        locks.exclusive(str(tmp_path / "lock"), timeout=0, what="it")
    assert (tmp_path / "target").read_text() == "precious"


def test_other_things_in_the_place_of_the_file_are_errors(tmp_path: Path) -> None:
    """A FIFO does not hang, a directory is named."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dir").mkdir()
    for name in ("fifo", "dir"):
        with pytest.raises(EnvironmentFailure, match=name):
            locks.exclusive(str(tmp_path / name), timeout=0, what="it")


@pytest.mark.timeout(10)
def test_a_fifo_that_may_only_be_read_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening one for reading would wait for a writer."""
    real = os.open

    def opened(name: str, flags: int, mode: int = 0o777, **where: Any) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return real(name, flags, mode, **where)

    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(EnvironmentFailure, match="not a regular file"):
        locks.shared(str(tmp_path / "fifo"), timeout=0, what="it")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_shared_lock_needs_no_permission_to_write(
    path: str, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A read-only store can be used, but not changed, and not locked where there is no file."""
    locks.exclusive(path, timeout=0, what="it").release()
    real = os.open

    def opened(name: str, flags: int, mode: int = 0o777, **where: Any) -> int:
        if flags & (os.O_RDWR | os.O_CREAT):
            raise OSError(code, os.strerror(code))
        return real(name, flags, mode, **where)

    monkeypatch.setattr(os, "open", opened)
    with locks.shared(path, timeout=0, what="it") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert lock.fd >= 0
    with pytest.raises(EnvironmentFailure, match="cannot be locked"):
        locks.exclusive(path, timeout=0, what="it")
    os.unlink(path)
    with pytest.raises(EnvironmentFailure, match="cannot be locked"):
        locks.shared(path, timeout=0, what="it")


def test_a_full_disk_does_not_cost_the_lock(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trimming has to work when there is no room left to write the holder's name."""

    def full(_fd: int, _data: bytes, _offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with locks.exclusive(path, timeout=0, what="it"):
        assert locks.try_exclusive(path, what="it") is None


def test_credentials_on_the_command_line_are_not_written_down(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock file can be read by others, so it names the command without secrets, on one line."""
    monkeypatch.setattr(sys, "argv", ["/bin/doit", "https://me:canary@index/simple", "x\ny"])
    with locks.exclusive(path, timeout=0, what="it"), open(path) as file:
        assert file.read() == f"{os.getpid()} doit https://***@index/simple x\\ny\n"


def test_the_timeout_comes_from_the_environment() -> None:
    """Seconds, five minutes if nothing is said."""
    assert locks.lock_timeout({}) == 300
    assert locks.lock_timeout({"VENVFLOW_LOCK_TIMEOUT": ""}) == 300
    assert locks.lock_timeout({"VENVFLOW_LOCK_TIMEOUT": "0"}) == 0
    assert locks.lock_timeout({"VENVFLOW_LOCK_TIMEOUT": "2.5"}) == 2.5


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "5m"])
def test_a_timeout_that_is_no_number_of_seconds_is_a_usage_error(text: str) -> None:
    """Nonsense is named instead of being replaced silently."""
    with pytest.raises(UsageError, match="VENVFLOW_LOCK_TIMEOUT"):
        locks.lock_timeout({"VENVFLOW_LOCK_TIMEOUT": text})


def test_a_lock_file_is_not_made_behind_a_link(tmp_path: Path) -> None:
    """Neither the lock file nor the directory that it is in may be a symlink."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "locks").symlink_to("elsewhere")
    with pytest.raises(Refused, match="directory is a symbolic link"):
        locks.exclusive(str(tmp_path / "locks/store"), timeout=0, what="it")
    assert not os.listdir(tmp_path / "elsewhere")
