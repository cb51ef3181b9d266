"""The git hook: our lines beside those of others, and what a checkout brings back, by the real git."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from cli_project import CONFIG, Answer, Project, project, stock

from venvflow.cli import hook
from venvflow.disk import git_hooks
from venvflow.disk.git_hooks import Clone
from venvflow.errors import Refused
from venvflow.flow import load
from venvflow.steps import new_venv

__all__ = ["project", "stock"]

SCRIPTS = [
    b"#!/bin/sh\necho beside\n",
    b"#!/usr/bin/env bash\nset -eu\nexec true",
    b"#! /usr/bin/env -S dash -e\n:\n",
    b"#!/bin/sh -eu\n# >>> other >>>\n\xff\n# <<< other <<<\n",
]


# --------------------------------------------------------------------------- our lines


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """Give a clone as git would describe it; there is none."""
    (tmp_path / ".git/hooks").mkdir(parents=True)
    return Clone(str(tmp_path), str(tmp_path / ".git"), str(tmp_path / ".git/hooks/post-checkout"))


def put(clone: Clone, script: bytes, mode: int = 0o755) -> Path:
    """Put a hook into the clone."""
    path = Path(clone.hook)
    path.write_bytes(script)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_hook_that_is_there_gets_its_bytes_back(clone: Clone, script: bytes, mode: int) -> None:
    """And its mode; the first line stays the first, the others stay in their order."""
    path = put(clone, script, mode)
    assert git_hooks.install(clone, "/py", "venvflow.yaml")
    lines = script.splitlines(keepends=True)
    assert path.read_bytes().startswith(lines[0])
    assert path.read_bytes().endswith(b"".join(lines[1:]))
    assert git_hooks.remove(clone) == [str(path)]
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (script, mode)


def test_where_there_was_no_hook_there_is_none_again(clone: Clone) -> None:
    """Nor need there be a directory of hooks: a clone without templates has none."""
    path = Path(clone.hook)
    path.parent.rmdir()
    assert git_hooks.install(clone, "/py", "venvflow.yaml")
    assert os.access(path, os.X_OK)
    assert git_hooks.remove(clone) == [str(path)]
    assert not path.exists()
    assert git_hooks.remove(clone) == []


def test_installing_again_changes_nothing(clone: Clone) -> None:
    """A further config joins the first; another Python takes the place of the one before."""
    odd = 'it\'s/a "$(b)" #1/venvflow.yaml'
    assert git_hooks.read_hook(clone.hook) is None
    assert git_hooks.install(clone, "/p y/py'thon", odd)
    assert not git_hooks.install(clone, "/p y/py'thon", odd)
    assert git_hooks.install(clone, "/other", "venvflow.yaml")
    assert git_hooks.read_hook(clone.hook) == ("/other", (f"./{odd}", "./venvflow.yaml"))
    assert Path(clone.hook).read_bytes().count(b">>>") == 2


@pytest.mark.parametrize(
    ("script", "mode"),
    [
        (b"#!/usr/bin/env python3\nprint()\n", 0o755),
        (b"#!/usr/bin/python3 sh\n", 0o755),
        (b"\x7fELF", 0o755),
        (b"#!/bin/sh", 0o755),
        (b"echo\n", 0o755),
        (SCRIPTS[0], 0o644),
    ],
)
def test_a_hook_that_lines_of_shell_would_break_is_refused(clone: Clone, script: bytes, mode: int) -> None:
    """As is one that git does not run; what to do is said, and nothing was changed."""
    path = put(clone, script, mode)
    with pytest.raises(Refused, match="venvflow hook run"):
        git_hooks.install(clone, "/py", "venvflow.yaml")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (script, mode)


def test_a_hook_outside_of_the_clone_is_refused(clone: Clone) -> None:
    """It is versioned, or other clones have it too: named by core.hooksPath, or by a link."""
    versioned = Path(clone.top) / "scripts/post-checkout"
    versioned.parent.mkdir()
    versioned.write_bytes(SCRIPTS[0])
    Path(clone.hook).symlink_to("../../scripts/post-checkout")
    for each in (clone, clone._replace(hook=str(versioned))):
        with pytest.raises(Refused, match="hooksPath"):
            git_hooks.install(each, "/py", "venvflow.yaml")
        assert git_hooks.remove(each) == []
    assert versioned.read_bytes() == SCRIPTS[0]


# --------------------------------------------------------------------------- what a checkout brings back


def said(project: Project) -> str:
    """Return what the hook says, which never fails and never answers."""
    answer = project.run("hook", "run")
    assert (answer.code, answer.out) == (0, "")
    return answer.err


def test_a_hit_is_brought_and_a_miss_is_told_once(project: Project) -> None:
    """Then there is nothing to do and nothing to say, until a lock file changes."""
    first = said(project)
    assert "api: hit: " in first
    assert 'web: not in the store; run "doit web"' in first
    assert (project.root / "api/.venv/bin/demo").exists()
    assert said(project) == ""
    lock = project.root / "api/requirements.txt"
    before = lock.read_text()
    lock.write_text(f"{before}--no-binary other\n")
    assert said(project) == 'venvflow: api: not in the store; run "doit api"\n'
    lock.write_text(before)
    assert said(project) == ""
    assert not (project.root / "web/.venv").exists()


def test_what_is_not_ours_or_was_changed_is_left_alone(project: Project) -> None:
    """Whatever the lock files say now; only a change is worth a word."""
    foreign = project.make_foreign_venv()
    assert "api" not in said(project)
    assert not (foreign / "bin/demo").exists()
    (foreign.parent / ".venv").rename(foreign.parent / "aside")
    assert "api: hit" in said(project)
    project.site.joinpath("demo.py").unlink()  # written in place, it would be the object that is damaged
    project.site.joinpath("demo.py").write_text("edited\n")
    lock = project.root / "api/requirements.txt"
    key, text = project.run("status", "api", "--json").document["venvs"][0]["key"], lock.read_text()
    receipt = project.root / "api/.venv/.venvflow.json"
    receipt.write_text(receipt.read_text().replace(key, "0" * 64))
    assert "changed by hand" in said(project)
    assert project.site.joinpath("demo.py").read_text() == "edited\n"
    assert lock.read_text() == text


def test_nothing_outside_of_the_checkout_is_touched(project: Project) -> None:
    """A venv there is that of other checkouts, too."""
    project.config.write_text(CONFIG.replace("path: api/.venv", "path: ../elsewhere"))
    assert "api" not in said(project)
    assert not (project.root.parent / "elsewhere").exists()


def test_nothing_of_the_checkout_is_run(project: Project) -> None:
    """Neither a check nor an interpreter: somebody may only look at a branch. doit runs the check."""
    canary = project.root / "ran"
    python = project.root / "python"
    python.write_text(f"#!/bin/sh\ntouch {canary}\n")
    python.chmod(0o755)
    check = f"check: ['-c', 'open(\"{canary}\", \"w\")']"
    project.config.write_text(
        CONFIG.replace("path: api/.venv", f"path: api/.venv, {check}").replace(
            "path: web/.venv", "path: web/.venv, python: ./python"
        )
    )
    answer = said(project)
    assert "api: hit" in answer
    assert "web" not in answer
    assert not canary.exists()
    job = load(str(project.root), os.environ).job("api")
    assert new_venv.check_in_place(job) == ""
    assert canary.exists()
    assert load(str(project.root), os.environ).is_due("restore", "api")


def test_nobody_is_waited_for(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is at work brings the venvs itself."""
    monkeypatch.setattr(hook, "_PATIENCE", "0")
    with load(str(project.root), os.environ).job("api").locked():
        assert said(project).startswith("venvflow: another run is at work")
    assert not (project.root / "api/.venv").exists()


def test_what_is_said_of_many_is_one_line(project: Project) -> None:
    """A store that cannot be used is no line for each of thirty venvs."""
    (project.store / "format").write_text("99\n")
    told = said(project)
    assert told.startswith("venvflow: api, web: the store has format '99'")
    assert told.endswith('; run "doit"\n')
    assert told.count("\n") == 1


def test_a_broken_config_fails_nothing(project: Project) -> None:
    """It is one line; nor does a config that another branch has matter here."""
    project.config.write_text("version: 1\nvenv: {}\n")
    assert said(project).count("\n") == 1
    assert project.run("hook", "run", "./absent.yaml") == Answer(0, "", "")


# --------------------------------------------------------------------------- by git


def git(where: Path, *words: str, code: int = 0) -> str:
    """Run git, and return what it and its hooks say."""
    name = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", "-c", "advice.detachedHead=false", "-c", "protocol.file.allow=always", *words],
        cwd=where, env={**os.environ, **name}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def commit(root: Path) -> None:
    """Make all of *root* a repository."""
    (root / ".gitignore").write_text(".venv\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "all")


def installed(project: Project) -> str:
    """Commit the project, with a trap for who imports what lies there; install the hook."""
    (project.root / "yaml.py").write_text("raise SystemExit('it was imported')\n")
    commit(project.root)
    answer = project.run("hook", "install")
    assert answer.code == 0, answer.err
    return answer.out


@pytest.mark.slow
def test_worktrees_and_branches_fill_themselves(project: Project) -> None:
    """A file that is checked out runs nothing; a rebase begins with a checkout."""
    said = installed(project)
    assert "now restores the venvs of venvflow.yaml" in said
    tree = project.root.parent / 'it\'s a "tree"'
    assert "api: hit" in git(project.root, "worktree", "add", "-b", "tree", str(tree))
    assert (tree / "api/.venv/bin/demo").exists()
    assert "venvflow" not in git(tree, "switch", "-c", "other")
    assert not (project.root / "api/.venv").exists()
    assert "venvflow" not in git(project.root, "checkout", "HEAD", "--", "venvflow.yaml")
    (project.root / "new").touch()
    git(project.root, "add", "new")
    git(project.root, "commit", "-m", "new")
    assert "api: hit" in git(project.root, "rebase", "--force-rebase", "other")


@pytest.mark.slow
def test_a_hook_beside_goes_on(project: Project) -> None:
    """With its arguments, its name and its exit code, which fails the checkout."""
    commit(project.root)
    beside = project.root / ".git/hooks/post-checkout"
    beside.parent.mkdir(exist_ok=True)
    beside.write_text('#!/bin/sh\necho "$(basename "$0") $# $3"\nexit 3\n')
    beside.chmod(0o755)
    before = beside.read_bytes()
    assert project.run("hook", "install").code == 0
    told = git(project.root, "switch", "-c", "other", code=1)
    assert "api: hit" in told
    assert "post-checkout 3 1\n" in told
    assert "post-checkout 3 0\n" in git(project.root, "checkout", "HEAD", "--", "venvflow.yaml", code=3)
    assert project.run("hook", "remove").code == 0
    assert beside.read_bytes() == before


@pytest.mark.slow
def test_other_kinds_of_repositories(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare one with worktrees, a submodule, a config in a subdirectory, and two of them."""
    whole = project.root.parent / "whole"
    whole.mkdir()
    project.root.rename(whole / "sub")
    (whole / "store").symlink_to(project.store)
    (whole / "more").mkdir()
    (whole / "more/venvflow.yaml").write_text("version: 1\nvenvs: {}\n")
    commit(whole)
    bare = project.root.parent / "bare.git"
    git(whole, "clone", "--bare", "--template=", str(whole), str(bare))
    main = project.root.parent / "main"
    git(bare, "worktree", "add", str(main))
    monkeypatch.setenv("GIT_DIR", str(main / ".git"))  # as git does in a hook
    for directory in ("sub", "more"):
        assert project.run("-C", str(main / directory), "hook", "install").code == 0
    monkeypatch.delenv("GIT_DIR")
    found = git_hooks.read_hook(str(bare / "hooks/post-checkout"))
    assert found is not None
    assert found.configs == ("./sub/venvflow.yaml", "./more/venvflow.yaml")
    assert "api: hit" in git(bare, "worktree", "add", str(project.root.parent / "next"))

    above = project.root.parent / "above"
    above.mkdir()
    git(above, "init", "--quiet")
    git(above, "submodule", "add", str(whole), "inner")
    assert project.run("-C", str(above / "inner/sub"), "hook", "install").code == 0
    assert (above / ".git/modules/inner/hooks/post-checkout").exists()
    assert "api: hit" in git(above / "inner", "switch", "-c", "other")


@pytest.mark.slow
def test_a_hook_whose_python_is_gone_says_so(project: Project) -> None:
    """In one line, and the checkout is as it would be; doctor says it, too."""
    installed(project)
    path = project.root / ".git/hooks/post-checkout"
    assert "starts the venvflow of" in project.run("doctor").out
    assert git_hooks.install(git_hooks.Clone("", str(project.root / ".git"), str(path)), "/gone", "x")
    told = git(project.root, "switch", "-c", "other")
    assert told.count("venvflow: ") == 1
    assert "the Python of the git hook is gone (/gone)" in told
    assert "does not answer" in " ".join(project.run("doctor").out.split())
    path.chmod(0o644)
    assert "cannot be executed" in " ".join(project.run("doctor").out.split())


@pytest.mark.slow
def test_hooks_that_git_looks_for_elsewhere(project: Project) -> None:
    """They are refused; what was installed before is named by doctor, and removed all the same."""
    installed(project)
    git(project.root, "config", "core.hooksPath", ".husky/_")
    refused = project.run("hook", "install")
    assert refused.code == 6
    assert ".husky/_/post-checkout" in refused.err
    assert "git does not run" in project.run("doctor").out
    removed = project.run("hook", "remove")
    assert removed.out == f"removed from {project.root}/.git/hooks/post-checkout\n"
    assert "nothing of venvflow" in project.run("hook", "remove").out


def test_what_keeps_git_from_answering_is_said(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for a directory without git."""
    git(project.root, "init")
    (project.root / "broken").write_text("[")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(project.root / "broken"))
    refused = project.run("hook", "install")
    assert refused.code == 3
    assert "git does not tell" in refused.err
    monkeypatch.setenv("PATH", str(project.root))
    assert "No such file" in project.run("hook", "install").err


def test_outside_of_a_repository_it_says_so(project: Project) -> None:
    """And where it may only look for a config."""
    answer = project.run("hook", "install")
    assert answer.code == 2
    assert f"git init {shlex.quote(str(project.root))}" in answer.err
    assert project.run("hook", "install", "more.yaml").code == 2
