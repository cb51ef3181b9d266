"""Trim by each limit, in a real store: what goes, what stays, and what the file system gets back."""

from __future__ import annotations

import os
import re
import shutil
import time
from typing import Any

import pytest
from scenario import Machine, Project, manifest_of


def _history(
    machine: Machine, trim: dict[str, Any], versions: int, size: int = 60_000, **settings: Any
) -> Project:
    """Return a project whose one venv went through *versions* locks, the last being the current one.

    Nothing was trimmed meanwhile. Each version has a file of its own of *size* bytes.
    """
    project = machine.project("p", {"api": {}}, trim={"keep": 100}, **settings)
    name = f"bulk{os.urandom(4).hex()}"
    for number in range(versions):
        blob = os.urandom(size)
        wheel = machine.wheel(
            name, f"{number}.0", modules={"bulk.py": f"N = {number}\n"},
            data={"bulk.bin": blob}, scripts={},
        )  # fmt: skip
        project.lock("api", wheel)
        project.doit()
    project.configure({"api": {}}, trim=trim, **settings)
    return project


def _versions(machine: Machine) -> list[str]:
    rows = machine.query("SELECT version FROM package_usage WHERE package LIKE 'bulk%' ORDER BY version")
    return [row[0].split(".")[0] for row in rows]


def _trim(project: Project) -> str:
    project.doit("forget", "trim")
    return project.doit().did.get("trim", "")


@pytest.mark.slow
def test_every_limit_drops_the_oldest_that_it_may(machine: Machine) -> None:
    """The current key's snapshot always stays; the rest goes by last use, as far as asked for."""
    project = _history(machine, {}, versions=5)
    stages: list[tuple[dict[str, Any], str]] = [
        ({"keep_per_venv": 1, "max_age": "30d", "max_size": "1GiB"}, "01234"),
        ({"keep": 4, "keep_per_venv": 1}, "1234"),
        ({"keep": 1, "keep_per_venv": 3}, "234"),
        ({"keep": 1, "keep_per_venv": 2}, "34"),
        ({"keep_per_venv": 2, "max_size": "1KiB", "min_free": "900TiB"}, "4"),
    ]
    for policy, kept in stages:
        project.configure({"api": {}}, trim=policy)
        _trim(project)
        assert "".join(_versions(machine)) == kept, policy
        assert len(machine.snapshots()) == len(kept)
    before = manifest_of(project.venv("api"))
    shutil.rmtree(project.venv("api"))
    assert project.doit().did["restore:api"].startswith("hit")
    assert manifest_of(project.venv("api")) == before
    assert project.doit().nothing_to_do


def test_max_size_counts_what_the_store_occupies(machine: Machine) -> None:
    """Snapshots go, oldest first, until the store is small enough."""
    settings = {"durability": "none", "adopt": False}
    project = _history(machine, {"keep": 100}, versions=3, size=400_000, store=settings)
    project.configure({"api": {}}, trim={"keep_per_venv": 1, "max_size": "1150KiB"}, store=settings)
    _trim(project)
    assert "".join(_versions(machine)) == "12"


def test_what_was_used_last_stays(machine: Machine) -> None:
    """A restore counts as use: the least recently used snapshot goes, not the oldest."""
    project = _history(machine, {"keep": 100}, versions=3)
    lock = project.root / "api" / "requirements.txt"
    newest = lock.read_bytes()
    (oldest,) = machine.wheelhouse.glob(f"{newest.decode().split('==', 1)[0]}-0.0-*.whl")
    project.lock("api", oldest)
    assert project.doit().did["restore:api"].startswith("hit")
    lock.write_bytes(newest)
    assert project.doit().did["restore:api"].startswith("hit")
    project.configure({"api": {}}, trim={"keep": 2, "keep_per_venv": 1})
    _trim(project)
    assert "".join(_versions(machine)) == "02"


@pytest.mark.slow
def test_max_age_counts_from_the_last_use(machine: Machine) -> None:
    """Snapshots that nobody used for so long go."""
    project = _history(machine, {"keep_per_venv": 1, "max_age": "2s"}, versions=3)
    time.sleep(2.2)
    _trim(project)
    assert _versions(machine) == ["2"]


def test_pinned_venvs_keep_all_their_snapshots(machine: Machine) -> None:
    """``pin: true`` beats every limit."""
    project = _history(machine, {}, versions=3)
    project.configure({"api": {"pin": True}}, trim={"keep": 1, "keep_per_venv": 1, "max_size": "1KiB"})
    _trim(project)
    assert _versions(machine) == ["0", "1", "2"]


@pytest.mark.parametrize("link", ["hardlink", "copy", "symlink"])
def test_the_bytes_reported_are_the_bytes_that_du_misses(machine: Machine, link: str) -> None:
    """What trim says it freed is what the file system has more, in the store and in all."""
    # Without adoption: what is linked to uv's cache frees nothing.
    settings = {"durability": "none", "link": [link], "adopt": False}
    project = _history(machine, {"keep": 1, "keep_per_venv": 1}, versions=3, store=settings)
    before = machine.occupied()
    project.doit("forget", "trim")
    line = project.doit("trim").did["trim"]
    after = machine.occupied()
    assert "2 of 3" in line
    freed = _bytes_in(line)
    assert freed >= 2 * 60_000
    # du counts directories and notes too, and the message is rounded to three digits or so.
    assert abs((before - after) - freed) <= 16_384 + 0.02 * freed, (line, before - after)


def _bytes_in(line: str) -> float:
    number, unit = line.rsplit(", ", 1)[-1].split()[:2]
    return float(number.replace(",", "")) * {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]


def test_a_venv_that_is_linked_by_symlinks_keeps_what_it_needs(machine: Machine) -> None:
    """Even when its snapshot was dropped by another project's policy, its files stay in the store."""
    settings = {"durability": "none", "link": ["symlink"]}
    one = machine.project("one", {"api": {}}, store=settings)
    one.lock("api", machine.wheel("alpha"))
    one.doit()
    for snapshot in (machine.store / "snapshots").iterdir():
        snapshot.unlink()
    two = machine.project("two", {"web": {}}, trim={"keep": 1, "keep_per_venv": 1})
    two.lock("web", machine.wheel("beta"))
    two.doit()
    assert one.output("api", "alpha") == "1.0"


def test_the_current_snapshot_of_another_project_is_never_dropped(machine: Machine) -> None:
    """A policy of one project does not make another one's venvs a miss."""
    one = machine.project("one", {"api": {}})
    one.lock("api", machine.wheel("alpha"))
    one.doit()
    two = machine.project("two", {"web": {}}, trim={"keep": 1, "keep_per_venv": 1, "max_size": "1KiB"})
    for version in ("1.0", "2.0", "3.0"):
        two.lock("web", machine.wheel("beta", version))
        two.doit()
    assert len(machine.snapshots()) == 2
    shutil.rmtree(one.venv("api"))
    assert one.doit().did["restore:api"].startswith("hit")


def test_trim_says_nothing_when_nothing_happened(machine: Machine) -> None:
    """After a trim the task is up to date until the store grows or a day passes."""
    project = _history(machine, {"keep": 1, "keep_per_venv": 1}, versions=2)
    assert "1 of 2" in _trim(project)
    assert project.doit().nothing_to_do
    noted = machine.store / "trim.json"
    noted.unlink()
    assert project.doit().nothing_to_do  # it ran, and dropped nothing
    assert noted.exists()
    project.doit("forget", "trim")
    assert project.doit("trim").did["trim"].startswith("dropped 0 of 1 ")  # who asks for it gets an answer


def test_litter_of_killed_runs_is_swept(machine: Machine) -> None:
    """Staging files in the store's ``tmp/`` go with the next trim."""
    project = _history(machine, {}, versions=1)
    litter = machine.store / "tmp" / "left-over"
    litter.mkdir()
    (litter / "file").write_bytes(bytes(10_000))
    _trim(project)
    assert os.listdir(machine.store / "tmp") == []


def test_deleting_a_project_lets_its_snapshots_go(machine: Machine) -> None:
    """Venvs whose project is gone hold nothing for long."""
    one = machine.project("one", {"api": {}})
    one.lock("api", machine.wheel("alpha"))
    one.doit()
    two = machine.project("two", {"web": {}}, trim={"keep": 1, "keep_per_venv": 1})
    two.lock("web", machine.wheel("beta"))
    two.doit()
    assert len(machine.snapshots()) == 2
    shutil.rmtree(one.root)
    _trim(two)
    assert len(machine.snapshots()) == 2
    for file in (machine.store / "holds").iterdir():
        file.write_text(re.sub(r"(\d+), [\d.]+\]", r"\1, 5.0]", file.read_text()))
    _trim(two)
    assert len(machine.snapshots()) == 1
    assert two.output("web", "beta") == "1.0"


def test_a_changed_policy_is_applied_by_the_next_run(machine: Machine) -> None:
    """Nothing has to be forgotten for it; and the run after that has nothing to do."""
    project = _history(machine, {"keep": 100}, versions=3)
    project.doit()
    assert project.doit().nothing_to_do
    project.configure({"api": {}}, trim={"keep": 1, "keep_per_venv": 1})
    assert "2 of 3" in project.doit().did["trim"]
    assert _versions(machine) == ["2"]
    assert project.doit().nothing_to_do


def test_a_venv_that_left_the_config_holds_nothing(machine: Machine) -> None:
    """Once its directory is deleted too, its snapshot is an old one like any other."""
    project = machine.project("p", {"api": {}, "old": {}})
    project.lock("api", machine.wheel("alpha"))
    project.lock("old", machine.wheel("beta"))
    project.doit()
    policy = {"keep": 1, "keep_per_venv": 0}
    project.configure({"api": {}}, trim=policy)
    _trim(project)
    assert len(machine.snapshots()) == 2  # its venv is still there
    shutil.rmtree(project.venv("old"))
    _trim(project)
    assert [each["venv"] for each in machine.snapshots()] == ["api"]
    assert project.output("api", "alpha") == "1.0"
