"""In place of programs that answer the same each time: this Python asked what it is, and its compiler.

A test that is about those programs has the mark ``programs``, and runs the real ones; tests of faults run the
real compiler.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import warnings
from collections import deque
from collections.abc import Mapping
from typing import Any

import pytest
from pythons import BASE

from venvflow import postinstall
from venvflow.disk import bytecode, interpreters
from venvflow.model import Interpreter

_FACTS = postinstall.own_facts()
_answers: dict[str, dict[str, Any]] = {}
_patch = pytest.MonkeyPatch()
_PROGRAM = interpreters._answer
_DESCRIPTORS = "/proc/self/fd"
"""Where there is none, the compiler itself is run below a directory that may get another name."""


class _Compiler:
    """Looks like a process of compile_worker.py, and compiles here."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", ["dropped", *sys.path])
        outcome = staticmethod(runpy.run_path(bytecode._WORKER)["outcome"])

    def __init__(self, directory: str, home: int | None) -> None:
        self.directory = directory
        self.home = "/" if home is None else f"{_DESCRIPTORS}/{home}"
        self.said = deque([b"ready\n"])
        self.stdin = self.stdout = self

    def __enter__(self) -> _Compiler:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, lines: bytes) -> None:
        """Compile what the *lines* say."""
        for line in lines.splitlines():
            number, file, *asked = json.loads(line)
            file = os.path.join(self.home, file)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = self.outcome(os.path.join(self.directory, f"{number}.pyc"), file, *asked)
            self.said.append(f"{answer}\n".encode("ascii"))

    def readline(self) -> bytes:
        """Return the next answer."""
        return self.said.popleft()

    def kill(self) -> None:
        """Do nothing: nobody compiles behind our back."""


def answering() -> bool:
    """Return whether this process answers."""
    return interpreters._answer is not _PROGRAM


def begin(*, compiler: bool = True) -> None:
    """Let nothing but this process answer for its Python, and for its *compiler*, too."""
    ask, answer, start = postinstall.ask, interpreters._answer, bytecode._start

    def ask_me(python: str) -> dict[str, str]:
        return dict(_FACTS) if _is_this_python(python) else ask(python)

    def answer_once(path: str, environ: Mapping[str, str]) -> dict[str, Any]:
        if not _is_this_python(path):
            return answer(path, environ)
        if BASE not in _answers:
            _answers[BASE] = answer(path, environ)
        return dict(_answers[BASE])

    def compile_here(interpreter: Interpreter, directory: str, home: int | None) -> Any:
        here = _is_this_python(interpreter.executable) and (home is None or os.path.isdir(_DESCRIPTORS))
        return _Compiler(directory, home) if here else start(interpreter, directory, home)

    _patch.setattr(postinstall, "ask", ask_me)
    _patch.setattr(interpreters, "_answer", answer_once)
    if compiler:
        _patch.setattr(bytecode, "_start", compile_here)


def end() -> None:
    """Ask and run the programs themselves."""
    _patch.undo()


def _is_this_python(python: str) -> bool:
    return os.path.realpath(python) == BASE and os.access(python, os.X_OK)
