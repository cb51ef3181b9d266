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
from collections.abc import Callable
from typing import Any

from venvflow.disk.remote.answers import Answers, at_once
from venvflow.disk.remote.client import Client, RemoteFailure, Stored


class _Worker:
    """Answers one request after the other; the first one says of what, with ``open``."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            raise RemoteFailure("unusable", "no URL was given")
        return self._client

    def open(self, url: str, options: dict[str, str]) -> None:
        """Let all requests be about what *url* names; see :class:`Client`."""
        self._client = Client(url, options)

    def get(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer with what is at each of *paths*, and when it was written; see :meth:`_each`."""
        most = request["most"]

        def one(path: str) -> tuple[str, float]:
            stored, data = self.client.whole(path, most, self._answers.count)
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
        return dict(zip(paths, at_once(one, paths, request["connections"]), strict=True)), denied

    def pull(self, request: dict[str, Any]) -> dict[str, Any]:
        trees = [(digest, raw) for digest, raw in request["trees"]]
        from venvflow.disk.remote.transfers import Fetching  # noqa: PLC0415 - see there

        Fetching(self.client, self._answers, request).run(trees, request["connections"])
        return {}

    def push(self, request: dict[str, Any]) -> dict[str, Any]:
        from venvflow.disk.remote.transfers import Sending  # noqa: PLC0415 - see there

        Sending(self.client, self._answers, request).run(request["trees"], request["connections"])
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
        from venvflow.disk.remote.transfers import Checking  # noqa: PLC0415 - see there

        Checking(self.client, self._answers, request).run(trees, request["connections"])
        return {}

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        def one(path: str) -> None:
            self.client.delete(path)
            self._answers.count(1)

        at_once(one, request["paths"], request["connections"])
        return {}


def _serve(line: str, worker: _Worker, answers: Answers) -> None:
    """Answer one request: with words on the way, then with ``done`` or ``failed``."""
    stop = threading.Event()
    ticking = threading.Thread(target=answers.tick, args=(stop,), daemon=True)
    ticking.start()
    try:
        request = json.loads(line)
        if "open" in request:
            worker.open(**request["open"])
        result = getattr(worker, request["do"])(request)
    except RemoteFailure as error:
        final: dict[str, Any] = {"failed": error.kind, "text": str(error)}
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
    answers = Answers(os.fdopen(os.dup(1), "w", encoding="ascii"))
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
