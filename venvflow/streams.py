"""Writes text for people to the standard streams: escapes what a terminal would obey, survives closed ones.

Names of files, packages and branches, output of builders, and records of a store that others write to may
contain anything. So all text passes :func:`printable` before it reaches a terminal.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from venvflow.errors import EnvironmentFailure, legible

_INK = chr(0xF0000 + int.from_bytes(os.urandom(2), "big") % 0xFFFE)
"""Replaces ESC in our own colours; random in every process, so that no name can contain it on purpose."""


def put(stream: TextIO, text: str) -> None:
    """Write *text* to *stream*, fit to be seen, and send it on.

    :raises OSError: it cannot be written to, or nobody reads it any more.
    """
    stream.write(printable(text))
    stream.flush()


unwritten: list[OSError] = []
"""Why something could not be written, but for readers that went away."""


def put_or_drop(stream: TextIO, text: str) -> None:
    """Write *text* to *stream*; one that cannot be written to does not stop the work.

    A reader went away (``| head``), or the disk is full: what is still to be written goes nowhere then.
    """
    try:
        put(stream, text)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            unwritten.append(error)
        drop(stream)


def lost_answer(error: OSError) -> EnvironmentFailure:
    """Return what to say when standard output could not be written to, so that nobody takes it for all."""
    return EnvironmentFailure(
        f"cannot write the answer: {error.strerror}",
        where="standard output",
        state="What the command did is done.",
        hint="Free space, or send the answer somewhere else.",
    )


def drop(stream: TextIO) -> None:
    """Send what is still to be written to *stream* nowhere, or Python would fail on it when it ends."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def is_terminal(stream: TextIO) -> bool:
    """Return whether somebody may be looking at *stream*."""
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False


def show_everything(stream: TextIO) -> None:
    """Let *stream* give the number of a character that it cannot show, instead of an error."""
    with suppress(AttributeError, ValueError):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]  # real ones have it


def printable(text: str, *, prose: bool = True) -> str:
    """Return *text* without credentials, and with escapes for all but its lines that a terminal would obey.

    What is not *prose*, such as a shell script or a table, loses the credentials in its URLs only.
    """
    if "://" in text or (prose and (":" in text or "=" in text)):
        from venvflow.pure.redaction import redact, redact_urls  # noqa: PLC0415 - few texts need it

        text = redact(text) if prose else redact_urls(text)
    return "\x1b".join(map(legible, text.split(_INK)))


def painted(text: str, colour: int) -> str:
    """Return *text* in a colour, by its number in SGR, for :func:`put` or :func:`printable`."""
    return f"{_INK}[{colour}m{text}{_INK}[0m"


def take_names_for_utf_8(directory: str = "") -> None:
    """Start this program anew, where Python does not take the names of files for UTF-8, as one that does.

    Configs, lock files and trees have them in UTF-8; in an older locale, each of them would be another name.
    *directory* is the one that the program was started in, if it has left that. To be called first of all:
    what was done before is done again.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.implementation.name != "cpython" or not sys.executable:
        return  # others may not know the option, and would begin again and again
    if hasattr(sys, "frozen") or sys.orig_argv[1:3] == ["-X", "utf8"]:
        return  # so may what has a Python in it
    with suppress(OSError):
        if directory:
            os.chdir(directory)
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - it is us


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
