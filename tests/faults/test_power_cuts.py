"""The power is cut at the calls of every action: what the disk holds then is the old state or the new one.

The disk is an image in memory. The process dies at a call, an unrelated file is synced (so that the journal
is committed, and what was not synced shows), the image is copied as it is, and the copy is mounted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from contents import mounted, needs_root
from fixtures import MADE, memory, sample, server, shim
from rehearsal import Rehearsal
from scenes import SCENES, Scene
from shim import Server
from worlds import World

__all__ = ["memory", "sample", "server", "shim"]

pytestmark = [pytest.mark.slow, pytest.mark.root, needs_root]

SIZE = 400 << 20
"""Bytes of an image: xfs wants at least 300 MiB. It is sparse, so hardly any of them are there."""

_MAKE = {"ext4": ["-q", "-F"], "xfs": ["-q", "-f", "-m", "reflink=1"], "btrfs": ["-q", "-f"]}
_OPTIONS = {"ext4": "loop", "xfs": "loop,nouuid", "btrfs": "loop"}

NAMES = (
    "a build after a change",
    "a restore over another venv",
    "a trim",
    "squish",
    "unsquish",
)
CUT = [scene for scene in SCENES if scene.name in NAMES]


class Disk:
    """An image with a file system of *kind*, in *directory*."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.directory = directory
        self.point = directory / "disk"
        self._image = directory / "image"

    def make(self) -> None:
        """Make an empty file system, or skip the test."""
        path = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
        program = shutil.which(f"mkfs.{self.kind}", path=path)
        if program is None:
            pytest.skip(f"there is no mkfs.{self.kind}")
        with self._image.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run([program, *_MAKE[self.kind], self._image], check=True, capture_output=True)

    @contextmanager
    def in_use(self) -> Iterator[Path]:
        """Give the directory in which the file system is mounted."""
        with mounted(self.point, "-t", self.kind, "-o", _OPTIONS[self.kind], str(self._image)) as point:
            yield point

    def keep(self, name: str) -> None:
        """Keep what the disk holds now under a name."""
        self._copy(self._image, self.directory / name)

    def back_to(self, name: str) -> None:
        """Let the disk hold what was kept under a name."""
        self._copy(self.directory / name, self._image)

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        subprocess.run(["cp", "--sparse=always", source, target], check=True)


@pytest.fixture(params=_MAKE)
def disk(request: pytest.FixtureRequest, memory: Path) -> Iterator[Disk]:
    """Give a new disk."""
    directory = Path(tempfile.mkdtemp(dir=memory))
    disk = Disk(request.param, directory)
    disk.make()
    yield disk
    shutil.rmtree(directory)


@pytest.mark.parametrize("scene", CUT, ids=lambda scene: scene.name)
def test_the_disk_holds_the_old_state_or_the_new_one(
    disk: Disk, scene: Scene, server: Server, sample: int | None
) -> None:
    """Never a file with the right name and the wrong bytes; and the next run finishes."""
    with disk.in_use() as point:
        world = World(disk.directory, point / "world", server)
        world.root.mkdir()
        rehearsal = Rehearsal(world, scene)
        rehearsal.begin()
    disk.keep("begun")
    with disk.in_use():
        rehearsal.play()
    for call in rehearsal.faulty_calls(sample):
        disk.back_to("begun")
        with disk.in_use() as point:
            answer = server.do(scene.action, world.root, "kill", call)
            _commit(point / "unrelated")
            disk.keep("cut")
        disk.back_to("cut")
        at = f"power cut at call {call} of {rehearsal.calls} ({answer.call})"
        MADE["power cut"] += bool(answer.fired)
        with disk.in_use():
            assert not rehearsal.mixtures(), f"{rehearsal.mixtures()} are mixtures: {at}"
            wrong = list(world.wrong(rows=False))
            assert not wrong, f"{wrong} {at}"
            world.done(scene.action)
            assert rehearsal.looks() == rehearsal.after, f"not finished after {at}"
            world.done("flow")  # rows that are too many mislead nobody
            wrong = list(world.wrong(rows=False))
            assert not wrong, f"{wrong} in the end, after {at}"


def _commit(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.write(fd, b"unrelated")
        os.fsync(fd)
    finally:
        os.close(fd)
