"""What doit says about our tasks: one line for each that did something, and a summary at the end."""

from __future__ import annotations

import sys
from typing import Any

from doit.reporter import ConsoleReporter

from venvflow.errors import UsageError

_QUIET = {"kept", "none", "same"}
"""Answers of steps that looked and found nothing to do."""


class FlowReporter(ConsoleReporter):  # type: ignore[misc]  # doit has no types
    """Tells what steps did, instead of that they ran; ends the run with the exit code of what failed."""

    desc = "what each step did, how long it took, and a summary"

    def __init__(self, outstream: Any, options: dict[str, Any]) -> None:
        super().__init__(outstream, options)
        self._did = 0
        self._looked = 0
        self._not_run = 0
        self._exit_code = 0

    def initialize(self, tasks: Any, selected_tasks: Any) -> None:
        """Notice a pattern that fits nothing: doit itself would call that success."""
        if not selected_tasks:
            names = ", ".join(sorted({name.partition(":")[2] for name in tasks if ":" in name})[:10])
            sys.stderr.write(f"venvflow: no task fits what was asked for. The venvs are: {names}.\n")
            self._exit_code = UsageError.exit_code

    def execute_task(self, task: Any) -> None:
        """Say on a terminal what takes its time; all else is told when it is done."""
        if task.name.startswith("build-venv:") and self.outstream.isatty():
            self.write(f"{task.name}  building …\n")

    def skip_uptodate(self, task: Any) -> None:
        """Count it; a line for each would hide what matters."""
        self._looked += bool(task.actions)

    def add_success(self, task: Any) -> None:
        """Say what the task did."""
        if not task.actions:
            return
        values = task.values if isinstance(task.values, dict) else {}
        did = values.get("did", "done")
        if did in _QUIET:
            self._looked += 1
        else:
            self._did += 1
            self.write(f"{task.name}  {_told(did, values)}\n")
        for warning in values.get("warnings", ()):
            self.write(f"{task.name}  warning: {warning}\n")

    def add_failure(self, task: Any, fail: Any) -> None:
        """Say what failed; what cannot run because of that is only counted."""
        if fail.get_name() == "UnmetDependency":
            self._not_run += bool(task.actions)
            return
        code = getattr(fail, "exit_code", 0)
        if not code:
            super().add_failure(task, fail)
            return
        self._exit_code = self._exit_code or code
        self.failures.append({"task": task, "exception": fail})
        self.write(f"{task.name}  failed\n")
        self.outstream.flush()
        sys.stderr.write(f"venvflow: {fail.message}\n")

    def complete_run(self) -> None:
        """Write the summary; a failed step ends doit with the exit code of its error."""
        for message in self.runtime_errors:
            sys.stderr.write(f"{message}\n")
        self.write(self._summary() + "\n")
        if self._exit_code:
            self.outstream.flush()
            raise SystemExit(self._exit_code)

    def _summary(self) -> str:
        if not self._did and not self.failures:
            return f"nothing to do: {_count(self._looked, 'task')} up to date"
        failed = f", {len(self.failures)} failed" if self.failures else ""
        not_run = f", {self._not_run} not run because of that" if self._not_run else ""
        return f"{_count(self._did, 'task')} done, {self._looked} up to date{failed}{not_run}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def _told(did: str, values: dict[str, Any]) -> str:
    figures = values.get("figures", {})
    reason = values.get("reason", "")
    parts = [f"{did}: {reason}" if did == "miss" else f"{did} {reason}".strip()]
    if "files" in figures:
        size = f", {_size(figures['bytes'])}" if "bytes" in figures else ""
        parts.append(f"{_count(figures['files'], 'file')}{size}")
    elif "bytes" in figures:
        parts.append(_size(figures["bytes"]))
    if figures.get("compiled"):
        parts.append(f"{figures['compiled']:,} compiled")
    if figures.get("new_bytes"):
        parts.append(f"{_size(figures['new_bytes'])} new in the store")
    if figures.get("frames_reused"):
        parts.append(f"{figures['frames_reused']} of {figures['frames']} frames re-used")
    if figures.get("link"):
        parts.append(f"by {figures['link']}")
    took = f" in {_duration(figures['seconds'])}" if "seconds" in figures else ""
    return ", ".join(parts) + took


def _size(count: int) -> str:
    from venvflow.units import show_size  # noqa: PLC0415 - every doit command imports this module

    return show_size(count)


def _duration(seconds: float) -> str:
    from venvflow.units import show_duration  # noqa: PLC0415 - every doit command imports this module

    return show_duration(seconds)
