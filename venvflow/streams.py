"""Standard streams that are closed or full: our faces say so, and write into no file of ours by mistake."""

from __future__ import annotations

import os
import sys


def fill_closed(*, answers: bool) -> None:
    """Put ``/dev/null`` where a standard stream was closed: the next file opened would take its number.

    A program that we start, and that prints, would then write into one of our files. With *answers* on
    standard output, one that is closed stays an error when it is written to, as it is for other programs.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, so it is this one; it stays open for as long as we run.
            os.open(os.devnull, os.O_RDONLY if number == 1 and answers else os.O_RDWR)
    # Python has None for a stream that was closed when it started.
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as we run
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as we run
