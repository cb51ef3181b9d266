"""The process that talks to a remote: what ends one of its threads ends all, and it waits for nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from hostile_server import serving

from venvflow.disk.remote.answers import Answers, at_once
from venvflow.disk.remote.client import Client
from venvflow.disk.remote.incoming import Incoming


def test_nobody_waits_until_the_parent_reads() -> None:
    """What is said is more than a pipe takes; all of it comes, in order."""
    reading, writing = os.pipe()
    answers = Answers(os.fdopen(writing, "w", encoding="ascii"))
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


def test_a_child_that_only_looks_loads_little() -> None:
    """A miss waits for its start: what cuts and makes parcels is loaded by who does."""
    words = "import sys, venvflow.disk.remote.worker; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    modules = loaded.stdout.split()
    assert "venvflow.disk.remote.client" in modules
    assert not {"venvflow.model", "dataclasses", "logging", "venvflow.disk.objects"} & set(modules)


def test_each_is_done_once_and_so_many_at_a_time() -> None:
    """Answers come in the order of what was asked."""
    together, most, mutex = 0, 0, threading.Lock()

    def double(number: int) -> int:
        nonlocal together, most
        with mutex:
            together += 1
            most = max(most, together)
        time.sleep(0.01)
        with mutex:
            together -= 1
        return 2 * number

    assert at_once(double, range(20), 4) == [*range(0, 40, 2)]
    assert most == 4
    assert at_once(double, [], 4) == []


def test_nothing_is_begun_after_a_failure() -> None:
    """It is raised when what had begun has ended."""
    begun, ended = [], []

    def act(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise ZeroDivisionError
        time.sleep(0.1)
        ended.append(number)

    with pytest.raises(ZeroDivisionError):
        at_once(act, range(100), 2)
    assert begun[1:] == ended
    assert len(begun) <= 2


def test_what_a_directory_has_comes_in_few_pieces(tmp_path: Path) -> None:
    """Each is work for several threads: in pieces of 8 KiB, to read it costs more than twice as much."""
    (tmp_path / "parcel").write_bytes(bytes(1 << 20))
    _, chunks = Client(f"file://{tmp_path}", {}).get("parcel", 0, 1 << 20)
    sizes = [len(chunk) for chunk in chunks]
    assert sum(sizes) == 1 << 20
    assert len(sizes) <= 16


def test_what_a_slow_line_brings_is_told_as_it_comes() -> None:
    """Or it is taken for a server that is silent: of a piece of some size, nobody would hear for too long."""
    counted: list[int] = []
    with serving("slow") as url:
        client = Client(f"{url}/", {})
        stored, data = client.whole("record", 2_499, counted.append)
        with closing(Incoming(client.get, [("a" * 64, 1)], 1, counted.append)) as incoming:
            parcel = incoming.take()
            assert parcel is not None
            came = sum(len(chunk) for chunk in incoming.chunks(parcel))
    assert (stored.size, len(data), came) == (2_500, 2_500, 2_500)
    assert len(counted) > 10, counted
