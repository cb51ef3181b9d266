"""The config file: found, read with care, checked in full, and turned into records.

YAML is read as events, one after the other, into nodes with line numbers; nothing is constructed by the
YAML library, so no tag can make an object, and neither deep nesting (on which C and Python parsers run out
of stack) nor aliases of aliases can do harm. Nodes become values through *checks*, put together in the
tables near the end (``{"keep": nullable(whole(1, 10)), ...}``): a check returns the value, or reports what
is wrong and returns ``WRONG``, so that one reading finds every problem. ``venvflow.schema.json`` says the
same to editors, and a test compares the two.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

import yaml

from venvflow.errors import ConfigError, EnvironmentFailure, Refused, UsageError, shown
from venvflow.model import Config, PackOptions, StoreConfig, TrimPolicy, VenvSpec
from venvflow.units import parse_duration, parse_size

Kind = Literal["text", "number", "truth", "nothing", "date", "list", "mapping"]

CONFIG_NAMES = ("venvflow.yaml", "config/venvflow.yaml")
"""Where a project's config is looked for, in this order, in a directory and its parents."""

_LARGEST_FILE = 1 << 20  # bytes
_DEEPEST = 50  # lists and mappings inside each other; a sensible config has five
_MOST_COPIES = 10_000  # nodes that aliases may add

# --------------------------------------------------------------------------- finding


def find_config(start: str, explicit: str | None = None) -> tuple[str, str]:
    """Return the config file and the project root for work in the directory *start*, both absolute.

    Looks for :data:`CONFIG_NAMES` in *start* and each of its parents; the root is the directory in which
    they were found. With *explicit* (relative to *start*), the root is that file's directory, or its parent
    if that directory is called ``config``. Raises ``UsageError`` if there is no config, and
    ``EnvironmentFailure`` if a directory cannot be looked into.
    """
    start = _absolute(start)
    if explicit is not None:
        return _named_config(os.path.normpath(os.path.join(start, explicit)))
    for directory in (start, *_ancestors(start)):
        for relative in CONFIG_NAMES:
            file = os.path.join(directory, relative)
            if _is_there(file):
                return file, directory
    raise UsageError(
        "there is no venvflow.yaml here or in any parent directory",
        where=shown(start),
        hint=_misspelled(start) or 'Run "venvflow init" to write one, or name one with --config',
    )


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError as error:
        raise EnvironmentFailure(
            f"the working directory cannot be found: {error.strerror}",
            where=shown(path),
            hint="Change to a directory that exists",
        ) from error


def _named_config(file: str) -> tuple[str, str]:
    if not _is_there(file):
        raise UsageError(
            "the config file is not there", where=shown(file), hint='Run "venvflow init" to write a config'
        )
    directory = os.path.dirname(file)
    return file, os.path.dirname(directory) if os.path.basename(directory) == "config" else directory


def _is_there(file: str) -> bool:
    """Return whether *file* exists in any form: what is wrong with it is found when it is read."""
    try:
        os.lstat(file)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(file, error) from error
    return True


def _misspelled(start: str) -> str:
    if os.path.lexists(os.path.join(start, "venvflow.yml")):
        return "There is a venvflow.yml: rename it to venvflow.yaml"
    return ""


# --------------------------------------------------------------------------- loading


def load(file: str, root: str, environ: Mapping[str, str], *, require_locks: bool = True) -> Config:
    """Return the config in *file* for the project at *root*; nothing is written.

    ``VENVFLOW_STORE`` in *environ* overrides ``store.path``. Without *require_locks*, lock files and key
    files that are missing are no problem: for commands that only ask questions.

    Raises ``ConfigError`` with all problems of the file; then ``Refused`` if some venv's path could make
    venvflow delete what is not its own; ``EnvironmentFailure`` if the file cannot be read.
    """
    root = os.path.normpath(root)
    places = Places(root, _home(environ), environ, require_locks)
    report = Report(file, places)
    data, mode = _read(file)
    document = _parse(_decode(data, report), report)
    values = TOP(document, "", report)
    config = _assemble(values, document, report) if values is not WRONG else None
    if report.problems or config is None:
        raise ConfigError(report.lines())
    _refuse_dangers(config, places.home)
    return replace(config, warnings=tuple(_warnings(config.venvs, mode)))


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the config file."""
    import json  # noqa: PLC0415 - only the schema needs it

    with open(os.path.join(os.path.dirname(__file__), "venvflow.schema.json"), encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def _home(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    if not os.path.isabs(home):
        import pwd  # noqa: PLC0415 - only without a usable HOME

        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            home = "/"  # what the system gives to users that it does not know
    return os.path.normpath(home)


def _warnings(venvs: Mapping[str, VenvSpec], mode: int) -> Iterator[str]:
    if not venvs:
        yield "the config names no venvs: there is nothing to do"
    if mode & stat.S_IWOTH:
        yield "every user of this machine can change the config, and so run commands as you: chmod o-w it"


# --------------------------------------------------------------------------- from a file to text


def _read(file: str) -> tuple[bytes, int]:
    """Return the bytes and the mode of a regular file; never waits for the other end of a pipe."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            mode = os.fstat(descriptor).st_mode
            # One byte more than allowed shows that there is more.
            data = stream.read(_LARGEST_FILE + 1) if stat.S_ISREG(mode) else None
    except IsADirectoryError:
        mode, data = stat.S_IFDIR, None
    except OSError as error:
        raise _unreadable(file, error) from error
    if data is None:
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise ConfigError([f"{shown(file)}:1: this is {kind}: the config must be a file"])
    return data, mode


def _unreadable(file: str, error: OSError) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"the config cannot be read: {error.strerror}",
        where=shown(file),
        state="Nothing has been done",
        hint="Check the file and the permissions of its directories",
    )


def _decode(data: bytes, report: Report) -> str:
    text, line, problem = "", 1, ""
    if len(data) > _LARGEST_FILE:
        problem = f"the file is larger than {_LARGEST_FILE} bytes: a config is not"
    elif data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        problem = "the file starts with a byte order mark: save it as UTF-8 without one"
    elif b"\0" in data:
        line, problem = data[: data.index(b"\0")].count(b"\n") + 1, "there is a NUL byte in the file"
    else:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            line, problem = data[: error.start].count(b"\n") + 1, "this is not UTF-8"
    if problem:
        report.wrong(line, "", problem)
        raise ConfigError(report.lines())
    return text


# --------------------------------------------------------------------------- from text to nodes


class _Unusable(Exception):
    """The document cannot be read any further from *line* on, for the reason *text*."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


def _parse(text: str, report: Report) -> Node:
    """Return the one document in *text*; raises ``ConfigError`` where going on makes no sense."""
    try:
        return _compose(text, report)
    except _Unusable as stop:
        report.wrong(stop.line, "", stop.text)
    except yaml.MarkedYAMLError as error:
        report.wrong(*_syntax_problem(error, text))
    except yaml.reader.ReaderError as error:
        # The C parser counts in bytes, the other one in characters; both stop at the first such character.
        bad = _FORBIDDEN.search(text)
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
    written = lines[index] if index < len(lines) else ""
    problem = f"this is not YAML: {error.problem or error.context}"
    if "\t" in written[: len(written) - len(written.lstrip())]:
        problem += " (indent with spaces: YAML does not allow tabs)"
    return index + 1, "", problem


_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_SAFE = re.compile(r"\.?[A-Za-z_][A-Za-z0-9_./+-]*")

_TAGS: dict[str, Kind] = {
    "tag:yaml.org,2002:bool": "truth",
    "tag:yaml.org,2002:int": "number",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "date",
}


def _kind(text: str) -> Kind:
    """Return what YAML takes the unquoted *text* for."""
    for tag, pattern in yaml.SafeLoader.yaml_implicit_resolvers.get(text[:1], ()):
        if pattern.match(text):
            return _TAGS.get(tag, "text")
    return "text"


def quoted(text: str) -> str:
    """Return *text* as YAML writes it: as it is where that is safe, else in double quotes."""
    if _SAFE.fullmatch(text) and _kind(text) == "text":
        return text
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in {'"', "\\"}:
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"


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
            raise _Unusable(node.line, f"lists and mappings are nested more than {_DEEPEST} deep")
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
        return f"YAML reads the key {clipped(key.text)!r} as {_a(key)}: write it in quotes"
    if key.text in parent.pairs:
        return f"the key {clipped(key.text)!r} is here twice: first in line {parent.pairs[key.text][0]}"
    return ""


# --------------------------------------------------------------------------- nodes, problems, checks

_NOUNS: dict[Kind, str] = {
    "text": "the text",
    "number": "the number",
    "truth": "the truth value",
    "nothing": "nothing",
    "date": "the date",
    "list": "a list",
    "mapping": "a mapping",
}
_PLAIN_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_MOST_SUGGESTIONS = 100
_LONGEST_WORD = 60

WRONG: Final = object()
"""What a check returns when it has reported a problem."""


@dataclass(slots=True)
class Node:
    """One value of a document, as it is written.

    *kind* is what YAML takes it for, *text* the source text of a scalar, *line* counts from 1 (for a list
    or mapping under a key, the key's line). *items* are those of a list; *pairs* those of a mapping: the
    line of the key, and the value. *weight* counts the node and all below it, aliases followed; zero while
    it is still being read.
    """

    kind: Kind
    line: int
    text: str = ""
    items: list[Node] = field(default_factory=list)
    pairs: dict[str, tuple[int, Node]] = field(default_factory=dict)
    weight: int = 0

    def __str__(self) -> str:
        if self.kind in {"list", "mapping"} or not self.text:
            return "empty text" if self.kind == "text" else _NOUNS[self.kind]
        return f"{_NOUNS[self.kind]} {clipped(self.text)}"


@dataclass(slots=True)
class Report:
    """Collects the problems of *file*; *places* knows how its paths are read."""

    file: str
    places: Places
    problems: list[tuple[int, str]] = field(default_factory=list)

    def wrong(self, line: int, at: str, text: str) -> object:
        """Note that what stands at key path *at* is wrong, and return :data:`WRONG`."""
        self.problems.append((line, f"{at}: {text}" if at else text))
        return WRONG

    def lines(self) -> list[str]:
        """Return all problems as ``file:line: text``, in the order of the file."""
        name = shown(self.file)
        return [f"{name}:{line}: {text}" for line, text in sorted(self.problems, key=lambda item: item[0])]

    def nearest(self, word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
        """Return help on which of the *known* words may have been meant by *word*."""
        # Comparing is slow: a hostile file of many or very long wrong words must not take minutes.
        if len(self.problems) < _MOST_SUGGESTIONS and len(word) <= _LONGEST_WORD:
            import difflib  # noqa: PLC0415 - 4 ms that only a mistake costs

            if near := difflib.get_close_matches(word, known, 1):
                return f"did you mean {near[0]!r}?"
        return "known are: " + ", ".join(known)


Check: TypeAlias = Callable[[Node, str, Report], Any]
"""Takes a node, its key path for messages, and the report; returns the value or :data:`WRONG`."""


def clipped(text: str) -> str:
    """Return *text* as one printable line of bounded length."""
    line = shown(text)
    return line if len(line) <= _LONGEST_WORD else line[:_LONGEST_WORD] + "…"


# --------------------------------------------------------------------------- single values


def leaf(read: Callable[[Node, Places], Any]) -> Check:
    """Make a check of a function that reads one node and says what is wrong by ``ValueError``."""

    def check(node: Node, at: str, report: Report) -> Any:
        try:
            return read(node, report.places)
        except ValueError as error:
            return report.wrong(node.line, at, str(error))

    return check


def read_text(node: Node) -> str:
    """Return the text of *node*, which may be empty.

    What YAML takes for something else is refused: ``3.10`` would be the number 3.1, ``no`` false.
    """
    if node.kind in {"list", "mapping", "nothing"}:
        raise ValueError(f"expected text, found {node}")
    if node.kind != "text":
        raise ValueError(
            f'YAML reads {clipped(node.text)} as {_a(node)}: write it in quotes, "{clipped(node.text)}"'
        )
    if "\0" in node.text:
        raise ValueError("text cannot hold a NUL character")
    return node.text


def read_name(node: Node) -> str:
    """Return the text of *node*, which must not be empty."""
    if not (text := read_text(node)):
        raise ValueError("expected text, found empty text")
    return text


def _a(node: Node) -> str:
    return _NOUNS[node.kind].replace("the ", "a ", 1)


def _flag(node: Node, _places: Places) -> bool:
    # "yes" and "on" are truth values to some readers of YAML and text to others (editors among them).
    if node.kind != "truth" or node.text.lower() not in {"true", "false"}:
        raise ValueError(f"expected true or false, found {node}")
    return node.text.lower() == "true"


def _number(node: Node) -> int:
    if node.kind == "text" and _PLAIN_NUMBER.fullmatch(node.text):
        raise ValueError(f"expected a whole number, found the text {node.text}: leave out the quotes")
    if node.kind != "number" or not _PLAIN_NUMBER.fullmatch(node.text):
        raise ValueError(f"expected a whole number in plain digits, found {node}")
    return int(node.text)


word = leaf(lambda node, _places: read_text(node))
"""Check for text that may be empty."""

flag = leaf(_flag)
"""Check for ``true`` or ``false``."""


def whole(least: int, most: int) -> Check:
    """Check for a whole number from *least* to *most*."""

    def read(node: Node, _places: Places) -> int:
        number = _number(node)
        if not least <= number <= most:
            raise ValueError(f"expected a whole number from {least} to {most}, found {number}")
        return number

    return leaf(read)


def _quantity(node: Node) -> str | int:
    # 010 and 1:30 are 8 and 90 to YAML: as quantities only plain digits are clear.
    if node.kind == "number" and "." not in node.text:
        return _number(node)
    if node.kind in {"text", "number"}:
        return clipped(node.text)
    raise ValueError(f"expected a quantity, found {node}")


def size(*, zero: bool = False) -> Check:
    """Check for a size such as ``20GiB``; the value is in bytes."""
    return leaf(lambda node, _places: parse_size(_quantity(node), zero=zero))


def duration() -> Check:
    """Check for a duration such as ``14d``; the value is in seconds."""
    return leaf(lambda node, _places: parse_duration(_quantity(node)))


def choice(*words: str) -> Check:
    """Check for one of *words*."""

    def check(node: Node, at: str, report: Report) -> Any:
        if node.kind == "text" and node.text in words:
            return node.text
        hint = report.nearest(node.text, words) if node.kind == "text" else "known are: " + ", ".join(words)
        return report.wrong(node.line, at, f"{node} is not possible here; {hint}")

    return check


def nullable(check: Check) -> Check:
    """Check that also accepts a written-out ``null`` (or ``~``), with the value ``None``."""

    def either(node: Node, at: str, report: Report) -> Any:
        return None if node.kind == "nothing" and node.text else check(node, at, report)

    return either


# --------------------------------------------------------------------------- lists and mappings


def listing(check: Check, *, empty: bool = True, unique: bool = False) -> Check:
    """Check for a list of what *check* accepts; the value is a tuple."""

    def each(node: Node, at: str, report: Report) -> Any:
        if node.kind != "list":
            return report.wrong(node.line, at, f"expected a list, such as [a, b], found {node}")
        if not (node.items or empty):
            return report.wrong(node.line, at, "the list must not be empty")
        values = [check(item, f"{at}[{index}]", report) for index, item in enumerate(node.items)]
        if unique and len(set(values)) < len(values):
            return report.wrong(node.line, at, "the list says something twice")
        return WRONG if WRONG in values else tuple(values)

    return each


@dataclass(frozen=True, slots=True)
class Table:
    """Check for a mapping with known keys; the value is a dict of the keys that are there and right.

    *fields* gives the check of each key, *required* the keys that must be there, *elsewhere* a text for
    keys that are known but do not belong here.
    """

    fields: Mapping[str, Check]
    required: tuple[str, ...] = ()
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, node: Node, at: str, report: Report) -> Any:
        """Check *node* and everything below it."""
        if node.kind != "mapping":
            return report.wrong(node.line, at, f"expected a mapping (key: value), found {node}")
        values = {}
        for key, (line, below) in node.pairs.items():
            value = self._value(key, line, below, at, report)
            if value is not WRONG:
                values[key] = value
        for key in self.required:
            if key not in node.pairs:
                report.wrong(node.line, at, f"the key {key!r} is missing")
        return values

    def _value(self, key: str, line: int, below: Node, at: str, report: Report) -> Any:
        check = self.fields.get(key)
        if check:
            return check(below, f"{at}.{key}" if at else key, report)
        hint = self.elsewhere.get(key) or report.nearest(key, self.fields)
        return report.wrong(line, at, f"unknown key {clipped(key)!r}; {hint}")


@dataclass(frozen=True, slots=True)
class Named:
    """Check for a mapping from names to what *check* accepts; *allow* judges each name by ``ValueError``."""

    allow: Callable[[str, list[str]], None]
    check: Check

    def __call__(self, node: Node, at: str, report: Report) -> Any:
        """Check the names and what belongs to them; the value is a dict."""
        if node.kind != "mapping":
            return report.wrong(node.line, at, f"expected a mapping of names, found {node}")
        values: dict[str, Any] = {}
        for key, (line, below) in node.pairs.items():
            try:
                self.allow(key, list(values))
            except ValueError as error:
                report.wrong(line, at, str(error))
            values[key] = self.check(below, f"{at}.{clipped(key)}", report)
        return values


# --------------------------------------------------------------------------- paths: ~, ${VAR}, globs

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[^}]*)\}|\{?\w*)")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAGIC = re.compile(r"[*?[]")
_STARS = re.compile(r"\\.|\*+")

_LONGEST_PATH = 4095  # bytes: what Linux accepts in one call; macOS takes less and will say so itself
_STARS_PER_SEGMENT = 4
_STARS_PER_PATTERN = 6


@dataclass(frozen=True, slots=True)
class Places:
    """How paths are read: relative ones from *root*, ``~`` as *home*, variables from *environ*.

    *root* and *home* are absolute and normalised. With *must_exist*, files that are listed have to be there.
    What is wrong with a path is a ``ValueError``. Files are only looked at (``stat``), never opened.
    """

    root: str
    home: str
    environ: Mapping[str, str]
    must_exist: bool = True

    def expand(self, text: str, quote: Callable[[str], str] = str) -> str:
        """Return *text* with a leading ``~/`` and each ``${NAME}`` filled in, passed through *quote*.

        ``$$`` stands for a dollar. An undefined or empty variable is an error, and so are ``$NAME``,
        ``${NAME:-default}`` and ``~user``, which a shell would fill in: better no path than a wrong one.
        """
        if not text.startswith("~"):
            return self._variables(text, quote)
        if text[1:2] not in {"", "/"}:
            raise ValueError(
                f"only ~/ is filled in: a directory called {clipped(text)} is written ./{clipped(text)}"
            )
        return quote(self.home) + self._variables(text[1:], quote)

    def _variables(self, text: str, quote: Callable[[str], str]) -> str:
        return _VARIABLE.sub(lambda found: self._variable(found, quote), text) if "$" in text else text

    def _variable(self, found: re.Match[str], quote: Callable[[str], str]) -> str:
        if found["dollar"]:
            return "$"
        name = found["name"]
        if name is None or not _VARIABLE_NAME.fullmatch(name):
            raise ValueError(
                f"cannot read {clipped(found[0])}: write ${{NAME}} for a variable, $$ for a dollar"
            )
        if not self.environ.get(name):
            state = "is empty" if name in self.environ else "is not defined"
            raise ValueError(f"the environment variable {clipped(name)} {state}")
        return quote(self.environ[name])

    def absolute(self, text: str) -> str:
        """Return the absolute, normalised path that *text* stands for; symlinks are left as they are."""
        return self.join(self.expand(text))

    def join(self, path: str) -> str:
        """Return *path*, in which nothing is filled in any more, absolute and normalised."""
        joined = os.path.normpath(os.path.join(self.root, path))
        if len(os.fsencode(joined)) > _LONGEST_PATH:
            raise ValueError(f"the path is longer than {_LONGEST_PATH} bytes")
        return joined[1:] if joined.startswith("//") else joined

    def files(self, text: str) -> tuple[str, ...]:
        """Return the absolute paths of the files that *text* names or, as a glob, matches: sorted.

        A name that exists is taken as it is, even if it has ``[`` in it. Without *must_exist*, a missing
        file is returned all the same, and a glob may match nothing.
        """
        path = self.absolute(text)
        problem = _file_problem(path)
        if problem == _MISSING and _MAGIC.search(text):
            return self._globbed(text)
        if problem and self.must_exist:
            raise ValueError(f"{shown(path)} {problem}")
        return (path,)

    def _globbed(self, text: str) -> tuple[str, ...]:
        import glob  # noqa: PLC0415 - only globs need it

        limit_stars(text)
        pattern = os.path.normpath(self.expand(text, glob.escape))
        found = {os.path.normpath(path) for path in _matching(self.root, pattern)}
        files = sorted(path for path in found if not _file_problem(path))
        if not files and self.must_exist:
            raise ValueError(f"{clipped(text)} matches no file")
        return tuple(files)


_MISSING = "does not exist"


def _file_problem(path: str) -> str:
    """Return what keeps *path* from being a regular file within reach, or an empty text."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _MISSING
    except OSError as error:
        return f"cannot be reached: {error.strerror}"
    if stat.S_ISREG(mode):
        return ""
    return "is a directory, not a file" if stat.S_ISDIR(mode) else "is not a regular file"


def limit_stars(pattern: str) -> None:
    """Raise ``ValueError`` if matching *pattern* could take for ever.

    A matcher that backtracks tries every way to share a name out among the stars before it gives up: with
    k stars and n characters about n^k/k! ways, and the ways of all segments of a path multiply. So stars are
    limited per segment (four: ``*-*.dist-info``, ``*.*.*``) and in all (six, ``**`` counted too), which
    keeps it a polynomial of low degree. A run of stars counts once, an escaped one not at all.
    """
    counts = [sum(found[0] == "*" for found in _STARS.findall(segment)) for segment in pattern.split("/")]
    if max(counts) > _STARS_PER_SEGMENT or sum(counts) > _STARS_PER_PATTERN:
        raise ValueError(
            f"too many stars: at most {_STARS_PER_SEGMENT} between two slashes and {_STARS_PER_PATTERN} "
            "in all, or matching could take for ever"
        )


def _matching(root: str, pattern: str) -> set[str]:
    """Return what matches, below *root* or from ``/``; a directory that cannot be read is an error."""
    segments = pattern.strip("/").split("/")
    if segments[-1] == "**":
        segments.append("*")
    level = {"/" if pattern.startswith("/") else root}
    for segment in segments:
        if segment == "**":
            level = {path for start in level for path in _directories(start)}
        elif _MAGIC.search(segment):
            level = {path for start in level for path in _named_like(start, segment)}
        else:
            level = {os.path.join(start, segment) for start in level}
    return level


def _named_like(directory: str, segment: str) -> Iterator[str]:
    import fnmatch  # noqa: PLC0415 - only globs need it

    hidden = segment.startswith(".")
    for entry in _entries(directory):
        if fnmatch.fnmatchcase(entry.name, segment) and (hidden or not entry.name.startswith(".")):
            yield entry.path


def _directories(start: str) -> Iterator[str]:
    """Yield *start* and the directories below it, but for hidden ones, venvs and links (which can loop)."""
    waiting = [start]
    while waiting:
        directory = waiting.pop()
        yield directory
        waiting += [entry.path for entry in _entries(directory) if _worth_a_look(entry)]


def _worth_a_look(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
        return False
    return not os.path.lexists(f"{entry.path}/pyvenv.cfg")


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ValueError(f"cannot look into {shown(directory)}: {error.strerror}") from error


# --------------------------------------------------------------------------- what a config may hold

_VERSION = re.compile(r"((cpython|pypy|python)[-@]?)?3(\.[0-9]+(\.[0-9]+((a|b|rc)[0-9]+)?)?)?t?")
_VENV_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,99}")
_LEVELS = {"tar": (0, 0), "tar.gz": (0, 9), "tar.xz": (0, 9), "tar.zst": (1, 22), "zip": (0, 9)}
"""Formats of archives, each with its smallest and largest level of compression."""

_USUAL_LEVELS = {"tar": 0, "tar.gz": 6, "tar.xz": 6, "tar.zst": 3, "zip": 6}


def _format_version(node: Node, _places: Places) -> int:
    if (number := _number(node)) != 1:
        raise ValueError(f"this venvflow reads version 1 of the config, found {number}")
    return number


def _path(node: Node, places: Places) -> str:
    return places.absolute(read_name(node))


def _store_path(node: Node, places: Places) -> str:
    # What VENVFLOW_STORE overrides may well name variables that only exist elsewhere.
    return read_name(node) if places.environ.get("VENVFLOW_STORE") else _path(node, places)


def _files(node: Node, places: Places) -> tuple[str, ...]:
    return places.files(read_name(node))


def is_version(text: str) -> bool:
    """Return whether *text* names a Python by version: ``3.12``, ``3.14.0rc1``, ``3.13t``, ``pypy3.11``."""
    return bool(_VERSION.fullmatch(text))


def _python(node: Node, places: Places) -> str:
    text = read_name(node)
    if is_version(text):
        return text
    if "/" in text or text.startswith(("~", "${")):
        return places.absolute(text)
    raise ValueError(f"expected a version such as 3.12, or a path with a slash, found {node}")


def _variable_name(node: Node, _places: Places) -> str:
    if not _VARIABLE_NAME.fullmatch(text := read_name(node)):
        raise ValueError(f"expected the name of an environment variable, found {node}")
    return text


def _pattern(node: Node, _places: Places) -> str:
    limit_stars(text := read_name(node))
    return text


def _build(node: Node, at: str, report: Report) -> Any:
    return (_COMMANDS if node.kind == "list" else _BUILDERS)(node, at, report)


def _command(node: Node, at: str, report: Report) -> Any:
    words = listing(word, empty=False)(node, at, report)
    if words is not WRONG and not words[0]:
        return report.wrong(node.line, at, "the first word of a command must name a program")
    return words


def _allowed_name(text: str, others: list[str]) -> None:
    """Judge the name of a venv: it becomes a task's name and a directory's."""
    if not _VENV_NAME.fullmatch(text):
        raise ValueError(
            f"{clipped(text)!r} cannot be the name of a venv: at most 100 letters, digits, dots, dashes, "
            "underscores and plus signs, the first of them no dot or dash"
        )
    if text.lower().startswith("state.db"):
        raise ValueError(f"{text!r} cannot be the name of a venv: the tasks keep their own state under it")
    if twin := next((other for other in others if other.lower() == text.lower()), ""):
        raise ValueError(f"{text!r} and {twin!r} differ only in case: some disks cannot tell them apart")


_LINKS = listing(choice("reflink", "hardlink", "copy", "symlink"), empty=False, unique=True)
_PATTERNS = listing(leaf(_pattern))
_BUILDERS = choice("auto", "uv", "pip", "poetry", "pdm", "pipenv")
_COMMANDS = listing(_command, empty=False)
_MANY = 1_000_000

_COMMON: dict[str, Check] = {
    "python": leaf(_python),
    "build": _build,
    "key": Table({"files": listing(leaf(_files)), "env": listing(leaf(_variable_name), unique=True)}),
    "bytecode": choice("canonical", "keep", "none"),
    "exclude": _PATTERNS,
    "restore": flag,
    "squish": Table({"link": _LINKS, "min_size": size(zero=True)}),
    "pack": nullable(Table({"format": choice(*_LEVELS), "level": whole(0, 22), "output": leaf(_path)})),
    "check": listing(word),
}

_ONLY_IN_VENVS = {
    "path": "each venv has a path of its own",
    "locks": "each venv has lock files of its own",
    "pin": "pinning all venvs would switch trim off: pin single ones",
}

TOP = Table(
    {
        "version": leaf(_format_version),
        "store": Table(
            {
                "path": leaf(_store_path),
                "link": _LINKS,
                "min_size": size(zero=True),
                "verify": choice("changed", "full"),
                "adopt": flag,
                "durability": choice("full", "none"),
            }
        ),
        "trim": Table(
            {
                "keep": nullable(whole(1, _MANY)),
                "keep_per_venv": whole(0, _MANY),
                "max_age": nullable(duration()),
                "max_size": nullable(size()),
                "min_free": nullable(size(zero=True)),
            }
        ),
        "exclude": _PATTERNS,
        "defaults": Table(_COMMON, elsewhere=_ONLY_IN_VENVS),
        "venvs": Named(
            _allowed_name,
            Table(
                {
                    "path": leaf(_path),
                    "locks": listing(leaf(_files), empty=False),
                    **_COMMON,
                    "pin": flag,
                },
                required=("path", "locks"),
            ),
        ),
    },
    required=("venvs",),
)
"""The whole config: every key with the check of its value."""


# --------------------------------------------------------------------------- from values to records


def _assemble(values: Mapping[str, Any], document: Node, report: Report) -> Config:
    """Return the config in *values*, defaults filled in; reports what is wrong only in combination."""
    store = _store(values.get("store", {}), report)
    shared, excludes = values.get("defaults", {}), values.get("exclude", ())
    venvs = {}
    for name, own in values.get("venvs", {}).items():
        if own is WRONG or not {"path", "locks"} <= own.keys():
            continue  # reported already
        merged = _merged(shared, own)
        line, written = document.pairs["venvs"][1].pairs[name]
        line = written.pairs.get("pack", (line,))[0]
        pack = _pack(merged.pop("pack", None), line, f"venvs.{name}.pack", report)
        venvs[name] = _spec(name, merged, store, excludes, pack)
    return Config(report.file, report.places.root, store, TrimPolicy(**values.get("trim", {})), venvs)


def _store(values: dict[str, Any], report: Report) -> StoreConfig:
    places = report.places
    override = places.environ.get("VENVFLOW_STORE")
    if override:
        home = override == "~" or override.startswith("~/")
        values = {**values, "path": places.join(places.home + override[1:] if home else override)}
    data_home = places.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data_home):  # the rule of the XDG specification: relative ones do not count
        data_home = f"{places.home}/.local/share"
    return StoreConfig(**{"path": places.join(f"{data_home}/venvflow"), **values})


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return *own* with what it leaves out taken from *shared*; mappings are joined key by key."""
    merged = {**shared, **own}
    for key in shared.keys() & own.keys():
        if isinstance(shared[key], dict) and isinstance(own[key], dict):
            merged[key] = {**shared[key], **own[key]}
    return merged


def _pack(values: dict[str, Any] | None, line: int, at: str, report: Report) -> PackOptions | None:
    if values is None:
        return None
    kind = values.get("format", "tar.zst")
    level = values.get("level", _USUAL_LEVELS[kind])
    least, most = _LEVELS[kind]
    if not least <= level <= most:
        report.wrong(line, at, f"{kind} has levels from {least} to {most}, not {level}")
    return PackOptions(values.get("output") or report.places.join("dist"), kind, level)


def _spec(
    name: str, values: dict[str, Any], store: StoreConfig, excludes: tuple[str, ...], pack: PackOptions | None
) -> VenvSpec:
    squish, key = values.pop("squish", {}), values.pop("key", {})
    values["locks"] = _flat(values["locks"])
    values["exclude"] = excludes + values.get("exclude", ())
    return VenvSpec(
        name=name,
        link=squish.get("link", store.link),
        min_size=squish.get("min_size", store.min_size),
        key_files=_flat(key.get("files", ())),
        key_env=key.get("env", ()),
        pack=pack,
        **values,
    )


def _flat(groups: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Return all paths in their order, each once."""
    return tuple(dict.fromkeys(path for group in groups for path in group))


# --------------------------------------------------------------------------- where no venv may be


def _refuse_dangers(config: Config, home: str) -> None:
    """Raise ``Refused``, naming every venv whose path could make venvflow delete what is not its own."""
    dangers = list(_dangers(config, home))
    if dangers:
        count = f"{len(dangers)} path{'s' * (len(dangers) > 1)} in the config"
        raise Refused(
            f"{count} cannot be used for venvs:\n" + "\n".join(f"  {danger}" for danger in dangers) + "\n",
            where=shown(config.file),
            state="Nothing has been run or changed",
            hint="Give each venv a directory that belongs to it alone",
        )


def _dangers(config: Config, home: str) -> Iterator[str]:
    survey = _Survey(config.root)
    kept = _kept(config, home, survey)
    places = {name: survey.place(spec.path) for name, spec in config.venvs.items()}
    found = {name: _trespass(config.venvs[name], place, kept) for name, place in places.items()}
    owners: dict[str, str] = {}
    for name, place in places.items():
        if (first := owners.setdefault(place, name)) != name:
            found[name] = found[name] or f"is also the path of {first!r}"
    for name, place in places.items():
        outer = next((owners[above] for above in _ancestors(place) if above in owners), "")
        # A venv at "/" is trouble enough: that all others lie inside it need not be said of each.
        if outer and not found[name] and not found[outer]:
            found[name] = f"lies inside the venv {outer!r}"
    return (f"{name}: {shown(config.venvs[name].path)} {text}" for name, text in found.items() if text)


def _kept(config: Config, home: str, survey: _Survey) -> dict[str, str]:
    """Return what no venv may contain, with its real path."""
    return {
        "your home directory": survey.directory(home),
        "the project": survey.directory(config.root),
        "the store": survey.directory(config.store.path),
        "the config": survey.place(config.file),
        "the tasks' own state": survey.directory(config.state_dir),
    }


def _trespass(spec: VenvSpec, place: str, kept: Mapping[str, str]) -> str:
    """Return what is wrong with the *place* of one venv, or an empty text."""
    for what, path in kept.items():
        if _contains(place, path):
            return f"is or contains {what}"
        if what in {"the store", "the tasks' own state"} and _contains(path, place):
            return f"lies inside {what}"
    lost = next(_own_files(spec), "")
    return f"contains what it is made from or becomes: {shown(lost)}" if lost else ""


def _own_files(spec: VenvSpec) -> Iterator[str]:
    """Yield what belongs to the venv of *spec* and yet would be lost with it."""
    files = (*spec.locks, *spec.key_files, *((spec.pack.output,) if spec.pack else ()))
    return (path for path in files if _contains(spec.path, path))


class _Survey:
    """Finds where paths really are: symlinks resolved, each directory looked at once.

    On a disk that does not tell cases apart, everything is compared in lower case.
    """

    def __init__(self, root: str) -> None:
        self._known: dict[str, str] = {"/": "/"}
        self._fold = str.casefold if _folds_case(root) else str

    def directory(self, path: str) -> str:
        """Return the real path of the absolute, normalised *path*; what does not exist stays as it is."""
        return self._fold(self._real(path))

    def place(self, path: str) -> str:
        """Return *path* with its parents resolved: where its own name really stands."""
        parent, name = os.path.split(path)
        return self._fold(os.path.join(self._real(parent), name))

    def _real(self, path: str) -> str:
        known = self._known
        if path in known:
            return known[path]
        real, walked = "/", ""
        for part in path.split("/")[1:]:
            walked = f"{walked}/{part}"
            if walked not in known:
                known[walked] = _step(real, part)
            real = known[walked]
        return real


def _step(real: str, part: str) -> str:
    path = os.path.join(real, part)
    try:
        is_link = stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return path  # not there, or out of reach: then nothing can be behind it either
    return os.path.realpath(path) if is_link else path


def _folds_case(directory: str) -> bool:
    """Return whether *directory* is found under its name in the other case too."""
    other = directory.swapcase()
    try:
        return other != directory and os.path.samefile(directory, other)
    except OSError:
        return False


def _contains(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def _ancestors(path: str) -> Iterator[str]:
    """Yield the directories above *path*, nearest first, ``/`` last."""
    while path != "/":
        path = os.path.dirname(path)
        yield path
