"""The state backend, driven by the real doit."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from contextlib import closing
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
from contents import fork, in_child
from doit.cmd_run import opt_outfile
from doit.doit_cmd import DoitMain
from tiers import first_quick

from venvflow import interrupts
from venvflow.disk.databases import TextTable, open_to_read
from venvflow.doit_state import StateBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

DODO = """
import os, time
DOIT_CONFIG = {"backend": "venvflow", "dep_file": "state/state.db", "verbosity": 2,
               "continue": True, "num_process": int(os.environ.get("N", "0")), "par_type": "thread"}

from venvflow import interrupts
interrupts.watch(interrupts.OF_A_RUN, by_signal=True)
interrupts.begin()

def note(name):
    with open("ran", "a") as file:
        file.write(name + "\\n")
    return {"said": name}

def wait(name):
    note(name)
    with open("waiting", "w") as file:
        file.write("x")
    while not os.path.exists("go"):
        time.sleep(0.005)

def fail(name):
    note(name)
    return not os.path.exists("broken")

def task_one():
    return {"actions": [(note, ["one"])], "file_dep": ["in"], "doc": "First."}

def task_two():
    return {"actions": [(note, ["two"])], "file_dep": ["in"], "task_dep": ["one"], "targets": ["ran"],
            "clean": True}

def task_three():
    return {"actions": [(fail, ["three"])], "file_dep": ["in"], "task_dep": ["two"]}

def task_slow():
    return {"actions": [(wait, ["slow"])], "file_dep": ["in"], "task_dep": ["three"]}

def task_many():
    for number in range(30):
        yield {"name": f"{os.environ.get('WHO', 'a')}{number}", "actions": [(note, [str(number)])],
               "file_dep": ["in"]}

def task_bad():
    return {"actions": [lambda: {"value": {1, 2}}], "file_dep": ["in"]}
"""


class Codec:
    """What doit passes in, without doit."""

    def encode(self, data: dict[str, Any]) -> str:
        """Return *data* as JSON."""
        return json.dumps(data)

    def decode(self, data: str) -> Any:
        """Return what JSON says."""
        return json.loads(data)


class Project:
    """A directory with a dodo.py in which the real doit is run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state" / "state.db"
        (root / "dodo.py").write_text(DODO)
        (root / "in").write_text("1")
        (root / "go").write_text("")

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """Start doit with *words*."""
        return subprocess.Popen(
            [sys.executable, "-m", "doit", *words],
            cwd=self.root,
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def doit(self, *words: str, code: int = 0, **environ: str) -> tuple[str, str]:
        """Run doit with *words*, assert its exit code, and return stdout and stderr.

        In a forked child, which has everything imported.
        """
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            ended = in_child(lambda: self._doit(words, environ, out, err))
            texts = [(file.seek(0), file.read())[1] for file in (out, err)]
        assert ended == code, texts
        return texts[0], texts[1]

    def _doit(self, words: tuple[str, ...], environ: dict[str, str], out: IO[str], err: IO[str]) -> None:
        """Become doit."""
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        os.environ.update(environ)
        os.chdir(self.root)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        opt_outfile["default"] = sys.stdout  # doit took the one that was there when it was imported
        warnings.simplefilter("ignore")
        try:
            code = DoitMain().run(list(words)) or 0
        except BaseException:  # noqa: BLE001 - as Python itself would end
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def ran(self) -> list[str]:
        """Return the names of the tasks that ran since the last call."""
        path = self.root / "ran"
        names = path.read_text().split() if path.exists() else []
        path.write_text("")
        return names

    def saved(self) -> set[str]:
        """Return the names of the tasks in the state file."""
        with closing(sqlite3.connect(self.state)) as connection:
            return {row[0] for row in connection.execute("SELECT task FROM task_state")}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project whose tasks never ran."""
    return Project(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a state file will be, in a directory that does not exist."""
    return tmp_path / ".venvflow" / "state.db"


def backend(path: Path) -> StateBackend:
    """Return a backend as doit makes it."""
    return StateBackend(str(path), codec=Codec(), module_name=None)


def succeed(state: StateBackend, task: str, value: object = "v") -> None:
    """Save a task as doit does."""
    state.set(task, "_values_:", {"k": value})
    state.set(task, "deps:", ())


# --------------------------------------------------------------------------- with doit


def test_a_second_run_does_nothing_and_a_change_is_seen(project: Project) -> None:
    """State is saved in a directory that is made, and read by the next run."""
    project.doit("three")
    assert project.ran() == ["one", "two", "three"]
    project.doit("three")
    assert project.ran() == []
    (project.root / "in").write_text("changed")
    project.doit("one")
    assert project.ran() == ["one"]


@pytest.mark.slow
def test_the_commands_of_doit_work_on_it(project: Project) -> None:
    """List, info, ignore, forget and clean read and change the state."""
    project.doit("two")
    assert project.ran() == ["one", "two"]
    out, _ = project.doit("list", "-s")
    assert {"U one First.", "U two", "R three"} <= {" ".join(line.split()) for line in out.splitlines()}
    assert "up-to-date" in project.doit("info", "one")[0]
    project.doit("forget", "one")
    assert project.saved() == {"two"}
    assert "R one" in project.doit("list", "-s")[0]
    project.doit("ignore", "one")
    project.doit("one")
    assert project.ran() == []
    project.doit("clean", "--forget", "two")
    assert project.saved() == {"one"}
    project.doit("forget", "--all")
    assert project.saved() == set()
    project.doit("one")
    assert project.ran() == ["one"]


@pytest.mark.slow
def test_reset_dep_and_a_changed_checker_replace_the_state(project: Project) -> None:
    """Both remove a task's state before they save it anew."""
    project.doit("one")
    (project.root / "in").write_text("changed")
    project.doit("reset-dep", "one")
    project.doit("run", "--check_file_uptodate", "timestamp", "one")
    project.doit("run", "--check_file_uptodate", "timestamp", "one")
    assert project.ran() == ["one", "one"]


def test_a_failed_task_is_forgotten_and_others_stay(project: Project) -> None:
    """What succeeded before is no excuse for what failed since."""
    project.doit("three")
    (project.root / "in").write_text("changed")
    (project.root / "broken").write_text("")
    project.doit("three", code=1)
    assert project.saved() == {"one", "two"}
    (project.root / "broken").unlink()
    (project.root / "in").write_text("1")
    project.ran()
    project.doit("three")
    assert "three" in project.ran()


@pytest.mark.parametrize("workers", first_quick(["0", "2"]))
@pytest.mark.parametrize("number", first_quick([signal.SIGTERM, signal.SIGHUP]))
def test_what_finished_before_a_signal_stays_finished(
    project: Project, workers: str, number: signal.Signals
) -> None:
    """The run ends as after Ctrl-C, and the next one starts where it ended."""
    (project.root / "go").unlink()
    child = project.start("slow", N=workers)
    wait_for(project.root / "waiting", child)
    os.kill(child.pid, number)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (-number, interrupts.OF_A_RUN)
    assert project.ran() == ["one", "two", "three", "slow"]
    (project.root / "go").write_text("")
    project.doit("slow")
    assert project.ran() == ["slow"]


SIGNAL_WHILE_WRITING = """
import signal
from venvflow.disk.databases import TextTable
opened = TextTable._opened
left = [int(os.environ["AT"])]

class Connection:
    def __init__(self, real):
        self.real = real
    def __getattr__(self, name):
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGTERM)
        return getattr(self.real, name)

TextTable._opened = lambda self: Connection(opened(self))
"""


@pytest.mark.parametrize("at", first_quick([1, 3, 5, 7, 9, 13]))
def test_a_signal_while_the_state_is_written_is_obeyed(project: Project, at: int) -> None:
    """Wherever in the transaction it comes: what was not saved runs again, and nothing is damaged."""
    dodo = project.root / "dodo.py"
    dodo.write_text(DODO + SIGNAL_WHILE_WRITING)
    child = project.start("three", AT=str(at))
    _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (-signal.SIGTERM, interrupts.OF_A_RUN)
    dodo.write_text(DODO)
    assert not list(project.state.parent.glob("*damaged*"))
    project.doit("three")
    assert set(project.ran()) == {"one", "two", "three"}
    project.doit("three")
    assert project.ran() == []


def test_what_finished_before_a_kill_stays_finished(project: Project) -> None:
    """Every task is committed when it succeeds, not at the end of the run."""
    (project.root / "go").unlink()
    child = project.start("slow")
    wait_for(project.root / "waiting", child)
    child.kill()
    child.communicate()
    assert project.saved() == {"one", "two", "three"}
    (project.root / "go").write_text("")
    project.doit("slow")
    assert project.ran() == ["one", "two", "three", "slow", "slow"]


def wait_for(path: Path, child: subprocess.Popen[str]) -> None:
    """Wait until *path* exists, or fail when the process that should make it ends."""
    while not path.exists():
        assert child.poll() is None, child.communicate()
        threading.Event().wait(0.005)


@pytest.mark.slow
def test_two_runs_at_once_both_keep_their_state(project: Project) -> None:
    """Each run writes its own tasks only, also when both make the file at the same time."""
    children = [project.start("many", WHO=who) for who in "abc"]
    for child in children:
        _, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
    expected = {f"many:{who}{number}" for who in "abc" for number in range(30)}
    assert project.saved() - {"many"} == expected


def test_parallel_runs_save_every_task(project: Project) -> None:
    """Threads at once, but one writes."""
    project.doit("run", "-n", "3", "many")
    assert len(project.ran()) == 30
    project.doit("run", "-n", "3", "many")
    assert project.ran() == []


def test_values_that_are_not_json_cost_only_their_own_task(project: Project) -> None:
    """The task is named, there is no traceback, and what else ran is saved."""
    said = "".join(project.doit("one", "bad", "two", code=2))
    assert "task 'bad' returned values that cannot be saved as JSON" in said
    assert "Traceback" not in said
    assert project.saved() == {"one"}


@pytest.mark.parametrize("damage", first_quick(["garbage", "middle", "directory", "fifo", "json"]))
def test_a_damaged_file_is_kept_aside_and_the_run_goes_on(project: Project, damage: str) -> None:
    """Whatever is in the place of the state: one message, a new file, and every task runs again."""
    project.doit("two")
    project.ran()
    if damage in {"directory", "fifo"}:
        project.state.unlink()
        (project.state.mkdir if damage == "directory" else lambda: os.mkfifo(project.state))()
    elif damage == "middle":
        whole = project.state.read_bytes()
        project.state.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    else:
        project.state.write_bytes(b"\x00garbage" * 999 if damage == "garbage" else b'{"one": {}}' * 99)
    _, err = project.doit("two")
    assert "was damaged; it is kept as state.db.damaged-1" in err
    assert "Traceback" not in err
    assert project.ran() == ["one", "two"]
    assert os.path.lexists(f"{project.state}.damaged-1")
    project.doit("one")
    assert project.ran() == []


def test_a_place_that_is_no_directory_is_one_clear_message(project: Project) -> None:
    """Where the state cannot be, doit ends with code 3 and says what to do: what it says helps."""
    (project.root / "state").write_text("a file")
    _, err = project.doit("one", code=3)
    assert err.startswith("ERROR: ")
    assert "the task state cannot be read" in err
    assert f"({project.root / 'state'} is not a directory). Nothing was run. Move that away" in err
    assert "Traceback" not in err


# --------------------------------------------------------------------------- without doit


def test_importing_it_imports_nothing_heavy() -> None:
    """Every doit command imports the module, also with another backend."""
    code = (
        "import sys, atexit, os, errno, re, signal, stat, threading, typing, contextlib, __future__\n"
        "class Loads(typing.NamedTuple): what: 'needs'\n"
        "before = set(sys.modules)\n"
        "import venvflow.doit_state\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["venvflow"] + [
        f"venvflow.{name}" for name in ("doit_state", "errors", "interrupts", "streams")
    ]


def test_reading_makes_no_file(path: Path) -> None:
    """Commands that only look leave nothing behind."""
    state = backend(path)
    assert state.get("a", "deps:") is None
    assert not state.in_("a")
    state.dump()
    assert not path.parent.exists()


def test_a_success_is_committed_and_an_unfinished_task_is_not(path: Path) -> None:
    """The last key that doit sets is the commit."""
    state = backend(path)
    succeed(state, "done", 1)
    state.set("half", "_values_:", {})
    other = backend(path)
    assert other.get("done", "_values_:") == {"k": 1}
    assert not other.in_("half")
    state.dump()
    assert backend(path).in_("half")


def test_removing_is_committed_at_once(path: Path) -> None:
    """A task that failed must not be up to date after a kill."""
    state = backend(path)
    succeed(state, "a")
    succeed(state, "b")
    state.remove("a")
    assert not state.in_("a")
    assert not backend(path).in_("a")
    assert backend(path).in_("b")
    state.remove_all()
    assert not state.in_("b")
    assert not backend(path).in_("b")
    state.dump()


def test_what_is_saved_already_is_not_written_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with nothing to do writes nothing, so it works in a checkout that is read-only."""

    def save() -> None:
        state = backend(path)
        state.set("group", "_values_:", {})
        state.set("group", "checker:", "MD5Checker")
        state.set("group", "deps:", ("a", "b"))
        state.dump()

    save()
    monkeypatch.setattr(TextTable, "write", None)
    save()


def test_a_file_deleted_while_running_is_made_again(path: Path) -> None:
    """All that this run saved is saved again, into the file that others can find."""
    state = backend(path)
    succeed(state, "before")
    for name in path.parent.iterdir():
        name.unlink()
    path.parent.rmdir()
    succeed(state, "after")
    state.dump()
    other = backend(path)
    assert other.in_("before")
    assert other.in_("after")


def test_a_file_damaged_while_running_is_replaced(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The new file has what this run saved before and after the damage."""
    state = backend(path)
    succeed(state, "before")
    state.dump()
    path.write_bytes(b"garbage" * 2000)
    succeed(state, "after")
    state.dump()
    assert "damaged-1" in capsys.readouterr().err
    other = backend(path)
    assert other.in_("before")
    assert other.in_("after")


def test_a_damaged_file_is_not_moved_twice(path: Path) -> None:
    """Of two runs that find the damage, the second leaves the new file of the first alone."""
    path.parent.mkdir()
    path.write_bytes(b"garbage" * 2000)
    first = backend(path)
    assert not first.in_("a")
    succeed(first, "a")
    second = backend(path)
    assert second.in_("a")
    second._table._set_aside((1, 1))
    assert [name.name for name in path.parent.glob("*damaged*")] == ["state.db.damaged-1"]
    first.dump()


@pytest.mark.parametrize("data", ["", "{", "[1]", "[" * 100_000])
def test_a_damaged_row_is_a_task_that_never_ran(path: Path, data: str) -> None:
    """The rows beside it are read as ever."""
    state = backend(path)
    succeed(state, "good")
    succeed(state, "bad")
    state.dump()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE task_state SET data = ? WHERE task = 'bad'", (data,))
        connection.execute("INSERT INTO task_state VALUES ('odd', CAST(x'ff00fe' AS TEXT))")
        connection.commit()
    state = backend(path)
    assert not state.in_("bad")
    assert not state.in_("odd")
    assert state.in_("good")


def test_an_empty_file_and_the_tables_of_others_are_no_damage(path: Path) -> None:
    """The file may hold other tables too, which are left alone."""
    path.parent.mkdir()
    path.touch()
    assert not backend(path).in_("a")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE history (run)")
    state = backend(path)
    assert not state.in_("a")
    succeed(state, "a")
    state.remove_all()
    state.dump()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM history").fetchone() == (0,)
    assert not list(path.parent.glob("*damaged*"))


def test_an_error_while_writing_lets_the_run_go_on_and_is_told_at_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk costs the state of the tasks, not the tasks; what can be saved later, is."""
    from doit.exceptions import InvalidDodoFile

    def full(*_arguments: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    state = backend(path)
    with monkeypatch.context() as patch:
        patch.setattr(state._table, "_transact", full)
        succeed(state, "a")
        succeed(state, "b")
        with pytest.raises(InvalidDodoFile, match=r"state of 2 tasks could not be saved.*disk is full"):
            state.dump()
    succeed(state, "c")
    state.dump()
    other = backend(path)
    assert all(other.in_(task) for task in "abc")


@pytest.fixture
def read_only() -> Iterator[Path]:
    """Return a state file with one task, in a directory that cannot be written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        state = backend(path)
        succeed(state, "a")
        state.dump()
        path.parent.chmod(0o555)
        path.chmod(0o444)
        yield path
        path.parent.chmod(0o755)


def test_a_state_that_is_read_only_is_read(read_only: Path) -> None:
    """Looking works in a directory of somebody else, and saving there is an error with what to do."""
    from doit.exceptions import InvalidDodoFile

    reader, writer = os.pipe()
    pid = fork(os.fork)
    if pid == 0:  # pragma: no cover
        if os.geteuid() == 0:
            os.setuid(65534)  # root may write anywhere
        state = backend(read_only)
        try:
            os.write(writer, str(state.get("a", "_values_:")).encode())
            state.set("b", "deps:", ())
            state.dump()
        except InvalidDodoFile as error:
            os.write(writer, f" {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    assert said.startswith(f"{{'k': 'v'}} {read_only}: the state of 1 task could not be saved")
    assert "Check owner and mode" in said
    assert sorted(os.listdir(read_only.parent)) == ["state.db"]


def test_nobody_writes_between_what_is_read_and_what_is_saved(path: Path) -> None:
    """Saving begins by keeping others out: one that reads first could not write any more."""
    state = backend(path)
    succeed(state, "a")
    others: list[str] = []

    def look(statement: str) -> None:
        if not statement.startswith("CREATE"):  # the first after it began
            return
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
                others.append("in")
            except sqlite3.OperationalError:
                others.append("kept out")

    state._table._opened().set_trace_callback(look)
    succeed(state, "b")
    state.dump()
    assert set(others) == {"kept out"}


def test_threads_may_use_one_backend(path: Path) -> None:
    """Nothing is lost when several threads save at once."""
    state = backend(path)

    def work(name: str) -> None:
        for number in range(25):
            succeed(state, f"{name}{number}")
            assert state.get(f"{name}{number}", "_values_:") == {"k": "v"}

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state.dump()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM task_state").fetchone() == (100,)


def test_names_of_tasks_may_hold_anything(path: Path) -> None:
    """Quotes, newlines and what is not UTF-8 are names like others."""
    names = ["it's; DROP TABLE task_state", "a\nb", "caf\udce9", "%s", "日本"]
    state = backend(path)
    for name in names:
        succeed(state, name, name)
    state.dump()
    other = backend(path)
    assert [other.get(name, "_values_:")["k"] for name in names] == names


def test_a_path_of_any_bytes_is_opened_read_only_too(tmp_path: Path) -> None:
    """Question marks, percent signs and bytes that are not UTF-8 do not confuse the address."""
    path = tmp_path / "a?b%41#c\udcff d" / "state.db"
    state = backend(path)
    succeed(state, "a")
    state.dump()
    with closing(open_to_read(str(path))) as connection:
        assert connection.execute("SELECT task FROM task_state").fetchall() == [("a",)]
