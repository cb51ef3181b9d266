"""zstd: the one room that meets its library, which is loaded by who compresses or decompresses.

A process that talks to a remote needs that of what archives need, and nothing else.
"""

from __future__ import annotations

import sys
from typing import Any

from venvflow.errors import EnvironmentFailure

_MIB = 1 << 20


def zstd() -> Any:
    """Return the module that knows zstd: the standard library's where there is one."""
    if sys.version_info >= (3, 14):
        from compression import zstd as module  # noqa: PLC0415
    else:
        from backports import zstd as module  # noqa: PLC0415
    return module


_ZSTD_LEVEL_3 = {"window_log": 22, "hash_log": 18, "job_size": 4 * _MIB, "overlap_log": 7}
"""Further settings of level 3, the usual one: a window and a table twice as large, jobs of a fixed size.

For Python's files this makes archives 1.6 % smaller and takes some 4 % more time, and an archive of frames is
then no larger than one stream of zstd's own level 3. Small jobs keep all cores busy to the end of a frame,
and the buffers of a compressor small. Any reader reads them.
"""


def zstd_compressor(level: int, size: int, threads: int = 1, *, checksum: bool = True) -> Any:
    """Return a compressor for one frame of exactly *size* bytes, with *threads* of its own.

    *checksum*: the frame ends with one, which who unpacks it compares; it is for who has nothing better.

    It has one at least: with none libzstd writes other bytes, with any other number the same.
    Told the size, libzstd decides by itself that small frames need no thread.
    """
    module = zstd()
    parameter = module.CompressionParameter
    options = {
        parameter.compression_level: level,
        parameter.nb_workers: threads,
        parameter.checksum_flag: int(checksum),
    }
    if level == 3:
        options.update({parameter[name]: value for name, value in _ZSTD_LEVEL_3.items()})
    try:
        compressor = module.ZstdCompressor(options=options)
    except (ValueError, module.ZstdError) as error:
        raise EnvironmentFailure(
            f"the zstd library cannot be used: {error}",
            state="Nothing was written.",
            hint="Use another format, or a libzstd that was built with threads.",
        ) from error
    compressor.set_pledged_input_size(size)
    return compressor


def zstd_version() -> str:
    """Return the version of libzstd, on which the bytes of a frame depend."""
    return str(zstd().zstd_version)
