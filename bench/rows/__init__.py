"""The rows of the table, by number: what measures each, what it installs, how long it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from bench.rows.compiling import measure_bytecode
from bench.rows.crowded import measure_crowded
from bench.rows.memory import measure_memory
from bench.rows.nothing import measure_nothing_to_do
from bench.rows.packing import measure_pack
from bench.rows.restoring import measure_restore
from bench.rows.second import measure_second_squish
from bench.rows.sharing import measure_sharing
from bench.rows.unpacking import measure_unpack
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


ROWS: Mapping[int, Row] = {
    1: Row(measure_restore, ("data",), ("small",), 25, 240),
    2: Row(measure_nothing_to_do, quick=15, full=60),
    3: Row(measure_sharing, ("web",), ("tiny",), 8, 300),
    4: Row(measure_second_squish, ("data", "data-next"), ("small", "small-next"), 20, 300),
    5: Row(measure_pack, ("data", "data-next", "web"), ("small", "small-next", "tiny"), 20, 700),
    6: Row(measure_unpack, ("data",), ("small",), 5, 60),
    7: Row(measure_bytecode, ("data",), ("tiny",), 8, 200),
    8: Row(measure_crowded, quick=12, full=60),
    9: Row(measure_memory, quick=10, full=240),
}
