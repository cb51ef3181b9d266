"""A tar stream from members: files read straight into buffers, and compared with their names aside.

Reading, compressing and hashing take turns on a buffer: while one is compressed, a thread of the
:class:`Checker` hashes what is in it, and the next is filled.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from venvflow.disk.archive import tar
from venvflow.disk.archive.contents import DamagedObject, Member, ObjectSource, damaged
from venvflow.disk.descriptors import READ

Advance = Callable[[int], None]
"""Called with the number of bytes that were read just now."""


class _Part(NamedTuple):
    """Some bytes of an object, in a buffer; the *last* ones, or there is more of it."""

    member: Member
    data: memoryview
    last: bool


class Checker:
    """Compares objects with their names while others are read, as a context manager.

    :meth:`wait` raises DamagedObject when one was not what its name says: all that was made of it is void.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()
        self._hasher: Any = None

    def __enter__(self) -> Checker:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def check(self, parts: list[_Part]) -> None:
        """Hash *parts* soon; their buffer must not change until :meth:`wait` says so."""
        self._pending.append(self._thread.submit(self._check, parts))

    def wait(self, left: int = 0) -> None:
        """Wait until all but the *left* latest lists of parts are hashed."""
        while len(self._pending) > left:
            self._pending.popleft().result()

    def _check(self, parts: list[_Part]) -> None:
        for member, data, last in parts:
            hasher = self._hasher or hashlib.sha256()
            hasher.update(data)
            self._hasher = None if last else hasher
            if last and hasher.hexdigest() != member.digest:
                raise _altered(member)


class Packer:
    """Fills buffers of *size* bytes with a tar stream, and gives each to *emit* when it is full.

    *emit* must be done with a buffer when it returns; the others of the *buffers* may wait to be hashed
    meanwhile. *advance* is told of what is read.
    """

    def __init__(
        self,
        source: ObjectSource,
        size: int,
        emit: Callable[[memoryview], object],
        checker: Checker,
        advance: Advance,
        *,
        buffers: int = 2,
    ) -> None:
        self._source = source
        self._buffers = deque(memoryview(bytearray(size)) for _ in range(buffers))
        self._used = 0
        self._emit = emit
        self._parts: list[_Part] = []
        self._checker = checker
        self._advance = advance

    def add(self, member: Member, header: bytes) -> None:
        """Put a member behind its *header*; raises DamagedObject when its object cannot be read."""
        self.put(header)
        if member.data is not None:
            self.put(member.data)
            self._advance(member.size)
        elif member.kind == "file":
            self._read(member)
        self.put(bytes(tar.padding(member.size)))

    def put(self, data: bytes) -> None:
        """Put bytes as they are."""
        done = 0
        while done < len(data):
            room = self._room()
            part = data[done : done + len(room)]
            room[: len(part)] = part
            self._used += len(part)
            done += len(part)

    def end(self) -> None:
        """Emit what is left, and wait until all objects are compared; raises DamagedObject."""
        self._turn()
        self._checker.wait()

    def _turn(self) -> None:
        """Emit what the buffer holds and go on with the next one, once what that held has been hashed."""
        if self._parts:
            self._checker.check(self._parts)
            self._parts = []
        if self._used:
            self._emit(self._buffers[0][: self._used])
            self._used = 0
        self._checker.wait(left=len(self._buffers) - 1)
        self._buffers.rotate()

    def _room(self) -> memoryview:
        """Return what is free of the buffer: never nothing."""
        buffer = self._buffers[0]
        if self._used == len(buffer):
            self._turn()
            buffer = self._buffers[0]
        return buffer[self._used :]

    def _read(self, member: Member) -> None:
        left = member.size
        fd = _opened(self._source, member)
        try:
            while True:
                view = self._room()[:left]
                count = _filled(fd, view, member)
                left -= count
                self._used += count
                self._parts.append(_Part(member, view[:count], left == 0))
                self._advance(count)
                if not left:
                    break
        finally:
            os.close(fd)


def object_parts(source: ObjectSource, member: Member, buffer: memoryview) -> Iterator[memoryview]:
    """Read an object into *buffer* again and again, and yield what was filled.

    Raises DamagedObject at the end, when its SHA-256 is not its name: all that was made of it is void.
    """
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
