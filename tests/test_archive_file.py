"""The file that an archive becomes: its bytes, its hash, and what happens when the disk refuses."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
from pathlib import Path

import pytest

from venvflow.disk.archive import file as files
from venvflow.disk.archive.file import hashed_output


@pytest.mark.parametrize("sizes", [[], [0], [1], [3, 1 << 20, 5, (1 << 20) - 1, 1], [100] * 30_000])
def test_what_is_written_is_hashed_whatever_its_portions(tmp_path: Path, sizes: list[int]) -> None:
    """Few bytes or many, in the order in which they came."""
    rng = random.Random(1)
    parts = [rng.randbytes(size) for size in sizes]
    with (tmp_path / "a").open("wb") as file, hashed_output(file) as output:
        for part in parts:
            output.write(part)
        output.copy(io.BytesIO(b"copied" * 400_000))
    written = (tmp_path / "a").read_bytes()
    assert written == b"".join(parts) + b"copied" * 400_000
    assert output.size == len(written)
    assert output.sha256 == hashlib.sha256(written).hexdigest()


def test_the_disk_gets_long_files_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only at their end, when all wait for it."""
    flushed: list[int] = []
    monkeypatch.setattr(files, "_FLUSHED", 2 << 20)
    monkeypatch.setattr(files, "_flush", lambda fd: flushed.append(os.fstat(fd).st_size))
    with (tmp_path / "a").open("wb") as file, hashed_output(file) as output:
        for _ in range(7):
            output.write(bytes(1 << 20))
    assert len(flushed) == 3


def test_a_disk_that_refuses_is_noticed_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the other thread meets is raised by a write, or at the latest at the end; there is no hash."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(files, "_FLUSHED", 1)
    monkeypatch.setattr(files, "_flush", fail)
    with (
        pytest.raises(OSError, match="disk"),
        (tmp_path / "a").open("wb") as file,
        hashed_output(file) as output,
    ):
        output.write(b"x")
    assert output.sha256 == ""
