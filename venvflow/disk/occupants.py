"""Finds the processes that use a venv: they run from it, stand in it, or have its libraries loaded."""

from __future__ import annotations

import os
from contextlib import suppress


def occupants(venv: str) -> list[int]:
    """Return the ids of the processes that use the venv at the absolute path *venv*, but for our own.

    They are found by executable, working directory, words of the command and mapped files, as far as we
    may look; none where there is no ``/proc``. Processes of others that may not be looked at are missed.
    """
    inside = os.fsencode(venv) + b"/"
    with suppress(OSError):
        ours = {os.getpid()}
        names = [name for name in os.listdir("/proc") if name.isdigit()]
        return [int(name) for name in names if int(name) not in ours and _uses(f"/proc/{name}", inside)]
    return []


def _uses(process: str, inside: bytes) -> bool:
    return (
        any((_target(f"{process}/{link}") + b"/").startswith(inside) for link in ("exe", "cwd"))
        or any(word.startswith(inside) for word in _read(f"{process}/cmdline").split(b"\0")[:2])
        or b" " + inside in _read(f"{process}/maps")
        or _is_activated(process, inside)
    )


def _is_activated(process: str, inside: bytes) -> bool:
    """Return whether it is a Python that was called by its bare name where the venv is activated."""
    if b"python" not in _target(f"{process}/exe"):
        return False
    return b"VIRTUAL_ENV=" + inside[:-1] in _read(f"{process}/environ").split(b"\0")


def _target(link: str) -> bytes:
    with suppress(OSError):
        return os.readlink(os.fsencode(link))
    return b""


def _read(file: str) -> bytes:
    with suppress(OSError), open(file, "rb") as opened:
        return opened.read()
    return b""
