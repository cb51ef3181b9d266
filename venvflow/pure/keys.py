"""The key: a hash of everything that decides a venv's content, made of named parts.

Parts are kept beside the hash, so two keys can be compared and a miss can be explained. What is not in
the key: the paths of venv, project and store, the link mode, and the time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from venvflow.model import FORMAT, Interpreter, Key, Snapshot, VenvSpec
from venvflow.pure.redaction import redact_words


class Input(NamedTuple):
    """A file that is in the key: its *role* (lock, include, local, file), base *name* and *data*.

    The data are its bytes, or its own part (:mod:`venvflow.pure.own_part`).
    """

    role: str
    name: str
    data: bytes


def make_key(parts: Mapping[str, str]) -> Key:
    """Return the key of *parts*: SHA-256 over their canonical JSON, so no two sets can run together."""
    ordered = dict(sorted(parts.items()))
    canonical = json.dumps(ordered, separators=(",", ":")).encode("ascii")
    return Key(hashlib.sha256(canonical).hexdigest(), ordered)


def snapshot_id(key: str, place: str | None) -> str:
    """Return the name of the snapshot for a key digest: the key itself, unless it is bound to a *place*."""
    if place is None:
        return key
    return hashlib.sha256(f"{key}\n{place}".encode("utf-8", "surrogateescape")).hexdigest()


def is_honest(snapshot: Snapshot, identifier: str) -> bool:
    """Return whether a snapshot is the one that its name and its key say."""
    key = snapshot.key
    return (
        snapshot.id == identifier == snapshot_id(key.digest, snapshot.place)
        and make_key(key.parts).digest == key.digest
    )


def parts_of(
    spec: VenvSpec,
    interpreter: Interpreter,
    *,
    builder: str,
    commands: Iterable[Iterable[str]],
    inputs: Iterable[Input],
    environ: Mapping[str, str],
) -> dict[str, str]:
    """Return the named parts for one venv.

    *commands* are the builder's command templates, the same text in every checkout. Parts are published, so
    credentials in commands, and all values of the environment variables that the config lists, are hashed.
    """
    return {
        "format": str(FORMAT),
        **file_parts(inputs),
        "python": f"{interpreter.implementation} {interpreter.version}",
        "abi": interpreter.abi,
        "platform": interpreter.platform,
        "builder": builder,
        **_command_parts([list(words) for words in commands]),
        "exclude": json.dumps(list(spec.exclude)),
        "bytecode": spec.bytecode,
        **{f"env:{name}": _hashed_value(environ.get(name)) for name in spec.key_env},
    }


def file_parts(inputs: Iterable[Input]) -> dict[str, str]:
    """Return one part per file, named by role and base name; files of one name are told apart by number.

    The order in which files are listed and the directories they lie in make no difference.
    """
    return {name: digest for name, digest, _ in _numbered(inputs)}


def part_names(files: Mapping[str, Input]) -> dict[str, str]:
    """Return the name of the part of each of these *files*, by their paths."""
    names = {item: name for name, _, item in _numbered(files.values())}
    return {path: names[item] for path, item in files.items()}


def _numbered(inputs: Iterable[Input]) -> Iterator[tuple[str, str, Input]]:
    """Yield the name and the value of the part of each file."""
    by_name: dict[tuple[str, str], list[tuple[str, Input]]] = {}
    for item in inputs:
        found = by_name.setdefault((item.role, item.name), [])
        found.append((hashlib.sha256(item.data).hexdigest(), item))
    for (role, name), found in by_name.items():
        for number, (digest, item) in enumerate(sorted(found), start=1):
            # The number stands before the colon, where no file's name can imitate it.
            yield f"{role}:{name}" if number == 1 else f"{role}#{number}:{name}", digest, item


def _command_parts(commands: list[list[str]]) -> dict[str, str]:
    """Return what is run, without credentials, and a hash of it with them where there are any."""
    clean = json.dumps([redact_words(words) for words in commands])
    whole = json.dumps(commands)
    return {"commands": clean} if clean == whole else {"commands": clean, "credentials": _hashed_value(whole)}


def _hashed_value(value: str | None) -> str:
    if value is None:
        return "unset"
    return "sha256:" + hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()
