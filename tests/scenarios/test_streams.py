"""Real processes whose standard streams are closed, full, or read by nobody."""

from __future__ import annotations

import os
import shlex
import shutil

import pytest
from forks import CALLS
from scenario import BESIDE, DOIT, Machine, Project, Run

VENVFLOW = os.path.join(BESIDE, "venvflow")


@pytest.fixture
def project(machine: Machine) -> Project:
    """Give a project with one venv that is to be built."""
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"))
    return project


def shell(project: Project, program: str, redirection: str, *words: str) -> Run:
    """Run a program with a *redirection* of the shell; exit code and errors are its own."""
    line = f"exec 9>status; {{ {shlex.join([program, *words])}; echo $? >&9; }} {redirection}"
    run = project.run(["bash", "-c", line])
    code = int((project.root / "status").read_text())
    return Run(code, run.out, run.err)


REDIRECTIONS = [">&-", "2>&-", "<&-", ">&- 2>&- <&-", "| head -0", "2>/dev/full"]


@pytest.mark.parametrize(
    ("redirection", "words"),
    [
        *((each, "") for each in REDIRECTIONS),
        *((each, "-n 2") for each in REDIRECTIONS[-3:-1]),
        *(
            pytest.param(each, "-n 2", marks=pytest.mark.long)
            for each in (*REDIRECTIONS[:-3], REDIRECTIONS[-1])
        ),
    ],
)
def test_doit_does_its_work_whoever_listens(project: Project, redirection: str, words: str) -> None:
    """Closed streams, or a reader that goes away: the venv is made all the same."""
    run = shell(project, DOIT, redirection, *words.split())
    assert run.code == 0, run.text
    assert "Traceback" not in run.text
    assert "Exception ignored" not in run.text
    assert project.output("api", "alpha") == "1.0"
    assert project.doit().nothing_to_do


def test_doit_says_when_its_output_could_not_be_written(project: Project) -> None:
    """Who reads the log later must not take it for the whole; the work is done all the same."""
    run = shell(project, DOIT, ">/dev/full")
    assert run.code == 3
    assert "cannot write the answer: No space left on device. What the command did is done." in run.err
    assert "Traceback" not in run.text
    assert project.output("api", "alpha") == "1.0"


@pytest.mark.parametrize(
    ("more", "every"),
    [("", 4), *(pytest.param(each, 1, marks=pytest.mark.long) for each in ("", "--json", "--help"))],
)
def test_no_command_complains_when_it_ends_before_a_closed_pipe(
    project: Project, more: str, every: int
) -> None:
    """``| head -1`` of every command, as text, as JSON, and of its help: nothing but what it has to say."""
    project.doit()
    for call in [*CALLS.values()][::every]:
        words = [*call.replace("../", "../x-").split(), *more.split()]
        run = shell(project, VENVFLOW, "| head -1", *words)
        assert run.code in (0, 1, 2, 3, 6), run.text
        assert not [word for word in ("Traceback", "Exception ignored", "roken") if word in run.err], run
        for made in project.machine.root.glob("x-*"):
            shutil.rmtree(made) if made.is_dir() else made.unlink()
