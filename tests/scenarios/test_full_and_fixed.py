"""Real disks that are full or read-only, a file that nobody may change: messages name them, and are true."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from contents import mounted, needs_root
from scenario import Machine, Project, manifest_of

pytestmark = [pytest.mark.slow, pytest.mark.root, needs_root]


@pytest.fixture
def project(machine: Machine) -> Project:
    """Give a project whose venv is built and not shared yet."""
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"))
    project.doit("hash-lockfiles:api", "restore:api", "build-venv:api")
    return project


def _leftovers(root: Path) -> list[Path]:
    return list(root.rglob(".vf-*"))


@contextmanager
def _immutable(file: Path) -> Iterator[None]:
    if subprocess.run(["chattr", "+i", str(file)], check=False, capture_output=True).returncode:
        pytest.skip("this file system knows no immutable files")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(file)], check=True)


def test_a_file_that_nobody_may_change_is_named(project: Project) -> None:
    """Its venv keeps every byte, nothing is left in it, and the next run after chattr shares it."""
    file = project.site("api") / "alpha.py"
    before = manifest_of(project.venv("api"), bytecode=False)
    with _immutable(file):
        for _ in range(2):
            run = project.doit(code=3)
            assert f"{file}: cannot share the files of the venv" in run.err
            assert "is immutable" in run.err
            assert "Every file of the venv holds what it held" in run.err
            assert "chattr -i" in run.err
            assert "store" not in run.err.replace("shared", "")
            assert _leftovers(project.root) == []
            assert manifest_of(project.venv("api"), bytecode=False) == before
    assert "squished" in project.doit().did["squish:api"]


def test_a_mount_in_a_venv_that_is_read_only_is_named(project: Project) -> None:
    """By where it is mounted, although its device is that of the store."""
    inside = project.site("api") / "alpha-1.0.dist-info"
    with mounted(inside, "--bind", str(inside)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(inside)], check=True)
        run = project.doit(code=3)
        assert f"Read-only file system (the file system mounted at {inside})" in run.err
        assert "Every file of the venv holds what it held" in run.err
        assert _leftovers(project.root) == []
    assert "squished" in project.doit().did["squish:api"]


def test_the_disk_of_a_project_that_is_full_is_named(machine: Machine, project: Project) -> None:
    """Not the store: neither by what is built, nor by what is restored; both go on when there is room."""
    large = machine.wheel("large", data={"large.bin": os.urandom(3 << 20)})
    project.lock("api", large)
    project.doit()
    small = machine.root / "small"
    with mounted(small, "-t", "tmpfs", "-o", "size=1m", "none"):
        other = Project(machine, small)
        (small / "dodo.py").write_text("from venvflow.tasks import *\n")
        other.configure({"api": {}, "built": {"build": "pip"}})
        for venv in ("api", "built"):
            other.lock(venv, large)
        run = other.doit("api", code=3)
        assert f"No space left on device (the file system mounted at {small} is full)" in run.err
        assert "What is at its place is unchanged." in run.err
        assert not other.venv("api").exists()
        assert _leftovers(small) == []
        run = other.doit("built", code=None)
        assert run.code in (3, 4)
        assert f"mounted at {small}" in run.err
        assert _leftovers(small) == []
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        assert other.doit("api").code == 0
