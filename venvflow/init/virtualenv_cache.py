"""Translates the config of virtualenv-cache (``.virtualenv_cache.toml``), which says what somebody wanted."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from venvflow.config import quoted
from venvflow.init.lockfiles import may_be_lock
from venvflow.init.project import Directory, text_at
from venvflow.pure.lockfiles import value_at
from venvflow.pure.names import kind_of

_FILE = ".virtualenv_cache.toml"
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


@dataclass(frozen=True, slots=True)
class Translation:
    """What the config says in our words: the venv's *path* and *locks*, all relative to the project root.

    *key_files* are files that decide about the venv and are not lock files, *settings* lines of our config.
    """

    path: str
    locks: tuple[str, ...]
    key_files: tuple[str, ...]
    settings: tuple[str, ...]
    notes: tuple[str, ...]


def translated(project: Directory, environ: Mapping[str, str]) -> Translation | None:
    """Return what the config of virtualenv-cache in *project* says, None if it has none that can be read."""
    table = value_at(project.document(_FILE), "virtualenv-cache")
    if not isinstance(table, dict):
        return None
    listed = value_at(table, "requirements_lock_paths")
    files = (
        [os.path.normpath(each) for each in listed if isinstance(each, str)]
        if isinstance(listed, list)
        else []
    )
    inside = [each for each in dict.fromkeys(files) if not each.startswith(("/", "..")) and "$" not in each]
    kind = next((kind_of(each) for each in inside if may_be_lock(each)), "")
    locks = tuple(each for each in inside if may_be_lock(each) and kind_of(each) == kind)
    path = os.path.normpath(text_at(table, "virtualenv_path") or ".venv")
    is_inside = not path.startswith(("/", "..")) and "$" not in path
    left = [each for each in (*files, path) if each not in inside and not (is_inside and each == path)]
    notes = [f"From {_FILE}."]
    if left:
        notes.append(f"Not taken over, since it lies elsewhere: {', '.join(map(project.shown, left))}.")
    return Translation(
        path if is_inside else ".venv",
        locks,
        tuple(each for each in inside if each not in locks),
        tuple(_settings(table, environ)),
        tuple(notes),
    )


def _settings(table: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Return the lines that say where the store is and how many snapshots it keeps."""
    settings = []
    if cache := text_at(table, "cache_path"):
        # Its own entries are no store, and a store begins in an empty directory.
        path = os.path.join(_VARIABLE.sub(lambda found: f"${{{found[1] or found[2]}}}", cache), "venvflow")
        known = all(environ.get(name) for name in re.findall(r"\$\{(\w+)\}", path))
        settings.append(f"{'' if known else '# '}store: {{path: {quoted(path)}}}  # cache_path in {_FILE}")
    size = value_at(table, "cache_size")
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        settings.append(f"trim: {{keep: {size}}}  # cache_size in {_FILE}")
    return settings
