"""The confidential files of a venv, which never become objects: other users could read them in the store.

These are credentials, which people and builders put into venvs, and files that other users cannot read where
they are. A file that a RECORD lists is not confidential: everybody who installs the package gets it, test
keys and sample configs too. But of a venv that need not be *whole*, because no snapshot is made of it, even
such a file is withheld if its name or mode is that of a secret: somebody may have edited it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from venvflow.disk.files import read_small
from venvflow.disk.scan import Found
from venvflow.errors import Refused, shown
from venvflow.pure.redaction import redact
from venvflow.pure.sharing import (
    LARGEST_SECRET,
    holds_key,
    is_credential,
    notes_urls,
    readers_of,
    visitors_of,
)
from venvflow.state.survey import Survey


class Withheld(NamedTuple):
    """What a venv keeps: *secret* are credentials, *hidden* other users cannot read; *digests* of both.

    These are the SHA-256 (in hex) of what they hold, by path.
    """

    secret: tuple[str, ...]
    hidden: tuple[str, ...]
    digests: dict[str, str]


def withhold(venv: str, survey: Survey, store: str, *, whole: bool) -> Withheld:
    """Leave out of *survey* what the venv keeps, and return it; raises as :func:`refuse_to_show` does."""
    refuse_to_show(venv, survey, store, whole=whole)
    secret = tuple(sorted(credentials(venv, survey, whole=whole)))
    digests = survey.withhold(secret)
    hidden = tuple(sorted(closed(survey, whole=whole)))
    return Withheld(secret, hidden, digests | survey.withhold(hidden))


def credentials(venv: str, survey: Survey, *, whole: bool = True) -> Iterator[str]:
    """Yield the files of the venv at path *venv* that hold credentials, and that no package brought.

    What an installer noted is listed in a RECORD like files of a package, and is yielded all the same: it
    says where this venv got something. Our own builds leave no credentials there.
    """
    published = _published(survey)
    for path, entry in survey.entries.items():
        if not entry.digest:
            continue
        listed = path in published
        named = (is_credential(path) and not (whole and listed)) or (
            not listed and _holds_key(venv, path, entry.size)
        )
        if named or (notes_urls(path) and _holds_credentials(venv, path)):
            yield path


def _published(survey: Survey) -> set[str]:
    """Return what packages brought."""
    return {path for each in survey.distributions for path in each.paths if path.startswith("lib/")}


def _holds_key(venv: str, path: str, size: int) -> bool:
    if path.endswith((".py", ".pyc")) or size > LARGEST_SECRET:
        return False
    with suppress(OSError):  # the code that reads all of it reports the error
        return holds_key(read_small(f"{venv}/{path}", largest=LARGEST_SECRET))
    return False


def _holds_credentials(venv: str, path: str) -> bool:
    with suppress(OSError):
        text = os.fsdecode(read_small(f"{venv}/{path}", largest=LARGEST_SECRET))
        return redact(text) != text
    return False


def closed(survey: Survey, *, whole: bool = True) -> Iterator[str]:
    """Yield the files that other users cannot read although they can read the venv, by its ``pyvenv.cfg``.

    Those that a package brought are not among them if the venv has to be *whole*: a cache may be closed, or a
    umask strict, and without them a snapshot would be of no use.
    """
    usual, published = _usual_readers(survey), _published(survey) if whole else set()
    directories = _directories(survey)
    for path, entry in survey.entries.items():
        item = survey.found.get(path)
        is_file = path not in published and item is not None and item.kind == "file" and item.stamp.size
        if entry.digest and is_file and item is not None and usual & ~_readers(path, item, directories):
            yield path


def _directories(survey: Survey) -> dict[str, int]:
    """Return who can reach what is in the directories of a venv."""
    return {path: visitors_of(item.mode) for path, item in survey.found.items() if item.kind == "dir"}


def _usual_readers(survey: Survey) -> int:
    config = survey.found.get("pyvenv.cfg")
    return readers_of(config.mode) if config is not None else 0


def _readers(path: str, item: Found, directories: dict[str, int]) -> int:
    readers = readers_of(item.mode)
    while path := path.rpartition("/")[0]:
        readers &= directories.get(path, 0)
    return readers


def refuse_to_show(venv: str, survey: Survey, store: str, *, whole: bool = True) -> None:
    """Raise Refused if other users can read the store at path *store*, but not the venv at path *venv*.

    Nor may there be a file of a package that they cannot read, if the venv has to be *whole*: it would be
    taken.
    """
    them = visitors_of(os.stat(store).st_mode)
    where = _hidden_from(them, venv, survey, whole=whole) if them else None
    if where is not None:
        raise Refused(
            "other users can read the store, but not this venv: they could read its files there",
            where=shown(where),
            state="The venv is unchanged, and nothing was stored.",
            hint=f"Close the store (chmod go-rx {shown(store)}), or let others read the venv "
            f"(chmod -R go+rX {shown(venv)}).",
        )


def _hidden_from(them: int, venv: str, survey: Survey, *, whole: bool) -> str | None:
    """Return what of a venv is to be taken and *them* cannot read: all of it, a file, or often nothing."""
    if them & ~(visitors_of(os.stat(venv).st_mode) & _usual_readers(survey)):
        return venv
    directories = _directories(survey)
    for path in _published(survey) if whole else ():
        item = survey.found.get(path)
        if item is not None and item.kind == "file" and them & ~_readers(path, item, directories):
            return f"{venv}/{path}"
    return None
