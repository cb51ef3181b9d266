"""A session: rows measured one after the other; what is measured stays measured, whatever comes after."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bench.bumps import locks_of
from bench.checks import WrongResult
from bench.rows import ROWS
from bench.table import Line, document, lines_of, verdict
from bench.warming import warm
from bench.world import CommandFailed, Unavailable, World, fingerprint


class Session(NamedTuple):
    """What came of it: the *lines*, and by row why it *failed* and how many *seconds* it took."""

    lines: list[Line]
    failed: dict[int, str]
    seconds: dict[int, int]


def measure(world: World, rows: Sequence[int], *, resume: bool) -> Session:
    """Measure *rows*; one that fails is reported and leaves the others alone.

    With *resume*, a session of the same code that was cut short, or in which rows failed, is gone on with:
    what it measured is not measured again.
    """
    session = Session([], {}, {})
    code = fingerprint()
    known = {row: _recall(world, row) for row in rows}
    done = {row for row in rows if resume and _is_same(known[row], world, code)}
    wrong = warm(world, [lock for row in rows if row not in done for lock in _locks(world, row)])
    for row in rows:
        if row in done:
            world.say(f"row {row}: measured before by the same code: {known[row]['at']}")
            session.lines.extend(lines_of(known[row]["lines"]))
            continue
        reasons = [wrong[lock] for lock in _locks(world, row) if lock in wrong]
        if reasons:
            _fail(world, session, row, reasons[0])
            continue
        world.say(f"row {row}: takes about {_spelled(expected(world, row, known[row]))}")
        _measure(world, row, session, code)
    if not session.failed:
        _close(world, rows)
    return session


def expected(world: World, row: int, known: dict[str, Any]) -> int:
    """Return the seconds that a row will take about: those of the last time, if it was measured here."""
    usual = ROWS[row].quick if world.quick else ROWS[row].full
    return int(known.get("seconds", usual))


def _measure(world: World, row: int, session: Session, code: str) -> None:
    start = time.monotonic()
    try:
        lines = ROWS[row].measure(world)
    except (CommandFailed, WrongResult, Unavailable) as error:
        _fail(world, session, row, str(error))
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, the other rows can be measured
        _fail(world, session, row, f"{type(error).__name__}: {error}")
        return
    session.lines.extend(lines)
    session.seconds[row] = round(time.monotonic() - start)
    _remember(world, row, lines, session.seconds[row], code)
    for line in lines:
        world.say(f"{line.job} against {line.against}: {verdict(line)}")


def _fail(world: World, session: Session, row: int, reason: str) -> None:
    session.failed[row] = reason
    world.say(f"row {row} could not be measured: {reason}")


def _locks(world: World, row: int) -> Iterable[str]:
    return locks_of(world, ROWS[row].quick_locks if world.quick else ROWS[row].locks)


def _spelled(seconds: int) -> str:
    return f"{seconds} s" if seconds < 100 else f"{round(seconds / 60)} min"


# --------------------------------------------------------------------------- what is remembered


def _file(world: World, row: int) -> str:
    size = "quick" if world.quick else "full"
    return os.path.join(world.work_dir, "measured", f"{size}-{row}.json")


def _remember(world: World, row: int, lines: list[Line], seconds: int, code: str) -> None:
    record = {
        "code": code,
        "rounds": world.rounds,
        "main": world.main,
        "at": time.strftime("%Y-%m-%d %H:%M"),
        "seconds": seconds,
        "lines": document(lines),
    }
    _write(world, row, record)


def _write(world: World, row: int, record: dict[str, Any]) -> None:
    path = _file(world, row)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.new", "w", encoding="ascii") as file:
        json.dump(record, file, indent=1)
    os.replace(f"{path}.new", path)


def _close(world: World, rows: Iterable[int]) -> None:
    """Keep of what is remembered only how long it took: a session that is complete is not gone on with."""
    for row in rows:
        record = _recall(world, row)
        if record:
            _write(world, row, {**record, "code": ""})


def _recall(world: World, row: int) -> dict[str, Any]:
    """Return what is remembered of a row, nothing if nothing is or it makes no sense."""
    try:
        with open(_file(world, row), encoding="ascii") as file:
            record = json.load(file)
        lines_of(record["lines"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(record)


def _is_same(record: dict[str, Any], world: World, code: str) -> bool:
    run = {"code": code, "rounds": world.rounds, "main": world.main}
    return run.items() <= record.items()
