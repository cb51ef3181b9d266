"""Who uses a venv just now: processes that run from it, stand in it, or have its libraries loaded."""

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
    return any(
        _links_into(f"{process}/{link}", inside) for link in ("exe", "cwd")
    ) or any(_mentions(f"{process}/{file}", inside, mark) for file, mark in (("cmdline", b""), ("maps", b" ")))


def _links_into(link: str, inside: bytes) -> bool:
    with suppress(OSError):
        return (os.readlink(os.fsencode(link)) + b"/").startswith(inside)
    return False


def _mentions(file: str, inside: bytes, before: bytes) -> bool:
    """Return whether a word of a command, or a path of the mapped files, begins with the venv's path."""
    with suppress(OSError), open(file, "rb") as opened:
        data = opened.read()
        if before:
            return before + inside in data
        return data.startswith(inside) or b"\0" + inside in data
    return False
