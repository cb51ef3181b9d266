"""A job: one venv of one config, with the world around it, and the small files by which its steps speak."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from venvflow import locks
from venvflow.errors import EnvironmentFailure, shown
from venvflow.model import Config, Interpreter, Key, VenvSpec
from venvflow.places import Place
from venvflow.relocate import Places
from venvflow.store import Registration, Store


def _silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, eq=False)
class Job:
    """What a step works on.

    *now* is the clock, in seconds since 1970; *say* takes sentences about waiting and progress. *force*
    allows replacing a venv that was changed by hand. *command* is recorded in snapshots.
    """

    config: Config
    spec: VenvSpec
    environ: Mapping[str, str]
    now: Callable[[], float]
    say: Callable[[str], None] = field(default=_silent)
    force: bool = False
    command: str = ""

    @cached_property
    def place(self) -> Place:
        """Return where the venv belongs."""
        return Place(self.spec.path)

    @cached_property
    def root(self) -> str:
        """Return the project root, resolved: what builders write into files is resolved too."""
        return os.path.realpath(self.config.root)

    @property
    def position(self) -> str:
        """Return the venv's place in the project: what bound snapshots are bound to."""
        return os.path.relpath(self.place.path, self.root)

    def places(self, interpreter: Interpreter) -> Places:
        """Return the local paths that the venv's files name when it is in its place."""
        return Places(self.place.path, self.root, interpreter.executable)

    def file(self, name: str) -> str:
        """Return the path of one of the files by which this venv's tasks speak to each other."""
        return os.path.join(self.config.state_dir, self.spec.name, name)

    @contextmanager
    def locked(self) -> Iterator[locks.Lock]:
        """Hold the venv: one step at a time, in all processes."""
        with locks.exclusive(
            self.file("lock"),
            timeout=locks.lock_timeout(self.environ),
            what=f"the venv {self.spec.name}",
            on_wait=self.say,
        ) as lock:
            yield lock

    def open_store(self) -> Store:
        """Open the store of the config."""
        return Store(self.config.store, timeout=locks.lock_timeout(self.environ), on_wait=self.say)

    def register(
        self, store: Store, key: str, *, link: str, trees: tuple[str, ...] = (), bound: bool = False
    ) -> None:
        """Tell the store of this venv; *trees* are what it keeps alive."""
        place = self.position if bound else ""
        store.register(
            Registration(
                path=self.place.path, project=self.root, name=self.spec.name, key=key, place=place, link=link,
                trees=trees, inode=self.place.inode(), seen=self.now(), pin=self.spec.pin,
            )
        )  # fmt: skip


# --------------------------------------------------------------------------- files between tasks


class KeyRecord(NamedTuple):
    """What ``hash-lockfiles`` found out: the key and the interpreter, and how to see that they still hold.

    *inputs* are the files whose bytes are in the key; *fingerprint* covers them and everything else that
    can be looked at without running a program.
    """

    key: Key
    interpreter: Interpreter
    inputs: tuple[str, ...]
    fingerprint: str
    warnings: tuple[str, ...]


def write_json(path: str, document: Mapping[str, Any]) -> None:
    """Write a small file that is replaced as a whole."""
    temporary = f"{path}.{os.getpid()}-{os.urandom(3).hex()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "w", encoding="ascii") as file:
            json.dump(document, file)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise EnvironmentFailure(
            f"cannot write the project's state: {error.strerror}",
            where=shown(path),
            state="No venv was changed.",
            hint="Check the permissions and the free space of the project directory.",
        ) from error


def read_json(path: str) -> dict[str, Any] | None:
    """Return what was written to *path*, or None if it is not there or makes no sense."""
    try:
        with open(path, encoding="ascii") as file:
            document = json.load(file)
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def write_key(job: Job, record: KeyRecord) -> None:
    """Leave the key for the steps that follow."""
    interpreter = {name: getattr(record.interpreter, name) for name in Interpreter.__slots__}
    write_json(
        job.file("key.json"),
        {
            "digest": record.key.digest,
            "parts": record.key.parts,
            "interpreter": interpreter,
            "inputs": record.inputs,
            "fingerprint": record.fingerprint,
            "warnings": record.warnings,
        },
    )


def read_key(job: Job) -> KeyRecord | None:
    """Return the key that ``hash-lockfiles`` left, or None."""
    document = read_json(job.file("key.json"))
    try:
        if document is None:
            return None
        return KeyRecord(
            Key(document["digest"], document["parts"]),
            Interpreter(**document["interpreter"]),
            tuple(document["inputs"]),
            document["fingerprint"],
            tuple(document["warnings"]),
        )
    except (KeyError, TypeError):
        return None


def need_key(job: Job) -> KeyRecord:
    """Return the key; raises EnvironmentFailure when ``hash-lockfiles`` has not been run."""
    record = read_key(job)
    if record is None:
        raise EnvironmentFailure(
            "its key is not known",
            where=job.spec.name,
            state="Nothing was changed.",
            hint=f'Run "doit hash-lockfiles:{job.spec.name}" first.',
        )
    return record
