"""Venvs of a project, acted on by path: doit's own view of them stays right."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cli_project import Project, project, stock
from contents import time_of

from venvflow.disk.places import Place
from venvflow.flow import load
from venvflow.state.store import Store
from venvflow.steps.squish import squish
from venvflow.steps.store import store

pytestmark = pytest.mark.slow

__all__ = ["project", "stock"]


@pytest.fixture
def restored(project: Project) -> Project:
    """Give a project whose venv ``api`` is in its place, shared."""
    assert project.run("restore", "api").code == 0
    return project


def state(project: Project) -> tuple[str, str]:
    """Return what status says of the venv."""
    (row,) = project.run("status", "api", "--json").document["venvs"]
    return row["state"], row["reason"]


def module(project: Project) -> Path:
    """Return a source of the venv that is shared."""
    return next(path for path in project.site.glob("*.py") if path.stat().st_nlink > 1)


def test_squish_of_what_doit_shared_has_nothing_to_do(restored: Project) -> None:
    """By name as well as by path."""
    for word in ("api", "api/.venv"):
        (answer,) = restored.run("squish", word, "--json").document["venvs"]
        assert answer["did"] == "kept"
    assert state(restored)[0] == "up to date"


def test_squish_leaves_what_was_added_by_hand_private(restored: Project) -> None:
    """And doit still sees it."""
    (restored.site / "mine.py").write_text("MINE = 1\n", encoding="utf-8")
    answer = restored.run("squish", "api")
    assert answer.code == 0
    assert "mine.py" in answer.err
    assert (restored.site / "mine.py").stat().st_nlink == 1
    assert state(restored)[0] == "changed by hand"


def test_squish_by_path_refuses_what_was_edited_while_it_was_not_shared(restored: Project) -> None:
    """Whoever made the venv: it would be taken for what its key says, and others would get the edit."""
    shutil.rmtree(restored.root.parent / "store/snapshots")
    assert restored.run("store", "api").code == 0
    for made in ("restored", "shared"):
        assert restored.run("unsquish", "api").code == 0
        file = restored.root / "api/.venv/.venvflow.json"
        file.write_text(file.read_text().replace('"made": "restored"', f'"made": "{made}"'))
        (restored.site / "mine.py").write_text("MINE = 1\n", encoding="utf-8")
        answer = restored.run("squish", "api/.venv")
        assert (answer.code, "changed by hand" in answer.err) == (6, True), made
        (restored.site / "mine.py").unlink()
        assert restored.run("squish", "api/.venv").code == 0


def test_after_unsquish_doit_shares_again_but_does_not_build(restored: Project) -> None:
    """The venv is for its key, its files are its own, and nothing looks changed by hand."""
    venv = restored.root / "api/.venv"
    path = module(restored)
    assert restored.run("unsquish", "api").code == 0
    assert path.stat().st_nlink == 1
    assert state(restored) == ("up to date", "not shared yet")
    with Store(load(str(restored.root), os.environ).config.store) as opened:
        assert opened.registration(str(venv)) is None
    receipt = Place(str(venv)).receipt()
    assert receipt is not None
    assert (receipt.state, receipt.made) == ("built", "restored")
    flow = load(str(restored.root), os.environ)
    assert not flow.is_due("restore", "api")
    assert not flow.is_due("build-venv", "api")
    assert flow.is_due("squish", "api")
    assert squish(flow.job("api")).did == "squished"
    assert path.stat().st_nlink > 1
    assert store(flow.job("api")).did == "kept"


def test_what_was_edited_after_unsquish_is_not_shared_as_if_it_were_the_lock(restored: Project) -> None:
    """The next doit refuses, with the store and without it."""
    assert restored.run("unsquish", "api").code == 0
    path = next(restored.site.glob("*.py"))
    path.write_text("EDITED = 1\n", encoding="utf-8")
    assert restored.run("store", "api").code == 6
    shutil.rmtree(restored.store)
    assert restored.run("store", "api").code == 6


def test_status_sees_an_edit_in_place(restored: Project) -> None:
    """No directory changed; the file's time did."""
    path = module(restored)
    receipt = Place(str(restored.root / "api/.venv")).receipt()
    assert receipt is not None
    path.chmod(0o644)
    path.write_text("EDITED = 1\n", encoding="utf-8")
    assert Place(str(restored.root / "api/.venv")).has_same_directories(receipt)
    what, why = state(restored)
    assert what == "changed by hand"
    assert path.name in why


def test_status_sees_a_package_that_was_installed(restored: Project) -> None:
    """By the directory that changed."""
    info = restored.site / "extra-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: extra\n", encoding="utf-8")
    what, why = state(restored)
    assert (what, "extra 1.0" in why) == ("changed by hand", True)


def test_a_venv_of_another_tool_stays_another_tools(project: Project) -> None:
    """Squished by path, it is still not doit's to replace; store makes it so."""
    venv = project.make_foreign_venv("web")
    (venv / "big.bin").write_bytes(b"x" * 5000)
    assert project.run("squish", "web").code == 0
    place = Place(str(venv))
    receipt = place.receipt()
    assert receipt is not None
    assert (receipt.key, receipt.state, place.state()) == ("", "shared", "venv")
    (row,) = project.run("status", "web", "--json").document["venvs"]
    assert row["state"] == "not ours"
    assert (venv / "big.bin").stat().st_mtime_ns == time_of(b"x" * 5000)


def test_the_settings_of_the_config_hold(project: Project) -> None:
    """For a venv that the config names, made by another tool."""
    text = project.config.read_text(encoding="utf-8").replace(
        "locks: [web/requirements.txt]",
        "locks: [web/requirements.txt], exclude: ['*.skip'], squish: {min_size: 4KiB}",
    )
    project.config.write_text(text, encoding="utf-8")
    venv = project.make_foreign_venv("web")
    for name, size in (("a.skip", 9000), ("small.bin", 2000), ("large.bin", 9000)):
        (venv / name).write_bytes(os.urandom(size))
    assert project.run("squish", "web/.venv").code == 0
    links = {name: (venv / name).stat().st_nlink for name in ("a.skip", "small.bin", "large.bin")}
    assert links == {"a.skip": 1, "small.bin": 1, "large.bin": 2}


def test_neither_trim_nor_erase_deletes_what_a_venv_of_symlinks_needs(project: Project) -> None:
    """Its files are in the store alone."""
    venv = project.make_foreign_venv("web")
    data = os.urandom(9000)
    (venv / "large.bin").write_bytes(data)
    assert project.run("squish", "web", "--link", "symlink").code == 0
    assert (venv / "large.bin").is_symlink()
    assert project.run("erase", "--yes").code == 0
    assert project.run("trim").code == 0
    assert (venv / "large.bin").read_bytes() == data
    assert project.run("verify", "--full").code == 0


def test_trim_keeps_what_a_squished_venv_needs_until_it_is_gone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its registration: no snapshot names it."""
    venv = project.make_foreign_venv("web")
    data = os.urandom(9000)
    (venv / "large.bin").write_bytes(data)
    assert project.run("squish", "web").code == 0
    (kept,) = [path for path in project.store.glob("objects/*/*") if path.read_bytes() == data]
    assert project.run("trim").code == 0
    assert kept.exists()
    aside = project.store / "quarantine"
    aside.mkdir(exist_ok=True)
    (aside / "old").write_bytes(b"damaged")
    assert project.run("trim").code == 0
    assert (aside / "old").exists()
    monkeypatch.setattr("venvflow.state.sweeping.QUARANTINE_SECONDS", -60)
    shutil.rmtree(venv)
    assert project.run("trim").code == 0
    assert not kept.exists()
    assert not (aside / "old").exists()
