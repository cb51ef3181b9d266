"""What a word names that is explained or compared: a venv, a snapshot, a key, an archive.

One that could be several things is the first of them in this order: a venv of the config, a venv by its
path, an archive, a snapshot, a key. Which it was is said then, and ``venv:``, ``path:``, ``archive:``,
``snapshot:`` or ``key:`` before it leaves no choice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from venvflow.cli.machine import Machine, nearest_venvs
from venvflow.errors import UsageError, shown

if TYPE_CHECKING:
    from venvflow.cli.glance import Glance
    from venvflow.model import Key, Snapshot
    from venvflow.steps.job import Job
    from venvflow.steps.records import KeyRecord

Kind = Literal["venv", "path", "archive", "snapshot", "key"]

_ID = re.compile(r"[0-9a-f]{4,64}")
_SHORT = 12
"""Digits of an id, as they are shown."""

_WORDS: Mapping[Kind, str] = {
    "venv": "the venv of that name in the config",
    "path": "the venv at that path",
    "archive": "the archive at that path",
    "snapshot": "the snapshot",
    "key": "the key",
}


@dataclass(frozen=True, eq=False)
class Thing:
    """What a word names.

    *kind* says what it is, *name* how to call it. A venv has a *path*, and a *job* if the config names it; an
    archive has a *path*; a snapshot is one; a key comes with the *snapshots* for it, and with the *record* of
    a venv of this project that has it.
    """

    kind: Kind
    name: str
    path: str = ""
    job: Job | None = None
    snapshots: tuple[Snapshot, ...] = ()
    record: KeyRecord | None = None
    key: Key | None = None

    @property
    def label(self) -> str:
        """Return what it is and how it is called, in one word or two."""
        kind = "venv" if self.kind == "path" else self.kind
        return f"{kind} {shown(self.name)}"


class Names:
    """Finds what words name, in the project and the store that we are in. *say* is told what was chosen."""

    def __init__(
        self, machine: Machine, store: Glance | None, directory: str, say: Callable[[str], None]
    ) -> None:
        self._machine = machine
        self._store = store
        self._directory = directory
        self._say = say
        self._finders: dict[Kind, Callable[[str], Thing | None]] = {
            "venv": self._venv,
            "path": self._path,
            "archive": self._archive,
            "snapshot": self._snapshot,
            "key": self._key,
        }

    def find(self, word: str) -> Thing:
        """Return what *word* names. Raises UsageError, with the nearest name there is."""
        kind, colon, rest = word.partition(":")
        if colon and kind in self._finders and rest:
            for known, finder in self._finders.items():
                if known == kind and (thing := finder(rest)) is not None:
                    return thing
            raise self._unknown(rest, f"there is no {kind} {shown(rest)!r}")
        found = list(self._all(word))
        if not found:
            raise self._unknown(word, f"{shown(word)!r} is neither a venv, nor a snapshot, key or archive")
        if len(found) > 1:
            other = found[1].kind
            self._say(
                f"{shown(word)} is taken for {_WORDS[found[0].kind]}; "
                f"write {other}:{shown(word)} for {_WORDS[other]}"
            )
        return found[0]

    def _all(self, word: str) -> Iterator[Thing]:
        """Yield everything that *word* may name, each thing once."""
        seen: set[str] = set()
        for finder in self._finders.values():
            thing = finder(word)
            if thing is not None:
                same = thing.path or next((each.id for each in thing.snapshots), thing.name)
                if same not in seen:
                    seen.add(same)
                    yield thing

    def _unknown(self, word: str, what: str) -> UsageError:
        from venvflow.pure.nearest import meant  # noqa: PLC0415 - only for mistakes

        if "/" in word and (venv := next(nearest_venvs(self._absolute(word)), None)):
            return UsageError(what, state="Nothing was changed.", hint=f"Did you mean {shown(venv)}?")
        flow = self._machine.flow
        if flow is None:
            hint = "There is no venvflow.yaml here that names venvs: give a path, or say where with -C or -c."
            return UsageError(what, state="Nothing was changed.", hint=hint)
        names = list(flow.config.venvs)
        stored = {snapshot.venv for snapshot in self._stored}
        known = [*names, *(each.id[:_SHORT] for each in self._stored), *(stored - set(names))]
        advice = meant(word, known, names)
        return UsageError(
            what, state="Nothing was changed.", hint=f'{advice} "venvflow list" shows snapshots.'
        )

    # ----------------------------------------------------------------------- each kind

    def _venv(self, word: str) -> Thing | None:
        flow = self._machine.flow
        if flow is None or word not in flow.config.venvs:
            return None
        job = flow.job(word)
        return Thing("venv", word, job.place.path, job)

    def _absolute(self, word: str) -> str:
        path = os.path.normpath(os.path.join(os.path.abspath(self._directory), word))
        return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))

    def _path(self, word: str) -> Thing | None:
        path = self._absolute(word)
        if not os.path.lexists(f"{path}/pyvenv.cfg"):
            return None
        job = self._machine.job_at(path) or self._machine.job_at(os.path.realpath(path))
        return Thing("path", path, path, job)

    def _archive(self, word: str) -> Thing | None:
        path = self._absolute(word)
        return Thing("archive", word, path) if os.path.isfile(path) else None

    @cached_property
    def _stored(self) -> list[Snapshot]:
        return self._store.snapshots() if self._store is not None else []

    def _snapshot(self, word: str) -> Thing | None:
        if not _ID.fullmatch(word):
            return None
        found = [each for each in self._stored if each.id.startswith(word)]
        if len(found) > 1:
            raise _ambiguous(word, "snapshots", {each.id: each.venv for each in found})
        return Thing("snapshot", word, snapshots=tuple(found), key=found[0].key) if found else None

    def _key(self, word: str) -> Thing | None:
        if not _ID.fullmatch(word):
            return None
        snapshots = [each for each in self._stored if each.key.digest.startswith(word)]
        records = [each for each in self._records() if each.key.digest.startswith(word)]
        keys = {each.key.digest: each.key for each in snapshots}
        keys |= {each.key.digest: each.key for each in records}
        if len(keys) > 1:
            raise _ambiguous(word, "keys", dict.fromkeys(keys, ""))
        for key in keys.values():
            return Thing("key", word, snapshots=tuple(snapshots), record=next(iter(records), None), key=key)
        return None

    def _records(self) -> Iterator[KeyRecord]:
        """Yield the keys that the last runs of this project noted."""
        from venvflow.steps.records import read_key  # noqa: PLC0415 - only where a key is asked for

        flow = self._machine.flow
        for name in flow.config.venvs if flow is not None else ():
            record = read_key(flow.job(name)) if flow is not None else None
            if record is not None:
                yield record


def _ambiguous(word: str, what: str, found: Mapping[str, str]) -> UsageError:
    listed = [
        f"{each[: max(_SHORT, len(word) + 4)]}{f' ({venv})' if venv else ''}" for each, venv in found.items()
    ]
    more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
    return UsageError(
        f"{len(found)} {what} begin with {word!r}: {', '.join(map(shown, listed[:4]))}{more}",
        state="Nothing was changed.",
        hint="Write more of its digits.",
    )
