"""The Python that a directory of a project asks for, and which of its files say so.

What names one version comes first: ``.python-version``, a venv that somebody works with, the Python that a
lock file was compiled for. What allows several (``requires-python`` and its like) decides only where the
Python that runs venvflow, which would be taken otherwise, is not among them. Only files are read.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from venvflow.config import is_version
from venvflow.disk.files import read_beginning
from venvflow.disk.places import read_receipt
from venvflow.errors import shown

_MINORS = range(200)
"""Minor versions of Python 3 that are thought of."""


_LARGEST_READ = 1 << 20  # bytes of a file that are looked at


def beginning(path: str) -> str:
    """Return the beginning of a regular file as text; nothing, if there is none that can be read."""
    try:
        return read_beginning(path, _LARGEST_READ).decode("utf-8", "replace")
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A directory of the project at *root*: its path from there, the venvs in it, its lock files (names)."""

    root: str
    path: str
    venvs: tuple[str, ...] = ()
    locks: tuple[str, ...] = ()

    def text(self, *names: str) -> str:
        """Return the beginning of the file *names* (joined) in the directory, empty if there is none."""
        return beginning(os.path.join(self.root, self.path, *names))

    def shown(self, *names: str) -> str:
        """Return what people know that file as."""
        return shown(os.path.join(self.path, *names))


def python_of(wanted: Wanted) -> tuple[str, tuple[str, ...]]:
    """Return the version for ``python:``, or an empty text, and sentences that say why."""
    exact = [*_version_file(wanted), *_venv(wanted), *_compiled(wanted)]
    ranges = list(_ranges(wanted))
    named = [(version, where) for version, where in exact if is_version(version)]
    notes = [
        f"{where} says {shown(version)}, which is no version: it was left out."
        for version, where in exact
        if not is_version(version)
    ]
    if named:
        version, where = named[0]
        others = [
            f"{other} comes from {place}" for other, place in named[1:] if _minor(other) != _minor(version)
        ]
        others += [f"{place} asks for {asked}" for asked, place in ranges if not _fits(version, asked)]
        but = f" But {' and '.join(others)}." if others else ""
        return version, (f"python: from {where}.{but}", *notes)
    version, why = _nearest(ranges)
    return version, (why, *notes)


def _nearest(ranges: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Return the version nearest to ours that suits all *ranges*, if ours does not or is the only one."""
    ours = sys.version_info[1]
    allowed = set(_MINORS).intersection(*(minors(asked) for asked, _ in ranges))
    asks = " and ".join(dict.fromkeys(f"{place} asks for {asked}" for asked, place in ranges))
    default = f"the Python that runs venvflow (3.{ours} now)"
    if not ranges:
        return "", f"python: nothing here pins one; without the key, it is {default}."
    if not allowed:
        return "", f"python: {asks}, which no version is. Without the key, it is {default}."
    if ours in allowed and len(allowed) > 1:
        return "", f"python: {asks}; without the key, it is {default}."
    return f"3.{min(allowed, key=lambda minor: abs(minor - ours))}", f"python: {asks}."


def _minor(version: str) -> str:
    found = re.search(r"3\.[0-9]+", version)
    return found[0] if found else version


def _fits(version: str, asked: str) -> bool:
    found = re.search(r"3\.([0-9]{1,4})", version)
    return found is None or int(found[1]) in minors(asked)


# --------------------------------------------------------------------------- what names one version


def _version_file(wanted: Wanted) -> Iterator[tuple[str, str]]:
    """Look for ``.python-version`` in the directory and those above it, as version managers do."""
    path = wanted.path
    while True:
        words = re.sub(r"#.*", "", beginning(os.path.join(wanted.root, path, ".python-version"))).split()
        if words:
            if words[0] != "system":
                yield words[0], shown(os.path.join(path, ".python-version"))
            return
        if not path:
            return
        path = os.path.dirname(path)


def _venv(wanted: Wanted) -> Iterator[tuple[str, str]]:
    """Look at the venvs; one that venvflow made says only what it was told, or what it runs on itself."""
    for name in sorted(wanted.venvs, key=lambda name: (name != ".venv", name)):
        receipt = read_receipt(os.path.join(wanted.root, wanted.path, name))
        if receipt is not None and receipt.key:
            continue
        found = re.search(
            r"^version(?:_info)?\s*=\s*(3\.[0-9]+)\b", wanted.text(name, "pyvenv.cfg"), re.MULTILINE
        )
        if found:
            yield found[1], wanted.shown(name, "pyvenv.cfg")
            return


_HEAD = 4096  # characters in which the command that made a lock file stands

_COMPILED = re.compile(
    r"^#.*(?:uv pip compile\b.*\s(?:-p|--python|--python-version)[ =](?P<uv>[^\s]+)"
    r"|pip-compile with [Pp]ython (?P<pip>3\.[0-9]+))",
    re.MULTILINE,
)
_PIPFILE = re.compile(r'"python_(?:full_)?version"\s*:\s*"(3[0-9.]*)"')


def _compiled(wanted: Wanted) -> Iterator[tuple[str, str]]:
    """Look at which Python the lock files were made for, where that was one."""
    for lock in wanted.locks:
        text = wanted.text(lock)
        found = _COMPILED.search(text[:_HEAD]) if lock.endswith((".txt", ".toml")) else None
        if found and is_version(version := found["uv"] or found["pip"]):
            yield version, f"the head of {wanted.shown(lock)}"
        if lock == "Pipfile.lock" and (found := _PIPFILE.search(text.partition('"default"')[0])):
            yield found[1], wanted.shown(lock)


# --------------------------------------------------------------------------- what allows several


def _ranges(wanted: Wanted) -> Iterator[tuple[str, str]]:
    """Yield what project and lock files ask for, each with where it stands."""
    project = wanted.text("pyproject.toml")
    asked = [
        (value_of(table_of(project, "project"), "requires-python"), "pyproject.toml"),
        (value_of(table_of(project, "tool.poetry.dependencies"), "python"), "pyproject.toml"),
    ]
    for lock in wanted.locks:
        if lock.endswith((".lock", ".toml")) and lock != "Pipfile.lock":
            head = re.split(r"^\[\[", wanted.text(lock), maxsplit=1, flags=re.MULTILINE)[0]
            foot = table_of(wanted.text(lock), "metadata")
            found = value_of(head, "requires-python") or value_of(foot, "python-versions")
            asked.append((found or value_of(foot, "requires_python"), lock))
    seen: set[str] = set()
    for specifier, name in asked:
        if specifier and specifier not in seen:  # a lock repeats what its project asks for
            seen.add(specifier)
            yield specifier, f"{_KEYS.get(name, '')}{wanted.shown(name)}"


_KEYS = {"pyproject.toml": "requires-python in "}


def table_of(toml: str, name: str) -> str:
    """Return the lines of one table of a TOML file.

    Enough of TOML for keys with plain values, and the same on Pythons that have no reader for it.
    """
    table = rf"^\[{re.escape(name)}\][^\n]*\n(.*?)(?=^[ \t]*\[(?![^\n]*,[ \t]*$)|\Z)"
    found = re.search(table, toml, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def value_of(lines: str, key: str) -> str:
    """Return the text that *key* has in the lines of a table, empty if there is none."""
    found = re.search(rf"""^[ \t]*{re.escape(key)}[ \t]*=[ \t]*(["'])(.*?)\1""", lines, re.MULTILINE)
    return found[2].strip() if found else ""


def minors(specifier: str) -> frozenset[int]:
    """Return which minor versions of Python 3 a specifier of Python, Poetry or PDM allows, in some patch.

    What cannot be read excludes nothing: the builder will have the last word.
    """
    allowed: set[int] = set()
    for alternative in re.split(r"\|+", specifier):
        parts = [part.replace(" ", "") for part in re.split(r",|(?<=[0-9*])\s+(?=[<>=!~^])", alternative)]
        allowed |= set(_MINORS).intersection(*(_minors_of(part) for part in parts))
    return frozenset(allowed)


_PART = re.compile(r"(?P<op>[<>=!~^]*)3(?:\.(?P<minor>[0-9]{1,4}))?(?P<patch>\.[0-9]+)?[^*]*?(?P<star>\.\*)?")


def _minors_of(part: str) -> set[int]:
    found = _PART.fullmatch(part)
    if not found or found["minor"] is None:
        return set(_MINORS)
    minor, has_patch, operator = int(found["minor"]), found["patch"] is not None, found["op"]
    if operator in {"", "==", "===", "~"} or (operator == "~=" and has_patch):
        return {minor}
    if operator in {">=", ">", "^", "~="}:
        return {each for each in _MINORS if each >= minor}
    if operator in {"<", "<="}:
        reaches = operator == "<=" or (has_patch and found["patch"] != ".0")
        return {each for each in _MINORS if each < minor + reaches}
    return set(_MINORS) - ({minor} if operator == "!=" and found["star"] else set())
