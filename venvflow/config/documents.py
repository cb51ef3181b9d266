"""Turns the bytes of a config file into nodes with line numbers, and text into YAML.

YAML is read as events, one after the other. The nodes of the YAML library would not do: they forget where an
alias stands and whether a tag was written, and the library reads nested values and aliases of aliases without
a limit. So nothing in a file makes an object, runs out of stack or grows.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, Literal, TypeAlias

import yaml

from venvflow.config.paths import PathReader
from venvflow.disk.files import open_regular
from venvflow.errors import ConfigError, EnvironmentFailure, clipped, shown

_LARGEST_FILE = 1 << 20  # bytes
_DEEPEST = 50  # lists and mappings inside each other; a sensible config has five
_TOO_DEEP = f"lists and mappings are nested more than {_DEEPEST} deep"
_MOST_COPIES = 10_000  # nodes that aliases may add

_BARE_FIELD = re.compile(r"(?:: |- |\[|, ?)\{[a-z]*\}")
_SAFE = re.compile(r"\.?[A-Za-z_][A-Za-z0-9_./+-]*")

Kind = Literal["text", "number", "truth", "nothing", "date", "list", "mapping"]

_TAGS: dict[str, Kind] = {
    "tag:yaml.org,2002:bool": "truth",
    "tag:yaml.org,2002:int": "number",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "date",
}
_NOUNS: dict[Kind, str] = {
    "text": "the text",
    "number": "the number",
    "truth": "the truth value",
    "nothing": "nothing",
    "date": "the date",
    "list": "a list",
    "mapping": "a mapping",
}

WRONG: Final = object()
"""What a check returns when it has reported a problem."""


@dataclass(slots=True)
class Node:
    """One value of a document, as it is written.

    *kind* is what YAML takes it for, *text* the source text of a scalar, *line* counts from 1 (for a list
    or mapping under a key, the key's line). *items* are those of a list; *pairs* those of a mapping, *lines*
    where its keys stand. *weight* counts the node and all below it, aliases followed; zero while it is read.
    """

    kind: Kind
    line: int
    text: str = ""
    items: list[Node] = field(default_factory=list)
    pairs: dict[str, Node] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    weight: int = 0

    @property
    def noun(self) -> str:
        """Return what this is, with its article: ``a number``."""
        return _NOUNS[self.kind].replace("the ", "a ", 1)

    def __str__(self) -> str:
        if self.kind in {"list", "mapping"} or not self.text:
            return "empty text" if self.kind == "text" else _NOUNS[self.kind]
        return f"{_NOUNS[self.kind]} {clipped(self.text)}"


@dataclass(slots=True)
class Reading:
    """One reading of the config in *file*: how its *paths* are read, and all that is wrong with it.

    *made* counts the venvs that templates made.
    """

    file: str
    paths: PathReader
    problems: list[tuple[int, str]] = field(default_factory=list)
    made: int = 0

    def wrong(self, line: int, at: str, text: str) -> object:
        """Note that what stands at key path *at* is wrong, and return :data:`WRONG`."""
        self.problems.append((line, f"{at}: {text}" if at else text))
        return WRONG

    def lines(self) -> list[str]:
        """Return all problems as ``file:line: text``, in the order of the file."""
        name = shown(self.file)
        return [f"{name}:{line}: {text}" for line, text in sorted(self.problems, key=lambda item: item[0])]


Check: TypeAlias = Callable[[Node, str, Reading], Any]
"""Takes a node, its key path for messages, and the reading; returns the value or :data:`WRONG`."""

# --------------------------------------------------------------------------- from file to text


def read(file: str) -> tuple[bytes, os.stat_result]:
    """Return the bytes and the status of a regular file; never waits for the other end of a pipe.

    Raises ``ConfigError`` for anything but a file, ``EnvironmentFailure`` if it cannot be read.
    """
    try:
        with open_regular(file, follow=True) as stream:
            # One byte more than allowed shows that there is more.
            return stream.read(_LARGEST_FILE + 1), os.fstat(stream.fileno())
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise unreadable(file, error) from error
        kind = "a directory" if os.path.isdir(file) else "not a regular file"
        raise ConfigError([f"{shown(file)}:1: this is {kind}: the config must be a file"]) from error


def unreadable(file: str, error: OSError) -> EnvironmentFailure:
    """Return the error for a config that the system does not let us see."""
    return EnvironmentFailure(
        f"the config cannot be read: {error.strerror}",
        where=shown(file),
        state="Nothing has been done",
        hint="Check the file and the permissions of its directories",
    )


class _Unusable(Exception):
    """The document cannot be read any further: the line, and the reason."""


def _decoded(data: bytes) -> str:
    if len(data) > _LARGEST_FILE:
        raise _Unusable(1, f"the file is larger than {_LARGEST_FILE} bytes: a config is not")
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise _Unusable(1, "the file starts with a byte order mark: save it as UTF-8 without one")
    if b"\0" in data:
        raise _Unusable(data[: data.index(b"\0")].count(b"\n") + 1, "there is a NUL byte in the file")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Unusable(data[: error.start].count(b"\n") + 1, "this is not UTF-8") from error


# --------------------------------------------------------------------------- from text to nodes


def parse(data: bytes, reading: Reading) -> Node:
    """Return the one document in *data*; raises ``ConfigError`` where going on makes no sense."""
    try:
        return _parse(_decoded(data), reading)
    except _Unusable as stop:
        line, text = stop.args
        reading.wrong(line, "", text)
        raise ConfigError(reading.lines()) from None


def _parse(text: str, reading: Reading) -> Node:
    try:
        return _Composer(text, reading).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise _Unusable(line, _syntax_problem(error, text.split("\n")[line - 1 : line])) from error
    except yaml.reader.ReaderError as error:
        # The C parser counts in bytes, the other one in characters; both stop at the first such character.
        line = text.count("\n", 0, text.find(chr(error.character))) + 1
        raise _Unusable(line, f"YAML does not allow this character: {error.character:#04x}") from error


def _syntax_problem(error: yaml.MarkedYAMLError, lines: list[str]) -> str:
    if error.problem == "exceeded maximum nesting depth":  # the library reads ahead, up to a limit of its own
        return _TOO_DEEP
    problem = f"this is not YAML: {error.problem or error.context}"
    if any("\t" in line[: len(line) - len(line.lstrip())] for line in lines):
        problem += " (indent with spaces: YAML does not allow tabs)"
    elif any(_BARE_FIELD.search(line) for line in lines):
        problem += " (text that begins with { needs quotes)"
    return problem


class _Composer:
    """Makes nodes of the events of one text, within limits."""

    def __init__(self, text: str, reading: Reading) -> None:
        self._events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self._reading = reading
        self._anchors: dict[str, Node] = {}
        self._depth = 0
        self._count = 0  # nodes so far, aliases followed
        self._copies = 0  # those of them that aliases added

    def document(self) -> Node:
        """Return the one document; raises ``_Unusable`` where it goes too far."""
        root = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                raise _Unusable(_line(event), "a second document starts here: a config is one document")
            if isinstance(event, yaml.NodeEvent):
                root = self._node(event)
        if root is None or root.kind == "nothing":
            raise _Unusable(1, "the file is empty: it needs at least the key 'venvs'")
        return root

    def _node(self, event: Any, key_line: int = 0) -> Node:
        """Return the value that begins with *event*; in a mapping, its key stands in *key_line*."""
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            return self._copy(line, event.anchor or "")
        if event.tag is not None:
            self._reading.wrong(line, "", f"tags are not supported: leave out {clipped(event.tag)}")
        if isinstance(event, yaml.ScalarEvent):
            # Without quotes (implicit[0]), YAML decides by its looks what it is.
            node = Node(_kind(event.value) if event.implicit[0] else "text", line, event.value)
        else:
            kind: Kind = "list" if isinstance(event, yaml.SequenceStartEvent) else "mapping"
            node = Node(kind, key_line or line)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        before = self._count
        self._count += 1
        if isinstance(event, yaml.CollectionStartEvent):
            self._fill(node, line)
        node.weight = self._count - before
        return node

    def _fill(self, node: Node, line: int) -> None:
        """Read what is in a list or mapping."""
        if self._depth == _DEEPEST:
            raise _Unusable(line, _TOO_DEEP)
        self._depth += 1
        for event in self._events:
            if isinstance(event, yaml.CollectionEndEvent):
                break
            item = self._node(event)
            if node.kind == "list":
                node.items.append(item)
            else:
                self._pair(node, item, _line(event))
        self._depth -= 1

    def _pair(self, parent: Node, key: Node, line: int) -> None:
        """Read the value of *key*, which stands in *line* (that of an alias was written elsewhere)."""
        event = next(self._events)
        if problem := _key_problem(parent, key):
            self._reading.wrong(line, "", problem)
        value = self._node(event, line)
        if key.text not in parent.pairs:
            parent.pairs[key.text], parent.lines[key.text] = value, line

    def _copy(self, line: int, anchor: str) -> Node:
        """Return the node that an alias refers to, as long as the document stays small."""
        node = self._anchors.get(anchor)
        if node is None or not node.weight:
            problem = "refers to nothing" if node is None else "lies inside what it refers to"
            raise _Unusable(line, f"the alias *{clipped(anchor)} {problem}")
        self._count += node.weight
        self._copies += node.weight
        if self._copies > _MOST_COPIES:
            raise _Unusable(line, f"aliases make the config larger by more than {_MOST_COPIES} values")
        return node


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _kind(text: str) -> Kind:
    """Return what YAML takes the unquoted *text* for."""
    for tag, pattern in yaml.SafeLoader.yaml_implicit_resolvers.get(text[:1], ()):
        if pattern.match(text):
            return _TAGS.get(tag, "text")
    return "text"


def _key_problem(parent: Node, key: Node) -> str:
    """Return what is wrong with *key* in *parent*, or an empty text."""
    if key.kind in {"list", "mapping"}:
        return f"a key must be text, found {key}"
    if key.text == "<<":
        return "merge keys (<<) are not supported: what venvs have in common goes under 'defaults'"
    if key.kind != "text":
        return f"YAML reads the key {clipped(key.text)!r} as {key.noun}: write it in quotes"
    if key.text in parent.pairs:
        return f"the key {clipped(key.text)!r} is here twice: first in line {parent.lines[key.text]}"
    return ""


# --------------------------------------------------------------------------- from text to YAML


def quoted(text: str) -> str:
    """Return *text* as YAML writes it: as it is where that is safe, else in double quotes."""
    if _SAFE.fullmatch(text) and _kind(text) == "text":
        return text
    return str(yaml.safe_dump(text, default_style='"', allow_unicode=True, width=inf)).rstrip("\n")
