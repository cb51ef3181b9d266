"""Zip records, written and read by hand: the same bytes from every Python, and nothing believed when read.

Names are UTF-8 and marked so. Times are in UTC and given once more, as seconds since 1970, in an extra
field, so no time zone has a say. Sizes stand before the content, never behind it. Records grow
to zip64 where, and only where, a number needs it.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timezone
from typing import NamedTuple

from venvflow.disk.archive.formats import Malformed, Raw
from venvflow.pure.sharing import EARLIEST

STORED, DEFLATED = 0, 8

_LOCAL = struct.Struct("<4sHHHHHLLLHH")
_CENTRAL = struct.Struct("<4sHHHHHHLLLHHHHHLL")
_END = struct.Struct("<4sHHHHLLH")
_END64 = struct.Struct("<4sQHHLLQQQQ")
_LOCATOR = struct.Struct("<4sLQL")
_UTF8 = 0x800
_ENCRYPTED = 0x1 | 0x40
_UNIX = 3 << 8
_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF
_LATEST = (1 << 31) - 1  # in seconds since 1970: what the extra field can hold, in the year 2038
_LARGEST_COMMENT = 0xFFFF


class Record(NamedTuple):
    """What a zip says of one member: *name* ends with a slash for a directory, *mode* is that of ``stat``."""

    name: bytes
    mode: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int = 0
    mtime: int = EARLIEST


# --------------------------------------------------------------------------- writing


def local_header(record: Record) -> bytes:
    """Return what stands before the content of *record*."""
    large = record.packed >= _MAX32 or record.size >= _MAX32
    extra = struct.pack("<HHQQ", 1, 16, record.size, record.packed) if large else b""
    extra += _timestamp(record.mtime)
    sizes = (_MAX32, _MAX32) if large else (record.packed, record.size)
    version = 45 if large else 20
    head = _LOCAL.pack(
        b"PK\3\4",
        version,
        _UTF8,
        record.method,
        *_dos_time(record.mtime),
        record.crc,
        *sizes,
        len(record.name),
        len(extra),
    )
    return head + record.name + extra


def directory_record(record: Record) -> bytes:
    """Return the line of the central directory for *record*."""
    numbers = (record.size, record.packed, record.offset)
    beyond = [number for number in numbers if number >= _MAX32]
    extra = struct.pack(f"<HH{len(beyond)}Q", 1, 8 * len(beyond), *beyond) if beyond else b""
    extra += _timestamp(record.mtime)
    size, packed, offset = (min(number, _MAX32) for number in numbers)
    version = 45 if beyond else 20
    attributes = record.mode << 16 | (0x10 if stat.S_ISDIR(record.mode) else 0)
    head = _CENTRAL.pack(
        b"PK\1\2",
        _UNIX | version,
        version,
        _UTF8,
        record.method,
        *_dos_time(record.mtime),
        record.crc,
        packed,
        size,
        len(record.name),
        len(extra),
        *(0, 0, 0, attributes, offset),
    )
    return head + record.name + extra


def _moment(mtime: int) -> int:
    """Return *mtime*, or the nearest moment that a zip can hold."""
    return min(max(mtime, EARLIEST), _LATEST)


def _timestamp(mtime: int) -> bytes:
    return struct.pack("<HHBl", 0x5455, 5, 1, _moment(mtime))


def _dos_time(mtime: int) -> tuple[int, int]:
    """Return time of day and date in UTC, to two seconds."""
    year, month, day, hour, minute, second = time.gmtime(_moment(mtime))[:6]
    return hour << 11 | minute << 5 | second >> 1, (year - 1980) << 9 | month << 5 | day


def _seconds(clock: int, date: int) -> int:
    """Return the moment that :func:`_dos_time` spells; the earliest for what spells none."""
    day = 1980 + (date >> 9), date >> 5 & 15, date & 31
    with suppress(ValueError):
        moment = datetime(*day, clock >> 11, clock >> 5 & 63, (clock & 31) * 2, tzinfo=timezone.utc)
        return int(moment.timestamp())
    return EARLIEST


def end_records(count: int, size: int, offset: int) -> bytes:
    """Return what ends a zip whose directory has *count* lines, *size* bytes, and starts at *offset*."""
    end = _END.pack(
        b"PK\5\6", 0, 0, min(count, _MAX16), min(count, _MAX16), min(size, _MAX32), min(offset, _MAX32), 0
    )
    if count < _MAX16 and size < _MAX32 and offset < _MAX32:
        return end
    end64 = _END64.pack(b"PK\6\6", 44, _UNIX | 45, 45, 0, 0, count, count, size, offset)
    return end64 + _LOCATOR.pack(b"PK\6\7", 0, offset + size, 1) + end


# --------------------------------------------------------------------------- reading


def read_directory(file: Raw, most: int) -> Iterator[Record]:
    """Yield the records of the zip *file*, at most *most*; raises :class:`Malformed`.

    One is read at a time, so a directory of a million lines costs no memory.
    """
    count, offset = _find_end(file)
    if count > most:
        raise Malformed(f"it has {count} entries, more than the {most} that are allowed")
    file.seek(offset)
    for _ in range(count):
        record, comment = _read_record(file)
        following = file.tell() + comment
        yield record
        file.seek(following)  # content is read between two records


def _find_end(file: Raw) -> tuple[int, int]:
    """Return how many records the central directory has, and where it starts."""
    length = file.seek(0, os.SEEK_END)
    start = max(0, length - _END.size - _LARGEST_COMMENT)
    file.seek(start)
    data = file.read()
    at = data.rfind(b"PK\5\6")
    if at < 0 or len(data) - at < _END.size:
        raise Malformed("it has no end record: it is not a zip, or was cut off")
    _, _, _, _, count, _, offset, _ = _END.unpack_from(data, at)
    if count == _MAX16 or offset == _MAX32:
        return _read_end64(file, start + at - _LOCATOR.size)
    return count, offset


def _read_end64(file: Raw, at: int) -> tuple[int, int]:
    file.seek(max(0, at))
    magic, _, offset, _ = _LOCATOR.unpack(_exactly(file, _LOCATOR.size))
    if magic != b"PK\6\7":
        raise Malformed("its zip64 end record is missing")
    _seek(file, offset)
    magic, _, _, _, _, _, _, count, _, start = _END64.unpack(_exactly(file, _END64.size))
    if magic != b"PK\6\6":
        raise Malformed("its zip64 end record is damaged")
    return count, start


def _read_record(file: Raw) -> tuple[Record, int]:
    """Return a record, and how many bytes of a comment come before the next one."""
    magic, made_by, _, flags, method, clock, date, crc, packed, size, *rest = _CENTRAL.unpack(
        _exactly(file, _CENTRAL.size)
    )
    name_length, extra_length, comment, _, _, attributes, offset = rest
    if magic != b"PK\1\2":
        raise Malformed("its directory is damaged")
    name, extra = _exactly(file, name_length), _exactly(file, extra_length)
    if flags & _ENCRYPTED:
        raise Malformed(f"{name!r} is encrypted")
    if method not in (STORED, DEFLATED):
        raise Malformed(f"{name!r} is compressed by unknown method {method}")
    if not flags & _UTF8 and not name.isascii():
        raise Malformed(f"{name!r} is in an unknown encoding")
    size, packed, offset = _widened(extra, (size, packed, offset))
    mode = attributes >> 16 if made_by >> 8 == 3 else 0
    usual = stat.S_IFDIR | 0o755 if name.endswith(b"/") else stat.S_IFREG | 0o644
    mtime = _seconds(clock, date)
    return Record(name, mode or usual, method, crc, packed, size, offset, mtime), comment


def _widened(extra: bytes, numbers: tuple[int, int, int]) -> Iterator[int]:
    """Return size, packed size and offset, taken from the zip64 field where they did not fit."""
    wide = iter(_zip64_numbers(extra))
    try:
        return iter([next(wide) if number == _MAX32 else number for number in numbers])
    except StopIteration:
        raise Malformed("a zip64 field is missing") from None


def _zip64_numbers(extra: bytes) -> tuple[int, ...]:
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == 1:
            body = extra[4 : 4 + length]
            return struct.unpack(f"<{len(body) // 8}Q", body[: len(body) // 8 * 8])
        extra = extra[4 + length :]
    return ()


def seek_content(file: Raw, record: Record) -> None:
    """Move to the content of *record*; raises :class:`Malformed` if its header is not before it."""
    _seek(file, record.offset)
    magic, *_, name_length, extra_length = _LOCAL.unpack(_exactly(file, _LOCAL.size))
    if magic != b"PK\3\4" or _exactly(file, name_length) != record.name:
        raise Malformed(f"{record.name!r} has another name where its content is")
    _exactly(file, extra_length)


def _seek(file: Raw, offset: int) -> None:
    if offset >= 1 << 63:
        raise Malformed("an offset is beyond the end")
    file.seek(offset)


def _exactly(file: Raw, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise Malformed("it was cut off")
    return data
