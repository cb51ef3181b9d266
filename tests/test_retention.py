"""The trim policy: what is kept, what is dropped, and the bytes that really go."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvflow.model import TrimPolicy
from venvflow.pure.retention import (
    FADE_SECONDS,
    Candidate,
    Hold,
    TreeContents,
    TrimPlan,
    Usage,
    VenvName,
    plan_trim,
)

DAY = 86_400
NOW = 1_000 * DAY
API, WEB, OTHER_API = VenvName("/p", "api"), VenvName("/p", "web"), VenvName("/q", "api")
NO_LIMITS = TrimPolicy(keep=None, keep_per_venv=0)


def snapshot(number: int, **fields: Any) -> Candidate:
    """Return the snapshot that was used as the *number*-th, that many days after the beginning, by api."""
    used = Usage(number, number * DAY)
    return replace(Candidate(f"s{number}", used, (Hold(API, used),)), **fields)


def held(number: int, *venvs: VenvName, **fields: Any) -> Candidate:
    """Return the *number*-th snapshot, held by *venvs*; *fields* are those of each hold."""
    used = Usage(number, number * DAY)
    return replace(snapshot(number), holds=tuple(Hold(venv, used, **fields) for venv in venvs))


def planned(snapshots: list[Candidate], policy: TrimPolicy, **given: Any) -> TrimPlan:
    """Return the plan of the project /p for a store of 100 bytes without known contents."""
    facts: dict[str, Any] = {"contents": TreeContents(), "now": NOW, "store_size": 100, "free": None}
    return plan_trim(snapshots, policy, **{"project": "/p", **facts, **given})


def kept(result: TrimPlan) -> list[str]:
    """Return the ids of what stays."""
    return [item.id for item in result.keep]


def dropped(result: TrimPlan) -> list[str]:
    """Return the ids of what goes."""
    return [item.id for item in result.drop]


def test_without_limits_all_is_kept_last_used_first() -> None:
    """Nothing is dropped because somebody runs trim."""
    result = planned([snapshot(1), snapshot(3), snapshot(2)], NO_LIMITS)
    assert kept(result) == ["s3", "s2", "s1"]
    assert result.keep[0].reasons == ("within the limits, last used 997 d ago",)
    assert (result.drop, result.freed_bytes, result.problems) == ((), 0, ())


def test_no_snapshots_are_no_trouble() -> None:
    """An empty store has an empty plan."""
    assert planned([], TrimPolicy()) == TrimPlan((), (), {}, 0, ())


def test_keep_drops_the_least_recently_used_and_says_so() -> None:
    """The reason has the count before it, the limit and the age."""
    result = planned([snapshot(number) for number in range(31)], replace(NO_LIMITS, keep=25), now=30 * DAY)
    assert dropped(result) == [f"s{number}" for number in range(6)]
    assert result.drop[0].reason == "31 snapshots, keep is 25, last used 30 d ago"
    assert result.drop[5].reason == "26 snapshots, keep is 25, last used 25 d ago"


def test_order_is_by_the_counter_and_never_by_the_clock() -> None:
    """A clock that was wrong when a snapshot was used does not make it the oldest."""
    wrong = snapshot(5, holds=(Hold(API, Usage(5, 0.0)),))
    result = planned([snapshot(1), wrong, snapshot(2)], replace(NO_LIMITS, keep=1))
    assert kept(result) == ["s5"]


def test_a_clock_that_was_set_back_makes_nothing_old() -> None:
    """What was used in the future was used just now."""
    result = planned([snapshot(2000)], replace(NO_LIMITS, max_age=1))
    assert result.keep[0].reasons == ("within the limits, last used 0 ms ago",)


@pytest.mark.parametrize("fields", [{"pinned": True}, {"current": True}])
def test_pinned_and_current_stay_whatever_the_limits_are(fields: dict[str, Any]) -> None:
    """Every limit at once does not touch them, and each limit that fails is named."""
    hard = TrimPolicy(keep=0, keep_per_venv=0, max_age=1, max_size=1, min_free=1000)
    contents = TreeContents({1: [1]}, {1: 50})
    mine = replace(held(1, API, **fields), trees=(1,))
    result = planned([mine], hard, contents=contents, free=10)
    assert kept(result) == ["s1"]
    assert result.freed_bytes == 0
    assert [problem.split(":")[0] for problem in result.problems] == [
        "1 snapshot of this project left, keep is 0",
        "the store has 100 B, max_size is 1 B",
        "10 B are free, min_free is 1000 B",
    ]


def test_all_reasons_to_keep_are_named() -> None:
    """Pinned, current and recent at once."""
    mine, theirs = held(1, API, WEB, pinned=True, current=True), held(1, OTHER_API)
    result = planned([replace(mine, holds=mine.holds + theirs.holds)], TrimPolicy())
    assert result.keep[0].reasons == (
        "pinned",
        "current for api, web",
        "among the 2 most recently used of api, web",
        "held by /q:api",
    )
    theirs = held(1, OTHER_API, pinned=True, current=True)
    assert planned([theirs], TrimPolicy()).keep[0].reasons == ("pinned by /q:api", "current for /q:api")


def test_the_last_of_each_venv_stay_when_others_need_room() -> None:
    """A venv that changes often does not push out the others; the excess is told."""
    busy = [snapshot(10 + number) for number in range(5)]
    rare = [held(number, WEB) for number in (1, 2, 3)]
    result = planned(busy + rare, replace(NO_LIMITS, keep=3, keep_per_venv=2))
    assert sorted(kept(result)) == ["s13", "s14", "s2", "s3"]
    assert result.keep[0].reasons == ("among the 2 most recently used of api",)
    (problem,) = result.problems
    assert problem == (
        "4 snapshots of this project left, keep is 3: the rest is pinned, current, or most recently used of "
        "its venv"
    )
    assert planned(busy, replace(NO_LIMITS, keep=0, keep_per_venv=1)).keep[0].reasons == (
        "among the most recently used of api",
    )


def test_a_policy_ends_the_holds_of_its_project_only() -> None:
    """What the other project holds stays, whatever its venvs are called; what neither holds goes."""
    theirs = [held(number, OTHER_API) for number in (1, 2, 3)]
    both = held(4, API, OTHER_API)
    ours = [snapshot(number) for number in (5, 6, 7)]
    policy = replace(NO_LIMITS, keep=1, keep_per_venv=2)
    result = planned([*theirs, both, *ours], policy)
    assert dropped(result) == ["s5"]
    assert result.given_up == {"s4": {API}}
    assert result.keep[2].reasons == (
        "given up by api (4 snapshots, keep is 1, last used 996 d ago)",
        "held by /q:api",
    )
    assert dropped(planned([*theirs, both, *ours], policy, project="/q")) == ["s1", "s2"]


def test_each_project_has_its_own_order_of_use() -> None:
    """That another one used a snapshot just now does not make it one that we used."""
    lent = replace(
        held(1, API), used=Usage(9, 9 * DAY), holds=(*held(1, API).holds, *held(9, OTHER_API).holds)
    )
    result = planned([lent, snapshot(2)], replace(NO_LIMITS, keep=1))
    assert dropped(result) == []
    assert result.given_up == {"s1": {API}}
    old = planned([lent], replace(NO_LIMITS, max_age=5 * DAY), now=10 * DAY)
    assert old.given_up == {"s1": {API}}


def test_what_nobody_holds_goes() -> None:
    """A trim that was killed had ended the last hold, and not dropped it yet."""
    result = planned([snapshot(1, holds=()), snapshot(2)], NO_LIMITS)
    assert (dropped(result), result.drop[0].reason) == (["s1"], "nobody holds it")


def test_age_drops_what_is_older_but_not_the_last_of_a_venv() -> None:
    """A venv that nobody restored for months still comes back; the rest goes by age."""
    result = planned(
        [snapshot(940), snapshot(939), snapshot(1)], TrimPolicy(max_age=30 * DAY, keep_per_venv=1)
    )
    assert dropped(result) == ["s1", "s939"]


@pytest.mark.parametrize("venv", [API, OTHER_API])
def test_a_venv_that_is_gone_holds_nothing_for_long(venv: VenvName) -> None:
    """Its last snapshots neither, in whichever project; without max_age a month."""
    snapshots = [held(940, venv, gone=True), held(939, venv, gone=True), held(1, WEB, pinned=True)]
    result = planned(snapshots, TrimPolicy(max_age=60 * DAY, keep_per_venv=9))
    assert dropped(result) == ["s939"]
    name = "api" if venv == API else "/q:api"
    assert result.drop[0].reason == f"{name} is gone, last used 61 d ago"
    recent = held(NOW // DAY - FADE_SECONDS // DAY, venv, gone=True)
    assert dropped(planned([*snapshots, recent], TrimPolicy())) == ["s939", "s940"]


def test_a_limit_of_the_store_takes_what_was_used_least_recently_whoever_holds_it() -> None:
    """But nothing that somebody has pinned or current; the last ones of venvs are no exception."""
    contents = TreeContents({n: [n] for n in range(6)}, dict.fromkeys(range(6), 10))
    snapshots = [
        replace(each, trees=(number,))
        for number, each in enumerate(
            [
                held(0, OTHER_API, current=True), held(1, OTHER_API), held(2, API), held(3, API, WEB),
                held(4, OTHER_API, pinned=True), held(5, API, current=True),
            ]
        )
    ]  # fmt: skip
    for most, gone in ((60, []), (50, ["s1"]), (31, ["s1", "s2", "s3"])):
        result = planned(snapshots, TrimPolicy(max_size=most), contents=contents, store_size=60)
        assert (dropped(result), result.problems) == (gone, ())
    (problem,) = planned(snapshots, TrimPolicy(max_size=29), contents=contents, store_size=60).problems
    assert problem == "the store has 30 B, max_size is 29 B: the rest is pinned or current"


SHARED = TreeContents({1: [1, 2], 2: [2, 3], 3: [4, 4]}, {1: 10, 2: 20, 3: 40, 4: 80, 9: 7})


def test_only_bytes_that_nothing_else_needs_are_freed() -> None:
    """Objects shared between trees, and trees between snapshots, go with the last that needs them."""
    snapshots = [snapshot(1, trees=(1, 3)), snapshot(2, trees=(3,)), snapshot(3, trees=(2,))]
    result = planned(snapshots, replace(NO_LIMITS, keep=0), contents=SHARED)
    assert [(item.id, item.freed_bytes) for item in result.drop] == [("s1", 10), ("s2", 80), ("s3", 60)]
    assert result.freed_bytes == 157


def test_trees_that_something_else_needs_free_nothing() -> None:
    """A venv that is linked to the store holds what it is made of."""
    result = planned(
        [snapshot(1, trees=(1,))], replace(NO_LIMITS, keep=0), contents=replace(SHARED, held=(2,))
    )
    assert result.drop[0].freed_bytes == 10


def test_size_limits_drop_no_more_than_they_need() -> None:
    """What nobody refers to goes first and counts; then the least recently used, until it is enough."""
    snapshots = [snapshot(1, trees=(1,)), snapshot(2, trees=(3,)), snapshot(3, trees=(2,))]
    facts: dict[str, Any] = {"contents": SHARED, "store_size": 157}
    assert dropped(planned(snapshots, replace(NO_LIMITS, max_size=150), **facts)) == []
    result = planned(snapshots, replace(NO_LIMITS, max_size=149), **facts)
    assert dropped(result) == ["s1"]
    assert result.drop[0].reason == "the store has 150 B, max_size is 149 B, last used 999 d ago"
    assert dropped(planned(snapshots, replace(NO_LIMITS, max_size=139), **facts)) == ["s1", "s2"]
    assert dropped(planned(snapshots, replace(NO_LIMITS, min_free=17), free=0, **facts)) == ["s1"]
    assert dropped(planned(snapshots, replace(NO_LIMITS, min_free=18), free=0, **facts)) == ["s1", "s2"]
    assert dropped(planned(snapshots, replace(NO_LIMITS, min_free=18), free=1, **facts)) == ["s1"]


def test_free_space_that_is_not_known_is_a_problem_only_if_it_is_asked_for() -> None:
    """A limit that cannot be checked is not silently met."""
    assert planned([snapshot(1)], NO_LIMITS).problems == ()
    (problem,) = planned([snapshot(1)], replace(NO_LIMITS, min_free=1)).problems
    assert "min_free is not checked" in problem


def test_unknown_trees_and_objects_count_as_nothing() -> None:
    """An index that lost rows still gives a plan."""
    result = planned(
        [snapshot(1, trees=(7, 8))], replace(NO_LIMITS, keep=0), contents=TreeContents({7: [5]}, {})
    )
    assert (dropped(result), result.freed_bytes) == (["s1"], 0)


# --------------------------------------------------------------------------- properties

LIMIT = st.none() | st.integers(0, 60)


SELDOM = st.sampled_from([False, False, False, True])
HOLDS = st.builds(
    lambda venv, seq, at, pinned, current, gone: Hold(
        venv, Usage(seq, at), pinned and not gone, current and not gone, gone
    ),
    st.sampled_from([API, WEB, OTHER_API]),
    st.integers(0, 20),
    st.integers(0, 50),
    SELDOM,
    SELDOM,
    SELDOM,
)


def firm(holds: Iterable[Hold]) -> bool:
    """Return whether one of the venvs has it pinned or current."""
    return any(hold.pinned or hold.current for hold in holds)


def held_by(item: Candidate, project: str) -> list[Hold]:
    """Return the holds of a project's venvs."""
    return [hold for hold in item.holds if hold.venv.project == project]


def left_over(item: Candidate, plan: TrimPlan) -> tuple[Hold, ...]:
    """Return the holds on a snapshot that are left by a plan."""
    return tuple(hold for hold in item.holds if hold.venv not in plan.given_up.get(item.id, ()))


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Candidate], TrimPolicy, dict[str, Any]]:
    """Return some snapshots that share trees that share objects, a policy, and a store of any size."""
    sizes = draw(st.dictionaries(st.integers(0, 12), st.integers(0, 20)))
    trees = draw(st.dictionaries(st.integers(0, 6), st.lists(st.integers(0, 14), max_size=6)))
    count = draw(st.integers(0, 8))
    order = draw(st.permutations(range(count)))
    snapshots = [
        Candidate(
            f"s{number}",
            Usage(number, draw(st.integers(0, 50))),
            tuple(draw(st.lists(HOLDS, unique_by=lambda hold: hold.venv, max_size=3))),
            tuple(draw(st.lists(st.integers(0, 7), max_size=4))),
        )
        for number in order
    ]
    policy = TrimPolicy(draw(LIMIT), draw(st.integers(0, 3)), draw(LIMIT), draw(LIMIT), draw(LIMIT))
    contents = TreeContents(trees, sizes, tuple(draw(st.lists(st.integers(0, 7), max_size=2))))
    size = sum(sizes.values()) + draw(st.integers(0, 30))
    facts = {"contents": contents, "now": 50, "store_size": size, "free": draw(LIMIT)}
    return snapshots, policy, {"project": draw(st.sampled_from(["/p", "/q"])), **facts}


def needed(snapshots: list[Candidate], contents: TreeContents) -> set[Hashable]:
    """Return the objects that some snapshot needs, or something else."""
    trees = {tree for item in snapshots for tree in item.trees} | set(contents.held)
    return {name for tree in trees for name in contents.tree_objects.get(tree, ())}


@given(situations())
def test_every_snapshot_is_kept_or_dropped_with_a_reason(
    situation: tuple[list[Candidate], TrimPolicy, dict[str, Any]],
) -> None:
    """Once each, in order of use, and never one that is pinned or current."""
    snapshots, policy, facts = situation
    result = plan_trim(snapshots, policy, **facts)
    assert sorted(kept(result) + dropped(result)) == sorted(item.id for item in snapshots)
    assert all(item.reasons and all(item.reasons) for item in result.keep)
    assert all(item.reason for item in result.drop)
    assert kept(result) == sorted(kept(result), key=lambda name: -int(name[1:]))
    assert {item.id for item in snapshots if firm(item.holds)} <= set(kept(result))


@pytest.mark.slow
@given(situations())
def test_freed_bytes_are_those_of_objects_that_nothing_kept_needs(
    situation: tuple[list[Candidate], TrimPolicy, dict[str, Any]],
) -> None:
    """Counted from nothing, the bytes are the same, in all and for each snapshot."""
    snapshots, policy, facts = situation
    contents = facts["contents"]
    result = plan_trim(snapshots, policy, **facts)
    left = [item for item in snapshots if item.id in set(kept(result))]
    sizes = contents.object_sizes
    assert result.freed_bytes == sum(sizes[name] for name in sizes.keys() - needed(left, contents))
    before = needed(snapshots, contents)
    unreferenced = sum(sizes[name] for name in sizes.keys() - before)
    assert result.freed_bytes == unreferenced + sum(item.freed_bytes for item in result.drop)


@given(situations())
def test_limits_hold_or_a_problem_says_why_not(
    situation: tuple[list[Candidate], TrimPolicy, dict[str, Any]],
) -> None:
    """After the plan, each limit is met, or named together with what stands in its way."""
    snapshots, policy, facts = situation
    result = plan_trim(snapshots, policy, **facts)
    problems, project = " ".join(result.problems), facts["project"]
    left = [item for item in snapshots if item.id in set(kept(result))]
    if policy.keep is not None:
        # A limit of the store's size may have taken some of those that it had to leave.
        count = sum(bool(held_by(replace(item, holds=left_over(item, result)), project)) for item in left)
        assert count <= policy.keep or "keep is" in problems
    if policy.max_size is not None:
        over = facts["store_size"] - result.freed_bytes > policy.max_size
        assert over == ("max_size is" in problems)
    if policy.min_free is not None and facts["free"] is not None:
        assert (facts["free"] + result.freed_bytes < policy.min_free) == ("min_free is" in problems)
    if "the rest is pinned or current" in problems:
        assert all(firm(item.holds) for item in left)
    fade = FADE_SECONDS if policy.max_age is None else policy.max_age
    for item in left:
        assert all(not hold.gone or facts["now"] - hold.used.at <= fade for hold in left_over(item, result))


@given(situations())
def test_only_holds_that_a_policy_may_end_are_ended(
    situation: tuple[list[Candidate], TrimPolicy, dict[str, Any]],
) -> None:
    """Another project's never, but for venvs that are gone; of ours, none that keep_per_venv protects."""
    snapshots, policy, facts = situation
    project = facts["project"]
    result = plan_trim(snapshots, policy, **facts)
    mine = [(hold, item.id) for item in snapshots for hold in held_by(item, project) if not hold.gone]
    recent = set()
    for venv in {hold.venv for hold, _ in mine}:
        ordered = sorted((hold.used, each) for hold, each in mine if hold.venv == venv)
        recent |= {each for _, each in ordered[max(len(ordered) - policy.keep_per_venv, 0) :]}
    large = ("max_size is", "min_free is")
    ended = {item.id: "" for item in snapshots if item.id in result.given_up}
    ended |= {
        item.id: item.reason for item in result.drop if not any(limit in item.reason for limit in large)
    }
    for item in snapshots:
        if item.id in ended:
            gone = [hold for hold in item.holds if hold not in left_over(item, result)]
            over = [hold for hold in (gone or item.holds) if not hold.gone]
            assert all(hold.venv.project == project for hold in over)
            assert not over or not (firm(held_by(item, project)) or item.id in recent)


@given(situations(), st.randoms(use_true_random=False))
def test_the_plan_depends_on_nothing_but_its_input(
    situation: tuple[list[Candidate], TrimPolicy, dict[str, Any]], randomness: random.Random
) -> None:
    """A dry run and the real run decide the same, whatever order the snapshots come in."""
    snapshots, policy, facts = situation
    shuffled = list(snapshots)
    randomness.shuffle(shuffled)
    assert plan_trim(snapshots, policy, **facts) == plan_trim(shuffled, policy, **facts)


@given(situations())
def test_a_second_trim_drops_nothing(situation: tuple[list[Candidate], TrimPolicy, dict[str, Any]]) -> None:
    """After the plan is carried out, the same policy is content with what is left."""
    snapshots, policy, facts = situation
    first = plan_trim(snapshots, policy, **facts)
    left = [replace(item, holds=left_over(item, first)) for item in snapshots if item.id in set(kept(first))]
    contents = facts["contents"]
    sizes = {name: size for name, size in contents.object_sizes.items() if name in needed(left, contents)}
    free = None if facts["free"] is None else facts["free"] + first.freed_bytes
    after = {
        "project": facts["project"],
        "contents": replace(contents, object_sizes=sizes),
        "now": facts["now"],
        "store_size": facts["store_size"] - first.freed_bytes,
        "free": free,
    }
    second = plan_trim(left, policy, **after)
    assert (second.drop, second.given_up, second.freed_bytes) == ((), {}, 0)


@pytest.mark.slow
@pytest.mark.timeout(20)
def test_a_thousand_snapshots_that_share_most_bytes_are_planned() -> None:
    """Counting objects once per tree, not once per snapshot, is what makes this possible at all."""
    objects = dict.fromkeys(range(200_000), 4096)
    trees = {tree: range(tree * 100, tree * 100 + 100) for tree in range(2000)}
    common = tuple(range(1000))
    snapshots = [snapshot(number, trees=(*common, 1000 + number)) for number in range(1000)]
    result = planned(
        snapshots,
        replace(NO_LIMITS, keep=100),
        contents=TreeContents(trees, objects),
        store_size=200_000 * 4096,
    )
    assert len(result.drop) == 900
    assert result.freed_bytes == 900 * 100 * 4096
