"""Sizes, durations and counts, as people write them in a config and read them in a report."""

from __future__ import annotations

import re

_DECIMAL = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
SIZE_UNITS = {"B": 1, **_BINARY, **_DECIMAL}
"""Bytes in each unit of size. Units are written exactly so: ``Mib`` and ``mb`` are typing errors."""

DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
"""Seconds in each unit of duration."""

LARGEST = (1 << 63) - 1
"""The largest size or duration accepted: what SQLite and the kernel can hold."""

# At most 19 digits: enough for LARGEST, and far below where Python refuses to convert.
_QUANTITY = re.compile(r"(?P<digits>[0-9]{1,19}) ?(?P<unit>[A-Za-z]*)")


def parse_size(value: str | int, *, zero: bool = False) -> int:
    """Return the number of bytes in *value*: ``20GiB``, ``4 KiB``, ``10MB``, ``512``.

    ``KiB`` … ``TiB`` count in steps of 1024, ``KB`` … ``TB`` in steps of 1000; no unit means bytes. Zero is
    accepted only with *zero*. Everything else is a ``ValueError`` whose text says what to write instead.
    """
    digits, unit = _split(value, "20GiB")
    if unit and unit not in SIZE_UNITS:
        raise ValueError(f"{value!r} has no known unit: {_size_help(digits, unit)}")
    return _bounded(value, int(digits) * SIZE_UNITS[unit or "B"], zero=zero)


def parse_duration(value: str | int) -> int:
    """Return the number of seconds in *value*: ``30s``, ``5m``, ``12h``, ``14d``, ``2w``.

    A number without a unit is refused, since it reads as seconds to one and as days to another, and so is
    zero. Everything wrong is a ``ValueError`` whose text says what to write instead.
    """
    digits, unit = _split(value, "14d")
    if unit not in DURATION_UNITS:
        raise ValueError(f"{value!r} has no {'known ' * bool(unit)}unit: {_duration_help(digits, unit)}")
    return _bounded(value, int(digits) * DURATION_UNITS[unit], zero=False)


def _split(value: str | int, example: str) -> tuple[str, str]:
    text = "" if isinstance(value, bool) else str(value)
    if match := _QUANTITY.fullmatch(text):
        return match["digits"], match["unit"]
    if text.startswith("-"):
        raise ValueError(f"{value!r} is negative")
    raise ValueError(f"{value!r} is not a whole number with a unit, such as {example}")


def _bounded(value: str | int, amount: int, *, zero: bool) -> int:
    if amount > LARGEST:
        raise ValueError(f"{value!r} is too large")
    if not amount and not zero:
        raise ValueError(f"{value!r} must be more than zero")
    return amount


def _size_help(digits: str, unit: str) -> str:
    spelled = [known for known in SIZE_UNITS if known.lower() == unit.lower()]
    letter = unit.upper()
    if not spelled and letter in {"K", "M", "G", "T"}:
        spelled = [f"{letter}iB", f"{letter}B"]
    if spelled:
        return "write " + " or ".join(digits + known for known in spelled)
    return "use one of " + ", ".join(SIZE_UNITS)


def _duration_help(digits: str, unit: str) -> str:
    for short, word in zip(DURATION_UNITS, ("seconds", "minutes", "hours", "days", "weeks"), strict=True):
        if unit and word.startswith(unit.lower()):
            return f"write {digits}{short}"
    return f"write {digits}s, {digits}m (minutes), {digits}h, {digits}d or {digits}w"


def counted(number: int, word: str) -> str:
    """Return *number* and *word* in the right form: ``1 snapshot``, ``24 snapshots``."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def show_size(size: int) -> str:
    """Return *size* bytes as short text in binary units: ``0 B``, ``512 B``, ``1.1 GiB``, ``345 MiB``.

    Below ten there is one decimal, above none; at most half a unit of the last digit is lost.
    """
    if size < 0:
        return "-" + show_size(-size)
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in _BINARY:
        value /= 1024
        # What would be rounded up to 1024 belongs to the next unit: never "1024 KiB".
        if value < 1023.5 or unit == "TiB":
            break
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def show_duration(seconds: float) -> str:
    """Return *seconds* as short text of at most two units: ``40 ms``, ``0.6 s``, ``2 min 5 s``, ``3 d``."""
    if seconds < 0:
        return "-" + show_duration(-seconds)
    if seconds < 0.095:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return _two_units(round(seconds))


def _two_units(seconds: int) -> str:
    steps = (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))
    for large, length, small, part in steps:
        # Rounded to the smaller unit first, so that 59 min 59 s more never shows as "60 min".
        total = (seconds + part // 2) // part * part
        if total >= length:
            whole, rest = divmod(total, length)
            return f"{whole} {large} {rest // part} {small}" if rest else f"{whole} {large}"
    return f"{seconds} s"
