"""The key: a hash of everything that decides a venv's content, made of named parts.

Parts are kept beside the hash, so two keys can be compared and a miss can be explained. What is not in
the key: the paths of venv, project and store, the link mode, and the time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from venvflow.model import FORMAT, Interpreter, Key, VenvSpec
from venvflow.pure.redaction import redact_words


class Input(NamedTuple):
    """A file whose bytes are in the key: its *role* (lock, include, local, file), base *name* and *data*."""

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
    by_name: dict[tuple[str, str], list[str]] = {}
    for item in inputs:
        by_name.setdefault((item.role, item.name), []).append(hashlib.sha256(item.data).hexdigest())
    # The number stands before the colon, where no file's name can imitate it.
    return {
        f"{role}:{name}" if number == 1 else f"{role}#{number}:{name}": digest
        for (role, name), digests in by_name.items()
        for number, digest in enumerate(sorted(digests), start=1)
    }


def _command_parts(commands: list[list[str]]) -> dict[str, str]:
    """Return what is run, without credentials, and a hash of it with them where there are any."""
    clean = json.dumps([redact_words(words) for words in commands])
    whole = json.dumps(commands)
    return {"commands": clean} if clean == whole else {"commands": clean, "credentials": _hashed_value(whole)}


def _hashed_value(value: str | None) -> str:
    if value is None:
        return "unset"
    return "sha256:" + hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()
