"""The simulation of a rush agrees with what can be reckoned by hand."""

from __future__ import annotations

import pytest

from bench.rush import DATA, Machines, Servers, cases, main, requests_of, simulate

MIB = 1 << 20
ROUND_TRIP = 0.1


def last(machines: Machines, servers: Servers, *parcels: int) -> float:
    """Return when the last machine has all."""
    return simulate(machines, servers, parcels, round_trip=ROUND_TRIP).last


@pytest.mark.parametrize("size", [1, MIB, 5 * MIB])
def test_one_machine_waits_for_a_round_trip_and_its_link(size: int) -> None:
    """Whatever the pieces in which it comes."""
    assert last(Machines(1, link=MIB), Servers(), size) == pytest.approx(ROUND_TRIP + size / MIB)


@pytest.mark.parametrize(("connections", "round_trips"), [(1, 6), (2, 3), (6, 1), (16, 1)])
def test_requests_of_one_connection_wait_for_each_other(connections: int, round_trips: int) -> None:
    """Without a bound on bytes, only they count."""
    took = last(Machines(1, connections, link=0), Servers(), *[1000] * 6)
    assert took == pytest.approx(round_trips * ROUND_TRIP)


@pytest.mark.parametrize("machines", [1, 7])
def test_machines_share_the_card_of_a_server(machines: int) -> None:
    """All of them have all when all bytes of all went through it; a second server takes half of them."""
    one = last(Machines(machines, link=0), Servers(card=MIB), MIB, MIB)
    assert one == pytest.approx(ROUND_TRIP + 2 * machines)
    two = last(Machines(machines, link=0), Servers(2, card=MIB), MIB, MIB)
    assert two == pytest.approx(ROUND_TRIP + machines)


def test_the_narrowest_of_link_and_processor_decides() -> None:
    """They work at the same time: what is slower ends last."""
    assert last(Machines(1, link=4 * MIB, cuts=MIB), Servers(), 4 * MIB) == pytest.approx(4.25 + ROUND_TRIP)
    assert last(Machines(1, link=MIB, cuts=4 * MIB), Servers(), 4 * MIB) == pytest.approx(4.25 + ROUND_TRIP)


def test_what_a_partition_does_not_take_in_a_second_is_refused_and_asked_again() -> None:
    """Twenty at once, ten in a second: ten are refused at first, and all have what they want in the next."""
    rush = simulate(Machines(20, 1, link=0), Servers(requests=10), [1000], round_trip=ROUND_TRIP)
    assert rush.refused >= 10
    assert 1 <= rush.last < 2 + ROUND_TRIP
    assert simulate(Machines(10, 1, link=0), Servers(requests=10), [1000]).refused == 0
    assert simulate(Machines(20, 1, link=0), Servers(requests=20), [1000]).refused == 0


def test_who_comes_later_has_it_later() -> None:
    """Starts are spread by chance, the same for the same seed."""
    spread = Machines(50, link=0, spread=30)
    assert 25 < last(spread, Servers(), 1000) <= 30 + ROUND_TRIP
    assert last(spread, Servers(), 1000) == last(spread, Servers(), 1000)


def test_large_parcels_are_asked_for_in_ranges() -> None:
    """As the client does it: no byte twice, none left out."""
    assert requests_of([20 * MIB, 3]) == [8 * MIB, 8 * MIB, 4 * MIB, 3]
    assert sum(requests_of(DATA)) == sum(DATA)


def test_the_table_has_a_line_for_each_case(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tried with one machine each."""
    alone = [case._replace(machines=case.machines._replace(number=1)) for case in cases(50e6)]
    monkeypatch.setattr("bench.rush.cases", lambda _cuts: alone)
    assert main(["--cuts", "50"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(alone)
