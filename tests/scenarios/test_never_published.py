"""What is not whole, or not what the lock says, is never published: half-deleted, hollow, changed venvs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from contents import make_deep
from scenario import BESIDE, Machine, Project, Run

SYMLINKS = {"durability": "none", "link": ["symlink"]}


@pytest.fixture
def project(machine: Machine) -> Project:
    """Give a project with one venv of two packages, not made yet."""
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"), machine.wheel("beta"))
    return project


def _others_get_both(machine: Machine, **settings: Any) -> None:
    """Assert that another checkout with the same lock gets a venv that works, and knows it."""
    other = machine.project(f"other{os.urandom(4).hex()}", {"api": {}}, **settings)
    other.lock("api", machine.wheel("alpha"), machine.wheel("beta"))
    other.doit()
    _has_both(other)


def _has_both(project: Project) -> None:
    assert project.output("api", "alpha") == "1.0"
    assert project.output("api", "beta") == "1.0"
    dangling = [path for path in project.venv("api").rglob("*") if path.is_symlink() and not path.exists()]
    assert dangling == []


def _hand_delete(project: Project, name: str = "alpha") -> None:
    (project.site("api") / f"{name}.py").unlink()
    shutil.rmtree(project.site("api") / f"{name}-1.0.dist-info")


def _venvflow(project: Project, *words: str) -> Run:
    run = project.run([os.path.join(BESIDE, "venvflow"), *words])
    assert "Traceback" not in run.text
    return run


def _with_builder(project: Project, script: str, **venv: Any) -> None:
    """Let the venv be built by uv, and then let its Python run *script*."""
    build = [
        ["{uv}", "venv", "--no-project", "--python", "{python}", "{venv}"],
        ["{uv}", "pip", "sync", "--python", "{venv}/bin/python", "{locks}"],
        ["{venv}/bin/python", "-c", script],
    ]
    project.configure({"api": {"build": build, **venv}})


# --------------------------------------------------------------------------- half-deleted


def test_a_package_that_is_deleted_between_two_steps_is_built_anew(
    machine: Machine, project: Project
) -> None:
    """``doit build-venv``, a deletion, ``doit``: what is published is what the lock says."""
    project.doit("build-venv:api")
    (project.site("api") / "alpha.py").unlink()
    run = project.doit()
    assert run.did["store:api"].startswith("stored")
    _has_both(project)
    _others_get_both(machine)


def test_a_package_that_is_deleted_after_an_edit_through_its_link_is_built_anew(
    machine: Machine, project: Project
) -> None:
    """The everyday case: print() into a package, then delete it to get it back; its object is damaged."""
    project.doit()
    module = project.site("api") / "alpha.py"
    module.chmod(0o644)
    with module.open("a") as file:
        file.write("print('debug')\n")
    _hand_delete(project)
    project.doit()
    _has_both(project)
    _others_get_both(machine)
    assert project.doit().nothing_to_do


def test_a_venv_that_is_never_restored_is_built_anew_when_a_file_is_missing(
    machine: Machine, project: Project
) -> None:
    """``restore: false``: the next run mends it, and the one after it has nothing to do."""
    project.configure({"api": {"restore": False}})
    project.doit()
    _hand_delete(project)
    assert "build-venv:api" in project.doit().did
    _has_both(project)
    assert project.doit().nothing_to_do


@pytest.mark.parametrize("kept", ["with its snapshot", "without its snapshot"])
@pytest.mark.parametrize("how", ["deleted", "leads nowhere"])
def test_a_venv_whose_interpreter_is_gone_is_not_what_its_key_says(
    machine: Machine, project: Project, kept: str, how: str
) -> None:
    """It is restored or built anew, never kept."""
    project.doit()
    if kept == "without its snapshot":
        for snapshot in (machine.store / "snapshots").glob("*.json"):
            snapshot.unlink()
    for name in project.venv("api").joinpath("bin").glob("python*"):
        name.unlink()
        if how == "leads nowhere":
            name.symlink_to("/nowhere/python3")
    run = project.doit()
    assert ("build-venv:api" in run.did) == (kept == "without its snapshot")
    _has_both(project)


def test_storing_by_hand_refuses_a_venv_that_is_not_whole(machine: Machine, project: Project) -> None:
    """``venvflow store`` of what was built, less a file: exit code 3, and no snapshot."""
    project.doit("build-venv:api")
    (project.site("api") / "alpha.py").unlink()
    run = _venvflow(project, "store", "api")
    assert run.code == 3, run.text
    assert "missing" in run.err
    assert "alpha.py" in run.err
    assert machine.snapshots() == []


def test_missing_bytecode_is_no_damage(machine: Machine, project: Project) -> None:
    """``find -name __pycache__ -exec rm``: the venv is stored, with bytecode."""
    project.doit("build-venv:api")
    for directory in project.venv("api").rglob("__pycache__"):
        shutil.rmtree(directory)
    run = project.doit()
    assert run.did["store:api"].startswith("stored")
    _others_get_both(machine)


# --------------------------------------------------------------------------- hollow: symlinks to nowhere


@pytest.fixture
def linked(project: Project) -> Project:
    """Give a project whose venv is made of symlinks into the store."""
    project.configure({"api": {}}, store=SYMLINKS)
    project.doit()
    assert (project.site("api") / "alpha.py").is_symlink()
    return project


def _no_objects_elsewhere(project: Project, store: Path) -> None:
    """Assert that every link of the venv that leads into a store leads into *store*."""
    for path in project.venv("api").rglob("*"):
        if path.is_symlink() and "/objects/" in os.readlink(path):
            assert os.readlink(path).startswith(f"{store}/objects/")


def test_a_venv_of_symlinks_is_not_published_in_another_store(machine: Machine, linked: Project) -> None:
    """VENVFLOW_STORE changes: the venv is built for the new store, whose snapshot needs no other store."""
    old, machine.store = machine.store, machine.root / "second"
    linked.doit()
    _no_objects_elsewhere(linked, machine.store)
    shutil.rmtree(old)
    _has_both(linked)
    _others_get_both(machine)
    _others_get_both(machine, store=SYMLINKS)
    assert linked.doit().nothing_to_do


def test_a_venv_of_symlinks_does_not_stay_so_when_the_config_names_a_store_that_copies(
    machine: Machine, linked: Project
) -> None:
    """The links into the old store go; what other checkouts get are files."""
    old, machine.store = machine.store, machine.root / "second"
    linked.configure({"api": {}}, store={"durability": "none", "link": ["copy"]})
    linked.doit()
    shutil.rmtree(old)
    _has_both(linked)
    assert not (linked.site("api") / "alpha.py").is_symlink()
    _others_get_both(machine)


def test_a_store_that_was_moved_leaves_no_hollow_venv(machine: Machine, linked: Project) -> None:
    """The links are dangling, and the next run says and does so, with the store at its new place."""
    moved = machine.root / "moved"
    machine.store.rename(moved)
    machine.store = moved
    run = linked.doit()
    assert not run.nothing_to_do
    _has_both(linked)
    _no_objects_elsewhere(linked, moved)
    _others_get_both(machine)
    assert linked.doit().nothing_to_do


@pytest.mark.parametrize("then", ["symlink", "copy"])
def test_a_store_that_was_deleted_is_not_filled_with_dangling_links(
    machine: Machine, linked: Project, then: str
) -> None:
    """There is nothing to fill it from: the venv is built."""
    shutil.rmtree(machine.store)
    linked.configure({"api": {}}, store={"durability": "none", "link": [then]})
    run = linked.doit()
    assert "build-venv:api" in run.did
    _has_both(linked)
    _others_get_both(machine)
    assert linked.doit().nothing_to_do


def test_a_hollow_venv_is_not_stored_by_hand(machine: Machine, linked: Project) -> None:
    """``venvflow store`` right after the store was deleted: no snapshot of links to nowhere."""
    shutil.rmtree(machine.store)
    run = _venvflow(linked, "store", "api")
    assert run.code != 0, run.text
    assert machine.snapshots() == []
    linked.doit()
    _has_both(linked)
    _others_get_both(machine)


def test_a_single_object_that_is_gone_makes_the_venv_a_damaged_one(machine: Machine, linked: Project) -> None:
    """Once anything makes us look at it, as a look by ``restore`` does: it is made anew."""
    (linked.site("api") / "alpha.py").resolve().unlink()
    linked.doit("forget", "--all")
    linked.doit()
    _has_both(linked)
    _others_get_both(machine)


# --------------------------------------------------------------------------- what nobody changed


def test_what_a_check_leaves_in_the_venv_is_taken_out_again(machine: Machine, project: Project) -> None:
    """A cache beside the package is nobody's work: built and restored venvs are whole and have it not."""
    write = (
        "import alpha, os; place = os.path.join(os.path.dirname(alpha.__file__), 'cache'); "
        "os.mkdir(place); open(os.path.join(place, 'alpha.nbi'), 'w').write('x')"
    )
    project.configure({"api": {"check": ["-c", write]}})
    run = project.doit()
    assert run.did["store:api"].startswith("stored")
    assert not (project.site("api") / "cache").exists()
    assert project.doit().nothing_to_do
    shutil.rmtree(project.venv("api"))
    assert project.doit().did["restore:api"].startswith("hit")
    assert not (project.site("api") / "cache").exists()
    project.lock("api", machine.wheel("alpha"))
    run = project.doit()
    assert "changed by hand" not in run.text
    assert not (project.site("api") / "beta.py").exists()


@pytest.mark.parametrize("state", ["shared", "built"])
def test_bytecode_that_is_written_again_is_no_change_by_hand(
    machine: Machine, project: Project, state: str
) -> None:
    """``python -m compileall -f``, then another lock: the venv is replaced."""
    project.doit(*([] if state == "shared" else ["build-venv"]))
    site = project.site("api")
    (site / "__pycache__").mkdir(exist_ok=True)
    words = [sys.executable, "-m", "compileall", "-q", "-f", str(site)]
    subprocess.run(words, env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""}, check=True)
    assert list(site.glob("__pycache__/alpha.*.pyc"))
    project.lock("api", machine.wheel("alpha"))
    run = project.doit()
    assert "changed by hand" not in run.text
    assert not (site / "beta.py").exists()


def test_what_differs_from_the_snapshot_is_kept_for_judging_changes(
    machine: Machine, project: Project
) -> None:
    """A build that is not reproducible keeps its own trees: a trim later, a deletion is still a deletion."""
    script = (
        "import sysconfig, uuid; file = open(sysconfig.get_path('purelib') + '/stamp.py', 'w'); "
        "file.write(str(uuid.uuid4()))"
    )
    _with_builder(project, script)
    project.doit()
    second = machine.project("second", {})
    second.lock("api", machine.wheel("alpha"), machine.wheel("beta"))
    _with_builder(second, script, restore=False)
    assert "not reproducible" in second.doit().warnings
    sweeper = machine.project("sweeper", {"api": {}})
    sweeper.lock("api", machine.wheel("delta"))
    sweeper.doit("store")
    assert "trim" in sweeper.doit("trim").did
    (second.site("api") / "new.py").write_text("mine")
    assert "added: new.py" in second.doit().warnings
    (second.site("api") / "new.py").unlink()
    (second.site("api") / "alpha.py").unlink()
    run = second.doit()
    assert "changed by hand" not in run.text
    _has_both(second)


# --------------------------------------------------------------------------- what cannot be seen


@pytest.fixture
def deep(project: Project) -> Any:
    """Give a venv that cannot be looked through: a directory in it is too deep. It is removed at the end."""
    project.doit()
    top = project.site("api") / "deep"
    make_deep(top, 220)
    yield project
    subprocess.run(["rm", "-rf", top], check=True)


def test_a_venv_that_cannot_be_looked_through_is_not_replaced(machine: Machine, deep: Project) -> None:
    """Somebody's work may be in it: the run fails and says why, and a lock change does not help."""
    precious = deep.site("api") / "precious.py"
    precious.write_text("mine")
    deep.lock("api", machine.wheel("alpha"))
    for _ in range(2):
        run = deep.doit(code=3)
        assert "Traceback" not in run.text
        assert "deep" in run.err
        assert precious.read_text() == "mine"
    assert deep.output("api", "beta") == "1.0"
    assert len(machine.snapshots()) == 1


def test_a_damaged_index_does_not_make_a_venv_replaceable(machine: Machine, project: Project) -> None:
    """What a venv was made of is asked of the index, for one that was not squished yet."""
    project.doit("build-venv")
    precious = project.site("api") / "precious.py"
    precious.write_text("mine")
    for path in machine.store.glob("index.db*"):
        path.unlink()
    (machine.store / "index.db").mkdir()
    project.lock("api", machine.wheel("alpha", "2.0"))
    run = project.doit(code=None)
    assert run.code in (3, 6), run.text
    assert "Traceback" not in run.text
    assert precious.read_text() == "mine"
    run = project.doit(code=None)
    assert run.code in (3, 6), run.text
    assert precious.read_text() == "mine"
