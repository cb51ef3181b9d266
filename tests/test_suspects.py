"""Suspects: whose files a run looks at, in what order, how far, and what it remembers of them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from contents import open_store, stock, time_of

from venvflow import config as configs
from venvflow.disk.scan import walk
from venvflow.model import Receipt
from venvflow.state import file_stats
from venvflow.state.file_stats import (
    TreeStats,
    digest_of_found,
    forget_stats,
    learn_stats,
    read_stats,
    suspect_venvs,
    write_stats,
)

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
        self.venvs = {name: self._receipt(name) for name in NAMES}
        self.stats = root / ".venvflow" / ".stats"
        self.next = root / ".venvflow" / ".next"

    def _receipt(self, name: str) -> Receipt:
        venv = self.root / name / ".venv"
        (venv / "lib").mkdir(parents=True)
        for path, data in FILES.items():
            (venv / path).write_bytes(data)
            os.utime(venv / path, ns=(time_of(data), time_of(data)))
        seen = digest_of_found(walk(str(venv)))
        return Receipt(
            "key", str(venv), "shared", "built", trees=(self.tree.digest,), link="copy", stats=seen
        )

    def only(self, *names: str) -> dict[str, Receipt]:
        """Return the receipts of these venvs."""
        return {name: self.venvs[name] for name in names}

    def edit(self, *names: str) -> None:
        """Edit a file of each of these venvs in place."""
        for name in names:
            (self.root / name / ".venv" / "lib/one.py").write_bytes(b"EDITED\n")

    def restore(self, *names: str) -> None:
        """Undo the edit of each of these venvs."""
        data = FILES["lib/one.py"]
        for name in names:
            (self.root / name / ".venv" / "lib/one.py").write_bytes(data)
            os.utime(self.root / name / ".venv" / "lib/one.py", ns=(time_of(data), time_of(data)))

    def lose_tree(self) -> None:
        """Lose what the venvs were made of."""
        shutil.rmtree(self.root / "store" / "trees")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Give a fleet in which nothing was edited, and which has been looked at once."""
    fleet = Fleet(tmp_path)
    assert suspect_venvs(fleet.config, fleet.venvs) == frozenset()
    return fleet


def test_a_small_project_is_looked_at_as_a_whole(fleet: Fleet) -> None:
    """On every run; nobody's turn is left for the next one."""
    for name in NAMES:
        fleet.edit(name)
        assert name in suspect_venvs(fleet.config, fleet.venvs)
    assert not fleet.next.exists()


def test_beyond_the_budget_venvs_wait_for_their_turn(fleet: Fleet) -> None:
    """A run goes on where the last one ended, around and around."""
    assert suspect_venvs(fleet.config, fleet.venvs, budget=2 * EACH) == frozenset()
    fleet.edit("b", "d")
    seen = [{*suspect_venvs(fleet.config, fleet.venvs, budget=2 * EACH)} for _ in range(3)]
    assert seen == [{"d"}, {"d"}, {"b", "d"}]


def test_what_was_found_changed_is_told_by_each_run_until_it_is_undone(fleet: Fleet) -> None:
    """Whoever's turn it is meanwhile."""
    fleet.edit("a", "c")
    seen = ["".join(sorted(suspect_venvs(fleet.config, fleet.venvs, budget=1))) for _ in range(6)]
    assert seen == ["a", "a", "ac", "ac", "ac", "ac"]
    fleet.restore("a")
    assert suspect_venvs(fleet.config, fleet.venvs, budget=1) == {"c"}


def test_a_large_venv_is_looked_at_tree_by_tree(fleet: Fleet) -> None:
    """One that is larger than the budget of a run shows its edits within as many runs as it takes."""
    with open_store(fleet.root / "store") as store:
        trees = [stock(store, {f"lib/{name}.py": name.encode()}).trees[0].digest for name in "wxyz"]
    venv = Path(fleet.venvs["a"].path)
    for name in "wxyz":
        (venv / f"lib/{name}.py").write_bytes(name.encode())
        os.utime(venv / f"lib/{name}.py", ns=(time_of(name.encode()), time_of(name.encode())))
    only = {"a": replace(fleet.venvs["a"], trees=(*trees, fleet.tree.digest))}
    assert [suspect_venvs(fleet.config, only, budget=1) for _ in range(5)] == [frozenset()] * 5
    (venv / "lib/z.py").write_bytes(b"edited")
    assert [{*suspect_venvs(fleet.config, only, budget=1)} for _ in range(5)] == [*[set()] * 3, *[{"a"}] * 2]


def test_a_budget_is_never_too_small_for_one_venv(fleet: Fleet) -> None:
    """Or it would never be looked at."""
    fleet.edit(*NAMES)
    seen = ["".join(sorted(suspect_venvs(fleet.config, fleet.venvs, budget=1))) for _ in range(5)]
    assert seen == ["a", "ab", "abc", "abcd", "abcd"]


def test_who_is_asked_for_is_looked_at_whatever_the_budget(fleet: Fleet) -> None:
    """And nobody loses their turn by it."""
    fleet.edit(*NAMES)
    assert suspect_venvs(fleet.config, fleet.venvs, budget=1) == {"a"}
    assert suspect_venvs(fleet.config, fleet.only("c", "d"), budget=1, whole=True) == {"c", "d"}
    assert suspect_venvs(fleet.config, fleet.venvs, budget=1) == {"a", "b"}


@pytest.mark.parametrize(
    "turn",
    [
        "", "\udcff", "x" * 5000, '{"first": ["gone", 0], "changed": {}}',
        '{"first": ["d", 9], "changed": {}}',
        '{"first": ["a", -1], "changed": {}}', '{"first": ["a", 0], "changed": {"gone": 0, "d": 7}}', "[1]",
    ],
)  # fmt: skip
def test_a_turn_that_makes_no_sense_begins_anew(fleet: Fleet, turn: str) -> None:
    """The venv may have left the config; the file may hold anything."""
    fleet.edit(*NAMES)
    fleet.next.write_bytes(turn.encode("utf-8", "surrogateescape"))
    assert suspect_venvs(fleet.config, fleet.venvs, budget=1) == {"a"}


def test_what_trees_say_is_read_once(fleet: Fleet) -> None:
    """The second run does without the store's trees, and sees the same."""
    fleet.lose_tree()
    fleet.edit("c")
    before = fleet.stats.stat().st_mtime_ns
    assert suspect_venvs(fleet.config, fleet.venvs) == {"c"}
    assert fleet.stats.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["gone", "cut short", "a directory"])
def test_what_a_project_remembers_may_be_lost(fleet: Fleet, damage: str) -> None:
    """It is learnt again."""
    whole = fleet.stats.read_bytes()
    fleet.stats.unlink()
    if damage == "cut short":
        fleet.stats.write_bytes(whole[:-7])
    elif damage == "a directory":
        fleet.stats.mkdir()
    fleet.edit("b")
    assert suspect_venvs(fleet.config, fleet.venvs) == {"b"}
    assert damage == "a directory" or fleet.stats.read_bytes() == whole


def test_to_learn_counts_against_the_budget(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees are read slowly, once for all runs: one that has many to learn leaves the rest to the next."""
    fleet.edit(*NAMES)
    fleet.stats.unlink()
    enough = 4 * EACH
    assert suspect_venvs(fleet.config, fleet.venvs, budget=enough) == {"a", "b", "c", "d"}
    fleet.stats.unlink()
    monkeypatch.setattr("venvflow.state.file_stats._LEARNING", 1)
    assert suspect_venvs(fleet.config, fleet.venvs, budget=enough) == {"a"}
    assert suspect_venvs(fleet.config, fleet.venvs, budget=enough) == {"a", "b", "c", "d"}


def test_what_no_venv_needs_any_more_is_forgotten_when_something_new_is_learnt(fleet: Fleet) -> None:
    """Not before, and never because of a run for one venv."""
    store = str(fleet.root / "store")
    old = TreeStats(["lib/old.py"], [""], [1], [5], [0o444], {})
    write_stats(str(fleet.stats), store, {"0" * 64: old})
    suspect_venvs(fleet.config, fleet.only("a"), whole=True)
    assert read_stats(str(fleet.stats), store).keys() == {"0" * 64, fleet.tree.digest}
    write_stats(str(fleet.stats), store, {"0" * 64: old})
    suspect_venvs(fleet.config, fleet.venvs)
    assert read_stats(str(fleet.stats), store).keys() == {fleet.tree.digest}


def test_without_the_tree_the_receipt_tells(fleet: Fleet) -> None:
    """Nobody knows what it was made of; that something changed still shows."""
    fleet.lose_tree()
    fleet.stats.unlink()
    assert suspect_venvs(fleet.config, fleet.venvs) == frozenset()
    fleet.edit("d")
    assert suspect_venvs(fleet.config, fleet.venvs) == {"d"}


def test_a_look_makes_no_store(fleet: Fleet) -> None:
    """Where there is none, there is none afterwards."""
    fleet.stats.unlink()
    shutil.rmtree(fleet.root / "store")
    assert suspect_venvs(fleet.config, fleet.venvs) == frozenset()
    assert not (fleet.root / "store").exists()


def test_no_venvs_are_no_suspects(fleet: Fleet) -> None:
    """Nothing is looked at, and nothing is written."""
    assert suspect_venvs(fleet.config, {}) == frozenset()


def test_what_is_remembered_wrongly_can_be_forgotten(fleet: Fleet) -> None:
    """Else every run would think that the venv looks changed."""
    looks = read_stats(str(fleet.stats), str(fleet.root / "store"))[fleet.tree.digest]
    wrong = looks._replace(sizes=[size + 1 for size in looks.sizes])
    write_stats(str(fleet.stats), str(fleet.root / "store"), {fleet.tree.digest: wrong})
    assert suspect_venvs(fleet.config, fleet.only("a")) == {"a"}
    forget_stats(fleet.config)
    assert suspect_venvs(fleet.config, fleet.only("a")) == frozenset()


def test_what_a_run_has_made_is_learnt_at_its_end(fleet: Fleet) -> None:
    """So the next run, with nothing to do, reads no tree; as much as a run may look at, and no more."""
    fleet.stats.unlink()
    learn_stats(fleet.config, fleet.venvs.values(), budget=0)
    assert not fleet.stats.exists()
    learn_stats(fleet.config, fleet.venvs.values())
    fleet.lose_tree()
    fleet.edit("c")
    assert suspect_venvs(fleet.config, fleet.venvs) == {"c"}


def test_what_is_learnt_already_is_not_even_decoded(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a venv in which one package changed, all other trees are known."""

    def refuse(data: bytes) -> TreeStats:
        raise AssertionError(data)

    before = fleet.stats.read_bytes()
    monkeypatch.setattr(file_stats, "decode_stats", refuse)
    learn_stats(fleet.config, fleet.venvs.values())
    assert fleet.stats.read_bytes() == before
