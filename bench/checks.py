"""Is the result right? Asked of everybody, before anything is timed: to do nothing is always fastest."""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import json
import os
import struct
from collections.abc import Iterator

_SAMPLE = 400
_MISSING_BYTECODE = 0.02


class WrongResult(Exception):
    """Somebody's venv is not what it should be; its time would mean nothing."""


def compare(made: str, finished: str, *, who: str) -> None:
    """Raise WrongResult unless the venv *made* holds what the venv *finished* does, with valid bytecode.

    Compared are the names of all files of ``bin`` and ``lib``, and the bytes of some hundred of them.
    Bytecode may differ in its bytes (it may hold paths), but has to be there and has to be valid; some
    few files that one compiler takes and another leaves out are let pass.
    """
    here, there = set(files(made)), set(files(finished))
    sources, expected = _without_bytecode(here), _without_bytecode(there)
    if sources != expected:
        odd = sorted(sources ^ expected)
        raise WrongResult(f"{who}: {len(odd)} files too many or too few, the first is {odd[0]}")
    missing = sorted(path for path in there - here if path.endswith(".pyc"))
    bytecode = len(there) - len(expected)
    if len(missing) > _MISSING_BYTECODE * bytecode:
        raise WrongResult(f"{who}: {len(missing)} of {bytecode} .pyc are missing, the first is {missing[0]}")
    _compare_bytes(made, finished, sorted(expected), who)
    stale = sorted(stale_bytecode(made, here))
    if stale:
        raise WrongResult(
            f"{who}: {len(stale)} .pyc are not valid for their sources, the first is {stale[0]}"
        )


def files(venv: str) -> Iterator[str]:
    """Yield the paths of all files in a venv's ``bin`` and ``lib``, relative to it."""
    for top in ("bin", "lib"):
        for directory, _, names in os.walk(os.path.join(venv, top)):
            relative = os.path.relpath(directory, venv)
            yield from (f"{relative}/{name}" for name in names)


def count(venv: str) -> int:
    """Return how many files are in a venv's ``bin`` and ``lib``."""
    return sum(1 for _ in files(venv))


def stale_bytecode(venv: str, paths: set[str]) -> Iterator[str]:
    """Yield the ``.pyc`` among *paths* that Python would compile anew; one without a source is no such."""
    for path in paths:
        directory, name = os.path.split(path)
        if not name.endswith(".pyc") or os.path.basename(directory) != "__pycache__":
            continue
        source = os.path.join(os.path.dirname(directory), name.split(".")[0] + ".py")
        if source in paths and not _is_valid(os.path.join(venv, path), os.path.join(venv, source)):
            yield path


def _is_valid(bytecode: str, source: str) -> bool:
    with open(bytecode, "rb") as file:
        head = file.read(16)
    if len(head) != 16 or head[:4] != importlib.util.MAGIC_NUMBER:
        return False
    flags, mtime, size = struct.unpack("<3L", head[4:])
    st = os.stat(source)
    return flags != 0 or (mtime, size) == (int(st.st_mtime) & 0xFFFFFFFF, st.st_size & 0xFFFFFFFF)


def installed(venv: str, distribution: str) -> None:
    """Raise WrongResult unless the ``name-version`` of a *distribution* is in the venv, once."""
    name = distribution.partition("-")[0]
    found = {
        os.path.basename(path)
        for path in glob.glob(os.path.join(venv, f"lib/python*/site-packages/{name}-*"))
    }
    if found != {f"{distribution}.dist-info"}:
        raise WrongResult(f"{venv} has {sorted(found)}, not {distribution}")


def trees(venv: str) -> tuple[str, ...]:
    """Return the digests of a venv's trees, by its receipt: equal ones are equal venvs, file by file."""
    with open(os.path.join(venv, ".venvflow.json"), encoding="utf-8") as file:
        return tuple(sorted(json.load(file)["trees"]))


def same_trees(made: str, fresh: str) -> None:
    """Raise WrongResult unless a venv is what a *fresh* build made of the same lock."""
    odd = set(trees(made)) ^ set(trees(fresh))
    if odd or not trees(made):
        raise WrongResult(f"{made} is not what a fresh build gives: {len(odd)} trees differ")


def _without_bytecode(paths: set[str]) -> set[str]:
    return {path for path in paths if not path.endswith(".pyc")}


def _compare_bytes(made: str, finished: str, paths: list[str], who: str) -> None:
    """Compare a sample of files; what a venv's own tool writes into it (scripts, RECORD) may differ."""
    packages = [path for path in paths if "/site-packages/" in path and not path.endswith("/RECORD")]
    step = max(1, len(packages) // _SAMPLE)
    for path in packages[::step]:
        if _digest(os.path.join(made, path)) != _digest(os.path.join(finished, path)):
            raise WrongResult(f"{who}: the bytes of {path} differ")


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).digest()
