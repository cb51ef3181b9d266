"""The shim that makes faults, compiled once per session, and the server that does actions under it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Answer:
    """What became of an action.

    *code* is its exit code, minus the signal's number for a death, None for one that is *stopped* (its
    pid). *calls* is how many calls changed something, *fired* how often the fault happened, *call* the
    function at which it did first.
    """

    code: int | None
    stopped: int
    calls: int
    fired: int
    call: str
    output: str


class Server:
    """A process that does actions in children of its own; see ``server.py``.

    *patience* is how many seconds they wait for a lock.
    """

    def __init__(self, shim: Path, directory: Path, patience: str = "60") -> None:
        self._directory = directory
        self._number = 0
        path = os.pathsep.join(str(each) for each in (_HERE, _HERE.parent, _HERE.parents[1]))
        self._process = subprocess.Popen(
            [sys.executable, str(_HERE / "server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**_environment(patience), "LD_PRELOAD": str(shim), "PYTHONPATH": path},
        )

    def do(
        self,
        action: str,
        root: Path,
        mode: str = "count",
        at: int = 0,
        error: int = 0,
        *,
        ordinary: bool = False,
        remote: bool = False,
    ) -> Answer:
        """Do *action* in the world at *root*, with a fault of *mode* at the call number *at*, from 1.

        With *remote*, that is a call of the process that talks to the remote. As an *ordinary* user it is
        stopped by modes and owners, even if it is root who does it.
        """
        return self._ask(
            action=action, root=str(root), mode=mode, at=at, errno=error, ordinary=ordinary,
            remote=str(self._directory / "seen") if remote else "",
        )  # fmt: skip

    def go_on(self, stopped: Answer) -> Answer:
        """Let an action that was stopped go on to its end."""
        return self._ask(go_on=stopped.stopped)

    def end(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, **request: Any) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._number += 1
        output = str(self._directory / f"output-{self._number % 4}")
        self._process.stdin.write(json.dumps({**request, "output": output}) + "\n")
        self._process.stdin.flush()
        return Answer(**json.loads(self._process.stdout.readline()))


def compiled(directory: Path) -> Path:
    """Return the shim, compiled into *directory*, or skip the test."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("making faults needs Linux and a C compiler (cc)")
    shim = directory / "shim.so"
    words = ["-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-o", str(shim)]
    subprocess.run([compiler, *words, str(_HERE / "shim.c"), "-ldl"], check=True)
    return shim


def _environment(patience: str) -> dict[str, str]:
    """Return the variables of the server: the user's own must not matter."""
    mine = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**mine, "VENVFLOW_LOCK_TIMEOUT": patience, "PYTHONDONTWRITEBYTECODE": "1"}
