"""The report: all that is wrong with a config, so that one reading tells everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from venvflow.config.nodes import LONGEST_WORD
from venvflow.config.paths import Places
from venvflow.errors import shown

_MOST_SUGGESTIONS = 100

WRONG: Final = object()
"""What a check returns when it has reported a problem."""


@dataclass(slots=True)
class Report:
    """Collects the problems of *file*; *places* knows how its paths are read."""

    file: str
    places: Places
    problems: list[tuple[int, str]] = field(default_factory=list)

    def wrong(self, line: int, at: str, text: str) -> object:
        """Note that what stands at key path *at* is wrong, and return :data:`WRONG`."""
        self.problems.append((line, f"{at}: {text}" if at else text))
        return WRONG

    def lines(self) -> list[str]:
        """Return all problems as ``file:line: text``, in the order of the file."""
        name = shown(self.file)
        return [f"{name}:{line}: {text}" for line, text in sorted(self.problems, key=lambda item: item[0])]

    def nearest(self, word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
        """Return help on which of the *known* words may have been meant by *word*."""
        # Comparing is slow: a hostile file of many or very long wrong words must not take minutes.
        if len(self.problems) < _MOST_SUGGESTIONS and len(word) <= LONGEST_WORD:
            import difflib  # noqa: PLC0415 - 4 ms that only a mistake costs

            if near := difflib.get_close_matches(word, known, 1):
                return f"did you mean {near[0]!r}?"
        return "known are: " + ", ".join(known)
