"""Taking sharing back, step by step: what a venv has of its own afterwards, and what is noted of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contents import open_store
from flows import World
from machines import Machine, machine

from venvflow.disk.descriptors import directory
from venvflow.disk.places import RECEIPT, write_receipt
from venvflow.disk.scan import walk
from venvflow.errors import LockTimeout
from venvflow.model import Receipt, StoreConfig
from venvflow.pure.sharing import is_moment
from venvflow.state.store import Store
from venvflow.steps import unshare as module
from venvflow.steps.unshare import unshare

__all__ = ["machine"]


@pytest.fixture
def shared(machine: Machine) -> Path:
    """Give a venv that is shared, with a mode that its file had alone."""
    venv = machine.venv("api")
    (machine.site(venv) / "demo/table.bin").chmod(0o640)
    machine.done("squish", venv)
    return venv


def files_of(venv: Path) -> list[Path]:
    """Return all files of a venv but links and the receipt."""
    files = (path for path in venv.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if path.name != RECEIPT]


@pytest.mark.parametrize("link", ["hardlink", "copy"])
def test_files_keep_their_times_and_get_their_modes_back(machine: Machine, link: str) -> None:
    """Bytecode stays valid, and whom a mode kept out is kept out again."""
    venv = machine.venv("api")
    table = machine.site(venv) / "demo/table.bin"
    table.chmod(0o640)
    times = {path: path.stat().st_mtime_ns for path in files_of(venv)}
    machine.done("squish", venv, "--link", link)
    other = {
        path: path.stat().st_mtime_ns for path in files_of(venv) if not is_moment(path.stat().st_mtime_ns)
    }
    written = {venv / "pyvenv.cfg", venv / "bin/demo", *venv.glob("lib/*/site-packages/*/RECORD")}
    assert other.keys() == {table, *written}
    assert {other[path] for path in written} == {max(times[path] for path in written)}
    edited = machine.site(venv) / "demo/__init__.py"
    edited.unlink()
    edited.write_bytes(b"EDITED = 1\n")
    times[edited] = edited.stat().st_mtime_ns
    machine.done("squish", venv, "--link", link)  # what was noted the first time counts, but of new files
    machine.done("unsquish", venv)
    bytecode = {path for path in files_of(venv) if path.suffix == ".pyc"}
    assert {path: path.stat().st_mtime_ns for path in {*files_of(venv)} - bytecode} == times
    assert bytecode
    for path in bytecode:
        source = path.parent.parent / f"{path.name.partition('.')[0]}.py"
        assert path.read_bytes()[8:12] == int(source.stat().st_mtime).to_bytes(4, "little")
    assert {path.stat().st_nlink for path in files_of(venv)} == {1}
    assert table.stat().st_mode & 0o7777 == 0o640
    assert not (venv / RECEIPT).exists()


def test_what_a_killed_run_left_goes(machine: Machine, shared: Path) -> None:
    """Files and links with our temporary names; nothing else that is called nearly so."""
    site = machine.site(shared)
    (site / ".vf-1-1").touch()
    (site / ".vf-1-2").symlink_to("nowhere")
    (site / ".vf-mine").touch()
    machine.done("unsquish", shared)
    assert [path.name for path in site.glob(".vf-*")] == [".vf-mine"]


def test_copies_are_on_disk_before_the_sharing_is_forgotten(
    machine: Machine, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut in between leaves a venv that the store still knows."""
    events: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        real = getattr(module, name)

        def work(*args: Any) -> Any:
            events.append(name)
            return real(*args)

        return work

    for name in ("_make_private", "sync_file_system", "_forget"):
        monkeypatch.setattr(module, name, noted(name))
    machine.done("unsquish", shared)
    assert events == ["_make_private", "sync_file_system", "_forget"]


def test_nobody_sweeps_meanwhile(machine: Machine, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The objects that are copied are needed until the last one is."""
    real, refused = module._copy, []

    def watched(*args: Any) -> None:
        with Store(StoreConfig(str(machine.store)), timeout=0) as store, pytest.raises(LockTimeout):
            store.alone().__enter__()
        refused.append(True)
        real(*args)

    monkeypatch.setattr(module, "_copy", watched)
    machine.done("unsquish", shared)
    assert refused


def test_a_file_that_another_one_replaced_keeps_its_mode(tmp_path: Path) -> None:
    """What was found is not there any more: the mode was the other's."""
    (tmp_path / "file").write_bytes(b"found")
    (found,) = walk(str(tmp_path))
    (tmp_path / "file").unlink()
    (tmp_path / "file").write_bytes(b"another")
    (tmp_path / "file").chmod(0o644)
    with directory(str(tmp_path)) as fd:
        module._set_mode((fd, "file"), found, 0o600)
        assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o644
        (found,) = walk(str(tmp_path))
        module._set_mode((fd, "file"), found, 0o600)
        assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o600


def test_files_that_share_a_spare_of_an_object_get_their_own(machine: Machine, shared: Path) -> None:
    """Where an object has all the links that a file can have, the next ones are of a spare.

    Without a receipt, only the store knows which files are its own.
    """
    data = machine.site(shared) / "demo/data.py"
    with open_store(machine.store) as store:
        (name,) = [name for name, st in store.objects.names() if st.st_ino == data.stat().st_ino]
        spare = store.objects.spare(store.objects.path(name))
    assert spare is not None
    data.unlink()
    os.link(spare, data)
    (shared / RECEIPT).unlink()
    machine.done("unsquish", shared)
    assert data.stat().st_nlink == 1


def test_a_venv_of_doit_is_noted_as_one_that_was_copied(tmp_path: Path) -> None:
    """Not as built: its files may be open, and must be copied should they be shared again."""
    world = World(tmp_path, tmp_path / "house")
    world.configure({"api": {}})
    world.lock("api", world.wheel("alpha"))
    world.run()
    job = world.job()
    before = job.place.receipt()
    assert before is not None
    assert before.trees
    write_receipt(job.place.path, replace(before, made="built", private={"lib/x": "a" * 64}), sync=False)
    with job.open_store() as store:
        assert unshare(job, store, on_file=lambda *_: None).did == "unsquished"
        assert store.registration(job.place.path) is None
    after = job.place.receipt()
    assert isinstance(after, Receipt)
    assert (after.made, after.state) == ("restored", "built")
    assert (after.trees, after.link, after.modes, after.private) == ((), "", {}, {})
