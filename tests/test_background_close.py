"""Replaced files closed in the background: every descriptor is closed, whatever happens."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from contents import needs_proc

from venvflow.disk.background_close import BackgroundCloser


def opened(path: Path, count: int) -> list[int]:
    """Open a file that often."""
    path.write_bytes(b"x")
    return [os.open(path, os.O_RDONLY) for _ in range(count)]


def is_open(fd: int) -> bool:
    """Return whether a descriptor is open."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("count", [1, 31, 32, 33, 700])
def test_all_are_closed_at_the_end(tmp_path: Path, count: int) -> None:
    """Few at once, many in threads, more than may wait; no thread is left."""
    before = threading.active_count()
    fds = opened(tmp_path / "file", count)
    with BackgroundCloser() as closer:
        for fd in fds:
            closer.close(fd)
    assert not any(is_open(fd) for fd in fds)
    assert threading.active_count() == before


@pytest.mark.parametrize("count", [2, 40])
def test_others_between_them_stay_open(tmp_path: Path, count: int) -> None:
    """Descriptors in a row are closed together, and only they."""
    fds = opened(tmp_path / "file", 3 * count)
    mine = [fd for number, fd in enumerate(fds) if number % 3]
    with BackgroundCloser() as closer:
        for fd in mine:
            closer.close(fd)
    assert [fd for fd in fds if is_open(fd)] == sorted(set(fds) - set(mine))
    for fd in set(fds) - set(mine):
        os.close(fd)


@pytest.mark.parametrize("count", [3, 100])
def test_all_are_closed_after_an_error(tmp_path: Path, count: int) -> None:
    """The error goes on its way."""
    fds = opened(tmp_path / "file", count)

    def work() -> None:
        with BackgroundCloser() as closer:
            for fd in fds:
                closer.close(fd)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not any(is_open(fd) for fd in fds)


@needs_proc
def test_a_replaced_file_gives_its_blocks_back(tmp_path: Path) -> None:
    """Its last descriptor is what kept it: afterwards nothing does."""
    for number in range(100):
        (tmp_path / str(number)).write_bytes(b"old" * 5000)
    with BackgroundCloser() as closer:
        for number in range(100):
            closer.close(os.open(tmp_path / str(number), os.O_RDONLY))
            (tmp_path / "new").write_bytes(b"new")
            (tmp_path / "new").rename(tmp_path / str(number))
    links = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_link(name)]
    assert not [link for link in links if link.startswith(str(tmp_path))]


def _is_link(name: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{name}")
