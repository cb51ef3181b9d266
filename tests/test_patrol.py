"""Patrol: whose files a run looks at, in what order, how far, and what it remembers of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from contents import MTIME_NS, open_store, stock

from venvflow import config as configs
from venvflow.disk.scan import walk
from venvflow.model import Receipt
from venvflow.state.looks import Looks, read_looks, write_looks
from venvflow.state.witness import witness_of
from venvflow.steps.job import Job
from venvflow.steps.patrol import Post, forget, patrol

NAMES = ("a", "b", "c", "d")
FILES = {"lib/one.py": b"ONE = 1\n", "lib/two.py": b"TWO = 2\n", "lib/three.py": b"THREE = 3\n"}
EACH = len(FILES)


class Fleet:
    """A project of venvs that are copies of one tree, each with files of its own; all edited if asked to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with open_store(root / "store") as store:
            (self.tree,) = stock(store, FILES).trees
        text = "version: 1\nstore: {path: store, durability: none}\nvenvs:\n"
        for name in NAMES:
            (root / f"{name}.txt").write_text("", encoding="ascii")
            text += f"  {name}: {{path: {name}/.venv, locks: [{name}.txt]}}\n"
        (root / "venvflow.yaml").write_text(text, encoding="ascii")
        (root / ".venvflow").mkdir()
        self.config = configs.load(str(root / "venvflow.yaml"), str(root), {})
        self.posts = [self._post(name) for name in NAMES]
        self.looks = root / ".venvflow" / ".looks"
        self.next = root / ".venvflow" / ".next"

    def _post(self, name: str) -> Post:
        venv = self.root / name / ".venv"
        (venv / "lib").mkdir(parents=True)
        for path, data in FILES.items():
            (venv / path).write_bytes(data)
            os.utime(venv / path, ns=(MTIME_NS, MTIME_NS))
        seen = witness_of(walk(str(venv)))
        receipt = Receipt(
            "key", str(venv), "shared", "built", trees=(self.tree.digest,), link="copy", witness=seen
        )
        return Post(Job(self.config, self.config.venvs[name], {}, lambda: 0.0), receipt)

    def edit(self, *names: str) -> None:
        """Edit a file of each of these venvs in place."""
        for name in names:
            (self.root / name / ".venv" / "lib/one.py").write_bytes(b"EDITED\n")

    def lose_tree(self) -> None:
        """Lose what the venvs were made of."""
        shutil.rmtree(self.root / "store" / "trees")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Give a fleet in which nothing was edited, and which has been looked at once."""
    fleet = Fleet(tmp_path)
    assert patrol(fleet.posts) == frozenset()
    return fleet


def test_a_small_project_is_looked_at_as_a_whole(fleet: Fleet) -> None:
    """On every run; nobody's turn is left for the next one."""
    for name in NAMES:
        fleet.edit(name)
        assert name in patrol(fleet.posts)
    assert not fleet.next.exists()


def test_beyond_the_budget_venvs_wait_for_their_turn(fleet: Fleet) -> None:
    """A run goes on where the last one ended, around and around; the venv it is at is finished."""
    fleet.edit(*NAMES)
    seen = ["".join(sorted(patrol(fleet.posts, budget=EACH + 1))) for _ in range(4)]
    assert seen == ["ab", "cd", "ab", "cd"]
    seen = ["".join(sorted(patrol(fleet.posts, budget=2 * EACH + 1))) for _ in range(5)]
    assert seen == ["abc", "abd", "acd", "bcd", "abc"]


def test_a_budget_is_never_too_small_for_one_venv(fleet: Fleet) -> None:
    """Or it would never be looked at."""
    fleet.edit(*NAMES)
    assert [list(patrol(fleet.posts, budget=1)) for _ in range(5)] == [["a"], ["b"], ["c"], ["d"], ["a"]]


def test_who_is_asked_for_is_looked_at_whatever_the_budget(fleet: Fleet) -> None:
    """And nobody loses their turn by it."""
    fleet.edit(*NAMES)
    assert patrol(fleet.posts, budget=1) == {"a"}
    assert patrol(fleet.posts[2:], budget=1, whole=True) == {"c", "d"}
    assert patrol(fleet.posts, budget=1) == {"b"}


@pytest.mark.parametrize("turn", ["gone", "", "\udcff", "x" * 5000])
def test_a_turn_that_makes_no_sense_begins_anew(fleet: Fleet, turn: str) -> None:
    """The venv may have left the config; the file may hold anything."""
    fleet.edit(*NAMES)
    fleet.next.write_bytes(turn.encode("utf-8", "surrogateescape"))
    assert patrol(fleet.posts, budget=1) == {"a"}


def test_what_trees_say_is_read_once(fleet: Fleet) -> None:
    """The second run does without the store's trees, and sees the same."""
    fleet.lose_tree()
    fleet.edit("c")
    before = fleet.looks.stat().st_mtime_ns
    assert patrol(fleet.posts) == {"c"}
    assert fleet.looks.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["gone", "cut short", "a directory"])
def test_what_a_project_remembers_may_be_lost(fleet: Fleet, damage: str) -> None:
    """It is learnt again."""
    whole = fleet.looks.read_bytes()
    fleet.looks.unlink()
    if damage == "cut short":
        fleet.looks.write_bytes(whole[:-7])
    elif damage == "a directory":
        fleet.looks.mkdir()
    fleet.edit("b")
    assert patrol(fleet.posts) == {"b"}
    assert damage == "a directory" or fleet.looks.read_bytes() == whole


def test_to_learn_counts_against_the_budget(fleet: Fleet) -> None:
    """Trees are read slowly: a run that has many to learn leaves the rest to the next."""
    fleet.edit(*NAMES)
    fleet.looks.unlink()
    assert patrol(fleet.posts, budget=4 * EACH) == {"a"}
    assert patrol(fleet.posts, budget=4 * EACH) == {"a", "b", "c", "d"}


def test_what_no_venv_needs_any_more_is_forgotten_when_something_new_is_learnt(fleet: Fleet) -> None:
    """Not before, and never because of a run for one venv."""
    store = str(fleet.root / "store")
    old = Looks(["lib/old.py"], [""], [1], [MTIME_NS], [0o444])
    write_looks(str(fleet.looks), store, {"0" * 64: old})
    patrol(fleet.posts[:1], whole=True)
    assert read_looks(str(fleet.looks), store).keys() == {"0" * 64, fleet.tree.digest}
    write_looks(str(fleet.looks), store, {"0" * 64: old})
    patrol(fleet.posts)
    assert read_looks(str(fleet.looks), store).keys() == {fleet.tree.digest}


def test_without_the_tree_a_venv_is_compared_with_its_witness(fleet: Fleet) -> None:
    """Nobody knows what it was made of; that something changed still shows."""
    fleet.lose_tree()
    fleet.looks.unlink()
    assert patrol(fleet.posts) == frozenset()
    fleet.edit("d")
    assert patrol(fleet.posts) == {"d"}


def test_a_look_makes_no_store(fleet: Fleet) -> None:
    """Where there is none, there is none afterwards."""
    fleet.looks.unlink()
    shutil.rmtree(fleet.root / "store")
    assert patrol(fleet.posts) == frozenset()
    assert not (fleet.root / "store").exists()


def test_no_venvs_are_no_suspects() -> None:
    """Nothing is looked at, and nothing is written."""
    assert patrol([]) == frozenset()


def test_what_is_remembered_wrongly_can_be_forgotten(fleet: Fleet) -> None:
    """Else every run would think that the venv looks changed."""
    looks = read_looks(str(fleet.looks), str(fleet.root / "store"))[fleet.tree.digest]
    wrong = looks._replace(sizes=[size + 1 for size in looks.sizes])
    write_looks(str(fleet.looks), str(fleet.root / "store"), {fleet.tree.digest: wrong})
    assert patrol(fleet.posts[:1]) == {"a"}
    forget(fleet.posts[0].job.config)
    assert patrol(fleet.posts[:1]) == frozenset()
