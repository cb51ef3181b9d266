"""The checks of a config: every key that it may hold, and the function that turns its node into a value.

A check takes a node, its key path for messages and the reading; it returns the value, or reports a problem
and returns ``WRONG``. Small ones are put together: ``Table({"keep": nullable(whole(1, 10)), ...})``.
``venvflow.schema.json`` says the same as :data:`TOP` to editors, and a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from venvflow.config.documents import WRONG, Check, Node, Reading
from venvflow.config.paths import VARIABLE_NAME, PathReader
from venvflow.config.venvs import found_by, many_venvs, one_venv
from venvflow.errors import LONGEST_WORD, clipped
from venvflow.model import FORMATS
from venvflow.pure.names import KNOWN, is_version, nearest, wrong_field
from venvflow.pure.patterns import problems, star_problem
from venvflow.pure.plan import VERBS
from venvflow.pure.signing import is_key_name
from venvflow.pure.units import parse_duration, parse_size

_PLAIN_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_OF_DISTRIBUTIONS = re.compile(r"[][A-Za-z0-9._*?!-]{1,100}")
_VENV_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,99}")
_MOST_SUGGESTIONS = 100
_COMMANDS_OF_DOIT = frozenset(
    ("auto", "clean", "dumpdb", "forget", "help", "ignore", "info", "list", "reset-dep", "run", "strace")
)

# --------------------------------------------------------------------------- single values


def leaf(read: Callable[[Node, PathReader], Any]) -> Check:
    """Make a check of a function that reads one node and says what is wrong by ``ValueError``."""

    def check(node: Node, at: str, reading: Reading) -> Any:
        try:
            return read(node, reading.paths)
        except ValueError as error:
            return reading.wrong(node.line, at, str(error))

    return check


def _text(node: Node) -> str:
    """Return the text of *node*, which may be empty.

    What YAML takes for something else is refused: ``3.10`` would be the number 3.1, ``no`` false.
    """
    if node.kind in {"list", "mapping", "nothing"}:
        is_field = node.kind == "mapping" and all(each.kind == "nothing" for each in node.pairs.values())
        hint = ": text that begins with { needs quotes" if is_field else ""
        raise ValueError(f"expected text, found {node}{hint}")
    if node.kind != "text":
        raise ValueError(
            f'YAML reads {clipped(node.text)} as {node.noun}: write it in quotes, "{clipped(node.text)}"'
        )
    if "\0" in node.text:
        raise ValueError("text cannot hold a NUL character")
    return node.text


def _name(node: Node) -> str:
    """Return the text of *node*, which must not be empty."""
    if not (text := _text(node)):
        raise ValueError("expected text, found empty text")
    return text


def _flag(node: Node, _paths: PathReader) -> bool:
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


def whole(least: int, most: int) -> Check:
    """Check for a whole number from *least* to *most*."""

    def read(node: Node, _paths: PathReader) -> int:
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
    return leaf(lambda node, _paths: parse_size(_quantity(node), zero=zero))


def choice(*words: str) -> Check:
    """Check for one of *words*."""

    def check(node: Node, at: str, reading: Reading) -> Any:
        if node.kind == "text" and node.text in words:
            return node.text
        hint = hint_for(node.text if node.kind == "text" else "", words, reading)
        return reading.wrong(node.line, at, f"{node} is not possible here; {hint}")

    return check


def hint_for(word: str, known: Collection[str], reading: Reading) -> str:
    """Return help on which of the *known* words may have been meant by *word*."""
    # Comparing is slow: a hostile file of many or very long wrong words must not take minutes.
    if len(reading.problems) < _MOST_SUGGESTIONS and len(word) <= LONGEST_WORD:
        for near in nearest(word, known):
            return f"did you mean {near!r}?"
    return "known are: " + ", ".join(known)


def nullable(check: Check) -> Check:
    """Check that also accepts a written-out ``null`` (or ``~``), with the value ``None``."""

    def either(node: Node, at: str, reading: Reading) -> Any:
        return None if node.kind == "nothing" and node.text else check(node, at, reading)

    return either


# --------------------------------------------------------------------------- lists and mappings


def maybe_none(check: Check) -> Check:
    """Check for a list that may be left empty, with what would follow in comments; the value is ``()``."""

    def either(node: Node, at: str, reading: Reading) -> Any:
        return () if node.kind == "nothing" else check(node, at, reading)

    return either


def listing(check: Check, *, empty: bool = True, unique: bool = False) -> Check:
    """Check for a list of what *check* accepts; the value is a tuple."""

    def each(node: Node, at: str, reading: Reading) -> Any:
        if node.kind != "list":
            return reading.wrong(node.line, at, f"expected a list, such as [a, b], found {node}")
        if not (node.items or empty):
            return reading.wrong(node.line, at, "the list must not be empty")
        values = [check(item, f"{at}[{index}]", reading) for index, item in enumerate(node.items)]
        if unique and len(set(values)) < len(values):
            return reading.wrong(node.line, at, "the list has an item twice")
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

    def __call__(self, node: Node, at: str, reading: Reading) -> Any:
        """Check *node* and everything below it."""
        if node.kind != "mapping":
            return reading.wrong(node.line, at, f"expected a mapping (key: value), found {node}")
        values = {}
        for key, below in node.pairs.items():
            if check := self.fields.get(key):
                value = check(below, f"{at}.{key}" if at else key, reading)
                if value is not WRONG:
                    values[key] = value
            else:
                hint = self.elsewhere.get(key) or hint_for(key, self.fields, reading)
                reading.wrong(node.lines[key], at, f"unknown key {clipped(key)!r}; {hint}")
        for key in self.required:
            if key not in node.pairs:
                reading.wrong(node.line, at, f"the key {key!r} is missing")
        return values


@dataclass(frozen=True, slots=True)
class Named:
    """Check for a mapping from names to what *check* accepts; *allow* judges each name by ``ValueError``."""

    allow: Callable[[str, list[str]], None]
    check: Check

    def __call__(self, node: Node, at: str, reading: Reading) -> Any:
        """Check the names and what belongs to them; the value is a dict.

        Nothing is no names: what would follow may be in comments.
        """
        if node.kind == "nothing":
            return {}
        if node.kind != "mapping":
            return reading.wrong(node.line, at, f"expected a mapping of names, found {node}")
        values: dict[str, Any] = {}
        for key, below in node.pairs.items():
            try:
                self.allow(key, list(values))
            except ValueError as error:
                reading.wrong(node.lines[key], at, str(error))
            values[key] = self.check(below, f"{at}.{clipped(key)}", reading)
        return values


# --------------------------------------------------------------------------- the values of single keys


def _format_version(node: Node, _paths: PathReader) -> int:
    if (number := _number(node)) != 1:
        raise ValueError(f"this venvflow reads version 1 of the config, found {number}")
    return number


def _path(node: Node, paths: PathReader) -> str:
    return paths.absolute(_name(node))


def _store_path(node: Node, paths: PathReader) -> str:
    # What VENVFLOW_STORE overrides may well name variables that only exist elsewhere.
    return _name(node) if paths.environ.get("VENVFLOW_STORE") else _path(node, paths)


_SCHEMES = ("s3", "gs", "az", "file", "https", "http")
_KEY = re.compile(r"ed25519:[A-Za-z0-9+/]{43}=")


def _remote_url(node: Node, paths: PathReader) -> str:
    """Return the URL of a remote, variables filled in; it names no user and no password."""
    return remote_url(paths.expand(_name(node)))


def remote_url(text: str) -> str:
    """Return the URL of a remote without a slash at its end; raises ``ValueError`` for what is none."""
    scheme, colon, rest = text.partition("://")
    if not colon or scheme not in _SCHEMES or not rest.strip("/"):
        known = ", ".join(f"{each}:" for each in _SCHEMES)
        raise ValueError(f"{clipped(text)} is not a URL ({known}) such as s3://bucket/prefix")
    if scheme == "file" and not rest.startswith("/"):
        raise ValueError(f"{clipped(text)} needs a third slash: file:///mnt/share")
    if scheme != "file" and {"", ".", ".."} & {*rest.rstrip("/").split("/")}:
        raise ValueError(f"{clipped(text)} has a part that is empty, . or ..: perhaps a variable is empty")
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        raise ValueError(
            "the URL must not hold a user, a password, a query or a fragment: see the environment"
        )
    return text.rstrip("/")


def _endpoint(node: Node, paths: PathReader) -> str:
    text = paths.expand(_name(node))
    scheme, colon, host = text.partition("://")
    if not colon or scheme not in ("http", "https") or not host or set("@?#") & set(host):
        raise ValueError(f"{clipped(text)} is not the URL of a server, such as https://s3.example.org")
    return text.rstrip("/")


def _public_key(node: Node, _paths: PathReader) -> str:
    if _KEY.fullmatch(text := _name(node)) is None:
        raise ValueError(f'{clipped(text)} is not a public key, such as "venvflow keygen" prints')
    return text


def _issuer(text: str, _others: list[str]) -> None:
    if not is_key_name(text):
        raise ValueError(f"{clipped(text)} cannot be the name of a key: letters, digits and ._+- make one")


def _day(node: Node, _paths: PathReader) -> float:
    """Return the beginning of a day, in UTC, in seconds since 1970."""
    from datetime import datetime, timezone  # noqa: PLC0415 - few configs have a day

    try:
        return datetime.strptime(node.text, "%Y-%m-%d").replace(tzinfo=timezone.utc).timestamp()
    except (TypeError, ValueError):
        raise ValueError(f"expected a day, such as 2026-11-01, found {node}") from None


def _files(node: Node, paths: PathReader) -> tuple[str, ...]:
    return paths.files(_name(node))


def _found(node: Node, paths: PathReader) -> tuple[str, ...]:
    return found_by(_name(node), paths)


def _member(node: Node, _paths: PathReader) -> str:
    if problem := star_problem(text := _name(node)):
        raise ValueError(f"{clipped(text)} {problem}")
    return text


def _venv_name(node: Node, _paths: PathReader) -> str:
    _allowed_name(text := _name(node), [])
    return text


def _python(node: Node, paths: PathReader) -> str:
    text = _name(node)
    if is_version(text):
        return text
    if "/" in text or text.startswith(("~", "${")):
        return paths.absolute(text)
    raise ValueError(f"expected a version such as 3.12, or a path with a slash, found {node}")


def _variable(node: Node, _paths: PathReader) -> str:
    if not VARIABLE_NAME.fullmatch(text := _name(node)):
        raise ValueError(f"expected the name of an environment variable, found {node}")
    return text


def _pattern(node: Node, _paths: PathReader) -> str:
    if found := problems([text := _name(node)]):
        raise ValueError(found[0])
    return text


def _with_fields(node: Node, *more: str) -> str:
    if found := wrong_field(text := _name(node), more):
        raise ValueError(f"{clipped(found)!r} cannot be filled in; known are {KNOWN}")
    return text


def _archive_name(node: Node, _paths: PathReader) -> str:
    text = _with_fields(node, "layer", "digest")
    if "/" in text or text.startswith("."):
        raise ValueError(
            f"expected the name of a file, no dot at its start, found {node}; output: is for its directory"
        )
    if ending := next((each for each in FORMATS if text.endswith(f".{each}")), ""):
        raise ValueError(f"{clipped(text)!r} must not end in .{ending}: format: adds that")
    return text


def _distributions(node: Node, _paths: PathReader) -> str:
    if not _OF_DISTRIBUTIONS.fullmatch(text := _name(node)):
        raise ValueError(f"expected the name of a distribution, or a pattern such as nvidia-*, found {node}")
    return text


def _arcroot(node: Node, _paths: PathReader) -> str:
    text = _with_fields(node)
    if any(part in ("", ".", "..") for part in text.split("/")):
        raise ValueError(f"expected the name of a directory in the archive, found {node}")
    return text


_THERE = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[^/]+)+")


def _python_there(node: Node, _paths: PathReader) -> str:
    if not _THERE.fullmatch(text := _name(node)):
        raise ValueError(
            f"expected the path that it has where the archive is unpacked, from / on, found {node}"
        )
    return text


def _part(node: Node, _paths: PathReader) -> str:
    if not _PART.fullmatch(text := _name(node)):
        raise ValueError(f"expected a name: letters, digits, dots, dashes and underscores, found {node}")
    return text


def _packages(node: Node, at: str, reading: Reading) -> Any:
    return (_PARTS if node.kind == "list" else choice("all"))(node, at, reading)


def _project(node: Node, paths: PathReader) -> str:
    """Return the path of a local project below the root, as it is in every checkout."""
    path = paths.absolute(text := _name(node))
    if path != paths.root and not path.startswith(f"{paths.root}/"):
        raise ValueError(f"{clipped(text)} lies outside the project: other checkouts would not have it")
    if re.search(r"[{}]", below := path[len(paths.root) + 1 :]):
        raise ValueError("the path cannot have braces in it: commands would fill them in")
    return below or "."


def _prompt(node: Node, _paths: PathReader) -> str:
    if not (text := _name(node)).isprintable() or text == "." or re.search(r"[{}]", text):
        raise ValueError(f"expected a word or more in one line, without braces, found {node}")
    return text


def _build(node: Node, at: str, reading: Reading) -> Any:
    return (_COMMANDS if node.kind == "list" else _BUILDERS)(node, at, reading)


def _command(node: Node, at: str, reading: Reading) -> Any:
    words = _WORDS(node, at, reading)
    if words is not WRONG and not words[0]:
        return reading.wrong(node.line, at, "the first word of a command must name a program")
    return words


def _allowed_name(text: str, others: list[str], what: str = "a venv") -> None:
    """Judge the name of *what*: it becomes a task's name, and that of a venv a directory's."""
    if not _VENV_NAME.fullmatch(text):
        raise ValueError(
            f"{clipped(text)!r} cannot be the name of {what}: at most 100 letters, digits, dots, dashes, "
            "underscores and plus signs, the first of them no dot or dash"
        )
    if text.lower().startswith("state.db"):
        raise ValueError(f"{text!r} cannot be the name of {what}: the tasks keep their own state under it")
    if same := next((other for other in others if other.lower() == text.lower()), ""):
        raise ValueError(f"{text!r} and {same!r} differ only in case: some disks cannot tell them apart")


def _allowed_set(text: str, others: list[str]) -> None:
    """Judge the name of a set of venvs: "doit NAME" must mean it, and nothing else."""
    _allowed_name(text, others, "a set")
    if text in (*VERBS, "push", "trim"):
        raise ValueError(f"{text!r} cannot be the name of a set: it is a task")
    if text in _COMMANDS_OF_DOIT:
        raise ValueError(f'{text!r} cannot be the name of a set: "doit {text}" is a command')


# --------------------------------------------------------------------------- all keys

_WORD = leaf(lambda node, _paths: _text(node))
_WORDS = listing(_WORD, empty=False)
_FLAG = leaf(_flag)
_PATH = leaf(_path)
_LINKS = listing(choice("reflink", "hardlink", "copy", "symlink"), empty=False, unique=True)
_PATTERNS = listing(leaf(_pattern))
_BUILDERS = choice("auto", "uv", "pip", "poetry", "pdm", "pipenv")
_COMMANDS = listing(_command, empty=False)
_PARTS = listing(leaf(_part), unique=True)
_MANY = 1_000_000

_COMMON: dict[str, Check] = {
    "python": leaf(_python),
    "build": _build,
    "groups": _PARTS,
    "extras": _PARTS,
    "dev": _FLAG,
    "packages": _packages,
    "editable": listing(leaf(_project), unique=True),
    "prompt": leaf(_prompt),
    "system_site_packages": _FLAG,
    "key": Table({"files": listing(leaf(_files)), "env": listing(leaf(_variable), unique=True)}),
    "bytecode": choice("canonical", "keep", "none"),
    "exclude": _PATTERNS,
    "restore": _FLAG,
    "squish": Table({"link": _LINKS, "min_size": size(zero=True), "private": _PATTERNS}),
    "pack": nullable(
        Table(
            {
                "format": choice(*sorted(FORMATS)),
                "level": whole(0, 19),
                "output": _PATH,
                "name": leaf(_archive_name),
                "arcroot": leaf(_arcroot),
                "threads": whole(1, 64),
                "bundle_python": _FLAG,
                "layers": listing(listing(leaf(_distributions), empty=False), empty=False),
                "python": leaf(_python_there),
            }
        )
    ),
    "check": listing(_WORD),
}

_OF_A_VENV: dict[str, Check] = {
    "path": _PATH,
    "locks": listing(leaf(_files), empty=False),
    **_COMMON,
    "pin": _FLAG,
}

_ONLY_IN_VENVS = {
    "path": "each venv has a path of its own",
    "locks": "each venv has lock files of its own",
    "pin": "pinning all venvs would switch trim off: pin single ones",
}

_SECONDS = leaf(lambda node, _paths: parse_duration(_quantity(node)))


def _grace(node: Node, _paths: PathReader) -> int:
    """Return a grace: more than twice what a push may take, whichever config it goes by."""
    text = _quantity(node)
    if str(text).rstrip()[-1:] in ("s", "m"):
        raise ValueError(f"{clipped(str(text))} may be too short: write hours, days or weeks, such as 2d")
    return parse_duration(text)


_REMOTE = Table(
    {
        "url": leaf(_remote_url),
        "endpoint": leaf(_endpoint),
        "region": _WORD,
        "mode": choice("off", "read", "write", "auto"),
        "keys": Named(_issuer, leaf(_public_key)),
        "unsigned": _FLAG,
        "not_before": leaf(_day),
        "required": _FLAG,
        "silence": _SECONDS,
        "limit": _SECONDS,
        "connections": whole(1, 64),
        "origin": _FLAG,
        "keep": Table({"max_age": nullable(_SECONDS), "max_size": nullable(size()), "grace": leaf(_grace)}),
    },
    required=("url",),
    elsewhere={
        "signing_key": "a secret does not belong into this file: give it as VENVFLOW_SIGNING_KEY",
        "secret": "a secret does not belong into this file: give it as VENVFLOW_SIGNING_KEY",
    },
)

TOP = Table(
    {
        "version": leaf(_format_version),
        "store": Table(
            {
                "path": leaf(_store_path),
                "link": _LINKS,
                "min_size": size(zero=True),
                "verify": choice("changed", "full"),
                "adopt": _FLAG,
                "durability": choice("full", "none"),
                "remote": nullable(_REMOTE),
            }
        ),
        "trim": Table(
            {
                "keep": nullable(whole(1, _MANY)),
                "keep_per_venv": whole(0, _MANY),
                "max_age": nullable(_SECONDS),
                "max_size": nullable(size()),
                "min_free": nullable(size(zero=True)),
            }
        ),
        "exclude": _PATTERNS,
        "ignore": _PATTERNS,
        "defaults": Table(_COMMON, elsewhere=_ONLY_IN_VENVS),
        "venvs": Named(
            _allowed_name,
            one_venv(Table(_OF_A_VENV, required=("locks",))),
        ),
        "each": maybe_none(
            listing(
                many_venvs(
                    Table({"name": leaf(_venv_name), **_OF_A_VENV}), listing(leaf(_found), empty=False)
                )
            )
        ),
        "sets": Named(_allowed_set, listing(leaf(_member), empty=False)),
    },
)
"""The whole config: every key with the check of its value."""
