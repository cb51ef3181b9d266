"""Finds the Python that a directory of a project asks for, and the file that says so.

What names one version comes first: the name of a lock file, ``.python-version``, a venv that somebody works
with, the Python that a lock file was compiled for, that of the container that is made beside it, the only one
that the project's workflows use. What allows several (``requires-python`` and its like, classifiers) decides
only where the Python that runs venvflow, which would be taken otherwise, is not among them.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias

from packaging.specifiers import SpecifierSet

from venvflow.disk import interpreters
from venvflow.disk.places import read_receipt
from venvflow.errors import shown
from venvflow.init.project import Directory, text_at
from venvflow.pure.lockfiles import value_at
from venvflow.pure.names import is_version

_MINORS = range(200)
"""Minor versions of Python 3 that are thought of."""


def python_of(
    directory: Directory, locks: Sequence[str] = (), words: Sequence[str] = (), usual: str = ""
) -> tuple[str, str, list[str]]:
    """Return the version for ``python:`` and what says so, both may be empty, and what speaks against it.

    *locks* are the lock files of the venv, as paths from the project root, with those that they include;
    *words* are what their names say; *usual* is the version that the project is tested with, if that is one.
    """
    here, above = _version_file(directory)
    exact = [
        *_named(words),
        *here,
        *_venv(directory),
        *_compiled(directory, locks),
        *_container(directory),
        *above,
    ]
    ranges = list(_ranges(directory, locks))
    if usual and not exact and not ranges and not any(_by_setup(directory)):
        exact.append((usual, "the workflows in .github"))
    named = [(_minor(version), where) for version, where in exact if _minor(version)]
    why = [
        f"{where} says {shown(version)}, which is not a version."
        for version, where in (*here, *above)
        if not _minor(version)
    ]
    if not named:
        version, where, problems = _nearest(ranges or list(_by_setup(directory)))
        return version, where, [*why, *problems]
    version, where = named[0]
    others = [f"{place} says {other}" for other, place in named[1:] if other != version]
    others += [f"{place} says {asked}" for asked, place in ranges if not _fits(version, asked)]
    return (
        version,
        where,
        [*why, *([f"{where} says {version}, but {' and '.join(others)}."] if others else [])],
    )


def _minor(version: str) -> str:
    """Return *version* without its patch, as not every machine has that; empty if it is not a version."""
    found = re.fullmatch(r"(?:c?python-?|(pypy))?(3\.[0-9]{1,4})(?:[.-][0-9A-Za-z.]*?)?(t?)", version)
    return f"{found[1] or ''}{found[2]}{found[3]}" if found and is_version(f"{found[2]}{found[3]}") else ""


def _fits(version: str, asked: str) -> bool:
    found = re.search(r"3\.([0-9]+)", version)
    return found is None or int(found[1]) in minors(asked)


def _nearest(ranges: Sequence[tuple[str, str]]) -> tuple[str, str, list[str]]:
    """Return the version nearest to ours that suits all *ranges*, if ours does not or is the only one."""
    ours = sys.version_info[1]
    allowed = set(_MINORS).intersection(*(minors(asked) for asked, _ in ranges))
    places = " and ".join(dict.fromkeys(place for _, place in ranges))
    if not allowed:
        return "", "", [f"python: no version suits {places}."]
    if ours in allowed and len(allowed) > 1:
        return "", "", []
    return f"3.{min(allowed, key=lambda minor: abs(minor - ours))}", places, []


# --------------------------------------------------------------------------- what names one version


_Exact: TypeAlias = list[tuple[str, str]]


def _version_file(directory: Directory) -> tuple[_Exact, _Exact]:
    """Look for ``.python-version`` in the directory, else in those above it, as version managers do."""
    path = directory.path
    while True:
        nearest = replace(directory, path=path)
        words = re.sub(r"#.*", "", nearest.text(".python-version")).split()
        if words or not path:
            found = (
                [(words[0], nearest.shown(".python-version"))] if words[:1] not in ([], ["system"]) else []
            )
            return (found, []) if path == directory.path else ([], found)
        path = os.path.dirname(path)


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
    project = Directory(directory.root)
    for lock in locks:
        if os.path.basename(lock) == "Pipfile.lock":
            requires = value_at(directory.document("Pipfile.lock"), "_meta", "requires")
            if version := text_at(requires, "python_full_version") or text_at(requires, "python_version"):
                yield version, shown(lock)
        elif found := _COMPILED.search(project.text(lock)[:_HEAD]):
            yield found["uv"] or found["pip"], f"the head of {shown(lock)}"


_IMAGE = re.compile(r"^FROM[ \t]+(?:--\S+[ \t]+)*(?:\S+/)?python:(3\.[0-9]+)", re.MULTILINE | re.IGNORECASE)


def _container(directory: Directory) -> Iterator[tuple[str, str]]:
    """Look at which Python the container has that is made in the directory, if its stages have one."""
    used = set(_IMAGE.findall(directory.text("Dockerfile")))
    if len(used) == 1:
        yield used.pop(), directory.shown("Dockerfile")


def _named(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Look at what the lock file is called after."""
    for word in words:
        if found := re.fullmatch(r"(?:py|python)?3\.?([0-9]{1,2})", word):
            yield f"3.{found[1]}", "its name"


_CI_LINE = re.compile(r"^[ \t-]*python-version:[ \t]*(.*(?:\n[ \t]+-[ \t].*)*)", re.MULTILINE)


def usual_python(root: str) -> str:
    """Return the Python that the workflows of the project at *root* use, if all use the same one."""
    workflows = Directory(root, os.path.join(".github", "workflows"))
    try:
        names = sorted(os.listdir(os.path.join(root, workflows.path)))
    except OSError:
        return ""
    texts = [workflows.text(name) for name in names if name.endswith((".yml", ".yaml"))]
    used = {
        found
        for text in texts
        for line in _CI_LINE.findall(text)
        for found in re.findall(r"\b3\.[0-9]+", line)
    }
    return used.pop() if len(used) == 1 else ""


# --------------------------------------------------------------------------- what allows several


_ASKED_BY_LOCKS = ("requires-python",), ("metadata", "python-versions"), ("metadata", "requires_python")
_IN_SETUP = re.compile(r"^[ \t]*python_requires[ \t]*=[ \t]*[\"']?([^\"'\n]+)", re.MULTILINE)
_CLASSIFIER = re.compile(r"Programming Language :: Python :: (3\.[0-9]+)\b")


def _ranges(directory: Directory, locks: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what project and lock files ask for, each with where it stands."""
    project = directory.document("pyproject.toml")
    where = f"requires-python in {directory.shown('pyproject.toml')}"
    asked = {
        text_at(project, "project", "requires-python"): where,
        text_at(project, "tool", "poetry", "dependencies", "python"): where,
    }
    for lock in locks:
        name = os.path.basename(lock)
        if name.endswith((".lock", ".toml")) and not name.startswith(("Pipfile", "requirements")):
            document = directory.document(name)
            for keys in _ASKED_BY_LOCKS:
                # A lock repeats what its project asks for.
                asked.setdefault(text_at(document, *keys), shown(lock))
    yield from ((specifier, place) for specifier, place in asked.items() if specifier)


def _by_setup(directory: Directory) -> Iterator[tuple[str, str]]:
    """Yield what the older files of a project ask for, else the versions that its classifiers name."""
    names = ("setup.cfg", "setup.py", "pyproject.toml")
    texts = {name: directory.text(name) for name in names}
    for name in names[:2]:
        if found := _IN_SETUP.search(texts[name]):
            yield found[1].strip(), f"python_requires in {directory.shown(name)}"
            return
    for name, text in texts.items():
        if versions := sorted(set(_CLASSIFIER.findall(text))):
            yield (
                " || ".join(f"{version}.*" for version in versions),
                f"the classifiers in {directory.shown(name)}",
            )
            return


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
