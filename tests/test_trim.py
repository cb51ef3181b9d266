"""Trim where several projects share a store: each venv is told by its project and name."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contents import fork, name_of, open_store, snapshot_of, stock

from venvflow.disk.mounts import Mount
from venvflow.errors import EnvironmentFailure
from venvflow.flow import Flow
from venvflow.model import Config, Manifest, Snapshot, StoreConfig, TrimPolicy, VenvSpec
from venvflow.pure.retention import FADE_SECONDS, Usage, VenvName
from venvflow.state.holds import VenvHolds
from venvflow.state.registry import Registration
from venvflow.state.store import Store
from venvflow.steps.state_files import TRIM_INTERVAL, read_trims
from venvflow.steps.trim import trim

NOW = 1_000_000.0
POLICY = TrimPolicy(keep=1, keep_per_venv=2, max_age=None, max_size=None, min_free=None)


class Shared:
    """A store of two projects, ``p`` and ``q``, each with a venv ``api``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = NOW
        for project in ("p", "q"):
            (root / project).mkdir()
        with self.store() as store:
            trees = stock(store, *[{f"f{number}": b"x" * (100 + number)} for number in range(8)]).trees
        self.made = [
            replace(snapshot_of(Manifest((tree,)), number), venv="api") for number, tree in enumerate(trees)
        ]

    def store(self) -> Store:
        """Open the store."""
        return open_store(self.root / "store")

    def config(self, project: str, *, pin: bool = False, **policy: Any) -> Config:
        """Return the config of a project."""
        root = str(self.root / project)
        store = StoreConfig(str(self.root / "store"), durability="none")
        venvs = {"api": VenvSpec("api", f"{root}/.venv", (), pin=pin)}
        return Config(f"{root}/venvflow.yaml", root, store, replace(POLICY, **policy), venvs)

    def use(self, project: str, number: int, *, pin: bool = False) -> Snapshot:
        """Publish a snapshot, or restore it where it was published, for the venv of a project."""
        snapshot, root = self.made[number], str(self.root / project)
        self.now += 1
        with self.store() as store:
            store.publish(snapshot, self.now)
            store.register(
                Registration(
                    f"{root}/.venv", root, "api", snapshot.key.digest, "", "hardlink", (), None, self.now
                ),
                pin=pin,
            )
        return snapshot

    def holds(self, project: str) -> list[int]:
        """Return the numbers of what a project holds."""
        with self.store() as store:
            holder = store.holder(VenvName(str(self.root / project), "api"))
        held = holder.held if holder is not None else {}
        return [number for number, each in enumerate(self.made) if each.id in held]

    def trim(self, project: str, **settings: Any) -> list[int]:
        """Trim in a project; return the numbers of what was dropped."""
        numbers = {each.id: number for number, each in enumerate(self.made)}
        result = trim(self.config(project, **settings), {}, now=self.now)
        return sorted(numbers[each.id] for each in result.plan.drop)

    def why_trim(self, project: str, **policy: Any) -> str:
        """Return why doit would trim in a project."""
        return Flow(self.config(project, **policy), {}, now=lambda: self.now).why_trim()


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    """Give a store that two projects share."""
    return Shared(tmp_path)


def test_venvs_of_one_name_keep_their_own_snapshots(shared: Shared) -> None:
    """Two lock states in each of two projects are four snapshots, whoever trims."""
    for number in range(4):
        shared.use("pq"[number % 2], number)
    assert shared.trim("p") == shared.trim("q") == []
    shared.use("p", 4)
    assert shared.trim("q") == []
    assert shared.trim("p") == [0]


def test_who_restored_a_snapshot_holds_it_too(shared: Shared) -> None:
    """It is not the first project's alone, and goes when neither needs it."""
    shared.use("p", 0)
    shared.use("q", 0)
    for number in (1, 2, 3):
        shared.use("p", number)
    assert shared.trim("p") == [1]
    assert shared.holds("p") == [2, 3]
    for number in (4, 5):
        shared.use("q", number)
    assert shared.trim("p") == []
    assert shared.trim("q") == [0]


def test_a_pin_is_of_one_project(shared: Shared) -> None:
    """The pinned venv of p keeps all of its snapshots, that of q those of the policy."""
    for number in range(4):
        shared.use("p", number, pin=True)
        shared.use("q", 4 + number)
    assert shared.trim("q", keep=1) == [4, 5]
    assert shared.trim("p", pin=True) == []
    assert shared.trim("p", pin=False) == [0, 1]


def test_where_holds_were_lost_the_name_tells(shared: Shared) -> None:
    """What a name of the config stands for is kept as before, and what is pinned stays."""
    for number in range(4):
        shared.use("p", number)
    for file in (shared.root / "store" / "holds").iterdir():
        os.unlink(file)
    assert shared.trim("p", pin=True) == []
    assert shared.trim("p") == [0, 1]


def test_the_snapshots_of_a_deleted_project_go_by_age(shared: Shared) -> None:
    """By max_age, or in a month; then nobody holds them."""
    shared.use("p", 0)
    shared.use("p", 1)
    shared.now += 100
    shared.use("p", 1)
    shared.use("q", 2)
    (shared.root / "p").rmdir()
    shared.now += 50
    assert shared.trim("q") == []
    assert shared.trim("q", max_age=99) == [0]
    shared.now += FADE_SECONDS
    assert shared.trim("q") == [1]
    assert shared.holds("p") == []


def test_a_project_that_is_not_mounted_is_not_gone(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows when its disk comes back."""
    mounted = Mount("ext4", str(shared.root))
    monkeypatch.setattr("venvflow.state.store.mount_of", lambda _: mounted)
    monkeypatch.setattr("venvflow.state.holds.mount_of", lambda _: mounted._replace(point="/"))
    shared.use("p", 0)
    shared.use("q", 1)
    (shared.root / "p").rmdir()
    shared.now += 2 * FADE_SECONDS
    assert shared.trim("q", max_age=1) == []
    monkeypatch.setattr("venvflow.state.holds.mount_of", lambda _: mounted)
    assert shared.trim("q", max_age=1) == [0]


def test_a_limit_of_the_store_spares_what_is_current_anywhere(shared: Shared) -> None:
    """The last hold of each venv is what it is now; the others go by use, in all projects."""
    for number in range(6):
        shared.use("pq"[number % 2], number)
    assert shared.trim("p", keep=None, max_size=1) == [0, 1, 2, 3]
    assert (shared.holds("p"), shared.holds("q")) == ([4], [5])


def test_what_a_venv_was_until_now_is_used_until_now(shared: Shared) -> None:
    """It was restored long ago, and another one was used meanwhile."""
    shared.use("p", 0)
    shared.use("p", 1)
    shared.now += 1000
    shared.use("p", 2)
    assert shared.trim("p", keep=None, keep_per_venv=0, max_age=500) == [0]


def test_holds_survive_the_index_and_a_venv_that_is_private_again(shared: Shared) -> None:
    """With the order of their uses, which the new index has from them."""
    for number in (1, 0, 2):
        shared.use("p", number)
    with shared.store() as store:
        store.unregister(f"{shared.root}/p/.venv")
    for file in (shared.root / "store").glob("index.db*"):
        file.unlink()
    shared.use("q", 3)
    with shared.store() as store:
        used = store.index.usage()
        order = sorted(used, key=lambda each: used[each])
    assert order == [shared.made[number].id for number in (1, 0, 2, 3)]
    assert shared.trim("p") == [1]


def test_venvs_hold_at_once(shared: Shared) -> None:
    """Each has a record of its own, and none of them is lost."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: shared.use(f"many/{number}", number % 8), range(40)))
    with shared.store() as store:
        assert {each.project for each in store.holders()} == {f"{shared.root}/many/{n}" for n in range(40)}


def test_what_is_held_is_not_guessed(shared: Shared) -> None:
    """A record that cannot be read stops a trim before anything is dropped."""
    for number in range(4):
        shared.use("p", number)
    (record,) = (shared.root / "store" / "holds").iterdir()
    record.write_text("{")
    with pytest.raises(EnvironmentFailure, match="which snapshots a venv holds"):
        shared.trim("p")
    with shared.store() as store:
        assert len(store.snapshots()) == 4


def test_a_trim_that_is_killed_between_hold_and_snapshot_is_finished(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holds end first, so that what is left of it is held by nobody."""
    for number in range(4):
        shared.use("p", number)
    with monkeypatch.context() as patched:
        patched.setattr(Store, "drop", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            shared.trim("p")
    assert shared.holds("p") == [2, 3]
    assert shared.trim("p", keep=None) == [0, 1]


def test_projects_with_other_policies_do_not_trim_in_turn(shared: Shared) -> None:
    """When nothing came, nothing is to do for either; what came is to do for both."""
    other = {"keep": 5}
    shared.use("p", 0)
    assert shared.why_trim("p")
    shared.trim("p")
    assert "this policy" in shared.why_trim("q", **other)
    shared.trim("q", **other)
    assert shared.why_trim("p") == shared.why_trim("q", **other) == ""
    shared.use("q", 1)
    assert shared.why_trim("p")
    assert shared.why_trim("q", **other)
    shared.trim("p")
    shared.trim("q", **other)
    assert shared.why_trim("p") == shared.why_trim("q", **other) == ""
    shared.now += 90_000
    assert "a day ago" in shared.why_trim("p")


def test_a_venv_that_left_the_config_is_forgotten_when_it_is_gone(shared: Shared) -> None:
    """Until then it is somebody's, who may name it again."""
    shared.use("p", 0)
    venv = shared.root / "p" / ".venv"
    venv.mkdir()
    without = replace(shared.config("p"), venvs={})
    assert trim(without, {}, now=shared.now).forgotten == ()
    venv.rmdir()
    assert trim(shared.config("p"), {}, now=shared.now).forgotten == ()
    assert trim(without, {}, now=shared.now).forgotten == (str(venv),)


@pytest.mark.parametrize("link", ["symlink", "hardlink"])
def test_a_venv_of_symlinks_is_not_forgotten_with_its_project(shared: Shared, link: str) -> None:
    """It may have been moved, and is nothing without its objects."""
    made = shared.use("p", 0)
    for number in (1, 2):
        shared.use("q", number)
    with shared.store() as store:
        known = store.registration(f"{shared.root}/p/.venv")
        assert known is not None
        store.register(replace(known, link=link, trees=made.trees))
    (shared.root / "p").rmdir()
    shared.now += 100
    forgotten = trim(shared.config("q", keep=None, max_age=50), {}, now=shared.now).forgotten
    with shared.store() as store:
        there = os.path.exists(store.objects.path(name_of(b"x" * 100)))
    assert (forgotten == ()) == there == (link == "symlink")


def test_what_a_venv_needs_is_not_promised_to_be_freed(shared: Shared) -> None:
    """Its snapshot goes, its files stay: they are those of the venv."""
    for number in (0, 1, 2):
        shared.use("p", number)
    config = shared.config("p", keep_per_venv=1)
    assert trim(config, {}, now=shared.now, dry_run=True).plan.freed_bytes > 0
    with shared.store() as store:
        known = store.registration(f"{shared.root}/p/.venv")
        assert known is not None
        store.register(replace(known, trees=tuple(tree for made in shared.made[:2] for tree in made.trees)))
    planned = trim(config, {}, now=shared.now, dry_run=True).plan
    assert len(planned.drop) == 2
    assert not any(each.freed_bytes for each in planned.drop)


def test_a_policy_that_nobody_applies_any_more_is_forgotten(shared: Shared) -> None:
    """A day later; the note would grow with each that was ever tried."""
    shared.use("p", 0)
    shared.trim("p")
    shared.trim("p", keep=5)
    with shared.store() as store:
        assert len(read_trims(store.path)) == 2
        shared.now += TRIM_INTERVAL + 1
        shared.trim("p")
        assert len(read_trims(store.path)) == 1


@pytest.mark.parametrize(("place", "kept"), [("sub/.venv", True), ("other/.venv", False)])
def test_a_snapshot_that_is_bound_to_a_place_is_current_there_only(
    shared: Shared, place: str, kept: bool
) -> None:
    """The venv of that key at another place has no use for it."""
    with shared.store() as store:
        bound = replace(snapshot_of(stock(store, {"a": b"a"}), 99, place="sub/.venv"), venv="api")
        held = [bound, *shared.made[:2]]
        for number, snapshot in enumerate(held):
            store.publish(snapshot, NOW + number)
        root = f"{shared.root}/p"
        uses = {snapshot.id: Usage(number, NOW) for number, snapshot in enumerate(held)}
        store.hold(VenvHolds(root, "api", f"{root}/.venv", "/", False, uses))
        store.register(
            Registration(f"{root}/.venv", root, "api", bound.key.digest, place, "copy", (), None, NOW)
        )
    planned = trim(shared.config("p", keep_per_venv=1), {}, now=NOW + 9, dry_run=True).plan
    assert (bound.id in {each.id for each in planned.keep}) == kept


def test_uses_of_the_future_are_uses_of_now(shared: Shared) -> None:
    """A clock that was wrong for an hour must not keep what was used then for ever."""
    shared.now += 1_000_000
    shared.use("p", 0)
    shared.now = NOW
    shared.trim("p")
    with shared.store() as store:
        (summary,) = store.summaries()
        assert summary.used is not None
        assert summary.used.at <= NOW


@pytest.mark.parametrize("policy", [{}, {"keep": 2}, {"max_size": 1}, {"keep_per_venv": 0, "max_age": 2}])
def test_a_dry_run_says_what_the_real_one_does(shared: Shared, policy: dict[str, Any]) -> None:
    """Of two projects that hold the same; and it changes no record."""
    for number in range(4):
        shared.use("p", number)
        shared.use("q", number)
    config = shared.config("p", **policy)
    before = shared.holds("p"), shared.holds("q")
    said = trim(config, {}, now=shared.now, dry_run=True).plan
    assert (shared.holds("p"), shared.holds("q")) == before
    done = trim(config, {}, now=shared.now).plan
    ids = [[[each.id for each in some] for some in (plan.keep, plan.drop)] for plan in (said, done)]
    assert ids[0] == ids[1]
    assert said.given_up == done.given_up
    left = {shared.made[number].id for number in shared.holds("p")}
    assert left == {each.id for each in said.keep} - said.given_up.keys()


def _lives(shared: Shared) -> tuple[list[str], dict[VenvName, tuple[set[str], str | None]]]:
    """Return which snapshots there are, and what each venv holds and is."""
    with shared.store() as store:
        holds = {each.venv: ({*each.held}, each.current) for each in store.holders()}
        return sorted(store.snapshot_ids()), holds


def _killed_at(call: int, action: Callable[[], object]) -> bool:
    """Do *action* in a fork that is killed where it would change a name for the *call*-th time."""
    pid = fork(os.fork)
    if pid == 0:
        numbers = itertools.count(1)

        def dying(real: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *args, **how: (
                os.kill(os.getpid(), signal.SIGKILL) if next(numbers) == call else real(*args, **how)
            )

        try:
            for name in ("link", "rename", "unlink"):
                setattr(os, name, dying(getattr(os, name)))
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("what", ["a new lock", "a trim", "a wrong clock"])
def test_holds_survive_a_kill_between_any_two_names(shared: Shared, what: str) -> None:
    """Old or new, never unreadable; no snapshot goes that somebody holds; running again finishes the job."""
    for project, number in (("p", 0), ("q", 0), ("p", 1), ("p", 2), ("q", 3)):
        shared.use(project, number)
    actions: dict[str, Callable[[], object]] = {
        "a new lock": lambda: shared.use("p", 4),
        "a trim": lambda: shared.trim("p", keep=0, keep_per_venv=1),
        "a wrong clock": lambda: shared.trim("q", keep=9),
    }
    if what == "a wrong clock":
        shared.now = NOW - 1
    before, now = _lives(shared), shared.now
    kept, place = shared.root / "kept", shared.root / "store"
    place.rename(kept)
    shutil.copytree(kept, place, symlinks=True)
    actions[what]()
    after, clock = _lives(shared), shared.now
    assert (before == after) == (what == "a wrong clock")
    for call in itertools.count(1):
        shutil.rmtree(place)
        shutil.copytree(kept, place, symlinks=True)
        shared.now = now
        killed = _killed_at(call, actions[what])
        snapshots, holds = _lives(shared)
        for venv, (held, current) in holds.items():
            assert (held, current) in (before[1][venv], after[1][venv]), call
            assert {current} <= held <= {*snapshots}, call
        assert {*before[0]} & {*after[0]} <= {*snapshots} <= {*before[0], *after[0]}, call
        shared.now = now
        actions[what]()
        assert (_lives(shared), shared.now) == (after, clock), call
        if not killed:
            assert call > 4
            break
