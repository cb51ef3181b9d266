"""A run does what a change asks for, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from scenario import DOIT, STEPS, Machine, Project, manifest_of

CHAIN = {f"{step}:api" for step in STEPS}
HIT = {"hash-lockfiles:api", "restore:api"}


def _made(machine: Machine) -> Project:
    package = {"delta/__init__.py": "", "delta/deep/__init__.py": "X = 1\n", "delta/data.txt": "text\n"}
    delta = machine.wheel("delta", modules=package, scripts={})
    project = machine.project("p", {"api": {}, "web": {}})
    project.lock("api", machine.wheel("alpha"), machine.wheel("beta"), delta)
    project.lock("web", machine.wheel("alpha"))
    project.doit()
    return project


@pytest.fixture
def project(machine: Machine) -> Project:
    """Give a project whose two venvs are made."""
    return machine.made_once(_made)


def _work(did: dict[str, str]) -> set[str]:
    return set(did) - {"trim"}


def test_a_changed_lock_runs_the_chain_of_that_venv_alone(project: Project) -> None:
    """The other venv is not even looked at by its steps; changed back, it is a hit without a build."""
    lock = project.root / "api" / "requirements.txt"
    old, built, before = lock.read_bytes(), project.built_at("web"), manifest_of(project.venv("api"))
    project.lock("api", project.machine.wheel("alpha", "2.0"))
    assert _work(project.doit().did) == CHAIN
    assert project.output("api", "alpha") == "2.0"
    assert project.doit().nothing_to_do
    lock.write_bytes(old)
    built_api = project.built_at("api")
    assert _work(project.doit().did) == HIT
    assert (project.built_at("api"), project.built_at("web")) == (built_api, built)
    assert manifest_of(project.venv("api")) == before
    assert project.doit().nothing_to_do


def test_a_lock_changed_within_its_size_and_time_is_seen(project: Project) -> None:
    """Lock files are read, not just looked at: the same size and time do not hide a change."""
    lock = project.root / "web" / "requirements.txt"
    st = lock.stat()
    text = lock.read_text()
    lock.write_text(text.replace("    --hash", "\t   --hash", 1))
    assert lock.stat().st_size == st.st_size
    os.utime(lock, ns=(st.st_atime_ns, st.st_mtime_ns))
    assert "hash-lockfiles:web" in project.doit().did


def _whole(venv: Path) -> None:
    shutil.rmtree(venv)


def _one_module(venv: Path) -> None:
    next(venv.rglob("alpha.py")).unlink()


def _one_deep_module(venv: Path) -> None:
    next(venv.rglob("delta/deep/__init__.py")).unlink()


def _one_package(venv: Path) -> None:
    shutil.rmtree(next(venv.rglob("site-packages/delta")))


def _one_script(venv: Path) -> None:
    (venv / "bin" / "alpha").unlink()


def _interpreter(venv: Path) -> None:
    (venv / "bin" / "python").unlink()


def _all_but(venv: Path, kept: str) -> None:
    for name in os.listdir(venv):
        path = venv / name
        if name != kept and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif name != kept:
            path.unlink()


def _only_bin_left(venv: Path) -> None:
    _all_but(venv, "bin")


def _only_lib_left(venv: Path) -> None:
    _all_but(venv, "lib")


def _no_marks(venv: Path) -> None:
    (venv / "pyvenv.cfg").unlink()
    (venv / ".venvflow.json").unlink()


def _no_receipt_and_no_package(venv: Path) -> None:
    (venv / ".venvflow.json").unlink()
    _one_package(venv)


def _empty(venv: Path) -> None:
    shutil.rmtree(venv)
    venv.mkdir()


def _broken_receipt(venv: Path) -> None:
    (venv / ".venvflow.json").unlink()
    (venv / ".venvflow.json").write_text('{"key": 1')
    _one_package(venv)


def _moved_away(venv: Path) -> None:
    venv.rename(venv.parent / "moved")


def _moved_and_back_as_a_copy(venv: Path) -> None:
    shutil.copytree(venv, venv.parent / "copy", symlinks=True)
    shutil.rmtree(venv)


@pytest.mark.parametrize(
    "damage",
    [
        _whole, _one_module, _one_deep_module, _one_package, _one_script, _interpreter,
        _no_receipt_and_no_package, _empty, _broken_receipt, _moved_away, _moved_and_back_as_a_copy,
    ],
    ids=lambda damage: damage.__name__.strip("_"),
)  # fmt: skip
def test_a_damaged_venv_is_restored_whole(project: Project, damage: Callable[[Path], None]) -> None:
    """However a venv was half-deleted, the next run brings all of it back from the store, without a build."""
    _is_restored_whole(project, damage)


@pytest.mark.parametrize(
    "damage", [_only_bin_left, _only_lib_left, _no_marks], ids=lambda damage: damage.__name__.strip("_")
)
def test_a_venv_without_a_mark_is_restored_whole(machine: Machine, damage: Callable[[Path], None]) -> None:
    """Its directory is still the one that we made, which no copy would be."""
    _is_restored_whole(_made(machine), damage)


def _is_restored_whole(project: Project, damage: Callable[[Path], None]) -> None:
    before, built = manifest_of(project.venv("api")), project.built_at("api")
    damage(project.venv("api"))
    run = project.doit()
    assert _work(run.did) == {"restore:api"}, run.text
    assert run.did["restore:api"].startswith("hit")
    assert manifest_of(project.venv("api")) == before
    assert project.built_at("api") == built
    assert project.doit().nothing_to_do
    assert not list((project.root / "api").glob(".vf-*"))


def test_a_moved_venv_is_made_anew_at_its_place_and_the_moved_one_is_left(project: Project) -> None:
    """What lies elsewhere is not ours to delete; at the place of another venv, it is not taken for it."""
    project.venv("api").rename(project.root / "api" / "old")
    project.doit()
    assert project.output("api", "alpha") == "1.0"
    assert (project.root / "api" / "old" / "bin" / "alpha").exists()
    shutil.rmtree(project.venv("web"))
    (project.root / "api" / "old").rename(project.venv("web"))
    run = project.doit()
    assert "restore:web" in run.did
    assert not (project.venv("web") / "bin" / "beta").exists()
    assert str(project.venv("web")) in (project.venv("web") / "bin" / "alpha").read_text()


def test_a_moved_project_gets_venvs_for_its_new_place(project: Project) -> None:
    """Moving a checkout with its venvs: the next run restores both, by hits."""
    new = project.root.parent / "elsewhere"
    project.root.rename(new)
    moved = Project(project.machine, new)
    run = moved.doit()
    assert {task: text.split()[0] for task, text in run.did.items() if task.startswith("restore")} == {
        "restore:api": "hit", "restore:web": "hit",
    }  # fmt: skip
    assert not any(task.startswith("build-venv") for task in run.did)
    assert moved.output("api", "alpha") == "1.0"
    assert str(project.root) + "/" not in (moved.venv("api") / "bin" / "activate").read_text()
    assert moved.doit().nothing_to_do


def test_a_config_change_that_matters_to_one_venv_runs_that_one(project: Project) -> None:
    """An exclude pattern is in the key: only its venv is built anew."""
    project.configure({"api": {"exclude": ["**/delta/data.txt"]}, "web": {}})
    run = project.doit()
    assert _work(run.did) == CHAIN
    assert not (project.site("api") / "delta" / "data.txt").exists()
    assert (project.site("api") / "delta" / "deep" / "__init__.py").exists()
    assert project.doit().nothing_to_do


def test_bytecode_policy_and_environment_are_in_the_key_of_their_venv(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changing what the key lists is seen; a value of a variable that no key lists is not."""
    project.configure({"api": {"key": {"env": ["FLAVOUR"]}}, "web": {"bytecode": "none"}})
    assert {"build-venv:api", "build-venv:web"} <= _work(project.doit().did)
    assert not list(project.site("web").rglob("*.pyc"))
    assert project.doit(env={"OTHER": "1"}).nothing_to_do
    assert _work(project.doit(env={"FLAVOUR": "sweet"}).did) == CHAIN
    assert _work(project.doit().did) == HIT


@pytest.mark.parametrize("place", ["top", "venv"])
def test_a_comment_or_a_new_order_in_the_config_changes_nothing(project: Project, place: str) -> None:
    """What the config means is what counts, not its bytes."""
    text = project.config.read_text()
    if place == "top":
        project.config.write_text(f"# a comment\n{text}\n# another\n")
    else:
        project.configure({"web": {}, "api": {"squish": {"min_size": 1}}})
    run = project.doit()
    assert not _work(run.did), run.text


def test_changing_the_trim_policy_builds_nothing(project: Project) -> None:
    """Settings of the store and of trim belong to no venv."""
    project.configure({"api": {}, "web": {}}, trim={"keep": 7})
    run = project.doit()
    assert not _work(run.did), run.text
    assert project.doit().nothing_to_do


def test_a_new_venv_in_the_config_is_the_only_one_that_is_made(project: Project) -> None:
    """Adding a venv leaves the others alone; taking it out again leaves its directory alone."""
    project.configure({"api": {}, "web": {}, "job": {}})
    project.lock("job", project.machine.wheel("beta"))
    assert _work(project.doit().did) == {f"{step}:job" for step in STEPS}
    project.configure({"api": {}, "web": {}})
    assert not _work(project.doit().did)
    assert (project.venv("job") / "bin" / "beta").exists()


@pytest.mark.parametrize("lost", ["state", "index", "both", "project state", "trim note", "key file"])
def test_lost_databases_cost_a_look_and_no_build(project: Project, lost: str) -> None:
    """Both databases, and all that tasks tell each other, may go at any time."""
    state, store = project.root / ".venvflow", project.machine.store
    if lost in ("state", "both"):
        _remove(state.glob("state.db*"))
    if lost in ("index", "both"):
        _remove(store.glob("index.db*"))
    if lost == "project state":
        shutil.rmtree(state)
    if lost == "trim note":
        (store / "trim.json").unlink()
    if lost == "key file":
        (state / "api" / "key.json").unlink()
    before = manifest_of(project.venv("api"))
    run = project.doit()
    assert not any(task.startswith(("build-venv", "restore")) for task in run.did), run.text
    assert project.doit().nothing_to_do
    shutil.rmtree(project.venv("api"))
    assert project.doit().did["restore:api"].startswith("hit")
    assert manifest_of(project.venv("api")) == before


def test_an_index_that_was_lost_is_filled_again_from_the_store(project: Project) -> None:
    """Objects, trees, snapshots and bytecode are in the index again, as they were."""
    tables = ("objects", "trees", "files", "snapshots", "snapshot_trees", "bytecode")
    counts = [project.machine.query(_count_of(table)) for table in tables]
    _remove(project.machine.store.glob("index.db*"))
    shutil.rmtree(project.venv("api"))
    project.doit()
    assert [project.machine.query(_count_of(table)) for table in tables] == counts


def _count_of(table: str) -> str:
    return f"SELECT count(*) FROM {table}"  # noqa: S608 - names of our own tables


@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty", "header"])
@pytest.mark.parametrize("which", ["state", "index"])
def test_damaged_databases_are_put_aside(project: Project, which: str, damage: str) -> None:
    """A damaged database stops nothing: the run works as with a lost one."""
    file = project.root / ".venvflow" / "state.db" if which == "state" else project.machine.store / "index.db"
    data = file.read_bytes()
    _remove(file.parent.glob(f"{file.name}-*"))
    changed = {
        "garbage": b"this is no database\n" * 500,
        "truncated": data[: len(data) // 2],
        "empty": b"",
        "header": b"\xff" * 100 + data[100:],
    }
    file.write_bytes(changed[damage])
    (project.venv("api") / "bin" / "alpha").unlink()
    run = project.doit()
    assert "Traceback" not in run.text
    assert run.did["restore:api"].startswith("hit")
    assert not any(task.startswith("build-venv") for task in run.did)
    assert project.doit().nothing_to_do


def _remove(paths: object) -> None:
    for path in list(paths):  # type: ignore[call-overload]
        path.unlink()


def test_a_store_that_is_gone_is_filled_again_from_the_venvs(project: Project) -> None:
    """Whole venvs need no build: they are shared and published anew."""
    shutil.rmtree(project.machine.store)
    run = project.doit()
    assert not any(task.startswith("build-venv") for task in run.did), run.text
    assert len(project.machine.snapshots()) == 2
    assert project.doit().nothing_to_do
    before = manifest_of(project.venv("api"))
    shutil.rmtree(project.venv("api"))
    assert project.doit().did["restore:api"].startswith("hit")
    assert manifest_of(project.venv("api")) == before


def test_restore_false_builds_always_and_still_stores(project: Project) -> None:
    """``restore: false`` makes every miss a build; nothing changed is still nothing to do."""
    project.configure({"api": {"restore": False}, "web": {}})
    assert not _work(project.doit().did)
    shutil.rmtree(project.venv("api"))
    run = project.doit()
    assert run.did["restore:api"].startswith("miss")
    assert "build-venv:api" in run.did
    assert project.doit().nothing_to_do


def test_a_run_from_below_the_project_finds_it(project: Project) -> None:
    """The loader works in a sub-directory that has a ``[tool.doit]`` too; venvs stay in their places."""
    (project.root / "api" / "pyproject.toml").write_text('[tool.doit]\nloader = "venvflow"\n')
    run = project.run([DOIT], cwd=project.root / "api")
    assert run.nothing_to_do, run.text
