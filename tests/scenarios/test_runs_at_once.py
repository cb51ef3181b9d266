"""Several runs at once: each piece of work is done once, and all of them end well."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from scenario import Machine, Project, finished, manifest_of, wait_until


def _counted(
    machine: Machine, name: str, counter: Path, venvs: tuple[str, ...] = ("api",), seconds: float = 0.3
) -> Project:
    project = machine.project(name, {})
    build = project.counting_builder(counter, seconds)
    project.configure({venv: {"build": build} for venv in venvs})
    for venv in venvs:
        directory = project.root / venv
        directory.mkdir()
        (directory / "requirements.txt").write_text(f"# {venv}\n")
    return project


def _lines(counter: Path) -> int:
    return len(counter.read_text().splitlines()) if counter.exists() else 0


def test_two_runs_in_one_project_build_once(machine: Machine) -> None:
    """The second one waits, sees that all is done, and ends with 0."""
    counter = machine.root / "counter"
    project = _counted(machine, "p", counter)
    runs = [finished(process) for process in [project.start() for _ in range(2)]]
    assert [run.code for run in runs] == [0, 0], runs[0].text + runs[1].text
    assert _lines(counter) == 1
    assert len(machine.snapshots()) == 1
    assert project.doit().nothing_to_do


def test_three_runs_of_two_venvs_in_one_project_build_each_once(machine: Machine) -> None:
    """With workers of their own, too, and whichever is first."""
    counter = machine.root / "counter"
    project = _counted(machine, "p", counter, ("a", "b"))
    words = [[], ["-n", "2"], ["-n", "3"]]
    runs = [finished(process) for process in [project.start(*each) for each in words]]
    assert [run.code for run in runs] == [0, 0, 0], "\n".join(run.text for run in runs)
    assert _lines(counter) == 2
    assert project.doit().nothing_to_do


def test_two_projects_on_one_store_build_once(machine: Machine) -> None:
    """The other project takes the snapshot that the first publishes."""
    counter = machine.root / "counter"
    projects = [_counted(machine, name, counter) for name in ("one", "two")]
    runs = [finished(process) for process in [project.start() for project in projects]]
    assert [run.code for run in runs] == [0, 0], runs[0].text + runs[1].text
    assert _lines(counter) == 1
    for project in projects:
        assert (project.site("api") / "gamma.py").exists()
        assert project.doit().nothing_to_do


@pytest.mark.parametrize("words", [["-n", "2"], []])
def test_two_projects_that_build_the_same_venvs_in_crossing_order(machine: Machine, words: list[str]) -> None:
    """Each holds what the other wants: nobody waits for ever, and each venv is built once."""
    counter = machine.root / "counter"
    one = _counted(machine, "one", counter, ("a", "b"))
    two = _counted(machine, "two", counter, ("b", "a"))
    runs = [finished(process, timeout=40) for process in [project.start(*words) for project in (one, two)]]
    assert [run.code for run in runs] == [0, 0], runs[0].text + runs[1].text
    assert _lines(counter) == 2
    assert one.doit().nothing_to_do
    assert two.doit().nothing_to_do


def test_two_venvs_of_one_key_in_one_run_build_once(machine: Machine) -> None:
    """Workers of one run share the work like runs do."""
    counter = machine.root / "counter"
    project = _counted(machine, "p", counter, ("a", "b", "c"))
    for venv in "abc":
        (project.root / venv / "requirements.txt").write_text("# the same\n")
    project.doit("-n", "3")
    assert _lines(counter) == 1


@pytest.mark.slow
@pytest.mark.parametrize("same_project", [True, False], ids=["one project", "two projects"])
def test_a_killed_builder_run_does_not_stop_the_other(machine: Machine, same_project: bool) -> None:
    """``kill -9`` of the run that builds: the one that waits finishes, and no lock needs to be removed."""
    counter = machine.root / "counter"
    first = _counted(machine, "one", counter, seconds=5)
    second = first if same_project else _counted(machine, "two", counter, seconds=5)
    killed = first.start()
    wait_until(lambda: _lines(counter) == 1)
    other = second.start()
    time.sleep(0.7)  # by then it waits; if it does not yet, the test still holds
    killed.send_signal(signal.SIGKILL)
    wait_until(lambda: _lines(counter) == 2)
    (machine.root / "counter.go").touch()
    run = finished(other)
    assert run.code == 0, run.text
    assert (second.site("api") / "gamma.py").exists()
    assert second.doit().nothing_to_do
    assert _lines(counter) == 2
    if not same_project:
        assert first.doit().did["restore:api"].startswith("hit")
    assert sorted(os.listdir(first.root / "api")) == [".venv", "requirements.txt"]


LATER = [pytest.param(moment, marks=pytest.mark.long) for moment in (0.0, 0.02, 0.1, 0.15, 0.3)]
"""Further moments; the faults kill at every call."""


@pytest.mark.parametrize("moment", [0.05, 0.2, 0.4, *LATER])
def test_a_run_that_is_killed_at_any_time_is_finished_by_the_next(machine: Machine, moment: float) -> None:
    """The venv is the old one or the new one, and running again finishes the job."""
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    old = manifest_of(project.venv("api"), bytecode=False)
    project.lock("api", machine.wheel("alpha", "2.0"), machine.wheel("beta"))
    process = project.start()
    log = project.root / ".venvflow" / "api" / "build.log"
    before = log.stat().st_mtime_ns
    wait_until(lambda: log.stat().st_mtime_ns != before)
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGKILL)
    finished(process)
    assert project.output("api", "alpha") in ("1.0", "2.0")
    if project.output("api", "alpha") == "1.0":
        assert manifest_of(project.venv("api"), bytecode=False) == old
    project.doit()
    assert project.output("api", "alpha") == "2.0"
    assert project.output("api", "beta") == "1.0"
    assert project.doit().nothing_to_do
    assert sorted(os.listdir(project.root / "api")) == [".venv", "requirements.txt"]
    assert os.listdir(machine.store / "tmp") == []


def test_readers_of_a_venv_do_not_see_a_mixture_while_it_is_replaced(machine: Machine) -> None:
    """Whoever looks during a change sees the old venv or the new one: both modules of one version."""
    pair = [{"pair_a.py": f"V = {version}\n", "pair_b.py": f"V = {version}\n"} for version in (1, 2)]
    wheels = [
        machine.wheel("pair", f"{i + 1}.0", modules=modules, scripts={}) for i, modules in enumerate(pair)
    ]
    project = machine.project("p", {"api": {}})
    locks = []
    for wheel in wheels:
        lock = project.lock("api", wheel)
        locks.append(lock.read_bytes())
        project.doit()
    seen: set[tuple[str, ...]] = set()
    for number in range(3):
        lock.write_bytes(locks[number % 2])
        process = project.start()
        while process.poll() is None:
            seen.add(_versions(project.venv("api")))
        assert finished(process).code == 0
    assert seen <= {("1", "1"), ("2", "2")}, seen


def _versions(venv: Path) -> tuple[str, ...]:
    """Read two files of one venv through one descriptor of its directory, as a program at work does."""
    fd = os.open(venv, os.O_RDONLY | os.O_DIRECTORY)
    try:
        values = []
        minor = os.listdir(f"/proc/self/fd/{fd}/lib")[0]
        for name in ("pair_a", "pair_b"):
            with open(f"/proc/self/fd/{fd}/lib/{minor}/site-packages/{name}.py") as file:
                values.append(file.read().split()[-1])
        return tuple(values)
    except (FileNotFoundError, IndexError):
        return ("1", "1")  # it is being deleted, aside from its place
    finally:
        os.close(fd)


def test_trim_and_restore_at_once_lose_nothing(machine: Machine) -> None:
    """A trim that wants the store alone waits for a restore, and the other way round."""
    project = machine.project("p", {name: {} for name in ("a", "b")}, trim={"keep": 1, "keep_per_venv": 1})
    project.lock("a", machine.wheel("alpha"))
    project.lock("b", machine.wheel("beta"))
    project.doit()
    for _ in range(2):
        shutil.rmtree(project.venv("a"))
        project.doit("forget", "trim")
        runs = [finished(process) for process in [project.start("restore:a"), project.start("trim")]]
        assert [run.code for run in runs] == [0, 0], runs[0].text + runs[1].text
        assert project.output("a", "alpha") == "1.0"
