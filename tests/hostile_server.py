"""A server on loopback that does to its clients what servers do on bad days."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate

_PARTIAL = b"HTTP/1.1 206 Partial Content\r\nLast-Modified: Mon, 02 Nov 2026 10:00:00 GMT\r\n"


def _status(line: bytes) -> Callable[[socket.socket, bytes], None]:
    def answer(client: socket.socket, _request: bytes) -> None:
        client.sendall(b"HTTP/1.1 " + line + b"\r\nContent-Length: 0\r\n\r\n")

    return answer


def _slow_clock(client: socket.socket, _request: bytes) -> None:
    """Refuse everything, as S3 does to clients whose clock is wrong."""
    date = formatdate(time.time() - 3600, usegmt=True).encode()
    client.sendall(b"HTTP/1.1 403 Forbidden\r\nDate: " + date + b"\r\nContent-Length: 0\r\n\r\n")


def _silent(client: socket.socket, _request: bytes) -> None:
    with suppress(OSError):
        client.recv(1)


def _trickle(client: socket.socket, _request: bytes) -> None:
    """One byte, and then nothing for longer than anybody waits."""
    client.sendall(_PARTIAL + b"Content-Range: bytes 0-999999/1000000\r\nContent-Length: 1000000\r\n\r\n{")
    with suppress(OSError):
        client.recv(1)


def _slow(client: socket.socket, _request: bytes) -> None:
    """Fifty bytes every 20 ms, for a second."""
    client.sendall(_PARTIAL + b"Content-Range: bytes 0-2499/2500\r\nContent-Length: 2500\r\n\r\n")
    for _ in range(50):
        client.sendall(b"x" * 50)
        time.sleep(0.02)


def _reset(client: socket.socket, _request: bytes) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def _html(client: socket.socket, _request: bytes) -> None:
    page = b"<html>Sign in</html>"
    head = b"Content-Range: bytes 0-%d/%d\r\nContent-Length: %d\r\n\r\n" % (
        len(page) - 1,
        len(page),
        len(page),
    )
    client.sendall(_PARTIAL + head + page)


def _redirect(client: socket.socket, request: bytes) -> None:
    path = request.split(b" ")[1]
    client.sendall(b"HTTP/1.1 302 Found\r\nLocation: " + path + b"x\r\nContent-Length: 0\r\n\r\n")


def _whole(client: socket.socket, _request: bytes) -> None:
    """Does not care for which part it is asked."""
    client.sendall(_PARTIAL.replace(b"206 Partial Content", b"200 OK") + b"Content-Length: 2\r\n\r\n{}")


def _another_range(client: socket.socket, _request: bytes) -> None:
    client.sendall(_PARTIAL + b"Content-Range: bytes 7-8/9\r\nContent-Length: 2\r\n\r\n{}")


def _compressed(client: socket.socket, _request: bytes) -> None:
    page = gzip.compress(b"{}")
    head = b"Content-Encoding: gzip\r\nContent-Range: bytes 0-%d/%d\r\nContent-Length: %d\r\n\r\n"
    client.sendall(_PARTIAL + head % (len(page) - 1, len(page), len(page)) + page)


def _unending(client: socket.socket, _request: bytes) -> None:
    """Sends pieces for ever, and names no length."""
    client.sendall(_PARTIAL + b"Content-Range: bytes 0-1048576/1048577\r\nTransfer-Encoding: chunked\r\n\r\n")
    with suppress(OSError):
        while True:
            client.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")


def _talkative(client: socket.socket, _request: bytes) -> None:
    """Sends megabytes of headers."""
    client.sendall(b"HTTP/1.1 206 Partial Content\r\n")
    with suppress(OSError):
        for number in range(20_000):
            client.sendall(b"X-%d: %s\r\n" % (number, b"y" * 1000))


def _deep(client: socket.socket, _request: bytes) -> None:
    """JSON that goes deeper than any parser."""
    page = b"[" * 200_000
    head = b"Content-Range: bytes 0-%d/%d\r\nContent-Length: %d\r\n\r\n"
    client.sendall(_PARTIAL + head % (len(page) - 1, len(page), len(page)) + page)


def _truncated(client: socket.socket, _request: bytes) -> None:
    client.sendall(_PARTIAL + b"Content-Range: bytes 0-999/1000\r\nContent-Length: 1000\r\n\r\n{}")


def _endless(client: socket.socket, _request: bytes) -> None:
    """Says that a record has terabytes."""
    client.sendall(
        _PARTIAL + b"Content-Range: bytes 0-1048576/9999999999999\r\nContent-Length: 1048577\r\n\r\n"
    )
    with suppress(OSError):
        client.sendall(b"x" * 1048577)


_BEHAVIOURS = {
    "403": _status(b"403 Forbidden"),
    "another clock": _slow_clock,
    "500": _status(b"500 Internal Server Error"),
    "503": _status(b"503 Slow Down"),
    "silent": _silent,
    "trickle": _trickle,
    "slow": _slow,
    "reset": _reset,
    "html": _html,
    "redirect": _redirect,
    "truncated": _truncated,
    "endless": _endless,
    "closed": lambda _client, _request: None,
    "whole": _whole,
    "another range": _another_range,
    "compressed": _compressed,
    "unending": _unending,
    "talkative": _talkative,
    "deep": _deep,
    "404": _status(b"404 Not Found"),
    "204": _status(b"204 No Content"),
    "304": _status(b"304 Not Modified"),
    "401": _status(b"401 Unauthorized"),
    "busy for a day": _status(b"429 Too Many Requests\r\nRetry-After: 86400"),
}


@contextmanager
def serving(how: str, certificate: str = "") -> Iterator[str]:
    """Give the URL of a server that behaves so for the length of a ``with`` block.

    *certificate* is a file with that and its secret key: then it speaks TLS.
    """
    answer = _BEHAVIOURS[how]
    server = socket.create_server(("127.0.0.1", 0))
    open_clients: list[socket.socket] = []

    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate:
        secure.load_cert_chain(certificate)

    def serve(client: socket.socket) -> None:
        with (
            suppress(OSError),
            secure.wrap_socket(client, server_side=True) if certificate else client as way,
        ):
            request = b""
            while b"\r\n\r\n" not in request:
                chunk = way.recv(1 << 16)
                if not chunk:
                    return
                request += chunk
            answer(way, request)
            way.shutdown(socket.SHUT_WR)
            time.sleep(0.01)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                open_clients.append(client)
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.getsockname()[1]}"
    finally:
        with suppress(OSError):  # else the thread goes on, and may take a client of who gets the number
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        for client in open_clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
