"""Dangerous places: venvs are refused where removing them would lose something."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from configs import one_venv, problems, project, read

from venvflow.config import paths
from venvflow.errors import Refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a lock file at its top, and a home beside it."""
    return project(tmp_path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/", "is or contains your home directory"),
        ("~", "is or contains your home directory"),
        ("~/", "is or contains your home directory"),
        ("..", "is or contains"),
        (".", "is or contains the project"),
        ("./", "is or contains the project"),
        ("a/..", "is or contains the project"),
        ("a/../../project", "is or contains the project"),
        ("../alias-of-top/project", "is or contains the project"),
        ("~/store", "is or contains the store"),
        ("~/store/objects", "lies inside the store"),
        ("to-store/objects", "lies inside the store"),
        (".venvflow", "is or contains the tasks' own state"),
        (".venvflow/api", "lies inside the tasks' own state"),
        ("venvflow.yaml", "is or contains the config"),
        ("src", "contains what it is made from or becomes"),
        ("one/.venv", "is also the path of 'one'"),
        ("one/x/../.venv", "is also the path of 'one'"),
        ("also-one/.venv", "is also the path of 'one'"),
        ("one/.venv/lib", "lies inside the venv 'one'"),
        ("also-one/.venv/lib", "lies inside the venv 'one'"),
    ],
)
def test_paths_that_belong_to_others_are_refused(root: Path, path: str, reason: str) -> None:
    """Every spelling of a place where removing would lose something, also through symlinks above it."""
    (root / "one").mkdir()
    (root / "src").mkdir()
    (root / "src" / "lock.txt").touch()
    (root / "also-one").symlink_to("one")
    (root / "to-store").symlink_to(root.parent / "home" / "store")
    (root.parent / "alias-of-top").symlink_to(root.parent)
    text = f"""\
store: {{path: ~/store}}
venvs:
  one: {{path: one/.venv, locks: [lock.txt]}}
  two: {{path: {json.dumps(path)}, locks: [src/lock.txt]}}
"""
    with pytest.raises(Refused) as caught:
        read(root, text)
    assert caught.value.exit_code == 6
    assert f"{root}/venvflow.yaml:4: venvs.two.path: " in str(caught.value)
    assert reason in str(caught.value)


def test_all_dangerous_paths_are_named_at_once(root: Path) -> None:
    """One refusal for the whole file, each venv once, with its line; together with what else is wrong."""
    venvs = [
        f"  v{i}: {{path: {path}, locks: [lock.txt]}}" for i, path in enumerate(["/", ".", "ok", "ok/x"])
    ]
    text = "\n".join(["venvs:", *venvs, ""])
    with pytest.raises(Refused, match="3 paths") as caught:
        read(root, text)
    lines = [line.removeprefix(f"{root}/venvflow.yaml:") for line in caught.value.lines]
    assert [line.split(": ")[:2] for line in lines] == [
        ["2", "venvs.v0.path"], ["3", "venvs.v1.path"], ["5", "venvs.v3.path"],
    ]  # fmt: skip
    assert [line.split(":")[0] for line in problems(root, text + "nope: 1\n")] == ["2", "3", "5", "6"]


def test_an_archive_inside_its_venv_is_refused(root: Path) -> None:
    """It would be packed into itself, and lost with the next restore."""
    with pytest.raises(Refused, match="becomes"):
        read(root, one_venv("pack: {output: .venv/dist}"))


def test_paths_that_only_look_dangerous_are_fine(root: Path) -> None:
    """A store inside the project, neighbours with a common prefix, venvs elsewhere and symlinked venvs."""
    (root / "link").symlink_to("nowhere")
    paths = [".venv", ".venv2", "~/venvs/a", ".venvflow2", "link", "a/b", "a/b.c", "store2"]
    text = "store: {path: store}\nvenvs:\n"
    text += "".join(f"  v{i}: {{path: {path}, locks: [lock.txt]}}\n" for i, path in enumerate(paths))
    assert len(read(root, text).venvs) == len(paths)


def test_case_counts_only_where_the_disk_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two spellings of one directory are one place where the disk cannot tell them apart."""
    text = "venvs:\n  a: {path: venv, locks: [lock.txt]}\n  b: {path: Venv, locks: [lock.txt]}\n"
    monkeypatch.setattr(paths, "_folds_case", lambda _directory: False)
    assert len(read(root, text).venvs) == 2
    monkeypatch.setattr(paths, "_folds_case", lambda _directory: True)
    with pytest.raises(Refused, match=r"venvs.b.path: .*Venv is also the path of 'a'"):
        read(root, text)


def test_each_directory_is_looked_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of venvs must not cost hundreds of walks down the same parents."""
    seen: list[str] = []
    lstat = os.lstat
    text = "venvs:\n"
    text += "".join(f"  v{i}: {{path: services/s{i}/.venv, locks: [lock.txt]}}\n" for i in range(50))

    def counted(path: str) -> os.stat_result:
        seen.append(path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", counted)
    read(root, text)
    assert len(seen) > 50
    assert len(seen) == len(set(seen))
