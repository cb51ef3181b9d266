"""Each step as a function: what it answers, when it refuses, and what it leaves behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import pytest
from contents import picture
from flows import World
from tiers import first_quick
from wheels import make_project

from venvflow.disk import bytecode
from venvflow.disk.places import RECEIPT, Place
from venvflow.errors import BuildFailed, EnvironmentFailure, Refused, UsageError, VenvflowError
from venvflow.model import Interpreter, Receipt
from venvflow.state.carried import Built
from venvflow.state.changes import Drift
from venvflow.state.intake import Intake, Precompiled, Taken
from venvflow.state.relink import Relinker
from venvflow.state.store import Store
from venvflow.state.survey import Survey
from venvflow.steps.build_venv import _pass_on, build_venv
from venvflow.steps.clean import clean
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.key_inputs import files_of
from venvflow.steps.pack import pack
from venvflow.steps.restore import restore
from venvflow.steps.squish import squish
from venvflow.steps.state_files import read_key
from venvflow.steps.store import store
from venvflow.steps.trim import trim


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of the wheels of this module."""
    return tmp_path_factory.mktemp("house")


@pytest.fixture
def world(tmp_path: Path, house: Path) -> World:
    """Give a project with one venv, nothing done."""
    world = World(tmp_path, house)
    world.configure({"api": {}})
    world.lock("api", world.wheel("alpha"))
    return world


@pytest.fixture
def done(world: World) -> World:
    """Give a project whose venv is built, shared and published."""
    world.run()
    return world


# --------------------------------------------------------------------------- hash-lockfiles


def test_hashing_says_whether_the_key_is_new(world: World) -> None:
    """The first time, and after a change."""
    assert hash_lockfiles(world.job()).did == "new"
    assert hash_lockfiles(world.job()).did == "same"
    world.lock("api", world.wheel("beta"))
    assert hash_lockfiles(world.job()).did == "new"


def _digest(world: World, **environ: str) -> str:
    job = world.job(**environ)
    hash_lockfiles(job)
    document: dict[str, Any] = json.loads(Path(job.file("key.json")).read_text())
    return str(document["digest"])


@pytest.mark.parametrize(
    "venv",
    [
        {"exclude": ["**/x"]}, {"bytecode": "none"}, {"build": "pip"}, {"key": {"files": ["more.txt"]}},
        {"key": {"env": ["FLAVOUR"]}}, {"locks": ["api/requirements.txt", "more.txt"]},
        {"build": [["{uv}", "venv", "{venv}"]]}, {"prompt": "x"}, {"system_site_packages": True},
        {"editable": ["local"]},
    ],
    ids=str,
)  # fmt: skip
def test_what_decides_the_content_is_in_the_key(world: World, venv: dict[str, Any]) -> None:
    """Every one of these settings makes another key."""
    (world.root / "more.txt").write_text("# more\n")
    make_project(world.root / "local", "local")
    before = _digest(world)
    world.configure({"api": venv})
    assert _digest(world) != before


def test_what_decides_the_metadata_of_an_editable_project_is_in_the_key(world: World) -> None:
    """Its dependencies may be others then, and its commands."""
    make_project(world.root, "local")
    world.configure({"api": {"editable": ["."]}})
    before = _digest(world)
    make_project(world.root, "local", source="CHANGED = 1\n")
    assert _digest(world) == before
    make_project(world.root, "local", version="2")
    assert _digest(world) != before


@pytest.mark.parametrize(
    ("lock", "text", "choice"),
    [
        ("pdm.lock", '[metadata]\ngroups = ["A_b", "pg"]\n', {"groups": ["a-b"], "extras": ["pgs"]}),
        ("Pipfile.lock", '{"_meta": {}, "default": {}, "pg": {}}', {"groups": ["pgs"]}),
    ],
)
def test_a_group_that_the_lock_file_does_not_have_is_named(
    world: World, lock: str, text: str, choice: dict[str, Any]
) -> None:
    """The tools themselves would install the rest, and say nothing."""
    for name, content in ((lock, text), ("pyproject.toml", ""), ("Pipfile", "")):
        (world.root / "api" / name).write_text(content)
    world.configure({"api": {"locks": [f"api/{lock}"], **choice}})
    with pytest.raises(UsageError, match=rf"{lock} has no group 'pgs'.*Did you mean pg\?"):
        hash_lockfiles(world.job())
    world.configure({"api": {"locks": [f"api/{lock}"], "groups": ["pg"]}})
    assert hash_lockfiles(world.job()).did == "new"


@pytest.mark.parametrize(
    "venv",
    [
        {"path": "elsewhere/venv"}, {"check": ["-c", ""]}, {"pin": True}, {"restore": False},
        {"squish": {"link": ["copy"], "min_size": 100}}, {"pack": {"output": "dist/"}},
        {"locks": ["moved/requirements.txt"]},
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_decide_the_content_is_not_in_the_key(world: World, venv: dict[str, Any]) -> None:
    """Places, links, checks and archives leave the key as it is."""
    shutil.copytree(world.root / "api", world.root / "moved")
    before = _digest(world)
    world.configure({"api": venv})
    assert _digest(world) == before


def test_a_script_that_a_build_runs_is_in_the_key_and_found_by_explain(world: World) -> None:
    """Edited, it makes another key; it is read once, and what nobody can see is warned of once."""
    (world.root / "scripts").mkdir()
    script = world.root / "scripts/build.sh"
    script.write_text("exit 1\n")
    (world.root / "Makefile").write_text("env:\n")
    build = [["bash", "scripts/build.sh", "{venv}", "api/requirements.txt"], ["make", "env"]]
    world.configure({"api": {"build": build}})
    outcome = hash_lockfiles(world.job())
    (warning,) = outcome.warnings
    assert warning.startswith("build: names make: ")
    assert "key: {files: " in warning
    record = read_key(world.job())
    assert record is not None
    assert sorted(files_of(world.job(), record)) == [
        "file:Makefile",
        "file:build.sh",
        "lock:requirements.txt",
    ]
    before = record.key.digest
    for text in ("exit 2\n", "exit 3\n"):
        assert hash_lockfiles(world.job()).did == "same"
        script.write_text(text)
        outcome = hash_lockfiles(world.job())
        assert (outcome.did, outcome.reason == before[:12]) == ("new", False)
    script.write_text("exit 1\n")
    assert _digest(world) == before
    world.configure({"api": {"build": build, "key": {"files": ["Makefile"]}}})
    assert hash_lockfiles(world.job()).warnings == ()


def test_a_script_that_comes_later_is_in_the_key_from_then_on(world: World) -> None:
    """The key was made without it, and does not hold any more."""
    world.configure({"api": {"build": [["bash", "later.sh"]]}})
    before = _digest(world)
    (world.root / "later.sh").write_text("exit 0\n")
    assert _digest(world) != before


def test_a_file_is_in_the_key_once_whatever_it_is_there_for(world: World) -> None:
    """The manifest beside a lock of uv is also that of the local project in it, and may be listed as well."""
    (world.root / "api").mkdir(exist_ok=True)
    (world.root / "api/pyproject.toml").write_text("[project]\nname = 'api'\nversion = '1'\n")
    (world.root / "api/uv.lock").write_text(
        'version = 1\n[[package]]\nname = "api"\nversion = "1"\nsource = { editable = "." }\n'
    )
    files = ["api/pyproject.toml", "api/uv.lock"]
    world.configure({"api": {"locks": ["api/uv.lock"], "build": "uv", "key": {"files": files}}})
    job = world.job()
    hash_lockfiles(job)
    record = read_key(job)
    assert record is not None
    named = [part for part in record.key.parts if ":" in part]
    assert named == ["local:pyproject.toml", "lock:uv.lock"]


def test_a_value_of_a_listed_variable_is_in_the_key_as_a_hash(world: World) -> None:
    """Another value is another key, and the value itself is written nowhere."""
    world.configure({"api": {"key": {"env": ["FLAVOUR"]}}})
    assert _digest(world, FLAVOUR="sweet-canary") != _digest(world, FLAVOUR="sour")
    assert _digest(world, OTHER="1") == _digest(world, OTHER="2")
    _digest(world, FLAVOUR="sweet-canary")
    assert "canary" not in (world.root / ".venvflow" / "api" / "key.json").read_text()


def test_a_file_in_the_place_of_the_steps_notes_is_named_and_left(world: World) -> None:
    """Who moves it away, as the message says, has a run that works."""
    place = world.root / ".venvflow" / "api"
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(exist_ok=True)
    place.write_text("somebody's")
    with pytest.raises(EnvironmentFailure, match=r"api is not a directory.*Move that away"):
        hash_lockfiles(world.job())
    assert place.read_text() == "somebody's"
    place.unlink()
    assert hash_lockfiles(world.job()).did == "new"


def test_a_lock_that_cannot_be_read_names_venv_file_and_reason(world: World) -> None:
    """The four parts of a message."""
    job = world.job()
    (world.root / "api" / "requirements.txt").unlink()
    (world.root / "api" / "requirements.txt").mkdir()
    with pytest.raises(EnvironmentFailure, match="it is a directory") as caught:
        hash_lockfiles(job)
    assert caught.value.where == "api"
    assert caught.value.state
    assert caught.value.hint


@pytest.mark.parametrize("step", [restore, build_venv, squish, store])
def test_no_step_runs_without_a_key(world: World, step: Any) -> None:
    """Each says which task to run first."""
    with pytest.raises(EnvironmentFailure, match="hash-lockfiles:api"):
        step(world.job())


# --------------------------------------------------------------------------- restore and build


def test_the_chain_answers_miss_built_squished_stored(world: World) -> None:
    """And the second time, that everything is as it should be."""
    first = {name: outcome.did for name, outcome in world.run().items()}
    assert first == {
        "hash_lockfiles": "new", "restore": "miss", "build_venv": "built", "squish": "squished",
        "pack": "none", "store": "stored",
    }  # fmt: skip
    again = {name: outcome.did for name, outcome in world.run().items()}
    assert again == {
        "hash_lockfiles": "same", "restore": "kept", "build_venv": "kept", "squish": "kept",
        "pack": "none", "store": "kept",
    }  # fmt: skip


@pytest.mark.parametrize("process", ["the same", "another"])
def test_what_was_just_shared_is_published_without_being_read_again(world: World, process: str) -> None:
    """Where store is another process than squish, it reads the trees, and the snapshot is the same."""
    world.clock += 1
    job = world.job()
    for step in (hash_lockfiles, restore, build_venv, squish):
        step(job)
    storing = job if process == "the same" else world.job()
    with mock.patch.object(Store, "tree", autospec=True, side_effect=Store.tree) as read:
        assert store(storing).did == "stored"
    assert bool(read.call_count) == (process == "another")
    assert storing.manifests == {}
    shutil.rmtree(world.venv())
    assert restore(job).did == "hit"


def test_a_hit_tells_its_figures(done: World) -> None:
    """Files, bytes, seconds and how they were linked."""
    shutil.rmtree(done.venv())
    outcome = restore(done.job())
    assert outcome.did == "hit"
    assert {"files", "bytes", "seconds", "link"} <= set(outcome.figures)


def test_restore_reports_and_keeps_what_was_added_by_hand(done: World) -> None:
    """A warning that names it; the file stays."""
    mine = done.module("alpha").with_name("mine.py")
    mine.write_text("X = 1\n")
    outcome = restore(done.job())
    assert (outcome.did, outcome.reason) == ("kept", "changed by hand")
    assert "mine.py" in outcome.warnings[0]
    assert mine.exists()


def test_only_force_replaces_a_venv_that_was_changed_by_hand(done: World) -> None:
    """Refused with 6 otherwise, also when another key is asked for."""
    mine = done.module("alpha").with_name("mine.py")
    mine.write_text("X = 1\n")
    first = (done.root / "api" / "requirements.txt").read_bytes()
    done.lock("api", done.wheel("beta"))
    job = done.job()
    hash_lockfiles(job)
    with pytest.raises(Refused, match=r"mine\.py"):
        build_venv(job)
    assert mine.exists()
    (done.root / "api" / "requirements.txt").write_bytes(first)
    hash_lockfiles(job)
    assert restore(done.flow().job("api", force=True)).did == "hit"
    assert not mine.exists()


def test_a_failed_build_tells_its_log_and_last_lines(world: World) -> None:
    """Exit code 4; the venv that was there is as it was."""
    world.run()
    before = done_files(world.venv())
    world.configure({"api": {"build": [["sh", "-c", "echo first; echo last words >&2; exit 7"]]}})
    job = world.job()
    hash_lockfiles(job)
    with pytest.raises(BuildFailed, match="exit status 7") as caught:
        build_venv(job)
    assert "last words" in caught.value.tail
    assert "first" in Path(caught.value.log).read_text()
    assert caught.value.exit_code == 4
    assert done_files(world.venv()) == before
    assert sorted(os.listdir(world.root / "api")) == [".venv", "requirements.txt"]


def done_files(venv: Path) -> dict[str, int]:
    """Return the inode of every file of a venv."""
    return {str(path): path.lstat().st_ino for path in venv.rglob("*")}


@pytest.mark.parametrize(
    ("path", "word"), [("alpha.py", "missing: alpha.py"), ("python", "missing: bin/python")]
)
def test_a_damaged_venv_comes_back_and_that_is_told(done: World, path: str, word: str) -> None:
    """A hit that nobody asked for would be a riddle."""
    lost = done.module("alpha") if path == "alpha.py" else done.venv() / "bin" / "python"
    lost.unlink()
    outcome = restore(done.job())
    assert outcome.did == "hit"
    assert outcome.warnings == (f"the venv was damaged ({word})",)
    assert lost.exists()
    shutil.rmtree(done.venv())
    assert restore(done.job()).warnings == ()


def test_a_new_check_is_run_in_the_venv_that_is_there(done: World) -> None:
    """Once; where it fails, the venv stays, and the snapshot too."""
    before = done_files(done.venv())
    done.configure({"api": {"check": ["-c", "import alpha, sys; sys.exit(0)"]}})
    assert done.flow().is_due("restore", "api")
    assert restore(done.job()).did == "kept"
    assert not done.flow().is_due("restore", "api")
    assert not done.flow().is_due("build-venv", "api")
    done.configure({"api": {"check": ["-c", "raise SystemExit('not today')"]}})
    for _ in range(2):
        assert done.flow().is_due("restore", "api")
        with pytest.raises(BuildFailed, match="not today") as caught:
            restore(done.job())
    assert "as it is" in caught.value.state
    assert done_files(done.venv()).keys() == before.keys()
    assert len(list((done.store / "snapshots").iterdir())) == 1
    done.configure({"api": {}})
    assert not done.flow().is_due("restore", "api")


def test_a_check_in_place_removes_nothing(done: World) -> None:
    """Somebody may work in the venv: what appears there meanwhile is theirs."""
    code = "import sys; open(sys.prefix + '/theirs', 'w').close()"
    done.configure({"api": {"check": ["-c", code]}})
    restore(done.job())
    assert (done.venv() / "theirs").exists()


def test_a_snapshot_is_put_aside_only_when_a_build_passes_what_it_failed(done: World) -> None:
    """As long as builds fail the check too, it is as likely to be the check that is wrong."""
    snapshots, quarantine = done.store / "snapshots", done.store / "quarantine"
    before = os.listdir(snapshots)
    flag = done.root / "flag"
    code = f"import os, sys; sys.exit('no flag' if not os.path.exists({str(flag)!r}) else 0)"
    done.configure({"api": {"check": ["-c", code]}})
    shutil.rmtree(done.venv())
    job = done.job()
    assert restore(job).did == "miss"
    with pytest.raises(BuildFailed, match="no flag") as caught:
        build_venv(job)
    assert caught.value.state == "There was no venv before, and there is none now."
    assert (os.listdir(snapshots), quarantine.exists()) == (before, False)
    flag.touch()
    assert build_venv(job).did == "built"
    assert (os.listdir(snapshots), os.listdir(quarantine)) == ([], before)
    squish(job)
    assert store(job).did == "stored"


def test_steps_say_how_far_they_are(world: World) -> None:
    """In the venv's meter: the stage, and how many files or bytes of it are done."""
    world.configure({"api": {"pack": {"output": "dist/"}}})
    job = world.job()
    hash_lockfiles(job)
    build_venv(job)
    assert str(job.meter).startswith("reading, ")
    stages: dict[str, list[tuple[int, int]]] = {}

    def count(stage: str, done: int, of: int) -> None:
        stages.setdefault(stage, []).append((done, of))

    with mock.patch.object(job.meter, "count", count):
        squish(job)
    assert list(stages) == ["storing", "linking", "compiling"]  # what was read of the build is known
    assert all(counts[-1][0] == counts[-1][1] > 0 for counts in stages.values())
    assert all(counts == sorted(counts) for counts in stages.values())
    pack(job)
    assert str(job.meter).startswith("100 %, ")
    store(job)
    job.meter.reset()
    shutil.rmtree(world.venv())
    restore(job)
    assert (str(job.meter).endswith(" files"), job.meter.share) == (True, 1)


def test_a_venv_whose_compiler_fails_is_whole_and_is_shared_by_the_next_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files may be links by then: they are given their names while compilers are at work."""
    job = world.job()
    hash_lockfiles(job)
    build_venv(job)
    before = {path: kind[:2] for path, kind in picture(Path(job.place.path)).items() if path != RECEIPT}

    def start(_interpreter: Interpreter, directory: str, _home: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device", directory)

    with monkeypatch.context() as patch:
        patch.setattr(bytecode, "_start", start)
        with pytest.raises(EnvironmentFailure, match="space") as caught:
            squish(job)
    assert "holds what it held" in caught.value.state
    after = {path: kind[:2] for path, kind in picture(Path(job.place.path)).items() if path != RECEIPT}
    assert after == before
    assert (squish(job).did, store(job).did) == ("squished", "stored")


def test_little_is_kept_of_venvs_that_nobody_shares(tmp_path: Path) -> None:
    """What is known of a venv that was built waits for squish, but not for all that a run may build."""
    jobs = [mock.Mock(place=Place(str(tmp_path / str(number))), built={}) for number in range(6)]
    for number, job in enumerate(jobs):
        receipt = Receipt(f"{number:064x}", job.place.path, "built", "built")
        read = Survey(embedding=["x"], naming=["y"])
        _pass_on(job, Built(receipt, None, read, None, Precompiled()))
    assert [len(job.built) for job in jobs] == [0, 0, 1, 1, 1, 1]
    (known,) = jobs[-1].built.values()
    assert (known.survey.embedding, known.survey.naming) == ([], [])


@pytest.mark.parametrize(
    ("link", "early"),
    [(["hardlink"], True), (["copy"], True), (["symlink"], False), (["hardlink", "symlink"], False)],
)
def test_names_become_links_early_but_those_to_a_store_that_has_to_know_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch, link: list[str], early: bool
) -> None:
    """A venv of symlinks needs its objects from then on; one that somebody made, its times in the receipt."""
    world.configure({"api": {"squish": {"link": link}}})
    job = world.job()
    hash_lockfiles(job)
    build_venv(job)
    given: list[bool] = []
    real = Intake.take

    def take(intake: Intake, *surveyed: Any, **how: Any) -> Taken:
        given.append(how["meanwhile"] is not None)
        return real(intake, *surveyed, **how)

    monkeypatch.setattr(Intake, "take", take)
    assert squish(job).did == "squished"
    shutil.rmtree(world.root / ".venvflow")
    os.unlink(f"{job.place.path}/{RECEIPT}")
    hash_lockfiles(job)
    assert squish(job, any_venv=True).did == "squished"
    assert given == [early, False]


def test_a_missing_lock_file_is_the_users_error(done: World) -> None:
    """With the line of the config; what was known of the venv stays."""
    (done.root / "api" / "requirements.txt").unlink()
    key = (done.root / ".venvflow" / "api" / "key.json").read_bytes()
    with pytest.raises(
        UsageError, match=r"venvflow.yaml:1: venvs.api.locks\[0\]: .* does not exist"
    ) as caught:
        hash_lockfiles(done.job())
    assert (caught.value.exit_code, caught.value.where) == (2, "api")
    assert (caught.value.state != "", caught.value.hint != "") == (True, True)
    assert (done.root / ".venvflow" / "api" / "key.json").read_bytes() == key
    assert done.flow().is_due("hash-lockfiles", "api")
    done.configure({"api": {"locks": ["api/zz*.txt"]}})
    assert done.flow().is_due("hash-lockfiles", "api")


def test_many_unpinned_requirements_are_told_in_one_line(world: World) -> None:
    """Three by name, then how many more; of all files, once, when they are new."""
    lock = world.root / "api" / "requirements.txt"
    lock.write_text("a\nb\n-r more.txt\n-r ../../x.txt\n-e ../../y\n")
    (world.root / "api" / "more.txt").write_text("c\nd\ne\n")
    unpinned, outside = hash_lockfiles(world.job()).warnings
    assert unpinned == (
        "5 requirements are not pinned: requirements.txt: a may be any version; requirements.txt: b may be "
        "any version; more.txt: c may be any version and 2 more: lock them, as uv pip compile does"
    )
    assert outside == (
        "requirements.txt: 2 references lead out of the project: ../../x.txt lies outside the project; "
        "../../y lies outside the project: changes there do not change the key"
    )
    again = hash_lockfiles(world.job())
    assert (again.did, again.warnings) == ("same", ())
    lock.write_text("a\n")
    assert hash_lockfiles(world.job()).warnings == ("requirements.txt: a may be any version",)


def test_a_build_whose_check_fails_is_no_venv(world: World) -> None:
    """It is not put in its place, and the message says what the check said."""
    world.configure({"api": {"check": ["-c", "raise SystemExit('not today')"]}})
    job = world.job()
    hash_lockfiles(job)
    with pytest.raises(BuildFailed, match="not today"):
        build_venv(job)
    assert not world.venv().exists()


def test_what_a_check_says_is_told_without_credentials(world: World) -> None:
    """It sees the credentials that a builder sees, and may print anything."""
    code = (
        "import os; raise SystemExit('\\x1b[31m' + os.environ['UV_INDEX_CORP_PASSWORD'] + ' https://a:b@h/')"
    )
    world.configure({"api": {"check": ["-c", code]}})
    job = world.job(UV_INDEX_CORP_PASSWORD="canary-0123")  # noqa: S106 - it opens nothing
    hash_lockfiles(job)
    with pytest.raises(BuildFailed) as caught:
        build_venv(job)
    assert "exit status 1: \\x1b[31m*** https://***@h/" in caught.value.what


def test_who_waits_for_a_build_takes_its_snapshot(world: World) -> None:
    """Two venvs of one key at once: one is built, the other is a hit, whoever comes first."""
    world.configure({"api": {}, "web": {}})
    world.lock("web", world.wheel("alpha"))
    flow = world.flow()
    answers: dict[str, str] = {}

    def make(venv: str) -> None:
        job = flow.job(venv)
        hash_lockfiles(job)
        answers[venv] = build_venv(job).did
        squish(job)
        store(job)

    threads = [threading.Thread(target=make, args=[venv]) for venv in ("api", "web")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers.values()) == ["built", "hit"]


# --------------------------------------------------------------------------- squish and store


def test_squish_shares_inodes_and_a_second_venv_adds_nothing(done: World) -> None:
    """Equal content, one inode; the figures say how much was new."""
    done.configure({"api": {}, "web": {"exclude": ["**/nothing-like-this"]}})
    done.lock("web", done.wheel("alpha"))
    outcome = done.run("web")["squish"]
    assert outcome.did == "squished"
    assert outcome.figures.get("compiled", 0) == 0
    assert done.module("alpha").stat().st_ino == done.module("alpha", "web").stat().st_ino


def test_what_changed_between_build_and_squish_is_not_published(world: World) -> None:
    """Somebody's edit must not reach other venvs through the store."""
    job = world.job()
    hash_lockfiles(job)
    build_venv(job)
    world.module("alpha").with_name("mine.py").write_text("X = 1\n")
    with pytest.raises(Refused, match=r"mine\.py"):
        squish(job)
    assert world.module("mine").exists()
    assert not list((world.store / "snapshots").iterdir())


def test_squish_without_a_venv_says_what_to_run(world: World) -> None:
    """There is nothing to share yet."""
    job = world.job()
    hash_lockfiles(job)
    with pytest.raises(EnvironmentFailure, match="no venv for this key"):
        squish(job)


def test_store_fills_a_store_that_lost_objects_before_it_publishes(world: World) -> None:
    """A snapshot is never there without its objects: what is missing is taken from the venv once more."""
    job = world.job()
    for step in (hash_lockfiles, build_venv, squish):
        step(job)
    lost = {path.name for path in (world.store / "objects").glob("*/*")}
    for path in (world.store / "objects").glob("*/*"):
        path.unlink()
    assert store(job).did == "stored"
    assert {path.name for path in (world.store / "objects").glob("*/*")} == lost
    shutil.rmtree(world.venv())
    assert restore(job).did == "hit"


def test_store_does_not_publish_what_is_no_venv_for_the_key(done: World) -> None:
    """The lock changed, and nothing was built for it yet."""
    done.lock("api", done.wheel("beta"))
    job = done.job()
    hash_lockfiles(job)
    with pytest.raises(EnvironmentFailure, match="no venv for this key"):
        store(job)


def test_a_second_snapshot_of_one_key_is_kept_with_a_warning(world: World) -> None:
    """A builder that is not reproducible is told so, with the first path that differs."""
    text = (
        "import os, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'venv', '--without-pip', sys.argv[1]], check=True)\n"
        "open(sys.argv[1] + '/lib/odd', 'w').write(os.urandom(8).hex())\n"
    )
    world.configure({"api": {"build": [["{python}", "-c", text, "{venv}"]], "restore": False}})
    assert world.run()["store"].did == "stored"
    shutil.rmtree(world.venv())
    outcome = world.run()["store"]
    assert outcome.did == "kept"
    assert "not reproducible" in outcome.warnings[0]
    assert "lib/odd" in outcome.warnings[0]


# --------------------------------------------------------------------------- pack


@pytest.mark.parametrize("name", first_quick(["tar.zst", "tar.gz", "zip"]))
def test_pack_is_repeatable_and_remakes_what_is_gone_or_altered(world: World, name: str) -> None:
    """The same bytes each time, a checksum beside it, and a look by stat the next time."""
    world.configure({"api": {"pack": {"output": "dist/", "format": name}}})
    assert world.run()["pack"].did == "packed"
    archive = world.root / "dist" / f"api.{name}"
    first = archive.read_bytes()
    assert pack(world.job()).did == "kept"
    archive.unlink()
    assert pack(world.job()).did == "packed"
    assert archive.read_bytes() == first
    archive.write_bytes(b"altered")
    assert pack(world.job()).did == "packed"
    assert archive.read_bytes() == first
    check = subprocess.run(
        ["sha256sum", "-c", f"{archive.name}.sha256"], cwd=archive.parent, check=False, capture_output=True
    )
    assert check.returncode == 0, check.stdout


# --------------------------------------------------------------------------- trim


def test_a_dry_run_of_trim_decides_the_same_and_does_nothing(world: World) -> None:
    """Its plan is that of the real run."""
    for version in ("1.0", "2.0", "3.0"):
        world.lock("api", world.wheel("alpha", version))
        world.clock += 10
        world.run()
    world.configure({"api": {}}, trim={"keep": 1, "keep_per_venv": 1})
    config = world.flow().config
    dry = trim(config, {}, now=world.clock, dry_run=True)
    assert dry.swept is None
    assert len(list((world.store / "snapshots").glob("*.json"))) == 3
    real = trim(config, {}, now=world.clock)
    assert [each.id for each in real.plan.drop] == [each.id for each in dry.plan.drop]
    assert len(real.plan.drop) == 2
    assert real.swept is not None
    assert len(list((world.store / "snapshots").glob("*.json"))) == 1
    assert trim(config, {}, now=world.clock).plan.drop == ()


@pytest.mark.parametrize("link", first_quick(["hardlink", "symlink"]))
def test_trim_forgets_no_venv_of_symlinks_though_its_project_is_gone(done: World, link: str) -> None:
    """It may have been moved, and lives by the store alone; one of hard links is whole without it."""
    config = done.flow().config
    with Store(config.store) as opened:
        (there,) = opened.registrations()
        opened.register(replace(there, project=str(done.root.parent / "gone"), link=link))
    assert trim(config, {}, now=done.clock).forgotten == (() if link == "symlink" else (there.path,))
    with Store(config.store) as opened:
        assert len(opened.registrations()) == (link == "symlink")


@pytest.mark.parametrize("link", first_quick(["hardlink", "symlink"]))
def test_a_restored_venv_is_registered_with_its_trees_and_is_a_use(world: World, link: str) -> None:
    """One of symlinks lives by its objects alone; and what was used last is what trim keeps."""
    world.configure({"api": {"squish": {"link": [link]}}})
    world.run()
    shutil.rmtree(world.venv())
    world.clock += 100
    assert restore(world.job()).did == "hit"
    with world.job().open_store() as opened:
        (there,) = opened.registrations()
        (summary,) = opened.summaries()
    assert (there.link, bool(there.trees)) == (link, link == "symlink")
    assert summary.used is not None
    assert summary.used.at == world.clock


@pytest.mark.parametrize("link", first_quick(["hardlink", "symlink"]))
def test_a_venv_of_doit_is_registered_before_it_is_linked(
    world: World, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its trees: a trim after a kill must leave what links lead to."""
    world.configure({"api": {"squish": {"link": [link]}}})
    job = world.job()
    hash_lockfiles(job)
    restore(job)
    build_venv(job)
    registered: list[tuple[str, bool]] = []
    real = Relinker.relink

    def relink(self: Relinker, *args: Any, **kwargs: Any) -> Any:
        with job.open_store() as opened:
            registered.extend((each.path, bool(each.trees)) for each in opened.registrations())
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Relinker, "relink", relink)
    squish(job)
    assert registered == [(str(world.venv()), True)]


# --------------------------------------------------------------------------- clean and drift


def test_clean_names_only_what_venvflow_made(done: World) -> None:
    """The venv for build-venv, silently also notes; nothing when there is nothing."""
    job = done.job()
    venv = str(done.venv())
    both = [venv, job.file("build.log")]
    assert clean(job, "build-venv", ("build.log",), dry_run=True) == [venv]
    assert clean(job, "store", (), dry_run=False) == []
    assert all(map(os.path.exists, both))
    assert clean(job, "build-venv", ("build.log",), dry_run=False) == [venv]
    assert not any(map(os.path.exists, both))
    assert clean(job, "build-venv", ("build.log",), dry_run=False) == []


@pytest.mark.parametrize("kind", first_quick(["edited", "moved here"]))
def test_clean_refuses_what_is_not_as_it_was_made(done: World, kind: str) -> None:
    """A changed venv, or one that was made for another place."""
    if kind == "edited":
        done.module("alpha").with_name("mine.py").write_text("X = 1\n")
        job = done.job()
    else:
        done.configure({"api": {"path": "other/.venv"}})
        (done.root / "other").mkdir()
        shutil.move(done.venv(), done.root / "other" / ".venv")
        job = done.job()
    with pytest.raises(VenvflowError):
        clean(job, "build-venv", (), dry_run=False)


def test_clean_leaves_a_venv_of_somebody_else(world: World) -> None:
    """One without a receipt is not named."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", world.venv()], check=True)
    assert clean(world.job(), "build-venv", (), dry_run=False) == []


def test_drift_is_told_by_distributions_where_there_are_any() -> None:
    """Else by the first few files, below site-packages; missing files alone are nobody's work."""
    lib = "lib/python3.12/site-packages"
    drift = Drift(
        added=(f"{lib}/six-1.0.dist-info/METADATA", f"{lib}/six.py"),
        edited=tuple(f"{lib}/m{number}.py" for number in range(6)),
    )
    assert str(drift) == "added: six 1.0 (2 files); edited: m0.py, m1.py, m2.py, m3.py and 2 more"
    assert drift.by_hand
    assert not Drift(missing=("a",)).by_hand
    assert Drift(missing=("a",))
    assert not Drift()
