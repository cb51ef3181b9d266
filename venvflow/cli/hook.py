"""``venvflow hook``: lets git restore venvs after each checkout."""

from __future__ import annotations

import argparse
import os
import sys
from shlex import quote
from typing import TYPE_CHECKING

from venvflow import config as configs
from venvflow.cli.arguments import Parser
from venvflow.cli.render import Output, outcome_text
from venvflow.disk.locks import TIMEOUT_VARIABLE
from venvflow.errors import LockTimeout, UsageError, VenvflowError, shown, some
from venvflow.flow import Flow, load
from venvflow.model import Outcome
from venvflow.steps.checkout import bring_back
from venvflow.steps.job import Job

if TYPE_CHECKING:
    from venvflow.disk.git_hooks import Clone

MORE = """\
install   adds lines to the clone's post-checkout hook, beside what is there already. From then on, git
          worktree add, switch and checkout restore the venvs of this config that the store has, in all
          worktrees of the clone
remove    takes these lines out, for all configs; what else is in the hook stays as it was
run       what the hook does: restores what the store has, and says what it does not have. It builds
          nothing, leaves alone what venvflow did not make or somebody changed, and runs nothing
          of the checkout: no check:, no interpreter that lies in there. It always exits with 0
A clone does not bring hooks along: run it once in each."""
EXAMPLE = "venvflow hook install"

_PATIENCE = "1"
"""Seconds that a checkout waits for other runs."""


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument("action", metavar="ACTION", choices=[*_ACTIONS], help=" or ".join(_ACTIONS))
    parser.add_argument(
        "configs", metavar="FILE", nargs="*", default=(), help="with run: these configs, if they are there"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Install, remove or run the hook; always 0, or an error. There is nothing to say in JSON."""
    if args.configs and args.action != "run":
        raise UsageError(
            f"{args.action} is about one config, and takes no files",
            state="Nothing was done.",
            hint="Name another config with -c.",
        )
    return _ACTIONS[args.action](args, out)


def _install(args: argparse.Namespace, out: Output) -> int:
    from venvflow.disk import git_hooks  # noqa: PLC0415 - a checkout with nothing to do starts no process

    clone, file = _clone(args)
    config = git_hooks.config_below(clone, file)
    is_new = git_hooks.install(clone, sys.executable, config)
    done = "now restores" if is_new else "already restores"
    out.answer(f"{shown(clone.hook)} {done} the venvs of {shown(config)} after each checkout")
    return 0


def _remove(args: argparse.Namespace, out: Output) -> int:
    from venvflow.disk import git_hooks  # noqa: PLC0415 - a checkout with nothing to do starts no process

    clone, _ = _clone(args)
    changed = git_hooks.remove(clone)
    for path in changed:
        out.answer(f"removed from {shown(path)}")
    if not changed:
        out.answer(f"there is nothing of venvflow in {shown(clone.own_hook)}")
    return 0


def _clone(args: argparse.Namespace) -> tuple[Clone, str]:
    """Return the clone that the config lies in, and the path of the config."""
    from venvflow.disk.git_hooks import find_clone  # noqa: PLC0415 - as above

    file, _ = configs.find_config(args.work_dir, args.config)
    clone = find_clone(os.path.dirname(file), os.environ)
    if clone is None:
        raise UsageError(
            "it is not in a checkout of a git repository",
            where=shown(file),
            hint=f'Make one with "git init {quote(shown(os.path.dirname(file)))}", or name a config with -c.',
        )
    return clone, file


# --------------------------------------------------------------------------- what the hook does


def _run(args: argparse.Namespace, out: Output) -> int:
    """Restore for each config that is there; whatever goes wrong is said in a line, and fails nothing."""
    environ = {**os.environ, TIMEOUT_VARIABLE: _PATIENCE}
    top = os.path.realpath(args.work_dir)
    files = [os.path.join(top, file) for file in args.configs] or [args.config]
    for file in files:
        if file is None or os.path.lexists(file):
            try:
                _restore(load(args.work_dir, environ, explicit=file), top, out)
            except VenvflowError as error:
                out.say(
                    f"no venvs are restored: {error.what} {error.lines[0] if error.lines else ''}".rstrip()
                )
    return 0


def _restore(flow: Flow, top: str, out: Output) -> None:
    wanting: dict[str, list[Job]] = {}
    for job in map(flow.job, flow.config.venvs):
        try:
            outcome = bring_back(job, top)
        except LockTimeout:  # it makes all venvs; and others would have to be waited for as well
            out.say(f'another run is at work; when it is done, run "{job.doit}" for what it left')
            break
        except (VenvflowError, OSError, MemoryError) as error:
            outcome = Outcome("failed", _in_short(error))
        if outcome is not None and outcome.did in ("hit", "kept"):
            out.say(f"{job.spec.name}: {outcome_text(outcome)}")
        elif outcome is not None:
            wanting.setdefault(outcome.reason, []).append(job)
    for reason, jobs in wanting.items():  # what is said of many is one line
        doit = jobs[0].doit if len(jobs) == 1 else "doit"
        out.say(f'{some([job.spec.name for job in jobs], 4)}: {reason}; run "{doit}"')


def _in_short(error: VenvflowError | OSError | MemoryError) -> str:
    from venvflow.disk.system_errors import from_system  # noqa: PLC0415 - after an error only

    expected = error if isinstance(error, VenvflowError) else from_system(error, "")
    return expected.what


_ACTIONS = {"install": _install, "remove": _remove, "run": _run}
