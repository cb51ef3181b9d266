"""The file that an archive becomes: its bytes, its hash, and what happens when the disk refuses."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
from pathlib import Path

import pytest

from venvflow.disk.archive import sink as sinks
from venvflow.disk.archive.sink import Sink


@pytest.mark.parametrize("sizes", [[], [0], [1], [3, 1 << 20, 5, (1 << 20) - 1, 1], [100] * 30_000])
def test_what_is_written_is_hashed_whatever_its_portions(tmp_path: Path, sizes: list[int]) -> None:
    """Few bytes or many, in the order in which they came."""
    rng = random.Random(1)
    parts = [rng.randbytes(size) for size in sizes]
    with (tmp_path / "a").open("wb") as file, Sink(file) as sink:
        for part in parts:
            sink.write(part)
        sink.copy(io.BytesIO(b"copied" * 400_000))
    written = (tmp_path / "a").read_bytes()
    assert written == b"".join(parts) + b"copied" * 400_000
    assert sink.size == len(written)
    assert sink.sha256 == hashlib.sha256(written).hexdigest()


def test_the_disk_gets_long_files_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only at their end, when all wait for it."""
    flushed: list[int] = []
    monkeypatch.setattr(sinks, "_PORTION", 2 << 20)
    monkeypatch.setattr(sinks, "_flush", lambda fd: flushed.append(os.fstat(fd).st_size))
    with (tmp_path / "a").open("wb") as file, Sink(file) as sink:
        for _ in range(7):
            sink.write(bytes(1 << 20))
    assert len(flushed) == 3


def test_a_disk_that_refuses_is_noticed_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the other thread meets is raised by a write, or at the latest at the end; there is no hash."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(sinks, "_PORTION", 1)
    monkeypatch.setattr(sinks, "_flush", fail)
    with (tmp_path / "a").open("wb") as file:
        sink = Sink(file)
        with pytest.raises(OSError, match="disk"), sink:
            sink.write(b"x")
    assert sink.sha256 == ""
