"""The config file: finds it, reads it with care, checks all of it, and turns it into records.

``paths`` knows how paths are read, ``documents`` makes nodes with line numbers of a file, ``checks`` makes
values of nodes, and this module makes records of values.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from venvflow.config.checks import TOP, hint_for, remote_url
from venvflow.config.documents import WRONG, Node, Reading, parse, quoted, read, unreadable
from venvflow.config.paths import PathReader, ancestors, dangers_of, file_problem
from venvflow.config.venvs import Asked
from venvflow.disk.trust import STORE_PARTS, doubts, is_trusted_store, store_doubts, store_warning
from venvflow.errors import ConfigError, EnvironmentFailure, Refused, UsageError, clipped, shown
from venvflow.model import (
    FORMATS,
    Config,
    PackOptions,
    RemoteConfig,
    RemoteKeep,
    StoreConfig,
    TrimPolicy,
    VenvSpec,
)
from venvflow.pure.names import PART_FIELDS, set_name
from venvflow.pure.units import counted
from venvflow.pure.variables import unknown_variables

__all__ = ["CONFIG_NAMES", "find_config", "load", "project_of", "quoted", "usual_store"]

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
    misspelled = os.path.lexists(os.path.join(start, "venvflow.yml"))
    raise UsageError(
        "there is no venvflow.yaml here or in any parent directory",
        where=shown(start),
        hint="There is a venvflow.yml: rename it to venvflow.yaml"
        if misspelled
        else 'Run "venvflow init" to write one, or name one with --config',
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
    return file, project_of(file)


def project_of(file: str) -> str:
    """Return the root of the project whose config is *file*: its directory, or the one above ``config``."""
    directory = os.path.dirname(file)
    return os.path.dirname(directory) if os.path.basename(directory) == "config" else directory


def _is_there(file: str) -> bool:
    """Return whether *file* exists in any form: what is wrong with it is found when it is read."""
    try:
        os.lstat(file)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable(file, error) from error
    return True


# --------------------------------------------------------------------------- loading


def load(file: str, root: str, environ: Mapping[str, str]) -> Config:
    """Return the config in *file* for the project at *root*; nothing is written.

    ``VENVFLOW_STORE`` in *environ* overrides ``store.path``. Lock files and key files that are missing are
    not problems of the file: they are the ``faults`` of the venvs that list them.

    Raises ``ConfigError`` with all problems of the file, dangerous paths among them; ``Refused`` if the only
    problem is that the path of a venv could make venvflow delete what is not its own, and, for root, if
    somebody else can write the file; ``EnvironmentFailure`` if the file cannot be read.
    """
    root = os.path.normpath(root)
    reading = Reading(file, PathReader(root, environ))
    data, st = read(file)
    doubted = doubts(file, root, st, os.geteuid(), environ)
    document = parse(data, reading)
    values = TOP(document, "", reading)
    if values is not WRONG and not {"venvs", "each"} & document.pairs.keys():
        reading.wrong(document.line, "", "the key 'venvs' is missing")
    asked = _asked(values, reading) if values is not WRONG else {}
    config = _assembled(values, asked, document, reading) if values is not WRONG else None
    only_dangers = not reading.problems
    for name, text in dangers_of(config, reading.paths.home).items() if config else ():
        asked[name].wrong("path", text, reading)
    if reading.problems or config is None:
        raise _refusal(reading.lines()) if only_dangers else ConfigError(reading.lines())
    warnings = (*unknown_variables(environ, data), *_warnings(config, doubted))
    return replace(config, warnings=warnings)


def _refusal(lines: list[str]) -> Refused:
    return Refused(
        f"{counted(len(lines), 'path')} in the config cannot be used for venvs:",
        lines=lines,
        state="Nothing has been run or changed",
        hint="Give each venv a directory that belongs to it alone",
    )


def _warnings(config: Config, doubted: tuple[str, ...]) -> Iterator[str]:
    if not config.venvs:
        yield "the config names no venvs: there is nothing to do"
    yield from doubted
    # Root is refused a store that others can change, when it is opened.
    if os.geteuid() and not config.store.trusted:
        for doubt in store_doubts(os.path.realpath(config.store.path), STORE_PARTS, os.geteuid()):
            yield store_warning(doubt)
            return


def usual_store(directory: str, environ: Mapping[str, str]) -> StoreConfig:
    """Return the store for work outside of all projects; relative paths are those below *directory*."""
    return _store_of({}, PathReader(_absolute(directory), environ))


# --------------------------------------------------------------------------- from values to records


def _asked(values: Mapping[str, Any], reading: Reading) -> dict[str, Asked]:
    """Return what is asked of each venv, by its name; without those that have a mistake.

    A venv of a template that has the name of another one is reported.
    """
    known = dict(values.get("venvs", {}))
    by_letters = {name.lower(): name for name in known}
    for asked in (asked for template in values.get("each", ()) for asked in template):
        name = asked.values.pop("name")
        first = known.get(by_letters.setdefault(name.lower(), name), asked)
        if first is asked:
            known[name] = asked
        elif first is not WRONG:
            asked.wrong(
                "name", f"{name!r} is also the name of {first.label}: {asked.way_out(first)}", reading
            )
    return {name: asked for name, asked in known.items() if asked is not WRONG}


def _assembled(
    values: Mapping[str, Any], venvs: Mapping[str, Asked], document: Node, reading: Reading
) -> Config:
    """Return the config in *values*, defaults filled in; reports what is wrong only in combination."""
    store = _store_of(values.get("store", {}), reading.paths)
    for problem in _remote_problems(values.get("store", {}).get("remote")):
        node = document.pairs["store"].pairs["remote"]
        reading.wrong(node.line, "store.remote", problem)
    shared, excludes = values.get("defaults", {}), values.get("exclude", ())
    specs: dict[str, VenvSpec] = {}
    missing_files: dict[str, tuple[str, ...]] = {}
    archives: dict[str, str] = {}
    for name, asked in venvs.items():
        merged = _merged(shared, asked.values)
        if merged.get("pack") is not None:
            merged["pack"] = _pack(merged["pack"], reading.paths)
            for problem in _pack_problems(merged["pack"], name, archives):
                asked.wrong("pack", problem, reading)
        for key in _CHOICES & merged.keys():
            if problem := _why_not(key, merged):
                asked.wrong(key, problem, reading)
        if not reading.problems and (
            found := tuple(_missing_files(document, asked, merged, reading.paths.root))
        ):
            missing_files[name] = tuple(f"{shown(reading.file)}:{asked.on(text)}" for text in found)
        specs[name] = _spec(name, merged | {"origin": asked.origin}, store, excludes)
    return Config(
        reading.file,
        reading.paths.root,
        store,
        TrimPolicy(**values.get("trim", {})),
        specs,
        missing_files=missing_files,
        ignore=values.get("ignore", ()),
        sets=_sets(document, values.get("sets", {}), specs, reading),
    )


def _sets(document: Node, listed: Mapping[str, Any], venvs: Collection[str], reading: Reading) -> Any:
    """Return the venvs of each set, in the order of the config; reports what names none."""
    if reading.problems:
        return {}  # there may be more venvs than are known
    sets = {}
    for name, members in listed.items():
        node = document.pairs["sets"].pairs[name]
        if same := next((venv for venv in venvs if venv.lower() == name.lower()), ""):
            reading.wrong(node.line, f"sets.{name}", f"{same!r} is the name of a venv")
        found = [fnmatch.filter(venvs, member) for member in members]
        for index, (member, fitting) in enumerate(zip(members, found, strict=True)):
            if not fitting:
                is_set = f"{member!r} is a set, and a set lists venvs"
                what = is_set if member in listed else f"{clipped(member)!r} names no venv"
                at = f"sets.{name}[{index}]"
                reading.wrong(node.items[index].line, at, f"{what}; {hint_for(member, venvs, reading)}")
        sets[name] = tuple(venv for venv in venvs if any(venv in fitting for fitting in found))
    return sets


def _store_of(values: Mapping[str, Any], paths: PathReader) -> StoreConfig:
    """Return the store of a config, or of none: where the environment, or else the user's data home, says."""
    override = paths.environ.get("VENVFLOW_STORE")
    if override:
        home = override == "~" or override.startswith("~/")
        values = {**values, "path": paths.join(paths.home + override[1:] if home else override)}
    data_home = paths.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data_home):  # the rule of the XDG specification: relative ones do not count
        data_home = f"{paths.home}/.local/share"
    remote = _remote_of(values.get("remote"), paths.environ)
    store = StoreConfig(**{"path": paths.join(f"{data_home}/venvflow"), **values, "remote": remote})
    return replace(store, trusted=is_trusted_store(store.path, paths.environ))


def _remote_of(values: Mapping[str, Any] | None, environ: Mapping[str, str]) -> RemoteConfig | None:
    """Return the remote of a store: that of the config; ``VENVFLOW_REMOTE`` may name another URL, or ``off``.

    Raises UsageError for one that is none, and for a mode in ``VENVFLOW_REMOTE_MODE`` that is none: who
    misspelled it wants a run to do less, and not what the config says.
    """
    override, mode = environ.get("VENVFLOW_REMOTE", ""), environ.get("VENVFLOW_REMOTE_MODE", "")
    if values is None or "url" not in values or override == "off":
        return None
    from venvflow.pure.ci import MODES  # noqa: PLC0415 - most projects have no remote

    if mode and mode not in MODES:
        what = f"{clipped(mode)} is not a mode ({', '.join(MODES)})"
        raise UsageError(what, where="VENVFLOW_REMOTE_MODE", hint="Name one of them, or none.")
    values = {**values, "keep": RemoteKeep(**values.get("keep", {}))}
    if not override:
        return RemoteConfig(**values)
    try:
        url = remote_url(override)
    except ValueError as error:
        hint = 'Name another remote, or "off"; without the variable, that of the config is used.'
        raise UsageError(str(error), where="VENVFLOW_REMOTE", hint=hint) from None
    if not url.startswith("s3:"):  # the server that the config names is that of its own bucket
        values = {name: value for name, value in values.items() if name not in ("endpoint", "region")}
    return RemoteConfig(**{**values, "url": url})


def _remote_problems(values: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what is wrong with a remote of the config as a whole."""
    if values is None or "url" not in values:
        return
    if not values.get("keys") and not values.get("unsigned"):
        yield (
            'no key says whose snapshots are believed: put what "venvflow keygen NAME" prints under keys, or '
            "write unsigned: true, if everybody who can write there may run code here"
        )
    if ("endpoint" in values or "region" in values) and not values["url"].startswith("s3:"):
        yield "only s3: has an endpoint and a region"
    if values.get("mode") == "write" and values["url"].startswith(("http:", "https:")):
        yield "a mirror by http can only be read"


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return *own* with what it leaves out taken from *shared*; mappings are joined key by key."""
    merged = {**shared, **own}
    for key in shared.keys() & own.keys():
        if isinstance(shared[key], dict) and isinstance(own[key], dict):
            merged[key] = {**shared[key], **own[key]}
    return merged


def _missing_files(document: Node, asked: Asked, values: Mapping[str, Any], root: str) -> Iterator[str]:
    """Yield ``line: text`` for every file that one venv lists and that is not there, or is not a file.

    These are not mistakes of the config: the other venvs can be made without them.
    """
    yield from _missing(*_listed(document, asked, "locks"), values["locks"])
    if files := values.get("key", {}).get("files"):
        yield from _missing(*_listed(document, asked, "key", "files"), files)
    if projects := values.get("editable"):
        node, at = _listed(document, asked, "editable")
        for index, (item, path) in enumerate(zip(node.items, projects, strict=True)):
            directory = os.path.normpath(f"{root}/{path}")
            if not any(os.path.isfile(f"{directory}/{name}") for name in ("pyproject.toml", "setup.py")):
                yield f"{item.line}: {at}[{index}]: {shown(directory)} has no pyproject.toml or setup.py"


def _listed(document: Node, asked: Asked, *keys: str) -> tuple[Node, str]:
    """Return the list under *keys* of a venv, or else of the defaults, with its key path."""
    for node, at in ((asked.node, asked.at), (document.pairs.get("defaults"), "defaults")):
        for key in keys:
            node = node and node.pairs.get(key)  # noqa: PLW2901 - one step down
        if node is not None:
            return node, ".".join([at, *keys])
    raise KeyError(keys)


def _missing(listed: Node, at: str, groups: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    for index, (node, paths) in enumerate(zip(listed.items, groups, strict=True)):
        if not paths:
            yield f"{node.line}: {at}[{index}]: {clipped(node.text)} matches no file"
        for path in paths:
            if problem := file_problem(path):
                yield f"{node.line}: {at}[{index}]: {shown(path)} {problem}"


_CHOICES = {"groups", "extras", "dev", "packages", "editable", "prompt", "system_site_packages"}
"""Keys that say what is installed, and how the venv is made."""


def _why_not(key: str, values: Mapping[str, Any]) -> str:
    """Return why the tool that makes a venv cannot do what *key* asks for, or an empty text."""
    is_usual = values[key] is (key == "dev") or values[key] == ()
    if is_usual:
        return ""
    if not isinstance(values.get("build", "auto"), str):
        return "the commands under 'build' say that themselves: leave it out"
    if key in {"prompt", "system_site_packages"}:
        return ""
    from venvflow.pure.lockfiles import why_not_chosen  # noqa: PLC0415 - few configs choose

    return why_not_chosen(key, _flat(values["locks"]))


def _pack(values: Mapping[str, Any], paths: PathReader) -> PackOptions:
    kind = values.get("format", "tar.zst")
    usual = {"output": paths.join("dist"), "format": kind, "level": FORMATS[kind].default}
    return PackOptions(**{**usual, **values})


def _pack_problems(pack: PackOptions, name: str, archives: dict[str, str]) -> Iterator[str]:
    """Yield what is wrong with the archive of a venv; *archives* knows whose are those of the ones before."""
    known = FORMATS[pack.format]
    if not known.lowest <= pack.level <= known.highest:
        yield f"{pack.format} has levels from {known.lowest} to {known.highest}, not {pack.level}"
    for number in (number for number, patterns in enumerate(pack.layers[:-1]) if "*" in patterns):
        yield f"layers[{number}] has '*', which leaves nothing for the layers after it: put it into the last"
    if pack.bundle_python and pack.python:
        yield "bundle_python packs the interpreter, and python names one that is there: leave one of them out"
    if not pack.layers and (field := next((each for each in PART_FIELDS if each in pack.name), "")):
        yield f"{field} in its name is known for an archive in layers only"
    # Keys and versions may differ, but the same lock files give the same ones.
    whole = set_name(pack.name) if pack.layers else pack.name
    path = f"{pack.output}/{whole.replace('{venv}', name)}.{pack.format}"
    if (other := archives.setdefault(path.casefold(), name)) != name:
        yield f"its archive has the same name as that of {other!r}: put {{venv}} into pack.name"


def _spec(name: str, values: dict[str, Any], store: StoreConfig, excludes: tuple[str, ...]) -> VenvSpec:
    squish, key = values.pop("squish", {}), values.pop("key", {})
    values["locks"] = _flat(values["locks"])
    values["exclude"] = excludes + values.get("exclude", ())
    return VenvSpec(
        name=name,
        link=squish.get("link", store.link),
        min_size=squish.get("min_size", store.min_size),
        private=squish.get("private", ()),
        key_files=_flat(key.get("files", ())),
        key_env=key.get("env", ()),
        **values,
    )


def _flat(groups: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Return all paths in their order, each once."""
    return tuple(dict.fromkeys(path for group in groups for path in group))
