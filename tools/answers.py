"""The generated tables of what commands answer with ``--json``, from the schemas of the product."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import venvflow
from tools.table import table
from venvflow.cli.parser import COMMANDS

_SCHEMAS = Path(venvflow.__file__).parent / "schemas"
_KINDS = {"array": "list", "object": "mapping", "string": "text", "boolean": "`true` · `false`"}


def link_of(command: str) -> str:
    """Return a line that leads from the page of commands to what *command* answers, or ""."""
    known = (_SCHEMAS / f"{command}.json").exists()
    return f"With `--json`: [these keys](json.md#venvflow-{command}---json).\n" if known else ""


def answers() -> str:
    """Return a section per command that answers with JSON, with a table of all keys, in the help's order."""
    return "\n".join(_section(name) for name in COMMANDS if (_SCHEMAS / f"{name}.json").exists())


def _section(command: str) -> str:
    schema = json.loads((_SCHEMAS / f"{command}.json").read_text(encoding="utf-8"))
    parts = [f"## venvflow {command} --json\n", f"{schema['description']}\n"]
    for form in schema.get("oneOf", [schema]):
        if form is not schema:
            parts.append(f"{form['description']}\n")
        parts.append(table(("key", "value", "meaning"), list(_rows(form, ""))))
    return "\n".join(parts)


def _rows(schema: Mapping[str, Any], above: str) -> Iterator[tuple[str, str, str]]:
    """Yield a row per key, those inside of it after it: ``venvs[].name`` is a key of each of a list."""
    for name, value in schema.get("properties", {}).items():
        path = f"{above}{name}"
        yield f"`{path}`", _kind(value), value.get("description", "")
        yield from _inside(value, path)


def _inside(value: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    yield from _rows(value, f"{path}.")
    if isinstance(items := value.get("items"), dict):
        yield from _inside(items, f"{path}[]")
    if isinstance(others := value.get("additionalProperties"), dict):
        yield from _inside(others, f"{path}.*")
    for form in value.get("oneOf", ()):
        yield from _inside(form, path)


def _kind(value: Mapping[str, Any]) -> str:
    if "enum" in value:
        return " · ".join(f"`{json.dumps(one)}`" for one in value["enum"])
    if "oneOf" in value:
        return " or ".join(dict.fromkeys(_kind(form) for form in value["oneOf"]))
    kinds = value.get("type", "any")
    names = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(_KINDS.get(name, f"`{name}`" if name == "null" else name) for name in names)
