"""The plan: from facts to what each task does, as a table; no venv, no store, no file."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvflow.errors import EnvironmentFailure, Refused, VenvflowError
from venvflow.model import Key, Receipt, Snapshot
from venvflow.pure.plan import VERBS, ArchiveFacts, VenvFacts, plan, why_pack

A, B = "a" * 64, "b" * 64
PATH = "/p/api/.venv"
TREES = ("t" * 64,)
SNAPSHOT = Snapshot(A, Key(A, {}), TREES, None, "api", 0.0, "", "", "", 1, 1)
SHARED = Receipt(A, PATH, "shared", "restored", trees=TREES)
BUILT = Receipt(A, PATH, "built", "built")
NO = Refused("no")
BROKEN = EnvironmentFailure("broken")
PACKED = ArchiveFacts(True, True, "", A, TREES)


def facts(**known: Any) -> VenvFacts:
    """Return the facts of a venv that is wanted for the key A, which key.json has."""
    return VenvFacts("api", PATH, **{"noted_key": A, "key": A, "key_holds": True, "builder": "uv", **known})


def done(**known: Any) -> VenvFacts:
    """Return the facts of a venv that is there, shared, stored."""
    return facts(**{"there": "ours", "receipt": SHARED, "published": True, "snapshot": SNAPSHOT, **known})


def told(known: VenvFacts) -> list[str]:
    """Return what each task does, in its order: what it answers, or why it answers nothing."""
    return [action.did or action.would for action in plan(known).values()]


CASES: dict[str, tuple[VenvFacts, list[str]]] = {
    "nothing is there": (facts(), ["nothing", "miss", "built", "squished", "nothing", "stored"]),
    "no key is written down": (
        facts(noted_key="", key_holds=False), ["new", "miss", "built", "squished", "nothing", "stored"],
    ),
    "there is no key": (facts(key="", key_problem=BROKEN), ["fail", *["not run"] * 5]),
    "the store has it": (
        facts(snapshot=SNAPSHOT), ["nothing", "hit", "nothing", "nothing", "nothing", "nothing"],
    ),
    "the store has lost some of it": (
        facts(snapshot=SNAPSHOT, snapshot_whole=False),
        ["nothing", "miss", "built", "squished", "nothing", "stored"],
    ),
    "what the snapshot needs is not here": (
        facts(snapshot=SNAPSHOT, lacking="build/cp312"),
        ["nothing", "miss", "built", "squished", "nothing", "nothing"],
    ),
    "restore is not asked for": (
        facts(snapshot=SNAPSHOT, may_restore=False),
        ["nothing", "miss", "built", "squished", "nothing", "nothing"],
    ),
    "another venv promises it": (facts(promised_by="store:web"), ["nothing", "hit", *["nothing"] * 4]),
    "all is done": (done(), ["nothing"] * 6),
    "it is built and not shared": (
        facts(there="ours", receipt=BUILT), [*["nothing"] * 3, "squished", "nothing", "stored"],
    ),
    "it is for another key": (
        done(key=B, snapshot=None, published=False),
        ["new", "miss", "built", "squished", "nothing", "stored"],
    ),
    "it was moved here": (
        done(receipt=Receipt(A, "/q", "shared", "built")), ["nothing", "hit", *["nothing"] * 4],
    ),
    "files are missing": (done(damage="missing: a"), ["nothing", "hit", *["nothing"] * 4]),
    "it was changed by hand": (done(by_hand="added: a", why_not_replaced=NO), ["nothing"] * 6),
    "it was changed by hand and must be forced": (
        done(by_hand="added: a", force=True), ["nothing", "hit", *["nothing"] * 4],
    ),
    "it was changed by hand, for another key": (
        done(key=B, by_hand="added: a", why_not_replaced=NO, snapshot=None),
        ["new", "miss", "fail", *["not run"] * 3],
    ),
    "something else is in the way": (
        facts(there="stranger", why_not_replaced=NO), ["nothing", "miss", "fail", *["not run"] * 3],
    ),
    "something else is in the way of a snapshot": (
        facts(there="stranger", why_not_replaced=NO, snapshot=SNAPSHOT),
        ["nothing", "fail", *["not run"] * 4],
    ),
    "nobody can look at it": (facts(unreadable=BROKEN), ["nothing", "fail", *["not run"] * 4]),
    "no builder fits": (facts(no_builder=BROKEN), ["nothing", "miss", "fail", *["not run"] * 3]),
    "the store is read-only": (
        facts(read_only=BROKEN), ["nothing", "miss", "built", "fail", "not run", "not run"],
    ),
    "what is built was edited before it was shared": (
        facts(there="ours", receipt=BUILT, why_not_published=NO),
        [*["nothing"] * 3, "fail", *["not run"] * 2],
    ),
    "the snapshot is gone": (done(snapshot=None, published=False), [*["nothing"] * 5, "stored"]),
    "the snapshot is gone, and the store cannot be filled": (
        done(snapshot=None, published=False, trees_lost=True, why_not_published=NO),
        [*["nothing"] * 5, "fail"],
    ),
    "the archive is there": (done(archive=PACKED), ["nothing"] * 6),
    "the archive is of other trees": (
        done(archive=PACKED._replace(trees=())), [*["nothing"] * 4, "packed", "nothing"],
    ),
    "what is built may be what is packed": (
        facts(archive=PACKED), ["nothing", "miss", "built", "squished", "packed", "stored"],
    ),
    "somebody has to look closer": (
        done(suspect=True), ["nothing", "kept", "built", "squished", "nothing", "nothing"],
    ),
    "somebody has looked closer": (
        done(suspect=True, came_last_time=True),
        ["nothing", "kept", *["nothing"] * 4],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_each_task_does(case: str) -> None:
    """Each case by its name."""
    known, expected = CASES[case]
    assert told(known) == expected


def test_what_is_due_though_nothing_changes() -> None:
    """A step has to warn of changes by hand, to run a new check, to settle what a killed run left."""
    for known in ({"by_hand": "added: a"}, {"passed_check": False}, {"unsettled": True}):
        restored = plan(done(**known))["restore"]
        assert (restored.would, restored.due) == ("nothing", True), known
    assert plan(done(key_holds=False))["hash-lockfiles"].due
    assert not any(action.due for action in plan(done()).values())


def test_a_miss_is_not_asked_again_before_the_build() -> None:
    """After restore said that there is no venv for the key, the build is due, however whole it looks."""
    assert plan(done(came_last_time=False))["build-venv"].due
    assert not plan(done(came_last_time=True))["build-venv"].due


def test_what_fails_has_its_error_and_names_the_rest() -> None:
    """The step raises the very error that explain shows."""
    actions = plan(facts(there="stranger", why_not_replaced=NO))
    assert actions["build-venv"].error is NO
    assert actions["squish"].reason == "build-venv:api fails"


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (ArchiveFacts(), "no archive"),
        (PACKED._replace(same_options=False), "options"),
        (PACKED._replace(touched="api.tar"), "api.tar"),
        (PACKED._replace(key=B), "another key"),
        (PACKED._replace(trees=()), "another manifest"),
    ],
)
def test_why_an_archive_is_written(archive: ArchiveFacts, why: str) -> None:
    """Each reason alone."""
    assert why in why_pack(archive, A, TREES)
    assert why_pack(PACKED, A, TREES) == ""
    assert why_pack(PACKED, A, None) != ""


ANY = st.builds(
    VenvFacts,
    venv=st.just("api"),
    path=st.just(PATH),
    noted_key=st.sampled_from(["", A, B]),
    key=st.just(A),
    key_holds=st.booleans(),
    there=st.sampled_from(["absent", "venv", "ours", "stranger"]),
    receipt=st.sampled_from([None, SHARED, BUILT]),
    by_hand=st.sampled_from(["", "added: a"]),
    damage=st.sampled_from(["", "missing: a"]),
    suspect=st.booleans(),
    passed_check=st.booleans(),
    came_last_time=st.sampled_from([None, True, False]),
    why_not_replaced=st.sampled_from([None, NO]),
    why_not_published=st.sampled_from([None, NO]),
    may_restore=st.booleans(),
    no_builder=st.sampled_from([None, BROKEN]),
    snapshot=st.sampled_from([None, SNAPSHOT]),
    snapshot_whole=st.booleans(),
    published=st.booleans(),
    promised_by=st.sampled_from(["", "store:web"]),
    read_only=st.sampled_from([None, BROKEN]),
    trees_lost=st.booleans(),
    archive=st.sampled_from([None, PACKED]),
)


@given(ANY)
def test_every_plan_makes_sense(known: VenvFacts) -> None:
    """One answer for each task; after a failure nothing runs; what is not due changes nothing."""
    actions = plan(known)
    assert tuple(actions) == VERBS
    failed = False
    for action in actions.values():
        assert (action.would == "not run") == failed
        assert (action.error is not None) == (action.would == "fail")
        assert (action.did != "") == (action.would == "run")
        assert action.due or action.would == "nothing"
        failed = failed or action.would == "fail"
    hit = actions["restore"].did == "hit"
    assert not (hit and actions["build-venv"].would == "run"), "what is restored is not built"
    is_refused = known.by_hand and known.why_not_replaced
    assert not (is_refused and actions["build-venv"].did == "built"), "work is lost"


def test_an_error_is_told_in_one_line() -> None:
    """Whatever it says."""
    assert plan(facts(key_problem=VenvflowError("two\n lines")))["hash-lockfiles"].reason == "two lines"
