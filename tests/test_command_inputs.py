"""Which files of the project the commands of a config name, and which of them no word names."""

from __future__ import annotations

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
