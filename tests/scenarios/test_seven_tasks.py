"""The seven tasks through the real doit: their names, choosing some of them, doing them at once, undoing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import shutil
import signal
import sqlite3
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest
from scenario import BESIDE, DOIT, STEPS, Machine, Project, finished, wait_until
from screens import states

PER_VENV = ("hash-lockfiles", "restore", "build-venv", "squish", "pack", "store")


@pytest.fixture
def project(machine: Machine) -> Project:
    """Give a project with two venvs, nothing built."""
    project = machine.project("p", {"api": {}, "web": {}})
    project.lock("api", machine.wheel("alpha"), machine.wheel("beta"))
    project.lock("web", machine.wheel("alpha"))
    return project


def _finish_tasks_without_yaml(project: Project) -> None:
    (project.root / "dodo.py").unlink()
    (project.root / "pyproject.toml").write_text('[tool.doit]\nloader = "venvflow"\n')


def test_list_names_seven_tasks_and_one_sub_task_for_each_venv(project: Project) -> None:
    """The names are the public face: ``verb``, ``verb:venv`` and ``venv``; trim is for all venvs together."""
    listed = project.doit("list", "--all", "-s", "-q").out.split()
    names = {word for word in listed if word not in "RUI"}
    tasks = {f"{verb}:{venv}" for verb in PER_VENV for venv in ("api", "web")}
    assert names == {*PER_VENV, *tasks, "trim", "api", "web"}
    assert not os.path.lexists(project.venv("api"))


def test_list_tells_what_would_run(project: Project) -> None:
    """``doit list -s`` says R before the first run and U after it, without doing anything."""
    before = project.doit("list", "--all", "-s", "-q").out.splitlines()
    assert {line.split()[0] for line in before if ":" in line or "trim" in line} == {"R"}
    project.doit()
    after = project.doit("list", "--all", "-s").out.splitlines()
    assert {line.split()[1] for line in after if line.startswith("U ")} >= {
        "trim",
        *(f"{verb}:{venv}" for verb in PER_VENV for venv in ("api", "web")),
    }


@pytest.mark.quick
def test_the_first_run_builds_and_the_second_has_nothing_to_do(project: Project) -> None:
    """One run makes every venv; the next one says so and writes nothing into them."""
    first = project.doit()
    assert set(first.did) == {f"{step}:{venv}" for step in STEPS for venv in ("api", "web")}
    assert project.output("api", "alpha") == "1.0"
    assert project.output("web", "python", "-c", "import alpha; print(alpha.VERSION)") == "1.0"
    assert project.doit().nothing_to_do


def test_without_a_dodo_file_the_loader_gives_the_same_tasks(project: Project) -> None:
    """``loader = "venvflow"`` under ``[tool.doit]`` is enough."""
    with_dodo = project.doit("list", "--all").out
    _finish_tasks_without_yaml(project)
    assert project.doit("list", "--all").out == with_dodo
    assert "build-venv:api" in project.doit().did
    assert project.doit().nothing_to_do


def test_settings_of_tool_doit_win_over_ours(project: Project) -> None:
    """What the user says under ``[tool.doit]`` is heard: here, another reporter."""
    _finish_tasks_without_yaml(project)
    with open(project.root / "pyproject.toml", "a") as file:
        file.write('reporter = "zero"\n')
    assert project.doit().out == ""
    assert (project.venv("api") / "bin" / "alpha").exists()


def test_a_pattern_runs_all_steps_of_one_venv(project: Project) -> None:
    """``doit '*:api'`` makes that venv and leaves the other alone."""
    run = project.doit("*:api")
    assert set(run.did) == {f"{step}:api" for step in STEPS}
    assert not os.path.lexists(project.venv("web"))


def test_one_step_of_one_venv_runs_what_it_needs(project: Project) -> None:
    """``doit restore:api`` hashes and looks into the store; a miss builds nothing."""
    run = project.doit("restore:api")
    assert set(run.did) == {"hash-lockfiles:api", "restore:api"}
    assert "no snapshot" in run.did["restore:api"]
    assert not os.path.lexists(project.venv("api"))
    project.doit()
    (project.venv("api") / "bin" / "alpha").unlink()
    assert project.doit("restore:api").did["restore:api"].startswith("hit")
    assert project.output("api", "alpha") == "1.0"


@pytest.mark.parametrize("words", [["-n", "4"], ["-n", "2", "-P", "thread"]])
def test_several_venvs_at_once(machine: Machine, words: list[str]) -> None:
    """Threads make the same venvs as one after the other, and remember them."""
    names = [f"v{number}" for number in range(5)]
    project = machine.project("p", {name: {} for name in names})
    for number, name in enumerate(names):
        project.lock(name, machine.wheel("alpha"), machine.wheel("beta", f"1.{number}"))
    run = project.doit(*words)
    assert {f"{step}:{name}" for step in STEPS for name in names} <= set(run.did)
    for number, name in enumerate(names):
        assert project.output(name, "beta") == f"1.{number}"
    assert project.doit(*words).nothing_to_do
    assert project.doit().nothing_to_do
    assert len(machine.snapshots()) == 5


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pyproject.toml", '[tool.doit]\nloader = "venvflow"\npar_type = "process"\n'),
        ("doit.cfg", "[GLOBAL]\nloader = venvflow\npar_type = process\n"),
        ("dodo.py", "from venvflow.tasks import *\nDOIT_CONFIG = {'par_type': 'process'}\n"),
        ("dodo.py", "from venvflow.tasks import *\nDOIT_CONFIG = {}\n"),
    ],
)
def test_process_mode_is_refused_wherever_it_is_asked_for(project: Project, file: str, text: str) -> None:
    """A configured one, too, and doit's own default where a dodo.py says nothing; threads are not."""
    (project.root / file).write_text(text)
    run = project.doit("-n", "2", code=2)
    assert "process mode is not supported" in run.err
    assert (run.out, run.err.count("\n")) == ("", 1)
    assert not project.venv("api").exists()
    project.doit("-n", "2", "-P", "thread", "api")
    assert project.output("api", "alpha") == "1.0"


def test_forgetting_everything_builds_nothing_again(project: Project) -> None:
    """After ``doit forget --all`` every step looks, and finds that all is well."""
    project.doit()
    built = project.built_at("api")
    project.doit("forget", "--all")
    run = project.doit()
    assert not {task for task in run.did if task != "trim"}
    assert project.built_at("api") == built
    assert project.doit().nothing_to_do


def test_forget_without_a_name_asks_for_one(project: Project) -> None:
    """Plain ``doit forget`` says what to add; with ``--all`` it forgets all tasks."""
    project.doit()
    assert "--all" in project.doit("forget").out
    assert project.doit().nothing_to_do
    assert "forgetting all tasks" in project.doit("forget", "--all").out
    project.doit()
    assert project.doit().nothing_to_do


def test_forget_ignore_and_info_know_one_task(project: Project) -> None:
    """The other commands of doit work on our tasks and our state."""
    project.doit()
    assert "forgetting restore:api" in project.doit("forget", "restore:api").out
    assert "restore:api" in project.doit("info", "restore:api", code=None).out
    project.doit("ignore", "restore:api")
    (project.venv("api") / "bin" / "alpha").unlink()
    project.doit()
    assert not (project.venv("api") / "bin" / "alpha").exists()
    project.doit("forget", "restore:api")
    project.doit()
    assert (project.venv("api") / "bin" / "alpha").exists()


def test_clean_removes_only_what_venvflow_made(project: Project) -> None:
    """Venvs, archives and notes go; lock files, the store, and what else lies beside them stay."""
    project.configure({"api": {"pack": {"output": "dist/"}}, "web": {}})
    project.doit()
    (project.root / "api" / "notes.txt").write_text("mine")
    (project.root / "dist" / "other.tar").write_text("mine")
    before = machine_files(project.machine.store)
    project.doit("clean")
    assert not os.path.lexists(project.venv("api"))
    assert not os.path.lexists(project.venv("web"))
    assert os.listdir(project.root / "dist") == ["other.tar"]
    assert sorted(os.listdir(project.root / "api")) == ["notes.txt", "requirements.txt"]
    assert machine_files(project.machine.store) == before
    again = project.doit("-n", "2")
    assert "build-venv:api" not in again.did
    assert again.did["restore:api"].startswith("hit")
    assert (project.root / "dist" / "api.tar.zst").exists()


def test_clean_as_a_dry_run_removes_nothing(project: Project) -> None:
    """``doit clean -n`` names what it would remove."""
    project.doit()
    run = project.doit("clean", "-n")
    assert str(project.venv("api")) in run.text
    assert project.output("api", "alpha") == "1.0"
    assert project.doit().nothing_to_do


def test_clean_leaves_a_venv_that_was_changed_by_hand(project: Project) -> None:
    """Somebody's edit survives; the other venv goes."""
    project.doit()
    module = project.site("api") / "alpha.py"
    module.unlink()
    module.write_text("mine\n")
    run = project.doit("clean", code=None)
    assert module.read_text() == "mine\n"
    assert "changed by hand" in run.text
    assert "Traceback" not in run.text
    assert not os.path.lexists(project.venv("web"))


def test_clean_leaves_a_venv_that_venvflow_did_not_make(project: Project) -> None:
    """A venv made by hand before the first run is none of ours."""
    venv = project.venv("api")
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text("home = /nowhere\n")
    (venv / "mine").write_text("mine")
    project.doit("clean", code=None)
    assert (venv / "mine").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.quick
def test_one_failing_venv_leaves_the_others_alone(project: Project) -> None:
    """What can be made is made; the last lines name what failed, whose exit code it is."""
    project.configure({"api": {"build": [["false"]]}, "web": {}})
    run = project.doit(code=4)
    assert run.did["build-venv:api"] == "failed"
    assert "store:web" in run.did
    assert not os.path.lexists(project.venv("api"))
    assert "Traceback" not in run.text
    named, counted = run.out.splitlines()[-2:]
    assert named.startswith("failed: build-venv:api: ")
    assert counted == "7 tasks done, 2 up to date, 1 failed, 3 not run because of that"


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_all_venvs_that_fail_are_told(project: Project, words: tuple[str, ...]) -> None:
    """Each with its message, and once more at the end; the first one decides the exit code."""
    (project.root / "api" / "requirements.txt").unlink()
    project.configure({"api": {}, "web": {"build": [["false"]]}})
    run = project.doit(*words, code=2)
    assert run.err.count("venvflow: ") == 2
    assert [line.partition(": ")[2][:14] for line in run.out.splitlines()[-3:-1]] == [
        "hash-lockfiles", "build-venv:web",
    ]  # fmt: skip
    assert run.out.endswith("2 failed, 8 not run because of that\n")


@pytest.mark.slow
@pytest.mark.quick
def test_what_one_command_made_leaves_doit_nothing_to_do(project: Project) -> None:
    """The state is doit's; ``build`` without a name trims, too; what ``run`` makes is all of one venv."""
    venvflow = os.path.join(BESIDE, "venvflow")
    run = project.run([venvflow, "run", "api", "--", "alpha"], cwd=project.root / "web")
    assert (run.code, run.out) == (0, "1.0\n")
    assert "store:api  stored " in run.err
    assert not os.path.lexists(project.venv("web"))
    assert project.doit("api").nothing_to_do
    run = project.run([venvflow, "build"], cwd=project.root / "web")
    assert set(run.did) == {f"{step}:web" for step in STEPS}
    assert (project.machine.store / "trim.json").exists()
    assert project.doit().nothing_to_do


OWN = """\
from venvflow.tasks import *
from venvflow.tasks import task_venvflow as ours

def task_venvflow():
    yield from ours()

def task_needs_api():
    return {"actions": ["touch needs-api"], "task_dep": ["store:api"]}

def task_needs_web():
    return {"actions": ["touch needs-web"], "task_dep": ["store:web"]}

def task_fails():
    return {"actions": ["false"]}

def task_last():
    return {"actions": ["touch last"]}
"""


@pytest.mark.slow
def test_a_task_of_the_dodo_that_fails_ends_the_run(project: Project) -> None:
    """As doit has it, whatever venvs failed before it; what hangs on a venv that failed is not run."""
    (project.root / "dodo.py").write_text(OWN)
    project.configure({"api": {"build": [["false"]]}, "web": {}})
    run = project.doit(code=4)
    assert "store:web" in run.did
    assert [(project.root / name).exists() for name in ("needs-api", "needs-web", "last")] == [
        False,
        True,
        False,
    ]
    assert ", 2 failed, 4 not run because of that" in run.out
    project.doit("--continue", code=4)
    assert (project.root / "last").exists()


@pytest.mark.slow
def test_who_wants_a_run_to_stop_at_a_failure_says_so(project: Project) -> None:
    """On the command line, in the dodo.py, or where doit is configured."""
    project.configure({"api": {"build": [["false"]]}, "web": {}})
    assert "hash-lockfiles:web" not in project.doit("--no-continue", code=4).did
    dodo = project.root / "dodo.py"
    dodo.write_text(dodo.read_text() + 'DOIT_CONFIG = {**DOIT_CONFIG, "continue": False}\n')
    assert "hash-lockfiles:web" not in project.doit(code=4).did
    dodo.unlink()
    for table in ("tool.doit", "tool.doit.commands.run"):
        text = f'[tool.doit]\nloader = "venvflow"\n[{table}]\ncontinue = false\n'
        (project.root / "pyproject.toml").write_text(text.replace("[tool.doit]\ncontinue", "continue"))
        assert "hash-lockfiles:web" not in project.doit(code=4).did
    (project.root / "pyproject.toml").write_text('[tool.doit]\nloader = "venvflow"\n')
    assert "store:web" in project.doit(code=4).did


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


SLEEPER = """\
import os, sys, time
with open(sys.argv[1] + ".tmp", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
time.sleep(60)
"""


@pytest.mark.parametrize("words", [[], ["-n", "2"]])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_what_is_finished_and_leaves_no_orphans(
    machine: Machine, words: list[str], end: signal.Signals
) -> None:
    """A run that is told to end in the middle of a build remembers the venv it had finished before."""
    pid_file = machine.root / "pid"
    script = machine.root / "sleeper.py"
    script.write_text(SLEEPER)
    slow = {"build": [["{python}", str(script), str(pid_file)]]}
    project = machine.project("p", {"api": {}, "slow": slow})
    project.lock("api", machine.wheel("alpha"))
    project.lock("slow", machine.wheel("alpha"))
    process = project.start(*words)
    wait_until(pid_file.exists)
    wait_until(lambda: len(machine.snapshots()) == 1)
    time.sleep(0.3)  # doit notes that the task is done after the task is done
    builder = int(pid_file.read_text())
    process.send_signal(end)
    run = finished(process, timeout=20)
    assert run.code in (128 + end, -end), run.text  # a shell says 130 or 143 for both
    assert "Traceback" not in run.text
    assert not os.path.lexists(project.venv("slow"))
    wait_until(lambda: not _is_alive(builder), timeout=5)
    assert project.doit("*:api").nothing_to_do
    project.configure({"api": {}, "slow": {}})
    project.lock("slow", machine.wheel("beta"))
    assert "build-venv:slow" in project.doit().did
    assert sorted(os.listdir(project.root / "slow")) == [".venv", "requirements.txt"]


def machine_files(directory: Path) -> set[str]:
    """Return the files of a store that a clean must not touch."""
    return {
        str(path.relative_to(directory))
        for kind in ("objects", "trees", "snapshots")
        for path in (directory / kind).rglob("*")
    }


# --------------------------------------------------------------------------- what is asked for, what is said


def test_a_terminal_shows_what_runs_and_a_log_does_not(machine: Machine) -> None:
    """A line at the foot of a narrow terminal, gone when the work is done; a pipe gets none of it."""
    build = [["{uv}", "venv", "-q", "--python", "{python}", "{venv}"]]
    build += [["sh", "-c", "for i in 1 2 3 4 5; do echo step $i of a rather long line; sleep 0.4; done"]]
    project = machine.project("p", {"api": {"build": build}})
    project.lock("api", machine.wheel("alpha"))
    text = in_terminal(project, 40)
    rows = [row for state in states(text) for row in state if row.startswith("building")]
    assert any(row.startswith("building api, 1 s: step") for row in rows), text
    assert max(map(len, rows)) < 40
    last = states(text)[-1]
    assert (last[-1], [row for row in last if row in rows]) == ("5 tasks done, 2 up to date", [])
    shutil.rmtree(project.venv("api"))
    shutil.rmtree(machine.store)
    run = project.doit()
    assert "built by commands" in run.did["build-venv:api"]
    assert (run.err, "\r" in run.out) == ("", False)


def in_terminal(project: Project, columns: int) -> str:
    """Return what a run of doit writes to a terminal of so many *columns*."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [DOIT], cwd=project.root, env={**project.machine.environ, "TERM": "xterm"}, stdin=its, stdout=its,
        stderr=its, start_new_session=True,
    )  # fmt: skip
    os.close(its)
    written = b""
    with contextlib.suppress(OSError):  # Linux says so when the last writer is gone
        while chunk := os.read(ours, 4096):
            written += chunk
    os.close(ours)
    assert process.wait() == 0, written
    return written.decode()


def test_a_bare_name_stands_for_all_that_a_venv_needs(project: Project) -> None:
    """What everybody types first; a typo ends with 2 and the nearest name, and does nothing."""
    run = project.doit("api")
    assert set(run.did) == {f"{step}:api" for step in STEPS}
    assert project.doit("api").nothing_to_do
    assert not project.venv("web").exists()
    for word in ("webb", "restore:webb"):
        run = project.doit(word, code=2)
        assert f"Did you mean {word[:-1]}?" in run.err
        assert (run.out, "Traceback" in run.err) == ("", False)
    assert not project.venv("web").exists()


def test_trim_is_forgotten_and_ignored_by_its_name(project: Project) -> None:
    """As any other task, although it is made late and runs in a group."""
    project.doit()
    assert project.doit("trim").nothing_to_do
    project.doit("forget", "trim")
    assert "trim" in project.doit("trim").did
    assert project.doit("trim").nothing_to_do
    project.doit("ignore", "trim")
    project.lock("api", project.machine.wheel("beta"))
    run = project.doit()
    assert "store:api" in run.did
    assert "trim" not in run.did
    project.doit("forget", "trim")
    (project.machine.store / "trim.json").unlink()
    assert project.doit().nothing_to_do  # it has nothing to tell of
    assert (project.machine.store / "trim.json").exists()


def test_one_failed_venv_is_one_message_and_the_rest_goes_on(project: Project) -> None:
    """A lock file that is gone stops its own venv only, and trim runs for the others."""
    (project.root / "api" / "requirements.txt").unlink()
    for words in ((), ("-n", "3")):
        run = project.doit(*words, code=2)
        assert run.did["hash-lockfiles:api"] == "failed"
        assert run.err.count("venvflow: ") == 1
        assert "venvflow.yaml:" in run.err
        assert "venvs.api.locks[0]: " in run.err
        assert "1 failed, 5 not run because of that" in run.out
        assert "UnmetDependency" not in run.text
        assert project.venv("web").exists()
        assert (project.machine.store / "trim.json").exists()
        for made in (project.venv("web"), project.root / ".venvflow", project.machine.store):
            shutil.rmtree(made)
    run = project.doit("web")
    assert run.did["build-venv:web"].startswith("built")


def test_a_pattern_that_fits_no_venv_is_an_error(project: Project) -> None:
    """A typo must not look like success: exit code 2, and the names that there are."""
    project.doit()
    run = project.doit("*:ap", code=2)
    assert "Did you mean api?" in run.err
    assert "There are: api, web." in project.doit("*:zzz", code=2).err
    assert "Traceback" not in run.text
    assert project.doit("*:api").nothing_to_do


def test_what_cannot_run_because_of_a_failure_is_counted_and_not_told(project: Project) -> None:
    """One venv failed, so one failure is told; the summary says what hangs on it."""
    project.configure({"api": {"build": [["false"]]}, "web": {}})
    run = project.doit(code=4)
    assert "UnmetDependency" not in run.text
    assert run.text.count("venvflow: ") == 1
    assert ", 1 failed, " in run.out
    assert "not run because of that" in run.out
    assert run.did["store:web"].startswith("stored")


def test_why_a_step_failed_is_said_although_the_state_cannot_be_saved(project: Project) -> None:
    """A state database that refuses to be written hides neither the failure nor itself."""
    project.doit()
    connection = sqlite3.connect(project.root / ".venvflow" / "state.db")
    (table,) = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for event in ("INSERT", "UPDATE"):
        connection.execute(
            f'CREATE TRIGGER {event}_never BEFORE {event} ON "{table}" '
            "BEGIN SELECT abs(-9223372036854775808); END"  # an overflow: what RAISE says is taken for damage
        )
    connection.commit()
    connection.close()
    project.configure({"api": {"build": [["false"]]}, "web": {}})
    run = project.doit("*:api", code=None)
    assert run.code != 0
    assert "build-venv:api  failed" in run.out
    assert "venvflow: api: " in run.err, run.text
    assert "could not be saved" in run.text


def test_what_to_do_about_a_change_by_hand_is_said_with_the_first_warning(project: Project) -> None:
    """Not only in the error that may come later."""
    project.doit()
    (project.site("api") / "mine.py").write_text("mine")
    warning = project.doit().warnings
    assert "changed by hand (added: mine.py)" in warning
    assert "venvflow build api --force" in warning
    assert "lock file" in warning


# --------------------------------------------------------------------------- archives and clean


def test_clean_leaves_an_archive_that_venvflow_did_not_write(project: Project) -> None:
    """``pack:`` was just added to the config; at its output lies somebody's archive."""
    project.configure({"api": {"pack": {"format": "tar.gz", "output": "dist/"}}, "web": {}})
    theirs = project.root / "dist" / "api.tar.gz"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    project.doit("clean")
    assert theirs.read_text() == "mine"
    project.doit("hash-lockfiles")
    project.doit("clean")
    assert theirs.read_text() == "mine"


def test_clean_leaves_an_archive_that_somebody_put_over_ours(project: Project) -> None:
    """What is no longer what was packed is somebody's; the checksum beside it still goes."""
    project.configure({"api": {"pack": {"format": "tar.gz", "output": "dist/"}}, "web": {}})
    project.doit()
    archive = project.root / "dist" / "api.tar.gz"
    archive.unlink()
    archive.write_text("mine")
    project.doit("clean")
    assert [path.name for path in archive.parent.iterdir()] == ["api.tar.gz"]
    assert archive.read_text() == "mine"
