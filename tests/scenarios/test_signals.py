"""Signals at many moments of real runs: one line, nothing left running, and the next run finishes the job."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from scenario import Machine, Project, finished, wait_until

from venvflow import interrupts

ENDS = ("INT", "INT INT", "TERM TERM TERM", "HUP", "KILL")
"""Signals that are sent a few milliseconds apart."""

LEAVES_SOMETHING = 'mkdir "$TMPDIR/build"; for i in 1 2 3 4 5; do sleep 0.05; done'


@pytest.fixture
def project(machine: Machine) -> Project:
    """Give a project of two venvs whose builders take their time, and leave temporary files."""
    project = machine.project("p", {})
    build = [["{python}", "-I", "-m", "venv", "--without-pip", "{venv}"], ["sh", "-c", LEAVES_SOMETHING]]
    project.configure({name: {"build": build} for name in "ab"})
    for name in "ab":
        (project.root / name).mkdir()
        (project.root / name / "requirements.txt").write_text(f"# {name}\n")
    return project


@pytest.mark.parametrize(("ends", "delay"), [*zip(ENDS, (0.3, 0.6, 0.0, 0.3, 0.3), strict=True)])
def test_a_run_ends_well_whenever_it_is_told_to(project: Project, ends: str, delay: float) -> None:
    """While it loads, while it builds, or while it shares."""
    end_at(project, ["-n", "2"], ends, delay)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("words", [[], ["-n", "2"]])
def test_a_run_ends_well_at_every_moment(project: Project, words: list[str], ends: str) -> None:
    """Every hundredth of a second, until it is over before the signal comes."""
    delay = 0.0
    while end_at(project, words, ends, delay):
        delay += 0.01
    assert delay > 0.2


def end_at(project: Project, words: list[str], ends: str, delay: float) -> bool:
    """Send signals to a run, *delay* seconds after it can handle them; return whether they came in time.

    Then see that nothing is left of it, and that the next run finishes the job.
    """
    for made in (project.machine.store, project.root / ".venvflow", *map(project.venv, "ab")):
        shutil.rmtree(made, ignore_errors=True)
    process = project.start(*words)
    wait_until(lambda: process.poll() is not None or handles_signals(process.pid))
    time.sleep(delay)
    numbers = [signal.Signals[f"SIG{name}"] for name in ends.split()]
    came = False
    for number in numbers:
        came = came or process.poll() is None
        process.send_signal(number)
        time.sleep(0.005)
    run = finished(process)
    at = f"{ends} after {delay:.2f} s: {run}"
    if came and run.code:
        assert run.code == -numbers[0], at
        assert run.err in ("" if ends == "KILL" else interrupts.OF_A_RUN, ""), at
    wait_until(lambda: not processes_of(project.machine.root))
    again = project.doit(code=None)
    assert (again.code, again.err) == (0, ""), f"{again} after {at}"
    assert project.doit().nothing_to_do, at
    assert list(project.machine.root.rglob(".vf-*")) == [], at
    return came


def handles_signals(pid: int) -> bool:
    """Return whether a process has a handler for SIGHUP by now, the last one that a run installs."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught & 1 << (signal.SIGHUP - 1))


def processes_of(root: Path) -> list[str]:
    """Return the processes that were started on the machine at *root* and still run."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            environ = Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(root) in environ:
            found.append(name)
    return found
