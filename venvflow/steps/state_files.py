"""The small files in ``.venvflow/<venv>/`` of the project, by which a venv's steps pass on their results.

=================  ====================  ==============================================================
``key.json``       ``hash-lockfiles``    the key, the interpreter, and how to see that they still hold
``restore.json``   ``restore``, build    whether there is a venv for the key now, and why
``excluded.json``  ``build-venv``        what the exclude patterns left out
``pack.json``      ``pack``              what the archive was made from, and its stat
``push.json``      ``push``              the snapshot that the remote has
``pull.json``      ``restore``, pull     what the remote answered
=================  ====================  ==============================================================

All of them may be deleted at any time: a step that misses one runs again. Each has one function that writes
it and one that decodes it; what does not decode is not there.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple, TypeVar

from venvflow.disk.files import read_small, write_whole
from venvflow.disk.system_errors import explained
from venvflow.errors import EnvironmentFailure
from venvflow.model import FORMATS, Config, Interpreter, Key, PackOptions, Receipt, Saved
from venvflow.pure import decoding
from venvflow.pure.keys import make_key, snapshot_id
from venvflow.pure.plan import ArchiveFacts
from venvflow.steps.job import Job

_Record = TypeVar("_Record")


def write_json(path: str, document: Mapping[str, Any]) -> None:
    """Write a small file that is replaced as a whole."""
    _write_text(path, json.dumps(document))


def _write_text(path: str, text: str) -> None:
    state = "Every venv is the old one or the new one, whole."
    with explained("cannot write the project's state", at=path, state=state):
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except FileExistsError as error:  # a file is where the directory should be
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from error
        try:
            write_whole(path, text.encode("ascii"))
        except IsADirectoryError:  # nobody else keeps anything here, but it may be somebody's: it is kept
            os.rename(path, f"{path}.{os.lstat(path).st_ino}")
            write_whole(path, text.encode("ascii"))


def stamp_of(path: str) -> tuple[int, ...]:
    """Return inode, size and mtime of a file, which change with it; nothing if it is not there."""
    try:
        st = os.stat(path)
    except OSError:
        return ()
    return st.st_ino, st.st_size, st.st_mtime_ns


def _read(path: str, decode: Callable[[bytes], _Record]) -> _Record | None:
    """Return what is written in the file at *path*, or None if it is not there or makes no sense.

    Decoded once for as long as the file stays the same: a run asks for each of these files several times.
    """
    record: _Record | None = _decoded(path, stamp_of(path), decode)
    return record


@cache
def _decoded(path: str, stamp: tuple[int, ...], decode: Callable[[bytes], Any]) -> Any:
    if not stamp:
        return None
    try:
        return decode(read_small(path))
    except (OSError, decoding.Corrupt):
        return None


# --------------------------------------------------------------------------- the key


class InputFile(NamedTuple):
    """A file of the key: the name of its *part*, and the *digest* of its bytes.

    The part of a lock file is made of what it says for the venv: its bytes may change, and the part not.
    """

    part: str
    digest: str


class KeyRecord(NamedTuple):
    """What ``hash-lockfiles`` found out: the key and the interpreter, and how to see that they still hold.

    *inputs* are the files that are in the key, by their paths; *fingerprint* covers their bytes and
    everything else that can be looked at without running a program.
    """

    key: Key
    interpreter: Interpreter
    inputs: Mapping[str, InputFile]
    fingerprint: str
    warnings: tuple[str, ...]


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
            "warnings": [*map(decoding.storable, record.warnings)],
        },
    )


def decode_key(data: bytes) -> KeyRecord:
    """Return what ``key.json`` says; raises :class:`~venvflow.pure.decoding.Corrupt`."""
    found = decoding.fields(
        decoding.parse(data),
        digest=decoding.digest,
        parts=decoding.texts,
        interpreter=_interpreter,
        inputs=decoding.mapped(decoding.absolute, _input_file),
        fingerprint=decoding.digest,
        warnings=decoding.listed(decoding.text),
    )
    key = make_key(found.pop("parts"))
    if key.digest != found.pop("digest"):
        raise decoding.Corrupt("the key is not that of its parts")
    return KeyRecord(key, **found)


def _input_file(value: object) -> InputFile:
    return InputFile(*decoding.row(decoding.text, decoding.digest)(value))


def _interpreter(value: object) -> Interpreter:
    decoders = {
        **dict.fromkeys(Interpreter.__slots__, decoding.text),
        "executable": decoding.absolute,
        "home": decoding.absolute,
    }
    return Interpreter(**decoding.fields(value, **decoders))


def read_key(job: Job) -> KeyRecord | None:
    """Return the key that ``hash-lockfiles`` left, or None."""
    return read_key_of(job.config, job.spec.name)


def read_key_of(config: Config, venv: str) -> KeyRecord | None:
    """Return the key that ``hash-lockfiles`` left for the venv of that name, or None."""
    return _read(os.path.join(config.state_dir, venv, "key.json"), decode_key)


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


# --------------------------------------------------------------------------- restored, or to be built


class Answer(NamedTuple):
    """What ``restore`` or a build left: whether there is a venv for *key* now, the *check* that it passed.

    *unfit* is the id of a snapshot that did not pass, empty if there is none.
    """

    key: str
    hit: bool
    reason: str
    check: tuple[str, ...]
    unfit: str


def write_answer(job: Job, record: KeyRecord, *, hit: bool, reason: str, unfit: str = "") -> None:
    """Note in ``restore.json`` whether there is now a venv for the key, by restore or by build.

    If there is, it has passed the check of the config. *unfit* is a snapshot that did not.
    """
    check = job.spec.check if hit else ()
    answer = Answer(record.key.digest, hit, decoding.storable(reason), check, unfit)
    write_json(job.file("restore.json"), answer._asdict())


def decode_answer(data: bytes) -> Answer:
    """Return what ``restore.json`` says; raises :class:`~venvflow.pure.decoding.Corrupt`."""
    return Answer(
        **decoding.fields(
            decoding.parse(data),
            key=decoding.digest,
            hit=decoding.flag,
            reason=decoding.text,
            check=decoding.listed(decoding.text),
            unfit=decoding.or_nothing(decoding.digest),
        )
    )


def read_answer(job: Job) -> Answer | None:
    """Return what the last restore or build was content with, or None."""
    return _read(job.file("restore.json"), decode_answer)


def has_passed(job: Job, key: str) -> bool:
    """Return whether the venv for *key* is known to have passed the check that the config asks for now."""
    if not job.spec.check:
        return True
    answer = read_answer(job)
    return answer is not None and (answer.check, answer.key, answer.hit) == (job.spec.check, key, True)


def unfit_snapshot(job: Job, key: str) -> str:
    """Return the id of the snapshot for *key* that was restored and failed the check, or nothing."""
    answer = read_answer(job)
    return answer.unfit if answer is not None and answer.key == key else ""


# --------------------------------------------------------------------------- built, shared


class Excluded(NamedTuple):
    """What the exclude patterns left out when the venv for *key* was built."""

    key: str
    saved: tuple[Saved, ...]


def write_excluded(job: Job, key: str, saved: Iterable[Saved]) -> None:
    """Note what the exclude patterns left out when the venv for *key* was built."""
    write_json(job.file("excluded.json"), Excluded(key, tuple(saved))._asdict())


def decode_excluded(data: bytes) -> Excluded:
    """Return what ``excluded.json`` says; raises :class:`~venvflow.pure.decoding.Corrupt`."""
    rows = decoding.listed(decoding.row(decoding.text, decoding.count, decoding.count))
    found = decoding.fields(decoding.parse(data), key=decoding.digest, saved=rows)
    return Excluded(found["key"], tuple(Saved(*each) for each in found["saved"]))


def read_excluded(job: Job, key: str) -> list[Saved] | None:
    """Return what was noted for *key*, or None: a venv that was restored never had those files."""
    noted = _read(job.file("excluded.json"), decode_excluded)
    return [*noted.saved] if noted is not None and noted.key == key else None


def is_published(job: Job, receipt: Receipt) -> bool:
    """Return whether the store has a snapshot for the key and place of the venv with this receipt."""
    identifier = snapshot_id(receipt.key, job.position if receipt.bound else None)
    return os.path.lexists(os.path.join(job.config.store.path, "snapshots", f"{identifier}.json"))


# --------------------------------------------------------------------------- archives


class _PackInputs(NamedTuple):
    """What an archive is made from. How many threads write it changes nothing."""

    trees: tuple[str, ...]
    format: str
    level: int
    output: str
    name: str
    arcroot: str
    layers: tuple[tuple[str, ...], ...]
    python: str
    bundle_python: bool


class PackNote(NamedTuple):
    """What an archive was made from, for which key, and how it and the files beside it look by ``stat``.

    Of a venv in parts the first of the *outputs* is the list of them.
    """

    inputs: _PackInputs
    key: str
    outputs: Mapping[str, tuple[int, ...]]


_LEVEL = max(each.highest for each in FORMATS.values())


def write_pack(
    job: Job, key: str, trees: Iterable[str], options: PackOptions, path: str, *, parts: Sequence[str] = ()
) -> None:
    """Note what the archive at *path* was made from, and how it and the files beside it look.

    With *parts*, which are archives, *path* is the list of them.
    """
    names = (path, *(name for part in parts for name in _outputs(part))) if parts else _outputs(path)
    outputs = {name: stamp_of(name) for name in names}
    inputs = _pack_inputs(job, tuple(trees), options)
    write_json(job.file("pack.json"), PackNote(inputs, key, outputs)._asdict())


def decode_pack(data: bytes) -> PackNote:
    """Return what ``pack.json`` says; raises :class:`~venvflow.pure.decoding.Corrupt`.

    It names archives and what belongs beside them: no other file is ever taken for ours.
    """
    trees, text = decoding.listed(decoding.digest), decoding.text
    level, layers = decoding.integer(0, _LEVEL), decoding.listed(decoding.listed(text))
    inputs = decoding.row(
        trees, decoding.one_of(*FORMATS), level, decoding.absolute, text, text, layers, text, decoding.flag
    )
    stats = decoding.listed(decoding.integer(-decoding.LARGEST_TIME, decoding.LARGEST_TIME))
    found = decoding.fields(
        decoding.parse(data),
        inputs=inputs,
        key=decoding.digest,
        outputs=decoding.mapped(decoding.absolute, stats),
    )
    note = PackNote(_PackInputs(*found["inputs"]), found["key"], found["outputs"])
    if not _are_outputs((*note.outputs,), note.inputs):
        raise decoding.Corrupt("these are not the files that an archive is made of")
    return note


def _are_outputs(paths: tuple[str, ...], inputs: _PackInputs) -> bool:
    """Return whether *paths* are files of archives, each with what is beside it, in one directory."""
    listed, archives = (paths[:1], paths[1::3]) if inputs.layers else ((), paths[:1])
    directories = {os.path.dirname(path) for path in paths}
    return (
        archives != ()
        and paths == (*listed, *(name for path in archives for name in _outputs(path)))
        and len(directories) == 1
        and all(path.endswith(f".{inputs.format}") for path in archives)
        and all(path.endswith(".json") for path in listed)
    )


def _outputs(path: str) -> tuple[str, ...]:
    """Return the files of the archive at *path*: itself, its checksum, its description."""
    return path, f"{path}.sha256", f"{path}.json"


def _noted_pack(job: Job) -> PackNote | None:
    return _read(job.file("pack.json"), decode_pack)


def archive_path(job: Job) -> str:
    """Return where the archive was written last, or the list of its parts; empty if that is not known."""
    noted = _noted_pack(job)
    return next(iter(noted.outputs)) if noted is not None else ""


def archive_facts(job: Job) -> ArchiveFacts | None:
    """Return what is known of the archive that the config asks for, None if it asks for none."""
    options, packed = job.spec.pack, _noted_pack(job)
    if options is None or packed is None:
        return ArchiveFacts() if options is not None else None
    touched = (path for path, stat in packed.outputs.items() if stamp_of(path) != stat)
    return ArchiveFacts(
        written=True,
        same_options=packed.inputs[1:] == _pack_inputs(job, (), options)[1:],
        touched=os.path.basename(next(touched, "")),
        key=packed.key,
        trees=packed.inputs.trees,
    )


def written_archives(job: Job) -> list[str]:
    """Return the archive that was written last and the files beside it, as far as nobody touched them."""
    packed = _noted_pack(job)
    outputs = packed.outputs if packed is not None else {}
    return [path for path, stat in outputs.items() if stamp_of(path) == stat]


def _pack_inputs(job: Job, trees: tuple[str, ...], options: PackOptions) -> _PackInputs:
    fields = {name: getattr(options, name) for name in _PackInputs._fields[1:]}
    if not options.python and (record := read_key(job)) is not None:
        fields["python"] = record.interpreter.executable
    return _PackInputs(trees, **fields)


# --------------------------------------------------------------------------- pushed


class PushNote(NamedTuple):
    """Which snapshot was pushed last, or found there, to which remote, and when its record was last written.

    That tells a trim of the remote that it is used: *written* is in seconds since 1970.
    """

    snapshot: str
    remote: str
    written: float


_PUSHED_FOR = 86_400.0
"""Seconds for which a note is enough; then a push says again that its snapshot is used."""


def write_push(job: Job, snapshot: str, written: float) -> None:
    """Note that the remote of the config has a *snapshot*, by its id, of the job's venv, *written* then."""
    remote = job.config.store.remote
    write_json(job.file("push.json"), PushNote(snapshot, remote.url if remote else "", written)._asdict())


def decode_push(data: bytes) -> PushNote:
    """Return what ``push.json`` says; raises :class:`~venvflow.pure.decoding.Corrupt`."""
    found = decoding.fields(
        decoding.parse(data), snapshot=decoding.digest, remote=decoding.text, written=decoding.moment
    )
    return PushNote(**found)


def was_in_remote(job: Job) -> str:
    """Return the id of the snapshot that is noted to be in the remote, however long ago; empty: none is."""
    note, remote = _read(job.file("push.json"), decode_push), job.config.store.remote
    return note.snapshot if note is not None and remote is not None and note.remote == remote.url else ""


def forget_push(job: Job, key: str) -> None:
    """Forget that the snapshot for *key* is in the remote, which has just answered that it is not."""
    if was_in_remote(job) in (snapshot_id(key, None), snapshot_id(key, job.position)):
        with suppress(OSError):  # then it is sent when the note is a day old
            os.unlink(job.file("push.json"))


def is_pushed(job: Job, receipt: Receipt | None) -> bool:
    """Return whether the snapshot of the job's venv, which has this *receipt*, was noted to be in the remote.

    A note counts for a day. The network is not asked. A venv that is not shared for its key has nothing to
    push.
    """
    record, remote = read_key(job), job.config.store.remote
    if remote is None or record is None or receipt is None or not receipt.is_shared_for(record.key.digest):
        return True
    identifier = snapshot_id(record.key.digest, job.position if receipt.bound else None)
    note = _read(job.file("push.json"), decode_push)
    is_young = note is not None and abs(job.now() - note.written) < _PUSHED_FOR
    return is_young and was_in_remote(job) == identifier


# --------------------------------------------------------------------------- asked for


class PullNote(NamedTuple):
    """What a *remote*, given by its URL, answered for a *key*, and when, in seconds since 1970.

    *refused* is the digest of a tree that came and was not what it should be; empty: none was.
    """

    key: str
    remote: str
    answer: str
    at: float
    refused: str = ""


def write_pull(job: Job, key: str, answer: str, refused: str = "") -> None:
    """Note what the remote of the config answered for *key*, the digest of the job's key."""
    remote = job.config.store.remote
    note = PullNote(key, remote.url if remote else "", decoding.storable(answer), job.now(), refused)
    write_json(job.file("pull.json"), note._asdict())


def decode_pull(data: bytes) -> PullNote:
    """Return what ``pull.json`` says; raises :class:`~venvflow.pure.decoding.Corrupt`."""
    text = decoding.text
    found = decoding.fields(
        decoding.parse(data),
        key=decoding.digest,
        remote=text,
        answer=text,
        at=decoding.moment,
        refused=text,
    )
    return PullNote(**found)


def read_pull(job: Job, key: str) -> PullNote | None:
    """Return what the remote of the config answered when it was last asked for *key*, None if it was not."""
    noted, remote = _read(job.file("pull.json"), decode_pull), job.config.store.remote
    is_for_both = noted is not None and remote is not None and (noted.key, noted.remote) == (key, remote.url)
    return noted if is_for_both else None


# --------------------------------------------------------------------------- trimmed

TRIM_NOTE = "trim.json"
"""File in the store that says when each project applied its policy, and to which generation of snapshots."""

TRIM_INTERVAL = 86_400
"""Seconds after which the trim policy is applied again although the store did not change."""


class TrimNote(NamedTuple):
    """When a policy was applied to a store, in seconds since 1970, and the *generation* of snapshots then."""

    at: float
    generation: int


def encode_trims(notes: Mapping[str, TrimNote]) -> bytes:
    """Return what is noted of policies as the file has it."""
    return json.dumps({policy: note._asdict() for policy, note in notes.items()}).encode("ascii")


def decode_trims(data: bytes) -> dict[str, TrimNote]:
    """Return what is noted of policies; raises :class:`~venvflow.pure.decoding.Corrupt`."""
    notes: dict[str, TrimNote] = decoding.mapped(decoding.text, _trim)(decoding.parse(data))
    return notes


def _trim(value: object) -> TrimNote:
    return TrimNote(**decoding.fields(value, at=decoding.moment, generation=decoding.mtime))


def read_trims(store: str) -> dict[str, TrimNote]:
    """Return what is noted of each policy that was applied to the store at path *store*, by its name.

    Projects that share a store would else trim at each run, in turn.
    """
    return _read(os.path.join(store, TRIM_NOTE), decode_trims) or {}


def name_of_trim(config: Config) -> str:
    """Return the name of a project's policy: it acts on that project's snapshots only."""
    return f"{os.path.realpath(config.root)} {config.trim}"


def is_recent(noted: TrimNote, now: float) -> bool:
    """Return whether a note of a trim is less than a day old; *now* is in seconds since 1970."""
    return 0 <= now - noted.at < TRIM_INTERVAL
