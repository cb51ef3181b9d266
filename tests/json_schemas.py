"""The schemas of what commands answer with ``--json``, for the tests that hold answers against them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import venvflow
from venvflow.cli.parser import COMMANDS

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

SCHEMAS = Path(venvflow.__file__).parent / "schemas"
WITHOUT = frozenset({"schema", "completion", "hook", "run"})
"""Commands whose answer is a text of its own, or a command's, also with ``--json``."""


@lru_cache
def schema_of(command: str) -> dict[str, Any]:
    """Return the schema of what *command* answers."""
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{command}.json").read_text(encoding="utf-8"))
    return schema


@lru_cache
def _validator(command: str) -> Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema_of(command))


def checked(command: str, document: Any) -> None:
    """Assert that *document* is what the schema of *command* says."""
    problems = [f"{error.json_path}: {error.message}" for error in _validator(command).iter_errors(document)]
    assert not problems, f"{command}: {problems}"


def check_answer(words: Sequence[str], out: str) -> None:
    """Assert that *out*, which the call *words* answered, is what its schema says, if it is JSON."""
    command = next((word for word in words if word in COMMANDS), "")
    if out and "--json" in words and "--help" not in words and command not in {"", *WITHOUT}:
        checked(command, json.loads(out))
