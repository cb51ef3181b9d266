"""A slow link on loopback: a proxy for TCP with a round trip, a bandwidth shared by all, and one of each.

What it models: half a round trip each way, one more for each new connection, a queue in front of the shared
link, and the slow start of TCP (ten segments, twice as many each round trip). What it does not: loss, TLS,
and the processor time of a network card.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

_CHUNK = 128 << 10
_FIRST_WINDOW = 10 * 1460
_QUEUE = 0.02
"""Seconds that one connection may have its bytes wait in front of the link."""

_REQUEST = re.compile(rb"(?:GET|HEAD|PUT|POST|DELETE) /[^ ]* HTTP/1\.[01]\r\n")


class Speed(NamedTuple):
    """A link: seconds of a *round_trip*, bytes per second in all and of *each* connection; 0: no bound."""

    round_trip: float = 0.0
    shared: float = 0.0
    each: float = 0.0


GIGABIT = 125e6
"""Bytes per second of 1 Gbit/s."""


@dataclass
class Traffic:
    """What went over a link: *requests*, bytes to the server (*up*) and from it; when it began and ended."""

    requests: int = 0
    up: int = 0
    down: int = 0
    first: float = 0.0
    last: float = 0.0

    @property
    def seconds(self) -> float:
        """Return the seconds from the first request to the last byte of an answer."""
        return self.last - self.first


@dataclass
class _Lane:
    """One direction of the link: until when it is taken."""

    rate: float
    free: float = 0.0

    def taken_until(self, now: float, size: int) -> float:
        """Put *size* bytes into the lane; return when the last of them is through."""
        self.free = max(now, self.free) + (size / self.rate if self.rate else 0.0)
        return self.free


@dataclass
class _Direction:
    """One direction of one connection."""

    speed: Speed
    lane: _Lane
    free: float = 0.0
    window: float = _FIRST_WINDOW

    def through(self, now: float, size: int) -> float:
        """Return when *size* bytes that come now are through this connection and the link."""
        speed, left = self.speed, float(size)
        most = max(_FIRST_WINDOW, speed.each * speed.round_trip) if speed.each else float("inf")
        self.free = max(now, self.free)
        while left:
            # A piece of data may be larger than the window, which opens while that is on its way.
            is_opening = speed.round_trip and self.window < most
            piece = min(left, self.window) if is_opening else left
            rates = [
                rate
                for rate in (speed.each, self.window / speed.round_trip if speed.round_trip else 0)
                if rate
            ]
            self.free += piece / min(rates) if rates else 0.0
            self.window = min(self.window + piece, most)
            left -= piece
        return max(self.free, self.lane.taken_until(now, size))


@dataclass
class Link:
    """A running proxy: *url* leads through it; :meth:`taken` gives what went over it since the last time."""

    url: str
    speed: Speed
    _upstream: tuple[str, int]
    _traffic: Traffic = field(default_factory=Traffic)
    _lanes: tuple[_Lane, _Lane] = field(init=False)

    def __post_init__(self) -> None:
        self._lanes = _Lane(self.speed.shared), _Lane(self.speed.shared)

    def taken(self) -> Traffic:
        """Return what went over the link, and begin to count anew."""
        traffic, self._traffic = self._traffic, Traffic()
        return traffic

    async def serve(self, client: socket.socket) -> None:
        """Carry one connection until it ends."""
        loop = asyncio.get_running_loop()
        with client, socket.create_connection(self._upstream) as server:
            for each in (client, server):
                each.setblocking(False)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened = loop.time() + self.speed.round_trip
            up, down = self._lanes
            ways = (
                asyncio.ensure_future(
                    self._carry(client, server, _Direction(self.speed, up, opened), is_up=True)
                ),
                asyncio.ensure_future(self._carry(server, client, _Direction(self.speed, down), is_up=False)),
            )
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(
        self, source: socket.socket, target: socket.socket, direction: _Direction, *, is_up: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivering = asyncio.ensure_future(self._deliver(on_its_way, target, is_up=is_up))
        try:
            while data := await loop.sock_recv(source, _CHUNK):
                self._count(data, is_up=is_up)
                through = direction.through(loop.time(), len(data))
                on_its_way.put_nowait((through + self.speed.round_trip / 2, data))
                if (ahead := through - loop.time() - _QUEUE) > 0:
                    await asyncio.sleep(ahead)
            on_its_way.put_nowait((0.0, b""))
            await delivering
        except OSError:
            pass  # one side went away: the other learns it
        finally:
            delivering.cancel()

    async def _deliver(
        self, on_its_way: asyncio.Queue[tuple[float, bytes]], target: socket.socket, *, is_up: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await on_its_way.get()
            if not data:
                return
            if (left := due - loop.time()) > 0:
                await asyncio.sleep(left)
            with suppress(OSError):
                await loop.sock_sendall(target, data)
            if not is_up:
                self._traffic.last = time.monotonic()

    def _count(self, data: bytes, *, is_up: bool) -> None:
        traffic = self._traffic
        if is_up:
            traffic.first = traffic.first or time.monotonic()
            traffic.up += len(data)
            traffic.requests += len(_REQUEST.findall(data))
        else:
            traffic.down += len(data)


@contextmanager
def through(url: str, speed: Speed) -> Iterator[Link]:
    """Give a link to the server at *url* for the length of a ``with`` block."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        link = Link(f"http://127.0.0.1:{listener.getsockname()[1]}", speed, (parts.hostname, parts.port))
        loop = asyncio.new_event_loop()
        running = threading.Thread(target=_run, args=(loop, listener, link), daemon=True)
        running.start()
        try:
            yield link
        finally:
            loop.call_soon_threadsafe(loop.stop)
            running.join()


def _run(loop: asyncio.AbstractEventLoop, listener: socket.socket, link: Link) -> None:
    connections = set()

    async def accept() -> None:
        while True:
            client, _ = await loop.sock_accept(listener)
            connection = loop.create_task(link.serve(client))
            connections.add(connection)
            connection.add_done_callback(connections.discard)

    accepting = loop.create_task(accept())
    loop.run_forever()
    for task in (accepting, *connections):
        task.cancel()
    loop.run_until_complete(asyncio.gather(accepting, *connections, return_exceptions=True))
    loop.close()
