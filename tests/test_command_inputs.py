"""Which files of the project the commands of a config name, and which of them no word names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from venvflow.builders.inputs import inputs_of

NAMES = [
    *("scripts/build.sh", "build.toml", "words.txt", "tools/make_env.py", "lib/pyproject.toml", "Makefile"),
    *("package.json", "assets/logo.svg", "log.txt", "pyproject.toml", "a b/c d.sh"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a project with scripts, settings, a package and what runners read."""
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("command", "files"),
    [
        (["bash", "scripts/build.sh", "{venv}"], "scripts/build.sh"),
        (["./scripts/build.sh"], "scripts/build.sh"),
        (["{project}/scripts/build.sh"], "scripts/build.sh"),
        (["bash", "{project}/lib/../scripts/build.sh"], "scripts/build.sh"),
        (["x", "--config=build.toml"], "build.toml"),
        (["x", "--config", "build.toml"], "build.toml"),
        (["x", "-cbuild.toml", "@words.txt"], "build.toml words.txt"),
        (["x", "--where={project}/build.toml"], "build.toml"),
        (["{python}", "-m", "tools.make_env", "{venv}"], "tools/make_env.py"),
        (["sh", "-c", "cd {venv} && bash scripts/build.sh<words.txt; cp build.toml {venv}"],
         "scripts/build.sh words.txt build.toml"),
        (["sh", "-c", "echo 'unfinished scripts/build.sh"], "scripts/build.sh"),
        (["bash", "a b/c d.sh"], "a b/c d.sh"),
        (["sh", "-c", "x > log.txt 2>log.txt; x -o words.txt"], ""),
        (["x", "-o", "log.txt", "--output-file", "log.txt", "--output=log.txt"], ""),
        (["cat", "/etc/passwd", "../x", "{venv}/build.toml", "no.toml", ""], ""),
    ],
    ids=str,
)  # fmt: skip
def test_words_that_are_files_of_the_project_are_inputs(root: Path, command: list[str], files: str) -> None:
    """In any position and spelling; what a command writes, and what lies elsewhere, is none."""
    assert " ".join(path.removeprefix(f"{root}/") for path in inputs_of([command], str(root)).files) == files


def test_directories_are_projects_or_to_be_named(root: Path) -> None:
    """A project counts by its build files, the root, too; in others, nobody knows what is read."""
    found = inputs_of(
        [["pip", "install", "./lib[extra]", "-e", "."], ["cp", "-r", "assets", "{venv}"]], str(root)
    )
    assert [*found.projects] == [f"{root}/lib", str(root)]
    assert [*found.directories] == ["assets"]


@pytest.mark.parametrize(
    ("command", "runner", "files"),
    [
        (["make", "env"], "make", ["Makefile"]),
        (["/usr/bin/npm", "run", "x"], "npm", ["package.json"]),
        (["sh", "-c", "true && make env"], "make", ["Makefile"]),
        (["{poetry}", "run", "x"], "poetry run", ["pyproject.toml"]),
        (["just", "env"], "just", []),
    ],
    ids=str,
)
def test_what_runs_what_a_file_says_is_named_and_that_file_is_an_input(
    root: Path, command: list[str], runner: str, files: list[str]
) -> None:
    """The rest of what it reads stands in no word."""
    found = inputs_of([command], str(root))
    assert [*found.runners] == [runner]
    assert [*found.files] == [f"{root}/{name}" for name in files]
    assert not inputs_of([["echo", "make"]], str(root)).runners


SCRIPTS = {
    "outer.sh": """#!/bin/bash
set -e
HERE="$(cd "$(dirname "$0")" && pwd)"
LOG=build.log
. "$(dirname "$0")/lib/common.sh"
source $HERE/lib/more.sh
python3 "${HERE}/make_env.py" "$1" > build.log 2>&1
[ -f out.txt ] && cat out.txt | tee written.sh
./bin/setup && pip install --requirement extra.txt -o made.py
""",
    "lib/common.sh": "sh ../deep.sh; . $(dirname $0)/last.sh\n",
    "lib/more.sh": "", "lib/last.sh": "", "deep.sh": "bash outer.sh\n", "bin/setup": "", "extra.txt": "",
    "make_env.py": """import os, helpers
import pack.inner
from settings import *
from . import (
    nothing,
    local,
)
subprocess.run(["pip", "install", "-r", "more.txt"])
subprocess.run("bash lib/from_string.sh --log build.log", shell=True)
open("out.txt", "w")
runpy.run_path(os.path.join(os.path.dirname(__file__), 'ran.py'))
""",
    "helpers.py": "from make_env import x\n", "settings.py": "import settings\n", "local.py": "",
    "more.txt": "",
    "lib/from_string.sh": "", "ran.py": "", "pack/inner.py": "import a\n", "pack/a.py": "",
    "build.log": "", "out.txt": "", "written.sh": "", "made.py": "",
}  # fmt: skip


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    """Make a project whose scripts run others, and write what nobody shall take for an input."""
    for name, text in SCRIPTS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def files_of(root: Path, *words: str) -> set[str]:
    """Return what a command reads, below *root*."""
    return {path.removeprefix(f"{root}/") for path in inputs_of([words], str(root)).files}


def test_what_a_script_runs_is_an_input_too_and_what_it_writes_is_none(scripted: Path) -> None:
    """Sourced, run, imported from beside it, installed from; in rings, and from any directory."""
    python = {
        "make_env.py",
        "helpers.py",
        "settings.py",
        "local.py",
        "more.txt",
        "lib/from_string.sh",
        "ran.py",
    }
    shell = {"outer.sh", "lib/common.sh", "lib/more.sh", "lib/last.sh", "deep.sh", "bin/setup", "extra.txt"}
    assert files_of(scripted, "bash", "outer.sh", "{venv}") == shell | python
    assert files_of(scripted, "{python}", "make_env.py") == python
    assert files_of(scripted, "{python}", "-m", "pack.inner") == {"pack/inner.py", "pack/a.py"}


def test_code_in_a_word_reads_what_it_imports(scripted: Path) -> None:
    """Python finds modules in the directory where a command runs; other programs have another ``-c``."""
    assert files_of(scripted, "{python}", "-c", "import sys; import local") == {"local.py"}
    assert files_of(scripted, "{python}", "-c", "import local, sys") == {"local.py"}
    assert files_of(scripted, "env", "A=1", "{venv}/bin/python", "-c", "exec(open('ran.py').read())") == {
        "ran.py"
    }
    assert files_of(scripted, "other", "-c", "import local, sys") == set()


def test_a_directory_that_python_runs_is_its_main(scripted: Path) -> None:
    """The rest of it is named in a warning as ever."""
    (scripted / "pack/__main__.py").write_text("import inner\n")
    assert files_of(scripted, "{python}", "pack") == {"pack/__main__.py", "pack/inner.py", "pack/a.py"}
    assert files_of(scripted, "{python}", "-m", "pack") == {"pack/__main__.py", "pack/inner.py", "pack/a.py"}


def test_what_is_no_small_text_names_nothing(scripted: Path) -> None:
    """A FIFO is not waited for, and what has 256 KiB is no script."""
    big = scripted / "big.sh"
    big.write_text("sh ran.py\n" + "#" * (1 << 18))
    assert files_of(scripted, "sh", "big.sh") == {"big.sh"}
    big.write_bytes(b"\xff\0\nsh ran.py\n")
    assert files_of(scripted, "sh", "big.sh") == {"big.sh", "ran.py"}
    big.unlink()
    os.mkfifo(big)
    (scripted / "outer.sh").write_text("sh big.sh\n")
    assert files_of(scripted, "sh", "outer.sh") == {"outer.sh"}
