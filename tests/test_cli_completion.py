"""``completion``: what real shells complete with the scripts that it prints."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from contents import fork

from venvflow.cli.completion import COMPLETERS, SHELLS, completer_of
from venvflow.cli.parser import COMMANDS, make_parser

if TYPE_CHECKING:
    from cli_project import Project


PROGRAM = str(Path(sys.executable).parent / "venvflow")


def shell(name: str) -> str:
    """Return the path of a shell, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed on this machine")
    return found


@pytest.fixture
def scripts(project: Project, tmp_path: Path) -> Path:
    """Give a directory with the script for each shell, and a project to complete in."""
    for name in SHELLS:
        answer = project.run("completion", name)
        assert (answer.code, answer.err) == (0, "")
        (tmp_path / f"script.{name}").write_text(answer.out, encoding="utf-8")
    (project.root / "some dir").mkdir()
    (project.root / "archive.tar.zst").touch()
    return tmp_path


# --------------------------------------------------------------------------- bash


def in_bash(scripts: Path, *words: str) -> list[str]:
    """Return what bash offers for the last of *words*."""
    line = " ".join(("venvflow", *words))
    text = (
        f'source {scripts}/script.bash; COMP_LINE="$1" COMP_POINT=${{#1}}; _python_argcomplete {PROGRAM}; '
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        [shell("bash"), "--norc", "-c", text, "bash", line],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert done.stderr == ""
    return [each.rstrip() for each in done.stdout.splitlines() if each]


@pytest.mark.slow
def test_bash_completes_commands(scripts: Path) -> None:
    """All of them, or those that begin as the word does; also after options with values."""
    assert in_bash(scripts, "") == list(COMMANDS)
    assert in_bash(scripts, "sta") == ["status", "stats"]
    assert in_bash(scripts, "-C", "/", "--json", "res") == ["restore"]


@pytest.mark.slow
def test_bash_completes_options(scripts: Path) -> None:
    """Those of the command, and those of all commands; short ones too."""
    offered = in_bash(scripts, "restore", "--")
    assert {"--force", "--json", "--work-dir"} <= set(offered)
    assert "--check" not in offered
    assert in_bash(scripts, "status", "--ch") == ["--check"]
    assert {"-n", "--dry-run"} <= set(in_bash(scripts, "squish", "-"))


@pytest.mark.slow
def test_bash_completes_names_of_venvs(scripts: Path, project: Project) -> None:
    """Of the config that is found from here, or that the line names; several where the command takes them."""
    assert in_bash(scripts, "restore", "") == ["api", "web"]
    project.config.write_text(project.config.read_text() + "sets: {ci: [api]}\n")
    assert in_bash(scripts, "restore", "c") == ["ci"]
    assert in_bash(scripts, "status", "api", "w") == ["web"]
    assert in_bash(scripts, "restore", "--force", "a") == ["api"]
    assert in_bash(scripts, "list", "api", "") == []
    other = project.root.parent / "other"
    other.mkdir()
    config = "version: 1\nvenvs: {my.venv: {path: v, locks: [l]}, deep: {path: w, locks: [l]}}\n"
    (other / "venvflow.yaml").write_text(config, encoding="utf-8")
    assert in_bash(scripts, "-C", str(other), "restore", "") == ["my.venv", "deep"]
    assert in_bash(scripts, "restore", f"--work-dir={other}", "d") == ["deep"]
    assert in_bash(scripts, "-c", f"{other}/venvflow.yaml", "pack", "d") == ["deep"]


@pytest.mark.slow
def test_bash_completes_choices_and_their_equals_sign(scripts: Path) -> None:
    """In one word."""
    assert in_bash(scripts, "--format", "") == ["text", "json"]
    assert in_bash(scripts, "list", "--format=") == ["text", "json"]
    assert in_bash(scripts, "list", "--format=j") == ["json"]
    assert in_bash(scripts, "squish", "--bytecode", "k") == ["keep"]
    assert in_bash(scripts, "completion", "") == list(SHELLS)


@pytest.mark.slow
def test_bash_completes_paths(scripts: Path, project: Project) -> None:
    """Files or directories, by what the argument is; a venv or a path where both will do."""
    os.chdir(project.root)
    assert set(in_bash(scripts, "-C", "")) == {"api/", "web/", "some\\ dir/"}
    assert in_bash(scripts, "unpack", "arch") == ["archive.tar.zst"]
    assert in_bash(scripts, "unpack", "archive.tar.zst", "some") == ["some\\ dir/"]
    assert in_bash(scripts, "diff", "ap") == ["api", "api/"]
    assert in_bash(scripts, "pack", "-o", "archive") == ["archive.tar.zst"]
    assert in_bash(scripts, "pack", "--level", "") == []
    (project.root / ".hidden").touch()
    (project.root / "arch\x1b]0;\x0bivory").touch()
    assert in_bash(scripts, "unpack", "arch") == ["archive.tar.zst"]
    assert ".hidden" not in in_bash(scripts, "unpack", "")
    assert in_bash(scripts, "unpack", ".h") == [".hidden"]


@pytest.mark.slow
def test_bash_says_nothing_where_there_is_no_config(scripts: Path, tmp_path: Path, project: Project) -> None:
    """Neither a message in the middle of a line, nor an error."""
    (tmp_path / "bare").mkdir()
    os.chdir(tmp_path / "bare")
    assert in_bash(scripts, "restore", "") == []
    project.config.write_text("venvs: [", encoding="utf-8")
    os.chdir(project.root)
    assert in_bash(scripts, "restore", "") == []


@pytest.mark.slow
def test_bash_completes_below_the_home_directory(
    scripts: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tilde stays as it was typed, and leads to the config, too; where names are set, they count."""
    monkeypatch.setenv("HOME", str(project.root.parent))
    os.chdir("/")
    assert in_bash(scripts, "-C", f"~/{project.root.name}/so") == [f"~/{project.root.name}/some\\ dir/"]
    assert in_bash(scripts, "-C", f"~/{project.root.name}", "restore", "w") == ["web"]
    monkeypatch.setenv("VENVFLOW_WORK_DIR", str(project.root))
    assert in_bash(scripts, "restore", "w") == ["web"]


# --------------------------------------------------------------------------- fish


def in_fish(scripts: Path, line: str) -> list[str]:
    """Return what fish offers at the end of *line*."""
    done = subprocess.run(
        [shell("fish"), "--no-config", "-c", f"source {scripts}/script.fish; complete -C {line!r}"],
        capture_output=True, text=True, check=True, timeout=30,
        env={**os.environ, "PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stderr == ""
    return [each.partition("\t")[0] for each in done.stdout.splitlines()]


@pytest.mark.slow
def test_fish_completes_everything(scripts: Path, project: Project) -> None:
    """Commands, options, choices, venvs and paths, each where it belongs."""
    os.chdir(project.root)
    assert sorted(in_fish(scripts, "venvflow ")) == sorted(COMMANDS)
    assert in_fish(scripts, "venvflow -C / sta") == ["stats", "status"]
    assert in_fish(scripts, "venvflow restore ") == ["api", "web"]
    assert in_fish(scripts, "venvflow status api ") == ["api", "web"]
    assert in_fish(scripts, "venvflow run api ") == []
    assert in_fish(scripts, f"venvflow -C {project.root} restore w") == ["web"]
    assert "--force" in in_fish(scripts, "venvflow restore --")
    assert "--force" not in in_fish(scripts, "venvflow status --")
    assert in_fish(scripts, "venvflow list --format ") == ["json", "text"]
    assert in_fish(scripts, "venvflow unpack arch") == ["archive.tar.zst"]
    assert in_fish(scripts, "venvflow completion ") == sorted(SHELLS)


# --------------------------------------------------------------------------- zsh


class Zsh:
    """An interactive zsh on a terminal of its own."""

    def __init__(self, scripts: Path, directory: Path) -> None:
        self._child, self._terminal = fork(pty.fork)
        if self._child == 0:
            os.chdir(directory)
            path = f"{Path(PROGRAM).parent}:{os.environ['PATH']}"
            environ = {**os.environ, "PATH": path, "TERM": "dumb", "ZDOTDIR": str(scripts), "PS1": "> "}
            os.execve(shell("zsh"), ["zsh", "-f", "-i"], environ)  # noqa: S606 - the point of it
        self._send(
            f"autoload -Uz compinit && compinit -D -u && source {scripts}/script.zsh "
            "&& setopt no_beep no_auto_menu && LISTMAX=999 && print READY''NOW\n"
        )
        assert "READYNOW" in self._read("READYNOW")

    def completes(self, line: str, expected: str) -> bool:
        """Return whether a tab after *line* shows *expected*; the line is then thrown away."""
        self._send(f"{line}\t")
        said = self._read(expected)
        self._send("\x15")
        return expected in said

    def end(self) -> None:
        """End the shell."""
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)
        os.close(self._terminal)

    def _send(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def _read(self, expected: str) -> str:
        """Return what is shown until *expected* comes, or for a while."""
        said, end = "", time.monotonic() + 15
        while expected not in said and time.monotonic() < end:
            ready, _, _ = select.select([self._terminal], [], [], 0.2)
            if ready:
                said += os.read(self._terminal, 65_536).decode(errors="replace")
        return said


@pytest.mark.slow
def test_zsh_completes_everything(scripts: Path, project: Project) -> None:
    """Commands, options, choices, venvs and paths, each where it belongs."""
    shell("zsh")
    zsh = Zsh(scripts, project.root)
    try:
        assert zsh.completes("venvflow resto", "venvflow restore ")
        assert zsh.completes("venvflow -C / unsq", "unsquish ")
        assert zsh.completes("venvflow restore w", "restore web ")
        assert zsh.completes(f"venvflow -C {project.root} status api w", "api web ")
        assert zsh.completes("venvflow restore --for", "--force ")
        assert zsh.completes("venvflow list --format=js", "--format=json")
        assert zsh.completes("venvflow unpack arch", "archive.tar.zst ")
        assert zsh.completes("venvflow completion ba", "bash ")
        assert zsh.completes("venvflow ", "look for what goes wrong in practice")
    finally:
        zsh.end()


# --------------------------------------------------------------------------- the scripts


@pytest.mark.slow
def test_the_command_of_run_is_a_program_of_the_venv_or_a_file(project: Project, scripts: Path) -> None:
    """Behind the dashes; what belongs to the venv comes first."""
    assert project.run("restore", "api").code == 0
    assert in_bash(scripts, "run", "a") == ["api"]
    assert in_bash(scripts, "run", "api", "--", "dem") == ["demo"]
    assert in_bash(scripts, "run", "api", "--", "demo", "venvflow.y") == ["venvflow.yaml"]


def test_what_completes_an_argument_is_decided() -> None:
    """An argument that is called by a new word is put into the table, or here."""
    plain = {
        "ACTION",
        "CODE",
        "COMMAND",
        "FORMAT",
        "HEX",
        "MODE[,MODE]",
        "N",
        "N/M",
        "NAME",
        "PATTERN",
        "WHEN",
        "SIZE",
        "SHELL",
    }
    called = {
        str(action.metavar)
        for parser in make_parser().commands.values()
        for action in parser.arguments
        if action.nargs != 0 and action.metavar is not None
    }
    assert called - plain - COMPLETERS.keys() == set()
    named = {
        completer_of(action).__name__
        for parser in make_parser().commands.values()
        for action in parser.arguments
        if action.option_strings
    }
    assert "_venvs" not in " ".join(named)


def test_unknown_shells_are_wrong_words(project: Project) -> None:
    """No script is printed for what is not supported."""
    answer = project.run("completion", "tcsh")
    assert (answer.code, answer.out) == (2, "")
    assert project.run("completion").code == 2


def test_missing_lock_files_do_not_matter(scripts: Path, project: Project) -> None:
    """Nor that there are no venvs at all."""
    (project.root / "api" / "requirements.txt").unlink()
    assert in_bash(scripts, "restore", "") == ["api", "web"]
    project.config.write_text(project.config.read_text() + "sets: {ci: [api]}\n")
    assert in_bash(scripts, "restore", "c") == ["ci"]
    project.config.write_text("version: 1\nvenvs: {}\n", encoding="utf-8")
    assert in_bash(scripts, "restore", "") == []
