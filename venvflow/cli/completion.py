"""``venvflow completion``: a script by which a shell completes commands, options, paths and venvs.

The scripts are argcomplete's: on each key press they run venvflow, with the line in the environment, and
:func:`complete` answers.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from venvflow.cli.arguments import Each, Once, Parser
from venvflow.cli.parser import COMMANDS, make_parser, named_in
from venvflow.cli.render import Output
from venvflow.errors import VenvflowError
from venvflow.model import Config
from venvflow.pure.variables import named_config

SHELLS = ("bash", "zsh", "fish")

MORE = """\
bash: source <(venvflow completion bash), in ~/.bashrc
zsh:  source <(venvflow completion zsh), in ~/.zshrc after compinit; or save it as _venvflow in $fpath
fish: venvflow completion fish > ~/.config/fish/completions/venvflow.fish
The names of venvs and sets are those of the config, asked for each time."""
EXAMPLE = "source <(venvflow completion bash)"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=" or ".join(SHELLS))


def run(args: argparse.Namespace, out: Output) -> int:
    """Print the script for a shell; always 0. There is nothing to say in JSON."""
    from argcomplete.shell_integration import shellcode  # noqa: PLC0415 - no other command needs it

    out.answer(shellcode(["venvflow"], shell=args.shell, complete_arguments=["-o", "nospace"]).strip("\n"))
    return 0


# --------------------------------------------------------------------------- what a shell asks for


def complete() -> None:
    """Answer what the line in the environment may go on with, and end this process."""
    from argcomplete.completers import SuppressCompleter  # noqa: PLC0415 - no other run needs it
    from argcomplete.finders import CompletionFinder, safe_actions  # noqa: PLC0415

    named = named_in(os.environ.get("COMP_LINE", "").split())
    parser = make_parser([named]) if named is not None else make_parser((), COMMANDS)
    for each in (parser, *parser.commands.values()):
        for action in each.arguments:
            if action.nargs != 0 and action.choices is None:
                action.completer = completer_of(action)  # type: ignore[attr-defined]  # argcomplete's way
    safe_actions.update((Once, Each))
    CompletionFinder()(parser, always_complete_options=False, default_completer=SuppressCompleter())


def completer_of(action: argparse.Action) -> Callable[..., Iterable[str]]:
    """Return what completes the value of *action*."""
    completer = COMPLETERS.get(str(action.metavar), _nothing)
    # A venv is never named by an option.
    return _files if completer is _venvs_and_files and action.option_strings else completer


def _nothing(**_: Any) -> list[str]:
    return []


def _venvs(*, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Return the names of venvs and sets that can be seen."""
    config = _config(parsed_args)
    return [name for name in config.groups if name.isprintable()] if config is not None else []


def _config(parsed_args: argparse.Namespace) -> Config | None:
    """Return the config that the line means, or none: there is no room for a message."""
    from venvflow.flow import load  # noqa: PLC0415 - imports the YAML library

    work_dir = getattr(parsed_args, "work_dir", os.environ.get("VENVFLOW_WORK_DIR") or ".")
    file = getattr(parsed_args, "config", named_config(os.environ))
    with suppress(VenvflowError, OSError):
        return load(
            os.path.expanduser(work_dir), os.environ, explicit=file and os.path.expanduser(file)
        ).config
    return None


def _programs_and_files(*, prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Return what the command of ``run`` may be, or its words: programs of its venv, and files."""
    if "--" not in os.environ.get("COMP_LINE", "").split():
        return []
    config = _config(parsed_args)
    venv = config.venvs.get(parsed_args.venv) if config is not None else None
    programs = _files(prefix=f"{venv.path}/bin/{prefix}") if venv and "/" not in prefix else ()
    return [*map(os.path.basename, programs), *_files(prefix=prefix)]


def _files(*, prefix: str, **_: Any) -> Iterator[str]:
    directory, beginning = os.path.split(prefix)
    with suppress(OSError), os.scandir(os.path.expanduser(directory) or ".") as entries:
        for entry in entries:
            hidden = entry.name.startswith(".") and not beginning
            if entry.name.startswith(beginning) and not hidden and entry.name.isprintable():
                yield os.path.join(directory, entry.name) + "/" * entry.is_dir()


def _directories(*, prefix: str, **_: Any) -> list[str]:
    return [path for path in _files(prefix=prefix) if path.endswith("/")]


def _venvs_and_files(*, prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    return [*_venvs(parsed_args=parsed_args), *_files(prefix=prefix)]


COMPLETERS: dict[str, Callable[..., Iterable[str]]] = {
    "VENV": _venvs,
    "OTHER": _venvs_and_files,
    "A": _venvs_and_files,
    "B": _venvs_and_files,
    "ARCHIVE": _files,
    "FILE": _files,
    "DEST": _directories,
    "DIR": _directories,
    "PATH": _venvs_and_files,
    "PATH|VENV": _venvs_and_files,
    "-- COMMAND": _programs_and_files,
}
"""What completes an argument, by what the help calls it; what is not here, nothing does."""
