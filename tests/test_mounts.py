"""Where file systems are mounted: the kernel's list, and what tells where there is none."""

from __future__ import annotations

import os

import pytest

from venvflow.disk import mounts
from venvflow.disk.mounts import Mount, mount_of, mounts_at


def test_a_line_of_the_kernels_list_is_read() -> None:
    """The point is escaped, any number of fields may stand before the type."""
    line = b"36 35 98:0 /x /a\\040b rw shared:1 master:2 - ext4 /dev/vda rw\n"
    assert mounts._parsed(line) == Mount("ext4", "/a b")


@pytest.mark.parametrize(
    ("kind", "networked"), [("ext4", False), ("nfs4", True), ("fuse.sshfs", True), ("fuse.x", False)]
)
def test_file_systems_that_several_machines_may_have_are_known(kind: str, networked: bool) -> None:
    """By their type."""
    assert Mount(kind, "/").is_networked is networked


def test_the_longest_point_counts_and_the_last_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mounted over another file system hides it; a longer name beside it is another one."""
    known = [Mount("ext4", "/"), Mount("a", "/x"), Mount("b", "/x"), Mount("c", "/x y"), Mount("d", "/x/z")]
    monkeypatch.setattr(mounts, "mounts", lambda: known)
    types = {"/w": "ext4", "/x": "b", "/x/y": "b", "/x y/z": "c", "/x/z/w": "d"}
    assert {path: mount_of(path).type for path in types} == types
    assert mounts_at("/x") == ["/x", "/x", "/x/z"]


def test_without_a_list_the_device_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a path that is not there."""
    monkeypatch.setattr(mounts, "mounts", list)
    monkeypatch.setattr(os.path, "ismount", lambda path: path in ("/", os.sep + "usr"))
    assert mount_of("/usr/not/there") == Mount("", "/usr")
    assert mount_of("/not/there") == Mount("", "/")


def test_this_system_says_what_it_mounts() -> None:
    """If it does."""
    if not mounts.mounts():
        pytest.skip("this system does not list its mounts in /proc")
    assert mount_of("/").point == "/"
    assert mount_of("/proc/self").type == "proc"
