"""From checked values to the records of the model, defaults filled in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from venvflow.config.nodes import Node
from venvflow.config.paths import Places
from venvflow.config.report import WRONG, Report
from venvflow.config.vocabulary import LEVELS
from venvflow.model import Config, PackOptions, StoreConfig, TrimPolicy, VenvSpec

_USUAL_LEVELS = {"tar": 0, "tar.gz": 6, "tar.xz": 6, "tar.zst": 3, "zip": 6}


def assemble(values: Mapping[str, Any], document: Node, report: Report) -> Config:
    """Return the config in *values*, defaults filled in; reports what is wrong only in combination."""
    store = store_of(values.get("store", {}), report.places)
    shared, excludes = values.get("defaults", {}), values.get("exclude", ())
    venvs = {}
    for name, own in values.get("venvs", {}).items():
        if own is WRONG or not {"path", "locks"} <= own.keys():
            continue  # reported already
        merged = _merged(shared, own)
        line, written = document.pairs["venvs"][1].pairs[name]
        line = written.pairs.get("pack", (line,))[0]
        pack = _pack(merged.pop("pack", None), line, f"venvs.{name}.pack", report)
        venvs[name] = _spec(name, merged, store, excludes, pack)
    return Config(report.file, report.places.root, store, TrimPolicy(**values.get("trim", {})), venvs)


def store_of(values: Mapping[str, Any], places: Places) -> StoreConfig:
    """Return the store of a config, or of none: where the environment, or else the user's data home, says."""
    override = places.environ.get("VENVFLOW_STORE")
    if override:
        home = override == "~" or override.startswith("~/")
        values = {**values, "path": places.join(places.home + override[1:] if home else override)}
    data_home = places.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data_home):  # the rule of the XDG specification: relative ones do not count
        data_home = f"{places.home}/.local/share"
    return StoreConfig(**{"path": places.join(f"{data_home}/venvflow"), **values})


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
    level = values.get("level", _USUAL_LEVELS[kind])
    least, most = LEVELS[kind]
    if not least <= level <= most:
        report.wrong(line, at, f"{kind} has levels from {least} to {most}, not {level}")
    return PackOptions(values.get("output") or report.places.join("dist"), kind, level)


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
