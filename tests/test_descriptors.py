"""Reaching files and directories by descriptors: never through a link, and with errors that name the path."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from contents import NOBODY, for_everybody, in_child, needs_root, open_descriptors

from venvflow.disk.descriptors import READ, Directories, entries_in, names_in, opened, reach


def mkdir(name: str, fd: int) -> None:
    """Make a directory."""
    os.mkdir(name, dir_fd=fd)


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """Give a directory three levels down."""
    path = tmp_path / "a" / "b" / "c"
    path.mkdir(parents=True)
    return path


def leads_to(path: Path, fd: int) -> bool:
    """Return whether the descriptor is that of *path*, and close it."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    finally:
        os.close(fd)


def test_a_directory_is_reached_from_the_root_or_from_another(tmp_path: Path, deep: Path) -> None:
    """It can be read, and nothing else stays open."""
    before = open_descriptors()
    with opened(str(tmp_path), READ) as above:
        assert leads_to(deep, reach("a/b/c", above))
        assert leads_to(tmp_path, reach("", above))
    assert leads_to(deep, reach(str(deep)))
    assert leads_to(Path("/"), reach("/"))
    assert open_descriptors() == before


@pytest.mark.parametrize("which", ["a", "a/b", "a/b/c"])
def test_no_link_is_followed_on_the_way(tmp_path: Path, deep: Path, which: str) -> None:
    """Wherever it stands; the error names it, and nothing stays open."""
    link = tmp_path / which
    link.rename(tmp_path / "moved")
    link.symlink_to(tmp_path / "moved")
    before = open_descriptors()
    with pytest.raises(NotADirectoryError) as caught:
        reach(str(deep), make=mkdir)
    assert caught.value.filename == str(link)
    with opened(str(tmp_path), READ) as above, pytest.raises(NotADirectoryError) as caught:
        reach("a/b/c", above, make=mkdir)
    assert caught.value.filename == which
    assert open_descriptors() == before


def test_what_is_missing_is_made_only_on_request(tmp_path: Path) -> None:
    """By whoever asks, since modes differ; if somebody else makes it meanwhile, it is theirs."""
    with pytest.raises(FileNotFoundError) as caught:
        reach(f"{tmp_path}/new/below")
    assert caught.value.filename == f"{tmp_path}/new"

    def late(name: str, fd: int) -> None:
        os.mkdir(name, 0o700, dir_fd=fd)
        raise FileExistsError

    assert leads_to(tmp_path, reach(str(tmp_path), make=late))
    os.close(reach(f"{tmp_path}/new/below", make=late))
    assert stat.S_IMODE((tmp_path / "new/below").stat().st_mode) == 0o700


@needs_root
@pytest.mark.root
def test_directories_on_the_way_need_not_be_readable() -> None:
    """As for any other program; the last one must be."""
    with for_everybody() as place:
        deep = place / "a" / "b"
        deep.mkdir(parents=True)
        (place / "a").chmod(0o711)

        def work() -> None:
            os.setuid(NOBODY)
            os.close(reach(str(deep)))
            with pytest.raises(PermissionError):
                reach(str(place / "a"))

        assert in_child(work) == 0


def test_a_directory_is_never_entered_through_a_link(tmp_path: Path) -> None:
    """Even if somebody swaps a directory for a link while we work, we do not follow it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "target/d").symlink_to("../outside")
    fd = os.open(tmp_path / "target", os.O_RDONLY)
    directories = Directories(fd)
    os.close(fd)
    with pytest.raises(OSError, match="d"):
        directories.open("d")
    directories.close()


def test_only_so_many_directories_are_open_at_once(tmp_path: Path) -> None:
    """However many there are; one that was closed is opened again."""
    fd = os.open(tmp_path, os.O_RDONLY)
    directories = Directories(fd)
    os.close(fd)
    before = open_descriptors()
    for number in range(200):
        directories.open(f"d{number}/below")
    assert open_descriptors() - before <= Directories._MOST
    os.close(os.open("made", os.O_CREAT | os.O_WRONLY, dir_fd=directories.open("d0")))
    assert (tmp_path / "d0/made").exists()
    directories.close()


def test_an_open_directory_is_read_from_its_beginning_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else btrfs tells what was in it when it was opened: what came later would be in the way."""
    rewound: list[tuple[int, int, int]] = []
    monkeypatch.setattr(os, "lseek", lambda *how: rewound.append(how))
    fd = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "late").touch()
    assert names_in(fd) == [entry.name for entry in entries_in(fd)] == ["late"]
    os.close(fd)
    assert rewound == [(fd, 0, os.SEEK_SET)] * 2
