"""Signals at exactly chosen moments, in small real programs; and, at many moments, in runs of doit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from tiers import first_quick

from venvflow import interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRELUDE = """
import atexit, os, signal, sys, threading, time
from venvflow import interrupts
interrupts.watch(interrupts.OF_A_RUN, by_signal=True)
def send(number=signal.SIGTERM):
    signal.raise_signal(number)
"""

MOMENTS = {
    "while modules are loaded": ("send()", ""),
    "at work": ("interrupts.begin(); send(); print('went on')", ""),
    "twice, and the second does not disturb what cleans up": (
        "interrupts.begin()\ntry: send()\nfinally: send(); print('cleaned')",
        "cleaned\n",
    ),
    "three times, and the third ends what cleans up": (
        "interrupts.begin()\ntry: send()\nfinally: send(); send(); print('cleaned')",
        "",
    ),
    "again, while the last words are being said": (
        """
interrupts.begin()
write = os.write
def writing(*words):
    send()
    return write(*words)
os.write = writing
send()
""",
        "",
    ),
    "where somebody keeps it to himself": (
        "interrupts.begin()\ntry: send()\nexcept KeyboardInterrupt: print('went on')",
        "went on\n",
    ),
    "where somebody makes an exit code of it": (
        "interrupts.begin()\ntry: send()\nfinally: sys.exit(3)",
        "",
    ),
    "in a callback, where Python can raise nothing": (
        "interrupts.begin()\nclass A:\n  def __del__(self): send()\nA()\nprint('went on')",
        "",
    ),
    "in the last moments": ("interrupts.begin(); atexit.register(send)", ""),
    "while threads run steps, which clean up": (
        """
interrupts.begin()
def step():
    with interrupts.working():
        try:
            ready.set()
            while True: time.sleep(0.01)
        finally:
            time.sleep(0.1)
            print('cleaned')
ready = threading.Event()
threading.Thread(target=step, daemon=True).start()
ready.wait()
send()
""",
        "cleaned\n",
    ),
    "while a thread runs a step, which does not end": (
        """
interrupts.begin()
interrupts.PATIENCE = 0.1
def step():
    with interrupts.working():
        ready.set()
        while True:
            try: time.sleep(0.01)
            except KeyboardInterrupt: pass
ready = threading.Event()
threading.Thread(target=step).start()
ready.wait()
send()
""",
        "",
    ),
    "while somebody else writes to the index": (
        """
import sqlite3, tempfile
from venvflow.state.index import Index
interrupts.begin()
with tempfile.TemporaryDirectory() as place:
    index = Index(place + "/index.db")
    other = sqlite3.connect(index.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM]).start()
    began = time.monotonic()
    try:
        with index.writing(): pass
    finally:
        print(time.monotonic() - began < 20)
""",
        "True\n",
    ),
    "when the main thread had looked for signals, and did not wait yet": (
        """
interrupts.begin()
def meet(): signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Timer(0.1, meet).start()
lock = threading.Lock()
lock.acquire()
lock.acquire()
""",
        "",
    ),
}


def program(code: str) -> subprocess.CompletedProcess[str]:
    """Run *code* in a program that is watched."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("moment", first_quick(MOMENTS, every=4))
def test_a_signal_ends_a_program_at_any_moment(moment: str) -> None:
    """By that signal, with one line, and without a traceback."""
    code, out = MOMENTS[moment]
    ended = program(code)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, out, interrupts.OF_A_RUN)


def test_ctrl_c_ends_a_program_as_python_ends_it() -> None:
    """What others want to do at the end is done, and the shell sees the signal."""
    ended = program("interrupts.begin(); atexit.register(print, 'last'); send(signal.SIGINT)")
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "last\n", interrupts.OF_A_RUN)


def test_a_command_ends_with_the_exit_code_of_the_signal() -> None:
    """Also while its modules are loaded: scripts read the same number whenever it came."""
    code = "interrupts._program.by_signal = False; send(signal.SIGHUP)"
    assert program(code).returncode == 128 + signal.SIGHUP


def test_a_command_ends_with_that_exit_code_wherever_the_signal_came(tmp_path: Path) -> None:
    """Python would end by SIGINT when it came where code is made by ``exec``, as classes of data are."""
    code = """
interrupts._program.by_signal = False
try:
    with interrupts.raised():
        exec("send()")
except KeyboardInterrupt:
    sys.exit(interrupts.exit_code())
"""
    (tmp_path / "program.py").write_text(PRELUDE + code)
    path = os.pathsep.join([str(tmp_path), os.path.dirname(os.path.dirname(interrupts.__file__))])
    ended = subprocess.run(
        [sys.executable, "-m", "program"], env={**os.environ, "PYTHONPATH": path}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGTERM, interrupts.OF_A_RUN)


def test_a_forked_child_is_not_ours_to_end() -> None:
    """What a task of somebody else's forks meets signals as if we were not there."""
    code = """
import warnings
warnings.simplefilter("ignore")  # Python 3.12 and later do not like a fork beside our thread
interrupts.begin()
child = os.fork()
if not child:
    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)
    send()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    ended = program(code)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n-15\n", "")


@pytest.fixture
def restored() -> Iterator[None]:
    """Give the signals back to who handled them before."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("restored")
def test_signals_of_others_are_left_alone() -> None:
    """Ignored and handled ones stay so; another thread than the main one handles none."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    seen: list[object] = []

    def elsewhere() -> None:
        with interrupts.raised():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
    with pytest.raises(KeyboardInterrupt), interrupts.raised():
        signal.raise_signal(signal.SIGTERM if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else 0)
    assert interrupts.exit_code() == 128 + signal.SIGTERM
    assert interrupts.received() == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_only_signals_that_were_not_acted_on_are_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only to who handles them as we do."""
    reading, writing = os.pipe()
    os.write(writing, bytes([signal.SIGTERM, signal.SIGHUP, signal.SIGINT]))
    os.close(writing)
    sent: list[int] = []
    monkeypatch.setattr(interrupts, "_GAP", 0)
    monkeypatch.setattr(interrupts._program, "received", [signal.SIGHUP])
    ours = {signal.SIGTERM: interrupts._meet, signal.SIGHUP: interrupts._meet}
    monkeypatch.setattr(signal, "getsignal", ours.get)
    monkeypatch.setattr(signal, "pthread_kill", lambda _thread, number: sent.append(number))
    interrupts._send_again(reading)
    os.close(reading)
    assert sent == [signal.SIGTERM]
