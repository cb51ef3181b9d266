"""A clock that jumps a year ahead or back: nothing goes that should stay, and nothing stays for ever."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contents import open_store, snapshot_of, stock
from flows import World

from venvflow.disk.places import write_receipt
from venvflow.model import Config, Manifest, Receipt, Snapshot, StoreConfig, TrimPolicy, VenvSpec
from venvflow.pure.plan import VERBS
from venvflow.state.sweeping import QUARANTINE_SECONDS
from venvflow.steps.state_files import TRIM_INTERVAL
from venvflow.steps.trim import Trimmed, trim

pytestmark = pytest.mark.slow

DAY = 86_400.0
YEAR = 365 * DAY
NOW = 60 * YEAR
JUMPS = pytest.mark.parametrize("jump", [YEAR, -YEAR, 100 * YEAR], ids=["ahead", "back", "far ahead"])
FILES = [{f"f{number}": b"x" * (100 + number)} for number in range(4)]
POLICY = TrimPolicy(keep=None, keep_per_venv=1, max_age=int(60 * DAY), max_size=None, min_free=None)

_TIME = time.time


class Used:
    """A store of four snapshots of one venv, used a second after the other; *now* is its time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = NOW
        with open_store(root / "store") as store:
            trees = stock(store, *FILES).trees
            made = [snapshot_of(Manifest((tree,)), number) for number, tree in enumerate(trees)]
        self.snapshots = [replace(snapshot, venv="api") for snapshot in made]
        for snapshot in self.snapshots:
            self.use(snapshot)

    def use(self, snapshot: Snapshot) -> None:
        """Publish or use a snapshot now."""
        self.now += 1
        with open_store(self.root / "store") as store:
            store.publish(snapshot, self.now)

    def trim(self, **policy: Any) -> Trimmed:
        """Apply the policy now."""
        store = StoreConfig(str(self.root / "store"), durability="none")
        venvs = {"api": VenvSpec("api", str(self.root / ".venv"), ())}
        policies = replace(POLICY, **policy)
        config = Config(str(self.root / "venvflow.yaml"), str(self.root), store, policies, venvs)
        return trim(config, {}, now=self.now)

    def dropped(self, **policy: Any) -> list[int]:
        """Return the numbers of the snapshots that a trim now drops."""
        numbers = {snapshot.id: number for number, snapshot in enumerate(self.snapshots)}
        return sorted(numbers[each.id] for each in self.trim(**policy).plan.drop)


@pytest.fixture
def used(tmp_path: Path) -> Used:
    """Give a store whose snapshots were used just now."""
    return Used(tmp_path)


# --------------------------------------------------------------------------- snapshots


def test_a_clock_that_went_back_drops_nothing_by_age(used: Used) -> None:
    """What was used in the future was used just now."""
    used.now -= YEAR
    assert used.dropped() == []


def test_a_clock_that_went_ahead_leaves_what_is_protected(used: Used) -> None:
    """The last one of the venv stays, however old all of them look."""
    used.now += YEAR
    assert used.dropped() == [0, 1, 2]


@JUMPS
def test_the_order_of_uses_is_the_true_one_whatever_the_clock_said(used: Used, jump: float) -> None:
    """The first was used last, while the clock was wrong: the others go before it."""
    used.now += jump
    used.use(used.snapshots[0])
    used.now -= jump
    assert used.dropped(keep=2) == [1, 2]


@JUMPS
def test_what_was_used_under_a_wrong_clock_grows_old_all_the_same(used: Used, jump: float) -> None:
    """From the first trim by the right clock on; else it would stay until that time has really come."""
    used.now += jump
    for snapshot in used.snapshots:
        used.use(snapshot)
    used.now -= jump
    if jump > 0:
        assert used.dropped() == []
    else:
        used.use(used.snapshots[0])
    used.now += 61 * DAY
    assert used.dropped() == ([0, 1, 2] if jump > 0 else [1, 2, 3])


@pytest.mark.slow
def test_a_trim_by_a_right_clock_leaves_times_as_they_are(used: Used) -> None:
    """Also in a store in which nothing came or went."""
    used.trim()
    with open_store(used.root / "store") as store:
        before = store.index.usage()
    used.now += DAY
    assert used.trim().plan.drop == ()
    with open_store(used.root / "store") as store:
        assert store.index.usage() == before
        assert {usage.at for usage in before.values()} == {NOW + number for number in range(1, 5)}


# --------------------------------------------------------------------------- what every run asks


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Give a project whose venv is made and stored, with a trimmed store; tests only ask."""
    world = World(tmp_path_factory.mktemp("clock"), tmp_path_factory.mktemp("house"))
    world.clock = NOW
    world.configure({"api": {}})
    world.lock("api", world.wheel("alpha"))
    world.run()
    trim(world.flow().config, {}, now=world.clock)
    return world


@JUMPS
def test_no_jump_makes_a_venv_out_of_date(world: World, jump: float) -> None:
    """Nor any later run: keys, receipts and snapshots know no time. Only trim is asked for, once."""
    at = world.clock
    world.clock += jump
    try:
        flow = world.flow()
        assert [verb for verb in VERBS if flow.is_due(verb, "api")] == []
        assert not flow.is_trimmed()
        trim(flow.config, {}, now=world.clock)
        assert world.flow().is_trimmed()
        world.clock = at
        assert not world.flow().is_trimmed(), "a note from another time counts as none"
        trim(flow.config, {}, now=world.clock)
        world.clock += TRIM_INTERVAL / 2
        assert world.flow().is_trimmed()
        assert (world.store / "snapshots").is_dir()
        assert len(list((world.store / "snapshots").glob("*.json"))) == 1
    finally:
        world.clock = at


@JUMPS
def test_a_receipt_is_known_whatever_time_its_directory_has(tmp_path: Path, jump: float) -> None:
    """Times are compared with what was noted, never with the clock."""
    from venvflow.disk.places import Place

    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    then = int((time.time() + jump) * 1e9)
    os.utime(venv, ns=(then, then))
    write_receipt(str(venv), Receipt("a" * 64, str(venv), "built", "built"))
    place = Place(str(venv))
    receipt = place.receipt()
    assert receipt is not None
    assert receipt.top == venv.stat().st_mtime_ns == then
    assert place.has_same_directories(receipt)


# --------------------------------------------------------------------------- what was put aside


def test_what_a_clock_that_was_ahead_put_aside_goes_in_the_end(
    used: Used, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ctime cannot be set, so here the clock is behind: the file gets the time of the trim, for good."""
    put_aside = _put_aside(used)
    noted = put_aside.stat()
    _clock(monkeypatch, -YEAR)
    used.trim()
    later = put_aside.stat()
    assert (later.st_mtime_ns, later.st_ino) == (noted.st_mtime_ns, noted.st_ino)
    assert later.st_ctime_ns > noted.st_ctime_ns
    _clock(monkeypatch, QUARANTINE_SECONDS + 60)
    used.trim()
    assert not put_aside.exists()


def test_what_was_put_aside_in_time_is_left_alone(used: Used, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time must not begin anew with each trim; clocks of two machines may differ by hours."""
    put_aside = _put_aside(used)
    noted = put_aside.stat().st_ctime_ns
    for ahead in (0, DAY, -DAY / 2):
        _clock(monkeypatch, ahead)
        used.now += 2 * DAY
        (used.root / "store" / "settled.json").unlink(missing_ok=True)  # or there would be nothing to sweep
        used.trim()
        assert put_aside.stat().st_ctime_ns == noted


def _put_aside(used: Used) -> Path:
    path = used.root / "store" / "quarantine" / "damaged"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"damaged")
    time.sleep(0.01)  # a file system's clock ticks that often
    return path


def _clock(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    monkeypatch.setattr(time, "time", lambda: _TIME() + ahead)
