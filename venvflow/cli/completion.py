"""``venvflow completion``: a script by which a shell completes commands, options, paths and venvs."""

from __future__ import annotations

import argparse
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from venvflow.cli.parser import Commands, add_command
from venvflow.cli.render import Output
from venvflow.errors import VenvflowError

if TYPE_CHECKING:
    from venvflow.cli.arguments import Parser
    from venvflow.cli.shells import Argument, Grammar, Kind

SHELLS = ("bash", "zsh", "fish")
_NAMES = "venvs"
"""What the scripts ask for: the names of the config's venvs, one a line."""

_MORE = """\
bash: source <(venvflow completion bash), in ~/.bashrc
zsh:  source <(venvflow completion zsh), in ~/.zshrc after compinit; or save it as _venvflow in $fpath
fish: venvflow completion fish > ~/.config/fish/completions/venvflow.fish
The names of venvs are those of the config, asked for each time; a new venvflow may need a new script."""

_KINDS: dict[str, Kind] = {
    "VENV": "venv",
    "OTHER": "thing",
    "A": "thing",
    "B": "thing",
    "ARCHIVE": "file",
    "FILE": "file",
    "DEST": "directory",
    "DIR": "directory",
    "PATH": "thing",
}
"""What completes an argument, by what the help calls it; what is not here, nothing does."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "completion",
        run,
        summary="print a script that completes words in a shell",
        more=_MORE,
        example="source <(venvflow completion bash)",
    )
    parser.add_argument("shell", metavar="SHELL", choices=(*SHELLS, _NAMES), help=" or ".join(SHELLS))


def run(args: argparse.Namespace, out: Output) -> int:
    """Print the script for a shell; always 0. There is nothing to say in JSON."""
    if args.shell == _NAMES:
        _print_names(args, out)
        return 0
    from venvflow.cli import shells  # noqa: PLC0415 - a key press asks for names only
    from venvflow.cli.parser import make_parser  # noqa: PLC0415

    out.answer(shells.script(args.shell, grammar_of(make_parser())))
    return 0


def _print_names(args: argparse.Namespace, out: Output) -> None:
    """Print what can be completed: nothing where there is no config that can be read, and no message ever."""
    from venvflow.flow import load  # noqa: PLC0415 - imports the YAML library

    with suppress(VenvflowError, OSError):
        names = load(args.work_dir, os.environ, explicit=args.config).config.venvs
        if names:
            out.answer("\n".join(name for name in names if name.isprintable()))


# --------------------------------------------------------------------------- the parser, as data


def grammar_of(parser: Parser) -> Grammar:
    """Return what *parser* knows, as the scripts need it."""
    from venvflow.cli.shells import Command, Grammar  # noqa: PLC0415 - a key press asks for names only

    arguments = {name: _arguments(each) for name, each in parser.commands.items()}
    shared = set.intersection(*({each.flags for each in options} for options, _ in arguments.values()))
    commands = [
        Command(
            name,
            _first_line(parser.commands[name].description),
            tuple(each for each in options if each.flags not in shared),
            others,
        )
        for name, (options, others) in arguments.items()
    ]
    common = tuple(each for each in _arguments(parser)[0] if each.flags in shared)
    return Grammar(common, tuple(commands))


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0].rstrip(".")


def _arguments(parser: Parser) -> tuple[tuple[Argument, ...], tuple[Argument, ...]]:
    """Return the options of *parser*, and its other arguments in their order."""
    found = [_argument(action) for action in parser.arguments]
    return tuple(each for each in found if each.flags), tuple(each for each in found if not each.flags)


def _argument(action: argparse.Action) -> Argument:
    from venvflow.cli.shells import Argument  # noqa: PLC0415

    takes_value = action.nargs != 0
    kind = _KINDS.get(str(action.metavar), "word") if takes_value else "none"
    if action.option_strings and kind == "thing":
        kind = "file"  # a venv is never named by an option
    choices = tuple(str(choice) for choice in action.choices or () if choice != _NAMES)
    help_text = (action.help or "").partition("\n")[0]
    return Argument(
        tuple(action.option_strings), help_text, kind, choices, repeats=action.nargs in ("*", "+")
    )
