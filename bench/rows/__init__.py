"""The rows of the table, by number: each a function from the world to the lines that it measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from bench.rows.memory import measure_memory
from bench.rows.nothing import measure_nothing_to_do
from bench.rows.packing import measure_pack
from bench.rows.restoring import measure_restore
from bench.rows.second import measure_second_squish
from bench.rows.unpacking import measure_unpack
from bench.table import Line
from bench.world import World

Row: TypeAlias = Callable[[World], list[Line]]

ROWS: Mapping[int, Row] = {
    1: measure_restore,
    2: measure_nothing_to_do,
    4: measure_second_squish,
    5: measure_pack,
    6: measure_unpack,
    9: measure_memory,
}
