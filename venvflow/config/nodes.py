"""Nodes: the values of a config as they are written, each with its line.

They stand between YAML, which alone makes them (:mod:`venvflow.config.documents`), and the checks, which
turn them into values and need to know no YAML.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from venvflow.errors import shown

Kind = Literal["text", "number", "truth", "nothing", "date", "list", "mapping"]

LONGEST_WORD = 60
"""How many characters of a text a message shows."""

_NOUNS: dict[Kind, str] = {
    "text": "the text",
    "number": "the number",
    "truth": "the truth value",
    "nothing": "nothing",
    "date": "the date",
    "list": "a list",
    "mapping": "a mapping",
}


@dataclass(slots=True)
class Node:
    """One value of a document, as it is written.

    *kind* is what YAML takes it for, *text* the source text of a scalar, *line* counts from 1 (for a list
    or mapping under a key, the key's line). *items* are those of a list; *pairs* those of a mapping: the
    line of the key, and the value. *weight* counts the node and all below it, aliases followed; zero while
    it is still being read.
    """

    kind: Kind
    line: int
    text: str = ""
    items: list[Node] = field(default_factory=list)
    pairs: dict[str, tuple[int, Node]] = field(default_factory=dict)
    weight: int = 0

    @property
    def noun(self) -> str:
        """Return what this is, with its article: ``a number``."""
        return _NOUNS[self.kind].replace("the ", "a ", 1)

    def __str__(self) -> str:
        if self.kind in {"list", "mapping"} or not self.text:
            return "empty text" if self.kind == "text" else _NOUNS[self.kind]
        return f"{_NOUNS[self.kind]} {clipped(self.text)}"


def clipped(text: str) -> str:
    """Return *text* as one printable line of bounded length."""
    line = shown(text)
    return line if len(line) <= LONGEST_WORD else line[:LONGEST_WORD] + "…"
