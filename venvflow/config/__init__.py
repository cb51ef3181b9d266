"""The config file: found, read with care, checked in full, and turned into records.

One module per stage, each importing only those before it: ``nodes`` (values as they are written),
``paths``, ``report`` (what is wrong), ``source`` (a file becomes text), ``trust`` (whose file it is),
``documents`` (YAML becomes nodes), ``checks`` (nodes become values), ``vocabulary`` (all keys, each with
its check), ``records`` (values become the model's records), ``dangers`` (where no venv may be).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import venvflow
from venvflow.config.dangers import dangers_of
from venvflow.config.documents import parse, quoted
from venvflow.config.nodes import Node
from venvflow.config.paths import Places, ancestors, home_of
from venvflow.config.records import assemble, store_of
from venvflow.config.report import WRONG, Report
from venvflow.config.source import decode, read, unreadable
from venvflow.config.trust import STORE_PARTS, doubts, store_doubts, store_warning
from venvflow.config.vocabulary import TOP, is_version
from venvflow.errors import ConfigError, EnvironmentFailure, Refused, UsageError, shown
from venvflow.model import Config, StoreConfig, VenvSpec

__all__ = ["CONFIG_NAMES", "find_config", "is_version", "load", "quoted", "schema", "usual_store"]

CONFIG_NAMES = ("venvflow.yaml", "config/venvflow.yaml")
"""Where a project's config is looked for, in this order, in a directory and its parents."""

# --------------------------------------------------------------------------- finding


def find_config(start: str, explicit: str | None = None) -> tuple[str, str]:
    """Return the config file and the project root for work in the directory *start*, both absolute.

    Looks for :data:`CONFIG_NAMES` in *start* and each of its parents; the root is the directory in which
    they were found. With *explicit* (relative to *start*), the root is that file's directory, or its parent
    if that directory is called ``config``. Raises ``UsageError`` if there is no config, and
    ``EnvironmentFailure`` if a directory cannot be looked into.
    """
    start = _absolute(start)
    if explicit is not None:
        return _named_config(os.path.normpath(os.path.join(start, explicit)))
    for directory in (start, *ancestors(start)):
        for relative in CONFIG_NAMES:
            file = os.path.join(directory, relative)
            if _is_there(file):
                return file, directory
    raise UsageError(
        "there is no venvflow.yaml here or in any parent directory",
        where=shown(start),
        hint=_misspelled(start) or 'Run "venvflow init" to write one, or name one with --config',
    )


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError as error:
        raise EnvironmentFailure(
            f"the working directory cannot be found: {error.strerror}",
            where=shown(path),
            state="Nothing was changed",
            hint="Change to a directory that exists",
        ) from error


def _named_config(file: str) -> tuple[str, str]:
    if not _is_there(file):
        raise UsageError(
            "the config file is not there", where=shown(file), hint='Run "venvflow init" to write a config'
        )
    directory = os.path.dirname(file)
    return file, os.path.dirname(directory) if os.path.basename(directory) == "config" else directory


def _is_there(file: str) -> bool:
    """Return whether *file* exists in any form: what is wrong with it is found when it is read."""
    try:
        os.lstat(file)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable(file, error) from error
    return True


def _misspelled(start: str) -> str:
    if os.path.lexists(os.path.join(start, "venvflow.yml")):
        return "There is a venvflow.yml: rename it to venvflow.yaml"
    return ""


# --------------------------------------------------------------------------- loading


def load(file: str, root: str, environ: Mapping[str, str]) -> Config:
    """Return the config in *file* for the project at *root*; nothing is written.

    ``VENVFLOW_STORE`` in *environ* overrides ``store.path``. Lock files and key files that are missing are
    no problem of the file: they are the ``faults`` of the venvs that list them.

    Raises ``ConfigError`` with all problems of the file, dangerous paths among them; ``Refused`` if nothing
    is wrong but that some venv's path could make venvflow delete what is not its own, and, for root, if
    somebody else can write the file;
    ``EnvironmentFailure`` if the file cannot be read.
    """
    root = os.path.normpath(root)
    places = Places(root, home_of(environ), environ)
    report = Report(file, places)
    data, st = read(file)
    doubted = doubts(file, root, st, os.geteuid(), environ)
    document = parse(decode(data, report), report)
    values = TOP(document, "", report)
    config = assemble(values, document, report) if values is not WRONG else None
    only_dangers = not report.problems
    for name, text in dangers_of(config, places.home).items() if config else ():
        report.wrong(_line_of_path(document, name), f"venvs.{name}.path", text)
    if report.problems or config is None:
        raise _refusal(report.lines()) if only_dangers else ConfigError(report.lines())
    return replace(config, warnings=(*_warnings(config.venvs), *doubted, *_doubts_of_store(config.store)))


def _line_of_path(document: Node, name: str) -> int:
    return document.pairs["venvs"][1].pairs[name][1].pairs["path"][1].line


def _refusal(lines: list[str]) -> Refused:
    count = f"{len(lines)} path{'s' * (len(lines) > 1)} in the config"
    return Refused(
        f"{count} cannot be used for venvs:",
        lines=lines,
        state="Nothing has been run or changed",
        hint="Give each venv a directory that belongs to it alone",
    )


def usual_store(directory: str, environ: Mapping[str, str]) -> StoreConfig:
    """Return the store for work outside of all projects; relative paths are those below *directory*."""
    return store_of({}, Places(_absolute(directory), home_of(environ), environ))


def _doubts_of_store(store: StoreConfig) -> Iterator[str]:
    """Yield the warning about a store that others can change; root is refused it when it is opened."""
    uid = os.geteuid()
    if uid and not store.trusted:
        for doubt in store_doubts(os.path.realpath(store.path), STORE_PARTS, uid):
            yield store_warning(doubt)
            return


def _warnings(venvs: Mapping[str, VenvSpec]) -> Iterator[str]:
    if not venvs:
        yield "the config names no venvs: there is nothing to do"


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the config file."""
    import json  # noqa: PLC0415 - only the schema needs it

    with open(
        os.path.join(os.path.dirname(venvflow.__file__), "venvflow.schema.json"), encoding="utf-8"
    ) as file:
        found: dict[str, Any] = json.load(file)
    return found
