"""Takes sharing back: every file of a venv becomes its own again, so that the venv needs no store."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from venvflow.disk.attributes import is_sealed, may_be_sealed, mode_of
from venvflow.disk.descriptors import CREATE, READ, SAFE, Directories, changeable, directory, opened
from venvflow.disk.kernel import sync_file_system
from venvflow.disk.links import copy_bytes
from venvflow.disk.occupants import occupants
from venvflow.disk.places import RECEIPT, Place, directory_mtimes, write_receipt
from venvflow.disk.scan import Found, lstat, read, stamp_of, walk
from venvflow.disk.system_errors import explained
from venvflow.errors import shown
from venvflow.model import Outcome, Receipt
from venvflow.pure.manifest import source_of
from venvflow.pure.sharing import is_moment
from venvflow.state.file_stats import digest_of_found
from venvflow.state.relink import LeftAlone, is_temporary, replacing_found
from venvflow.state.store import Store
from venvflow.steps.any_venv import hold_venv, in_use, refuse_unless_venv
from venvflow.steps.job import Job
from venvflow.steps.share import OnFile


def unshare(job: Job, store: Store, *, on_file: OnFile) -> Outcome:
    """Make every file of the venv private: ``unsquished``, or ``kept`` when none was shared.

    Bytes and link targets stay, and files get back the modes and mtimes that they had. Each file is replaced
    by rename, so the venv works at every moment, and a run that was cut short is finished by the next one.
    Raises UsageError when there is no venv, Refused when it may not be touched, EnvironmentFailure when a
    file cannot be copied.
    """
    place = job.place
    refuse_unless_venv(place)
    start = time.monotonic()
    with hold_venv(job, store), store.use():
        receipt = place.receipt()
        done = _make_private(store, place.path, receipt, on_file)
        users = occupants(place.path) if done.files else []
        if store.durable and done.files:
            with directory(place.path) as fd:
                sync_file_system(fd)
        _forget(store, place, receipt)
    figures: dict[str, int | float | str] = {
        "files": done.files,
        "bytes": done.size,
        "seconds": time.monotonic() - start,
    }
    warnings = [in_use(users)] if users else []
    if done.kept:
        warnings.append(f"{shown(done.kept[0])} changed meanwhile and was left alone; run again")
    if not done.files and receipt is None:
        return Outcome("kept", "nothing of it was shared", figures)
    return Outcome("unsquished", "", figures, (*warnings,))


def _forget(store: Store, place: Place, receipt: Receipt | None) -> None:
    """Let receipt and store say that the venv is not shared any more.

    One that doit made keeps its receipt: doit need not build it again, but will share it again.
    """
    if receipt is not None and receipt.key:
        names = [name for name in receipt.directories if os.path.isdir(f"{place.path}/{name}")]
        private = replace(
            receipt,
            state="built",
            # Not "built": its files may be open by now, so they must be copied, should they be shared again.
            made="shared" if receipt.made == "shared" else "restored",
            trees=(),
            link="",
            modes={},
            times={},
            private={},
            stats=digest_of_found(walk(place.path)),
            directories=directory_mtimes(place.path, names),
        )
        write_receipt(place.path, private, sync=True)
    elif receipt is not None:
        with suppress(FileNotFoundError):
            os.unlink(f"{place.path}/{RECEIPT}")
    store.unregister(place.path)


# --------------------------------------------------------------------------- files


@dataclass(slots=True)
class _Done:
    """*files* of *size* bytes in all were made private, *kept* changed meanwhile."""

    files: int = 0
    size: int = 0
    kept: list[str] = field(default_factory=list)


_CUT_SHORT = "The venv works; some of its files are still shared."


def _make_private(store: Store, venv: str, receipt: Receipt | None, on_file: OnFile) -> _Done:
    done = _Done()
    modes = None if receipt is None else receipt.modes
    times = {} if receipt is None else receipt.times
    written = 0 if receipt is None else receipt.written
    found = walk(venv)
    objects = _inodes_of(store) if any(item.links > 1 for item in found) else set[tuple[int, int]]()
    with directory(venv) as root, Directories(root, make=False) as places:
        for item in found:
            with explained("cannot make it private", at=f"{venv}/{item.path}", state=_CUT_SHORT):
                fd, name = at = places.parent(item.path)
                if is_temporary(item.path) and item.kind in ("file", "link"):
                    os.unlink(name, dir_fd=fd)
                    continue
                how = _treat(store, at, item, objects, modes)
                if how == "private":
                    done.files += 1
                    done.size += lstat(name, dir_fd=fd).stamp.size
                if item.path in times and how != "left alone":
                    _give_time_back(at, times[item.path], written)
            if how == "left alone":
                done.kept.append(item.path)
            elif how:
                on_file(item.path, how)
        for item in found:
            source = source_of(item.path) if item.kind == "file" else None
            if source is not None and source in times:
                with explained("cannot make it private", at=f"{venv}/{item.path}", state=_CUT_SHORT):
                    _let_bytecode_fit(places.parent(item.path), times[source])
    return done


def _give_time_back(at: tuple[int, str], mtime_ns: int, written: int) -> None:
    """Give a file that carries the time of its content, or *written*, the time *mtime_ns* that it had before.

    *at* are a descriptor of its directory and its name there. One that somebody wrote to since has another.
    """
    fd, name = at
    with suppress(FileNotFoundError), changeable(name, fd) as (file, through):
        st = os.fstat(file)
        given = is_moment(st.st_mtime_ns) or st.st_mtime_ns == written
        if stat.S_ISREG(st.st_mode) and st.st_nlink == 1 and given:
            os.utime(through, ns=(mtime_ns, mtime_ns))


def _let_bytecode_fit(at: tuple[int, str], mtime_ns: int) -> None:
    """Note in bytecode that its source has the time *mtime_ns* again (PEP 552); it is the venv's own file."""
    fd, name = at
    with suppress(FileNotFoundError, PermissionError), opened(name, os.O_RDWR | SAFE, dir_fd=fd) as file:
        st, head = os.fstat(file), os.pread(file, 12, 0)
        by_time, noted = head[4:8] == bytes(4), int.from_bytes(head[8:12], "little")
        if st.st_nlink == 1 and by_time and is_moment(noted * 1_000_000_000):
            os.pwrite(file, (mtime_ns // 1_000_000_000 & 0xFFFFFFFF).to_bytes(4, "little"), 8)
            os.utime(file, ns=(st.st_atime_ns, st.st_mtime_ns))


def _inodes_of(store: Store) -> set[tuple[int, int]]:
    """Return the inodes of all objects and their spares."""
    stats = [st for _, st in store.objects.names()] + [st for _, _, st in store.objects.spares()]
    return {(st.st_dev, st.st_ino) for st in stats}


def _treat(
    store: Store,
    at: tuple[int, str],
    item: Found,
    objects: set[tuple[int, int]],
    modes: Mapping[str, int] | None,
) -> str:
    """Make one file private if it is shared; return what was done, or nothing.

    *at* are a descriptor of its directory and its name there. *modes* are those that the venv's files had,
    None if it has no receipt.
    """
    fd, name = at
    noted = modes or {}
    if item.kind == "link":
        target = os.readlink(name, dir_fd=fd)
        object_ = store.objects.name_at(target)
        if object_ is None:
            return ""
        mode = mode_of(noted, item.path, executable=object_.executable)
        return _replace(at, item, target, mode)
    if item.kind != "file":
        return ""
    mode = mode_of(noted, item.path, executable=item.executable)
    foreign = modes is not None and _looks_shared(item, at)  # perhaps an object of a store that is gone
    if item.links > 1 and (foreign or (item.device, item.stamp.inode) in objects):
        return _replace(at, item, name, mode)
    if item.links == 1 and (foreign or item.path in noted):  # one in which another mode was noted is a copy
        _set_mode(at, item, mode)
    return "private" if foreign else ""


def _looks_shared(item: Found, at: tuple[int, str]) -> bool:
    """Return whether a file looks like an object, by its bytes."""
    fd, name = at
    return may_be_sealed(item) and is_sealed(item, read(name, dir_fd=fd).digest)


def _set_mode(at: tuple[int, str], item: Found, mode: int) -> None:
    """Give a file its mode if it is still what was found: through a descriptor, for chmod follows links."""
    if item.mode & 0o7777 != mode:
        fd, name = at
        with changeable(name, fd) as (file, through):
            if stamp_of(os.fstat(file))[:3] == item.stamp[:3]:
                os.chmod(through, mode)


def _replace(at: tuple[int, str], item: Found, source: str, mode: int) -> str:
    """Put a copy of *source*, with *mode*, in the place of *item*, if that is still what was found."""
    fd, name = at
    try:
        with replacing_found(item, name, fd) as temporary:
            _copy(source, temporary, fd, mode)
    except LeftAlone:
        return "left alone"
    return "private"


def _copy(source: str, name: str, fd: int, mode: int) -> None:
    """Copy *source*, a name in the directory *fd* or an absolute path, to *name* there."""
    with opened(source, READ, dir_fd=fd) as reading, opened(name, CREATE, 0o644, dir_fd=fd) as writing:
        copy_bytes(reading, writing)
        st = os.fstat(reading)
        os.fchmod(writing, mode)
        os.utime(writing, ns=(st.st_mtime_ns, st.st_mtime_ns))
