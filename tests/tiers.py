"""What the quick tests leave to ``make test``: cases of a test, and tries by chance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings


def first_quick(cases: Iterable[Any], *, every: int = 0) -> list[Any]:
    """Return *cases* of one argument for parametrize: the first stands for all in the quick tests.

    With *every*, one case in so many does.
    """
    return [
        case if number == 0 or (every and number % every == 0) else pytest.param(case, marks=pytest.mark.slow)
        for number, case in enumerate(cases)
    ]


def tries(most: int) -> range:
    """Return the numbers of tries by chance: as many as a property has examples, but at most *most*."""
    return range(min(most, settings().max_examples))
