"""``venvflow schema``: the JSON Schema of the config."""

from __future__ import annotations

import argparse

from venvflow.cli.parser import Commands, add_command
from venvflow.cli.render import Output


def add(commands: Commands) -> None:
    """Add the command."""
    add_command(
        commands,
        "schema",
        run,
        summary="print the JSON Schema of venvflow.yaml",
        more="For editors and other checkers. It is the same in all formats.",
        example="venvflow schema > venvflow.schema.json",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Print the JSON Schema."""
    del args
    out.answer(text().rstrip("\n"))
    return 0


def text() -> str:
    """Return the schema as it lies beside a config."""
    import json  # noqa: PLC0415

    from venvflow import config as configs  # noqa: PLC0415 - imports the YAML library

    return json.dumps(configs.schema(), indent=2) + "\n"
