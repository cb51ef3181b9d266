"""Trust: whose config it is. It names programs to run: whoever can write it, runs them as its reader."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from venvflow.errors import Refused, shown

TRUST_VARIABLE = "VENVFLOW_TRUST"
"""Project directories, separated by colons, whose config is used whoever can write it; ``*``: all of them."""


def doubts(file: str, root: str, st: os.stat_result, uid: int, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return what speaks against running what *file* says as the user *uid*, in words; often nothing.

    *st* is the file's status when it was read, *root* its project. Files of root, of oneself and, under
    ``sudo``, of whoever called it are trusted, unless everybody may write them. Raises Refused for root,
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
    if found and uid == 0 and not _is_trusted(root, environ):
        raise _refusal(file, root, st)
    return tuple(found)


def _caller(environ: Mapping[str, str]) -> int:
    """Return the user who called ``sudo``, or root."""
    text = environ.get("SUDO_UID", "")
    return int(text) if text.isdecimal() and text.isascii() else 0


def _is_trusted(root: str, environ: Mapping[str, str]) -> bool:
    trusted = environ.get(TRUST_VARIABLE, "").split(":")
    real = os.path.realpath(root)
    return "*" in trusted or any(real == os.path.realpath(path) for path in trusted if path)


def _refusal(file: str, root: str, st: os.stat_result) -> Refused:
    import shlex  # noqa: PLC0415 - only for who is refused

    loose = bool(st.st_mode & stat.S_IWOTH)
    whose = "every user of this machine" if loose else f"user {st.st_uid}, who owns it,"
    mend = f"chmod o-w {shlex.quote(file)}" if loose else f"chown root {shlex.quote(file)}"
    return Refused(
        f"{whose} can change the config, and so run commands as root",
        where=shown(file),
        state="Nothing has been run or changed",
        hint=f"Run as its owner; or: {shown(mend)}; "
        f"or, if you trust it: export {TRUST_VARIABLE}={shown(shlex.quote(root))}",
    )
