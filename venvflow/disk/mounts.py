"""The mounted file systems and their types, as far as the kernel lists them (Linux)."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_NETWORKED = re.compile(
    r"nfs\d*|cifs|smb\w*|9p|afs|ceph|lustre|gpfs|gfs2|ocfs2|fuse\.(?:sshfs|glusterfs|s3fs)"
)
"""File systems that several machines may have at once."""


class Mount(NamedTuple):
    """A file system where it is mounted: its *type*, empty where the kernel lists none, and the *point*."""

    type: str
    point: str

    @property
    def is_networked(self) -> bool:
        """Return whether other machines may have the same files."""
        return _NETWORKED.fullmatch(self.type) is not None


def mounts() -> list[Mount]:
    """Return all mounts as this process sees them, later ones on top; none where the kernel has no list."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            return [_parsed(line) for line in file]
    except (OSError, IndexError):
        return []


def _parsed(line: bytes) -> Mount:
    fields, _, rest = line.partition(b" - ")
    point = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), fields.split(b" ")[4])
    return Mount(rest.partition(b" ")[0].decode(), os.fsdecode(point))


def mounts_at(path: str) -> list[str]:
    """Return the mount points at and below *path*; bind mounts within one file system are seen only here."""
    return [each.point for each in mounts() if each.point == path or each.point.startswith(path + "/")]


def mount_of(path: str) -> Mount:
    """Return the mount that *path* lies in, or would; where there is no list, by where the device changes."""
    real = os.path.realpath(path)
    holding = [each for each in mounts() if f"{real}/".startswith(f"{each.point.rstrip('/')}/")]
    if holding:
        return max(reversed(holding), key=lambda mount: len(mount.point))
    while real != "/" and not (os.path.lexists(real) and os.path.ismount(real)):
        real = os.path.dirname(real)
    return Mount("", real)
