"""The vocabulary of a config: every key that it may hold, with the check of its value.

``venvflow.schema.json`` says the same to editors, and a test compares the two.
"""

from __future__ import annotations

import re
from typing import Any

from venvflow.config.checks import (
    Check,
    Named,
    Table,
    choice,
    duration,
    flag,
    leaf,
    listing,
    nullable,
    read_name,
    read_number,
    size,
    whole,
    word,
)
from venvflow.config.nodes import Node, clipped
from venvflow.config.paths import VARIABLE_NAME, Places
from venvflow.config.report import WRONG, Report
from venvflow.pure.naming import KNOWN, wrong_field
from venvflow.pure.patterns import problems

_VERSION = re.compile(r"((cpython|pypy|python)[-@]?)?3(\.[0-9]+(\.[0-9]+((a|b|rc)[0-9]+)?)?)?t?")
_VENV_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,99}")

LEVELS = {
    "tar": (0, 0),
    "tar.bz2": (1, 9),
    "tar.gz": (1, 9),
    "tar.xz": (0, 9),
    "tar.zst": (1, 19),
    "zip": (1, 9),
}
"""Formats of archives, each with its smallest and largest level of compression."""


def _format_version(node: Node, _places: Places) -> int:
    if (number := read_number(node)) != 1:
        raise ValueError(f"this venvflow reads version 1 of the config, found {number}")
    return number


def _path(node: Node, places: Places) -> str:
    return places.absolute(read_name(node))


def _store_path(node: Node, places: Places) -> str:
    # What VENVFLOW_STORE overrides may well name variables that only exist elsewhere.
    return read_name(node) if places.environ.get("VENVFLOW_STORE") else _path(node, places)


def _files(node: Node, places: Places) -> tuple[str, ...]:
    return places.files(read_name(node))


def is_version(text: str) -> bool:
    """Return whether *text* names a Python by version: ``3.12``, ``3.14.0rc1``, ``3.13t``, ``pypy3.11``."""
    return bool(_VERSION.fullmatch(text))


def _python(node: Node, places: Places) -> str:
    text = read_name(node)
    if is_version(text):
        return text
    if "/" in text or text.startswith(("~", "${")):
        return places.absolute(text)
    raise ValueError(f"expected a version such as 3.12, or a path with a slash, found {node}")


def _variable_name(node: Node, _places: Places) -> str:
    if not VARIABLE_NAME.fullmatch(text := read_name(node)):
        raise ValueError(f"expected the name of an environment variable, found {node}")
    return text


def _pattern(node: Node, _places: Places) -> str:
    if found := problems([text := read_name(node)]):
        raise ValueError(found[0])
    return text


def _archive_name(node: Node, _places: Places) -> str:
    text = _with_fields(node)
    if "/" in text or text.startswith("."):
        raise ValueError(
            f"expected the name of a file, no dot at its start, found {node}; output: is for its directory"
        )
    if ending := next((each for each in LEVELS if text.endswith(f".{each}")), ""):
        raise ValueError(f"{clipped(text)!r} must not end in .{ending}: format: adds that")
    return text


def _arcroot(node: Node, _places: Places) -> str:
    text = _with_fields(node)
    if any(part in ("", ".", "..") for part in text.split("/")):
        raise ValueError(f"expected the name of a directory in the archive, found {node}")
    return text


def _with_fields(node: Node) -> str:
    if found := wrong_field(text := read_name(node)):
        raise ValueError(f"{clipped(found)!r} cannot be filled in; known are {KNOWN}")
    return text


def _build(node: Node, at: str, report: Report) -> Any:
    return (_COMMANDS if node.kind == "list" else _BUILDERS)(node, at, report)


def _command(node: Node, at: str, report: Report) -> Any:
    words = listing(word, empty=False)(node, at, report)
    if words is not WRONG and not words[0]:
        return report.wrong(node.line, at, "the first word of a command must name a program")
    return words


def _allowed_name(text: str, others: list[str]) -> None:
    """Judge the name of a venv: it becomes a task's name and a directory's."""
    if not _VENV_NAME.fullmatch(text):
        raise ValueError(
            f"{clipped(text)!r} cannot be the name of a venv: at most 100 letters, digits, dots, dashes, "
            "underscores and plus signs, the first of them no dot or dash"
        )
    if text.lower().startswith("state.db"):
        raise ValueError(f"{text!r} cannot be the name of a venv: the tasks keep their own state under it")
    if twin := next((other for other in others if other.lower() == text.lower()), ""):
        raise ValueError(f"{text!r} and {twin!r} differ only in case: some disks cannot tell them apart")


_LINKS = listing(choice("reflink", "hardlink", "copy", "symlink"), empty=False, unique=True)
_PATTERNS = listing(leaf(_pattern))
_BUILDERS = choice("auto", "uv", "pip", "poetry", "pdm", "pipenv")
_COMMANDS = listing(_command, empty=False)
_MANY = 1_000_000

_COMMON: dict[str, Check] = {
    "python": leaf(_python),
    "build": _build,
    "key": Table({"files": listing(leaf(_files)), "env": listing(leaf(_variable_name), unique=True)}),
    "bytecode": choice("canonical", "keep", "none"),
    "exclude": _PATTERNS,
    "restore": flag,
    "squish": Table({"link": _LINKS, "min_size": size(zero=True)}),
    "pack": nullable(
        Table(
            {
                "format": choice(*LEVELS),
                "level": whole(0, 19),
                "output": leaf(_path),
                "name": leaf(_archive_name),
                "arcroot": leaf(_arcroot),
                "threads": whole(1, 64),
            }
        )
    ),
    "check": listing(word),
}

_ONLY_IN_VENVS = {
    "path": "each venv has a path of its own",
    "locks": "each venv has lock files of its own",
    "pin": "pinning all venvs would switch trim off: pin single ones",
}

TOP = Table(
    {
        "version": leaf(_format_version),
        "store": Table(
            {
                "path": leaf(_store_path),
                "link": _LINKS,
                "min_size": size(zero=True),
                "verify": choice("changed", "full"),
                "adopt": flag,
                "durability": choice("full", "none"),
            }
        ),
        "trim": Table(
            {
                "keep": nullable(whole(1, _MANY)),
                "keep_per_venv": whole(0, _MANY),
                "max_age": nullable(duration()),
                "max_size": nullable(size()),
                "min_free": nullable(size(zero=True)),
            }
        ),
        "exclude": _PATTERNS,
        "defaults": Table(_COMMON, elsewhere=_ONLY_IN_VENVS),
        "venvs": Named(
            _allowed_name,
            Table(
                {
                    "path": leaf(_path),
                    "locks": listing(leaf(_files), empty=False),
                    **_COMMON,
                    "pin": flag,
                },
                required=("path", "locks"),
            ),
        ),
    },
    required=("venvs",),
)
"""The whole config: every key with the check of its value."""
