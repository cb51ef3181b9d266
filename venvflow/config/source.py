"""The source: a config file's bytes, read with care, and the text that they stand for."""

from __future__ import annotations

import os
import stat

from venvflow.config.report import Report
from venvflow.errors import ConfigError, EnvironmentFailure, shown

_LARGEST_FILE = 1 << 20  # bytes


def read(file: str) -> tuple[bytes, os.stat_result]:
    """Return the bytes and the status of a regular file; never waits for the other end of a pipe.

    Raises ``ConfigError`` for anything but a file, ``EnvironmentFailure`` if it cannot be read.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            st = os.fstat(descriptor)
            # One byte more than allowed shows that there is more.
            data = stream.read(_LARGEST_FILE + 1) if stat.S_ISREG(st.st_mode) else None
    except IsADirectoryError as error:
        raise _no_file(file, "a directory") from error
    except OSError as error:
        raise unreadable(file, error) from error
    if data is None:
        raise _no_file(file, "not a regular file")
    return data, st


def _no_file(file: str, kind: str) -> ConfigError:
    return ConfigError([f"{shown(file)}:1: this is {kind}: the config must be a file"])


def unreadable(file: str, error: OSError) -> EnvironmentFailure:
    """Return the error for a config that the system does not let us see."""
    return EnvironmentFailure(
        f"the config cannot be read: {error.strerror}",
        where=shown(file),
        state="Nothing has been done",
        hint="Check the file and the permissions of its directories",
    )


def decode(data: bytes, report: Report) -> str:
    """Return the text of *data*, which must be plain UTF-8; raises ``ConfigError`` if it is not."""
    text, line, problem = "", 1, ""
    if len(data) > _LARGEST_FILE:
        problem = f"the file is larger than {_LARGEST_FILE} bytes: a config is not"
    elif data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        problem = "the file starts with a byte order mark: save it as UTF-8 without one"
    elif b"\0" in data:
        line, problem = data[: data.index(b"\0")].count(b"\n") + 1, "there is a NUL byte in the file"
    else:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            line, problem = data[: error.start].count(b"\n") + 1, "this is not UTF-8"
    if problem:
        report.wrong(line, "", problem)
        raise ConfigError(report.lines())
    return text
