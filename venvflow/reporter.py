"""What doit says about our tasks: one line for each that did something, and a summary at the end."""

from __future__ import annotations

import sys
from typing import Any

from doit.reporter import ConsoleReporter

_QUIET = {"kept", "none", "same"}
"""Answers of steps that looked and found nothing to do."""


class FlowReporter(ConsoleReporter):  # type: ignore[misc]  # doit has no types
    """Tells what steps did, instead of that they ran; ends the run with the exit code of what failed."""

    desc = "what each step did, how long it took, and a summary"

    def __init__(self, outstream: Any, options: dict[str, Any]) -> None:
        super().__init__(outstream, options)
        self._did = 0
        self._looked = 0
        self._exit_code = 0

    def execute_task(self, task: Any) -> None:
        """Say nothing yet: what a task did is known when it is done."""

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
        """Keep the failure for the end, and say at once that there was one."""
        code = getattr(fail, "exit_code", 0)
        self._exit_code = self._exit_code or code
        if code:
            self.write(f"{task.name}  failed\n")
            self.failures.append({"task": task, "exception": fail})
        else:
            super().add_failure(task, fail)

    def complete_run(self) -> None:
        """Show what failed, then the summary; a failed step ends doit with the exit code of its error."""
        for result in self.failures:
            fail = result["exception"]
            if getattr(fail, "exit_code", 0):
                sys.stderr.write(f"venvflow: {fail.message}\n")
        for message in self.runtime_errors:
            sys.stderr.write(f"{message}\n")
        self.write(self._summary() + "\n")
        if self._exit_code:
            sys.stdout.flush()
            raise SystemExit(self._exit_code)

    def _summary(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        if not self._did and not self.failures:
            return f"nothing to do: {_count(self._looked, 'task')} up to date"
        return f"{_count(self._did, 'task')} done, {self._looked} up to date{failed}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def _told(did: str, values: dict[str, Any]) -> str:
    figures = values.get("figures", {})
    parts = [f"{did} {values.get('reason', '')}".strip()]
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
