"""The witness: one hash that moves when any file of a venv looks another way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from contents import grow

from venvflow.disk.scan import walk
from venvflow.state.file_stats import digest_of_found


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """Give a directory of two files and a link, of one time."""
    grow(tmp_path, {"lib/a.py": "a = 1", "lib/b.py": "b = 1"})
    (tmp_path / "lib/link").symlink_to("a.py")
    for name in ("a.py", "b.py"):
        os.utime(tmp_path / "lib" / name, ns=(10**18, 10**18))
    return tmp_path


def _edited(venv: Path) -> None:
    (venv / "lib/a.py").write_text("a = 2")


def _touched(venv: Path) -> None:
    os.utime(venv / "lib/a.py", ns=(10**18, 10**18 + 1))


def _grown(venv: Path) -> None:
    (venv / "lib/a.py").write_text("a = 10")
    os.utime(venv / "lib/a.py", ns=(10**18, 10**18))


def _renamed(venv: Path) -> None:
    (venv / "lib/a.py").rename(venv / "lib/c.py")


def _without_link(venv: Path) -> None:
    (venv / "lib/link").unlink()


@pytest.mark.parametrize("change", [_edited, _touched, _grown, _renamed, _without_link])
def test_every_change_is_seen(venv: Path, change: Callable[[Path], None]) -> None:
    """One of bytes by the time alone, if the size stays; one that keeps the time, by the size."""
    before = digest_of_found(walk(str(venv)))
    change(venv)
    assert digest_of_found(walk(str(venv))) != before


def test_what_comes_and_goes_by_itself_is_not_seen(venv: Path) -> None:
    """Bytecode, receipts and our own temporary files."""
    before = digest_of_found(walk(str(venv)))
    grow(venv, {"lib/__pycache__/a.pyc": "", ".venvflow.json": "", "lib/.vf-1-1": "", ".lock": ""})
    assert digest_of_found(walk(str(venv))) == before
