"""Lock files in which one package is at another version: what changes in a project from day to day."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from bench.world import World

BUMPED: Mapping[str, str] = {"data": "networkx", "web": "rich", "small": "rich", "tiny": "rich"}
"""The package of each lock file that is bumped."""

VERSIONS: Mapping[str, Sequence[str]] = {
    "networkx": ("3.4.1", "3.4", "3.3", "3.2.1", "3.2", "3.1", "3.0", "2.8.8"),
    "rich": ("14.3.4", "14.3.3", "14.3.2", "14.2.0", "14.1.0", "14.0.0", "13.9.4", "13.8.1"),
}
"""Its other versions, one after the other; ``bench/locks/bumps`` has a lock file of each."""

MAIN = "main"
"""In a row's list of lock files: that of the venv that this run is about."""

BUMPS_OF = "bumps of "
"""In a row's list of lock files, before the name of one: its bumps."""


def locks_of(world: World, listed: Sequence[str]) -> Iterator[str]:
    """Yield the names of the lock files that a row has *listed*."""
    for words in listed:
        name = words.removeprefix(BUMPS_OF)
        name = world.main if name == MAIN else name
        if words.startswith(BUMPS_OF):
            yield from (f"bumps/{version(name, number + 1)}" for number in range(bumps(name)))
        else:
            yield name


def bumps(name: str) -> int:
    """Return how often the lock file *name* can be bumped to what was never there before."""
    return len(VERSIONS[BUMPED[name]])


def version(name: str, number: int) -> str:
    """Return which ``package-version`` the bump *number* (from 1) of the lock file *name* brings."""
    package = BUMPED[name]
    return f"{package}-{VERSIONS[package][number - 1]}"


def bumped(world: World, name: str, number: int) -> str:
    """Return the path of the lock file *name* after *number* bumps; none: as it is."""
    if not number:
        return world.lock_file(name)
    path = world.path("locks", f"{name}-{number}.txt")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(world.lock_file(name), encoding="utf-8") as file:
        blocks = list(blocks_of(file.read()))
    with open(world.lock_file(f"bumps/{version(name, number)}"), encoding="utf-8") as file:
        new = file.read()
    head = f"{BUMPED[name]}=="
    kept = [block for block in blocks if not block.startswith(head)]
    first = next(place for place, block in enumerate(blocks) if block.startswith(head))
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join([*kept[:first], new, *kept[first:]]))
    return path


def blocks_of(text: str) -> Iterator[str]:
    """Yield the parts of a lock file: a package's line with the indented lines below it."""
    block = ""
    for line in text.splitlines(keepends=True):
        if block and not line.startswith((" ", "\t")):
            yield block
            block = ""
        block += line
    yield block
