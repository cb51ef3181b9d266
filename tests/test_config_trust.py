"""Whose config it is: what others can write is doubted, and not used by root."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from configs import one_venv, project
from contents import NOBODY, for_everybody, in_child, needs_root
from hypothesis import given
from hypothesis import strategies as st

from venvflow.config import load
from venvflow.disk.trust import doubts
from venvflow.errors import Refused

FILE, ROOT = "/srv/my project/venvflow.yaml", "/srv/my project"


def status(owner: int, mode: int = 0o644) -> os.stat_result:
    """Return the status of a file of *owner*."""
    return os.stat_result((stat.S_IFREG | mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("owner", "mode", "uid", "environ", "words"),
    [
        (1000, 0o644, 1000, {}, []),
        (0, 0o644, 1000, {}, []),
        (0, 0o664, 0, {}, []),
        (1000, 0o644, 0, {"SUDO_UID": "1000"}, []),
        (1000, 0o644, 1001, {}, ["user 1000 owns"]),
        (1000, 0o666, 1000, {}, ["every user"]),
        (1000, 0o666, 1001, {}, ["user 1000 owns", "every user"]),
        (1000, 0o644, 0, {"VENVFLOW_TRUST": "*"}, ["user 1000 owns"]),
        (1000, 0o646, 0, {"VENVFLOW_TRUST": "/other:/srv/my project/"}, ["user 1000 owns", "every user"]),
        (1000, 0o646, 1000, {"SUDO_UID": "1000"}, ["every user"]),
    ],
)
def test_what_others_can_write_is_doubted(
    owner: int, mode: int, uid: int, environ: dict[str, str], words: list[str]
) -> None:
    """Root is nobody else, nor is who called sudo."""
    found = doubts(FILE, ROOT, status(owner, mode), uid, environ)
    assert [text.startswith(word) for text, word in zip(found, words, strict=True)] == [True] * len(words)


@pytest.mark.parametrize(
    ("owner", "mode", "environ"),
    [
        (1000, 0o644, {}),
        (1000, 0o644, {"SUDO_UID": "1001"}),
        (1000, 0o644, {"SUDO_UID": "²"}),
        (1000, 0o644, {"SUDO_UID": "9" * 5000}),
        (1000, 0o644, {"VENVFLOW_TRUST": "/srv:/srv/my"}),
        (1000, 0o644, {"VENVFLOW_TRUST": ""}),
        (0, 0o666, {}),
        (1000, 0o646, {"SUDO_UID": "1000"}),
    ],
)
def test_root_does_not_use_what_others_can_write(owner: int, mode: int, environ: dict[str, str]) -> None:
    """The refusal has the command that ends it, to be copied."""
    with pytest.raises(Refused) as caught:
        doubts(FILE, ROOT, status(owner, mode), 0, environ)
    assert caught.value.where == FILE
    assert "export VENVFLOW_TRUST='/srv/my project'" in caught.value.hint
    command = f"chmod o-w '{FILE}'" if mode & 0o002 else f"chown root '{FILE}'"
    assert command in caught.value.hint


@given(st.integers(0, 3), st.integers(0, 0o777), st.integers(0, 3))
def test_only_ones_own_and_roots_files_are_beyond_doubt(owner: int, mode: int, uid: int) -> None:
    """Whatever the mode is for owner and group."""
    safe = owner in (uid, 0) and not mode & 0o002
    try:
        assert (doubts(FILE, ROOT, status(owner, mode), uid, {}) == ()) == safe
    except Refused:
        assert uid == 0
        assert not safe


@needs_root
@pytest.mark.root
def test_a_config_of_another_user_is_refused_to_root(tmp_path: Path) -> None:
    """The real thing: the file's owner when it was read counts."""
    root = project(tmp_path)
    file = root / "venvflow.yaml"
    file.write_text(one_venv())
    os.chown(file, NOBODY, NOBODY)
    environ = {"HOME": str(tmp_path / "home")}
    with pytest.raises(Refused, match=f"user {NOBODY}, who owns it, can change the config"):
        load(str(file), str(root), environ)
    assert load(str(file), str(root), {**environ, "VENVFLOW_TRUST": str(root)}).warnings != ()
    os.chown(file, 0, 0)
    assert load(str(file), str(root), environ).warnings == ()


@needs_root
@pytest.mark.root
def test_a_store_that_others_can_change_is_warned_of_once() -> None:
    """By whoever reads the config, with what is done instead, unless they say that they trust it."""
    with for_everybody() as place:
        root = project(place)
        file = root / "venvflow.yaml"
        file.write_text(one_venv())
        (place / "store/objects").mkdir(parents=True)
        os.chown(place / "store", 1234, 1234)

        def work() -> None:
            environ = {"HOME": "/", "VENVFLOW_STORE": str(place / "store")}
            (text,) = load(str(file), str(root), environ).warnings
            assert text.startswith("the store is not used by links, because user 1234 owns it")
            assert "nothing is written to it" in text
            assert (
                load(str(file), str(root), {**environ, "VENVFLOW_TRUST": str(place / "store")}).warnings == ()
            )

        assert in_child(work, user=NOBODY) == 0
