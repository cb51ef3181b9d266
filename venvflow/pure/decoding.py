"""Decodes the bytes of small files into values, and checks every one of them.

Each record of ours is decoded in one place, beside its type, and says there by the words below what each of
its fields may be. Whatever does not fit is :class:`Corrupt`: no other exception comes out
of a decoder, and nothing of a record is used before all of it fits. A decoder is a function from what JSON
spells to a value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

MOST_VALUES = 4 << 20
"""Values in the largest record: each takes some 50 bytes of memory or more, however short it is written."""

LARGEST_COUNT = (1 << 63) - 1
"""The largest number of bytes or things: what SQLite and the kernel can hold."""

LARGEST_TIME = LARGEST_COUNT * 1_000_000_000
"""The latest time in nanoseconds that a ``stat`` can answer, and the earliest with a minus before it."""

MOMENTS = (-62_135_596_800, 253_402_300_799)
"""The first and the last second, counted from 1970, that have a date in our calendar."""

T = TypeVar("T")
K = TypeVar("K")

Decoder = Callable[[Any], T]


class Corrupt(ValueError):
    """Bytes that are not the record that they should be, or that may not be trusted; the text says why."""


def parse(data: bytes) -> Any:
    """Return what *data* spells as JSON.

    Raises :class:`Corrupt` for what is not JSON, is nested too deep or has more values than a record of ours.
    """
    # A value takes a byte at least: nothing needs to be counted in short ones, which are most.
    if len(data) > MOST_VALUES and sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise Corrupt("it has too many values")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"it is not JSON of ours ({error})") from error


def fields(value: object, **decoders: Decoder[Any]) -> dict[str, Any]:
    """Return the fields of a JSON object, each decoded by its own decoder; it has these and no others."""
    if type(value) is not dict:
        raise unlike(value, "a record")
    if value.keys() != decoders.keys():
        odd = ", ".join(sorted(map(repr, value.keys() ^ decoders.keys()))[:5])
        raise Corrupt(f"it lacks fields, or has others: {odd:.200}")
    found = {}
    for name, decode in decoders.items():
        try:
            found[name] = decode(value[name])
        except Corrupt as error:
            raise Corrupt(f"{name}: {error}") from error
    return found


def unlike(value: object, what: str) -> Corrupt:
    """Return the error for a value that is not *what* it should be; of what is large, the kind is named."""
    said = f"{value!r:.60}" if isinstance(value, (str, int, float)) else type(value).__name__
    return Corrupt(f"{said} is not {what}")


# --------------------------------------------------------------------------- single values


def text(value: object) -> str:
    """Return a text that a file system can hold: without NUL, and surrogates only where bytes are escaped."""
    if not isinstance(value, str) or "\0" in value:
        raise unlike(value, "a text")
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise unlike(value, "a text") from error
    return value


_NO_TEXT = "[\0\ud800-\udc7f\udd00-\udfff]"


def storable(value: str) -> str:
    """Return somebody else's words as :func:`text` takes them, so that what quotes them can be read."""
    return re.sub(_NO_TEXT, "\N{REPLACEMENT CHARACTER}", value)


def anything(value: T) -> T:
    """Return a value as it is: its decoder has rules of its own."""
    return value


def flag(value: object) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        raise unlike(value, "true or false")
    return value


def integer(lowest: int, highest: int) -> Decoder[int]:
    """Return what decodes whole numbers between two others, both allowed."""

    def decode(value: object) -> int:
        if type(value) is not int or not lowest <= value <= highest:
            raise unlike(value, "a number that can be here")
        return value

    return decode


count = integer(0, LARGEST_COUNT)
"""Decodes a number of bytes or things."""

inode = integer(0, (1 << 64) - 1)
"""Decodes the number of an inode."""

mtime = integer(-LARGEST_TIME, LARGEST_TIME)
"""Decodes a time in nanoseconds as ``stat`` has it."""


def moment(value: object) -> float:
    """Return a time in seconds since 1970 that has a date."""
    if not isinstance(value, (int, float)) or type(value) is bool or not MOMENTS[0] <= value <= MOMENTS[1]:
        raise unlike(value, "a time")
    return float(value)


def duration(value: object) -> float:
    """Return a number of seconds that something took."""
    if not isinstance(value, (int, float)) or type(value) is bool or not 0 <= value <= MOMENTS[1]:
        raise unlike(value, "a duration")
    return float(value)


def one_of(*words: str) -> Decoder[Any]:
    """Return what decodes one of these words."""

    def decode(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise unlike(value, f"one of {', '.join(map(repr, words))}")
        return value

    return decode


def optional(decode: Decoder[T]) -> Decoder[T | None]:
    """Return what decodes ``null`` as None, and all else as *decode* does."""
    return lambda value: None if value is None else decode(value)


def or_nothing(decode: Decoder[str]) -> Decoder[str]:
    """Return what takes an empty text as it is, and all else as *decode* does."""
    return lambda value: "" if value == "" else decode(value)


_SHA256 = re.compile(r"[0-9a-f]{64}")


def digest(value: object) -> str:
    """Return a SHA-256 in hex: the only kind of name that ever becomes part of a path in the store."""
    if not isinstance(value, str) or _SHA256.fullmatch(value) is None:  # as is_digest, without a call
        raise unlike(value, "a SHA-256")
    return value


def is_digest(value: object) -> bool:
    """Return whether a value is what :func:`digest` takes."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def path(value: object) -> str:
    """Return a path below some root: neither absolute nor empty, and no name in it climbs or is ``.``."""
    check_paths((text(value),))
    return text(value)


def absolute(value: object) -> str:
    """Return an absolute path."""
    found = text(value)
    if not found.startswith("/"):
        raise unlike(value, "an absolute path")
    return found


# --------------------------------------------------------------------------- many values


def listed(decode: Decoder[T]) -> Decoder[tuple[T, ...]]:
    """Return what decodes a list whose items *decode* takes."""

    def decode_list(value: object) -> tuple[T, ...]:
        if type(value) is not list:
            raise unlike(value, "a list")
        return tuple(map(decode, value))

    return decode_list


def row(*decoders: Decoder[Any]) -> Decoder[tuple[Any, ...]]:
    """Return what decodes a list that has an item for each of *decoders*, and no more."""

    def decode(value: object) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(decoders):
            raise unlike(value, f"a list of {len(decoders)}")
        return tuple(each(item) for each, item in zip(decoders, value, strict=True))

    return decode


def mapped(decode_name: Decoder[K], decode: Decoder[T]) -> Decoder[dict[K, T]]:
    """Return what decodes a JSON object whose names *decode_name* takes, and whose values *decode* does."""

    def decode_map(value: object) -> dict[K, T]:
        if type(value) is not dict:
            raise unlike(value, "a map")
        return {decode_name(name): decode(each) for name, each in value.items()}

    return decode_map


texts = mapped(text, text)
"""Decodes a map from texts to texts."""


def check_paths(paths: Collection[str]) -> None:
    """Raise :class:`Corrupt` unless all of *paths* are as :func:`path` wants them.

    All at once: notes of large venvs, which every run reads, have them by the ten thousand.
    """
    try:
        # Each path between slashes, a NUL between paths: so that what is wrong with one shows in all.
        names = "/" + "/\0/".join(paths) + "/"
        if not names.isascii():
            names.encode("utf-8", "surrogateescape")
    except (TypeError, UnicodeEncodeError) as error:
        raise Corrupt("a path is not a text that a file system can hold") from error
    if names.count("\0") != max(len(paths) - 1, 0):
        raise Corrupt("a path has a NUL in it")
    hidden = "/." in names and ("/./" in names or "/../" in names)  # few paths have such names at all
    if paths and (hidden or "//" in names):
        raise Corrupt("a path is absolute or empty, or has a name in it that leads elsewhere")


def check_digests(values: Collection[str]) -> None:
    """Raise :class:`Corrupt` unless all of *values*, checked at once, are as :func:`digest` wants them."""
    try:
        joined = "".join(values)
        length = len(bytes.fromhex(joined))
    except (TypeError, ValueError) as error:
        raise Corrupt("a name is not a SHA-256") from error
    if length != 32 * len(values) or set(map(len, values)) - {64} or joined != joined.lower():
        raise Corrupt("a name is not a SHA-256")


def check_integers(values: Iterable[int], lowest: int, highest: int) -> None:
    """Raise :class:`Corrupt` unless all of *values* are whole numbers between two others, both allowed."""
    values = list(values)
    if set(map(type, values)) - {int} or (values and not lowest <= min(values) <= max(values) <= highest):
        raise Corrupt("a number cannot be here")
