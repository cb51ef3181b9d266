"""Paths of a config: what is filled in, what globs find, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from configs import one_venv, problems, project, read

ROOT_USER = os.geteuid() == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a lock file at its top, and a home beside it."""
    return project(tmp_path)


def test_paths_fill_in_home_and_variables_but_nothing_else_does(root: Path) -> None:
    """~/ and ${VAR} in paths, $$ for a dollar; a check is taken literally."""
    text = one_venv('check: ["~", "${A}"]', path='"~/${A}/$${A}"')
    spec = read(root, text, A="x y").venvs["api"]
    assert spec.path == f"{root.parent}/home/x y/${{A}}"
    assert spec.check == ("~", "${A}")
    assert read(root, one_venv("python: ./bin/python")).venvs["api"].python == f"{root}/bin/python"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("${NOPE}/x", "NOPE is not defined"),
        ("${EMPTY}/x", "EMPTY is empty"),
        ("${NOPE:-d}", "cannot read ${NOPE:-d}"),
        ("$HOME/x", "cannot read $HOME: write ${NAME}"),
        ("${HOME", "cannot read ${HOME"),
        ("${}", "cannot read ${}"),
        ("~other/x", "written ./~other/x"),
        ("x" * 5000, "longer than 4095 bytes"),
    ],
)
def test_paths_that_would_lead_elsewhere_are_errors(root: Path, path: str, problem: str) -> None:
    """An undefined variable must never become a path of its own."""
    assert problem in problems(root, one_venv(path=json.dumps(path)), EMPTY="")[0]


def test_globs_are_sorted_and_name_each_file_once(root: Path) -> None:
    """Files from several globs come in their order, sorted within one, without repeats."""
    for name in ("r/b.txt", "r/a.txt", "r/deep/er/c.txt", "r/.hidden/d.txt", "r/v/e.txt", "r/v/pyvenv.cfg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "r" / "loop").symlink_to(root / "r")
    config = read(root, one_venv().replace("[lock.txt]", '["r/b*", "r/**/*.txt", "**/c.txt", r/b.txt]'))
    names = [os.path.relpath(path, root) for path in config.venvs["api"].locks]
    assert names == ["r/b.txt", "r/a.txt", "r/deep/er/c.txt"]


@pytest.mark.parametrize("mark", ["pyvenv.cfg", "conda-meta", "objects snapshots format"])
@pytest.mark.parametrize(
    ("glob", "named"),
    [
        ("**/x.txt", "v/**/x.txt"),
        ("*/x.txt", "v/x.txt"),
        ("*/lib/x.txt", "v/lib/x.txt"),
        ("*/*/x.txt", "v/l*/x.txt"),
    ],
)
def test_wildcards_find_nothing_that_is_installed(root: Path, glob: str, named: str, mark: str) -> None:
    """A venv, an environment of conda and a store are passed over; who names one means it."""
    for name in (
        "a/x.txt",
        "a/lib/x.txt",
        "v/x.txt",
        "v/lib/x.txt",
        "node_modules/x.txt",
        "v/node_modules/x.txt",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name in mark.split():
        (root / "v" / name).touch()
    found = read(root, one_venv().replace("lock.txt", f"'{glob}'")).venvs["api"].locks
    assert found
    assert not [path for path in found if not path.startswith(f"{root}/a/")]
    assert read(root, one_venv().replace("lock.txt", named)).venvs["api"].locks[0].startswith(f"{root}/v/")


def test_a_source_directory_may_be_called_like_a_part_of_a_store(root: Path) -> None:
    """Only all of its parts make a store."""
    (root / "a" / "objects").mkdir(parents=True)
    (root / "a" / "objects" / "x.txt").touch()
    assert read(root, one_venv().replace("lock.txt", "'**/x.txt'")).venvs["api"].locks


def test_names_and_variables_with_glob_characters_are_taken_as_they_are(root: Path) -> None:
    """A file called lock[1].txt is itself; a variable's value is never a pattern."""
    (root / "d[1]").mkdir()
    for name in ("lock[1].txt", "lock1.txt", "d[1]/x.txt"):
        (root / name).touch()
    config = read(root, one_venv().replace("[lock.txt]", '["lock[1].txt", "${D}/*.txt"]'), D="d[1]")
    assert config.venvs["api"].locks == (f"{root}/lock[1].txt", f"{root}/d[1]/x.txt")


def test_a_project_whose_path_has_glob_characters_works(tmp_path: Path) -> None:
    """The project's own directory is never part of the pattern."""
    project = tmp_path / "p[x]*"
    project.mkdir()
    (project / "lock.txt").touch()
    assert read(project, one_venv().replace("lock.txt", "'l*'")).venvs["api"].locks == (
        f"{project}/lock.txt",
    )


def test_missing_and_strange_locks_are_all_named(root: Path) -> None:
    """Missing files, empty globs, directories and pipes are errors; a pipe is not waited for."""
    (root / "dir").mkdir()
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("nowhere")
    text = one_venv().replace("[lock.txt]", "[no.txt, 'n*.txt', dir, pipe, loop, dangling, lock.txt/x]")
    missing_files = read(root, text).missing_files
    assert list(missing_files) == ["api"]
    found = [fault.removeprefix(f"{root}/venvflow.yaml:") for fault in missing_files["api"]]
    expected = [
        "no.txt does not exist",
        "n*.txt matches no file",
        "dir is a directory, not a file",
        "pipe is not a regular file",
        "loop cannot be reached",
        "dangling does not exist",
        "lock.txt/x does not exist",
    ]
    assert len(found) == len(expected)
    for index, (problem, text) in enumerate(zip(found, expected, strict=True)):
        assert problem.startswith(f"4: venvs.api.locks[{index}]: ")
        assert text in problem


def test_globs_that_could_take_for_ever_are_refused(root: Path) -> None:
    """The limit on stars holds for globs too, but not for a name that has stars in it."""
    text = one_venv().replace("lock.txt", "'*a*a*a*a*b'")
    assert problems(root, text)[0].startswith("4: venvs.api.locks[0]: *a*a*a*a*b has too many stars")
    (root / "*a*a*a*a*b").touch()
    assert read(root, text).venvs["api"].locks == (f"{root}/*a*a*a*a*b",)


def test_what_is_missing_is_the_fault_of_the_venv_that_lists_it(root: Path) -> None:
    """The config is good, the other venvs are too; files of ``defaults`` are told with their own line."""
    text = "defaults: {key: {files: ['c*.txt', no.ini]}}\nvenvs:\n"
    text += "  api: {path: a, locks: [no.txt, 'n*.txt']}\n"
    text += "  web: {path: w, locks: [lock.txt], key: {files: [lock.txt]}}\n"
    config = read(root, text)
    assert (config.venvs["api"].locks, config.venvs["api"].key_files) == (
        (f"{root}/no.txt",), (f"{root}/no.ini",),
    )  # fmt: skip
    assert config.missing_files == {
        "api": (
            f"{root}/venvflow.yaml:3: venvs.api.locks[0]: {root}/no.txt does not exist",
            f"{root}/venvflow.yaml:3: venvs.api.locks[1]: n*.txt matches no file",
            f"{root}/venvflow.yaml:1: defaults.key.files[0]: c*.txt matches no file",
            f"{root}/venvflow.yaml:1: defaults.key.files[1]: {root}/no.ini does not exist",
        )
    }


@pytest.mark.skipif(ROOT_USER, reason="root may look into every directory")
def test_a_glob_over_an_unreadable_directory_is_an_error(root: Path) -> None:
    """What cannot be seen must not silently be left out."""
    (root / "closed").mkdir(mode=0)
    assert "cannot look into" in problems(root, one_venv().replace("[lock.txt]", "['**/lock.txt']"))[0]
