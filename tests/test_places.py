"""Places: what is there, swaps that may be killed at any call, and removal that touches nothing else."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from contents import (
    KILLED,
    NOBODY,
    dies_at,
    for_everybody,
    in_child,
    killed_at_each,
    linux_only,
    make_deep,
    mounted,
    needs_proc,
    needs_root,
    picture,
    write,
)
from tiers import first_quick

from venvflow import interrupts
from venvflow.disk import directories
from venvflow.disk import places as module
from venvflow.disk.descriptors import directory
from venvflow.disk.directories import remove_tree
from venvflow.disk.places import (
    KEPT_SUFFIX,
    RECEIPT,
    Place,
    directory_mtimes,
    read_receipt,
    write_receipt,
)
from venvflow.errors import EnvironmentFailure, LockTimeout, Refused
from venvflow.model import PlaceState, Receipt

NEW = {"pyvenv.cfg": b"new", "lib/a.py": b"new"}
OLD = {"pyvenv.cfg": b"old", "lib/a.py": b"old"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Give the place of a venv that does not exist yet."""
    return Place(str(tmp_path / "p" / ".venv"))


@pytest.fixture(params=["exchange", "two renames", "file by file"])
def exchanging(request: pytest.FixtureRequest, place: Place, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with a kernel that exchanges names, one that does not, and one that moves no directories."""
    if request.param != "exchange":
        monkeypatch.setattr(module, "exchange", lambda *_, **__: False)
    if request.param == "file by file":
        if not os.path.exists("/proc/self/fd"):
            pytest.skip("needs /proc to know where a rename happens")
        monkeypatch.setattr(os, "rename", _layered(place))
    return str(request.param)


def _layered(place: Place) -> Callable[..., None]:
    """Return a rename that moves no directory out of the venv's place, as in a lower layer of an overlay."""
    real = os.rename

    def rename(source: str, target: str, *, src_dir_fd: int | None = None, **more: Any) -> None:
        below = os.readlink(f"/proc/self/fd/{src_dir_fd}") if src_dir_fd is not None else ""
        path = os.path.join(below, source)
        if f"{path}/".startswith(f"{place.path}/") and os.path.isdir(path) and not os.path.islink(path):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source)
        real(source, target, src_dir_fd=src_dir_fd, **more)

    return rename


def receipt_for(place: Place, **more: Any) -> Receipt:
    """Return a receipt of the venv at *place*."""
    return Receipt("a" * 64, place.path, "shared", "built", **more)


def make_venv(place: Place, files: dict[str, bytes] | None = None, *, ours: bool = True) -> None:
    """Make a venv in place, with a receipt if it is *ours*."""
    write(place.path, files or OLD)
    if ours:
        write_receipt(place.path, receipt_for(place))


def make_whole(place: Place) -> Receipt:
    """Make a venv with an interpreter and a receipt that watches its directories."""
    write(place.path, {"bin/python": b"", "lib/pkg/a.py": b"", "pyvenv.cfg": b""})
    receipt = receipt_for(place, directories=directory_mtimes(place.path, ["bin", "lib", "lib/pkg"]))
    write_receipt(place.path, receipt)
    made = place.receipt()
    assert made is not None
    return made


def test_a_signal_that_comes_while_staging_is_removed_leaves_nothing_behind(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is being cleaned up is cleaned up; the interrupt comes behind it."""
    real = os.unlink

    def unlink(*arguments: Any, **more: Any) -> None:
        monkeypatch.setattr(os, "unlink", real)
        signal.raise_signal(signal.SIGINT)
        real(*arguments, **more)

    with pytest.raises(KeyboardInterrupt), interrupts.raised(), place.staged():
        monkeypatch.setattr(os, "unlink", unlink)
    assert os.unlink is real
    assert not os.path.lexists(place.staging)


@needs_proc
def test_a_place_that_somebody_else_makes_a_venv_at_is_waited_for(place: Place) -> None:
    """For a while: a killed run's builder may be about to end. Then the holder is named."""
    with place.staged():
        with pytest.raises(
            LockTimeout, match=rf"at this place: another task of this run \(pid {os.getpid()}\)"
        ):
            Place(place.path, patience=0).settle()
        waiting = threading.Thread(target=Place(place.path, patience=30).settle)
        waiting.start()
    waiting.join(30)
    assert not waiting.is_alive()
    assert not os.path.lexists(place.staging)


def test_staging_that_goes_while_it_is_looked_at_is_settled(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was making a venv has just finished: nothing is left to do."""
    is_ours = vars(module)["_is_ours"]
    os.makedirs(place.staging)

    def looked_at_too_late(name: str, parent: int) -> bool:
        os.rmdir(place.staging)
        return bool(is_ours(name, parent))

    monkeypatch.setattr(module, "_is_ours", looked_at_too_late)
    place.settle()
    assert not os.path.lexists(place.staging)


def versions(place: Place) -> list[str]:
    """Return which whole venvs lie at the place and under the name that keeps strangers', in this order."""
    found = []
    for path in (place.path, place.path + KEPT_SUFFIX):
        files = {name: data for name, (kind, data, _) in picture(path).items() if kind == "file"}
        files.pop(RECEIPT, None)
        found.append("new" if files == NEW else "old" if files == OLD else "none" if not files else "torn")
    return found


# --------------------------------------------------------------------------- what is there


def make_dangling(place: Place) -> None:
    """Put a dangling symlink in the place."""
    Path(place.path).symlink_to("nowhere")


def make_symlink(place: Place) -> None:
    """Put a symlink to a venv in the place."""
    write(Path(place.parent) / "target", OLD)
    Path(place.path).symlink_to("target")


def make_receipt_only(place: Place, data: bytes) -> None:
    """Put a venv with something that is called like a receipt in the place."""
    make_venv(place, ours=False)
    (Path(place.path) / RECEIPT).write_bytes(data)


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (lambda _: None, "absent"),
        (lambda place: os.mkdir(place.path), "empty"),
        (lambda place: make_venv(place, ours=False), "venv"),
        (make_venv, "ours"),
        (make_symlink, "symlink"),
        (make_dangling, "symlink"),
        (lambda place: Path(place.path).touch(), "file"),
        (lambda place: os.mkfifo(place.path), "file"),
        (lambda place: write(place.path, {"thesis.tex": b"x"}), "stranger"),
        (lambda place: make_receipt_only(place, b"garbage"), "venv"),
        (lambda place: make_receipt_only(place, b'{"key": 1}'), "venv"),
    ],
)
@pytest.mark.parametrize("spelling", ["p/.venv", "p/.venv/", "p//x/.././.venv"])
def test_state_says_what_is_in_the_place(
    tmp_path: Path, make: Callable[[Place], object], state: PlaceState, spelling: str
) -> None:
    """However the config spells the path: what is there itself counts, not what a link points at."""
    place = Place(f"{tmp_path}/{spelling}")
    os.mkdir(place.parent)
    make(place)
    assert place.state() == state


def test_a_parent_that_is_a_file_means_that_nothing_is_there(tmp_path: Path) -> None:
    """Making a venv there fails with a clear error, not with a traceback."""
    (tmp_path / "file").touch()
    place = Place(str(tmp_path / "file" / ".venv"))
    assert place.state() == "absent"
    with pytest.raises(EnvironmentFailure, match="cannot change the venv's place"), place.staged():
        pass


def test_a_symlinked_parent_is_resolved_once(tmp_path: Path) -> None:
    """The real directory is what is worked in."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert Place(str(tmp_path / "link" / ".venv")).path == str(tmp_path / "real" / ".venv")


def test_a_venv_that_lost_all_marks_is_known_by_its_inode(place: Place) -> None:
    """A half-deleted venv of ours can be made anew, without anybody's help."""
    write(place.path, {"lib/a.py": b""})
    assert place.state() == "stranger"
    assert place.state(place.inode()) == "ours"


@pytest.mark.parametrize(
    ("files", "state"), [({"thesis.tex": b"", "lib/a": b""}, "stranger"), (OLD, "venv"), ({}, "empty")]
)
def test_an_inode_alone_makes_nothing_ours(place: Place, files: dict[str, bytes], state: PlaceState) -> None:
    """File systems use inodes again, and tools that clear a venv keep its directory."""
    os.makedirs(place.path)
    write(place.path, files)
    assert place.state(place.inode()) == state


@pytest.mark.parametrize("state", ["symlink", "file", "mount", "stranger", "other-owner"])
def test_what_is_no_venv_is_never_replaced(place: Place, state: PlaceState) -> None:
    """The refusal says what is there, and what to do."""
    os.makedirs(place.parent)
    make_dangling(place)
    with pytest.raises(Refused) as caught:
        place.refuse_unless_replaceable(state)
    assert caught.value.exit_code == 6
    assert caught.value.hint
    assert ("nowhere" in str(caught.value)) == (state == "symlink")


@pytest.mark.parametrize("state", ["absent", "empty", "venv", "ours"])
def test_a_venv_or_nothing_may_be_replaced(place: Place, state: PlaceState) -> None:
    """These are what the flow is for."""
    place.refuse_unless_replaceable(state)


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_a_mount_inside_a_venv_is_found(place: Place, tmp_path: Path, kind: str) -> None:
    """A bind mount within one file system has no other device, and is found all the same."""
    make_venv(place)
    target = Path(place.path) / "lib" / "a b"
    target.mkdir()
    with mounted(target, *volume(tmp_path, kind)):
        assert place.state() == "mount"


def volume(tmp_path: Path, kind: str) -> list[str]:
    """Return the words with which a new volume is mounted."""
    (tmp_path / "volume").mkdir()
    return ["-t", "tmpfs", "none"] if kind == "tmpfs" else ["--bind", str(tmp_path / "volume")]


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_a_venv_that_is_a_mount_point_is_replaced_inside_it(tmp_path: Path, kind: str) -> None:
    """An empty volume gets a venv, then another one; removing empties it; a stranger's is refused."""
    path = tmp_path / "p" / ".venv"
    path.mkdir(parents=True)
    with mounted(path, *volume(tmp_path, kind)):
        place = Place(str(path))
        (path / "lost+found").mkdir()
        assert place.state() == "empty"
        for files in (OLD, NEW):
            with place.staged() as venv:
                write(venv, {**files, "lib/b/c.py": b""})
                write_receipt(venv, receipt_for(place, directories=directory_mtimes(venv, ["lib", "lib/b"])))
                place.swap_in(keep_old=False)
            assert place.state() == "ours"
            assert (path / "lib/a.py").read_bytes() == files["lib/a.py"]
            write(path, {"lib/by hand": b""})
        place.remove()
        assert os.listdir(path) == ["lost+found"]
        make_venv(place, ours=False)
        assert place.state() == "mount"
        assert os.listdir(path.parent) == [".venv"]


@needs_root
@pytest.mark.root
def test_another_users_venv_is_not_ours() -> None:
    """It is left alone, even where the directory modes would allow more."""
    with for_everybody() as directory:
        place = Place(f"{directory}/.venv")
        make_venv(place)
        for path in (place.path, f"{place.path}/lib"):
            os.chmod(path, 0o777)  # noqa: S103 - so that only the owner is in the way

        def work() -> None:
            assert place.state() == "other-owner"

        assert in_child(work, user=NOBODY) == 0
        os.chown(place.path, NOBODY, NOBODY)
        assert in_child(lambda: expect(place.state(), "ours"), user=NOBODY) == 0
        assert place.state() == "ours"


def expect(found: object, expected: object) -> None:
    """Fail unless both are equal."""
    assert found == expected, found


@needs_root
@pytest.mark.root
def test_a_place_that_one_may_not_look_at_is_an_error() -> None:
    """The message names the path and says what to check."""
    with for_everybody() as directory:
        place = Place(f"{directory}/closed/.venv")
        os.mkdir(place.parent, 0o700)

        def work() -> None:
            with pytest.raises(EnvironmentFailure, match=r"closed.*Check owner"):
                place.state()

        assert in_child(work, user=NOBODY) == 0


@needs_root
@pytest.mark.root
def test_a_venv_whose_receipt_one_may_not_read_is_not_taken_for_somebodys() -> None:
    """Nobody knows whose it is until the file can be read, and the message names that file."""
    with for_everybody() as directory:
        os.chown(directory, NOBODY, NOBODY)

        def work() -> None:
            place = Place(f"{directory}/.venv")
            make_venv(place)
            os.chmod(f"{place.path}/{RECEIPT}", 0)
            with pytest.raises(EnvironmentFailure, match=rf"{RECEIPT}.*Permission denied.*Check owner"):
                place.state()

        assert in_child(work, user=NOBODY) == 0


# --------------------------------------------------------------------------- receipts


def test_a_receipt_comes_back_as_it_was_written(place: Place) -> None:
    """With all its fields, and with names that are no UTF-8."""
    os.makedirs(place.path)
    receipt = receipt_for(
        place, python="/usr/bin/python3", trees=("b" * 64, "c" * 64), bound=True, link="hardlink",
        directories={"lib/\udcff": 12, "bin": 10**18},
    )  # fmt: skip
    write_receipt(place.path, receipt)
    assert place.receipt() == receipt
    assert os.listdir(place.path) == [RECEIPT]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"{}", b'{"key": "k", "trees": 3}', b"\xff", b'{"x":1}']
)
def test_a_damaged_receipt_is_none(place: Place, data: bytes) -> None:
    """A venv without one that makes sense was not finished."""
    write(place.path, {RECEIPT: data})
    assert place.receipt() is None


def test_a_receipt_is_never_written_through_a_link(place: Place, tmp_path: Path) -> None:
    """The link is replaced; what it leads to is somebody's."""
    (tmp_path / "canary").write_bytes(b"canary")
    os.makedirs(place.path)
    (Path(place.path) / RECEIPT).symlink_to(tmp_path / "canary")
    write_receipt(place.path, receipt_for(place))
    assert (tmp_path / "canary").read_bytes() == b"canary"
    assert place.receipt() == receipt_for(place)


def test_a_receipt_that_cannot_be_written_is_an_error_in_four_parts(place: Place) -> None:
    """Here the venv is gone."""
    with pytest.raises(EnvironmentFailure) as caught:
        write_receipt(place.path, receipt_for(place))
    assert all((caught.value.what, caught.value.where, caught.value.state, caught.value.hint))


def test_an_untouched_venv_is_untouched(place: Place) -> None:
    """Also after Python has filled its bytecode caches, and after a file was edited in place."""
    os.makedirs(Path(place.path) / "lib/pkg/__pycache__")
    receipt = make_whole(place)
    assert place.has_same_directories(receipt)
    assert list(directory_mtimes(place.path, ["lib/pkg/__pycache__", "bin"])) == ["bin"]
    (Path(place.path) / "lib/pkg/__pycache__/a.pyc").touch()
    (Path(place.path) / "lib/pkg/a.py").write_bytes(b"edited")
    assert place.has_same_directories(receipt)


@pytest.mark.parametrize("parent", ["", "bin", "lib", "lib/pkg"])
@pytest.mark.parametrize("change", ["added", "removed", "directory"])
def test_a_change_in_any_directory_is_seen(place: Place, parent: str, change: str) -> None:
    """The venv's own directory counts, too, although the receipt is written into it."""
    write(place.path, {os.path.join(parent, "extra"): b""})
    receipt = make_whole(place)
    extra = Path(place.path) / parent / "extra"
    if change == "removed":
        extra.unlink()
    elif change == "added":
        extra.with_name("more").touch()
    else:
        extra.with_name("more").mkdir()
    assert not place.has_same_directories(receipt)


def test_writing_the_receipt_again_does_not_touch_the_venv(place: Place) -> None:
    """Nor does it hide what was done since to the directories that it watches."""
    receipt = make_whole(place)
    write_receipt(place.path, receipt)
    assert place.has_same_directories(receipt)
    (Path(place.path) / "lib/new").touch()
    write_receipt(place.path, receipt)
    again = place.receipt()
    assert again is not None
    assert not place.has_same_directories(again)


@pytest.mark.parametrize("how", ["dangling", "gone"])
def test_a_venv_without_interpreter_is_not_untouched(place: Place, how: str) -> None:
    """An interpreter that was uninstalled moves no directory of the venv."""
    os.makedirs(Path(place.path) / "bin")
    (Path(place.path).parent / "python3").touch()
    write(place.path, {"pyvenv.cfg": b""})
    (Path(place.path) / "bin/python").symlink_to("../../python3")
    write_receipt(place.path, receipt_for(place))
    receipt = place.receipt()
    assert receipt is not None
    assert place.has_same_directories(receipt)
    if how == "dangling":
        os.unlink(Path(place.path).parent / "python3")
    else:
        shutil.rmtree(place.path)
    assert not place.has_same_directories(receipt)


def test_a_moved_venv_is_not_untouched(place: Place) -> None:
    """Its scripts name the old path."""
    make_whole(place)
    moved = Place(place.path + "-moved")
    os.rename(place.path, moved.path)
    receipt = moved.receipt()
    assert receipt is not None
    assert not moved.has_same_directories(receipt)


# --------------------------------------------------------------------------- swapping


def swap(place: Place, *, keep_old: bool = False, files: dict[str, bytes] | None = None) -> str:
    """Make a new venv and swap it in."""
    with place.staged() as venv:
        write(venv, files or NEW)
        return place.swap_in(keep_old=keep_old)


def test_a_new_venv_is_swapped_in_and_nothing_is_left_beside(place: Place, exchanging: str) -> None:
    """Whether there was none, an empty directory, or an old venv."""
    swap(place, files=OLD)
    assert versions(place) == ["old", "none"]
    swap(place)
    assert versions(place) == ["new", "none"]
    shutil.rmtree(place.path)
    os.mkdir(place.path)
    swap(place)
    assert versions(place) == ["new", "none"]
    assert os.listdir(place.parent) == [".venv"]


@needs_proc
@pytest.mark.parametrize("exchanging", ["file by file"], indirect=True)
def test_each_step_of_replacing_is_on_disk_before_the_next_one(
    place: Place, exchanging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut there is the old venv, or one that is known to be half replaced, or the new one."""
    swap(place, files=OLD)
    events: list[str] = []
    names = {place.path: "venv", place.staging: "staging"}

    def noted(owner: Any, name: str, say: Callable[..., str]) -> None:
        real = getattr(owner, name)

        def work(*args: Any, **kwargs: Any) -> Any:
            if (event := say(*args)) and event not in events[-1:]:
                events.append(event)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, work)

    notes = {module._HALF: "mark", module._REPLACING: "note"}
    noted(module, "sync_file_system", lambda _: "new files synced")
    noted(module, "_write_new", lambda name, *_: notes.get(name, ""))
    noted(module, "fill", lambda *_: "filled")
    noted(os, "fsync", lambda fd: f"{name} synced" if (name := names.get(_path_of(fd))) else "")
    noted(os, "unlink", lambda path: f"no {notes[path]}" if path in notes else "")
    swap(place)
    begun = ["new files synced", "mark", "venv synced", "note", "staging synced", "filled"]
    start = events.index("new files synced")
    assert events[start : start + len(begun)] == begun
    assert events[events.index("no mark") - 1] == "venv synced"
    assert events.index("no mark") < events.index("no note")


def _path_of(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def test_a_venv_has_its_name_on_disk_when_it_is_said_to_be_there(
    place: Place, exchanging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory that it was renamed in is synced after the last rename: a power cut cannot undo that."""
    swap(place, files=OLD)
    events: list[str] = []
    parent, swapped = os.stat(place.parent).st_ino, vars(module)["exchange"]
    sync, rename, unlink = os.fsync, os.rename, os.unlink

    def synced(fd: int) -> None:
        if os.fstat(fd).st_ino == parent:
            events.append("synced")
        sync(fd)

    def renamed(*args: Any, **kwargs: Any) -> None:
        rename(*args, **kwargs)
        events.append("renamed")

    def exchanged(*args: Any, **kwargs: Any) -> bool:
        events.append("renamed")
        return bool(swapped(*args, **kwargs))

    def unlinked(path: Any, **kwargs: Any) -> None:
        if path == module._REPLACING:
            events.append("the note is gone")
        unlink(path, **kwargs)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(os, "unlink", unlinked)
    monkeypatch.setattr(module, "exchange", exchanged)
    with place.staged() as venv:
        write(venv, NEW)
        place.swap_in(keep_old=False)
        assert events[-1] == "synced"
        assert "renamed" in events
        if "the note is gone" in events:  # with it, whoever finds the venv half replaced goes on
            assert events[events.index("the note is gone") - 1] == "synced"
    assert versions(place) == ["new", "none"]


def test_a_strangers_venv_is_kept_beside(place: Place, exchanging: str) -> None:
    """It is moved, whole, and the answer says where to."""
    make_venv(place, ours=False)
    assert swap(place, keep_old=True) == place.path + KEPT_SUFFIX
    assert versions(place) == ["new", "old"]


def test_two_venvs_are_never_kept_under_one_name(place: Place, exchanging: str) -> None:
    """The next one gets a number, whatever has the name; what is ignored by its end still is."""
    for number, kept in enumerate((KEPT_SUFFIX, f".2{KEPT_SUFFIX}", f".3{KEPT_SUFFIX}")):
        make_venv(place, ours=False)
        write(place.path, {"mine": b"%d" % number})
        assert swap(place, keep_old=True) == place.path + kept
        assert Path(f"{place.path}{kept}", "mine").read_bytes() == b"%d" % number
        shutil.rmtree(place.path)


@pytest.mark.parametrize("keep_old", [False, True])
@pytest.mark.parametrize("call", range(3))
def test_a_swap_that_fails_gives_the_place_its_venv_back(
    place: Place, exchanging: str, keep_old: bool, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error is not a kill, but it may come at the same moments."""
    make_venv(place, ours=not keep_old)
    real, left = os.rename, [call]

    def failing(*args: Any, **kwargs: Any) -> None:
        left[0] -= 1
        if left[0] == -1:
            raise PermissionError(13, "no")
        real(*args, **kwargs)

    monkeypatch.setattr(os, "rename", failing)
    found = []
    try:
        swap(place, keep_old=keep_old)
    except EnvironmentFailure as error:
        found.append(error.state)
    after = ["new", "old" if keep_old else "none"]
    assert versions(place) == after or (found and versions(place) == ["old", "none"])
    assert not found or found == ["What is at the venv's place is whole."]
    monkeypatch.undo()
    place.settle()
    assert versions(place)[0] in ("old", "new")
    assert not os.path.lexists(place.staging)


@pytest.mark.slow
@pytest.mark.parametrize("keep_old", [False, True])
def test_whenever_a_swap_is_killed_there_is_a_whole_venv(
    place: Place, exchanging: str, keep_old: bool
) -> None:
    """After settling, the old one or the new one is in place, and nothing is left over."""
    functions = ("rename", "mkdir", "unlink", "rmdir", "fsync")

    def prepare() -> None:
        shutil.rmtree(place.parent, ignore_errors=True)
        make_venv(place, ours=not keep_old)

    for when in killed_at_each(lambda: swap(place, keep_old=keep_old), functions, prepare):
        place.settle()
        found = versions(place)
        assert found in (["old", "none"], ["new", "old"] if keep_old else ["new", "none"]), when
        assert not os.path.lexists(place.staging), when
    assert versions(place) == ["new", "old" if keep_old else "none"]


@pytest.mark.slow
def test_whenever_settling_is_killed_the_next_one_completes_it(place: Place) -> None:
    """Deleting what is left over takes longest, so that is when kills come."""

    def cut_short() -> None:
        setattr(module, "exchange", lambda *_, **__: False)  # noqa: B010 - it is imported there
        os.rename = dies_at("rename", 1)  # the old one has been moved away, the new one is not there yet
        swap(place)

    def prepare() -> None:
        shutil.rmtree(place.parent, ignore_errors=True)
        make_venv(place)
        assert in_child(cut_short) == KILLED
        assert not os.path.lexists(place.path)

    for when in killed_at_each(place.settle, ("rename", "unlink", "rmdir"), prepare):
        place.settle()
        assert versions(place) == ["old", "none"], when
        assert os.listdir(place.parent) == [".venv"], when


def test_half_a_deleted_venv_never_comes_back(place: Place) -> None:
    """A removal that is killed leaves nothing at the place, then and after settling."""
    for when in killed_at_each(place.remove, ("rename", "unlink", "rmdir"), lambda: make_venv(place)):
        place.settle()
        assert versions(place)[0] in ("none", "old"), when
        assert not os.path.lexists(place.staging), when


def test_an_old_venv_that_is_half_deleted_does_not_come_back_either(place: Place) -> None:
    """Even if somebody deletes the new one before the next run."""
    make_venv(place)

    def work() -> None:
        setattr(module, "exchange", lambda *_, **__: False)  # noqa: B010 - it is imported there
        os.unlink = dies_at("unlink", 1)
        swap(place)

    in_child(work)
    assert versions(place) == ["new", "none"]
    assert os.path.lexists(place.staging)
    shutil.rmtree(place.path)
    place.settle()
    assert os.listdir(place.parent) == []


def test_a_failed_build_leaves_the_old_venv_and_nothing_else(place: Place) -> None:
    """What was staged goes."""
    make_venv(place)
    with pytest.raises(RuntimeError), place.staged() as venv:  # noqa: PT012 - the work before counts
        write(venv, NEW)
        raise RuntimeError
    assert versions(place) == ["old", "none"]
    assert os.listdir(place.parent) == [".venv"]


def test_the_staged_venv_has_the_same_base_name_and_is_ignored_by_git(place: Place) -> None:
    """Builders derive the prompt from it, and half-made files do not show up in anybody's commit."""
    with place.staged() as venv:
        assert os.path.basename(venv) == ".venv"
        assert not os.path.lexists(venv)
        assert (Path(place.staging) / ".gitignore").read_text().endswith("\n*\n")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: write(path, {"thesis.tex": b"x"}),
        lambda path: write(path, {".gitignore": b"*.pyc\n", "thesis.tex": b"x"}),
        lambda path: path.write_bytes(b"x"),
        lambda path: (path.with_name("real").mkdir(), path.symlink_to("real")),
    ],
    ids=["directory", "with a gitignore", "file", "symlink"],
)
def test_what_only_has_the_name_of_our_staging_is_refused(
    place: Place, make: Callable[[Path], object]
) -> None:
    """It is named, and neither it nor the venv is touched."""
    make_venv(place)
    make(Path(place.staging))
    before = picture(place.parent)
    with pytest.raises(Refused, match="venvflow did not make it"):
        swap(place)
    assert picture(place.parent) == before


def finished(place: Place, files: dict[str, bytes]) -> str:
    """Make a venv with a receipt and swap it in."""
    with place.staged() as venv:
        write(venv, {"bin/python": b"", **files})
        write_receipt(venv, receipt_for(place, directories=directory_mtimes(venv, ["bin", "lib"])))
        return place.swap_in(keep_old=place.state() == "venv")


def test_a_venv_that_was_swapped_in_is_untouched(place: Place, exchanging: str) -> None:
    """However that was done: its receipt knows the times of its directories."""
    for files in (OLD, NEW, {"lib/other.py": b""}):
        finished(place, files)
        receipt = place.receipt()
        assert receipt is not None
        assert place.has_same_directories(receipt)


@pytest.mark.slow
@pytest.mark.parametrize("exchanging", ["file by file"], indirect=True)
@pytest.mark.parametrize("meanwhile", ["deleted", "made anew"])
def test_what_is_left_of_a_venv_goes_into_no_other_one(place: Place, exchanging: str, meanwhile: str) -> None:
    """Somebody deleted the half-replaced venv before the next run: the other half alone is no venv."""
    functions = ("rename", "unlink", "mkdir", "fsync")

    def prepare() -> None:
        shutil.rmtree(place.parent, ignore_errors=True)
        finished(place, OLD)

    for when in killed_at_each(lambda: finished(place, NEW), functions, prepare):
        shutil.rmtree(place.path)
        if meanwhile == "made anew":
            make_venv(place, ours=False)
        place.settle()
        assert versions(place) == ["old" if meanwhile == "made anew" else "none", "none"], when
        assert not os.path.lexists(place.staging), when


@pytest.mark.slow
@pytest.mark.parametrize("exchanging", ["file by file"], indirect=True)
def test_a_half_replaced_venv_never_looks_finished(place: Place, exchanging: str) -> None:
    """Whenever it is killed, what has a receipt is whole, before the next run as well."""
    half = 0
    for when in killed_at_each(
        lambda: finished(place, NEW), ("rename", "unlink", "mkdir"), lambda: finished(place, OLD)
    ):
        files = {path: each[1] for path, each in picture(place.path).items() if path in NEW}
        receipt = place.receipt()
        assert receipt is None or files in (OLD, NEW), when
        half += receipt is None
        place.settle()
        files = {path: each[1] for path, each in picture(place.path).items() if path in NEW}
        assert place.state() == "ours", when
        assert files in (OLD, NEW), when
        assert os.listdir(place.parent) == [".venv"], when
    assert half


def make_parent_a_link(place: Place, target: Path) -> None:
    """Put a link in the place of the directory that the venv is in, to one that looks like it."""
    shutil.copytree(place.parent, target, symlinks=True)
    os.rename(place.parent, f"{place.parent}-moved")
    os.symlink(target, place.parent)


def make_staging_a_link(place: Place, target: Path) -> None:
    """Put a link in the place of the staging directory, to one that looks like it."""
    shutil.copytree(place.staging, target, symlinks=True)
    os.rename(place.staging, f"{place.staging}-moved")
    os.symlink(target, place.staging)


class Attack:
    """Something that happens to a place once, at a *call* of a function of ``os``; *met*: it did."""

    def __init__(self, place: Place, make: Callable[[Place, Path], None], target: Path) -> None:
        self.place = place
        self.target = target
        self.before: dict[str, object] = {}
        self._make = make

    def at(self, function: str, call: int, patch: pytest.MonkeyPatch) -> None:
        """Let it happen at this call."""
        real, left = getattr(os, function), [call]

        def attacked(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == -1 and os.path.isdir(self.place.staging):
                patch.setattr(os, function, real)
                self._make(self.place, self.target)
                self.before = dict(picture(self.target))
            return real(*args, **kwargs)

        patch.setattr(os, function, attacked)


@pytest.mark.slow
@pytest.mark.parametrize("attack", first_quick([make_parent_a_link, make_staging_a_link]))
@pytest.mark.parametrize("work", [Place.remove, swap], ids=["remove", "swap"])
def test_a_link_that_is_put_there_meanwhile_is_not_followed(
    tmp_path: Path, exchanging: str, attack: Callable[[Place, Path], None], work: Callable[[Place], object]
) -> None:
    """Whenever it comes: what it leads to keeps all that it has."""
    met = 0
    for function, call in product(("rename", "mkdir", "unlink", "rmdir"), range(12)):
        shutil.rmtree(tmp_path, ignore_errors=True)
        place = Place(str(tmp_path / "p" / ".venv"))
        make_venv(place)
        made = Attack(place, attack, tmp_path / "target")
        with pytest.MonkeyPatch.context() as patch:
            made.at(function, call, patch)
            with suppress(EnvironmentFailure, Refused, OSError):
                work(place)
        after = picture(made.target)
        assert {name: after.get(name) for name in made.before} == made.before, (function, call)
        met += bool(made.before)
    assert met > 5


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        lambda path: path.symlink_to("nowhere"),
        lambda path: (path.mkdir(), subprocess.run(["mkfifo", path / ".gitignore"], check=True)),
        lambda path: (path.mkdir(), (path / ".gitignore").symlink_to("/dev/zero")),
        lambda path: (path.mkdir(), (path / ".gitignore").mkdir()),
    ],
    ids=["fifo", "dangling", "marked by a fifo", "marked by a device", "marked by a directory"],
)
def test_what_is_planted_as_staging_is_refused_at_once(place: Place, make: Callable[[Path], object]) -> None:
    """Nobody waits for it, and it stays."""
    make_venv(place)
    make(Path(place.staging))
    with pytest.raises(Refused, match="venvflow did not make it"):
        swap(place)
    assert os.path.lexists(place.staging)
    assert versions(place) == ["old", "none"]


@pytest.mark.parametrize("slot", ["old", "new", "gone", "kept"])
def test_a_link_in_a_staging_directory_is_removed_and_not_followed(place: Place, slot: str) -> None:
    """Somebody put it where a killed run has its parts; what it leads to stays there."""
    make_venv(place)
    outside = Path(place.parent) / "outside"
    write(outside, {".venv/canary": b"x"})
    os.mkdir(place.staging)
    (Path(place.staging) / ".gitignore").write_bytes(module._MARK_TEXT)
    (Path(place.staging) / slot).symlink_to(outside)
    shutil.rmtree(place.path)
    with suppress(EnvironmentFailure):
        place.settle()
    assert picture(outside)[".venv/canary"] == ("file", b"x", False)
    assert not os.path.lexists(place.path)


@needs_root
@pytest.mark.root
def test_root_settles_what_the_owner_of_a_directory_left_and_nobody_else(place: Place) -> None:
    """A staging directory that a third user put there is not ours."""
    make_venv(place)
    os.mkdir(place.staging)
    (Path(place.staging) / ".gitignore").write_bytes(module._MARK_TEXT)
    os.chown(place.staging, NOBODY, NOBODY)
    with pytest.raises(Refused, match="another user"):
        place.settle()
    os.chown(place.parent, NOBODY, NOBODY)
    place.settle()
    assert not os.path.lexists(place.staging)


@pytest.mark.parametrize("what", ["symlink", "dangling", "file"])
def test_nothing_is_kept_over_what_has_the_name(place: Place, tmp_path: Path, what: str) -> None:
    """Neither in the place of a link nor behind it: the venv gets a name with a number."""
    make_venv(place, ours=False)
    kept = Path(place.path + KEPT_SUFFIX)
    if what == "file":
        kept.touch()
    else:
        kept.symlink_to(tmp_path if what == "symlink" else "nowhere")
    before = os.lstat(kept)
    assert swap(place, keep_old=True) == f"{place.path}.2{KEPT_SUFFIX}"
    assert os.path.samestat(os.lstat(kept), before)
    assert versions(place)[0] == "new"


def test_a_venv_that_was_on_its_way_beside_under_a_number_comes_back(place: Place) -> None:
    """A kill came just then: the name that it had got is noted."""
    make_venv(place, ours=False)
    write(place.path + KEPT_SUFFIX, {"mine": b"older"})
    before = picture(place.parent)
    with place.staged():
        assert place._held is not None
        assert place._move_beside(place._held)
        assert os.path.exists(f"{place.path}.2{KEPT_SUFFIX}")
    assert picture(place.parent) == before


def test_removing_deletes_the_venv_and_nothing_else(place: Place) -> None:
    """The neighbours stay."""
    make_venv(place)
    write(place.parent, {"main.py": b"x"})
    place.remove()
    assert os.listdir(place.parent) == ["main.py"]


# --------------------------------------------------------------------------- removing trees


def remove(path: Path) -> None:
    """Remove the directory *path*."""
    with directory(str(path.parent)) as parent:
        remove_tree(path.name, parent, path.stat().st_dev)


def test_removing_never_follows_links(tmp_path: Path) -> None:
    """Links to files and directories go, what they point at stays."""
    write(tmp_path, {"out/canary": b"x", "tree/a/b": b"y"})
    for name, target in (("file", "../out/canary"), ("directory", "../out"), ("dangling", "nowhere")):
        (tmp_path / "tree" / name).symlink_to(target)
    os.mkfifo(tmp_path / "tree/fifo")
    remove(tmp_path / "tree")
    assert picture(tmp_path) == {"out": ("dir", "", False), "out/canary": ("file", b"x", False)}


def test_removing_a_link_itself_is_refused(tmp_path: Path) -> None:
    """A directory that was swapped for a link is not entered."""
    write(tmp_path, {"out/canary": b"x"})
    (tmp_path / "tree").symlink_to("out")
    with pytest.raises(OSError, match="tree"), directory(str(tmp_path)) as parent:
        remove_tree("tree", parent, tmp_path.stat().st_dev)
    assert (tmp_path / "out/canary").exists()


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o500, 0o600])
def test_directories_that_are_closed_are_removed(mode: int) -> None:
    """Packages ship read-only directories; their owner may delete them."""
    with for_everybody() as open_directory:
        tree = open_directory / "tree"
        write(tree, {"closed/a": b"", "closed/below/b": b""})
        for path in (tree, tree / "closed", tree / "closed/below"):
            if os.geteuid() == 0:
                os.chown(path, NOBODY, NOBODY)
        os.chmod(open_directory, 0o777)  # noqa: S103 - for the other user
        (tree / "closed/below").chmod(mode)
        (tree / "closed").chmod(mode)

        assert in_child(lambda: remove(tree), user=NOBODY if os.geteuid() == 0 else None) == 0
        assert not tree.exists()


@needs_root
@pytest.mark.root
@pytest.mark.parametrize(
    ("options", "listed"),
    [(["-t", "tmpfs", "none"], True), (["--bind", "{volume}"], True), (["-t", "tmpfs", "none"], False)],
    ids=["tmpfs", "bind", "tmpfs without the kernel's list"],
)
def test_removing_never_crosses_a_mount(
    tmp_path: Path, options: list[str], listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is mounted keeps its files; where the kernel lists mounts, nothing is deleted at all."""
    write(tmp_path, {"volume/canary": b"x", "tree/a": b"", "tree/data/.keep": b""})
    if not listed:
        monkeypatch.setattr(directories, "mounts_at", lambda _: [])
    with mounted(
        tmp_path / "tree/data", *[word.format(volume=tmp_path / "volume") for word in options]
    ) as data:
        (data / "canary").write_bytes(b"x")
        with pytest.raises(OSError, match="mounted inside"):
            remove(tmp_path / "tree")
        assert (data / "canary").exists()
        assert (tmp_path / "tree/a").exists() or not listed


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """Give a directory with 1,000 more, one in the other."""
    top = tmp_path / "deep"
    make_deep(top, 1000)
    yield top
    subprocess.run(["rm", "-rf", str(top)], check=True)


def test_a_tree_that_is_too_deep_is_a_clear_error(deep: Path) -> None:
    """Not a crash of the interpreter, and not silence."""
    with pytest.raises(OSError, match="nested deeper than 200"):
        remove(deep)


def test_a_deep_tree_in_a_staging_directory_is_an_error_in_four_parts(place: Place, deep: Path) -> None:
    """The venv in its place is whole meanwhile."""
    make_venv(place)

    def leave() -> None:
        with place.staged() as venv:
            os.rename(deep, venv)
            os._exit(0)

    assert in_child(leave) == 0
    with pytest.raises(EnvironmentFailure, match="nested deeper than 200") as caught:
        place.settle()
    assert "whole" in caught.value.state
    assert versions(place)[0] == "old"
    os.rename(place.new, deep)
    place.settle()
    assert not os.path.lexists(place.staging)


def test_read_receipt_of_nothing_is_none(tmp_path: Path) -> None:
    """There may be no venv at all."""
    assert read_receipt(str(tmp_path / "none")) is None


# --------------------------------------------------------------------------- deleted while nobody waits


@pytest.fixture
def large(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Give a place with a venv that is large enough for nobody to wait until it is deleted."""
    monkeypatch.setattr(module, "_MANY", 1)
    make_venv(place)
    write_receipt(place.path, receipt_for(place, directories={"lib": 0}))
    return place


def replace_venv(place: Place) -> None:
    """Put a new venv at the place."""
    with place.staged() as venv:
        write(venv, NEW)
        place.swap_in(keep_old=False)


def gone_of(place: Place) -> Path:
    """Return where a replaced venv is deleted."""
    return Path(f"{place.staging}.gone")


def leave(place: Place) -> Path:
    """Leave what a killed process leaves of a replaced venv."""
    gone = gone_of(place)
    write(str(gone), {"new/.venv/lib/a.py": b"old", ".gitignore": module._MARK_TEXT})
    return gone


def test_a_large_venv_is_deleted_by_a_process_that_outlives_the_run(large: Place) -> None:
    """It holds the lock while it is at work, so whoever waits for that sees it end."""
    replace_venv(large)
    assert Path(large.path, "lib/a.py").read_bytes() == b"new"
    with suppress(FileNotFoundError), directory(str(gone_of(large))) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
    assert os.listdir(large.parent) == [".venv"]


def test_what_a_killed_process_leaves_of_a_replaced_venv_is_deleted_by_the_next_run(place: Place) -> None:
    """It shows, and never goes back to the place."""
    place_is_empty = not os.path.lexists(place.path)
    gone = leave(place)
    assert place.is_unsettled()
    place.settle()
    assert place_is_empty
    assert not gone.exists()
    assert not os.path.lexists(place.path)
    assert not place.is_unsettled()


@linux_only  # elsewhere no name is taken without a look first, and the swap deletes the venv
def test_while_replaced_venvs_are_being_deleted_nobody_waits_or_meddles(
    large: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is deleted beside; only after a few of them does a swap delete what it replaces itself."""
    asked: list[str] = []

    def remove_later(name: str, fd: int, parent: int, mark: str) -> bool:
        """Be a process that does not get to its work, and holds the lock with a descriptor of its own."""
        assert mark == module._MARK
        assert os.path.samestat(os.stat(name, dir_fd=parent), os.fstat(fd))
        held.callback(os.close, os.dup(fd))
        asked.append(name)
        return True

    monkeypatch.setattr("venvflow.disk.background_removal.remove_later", remove_later)
    with ExitStack() as held:
        for number in range(1, len(module._GONE_SUFFIXES) + 2):
            replace_venv(large)
            write_receipt(large.path, receipt_for(large, directories={"lib": 0}))
            assert not large.is_unsettled()
            assert sorted(os.listdir(large.parent)) == sorted([".venv", *asked])
            assert len(asked) == min(number, len(module._GONE_SUFFIXES))
    assert large.is_unsettled()  # their processes were killed
    large.settle()
    assert os.listdir(large.parent) == [".venv"]


@pytest.mark.parametrize("number", range(3))
def test_any_replaced_venv_that_a_killed_process_left_shows(place: Place, number: int) -> None:
    """Those before it may have been deleted."""
    gone = leave(place)
    os.rename(gone, f"{place.staging}{module._GONE_SUFFIXES[number]}")
    assert place.is_unsettled()
    place.settle()
    assert not os.listdir(place.parent)


@pytest.mark.parametrize("why", ["CI", "no program"])
def test_where_it_cannot_be_left_to_a_process_the_replaced_venv_is_deleted_at_once(
    large: Place, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CI systems end all that a job has started."""
    if why == "CI":
        monkeypatch.setenv("CI", "true")
    else:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    replace_venv(large)
    assert os.listdir(large.parent) == [".venv"]


def test_what_only_has_the_name_of_a_replaced_venv_is_left_alone(large: Place) -> None:
    """Without the mark it is somebody's own."""
    theirs = gone_of(large)
    write(str(theirs), {"precious": b""})
    assert not large.is_unsettled()
    replace_venv(large)
    assert os.listdir(theirs) == ["precious"]
