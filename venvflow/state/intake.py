"""Takes a surveyed venv into the store: its files become objects, bytecode and trees.

No name in the venv changes here; :mod:`venvflow.state.relink` gives names to the objects, to all but bytecode
while that is still compiled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from venvflow.disk.attributes import own_attributes
from venvflow.disk.bytecode import Bytecode, Compiling, Source, can_be_compiled, is_source, pyc_path
from venvflow.disk.objects import Batch, MtimeMode, Name, object_name, sealed
from venvflow.disk.scan import Changing, Found, lstat, read
from venvflow.errors import EnvironmentFailure, Refused, shown
from venvflow.model import BytecodePolicy, Entry, Interpreter, LinkMode, Manifest
from venvflow.pure.manifest import group, source_of
from venvflow.pure.sharing import intake_of, mtime_of, stays_private
from venvflow.state.contents import digest_in
from venvflow.state.index import Compiled
from venvflow.state.relink import is_temporary
from venvflow.state.store import Store, bytecode_id
from venvflow.state.survey import Survey

_Inode = tuple[int, int]
"""Inode and device."""

_ANY: _Inode = (0, 0)
"""That of an object which may just have become another file: no file of a venv is known to be it."""


@dataclass(slots=True)
class Taken:
    """What an intake gave: the *manifest*, all *entries* by path, and figures.

    *origins* maps new objects to the files that they were copied from: those need no comparison. *own* maps
    those that are files of the venv themselves to their paths. *linked* are paths of files that were found to
    be names of their objects. *shared* maps those that are shared with others to the mtime and mode that they
    keep; the figures say how many *adopted* ones that are.
    """

    manifest: Manifest
    entries: dict[str, Entry]
    origins: dict[Name, str] = field(default_factory=dict)
    own: dict[Name, str] = field(default_factory=dict)
    linked: set[str] = field(default_factory=set)
    shared: Mapping[Name, MtimeMode] = field(default_factory=dict)
    new_objects: int = 0
    new_bytes: int = 0
    adopted: int = 0
    adopted_bytes: int = 0
    compiled: int = 0
    uncompilable: int = 0

    @property
    def trees(self) -> tuple[str, ...]:
        """Return the digests of the manifest's trees."""
        return tuple(tree.digest for tree in self.manifest.trees)


@dataclass(slots=True)
class Precompiled:
    """Bytecode of a venv's sources that is in the store already, and how many bytes of objects that *added*.

    Nothing refers to it yet: its sources are no objects.
    """

    compiled: Compiled = field(default_factory=dict)
    added: dict[Name, int] = field(default_factory=dict)


@dataclass(eq=False)
class Intake:
    """Takes one venv at path *venv* into a store.

    *mode* is how its files will be linked, *min_size* (bytes) from which size on, but for those that are
    *private* by their path. *built_here*: our builder has just made it, so nobody else uses its files.
    """

    store: Store
    venv: str
    interpreter: Interpreter
    mode: LinkMode
    min_size: int
    built_here: bool
    private: Callable[[str], bool] = lambda _path: False
    excluded: Callable[[str], bool] = lambda _path: False
    progress: Callable[[str, int, int], object] = lambda _stage, _done, _of: None

    def __post_init__(self) -> None:
        self._objects = self.store.objects
        self._bytecode_key = bytecode_of(self.interpreter)
        self._adopted = self.store.adopted()
        self._asked_again = False
        self._linked: set[str] = set()

    @contextmanager
    def precompiling(self, survey: Survey) -> Iterator[Precompiled]:
        """Compile what packages brought to *survey* while the block goes on; at its end the store has it.

        The venv may get another name in the block. Nothing else is compiled: whether that may be in the store
        is not known yet. Where it fails, :meth:`take` compiles it, and says why it cannot. What is given is
        filled at the end. Raises ``OSError`` where the store cannot be written.
        """
        made = Precompiled()
        brought = frozenset().union(*(each.paths for each in survey.distributions))
        _, todo = self._to_compile(survey, made)
        sources = [each._replace(file=each.path) for each in todo if each.path in brought]
        if not sources:
            yield made
            return
        with (
            self._objects.batch() as batch,
            Compiling(self.interpreter, sources, batch.staging, home=self.venv) as compiling,
        ):
            yield made
            with suppress(EnvironmentFailure, Changing, OSError):
                compiled = self._compiled(batch, compiling)
                batch.publish_objects()
                made.compiled, made.added = compiled, batch.added

    def take(
        self,
        survey: Survey,
        *,
        bytecode: BytecodePolicy,
        sound: Container[str] = (),
        precompiled: Precompiled | None = None,
        meanwhile: Callable[[Taken], object] | None = None,
    ) -> Taken:
        """Take *survey* into the store and return what came of it.

        *sound* are paths whose objects were seen to be sound just now. What is *precompiled* counts as if it
        were compiled here. *meanwhile* is called, if there are sources to compile, with what was taken but
        their bytecode: all of it is in the store. *survey* loses what a killed run left in the venv, the old
        bytecode of what is compiled anew, and what of *bytecode* that is kept is not valid. Raises
        ``OSError`` when the store cannot be written, :class:`venvflow.disk.scan.Changing` when a file is not
        the one that was surveyed any more.
        """
        with self._objects.batch() as batch:
            for path in [*filter(is_temporary, survey.entries)]:  # left by a kill: relinking deletes it
                del survey.entries[path]
            self._resolve_links(survey)
            if bytecode == "keep":
                self._keep_valid(batch, survey)
            before = precompiled or Precompiled()
            known, todo = self._to_compile(survey, before) if bytecode == "canonical" else ({}, [])
            with Compiling(self.interpreter, todo, batch.staging) as compiling:
                self._take_files(batch, survey, sound)
                entries = {**survey.entries, **self._bytecode_entries(survey, known)}
                if todo and meanwhile is not None:
                    batch.publish_objects()
                    meanwhile(self._taken(batch, Manifest(()), entries))
                fresh = self._compiled(batch, compiling) if todo else {}
            entries |= self._bytecode_entries(survey, fresh)
            manifest = Manifest(group(entries, survey.distributions), survey.bound)
            self.store.stage_trees(batch, manifest.trees)
            batch.publish()
            used = {source: made for source, made in before.compiled.items() if source in known}
            self._record(batch, manifest, {**used, **fresh})
        taken = self._taken(batch, manifest, entries)
        taken.compiled = len(used) + len(fresh)
        taken.new_objects += len(before.added)
        taken.new_bytes += sum(before.added.values())
        taken.uncompilable = [*known.values(), *fresh.values()].count(None)
        return taken

    def _taken(self, batch: Batch, manifest: Manifest, entries: dict[str, Entry]) -> Taken:
        """Return what was taken until now."""
        return Taken(
            manifest,
            entries,
            batch.origins,
            batch.own,
            self._linked,
            batch.adopted,
            new_objects=len(batch.added),
            new_bytes=sum(batch.added.values()),
            adopted=len(batch.adopted),
            adopted_bytes=sum(batch.added[name] for name in batch.adopted if name in batch.added),
        )

    def _record(self, batch: Batch, manifest: Manifest, fresh: Compiled) -> None:
        """Tell the index what it does not know; of objects too that the store has and the index lost."""
        index = self.store.index
        trees = index.unknown_trees(manifest.trees)
        entries = (entry for tree in trees for entry in tree.entries)
        sizes = {object_name(entry): entry.size for entry in entries if entry.digest} | batch.added
        kept = {name: size for name, size in sizes.items() if name in batch or name not in self._adopted}
        with index.writing():
            index.add_objects(kept, batch.adopted)
            index.add_bytecode(self._bytecode_key, fresh)
            index.add_trees(trees)

    # ----------------------------------------------------------------------- files

    def _resolve_links(self, survey: Survey) -> None:
        """Treat links into the store as the files that they replaced: the venv was shared by symlinks."""
        for path, entry in survey.entries.items():
            target = os.readlink(f"{self.venv}/{path}") if entry.kind == "link" else ""
            name = self._objects.name_at(target)
            if name is None:
                if digest_in(target):
                    raise _of_another_store(f"{self.venv}/{path}", target)
                continue
            if not self._objects.verified(name):
                raise _dangling(f"{self.venv}/{path}")
            size = lstat(target).stamp.size
            survey.entries[path] = Entry(path, "file", name.digest, name.executable, size)
            survey.found.pop(path)  # so that it is put there anew, in whatever mode is chosen now

    def _take_files(self, batch: Batch, survey: Survey, sound: Container[str]) -> None:
        for template in survey.templates.values():
            batch.add_bytes(template.data)
        # Sources first: where another file has the same bytes, the object gets the mtime that sources need.
        for number, path in enumerate(sorted(survey.entries, key=lambda path: not path.endswith(".py")), 1):
            self.progress("storing", number, len(survey.entries))
            entry = survey.entries[path]
            if entry.kind == "file" and path not in sound:
                name = object_name(entry)
                if name in batch:
                    continue
                inode = self._inode(name, entry.size)
                if inode is None:
                    self._take_file(batch, survey.found[path], entry, name)
                else:
                    self._note_link(survey, path, inode)

    def _take_file(self, batch: Batch, found: Found, entry: Entry, name: Name) -> None:
        path = f"{self.venv}/{found.path}"
        adopt = self.store.config.adopt
        how = intake_of(entry.path, found.links, built_here=self.built_here, adopt=adopt, mode=self.mode)
        # What is shared has no attributes of one file: it keeps them as a private file, beside its object.
        private = stays_private(entry, self.min_size) or self.private(entry.path)
        if how == "copy" or private or own_attributes(path):
            batch.add_copy(path, name, found.stamp)
        elif how == "own":
            batch.add_own(path, name, found, built_here=self.built_here)
        else:
            batch.adopt(path, name, found)

    def _note_link(self, survey: Survey, path: str, inode: _Inode) -> None:
        """Take note of a file that is the object with this *inode*."""
        found = survey.found.get(path)
        if found is not None and (found.stamp.inode, found.device) == inode:
            self._linked.add(path)

    def _inode(self, name: Name, size: int) -> _Inode | None:
        """Return which inode an object is, None if the store does not have it.

        One that looks changed must prove itself. Publishing another under its name puts it aside.
        """
        standing, st = self._objects.look(name, size, self._adopted.get(name))
        if st is None or standing == "sound":
            return (st.st_ino, st.st_dev) if st is not None else None
        if not self._asked_again:  # another run may have adopted it meanwhile
            self._adopted, self._asked_again = self.store.adopted(), True
        expected = self.store.relabel(name, size, self._adopted.pop(name, None))
        if expected is not None and expected != sealed(name):
            self._adopted[name] = expected
        return _ANY if expected is not None else None

    # ----------------------------------------------------------------------- bytecode

    def _keep_valid(self, batch: Batch, survey: Survey) -> None:
        """Let valid bytecode note the time that its source gets, and leave out what is not valid (PEP 552).

        A source that names local paths is another one elsewhere. What is checked by a hash notes no time.
        """
        for path in [path for path in survey.entries if path in survey.found]:
            source = survey.entries.get(source_of(path) or "")
            if source is not None:
                found, entry = survey.found[path], survey.entries[path]
                content = read(f"{self.venv}/{path}", known=found.stamp, keep=found.stamp.size)
                magic = self.interpreter.magic if f".{self.interpreter.cache_tag}." in path else ""
                kept = fitting(content.data, source, survey.found.get(source.path), bytes.fromhex(magic))
                if content.digest != entry.digest:
                    raise Changing(f"{self.venv}/{path}")
                if kept is None:
                    del survey.entries[path]
                elif kept != content.data:
                    survey.entries[path] = entry._replace(digest=batch.add_bytes(kept).digest)
                    survey.found.pop(path)  # so that it is put there anew

    def _to_compile(self, survey: Survey, precompiled: Precompiled) -> tuple[Compiled, list[Source]]:
        """Return the bytecode that is known of sources that can be imported, and what has to be compiled.

        The largest come first, so that no process is left with one at the end.
        """
        sources = [each.digest for each in survey.entries.values() if is_source(each.path)]
        index = {**self.store.index.bytecode(self._bytecode_key, sources), **precompiled.compiled}
        known: dict[tuple[str, str], tuple[Name, int] | None] = {}
        todo: list[tuple[int, Source]] = []
        for path, entry in survey.entries.items():
            if entry.kind == "file" and is_source(path):
                source, target = (entry.digest, path), pyc_path(path, self.interpreter.cache_tag)
                if self.excluded(target):
                    continue
                if not can_be_compiled(path, entry.size, self.interpreter.cache_tag):
                    known[source] = None
                elif source in index and (inode := self._inode_of(index[source])) is not None:
                    known[source] = index[source]
                    self._note_link(survey, target, inode)
                else:
                    todo.append((-entry.size, Source(entry.digest, path, f"{self.venv}/{path}")))
        return known, [source for _, source in sorted(todo)]

    def _inode_of(self, made: tuple[Name, int] | None) -> _Inode | None:
        """Return which inode the bytecode of a source is; of one that does not compile, there is none."""
        return self._inode(*made) if made is not None else _ANY

    def _compiled(self, batch: Batch, compiling: Compiling) -> Compiled:
        """Stage what was compiled, and return it."""
        compiled: dict[tuple[str, str], tuple[Name, int] | None] = {}
        for source, made in compiling.result(partial(self.progress, "compiling")).items():
            compiled[source.digest, source.path] = self._staged(batch, made) if made is not None else None
        return compiled

    def _staged(self, batch: Batch, made: Bytecode) -> tuple[Name, int]:
        """Stage bytecode that the store does not have; return the object that it is, and its size."""
        name = Name(made.digest, executable=False)
        if name not in batch and self._inode(name, made.size) is None:
            batch.add_staged(made.file, name, made.size)
        return name, made.size

    def _bytecode_entries(self, survey: Survey, compiled: Compiled) -> dict[str, Entry]:
        """Return the entries of bytecode; *survey* loses what has its names and is not the object."""
        entries = {}
        for (_, source), made in compiled.items():
            if made is not None:
                path = pyc_path(source, self.interpreter.cache_tag)
                entries[path] = Entry(path, "file", made[0].digest, executable=False, size=made[1])
                if path not in self._linked:
                    survey.found.pop(path, None)
        return entries


def fitting(data: bytes, source: Entry, found: Found | None, magic: bytes = b"") -> bytes | None:
    """Return bytecode as it fits its *source* with the time of its content; None if it is not valid.

    *found* is the source as it was installed, None if it has that time. *magic* is the number that its Python
    wants: another build of the same version may have another one.
    """
    if source.kind != "file" or len(data) < _HEADER or not data.startswith(magic):
        return None
    if data[4:8] != bytes(4):
        return data
    seconds = mtime_of(source.digest)
    installed = found.stamp.mtime_ns // 1_000_000_000 if found is not None else seconds
    if data[8:_HEADER] != _word(installed) + _word(source.size):
        return None
    return data[:8] + _word(seconds) + data[12:]


_HEADER = 16
"""Bytes before the code: magic number, flags, time and size of the source."""


def _word(number: int) -> bytes:
    return (number & 0xFFFFFFFF).to_bytes(4, "little")


def bytecode_of(interpreter: Interpreter) -> str:
    """Return what two venvs must agree on to share bytecode: the same text that a key gives."""
    python = f"{interpreter.implementation} {interpreter.version}"
    return bytecode_id({"python": python, "abi": interpreter.abi})


def _of_another_store(path: str, target: str) -> Refused:
    other = shown(target.rpartition("/objects/")[0])
    return Refused(
        "the venv is linked into another store by symlinks",
        where=shown(path),
        state="The venv is unchanged, and nothing was stored.",
        hint=f"Delete it and run doit again, or set store.path back to {other}.",
    )


def _dangling(path: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        "the object that it links to is missing or damaged",
        where=shown(path),
        state="The venv is unchanged, and nothing was stored.",
        hint="Delete the venv and run doit again: it is built anew.",
    )
