"""Finds the Python that a directory of a project asks for, and the file that says so.

What names one version comes first: ``.python-version``, a venv that somebody works with, the Python that a
lock file was compiled for. What allows several (``requires-python`` and its like) decides only where the
Python that runs venvflow, which would be taken otherwise, is not among them.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from packaging.specifiers import SpecifierSet

from venvflow.disk import interpreters
from venvflow.disk.places import read_receipt
from venvflow.errors import shown
from venvflow.init.project import Directory, text_at, value_at
from venvflow.pure.names import is_version

_MINORS = range(200)
"""Minor versions of Python 3 that are thought of."""


def python_of(directory: Directory, locks: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Return the version for ``python:``, or an empty text, and sentences that say why.

    *locks* are the lock files of *directory* that its venv is made from.
    """
    exact = [*_version_file(directory), *_venv(directory), *_compiled(directory, locks)]
    ranges = list(_ranges(directory, locks))
    named = [(version, where) for version, where in exact if is_version(version)]
    notes = [
        f"{where} says {shown(version)}, which is not a version: it was left out."
        for version, where in exact
        if not is_version(version)
    ]
    if named:
        version, where = named[0]
        minor = _minor(version)
        others = [f"{other} comes from {place}" for other, place in named[1:] if _minor(other) != minor]
        others += [
            f"{place} asks for {asked}" for asked, place in ranges if minor not in {None, *minors(asked)}
        ]
        but = f" But {' and '.join(others)}." if others else ""
        return version, [f"python: from {where}.{but}", *notes]
    version, why = _nearest(ranges)
    return version, [why, *notes]


def _minor(version: str) -> int | None:
    found = re.search(r"3\.([0-9]{1,4})", version)
    return int(found[1]) if found else None


def _nearest(ranges: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Return the version nearest to ours that suits all *ranges*, if ours does not or is the only one."""
    ours = sys.version_info[1]
    allowed = set(_MINORS).intersection(*(minors(asked) for asked, _ in ranges))
    asks = " and ".join(dict.fromkeys(f"{place} asks for {asked}" for asked, place in ranges))
    default = f"the Python that runs venvflow (3.{ours} now)"
    if not ranges:
        return "", f"python: nothing here pins one; without the key, it is {default}."
    if not allowed:
        return "", f"python: {asks}, which is not a version. Without the key, it is {default}."
    if ours in allowed and len(allowed) > 1:
        return "", f"python: {asks}; without the key, it is {default}."
    return f"3.{min(allowed, key=lambda minor: abs(minor - ours))}", f"python: {asks}."


# --------------------------------------------------------------------------- what names one version


def _version_file(directory: Directory) -> Iterator[tuple[str, str]]:
    """Look for ``.python-version`` in the directory and those above it, as version managers do."""
    while True:
        words = re.sub(r"#.*", "", directory.text(".python-version")).split()
        if words:
            if words[0] != "system":
                yield words[0], directory.shown(".python-version")
            return
        if not directory.path:
            return
        directory = replace(directory, path=os.path.dirname(directory.path))


def _venv(directory: Directory) -> Iterator[tuple[str, str]]:
    """Look at the venvs; one that venvflow made says only what the config said, or what venvflow runs on."""
    for name in sorted(directory.venvs, key=lambda name: (name != ".venv", name)):
        venv = os.path.join(directory.root, directory.path, name)
        receipt = read_receipt(venv)
        if receipt is not None and receipt.key:
            continue
        if found := re.match(r"3\.[0-9]+", interpreters.python_of(venv)):
            yield found[0], directory.shown(name, "pyvenv.cfg")
            return


_HEAD = 4096  # characters in which the command that made a lock file stands

_COMPILED = re.compile(
    r"^#.*(?:uv pip compile\b.*\s(?:-p|--python|--python-version)[ =](?P<uv>[^\s]+)"
    r"|pip-compile with [Pp]ython (?P<pip>3\.[0-9]+))",
    re.MULTILINE,
)


def _compiled(directory: Directory, locks: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Look at which Python the lock files were made for, where that was one."""
    for lock in locks:
        if lock == "Pipfile.lock":
            requires = value_at(directory.document(lock), "_meta", "requires")
            if version := text_at(requires, "python_full_version") or text_at(requires, "python_version"):
                yield version, directory.shown(lock)
        elif (found := _COMPILED.search(directory.text(lock)[:_HEAD])) and is_version(
            version := found["uv"] or found["pip"]
        ):
            yield version, f"the head of {directory.shown(lock)}"


# --------------------------------------------------------------------------- what allows several


_ASKED_BY_LOCKS = ("requires-python",), ("metadata", "python-versions"), ("metadata", "requires_python")


def _ranges(directory: Directory, locks: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what project and lock files ask for, each with where it stands."""
    project = directory.document("pyproject.toml")
    where = f"requires-python in {directory.shown('pyproject.toml')}"
    asked = {
        text_at(project, "project", "requires-python"): where,
        text_at(project, "tool", "poetry", "dependencies", "python"): where,
    }
    for lock in locks:
        if lock.endswith((".lock", ".toml")) and lock != "Pipfile.lock":
            document = directory.document(lock)
            for keys in _ASKED_BY_LOCKS:
                # A lock repeats what its project asks for.
                asked.setdefault(text_at(document, *keys), directory.shown(lock))
    yield from ((specifier, place) for specifier, place in asked.items() if specifier)


def minors(specifier: str) -> frozenset[int]:
    """Return which minor versions of Python 3 a specifier of Python, Poetry or PDM allows, in some patch.

    What cannot be read excludes nothing: the builder will have the last word.
    """
    named = {int(patch) for patch in re.findall(r"3\.[0-9]+\.([0-9]{1,4})", specifier)}
    patches = {0, 99, *named, *(patch + 1 for patch in named)}
    wanted = [_specifiers(alternative) for alternative in re.split(r"\|+", specifier)]
    return frozenset(
        minor
        for minor in _MINORS
        if any(each.contains(f"3.{minor}.{patch}") for each in wanted for patch in patches)
    )


def _specifiers(text: str) -> SpecifierSet:
    """Return what is readable of specifiers that are separated by commas or blanks."""
    readable = SpecifierSet()
    for part in re.split(r",|(?<=[0-9*])\s+(?=[<>=!~^])", text):
        with suppress(ValueError):
            specifiers = SpecifierSet(_in_python(part.replace(" ", "")))
            specifiers.contains("3.0")  # numbers of thousands of digits fail no sooner
            readable &= specifiers
    return readable


def _in_python(part: str) -> str:
    """Return a specifier that may be in the words of Poetry, as Python's own tools write it."""
    found = re.fullmatch(r"([~^]?)(([0-9]+)(?:\.[0-9]+)?)((?:\.[0-9]+)*)(\.\*)?", part)
    if not found:
        return part
    sign, minor, major, rest, star = found.groups()
    if sign == "^":
        return f">={minor}{rest},<{int(major) + 1}"
    if sign == "~" or star or minor == major:
        return f">={minor}{rest},=={minor}.*"
    return f"=={part}"
