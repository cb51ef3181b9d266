"""Every command where streams, terminal, home, permissions or the working directory are not as usual."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from contents import for_everybody, needs_root, picture
from forks import CALLS, Said, again, forked, on_terminal

from venvflow.cli.parser import COMMANDS
from venvflow.errors import shown

if TYPE_CHECKING:
    from cli_project import Project

pytestmark = pytest.mark.slow


def test_every_command_is_called_here() -> None:
    """A new command has to be told apart by everything below; ``run`` answers what its command answers."""
    assert set(CALLS) == set(COMMANDS) - {"run", "pull", "push"}


# --------------------------------------------------------------------------- standard streams


def test_a_reader_that_went_away_is_no_error(ready: Project) -> None:
    """``| head``: silent, and with the exit code of the work, as text, as JSON, and for the help."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        for words in variants(ready):
            said = forked(words, stdout=writing)
            assert said.code in (0, 1, 6), said
            assert "ipe" not in said.err, said
            assert "cannot write" not in said.err, said
    finally:
        os.close(writing)


@pytest.mark.parametrize("kind", ["full", "closed"])
def test_an_answer_that_cannot_be_written_is_an_error(kind: str, ready: Project) -> None:
    """A full disk behind ``>``, or ``>&-``: exit code 3, and what was done is done."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        for words in variants(ready) if kind == "full" else CALLS.values():
            said = forked(words, stdout=full, first=_close_stdout if kind == "closed" else int)
            assert said.code == 3, said
            assert "cannot write the answer" in said.err
            assert "What the command did is done." in said.err
            assert "send the answer somewhere else" in said.err
    finally:
        os.close(full)


def test_messages_that_nobody_can_get_change_nothing(ready: Project) -> None:
    """With standard error closed or full, and without any input, answer and exit code are as ever."""
    for words in (f"{call} --json" for call in CALLS.values()):
        again(ready)
        usual = forked(words)
        for first in (_close_stderr, _fill_stderr, _close_stdin):
            again(ready)
            said = forked(words, first=first)
            assert said.code == usual.code, words
            assert _keys(said) == _keys(usual), words


def variants(project: Project) -> Iterator[str]:
    """Yield the words of every command, as text, as JSON and for its help, each in a state as before."""
    for words in CALLS.values():
        for more in ("", " --json", " --help"):
            again(project)
            yield words + more


def _close_stdout() -> None:
    os.close(1)
    sys.stdout = None


def _close_stderr() -> None:
    os.close(2)
    sys.stderr = None


def _close_stdin() -> None:
    os.close(0)


def _fill_stderr() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)


def _keys(said: Said) -> object:
    return sorted(json.loads(said.out)) if said.out.startswith("{") else said.out


# --------------------------------------------------------------------------- terminals and locales


def test_a_narrow_terminal_cuts_no_line_badly(ready: Project) -> None:
    """With 40 columns, tables keep within them; only what must stay whole (a path, a sentence) is longer."""
    for words in CALLS.values():
        again(ready)
        shown = on_terminal(words, columns=40)
        assert "Traceback" not in shown
        titles = [
            line for line in shown.splitlines() if re.fullmatch(r"(?:[A-Z]+ ?)+(?: {2,}[A-Z ]+)+", line)
        ]
        assert all(len(line) <= 40 for line in titles), shown


def test_what_a_locale_cannot_show_is_escaped(ready: Project) -> None:
    """In the C locale and below a directory that is not even UTF-8, every command answers in ASCII."""
    odd = os.path.join(os.fsencode(ready.root.parent), b"pr\xc3\xb6j \xff \xe2\x98\x83")
    os.rename(ready.root, odd)
    os.chdir(odd)
    for words in CALLS.values():
        again(ready)
        said = forked(words, encoding="ascii")
        assert said.code in (0, 1, 6), said
        assert "should not happen" not in said.err, said


# --------------------------------------------------------------------------- directories and users


def test_a_working_directory_that_is_gone_is_said(ready: Project) -> None:
    """Whoever needs it says so with 3; everybody works elsewhere with -C."""
    gone = ready.root.parent / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    for command, words in CALLS.items():
        said = forked(words)
        assert said.code == (0 if command in ("schema", "version", "completion", "keygen") else 3), said
        assert "should not happen" not in said.err, said
        assert said.code == 0 or "Change to a directory that exists" in said.err, said


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("home", ["", "/root"])
def test_a_user_who_may_write_nowhere_gets_answers_or_reasons(home: str, ready: Project) -> None:
    """Without home, passwd entry or any permission to write: answers, or 3 or 6; nothing changes."""
    have_everything_imported()
    with for_everybody() as place:
        for name in ("project", "store", "api.tar", "fresh"):
            source = ready.root.parent / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, place / name)
        os.chdir(place / "project")
        before = picture(place)
        for command, words in CALLS.items():
            said = forked(words, first=lambda: become(54321, home))
            assert said.code in (0, 1, 3, 6), said
            assert "should not happen" not in said.err, said
            lines = 1 + (command == "build")  # what failed, and that doit's state was not saved
            assert said.code in (0, 1) or len(said.err.splitlines()) == lines, said
            assert picture(place) == before, words


def become(user: int, home: str) -> None:
    """Be *user*, with nothing in the environment but *home*."""
    os.environ.clear()
    if home:
        os.environ["HOME"] = home
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def have_everything_imported() -> None:
    """Import all that a command may import later: the tests' Python may lie where others cannot read."""
    import venvflow

    others = ["difflib", "encodings.ascii", "encodings.idna", "encodings.latin_1", "pwd", "subprocess"]
    for name in (*others, "sqlite_utils"):
        importlib.import_module(name)
    for module in pkgutil.walk_packages(venvflow.__path__, "venvflow."):
        if module.name.rpartition(".")[2] not in ("__main__", "compile_worker", "postinstall"):
            importlib.import_module(module.name)


# --------------------------------------------------------------------------- variables


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("VENVFLOW_CONFIG", "/nowhere/venvflow.yaml", 2),
        ("VENVFLOW_CONFIG", "/dev/null", 2),
        ("VENVFLOW_WORK_DIR", "/nowhere", 2),
        ("VENVFLOW_WORK_DIR", "/dev/null", 2),
        ("VENVFLOW_FORMAT", "xml", 2),
        ("VENVFLOW_FORMAT", "JSON", 2),
        ("VENVFLOW_STORE", "/dev/null", 3),
        ("VENVFLOW_STORE", "/dev/null/store", 3),
        ("VENVFLOW_STORE", "\udcff\n", 1),
        ("VENVFLOW_LOCK_TIMEOUT", "soon", 2),
        ("VENVFLOW_LOCK_TIMEOUT", "-1", 2),
        ("VENVFLOW_LOCK_TIMEOUT", "nan", 2),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(
    name: str, value: str, code: int, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message with the value; a strange name of a store is a name."""
    monkeypatch.setenv(name, value)
    answer = project.run("restore", "api")
    assert answer.code == code, answer
    assert code == 1 or shown(value) in answer.err, answer.err
    assert "should not happen" not in answer.err


@pytest.mark.parametrize(
    "words", ["init --check ../fresh", "pack api -o ../out/ --smoke 1", "pack api --check"]
)
def test_without_a_temporary_directory_it_is_said(words: str, ready: Project) -> None:
    """Who needs one names it, with exit code 3."""
    said = forked(words, first=lambda: setattr(tempfile, "tempdir", "/nowhere"))
    assert said.code in (0, 1, 3), said
    assert "should not happen" not in said.err, said
    assert said.code != 3 or "/nowhere" in said.err, said
