"""Prefixed entries: where a file names its venv, project or interpreter, and filling that in anew.

:func:`find` takes a file apart into a *template* (the bytes without the local paths) and *slots* (where
they were, and how they were written). :func:`fill` puts it together for another place. Positions are
kept beside the template, so no mark inside a file can ever be mistaken for one of ours.

How a path is written decides how it must be written elsewhere: a shell script wants quotes, a URL wants
percent signs, a shebang has a limited length and no spaces. Forms:

===========  =====================================================================================
``raw``      as it is
``sh``       one word of a POSIX, C or fish shell; the quotes around it belong to the slot
``url``      percent-encoded, as in ``file://`` URLs
``py``       inside a Python string literal
``json``     inside a JSON string
``line``     on one line of pyvenv.cfg: line breaks become spaces, because the file cannot hold them
``shebang``  the whole first line (or the ``/bin/sh`` trampoline) of a script for the venv's Python
``record``   ``sha256=…,size`` of a file that is itself a template, in a RECORD
===========  =====================================================================================
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote

from venvflow.model import Entry, Slot

_LONGEST_SHEBANG = 127
"""Bytes of a first line that every kernel reads whole; newer ones read more, installers stop here too."""

_LARGEST_TEXT = 4 << 20
"""Files larger than this, in bytes, are not taken apart: generated scripts are never so large."""


class Places(NamedTuple):
    """The local paths that files of a venv name, each absolute: *python* is the base interpreter."""

    venv: str
    project: str
    python: str

    def text(self, kind: str) -> str:
        """Return what fills a slot of *kind*."""
        values = {
            "venv": self.venv,
            "name": os.path.basename(self.venv),
            "project": self.project,
            "python": self.python,
            "home": os.path.dirname(self.python),
        }
        return values[kind]


# --------------------------------------------------------------------------- which files


_ACTIVATE = re.compile(r"bin/activate[^/]*\Z")
_PROJECT_FILE = re.compile(
    r"""(?x)
    (?: .*/ | \A )
    (?: [^/]*\.pth | [^/]*\.egg-link | [^/]*\.dist-info/direct_url\.json
      | __editable__[^/]*\.py | _?__editable_[^/]*\.py | [^/]*_editable_[^/]*\.py ) \Z
    | \A bin/[^/]+ \Z
    """
)
_VENV_FILE = re.compile(
    r"""(?x)
    \A (?: pyvenv\.cfg | bin/[^/]+ | share/jupyter/kernels/[^/]+/kernel\.json
      | lib/python[^/]+/site-packages/(?: [^/]+\.(?:pth|py|egg-link) | [^/]+\.dist-info/[^/]+ ) ) \Z
    """
)


def names_project(path: str) -> bool:
    """Return whether a file at *path* may name the project's directory and mean it.

    Only the files that installers write for editable and local installs: a project at ``/app`` or
    ``/src`` would otherwise be found in documentation and test data, where it means something else.
    """
    return _PROJECT_FILE.match(path) is not None


def names_venv(path: str) -> bool:
    """Return whether installers write the venv's own path into a file at *path*."""
    return _VENV_FILE.match(path) is not None or names_project(path)


# --------------------------------------------------------------------------- finding


class Template(NamedTuple):
    """A file taken apart: *data* without the local paths, *slots* in order of their offsets."""

    data: bytes
    slots: tuple[Slot, ...]

    @property
    def bound(self) -> bool:
        """Return whether the file refers to the project itself."""
        return any(slot.kind == "project" for slot in self.slots)


class _Hit(NamedTuple):
    start: int
    end: int
    slot: Slot  # with offset 0, filled in when the template is assembled


def find(path: str, data: bytes, places: Places, *, fresh: bool = False) -> Template | None:
    """Return the template of the file *data* at *path*, or None when it names no local path.

    *fresh*: the venv lies at a staging path that no other file in the world contains, so the venv's
    path is looked for in every text file, without caring what stands around it. Otherwise only in
    files that installers write (:func:`names_venv`), and only where it stands as a path of its own.
    """
    if len(data) > _LARGEST_TEXT:
        return None
    hits: list[_Hit] = []
    if path == "pyvenv.cfg":
        hits += _in_pyvenv_cfg(data, places)
    if fresh or names_venv(path):
        hits += _in_shebang(data, places.venv)
        if b"\0" not in data:
            hits += _in_text(path, data, "venv", places.venv, taken=hits, fresh=fresh)
    if hits and _ACTIVATE.match(path):
        hits += _prompts(data, os.path.basename(places.venv), taken=hits)
    if names_project(path) and b"\0" not in data:
        hits += _in_text(path, data, "project", places.project, taken=hits, fresh=False)
    return _assemble(data, hits) if hits else None


def embeds(data: bytes, places: Places) -> bool:
    """Return whether *data* contains the venv's path, as compiled files may: those cannot be relocated."""
    return os.fsencode(places.venv) in data


def _assemble(data: bytes, hits: Iterable[_Hit]) -> Template:
    pieces: list[bytes] = []
    slots: list[Slot] = []
    position = length = 0
    for hit in sorted(hits):
        pieces.append(data[position : hit.start])
        length += len(pieces[-1])
        slots.append(hit.slot._replace(offset=length))
        position = hit.end
    pieces.append(data[position:])
    return Template(b"".join(pieces), tuple(slots))


def _overlaps(start: int, end: int, taken: Iterable[_Hit]) -> bool:
    return any(start < hit.end and hit.start < end for hit in taken)


_TRAMPOLINE = re.compile(
    rb"""\A#!/bin/sh\n'''exec' (?P<word>.+?)(?P<args>(?: [^"\n]*)?) "\$0" "\$@"\n' '''\n""", re.DOTALL
)


def _in_shebang(data: bytes, venv: str) -> list[_Hit]:
    """Find the first line (or the trampoline) of a script that the venv's own Python is to run."""
    if not data.startswith(b"#!"):
        return []
    prefix = os.fsencode(venv) + b"/"
    trampoline = _TRAMPOLINE.match(data)
    if trampoline:
        word, args, end = _unquoted(trampoline["word"]), trampoline["args"], trampoline.end()
    else:
        end = data.find(b"\n") + 1 or len(data)
        line = data[2:end].strip()
        if not line.startswith(prefix):
            return []
        below, space, rest = line[len(prefix) :].partition(b" ")
        word, args = prefix + below, space + rest
    if not word.startswith(prefix) or b"python" not in os.path.basename(word):
        return []
    argument = os.fsdecode(word[len(prefix) :] + args)
    return [_Hit(0, end, Slot(0, "venv", "shebang", argument))]


def _unquoted(word: bytes) -> bytes:
    try:
        return os.fsencode("".join(shlex.split(os.fsdecode(word))[:1]))
    except ValueError:
        return word


def _in_text(path: str, data: bytes, kind: str, text: str, *, taken: list[_Hit], fresh: bool) -> list[_Hit]:
    """Find *text* in a text file however it is spelled; *taken* places are not looked at again."""
    hits: list[_Hit] = []
    for form, spelled in _spellings(path, text).items():
        start = data.find(spelled)
        while start >= 0:
            end = start + len(spelled)
            if (fresh or _stands_alone(data, start, end)) and not _overlaps(start, end, [*taken, *hits]):
                hits.append(_as_written(path, data, start, end, Slot(0, kind, form)))
            start = data.find(spelled, end)
    return hits


def _spellings(path: str, text: str) -> dict[str, bytes]:
    """Return the distinct ways in which *text* may stand in the file at *path*, ``raw`` first."""
    spelled = {"raw": os.fsencode(text)}
    for form in ("url", "json", "py"):
        candidate = _WRITERS[form](text)
        if candidate not in spelled.values():
            spelled[form] = candidate
    quoted = os.fsencode(text).replace(b"'", b"'\"'\"'")
    if _ACTIVATE.match(path) and quoted not in spelled.values():
        spelled["sh"] = quoted
    return spelled


_PATH_BYTES = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-+~@%" + bytes(range(0x80, 0x100))
)


def _stands_alone(data: bytes, start: int, end: int) -> bool:
    """Return whether a path at this position is not a part of a longer one (``/app`` in ``/application``)."""
    if end < len(data) and data[end] in _PATH_BYTES:
        return False
    before = data[max(0, start - 7) : start]
    return (
        not before or before.endswith(b"file://") or (before[-1] not in _PATH_BYTES and before[-1:] != b"/")
    )


def _as_written(path: str, data: bytes, start: int, end: int, slot: Slot) -> _Hit:
    """Decide the form of an occurrence by the file that it is in and by what stands around it."""
    before, after = data[start - 1 : start], data[end : end + 1]
    if _ACTIVATE.match(path) and not path.endswith((".bat", ".ps1", ".nu", ".py", ".xsh")):
        if before in (b"'", b'"') and before == after:
            return _Hit(start - 1, end + 1, slot._replace(form="sh"))
        if before in (b"=", b" ") and after in (b"", b"\n", b" ", b")", b";"):
            return _Hit(start, end, slot._replace(form="sh"))
    if data[max(0, start - 7) : start] == b"file://":
        return _Hit(start, end, slot._replace(form="url"))
    if slot.form == "raw" and path.endswith(".json"):
        return _Hit(start, end, slot._replace(form="json"))
    if slot.form == "raw" and path.endswith(".py"):
        return _Hit(start, end, slot._replace(form="py"))
    return _Hit(start, end, slot)


def _prompts(data: bytes, name: str, *, taken: list[_Hit]) -> list[_Hit]:
    """Find the prompts of activation scripts that repeat the name of the venv's directory."""
    word = re.escape(os.fsencode(name))
    lines = re.compile(rb"(?im)^.*(?:prompt|PS1|set_color).*$")
    spots = re.compile(rb"""(?P<open>[("'])(?P<name>%s)(?=[)"'])""" % word)
    hits = []
    for line in lines.finditer(data):
        for spot in spots.finditer(data, line.start(), line.end()):
            start, end = spot.span("name")
            if not _overlaps(start, end, taken):
                hits.append(_Hit(start, end, Slot(0, "name", "raw")))
    return hits


_SETTING = re.compile(rb"^(?P<key>[a-z-]+)[ \t]*=[ \t]*(?P<value>[^\n]*?)[ \t]*$", re.MULTILINE)


def _in_pyvenv_cfg(data: bytes, places: Places) -> list[_Hit]:
    """Find the base interpreter in pyvenv.cfg: directory, path, and the command that made the venv."""
    hits = []
    for setting in _SETTING.finditer(data):
        start, end = setting.span("value")
        key = setting["key"]
        if key == b"home":
            hits.append(_Hit(start, end, Slot(0, "home", "line")))
        elif key in (b"executable", b"base-executable"):
            hits.append(_Hit(start, end, Slot(0, "python", "line")))
        elif key == b"command" and b" -m venv" in setting["value"]:
            stop = start + setting["value"].index(b" -m venv")
            hits.append(_Hit(start, stop, Slot(0, "python", "line")))
            place = data.rfind(os.fsencode(places.venv), stop, end)
            if place >= 0:
                hits.append(_Hit(place, place + len(os.fsencode(places.venv)), Slot(0, "venv", "line")))
    return hits


def find_link(target: str, places: Places) -> tuple[str, tuple[Slot, ...]]:
    """Return a symlink's *target* as template text and slots; as it is, without slots, if not local."""
    for kind in ("venv", "project"):
        prefix = places.text(kind)
        if target == prefix or target.startswith(prefix + "/"):
            return target[len(prefix) :], (Slot(0, kind, "raw"),)
    if os.path.isabs(target) and os.path.realpath(target) == os.path.realpath(places.python):
        return "", (Slot(0, "python", "raw"),)
    return target, ()


# --------------------------------------------------------------------------- RECORD


def find_in_record(record_path: str, data: bytes, rewritten: Iterable[str]) -> Template | None:
    """Return the template of a RECORD in which the lines of the *rewritten* files must be recomputed.

    *rewritten* are paths in the venv. Lines are found by their position in the file, quoted paths
    included; a RECORD that cannot be read as CSV is left as it is (None).
    """
    wanted = set(rewritten)
    base = os.path.dirname(os.path.dirname(record_path))
    hits = []
    position = 0
    for line in data.splitlines(keepends=True):
        row = _csv_row(line)
        if len(row) == 3 and row[1]:
            path = os.path.normpath(os.path.join(base, row[0]))
            tail = os.fsencode(f"{row[1]},{row[2]}")
            start = position + line.rfind(tail)
            if path in wanted and start >= position:
                hits.append(_Hit(start, start + len(tail), Slot(0, "file", "record", path)))
        position += len(line)
    return _assemble(data, hits) if hits else None


def record_paths(record_path: str, data: bytes) -> frozenset[str]:
    """Return the paths in the venv that a RECORD lists, without those that lead out of the venv."""
    base = os.path.dirname(os.path.dirname(record_path))
    rows = (_csv_row(line) for line in data.splitlines())
    paths = (os.path.normpath(os.path.join(base, row[0])) for row in rows if row and row[0])
    return frozenset(path for path in paths if not path.startswith(("/", "..")))


def _csv_row(line: bytes) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(os.fsdecode(line))), [])
    except csv.Error:
        return []


# --------------------------------------------------------------------------- filling in


Digests = Mapping[str, tuple[bytes, int]]
"""SHA-256 and size in bytes of files that were filled in, by path in the venv: what RECORDs need."""


def fill(data: bytes, slots: Iterable[Slot], places: Places, digests: Digests | None = None) -> bytes:
    """Return the template *data* with its *slots* filled in for *places*.

    Templates with ``record`` slots need the *digests* of the files they describe: fill those first.
    Raises ``KeyError`` when one is missing and ``ValueError`` for slots that do not fit the template.
    """
    pieces: list[bytes] = []
    position = 0
    for slot in slots:
        if not position <= slot.offset <= len(data):
            raise ValueError(f"slot at {slot.offset} does not fit a template of {len(data)} bytes")
        pieces += (data[position : slot.offset], _written(slot, places, digests or {}))
        position = slot.offset
    pieces.append(data[position:])
    return b"".join(pieces)


def fill_link(entry: Entry, places: Places) -> str:
    """Return where the symlink *entry* is to point at in *places*."""
    return os.fsdecode(fill(os.fsencode(entry.target), entry.slots, places))


def is_record(entry: Entry) -> bool:
    """Return whether *entry* can only be filled in after the files that it describes."""
    return any(slot.form == "record" for slot in entry.slots)


def _written(slot: Slot, places: Places, digests: Digests) -> bytes:
    if slot.form == "record":
        digest, size = digests[slot.argument]
        return record_fields(digest, size)
    if slot.form == "shebang":
        return _shebang(places.venv, slot.argument)
    return _WRITERS[slot.form](places.text(slot.kind))


def record_fields(digest: bytes, size: int) -> bytes:
    """Return ``sha256=…,size`` as a RECORD spells it (URL-safe base64 without padding)."""
    return b"sha256=%s,%d" % (base64.urlsafe_b64encode(digest).rstrip(b"="), size)


def digest_of(data: bytes) -> tuple[bytes, int]:
    """Return SHA-256 and size of *data*, as :data:`Digests` holds them."""
    return hashlib.sha256(data).digest(), len(data)


def _shebang(venv: str, argument: str) -> bytes:
    """Return a first line that runs the venv's Python; through /bin/sh where a kernel could not read it.

    The trampoline is what pip and uv write too: a shell runs its second line, Python sees a string.
    """
    below, space, rest = argument.partition(" ")
    interpreter = f"{venv}/{below}"
    line = os.fsencode(f"#!{interpreter}{space}{rest}\n")
    if len(line) <= _LONGEST_SHEBANG and not re.search(r"\s", interpreter):
        return line
    return os.fsencode(f"#!/bin/sh\n'''exec' {shlex.quote(interpreter)}{space}{rest} \"$0\" \"$@\"\n' '''\n")


def _py_literal(text: str) -> bytes:
    """Escape *text* for the inside of a Python string literal, in either kind of quotes."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace('"', '\\"')
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped).encode("utf-8")


_WRITERS: dict[str, Callable[[str], bytes]] = {
    "raw": os.fsencode,
    "sh": lambda text: os.fsencode(shlex.quote(text)),
    "url": lambda text: quote(os.fsencode(text)).encode("ascii"),
    "py": _py_literal,
    "json": lambda text: json.dumps(text)[1:-1].encode("ascii"),
    "line": lambda text: os.fsencode(text).replace(b"\n", b" ").replace(b"\r", b" "),
}
