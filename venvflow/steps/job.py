"""A job: what a step works on, which is one venv of one config with clock, environment and store.

A run with nothing to do looks at every job, so store and locks are imported when a step asks for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from venvflow.disk.places import Place
from venvflow.errors import Refused, shown
from venvflow.model import Config, Entry, Interpreter, Manifest, VenvSpec
from venvflow.pure.plan import VERBS

if TYPE_CHECKING:
    from venvflow.disk.locks import Lock
    from venvflow.pure.patterns import Matcher
    from venvflow.pure.relocate import Places
    from venvflow.state.carried import Built
    from venvflow.state.history import Event
    from venvflow.state.store import Store
    from venvflow.steps.meter import Meter


TASK_NAMES = (*VERBS, "push", "trim")
"""The names of all tasks: on a command line of doit each names the tasks of all venvs."""


def refuse_linked_state(path: str) -> None:
    """Raise Refused if a directory of the tasks' own state is a symlink: a checkout may bring one."""
    if os.path.islink(path):
        raise Refused(
            "the tasks' own state is a symbolic link",
            where=shown(path),
            state="Nothing was written or deleted behind it.",
            hint="Delete the link: a directory is made in its place, and only history is lost.",
        )


@dataclass(frozen=True, eq=False)
class Job:
    """What a step works on: a venv of a config, or one that none names; that has no name, and no state.

    *now* is the clock, in seconds since 1970; *say* takes sentences about waiting and progress. *force*
    allows replacing a venv that was changed by hand, and sharing one that is not whole. *fresh*: it is built
    from nothing, whatever is there and in the store. *command* are the words of the command, for snapshots.
    *waits* is called again and again while the step waits for what somebody else builds.
    *run* names the venvs of the config that this run is about.
    *credentials* is the environment in which those of the remote are found, where there is one: *environ* is
    without them then.
    """

    config: Config
    spec: VenvSpec
    environ: Mapping[str, str]
    now: Callable[[], float]
    say: Callable[[str], None] = lambda _: None
    force: bool = False
    fresh: bool = False
    command: tuple[str, ...] = ()
    waits: Callable[[], None] = lambda: None
    run: Collection[str] = ()
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)

    @cached_property
    def place(self) -> Place:
        """Return where the venv belongs."""
        return Place(self.spec.path)

    @cached_property
    def root(self) -> str:
        """Return the project root, resolved: what builders write into files is resolved too."""
        return os.path.realpath(self.config.root)

    @cached_property
    def manifests(self) -> dict[tuple[str, ...], tuple[Manifest, dict[str, int]]]:
        """Return the manifest, by its trees, that this process has just shared, until it is published.

        With it are the times of the store's objects, by which none came or went since.

        So the steps that follow need not read what is known. Where they run in another process, they do.
        """
        return {}

    @cached_property
    def unwritten(self) -> list[Event]:
        """Return what the history is to be told of this venv, and was not told yet."""
        return []

    @cached_property
    def built(self) -> dict[str, Built]:
        """Return what this process knows, by its key, of the venv that it has built and not shared yet."""
        return {}

    @property
    def position(self) -> str:
        """Return the venv's place in the project: what bound snapshots are bound to."""
        return self.position_of(self.place)

    def position_of(self, place: Place) -> str:
        """Return what bound snapshots of the venv at a place in this project are bound to."""
        return os.path.relpath(place.path, self.root)

    @property
    def where(self) -> str:
        """Return what messages call the venv: its path, with its name if the config names it."""
        path = shown(self.place.path)
        return f"{self.spec.name}: {path}" if self.spec.name else path

    @property
    def doit(self) -> str:
        """Return what to type, in any shell, to run the tasks of this venv; of all, if it has no name."""
        name = self.spec.name
        if not name:
            return "doit"
        if name in TASK_NAMES:
            return f"doit '*:{name}'"
        from shlex import quote  # noqa: PLC0415 - for messages only

        return f"doit {quote(name)}"

    @property
    def ways_out(self) -> str:
        """Return what to do about changes by hand; only a venv with a name can be built anew by it."""
        if not self.spec.name:
            return "To keep the changes, put them into its lock file; to drop them, delete it; then run doit."
        from shlex import quote  # noqa: PLC0415 - for messages only

        return (
            f'To keep the changes, put them into the lock file, then run "{self.doit}". '
            f'To drop them, run "venvflow build {quote(self.spec.name)} --force".'
        )

    @cached_property
    def meter(self) -> Meter:
        """Return where the steps of this venv say how far they are."""
        from venvflow.steps.meter import meter  # noqa: PLC0415 - see the top of this module

        return meter(self.spec.name)

    @cached_property
    def matcher(self) -> Matcher | None:
        """Return what tells the files that the config excludes, or None if it excludes none."""
        if not self.spec.exclude:
            return None
        from venvflow.pure.patterns import compile_patterns  # noqa: PLC0415 - see the top of this module

        return compile_patterns(self.spec.exclude)

    @cached_property
    def keeps_private(self) -> Callable[[str], bool]:
        """Return what tells, by its path, whether the config wants a file to be the venv's own."""
        if not self.spec.private:
            return lambda _path: False
        from venvflow.pure.patterns import compile_patterns  # noqa: PLC0415 - see the top of this module

        return compile_patterns(self.spec.private).excludes_file

    def copies(self, entries: Iterable[Entry]) -> tuple[str, ...]:
        """Return the paths of those files among *entries* that the config wants to be the venv's own."""
        return tuple(
            entry.path for entry in entries if entry.kind == "file" and self.keeps_private(entry.path)
        )

    def places(self, interpreter: Interpreter) -> Places:
        """Return the local paths that the venv's files name when it is in its place."""
        from venvflow.pure.relocate import Places  # noqa: PLC0415 - see the top of this module

        return Places(self.place.path, self.root, interpreter.executable)

    def file(self, name: str) -> str:
        """Return the path of one of the small files of this venv's tasks."""
        return os.path.join(self.config.state_dir, self.spec.name, name)

    def refuse_unsafe(self) -> None:
        """Raise Refused where working on the venv would make what its owner cannot use, or follow a link."""
        from venvflow.disk.trust import refuse_to_lock_out  # noqa: PLC0415 - see the top of this module

        refuse_to_lock_out(self.root, self.environ)
        refuse_linked_state(self.config.state_dir)
        refuse_linked_state(os.path.join(self.config.state_dir, self.spec.name))

    @contextmanager
    def locked(self) -> Iterator[Lock]:
        """Hold the venv: one step at a time, in all processes."""
        from venvflow.disk import locks  # noqa: PLC0415 - see the top of this module

        self.refuse_unsafe()
        with locks.exclusive(
            self.file("lock"),
            timeout=locks.lock_timeout(self.environ),
            what=f"the venv {self.spec.name}",
            on_wait=self.say,
        ) as lock:
            yield lock

    def open_store(self) -> Store:
        """Open the store of the config."""
        from venvflow.disk import locks  # noqa: PLC0415 - see the top of this module
        from venvflow.state.store import Store  # noqa: PLC0415 - see the top of this module

        return Store(self.config.store, timeout=locks.lock_timeout(self.environ), on_wait=self.say)

    def register(
        self,
        store: Store,
        key: str,
        *,
        link: str,
        trees: tuple[str, ...] = (),
        bound: bool = False,
        inode: int | None = None,
    ) -> None:
        """Tell the store of this venv; *trees* are what it keeps alive.

        *inode* is that of the directory that will be at its place soon; without it, of the one that is.
        """
        from venvflow.state.registry import Registration  # noqa: PLC0415 - see the top of this module

        place = self.position if bound else ""
        store.register(
            Registration(
                path=self.place.path, project=self.root, name=self.spec.name, key=key, place=place, link=link,
                trees=trees, inode=inode or self.place.inode(), seen=self.now(),
            ),
            pin=self.spec.pin,
        )  # fmt: skip
