#!/usr/bin/env python3
"""Make an unpacked virtual environment work where it lies: run it once after unpacking, and after every move.

    python3 postinstall.py [--python PATH] [--project DIR] [--compile] [--force] [--dry-run]

It fills the environment's own path into every script, activation file and setting that names it, links the
interpreter, and recomputes the lines of RECORD files that describe what it wrote. What it needs to know lies
beside it in .venvflow-pack. It needs nothing but Python 3.8 or newer and asks no network.

Exit codes: 0 done, 2 wrong words, 3 no fitting interpreter or a file that cannot be written, 4 damaged.
"""

# This file is put into archives as it is, so it imports nothing of venvflow; the halves of relocate.py and
# spelling.py that write are here again, and a test holds them together.

from __future__ import annotations

import argparse
import base64
import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

METADATA = ".venvflow-pack"
FORMAT = 1
OK, USAGE, ENVIRONMENT, DAMAGED = 0, 2, 3, 4


class Problem(Exception):
    """Why nothing more can be done; *code* is the exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Report(NamedTuple):
    """What was done: paths in the environment that were written, were right already, and were linked."""

    place: str
    python: str
    written: list[str]
    unchanged: list[str]
    linked: list[str]
    notes: list[str]


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


LONGEST_SHEBANG = 127  # bytes of a first line that every kernel reads whole


def fill(data: bytes, slots: Iterable[Any], places: Places, digest_of: Callable[[str], bytes]) -> bytes:
    """Return the template *data* with its slots, rows of offset, kind, form and argument, filled in.

    *digest_of* returns how a RECORD is to describe the file at a path.
    """
    pieces = []
    position = 0
    for offset, kind, form, argument in slots:
        if not position <= offset <= len(data):
            raise ValueError(f"a slot at {offset} of a template of {len(data)} bytes")
        pieces.append(data[position:offset])
        if form == "record":
            pieces.append(digest_of(argument))
        elif form == "shebang":
            pieces.append(shebang(places.venv, argument))
        else:
            pieces.append(WRITERS[form](places.text(kind)))
        position = offset
    return b"".join(pieces) + data[position:]


def shebang(venv: str, argument: str) -> bytes:
    """Return a first line that runs the environment's Python, through /bin/sh where a kernel could not."""
    below, space, rest = argument.partition(" ")
    interpreter = f"{venv}/{below}"
    line = os.fsencode(f"#!{interpreter}{space}{rest}\n")
    if len(line) <= LONGEST_SHEBANG and not re.search(r"\s", interpreter) and is_text(interpreter):
        return line
    word = word_in_trampoline(interpreter)
    return os.fsencode(f"#!/bin/sh\n'''exec' {word}{space}{rest} \"$0\" \"$@\"\n' '''\n")


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
    """Return *text* as one word that sh, bash, zsh, csh and fish all read alike."""
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


WRITERS: dict[str, Callable[[str], bytes]] = {
    "raw": os.fsencode,
    "line": lambda text: os.fsencode(text).replace(b"\n", b" ").replace(b"\r", b" "),
    "sh": shell_word,
    "url": lambda text: quote(os.fsencode(text)).encode("ascii"),
    "py": python_literal,
    "json": lambda text: json.dumps(text)[1:-1].encode("ascii"),
}


def record_fields(data: bytes) -> bytes:
    """Return hash and size of *data* as a RECORD spells them."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return b"sha256=%s,%d" % (digest, len(data))


# --------------------------------------------------------------------------- what the archive says


class Pack(NamedTuple):
    """What lies in .venvflow-pack, checked."""

    needs: dict[str, str]
    templates: list[Any]  # [path, executable, start, length, slots]
    blob: bytes
    links: list[Any]  # [path, target, slots]
    editable: list[str]  # distributions of which only a path to the code is here

    @property
    def bound(self) -> bool:
        """Return whether something names the project."""
        rows = self.templates + self.links
        return any(slot[1] == "project" for row in rows for slot in row[-1])


def load(root: str) -> Pack:
    """Return what the archive that was unpacked at *root* says; raises Problem if it cannot be trusted."""
    try:
        with open(os.path.join(root, METADATA, "pack.json"), "rb") as file:
            document = json.loads(file.read())
        with open(os.path.join(root, METADATA, "templates"), "rb") as file:
            blob = file.read()
        needs = document["description"].get("python") or {}
        editable = [str(name) for name in document.get("editable") or []]
        pack = Pack(dict(needs), document["templates"], blob, document["links"], editable)
        wrong = "another format" if document["format"] != FORMAT else check(root, pack)
        if hashlib.sha256(blob).hexdigest() != document["templates_sha256"]:
            wrong = "templates that were changed"
    except OSError as error:
        raise Problem(f"cannot read {error.filename}: {error.strerror}", ENVIRONMENT) from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise Problem(f"{METADATA} is damaged: {error!r}", DAMAGED) from error
    if wrong:
        raise Problem(f"{METADATA} is damaged: it has {wrong}", DAMAGED)
    return pack


def check(root: str, pack: Pack) -> str:
    """Return what is unsafe about *pack*, or nothing: it may have been made to write somewhere else."""
    real = os.path.realpath(root)
    for row in pack.templates + pack.links:
        if unsafe_name(row[0]):
            return f"an unsafe path {row[0]!r}"
        parent = os.path.join(real, *row[0].split("/")[:-1])
        if os.path.realpath(parent) != parent:
            return f"a path through a link, {row[0]!r}"
    for path, target, slots in pack.links:
        if leads_out(path, target, slots):
            return f"a link that leads out, {path!r}"
    return ""


def unsafe_name(path: str) -> bool:
    """Return whether *path* may lie outside of the environment."""
    parts = path.split("/")
    return not all(parts) or "." in parts or ".." in parts or "\0" in path


def leads_out(path: str, target: str, slots: list[Any]) -> bool:
    """Return whether a link leads elsewhere than into the environment, or to a local path that is meant."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    if slots:
        return len(slots) > 1 or slots[0][0] != 0 or ".." in parts
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    return not target or target.startswith("/") or ".." in parts[climbs:] or climbs > path.count("/")


# --------------------------------------------------------------------------- the interpreter

ASK = """
import json, os, sys, sysconfig
variable = sysconfig.get_config_var
abi = [variable("SOABI") or sys.implementation.cache_tag or "unknown"]
if variable("Py_DEBUG") or hasattr(sys, "gettotalrefcount"):
    abi.append("debug")
if variable("Py_GIL_DISABLED"):
    abi.append("freethreaded")
print("venvflow:" + json.dumps({
    "executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "implementation": sys.implementation.name,
    "version": "%d.%d.%d" % sys.version_info[:3],
    "abi": " ".join(abi),
}))
"""


def ask(python: str) -> dict[str, str]:
    """Return what the interpreter at *python* says of itself; raises Problem if it says nothing."""
    try:
        answer = subprocess.run(
            [python, "-I", "-S", "-c", ASK],
            capture_output=True,
            timeout=30,
            check=True,
        )
        said = answer.stdout.decode("utf-8", "replace").rpartition("venvflow:")[2]
        return dict(json.loads(said))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Problem(f"cannot run {python} as a Python: {why}", ENVIRONMENT) from error


def minor(version: str) -> str:
    """Return the first two numbers of a version."""
    return ".".join(version.split(".")[:2])


def mismatch(needs: dict[str, str], facts: dict[str, str]) -> str:
    """Return in words why an interpreter does not fit, or nothing."""
    wanted = "{} {}".format(needs.get("implementation", ""), minor(needs.get("version", ""))).strip()
    found = "{} {}".format(facts["implementation"], minor(facts["version"]))
    if needs.get("version") and found != wanted:
        return f"it is {found}, but the packages are for {wanted}"
    if needs.get("abi") and facts["abi"] != needs["abi"]:
        return "its ABI is {}, but the packages are for {}".format(facts["abi"], needs["abi"])
    return ""


def choose(needs: dict[str, str], wanted: str, force: bool) -> str:
    """Return the path of the interpreter to link; raises Problem in words if none fits."""
    if wanted:
        facts = ask(wanted)
        wrong = mismatch(needs, facts)
        if wrong and not force:
            raise Problem(f"{wanted} does not fit: {wrong}. Give another one, or --force.", ENVIRONMENT)
        return facts["executable"]
    refused = []
    for candidate in candidates(needs):
        try:
            facts = ask(candidate)
        except Problem as problem:
            refused.append(str(problem))
            continue
        wrong = mismatch(needs, facts)
        if not wrong:
            return facts["executable"]
        refused.append(f"{candidate}: {wrong}")
    raise Problem(
        "no fitting interpreter found. Install it, or give one with --python.\n  " + "\n  ".join(refused),
        ENVIRONMENT,
    )


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


def complete(
    root: str,
    *,
    place: str = "",
    project: str = "",
    python: str = "",
    force: bool = False,
    dry_run: bool = False,
) -> Report:
    """Make the environment at *root* work at *place* (which is *root*, unless it will be moved there).

    Each file is replaced whole or not at all, and one that is right already is left alone, so this can be
    run again at any time. With *dry_run* nothing is written. Raises Problem.
    """
    pack = load(root)
    place = os.path.abspath(place or root)
    notes = []
    if pack.bound and not project:
        project = os.path.dirname(place)
        notes.append(f"some files name the project they were made for: taken to be {project} (--project)")
    if pack.editable:
        names = ", ".join(pack.editable)
        where = os.path.abspath(project) if project else "the place that it had where it was packed"
        notes.append(
            f"the code of {names} is not in here: it is installed editable, and looked for in {where}"
        )
    places = Places(place, os.path.abspath(project or place), choose(pack.needs, python, force))
    report = Report(place, places.python, [], [], [], notes)
    try:
        for path, data, executable in filled(root, pack, places):
            changed = put_file(os.path.join(root, path), data, executable, dry_run)
            (report.written if changed else report.unchanged).append(path)
        for path, target, slots in pack.links:
            text = os.fsdecode(fill(os.fsencode(target), slots, places, no_digest))
            if put_link(os.path.join(root, path), text, dry_run):
                report.linked.append(path)
    except OSError as error:
        raise Problem(f"cannot write {error.filename}: {error.strerror}", ENVIRONMENT) from error
    except (ValueError, KeyError, TypeError) as error:
        raise Problem(f"{METADATA} is damaged: {error!r}", DAMAGED) from error
    return report


def filled(root: str, pack: Pack, places: Places) -> Iterator[tuple[str, bytes, bool]]:
    """Yield path, bytes and executable bit of every file to write, RECORDs after what they describe."""
    done: dict[str, bytes] = {}

    def digest_of(path: str) -> bytes:
        if path not in done:
            if unsafe_name(path) or not os.path.isfile(os.path.join(root, path)):
                raise ValueError("a RECORD that describes " + path)
            with open(os.path.join(root, path), "rb") as file:
                done[path] = record_fields(file.read())
        return done[path]

    for path, executable, start, length, slots in sorted(pack.templates, key=is_record):
        data = fill(pack.blob[start : start + length], slots, places, digest_of)
        done[path] = record_fields(data)
        yield path, data, bool(executable)


def is_record(row: list[Any]) -> bool:
    """Return whether a template describes other files."""
    return any(slot[2] == "record" for slot in row[-1])


def no_digest(path: str) -> bytes:
    """Refuse to describe a file where no description belongs."""
    raise ValueError("a link that describes " + path)


def put_file(path: str, data: bytes, executable: bool, dry_run: bool) -> bool:
    """Write a file whole or not at all, unless it is right already; return whether it was not."""
    if not os.path.islink(path) and os.path.isfile(path):
        with open(path, "rb") as file:
            if file.read() == data:
                return False
    if not dry_run:
        temporary = beside(path)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755 if executable else 0o644)
        try:
            with open(fd, "wb") as file:
                file.write(data)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    return True


NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
"""What systems answer that know no symlinks, or do not let everybody make them."""


def put_link(path: str, target: str, dry_run: bool) -> bool:
    """Make a symlink, or a copy where links cannot be; return whether it was not there yet."""
    if os.path.islink(path) and os.readlink(path) == target:
        return False
    if dry_run:
        return True
    temporary = beside(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        os.symlink(target, temporary)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return copy_instead(path, os.path.join(os.path.dirname(path), target))
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return True


def copy_instead(path: str, source: str) -> bool:
    """Copy what a link would have led to."""
    if os.path.isdir(source):
        if os.path.isdir(path):
            return False
        shutil.copytree(source, path, symlinks=True)
    else:
        shutil.copy2(source, path)
    return True


def beside(path: str) -> str:
    """Return a free name in the same directory, short whatever the name of the file."""
    return os.path.join(os.path.dirname(path), f".vf-{os.getpid()}-{os.urandom(4).hex()}")


def compile_library(root: str) -> str:
    """Compile the packages with the environment's interpreter; return what could not be, if any."""
    library = os.path.join(root, "lib")
    answer = subprocess.run(
        [os.path.join(root, "bin", "python"), "-I", "-m", "compileall", "-q", "-j", "0", library],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return answer.stdout.decode("utf-8", "replace").strip() if answer.returncode else ""


# --------------------------------------------------------------------------- saying it


def described(report: Report, dry_run: bool) -> str:
    """Return for people what was done."""
    verb = "would be" if dry_run else "were"
    filled_in = f"{len(report.written)} files {verb} filled in, {len(report.unchanged)} were right already"
    lines = [
        f"{report.place}: {filled_in}, {len(report.linked)} links {verb} made.",
        f"Python: {report.python}",
        *(f"note: {note}" for note in report.notes),
    ]
    return "\n".join(lines) + "\n"


def parsed(words: list[str] | None) -> argparse.Namespace:
    """Return what the command line asks for."""
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
        left = compile_library(root)
        sys.stdout.write(f"note: not everything could be compiled:\n{left}\n" if left else "Compiled.\n")
    return OK


if __name__ == "__main__":
    sys.exit(main())
