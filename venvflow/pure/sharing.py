"""Decides which files are linked to the store or copied, how a file becomes an object, and its mtime."""

from __future__ import annotations

import re
from typing import Literal

from venvflow.model import Entry, LinkMode, Receipt, VenvSpec

EARLIEST = 315_619_200
"""1980-01-02 UTC in seconds since 1970: from then on a zip can hold a time in every zone."""

_MOMENTS = 694_224_000
"""Even seconds from then to 2024-01-01 UTC: a zip holds no odd ones, and nobody shall think it is to come."""


def mtime_of(digest: str) -> int:
    """Return the time in seconds since 1970 that a file with this SHA-256 (in hex) carries.

    The same bytes have the same time everywhere, so bytecode that records it stays valid; other bytes have
    another, so what compares path, size and time sees an upgrade.
    """
    return EARLIEST + int(digest[:16], 16) % _MOMENTS * 2


def mtime_ns_of(digest: str) -> int:
    """Return the same in nanoseconds, as file systems have it."""
    return mtime_of(digest) * 1_000_000_000


def is_written(entry: Entry) -> bool:
    """Return whether a file is one that is written for each venv, as installers do it: scripts, RECORD.

    No other venv has its bytes, and nothing but make and people look at its time: so it has the time at which
    it was written. Not sources: bytecode records theirs.
    """
    written = entry.kind == "template" or (entry.kind == "file" and entry.path.endswith(".dist-info/RECORD"))
    return written and not entry.path.endswith(".py")


def time_of(entry: Entry, written: int) -> int:
    """Return the mtime in nanoseconds of a venv's own file; *written*: of those written for it.

    Without that, it is that of its content.
    """
    return written if written and is_written(entry) else mtime_ns_of(entry.digest)


def is_moment(mtime_ns: int) -> bool:
    """Return whether a time in nanoseconds may be one that :func:`mtime_of` gives."""
    seconds, rest = divmod(mtime_ns, 1_000_000_000)
    return not rest and seconds in range(EARLIEST, EARLIEST + 2 * _MOMENTS, 2)


_PRIVATE_ENDS = (
    ".pth", ".egg-link", ".dist-info/RECORD",
    ".db", ".sqlite", ".sqlite3", ".db-wal", ".db-shm", ".db-journal",
)  # fmt: skip
"""How files end that are changed in place: by installers, by what uses databases."""


def _is_changed_in_place(path: str) -> bool:
    """Return whether somebody is likely to write into it; asked for every file, so not by a pattern."""
    return path.endswith(_PRIVATE_ENDS) or path == "pyvenv.cfg" or path.startswith("bin/activate")


_TAKEN_OUT = re.compile(
    r"""(?x)
    / (?: (?: \.?templates | (?: project | app )_templates? | skeletons? | scaffolds? | boilerplates?
            | starter[_-] (?: project | kit | template )s? | \{\{ [^/]* \}\} [^/]* )
        | (?: zensical/bootstrap | jupyterlab/staging | ipykernel/resources )
        | nltk_ (?: cache | data )
      ) /
    """
)
"""What packages copy to users with its mode: ``alembic init``, ``pdm init``, ``zensical new``, cookiecutter
and others would leave files that nobody can save. And what a program refuses to read by a second name: nltk
its data. It begins with a slash, which the library looks for quickly: every file is asked.
"""

_KERNELS = "share/jupyter/kernels/"
"""What ``jupyter kernelspec install`` copies."""


def _is_taken_out(path: str) -> bool:
    is_copied = path.startswith(_KERNELS) or _TAKEN_OUT.search(path) is not None
    return is_copied and not path.endswith(".pyc")


def settings_of(spec: VenvSpec) -> str:
    """Return how a venv is shared, in one line: one that was shared in another way is shared anew."""
    patterns = " ".join(map(ascii, spec.exclude)), " ".join(map(ascii, spec.private))
    return "; ".join((",".join(spec.link), str(spec.min_size), spec.bytecode, *patterns))


def is_resettled(receipt: Receipt | None, spec: VenvSpec) -> bool:
    """Return whether a venv is shared in another way than *spec* asks for by now."""
    return receipt is not None and receipt.state == "shared" and receipt.settings != settings_of(spec)


def stays_private(entry: Entry, min_size: int, *, adopted: bool = False) -> bool:
    """Return whether a file or template is never shared by link, but copied for each venv.

    *min_size* is in bytes. Empty files have nothing to share, and sharing their inode would only make
    one venv's mistake another's. *adopted*: its object keeps a mtime of somebody else's, as it may when
    another file, a ``.pyi`` say, has the same bytes; a source then needs a copy with ours.
    """
    if adopted and entry.path.endswith(".py"):
        return True
    if entry.size < max(min_size, 1) or entry.kind == "template":
        return True
    return _is_changed_in_place(entry.path) or _is_taken_out(entry.path)


# --------------------------------------------------------------------------- what is nobody else's

LARGEST_SECRET = 1 << 16
"""Bytes of the largest file that is searched for a key."""

_CREDENTIALS = {
    "pip.conf", "pip.ini", ".netrc", "_netrc", ".pypirc", ".git-credentials", ".npmrc", ".env", ".htpasswd",
    "auth.toml", "credentials.toml", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519",
}  # fmt: skip
"""How files are called in which programs look for passwords and tokens."""

_KEY = re.compile(
    rb"^-----BEGIN (?:[A-Z0-9 ]+ )?PRIVATE KEY(?: BLOCK)?-----\s*$|^PuTTY-User-Key-File-", re.MULTILINE
)


def is_credential(path: str) -> bool:
    """Return whether a file is called like one that holds passwords or tokens."""
    return path.rpartition("/")[2] in _CREDENTIALS


def notes_urls(path: str) -> bool:
    """Return whether a file says where things came from: an installer's note, or a repository's own."""
    if path.endswith(".dist-info/direct_url.json"):
        return True
    _, git, name = path.rpartition("/.git/")
    return bool(git) and (name in ("config", "FETCH_HEAD") or name.startswith("logs/"))


def holds_key(data: bytes) -> bool:
    """Return whether a file holds a private key; certificates are none, whatever the file is called."""
    return _KEY.search(data) is not None


def readers_of(mode: int) -> int:
    """Return who besides its owner can read a file of that mode: bits for group and others."""
    return mode & 0o044


def visitors_of(mode: int) -> int:
    """Return who besides its owner can reach what is in a directory of that mode, in the bits of readers."""
    return (mode & 0o011) << 2


Intake = Literal["own", "adopt", "copy"]


def intake_of(path: str, links: int, *, built_here: bool, adopt: bool, mode: LinkMode) -> Intake:
    """Return how the file at *path*, with so many hard *links*, becomes an object that the store lacks.

    ``own``: the file itself, by another name, read-only and with our mtime: only if nobody else has it.
    ``adopt``: the file itself as it is, although somebody shares it (uv's cache). ``copy``: new bytes (a
    reflink where possible), the file is replaced by a link later.

    Sources are copied even where others may be adopted, because bytecode relies on their mtime being
    that of their content. *built_here*: even a venv of symlinks has files then that nobody can have opened.
    """
    if mode not in ("hardlink", "symlink"):
        return "copy"
    if links == 1:
        return "own" if built_here or mode == "hardlink" else "copy"
    return "adopt" if adopt and mode == "hardlink" and not path.endswith(".py") else "copy"
