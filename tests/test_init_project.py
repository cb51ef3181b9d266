"""Which files init looks at: all that git tracks, and else what is not hidden, ignored or from elsewhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from contents import grow

from venvflow.disk.files import read_beginning
from venvflow.init import project
from venvflow.init.discovery import discover
from venvflow.init.draft import render
from venvflow.init.project import files_of

LOCK = "requirements.txt"


def looked_at(root: Path, environ: dict[str, str] | None = None) -> tuple[list[str], list[str]]:
    """Return the directories of the lock files that are found, and what is said besides."""
    notes: list[str] = []
    found = files_of(str(root), environ or dict(os.environ), lambda path: path.endswith(LOCK), notes)
    return [os.path.dirname(path) for path in found], notes


def put(root: Path, directories: Iterable[str]) -> Path:
    """Make each of *directories* with a lock file in it."""
    return grow(root, {f"{directory}/{LOCK}": "six==1.17.0\n" for directory in directories})


def git(root: Path, *words: str) -> None:
    """Run git in *root*."""
    subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *words], cwd=root, check=True, capture_output=True
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository of git that tracks nothing yet."""
    root = tmp_path / "root"
    root.mkdir()
    git(root, "init")
    return root


ODD = [".hidden/x", "build", "vendor/x", "node_modules/x", "dist"]


def test_what_git_tracks_is_looked_at_whatever_it_is_called(repository: Path) -> None:
    """Hidden directories and those of what is built, too; not what only lies there."""
    put(repository, ODD)
    assert looked_at(repository) == ([], [])
    git(repository, "add", "--force", ".")
    assert looked_at(repository) == (sorted(ODD), [])


def test_what_is_not_committed_yet_counts_and_what_git_ignores_does_not(repository: Path) -> None:
    """In a directory of the repository, too; a file that was deleted is gone."""
    put(repository, ["a/new", "a/kept", "a/gone", "a/ignored/x", "b"])
    grow(repository, {".gitignore": "ignored/\n"})
    git(repository, "add", "a/kept", "a/gone")
    (repository / "a" / "gone" / LOCK).unlink()
    assert looked_at(repository) == (["a/kept", "a/new", "b"], [])
    assert looked_at(repository / "a") == (["kept", "new"], [])
    git(repository, "add", "--force", "a/ignored")
    assert looked_at(repository / "a") == (["ignored/x", "kept", "new"], [])


def test_what_the_repository_around_it_ignores_is_a_project_of_its_own(repository: Path) -> None:
    """A scratch directory in somebody's dotfiles is looked at as if there were no git."""
    put(repository, ["scratch/a", "scratch/.b"])
    grow(repository, {".gitignore": "scratch\n"})
    assert looked_at(repository / "scratch") == (["a"], [])


def test_repositories_in_a_repository_are_named(repository: Path, tmp_path: Path) -> None:
    """A submodule has a config of its own, if any; without git around them, all of them are looked at."""
    put(tmp_path / "other", ["x"])
    git(tmp_path / "other", "init")
    git(tmp_path / "other", "add", ".")
    git(tmp_path / "other", "-c", "user.name=n", "-c", "user.email=e", "commit", "-m", "x")
    put(repository, ["a"])
    git(repository, "submodule", "add", str(tmp_path / "other"), "module")
    assert looked_at(repository) == (["a"], ["module was left out: it is a repository of its own."])
    assert looked_at(tmp_path) == (["other/x", "root/a", "root/module/x"], [])


def test_nothing_that_the_repository_names_is_run(repository: Path) -> None:
    """Its own git config could name a program to be run whenever git looks at it."""
    put(repository, ["a"])
    program = repository / "program"
    program.write_text("#!/bin/sh\ntouch ran\n")
    program.chmod(0o755)
    git(repository, "add", ".")
    git(repository, "config", "core.fsmonitor", str(program))
    assert looked_at(repository) == (["a"], [])
    assert not (repository / "ran").exists()


def test_variables_of_git_lead_nowhere_else(repository: Path, tmp_path: Path) -> None:
    """A hook of git runs with the paths of its own repository."""
    put(repository, [".a"])
    git(repository, "add", ".")
    environ = {**os.environ, "GIT_DIR": str(tmp_path / "other"), "GIT_INDEX_FILE": "/nowhere"}
    assert looked_at(repository, environ) == ([".a"], [])


@pytest.mark.parametrize("path", ["", "/nowhere", "."])
def test_without_git_the_directories_are_walked(path: str, repository: Path) -> None:
    """What is called git in the project itself is not taken for it."""
    put(repository, ["a", ".b"])
    git(repository, "add", ".")
    grow(repository, {"git": "#!/bin/sh\ntouch ran\n"})
    (repository / "git").chmod(0o755)
    found, notes = looked_at(repository, {"PATH": path})
    assert (found, len(notes), notes[0][:18]) == (["a"], 1, "git did not answer")
    assert not (repository / "ran").exists()


def test_links_are_followed_to_files_only(repository: Path) -> None:
    """Not to directories, where they could lead back or out; tracked links neither."""
    put(repository, ["a"])
    (repository / "loop").symlink_to(".")
    (repository / "up").symlink_to("..")
    (repository / "b").mkdir()
    (repository / "b" / LOCK).symlink_to(f"../a/{LOCK}")
    (repository / "b" / f"x{LOCK}").symlink_to(f"x{LOCK}")
    for _ in range(2):
        assert looked_at(repository) == (["a", "b"], [])
        git(repository, "add", ".")


def test_names_that_are_not_text_are_named(repository: Path) -> None:
    """Tracked or not: a config is UTF-8 and cannot hold them."""
    directory = os.path.join(os.fsencode(repository), b"caf\xe9")
    try:
        os.mkdir(directory)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    Path(os.fsdecode(directory), LOCK).write_text("six==1.17.0\n")
    for _ in range(2):
        found, notes = looked_at(repository)
        assert found == []
        assert len(notes) == 1
        assert notes[0].endswith("was left out: its name is not UTF-8.")
        git(repository, "add", ".")


def test_thousands_of_files_are_read_once_each(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And said in one comment for each reason."""
    count = 200
    put(repository, [f"a/{number}" for number in range(count)])
    grow(repository, {f"a/{number}/{LOCK}": "six\n" for number in range(count)})
    git(repository, "add", ".")
    reads: list[str] = []
    read = read_beginning

    def noted(path: str, size: int) -> bytes:
        reads.append(path)
        return read(path, size)

    monkeypatch.setattr(project, "read_beginning", noted)
    found = discover(str(repository), os.environ)
    assert len(found.doubtful) == count
    assert sum(path.endswith(LOCK) for path in reads) <= 2 * count
    assert len(reads) <= 15 * count
    assert len(render(found).splitlines()) < 30


def test_a_worktree_is_called_as_the_clone_is(tmp_path: Path) -> None:
    """A config is for all checkouts: what init adds on a branch is not called after the branch."""
    root = put(tmp_path / "shop", ["."])
    git(root, "init")
    git(root, "add", ".")
    git(root, "-c", "user.name=n", "-c", "user.email=e", "commit", "-m", "x")
    git(root, "worktree", "add", "../my-feature")
    names = [
        [venv.name for venv in discover(str(tmp_path / checkout), os.environ).venvs]
        for checkout in ("shop", "my-feature")
    ]
    assert names == [["shop"], ["shop"]]
