"""Several machines that pull the same snapshot from one server at once: ``python -m bench.clients``.

All of them and the server share this machine's cores, so that what holds is the processor time for each GB:
it says how much one core of a server can serve, and one core of a machine take.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from bench import checks
from bench.bumps import BUMPED
from bench.link import Speed
from bench.site import Site, linked, site
from bench.warming import warm
from bench.world import WORK_DIR, CommandFailed, World


class Together(NamedTuple):
    """What so many *clients* took: *seconds* until the last had all, *size* in bytes, processor seconds."""

    clients: int
    seconds: float
    size: int
    requests: int
    of_clients: float
    of_server: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line for each number of clients."""
    parser = argparse.ArgumentParser(prog="python -m bench.clients", description=__doc__)
    parser.add_argument("clients", nargs="*", type=int, default=[1, 2, 4, 8], help="so many at once")
    parser.add_argument("--input", choices=sorted(BUMPED), default="web")
    parser.add_argument("--work-dir", default=WORK_DIR)
    options = parser.parse_args(arguments)
    world = World(options.work_dir, quick=False, profile=False, main=options.input)
    os.makedirs(world.work_dir, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with world.opened():
        warm(world, [world.main])
        with site(world) as fleet:
            print("clients  seconds  MB/s  requests  CPU s/GB of clients  of the server")
            for number in options.clients:
                done = together(fleet, number)
                size = done.size / 1e9
                print(
                    f"{number:>7} {done.seconds:>8.1f} {size * 1000 / done.seconds:>5.0f} {done.requests:>9}"
                    f" {done.of_clients / size:>20.1f} {done.of_server / size:>14.2f}",
                    flush=True,
                )
    return 0


def together(fleet: Site, clients: int) -> Together:
    """Let so many machines with empty stores pull at once; raises CommandFailed."""
    world = fleet.world
    with linked(fleet, Speed()) as way:  # counts, and does not delay
        machines = [fleet.machine(fleet.remote(way.url)) for _ in range(clients)]
        os.sync()
        server, start = _processor(fleet.bucket.pid), time.perf_counter()
        running = [
            subprocess.Popen(
                world.venvflow("pull", world.main), cwd=machine.root,
                env=world.environ | fleet.settings(machine), stdout=subprocess.DEVNULL,
            )
            for machine in machines
        ]  # fmt: skip
        used = [os.wait4(process.pid, 0)[1:] for process in running]
        seconds, traffic = time.perf_counter() - start, way.taken()
    if any(status for status, _ in used):
        raise CommandFailed("a machine could not pull")
    for machine in machines:
        if not os.listdir(os.path.join(machine.store, "snapshots")):
            raise checks.WrongResult(f"{machine.root} has no snapshot")
    processor = sum(each.ru_utime + each.ru_stime for _, each in used)
    of_server = _processor(fleet.bucket.pid) - server
    return Together(clients, seconds, traffic.down, traffic.requests, processor, of_server)


def _processor(pid: int) -> float:
    """Return the processor seconds of a process until now."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        words = file.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    raise SystemExit(main())
