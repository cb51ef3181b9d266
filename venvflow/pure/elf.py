"""What a program or library in ELF asks of others: the libraries that it needs, and where it looks."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"\x7fELF"

_LOADED, _DYNAMIC = 1, 2  # kinds of segments
_NEEDED, _STRINGS, _OLD_PATH, _PATH = 1, 5, 15, 29  # tags of the dynamic section


class Linked(NamedTuple):
    """The names of the *libraries* that a file needs, and the *directories* in which it looks first."""

    libraries: tuple[str, ...]
    directories: tuple[str, ...]


def linked(data: bytes) -> Linked:
    """Return what the ELF file *data* needs; nothing for a file that is linked with none, or is damaged."""
    try:
        return _linked(data)
    except (struct.error, ValueError, IndexError, OverflowError):
        return Linked((), ())


def _linked(data: bytes) -> Linked:
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    segments = [*_segments(data, wide=wide, order=order)]
    tags: list[tuple[int, int]] = []
    for kind, offset, _, size in segments:
        if kind == _DYNAMIC:
            pair = struct.Struct(f"{order}{'qQ' if wide else 'iI'}")
            tags += pair.iter_unpack(data[offset : offset + size - size % pair.size])
    strings = next((value for tag, value in tags if tag == _STRINGS), 0)
    start = next(
        (strings - address + offset for kind, offset, address, size in segments
         if kind == _LOADED and address <= strings < address + size),
        strings,
    )  # fmt: skip

    def named(wanted: int) -> Iterator[str]:
        for tag, value in tags:
            if tag == wanted:
                text = data[start + value : data.index(b"\0", start + value)]
                yield text.decode("utf-8", "surrogateescape")

    paths = [*named(_PATH)] or [*named(_OLD_PATH)]
    return Linked((*named(_NEEDED),), tuple(each for path in paths for each in path.split(":") if each))


def _segments(data: bytes, *, wide: bool, order: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield kind, offset, address and size in the file of each segment."""
    (start,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", data, 32 if wide else 28)
    length, count = struct.unpack_from(f"{order}HH", data, 54 if wide else 42)
    for number in range(count):
        at = start + number * length
        if wide:
            kind, _, offset, address, _, size = struct.unpack_from(f"{order}IIQQQQ", data, at)
        else:
            kind, offset, address, _, size = struct.unpack_from(f"{order}IIIII", data, at)
        yield kind, offset, address, size


_OF_EVERY_SYSTEM = re.compile(
    r"lib(?:c|m|dl|rt|util|nsl|resolv|pthread|crypt|anl)\.so\.[0-9]+"  # glibc
    r"|ld-linux[\w.-]*\.so\.[0-9]+|ld64\.so\.[0-9]+|linux-vdso\.so\.1"
    r"|libc\.musl-\w+\.so\.1|ld-musl-[\w.-]+\.so\.1|libgcc_s\.so\.1"
)


def is_of_every_system(library: str) -> bool:
    """Return whether each Linux with this libc has a *library* of that name: it comes with the libc."""
    return _OF_EVERY_SYSTEM.fullmatch(library) is not None
