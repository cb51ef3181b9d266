"""Lists a directory as a manifest whose objects are its own files, for archives and exports without a store.

What is not there as a file of its own (templates, bytecode, RECORDs of what is left) lies in a scratch
directory. The directory that is read is never changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from venvflow.disk.archive import DamagedObject
from venvflow.disk.bytecode import Source, can_be_compiled, compile_sources, is_source, pyc_path
from venvflow.disk.scan import Changing, lstat, read
from venvflow.errors import EnvironmentFailure, first_of, shown, some
from venvflow.model import BytecodePolicy, Entry, Interpreter, Manifest
from venvflow.postinstall import leads_out
from venvflow.pure.manifest import group, source_of
from venvflow.pure.patterns import Matcher
from venvflow.pure.relocate import Places
from venvflow.state.confidential import closed, credentials
from venvflow.state.contents import digest_in
from venvflow.state.intake import fitting
from venvflow.state.recorded import Broken, all_listed, broken_in
from venvflow.state.survey import NAMING, Survey, survey, unusual_modes


@dataclass(slots=True)
class Listing:
    """What is in the directory *root*, and where the bytes of each file are: in it, or in *scratch*."""

    root: str
    scratch: str
    manifest: Manifest = field(default_factory=lambda: Manifest(()))
    warnings: list[str] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def path(self, digest: str, executable: bool) -> str:  # noqa: ARG002 - a file serves for both
        """Return the path of a file with these bytes."""
        return self.files[digest]

    def add(self, data: bytes) -> str:
        """Keep some bytes that no file has, and return their SHA-256 (in hex)."""
        digest = hashlib.sha256(data).hexdigest()
        self.files[digest] = os.path.join(self.scratch, digest)
        with open(self.files[digest], "wb") as file:
            file.write(data)
        return digest

    def take(self, surveyed: Survey) -> None:
        """Note where the bytes of all surveyed files are, and keep their templates."""
        for path, entry in surveyed.entries.items():
            if entry.kind == "file":
                self.files.setdefault(entry.digest, os.path.join(self.root, path))
        for template in surveyed.templates.values():
            self.add(template.data)

    @contextmanager
    def changes_explained(self) -> Iterator[None]:
        """Say of a file that is no longer what was listed that it changed; there is no store to repair."""
        try:
            yield
        except DamagedObject as error:
            raise _changed(self.path(error.digest, executable=False)) from error


def _changed(path: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        "it changed, or became unreadable, while it was packed",
        where=shown(path),
        state="Nothing was written.",
        hint="Let what writes to the environment finish, then try again.",
    )


def left_out_special(path: str) -> str:
    """Return what there is to say of a device, FIFO or socket."""
    return f"{shown(path)} is a device, FIFO or socket: left out"


# --------------------------------------------------------------------------- a venv


def list_venv(
    root: str,
    scratch: str,
    python: Interpreter,
    named: Sequence[Places],
    *,
    bytecode: BytecodePolicy,
    matcher: Matcher | None = None,
    progress: Callable[[str, int, int], object] = lambda _stage, _done, _of: None,
) -> Listing:
    """List the venv at *root*, a real path, as sharing it through a store would, but for what is excluded.

    *named* are the local paths that its files may name, the likeliest first. A link that leads out of it to
    the very file that its RECORD says is there becomes that file; any other stays, and will be refused.
    *broken* are the distributions that are not what their RECORDs say. Raises EnvironmentFailure for what
    cannot be read, keeps changing, or cannot be compiled.
    """
    place, *also = named
    surveyed = survey(
        root,
        place,
        also=also,
        bytecode=bytecode,
        excludes_file=matcher.excludes_file if matcher else None,
        excludes_directory=matcher.excludes_dir if matcher else None,
        progress=progress,
    )
    listing = Listing(root, scratch)
    try:
        _bring_in(listing, surveyed, place.venv)
        listing.broken = broken_in(root, surveyed, matcher, place.venv)
        listing.warnings += [*_withhold(root, surveyed)]
        listing.take(surveyed)
        if bytecode == "keep":
            _keep_valid(listing, surveyed)
        elif bytecode == "canonical":
            _compile(listing, surveyed, python, matcher, progress)
    except Changing as error:
        raise _changed(str(error)) from error
    listing.manifest = Manifest(group(surveyed.entries, surveyed.distributions), surveyed.bound)
    return listing


class Leaves(Protocol):
    """Says what stays behind."""

    def excludes_file(self, path: str) -> bool:
        """Return whether a file does."""

    def excludes_dir(self, path: str) -> bool:
        """Return whether a directory does, with all that is in it."""


def list_interpreter(
    prefix: str, scratch: str, python: Interpreter, leaves: Leaves, bytecode: BytecodePolicy
) -> Listing:
    """List the interpreter *python* in *prefix* as a part of a venv, without what *leaves* excludes.

    Texts that name its prefix become templates that name the venv. Raises what :func:`list_venv` does.
    """
    surveyed = survey(
        prefix,
        Places(prefix, prefix, python.executable),
        fresh=True,
        bytecode="none",
        excludes_file=leaves.excludes_file,
        excludes_directory=leaves.excludes_dir,
    )
    listing = Listing(prefix, scratch)
    try:
        listing.take(surveyed)
        if bytecode != "none":
            _compile(listing, surveyed, python, None, lambda _stage, _done, _of: None)
    except Changing as error:
        raise _changed(str(error)) from error
    kept = {path: entry for path, entry in surveyed.entries.items() if not leaves.excludes_file(path)}
    listing.manifest = Manifest(group(kept, ()))
    return listing


def _withhold(root: str, surveyed: Survey) -> Iterator[str]:
    """Leave out of a survey what is for nobody else; yield what there is to say of this and of the rest."""
    secret = sorted(credentials(root, surveyed))
    surveyed.withhold(secret)
    hidden = sorted(closed(surveyed))
    surveyed.withhold(hidden)
    notes = [
        (surveyed.naming, NAMING),
        (surveyed.special, "is a device, FIFO or socket: left out"),
        (secret, "holds credentials: left out"),
        (hidden, "cannot be read by other users: left out"),
        (unusual_modes(surveyed), "has setuid, setgid or world-writable bits, which are not kept"),
    ]
    for paths, text in notes:
        if paths:
            yield f"{first_of(paths)} {text}"


def _bring_in(listing: Listing, surveyed: Survey, place: str) -> None:
    """Put files in the place of the links to them that lead out of the venv, into a cache or a store.

    Only what its RECORD or its own name says that it is: a link that somebody put there could lead to any
    file that we can read. *place* is where the RECORDs say that the venv is.
    """
    wanted: dict[str, set[str]] = {}
    for rows in all_listed(listing.root, surveyed, place).values():
        for path, said in rows.items():
            wanted.setdefault(path, set()).update(each.digest for each in said)
    brought = []
    for path, entry in surveyed.entries.items():
        if entry.kind != "link" or entry.slots or not leads_out(path, entry.target):
            continue
        real = os.path.realpath(os.path.join(listing.root, path))
        if os.path.isfile(real):
            try:
                content = read(real)
                executable = lstat(real).executable
            except OSError as error:
                raise EnvironmentFailure(
                    f"cannot read what {shown(path)} leads to: {error.strerror}",
                    where=shown(real),
                    state="Nothing was written.",
                    hint="Fix that file, or exclude the link, then try again.",
                ) from error
            if content.digest not in {*wanted.get(path, ()), digest_in(entry.target)}:
                continue
            listing.files[content.digest] = real
            surveyed.entries[path] = Entry(path, "file", content.digest, executable, content.stamp.size)
            brought.append(shown(path))
    if brought:
        listing.warnings.append(f"lead out of the venv, so what they lead to is packed: {some(brought, 3)}")


# --------------------------------------------------------------------------- bytecode


def _keep_valid(listing: Listing, surveyed: Survey) -> None:
    """Let valid bytecode note the time that its source gets, and leave out what is not valid."""
    for path in [*surveyed.entries]:
        source = surveyed.entries.get(source_of(path) or "")
        if source is None or path not in surveyed.found:
            continue
        found, entry = surveyed.found[path], surveyed.entries[path]
        content = read(os.path.join(listing.root, path), known=found.stamp, keep=found.stamp.size)
        kept = fitting(content.data, source, surveyed.found.get(source.path))
        if content.digest != entry.digest:
            raise Changing(os.path.join(listing.root, path))
        if kept is None:
            del surveyed.entries[path]
        elif kept != content.data:
            surveyed.entries[path] = entry._replace(digest=listing.add(kept))


def _compile(
    listing: Listing,
    surveyed: Survey,
    python: Interpreter,
    matcher: Matcher | None,
    progress: Callable[[str, int, int], object],
) -> None:
    """Compile every source that can be imported."""
    sources = [
        Source(entry.digest, path, listing.path(entry.digest, executable=False))
        for path, entry in surveyed.entries.items()
        if entry.kind == "file" and is_source(path) and can_be_compiled(path, entry.size, python.cache_tag)
    ]
    if matcher:
        sources = [
            each for each in sources if not matcher.excludes_file(pyc_path(each.path, python.cache_tag))
        ]

    def compiling(done: int, of: int) -> None:
        progress("compiling", done, of)

    for source, made in compile_sources(python, sources, listing.scratch, progress=compiling).items():
        if made is not None:
            path = pyc_path(source.path, python.cache_tag)
            listing.files[made.digest] = made.file
            surveyed.entries[path] = Entry(path, "file", made.digest, size=made.size)
