"""New directories get their name when all of them is on disk, or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from venvflow.disk.archive.staging import new_directory


@pytest.mark.parametrize("there", [False, True])
def test_a_disk_that_cannot_keep_the_name_leaves_nothing(
    tmp_path: Path, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last sync fails when the directory is in its place already: it is taken away again."""
    place = tmp_path / "above" / "place"
    if there:
        place.mkdir(parents=True)

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"), new_directory(str(place)) as staging:
        Path(staging.path, "file").touch()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["above"] * there
