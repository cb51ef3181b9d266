"""What stands beside an archive: a description, and last of all the checksum that makes it current."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from typing import Any

from venvflow.disk.archive.formats import CHUNK
from venvflow.disk.archive.source import open_archive
from venvflow.disk.files import read_beginning, read_small, write_whole


def write_beside(path: str, document: dict[str, Any]) -> None:
    """Write what stands beside the archive *path*, which *document* describes, its ``sha256`` too.

    The checksum comes last: until then the archive is not current. Raises ``OSError``.
    """
    # A power cut may take the description from us. Then the archive is not current, and no harm is done.
    write_whole(path + ".json", (json.dumps(document, sort_keys=True, indent=1) + "\n").encode("ascii"))
    write_whole(path + ".sha256", _checksum_line(document["sha256"], os.path.basename(path)), sync=True)


def _checksum_line(digest: str, name: str) -> bytes:
    """Return a line that ``sha256sum -c`` understands, whatever the name."""
    raw = os.fsencode(name)
    escaped = raw.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != raw else b""
    return b"%b%b  %b\n" % (mark, digest.encode("ascii"), escaped)


def recorded_digest(archive: str) -> str | None:
    """Return the SHA-256 that the file beside *archive* says it has, or None if there is no such file.

    A file that says something else gives a text that is the SHA-256 of nothing; what is not a file is none.
    Raises ``OSError``.
    """
    try:
        return read_beginning(archive + ".sha256", 1024).lstrip(b"\\")[:64].decode("ascii", "replace")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return None
        raise


def is_current(path: str) -> bool:
    """Return whether the archive at *path* is whole: its bytes have the SHA-256 that stands beside it.

    Reads the whole archive; raises nothing for one that cannot be read.
    """
    try:
        expected = recorded_digest(path)
        described = json.loads(read_small(path + ".json", follow=True))["sha256"]
        return expected is not None and described == expected == digest_of_file(path)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def digest_of_file(path: str) -> str:
    """Return the SHA-256 of a file; raises ``OSError``."""
    hasher = hashlib.sha256()
    with open_archive(path) as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            hasher.update(chunk)
    return hasher.hexdigest()
