"""Frames on their way into an archive: order, failures, and what is left of frames that are not finished."""

from __future__ import annotations

import io
import threading
from typing import IO

import pytest

from venvflow.disk.archive import frames
from venvflow.disk.archive.frames import NewFrame, joining


class _Archive:
    """What frames are joined to; *error* is raised by the write that has the bytes *bad*."""

    def __init__(self, error: Exception | None = None, bad: bytes = b"") -> None:
        self.data = b""
        self._error = error
        self._bad = bad

    def write(self, data: bytes) -> None:
        """Write, or fail."""
        if self._error is not None and data == self._bad:
            raise self._error
        self.data += data

    def copy(self, file: IO[bytes]) -> None:
        """Copy."""
        self.write(file.read())


class _Frame(NewFrame):
    """A frame and what became of it."""

    def __init__(self) -> None:
        self.data = b""
        self.became = ""

    def write(self, data: bytes) -> None:
        """Write."""
        self.data += data

    def finish(self) -> None:
        """Take note."""
        assert not self.became
        self.became = "finished"

    def discard(self) -> None:
        """Take note."""
        assert not self.became
        self.became = "discarded"


class _Compressor:
    """One that has *rest* left, and gives it when it is let *go*."""

    def __init__(self, rest: bytes = b"", go: threading.Event | None = None) -> None:
        self._rest = rest
        self.asked = threading.Event()
        self.go = go or threading.Event()
        if go is None:
            self.go.set()

    def flush(self) -> bytes:
        """Return the rest."""
        self.asked.set()
        assert self.go.wait(10)
        return self._rest


def test_everything_comes_in_the_order_in_which_it_was_asked_for() -> None:
    """Also while the compressor of the frame before still works."""
    archive, go = _Archive(), threading.Event()
    one, two = _Frame(), _Frame()
    kept = io.BytesIO(b"kept ")
    with joining(archive) as joiner:
        joiner.begin(one)
        joiner.add(one, b"one ")
        joiner.end(one, _Compressor(b"end ", go))
        joiner.copy(kept)
        joiner.begin(two)
        joiner.add(two, b"two ")
        assert archive.data in (b"", b"one ")
        go.set()
        joiner.end(two, _Compressor())
    assert archive.data == b"one end kept two "
    assert (one.data, one.became) == (b"one end ", "finished")
    assert (two.data, two.became) == (b"two ", "finished")
    assert kept.closed


def test_what_goes_wrong_in_the_thread_is_raised_and_nothing_is_finished_after_it() -> None:
    """A frame that lacks some bytes must not get a name."""
    archive = _Archive(OSError("disk"), b"bad")
    frames = {b"good": _Frame(), b"bad": _Frame(), b"more": _Frame()}
    kept = io.BytesIO(b"kept")
    with pytest.raises(OSError, match="disk"):
        _join_all(archive, frames, kept)
    assert frames[b"good"].became == "finished"
    assert frames[b"bad"].became == "discarded"
    assert frames[b"more"].became in ("", "discarded")  # it was not begun if the error was noticed before
    assert archive.data == b"good"


def _join_all(archive: _Archive, made: dict[bytes, _Frame], kept: IO[bytes]) -> None:
    with joining(archive) as joiner:
        for data, frame in made.items():
            joiner.begin(frame)
            joiner.add(frame, data)
            joiner.end(frame, _Compressor())
        joiner.copy(kept)


def test_a_reader_that_fails_leaves_no_frame_behind() -> None:
    """Neither the one that it was reading, nor those that wait, nor files that were to be copied."""
    compressor = _Compressor(b"end", threading.Event())
    ending, unread, kept = _Frame(), _Frame(), io.BytesIO(b"kept")
    with pytest.raises(ZeroDivisionError):
        _join_and_fail(ending, compressor, kept, unread)
    assert (ending.became, unread.became) == ("finished", "discarded")
    assert kept.closed


def _join_and_fail(ending: _Frame, compressor: _Compressor, kept: IO[bytes], unread: _Frame) -> None:
    with joining(_Archive()) as joiner:
        joiner.begin(ending)
        joiner.end(ending, compressor)
        joiner.copy(kept)
        joiner.begin(unread)
        assert compressor.asked.wait(10)
        threading.Timer(0.05, compressor.go.set).start()
        raise ZeroDivisionError


def test_bytes_do_not_pile_up_before_a_slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who adds more than may wait is made to wait."""
    monkeypatch.setattr(frames, "_WAITING", 10)
    archive, go = _Archive(), threading.Event()
    frame = _Frame()
    added = []

    def add() -> None:
        with joining(archive) as joiner:
            joiner.begin(frame)
            joiner.end(frame, _Compressor(b"", go))
            for number in range(5):
                joiner.add(frame, b"12345")
                added.append(number)

    thread = threading.Thread(target=add)
    thread.start()
    thread.join(0.1)
    assert len(added) == 2
    go.set()
    thread.join(10)
    assert len(added) == 5
    assert archive.data == b"12345" * 5
