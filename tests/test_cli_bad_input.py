"""Wrong words: every command with every option wrong, missing, doubled, contradictory, by the parser."""

from __future__ import annotations

import argparse
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiers import first_quick

from venvflow.cli import main
from venvflow.cli.parser import COMMANDS, make_parser
from venvflow.pure.names import did_you_mean

if TYPE_CHECKING:
    from cli_project import Project


PARSER = make_parser()
COMMON = {action.dest for action in PARSER.arguments}
ENDINGS = (' --help" shows all words.\n', "Give one of them.\n")
NEVER = "--no-such-option"


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Give what runs words in an empty directory, where only words can be wrong."""
    for name in ("VENVFLOW_CONFIG", "VENVFLOW_WORK_DIR", "VENVFLOW_FORMAT", "VENVFLOW_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return Say(tmp_path, capsys)


class Say:
    """Runs words that are wrong, and sees to it that they are refused as all wrong words are."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._directory = directory
        self._capsys = capsys

    def __call__(self, *words: str) -> str:
        """Return the message for *words*: one line, exit code 2, no answer, nothing done."""
        code = main(words)
        out, err = self._capsys.readouterr()
        told = f"{words}: {err}"
        assert (code, out) == (2, ""), told
        assert re.fullmatch(r"venvflow: [^\n]+\n", err), told
        assert "Nothing was done." in err, told
        assert err.endswith(ENDINGS), told
        assert not list(self._directory.iterdir()), told
        return err


def options(command: str) -> Iterator[tuple[str, argparse.Action]]:
    """Yield every spelling of every option of *command*; of those that all commands have, for one of them."""
    for action in PARSER.commands[command].arguments:
        if action.dest not in COMMON or command == next(iter(COMMANDS)):
            for spelling in action.option_strings:
                yield spelling, action


def all_options(command: str) -> Iterator[tuple[str, argparse.Action]]:
    """Yield every spelling of every option of *command*."""
    for action in PARSER.commands[command].arguments:
        for spelling in action.option_strings:
            yield spelling, action


def needed(command: str) -> list[str]:
    """Return a word for each argument that *command* must have."""
    arguments = [each for each in PARSER.commands[command].arguments if not each.option_strings]
    return [good_value(each) for each in arguments if each.nargs in (None, "+")]


def takes_value(action: argparse.Action) -> bool:
    """Return whether an option is followed by a value."""
    return action.nargs is None


def good_value(action: argparse.Action) -> str:
    """Return a value that the parser lets through."""
    if action.choices is not None:
        return str(next(iter(action.choices)))
    known = {"min_size": "1KiB", "link": "copy", "since": "7d", "limit": "1"}
    return known.get(action.dest, "1" if action.type is int else "x")


# --------------------------------------------------------------------------- options


@pytest.mark.parametrize("command", first_quick(COMMANDS, every=4))
def test_an_option_without_its_value_is_refused(command: str, say: Say) -> None:
    """Also before another option, and at the end of the line."""
    for option, action in options(command):
        if takes_value(action):
            for words in ([option], [option, "--quiet"]):
                assert "expected one argument" in say(command, *needed(command), *words)


@pytest.mark.parametrize("command", first_quick(COMMANDS, every=4))
def test_an_option_with_an_empty_value_is_refused(command: str, say: Say) -> None:
    """A script whose variable is not set means something else than leaving the option out."""
    for option, action in options(command):
        if takes_value(action):
            written = f"{option}=" if option.startswith("--") else option
            rest = [] if option.startswith("--") else [""]
            message = say(command, *needed(command), written, *rest)
            assert "it is empty" in message or "''" in message


@pytest.mark.parametrize("command", first_quick(COMMANDS, every=4))
def test_an_option_given_twice_is_refused(command: str, say: Say) -> None:
    """The second value would silently undo the first; what may be repeated collects."""
    for option, action in options(command):
        if takes_value(action):
            value = good_value(action)
            words = (command, *needed(command), option, value, option, value)
            if type(action).__name__ == "Each":
                assert getattr(PARSER.commands[command].parse_args(words[1:]), action.dest) == [value] * 2
            else:
                assert "it is given twice" in say(*words)


@pytest.mark.parametrize("command", first_quick(COMMANDS, every=4))
def test_a_switch_given_twice_means_it(command: str, say: Say) -> None:
    """There is nothing to contradict; wrappers and aliases may repeat it."""
    for option, action in options(command):
        if action.nargs == 0 and action.dest != "help":
            parsed = make_parser().commands[command].parse_args([*needed(command), option, option])
            assert getattr(parsed, action.dest) is True


@pytest.mark.parametrize("command", first_quick(COMMANDS, every=4))
def test_a_switch_with_a_value_is_refused(command: str, say: Say) -> None:
    """``--json=1`` is no way to say ``--json``."""
    for option, action in options(command):
        if not takes_value(action) and option.startswith("--"):
            assert option in say(command, *needed(command), f"{option}=1")


@pytest.mark.parametrize("command", first_quick(COMMANDS, every=4))
def test_a_choice_that_does_not_exist_is_refused_with_all_that_do(command: str, say: Say) -> None:
    """And a number that is none."""
    for option, action in options(command):
        if action.choices is not None:
            message = say(command, *needed(command), option, "zzz")
            assert all(str(choice) in message for choice in action.choices)
        elif action.type is int:
            assert "'1.5'" in say(command, *needed(command), option, "1.5")


@pytest.mark.parametrize("command", first_quick(COMMANDS, every=6))
def test_a_misspelled_option_gets_the_nearest(command: str, say: Say) -> None:
    """Whether or not an argument is missing as well; options are never guessed."""
    for option, _ in options(command):
        if option.startswith("--"):
            for words in ([*needed(command), option[:-1]], [f"{option[:-2]}{option[-1]}"]):
                message = say(command, *words)
                assert f"there is no option {words[-1]}. " in message
                suggested = re.search(r"Did you mean (\S+)\?", message)
                assert suggested, message
                assert suggested[1] == option or suggested[1].startswith(option[:4])


@pytest.mark.parametrize("command", first_quick(["", *COMMANDS], every=6))
def test_an_unknown_option_is_refused_with_all_that_exist(command: str, say: Say) -> None:
    """Long, short, with a value, and before the command."""
    before = [command] if command else []
    words = needed(command) if command else []
    for wrong in (NEVER, f"{NEVER}=1", "-Z"):
        for message in (say(*before, *words, wrong), say(wrong, *before, *words)):
            assert f"there is no option {wrong.partition('=')[0]}. " in message
            assert "There are: --" in message


def test_contradictions_are_refused_on_both_sides_of_the_command(say: Say) -> None:
    """What says two things says nothing."""
    for words in ("-v status -q", "status -v -q", "-q -v status", "--json status --format text"):
        assert "contradict each other" in say(*words.split())


# --------------------------------------------------------------------------- commands and arguments


@pytest.mark.parametrize("command", first_quick(COMMANDS, every=4))
def test_a_missing_argument_is_named(command: str, say: Say) -> None:
    """One after the other is left out."""
    words = needed(command)
    for number in range(len(words)):
        message = say(command, *words[:number])
        assert re.search(r": ([A-Z]+ is|[A-Z]+(, [A-Z]+)+ are) missing\. ", message)
        assert message.count(",") == len(words) - number - 1


@pytest.mark.parametrize("command", first_quick(COMMANDS, every=4))
def test_an_empty_argument_is_refused(command: str, say: Say) -> None:
    """No venv, file or directory has no name."""
    for argument in PARSER.commands[command].arguments:
        if not argument.option_strings:
            message = say(command, *([""] * max(len(needed(command)), 1)))
            assert "it is empty" in message or "there is no " in message


@pytest.mark.parametrize("command", first_quick(COMMANDS, every=4))
def test_a_word_too_many_is_named(command: str, say: Say) -> None:
    """Where a command does not take any number of them."""
    arguments = [each for each in PARSER.commands[command].arguments if not each.option_strings]
    if not any(each.nargs in ("*", "+") for each in arguments):
        words = [good_value(each) for each in arguments]
        assert "there is a word too many: 'extra'" in say(command, *words, "extra")


@pytest.mark.parametrize("command", first_quick(COMMANDS, every=6))
def test_a_misspelled_command_gets_the_nearest(command: str, say: Say) -> None:
    """As people misspell them: a letter less, a letter more, and the first letters only."""
    for wrong in (command[:-1], f"{command}s", f"{command[0]}x{command[1:]}"):
        if wrong not in COMMANDS:
            message = say(wrong)
            assert f"there is no command {wrong!r}" in message
            assert "Did you mean " in message


def test_without_a_command_there_is_nothing_to_do(say: Say) -> None:
    """The way to all of them is shown."""
    assert "a command is missing" in say()
    assert "a command is missing" in say("--json")
    assert "there is no command 'frobnicate'. Nothing was done. There are: " in say("frobnicate")


def test_words_that_cannot_be_shown_are_escaped(say: Say) -> None:
    """Neither a line break nor a byte that is no text breaks the message."""
    for wrong in ("a\nb", "\udcff", "\x1b[31m"):
        say(wrong)
        say("status", f"--{wrong}")
        say("export", "x", "y", wrong)


def test_after_two_dashes_nothing_is_an_option(say: Say) -> None:
    """They are there for names that begin with one."""
    assert "a word too many: '--json'" in say("version", "--", "--json")
    assert "a word too many: '--force'" in say("export", "--", "-x", "-y", "--force")


@pytest.mark.parametrize(
    ("word", "known", "advice"),
    [
        ("--dry", ["--json", "--dry-run"], "Did you mean --dry-run?"),
        ("--arch", ["--archive-format", "--force"], "Did you mean --archive-format?"),
        ("stat", ["stats", "status"], "Did you mean stats?"),
        ("x", ["two", "one", "two"], "There are: one, two."),
    ],
)
def test_the_nearest_word_is_one_that_goes_on_or_looks_alike(
    word: str, known: list[str], advice: str
) -> None:
    """Otherwise all are listed, each once."""
    assert did_you_mean(word, known) == advice


# --------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", first_quick(COMMANDS, every=4))
def test_the_example_of_the_help_is_right(command: str) -> None:
    """What --help shows can be typed: every venvflow command in it parses."""
    text = PARSER.commands[command].format_help().partition("example:\n")[2]
    calls = re.findall(r"\bvenvflow ([^|&()>\n]*)", text)
    assert calls
    for call in calls:
        name, *words = shlex.split(call)
        make_parser().commands[name].parse_args(words)
    assert any(call.startswith(command) for call in calls)


def test_an_option_means_the_same_everywhere() -> None:
    """One dest and one kind for each spelling, one long name for each letter; common ones in all commands."""
    meanings: dict[str, set[object]] = defaultdict(set)
    for command in COMMANDS:
        for spelling, action in all_options(command):
            kind = (action.dest, type(action).__name__, action.type, takes_value(action))
            meanings[spelling].add((kind, tuple(action.option_strings)))
    assert {spelling: found for spelling, found in meanings.items() if len(found) > 1} == {}
    assert {spelling for spelling in meanings if len(spelling) == 2} <= {
        "-h",
        "-c",
        "-C",
        "-w",
        "-v",
        "-q",
        "-n",
        "-o",
    }
    common = {"--help", "--config", "--work-dir", "--format", "--json", "--verbose", "--quiet"}
    for command in COMMANDS:
        assert common <= {spelling for spelling, _ in all_options(command)}


def test_dry_runs_and_consent_are_asked_for_in_one_way() -> None:
    """``-n`` is always --dry-run, and --yes is asked for only by what deletes for good."""
    spellings = {command: {spelling for spelling, _ in all_options(command)} for command in COMMANDS}
    assert all(("-n" in found) == ("--dry-run" in found) for found in spellings.values())
    assert {command for command, found in spellings.items() if "--yes" in found} == {"erase"}


@pytest.mark.parametrize("width", ["20", "40", "80", "200"])
def test_the_help_fits_the_terminal(width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No word is cut, and no line is longer than the terminal, but for words that do not fit into one."""
    monkeypatch.setenv("COLUMNS", width)
    for parser in (PARSER, *PARSER.commands.values()):
        for line in parser.format_help().partition("example:")[0].splitlines():
            words = re.findall(r"\[[^\]]*\]|\S+", line)
            assert len(line) <= int(width) or len(words) == 1 or len(line) <= 60, line


# --------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("squish api --min-size x", "'x'"),
        ("squish api --min-size 0", "more than zero"),
        ("squish api --min-size=-5", "negative"),
        ("squish api --link foo", "'foo'"),
        ("squish api --link hardlink,,copy", "''"),
        ("squish api --link hardlink,hardlink", "'hardlink' twice"),
        ("squish api --exclude ***", "--exclude: pattern '***'"),
        ("squish api --exclude ***", "***"),
        ("squish api --exclude a*b*c*d*e*f*g", "stars"),
        ("squish api --bytecode keeep", "Did you mean keep?"),
        ("squish nowhere", "nowhere"),
        ("squish .", "not a venv"),
        ("squish api nowhere", "nowhere"),
        ("unsquish nowhere", "nowhere"),
        ("verify nowhere", "nowhere"),
        ("pack nope", "'nope'"),
        ("pack api --level 99", "99"),
        ("pack api --level=-1", "-1"),
        ("pack api --threads 0", "0"),
        ("pack api --archive-format rar", "'rar'"),
        ("pack api -o x.rar", "x.rar"),
        ("pack api -o {nope}.tar", "{nope}"),
        ("pack api -o {version:nope}.tar", "nope"),
        ("pack api --arcroot ../x", "../x"),
        ("pack api --arcroot /", "'/'"),
        ("export nope ../made", "'nope'"),
        ("restore apii", "Did you mean api?"),
        ("store wbe", "Did you mean web?"),
        ("status api nope", "'nope'"),
        ("list nope", "'nope'"),
        ("erase nope --yes", "'nope'"),
        ("explain nope", "nope"),
        ("diff api nope", "nope"),
        ("diff nope api", "nope"),
        ("schema stauts", "Did you mean stat"),
        ("init nowhere", "nowhere"),
        ("status -c nowhere.yaml", "nowhere.yaml"),
        ("status -c .", "a directory"),
        ("status -C nowhere", "nowhere"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(words: str, told: str, project: Project) -> None:
    """Exit code 2 with the value in the message, and nothing is made, changed or taken away."""
    assert project.run("restore", "api").code == 0
    before = project.hashes()
    answer = project.run(*words.split())
    assert answer.code == 2, answer
    assert told in answer.err
    assert re.search(r"Nothing .*(done|changed|written)", answer.err), answer.err
    assert "Traceback" not in answer.err
    made = {path.partition(" ")[0] for path in project.hashes() - before}
    assert {path for path in made if "/.venvflow" not in path and "/store/" not in path} == set()
