"""What exclude patterns save, and RECORDs that list only what is left."""

from __future__ import annotations

from venvflow.patterns import compile_patterns
from venvflow.slimming import Saved, prune_record, saved_by, saved_from

RECORD = "lib/python3.12/site-packages/demo-1.0.dist-info/RECORD"


def test_each_pattern_is_told_with_what_it_saved() -> None:
    """The pattern that decides counts; most bytes come first, and nothing is lost on the way to a file."""
    matcher = compile_patterns(["**/tests/", "*.h", "!keep.h"])
    site = "lib/python3.12/site-packages"
    sizes = {f"{site}/a/tests/x.h": 10, f"{site}/a/tests/y.py": 5, f"{site}/b.h": 100}
    found = saved_by(sizes, matcher.deciding)
    assert found == [Saved("*.h", 1, 100), Saved("**/tests/", 2, 15)]
    assert saved_from([list(each) for each in found]) == found


def test_only_the_rows_of_files_that_are_gone_are_taken_out() -> None:
    """All others keep their bytes: quotes, line ends, rows that lead out of site-packages, and odd ones."""
    kept = (
        b'"demo/with, comma.py",sha256=x,1\r\n../../../bin/demo,sha256=x,2\ndemo-1.0.dist-info/RECORD,,\n\n'
    )
    gone = b'"demo/tests/a\nb.py",sha256=x,3\n../../../share/doc/demo.txt,sha256=x,4\n'
    paths = ["lib/python3.12/site-packages/demo/tests/a\nb.py", "share/doc/demo.txt", "elsewhere"]
    assert prune_record(RECORD, gone + kept, paths) == kept
    assert prune_record(RECORD, kept, []) == kept
