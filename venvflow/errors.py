"""The errors that venvflow raises on purpose, each with its exit code.

Tree::

    VenvflowError
      UsageError            2   wrong words on the command line
        ConfigError         2   the config file; carries all problems at once
      EnvironmentFailure    3   space, permission, I/O, network, a missing interpreter
        StoreFormatError    3   the store was written by another format
      BuildFailed           4   the builder ended with an error
      LockTimeout           5   somebody else holds a lock for too long
      Refused               6   acting would not be safe
      CommandNotRun       126   as shells have it
      CommandNotFound     127   as shells have it

A miss is a value, not an error: see :class:`venvflow.model.Outcome`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar


def shown(path: str | bytes | os.PathLike[str]) -> str:
    """Return *path*, or any other text from outside, as one line that shows all that is in it.

    What a terminal would obey, what turns the direction of writing, and what cannot be seen stands there as
    an escape: control characters, line ends, marks of direction, invisible ones, accents in a heap.
    """
    text = os.fsdecode(path)
    return text if text.isascii() and text.isprintable() else _escaped(text, "")


LONGEST_WORD = 60
"""How many characters of a word that somebody wrote a message shows."""


def clipped(text: str) -> str:
    """Return *text* as :func:`shown` does, cut if it is longer than anybody reads."""
    line = shown(text)
    return line if len(line) <= LONGEST_WORD else line[:LONGEST_WORD] + "…"


def some(texts: Sequence[str], most: int, between: str = ", ") -> str:
    """Return the first *most* of *texts* as a sentence lists them, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return between.join(texts[:most]) + more


def first_of(paths: Sequence[str]) -> str:
    """Return the first of *paths* as the subject of a sentence, and how many more it is true of."""
    return shown(paths[0]) + (f", like {len(paths) - 1} more," if len(paths) > 1 else "")


def legible(text: str) -> str:
    """Return *text* as :func:`shown` does, but with its lines and tabs."""
    return text if text.isascii() and _LAYOUT.sub("", text).isprintable() else _escaped(text, "\n\t")


_LAYOUT = re.compile(r"[\n\t]")
_HEAP = 5
"""Accents that one character may have; more of them reach into other lines."""

_INVISIBLE = frozenset(
    chr(code)
    for first, last in (
        *((0x34F, 0x34F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800)),
        *((0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF)),
    )
    for code in range(first, last + 1)
)
"""What Python takes for printable and nobody can see: fillers, joiners, selectors of variants."""


def _escaped(text: str, layout: str) -> str:
    from unicodedata import category  # noqa: PLC0415 - most text is ASCII

    with suppress(UnicodeEncodeError):  # else it has halves of characters, which are escaped below
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    told: list[str] = []
    heap = _HEAP  # at the beginning there is nothing that an accent could belong to
    for char in text:
        heap = heap + 1 if category(char).startswith("M") else 0
        is_clear = char.isprintable() and char not in _INVISIBLE and heap <= _HEAP
        told.append(char if is_clear or char in layout else char.encode("unicode_escape").decode("ascii"))
    return "".join(told)


class VenvflowError(Exception):
    """Base of all expected failures: one message in four parts.

    *what* failed, *where* (a venv, a path), what *state* things are in, and *hint*: what to do next.
    Empty parts are left out of the text. *lines* are what there is to say in lines of its own, below what
    failed. A line end in any part is shown as an escape: no name can add a line.
    """

    exit_code: ClassVar[int] = 3
    usual_state: ClassVar[str] = ""

    def __init__(
        self, what: str, *, where: str = "", state: str = "", hint: str = "", lines: Sequence[str] = ()
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.state = state or self.usual_state
        self.hint = hint
        self.lines = tuple(lines)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        first, *rest = [_sentence(shown(part.rstrip())) for part in (head, self.state, self.hint) if part]
        if not self.lines:
            return " ".join([first, *rest])
        return "\n".join([first, *map(shown, self.lines), *([" ".join(rest)] if rest else [])])


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", ":")) else text + "."


class UsageError(VenvflowError):
    """The command line asks for something that does not exist; this is seen before anything is changed."""

    exit_code = 2
    usual_state = "Nothing was changed."


class ConfigError(UsageError):
    """The config file is wrong; *problems* lists every one of them as ``file:line: text``."""

    def __init__(self, problems: list[str]) -> None:
        count = len(problems)
        super().__init__(
            f"{count} problem{'s' if count > 1 else ''} in the config:",
            hint=f"Fix {'them' if count > 1 else 'it'}, then run again.",
            lines=problems,
        )
        self.problems = problems


class EnvironmentFailure(VenvflowError):
    """Space, permission, I/O, the network, or a program that is not there."""

    exit_code = 3


class StoreFormatError(EnvironmentFailure):
    """The store was written by a venvflow with another on-disk format."""


class BuildFailed(VenvflowError):
    """The builder ended with an error; *log* is the path of its whole output, *tail* the end of that."""

    exit_code = 4

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        state: str = "",
        hint: str = "",
        lines: Sequence[str] = (),
        log: str = "",
        tail: str = "",
    ) -> None:
        super().__init__(what, where=where, state=state, hint=hint, lines=lines)
        self.log = log
        self.tail = tail

    def __str__(self) -> str:
        text = super().__str__()
        if self.tail:
            text += "\n" + "\n".join("  | " + legible(line) for line in self.tail.splitlines())
        return f"{text}\n  whole log: {shown(self.log)}" if self.log else text


class LockTimeout(VenvflowError):
    """Another process holds a lock for longer than we may wait."""

    exit_code = 5


class CommandNotRun(VenvflowError):
    """The command of `venvflow run` was found and could not be started."""

    exit_code = 126


class CommandNotFound(VenvflowError):
    """The command of `venvflow run` was not found."""

    exit_code = 127


class Refused(VenvflowError):
    """venvflow could do this, but something that is not its own might be lost."""

    exit_code = 6
