"""Relinking: every name keeps its bytes, whatever happens meanwhile."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from contents import (
    elsewhere,
    file_entry,
    killed_at_each,
    name_of,
    needs_proc,
    objects_in,
    picture,
    put,
    write,
)

from venvflow.disk.links import Linker
from venvflow.disk.objects import Name, Objects, object_name, sealed
from venvflow.disk.scan import Found, walk
from venvflow.disk.system_errors import path_of
from venvflow.model import Entry, LinkMode
from venvflow.state import relink as module
from venvflow.state.relink import Relinked, Relinker, is_temporary

SITE = "lib/python3.12/site-packages"
FILES = {
    f"{SITE}/demo/__init__.py": b"A = 1\n",
    f"{SITE}/demo/data.bin": bytes(range(256)),
    f"{SITE}/demo/empty.py": b"",
    f"{SITE}/demo-1.0.dist-info/RECORD": b"demo/__init__.py,,\n",
    "bin/demo": b"#!/bin/sh\n",
    "pyvenv.cfg": b"home = /usr/bin\n",
}
PYC = f"{SITE}/demo/__pycache__/__init__.cpython-312.pyc"
SHARED = [f"{SITE}/demo/__init__.py", f"{SITE}/demo/data.bin", "bin/demo"]
PRIVATE = sorted(FILES.keys() - set(SHARED))


class World:
    """A venv that was surveyed, and a store that has objects of all its files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.venv = root / "venv"
        write(self.venv, FILES)
        (self.venv / "bin/demo").chmod(0o755)
        self.objects: Objects = objects_in(root / "store")
        os.utime(self.venv / SHARED[0], ns=(1, 1))
        self.survey()

    def survey(self) -> None:
        """Look at the venv, and put what it holds into the store."""
        self.found: dict[str, Found] = {item.path: item for item in walk(str(self.venv))}
        self.entries: dict[str, Entry] = {}
        for path, item in self.found.items():
            if item.kind == "file" and not is_temporary(path):
                data = (self.venv / path).read_bytes()
                put(self.objects, data, executable=item.executable)
                self.entries[path] = file_entry(path, data, executable=item.executable)

    def relink(self, *modes: LinkMode, **more: Any) -> Relinked:
        """Link the venv to the store."""
        origins: dict[Name, str] = more.pop("origins", {})
        linker = Linker(modes or ("hardlink", "copy"))
        min_size = more.pop("min_size", 1)
        own: dict[Name, str] = more.pop("own", {})
        relinker = Relinker(self.objects, str(self.venv), linker, min_size=min_size, origins=origins, own=own)
        return relinker.relink(self.entries, self.found)

    def object(self, path: str) -> Path:
        """Return where the object of a file lies."""
        entry = self.entries[path]
        return Path(self.objects.path(Name(entry.digest, entry.executable)))

    def is_linked(self, path: str) -> bool:
        """Return whether the file is the object itself."""
        return os.path.samefile(self.venv / path, self.object(path))

    def damage(self, path: str, data: bytes) -> None:
        """Plant an object with other bytes under the name of a file's."""
        self.object(path).unlink()
        self.object(path).write_bytes(data)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give a surveyed venv and its store."""
    return World(tmp_path)


def test_files_become_links_and_keep_their_bytes(world: World) -> None:
    """What may be shared is the object itself; the rest is private, with the mtime of its content."""
    before = picture(world.venv)
    done = world.relink()
    assert picture(world.venv) == before
    assert all(world.is_linked(path) for path in SHARED)
    for path in PRIVATE:
        st = (world.venv / path).stat()
        assert (st.st_nlink, st.st_mtime_ns) == (1, sealed(object_name(world.entries[path])).mtime_ns), path
    assert done == Relinked({"hardlink": 3}, [])


def test_a_second_time_changes_nothing(world: World) -> None:
    """What is linked already is not touched: renaming it over itself would leave litter."""
    world.relink()
    before = {path: (world.venv / path).stat() for path in FILES}
    world.survey()
    assert world.relink() == Relinked({"hardlink": 3}, [])
    for path, st in before.items():
        assert (world.venv / path).stat().st_ino == st.st_ino
    assert not [item for item in walk(str(world.venv)) if is_temporary(item.path)]


def test_files_are_replaced_by_rename(world: World) -> None:
    """Who has the old file open goes on reading the old bytes, of the old inode."""
    path = world.venv / SHARED[0]
    with open(path, "rb") as opened:
        world.relink()
        assert os.fstat(opened.fileno()).st_nlink == 0
        assert opened.read() == FILES[SHARED[0]]


@pytest.mark.parametrize("planted", [b"A = 2\n", b"A = ", b"A = 1\nB", b""])
def test_an_object_with_other_bytes_never_replaces_a_file(world: World, planted: bytes) -> None:
    """The name of an object is believed by nobody."""
    world.damage(SHARED[0], planted)
    done = world.relink()
    assert (world.venv / SHARED[0]).read_bytes() == FILES[SHARED[0]]
    assert done.kept == [SHARED[0]]
    assert done.modes == {"hardlink": 2}


def test_the_file_that_an_object_was_made_from_needs_no_comparison(world: World) -> None:
    """It was copied a moment ago; all others of the same content are compared."""
    path = SHARED[0]
    origin = {name_of(FILES[path]): f"{world.venv}/{path}"}
    world.damage(path, b"planted")
    assert world.relink(origins=origin).kept == []
    assert (world.venv / path).read_bytes() == b"planted"


@pytest.mark.parametrize("mode", ["hardlink", "copy", "symlink"])
@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"edited"),
        lambda path: path.write_bytes(b"A = 3\n"),
        lambda path: (path.with_name("new").write_bytes(b"A = 4\n"), path.with_name("new").rename(path)),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.symlink_to("data.bin")),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: shutil.rmtree(path.parent),
    ],
    ids=["longer", "same size", "replaced", "deleted", "symlink", "directory", "no parent"],
)
def test_what_changed_since_the_survey_is_left_alone(
    world: World, mode: LinkMode, change: Callable[[Path], object]
) -> None:
    """The newer state is the user's, and it is reported; its time is not made ours either."""
    path = world.venv / SHARED[0]
    change(path)
    left = picture(path.parent) if path.parent.exists() else None
    times = path.lstat().st_mtime_ns if os.path.lexists(path) else None
    done = world.relink(mode)
    assert SHARED[0] in done.kept
    if left is None:
        assert not path.parent.exists()
    else:
        assert picture(path.parent).get("__init__.py") == left.get("__init__.py")
    assert (path.lstat().st_mtime_ns if os.path.lexists(path) else None) == times


@pytest.mark.parametrize("mode", ["hardlink", "symlink"])
def test_an_edit_in_the_last_moment_wins(
    world: World, mode: LinkMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between comparing and renaming there is one more look."""
    path = world.venv / SHARED[0]
    real = module._same_bytes

    def comparing(one: int, other: str, size: int) -> bool:
        same = real(one, other, size)
        if os.path.samestat(os.fstat(one), os.stat(path)):
            path.write_bytes(b"edited")
        return same

    monkeypatch.setattr(module, "_same_bytes", comparing)
    done = world.relink(mode)
    assert done.kept == [SHARED[0]]
    assert path.read_bytes() == b"edited"
    assert not [name for name in os.listdir(path.parent) if is_temporary(name)]


def test_a_private_file_that_is_swapped_in_the_last_moment_keeps_its_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that was opened is looked at and gets the time, not the name."""
    cfg = world.venv / "pyvenv.cfg"
    real = module._same_version

    def looking(st: os.stat_result, item: Found) -> bool:
        if item.path == "pyvenv.cfg":
            (world.venv / "new").write_bytes(b"home = /opt/bin")
            os.utime(world.venv / "new", ns=(5, 5))
            os.replace(world.venv / "new", cfg)
        return real(st, item)

    monkeypatch.setattr(module, "_same_version", looking)
    world.relink()
    assert cfg.read_bytes() == b"home = /opt/bin"
    assert cfg.stat().st_mtime_ns == 5


def test_an_edit_of_a_private_file_keeps_its_time(world: World) -> None:
    """Else drift would never see it."""
    cfg = world.venv / "pyvenv.cfg"
    cfg.write_bytes(b"home = /opt/bin")
    os.utime(cfg, ns=(5, 5))
    assert world.relink().kept == ["pyvenv.cfg"]
    assert cfg.stat().st_mtime_ns == 5


@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_twins_inside_the_venv_are_replaced_one_by_one(world: World, mode: LinkMode) -> None:
    """Two names of one file end as two links to the object, or as two private files."""
    twins = [f"{SITE}/demo/data.bin", f"{SITE}/demo/twin.bin"]
    os.link(world.venv / twins[0], world.venv / twins[1])
    world.survey()
    before = picture(world.venv)
    assert world.relink(mode).kept == []
    assert picture(world.venv) == before
    assert [world.is_linked(path) for path in twins] == [mode == "hardlink"] * 2
    assert os.path.samefile(*(world.venv / path for path in twins)) == (mode == "hardlink")


@pytest.mark.parametrize("mode", ["hardlink", "copy", "symlink"])
@pytest.mark.parametrize("path", [*SHARED, *PRIVATE])
def test_a_stranger_who_has_the_file_too_sees_nothing(
    world: World, tmp_path: Path, mode: LinkMode, path: str
) -> None:
    """Neither mode nor time nor bytes of the other name change, and ours becomes another file."""
    stranger = tmp_path / "cache"
    os.link(world.venv / path, stranger)
    world.survey()
    before = stranger.stat()
    world.relink(mode)
    after = stranger.stat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (
        before.st_ino,
        before.st_mode,
        before.st_mtime_ns,
    )
    assert stranger.read_bytes() == FILES[path] == (world.venv / path).read_bytes()
    assert not os.path.samefile(stranger, world.venv / path)


def _becomes_object(world: World, path: str) -> dict[Name, str]:
    """Let a file of the venv be its object, as intake does, and return what is the venv's own."""
    world.object(path).unlink()
    os.link(world.venv / path, world.object(path))
    entry = world.entries[path]
    own = Name(entry.digest, entry.executable)
    os.utime(world.venv / path, ns=(sealed(own).mtime_ns, sealed(own).mtime_ns))
    return {own: f"{world.venv}/{path}"}


def test_a_file_that_is_its_object_already_stays(world: World) -> None:
    """So it is with files that became objects themselves, although that changed their time."""
    own = _becomes_object(world, SHARED[0])
    assert world.relink(own=own) == Relinked({"hardlink": 3}, [])
    assert world.is_linked(SHARED[0])


def test_a_file_that_became_its_object_is_a_symlink_where_the_config_says_so(world: World) -> None:
    """The store keeps the file, and the venv leads to it."""
    own = _becomes_object(world, SHARED[0])
    assert world.relink("symlink", own=own) == Relinked({"symlink": 3}, [])
    assert os.readlink(world.venv / SHARED[0]) == str(world.object(SHARED[0]))


def test_small_files_stay_private(world: World) -> None:
    """The config says from which size on files are shared."""
    world.relink(min_size=10)
    assert [world.is_linked(path) for path in SHARED] == [False, True, True]


def test_symlink_mode(world: World) -> None:
    """Names point into the store; what is private stays a file."""
    done = world.relink("symlink")
    for path in SHARED:
        assert os.readlink(world.venv / path) == str(world.object(path))
        assert (world.venv / path).read_bytes() == FILES[path]
    assert not any((world.venv / path).is_symlink() for path in PRIVATE)
    assert done.modes == {"symlink": 3}


def test_copy_mode_leaves_the_files_and_sets_their_times(world: World) -> None:
    """Nothing is copied: the files are private already."""
    before = {path: (world.venv / path).stat().st_ino for path in FILES}
    assert world.relink("copy") == Relinked({}, [])
    for path, inode in before.items():
        st = (world.venv / path).stat()
        assert (st.st_ino, st.st_mtime_ns) == (inode, sealed(object_name(world.entries[path])).mtime_ns)


def test_going_from_links_to_copies_makes_files_private(world: World) -> None:
    """Who changes the config to ``copy`` gets files that the store has no part in."""
    world.relink()
    world.survey()
    assert world.relink("copy").kept == []
    assert not any(world.is_linked(path) for path in SHARED)
    assert {path: (world.venv / path).read_bytes() for path in FILES} == FILES


def test_going_from_hard_links_to_symlinks_makes_every_name_lead_to_the_store(world: World) -> None:
    """Who changes the config to ``symlink`` gets what it says, also where the name is one of the object."""
    world.relink()
    world.survey()
    assert world.relink("symlink") == Relinked({"symlink": 3}, [])
    assert [os.readlink(world.venv / path) for path in SHARED] == [str(world.object(path)) for path in SHARED]


def test_reflink_falls_back_where_there_is_none(world: World) -> None:
    """The first file finds out."""
    done = world.relink("reflink", "hardlink")
    assert set(done.modes) <= {"reflink", "hardlink"}
    assert {path: (world.venv / path).read_bytes() for path in FILES} == FILES


@needs_proc
@pytest.mark.parametrize("code", [errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_what_cannot_be_replaced_is_named_and_nothing_is_left(
    world: World, mode: LinkMode, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the whole path of the file, the venv its bytes, and no temporary name stays in it."""
    before = picture(world.venv)
    if mode == "copy":
        os.link(world.venv / "pyvenv.cfg", world.root / "elsewhere")  # so that it needs an inode of its own
        world.survey()
    real = os.rename

    def rename(source: str, target: str, **where: int) -> None:
        if target == "pyvenv.cfg" if mode == "copy" else target == "demo":
            raise OSError(code, os.strerror(code), source, None, target)
        real(source, target, **where)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match=re.escape(os.strerror(code))) as caught:
        world.relink(mode)
    assert path_of(caught.value, "") == str(world.venv / ("pyvenv.cfg" if mode == "copy" else "bin/demo"))
    assert picture(world.venv) == before


def test_an_object_with_too_many_links_gets_a_spare(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is linked to that, and a second run finds it shared."""
    real = os.link

    def link(source: str, *args: Any, **kwargs: Any) -> None:
        if source == str(world.object(SHARED[0])):
            raise OSError(errno.EMLINK, "too many links")
        real(source, *args, **kwargs)

    monkeypatch.setattr(os, "link", link)
    assert world.relink().modes == {"hardlink": 3}
    assert (world.venv / SHARED[0]).read_bytes() == FILES[SHARED[0]]
    assert os.path.samefile(world.venv / SHARED[0], f"{world.object(SHARED[0])}.1")
    world.survey()
    assert world.relink().modes == {"hardlink": 3}
    assert (world.venv / SHARED[0]).stat().st_ino == os.stat(f"{world.object(SHARED[0])}.1").st_ino


def test_a_store_elsewhere_gives_copies(world: World, tmp_path: Path) -> None:
    """Files stay whole, and the ladder ends where it must."""
    with elsewhere(tmp_path) as other:
        world.objects = objects_in(other)
        world.survey()
        done = world.relink("hardlink", "copy")
        assert done == Relinked({"copy": 1}, [])  # the first file found out, the others are copies already
        assert {path: (world.venv / path).read_bytes() for path in FILES} == FILES


# --------------------------------------------------------------------------- bytecode


def add_bytecode(world: World, data: bytes = b"bytecode") -> None:
    """Let the manifest have bytecode that the survey did not look at."""
    put(world.objects, data)
    world.entries[PYC] = file_entry(PYC, data)


@pytest.mark.parametrize("mode", ["hardlink", "copy", "symlink"])
def test_new_bytecode_is_added_in_a_new_directory(world: World, mode: LinkMode) -> None:
    """It was not there before, so nothing is compared."""
    add_bytecode(world)
    world.relink(mode)
    assert (world.venv / PYC).read_bytes() == b"bytecode"
    assert (world.venv / PYC).parent.stat().st_mode & 0o022 == 0


def test_bytecode_replaces_what_python_wrote_itself(world: World) -> None:
    """Its source has another time now, so the old one is stale."""
    write(world.venv, {PYC: b"stale"})
    add_bytecode(world)
    assert world.relink().kept == []
    assert (world.venv / PYC).read_bytes() == b"bytecode"
    assert world.is_linked(PYC)


def test_bytecode_that_is_linked_already_leaves_no_litter(world: World) -> None:
    """Renaming one name of a file over another does nothing, and leaves both."""
    add_bytecode(world)
    world.relink()
    world.relink()
    assert os.listdir((world.venv / PYC).parent) == [os.path.basename(PYC)]


def test_bytecode_of_a_package_that_was_deleted_meanwhile_is_not_made(world: World) -> None:
    """No directory comes back."""
    add_bytecode(world)
    shutil.rmtree(world.venv / f"{SITE}/demo")
    done = world.relink()
    assert not (world.venv / f"{SITE}/demo").exists()
    assert sorted(done.kept) == sorted(path for path in FILES if "/demo/" in path)


# --------------------------------------------------------------------------- kills


@pytest.mark.slow
@pytest.mark.parametrize("modes", [("hardlink",), ("symlink",), ("copy",)])
def test_whenever_it_is_killed_every_file_has_its_bytes(tmp_path: Path, modes: Sequence[LinkMode]) -> None:
    """Running again completes the work and clears the litter away."""
    (tmp_path / "cache").mkdir()
    world = World(tmp_path)

    def prepare() -> None:
        for name in ("venv", "store", "cache"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
        (tmp_path / "cache").mkdir()
        write(world.venv, FILES)
        for number, path in enumerate(PRIVATE):  # so that private files have to be replaced, too
            os.link(world.venv / path, tmp_path / "cache" / str(number))
        world.__init__(tmp_path)  # type: ignore[misc]
        add_bytecode(world)

    functions = ("rename", "link", "symlink", "utime", "unlink", "mkdir")
    for when in killed_at_each(lambda: world.relink(*modes), functions, prepare):
        for path, data in FILES.items():
            assert (world.venv / path).read_bytes() == data, when
        assert not os.path.lexists(world.venv / PYC) or (world.venv / PYC).read_bytes() == b"bytecode"
        del world.entries[PYC]
        world.survey()
        add_bytecode(world)
        world.found.pop(PYC, None)
        assert world.relink(*modes).kept == [], when
        everything = {item.path for item in walk(str(world.venv)) if item.kind != "dir"}
        assert everything == {*FILES, PYC}, when
    assert {path: (world.venv / path).read_bytes() for path in FILES} == FILES


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        (".vf-1-0", True),
        ("lib/x/.vf-4711-12", True),
        (".vf-33-probe", False),
        (".vf-1", False),
        (".vf-a-1", False),
        (".vf-1-0.py", False),
        ("x.vf-1-0", False),
    ],
)
def test_only_names_that_nobody_else_uses_are_taken_for_litter(name: str, ours: bool) -> None:
    """They are deleted without another look."""
    assert is_temporary(name) is ours


@pytest.mark.parametrize("mode", ["hardlink", "symlink", "copy"])
@pytest.mark.parametrize("above", [1, 2])
def test_no_link_that_is_put_in_the_way_meanwhile_is_followed(
    world: World, tmp_path: Path, mode: LinkMode, above: int
) -> None:
    """What lies behind it looks like the venv, with what a killed run left, and is somebody else's."""
    path = max(world.entries, key=lambda path: path.count("/"))
    litter = f"{os.path.dirname(path)}/.vf-1-1"
    write(world.venv, {litter: b""})
    world.survey()
    replaced = (world.venv / path).parents[above - 1]
    replaced.rename(tmp_path / "elsewhere")
    replaced.symlink_to(tmp_path / "elsewhere")
    before = set(walk(str(tmp_path / "elsewhere")))
    with pytest.raises(OSError, match=r"[Nn]ot a directory|symbolic links"):
        world.relink(mode)
    assert set(walk(str(tmp_path / "elsewhere"))) == before
