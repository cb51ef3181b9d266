"""Parcels on their way in: all connections ask, memory is bounded, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from venvflow.disk.remote import incoming
from venvflow.disk.remote.client import BACKOFF, RemoteFailure, Stored
from venvflow.disk.remote.incoming import Incoming, IncomingParcel

_RANGE, _CHUNK, _ROOM = 1000, 100, 1500


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Let requests, chunks and room be of some hundred bytes, and nobody wait for long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incoming, "RANGE", _RANGE)
        patch.setattr(incoming, "CHUNK", _CHUNK)
        patch.setattr(incoming, "ROOM", _ROOM)
        patch.setattr(incoming, "BACKOFF", BACKOFF._replace(most=0.001))
        yield


class Remote:
    """Parcels of *sizes* bytes; counts what is asked, under way, and read and not taken, now and at most.

    *breaks* is told of each request, with how many were asked before, and may raise.
    """

    def __init__(self, sizes: dict[str, int], breaks: Callable[[int], object] = lambda _asked: None) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.held = self.most_held = self.open = self.most_open = 0
        self._sizes, self._breaks = sizes, breaks
        self._mutex = threading.Lock()

    def get(self, path: str, start: int, end: int) -> tuple[Stored, Iterator[memoryview]]:
        """Answer as a client does."""
        digest = path.rpartition("/")[2]
        with self._mutex:
            self.asked.append((digest, start, end))
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            number = len(self.asked)
        try:
            self._breaks(number - 1)
        except RemoteFailure:
            with self._mutex:
                self.open -= 1
            raise
        size = self._sizes[digest]
        return Stored(path, size, 0.0), self._chunks(digest, start, min(end, size))

    def _chunks(self, digest: str, start: int, end: int) -> Iterator[memoryview]:
        try:
            for at in range(start, end, _CHUNK):
                length = min(_CHUNK, end - at)
                with self._mutex:
                    self.held += length
                    self.most_held = max(self.most_held, self.held)
                yield memoryview(content(digest, at, length))
        finally:
            with self._mutex:
                self.open -= 1

    def let_go(self, length: int) -> None:
        """Note that bytes were taken."""
        with self._mutex:
            self.held -= length


def content(digest: str, at: int, length: int) -> bytes:
    """Return bytes of a parcel, from *at* on."""
    return bytes((int(digest) + place) % 251 for place in range(at, at + length))


def take_all(coming: Incoming, remote: Remote) -> dict[str, bytes]:
    """Take all that comes; return it, in the order in which it was begun."""
    came: dict[str, bytes] = {}

    def take() -> None:
        while (parcel := coming.take()) is not None:
            came[parcel.digest] = b""
            for chunk in coming.chunks(parcel):
                came[parcel.digest] += chunk
                remote.let_go(len(chunk))

    taking = threading.Thread(target=take, daemon=True)
    taking.start()
    taking.join(10)
    assert not taking.is_alive(), "somebody waits for ever"
    return came


def refuse(numbers: set[int]) -> Callable[[int], None]:
    """Return what refuses the requests of these numbers."""

    def breaks(number: int) -> None:
        if number in numbers:
            raise RemoteFailure("unreachable", "503 Slow Down")

    return breaks


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=25),
    st.integers(1, 8),
    st.sets(st.integers(0, 20)),
)
def test_all_parcels_come_in_order_and_in_bounded_memory(
    sizes: list[int], connections: int, refused: set[int]
) -> None:
    """However large they are, and whoever is refused; and no byte comes twice."""
    trees = {f"{number:04}": size for number, size in enumerate(sizes)}
    remote = Remote(trees, refuse(refused))
    with closing(Incoming(remote.get, list(trees.items()), connections)) as coming:
        came = take_all(coming, remote)
    assert came == {digest: content(digest, 0, size) for digest, size in trees.items()}
    assert remote.held == remote.open == 0
    # Who takes may have a chunk more than there is room for, so that he waits for nobody.
    assert remote.most_held <= _ROOM + _CHUNK
    assert remote.most_open <= connections
    expected = sum((size + _RANGE - 1) // _RANGE for size in sizes)
    assert len(remote.asked) == expected + len([number for number in refused if number < len(remote.asked)])


def test_all_connections_ask_at_once_although_there_is_room_for_few() -> None:
    """What was not read yet takes no room: latency is paid once, not once for each that there is room for."""
    trees = {f"{number:04}": 5 * _ROOM for number in range(8)}
    remote = Remote(trees)
    with closing(Incoming(remote.get, list(trees.items()), 8)):
        wait_until(lambda: remote.open == 8 and remote.held == _ROOM)
        time.sleep(0.05)
        assert (remote.open, remote.held) == (8, _ROOM), "who has no room goes on reading"


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for what other threads do; fails after ten seconds."""
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_what_follows_of_a_parcel_is_asked_for_before_later_ones() -> None:
    """As soon as its size is known."""
    remote = Remote({"0000": 2500, "0001": 10, "0002": 10})
    trees = [("0000", 1), ("0001", 1), ("0002", 1)]
    with closing(Incoming(remote.get, trees, 1)) as coming:
        take_all(coming, remote)
    wanted = [("0000", 0), ("0000", 1000), ("0000", 2000), ("0001", 0), ("0002", 0)]
    assert [(digest, start) for digest, start, _ in remote.asked] == wanted


class Dropping:
    """A client whose server drops, once it is told to, all connections that are open, as idle ones.

    So it does with one on which nothing is left to come but the word that this was all.
    """

    def __init__(self, size: int = 3000) -> None:
        self.asked: list[int] = []
        self.dropped = 0
        self._size = size

    def get(self, path: str, start: int, end: int) -> tuple[Stored, Iterator[memoryview]]:
        """Answer as a client does."""
        if start == end:
            raise RemoteFailure("unusable", "the range is empty")
        self.asked.append(start)
        return Stored(path, self._size, 0.0), self._chunks(start, min(end, self._size), len(self.asked))

    def _chunks(self, start: int, end: int, number: int) -> Iterator[memoryview]:
        for at in range(start, end, _CHUNK):
            self._refuse(number)
            yield memoryview(content("0000", at, min(_CHUNK, end - at)))
        self._refuse(number)

    def _refuse(self, number: int) -> None:
        if number <= self.dropped:
            raise RemoteFailure("unreachable", "connection closed before message completed")


def test_who_had_to_wait_for_room_asks_again_for_what_the_server_has_dropped() -> None:
    """From where he was: that he read nothing for long was not the server's fault."""
    client = Dropping()
    with closing(Incoming(client.get, [("0000", 1)], 3)) as coming:
        wait_until(lambda: len(client.asked) == 3 and all(part.is_paused for part in coming._reading))
        client.dropped = 3
        assert all_of(coming) == [content("0000", 0, 3000)]
    assert len(client.asked) > 3


def test_who_has_all_bytes_waits_for_nothing_more() -> None:
    """Neither for room, nor for a server that may be gone when there is some."""
    client = Dropping(_ROOM)
    with closing(Incoming(client.get, [("0000", 1)], 2)) as coming:
        parcel = coming.take()
        assert parcel is not None
        wait_until(lambda: sum(len(chunk) for part in [*parcel.parts] for chunk in part.chunks) == _ROOM)
        client.dropped = 2
        assert b"".join(coming.chunks(parcel)) == content("0000", 0, _ROOM)
    assert sorted(client.asked) == [0, _RANGE]


def test_a_connection_that_was_dropped_while_it_was_read_is_a_failure() -> None:
    """And is asked for once."""
    client = Dropping()
    client.dropped = 1
    with (
        closing(Incoming(client.get, [("0000", 1)], 1)) as coming,
        pytest.raises(RemoteFailure, match="closed before"),
    ):
        all_of(coming)
    assert client.asked.count(0) == 1


class Busy:
    """A client that answers so many requests with *text* first."""

    def __init__(self, refusals: int, text: str = "503 Slow Down") -> None:
        self.left, self._text = refusals, text
        self._mutex = threading.Lock()

    def get(self, path: str, start: int, end: int) -> tuple[Stored, Iterator[memoryview]]:
        """Answer, or refuse to."""
        with self._mutex:
            self.left -= 1
            if self.left >= 0:
                raise RemoteFailure("unreachable", self._text)
        return Stored(path, 10, 0.0), iter([memoryview(b"0123456789"[start:end])])


def all_of(coming: Incoming) -> list[bytes]:
    """Take all parcels, one after the other."""
    found = []
    while (parcel := coming.take()) is not None:
        found.append(b"".join(coming.chunks(parcel)))
    return found


def test_who_is_refused_asks_again_and_less_at_a_time() -> None:
    """All come in the end; eight refusals of one moment halve what is asked at once by one half only."""
    told: list[int] = []
    trees = [(f"{number:04}", 1) for number in range(10)]
    with closing(Incoming(Busy(8).get, trees, 8, told.append)) as coming:
        part = IncomingParcel(99, "0099", 1).parts[0]
        for refused_of in (8, 8, 4):
            coming._reading.append(part)
            coming._end_turn(part, refused_of)
        assert coming._most in (1, 2)
        assert all_of(coming) == [b"0123456789"] * 10
    assert told.count(0) == 8, "nobody is told that a server is not silent, only busy"


@pytest.mark.parametrize(("text", "patience"), [("500 Internal Server Error", 30.0), ("503 Slow Down", -1.0)])
def test_what_is_no_refusal_or_lasts_too_long_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, text: str, patience: float
) -> None:
    """Asked once, and told as it is."""
    monkeypatch.setattr(incoming, "_PATIENCE", patience)
    client = Busy(3, text)
    with closing(Incoming(client.get, [("0000", 1)], 1)) as coming, pytest.raises(RemoteFailure, match=text):
        all_of(coming)
    assert client.left == 2


def test_who_was_refused_ends_with_the_pull() -> None:
    """He asks for nothing more."""
    client = Busy(1 << 30)
    with closing(Incoming(client.get, [("0000", 1)], 1)):
        wait_until(lambda: client.left < 1 << 30)
    left = client.left
    time.sleep(0.05)
    assert client.left == left


def test_what_nobody_foresaw_reaches_who_takes() -> None:
    """An error in a thread that reads is not an answer that never comes."""

    def get(path: str, start: int, end: int) -> tuple[Stored, Iterator[memoryview]]:
        raise ZeroDivisionError(path, start, end)

    with closing(Incoming(get, [("0000", 1)], 1)) as coming, pytest.raises(ZeroDivisionError):
        all_of(coming)


def test_a_parcel_that_is_given_up_leaves_its_room_to_others() -> None:
    """Nothing of it is asked for any more."""
    trees = {f"{number:04}": 3 * _ROOM for number in range(3)}
    remote = Remote(trees)
    with closing(Incoming(remote.get, list(trees.items()), 2)) as coming:
        first = coming.take()
        assert first is not None
        with closing(coming.chunks(first)) as chunks:
            next(chunks)
            wait_until(lambda: coming._held == _ROOM)
        for _ in range(2):
            parcel = coming.take()
            assert parcel is not None
            assert sum(map(len, coming.chunks(parcel))) == 3 * _ROOM
        wait_until(lambda: coming._held == 0)
    assert len([each for each in remote.asked if each[0] == "0000"]) <= 3
