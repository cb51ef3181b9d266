"""The nearest name: what somebody who mistyped a name may have meant."""

from __future__ import annotations

from collections.abc import Iterable

from venvflow.errors import shown


def nearest(word: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return those of the *known* names that *word* may have been meant for, the nearest first."""
    from difflib import get_close_matches  # noqa: PLC0415 - 4 ms that only a mistake costs

    return get_close_matches(word, list(known), most)


def meant(word: str, known: Iterable[str], shown_if_far: Iterable[str] | None = None) -> str:
    """Return a sentence that helps whoever wrote *word* instead of one of the *known* names.

    It has the name that is nearest; where none is near, *shown_if_far* (all that are known) is listed.
    """
    known = list(known)
    if near := nearest(word, known):
        return f"Did you mean {shown(near[0])}?"
    listed = sorted(known if shown_if_far is None else shown_if_far)
    return f"There are: {', '.join(map(shown, listed))}." if listed else "There are none yet."
