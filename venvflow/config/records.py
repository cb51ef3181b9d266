"""From checked values to the records of the model, defaults filled in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from venvflow.config.nodes import Node, clipped
from venvflow.config.paths import Places, file_problem
from venvflow.config.report import WRONG, Report
from venvflow.config.trust import is_trusted_store
from venvflow.config.vocabulary import LEVELS
from venvflow.errors import shown
from venvflow.model import Config, PackOptions, StoreConfig, TrimPolicy, VenvSpec

USUAL_LEVELS = {"tar": 0, "tar.bz2": 9, "tar.gz": 6, "tar.xz": 6, "tar.zst": 3, "zip": 6}
"""The level of each format where the config says none."""


def assemble(values: Mapping[str, Any], document: Node, report: Report) -> Config:
    """Return the config in *values*, defaults filled in; reports what is wrong only in combination."""
    store = store_of(values.get("store", {}), report.places)
    shared, excludes = values.get("defaults", {}), values.get("exclude", ())
    venvs, faults = {}, {}
    for name, own in values.get("venvs", {}).items():
        if own is WRONG or not {"path", "locks"} <= own.keys():
            continue  # reported already
        merged = _merged(shared, own)
        line, written = document.pairs["venvs"][1].pairs[name]
        line = written.pairs.get("pack", (line,))[0]
        pack = _pack(merged.pop("pack", None), line, f"venvs.{name}.pack", report)
        if found := [*_faults(document, name, merged)]:
            faults[name] = tuple(f"{shown(report.file)}:{at}" for at in found)
        venvs[name] = _spec(name, merged, store, excludes, pack)
    _report_twins(venvs, document, report)
    policy = TrimPolicy(**values.get("trim", {}))
    return Config(report.file, report.places.root, store, policy, venvs, faults=faults)


def _faults(document: Node, name: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield ``line: text`` for every file that one venv lists and that is not there, or is no file.

    These are no mistakes of the whole config: the other venvs can be made without them.
    """
    own = document.pairs["venvs"][1].pairs[name][1]
    yield from _missing(own.pairs["locks"][1], values["locks"], f"venvs.{name}.locks")
    groups = values.get("key", {}).get("files", ())
    places = [(own, f"venvs.{name}")]
    if "defaults" in document.pairs:
        places.append((document.pairs["defaults"][1], "defaults"))
    for above, at in places:
        key = above.pairs.get("key", (0, None))[1]
        if groups and key is not None and "files" in key.pairs:
            yield from _missing(key.pairs["files"][1], groups, f"{at}.key.files")
            return


def _missing(listed: Node, groups: tuple[tuple[str, ...], ...], at: str) -> Iterator[str]:
    for index, (node, paths) in enumerate(zip(listed.items, groups, strict=True)):
        if not paths:
            yield f"{node.line}: {at}[{index}]: {clipped(node.text)} matches no file"
        for path in paths:
            if problem := file_problem(path):
                yield f"{node.line}: {at}[{index}]: {shown(path)} {problem}"


def store_of(values: Mapping[str, Any], places: Places) -> StoreConfig:
    """Return the store of a config, or of none: where the environment, or else the user's data home, says."""
    override = places.environ.get("VENVFLOW_STORE")
    if override:
        home = override == "~" or override.startswith("~/")
        values = {**values, "path": places.join(places.home + override[1:] if home else override)}
    data_home = places.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data_home):  # the rule of the XDG specification: relative ones do not count
        data_home = f"{places.home}/.local/share"
    store = StoreConfig(**{"path": places.join(f"{data_home}/venvflow"), **values})
    return replace(store, trusted=is_trusted_store(store.path, places.environ))


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return *own* with what it leaves out taken from *shared*; mappings are joined key by key."""
    merged = {**shared, **own}
    for key in shared.keys() & own.keys():
        if isinstance(shared[key], dict) and isinstance(own[key], dict):
            merged[key] = {**shared[key], **own[key]}
    return merged


def _pack(values: dict[str, Any] | None, line: int, at: str, report: Report) -> PackOptions | None:
    if values is None:
        return None
    kind = values.get("format", "tar.zst")
    level = values.get("level", USUAL_LEVELS[kind])
    least, most = LEVELS[kind]
    if not least <= level <= most:
        report.wrong(line, at, f"{kind} has levels from {least} to {most}, not {level}")
    others = {key: values[key] for key in ("name", "arcroot", "threads") if key in values}
    return PackOptions(values.get("output") or report.places.join("dist"), kind, level, **others)


def _report_twins(venvs: Mapping[str, VenvSpec], document: Node, report: Report) -> None:
    """Report venvs whose archives would have one name: each would replace the other's."""
    taken: dict[str, str] = {}
    for name, spec in venvs.items():
        if spec.pack is None:
            continue
        # Keys and versions may differ, but the same lock files give the same ones.
        path = f"{spec.pack.output}/{spec.pack.name.replace('{venv}', name)}.{spec.pack.format}"
        other = taken.setdefault(path.casefold(), name)
        if other != name:
            line, written = document.pairs["venvs"][1].pairs[name]
            line = written.pairs.get("pack", (line,))[0]
            text = f"its archive has the same name as that of {other!r}: put {{venv}} into pack.name"
            report.wrong(line, f"venvs.{name}.pack", text)


def _spec(
    name: str, values: dict[str, Any], store: StoreConfig, excludes: tuple[str, ...], pack: PackOptions | None
) -> VenvSpec:
    squish, key = values.pop("squish", {}), values.pop("key", {})
    values["locks"] = _flat(values["locks"])
    values["exclude"] = excludes + values.get("exclude", ())
    return VenvSpec(
        name=name,
        link=squish.get("link", store.link),
        min_size=squish.get("min_size", store.min_size),
        key_files=_flat(key.get("files", ())),
        key_env=key.get("env", ()),
        pack=pack,
        **values,
    )


def _flat(groups: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Return all paths in their order, each once."""
    return tuple(dict.fromkeys(path for group in groups for path in group))
