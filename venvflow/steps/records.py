"""The small files by which a venv's steps speak to each other, in ``.venvflow/<venv>/`` of the project.

=================  ====================  ==============================================================
``key.json``       ``hash-lockfiles``    the key, the interpreter, and how to see that they still hold
``restore.json``   ``restore``, build    whether there is a venv for the key now, and why
``excluded.json``  ``build-venv``        what the exclude patterns left out
``manifest.json``  ``squish``            the trees of the venv
``pack.json``      ``pack``              what the archive was made from, and its stat
=================  ====================  ==============================================================

All of them may be deleted at any time: a step that misses one runs again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from venvflow.disk.files import read_small, write_whole
from venvflow.errors import EnvironmentFailure, shown
from venvflow.model import Interpreter, Key, PackOptions
from venvflow.steps.job import Job

TRIM_NOTE = "trim.json"
"""File in the store that says, by policy, when it was applied, and to which generation of snapshots."""

TRIM_INTERVAL = 86_400
"""Seconds after which the trim policy is applied again although the store did not change."""


class KeyRecord(NamedTuple):
    """What ``hash-lockfiles`` found out: the key and the interpreter, and how to see that they still hold.

    *inputs* are the files whose bytes are in the key; *fingerprint* covers them and everything else that
    can be looked at without running a program.
    """

    key: Key
    interpreter: Interpreter
    inputs: tuple[str, ...]
    fingerprint: str
    warnings: tuple[str, ...]


def write_json(path: str, document: Mapping[str, Any]) -> None:
    """Write a small file that is replaced as a whole."""
    _write_text(path, json.dumps(document))


def _write_text(path: str, text: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_whole(path, text.encode("ascii"))
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot write the project's state: {error.strerror}",
            where=shown(path),
            state="No venv was changed.",
            hint="Check the permissions and the free space of the project directory.",
        ) from error


def read_json(path: str) -> dict[str, Any] | None:
    """Return what was written to *path*, or None if it is not there or makes no sense.

    Parsed once for as long as the file stays the same: a run asks for each of these files several times.
    """
    return _parsed(path, stamp_of(path))


def stamp_of(path: str) -> tuple[int, ...]:
    """Return inode, size and mtime of a file, which change with it; nothing if it is not there."""
    try:
        st = os.stat(path)
    except OSError:
        return ()
    return st.st_ino, st.st_size, st.st_mtime_ns


@cache
def _parsed(path: str, stamp: tuple[int, ...]) -> dict[str, Any] | None:
    if not stamp:
        return None
    try:
        document = json.loads(read_small(path))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def trim_notes(store: str) -> dict[str, dict[str, Any]]:
    """Return what is noted of each policy that was applied to the store at path *store*.

    Projects that share a store and have other policies would else trim at each run, in turn.
    """
    notes = read_json(os.path.join(store, TRIM_NOTE)) or {}
    return {policy: noted for policy, noted in notes.items() if isinstance(noted, dict)}


def is_recent(noted: Mapping[str, Any], now: float) -> bool:
    """Return whether a note of a trim is less than a day old; *now* is in seconds since 1970."""
    at = noted.get("at")
    return isinstance(at, (int, float)) and 0 <= now - at < TRIM_INTERVAL


def write_key(job: Job, record: KeyRecord) -> None:
    """Leave the key for the steps that follow, in a directory that git does not show."""
    ignore = os.path.join(job.config.state_dir, ".gitignore")
    if not os.path.lexists(ignore):
        _write_text(ignore, "*\n")
    interpreter = {name: getattr(record.interpreter, name) for name in Interpreter.__slots__}
    write_json(
        job.file("key.json"),
        {
            "digest": record.key.digest,
            "parts": record.key.parts,
            "interpreter": interpreter,
            "inputs": record.inputs,
            "fingerprint": record.fingerprint,
            "warnings": record.warnings,
        },
    )


def read_key(job: Job) -> KeyRecord | None:
    """Return the key that ``hash-lockfiles`` left, or None."""
    document = read_json(job.file("key.json"))
    try:
        if document is None:
            return None
        return KeyRecord(
            Key(document["digest"], document["parts"]),
            Interpreter(**document["interpreter"]),
            tuple(document["inputs"]),
            document["fingerprint"],
            tuple(document["warnings"]),
        )
    except (KeyError, TypeError):
        return None


def write_answer(job: Job, record: KeyRecord, *, hit: bool, reason: str, unfit: str = "") -> None:
    """Note in ``restore.json`` whether there is now a venv for the key, by restore or by build.

    If there is, it has passed the check of the config. *unfit* is a snapshot that did not.
    """
    check = job.spec.check if hit else ()
    document = {"key": record.key.digest, "hit": hit, "reason": reason, "check": check, "unfit": unfit}
    write_json(job.file("restore.json"), document)


def has_passed(job: Job, key: str) -> bool:
    """Return whether the venv for *key* is known to have passed the check that the config asks for now."""
    if not job.spec.check:
        return True
    answer = read_json(job.file("restore.json")) or {}
    passed = answer.get("check") == list(job.spec.check)
    return passed and answer.get("key") == key and answer.get("hit") is True


def unfit_snapshot(job: Job, key: str) -> str:
    """Return the id of the snapshot for *key* that was restored and failed the check, or nothing."""
    answer = read_json(job.file("restore.json")) or {}
    return str(answer.get("unfit", "")) if answer.get("key") == key else ""


def need_key(job: Job) -> KeyRecord:
    """Return the key; raises EnvironmentFailure when ``hash-lockfiles`` has not been run."""
    record = read_key(job)
    if record is None:
        raise EnvironmentFailure(
            "its key is not known",
            where=job.spec.name,
            state="Nothing was changed.",
            hint=f'Run "doit hash-lockfiles:{job.spec.name}" first.',
        )
    return record


# --------------------------------------------------------------------------- archives


def archive_path(job: Job) -> str:
    """Return where the archive was written last, empty if that is not known."""
    outputs = (read_json(job.file("pack.json")) or {}).get("outputs")
    return next(iter(outputs), "") if isinstance(outputs, dict) else ""


def write_excluded(job: Job, key: str, saved: Iterable[Sequence[Any]]) -> None:
    """Note what the exclude patterns left out when the venv for *key* was built: pattern, files, bytes."""
    write_json(job.file("excluded.json"), {"key": key, "saved": [list(row) for row in saved]})


def read_excluded(job: Job, key: str) -> list[list[Any]] | None:
    """Return what was noted for *key*, or None: a venv that was restored never had those files."""
    document = read_json(job.file("excluded.json"))
    rows = document.get("saved") if document is not None and document.get("key") == key else None
    return rows if isinstance(rows, list) else None


def pack_is_current(job: Job) -> bool:
    """Return whether the archive is for the present manifest and options, and untouched by its stat."""
    manifest = read_json(job.file("manifest.json")) if job.spec.pack is not None else None
    return why_pack(job, manifest.get("trees") if manifest is not None else None) == ""


OTHER_MANIFEST = "the archive is of another manifest"
"""Why an archive has to be written that is whole, and asked for as it is."""


def why_pack(job: Job, trees: list[str] | None, key: str = "") -> str:
    """Return why the archive has to be written for a manifest of *trees*, empty if it need not.

    None for *trees* that nobody knows yet: no archive can be for them. *key* is the one that they are for, if
    it is not the one that was noted.
    """
    options = job.spec.pack
    if options is None:
        return ""
    packed = read_json(job.file("pack.json"))
    inputs, outputs = (packed.get("inputs"), packed.get("outputs")) if packed is not None else (None, None)
    if not isinstance(inputs, list) or not inputs or not isinstance(outputs, dict):
        return "there is no archive that is known of"
    if inputs[1:] != _pack_inputs(trees, options)[1:]:
        return "the options of pack: changed"
    touched = [path for path, stat in outputs.items() if _stat_of(path) != stat]
    if touched:
        return f"{shown(os.path.basename(touched[0]))} is gone or was altered"
    if _is_for_another_key(job, key):
        return "the archive is for another key"
    return OTHER_MANIFEST if trees is None or inputs[0] != trees else ""


def _is_for_another_key(job: Job, key: str) -> bool:
    """Return whether the archive was made for another key than the present one, which it says of itself."""
    record = read_key(job)
    packed = read_json(job.file("pack.json")) or {}
    wanted = key or (record.key.digest if record is not None else "")
    return wanted not in ("", packed.get("key"))


def written_archives(job: Job) -> list[str]:
    """Return the archive that was written last and the files beside it, as far as nobody touched them."""
    packed = read_json(job.file("pack.json")) or {}
    outputs = packed.get("outputs")
    return (
        [path for path, stat in outputs.items() if _stat_of(path) == stat]
        if isinstance(outputs, dict)
        else []
    )


def write_pack(job: Job, key: str, trees: list[str], options: PackOptions, path: str) -> None:
    """Note what the archive at *path* was made from, and how it and the files beside it look."""
    outputs = {name: _stat_of(name) for name in (path, f"{path}.sha256", f"{path}.json")}
    inputs = _pack_inputs(trees, options)
    write_json(job.file("pack.json"), {"inputs": inputs, "key": key, "outputs": outputs})


def _pack_inputs(trees: list[str] | None, options: PackOptions) -> list[Any]:
    # How many threads write it changes nothing.
    return [trees, options.format, options.level, options.output, options.name, options.arcroot]


def _stat_of(path: str) -> list[int]:
    try:
        st = os.stat(path)
    except (OSError, ValueError):
        return []
    return [st.st_size, st.st_mtime_ns, st.st_ino]
