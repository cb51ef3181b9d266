"""Refuses configs and stores that other users can change, because what they hold is run.

A config names programs to run, and a venv is code: anybody who can change one, or the store that it is made
from, decides what its user runs.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from venvflow.errors import Refused, shown

TRUST_VARIABLE = "VENVFLOW_TRUST"
"""Projects and stores, separated by colons, that are used even if others can change them; ``*``: all."""


def is_trusted(root: str, environ: Mapping[str, str]) -> bool:
    """Return whether *environ* says that the project at *root* is trusted."""
    trusted = [path for path in environ.get(TRUST_VARIABLE, "").split(":") if path]
    return "*" in trusted or (bool(trusted) and os.path.realpath(root) in map(os.path.realpath, trusted))


def is_trusted_store(path: str, environ: Mapping[str, str]) -> bool:
    """Return whether *environ* says that the store at *path*, or a directory that it lies in, is trusted."""
    return any(is_trusted(each, environ) for each in (path, *_above(path)))


# --------------------------------------------------------------------------- stores

STORE_PARTS = ("objects", "trees", "snapshots", "venvs", "holds", "frames", "tmp", "locks", "quarantine")
"""Directories of a store: who may write to one of them may change it."""


class Doubt(NamedTuple):
    """A reason not to trust a store: *what* is wrong *where*, and the command that would *end* it.

    *inside*: it is wrong with the store itself, not with a directory that it lies in.
    """

    what: str
    where: str
    end: str
    inside: bool


def store_doubts(path: str, parts: Iterable[str], uid: int) -> Iterator[Doubt]:
    """Yield the reasons why the user *uid* should not use the store at *path* by links; often there are none.

    *path* is resolved; it, its *parts* and all directories above it are judged, as far as they exist. What
    belongs to root or to *uid* is trusted unless others may write there. Above the store, a sticky bit is
    enough protection.
    """
    known = {uid, 0, os.stat("/").st_uid}  # in some containers root is called otherwise
    for where in (*_above(path), path, *(f"{path}/{part}" for part in parts)):
        try:
            st = os.lstat(where)
        except OSError:
            continue
        inside = where.startswith(path)
        if not stat.S_ISDIR(st.st_mode):  # nothing lies in it, and opening the store will fail
            continue
        if st.st_uid not in known:
            yield Doubt(f"user {st.st_uid} owns it", where, f"chown -R {uid}", inside)
        elif _others_may_write(st) and (inside or not st.st_mode & stat.S_ISVTX):
            who = "every user of this machine" if st.st_mode & stat.S_IWOTH else f"group {st.st_gid}"
            yield Doubt(f"{who} may write to it", where, f"chmod {'-R ' * inside}go-w", inside)


def _above(path: str) -> Iterator[str]:
    """Yield the directories that *path* lies in, from the root on."""
    start = -1
    while (start := path.find("/", start + 1)) >= 0:
        yield path[:start] or "/"


def _others_may_write(st: os.stat_result) -> bool:
    """Return whether others than the owner may write; a group of the owner's own name is nobody else."""
    if st.st_mode & stat.S_IWOTH:
        return True
    return bool(st.st_mode & stat.S_IWGRP) and not _is_own_group(st.st_gid, st.st_uid)


def _is_own_group(gid: int, uid: int) -> bool:
    """Return whether a group is its user's alone: of the same name, and nobody else is in it."""
    import grp  # noqa: PLC0415 - for what a group may write only
    import pwd  # noqa: PLC0415

    try:
        owner, group = pwd.getpwuid(uid).pw_name, grp.getgrgid(gid)
    except KeyError:
        return gid == uid
    return group.gr_name == owner and set(group.gr_mem) <= {owner}


def store_warning(doubt: Doubt) -> str:
    """Return the warning, in one line, about a store that is used all the same."""
    effect = "files are copied from it and checked" + ", and nothing is written to it" * doubt.inside
    return (
        f"the store is not used by links, because {doubt.what}: {shown(doubt.where)}; {effect}. "
        f"Whoever can change it decides what you run: {doubt.end} {shown(shlex.quote(doubt.where))}, or use "
        "another store (VENVFLOW_STORE)"
    )


def refuse_store(path: str, doubt: Doubt) -> Refused:
    """Return the error for root about the store at *path*."""
    return Refused(
        f"{doubt.what}, and can so decide what root runs",
        where=shown(doubt.where),
        state="Nothing in the store was used or changed",
        hint=f"Use a store of root's (VENVFLOW_STORE); or: {doubt.end} {shown(shlex.quote(doubt.where))}; "
        f"or, if you trust it: export {TRUST_VARIABLE}={shown(shlex.quote(path))}",
    )


# --------------------------------------------------------------------------- configs


def doubts(file: str, root: str, st: os.stat_result, uid: int, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the reasons why the user *uid* should not run what *file* says; often there are none.

    *st* is the file's status when it was read, *root* its project. Files of root, of *uid* and, under
    ``sudo``, of the user who called it are trusted, unless everybody may write them. Raises Refused for root,
    who has everything to lose, unless *environ* says that the project is trusted.
    """
    known = {uid, 0, _caller(environ) if uid == 0 else 0}
    found = []
    if st.st_uid not in known:
        found.append(f"user {st.st_uid} owns the config, and can so run commands as you")
    if st.st_mode & stat.S_IWOTH:
        found.append(
            "every user of this machine can change the config, and so run commands as you: chmod o-w it"
        )
    if found and uid == 0 and not is_trusted(root, environ):
        raise _refusal(file, root, st)
    return tuple(found)


def _caller(environ: Mapping[str, str]) -> int:
    """Return the user who called ``sudo``, or root."""
    text = environ.get("SUDO_UID", "")
    # A number of thousands of digits is not a user: Python refuses to read it.
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 20 else 0


def refuse_to_lock_out(root: str, environ: Mapping[str, str]) -> None:
    """Raise Refused for root who works by ``sudo`` in the project of the user who called it.

    All that is made there would be root's, and its owner could neither use nor replace it.
    """
    caller = _caller(environ)
    if os.geteuid() == 0 != caller and os.stat(root).st_uid == caller and not is_trusted(root, environ):
        raise Refused(
            f"the project belongs to user {caller}, and what root makes in it would be root's",
            where=shown(root),
            state="Nothing has been run or changed",
            hint="Run without sudo; or, if you want that: "
            f"sudo {TRUST_VARIABLE}={shown(shlex.quote(root))} ...",
        )


def _refusal(file: str, root: str, st: os.stat_result) -> Refused:
    loose = bool(st.st_mode & stat.S_IWOTH)
    whose = "every user of this machine" if loose else f"user {st.st_uid}, who owns it,"
    fix = f"chmod o-w {shlex.quote(file)}" if loose else f"chown root {shlex.quote(file)}"
    return Refused(
        f"{whose} can change the config, and so run commands as root",
        where=shown(file),
        state="Nothing has been run or changed",
        hint=f"Run as its owner; or: {shown(fix)}; "
        f"or, if you trust it: export {TRUST_VARIABLE}={shown(shlex.quote(root))}",
    )
