"""The command line ``venvflow``: answers questions and acts on one thing; ``doit`` does the work.

Answers go to standard output, messages and progress to standard error. Exit codes: 0 done or hit; 1 a miss,
or the answer is no; 2 wrong words or config; 3 environment; 4 a build failed; 5 a lock was held for too
long; 6 refused, because something could be lost; 126 and 127 as shells have them, of the command of run;
130 interrupted (143 by SIGTERM). Importing this module is cheap: what a command needs is imported when it
runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from venvflow import interrupts
from venvflow.errors import EnvironmentFailure, VenvflowError, shown
from venvflow.streams import fill_closed

_WHOLE = "Every venv is the old one or the new one, whole."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; *argv* are the words after the program's name."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what its line may go on with
        from venvflow.cli.completion import complete  # noqa: PLC0415

        complete()
    words = list(sys.argv[1:] if argv is None else argv)
    fill_closed(answers=True)
    try:
        with interrupts.raised():
            return _run(words)
    except KeyboardInterrupt:
        return interrupts.exit_code()


def _run(words: list[str]) -> int:
    from venvflow.cli.arguments import HelpRequested  # noqa: PLC0415
    from venvflow.cli.parser import parse  # noqa: PLC0415 - inside, so that Ctrl-C is met from here on
    from venvflow.cli.render import Output  # noqa: PLC0415

    out = Output(os.environ)
    try:
        try:
            args = parse(words, os.environ)
        except HelpRequested as asked:
            out.answer(str(asked))
            return 0
        out = Output(os.environ, as_json=args.format == "json", verbose=args.verbose, quiet=args.quiet)
        code: int = args.run(args, out)
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback without -v
        expected = _as_expected(error)
        out.fail(str(expected))
        return expected.exit_code
    return code


def _as_expected(error: Exception) -> VenvflowError:
    """Return *error* as one of ours: what failed, where, in which state things are, and what to do next."""
    if isinstance(error, VenvflowError):
        return error
    if isinstance(error, OSError | MemoryError):
        from venvflow.disk.system_errors import from_system  # noqa: PLC0415 - it brings what few commands need

        return from_system(error, _WHOLE)
    return EnvironmentFailure(
        f"this should not happen: {type(error).__name__}: {shown(str(error))}",
        state=_WHOLE,
        hint="Run again with -v for a traceback, and report it.",
    )
