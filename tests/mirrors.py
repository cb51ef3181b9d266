"""A mirror on loopback: a directory by plain HTTP, with ranges, as web servers and CDNs give it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def mirror(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """Give the URL of a mirror for a ``with`` block, and the list of all that it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answer with a file, or a part of it."""
            asked.append(f"{self.command} {self.path}")
            file = directory / self.path.lstrip("/")
            if not file.is_file():
                self._answer(404, b"")
                return
            data = file.read_bytes()
            part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if part is None:
                self._answer(200, data)
                return
            first, last = int(part[1]), min(int(part[2]), len(data) - 1)
            self._answer(206, data[first : last + 1], f"bytes {first}-{last}/{len(data)}")

        do_HEAD = do_GET  # noqa: N815

        def _answer(self, status: int, body: bytes, what: str = "") -> None:
            self.send_response(status)
            self.send_header("Last-Modified", "Mon, 02 Nov 2026 10:00:00 GMT")
            self.send_header("Content-Length", str(len(body)))
            if what:
                self.send_header("Content-Range", what)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
