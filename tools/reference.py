"""The generated sections of the reference: config, commands, tasks, exit codes, views of the index, JSON.

Each is made from what the product itself goes by: the schema of the config with the defaults of the model,
the argument parser, the table of tasks, the error classes, the SQL of the views.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tools.answers import answers, link_of
from tools.table import table
from venvflow import errors, tasks
from venvflow.cli.parser import COMMANDS, make_parser
from venvflow.cli.schema import schema_text
from venvflow.config import quoted
from venvflow.model import RemoteConfig, StoreConfig, TrimPolicy, VenvSpec
from venvflow.state import schema

_Schema = Mapping[str, Any]


_NOTHING = "-"


@functools.cache
def sections() -> dict[str, str]:
    """Return every generated section by its name."""
    makers: dict[str, Callable[[], str]] = {
        "config": config_tables,
        "commands": commands,
        "command-list": command_list,
        "common-options": common_options,
        "tasks": task_table,
        "exit-codes": exit_codes,
        "views": views,
        "answers": answers,
    }
    return {name: make() for name, make in makers.items()}


# --------------------------------------------------------------------------- the config

_PLACES = (
    ("`store`", ("properties", "store"), StoreConfig),
    ("`remote` of the store", ("properties", "store", "properties", "remote"), RemoteConfig),
    (
        "`keep` of the remote",
        ("properties", "store", "properties", "remote", "properties", "keep"),
        None,
    ),
    ("`trim`", ("properties", "trim"), TrimPolicy),
    ("A venv", ("properties", "venvs", "additionalProperties"), VenvSpec),
    ("A template in `each`", ("properties", "each", "items"), None),
    ("`key` of a venv", ("$defs", "key"), None),
    ("`squish` of a venv", ("$defs", "squish"), None),
    ("`pack` of a venv", ("$defs", "pack"), None),
)


def config_tables() -> str:
    """Return the tables of the config's keys, from the top down."""
    whole = json.loads(schema_text())
    parts = ["## Top level\n", _keys(whole, whole, None)]
    for title, path, record in _PLACES:
        part: _Schema = whole
        for step in path:
            part = part[step]
        parts += [f"## {title}\n", f"{part['description']}\n", _keys(whole, part, record)]
    return "\n".join(parts)


def _keys(whole: _Schema, part: _Schema, record: type | None) -> str:
    required = part.get("required", ())
    rows = []
    for name, given in part["properties"].items():
        value = {**_referred(whole, given), **given}
        default = "required" if name in required else _default(name, value, record)
        example = f"`{name}: {_in_flow(value['examples'][0])}`"
        rows.append((f"`{name}`", _kind(value), default, example, value["description"]))
    return table(("key", "value", "default", "example", "meaning"), rows)


def _in_flow(value: Any) -> str:
    """Return *value* as YAML in one line, in quotes only where YAML needs them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_in_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_in_flow, value)) + "]"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def _referred(whole: _Schema, value: _Schema) -> _Schema:
    reference = value.get("$ref", "").rpartition("/")[2]
    found: _Schema = whole["$defs"][reference] if reference else {}
    return found


def _default(name: str, value: _Schema, record: type | None) -> str:
    if "default" in value:
        return _as_yaml(value["default"])
    known = {field.name: field.default for field in dataclasses.fields(record)} if record else {}
    default = known.get(name)
    if dataclasses.is_dataclass(default):  # its keys have a table of their own
        return _NOTHING
    return _as_yaml(default) if default not in (None, "", (), dataclasses.MISSING) else _NOTHING


def _as_yaml(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value).replace(chr(34), '')}`"


def _kind(value: _Schema) -> str:
    """Return in a few words what may stand there."""
    if "const" in value:
        return _as_yaml(value["const"])
    if "enum" in value:
        return _choices(value["enum"])
    choices = value.get("anyOf")
    if choices and value.get("type") != "string":
        return " or ".join(dict.fromkeys(_kind(choice) for choice in choices if not _is_plain_size(choice)))
    kind = value.get("type", "")
    if isinstance(kind, list):
        return " or ".join(_kind({**value, "type": one}) for one in kind)
    return _kinds().get(kind, _text)(value)


def _is_plain_size(value: _Schema) -> bool:
    return value.get("type") == "integer" and "maximum" not in value


def _kinds() -> dict[str, Callable[[_Schema], str]]:
    return {
        "object": lambda _: "mapping",
        "null": lambda _: "`null`",
        "boolean": lambda _: "`true` · `false`",
        "integer": lambda value: f"{value.get('minimum', 0)} to {value['maximum']:,}",
        "array": lambda value: f"list of {_kind(value['items'])}",
    }


def _text(value: _Schema) -> str:
    pattern = value.get("pattern", "")
    if "smhdw" in pattern:
        return "duration (`60d`)"
    return "size (`4KiB`, `20GiB`)" if "i?B" in pattern else "text"


def _choices(values: Sequence[Any]) -> str:
    return " · ".join(f"`{value}`" for value in values)


# --------------------------------------------------------------------------- commands


def _commands() -> dict[str, argparse.ArgumentParser]:
    """Return each command's parser, in the order of the help."""
    known = make_parser().commands
    return {name: known[name] for name in COMMANDS}


def command_list() -> str:
    """Return the table of all commands, each with a link to its section."""
    rows = [(f"[`{name}`](#venvflow-{name})", _summary(parser)) for name, parser in _commands().items()]
    return table(("command", "does"), rows)


def common_options() -> str:
    """Return the table of the options that every command has."""
    parser = next(iter(_commands().values()))
    return table(("option", "meaning"), list(_arguments(parser, common=True)))


def commands() -> str:
    """Return a section per command: usage, description, arguments, example."""
    return "\n".join(_command(name, parser) for name, parser in _commands().items())


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    own = [action for action, common in _actions(parser) if not common]
    usage = " ".join([f"venvflow {name}", *(_usage(action) for action in own)])
    rows = list(_arguments(parser, common=False))
    parts = [
        f"## venvflow {name}\n",
        f"```text\n{usage}\n```\n",
        _description(parser),
        table(("argument", "meaning"), rows) if rows else "",
        link_of(name),
        f"```text\n{_example(parser)}\n```\n",
    ]
    return "\n".join(part for part in parts if part)


def _description(parser: argparse.ArgumentParser) -> str:
    """Return what a command says of itself, line by line; what is laid out as a table keeps its form."""
    paragraphs = (parser.description or "").split("\n\n")
    return "\n".join(
        f"```text\n{paragraph}\n```\n" if "\n  " in paragraph else _lines(paragraph)
        for paragraph in paragraphs
    )


def _lines(paragraph: str) -> str:
    return paragraph.replace("*", "\\*").replace("\n", "\\\n") + "\n"


def _summary(parser: argparse.ArgumentParser) -> str:
    first = (parser.description or "").splitlines()[0].rstrip(".")
    return first[0].lower() + first[1:]


def _example(parser: argparse.ArgumentParser) -> str:
    lines = (parser.epilog or "").splitlines()[1:]
    return "\n".join(line.removeprefix("  ") for line in lines)


def _actions(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.Action, bool]]:
    """Yield the arguments of a command, each with whether all commands have it."""
    for group in parser._action_groups:
        for action in group._group_actions:
            if action.help != argparse.SUPPRESS and action.dest != "help":
                yield action, (group.title or "").startswith("options for all")


def _usage(action: argparse.Action) -> str:
    flag, value = (action.option_strings or [""])[-1], _value(action)
    text = f"{flag} {value}".strip()
    if not action.option_strings:
        text = f"{value} …" if action.nargs in ("*", "+") else value
        return f"[{text}]" if action.nargs in ("*", "?") else text
    return text if action.required else f"[{text}]"


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.metavar is not None:
        return action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
    return "|".join(str(choice) for choice in action.choices) if action.choices else action.dest.upper()


def _arguments(parser: argparse.ArgumentParser, *, common: bool) -> Iterator[tuple[str, str]]:
    for action, is_common in _actions(parser):
        if is_common == common:
            value = _value(action)
            flags = [f"`{f'{flag} {value}'.strip()}`" for flag in action.option_strings] or [f"`{value}`"]
            yield ", ".join(flags), str(action.help)


# --------------------------------------------------------------------------- tasks, exit codes


def task_table() -> str:
    """Return the table of the tasks, with what each comes after."""
    rows = [
        (f"`{verb}:VENV`", doc, f"`{tasks._NEEDS[verb]}`" if tasks._NEEDS[verb] else _NOTHING)
        for verb, doc in tasks.TASK_DOCS.items()
    ]
    last = [
        ("`push`", "give the remote the snapshots of all venvs, where there is one", "all `store`"),
        ("`trim`", "drop snapshots by the policy and sweep what nothing refers to", "all `store`"),
    ]
    return table(("task", "does", "after"), [*rows, *last])


_WITHOUT_ERROR = {
    0: "Done; a hit.",
    1: "A miss, or the answer is no: `verify` found damage, `status --check` a venv that is not up to date, "
    "`build --fresh` a difference.",
    130: "Interrupted by Ctrl-C. By SIGTERM it is 143, by SIGHUP 129.",
}


def exit_codes() -> str:
    """Return the table of exit codes: those of the error classes, and those that are no errors."""
    meanings = {code: [meaning] for code, meaning in _WITHOUT_ERROR.items()}
    for kind in vars(errors).values():
        if (
            inspect.isclass(kind)
            and issubclass(kind, errors.VenvflowError)
            and kind.__bases__ != (Exception,)
        ):
            first = (inspect.getdoc(kind) or "").split("\n")[0].partition(";")[0].rstrip(".")
            meanings.setdefault(kind.exit_code, []).append(f"{first}.")
    rows = [(str(code), " ".join(meanings[code])) for code in sorted(meanings)]
    return table(("exit code", "means"), rows)


# --------------------------------------------------------------------------- the index


def views() -> str:
    """Return the columns of each view of the index."""
    connection = sqlite3.connect(":memory:")
    schema.apply(connection)
    rows = [
        (
            f"`{view}`",
            ", ".join(f"`{column[1]}`" for column in connection.execute(f"PRAGMA table_info({view})")),
        )
        for view in schema.VIEWS
    ]
    connection.close()
    return table(("view", "columns"), rows)
