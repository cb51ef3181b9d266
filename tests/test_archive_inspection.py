"""What is in an archive without unpacking it: its manifest, and local paths that it still names."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from archives import DESCRIPTION, FORMATS, Objects, add_odd_names, document, make_venv, pack, read_venv
from pythons import SITE
from tiers import first_quick

from venvflow.disk.archive import (
    METADATA,
    Limits,
    Options,
    Trace,
    inspection,
    inventory_of,
    traces,
    write_archive,
)
from venvflow.disk.archive.formats import CHUNK
from venvflow.errors import EnvironmentFailure, Refused
from venvflow.model import Entry, Key, Manifest
from venvflow.pure.comparison import compare_manifests
from venvflow.pure.manifest import make_tree

KEY = {"digest": "a" * 64, "parts": {"python": "cpython 3.12.4"}}


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """Give an empty store of objects."""
    return Objects(tmp_path / "objects")


@pytest.fixture
def manifest(tmp_path: Path, objects: Objects) -> Manifest:
    """Give the manifest of a small venv."""
    venv = make_venv(tmp_path / "venv")
    add_odd_names(venv)
    return read_venv(venv, objects)


def written(path: Path, manifest: Manifest, objects: Objects, **options: Any) -> str:
    """Write an archive, and return its path."""
    description = {**DESCRIPTION, "key": KEY}
    write_archive(manifest, objects, str(path), Options(**options), description=description)
    return str(path)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("arcroot", ["", "some-env"])
def test_an_archive_holds_what_its_manifest_says(
    kind: str, arcroot: str, tmp_path: Path, manifest: Manifest, objects: Objects
) -> None:
    """In every format: files, templates, links, also to local paths, empty directories, distributions."""
    found = inventory_of(written(tmp_path / "a", manifest, objects, format=kind, arcroot=arcroot))
    assert found.manifest == manifest
    assert compare_manifests(manifest, found.manifest).equal
    assert found.ours
    assert found.key == Key(KEY["digest"], KEY["parts"])  # type: ignore[arg-type]


def test_an_archive_of_another_tool_is_what_its_files_are(
    tmp_path: Path, manifest: Manifest, objects: Objects
) -> None:
    """Wherever in it the venv lies; templates are files then."""
    members = subprocess.run(
        ["tar", "--format=posix", "-C", tmp_path / "venv", "-cf", "-", "."], check=True, capture_output=True
    ).stdout
    (tmp_path / "dot.tar").write_bytes(members)
    with tarfile.open(tmp_path / "deep.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(tmp_path / "venv", "srv/env")
    found = inventory_of(str(tmp_path / "deep.tar"))
    assert inventory_of(str(tmp_path / "dot.tar")).manifest == found.manifest
    assert (found.key, found.ours) == (None, False)
    assert {entry.kind for tree in found.manifest.trees for entry in tree.entries} == {"file", "link", "dir"}
    assert [(tree.name, tree.version) for tree in found.manifest.trees if tree.version] == [
        ("pkg1", "1.0"), ("pkg2", "1.0"), ("pkg3", "1.0"),
    ]  # fmt: skip
    differing = {each.name for each in compare_manifests(manifest, found.manifest).files}
    assert {"bin/activate", "bin/pkg1", "pyvenv.cfg", "bin/python"} <= differing
    assert f"{SITE}/pkg1/__init__.py" not in differing


def test_the_venv_of_an_archive_is_the_one_that_lies_highest(tmp_path: Path) -> None:
    """A package may bring one of its own, for its tests."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("env/data/venv/pyvenv.cfg", "inner")
        archive.writestr("env/pyvenv.cfg", "outer")
    (tree,) = inventory_of(str(tmp_path / "a.zip")).manifest.trees
    assert [entry.path for entry in tree.entries] == ["pyvenv.cfg", "data/venv/pyvenv.cfg"]


@pytest.mark.parametrize(
    "damage", [b"{", b"[]", document(templates=7), document(links=[["a", "b", [1]]]), document(format=1)]
)
def test_metadata_that_make_no_sense_are_refused(damage: bytes, tmp_path: Path) -> None:
    """They say which files are templates: without them the answer would be wrong."""
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(f"{METADATA}/pack.json", damage)
    with pytest.raises(Refused) as caught:
        inventory_of(str(tmp_path / "bad.zip"))
    assert caught.value.state == "Nothing was changed."
    assert "bad.zip" in caught.value.what


def test_what_only_other_tools_write_is_refused(tmp_path: Path) -> None:
    """Hard links, for one; the directory can be compared instead."""
    (tmp_path / "one").write_text("1", encoding="utf-8")
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    with tarfile.open(tmp_path / "links.tar", "w") as tar:
        tar.add(tmp_path / "one", "one")
        tar.add(tmp_path / "two", "two")
    with pytest.raises(Refused, match="is a hard link") as caught:
        inventory_of(str(tmp_path / "links.tar"))
    assert caught.value.state == "Nothing was changed."
    assert "compare the directory" in caught.value.hint


def test_a_key_that_makes_no_sense_is_none(tmp_path: Path, manifest: Manifest, objects: Objects) -> None:
    """Whatever stands there."""
    for description in ({}, {"key": 7}, {"key": {"digest": 7, "parts": {}}}, {"key": {"digest": "a"}}):
        (tmp_path / "a.zip").unlink(missing_ok=True)
        write_archive(
            manifest, objects, str(tmp_path / "a.zip"), Options("zip"),
            description={**DESCRIPTION, **description},
        )  # fmt: skip
        assert inventory_of(str(tmp_path / "a.zip")).key is None


@pytest.mark.parametrize("kind", FORMATS)
def test_a_cut_archive_is_refused(kind: str, tmp_path: Path, manifest: Manifest, objects: Objects) -> None:
    """What is left of it is not compared."""
    path = Path(written(tmp_path / "a", manifest, objects, format=kind))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Refused, match="is damaged, or not an archive"):
        inventory_of(str(path))


def test_an_archive_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """With its path and the reason."""
    with pytest.raises(EnvironmentFailure) as caught:
        inventory_of(str(tmp_path / "none.zip"))
    assert "No such file" in caught.value.what
    assert caught.value.where == str(tmp_path / "none.zip")


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A small zip could hold terabytes otherwise; inflating them all took minutes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(1 << 22))
    data = out.getvalue()
    start, end = data.find(b"PK\1\2"), data.find(b"PK\5\6")
    for times, room, words in ((2, 9_999, "is there twice"), (2, 0, "share their bytes")):
        lines = data[start:end] * times
        last = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, times, times, len(lines), start + room, 0)
        (tmp_path / "a.zip").write_bytes(data[:start] + bytes(room) + lines + last)
        with pytest.raises(Refused, match=words):
            inventory_of(str(tmp_path / "a.zip"))


@pytest.mark.parametrize("name", ["/etc/passwd", "a/../../b", "a//b"])
def test_unsafe_names_are_refused(name: str, tmp_path: Path) -> None:
    """As they are when it is unpacked."""
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(Refused, match=r"which (is absolute|climbs|has an empty part)"):
        inventory_of(str(tmp_path / "bad.zip"))


def test_more_than_may_be_unpacked_is_refused(
    tmp_path: Path, manifest: Manifest, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive may announce more than anybody has; a RECORD may not be larger than memory."""
    path = written(tmp_path / "a.zip", manifest, objects, format="zip")
    with monkeypatch.context() as patch:
        patch.setattr(inspection, "Limits", lambda: inventory_limits(entries=3))
        with pytest.raises(Refused):
            inventory_of(path)
    with monkeypatch.context() as patch:
        patch.setattr(inspection, "Limits", lambda: inventory_limits(size=1000))
        with pytest.raises(Refused, match="is too much"):
            inventory_of(path)
    monkeypatch.setattr(inspection, "LARGEST_BLOB", 10)
    with pytest.raises(Refused, match="bytes"):
        inventory_of(path)


def inventory_limits(**limits: Any) -> Any:
    """Return limits that are lower than usual."""
    return Limits(**limits)


def test_nothing_of_ours_is_in_the_manifest(tmp_path: Path, manifest: Manifest, objects: Objects) -> None:
    """What unpacking needs is no part of the venv."""
    found = inventory_of(written(tmp_path / "a.zip", manifest, objects, format="zip"))
    paths = {entry.path for tree in found.manifest.trees for entry in tree.entries}
    assert not {path for path in paths if path.startswith((METADATA, "postinstall.py"))}
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert json.loads(archive.read(f"{METADATA}/pack.json"))["description"]["key"] == KEY


# --------------------------------------------------------------------------- local paths

HOME = "/home/ann"


def packed(tmp_path: Path, name: str, **files: bytes) -> Path:
    """Pack *files* in the format *name*."""
    objects = Objects(tmp_path / "objects")
    entries = [Entry(path, "file", objects.put(data), size=len(data)) for path, data in files.items()]
    entries.append(Entry("link", "link", target="a"))
    pack(Manifest((make_tree("x", "", entries),)), objects, tmp_path / f"a.{name}")
    return tmp_path / f"a.{name}"


@pytest.mark.parametrize("name", first_quick(FORMATS, every=2))
def test_every_mention_is_counted(name: str, tmp_path: Path) -> None:
    """Across the pieces in which a member is read too, and the longest path of several counts."""
    split = bytes(CHUNK - 3) + HOME.encode() + b"/project/x " + HOME.encode()
    path = packed(tmp_path, name, a=split, b=b"nothing", c=b"/home/anna /home/ann-b x/home/ann")
    assert traces(str(path), [HOME, f"{HOME}/project"]) == [
        Trace("a", f"{HOME}/project", 1),
        Trace("a", HOME, 1),
        Trace("c", HOME, 1),
    ]


def test_a_mention_wherever_it_is_cut_is_counted_once(tmp_path: Path) -> None:
    """At every offset around the border of two pieces."""
    for offset in range(-len(HOME) - 2, 3):
        path = packed(tmp_path, "tar", a=bytes(CHUNK + offset) + HOME.encode() + b"\0" + bytes(CHUNK))
        assert traces(str(path), [HOME, "/very/long/path/to/something"]) == [Trace("a", HOME, 1)]


def test_no_paths_and_no_archive(tmp_path: Path) -> None:
    """Nothing to look for is nothing found; what is no archive is told."""
    path = packed(tmp_path, "tar.gz", a=b"x")
    assert traces(str(path), []) == []
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Refused, match="is damaged"):
        traces(str(path), [HOME])
    with pytest.raises(EnvironmentFailure, match="cannot read"):
        traces(str(tmp_path / "none"), [HOME])
