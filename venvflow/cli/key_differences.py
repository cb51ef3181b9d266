"""Shows differences between two keys, as text and as JSON: their parts, and the packages of lock files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from venvflow.cli.render import Colour, Output, shortened
from venvflow.errors import shown
from venvflow.pure.comparison import Change, KeyComparison, ListChange, role_of

DIGITS = 12
"""Digits of a key, an id or a hash, as they are shown."""

SIGNS: Mapping[str, tuple[str, Colour]] = {
    "added": ("+", "green"),
    "removed": ("-", "red"),
    "changed": ("~", "yellow"),
}
"""How what was added, removed or changed is marked."""

_PACKAGES = 8
"""Packages of a lock file that are listed; with -v, and as JSON, all are."""

_FILES = ("lock", "include", "project", "local", "file", "first-lock")
"""Roles of parts that are hashes."""


def labels_of(parts: Mapping[str, str], paths: Mapping[str, str]) -> dict[str, str]:
    """Return how the parts of a key are called, files first; several files of one name by their paths."""
    names = sorted(parts, key=lambda name: (role_of(name) not in _FILES, role_of(name), len(name), name))
    several = {name.partition(":")[2] for name in names if "#" in name.partition(":")[0]}
    return {
        name: f"{role_of(name)} {shown(paths[name])}"
        if name in paths and name.partition(":")[2] in several
        else _name_of(name)
        for name in names
    }


def _name_of(part: str) -> str:
    """Return the name of a part as it is read: ``lock requirements.txt``."""
    return shown(part.replace(":", " ", 1))


def value_of(part: str, value: str) -> str:
    """Return the value of a part in short: digests by their first digits, commands as one types them."""
    role = part.partition(":")[0].partition("#")[0]
    if role in _FILES:
        return value[:DIGITS]
    if role in ("env", "credentials"):
        return value[: len("sha256:") + DIGITS]
    if role in ("commands", "exclude"):
        with suppress(ValueError, TypeError):  # an archive may say anything
            return _listed(role, value)
    return value


def _listed(role: str, value: str) -> str:
    if role == "commands":
        return "; ".join(" ".join(words) for words in json.loads(value))
    return ", ".join(json.loads(value)) or "none"


def fit_line(out: Output, line: str) -> str:
    """Return *line*, shortened to the width of the terminal unless *out* is verbose."""
    line = shown(line)
    return shortened(line, out.width()) if out.on_terminal and not out.verbose else line


def difference_lines(out: Output, compared: KeyComparison, files: Mapping[str, str]) -> Iterator[str]:
    """Yield the differing parts, each followed by what changed in its list of packages.

    *files* are what files are called, by their digest, where their names do not tell them apart.
    """
    lists = {name: change for change in compared.lists for name in (change.old, change.new)}
    done: list[ListChange] = []
    for part in compared.parts:
        yield _part_line(out, part, files.get(part.new or "") or _name_of(part.name))
        change = lists.get(part.name)
        if change is not None and change not in done:
            done.append(change)
            yield from _packages(out, change)


def _part_line(out: Output, change: Change[str], label: str) -> str:
    values = (None if value is None else value_of(change.name, value) for value in (change.old, change.new))
    return _signed(out, "  ", change.how, f"{label}  {_old_and_new(*values)}")


def _old_and_new(old: str | None, new: str | None) -> str:
    return " -> ".join(shown(value) for value in (old, new) if value is not None)


def _signed(out: Output, indent: str, how: str, text: str) -> str:
    sign, colour = SIGNS[how]
    line = fit_line(out, f"{indent}{sign} {text}")
    return f"{indent}{out.paint(sign, colour)}{line[len(indent) + 1 :]}"


def _packages(out: Output, change: ListChange) -> Iterator[str]:
    if change.basis == "nothing":
        yield "      its packages cannot be compared: a list is not known, or cannot be read"
        return
    if change.basis == "installed":
        yield "      compared with the packages that were installed, because no list was kept:"
    elif not change.changes:
        yield "      the same packages: only hashes, markers or options differ"
    listed = change.changes if out.verbose else change.changes[:_PACKAGES]
    for each in listed:
        yield _signed(out, "      ", each.how, f"{shown(each.name)} {_old_and_new(each.old, each.new)}")
    if len(listed) < len(change.changes):
        yield f"      and {len(change.changes) - len(listed):,} more (-v lists all)"


def record_of(compared: KeyComparison) -> dict[str, Any]:
    """Return a comparison as JSON has it: ``parts`` and ``lists``."""
    return {
        "parts": [asdict(each) for each in compared.parts],
        "lists": [
            {
                "old": each.old or None,
                "new": each.new or None,
                "basis": each.basis,
                "packages": [asdict(change) for change in each.changes],
            }
            for each in compared.lists
        ],
    }
