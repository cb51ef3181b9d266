"""Checks of the store and its disk: space, permissions, links, locks, the index."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import NamedTuple

from venvflow import builders
from venvflow.disk.databases import open_to_read
from venvflow.disk.mounts import mount_of
from venvflow.errors import VenvflowError, shown, some
from venvflow.model import FORMAT, LinkMode
from venvflow.pure.units import show_size
from venvflow.state.index import VERSION
from venvflow.state.reader import StoreReader, open_reader
from venvflow.steps.doctor import probes
from venvflow.steps.doctor.check import Check, CheckContext, CheckResult, fail, ok, warn
from venvflow.steps.doctor.project import said_by, user_name

_SKEW = 2.0
"""Seconds by which the times of a disk may differ from ours without anybody noticing."""

_FUTURE = 60.0
"""Seconds by which a file may be ahead of the clock."""

_SCARCE = 0.02
"""Share of inodes below which a venv may not fit any more."""


# --------------------------------------------------------------------------- the store as it lies there


def _store(context: CheckContext) -> CheckResult:
    try:
        with open_reader(context.store) as store:
            return _store_to_be(context.store.path) if store is None else _standing_store(context, store)
    except VenvflowError as error:
        return fail("store", f"{error.where}: {error.what}", error.hint)


def _store_to_be(path: str) -> CheckResult:
    above = probes.nearest(path)
    if not os.access(above, os.W_OK | os.X_OK):
        remedy = "Choose another store.path, or make this directory as its owner."
        return fail("store", f"{shown(path)} cannot be made: {shown(above)} is closed to you", remedy)
    return ok("store", f"{shown(path)} is made by the first doit")


def _standing_store(context: CheckContext, store: StoreReader) -> CheckResult:
    path = context.store.path
    st = os.stat(path)
    owner = user_name(st.st_uid)
    if store.read_only:
        text = f"{shown(path)} belongs to {owner} and is read-only for you: hits work, nothing new is shared"
        return warn("store", text, f"Run as {owner}, or use a store of your own (VENVFLOW_STORE).")
    if os.geteuid() == 0 != st.st_uid:
        text = f"{shown(path)} belongs to {owner}, and you are root: {owner} will not be able to use it all"
        return warn("store", text, f"Run as {owner}.")
    ahead = os.stat(os.path.join(path, "snapshots")).st_mtime - context.now
    if ahead > _FUTURE:
        remedy = "Set the clock. Nothing breaks, but ages of snapshots are wrong until then."
        return warn("store", f"{shown(path)} was changed {ahead:,.0f} s in the future, by its time", remedy)
    opened = ", open to other users (chmod 700 closes it)" if st.st_mode & 0o011 else ""
    return ok("store", f"{shown(path)}, format {FORMAT}, of {owner}{opened}")


def _space(context: CheckContext) -> Iterator[CheckResult]:
    """See whether there is room: bytes against what trim keeps free, and inodes."""
    path = probes.nearest(context.store.path)
    try:
        found = os.statvfs(path)
    except OSError as error:
        yield fail("space", f"{shown(path)}: {error.strerror}", "Check the disk.")
        return
    free = found.f_bavail * found.f_frsize
    least = context.trim.min_free
    text = f"{show_size(free)} free"
    if least is not None and free < least:
        remedy = "Free some, or lower trim.min_free. Trim drops snapshots until that much is free."
        yield warn("space", f"{text}, less than trim.min_free: {show_size(least)}", remedy)
    elif found.f_files and found.f_favail < found.f_files * _SCARCE:
        yield warn("space", f"{text}, but only {found.f_favail:,} more files", "Delete small files.")
    else:
        yield ok("space", f"{text} at {shown(path)}")


def _durability(context: CheckContext) -> Iterator[CheckResult]:
    if context.store.durability == "none":
        remedy = "Leave durability out of the config where venvs matter more than seconds."
        yield warn("durability", "none: a power cut may leave files without their bytes", remedy)


def _index(context: CheckContext) -> Iterator[CheckResult]:
    """Let SQLite check the index, as it is: nothing is made, moved or migrated."""
    path = os.path.join(context.store.path, "index.db")
    if not os.path.lexists(path):
        return
    remedy = f"Delete {shown(path)}: it is made anew from the store, only the history of use is lost."
    try:
        said, version = _checked(path)
    except sqlite3.Error as error:
        yield fail("index", f"it cannot be read: {error}", remedy)
        return
    if said != "ok":
        yield fail("index", f"it is damaged: {said.splitlines()[0]}", remedy)
    elif version > VERSION:
        remedy = "Upgrade venvflow, or use another store (VENVFLOW_STORE)."
        yield fail("index", f"it is of version {version}, this venvflow knows {VERSION}", remedy)
    else:
        yield ok("index", f"sound, version {version}, {show_size(os.stat(path).st_size)}")


def _checked(path: str) -> tuple[str, int]:
    with closing(open_to_read(path)) as database:
        (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
    return str(said), int(version)


# --------------------------------------------------------------------------- what is tried


class _Group(NamedTuple):
    """What venvs have in common: the links that they ask for, in order, and those that they can have."""

    wanted: tuple[LinkMode, ...]
    links: probes.Links
    same_disk: bool


def _tried(context: CheckContext) -> Iterator[CheckResult]:
    """Try locks, links and a swap of names where the store is and where each venv is."""
    if _store(context).verdict == "fail":
        return
    tmp = os.path.join(context.store.path, "tmp")  # what a killed probe leaves there, trim sweeps
    base = tmp if os.path.isdir(tmp) else probes.nearest(context.store.path)
    with ExitStack() as stack:
        try:
            shop = stack.enter_context(probes.workshop(base))
            yield from _disk(base, shop)
            yield from _project_disk(context, shop)
        except (probes.Unusable, OSError) as error:
            text = f"links and locks cannot be tried in {shown(base)}: {_why(error)}"
            yield warn("links", text, "Run doctor as the store's owner.")
            return
        yield from _venv_links(context, shop)


def _project_disk(context: CheckContext, shop: str) -> Iterator[CheckResult]:
    """Try the project's disk too, if it is another one: the locks of venvs are there."""
    if context.config is not None and _spot(context.config.root) != _spot(shop):
        with suppress(probes.Unusable), probes.workshop(context.config.root) as here:
            yield from _disk(context.config.root, here)


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).lower()


def _disk(path: str, shop: str) -> Iterator[CheckResult]:
    mount = mount_of(path)
    able = probes.abilities(shop, time.time())
    kind = mount.type or "this file system"
    if not able.locks:
        remedy = "Put the store on a local file system: without locks two runs would damage it."
        yield fail("locks", f"flock does not keep others out on {kind} at {shown(path)}", remedy)
    elif mount.is_networked:
        text = f"work on {kind} at {shown(path)}, but those of other machines may not be seen here"
        yield warn("locks", text, "Give each machine a store and a checkout of its own, on a local disk.")
    else:
        yield ok("locks", f"work on {kind} at {shown(path)}")
    if not able.wal:
        remedy = "Put the store on a local file system."
        yield fail("sqlite log", f"SQLite's write-ahead log does not work on {kind}", remedy)
    if abs(able.skew) > _SKEW:
        text = f"the times of {kind} differ from this machine's by {able.skew:+,.0f} s"
        yield warn("disk clock", text, "Set both clocks (NTP).")


def _venv_links(context: CheckContext, shop: str) -> Iterator[CheckResult]:
    """Say for each group of venvs that behave alike by which links they get the store's files.

    Of directories on one mount, one is tried: it is the file system that decides, and the mount.
    """
    groups: dict[_Group, list[str]] = {}
    known: dict[tuple[int, str], probes.Links | str] = {_spot(shop): _links_within(shop)}
    for job in context.jobs:
        place = probes.nearest(job.place.parent)
        probes.clear(place)
        spot = _spot(place)
        if not os.access(place, os.W_OK | os.X_OK):
            links: probes.Links | str = "permission denied"
        else:
            links = known[spot] = known.get(spot) or _try(shop, place)
        if isinstance(links, str):
            text = f"{job.spec.name}: nothing can be made in {shown(place)}: {links}"
            yield fail("venvs", text, f"Let {user_name(os.geteuid())} write to it, or run as its owner.")
        else:
            same = spot[0] == _spot(shop)[0]
            groups.setdefault(_Group(job.spec.link, links, same), []).append(job.spec.name)
    if not context.jobs:
        groups[_Group(_USUAL, _links_within(shop), same_disk=True)] = ["venvs on the store's disk"]
    for group, venvs in groups.items():
        yield from _results_of(group, some(venvs, 4))


def _spot(path: str) -> tuple[int, str]:
    """Return the device and the mount point of a directory: between two mounts of one device no links go."""
    return os.stat(path).st_dev, mount_of(path).point


_USUAL: tuple[LinkMode, ...] = ("reflink", "hardlink", "copy")
"""What venvs ask for when the config does not say."""


def _try(shop: str, place: str) -> probes.Links | str:
    """Return how the directory *place* can have files of the store, or why nothing can be made in it."""
    try:
        with probes.workshop(place) as target:
            return probes.links(shop, target)
    except (probes.Unusable, OSError) as error:
        return _why(error)


def _links_within(shop: str) -> probes.Links:
    with tempfile.TemporaryDirectory(dir=shop) as below:
        return probes.links(shop, below)


def _results_of(group: _Group, users: str) -> Iterator[CheckResult]:
    possible = group.links.modes
    chosen = next((mode for mode in group.wanted if mode in possible), "copy")
    others = [mode for mode in possible if mode != chosen]
    if chosen != "copy":
        more = f"; {', '.join(others)} would work too" if others else ""
        yield ok("links", f"{chosen} ({users}){more}")
    elif not group.same_disk:
        remedy = "Put the store on the disk of the venvs (store.path), or list symlink under store.link."
        text = f"store and venvs are on different file systems: files are copied ({users})"
        yield warn("links", text, remedy)
    elif possible:
        remedy = f"List {possible[0]} under store.link, before copy."
        yield warn("links", f"files are copied, though {possible[0]} would work ({users})", remedy)
    else:
        remedy = "Use a file system that has hard links or reflinks."
        yield warn("links", f"this file system has no links: files are copied ({users})", remedy)
    if not group.links.exchange:
        remedy = "Nothing to fix: what a kill cuts short in that moment, the next run finishes."
        yield warn("swap", f"two names cannot be swapped in one step here ({users})", remedy)


# --------------------------------------------------------------------------- uv's cache


def _uv_cache(context: CheckContext) -> Iterator[CheckResult]:
    """See whether uv's cache and the store can have the same files."""
    if not _uses_uv(context):
        return
    with suppress(VenvflowError):
        cache = said_by(context, [builders.tool("uv", context.environ), "cache", "dir"])
        if not cache:
            return
        here, there = probes.nearest(cache), probes.nearest(context.store.path)
        if not os.access(here, os.W_OK):
            remedy = "Set UV_CACHE_DIR to a directory of yours."
            yield fail("uv cache", f"{shown(cache)} cannot be written by you", remedy)
        elif os.stat(here).st_dev != os.stat(there).st_dev:
            remedy = "Set UV_CACHE_DIR to a directory on the store's disk: building is faster then."
            yield warn("uv cache", f"{shown(cache)} is not on the store's file system", remedy)
        else:
            yield ok("uv cache", f"{shown(cache)}, on the store's file system")


def _uses_uv(context: CheckContext) -> bool:
    for job in context.jobs:
        with suppress(VenvflowError):
            if builders.choose(job.spec, context.environ).name == "uv":
                return True
    return False


CHECKS: dict[str, Check] = {
    "store": _store,
    "space": _space,
    "durability": _durability,
    "index": _index,
    "links": _tried,
    "uv cache": _uv_cache,
}
