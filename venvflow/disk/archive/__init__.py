"""Archives: written from a manifest and the store's objects, never from a venv's directory.

So their bytes depend on content alone. An archive is one sequence of members: first what the target needs
to know (``.venvflow-pack/``, ``postinstall.py``) and all directories, then the files and links of each
tree, then the end. ``tar.zst`` cuts that sequence into one frame per tree, which any zstd reads as one
stream and which every venv that has the tree shares.

=====================  ==================================================================
:mod:`.formats`        the formats: how blocks are compressed and streams decompressed
:mod:`.tar`            tar headers, written and read
:mod:`.zipfile`        zip records, written and read
:mod:`.contents`       what goes into an archive, decided before anything is written
:mod:`.writing`        writing one: :func:`write_archive`
:mod:`.frames`         compressed trees that are kept: :class:`FrameDirectory`
:mod:`.stream`         members read and put into one tar stream, objects compared with their names
:mod:`.joining`        frames put together while the next ones are read
:mod:`.sink`           the file that an archive becomes, hashed while it is written
:mod:`.beside`         description and checksum beside it: :func:`is_current`
:mod:`.staging`        files and directories that appear only when they are complete
:mod:`.source`         the file that an archive is, hashed by the bytes that are read
:mod:`.reading`        the entries of one that nobody vouches for
:mod:`.traces`         local paths that are still in one
:mod:`.inventory`      what is in one, as a manifest: :func:`inventory_of`
:mod:`.extraction`     writing them where they can do no harm: :func:`extract`, :func:`unpack`
=====================  ==================================================================
"""

from venvflow.disk.archive.beside import digest_of_file, is_current, recorded_digest
from venvflow.disk.archive.contents import (
    NEUTRAL,
    DamagedObject,
    ObjectSource,
    Options,
    needs_of,
    read_object,
)
from venvflow.disk.archive.extraction import Extracted, Limits, extract, unpack
from venvflow.disk.archive.formats import FORMATS, Progress, format_of
from venvflow.disk.archive.frames import FrameDirectory, FrameStore
from venvflow.disk.archive.inventory import Inventory, inventory_of
from venvflow.disk.archive.reading import is_ours
from venvflow.disk.archive.traces import Trace, traces
from venvflow.disk.archive.writing import Written, write_archive
from venvflow.postinstall import METADATA

__all__ = [
    "FORMATS",
    "METADATA",
    "NEUTRAL",
    "DamagedObject",
    "Extracted",
    "FrameDirectory",
    "FrameStore",
    "Inventory",
    "Limits",
    "ObjectSource",
    "Options",
    "Progress",
    "Trace",
    "Written",
    "digest_of_file",
    "extract",
    "format_of",
    "inventory_of",
    "is_current",
    "is_ours",
    "needs_of",
    "read_object",
    "recorded_digest",
    "traces",
    "unpack",
    "write_archive",
]
