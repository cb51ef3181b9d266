"""What changes while we work: lock files, the venv's place, other runs. And what a kill leaves half-way."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from scenario import Machine, Project, Run, finished, manifest_of, wait_until

DODO = "from venvflow.tasks import *\n"
KINDS = {"file": stat.S_IFREG, "fifo": stat.S_IFIFO, "symlink": stat.S_IFLNK, "stranger": stat.S_IFDIR}


@pytest.fixture
def counter(machine: Machine) -> Path:
    """Give the file to which builders write a line each; they wait until it is opened (see ``_go_on``)."""
    return machine.root / "counter"


@pytest.fixture
def project(machine: Machine, counter: Path) -> Project:
    """Give a project with one venv whose builder waits, and installs the text of the lock."""
    return _waiting(machine, "p", counter)


def _waiting(
    machine: Machine, name: str, counter: Path, venvs: tuple[str, ...] = ("api",), **settings: Any
) -> Project:
    project = machine.project(name, {})
    build = project.counting_builder(counter, 60)
    project.configure({venv: {"build": build} for venv in venvs}, **settings)
    for venv in venvs:
        (project.root / venv).mkdir()
        _lock(project, "one", venv)
    return project


def _lock(project: Project, text: str, venv: str = "api") -> None:
    (project.root / venv / "requirements.txt").write_text(f"# {venv} {text}\n")


def _text(project: Project, venv: str = "api") -> str:
    return (project.site(venv) / "gamma.py").read_text()


def _go_on(counter: Path) -> None:
    Path(f"{counter}.go").touch()


def _wait_again(counter: Path) -> None:
    Path(f"{counter}.go").unlink()


def _builds(counter: Path) -> int:
    return len(counter.read_text().splitlines()) if counter.exists() else 0


def _says(run: Run, *words: str) -> None:
    """Assert that a run failed with a message that has these words, and without a traceback."""
    assert "Traceback" not in run.text, run.text
    missing = [word for word in words if word not in run.err]
    assert not missing, run.text


# --------------------------------------------------------------------------- lock files


def test_a_lock_that_changes_during_the_build_is_not_published_under_the_old_key(
    machine: Machine, project: Project, counter: Path
) -> None:
    """The run ends with 3; the next one builds what the lock says now, and others what theirs says."""
    process = project.start()
    wait_until(counter.exists)
    _lock(project, "two")
    _go_on(counter)
    run = finished(process)
    assert run.code == 3, run.text
    _says(run, "changed meanwhile", "api", "Run doit again")
    assert machine.snapshots() == []
    assert not os.path.lexists(project.venv("api"))
    project.doit()
    assert "two" in _text(project)
    other = _waiting(machine, "other", counter)
    assert "build-venv:api" in other.doit().did
    assert "one" in _text(other)


def test_a_lock_that_changes_during_the_build_leaves_the_venv_that_was_there(
    machine: Machine, project: Project, counter: Path
) -> None:
    """The old venv is whole, and the store has only what belongs to its key."""
    _go_on(counter)
    project.doit()
    before = manifest_of(project.venv("api"))
    _wait_again(counter)
    _lock(project, "two")
    process = project.start()
    wait_until(lambda: _builds(counter) == 2)
    _lock(project, "three")
    _go_on(counter)
    assert finished(process).code == 3
    assert manifest_of(project.venv("api")) == before
    assert len(machine.snapshots()) == 1
    project.doit()
    assert "three" in _text(project)


def test_a_lock_that_changes_while_a_claim_is_waited_for_is_not_built_in_vain(
    machine: Machine, project: Project, counter: Path
) -> None:
    """The run that got the claim looks at its lock before it lets the builder begin."""
    other = _waiting(machine, "other", counter)
    first = project.start()
    wait_until(counter.exists)
    second = other.start()
    wait_until((other.root / ".venvflow" / "api" / "restore.json").exists)
    time.sleep(0.5)  # it is waiting now; where it is not yet, the test sees less, but never fails
    _lock(other, "two")
    os.killpg(first.pid, 9)
    finished(first)
    _go_on(counter)  # the builder of the killed run ends, and with it the claim
    run = finished(second)
    assert run.code == 3, run.text
    _says(run, "changed meanwhile")
    assert _builds(counter) == 1
    assert machine.snapshots() == []


def test_a_lock_that_changes_and_changes_back_during_the_build_is_seen_too(
    machine: Machine, project: Project, counter: Path
) -> None:
    """``git stash``, ``git stash pop``: the builder has read what the lock said in between."""
    end = (
        "import os, sys, time\nopen(sys.argv[1], 'w').close()\n"
        "while not os.path.exists(sys.argv[1] + '.go'):\n    time.sleep(0.02)\n"
    )
    installed = machine.root / "installed"
    build = [*project.counting_builder(counter, 60), ["{python}", "-c", end, str(installed)]]
    project.configure({"api": {"build": build}})
    process = project.start()
    wait_until(counter.exists)
    _lock(project, "two")
    _go_on(counter)
    wait_until(installed.exists)
    _lock(project, "one")
    _go_on(installed)
    assert finished(process).code == 3
    assert machine.snapshots() == []
    project.doit()
    assert "one" in _text(project)


# --------------------------------------------------------------------------- the venv's place


def _made_by_hand(place: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    (place / "precious").write_text("mine")


def test_a_venv_that_somebody_makes_while_we_build_is_kept(project: Project, counter: Path) -> None:
    """As one that was there before would be: beside the place, whole, and it is said."""
    process = project.start()
    wait_until(counter.exists)
    place = project.venv("api")
    _made_by_hand(place)
    before = manifest_of(place)
    _go_on(counter)
    run = finished(process)
    assert run.code == 0, run.text
    assert "before-venvflow" in run.warnings
    assert manifest_of(place.with_name(".venv.before-venvflow")) == before
    assert "one" in _text(project)


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_to_the_place_while_we_build_is_left_alone(
    machine: Machine, project: Project, counter: Path, kind: str
) -> None:
    """Whatever it is, it is what the next run would have refused too: exit code 6."""
    process = project.start()
    wait_until(counter.exists)
    place = project.venv("api")
    if kind == "file":
        place.write_text("mine")
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind == "symlink":
        (machine.root / "elsewhere").mkdir()
        place.symlink_to(machine.root / "elsewhere")
    else:
        place.mkdir()
        (place / "thesis.txt").write_text("mine")
    _go_on(counter)
    run = finished(process)
    assert run.code == 6, run.text
    _says(run, str(place))
    assert sorted(os.listdir(place.parent)) == [".venv", "requirements.txt"]
    assert stat.S_IFMT(os.lstat(place).st_mode) == KINDS[kind]
    if kind == "stranger":
        assert [path.name for path in place.iterdir()] == ["thesis.txt"]
    assert machine.snapshots() == []


@pytest.mark.parametrize("how", ["added", "edited"])
def test_work_that_comes_into_the_old_venv_while_we_build_is_not_lost(
    project: Project, counter: Path, how: str
) -> None:
    """It was untouched when the build began, and is somebody's now: exit code 6, until they decide."""
    _go_on(counter)
    project.doit()
    _wait_again(counter)
    _lock(project, "two")
    process = project.start()
    wait_until(lambda: _builds(counter) == 2)
    precious = project.site("api") / ("precious.py" if how == "added" else "gamma.py")
    precious.with_suffix(".new").write_text("MINE = True\n")
    os.replace(precious.with_suffix(".new"), precious)
    _go_on(counter)
    run = finished(process)
    assert run.code == 6, run.text
    _says(run, "changed by hand", precious.name)
    assert precious.read_text() == "MINE = True\n"
    _says(project.doit(code=6), "changed by hand")
    shutil.rmtree(project.venv("api"))
    project.doit()
    assert "two" in _text(project)


def test_work_that_comes_into_the_old_venv_while_we_restore_is_not_lost(machine: Machine) -> None:
    """The venv's check takes its time, too: what comes in the meantime is looked for after it."""
    project = machine.project("p", {"api": {}})
    for name in ("alpha", "beta"):
        project.lock("api", machine.wheel(name))
        project.doit()
    precious = project.site("api") / "precious.py"
    write = ["-c", f"open({str(precious)!r}, 'w').write('mine')"]
    project.configure({"api": {"check": write}})
    project.lock("api", machine.wheel("alpha"))
    _says(project.doit(code=6), "changed by hand", "precious.py")
    assert precious.read_text() == "mine"
    assert project.output("api", "beta") == "1.0"


# --------------------------------------------------------------------------- other runs


def test_two_configs_that_name_one_place_do_not_delete_each_others_work(
    machine: Machine, project: Project, counter: Path
) -> None:
    """One for the whole repository, one in the service: the second run waits, or ends with words."""
    inner = Project(machine, project.root / "api")
    (inner.root / "dodo.py").write_text(DODO)
    entry = {"path": ".venv", "locks": ["requirements.txt"], "build": project.counting_builder(counter, 60)}
    inner.configure({"self": entry})
    first = project.start()
    wait_until(counter.exists)
    second = inner.start(env={"VENVFLOW_LOCK_TIMEOUT": "20"})
    time.sleep(1)
    _go_on(counter)
    runs = [finished(first), finished(second)]
    assert runs[0].code == 0, runs[0].text
    assert runs[1].code in (0, 5, 6), runs[1].text
    assert all("Traceback" not in run.text for run in runs)
    assert "one" in _text(project)
    assert not list(inner.root.glob(".vf-*"))


def test_notes_that_are_deleted_during_a_build_do_not_let_another_run_delete_it(
    machine: Machine, project: Project, counter: Path
) -> None:
    """``git clean -fdx`` takes ``.venvflow/`` with the venv's lock: the builder's directory stays its own."""
    first = project.start()
    wait_until(counter.exists)
    shutil.rmtree(project.root / ".venvflow")
    second = project.start(env={"VENVFLOW_LOCK_TIMEOUT": "20"})
    time.sleep(1)
    staging = Path(counter.read_text().splitlines()[0]).parent
    assert staging.is_dir()
    _go_on(counter)
    runs = [finished(first), finished(second)]
    assert all("Traceback" not in run.text for run in runs)
    assert runs[1].code in (0, 5), runs[1].text
    assert "meanwhile" not in runs[0].err
    project.doit()
    assert "one" in _text(project)
    assert project.doit().nothing_to_do


def test_a_claim_is_given_back_when_squish_fails(machine: Machine, counter: Path) -> None:
    """Another run builds the venv at once, while the one that failed goes on with its next venv."""
    one, two = (_waiting(machine, name, counter, ("a", "b")) for name in ("one", "two"))
    (one.root / "dodo.py").write_text(
        "import venvflow.steps.squish as squish\n"
        "from venvflow.errors import EnvironmentFailure\n"
        "def share(job, *words, **more):\n"
        "    raise EnvironmentFailure('out of order', where=job.spec.name)\n"
        f"squish.share = share\n{DODO}"
    )
    _go_on(counter)
    for project in (one, two):  # only b waits
        build = project.counting_builder(counter)
        slow = project.counting_builder(machine.root / "slow", 60)
        project.configure({"a": {"build": build}, "b": {"build": slow}})
    process = one.start()
    wait_until((machine.root / "slow").exists)
    run = two.doit("*:a", code=None, timeout=30, env={"VENVFLOW_LOCK_TIMEOUT": "5"})
    assert process.poll() is None
    assert run.code == 0, run.text
    assert run.did["store:a"].startswith("stored")
    _go_on(machine.root / "slow")
    failed = finished(process)
    assert failed.code == 3
    _says(failed, "out of order")


def test_a_claim_is_not_kept_by_a_run_that_will_not_store(machine: Machine, counter: Path) -> None:
    """``doit build-venv`` builds one venv after the other; what it has built, others need not wait for."""
    slow = machine.root / "slow"
    one, two = (_waiting(machine, name, counter, ("a", "b")) for name in ("one", "two"))
    for project in (one, two):
        quick = project.counting_builder(counter)
        project.configure({"a": {"build": quick}, "b": {"build": project.counting_builder(slow, 60)}})
    process = one.start("build-venv")
    wait_until(slow.exists)
    run = two.doit("build-venv:a", code=None, timeout=30, env={"VENVFLOW_LOCK_TIMEOUT": "3"})
    assert process.poll() is None
    _go_on(slow)
    assert run.code == 0, run.text
    assert finished(process).code == 0


def test_the_failure_of_one_venv_does_not_fail_another_one_that_waits(
    machine: Machine, counter: Path
) -> None:
    """Waiting for a claim publishes what is held; where that cannot be, its own task will say so."""
    other = _waiting(machine, "other", counter, ("b",))
    project = machine.project("p", {})
    slow, quick = project.counting_builder(counter, 60), project.counting_builder(machine.root / "quick")
    project.configure({"a": {"build": quick}, "b": {"build": slow}})
    for venv in ("a", "b"):
        (project.root / venv).mkdir()
        _lock(project, "one", venv)
    (project.root / "dodo.py").write_text(
        "import venvflow.steps.build_venv as build\n"
        "from venvflow.errors import Refused\n"
        "def refuse(job):\n    raise Refused('not now', where=job.spec.name)\n"
        f"build._finish_other = refuse\n{DODO}"
    )
    holder = other.start()
    wait_until(counter.exists)
    waiting = project.start("build-venv")
    wait_until(lambda: project.venv("a").exists())
    time.sleep(0.5)  # it waits for b now
    _go_on(counter)
    assert finished(holder).code == 0
    run = finished(waiting)
    assert run.code == 0, run.text
    assert run.did["build-venv:b"].startswith("hit")


def test_trim_is_put_off_while_somebody_else_uses_the_store(machine: Machine) -> None:
    """Housekeeping is no reason to hold up or fail a run that made every venv; the next run trims."""
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"))
    project.doit("store")
    hold = (
        "import sys, time, venvflow.disk.locks as locks\n"
        "with locks.shared(sys.argv[1], timeout=5, what='the store'):\n"
        "    print('held', flush=True)\n    time.sleep(60)\n"
    )
    words = [sys.executable, "-c", hold, str(machine.store / "locks" / "store")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        run = project.doit()
        asked = project.doit("trim", env={"VENVFLOW_LOCK_TIMEOUT": "2.1"})
        holder.kill()
    assert run.nothing_to_do, run.text
    assert "waiting" not in run.text
    assert asked.did["trim"].startswith("put off"), asked.text
    assert "waiting for the store" in asked.err
    assert "Traceback" not in run.text + asked.text
    assert not (machine.store / "trim.json").exists()
    project.doit()
    assert (machine.store / "trim.json").exists()
    assert project.doit().nothing_to_do


# --------------------------------------------------------------------------- kills


def _dies_at(project: Project, target: str, *, after: bool = False) -> None:
    """Let the next runs of *project* die, as by a kill, when *target* (module:function) is called.

    *after*: when it is done.
    """
    module, name = target.split(":")
    call = "real(*words, **more); " if after else ""
    (project.root / "dodo.py").write_text(
        f"import os\nimport {module} as module\nreal = module.{name}\n"
        f"def die(*words, **more):\n    {call}os._exit(9)\n"
        f"module.{name} = die\n{DODO}"
    )


def _lives(project: Project) -> None:
    (project.root / "dodo.py").write_text(DODO)


def test_a_run_that_is_killed_before_the_swap_does_not_make_the_old_venv_a_changed_one(
    machine: Machine,
) -> None:
    """What was noted of the new venv is never compared with the old one, which was not squished yet."""
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"))
    project.doit("build-venv:api")
    project.lock("api", machine.wheel("alpha"), machine.wheel("beta"))
    _dies_at(project, "venvflow.steps.build_venv:put_in_place")
    project.doit(code=9)
    _lives(project)
    run = project.doit()
    assert "changed by hand" not in run.text
    assert project.output("api", "beta") == "1.0"
    assert project.doit().nothing_to_do


def _trim_elsewhere(machine: Machine) -> None:
    """Drop every snapshot and let another project sweep the store."""
    for snapshot in (machine.store / "snapshots").glob("*.json"):
        snapshot.unlink()
    other = machine.project("sweeper", {"api": {}})
    other.lock("api", machine.wheel("delta"))
    other.doit()


def test_a_restored_venv_of_symlinks_is_safe_from_trim_from_its_first_moment(machine: Machine) -> None:
    """A run that is killed just after the swap has already told the store what the venv needs."""
    settings = {"durability": "none", "link": ["symlink"]}
    first = machine.project("first", {"api": {}}, store=settings)
    first.lock("api", machine.wheel("alpha"))
    first.doit()
    shutil.rmtree(first.root)
    for registration in (machine.store / "venvs").glob("*.json"):
        registration.unlink()  # with what the first project keeps alive
    project = machine.project("p", {"api": {}}, store=settings)
    project.lock("api", machine.wheel("alpha"))
    _dies_at(project, "venvflow.steps.restore:put_in_place", after=True)
    project.doit(code=9)
    _trim_elsewhere(machine)
    assert project.output("api", "alpha") == "1.0"
    _lives(project)
    project.doit()
    assert project.output("api", "alpha") == "1.0"
    assert project.doit().nothing_to_do


ONE_LINK_TOO_MANY = """\
import errno, os
from venvflow.disk.links import Linker
real = Linker._hardlink
def hardlink(self, source, name, fd):
    if b"The distribution alpha" in open(source, "rb").read():
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
    return real(self, source, name, fd)
Linker._hardlink = hardlink
link = os.link
def refusing(source, name, **where):
    if name == "alpha.py":
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
    link(source, name, **where)
os.link = refusing
"""


@pytest.mark.parametrize("how", ["squished", "restored"])
def test_one_symlink_among_hard_links_is_enough_to_keep_the_objects(machine: Machine, how: str) -> None:
    """A file with too many links becomes a symlink; what it leads to is not swept."""
    settings = {"durability": "none", "link": ["hardlink", "symlink"]}
    project = machine.project("p", {"api": {}}, store=settings)
    project.lock("api", machine.wheel("alpha"))
    if how == "restored":
        project.doit()
        shutil.rmtree(project.venv("api"))
    (project.root / "dodo.py").write_text(ONE_LINK_TOO_MANY + DODO)
    project.doit()
    module = project.site("api") / "alpha.py"
    assert module.is_symlink()
    assert not (project.site("api") / "alpha-1.0.dist-info" / "METADATA").is_symlink()
    _trim_elsewhere(machine)
    assert module.exists()
    (registered,) = [
        note
        for note in map(json.loads, (path.read_text() for path in (machine.store / "venvs").glob("*.json")))
        if note["path"] == str(project.venv("api"))
    ]
    assert registered["link"] == "symlink"


def test_a_squished_venv_of_symlinks_is_safe_from_trim_from_its_first_link(machine: Machine) -> None:
    """A run that is killed when the names have become symlinks has told the store before it began."""
    project = machine.project("p", {"api": {}}, store={"durability": "none", "link": ["symlink"]})
    project.lock("api", machine.wheel("alpha"))
    _dies_at(project, "venvflow.steps.share:shared_receipt")
    project.doit(code=9)
    _lives(project)
    assert (project.site("api") / "alpha.py").is_symlink()

    _trim_elsewhere(machine)

    assert project.output("api", "python", "-c", "import alpha; print(alpha.VERSION)") == "1.0"
