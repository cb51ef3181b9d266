"""Where good bytes of a damaged object may still be: other files, packed trees, uv's cache, the compiler.

Whatever is found is only a candidate: who asks hashes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

from venvflow.disk import interpreters
from venvflow.disk.archive.reading import items
from venvflow.disk.bytecode import Source, compile_sources
from venvflow.disk.files import open_regular
from venvflow.disk.objects import Name, object_name
from venvflow.errors import VenvflowError
from venvflow.pure.manifest import source_of
from venvflow.state.reader import StoreReader
from venvflow.steps.verify.holders import Use

_SITE = "/site-packages/"


def uv_caches() -> tuple[str, ...]:
    """Return where uv keeps the files of wheels: it links venvs to them, or copies them."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return (os.path.join(os.environ.get("UV_CACHE_DIR") or os.path.join(base, "uv"), "archive-v0"),)


def stored_copies(store: StoreReader, name: Name) -> Iterator[str]:
    """Yield files of the store: the same bytes with the other executable bit, twins, what was put aside."""
    objects = store.objects
    yield objects.path(Name(name.digest, not name.executable))
    base, number = objects.path(name), 1
    while os.path.lexists(f"{base}.{number}"):
        yield f"{base}.{number}"
        number += 1
    with suppress(OSError):
        for file in os.listdir(objects.quarantined):
            if file.startswith(name.digest):
                yield f"{objects.quarantined}/{file}"


def cached_copies(caches: Sequence[str], uses: Sequence[Use]) -> Iterator[str]:
    """Yield files of a builder's cache that lie where the distribution has the file."""
    wanted = {use.entry.path.partition(_SITE)[2] for use in uses} - {""}
    for cache in caches:
        with suppress(OSError):
            for archive in sorted(os.listdir(cache)):
                for path in sorted(wanted):
                    candidate = os.path.join(cache, archive, path)
                    if os.path.isfile(candidate):
                        yield candidate


def packed_copies(
    store: StoreReader, trees: Sequence[str], uses: Sequence[Use], scratch: str
) -> Iterator[str]:
    """Yield what the compressed *trees* that pack keeps have, written into the directory *scratch*."""
    wanted = {use.entry.path for use in uses}
    for number, frame in enumerate(_frames(store, trees)):
        target = os.path.join(scratch, f"packed-{number}")
        # A frame is cut out of an archive, so it ends where an archive would not.
        with suppress(VenvflowError, OSError, ValueError), open_regular(frame) as raw:
            for item in items(frame, raw, 1 << 40):
                if item.kind == "file" and any(item.name.endswith(path) for path in wanted):
                    with open(target, "wb") as file:
                        file.writelines(item.parts)
                    yield target


def _frames(store: StoreReader, trees: Sequence[str]) -> Iterator[str]:
    for digest in trees:
        directory = os.path.join(store.path, "frames", digest[:2])
        with suppress(OSError):
            for file in sorted(os.listdir(directory)):
                if file.startswith(digest):
                    yield os.path.join(directory, file)


def compiled_copies(store: StoreReader, uses: Sequence[Use], scratch: str) -> Iterator[str]:
    """Yield bytecode that was compiled anew from its source, into the directory *scratch*."""
    for use in uses:
        source = use.holder.entries.get(source_of(use.entry.path) or "")
        if source is None or not store.objects.verified(object_name(source)):
            continue
        with suppress(VenvflowError, OSError):
            python = interpreters.resolve(
                f"{use.holder.path}/bin/python", root=use.holder.path, environ=os.environ
            )
            job = Source(source.digest, source.path, store.objects.path(object_name(source)))
            made = compile_sources(python, [job], scratch)[job]
            if made is not None:
                yield made
