"""Parcels on their way in: fetched over several connections, held in bounded memory, taken in order.

What is bounded is what was read and not yet taken. All connections ask; who would read more than there is
room for leaves his bytes where they are, with the server and the network, until somebody has taken some.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence

from venvflow.disk.remote.client import BACKOFF, CHUNK, RemoteFailure, Stored
from venvflow.pure.parcels import RANGE, parcel_path

ROOM = 12 << 20
"""Bytes of parcels that may have been read ahead by one process."""

_PATIENCE = 30.0
"""Seconds for which a part of a parcel is asked for again when the server has too much to do."""

Get = Callable[[str, int, int], tuple[Stored, Iterator[memoryview]]]
"""Asks for bytes of an object: see :meth:`venvflow.disk.remote.client.Client.get`."""


class _Range:
    """Bytes of a parcel for one request: of those until *end*, *chunks* wait to be taken, and *at* is next.

    *is_paused*: who reads it waits for room, and *has_paused* since he asked.
    """

    def __init__(self, parcel: IncomingParcel, start: int, end: int) -> None:
        self.parcel = parcel
        self.order = parcel.number, start
        self.at, self.end = start, end
        self.chunks = deque[memoryview]()
        self.is_whole = self.is_paused = self.has_paused = False
        self.failure: BaseException | None = None
        self.patient_until = 0.0

    def __lt__(self, other: _Range) -> bool:
        return self.order < other.order


class IncomingParcel:
    """The parcel of a tree: its *number* in the list, *digest*, and *raw* size.

    *size* is how many bytes it has as it is stored; 0: not known yet.
    """

    def __init__(self, number: int, digest: str, raw: int) -> None:
        self.number, self.digest, self.raw = number, digest, raw
        self.size = 0
        self.is_given_up = False
        self.parts = deque([_Range(self, 0, RANGE)])


class Incoming:
    """Fetches the parcels of *trees*, each given with its plain size, for one who takes them in turn.

    They are asked for in the order of the list, and what he waits for is read whatever else is held: so he
    waits for no bytes that wait for room. *counted* is told of bytes that came, and of 0 while a server that
    has too much to do is left alone: then half as many requests are under way.
    """

    def __init__(
        self,
        get: Get,
        trees: Sequence[tuple[str, int]],
        connections: int,
        counted: Callable[[int], object] = lambda _bytes: None,
    ) -> None:
        self._get, self._counted = get, counted
        self._mutex = threading.Lock()
        self._came = threading.Condition(self._mutex)  # bytes, for who takes them
        self._room = threading.Condition(self._mutex)  # for who has paused
        self._turn = threading.Condition(self._mutex)  # for who reads nothing
        self._parcels = deque(IncomingParcel(number, *tree) for number, tree in enumerate(trees))
        self._unasked = [parcel.parts[0] for parcel in self._parcels]  # a heap
        self._awaited: _Range | None = None
        self._reading: list[_Range] = []
        self._most = connections
        self._held = 0
        self._is_closed = False
        self._readers = [threading.Thread(target=self._read_all, daemon=True) for _ in range(connections)]
        for reader in self._readers:
            reader.start()

    def stop(self) -> None:
        """Ask for nothing more."""
        with self._mutex:
            self._is_closed = True
            for condition in (self._came, self._room, self._turn):
                condition.notify_all()

    def close(self) -> None:
        """Stop, and wait for who is still reading."""
        self.stop()
        for reader in self._readers:
            reader.join()

    # ------------------------------------------------------------------- taking

    def take(self) -> IncomingParcel | None:
        """Return the next parcel; None if that was all."""
        with self._mutex:
            return self._parcels.popleft() if self._parcels and not self._is_closed else None

    def chunks(self, parcel: IncomingParcel) -> Generator[memoryview, None, None]:
        """Yield all bytes of *parcel* as they come; to ask for the next ones makes room for others.

        From the first on, the size of the parcel is known. Raises RemoteFailure.
        """
        try:
            while parcel.parts:
                while (chunk := self._chunk(parcel.parts[0])) is not None:
                    try:
                        yield chunk
                    finally:
                        self._make_room(len(chunk))
                parcel.parts.popleft()
        finally:
            self._give_up(parcel)

    def _chunk(self, part: _Range) -> memoryview | None:
        """Return the next bytes of a part, None behind its last."""
        with self._mutex:
            if not (part.chunks or part.is_whole or part.failure):
                self._awaited = part
                self._room.notify_all()
                self._came.wait_for(lambda: part.chunks or part.is_whole or part.failure)
                self._awaited = None
            if part.chunks:
                return part.chunks.popleft()
            if part.failure is not None:
                raise part.failure
            return None

    def _make_room(self, size: int) -> None:
        with self._mutex:
            self._held -= size
            self._room.notify()

    def _give_up(self, parcel: IncomingParcel) -> None:
        """Let go of what is left of a parcel."""
        with self._mutex:
            parcel.is_given_up = True
            self._held -= sum(len(chunk) for part in parcel.parts for chunk in part.chunks)
            parcel.parts.clear()
            self._room.notify_all()

    # ------------------------------------------------------------------- reading

    def _read_all(self) -> None:
        """Read one part after the other, for as long as there is somebody to take them."""
        while (turn := self._next()) is not None:
            part, most = turn
            pause = None
            try:
                self._read(part)
            except RemoteFailure as error:
                pause = self._pause_after(part, error)
                if pause is None:
                    part.failure = error
            except BaseException as error:  # noqa: BLE001 - it is raised again, by who takes the part
                part.failure = error
            self._end_turn(part, most if pause else 0)
            if pause is not None:
                self._wait(pause)
                self._let_ask(part)

    def _next(self) -> tuple[_Range, int] | None:
        """Wait for a turn; return what to read, and how many turns there are, or None if that was all."""
        with self._mutex:
            while True:
                self._turn.wait_for(lambda: self._is_closed or (self._unasked and self._has_turn()))
                if self._is_closed:
                    return None
                part = heapq.heappop(self._unasked)
                if not part.parcel.is_given_up:
                    part.has_paused = False
                    self._reading.append(part)
                    return part, self._most

    def _has_turn(self) -> bool:
        return sum(not part.is_paused for part in self._reading) < self._most

    def _end_turn(self, part: _Range, refused_of: int) -> None:
        """End a turn. One of *refused_of* was refused: halve them, unless others of these were before."""
        with self._mutex:
            self._reading.remove(part)
            if self._most == refused_of:
                self._most = max(1, refused_of // 2)
            self._turn.notify()
            self._came.notify_all()  # of a failure

    def _pause_after(self, part: _Range, error: RemoteFailure) -> float | None:
        """Return after how many seconds a part is asked for again; None: not any more.

        Who is refused waits for a while that is left to chance: others were refused with him. And servers
        give up on who has read nothing for long, which was for want of room.
        """
        if part.has_paused:
            return 0.0
        now = time.monotonic()
        part.patient_until = part.patient_until or now + _PATIENCE
        if not error.is_refusal or now > part.patient_until:
            return None
        return random.uniform(0, BACKOFF.most)  # noqa: S311 - no secret is made of it

    def _wait(self, seconds: float) -> None:
        self._counted(0)
        with self._mutex:
            self._came.wait_for(lambda: self._is_closed, seconds)

    def _let_ask(self, *parts: _Range) -> None:
        with self._mutex:
            for part in parts:
                heapq.heappush(self._unasked, part)
            self._turn.notify_all()

    def _read(self, part: _Range) -> None:
        """Read a part from where it was read to; raises RemoteFailure."""
        parcel = part.parcel
        stored, chunks = self._get(parcel_path(parcel.digest), part.at, part.end)
        if not parcel.size:
            self._divide(parcel, stored.size)
        while part.at < part.end:
            if not self._is_wanted(part):
                return
            chunk = None
            try:
                chunk = next(chunks, None)
            finally:
                self._hold(part, chunk)
            if chunk is None:
                raise RemoteFailure("unreachable", "the answer was cut short")
            self._counted(len(chunk))
        with self._mutex:
            part.is_whole = True
            self._came.notify_all()

    def _divide(self, parcel: IncomingParcel, size: int) -> None:
        """Take note of how large a parcel is, and let what follows its first part be asked for."""
        with self._mutex:
            parcel.size = size
            if parcel.is_given_up:
                return
            first = parcel.parts[0]
            first.end = min(first.end, size)
            more = [_Range(parcel, at, min(at + RANGE, size)) for at in range(first.end, size, RANGE)]
            parcel.parts.extend(more)
        self._let_ask(*more)

    def _is_wanted(self, part: _Range) -> bool:
        """Wait until there is room for a chunk of a part, and take it; return whether anybody wants it."""
        with self._mutex:
            if not self._may_read(part):
                part.is_paused = part.has_paused = True
                self._turn.notify()
                self._room.wait_for(lambda: self._may_read(part))
                part.is_paused = False
            if self._is_closed or part.parcel.is_given_up:
                return False
            self._held += CHUNK
            return True

    def _may_read(self, part: _Range) -> bool:
        is_lacking = part is self._awaited and not part.chunks
        return self._held + CHUNK <= ROOM or is_lacking or self._is_closed or part.parcel.is_given_up

    def _hold(self, part: _Range, chunk: memoryview | None) -> None:
        """Hold a chunk in the room that was taken for it."""
        with self._mutex:
            self._held -= CHUNK
            if chunk is None or part.parcel.is_given_up:
                self._room.notify()
                return
            self._held += len(chunk)
            part.at += len(chunk)
            part.chunks.append(chunk)
            if part is self._awaited:
                self._came.notify_all()
