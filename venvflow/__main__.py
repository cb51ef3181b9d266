"""The program ``venvflow``, also as ``python -m venvflow``: the command line, with an end for each signal."""

from __future__ import annotations

import sys

from venvflow import interrupts, streams


def main() -> int:
    """Run the command of this process's words, and return its exit code."""
    streams.take_names_for_utf_8()
    interrupts.watch(interrupts.OF_A_COMMAND, by_signal=False)
    from venvflow.cli import main as command_line  # noqa: PLC0415 - a signal may come while it is imported

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
