"""Local paths that are still in an archive are found, whatever the format and wherever they stand."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import FORMATS, Objects, pack

from venvflow.disk.archive import Trace, traces
from venvflow.disk.archive.formats import CHUNK
from venvflow.errors import EnvironmentFailure, Refused
from venvflow.model import Entry, Manifest
from venvflow.pure.manifest import make_tree

HOME = "/home/ann"


def archive(tmp_path: Path, name: str, **files: bytes) -> Path:
    """Pack *files* in the format *name*."""
    objects = Objects(tmp_path / "objects")
    entries = [Entry(path, "file", objects.put(data), size=len(data)) for path, data in files.items()]
    entries.append(Entry("link", "link", target="a"))
    pack(Manifest((make_tree("x", "", entries),)), objects, tmp_path / f"a.{name}")
    return tmp_path / f"a.{name}"


@pytest.mark.parametrize("name", FORMATS)
def test_every_mention_is_counted(name: str, tmp_path: Path) -> None:
    """Across the pieces in which a member is read too, and the longest path of several counts."""
    split = bytes(CHUNK - 3) + HOME.encode() + b"/project/x " + HOME.encode()
    path = archive(tmp_path, name, a=split, b=b"nothing", c=b"/home/anna /home/ann-b x/home/ann")
    assert traces(str(path), [HOME, f"{HOME}/project"]) == [
        Trace("a", f"{HOME}/project", 1),
        Trace("a", HOME, 1),
        Trace("c", HOME, 1),
    ]


def test_a_mention_wherever_it_is_cut_is_counted_once(tmp_path: Path) -> None:
    """At every offset around the border of two pieces."""
    for offset in range(-len(HOME) - 2, 3):
        path = archive(tmp_path, "tar", a=bytes(CHUNK + offset) + HOME.encode() + b"\0" + bytes(CHUNK))
        assert traces(str(path), [HOME, "/very/long/path/to/something"]) == [Trace("a", HOME, 1)]


def test_no_paths_and_no_archive(tmp_path: Path) -> None:
    """Nothing to look for is nothing found; what is no archive is told."""
    path = archive(tmp_path, "tar.gz", a=b"x")
    assert traces(str(path), []) == []
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Refused, match="is damaged"):
        traces(str(path), [HOME])
    with pytest.raises(EnvironmentFailure, match="cannot read"):
        traces(str(tmp_path / "none"), [HOME])
