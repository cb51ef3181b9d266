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
from bench.bumps import BUMPED
from bench.rows import ROWS
from bench.session import Session, measure
from bench.table import document, render, render_markdown
from bench.world import ROOT, WORK_DIR, World

RESULTS = os.path.join(ROOT, "bench", "results")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for. Return 0, or 1 when a row could not be measured."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _stop)
    world = World(
        options.work_dir,
        quick=options.quick,
        profile=options.profile,
        pairs=options.pairs,
        main=options.input,
    )
    os.makedirs(world.work_dir, exist_ok=True)
    _introduce(world)
    facts = machine.facts(world)
    start = time.monotonic()
    with world.opened():
        session = measure(world, options.row or list(ROWS), resume=options.resume)
        facts |= {"load after": machine.load(), "seconds": round(time.monotonic() - start)}
        _show(world, session, facts, markdown=options.markdown)
        path = save(session, facts, world)
    print(f"\nwritten to {os.path.relpath(path)}")
    return 1 if session.failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small inputs, three pairs: some three minutes")
    parser.add_argument(
        "--row", type=int, action="append", choices=list(ROWS), help="measure this row; may be given again"
    )
    parser.add_argument(
        "--input", choices=sorted(BUMPED), help="the venv of rows about one venv (data, with --quick small)"
    )
    parser.add_argument("--profile", action="store_true", help="print where the time of our side goes")
    parser.add_argument("--pairs", type=int, help="how many pairs to measure (5, with --quick 3)")
    parser.add_argument(
        "--resume", action="store_true", help="go on with a run of the same code that was cut short"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table for a Markdown file, too")
    parser.add_argument(
        "--work-dir",
        default=WORK_DIR,
        help="where everything is made; inputs, peers and uv's cache are kept there (%(default)s)",
    )
    return parser.parse_args(arguments)


def _stop(number: int, _: FrameType | None) -> None:
    """End as for an error: what the run made is deleted on the way out."""
    sys.exit(128 + number)


def _introduce(world: World) -> None:
    size = "quick: small inputs" if world.quick else "full"
    pairs = f"{world.rounds} pairs in turn"
    if world.few_rounds != world.rounds:
        pairs += f" ({world.few_rounds} of what takes long)"
    print(f"venvflow's benchmark, {size}, {world.main}, {pairs}, in {world.work_dir}")
    if "PYTHONDONTWRITEBYTECODE" in os.environ:
        print(
            "PYTHONDONTWRITEBYTECODE is set in this shell; children do not get it, or nothing would compile"
        )
    else:
        print("PYTHONDONTWRITEBYTECODE is not set")
    sys.stdout.flush()


def _show(world: World, session: Session, facts: machine.Facts, *, markdown: bool) -> None:
    print("\n" + ", ".join(f"{name}: {value}" for name, value in facts.items()) + "\n")
    print(render(session.lines))
    for row, reason in session.failed.items():
        print(f"row {row} could not be measured: {reason}")
    if markdown:
        print("\n" + render_markdown(session.lines))
    for title, text in world.profiles.items():
        print(f"\n--- {title}\n{text}")


def save(session: Session, facts: machine.Facts, world: World) -> str:
    """Write the results as JSON and return the file's path."""
    os.makedirs(RESULTS, exist_ok=True)
    path = os.path.join(RESULTS, time.strftime("%Y-%m-%dT%H-%M-%S.json"))
    results = {
        "quick": world.quick,
        "machine": facts,
        "lines": document(session.lines),
        "failed": session.failed,
        "row_seconds": session.seconds,
    }
    with open(path, "w", encoding="ascii") as file:
        json.dump(results, file, indent=1)
    return path


if __name__ == "__main__":
    sys.exit(main())
