"""Documents: YAML text becomes nodes with line numbers, and text becomes YAML.

YAML is read as events, one after the other, and nothing is constructed by the YAML library: no tag can
make an object, and neither deep nesting (on which C and Python parsers run out of stack) nor aliases of
aliases can do harm.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import yaml

from venvflow.config.nodes import Kind, Node, clipped
from venvflow.config.report import Report
from venvflow.errors import ConfigError

_DEEPEST = 50  # lists and mappings inside each other; a sensible config has five
_TOO_DEEP = f"lists and mappings are nested more than {_DEEPEST} deep"
_MOST_COPIES = 10_000  # nodes that aliases may add

_FORBIDDEN = r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"  # 3 ms to compile
_SAFE = re.compile(r"\.?[A-Za-z_][A-Za-z0-9_./+-]*")

_TAGS: dict[str, Kind] = {
    "tag:yaml.org,2002:bool": "truth",
    "tag:yaml.org,2002:int": "number",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "date",
}


class _Unusable(Exception):
    """The document cannot be read any further from *line* on, for the reason *text*."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


def parse(text: str, report: Report) -> Node:
    """Return the one document in *text*; raises ``ConfigError`` where going on makes no sense."""
    try:
        return _compose(text, report)
    except _Unusable as stop:
        report.wrong(stop.line, "", stop.text)
    except yaml.MarkedYAMLError as error:
        report.wrong(*_syntax_problem(error, text))
    except yaml.reader.ReaderError as error:
        # The C parser counts in bytes, the other one in characters; both stop at the first such character.
        bad = re.search(_FORBIDDEN, text)
        line = text.count("\n", 0, bad.start() if bad else 0) + 1
        report.wrong(line, "", f"YAML does not allow this character: {error.character:#04x}")
    raise ConfigError(report.lines())


def _compose(text: str, report: Report) -> Node:
    composer = _Composer(report)
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        composer.take(event)
    if composer.root is None or composer.root.kind == "nothing":
        raise _Unusable(1, "the file is empty: it needs at least the key 'venvs'")
    return composer.root


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str, str]:
    mark = error.problem_mark or error.context_mark
    index = mark.line if mark else 0
    lines = text.split("\n")
    if _is_too_deep(lines[: index + 1]):
        return index + 1, "", _TOO_DEEP
    written = lines[index] if index < len(lines) else ""
    problem = f"this is not YAML: {error.problem or error.context}"
    if "\t" in written[: len(written) - len(written.lstrip())]:
        problem += " (indent with spaces: YAML does not allow tabs)"
    return index + 1, "", problem


def _is_too_deep(lines: list[str]) -> bool:
    """Return whether brackets are open in brackets too often for us in *lines*, which end with a problem.

    The library reads up to 1,024 characters ahead of its events, so a limit of its own comes before ours.
    """
    brackets = re.findall(r"[][{}]", "\n".join(lines))
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0) > _DEEPEST


def _kind(text: str) -> Kind:
    """Return what YAML takes the unquoted *text* for."""
    for tag, pattern in yaml.SafeLoader.yaml_implicit_resolvers.get(text[:1], ()):
        if pattern.match(text):
            return _TAGS.get(tag, "text")
    return "text"


class _Composer:
    """Makes nodes of events, without recursion."""

    def __init__(self, report: Report) -> None:
        self.root: Node | None = None
        self._report = report
        self._open: list[Node] = []
        self._keys: list[Node | None] = []  # of each open mapping, the key that waits for its value
        self._anchors: dict[str, Node] = {}
        self._count = 0
        self._copies = 0

    def take(self, event: yaml.Event) -> None:
        """Take in the next event; raises ``_Unusable`` where the document goes too far."""
        if handler := _HANDLERS.get(type(event)):
            handler(self, event)

    def document(self, event: yaml.DocumentStartEvent) -> None:
        """Only the first document is welcome."""
        if self.root is not None:
            raise _Unusable(_line(event), "a second document starts here: the config is only one")

    def scalar(self, event: yaml.ScalarEvent) -> None:
        """Keep the source text. Without quotes (implicit[0]), YAML decides by its looks what it is."""
        kind = _kind(event.value) if event.implicit[0] else "text"
        self._count += 1
        self._define(Node(kind, _line(event), event.value, weight=1), event)

    def sequence(self, event: yaml.SequenceStartEvent) -> None:
        """Open a list."""
        self._begin(Node("list", _line(event)), event)

    def mapping(self, event: yaml.MappingStartEvent) -> None:
        """Open a mapping."""
        self._begin(Node("mapping", _line(event)), event)

    def _begin(self, node: Node, event: yaml.CollectionStartEvent) -> None:
        if len(self._open) >= _DEEPEST:
            raise _Unusable(node.line, _TOO_DEEP)
        self._define(node, event)
        node.weight = -self._count  # negative while open: see alias
        self._count += 1
        self._open.append(node)
        self._keys.append(None)

    def end(self, _event: yaml.CollectionEndEvent) -> None:
        """Close the innermost list or mapping."""
        key = self._keys.pop()
        if key is not None:  # cannot be: the parser gives every key a value
            raise _Unusable(key.line, "a key has no value")
        self._open.pop().weight += self._count

    def alias(self, event: yaml.AliasEvent) -> None:
        """Put the node that is referred to here once more, as long as that stays small."""
        line, anchor = _line(event), clipped(event.anchor or "")
        node = self._anchors.get(event.anchor or "")
        if node is None:
            raise _Unusable(line, f"the alias *{anchor} refers to nothing")
        if any(node is parent for parent in self._open):
            raise _Unusable(line, f"the alias *{anchor} lies inside what it refers to")
        self._count += node.weight
        self._copies += node.weight
        if self._copies > _MOST_COPIES:
            raise _Unusable(line, f"aliases make the config larger by more than {_MOST_COPIES} values")
        self._put(node, line)

    def _define(self, node: Node, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.tag is not None:
            self._report.wrong(node.line, "", f"tags are not understood here: leave out {clipped(event.tag)}")
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._put(node, node.line)

    def _put(self, node: Node, line: int) -> None:
        """Put *node* where the document stands: at the top, in a list, as a key or as a key's value."""
        if not self._open:
            self.root = node
        elif (parent := self._open[-1]).kind == "list":
            parent.items.append(node)
        elif (key := self._keys[-1]) is None:
            self._keys[-1] = node if node.line == line else Node(node.kind, line, node.text)
        else:
            self._keys[-1] = None
            self._pair(parent, key, node)

    def _pair(self, parent: Node, key: Node, value: Node) -> None:
        if problem := _key_problem(parent, key):
            self._report.wrong(key.line, "", problem)
        if value.kind in {"list", "mapping"} and value.weight <= 0:
            value.line = key.line
        parent.pairs.setdefault(key.text, (key.line, value))


_HANDLERS: dict[type[yaml.Event], Callable[[_Composer, Any], None]] = {
    yaml.DocumentStartEvent: _Composer.document,
    yaml.ScalarEvent: _Composer.scalar,
    yaml.SequenceStartEvent: _Composer.sequence,
    yaml.MappingStartEvent: _Composer.mapping,
    yaml.SequenceEndEvent: _Composer.end,
    yaml.MappingEndEvent: _Composer.end,
    yaml.AliasEvent: _Composer.alias,
}


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _key_problem(parent: Node, key: Node) -> str:
    """Return what is wrong with *key* in *parent*, or an empty text."""
    if key.kind in {"list", "mapping"}:
        return f"a key must be text, found {key}"
    if key.text == "<<":
        return "merge keys (<<) are not understood here: what venvs have in common goes under 'defaults'"
    if key.kind != "text":
        return f"YAML reads the key {clipped(key.text)!r} as {key.noun}: write it in quotes"
    if key.text in parent.pairs:
        return f"the key {clipped(key.text)!r} is here twice: first in line {parent.pairs[key.text][0]}"
    return ""


# --------------------------------------------------------------------------- from text to YAML


def quoted(text: str) -> str:
    """Return *text* as YAML writes it: as it is where that is safe, else in double quotes."""
    if _SAFE.fullmatch(text) and _kind(text) == "text":
        return text
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in {'"', "\\"}:
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"
