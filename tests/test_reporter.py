"""What doit's reporter writes for what tasks answer."""

from __future__ import annotations

import io
import os
from typing import Any, TextIO

import pytest
from doit.exceptions import TaskFailed, UnmetDependency
from doit.task import Task

from venvflow.reporter import FlowReporter, outcome_line
from venvflow.steps.meter import Meter, meter
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
    assert line == (
        "restore:api  squished, 1,234 files in 0.2 s, 5.0 MiB shared by hardlink, 2.0 KiB new in the store, "
        "3 compiled\n"
    )


@pytest.mark.parametrize(
    ("did", "reason", "figures", "line"),
    [
        (
            "hit",
            "3f2a",
            {"files": 2, "bytes": 512, "link": "copy", "seconds": 2},
            "hit 3f2a, 2 files in 2.0 s, 512 B copied",
        ),
        ("built", "uv", {"files": 1, "seconds": 75}, "built by uv, 1 file in 1 min 15 s"),
        (
            "built",
            "uv from 3f2a",
            {"files": 9, "seconds": 2, "base": "3f2a", "installed": 1, "packages": 115},
            "built by uv from 3f2a: 1 of 115 packages installed, 9 files in 2.0 s",
        ),
        ("confirmed", "3f2a", {"files": 9}, "confirmed 3f2a: built from nothing, it is the same, 9 files"),
        ("stored", "3f2a", {"files": 2, "bytes": 512}, "stored 3f2a, 2 files, 512 B"),
        (
            "packed",
            "a.zip",
            {"bytes": 512, "seconds": 1, "frames": 3, "frames_reused": 2},
            "packed a.zip, 512 B in 1.0 s, 2 of 3 frames re-used",
        ),
        ("new", "3f2a", {"files": 1}, "new 3f2a, 1 file"),
        ("put off", "the store is in use", {}, "put off the store is in use"),
        ("miss", "no snapshot for this key", {}, "miss: no snapshot for this key"),
    ],
)
def test_every_kind_of_answer_reads_well(did: str, reason: str, figures: dict[str, Any], line: str) -> None:
    """What was done, of how much, in how long, and what that came to; the reason of a miss is set off."""
    assert outcome_line(did, {"reason": reason, "figures": figures}) == line


@pytest.mark.parametrize("did", ["kept", "none", "same"])
def test_a_task_that_only_looked_has_none(reporter: FlowReporter, out: io.StringIO, did: str) -> None:
    """It counts as up to date; its warnings are still told."""
    reporter.add_success(_task(did=did, reason="all is well", figures={}, warnings=["changed by hand"]))
    assert out.getvalue() == "restore:api  warning: changed by hand\n"
    reporter.complete_run()
    assert out.getvalue().endswith("nothing to do: 1 task up to date\n")


def test_a_warning_of_several_venvs_is_said_once(reporter: FlowReporter, out: io.StringIO) -> None:
    """With the first of them; at the end, which others it is about. What differs is said apart."""
    for name, warnings in (("a", ["one"]), ("b", ["one", "two"]), ("c", ["one"])):
        task = _task(f"build-venv:{name}")
        task.values = {"did": "same", "warnings": warnings}
        reporter.add_success(task)
    lines = ["build-venv:a  warning: one", "build-venv:b  warning: two"]
    assert out.getvalue().splitlines() == lines
    reporter.complete_run()
    assert out.getvalue().splitlines()[2:-1] == ["build-venv:a  the same warning for 2 more venvs: b, c"]


def test_of_venvs_that_a_change_is_not_for_one_is_named_in_full(
    reporter: FlowReporter, out: io.StringIO
) -> None:
    """The others in one line, by what changed; what it is for has lines of its own."""
    for venv, file in (("a", "uv.lock"), ("b", "uv.lock"), ("c", "all.txt"), ("d", "uv.lock")):
        reason = f"{file} changed, not for {venv}"
        reporter.add_success(_task(f"hash-lockfiles:{venv}", did="unaffected", reason=reason))
    reporter.complete_run()
    assert out.getvalue().splitlines() == [
        "hash-lockfiles:a  unaffected: uv.lock changed, not for a",
        "hash-lockfiles:c  unaffected: all.txt changed, not for c",
        "hash-lockfiles:a  uv.lock changed, not for 2 more venvs: b, d",
        "4 tasks done, 0 up to date",
    ]


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


def test_what_failed_is_named_at_the_end_where_more_was_told_since(
    reporter: FlowReporter, out: io.StringIO
) -> None:
    """Whole, whatever its length: who reads a log has no other way to see it."""
    failed = StepFailed("no key: the file is not there. Nothing was changed.")
    failed.exit_code, failed.what = 2, f"{'deep/' * 30}requirements.txt does not exist"
    reporter.add_failure(_task("hash-lockfiles:api"), failed)
    reporter.add_success(_task("restore:web", did="hit", reason="abc", figures={}))
    with pytest.raises(SystemExit):
        reporter.complete_run()
    assert out.getvalue().splitlines()[-2:] == [
        f"failed: hash-lockfiles:api: {failed.what}",
        "1 task done, 0 up to date, 1 failed",
    ]


def test_a_failure_that_is_not_ours_is_told_as_doit_does(reporter: FlowReporter, out: io.StringIO) -> None:
    """Another task of the same dodo.py keeps doit's exit code and words."""
    reporter.add_failure(_task("lint"), TaskFailed("it failed"))
    reporter.complete_run()
    assert "lint" in out.getvalue()
    assert "1 failed" in out.getvalue()


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


@pytest.mark.parametrize(
    ("word", "hint"), [("*:apii", "Did you mean api?"), ("*:zzz", "There are: api, web.")]
)
def test_a_pattern_that_fits_nothing_names_the_venvs_and_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str, hint: str
) -> None:
    """It is a typo; doit itself would end with 0, and call it nothing to do."""
    out = io.StringIO()
    reporter = FlowReporter(out, {})
    monkeypatch.setattr("sys.argv", ["doit", word])
    tasks = {name: _task(name) for name in ("restore:api", "store:api", "store:web", "trim", "mine:x")}
    reporter.initialize(tasks, [])
    said = capsys.readouterr().err
    assert said.startswith(f"venvflow: no task fits {word}. ")
    assert said.endswith(f" {hint}\n")
    with pytest.raises(SystemExit) as caught:
        reporter.complete_run()
    assert caught.value.code == 2
    assert out.getvalue() == ""


def test_a_run_with_tasks_begins_without_a_word(
    reporter: FlowReporter, out: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is wrong yet."""
    reporter.initialize({"trim": _task("trim")}, ["trim"])
    reporter.complete_run()
    assert out.getvalue() == "nothing to do: 0 tasks up to date\n"
    assert capsys.readouterr().err == ""


def test_a_run_that_could_not_look_does_not_say_that_nothing_is_to_do(
    reporter: FlowReporter, out: io.StringIO
) -> None:
    """As when the state of the tasks cannot be read: it knows nothing of them."""
    reporter.initialize({"trim": _task("trim")}, ["trim"])
    reporter.runtime_error("no state")
    reporter.complete_run()
    assert out.getvalue() == "0 tasks done, 0 up to date\n"


class _Stage:
    """Takes note of what it is told to show."""

    def __init__(self) -> None:
        self.outcome_line: list[str] = []

    def begin(self, name: str, label: str, meter: Meter) -> None:
        self.outcome_line.append(f"{name}: {label} {meter}")

    def hush(self, name: str) -> None:
        self.outcome_line.append(f"{name}: hush")

    def end(self, name: str) -> None:
        self.outcome_line.append(f"{name}: end")

    def stop(self) -> None:
        self.outcome_line.append("stop")

    def write(self, stream: TextIO, text: str) -> None:
        stream.write(text)


def test_what_runs_is_shown_until_it_ends(reporter: FlowReporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what it does to which venv; what was said of earlier work is forgotten; groups are not shown."""
    stage = _Stage()
    monkeypatch.setattr("venvflow.progress_display.shared", lambda: stage)
    meter("api").count("old words")
    failed = StepFailed("no space")
    failed.exit_code = 3
    build, trim, lint = _task("build-venv:api"), _task("trim:snapshots"), _task("lint")
    quiet = _task("store:api")
    quiet.verbosity = 0  # what doit -v 0 makes of every task
    for task in (Task("restore", None), quiet, build, trim, lint):
        reporter.execute_task(task)
    reporter.add_success(lint)
    reporter.add_failure(build, failed)
    with pytest.raises(SystemExit):
        reporter.complete_run()
    assert stage.outcome_line == [
        "build-venv:api: building api ", "trim:snapshots: trimming the store ", "lint: hush", "lint: end",
        "build-venv:api: end", "stop",
    ]  # fmt: skip


def test_a_reader_that_goes_away_does_not_stop_the_run() -> None:
    """As with ``doit | head``: what is left to say is dropped."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        reporter = FlowReporter(stream, {})
        reporter.write("one\n")
        reporter.write("two\n")


def test_a_name_that_the_stream_cannot_show_is_written_by_number() -> None:
    """A terminal of another encoding, or a file name that is no text, is no reason to fail."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")
    FlowReporter(stream, {}).write("packed /gr\xfc\xdfe/\udcff.zip\n")
    assert raw.getvalue() == b"packed /gr\\xfc\\xdfe/\\xff.zip\n"
