"""Tells which archives are a venv together, before anything of them is unpacked.

The last part names all others by what is in them, and by their SHA-256. Each other one says what is in it by
its first file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from itertools import islice

from venvflow.disk.archive.contents import DOCUMENT
from venvflow.disk.archive.formats import Malformed
from venvflow.disk.archive.reading import MOST, items, unsafe
from venvflow.disk.files import open_regular
from venvflow.disk.system_errors import failure
from venvflow.errors import Refused, shown
from venvflow.postinstall import METADATA, PartRow

_FIRST = 3  # entries, of which one is the first file: an arcroot and our own directory stand before it
_MARK = re.compile(rf"(?:.*/)?{re.escape(METADATA)}/part-([0-9a-f]{{64}})\.json", re.DOTALL)


def in_their_order(archives: Sequence[str]) -> list[str]:
    """Return *archives*, which are the parts of one venv, with the one first that speaks for all.

    Raises Refused if there is none, or more than one, and for what is not a part at all.
    """
    contents = {archive: _content_of(archive) for archive in archives}
    if len(contents) < len(archives):
        twice = next(archive for archive in archives if archives.count(archive) > 1)
        raise _refused(f"{shown(twice)} is named twice")
    strangers = [archive for archive in archives if contents[archive] is None]
    if strangers and len(archives) > 1:
        raise unsafe(strangers[0], "is not a part of a venv that venvflow packed")
    speaking = [archive for archive in archives if not contents[archive]]
    if not speaking:
        raise _refused("the last part is missing: the one with postinstall.py, which names all others")
    if len(speaking) > 1:
        raise _refused(f"{_names(speaking)} are not parts of one venv: each speaks for one of its own")
    return [*speaking, *(archive for archive in archives if archive != speaking[0])]


def rows_of(speaking: str, parts: Sequence[PartRow], others: Sequence[str]) -> list[PartRow]:
    """Return what the last part *speaking* says of each of the *others*: they are all *parts* that there are.

    Raises Refused, with names, for one that is missing, is there twice, or does not belong to it.
    """
    known = {part.content: part for part in parts}
    found: dict[str, str] = {}
    for archive in others:
        content = _content_of(archive) or ""
        if content not in known:
            raise _refused(f"{shown(archive)} is not a part of the venv of {shown(speaking)}")
        if content in found:
            raise _refused(f"{_names([found[content], archive])} are the same part")
        found[content] = archive
    if missing := [str(part) for part in parts if part.content not in found]:
        raise _refused(
            f"{shown(speaking)} is the last of {len(parts) + 1} parts, without {', '.join(missing)}"
        )
    return [known[content] for content in found]


def _refused(why: str) -> Refused:
    return Refused(why, state="Nothing was unpacked.", hint="Name all parts of one venv, each once.")


def _names(archives: Sequence[str]) -> str:
    return " and ".join(map(shown, archives))


def _content_of(archive: str) -> str | None:
    """Return what names the content of the part in *archive*, empty for one that speaks for its venv.

    None: it is not a part of anything. Raises Refused and EnvironmentFailure for what cannot be read.
    """
    try:
        with open_regular(archive, follow=True) as raw, closing(items(archive, raw, MOST)) as entries:
            first = next((item.name for item in islice(entries, _FIRST) if item.kind == "file"), "")
    except Malformed as error:
        raise unsafe(archive, f"is damaged: {error}") from error
    except OSError as error:
        raise failure(error, "cannot read the archive", at=archive, state="Nothing was unpacked.") from error
    if first == DOCUMENT or first.endswith(f"/{DOCUMENT}"):
        return ""
    found = _MARK.fullmatch(first)
    return found[1] if found is not None else None
