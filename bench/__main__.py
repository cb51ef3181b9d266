"""The command ``python -m bench``: measures rows of the table, prints it and keeps it as JSON."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from bench import machine
from bench.checks import WrongResult
from bench.project import PYTHON
from bench.rows import ROWS
from bench.table import Line, document, render, verdict
from bench.world import ROOT, WORK_DIR, CommandFailed, Unavailable, World

RESULTS = os.path.join(ROOT, "bench", "results")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for. Return 0, or 1 when a row could not be measured."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _stop)
    world = World(options.work_dir, quick=options.quick, profile=options.profile, pairs=options.pairs)
    os.makedirs(world.work_dir, exist_ok=True)
    _introduce(world)
    facts = machine.facts(world)
    start = time.monotonic()
    with world.opened():
        if not warm(world, options.row):
            return 1
        lines, failed = _measure(world, options.row)
        facts |= {"load after": machine.load(), "seconds": round(time.monotonic() - start)}
        _show(world, lines, facts)
        path = save(lines, facts, world)
    print(f"\nwritten to {os.path.relpath(path)}")
    return 1 if failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small inputs, three pairs: under two minutes")
    parser.add_argument(
        "--row", type=int, action="append", choices=list(ROWS), help="measure this row; may be given again"
    )
    parser.add_argument("--profile", action="store_true", help="print where the time of our side goes")
    parser.add_argument("--pairs", type=int, help="how many pairs to measure (5, with --quick 3)")
    parser.add_argument(
        "--work-dir",
        default=WORK_DIR,
        help="where everything is made; the uv cache in it is kept (%(default)s)",
    )
    options = parser.parse_args(arguments)
    # Archives alone take minutes, with the xz of others: not in a quick run unless they are asked for.
    options.row = options.row or [row for row in ROWS if not options.quick or row not in (5, 6)]
    return options


def _stop(number: int, _: FrameType | None) -> None:
    """End as for an error: what the run made is deleted on the way out."""
    sys.exit(128 + number)


def _introduce(world: World) -> None:
    size = "quick: small inputs" if world.quick else "full"
    print(f"venvflow's benchmark, {size}, {world.rounds} pairs in turn, in {world.work_dir}")
    if "PYTHONDONTWRITEBYTECODE" in os.environ:
        print(
            "PYTHONDONTWRITEBYTECODE is set in this shell; children do not get it, or nothing would compile"
        )
    else:
        print("PYTHONDONTWRITEBYTECODE is not set")


_INPUTS = {1: ("data",), 4: ("data", "data-next"), 5: ("data", "data-next", "web"), 6: ("data",)}
"""The lock files that rows install from."""

_QUICK = {"data": "small", "data-next": "small-next", "web": "small"}


def warm(world: World, rows: Sequence[int]) -> bool:
    """Fill uv's cache with what the *rows* need; return whether that worked. Nothing is downloaded later."""
    needed = dict.fromkeys(name for row in rows for name in _INPUTS.get(row, ()))
    for name in dict.fromkeys(_QUICK[name] for name in needed) if world.quick else needed:
        try:
            _fill_cache(world, world.lock_file(name))
        except (CommandFailed, Unavailable) as error:
            world.say(f"uv's cache could not be filled for {name}: {error}")
            return False
    world.environ["UV_OFFLINE"] = "1"
    return True


def _fill_cache(world: World, lock: str) -> None:
    """Let uv make the venv once; from the package index only where its cache does not do."""
    venv = world.path("warm")
    world.run([world.uv, "venv", "--quiet", "--offline", "--python", PYTHON, venv])
    target = os.path.join(venv, "bin", "python")
    sync = [world.uv, "pip", "sync", "--quiet", "--link-mode", "hardlink", "--python", target, lock]
    try:
        world.run([*sync, "--offline"])
    except CommandFailed:
        world.say(f"uv's cache lacks some of {os.path.basename(lock)}: asking the package index, this once")
        world.run(sync)
    world.put_aside(venv)


def _measure(world: World, rows: Sequence[int]) -> tuple[list[Line], bool]:
    """Measure the *rows*; one that fails is reported and leaves the others alone."""
    lines: list[Line] = []
    failed = False
    for row in rows:
        try:
            for line in ROWS[row](world):
                lines.append(line)
                world.say(f"{line.job} against {line.against}: {verdict(line)}")
        except (CommandFailed, WrongResult, Unavailable) as error:
            failed = True
            print(f"row {row} could not be measured: {error}", file=sys.stderr)
    return lines, failed


def _show(world: World, lines: Sequence[Line], facts: machine.Facts) -> None:
    print("\n" + ", ".join(f"{name}: {value}" for name, value in facts.items()) + "\n")
    print(render(lines))
    for title, text in world.profiles.items():
        print(f"\n--- {title}\n{text}")


def save(lines: Sequence[Line], facts: machine.Facts, world: World) -> str:
    """Write the results as JSON and return the file's path."""
    os.makedirs(RESULTS, exist_ok=True)
    path = os.path.join(RESULTS, time.strftime("%Y-%m-%dT%H-%M-%S.json"))
    with open(path, "w", encoding="ascii") as file:
        json.dump({"quick": world.quick, "machine": facts, "lines": document(lines)}, file, indent=1)
    return path


if __name__ == "__main__":
    sys.exit(main())
