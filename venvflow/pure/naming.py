"""Names with fields in braces, such as ``{venv}-{version:fastapi}-{key}``.

The fields are ``{venv}`` (its name), ``{key}`` (the first twelve digits), ``{python}`` (its full version) and
``{version:NAME}`` (that of the distribution NAME in the venv).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

KNOWN = "{venv}, {key}, {python}, and {version:NAME} of what is installed"
"""All fields, in words."""

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
        key = field[1]
        if key.startswith("version:"):
            key = re.sub(r"[-_.]+", "-", key).lower()
        if key not in values:
            raise KeyError(field[0])
        return values[key].replace("/", "_")

    return _FIELD.sub(value, name)
