"""Compares what is installed with what lock files pin, for tools that cannot be asked: pip and pipenv.

Names, versions, origins and markers are compared. A lock file that leaves anything open agrees with no venv.
"""

from __future__ import annotations

import configparser
import glob
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urldefrag

from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.version import Version

from venvflow.builders.commands import working_directory
from venvflow.builders.recipe import kind_and_locks
from venvflow.disk.files import read_small
from venvflow.model import Interpreter
from venvflow.pure.lockfiles import file_option, logical_lines, read_json, read_toml
from venvflow.pure.manifest import name_and_version
from venvflow.pure.names import normalised
from venvflow.pure.redaction import redact

if TYPE_CHECKING:
    from venvflow.builders.build import Build


class Unknown(Exception):
    """What a lock file asks for, or what is installed, cannot be told for sure."""


class Installed(NamedTuple):
    """A distribution of a venv: its *version*, and its *commands*, entry points by group and name.

    *url* is where it came from, empty if that was an index; *commit* that of a repository. *editable*: it
    lies there; *is_copy*: it was copied from a directory. *written* is when its metadata were, in nanoseconds
    since 1970; a store gives its files a time long ago.
    """

    version: str
    url: str = ""
    commit: str = ""
    editable: bool = False
    is_copy: bool = False
    commands: Mapping[str, Mapping[str, str]] = {}
    written: int = 0


class Pin(NamedTuple):
    """What a lock file asks for. It has no *name* if only its *url* is known."""

    name: str = ""
    version: str = ""
    url: str = ""
    commit: str = ""
    editable: bool = False

    def fits(self, found: Installed) -> bool:
        """Return whether *found* is what is asked for."""
        if self.url:
            same = (redact(found.url), found.commit, found.editable) == (
                redact(self.url),
                self.commit,
                self.editable,
            )
            return same and not found.is_copy
        return not found.url and Version(found.version) == Version(self.version)


def installed(venv: str) -> dict[str, Installed]:
    """Return the distributions of the venv at path *venv* by normalised name.

    Raises Unknown if one is there twice, or cannot be read.
    """
    found: dict[str, Installed] = {}
    for record in glob.glob("lib/*/site-packages/*.dist-info/METADATA", root_dir=venv):
        name, version = name_and_version(record)
        if normalised(name) in found:
            raise Unknown
        found[normalised(name)] = _installed(f"{venv}/{os.path.dirname(record)}", version)
    return found


def _installed(directory: str, version: str) -> Installed:
    origin: dict[str, Any] = {}
    with suppress(FileNotFoundError):
        origin = read_json(read_small(f"{directory}/direct_url.json"))
        if not isinstance(origin.get("url"), str):
            raise Unknown
    commands = configparser.ConfigParser(delimiters="=", interpolation=None, strict=False)
    commands.optionxform = str  # type: ignore[assignment,method-assign]
    with suppress(FileNotFoundError):
        commands.read_string(read_small(f"{directory}/entry_points.txt").decode("utf-8", "replace"))
    details, vcs = origin.get("dir_info"), origin.get("vcs_info")
    editable = isinstance(details, dict) and details.get("editable") is True
    return Installed(
        version,
        urldefrag(origin.get("url", ""))[0],
        str(vcs.get("commit_id", "")) if isinstance(vcs, dict) else "",
        editable,
        isinstance(details, dict) and not editable,
        {group: dict(commands[group]) for group in commands.sections() if commands[group]},
        os.stat(f"{directory}/METADATA").st_mtime_ns,
    )


def beyond(build: Build, found: Mapping[str, Installed]) -> list[str] | None:
    """Return which distributions that were *found* the lock files do not ask for; None if one is missing.

    Raises Unknown.
    """
    try:
        wanted = [*_wanted(build)]
        named = {pin.name: pin for pin in wanted if pin.name}
        if len(named) < sum(bool(pin.name) for pin in wanted) or not all(
            name in found and pin.fits(found[name]) for name, pin in named.items()
        ):
            return None
        rest = {name: each for name, each in found.items() if name not in named}
        for pin in wanted:
            if not pin.name:
                (name,) = [name for name, each in rest.items() if pin.fits(each)]
                del rest[name]
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # a lock file that makes no sense
        raise Unknown from error
    return [*rest]


def lacking(build: Build, found: Mapping[str, Installed]) -> list[str]:
    """Return the names that the lock files ask for, and that were not *found*. Raises Unknown."""
    try:
        return sorted({pin.name for pin in _wanted(build) if pin.name} - found.keys())
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # as above
        raise Unknown from error


# --------------------------------------------------------------------------- what lock files ask for


def _wanted(build: Build) -> Iterator[Pin]:
    environment = marker_values(build.interpreter)
    kind, locks = kind_and_locks(build.spec)
    for lock in locks:
        data = read_small(lock, follow=True)
        if kind == "pipenv":
            yield from _of_pipfile(
                read_json(data), environment, build.recipe.commands[1], os.path.dirname(lock)
            )
        elif kind == "pylock":
            yield from _of_pylock(read_toml(data), environment)
        else:
            yield from _of_requirements(lock, data.decode(), environment, working_directory(build))


def marker_values(python: Interpreter) -> dict[str, str]:
    """Return what markers ask for, as the venv's Python would say it; raises Unknown."""
    names = {"cpython": "CPython", "pypy": "PyPy"}
    if python.implementation not in names:
        raise Unknown
    return {
        **{name: str(value) for name, value in default_environment().items()},
        "implementation_name": python.implementation,
        "implementation_version": python.version,
        "platform_python_implementation": names[python.implementation],
        "python_full_version": python.version,
        "python_version": ".".join(python.version.split(".")[:2]),
    }


def _of_requirements(
    lock: str, text: str, environment: Mapping[str, str], directory: str, depth: int = 0
) -> Iterator[Pin]:
    for line in logical_lines(text):
        option, value = file_option(line) or ("", "")
        if option == "e":
            yield Pin(url=_url_of(value, directory), editable=True)
        elif option == "r":
            path = os.path.join(os.path.dirname(lock), value)
            if depth > 10:
                raise Unknown
            more = read_small(path, follow=True).decode()
            yield from _of_requirements(path, more, environment, directory, depth + 1)
        elif not line.startswith("-"):
            yield from _pinned(re.split(r"\s--", line, maxsplit=1)[0], environment)


def _url_of(target: str, directory: str) -> str:
    """Return the URL that an installer notes of a project at a path."""
    from pathlib import Path  # noqa: PLC0415 - for editable projects only

    if "://" in target or any(sign in target for sign in "[;#"):
        raise Unknown
    return Path(os.path.normpath(os.path.join(directory, target))).as_uri()


def _pinned(line: str, environment: Mapping[str, str]) -> Iterator[Pin]:
    asked = Requirement(line)
    if asked.marker is not None and not asked.marker.evaluate({**environment, "extra": ""}):
        return
    name = normalised(asked.name)
    if asked.url:
        yield _from_url(name, asked.url)
        return
    (only,) = asked.specifier
    if only.operator not in ("==", "==="):
        raise Unknown
    yield Pin(name, str(Version(only.version)))


def _from_url(name: str, url: str) -> Pin:
    url = urldefrag(url)[0]
    scheme, plus, rest = url.partition("+")
    if not plus or scheme not in ("git", "hg", "svn", "bzr"):
        return Pin(name, url=url)
    repository, at, commit = rest.rpartition("@")
    if not at or len(commit) != 40:
        raise Unknown
    return Pin(name, url=repository, commit=commit)


def _of_pylock(document: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[Pin]:
    for package in document["packages"]:
        if package.keys() & {"vcs", "directory", "archive"}:
            raise Unknown
        if "marker" not in package or Marker(package["marker"]).evaluate({**environment, "extra": ""}):
            yield Pin(normalised(package["name"]), str(Version(package["version"])))


def _of_pipfile(
    document: Mapping[str, Any], environment: Mapping[str, str], command: tuple[str, ...], directory: str
) -> Iterator[Pin]:
    if any(word.startswith("--categories") for word in command):
        raise Unknown
    groups = [document["default"], document["develop"] if "--dev" in command else {}]
    for name, asked in {**groups[1], **groups[0]}.items():
        if asked.keys() & {"git", "hg", "svn", "bzr", "path", "editable"}:
            raise Unknown
        place = asked.get("file", "")
        url = place if "://" in place or not place else _url_of(place, directory)
        marker = f" ; {asked['markers']}" if "markers" in asked else ""
        yield from _pinned(
            f"{name} @ {url}{marker}" if url else f"{name}{asked['version']}{marker}", environment
        )
