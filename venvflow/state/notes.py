"""What uv notes of local packages, given back to a restored venv for the place that it is at.

In ``uv_cache.json``, uv notes when the sources of a package from a local directory or file changed: times
of change of the files that count, times of birth of directories, commit and tags, environment variables. It
installs the package anew as soon as it would note something else. What is computed here is ``CacheInfo`` of
uv's source (``crates/uv-cache-info/src/cache_info.rs``, from uv 0.8 to 0.13 the same, but that before 0.12 it
found no commit of a worktree, and no packed reference).

Such times are those of one checkout, so notes are neither shared nor stored nor packed, and may come and go
(:func:`venvflow.state.file_stats.is_ignored`); RECORDs name them without a hash. A snapshot remembers a hash
of what the times stand for: the bytes of these files, the commit and so on, and of a package that was copied
into the venv all its sources. A restored venv gets the note that uv would write now if that hash is the same.
Otherwise, and where anything is not certain, it gets none: uv then installs that package from what is there.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from venvflow.disk.descriptors import Directories, directory
from venvflow.disk.files import read_small
from venvflow.disk.kernel import birth_time
from venvflow.disk.links import write_private
from venvflow.disk.scan import Changing, Content, read
from venvflow.model import INSTALLER_NOTE
from venvflow.pure.lockfiles import read_json, read_toml, value_at
from venvflow.pure.patterns import star_problem

_MOST_BYTES = 256 << 20
"""Bytes of sources of one package that are read."""

_MOST_NAMES = 100_000
"""Names in the directories of one package that are looked at."""


class Uncertain(Exception):
    """It cannot be told what uv would note."""


class Noted(NamedTuple):
    """What uv would *note* of a package's sources now, and a hash of what that stands for, the *evidence*."""

    note: dict[str, Any]
    evidence: str


def remember(venv: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the evidence for each note in the venv at path *venv* that is what uv would write now.

    By path of the note. One that is older than its sources, or of a kind that is not known, is left out.
    """
    found = {}
    for path in sorted(glob.glob(f"lib/*/site-packages/*{INSTALLER_NOTE}", root_dir=venv)):
        noted = _look(venv, path, environ)
        with suppress(OSError):
            if noted is not None and noted.note == _EMPTY | read_json(read_small(f"{venv}/{path}")):
                found[path] = noted.evidence
    return found


def give(venv: str, notes: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """Write *notes*, evidence by path, into the new venv at path *venv*, as far as that still holds here.

    Raises ``OSError`` when a note cannot be written.
    """
    with directory(venv) as root, Directories(root, make=False) as places:
        for path, evidence in notes.items():
            noted = _look(venv, path, environ)
            if noted is not None and noted.evidence == evidence:
                parent, name = places.parent(path)
                write_private(name, parent, json.dumps(noted.note).encode(), executable=False)


def _look(venv: str, path: str, environ: Mapping[str, str]) -> Noted | None:
    """Return what uv would write to *path* now, None where that is not certain."""
    with suppress(OSError, Changing, Uncertain):
        return _look_at_source(venv, path, environ)
    return None


def _look_at_source(venv: str, path: str, environ: Mapping[str, str]) -> Noted:
    document = read_json(read_small(f"{venv}/{os.path.dirname(path)}/direct_url.json"))
    url = document.get("url")
    if not isinstance(url, str) or not url.startswith("file:///") or document.get("subdirectory"):
        raise Uncertain
    source, details = unquote(urlsplit(url).path), document.get("dir_info")
    if os.path.isdir(source):
        editable = isinstance(details, dict) and details.get("editable") is True
        return look_at_directory(source, environ, whole=not editable)
    return _noted({"": _read(source)}, {})


# --------------------------------------------------------------------------- what uv looks at

_EMPTY: dict[str, Any] = {"timestamp": None, "commit": None, "tags": None, "env": {}, "directories": {}}
_USUAL = ("pyproject.toml", "setup.py", "setup.cfg", {"dir": "src"})
"""What counts if ``[tool.uv]`` has no ``cache-keys``."""


def look_at_directory(source: str, environ: Mapping[str, str], *, whole: bool) -> Noted:
    """Return what uv would note of the package whose sources lie in the directory at path *source*.

    *whole*: all its files are evidence, not only those that uv looks at. Raises ``OSError``, Changing,
    Uncertain.
    """
    keys = _cache_keys(source)
    files = {key for key in keys if isinstance(key, str)}
    directories: dict[str, Any] = {}
    noted: dict[str, Any] = {"env": {}, "directories": directories}
    for key in keys:
        if isinstance(key, str):
            continue
        if "dir" in key:
            at = os.path.join(source, key["dir"])
            if os.path.isdir(at):
                born = birth_time(at)
                directories[key["dir"]] = os.stat(at).st_ino if born is None else _time(born)
            elif not os.path.exists(at):
                directories[key["dir"]] = None
        elif "env" in key:
            noted["env"][key["env"]] = environ.get(key["env"])
        else:
            asked = key["git"] if isinstance(key["git"], dict) else {"commit": key["git"]}
            noted |= {name: _FROM_GIT[name](source) for name, wanted in asked.items() if wanted}
    globs = {file for file in files if re.search(r"[*?\[{]", file)}
    named = {*(files - globs), *_matching(source, sorted(globs))}
    files = {file for file in named if os.path.isfile(os.path.join(source, file))}
    contents = _read_all(source, files)
    others = _read_all(source, set(_files_below(source, _has_sources)) - files) if whole else {}
    return _noted(contents, noted, others)


def _noted(
    files: Mapping[str, Content], noted: Mapping[str, Any], others: Mapping[str, Content] | None = None
) -> Noted:
    """Return a note by the times of *files*; *others* are only evidence."""
    latest = max((content.stamp.ctime_ns for content in files.values()), default=None)
    note = {**_EMPTY, **noted, "timestamp": None if latest is None else _time(latest)}
    stands_for = note | {
        "timestamp": sorted((name, content.digest) for name, content in {**files, **(others or {})}.items()),
        "directories": sorted((name, seen is not None) for name, seen in note["directories"].items()),
    }
    return Noted(note, hashlib.sha256(json.dumps(stands_for, sort_keys=True).encode("ascii")).hexdigest())


def _time(ns: int) -> dict[str, int]:
    seconds, nanoseconds = divmod(ns, 1_000_000_000)
    return {"secs_since_epoch": seconds, "nanos_since_epoch": nanoseconds}


def _read_all(source: str, names: Iterable[str]) -> dict[str, Content]:
    left, found = _MOST_BYTES, {}
    for name in sorted(names):
        found[name] = _read(os.path.join(source, name), left)
        left -= found[name].stamp.size
    return found


def _read(path: str, most: int = _MOST_BYTES) -> Content:
    """Read a file; its time is that of what was read. Raises ``OSError``, Changing, Uncertain."""
    path = os.path.realpath(path)
    if os.stat(path).st_size > most:
        raise Uncertain
    return read(path)


# --------------------------------------------------------------------------- which files


def _cache_keys(source: str) -> list[str | dict[str, Any]]:
    """Return what a project says that counts; what makes no sense is an error to some uv, not to others."""
    document = {}
    with suppress(FileNotFoundError):
        document = read_toml(read_small(f"{source}/pyproject.toml", follow=True))
    asked = value_at(document, "tool", "uv", "cache-keys")
    keys = _USUAL if asked is None else asked
    if not (isinstance(keys, list | tuple) and all(map(_is_key, keys))):
        raise Uncertain
    return [key["file"] if isinstance(key, dict) and "file" in key else key for key in keys]


def _is_key(key: object) -> bool:
    if not isinstance(key, dict) or len(key) != 1:
        return isinstance(key, str)
    if isinstance(asked := key.get("git"), dict):
        return asked.keys() <= _FROM_GIT.keys() and all(isinstance(each, bool) for each in asked.values())
    return isinstance(asked, bool) or any(isinstance(key.get(name), str) for name in ("file", "dir", "env"))


def _matching(source: str, patterns: Iterable[str]) -> Iterator[str]:
    """Yield the files below *source* that *patterns* match, as uv has it.

    It takes a pattern apart at its first sign, and what is left of several in one directory together. Without
    a slash in it, that matches at any depth. Raises Uncertain for what is not known for sure.
    """
    split = [_split(pattern) for pattern in patterns]
    roots: list[PurePosixPath] = []
    for base, _ in sorted(split):
        if not any(base.is_relative_to(root) for root in roots):
            roots.append(base)
    for root in roots:
        below = [base.relative_to(root) / rest for base, rest in split if base.is_relative_to(root)]
        matches = re.compile("|".join(map(glob_expression, map(str, below))), re.DOTALL).fullmatch
        top = os.path.join(source, root)
        yield from (str(root / name) for name in _files_below(top) if matches(name))


def _split(pattern: str) -> tuple[PurePosixPath, PurePosixPath]:
    path = PurePosixPath(pattern)
    if path.is_absolute() or ".." in path.parts or pattern.startswith("!") or star_problem(pattern):
        raise Uncertain
    plain = next(number for number, part in enumerate(path.parts) if re.search(r"[*?\[\]{}]", part))
    return PurePosixPath(*path.parts[:plain]), PurePosixPath(*path.parts[plain:])


_PARTS = re.compile(r"(\A|/)\*\*/|/\*\*\Z|\[([!^]?)([\w.+ -]+)\]|\\(.)|.", re.DOTALL)
_SIGNS = {"*": "[^/]*", "?": "[^/]", "{": "(?:", "}": ")", "/**": "/.+"}


def glob_expression(pattern: str) -> str:
    """Return the regular expression of a glob as uv reads it: gitignore's rules, and alternatives in braces.

    Raises Uncertain for one that is not known for sure.
    """
    expression, depth = "", 0
    for found in _PARTS.finditer(pattern if "/" in pattern else f"**/{pattern}"):
        text = found[0]
        depth += (text == "{") - (text == "}")
        if found[1] is not None:
            expression += f"{found[1]}(?:.*/)?"
        elif found[3] is not None:
            expression += f"[{'^/' if found[2] else ''}{found[3]}]"
        elif text == "," and depth:
            expression += "|"
        elif text == "[":
            raise Uncertain
        else:
            expression += _SIGNS.get(text) or re.escape(found[4] or text)
    try:
        re.compile(expression)
    except re.error as error:  # a brace that is not closed, a range that goes backwards
        raise Uncertain from error
    return expression


def _files_below(top: str, enter: Callable[[str, str], bool] = lambda _top, _name: True) -> Iterator[str]:
    """Yield the names below *top* that are no directories, as paths; symlinks are not followed."""
    left = _MOST_NAMES
    for directory_path, directories, files in os.walk(top):
        directories[:] = [name for name in directories if enter(directory_path, name)]
        left -= len(directories) + len(files)
        if left < 0:
            raise Uncertain
        yield from (os.path.relpath(f"{directory_path}/{name}", top) for name in files)


def _has_sources(above: str, name: str) -> bool:
    """Return whether a directory may hold what a package is built of: it is not hidden, built, or a venv."""
    built = name in ("build", "dist", "node_modules", "__pycache__") or name.endswith(".egg-info")
    return not (built or name.startswith(".") or os.path.lexists(f"{above}/{name}/pyvenv.cfg"))


# --------------------------------------------------------------------------- git


def _commit(source: str) -> str | None:
    """Return the commit that is checked out, None where there is none."""
    with suppress(OSError, ValueError, LookupError):
        own, shared = _repository(source)
        words = _text(f"{own}/HEAD").split()
        if len(words) == 1:
            return _checked(words[0])
        for directory_path in (own, shared):
            with suppress(FileNotFoundError):
                return _checked(_text(f"{directory_path}/{words[1]}"))
        return _packed(shared)[words[1]]
    return None


def _tags(source: str) -> dict[str, str] | None:
    """Return the tags, with what they name, None where there is no repository."""
    with suppress(OSError, ValueError, LookupError):
        _, shared = _repository(source)
        prefix = "refs/tags/"
        tags = {
            name.removeprefix(prefix): to for name, to in _packed(shared).items() if name.startswith(prefix)
        }
        for name in _files_below(f"{shared}/{prefix}"):
            tags[name] = _checked(_text(f"{shared}/{prefix}{name}"))
        return tags
    return None


_FROM_GIT = {"commit": _commit, "tags": _tags}


def _repository(source: str) -> tuple[str, str]:
    """Return the git directory of the checkout that has *source*, and that which all its worktrees share."""
    around = [source, *map(str, PurePosixPath(source).parents)]
    above = next((path for path in around if os.path.exists(f"{path}/.git")), None)
    if above is None:
        raise FileNotFoundError(source)
    own = f"{above}/.git"
    if not os.path.isdir(own):
        own = os.path.join(above, _text(own).removeprefix("gitdir:").strip())
    with suppress(FileNotFoundError):
        return own, os.path.join(own, _text(f"{own}/commondir"))
    return own, own


def _packed(shared: str) -> dict[str, str]:
    with suppress(FileNotFoundError):
        lines = map(str.strip, _text(f"{shared}/packed-refs").splitlines())
        pairs = (line.split(" ", 1) for line in lines if line and line[0] not in "#^")
        return {name: _checked(commit) for commit, name in pairs}
    return {}


def _text(path: str) -> str:
    return read_small(path, follow=True).decode().strip()


def _checked(commit: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{40}", commit):
        raise ValueError(commit)
    return commit
