"""The doit face: seven tasks per config, one sub-task per venv.

In a ``dodo.py``::

    from venvflow.tasks import *

or without one, in ``pyproject.toml``::

    [tool.doit]
    loader = "venvflow"

Actions and questions are module-level functions with plain arguments, so that they work in doit's threads
and in its processes. They speak through small files, never through doit's ``getargs``, which would not
check the task that it takes values from. Tasks are defined venv by venv: a run finishes one venv before
it begins the next, and a claim on a build is never kept longer than it must be.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from doit.cmd_base import TaskLoader2
from doit.exceptions import TaskFailed
from doit.task import Task, dict_to_task

from venvflow.backend import install_signal_handlers, wait_for_children
from venvflow.errors import LockTimeout, VenvflowError
from venvflow.flow import Flow, load
from venvflow.model import Outcome, VenvSpec

__all__ = ["DOIT_CONFIG", "task_venvflow"]  # noqa: F822 - DOIT_CONFIG is made when it is asked for

TASK_DOCS = {
    "hash-lockfiles": "compute the key from lock files, interpreter and config",
    "restore": "bring the venv from the store, if it has a snapshot for the key",
    "build-venv": "build the venv, if restore missed",
    "squish": "give the venv's files to the store and share them by link",
    "pack": "write the portable archive, if the config asks for one",
    "store": "publish the snapshot for other checkouts",
}
_NEEDS = {
    "hash-lockfiles": "",
    "restore": "hash-lockfiles",
    "build-venv": "restore",
    "squish": "build-venv",
    "pack": "squish",
    "store": "squish",
}


class StepFailed(TaskFailed):  # type: ignore[misc]  # doit has no types
    """A step ended with an expected error: its message, and the exit code that it stands for."""

    exit_code = 1


# --------------------------------------------------------------------------- the flow of this process

_flow: Flow | None = None


def current_flow() -> Flow:
    """Return the flow of the project in the working directory; an error ends doit with its own exit code.

    doit would show a traceback and end with 3 for anything that is raised while tasks are loaded.
    """
    global _flow  # noqa: PLW0603 - doit gives tasks no other place for what they share
    if _flow is None:
        try:
            _flow = load(os.getcwd(), os.environ)
        except VenvflowError as error:
            sys.stderr.write(f"venvflow: {error}\n")
            raise SystemExit(error.exit_code) from None
        _flow.say = lambda text: print(f"venvflow: {text}", file=sys.stderr, flush=True)  # noqa: T201
        for warning in _flow.config.warnings:
            _flow.say(warning)
        _end_quietly()
    return _flow


def _end_quietly() -> None:
    """See to it that a signal ends our children too, and that the user reads a line, no traceback.

    Python's own way to end after Ctrl-C stays: the shell sees the signal (130), and finished tasks are kept.
    """
    install_signal_handlers()
    usual = sys.excepthook

    def hook(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            wait_for_children()
            sys.stderr.write("venvflow: interrupted. What is finished stays; run doit again to go on.\n")
        else:
            usual(kind, value, trace)

    sys.excepthook = hook


def doit_config(flow: Flow) -> dict[str, Any]:
    """Return what doit has to know: state in our database, threads, our reporter."""
    return {
        "backend": "venvflow",
        "dep_file": os.path.join(flow.config.state_dir, "state.db"),
        "reporter": "venvflow",
        "par_type": "thread",
        # doit 0.37 dies of "doit forget" without names when there are no default tasks; so it asks for names.
        "forget_disable_default": True,
    }


def __getattr__(name: str) -> Any:
    """Make DOIT_CONFIG when a dodo.py imports it: it needs the config."""
    if name == "DOIT_CONFIG":
        return doit_config(current_flow())
    raise AttributeError(name)


# --------------------------------------------------------------------------- tasks


def task_venvflow() -> Iterator[Task]:
    """Yield the tasks of every venv, then the groups, then trim."""
    flow = current_flow()
    for spec in flow.config.venvs.values():
        yield from _tasks_of(spec)
    for verb, doc in TASK_DOCS.items():
        group = Task(verb, None, doc=doc, has_subtask=True)
        group.task_dep.extend(f"{verb}:{name}" for name in flow.config.venvs)
        yield group
    yield dict_to_task(
        {
            "name": "trim",
            "doc": "drop snapshots by the policy and sweep what nothing refers to",
            "actions": [(run_trim,)],
            "task_dep": [f"store:{name}" for name in flow.config.venvs],
            "uptodate": [(is_trimmed,)],
            "io": {"capture": False},
        }
    )


def _tasks_of(spec: VenvSpec) -> Iterator[Task]:
    locks = [path for path in (*spec.locks, *spec.key_files) if os.path.isfile(path)]
    for verb, needs in _NEEDS.items():
        task = dict_to_task(
            {
                "name": f"{verb}:{spec.name}",
                "doc": TASK_DOCS[verb],
                "actions": [(run_step, [verb, spec.name])],
                "task_dep": [f"{needs}:{spec.name}"] if needs else [],
                "file_dep": locks if verb == "hash-lockfiles" else [],
                "uptodate": [(is_done, [verb, spec.name])],
                "clean": [(clean_step, [verb, spec.name])],
                "io": {"capture": False},
            }
        )
        task.subtask_of = verb
        yield task


def run_step(verb: str, venv: str) -> dict[str, Any] | StepFailed:
    """Run one step for one venv; the answer is kept by doit and shown by the reporter."""
    try:
        return _as_values(_step(verb)(current_flow().job(venv)))
    except VenvflowError as error:
        return _failed(error)


def run_trim() -> dict[str, Any] | StepFailed:
    """Apply the trim policy."""
    from venvflow.steps.trim import trim  # noqa: PLC0415 - see _step
    from venvflow.units import show_size  # noqa: PLC0415 - see _step

    flow = current_flow()
    try:
        trimmed = trim(flow.config, flow.environ, now=flow.now(), say=flow.say)
    except LockTimeout as error:  # housekeeping: what was asked for is done
        return {"did": "put off", "reason": f"the store is in use ({error.what})", "figures": {}}
    except VenvflowError as error:
        return _failed(error)
    freed = trimmed.swept.bytes if trimmed.swept is not None else 0
    reason = f"{len(trimmed.plan.drop)} of {len(trimmed.snapshots)} snapshots, {show_size(freed)} freed"
    return {"did": "dropped", "reason": reason, "figures": {}, "warnings": list(trimmed.plan.problems)}


def _step(verb: str) -> Callable[[Any], Outcome]:
    """Return the function of a step; imported when one runs, because a run with nothing to do needs none."""
    name = verb.replace("-", "_")
    function: Callable[[Any], Outcome] = getattr(importlib.import_module(f"venvflow.steps.{name}"), name)
    return function


def _as_values(outcome: Outcome) -> dict[str, Any]:
    return {
        "did": outcome.did,
        "reason": outcome.reason,
        "figures": outcome.figures,
        "warnings": list(outcome.warnings),
    }


def _failed(error: VenvflowError) -> StepFailed:
    failed = StepFailed(str(error))
    failed.exit_code = error.exit_code
    return failed


def is_done(task: Task, values: dict[str, Any], verb: str, venv: str) -> bool:
    """Return whether a step need not run. *values* are empty when doit does not know of a run, or forgot it.

    ``build-venv`` needs no earlier run of its own: after a hit there was none.
    """
    del task
    if not values and verb != "build-venv":
        return False
    flow = current_flow()
    asked = {
        "hash-lockfiles": flow.is_hashed,
        "restore": flow.is_in_place,
        "build-venv": flow.is_built,
        "squish": flow.is_squished,
        "pack": flow.is_packed,
        "store": flow.is_stored,
    }
    try:
        return asked[verb](venv)
    except VenvflowError:
        return False  # the step itself will say what is wrong


def is_trimmed(task: Task, values: dict[str, Any]) -> bool:
    """Return whether trim need not run."""
    del task
    return bool(values) and current_flow().is_trimmed()


# doit asks for the signature of every such function, for every task, on every run: 25 us each. This one it
# finds ready-made.
for _function in (is_done, is_trimmed):
    vars(_function)["__signature__"] = inspect.signature(_function)


# --------------------------------------------------------------------------- doit clean

_LEFT_BEHIND = {
    "hash-lockfiles": ("key.json",),
    "restore": ("restore.json",),
    "build-venv": ("build.log", "excluded.json"),
    "squish": ("manifest.json",),
    "pack": ("pack.json",),
    "store": (),
}


def clean_step(verb: str, venv: str, dryrun: bool) -> None:
    """Remove what a step left: only what venvflow made, and no venv that was changed by hand."""
    from venvflow.steps.clean import clean  # noqa: PLC0415 - see _step

    try:
        for path in clean(current_flow().job(venv), verb, _LEFT_BEHIND[verb], dry_run=dryrun):
            print(f"{verb}:{venv} - removing {path}")  # noqa: T201 - this is the face
    except VenvflowError as error:
        sys.stderr.write(f"venvflow: {error}\n")


# --------------------------------------------------------------------------- without a dodo.py


class VenvflowLoader(TaskLoader2):  # type: ignore[misc]  # doit has no types
    """Loads the tasks straight from ``venvflow.yaml``; chosen by ``loader = "venvflow"``."""

    cmd_options = ()

    def setup(self, opt_values: dict[str, Any]) -> None:
        """Do nothing: everything comes from the config."""

    def load_doit_config(self) -> dict[str, Any]:
        """Return our settings; what the user sets under ``[tool.doit]`` wins."""
        chosen = (self.config or {}).get("GLOBAL", {})
        return {**doit_config(current_flow()), **chosen}

    def load_tasks(self, cmd: Any, pos_args: Sequence[str]) -> list[Task]:
        """Return all tasks."""
        del cmd, pos_args
        return list(task_venvflow())
