"""Checks that a builder made the venv that the config wants."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Container
from contextlib import suppress
from typing import TYPE_CHECKING

from packaging.version import Version

from venvflow.disk.descriptors import directory
from venvflow.disk.files import read_small, replacing
from venvflow.disk.links import create, write_private
from venvflow.disk.scan import walk
from venvflow.errors import shown
from venvflow.pure.relocate import without_rows

if TYPE_CHECKING:
    from venvflow.builders.build import Build

_INTRODUCE = (
    "import os, sys; print(); print('venvflow-venv', sys.implementation.cache_tag,"
    " '%d.%d.%d' % sys.version_info[:3], os.fsencode(os.path.realpath(sys.prefix)).hex(), sep='|')"
)
"""What the venv's Python says of itself, in one line: the path in hex, for it may have line ends in it."""


def check_venv(build: Build) -> None:
    """See that there is a venv, that it runs, and that it is of the Python that the key names.

    :raises BuildFailed: one of these is not so.
    """
    if not os.path.isfile(f"{build.staging}/pyvenv.cfg"):
        raise build.failure(
            "the builder reported success, but there is no venv (no pyvenv.cfg)",
            'Commands have to make the venv too: ["{uv}", "venv", "--python", "{python}", "{venv}"].',
        )
    python = f"{build.staging}/bin/python"
    said = build.ask([python, "-I", "-B", "-c", _INTRODUCE])
    answer = next(
        (line.split("|", 3) for line in said.splitlines() if line.startswith("venvflow-venv|")), None
    )
    if answer is None:
        first = next((line for line in said.splitlines() if line.strip()), "nothing")
        raise build.failure(
            f"the builder reported success, but the venv's python does not run: {shown(first)}"
        )
    _, tag, version, prefix_in_hex = answer
    prefix = os.fsdecode(bytes.fromhex(prefix_in_hex))
    wanted = Version(build.interpreter.version).base_version
    if (tag, version) != (build.interpreter.cache_tag, wanted):
        raise build.failure(
            f"the venv runs Python {version} ({tag}), not {wanted} ({build.interpreter.cache_tag})",
            'Let the commands use {python}, or correct "python:" in the config.',
        )
    if prefix != os.path.realpath(build.staging):
        raise build.failure(f"the venv's python belongs to {shown(prefix)}")


def hide_from_git(venv: str) -> None:
    """Let git ignore the venv, whatever the project's ``.gitignore`` says, as uv and Python 3.13 do."""
    with directory(venv) as fd, suppress(FileExistsError):
        write_private(".gitignore", fd, b"*\n", executable=False)


def drop_bytecode(venv: str, but: Container[str] = ()) -> None:
    """Remove what was compiled in spite of us (``ensurepip`` does), from the disk and from each RECORD.

    All *but* these paths in the venv.
    """
    drop(
        venv,
        lambda path: _BYTECODE.search(path) and path not in but,
        lambda path: os.path.basename(path) == "__pycache__",
    )


_BYTECODE = re.compile(r"(?:^|/)__pycache__/[^/]*\.pyc$")


def drop(
    venv: str, is_unwanted: Callable[[str], object], is_unwanted_directory: Callable[[str], bool]
) -> dict[str, int]:
    """Delete files, and directories that are empty then; return the files with their sizes in bytes.

    RECORDs lose the rows of these files.
    """
    sizes: dict[str, int] = {}
    touched: set[str] = set()  # directories that something is gone from
    for item in reversed(walk(venv)):
        if item.kind != "dir" and is_unwanted(item.path):
            sizes[item.path] = item.stamp.size
            os.unlink(f"{venv}/{item.path}")
            touched.add(os.path.dirname(item.path))
        elif item.kind == "dir" and (item.path in touched or is_unwanted_directory(item.path)):
            with suppress(OSError):  # something else lies there: it stays
                os.rmdir(f"{venv}/{item.path}")
                touched.add(os.path.dirname(item.path))
    if sizes:
        prune_records(venv, is_unwanted)
    return sizes


def records_in(venv: str) -> list[str]:
    """Return the RECORDs of all distributions, by path in the venv."""
    return glob.glob("lib/*/site-packages/*.dist-info/RECORD", root_dir=venv)


def prune_records(venv: str, is_gone: Callable[[str], object]) -> None:
    """Take the rows of files that are gone, by path in the venv, out of all RECORDs."""
    for path in records_in(venv):
        data = read_small(f"{venv}/{path}")
        pruned, _ = without_rows(path, data, (), lambda name: is_gone(name.removeprefix(f"{venv}/")))
        if pruned != data:
            rewrite(f"{venv}/{path}", pruned)


def rewrite(file: str, data: bytes, *, executable: bool = False) -> None:
    """Replace a file by rename: it may be a hard link to one in a cache that is not ours. It is new then."""
    parent, name = os.path.split(file)
    with (
        directory(parent) as fd,
        replacing(name, fd) as temporary,
        open(create(temporary, fd, executable=executable), "wb") as new,
    ):
        new.write(data)
