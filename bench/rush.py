"""A rush: a thousand machines that want the same snapshot at once, simulated. ``python -m bench.rush``.

Events, no clock: a request takes half a round trip to a server, waits for that server's network card in
pieces of a mebibyte, then for the machine's own link, then for the processor that cuts parcels. A store that
limits requests refuses those beyond its limit in each second; who is refused waits as our client does, and
asks again. What is not simulated: disks of the server, TCP, other traffic.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal, NamedTuple

from venvflow.disk.remote.client import BACKOFF
from venvflow.pure.parcels import RANGE

_PIECE = 1 << 20
_GIGABIT = 125e6

DATA = (
    55875, 50678, 44238, 38832, 20179, 18045, 17553, 12216, 11708, 11227, 9184, 8291, 7541, 7186, 6574, 4248,
    3824, 3382, 2553, 1693, 1331, 1326, 1249, 1198, 1104, 993, 967, 887, 883, 855, 625, 597, 382, 364, 361,
    358, 347, 344, 333, 319, 289, 285, 278, 274, 273, 246, 235, 225, 216, 214, 210, 206, 201, 177, 177, 156,
    154, 151, 150, 136, 134, 134, 130, 130, 125, 121, 116, 111, 110, 103, 77, 72, 67, 66, 66, 65, 63, 62, 62,
    53, 53, 51, 42, 37, 35, 35, 31, 29, 29, 28, 27, 27, 26, 26, 25, 25, 24, 22, 21, 20, 20, 17, 16, 16, 16,
    16, 15, 13, 13, 13, 13, 12, 10, 7, 4, 3,
)  # fmt: skip
"""KiB of the parcels of the benchmark's venv ``data``, compiled: 36,015 files, 1.36 GB, 365 MB stored."""


class Machines(NamedTuple):
    """*number* of them, with *connections*, a *link* and a processor that *cuts*, both in bytes per second.

    They start at once, or at random within *spread* seconds. Bytes of parcels are cut as they are stored.
    """

    number: int
    connections: int = 16
    link: float = _GIGABIT
    cuts: float = 0.0
    spread: float = 0.0


class Servers(NamedTuple):
    """What serves them: *number* of network cards of *card* bytes per second each (0: no bound).

    *requests* are those that each of *partitions* takes in a second (0: no bound); names spread evenly.
    """

    number: int = 1
    card: float = 0.0
    requests: int = 0
    partitions: int = 1


class Rush(NamedTuple):
    """How it went: seconds until half of the machines and until the *last* had all; requests *refused*."""

    half: float
    last: float
    refused: int


def requests_of(parcels: Sequence[int]) -> list[int]:
    """Return the bytes of each request for parcels of so many bytes, largest first."""
    found: list[int] = []
    for size in sorted(parcels, reverse=True):
        found.extend(min(RANGE, size - start) for start in range(0, size, RANGE))
    return found


@dataclass
class _Lane:
    """Something that takes one piece after the other; *rate* in bytes per second, 0: no bound."""

    rate: float
    free: float = 0.0

    def through(self, now: float, size: int) -> float:
        if not self.rate:
            return now
        self.free = max(now, self.free) + size / self.rate
        return self.free


@dataclass
class _Machine:
    link: _Lane
    processor: _Lane
    waiting: Iterator[tuple[int, int]]  # number and bytes of requests
    done: float = 0.0


class _Partition:
    """Takes so many requests in a second, by its clock, and refuses the rest."""

    def __init__(self, requests: int) -> None:
        self._most, self._second, self._taken = requests, -1, 0

    def takes(self, now: float) -> bool:
        if int(now) != self._second:
            self._second, self._taken = int(now), 0
        self._taken += 1
        return not self._most or self._taken <= self._most


class _Event(NamedTuple):
    """At a time, the *number*-th machine asks for the *request*-th, or is sent or has got a piece of it.

    *left* are its bytes that have not come, *tries* how often it was refused; *order* is that of equal times.
    """

    at: float
    order: int
    what: Literal["ask", "send", "came"]
    number: int
    request: int
    left: int
    tries: int = 0


class _Simulation:
    def __init__(self, machines: Machines, servers: Servers, round_trip: float, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - no secret is made of it
        self._half = round_trip / 2
        self._partitions = [_Partition(servers.requests) for _ in range(servers.partitions)]
        self._cards = [_Lane(servers.card) for _ in range(servers.number)]
        self._machines = machines
        self._fleet: list[_Machine] = []
        self._events: list[_Event] = []
        self._order = count()
        self._refused = 0

    def run(self, requests: Sequence[int]) -> Rush:
        machines = self._machines
        for number in range(machines.number):
            waiting = iter(enumerate(requests))
            self._fleet.append(_Machine(_Lane(machines.link), _Lane(machines.cuts), waiting))
            start = self._chance.uniform(0, machines.spread)
            for _ in range(machines.connections):
                self._ask(number, start)
        while self._events:
            event = heapq.heappop(self._events)
            {"ask": self._asked, "send": self._send, "came": self._came}[event.what](event)
        ends = sorted(machine.done for machine in self._fleet)
        return Rush(ends[(len(ends) - 1) // 2], ends[-1], self._refused)

    def _later(self, event: _Event) -> None:
        heapq.heappush(self._events, event._replace(order=next(self._order)))

    def _ask(self, number: int, now: float) -> None:
        """Let a connection of a machine that has nothing to do ask for something."""
        if (found := next(self._fleet[number].waiting, None)) is not None:
            self._later(_Event(now + self._half, 0, "ask", number, *found))

    def _asked(self, event: _Event) -> None:
        if self._partitions[event.request * 7919 % len(self._partitions)].takes(event.at):
            self._send(event)
            return
        self._refused += 1
        pause = self._chance.uniform(0, min(BACKOFF.most, BACKOFF.first * BACKOFF.factor**event.tries))
        self._later(event._replace(at=event.at + 2 * self._half + pause, tries=event.tries + 1))

    def _send(self, event: _Event) -> None:
        piece = min(_PIECE, event.left)
        sent = self._cards[event.request % len(self._cards)].through(event.at, piece)
        self._later(event._replace(what="came", at=self._fleet[event.number].link.through(sent, piece)))

    def _came(self, event: _Event) -> None:
        machine = self._fleet[event.number]
        cut = machine.processor.through(event.at, min(_PIECE, event.left))
        machine.done = max(machine.done, cut + self._half)
        if event.left > _PIECE:
            self._later(event._replace(what="send", left=event.left - _PIECE))
        else:
            self._ask(event.number, event.at + self._half)


def simulate(
    machines: Machines, servers: Servers, parcels: Sequence[int], *, round_trip: float = 0.02, seed: int = 1
) -> Rush:
    """Let all machines fetch all *parcels*, given in bytes."""
    return _Simulation(machines, servers, round_trip, seed).run(requests_of(parcels))


class Case(NamedTuple):
    """A line of the table: what *serves*, and how the machines come."""

    name: str
    machines: Machines
    servers: Servers
    parcels: Sequence[int]


def cases(cuts: float) -> list[Case]:
    """Return the lines of the table: machines of 1 Gbit/s that cut *cuts* bytes per second, a thousand."""
    parcels = [size << 10 for size in DATA]
    few = [size for size in parcels if size >= 256 << 10]
    bundled = [*few, sum(parcels) - sum(few)]
    thousand, ten = Machines(1000, cuts=cuts), 10 * _GIGABIT
    one = Servers(requests=5500)
    return [
        Case("a store of one partition, 5,500 requests/s", thousand, one, parcels),
        Case("the same, small parcels in one bundle", thousand, one, bundled),
        Case("the same, machines start within 60 s", thousand._replace(spread=60.0), one, parcels),
        Case("a store of 16 partitions", thousand, Servers(requests=5500, partitions=16), parcels),
        Case("one server, 10 Gbit/s", thousand, Servers(card=ten), parcels),
        Case("one server, 25 Gbit/s", thousand, Servers(card=2.5 * ten), parcels),
        Case("8 servers or caches, 10 Gbit/s each", thousand, Servers(8, ten), parcels),
        Case("one machine, nobody else", Machines(1, cuts=cuts), Servers(), parcels),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what each of the cases takes."""
    parser = argparse.ArgumentParser(prog="python -m bench.rush", description=__doc__)
    parser.add_argument(
        "--cuts", type=float, default=0.0, metavar="MB/S", help="a processor that cuts so much"
    )
    options = parser.parse_args(arguments)
    print(f"{'served by':<45} {'half':>8} {'last':>8} {'refused':>10}")
    for case in cases(options.cuts * 1e6):
        rush = simulate(case.machines, case.servers, case.parcels)
        print(f"{case.name:<45} {rush.half:>6.1f} s {rush.last:>6.1f} s {rush.refused:>10,}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
