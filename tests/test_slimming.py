"""What exclude patterns save, and RECORDs that list only what is left."""

from __future__ import annotations

from venvflow.model import Slot
from venvflow.pure.patterns import compile_patterns
from venvflow.pure.slimming import Saved, prune_record, saved_by, without_rows

RECORD = "lib/python3.12/site-packages/demo-1.0.dist-info/RECORD"


def test_each_pattern_is_told_with_what_it_saved() -> None:
    """The pattern that decides counts; most bytes come first, and nothing is lost on the way to a file."""
    matcher = compile_patterns(["**/tests/", "*.h", "!keep.h"])
    site = "lib/python3.12/site-packages"
    sizes = {f"{site}/a/tests/x.h": 10, f"{site}/a/tests/y.py": 5, f"{site}/b.h": 100}
    found = saved_by(sizes, matcher.deciding)
    assert found == [Saved("*.h", 1, 100), Saved("**/tests/", 2, 15)]


def test_only_the_rows_of_files_that_are_gone_are_taken_out() -> None:
    """All others keep their bytes: quotes, line ends, rows that lead out of site-packages, and odd ones."""
    kept = (
        b'"demo/with, comma.py",sha256=x,1\r\n../../../bin/demo,sha256=x,2\ndemo-1.0.dist-info/RECORD,,\n\n'
    )
    gone = b'"demo/tests/a\nb.py",sha256=x,3\n../../../share/doc/demo.txt,sha256=x,4\n'
    paths = ["lib/python3.12/site-packages/demo/tests/a\nb.py", "share/doc/demo.txt", "elsewhere"]
    assert prune_record(RECORD, gone + kept, paths) == kept
    assert prune_record(RECORD, kept, []) == kept


def test_slots_go_with_their_rows_and_the_others_stay_at_theirs() -> None:
    """What is to be filled in behind a row that goes is filled in at the same place of the same row."""
    rows = [b"a.py,,\n", b"../../../bin/x,\n", b"gone.py,,\n", b"../../../bin/gone,\n", b"../../../bin/z,\n"]
    data = b"".join(rows)
    starts = [sum(map(len, rows[:number])) for number in range(6)]
    slots = tuple(
        Slot(starts[number + 1] - 1, "record", "record", name)
        for number, name in ((1, "bin/x"), (3, "bin/gone"), (4, "bin/z"))
    )
    gone = {"lib/python3.12/site-packages/gone.py", "bin/gone"}
    pruned, left = without_rows(RECORD, data, slots, gone.__contains__)
    assert pruned == rows[0] + rows[1] + rows[4]
    assert [(slot.offset, slot.argument) for slot in left] == [
        (len(rows[0] + rows[1]) - 1, "bin/x"),
        (len(pruned) - 1, "bin/z"),
    ]
