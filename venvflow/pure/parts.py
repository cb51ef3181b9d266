"""Which part of a venv goes into which of several archives.

``layers:`` of the config are lists of patterns of distributions, the heavy ones first. A distribution goes
with the first layer that has a pattern for it. The last layer takes what is left, and what belongs to none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from venvflow.model import Tree
from venvflow.pure.names import normalised

Layers = Sequence[Sequence[str]]

REST = ("*",)
"""The layer of what is left."""


def with_rest(layers: Layers) -> tuple[tuple[str, ...], ...]:
    """Return *layers* with one for what is left, if the last one is not for that already."""
    known = tuple(tuple(patterns) for patterns in layers)
    return known if "*" in known[-1] else (*known, REST)


def partition(trees: Iterable[Tree], layers: Layers) -> list[tuple[Tree, ...]]:
    """Return the trees of each of the *layers*, of which the last takes what is left; some may be empty."""
    parts: list[list[Tree]] = [[] for _ in layers]
    for tree in trees:
        parts[layer_of(tree, layers)].append(tree)
    return [tuple(part) for part in parts]


def layer_of(tree: Tree, layers: Layers) -> int:
    """Return which of the *layers* a tree goes with: only distributions have names that count."""
    last = len(layers) - 1
    if not tree.version:
        return last
    name = normalised(tree.name)
    fitting = (number for number, patterns in enumerate(layers[:last]) if _fits(name, patterns))
    return next(fitting, last)


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, normalised(pattern)) for pattern in patterns)
