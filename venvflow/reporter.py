"""Reports what doit did with our tasks: a line for each that did something, and a summary at the end.

While a step runs for long, :mod:`venvflow.progress_display` shows it on the terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from doit.reporter import ConsoleReporter

from venvflow import interrupts, streams
from venvflow.errors import UsageError, shown, some
from venvflow.pure.names import did_you_mean
from venvflow.pure.units import counted, show_duration, show_size

if TYPE_CHECKING:
    from venvflow.progress_display import ProgressDisplay

_QUIET = {"kept", "none", "same"}
"""Answers of steps that looked and found nothing to do."""

_DOING = {
    "hash-lockfiles": "hashing the lock files of",
    "restore": "restoring",
    "build-venv": "building",
    "squish": "sharing the files of",
    "pack": "packing",
    "store": "storing",
    "push": "pushing to the remote",
    "trim": "trimming the store",
}


class FlowReporter(ConsoleReporter):  # type: ignore[misc]  # doit has no types
    """Tells what steps did, instead of that they ran; ends the run with the exit code of what failed."""

    at_end: Callable[[], None] = staticmethod(lambda: None)
    """Is called when all is done, if any step did something."""

    desc = "what each step did, how long it took, and a summary"

    def __init__(self, outstream: Any, options: dict[str, Any]) -> None:
        # doit looked for standard output before we could put something in the place of one that was closed.
        super().__init__(sys.stdout if outstream is None else outstream, options)
        streams.show_everything(self.outstream)
        streams.show_everything(sys.stderr)
        self._did = 0
        self._looked = 0
        self._did_since = 0  # the last failure
        self._not_run = 0
        self._warned: dict[str, list[str]] = {}  # the tasks that said it
        self._unaffected: dict[str, list[str]] = {}  # by what changed, the tasks of venvs that it is not for
        self._exit_code = 0
        self._nothing_fits = False
        self.answers = True  # else it has messages: none of nothing to do, and nobody who misses them
        self.told: list[dict[str, Any]] = []  # what steps answered, if there was something to tell
        self._display: ProgressDisplay | None = None  # a run with nothing to do needs none

    def write(self, text: str) -> None:
        """Write whole lines to where doit's answers go."""
        self._put(self.outstream, text)

    def _put(self, stream: TextIO, text: str) -> None:
        if self._display is not None:
            self._display.write(stream, text)
        else:
            streams.put_or_drop(stream, text)

    def initialize(self, tasks: Any, selected_tasks: Any) -> None:
        """Notice a pattern that fits nothing: doit itself would call that success."""
        if not selected_tasks:
            venvs = {name.partition(":")[2] for name in tasks if name.partition(":")[0] in _DOING} - {""}
            asked = next((word for word in sys.argv[1:] if "*" in word), "")
            error = UsageError(
                f"no task fits {asked or 'what was asked for'}", hint=did_you_mean(asked.strip("*:"), venvs)
            )
            self._put(sys.stderr, f"venvflow: {error}\n")
            self._exit_code = UsageError.exit_code
            self._nothing_fits = True

    def execute_task(self, task: Any) -> None:
        """Show that it runs, if somebody looks; tasks that are not ours write to the terminal themselves.

        With ``doit -v 0`` nothing is shown.
        """
        if not task.actions or task.verbosity == 0:
            return
        from venvflow.progress_display import shared  # noqa: PLC0415 - a run with nothing to do shows nothing
        from venvflow.steps.meter import meter  # noqa: PLC0415

        self._display = shared()
        verb, _, venv = task.name.partition(":")
        if verb not in _DOING:
            self._display.hush(task.name)
            return
        meter(venv).reset()
        label = _DOING[verb] if verb in ("push", "trim") else f"{_DOING[verb]} {venv}"
        self._display.begin(task.name, label, meter(venv))

    def _end(self, task: str) -> None:
        if self._display is not None:
            self._display.end(task)

    def skip_uptodate(self, task: Any) -> None:
        """Count it; a line for each would hide what matters."""
        self._looked += bool(task.actions)

    def add_success(self, task: Any) -> None:
        """Say what the task did."""
        if not task.actions:
            return
        self._end(task.name)
        values = task.values if isinstance(task.values, dict) else {}
        did = values.get("did", "done")
        name = task.title()
        if did not in _QUIET or values.get("warnings"):
            self.told.append({"task": name, **values})
        if did in _QUIET:
            self._looked += 1
        else:
            self._did += 1
            self._did_since += 1
            if did != "unaffected" or self._is_first(name, values["reason"]):
                self.write(f"{name}  {shown(outcome_line(did, values))}\n")
        for warning in values.get("warnings", ()):
            self._warned.setdefault(warning, []).append(name)
            if self._warned[warning] == [name]:
                self.write(f"{name}  warning: {shown(warning)}\n")

    def _is_first(self, task: str, reason: str) -> bool:
        """Return whether a change is told for the first time: of a hundred venvs, one is named in full."""
        same = self._unaffected.setdefault(reason.rpartition(" for ")[0], [])
        same.append(task)
        return same == [task]

    def add_failure(self, task: Any, fail: Any) -> None:
        """Say what failed; what cannot run because of that is only counted."""
        if fail.get_name() == "UnmetDependency":
            self._not_run += bool(task.actions)
            return
        self._end(task.name)
        self._did_since = 0
        code = getattr(fail, "exit_code", 0)
        if not code:
            super().add_failure(task, fail)
            return
        self._exit_code = self._exit_code or code
        self.failures.append({"task": task, "exception": fail})
        self.write(f"{task.title()}  failed\n")
        self._put(sys.stderr, f"venvflow: {fail.message}\n")

    def complete_run(self) -> None:
        """Write the summary; a failed step ends doit with the exit code of its error."""
        if self._display is not None:
            self._display.stop()
        for message in self.runtime_errors:
            self._put(sys.stderr, f"{message}\n")
        if interrupts.received():
            return  # that is how the run ends, and what it was at is not counted
        self._tell_of_more()
        if self._did:
            self.at_end()
        if not self._nothing_fits:
            for failure in self.failures if len(self.failures) > 1 or self._did_since else ():
                self.write(_failure_line(failure["task"], failure["exception"]) + "\n")
            if self.answers or not self._is_idle:
                self.write(self._summary() + "\n")
        self._report_unwritten()
        if self._exit_code:
            raise SystemExit(self._exit_code)

    def _tell_of_more(self) -> None:
        for changed, tasks in self._unaffected.items():
            self._tell_others(changed, tasks)
        for tasks in self._warned.values():
            self._tell_others("the same warning", tasks)

    def _tell_others(self, what: str, tasks: list[str]) -> None:
        first, *others = tasks
        if others:
            venvs = [task.partition(":")[2] for task in others]
            told = f"{what} for {counted(len(venvs), 'more venv')}: {some(venvs, 8)}"
            self.write(f"{first}  {shown(told)}\n")

    def _report_unwritten(self) -> None:
        """Say that some output is lost, so that nobody who reads it later takes it for all."""
        if not (self.answers and streams.unwritten):
            return
        error = streams.lost_answer(streams.unwritten[0])
        self._put(sys.stderr, f"venvflow: {error}\n")
        self._exit_code = self._exit_code or error.exit_code

    @property
    def counts(self) -> dict[str, int]:
        """Return how many tasks did something, were up to date, and were not run because another failed."""
        return {"done": self._did, "up_to_date": self._looked, "not_run": self._not_run}

    @property
    def _is_idle(self) -> bool:
        return not (self._did or self.failures or self.runtime_errors)

    def _summary(self) -> str:
        if self._is_idle:
            return f"nothing to do: {counted(self._looked, 'task')} up to date"
        failed = f", {len(self.failures)} failed" if self.failures else ""
        not_run = f", {self._not_run} not run because of that" if self._not_run else ""
        return f"{counted(self._did, 'task')} done, {self._looked} up to date{failed}{not_run}"


def _failure_line(task: Any, fail: Any) -> str:
    """Return what failed as one line, for who reads the end of a log only."""
    what = getattr(fail, "what", "")
    return f"failed: {task.title()}" + (f": {shown(what)}" if what else "")


def outcome_line(did: str, values: dict[str, Any]) -> str:
    """Return what a step did as one line: what, of how much and in how long, and what that came to."""
    figures = values.get("figures", {})
    head = _HEADS.get(did, "{did} {reason}").format(did=did, reason=values.get("reason", ""))
    parts = [head.strip()]
    if "installed" in figures:
        parts[0] += f": {figures['installed']} of {counted(figures['packages'], 'package')} installed"
    if "files" in figures:
        parts.append(counted(figures["files"], "file"))
    elif "bytes" in figures:
        parts.append(show_size(figures["bytes"]))
    if "seconds" in figures:
        parts[-1] += f" in {show_duration(figures['seconds'])}"
    return ", ".join([*parts, *_came_to(figures)])


_HEADS = {
    "miss": "miss: {reason}",
    "taken": "taken: {reason}",
    "unaffected": "unaffected: {reason}",
    "built": "built by {reason}",
    "confirmed": "confirmed {reason}: built from nothing, it is the same",
}


def _came_to(figures: dict[str, Any]) -> Iterator[str]:
    if "files" in figures and "bytes" in figures:
        link = figures.get("link", "")
        how = " copied" if link == "copy" else f" shared by {link}" if link else ""
        yield f"{show_size(figures['bytes'])}{how}"
    if figures.get("new_bytes"):
        yield f"{show_size(figures['new_bytes'])} new in the store"
    if figures.get("compiled"):
        yield f"{figures['compiled']:,} compiled"
    if figures.get("frames_reused"):
        yield f"{figures['frames_reused']} of {figures['frames']} frames re-used"
