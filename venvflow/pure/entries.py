"""What lock files say of each package, as hashes: of what two say the same, the same is installed.

Pure: bytes in, values out. Only what an index has, in one version, has an entry: what a URL, a path or a
repository holds may be another thing each time, and an open requirement is whatever is newest. What cannot be
read, or is not known whole, has no entries at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from venvflow.pure.lockfiles import (
    decoded,
    document_of,
    file_option,
    logical_lines,
    read_toml,
    table_at,
    tables_at,
    value_at,
)
from venvflow.pure.names import kind_of, normalised

BESIDE = ""
"""The name of the entry for what stands beside the packages, and decides how all of them are installed."""

_PINNED = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\]\s*)?===?\s*[^\s,;*]+\s*(?:;.*|--.*|\Z)")
_NAMED = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\]\s*)?(?:@|[<>=!~;(]|\Z)")


class Said(NamedTuple):
    """What a lock file says: *text* of the package *name*, or of all (it is empty then).

    *may_differ*: the text does not tell what is installed.
    """

    name: str
    text: str
    may_differ: bool = False


class NotTold(Exception):
    """A lock file says something that cannot be told."""


def entries_of(
    locks: Iterable[tuple[str, bytes]], beside: Iterable[tuple[str, bytes]] = (), settings: Iterable[str] = ()
) -> dict[str, str]:
    """Return a hash of all that *locks* say of each package, by its normalised name.

    *locks* are path and bytes of each lock file and of what it includes, *beside* of what its tool reads
    besides. These, and *settings*, are in the entry of the name :data:`BESIDE`: where it differs, nothing is
    the same. Empty if that is not known.
    """
    locks, beside = [*locks], [*beside]
    try:
        said = [each for path, data in locks for each in _read(path, data, {path for path, _ in locks})]
    except NotTold:
        return {}
    texts: dict[str, list[str]] = {}
    for each in said:
        texts.setdefault(normalised(each.name), []).append(each.text)
    if any(kind_of(path) == "pdm" for path, _ in locks):
        for each in _asked_for(beside):
            if normalised(each.name) in texts:
                texts[normalised(each.name)].append(each.text)
    general = [*settings, *texts.pop(BESIDE, []), *(_settings(*each) for each in beside)]
    unsure = {normalised(each.name) for each in said if each.may_differ}
    found = {name: _hashed(texts[name]) for name in sorted(texts) if name not in unsure}
    return {BESIDE: _hashed(general), **found} if found else {}


def _hashed(texts: Iterable[str]) -> str:
    canonical = json.dumps(sorted({*texts})).encode("ascii")
    return hashlib.sha256(canonical).hexdigest()


def _read(path: str, data: bytes, known: set[str]) -> Iterator[Said]:
    kind = kind_of(path)
    if kind == "requirements":
        return _requirements(path, decoded(data), known)
    document = document_of(kind, data)
    if kind not in _READERS or not document:
        raise NotTold
    return _READERS[kind](document)


def _requirements(path: str, text: str, known: set[str]) -> Iterator[Said]:
    for line in logical_lines(text):
        words = " ".join(line.split())
        letter, target = file_option(line) or ("", "")
        if letter in ("r", "c"):
            if os.path.normpath(os.path.join(os.path.dirname(path), target)) not in known:
                raise NotTold  # it lies elsewhere, and is not read
        elif letter == "e":
            continue  # it has no name here, and no entry
        elif words.startswith("-"):
            yield Said(BESIDE, words)
        elif pinned := _PINNED.fullmatch(words):
            yield Said(pinned[1], words)
        elif named := _NAMED.match(words):
            yield Said(named[1], words, may_differ=True)


def _pylock(document: Mapping[str, Any]) -> Iterator[Said]:
    yield Said(BESIDE, _canonical(_without(document, "packages", "created-by")))
    for package in tables_at(document, "packages"):
        elsewhere = package.keys() & {"vcs", "directory", "archive"} or "version" not in package
        yield _of_table(package, may_differ=bool(elsewhere))


def _uv(document: Mapping[str, Any]) -> Iterator[Said]:
    for package in tables_at(document, "package"):
        yield _of_table(package, may_differ="registry" not in table_at(package, "source"))


def _poetry(document: Mapping[str, Any]) -> Iterator[Said]:
    at_the_end = table_at(document, "metadata", "files")
    for package in tables_at(document, "package"):
        files = value_at(at_the_end, str(package.get("name", "")))
        kind = value_at(package, "source", "type") or "legacy"
        yield _of_table({**package, "files at the end": files}, may_differ=kind != "legacy")


def _pdm(document: Mapping[str, Any]) -> Iterator[Said]:
    yield Said(BESIDE, _canonical(table_at(document, "metadata").get("strategy")))
    for package in tables_at(document, "package"):
        elsewhere = package.keys() & {"git", "hg", "svn", "bzr", "path", "url"} or package.get("editable")
        yield _of_table(package, may_differ=bool(elsewhere))


def _pipenv(document: Mapping[str, Any]) -> Iterator[Said]:
    yield Said(BESIDE, _canonical(value_at(document, "_meta", "sources")))
    for section, group in document.items():
        for name, package in group.items() if section != "_meta" and isinstance(group, dict) else ():
            is_pinned = isinstance(package, dict) and str(package.get("version", "")).startswith("==")
            elsewhere = isinstance(package, dict) and package.keys() & {"git", "hg", "svn", "path", "file"}
            yield Said(name, _canonical([section, package]), may_differ=bool(elsewhere) or not is_pinned)


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Said]]] = {
    "pylock": _pylock, "uv": _uv, "poetry": _poetry, "pdm": _pdm, "pipenv": _pipenv
}  # fmt: skip


def _of_table(package: Mapping[str, Any], *, may_differ: bool) -> Said:
    return Said(str(package.get("name", "")), _canonical(package), may_differ)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _without(table: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in keys}


# --------------------------------------------------------------------------- what tools read beside a lock


def _asked_for(beside: Iterable[tuple[str, bytes]]) -> Iterator[Said]:
    """Yield what a project file itself asks for, and in which group: pdm notes that where it installs it."""
    for path, data in beside:
        if os.path.basename(path) == "pyproject.toml":
            document = read_toml(data)
            groups = {
                "project": {"dependencies": value_at(document, "project", "dependencies")},
                "extra": table_at(document, "project", "optional-dependencies"),
                "group": table_at(document, "dependency-groups"),
                "dev": table_at(document, "tool", "pdm", "dev-dependencies"),
            }
            for kind, tables in groups.items():
                for group, asked in tables.items():
                    for text in asked if isinstance(asked, list) else ():
                        if named := _NAMED.match(str(text)):
                            yield Said(named[1], f"asked for by {kind} {group}")


_ONLY_FOR_LOCKING = {
    "uv": (
        *("sources", "workspace", "index", "dev-dependencies", "default-groups", "dependency-groups"),
        *("constraint-dependencies", "override-dependencies", "exclude-dependencies", "environments"),
        *("required-environments", "conflicts", "package", "managed", "required-version", "resolution"),
        *("prerelease", "exclude-newer", "fork-strategy", "build-backend"),
    ),
    "pdm": ("dev-dependencies", "scripts", "build", "version", "distribution", "resolution"),
}
"""Tables of a project file that decide what is locked, and not how what is locked is installed, by tool."""


def _settings(path: str, data: bytes) -> str:
    """Return what a file beside a lock says of how packages are installed."""
    name = os.path.basename(path)
    if name == "pyproject.toml":
        tools = table_at(read_toml(data), "tool")
        ours = {tool: _without(table_at(tools, tool), *keys) for tool, keys in _ONLY_FOR_LOCKING.items()}
        return _canonical([name, ours])
    if name == "Pipfile":
        return _canonical([name, *(read_toml(data).get(key) for key in ("source", "pipenv"))])
    return _canonical([name, hashlib.sha256(data).hexdigest()]) if name.endswith(".toml") else ""
