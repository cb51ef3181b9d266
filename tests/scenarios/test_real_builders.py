"""uv, pip and commands for real; what fails leaves the venv that was there."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from scenario import PIP, UV, Machine, Project, manifest_of
from wheels import make_project, make_wheel, pylock, uv_lock


def test_pylock_is_installed_by_uv(machine: Machine) -> None:
    """The standard lock file, with its hashes, for real."""
    project = machine.project("p", {"api": {"locks": ["api/pylock.toml"]}})
    pylock(project.root / "api", [machine.wheel("alpha"), machine.wheel("beta")])
    project.doit()
    assert project.output("api", "alpha") == "1.0"
    assert project.doit().nothing_to_do


@pytest.mark.parametrize("builder", ["uv", PIP])
def test_a_wrong_hash_fails_the_build_and_keeps_the_venv(machine: Machine, builder: str) -> None:
    """What is not what was locked is not installed, and the previous venv stays usable."""
    project = machine.project("p", {"api": {"build": builder}})
    lock = project.lock("api", machine.wheel("alpha"))
    project.doit()
    before = manifest_of(project.venv("api"))
    lock.write_text(lock.read_text().replace("sha256:", "sha256:0000")[:-5] + "\n")
    run = project.doit(code=4)
    log = project.root / ".venvflow" / "api" / "build.log"
    assert str(log) in run.err
    assert "hash" in run.err.lower()
    assert log.read_text().strip().splitlines()[-1] in run.err
    assert manifest_of(project.venv("api")) == before
    assert project.output("api", "alpha") == "1.0"


def test_a_builder_that_is_killed_leaves_the_previous_venv(machine: Machine) -> None:
    """Exit code 4, the signal in words, nothing half-made."""
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    before = manifest_of(project.venv("api"))
    kill = "echo some last words; mkdir -p $VENVFLOW_VENV/bin; kill -9 $$"
    project.configure({"api": {"build": [["sh", "-c", kill]]}})
    run = project.doit(code=4)
    assert "some last words" in run.err
    assert "SIGKILL" in run.err or "signal 9" in run.err or "killed" in run.err.lower()
    assert manifest_of(project.venv("api")) == before
    assert not list((project.root / "api").glob(".vf-*"))


def test_a_builder_that_makes_no_venv_is_told_so(machine: Machine) -> None:
    """Success of a command is not enough."""
    project = machine.project("p", {"api": {"build": [["true"]]}})
    project.lock("api", machine.wheel("alpha"))
    run = project.doit(code=4)
    assert "no venv" in run.err
    assert not os.path.lexists(project.venv("api"))


def test_uv_lock_projects_are_synced(machine: Machine, tmp_path: Path) -> None:
    """``uv.lock`` with its project, editable as uv installs it, and restored into a second checkout."""
    house = tmp_path / "own house"
    make_wheel(house, "alpha", "1.0", scripts={"alpha": "alpha:main"})
    own = Machine(machine.root, house)
    first = own.project("first", {"api": {"locks": ["app/uv.lock"], "path": "app/.venv"}})
    make_project(first.root / "app", "app", requires=["alpha==1.0"])
    uv_lock(first.root / "app", house, UV, sys.executable)
    first.doit()
    venv = first.root / "app" / ".venv"
    assert first.run([str(venv / "bin" / "alpha")]).out == "1.0\n"
    assert first.doit().nothing_to_do
    second = Project(own, machine.root / "second")
    shutil.copytree(first.root, second.root, ignore=shutil.ignore_patterns(".venv", ".venvflow"))
    assert second.doit().did["restore:api"].startswith("hit")
    where = second.run([str(second.root / "app/.venv/bin/python"), "-c", "import app; print(app.__file__)"])
    assert where.out.strip() == str(second.root / "app" / "src" / "app.py"), where.text
