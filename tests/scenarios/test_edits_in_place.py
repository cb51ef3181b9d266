"""Edits in place: no directory moves; the next ``doit`` sees them all the same, names them, leaves them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from scenario import BESIDE, Machine, Project, Run

pytestmark = pytest.mark.slow


def _write_through(file: Path, text: str = "def main(): print('mine')\n") -> None:
    """Write into a file as ``vim`` does with ``:w!``: made writable, written, made read-only again."""
    mode = file.stat().st_mode
    file.chmod(0o644)
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)


def _venvflow(project: Project, *words: str) -> Run:
    return project.run([os.path.join(BESIDE, "venvflow"), *words])


def _reported(run: Run) -> set[str]:
    """Return the venvs that a run calls changed by hand."""
    return set(re.findall(r"^restore:(\w+)  warning: changed by hand", run.out, re.MULTILINE))


def _made(machine: Machine) -> Project:
    project = machine.project("p", {"a": {}, "b": {}, "c": {"squish": {"link": ["copy"]}}})
    for name in ("a", "b", "c"):
        project.lock(name, machine.wheel("alpha"), *([machine.wheel("beta")] if name == "b" else []))
    project.doit()
    assert project.doit().nothing_to_do
    return project


@pytest.fixture
def project(machine: Machine) -> Project:
    """Give two venvs that share alpha; nothing is left to do."""
    return machine.made_once(_made)


def _script(project: Project) -> Path:
    return project.venv("a") / "bin" / "alpha"


def _record(project: Project) -> Path:
    return next(project.site("a").glob("alpha-*.dist-info/RECORD"))


def _activate(project: Project) -> Path:
    return project.venv("a") / "bin" / "activate"


def _config(project: Project) -> Path:
    return project.venv("a") / "pyvenv.cfg"


@pytest.mark.quick
def test_an_edit_through_a_hard_link_is_seen_in_all_venvs_that_share_it(project: Project) -> None:
    """It is named, with what helps; it stays; the copy is not concerned; verify mends it."""
    module = project.site("a") / "alpha.py"
    _write_through(module)
    run = project.doit()
    assert _reported(run) == {"a", "b"}, run.text
    for name in "ab":
        assert f"restore:{name}  warning: changed by hand (edited: alpha.py); left as it is." in run.out
    assert "venvflow verify --heal" in run.warnings
    assert "a --force" not in run.warnings
    assert "mine" in module.read_text(encoding="utf-8")
    assert _reported(project.doit()) == {"a", "b"}
    assert _venvflow(project, "verify", "--heal").code == 0
    assert "mine" not in module.read_text(encoding="utf-8")
    assert project.doit().warnings == ""


@pytest.mark.parametrize("file", [_script, _record, _activate, _config])
def test_an_edit_of_a_private_file_is_seen(project: Project, file: Callable[[Project], Path]) -> None:
    """Of its own venv only; --force drops it."""
    path = file(project)
    before = path.read_bytes()
    with open(path, "ab") as opened:
        opened.write(b"# mine\n")
    run = project.doit()
    assert _reported(run) == {"a"}, run.text
    assert f"{path.name})" in run.warnings
    assert "venvflow build a --force" in run.warnings
    assert path.read_bytes() == before + b"# mine\n"
    assert _venvflow(project, "restore", "a", "--force").code == 0
    assert path.read_bytes() == before
    run = project.doit()
    assert run.nothing_to_do
    assert _reported(run) == set()


def test_an_edit_through_a_symlink_is_seen(machine: Machine) -> None:
    """It is the store's file that was written to."""
    project = machine.project("p", {"a": {"squish": {"link": ["symlink"]}}})
    project.lock("a", machine.wheel("alpha"))
    project.doit()
    assert project.doit().nothing_to_do
    module = project.site("a") / "alpha.py"
    assert module.is_symlink()
    os.utime(module)
    assert project.doit().warnings == ""
    _write_through(module)
    run = project.doit("a")
    assert _reported(run) == {"a"}
    assert "edited: alpha.py" in run.warnings
    assert "venvflow verify --heal" in run.warnings
    assert "mine" in module.read_text(encoding="utf-8")


def test_an_edit_of_a_copy_is_seen(project: Project) -> None:
    """A venv of copies has every file for itself."""
    module = project.site("c") / "alpha.py"
    _write_through(module)
    run = project.doit()
    assert _reported(run) == {"c"}, run.text
    assert "edited: alpha.py" in run.warnings
    assert "venvflow build c --force" in run.warnings
    assert "mine" in module.read_text(encoding="utf-8")


@pytest.mark.parametrize("venv", ["a", "c"])
@pytest.mark.parametrize("what", ["alpha.py", "RECORD", "script"])
def test_a_file_that_was_only_touched_is_no_change(project: Project, venv: str, what: str) -> None:
    """It is compared. What all venvs share gets its time back; of a venv's own, the newest stays."""
    site = project.site(venv)
    files = {
        "alpha.py": site / "alpha.py",
        "RECORD": next(site.glob("alpha-*.dist-info/RECORD")),
        "script": project.venv(venv) / "bin" / "alpha",
    }
    before = files[what].stat().st_mtime_ns
    os.utime(files[what])
    touched = files[what].stat().st_mtime_ns
    run = project.doit()
    assert run.warnings == ""
    own = [files["RECORD"], files["script"], project.venv(venv) / "pyvenv.cfg"]
    if what == "alpha.py":
        assert files[what].stat().st_mtime_ns == before
    else:
        assert {path.stat().st_mtime_ns for path in own} == {touched}
    assert project.doit().nothing_to_do


@pytest.mark.parametrize("lost", [".stats", "state.db", ""])
def test_an_edit_is_seen_whatever_was_lost_of_the_state(project: Project, lost: str) -> None:
    """It is never overwritten, and never published."""
    state = project.root / ".venvflow" / lost
    (shutil.rmtree if state.is_dir() else os.unlink)(state)
    module, script = project.site("a") / "alpha.py", _script(project)
    _write_through(module)
    script.write_bytes(script.read_bytes() + b"# mine\n")
    run = project.doit(code=None)
    assert "restore:a  warning: changed by hand (edited: bin/alpha, alpha.py)" in run.out
    assert "mine" in module.read_text(encoding="utf-8")
    assert script.read_bytes().endswith(b"# mine\n")


def test_an_edit_is_seen_while_the_store_is_gone(project: Project) -> None:
    """What the project remembers is enough."""
    shutil.rmtree(project.machine.store)
    module = project.site("c") / "alpha.py"
    _write_through(module)
    run = project.doit("restore:c", code=None)
    assert "restore:c  warning: changed by hand" in run.out
    assert "mine" in module.read_text(encoding="utf-8")


def test_explain_foretells_what_doit_says_of_an_edit(project: Project) -> None:
    """And writes nothing."""
    module = project.site("a") / "alpha.py"
    _write_through(module)
    said = _venvflow(project, "explain", "a")
    assert "changed by hand (edited: alpha.py)" in said.out
    assert "changed by hand (edited: alpha.py)" in project.doit("a").warnings


def test_sed_and_editors_that_rename_are_seen_too(project: Project) -> None:
    """They move a directory; the other venvs keep their bytes, and are not concerned."""
    module = project.site("a") / "alpha.py"
    subprocess.run(["sed", "-i", "s/main/renamed/", str(module)], check=True)
    run = project.doit()
    assert _reported(run) == {"a"}, run.text
    assert "edited: alpha.py" in run.warnings
    assert "verify --heal" not in run.warnings
