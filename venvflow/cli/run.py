"""``venvflow run``: makes a venv what its lock files say if it is not, then becomes a command in it."""

from __future__ import annotations

import argparse
import errno
import io
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

from venvflow.cli.arguments import Parser
from venvflow.cli.context import open_flow
from venvflow.cli.operands import select_one
from venvflow.cli.render import Output
from venvflow.disk.interpreters import venv_settings
from venvflow.errors import CommandNotFound, CommandNotRun, EnvironmentFailure, shown

MORE = """\
Does all that "doit VENV" does, with its messages on standard error; no word if there is nothing to do.
Then it becomes the command, in this directory, with the venv's bin first on PATH and VIRTUAL_ENV set.
Ends with the command's exit code; with 127 if there is none of that name, 126 if it cannot be started.
The command is not run if the venv cannot be made. It is if only sharing, packing or storing it fails.
A venv that was changed by hand is used as it is, with a warning."""
EXAMPLE = "venvflow run api -- pytest -x"

_SHARES = {"squish", "pack", "store"}
"""The tasks that a venv is whole without."""

_NOT_RUN = "The command was not run."


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes; :mod:`venvflow.cli.parser` takes away those behind ``--``."""
    parser.add_argument(
        "venv",
        metavar="VENV",
        nargs="?",
        help="its name in the config; may be left out if it is the only one",
    )
    parser.add_argument("program", metavar="-- COMMAND", nargs="*", help="the command and its words")


def run(args: argparse.Namespace, out: Output) -> int:
    """Make the venv and become the command; returns only the exit code of what went wrong before."""
    from venvflow import tasks  # noqa: PLC0415 - brings doit, which few commands need
    from venvflow.reporter import FlowReporter  # noqa: PLC0415 - as above

    if not args.program:
        args.parser.error('a command is missing behind "--", as in "venvflow run VENV -- COMMAND"')
    flow = open_flow(args, out)
    venv = select_one(args.venv, flow.config.venvs, flow.config.sets)
    reporter = FlowReporter(io.StringIO() if out.quiet else sys.stderr, {})
    reporter.answers = False
    code = tasks.run(flow, [venv], reporter, quiet=out.quiet)
    failed = {each["task"].name.partition(":")[0] for each in reporter.failures}
    if code and not (failed and failed <= _SHARES):
        return code
    job = flow.job(venv)
    if not os.access(f"{job.place.path}/bin/python", os.X_OK):
        raise EnvironmentFailure(
            "there is no venv to run the command in",
            where=job.where,
            state=_NOT_RUN,
            hint=f'If doit was told to ignore it, "doit forget {job.spec.name}" ends that.',
        )
    if args.work_dir != ".":
        os.chdir(args.work_dir)
    return _become(args.program, activated(job.place.path, os.environ))


def activated(venv: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* as the activate script of *venv*, an absolute path, leaves it."""
    prompt = venv_settings(venv).get("prompt", "").strip("'\"") or os.path.basename(venv)
    path = os.pathsep.join([f"{venv}/bin", environ.get("PATH", os.defpath)])
    return {
        **{name: value for name, value in environ.items() if name != "PYTHONHOME"},
        "PATH": path,
        "VIRTUAL_ENV": venv,
        "VIRTUAL_ENV_PROMPT": prompt,
    }


def _become(program: list[str], environ: Mapping[str, str]) -> NoReturn:
    """Replace this process; raises CommandNotFound or CommandNotRun.

    Handlers of signals and our descriptors end with it: Python opens no file that a command inherits. What
    Python ignores would be ignored by the command, too.
    """
    name, *words = program
    if not name:
        raise _not_found(name)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    ignored = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGPIPE, signal.SIGXFSZ)}
    try:
        os.execvpe(name, program, environ)  # noqa: S606 - no shell is wanted
    except OSError as error:
        found = name if "/" in name else shutil.which(name, path=environ["PATH"])
        if error.errno == errno.ENOEXEC and found:  # a script that does not say by what; shells do the same
            os.execve("/bin/sh", ["/bin/sh", found, *words], environ)  # noqa: S606 - as above
        for number, before in ignored.items():
            signal.signal(number, before)
        why = error.strerror
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            if not (found and os.path.lexists(found)):
                raise _not_found(name) from None
            why = "the interpreter that its first line names is not there"
        raise CommandNotRun(
            f"the command cannot be started: {why}",
            where=shown(found or name),
            state=_NOT_RUN,
            hint="Is it a program, and executable?",
        ) from error


def _not_found(name: str) -> CommandNotFound:
    in_a_path = "/" in name
    return CommandNotFound(
        f"there is no command {shown(name)!r}{'' if in_a_path else ' in the venv or on PATH'}",
        state=_NOT_RUN,
        hint="Correct the path." if in_a_path else 'What is built into a shell needs one: sh -c "...".',
    )
