"""Writes an archive from a manifest and the objects: the same bytes, whatever the number of threads.

The members of :mod:`.contents` become pieces that do not depend on each other (a frame per tree, a block of
fixed size, a file of a zip); threads compress them, and one writer puts them into the file in their order.
Neither memory nor bytes depend on how large the venv is or on how many threads work.
"""

from __future__ import annotations

import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, Any

from venvflow.disk.archive import tar, zipfile
from venvflow.disk.archive.contents import ArchivePlan, Member, ObjectSource, Options, plan_archive
from venvflow.disk.archive.file import HashedOutput, hashed_output, write_beside
from venvflow.disk.archive.formats import (
    CHUNK,
    Progress,
    block_compressor,
    library_of,
)
from venvflow.disk.archive.frames import FrameDirectory, Joiner, NewFrame, frame_name, joining
from venvflow.disk.archive.pipeline import ByteCounter, Packer, in_order, object_parts, packing
from venvflow.disk.files import new_file, sync_directory
from venvflow.disk.system_errors import explained
from venvflow.disk.zstandard import zstd_compressor
from venvflow.errors import Refused, shown
from venvflow.model import FORMATS, Manifest

Accept = Callable[[Sequence[str]], None]
"""Takes the warnings about what is to be written, or raises because there are some."""


def accept_any(_warnings: Sequence[str]) -> None:
    """Take them all."""


_AHEAD = 8  # pieces that are ready or in work while earlier ones are written


@dataclass(frozen=True, slots=True)
class Written:
    """An archive that was written.

    *size* is the file's, *content_size* that of all files in it, both in bytes. *frames_reused* of *frames*
    trees came from the frame store.
    """

    path: str
    sha256: str
    size: int
    entries: int
    content_size: int
    frames: int = 0
    frames_reused: int = 0
    warnings: tuple[str, ...] = ()


def write_archive(
    manifest: Manifest,
    source: ObjectSource,
    destination: str,
    options: Options,
    *,
    description: Mapping[str, Any],
    frames: FrameDirectory | None = None,
    progress: Progress | None = None,
    mtime_of: Callable[[Member], int] | None = None,
    scratch: str = "",
    beside: bool = True,
    accept: Accept = accept_any,
) -> Written:
    """Write the archive of *manifest* to *destination*, with ``.json`` and ``.sha256`` files beside it.

    *description* is kept in the archive and beside it; its ``python`` (see :func:`.needs_of`) is what
    ``postinstall.py`` will ask of an interpreter. For archives that depend on content alone it may hold no
    time and no path. *progress* is called with bytes done and bytes in all, by one thread at a time.

    *mtime_of* gives the time of each member, in seconds since 1970; without it, it follows from the content.
    What has to be kept for a moment lies in the directory *scratch*, or beside the
    archive. Without *beside*, nothing is written but the archive. *accept* is called with all warnings before
    anything is written; what it raises is raised.

    Until all three files are there, :func:`is_current` is false. Raises DamagedObject when an object is not
    what its name says, Refused for entries that could not be unpacked safely, EnvironmentFailure when the
    archive cannot be written; then *destination* is as it was.
    """
    plan = plan_archive(manifest, source, options, description)
    accept(plan.told)
    return write_planned(
        plan,
        source,
        destination,
        options,
        frames=frames,
        progress=progress,
        mtime_of=mtime_of,
        scratch=scratch,
        beside=beside,
    )


def write_planned(
    plan: ArchivePlan,
    source: ObjectSource,
    destination: str,
    options: Options,
    *,
    frames: FrameDirectory | None = None,
    progress: Progress | None = None,
    mtime_of: Callable[[Member], int] | None = None,
    scratch: str = "",
    beside: bool = True,
) -> Written:
    """Write the archive of *plan* to *destination*, as :func:`write_archive` does."""
    if os.path.isdir(destination):
        raise Refused(
            f"{shown(destination)} is a directory",
            state="Nothing was written.",
            hint="Name a file, or a directory with a / at its end.",
        )
    state = "Nothing half-written is kept."
    with explained("cannot write the archive", at=destination, state=state):
        path = os.path.abspath(destination)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        job = _Writing(
            plan,
            source,
            options,
            None if mtime_of else frames,  # a frame's name says nothing about times
            ByteCounter(plan.size, progress),
            scratch or os.path.dirname(path),
            mtime_of or (lambda member: member.mtime),
        )
        written = _write(job, path)
        if beside:
            write_beside(path, _described(written, plan, options))
        sync_directory(os.path.dirname(path))
    return written


def _write(job: _Writing, destination: str) -> Written:
    with new_file(destination, sync=True) as file, hashed_output(file) as job.output:
        try:
            _WRITERS.get(job.options.format, _write_blocks)(job)
        except BaseException:
            job.counter.stop()
            raise
    return Written(
        destination,
        job.output.sha256,
        job.output.size,
        job.plan.entries,
        job.plan.size,
        len(job.plan.trees) if job.options.format == "tar.zst" else 0,
        job.reused,
        job.plan.told,
    )


def _described(written: Written, plan: ArchivePlan, options: Options) -> dict[str, Any]:
    """Return what the JSON beside an archive says: beside one of several parts, nothing of the venv."""
    common = {
        "archive": os.path.basename(written.path),
        "format": options.format,
        "level": options.effective_level,
        "arcroot": options.arcroot,
        "sha256": written.sha256,
        "size": written.size,
        "entries": written.entries,
        "content_size": written.content_size,
        "compressed_by": library_of(options.format),
        "distributions": plan.document["distributions"],
        **({"content": plan.content} if plan.content else {}),
    }
    if "description" not in plan.document:
        return common
    slots = [slot for row in (*plan.links, *plan.filled_entries) for slot in row.slots]
    return {
        **common,
        "description": plan.document["description"],
        "parts": [part[2] for part in plan.document["parts"]],
        "postinstall": {
            "needs": plan.document["description"].get("python", {}),
            "needs_project": any(slot.kind == "project" for slot in slots),
            "editable": [name for name, _ in plan.document["editable"]],
            "fills_in": len(plan.templates),
            "needed_for": plan.place_needed(),
        },
        "warnings": list(plan.told),
    }


# --------------------------------------------------------------------------- a job and its parts


@dataclass
class _Writing:
    plan: ArchivePlan
    source: ObjectSource
    options: Options
    frames: FrameDirectory | None
    counter: ByteCounter
    directory: str
    mtime_of: Callable[[Member], int]
    output: HashedOutput = field(init=False)
    reused: int = 0

    def name(self, member: Member) -> str:
        """Return the name of *member* in the archive."""
        root = self.options.arcroot
        return f"{root}/{member.name}".rstrip("/") if root else member.name


# --------------------------------------------------------------------------- tars


def _header(job: _Writing, member: Member) -> bytes:
    name = job.name(member)
    mtime = job.mtime_of(member)
    if member.kind == "dir":
        return tar.directory_header(name, mtime=mtime)
    if member.kind == "link":
        return tar.link_header(name, member.target, mtime=mtime)
    return tar.file_header(name, member.size, executable=member.executable, mtime=mtime)


# --------------------------------------------------------------------------- tar.zst: frames


def _write_frames(job: _Writing) -> None:
    """Write the head, one frame per tree, and the tail; frames that are kept are copied.

    This thread reads, the compressor's own threads compress, one thread compares what was read with its name,
    and one writes. So all cores work to the end, however different in size the trees are.
    """
    trees, store, options = job.plan.trees, job.frames, job.options
    kept = in_order(
        lambda tree: store.open(frame_name(tree, options)) if store else None,
        trees,
        threads=options.threads,
        ahead=_AHEAD,
        discard=lambda file: file.close() if file else None,
    )
    with (
        packing(job.source, CHUNK, job.counter, buffers=4) as packer,
        joining(job.output) as joiner,
        closing(kept),
    ):
        _write_frame(job, job.plan.head, None, packer, joiner)
        for tree, file in zip(trees, kept, strict=True):
            if file is not None:
                joiner.copy(file)
                job.reused += 1
                job.counter.advance(sum(member.size for member in job.plan.members(tree)))
            else:
                frame = store.new(frame_name(tree, options)) if store else None
                _write_frame(job, [*job.plan.members(tree)], frame, packer, joiner)
    compressor = zstd_compressor(options.effective_level, len(tar.END))
    job.output.write(compressor.compress(tar.END) + compressor.flush())


def _write_frame(
    job: _Writing, members: Sequence[Member], frame: NewFrame | None, packer: Packer, joiner: Joiner
) -> None:
    """Write all *members* to a frame; raises DamagedObject, and then there will be no such frame."""
    joiner.begin(frame)
    headers = [_header(job, member) for member in members]
    size = sum(map(len, headers)) + sum(member.size + tar.padding(member.size) for member in members)
    compressor = zstd_compressor(job.options.effective_level, size, job.options.threads)
    for piece in packer.stream(zip(headers, members, strict=True)):
        joiner.add(frame, compressor.compress(piece))
    joiner.end(frame, compressor)


# --------------------------------------------------------------------------- other tars: blocks


def _write_blocks(job: _Writing) -> None:
    """Write one tar stream, cut into blocks of a fixed size that are compressed on their own.

    A block is handed to a thread as soon as it is full, however large the file is that it is a piece of, and
    waits for the one before it when there are more than threads: blocks are many megabytes each.
    """
    compress = block_compressor(job.options.format, job.options.effective_level)
    members = ((_header(job, member), member) for member in job.plan.all_members())
    with packing(job.source, FORMATS[job.options.format].block, job.counter) as packer:
        blocks = map(bytes, packer.stream(members, tar.END))
        threads = job.options.threads
        with closing(in_order(compress, blocks, threads=threads, ahead=threads)) as compressed:
            for data in compressed:
                job.output.write(data)


# --------------------------------------------------------------------------- zip


def _write_zip(job: _Writing) -> None:
    records = []
    ready = in_order(
        lambda member: _zipped(job, member),
        job.plan.all_members(),
        threads=job.options.threads,
        ahead=_AHEAD,
        discard=lambda zipped: zipped[1].close(),
    )
    with closing(ready):
        for record, content in ready:
            records.append(record._replace(offset=job.output.size))
            job.output.write(zipfile.local_header(record))
            with content:
                job.output.copy(content)
    start = job.output.size
    for record in records:
        job.output.write(zipfile.directory_record(record))
    job.output.write(zipfile.end_records(len(records), job.output.size - start, start))


def _zipped(job: _Writing, member: Member) -> tuple[zipfile.Record, IO[bytes]]:
    """Return the record of *member* and its content as it will be in the zip."""
    name = _zip_name(job.name(member))
    mtime = job.mtime_of(member)
    if member.kind == "dir":
        mode = stat.S_IFDIR | 0o755
        return zipfile.Record(name + b"/", mode, zipfile.STORED, 0, 0, 0, mtime=mtime), BytesIO()
    mode = stat.S_IFREG | (0o755 if member.executable else 0o644)
    if member.kind == "link":
        mode = stat.S_IFLNK | 0o777
    with ExitStack() as unless_whole:
        content = unless_whole.enter_context(tempfile.SpooledTemporaryFile(CHUNK, dir=job.directory))
        crc = size = 0
        compressor = zlib.compressobj(job.options.effective_level, zlib.DEFLATED, -zlib.MAX_WBITS)
        for part in _content(job, member):
            crc = zlib.crc32(part, crc)
            size += len(part)
            content.write(compressor.compress(part))
        content.write(compressor.flush())
        packed = content.tell()
        content.seek(0)
        unless_whole.pop_all()  # its reader closes it
    return zipfile.Record(name, mode, zipfile.DEFLATED, crc, packed, size, mtime=mtime), content


def _content(job: _Writing, member: Member) -> Iterator[bytes | memoryview]:
    if member.kind == "link" or member.data is not None:
        job.counter.advance(member.size)
        yield _zip_name(member.target) if member.data is None else member.data
        return
    for part in object_parts(job.source, member, CHUNK):
        job.counter.advance(len(part))
        yield part


def _zip_name(name: str) -> bytes:
    try:
        return name.encode("utf-8")
    except UnicodeEncodeError:
        raise Refused(
            f"{shown(name)} is not UTF-8, and a zip can hold no other names",
            state="Nothing was written.",
            hint="Use a tar format, or exclude it.",
        ) from None


_WRITERS: dict[str, Callable[[_Writing], None]] = {"tar.zst": _write_frames, "zip": _write_zip}
