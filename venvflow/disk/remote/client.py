"""Object storage: the one room that meets ``obstore``. Runs in the child process only.

Three reasons to keep it there: obstore hangs after a fork, may abort an interpreter that ends, and a request
that is blocked in it cannot be cancelled from Python.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

_CONNECT = "3s"
_WHOLE_REQUEST = "120s"
"""How long one request may take, with its body: the parent notices silence much earlier."""


class Backoff(NamedTuple):
    """How long who is refused waits: *first* and *most* in seconds, and by what *factor* it grows."""

    first: float
    most: float
    factor: int


BACKOFF = Backoff(0.2, 2.0, 2)

_RETRIES: Any = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {
        "init_backoff": timedelta(seconds=BACKOFF.first),
        "max_backoff": timedelta(seconds=BACKOFF.most),
        "base": BACKOFF.factor,
    },
}
_MULTIPART = 16 << 20
"""Bytes from which on an object is sent in several requests, each of that size."""

_LEAST = 1 << 16
"""Bytes of a file in a directory that are given at once: each piece is work for several threads."""

CHUNK = 1 << 18
"""Bytes of an object that come at once, about: as many as the network has, and on a slow line few."""

_PAGE = 1000
"""Objects that are listed at once: S3 gives no more in one answer."""

_DENIED = ("PermissionDeniedError", "UnauthenticatedError")
_LOCAL = ("file", "memory")


class RemoteFailure(Exception):
    """A request failed; *kind* is ``denied``, ``absent``, ``unreachable`` or ``unusable``.

    ``damaged``: what was to be sent is not what it should be; the text is the digest of the object.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind

    @property
    def is_refusal(self) -> bool:
        """Return whether the server has too much to do, and says so."""
        return str(self)[:3] in ("429", "503")


class Stored(NamedTuple):
    """An object of a remote: its *size* in bytes, and when it was written, by the clock of the server."""

    path: str
    size: int
    modified: float


class Client:
    """The objects below one URL: paths are relative to it."""

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        """Open what *url* names; *options* are ``endpoint`` and ``region``, and only S3 has them.

        Credentials come from where obstore finds them in the environment. Raises RemoteFailure.
        """
        self._directory = url.removeprefix("file://") if url.startswith("file:") else ""
        self._opened: Any = None
        if not self._directory:
            with _explained():
                self._opened = _store(url, options)
        self.read_only = url.startswith(("http:", "https:"))

    def _store(self, *, writes: bool = False) -> Any:
        """Return where the objects are; raises RemoteFailure.

        A directory is made by who writes: for a reader, one that is not mounted is empty, and stays away.
        """
        if self._opened is None:
            if not writes and not os.path.isdir(self._directory):
                raise RemoteFailure("absent", "it is not there")
            from obstore.store import LocalStore  # noqa: PLC0415

            self._opened = LocalStore(self._directory, mkdir=writes)
        return self._opened

    def get(self, path: str, start: int, end: int) -> tuple[Stored, Iterator[memoryview]]:
        """Return what is known of an object, and its bytes from *start* until *end*, as they come.

        Raises RemoteFailure, also while the bytes are taken.
        """
        import obstore  # noqa: PLC0415 - loaded once, by who asks first

        with _explained():
            answer = obstore.get(self._store(), path, options={"range": (start, end)})
            # Whoever waits for more of what a network brings is taken for silent.
            least = _LEAST if self._directory else 1
            return _stored(answer.meta), _streamed(answer.stream(min_chunk_size=least), end - start)

    def whole(self, path: str, most: int, counted: Callable[[int], object]) -> tuple[Stored, bytes]:
        """Return a small object, of one with more than *most* bytes one byte more; raises RemoteFailure.

        Who asked refuses that: one object that is too large says nothing of the others. *counted* is told of
        bytes that came.
        """
        data = bytearray()
        try:
            stored, chunks = self.get(path, 0, most + 1)
            for chunk in chunks:
                data += chunk
                counted(len(chunk))
            return stored, bytes(data)
        except RemoteFailure as error:
            if error.kind != "unusable":
                raise
            empty = self.head(path)  # of which there is no part
            if empty is None or empty.size:
                raise
            return empty, b""

    def head(self, path: str) -> Stored | None:
        """Return what is known of an object, or None if it is not there; raises RemoteFailure."""
        import obstore  # noqa: PLC0415

        try:
            with _explained():
                return _stored(obstore.head(self._store(), path))
        except RemoteFailure as error:
            if error.kind == "absent":
                return None
            raise

    def put(self, path: str, data: bytes) -> None:
        """Write a small object, in place of one that is there; raises RemoteFailure."""
        import obstore  # noqa: PLC0415

        with _explained():
            obstore.put(self._store(writes=True), path, data, use_multipart=False)

    def put_file(self, path: str, file: str) -> int:
        """Write an object from a file and return its size in bytes; raises RemoteFailure and ``OSError``."""
        import obstore  # noqa: PLC0415

        size = os.stat(file).st_size
        with open(file, "rb") as source, _explained():
            parts = size > _MULTIPART
            obstore.put(
                self._store(writes=True),
                path,
                source,
                use_multipart=parts,
                chunk_size=_MULTIPART,
                max_concurrency=2,
            )
        return size

    def listed(self, path: str) -> Iterator[list[Stored]]:
        """Yield all objects below *path*, page by page; raises RemoteFailure."""
        import obstore  # noqa: PLC0415

        try:
            store = self._store()
        except RemoteFailure:  # there is not even a directory
            return
        with _explained():
            for page in obstore.list(store, path, chunk_size=_PAGE):
                yield [_stored(each) for each in page]

    def delete(self, path: str) -> None:
        """Delete an object, if it is there; raises RemoteFailure."""
        import obstore  # noqa: PLC0415

        try:
            with _explained():
                obstore.delete(self._store(), path)
        except RemoteFailure as error:
            if error.kind != "absent":
                raise


def _store(url: str, options: Mapping[str, str]) -> Any:
    from obstore.store import from_url  # noqa: PLC0415

    is_plain = "http://" in (url[:7], options.get("endpoint", "")[:7])  # whoever writes that means it
    client: Any = {"connect_timeout": _CONNECT, "timeout": _WHOLE_REQUEST, "allow_http": is_plain}
    config: Any = dict(options) or None
    return from_url(url, config=config, client_options=client, retry_config=_RETRIES)


def _stored(meta: Mapping[str, Any]) -> Stored:
    modified: datetime = meta["last_modified"]
    return Stored(str(meta["path"]), int(meta["size"]), modified.timestamp())


def _streamed(body: Any, most: int) -> Iterator[memoryview]:
    """Yield the *body* of an answer; raises RemoteFailure if it fails, or is longer than was asked for."""
    with _explained():
        for chunk in body:
            view = memoryview(chunk)
            most -= len(view)
            if most < 0:
                raise RemoteFailure("unusable", "the answer is longer than what was asked for")
            yield view


_UNSENT = {
    r"InvalidCertificate\((?:\s*\w+\()*\s*(\w+)": r"its certificate is not believed (\1)",
    r'"dns error"': "its name leads nowhere",
    r'\bmessage: "([^"\n]{1,80})"': r"\1",
    r"\bIncompleteMessage\b": "the connection was closed without an answer",
    r"\bTimedOut\b|\bTimeout\b": "it cannot be connected to in time",
}
"""What is said of a request that was not sent or not answered, by what is in the text of its error."""


def _in_short(text: str) -> str:
    """Return what went wrong, of a text that also has the request, the retries, and the answer as XML."""
    text, _, details = text.partition("\n")
    if text.endswith("error sending request"):
        found = ((re.search(pattern, details), said) for pattern, said in _UNSENT.items())
        if why := next((match.expand(said) for match, said in found if match is not None), ""):
            return why
    text = text.removeprefix("Generic LocalFileSystem error: ")
    if status := re.search(r"status code: (\d{3}[A-Za-z ]*)", text):
        return status[1].strip()
    return text.rpartition(" - ")[2].strip()


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what obstore raises into RemoteFailure; its text has what went wrong in the first line."""
    try:
        yield
    except RemoteFailure:
        raise
    except FileNotFoundError as error:
        raise RemoteFailure("absent", "it is not there") from error
    except Exception as error:
        name = type(error).__name__
        text = _in_short(str(error))
        # A directory is refused by the system, in the middle of a sentence.
        is_denied = text[:3] in ("401", "403") or re.search(r"\(os error (?:1|13|30)\)", text) is not None
        if isinstance(error, PermissionError) or name in _DENIED or is_denied:
            raise RemoteFailure("denied", text) from error
        if name == "NotSupportedError" and "Range" in text:  # it answers 200 to who asks for less
            raise RemoteFailure("unusable", "the server sends whole files only, and no parts") from error
        if isinstance(error, (ValueError, TypeError)) or name == "UnknownConfigurationKeyError":
            raise RemoteFailure("unusable", text) from error
        # Of an object that is shorter than that; what the system says names a path.
        if text.startswith("416") or ("range" in text.lower() and "(os error" not in text):
            raise RemoteFailure("unusable", "it is shorter than it should be") from error
        raise RemoteFailure("unreachable", text) from error
