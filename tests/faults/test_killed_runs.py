"""``doit -n 2`` is killed while it builds: its builders end too, and the next run waits for nobody."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from fixtures import MADE, memory, sample
from scenario import Machine, finished, wait_until

__all__ = ["memory", "sample"]

pytestmark = pytest.mark.slow

MOMENTS = (0.0, 0.05, 0.2, 0.5)
"""Seconds after both builders have begun."""


def test_builders_end_with_their_run(machine: Machine, sample: int | None) -> None:
    """No builder, no claim and no litter is left that the next run would have to wait for."""
    project = machine.project("p", {})
    counters = [machine.root / f"counter-{name}" for name in ("api", "web")]
    venvs = {
        name: {"build": project.counting_builder(counter, seconds=60)}
        for name, counter in zip(("api", "web"), counters, strict=True)
    }
    project.configure(venvs)
    for number, moment in enumerate(MOMENTS if sample is None else MOMENTS[1:2]):
        for counter, name in zip(counters, venvs, strict=True):
            counter.unlink(missing_ok=True)
            counter.with_suffix(".go").unlink(missing_ok=True)
            (project.root / name).mkdir(exist_ok=True)
            (project.root / name / "requirements.txt").write_text(f"# {name} {number}\n")
        run = project.start("-n", "2")
        wait_until(lambda: all(counter.exists() for counter in counters))
        time.sleep(moment)
        run.send_signal(signal.SIGKILL)
        finished(run)
        MADE["kill of a run of two"] += 1
        wait_until(lambda: not _builders(machine.root))
        for counter in counters:
            Path(f"{counter}.go").touch()
        project.doit("-n", "2", env={"VENVFLOW_LOCK_TIMEOUT": "5"})
        assert project.doit().nothing_to_do
        for counter in counters:
            Path(f"{counter}.go").unlink()
    assert not list(machine.root.rglob(".vf-*"))


def _builders(root: Path) -> list[str]:
    """Return the processes that run the builder of this machine."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if os.fsencode(root / "counting_builder.py") in words:
            found.append(process)
    return found
