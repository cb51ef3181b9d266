"""An argument parser that raises our own errors: one message, with the nearest word that would be right."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from venvflow.errors import UsageError, shown
from venvflow.pure.names import did_you_mean


def add_venvs(parser: Parser, text: str = "names of venvs or sets in the config, or patterns") -> None:
    """Add the venvs that a command acts on, and the way to name a share of them."""
    parser.add_argument("venvs", metavar="VENV", nargs="*", help=text)
    add_shard(parser, "of these, the share of the Nth of M machines")


def add_shard(parser: Parser, text: str) -> None:
    """Add the way to name a share of the venvs."""
    parser.add_argument("--shard", metavar="N/M", help=text)


_REQUIRED = "the following arguments are required"


class HelpRequested(Exception):
    """Raised for ``--help`` and the like, with the text to answer."""


class Parser(argparse.ArgumentParser):
    """Parses words; raises UsageError, with the nearest right word, where argparse would print and exit.

    An option with a value may be given once before a command and once after it. Options are never guessed
    from their first letters.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__(formatter_class=_Help, allow_abbrev=False, add_help=False, **how)
        for kind, action in ((None, Once), ("store", Once), ("append", Each)):
            self.register("action", kind, action)
        self.add_argument(
            "-h",
            "--help",
            action=_Helping,
            nargs=0,
            default=argparse.SUPPRESS,
            help="show this and do nothing",
        )
        self._words: Sequence[str] = ()

    @property
    def commands(self) -> dict[str, Parser]:
        """The parser of each command, by its name; none for that of a command."""
        found = [each.choices for each in self._actions if each.dest == "command"]
        return dict(found[0]) if found and isinstance(found[0], dict) else {}

    @property
    def arguments(self) -> list[argparse.Action]:
        """All options and other words that it takes, but for the command."""
        return [each for each in self._actions if each.dest != "command"]

    def parse_known_args(  # type: ignore[override]  # the overloads differ only in who gives the namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as argparse does, and remember the words for a better message."""
        self._words = () if args is None else args
        return super().parse_known_args(args, namespace)

    def refuse(self, rest: Sequence[str]) -> NoReturn:
        """Raise UsageError for words that nothing is known to do with."""
        unknown = self._unknown_options(rest)
        if unknown:
            known = [option for option in self._option_string_actions if option.startswith("--")]
            command = unknown[0].removeprefix("--")
            meant = f"Did you mean {self.prog} {command}?" if command in self.commands else ""
            self._fail(f"there is no option {shown(unknown[0])}", meant or did_you_mean(unknown[0], known))
        extra = [word for word in rest if word != "--"] or ["--"]
        self._fail(f"there is a word too many: {shown(extra[0])!r}")

    def error(self, message: str) -> NoReturn:
        """Raise UsageError; an option that does not exist comes before an argument that is missing."""
        if message.startswith(_REQUIRED):
            unknown = self._unknown_options(self._words)
            if unknown:
                self.refuse(unknown)
            missing = message.rpartition(": ")[2]
            self._fail(f"{missing} {'are' if ', ' in missing else 'is'} missing")
        self._fail(message.removeprefix("argument "))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        word = f"{shown(str(value))!r}"
        option = action.option_strings[-1] if action.option_strings else ""
        what = f"{option} cannot be {word}" if option else f"there is no {action.dest} {word}"
        is_path = action.dest == "command" and "/" in str(value)
        self._fail(
            what, f"Did you mean {self.prog} squish {word}?" if is_path else did_you_mean(str(value), known)
        )

    def _fail(self, what: str, advice: str = "") -> NoReturn:
        more = f'"{self.prog} --help" shows all words.'
        raise UsageError(
            what,
            where=self.prog.partition(" ")[2],
            state="Nothing was done.",
            hint=f"{advice} {more}".strip(),
        )

    def _unknown_options(self, words: Iterable[str]) -> list[str]:
        """Return the options among *words* that it does not know; what follows ``--`` is none."""
        found = []
        for word in words:
            if word == "--":
                break
            name = word.partition("=")[0] if word.startswith("--") else word[:2]
            if name.startswith("-") and len(name) > 1 and name not in self._option_string_actions:
                found.append(word.partition("=")[0])
        return found


class Once(argparse.Action):
    """Stores what is given once: a second value for one option would silently undo the first.

    A parser parses once, so an action may remember. An empty word is refused: it is what a script has in a
    variable that was not set, and not a file, venv or checksum.
    """

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self._given = False

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store *values* in *namespace*."""
        if self._given:
            raise argparse.ArgumentError(self, "it is given twice")
        if "" in (values if isinstance(values, list) else [values]):
            raise argparse.ArgumentError(self, "it is empty")
        self._given = option_string is not None
        setattr(namespace, self.dest, values)


class Each(Once):
    """Collects a value each time that the option is given.

    ``in_order`` of the namespace has what was given for all such options, as pairs of name and value.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add *values* to those in *namespace*."""
        before = getattr(namespace, self.dest, None) or []
        super().__call__(parser, namespace, values, option_string)
        self._given = False
        setattr(namespace, self.dest, [*before, values])
        namespace.in_order = [*getattr(namespace, "in_order", []), (self.dest, values)]


def pattern(text: str) -> str:
    """Return *text* if it is a gitignore pattern, as a type of argparse."""
    from venvflow.pure.patterns import problems  # noqa: PLC0415 - few commands take patterns

    for problem in problems([text]):
        raise argparse.ArgumentTypeError(f"{problem}; patterns are those of .gitignore")
    return text


class _Helping(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        raise HelpRequested(parser.format_help().rstrip("\n"))


class TextAction(argparse.Action):
    """Answers with *const* instead of doing anything, as ``--version`` does."""

    def __init__(self, option_strings: Sequence[str], dest: str, **how: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **how)

    def __call__(self, *_: Any) -> NoReturn:
        """Raise HelpRequested."""
        raise HelpRequested(str(self.const))


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps lines as they are written, but for terminals that are too narrow for them."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        prose, example, calls = text.partition("example:")
        # An example stays whole: it is there to be copied.
        return _wrapped(prose, max(width, 11), indent) + example + calls


def _wrapped(text: str, width: int, indent: str) -> str:
    lines = []
    for line in text.splitlines():
        margin = " " * (len(line) - len(line.lstrip()))
        lines += textwrap.wrap(
            line, width, initial_indent=indent, subsequent_indent=f"{indent}{margin}{'  ' if margin else ''}",
            replace_whitespace=False, break_long_words=False, break_on_hyphens=False,
        ) or [""]  # fmt: skip
    return "\n".join(lines)
