"""Patrol: a run of ``doit`` looks for edits in place, in one venv after the other, as far as its budget goes.

Small projects are always looked at as a whole. A large one is looked at in turn: the next run begins where
this one ended. What a patrol needs lies in the project's state, under names that no venv can have, and may be
deleted at any time: it is made again from the store.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from venvflow.disk.files import read_small, write_whole
from venvflow.errors import VenvflowError
from venvflow.state.looks import Looks, Watch, looks_of, read_looks, write_looks

if TYPE_CHECKING:
    from venvflow.disk.objects import Look, Name
    from venvflow.model import Config, Receipt
    from venvflow.state.store import Store
    from venvflow.steps.job import Job

BUDGET = 50_000
"""Files that a run looks at before it leaves the other venvs to the next one; one venv is never cut short."""

_LONGEST_NAME = 4096
"""Bytes of the longest name of a venv that anybody notes."""

_DECODED = 3
"""How many looks it costs to learn from a tree how one file should look."""


class Post(NamedTuple):
    """What a patrol passes: a shared venv, and the receipt that says so."""

    job: Job
    receipt: Receipt


def patrol(posts: Sequence[Post], *, budget: int = BUDGET, whole: bool = False) -> frozenset[str]:
    """Return the names of the venvs of which some file does not look as it was made.

    *posts* are all of one config, in its order. *budget* counts files: venvs beyond it are left to the next
    run. With *whole* there is no budget, and whose turn it is stays as it was.
    """
    if not posts:
        return frozenset()
    config = posts[0].job.config
    memory = _Memory(config)
    watch = Watch(memory.objects, memory.looks)
    suspects, left = set(), ""
    for post in posts if whole else _in_turn(posts, _begin(config)):
        name = post.job.spec.name
        if not whole and watch.looked + memory.decoded * _DECODED >= budget:
            left = name
            break
        if not watch.as_made(post.job.place.path, post.receipt, post.job.spec.min_size):
            suspects.add(name)
    memory.keep(() if whole else posts)
    if not whole:
        _begin_next(config, left)
    return frozenset(suspects)


def is_suspected(job: Job, receipt: Receipt) -> bool:
    """Return whether some file of one venv does not look as it was made."""
    return bool(patrol([Post(job, receipt)], whole=True))


# --------------------------------------------------------------------------- whose turn it is


def _in_turn(posts: Sequence[Post], first: str) -> list[Post]:
    """Return *posts* from the venv called *first* on, then those before it."""
    names = [post.job.spec.name for post in posts]
    at = names.index(first) if first in names else 0
    return [*posts[at:], *posts[:at]]


def _begin(config: Config) -> str:
    """Return the venv that the last patrol has left to this one, empty if it left none."""
    with suppress(OSError, ValueError):
        return read_small(_next_file(config), largest=_LONGEST_NAME).decode("ascii")
    return ""


def _begin_next(config: Config, venv: str) -> None:
    """Note that the next patrol begins with *venv*; empty: with the first one."""
    with suppress(OSError):  # where one may not write, every patrol is the first one
        if venv:
            write_whole(_next_file(config), venv.encode("ascii"))
        else:
            os.unlink(_next_file(config))


def _next_file(config: Config) -> str:
    return f"{config.state_dir}/.next"


# --------------------------------------------------------------------------- what a project remembers


class _Memory:
    """How the files of trees should look: as the project has written it down, else as the store's trees say.

    *decoded* counts the files that had to be learnt from the store.
    """

    def __init__(self, config: Config) -> None:
        self.decoded = 0
        self._config = config
        self._store_path = os.path.realpath(config.store.path)
        self.objects = f"{self._store_path}/objects"
        self._known = read_looks(_looks_file(config), self._store_path)
        self._learnt: dict[str, Looks] = {}
        self._store: Store | None = None
        self._adopted: Mapping[Name, Look] | None = None

    def looks(self, digest: str) -> Looks | None:
        """Return the looks of a tree, None if nobody has it."""
        looks = self._known.get(digest)
        return looks if looks is not None else self._learn(digest)

    def keep(self, posts: Iterable[Post]) -> None:
        """Write down what was learnt, and drop what none of *posts* has; nothing, if there are no posts."""
        if self._store is not None:
            self._store.close()
        if self._learnt:
            needed = {digest for post in posts for digest in post.receipt.trees} or self._known.keys()
            kept = {digest: looks for digest, looks in self._known.items() if digest in needed}
            write_looks(_looks_file(self._config), self._store_path, kept | self._learnt)

    def _learn(self, digest: str) -> Looks | None:
        from venvflow.pure.manifest import Corrupt  # noqa: PLC0415 - only what is new is learnt

        with suppress(Corrupt, VenvflowError, OSError):
            store = self._opened()
            if store is not None:
                if self._adopted is None:
                    self._adopted = store.adopted()
                looks = self._learnt[digest] = looks_of(store.tree(digest).entries, self._adopted)
                self.decoded += len(looks.paths)
                return looks
        return None

    def _opened(self) -> Store | None:
        """Return the store; none is made where none is."""
        if self._store is None and os.path.lexists(f"{self._store_path}/format"):
            from venvflow.state.store import Store  # noqa: PLC0415 - only what is new is learnt

            self._store = Store(self._config.store)
        return self._store


def _looks_file(config: Config) -> str:
    return f"{config.state_dir}/.looks"


def forget(config: Config) -> None:
    """Drop what is written down of trees: the next patrol learns it anew."""
    with suppress(OSError):
        os.unlink(_looks_file(config))
