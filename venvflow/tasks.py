"""The tasks of doit: seven per config, with a sub-task for each venv.

In a ``dodo.py``::

    from venvflow.tasks import *

or without one, in ``pyproject.toml``::

    [tool.doit]
    loader = "venvflow"

Actions and ``uptodate`` functions are module-level functions with plain arguments. They pass on results in
small files, not by doit's ``getargs``, which would not check the task that the values come from. Tasks are
defined venv by venv: a run finishes one venv before it begins the next, and keeps a claim on a build no
longer than it must.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from doit import cmd_run, control, get_initial_workdir
from doit.cmd_base import TaskLoader2
from doit.exceptions import InvalidCommand, InvalidDodoFile, InvalidTask, TaskFailed, UnmetDependency
from doit.globals import Globals
from doit.runner import MThreadRunner, Runner
from doit.task import DelayedLoader, Task

from venvflow import interrupts, streams

if TYPE_CHECKING:
    from venvflow.workers import Workers

if os.path.basename(sys.argv[0].removesuffix("/__main__.py")) == "doit":  # a signal may come from here on
    streams.take_names_for_utf_8(get_initial_workdir() or "")
    interrupts.watch(interrupts.OF_A_RUN, by_signal=True)

from venvflow.disk.system_errors import from_system
from venvflow.disk.trust import refuse_to_lock_out
from venvflow.doit_state import end_with
from venvflow.errors import EnvironmentFailure, LockTimeout, UsageError, VenvflowError, shown
from venvflow.flow import Flow, load
from venvflow.model import VenvSpec
from venvflow.pure.names import did_you_mean
from venvflow.reporter import FlowReporter
from venvflow.steps.job import refuse_linked_state
from venvflow.streams import fill_closed, put_or_drop, show_everything

__all__ = ["DOIT_CONFIG", "task_venvflow"]  # noqa: F822 - __getattr__ makes DOIT_CONFIG

TASK_DOCS = {
    "hash-lockfiles": "compute the key from lock files, interpreter and config",
    "restore": "bring the venv from the store, if it has a snapshot for the key",
    "build-venv": "build the venv, if restore missed",
    "squish": "give the venv's files to the store and share them by link",
    "pack": "write the portable archive, if the config asks for one",
    "store": "publish the snapshot for other checkouts",
}
_PUSH_DOC = "give the remote the snapshots of all venvs"
_TRIM_DOC = "drop snapshots by the policy and sweep what nothing refers to"
_NEEDS = {
    "hash-lockfiles": "",
    "restore": "hash-lockfiles",
    "build-venv": "restore",
    "squish": "build-venv",
    "pack": "squish",
    "store": "squish",
}


class StepFailed(TaskFailed):  # type: ignore[misc]  # doit has no types
    """A step ended with an expected error: its *message*, its *exit_code*, and in short *what* failed."""

    def __init__(self, message: str, exit_code: int = 1, what: str = "") -> None:
        super().__init__(message)
        self.exit_code, self.what = exit_code, what


# --------------------------------------------------------------------------- the flow of this process

_flow: Flow | None = None
_words: Sequence[str] | None = None
_workers: Workers | None = None


def run(flow: Flow, venvs: Collection[str] | None, reporter: FlowReporter, *, quiet: bool = False) -> int:
    """Do in this process what ``doit`` does for *venvs*, or for all without (None); return its exit code.

    *reporter* says what is done, and knows it afterwards; *quiet*: nothing shows how far it is. The tasks are
    those of the config, without what a dodo.py adds to them, and their state is doit's. The working directory
    does not matter, nor change. Raises Refused and EnvironmentFailure where nothing can be run at all.
    """
    global _flow, _words
    if venvs is not None and not venvs:  # doit without words would do all
        return 0
    before = _flow, _words, Globals.dep_manager
    _flow, _words = flow, [f"{verb}:{venv}" for venv in venvs or () for verb in TASK_DOCS]
    if not quiet:
        flow.say = _say
    try:
        _prepare(flow)
        loader = VenvflowLoader()
        loader.config = {"GLOBAL": {"reporter": reporter, **({"verbosity": 0} if quiet else {})}}
        return int(cmd_run.Run(task_loader=loader).parse_execute(_words))
    except (InvalidDodoFile, InvalidTask) as error:
        raise EnvironmentFailure(
            str(error),
            state="No task was run.",
            hint="Correct the tasks or the dodo.py that it names, then run again.",
        ) from error
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        _flow, _words, Globals.dep_manager = before


def _asked() -> Sequence[str]:
    """Return the words of doit's command line, or those that :func:`run` stands for."""
    return sys.argv[1:] if _words is None else _words


def current_flow() -> Flow:
    """Return the flow of the project in the working directory; an error ends doit with its own exit code.

    doit would show a traceback and end with 3 for anything that is raised while tasks are loaded.
    """
    global _flow  # noqa: PLW0603 - doit gives tasks no other place for what they share
    if _flow is None:
        interrupts.watch(interrupts.OF_A_RUN, by_signal=True)
        fill_closed(answers=False)
        try:
            _flow = load(os.getcwd(), os.environ)
            _prepare(_flow)
        except VenvflowError as error:
            put_or_drop(sys.stderr, f"venvflow: {error}\n")
            raise SystemExit(error.exit_code) from None
        _flow.say = _say
        for warning in _flow.config.warnings:
            _flow.say(warning)
    return _flow


def _prepare(flow: Flow) -> None:
    """Make doit and the reporter ready for a run; raises Refused."""
    refuse_to_lock_out(flow.config.root, os.environ)
    refuse_linked_state(flow.config.state_dir)
    flow.named = _named_in(_asked(), flow.config.groups)
    control.InvalidCommand = _UnknownName
    cmd_run.Runner, cmd_run.MThreadRunner, cmd_run.MRunner = _OneByOne, _InThreads, _NoProcesses
    FlowReporter.at_end = flow.prepare_next
    interrupts.begin()


def _named_in(words: Sequence[str], groups: Mapping[str, Iterable[str]]) -> frozenset[str]:
    """Return the venvs that *words* ask for by name: ``api``, ``restore:api``, ``*:api``, or that of a set.

    A word after an option may be its value; one that is taken for it all the same is looked at in its turn.
    """
    asked = {
        word.rpartition(":")[2]
        for before, word in zip(["", *words], words, strict=False)
        if not before.startswith("-")
    }
    return frozenset(venv for name in asked.intersection(groups) for venv in groups[name])


def _say(text: str) -> None:
    """Tell the person who waits; not into the line at the foot of a terminal."""
    from venvflow.progress_display import shared  # noqa: PLC0415 - a run with nothing to do says nothing

    shared().write(sys.stderr, f"venvflow: {shown(text)}\n")


class _NoProcesses:
    """Ends doit with 2 when it is to do tasks in processes of its own.

    Nobody would end them when doit is killed, and doit would wait for ever for one that is killed. It has no
    hook for this, so the name of its class is set to this one.
    """

    @staticmethod
    def available() -> bool:
        """Answer what doit asks first."""
        error = UsageError(
            "process mode is not supported: with -n, venvflow starts processes itself, which end with doit",
            where=shown(" ".join(["doit", *sys.argv[1:]])),
            state="Nothing was run.",
            hint='Use "-P thread", or par_type = "thread" where doit is configured.',
        )
        put_or_drop(sys.stderr, f"venvflow: {error}\n")
        raise SystemExit(error.exit_code)


_PAST_VENVS = "venvs"
"""Of doit's ``continue``, where nobody chose: go on when a venv fails, and stop when another task does."""


class _PastVenvs:
    """Lets a runner of doit go on with other venvs when one fails; a task of a dodo.py ends the run as ever.

    doit knows only all or nothing, and has no hook for this, so the names of its runners are set to these.
    What a task hangs on stops nothing that its failure did not stop.
    """

    continue_: Any
    _stop_running: bool

    def _handle_task_error(self, node: Any, base_fail: Any) -> None:
        super()._handle_task_error(node, base_fail)  # type: ignore[misc]  # doit's, next in line
        is_ours = isinstance(node.task, _Step) or isinstance(base_fail, UnmetDependency)
        if self.continue_ == _PAST_VENVS and not is_ours:
            self._stop_running = True


class _OneByOne(_PastVenvs, Runner):  # type: ignore[misc]  # doit has no types
    """Does one task after the other."""


class _InThreads(_PastVenvs, MThreadRunner):  # type: ignore[misc]  # doit has no types
    """Does several tasks at once: a thread for each, and where that is worth it a process for its step."""

    def run_tasks(self, task_dispatcher: Any) -> None:
        """Do them; the workers end when all is done."""
        global _workers  # noqa: PLW0603 - see current_flow
        if _flow is not None and len(_flow.config.venvs) > 1 and len(_flow.named) != 1:
            from venvflow.workers import Workers  # noqa: PLC0415 - most runs have none

            _workers = Workers(_flow, tuple(_NEEDS))
        try:
            super().run_tasks(task_dispatcher)
        finally:
            if _workers is not None:
                _workers.close()
            _workers = None


class _UnknownName(InvalidCommand):  # type: ignore[misc]  # doit has no types
    """Ends doit with 2 and the nearest name when a word is not a task.

    doit itself ends with 3 then, which says that the environment is broken, and lists no names. It has no
    hook for this, so the name that it raises is set to this class.
    """

    def __init__(self, *args: Any, not_found: str | None = None) -> None:
        super().__init__(*args, not_found=not_found)
        if not_found is not None:
            config = current_flow().config
            tasks = [f"{verb}:{venv}" for verb in TASK_DOCS for venv in config.venvs]
            hint = did_you_mean(not_found, [*config.groups, *TASK_DOCS, "trim", *tasks], config.groups)
            error = UsageError(
                f"there is no task {shown(not_found)!r}", hint=f'{hint} "doit list" shows the tasks.'
            )
            put_or_drop(sys.stderr, f"venvflow: {error}\n")
            raise SystemExit(error.exit_code)


def doit_config(flow: Flow) -> dict[str, Any]:
    """Return what doit has to know: state in our database, threads, our reporter."""
    return {
        "backend": "venvflow",
        "dep_file": os.path.join(flow.config.state_dir, "state.db"),
        "reporter": "venvflow",
        "par_type": "thread",
        "continue": _PAST_VENVS,
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
    venvs, groups = current_flow().config.venvs, current_flow().config.groups
    for spec in venvs.values():
        yield from _tasks_of(spec, _owner_of(spec.name, groups))
    for verb, doc in TASK_DOCS.items():
        yield _group(verb, doc, [f"{verb}:{name}" for name in venvs])
    yield from _groups_of_venvs(groups)
    if "trim" in _asked():  # then it is not about all venvs
        yield from _task_trim()
        return
    # Made when all that is to be stored is: so these also run when that failed for some venvs.
    if current_flow().may_push():
        loader = DelayedLoader(_task_push, executed="store")
        yield Task("push", None, doc=_PUSH_DOC, loader=loader, uptodate=[(was_pushed,)])
    loader = DelayedLoader(_task_trim, executed="store")
    yield Task("trim", None, doc=_TRIM_DOC, loader=loader, uptodate=[(was_trimmed,)])


class _Step(Task):  # type: ignore[misc]  # doit has no types
    """One step for one venv. ``doit clean`` says what it removes, in a line, and not how."""

    def clean(self, outstream: Any, dryrun: bool) -> None:
        """Remove what the step left."""
        verb, _, venv = self.name.partition(":")
        if removed := clean_step(verb, venv, dryrun=dryrun):
            show_everything(outstream)
            put_or_drop(outstream, f"{self.name}  {removed}\n")


_BY_SUBTASK = ("clean", "forget", "ignore")
"""doit's commands that do to the sub-tasks of a group what they do to the group."""


def _owner_of(venv: str, groups: Mapping[str, Iterable[str]]) -> str:
    """Return the group whose sub-tasks a venv's tasks are for once, because such a command names that.

    doit knows one group only for each task. The tasks of another one are to it what a group needs, which
    these commands leave alone.
    """
    words = [word for word in _asked() if not word.startswith("-") and "=" not in word]
    if not words or words[0] not in _BY_SUBTASK:
        return ""
    taken = _taken(_other_tasks())
    owners = (name for name, venvs in groups.items() if venv in venvs and name not in taken)
    return next((name for name in owners if any(fnmatchcase(name, word) for word in words[1:])), "")


def _taken(own: set[str]) -> set[str]:
    """Return the names that no group of a venv can have; *own* are those of a dodo.py."""
    return {*TASK_DOCS, "push", "trim", *own}


def _tasks_of(spec: VenvSpec, group: str) -> Iterator[Task]:
    locks = [path for path in (*spec.locks, *spec.key_files) if os.path.isfile(path)]
    for verb, needs in _NEEDS.items():
        yield _Step(
            f"{verb}:{spec.name}",
            [(run_step, [verb, spec.name])],
            doc=TASK_DOCS[verb],
            task_dep=[f"{needs}:{spec.name}"] if needs else [],
            file_dep=locks if verb == "hash-lockfiles" else [],
            uptodate=[(is_done, [verb, spec.name])],
            subtask_of=group or verb,
            io={"capture": False},
        )


def _group(name: str, doc: str, tasks: list[str]) -> Task:
    group = Task(name, None, doc=doc, has_subtask=True)
    group.task_dep.extend(tasks)
    return group


def _groups_of_venvs(groups: Mapping[str, Iterable[str]]) -> Iterator[Task]:
    """Yield a group for every venv and set, so that ``doit api`` does all there is to do for it.

    A name that is a task already keeps its meaning: that of one of ours, or of the dodo.py. A plain
    ``doit`` does all tasks anyway, and is spared the groups unless a dodo.py may build on them.
    """
    own = _other_tasks()
    if not own and not any(not word.startswith("-") for word in _asked()):
        return
    taken = _taken(own)
    for name, venvs in groups.items():
        if name not in taken:
            which = "venv" if name in venvs else "set"
            tasks = [f"{verb}:{venv}" for venv in venvs for verb in TASK_DOCS]
            yield _group(name, f"all that the {which} {name} needs", tasks)


def _other_tasks() -> set[str]:
    """Return the names of the tasks that a dodo.py makes besides ours."""
    names: set[str] = set()
    for module in list(sys.modules.values()):
        space = getattr(module, "__dict__", {})
        if space.get("task_venvflow") is task_venvflow and module.__name__ != __name__:
            names |= {name.removeprefix("task_") for name in space if name.startswith("task_")}
    return names - {"venvflow"}


def _task_push() -> Iterator[Task]:
    """Yield push, which stands in a group of its own as trim does."""
    yield _group("push", _PUSH_DOC, ["push:snapshots"])
    yield Task(
        "push:snapshots",
        [(run_push,)],
        doc=_PUSH_DOC,
        uptodate=[(was_pushed,)],
        subtask_of="push",
        title=lambda task: str(task.subtask_of),
        io={"capture": False},
    )


def _task_trim() -> Iterator[Task]:
    """Yield trim, which stands in a group of its own because doit asks for it by its group's name."""
    group = _group("trim", _TRIM_DOC, ["trim:snapshots"])
    group.value_savers.append(lambda: {"did": "made"})  # what doit keeps of a group can be forgotten
    yield group
    yield Task(
        "trim:snapshots",
        [(run_trim,)],
        doc=_TRIM_DOC,
        uptodate=[(is_trimmed,)],
        subtask_of="trim",
        title=lambda task: str(task.subtask_of),
        io={"capture": False},
    )


def run_step(verb: str, venv: str) -> dict[str, Any] | StepFailed:
    """Run one step for one venv; the answer is kept by doit and shown by the reporter."""
    from venvflow.step_worker import perform  # noqa: PLC0415 - a run with nothing to do needs no step

    flow = current_flow()
    try:
        with interrupts.working():
            answer = _workers.do(verb, venv) if _workers is not None else perform(flow, verb, venv)
    except VenvflowError as error:
        return _failed(error)
    finally:
        flow.forget_plans(shared=verb == "squish")
    if answer.failure is not None:
        return StepFailed(*answer.failure)
    if answer.values["did"] in ("hit", "built"):
        flow.given_up.discard(venv)
    return dict(answer.values)


def run_push() -> dict[str, Any] | StepFailed:
    """Push what is not in the remote yet; what cannot be sent now is a warning, and the next run's."""
    from venvflow.pure.units import counted, show_size  # noqa: PLC0415 - see run_step
    from venvflow.steps.push import push  # noqa: PLC0415 - see run_step

    flow = current_flow()
    venvs = flow.to_push()
    outcomes = []
    try:
        with interrupts.working():
            for venv in venvs:
                outcomes.append(push(flow.job(venv)))  # noqa: PERF401 - what was sent counts if one fails
    except VenvflowError as error:
        return _failed(error)
    except (OSError, MemoryError) as error:
        return _failed(from_system(error, "Nobody sees half a snapshot there."))
    sent = sum(int(each.figures.get("bytes", 0)) for each in outcomes)
    failed = [each.reason for each in outcomes if each.did == "not pushed"]
    warnings = [f"{len(failed)} of {counted(len(venvs), 'venv')} not pushed: {failed[0]}"] if failed else []
    pushed = [each for each in outcomes if each.did == "pushed"]
    reason = f"{len(pushed)} of {counted(len(venvs), 'snapshot')}, {show_size(sent)}"
    return {"did": "pushed" if pushed else "kept", "reason": reason, "figures": {}, "warnings": warnings}


def run_trim() -> dict[str, Any] | StepFailed:
    """Apply the trim policy."""
    from venvflow.pure.units import counted, show_size  # noqa: PLC0415 - see run_step
    from venvflow.steps.trim import trim  # noqa: PLC0415 - see run_step

    flow = current_flow()
    is_asked = "trim" in _asked()
    try:
        with interrupts.working():
            trimmed = trim(
                flow.config, flow.environ, now=flow.now(), say=flow.say, waits=is_asked, thorough=is_asked
            )
    except LockTimeout as error:  # housekeeping: a later run does it
        did = "put off" if is_asked else "kept"
        return {"did": did, "reason": f"the store is in use ({error.what})", "figures": {}}
    except VenvflowError as error:
        return _failed(error)
    except (OSError, MemoryError) as error:
        return _failed(from_system(error, "Every snapshot is there, whole, or gone."))
    freed = trimmed.swept.bytes if trimmed.swept is not None else 0
    snapshots = counted(len(trimmed.snapshots), "snapshot")
    reason = f"{len(trimmed.plan.drop)} of {snapshots}, {show_size(freed)} freed"
    # Asked for by name, it answers always; at the end of other runs, nothing is not worth a line.
    is_worth_a_line = trimmed.plan.drop or freed or is_asked
    did = "dropped" if is_worth_a_line else "kept"
    return {"did": did, "reason": reason, "figures": {}, "warnings": list(trimmed.plan.problems)}


def _failed(error: VenvflowError) -> StepFailed:
    return StepFailed(str(error), error.exit_code, error.what)


def is_done(task: Task, values: dict[str, Any], verb: str, venv: str) -> bool:
    """Return whether a step need not run. *values* are empty when doit does not know of a run, or forgot it.

    ``build-venv`` needs no earlier run of its own: after a hit there was none.
    """
    del task
    if not values and verb != "build-venv":
        return False
    try:
        return not current_flow().is_due(verb, venv)
    except VenvflowError:
        return False  # the step itself will say what is wrong


def is_trimmed(task: Task, values: dict[str, Any]) -> bool:
    """Return whether trim need not run; it is forgotten and ignored by the name of its group."""
    state = Globals.dep_manager
    if state is not None and state.status_is_ignore(Task(task.subtask_of, None)):
        return True
    known = values and (state is None or state.get_values(task.subtask_of))
    return bool(known) and current_flow().is_trimmed()


def was_trimmed(task: Task, values: dict[str, Any]) -> bool:
    """Return what ``doit list -s`` says of trim, which is made when it is its turn only."""
    del task, values
    flow = current_flow()
    return os.path.isdir(flow.config.store.path) and flow.is_trimmed()


def was_pushed(task: Task, values: dict[str, Any]) -> bool:
    """Return whether nothing is left to push; neither the network nor a library is asked."""
    del task, values
    return not current_flow().to_push()


# doit asks for the signature of every such function, for every task, on every run: 25 us each. This one it
# finds ready-made.
for _function in (is_done, is_trimmed, was_pushed, was_trimmed):
    vars(_function)["__signature__"] = inspect.signature(_function)


# --------------------------------------------------------------------------- doit clean

_LEFT_BEHIND = {
    "hash-lockfiles": ("key.json",),
    "restore": ("restore.json",),
    "build-venv": ("build.log", "excluded.json"),
    "squish": (),
    "pack": ("pack.json",),
    "store": (),
}


def clean_step(verb: str, venv: str, *, dryrun: bool) -> str:
    """Remove what a step left: only what venvflow made, and no venv that was changed by hand.

    Returns what to say of it: venvs and archives; the small files of steps are not worth a word.
    """
    from venvflow.steps.clean import clean  # noqa: PLC0415 - see run_step

    try:
        removed = clean(current_flow().job(venv), verb, _LEFT_BEHIND[verb], dry_run=dryrun)
    except VenvflowError as error:
        put_or_drop(sys.stderr, f"venvflow: {error}\n")
        end_with(error.exit_code)
        return ""
    did = "would remove" if dryrun else "removed"
    beside = " and what is beside it" if len(removed) > 1 else ""
    return f"{did} {shown(removed[0])}{beside}" if removed else ""


# --------------------------------------------------------------------------- without a dodo.py


class VenvflowLoader(TaskLoader2):  # type: ignore[misc]  # doit has no types
    """Loads the tasks straight from ``venvflow.yaml``; chosen by ``loader = "venvflow"``."""

    cmd_options = ()

    def setup(self, opt_values: dict[str, Any]) -> None:
        """Do nothing: everything comes from the config."""

    def load_doit_config(self) -> dict[str, Any]:
        """Return our settings; what the user sets under ``[tool.doit]`` wins."""
        chosen = self.config or {}
        return {**doit_config(current_flow()), **chosen.get("GLOBAL", {}), **chosen.get("run", {})}

    def load_tasks(self, cmd: Any, pos_args: Sequence[str]) -> list[Task]:
        """Return all tasks."""
        del cmd, pos_args
        return list(task_venvflow())
