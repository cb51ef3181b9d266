"""The survey of a venv: what is an entry, what is read, and what is left out."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from venvflow.disk import scan
from venvflow.disk.scan import Changing, Content, walk
from venvflow.errors import EnvironmentFailure
from venvflow.model import BytecodePolicy, Entry, Slot
from venvflow.pure.manifest import Distribution
from venvflow.pure.relocate import Places, digest_of, fill, record_fields
from venvflow.state import survey as surveys
from venvflow.state.survey import Survey, survey, unusual_modes

SITE = "lib/python3.12/site-packages"
INFO = f"{SITE}/My_Pkg-1.0.dist-info"


def put(venv: Path, path: str, data: bytes = b"x", mode: int = 0o644) -> Path:
    """Write a file of the venv."""
    file = venv / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    file.chmod(mode)
    return file


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """Make a little venv with a script, a package, bytecode and a RECORD."""
    root = tmp_path / "venv"
    script = b"#!%s/bin/python\npass\n" % os.fsencode(root)
    put(root, "bin/tool", script, 0o755)
    put(root, f"{SITE}/pkg/mod.py", b"x = 1\n")
    put(root, f"{SITE}/pkg/__pycache__/mod.cpython-312.pyc", b"compiled")
    put(root, f"{SITE}/pkg/__pycache__/gone.cpython-312.pyc", b"sourceless")
    tail = record_fields(*digest_of(script)).decode()
    put(root, f"{INFO}/RECORD", f"../../../bin/tool,{tail}\npkg/mod.py,sha256=x,6\n".encode())
    (root / "bin/python").symlink_to("/usr/bin/python3.12")
    (root / SITE / "empty").mkdir()
    put(root, ".venvflow.json", b"{}")
    return root


def places(venv: Path) -> Places:
    """Return the places of a venv of a project beside it."""
    return Places(str(venv), str(venv.parent / "project"), "/usr/bin/python3.12")


class Reads:
    """Counts what is read, by path."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        real = scan.read

        def read(path: str, **how: Any) -> Content:
            self.paths.append(path)
            return real(path, **how)

        monkeypatch.setattr(surveys, "read", read)


def test_every_path_is_an_entry_of_its_kind(venv: Path) -> None:
    """Files by content, scripts as templates, links with slots, empty directories; not our receipt."""
    result = survey(str(venv), places(venv))
    assert {path: entry.kind for path, entry in result.entries.items()} == {
        "bin/tool": "template",
        "bin/python": "link",
        f"{SITE}/pkg/mod.py": "file",
        f"{SITE}/pkg/__pycache__/gone.cpython-312.pyc": "file",
        f"{INFO}/RECORD": "template",
        f"{SITE}/empty": "dir",
    }
    module = result.entries[f"{SITE}/pkg/mod.py"]
    assert module == Entry(module.path, "file", hashlib.sha256(b"x = 1\n").hexdigest(), False, 6)
    script = result.entries["bin/tool"]
    assert (script.size, script.executable) == (5, True)
    assert script.digest == hashlib.sha256(result.templates["bin/tool"].data).hexdigest()
    assert result.entries["bin/python"] == Entry("bin/python", "link", slots=(Slot(0, "python", "raw"),))
    assert not result.bound


def test_a_record_is_recomputed_for_what_is_rewritten(venv: Path) -> None:
    """Filled in at the same place, it is the file that was there; its paths are the distribution's."""
    result = survey(str(venv), places(venv))
    template = result.templates[f"{INFO}/RECORD"]
    assert [(slot.form, slot.argument) for slot in template.slots] == [("record", "bin/tool")]
    digests = {"bin/tool": digest_of((venv / "bin/tool").read_bytes())}
    assert fill(template.data, template.slots, places(venv), digests) == (venv / INFO / "RECORD").read_bytes()
    listed = frozenset({"bin/tool", f"{SITE}/pkg/mod.py", f"{INFO}/RECORD"})
    assert result.distributions == [Distribution("my-pkg", "1.0", listed)]


def test_a_record_of_files_that_stay_is_a_file(venv: Path) -> None:
    """Nothing in it has to be recomputed."""
    put(venv, f"{INFO}/RECORD", b"pkg/mod.py,sha256=x,6\n")
    assert survey(str(venv), places(venv)).entries[f"{INFO}/RECORD"].kind == "file"


@pytest.mark.parametrize(
    ("policy", "left"), [("canonical", {"gone"}), ("none", set()), ("keep", {"gone", "mod"})]
)
def test_bytecode_is_taken_made_anew_or_left_out(policy: str, left: set[str], venv: Path) -> None:
    """Canonical: what has a source is made anew; none: it is not wanted; keep: it is a file."""
    result = survey(str(venv), places(venv), bytecode=policy)  # type: ignore[arg-type] # one of three words
    assert {Path(path).name.split(".")[0] for path in result.entries if path.endswith(".pyc")} == left
    assert result.excluded == 0


def test_an_installers_note_is_no_entry_and_nothing_of_it_is_in_the_record(venv: Path) -> None:
    """Each venv has its own: what is stored is the same, whatever the note says."""
    record = (venv / INFO / "RECORD").read_bytes()
    seen = []
    for note in (b"1", b"22"):
        put(venv, f"{INFO}/uv_cache.json", note)
        tail = record_fields(*digest_of(note))
        put(venv, f"{INFO}/RECORD", record + b"My_Pkg-1.0.dist-info/uv_cache.json,%s\n" % tail)
        seen.append(survey(str(venv), places(venv)))
    assert f"{INFO}/uv_cache.json" not in seen[0].entries
    assert seen[0].entries == seen[1].entries
    assert seen[0].templates[f"{INFO}/RECORD"].data.endswith(b"/uv_cache.json,,\n")


def test_known_files_are_not_read_again(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only RECORDs are, which say whose the files are; the answer is the same."""
    first = survey(str(venv), places(venv))
    reads = Reads(monkeypatch)
    again = survey(str(venv), places(venv), known=first.stamped())
    assert reads.paths == [f"{venv}/{INFO}/RECORD"]
    assert again.entries == first.entries
    assert again.distributions == first.distributions
    assert again.stamped() == first.stamped()


@pytest.mark.parametrize("change", ["content", "time", "mode", "inode"])
def test_a_changed_stamp_is_read_again(change: str, venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was that moved."""
    first = survey(str(venv), places(venv))
    file = venv / SITE / "pkg/mod.py"
    before = file.stat()
    if change == "content":
        file.write_bytes(b"y = 2\n")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "time":
        os.utime(file, ns=(0, 0))
    elif change == "mode":
        file.chmod(0o755)
    else:
        (venv / "twin").write_bytes(b"z = 3\n")
        os.utime(venv / "twin", ns=(before.st_atime_ns, before.st_mtime_ns))
        (venv / "twin").rename(file)
    reads = Reads(monkeypatch)
    again = survey(str(venv), places(venv), known=first.stamped())
    assert str(file) in reads.paths
    entry = again.entries[f"{SITE}/pkg/mod.py"]
    assert entry.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert entry.executable == (change == "mode")


def test_a_fresh_venv_is_searched_in_every_text(venv: Path) -> None:
    """A staging path is found in any file; what cannot be relocated is named; a used venv is not searched."""
    put(venv, f"{SITE}/pkg/config.ini", b"prefix = %s/share\n" % os.fsencode(venv))
    put(venv, f"{SITE}/pkg/ext.so", b"\x7fELF\0" + os.fsencode(venv) + b"\0")
    fresh = survey(str(venv), places(venv), fresh=True)
    assert fresh.entries[f"{SITE}/pkg/config.ini"].kind == "template"
    assert fresh.embedding == [f"{SITE}/pkg/ext.so"]
    data = (venv / SITE / "pkg/config.ini").read_bytes()
    tail = record_fields(*digest_of(data))
    put(venv, f"{INFO}/RECORD", b"pkg/config.ini,%s\n" % tail)
    used = survey(str(venv), places(venv))
    assert used.entries[f"{SITE}/pkg/config.ini"].kind == "file"
    assert used.naming == [f"{SITE}/pkg/config.ini"]
    assert used.embedding == []


def test_a_large_text_that_names_a_local_path_is_named(venv: Path) -> None:
    """It is not taken apart; what is not text is not searched, nor what lies right below the root."""
    where = places(venv)
    for name, text in (("venv", where.venv), ("project", where.project), ("none", "/srv/else")):
        start = 2**20 - 9  # across two reads
        put(venv, f"share/{name}.csv", b" " * start + os.fsencode(text) + bytes([10]) * 2**22)
        put(venv, f"share/{name}.bin", b"\0" + b" " * start + os.fsencode(text) + bytes([10]) * 2**22)
    found = survey(str(venv), where)
    assert sorted(found.naming) == ["share/project.csv", "share/venv.csv"]
    assert survey(str(venv), where._replace(venv="/srv", project="/srv")).naming == []


def test_an_interpreter_that_was_written_into_a_package_is_found(venv: Path) -> None:
    """By a command, after the installation: no RECORD has the file. What a wheel brought keeps it."""
    text = b'{"python": "/usr/bin/python3.12"}'
    for name in ("written", "brought"):
        put(venv, f"{SITE}/pkg/{name}.json", text)
    _record(venv, f"{SITE}/pkg/brought.json")
    found = survey(str(venv), places(venv))
    assert found.entries[f"{SITE}/pkg/brought.json"].kind == "file"
    assert [slot.kind for slot in found.templates[f"{SITE}/pkg/written.json"].slots] == ["python"]
    assert found.filled[f"{SITE}/pkg/written.json"] == hashlib.sha256(text).hexdigest()


def _record(venv: Path, *paths: str, **digests: str) -> None:
    """Write a RECORD of files as they are now."""
    rows = [
        b"../../../%s,%s" % (path.encode(), record_fields(*digest_of((venv / path).read_bytes())))
        for path in paths
    ]
    rows += [f"pkg/{name}.ini,{digest},3".encode() for name, digest in digests.items()]
    put(venv, f"{INFO}/RECORD", b"\n".join(rows) + b"\n")


@pytest.mark.parametrize("fresh", [True, False])
def test_who_wrote_a_text_decides_whether_it_means_the_project(venv: Path, fresh: bool) -> None:
    """Written or changed here: it is meant. As a package brought it: it is named. Sources stay."""
    where = places(venv)
    text = b"data = %s/data\n" % os.fsencode(where.project)
    for path in (
        "etc/written.ini",
        "etc/changed.ini",
        "etc/brought.ini",
        f"{SITE}/pkg/other.ini",
        "src/x/README",
    ):
        put(venv, path, b"data = x\n" if path == "etc/changed.ini" else text)
    _record(venv, "etc/changed.ini", "etc/brought.ini", other="md5=x")
    put(venv, "etc/changed.ini", text)
    found = survey(str(venv), where, fresh=fresh)
    kinds = {path: entry.kind for path, entry in found.entries.items() if path.endswith((".ini", "README"))}
    assert kinds == {
        "etc/written.ini": "template",
        "etc/changed.ini": "template",
        "etc/brought.ini": "file",
        f"{SITE}/pkg/other.ini": "file",
        "src/x/README": "file",
    }
    assert sorted(found.naming) == ["etc/brought.ini", f"{SITE}/pkg/other.ini"]
    assert found.bound
    assert [slot.argument for slot in found.templates[f"{INFO}/RECORD"].slots] == ["etc/changed.ini"]
    assert found.filled["etc/written.ini"] == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("fresh", [True, False])
def test_what_is_no_text_and_names_the_project_is_named(venv: Path, fresh: bool) -> None:
    """A database, a pickle, a text of UTF-16 that a command wrote: no other checkout has that path."""
    where = places(venv)
    project = os.fsencode(where.project)
    files = {
        "share/a.db": b"SQLite\0" + project + b"/data\0",
        "share/wide.txt": f"{where.project}/x".encode("utf-16"),
        f"{SITE}/pkg/brought.so": b"\0" + project + b"\0", "src/x/index": b"\0" + project,
        "share/other.db": b"\0" + project + b"-2/data", f"{SITE}/pkg/__pycache__/m.pyc": b"\0" + project,
    }  # fmt: skip
    for path, data in files.items():
        put(venv, path, data)
    _record(venv, f"{SITE}/pkg/brought.so")
    found = survey(str(venv), where, fresh=fresh, bytecode="keep")
    assert (found.naming, found.embedding) == (["share/a.db", "share/wide.txt"], [])
    assert survey(str(venv), where._replace(project="/srv"), fresh=fresh).naming == []


def test_a_project_right_below_the_root_is_no_news_in_what_a_package_brought(venv: Path) -> None:
    """``/app`` stands in many documents; in what was written here it is meant all the same."""
    where = places(venv)._replace(project="/app")
    for path in ("etc/written.ini", "etc/brought.ini"):
        put(venv, path, b"data = /app/data\n")
    _record(venv, "etc/brought.ini")
    found = survey(str(venv), where)
    assert (found.naming, found.entries["etc/written.ini"].kind) == ([], "template")


def test_excluded_files_and_directories_are_left_out(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are neither read nor entries, and an excluded directory is not an empty one."""
    put(venv, f"{SITE}/pkg/tests/deep/t.py")
    put(venv, f"{SITE}/pkg/data.bin")
    (venv / SITE / "pkg/link.bin").symlink_to("data.bin")
    reads = Reads(monkeypatch)
    result = survey(
        str(venv),
        places(venv),
        excludes_file=lambda path: path.endswith(".bin"),
        excludes_directory=lambda path: path.endswith("/tests"),
    )
    assert result.excluded == 2
    assert not [path for path in result.entries if "tests" in path or path.endswith(".bin")]
    assert not [path for path in reads.paths if "tests" in path or path.endswith(".bin")]


def test_special_files_are_named_and_not_stored(venv: Path) -> None:
    """A FIFO in a venv blocks nothing."""
    os.mkfifo(venv / "bin/pipe")
    result = survey(str(venv), places(venv))
    assert result.special == ["bin/pipe"]
    assert "bin/pipe" not in result.entries


def test_a_venv_that_refers_to_the_project_is_bound(venv: Path) -> None:
    """By a file or by a link."""
    project = places(venv).project
    pth = put(venv, f"{SITE}/__editable__.x.pth", project.encode() + b"/src\n")
    assert survey(str(venv), places(venv)).bound
    pth.unlink()
    (venv / "src").symlink_to(f"{project}/src")
    assert survey(str(venv), places(venv)).bound


@pytest.mark.parametrize("name", [b"\xff\xfe.py", b"a\nb.py", b"n" * 255, b" "])
def test_names_of_any_bytes_are_entries(name: bytes, venv: Path) -> None:
    """Nothing is lost for its name."""
    path = os.path.join(os.fsencode(venv), os.fsencode(SITE), name)
    with open(path, "wb") as file:
        file.write(b"x = 1\n")
    entry = survey(str(venv), places(venv)).entries[f"{SITE}/{os.fsdecode(name)}"]
    assert entry.size == 6


def test_what_cannot_be_read_is_an_error_in_four_parts(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the file, also when the file keeps changing."""
    for problem, text in (
        (PermissionError(13, "Permission denied", f"{venv}/bin/tool"), "Permission denied"),
        (Changing(f"{venv}/bin/tool"), "it keeps changing while it is read"),
    ):

        def read(path: str, problem: Exception = problem, **_: object) -> Content:
            raise problem

        monkeypatch.setattr(surveys, "read", read)
        with pytest.raises(EnvironmentFailure, match=text) as caught:
            survey(str(venv), places(venv))
        assert caught.value.where == f"{venv}/bin/tool"
        assert caught.value.state
        assert caught.value.hint


def test_a_link_that_vanishes_is_an_error_too(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between being found and being read."""

    def readlink(path: str) -> str:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(os, "readlink", readlink)
    with pytest.raises(EnvironmentFailure, match="No such file"):
        survey(str(venv), places(venv))


def test_modes_that_are_not_kept_are_named(venv: Path) -> None:
    """Setuid, setgid and world-writable files; an empty one is only a lock."""
    put(venv, "bin/suid", b"x", 0o4755)
    put(venv, "bin/sgid", b"x", 0o2755)
    put(venv, "bin/open", b"x", 0o666)
    put(venv, ".lock", b"", 0o666)
    assert sorted(unusual_modes(survey(str(venv), places(venv)))) == ["bin/open", "bin/sgid", "bin/suid"]
    assert unusual_modes(Survey()) == []


@pytest.mark.parametrize("bytecode", ["canonical", "none"])
def test_an_empty_cache_for_bytecode_is_no_entry(tmp_path: Path, bytecode: BytecodePolicy) -> None:
    """A kill may leave one; its bytecode will lie in it, and a directory is no entry then."""
    (tmp_path / "lib" / "demo" / "__pycache__").mkdir(parents=True)
    (tmp_path / "lib" / "empty").mkdir()
    found = survey(str(tmp_path), Places(str(tmp_path), "/project", "/python"), bytecode=bytecode)
    assert set(found.entries) == {"lib/empty"}


def test_what_a_walk_has_found_already_gives_the_same_survey(venv: Path) -> None:
    """Excluded directories are not looked into, however deep what was found in them lies."""
    put(venv, f"{SITE}/pkg/tests/deep/data.txt", b"x")

    def skip(path: str) -> bool:
        return path.endswith("/tests")

    walked = survey(str(venv), places(venv), excludes_directory=skip)
    given = survey(str(venv), places(venv), found=walk(str(venv)), excludes_directory=skip)
    assert given.entries == walked.entries
    assert given.found == walked.found
    assert f"{SITE}/pkg/tests/deep" not in given.found
