"""The rows of the table, by number: what measures each, what it installs, how long it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from bench.bumps import BUMPS_OF, MAIN
from bench.rows.compiling import measure_bytecode
from bench.rows.crowded import measure_crowded
from bench.rows.daily import measure_back, measure_bump, measure_first
from bench.rows.memory import measure_memory
from bench.rows.monorepo import measure_shared_bump
from bench.rows.nothing import measure_nothing_to_do, measure_nothing_to_do_once
from bench.rows.packing import measure_pack
from bench.rows.remote import measure_remote
from bench.rows.restoring import measure_restore
from bench.rows.second import measure_second_squish
from bench.rows.sharing import measure_sharing
from bench.rows.unpacking import measure_unpack
from bench.rows.workspace import measure_workspace
from bench.table import Line
from bench.world import World


class Row(NamedTuple):
    """A row: a function from the world to the lines that it measured, and what is known before it runs.

    *locks* are the lock files that it installs from, *quick_locks* those of a quick run. *quick* and
    *full* are the seconds that it takes about, on two idle cores, with nothing kept from an earlier run.
    """

    measure: Callable[[World], list[Line]]
    locks: tuple[str, ...] = ()
    quick_locks: tuple[str, ...] = ()
    quick: int = 10
    full: int = 60


_BUMPED = f"{BUMPS_OF}{MAIN}"

ROWS: Mapping[int, Row] = {
    1: Row(measure_restore, (MAIN,), (MAIN,), 25, 240),
    2: Row(measure_nothing_to_do, quick=15, full=60),
    3: Row(measure_sharing, ("web",), ("tiny",), 8, 300),
    4: Row(measure_second_squish, (MAIN, _BUMPED), (MAIN, _BUMPED), 20, 300),
    5: Row(measure_pack, (MAIN, _BUMPED, "web"), (MAIN, _BUMPED, "tiny"), 20, 700),
    6: Row(measure_unpack, (MAIN,), (MAIN,), 5, 60),
    7: Row(measure_bytecode, ("data",), ("tiny",), 8, 200),
    8: Row(measure_crowded, quick=12, full=60),
    9: Row(measure_memory, quick=10, full=240),
    10: Row(measure_bump, (MAIN, _BUMPED), (MAIN, _BUMPED), 20, 200),
    11: Row(measure_first, (MAIN,), (MAIN,), 20, 300),
    12: Row(measure_nothing_to_do_once, (MAIN,), (MAIN,), 10, 60),
    13: Row(measure_back, (MAIN, _BUMPED), (MAIN, _BUMPED), 15, 100),
    14: Row(measure_shared_bump, ("web", f"{BUMPS_OF}web"), ("small", f"{BUMPS_OF}small"), 30, 600),
    15: Row(measure_workspace, quick=30, full=600),
    16: Row(measure_remote, (MAIN, _BUMPED), (MAIN, _BUMPED), 60, 400),
}
