"""Checks: what turns nodes into values, or reports what is wrong with them.

A check takes a node, its key path for messages and the report; it returns the value, or reports a problem
and returns ``WRONG``. Small ones are put together: ``Table({"keep": nullable(whole(1, 10)), ...})``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from venvflow.config.nodes import Node, clipped
from venvflow.config.paths import Places
from venvflow.config.report import WRONG, Report
from venvflow.pure.units import parse_duration, parse_size

Check: TypeAlias = Callable[[Node, str, Report], Any]
"""Takes a node, its key path for messages, and the report; returns the value or :data:`WRONG`."""

_PLAIN_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,18})")

# --------------------------------------------------------------------------- single values


def leaf(read: Callable[[Node, Places], Any]) -> Check:
    """Make a check of a function that reads one node and says what is wrong by ``ValueError``."""

    def check(node: Node, at: str, report: Report) -> Any:
        try:
            return read(node, report.places)
        except ValueError as error:
            return report.wrong(node.line, at, str(error))

    return check


def read_text(node: Node) -> str:
    """Return the text of *node*, which may be empty.

    What YAML takes for something else is refused: ``3.10`` would be the number 3.1, ``no`` false.
    """
    if node.kind in {"list", "mapping", "nothing"}:
        raise ValueError(f"expected text, found {node}")
    if node.kind != "text":
        raise ValueError(
            f'YAML reads {clipped(node.text)} as {node.noun}: write it in quotes, "{clipped(node.text)}"'
        )
    if "\0" in node.text:
        raise ValueError("text cannot hold a NUL character")
    return node.text


def read_name(node: Node) -> str:
    """Return the text of *node*, which must not be empty."""
    if not (text := read_text(node)):
        raise ValueError("expected text, found empty text")
    return text


def _flag(node: Node, _places: Places) -> bool:
    # "yes" and "on" are truth values to some readers of YAML and text to others (editors among them).
    if node.kind != "truth" or node.text.lower() not in {"true", "false"}:
        raise ValueError(f"expected true or false, found {node}")
    return node.text.lower() == "true"


def read_number(node: Node) -> int:
    """Return the whole number that *node* is, written in plain digits."""
    if node.kind == "text" and _PLAIN_NUMBER.fullmatch(node.text):
        raise ValueError(f"expected a whole number, found the text {node.text}: leave out the quotes")
    if node.kind != "number" or not _PLAIN_NUMBER.fullmatch(node.text):
        raise ValueError(f"expected a whole number in plain digits, found {node}")
    return int(node.text)


word = leaf(lambda node, _places: read_text(node))
"""Check for text that may be empty."""

flag = leaf(_flag)
"""Check for ``true`` or ``false``."""


def whole(least: int, most: int) -> Check:
    """Check for a whole number from *least* to *most*."""

    def read(node: Node, _places: Places) -> int:
        number = read_number(node)
        if not least <= number <= most:
            raise ValueError(f"expected a whole number from {least} to {most}, found {number}")
        return number

    return leaf(read)


def _quantity(node: Node) -> str | int:
    # 010 and 1:30 are 8 and 90 to YAML: as quantities only plain digits are clear.
    if node.kind == "number" and "." not in node.text:
        return read_number(node)
    if node.kind in {"text", "number"}:
        return clipped(node.text)
    raise ValueError(f"expected a quantity, found {node}")


def size(*, zero: bool = False) -> Check:
    """Check for a size such as ``20GiB``; the value is in bytes."""
    return leaf(lambda node, _places: parse_size(_quantity(node), zero=zero))


def duration() -> Check:
    """Check for a duration such as ``14d``; the value is in seconds."""
    return leaf(lambda node, _places: parse_duration(_quantity(node)))


def choice(*words: str) -> Check:
    """Check for one of *words*."""

    def check(node: Node, at: str, report: Report) -> Any:
        if node.kind == "text" and node.text in words:
            return node.text
        hint = report.nearest(node.text, words) if node.kind == "text" else "known are: " + ", ".join(words)
        return report.wrong(node.line, at, f"{node} is not possible here; {hint}")

    return check


def nullable(check: Check) -> Check:
    """Check that also accepts a written-out ``null`` (or ``~``), with the value ``None``."""

    def either(node: Node, at: str, report: Report) -> Any:
        return None if node.kind == "nothing" and node.text else check(node, at, report)

    return either


# --------------------------------------------------------------------------- lists and mappings


def listing(check: Check, *, empty: bool = True, unique: bool = False) -> Check:
    """Check for a list of what *check* accepts; the value is a tuple."""

    def each(node: Node, at: str, report: Report) -> Any:
        if node.kind != "list":
            return report.wrong(node.line, at, f"expected a list, such as [a, b], found {node}")
        if not (node.items or empty):
            return report.wrong(node.line, at, "the list must not be empty")
        values = [check(item, f"{at}[{index}]", report) for index, item in enumerate(node.items)]
        if unique and len(set(values)) < len(values):
            return report.wrong(node.line, at, "the list says something twice")
        return WRONG if WRONG in values else tuple(values)

    return each


@dataclass(frozen=True, slots=True)
class Table:
    """Check for a mapping with known keys; the value is a dict of the keys that are there and right.

    *fields* gives the check of each key, *required* the keys that must be there, *elsewhere* a text for
    keys that are known but do not belong here.
    """

    fields: Mapping[str, Check]
    required: tuple[str, ...] = ()
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, node: Node, at: str, report: Report) -> Any:
        """Check *node* and everything below it."""
        if node.kind != "mapping":
            return report.wrong(node.line, at, f"expected a mapping (key: value), found {node}")
        values = {}
        for key, (line, below) in node.pairs.items():
            value = self._value(key, line, below, at, report)
            if value is not WRONG:
                values[key] = value
        for key in self.required:
            if key not in node.pairs:
                report.wrong(node.line, at, f"the key {key!r} is missing")
        return values

    def _value(self, key: str, line: int, below: Node, at: str, report: Report) -> Any:
        check = self.fields.get(key)
        if check:
            return check(below, f"{at}.{key}" if at else key, report)
        hint = self.elsewhere.get(key) or report.nearest(key, self.fields)
        return report.wrong(line, at, f"unknown key {clipped(key)!r}; {hint}")


@dataclass(frozen=True, slots=True)
class Named:
    """Check for a mapping from names to what *check* accepts; *allow* judges each name by ``ValueError``."""

    allow: Callable[[str, list[str]], None]
    check: Check

    def __call__(self, node: Node, at: str, report: Report) -> Any:
        """Check the names and what belongs to them; the value is a dict."""
        if node.kind != "mapping":
            return report.wrong(node.line, at, f"expected a mapping of names, found {node}")
        values: dict[str, Any] = {}
        for key, (line, below) in node.pairs.items():
            try:
                self.allow(key, list(values))
            except ValueError as error:
                report.wrong(line, at, str(error))
            values[key] = self.check(below, f"{at}.{clipped(key)}", report)
        return values
