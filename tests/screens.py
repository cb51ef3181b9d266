"""What a person sees of what is written to a terminal."""

from __future__ import annotations

import re

_PART = re.compile(r"\x1b\[(?P<number>\d*)(?P<code>[AK])|\x1b\[\?25[hl]|(?P<text>[^\x1b])")


class Screen:
    """A terminal that knows what is needed to draw rows and to take them away again."""

    def __init__(self) -> None:
        self.states: list[list[str]] = []
        """The rows, without those that are empty at the end, after each piece that was written."""
        self._rows = [""]
        self._row = self._column = 0

    def write(self, text: str) -> Screen:
        """Take *text* as a terminal does; anything that it would not know is an error."""
        position = 0
        while position < len(text):
            part = _PART.match(text, position)
            assert part, ascii(text[position : position + 20])
            position = part.end()
            self._obey(part)
        rows = list(self._rows)
        while rows and not rows[-1]:
            rows.pop()
        if [rows] != self.states[-1:]:
            self.states.append(rows)
        return self

    @property
    def rows(self) -> list[str]:
        """What is there now."""
        return self.states[-1] if self.states else []

    def _obey(self, part: re.Match[str]) -> None:
        text = part["text"]
        if part["code"] == "A":
            self._row -= int(part["number"] or 1)
        elif part["code"] == "K":
            keep = 0 if part["number"] == "2" else self._column
            self._rows[self._row] = self._rows[self._row][:keep]
        elif text == "\r":
            self._column = 0
        elif text == "\n":
            self._row, self._column = self._row + 1, 0
            self._rows += [""] * (self._row >= len(self._rows))
        elif text is not None:
            line = self._rows[self._row].ljust(self._column)
            self._rows[self._row] = line[: self._column] + text + line[self._column + 1 :]
            self._column += 1


def states(text: str) -> list[list[str]]:
    """Return what a person sees, one after the other, while *text* is written."""
    screen = Screen()
    for piece in re.split(r"(?=\r\x1b)", text):
        screen.write(piece)
    return screen.states
