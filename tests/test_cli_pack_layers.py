"""``pack`` of a venv in layers, from the command line and by doit."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from archives import contents

from venvflow.disk.archive import parts

if TYPE_CHECKING:
    from cli_project import Project


@pytest.fixture
def layered(project: Project) -> Project:
    """Return a project whose venv ``api`` is in its place, and is to be packed in layers."""
    configure(project, "output: dist, layers: [[DEMO]]")
    assert project.run("restore", "api").code == 0
    return project


def configure(project: Project, pack: str) -> None:
    """Write the config again, with *pack* for the venv ``api``."""
    text = project.config.read_text(encoding="utf-8")
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("  api:"))
    line = f"  api: {{path: api/.venv, locks: [api/requirements.txt], pack: {{{pack}}}}}\n"
    project.config.write_text(f"{kept}\n{line}", encoding="utf-8")


def names(directory: Path) -> list[str]:
    """Return the names in a directory."""
    return sorted(path.name for path in directory.iterdir())


def test_each_layer_is_an_archive_and_a_list_names_them(layered: Project) -> None:
    """Their names hold the number of the layer and what is in them; beside each is what is always there."""
    record = layered.run("pack", "api", "--json").record
    assert (record["did"], record["archive"]) == ("packed", f"{layered.root}/dist/api.json")
    assert (record["figures"]["parts"], record["figures"]["parts_kept"]) == (2, 0)
    listed = json.loads((layered.root / "dist/api.json").read_text())["parts"]
    assert [row["archive"] for row in listed] == [Path(part["archive"]).name for part in record["parts"]]
    assert [row["archive"] for row in listed] == [
        f"api-{number}-{row['content'][:12]}.tar.zst" for number, row in zip("12", listed, strict=True)
    ]
    beside = [f"{row['archive']}{ending}" for row in listed for ending in ("", ".json", ".sha256")]
    assert names(layered.root / "dist") == sorted(["api.json", *beside])
    assert [part["distributions"] for part in record["parts"]] == [{"demo": "1.0"}, {}]
    subprocess.run(["sha256sum", "-c", *beside[2::3]], cwd=layered.root / "dist", check=True)
    heavy, last = (contents(Path(part["archive"])) for part in record["parts"])
    assert "bin/demo" in heavy
    assert "bin/activate" in last
    assert "bin/demo" not in last


def test_what_is_there_is_kept_and_what_is_not_written_again(layered: Project) -> None:
    """One part that is altered is written again, and only that one."""
    dist = layered.root / "dist"
    first = layered.run("pack", "api", "--json").record
    assert layered.run("pack", "api", "--json").record["did"] == "kept"
    assert [part["did"] for part in layered.run("pack", "api", "--json").record["parts"]] == ["kept", "kept"]
    heavy, last = (Path(part["archive"]) for part in first["parts"])
    before = looks([last])
    heavy.write_bytes(heavy.read_bytes()[:-1])
    again = layered.run("pack", "api", "--json").record
    assert (again["did"], [part["did"] for part in again["parts"]]) == ("packed", ["packed", "kept"])
    assert [part["sha256"] for part in again["parts"]] == [part["sha256"] for part in first["parts"]]
    assert looks([last]) == before
    # Without what was noted of it, the archives speak for themselves.
    (layered.root / ".venvflow/api/pack.json").unlink()
    assert layered.run("pack", "api", "--json").record["did"] == "kept"
    (dist / "api.json").unlink()
    assert layered.run("pack", "api", "--json").record["did"] == "kept"
    assert (dist / "api.json").exists()
    note = json.loads((layered.root / ".venvflow/api/pack.json").read_text())
    (dist / "api.json").write_text('{"list": 0, "venv": "api", "parts": []}')  # as another version has it
    st = (dist / "api.json").stat()
    note["outputs"][str(dist / "api.json")] = [st.st_ino, st.st_size, st.st_mtime_ns]
    (layered.root / ".venvflow/api/pack.json").write_text(json.dumps(note))
    assert len(layered.run("pack", "api", "--json").record["parts"]) == 2
    forced = layered.run("pack", "api", "--force", "--json").record
    assert [part["did"] for part in forced["parts"]] == ["packed", "packed"]


def test_to_people(layered: Project) -> None:
    """Each archive has a line; --check compares all."""
    answer = layered.run("pack", "api", "--check")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"api: packed: {layered.root}/dist/api.json, 2 archives, ")
    assert "1 distribution" in answer.out
    assert answer.out.count("  sha256 ") == 2
    assert "reproducible: packed twice more" in answer.out
    assert "local paths: none is left in it" in answer.out


def test_they_are_unpacked_and_tried_together(layered: Project) -> None:
    """By name, in any order; --smoke does it elsewhere."""
    record = layered.run("pack", "api", "--smoke", "import demo; print(demo.__file__)", "--json").record
    assert record["smoke"]["status"] == 0
    assert "/a b/api/lib/" in record["smoke"]["output"]
    parts = [part["archive"] for part in record["parts"]]
    answer = layered.run("unpack", *parts, "../there", "--json")
    assert (answer.code, answer.document["verified"]) == (0, True)
    assert subprocess.run([layered.root.parent / "there/bin/demo"], check=True, capture_output=True).stdout
    for archives, why in ((parts[:1], "the last part is missing"), (parts[1:], "without api-1-")):
        answer = layered.run("unpack", *archives, "../elsewhere")
        assert answer.code == 6
        assert why in answer.err
        assert not (layered.root.parent / "elsewhere").exists()
    answer = layered.run("unpack", record["archive"], "../by-list")  # the list that is beside them
    assert (answer.code, "verified" in answer.out) == (0, True)
    (layered.root / "dist/bad.json").write_text("{}")
    answer = layered.run("unpack", "dist/bad.json", "../elsewhere")
    assert (answer.code, "is not a list of archives" in answer.err) == (6, True)
    answer = layered.run("unpack", *parts, "nowhere.tar.zst", "../elsewhere")
    assert (answer.code, "there is no such archive" in answer.err) == (3, True)


@pytest.mark.parametrize(
    ("name", "listed", "pattern"),
    [
        ("{layer}-{digest}", "api.json", r"[12]-[0-9a-f]{12}\.tar"),
        ("x-{digest}-{venv}-{version:demo}", "x-api-1.0.json", r"x-[0-9a-f]{12}-api-1\.0\.tar"),
    ],
)
def test_names(layered: Project, name: str, listed: str, pattern: str) -> None:
    """The config says where number and digest stand."""
    configure(layered, f"output: dist, format: tar, layers: [[demo], ['*']], name: '{name}'")
    record = layered.run("pack", "api", "--json").record
    assert record["archive"] == f"{layered.root}/dist/{listed}"
    assert all(re.fullmatch(pattern, Path(part["archive"]).name) for part in record["parts"])


def test_other_settings_are_other_archives(layered: Project) -> None:
    """Layers, level and arcroot count; a layer that takes nothing is said, and has no archive."""
    layered.run("pack", "api")
    configure(layered, "output: dist, layers: [[torch, 'nvidia-*'], [demo]]")
    record = layered.run("pack", "api", "--json").record
    assert (record["did"], [part["layer"] for part in record["parts"]]) == ("packed", ["2", "3"])
    assert record["warnings"] == ["layer 1 takes nothing: there is no torch or nvidia-* in the venv"]
    configure(layered, "output: dist, level: 5, layers: [[demo]]")
    assert layered.run("pack", "api", "--json").record["figures"]["parts_kept"] == 0
    configure(layered, "output: dist, level: 5, layers: [[demo]], arcroot: env")
    rooted = layered.run("pack", "api", "--json").record
    assert {name.split("/")[0] for part in rooted["parts"] for name in contents(Path(part["archive"]))} == {
        "env"
    }
    configure(layered, "output: dist")
    assert layered.run("pack", "api", "--json").record["parts"] == []


def test_a_file_that_somebody_else_wrote_is_not_replaced(layered: Project) -> None:
    """Neither the list nor an archive."""
    dist = layered.root / "dist"
    parts = [Path(part["archive"]) for part in layered.run("pack", "api", "--json").record["parts"]]
    for path in dist.iterdir():
        if path not in parts[:1]:
            path.unlink()
    (layered.root / ".venvflow/api/pack.json").unlink()
    parts[0].write_text("notes")
    answer = layered.run("pack", "api")
    assert answer.code == 6
    assert f"{parts[0]} is there already, and venvflow did not write it" in answer.err
    parts[0].unlink()
    for text in ("notes", "{}"):
        (dist / "api.json").write_text(text)
        answer = layered.run("pack", "api")
        assert answer.code == 6
        assert "api.json is there already" in answer.err
    assert names(dist) == ["api.json"]
    assert layered.run("pack", "api", "--force").code == 0


def looks(paths: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Return inode, size and times of files; reading them changes nothing of that."""
    found = {path: path.stat() for path in paths}
    return {path.name: (st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns) for path, st in found.items()}


def test_doit_packs_what_changed(layered: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of the last layer changes: the archive of the first is the same file."""
    assert layered.run("build", "api").code == 0
    dist = layered.root / "dist"
    heavy = [path for path in dist.iterdir() if path.name.startswith("api-1-")]
    before = looks(heavy)
    assert len(before) == 3
    shutil.copy("web/requirements.txt", "api/requirements.txt")  # demo, and other
    assert layered.run("build", "api").code == 0
    listed = json.loads((dist / "api.json").read_text())["parts"]
    assert [row["distributions"] for row in listed] == [[["demo", "1.0"]], [["other", "2.0"]]]
    assert looks(heavy) == before
    assert len([name for name in names(dist) if name.endswith(".tar.zst")]) == 3  # the old last one, too
    # What is as it was when it was written is not read for that.
    with monkeypatch.context() as patch:
        patch.setattr(parts, "is_current", lambda path: (_ for _ in ()).throw(AssertionError(path)))
        (dist / f"{listed[1]['archive']}.json").unlink()
        assert layered.run("pack", "api", "--json").record["figures"]["parts_kept"] == 1
    (dist / listed[1]["archive"]).unlink()
    explained = layered.run("explain", "api")
    assert f"{listed[1]['archive']} is gone or was altered" in explained.out
    layered.run("build", "api")
    assert (dist / listed[1]["archive"]).exists()
    assert looks(heavy) == before


def test_diff_of_the_last_part_is_of_all(layered: Project) -> None:
    """It looks for the others beside it, and says which is not there."""
    record = layered.run("pack", "api", "--json").record
    heavy, last = (part["archive"] for part in record["parts"])
    assert layered.run("pack", "api", "-o", "whole.tar").code == 0
    for other in ("whole.tar", "api"):
        answer = layered.run("diff", last, other)
        assert (answer.code, answer.err) == (0, "")
    Path(heavy).unlink()
    answer = layered.run("diff", last, "whole.tar")
    assert answer.code == 6
    assert f"{Path(heavy).name} (layer 1) is not beside it" in answer.err


# --------------------------------------------------------------------------- export


def picture(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what is below a directory: kind, mode, time, and bytes or target."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        st = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(root))] = (st.st_mode, st.st_mtime_ns, what)
    return found


def test_export_in_layers(layered: Project) -> None:
    """One after the other copied into one directory, they are the venv, at the place that it is to have."""
    place = layered.root.parent / "image/app/.venv"
    words = ("--dest-prefix", str(place))
    assert layered.run("export", "api", "../layers", "--layers", *words).code == 0
    layers = layered.root.parent / "layers"
    assert names(layers) == ["01", "02"]
    heavy, last = layers / "01", layers / "02"
    assert (heavy / "bin/demo").exists()
    assert not (last / "bin/demo").exists()
    assert not [path for path in last.rglob("*") if path.name.startswith("demo")]
    assert (last / "bin/activate").exists()
    for layer in (heavy, last):
        shutil.copytree(layer, place, symlinks=True, dirs_exist_ok=True)
    assert subprocess.run([place / "bin/demo"], check=True, capture_output=True).stdout
    said = subprocess.run(
        [place / "bin/python", "-c", "import sys, demo; print(sys.prefix)"], check=True, capture_output=True
    ).stdout
    assert said.decode().strip() == str(place)
    # The same again, elsewhere and by somebody with another umask.
    old = os.umask(0o077)
    try:
        assert layered.run("export", "--layers", "api", "../again", *words).code == 0
    finally:
        os.umask(old)
    again = layered.root.parent / "again"
    assert picture(again) == picture(layers)
    assert {oct(path.lstat().st_mode & 0o777) for path in again.rglob("*") if not path.is_symlink()} == {
        "0o644",
        "0o755",
    }


def test_export_in_layers_again(layered: Project) -> None:
    """--force replaces an older one; after a change elsewhere the first layer is as it was."""
    words = ("export", "api", "../layers", "--layers", "--dest-prefix", "/app/.venv")
    layers = layered.root.parent / "layers"
    assert layered.run(*words).code == 0
    before = picture(layers / "01")
    assert layered.run(*words).code == 6
    shutil.copy("web/requirements.txt", "api/requirements.txt")  # demo, and other
    assert layered.run("build", "api").code == 0
    answer = layered.run(*words, "--force", "--json")
    assert (answer.code, answer.document["path"]) == (0, str(layers))
    assert picture(layers / "01") == before
    assert [*(layers / "02").rglob("other*")]
    (layers / "notes").write_text("mine")  # what is not an export only is not replaced
    assert layered.run(*words, "--force").code == 6


def test_a_layer_with_nothing_in_it_is_an_empty_directory(layered: Project) -> None:
    """So the lines of a Dockerfile hold; an interpreter that only the image has is taken at its word."""
    configure(layered, "layers: [[nothing], [demo]]")
    words = ("--layers", "--dest-prefix", "/app/.venv", "--python", "/nowhere/bin/python3")
    assert layered.run("export", "api", "../layers", *words).code == 0
    layers = layered.root.parent / "layers"
    assert names(layers) == ["01", "02", "03"]
    assert names(layers / "01") == []
    assert os.readlink(layers / "03/bin/python") == "/nowhere/bin/python3"
    assert "home = /nowhere/bin\n" in (layers / "03/pyvenv.cfg").read_text()


def test_layers_that_nobody_asked_for(layered: Project) -> None:
    """They are those of the config; the place must be a whole path."""
    configure(layered, "output: dist")
    answer = layered.run("export", "api", "../layers", "--layers")
    assert (answer.code, "no layers are known" in answer.err) == (2, True)
    answer = layered.run("export", "api", "../layers", "--dest-prefix", "app")
    assert (answer.code, "is not an absolute path" in answer.err) == (2, True)
    assert not (layered.root.parent / "layers").exists()
