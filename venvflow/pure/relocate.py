"""Relocation: finds where a file names its venv, project or interpreter, and fills in other paths there.

:func:`find` takes a file apart into a *template* (the bytes without the local paths) and *slots* (where
they were, and how they were written). :func:`fill` puts it together for another place. Positions are
kept beside the template, so no mark inside a file can ever be mistaken for one of ours.

How a local path is written in which file is the business of :mod:`venvflow.pure.path_spelling`.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from venvflow import postinstall
from venvflow.model import INSTALLER_NOTE, Entry, Slot
from venvflow.pure import path_spelling

LARGEST_TEXT = 4 << 20
"""Files larger than this, in bytes, are not taken apart, and so are not templates: installers write none."""


Places = postinstall.Places
"""The local paths that files of a venv name, each absolute: *python* is the base interpreter."""


# --------------------------------------------------------------------------- which files


_ACTIVATE = re.compile(r"bin/activate[^/]*\Z")
_PROJECT_ENDS = (".pth", ".egg-link", ".dist-info/direct_url.json")
_PROJECT_FILE = re.compile(r"bin/[^/]+|share/jupyter/kernels/[^/]+/kernel\.json")
_VENV_FILE = re.compile(
    r"""(?x)
    \A (?: pyvenv\.cfg
      | lib/python[^/]+/site-packages/(?: [^/]+\.(?:pth|py|egg-link) | [^/]+\.dist-info/[^/]+ ) ) \Z
    """
)
_SOURCES = "src/"
"""Where repositories are cloned to that a lock names as editable: what is there was brought, too."""

_LOCAL_REQUIREMENT = re.compile(rb"^Requires-Dist:.*@ *file:.*$", re.MULTILINE)
"""The lines of METADATA that name the project and mean it: packages that lie in it. Below them are texts."""


def names_project(path: str) -> bool:
    """Return whether a file at *path* that a package brought may name the project's directory and mean it.

    Only the files that installers write for editable and local installs: a project at ``/app`` or
    ``/src`` would otherwise be found in documentation and test data, where it means something else.
    """
    if path.endswith(".py") and "_editable_" in path.rpartition("/")[2]:
        return True
    return path.endswith(_PROJECT_ENDS) or _PROJECT_FILE.fullmatch(path) is not None


_IN_PACKAGE = re.compile(r"lib/python[^/]+/site-packages/[^/]+/")
"""Where nobody writes the interpreter's path and no other: that search of most files can be saved."""


def is_in_package(path: str) -> bool:
    """Return whether a file at *path* lies in a package, most files of which its wheel brought."""
    return _IN_PACKAGE.match(path) is not None


def may_be_written_here(path: str) -> bool:
    """Return whether a file at *path* that no RECORD has may have been written for this very venv.

    By a command, a script or a person: then the paths that it names are meant.
    """
    return not (path == "pyvenv.cfg" or path.endswith(".dist-info/RECORD") or path.startswith(_SOURCES))


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
    slot: Slot | None  # with offset 0, filled in when the template is assembled; None: these bytes go
    before: bytes = b""  # what the template gets on both sides of the slot:
    after: bytes = b""  # quotes that end before it, and begin anew behind it


def find(
    path: str, data: bytes, places: Places, *, fresh: bool = False, written_here: bool = False
) -> Template | None:
    """Return the template of the file *data* at *path*, or None when it names no local path.

    *fresh*: the venv lies at a staging path that no other file in the world contains, so the venv's
    path is looked for in every text file, without caring what stands around it. Otherwise only in
    files that installers write (:func:`names_venv`), and only where it stands as a path of its own.
    *written_here*: no package brought the file, so every local path in it is meant.
    """
    meant = fresh or written_here or names_venv(path)
    if len(data) > LARGEST_TEXT or not (meant or path.endswith(".dist-info/METADATA")):
        return None
    is_text = b"\0" not in data
    hits: list[_Hit] = []
    if path == "pyvenv.cfg":
        hits += _in_pyvenv_cfg(data, places)
    if meant:
        hits += _in_shebang(data, places.venv)
        if is_text:
            hits += _in_text(path, data, "venv", places.venv, taken=hits, fresh=fresh)
    if hits and _ACTIVATE.match(path):
        hits += _prompts(path, data, places.text("name"), taken=hits)
    if is_text and (written_here or names_project(path)):
        hits += _in_text(path, data, "project", places.project, taken=hits, fresh=False)
    if is_text and written_here:
        hits += _in_text(path, data, "python", places.python, taken=hits, fresh=False)
    if path.endswith(".dist-info/METADATA") and (lines := [*_LOCAL_REQUIREMENT.finditer(data)]):
        named = _in_text(path, data, "project", places.project, taken=hits, fresh=False)
        hits += [hit for hit in named if any(line.start() < hit.start < line.end() for line in lines)]
    return _assemble(data, hits) if hits else None


def mentions(path: str, data: bytes, places: Places, *, fresh: bool = False) -> bool:
    """Return whether the text *data* of a file at *path* may name a local path that is not always looked for.

    Quick: it is asked of every file. *fresh* is that of :func:`find`.
    """
    if b"\0" in data or len(data) > LARGEST_TEXT:
        return False
    if _is_spelled(path, data, places.project):
        return True
    if not (fresh or places.venv.startswith(f"{places.project}/")) and _is_spelled(path, data, places.venv):
        return True
    return not is_in_package(path) and _is_spelled(path, data, places.python)


def kept_names(template: Template, sure: Template | None, places: Places) -> bool:
    """Return whether a file that stays as a package brought it may name the venv or the project all the same.

    *template* has all local paths that are in it, *sure* those that are filled in. ``/app`` is no evidence:
    a directory right below the root has the name of what others speak of.
    """
    kinds = ("venv", "project") if places.project.count("/") > 1 else ("venv",)
    filled = sure.slots if sure is not None else ()
    return sum(slot.kind in kinds for slot in template.slots) > sum(slot.kind in kinds for slot in filled)


def embeds(data: bytes, places: Places) -> bool:
    """Return whether *data* contains the venv's path, as compiled files may: those cannot be relocated.

    Nor can texts of two bytes for each character.
    """
    return os.fsencode(places.venv) in data or places.venv in _wide(data)


def names_as_no_text(data: bytes, places: Places) -> bool:
    """Return whether *data* that is no text names the project: a database, a pickle, a text of UTF-16.

    A directory right below the root has the name of what others speak of.
    """
    if places.project.count("/") < 2:
        return False
    whole = re.escape(os.fsencode(places.project)) + rb"(?![\w.-])"
    return places.project in _wide(data) or (b"\0" in data and re.search(whole, data) is not None)


def _wide(data: bytes) -> str:
    """Return what a text of two bytes for each character says, nothing for other files."""
    is_wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return data.decode("utf-16", "replace") if is_wide else ""


def _assemble(data: bytes, hits: Iterable[_Hit]) -> Template:
    pieces: list[bytes] = []
    slots: list[Slot] = []
    position = length = 0
    for hit in sorted(hits):
        pieces += (data[position : hit.start], hit.before, hit.after)
        length += hit.start - position + len(hit.before)
        if hit.slot is not None:
            slots.append(hit.slot._replace(offset=length))
        length += len(hit.after)
        position = hit.end
    pieces.append(data[position:])
    return Template(b"".join(pieces), tuple(slots))


def _overlaps(start: int, end: int, taken: Iterable[_Hit]) -> bool:
    return any(start < hit.end and hit.start < end for hit in taken)


def _in_shebang(data: bytes, venv: str) -> list[_Hit]:
    """Find the first line (or the trampoline) of a script that a program of the venv is to run."""
    found = path_spelling.parse_shebang(data, os.fsencode(venv) + b"/") if data.startswith(b"#!") else None
    if found is None:
        return []
    argument, end = found
    return [_Hit(0, end, Slot(0, "venv", "shebang", argument))]


def _in_text(path: str, data: bytes, kind: str, text: str, *, taken: list[_Hit], fresh: bool) -> list[_Hit]:
    """Find *text* in a text file however it is spelled; *taken* places are not looked at again."""
    if not _is_spelled(path, data, text):
        return []
    language = path_spelling.language(path, data)
    words = _ENV_WORDS.match(data)
    first_line = words.end() if words else 0
    hits: list[_Hit] = []
    for match in path_spelling.pattern(text, language).finditer(data):
        if fresh or _stands_alone(data, *match.span()):
            way = _in_form("component") if match["component"] else _WAYS[language]
            if match.end() <= first_line:
                way = _in_words
            hit = way(data, *match.span(), Slot(0, kind, ""))
            if not _overlaps(hit.start, hit.end, taken):
                hits.append(hit)
    return hits


_PATH_BYTES = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-+~@%" + bytes(range(0x80, 0x100))
)
_COMPONENT_BYTES = [bytes([byte]) for byte in _PATH_BYTES]
_GOES_ON = re.compile(rb"\\[uUxN0-7\\]")
"""An escape after a path that spells one more character of its last name."""


_ENV_WORDS = re.compile(rb"#![ \t]*/(?:usr/)?bin/env[ \t]+-[^\n]*S[^\n]*")
"""A first line that ``env`` splits into words."""


def _is_spelled(path: str, data: bytes, text: str) -> bool:
    """Return whether *text* may be in a file, however it is spelled. Quick: every file is asked."""
    language = "json" if path.endswith(".json") else "shell"  # which has the spellings of all others
    ways = path_spelling.spellings(text, language)
    if any(way in data for way in ways):
        return text != "/"
    if len(ways) > 1 and b"file://" in data:  # of a plain path nobody escapes anything in a URL
        return True
    # In a package nobody writes a path like that.
    return not is_in_package(path) and b"%2" in data and postinstall.percent_all(text).lower() in data.lower()


_OPTION = re.compile(rb"""(?:\A|[\s"',=])-[A-Za-z]\Z""")
"""A compiler's way to take a path: ``-I/app/include``."""


def _stands_alone(data: bytes, start: int, end: int) -> bool:
    """Return whether a path at this position is not a part of a longer one (``/app`` in ``/application``)."""
    if data[start : start + 1] == b"%":
        return data[end : end + 3].upper() == b"%2F" or data[end : end + 1] not in _COMPONENT_BYTES
    if end < len(data) and (data[end] in _PATH_BYTES or _GOES_ON.match(data, end)):
        return False
    before = data[max(0, start - 7) : start]
    if not before or before.endswith((b"file://", b":///")) or _OPTION.search(before):
        return True
    return before[-1] not in _PATH_BYTES and before[-1:] != b"/"


# --------------------------------------------------------------------------- in which form


def _in_shell(data: bytes, start: int, end: int, slot: Slot) -> _Hit:
    """Make the path a shell word of its own, outside of the quotes that it may stand in."""
    return _in_words(data, start, end, slot, data.rfind(b"\n", 0, start) + 1)


def _in_words(data: bytes, start: int, end: int, slot: Slot, begin: int = len("#!")) -> _Hit:
    """Do the same in what a shell, or ``env`` in a first line, splits into words from *begin* on."""
    before, after = data[start - 1 : start], data[end : end + 1]
    line = data[begin:start]
    within = path_spelling.quoted_by(line)
    if within in ("#", "`"):
        return _Hit(start, end, slot._replace(form="line" if within == "#" else "url"))
    word = slot._replace(form="sh")
    quotes = within.encode("ascii")
    if quotes and before == quotes == after and not path_spelling.quoted_by(line[:-1]):
        return _Hit(start - 1, end + 1, word)
    return _Hit(start, end, word, quotes, quotes)


_NU_OPEN = re.compile(rb"(?:r#+'|'|\")\Z")
_NU_CLOSE = re.compile(rb"(?:'#+|'|\")")


def _in_nu(data: bytes, start: int, end: int, slot: Slot) -> _Hit:
    """Take a string that is the path and nothing else with its quotes; elsewhere, be safe."""
    if data[start : start + 1] in (b"'", b'"'):  # a word with its quotes
        start, end = start + 1, end - 1
    opening, closing = _NU_OPEN.search(data[max(0, start - 8) : start]), _NU_CLOSE.match(data, end)
    if opening is None or closing is None:
        return _Hit(start, end, slot._replace(form="url"))
    return _Hit(start - len(opening[0]), closing.end(), slot._replace(form="literal"))


_XONSH_OPEN = re.compile(rb"(?<![\w'\"])['\"]\Z")


def _in_xonsh(data: bytes, start: int, end: int, slot: Slot) -> _Hit:
    """Take a plain string that is the path and nothing else with its quotes, else what is inside of one."""
    opening = _XONSH_OPEN.search(data[max(0, start - 2) : start])
    if opening is None or data[end : end + 1] != opening[0] or data[end + 1 : end + 2] == opening[0]:
        return _in_form("py")(data, start, end, slot)
    return _Hit(start - 1, end + 1, slot._replace(form="literal"))


def _in_pth(data: bytes, start: int, end: int, slot: Slot) -> _Hit:
    """Tell the lines that Python runs from the lines that it takes as directories."""
    line = data[data.rfind(b"\n", 0, start) + 1 : start]
    return _Hit(
        start, end, slot._replace(form="py" if line.startswith((b"import ", b"import\t")) else "line")
    )


def _in_form(form: str) -> Callable[[bytes, int, int, Slot], _Hit]:
    def hit(data: bytes, start: int, end: int, slot: Slot) -> _Hit:
        is_url = data[max(0, start - 7) : start] == b"file://"
        return _Hit(start, end, slot._replace(form="url" if is_url else form))

    return hit


_WAYS: Mapping[str, Callable[[bytes, int, int, Slot], _Hit]] = {
    "shell": _in_shell,
    "nu": _in_nu,
    "python": _in_form("py"),
    "xonsh": _in_xonsh,
    "json": _in_form("json"),
    "pth": _in_pth,
    "other-script": _in_form("url"),  # wrong for a path with blanks, but nothing that could be run
    "text": _in_form("line"),
}


_PROMPT_LINE = re.compile(rb"(?im)^.*(?:prompt|PS1|set_color|env_name|!= *(?:x|\"\")).*$")
_PROMPT_START = rb"(?:(?<=[(\"'=])|(?<=VIRTUAL_ENV_PROMPT )|(?<=4B8BBE\) ))"
_PROMPT_END = rb"(?=[)\"']|$| \(set_color)"


def _prompts(path: str, data: bytes, name: str, *, taken: list[_Hit]) -> list[_Hit]:
    """Find the prompts of activation scripts that repeat the name of the venv's directory."""
    if path_spelling.language(path, data) != "shell" or not re.search(r"\w", name):
        return []  # a name that is punctuation alone cannot be told from the script's own
    ways = b"|".join(re.escape(way) for way in path_spelling.spellings(name, "shell"))
    spots = re.compile(_PROMPT_START + b"(?:" + ways + b")" + _PROMPT_END, re.MULTILINE)
    hits = []
    for line in _PROMPT_LINE.finditer(data):
        for spot in spots.finditer(data, *line.span()):
            hit = _in_shell(data, *spot.span(), Slot(0, "name", ""))
            if not _overlaps(hit.start, hit.end, taken):
                hits.append(hit)
    return hits


_SETTING = re.compile(rb"^(?P<key>[a-z-]+)[ \t]*=[ \t]*(?P<value>[^\n]*?)[ \t]*$", re.MULTILINE)
_MODULE = re.compile(rb" -m (?:venv|virtualenv)(?= )")


def _in_pyvenv_cfg(data: bytes, places: Places) -> list[_Hit]:
    """Find the base interpreter in pyvenv.cfg: directory, path, prefix, and the command used."""
    hits = []
    for setting in _SETTING.finditer(data):
        start, end = setting.span("value")
        key, value = setting["key"], setting["value"]
        if key == b"home":
            hits.append(_Hit(start, end, Slot(0, "home", "line")))
        elif key in (b"executable", b"base-executable"):
            hits.append(_Hit(start, end, Slot(0, "python", "line")))
        elif key in (b"base-prefix", b"base-exec-prefix"):
            hits += _in_prefix(value, start, end, places)
        elif key == b"command" and (module := _MODULE.search(value)):
            hits.append(_Hit(start, start + module.start(), Slot(0, "python", "line")))
            hits += _in_command(data, start + module.end(), end, places.venv)
    return hits


def _in_prefix(value: bytes, start: int, end: int, places: Places) -> list[_Hit]:
    """Find the prefix of the base interpreter in the name of its directory."""
    prefix = os.path.dirname(places.text("home"))
    if os.path.normpath(os.fsdecode(value)) != prefix:
        return []
    return [_Hit(start, end, Slot(0, "home", "line"), after=b"/..")]


def _in_command(data: bytes, start: int, end: int, venv: str) -> list[_Hit]:
    text = os.fsencode(venv)
    place = data.rfind(text, start, end)
    return [_Hit(place, place + len(text), Slot(0, "venv", "line"))] if place >= 0 else []


def find_link(target: str, places: Places, resolve: Callable[[str], str]) -> tuple[str, tuple[Slot, ...]]:
    """Return a symlink's *target* as template text and slots; as it is, without slots, if not local.

    *resolve* returns the real path of another: the interpreter has many names.
    """
    for kind in ("venv", "project"):
        prefix = places.text(kind)
        if target == prefix or target.startswith(prefix + "/"):
            return target[len(prefix) :], (Slot(0, kind, "raw"),)
    if os.path.isabs(target) and resolve(target) == resolve(places.python):
        return "", (Slot(0, "python", "raw"),)
    return target, ()


# --------------------------------------------------------------------------- RECORD


def find_in_record(
    record_path: str, data: bytes, rewritten: Iterable[str], places: Places | None = None
) -> Template | None:
    """Return the template of a RECORD in which the lines of the *rewritten* files must be recomputed.

    What it says of an installer's note is left out, for that is another one in each venv; the line stays, so
    that whoever removes the distribution removes the note.

    *rewritten* are paths in the venv. With *places*, absolute paths in the venv are found as well. Lines
    are found by their position in the file, quoted paths included; a RECORD that cannot be read as CSV is
    left as it is (None).
    """
    wanted = set(rewritten)
    base = os.path.dirname(os.path.dirname(record_path))
    hits = []
    for row, start, end in record_rows(data):
        if len(row) == 3:
            path = _listed(base, row[0], places.venv if places is not None else "")
            is_note = path.endswith(INSTALLER_NOTE)
            tail = os.fsencode(f"{row[1]},{row[2]}")
            place = data.rfind(tail, start, end) if is_note or (row[1] and path in wanted) else -1
            if place >= 0:
                slot = None if is_note else Slot(0, "file", "record", path)
                hits.append(_Hit(place, place + len(tail), slot, b"," if is_note else b""))
    if places is not None:
        hits += _in_text(record_path, data, "venv", places.venv, taken=hits, fresh=False)
    return _assemble(data, hits) if hits else None


def record_paths(record_path: str, data: bytes, venv: str = "") -> frozenset[str]:
    """Return the paths in the venv that a RECORD lists, without those that lead out of the venv.

    *venv* is the path that absolute ones in it begin with.
    """
    base = os.path.dirname(os.path.dirname(record_path))
    rows = (row for row, _, _ in record_rows(data) if row and row[0])
    paths = (_listed(base, row[0], venv) for row in rows)
    return frozenset(path for path in paths if not path.startswith(("/", "../")) and path not in ("..", "."))


class Listed(NamedTuple):
    """What a RECORD says of a file: its SHA-256 (in hex) and its size in bytes; empty and 0: nothing."""

    digest: str = ""
    size: int = 0


def listed_in(record_path: str, data: bytes, venv: str, *, strict: bool = True) -> dict[str, set[Listed]]:
    """Return what a RECORD of the venv at the path *venv* says of each file, by path in the venv.

    If *strict*, raises ``ValueError`` for one that cannot be read, has another kind of hash, does not list
    itself, or lists what lies outside. Else such a row says nothing, or nothing but the size.
    """
    base = os.path.dirname(os.path.dirname(record_path))
    found: dict[str, set[Listed]] = {}
    for row, _, _ in record_rows(data):
        try:
            if row:
                name, checked, size = row
                path, said = _path_within(venv, _listed(base, name)), _checked(checked, size, strict=strict)
                found.setdefault(path, set()).add(said)
        except ValueError:
            if strict:
                raise
    if strict and record_path not in found:
        raise ValueError(record_path)
    return found


def listed_digests(records: Mapping[str, bytes], venv: str) -> dict[str, str]:
    """Return the SHA-256 (in hex) that RECORDs, by path, give for files of the venv at the path *venv*.

    Empty for a file that has another kind of hash; files without one are left out.
    """
    found = {}
    for record_path, data in records.items():
        base = os.path.dirname(os.path.dirname(record_path))
        for row, _, _ in record_rows(data):
            if len(row) == 3 and row[1]:
                try:
                    digest = _checked(row[1], row[2] or "0", strict=False).digest
                except ValueError:
                    digest = ""
                found[_listed(base, row[0], venv)] = digest
    return found


def _path_within(venv: str, listed: str) -> str:
    """Return the path in the venv of what a RECORD lists; raises ``ValueError`` for what lies outside."""
    path = listed.removeprefix(f"{venv}/")
    if path.startswith(("/", "../")) or path in ("..", "."):
        raise ValueError(path)
    return path


def _checked(text: str, size: str, *, strict: bool) -> Listed:
    """Return a hash and a size as a RECORD spells them; another kind of hash is none, or a ``ValueError``."""
    algorithm, _, encoded = text.partition("=")
    if not text:
        return Listed()
    digest = base64.urlsafe_b64decode(f"{encoded}=")
    if algorithm == "sha256" and len(digest) == hashlib.sha256().digest_size:
        return Listed(digest.hex(), int(size))
    if strict:
        raise ValueError(text)
    return Listed("", int(size))


def without_rows(
    record_path: str, data: bytes, slots: Iterable[Slot], is_gone: Callable[[str], object]
) -> tuple[bytes, tuple[Slot, ...]]:
    """Return a RECORD, and the *slots* in it, without the rows of files that are gone, by path in the venv.

    All other rows keep their bytes. A row that cannot be read as CSV stays.
    """
    base = os.path.dirname(os.path.dirname(record_path))
    kept: list[bytes] = []
    left: list[Slot] = []
    waiting = sorted(slots)
    dropped = 0
    for row, start, end in record_rows(data):
        goes = bool(row) and is_gone(_listed(base, row[0]))
        while waiting and waiting[0].offset < end:
            slot = waiting.pop(0)
            if not goes:
                left.append(slot._replace(offset=slot.offset - dropped))
        if goes:
            dropped += end - start
        else:
            kept.append(data[start:end])
    left += [slot._replace(offset=slot.offset - dropped) for slot in waiting]
    return b"".join(kept), tuple(left)


def _listed(base: str, name: str, venv: str = "") -> str:
    """Return the path of what a RECORD calls *name*, whose names are relative to *base*, or below *venv*.

    Poetry's own installer writes whole paths.
    """
    if venv and name.startswith(f"{venv}/"):
        name, base = name[len(venv) + 1 :], ""
    if "./" not in name and "//" not in name and not name.endswith((".", "/")) and base:
        return name if name.startswith("/") else f"{base}/{name}"  # as most are; this runs for every file
    return os.path.normpath(os.path.join(base, name))


def record_rows(data: bytes) -> Iterator[tuple[list[str], int, int]]:
    """Yield each row of a RECORD with its start and end; a quoted path may hold line breaks."""
    start = end = 0
    plain = b'"' not in data and b"\0" not in data  # as most are: then it takes no CSV reader
    for line in data.splitlines(keepends=True):
        end += len(line)
        if plain:
            text = os.fsdecode(line.rstrip(b"\r\n"))
            yield text.split(",") if text else [], start, end
            start = end
        elif data.count(b'"', start, end) % 2 == 0:
            yield _csv_row(data[start:end]), start, end
            start = end


def _csv_row(line: bytes) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(os.fsdecode(line), newline="")), [])
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
    known = digests or {}
    return postinstall.fill(data, slots, places, lambda path: record_fields(*known[path]))


_MEANING = re.compile(
    rb"""(?x)
    (?: [ \t\f]* (?: \#[^\n]* )? \n )*  (?: [rRuU]? ["'] )    # a docstring, below nothing but comments
    | (?: [ \t\f]* \#[^\n]* \n )? [ \t\f]* \#[^\n]* coding [:=] (?! [ \t]* utf-?8 )
    """,
    re.IGNORECASE,
)


def begins_with_meaning(script: bytes) -> bool:
    """Return whether what stands first in a script (below its first line) means something only there.

    A docstring does, or an encoding other than UTF-8.
    """
    return _MEANING.match(script) is not None


def portable(path: str, data: bytes, slots: Iterable[Slot], places: Places, digests: Digests) -> bytes:
    """Return the template *data* of the file at *path* as :func:`fill` does, but right wherever it lies.

    What has no such form names *places*.
    """
    return postinstall.portable(path, data, slots, places, lambda path: record_fields(*digests[path]))


def fill_link(entry: Entry, places: Places) -> str:
    """Return where the symlink *entry* is to point at in *places*."""
    return os.fsdecode(fill(os.fsencode(entry.target), entry.slots, places))


def relative_link(entry: Entry) -> Entry:
    """Return *entry*; as a relative link if it is one that leads into the venv by the venv's path."""
    if entry.kind != "link" or [(slot.kind, slot.offset) for slot in entry.slots] != [("venv", 0)]:
        return entry
    _, *there = os.path.normpath(entry.target).split("/")
    *here, _ = entry.path.split("/")
    if not entry.target.startswith("/") or not any(there):
        return entry
    while here and len(there) > 1 and here[0] == there[0]:
        del here[0], there[0]
    return entry._replace(target="/".join([*([".."] * len(here)), *there]), slots=())


def leads_there(entry: Entry, target: str, places: Places, resolve: Callable[[str], str]) -> bool:
    """Return whether a symlink with *target* leads where *entry* says, however that is spelled."""
    if target == fill_link(entry, places):
        return True
    return find_link(target, places, resolve) == (entry.target, entry.slots)


def is_record(entry: Entry) -> bool:
    """Return whether *entry* can only be filled in after the files that it describes."""
    return bool(entry.slots) and any(slot.form == "record" for slot in entry.slots)


def is_fillable(slot: Slot) -> bool:
    """Return whether a slot is one that :func:`fill` knows: what goes there, and how it is written."""
    if slot.form == "record":
        return slot.kind == "file"
    if slot.form == "shebang":
        return slot.kind == "venv"
    return slot.kind in postinstall.KINDS and slot.form in postinstall.WRITERS


def record_fields(digest: bytes, size: int) -> bytes:
    """Return ``sha256=…,size`` as a RECORD spells it (URL-safe base64 without padding)."""
    return b"sha256=%s,%d" % (base64.urlsafe_b64encode(digest).rstrip(b"="), size)


def digest_of(data: bytes) -> tuple[bytes, int]:
    """Return SHA-256 and size of *data*, as :data:`Digests` holds them."""
    return hashlib.sha256(data).digest(), len(data)
