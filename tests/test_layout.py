"""A directory of ours and all below it, reached by descriptors: no link on the way is followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from contents import grow, in_child, open_descriptors, picture

from venvflow.disk.layout import Layout
from venvflow.errors import EnvironmentFailure, Refused


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """Give a directory outside, whose files must be there, unchanged, at the end."""
    outside = grow(tmp_path / "outside", {"ab/precious": "p", "precious": "p"})
    before = picture(outside)
    yield outside
    assert picture(outside) == before


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Give a root with a file below it."""
    return Layout(str(grow(tmp_path / "root", {"objects/ab/file": "f"})))


ACTS: dict[str, Callable[[Layout], object]] = {
    "write": lambda layout: layout.write("objects/ab/precious", b"ours"),
    "unlink": lambda layout: layout.unlink("objects/ab/precious"),
    "put aside": lambda layout: layout.put_aside("objects/ab/precious"),
    "list": lambda layout: [*layout.fans("objects")],
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
@pytest.mark.parametrize("link", ["objects", "objects/ab"])
def test_nothing_is_done_behind_a_link(layout: Layout, canary: Path, act: object, link: str) -> None:
    """Whichever directory on the way it takes the place of, after we have looked."""
    assert [name for name, _ in layout.fans("objects")] == ["ab"]
    path = Path(layout.path, link)
    path.rename(path.with_name("moved"))
    path.symlink_to(canary if link == "objects" else canary / "ab")
    assert callable(act)
    with pytest.raises(Refused, match="symbolic link") as caught:
        act(layout)
    assert str(path) in caught.value.where
    assert "mount --bind" in caught.value.hint


@pytest.mark.parametrize("part", ["tmp", "quarantine"])
def test_what_is_on_its_way_does_not_go_through_a_link_either(
    layout: Layout, canary: Path, part: str
) -> None:
    """The directories for work in progress are parts like any other."""
    Path(layout.path, part).symlink_to(canary)
    act = ACTS["write"] if part == "tmp" else lambda layout: layout.put_aside("objects/ab/file")
    with pytest.raises(Refused, match="symbolic link"):
        act(layout)
    assert Path(layout.path, "objects/ab/file").read_text() == "f"


def test_a_file_where_a_directory_belongs_is_named(layout: Layout) -> None:
    """It is not ours, so it stays; whoever put it there is told."""
    Path(layout.path, "tmp").write_text("mine")
    with pytest.raises(EnvironmentFailure, match="something else") as caught:
        layout.write("note", b"")
    assert caught.value.where == os.path.join(layout.path, "tmp")
    assert Path(layout.path, "tmp").read_text() == "mine"


def test_a_directory_in_the_place_of_a_file_is_put_aside(layout: Layout) -> None:
    """With all that is in it; the file gets its name."""
    grow(Path(layout.path), {"notes/note/inside": "mine"})
    layout.write("notes/note", b"ours", sync=True)
    assert Path(layout.path, "notes/note").read_bytes() == b"ours"
    (kept,) = Path(layout.path, "quarantine").iterdir()
    assert (kept / "inside").read_text() == "mine"


def test_a_file_is_written_whole_or_not_at_all(layout: Layout) -> None:
    """What is there stays if it may not be replaced; nothing is left in tmp/."""
    layout.write("notes/note", b"one")
    layout.write("notes/note", b"two")
    with pytest.raises(FileExistsError):
        layout.write("notes/note", b"three", replace=False)
    assert Path(layout.path, "notes/note").read_bytes() == b"two"
    assert not os.listdir(os.path.join(layout.path, "tmp"))


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(layout: Layout, canary: Path) -> None:
    """It is a rename that gives the file its name."""
    Path(layout.path, "note").symlink_to(canary / "precious")
    layout.write("note", b"ours")
    assert not Path(layout.path, "note").is_symlink()


def test_modes_do_not_depend_on_the_umask(layout: Layout) -> None:
    """It is the root's mode that lets others in or keeps them out."""

    def work() -> None:
        os.umask(0o077)
        layout.write("notes/note", b"")

    assert in_child(work) == 0
    modes = [
        stat.S_IMODE(os.stat(f"{layout.path}/{path}").st_mode) for path in ("tmp", "notes", "notes/note")
    ]
    assert modes == [0o755, 0o755, 0o644]


def test_no_descriptor_is_left_open(layout: Layout) -> None:
    """Only that of the root, for as long as there is somebody to use it."""
    layout.write("notes/note", b"")
    before = open_descriptors()
    for _ in range(3):
        layout.write("notes/note", b"")
        with pytest.raises(FileNotFoundError), layout.opened("objects/zz"):
            pass
        assert [name for name, _ in layout.fans("objects")] == ["ab"]
    assert open_descriptors() == before
