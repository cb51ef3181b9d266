"""The witness: one hash over how every file of a venv looked when venvflow finished it.

It stands in the receipt, so that a change by hand is noticed even when the store, which knows every file,
is gone. It tells that something changed, not what. Sizes and mtimes are enough: whoever edits a file and
puts both back wants not to be noticed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from venvflow.disk.places import RECEIPT
from venvflow.disk.scan import Found
from venvflow.state.relink import TEMPORARY

_AT_ONCE = 2000


def witness(looks: Iterable[str]) -> str:
    """Return the hash of the looks of all files, in whatever order they come."""
    ordered = sorted(looks)
    hasher = hashlib.sha256()
    for start in range(0, len(ordered), _AT_ONCE):  # a large venv's looks are megabytes
        text = "\n".join(ordered[start : start + _AT_ONCE])
        hasher.update(("\n" * (start > 0) + text).encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


def witness_of(found: Iterable[Found]) -> str:
    """Return the witness of a venv as a walk found it."""
    return witness(
        file_look(item.path, item.stamp.size, item.stamp.mtime_ns)
        if item.kind == "file"
        else link_look(item.path)
        for item in found
        if item.kind != "dir" and not is_ignored(item.path)
    )


def file_look(path: str, size: int, mtime_ns: int) -> str:
    """Return the look of a file: *size* in bytes, *mtime_ns* in nanoseconds."""
    return f"{path}\0{size}\0{mtime_ns}"


def link_look(path: str) -> str:
    """Return the look of a symlink (or of anything that is neither file nor directory)."""
    return path


def is_ignored(path: str) -> bool:
    """Return whether a file may come and go without being a change: receipts, caches, locks, our litter.

    Programs that compile what they import (numba) keep that where Python keeps its bytecode.
    """
    if path.endswith(".pyc") or "__pycache__/" in path:
        return True
    if path == ".lock" or path.startswith(RECEIPT):  # the lock is uv's
        return True
    # At the top it is a staging directory: that of a venv at a mount point lies in the venv.
    return TEMPORARY in path and (path.startswith(TEMPORARY) or os.path.basename(path).startswith(TEMPORARY))
