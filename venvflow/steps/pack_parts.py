"""``pack`` with layers: several archives that are the venv together, and the list of those that are it now.

An archive that is not of this venv any more stays where it is: another venv, or a machine that is behind, may
still need it. The list says which ones belong together now.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from venvflow.disk import archive
from venvflow.disk.files import read_small, write_whole
from venvflow.disk.system_errors import explained
from venvflow.errors import Refused, shown
from venvflow.model import FORMATS, Manifest, PackOptions, Part
from venvflow.pure import decoding
from venvflow.pure.names import part_name, set_name
from venvflow.pure.parts import with_rest
from venvflow.steps.pack_source import PackSource
from venvflow.steps.state_files import written_archives

LIST_FORMAT = 1
"""Version of the list of parts."""


@dataclass(frozen=True, slots=True)
class PackedParts:
    """The parts that were written, or were there, the *list* of them, and what there is to say."""

    list: str
    parts: tuple[Part, ...]
    warnings: tuple[str, ...]


def pack_parts(
    source: PackSource,
    manifest: Manifest,
    options: PackOptions,
    wanted: archive.Options,
    *,
    may_replace: Callable[[str], None] = lambda _: None,
    anew: bool = False,
    progress: archive.Progress | None,
    accept: archive.Accept = archive.accept_any,
) -> PackedParts:
    """Write the archives of the layers in *options*, and the list of them; those that are there are kept.

    With *anew*, nothing is used that was packed before. *accept* is called with all warnings first. Raises
    what it does, and what :func:`venvflow.steps.pack.pack` does.
    """

    def path_of(layer: str, content: str) -> str:
        name = part_name(options.name).replace("{layer}", layer).replace("{digest}", content[:12])
        return os.path.join(options.output, f"{source.filled_name(name, manifest)}.{options.format}")

    listed = os.path.join(options.output, f"{source.filled_name(set_name(options.name), manifest)}.json")
    _refuse_to_replace(listed, force=source.job.force)
    written = archive.write_parts(
        source.packed(manifest),
        source,
        with_rest(options.layers),
        path_of,
        source.filled_options(wanted, manifest),
        description=source.description(manifest, packed=True),
        may_replace=may_replace,
        keep=not (anew or source.job.force),
        unaltered=written_archives(source.job),
        frames=None if anew else source.frames(),
        progress=progress,
        accept=accept,
    )
    with explained("cannot write the list of the archives", at=listed, state="The archives are whole."):
        write_whole(listed, _encoded(source.name, options.format, written.parts), sync=True)
    return PackedParts(listed, written.parts, written.warnings)


# --------------------------------------------------------------------------- the list


def _encoded(venv: str, kind: str, parts: tuple[Part, ...]) -> bytes:
    rows = [
        {
            "layer": part.layer,
            "archive": os.path.basename(part.path),
            "sha256": part.sha256,
            "size": part.size,
            "content": part.content,
            "content_size": part.content_size,
            "entries": part.entries,
            "distributions": [*map(list, part.distributions)],
        }
        for part in parts
    ]
    document = {"list": LIST_FORMAT, "venv": venv, "format": kind, "parts": rows}
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode("ascii")


def listed_parts(path: str) -> tuple[Part, ...]:
    """Return the archives that the list at *path* names, the last one last.

    Raises :class:`~venvflow.pure.decoding.Corrupt` for what is no list of ours, and ``OSError``.
    """
    found = decoding.fields(
        decoding.parse(read_small(path, follow=True)),
        list=decoding.integer(LIST_FORMAT, LIST_FORMAT),
        venv=decoding.text,
        format=decoding.one_of(*FORMATS),
        parts=decoding.listed(partial(_listed_part, os.path.dirname(path))),
    )
    if not found["parts"]:
        raise decoding.Corrupt("it names no archives")
    return tuple(found["parts"])


def _listed_part(directory: str, value: object) -> Part:
    found = decoding.fields(
        value,
        layer=decoding.text,
        archive=_file_name,
        sha256=decoding.digest,
        size=decoding.count,
        content=decoding.digest,
        content_size=decoding.count,
        entries=decoding.count,
        distributions=decoding.listed(decoding.row(decoding.text, decoding.text)),
    )
    return Part(path=os.path.join(directory, found.pop("archive")), kept=True, **found)


def _file_name(value: object) -> str:
    if "/" in (name := decoding.path(value)):
        raise decoding.unlike(value, "the name of a file beside it")
    return name


def _refuse_to_replace(path: str, *, force: bool) -> None:
    """Raise Refused when there is a file at *path* that is no list of ours, of any version."""
    try:
        found = decoding.parse(read_small(path, follow=True))
        is_list = isinstance(found, dict) and {"list", "venv", "parts"} <= found.keys()
    except FileNotFoundError:
        return
    except (OSError, decoding.Corrupt):
        is_list = False
    if not is_list and (not force or os.path.isdir(path)):
        raise Refused(
            f"{shown(path)} is there already, and venvflow did not write it",
            state="It was left as it is.",
            hint="Move it away, or choose another name.",
        )
