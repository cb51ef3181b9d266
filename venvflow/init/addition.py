"""Adds entries below ``venvs:`` to the text of a config, and leaves every other byte as it is."""

from __future__ import annotations

import re

_KEY = re.compile(r"""(?:venvs|"venvs"|'venvs')[ \t]*:\s""")
_NOTHING = re.compile(r"(?:[ \t]*\{[ \t]*\})?(?P<rest>\s*(?:#.*)?$)", re.DOTALL)


def with_entries(text: str, entries: list[list[str]]) -> str:
    """Return the config *text* with *entries*, each the lines of one, at the end of its venvs.

    They get the indentation and the line ends that the text has. An empty ``{}`` gives way to them, and where
    there are no venvs yet, they come last. Returns an empty text where the venvs are written in braces: only
    a person can add to these.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += newline
    start = next((number for number, line in enumerate(lines) if _KEY.match(line)), len(lines) + 1)
    if start > len(lines):
        lines += [newline, f"venvs:{newline}"]
    key, rest = re.split(r"(?<=:)", lines[start], maxsplit=1)
    if not (found := _NOTHING.match(rest)):
        return ""
    lines[start] = key + found["rest"]
    end = _end_of_block(lines, start)
    indents = [line[: -len(line.lstrip(" "))] for line in lines[start + 1 : end] if _is_content(line)]
    added = [f"{(indents or ['  '])[0]}{line}".rstrip(" ") + newline for each in entries for line in each]
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
