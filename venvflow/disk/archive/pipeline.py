"""Work in threads whose results keep their order, and its input: tar streams of objects.

Reading, compressing, comparing, hashing and writing are one :class:`Lane` each, or results of
:func:`in_order`. Nothing that is written depends on how many threads there are or which of them is first, and
what waits between them is bounded.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from venvflow.disk.archive import tar
from venvflow.disk.archive.contents import DamagedObject, Member, ObjectSource, damaged
from venvflow.disk.archive.formats import Progress
from venvflow.disk.descriptors import READ

T = TypeVar("T")
R = TypeVar("R")


class Lane:
    """One thread that does what it is given, in that order; to be used in a ``with`` statement.

    Work of the size *most* may wait in all; a thread that adds more has to wait. Once something has failed,
    nothing after it is done, and the next call, or the end of the block, raises what it raised. When the
    block itself fails, what was not begun is not done.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._thread = ThreadPoolExecutor(1)
        self._pending: deque[tuple[Future[None], int]] = deque()
        self._waiting = 0
        self._broken = False

    def __enter__(self) -> Lane:
        """Return it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the thread."""
        try:
            if kind is None:
                self.wait()
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def put(self, work: Callable[[], object], size: int = 1) -> Future[None]:
        """Give it *work* of that size; the result tells when it is done."""
        future = self._thread.submit(self._do, work)
        self._pending.append((future, size))
        self._waiting += size
        self.wait(self._most)
        return future

    def wait(self, left: int = 0) -> None:
        """Wait until work of no more than the size *left* is not done."""
        while self._pending and (not left or self._waiting > left or self._pending[0][0].done()):
            future, size = self._pending.popleft()
            self._waiting -= size
            future.result()

    def _do(self, work: Callable[[], object]) -> None:
        if self._broken:
            return
        try:
            work()
        except BaseException:
            self._broken = True
            raise


def in_order(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    threads: int,
    ahead: int,
    discard: Callable[[R], object] = lambda _: None,
) -> Generator[R, None, None]:
    """Yield ``work(item)`` in the order of *items*, of which *ahead* are worked on in *threads* meanwhile.

    Results that nobody takes, because the generator was closed, are given to *discard*.
    """
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for future in pending:
            if not future.cancelled() and future.exception() is None:
                discard(future.result())


class Stopped(Exception):
    """Another thread failed: there is no use in going on."""


class ByteCounter:
    """Counts bytes for *progress*, and stops threads that are still at work when another one has failed."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._stopped = False
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Let the next :meth:`advance` in any thread raise :class:`Stopped`."""
        self._stopped = True

    def advance(self, count: int) -> None:
        """Count some more bytes."""
        if self._stopped:
            raise Stopped
        if self._progress is not None and count:
            with self._lock:
                self._done += count
                self._progress(self._done, self._total)


# --------------------------------------------------------------------------- from objects to a tar


_ZEROS = bytes(tar.BLOCK)


class _Part(NamedTuple):
    """Some bytes of an object, in a buffer; the *last* ones, or there is more of it."""

    member: Member
    data: memoryview
    last: bool


@contextmanager
def packing(source: ObjectSource, size: int, counter: ByteCounter, *, buffers: int = 2) -> Iterator[Packer]:
    """Give what makes tar streams of members, in pieces of *size* bytes.

    While a piece is compressed, a thread compares the objects in it with their names, and the next of the
    *buffers* is filled.
    """
    with Lane(buffers - 1) as checks:
        yield Packer(source, size, counter, buffers, checks)


class Packer:
    """Makes tar streams of members; see :func:`packing`."""

    def __init__(
        self, source: ObjectSource, size: int, counter: ByteCounter, buffers: int, checks: Lane
    ) -> None:
        self._source = source
        self._counter = counter
        self._buffers = deque(memoryview(bytearray(size)) for _ in range(buffers))
        self._used = 0
        self._uncounted = 0
        self._parts: list[_Part] = []
        self._checks = checks
        self._hasher: Any = None

    def stream(self, members: Iterable[tuple[bytes, Member]], end: bytes = b"") -> Iterator[memoryview]:
        """Yield the tar of *members*, each behind its header, and of *end*.

        A piece is valid until the next one is taken. Raises DamagedObject, at the latest at the end, when
        an object was not what its name says: then all that was made of the stream is void.
        """
        for header, member in members:
            # What fits is taken at once: most is small, and asking for pieces of it takes longer.
            if not self._takes(header):
                yield from self._put(header)
            if member.data is not None:
                yield from self._put(member.data)
                self._uncounted += member.size
            elif member.kind == "file":
                yield from self._read(member)
            padding = _ZEROS[: tar.padding(member.size)]
            if not self._takes(padding):
                yield from self._put(padding)
        yield from self._put(end)
        yield from self._turn()
        self._checks.wait()

    def _takes(self, data: bytes) -> bool:
        """Take *data* if there is room for all of it; return whether there is."""
        start, stop = self._used, self._used + len(data)
        buffer = self._buffers[0]
        if stop > len(buffer):
            return False
        buffer[start:stop] = data
        self._used = stop
        return True

    def _put(self, data: bytes) -> Iterator[memoryview]:
        done = 0
        while done < len(data):
            if self._used == len(self._buffers[0]):
                yield from self._turn()
            room = self._buffers[0][self._used :]
            part = data[done : done + len(room)]
            room[: len(part)] = part
            self._used += len(part)
            done += len(part)

    def _read(self, member: Member) -> Iterator[memoryview]:
        left = member.size
        fd = _opened(self._source, member)
        try:
            while True:
                if self._used == len(self._buffers[0]):
                    yield from self._turn()
                view = self._buffers[0][self._used : self._used + left]
                count = _filled(fd, view, member)
                left -= count
                self._used += count
                self._parts.append(_Part(member, view[:count] if left else view, not left))
                self._uncounted += count
                if not left:
                    break
        finally:
            os.close(fd)

    def _turn(self) -> Iterator[memoryview]:
        """Yield what the buffer holds, and go on with one whose objects have been compared."""
        parts, self._parts = self._parts, []
        self._checks.put(lambda: self._check(parts))
        self._counter.advance(self._uncounted)
        self._uncounted = 0
        if self._used:
            yield self._buffers[0][: self._used]
        self._used = 0
        self._buffers.rotate()

    def _check(self, parts: list[_Part]) -> None:
        for member, data, last in parts:
            hasher = self._hasher or hashlib.sha256()
            hasher.update(data)
            self._hasher = None if last else hasher
            if last and hasher.hexdigest() != member.digest:
                raise _altered(member)


def object_parts(source: ObjectSource, member: Member, size: int) -> Iterator[memoryview]:
    """Yield the bytes of an object, *size* at a time, each piece valid until the next one is taken.

    Raises DamagedObject at the end, when its SHA-256 is not its name: all that was made of it is void.
    """
    buffer = memoryview(bytearray(min(member.size, size)))
    hasher = hashlib.sha256()
    left = member.size
    fd = _opened(source, member)
    try:
        while left:
            count = _filled(fd, buffer[:left], member)
            left -= count
            hasher.update(buffer[:count])
            yield buffer[:count]
    finally:
        os.close(fd)
    if hasher.hexdigest() != member.digest:
        raise _altered(member)


def _opened(source: ObjectSource, member: Member) -> int:
    try:
        return os.open(source.path(member.digest, member.executable), READ)
    except OSError as error:
        raise _unreadable(member, error) from error


def _filled(fd: int, view: memoryview, member: Member) -> int:
    """Read into *view*, and return how many bytes; an object that ends too early is damaged."""
    try:
        count = os.readv(fd, [view]) if view else 0
    except OSError as error:
        raise _unreadable(member, error) from error
    if view and not count:
        raise _altered(member)
    return count


def _unreadable(member: Member, error: OSError) -> DamagedObject:
    return damaged(member.name, member.digest, f"cannot be read: {error.strerror}")


def _altered(member: Member) -> DamagedObject:
    return damaged(member.name, member.digest, "has other bytes than its name says")
