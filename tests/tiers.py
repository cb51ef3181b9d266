"""What the quick tests leave to ``make test``: cases of a test, and tries by chance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings


def first_quick(cases: Iterable[Any]) -> list[Any]:
    """Return *cases* of one argument for parametrize: the first stands for all in the quick tests."""
    first, *others = cases
    return [first, *(pytest.param(case, marks=pytest.mark.slow) for case in others)]


def tries(most: int) -> range:
    """Return the numbers of tries by chance: as many as a property has examples, but at most *most*."""
    return range(min(most, settings().max_examples))
