"""Packs or copies the directory of any virtual environment; needs no config and no store.

Environments that venvflow makes are packed from their manifests (see :mod:`venvflow.disk.archive`); this is
for directories that other tools made. What is written is the same in both cases: the same writers, the same
``postinstall.py``, the same refusals, and bytes that depend on content alone. Left out are ``__pycache__``
directories, the RECORD files of distributions, and ``sitecustomize.py`` files that a post-installation
script generated (a layer gets one that is right at the target); a package's own stays. Scripts and
activation files stay too, and ``postinstall.py`` makes them work at the target.

The directory that is read is never changed, but by :func:`convert_symlinks`.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import TypeAlias

from venvflow.disk import archive
from venvflow.disk.archive.contents import Member
from venvflow.disk.export import export, holds_links
from venvflow.disk.scratch import refuse_inside, scratch
from venvflow.errors import EnvironmentFailure, UsageError, shown
from venvflow.pack_venv.links import (
    NoSource,
    NotContaining,
    SourceNotDirectory,
    convert_symlinks,
    source_directory,
)
from venvflow.pack_venv.listing import Environment, list_directory
from venvflow.progress_display import progress
from venvflow.state.listing import left_out_special

__all__ = [
    "CompressionFormat",
    "NoSource",
    "NotContaining",
    "PackWarning",
    "SourceNotDirectory",
    "UnknownFormat",
    "as_on_windows",
    "convert_symlinks",
    "create_archive",
    "export_venv",
    "get_archive_path",
]

_Path: TypeAlias = "str | os.PathLike[str]"


class PackWarning(UserWarning):
    """Something of the environment is not in the archive or the copy, or may not work at the target."""


class UnknownFormat(UsageError, ValueError):
    """There is no compression of that name."""


class CompressionFormat(str, Enum):
    """How an archive is compressed. All but ``ZIP`` are tar archives."""

    UNCOMPRESSED = ""
    BZIP2 = "bzip2"
    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"
    ZIP = "zip"

    __str__ = str.__str__  # as a StrEnum has it, which Python 3.10 does not know

    @classmethod
    def get_format(cls, format: str | None) -> CompressionFormat:  # noqa: A002 - as it is called everywhere else
        """Return the format of that name or extension, the platform's own for None; or raise ValueError."""
        if format is None:
            return cls.ZIP if _on_windows.get() else cls.XZ
        for each in cls:
            if format in (each.value, each.extension):
                return each
        known = ", ".join(repr(each.value) for each in cls)
        raise UnknownFormat(f"unknown compression {format!r}", hint=f"Known are: {known}.")

    @property
    def is_tar_format(self) -> bool:
        """Return whether it is a tar archive."""
        return self is not CompressionFormat.ZIP

    @property
    def extension(self) -> str:
        """Return how names of such archives end, without the dot before it."""
        return _EXTENSIONS[self]

    def get_archive_path(self, archive_base_name: _Path) -> Path:
        """Return the name of the archive of this format for *archive_base_name*, which may hold dots."""
        return Path(f"{os.fspath(archive_base_name)}.{self.extension}")


_EXTENSIONS = {
    CompressionFormat.UNCOMPRESSED: "tar",
    CompressionFormat.BZIP2: "tar.bz2",
    CompressionFormat.GZIP: "tar.gz",
    CompressionFormat.XZ: "tar.xz",
    CompressionFormat.ZSTD: "tar.zst",
    CompressionFormat.ZIP: "zip",
}

_on_windows: ContextVar[bool] = ContextVar("_on_windows", default=sys.platform == "win32")


@contextmanager
def as_on_windows() -> Iterator[None]:
    """Behave as on Windows in a ``with`` block: zip by default, and copies in place of symlinks."""
    token = _on_windows.set(True)
    try:
        yield
    finally:
        _on_windows.reset(token)


def get_archive_path(archive_base_name: _Path) -> Path:
    """Report the name of the archive that :func:`create_archive` makes for the given base name.

    Like the base name it may be relative, and a ``~`` stays, which :func:`create_archive` expands. For
    another format than the platform's own, ask that format:
    ``CompressionFormat.GZIP.get_archive_path(base)``.
    """
    return CompressionFormat.get_format(None).get_archive_path(archive_base_name)


def create_archive(
    source_dir: _Path,
    archive_base_name: _Path,
    *,
    install_target: str | None = None,
    clamp_mtime: datetime | None = None,
    work_dir: _Path | None = None,
    show_progress: bool = True,
    format: CompressionFormat | None = None,  # noqa: A002 - its documented name
    prepare_deployed_env: Callable[[Path], None] | None = None,
) -> Path:
    """Archive the environment *source_dir* and return the archive's path, which depends on *format* alone.

    Everything in it lies in a directory called *install_target*, or else like the source directory. Symlinks
    inside are made relative, those that lead out are kept as they are, also the one to the interpreter. On
    Windows, and in a zip, what they lead to is copied in their place, and ``postinstall.py`` makes the one
    to the interpreter; so it does for a layer. Owners are nobody, modes 0755 or 0644. Without *clamp_mtime*
    times follow from content; with it, files keep their own, but no later than that (a time without zone is
    UTC). *work_dir* takes what must be kept for a moment.

    *prepare_deployed_env* is called with the absolute path of a copy of the environment, and changes what is
    archived: links to environments that lie beside it at the target, say, which are not beside the copy.

    The archive appears when it is complete, in place of an older one. Raises UsageError, Refused (an archive
    inside the source, links that cannot be copied, names that the format cannot hold) and EnvironmentFailure
    (unreadable, changing or missing files, a full disk); then nothing of it is left.
    """
    chosen = CompressionFormat.get_format(format)
    destination = chosen.get_archive_path(os.path.expanduser(archive_base_name))
    copies = _on_windows.get() or not chosen.is_tar_format
    source = _source_directory(source_dir)
    refuse_inside(os.fspath(destination), {"what is to be packed": source})
    shown_progress = progress(sys.stderr, shown(destination.name)) if show_progress else nullcontext()
    place = os.fspath(work_dir or "")
    options = archive.Options(
        chosen.extension,
        arcroot=os.path.basename(os.path.abspath(source_dir)) if install_target is None else install_target,
        symlinks="copy" if copies else "keep",
        external="keep",
    )
    with scratch(place, hint="Choose another work_dir.") as temporary, shown_progress as display:
        listed = _listed(source, options.arcroot, temporary.path, prepare_deployed_env, copies=copies)
        if "beside" not in listed.description["python"]:  # of a layer it is beside it at the target
            options = replace(options, python=_known(listed))
        with listed.changes_explained():
            written = archive.write_archive(
                listed.manifest,
                listed,
                os.fspath(destination),
                options,
                description=listed.description,
                progress=display,
                mtime_of=_clamped(listed, clamp_mtime),
                scratch=temporary.path,
                beside=False,
            )
    _warn([*listed.warnings, *written.warnings])
    return destination


def export_venv(
    source_dir: _Path,
    target_dir: _Path,
    run_postinstall: Callable[[Path, Path], None] | None = None,
    *,
    prepare_deployed_env: Callable[[Path], None] | None = None,
) -> Path:
    """Copy the environment *source_dir* to *target_dir* by the rules of archives, and return its path.

    The copy shares no file with the source. Symlinks are copied as :func:`create_archive` writes them, but
    the one to the interpreter is made; on Windows, or where the target cannot hold symlinks, what they lead
    to is copied. *prepare_deployed_env* is called with another copy beforehand, as there. *run_postinstall*
    is called with the path of the environment's interpreter and that of its ``postinstall.py``, which is not
    run by itself.

    *target_dir* must not exist, or be an empty directory. Raises UsageError, Refused and EnvironmentFailure
    as :func:`create_archive` does; then nothing of it is left.
    """
    source = _source_directory(source_dir)
    target = os.path.abspath(os.path.expanduser(target_dir))
    refuse_inside(target, {"what is to be packed": source})
    copies = _on_windows.get() or not holds_links(os.path.dirname(target))
    with scratch() as temporary:
        name = os.path.basename(target)
        listed = _listed(source, name, temporary.path, prepare_deployed_env, copies=copies)
        with listed.changes_explained():
            exported = export(
                listed.manifest,
                listed,
                target,
                description=listed.description,
                links="copy" if copies else "keep",
                external="keep",
                python=_known(listed),
            )
    _warn([*listed.warnings, *exported.warnings])
    if run_postinstall is not None:
        run_postinstall(_interpreter_in(target), Path(target, "postinstall.py"))
    return Path(target)


# --------------------------------------------------------------------------- what both need


def _source_directory(source_dir: _Path) -> str:
    return source_directory(source_dir, "Name the directory to pack.")


def _listed(
    source: str, name: str, temporary: str, prepare: Callable[[Path], None] | None, *, copies: bool
) -> Environment:
    """List *source*, or a copy called *name* that *prepare* has changed."""
    if prepare is None:
        return list_directory(source, temporary, copies=copies)
    copy = os.path.join(os.path.realpath(temporary), "copy", name or os.path.basename(source))
    special = _copy(source, copy)
    prepare(Path(copy))
    listed = list_directory(copy, temporary, copies=copies, origin=source)
    listed.warnings += [left_out_special(path) for path in special]
    return listed


def _known(listed: Environment) -> str:
    """Return the interpreter that the files of *listed* name, or nothing."""
    return listed.python if listed.python != archive.NEUTRAL.python else ""


def _copy(source: str, copy: str) -> list[str]:
    """Copy the environment with its links and times; return the devices, FIFOs and sockets left out."""
    special: list[str] = []

    def left_out(directory: str, names: list[str]) -> list[str]:
        paths = {name: os.path.join(directory, name) for name in names}
        odd = [name for name, path in paths.items() if stat.S_IFMT(os.lstat(path).st_mode) not in _COPIED]
        special.extend(os.path.relpath(paths[name], source) for name in odd)
        return [*odd, "__pycache__"]

    try:
        shutil.copytree(source, copy, symlinks=True, ignore=left_out)
    except shutil.Error as error:
        where, _, why = error.args[0][0]
        raise _not_copied(os.fspath(where), why) from error
    except OSError as error:
        raise _not_copied(os.fspath(error.filename or source), error.strerror or str(error)) from error
    return special


_COPIED = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


def _not_copied(where: str, why: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"cannot copy it, to be prepared for its target: {why}",
        where=shown(where),
        state="Nothing was written.",
        hint="Make it readable, or make room for the copy (TMPDIR, work_dir), then try again.",
    )


def _clamped(listed: Environment, clamp: datetime | None) -> Callable[[Member], int] | None:
    """Return what gives a member its time, or None for that of its content."""
    if clamp is None:
        return None
    zoned = clamp if clamp.tzinfo is not None else clamp.replace(tzinfo=timezone.utc)
    latest = int(zoned.timestamp())
    return lambda member: min(listed.mtime(member.name, member.mtime), latest)


def _warn(texts: list[str]) -> None:
    for text in texts:
        warnings.warn(text, PackWarning, stacklevel=3)


def _interpreter_in(target: str) -> Path:
    for name in ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe"):
        path = Path(target, name)
        if os.path.lexists(path):  # of a layer, what it leads to may come later
            return path
    raise EnvironmentFailure(
        "the environment has no interpreter that could run its postinstall.py",
        where=shown(target),
        state="It was exported.",
        hint="Run postinstall.py there by any Python that fits.",
    )
