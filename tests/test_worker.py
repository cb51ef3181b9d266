"""The process that talks to a remote: it asks ahead, in order, and holds no more than it has room for."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from venvflow.disk.remote import worker
from venvflow.disk.remote.client import BACKOFF, RemoteFailure, Stored
from venvflow.disk.remote.worker import _Incoming, _Slice

_FIRST, _ROOM = 1000, 4000


class Remote:
    """Parcels of *sizes* bytes, and how many of these are on their way or in memory, and were at most."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.held = self.most = 0
        self._sizes = sizes
        self._mutex = threading.Lock()

    def fetch(self, path: str, start: int, end: int) -> _Slice:
        """Answer as a client does."""
        size = self._sizes[path.rpartition("/")[2]]
        length = min(end, size) - start
        with self._mutex:
            self.held += length
            self.most = max(self.most, self.held)
        return _Slice(size, [memoryview(bytes(length))], length)

    def let_go(self, length: int) -> None:
        """Note that bytes were cut."""
        with self._mutex:
            self.held -= length


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Let beginnings and room be of a few kilobytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "FIRST", _FIRST)
        patch.setattr(worker, "_ROOM", _ROOM)
        yield


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 9000), min_size=1, max_size=30),
    st.integers(1, 8),
    st.integers(1, 3),
)
def test_all_parcels_come_in_order_and_in_bounded_memory(
    sizes: list[int], connections: int, cutters: int
) -> None:
    """However large they are and however many cut them: nobody waits for ever, and nothing comes twice."""
    trees = {f"{number:04}": size for number, size in enumerate(sizes)}
    remote, came, order = Remote(trees), dict.fromkeys(trees, 0), []

    def cut(incoming: _Incoming) -> None:
        while (asked := incoming.take()) is not None:
            order.append(asked.number)
            part = asked.beginning.result(10)
            came[asked.digest] += part.length
            remote.let_go(part.length)
            incoming.release(asked)
            ends = [*range(part.length, part.size, 1000), part.size]
            for chunks in incoming.following(asked.digest, pairwise(ends)):
                length = sum(map(len, chunks))
                came[asked.digest] += length
                remote.let_go(length)

    with closing(_Incoming(remote.fetch, list(trees.items()), connections)) as incoming:
        threads = [threading.Thread(target=cut, args=(incoming,)) for _ in range(cutters)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)
    assert came == trees
    assert sorted(order) == [*range(len(sizes))]
    assert remote.held == 0
    # Each cutter may have one part more than there is room for, so that none waits for another. Nothing of
    # these parcels is compressed: their beginnings may be twice as large as was reckoned.
    assert remote.most <= 3 * _ROOM + 2 * cutters * _FIRST


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


def pull(client: object, connections: int = 8) -> worker._Pull:
    """Return what fetches from such a client."""
    request = {"staging": "/nowhere", "prefix": "r", "store": "/nowhere", "connections": connections}
    return worker._Pull(client, worker._Answers(io.StringIO()), request)  # type: ignore[arg-type]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for long."""
    monkeypatch.setattr(worker, "BACKOFF", BACKOFF._replace(most=0.001))


@pytest.mark.usefixtures("hasty")
def test_who_is_refused_asks_again_and_less_at_a_time() -> None:
    """All come in the end; eight refusals of one moment halve what is asked at once by one half only."""
    pulling = pull(Busy(8))
    turns = [pulling._turns.take() for _ in range(8)]
    for turn in turns:
        pulling._turns.give_back(turn)
    assert pulling._turns.take() == 4
    pulling._turns.give_back()
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: pulling._fetch("tree", start, start + 1), range(10)))
    assert b"".join(bytes(part.chunks[0]) for part in parts) == b"0123456789"
    assert pulling._turns.take() in (1, 2)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("text", "patience"), [("500 Internal Server Error", 30.0), ("503 Slow Down", -1.0)])
def test_what_is_no_refusal_or_lasts_too_long_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, text: str, patience: float
) -> None:
    """Asked once, and told as it is."""
    monkeypatch.setattr(worker, "_PATIENCE", patience)
    client = Busy(3, text)
    with pytest.raises(RemoteFailure, match=text):
        pull(client)._fetch("tree", 0, 10)
    assert client.left == 2


@pytest.mark.usefixtures("hasty")
def test_who_waits_ends_with_the_pull() -> None:
    """A pull that is in vain asks for nothing more."""
    client = Busy(3)
    pulling = pull(client)
    pulling._stop()
    with pytest.raises(worker._Stopped):
        pulling._fetch("tree", 0, 10)
    assert client.left == 2


class Broken:
    """A client that fails for one tree at once, and lets who fetches another wait for that."""

    def __init__(self) -> None:
        self._failed = threading.Event()

    def get(self, path: str, start: int, end: int) -> tuple[Stored, Iterator[memoryview]]:
        """Fail for the second tree, then give bytes of the others, for as long as anybody takes them."""
        del start, end
        if path.endswith("b" * 64):
            self._failed.set()
            raise RemoteFailure("unreachable", "500 Internal Server Error")
        self._failed.wait(10)
        return Stored(path, 1 << 40, 0.0), iter(lambda: memoryview(bytes(10)), None)


def test_what_one_thread_fails_at_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is that failure which is told, whoever ends first."""
    monkeypatch.setattr(worker, "_CUTTERS", 2)
    client = Broken()
    trees = [(letter * 64, 1 << 40) for letter in "abcdefgh"]
    with pytest.raises(RemoteFailure, match="500"):
        pull(client, 2).run(trees, 2)


def test_nobody_waits_until_the_parent_reads() -> None:
    """What is said is more than a pipe takes; all of it comes, in order."""
    reading, writing = os.pipe()
    answers = worker._Answers(os.fdopen(writing, "w", encoding="ascii"))
    texts = [letter * 200_000 for letter in "abc"]

    def say() -> None:
        for text in texts:
            answers.say(text=text)

    saying = threading.Thread(target=say, daemon=True)
    saying.start()
    saying.join(20)
    assert not saying.is_alive()
    with open(reading, encoding="ascii") as file:
        assert [json.loads(file.readline())["text"] for _ in texts] == texts
