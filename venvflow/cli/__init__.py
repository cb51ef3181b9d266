"""The command line ``venvflow``: answers questions and acts on one thing; ``doit`` does the work.

Answers go to standard output, messages and progress to standard error. Exit codes: 0 done or hit; 1 a miss,
or the answer is no; 2 wrong words or config; 3 environment; 4 a build failed; 5 a lock was held for too
long; 6 refused, because something could be lost; 130 interrupted. Importing this module is cheap: what a
command needs is imported when it runs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from venvflow.errors import VenvflowError, shown

if TYPE_CHECKING:
    from venvflow.cli.render import Output

INTERRUPTED = 130
_FAILED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; *argv* are the words after the program's name."""
    words = list(sys.argv[1:] if argv is None else argv)
    _fill_closed_streams()
    try:
        with _signals_as_interrupts():
            return _run(words)
    except KeyboardInterrupt:
        return _interrupted()


def _run(words: list[str]) -> int:
    from venvflow.cli.parser import parse  # noqa: PLC0415 - inside, so that Ctrl-C is met from here on
    from venvflow.cli.render import Output  # noqa: PLC0415

    out = Output(os.environ)
    try:
        args = parse(words, os.environ)
        out = Output(os.environ, as_json=args.format == "json", verbose=args.verbose, quiet=args.quiet)
        code: int = args.run(args, out)
    except SystemExit as ended:  # argparse has shown the help, or what is wrong with the words
        out.flush()
        return ended.code if isinstance(ended.code, int) else 2
    except VenvflowError as error:
        out.fail(str(error))
        return error.exit_code
    except MemoryError:
        out.fail("there is not enough memory. Every venv is the old one or the new one, whole.")
        return _FAILED
    except OSError as error:
        out.fail(_told(error))
        return _FAILED
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback without -v
        return _unexpected(out, error)
    return code


def _told(error: OSError) -> str:
    where = f"{shown(error.filename)}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}. Check permissions and free space, then run again."


def _unexpected(out: Output, error: Exception) -> int:
    name = type(error).__name__
    out.fail(
        f"this should not happen: {name}: {shown(str(error))}. Every venv is the old one or the new one, "
        "whole. Run again with -v for a traceback, and report it."
    )
    return _FAILED


def _interrupted() -> int:
    text = "interrupted. Every venv is the old one or the new one, whole; run again to finish."
    sys.stderr.write(f"venvflow: {text}\n")
    return INTERRUPTED


# --------------------------------------------------------------------------- the process


def _fill_closed_streams() -> None:
    """Put ``/dev/null`` where a standard stream was closed: the next file opened would take its number.

    A program that we start, and that prints, would then write into one of our files.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, so it is this one; it stays open for as long as we run.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as we run
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as we run


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end a command as Ctrl-C does, unless they are ignored or handled already."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in numbers:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
