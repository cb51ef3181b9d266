"""Modes: what is noted of files before they are shared, and given back."""

from __future__ import annotations

import hashlib

from contents import time_of
from hypothesis import given
from hypothesis import strategies as st

from venvflow.disk.attributes import mode_of, modes_of
from venvflow.disk.scan import Found, Stamp

modes = st.dictionaries(st.sampled_from([f"lib/{n}" for n in "abcdef"]), st.integers(0, 0o7777), max_size=6)


def found(path: str, mode: int, mtime: int = 5) -> Found:
    """Return a file as a walk finds it."""
    return Found(path, "file", Stamp(1, 10, mtime, 0), mode, 1, 1)


def test_usual_modes_are_not_noted() -> None:
    """Receipts are read on every run."""
    assert modes_of([found("a", 0o644), found("b", 0o755)], {}, None) == {}


def test_what_most_files_have_is_noted_once() -> None:
    """As under a umask that lets the group write."""
    files = [found(f"lib/{number}", 0o664) for number in range(50)]
    assert modes_of([*files, found("secret", 0o600)], {}, None) == {"": 0o664, "secret": 0o600}


@given(modes=modes)
def test_every_mode_comes_back_but_for_the_bits_of_other_users(modes: dict[str, int]) -> None:
    """Setuid and setgid are not kept, as the warning says."""
    noted = modes_of([found(path, mode) for path, mode in modes.items()], {}, None)
    for path, mode in modes.items():
        assert mode_of(noted, path, executable=bool(mode & 0o100)) == mode & 0o777


@given(modes=modes)
def test_objects_keep_what_was_noted_before(modes: dict[str, int]) -> None:
    """They are read-only by now, which is not what they had."""
    before = modes_of([found(path, mode) for path, mode in modes.items()], {}, None)
    digests = {path: hashlib.sha256(path.encode()).hexdigest() for path in modes}
    sealed = [
        found(path, 0o555 if mode & 0o100 else 0o444, time_of(path.encode())) for path, mode in modes.items()
    ]
    again = modes_of(sealed, digests, before)
    for path, mode in modes.items():
        assert mode_of(again, path, executable=bool(mode & 0o100)) == mode & 0o777


def test_a_read_only_file_of_another_time_is_no_object() -> None:
    """Installers write such files too."""
    assert modes_of([found("a", 0o444), found("b", 0o644), found("c", 0o644)], {}, None) == {"a": 0o444}
