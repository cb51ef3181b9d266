"""``squish``: the venv's files become the store's, its manifest is written, its names become links."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from venvflow.errors import EnvironmentFailure, Refused, shown
from venvflow.intake import Intake, Taken
from venvflow.job import Job
from venvflow.links import Linker
from venvflow.manifest import directories
from venvflow.model import LinkMode, Outcome
from venvflow.objects import out_of_space
from venvflow.places import Receipt, watched, write_receipt
from venvflow.records import KeyRecord, need_key, write_json
from venvflow.relink import Relinked, Relinker
from venvflow.scan import Changing
from venvflow.steps.drift import drift_of
from venvflow.steps.replace import matcher_of
from venvflow.store import Store, bytecode_id
from venvflow.survey import Survey, survey, unusual_modes


def squish(job: Job, *, any_venv: bool = False) -> Outcome:
    """Share the job's venv through the store, and leave its manifest in ``manifest.json``.

    A venv that was restored, or squished before, is shared already. *any_venv*: one that venvflow did not
    make will do; its receipt is written then. Raises EnvironmentFailure when there is no venv, or when
    venv or store cannot be read or written.
    """
    record = need_key(job)
    with job.locked(), job.open_store() as store, store.use():
        return squish_locked(job, store, record, any_venv=any_venv)


def squish_locked(job: Job, store: Store, record: KeyRecord, *, any_venv: bool = False) -> Outcome:
    """Squish while the venv and the store are held."""
    receipt = _receipt(job, record, any_venv=any_venv)
    if receipt.state == "shared" and receipt.path == job.place.path:
        leave_manifest(job, receipt)
        return Outcome("kept", "its files are the store's already")
    if store.read_only:
        raise EnvironmentFailure(
            "the store is read-only",
            where=f"{job.spec.name}: {shown(store.path)}",
            state="The venv works, its files are its own.",
            hint="Make the store writable, or use another one (VENVFLOW_STORE).",
        )
    if receipt.made == "built":
        refuse_changed(job, store, receipt)
    start = time.monotonic()
    try:
        looked = _survey(job, store, record)
        taken = _take(job, store, record, looked, built_here=receipt.made == "built")
        linker = Linker(job.spec.link)
        relinked = Relinker(
            store.objects, job.place.path, linker, min_size=job.spec.min_size, origins=taken.origins
        ).relink(taken.entries, looked.found)
    except Changing as error:
        raise _changing(job, str(error)) from error
    except OSError as error:
        raise out_of_space(error, store.path) from error
    shared = _shared_receipt(job, record, receipt, taken, relinked)
    # Registered first: from here on the store keeps the trees until the snapshot is published.
    job.register(store, record.key.digest, link=shared.link, trees=shared.trees, bound=shared.bound)
    store.index.set_stamps(job.place.path, {})
    write_receipt(job.place.path, shared)
    leave_manifest(job, shared)
    return Outcome("squished", "", _figures(looked, taken, relinked, start), _warnings(looked, relinked))


def _receipt(job: Job, record: KeyRecord, *, any_venv: bool) -> Receipt:
    receipt = job.place.receipt()
    if receipt is not None and (any_venv or receipt.key == record.key.digest):
        return receipt if receipt.key == record.key.digest else replace(receipt, state="built", made="shared")
    if any_venv and job.place.state() == "venv":
        return Receipt(record.key.digest, job.place.path, "built", "shared")
    raise EnvironmentFailure(
        "there is no venv for this key",
        where=f"{job.spec.name}: {shown(job.place.path)}",
        state="Nothing was changed.",
        hint=f'Run "doit *:{job.spec.name}".',
    )


def refuse_changed(job: Job, store: Store, receipt: Receipt) -> None:
    """Raise Refused if somebody changed the venv since it was made: it is not what its key says any more."""
    drift = drift_of(job.place.path, receipt, store, matcher_of(job))
    if drift.by_hand:
        raise Refused(
            f"the venv was changed by hand since it was made ({drift})",
            where=f"{job.spec.name}: {shown(job.place.path)}",
            state="It was left as it is and was not stored: others would get your changes.",
            hint="Delete it and run doit again, or put the changes into the lock file.",
        )


def _survey(job: Job, store: Store, record: KeyRecord) -> Survey:
    matcher = matcher_of(job)
    return survey(
        job.place.path,
        job.places(record.interpreter),
        bytecode=job.spec.bytecode,
        known=store.index.stamps(job.place.path),
        excludes_file=matcher.excludes_file if matcher else None,
        excludes_directory=matcher.excludes_dir if matcher else None,
    )


def _take(job: Job, store: Store, record: KeyRecord, looked: Survey, *, built_here: bool) -> Taken:
    return Intake(
        store,
        job.place.path,
        record.interpreter,
        bytecode_key=bytecode_id(record.key.parts),
        mode=_first_mode(job, store),
        min_size=job.spec.min_size,
        built_here=built_here,
    ).take(looked, canonical=job.spec.bytecode == "canonical")


def _first_mode(job: Job, store: Store) -> LinkMode:
    """Return the link mode that will work between the store and the venv, found out by trying it."""
    linker = Linker(job.spec.link)
    probe = f"{store.objects.tmp}/probe-{os.getpid()}-{os.urandom(4).hex()}"
    name = f".vf-{os.getpid()}-probe"
    with open(probe, "wb") as file:
        file.write(b"probe")
    fd = os.open(job.place.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mode = linker.place(probe, name, fd, executable=False)
        os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)
        os.unlink(probe)
    return mode


def _shared_receipt(
    job: Job, record: KeyRecord, receipt: Receipt, taken: Taken, relinked: Relinked
) -> Receipt:
    return Receipt(
        key=record.key.digest,
        path=job.place.path,
        state="shared",
        made=receipt.made,
        python=record.interpreter.executable,
        trees=tuple(tree.digest for tree in taken.manifest.trees),
        bound=taken.manifest.bound,
        link=_most_used(relinked),
        directories=watched(job.place.path, directories(taken.entries)),
    )


def _most_used(relinked: Relinked) -> str:
    return max(relinked.modes, key=lambda mode: relinked.modes[mode], default="copy")


def leave_manifest(job: Job, receipt: Receipt) -> None:
    """Leave the manifest's trees for ``pack`` and ``store``."""
    write_json(
        job.file("manifest.json"), {"key": receipt.key, "trees": receipt.trees, "bound": receipt.bound}
    )


def _figures(looked: Survey, taken: Taken, relinked: Relinked, start: float) -> dict[str, int | float | str]:
    return {
        "files": sum(1 for entry in taken.entries.values() if entry.digest),
        "bytes": sum(entry.size for entry in taken.entries.values()),
        "new_objects": taken.new_objects,
        "new_bytes": taken.new_bytes,
        "adopted": taken.adopted,
        "compiled": taken.compiled,
        "excluded": looked.excluded,
        "link": _most_used(relinked),
        "seconds": time.monotonic() - start,
    }


def _warnings(looked: Survey, relinked: Relinked) -> tuple[str, ...]:
    notes = [
        (relinked.kept, "changed while it was shared and stays private"),
        (looked.special, "is a device, FIFO or socket and is not stored"),
        (looked.embedding, "is a binary file that contains the path it was built at"),
        (unusual_modes(looked), "has setuid, setgid or world-writable bits, which are not kept"),
    ]
    return tuple(_note(paths, text) for paths, text in notes if paths)


def _note(paths: list[str], text: str) -> str:
    more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
    return f"{shown(paths[0])}{more} {text}"


def _changing(job: Job, path: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"{shown(path)} keeps changing",
        where=job.spec.name,
        state="The venv is whole, nothing half-written is kept.",
        hint="Let what writes to the venv finish, then run doit again.",
    )
