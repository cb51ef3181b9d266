"""The source of archives and exports of a venv: its manifest, the bytes of its files, description and names.

Of a venv of the config that is what squish left: the manifest in its receipt, and the store's objects. Of any
other it is the venv's directory itself. What is made of either is the same, byte for byte, but for the name
and the key that a venv of the config has.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from venvflow.disk import archive
from venvflow.disk.files import read_small
from venvflow.disk.interpreters import venv_settings
from venvflow.disk.objects import Name
from venvflow.disk.scratch import scratch
from venvflow.disk.system_errors import explained
from venvflow.errors import Refused, UsageError, VenvflowError, shown
from venvflow.model import Entry, Interpreter, Manifest, Tree
from venvflow.pure import relocate
from venvflow.pure.manifest import make_tree, source_of
from venvflow.pure.names import KNOWN, fill, platform_field, venv_name
from venvflow.pure.patterns import Matcher, compile_patterns
from venvflow.pure.relocate import Places, without_rows
from venvflow.state.changes import Drift
from venvflow.state.file_stats import checker_by_own_names
from venvflow.state.listing import Listing, list_venv
from venvflow.state.reader import StoreReader, open_reader
from venvflow.state.recorded import told
from venvflow.state.store import Store
from venvflow.steps.any_venv import refuse_unless_there
from venvflow.steps.bundle import Bundle, bundled, interpreter_bundle, program_of, settings_without_base
from venvflow.steps.facts import find_venv
from venvflow.steps.job import Job
from venvflow.steps.share import interpreter_of
from venvflow.steps.squish import manifest_of
from venvflow.steps.state_files import KeyRecord, need_key, read_key


class Warned(Exception):
    """Nothing is written, because there are *warnings*, and whoever asked wants none."""

    def __init__(self, warnings: tuple[str, ...]) -> None:
        super().__init__(*warnings)
        self.warnings = warnings


def refuse_warnings(before: tuple[str, ...]) -> archive.Accept:
    """Return what raises Warned if there are any warnings, those *before* included."""

    def accept(warnings: Sequence[str]) -> None:
        if before or warnings:
            raise Warned((*before, *warnings))

    return accept


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a venv is packed: *leave_out* are gitignore patterns besides the config's.

    *incomplete*: also a venv whose packages are not what their RECORDs say.
    """

    leave_out: tuple[str, ...] = ()
    incomplete: bool = False


ALL = Choice()


@contextmanager
def pack_source(job: Job, choice: Choice = ALL) -> Iterator[PackSource]:
    """Give what archives are made from: of a venv with a name, while it and the store are held.

    Raises EnvironmentFailure for a venv that is not there or cannot be read, UsageError for anything else
    than a venv, and Refused for one that is not what its RECORDs say.
    """
    if job.spec.name:
        record = need_key(job)
        with job.locked(), job.open_store() as store, store.use(), ExitStack() as later:
            yield StoredVenv(job, record.interpreter, choice, later, time.monotonic(), store, record)
    else:
        begun = time.monotonic()
        with scratch(environ=job.environ) as temporary, ExitStack() as later:
            python = python_of(job)
            with explained(
                "cannot take it in", at=temporary.path, state="Nothing was written.", hint=_MAKE_ROOM
            ):
                listing = _listed(job, choice, python, temporary.path)
            yield VenvAsItLies(job, python, choice, later, begun, listing)


_MAKE_ROOM = "Make room there, or name another directory as TMPDIR, then run again."


def name_of(job: Job) -> str:
    """Return what its venv is called where ``{venv}`` is filled in, and in what is said of it elsewhere."""
    return job.spec.name or venv_name(job.place.path)


def python_of(job: Job) -> Interpreter:
    """Return the base interpreter of the venv. Raises EnvironmentFailure, and UsageError for what is none."""
    if job.spec.name:
        return need_key(job).interpreter
    refuse_unless_there(job.place.path)
    return interpreter_of(job)


def brings_python(job: Job) -> bool:
    """Return whether the interpreter is packed with the venv, too."""
    return job.spec.pack is not None and job.spec.pack.bundle_python


def is_as_shared(job: Job) -> bool:
    """Return whether the venv of a config is, by the look of its files, what doit made and shared."""
    record, receipt = read_key(job), job.place.receipt()
    if record is None or receipt is None or not receipt.is_at(job.place.path):
        return False
    if not receipt.is_shared_for(record.key.digest):
        return False
    with suppress(VenvflowError), open_reader(job.config.store) as store:  # else it need not be known why
        return store is not None and not _drift(job, store)
    return False


def _drift(job: Job, store: StoreReader) -> Drift:
    """Return what changed in the venv since it was shared, by the stat of each file."""
    with checker_by_own_names(job.config) as checker:
        return find_venv(job, store, "stat", checker=checker).drift


@dataclass(frozen=True)
class PackSource:
    """What an archive or an export of the job's venv is made from; *python* is its base interpreter.

    *begun* is when work on it began, by the monotonic clock.
    """

    job: Job
    python: Interpreter
    choice: Choice
    _later: ExitStack
    begun: float
    _pruned: dict[str, str] = field(default_factory=dict, init=False)
    _bundles: list[Bundle] = field(default_factory=list, init=False)

    # ----------------------------------------------------------------------- where it is from

    def path(self, digest: str, executable: bool) -> str:
        """Return the path of a file with these bytes, or of a RECORD without rows of excluded files."""
        return self._pruned.get(digest) or self._path(digest, executable)

    def _path(self, digest: str, executable: bool) -> str:
        raise NotImplementedError

    def manifest(self, *, check_objects: bool = True) -> Manifest:
        """Return the venv's manifest; without *check_objects* some objects may be gone."""
        raise NotImplementedError

    def left_out(self) -> tuple[str, ...]:
        """Return what there is to say of what is not packed, or not as it was installed."""
        raise NotImplementedError

    def apart(self) -> dict[str, str]:
        """Return the directories in which nothing is to be written, by what they are."""
        return {"the venv": os.path.realpath(self.job.place.path)}

    def traces(self) -> tuple[str, ...]:
        """Return further local paths that may be left in it, and should not be."""
        return ()

    def frames(self) -> archive.FrameDirectory | None:
        """Return where compressed trees are kept, if anywhere."""
        return None

    def reading(self) -> AbstractContextManager[None]:
        """Explain what goes wrong in a block in which its files are read."""
        return nullcontext()

    @property
    def may_be_linked(self) -> bool:
        """Return whether an export may share files with it: what nobody changes in place."""
        return False

    @property
    def key(self) -> KeyRecord | None:
        """Return the key that the venv was made for, if there is one."""
        return None

    # ----------------------------------------------------------------------- what is made of it

    @property
    def name(self) -> str:
        """Return what the venv is called."""
        return name_of(self.job)

    def description(self, manifest: Manifest, *, packed: bool = False) -> dict[str, Any]:
        """Return what it says of itself, an archive if it is *packed*: nothing of the place or the time."""
        key = self.key.key if self.key is not None else None
        named = {"venv": self.name, "key": {"digest": key.digest, "parts": key.parts}} if key else {}
        return {
            **named,
            "python": archive.needs_of(self.python)
            | ({"bundled": program_of(self.python)} if packed and self.brings_python else {}),
            "distributions": {tree.name: tree.version for tree in manifest.trees if tree.version},
        }

    def write(
        self,
        manifest: Manifest,
        path: str,
        options: archive.Options,
        *,
        frames: archive.FrameDirectory | None,
        progress: archive.Progress | None,
        accept: archive.Accept = archive.accept_any,
    ) -> archive.Written:
        """Write an archive of *manifest* to *path*; fields in its arcroot are filled in.

        Its interpreter is the one that the venv was made for, if *options* name no other.
        """
        options = self.filled_options(options, manifest)
        with self.reading():
            return archive.write_archive(
                self.packed(manifest),
                self,
                path,
                options,
                description=self.description(manifest, packed=True),
                frames=frames,
                progress=progress,
                accept=accept,
            )

    def filled_options(self, options: archive.Options, manifest: Manifest) -> archive.Options:
        """Return *options* with the fields of its arcroot filled in, and with an interpreter."""
        arcroot = self.filled_name(options.arcroot, manifest)
        python = "" if self.brings_python else self.python_there(options.python)
        return replace(options, arcroot=arcroot, python=python)

    def python_there(self, python: str) -> str:
        """Return the interpreter at the target: *python*, if given. UsageError for another version."""
        own = self.python
        named = re.fullmatch(r"(?:python|pypy)(\d+\.\d+)t?", os.path.basename(python))
        if named and named[1] != ".".join(own.version.split(".")[:2]):
            raise UsageError(
                f"{shown(python)} is no Python {own.version}, which the packages are for",
                where=self.job.spec.name or shown(self.job.place.path),
                state="Nothing was written.",
                hint="Name an interpreter of that version (pack: {python: PATH}).",
            )
        return python or own.executable

    def packed(self, manifest: Manifest) -> Manifest:
        """Return what is packed of *manifest*: the interpreter with it, if the config says so.

        Raises Refused for one that works at its place only.
        """
        manifest = self.portable(manifest)
        if not self.brings_python:
            return manifest
        if not self._bundles:
            matcher = compile_patterns(patterns) if (patterns := self.job.spec.exclude) else None
            place = self._later.enter_context(scratch(environ=self.job.environ)).path
            self._bundles.append(interpreter_bundle(self.python, place, matcher, self.job.spec.bytecode))
            self._pruned.update(self._bundles[0].listing.files)
        settings = next(
            entry for tree in manifest.trees for entry in tree.entries if entry.path == "pyvenv.cfg"
        )
        try:
            data = settings_without_base(archive.read_object(self, settings))
        except ValueError as error:
            raise Refused(
                "cannot pack the interpreter with a venv that sees its packages",
                where=self.job.where,
                state="Nothing was written.",
                hint="Leave out bundle_python, or system_site_packages.",
            ) from error
        return bundled(manifest, self._bundles[0], self._kept(settings, data))

    @property
    def brings_python(self) -> bool:
        """Return whether the interpreter is packed, too."""
        return brings_python(self.job)

    def _kept(self, entry: Entry, data: bytes) -> Entry:
        """Return *entry* as a file that has *data*, which is kept as long as this is used."""
        digest = relocate.digest_of(data)[0].hex()
        path = os.path.join(self._later.enter_context(scratch()).path, digest)
        with open(path, "wb") as file:
            file.write(data)
        self._pruned[digest] = path
        return Entry(entry.path, "file", digest, entry.executable, len(data))

    def filled_name(self, name: str, manifest: Manifest) -> str:
        """Return *name* with its fields (:mod:`venvflow.pure.names`) filled in; UsageError for others."""
        values = {f"version:{tree.name}": tree.version for tree in manifest.trees if tree.version}
        values["venv"] = self.name
        values["python"] = self.python.version
        values["platform"] = platform_field(self.python.platform)
        if self.key is not None:
            values["key"] = self.key.key.digest[:12]
        try:
            return fill(name, values)
        except KeyError as error:
            raise UsageError(
                f"the name {shown(name)!r} asks for {error.args[0]}, which is not known",
                where=self.job.spec.name or shown(self.job.place.path),
                state="Nothing was written.",
                hint=f"Known are {KNOWN}.",
            ) from None

    def portable(self, manifest: Manifest) -> Manifest:
        """Return *manifest* without what is left out of it, and with RECORDs that list only what is left.

        A venv that venvflow built has no others. One that was there before keeps its excluded files, and so
        its RECORDs keep their rows.
        """
        if not (patterns := (*self.job.spec.exclude, *self.choice.leave_out)):
            return manifest
        left_out = compile_patterns(self.choice.leave_out)
        trees = [_without(tree, left_out) for tree in manifest.trees]
        there = {entry.path for tree in trees for entry in tree.entries}
        matcher = compile_patterns(patterns)

        def is_left_out(path: str) -> bool:
            return path not in there and matcher.excludes_file(path)

        pruned = (self._pruned_tree(tree, is_left_out) for tree in trees if tree.entries)
        return Manifest(tuple(pruned), manifest.bound)

    def _pruned_tree(self, tree: Tree, is_left_out: Callable[[str], bool]) -> Tree:
        entries = [
            self._pruned_entry(entry, is_left_out) if entry.path.endswith(".dist-info/RECORD") else entry
            for entry in tree.entries
        ]
        return tree if entries == [*tree.entries] else make_tree(tree.name, tree.version, entries)

    def _pruned_entry(self, entry: Entry, is_left_out: Callable[[str], bool]) -> Entry:
        data = archive.read_object(self, entry)
        pruned, slots = without_rows(entry.path, data, entry.slots, is_left_out)
        if pruned == data:
            return entry
        kept = self._kept(entry, pruned)
        return kept._replace(kind=entry.kind, slots=slots)


def _without(tree: Tree, left_out: Matcher) -> Tree:
    """Return *tree* without what *left_out* excludes, and without bytecode of such a source."""

    def stays(entry: Entry) -> bool:
        if entry.kind == "dir":
            return not left_out.excludes_dir(entry.path)
        return not any(map(left_out.excludes_file, filter(None, (entry.path, source_of(entry.path)))))

    kept = [*filter(stays, tree.entries)] if left_out else [*tree.entries]
    return tree if len(kept) == len(tree.entries) else make_tree(tree.name, tree.version, kept)


# --------------------------------------------------------------------------- a venv of the config


@dataclass(frozen=True)
class StoredVenv(PackSource):
    """A venv that was squished, or is in the store; both are held."""

    store: Store
    record: KeyRecord

    @property
    def key(self) -> KeyRecord:
        """Return its key."""
        return self.record

    @property
    def may_be_linked(self) -> bool:
        """Return whether the store's files are to be trusted."""
        return not self.store.untrusted

    def _path(self, digest: str, executable: bool) -> str:
        return self.store.objects.path(Name(digest, executable))

    def manifest(self, *, check_objects: bool = True) -> Manifest:
        """Return its manifest; raises EnvironmentFailure when it is not squished or not there."""
        try:
            return manifest_of(self.job, self.store, self.record, check_objects=check_objects)
        except VenvflowError as error:
            if self.job.place.state() in ("venv", "ours"):
                error.hint += f" Name its path, {shown(self.job.place.path)}, for what lies there now."
            raise

    def left_out(self) -> tuple[str, ...]:
        """Return a warning if the venv was changed since it was shared: its manifest is without that."""
        receipt = self.job.place.receipt()
        if receipt is None or not receipt.is_shared_for(self.record.key.digest):
            return ()
        drift = _drift(self.job, self.store)
        return (f"changed since it was shared ({drift}): that is not in it",) if drift else ()

    def apart(self) -> dict[str, str]:
        """Return where venv and store are."""
        return {"the venv": self.job.place.path, "the store": self.store.path}

    def traces(self) -> tuple[str, ...]:
        """Return where the store is, and where the venv was built: what is left of that is found, too."""
        snapshot = self.store.find(self.record.key.digest, self.job.position)
        return (self.store.path, snapshot.root if snapshot is not None else "")

    def frames(self) -> archive.FrameDirectory | None:
        """Return where the store keeps compressed trees, or None if it cannot be written."""
        if self.store.read_only:
            return None
        return archive.FrameDirectory(f"{self.store.path}/frames")


# --------------------------------------------------------------------------- any venv


@dataclass(frozen=True)
class VenvAsItLies(PackSource):
    """A venv as it lies in its directory, whoever made it; nothing holds it, so it may change meanwhile."""

    listing: Listing

    def _path(self, digest: str, executable: bool) -> str:
        return self.listing.path(digest, executable)

    def manifest(self, *, check_objects: bool = True) -> Manifest:  # noqa: ARG002 - they were just read
        """Return what was found."""
        return self.listing.manifest

    def left_out(self) -> tuple[str, ...]:
        """Return what there is to say of it."""
        return (*self.listing.warnings,)

    def reading(self) -> AbstractContextManager[None]:
        """Explain that it changed."""
        return self.listing.changes_explained()


def _listed(job: Job, choice: Choice, python: Interpreter, temporary: str) -> Listing:
    """List the venv of a job without a name; raises as :func:`pack_source` does."""
    root, patterns = os.path.realpath(job.place.path), (*job.spec.exclude, *choice.leave_out)
    named, moved = _named(job, root, python)
    listing = list_venv(
        root,
        temporary,
        python,
        named,
        bytecode=job.spec.bytecode,
        matcher=compile_patterns(patterns) if patterns else None,
        progress=job.meter.count,
    )
    if listing.broken and not choice.incomplete:
        raise Refused(
            f"the venv is {told(listing.broken)}",
            where=job.where,
            state="Nothing was written.",
            hint="Install these packages again, or use --ignore-missing-files if that is meant.",
        )
    notes = [*moved, *_of_the_interpreter(root), *([told(listing.broken)] if listing.broken else ())]
    listing.warnings[:0] = notes
    return listing


def _of_the_interpreter(root: str) -> Iterator[str]:
    if venv_settings(root).get("include-system-site-packages", "").lower() == "true":
        yield "it sees the packages of its interpreter, too (system-site-packages): those are not in it"


def _named(job: Job, root: str, python: Interpreter) -> tuple[list[Places], list[str]]:
    """Return the local paths that the venv's files may name, the likeliest first, and if it was moved.

    The directory of a venv may have several paths, and tools write the one by which they were told of it. A
    project that is not known is the venv itself: it is found first, so that nothing is taken for a project.
    """
    said = _said_by_activate(root)
    to_project = os.path.relpath(job.root, root)
    places = [
        Places(path, os.path.normpath(os.path.join(path, to_project)), python.executable)
        for path in dict.fromkeys(filter(None, (said, job.place.path, root)))
    ]
    if not said or _same_directory(said, root):
        return places, []
    return places, [
        f"moved or copied: its files name {shown(said)}, and are packed as if they named its place"
    ]


_SAID = re.compile(r"^[ \t]*(?:export[ \t]+)?VIRTUAL_ENV=(?!.*[$`])(.+?)[ \t]*$", re.MULTILINE)


def _said_by_activate(root: str) -> str:
    """Return the path that the venv's ``activate`` names as its own, empty if it names none."""
    try:
        text = os.fsdecode(read_small(os.path.join(root, "bin/activate")))
        words = [word for found in _SAID.finditer(text) for word in shlex.split(found[1])]
    except (OSError, ValueError):
        return ""
    return next((word.rstrip("/") for word in words if os.path.isabs(word) and word.strip("/")), "")


def _same_directory(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
