"""The command line as a whole: words, options, environment, exit codes, and what goes wrong around it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tiers import first_quick

from venvflow import __version__
from venvflow.cli import main
from venvflow.cli.parser import COMMANDS
from venvflow.disk import locks

if TYPE_CHECKING:
    from pathlib import Path

    from cli_project import Project


READS_CONFIG = [
    "status",
    "restore api",
    "store api",
    "list",
    "erase",
    "erase --yes",
    "trim",
    "trim --dry-run",
]


# --------------------------------------------------------------------------- words


def test_version_is_said_in_text_and_json(project: Project) -> None:
    """The version can be read by people and by scripts."""
    assert project.run("version").out == f"venvflow {__version__}\n"
    assert project.run("version", "--json").document == {
        "format": 3,
        "python": ".".join(map(str, sys.version_info[:3])),
        "venvflow": __version__,
    }


def test_schema_is_that_of_the_package(project: Project) -> None:
    """What is printed is, byte for byte, the file that ships."""
    import venvflow

    shipped = os.path.join(os.path.dirname(venvflow.__file__), "venvflow.schema.json")
    with open(shipped, encoding="utf-8") as file:
        assert project.run("schema").out == file.read()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, project: Project) -> None:
    """--help of a command shows how to call it."""
    answer = project.run(command, "--help")
    assert answer.code == 0
    assert f"venvflow {command}" in answer.out.partition("example:\n")[2]
    assert all(len(line) <= 100 for line in answer.out.splitlines())


def test_help_lists_every_command_in_one_line(project: Project) -> None:
    """The overview has one line for each command, with the exit codes below."""
    out = project.run("--help").out
    for command in COMMANDS:
        assert sum(line.startswith(f"    {command} ") for line in out.splitlines()) == 1
    assert "130  interrupted" in out


@pytest.mark.parametrize(
    "words",
    [
        "", "statz", "Status", "restore", "restore --forc api", "restore --force",
        "restore ghost", "restore ''", "store", "export", "export a b c", "store ghost", "store api --wrong",
        "status ghost", "status --nothing", "list ghost", "list api web", "erase ghost", "erase ghost --yes",
        "erase api web --yes", "trim api", "trim --dry", "schema x", "version x", "init a b",
        "status --format yaml", "status --format", "status --config", "status -C", "status --json=1",
        "status --json --format text", "--json status --format text", "status -v -q", "-v status -q",
        "-C ghost status", "-c ghost.yaml status", "-C venvflow.yaml status", "init venvflow.yaml",
        "init ghost/dir",
    ],
)  # fmt: skip
def test_wrong_words_are_2_and_change_nothing(words: str, project: Project) -> None:
    """Words that make no sense end with exit code 2, a message, and no answer."""
    before = project.hashes()
    answer = project.run(*("" if word == "''" else word for word in words.split()))
    assert answer.code == 2
    assert "venvflow" in answer.err
    assert answer.out == ""
    assert project.hashes() == before


def test_a_misspelled_venv_is_answered_with_the_nearest(project: Project) -> None:
    """A typing error in a name gets the name that was meant."""
    assert "Did you mean api?" in project.run("restore", "appi").err
    assert "There are: api, web." in project.run("restore", "zzz").err


# --------------------------------------------------------------------------- options and environment


def test_options_stand_before_or_after_the_command(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """-C and --json mean the same on both sides; what stands after the command wins."""
    monkeypatch.chdir(tmp_path)
    after = project.run("status", "-C", "project", "--json")
    assert after.code == 0
    assert project.run("--json", "-C", "project", "status").document == after.document
    assert project.run("-C", "ghost", "status", "-C", "project", "--json").document == after.document


def test_the_environment_says_what_options_leave_open(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VENVFLOW_WORK_DIR, VENVFLOW_CONFIG and VENVFLOW_FORMAT work as the options, and yield to them."""
    monkeypatch.chdir("/")
    monkeypatch.setenv("VENVFLOW_WORK_DIR", str(project.root))
    monkeypatch.setenv("VENVFLOW_FORMAT", "json")
    assert project.run("status").document["root"] == str(project.root)
    assert project.run("status", "--format", "text").out.startswith("VENV")
    second = project.root / "second.yaml"
    second.write_text(project.config.read_text(encoding="utf-8").replace("web", "www"), encoding="utf-8")
    monkeypatch.setenv("VENVFLOW_CONFIG", "second.yaml")
    assert [each["name"] for each in project.run("status").document["venvs"]] == ["api", "www"]
    chosen = project.run("status", "-c", "venvflow.yaml").document
    assert [each["name"] for each in chosen["venvs"]] == ["api", "web"]
    monkeypatch.setenv("VENVFLOW_WORK_DIR", str(tmp_path / "ghost"))
    answer = project.run("status")
    assert (answer.code, "VENVFLOW_WORK_DIR" in answer.err) == (2, True)


def test_words_of_virtualenv_cache_mean_what_they_did(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options and variables; a word of ienv is answered with ours."""
    monkeypatch.chdir("/")
    usual = project.run("status", "-C", str(project.root)).out
    assert usual.startswith("VENV")
    for words in (["-w", str(project.root)], ["--config-path", str(project.config)]):
        assert project.run("status", *words, "--format", "table").out == usual
    monkeypatch.setenv("VENVFLOW_CONFIG_PATH", str(project.config))
    monkeypatch.setenv("VENVFLOW_FORMAT", "table")
    assert project.run("status").out == usual
    monkeypatch.setenv("VENVFLOW_CONFIG", "/nowhere")
    assert project.run("status").code == 2
    assert "Did you mean venvflow stats?" in project.run("--stats").err
    assert "Did you mean venvflow squish './.venv'?" in project.run("./.venv").err


def test_a_variable_that_does_not_exist_is_warned_of(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside of a project and outside; not if the config names it, nor what builders are given."""
    for name in ("VENVFLOW_STOER", "VENVFLOW_VENV", "VENVFLOW_MY_INDEX"):
        monkeypatch.setenv(name, "x")
    text = project.config.read_text(encoding="utf-8")
    project.config.write_text(text.replace("api: {", "api: {key: {env: [VENVFLOW_MY_INDEX]}, "))
    told = "venvflow: warning: there is no variable VENVFLOW_STOER, so it does nothing. Did you mean"
    inside = project.run("status").err
    assert inside.count(f"{told} VENVFLOW_STORE?") == 1
    assert "VENVFLOW_VENV" not in inside
    assert "VENVFLOW_MY_INDEX" not in inside
    monkeypatch.chdir("/")
    assert project.run("list").err.count("there is no variable VENVFLOW_") == 2
    monkeypatch.setenv("VENVFLOW_STOER", "")
    monkeypatch.delenv("VENVFLOW_MY_INDEX")
    assert "no variable" not in project.run("list").err


def test_empty_variables_are_as_good_as_none(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set to nothing, as CI systems do, is not set."""
    for name in ("VENVFLOW_WORK_DIR", "VENVFLOW_CONFIG", "VENVFLOW_FORMAT", "VENVFLOW_LOCK_TIMEOUT"):
        monkeypatch.setenv(name, "")
    assert project.run("status").out.startswith("VENV")


@pytest.mark.parametrize(("name", "value"), [("VENVFLOW_FORMAT", "xml"), ("VENVFLOW_LOCK_TIMEOUT", "soon")])
def test_senseless_variables_are_2(
    name: str, value: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable with a senseless value is named in the message."""
    monkeypatch.setenv(name, value)
    answer = project.run("restore", "api")
    assert answer.code == 2
    assert name in answer.err


def test_the_store_can_be_chosen_by_the_environment(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With VENVFLOW_STORE, the store of the config is not looked at."""
    monkeypatch.setenv("VENVFLOW_STORE", str(tmp_path / "elsewhere"))
    answer = project.run("list", "--json").document
    assert (answer["snapshots"], answer["store"]) == ([], str(tmp_path / "elsewhere"))
    assert not (tmp_path / "elsewhere").exists()


def test_quiet_leaves_answers_and_errors(project: Project) -> None:
    """-q silences messages, not what was asked for."""
    project.make_foreign_venv()
    assert "not ours" in project.run("status").err
    quiet = project.run("status", "-q")
    assert (quiet.err, "not ours" in quiet.out) == ("", True)
    assert project.run("restore", "ghost", "-q").err != ""


# --------------------------------------------------------------------------- config


@pytest.mark.parametrize("words", READS_CONFIG)
def test_config_errors_are_2_and_all_listed(words: str, project: Project) -> None:
    """Every command that reads the config shows all that is wrong with it, with lines."""
    project.config.write_text(
        "version: 1\nstore: {paht: ../store}\nvenvs:\n  api: {path: 3.10, locks: [ghost.txt]}\ncolour: red\n",
        encoding="utf-8",
    )
    answer = project.run(*words.split())
    assert answer.code == 2
    for line in (2, 4, 5):
        assert f"venvflow.yaml:{line}:" in answer.err
    assert answer.out == ""


@pytest.mark.parametrize(
    ("words", "path"),
    [(words, "..") for words in READS_CONFIG]
    + [("restore api", path) for path in ("/", "~", ".", "../store/x", "web/.venv/x")],
)
def test_dangerous_paths_are_6_before_anything_runs(words: str, path: str, project: Project) -> None:
    """A venv at a place that is not its own is refused by every command."""
    text = project.config.read_text(encoding="utf-8").replace("api/.venv", f'"{path}"')
    project.config.write_text(text, encoding="utf-8")
    before = project.hashes()
    answer = project.run(*words.split())
    assert (answer.code, answer.out) == (6, "")
    assert project.hashes() == before


def test_without_a_config_the_way_to_one_is_shown(project: Project) -> None:
    """No config is exit code 2, and says how to get one."""
    project.config.unlink()
    answer = project.run("status")
    assert (answer.code, "venvflow init" in answer.err) == (2, True)


def test_a_missing_lock_file_matters_only_to_who_reads_it(project: Project) -> None:
    """Restoring needs the lock files; looking at snapshots and venvs does not."""
    (project.root / "web" / "requirements.txt").unlink()
    for words in ("status", "list", "trim --dry-run", "erase --yes"):
        assert project.run(*words.split()).code == 0
    answer = project.run("restore", "web")
    assert (answer.code, "requirements.txt" in answer.err) == (2, True)


def test_warnings_of_the_config_are_passed_on(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the config's reader is unhappy about is said on standard error, unless told to be quiet."""
    monkeypatch.setenv("VENVFLOW_TRUST", "*")
    project.config.chmod(0o666)
    assert "warning: " in project.run("status").err
    assert "warning: " not in project.run("status", "-q").err


# --------------------------------------------------------------------------- the store


@pytest.mark.parametrize("words", [words for words in READS_CONFIG if words != "store api"])
def test_a_store_of_another_format_is_3(words: str, project: Project) -> None:
    """Nobody touches a store that a newer venvflow made."""
    (project.store / "format").write_text("999\n", encoding="utf-8")
    answer = project.run(*words.split())
    assert (answer.code, answer.out) == (3, "")
    assert "999" in answer.err


@pytest.mark.parametrize("words", [words for words in READS_CONFIG if words != "store api"])
def test_a_store_that_everybody_may_write_to_is_6(words: str, project: Project) -> None:
    """Nobody uses a store that anybody could have tampered with."""
    project.store.chmod(0o777)
    answer = project.run(*words.split())
    assert (answer.code, answer.out) == (6, "")
    assert "chmod" in answer.err


@pytest.mark.parametrize("words", ["status", "list", "erase", "erase --yes", "trim", "trim --dry-run"])
def test_a_store_that_is_not_there_is_not_made(
    words: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who only asks, or has nothing to delete, leaves no store behind."""
    monkeypatch.setenv("VENVFLOW_STORE", str(tmp_path / "elsewhere"))
    assert project.run(*words.split()).code == 0
    assert project.run(*words.split(), "--json").code == 0
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("words", ["restore api", "erase --yes", "trim"])
def test_a_lock_that_is_held_too_long_is_5(
    words: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting ends after VENVFLOW_LOCK_TIMEOUT seconds with its own exit code."""
    monkeypatch.setenv("VENVFLOW_LOCK_TIMEOUT", "0")
    with locks.exclusive(f"{project.store}/locks/store", timeout=0, what="the store"):
        answer = project.run(*words.split())
    assert (answer.code, answer.out) == (5, "")


# --------------------------------------------------------------------------- failures of all kinds


def _fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    from venvflow.cli import version

    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(version, "run", fail)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ValueError("odd\nthing"), 3, "ValueError: odd\\nthing"),
        (RecursionError(), 3, "RecursionError"),
        (MemoryError(), 3, "memory"),
        (OSError(28, "No space left on device", "/some/file"), 3, "/some/file: No space left on device"),
        (OSError(24, "Too many open files"), 3, "Too many open files"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failures_are_one_line_without_traceback(
    error: BaseException, code: int, told: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens, the message is one line and the exit code says what kind it is."""
    _fail_with(monkeypatch, error)
    answer = project.run("version")
    assert answer.code == code
    assert told in answer.err
    assert len(answer.err.splitlines()) == 1


def test_verbose_shows_the_traceback(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With -v an error comes with where it was raised, also an expected one."""
    _fail_with(monkeypatch, ValueError("odd"))
    assert main(["-v", "version"]) == 3
    assert "Traceback" in capsys.readouterr().err
    assert main(["-v", "restore", "ghost"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_signal_handlers_are_put_back(project: Project) -> None:
    """A program that calls main keeps its own signal handling."""
    before = signal.getsignal(signal.SIGTERM)
    project.run("version")
    assert signal.getsignal(signal.SIGTERM) is before


def test_main_works_outside_the_main_thread(project: Project) -> None:
    """Signals belong to the main thread; elsewhere a command runs without touching them."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["version"])))
    thread.start()
    thread.join()
    assert codes == [0]


# --------------------------------------------------------------------------- real processes


@pytest.mark.parametrize("number", first_quick([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]))
def test_a_signal_ends_a_command_as_shells_expect(number: signal.Signals, project: Project) -> None:
    """Ctrl-C and SIGTERM end a command at work with one line, and what it was at is as before."""
    from cli_project import command

    check = "import os, time; os.close(os.open('started', os.O_CREAT)); time.sleep(60)"
    text = project.config.read_text(encoding="utf-8")
    text = text.replace("api: {", f'api: {{check: ["-c", "{check}"], ')
    project.config.write_text(text, encoding="utf-8")
    with subprocess.Popen(
        [*command(), "restore", "api"],
        cwd=project.root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        while process.poll() is None and not (project.root / "started").exists():
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=50)
    assert (process.returncode, out) == (128 + number, "")
    assert err == (
        "venvflow: interrupted. Every venv is the old one or the new one, whole. Run again to finish.\n"
    )
    assert not (project.root / "api" / ".venv").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("schema", 0),
        pytest.param("--help", 0, marks=pytest.mark.slow),
        pytest.param("restore web", 1, marks=pytest.mark.slow),
        pytest.param("erase --json", 6, marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_goes_away_is_no_error(words: str, code: int, project: Project) -> None:
    """``venvflow schema | head`` is silent, and keeps its exit code."""
    from cli_project import command

    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            [*command(), *words.split()],
            cwd=project.root, stdout=writing, stderr=subprocess.PIPE, check=False, text=True,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert result.returncode == code
    assert "ipe" not in result.stderr


@pytest.mark.parametrize(
    ("redirection", "code", "told"),
    [
        (">&-", 3, "cannot write"),
        pytest.param(">&- 2>&-", 3, "", marks=pytest.mark.slow),
        pytest.param(">/dev/full", 3, "cannot write", marks=pytest.mark.slow),
    ],
)
def test_output_that_cannot_be_written(redirection: str, code: int, told: str, project: Project) -> None:
    """An output that is closed or full is said, with an exit code: nobody got the answer."""
    from cli_project import command

    result = subprocess.run(
        ["sh", "-c", f'"$0" list --json {redirection}', *command()],
        cwd=project.root, capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert result.returncode == code
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert bool(result.stderr) == bool(told)


@pytest.mark.slow
def test_a_deleted_working_directory_is_said(project: Project) -> None:
    """In a directory that is gone, a command says so; with -C it works all the same."""
    from cli_project import command

    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$0" "$@"'
    for words, code in ((["status"], 3), (["init"], 3), (["status", "-C", str(project.root)], 0)):
        result = subprocess.run(
            ["sh", "-c", script, *command(), *words],
            cwd=project.root, capture_output=True, check=False, text=True,
        )  # fmt: skip
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_bare_environment_will_do(project: Project, tmp_path: Path) -> None:
    """Without HOME, in the C locale, and with names that it cannot show, a command works."""
    bare = {
        "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii",
        "VENVFLOW_STORE": f"{tmp_path}/störe",
    }  # fmt: skip
    result = project.spawn("list", env=bare)
    assert result.returncode == 0
    assert "no snapshots in" in result.stderr
    result = project.spawn("list", "--json", env=bare)
    assert (result.returncode, "st\\u" in result.stdout) == (0, True)
    (project.root / "störe").mkdir()
    result = project.spawn("init", "störe", env=bare)
    assert (result.returncode, "st\\xf6re" in result.stdout) == (0, True)


def test_the_module_is_the_command(project: Project) -> None:
    """``python -m venvflow`` is the console script, exit code and name included."""
    result = subprocess.run(
        [sys.executable, "-m", "venvflow", "restore", "ghost"],
        cwd=project.root, capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr == project.spawn("restore", "ghost").stderr
    assert (
        "usage: venvflow"
        in subprocess.run(
            [sys.executable, "-m", "venvflow", "--help"], capture_output=True, check=True, text=True
        ).stdout
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["version"], {"yaml", "sqlite3", "doit", "pathspec", "subprocess", "json"}),
        pytest.param(
            ["--help"], {"yaml", "sqlite3", "doit", "pathspec", "subprocess", "json"}, marks=pytest.mark.slow
        ),
        (["restore", "api"], {"doit", "sqlite_utils"}),
        (["status"], {"doit", "sqlite_utils"}),
    ],
)
def test_a_command_imports_only_what_it_needs(words: list[str], unwanted: set[str], project: Project) -> None:
    """Asking for help waits for no database, and restoring not for doit."""
    program = (
        "import sys\nfrom venvflow.cli import main\n"
        f"code = main({words!r})\nprint('modules:', *sys.modules)\nsys.exit(code)\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=project.root, capture_output=True, check=True, text=True
    )
    loaded = set(result.stdout.rpartition("modules:")[2].split())
    assert "venvflow.cli.parser" in loaded
    assert loaded & unwanted == set()
