"""``venvflow schema``: the JSON Schema of the config, or of what a command answers."""

from __future__ import annotations

import argparse
import os

import venvflow
from venvflow.cli.arguments import Parser
from venvflow.cli.render import Output
from venvflow.errors import UsageError, shown
from venvflow.pure.names import did_you_mean

MORE = """\
For editors and other checkers. It is the same in all formats.
With a COMMAND it is that of its --json: every key, and what it means. Keys stay, new ones may
come."""
EXAMPLE = """\
venvflow schema > venvflow.schema.json
  venvflow schema status"""


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument(
        "of", metavar="COMMAND", nargs="?", help="what this command answers with --json (the config)"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Print the JSON Schema."""
    out.answer(schema_text(args.of).rstrip("\n"))
    return 0


def schema_text(command: str | None = None) -> str:
    """Return the schema of the config, as it lies beside one, or that of the JSON of *command*.

    Raises UsageError for a command that has none.
    """
    package = os.path.dirname(venvflow.__file__)
    path = os.path.join(package, "venvflow.schema.json" if command is None else f"schemas/{command}.json")
    known = sorted(name.removesuffix(".json") for name in os.listdir(os.path.join(package, "schemas")))
    if command is not None and command not in known:
        raise UsageError(
            f"there is no command {shown(command)!r} that answers with JSON",
            where="schema",
            state="Nothing was done.",
            hint=f'{did_you_mean(command, known)} "venvflow schema --help" shows all words.',
        )
    with open(path, encoding="utf-8") as file:
        return file.read()
