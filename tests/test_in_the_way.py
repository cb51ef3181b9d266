"""Something else in the place of a small file of ours: no command waits, falls over, or takes it for one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiers import first_quick

from venvflow.disk.places import Place
from venvflow.errors import VenvflowError
from venvflow.flow import load
from venvflow.steps.build_venv import build_venv
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.pack import pack
from venvflow.steps.restore import restore
from venvflow.steps.squish import squish
from venvflow.steps.store import store

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from cli_project import Project

FILES = (
    "project/.venvflow/api/key.json", "store/trees/*/*", "project/api/.venv/.venvflow.json",
    "store/format", "store/README", "store/trim.json", "store/settled.json", "store/venvs/*.json",
    "store/snapshots/*.json", "store/index.db", "store/index.db-wal", "store/index.db-journal",
    "store/locks/store", "store/objects/*/*", "project/.venvflow/api/restore.json",
    "project/.venvflow/api/excluded.json", "project/.venvflow/api/pack.json", "project/.venvflow/.stats",
    "project/.venvflow/.next", "project/.venvflow/api/lock", "project/api/.venv/pyvenv.cfg",
    "project/api/.venv/lib/python*/site-packages/*/RECORD", "project/dist/*.json", "project/dist/*.sha256",
    "project/.python-version",
)  # fmt: skip


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 4 << 30)


def _full(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


OBSTACLES: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "directory": _full,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "4 GiB": _sparse,
    "nested": _text("[" * 200_000),
    "other types": _text('{"a": [1, null, {"b": 1e999}]}'),
}

COMMANDS = (
    "status --json", "list", "stats --packages", "explain api", "verify", "doctor",
    "squish --dry-run api/.venv", "FLOW", "squish api/.venv", "trim", "restore api", "pack api -o ../b.tar",
    "verify --heal", "unsquish api/.venv", "FLOW",
)  # fmt: skip


class World:
    """A project whose venv is shared, stored and packed, as often as somebody wants it anew."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.base = project.root.parent
        self._kept = self.base.with_name(f"{self.base.name}-kept")
        text = project.config.read_text(encoding="utf-8")
        text = text.replace("api: {", "api: {pack: {format: tar, output: dist}, ")
        project.config.write_text(text, encoding="utf-8")
        self.flow()
        project.run("trim")
        subprocess.run(["cp", "-a", str(self.base), str(self._kept)], check=True)

    def renew(self) -> None:
        """Put everything back as it was."""
        os.chdir("/")
        shutil.rmtree(self.base)
        subprocess.run(["cp", "-a", str(self._kept), str(self.base)], check=True)
        os.chdir(self._project.root)

    def flow(self) -> int:
        """Run all steps of the venv, as doit does; return the exit code."""
        job = load(str(self._project.root), dict(os.environ)).job("api")
        try:
            for step in (hash_lockfiles, restore, build_venv, squish, pack, store):
                step(job)
        except VenvflowError as error:
            return error.exit_code
        return 0

    def run(self, words: str) -> int:
        """Run a command (or the flow), see that it ends with words of ours, and return its exit code."""
        if words == "FLOW":
            return self.flow()
        answer = self._project.run(*words.split())
        assert "should not happen" not in answer.err
        return answer.code


@pytest.fixture
def world(project: Project) -> Iterator[World]:
    """Give such a project."""
    yield World(project)
    os.chdir("/")


@pytest.mark.parametrize("file", first_quick(FILES))
@pytest.mark.timeout(240)
def test_no_command_waits_or_falls_over(world: World, file: str) -> None:
    """Whatever lies there: documented exit codes, no traceback, and nothing is read without an end."""
    for name in ("FIFO", "other types"):
        _all_commands_end_well(world, file, name)


@pytest.mark.long
@pytest.mark.parametrize("file", FILES)
@pytest.mark.timeout(480)
def test_no_command_waits_or_falls_over_whatever_it_is(world: World, file: str) -> None:
    """The same with each thing that can lie there."""
    for name in OBSTACLES:
        if name != "4 GiB" or not file.endswith(("pyvenv.cfg", "RECORD")):  # to be shared like any other file
            _all_commands_end_well(world, file, name)


def _all_commands_end_well(world: World, file: str, obstacle: str) -> None:
    world.renew()
    path = next(iter(sorted(world.base.glob(file))), world.base / file.replace("*", "0"))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        path.unlink()
    OBSTACLES[obstacle](path)
    for words in COMMANDS:
        assert world.run(words) in (0, 1, 2, 3, 6), (obstacle, words)


NOTES = ("key", "restore", "manifest", "excluded", "pack")


@pytest.mark.parametrize("note", first_quick(NOTES))
def test_the_next_run_works_whatever_lies_in_the_place_of_a_note(world: World, note: str) -> None:
    """It is as if there were none; a directory is moved aside with what is in it."""
    for make in OBSTACLES.values():
        world.renew()
        path = world.base / "project" / ".venvflow" / "api" / f"{note}.json"
        path.unlink(missing_ok=True)
        make(path)
        assert world.flow() == 0


def test_a_tree_that_is_too_large_is_made_anew(world: World) -> None:
    """As one that is damaged is: the venv has all of it."""
    for path in (world.base / "store" / "trees").glob("*/*"):
        os.truncate(path, 4 << 30)
    assert world.flow() == 0
    assert world.run("verify") == 0


@pytest.mark.parametrize("name", [".vf-99999999999999999999-1", ".vf-9999999999-1"])
def test_a_name_with_a_number_that_no_process_has_stops_nobody(world: World, name: str) -> None:
    """In the venv, beside it, and where archives and notes are written."""
    for directory in ("api/.venv", "api", "dist", ".venvflow", ".venvflow/api"):
        (world.base / "project" / directory / name).touch()
    for words in ("FLOW", "status", "squish api/.venv", "pack api -o dist/b.tar", "verify", "trim"):
        assert world.run(words) in (0, 1), words


def test_what_has_the_name_of_staging_and_not_its_mark_is_left_alone(world: World) -> None:
    """A FIFO, or a file of gigabytes, is no mark of ours."""
    staging = Path(Place(str(world.base / "project" / "api" / ".venv")).staging)
    for make in OBSTACLES.values():
        world.renew()
        staging.mkdir()
        make(staging / ".gitignore")
        shutil.rmtree(world.base / "project" / "api" / ".venv")
        assert world.flow() == 6
        assert os.path.lexists(staging / ".gitignore")


def test_an_index_that_cannot_be_opened_is_none_for_who_only_looks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may belong to somebody else, or be deleted between two looks."""
    (world.base / "store" / "index.db").unlink()
    real = os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: real(path) or str(path).endswith("index.db"))
    for words in ("status", "list", "stats"):
        assert world.run(words) == 0
