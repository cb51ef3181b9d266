"""What doit's reporter writes for what tasks answer."""

from __future__ import annotations

import io
from typing import Any

import pytest
from doit.exceptions import TaskFailed, UnmetDependency
from doit.task import Task

from venvflow.reporter import FlowReporter
from venvflow.tasks import StepFailed


def _nothing() -> None:
    """Do nothing, so that a task has an action."""


@pytest.fixture
def out() -> io.StringIO:
    """Give where the reporter writes."""
    return io.StringIO()


@pytest.fixture
def reporter(out: io.StringIO) -> FlowReporter:
    """Give a reporter at the beginning of a run."""
    return FlowReporter(out, {"show_out": True, "failure_verbosity": 0})


def _task(name: str = "restore:api", **values: Any) -> Task:
    task = Task(name, [(_nothing,)])
    task.values = values
    return task


def test_a_task_that_did_something_has_a_line(reporter: FlowReporter, out: io.StringIO) -> None:
    """Its name, what it did, and the figures that matter."""
    figures = {
        "files": 1234, "bytes": 5 << 20, "compiled": 3, "new_bytes": 2048, "link": "hardlink",
        "seconds": 0.25,
    }  # fmt: skip
    reporter.add_success(_task(did="squished", reason="", figures=figures))
    line = out.getvalue()
    assert line.startswith("restore:api  squished, 1,234 files, 5.0 MiB, 3 compiled")
    assert "2.0 KiB new in the store, by hardlink in" in line


@pytest.mark.parametrize("did", ["kept", "none", "same"])
def test_a_task_that_only_looked_has_none(reporter: FlowReporter, out: io.StringIO, did: str) -> None:
    """It counts as up to date; its warnings are still told."""
    reporter.add_success(_task(did=did, reason="all is well", figures={}, warnings=["changed by hand"]))
    assert out.getvalue() == "restore:api  warning: changed by hand\n"
    reporter.complete_run()
    assert out.getvalue().endswith("nothing to do: 1 task up to date\n")


def test_groups_are_not_counted(reporter: FlowReporter, out: io.StringIO) -> None:
    """Only tasks with actions are work."""
    reporter.skip_uptodate(Task("restore", None))
    reporter.add_success(Task("restore", None))
    reporter.skip_uptodate(_task())
    reporter.complete_run()
    assert out.getvalue() == "nothing to do: 1 task up to date\n"


def test_the_summary_counts_what_was_done(reporter: FlowReporter, out: io.StringIO) -> None:
    """Done and up to date."""
    reporter.add_success(_task(did="hit", reason="abc", figures={}))
    reporter.skip_uptodate(_task())
    reporter.complete_run()
    assert out.getvalue().splitlines()[-1] == "1 task done, 1 up to date"


def test_a_failed_step_ends_the_run_with_its_exit_code(
    reporter: FlowReporter, out: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message goes to stderr once, at the end; the first failure decides the code."""
    first, second = StepFailed("no space"), StepFailed("no key")
    first.exit_code, second.exit_code = 3, 6
    reporter.add_failure(_task("squish:api"), first)
    reporter.add_failure(_task("squish:web"), second)
    assert out.getvalue() == "squish:api  failed\nsquish:web  failed\n"
    with pytest.raises(SystemExit) as caught:
        reporter.complete_run()
    assert caught.value.code == 3
    said = capsys.readouterr().err
    assert said.count("venvflow: no space") == 1
    assert said.count("venvflow: no key") == 1
    assert out.getvalue().endswith("0 tasks done, 0 up to date, 2 failed\n")


def test_a_failure_that_is_not_ours_is_told_as_doit_does(reporter: FlowReporter, out: io.StringIO) -> None:
    """Another task of the same dodo.py keeps doit's exit code and words."""
    reporter.add_failure(_task("lint"), TaskFailed("it failed"))
    reporter.complete_run()
    assert "lint" in out.getvalue()
    assert "1 failed" in out.getvalue()


class _Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        return True


def test_a_failure_is_told_at_once(reporter: FlowReporter, capsys: pytest.CaptureFixture[str]) -> None:
    """What comes after it, saving the state above all, may fail too and end the run before its summary."""
    failed = StepFailed("no space")
    failed.exit_code = 3
    reporter.add_failure(_task("squish:api"), failed)
    assert capsys.readouterr().err == "venvflow: no space\n"


def test_what_hangs_on_a_failure_is_counted_and_not_told(
    reporter: FlowReporter, out: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tasks that cannot run are no failures of their own; groups of tasks are not even counted."""
    failed = StepFailed("no space")
    failed.exit_code = 3
    broken = _task("build-venv:api")
    reporter.add_failure(broken, failed)
    for task in (_task("squish:api"), _task("store:api"), Task("store", None)):
        reporter.add_failure(task, UnmetDependency([broken]))
    with pytest.raises(SystemExit) as caught:
        reporter.complete_run()
    assert caught.value.code == 3
    assert out.getvalue() == (
        "build-venv:api  failed\n0 tasks done, 0 up to date, 1 failed, 2 not run because of that\n"
    )
    assert capsys.readouterr().err == "venvflow: no space\n"


def test_a_run_without_tasks_names_the_venvs_and_ends_with_2(
    reporter: FlowReporter, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pattern that fits nothing is a typo; doit itself would end with 0."""
    tasks = {name: _task(name) for name in ("restore:api", "store:api", "store:web", "trim")}
    reporter.initialize(tasks, [])
    assert capsys.readouterr().err == "venvflow: no task fits what was asked for. The venvs are: api, web.\n"
    with pytest.raises(SystemExit) as caught:
        reporter.complete_run()
    assert caught.value.code == 2


def test_a_run_with_tasks_begins_without_a_word(
    reporter: FlowReporter, out: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is wrong yet."""
    reporter.initialize({"trim": _task("trim")}, ["trim"])
    reporter.complete_run()
    assert out.getvalue() == "nothing to do: 0 tasks up to date\n"
    assert capsys.readouterr().err == ""


def test_a_build_is_announced_where_somebody_waits_for_it(reporter: FlowReporter, out: io.StringIO) -> None:
    """On a terminal, when it begins, for it may take minutes; a log has the line of its end."""
    terminal = _Terminal()
    for stream in (terminal, out):
        told = FlowReporter(stream, {"show_out": True, "failure_verbosity": 0})
        told.execute_task(_task("restore:api"))
        told.execute_task(_task("build-venv:api"))
    assert terminal.getvalue() == "build-venv:api  building …\n"
    assert out.getvalue() == ""


def test_a_miss_says_why(reporter: FlowReporter, out: io.StringIO) -> None:
    """The reason is set off from the word, as the command line does it."""
    reporter.add_success(_task(did="miss", reason="no snapshot for this key", figures={}))
    assert out.getvalue() == "restore:api  miss: no snapshot for this key\n"
