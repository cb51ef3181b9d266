"""Finding an interpreter and asking it what it is."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import MAGIC_NUMBER
from typing import TYPE_CHECKING, Any

import pytest
from pythons import BASE

from venvflow.disk import interpreters
from venvflow.disk.interpreters import identity, resolve
from venvflow.errors import EnvironmentFailure, UsageError
from venvflow.model import Interpreter

pytestmark = pytest.mark.programs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
FULL = ".".join(map(str, sys.version_info[:3]))
RELEASED = pytest.mark.skipif(sys.version_info.releaselevel != "final", reason="runs on a pre-release")


@pytest.fixture(autouse=True)
def _forget() -> None:
    """Answers of one test are not remembered in the next."""
    interpreters._resolve.cache_clear()


def environ(tmp_path: Path, *path: Path) -> dict[str, str]:
    """Return an environment whose PATH holds only *path*, with an empty home."""
    return {"PATH": os.pathsep.join(map(str, path)), "HOME": str(tmp_path / "home")}


def script(path: Path, text: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def python_named(path: Path) -> Path:
    """Put a symlink to the running base Python at *path*."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(BASE)
    return path


def test_an_empty_spec_is_the_base_python_that_runs_venvflow(tmp_path: Path) -> None:
    """The answer agrees with what this very Python says of itself."""
    found = resolve("", root=str(tmp_path), environ=environ(tmp_path))
    assert found.executable == BASE
    assert found.home == os.path.dirname(BASE)
    assert found.implementation == sys.implementation.name
    assert found.version.startswith(FULL)
    assert found.cache_tag == sys.implementation.cache_tag
    assert found.magic == MAGIC_NUMBER.hex()
    assert found.abi.split()[0] == sysconfig.get_config_var("SOABI")


def test_the_platform_names_system_machine_and_libc(tmp_path: Path) -> None:
    """On Linux, glibc or musl and its version are part of the platform."""
    system, machine, *libc = resolve("", root="/", environ=environ(tmp_path)).platform.split()
    assert machine == os.uname().machine
    if sys.platform == "darwin":
        assert (system, len(libc)) == ("macos", 1)
    else:
        assert system == "linux"
        assert libc[0] in {"glibc", "musl"}
        assert float(libc[1]) > 1


def test_a_path_is_relative_to_the_root(tmp_path: Path) -> None:
    """``tools/python`` in the config means the one below the project."""
    python_named(tmp_path / "tools" / "python")
    assert resolve("tools/python", root=str(tmp_path), environ=environ(tmp_path)).executable == BASE


@pytest.mark.parametrize("copies", [False, True], ids=["symlinks", "copies"])
def test_a_python_in_a_venv_stands_for_its_base(tmp_path: Path, copies: bool) -> None:
    """Neither a linked nor a copied interpreter of a venv is taken for a base."""
    options = ["--copies"] if copies else []
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", *options, tmp_path / "v"], check=True)
    found = resolve(f"{tmp_path}/v/bin/python", root="/", environ=environ(tmp_path))
    assert found == resolve("", root="/", environ=environ(tmp_path))


def test_a_copied_interpreter_leads_to_its_home(tmp_path: Path) -> None:
    """Before 3.11, a copy in a venv does not know its base: ``pyvenv.cfg`` does."""
    copy = script(tmp_path / "v" / "bin" / "python3.9", "")
    base = script(tmp_path / "base" / "python3", "")
    assert interpreters._base_of_copy(str(copy)) == ""
    (tmp_path / "v" / "pyvenv.cfg").write_text(f"include = x\nhome = {tmp_path}/base\n")
    assert interpreters._base_of_copy(str(copy)) == str(base)
    better = script(tmp_path / "base" / "python3.9", "")
    assert interpreters._base_of_copy(str(copy)) == str(better)


@RELEASED
@pytest.mark.parametrize("spec", [MINOR, FULL, f"python{MINOR}", f"cpython@{FULL}", "3"])
def test_a_version_is_found_on_the_path(tmp_path: Path, spec: str) -> None:
    """Minor and full versions find the interpreter, however it is called."""
    python_named(tmp_path / "bin" / "python")
    assert resolve(spec, root="/", environ=environ(tmp_path, tmp_path / "bin")).executable == BASE


def test_a_shim_that_fails_is_skipped(tmp_path: Path) -> None:
    """A version manager's shim for a version that is not active is no interpreter."""
    script(tmp_path / "shims" / f"python{MINOR}", "echo 'command not found' >&2; exit 127\n")
    python_named(tmp_path / "bin" / f"python{MINOR}")
    found = resolve(MINOR, root="/", environ=environ(tmp_path, tmp_path / "shims", tmp_path / "bin"))
    assert found.executable == BASE


@pytest.mark.parametrize("place", [".pyenv/versions/3.1/bin", ".local/share/uv/python/cpython-3.1-x/bin"])
def test_interpreters_of_version_managers_are_found(tmp_path: Path, place: str) -> None:
    """What pyenv and uv installed is found without being on PATH."""
    python = python_named(tmp_path / "home" / place / f"python{MINOR}")
    wanted = interpreters._wanted(MINOR)
    assert str(python) in list(interpreters._candidates(wanted, environ(tmp_path)))


def test_the_newest_managed_interpreter_comes_first(tmp_path: Path) -> None:
    """3.12.10 is newer than 3.12.9, whatever the alphabet says."""
    for name in ("3.12.9", "3.12.10", "3.9.1", "notes"):
        (tmp_path / name).mkdir()
    assert interpreters._newest_first(str(tmp_path)) == ["3.12.10", "3.12.9", "3.9.1", "notes"]


def test_relative_path_entries_are_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``python`` that somebody put into the working directory is not run."""
    script(tmp_path / f"python{MINOR}", f"touch '{tmp_path}/ran'\n")
    monkeypatch.chdir(tmp_path)
    spoilt = {"PATH": f".{os.pathsep}", "HOME": "."}
    assert all(map(os.path.isabs, interpreters._candidates(interpreters._wanted(MINOR), spoilt)))
    resolve(MINOR, root="/", environ=spoilt)
    assert not (tmp_path / "ran").exists()


def test_a_missing_version_lists_what_was_tried(tmp_path: Path) -> None:
    """The error names each candidate with its version, and how to install one."""
    python_named(tmp_path / "bin" / "python3")
    with pytest.raises(EnvironmentFailure) as caught:
        resolve("3.99", root="/", environ=environ(tmp_path, tmp_path / "bin"))
    text = str(caught.value)
    assert "no Python 3.99" in text
    assert f"{tmp_path}/bin/python3 (is {sys.implementation.name} {FULL}" in text
    assert "uv python install 3.99" in text
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("spec", ["latest", "3.x", "three", "2.7", "3.12;rm", "3.12 "])
def test_words_that_are_neither_version_nor_path_are_refused(tmp_path: Path, spec: str) -> None:
    """Nothing is looked for, so the message is about the word."""
    with pytest.raises(UsageError, match="neither a Python version nor the path"):
        resolve(spec, root="/", environ=environ(tmp_path))


def test_paths_that_are_no_interpreter_are_refused_with_the_reason(tmp_path: Path) -> None:
    """Missing, a directory, not executable, not a program, another program: each has its own words."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "text").write_text("not a program")
    (tmp_path / "binary").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "binary").chmod(0o755)
    script(tmp_path / "other", "echo hello there\n")
    script(tmp_path / "liar", f"echo '{interpreters._MARK}{{broken'\n")
    reasons = {
        "missing": "does not exist",
        "dir": "is a directory",
        "text": "not an executable file",
        "binary": "Exec format error",
        "other": "said: hello there",
        "liar": "does not answer as Python",
    }
    for name, reason in reasons.items():
        with pytest.raises(EnvironmentFailure, match=reason):
            resolve(f"./{name}", root=str(tmp_path), environ=environ(tmp_path))


def test_an_interpreter_that_one_may_not_reach_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in the home of root, for everybody else."""

    def refusing(path: str, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "stat", refusing)
    with pytest.raises(EnvironmentFailure, match="cannot be reached: Permission denied"):
        resolve("./python", root=str(tmp_path), environ=environ(tmp_path))


def test_an_interpreter_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a limited time, and what it started does not keep us waiting."""
    monkeypatch.setattr(interpreters, "PATIENCE", 0.2)
    script(tmp_path / "slow", "sleep 60 & sleep 60\n")
    with pytest.raises(EnvironmentFailure, match=r"did not answer within 0\.2 seconds"):
        resolve("./slow", root=str(tmp_path), environ={**environ(tmp_path), "PATH": os.defpath})


def test_the_environment_of_the_user_cannot_change_the_answer(tmp_path: Path) -> None:
    """PYTHONPATH and a ``json.py`` in the project are not imported by the interpreter that is asked."""
    (tmp_path / "json.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    spoilt = {**environ(tmp_path), "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "json.py")}
    resolve("", root=str(tmp_path), environ=spoilt)
    assert not (tmp_path / "ran").exists()


def test_an_interpreter_is_asked_once_per_process(tmp_path: Path) -> None:
    """A second venv with the same spec costs nothing; another PATH asks again."""
    log = tmp_path / "asked"
    script(tmp_path / "bin" / f"python{MINOR}", f"echo >> '{log}'; exec '{BASE}' \"$@\"\n")
    first = environ(tmp_path, tmp_path / "bin")
    for _ in range(3):
        resolve(MINOR, root="/", environ={**first, "OTHER": "x"})
    assert log.read_text() == "\n"
    resolve(MINOR, root="/", environ=environ(tmp_path, tmp_path / "bin", tmp_path))
    assert log.read_text() == "\n\n"


def test_names_follow_the_wanted_version() -> None:
    """The most telling name comes first, and each only once."""
    assert interpreters._wanted("3.12.4").names == ("python3.12", "python3", "python")
    assert interpreters._wanted("pypy3.10").names == ("pypy3.10", "pypy3", "pypy")
    assert interpreters._wanted("3.13t").names == ("python3.13t", "python3t", "python")
    assert interpreters._wanted("3").names == ("python3", "python")


@pytest.mark.parametrize(
    ("spec", "version", "abi", "fits"),
    [
        ("3.12", "3.12.4", "cpython-312", True),
        ("3.1", "3.12.4", "cpython-312", False),
        ("3.12.4", "3.12.4", "cpython-312", True),
        ("3.12.4", "3.12.40", "cpython-312", False),
        ("3.14", "3.14.0rc1", "cpython-314", True),
        ("3.14.0", "3.14.0rc1", "cpython-314", False),
        ("3.14.0rc1", "3.14.0rc1", "cpython-314", True),
        ("3.13", "3.13.1", "cpython-313t freethreaded", False),
        ("3.13t", "3.13.1", "cpython-313t freethreaded", True),
        ("3.13t", "3.13.1", "cpython-313", False),
        ("pypy3.12", "3.12.4", "cpython-312", False),
    ],
)
def test_a_version_fits_by_whole_numbers(spec: str, version: str, abi: str, fits: bool) -> None:
    """Versions are compared number by number, and free threading has to be asked for."""
    found = Interpreter("/x/python", "/x", "cpython", version, abi, "linux", "c", "m")
    assert interpreters._wanted(spec).fits(found) is fits


def test_identity_changes_when_the_interpreter_is_replaced(tmp_path: Path) -> None:
    """Another file under the same name has another fingerprint; a missing one has none."""
    copy = tmp_path / "python"
    shutil.copy2(BASE, copy)
    before = identity(str(copy))
    assert before == identity(str(copy))
    (tmp_path / "link").symlink_to(copy)
    assert identity(str(tmp_path / "link")) == before
    os.utime(copy, ns=(1, 1))
    assert identity(str(copy)) != before
    copy.unlink()
    assert identity(str(copy)) == ""


def test_identity_of_an_interpreter_is_that_of_its_executable(tmp_path: Path) -> None:
    """The record and its path may be used alike."""
    found = resolve("", root="/", environ=environ(tmp_path))
    assert identity(found) == identity(found.executable) != ""


def test_the_python_that_runs_venvflow_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the project, the home and the PATH: it is this process's own. What the loader needs counts."""
    asked: list[str] = []
    real = interpreters._answer

    def answer(path: str, environ: Mapping[str, str]) -> dict[str, Any]:
        asked.append(environ.get("LD_LIBRARY_PATH", ""))
        return real(path, environ)

    monkeypatch.setattr(interpreters, "_answer", answer)
    for project in ("one", "two"):
        found = resolve("", root=str(tmp_path / project), environ=environ(tmp_path / project, tmp_path))
        assert found.executable == BASE
    assert asked == [""]
    resolve("", root="/", environ={"LD_LIBRARY_PATH": "/nowhere"})
    assert asked == ["", "/nowhere"]
