"""From manifest to a portable directory: the rules of archives, without an archive."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from archives import DESCRIPTION, Objects, make_venv, pack, read_venv
from contents import in_child, killed_at_each, picture, time_of

from venvflow.disk import places
from venvflow.disk.archive import DamagedObject, extract
from venvflow.disk.export import Exported, export, holds_links
from venvflow.disk.places import Place
from venvflow.errors import EnvironmentFailure, Refused
from venvflow.model import Entry, Manifest
from venvflow.pure.manifest import make_tree


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """Return an empty store of objects."""
    return Objects(tmp_path / "objects")


@pytest.fixture
def manifest(tmp_path: Path, objects: Objects) -> Manifest:
    """Return the manifest of a small venv."""
    return read_venv(make_venv(tmp_path / "built/venv"), objects)


def made(manifest: Manifest, objects: Objects, place: Path, **how: object) -> Exported:
    """Export to *place*."""
    return export(manifest, objects, str(place), description=DESCRIPTION, **how)  # type: ignore[arg-type]


def shared_files(directory: Path) -> set[str]:
    """Return the names of files that have another name somewhere."""
    stats = [(path.name, path.lstat()) for path in directory.rglob("*") if not path.is_dir()]
    return {name for name, st in stats if st.st_nlink > 1}


def test_an_export_is_what_unpacking_the_archive_gives(
    manifest: Manifest, objects: Objects, tmp_path: Path
) -> None:
    """Every entry, with its bytes, executable bit and time; and it says how much it was."""
    exported = made(manifest, objects, tmp_path / "out")
    extracted = extract(pack(manifest, objects, tmp_path / "a.tar").path, str(tmp_path / "back"))
    assert picture(tmp_path / "out") == picture(tmp_path / "back")
    assert (exported.entries, exported.size) == (extracted.entries, extracted.size)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert all(path.stat().st_mtime_ns == time_of(path.read_bytes()) for path in files)


def test_files_are_private_unless_links_are_asked_for(
    manifest: Manifest, objects: Objects, tmp_path: Path
) -> None:
    """Linked ones share the object; what is written to in place stays private even then."""
    private = made(manifest, objects, tmp_path / "private")
    linked = made(manifest, objects, tmp_path / "linked", modes=("hardlink", "copy"))
    assert set(private.modes) <= {"reflink", "copy"}
    assert linked.modes["hardlink"] > 0
    shared = shared_files(tmp_path / "linked")
    assert "data.bin" in shared
    assert not shared & {"pyvenv.cfg", "activate", "RECORD", "pack.json", "nothing"}
    assert not shared_files(tmp_path / "private")


@pytest.mark.parametrize("damage", [b"other", None])
def test_a_damaged_object_leaves_nothing(
    damage: bytes | None, manifest: Manifest, objects: Objects, tmp_path: Path
) -> None:
    """Other bytes than its name says, or gone: the export fails, with what it is for."""
    entries = [entry for tree in manifest.trees for entry in tree.entries]
    (entry,) = [entry for entry in entries if entry.path.endswith("pkg2/data.bin")]
    path = Path(objects.path(entry.digest, executable=False))
    path.chmod(0o644)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    with pytest.raises(DamagedObject, match=r"pkg2/data\.bin"):
        made(manifest, objects, tmp_path / "out")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["built", "objects"]


def test_what_is_unsafe_in_an_archive_is_refused_here_too(objects: Objects, tmp_path: Path) -> None:
    """Links that lead out, and names that climb."""
    for entry in (Entry("a", "link", target="../out"), Entry("../a", "file", objects.put(b"x"), size=1)):
        with pytest.raises(Refused):
            made(Manifest((make_tree("x", "", [entry]),)), objects, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["objects"]


def test_a_failing_end_leaves_nothing(manifest: Manifest, objects: Objects, tmp_path: Path) -> None:
    """What finishes the directory does so before it has its name."""

    def finish(staging: str) -> None:
        assert not (tmp_path / "out").exists()
        raise EnvironmentFailure(os.path.basename(staging))

    with pytest.raises(EnvironmentFailure):
        made(manifest, objects, tmp_path / "out", finish=finish)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["built", "objects"]


def test_progress_goes_up_to_the_whole(manifest: Manifest, objects: Objects, tmp_path: Path) -> None:
    """In bytes, and never back."""
    seen: list[tuple[int, int]] = []
    exported = made(manifest, objects, tmp_path / "out", progress=lambda *state: seen.append(state))
    assert seen == sorted(seen)
    assert seen[-1] == (exported.size, exported.size)


@pytest.mark.slow
def test_a_kill_at_any_call_leaves_no_export(manifest: Manifest, objects: Objects, tmp_path: Path) -> None:
    """Or all of it: there is no directory with something missing under the final name."""
    import shutil

    whole = made(manifest, objects, tmp_path / "whole").entries

    def prepare() -> None:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)

    for death in killed_at_each(
        lambda: made(manifest, objects, tmp_path / "out"), ("mkdir", "symlink", "rename"), prepare
    ):
        there = list((tmp_path / "out").rglob("*"))
        assert not there or len(there) == whole, death
    assert in_child(lambda: made(manifest, objects, tmp_path / "again")) == 0


def test_whether_a_directory_holds_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By trying it, in the nearest directory that is there; no trace is left."""
    assert holds_links(str(tmp_path / "not/there/yet"))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(os, "symlink", refuse)
    answer = errno.EPERM
    assert not holds_links(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    answer = errno.EIO  # a disk that fails says nothing about links
    with pytest.raises(EnvironmentFailure, match="cannot write there"):
        holds_links(str(tmp_path))
    with pytest.raises(EnvironmentFailure, match="cannot write there"):
        holds_links("/proc")


def test_what_does_not_fit_is_not_begun(
    manifest: Manifest, objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted before; what is needed and what is free is said."""
    found = SimpleNamespace(f_bavail=10, f_frsize=1, f_files=5, f_favail=5)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    with pytest.raises(EnvironmentFailure, match=r"\d+ inodes are needed, 5 are free"):
        made(manifest, objects, tmp_path / "out")
    found.f_files = 0
    with pytest.raises(EnvironmentFailure, match=r"\d+ bytes are needed, 10 are free"):
        made(manifest, objects, tmp_path / "out", modes=("copy",))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["built", "objects"]


def test_what_venvflow_believes_of_a_venv_is_not_copied(objects: Objects, tmp_path: Path) -> None:
    """A receipt, wherever it lies, and what a killed run left: the copy is no venv of venvflow's."""
    names = ["pyvenv.cfg", ".venvflow.json", "lib/.vf-1-2", "share/venv/.venvflow.json", "share/venv/x"]
    entries = [Entry(name, "file", objects.put(b"{}"), False, 2) for name in names]
    manifest = Manifest((make_tree("x", "", entries),))
    made(manifest, objects, tmp_path / "out")
    there = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    assert {"pyvenv.cfg", "share/venv/x"} <= there
    assert not [path for path in there if ".venvflow.json" in path or ".vf-" in path]
    pack(manifest, objects, tmp_path / "a.tar")
    extract(str(tmp_path / "a.tar"), str(tmp_path / "back"))


def test_missing_directories_above_it_go_again(objects: Objects, tmp_path: Path) -> None:
    """Those that were made for an export that failed."""

    def finish(_: str) -> None:
        raise EnvironmentFailure("failed")

    with pytest.raises(EnvironmentFailure):
        made(Manifest(()), objects, tmp_path / "a/b/c", finish=finish)
    assert [each.name for each in tmp_path.iterdir()] == ["objects"]


# --------------------------------------------------------------------------- in place of an older one


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_killed_replacement_leaves_the_old_export_or_the_new_one(
    can_exchange: bool,
    manifest: Manifest,
    objects: Objects,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At each call that changes a name; running again finishes it, and nothing is left beside."""
    if not can_exchange:
        monkeypatch.setattr(places, "exchange", lambda *_a, **_k: False)
    place = tmp_path / "srv/app"
    less = Manifest(manifest.trees[:1])
    made(less, objects, tmp_path / "one/app")
    made(manifest, objects, tmp_path / "two/app")
    old, new = picture(tmp_path / "one/app"), picture(tmp_path / "two/app")
    assert old != new

    def prepare() -> None:
        if place.parent.exists():
            shutil.rmtree(place.parent)
        shutil.copytree(tmp_path / "one", place.parent, symlinks=True)

    def work() -> None:
        made(manifest, objects, place, replace=True)

    for death in killed_at_each(work, ("rmdir",) if can_exchange else ("rename",), prepare):
        if can_exchange or place.exists():  # else the next run puts it back
            assert picture(place) in (old, new), death
        Place(str(place)).settle()
        assert picture(place) in (old, new), death
        work()
        assert picture(place) == new
        assert os.listdir(place.parent) == ["app"]


def test_a_failed_replacement_leaves_the_old_export(
    manifest: Manifest, objects: Objects, tmp_path: Path
) -> None:
    """Also when what is to be made of it fails at its very end."""
    made(Manifest(manifest.trees[:1]), objects, tmp_path / "app")
    before = picture(tmp_path / "app")

    def fail(_staging: str) -> None:
        raise Refused("no")

    with pytest.raises(Refused):
        made(manifest, objects, tmp_path / "app", replace=True, finish=fail)
    assert picture(tmp_path / "app") == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["app", "built", "objects"]
