"""What a lock file says for one venv, its *own part*: of that the key is made, not of the file's bytes.

A lock file holds more than one venv gets: other members of a workspace, other groups and platforms, comments.
What is left out here cannot reach the venv. What is not known for sure stays in, word for word, and a file
that is not understood has no part: then its bytes count. A part can be read as a lock file of its kind
(:mod:`venvflow.pure.lockfiles`). Pure: what lies in directories is asked of the caller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName

from venvflow.model import VenvSpec
from venvflow.pure.lockfiles import decoded, document_of, logical_lines, read_toml, table_at, value_at
from venvflow.pure.names import normalised

# --------------------------------------------------------------------------- markers

_WORD = (
    "(?:sys_platform|os_name|platform_machine|platform_system"
    "|implementation_name|platform_python_implementation)"
)
_TEXT = "(?:'[A-Za-z_][A-Za-z0-9_ ,.-]*'|\"[A-Za-z_][A-Za-z0-9_ ,.-]*\")"
_SORTS = r"(?:==|!=|<=|>=|<|>)"
_IS = r"(?:==|!=|\bin\b|\bnot\s+in\b)"
_ABOUT_WORDS = rf"{_WORD}\s*{_IS}\s*{_TEXT}|{_TEXT}\s*{_IS}\s*{_WORD}"
_ABOUT_VERSIONS = (
    rf"python_version\s*{_SORTS}\s*(?:'\d+(?:\.\d+)?'|\"\d+(?:\.\d+)?\")"
    rf"|python_full_version\s*{_SORTS}\s*(?:'\d+(?:\.\d+){{0,2}}'|\"\d+(?:\.\d+){{0,2}}\")"
    r"|python_(?:full_)?version\s*[!=]=\s*(?:'\d+(?:\.\d+)?\.\*'|\"\d+(?:\.\d+)?\.\*\")"
)
_COMPARISON = re.compile(f"{_ABOUT_WORDS}|{_ABOUT_VERSIONS}")
_FRAME = re.compile(r"(?:\s|[()]|\b1\b|\band\b|\bor\b)+")


class Markers:
    """Answers for one Python, of which *values* are what markers ask for. Without any, nothing is known."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)
        self._answers: dict[str, bool | None] = {}

    def hold(self, text: str) -> bool | None:
        """Return whether the marker *text* holds, None if that is not known.

        It is known where all tools agree: of comparisons of words, and of final versions of Python. It is not
        of extras, of the kernel's version, nor of what is no marker.
        """
        if text not in self._answers:
            self._answers[text] = self._answer(text)
        return self._answers[text]

    def _answer(self, text: str) -> bool | None:
        is_final = re.fullmatch(r"\d+\.\d+\.\d+", self._values.get("python_full_version", ""))
        if not is_final or not _FRAME.fullmatch(_COMPARISON.sub(" 1 ", text)):
            return None
        try:
            return Marker(text).evaluate(self._values)
        except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName):
            return None


# --------------------------------------------------------------------------- requirements files


def requirements_part(data: bytes, markers: Markers, asked: Collection[str] | None = None) -> bytes | None:
    """Return what a requirements file says: its options in their order, then the rest that counts, sorted.

    Lines of other platforms are left out, and markers that hold. *asked* are the names that a venv asks for,
    normalised, if the file has constraints: those on other names constrain nothing. None if not understood.
    """
    text = decoded(data)
    lines = [*logical_lines(text)]
    if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)", text) or not all(
        line.isascii() for line in lines
    ):
        return None
    kept = [own for line in lines if (own := _own_line(line, markers)) and _is_asked(own, asked)]
    # One hash makes pip ask for all of them.
    if any(_HASH.search(line) for line in lines) and not any(_HASH.search(line) for line in kept):
        kept.append("--require-hashes")
    kept.sort(key=lambda line: "" if line.startswith("-") else line)
    return "".join(f"{line}\n" for line in kept).encode("ascii")


def names_in(part: bytes) -> frozenset[str] | None:
    """Return the names that the *part* of a requirements file asks for, normalised; None if it hides one.

    What a URL serves that it includes is not known; other files that it includes are not meant.
    """
    if re.search(r"(?m)^(?:-r|--requirement)[\s=]*[A-Za-z][A-Za-z0-9+.-]*:", part.decode("ascii")):
        return None
    lines = [line for line in part.decode("ascii").splitlines() if not re.match("-(?!e|-editable)", line)]
    names = [_name_of(line) for line in lines]
    return frozenset(names) if all(names) else None


_HASH = re.compile(r"\s--hash[\s=]\s*([A-Za-z0-9]+:[0-9A-Fa-f]+)(?!\S)")
_NAMED = re.compile(r"([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)\s*(?=$|[\[(@;<>=!~\s])")

_ARCHIVE = re.compile(r"\.(?:whl|zip|tgz|tbz|txz|tar|tar\.\w+)$", re.IGNORECASE)


def _name_of(line: str) -> str:
    """Return the normalised name that a requirement begins with, nothing for a URL, a path or an option."""
    found = None if _ARCHIVE.search(line.split(maxsplit=1)[0]) else _NAMED.match(line)
    return normalised(found[1]) if found else ""


def _is_asked(line: str, asked: Collection[str] | None) -> bool:
    name = _name_of(line)
    return asked is None or not name or name in asked


def _own_line(line: str, markers: Markers) -> str:
    """Return what a line of a requirements file says, nothing if that is not for this venv."""
    if line.startswith("-"):
        return line
    words, *options = re.split(r"\s+(?=-)", line, maxsplit=1)
    # Behind a URL, only a blank ends it.
    asked, *marker = re.split(r"\s+;\s*" if re.search("[@/]", words) else r"\s*;\s*", words, maxsplit=1)
    holds = markers.hold(marker[0]) if marker else True
    if holds is False:
        return ""
    return " ".join([asked if holds else words, *map(_sorted_hashes, options)])


def _sorted_hashes(options: str) -> str:
    found = _HASH.findall(f" {options}")
    rest = _HASH.sub("", f" {options}").strip()
    return options if rest else " ".join(f"--hash={each}" for each in sorted(found))


# --------------------------------------------------------------------------- lock files of tools


class Chosen(NamedTuple):
    """What of a tool's lock file is installed: the choice of *spec*, as far as *markers* hold.

    *manifest* returns the bytes of the ``pyproject.toml`` of a directory, relative to the lock file; none if
    there is none.
    """

    spec: VenvSpec
    markers: Markers
    manifest: Callable[[str], bytes]

    @property
    def groups(self) -> frozenset[str]:
        """The names of the groups and extras that the config names, normalised."""
        return frozenset(map(normalised, (*self.spec.groups, *self.spec.extras)))


def tool_part(kind: str, data: bytes, chosen: Chosen) -> bytes | None:
    """Return what the lock file of that *kind* with the content *data* says for what is *chosen*, as JSON.

    None if it is not understood, or of no kind that a tool makes.
    """
    if kind not in _READERS:
        return None
    try:
        part = _READERS[kind](document_of(kind, data), chosen)
    except (KeyError, TypeError, ValueError, AttributeError):  # it does not look as its tool makes it
        return None
    return json.dumps(part, sort_keys=True, default=repr).encode("ascii")


def _without(table: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in keys}


def _in_order(tables: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(tables, key=lambda table: json.dumps(table, sort_keys=True, default=repr))


def _if_it_holds(package: Mapping[str, Any], key: str, markers: Markers) -> Iterator[dict[str, Any]]:
    """Yield a package unless its marker, at *key*, does not hold; without it if it does."""
    holds = markers.hold(package[key]) if key in package else True
    if holds is not False:
        yield _without(package, key) if holds else dict(package)


def _pylock(document: Mapping[str, Any], chosen: Chosen) -> dict[str, Any]:
    packages = [own for each in document["packages"] for own in _if_it_holds(each, "marker", chosen.markers)]
    return {**_without(document, "created-by"), "packages": _in_order(packages)}


def _poetry(document: Mapping[str, Any], chosen: Chosen) -> dict[str, Any]:
    """Return what poetry installs. Lock files of before 2.1 do not say for which groups a package is."""
    groups = frozenset({"main"}) | chosen.groups
    packages: list[dict[str, Any]] = []
    for each in document["package"]:
        its = frozenset(map(normalised, each["groups"]))
        if chosen.spec.dev or its & groups:
            packages += _of_groups(_without(each, "groups"), its if chosen.spec.dev else its & groups, chosen)
    return {**document, "package": _in_order(packages)}


def _of_groups(
    package: Mapping[str, Any], groups: frozenset[str], chosen: Chosen
) -> Iterator[dict[str, Any]]:
    """Yield a package of poetry's, which may have a marker for each of its groups."""
    if not isinstance(package.get("markers"), dict):
        yield from _if_it_holds(package, "markers", chosen.markers)
        return
    markers = {name: text for name, text in package["markers"].items() if normalised(name) in groups}
    if markers.keys() < groups or any(chosen.markers.hold(text) is not False for text in markers.values()):
        yield {**package, "markers": markers}


def _pdm(document: Mapping[str, Any], chosen: Chosen) -> dict[str, Any]:
    """Return what pdm installs, if the lock file says for which groups and markers each package is.

    The project may give options to its commands, which choose groups, too.
    """
    if "inherit_metadata" not in document["metadata"]["strategy"]:
        raise KeyError("inherit_metadata")
    if value_at(read_toml(chosen.manifest(".")), "tool", "pdm", "options"):
        raise ValueError("options")
    groups = frozenset({"default"}) | chosen.groups
    packages: list[dict[str, Any]] = []
    for each in document["package"]:
        if chosen.spec.dev or groups & frozenset(map(normalised, each["groups"])):
            packages += _if_it_holds(_without(each, "groups"), "marker", chosen.markers)
    return {**document, "package": _in_order(packages)}


def _pipenv(document: Mapping[str, Any], chosen: Chosen) -> dict[str, Any]:
    categories = {"default", *["develop"] * chosen.spec.dev, *chosen.spec.groups}
    part: dict[str, Any] = {"_meta": document["_meta"]}
    for category in document.keys() & categories:
        packages = document[category].items()
        part[category] = {
            name: own for name, each in packages for own in _if_it_holds(each, "markers", chosen.markers)
        }
    return part


# --------------------------------------------------------------------------- uv.lock

_LINKS = ("dependencies", "optional-dependencies", "dev-dependencies", "default-groups", "metadata")
"""What of a package of ``uv.lock`` only says which others are needed: those are there themselves, or not."""


def _uv(document: Mapping[str, Any], chosen: Chosen) -> dict[str, Any]:
    """Return the packages that uv may install; which it does, follows from their tables and the rest."""
    manifest = table_at(document, "manifest")
    graph, everywhere = _Graph(document["package"], chosen.markers), _groups(".", {}, chosen)
    for root in _roots(document["package"], manifest.get("members", []), chosen.spec.packages):
        its = _groups(str(_place(root)), root, chosen)
        extras = table_at(root, "optional-dependencies")
        graph.reach(root, [name for name in extras if normalised(name) in chosen.groups])
        groups = everywhere | its if everywhere is not None and its is not None else None
        graph.follow(root["name"], _edges(table_at(root, "dev-dependencies"), groups))
    # Groups of a workspace without a project at its root: some versions of uv install them with any member.
    graph.follow("", _edges(table_at(manifest, "dependency-groups"), everywhere))
    return {
        **document,
        "manifest": _without(manifest, "members", "dependency-groups"),
        "package": _in_order(_without(each, *_LINKS) for each in graph.reached),
        "in doubt": sorted(graph.doubts),
    }


def workspace_part(data: bytes) -> bytes | None:
    """Return what the project file at the root of a workspace says for members: the settings of uv, as JSON.

    None if it cannot be read. Which members there are, the lock file says.
    """
    document = read_toml(data)
    settings = {"tool": {"uv": _without(table_at(document, "tool", "uv"), "workspace")}}
    return json.dumps(settings, sort_keys=True, default=repr).encode("ascii") if document else None


def _place(package: Mapping[str, Any]) -> str | None:
    """Return the directory of a local package, relative to the lock file, None for others."""
    source = package["source"]
    return next((source[kind] for kind in ("editable", "virtual", "directory") if kind in source), None)


def _roots(
    packages: list[dict[str, Any]], members: list[str], named: str | tuple[str, ...]
) -> list[dict[str, Any]]:
    """Return the packages that uv begins with: those that are *named*, else the one that lies at the root.

    All *members* if there is none, or all are asked for. Raises KeyError where one of them is not found.
    """
    local = {each["name"]: each for each in packages if _place(each) is not None}
    at_root = [each for each in local.values() if _place(each) == "."]
    if isinstance(named, tuple) and named:
        return [local[normalised(name)] for name in named]
    if at_root and not (named and members):
        return at_root
    return [local[name] for name in members or [""]]


def _groups(directory: str, package: Mapping[str, Any], chosen: Chosen) -> frozenset[str] | None:
    """Return the normalised groups of a *package* in a *directory* that are installed; None: perhaps all.

    Which are without being asked for, older lock files do not say.
    """
    found = frozenset({*map(normalised, chosen.spec.groups), *["dev"] * chosen.spec.dev})
    said = value_at(read_toml(chosen.manifest(directory)), "tool", "uv", "default-groups")
    for usual in (package.get("default-groups"), said):
        if not isinstance(usual, (list, type(None))):
            return None
        found |= {normalised(name) for name in usual or () if chosen.spec.dev or normalised(name) != "dev"}
    return found


def _edges(tables: Mapping[str, list[Any]], groups: frozenset[str] | None) -> list[Any]:
    wanted = (each for name, each in tables.items() if groups is None or normalised(name) in groups)
    return [edge for edges in wanted for edge in edges]


class _Graph:
    """The *packages* of a ``uv.lock``, and which of them are *reached*.

    *doubts* are the steps, as text, that uv alone decides.
    """

    def __init__(self, packages: list[dict[str, Any]], markers: Markers) -> None:
        self._markers = markers
        self._named: dict[str, list[dict[str, Any]]] = {}
        self._seen: dict[int, set[str]] = {}
        self.reached: list[dict[str, Any]] = []
        self.doubts: set[str] = set()
        for each in packages:
            self._named.setdefault(each["name"], []).append(each)

    def reach(self, package: Mapping[str, Any], extras: Collection[str]) -> None:
        """Take a package with *extras*, and all that it needs."""
        edge = {key: package[key] for key in ("name", "version", "source") if key in package}
        self.follow(package["name"], [{**edge, "extra": [*extras]}])

    def follow(self, origin: str, edges: Iterable[Mapping[str, Any]]) -> None:
        """Take all that *edges* of the package called *origin* lead to."""
        waiting = [(origin, edge) for edge in edges]
        while waiting:
            origin, edge = waiting.pop()
            holds = self._markers.hold(edge["marker"]) if "marker" in edge else True
            for package in self._ends(edge) if holds is not False else ():
                if holds is None:
                    self.doubts.add(repr([origin, _identity(package), edge["marker"]]))
                waiting += [(package["name"], more) for more in self._take(package, edge.get("extra", []))]

    def _ends(self, edge: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the packages that an edge may mean; raises KeyError if there is none."""
        keys = [key for key in ("version", "source") if key in edge]
        found = [
            each for each in self._named[edge["name"]] if all(each.get(key) == edge[key] for key in keys)
        ]
        if not found:
            raise KeyError(edge["name"])
        return found

    def _take(self, package: dict[str, Any], extras: list[str]) -> Iterator[Mapping[str, Any]]:
        """Yield the edges of a package and its *extras* that were not followed before."""
        seen = self._seen.get(id(package))
        if seen is None:
            seen = self._seen[id(package)] = set()
            self.reached.append(package)
            yield from package.get("dependencies", [])
        for extra in {*extras} - seen:
            seen.add(extra)
            yield from package.get("optional-dependencies", {}).get(extra, [])


def _identity(package: Mapping[str, Any]) -> str:
    return repr([package["name"], package.get("version"), package["source"]])


_READERS: Mapping[str, Callable[[dict[str, Any], Chosen], dict[str, Any]]] = {
    "pylock": _pylock, "poetry": _poetry, "pdm": _pdm, "pipenv": _pipenv, "uv": _uv
}  # fmt: skip
