"""Scripts that complete words in bash, zsh and fish, made from what the parser knows.

Each script is a small engine, written once, and tables. The engine finds the command among the words, and
what the word under the cursor is: an option, the value of one, or an argument by its number. Names of venvs
are asked for, with ``venvflow completion venvs``; nothing else is run.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

Kind = Literal["none", "word", "venv", "thing", "file", "directory"]
"""What completes a value: nothing is taken, nothing is known, a venv's name, that or a path, a path."""


class Argument(NamedTuple):
    """An option with its *flags*, or an argument without any; *repeats*: it may be given several times."""

    flags: tuple[str, ...]
    help: str
    kind: Kind
    choices: tuple[str, ...] = ()
    repeats: bool = False

    @property
    def source(self) -> str:
        """Return what completes its value, as the tables have it: the choices, or a word for the kind."""
        return f"={' '.join(self.choices)}" if self.choices else self.kind


class Command(NamedTuple):
    """A command with what it does, the options that only it has, and its arguments."""

    name: str
    help: str
    options: tuple[Argument, ...]
    arguments: tuple[Argument, ...]


class Grammar(NamedTuple):
    """All words: the commands, and the *options* that may stand before a command and after it."""

    options: tuple[Argument, ...]
    commands: tuple[Command, ...]


def script(shell: str, grammar: Grammar) -> str:
    """Return the script for a shell: bash, zsh or fish."""
    return _SCRIPTS[shell](grammar)


# --------------------------------------------------------------------------- bash


_BASH = """\
# Completion for venvflow in bash, made by: venvflow completion bash

_venvflow_options() {
    echo '@COMMON@'
    case $1 in
@OPTIONS@
    esac
}

_venvflow_source() {
    case $1 in
@SOURCES@
    esac
}

# Adds lines of standard input that begin with the word under the cursor.
_venvflow_add() {
    local line
    while IFS= read -r line; do
        [[ $line == "$current"* ]] && COMPREPLY+=("$line")
    done
}

_venvflow_complete() {
    case $1 in
        =*) _venvflow_add < <(printf '%s\\n' ${1#=}) ;;
        venv) _venvflow_add < <("$program" "${context[@]}" completion venvs 2>/dev/null) ;;
        thing) _venvflow_complete venv; _venvflow_complete file ;;
        file) compopt -o filenames 2>/dev/null; _venvflow_add < <(compgen -f -- "$current") ;;
        directory) compopt -o filenames 2>/dev/null; _venvflow_add < <(compgen -d -- "$current") ;;
    esac
}

_venvflow() {
    local program=${COMP_WORDS[0]} current=${COMP_WORDS[COMP_CWORD]} command= number=0 pending= index word
    local -a context=()
    COMPREPLY=()
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if [[ $word == = ]]; then
            continue
        elif [[ -n $pending ]]; then
            case $pending in
                -c|--config|-C|--work-dir) context+=("$pending" "${word/#\\~\\//$HOME/}") ;;
            esac
            pending=
        elif [[ $word == -* && -n $(_venvflow_source "$command $word") ]]; then
            pending=$word
        elif [[ $word == -* ]]; then
            continue
        elif [[ -z $command ]]; then
            command=$word
        else
            ((number++))
        fi
    done
    [[ $current == = ]] && current=
    if [[ -n $pending ]]; then
        _venvflow_complete "$(_venvflow_source "$command $pending")"
    elif [[ $current == -* ]]; then
        _venvflow_add < <(printf '%s\\n' $(_venvflow_options "$command"))
    elif [[ -z $command ]]; then
        _venvflow_add < <(printf '%s\\n' @COMMANDS@)
    else
        _venvflow_complete "$(_venvflow_source "$command #$number")"
    fi
}

complete -F _venvflow venvflow
"""


def _bash(grammar: Grammar) -> str:
    names = [command.name for command in grammar.commands]
    options = [_case(each.name, " ".join(_flags(each.options))) for each in grammar.commands if each.options]
    return (
        _BASH.replace("@COMMANDS@", " ".join(names))
        .replace("@COMMON@", " ".join(_flags(grammar.options)))
        .replace("@OPTIONS@", "\n".join(options))
        .replace("@SOURCES@", "\n".join(_bash_sources(grammar)))
        .rstrip("\n")
    )


def _bash_sources(grammar: Grammar) -> Iterator[str]:
    """Yield what completes values: of common options, of a command's own, of its arguments by number."""
    for option in _valued(grammar.options):
        yield _case("|".join(f"*' {flag}'" for flag in option.flags), option.source)
    for command in grammar.commands:
        for option in _valued(command.options):
            yield _case("|".join(f"'{command.name} {flag}'" for flag in option.flags), option.source)
        for number, argument in enumerate(command.arguments):
            which = "'*" if argument.repeats else f"{number}'"
            yield _case(f"'{command.name} #{which}", argument.source)


def _case(patterns: str, answer: str) -> str:
    return f"        {patterns}) echo {shlex.quote(answer)} ;;"


def _valued(options: Iterable[Argument]) -> Iterator[Argument]:
    return (option for option in options if option.kind != "none")


def _flags(options: Iterable[Argument]) -> list[str]:
    return [flag for option in options for flag in option.flags]


# --------------------------------------------------------------------------- zsh


_ZSH = """\
#compdef venvflow
# Completion for venvflow in zsh, made by: venvflow completion zsh

_venvflow_venvs() {
    local -a names
    names=(${(f)"$($_venvflow_program $_venvflow_context completion venvs 2>/dev/null)"})
    compadd -a names
}

_venvflow_things() {
    _alternative 'venvs:venv:_venvflow_venvs' 'files:file:_files'
}

_venvflow() {
    local curcontext=$curcontext state line index ret=1 _venvflow_program=$words[1]
    typeset -A opt_args
    local -a commands _venvflow_context
    for ((index = 2; index < CURRENT; index++)); do
        case $words[index] in
            (-c|--config|-C|--work-dir) _venvflow_context+=($words[index] ${~words[index+1]}) ;;
            (--config=*|--work-dir=*) _venvflow_context+=($words[index]) ;;
        esac
    done
    commands=(
@COMMANDS@
    )
    _arguments -C -A '-*' \\
@OPTIONS@
        '1: :->command' \\
        '*:: :->arguments' && ret=0
    case $state in
        (command) _describe -t commands command commands && ret=0 ;;
        (arguments)
            curcontext=${curcontext%:*:*}:venvflow-$words[1]:
            case $words[1] in
@CASES@
            esac ;;
    esac
    return ret
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _venvflow "$@"
else
    compdef _venvflow venvflow
fi
"""


def _zsh(grammar: Grammar) -> str:
    commands = [f"        {_zsh_quoted(f'{each.name}:{each.help}')}" for each in grammar.commands]
    options = [f"        {spec} \\" for option in grammar.options for spec in _zsh_option(option)]
    cases = [line for command in grammar.commands for line in _zsh_case(command, grammar.options)]
    return (
        _ZSH.replace("@COMMANDS@", "\n".join(commands))
        .replace("@OPTIONS@", "\n".join(options))
        .replace("@CASES@", "\n".join(cases))
        .rstrip("\n")
    )


def _zsh_case(command: Command, common: tuple[Argument, ...]) -> Iterator[str]:
    specs = [spec for option in (*common, *command.options) for spec in _zsh_option(option)]
    specs += [
        _zsh_quoted(f"{'*' if argument.repeats else number}:{_zsh_name(argument)}:{_zsh_action(argument)}")
        for number, argument in enumerate(command.arguments, start=1)
    ]
    yield f"                ({command.name}) _arguments \\"
    for spec in specs[:-1]:
        yield f"                    {spec} \\"
    yield f"                    {specs[-1]} && ret=0 ;;"


def _zsh_option(option: Argument) -> Iterator[str]:
    """Yield how ``_arguments`` is told of each flag; flags of one option keep each other away."""
    others = " ".join(option.flags)
    told = option.help.replace("[", "(").replace("]", ")").replace(":", " -")
    for flag in option.flags:
        value = "" if option.kind == "none" else f":{_zsh_name(option)}:{_zsh_action(option)}"
        equals = "=" if value and flag.startswith("--") else ""
        yield _zsh_quoted(f"({others}){flag}{equals}[{told}]{value}")


def _zsh_name(argument: Argument) -> str:
    return argument.flags[-1].lstrip("-") if argument.flags else argument.kind


def _zsh_action(argument: Argument) -> str:
    if argument.choices:
        return f"({' '.join(argument.choices)})"
    actions = {"venv": "_venvflow_venvs", "thing": "_venvflow_things", "file": "_files"}
    return actions.get(argument.kind, "_files -/" if argument.kind == "directory" else " ")


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# --------------------------------------------------------------------------- fish


_FISH = """\
# Completion for venvflow in fish, made by: venvflow completion fish

function __venvflow_words --description 'command and arguments so far, without options and their values'
    set -l pending 0
    for word in (commandline -opc)[2..-1]
        if test $pending = 1
            set pending 0
        else if contains -- $word @VALUED@
            set pending 1
        else if not string match -q -- '-*' $word
            echo $word
        end
    end
end

function __venvflow_at --description 'is this the argument of that number, of that command'
    set -l words (__venvflow_words)
    test (count $words) -gt 0; or return 1
    test $words[1] = $argv[1]; or return 1
    test $argv[2] = any; or test (count $words) -eq (math $argv[2] + 1)
end

function __venvflow_venvs
    set -l context
    set -l words (commandline -opc)
    for index in (seq 2 (count $words))
        switch $words[$index]
            case -c --config -C --work-dir
                set -l next (math $index + 1)
                set -q words[$next]; or continue
                set -a context $words[$index] (string replace -r '^~/' "$HOME/" -- $words[$next])
            case '--config=*' '--work-dir=*'
                set -a context $words[$index]
        end
    end
    $words[1] $context completion venvs 2>/dev/null
end

complete -c venvflow -f
@LINES@
"""


def _fish(grammar: Grammar) -> str:
    at_first = _quoted("not count (__venvflow_words) >/dev/null")
    lines = [f"{_COMPLETE} -n {at_first} -a {each.name} -d {_quoted(each.help)}" for each in grammar.commands]
    lines += [_fish_option("", option) for option in grammar.options]
    for command in grammar.commands:
        here = f" -n {_quoted(f'__venvflow_at {command.name} any')}"
        lines += [_fish_option(here, option) for option in command.options]
        lines += _fish_arguments(command)
    options = [*grammar.options, *(option for command in grammar.commands for option in command.options)]
    valued = dict.fromkeys(_flags(_valued(options)))
    return _FISH.replace("@VALUED@", " ".join(valued)).replace("@LINES@", "\n".join(lines)).rstrip("\n")


_COMPLETE = "complete -c venvflow"


def _fish_option(condition: str, option: Argument) -> str:
    short = "".join(f" -s {flag[1:]}" for flag in option.flags if not flag.startswith("--"))
    long = "".join(f" -l {flag[2:]}" for flag in option.flags if flag.startswith("--"))
    files = option.kind in ("file", "thing") and not option.choices
    value = "" if option.kind == "none" else f"{' -r' if files else ' -x'}{_fish_values(option)}"
    return f"{_COMPLETE}{condition}{short}{long}{value} -d {_quoted(option.help)}"


def _fish_arguments(command: Command) -> Iterator[str]:
    for number, argument in enumerate(command.arguments):
        values = _fish_values(argument)
        if values:
            which = "any" if argument.repeats else number
            yield f"{_COMPLETE} -n {_quoted(f'__venvflow_at {command.name} {which}')}{values}"


def _fish_values(argument: Argument) -> str:
    if argument.choices:
        return f" -a {_quoted(' '.join(argument.choices))}"
    return {
        "venv": " -a '(__venvflow_venvs)'",
        "thing": " -F -a '(__venvflow_venvs)'",
        "file": " -F",
        "directory": " -a '(__fish_complete_directories)'",
    }.get(argument.kind, "")


def _quoted(text: str) -> str:
    """Return *text* as fish has it between single quotes."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


_SCRIPTS: dict[str, Callable[[Grammar], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
