"""The archive formats: their names, how each compresses a block, how each reads a stream.

Every compressor here may be given the same input in any number of threads and writes the same bytes:
gzip, bzip2 and xz by compressing blocks of a fixed size on their own (readers take the concatenation as
one stream), zstd by always using its multi-threaded mode with the content's size
known beforehand. The
bytes still depend on the version of the compression library; it is part of a frame's name.
"""

from __future__ import annotations

import bz2
import lzma
import platform
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from venvflow.disk.zstandard import zstd, zstd_version
from venvflow.model import FORMATS

MIB = 1 << 20
CHUNK = MIB
"""Bytes that are handed on at a time. Fixed: what a compressor writes may depend on how it is fed."""
Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all, by one thread at a time."""


SHORT = {"tgz": "tar.gz", "tbz2": "tar.bz2", "txz": "tar.xz", "tzst": "tar.zst"}
"""Formats by the short names that files of theirs may end with, too."""


def named_format(path: str) -> str:
    """Return the format that a name ends with, or an empty text."""
    found = (SHORT.get(ending, ending) for ending in (*FORMATS, *SHORT) if path.endswith(f".{ending}"))
    return next(found, "")


def library_of(name: str) -> str:
    """Return in words what compresses the format *name*, on whose version the bytes of an archive depend."""
    if name == "tar.zst":
        return f"libzstd {zstd_version()}"
    if name in ("tar.gz", "zip"):
        return f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
    if name == "tar":
        return ""
    # Python does not tell the versions of liblzma and libbzip2, so we take its own.
    return f"{'liblzma' if name == 'tar.xz' else 'libbzip2'} of Python {platform.python_version()}"


# --------------------------------------------------------------------------- blocks


def block_compressor(name: str, level: int) -> Callable[[bytes], bytes]:
    """Return what compresses one block of the tar format *name*, a function of the block alone."""
    return {
        "tar": lambda block: block,
        "tar.gz": lambda block: _gzip(block, level),
        "tar.bz2": lambda block: bz2.compress(block, level),
        "tar.xz": lambda block: _xz(block, level),
    }[name]


def _gzip(block: bytes, level: int) -> bytes:
    """Return *block* as a gzip member without name, time or operating system."""
    header = b"\x1f\x8b\x08\0" + bytes(4) + b"\0\xff"
    compressor = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = compressor.compress(block) + compressor.flush()
    return header + data + struct.pack("<LL", zlib.crc32(block), len(block))


_XZ_WINDOW = 4 * MIB  # an encoder needs more than eleven times this, and two of them run at once


def _xz(block: bytes, level: int) -> bytes:
    # The window is never larger than the preset's own: 256 KiB at level 0, then 1, 2 and 4 MiB.
    window = min(_XZ_WINDOW, 256 << 10 if level == 0 else MIB << min(level - 1, 8))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": window}]
    return lzma.compress(block, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=filters)


# --------------------------------------------------------------------------- reading


class Raw(Protocol):
    """What readers of archives need of a file."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next *size* bytes, or all that are left."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move, and return where that is."""

    def tell(self) -> int:
        """Return where it is."""


class Malformed(ValueError):
    """Bytes that are not what their format demands, or what we would read; the text says how."""


_MAGIC = {
    b"\x28\xb5\x2f\xfd": "tar.zst",
    b"\xfd7zXZ\0": "tar.xz",
    b"\x1f\x8b": "tar.gz",
    b"BZh": "tar.bz2",
    b"PK": "zip",
}


def recognise(start: bytes) -> str:
    """Return the format of a file that starts with these bytes; ``tar`` if nothing else fits."""
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "tar")


_XZ_MEMORY = 256 * MIB
_ZSTD_WINDOW = 27  # log2 of bytes: what any zstd accepts without being told to


class _Decompressor(Protocol):
    """What the decompressors of bz2, lzma and zstd have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Inflater:
    """gzip members, in the shape of the other decompressors."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


def _decompressor(name: str) -> Callable[[], _Decompressor]:
    if name == "tar.zst":
        module = zstd()
        options = {module.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
        return lambda: module.ZstdDecompressor(options=options)
    if name == "tar.xz":
        return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    return bz2.BZ2Decompressor if name == "tar.bz2" else _Inflater


def decompressed(name: str, raw: Raw) -> Iterator[bytes]:
    """Yield what *raw* holds, a tar of the format *name*, in pieces of at most :data:`CHUNK` bytes.

    Raises :class:`Malformed` for damaged or truncated input. Memory is bounded, whatever the input.
    """
    if name == "tar":
        yield from iter(lambda: raw.read(CHUNK), b"")
        return
    make = _decompressor(name)
    failures: tuple[type[Exception], ...] = (lzma.LZMAError, zlib.error, EOFError, ValueError, OSError)
    if name == "tar.zst":
        failures += (zstd().ZstdError,)
    try:
        yield from _members(make, raw)
    except failures as error:
        raise Malformed(str(error)) from error


def _members(make: Callable[[], _Decompressor], raw: Raw) -> Iterator[bytes]:
    """Decompress one member after the other until the input ends."""
    data = raw.read(CHUNK)
    while data:
        member = make()
        while True:
            piece = member.decompress(data, CHUNK)
            if piece:
                yield piece
            if member.eof:
                break
            # A full piece may mean that more is waiting inside; otherwise the member wants more input.
            data = b"" if len(piece) == CHUNK else raw.read(CHUNK)
            if not data and not piece:
                raise EOFError("it ends in the middle")
        data = member.unused_data or raw.read(CHUNK)
