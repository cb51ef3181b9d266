"""A package index on loopback, for tools that take packages from nowhere else (PEP 503)."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Serve the wheels in *directory* for the length of a ``with`` block; give the address of the index."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple"
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, directory: Path, *rest: object) -> None:
        self._directory = directory
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        wheels = {file.name: file for file in self._directory.glob("*.whl")}
        *_, kind, name = self.path.strip("/").split("/")
        asked = [file for file in wheels if re.sub(r"[-_.]+", "-", file.split("-")[0]).lower() == name]
        if kind == "files" and name in wheels:
            self._answer(wheels[name].read_bytes(), "application/octet-stream")
        elif kind == "simple" and asked:
            rows = (
                f'<a href="/files/{file}#sha256={_sha256(wheels[file])}">{file}</a><br>' for file in asked
            )
            self._answer(f"<!DOCTYPE html><html><body>{''.join(rows)}</body></html>".encode(), "text/html")
        else:
            self.send_error(404)

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - as the module wants it

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
