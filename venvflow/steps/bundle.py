"""The interpreter goes into the archive with the venv, if it works at any place.

It becomes a part of the venv's own directory, with its standard library where the packages are: so nothing in
it has to be filled in for a place, in no version of Python. Such an interpreter needs no library but its own
and those that every system has, as the builds of python-build-standalone do, which uv installs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from venvflow.disk.files import open_regular
from venvflow.errors import Refused, shown
from venvflow.model import BytecodePolicy, Entry, Interpreter, Manifest, Tree
from venvflow.pure.elf import MAGIC, is_of_every_system, linked
from venvflow.pure.manifest import BUNDLED, directories_of, make_tree
from venvflow.pure.patterns import Matcher
from venvflow.state.listing import Listing, list_interpreter

SHARED_PREFIXES = frozenset({"/", "/usr", "/usr/local", "/opt", "/nix", "/opt/homebrew"})
"""Prefixes of interpreters that belong to the whole system, and say nothing about the machine."""

_SETTINGS_OF_A_BASE = ("home", "executable", "command", "base-", "base_")


@dataclass(frozen=True, slots=True)
class Bundle:
    """An interpreter to be packed: its *tree*, its *program* below the venv, and where its bytes are."""

    tree: Tree
    program: str
    listing: Listing


def program_of(python: Interpreter) -> str:
    """Return where the program of an interpreter lies in a venv that it is packed with."""
    return f"bin/{os.path.basename(python.executable)}"


def interpreter_bundle(
    python: Interpreter, scratch: str, matcher: Matcher | None, bytecode: BytecodePolicy
) -> Bundle:
    """Return the interpreter *python* as it is packed; *scratch* takes what there is no file of.

    What *matcher* excludes stays behind. Raises Refused, with the reason, for one that works nowhere else.
    """
    prefix, program = os.path.dirname(python.home), program_of(python)
    library = _library_of(prefix, python)
    if why := _why_not_by_place(prefix, library, python):
        raise _refused(python, why)
    listing = list_interpreter(prefix, scratch, python, _Taken(program, library, matcher), bytecode)
    entries = {entry.path: entry for tree in listing.manifest.trees for entry in tree.entries}
    if why := _why_not_by_libraries(entries, listing, program):
        raise _refused(python, why)
    return Bundle(make_tree(BUNDLED, "", entries.values()), program, listing)


def bundled(manifest: Manifest, bundle: Bundle, settings: Entry) -> Manifest:
    """Return *manifest* with the interpreter of *bundle* in it, to which its links lead then.

    *settings* is the ``pyvenv.cfg`` that names no base. Where both have a path, the venv's counts.
    """
    trees = [
        make_tree(tree.name, tree.version, _led_there(tree.entries, bundle.program, settings))
        for tree in manifest.trees
    ]
    there = {entry.path for tree in trees for entry in tree.entries}
    taken = there.union(directories_of(there))
    own = [entry for entry in bundle.tree.entries if entry.path not in taken]
    if "bin/python" not in there:
        own.append(Entry("bin/python", "link", target=os.path.basename(bundle.program)))
    return Manifest((*trees, make_tree(BUNDLED, "", own)), manifest.bound)


def _led_there(entries: Iterable[Entry], program: str, settings: Entry) -> Iterator[Entry]:
    for entry in entries:
        if entry.path == settings.path:
            yield settings
        elif entry.kind == "link" and any(slot.kind == "python" for slot in entry.slots):
            if entry.path != program:
                way = os.path.relpath(program, os.path.dirname(entry.path) or ".")
                yield Entry(entry.path, "link", target=way)
        elif entry.path != program:
            yield entry


def settings_without_base(data: bytes) -> bytes:
    """Return a ``pyvenv.cfg`` that names no base; raises ValueError if the venv sees its packages.

    Python finds its standard library by its own place then, and none of the packages that a user has.
    """
    kept = []
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        name, _, value = (part.strip() for part in line.partition("="))
        if name.lower() == "include-system-site-packages":
            if value.lower() == "true":
                raise ValueError(name)
        elif name and not name.lower().startswith(_SETTINGS_OF_A_BASE):
            kept.append(line)
    kept.append("include-system-site-packages = false")
    return "".join(f"{line}\n" for line in kept).encode("utf-8", "surrogateescape")


# --------------------------------------------------------------------------- what is taken


@dataclass(frozen=True, slots=True)
class _Taken:
    """Says what of an interpreter's directory stays behind: what is not needed to run it."""

    program: str
    library: str
    matcher: Matcher | None

    def excludes_file(self, path: str) -> bool:
        """Return whether a file stays behind."""
        top, _, _ = path.partition("/")
        if top == "bin":
            return path != self.program
        if top not in ("lib", "share", "include") or path == f"{self.library}/EXTERNALLY-MANAGED":
            return True
        return self.matcher is not None and self.matcher.excludes_file(path)

    def excludes_dir(self, path: str) -> bool:
        """Return whether a directory stays behind: packages, which come from the venv, and tests."""
        parent, _, name = path.rpartition("/")
        if not parent:
            return name not in ("bin", "lib", "share", "include")
        if parent == self.library and (name in ("site-packages", "test") or name.startswith("config-")):
            return True
        if path == "share/man":
            return True
        return self.matcher is not None and self.matcher.excludes_dir(path)


# --------------------------------------------------------------------------- why it is not taken


def _library_of(prefix: str, python: Interpreter) -> str:
    """Return the directory of the standard library below *prefix*, empty if it is not there."""
    minor = ".".join(python.version.split(".")[:2])
    for name in (f"python{minor}", f"python{minor}t"):
        if os.path.isfile(f"{prefix}/lib/{name}/os.py"):
            return f"lib/{name}"
    return ""


def _why_not_by_place(prefix: str, library: str, python: Interpreter) -> str:
    if python.implementation != "cpython":
        return f"it is {python.implementation}, and only CPython is known to work at any place"
    if prefix in SHARED_PREFIXES:
        return f"it is a part of the system, in {prefix}, and its libraries are the system's"
    if not library:
        return "its standard library does not lie beside it"
    if os.path.isdir(f"{prefix}/conda-meta"):
        return "it belongs to a conda environment"
    return ""


def _why_not_by_libraries(entries: Mapping[str, Entry], listing: Listing, program: str) -> str:
    """Return which file needs a library that neither lies beside it nor is in every system."""
    known = {os.path.basename(path) for path, entry in entries.items() if entry.kind in ("file", "link")}
    loaded: set[str] = set()  # by the program, before anything else asks for it
    for path in (program, *sorted(entries)):
        entry = entries[path]
        if entry.kind != "file" or not (entry.executable or ".so" in os.path.basename(path)):
            continue
        wanted = linked(data) if (data := _elf(listing.path(entry.digest, executable=True))) else None
        for library in wanted.libraries if wanted else ():
            if is_of_every_system(library) or library in loaded:
                continue
            if library not in known:
                return f"{path} needs {library}, which is not beside it"
            if not _is_found(path, library, wanted.directories if wanted else (), entries):
                return f"{path} looks for {library} at a place of this machine"
            loaded |= {library} if path == program else set()
    return ""


def _elf(path: str) -> bytes:
    with open_regular(path) as file:
        start = file.read(len(MAGIC))
        return start + file.read() if start == MAGIC else b""


def _is_found(path: str, library: str, directories: Iterable[str], entries: Mapping[str, Entry]) -> bool:
    """Return whether the file at *path* finds a *library* in one of its *directories*, wherever all lies."""
    return any(found in entries for found in _candidates(os.path.dirname(path), library, directories))


def _candidates(origin: str, library: str, directories: Iterable[str]) -> Iterator[str]:
    for directory in directories:
        for variable in ("$ORIGIN", "${ORIGIN}"):
            if directory.startswith(variable):
                rest = directory[len(variable) :].lstrip("/")
                yield os.path.normpath(os.path.join(origin, rest, library))


def _refused(python: Interpreter, why: str) -> Refused:
    return Refused(
        f"cannot pack the interpreter {shown(python.executable)} with the venv: {shown(why)}",
        state="Nothing was written.",
        hint="Use one that uv installs (uv python install), or leave out bundle_python.",
    )
