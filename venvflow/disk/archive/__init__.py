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
:mod:`.pipeline`       work in threads that keeps its order, and tar streams from objects
:mod:`.file`           the file that an archive is, hashed on the way, and what stands beside it
:mod:`.frames`         compressed trees that are kept: :class:`FrameDirectory`
:mod:`.writing`        writing one: :func:`write_archive`
:mod:`.parts`          writing several that are a venv together: :func:`write_parts`
:mod:`.reading`        the entries of one that nobody vouches for
:mod:`.inspection`     what is in one: :func:`inventory_of`, :func:`traces`
:mod:`.belonging`      which archives are a venv together
:mod:`.extraction`     writing them where they can do no harm: :func:`extract`, :func:`unpack`
=====================  ==================================================================
"""

from venvflow.disk.archive.contents import (
    NEUTRAL,
    DamagedObject,
    ObjectSource,
    Options,
    needs_of,
    read_object,
)
from venvflow.disk.archive.extraction import Extracted, Limits, extract, unpack
from venvflow.disk.archive.file import digest_of_file, is_current, recorded_digest
from venvflow.disk.archive.formats import SHORT, Progress, named_format
from venvflow.disk.archive.frames import FrameDirectory
from venvflow.disk.archive.inspection import Inventory, Trace, inventory_of, traces
from venvflow.disk.archive.parts import PartsWritten, write_parts
from venvflow.disk.archive.reading import is_ours
from venvflow.disk.archive.writing import Accept, Written, accept_any, write_archive
from venvflow.postinstall import METADATA

__all__ = [
    "METADATA",
    "NEUTRAL",
    "SHORT",
    "Accept",
    "DamagedObject",
    "Extracted",
    "FrameDirectory",
    "Inventory",
    "Limits",
    "ObjectSource",
    "Options",
    "PartsWritten",
    "Progress",
    "Trace",
    "Written",
    "accept_any",
    "digest_of_file",
    "extract",
    "inventory_of",
    "is_current",
    "is_ours",
    "named_format",
    "needs_of",
    "read_object",
    "recorded_digest",
    "traces",
    "unpack",
    "write_archive",
    "write_parts",
]
