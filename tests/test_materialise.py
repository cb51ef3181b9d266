"""From manifest to directory: all of it, from sound objects only, and nothing outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from contents import elsewhere, file_entry, in_child, name_of, objects_in, picture, put, time_of

from venvflow.disk.descriptors import Directories
from venvflow.disk.links import Linker
from venvflow.disk.objects import MtimeMode, Name, Objects
from venvflow.model import Entry, Manifest, Slot
from venvflow.pure.manifest import Corrupt, make_tree
from venvflow.pure.relocate import Places, find, find_in_record
from venvflow.state.materialise import Damaged, Materialised, Materialiser

SITE = "lib/python3.12/site-packages"
MODULE, SCRIPT, EMPTY = f"{SITE}/demo/__init__.py", "bin/tool", f"{SITE}/demo/empty.py"
RECORD = f"{SITE}/demo-1.0.dist-info/RECORD"
DATA = {MODULE: b"A = 1\n", SCRIPT: b"#!/bin/sh\nexit 0\n", EMPTY: b""}
HERE = Places("/old/place/.venv", "/old/place", "/usr/bin/python3.12")
THERE = Places("/new/.venv", "/new", "/opt/python/bin/python3.12")


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """Give an empty object store."""
    return objects_in(tmp_path / "store")


def plain(objects: Objects) -> Manifest:
    """Return a manifest of every kind of entry but templates, its objects in the store."""
    entries = [file_entry(path, data, executable=path == SCRIPT) for path, data in DATA.items()]
    for entry, data in zip(entries, DATA.values(), strict=True):
        put(objects, data, executable=entry.executable)
    entries += [
        Entry(f"{SITE}/demo/latest", "link", target="__init__.py"),
        Entry("bin/dangling", "link", target="/nowhere"),
        Entry("lib/python3.12/empty", "dir"),
    ]
    return Manifest((make_tree("demo", "1.0", entries),))


def make(objects: Objects, manifest: Manifest, place: Path, *modes: Any, **more: Any) -> Materialised:
    """Make *manifest* at *place*."""
    linker = Linker(modes or ("hardlink", "copy"))
    return Materialiser(objects, THERE, linker, **more).make(manifest, str(place))


def object_path(objects: Objects, path: str) -> Path:
    """Return where the object of one of DATA lies."""
    return Path(objects.path(name_of(DATA[path], executable=path == SCRIPT)))


@pytest.mark.parametrize("modes", [("hardlink",), ("copy",), ("symlink",), ("reflink", "hardlink")])
def test_the_directory_is_what_the_manifest_says(
    objects: Objects, tmp_path: Path, modes: tuple[Any, ...]
) -> None:
    """Kinds, bytes, executable bits, targets and empty directories, and nothing else."""
    done = make(objects, plain(objects), tmp_path / "venv", *modes)
    found = picture(tmp_path / "venv")
    assert {path for path, (kind, _, _) in found.items() if kind == "dir"} == {
        "bin", "lib", "lib/python3.12", SITE, f"{SITE}/demo", "lib/python3.12/empty",
    }  # fmt: skip
    assert found["bin/dangling"] == ("link", "/nowhere", False)
    assert found[f"{SITE}/demo/latest"] == ("link", "__init__.py", False)
    for path, data in DATA.items():
        assert (tmp_path / "venv" / path).read_bytes() == data
        assert os.access(tmp_path / "venv" / path, os.X_OK) == (path == SCRIPT)
        assert (tmp_path / "venv" / path).stat().st_mtime_ns == time_of(data)
    assert len(found) == 6 + 2 + 3
    assert (done.files, done.size) == (3, sum(map(len, DATA.values())))
    assert sum(done.modes.values()) == 2
    assert set(done.directories) == {path for path, (kind, _, _) in found.items() if kind == "dir"}


def test_it_says_how_far_it_is(objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In files and links, now and then, up to the end."""
    monkeypatch.setattr("venvflow.state.materialise._CHUNK", 2)
    said: list[tuple[int, int]] = []
    make(objects, plain(objects), tmp_path / "venv", progress=lambda now, total: said.append((now, total)))
    assert [now for now, _ in said] == [2, 4, 6]
    assert {total for _, total in said} == {6}


def test_empty_and_small_files_are_private(objects: Objects, tmp_path: Path) -> None:
    """Only what is worth sharing is the object itself."""
    make(objects, plain(objects), tmp_path / "venv", min_size=10)
    links = {path: (tmp_path / "venv" / path).stat().st_nlink for path in DATA}
    assert links == {EMPTY: 1, MODULE: 1, SCRIPT: 2}


def test_no_directory_is_open_to_all_whatever_the_umask(objects: Objects, tmp_path: Path) -> None:
    """A venv is code that its owner runs."""
    manifest = plain(objects)

    def work() -> None:
        os.umask(0)
        make(objects, manifest, tmp_path / "venv", "copy")

    assert in_child(work) == 0
    for parent, _, names in os.walk(tmp_path / "venv"):
        for path in [parent, *(os.path.join(parent, name) for name in names)]:
            assert os.path.islink(path) or not os.stat(path).st_mode & 0o022, path


def test_across_file_systems_it_copies(objects: Objects, tmp_path: Path) -> None:
    """The store may lie anywhere."""
    manifest = plain(objects)
    with elsewhere(tmp_path) as other:
        assert make(objects, manifest, other / "venv").modes == {"copy": 2}
        assert (other / "venv" / MODULE).read_bytes() == DATA[MODULE]


# --------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes().swapcase()),
        lambda path: path.write_bytes(path.read_bytes() + b"\n"),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["missing", "empty", "truncated", "edited", "appended", "directory"],
)
@pytest.mark.parametrize("path", [MODULE, SCRIPT])
def test_a_damaged_object_is_named_and_never_used(
    objects: Objects, tmp_path: Path, damage: Callable[[Path], object], path: str
) -> None:
    """The error says which file of the venv it is about, and which object."""
    manifest = plain(objects)
    object_path(objects, path).chmod(0o755 if path == SCRIPT else 0o644)
    damage(object_path(objects, path))
    with pytest.raises(Damaged, match=path) as caught:
        make(objects, manifest, tmp_path / "venv")
    assert (caught.value.path, objects.path(caught.value.name)) == (path, str(object_path(objects, path)))


def test_an_object_that_was_only_touched_is_used(objects: Objects, tmp_path: Path) -> None:
    """Its bytes are what counts."""
    manifest = plain(objects)
    os.utime(object_path(objects, MODULE))
    make(objects, manifest, tmp_path / "venv")
    assert (tmp_path / "venv" / MODULE).read_bytes() == DATA[MODULE]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o644, 0o777, 0o4555, 0o2444, 0o000])
@pytest.mark.parametrize("path", [MODULE, SCRIPT])
def test_right_bytes_in_a_wrong_mode_are_used_and_the_mode_is_not(
    objects: Objects, tmp_path: Path, mode: int, path: str
) -> None:
    """The object gets its mode again and is linked; where that cannot be, the venv gets a copy."""
    manifest, sealed_mode = plain(objects), 0o555 if path == SCRIPT else 0o444
    object_path(objects, path).chmod(mode)
    made = make(objects, manifest, tmp_path / "copied").modes
    assert (tmp_path / "copied" / path).stat().st_mode & 0o7777 == sealed_mode | 0o200
    assert made["hardlink"] == len(list(DATA)) - 2
    make(objects, manifest, tmp_path / "linked", relabel=lambda name, _, look: objects.relabel(name, look))
    assert os.path.samefile(tmp_path / "linked" / path, object_path(objects, path))
    assert (tmp_path / "linked" / path).stat().st_mode & 0o7777 == sealed_mode
    assert (tmp_path / "linked" / path).read_bytes() == DATA[path]


def test_an_edit_that_restores_the_time_is_found_when_all_are_verified(
    objects: Objects, tmp_path: Path
) -> None:
    """That is what ``verify: full`` is for."""
    manifest = plain(objects)
    path = object_path(objects, MODULE)
    path.chmod(0o644)
    path.write_bytes(b"A = 2\n")
    path.chmod(0o444)
    os.utime(path, ns=(time_of(DATA[MODULE]), time_of(DATA[MODULE])))
    make(objects, manifest, tmp_path / "one")
    with pytest.raises(Damaged, match=MODULE):
        make(objects, manifest, tmp_path / "two", verify_all=True)


def test_adopted_objects_are_sound_with_the_time_that_they_came_with(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not read again, unless that time moved."""
    manifest = plain(objects)
    name = name_of(DATA[MODULE])
    os.utime(objects.path(name), ns=(77, 77))
    verified: list[Name] = []

    def verify(_: Objects, name: Name) -> bool:
        verified.append(name)
        return True

    monkeypatch.setattr(Objects, "verified", verify)
    make(objects, manifest, tmp_path / "one", adopted={name: MtimeMode(77, 0o444)})
    assert verified == []
    make(objects, manifest, tmp_path / "two", adopted={name: MtimeMode(78, 0o444)})
    assert verified == [name]


def test_a_source_gets_our_time_though_its_object_was_adopted(objects: Objects, tmp_path: Path) -> None:
    """As a private copy: the object keeps its own, for whoever else has it."""
    manifest = plain(objects)
    name = name_of(DATA[MODULE])
    os.utime(objects.path(name), ns=(77, 77))
    make(objects, manifest, tmp_path / "one", adopted={name: MtimeMode(77, 0o444)})
    made = (tmp_path / "one" / MODULE).stat()
    assert (made.st_mtime_ns, made.st_nlink) == (time_of(DATA[MODULE]), 1)
    assert os.stat(objects.path(name)).st_mtime_ns == 77


# --------------------------------------------------------------------------- templates


def with_templates(objects: Objects) -> Manifest:
    """Return a manifest with a script that names the venv, a link to Python and the RECORD of both."""
    script = f"#!{HERE.venv}/bin/python\nimport demo\n".encode()
    record = (
        b"../../../bin/demo,sha256=AAAA,12\ndemo/__init__.py,sha256=BBBB,6\ndemo-1.0.dist-info/RECORD,,\n"
    )
    made = find("bin/demo", script, HERE)
    assert made is not None
    lines = find_in_record(RECORD, record, ["bin/demo"])
    assert lines is not None
    entries = [
        file_entry(MODULE, DATA[MODULE]),
        Entry("bin/python", "link", target="", slots=(Slot(0, "python", "raw"),)),
    ]
    for path, template, executable in (("bin/demo", made, True), (RECORD, lines, False)):
        (name,) = put(objects, template.data)
        entries.append(
            Entry(path, "template", name.digest, executable, len(template.data), "", template.slots)
        )
    put(objects, DATA[MODULE])
    return Manifest((make_tree("demo", "1.0", entries),))


def test_local_paths_are_filled_in_and_records_come_last(objects: Objects, tmp_path: Path) -> None:
    """A RECORD line of a script is for the script as it is here."""
    made = make(objects, with_templates(objects), tmp_path / "venv")
    script = (tmp_path / "venv/bin/demo").read_bytes()
    assert script == b"#!/new/.venv/bin/python\nimport demo\n"
    assert os.access(tmp_path / "venv/bin/demo", os.X_OK)
    assert os.readlink(tmp_path / "venv/bin/python") == THERE.python
    first, second, _ = (tmp_path / "venv" / RECORD).read_text().splitlines()
    assert first.endswith(f",{len(script)}")
    assert "AAAA" not in first
    assert second == "demo/__init__.py,sha256=BBBB,6"
    for entry in (each for each in with_templates(objects).trees[0].entries if each.kind == "template"):
        st = (tmp_path / "venv" / entry.path).stat()
        assert (st.st_nlink, st.st_mtime_ns) == (1, made.written)
    assert abs(time.time_ns() - made.written) < 3600 * 10**9


@pytest.mark.parametrize("path", ["bin/demo", RECORD])
def test_a_damaged_template_is_named(objects: Objects, tmp_path: Path, path: str) -> None:
    """Templates are hashed whenever they are used."""
    manifest = with_templates(objects)
    (entry,) = [entry for entry in manifest.trees[0].entries if entry.path == path]
    damaged = Path(objects.path(Name(entry.digest, executable=False)))
    damaged.chmod(0o644)
    damaged.write_bytes(b"#!/bin/sh\n")
    os.utime(damaged, ns=(1, 1))
    with pytest.raises(Damaged, match=path):
        make(objects, manifest, tmp_path / "venv")


# --------------------------------------------------------------------------- hostile manifests


def hostile(*groups: list[Entry]) -> Manifest:
    """Return a manifest of one tree per group."""
    return Manifest(tuple(make_tree(f"t{number}", "", group) for number, group in enumerate(groups)))


@pytest.mark.parametrize("there", ["link", "dir", "file"])
@pytest.mark.parametrize("apart", [True, False])
def test_nothing_is_written_through_what_stands_where_a_directory_must_be(
    objects: Objects, tmp_path: Path, there: Any, apart: bool
) -> None:
    """A link that leads out of the venv cannot take files with it."""
    (tmp_path / "out").mkdir()
    put(objects, b"evil")
    evil = Entry(
        "lib", there, digest=name_of(b"evil").digest if there == "file" else "", target=str(tmp_path / "out")
    )
    below = file_entry("lib/x/evil", b"evil")
    manifest = hostile([evil], [below]) if apart else hostile([evil, below])
    with pytest.raises(Corrupt, match="'lib' is an entry and a directory"):
        make(objects, manifest, tmp_path / "venv")
    assert os.listdir(tmp_path / "out") == []


def test_one_path_in_two_trees_is_refused(objects: Objects, tmp_path: Path) -> None:
    """Nobody could say which is right."""
    put(objects, b"a", b"b")
    with pytest.raises(Corrupt, match="two trees"):
        make(objects, hostile([file_entry("a", b"a")], [file_entry("a", b"b")]), tmp_path / "venv")
    assert not (tmp_path / "venv").exists()


def test_a_destination_that_exists_is_refused(objects: Objects, tmp_path: Path) -> None:
    """A venv is made in a new directory, never over another; a link there is not followed."""
    (tmp_path / "out").mkdir()
    (tmp_path / "venv").symlink_to("out")
    with pytest.raises(FileExistsError):
        make(objects, plain(objects), tmp_path / "venv")
    assert os.listdir(tmp_path / "out") == []


def test_a_path_that_is_too_long_is_the_file_systems_error(objects: Objects, tmp_path: Path) -> None:
    """It says so, and no shortened name appears."""
    put(objects, b"x")
    with pytest.raises(OSError, match="too long"):
        make(objects, hostile([file_entry("n" * 300, b"x")]), tmp_path / "venv")
    assert os.listdir(tmp_path / "venv") == []


def test_names_of_any_bytes_are_made(objects: Objects, tmp_path: Path) -> None:
    """Spaces, line breaks, semicolons, non-UTF-8 and 255 bytes are only names."""
    put(objects, b"x")
    names = ["a b", "a\nb", "; touch PWNED", "%s", "\udcff\udcfe", "n" * 255, "Ä" * 127]
    make(objects, hostile([file_entry(name, b"x") for name in names]), tmp_path / "venv")
    assert sorted(os.listdir(tmp_path / "venv")) == sorted(names)


def _template(objects: Objects, path: str, data: bytes, *slots: Slot, size: int | None = None) -> Entry:
    (name,) = put(objects, data)
    return Entry(path, "template", name.digest, False, len(data) if size is None else size, "", slots)


_VENV = Slot(0, "venv", "raw")


@pytest.mark.parametrize(
    "slots",
    [
        [_VENV] * 20_000,
        [_VENV] * 27,
        [Slot(0, "file", "record", "bin/none")],
        [Slot(0, "etc", "raw")],
        [Slot(0, "venv", "rot13")],
        [Slot(11, "venv", "raw")],
        [Slot(5, "venv", "raw"), Slot(2, "venv", "raw")],
    ],
    ids=["a bomb", "more than bytes", "of no file", "no kind", "no form", "beyond", "backwards"],
)
def test_slots_that_make_no_sense_are_refused(objects: Objects, tmp_path: Path, slots: list[Slot]) -> None:
    """A tree may say anything, and its hash is right: the snapshot is put aside for it, nobody crashes."""
    with pytest.raises(Corrupt):
        make(objects, hostile([_template(objects, "a", b"0123456789", *slots)]), tmp_path / "venv")


def test_a_template_has_the_size_that_was_counted(objects: Objects, tmp_path: Path) -> None:
    """Or it is not what the tree says, whatever its hash is."""
    with pytest.raises(Damaged):
        make(objects, hostile([_template(objects, "a", b"0123456789", _VENV, size=9)]), tmp_path / "venv")


def test_more_names_than_any_venv_has_are_refused(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directories that names imply count, and nothing is made."""
    monkeypatch.setattr("venvflow.state.materialise._MOST_NAMES", 100)
    put(objects, b"x")
    with pytest.raises(Corrupt, match="151 names"):
        make(objects, hostile([file_entry("/".join(["d"] * 150 + ["x"]), b"x")]), tmp_path / "venv")
    assert not (tmp_path / "venv").exists()


def test_what_does_not_fit_is_not_begun(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies and what templates become count; what is shared takes nothing."""
    found = SimpleNamespace(f_bavail=300, f_frsize=1, f_files=0, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    put(objects, b"x" * 200)
    manifest = hostile([file_entry("a", b"x" * 200), _template(objects, "b", b"y" * 150, _VENV)])
    make(objects, manifest, tmp_path / "linked", "hardlink")
    with pytest.raises(OSError, match=r"No space left on device: \d+ bytes are needed, 300 are free"):
        make(objects, manifest, tmp_path / "copied", "copy")
    assert os.listdir(tmp_path / "copied") == []


def test_a_directory_that_becomes_a_link_meanwhile_is_not_followed(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever swaps it gets nothing written elsewhere."""
    (tmp_path / "outside").mkdir()
    manifest = plain(objects)
    made = Directories.open

    def swapping(directories: Directories, path: str) -> int:
        fd = made(directories, path)
        if path == "bin" and not (tmp_path / "venv/bin").is_symlink():
            (tmp_path / "venv/bin").rename(tmp_path / "venv/aside")
            (tmp_path / "venv/bin").symlink_to(tmp_path / "outside")
        return fd

    monkeypatch.setattr(Directories, "open", swapping)
    make(objects, manifest, tmp_path / "venv")
    assert os.listdir(tmp_path / "outside") == []
    assert (tmp_path / "venv/aside/tool").is_file()


def test_what_is_a_hard_link_to_a_sound_object_is_placed(objects: Objects, tmp_path: Path) -> None:
    """By the inode that its name has; empty files, links and copies are not."""
    made = make(objects, plain(objects), tmp_path / "venv")
    assert {path: each.inode for path, each in made.placed.items()} == {
        path: (tmp_path / "venv" / path).stat().st_ino for path in (MODULE, SCRIPT)
    }
    assert {each.mtime_ns for each in made.placed.values()} == {time_of(DATA[MODULE]), time_of(DATA[SCRIPT])}
    assert make(objects, plain(objects), tmp_path / "copy", "copy").placed == {}


def test_each_directory_is_made_and_opened_once(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A venv has thousands of them."""
    calls: list[tuple[str, str]] = []

    def noting(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(path: Any, *arguments: Any, **more: Any) -> Any:
            calls.append((name, os.fsdecode(path)))
            return real(path, *arguments, **more)

        return call

    manifest = plain(objects)
    for name in ("mkdir", "open"):
        monkeypatch.setattr(os, name, noting(name))
    make(objects, manifest, tmp_path / "venv")
    monkeypatch.undo()
    for path in ("bin", "lib", "python3.12", "site-packages", "demo", "empty"):
        assert calls.count(("mkdir", path)) == calls.count(("open", path)) == 1
