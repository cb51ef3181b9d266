#!/usr/bin/env python3
"""Make an unpacked virtual environment work where it lies, with the interpreter that is there.

    python3 postinstall.py [--python PATH] [--project DIR] [--compile] [--force] [--dry-run]

It links the interpreter, fills the environment's own path into every file that names it, and recomputes the
lines of RECORD files that describe what it wrote. Scripts and activation files find their place themselves:
they work before this is run, if the interpreter that the archive was made for is there. What it needs to
know lies beside it in .venvflow-pack. It needs nothing but Python 3.8 or newer and asks no network.

Nothing there is believed: all is read and counted before anything is written, no link is followed on the way
to a file, and no program of the environment is run.

Exit codes: 0 done, 2 wrong words, 3 no fitting interpreter or a file that cannot be written, 4 damaged.
"""

# This file is put into archives as it is, so it imports nothing of venvflow. How local paths are written, and
# what pack.json may say, is known here only: whoever restores, unpacks, compares or packs asks this module.

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # the environment is no place to import from: nothing in it is to be run
    sys.path[:] = [each for each in sys.path if each != os.path.dirname(os.path.realpath(__file__))]

import base64
import errno
import hashlib
import json
import marshal
import re
import shlex
import stat
import unicodedata
from contextlib import contextmanager, suppress
from importlib.util import MAGIC_NUMBER
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

METADATA = ".venvflow-pack"
POSTINSTALL = "postinstall.py"
FORMAT = 3
OK, USAGE, ENVIRONMENT, DAMAGED = 0, 2, 3, 4


class Problem(Exception):
    """Why nothing more can be done; *code* is the exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class InvalidPack(ValueError):
    """What an archive says of itself makes no sense, or is not safe; the text says how."""


def shown(text: str) -> str:
    """Return *text* as one line that moves no cursor and hides nothing: what does not print is escaped."""
    raw = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in raw)


# --------------------------------------------------------------------------- filling in


class Places(NamedTuple):
    """The local paths that files name, each absolute."""

    venv: str
    project: str
    python: str

    def text(self, kind: str) -> str:
        """Return what fills a slot of *kind*."""
        return {
            "venv": self.venv,
            "name": os.path.basename(self.venv),
            "project": self.project,
            "python": self.python,
            "home": os.path.dirname(self.python),
        }[kind]


SHEBANGS = ("shebang", "first-line")  # the second one only in archives
LONGEST_SHEBANG = 127  # bytes of a first line that every kernel reads whole


def fill(
    data: bytes, slots: Iterable[Sequence[Any]], places: Places, digest_of: Callable[[str], bytes]
) -> bytes:
    """Return the template *data* with its slots, rows of offset, kind, form and argument, filled in.

    *digest_of* returns how a RECORD is to describe the file at a path.
    """
    return assembled(
        data, slots, lambda kind, form, argument: written(kind, form, argument, places), digest_of
    )


def assembled(
    data: bytes,
    slots: Iterable[Sequence[Any]],
    word: Callable[[str, str, str], bytes],
    digest_of: Callable[[str], bytes],
) -> bytes:
    """Return the template *data* with what *word* returns for kind, form and argument of each slot."""
    pieces = []
    position = 0
    for offset, kind, form, argument in slots:
        if not position <= offset <= len(data):
            raise ValueError(f"a slot at {offset} does not fit a template of {len(data)} bytes")
        pieces.append(data[position:offset])
        pieces.append(digest_of(argument) if form == "record" else word(kind, form, argument))
        position = offset
    return b"".join(pieces) + data[position:]


def no_digest(path: str) -> bytes:
    """Refuse to describe a file where no description belongs."""
    raise ValueError("a link that describes " + path)


def written(kind: str, form: str, argument: str, places: Places) -> bytes:
    """Return what goes into a slot that describes no file."""
    return shebang(places.venv, argument) if form in SHEBANGS else WRITERS[form](places.text(kind))


def shebang(venv: str, argument: str) -> bytes:
    """Return a first line that runs a program of the environment, through others where a kernel could not.

    *argument* is that of :func:`parted`. A kernel takes several options for one. The trampoline is what pip
    and uv write too: a shell runs its second line, Python sees a string. For another program, ``env`` splits
    the line.
    """
    words, below, options = parted(argument)
    interpreter = f"{venv}/{below}"
    line = os.fsencode(f"#!{interpreter}{options}\n")
    is_plain = (
        not (words or re.search(r"\s", interpreter))
        and is_text(interpreter)
        and not re.search(r"[\s'\"\\$`]", options[1:])
    )
    if is_plain and len(line) <= LONGEST_SHEBANG:
        return line
    if not is_python(below):
        return os.fsencode(f"#!/usr/bin/env -S {words}{word_for_env(interpreter)}{options}\n")
    env = f"env {words}" if words else ""
    word = word_in_trampoline(interpreter)
    return os.fsencode(f"#!/bin/sh\n'''exec' {env}{word}{options} \"$0\" \"$@\"\n' '''\n")


def parted(argument: str) -> tuple[str, str, str]:
    """Return the parts of what a first line runs: ``A=1 bin/python -I``.

    They are words for ``env``, each with a space, the program's path below the environment, and its options
    behind a space.
    """
    words = re.match(r"(?:(?:-i|[A-Za-z_]\w*=[\w.,:@/+-]*) )*", argument, re.ASCII)
    start = words.end() if words else 0
    below, space, options = argument[start:].partition(" ")
    return argument[:start], below, space + options


def is_python(path: str) -> bool:
    """Return whether the program at *path* runs Python, by its name."""
    return re.search(r"(?:python|pypy)[^/]*\Z", path) is not None


def word_for_env(path: str) -> str:
    """Return *path* as one word of ``env -S``, on one line; shells read it alike."""
    pieces = re.findall(r"'|\\|[^'\\]+", re.sub(r"[\x00-\x1f\x7f]", " ", path))
    return "".join({"'": '"\'"', "\\": '"\\\\"'}.get(piece, f"'{piece}'") for piece in pieces)


def is_text(path: str) -> bool:
    """Return whether Python can read *path* in a source file: it must be UTF-8, and control nothing."""
    return re.search(r"[\x00-\x1f\x7f\udc80-\udcff]", path) is None


def word_in_trampoline(interpreter: str) -> str:
    """Return a shell word that stands in a Python string: backslashes and odd bytes as octal numbers."""
    if "\\" not in interpreter and is_text(interpreter):
        return shlex.quote(interpreter)
    octal = re.sub(rb"[^A-Za-z0-9/._-]", lambda match: b"\\%03o" % match[0][0], os.fsencode(interpreter))
    return "\"$(printf '{}')\"".format(octal.decode("ascii"))


def shell_word(text: str) -> bytes:
    """Return *text* as one word that sh, bash, zsh, csh and fish all read alike.

    Single quotes keep everything but themselves, a backslash (which fish reads there) and an exclamation
    mark (which csh reads there): these stand outside. A line break in a csh script is an error whatever
    is done; csh stops there.
    """
    if re.fullmatch(r"[A-Za-z0-9@+=:,./_-]+", text):
        return os.fsencode(text)
    pieces = re.findall(r"'+|[\\!]|[^'\\!]+", text)
    return os.fsencode("".join(shell_piece(piece) for piece in pieces) or "''")


def shell_piece(piece: str) -> str:
    """Return a run of single quotes, one backslash or exclamation mark, or anything else, quoted."""
    if piece.startswith("'"):
        return f'"{piece}"'
    return f"\\{piece}" if piece in ("\\", "!") else f"'{piece}'"


def python_literal(text: str) -> bytes:
    """Escape *text* for the inside of a Python string literal, in either kind of quotes, f-strings too."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace('"', '\\"')
    escaped = escaped.replace("{", "\\x7b").replace("}", "\\x7d")
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped).encode("utf-8")


def percent(text: str) -> bytes:
    """Return *text* as the path of a URL."""
    from urllib.parse import quote  # noqa: PLC0415 - few files have URLs

    return quote(os.fsencode(text)).encode("ascii")


def percent_all(text: str) -> bytes:
    """Return *text* as a value in the query of a URL, where slashes are encoded, too."""
    return percent(text).replace(b"/", b"%2F")


WRITERS: dict[str, Callable[[str], bytes]] = {
    "raw": os.fsencode,
    "line": lambda text: os.fsencode(text).replace(b"\n", b" ").replace(b"\r", b" "),
    "sh": shell_word,
    "url": percent,
    "component": percent_all,
    "py": python_literal,
    "literal": lambda text: b'"' + python_literal(text) + b'"',
    "json": lambda text: json.dumps(text)[1:-1].encode("ascii"),
}
KINDS = ("venv", "name", "project", "python", "home")


def record_fields(data: bytes) -> bytes:
    """Return hash and size of *data* as a RECORD spells them."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return b"sha256=%s,%d" % (digest, len(data))


# --------------------------------------------------------------------------- wherever it lies

SCRIPT = r"""#!/bin/sh
''':' # This is sh and Python: the interpreter of its environment runs it, wherever that lies.
_venvflow=$0
[ ! -L "$0" ] || _venvflow=$(readlink -f -- "$0")
[ -x "${_venvflow%/*}/<below>" ] || [ ! -x "${0%/*}/<below>" ] || _venvflow=$0 # it is a link into a store
case $_venvflow in */*) _venvflow=${_venvflow%/*} ;; *) _venvflow=. ;; esac
[ -x "$_venvflow/<below>" ] || {
    _venvflow=$(readlink -f -- "$_venvflow/<root>")
    echo "$0: <problem>" >&2
    exit 127
}
exec <env>"$_venvflow/<below>"<options> "$0" "$@"
' '''
"""
"""How a script begins that finds its interpreter from where it lies itself, behind a link if need be.

It starts no other program for that, unless it is called by a link.
"""

PROBLEM = (
    'no Python at $_venvflow/bin/python. Run: $(cd "$_venvflow/lib" && echo py*) $_venvflow/postinstall.py'
)


def script_head(form: str, path: str, argument: str) -> bytes:
    """Return how the script at *path* begins so that it runs wherever the environment lies.

    *form* is ``shebang``, or ``first-line`` if it may be one line only. *argument* is one for
    :func:`parted`. Nothing, for what cannot stand in it: quotes of a shell, which are strings of Python.
    """
    env, below, options = parted(argument)
    if unsafe_name(below) or not re.fullmatch(r"[\w.+/-]+", below) or re.search(r"'''|\\", options):
        return b""
    up = "../" * path.count("/")
    beside = os.path.dirname(path) == os.path.dirname(below)
    words = {
        "<env>": "env " + env if env else "",
        "<below>": os.path.basename(below) if beside else up + below,
        "<root>": up,
        "<options>": options,
        "<problem>": PROBLEM,
    }
    text = SCRIPT if form == "shebang" else FIRST_LINE
    head = os.fsencode(re.sub("<[a-z]+>", lambda match: words[match[0]], text))
    unfit = form == "first-line" and ("'" in options or len(head) > LONGEST_SHEBANG)
    return b"" if unfit else head


FIRST_LINE = (
    """#!/usr/bin/env -S sh -c 'exec <env>"$(dirname "$(readlink -f "$0")")"/<below><options> "$0" "$@"'\n"""
)
"""The same in one line, that Python takes for a comment: for scripts whose docstring is what they say."""


LOST = "this shell does not tell where this file lies. Read it in bash, zsh or fish."


class Finder(NamedTuple):
    """How a file that a shell reads finds its place.

    It begins with *head*, which sets a variable; then *words* stand for local paths that are written in the
    form *form*.
    """

    form: str
    words: dict[str, bytes]
    head: bytes


MARK = b"# This file finds the environment wherever it lies"
"""How all activation files begin that do."""

SH_HEAD = r"""# This file finds the environment wherever it lies.
if [ -n "${BASH_VERSION-}" ]; then
    _venvflow=${BASH_SOURCE-}
elif [ -n "${ZSH_VERSION-}" ]; then
    eval '_venvflow=${(%):-%x}'
else
    case ${KSH_VERSION-} in
    *93*) eval '_venvflow=${.sh.file}' ;;
    *) # a shell that does not say which file it reads has it open
        _venvflow=
        read -r _venvflow_pid _venvflow_rest 2> /dev/null < /proc/self/stat
        for _venvflow_file in /proc/"$_venvflow_pid"/fd/*; do
            case $(readlink -- "$_venvflow_file") in
            */bin/activate) _venvflow=$_venvflow_file ;;
            esac
        done
        unset _venvflow_pid _venvflow_rest _venvflow_file
        ;;
    esac
fi
if [ -z "$_venvflow" ]; then
    echo "activate: <lost>" >&2
    return 1
fi
_venvflow=$(readlink -f -- "$_venvflow")
_venvflow=${_venvflow%/*/*}
if [ ! -x "$_venvflow/bin/python" ]; then
    echo "activate: <problem>" >&2
    return 1
fi
"""

CSH_HEAD = r"""# This file finds the environment wherever it lies: the shell has it open.
set _venvflow = "`env QUOTING_STYLE=literal ls -l /proc/$$/fd | sed -n 's,.*> \(/.*\)/bin/activate.csh,\1,p'`"
if ("$_venvflow:q" == "") then
    sh -c 'echo "activate: <lost>" >&2'
    exit 1
endif
if (! -x "$_venvflow:q/bin/python") then
    sh -c '_venvflow=$1; echo "activate: <problem>" >&2' sh "$_venvflow:q"
    exit 1
endif
"""

FISH_HEAD = r"""# This file finds the environment wherever it lies.
set -g _venvflow (string replace -r '/[^/]*/[^/]*$' '' -- (realpath -- (status filename)))
if not test -x "$_venvflow/bin/python"
    sh -c '_venvflow=$1; echo "activate: <problem>" >&2' sh "$_venvflow"
    return 1
end
"""

NU_HEAD = r"""# This file finds the environment wherever it lies.
const _venvflow = (path self | path dirname | path dirname)
const _venvflow_python = if ($_venvflow | path join bin python | path exists) {} else { # without one:
    error make {msg: $"no Python in ($_venvflow). Run postinstall.py, which is there."} }
"""

XONSH_HEAD = r"""# This file finds the environment wherever it lies.
_venvflow = __import__("os").path.realpath(__file__).rsplit("/", 2)[0]
if not __import__("os").access(f"{_venvflow}/bin/python", 1):
    raise FileNotFoundError(f"no Python at {_venvflow}/bin/python. Run: python3 {_venvflow}/postinstall.py")
"""


def finder(form: str, venv: str, name: str, head: str) -> Finder:
    """Return how a file finds its place, whose words for it and for its *name* are these."""
    words = {"venv": venv.encode("ascii"), "name": name.encode("ascii")}
    text = head.replace("<problem>", PROBLEM).replace("<lost>", LOST)
    return Finder(form, words, text.encode("ascii"))


FINDERS = {
    "bin/activate": finder("sh", '"$_venvflow"', '"${_venvflow##*/}"', SH_HEAD),
    "bin/activate.csh": finder("sh", '"$_venvflow:q"', '"$_venvflow:t:q"', CSH_HEAD),
    "bin/activate.fish": finder("sh", '"$_venvflow"', '(basename -- "$_venvflow")', FISH_HEAD),
    "bin/activate.nu": finder("literal", "$_venvflow", "($_venvflow | path basename)", NU_HEAD),
    "bin/activate.xsh": finder("literal", "_venvflow", '_venvflow.rpartition("/")[2]', XONSH_HEAD),
}
"""The activation files that find their place, by path; that of PowerShell does so by itself."""

FORMS = hashlib.sha256(repr((SCRIPT, FIRST_LINE, sorted(FINDERS.items()))).encode("ascii")).hexdigest()
"""What the bytes of files that find their place depend on besides their templates."""


def portable(
    path: str, data: bytes, slots: Iterable[Sequence[Any]], places: Places, digest_of: Callable[[str], bytes]
) -> bytes:
    """Return the template *data* of the file at *path*, filled in so that it is right wherever it lies.

    What has no such form names *places*, as do links.
    """

    def word(kind: str, form: str, argument: str) -> bytes:
        return portably(path, kind, form, argument, places)

    return head_of(path) + assembled(data, slots, word, digest_of)


def head_of(path: str) -> bytes:
    """Return what the file at *path* begins with, to find its place."""
    return FINDERS[path].head if path in FINDERS else b""


def portably(path: str, kind: str, form: str, argument: str, places: Places) -> bytes:
    """Return what goes into a slot of the file at *path* that describes no file."""
    return portable_word(path, kind, form, argument) or written(kind, form, argument, places)


def portable_word(path: str, kind: str, form: str, argument: str) -> bytes:
    """Return what goes into a slot that is right wherever the environment lies; nothing if nothing is."""
    if form in SHEBANGS:
        return script_head(form, path, argument)
    if path in FINDERS:
        return FINDERS[path].words.get(kind, b"") if form == FINDERS[path].form else b""
    if path.endswith(".pth") and (kind, form) == ("venv", "line"):  # is looked for from where the file lies
        return b"/".join([b".."] * path.count("/"))
    return b""


def finds_its_place(path: str, slots: Iterable[Sequence[Any]]) -> bool:
    """Return whether something in the file at *path* is written so that it is right wherever it lies."""
    return path in FINDERS or any(
        bool(portable_word(path, kind, form, argument)) for _, kind, form, argument in slots
    )


def place_needed(path: str, slots: Iterable[Sequence[Any]]) -> bool:
    """Return whether the file at *path* does not do its work before it is filled in for a place.

    What only tells where something came from does no work, nor does a script of Windows.
    """
    if path == "pyvenv.cfg" or path.endswith(".bat") or ".dist-info/" in path:
        return False
    return any(
        kind in ("venv", "project") and form != "record" and not portable_word(path, kind, form, argument)
        for _, kind, form, argument in slots
    )


# --------------------------------------------------------------------------- what the archive says


class SlotRow(NamedTuple):
    """A position in a template, what goes there, and how it is written."""

    offset: int
    kind: str
    form: str
    argument: str


class TemplateRow(NamedTuple):
    """A file to fill in: its bytes are *length* bytes of the blob from *start* on."""

    path: str
    executable: bool
    start: int
    length: int
    slots: tuple[SlotRow, ...]


class LinkRow(NamedTuple):
    """A link to make: with a slot it leads to a local path, without one to something beside it."""

    path: str
    target: str
    slots: tuple[SlotRow, ...]


class Announced(NamedTuple):
    """What comes behind pack.json in the archive: *entries* are directories, files and links together."""

    bytes: int
    directories: int
    entries: int
    files: int
    links: int


class PartRow(NamedTuple):
    """Another part of the environment: of which *layer*, what names its *content*, and its *archive*.

    *sha256* is that of the archive, *announced* all that is in it.
    """

    layer: str
    content: str
    archive: str
    sha256: str
    announced: Announced

    @property
    def mark(self) -> str:
        """Return the path of the file that only this part brings."""
        return part_mark(self.content)

    def __str__(self) -> str:
        """Return what people call it."""
        return f"{shown(self.archive)} (layer {shown(self.layer)})"


def part_mark(content: str) -> str:
    """Return the path of the file that says that the part named by *content* was unpacked."""
    return f"{METADATA}/part-{content}.json"


class Pack(NamedTuple):
    """What pack.json says, every part of it checked. The blob of all templates has *length* bytes.

    Of an environment in several archives, it lies in the last one; *parts* are the others.
    """

    announced: Announced
    description: dict[str, Any]
    distributions: list[Any]
    editable: list[tuple[str, bool]]  # whose code is not here; whether it is in the project
    links: tuple[LinkRow, ...]
    needs: dict[str, str]  # of an interpreter
    parts: tuple[PartRow, ...]
    templates: tuple[TemplateRow, ...]
    templates_sha256: str

    @property
    def python(self) -> str:
        """Return where links to the interpreter lead before anything is filled in; empty if nowhere."""
        return self.needs.get("executable", "")

    @property
    def place(self) -> str:
        """Return what files name as their place before anything is filled in; empty if that is made up."""
        place: str = self.description.get("place", "")
        return place

    @property
    def length(self) -> int:
        """Return how many bytes all templates have together."""
        return sum(template.length for template in self.templates)

    @property
    def lengths(self) -> list[tuple[str, int, Sequence[Any]]]:
        """Return path, length and slots of each template."""
        return [(template.path, template.length, template.slots) for template in self.templates]

    @property
    def rows(self) -> list[TemplateRow | LinkRow]:
        """Return everything that is to be made."""
        return [*self.templates, *self.links]

    @property
    def bound(self) -> bool:
        """Return whether something names the project."""
        return any(slot.kind == "project" for row in self.rows for slot in row.slots)


LONGEST_PATH = 4096  # bytes
DEEPEST = 200  # names in a path
LARGEST_DOCUMENT = 32 << 20  # bytes of pack.json
LARGEST_BLOB = 64 << 20  # bytes of all templates
LARGEST_FILLED = 64 << 20  # bytes that one template may become
LARGEST_TOTAL = 1 << 30  # bytes that all templates may become
MOST_VALUES = 2_000_000  # in pack.json
MOST_PARTS = 1000  # of one environment
LARGEST_NUMBER = 1 << 62
SPARE_SLOTS = 16
"""Slots that a template may have besides one for each of its bytes: paths stand between other text."""


def decode(data: bytes) -> Pack:
    """Return what *data*, the bytes of a pack.json, say; raises InvalidPack.

    Whatever they are, this takes time and memory in proportion to their length, and raises nothing else.
    """
    document = read_json(data)
    check_texts(document)
    if not isinstance(document, dict):
        raise InvalidPack("it is not an object")
    number = document.get("format")
    if type(number) is not int or number != FORMAT:
        raise InvalidPack(f"another format ({brief(number)}) than {FORMAT}, the one that can be read here")
    want_keys(document, {"format", *Pack._fields} - {"needs"}, "it")
    description = want(document["description"], dict, "the description")
    needs = {
        text(name, 100): text(value, 1000)
        for name, value in want(description.get("python") or {}, dict, "what it needs").items()
    }
    if not re.fullmatch(r"[\w.+-]*", needs.get("version", "") + needs.get("implementation", "")):
        raise InvalidPack("a Python with an impossible name")
    if not re.fullmatch(r"bin/[\w.+-]+", needs.get("bundled", "bin/python")):
        raise InvalidPack("a Python that is not where one belongs")
    if "beside" in needs and not is_beside(needs["beside"]):
        raise InvalidPack("a Python that is in no environment beside it")
    if "executable" in needs and not is_plain(needs["executable"]):
        raise InvalidPack("a Python at a path that is none")
    place = description.get("place", "")
    if not isinstance(place, str) or (place and not is_plain(place)):
        raise InvalidPack("a place that is none")
    pack = Pack(
        decode_announced(document["announced"]),
        description,
        [decode_distribution(row) for row in want(document["distributions"], list, "distributions")],
        [decode_editable(row) for row in want(document["editable"], list, "editable")],
        tuple(decode_link(row) for row in want(document["links"], list, "links")),
        needs,
        decode_parts(document["parts"]),
        tuple(decode_template(row) for row in want(document["templates"], list, "templates")),
        text(document["templates_sha256"], 64),
    )
    check_pieces(pack)
    check_records(pack)
    check_paths(pack, lambda path: path)
    return pack


def is_beside(path: str) -> bool:
    """Return whether *path*, which starts in an environment, leads into another one in the same directory."""
    parts = path.split("/")
    return len(parts) > 2 and parts[0] == ".." and not {"", ".", ".."} & set(parts[1:])


def is_plain(path: str) -> bool:
    """Return whether *path* is absolute and takes no detour."""
    return path.startswith("/") and not unsafe_name(path[1:]) and len(os.fsencode(path)) <= LONGEST_PATH


def read_json(data: bytes) -> Any:
    """Return the JSON in *data*: of texts, whole numbers of few digits, lists, and objects without twins."""
    if len(data) > LARGEST_DOCUMENT or sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise InvalidPack(f"it is too long, with {len(data)} bytes")
    try:
        return json.loads(
            data.decode("ascii"),
            parse_int=small_number,
            parse_float=no_number,
            parse_constant=no_number,
            object_pairs_hook=without_twins,
        )
    except (ValueError, RecursionError, MemoryError) as error:
        raise InvalidPack(f"it cannot be read ({shown(str(error))[:200]})") from error


def small_number(digits: str) -> int:
    """Return a number of at most 19 digits: long ones take their time."""
    return int(digits) if len(digits) < 20 else no_number(digits)


def no_number(digits: str) -> int:
    """Refuse what is not a whole number."""
    raise InvalidPack(f"{digits[:20]} is not a count")


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose names are all different."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidPack("a name is there twice")
    return found


def want(value: Any, kind: type, what: str) -> Any:
    """Return *value* if it is of *kind*."""
    if type(value) is not kind:
        raise InvalidPack(f"{what} is not of the right type")
    return value


def want_keys(found: dict[str, Any], wanted: Iterable[str], what: str) -> None:
    """Raise InvalidPack unless *found* has the *wanted* names and no others."""
    if set(found) != set(wanted):
        odd = min(set(found) ^ set(wanted))
        raise InvalidPack(f"{what} has {'' if odd in found else 'no '}{brief(odd)}")


def brief(value: Any) -> str:
    """Return for a message what *value* is, however long or deep it is."""
    return shown(str(value)[:80]) if isinstance(value, (str, int)) else f"a {type(value).__name__}"


def check_texts(value: Any) -> None:
    """Raise InvalidPack if any text in *value* is none that a file system could hold."""
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            todo += [*each, *each.values()]
        elif isinstance(each, list):
            todo += each
        elif isinstance(each, str):
            text(each, LARGEST_DOCUMENT)


def text(value: Any, most: int) -> str:
    """Return *value* if it is text that names can be made of: at most *most* bytes, spelled in one way."""
    try:
        raw = want(value, str, "a text").encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidPack("a text is not Unicode") from error
    if b"\0" in raw or len(raw) > most:
        raise InvalidPack(f"a text holds a NUL, or more than {most} bytes")
    if raw.decode("utf-8", "surrogateescape") != value:
        raise InvalidPack("a text is UTF-8 spelled byte by byte")
    return str(value)


def count(value: Any) -> int:
    """Return *value* if it counts something."""
    if type(value) is not int or not 0 <= value <= LARGEST_NUMBER:
        raise InvalidPack(f"{brief(value)} is not a count")
    return value


def row_of(value: Any, length: int, what: str) -> list[Any]:
    """Return *value* if it is a list of *length* values."""
    if len(want(value, list, what)) != length:
        raise InvalidPack(f"{what} has {len(value)} parts")
    return list(value)


def decode_announced(value: Any) -> Announced:
    """Return the announcement, whose numbers agree with each other."""
    want_keys(want(value, dict, "the announcement"), Announced._fields, "the announcement")
    announced = Announced(**{name: count(number) for name, number in value.items()})
    if announced.entries != announced.directories + announced.files + announced.links:
        raise InvalidPack("announced numbers that contradict each other")
    return announced


def decode_parts(value: Any) -> tuple[PartRow, ...]:
    """Return the rows of the other parts: no two are the same, and all are archives in one directory."""
    parts = tuple(decode_part(row) for row in want(value, list, "the parts"))
    if len(parts) > MOST_PARTS or any(len({row[at] for row in parts}) < len(parts) for at in (1, 2, 3)):
        raise InvalidPack("a part that is there twice, or more parts than anybody makes")
    return parts


def decode_part(value: Any) -> PartRow:
    """Return a row of the other parts."""
    layer, content, archive, sha256, announced = row_of(value, 5, "a part")
    for digest in (content, sha256):
        if not re.fullmatch("[0-9a-f]{64}", text(digest, 64)):
            raise InvalidPack("a part without a SHA-256")
    if unsafe_name(text(archive, 1000)) or "/" in archive:
        raise InvalidPack(f"a part in {brief(archive)}")
    return PartRow(text(layer, 100), content, archive, sha256, decode_announced(announced))


def decode_distribution(value: Any) -> list[str]:
    """Return name and version of what is installed."""
    return [text(part, 1000) for part in row_of(value, 2, "a distribution")]


def decode_editable(value: Any) -> tuple[str, bool]:
    """Return what is installed editable, and whether its code is in the project."""
    name, in_project = row_of(value, 2, "what is editable")
    return text(name, 1000), flag(in_project, "code that is neither in the project nor outside")


def flag(value: Any, otherwise: str) -> bool:
    """Return *value*, a one or a zero, as what it means."""
    if type(value) is not int or value not in (0, 1):
        raise InvalidPack(otherwise)
    return bool(value)


def decode_template(value: Any) -> TemplateRow:
    """Return a row of the templates."""
    name, executable, start, length, slots = row_of(value, 5, "a template")
    path = decode_path(name)
    may_run = flag(executable, "a template that may be neither run nor not run")
    rows = want(slots, list, "slots")
    if len(rows) > count(length) + SPARE_SLOTS:
        raise InvalidPack(f"a template with {len(rows)} slots in {length} bytes, {shown(path)}")
    decoded = tuple(decode_slot(row) for row in rows)
    offsets = [0, *(slot.offset for slot in decoded), length]
    if offsets != sorted(offsets):
        raise InvalidPack(f"a slot that does not fit its template, {shown(path)}")
    return TemplateRow(path, may_run, count(start), length, decoded)


def decode_slot(value: Any) -> SlotRow:
    """Return a row of slots: what goes there, how it is written, and their argument must belong together."""
    offset, kind, form, argument = row_of(value, 4, "a slot")
    slot = SlotRow(count(offset), text(kind, 20), text(form, 20), text(argument, LONGEST_PATH))
    plain = kind in KINDS and form in WRITERS and not argument
    first_line = kind == "venv" and form in SHEBANGS and not re.search(r"[\x00-\x1f\x7f]", argument)
    if not (plain or first_line or (kind, form) == ("file", "record")):
        raise InvalidPack(f"a slot for {brief(kind)} as {brief(form)}, with the argument {brief(argument)}")
    return slot


def decode_link(value: Any) -> LinkRow:
    """Return a row of the links, none of which leads elsewhere than into the environment or to a place."""
    path, target, slots = row_of(value, 3, "a link")
    rows = tuple(decode_slot(row) for row in want(slots, list, "slots"))
    link = LinkRow(decode_path(path), text(target, LONGEST_PATH), rows)
    if leads_elsewhere(link) if rows else leads_out(link.path, link.target):
        raise InvalidPack(f"a link that leads out, {shown(link.path)}")
    return link


def decode_path(value: Any) -> str:
    """Return a path of the environment that is not one of our own."""
    path = text(value, LONGEST_PATH)
    why = unsafe_name(path) or reserved_name(path)
    if why:
        raise InvalidPack(f"an unsafe path, {shown(path)}, which {why}")
    ours = folded(path) == POSTINSTALL or folded(path.split("/")[0]) == METADATA
    if ours or path.count("/") >= DEEPEST:
        raise InvalidPack(f"an unsafe path, {shown(path)}")
    return path


def unsafe_name(name: str) -> str:
    """Return why *name* cannot be unpacked safely anywhere, as the end of a sentence, or an empty string."""
    if "\0" in name:
        return "contains a NUL"
    if name.startswith("/"):
        return "is absolute"
    parts = name.split("/")
    if not name or "" in parts or "." in parts:
        return "has an empty part"
    return "climbs with '..'" if ".." in parts else ""


OURS = (".venvflow.json", ".vf-")
"""How names begin that venvflow gives to what it believes of a venv: its receipt, and what is in work."""


def reserved_name(name: str) -> str:
    """Return why only venvflow may make something of that *name*, as the end of a sentence, or nothing."""
    folded = f"/{name.casefold()}"
    if "/." in folded and any(f"/{start}" in folded for start in OURS):  # most names have no dot there
        return "has a name that only venvflow gives"
    return ""


def leads_out(path: str, target: str) -> bool:
    """Return whether a symlink at *path* may lead out of its venv, or cannot be known not to.

    ``..`` may stand in front only, and no more often than real directories lie above the link: behind a
    name it would climb from wherever that name leads. If this holds for every link, and no directory above
    a link is one itself, following any of them stays inside.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    return (
        not target
        or target.startswith("/")
        or "\0" in target
        or ".." in parts[climbs:]
        or climbs > path.count("/")
    )


def leads_elsewhere(link: LinkRow) -> bool:
    """Return whether a link with slots leads to another local path than one that is meant, or below it."""
    slot = link.slots[0]
    if len(link.slots) > 1 or slot.offset or slot.form != "raw" or ".." in link.target.split("/"):
        return True
    if slot.kind == "python":
        return link.target != ""
    return slot.kind not in ("venv", "project") or link.target[:1] not in ("", "/")


def check_pieces(pack: Pack) -> None:
    """Raise InvalidPack unless every byte of the blob belongs to one template."""
    position = 0
    for template in sorted(pack.templates, key=lambda each: (each.start, each.length)):
        if template.start != position:
            raise InvalidPack(f"templates that overlap or lie apart, {shown(template.path)}")
        position += template.length
    if position > LARGEST_BLOB or not re.fullmatch("[0-9a-f]{64}", pack.templates_sha256):
        raise InvalidPack(f"templates of {position} bytes, or without a SHA-256")


def check_blob(pack: Pack, blob: bytes) -> None:
    """Raise InvalidPack unless *blob* holds the templates that *pack* speaks of."""
    if len(blob) != pack.length or hashlib.sha256(blob).hexdigest() != pack.templates_sha256:
        raise InvalidPack("templates that were changed")


def check_records(pack: Pack) -> None:
    """Raise InvalidPack unless RECORDs describe templates, and none that describes others itself."""
    plain = {template.path for template in pack.templates if not describes(template.slots)}
    for row in pack.rows:
        for slot in row.slots:
            if slot.form == "record" and slot.argument not in plain:
                raise InvalidPack(f"a RECORD that describes {shown(slot.argument)}")


def describes(slots: Sequence[Any]) -> bool:
    """Return whether the template of these slots describes other files."""
    return any(form == "record" for _, _, form, _ in slots)


def check_paths(pack: Pack, spelled: Callable[[str], str]) -> None:
    """Raise InvalidPack if a path is there twice or lies below another row's: below a link, or below a file.

    *spelled* returns what the file system takes a name for.
    """
    known: set[str] = set()
    for path in (spelled(row.path) for row in pack.rows):
        if path in known:
            raise InvalidPack(f"a path that is there twice, {shown(path)}")
        known.add(path)
    for path in known:
        above = path.rpartition("/")[0]
        while above:
            if above in known:
                raise InvalidPack(f"a path through a link or a file, {shown(path)}")
            above = above.rpartition("/")[0]


def folded(path: str) -> str:
    """Return what file systems take *path* for that do not tell case."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", path).casefold()


# --------------------------------------------------------------------------- how much that is


def filled_sizes(templates: Iterable[tuple[str, int, Sequence[Any]]], places: Places) -> dict[str, int]:
    """Return how many bytes each template becomes at *places*, by path, without making one of them.

    They are given as path, length and slots. Raises InvalidPack for what is larger than any file that
    installers write, and ``KeyError`` for slots of which :func:`decode_slot` knows nothing.
    """
    sizes: dict[str, int] = {}
    total = 0
    known: dict[tuple[str, str, str, str], int] = {}
    for path, length, slots in sorted(templates, key=lambda row: describes(row[2])):
        size = length + len(head_of(path))
        for _, kind, form, argument in slots:
            if form == "record":
                size += len(record_fields(b"")) - 1 + len(str(sizes[argument]))
                continue
            what = (path, kind, form, argument)
            if what not in known:
                known[what] = len(portably(*what, places))
            size += known[what]
        total += size
        if size > LARGEST_FILLED or total > LARGEST_TOTAL:
            raise InvalidPack(f"templates that would become {total} bytes, among them {shown(path)}")
        sizes[path] = size
    return sizes


def need_room(fd: int, size: int, names: int) -> None:
    """Raise ``OSError`` unless the file system of *fd* has room for *size* bytes and *names* more files."""
    found = os.statvfs(fd)
    no_space = "No space left on device: {} {} are needed, {} are free"
    free = found.f_bavail * found.f_frsize
    if size > free:
        raise OSError(errno.ENOSPC, no_space.format(size, "bytes", free))
    if found.f_files and names > found.f_favail:  # some file systems do not count them
        raise OSError(errno.ENOSPC, no_space.format(names, "inodes", found.f_favail))


# --------------------------------------------------------------------------- by descriptors

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ROOT = DIRECTORY & ~os.O_NOFOLLOW  # whoever names it may well name a link
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened(path: str, flags: int, directory: int | None = None) -> Iterator[int]:
    """Give a descriptor of what is at *path*, maybe below a *directory*. Raises ``OSError``."""
    fd = os.open(path, flags, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def inside(root: int, path: str, make: bool = False) -> Iterator[int]:
    """Give a descriptor of the directory *path* below the directory *root*, reached through no link.

    With *make*, what is missing is made. Raises Problem for what is not a directory, and ``OSError``.
    """
    fd = os.dup(root)
    try:
        for name in path.split("/") if path else ():
            if make:
                with suppress(FileExistsError):  # whatever it is, opening it will tell
                    os.mkdir(name, 0o755, dir_fd=fd)
            try:
                below = os.open(name, DIRECTORY, dir_fd=fd)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise damage(f"{shown(path)}, which is not a directory all the way") from error
                raise OSError(error.errno, error.strerror, path) from error
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def damage(what: str) -> Problem:
    """Return the error that an environment is not what an archive of ours makes: *what* says how."""
    return Problem(f"{METADATA} is damaged, or what it describes: {what}", DAMAGED)


def read_file(name: str, directory: int, most: int) -> bytes | None:
    """Return the bytes of a regular file of at most *most* bytes, None if it is anything else.

    Raises ``OSError`` if it is not there, or a link.
    """
    with opened(name, READ, directory) as fd:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most:
            return None
        with open(fd, "rb", closefd=False) as file:
            data = file.read(most + 1)
        return data if len(data) <= most else None


def kind_of(name: str, directory: int) -> os.stat_result | None:
    """Return what is called *name*, not what a link there leads to; None if there is nothing."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def load(root: int) -> tuple[Pack, bytes]:
    """Return what the archive that was unpacked at *root* says, and its templates.

    Raises Problem if it cannot be read or trusted.
    """
    try:
        with inside(root, METADATA) as fd:
            document = read_file("pack.json", fd, LARGEST_DOCUMENT)
            blob = read_file("templates", fd, LARGEST_BLOB)
            there = set(os.listdir(fd))
    except OSError as error:
        raise Problem(f"cannot read {METADATA}/pack.json: {error.strerror}", ENVIRONMENT) from error
    if document is None or blob is None:
        raise damage("something else than files in it, or more than anybody needs")
    try:
        pack = decode(document)
        check_blob(pack, blob)
        if kind_of(METADATA.upper(), root):  # it does not tell case
            check_paths(pack, folded)
    except InvalidPack as error:
        raise damage(str(error)) from error
    missing = [str(part) for part in pack.parts if os.path.basename(part.mark) not in there]
    if missing:
        raise Problem(f"parts are missing. Unpack into the same directory: {', '.join(missing)}", DAMAGED)
    return pack, blob


# --------------------------------------------------------------------------- the interpreter

FACTS = """
import os, sys, sysconfig
variable = sysconfig.get_config_var
abi = [variable("SOABI") or sys.implementation.cache_tag or "unknown"]
if variable("Py_DEBUG") or hasattr(sys, "gettotalrefcount"):
    abi.append("debug")
if variable("Py_GIL_DISABLED"):
    abi.append("freethreaded")
facts = {
    "executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "implementation": sys.implementation.name,
    "version": "%d.%d.%d" % sys.version_info[:3],
    "abi": " ".join(abi),
}
"""
ASK = FACTS + 'import json\nprint("venvflow:" + json.dumps(facts))\n'


def ask(python: str) -> dict[str, str]:
    """Return what the interpreter at *python* says of itself; raises Problem if it says nothing."""
    import subprocess  # noqa: PLC0415 - not for who only decodes

    try:
        answer = subprocess.run(
            [python, "-I", "-S", "-c", ASK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=True,
        )
        said = json.loads(answer.stdout.decode("utf-8", "replace").rpartition("venvflow:")[2])
        return {name: str(said[name]) for name in ("executable", "implementation", "version", "abi")}
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        why = getattr(error, "strerror", None) or error
        raise Problem(f"cannot run {shown(python)} as a Python: {shown(str(why))}", ENVIRONMENT) from error


def own_facts() -> dict[str, str]:
    """Return the same of the interpreter that runs this, without running another."""
    found: dict[str, Any] = {}
    exec(FACTS, found)  # noqa: S102 - what others are asked
    return dict(found["facts"])


def minor(version: str) -> str:
    """Return the first two numbers of a version."""
    return ".".join(version.split(".")[:2])


def mismatch(needs: dict[str, str], facts: dict[str, str]) -> str:
    """Return in words why an interpreter does not fit, or nothing."""
    wanted = "{} {}".format(needs.get("implementation", ""), minor(needs.get("version", ""))).strip()
    found = "{} {}".format(facts["implementation"], minor(facts["version"]))
    if needs.get("version") and found != wanted:
        return f"it is {shown(found)}, but the packages are for {shown(wanted)}"
    if needs.get("abi") and facts["abi"] != needs["abi"]:
        return "its ABI is {}, but the packages are for {}".format(shown(facts["abi"]), shown(needs["abi"]))
    return ""


def choose(needs: dict[str, str], wanted: str, force: bool, root: str) -> str:
    """Return the path of the interpreter to link; raises Problem in words if none fits.

    None that lies in *root* is run: it would be a program of the archive. With *force* the one that is
    *wanted* need not be there.
    """
    if wanted:
        if is_below(wanted, root):
            raise unfit(wanted, "is a program of the environment itself", "")
        if force and os.path.isabs(wanted) and not os.path.lexists(wanted):
            return wanted  # only the machine has it that this is for
        facts = ask(wanted)
        wrong = mismatch(needs, facts)
        if wrong and not force:
            raise unfit(wanted, f"does not fit: {wrong}", ", or --force")
        return facts["executable"]
    refused = []
    for candidate in candidates(needs):
        try:
            if candidate != sys.executable and is_below(candidate, root):
                continue
            facts = own_facts() if candidate == sys.executable else ask(candidate)
        except Problem as problem:
            refused.append(str(problem))
            continue
        wrong = mismatch(needs, facts)
        if not wrong:
            return facts["executable"]
        refused.append(f"{shown(candidate)}: {wrong}")
    raise Problem(
        "no fitting interpreter found. Install it, or give one with --python.\n  " + "\n  ".join(refused),
        ENVIRONMENT,
    )


def unfit(python: str, why: str, otherwise: str) -> Problem:
    """Return the error that the interpreter that was asked for cannot be taken."""
    return Problem(f"{shown(python)} {why}. Give another one{otherwise}.", ENVIRONMENT)


def is_below(path: str, root: str) -> bool:
    """Return whether *path* is in the directory *root*, by its name or by where that really leads."""
    real = os.path.realpath(root)
    directory = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    names = (os.path.realpath(path), os.path.join(directory, os.path.basename(path)))
    return any(name.startswith(real.rstrip("/") + "/") for name in names)


def candidates(needs: dict[str, str]) -> Iterator[str]:
    """Yield the interpreter that runs this, then those on PATH, each once."""
    seen = set()
    stem = "pypy" if needs.get("implementation") == "pypy" else "python"
    version = minor(needs.get("version", ""))
    names = [stem + version, stem + version + "t", stem + "3", stem]
    directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
    on_path = [os.path.join(directory, name) for name in names for directory in directories if directory]
    for path in [sys.executable or "", *on_path]:
        if path and os.path.isfile(path) and os.access(path, os.X_OK) and path not in seen:
            seen.add(path)
            yield path


# --------------------------------------------------------------------------- doing it


class Completion(NamedTuple):
    """What was done: paths in the environment that were written, were right already, and were linked.

    The interpreter *python* is *untried* if only the archive says that it is one: then nobody runs it.
    """

    place: str
    python: str
    untried: bool
    written: list[str]
    unchanged: list[str]
    linked: list[str]
    notes: list[str]

    @property
    def compiler(self) -> str:
        """Return the interpreter to compile with."""
        return sys.executable if self.untried else self.python


def complete(
    root: str,
    *,
    place: str = "",
    project: str = "",
    python: str = "",
    force: bool = False,
    dry_run: bool = False,
) -> Completion:
    """Make the environment at *root* work at *place* (which is *root*, unless it will be moved there).

    Each file is replaced whole or not at all, and one that is right already is left alone, so this can be
    run again at any time. With *dry_run* nothing is written. Raises Problem.
    """
    try:
        with opened(root, ROOT) as fd:
            pack, blob = load(fd)
            places, notes = places_for(pack, place or root, project, python, force=force, root=root)
            report = begun(pack, places, python, notes)
            apply(fd, pack, blob, places, report=report, dry_run=dry_run)
    except OSError as error:
        raise Problem(f"cannot read {shown(root)}: {error.strerror}", ENVIRONMENT) from error
    return report


def begun(pack: Pack, places: Places, python: str, notes: list[str]) -> Completion:
    """Return the report of what is to be done for *places*; *python* is what was asked for, if anything."""
    is_ours = "bundled" in pack.needs or ("beside" in pack.needs and not python)
    untried = is_ours or not os.path.isfile(places.python)
    return Completion(places.venv, places.python, untried, [], [], [], notes)


def places_for(
    pack: Pack, place: str, project: str, python: str, *, force: bool, root: str
) -> tuple[Places, list[str]]:
    """Return the local paths to fill in for *place*, and what is to be said of them. Raises Problem.

    No interpreter below *root* is taken, where the archive's own files are.
    """
    place = os.path.abspath(place)
    notes = []
    if pack.bound and not project:
        project = os.path.dirname(place)
        notes.append(
            f"some files name the project they were made for: taken to be {shown(project)} (--project)"
        )
    there = "the place that it had where it was packed"
    for in_project, where in ((True, os.path.abspath(project) if project else there), (False, there)):
        names = ", ".join(shown(name) for name, is_in in pack.editable if is_in is in_project)
        if names:
            how = f"it is installed editable, and looked for in {shown(where)}"
            notes.append(f"the code of {names} is not in here: {how}")
    if "bundled" in pack.needs:
        if python:
            raise Problem("the environment brings its own Python: leave out --python", USAGE)
        chosen = os.path.join(place, pack.needs["bundled"])
    elif "beside" in pack.needs and not python:  # a layer has its interpreter in another environment
        chosen = os.path.normpath(os.path.join(place, pack.needs["beside"]))
        if not os.path.isfile(chosen):
            notes.append(
                f"{shown(chosen)} is not there: unpack the environment that brings it beside this one"
            )
    else:
        chosen = choose(pack.needs, python, force, root)
    return Places(place, os.path.abspath(project or place), chosen), notes


def apply(root: int, pack: Pack, blob: bytes, places: Places, *, report: Completion, dry_run: bool) -> None:
    """Fill in all templates and make all links below the directory *root*, and *report* it. Raises Problem.

    Everything is looked at and counted before anything is written.
    """
    path = places.venv
    try:
        check_places(root, pack, filled_sizes(pack.lengths, places), dry_run)
        for template, data in filled(pack, blob, places):
            path = template.path
            directory, _, name = path.rpartition("/")
            with inside(root, directory) as fd:
                changed = put_file(name, fd, data, template.executable, dry_run)
            (report.written if changed else report.unchanged).append(path)
        copier = Copier(root, places)
        for link in pack.links:
            path = link.path
            if put_link(link, root, places, copier, dry_run):
                report.linked.append(path)
    except OSError as error:
        where = error.filename if "/" in str(error.filename) else path  # the system says the last name only
        raise Problem(f"cannot write {shown(where)}: {error.strerror}", ENVIRONMENT) from error
    except InvalidPack as error:
        raise damage(str(error)) from error


def check_places(root: int, pack: Pack, sizes: dict[str, int], dry_run: bool) -> None:
    """Raise Problem unless every row can be written where it belongs, through no link, and there is room."""
    growth = largest = names = 0
    for template in pack.templates:
        directory, _, name = template.path.rpartition("/")
        with inside(root, directory) as fd:
            found = kind_of(name, fd)
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise damage(f"something else where a file belongs, {shown(template.path)}")
        size = sizes[template.path]
        growth += max(0, size - (found.st_size if found else 0))
        largest, names = max(largest, size), names + (found is None)
    for link in pack.links:
        names += check_link(root, link, pack.python, dry_run)
    need_room(root, growth + largest, names + 1)


def check_link(root: int, link: LinkRow, python: str, dry_run: bool) -> int:
    """Return how many names a link needs that are not there; raises Problem if something is in its way.

    A file that holds *python*, to which the archive's link led, is what some make of it that know no links.
    """
    directory, _, name = link.path.rpartition("/")
    try:
        with inside(root, directory) as fd:
            found = kind_of(name, fd)
            is_link = found is not None and stat.S_ISLNK(found.st_mode)
            if found is not None and stat.S_ISREG(found.st_mode) and python:
                is_link = read_file(name, fd, LONGEST_PATH) == os.fsencode(python)
    except FileNotFoundError:
        return link.path.count("/") + 1
    if found is None:
        return 1
    if not is_link and (dry_run or can_link(root)):
        raise damage(f"something else where a link belongs, {shown(link.path)}")
    return 0


def filled(pack: Pack, blob: bytes, places: Places) -> Iterator[tuple[TemplateRow, bytes]]:
    """Yield every template with its bytes, RECORDs after what they describe."""
    digests: dict[str, bytes] = {}
    described = {slot.argument for template in pack.templates for slot in template.slots}
    for template in sorted(pack.templates, key=lambda each: describes(each.slots)):
        raw = blob[template.start : template.start + template.length]
        data = portable(template.path, raw, template.slots, places, digests.__getitem__)
        if template.path in described:
            digests[template.path] = record_fields(data)
        yield template, data


def put_file(name: str, directory: int, data: bytes, executable: bool, dry_run: bool) -> bool:
    """Write a file whole or not at all, unless it is right already; return whether it was not."""
    found = kind_of(name, directory)
    if (
        found is not None
        and stat.S_ISREG(found.st_mode)
        and found.st_size == len(data)
        and read_file(name, directory, len(data)) == data
    ):
        return False
    if not dry_run:
        with replacing(name, directory) as temporary:
            fd = os.open(temporary, CREATE, 0o755 if executable else 0o644, dir_fd=directory)
            with open(fd, "wb") as file:
                file.write(data)
    return True


@contextmanager
def replacing(name: str, directory: int) -> Iterator[str]:
    """Give a free name for what is to replace *name* at the end of the block; if that fails, it goes away."""
    temporary = temporary_name()
    try:
        yield temporary
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise


def temporary_name() -> str:
    """Return a free name, short whatever the name of the file."""
    return f".vf-{os.getpid()}-{int.from_bytes(os.urandom(6), 'big')}"


NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
"""What systems answer that know no symlinks, or do not let everybody make them."""


def can_link(directory: int) -> bool:
    """Return whether symlinks can be made in a directory, by making one."""
    temporary = temporary_name()
    try:
        os.symlink("nowhere", temporary, dir_fd=directory)
    except OSError as error:
        if error.errno in NO_LINKS:
            return False
        raise
    os.unlink(temporary, dir_fd=directory)
    return True


def put_link(link: LinkRow, root: int, places: Places, copier: Copier, dry_run: bool) -> bool:
    """Make a symlink, or a copy where links cannot be; return whether it was not there yet."""
    target = os.fsdecode(fill(os.fsencode(link.target), link.slots, places, no_digest))
    directory, _, name = link.path.rpartition("/")
    try:
        with inside(root, directory) as fd:
            found = kind_of(name, fd)
            if found and stat.S_ISLNK(found.st_mode) and os.readlink(name, dir_fd=fd) == target:
                return False
    except FileNotFoundError:
        pass
    if dry_run:
        return True
    with inside(root, directory, make=True) as fd:
        try:
            with replacing(name, fd) as temporary:
                os.symlink(target, temporary, dir_fd=fd)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return copier.copy(link, fd, name)
    return True


class Copier:
    """Makes copies where there can be no links: of the interpreter, and of what is in the environment."""

    MOST = 3  # copies of one thing

    def __init__(self, root: int, places: Places) -> None:
        self.root = root
        self.places = places
        self.copies: dict[str, int] = {}

    def copy(self, link: LinkRow, directory: int, name: str) -> bool:
        """Copy what *link* would have led to, unless it is there; return whether it was not."""
        source = self.source_of(link)
        self.copies[source] = self.copies.get(source, 0) + 1
        if f"{link.path}/".startswith(f"{source}/") or not source or self.copies[source] > self.MOST:
            raise damage(f"a link that cannot become a copy, {shown(link.path)}")
        if source.startswith("/"):
            with opened(source, READ & ~os.O_NOFOLLOW) as fd:  # the interpreter, a real path
                return self.copy_file(fd, directory, name)
        above, _, below = source.rpartition("/")
        with inside(self.root, above) as parent:
            return self.copy_any(below, parent, directory, name)

    def source_of(self, link: LinkRow) -> str:
        """Return the path of what *link* leads to: below the root, or that of the interpreter."""
        kind = link.slots[0].kind if link.slots else ""
        if kind == "python":
            return self.places.python
        if kind == "project":
            raise Problem(
                f"{shown(link.path)} must be a link, and there can be none on this file system", ENVIRONMENT
            )
        above = "" if kind else os.path.dirname(link.path)
        path = os.path.normpath(os.path.join(above, link.target.lstrip("/")))
        return "" if path == "." else path

    def copy_any(self, source: str, parent: int, directory: int, name: str) -> bool:
        """Copy a file or a directory with all files in it."""
        found = kind_of(source, parent)
        if found is None or not stat.S_ISDIR(found.st_mode):
            with opened(source, READ, parent) as fd:
                return self.copy_file(fd, directory, name)
        if kind_of(name, directory) is not None:
            return False
        with inside(parent, source) as fd:
            need_room(directory, *tree_extent(fd))
            os.mkdir(name, 0o755, dir_fd=directory)
            with inside(directory, name) as target:
                for each in sorted(os.listdir(fd)):
                    self.copy_any(each, fd, target, each)
        return True

    def copy_file(self, fd: int, directory: int, name: str) -> bool:
        """Copy an open file, unless one is there that has its size."""
        found, there = os.fstat(fd), kind_of(name, directory)
        if not stat.S_ISREG(found.st_mode):
            raise damage(f"a link to what is not a file, {shown(name)}")
        if there is not None and there.st_size == found.st_size:
            return False
        need_room(directory, found.st_size, 1)
        with replacing(name, directory) as temporary:
            target = os.open(temporary, CREATE, 0o755 if found.st_mode & 0o100 else 0o644, dir_fd=directory)
            with open(target, "wb") as file, open(fd, "rb", closefd=False) as source:
                left = found.st_size
                while left:
                    data = source.read(min(left, 1 << 20))
                    if not data:
                        break
                    left -= file.write(data)
        return True


def tree_extent(fd: int) -> tuple[int, int]:
    """Return the bytes of all files below a directory, and how many names there are."""
    size, names = 0, 1
    for name in os.listdir(fd):
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        below = (found.st_size, 1)
        if stat.S_ISDIR(found.st_mode):
            with inside(fd, name) as directory:
                below = tree_extent(directory)
        size, names = size + below[0], names + below[1]
    return size, names


# --------------------------------------------------------------------------- compiling

COMPILE = "--compile-share"  # and then the root, which share, and of how many
LARGEST_SOURCE = 16 << 20  # bytes


def compile_library(root: str, python: str) -> str:
    """Compile the packages with the interpreter *python*; return what could not be, if any.

    It runs this file. The environment's own Python is a link that the archive may have made, and would run
    what its .pth files say.
    """
    import subprocess  # noqa: PLC0415 - not for who only decodes

    shares = min(os.cpu_count() or 1, 16)
    words = [python, "-I", "-S", "-W", "ignore", os.path.abspath(__file__), COMPILE, root]
    workers = [
        subprocess.Popen(
            [*words, str(share), str(shares)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for share in range(shares)
    ]
    said = [(worker.communicate()[0], worker.returncode) for worker in workers]
    lines = [line for output, code in said if code for line in output.decode("utf-8", "replace").splitlines()]
    lines += [f"a compiler was ended by signal {-code}" for _, code in said if code < 0]
    more = f"\n... and {len(lines) - 20} more" if len(lines) > 20 else ""
    return "\n".join(shown(line)[:300] for line in lines[:20]) + more


def compile_share(root: str, share: str, shares: str) -> int:
    """Compile one of so many *shares* of the sources, say what could not be, and return the exit code."""
    failed = []
    try:
        with opened(root, ROOT) as fd, inside(fd, "lib") as library:
            for number, (directory, name, path) in enumerate(sources(library, "lib")):
                if number % int(shares) == int(share):
                    try:
                        compile_source(directory, name, os.path.join(root, path))
                    except Exception as error:  # noqa: BLE001 - whatever a source does to the compiler
                        failed.append(f"{path}: {error}")
    except (OSError, Problem) as error:
        failed.append(f"lib: {error}")
    sys.stdout.write("".join(ascii(line)[1:-1] + "\n" for line in failed[:20]))
    return 1 if failed else OK


def sources(fd: int, path: str) -> Iterator[tuple[int, str, str]]:
    """Yield the sources below a directory: the directory of each, open, its name there, and its path."""
    for name in sorted(os.listdir(fd)):
        mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and name != "__pycache__" and path.count("/") < DEEPEST:
            with inside(fd, name) as directory:
                yield from sources(directory, f"{path}/{name}")
        elif stat.S_ISREG(mode) and name.endswith(".py"):
            yield fd, name, f"{path}/{name}"


def compile_source(directory: int, name: str, path: str) -> None:
    """Write the bytecode of a source, unless there is some for its time and size."""
    found, data = os.stat(name, dir_fd=directory), read_file(name, directory, LARGEST_SOURCE)
    if data is None:
        raise ValueError("it is larger than any source")
    words = [number & 0xFFFFFFFF for number in (0, int(found.st_mtime), len(data))]
    head = MAGIC_NUMBER + b"".join(word.to_bytes(4, "little") for word in words)
    target = f"{name[:-3]}.{sys.implementation.cache_tag}.pyc"
    with inside(directory, "__pycache__", make=True) as cache:
        with suppress(OSError):
            if (read_file(target, cache, LARGEST_FILLED) or b"").startswith(head):
                return
        code = marshal.dumps(compile(data, path, "exec", dont_inherit=True))
        put_file(target, cache, head + code, executable=False, dry_run=False)


# --------------------------------------------------------------------------- saying it


def counted(paths: Sequence[str], word: str) -> str:
    """Return how many *paths* there are, with the *word* for one of them in the right form."""
    return f"{len(paths)} {word}{'' if len(paths) == 1 else 's'}"


def described(report: Completion, dry_run: bool) -> str:
    """Return for people what was done."""
    to_be = "to be " if dry_run else ""
    filled_in = f"{counted(report.written, 'file')} {to_be}filled in, {len(report.unchanged)} right already"
    lines = [
        f"{shown(report.place)}: {filled_in}, {counted(report.linked, 'link')} {to_be}made.",
        f"Python: {shown(report.python)}",
        *(f"note: {note}" for note in report.notes),
    ]
    return "\n".join(lines) + "\n"


def parsed(words: list[str] | None) -> argparse.Namespace:
    """Return what the command line asks for."""
    import argparse  # noqa: PLC0415 - not for who only decodes

    parser = argparse.ArgumentParser(description="Make this unpacked virtual environment work where it lies.")
    parser.add_argument("--python", default="", metavar="PATH", help="the interpreter to use")
    parser.add_argument(
        "--project", default="", metavar="DIR", help="where the project is that editable installs name"
    )
    parser.add_argument("--compile", action="store_true", help="compile the packages to bytecode")
    parser.add_argument("--force", action="store_true", help="take --python even if it does not fit")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Run as a script for the directory that this file lies in, and return the exit code."""
    options = parsed(words)
    root = os.path.dirname(os.path.abspath(__file__))
    try:
        report = complete(
            root,
            project=options.project,
            python=options.python,
            force=options.force,
            dry_run=options.dry_run,
        )
    except Problem as problem:
        sys.stderr.write(f"postinstall: {problem}\n")
        return problem.code
    sys.stdout.write(described(report, options.dry_run))
    if options.compile and not options.dry_run:
        left = compile_library(root, report.compiler)
        sys.stdout.write(f"note: not everything could be compiled:\n{left}\n" if left else "Compiled.\n")
    return OK


if __name__ == "__main__":
    # Names are UTF-8, whatever the locale says. Others may not know the option, and would begin for ever.
    if sys.getfilesystemencoding() != "utf-8" and sys.implementation.name == "cpython" and sys.executable:
        given = getattr(sys, "orig_argv", ["", *sys.argv])[1:]  # with the options of Python, since 3.10
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *given])  # noqa: S606 - it is us
    sys.exit(compile_share(*sys.argv[2:]) if sys.argv[1:2] == [COMPILE] else main())
