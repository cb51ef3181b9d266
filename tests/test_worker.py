"""The process that talks to a remote: what ends one of its threads ends all, and it waits for nobody."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterator

import pytest

from venvflow.disk.remote import worker
from venvflow.disk.remote.client import RemoteFailure, Stored


class Broken:
    """A client that fails for one tree at once, and lets who fetches another wait for that."""

    def __init__(self) -> None:
        self._failed = threading.Event()

    def get(self, path: str, start: int, end: int) -> tuple[Stored, Iterator[memoryview]]:
        """Fail for the second tree, then answer for the others without end, and without a byte."""
        del start, end
        if path.endswith("b" * 64):
            self._failed.set()
            raise RemoteFailure("unreachable", "500 Internal Server Error")
        self._failed.wait(10)
        return Stored(path, 1 << 40, 0.0), iter(lambda: memoryview(b""), None)


def test_what_one_thread_fails_at_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is that failure which is told, whoever ends first."""
    monkeypatch.setattr(worker, "_CUTTERS", 2)
    trees = [(letter * 64, 1 << 40) for letter in "abcdefgh"]
    request = {"staging": "/nowhere", "prefix": "r", "store": "/nowhere"}
    answers = worker._Answers(io.StringIO())
    with pytest.raises(RemoteFailure, match="500"):
        worker._Pull(Broken(), answers, request).run(trees, 2)  # type: ignore[arg-type]


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
