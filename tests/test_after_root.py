"""Root worked in somebody's project: he is kept from it, and what he left can be given back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_project import Project
from contents import NOBODY, for_everybody, in_child, needs_root, open_store, picture, snapshot_of, stock
from tiers import first_quick

from venvflow.disk import locks
from venvflow.disk.places import Place
from venvflow.errors import EnvironmentFailure, Refused, VenvflowError
from venvflow.steps.state_files import write_json

pytestmark = [pytest.mark.root, needs_root]


@pytest.mark.slow
def test_sudo_is_refused_before_anything_is_made(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would make were root's, and lock the project's owner out; the variable allows it."""
    os.chown(project.root, NOBODY, NOBODY)
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    before = picture(project.root)
    answer = project.run("restore", "api")
    assert (answer.code, "without sudo" in answer.err) == (6, True)
    assert picture(project.root) == before
    assert project.run("list").code == 0
    monkeypatch.setenv("VENVFLOW_TRUST", str(project.root))
    assert project.run("restore", "api").code == 0


@pytest.fixture
def home() -> Iterator[Path]:
    """Give a directory of an ordinary user's, with what a run as root left in it."""
    with for_everybody() as place:
        home = place / "home"
        home.mkdir()
        with open_store(home / "store") as store:
            store.publish(snapshot_of(stock(store, {"a": b"a"})), 1.0)
        (home / "p/.venvflow/api").mkdir(parents=True)
        (home / "p/.venv").mkdir()
        (home / "p/.venv/pyvenv.cfg").touch()
        for path in (home, *home.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        yield home


def store_more(home: Path) -> None:
    """Put something into the store."""
    with open_store(home / "store") as store:
        store.publish(snapshot_of(stock(store, {name: name.encode() for name in "bcdefgh"}), 2), 2.0)


LEFT: dict[str, Callable[[Path], object]] = {
    "p/.venvflow": lambda home: write_json(str(home / "p/.venvflow/api/key.json"), {}),
    "p/.venvflow/api": lambda home: locks.exclusive(str(home / "p/.venvflow/api/lock"), timeout=0, what="it"),
    "store/snapshots": store_more,
    "store/locks": lambda home: locks.exclusive(str(home / "store/locks/x"), timeout=0, what="it"),
}


@pytest.mark.parametrize("left", first_quick(LEFT))
def test_what_root_left_is_named_with_the_command_that_gives_it_back(home: Path, left: str) -> None:
    """And after that command, the same action works."""
    act = LEFT[left]
    theirs = [home / left, *(home / left).rglob("*")]
    for path in theirs:
        os.chown(path, 0, 0)

    def refused() -> None:
        with pytest.raises(EnvironmentFailure) as caught:
            act(home)
        assert f"sudo chown -R {NOBODY}: {home / left}" in caught.value.hint, caught.value

    assert in_child(refused, user=NOBODY) == 0
    for path in theirs:
        os.chown(path, NOBODY, -1)
    assert in_child(lambda: act(home), user=NOBODY) == 0


def test_a_venv_that_root_made_is_named_with_the_command_that_deletes_it(home: Path) -> None:
    """It is not to be given back: its files may be those of root's store."""
    venv = home / "p/.venv"
    os.chown(venv, 0, 0)

    def refused() -> None:
        place = Place(str(venv))
        with pytest.raises(Refused) as caught:
            place.refuse_unless_replaceable(place.state())
        assert f"sudo rm -r {venv}" in caught.value.hint

    assert in_child(refused, user=NOBODY) == 0


def test_what_is_no_gift_of_root_is_not_asked_for(home: Path) -> None:
    """A directory of the system's is not to be given to anybody."""

    def refused() -> None:
        with pytest.raises(VenvflowError) as caught:
            write_json("/usr/share/no/such/key.json", {})
        assert "chown" not in caught.value.hint

    assert in_child(refused, user=NOBODY) == 0
