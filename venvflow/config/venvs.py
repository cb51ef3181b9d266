"""Venvs as the config asks for them: each by its name, by its lock file alone, or many by a template.

``each:`` lists templates. One is filled in for every lock file that its globs find, and for every Python;
what comes out is a venv like any other, checked by the same check, and nothing after the config knows that
it was written as a template. Filled in are ``{dir}`` (the last directory of the lock file), ``{parent}``
(the path of that directory below the project root), ``{stem}`` (the file's name without its ending) and
``{python}``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from venvflow.config.documents import WRONG, Check, Node, Reading
from venvflow.config.paths import PathReader
from venvflow.errors import clipped, shown

FIELDS = ("dir", "parent", "stem", "python")
"""What is filled in where a template has it in braces."""

_MOST = 1000
"""Venvs that all templates may make: more come from a glob that finds what it should not."""

_BRACES = re.compile(r"\$\$|\$\{[^}]*\}|\{([^{}]*)\}")
_OWN_BRACES = frozenset({"build", "check", "exclude", "pack", "squish"})
"""Keys whose texts may have braces of their own, which stay as they are."""

_OWN_PYTHON = frozenset({"build", "pack"})
"""Keys in which ``{python}`` is the interpreter, or its full version, and is filled in later."""

_PATHS = frozenset({"path", "locks", "files", "output", "editable"})
"""Keys of paths, in which a dollar would be read."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A venv as the config asks for it.

    *values* are those of its keys, *node* has the line of each; *at* is its key path for messages. *file* is
    the lock file that a template was filled in for, relative to the project root.
    """

    values: dict[str, Any]
    node: Node
    at: str
    file: str = ""

    @property
    def origin(self) -> str:
        """Return which template it comes from, and what that was filled in for; empty for a venv by name."""
        return f"{self.at} in line {self.node.line}, for {shown(self.file)}" if self.file else ""

    @property
    def label(self) -> str:
        """Return which venv it is, for messages about another one."""
        return f"the venv for {shown(self.file)}" if self.file else f"the venv in line {self.node.line}"

    def on(self, text: str) -> str:
        """Return *text* about this venv, with the file that a template was filled in for."""
        return f"{text} (for {shown(self.file)})" if self.file else text

    def wrong(self, key: str, text: str, reading: Reading) -> None:
        """Report what is wrong with *key*, in its line, or in that of the venv if that key is left out."""
        reading.wrong(self.node.pairs.get(key, self.node).line, f"{self.at}.{key}", self.on(text))

    def way_out(self, first: Asked) -> str:
        """Return what keeps the two from having one name."""
        if self.at != first.at:
            return f'"!{self.file}" under locks takes it away'
        if self.file == first.file:
            return "put {python} into it"
        is_beside = os.path.dirname(self.file) == os.path.dirname(first.file)
        return f"put {'{stem}' if is_beside else '{parent}'} into it"


# --------------------------------------------------------------------------- one venv


def one_venv(table: Check) -> Check:
    """Check for a venv, or text that is its one lock file; the value is :class:`Asked`.

    Without a path, the venv is ``.venv`` beside its first lock file.
    """

    def check(node: Node, at: str, reading: Reading) -> Any:
        if node.kind == "text":
            node = Node("mapping", node.line, pairs={"locks": Node("list", node.line, items=[node])})
        elif node.kind != "mapping":
            expected = "expected a lock file, or a mapping such as {path: .venv, locks: [requirements.txt]}"
            return reading.wrong(node.line, at, f"{expected}, found {node}")
        values = table(node, at, reading)
        if "path" not in node.pairs and "locks" in values:
            try:
                values["path"] = _beside(node.pairs["locks"].items[0], values["locks"][0], reading.paths)
            except ValueError as error:
                return reading.wrong(node.line, at, f"the key 'path' is missing: {error}")
        return Asked(values, node, at) if {"path", "locks"} <= values.keys() else WRONG

    return check


def _beside(lock: Node, files: tuple[str, ...], paths: PathReader) -> str:
    """Return where a venv goes if nothing else is said; *files* are those that *lock* names."""
    if files != (paths.absolute(lock.text),):
        raise ValueError(f"{clipped(lock.text)} is not one file, beside which the venv would be")
    return paths.join(f"{os.path.dirname(files[0])}/.venv")


# --------------------------------------------------------------------------- many venvs


def found_by(text: str, paths: PathReader) -> tuple[str, ...]:
    """Return the files that one of a template's ``locks`` finds, or with ``!`` takes away.

    One with fields finds none: it is a further lock file of each venv. Raises ``ValueError``.
    """
    if fields := [found[0] for found in _BRACES.finditer(text) if found[1] is not None]:
        if text.startswith("!"):
            raise ValueError(f"what ! takes away is the same for all venvs: {fields[0]} is not filled in")
        if unknown := next((field for field in fields if field[1:-1] not in FIELDS), ""):
            raise ValueError(_not_known(unknown))
        return ()
    files = paths.files(text.removeprefix("!"))
    if text.startswith("!"):
        return files
    if not files:
        passed = "what is hidden, installed or in node_modules is passed over"
        raise ValueError(f"{clipped(text)} matches no file in {shown(paths.root)}; {passed}")
    if outside := next((file for file in files if not file.startswith(f"{paths.root}/")), ""):
        raise ValueError(
            f"{shown(outside)} lies outside the project: such a venv needs a name, under 'venvs'"
        )
    return files


def many_venvs(table: Check, locks: Check) -> Check:
    """Check for a template; the value is a list of :class:`Asked`, with the name among their values.

    *locks* checks the list of lock files and returns what each item finds; *table* checks each venv.
    """

    def check(node: Node, at: str, reading: Reading) -> Any:
        if node.kind != "mapping":
            return reading.wrong(node.line, at, f"expected a mapping (key: value), found {node}")
        if "locks" not in node.pairs:
            return reading.wrong(node.line, at, "the key 'locks' is missing")
        python = node.pairs.get("python")
        if python is not None and python.kind == "list" and not python.items:
            return reading.wrong(python.line, f"{at}.python", "the list must not be empty")
        found = locks(node.pairs["locks"], f"{at}.locks", reading)
        return WRONG if found is WRONG else _Template(node, at, table, reading).venvs(found)

    return check


class _Template:
    """One item of ``each``: *node*, at the key path *at*; *table* checks each venv that is filled in."""

    def __init__(self, node: Node, at: str, table: Check, reading: Reading) -> None:
        self._node = node
        self._at = at
        self._table = table
        self._reading = reading
        python = node.pairs.get("python", Node("nothing", node.line))
        self._pythons = python.items if python.kind == "list" else [python]
        suffix = "-{python}" if python.kind == "list" else ""
        usual = {"name": f"{{dir}}{suffix}", "path": f"{{parent}}/.venv{suffix}"}
        self._pairs = {key: Node("text", node.line, text) for key, text in usual.items()} | node.pairs

    def venvs(self, found: tuple[tuple[str, ...], ...]) -> Any:
        """Return the venvs for the files that are *found* by each of the locks.

        What is wrong for all files in the same way is told once, what is wrong for some with the first.
        """
        files = self._chosen(found)
        if why := self._why_none(len(files)):
            return self._reading.wrong(self._node.pairs["locks"].line, f"{self._at}.locks", why)
        venvs = []
        told: dict[tuple[int, str], dict[str, None]] = {}
        own = Reading(self._reading.file, self._reading.paths)
        for file in files:
            for python in self._pythons:
                before = len(own.problems)
                venvs.append(self._venv(file, python, own))
                for problem in own.problems[before:]:
                    told.setdefault(problem, {})[file] = None
        for (line, text), concerned in told.items():
            is_general = 1 < len(concerned) == len(files)
            self._reading.problems.append((line, text if is_general else f"{text} (for {_first(concerned)})"))
        return [venv for venv in venvs if venv is not WRONG]

    def _chosen(self, found: tuple[tuple[str, ...], ...]) -> list[str]:
        """Return the lock files that have a venv each, relative to the project root: sorted, each once."""
        groups = list(zip(self._node.pairs["locks"].items, found, strict=True))
        wanted = {file for item, files in groups if not item.text.startswith("!") for file in files}
        unwanted = {file for item, files in groups if item.text.startswith("!") for file in files}
        return sorted(os.path.relpath(file, self._reading.paths.root) for file in wanted - unwanted)

    def _why_none(self, files: int) -> str:
        """Count the venvs of that many lock files; return why they cannot be made, or an empty text."""
        if not files:
            return "no lock file is left: each item takes one away (!) or has a field in it"
        self._reading.made += files * len(self._pythons)
        if self._reading.made <= _MOST:
            return ""
        pythons = f" for {len(self._pythons)} Pythons" * (len(self._pythons) > 1)
        return f"{files:,} lock files match{pythons}: all templates make at most {_MOST:,} venvs"

    def _venv(self, file: str, python: Node, own: Reading) -> Any:
        """Return the venv for one lock file and one Python; its problems are told to *own*."""
        before = len(own.problems)
        locks = self._node.pairs["locks"]
        further = replace(locks, items=[item for item in locks.items if _has_fields(item.text)])
        given = {**self._pairs, "locks": further} | ({"python": python} if "python" in self._pairs else {})
        filled = {}
        for key, value in given.items():
            try:
                filled[key] = _filled(value, key, key, _fields(file, python))
            except _Unfilled as problem:
                own.wrong(problem.line, f"{self._at}.{key}", problem.text)
        lock = Node("text", locks.line, _as_path(file))
        filled["locks"] = replace(locks, items=[lock, *filled.get("locks", further).items])
        node = replace(self._node, pairs=filled)
        values = self._table(node, self._at, own)
        is_relative = "path" in values and not filled["path"].text.startswith(("/", "~", "${"))
        if is_relative and not f"{values['path']}/".startswith(f"{own.paths.root}/"):
            what = (
                f"{shown(values['path'])} lies outside the project: if that is meant, begin it with / or ~/"
            )
            own.wrong(filled["path"].line, f"{self._at}.path", what)
        return Asked(values, node, self._at, file) if len(own.problems) == before else WRONG


def _fields(file: str, python: Node) -> dict[str, str]:
    """Return what is filled in for a lock file below the project root, by the name of the field."""
    parent, name = os.path.split(file)
    values = (os.path.basename(parent), parent, os.path.splitext(name)[0], python.text)
    return dict(zip(FIELDS, values, strict=True))


def _first(files: Collection[str]) -> str:
    """Return the first of some files, and how many more there are."""
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return shown(next(iter(files))) + more


# --------------------------------------------------------------------------- filling in


class _Unfilled(Exception):
    """A text with something in braces that cannot be filled in: its line, and what is wrong."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


def _has_fields(text: str) -> bool:
    return any(found[1] in FIELDS for found in _BRACES.finditer(text))


def _filled(node: Node, key: str, inner: str, fields: Mapping[str, str]) -> Node:
    """Return what belongs to *key* of a template, or to its *inner* key, with the fields filled in."""
    if node.kind == "list":
        return replace(node, items=[_filled(item, key, inner, fields) for item in node.items])
    if node.kind == "mapping":
        return replace(
            node, pairs={name: _filled(below, key, name, fields) for name, below in node.pairs.items()}
        )
    if node.kind != "text":
        return node

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if (
            name is None
            or (name == "python" and key in _OWN_PYTHON)
            or (name not in fields and key in _OWN_BRACES)
        ):
            return found[0]
        if name not in fields:
            raise _Unfilled(node.line, _not_known(found[0]))
        if inner in _PATHS and (fields[name] or name == "parent"):
            return _as_path(fields[name] or ".")
        if not fields[name]:
            why = (
                "the template has no 'python'"
                if name == "python"
                else "the lock file lies in the project root"
            )
            raise _Unfilled(node.line, f"{found[0]} is empty: {why}")
        return fields[name].replace("/", "-") if inner == "name" else fields[name]

    return replace(node, text=_BRACES.sub(value, node.text))


def _not_known(field: str) -> str:
    if "," in field:
        return f"{clipped(field)!r} is no choice here, as it is in a shell: list each"
    return f"{clipped(field)!r} cannot be filled in; known are {', '.join(f'{{{each}}}' for each in FIELDS)}"


def _as_path(text: str) -> str:
    """Return *text* as it is written in a path of the config, where ``$`` and ``~`` mean something."""
    return f"{'./' * text.startswith('~')}{text}".replace("$", "$$")
