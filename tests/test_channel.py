"""The parent's side of the processes that talk to a remote: several do something at once, or end together."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from venvflow.disk.remote.channel import Channel, ChannelFailure, ask_each

_CHILD = """
import json, os, sys, time
say = lambda **answer: os.write(1, json.dumps(answer).encode() + b"\\n")
for line in sys.stdin:
    request = json.loads(line)
    for word in request.get("words", ()):
        say(word=word)
        time.sleep(request.get("pause", 0))
    if request["do"] == "end":
        os._exit(3)
    if request["do"] == "fail":
        say(failed=request["kind"], text="it failed")
    elif request["do"] == "halves":
        os.write(1, b'{"done": {"text": "')
        time.sleep(0.1)
        os.write(1, b"x" * 100_000 + b'"}}\\n')
    elif request["do"] == "answer":
        say(done={"answer": request["number"]})
"""


class Scripted(Channel):
    """A way to a child that does what the test asks."""

    @property
    def child(self) -> subprocess.Popen[bytes]:
        """The process."""
        assert self._child is not None
        return self._child

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._child is not None

    def _start(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-S", "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )


@pytest.fixture
def two() -> Iterator[list[Scripted]]:
    """Give two ways to a remote, each with a process of its own as soon as it is asked."""
    channels = [Scripted("file:///nowhere", {}, {}, silence=20, limit=20) for _ in range(2)]
    yield channels
    for channel in channels:
        channel.close()


def test_each_answers_and_what_both_say_on_the_way_is_heard(two: list[Scripted]) -> None:
    """Answers come in the order of the requests, whoever is first."""
    heard: list[str] = []
    requests: list[tuple[Channel, dict[str, Any]]] = [
        (two[0], {"do": "answer", "number": 0, "words": ["a", "b"], "pause": 0.2}),
        (two[1], {"do": "answer", "number": 1, "words": ["c"]}),
    ]
    answers = ask_each(requests, heard=lambda answer: heard.append(answer["word"]))
    assert answers == [{"answer": 0}, {"answer": 1}]
    assert sorted(heard) == ["a", "b", "c"]
    assert two[0].ask("answer", number=2) == {"answer": 2}, "who has answered can be asked again"


@pytest.mark.parametrize("kind", ["unreachable", "absent"])
def test_what_one_fails_with_ends_the_other(two: list[Scripted], kind: str) -> None:
    """What it would still bring is in vain."""
    two[1].ask("answer", number=0)
    other = two[1].child
    fails = {"do": "fail", "kind": kind}
    goes_on = {"do": "answer", "words": ["a"], "pause": 60}
    with pytest.raises(ChannelFailure, match="it failed") as caught:
        ask_each([(two[0], fails), (two[1], goes_on)])
    assert caught.value.kind == kind
    assert other.poll() is not None
    assert not any(each.is_running for each in two)


def test_who_only_found_nothing_can_be_asked_again(two: list[Scripted]) -> None:
    """That an object is not there is an answer, too."""
    with pytest.raises(ChannelFailure):
        two[0].ask("fail", kind="absent")
    child = two[0].child
    assert two[0].ask("answer", number=1) == {"answer": 1}
    assert two[0].child is child


def test_they_are_silent_when_all_of_them_are(two: list[Scripted]) -> None:
    """One that waits for its bytes is not silent for as long as the other gets some."""
    for each in two:
        each.ask("answer", number=0)  # to start takes as long as it takes
        each.silence = 0.8
    slow = {"do": "answer", "number": 0, "words": ["a"], "pause": 1.2}
    busy = {"do": "answer", "number": 1, "words": [*"abcdefghij"], "pause": 0.15}
    assert len(ask_each([(two[0], slow), (two[1], busy)])) == 2
    begun = time.monotonic()
    with pytest.raises(ChannelFailure, match="no byte came") as caught:
        ask_each([(two[0], {"do": "nothing"}), (two[1], {"do": "answer", "number": 1})])
    assert caught.value.kind == "silent"
    assert time.monotonic() - begun < 5


def test_one_that_ends_is_a_failure(two: list[Scripted]) -> None:
    """With the status that it ended with."""
    with pytest.raises(ChannelFailure, match="ended by itself, with status 3"):
        ask_each([(two[0], {"do": "end"}), (two[1], {"do": "answer", "number": 1})])
    assert not any(each.is_running for each in two)


def test_what_comes_in_pieces_is_one_answer(two: list[Scripted]) -> None:
    """A pipe takes less at once than some answers have."""
    assert len(two[0].ask("halves")["text"]) == 100_000
    assert len(two[0].ask("halves")["text"]) == 100_000


def test_more_time_than_there_is_is_not_taken(two: list[Scripted]) -> None:
    """However much is said."""
    words = [str(number) for number in range(100)]
    with pytest.raises(ChannelFailure, match="longer than it may") as caught:
        two[0].ask("answer", number=0, words=words, pause=0.05, within=0.5)
    assert caught.value.kind == "late"
