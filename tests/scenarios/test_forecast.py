"""What ``explain`` foretells is what ``doit`` then does, task by task, whatever happened before."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scenario import BESIDE, Machine, Project

VENVFLOW = os.path.join(BESIDE, "venvflow")
WEB: dict[str, Any] = {"web": {}}
PACKED: dict[str, Any] = {"pack": {"output": "dist/", "format": "tar"}}


@pytest.fixture
def project(machine: Machine) -> Project:
    """Give a project whose two venvs are made, one of them packed."""
    project = machine.project("p", {"api": PACKED, **WEB})
    project.lock("api", machine.wheel("alpha"), machine.wheel("beta"))
    project.lock("web", machine.wheel("alpha"))
    project.doit()
    return project


def looks(root: Path) -> set[str]:
    """Return everything below *root* with sizes and times."""
    return {f"{path} {path.lstat().st_mtime_ns} {path.lstat().st_size}" for path in root.rglob("*")}


def told(project: Project, venv: str = "api") -> dict[str, dict[str, Any]]:
    """Return what explain says that each task would do, after seeing that saying it moved nothing."""
    assert project.machine.environ  # makes the home directory
    before = looks(project.machine.root)
    run = project.run([VENVFLOW, "explain", venv, "--json"])
    assert (run.code, run.err) == (0, "")
    assert looks(project.machine.root) == before
    tasks = json.loads(run.out)["tasks"]
    assert len(tasks) == 7
    return {each["task"]: each for each in tasks}


def agree(project: Project, *, code: int = 0) -> dict[str, str]:
    """Return what doit did to ``api`` and ``trim``, after seeing that it is what was foretold.

    What was not certain is left out.
    """
    foretold = {task: each for task, each in told(project).items() if each["certain"]}
    did = project.doit(code=code).did
    done = {task: words.split()[0].rstrip(":,") for task, words in did.items() if task in foretold}
    expected = {task: each["did"] for task, each in foretold.items() if each["would"] == "run"}
    expected |= {task: "failed" for task, each in foretold.items() if each["would"] == "fail"}
    assert done == expected
    return done


def change_lock(project: Project) -> None:
    """Ask for another version."""
    project.lock("api", project.machine.wheel("alpha", "2.0"), project.machine.wheel("beta"))


def rephrase_lock(project: Project) -> None:
    """Change what the lock says, but not what is installed."""
    lock = project.root / "api" / "requirements.txt"
    lock.write_text(f"{lock.read_text()}--no-binary other\n")


def comment_lock(project: Project) -> None:
    """Change the lock, but not what it says."""
    lock = project.root / "api" / "requirements.txt"
    lock.write_text(f"{lock.read_text()}# more\n")


def delete_venv(project: Project) -> None:
    """Delete the venv."""
    shutil.rmtree(project.venv("api"))


def delete_half(project: Project) -> None:
    """Delete the packages and leave the rest."""
    shutil.rmtree(project.site("api"))


def delete_interpreter(project: Project) -> None:
    """Delete what the venv is run by."""
    for python in (project.venv("api") / "bin").glob("python*"):
        python.unlink()


def change_by_hand(project: Project) -> None:
    """Add a file."""
    (project.site("api") / "mine.py").write_text("MINE = 1\n")


def edit_in_place(project: Project) -> None:
    """Write through a hard link; no directory moves."""
    module = project.site("api") / "beta.py"
    module.chmod(0o644)
    module.write_text("def main(): print('mine')\n")


def touch(project: Project) -> None:
    """Give a file another time."""
    os.utime(project.site("api") / "beta.py")


def exclude_more(project: Project) -> None:
    """Change what the key depends on in the config."""
    project.configure({"api": {**PACKED, "exclude": ["**/nothing/"]}, **WEB})


def change_link(project: Project) -> None:
    """Change what the key does not depend on, and the venv does."""
    project.configure({"api": {**PACKED, "squish": {"link": ["copy"]}, "pin": True}, **WEB})


def add_check(project: Project) -> None:
    """Ask for a check that the venv passes."""
    project.configure({"api": {**PACKED, "check": ["-c", "import alpha"]}, **WEB})


def move_venv(project: Project) -> None:
    """Give the venv another place."""
    project.configure({"api": {**PACKED, "path": "elsewhere/.venv"}, **WEB})


def pack_otherwise(project: Project) -> None:
    """Change an option of the archive."""
    project.configure({"api": {"pack": {"output": "dist/", "format": "zip"}}, **WEB})


def delete_archive(project: Project) -> None:
    """Delete the archive."""
    (project.root / "dist" / "api.tar").unlink()


def delete_store(project: Project) -> None:
    """Delete the whole store; the venvs hold their files by hard links."""
    shutil.rmtree(project.machine.store)


def delete_snapshots(project: Project) -> None:
    """Delete the snapshots only."""
    for file in (project.machine.store / "snapshots").iterdir():
        file.unlink()


def delete_state(project: Project) -> None:
    """Delete what the tasks noted, doit's own state too."""
    shutil.rmtree(project.root / ".venvflow")


def delete_doits_state(project: Project) -> None:
    """Delete doit's own state only."""
    for file in (project.root / ".venvflow").glob("state.db*"):
        file.unlink()


def change_policy(project: Project) -> None:
    """Change what trim keeps."""
    project.configure({"api": PACKED, **WEB}, trim={"keep": 7})


def never_restore(project: Project) -> None:
    """Forbid restoring, and delete the venv."""
    project.configure({"api": {**PACKED, "restore": False}, **WEB})
    delete_venv(project)


def put_a_stranger_there(project: Project) -> None:
    """Put something there that is no venv."""
    delete_venv(project)
    project.venv("api").mkdir()
    (project.venv("api") / "precious").write_text("mine")


def change_by_hand_and_lock(project: Project) -> None:
    """Add a file, and ask for another version."""
    change_by_hand(project)
    change_lock(project)


def change_by_hand_and_delete_store(project: Project) -> None:
    """Add a file, and delete the store, which then cannot be filled from the venv."""
    change_by_hand(project)
    delete_store(project)


def lose_snapshot_and_venv(project: Project) -> None:
    """Delete snapshots and venv: it must be built, and the other venv be stored again."""
    delete_snapshots(project)
    delete_venv(project)


CHAIN = {
    "restore:api": "miss", "build-venv:api": "built", "squish:api": "squished", "store:api": "stored",
}  # fmt: skip
NEW = {"hash-lockfiles:api": "new"}
HIT = {"restore:api": "hit"}
PACK = {"pack:api": "packed"}


OFTEN = {change_lock, comment_lock, delete_venv, change_by_hand, edit_in_place, delete_archive, delete_store}
"""What ``make test`` tries: explain and doit ask the same plan, so it is the facts that could differ."""


def _often_first(*cases: tuple[Callable[[Project], None], dict[str, str]]) -> list[Any]:
    return [
        pytest.param(*case, marks=[] if case[0] in OFTEN else [pytest.mark.long], id=case[0].__name__)
        for case in cases
    ]


@pytest.mark.parametrize(
    ("happens", "done"),
    _often_first(
        (change_lock, {**NEW, **CHAIN, **PACK}),
        (rephrase_lock, {**NEW, **CHAIN, **PACK}),
        (comment_lock, {"hash-lockfiles:api": "unaffected"}),
        (delete_venv, HIT),
        (delete_half, HIT),
        (delete_interpreter, HIT),
        (change_by_hand, {}),
        (edit_in_place, {}),
        (touch, {}),
        (exclude_more, {**NEW, **CHAIN, **PACK}),
        (change_link, {"squish:api": "squished"}),
        (add_check, {}),
        (move_venv, HIT),
        (pack_otherwise, PACK),
        (delete_archive, PACK),
        (delete_store, {"store:api": "stored"}),
        (delete_snapshots, {"store:api": "stored"}),
        (delete_state, {**NEW, **PACK}),
        (delete_doits_state, {}),
        (change_policy, {}),
        (lose_snapshot_and_venv, CHAIN),
    ),
)
def test_what_is_foretold_is_done(
    happens: Callable[[Project], None], done: dict[str, str], project: Project
) -> None:
    """Each task that would do something does just that, and no other; afterwards there is nothing to do."""
    happens(project)
    assert agree(project) == done
    assert {each["would"] for each in told(project).values()} == {"nothing"}


def test_a_lock_changed_back_is_a_hit(project: Project) -> None:
    """The archive is of the other venv by then, and is made again."""
    lock = project.root / "api" / "requirements.txt"
    text = lock.read_text()
    change_lock(project)
    agree(project)
    lock.write_text(text)
    assert agree(project) == {**NEW, **HIT, **PACK}
    rephrase_lock(project)
    agree(project)
    lock.write_text(text)
    assert agree(project) == {**NEW, **HIT, **PACK}


def test_what_another_venv_is_built_for_is_a_hit(machine: Machine) -> None:
    """Of two with one key the first is built, and the second restored; the first knows of no other."""
    project = machine.project("p", {"api": {}, "web": {}})
    for venv in ("api", "web"):
        project.lock(venv, machine.wheel("alpha"))
    web, api = told(project, "web"), told(project, "api")
    assert (web["restore:web"]["did"], api["restore:api"]["did"]) == ("hit", "miss")
    assert web["restore:web"]["reason"].endswith("store:api adds a snapshot for the key")
    assert {web[task]["would"] for task in ("build-venv:web", "squish:web", "store:web")} == {"nothing"}
    did = project.doit().did
    assert did["restore:web"].startswith("hit")
    assert not did.keys() & {"build-venv:web", "squish:web", "store:web"}
    delete_snapshots(project)
    assert told(project, "web")["store:web"]["reason"] == "store:api adds the snapshot"
    assert set(project.doit().did) == {"store:api"}


def test_nothing_is_restored_where_the_config_forbids_it(project: Project) -> None:
    """What is built then is in the store already; whether its archive is another one, nobody can know."""
    never_restore(project)
    foretold = told(project)
    assert (foretold["restore:api"]["did"], foretold["pack:api"]["certain"]) == ("miss", False)
    assert set(agree(project)) == {"restore:api", "build-venv:api", "squish:api"}


@pytest.mark.parametrize(
    ("happens", "failing"),
    [
        (put_a_stranger_there, "restore:api"),
        (change_by_hand_and_lock, "build-venv:api"),
        (change_by_hand_and_delete_store, "store:api"),
    ],
)
def test_a_refusal_is_foretold(happens: Callable[[Project], None], failing: str, project: Project) -> None:
    """Something would be lost: the task that refuses is named, and what comes after it is not run."""
    happens(project)
    foretold = told(project)
    assert foretold[failing]["would"] == "fail"
    tasks = list(foretold)
    assert {foretold[task]["would"] for task in tasks[tasks.index(failing) + 1 :]} <= {"not run"}
    assert agree(project, code=6)[failing] == "failed"


def test_an_interpreter_that_is_gone_is_foretold(machine: Machine) -> None:
    """What stands for it there matters no more than that; when the key is to be made, it does."""
    python = machine.root / "pythons" / "python3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {os.path.realpath(os.path.join(BESIDE, "python3"))} "$@"\n')
    python.chmod(0o755)
    project = machine.project("p", {"api": {"python": str(python)}})
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    python.unlink()
    assert agree(project) == {}
    project.lock("api", machine.wheel("beta"))
    assert agree(project, code=3) == {"hash-lockfiles:api": "failed"}


def test_the_first_run_is_foretold(machine: Machine) -> None:
    """Without a store, without a state, without a venv."""
    project = machine.project("p", {"api": PACKED})
    project.lock("api", machine.wheel("alpha"))
    assert agree(project) == {**NEW, **CHAIN, **PACK}


def test_a_broken_lock_is_foretold(project: Project) -> None:
    """The venv has no key then; the last one is still explained."""
    lock = project.root / "api" / "requirements.txt"
    lock.unlink()
    lock.mkdir()
    assert told(project)["hash-lockfiles:api"]["would"] == "fail"
    assert agree(project, code=2) == {"hash-lockfiles:api": "failed"}


def test_a_venv_of_another_tool_is_foretold(machine: Machine) -> None:
    """It is kept beside, and the new one is built; and so is a second one, beside what is restored."""
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"))
    make = [os.path.join(BESIDE, "python"), "-m", "venv", "--without-pip", str(project.venv("api"))]
    assert project.run(make).code == 0
    assert agree(project)["build-venv:api"] == "built"
    shutil.rmtree(project.venv("api"))
    assert project.run(make).code == 0
    assert agree(project)["restore:api"] == "hit"
