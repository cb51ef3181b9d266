"""Names: with fields to fill in, of Pythons, distributions and lock files, and the nearest to a mistyped one.

The fields, as in ``{venv}-{version:fastapi}-{key}``, are ``{venv}`` (its name), ``{key}`` (the first twelve
digits), ``{python}`` (its full version), ``{platform}`` (``linux-x86_64``) and ``{version:NAME}`` (that of
the distribution NAME in the venv).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping

from venvflow.errors import shown

KNOWN = "{venv}, {key}, {python}, {platform}, and {version:NAME} of what is installed"
"""All fields, in words."""

PYTHON_VERSION = re.compile(
    r"(?:(?P<implementation>cpython|pypy|python)[-@]?)?"
    r"(?P<number>3(?:\.[0-9]+(?:\.[0-9]+(?:(?:a|b|rc)[0-9]+)?)?)?)(?P<threads>t)?"
)
"""A version of Python: ``3.12``, ``3.14.0rc1``, ``3.13t``, ``pypy3.11``."""

_FIELD = re.compile(r"\{([^{}]*)\}")
_VERSION = re.compile(r"version:[A-Za-z0-9][A-Za-z0-9._-]*")


def wrong_field(name: str, more: Collection[str] = ()) -> str:
    """Return what in *name* can never be filled in, a field or a lone brace, or an empty string.

    *more* are fields that only this name may have.
    """
    for field in _FIELD.finditer(name):
        known = ("venv", "key", "python", "platform", *more)
        if field[1] not in known and not _VERSION.fullmatch(field[1]):
            return field[0]
    lone = re.search(r"[{}]", _FIELD.sub("", name))
    return lone[0] if lone else ""


def fill(name: str, values: Mapping[str, str]) -> str:
    """Return *name* with its fields filled in; slashes in values become underscores.

    Names of distributions are compared in their normal form. Raises KeyError, with the field in braces, for
    one that *values* do not have.
    """

    def value(field: re.Match[str]) -> str:
        key = normalised(field[1]) if field[1].startswith("version:") else field[1]
        if key not in values:
            raise KeyError(field[0])
        return values[key].replace("/", "_")

    return _FIELD.sub(value, name)


USUAL = (".venv", "venv", "env", ".env")
"""What the directory of a project's venv is usually called."""


def venv_name(path: str) -> str:
    """Return what the venv at the absolute *path* is called: as its directory, or that of its project."""
    above, name = os.path.split(path)
    return (os.path.basename(above) if name in USUAL else "") or name


def platform_field(platform: str) -> str:
    """Return what ``{platform}`` is for that of an interpreter; musl is named, the usual libc is not."""
    system, _, rest = platform.partition(" ")
    machine, *libc = rest.split(" ")
    return "-".join(filter(None, (system, machine, *(word for word in libc if word == "musl"))))


PART_FIELDS = ("{layer}", "{digest}")
"""Fields of the names of archives that are a venv together: which layer it is, and what is in it."""


def part_name(name: str) -> str:
    """Return the name of a part in a set called *name*: with the fields that tell parts apart.

    ``{digest}`` does so alone; what is missing is appended.
    """
    if PART_FIELDS[1] in name:
        return name
    return "-".join([name, *(field for field in PART_FIELDS if field not in name)])


def set_name(name: str) -> str:
    """Return the name of the set of parts that are called *name*: without what tells them apart."""
    return re.sub(r"[-_.]?\{(?:layer|digest)\}", "", name).lstrip("-_.") or "{venv}"


def is_version(text: str) -> bool:
    """Return whether *text* is a version of Python."""
    return PYTHON_VERSION.fullmatch(text) is not None


def normalised(name: str) -> str:
    """Return the name of a distribution in its normal form, by which names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


_KINDS = {
    "uv.lock": "uv",
    "poetry.lock": "poetry",
    "Pipfile.lock": "pipenv",
    "Pipfile": "other",
    "": "other",
}
_NO_REQUIREMENTS = (".yml", ".yaml", ".json", ".toml", ".xml", ".py", ".cfg")
"""Endings that no requirements file has."""


def kind_of(name: str) -> str:
    """Return the kind of a lock file by its name (a path will do).

    One of requirements, pylock, uv, poetry, pdm, pipenv, other. Requirements files have all sorts of names:
    what is not known to be something else is one.
    """
    base = name.rpartition("/")[2]
    if re.fullmatch(r"pylock(\.[^.]+)?\.toml", base):
        return "pylock"
    if re.fullmatch(r"pdm(\.[^.]+)?\.lock", base):
        return "pdm"
    return _KINDS.get(base, "other" if base.lower().endswith(_NO_REQUIREMENTS) else "requirements")


def nearest(word: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return those of the *known* names that *word* may have been meant for, the nearest first."""
    from difflib import get_close_matches  # noqa: PLC0415 - 4 ms that only a mistake costs

    return get_close_matches(word, list(known), most)


def did_you_mean(word: str, known: Iterable[str], shown_if_far: Iterable[str] | None = None) -> str:
    """Return a sentence that helps somebody who wrote *word* instead of one of the *known* names.

    It has a name that begins so, or else the nearest; where none is near, *shown_if_far* (all that are known)
    is listed.
    """
    known = list(dict.fromkeys(known))
    longer = [each for each in known if len(word) > 2 and each.startswith(word)]
    if near := longer or nearest(word, known):
        return f"Did you mean {shown(near[0])}?"
    listed = sorted(known if shown_if_far is None else shown_if_far)
    return f"There are: {', '.join(map(shown, listed))}." if listed else "There are none yet."
