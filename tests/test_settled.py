"""A settled store: trim and list answer without looking into it, and only for as long as nothing changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, cast

import pytest
from contents import open_store, put, snapshot_of, stock, tree_of
from hypothesis import given
from hypothesis import strategies as st

from venvflow.disk.layout import Layout
from venvflow.disk.objects import MtimeMode, Name
from venvflow.errors import EnvironmentFailure
from venvflow.model import Config, Entry, Manifest, StoreConfig, Tree, TrimPolicy
from venvflow.pure.retention import TrimPlan
from venvflow.state.holds import VenvHolds
from venvflow.state.reader import StoreReader, open_reader
from venvflow.state.registry import Registration
from venvflow.state.store import Store
from venvflow.state.sweeping import own_bytes_since
from venvflow.state.usage import StoreContents, sole_owners
from venvflow.steps.trim import Trimmed, foreseen, trim

NOW = 5000.0
FILES = [{f"f{number}": b"x" * (100 + number), "same": b"shared"} for number in range(3)]


def config_of(root: Path, **policy: int) -> Config:
    """Return the config of a project without venvs, whose store is in *root*."""
    store = StoreConfig(str(root / "store"), durability="none")
    return Config(str(root / "venvflow.yaml"), str(root), store, TrimPolicy(**policy), {})


def run(
    root: Path, *, now: float = NOW, dry_run: bool = False, thorough: bool = True, **policy: int
) -> Trimmed:
    """Trim the store in *root*."""
    return trim(config_of(root, **policy), {}, now=now, dry_run=dry_run, thorough=thorough)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a directory with a store of three snapshots, trimmed."""
    with open_store(tmp_path / "store") as store:
        for number, tree in enumerate(stock(store, *FILES).trees):
            store.publish(snapshot_of(Manifest((tree,)), number), NOW - 10 + number)
        hold(store, tmp_path)
    (tmp_path / ".venv").mkdir()
    run(tmp_path)
    return tmp_path


def hold(store: Store, root: Path, *, pin: bool = False) -> None:
    """Let a venv of the project at *root* hold all snapshots."""
    store.hold(VenvHolds(str(root), "api", f"{root}/.venv", "/", pin, store.index.usage()))


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give a list that grows whenever a snapshot or a directory of objects is read."""
    seen: list[str] = []

    def watched(name: str) -> None:
        real: Callable[..., object] = getattr(Store, name)

        def watching(store: Store, *words: object) -> object:
            seen.append(name)
            return real(store, *words)

        monkeypatch.setattr(Store, name, watching)

    for name in ("snapshot", "tree_objects", "size_on_disk"):
        watched(name)
    return seen


# --------------------------------------------------------------------------- nothing changed


def test_a_second_trim_reads_nothing_and_says_the_same(root: Path, looked: list[str]) -> None:
    """Its plan is that of a look at everything, to the word."""
    quick = run(root)
    assert looked == []
    (root / "store/settled.json").unlink()
    thorough = run(root)
    assert looked
    assert quick.plan.keep == thorough.plan.keep
    assert (quick.plan.drop, quick.swept) == (thorough.plan.drop, thorough.swept)
    assert quick.snapshots == thorough.snapshots


def test_a_dry_run_reads_nothing_either(root: Path, looked: list[str]) -> None:
    """It has no sweep to report."""
    assert run(root, dry_run=True).swept is None
    assert looked == []


def test_a_limit_that_cannot_be_met_is_told_all_the_same(root: Path, looked: list[str]) -> None:
    """The size of the store is remembered, too, as it was after the sweep."""
    with open_store(root / "store") as store:
        hold(store, root, pin=True)
    quick = run(root, max_size=1)
    assert looked == []
    (root / "store/settled.json").unlink()
    thorough = run(root, max_size=1)
    assert len(quick.plan.problems) == len(thorough.plan.problems) == 1


# --------------------------------------------------------------------------- what is seen


def _orphan(store: Store) -> None:
    put(store.objects, b"nobody needs me")


def _litter(store: Store) -> None:
    Path(store.objects.tmp, "left by a kill").touch()


def _tree(store: Store) -> None:
    with store.objects.batch() as batch:
        store.stage_trees(batch, [tree_of({"f": b"orphan"})])
        batch.publish()


def _frame(store: Store) -> None:
    frames = Path(store.path, "frames/ab")
    frames.mkdir()
    (frames / ("ab" * 32 + ".f1")).write_bytes(b"frame")


def _quarantined(store: Store) -> None:
    store.objects.quarantine(next(iter(store.objects.names()))[0])


def _damaged(store: Store) -> None:
    path = next(Path(store.path, "snapshots").iterdir())
    path.chmod(0o644)
    path.write_bytes(b"garbage")


def _snapshot(store: Store) -> None:
    store.publish(snapshot_of(stock(store, FILES[0]), 7), NOW)


def _holding(store: Store) -> None:
    tree = next(iter(store.snapshots())).trees[0]
    place = os.path.dirname(store.path) + "/p"
    os.mkdir(place)
    store.register(Registration(f"{place}/v", place, "api", "c" * 64, "", "symlink", (tree,), None, NOW))


@pytest.mark.parametrize(
    "change", [_orphan, _litter, _tree, _frame, _quarantined, _damaged, _snapshot, _holding]
)
def test_whatever_comes_or_goes_makes_the_next_trim_look(
    root: Path, looked: list[str], change: Callable[[Store], None]
) -> None:
    """Each kind of thing that a store holds, and venvs that need some of it."""
    with open_store(root / "store") as store:
        change(store)
    looked.clear()
    run(root)
    assert "size_on_disk" in looked
    looked.clear()
    run(root)
    assert looked == []


def test_an_orphan_is_swept_although_the_store_was_settled(root: Path) -> None:
    """The short way is for stores that have nothing to sweep."""
    with open_store(root / "store") as store:
        (name,) = put(store.objects, b"nobody needs me")
        swept = run(root).swept
        assert swept is not None
        assert swept.objects == 1
        assert not os.path.lexists(store.objects.path(name))


def _aged(root: Path, days: float) -> None:
    noted = (root / "store/settled.json").stat().st_mtime - days * 86_400
    os.utime(root / "store/settled.json", (noted, noted))


@pytest.mark.parametrize(
    ("policy", "days", "looks"),
    [
        ({}, 0, False),
        ({}, 1, True),
        ({}, -1, True),
        ({"max_size": 1 << 30}, 0, False),
        ({"max_size": 1}, 0, True),
    ],
    ids=str,
)
def test_what_only_grew_is_swept_once_a_day(
    root: Path, looked: list[str], policy: dict[str, int], days: float, *, looks: bool
) -> None:
    """What no snapshot ever needed waits, unless the store may be too large; a wrong clock is seen."""
    with open_store(root / "store") as store:
        trees = stock(store, {"new": b"new"}).trees
        store.publish(snapshot_of(Manifest(trees), 7), NOW)
        hold(store, root)
        (name,) = put(store.objects, b"nobody needs me")
    _aged(root, days)
    looked.clear()
    trim(config_of(root, **policy), {}, now=NOW, thorough=False)
    assert ("size_on_disk" in looked, os.path.lexists(store.objects.path(name))) == (looks, not looks)


@pytest.mark.parametrize(
    ("policy", "days", "looks"), [({}, 0, False), ({}, 1, True), ({"max_size": 1}, 0, True)]
)
def test_a_new_store_needs_no_sweep_for_a_day(
    root: Path, looked: list[str], policy: dict[str, int], days: float, *, looks: bool
) -> None:
    """There was nothing in it when it was made: the first run of all need not look for what is in the way."""
    (root / "store/settled.json").unlink()
    made = (root / "store/format").stat().st_mtime - days * 86_400
    os.utime(root / "store/format", (made, made))
    trim(config_of(root, **policy), {}, now=NOW, thorough=False)
    assert "size_on_disk" in looked if looks else not looked


def test_where_a_snapshot_went_all_is_swept(root: Path) -> None:
    """Another one may have come meanwhile."""
    with open_store(root / "store") as store:
        gone, *_ = store.snapshots()
        store.drop([gone.id])
        store.publish(snapshot_of(Manifest(stock(store, {"new": b"new"}).trees), 7), NOW)
        hold(store, root)
    swept = run(root, thorough=False).swept
    assert swept is not None
    assert swept.objects == 1


def test_time_alone_can_make_a_snapshot_go(root: Path) -> None:
    """Nothing came or went, but all are too old now: what is dropped is dropped by a look at everything."""
    (root / ".venv").rmdir()
    later = run(root, now=NOW + 100, max_age=50, keep_per_venv=0)
    assert len(later.plan.drop) == 3
    assert later.swept is not None
    assert later.swept.objects == 4
    assert not os.listdir(root / "store/snapshots")


def test_what_was_put_aside_goes_when_its_time_has_come(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No directory moves by that."""
    with open_store(root / "store") as store:
        _quarantined(store)
    run(root)
    run(root)
    assert len(os.listdir(root / "store/quarantine")) == 1
    monkeypatch.setattr("venvflow.state.sweeping.QUARANTINE_SECONDS", -60)
    run(root)
    assert not os.listdir(root / "store/quarantine")


def test_a_venv_that_is_gone_is_forgotten_in_a_settled_store(root: Path) -> None:
    """Its project was deleted: no file of the store moved by that."""
    (root / "p").mkdir()
    with open_store(root / "store") as store:
        place = str(root / "p")
        store.register(Registration(f"{place}/v", place, "api", "c" * 64, "", "hardlink", (), None, NOW))
    run(root)
    (root / "p").rmdir()
    assert run(root).forgotten == (f"{root}/p/v",)
    assert run(root).forgotten == ()


def test_spares_are_looked_at_every_time(root: Path, looked: list[str]) -> None:
    """Whether a venv is still linked to one shows nowhere but at itself."""
    with open_store(root / "store") as store:
        name = next(iter(store.objects.names()))[0]
        spare = store.objects.spare(store.objects.path(name))
        assert spare is not None
        os.link(spare, root / "venv.py")
    run(root)
    looked.clear()
    run(root)
    assert "size_on_disk" in looked
    (root / "venv.py").unlink()
    run(root)
    assert not os.path.lexists(spare)


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", "{}", '{"own": {"a": "b"}}', '{"size": "x", "own": {}}', '{"own": 3}']
)
def test_a_note_that_makes_no_sense_is_no_note(root: Path, looked: list[str], text: str) -> None:
    """What else stands in it may be right: it is not believed for that."""
    note = root / "store/settled.json"
    document = json.loads(note.read_text())
    given = json.loads(text) if text.startswith("{") else None
    note.write_text(text if given is None or not given else json.dumps({**document, **given}))
    run(root)
    assert "size_on_disk" in looked


def test_a_note_that_cannot_be_written_is_no_failure(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk, trim is what people need most."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    (root / "store/settled.json").unlink()
    monkeypatch.setattr(Layout, "write", full)
    assert len(run(root).plan.keep) == 3


@pytest.mark.parametrize(
    "policy", [{}, {"keep": 1, "keep_per_venv": 0}, {"max_size": 1}, {"max_age": 1}], ids=str
)
def test_what_a_trim_would_decide_is_foreseen(root: Path, policy: dict[str, int]) -> None:
    """From a store that is only read: the same reasons for the same snapshots as a dry run gives."""
    config, later = config_of(root, **policy), NOW + 90 * 86_400
    plan = trim(config, {}, now=later, dry_run=True).plan
    with open_reader(config.store) as store:
        assert store is not None
        seen = foreseen(config, store, now=later)
    assert seen.keep == plan.keep

    def dropped(plan: TrimPlan) -> list[tuple[str, str]]:
        # The index is a little larger while it is written to.
        return [(each.id, re.sub(r"has \S+ \S+,", "has so much,", each.reason)) for each in plan.drop]

    assert dropped(seen) == dropped(plan)


# --------------------------------------------------------------------------- own bytes


def test_own_bytes_are_remembered_until_a_snapshot_comes(root: Path) -> None:
    """They are those that a count gives; afterwards nobody may believe them."""
    with open_store(root / "store") as store:
        known = own_bytes_since(store)
        assert known == StoreContents(store).own_bytes()
        assert sorted(known.values()) == [100, 101, 102]
        _snapshot(store)
        assert own_bytes_since(store) is None


class TwoVenvs:
    """A store with the trees of two venvs, which have one of them in common."""

    trees: ClassVar = {
        "both": [Entry("both.py", "file", "b" * 64, size=1000)],
        "one": [
            Entry("a.py", "file", "a" * 64, size=100),
            Entry("again.py", "file", "a" * 64, size=100),
            Entry("copied.py", "file", "c" * 64, size=50),
            Entry("small.py", "file", "d" * 64, size=3),
            Entry("common.py", "file", "b" * 64, size=1000),
            Entry("form.py", "template", "e" * 64, size=7),
        ],
    }

    def tree(self, digest: str) -> Tree:
        """Return one of the trees."""
        return Tree(digest, digest, "1", tuple(self.trees[digest]))

    def adopted(self) -> dict[Name, MtimeMode]:
        """Return no object."""
        return {}


def test_own_files_are_those_that_no_other_venv_has() -> None:
    """What several names of one venv lead to counts once; copies, templates and small files are its own."""
    contents = StoreContents(cast(StoreReader, TwoVenvs()))
    trees = {"/v": ("both", "one"), "/w": ("both",)}
    copies = {"/v": {"copied.py", "small.py"}, "/w": set[str]()}
    sizes = {"/v": 10, "/w": 10}
    found = {
        (venv, tree): sorted(each.path for each in files)
        for venv, tree, files in contents.own_files_of_venvs(trees, sizes, copies)
    }
    assert found["/v", "one"] == ["a.py", "copied.py", "form.py", "small.py"]
    assert found["/v", "both"] == found["/w", "both"] == []
    assert contents.own_bytes_of_venvs(trees, sizes, copies) == {"/v": 160, "/w": 0}


def test_an_index_that_knows_others_is_not_asked(root: Path) -> None:
    """Summaries are those of the snapshots that are there, with the history that is known."""
    with open_store(root / "store") as store:
        before = store.summaries()
        assert [each.id for each in before] == [each.id for each in store.snapshots()]
        store.index.forget_snapshots([before[0].id])
        after = store.summaries()
        assert after[0] == before[0]._replace(used=None)
        assert after[1:] == before[1:]


def test_summaries_without_an_index(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, on which it cannot be opened: they are read from the snapshots."""

    def unusable(_: Store) -> object:
        raise EnvironmentFailure("the disk is full")

    with open_store(root / "store") as store:
        expected = [each._replace(used=None) for each in store.summaries()]
        monkeypatch.setattr(Store, "index", property(unusable))
        assert store.summaries() == expected


def test_a_bound_snapshot_has_its_place_in_the_summary(tmp_path: Path) -> None:
    """A path below the project, whatever bytes it is made of."""
    with open_store(tmp_path / "store") as store:
        for place in ("services/api/.venv", "caf\udce9/.venv"):
            store.publish(snapshot_of(stock(store, FILES[0]), place=place), NOW)
        assert [each.place for each in store.summaries()] == [each.place for each in store.snapshots()]


@given(
    trees=st.lists(st.sets(st.integers(0, 9), max_size=5), min_size=1, max_size=5),
    snapshots=st.lists(st.sets(st.integers(0, 4)), max_size=5),
)
def test_own_bytes_are_those_of_objects_that_one_snapshot_has(
    trees: list[set[int]], snapshots: list[set[int]]
) -> None:
    """As one would count them: for each snapshot, what is in none of the others."""
    chosen = [{i for i in each if i < len(trees)} for each in snapshots]
    contents = {
        str(i): [(Name(str(n), executable=False), 10**n) for n in tree] for i, tree in enumerate(trees)
    }
    owners = sole_owners(
        {str(i): sorted(map(str, each)) for i, each in enumerate(chosen)}, contents.__getitem__
    )
    having = [set().union(*(trees[i] for i in each)) if each else set() for each in chosen]
    for number, objects in enumerate(having):
        others = set().union(*(each for i, each in enumerate(having) if i != number)) if having else set()
        own = sum(size for (_, size), owner in owners.items() if owner == str(number))
        assert own == sum(10**n for n in objects - others)
