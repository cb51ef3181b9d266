"""What comes from a remote and goes there, tree by tree: the part of the child process that moves bytes.

It is loaded by the first request for that: most requests ask for less, and most children are asked for less.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from venvflow.disk.descriptors import CREATE
from venvflow.disk.kernel import cores
from venvflow.disk.links import write_all
from venvflow.disk.objects import Name, Objects, seal
from venvflow.disk.remote.answers import Answers, at_once
from venvflow.disk.remote.client import Client, RemoteFailure, Stored
from venvflow.disk.remote.incoming import Incoming, IncomingParcel
from venvflow.disk.remote.parcels import Cutter, DamagedPiece, write_parcel
from venvflow.pure.decoding import Corrupt
from venvflow.pure.manifest import decode_tree
from venvflow.pure.parcels import Piece, is_condemned, parcel_path, pieces_of

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


class Fetching:
    """Fetches parcels over several connections, and cuts them into a staging directory, one after the other.

    What is there to be done for each object is a few short system calls: a second thread would wait for this
    one all the time. More at once are cut by more processes.
    """

    def __init__(self, client: Client, answers: Answers, request: dict[str, Any]) -> None:
        self._client, self._answers = client, answers
        self._staging, self._prefix = request["staging"], request["prefix"]
        self._objects = Objects(request["store"])

    def run(self, trees: Sequence[tuple[str, int]], connections: int) -> None:
        """Fetch *trees*, each with its plain size; say of each that it is there, or of one that it is bad.

        The first that is bad ends it: without it there is no snapshot. Raises RemoteFailure and ``OSError``.
        """
        with closing(Incoming(self._client.get, trees, connections, self._counted)) as incoming:
            while (parcel := incoming.take()) is not None:
                self._tree(parcel, incoming)

    def _counted(self, size: int) -> None:
        self._answers.count(size)
        if not size:  # a server that has too much to do is not silent
            self._answers.say(moved=self._answers.moved)

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


class Checking(Fetching):
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


# --------------------------------------------------------------------------- push


class Sending:
    """Makes parcels of trees that the remote lacks, several at once, and sends them."""

    def __init__(self, client: Client, answers: Answers, request: dict[str, Any]) -> None:
        self._client, self._answers = client, answers
        self._scratch = request["staging"]
        self._store, self._condemned = request["store"], request["condemned"]
        self._objects = Objects(self._store)
        self._making = threading.Semaphore(cores())

    def run(self, trees: Sequence[str], connections: int) -> None:
        """Send those of *trees* that are not there, or were written before they were condemned.

        Raises RemoteFailure, also for an object of ours that is damaged, and ``OSError``.
        """
        at_once(self._tree, trees, connections)

    def _tree(self, digest: str) -> None:
        path = parcel_path(digest)
        there = self._there(path)
        if there is not None and not is_condemned(digest, there.modified, self._condemned):
            self._answers.say(pushed=digest, sent=0, stored=there.size)
            return
        file = f"{self._scratch}/{digest}"
        try:
            with self._making:
                self._make(digest, file)
        except DamagedPiece as error:
            raise RemoteFailure("damaged", str(error)) from error
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
