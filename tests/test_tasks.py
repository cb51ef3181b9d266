"""The doit face inside one process: the tasks, their wiring, and how steps end."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from doit import cmd_run, control
from doit.cmd_base import ModuleTaskLoader
from doit.dependency import JSONCodec
from doit.doit_cmd import DoitMain
from doit.task import Task
from flows import World

from venvflow import doit_state, interrupts, tasks
from venvflow.doit_state import StateBackend
from venvflow.errors import Refused
from venvflow.tasks import VenvflowLoader


@pytest.fixture
def world(tmp_path: Path, house: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Give a project with two venvs whose flow is that of the tasks."""
    world = World(tmp_path, house)
    world.configure({"api": {}, "web": {"pack": {"output": "dist/"}}})
    for name in ("api", "web"):
        world.lock(name, world.wheel("alpha"))
    monkeypatch.chdir(world.root)
    monkeypatch.setattr(tasks, "_flow", world.flow())
    monkeypatch.setattr(doit_state, "_codes", [])
    return world


@pytest.fixture(autouse=True)
def _not_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals are for pytest: it is no run of doit."""
    monkeypatch.setattr(interrupts, "watch", lambda *_, **__: None)
    monkeypatch.setattr(interrupts, "begin", lambda: None)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of the wheels of this module."""
    return tmp_path_factory.mktemp("house")


def _tasks() -> dict[str, Task]:
    return {task.name: task for task in tasks.task_venvflow()}


VERBS = ["hash-lockfiles", "restore", "build-venv", "squish", "pack", "store"]


@pytest.mark.usefixtures("world")
def test_there_are_six_tasks_per_venv_six_groups_and_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which a run without words does them: venv by venv, trim last."""
    monkeypatch.setattr(sys, "argv", ["doit"])
    assert list(_tasks()) == [f"{verb}:{venv}" for venv in ("api", "web") for verb in VERBS] + VERBS + [
        "trim"
    ]


@pytest.mark.usefixtures("world")
def test_each_task_needs_the_one_before_of_its_own_venv() -> None:
    """So ``doit restore:api`` hashes api and touches nothing else."""
    made = _tasks()
    assert made["restore:api"].task_dep == ["hash-lockfiles:api"]
    assert made["build-venv:api"].task_dep == ["restore:api"]
    assert made["pack:web"].task_dep == ["squish:web"]
    assert made["store:web"].task_dep == ["squish:web"]
    assert made["restore"].task_dep == ["restore:api", "restore:web"]
    assert all(task.doc for task in made.values())


@pytest.mark.usefixtures("world")
def test_trim_is_made_when_everything_was_stored_that_could_be() -> None:
    """As a task without dependencies of its own, which a venv that failed would keep from running."""
    trim = _tasks()["trim"]
    assert trim.task_dep == ["store"]
    group, task = trim.loader.creator()
    assert (group.name, group.task_dep) == ("trim", [task.name])
    assert (task.task_dep, task.title()) == ([], "trim")


@pytest.mark.usefixtures("world")
def test_who_names_trim_asks_for_no_venv(monkeypatch: pytest.MonkeyPatch) -> None:
    """``doit trim`` trims, and builds nothing."""
    monkeypatch.setattr(sys, "argv", ["doit", "trim"])
    trim = _tasks()["trim"]
    assert (trim.task_dep, trim.loader) == (["trim:snapshots"], None)


@pytest.mark.parametrize(
    ("words", "own", "groups"),
    [
        ([], {}, []),
        (["-n4", "--continue"], {}, []),
        (["api"], {}, ["api", "web"]),
        ([], {"task_lint": print}, ["api", "web"]),
        (["web"], {"task_web": print}, ["api"]),
    ],
)
@pytest.mark.usefixtures("world")
def test_each_venv_has_a_group_of_its_own_where_one_may_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, words: list[str], own: dict[str, Any], groups: list[str]
) -> None:
    """By name, or by a dodo.py with more tasks; a plain run has none to go through; own tasks come first."""
    dodo = ModuleType("dodo")
    vars(dodo).update({"task_venvflow": tasks.task_venvflow, **own})
    monkeypatch.setitem(sys.modules, "dodo", dodo)
    monkeypatch.setattr(sys, "argv", ["doit", *words])
    made = _tasks()
    assert [name for name in made if name in ("api", "web")] == groups
    assert all(made[name].task_dep == [f"{verb}:{name}" for verb in VERBS] for name in groups)


def test_a_venv_called_like_a_task_has_no_group(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task keeps its name; ``doit '*:trim'`` is for the venv."""
    world.configure({"api": {}, "trim": {}, "pack": {}})
    monkeypatch.setattr(tasks, "_flow", world.flow())
    monkeypatch.setattr(sys, "argv", ["doit", "api"])
    made = list(tasks.task_venvflow())
    names = [task.name for task in made]
    assert len(names) == len(set(names))
    assert {"api", "trim", "pack", "restore:trim"} <= set(names)
    assert next(task for task in made if task.name == "pack").task_dep == [
        "pack:api",
        "pack:trim",
        "pack:pack",
    ]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("apii", "Did you mean api?"),
        ("restor:web", "Did you mean restore:web?"),
        ("trm", "Did you mean trim?"),
        ("qqq", "There are: api, web."),
    ],
)
@pytest.mark.usefixtures("world")
def test_a_word_that_is_no_task_ends_doit_with_2(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the nearest name, as the command line does it."""
    with pytest.raises(SystemExit) as caught:
        tasks._UnknownName(not_found=word)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"venvflow: there is no task '{word}'. ")
    assert said.endswith(f' {hint} "doit list" shows the tasks.\n')


def _run(verb: str, venv: str = "api") -> Any:
    return tasks.run_step(verb, venv)


@pytest.mark.usefixtures("world")
def test_steps_answer_with_values_that_json_can_hold() -> None:
    """What doit keeps, and the reporter shows."""
    assert _run("hash-lockfiles")["did"] == "new"
    assert _run("restore")["did"] == "miss"
    built = _run("build-venv")
    assert built["did"] == "built"
    assert set(built) == {"did", "reason", "figures", "warnings"}
    assert isinstance(built["warnings"], list)


@pytest.mark.usefixtures("world")
def test_an_expected_error_becomes_a_failure_with_its_exit_code() -> None:
    """No exception reaches doit, which would show a traceback."""
    failed = _run("restore")
    assert isinstance(failed, tasks.StepFailed)
    assert failed.exit_code == 3
    assert "hash-lockfiles:api" in str(failed.message)


def _is_done(verb: str, values: dict[str, Any], venv: str = "api") -> bool:
    return tasks.is_done(_tasks()[f"{verb}:{venv}"], values, verb, venv)


@pytest.mark.usefixtures("world")
def test_what_doit_forgot_runs_again_except_a_build_that_never_was() -> None:
    """After a hit there was no build; its venv is there all the same."""
    for verb in ("hash-lockfiles", "restore", "build-venv", "squish", "store"):
        assert not _is_done(verb, {"did": "x"})
        _run(verb)
    for verb in ("hash-lockfiles", "restore", "squish", "pack", "store"):
        assert not _is_done(verb, {})
        assert _is_done(verb, {"did": "x"})
    assert _is_done("build-venv", {})


def test_an_error_while_asking_means_that_the_step_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step itself says what is wrong."""

    def refuse(_verb: str, _venv: str) -> bool:
        raise Refused("no")

    monkeypatch.setattr(tasks.current_flow(), "is_due", refuse)
    assert not _is_done("store", {"did": "x"})


def test_trim_runs_as_a_task(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers with what it dropped, and is up to date afterwards."""
    for verb in ("hash-lockfiles", "build-venv", "squish", "store"):
        _run(verb)
    task = _tasks()["trim"]
    assert not tasks.is_trimmed(task, {"did": "x"})
    answer = tasks.run_trim()
    assert isinstance(answer, dict)
    assert "0 of 1" in answer["reason"]
    assert answer["did"] == "kept"  # which is not worth a line
    monkeypatch.setattr(sys, "argv", ["doit", "trim"])
    asked = tasks.run_trim()
    assert isinstance(asked, dict)
    assert asked["did"] == "dropped"
    assert tasks.is_trimmed(task, {"did": "x"})
    assert not tasks.is_trimmed(task, {})


def test_cleaning_a_dry_run_names_and_keeps(world: World) -> None:
    """Then it removes the venv and the notes, of which nothing is told."""
    for verb in ("hash-lockfiles", "build-venv"):
        _run(verb)
    made = _tasks()
    out = io.StringIO()
    made["build-venv:api"].clean(out, dryrun=True)
    assert out.getvalue() == f"build-venv:api  would remove {world.venv()}\n"
    assert world.venv().exists()
    made["build-venv:api"].clean(out, dryrun=False)
    assert out.getvalue().endswith(f"build-venv:api  removed {world.venv()}\n")
    assert not world.venv().exists()
    told = out.getvalue()
    made["hash-lockfiles:api"].clean(out, dryrun=False)
    made["store:api"].clean(out, dryrun=False)
    assert out.getvalue() == told
    assert not (world.root / ".venvflow" / "api" / "key.json").exists()


def doit(*words: str) -> int:
    """Run a command of doit in this process, and return its exit code."""
    sys.argv[1:] = words
    try:
        return int(DoitMain(VenvflowLoader()).run(list(words)) or 0)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("words", ["-n 2 -P process", "-n 2 --parallel-type process", "-n 1 -P process api"])
def test_doits_process_mode_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    """In one line that says what to use in its place, before anything is run."""
    monkeypatch.setattr(tasks, "_flow", None)  # so that it is loaded, as in every run
    monkeypatch.setattr(control, "InvalidCommand", control.InvalidCommand)
    monkeypatch.setattr(cmd_run, "MRunner", cmd_run.MRunner)
    assert doit(*words.split()) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith(f"venvflow: doit {words}: process mode is not supported: ")
    assert '"-P thread"' in said.err
    assert not os.path.exists(".venvflow")


def test_tasks_of_somebody_else_need_no_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a program that runs doit for itself after our tasks: the runners stay ours."""
    monkeypatch.setattr(tasks, "_flow", None)
    monkeypatch.setattr(cmd_run, "MThreadRunner", tasks._InThreads)
    monkeypatch.chdir(tmp_path)
    done: list[int] = []
    theirs = {
        "task_theirs": lambda: {"actions": [lambda: done.append(1)]},
        "DOIT_CONFIG": {"backend": "json", "dep_file": "theirs.json", "par_type": "thread"},
    }
    assert DoitMain(ModuleTaskLoader(theirs)).run(["-n", "2"]) == 0
    assert done == [1]


@pytest.fixture
def sets(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Give the project with a set of one of its venvs, and one of both."""
    sets = {"ci": ["a*"], "all": ["*"]}
    world.configure({"api": {}, "web": {"pack": {"output": "dist/"}}}, sets=sets)
    monkeypatch.setattr(tasks, "_flow", world.flow())
    return world


@pytest.mark.usefixtures("sets")
def test_a_set_is_a_group_of_all_its_venvs_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """``doit ci`` does all that its venvs need; a task of the dodo.py with that name comes first."""
    monkeypatch.setattr(sys, "argv", ["doit", "ci"])
    made = _tasks()
    assert made["ci"].task_dep == [f"{verb}:api" for verb in VERBS]
    assert made["all"].task_dep == [f"{verb}:{venv}" for venv in ("api", "web") for verb in VERBS]
    assert made["ci"].doc == "all that the set ci needs"
    dodo = ModuleType("dodo")
    vars(dodo).update({"task_venvflow": tasks.task_venvflow, "task_ci": print})
    monkeypatch.setitem(sys.modules, "dodo", dodo)
    assert "ci" not in _tasks()


@pytest.mark.usefixtures("sets")
def test_a_misspelled_set_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Its name is among those that may have been meant."""
    with pytest.raises(SystemExit):
        tasks._UnknownName(not_found="al")
    assert "Did you mean all?" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["api", "ap*", "ci"])
@pytest.mark.usefixtures("sets")
def test_cleaning_a_venv_by_its_name_cleans_all_its_steps_once(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    """``doit clean api``; where the steps are named as well, nothing is told twice."""
    monkeypatch.setattr(sys, "argv", ["doit"])
    for verb in ("hash-lockfiles", "build-venv"):
        _run(verb)
    capsys.readouterr()
    assert doit("clean", "-n", word, "build-venv") == 0
    assert capsys.readouterr().out == f"build-venv:api  would remove {world.venv()}\n"
    assert doit("clean", word) == 0
    assert not world.venv().exists()
    assert not (world.root / ".venvflow" / "api" / "key.json").exists()


def test_cleaning_ends_with_the_code_of_what_was_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After all else was cleaned."""
    monkeypatch.setattr(sys, "argv", ["doit"])
    for verb in ("hash-lockfiles", "build-venv"):
        _run(verb)
    world.module("alpha").with_name("mine.py").write_text("X = 1\n")
    assert doit("clean", "api") == 6
    assert "mine.py" in capsys.readouterr().err
    assert world.module("mine").exists()
    assert not (world.root / ".venvflow" / "api" / "key.json").exists()


@pytest.mark.parametrize(
    ("command", "did"),
    [
        ("forget api", "forgetting"),
        ("ignore api", "ignoring"),
        ("clean --forget api", ""),
        ("forget ci", "forgetting"),
        ("clean --forget ci", ""),
    ],
)
@pytest.mark.usefixtures("sets")
def test_a_name_of_venvs_stands_for_their_tasks(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, did: str
) -> None:
    """``doit forget api`` and its like act on all six, and on nothing of another venv, nor on trim."""
    monkeypatch.setattr(sys, "argv", ["doit"])
    state = {f"{verb}:{venv}": {"did": "x"} for verb in VERBS for venv in ("api", "web")}
    path = world.root / ".venvflow/state.db"

    def saved() -> StateBackend:
        return StateBackend(str(path), JSONCodec())

    backend = saved()
    for name, values in {**state, "trim": {"did": "x"}}.items():
        backend.set(name, "_values_:", values)
    backend.dump()
    assert doit(*command.split()) == 0
    out = capsys.readouterr().out
    after = saved()
    for name in (*state, "trim"):
        touched = not after.in_(name) or after.get(name, "ignore:") == "1"
        assert touched == name.endswith(":api"), name
        if did:
            assert (f"{did} {name}\n" in out) == touched


def test_cleaning_tells_names_that_the_terminal_cannot_show(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the numbers of their characters."""
    monkeypatch.setattr(tasks, "clean_step", lambda _verb, _venv, *, dryrun: f"removed \xfc {dryrun}")
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")  # it closes the bytes below when it goes
    _tasks()["pack:api"].clean(stream, dryrun=False)
    assert raw.getvalue() == b"pack:api  removed \\xfc False\n"
    assert world.root.exists()


def test_cleaning_a_changed_venv_says_so_and_leaves_it(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, without an exception."""
    for verb in ("hash-lockfiles", "build-venv"):
        _run(verb)
    world.module("alpha").with_name("mine.py").write_text("X = 1\n")
    assert tasks.clean_step("build-venv", "api", dryrun=False) == ""
    assert "mine.py" in capsys.readouterr().err
    assert world.module("mine").exists()


def test_a_broken_config_ends_doit_with_its_own_code(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not with the traceback and the 3 of doit."""
    (world.root / "venvflow.yaml").write_text("venvs: 1\n")
    monkeypatch.setattr(tasks, "_flow", None)
    with pytest.raises(SystemExit) as caught:
        tasks.current_flow()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("venvflow: ")


def test_the_loader_lets_the_user_have_the_last_word(world: World) -> None:
    """What ``[tool.doit]`` says wins over ours; our state stays in our database."""
    loader = tasks.VenvflowLoader()
    loader.config = {"GLOBAL": {"reporter": "json"}}
    config = loader.load_doit_config()
    assert config["reporter"] == "json"
    assert config["backend"] == "venvflow"
    assert config["dep_file"] == str(world.root / ".venvflow" / "state.db")
    assert [task.name for task in loader.load_tasks(None, [])] == list(_tasks())


@pytest.mark.usefixtures("world")
def test_a_dodo_file_gets_settings_and_tasks_by_one_import() -> None:
    """``from venvflow.tasks import *`` brings both names, and no more."""
    space: dict[str, Any] = {}
    exec("from venvflow.tasks import *", space)  # noqa: S102 - what a dodo.py says
    assert set(space) - {"__builtins__"} == {"DOIT_CONFIG", "task_venvflow"}
    assert space["DOIT_CONFIG"]["backend"] == "venvflow"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], set()),
        (["api"], {"api"}),
        (["restore:api", "*:web"], {"api", "web"}),
        (["-n", "4"], set()),
        (["-n", "4", "4"], {"4"}),
        (["trim", "*:a*", "web2"], set()),
        (["ci"], {"api", "4"}),
    ],
)
def test_who_is_asked_for_by_name_is_known(words: list[str], named: set[str]) -> None:
    """A value of an option is no name, even if a venv is called like it."""
    groups = {"api": ["api"], "web": ["web"], "4": ["4"], "ci": ["api", "4"]}
    assert tasks._named_in(words, groups) == named
