"""``diff``: what differs between what is in two venvs, snapshots or archives."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cli_project import Project


def differing(project: Project, *words: str) -> dict[str, Any]:
    """Return what differs, as JSON, after seeing that the exit code fits and nothing moved by asking."""
    before = project.hashes()
    answer = project.run("diff", *words, "--json")
    assert project.hashes() == before
    document: dict[str, Any] = answer.document
    assert answer.code == (0 if document["equal"] else 1)
    return document


def snapshot_of(project: Project) -> str:
    """Return the id of the one snapshot."""
    (snapshot,) = project.run("list", "--json").document["snapshots"]
    return str(snapshot["id"])


@pytest.fixture
def made(project: Project) -> Project:
    """Give the project with its venv restored."""
    assert project.run("restore", "api").code == 0
    return project


def files_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the path of each file of a venv that is read from now on."""
    from venvflow.disk import scan
    from venvflow.state import survey

    seen: list[str] = []

    def read(path: str, **how: Any) -> scan.Content:
        seen.append(path)
        return scan.read(path, **how)

    monkeypatch.setattr(survey, "read", read)
    return seen


def test_a_restored_venv_is_equal_to_its_snapshot(made: Project) -> None:
    """By name, by path, by id, by the first digits of it, by its key."""
    identifier = snapshot_of(made)
    for word in (identifier, identifier[:4], f"snapshot:{identifier[:8]}", f"key:{identifier}", "api/.venv"):
        answer = made.run("diff", "api", word)
        assert (answer.code, answer.err) == (0, "")
        assert answer.out.endswith("are equal\n")


def test_the_document_has_these_keys(made: Project) -> None:
    """Equal or not, with the same keys."""
    assert differing(made, "api", "api") == {
        "old": {"kind": "venv", "name": "api"},
        "new": {"kind": "venv", "name": "api"},
        "equal": True,
        "counts": {
            "distributions": {"added": 0, "removed": 0, "changed": 0},
            "files": {"added": 0, "removed": 0, "changed": 0},
        },
        "distributions": [],
        "files": [],
    }
    (made.site / "demo.py").unlink()
    (made.site / "mine.py").write_bytes(b"MINE = 1\n")
    found = differing(made, "api", snapshot_of(made)[:6])
    assert found["counts"] == {
        "distributions": {"added": 0, "removed": 0, "changed": 1},
        "files": {"added": 1, "removed": 1, "changed": 0},
    }
    ((demo),) = found["distributions"]
    assert demo["name"] == "demo"
    assert (demo["change"], demo["old"]["version"], demo["new"]["version"]) == ("changed", "1.0", "1.0")
    assert demo["new"]["files"] - demo["old"]["files"] == 1
    site = made.site.relative_to(made.root / "api" / ".venv")
    added, removed = found["files"]
    assert added == {
        "path": f"{site}/demo.py", "change": "added", "what": None, "old": None,
        "new": {"kind": "file", "size": added["new"]["size"]},
    }  # fmt: skip
    assert removed == {
        "path": f"{site}/mine.py", "change": "removed", "what": None,
        "old": {"kind": "file", "size": 9}, "new": None,
    }  # fmt: skip


def test_text_names_distributions_then_files(made: Project) -> None:
    """With signs, versions, sizes and counts; the largest files only, unless all are asked for."""
    for number in range(8):
        (made.site / f"mine{number}.py").write_bytes(b"#" * (number * 1000))
    (made.site / "demo.py").unlink()
    text = made.run("diff", snapshot_of(made), "api").out
    lines = text.splitlines()
    assert lines[0] == f"snapshot {snapshot_of(made)} -> venv api"
    assert lines[1] == "distributions: 1 changed"
    assert lines[3].split()[:4] == ["~", "demo", "1.0", "1.0"]
    assert lines[4] == "files: 8 added, 1 removed; the largest (--files lists all):"
    assert [line.split()[1].rpartition("/")[2] for line in lines[5:]] == [
        f"mine{number}.py" for number in (7, 6, 5, 4, 3)
    ]
    assert "mine7.py  6.8 KiB" in text
    for all_files in ("--files", "-v"):
        lines = made.run("diff", snapshot_of(made), "api", all_files).out.splitlines()
        assert len(lines) == 5 + 9
        assert lines[4] == "files: 8 added, 1 removed"


def test_an_edit_of_a_template_shows(made: Project) -> None:
    """A script differs in its content, but not by the path of its interpreter."""
    script = made.root / "api" / ".venv" / "bin" / "demo"
    text = script.read_bytes()
    script.unlink()
    script.write_bytes(text + b"# more\n")
    script.chmod(0o755)
    (found,) = differing(made, snapshot_of(made), "api")["files"]
    assert (found["path"], found["what"]) == ("bin/demo", "content")
    said = made.run("diff", snapshot_of(made), "api").out
    assert "files: 1 changed\n  ~ bin/demo  " in said
    assert found["new"]["size"] - found["old"]["size"] == 7
    script.unlink()
    script.write_bytes(text)
    script.chmod(0o644)
    (found,) = differing(made, snapshot_of(made), "api")["files"]
    assert (found["path"], found["what"]) == ("bin/demo", "mode")


def test_two_checkouts_are_equal(made: Project) -> None:
    """Scripts name the one or the other place, and are the same templates."""
    other = made.root.parent / "other checkout"
    shutil.copytree(made.root, other, ignore=shutil.ignore_patterns(".venv", ".venvflow"))
    assert made.run("-C", str(other), "restore", "api").code == 0
    assert (other / "api/.venv/bin/demo").read_bytes() != (made.root / "api/.venv/bin/demo").read_bytes()
    assert differing(made, "api", str(other / "api" / ".venv"))["equal"]


def test_a_venv_of_another_tool_is_compared_by_its_files(made: Project) -> None:
    """It is in no config and no store; what another tool installs is told."""
    venv = made.root.parent / "foreign" / ".venv"
    venv.parent.mkdir()
    os.rename(made.make_foreign_venv("web"), venv)
    found = differing(made, str(venv), "api")
    assert [(each["name"], each["change"]) for each in found["distributions"]] == [("demo", "added")]
    assert {"bin/demo"} <= {each["path"] for each in found["files"] if each["change"] == "added"}


def test_a_venv_without_a_store_is_read(made: Project) -> None:
    """All its files are, and none is the worse for it."""
    shutil.rmtree(made.store)
    assert differing(made, "api", "api")["equal"]
    (made.site / "demo.py").unlink()
    copy = made.root.parent / "copy"
    shutil.copytree(made.root / "api" / ".venv", copy, symlinks=True)
    assert [each["path"].rpartition("/")[2] for each in differing(made, str(copy), "api")["files"]] != []


def test_an_unchanged_venv_is_not_read(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trees in the store say what it holds; of a changed one only what changed is read."""
    read = files_read(monkeypatch)
    assert made.run("diff", "api", snapshot_of(made)).code == 0
    assert read == []
    (made.site / "mine.py").write_bytes(b"MINE = 1\n")
    assert made.run("diff", "api", snapshot_of(made)).code == 1
    # What is never linked is cheap to read, and a RECORD tells which distributions there are.
    assert {os.path.basename(path) for path in read} == {"mine.py", "RECORD"}


def test_a_copied_venv_is_not_the_one_that_it_was_copied_from(made: Project) -> None:
    """Its scripts run the other one: they name a place that is not theirs."""
    copy = made.root.parent / "copy"
    shutil.copytree(made.root / "api" / ".venv", copy, symlinks=True)
    files = {each["path"]: each["what"] for each in differing(made, "api", str(copy))["files"]}
    assert files["bin/demo"] == "content"
    assert not any(path.endswith("demo.py") for path in files)


def test_a_venv_that_was_only_built_is_not_read_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build from nothing noted how its files look."""
    from venvflow.flow import load
    from venvflow.steps.build_venv import build_venv
    from venvflow.steps.hash_lockfiles import hash_lockfiles

    flow = load(str(project.root), os.environ)
    flow.fresh = frozenset({"web"})
    job = flow.job("web")
    for step in (hash_lockfiles, build_venv):
        step(job)
    read = files_read(monkeypatch)
    assert [each["name"] for each in differing(project, snapshot_of(project), "web")["distributions"]] == [
        "other"
    ]
    assert {os.path.basename(path) for path in read} <= {"RECORD"}


def test_editable_installs_of_two_foreign_venvs_are_equal(made: Project) -> None:
    """Each names the directory that it lies in."""
    venvs = []
    for name in ("one", "two"):
        venv = made.root.parent / name / ".venv"
        venv.parent.mkdir()
        os.rename(made.make_foreign_venv("web"), venv)
        (site,) = venv.glob("lib/python*/site-packages")
        (site / "mine.pth").write_text(f"{venv.parent}/src\n", encoding="utf-8")
        venvs.append(str(venv))
    files = [each["path"] for each in differing(made, *venvs)["files"]]
    assert not any(path.endswith("mine.pth") for path in files)


# --------------------------------------------------------------------------- archives


@pytest.mark.parametrize("kind", ["tar", "tar.zst", "tar.gz", "zip"])
def test_an_archive_is_equal_to_its_venv(kind: str, made: Project) -> None:
    """Although what it holds is filled in for another place."""
    archive = f"dist/api.{kind}"
    assert made.run("pack", "api", "-o", archive).code == 0
    found = differing(made, archive, "api")
    assert found["old"] == {"kind": "archive", "name": archive}
    assert found["files"] == []
    (made.site / "demo.py").unlink()
    found = differing(made, archive, "api")
    assert [each["path"].rpartition("/")[2] for each in found["files"]] == ["demo.py"]


def test_an_archive_of_another_tool_is_compared_as_it_is(made: Project) -> None:
    """Its local paths are part of the files, which is said; the directory in it is found."""
    archive = made.root.parent / "theirs.tar.gz"
    with tarfile.open(archive, "w:gz", dereference=False) as tar:
        tar.add(made.root / "api" / ".venv", "some/env", filter=lambda member: member)
    answer = made.run("diff", str(archive), "api", "--json")
    assert "was not written by venvflow" in answer.err
    files = {each["path"]: each["what"] for each in answer.document["files"]}
    assert files["bin/demo"] == "content"
    assert answer.document["counts"]["distributions"] == {"added": 0, "removed": 0, "changed": 1}
    assert not any(path.endswith("demo.py") for path in files)


def test_a_file_that_is_no_archive_says_so(made: Project) -> None:
    """Damaged, empty, or something else; nothing was changed."""
    good = made.root / "good.zip"
    assert made.run("pack", "api", "-o", str(good)).code == 0
    damaged = made.root / "damaged.tar.zst"
    for data in (b"", b"no archive", good.read_bytes()[:-40], b"\x28\xb5\x2f\xfd" + b"x" * 100):
        damaged.write_bytes(data)
        answer = made.run("diff", "api", "damaged.tar.zst")
        assert (answer.code, "is damaged, or not an archive" in answer.err) == (6, True)
        assert "Nothing was changed." in answer.err


def test_an_archive_with_unsafe_names_is_refused(made: Project) -> None:
    """Nothing would be written; but what is compared must be what unpacking gives."""
    with zipfile.ZipFile(made.root / "bad.zip", "w") as archive:
        archive.writestr("../../etc/passwd", "x")
    answer = made.run("diff", "bad.zip", "api")
    assert (answer.code, "which climbs with '..'" in answer.err) == (6, True)


# --------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("api", "ap"), "Did you mean api?"),
        (("api", "zzzz"), "There are: api, web."),
        (("api", "snapshot:ffff"), "there is no snapshot 'ffff'"),
        (("api", "venv:wob"), "there is no venv 'wob'. Nothing was changed. Did you mean web?"),
        (("api", "archive:no.zip"), "there is no archive 'no.zip'"),
        (("api", "path:web"), "there is no path 'web'"),
        (("api", "key:12345"), "there is no key '12345'"),
        (("api", "web"), 'the venv is not there. Nothing was changed. Run "doit web"'),
    ],
)
def test_what_is_not_there_is_an_error(words: tuple[str, str], says: str, made: Project) -> None:
    """With the nearest name; exit code 2."""
    answer = made.run("diff", *words)
    assert answer.code == 2
    assert says in answer.err
    assert answer.out == ""


def test_a_word_with_two_meanings_says_which_it_was(made: Project) -> None:
    """And how to mean the other one."""
    venv = made.root / "web" / ".venv"
    os.rename(made.root / "api" / ".venv", venv)
    os.symlink(venv, made.root / "api.link")
    os.rename(venv, made.root / "web.moved")
    shutil.rmtree(made.root / "web")
    os.rename(made.root / "web.moved", made.root / "web")
    answer = made.run("diff", "path:web", "web")
    assert answer.code == 2  # the venv of that name is not there
    assert "web means the venv of that name in the config; write path:web for" in answer.err


@pytest.mark.slow
def test_an_ambiguous_prefix_names_the_snapshots(made: Project) -> None:
    """More digits tell them apart."""
    from dataclasses import replace

    from venvflow.pure.keys import make_key
    from venvflow.pure.manifest import decode_snapshot, encode_snapshot

    (file,) = (made.store / "snapshots").iterdir()
    snapshot = decode_snapshot(file.read_bytes())
    start, number = snapshot.id[:4], 0
    while True:
        number += 1
        key = make_key({**snapshot.key.parts, "env:N": str(number)})
        if key.digest.startswith(start):
            break
    other = replace(snapshot, id=key.digest, key=key)
    (made.store / "snapshots" / f"{other.id}.json").write_bytes(encode_snapshot(other))
    answer = made.run("diff", "api", start)
    assert (answer.code, f"2 snapshots begin with '{start}'" in answer.err) == (2, True)
    assert f"{other.id[:12]} (api)" in answer.err
    assert made.run("diff", "api", other.id[:12]).code == 0


def test_a_key_with_several_snapshots_names_them(made: Project) -> None:
    """Venvs that name files of the project have one for each place in it."""
    from dataclasses import replace

    from venvflow.pure.keys import snapshot_id
    from venvflow.pure.manifest import decode_snapshot, encode_snapshot

    (file,) = (made.store / "snapshots").iterdir()
    snapshot = decode_snapshot(file.read_bytes())
    file.unlink()
    for place in ("a/.venv", "b/.venv"):
        bound = replace(snapshot, id=snapshot_id(snapshot.key.digest, place), place=place)
        (made.store / "snapshots" / f"{bound.id}.json").write_bytes(encode_snapshot(bound))
    answer = made.run("diff", "api", f"key:{snapshot.key.digest}")
    assert (answer.code, "there are several snapshots for the key" in answer.err) == (2, True)
    assert "(a/.venv)" in answer.err
    assert "(b/.venv)" in answer.err


def test_a_damaged_snapshot_is_an_error_that_says_so(made: Project) -> None:
    """It is neither equal nor different."""
    identifier = snapshot_of(made)
    for tree in (made.store / "trees").glob("*/*"):
        tree.unlink()
    answer = made.run("diff", "api", identifier)
    assert (answer.code, "the snapshot is damaged" in answer.err) == (3, True)


def test_outside_of_a_project_paths_and_snapshots_are_compared(made: Project, tmp_path: Path) -> None:
    """There is no config, but the store is that of the environment."""
    identifier = snapshot_of(made)
    outside = tmp_path / "outside"
    outside.mkdir()
    words = ("-C", str(outside), "diff", str(made.root / "api" / ".venv"), identifier)
    lost = made.run("-C", str(outside), "diff", "api", identifier)
    assert (lost.code, "There is no venvflow.yaml here" in lost.err) == (2, True)
    done = made.spawn(*words, env={**os.environ, "VENVFLOW_STORE": str(made.store)})
    assert (done.returncode, done.stderr) == (0, "")
