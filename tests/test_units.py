"""Sizes and durations: what is read, what is refused, what is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvflow.pure.units import (
    DURATION_UNITS,
    LARGEST,
    SIZE_UNITS,
    parse_duration,
    parse_size,
    show_duration,
    show_size,
)


@given(st.integers(1, 10**6), st.sampled_from(sorted(SIZE_UNITS)), st.sampled_from(["", " "]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str, space: str) -> None:
    """Every unit multiplies, with or without a space."""
    assert parse_size(f"{number}{space}{unit}") == number * SIZE_UNITS[unit]


@given(st.integers(1, 10**6), st.sampled_from(sorted(DURATION_UNITS)))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: str) -> None:
    """Every unit of time multiplies."""
    assert parse_duration(f"{number}{unit}") == number * DURATION_UNITS[unit]


@given(st.integers(1, LARGEST))
def test_plain_numbers_are_bytes(number: int) -> None:
    """Integers and their text stand for bytes."""
    assert parse_size(number) == parse_size(str(number)) == parse_size(f"{number}B") == number


@pytest.mark.parametrize(
    ("text", "help_text"),
    [
        ("10G", "write 10GiB or 10GB"),
        ("10k", "write 10KiB or 10KB"),
        ("10gib", "write 10GiB"),
        ("10mb", "write 10MB"),
        ("10Gi", "use one of B, KiB"),
        ("10PB", "use one of"),
        ("-1GiB", "is negative"),
        (-5, "is negative"),
        ("", "such as 20GiB"),
        ("GiB", "such as 20GiB"),
        ("1.5GiB", "whole number"),
        ("1_000", "whole number"),
        ("0x10", "whole number"),
        ("٣GiB", "whole number"),
        ("1GiB\n", "whole number"),
        (" 1GiB", "whole number"),
        ("1  GiB", "whole number"),
        (True, "whole number"),
        ("0", "more than zero"),
        ("0GiB", "more than zero"),
        (0, "more than zero"),
        ("9" * 19 + "B", "is too large"),
        ("9999999TiB", "is too large"),
        ("9" * 5000, "whole number"),
    ],
)
def test_a_bad_size_is_refused_with_help(text: str | int, help_text: str) -> None:
    """Each typing error gets a text that says what to write."""
    with pytest.raises(ValueError, match=help_text):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "help_text"),
    [
        ("14", "no unit: write 14s, 14m"),
        (14, "no unit: write 14s"),
        ("2 days", "write 2d"),
        ("5min", "write 5m"),
        ("3H", "write 3h"),
        ("1y", "no known unit: write 1s"),
        ("1h30m", "whole number"),
        ("-1d", "is negative"),
        ("0d", "more than zero"),
        ("", "such as 14d"),
        ("d", "such as 14d"),
        ("9" * 19 + "w", "is too large"),
    ],
)
def test_a_bad_duration_is_refused_with_help(text: str | int, help_text: str) -> None:
    """Each typing error gets a text that says what to write."""
    with pytest.raises(ValueError, match=help_text):
        parse_duration(text)


def test_zero_is_accepted_where_it_makes_sense() -> None:
    """The caller says whether zero means something."""
    assert parse_size("0", zero=True) == 0


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_181_116_006, "1.1 GiB"),
        (10 * 1024 - 1, "10 KiB"),
        (345 << 20, "345 MiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        ((1 << 30) - 1, "1.0 GiB"),
        (5000 << 40, "5000 TiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_sizes_are_shown_short(size: int, text: str) -> None:
    """Binary units, one decimal below ten, never 1024 of a unit."""
    assert show_size(size) == text


@given(st.integers(0, 1 << 50))
def test_a_shown_size_is_near_the_real_one(size: int) -> None:
    """What is shown differs by no more than the last digit's half: 5 per cent at worst."""
    number, unit = show_size(size).split(" ")
    assert abs(float(number) * SIZE_UNITS[unit] - size) <= 0.05 * size + 1e-9


@given(st.integers(1, 9999), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB"]))
def test_whole_sizes_survive_showing_and_reading(number: int, unit: str) -> None:
    """A size that is shown without a decimal reads back as a size of the same length."""
    shown = show_size(number * SIZE_UNITS[unit])
    if "." not in shown:
        assert show_size(parse_size(shown)) == shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.04, "40 ms"),
        (0.0999, "0.1 s"),
        (0.6, "0.6 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (3599.7, "1 h"),
        (3600 + 59 * 60 + 59, "2 h"),
        (3 * 3600 + 300, "3 h 5 min"),
        (86_399, "1 d"),
        (3 * 86_400, "3 d"),
        (3 * 86_400 + 4 * 3600, "3 d 4 h"),
        (-125, "-2 min 5 s"),
    ],
)
def test_durations_are_shown_in_at_most_two_units(seconds: float, text: str) -> None:
    """Rounding carries into the larger unit, and a zero part is left out."""
    assert show_duration(seconds) == text


@given(st.floats(0, 1e8))
def test_a_shown_duration_is_near_the_real_one(seconds: float) -> None:
    """Adding up what is shown gives the duration again: to half a digit, or about 6 per cent."""
    words = show_duration(seconds).split(" ")
    length = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86_400}
    total = sum(float(number) * length[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
    half_a_digit = 0.0006 if seconds < 0.095 else 0.051
    assert abs(total - seconds) <= max(half_a_digit, 0.06 * seconds if seconds > 9.9 else 0)
