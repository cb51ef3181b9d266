"""Bad input gets its message and its exit code; nothing is lost, and nothing outside is touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scenario import BESIDE, Machine, Project, Run, manifest_of

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount")
NOT_AS_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


def _made(machine: Machine) -> Project:
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"))
    project.lock("web", machine.wheel("beta"))
    project.doit()
    return project


@pytest.fixture
def project(machine: Machine) -> Project:
    """Give a project with one venv that is made, and a lock for a second one."""
    return machine.made_once(_made)


def _says(run: Run, *words: str) -> None:
    """Assert that a run failed with one message that has these words, and without a traceback."""
    assert "Traceback" not in run.text, run.text
    assert "venvflow:" in run.err, run.text
    missing = [word for word in words if word not in run.err]
    assert not missing, run.text


# --------------------------------------------------------------------------- lock files


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(path.parent)
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


def _missing(path: Path) -> None:
    """Leave nothing there."""


@pytest.mark.parametrize(
    "kind", [_missing, _fifo, _directory, _loop, _dangling, _socket], ids=lambda each: each.__name__[1:]
)
def test_a_lock_that_is_no_file_is_an_error_and_never_waits(
    project: Project, kind: Callable[[Path], None]
) -> None:
    """Missing, directory, FIFO, socket, symlink loop: said with the path; the venv that is there stays."""
    lock = project.root / "api" / "requirements.txt"
    before = manifest_of(project.venv("api"))
    lock.unlink()
    kind(lock)
    run = project.doit(code=None, timeout=20)
    assert run.code in (2, 3), run.text
    _says(run, "requirements.txt")
    assert manifest_of(project.venv("api")) == before


@NOT_AS_ROOT
def test_a_lock_that_cannot_be_read_is_an_error(project: Project) -> None:
    """Permission denied, with the path."""
    (project.root / "api" / "requirements.txt").chmod(0)
    _says(project.doit(code=3), "requirements.txt", "ermission denied")


def test_a_lock_that_is_a_device_is_an_error(project: Project) -> None:
    """``/dev/zero`` is not read for ever."""
    lock = project.root / "api" / "requirements.txt"
    lock.unlink()
    lock.symlink_to("/dev/zero")
    run = project.doit(code=None, timeout=20)
    assert run.code in (2, 3)
    _says(run)


def test_a_symlink_to_a_lock_file_is_a_lock_file(project: Project) -> None:
    """Links to real files are welcome."""
    lock = project.root / "api" / "requirements.txt"
    lock.rename(project.root / "real.txt")
    lock.symlink_to("../real.txt")
    project.doit()
    assert project.doit().nothing_to_do


def test_a_missing_lock_of_one_venv_does_not_stop_the_others(project: Project) -> None:
    """Its own tasks fail with 2 and the line of the config; others go on."""
    project.configure({"api": {"locks": ["api/req*.txt"]}, "web": {}})
    (project.root / "api" / "requirements.txt").unlink()
    run = project.doit(code=2)
    _says(run, "venvflow.yaml:", "venvs.api.locks[0]: api/req*.txt matches no file")
    assert run.did["store:web"].startswith("stored")
    assert project.doit("web").nothing_to_do


def test_an_unknown_interpreter_is_an_environment_failure(project: Project) -> None:
    """Exit code 3, the venv's name, what was looked for."""
    before = manifest_of(project.venv("api"))
    project.configure({"api": {"python": "3.99"}})
    _says(project.doit(code=3), "api", "3.99")
    project.configure({"api": {"python": "/nowhere/python3"}})
    _says(project.doit(code=3), "/nowhere/python3")
    assert manifest_of(project.venv("api")) == before


def test_an_interpreter_that_is_no_python_is_an_environment_failure(project: Project) -> None:
    """Something that runs, but is no Python."""
    project.configure({"api": {"python": shutil.which("true")}})
    _says(project.doit(code=3, timeout=30), "true")


# --------------------------------------------------------------------------- the config


def test_config_errors_are_told_all_at_once_with_file_line_and_nearest_key(project: Project) -> None:
    """One run shows them all, and ends with 2 before anything runs."""
    project.config.write_text(
        "version: 1\nstoer: {}\nvenvs:\n  api:\n    path: api/.venv\n    lokcs: [x]\n    python: 3.10\n"
        "    locks: [api/requirements.txt]\n"
    )
    run = project.doit(code=2)
    _says(
        run,
        "stoer",
        "store",
        "lokcs",
        "locks",
        "3.1",
        "venvflow.yaml:2",
        "venvflow.yaml:6",
        "venvflow.yaml:7",
    )
    assert not run.did


NO_CONFIGS = [
    "", "[]", "version: 1\nversion: 1\n", "a: [", "version: 2\nvenvs: {}\n", "\x00",
    "version: 1\nvenvs: {a: &x [*x]}\n",
]  # fmt: skip


def test_a_config_that_is_none_ends_with_2(project: Project) -> None:
    """Empty, a list, duplicate keys, broken YAML, another version, recursion."""
    for text in NO_CONFIGS:
        project.config.write_text(text)
        _says(project.doit(code=2, timeout=20), "venvflow.yaml")


def test_a_project_without_a_config_ends_with_2(project: Project) -> None:
    """And says which names were looked for."""
    project.config.unlink()
    _says(project.doit(code=2), "venvflow.yaml")


DANGEROUS = [
    "/", "~", ".", "..", "", "a/..", "web/../.", "../store", "../store/inside", "api/.venv/inside", "api",
    "/etc/venv/../..",
]  # fmt: skip


def test_dangerous_paths_are_refused_before_anything_runs(project: Project) -> None:
    """Exit code 6 (2 for what is no path at all); no task runs, and nothing is touched."""
    before = manifest_of(project.root)
    for path in DANGEROUS:
        project.configure({"api": {}, "web": {"path": path}})
        run = project.doit(code=None)
        _says(run, "web")
        assert run.code == (2 if path == "" else 6), f"{path}: {run.text}"
        assert not run.did, path
        after = manifest_of(project.root)
        assert {name for name in after if after[name] != before.get(name)} <= {"venvflow.yaml"}, path


def test_two_venvs_with_one_path_are_refused(project: Project) -> None:
    """However the path is written."""
    (project.root / "link").symlink_to("api")
    for spelling in ("api/.venv", "api/../api/.venv", "./api/.venv/", "link/.venv"):
        project.configure({"api": {}, "web": {"path": spelling}})
        run = project.doit(code=6)
        _says(run, "web", "api")
        assert not run.did


# --------------------------------------------------------------------------- what is in the venv's place


@pytest.fixture
def canaries(project: Project) -> Iterator[Path]:
    """Give a directory outside that must be the same at the end."""
    outside = project.machine.root / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "canary").write_text("alive")
    (outside / "pyvenv.cfg").write_text("home = /somewhere\n")
    before = manifest_of(outside)
    yield outside
    assert manifest_of(outside) == before


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_symlink_in_the_place_is_refused(project: Project, canaries: Path, slash: str) -> None:
    """Nothing is written or deleted through it, also when the path is written with a slash."""
    project.venv("web").symlink_to(canaries)
    project.configure({"api": {}, "web": {"path": f"web/.venv{slash}"}})
    _says(project.doit(code=6), "symlink", str(canaries))
    assert project.venv("web").is_symlink()
    project.doit("clean", code=None)
    assert project.venv("web").is_symlink()


def test_a_symlink_that_came_later_is_refused_too(project: Project, canaries: Path) -> None:
    """A finished venv moved away and linked to: whatever is asked for, nothing goes through the link."""
    moved = project.machine.root / "moved"
    project.venv("api").rename(moved)
    project.venv("api").symlink_to(moved)
    before = manifest_of(moved)
    project.lock("api", project.machine.wheel("beta"))
    _says(project.doit(code=6), "symlink")
    project.doit("clean", code=None)
    assert manifest_of(moved) == before
    assert project.venv("api").is_symlink()
    assert canaries.exists()


@pytest.mark.parametrize("kind", ["file", "fifo", "stranger", "socket"])
def test_something_else_in_the_place_is_refused(project: Project, kind: str) -> None:
    """A file or a directory that is no venv stays as it is; an empty directory is no obstacle."""
    place = project.venv("web")
    if kind == "file":
        place.write_text("mine")
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind == "socket":
        _socket(place)
    else:
        place.mkdir()
        (place / "thesis.txt").write_text("mine")
    before = manifest_of(project.root / "web")
    project.configure({"api": {}, "web": {}})
    _says(project.doit(code=6), str(place))
    project.doit("clean", code=None)
    assert manifest_of(project.root / "web") == before


def test_an_empty_directory_in_the_place_becomes_the_venv(project: Project) -> None:
    """There is nothing to lose."""
    project.venv("web").mkdir()
    project.configure({"api": {}, "web": {}})
    project.doit()
    assert project.output("web", "beta") == "1.0"


def test_a_venv_that_was_there_before_is_kept_beside(project: Project) -> None:
    """Made by hand: kept whole as ``.venv.before-venvflow``; the next such one gets a number."""
    place = project.venv("web")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    (place / "mine.txt").write_text("mine")
    before = manifest_of(place)
    project.configure({"api": {}, "web": {}})
    run = project.doit()
    assert "before-venvflow" in run.text
    kept = place.with_name(".venv.before-venvflow")
    assert manifest_of(kept) == before
    assert project.output("web", "beta") == "1.0"
    shutil.rmtree(place)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    (place / "mine.txt").write_text("mine too")
    assert ".venv.2.before-venvflow" in project.doit().warnings
    assert (place.with_name(".venv.2.before-venvflow") / "mine.txt").read_text() == "mine too"
    assert manifest_of(kept) == before


@pytest.mark.slow
def test_a_job_that_makes_a_venv_before_each_run_stays_green(project: Project) -> None:
    """With nothing but a pip in it: nothing is lost, so nothing is kept, however often that happens."""
    place = project.venv("web")
    project.configure({"api": {}, "web": {}})
    for _ in range(3):
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
        told = project.run([os.path.join(BESIDE, "venvflow"), "status", "web"]).text
        assert "made by another tool, with nothing in it" in told
        assert project.doit().warnings == ""
        assert project.output("web", "beta") == "1.0"
    assert not list(place.parent.glob(".venv?*"))


@AS_ROOT
@pytest.mark.root
def test_a_mounted_directory_in_the_place_is_refused(project: Project, canaries: Path) -> None:
    """It is neither emptied nor replaced."""
    place = project.venv("web")
    place.mkdir()
    if subprocess.run(
        ["mount", "--bind", str(canaries), str(place)], check=False, capture_output=True
    ).returncode:
        pytest.skip("cannot mount here")
    try:
        project.configure({"api": {}, "web": {}})
        _says(project.doit(code=6), "mount")
        project.doit("clean", code=None)
    finally:
        subprocess.run(["umount", place], check=True)
    assert (canaries / "deep" / "canary").read_text() == "alive"


@AS_ROOT
@pytest.mark.root
def test_a_mount_inside_a_venv_is_never_emptied(project: Project, canaries: Path) -> None:
    """Replacing the venv around it fails, or leaves it; the files on the mount stay."""
    inside = project.venv("api") / "share" / "data"
    inside.mkdir(parents=True)
    if subprocess.run(
        ["mount", "--bind", str(canaries), str(inside)], check=False, capture_output=True
    ).returncode:
        pytest.skip("cannot mount here")
    try:
        project.lock("api", project.machine.wheel("beta"))
        run = project.doit(code=None)
        assert "Traceback" not in run.text
        project.doit("clean", code=None)
    finally:
        with open("/proc/self/mountinfo") as file:
            points = [line.split()[4] for line in file if str(project.machine.root) in line.split()[4]]
        for point in points:
            subprocess.run(["umount", point], check=True)
    assert (canaries / "deep" / "canary").read_text() == "alive"


# --------------------------------------------------------------------------- drift


def _install_by_hand(project: Project, *wheels: Path) -> None:
    words = [
        os.path.join(BESIDE, "uv"),
        "pip",
        "install",
        "-q",
        "--python",
        str(project.venv("api") / "bin" / "python"),
    ]
    run = project.run([*words, *map(str, wheels)])
    assert run.code == 0, run.text


def test_a_package_installed_by_hand_is_reported_and_kept(project: Project) -> None:
    """By the next run, by name; it is still there afterwards, and the run ends with 0."""
    _install_by_hand(project, project.machine.wheel("beta"))
    run = project.doit()
    assert "changed by hand" in run.text
    assert "beta" in run.text
    assert project.output("api", "beta") == "1.0"
    again = project.doit()
    assert project.output("api", "beta") == "1.0"
    assert "build-venv:api" not in again.did


@pytest.mark.parametrize("how", ["replaced", "in place", "appended"])
def test_an_edited_file_is_never_overwritten(project: Project, how: str) -> None:
    """Editors replace or write in place: the next lock change is refused with 6, the edit is safe."""
    module = project.site("api") / "alpha.py"
    text = "VERSION = 'mine'\ndef main(): print(VERSION)\n"
    if how == "replaced":
        module.with_suffix(".new").write_text(text)
        os.replace(module.with_suffix(".new"), module)
    else:
        module.chmod(0o644)
        with open(module, "a" if how == "appended" else "w") as file:
            file.write(text)
    edited = module.read_bytes()
    project.lock("api", project.machine.wheel("beta"))
    run = project.doit(code=6)
    _says(run, "changed by hand", "alpha.py", "api")
    assert module.read_bytes() == edited
    assert project.output("api", "alpha") == "mine"


def test_a_change_by_hand_with_a_new_lock_is_refused_until_it_is_given_up(project: Project) -> None:
    """The message says what to do, and it works."""
    _install_by_hand(project, project.machine.wheel("beta"))
    project.lock("api", project.machine.wheel("alpha", "2.0"))
    run = project.doit(code=6)
    _says(run, "changed by hand", "beta", "venvflow build api --force")
    assert project.output("api", "beta") == "1.0"
    _says(project.doit(code=6), "changed by hand")
    assert project.run([os.path.join(BESIDE, "venvflow"), "build", "api", "--force"]).code == 0
    assert project.doit().nothing_to_do
    assert project.output("api", "alpha") == "2.0"


def test_a_change_by_hand_is_never_published(machine: Machine) -> None:
    """A package added by hand does not come back from the store after the venv is deleted."""
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    _install_by_hand(project, machine.wheel("beta"))
    project.doit("forget", "--all")
    project.doit(code=None)
    shutil.rmtree(project.root / ".venvflow")
    project.doit(code=None)
    shutil.rmtree(project.venv("api"))
    project.doit()
    assert project.output("api", "alpha") == "1.0"
    assert not (project.venv("api") / "bin" / "beta").exists()


@pytest.mark.parametrize("lost", ["store", "snapshots", "index", "snapshots and index"])
@pytest.mark.parametrize("what", ["package", "edit"])
def test_a_change_by_hand_is_not_published_by_a_run_that_fills_the_store_again(
    machine: Machine, lost: str, what: str
) -> None:
    """Whatever was lost of the store, a venv with somebody's changes is no source for other venvs."""
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    if what == "package":
        _install_by_hand(project, machine.wheel("beta"))
    else:
        _rewrite(project.site("api") / "alpha.py", "def main(): print('mine')\n")
    _lose(machine.store, lost)
    project.doit(code=None)
    project.doit(code=None)
    mine = project.site("api") / ("beta.py" if what == "package" else "alpha.py")
    assert what == "package" or "mine" in mine.read_text()
    assert mine.exists()
    other = machine.project("other", {"api": {}})
    other.lock("api", machine.wheel("alpha"))
    other.doit()
    assert other.output("api", "alpha") == "1.0"
    assert not (other.site("api") / "beta.py").exists()


def test_an_edit_in_place_of_a_shared_file_is_not_published_when_the_store_is_gone(machine: Machine) -> None:
    """Two venvs share the inode, so both have the edit; a store that is filled again from them has it not."""
    project = machine.project("p", {"a": {}, "b": {}})
    project.lock("a", machine.wheel("alpha"))
    project.lock("b", machine.wheel("alpha"), machine.wheel("beta"))
    project.doit()
    module = project.site("a") / "alpha.py"
    module.chmod(0o644)
    module.write_text("def main(): print('mine')\n")
    shutil.rmtree(machine.store)
    project.doit(code=None)
    assert "mine" in module.read_text()
    other = machine.project("other", {"a": {}})
    other.lock("a", machine.wheel("alpha"))
    other.doit()
    assert other.output("a", "alpha") == "1.0"


def _rewrite(path: Path, text: str) -> None:
    path.with_name(f"{path.name}.new").write_text(text)
    os.replace(path.with_name(f"{path.name}.new"), path)


def _lose(store: Path, what: str) -> None:
    if what == "store":
        shutil.rmtree(store)
    if "snapshots" in what:
        for path in (store / "snapshots").glob("*.json"):
            path.unlink()
    if "index" in what:
        for path in store.glob("index.db*"):
            path.unlink()


def test_an_edit_through_a_hard_link_does_not_reach_another_venv(project: Project) -> None:
    """What somebody wrote in place into one venv is found before it is given to another one."""
    machine = project.machine
    module = project.site("api") / "alpha.py"
    module.chmod(0o644)
    module.write_text("VERSION = 'poison'\ndef main(): print(VERSION)\n")
    other = machine.project("other", {"api": {}})
    other.lock("api", machine.wheel("alpha"))
    other.doit()
    assert other.output("api", "alpha") == "1.0"


def test_running_and_importing_is_no_drift(project: Project) -> None:
    """Bytecode that Python writes, of the venv's own modules and of scripts, is nobody's change."""
    (project.site("api") / "__pycache__").mkdir(exist_ok=True)
    for cache in project.site("api").rglob("*.pyc"):
        cache.unlink()
    project.output("api", "alpha")
    run = project.doit()
    assert "changed by hand" not in run.text
    assert (project.site("api") / "alpha.py").exists()


# --------------------------------------------------------------------------- the store


def test_a_store_of_a_newer_format_is_not_touched(project: Project) -> None:
    """Exit code 3, with what to do."""
    store = project.machine.store
    (store / "format").unlink()
    (store / "format").write_text("99\n")
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    (project.venv("api") / "bin" / "alpha").unlink()
    run = project.doit(code=3)
    _says(run, str(store), "pgrade")
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


@pytest.mark.parametrize("kind", ["file", "stranger", "dangling"])
def test_something_else_in_the_place_of_the_store_is_refused(machine: Machine, kind: str) -> None:
    """A directory full of somebody's files does not become a store."""
    if kind == "file":
        machine.store.write_text("mine")
    elif kind == "dangling":
        machine.store.symlink_to(machine.root / "nowhere" / "at" / "all")
    else:
        machine.store.mkdir()
        (machine.store / "thesis.txt").write_text("mine")
        (machine.store / "objects").mkdir()
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"))
    run = project.doit(code=None)
    if kind != "dangling":
        assert run.code in (3, 6), run.text
        _says(run, str(machine.store))
    assert "Traceback" not in run.text
    if kind == "stranger":
        assert sorted(os.listdir(machine.store)) == ["objects", "thesis.txt"]


@AS_ROOT
@pytest.mark.root
def test_a_read_only_store_restores_and_does_not_stop_builds_with_a_traceback(project: Project) -> None:
    """On a hit the venv comes; what has to write says so with 3; nothing is lost."""
    store = project.machine.store
    words = ["mount", "--bind", str(store), str(store)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
        before = manifest_of(project.venv("api"))
        shutil.rmtree(project.venv("api"))
        run = project.doit("restore:api")
        assert run.did["restore:api"].startswith("hit")
        assert {
            path for path, item in manifest_of(project.venv("api")).items() if before.get(path) != item
        } == set()
        project.lock("api", project.machine.wheel("alpha", "2.0"))
        run = project.doit(code=3)
        _says(run, "read-only")
        assert project.output("api", "alpha") == "2.0"
    finally:
        subprocess.run(["umount", store], check=True)
    assert "store:api" in project.doit().did


@AS_ROOT
@pytest.mark.root
@pytest.mark.parametrize("limit", ["size=300k", "size=2m,nr_inodes=60"])
def test_a_full_store_stops_with_3_and_changes_nothing(machine: Machine, limit: str) -> None:
    """No space, by bytes or by inodes: said in one message; with room again, the next run finishes."""
    machine.store.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", limit, "none", str(machine.store)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        project = machine.project("p", {"api": {}})
        modules = {f"many/m{number}.py": f"N = {number}\n" + "# x\n" * 3000 for number in range(60)}
        project.lock("api", machine.wheel("many", modules=modules, scripts={}))
        run = project.doit(code=3)
        _says(run, "pace")
        code = "import many.m1"
        if os.path.lexists(project.venv("api")):
            assert project.output("api", "python", "-c", code) == ""
        assert machine.snapshots() == [] if (machine.store / "snapshots").exists() else True
        subprocess.run(["mount", "-o", "remount,size=100m,nr_inodes=10000", machine.store], check=True)
        project.doit()
        assert project.output("api", "python", "-c", code) == ""
        assert project.doit().nothing_to_do
    finally:
        subprocess.run(["umount", machine.store], check=True)


def test_a_store_on_another_file_system_works_by_copies(machine: Machine) -> None:
    """No hard links across file systems: copies instead, and everything else as ever."""
    shm = Path("/dev/shm")  # noqa: S108 - a file system of its own, where there is one
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == machine.root.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    machine.store = shm / f"venvflow-test-{os.getpid()}"
    try:
        project = machine.project("p", {"api": {}})
        project.lock("api", machine.wheel("alpha"))
        run = project.doit()
        assert " copied" in run.did["squish:api"]
        before = manifest_of(project.venv("api"))
        shutil.rmtree(project.venv("api"))
        assert project.doit().did["restore:api"].startswith("hit")
        assert manifest_of(project.venv("api")) == before
        assert project.doit().nothing_to_do
    finally:
        shutil.rmtree(machine.store, ignore_errors=True)


# --------------------------------------------------------------------------- names

NAMES = [
    "a b",
    "semi;colon",
    "per%cent%s",
    "quo'te\"s",
    "$(touch PWNED)",
    "`touch PWNED`",
    "new\nline",
    "-rf",
    "ümläut 漢",
    "star*[x]",
    "#hash",
    "a\\b",
    "&& touch PWNED",
]


def _no_canary(machine: Machine) -> None:
    assert not list(machine.root.rglob("PWNED"))
    assert not os.path.exists("PWNED")


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_of_directory_lock_and_venv_works(machine: Machine, name: str) -> None:
    """The venv's directory, the lock and the project have it; nothing is executed, and all of it works."""
    project = machine.project(f"pro {name}", {})
    lock = project.lock("x", machine.wheel("alpha"))
    lock = lock.rename(lock.with_name(f"requirements {name}.txt"))
    escaped = _glob_free(f"x/requirements {name}.txt").replace("$", "$$")
    project.configure({"api": {"path": f"x/{name}".replace("$", "$$"), "locks": [escaped]}})
    project.doit()
    venv = project.root / "x" / name
    before = manifest_of(venv)
    assert project.run([str(venv / "bin" / "alpha")]).out == "1.0\n"
    script = '. "$1"; python -c "import sys; print(sys.prefix)"; echo "$VIRTUAL_ENV"'
    run = project.run(["bash", "-c", script, "bash", str(venv / "bin" / "activate")])
    assert run.out == f"{venv}\n{venv}\n", run.text
    shutil.rmtree(venv)
    assert project.doit().did["restore:api"].startswith("hit")
    assert manifest_of(venv) == before
    assert project.doit().nothing_to_do
    _no_canary(machine)


def _glob_free(path: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", path)


def test_a_builder_that_cannot_work_at_a_path_says_so(machine: Machine) -> None:
    """Below a name that is not UTF-8, uv does not work: its words, exit code 4, nothing left behind."""
    project = machine.project("caf\udce9 \udcff", {"api": {}})
    project.lock("api", machine.wheel("alpha"))
    _says(project.doit(code=4), "api", "UTF-8")
    assert os.listdir(project.root / "api") == ["requirements.txt"]
    shutil.rmtree(os.fsencode(project.root))


def test_a_lock_whose_name_is_not_utf8_is_found_by_a_pattern(machine: Machine) -> None:
    """Names are bytes: for the key, for the state, and for commands that get the lock as a word."""
    project = machine.project("p", {})
    counter = machine.root / "counter"
    venv = {"locks": ["api/lock*.txt"], "build": project.counting_builder(counter)}
    project.configure({"api": venv})
    (project.root / "api").mkdir()
    lock = project.root / "api" / "lock\udcff.txt"
    lock.write_text("one\n")
    project.doit()
    read = ["python", "-c", "import gamma; print(gamma.TEXT)"]
    assert project.output("api", *read) == "b'one\\n'"
    assert project.doit().nothing_to_do
    lock.write_text("two\n")
    project.doit()
    assert project.output("api", *read) == "b'two\\n'"
    lock.unlink()


def test_hostile_names_inside_a_wheel_survive_the_round_trip(machine: Machine) -> None:
    """Files with such names, as data of a package: the same bytes at the same names after a restore."""
    data = {
        f"weird/{name}.txt": name.encode()
        for name in NAMES
        if "/" not in name and "\n" not in name and "\\" not in name
    }
    weird = machine.wheel("weird", modules={"weird/__init__.py": "X = 1\n"}, data=data, scripts={})
    project = machine.project("p", {"api": {"pack": {"output": "dist/"}}})
    project.lock("api", weird)
    project.doit()
    before = manifest_of(project.venv("api"))
    shutil.rmtree(project.venv("api"))
    assert project.doit().did["restore:api"].startswith("hit")
    assert manifest_of(project.venv("api")) == before
    _no_canary(machine)


def test_names_that_are_not_utf8_survive_the_round_trip(machine: Machine) -> None:
    """A builder may leave any bytes as names: newline, high bytes, 255 of them."""
    script = machine.root / "odd.py"
    script.write_text(
        "import os, subprocess, sys\n"
        "subprocess.run([sys.argv[1], '-m', 'venv', '--without-pip', sys.argv[2]], check=True)\n"
        "names = [b'\\xff\\xfe', b'new\\nline', b'x' * 255, b'tab\\t', b'caf\\xe9.py', b'back\\\\slash']\n"
        "root = os.fsencode(sys.argv[2]) + b'/lib/odd'\n"
        "os.mkdir(root)\n"
        "for name in names:\n"
        "    open(root + b'/' + name, 'wb').write(name)\n"
        "    os.mkdir(root + b'/d' + name[:200]); open(root + b'/d' + name[:200] + b'/f', 'wb').write(b'f')\n"
        "os.symlink(b'\\xff\\xfe', root + b'/link')\n"
    )
    project = machine.project(
        "p",
        {"api": {"build": [["{python}", str(script), "{python}", "{venv}"]], "pack": {"output": "dist/"}}},
    )
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    before = manifest_of(project.venv("api"))
    assert len([path for path in before if path.startswith("lib/odd/")]) == 6 + 12 + 1
    shutil.rmtree(project.venv("api"))
    assert project.doit().did["restore:api"].startswith("hit")
    assert manifest_of(project.venv("api")) == before
    assert project.doit().nothing_to_do
    _remove_bytewise(project.root)


def _remove_bytewise(root: Path) -> None:
    shutil.rmtree(os.fsencode(root))


def test_special_files_of_a_builder_are_reported_and_not_stored(machine: Machine) -> None:
    """FIFOs and sockets cannot be shared; setuid bits are not kept; none of it hangs a step."""
    script = machine.root / "special.py"
    script.write_text(
        "import os, subprocess, sys\n"
        "subprocess.run([sys.argv[1], '-m', 'venv', '--without-pip', sys.argv[2]], check=True)\n"
        "os.mkfifo(sys.argv[2] + '/lib/fifo')\n"
        "open(sys.argv[2] + '/bin/tool', 'w').write('#!/bin/sh\\n')\n"
        "os.chmod(sys.argv[2] + '/bin/tool', 0o4755)\n"
    )
    project = machine.project("p", {"api": {"build": [["{python}", str(script), "{python}", "{venv}"]]}})
    project.lock("api", machine.wheel("alpha"))
    run = project.doit(timeout=30)
    assert "fifo" in run.warnings
    assert "setuid" in run.warnings
    shutil.rmtree(project.venv("api"))
    assert project.doit(timeout=30).did["restore:api"].startswith("hit")
    assert not os.path.lexists(project.venv("api") / "lib" / "fifo")
    tool = project.venv("api") / "bin" / "tool"
    assert stat.S_IMODE(tool.stat().st_mode) & 0o7000 == 0
    assert os.access(tool, os.X_OK)


def test_secrets_do_not_reach_store_state_or_output(machine: Machine) -> None:
    """Credentials in an index URL, in a lock and in the environment: nowhere in what is kept or said."""
    project = machine.project("p", {"api": {"build": "uv", "key": {"env": ["UV_INDEX_URL"]}}})
    lock = project.lock("api", machine.wheel("alpha"))
    secret = "hunter2" + "canary"
    lock.write_text(f"--extra-index-url https://user:{secret}@index.invalid/simple\n{lock.read_text()}")
    env = {"UV_INDEX_URL": f"https://user:{secret}@index.invalid/simple", "TOKEN": secret}
    run = project.doit(code=None, env=env)
    assert secret not in run.text
    kept: dict[str, Any] = {**manifest_of(machine.store), **manifest_of(project.root / ".venvflow")}
    if project.venv("api").exists():
        kept |= manifest_of(project.venv("api"))
    assert [path for path, item in kept.items() if secret.encode() in item.content] == []


# --------------------------------------------------------------------------- notes that make no sense


def _without_bound(path: Path) -> str:
    document = json.loads(path.read_text())
    del document["bound"]
    return json.dumps(document)


def _with(name: str, value: Any) -> Callable[[Path], str]:
    return lambda path: json.dumps({**json.loads(path.read_text()), name: value})


def _in_each(name: str, value: Any) -> Callable[[Path], str]:
    return lambda path: json.dumps(
        {each: {**note, name: value} for each, note in json.loads(path.read_text()).items()}
    )


NOTES: dict[str, list[str | Callable[[Path], str]]] = {
    "store/trim.json": ["{}", _in_each("at", "x"), _in_each("generation", {}), _in_each("at", None)],
    ".venvflow/api/pack.json": ['{"inputs": null, "outputs": null}', _with("outputs", {"a\0b": []})],
    ".venvflow/api/key.json": [
        '{"digest": 1}', _with("interpreter", {"executable": 1}),
        _with("inputs", 5), _with("inputs", ["a\0b"]),
    ],
    ".venvflow/api/restore.json": ['{"hit": 1, "key": []}'],
    ".venvflow/api/excluded.json": ['{"key": 1}'],
    "api/.venv/.venvflow.json": [
        _with("directories", [["../../..", 1], ["a\0b", 2]]), _with("directories", 7),
        _with("trees", None), _with("trees", 7), _with("trees", [1, None]), _without_bound,
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", NOTES)
def test_a_note_that_makes_no_sense_is_no_traceback(machine: Machine, name: str) -> None:
    """JSON, but not of our shape: taken as not there, or refused with words; then all is well again."""
    project = machine.project("p", {"api": {"pack": {"format": "tar.gz", "output": "dist/"}}})
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    path = (machine.root if name.startswith("store/") else project.root) / name
    for content in NOTES[name]:
        path.write_text(content if isinstance(content, str) else content(path))
        _is_mended(project, name)


def _is_mended(project: Project, name: str) -> None:
    run = project.doit(code=None)
    assert "Traceback" not in run.text, run.text
    assert run.code in (0, 3, 6), run.text
    if name.startswith("api/"):  # somebody changed the venv, so they may have to decide
        shutil.rmtree(project.venv("api"), ignore_errors=True)
        for kept in (project.root / "api").glob(".venv.before*"):
            shutil.rmtree(kept)
        project.doit()
    else:
        assert run.code == 0, run.text
    assert project.doit().nothing_to_do
    assert project.output("api", "alpha") == "1.0"


# --------------------------------------------------------------------------- errors while a venv is made


@pytest.mark.parametrize("where", ["write_private", "sync_file_system"])
def test_a_disk_that_is_full_while_a_venv_is_finished_is_said(project: Project, where: str) -> None:
    """Relocating writes, too: exit code 3, the reason, no traceback; the venv that was there stays."""
    module = "builders.checks" if where == "write_private" else "steps.new_venv"
    before = manifest_of(project.venv("api"))
    project.configure({"api": {}}, store={"durability": "full"})
    project.lock("api", project.machine.wheel("beta"))
    (project.root / "dodo.py").write_text(
        f"import errno, os\nimport venvflow.{module} as module\n"
        "def full(*words, **more):\n    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        f"module.{where} = full\nfrom venvflow.tasks import *\n"
    )
    _says(project.doit(code=3), "api", "o space left")
    assert manifest_of(project.venv("api")) == before
    assert sorted(os.listdir(project.root / "api")) == [".venv", "requirements.txt"]


def test_files_with_the_longest_names_are_relocated(machine: Machine) -> None:
    """255 bytes are all that a name may have; there is no room for a suffix."""
    long = "ä" * 126 + ".py"
    machine_wheel = machine.wheel("longest", modules={"longest.py": "def main(): print('long')\n"})
    project = machine.project("p", {})
    project.lock("api", machine_wheel)
    script = (
        "import os, sys, sysconfig; site = sysconfig.get_path('purelib'); "
        f"open(os.path.join(site, {long!r}), 'w').write(f'PLACE = {{sys.prefix!r}}\\n'); "
        f"os.symlink(sys.prefix + '/bin/python', os.path.join(site, {'l' * 255!r}))"
    )
    build = [
        ["{uv}", "venv", "--no-project", "--python", "{python}", "{venv}"],
        ["{uv}", "pip", "sync", "--python", "{venv}/bin/python", "{locks}"],
        ["{venv}/bin/python", "-c", script],
    ]
    project.configure({"api": {"build": build}})
    project.doit()
    for _ in range(2):
        assert (project.site("api") / long).read_text() == f"PLACE = {str(project.venv('api'))!r}\n"
        assert os.readlink(project.site("api") / ("l" * 255)) == str(project.venv("api") / "bin" / "python")
        shutil.rmtree(project.venv("api"))
        assert project.doit().did["restore:api"].startswith("hit")


def test_a_binary_file_that_names_its_place_is_warned_of(machine: Machine) -> None:
    """It cannot be relocated, and other places get it as it is: the run that builds says so."""
    project = machine.project("p", {})
    project.lock("api", machine.wheel("alpha"))
    script = (
        "import sys; file = open(sys.prefix + '/bin/tool', 'wb'); "
        "file.write(b'\\x7fELF\\0\\0' + sys.prefix.encode() + b'\\0')"
    )
    build = [
        ["{uv}", "venv", "--no-project", "--python", "{python}", "{venv}"],
        ["{venv}/bin/python", "-c", script],
    ]
    project.configure({"api": {"build": build}})
    warnings = project.doit().warnings
    assert "bin/tool" in warnings
    assert "the path it was built at" in warnings
