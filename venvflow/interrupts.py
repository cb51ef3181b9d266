"""Ends a run on Ctrl-C, SIGTERM or SIGHUP: one line, no traceback, no process left, the right exit status.

The first signal raises ``KeyboardInterrupt``, as Python itself does for Ctrl-C: in the main thread, and in
each thread that runs a step. A second one does not disturb the cleaning up that follows; it only kills the
programs that were asked to end. A third one ends the process at once. So does the first one while there is
nothing to clean up: while modules and the config are loaded, and in the last moments of a program.

A signal that is ignored (``nohup``) or handled by somebody else is left alone.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from venvflow import streams

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

OF_A_COMMAND = (
    "venvflow: interrupted. Every venv is the old one or the new one, whole. Run again to finish.\n"
)
"""What a command says last."""

OF_A_RUN = "venvflow: interrupted. What is finished stays; run doit again to go on.\n"
"""What a run of doit says last."""

PATIENCE = 10.0
"""Seconds for which the main thread waits for others that clean up."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNALLED = 128
"""What shells add to the number of the signal that ended a program."""

_TICK = 0.02


class _Program:
    """What is known of the program that this process is."""

    def __init__(self) -> None:
        self.last_words = OF_A_COMMAND
        self.by_signal = False  # does it end by the signal, or with the exit code that a shell makes of it?
        self.watched = False
        self.at_work = False  # is there anything that a signal must let clean up?
        self.saying = False
        self.said = False
        self.received: list[int] = []
        self.threads: set[int] = set()  # that run a step now


_program = _Program()


def watch(last_words: str, *, by_signal: bool) -> None:
    """Let the signals end this program, from now on to its end, with *last_words* on standard error.

    *by_signal*: it dies of the signal, as Python does of Ctrl-C; else it ends with the exit code that a shell
    would make of that. To be called in the main thread, where Python runs handlers, as early as can be;
    elsewhere, and again, it does nothing.
    """
    if _program.watched or not _is_main():
        return
    _program.watched = True
    _program.last_words = last_words
    _program.by_signal = by_signal
    atexit.register(_at_exit)
    os.register_at_fork(after_in_child=_forget)
    _quieten()
    _handle()


def begin() -> None:
    """From now on, there is something to clean up: the first signal raises ``KeyboardInterrupt``."""
    _program.at_work = True
    if _program.watched:
        _watch_for_signals()


@contextmanager
def raised() -> Iterator[None]:
    """Let the first signal raise ``KeyboardInterrupt`` in the block; handlers are put back behind it."""
    if not _is_main():
        yield
        return
    _program.received.clear()
    _program.said = _program.saying = False
    before = _handle()
    begin()
    try:
        yield
    finally:
        _program.at_work = False
        for number, handler in before.items():
            signal.signal(number, handler)


def received() -> int:
    """Return the number of the signal that ends this program; 0 if none came."""
    return _program.received[0] if _program.received else 0


def exit_code() -> int:
    """Say the last words of a command that was interrupted, and return what it ends with."""
    _say()
    code = _SIGNALLED + (received() or signal.SIGINT)
    if not _program.watched:  # a later command of this process may end well; a program ends now
        _program.received.clear()
    return code


@contextmanager
def working() -> Iterator[None]:
    """Let signals reach this thread, too, while it runs a step."""
    me = threading.get_ident()
    if not _is_main():
        import ctypes  # noqa: F401, PLC0415 - a handler must not be the first to import it
    _program.threads.add(me)
    try:
        yield
    finally:
        _program.threads.discard(me)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


# --------------------------------------------------------------------------- a signal comes


def _handle() -> dict[int, Any]:
    """Handle the signals that nobody else does; return what handled them before."""
    before = {}
    for number in _SIGNALS:
        handler = signal.getsignal(number)
        if handler in (signal.SIG_DFL, signal.default_int_handler):
            before[int(number)] = signal.signal(number, _meet)
    return before


def _meet(number: int, _frame: object) -> None:
    _program.received.append(number)
    count = len(_program.received)
    if count > 2 or not (_program.at_work or _program.saying):
        _end_now()
    if _program.saying:
        return
    if count > 1:
        _kill_children()
        return
    me = threading.get_ident()
    for thread in _program.threads - {me}:
        if not _will_raise(thread):
            _raise_in(thread)
    if not _will_raise(me):
        raise KeyboardInterrupt


def _will_raise(thread: int) -> bool:
    uninterrupted = sys.modules.get("venvflow.disk.uninterrupted")  # nobody needs it who did not import it
    return uninterrupted is not None and bool(uninterrupted.postpone(thread))


def _kill_children() -> None:
    processes = sys.modules.get("venvflow.disk.processes")  # nothing was started if it was never imported
    if processes is not None:
        processes.kill_all()
    workers = sys.modules.get("venvflow.workers")
    if workers is not None:
        workers.hurry()


def _raise_in(thread: int) -> None:
    """Raise ``KeyboardInterrupt`` in another thread, as soon as it takes its next step in Python."""
    import ctypes  # noqa: PLC0415 - only here

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))


_WATCH = "venvflow-signals"
_GAP = 0.05
"""Seconds after which a signal is sent again if Python received it and did not act on it."""


def _watch_for_signals() -> None:
    """See to it that a signal is acted on although the main thread waits for threads that are at work.

    Python looks for signals between two steps of its own, and the kernel wakes what waits already. A signal
    that comes between the last look and the wait is met by neither, until the next task ends.
    """
    if any(thread.name == _WATCH for thread in threading.enumerate()):
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # here the kernel's own call leaves the number
    threading.Thread(target=_send_again, args=(reading,), name=_WATCH, daemon=True).start()


def _send_again(reading: int) -> None:
    while number := os.read(reading, 1):
        time.sleep(_GAP)
        if number[0] not in _program.received and signal.getsignal(number[0]) is _meet:
            signal.pthread_kill(threading.main_thread().ident or 0, number[0])


def _forget() -> None:
    """Leave the signals of a forked child to Python: they are not for us."""
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        if signal.getsignal(number) is _meet:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)
    atexit.unregister(_at_exit)


# --------------------------------------------------------------------------- the program ends


def _quieten() -> None:
    """Let no ``KeyboardInterrupt`` become a traceback, wherever it comes out."""
    usual, usual_in_thread, usual_unraisable = sys.excepthook, threading.excepthook, sys.unraisablehook

    def hook(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            _end()
        else:
            usual(kind, value, trace)

    def hook_in_thread(args: threading.ExceptHookArgs) -> None:
        if not issubclass(args.exc_type, KeyboardInterrupt):
            usual_in_thread(args)

    def hook_unraisable(args: sys.UnraisableHookArgs) -> None:
        if issubclass(args.exc_type, KeyboardInterrupt):
            # It came where Python cannot raise anything: in a callback of its own, or as it ends.
            _end()
            _die()
        else:
            usual_unraisable(args)

    sys.excepthook, threading.excepthook, sys.unraisablehook = hook, hook_in_thread, hook_unraisable


def _end() -> None:
    """Let the threads that run steps clean up, then say that we were interrupted."""
    if not _program.received:
        _program.received.append(signal.SIGINT)
    deadline = time.monotonic() + PATIENCE
    while _others_work():
        if time.monotonic() > deadline:
            _end_now()  # Python itself would wait for some of them, for however long that takes
        time.sleep(_TICK)
    _say()


def _others_work() -> bool:
    living = {thread.ident for thread in threading.enumerate()}
    return bool((_program.threads - {threading.get_ident()}) & living)


def _at_exit() -> None:
    """End by the signal, whatever was made of the ``KeyboardInterrupt`` that it raised.

    Python itself ends by SIGINT, whatever the exit code, when it came out of an ``exec``, as in dataclasses.
    """
    if _program.received:
        _say()
        _die()


def _end_now() -> NoReturn:
    _kill_children()
    _say()
    _die()


def _say() -> None:
    if _program.said or _program.saying:
        return
    _program.saying = True
    _program.at_work = False
    progress_display = sys.modules.get("venvflow.progress_display")
    with suppress(OSError, ValueError):  # nobody listens any more
        if progress_display is not None and hasattr(progress_display, "shared"):  # else it is being imported
            progress_display.shared().stop()
        if not _program.watched:
            streams.put(sys.stderr, _program.last_words)
        elif sys.stderr is not None:
            os.write(2, _program.last_words.encode("ascii"))  # a buffer may be in use just now
    _program.said = True
    _program.saying = False


def _die() -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError, RuntimeError):  # as above
            stream.flush()
    number = received()
    if _program.by_signal:  # who sent it sees that it was obeyed
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    os._exit(_SIGNALLED + number)
