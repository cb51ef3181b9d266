"""Small stores, manifests and directories for tests; running what dies, or is somebody else."""

from __future__ import annotations

import gc
import hashlib
import os
import subprocess
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from venvflow.disk.objects import Name, Objects
from venvflow.disk.places import RECEIPT
from venvflow.model import Entry, Manifest, Snapshot, StoreConfig, Tree
from venvflow.pure.keys import make_key, snapshot_id
from venvflow.pure.manifest import make_tree
from venvflow.pure.sharing import mtime_of
from venvflow.state.store import Store

NOBODY = 65534
KILLED = 77
MEMORY = "/dev/shm"  # noqa: S108 - the one place that is another file system nearly everywhere


def time_of(data: bytes) -> int:
    """Return the mtime in nanoseconds that a file with these bytes carries."""
    return mtime_of(hashlib.sha256(data).hexdigest()) * 1_000_000_000


Forked = TypeVar("Forked", int, "tuple[int, int]")

needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc to look")
linux_only = pytest.mark.skipif(bool(os.environ.get("PLAIN")), reason="is about what only Linux has")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for mounts or other users")


def name_of(data: bytes, *, executable: bool = False) -> Name:
    """Return what the object of *data* is called."""
    return Name(hashlib.sha256(data).hexdigest(), executable)


def file_entry(path: str, data: bytes, *, executable: bool = False) -> Entry:
    """Return the entry of a file that holds *data*."""
    return Entry(path, "file", name_of(data).digest, executable, len(data))


def open_store(directory: Path, **settings: Any) -> Store:
    """Open the store in *directory*, made if needed; nothing is synced to disk."""
    return Store(StoreConfig(str(directory), **{"durability": "none", **settings}))


def objects_in(directory: Path, durability: Any = "none") -> Objects:
    """Make the directories of a bare object store in *directory*."""
    for name in ("objects", "tmp"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    return Objects(str(directory), durability)


def put(objects: Objects, *datas: bytes, executable: bool = False) -> list[Name]:
    """Put *datas* into the store, and return their names."""
    with objects.batch() as batch:
        names = [batch.add_bytes(data, executable=executable) for data in datas]
        batch.publish()
    return names


def tree_of(files: Mapping[str, bytes], name: str = "demo", version: str = "1.0") -> Tree:
    """Return the tree of *files*, by path."""
    return make_tree(name, version, [file_entry(path, data) for path, data in files.items()])


def stock(store: Store, *trees: Mapping[str, bytes]) -> Manifest:
    """Put *trees*, each files by path, into the store: objects, trees and index rows."""
    made = tuple(tree_of(files, f"demo{number}") for number, files in enumerate(trees))
    with store.objects.batch() as batch:
        for files in trees:
            for data in files.values():
                batch.add_bytes(data)
        store.stage_trees(batch, made)
        batch.publish()
        store.index.add_objects(batch.added, batch.adopted)
    store.index.add_trees(made)
    return Manifest(made)


def snapshot_of(
    manifest: Manifest, number: int = 0, *, place: str | None = None, parts: Mapping[str, str] | None = None
) -> Snapshot:
    """Return a snapshot of *manifest*, under a key of its own for each *number*."""
    key = make_key({"python": "CPython 3.12.1", "abi": "x", "number": str(number), **(parts or {})})
    entries = [entry for tree in manifest.trees for entry in tree.entries if entry.digest]
    return Snapshot(
        snapshot_id(key.digest, place), key, tuple(tree.digest for tree in manifest.trees), place,
        f"venv{number}", 1000.0 + number, "host", "doit", "3.12.1", len(entries),
        sum(entry.size for entry in entries),
    )  # fmt: skip


def picture(directory: Path | str) -> dict[str, tuple[str, bytes | str, bool]]:
    """Return everything below *directory*: kind, bytes or target, and whether it is executable."""
    found: dict[str, tuple[str, bytes | str, bool]] = {}
    for parent, directories, names in os.walk(directory):
        for name in [*directories, *names]:
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, directory)
            if os.path.islink(path):
                found[relative] = ("link", os.readlink(path), False)
            elif os.path.isdir(path):
                found[relative] = ("dir", "", False)
            elif not os.path.isfile(path):  # to read a FIFO is to wait for a writer
                found[relative] = ("special", "", False)
            else:
                found[relative] = ("file", Path(path).read_bytes(), bool(os.stat(path).st_mode & 0o100))
    return found


def shown(venv: Path) -> dict[str, tuple[str, bytes | str, bool]]:
    """Return what a venv holds, but for receipt and bytecode."""
    return {
        path: what
        for path, what in picture(venv).items()
        if path != RECEIPT and not path.endswith((".pyc", "__pycache__"))
    }


def write(root: Path | str, files: Mapping[str, bytes]) -> None:
    """Write *files*, by path, below *root*."""
    for path, data in files.items():
        target = Path(root) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def grow(root: Path, files: Mapping[str, str]) -> Path:
    """Write texts, by path, below *root*, and return it."""
    write(root, {path: text.encode() for path, text in files.items()})
    return root


def make_deep(top: Path, depth: int) -> None:
    """Make *depth* directories, one in the other, below a new directory *top*."""
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


# --------------------------------------------------------------------------- other processes


def fork(how: Callable[[], Forked]) -> Forked:
    """Fork by ``os.fork`` or ``pty.fork``, whatever threads there are: those of xdist only wait.

    What is garbage here is no child's to collect: a compressor would wait for threads that are not there.
    """
    me = os.getpid()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return how()
    finally:
        if os.getpid() != me:
            gc.freeze()
        gc.enable()


def open_descriptors() -> int:
    """Return how many descriptors are open; each is asked, for not every system lists them."""
    return sum(_is_open(fd) for fd in range(1024))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def in_child(work: Callable[[], object], *, user: int | None = None) -> int:
    """Run *work* in a forked child, perhaps as another user; return its exit status, 1 for an exception."""
    pid = fork(os.fork)
    if pid == 0:
        status = 1
        try:
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the child must end here, whatever happens
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def dies_at(function: str, call: int) -> Callable[..., Any]:
    """Return ``os.<function>``, but the process ends at once, instead of doing the *call*-th call from 0."""
    real = getattr(os, function)
    left = [call]

    def dying(*args: Any, **kwargs: Any) -> Any:
        if not left[0]:
            os._exit(KILLED)
        left[0] -= 1
        return real(*args, **kwargs)

    return dying


def killed_at_each(
    work: Callable[[], object], functions: tuple[str, ...], prepare: Callable[[], object]
) -> Iterator[str]:
    """Run *work* in children that die at the 1st, 2nd … call of each of *functions*; yield after each death.

    Before each run *prepare* makes things what they are to be. Fails if nothing ever died.
    """
    deaths = 0
    for function in functions:
        for call in range(200):

            def run(function: str = function, call: int = call) -> None:
                setattr(os, function, dies_at(function, call))
                work()

            prepare()
            status = in_child(run)
            if status == 0:
                break
            assert status == KILLED, f"{function} {call} ended with {status}"
            deaths += 1
            yield f"{function} {call}"
    assert deaths


# --------------------------------------------------------------------------- file systems


@contextmanager
def mounted(target: Path, *options: str) -> Iterator[Path]:
    """Mount something at *target*, or skip the test with the reason; *options* are those of mount(8)."""
    if not os.path.exists("/proc/self/mountinfo"):
        pytest.skip("mount(8) needs /proc")
    target.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(target)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


@contextmanager
def elsewhere(beside: Path) -> Iterator[Path]:
    """Give a directory on another file system than *beside*, or skip the test."""
    device = beside.stat().st_dev
    candidates = (Path(MEMORY), Path(tempfile.gettempdir()))
    others = (each for each in candidates if os.access(each, os.W_OK) and each.stat().st_dev != device)
    other = next(others, None)
    if other is None:
        pytest.skip(f"there is no second file system: {MEMORY} cannot be written or is the same one")
    with tempfile.TemporaryDirectory(dir=other) as directory:
        yield Path(directory)


@contextmanager
def for_everybody() -> Iterator[Path]:
    """Give a directory that other users can reach; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - that is what it is for
        yield Path(directory)
