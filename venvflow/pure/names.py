"""Names: those with fields to fill in, those of Pythons and distributions, and the nearest to a mistyped one.

The fields, as in ``{venv}-{version:fastapi}-{key}``, are ``{venv}`` (its name), ``{key}`` (the first twelve
digits), ``{python}`` (its full version) and ``{version:NAME}`` (that of the distribution NAME in the venv).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from venvflow.errors import shown

KNOWN = "{venv}, {key}, {python}, and {version:NAME} of what is installed"
"""All fields, in words."""

PYTHON_VERSION = re.compile(
    r"(?:(?P<implementation>cpython|pypy|python)[-@]?)?"
    r"(?P<number>3(?:\.[0-9]+(?:\.[0-9]+(?:(?:a|b|rc)[0-9]+)?)?)?)(?P<threads>t)?"
)
"""A version of Python: ``3.12``, ``3.14.0rc1``, ``3.13t``, ``pypy3.11``."""

_FIELD = re.compile(r"\{([^{}]*)\}")
_VERSION = re.compile(r"version:[A-Za-z0-9][A-Za-z0-9._-]*")


def wrong_field(name: str) -> str:
    """Return what in *name* can never be filled in, a field or a lone brace, or an empty string."""
    for field in _FIELD.finditer(name):
        if field[1] not in ("venv", "key", "python") and not _VERSION.fullmatch(field[1]):
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


def is_version(text: str) -> bool:
    """Return whether *text* is a version of Python."""
    return PYTHON_VERSION.fullmatch(text) is not None


def normalised(name: str) -> str:
    """Return the name of a distribution in its normal form, by which names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


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
