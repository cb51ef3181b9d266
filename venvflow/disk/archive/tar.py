"""Tar headers: written by hand, because most of the time of a fast archiver goes there, and read strictly.

What is written is POSIX ustar where a name fits, with a PAX header before it where it does not: long
names, names that are not ASCII (in UTF-8, or marked as raw bytes where they are not UTF-8 either), files
of 8 GiB and more. There are no global headers, so a piece of an archive means the same wherever it stands.
"""

from __future__ import annotations

from typing import NamedTuple

from venvflow.disk.archive.formats import Malformed
from venvflow.pure.sharing import EARLIEST

BLOCK = 512
END = bytes(2 * BLOCK)
"""What ends a tar: two blocks of zeros."""

FILE, LINK, DIRECTORY, PAX = b"0", b"2", b"5", b"x"

_NAME, _LINK, _PREFIX = 100, 100, 155
_LARGEST = 1 << 33  # eleven octal digits
_LARGEST_PAX = 1 << 16
_NOBODY = b"0000000\0"
_MODES = {True: b"0000755\0", False: b"0000644\0"}
_LINK_MODE = b"0000777\0"
_OWNER = b"ustar\x0000" + bytes(64) + _NOBODY * 2
_SUM_OF_THE_REST = sum(_OWNER + _NOBODY * 2) + 8 * 0x20


# --------------------------------------------------------------------------- writing


def file_header(name: str, size: int, *, executable: bool, mtime: int = EARLIEST) -> bytes:
    """Return what stands before the *size* bytes of a file; *mtime* in seconds since 1970."""
    return _member(name, FILE, _MODES[executable], size, mtime=mtime)


def directory_header(name: str, *, mtime: int = EARLIEST) -> bytes:
    """Return the entry of a directory."""
    return _member(name + "/", DIRECTORY, _MODES[True], mtime=mtime)


def link_header(name: str, target: str, *, mtime: int = EARLIEST) -> bytes:
    """Return the entry of a symlink."""
    return _member(name, LINK, _LINK_MODE, target=target, mtime=mtime)


def padding(size: int) -> int:
    """Return how many zero bytes follow *size* bytes of content."""
    return -size % BLOCK


def _member(
    name: str, kind: bytes, mode: bytes, size: int = 0, target: str = "", *, mtime: int = EARLIEST
) -> bytes:
    raw, link = _encode(name), _encode(target)
    if raw.isascii() and link.isascii() and len(link) <= _LINK and size < _LARGEST:
        if len(raw) <= _NAME:
            return _block(raw, kind, mode, size, link=link, mtime=mtime)
        cut = raw.find(b"/", len(raw) - _NAME - 1, -1)
        if 0 < cut <= _PREFIX:
            return _block(raw[cut + 1 :], kind, mode, size, prefix=raw[:cut], link=link, mtime=mtime)
    shown_size = size if size < _LARGEST else 0
    block = _block(_plain(raw), kind, mode, shown_size, link=_plain(link), mtime=mtime)
    return _pax(raw, link, size) + block


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _plain(raw: bytes) -> bytes:
    """Return what a reader that knows no PAX headers gets to see of a name."""
    return bytes(byte if byte < 0x80 else 0x3F for byte in raw[:_NAME])


def _block(
    name: bytes,
    kind: bytes,
    mode: bytes,
    size: int,
    *,
    prefix: bytes = b"",
    link: bytes = b"",
    mtime: int = EARLIEST,
) -> bytes:
    time = b"%011o\0" % min(max(mtime, 0), _LARGEST - 1)
    digits = b"%011o" % size
    # Summing up what differs, not all 512 bytes, makes a header in half the time.
    checksum = _SUM_OF_THE_REST + sum(b"".join((name, mode, digits, time, kind, link, prefix)))
    return b"%b%b%b%b%b\0%b%06o\0 %b%b%b%b" % (
        name.ljust(_NAME, b"\0"),
        mode,
        _NOBODY,
        _NOBODY,
        digits,
        time,
        checksum,
        kind,
        link.ljust(_LINK, b"\0"),
        _OWNER,
        prefix.ljust(_PREFIX + 12, b"\0"),
    )


def _pax(name: bytes, link: bytes, size: int) -> bytes:
    records = []
    if not (_is_utf8(name) and _is_utf8(link)):
        records.append(_record(b"hdrcharset", b"BINARY"))
    if link:
        records.append(_record(b"linkpath", link))
    records.append(_record(b"path", name))
    if size >= _LARGEST:
        records.append(_record(b"size", b"%d" % size))
    data = b"".join(records)
    header = _block(b"PaxHeader", PAX, _MODES[False], len(data))
    return header + data + bytes(padding(len(data)))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _record(key: bytes, value: bytes) -> bytes:
    """Return ``<length> key=value`` and a line break, where the length counts its own digits too."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


# --------------------------------------------------------------------------- reading


class Header(NamedTuple):
    """One header as it was read; *name* and *target* are bytes, *mode* all bits, *mtime* in seconds."""

    name: bytes
    kind: bytes
    mode: int
    size: int
    target: bytes
    mtime: int


def parse_header(block: bytes) -> Header:
    """Return what the 512 bytes of *block* say; raises :class:`Malformed` if they are not a header."""
    if sum(block) - sum(block[148:156]) + 8 * 0x20 != _octal(block[148:156]):
        raise Malformed("a header's checksum is wrong")
    if block[257:262] != b"ustar":
        raise Malformed("it is not a POSIX tar")
    name, prefix = _text(block[:100]), _text(block[345:500]) if block[257:263] == b"ustar\0" else b""
    whole = prefix + b"/" + name if prefix else name
    kind = block[156:157] if block[156] else FILE
    mode, size, mtime = _octal(block[100:108]), _octal(block[124:136]), _octal(block[136:148])
    return Header(whole, kind, mode, size, _text(block[157:257]), mtime)


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.translate(None, _DIGITS):
        raise Malformed("a number in a header is not octal")
    return int(digits, 8)


_DIGITS = b"01234567"


def check_pax_size(size: int) -> None:
    """Raise :class:`Malformed` if a PAX header of *size* bytes is larger than names can make it."""
    if size > _LARGEST_PAX:
        raise Malformed(f"a PAX header of {size} bytes")


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Return the records of a PAX header that change what an entry is; times and owners mean nothing here.

    Raises :class:`Malformed` for anything else, sparse files among it: the same archive must not mean
    different things to different readers.
    """
    records: dict[bytes, bytes] = {}
    while data:
        digits, _, rest = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 7 else 0
        record = data[len(digits) + 1 : length]
        key, equals, value = record.partition(b"=")
        if not rest or length > len(data) or not equals or not record.endswith(b"\n"):
            raise Malformed("a PAX header cannot be read")
        if key in (b"path", b"linkpath", b"size"):
            records[key] = value[:-1]
        elif key not in _HARMLESS:
            raise Malformed(f"an unknown PAX record {key.decode('ascii', 'backslashreplace')!r}")
        data = data[length:]
    return records


_HARMLESS = frozenset(b"hdrcharset mtime atime ctime uid gid uname gname comment".split())


def with_pax(header: Header, records: dict[bytes, bytes]) -> Header:
    """Return *header* as the PAX records before it say that it is."""
    size = records.get(b"size")
    if size is not None and not (size.isdigit() and len(size) < 20):
        raise Malformed("a PAX size is not a number")
    return header._replace(
        name=records.get(b"path", header.name),
        target=records.get(b"linkpath", header.target),
        size=header.size if size is None else int(size),
    )
