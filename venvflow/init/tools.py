"""Says what the tools of lock files make of a project: who shares a lock, and what a venv is made without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from venvflow.config import quoted
from venvflow.init.project import Directory, text_at
from venvflow.pure.lockfiles import references, value_at
from venvflow.pure.names import kind_of

_NO_CATEGORIES = ("dev-packages", "packages", "pipenv", "requires", "scripts", "source")
_MOST_NAMED = 8


def members_of(directory: Directory) -> list[str]:
    """Return the patterns of the members of the uv workspace that *directory* is the root of."""
    return _names(value_at(directory.document("pyproject.toml"), "tool", "uv", "workspace", "members"))


def options_of(directory: Directory, locks: Sequence[str]) -> Iterator[str]:
    """Yield further lines of the entry of a venv of *directory*, made from *locks*.

    What could be installed as well is in comments, ready to be uncommented. Members of a workspace that has
    no project at its root are all there is to install.
    """
    kind = kind_of(locks[0])
    project = directory.document("Pipfile" if kind == "pipenv" else "pyproject.toml")
    if kind == "uv" and members_of(directory):
        yield f"{'# ' * bool(value_at(project, 'project'))}packages: all"
    for key, names in _left_out(kind, project):
        if names:
            more = f", nor are {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            yield f"# {key}: [{', '.join(map(quoted, names[:_MOST_NAMED]))}]  # not installed{more}"
    if kind in {"requirements", "pylock"} and _is_left_out(directory, project, locks):
        yield f"# editable: [{quoted(directory.path or '.')}]  # not installed"


def _left_out(kind: str, project: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield the keys that would say what is to be installed besides, with all that they could name."""
    extras = _names(value_at(project, "project", "optional-dependencies"))
    if kind == "uv":
        tables = value_at(project, "dependency-groups")
        usual = value_at(project, "tool", "uv", "default-groups")
        made = _names(tables) if usual == "all" else _names(usual) or ["dev"]
        yield "groups", [each for each in _names(tables) if each not in _with_included(made, tables)]
        yield "extras", extras
    elif kind == "poetry":
        tables = value_at(project, "tool", "poetry", "group")
        yield "groups", [each for each in _names(tables) if value_at(tables, each, "optional") is True]
        yield "extras", sorted({*extras, *_names(value_at(project, "tool", "poetry", "extras"))})
    elif kind == "pdm":
        yield "extras", extras
    elif kind == "pipenv":
        yield "groups", [each for each in _names(project) if each not in _NO_CATEGORIES]


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


def _is_left_out(directory: Directory, project: dict[str, Any], locks: Sequence[str]) -> bool:
    """Return whether the project in *directory* can be installed, and no lock file names a local one."""
    can_be = directory.has("setup.py") or value_at(project, "build-system") is not None
    root = Directory(directory.root)
    return can_be and not any(references(lock, root.data(lock)).local for lock in locks)


def _names(value: Any) -> list[str]:
    """Return the texts in a list, or the keys of a table."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, (list, dict)) else []
