"""``venvflow run``: what is done before, what the command gets, and why one is not started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import pytest
from cli_project import command

from venvflow.cli.run import activated

if TYPE_CHECKING:
    from cli_project import Project


class Started(NamedTuple):
    """A command that this process would have become: its words, its variables, its directory."""

    words: list[str]
    environ: dict[str, str]
    directory: str


class _Became(BaseException):
    """Ends what would have ended with this process's becoming another program."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Started]:
    """Give what was started, in the place of starting it."""
    found: list[Started] = []

    def start(_file: str, words: list[str], environ: dict[str, str]) -> NoReturn:
        found.append(Started(words, environ, os.getcwd()))
        raise _Became

    monkeypatch.setattr(os, "execvpe", start)
    return found


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def become(project: Project, *words: str) -> tuple[str, str]:
    """Run ``venvflow run`` up to where it becomes the command; return what it wrote."""
    project.capsys.readouterr()
    with pytest.raises(_Became):
        project.run("run", *words)
    return project.capsys.readouterr()


def test_the_venv_is_made_and_then_nothing_is_said(project: Project, started: list[Started]) -> None:
    """What doit says goes to standard error, and that there is nothing to do is no news."""
    out, err = become(project, "api", "--", "true")
    assert "restore:api  hit " in err
    assert "tasks done" in err
    assert become(project, "api", "--", "true") == ("", "")
    assert out == ""
    assert [each.words for each in started] == [["true"], ["true"]]


def test_the_command_finds_the_venv_as_activate_leaves_it(
    project: Project, started: list[Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bin first on PATH, and no PYTHONHOME; all other variables as they are."""
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("MINE", "\udcff")
    path = os.environ["PATH"]
    become(project, "api", "--", "python")
    (found,) = started
    venv = str(project.root / "api" / ".venv")
    assert found.environ["PATH"] == f"{venv}/bin:{path}"
    assert (found.environ["VIRTUAL_ENV"], found.environ["VIRTUAL_ENV_PROMPT"]) == (venv, ".venv")
    assert found.environ["MINE"] == "\udcff"
    assert "PYTHONHOME" not in found.environ
    assert found.directory == str(project.root)


@pytest.mark.parametrize(
    ("line", "prompt"), [("", "v"), ("prompt = mine\n", "mine"), ("prompt = 'its own'\n", "its own")]
)
def test_the_prompt_is_that_of_the_venv(tmp_path: Path, line: str, prompt: str) -> None:
    """As pyvenv.cfg has it, with quotes or without, else the directory's name; a PATH there is always."""
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "pyvenv.cfg").write_text(f"home = /usr/bin\n{line}")
    environ = activated(str(tmp_path / "v"), {})
    assert environ["VIRTUAL_ENV_PROMPT"] == prompt
    assert environ["PATH"] == f"{tmp_path}/v/bin:{os.defpath}"


WORDS = ["cmd", "--json", "-h", "--", "status", "run", "", "a b", "x\ny", "\udcff", "*", "--no-such"]


def test_what_follows_the_dashes_is_the_commands(project: Project, started: list[Started]) -> None:
    """Whatever it looks like, and whatever stands before it."""
    become(project, "-q", "api", "--", *WORDS)
    with pytest.raises(_Became):
        project.run("-C", ".", "run", "api", "--", *WORDS)
    assert [each.words for each in started] == [WORDS, WORDS]


def test_a_venv_need_not_be_named_where_there_is_one(project: Project, started: list[Started]) -> None:
    """Where there are several, they are named."""
    answer = project.run("run", "--", "true")
    assert (answer.code, "Name one: api, web." in answer.err) == (2, True)
    text = project.config.read_text().replace("  web: {path: web/.venv, locks: [web/requirements.txt]}\n", "")
    project.config.write_text(text)
    become(project, "--", "true")
    assert len(started) == 1


@pytest.mark.parametrize("words", ["api", "api --", "--", "", "api true", "api -q", "api true -- true"])
@pytest.mark.usefixtures("started")
def test_without_a_command_nothing_is_done(project: Project, words: str) -> None:
    """A word before the dashes is not taken for one: it may be a mistyped option's value."""
    before = project.hashes()
    answer = project.run("run", *words.split())
    assert (answer.code, answer.out) == (2, "")
    assert '"venvflow run VENV -- COMMAND"' in answer.err
    assert project.hashes() == before


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["apii"], "Did you mean api?"),
        (["--apii"], "there is no option --apii"),
        (["*x"], "There are: api, web."),
    ],
)
@pytest.mark.usefixtures("started")
def test_a_mistyped_venv_is_told(project: Project, words: list[str], hint: str) -> None:
    """With the nearest name, before anything is done."""
    before = project.hashes()
    answer = project.run("run", *words, "--", "true")
    assert answer.code == 2
    assert hint in answer.err
    assert project.hashes() == before


def test_it_works_as_if_started_elsewhere(
    project: Project, started: list[Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the project the directory stays; ``-C`` is a wish to be in that one. A dodo.py is not asked."""
    (project.root / "dodo.py").write_text("raise SystemExit('not this way')\n")
    (project.root / "web" / "deep").mkdir()
    monkeypatch.chdir(project.root / "web" / "deep")
    become(project, "api", "--", "true")
    monkeypatch.chdir("/")
    with pytest.raises(_Became):
        project.run("-C", f"{project.root}/web", "run", "api", "--", "true")
    assert [each.directory for each in started] == [f"{project.root}/web/deep", f"{project.root}/web"]


def test_a_venv_that_cannot_be_made_runs_nothing(project: Project, started: list[Started]) -> None:
    """The exit code is that of the failure, and its message is there."""
    document = {
        "path": "api/.venv",
        "locks": ["api/requirements.txt"],
        "build": [["false"]],
        "restore": False,
    }
    project.config.write_text(
        json.dumps({"version": 1, "store": {"path": "../store"}, "venvs": {"api": document}})
    )
    answer = project.run("run", "api", "--", "true")
    assert (answer.code, answer.out, started) == (4, "", [])
    assert "build-venv:api  failed" in answer.err


def test_a_venv_that_is_made_and_not_packed_runs(project: Project, started: list[Started]) -> None:
    """It is what its lock files say; that something is left to do is told each time."""
    text = project.config.read_text()
    project.config.write_text(
        text.replace("api/requirements.txt]", "api/requirements.txt], pack: {output: dist/}")
    )
    (project.root / "dist").write_text("in the way")
    for _ in range(2):
        _, err = become(project, "api", "--", "true")
        assert "pack:api  failed" in err
    assert len(started) == 2


def test_a_venv_changed_by_hand_runs_as_it_is(project: Project, started: list[Started]) -> None:
    """With the warning, each time."""
    become(project, "api", "--", "true")
    (project.site / "mine.py").write_text("")
    for _ in range(2):
        _, err = become(project, "api", "--", "true")
        assert "changed by hand (added: mine.py)" in err
    assert (project.site / "mine.py").exists()
    assert len(started) == 3


def test_a_venv_that_is_ignored_and_not_there_runs_nothing(project: Project, started: list[Started]) -> None:
    """Else the command would be that of the machine, or none."""
    become(project, "api", "--", "true")
    shutil.rmtree(project.root / "api" / ".venv")
    doit = [str(Path(sys.executable).parent / "doit"), "ignore", "api"]
    (project.root / "dodo.py").write_text("from venvflow.tasks import *\n")
    subprocess.run(doit, cwd=project.root, check=True, capture_output=True)
    answer = project.run("run", "api", "--", "true")
    assert (answer.code, len(started)) == (3, 1)
    assert '"doit forget api"' in answer.err


@pytest.mark.slow
def test_messages_that_nobody_can_get_change_nothing(project: Project) -> None:
    """As when the disk is full behind ``2>``."""
    line = f"{command()[0]} run api -- echo made 2> /dev/full"
    ran = subprocess.run(["sh", "-c", line], cwd=project.root, text=True, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "made\n")


# --------------------------------------------------------------------------- commands that do not start


def _script(project: Project, text: str, mode: int = 0o755) -> None:
    (project.root / "x.sh").write_text(text)
    (project.root / "x.sh").chmod(mode)


@pytest.mark.parametrize(
    "word", ["no-such-command", "cd", "./nothing", "/no/where", "", "x.sh", "venvflow.yaml/x"]
)
def test_a_command_that_is_not_there_is_127(project: Project, word: str) -> None:
    """What is in the working directory is not on PATH; what a shell has built in is no program."""
    _script(project, "#!/bin/sh\n")
    answer = project.run("run", "api", "--", word)
    assert (answer.code, answer.out) == (127, "")
    assert f"there is no command '{word}'" in answer.err
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN


@pytest.mark.parametrize(
    ("text", "mode", "word", "why"),
    [
        ("#!/bin/sh\n", 0o644, "./x.sh", "Permission denied"),
        ("#!/no/where\n", 0o755, "./x.sh", "the interpreter that its first line names is not there"),
        ("", 0o755, "./api", "Permission denied"),
    ],
)
def test_a_command_that_cannot_be_started_is_126(
    project: Project, text: str, mode: int, word: str, why: str
) -> None:
    """With what the system says."""
    _script(project, text, mode)
    answer = project.run("run", "api", "--", word)
    assert answer.code == 126
    assert why in answer.err


# --------------------------------------------------------------------------- real ones

LOOK = """\
import json, os, sys
fds = [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]
status = dict(line.rstrip().split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "pid": os.getpid(), "fds": sorted(fds), "cwd": os.getcwd(), "prefix": sys.prefix,
    "signals": [status[name] for name in ("SigBlk", "SigIgn")], "umask": status["Umask"],
    "stdin": sys.stdin.read(), "nice": os.nice(0),
}))
sys.exit(7)
"""


def _looked(words: list[str], project: Project) -> tuple[int, dict[str, Any]]:
    process = subprocess.Popen(
        words, cwd=project.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    out, _ = process.communicate("read me")
    assert process.returncode == 7
    document = json.loads(out)
    return process.pid, document


@pytest.mark.slow
def test_the_command_is_this_process_and_inherits_nothing_of_ours(project: Project) -> None:
    """Its id, streams, directory, umask and signals are what they would be without us, on a miss, too."""
    _, alone = _looked([sys.executable, "-c", LOOK], project)
    for venv in ("web", "web", "api"):  # built, up to date, restored
        pid, inside = _looked([*command(), "run", venv, "--", "python", "-c", LOOK], project)
        assert inside.pop("pid") == pid
        assert inside.pop("prefix") == str(project.root / venv / ".venv")
        assert inside == {name: value for name, value in alone.items() if name not in ("pid", "prefix")}


@pytest.mark.slow
def test_the_command_ends_as_it_likes(project: Project) -> None:
    """By a signal, or by a script that does not say what it is for; closed streams stay closed."""
    assert project.spawn("run", "api", "--", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    _script(project, "echo $1; exit 5\n")
    ran = project.spawn("run", "api", "--", "./x.sh", "a b")
    assert (ran.returncode, ran.stdout, ran.stderr) == (5, "a b\n", "")
    listing = "[ -e /proc/self/fd/0 ] || [ -e /proc/self/fd/1 ] || echo closed >&2"
    line = f"{command()[0]} run api -- sh -c '{listing}' <&- >&-"
    ran = subprocess.run(["sh", "-c", line], cwd=project.root, text=True, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "closed\n")


@pytest.mark.slow
def test_a_directory_that_is_gone_is_told(project: Project) -> None:
    """As by the other commands, without a traceback; ``-C`` helps."""
    line = 'mkdir gone && cd gone && rmdir "$PWD" && exec'
    for more, code in (("", 3), (f"-C {project.root}", 0)):
        words = f"{line} {command()[0]} {more} run api -- true"
        ran = subprocess.run(
            ["sh", "-c", words], cwd=project.root.parent, text=True, capture_output=True, check=False
        )
        assert ran.returncode == code, ran.stderr
        assert "Traceback" not in ran.stderr
