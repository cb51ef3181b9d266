"""What of a remote goes, and what may not go yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvflow.model import RemoteKeep
from venvflow.pure.decoding import Corrupt
from venvflow.pure.expiry import (
    MOST_IN_MARK,
    STALE,
    Expiry,
    Mark,
    Parcel,
    WantedRecords,
    condemned_since,
    decode_mark,
    due,
    encode_mark,
    kind_of,
    plan_expiry,
    settled,
)
from venvflow.pure.parcels import is_condemned
from venvflow.pure.records import SeenRecord

DAY = 86_400
NOW = 1_000.0 * DAY
GRACE = 2 * DAY
KEEP = RemoteKeep(max_age=30 * DAY, grace=GRACE)


def tree(number: int) -> str:
    """Return the digest of a tree."""
    return f"{number:064x}"


def record(name: str, days: float, *trees: int, **fields: Any) -> SeenRecord:
    """Return a record that was pushed so many days ago."""
    usual = {"trees": tuple(map(tree, trees)), "venv": name.rstrip("0123456789")}
    return SeenRecord(name, NOW - days * DAY, **{**usual, **fields})


def parcels(days: float, *trees: int) -> dict[str, Parcel]:
    """Return parcels of 100 bytes that were written so many days ago."""
    return {tree(each): Parcel(100, NOW - days * DAY) for each in trees}


def mark(kind: Any, days: float, *trees: int) -> Mark:
    """Return a mark that was written so many days ago."""
    return Mark(f"{kind}-{days}", kind, NOW - days * DAY, tuple(map(tree, trees)))


def planned(
    records: Sequence[SeenRecord],
    there: dict[str, Parcel],
    marks: Sequence[Mark] = (),
    keep: RemoteKeep = KEEP,
    **wanted: Any,
) -> Expiry:
    """Return the plan."""
    return plan_expiry(records, there, marks, keep, now=NOW, wanted=WantedRecords(**wanted))


def test_old_records_go_but_for_those_that_are_wanted() -> None:
    """Pinned, current, and the newest of a venv of the config; each with its reason."""
    records = [
        record("api1", 40, 1), record("api2", 35, 2), record("web1", 50, 3), record("old1", 60, 4),
        record("pin1", 70, 5), record("pin2", 80, 6), record("api3", 45, 7),
    ]  # fmt: skip
    plan = planned(
        records, parcels(90, *range(1, 8)), names=("api", "pin"), pinned=("pin",), current={"api3": "api"}
    )
    reasons = {each.id: each.reasons for each in plan.keep}
    assert reasons == {
        "api2": ("the newest of api",),
        "api3": ("current for api",),
        "pin1": ("pinned", "the newest of pin"),
        "pin2": ("pinned",),
    }
    assert [(each.id, each.reason) for each in plan.drop] == [
        ("old1", "last pushed 60 d ago, max_age is 30 d"),
        ("web1", "last pushed 50 d ago, max_age is 30 d"),
        ("api1", "last pushed 40 d ago, max_age is 30 d"),
    ]


def test_what_is_not_believed_goes_first_and_is_never_firm() -> None:
    """A stranger's record cannot push out one that is believed, whatever it says that it is."""
    records = [record("api1", 5, 1), record("api2", 1, 2, doubt="nobody signed it")]
    plan = planned(
        records, parcels(9, 1, 2), keep=RemoteKeep(max_size=100), names=("api",), current={"api2": "api"}
    )
    assert [each.id for each in plan.keep] == ["api1"]
    assert plan.drop[0].reason.endswith("last pushed 1 d ago; not believed: nobody signed it")


def test_size_counts_shared_parcels_once() -> None:
    """The one pushed longest ago goes first, and what it shares stays."""
    records = [record("a1", 3, 1, 2), record("b1", 2, 2, 3), record("c1", 1, 3)]
    plan = planned(records, parcels(9, 1, 2, 3), keep=RemoteKeep(max_size=200))
    assert [(each.id, each.freed_bytes) for each in plan.drop] == [("a1", 100)]
    assert plan.freed == 100
    plan = planned(records, parcels(9, 1, 2, 3), keep=RemoteKeep(max_size=1), current={"c1": "c"})
    assert [each.id for each in plan.keep] == ["c1"]
    assert "max_size is 1 B" in plan.problems[0]


def test_what_no_record_needs_is_condemned_and_due_a_grace_later() -> None:
    """What was written lately waits; so does what was sent anew since it was condemned."""
    there = {**parcels(9, 1, 2, 3, 5), **parcels(1, 4), **parcels(2.5, 6)}
    marks = [mark("condemned", 3, 2, 6), mark("condemned", 1, 3, 9)]
    plan = planned([record("a1", 1, 5)], there, marks)
    assert plan.condemn == (tree(1), tree(6))
    assert plan.due == (tree(2),)
    assert plan.waiting == (tree(3),)


def test_nothing_goes_of_which_a_record_that_cannot_be_read_may_need_it() -> None:
    """It may be that of a newer version; by age it goes itself, as any."""
    unread = record("a1", 1, trees=None, doubt="it cannot be read (its format is 2)")
    plan = planned([unread], parcels(9, 1, 2), [mark("condemned", 5, 1)])
    assert (plan.condemn, plan.due) == ((), ())
    assert "1 of the records cannot be read" in plan.problems[0]
    plan = planned([unread._replace(written=NOW - 31 * DAY)], parcels(9, 1, 2), [mark("condemned", 5, 1)])
    assert [each.id for each in plan.drop] == ["a1"]
    assert (plan.condemn, plan.due) == ((tree(2),), (tree(1),))


@given(
    st.lists(st.tuples(st.sampled_from(["condemned", "doomed", "run"]), st.integers(0, 9)), max_size=4),
    st.integers(0, 9),
    st.booleans(),
)
def test_what_a_push_relies_on_is_never_due(made: list[tuple[Any, int]], written: int, needed: bool) -> None:
    """Whatever counts as there for a push is not to be deleted by the same marks, which stay while it is."""
    marks = [mark(kind, days, 1) for kind, days in made]
    there, need = parcels(written, 1), {tree(1)} if needed else set()
    over = set(settled(marks, there, need, now=NOW, grace=GRACE))
    for each in marks:
        if due([each], there, need, now=NOW, grace=GRACE):
            assert is_condemned(tree(1), there[tree(1)].written, condemned_since(marks))
            assert not needed
            assert each.name not in over


def test_marks_of_killed_trims_go() -> None:
    """Those under which nothing is left to do, a grace later; those of a run, after an hour."""
    hour = 3600 / DAY
    marks = [
        mark("doomed", 2 * hour, 1), mark("doomed", hour / 2, 2), mark("run", 2 * hour),
        mark("condemned", 3.5, 3), mark("condemned", 3, 4), mark("condemned", 1, 5),
        Mark("bad", "condemned", NOW - 3 * DAY, None),
    ]  # fmt: skip
    over = settled(marks, parcels(9, 1, 2, 4, 5), {tree(5)}, now=NOW, grace=GRACE)
    assert {*over} == {marks[0].name, marks[2].name, marks[3].name, "bad"}
    assert STALE == 3600


def test_marks_are_read_as_they_were_written() -> None:
    """And nothing else is taken for one."""
    assert decode_mark(encode_mark([tree(2), tree(1)])) == (tree(1), tree(2))
    for wrong in (b"", b"{}", b'{"format":2,"trees":[]}', encode_mark(map(tree, range(MOST_IN_MARK + 1)))):
        with pytest.raises(Corrupt):
            decode_mark(wrong)
    assert kind_of(f"doomed-{'0' * 32}") == "doomed"
    for name in ("doomed", f"doomed-{'0' * 31}", f"other-{'0' * 32}", f"doomed-{'G' * 32}", ""):
        assert kind_of(name) is None
