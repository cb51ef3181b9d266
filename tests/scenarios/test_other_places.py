"""The world around a project changes: another store, another interpreter, another umask, a held lock."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from contents import mounted, needs_root
from scenario import BESIDE, MINOR, UV, Machine, Project, finished, manifest_of, wait_until

VENVFLOW = os.path.join(BESIDE, "venvflow")


def _made(machine: Machine) -> Project:
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    return project


@pytest.fixture
def project(machine: Machine) -> Project:
    """Give a project whose venv is made."""
    return machine.made_once(_made)


def test_another_store_is_filled_from_the_venvs_without_a_build(project: Project) -> None:
    """VENVFLOW_STORE names another one: shared and published there; and back again, nothing is built."""
    machine = project.machine
    first, machine.store = machine.store, machine.root / "store two"
    run = project.doit()
    assert "build-venv:api" not in run.did, run.text
    assert len(machine.snapshots()) == 1
    assert project.doit().nothing_to_do
    before = manifest_of(project.venv("api"))
    shutil.rmtree(first)
    assert manifest_of(project.venv("api")) == before
    shutil.rmtree(project.venv("api"))
    assert project.doit().did["restore:api"].startswith("hit")
    assert manifest_of(project.venv("api")) == before


def test_a_store_that_was_moved_goes_on_at_its_new_place(project: Project) -> None:
    """The whole directory, index and all; nothing is built or published anew."""
    machine = project.machine
    machine.store = machine.store.rename(machine.root / "moved store")
    run = project.doit()
    assert not set(run.did) - {"trim"}, run.text
    shutil.rmtree(project.venv("api"))
    assert project.doit().did["restore:api"].startswith("hit")
    assert project.output("api", "alpha") == "1.0"


def test_an_old_locale_changes_nothing_where_names_are_not_ascii(machine: Machine) -> None:
    """Of the project, of what its config and lock files name, in all programs and their workers."""
    places = {name: {"path": f"{name}/vënv", "locks": [f"{name}/löck.txt"]} for name in ("a", "b")}
    settings = {"store": {"path": "./störe"}, "defaults": {"pack": {"format": "tar.gz", "output": "./äus/"}}}
    project = machine.project("prøject", places, **settings)
    for name, wheel in (("a", "arm"), ("b", "bein")):
        made = machine.wheel(wheel, scripts={"büro": f"{wheel}:main"})
        project.lock(name, made).rename(project.root / name / "ünder.txt")
        (project.root / name / "löck.txt").write_text("-r ünder.txt  # dazu gehört mehr\n", encoding="utf-8")
    old = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"}
    elsewhere = project.root / "ünten"
    elsewhere.mkdir()
    found = project.doit("-n", "2", "-f", "../dodo.py", cwd=elsewhere, env=old)
    assert [found.did[f"store:{name}"].split()[0] for name in ("a", "b")] == ["stored", "stored"], found.text
    subprocess.run(["tar", "xf", project.root / "äus/a.tar.gz", "-C", elsewhere], check=True)
    script = [sys.executable, str(elsewhere / "postinstall.py"), "--compile"]
    subprocess.run(script, env={**machine.environ, **old}, check=True)
    assert subprocess.run([elsewhere / "bin/büro"], check=True, capture_output=True).stdout == b"1.0\n"
    for words in (["status", "--check"], ["status", "--json"], ["verify", "--full"], ["doctor"], ["build"]):
        run = project.run([VENVFLOW, *words], env=old)
        assert run.code == 0, run.text
        assert "Traceback" not in run.text
    shutil.rmtree(project.root / "a/vënv")
    assert project.doit(env=old).did["restore:a"].startswith("hit")
    assert project.doit().nothing_to_do
    assert project.run([VENVFLOW, "status", "--check"]).code == 0


def _own_python(home: Path) -> Path:
    """Make a Python of the same version at another place: a copy of the program beside the same library."""
    real = Path(os.path.realpath(sys.executable))
    (home / "bin").mkdir(parents=True)
    program = Path(shutil.copy(real, home / "bin" / f"python{MINOR}"))
    (home / "lib").symlink_to(Path(sys.base_prefix) / "lib")
    said = subprocess.run(
        [program, "-c", "import sys, json; print(sys.prefix)"], check=False, capture_output=True, text=True
    )
    if said.stdout.strip() != str(home):
        pytest.skip("this Python does not run at another place")
    return program


def test_a_venv_whose_python_moved_comes_back_for_the_new_one(machine: Machine) -> None:
    """The interpreter's path is not in the key: the same version elsewhere is a hit, and the venv runs it."""
    python = _own_python(machine.root / "python one")
    project = machine.project("p", {"api": {"python": str(python)}})
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    assert project.output("api", "python", "-c", "import sys; print(sys.base_prefix)") == str(
        machine.root / "python one"
    )
    (machine.root / "python one").rename(machine.root / "python two")
    project.configure({"api": {"python": str(machine.root / "python two" / "bin" / python.name)}})
    run = project.doit()
    assert "build-venv:api" not in run.did, run.text
    assert run.did["restore:api"].startswith("hit")
    assert project.output("api", "python", "-c", "import sys; print(sys.base_prefix)") == str(
        machine.root / "python two"
    )
    assert project.output("api", "alpha") == "1.0"
    assert "python one" not in (project.venv("api") / "pyvenv.cfg").read_text()
    assert project.doit().nothing_to_do


def test_a_python_that_is_gone_is_noticed_although_the_venv_is_there(machine: Machine) -> None:
    """Its version is asked for by number: another interpreter of that version takes over."""
    python = _own_python(machine.root / "python one")
    project = machine.project("p", {"api": {"python": str(python)}})
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    shutil.rmtree(machine.root / "python one")
    project.configure({"api": {"python": sys.executable}})
    assert project.doit().did["restore:api"].startswith("hit")
    assert project.output("api", "alpha") == "1.0"


@pytest.mark.parametrize("umask", [0o077, 0o002, 0o000])
def test_the_umask_decides_nothing_that_is_shared(machine: Machine, umask: int) -> None:
    """Objects are readable by all, and the modes in a venv are the usual ones, built or restored."""
    # What is adopted would keep the mode that it has in uv's cache.
    settings = {"durability": "none", "adopt": False}
    machine.wheelhouse = machine.root / "own wheelhouse"
    old = os.umask(umask)
    try:
        project = machine.project("p", {"api": {}}, store=settings)
        project.lock("api", machine.wheel("alpha"))
        trust = {"VENVFLOW_TRUST": "*"}  # everybody may write the config, too
        project.doit(env=trust)
        built = _modes(project.venv("api"))
        shutil.rmtree(project.venv("api"))
        project.doit(env=trust)
        restored = _modes(project.venv("api"))
    finally:
        os.umask(old)
    objects = {path for path in (machine.store / "objects").glob("*/*") if path.is_file()}
    assert objects
    assert not [path for path in objects if not path.stat().st_mode & 0o004]
    executable = {name: bool(mode & 0o100) for name, mode in built.items()}
    assert {name: bool(mode & 0o100) for name, mode in restored.items()} == executable
    restored.pop(".venvflow.json")
    assert not [name for name, mode in restored.items() if mode & 0o022]


def _modes(directory: Path) -> dict[str, int]:
    return {
        str(path.relative_to(directory)): stat.S_IMODE(path.lstat().st_mode)
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name != "uv_cache.json"  # given back if it fits
    }


def test_a_lock_that_is_held_too_long_ends_with_5(machine: Machine) -> None:
    """VENVFLOW_LOCK_TIMEOUT seconds of patience, then who holds it; the holder finishes undisturbed."""
    counter = machine.root / "counter"
    project = machine.project("p", {})
    project.configure({"api": {"build": project.counting_builder(counter, 30)}})
    (project.root / "api").mkdir()
    (project.root / "api" / "requirements.txt").write_text("# nothing\n")
    holder = project.start()
    wait_until(counter.exists)
    run = project.doit(code=5, env={"VENVFLOW_LOCK_TIMEOUT": "0.3"})
    assert "Traceback" not in run.text
    assert str(holder.pid) in run.err
    (machine.root / "counter.go").touch()
    assert finished(holder).code == 0
    assert project.doit().nothing_to_do


def test_what_was_added_and_taken_away_again_is_no_drift(project: Project) -> None:
    """Installed and uninstalled: the venv is what it was, and the next run only looks."""
    wheel = project.machine.wheel("beta")
    python = str(project.venv("api") / "bin" / "python")
    assert project.run([UV, "pip", "install", "-q", "--python", python, str(wheel)]).code == 0
    assert "beta" in project.doit().text
    assert project.run([UV, "pip", "uninstall", "-q", "--python", python, "beta"]).code == 0
    run = project.doit()
    assert "changed by hand" not in run.text
    assert not run.did
    assert project.doit().nothing_to_do


def test_a_program_that_runs_in_the_venv_survives_its_replacement(project: Project) -> None:
    """It keeps the files that it has open; the new venv is in place for the next one."""
    code = "import sys, alpha; print('ready', flush=True); sys.stdin.readline(); print(alpha.VERSION)"
    words = [str(project.venv("api") / "bin" / "python"), "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        project.lock("api", project.machine.wheel("alpha", "2.0"))
        project.doit()
        out, _ = running.communicate("\n", timeout=20)
    assert out == "1.0\n"
    assert project.output("api", "alpha") == "2.0"


def test_a_venv_below_a_symlinked_directory_is_made_where_it_points(machine: Machine) -> None:
    """Parents may be links; only the venv itself may not."""
    real = machine.root / "big disk"
    real.mkdir()
    project = machine.project("p", {"api": {"path": "link/.venv"}})
    (project.root / "link").symlink_to(real)
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    assert project.run([str(project.root / "link" / ".venv" / "bin" / "alpha")]).out == "1.0\n"
    assert project.doit().nothing_to_do
    shutil.rmtree(real / ".venv")
    assert project.doit().did["restore:api"].startswith("hit")
    assert sorted(os.listdir(real)) == [".venv"]


def test_a_project_that_is_reached_through_a_link_is_the_same_project(project: Project) -> None:
    """Run from the link, nothing is to be done; what is built there has no trace of the link."""
    link = project.machine.root / "shortcut"
    link.symlink_to(project.root)
    through = Project(project.machine, link)
    run = through.doit()
    assert run.nothing_to_do, run.text
    shutil.rmtree(project.venv("api"))
    through.doit()
    assert project.doit().nothing_to_do


def test_a_venv_renamed_in_the_config_keeps_its_place(project: Project) -> None:
    """The same place under another name: no build, and the venv is not taken for somebody else's."""
    project.configure({"service": {"path": "api/.venv", "locks": ["api/requirements.txt"]}})
    run = project.doit()
    assert "build-venv:service" not in run.did, run.text
    assert not (project.root / "api" / ".venv.before-venvflow").exists()
    assert project.output("api", "alpha") == "1.0"
    assert project.doit().nothing_to_do


def test_two_venvs_that_swap_their_places_in_the_config(machine: Machine) -> None:
    """Each place gets the venv that now belongs there, by hits."""
    project = machine.project("p", {"a": {}, "b": {}})
    project.lock("a", machine.wheel("alpha"))
    project.lock("b", machine.wheel("beta"))
    project.doit()
    project.configure({"a": {"path": "b/.venv"}, "b": {"path": "a/.venv"}})
    run = project.doit()
    assert not any(task.startswith("build-venv") for task in run.did), run.text
    assert project.run([str(project.venv("b") / "bin" / "alpha")]).out == "1.0\n"
    assert project.run([str(project.venv("a") / "bin" / "beta")]).out == "1.0\n"
    assert project.doit().nothing_to_do


# --------------------------------------------------------------------------- images and volumes


@contextmanager
def image(machine: Machine) -> Iterator[None]:
    """Let everything that the machine has be the lower layer of an overlay, as in an image."""
    layers = machine.root.with_name(f"{machine.root.name}-layers")
    below, upper, work = (layers / name for name in ("below", "upper", "work"))
    for directory in (upper, work):
        directory.mkdir(parents=True)
    subprocess.run(["cp", "-a", "--reflink=auto", f"{machine.root}/.", below], check=True)
    options = f"lowerdir={below},upperdir={upper},workdir={work},redirect_dir=off"
    with mounted(machine.root, "-t", "overlay", "overlay", "-o", options):
        yield


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("made", ["shared", "only built", "by another tool"])
def test_a_venv_of_an_image_is_replaced(machine: Machine, made: str) -> None:
    """Nothing to do at first; a changed lock replaces it file by file; changed back, it is restored."""
    old, new = machine.wheel("alpha", "1.0"), machine.wheel("alpha", "2.0")
    project = machine.project("p", {"api": {}})
    project.lock("api", old)
    if made == "by another tool":
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", project.venv("api")], check=True)
        (project.venv("api") / "mine.txt").write_text("mine")
    else:
        project.doit(*(["build-venv:api"] if made == "only built" else []))
    with image(machine):
        first = project.doit()
        assert made != "shared" or first.nothing_to_do
        project.lock("api", new)
        project.doit()
        assert project.output("api", "alpha") == "2.0"
        assert project.doit().nothing_to_do
        project.lock("api", old)
        assert "hit" in project.doit().did["restore:api"]
        assert project.output("api", "alpha") == "1.0"
        assert project.doit().nothing_to_do
        assert project.run([VENVFLOW, "verify", "--full"]).code == 0
        assert not list(machine.root.rglob(".vf-*"))
        kept = project.venv("api").with_name(".venv.before-venvflow")
        assert kept.joinpath("mine.txt").exists() == (made == "by another tool")
        project.doit("clean", "build-venv:api")
        assert not project.venv("api").exists()


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("kind", ["another file system", "the same one"])
def test_a_volume_at_the_venvs_place_gets_the_venv(machine: Machine, kind: str) -> None:
    """An empty one, then one with an older venv; what another tool made there is refused, and stays."""
    old, new = machine.wheel("alpha", "1.0"), machine.wheel("alpha", "2.0")
    project = machine.project("p", {"api": {}})
    (machine.root / "volume").mkdir()
    options = ["--bind", str(machine.root / "volume")] if kind == "the same one" else ["-t", "tmpfs", "none"]
    project.lock("api", old)
    project.venv("api").mkdir()
    with mounted(project.venv("api"), *options):
        for version, wheel in (("1.0", old), ("2.0", new), ("1.0", old)):
            project.lock("api", wheel)
            project.doit()
            assert project.output("api", "alpha") == version
            assert project.doit().nothing_to_do
        assert project.run([VENVFLOW, "verify", "--full"]).code == 0
        project.doit("clean", "build-venv:api")
        assert os.listdir(project.venv("api")) == []
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", project.venv("api")], check=True)
        refused = project.doit(code=6)
        assert "mount point" in refused.text
        assert (project.venv("api") / "pyvenv.cfg").exists()
        assert sorted(os.listdir(project.root / "api")) == [".venv", "requirements.txt"]
