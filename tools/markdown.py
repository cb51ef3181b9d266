"""Reading Markdown: fenced blocks, sessions in a terminal, headings, links, generated sections. No effects.

What is recognised, and what a page therefore has to look like:

- a block that holds a whole file has the file's name, in backquotes and with a colon, at the end of the
  line above it, so that the reader sees it too;
- a ``console`` block is a session: lines that begin with ``$`` are typed, those that begin with ``>`` go on
  with a command, all others are what it prints. A line ``...`` stands for any lines, ``...`` inside of a
  line for any text. The commands of a ``console terminal`` block print to a terminal;
- what stands between ``<!-- generated: NAME -->`` and ``<!-- end -->`` is written by ``make docs``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[a-z]*)(?P<terminal> terminal)?\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_FILE = re.compile(r"`([^`]+)`:\s*\Z")
_GENERATED = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^()\s]+)\)")
_ASKS_FOR_CODE = "echo $?"
_CODE_SPAN = re.compile(r"`[^`\n]*`")


class Block(NamedTuple):
    """A fenced block: *language*, *text*, the *file* that it holds (or ""), and the *line* of its fence.

    *on_terminal*: what its commands print goes to a terminal.
    """

    language: str
    text: str
    file: str
    line: int
    on_terminal: bool = False


class Exchange(NamedTuple):
    """A *command* typed in a session, the lines that it is said to print, and the command's *line*.

    It *may fail* if the next command asks for its exit code. *on_terminal*: that is where it prints to.
    """

    command: str
    output: tuple[str, ...]
    line: int
    may_fail: bool = False
    on_terminal: bool = False


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of *page* in their order."""
    for found in _FENCE.finditer(page):
        named = _FILE.search(page[: found.start()].rstrip("\n").rpartition("\n")[2])
        indent = len(found["indent"])
        text = "".join(line[min(indent, len(line) - 1) :] for line in found["text"].splitlines(keepends=True))
        line = page.count("\n", 0, found.start()) + 1
        yield Block(found["language"], text, named[1] if named else "", line, bool(found["terminal"]))


def exchanges(block: Block) -> list[Exchange]:
    """Return what is typed in a ``console`` block, each with what is printed after it."""
    found: list[Exchange] = []
    for number, line in enumerate(block.text.splitlines(), start=block.line + 1):
        if line.startswith("$ "):
            if found and line[2:] == _ASKS_FOR_CODE:
                found[-1] = found[-1]._replace(may_fail=True)
            found.append(Exchange(line[2:], (), number, on_terminal=block.on_terminal))
        elif not found:
            raise ValueError(f"line {number}: a session begins with a command, behind a $")
        elif line.startswith("> ") and not found[-1].output:
            found[-1] = found[-1]._replace(command=f"{found[-1].command}\n{line[2:]}")
        else:
            found[-1] = found[-1]._replace(output=(*found[-1].output, line))
    return found


def as_session(parts: list[Exchange]) -> str:
    """Return the text of a ``console`` block: the inverse of :func:`exchanges`."""
    lines = []
    for part in parts:
        first, *more = part.command.splitlines()
        lines += [f"$ {first}", *(f"> {line}" for line in more), *part.output]
    return "".join(f"{line}\n" for line in lines)


# --------------------------------------------------------------------------- generated sections


def generated_sections(page: str) -> list[str]:
    """Return the names of the sections of *page* that are written by the generator."""
    return [found["name"] for found in _GENERATED.finditer(page)]


def with_sections(page: str, sections: Mapping[str, str]) -> str:
    """Return *page* with its generated sections filled in. Raises KeyError for one that nobody makes."""
    return _GENERATED.sub(
        lambda found: f"{found['begin']}\n{sections[found['name']].strip()}\n\n{found['end']}", page
    )


# --------------------------------------------------------------------------- headings and links


def prose(page: str) -> str:
    """Return *page* without fenced blocks, its lines in their places."""
    return _FENCE.sub(lambda found: "\n" * found[0].count("\n"), page)


def anchors(page: str) -> set[str]:
    """Return the anchors of the headings, as code forges make them."""
    found: list[str] = []
    for heading in _HEADING.findall(prose(page)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        times = sum(1 for other in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other))
        found.append(f"{slug}-{times}" if times else slug)
    return set(found)


def links(page: str) -> list[str]:
    """Return the targets of all links of *page*, but for those in code."""
    return _LINK.findall(_CODE_SPAN.sub("", prose(page)))
