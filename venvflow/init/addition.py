"""Adds entries below ``venvs:`` to the text of a config, and leaves every other byte as it is."""

from __future__ import annotations

import re

_KEY = re.compile(r"""(?:venvs|"venvs"|'venvs')[ \t]*:(?=\s|$)""")
_EMPTY = re.compile(r"([ \t]*)\{[ \t]*\}")


def with_entries(text: str, entries: list[list[str]]) -> str:
    """Return the config *text* with *entries*, each the lines of one, at the end of its venvs.

    They get the indentation and the line ends that the text has. An empty ``{}`` gives way to them. Returns
    an empty text where the venvs are written in braces, or are not found: only a person can add to these.
    """
    lines = text.splitlines(keepends=True)
    start, key = next(
        ((number, found) for number, line in enumerate(lines) if (found := _KEY.match(line))), (0, None)
    )
    if key is None:
        return ""
    rest = lines[start][key.end() :]
    if empty := _EMPTY.match(rest):
        lines[start] = key[0] + rest[empty.end() :]
    elif rest.strip() and not rest.lstrip().startswith("#"):
        return ""
    end = _end_of_block(lines, start)
    newline = "\r\n" if lines[start].endswith("\r\n") else "\n"
    indent = next((re.match(r" *", line)[0] for line in lines[start + 1 : end] if _is_content(line)), "  ")  # type: ignore[index]
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += newline
    added = [f"{indent}{line}{newline}" if line else newline for each in entries for line in each]
    return "".join([*lines[:end], *added, *lines[end:]])


def _end_of_block(lines: list[str], start: int) -> int:
    """Return the number of the line behind the last one of the block that begins below *start*."""
    end = start + 1
    for number in range(start + 1, len(lines)):
        line = lines[number]
        if line[:1] not in (" ", "\t", "\r", "\n", "#"):
            break
        # A comment at the margin, and what is blank, may belong to what comes next.
        if line.strip() and not line.startswith("#"):
            end = number + 1
    return end


def _is_content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")
