"""Intake: what a venv holds becomes objects, bytecode and trees."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

import pytest
from contents import (
    KILLED,
    dies_at,
    elsewhere,
    in_child,
    linux_only,
    name_of,
    open_store,
    picture,
    put,
    time_of,
    write,
)
from pythons import BASE
from tiers import first_quick

from venvflow.disk import bytecode, objects
from venvflow.disk.bytecode import Compiling
from venvflow.disk.kernel import sync_file_system
from venvflow.disk.links import Linker
from venvflow.disk.objects import MtimeMode, Objects, object_name, sealed
from venvflow.disk.scan import Changing
from venvflow.errors import EnvironmentFailure
from venvflow.model import Interpreter, LinkMode
from venvflow.postinstall import LARGEST_SOURCE, minor
from venvflow.pure.manifest import entries_of
from venvflow.pure.relocate import Places
from venvflow.state.intake import Intake, Precompiled, Taken
from venvflow.state.materialise import Materialiser
from venvflow.state.relink import Relinked, Relinker
from venvflow.state.store import Store
from venvflow.state.survey import Survey, survey

PYTHON = Interpreter(
    BASE, os.path.dirname(BASE), "CPython", platform.python_version(), "test", "test",
    str(sys.implementation.cache_tag), MAGIC_NUMBER.hex(),
)  # fmt: skip
SITE = f"lib/python{minor(PYTHON.version)}/site-packages"
MODULE, BROKEN, DATA = f"{SITE}/demo/__init__.py", f"{SITE}/demo/broken.py", f"{SITE}/demo/data.bin"
CACHE = f"{SITE}/demo/__pycache__"
PYC = f"{CACHE}/__init__.{PYTHON.cache_tag}.pyc"
RECORD = f"{SITE}/demo-1.0.dist-info/RECORD"
FILES = {
    MODULE: b"A = 1\n",
    BROKEN: b"def (:\n",
    DATA: bytes(range(256)),
    f"{SITE}/demo/empty.py": b"",
    RECORD: b"demo/__init__.py,,\ndemo/broken.py,,\ndemo/data.bin,,\ndemo/empty.py,,\n",
    "pyvenv.cfg": f"home = {os.path.dirname(BASE)}\n".encode(),
}
PRIVATE = (f"{SITE}/demo/empty.py", RECORD, "pyvenv.cfg")


class World:
    """A venv and a store."""

    def __init__(self, root: Path, store: Path | None = None, **settings: Any) -> None:
        self.venv = root / "p" / "venv"
        self.places = Places(str(self.venv), str(root / "p"), BASE)
        write(self.venv, FILES)
        write(self.venv, {"bin/demo": f"#!{self.venv}/bin/python\nimport demo\n".encode()})
        (self.venv / "bin/demo").chmod(0o755)
        (self.venv / "bin/python").symlink_to(BASE)
        self.store: Store = open_store(store or root / "store", **settings)
        self.looked = Survey()

    @property
    def objects(self) -> Objects:
        """Return the store's objects."""
        return self.store.objects

    def survey(self) -> Survey:
        """Look at the venv."""
        self.looked = survey(str(self.venv), self.places)
        return self.looked

    def intake(self, mode: LinkMode = "hardlink", *, built_here: bool = False) -> Intake:
        """Return an intake into the store as it is now."""
        return Intake(
            self.store,
            str(self.venv),
            PYTHON,
            mode=mode,
            min_size=1,
            built_here=built_here,
        )

    def take(self, mode: LinkMode = "hardlink", *, built_here: bool = False, canonical: bool = True) -> Taken:
        """Survey the venv and take it in."""
        return self.intake(mode, built_here=built_here).take(
            self.survey(), bytecode="canonical" if canonical else "none"
        )

    def relink(self, taken: Taken, mode: LinkMode = "hardlink") -> Relinked:
        """Link the venv to what was taken in."""
        relinker = Relinker(
            self.objects, str(self.venv), Linker((mode,)), min_size=1, origins=taken.origins, own=taken.own
        )
        return relinker.relink(taken.entries, self.looked.found)


NewWorld = Callable[..., World]


@pytest.fixture
def new_world() -> Iterator[NewWorld]:
    """Give what makes a venv and a store, which is closed at the end."""
    with ExitStack() as stack:

        def make(root: Path, store: Path | None = None, **settings: Any) -> World:
            world = World(root, store, **settings)
            stack.callback(world.store.close)
            return world

        yield make


@pytest.fixture
def world(new_world: NewWorld, tmp_path: Path) -> World:
    """Give a venv and an empty store."""
    return new_world(tmp_path)


def attributes(path: Path) -> tuple[bytes, int, int, int]:
    """Return what taking a file in must not change."""
    st = path.stat()
    return path.read_bytes(), st.st_mode, st.st_mtime_ns, st.st_ino


@pytest.mark.parametrize("canonical", [True, False])
def test_everything_in_the_manifest_is_in_the_store(world: World, canonical: bool) -> None:
    """Objects with the right bytes, trees, and rows of the index for both."""
    taken = world.take(canonical=canonical)
    assert {**entries_of(taken.manifest)} == taken.entries
    for entry in taken.entries.values():
        if entry.digest:
            assert world.objects.verified(object_name(entry)), entry.path
            assert world.objects.sound(object_name(entry), entry.size), entry.path
    for tree in taken.manifest.trees:
        assert world.store.tree(tree.digest) == tree
    assert taken.new_objects == len(world.store.index.rows("SELECT * FROM objects"))
    assert taken.new_bytes == sum(size for (size,) in world.store.index.rows("SELECT size FROM objects"))
    assert len(world.store.index.rows("SELECT * FROM trees")) == len(taken.manifest.trees)
    assert (PYC in taken.entries) == canonical
    assert os.listdir(world.objects.tmp) == []


def test_all_but_bytecode_is_in_the_store_before_it_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So names can be given to it while compilers are at work; what comes of all is the same."""
    happened: list[str] = []
    wait = Compiling.result

    def result(compiling: Compiling, *arguments: Any) -> Any:
        happened.append("waited")
        return wait(compiling, *arguments)

    def meanwhile(taken: Taken) -> None:
        happened.append("linked")
        assert not any(path.endswith(".pyc") for path in taken.entries)
        assert all(
            world.objects.verified(object_name(each)) for each in taken.entries.values() if each.digest
        )
        assert world.relink(taken).kept == []

    monkeypatch.setattr(Compiling, "result", result)
    taken = world.intake().take(world.survey(), bytecode="canonical", meanwhile=meanwhile)
    assert happened == ["linked", "waited"]
    fresh = {path: entry for path, entry in taken.entries.items() if path.endswith(".pyc")}
    assert world.relink(replace(taken, entries=fresh)).kept == []
    assert world.take().trees == taken.trees
    assert happened == ["linked", "waited"], "all bytecode is known by now"


def test_what_packages_brought_may_be_compiled_before_the_rest_is_taken(
    world: World, new_world: NewWorld, tmp_path: Path
) -> None:
    """The venv gets another name meanwhile. All counts as if it were taken at once; nothing is done twice."""
    own = f"{SITE}/own.py"
    write(world.venv, {own: b"KEY = 'nobody knows yet whether this may be in the store'\n"})
    expected = new_world(tmp_path / "other").take()
    with world.intake(built_here=True).precompiling(world.survey()) as precompiled:
        world.venv.rename(tmp_path / "elsewhere")
        assert precompiled == Precompiled()
    (tmp_path / "elsewhere").rename(world.venv)
    made = {path: each for (_, path), each in precompiled.compiled.items()}
    assert made.keys() == {MODULE, BROKEN, f"{SITE}/demo/empty.py"}
    assert made[BROKEN] is None
    assert {name for name, _ in world.objects.names()} == {each[0] for each in made.values() if each}
    assert os.listdir(world.objects.tmp) == []
    (world.venv / own).unlink()
    taken = world.intake().take(world.survey(), bytecode="canonical", precompiled=precompiled)
    assert (taken.trees, taken.compiled, taken.uncompilable) == (
        expected.trees, expected.compiled, expected.uncompilable,
    )  # fmt: skip
    assert (taken.new_objects, taken.new_bytes) == (expected.new_objects, expected.new_bytes)
    assert taken.compiled == 3, "an empty source is compiled, too"
    assert world.take().compiled == 0, "the index knows all of it"


def test_bytecode_that_went_meanwhile_is_made_again(world: World) -> None:
    """Nothing refers to it until its sources are taken: a trim of another process may delete it."""
    with world.intake().precompiling(world.survey()) as precompiled:
        pass
    name = next(each[0] for each in precompiled.compiled.values() if each is not None)
    os.unlink(world.objects.path(name))
    taken = world.intake().take(world.survey(), bytecode="canonical", precompiled=precompiled)
    assert world.objects.verified(name)
    assert PYC in taken.entries


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOSPC])
def test_what_cannot_be_compiled_before_is_compiled_when_it_is_taken(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Whatever is wrong is told by who cannot go on without it."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(bytecode, "_start", refuse)
        with world.intake().precompiling(world.survey()) as precompiled:
            pass
    assert precompiled == Precompiled()
    assert world.intake().take(world.survey(), bytecode="canonical", precompiled=precompiled).compiled == 3


def test_who_fails_meanwhile_leaves_no_bytecode(world: World) -> None:
    """The venv is not put in its place, so nobody wants it."""
    with pytest.raises(ZeroDivisionError), world.intake().precompiling(world.survey()):
        raise ZeroDivisionError
    assert [*world.objects.names()] == []
    assert os.listdir(world.objects.tmp) == []


def test_a_venv_comes_back_from_what_was_taken(world: World, tmp_path: Path) -> None:
    """The same files, but for the place that they name, and for the bytecode."""
    taken = world.take(canonical=False)
    there = Places(str(tmp_path / "q/venv"), str(tmp_path / "q"), BASE)
    (tmp_path / "q").mkdir()
    Materialiser(world.objects, there, Linker(("copy",))).make(taken.manifest, there.venv)
    here = picture(world.venv)
    here["bin/demo"] = ("file", f"#!{there.venv}/bin/python\nimport demo\n".encode(), True)
    assert picture(there.venv) == here


def test_taking_in_changes_nothing_in_a_venv_that_others_made(world: World) -> None:
    """Not even a time, as long as its files are not to be linked: that is for relinking, file by file."""
    before = {path: attributes(world.venv / path) for path in FILES}
    world.take("copy")
    assert {path: attributes(world.venv / path) for path in FILES} == before


@linux_only
def test_a_file_that_has_one_name_and_no_writer_becomes_the_object(world: World) -> None:
    """Nothing is copied: the bytes that the venv has are the first copy, sealed like any object."""
    inodes = {path: (world.venv / path).stat().st_ino for path in FILES}
    taken = world.take()
    for path in (MODULE, BROKEN, DATA):
        st = (world.venv / path).stat()
        assert os.path.samefile(world.venv / path, world.objects.path(object_name(taken.entries[path])))
        assert (st.st_ino, st.st_mode & 0o777, st.st_mtime_ns) == (
            inodes[path],
            0o444,
            time_of(FILES[path]),
        )
    assert {path: (world.venv / path).read_bytes() for path in FILES} == FILES
    assert set(taken.own.values()) == {f"{world.venv}/{path}" for path in (MODULE, BROKEN, DATA)}


@linux_only
@pytest.mark.parametrize("built_here", [True, False])
def test_a_file_that_somebody_writes_to_is_copied(world: World, built_here: bool) -> None:
    """What the writer does later is its own affair: the object is out of its reach."""
    with open(world.venv / DATA, "r+b") as writer:
        taken = world.take(built_here=built_here)
        assert f"{world.venv}/{DATA}" not in taken.own.values()
        world.relink(taken)
        writer.write(b"late")
    assert world.objects.verified(object_name(taken.entries[DATA]))
    assert (world.venv / DATA).read_bytes() == FILES[DATA]


@pytest.mark.parametrize("built_here", [True, False])
def test_where_the_kernel_cannot_tell_only_our_own_files_are_taken(
    world: World, monkeypatch: pytest.MonkeyPatch, built_here: bool
) -> None:
    """A file system without leases: what our builder has just made nobody can have opened."""
    monkeypatch.setattr(objects, "has_writer", lambda _: None)
    taken = world.take(built_here=built_here)
    assert (f"{world.venv}/{DATA}" in taken.own.values()) == built_here
    assert world.objects.verified(object_name(taken.entries[DATA]))


@linux_only
def test_files_look_as_they_did_when_they_cannot_be_published(
    new_world: NewWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk leaves the venv as it was, modes and times too."""
    world = new_world(tmp_path, durability="full")
    before = {path: attributes(world.venv / path) for path in FILES}

    def full(_fd: int) -> None:
        assert (world.venv / DATA).stat().st_mtime_ns == time_of(FILES[DATA])
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(objects, "sync_file_system", full)
    with pytest.raises(OSError, match="no space"):
        world.take()
    assert {path: attributes(world.venv / path) for path in FILES} == before
    assert list(world.objects.names()) == []


def test_a_file_gets_its_looks_back_when_another_run_was_first(
    new_world: NewWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The object that is there stays, and the file is replaced by it after a comparison."""
    world = new_world(tmp_path, durability="full")
    other, real = Objects(world.store.path, "none"), sync_file_system

    def overtaken(fd: int) -> None:
        if not world.objects.sound(name_of(FILES[DATA]), len(FILES[DATA])):
            put(other, FILES[DATA])
        real(fd)

    monkeypatch.setattr(objects, "sync_file_system", overtaken)
    before = attributes(world.venv / DATA)
    taken = world.take()
    assert attributes(world.venv / DATA) == before
    assert world.relink(taken).kept == []
    assert os.path.samefile(world.venv / DATA, world.objects.path(name_of(FILES[DATA])))


def test_what_our_builder_made_becomes_the_object_itself(world: World) -> None:
    """Nothing is written twice; files that stay private, and bytecode, are the exception."""
    taken = world.take(built_here=True)
    for path in (MODULE, BROKEN, DATA):
        assert os.path.samefile(world.venv / path, world.objects.path(object_name(taken.entries[path])))
    assert (world.venv / RECORD).stat().st_nlink == 1
    assert set(taken.origins.values()) <= {f"{world.venv}/{path}" for path in PRIVATE}
    assert f"{world.venv}/{RECORD}" in taken.origins.values()
    assert world.relink(taken).kept == []
    assert (world.venv / RECORD).stat().st_mtime_ns == sealed(object_name(taken.entries[RECORD])).mtime_ns


def test_files_of_a_cache_are_adopted_but_sources_are_copied(new_world: NewWorld, tmp_path: Path) -> None:
    """If the config says so. The cache sees nothing, and sources get the time that their bytecode names."""
    world = new_world(tmp_path, adopt=True)
    (tmp_path / "cache").mkdir()
    for number, path in enumerate((MODULE, DATA)):
        os.link(world.venv / path, tmp_path / "cache" / str(number))
    before = [attributes(tmp_path / "cache" / name) for name in "01"]
    taken = world.take(built_here=True)
    name = name_of(FILES[DATA])
    assert (taken.adopted, world.store.adopted()) == (
        1,
        {name: MtimeMode(before[1][2], before[1][1] & 0o7777)},
    )
    assert os.path.samefile(tmp_path / "cache/1", world.objects.path(name))
    assert not os.path.samefile(tmp_path / "cache/0", world.objects.path(name_of(FILES[MODULE])))
    assert world.relink(taken).kept == []
    assert [attributes(tmp_path / "cache" / name) for name in "01"] == before
    assert world.take().new_objects == 0
    assert world.store.adopted() == {name: MtimeMode(before[1][2], before[1][1] & 0o7777)}


def test_without_adoption_everything_is_copied(new_world: NewWorld, tmp_path: Path) -> None:
    """Where the config does not ask for it."""
    world = new_world(tmp_path)
    os.link(world.venv / DATA, tmp_path / "cache")
    taken = world.take(built_here=True)
    assert (taken.adopted, world.store.adopted()) == (0, {})
    assert (tmp_path / "cache").stat().st_nlink == 2


def test_a_store_elsewhere_gets_copies(new_world: NewWorld, tmp_path: Path) -> None:
    """Own and adopted files, too."""
    with elsewhere(tmp_path) as other:
        world = new_world(tmp_path, other / "store")
        os.link(world.venv / DATA, tmp_path / "cache")
        before = {path: attributes(world.venv / path) for path in FILES}
        taken = world.take(built_here=True)
        assert {path: attributes(world.venv / path) for path in FILES} == before
        assert taken.adopted == 0
        assert all(world.objects.verified(object_name(e)) for e in taken.entries.values() if e.digest)
        world.store.close()


@pytest.mark.parametrize("built_here", [True, False])
@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_a_file_that_changed_since_the_survey_makes_no_object(
    world: World, tmp_path: Path, mode: LinkMode, built_here: bool, linked: bool
) -> None:
    """The error names it, and the store is as it was."""
    if linked:
        os.link(world.venv / DATA, tmp_path / "cache")
    looked = world.survey()
    (world.venv / DATA).write_bytes(b"edited")
    with pytest.raises(Changing, match=r"data\.bin"):
        world.intake(mode, built_here=built_here).take(looked, bytecode="none")
    assert list(world.objects.names()) == []
    assert os.listdir(world.objects.tmp) == []


def test_a_second_venv_costs_nothing_but_comparisons(
    new_world: NewWorld, world: World, tmp_path: Path
) -> None:
    """The same files are the same objects; bytecode is not compiled again, nor what does not compile."""
    first = world.take()
    world.relink(first)
    assert (first.compiled, first.uncompilable) == (3, 1)
    other = new_world(tmp_path / "other", Path(world.store.path))
    second = other.take()
    assert (second.compiled, second.uncompilable, second.new_objects) == (0, 1, 0)
    assert [tree.digest for tree in second.manifest.trees] == [tree.digest for tree in first.manifest.trees]
    assert other.relink(second).kept == []
    assert os.path.samefile(world.venv / MODULE, other.venv / MODULE)
    assert os.path.samefile(world.venv / PYC, other.venv / PYC)


def test_sources_that_can_have_no_bytecode_are_taken_without(world: World) -> None:
    """The name of the bytecode would be too long for a file, or the compiler would take all memory."""
    site = (world.venv / BROKEN).parent
    (site / f"{'n' * 250}.py").write_text("x = 1\n")
    (site / "large.py").touch()
    os.truncate(site / "large.py", LARGEST_SOURCE + 1)
    taken = world.take()
    assert (taken.compiled, taken.uncompilable) == (3, 3)
    assert {"n" * 250 + ".py", "large.py"} <= {os.path.basename(path) for path in taken.entries}


def test_bytecode_that_python_wrote_is_replaced_and_not_reported(world: World) -> None:
    """It is derived; what is ours is valid for the time that the source has now."""
    write(
        world.venv, {PYC: b"written by an import", f"{CACHE}/gone.{PYTHON.cache_tag}.pyc": b"source is gone"}
    )
    taken = world.take()
    assert world.relink(taken).kept == []
    assert (world.venv / PYC).read_bytes()[:4] == MAGIC_NUMBER
    assert (world.venv / PYC).read_bytes()[8:12] == (time_of(FILES[MODULE]) // 10**9).to_bytes(4, "little")
    assert taken.entries[f"{CACHE}/gone.{PYTHON.cache_tag}.pyc"].digest == name_of(b"source is gone").digest


@pytest.mark.parametrize("damage", ["edited", "gone", "truncated"])
@pytest.mark.parametrize("path", first_quick([MODULE, DATA, PYC]))
def test_damaged_objects_are_replaced(world: World, damage: str, path: str) -> None:
    """The venv has the right bytes, or they are compiled again."""
    first = world.take("copy")
    name = object_name(first.entries[path])
    target = Path(world.objects.path(name))
    target.chmod(0o644)
    if damage == "gone":
        target.unlink()
    else:
        target.write_bytes(b"X" if damage == "truncated" else b"X" * first.entries[path].size)
    second = world.take("copy")
    assert second.manifest == first.manifest
    assert world.objects.verified(name)
    assert second.new_objects == 1


def test_a_damaged_adopted_object_is_not_adopted_any_more(world: World, tmp_path: Path) -> None:
    """The copy that replaces it has the time of its content, and the index knows."""
    os.link(world.venv / DATA, tmp_path / "cache")
    world.take()
    (tmp_path / "copy").write_bytes(FILES[DATA])
    (tmp_path / "cache").write_bytes(b"edited in the cache")
    os.rename(tmp_path / "copy", world.venv / DATA)
    world.take()
    assert world.store.adopted() == {}
    assert world.objects.sound(name_of(FILES[DATA]), 256)


def test_a_touched_object_gets_its_time_back(world: World) -> None:
    """Or every venv that is linked to it would look edited."""
    world.take()
    name = name_of(FILES[DATA])
    os.utime(world.objects.path(name), ns=(8, 8))
    assert world.take().new_objects == 0
    assert world.store.adopted() == {}
    assert world.objects.sound(name, len(FILES[DATA]))


def test_an_index_that_was_lost_is_told_everything_again(world: World) -> None:
    """Objects that the store has are rows once more."""
    taken = world.take()
    with world.store.index.writing() as db:
        for table in ("bytecode", "trees", "objects"):
            db.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own
    assert world.take().new_objects == 0
    assert len(world.store.index.rows("SELECT * FROM objects")) == taken.new_objects
    assert len(world.store.index.rows("SELECT * FROM trees")) == len(taken.manifest.trees)


@pytest.mark.parametrize("mode", ["symlink", "hardlink", "copy"])
def test_a_venv_of_symlinks_into_the_store_is_taken_in_as_the_files_that_it_stands_for(
    world: World, mode: LinkMode
) -> None:
    """A manifest never names the store; and the venv can be shared in another way from now on."""
    first = world.take("symlink")
    world.relink(first, "symlink")
    assert (world.venv / MODULE).is_symlink()
    second = world.take(mode)
    assert second.manifest == first.manifest
    assert (second.new_objects, second.compiled) == (0, 0)
    assert world.relink(second, mode).kept == []
    assert (world.venv / MODULE).is_symlink() == (mode == "symlink")
    assert (world.venv / MODULE).read_bytes() == FILES[MODULE]


@pytest.mark.parametrize("damage", ["gone", "edited"])
def test_a_symlink_to_a_damaged_object_stops_the_intake(world: World, damage: str) -> None:
    """There is no other copy of that file; the error says what to do."""
    world.relink(world.take("symlink"), "symlink")
    target = Path(os.readlink(world.venv / DATA))
    target.chmod(0o644)
    if damage == "gone":
        target.unlink()
    else:
        target.write_bytes(b"edited")
    with pytest.raises(EnvironmentFailure, match=r"data\.bin.*missing or damaged") as caught:
        world.take("symlink")
    assert caught.value.hint


def test_what_a_killed_relink_left_is_neither_stored_nor_kept(world: World) -> None:
    """It is no part of the venv."""
    write(world.venv, {f"{SITE}/demo/.vf-99-3": b"litter", ".vf-99-4": b"litter"})
    taken = world.take()
    assert not [path for path in taken.entries if ".vf-" in path]
    assert not world.objects.verified(name_of(b"litter"))
    world.relink(taken)
    assert not list(world.venv.rglob(".vf-*"))


@pytest.mark.parametrize("function", ["link", "rename", "unlink"])
@pytest.mark.parametrize("call", first_quick([0, 1, 5]))
def test_a_killed_intake_leaves_the_venv_whole_and_is_completed(
    new_world: NewWorld, tmp_path: Path, function: str, call: int
) -> None:
    """All objects that have a name are whole, and the next run ends with the same manifest."""
    world = new_world(tmp_path)
    before = picture(world.venv)
    world.store.close()

    def work() -> None:
        world.store.index  # noqa: B018 - opened before, so that only what follows is cut short
        setattr(os, function, dies_at(function, call))
        world.take(built_here=True)

    assert in_child(work) in (0, KILLED)
    assert {path: kind[:2] for path, kind in picture(world.venv).items()} == {
        p: k[:2] for p, k in before.items()
    }
    assert all(world.objects.verified(name) for name, _ in world.objects.names())
    taken = world.take(built_here=True)
    assert all(world.objects.verified(object_name(e)) for e in taken.entries.values() if e.digest)
    assert world.relink(taken).kept == []
    shutil.rmtree(world.venv)


def test_a_venv_whose_lib_is_a_link_to_usr_lib_gets_bytecode(world: World) -> None:
    """As in a file system that is merged, whose venvs tools lay out in the same way."""
    (world.venv / "usr").mkdir()
    (world.venv / "lib").rename(world.venv / "usr" / "lib")
    (world.venv / "lib").symlink_to("usr/lib")
    taken = world.take()
    assert taken.compiled == 3
    world.relink(taken)
    assert (world.venv / PYC).read_bytes()[:4] == MAGIC_NUMBER


def test_files_that_are_their_objects_are_not_opened_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither are those of the bytecode; what an installer put there meanwhile is compared and linked."""
    world.relink(world.take())
    other = world.venv / DATA
    data = other.read_bytes()
    other.unlink()
    other.write_bytes(data)
    taken = world.take()
    assert {MODULE, PYC} <= taken.linked
    assert DATA not in taken.linked
    relinker = Relinker(
        world.objects, str(world.venv), Linker(("hardlink",)), min_size=1, origins=taken.origins,
        own=taken.own, linked=taken.linked,
    )  # fmt: skip
    opened: list[str] = []
    real = os.open

    def noting(path: Any, *arguments: Any, **more: Any) -> int:
        opened.append(os.path.basename(os.fsdecode(path)))
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", noting)
    relinker.relink(taken.entries, world.looked.found)
    assert "data.bin" in opened
    assert not {os.path.basename(path) for path in taken.linked} & {*opened}
    assert os.path.samefile(other, world.objects.path(object_name(taken.entries[DATA])))


@pytest.fixture
def cached(world: World, tmp_path: Path) -> Path:
    """Give a venv one of whose files is a link to an installer's cache, and that cache."""
    cache = tmp_path / "cache"
    cache.mkdir()
    os.link(world.venv / DATA, cache / "data.bin")
    return cache


def test_a_link_to_a_cache_is_replaced_by_the_object_without_being_opened(
    world: World, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read and copied before; the cache keeps its own file."""
    taken = world.take()
    real = os.open
    opened: list[str] = []

    def noting(path: Any, *arguments: Any, **more: Any) -> int:
        opened.append(os.path.basename(os.fsdecode(path)))
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", noting)
    assert world.relink(taken).kept == []
    assert "data.bin" not in opened
    assert os.path.samefile(world.venv / DATA, world.objects.path(object_name(taken.entries[DATA])))
    assert (cached / "data.bin").stat().st_nlink == 1
    assert (cached / "data.bin").read_bytes() == FILES[DATA]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_link_to_a_cache_that_was_edited_stays_and_leaves_nothing_behind(
    world: World, cached: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is newer is the user's."""
    taken = world.take()
    real = os.link

    def link(source: Any, target: Any, **more: Any) -> None:
        real(source, target, **more)
        if target == ".vf-0-0":
            (world.venv / DATA).write_bytes(b"edited")

    if when == "before":
        (world.venv / DATA).write_bytes(b"edited")
    else:
        monkeypatch.setattr(os, "link", link)
    assert world.relink(taken).kept == [DATA]
    assert (cached / "data.bin").read_bytes() == (world.venv / DATA).read_bytes() == b"edited"
    assert not [path for path in picture(world.venv) if ".vf-" in path]


@linux_only
def test_a_link_to_a_cache_that_has_attributes_of_its_own_stays_private(world: World, cached: Path) -> None:
    """A link to the object would not have them."""
    try:
        os.setxattr(world.venv / DATA, "user.mine", b"1")
    except OSError as error:
        pytest.skip(f"no attributes here: {error}")
    relinked = world.relink(world.take())
    assert relinked.attributed == [DATA]
    assert os.getxattr(world.venv / DATA, "user.mine") == b"1"
    assert os.getxattr(cached / "data.bin", "user.mine") == b"1"
