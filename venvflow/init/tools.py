"""Says what the tools of lock files make of a project: who shares a lock, and what a venv leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from venvflow.errors import shown, some
from venvflow.init.project import Directory, text_at, value_at

_MOST_NAMED = 8


def members_of(directory: Directory) -> list[str]:
    """Return the patterns of the members of the uv workspace that *directory* is the root of."""
    return _names(value_at(directory.document("pyproject.toml"), "tool", "uv", "workspace", "members"))


def left_out(directory: Directory, lock: str) -> Iterator[str]:
    """Yield sentences on what the venv of a tool's *lock* is made without."""
    kind = lock.rpartition("/")[2]
    project = directory.document("Pipfile" if kind == "Pipfile.lock" else "pyproject.toml")
    if members := members_of(directory) if kind == "uv.lock" else []:
        yield (
            f"Its workspace ({_listing(members)}) has one lock: uv installs the root, and of the members "
            "what that needs."
        )
    missing = [f"{what} {_listing(names)}" for what, names in _left_out(kind, project) if names]
    if missing:
        yield f"Left out: {'; '.join(missing)}."


def _left_out(kind: str, project: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    extras = _names(value_at(project, "project", "optional-dependencies"))
    groups = _names(value_at(project, "dependency-groups"))
    if kind == "uv.lock":
        yield "extras", extras
        usual = value_at(project, "tool", "uv", "default-groups")
        made = groups if usual == "all" else _names(usual) or ["dev"]
        included = _with_included(made, value_at(project, "dependency-groups"))
        yield "groups", [each for each in groups if each not in included]
    elif kind == "poetry.lock":
        yield "extras", sorted({*extras, *_names(value_at(project, "tool", "poetry", "extras"))})
        tables = value_at(project, "tool", "poetry", "group")
        yield "groups", [each for each in _names(tables) if value_at(tables, each, "optional") is True]
    elif kind == "pdm.lock":
        yield "extras", extras
    elif kind == "Pipfile.lock":
        yield "dev-packages", _names(value_at(project, "dev-packages"))


def _with_included(groups: list[str], tables: Any) -> set[str]:
    """Return *groups* with all that they include."""
    waiting, found = list(groups), set[str]()
    while waiting:
        group = waiting.pop()
        if group not in found:
            found.add(group)
            listed = value_at(tables, group)
            waiting += [text_at(each, "include-group") for each in listed] if isinstance(listed, list) else []
    return found


def _names(value: Any) -> list[str]:
    """Return the texts in a list, or the keys of a table."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, (list, dict)) else []


def _listing(names: list[str]) -> str:
    return some([shown(name) for name in names], _MOST_NAMED)
