"""All text for people: what reaches a terminal, and that nothing gets there by another way."""

from __future__ import annotations

import ast
import io
import json
import os
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_architecture import modules

from venvflow import streams
from venvflow.cli.render import Column, Output, table
from venvflow.reporter import FlowReporter

CANARY = "CANARY-0123456789"
BAD = f"\x1b]0;evil\x07\u202e https://me:{CANARY}@host/x?sig={CANARY}"

ALLOWED = {"streams", "postinstall", "compile_worker", "cli.render"}
"""Modules that write to a standard stream; render writes what it made fit."""


def test_what_is_written_shows_escapes_and_no_credentials() -> None:
    """Lines stay lines, and a message that quotes anything is harmless."""
    stream = io.StringIO()
    streams.put(stream, f"one {BAD}\ntwo password={CANARY}\n")
    assert stream.getvalue() == (
        "one \\x1b]0;evil\\x07\\u202e https://***@host/x?sig=***\ntwo password=***\n"
    )


@pytest.mark.parametrize("how", ["older locale", "frozen", "begun anew"])
def test_a_program_begins_anew_once_and_only_as_python(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is frozen into one file does not take Python's options, and would begin for ever."""
    begun: list[list[str]] = []
    words = ["-X", "utf8", "-m", "venvflow"] if how == "begun anew" else ["-m", "venvflow"]
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    if how == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, *words])
    monkeypatch.setattr(os, "execv", lambda _path, argv: begun.append(argv))
    streams.take_names_for_utf_8()
    expected = [[sys.executable, "-X", "utf8", *words]]
    assert begun == (expected if how == "older locale" else [])


def test_only_our_own_colours_are_colours() -> None:
    """What looks like one in a name is shown, also beside one of ours."""
    assert streams.printable(streams.painted("a\x1b[31mb", 32)) == "\x1b[32ma\\x1b[31mb\x1b[0m"


def test_the_mark_of_our_colours_is_another_one_each_time() -> None:
    """It is a character for private use; a name that has it by chance gets a colour, and no more."""
    assert 0xF0000 <= ord(streams._INK) < 0xFFFFE
    assert len({_ink() for _ in range(20)}) > 1


def _ink() -> str:
    space: dict[str, Any] = {}
    with open(streams.__file__, encoding="utf-8") as file:
        exec(compile(file.read(), "streams", "exec"), space)  # noqa: S102 - our own module, once more
    return str(space["_INK"])


@given(st.text(max_size=40))
def test_no_name_in_a_table_adds_a_line(name: str) -> None:
    """Or a column, or a colour."""
    text = table(Output({}), (Column("name"), Column("x")), [(name, "end")])
    assert len(text.split("\n")) == 2
    assert text.endswith("end")
    assert all(line.isprintable() for line in text.split("\n"))


@given(st.text(max_size=40))
def test_json_is_ascii_that_no_terminal_obeys(name: str) -> None:
    """And says the same as before: DEL, too, is an escape."""
    written: list[str] = []
    out = Output({})
    out._write = written.append  # type: ignore[method-assign, assignment]
    out.document({name: [name, {"x": name}]})
    (text,) = written
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    if "://" not in name:
        assert json.loads(text) == {name: [name, {"x": name}]}


def test_json_has_no_credentials(capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever a URL stands in it."""
    Output({}).document({"a": [BAD], BAD: {"b": (BAD, 1, None)}})
    text = capsys.readouterr().out
    assert CANARY not in text
    assert json.loads(text)["a"] == ["\x1b]0;evil\x07\u202e https://***@host/x?sig=***"]


def test_every_way_to_speak_goes_through_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Answers, messages, warnings, tracebacks, and what doit shows."""
    out = Output({}, verbose=True)
    out.answer(BAD)
    out.say(BAD)
    out.warn(f"{BAD}\nvenvflow: forged")
    _fail(out)
    FlowReporter(None, {}).write(f"{BAD}\n")
    told = "".join(capsys.readouterr())
    assert CANARY not in told
    assert told.replace("\n", "").isprintable()
    assert "\nvenvflow: forged" not in told


def _fail(out: Output) -> None:
    try:
        int(BAD)
    except ValueError as error:
        out.fail(str(error))


def _writes(tree: ast.AST) -> list[str]:
    """Return what writes to a standard stream in a module, whatever it is called there."""
    found = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    streams_of_ours = (
        "sys.stdout.write",
        "sys.stderr.write",
        "print",
        "traceback.print_exc",
        "outstream.write",
    )
    return [name for name in found if name in streams_of_ours or name.endswith("stream.write")]


def test_nobody_else_writes_to_a_standard_stream() -> None:
    """Who could forget to make a text fit has no way to write it."""
    assert _writes(ast.parse("print(1)\nsys.stderr.write(x)\nself._stream.write(x)")) != []
    found = {name: writes for name, module in modules().items() if (writes := _writes(module.tree))}
    # These write files, or what :func:`venvflow.streams.printable` made.
    for name in (*ALLOWED, "init.draft", "progress_display", "steps.doctor.probes"):
        found.pop(name, None)
    assert found == {}
