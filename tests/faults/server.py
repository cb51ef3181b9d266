"""Does actions in children of a process that has everything imported, with a fault at a chosen call.

Run with the shim preloaded; speaks JSON lines: a request on standard input, an answer on standard output.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import actions
import standins
from pythons import BASE

from venvflow.disk import interpreters, processes
from venvflow.disk.system_errors import from_system
from venvflow.errors import VenvflowError
from venvflow.state import index, schema  # noqa: F401 - so that no child has to import it

_OUTPUTS: dict[int, str] = {}
"""Where each child writes what it says."""

_SEEN = struct.Struct("ii32s")
"""What the shim has seen, as it lies in memory."""

_SUBREAPER = 36

MODES = ("count", "kill", "once", "lasting", "stop")


def serve() -> None:
    """Answer requests until there are no more."""
    # Who talks to a remote becomes our child when its parent was killed, so that its end can be waited for.
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    # A Python that is asked changes no file, and says the same each time.
    standins.begin(compiler=False)
    interpreters._answer(BASE, os.environ)
    processes._watchdog.forget()  # which would be a child of ours for ever
    # SQLite has its own patience, which nobody may choose but a test that stops who holds a lock.
    index._WAIT_SECONDS = min(index._WAIT_SECONDS, float(os.environ["VENVFLOW_LOCK_TIMEOUT"]))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if "go_on" in request:
        os.kill(request["go_on"], signal.SIGCONT)
        return _waited(request["go_on"])
    pid = os.fork()
    if pid == 0:
        os._exit(_act(request))
    _OUTPUTS[pid] = request["output"]
    answer = _waited(pid, stops=request["mode"] == "stop")
    if seen := request["remote"]:
        _reap()
        calls, fired, name = _SEEN.unpack(Path(seen).read_bytes())
        answer |= {"calls": calls, "fired": fired, "call": name.partition(b"\0")[0].decode()}
    return answer


def _reap() -> None:
    """Wait until no process is left that the action has started."""
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return


def _act(request: dict[str, Any]) -> int:
    """Do one action in this child; return its exit code."""
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number, fd in enumerate((null, output, output)):
        os.dup2(fd, number)
    if request["ordinary"]:
        _give_up_privileges()
    action: Callable[[Path], int] = getattr(actions, request["action"])
    how = MODES.index(request["mode"]), request["at"], request["errno"]
    if seen := request["remote"]:
        Path(seen).write_bytes(bytes(_SEEN.size))
        os.environ["AWS_FAULTS"] = ",".join(map(str, (*how, seen)))
    else:
        _shim().arm(*how)
    try:
        return action(Path(request["root"]))
    except (VenvflowError, OSError, MemoryError) as error:
        if not isinstance(error, VenvflowError):  # as the doit tasks do
            error = from_system(error, "whole")
        os.write(2, f"venvflow: {error}\n".encode(errors="backslashreplace"))
        return error.exit_code
    except BaseException:  # noqa: BLE001 - a child ends here, whatever happens
        os.write(2, traceback.format_exc().encode())
        return 99


_PRIVILEGES = (0, 1, 2, 3)
"""Linux's capabilities by which root changes owners, and reads, enters and changes what it may not."""

_DROP_FOR_EVER, _VERSION_3 = 24, 0x20080522


def _give_up_privileges() -> None:
    """Let this process and all that it starts be an ordinary user, who still has all of its own files."""
    if os.geteuid() != 0:
        return
    library = ctypes.CDLL(None, use_errno=True)
    for number in _PRIVILEGES:
        assert library.prctl(_DROP_FOR_EVER, number, 0, 0, 0) == 0, ctypes.get_errno()
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert library.capget(header, sets) == 0, ctypes.get_errno()
    for each in range(3):
        sets[each] &= ~sum(1 << number for number in _PRIVILEGES)
    assert library.capset(header, sets) == 0, ctypes.get_errno()


def _waited(pid: int, *, stops: bool = False) -> dict[str, Any]:
    """Wait until the child ends, or *stops*, and say how, with what the shim saw."""
    _, status = os.waitpid(pid, os.WUNTRACED if stops else 0)  # others may stop a process, too
    shim = _shim()
    return {
        "stopped": pid if os.WIFSTOPPED(status) else 0,
        "code": None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status),
        "calls": shim.calls(),
        "fired": shim.fired(),
        "call": shim.name().decode(),
        "output": Path(_OUTPUTS[pid]).read_text(errors="replace"),
    }


def _shim() -> Any:
    shim = ctypes.CDLL(None)
    shim.name.restype = ctypes.c_char_p
    return shim


if __name__ == "__main__":
    serve()
