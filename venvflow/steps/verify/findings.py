"""What a verification says: findings, and what it looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "object damaged",
    "object missing",
    "file edited",
    "file missing",
    "file added",
    "mtime moved",
    "mode changed",
    "venv moved",
]


@dataclass(slots=True)
class Finding:
    """One thing that is not as it should be.

    *path* is the file below the *venv*, or the object itself. *others* are paths of other venvs that have the
    same file. *healed* says what was done about it; empty: it is left. *note* says why, or where bytes went.
    """

    kind: Kind
    path: str
    venv: str = ""
    others: tuple[str, ...] = ()
    healed: str = ""
    note: str = ""


@dataclass(slots=True)
class Verified:
    """What a verification looked at and found.

    *read* are bytes that were hashed, *private* counts edits that are known as their venvs' own files.
    """

    findings: list[Finding] = field(default_factory=list)
    venvs: int = 0
    objects: int = 0
    files: int = 0
    read: int = 0
    private: int = 0

    @property
    def left(self) -> list[Finding]:
        """Return the findings that were not mended."""
        return [finding for finding in self.findings if not finding.healed]
