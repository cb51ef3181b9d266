"""Which files are shared, which stay private, and how a file becomes an object: decisions only."""

from __future__ import annotations

import re
from typing import Literal

from venvflow.model import Entry, LinkMode
from venvflow.scan import Found

_PRIVATE = re.compile(
    r"""(?x)
    \.(?: pth | egg-link | db | sqlite3? | db-wal | db-shm | db-journal ) \Z
    | \.dist-info/RECORD \Z
    | \A pyvenv\.cfg \Z
    | \A bin/activate
    """
)
"""Files that are changed in place: by installers, by ``python -m venv --upgrade``, by what uses databases."""


def stays_private(entry: Entry, min_size: int, *, adopted: bool = False) -> bool:
    """Return whether a file or template is never shared by link, but copied for each venv.

    *min_size* is in bytes. Empty files have nothing to share, and sharing their inode would only make
    one venv's mistake another's. *adopted*: its object keeps a mtime of somebody else's, as it may when
    another file, a ``.pyi`` say, has the same bytes; a source then needs a copy with ours.
    """
    if adopted and entry.path.endswith(".py"):
        return True
    too_small = entry.size < max(min_size, 1)
    return too_small or entry.kind == "template" or _PRIVATE.search(entry.path) is not None


Intake = Literal["own", "adopt", "copy"]


def intake_of(found: Found, entry: Entry, *, built_here: bool, adopt: bool, mode: LinkMode) -> Intake:
    """Return how a file whose content the store does not have becomes an object.

    ``own``: the file itself, by another name and with our mtime: only if nobody else has it and our
    builder has just made it. ``adopt``: the file itself as it is, although somebody shares it (uv's
    cache). ``copy``: new bytes (a reflink where possible), the file is replaced by a link later.

    Sources are copied even where others may be adopted, because bytecode relies on their mtime being
    the constant one.
    """
    if mode not in ("hardlink", "symlink"):
        return "copy"
    if found.links == 1:
        return "own" if built_here else "copy"
    return "adopt" if adopt and mode == "hardlink" and not entry.path.endswith(".py") else "copy"
