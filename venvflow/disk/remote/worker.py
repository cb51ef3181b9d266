"""The child process that talks to a remote: ``python -m venvflow.disk.remote.worker``.

It reads requests from its input and writes answers to its output, one line of JSON each (see
:mod:`venvflow.disk.remote.channel`). When its input ends, its parent is gone, and so is it. It writes only
into the staging directory that it was given, and gives no object its name: that is up to the parent.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import IO, Any

from venvflow.disk.descriptors import CREATE
from venvflow.disk.links import write_all
from venvflow.disk.objects import Name, Objects, seal
from venvflow.disk.remote.client import Client, RemoteFailure, Stored
from venvflow.disk.remote.incoming import Incoming, IncomingParcel, InVain
from venvflow.disk.remote.parcels import Cutter, DamagedPiece, write_parcel
from venvflow.pure.decoding import Corrupt
from venvflow.pure.manifest import decode_tree
from venvflow.pure.parcels import Piece, is_condemned, parcel_path, pieces_of

_TICK = 0.2
"""Seconds between two words about how many bytes came or went."""

_CUTTERS = min(2, os.cpu_count() or 1)
"""Parcels that are cut at a time. More would wait for each other: each file is a few short system calls."""


class _Answers:
    """What goes back to the parent, and how many bytes came or went so far.

    Nobody here waits until the parent reads: while it makes files durable, more of them come.
    """

    def __init__(self, file: IO[str]) -> None:
        self._waiting = queue.SimpleQueue[str]()
        self._mutex = threading.Lock()
        self.moved = 0
        self.done = 0
        threading.Thread(target=self._write, args=(file,), daemon=True).start()

    def _write(self, file: IO[str]) -> None:
        with suppress(BrokenPipeError):  # the parent is gone, and so is this process soon
            while True:
                file.write(self._waiting.get())
                file.flush()

    def say(self, **answer: Any) -> None:
        self._waiting.put(json.dumps(answer) + "\n")

    def count(self, moved: int, done: int = 0) -> None:
        with self._mutex:
            self.moved += moved
            self.done += done

    def tick(self, stop: threading.Event) -> None:
        """Tell of bytes as long as some move."""
        told = (0, 0)
        while not stop.wait(_TICK):
            if (self.moved, self.done) != told:
                told = self.moved, self.done
                self.say(moved=told[0], done=told[1])


# --------------------------------------------------------------------------- pull


class _Staging:
    """Where the objects of one tree go, unless the store has them; *files* are those that are whole."""

    def __init__(self, objects: Objects, directory: str, prefix: str) -> None:
        self._objects, self._directory, self._prefix = objects, directory, prefix
        self._fd = -1
        self.files: list[tuple[str, str, bool, int]] = []

    def begin(self, piece: Piece) -> bool:
        if self._objects.sound(Name(piece.digest, piece.executable), piece.size):
            return False
        self._fd = os.open(f"{self._directory}/{self._prefix}-{len(self.files)}", CREATE, 0o600)
        return True

    def write(self, data: memoryview) -> None:
        write_all(self._fd, data)

    def end(self, piece: Piece) -> None:
        """Make it look like an object while it is open: its name is all that it lacks."""
        seal(self._fd, Name(piece.digest, piece.executable))
        self.close()
        name = f"{self._prefix}-{len(self.files)}"
        self.files.append((name, piece.digest, piece.executable, piece.size))

    def close(self) -> None:
        """Close the file of an object, whether it came whole or not."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _Pull:
    """Fetches parcels, several at once, and cuts them into a staging directory."""

    def __init__(self, client: Client, answers: _Answers, request: dict[str, Any]) -> None:
        self._client, self._answers = client, answers
        self._staging, self._prefix = request["staging"], request["prefix"]
        self._objects = Objects(request["store"])

    def run(self, trees: Sequence[tuple[str, int]], connections: int) -> None:
        """Fetch *trees*, each with its plain size; say of each that it is there, or of one that it is bad.

        The first that is bad ends it: without it there is no snapshot. Raises RemoteFailure and ``OSError``.
        """
        incoming = Incoming(self._client.get, trees, connections, self._counted)
        with closing(incoming), ThreadPoolExecutor(_CUTTERS) as cutters:
            waiting = [cutters.submit(self._cut, incoming) for _ in range(_CUTTERS)]
            _wait_for(waiting, incoming.stop)

    def _counted(self, size: int) -> None:
        self._answers.count(size)
        if not size:  # a server that has too much to do is not silent
            self._answers.say(moved=self._answers.moved)

    def _cut(self, incoming: Incoming) -> None:
        """Cut one parcel after the other, until there is none, or somebody fails."""
        try:
            while (parcel := incoming.take()) is not None:
                self._tree(parcel, incoming)
        except InVain:
            return
        except BaseException:
            incoming.stop()
            raise

    def _tree(self, parcel: IncomingParcel, incoming: Incoming) -> None:
        staging = _Staging(self._objects, self._staging, f"{self._prefix}{parcel.number}")
        cutter = Cutter(parcel.digest, parcel.raw, staging)
        try:
            _feed(cutter, parcel, incoming)
        except (Corrupt, RemoteFailure) as error:
            if isinstance(error, RemoteFailure) and error.kind not in ("absent", "unusable"):
                raise
            incoming.stop()
            absent = getattr(error, "kind", "") == "absent"
            self._answers.say(bad=parcel.digest, why=str(error), absent=absent)
            return
        finally:
            staging.close()
        name = f"{self._prefix}{parcel.number}-tree"
        with open(f"{self._staging}/{name}", "xb") as file:
            file.write(cutter.encoded)
        self._answers.say(tree=parcel.digest, file=name, objects=staging.files, stored=parcel.size)


class _Verify(_Pull):
    """Reads parcels and keeps nothing of them; says of each whether it is what it should be."""

    def _tree(self, parcel: IncomingParcel, incoming: Incoming) -> None:
        cutter = Cutter(parcel.digest, parcel.raw, _Nobody())
        try:
            _feed(cutter, parcel, incoming)
        except (Corrupt, RemoteFailure) as error:
            kind = getattr(error, "kind", "")
            if kind not in ("", "absent", "unusable"):
                raise
            self._answers.say(bad=parcel.digest, why=str(error), absent=kind == "absent")
        else:
            self._answers.say(sound=parcel.digest, stored=parcel.size)


class _Nobody:
    """Needs no object of a parcel: they are checked, and that is all."""

    def begin(self, piece: Piece) -> bool:
        del piece
        return False

    def write(self, data: memoryview) -> None:
        pass

    def end(self, piece: Piece) -> None:
        pass


def _feed(cutter: Cutter, parcel: IncomingParcel, incoming: Incoming) -> None:
    """Feed all of *parcel* to *cutter*; raises Corrupt and RemoteFailure."""
    is_measured = False
    with closing(incoming.chunks(parcel)) as chunks:
        for chunk in chunks:
            cutter.feed(chunk)
            if not is_measured and cutter.head is not None:
                is_measured = True
                if cutter.stored() != parcel.size:
                    raise Corrupt("it is not as long as its head says")
    cutter.close()


def _wait_for(waiting: Sequence[Future[None]], stop: Callable[[], None]) -> None:
    """Wait for all; the first that fails stops the others, and its error is raised."""
    try:
        for each in waiting:
            each.result()
    except BaseException:
        stop()
        for each in waiting:
            each.cancel()
        raise


# --------------------------------------------------------------------------- push


class _Push:
    """Makes parcels of trees that the remote lacks, several at once, and sends them."""

    def __init__(self, client: Client, answers: _Answers, request: dict[str, Any]) -> None:
        self._client, self._answers = client, answers
        self._scratch = request["staging"]
        self._store, self._condemned = request["store"], request["condemned"]
        self._objects = Objects(self._store)
        self._is_vain = False
        self._making = threading.Semaphore(os.cpu_count() or 1)

    def run(self, trees: Sequence[str], connections: int) -> None:
        """Send those of *trees* that are not there, or were written before they were condemned.

        Raises RemoteFailure, DamagedPiece and ``OSError``.
        """
        with ThreadPoolExecutor(connections) as senders:
            _wait_for([senders.submit(self._tree, digest) for digest in trees], self._stop)

    def _stop(self) -> None:
        self._is_vain = True

    def _tree(self, digest: str) -> None:
        if self._is_vain:
            return
        path = parcel_path(digest)
        there = self._there(path)
        if there is not None and not is_condemned(digest, there.modified, self._condemned):
            self._answers.say(pushed=digest, sent=0, stored=there.size)
            return
        file = f"{self._scratch}/{digest}"
        with self._making:
            self._make(digest, file)
        sent = self._client.put_file(path, file)
        os.unlink(file)
        self._answers.count(sent)
        self._answers.say(pushed=digest, sent=sent, stored=sent)

    def _there(self, path: str) -> Stored | None:
        try:
            return self._client.head(path)
        except RemoteFailure as error:
            if error.kind == "denied":  # who may not list is told so of what is not there
                return None
            raise

    def _make(self, digest: str, file: str) -> None:
        with open(f"{self._store}/trees/{digest[:2]}/{digest[2:]}", "rb") as source:
            encoded = source.read()
        pieces = pieces_of(decode_tree(digest, encoded))
        with open(file, "xb") as target:
            write_parcel(
                target,
                encoded,
                pieces,
                lambda piece: self._objects.path(Name(piece.digest, piece.executable)),
                lambda done: self._answers.count(0, done),
            )


# --------------------------------------------------------------------------- requests


class _Worker:
    """Answers one request after the other; *client* is that of the URL of the first."""

    def __init__(self, answers: _Answers) -> None:
        self._answers = answers
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            raise RemoteFailure("unusable", "no URL was given")
        return self._client

    def open(self, request: dict[str, Any]) -> dict[str, Any]:
        self._client = Client(request["url"], request["options"])
        return {}

    def get(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer with what is at each of *paths*, and when it was written; see :meth:`_each`."""
        most = request["most"]

        def one(path: str) -> tuple[str, float]:
            stored, data = self.client.whole(path, most)
            self._answers.count(len(data))
            return base64.b64encode(data).decode("ascii"), stored.modified

        found, denied = self._each(one, request)
        return {"found": found, "denied": denied}

    def _each(
        self, look: Callable[[str], Any], request: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return by path what *look* finds there, None: nothing; and why what may not be read is denied.

        S3 denies what is not there to who may not list: the parent finds out which it is.
        """
        denied = {}

        def one(path: str) -> Any:
            try:
                return look(path)
            except RemoteFailure as error:
                if error.kind == "denied":
                    denied[path] = str(error)
                elif error.kind != "absent":
                    raise
                return None

        paths = request["paths"]
        with ThreadPoolExecutor(request["connections"]) as pool:
            return dict(zip(paths, pool.map(one, paths), strict=True)), denied

    def pull(self, request: dict[str, Any]) -> dict[str, Any]:
        trees = [(digest, raw) for digest, raw in request["trees"]]
        _Pull(self.client, self._answers, request).run(trees, request["connections"])
        return {}

    def push(self, request: dict[str, Any]) -> dict[str, Any]:
        _Push(self.client, self._answers, request).run(request["trees"], request["connections"])
        return {}

    def put(self, request: dict[str, Any]) -> dict[str, Any]:
        self.client.put(request["path"], base64.b64decode(request["data"]))
        return {}

    def list(self, request: dict[str, Any]) -> dict[str, Any]:
        found = []
        for page in self.client.listed(request["path"]):
            self._answers.count(len(page))
            found += [list(each) for each in page]
        return {"listed": found}

    def head(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer with what is known of each of *paths*; see :meth:`_each`."""

        def one(path: str) -> Stored | None:
            found = self.client.head(path)
            self._answers.count(1)
            return found

        found, denied = self._each(one, request)
        return {"heads": found, "denied": denied}

    def verify(self, request: dict[str, Any]) -> dict[str, Any]:
        trees = [(digest, raw) for digest, raw in request["trees"]]
        _Verify(self.client, self._answers, request).run(trees, request["connections"])
        return {}

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        def one(path: str) -> None:
            self.client.delete(path)
            self._answers.count(1)

        with ThreadPoolExecutor(request["connections"]) as pool:
            _wait_for([pool.submit(one, path) for path in request["paths"]], lambda: None)
        return {}


def _serve(line: str, worker: _Worker, answers: _Answers) -> None:
    """Answer one request: with words on the way, then with ``done`` or ``failed``."""
    stop = threading.Event()
    ticking = threading.Thread(target=answers.tick, args=(stop,), daemon=True)
    ticking.start()
    try:
        request = json.loads(line)
        result = getattr(worker, request["do"])(request)
    except RemoteFailure as error:
        final: dict[str, Any] = {"failed": error.kind, "text": str(error)}
    except DamagedPiece as error:
        final = {"failed": "damaged", "text": str(error)}
    except OSError as error:
        final = {"failed": "local", "text": str(error), "errno": error.errno, "path": str(error.filename)}
    else:
        final = {"done": result}
    finally:
        stop.set()
        ticking.join()
    answers.say(**final, moved=answers.moved)


def main() -> None:
    """Serve until the input ends; then end at once, whatever is still under way."""
    # Nothing that a library prints may look like an answer.
    answers = _Answers(os.fdopen(os.dup(1), "w", encoding="ascii"))
    os.dup2(2, 1)
    requests: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def serve() -> None:
        worker = _Worker(answers)
        for line in iter(requests.get, None):
            _serve(line, worker, answers)

    threading.Thread(target=serve, daemon=True).start()
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)  # obstore may abort an interpreter that ends as others do


if __name__ == "__main__":
    main()
