"""Checks of the project: its interpreters and builders, who owns its files, and leftovers."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator
from contextlib import suppress
from shlex import quote

from venvflow import builders
from venvflow.builders.environment import child_environment
from venvflow.disk import git_hooks, interpreters, locks, processes
from venvflow.disk.descriptors import directory
from venvflow.errors import UsageError, VenvflowError, first_of, shown, some
from venvflow.pure.units import counted
from venvflow.steps.doctor.check import Check, CheckContext, CheckResult, fail, ok, warn
from venvflow.steps.job import Job

_PATIENCE = 20.0
"""Seconds that a builder has to say its version."""


def _locks(context: CheckContext) -> Iterator[CheckResult]:
    """Look for files that the config lists and that are not there, or that seem to come from the future."""
    if context.config is None:
        return
    missing_files = context.config.missing_files
    for name, found in missing_files.items():
        yield fail("lock files", f"{name}: {'; '.join(found)}", "Put them back, or change the config.")
    paths = dict.fromkeys(path for job in context.jobs for path in (*job.spec.locks, *job.spec.key_files))
    late = [path for path in paths if _mtime(path) > context.now + 60]
    if late:
        yield warn(
            "lock files",
            f"{first_of(late)} was changed in the future, by its time",
            "Set the clock; venvflow reads the files whatever their times, but make and others do not.",
        )
    elif not missing_files:
        yield ok("lock files", f"{len(paths):,} for {counted(len(context.jobs), 'venv')}, all there")


def _mtime(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0


# --------------------------------------------------------------------------- interpreters and builders


def _pythons(context: CheckContext) -> Iterator[CheckResult]:
    """Ask each interpreter that a venv is for."""
    wanted: dict[str, list[Job]] = {}
    for job in context.jobs:
        wanted.setdefault(job.spec.python, []).append(job)
    for python, jobs in wanted.items():
        users = some([job.spec.name for job in jobs], 4)
        try:
            found = interpreters.resolve(python, root=jobs[0].root, environ=context.environ)
        except VenvflowError as error:
            yield fail("python", f"{error.what} ({users})", error.hint)
        else:
            text = f"{found.implementation} {found.version} at {shown(found.executable)} ({users})"
            yield ok("python", text)


def _builders(context: CheckContext) -> Iterator[CheckResult]:
    """Look for the tool that each venv is built with, and ask it for its version."""
    wanted: dict[str, list[str]] = {}
    for job in context.jobs:
        try:
            plan = builders.choose(job.spec, context.environ)
        except UsageError as error:
            if job.spec.name not in job.config.missing_files:
                yield fail("builder", f"{job.spec.name}: {error.what}", error.hint)
        except VenvflowError as error:
            yield fail("builder", f"{error.what} ({job.spec.name})", error.hint)
        else:
            wanted.setdefault(plan.name, []).append(job.spec.name)
    for tool, venvs in wanted.items():
        yield _tool(context, tool, some(venvs, 4))


def _tool(context: CheckContext, tool: str, users: str) -> CheckResult:
    if tool == "commands":
        return ok("builder", f"commands of the config ({users})")
    if tool == "pip":
        return ok("builder", f"venv and pip ({users})")
    path = builders.tool(tool, context.environ)
    version = version_of(context, [path, "--version"])
    if not version:
        remedy = f'Run "{shown(path)} --version" to see why, and install it anew.'
        return fail("builder", f"{tool} at {shown(path)} does not say its version ({users})", remedy)
    return ok("builder", f"{tool} {version} at {shown(path)} ({users})")


def version_of(context: CheckContext, argv: list[str]) -> str:
    """Return the first version number that a command says; empty if it fails."""
    found = re.search(r"\d+(?:\.\w+)+", said_by(context, argv))
    return found[0] if found else ""


def said_by(context: CheckContext, argv: list[str]) -> str:
    """Return what a command says, as builders would run it; empty if it fails."""
    environ = child_environment(context.environ)
    with suppress(OSError, TimeoutError):
        status, said = processes.ask(argv, environ=environ, cwd="/", timeout=_PATIENCE)
        return said.strip() if status == 0 else ""
    return ""


# --------------------------------------------------------------------------- owners


def _project(context: CheckContext) -> Iterator[CheckResult]:
    """See whether we may write to the project, and whether what we make there is its owner's."""
    if context.config is None:
        return
    path, me = context.config.root, os.geteuid()
    number = os.stat(path).st_uid
    owner = user_name(number)
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        remedy = "Mount it for writing, or work in a copy of the project."
        yield fail("project", f"{shown(path)} is on a read-only file system", remedy)
    elif not os.access(path, os.W_OK | os.X_OK):
        text = f"{shown(path)} cannot be written by {user_name(me)}; it belongs to {owner}"
        yield fail("project", text, f"Run as {owner}, or let {user_name(me)} write to it.")
    elif me == 0 != number:
        text = f"{shown(path)} belongs to {owner}, and you are root: what doit makes will be root's"
        yield warn("project", text, f"Run as {owner}.")
    else:
        yield ok("project", f"{shown(path)} belongs to {owner}")


def user_name(number: int) -> str:
    """Return the name of a user, or the number of one that has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _state(context: CheckContext) -> Iterator[CheckResult]:
    """See whether the tasks can write down what they did."""
    if context.config is None:
        return
    path = context.config.state_dir
    if not os.path.isdir(path):
        yield ok("state", f"{shown(path)} is made by the first doit")
        return
    locked = list(_unwritable(path))
    if locked:
        owner = user_name(os.lstat(locked[0]).st_uid)
        yield fail(
            "state",
            f"{first_of(locked)} cannot be written; it belongs to {owner}",
            f"Make it yours again (chown -R), or delete {shown(path)}: only history is lost.",
        )
    else:
        yield ok("state", shown(path))


def _unwritable(path: str) -> Iterator[str]:
    """Yield what the tasks need to write and cannot, two levels deep: that is all there is."""
    if not os.access(path, os.W_OK | os.X_OK):
        yield path
        return
    for name in sorted(os.listdir(path)):
        entry = os.path.join(path, name)
        if not os.access(entry, os.W_OK):
            yield entry
        elif os.path.isdir(entry):
            below = (os.path.join(entry, each) for each in sorted(os.listdir(entry)))
            yield from (each for each in below if not os.access(each, os.W_OK))


# --------------------------------------------------------------------------- what lies about


def _leftovers(context: CheckContext) -> Iterator[CheckResult]:
    """Look for what killed runs left, and for venvs of others that were put beside."""
    left: list[str] = []
    busy: list[str] = []
    kept: dict[str, list[str]] = {}
    for job in context.jobs:
        if os.path.isdir(job.place.staging):
            (busy if _is_held(job.place.staging) else left).append(job.spec.name)
        elif job.place.is_unsettled():
            left.append(job.spec.name)
        if beside := job.place.kept():
            kept[job.spec.name] = beside
    if left:
        remedy = f"Run doit: it cleans that up first, and nothing is lost ({some(left, 4)})."
        yield warn("leftovers", f"killed runs left something beside {counted(len(left), 'venv')}", remedy)
    elif context.jobs and not kept:
        busy_too = f"; a run is making {some(busy, 4)}" if busy else ""
        yield ok("leftovers", f"none{busy_too}")
    if kept:
        text = f"{some([*kept], 4)}: the venv that was there before is kept beside"
        paths = [shown(path) for beside in kept.values() for path in beside]
        remedy = f"Delete what you do not need: {some(paths, 4)}"
        yield warn("leftovers", text, remedy)


def _is_held(staging: str) -> bool:
    """Return whether a run is at work in a staging directory."""
    with suppress(OSError), directory(staging) as fd:
        return not locks.hold(fd, 0)
    return False


# --------------------------------------------------------------------------- git


def _git_hook(context: CheckContext) -> Iterator[CheckResult]:
    """See whether git runs what ``hook install`` wrote, and whether that can start."""
    clone = None
    with suppress(VenvflowError):  # no git: no hook
        if context.config is not None:
            clone = git_hooks.find_clone(os.path.dirname(context.config.file), context.environ)
    for path in dict.fromkeys((clone.hook, clone.own_hook)) if clone is not None else ():
        hook = git_hooks.read_hook(path)
        if hook is not None and clone is not None:
            yield _judged(context, clone, path, hook)


def _judged(context: CheckContext, clone: git_hooks.Clone, path: str, hook: git_hooks.Hook) -> CheckResult:
    python = hook.python
    if path != clone.hook:
        text = f"git does not run {shown(path)}, but what is in {shown(os.path.dirname(clone.hook))}"
        return warn("git hook", text, git_hooks.BY_HAND)
    if not os.access(path, os.X_OK):
        text = f"git does not run {shown(path)}: it cannot be executed"
        return warn("git hook", text, f"Run: chmod +x {shown(quote(path))}")
    if not said_by(context, git_hooks.command(python, "version")):
        text = f"{shown(path)} starts the venvflow of {shown(python)}, which does not answer"
        return warn("git hook", text, 'Run "venvflow hook install" again.')
    return ok("git hook", f"{shown(path)} starts the venvflow of {shown(python)}")


CHECKS: dict[str, Check] = {
    "lock files": _locks,
    "python": _pythons,
    "builder": _builders,
    "project": _project,
    "state": _state,
    "leftovers": _leftovers,
    "git hook": _git_hook,
}
