"""Parts of a world that somebody may change while nobody looks: modes, owners, and links in their places."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from contents import NOBODY, picture, write
from worlds import World

PARTS = (
    "store", "store/objects", "store/objects/*", "store/objects/*/*", "store/trees", "store/trees/*",
    "store/trees/*/*", "store/snapshots", "store/snapshots/*", "store/venvs", "store/venvs/*", "store/frames",
    "store/tmp", "store/locks", "store/locks/*", "store/quarantine", "store/index.db", "store/format",
    "p", "p/api", "p/api/lock", "p/venvflow.yaml", "p/.venvflow", "p/.venvflow/api",
    "p/.venvflow/api/key.json", "p/.venvflow/api/lock", "p/api/.venv", "p/api/.venv/.venvflow.json",
    "p/api/.venv/pyvenv.cfg",
    "p/api/.venv/bin", "p/api/.venv/bin/demo", "p/api/.venv/lib/*/site-packages",
    "p/api/.venv/lib/*/site-packages/demo", "p/api/.venv/lib/*/site-packages/demo/table.bin",
    "one", "one/lib/*/site-packages/demo", "one/lib/*/site-packages/demo/data.py", "out", "out/*.zst",
)  # fmt: skip
"""Where the world is touched: the first that is called like that, if there is one."""

DIRECTORIES = (
    "store/objects", "store/objects/*", "store/trees", "store/trees/*", "store/snapshots", "store/venvs",
    "store/frames", "store/tmp", "store/locks", "store/quarantine", "p/api", "p/.venvflow", "p/.venvflow/api",
    "p/api/.venv/lib", "p/api/.venv/lib/*/site-packages/demo", "out",
)  # fmt: skip
"""What is replaced by a link to somewhere else."""


def part(world: World, pattern: str) -> Path | None:
    """Return the first path in the world that is called like that."""
    return next(iter(sorted(world.root.glob(pattern))), None)


@dataclass(frozen=True)
class Change:
    """A change of the mode or the owner of one path."""

    name: str
    mode: int = -1
    owner: int = -1

    def make(self, path: Path) -> Callable[[], None]:
        """Make it; return what takes it back from whatever has the same inode by then."""
        before = path.lstat()
        if self.mode >= 0:
            path.chmod(self.mode)
        if self.owner >= 0:
            os.chown(path, self.owner, self.owner)

        def undo() -> None:
            with suppress(FileNotFoundError):
                now = path.lstat()
                if (now.st_ino, now.st_dev) == (before.st_ino, before.st_dev):
                    os.chown(path, before.st_uid, before.st_gid)
                    path.chmod(stat.S_IMODE(before.st_mode))

        return undo


CHANGES = (
    Change("chmod 0000", 0o000),
    Change("chmod 0444", 0o444),
    Change("chmod 0777", 0o777),
    Change("chown", owner=NOBODY),
)


CANARIES = {"canary": b"alive", "deep/canary": b"alive"}

_BEFORE = "behind-before"


def plant(path: Path, behind: Path) -> Callable[[], None]:
    """Put a link in the place of a directory, to a copy with canaries; return what takes it back."""
    aside, before = path.with_name(f"{path.name}-aside"), behind.with_name(_BEFORE)
    for each in (behind, before):
        shutil.rmtree(each, ignore_errors=True)
    shutil.copytree(path, behind, symlinks=True)
    write(behind, CANARIES)
    shutil.copytree(behind, before, symlinks=True)
    os.rename(path, aside)
    path.symlink_to(behind)

    def undo() -> None:
        if path.is_symlink():
            path.unlink()
            os.rename(aside, path)

    return undo


def disturbed(behind: Path, *, whole: bool) -> list[str]:
    """Return what is not as it was behind a link: of the *whole* that is there, or of the canaries."""
    before, now = picture(behind.with_name(_BEFORE)), picture(behind)
    if whole:
        return [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [name for name in CANARIES if before.get(name) != now.get(name)]
