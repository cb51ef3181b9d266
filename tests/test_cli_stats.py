"""``stats``: the same bytes that du counts, and the same figures that the views give."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from machines import FILES, Machine, machine

from venvflow.state.index import Index
from venvflow.state.usage import Ledger, apparent, freed, inodes_below, merged, occupied

__all__ = ["machine"]


def test_totals_are_what_du_says(machine: Machine) -> None:
    """Of each venv, of the store, and of all of them together."""
    venvs = [machine.venv(name) for name in "abc"]
    (machine.site(venvs[2]) / "own.bin").write_bytes(b"o" * 50_000)
    machine.done("squish", *venvs)
    answer = machine.done("stats", "--json").document
    for venv, record in zip(venvs, answer["venvs"], strict=True):
        assert record["disk"] == machine.du(venv)
        assert record["own"] + record["shared"] == record["disk"]
    others, last = answer["venvs"][:2], answer["venvs"][2]
    assert last["own"] - others[0]["own"] >= 50_000
    assert others[0]["shared"] > 0
    totals = answer["totals"]
    assert totals["store"] == machine.du(machine.store)
    assert totals["disk"] == machine.du(machine.store, *venvs)
    assert totals["alone"] == sum(machine.du(venv) for venv in venvs)
    assert totals["saved"] == totals["alone"] - totals["disk"]


def test_deleting_a_venv_frees_what_was_said(machine: Machine) -> None:
    """The rest stays, because others have it."""
    venvs = [machine.venv(name) for name in "ab"]
    machine.done("squish", *venvs)
    record = machine.done("stats", "--json").document["venvs"][0]
    before = machine.du(machine.root)
    shutil.rmtree(venvs[0])
    assert before - machine.du(machine.root) == record["frees"]


def test_packages_are_counted_as_the_view_does(machine: Machine) -> None:
    """In how many venvs, at how many versions; the dearest first."""
    newer = {path.replace("-1.0", "-2.0"): data.replace(b"-1.0", b"-2.0") for path, data in FILES.items()}
    newer["demo/data.py"] = b"DATA = 'more' * 1000\n"
    small = {"tiny.py": b"1\n", "tiny-1.dist-info/RECORD": b"tiny.py,,\ntiny-1.dist-info/RECORD,,\n"}
    venvs = [machine.venv("a"), machine.venv("b", files=newer), machine.venv("c", files={**FILES, **small})]
    machine.done("squish", *venvs)
    answer = machine.done("stats", "--packages", "--json").document["packages"]
    assert [each["name"] for each in answer] == ["demo", "tiny"]
    assert (answer[0]["venvs"], answer[0]["versions"]) == (3, ["1.0", "2.0"])
    index = Index(str(machine.store / "index.db"))
    rows = index.rows(
        "SELECT package, versions, venvs, bytes, stored_bytes FROM packages ORDER BY stored_bytes DESC"
    )
    (venv_count, saved) = index.rows("SELECT venvs, saved_bytes FROM savings")[0]
    index.close()
    assert rows == [
        (each["name"], len(each["versions"]), each["venvs"], each["bytes"], each["stored"]) for each in answer
    ]
    assert venv_count == 3
    assert saved > 0


def test_without_venvs_it_says_so(machine: Machine) -> None:
    """And makes no store."""
    assert "no venv" in machine.done("stats").err
    assert machine.done("stats", "--json").document["venvs"] == []
    assert not machine.store.exists()


def test_the_tables_name_venvs_and_packages(machine: Machine) -> None:
    """For people."""
    venv = machine.venv("a")
    machine.done("squish", venv)
    said = machine.done("stats").out
    assert "1 venv of" in said
    assert "demo" in machine.done("stats", "--packages").out


# --------------------------------------------------------------------------- accounts


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Give a directory with a file of two names, a sparse one, a link, and a file that others have, too."""
    root = tmp_path / "tree"
    (root / "below").mkdir(parents=True)
    (root / "one").write_bytes(b"1" * 10_000)
    os.link(root / "one", root / "below/two")
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    (root / "link").symlink_to("one")
    (tmp_path / "elsewhere").write_bytes(b"e" * 9000)
    os.link(tmp_path / "elsewhere", root / "below/shared")
    return root


def test_inodes_count_as_du_does(machine: Machine, tree: Path) -> None:
    """Each inode once, sparse files by their blocks, directories too."""
    found = inodes_below(str(tree))
    assert occupied(found) == machine.du(tree)
    assert occupied(merged([found, inodes_below(str(tree / "below"))])) == machine.du(tree)
    assert apparent(found) == 20_000 + (1 << 20) + 3 + 9000


def test_what_others_have_is_not_freed(machine: Machine, tree: Path) -> None:
    """Deleting the tree gives back the rest."""
    said, before = freed(inodes_below(str(tree))), machine.du(tree.parent)
    shutil.rmtree(tree)
    assert before - machine.du(tree.parent) == said


def test_what_is_not_there_counts_nothing(tmp_path: Path) -> None:
    """Nor does it fail."""
    assert inodes_below(str(tmp_path / "absent")) == {}


def test_a_ledger_tells_what_went_elsewhere(tree: Path) -> None:
    """A file that left the tree, and that somebody else still has, freed nothing."""
    ledger = Ledger(str(tree.parent / "store"))
    ledger.open(str(tree))
    gone = (tree / "below/shared").lstat().st_blocks * 512
    (tree / "below/shared").unlink()
    balance = ledger.close()
    assert (balance.saved, balance.elsewhere) == (gone, gone)
