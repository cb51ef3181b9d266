"""Reads lock files as text: which other files they refer to, and which packages they pin.

Pure: bytes in, values out. Nothing here decides what is installed, nor what a key is made of
(:mod:`venvflow.pure.own_part` does). It is read to follow ``-r`` and ``-c``, to notice projects of the same
repository, to warn about what the bytes do not pin, and to explain a miss. So it is lenient: what cannot be
read is left out, and no input raises.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

from venvflow.pure.names import kind_of, normalised
from venvflow.pure.redaction import redact

_QUERY = re.compile(r"\?[^#\s]*")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_FILE_OPTION = re.compile(r"(?:-([rce])|--(requirement|constraint|editable)(?=[\s=]))\s*=?\s*(.+)")
_NAMED_TARGET = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\]\s*)?@\s*(\S+)")
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\]\s*)?\(?([^;()]*)")
_FIXED = re.compile(r"===?\s*([^\s,*]+)\s*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?=//|[^/\\])|file:", re.IGNORECASE)
_FILE_SCHEME = re.compile(r"file:(?://(?:localhost)?(?=/))?", re.IGNORECASE)
_VERSION_CONTROL = re.compile(r"(?:git|hg|svn|bzr)\+", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.IGNORECASE)
_FRAGMENT_HASH = re.compile(r"[#&](?:sha(?:256|384|512))[=:][0-9a-f]{32,}", re.IGNORECASE)
_ARCHIVE = re.compile(r"\.(?:whl|zip|tar|tgz|tbz|txz|tar\.\w+)$", re.IGNORECASE)
_EXTRAS = re.compile(r"\[[^\]/]*\]$")
_LONGEST = 1000
"""Characters of a sentence about a package."""


class References(NamedTuple):
    """What a lock file refers to beyond its own bytes.

    *includes* are further requirements files, some of them *constraints* alone, and *local* directories of
    projects, as written: relative to the directory of the lock file, or absolute. *unpinned* are sentences
    about what may change although the lock file does not, without credentials.
    """

    includes: tuple[str, ...] = ()
    local: tuple[str, ...] = ()
    unpinned: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()


class _Package(NamedTuple):
    name: str = ""
    version: str = ""
    include: str = ""
    constraint: str = ""
    local: str = ""
    unpinned: str = ""
    asked: str = ""


class Choices(NamedTuple):
    """What can be chosen from a kind of lock file: by which *tools*, and by which *keys* of a venv."""

    noun: str
    tools: str
    keys: tuple[str, ...]


CHOICES = {
    "uv": Choices("uv.lock", "uv", ("groups", "extras", "dev", "packages")),
    "poetry": Choices("poetry.lock", "poetry", ("groups", "extras", "dev")),
    "pdm": Choices("pdm.lock", "pdm", ("groups", "extras", "dev")),
    "pipenv": Choices("Pipfile.lock", "pipenv", ("groups", "dev")),
    "requirements": Choices("a requirements file", "uv and pip", ("editable",)),
    "pylock": Choices("pylock.toml", "uv and pip", ("editable",)),
}
"""By kind of lock file, with its *noun* for messages."""


def why_not_chosen(key: str, locks: Iterable[str]) -> str:
    """Return why the *key* of a venv cannot choose from *locks*, or an empty text."""
    kinds = {kind_of(lock) for lock in locks}
    known = sorted(kinds & CHOICES.keys()) or ["requirements"]
    if not kinds or any(key in CHOICES[kind].keys for kind in known):
        return ""
    able = [each.noun for each in CHOICES.values() if key in each.keys]
    mine = CHOICES[known[0]]
    return f"{mine.tools} cannot do that with {mine.noun}; possible with {', '.join(able)}"


def groups_in(name: str, data: bytes) -> frozenset[str] | None:
    """Return what groups and extras may be named for a lock file whose tool does not say if one is missing.

    None for other tools, and for what cannot be read.
    """
    kind = kind_of(name)
    if kind == "pipenv":
        document = read_json(data)
        return frozenset(document) - {"_meta", "default"} if document else None
    if kind == "pdm":
        groups = table_at(read_toml(data), "metadata").get("groups")
        return (
            frozenset(each for each in groups if isinstance(each, str)) if isinstance(groups, list) else None
        )
    return None


def references(name: str, data: bytes) -> References:
    """Return what the lock file *name* with the content *data* refers to beyond its own bytes."""
    found = list(_read(name, data))
    required = {package.include for package in found if not package.constraint}
    return References(
        _paths(package.include for package in found),
        _paths(package.local for package in found),
        tuple(dict.fromkeys(_short(redact(package.unpinned)) for package in found if package.unpinned)),
        _paths(package.constraint for package in found if package.constraint not in required),
    )


def _short(sentence: str) -> str:
    """Return a sentence without its middle if it is longer than anybody would read."""
    return (
        f"{sentence[: _LONGEST // 2]}…{sentence[-_LONGEST // 2 :]}" if len(sentence) > _LONGEST else sentence
    )


def locked_by(data: bytes) -> str:
    """Return the tool that made a requirements file with the content *data*: uv or pip-compile, else nothing.

    They say so in the comment at its beginning.
    """
    found = re.search(r"autogenerated by (uv|pip-compile)\b", decoded(data[:_LONGEST]))
    return found[1] if found else ""


def packages(name: str, data: bytes) -> dict[str, str]:
    """Return which versions the lock file *name* with the content *data* pins, by normalised name.

    Several versions of one package (for several platforms) are separated by commas; a package that has
    no version but a URL has that, after ``@`` and without credentials.
    """
    pinned = (package for package in _read(name, data) if package.version)
    return _by_name((package.name, redact(package.version)) for package in pinned)


def listed(name: str, data: bytes) -> dict[str, str] | None:
    """Return every package that the lock file *name* with the content *data* lists, by normalised name.

    Its value is its version, else its source, else its requirement (``>=2``, ``any``).
    It is made to be kept: neither credentials nor the query of a URL are in it. None for a file that cannot
    be read: damaged, or of a kind that we do not know.
    """
    packages = _readable(kind_of(name), data)
    if packages is None:
        return None
    return _by_name((package.name, _worth_keeping(package)) for package in packages)


def _by_name(told: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the values of packages by normalised name; of one that is there twice, all values."""
    found: dict[str, set[str]] = {}
    for name, text in told:
        if name:
            found.setdefault(normalised(name), set()).add(text)
    return {key: ", ".join(sorted(found[key])) for key in sorted(found)}


def _worth_keeping(package: _Package) -> str:
    if package.version:
        return _QUERY.sub("", redact(package.version))
    return f"@ {package.local}" if package.local else package.asked or "any"


def _read(name: str, data: bytes) -> Iterator[_Package]:
    return _readable(kind_of(name), data) or iter(())


def _readable(kind: str, data: bytes) -> Iterator[_Package] | None:
    """Return the packages of a lock file, None if it cannot be read."""
    if kind == "requirements":
        return _requirements(decoded(data))
    if kind not in _READERS:
        return None
    document = document_of(kind, data)
    return _READERS[kind](document) if document else None


def _paths(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value and "\0" not in value))


# --------------------------------------------------------------------------- requirements files


def decoded(data: bytes) -> str:
    """Return *data* as text, as pip does: by its byte order mark, else as UTF-8."""
    marks = (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")
    return data.decode(next((code for mark, code in marks if data.startswith(mark)), "utf-8"), "replace")


def logical_lines(text: str) -> Iterator[str]:
    """Yield lines without comments, those that end in a backslash joined with the next."""
    joined = ""
    for line in text.splitlines():
        is_comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not is_comment:
            joined += line.rstrip("\\")
            continue
        whole = joined + (" " if is_comment else "") + line
        joined = ""
        if "#" in whole:  # few lines have one, and to look for where it stands takes longest
            whole = _COMMENT.sub("", whole)
        if whole := whole.strip():
            yield whole
    if joined.strip():
        yield _COMMENT.sub("", joined).strip()


def _requirements(text: str) -> Iterator[_Package]:
    for line in logical_lines(text):
        if option := file_option(line):
            yield _named_by(*option)
        elif not line.startswith("-"):
            yield _requirement(line)


def file_option(line: str) -> tuple[str, str] | None:
    """Return what a *line* of a requirements file names by an option: a letter, and what stands behind it.

    The letter is r (a file that is included), c (one of constraints) or e (an editable project).
    """
    found = _FILE_OPTION.match(line)
    if not found:
        return None
    letter, value = (found[1] or found[2])[0], found[3]
    # Blanks belong to an editable project: a marker or extras may stand behind them.
    return letter, value if letter == "e" and value[:1] not in {"'", '"'} else _first_word(value)


def _named_by(letter: str, value: str) -> _Package:
    if letter == "e":
        return _requirement(value, editable=True)
    if _SCHEME.match(value) and not _FILE_SCHEME.match(value):
        return _Package(unpinned=f"requirements are read from {value}, which may change")
    path = _file_path(value)
    return _Package(include=path, constraint=path if letter == "c" else "")


def _first_word(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return words[0] if words else ""


def _requirement(line: str, *, editable: bool = False) -> _Package:
    words, *options = re.split(r"\s(?=-)", line, maxsplit=1)
    hashed = any("--hash" in option for option in options)
    if named := _NAMED_TARGET.match(words):
        return _target(named[1], named[2].rstrip(";"), hashed=hashed)
    place = re.split(r"\s;|\s#", words)[0].strip()
    if editable or _SCHEME.match(place) or _is_path(place):
        egg = re.search(r"#(?:.*&)?egg=([\w.-]+)", place)
        return _target(egg[1] if egg else "", place, hashed=hashed)
    return _by_version(words)


def _is_path(text: str) -> bool:
    start = text.partition("[")[0].partition(";")[0]
    return start.startswith((".", "/", "~")) or "/" in start or _ARCHIVE.search(start) is not None


def _by_version(words: str) -> _Package:
    named = _NAMED.match(words)
    if not named:
        return _Package()
    asked = named[2].strip()
    if fixed := _FIXED.fullmatch(asked):
        return _Package(named[1], fixed[1])
    wanted = f"any version that fits {asked}" if asked else "any version"
    return _Package(named[1], unpinned=f"{named[1]} may be {wanted}", asked=asked)


# --------------------------------------------------------------------------- URLs and paths


def _target(name: str, target: str, *, hashed: bool) -> _Package:
    """Return the package at a URL or path; *hashed*: the lock file has a hash of it elsewhere."""
    if _VERSION_CONTROL.match(target):
        path, _, _ = target.partition("#")
        return _from_commit(name, target, path.rpartition("@")[2])
    if not _SCHEME.match(target) or _FILE_SCHEME.match(target):
        return _from_path(name, _file_path(target), hashed=hashed)
    if hashed or _FRAGMENT_HASH.search(target):
        return _Package(name, f"@ {target}")
    problem = f"{name or 'a package'} is whatever {target} serves: there is no hash"
    return _Package(name, f"@ {target}", unpinned=problem)


def _from_commit(name: str, url: str, commit: str) -> _Package:
    what = name or "a package"
    if _COMMIT.fullmatch(commit):
        return _Package(name, f"@ {url}")
    return _Package(name, f"@ {url}", unpinned=f"{what} is whatever {url} holds: no commit is named")


def _from_path(name: str, path: str, *, hashed: bool = False) -> _Package:
    path = _EXTRAS.sub("", path)
    if not _ARCHIVE.search(path):
        return _Package(name, local=path)
    what = name or "a package"
    problem = "" if hashed else f"{what} is whatever the file {path} holds: there is no hash"
    return _Package(name, f"@ {path}", unpinned=problem)


def _file_path(target: str) -> str:
    scheme = _FILE_SCHEME.match(target)
    if not scheme:
        return target.partition("#egg=")[0]
    return unquote(target[scheme.end() :].partition("#")[0])


# --------------------------------------------------------------------------- TOML and JSON


def read_toml(data: bytes) -> dict[str, Any]:
    """Return what TOML says, nothing if it cannot be read."""
    if sys.version_info >= (3, 11):
        from tomllib import loads  # noqa: PLC0415 - only some formats need it
    else:
        from tomli import loads  # noqa: PLC0415
    return _document(loads, data)


@lru_cache(maxsize=2)
def document_of(kind: str, data: bytes) -> dict[str, Any]:
    """Return a lock file of that *kind*, or an own part of one, as it is read; nobody changes it.

    It takes a second for some; steps ask one after the other, and so do all venvs of a workspace.
    """
    is_json = kind == "pipenv" or data.startswith(b"{")  # no TOML does, but an own part of a lock file does
    return read_json(data) if is_json else read_toml(data)


def read_json(data: bytes) -> dict[str, Any]:
    """Return what JSON says, nothing if it cannot be read."""
    return _document(json.loads, data)


def _document(parse: Callable[[str], Any], data: bytes) -> dict[str, Any]:
    try:
        document = parse(decoded(data))
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def tables_at(parent: object, key: str) -> list[dict[str, Any]]:
    """Return the tables in the list at *key*, none if there is no list."""
    found = value_at(parent, key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def value_at(document: object, *keys: str) -> Any:
    """Return the value at *keys* in nested tables, None if there is none."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def table_at(document: object, *keys: str) -> dict[str, Any]:
    """Return the table at *keys* in nested tables, empty if there is none."""
    found = value_at(document, *keys)
    return found if isinstance(found, dict) else {}


def _text(table: dict[str, Any], *keys: str) -> str:
    return next((table[key] for key in keys if isinstance(table.get(key), str) and table[key]), "")


def _pylock(document: dict[str, Any]) -> Iterator[_Package]:
    for package in tables_at(document, "packages"):
        vcs, archive = table_at(package, "vcs"), table_at(package, "archive")
        hashes = [bool(file.get("hashes")) for file in _files(package)]
        local = _text(table_at(package, "directory"), "path")
        git = _text(vcs, "url", "path"), _text(vcs, "commit-id")
        place = _text(archive, "url", "path"), bool(archive.get("hashes"))
        yield _locked(package, hashes, git, place, local)


def _uv(document: dict[str, Any]) -> Iterator[_Package]:
    for package in tables_at(document, "package"):
        source = table_at(package, "source")
        hashes = [bool(file.get("hash")) for file in _files(package)]
        local = _text(source, "editable", "directory", "virtual")
        git = _text(source, "git")
        place = _text(source, "url", "path"), any(hashes)
        yield _locked(package, hashes, (git, git.rpartition("#")[2]), place, local)


def _poetry(document: dict[str, Any]) -> Iterator[_Package]:
    # Before lock version 2 the files stood in one table at the end.
    at_the_end = table_at(document, "metadata", "files")
    for package in tables_at(document, "package"):
        source = table_at(package, "source")
        kind, url = _text(source, "type"), _text(source, "url")
        files = tables_at(package, "files") or tables_at(at_the_end, _text(package, "name"))
        hashes = [bool(file.get("hash")) for file in files]
        git = url if kind == "git" else "", _text(source, "resolved_reference")
        place = url if kind in {"directory", "file", "url"} else "", bool(files)
        yield _locked(package, hashes, git, place)


def _pdm(document: dict[str, Any]) -> Iterator[_Package]:
    for package in tables_at(document, "package"):
        hashes = [bool(file.get("hash")) for file in tables_at(package, "files")]
        git = _text(package, "git"), _text(package, "revision")
        yield _locked(package, hashes, git, (_text(package, "path", "url"), bool(hashes)))


def _locked(
    package: dict[str, Any],
    hashes: list[bool],
    git: tuple[str, str],
    place: tuple[str, bool],
    local: str = "",
) -> _Package:
    """Return a *package* of a lock file: of a *local* project, of *git*, of a *place*, or else of an index.

    *hashes* says which of its files have one, *git* its repository and commit, *place* its URL or path and
    whether there is a hash of what is there. Empty texts are none.
    """
    name, version = _text(package, "name"), _text(package, "version")
    if local:
        return _from_path(name, local)
    if git[0]:
        found = _from_commit(name, *git)
    elif place[0]:
        found = _target(name, place[0], hashed=place[1])
    else:
        problem = f"{name} {version} may be any file of that version: there is no hash"
        return _Package(name, version, unpinned="" if all(hashes) else problem)
    return found._replace(version=f"{version} {found.version}".strip())  # both can change


def _pipenv(document: dict[str, Any]) -> Iterator[_Package]:
    for section, group in document.items():
        if section != "_meta" and isinstance(group, dict):
            for name, package in group.items():
                if isinstance(package, dict):
                    yield _pipenv_package(name, package)


def _pipenv_package(name: str, package: dict[str, Any]) -> _Package:
    hashed = bool(package.get("hashes"))
    if url := _text(package, "git", "hg", "svn"):
        return _from_commit(name, url, _text(package, "ref"))
    if place := _text(package, "path", "file"):
        return _target(name, place, hashed=hashed)
    return _by_version(name + _text(package, "version").replace("*", ""))


def _files(package: dict[str, Any]) -> list[dict[str, Any]]:
    sdist = table_at(package, "sdist")
    return tables_at(package, "wheels") + ([sdist] if sdist else [])


_READERS: dict[str, Callable[[dict[str, Any]], Iterator[_Package]]] = {
    "pylock": _pylock,
    "uv": _uv,
    "poetry": _poetry,
    "pdm": _pdm,
    "pipenv": _pipenv,
}
