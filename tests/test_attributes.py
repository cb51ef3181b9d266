"""Extended attributes: which of them keep a file from being shared."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from contents import needs_root

from venvflow.disk.attributes import copy_attributes, own_attributes

pytestmark = pytest.mark.skipif(not hasattr(os, "setxattr"), reason="this system does not show attributes")

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
ACCESS = bytes.fromhex(
    "02000000 01000600ffffffff 02000400d2040000 04000400ffffffff 10000600ffffffff 20000400ffffffff"
)
"""Who has number 1234 may read."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a file that can have attributes, or skip the test."""
    made = tmp_path / "file"
    made.write_bytes(b"x")
    try:
        os.setxattr(made, "user.try", b"")
    except OSError as error:
        pytest.skip(f"no attributes on this file system: {error.strerror}")
    os.removexattr(made, "user.try")
    return made


def test_a_file_without_attributes_has_none(file: Path) -> None:
    """By its path and by its descriptor."""
    assert own_attributes(str(file)) == ()
    with file.open("rb") as opened:
        assert own_attributes(opened.fileno()) == ()


def test_what_somebody_noted_on_a_file_is_its_own(file: Path) -> None:
    """Whatever it is called."""
    os.setxattr(file, "user.origin", b"somewhere")
    with file.open("rb") as opened:
        assert own_attributes(str(file)) == own_attributes(opened.fileno()) == ("user.origin",)


@needs_root
@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "value"),
    [("security.capability", CAPABILITY), ("system.posix_acl_access", ACCESS), ("trusted.mine", b"x")],
)
def test_what_changes_who_may_do_what_is_its_own(file: Path, name: str, value: bytes) -> None:
    """Shared, everybody's file would have it, or nobody's."""
    try:
        os.setxattr(file, name, value)
    except OSError as error:
        pytest.skip(f"{name} cannot be set here: {error.strerror}")
    assert name in own_attributes(str(file))


def test_labels_that_every_file_has_do_not_count(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nothing would be shared where a policy is at work."""
    labels = [
        "security.selinux",
        "security.ima",
        "system.nfs4_acl",
        "trusted.overlay.origin",
        "user.overlay.x",
    ]
    monkeypatch.setattr(os, "listxattr", lambda *_, **__: labels)
    assert own_attributes(str(file)) == ()


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EPERM])
def test_a_file_system_that_has_none_is_no_error(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Nor is one that does not tell."""

    def refuse(*_: object, **__: object) -> list[str]:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "listxattr", refuse)
    assert own_attributes(str(file)) == ()


def test_a_file_that_is_gone_is_an_error(file: Path) -> None:
    """It is not called one without attributes."""
    file.unlink()
    with pytest.raises(FileNotFoundError):
        own_attributes(str(file))


def test_a_symlink_is_not_followed(file: Path) -> None:
    """What it points at is not its own."""
    os.setxattr(file, "user.origin", b"x")
    link = file.with_name("link")
    link.symlink_to(file)
    assert own_attributes(str(link)) == ()


def test_attributes_can_be_given_to_a_copy(file: Path) -> None:
    """All of them, or it says so."""
    os.setxattr(file, "user.origin", b"x")
    copy = file.with_name("copy")
    with file.open("rb") as source, copy.open("wb") as target:
        assert copy_attributes(source.fileno(), target.fileno())
    assert os.getxattr(copy, "user.origin") == b"x"


def test_what_may_not_be_set_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy without it is no copy of that file."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    os.setxattr(file, "user.origin", b"x")
    monkeypatch.setattr(os, "setxattr", refuse)
    with file.open("rb") as source, file.with_name("copy").open("wb") as target:
        assert not copy_attributes(source.fileno(), target.fileno())
