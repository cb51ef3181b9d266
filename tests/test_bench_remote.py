"""What the benchmark of the remote measures with: a link that delays and counts, and what a command costs."""

from __future__ import annotations

import http.client
import http.server
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from contents import needs_proc

from bench.costs import cost_of
from bench.link import Speed, _Direction, _Lane, through
from bench.world import CommandFailed, World

_BODY = b"x" * 300_000


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with many bytes."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(_BODY)))
        self.end_headers()
        self.wfile.write(_BODY)

    def do_PUT(self) -> None:
        """Take what is sent, which looks like a request."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Give the URL of a server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as answering:
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{answering.server_port}"
        answering.shutdown()


@pytest.mark.parametrize("speed", [Speed(), Speed(0.01, 50e6, 20e6)])
def test_a_link_carries_all_bytes_and_counts_them(server: str, speed: Speed) -> None:
    """Requests of one connection and of several; what was taken is not counted again."""
    with through(server, speed) as link:
        place = urlsplit(link.url).netloc
        client = http.client.HTTPConnection(place, timeout=20)
        for _ in range(3):
            client.request("GET", "/one")
            assert client.getresponse().read() == _BODY
        client.request("PUT", "/two", body=b"GET / of somebody else\r\n" * 1000)
        assert client.getresponse().read() == b""
        other = http.client.HTTPConnection(place, timeout=20)
        other.request("GET", "/three")
        assert other.getresponse().read() == _BODY
        traffic = link.taken()
        assert traffic.requests == 5
        assert 4 * len(_BODY) < traffic.down < 4 * len(_BODY) + 5000
        assert 24_000 < traffic.up < 26_000
        assert 0 < traffic.first <= traffic.last
        assert link.taken().requests == 0
        client.close()
        other.close()


def test_what_is_slowest_decides_when_bytes_are_through() -> None:
    """The shared lane, the rate of one connection, or its window while it is still opening."""
    lane = _Lane(1000.0)
    assert [lane.taken_until(now, 500) for now in (0.0, 0.0, 10.0)] == [0.5, 1.0, 10.5]
    shared = _Direction(Speed(0.0, 1000.0, 0.0), _Lane(1000.0))
    assert shared.through(0.0, 2000) == 2.0
    alone = _Direction(Speed(0.0, 0.0, 500.0), _Lane(0.0))
    assert alone.through(0.0, 2000) == 4.0
    opening = _Direction(Speed(1.0, 0.0, 1e9), _Lane(0.0))
    assert opening.through(0.0, 14_600) == 1.0  # ten segments in the first round trip
    assert opening.through(1.0, 29_200) == 2.0  # twice as many in the second
    at_once = _Direction(Speed(1.0, 0.0, 1e9), _Lane(0.0))
    assert at_once.through(0.0, 14_600 + 29_200) == 2.0  # however much of it is read in one piece
    late = _Direction(Speed(1.0, 0.0, 0.0), _Lane(0.0), free=3.0)
    assert late.through(0.0, 14_600) == 4.0  # the connection was not there before


_CHILD = "import time; x = b'x' * 60_000_000; time.sleep(0.5)"
_PARENT = f"import subprocess, sys; x = b'x' * 40_000_000; subprocess.run([sys.executable, '-c', {_CHILD!r}])"


@needs_proc
def test_a_command_costs_the_memory_of_its_children_too(tmp_path: Path) -> None:
    """Of both at the same time; one that fails is an error with its last words."""
    world = World(str(tmp_path), quick=True, profile=False)
    with world.opened():
        cost = cost_of(world, [sys.executable, "-c", _PARENT], cwd=str(tmp_path))
        assert 100_000_000 < cost.memory < 180_000_000
        assert cost.seconds >= 0.5
        assert cost.processor > 0
        with pytest.raises(CommandFailed, match="no such thing"):
            cost_of(world, [sys.executable, "-c", "import sys; sys.exit('no such thing')"], cwd=str(tmp_path))


_BUSY = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
_LEAVES = (
    f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {_BUSY!r}]); time.sleep(0.2)"
)


@needs_proc
def test_a_command_costs_what_a_process_does_that_outlives_it(tmp_path: Path) -> None:
    """As the one that talks to a remote does: its parent has not counted it."""
    world = World(str(tmp_path), quick=True, profile=False)
    with world.opened():
        assert cost_of(world, [sys.executable, "-c", _LEAVES], cwd=str(tmp_path)).processor > 0.5
