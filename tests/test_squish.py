"""``squish`` and ``unsquish`` from the inside: what is looked at last, and what is done before what."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from contents import open_store
from machines import Machine, machine

from venvflow.disk.scan import Found, walk
from venvflow.state.relink import Relinker
from venvflow.steps import share, unshare

__all__ = ["machine"]


@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_what_is_written_while_unsquish_copies_is_kept(
    machine: Machine, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last look is after the copy: a file that somebody replaced meanwhile is his, and is named."""
    venv = machine.venv("api")
    machine.done("squish", venv, "--link", link)
    mine = machine.site(venv) / "demo/data.py"
    real = unshare._copy

    def overtaken(source: str, name: str, fd: int, mode: int) -> None:
        real(source, name, fd, mode)
        if os.path.samestat(os.stat(source, dir_fd=fd), mine.stat()):
            (venv / "new").write_bytes(b"DATA = 'mine'\n")
            os.replace(venv / "new", mine)

    monkeypatch.setattr(unshare, "_copy", overtaken)
    answer = machine.run("unsquish", venv)
    assert mine.read_bytes() == b"DATA = 'mine'\n"
    assert not list(venv.rglob(".vf-*"))
    assert answer.code == 0
    monkeypatch.setattr(unshare, "_copy", real)
    machine.done("unsquish", venv)
    assert mine.read_bytes() == b"DATA = 'mine'\n"


@pytest.mark.parametrize("command", ["squish", "unsquish"])
def test_who_uses_a_venv_whose_files_are_replaced_is_named(
    machine: Machine, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has old files open and may import new ones: whoever wonders about that finds the process."""
    venv = machine.venv("api")
    if command == "unsquish":
        machine.done("squish", venv)
    asked: list[str] = []

    def used(path: str) -> list[int]:
        asked.append(path)
        return [4711]

    for module in (share, unshare):
        monkeypatch.setattr(module, "occupants", used)
    answer = machine.done(command, venv)
    assert set(asked) == {str(venv)}
    assert "in use by process 4711: it keeps the files it has open" in answer.err


@pytest.mark.parametrize("above", [1, 2])
def test_unsquish_follows_no_link_that_is_put_in_the_way_meanwhile(
    machine: Machine, tmp_path: Path, above: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies behind it is somebody else's, with its modes, and what is called as our litter."""
    venv = machine.venv("api")
    machine.done("squish", venv)
    replaced = (machine.site(venv) / "demo/data.py").parents[above - 1]
    (machine.site(venv) / "demo/.vf-1-1").touch()
    elsewhere = tmp_path / "elsewhere"
    real = walk

    def overtaken(root: str) -> list[Found]:
        found = real(root)
        if not elsewhere.exists():
            replaced.rename(elsewhere)
            replaced.symlink_to(elsewhere)
        return found

    monkeypatch.setattr(unshare, "walk", overtaken)
    before = {path: path.lstat() for path in machine.site(venv).rglob("*")}
    answer = machine.run("unsquish", venv)
    assert answer.code == 3, answer.err
    after = {path: path.lstat() for path in elsewhere.rglob("*")}
    assert sorted(st.st_mode for st in after.values()) == sorted(
        st.st_mode for path, st in before.items() if replaced in path.parents
    )
    assert [*elsewhere.rglob(".vf-1-1")]


@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_a_venv_is_registered_before_any_name_becomes_a_link(
    machine: Machine, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever trims after a kill must know what the links need."""
    venv = machine.venv("api")
    registered: list[tuple[str, bool]] = []
    real = Relinker.relink

    def relink(self: Relinker, *args: Any, **kwargs: Any) -> Any:
        with open_store(machine.store) as store:
            registered.extend((each.path, bool(each.trees)) for each in store.registrations())
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Relinker, "relink", relink)
    machine.done("squish", venv, "--link", link)
    assert registered == [(str(venv), True)]
