"""``pack`` and ``export`` of any venv: by its path, without a config, a lock file or a store."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from archives import contents, make_venv
from cli_project import Answer
from contents import NOBODY, for_everybody, in_child, mounted, needs_root, picture
from json_schemas import check_answer
from pythons import BASE, SITE, bare_venv, foreign_venv

from venvflow import progress_display
from venvflow.cli import main
from venvflow.disk.archive import METADATA, named_format
from venvflow.disk.scan import Found, walk
from venvflow.pure.names import platform_field, venv_name
from venvflow.state import changes
from venvflow.steps.pack_source import PackSource

if TYPE_CHECKING:
    from cli_project import Project

Run = Callable[..., Answer]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in an empty directory, where there is neither a config nor a store."""
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    for name in ("VENVFLOW_STORE", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> Answer:
        capsys.readouterr()
        code = main(words)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        check_answer(words, out)
        return Answer(code, out, err)

    return run


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """Return a small venv that no venvflow has seen."""
    return make_venv(tmp_path / "demo/.venv")


def below(directory: Path) -> set[str]:
    """Return all that lies below a directory, with what a change would change."""
    found = ((path, path.lstat()) for path in directory.rglob("*"))
    return {
        f"{path} {st.st_mode} {st.st_size} {st.st_mtime_ns} {st.st_ino} {st.st_ctime_ns}"
        for path, st in found
    }


def unpacked(run: Run, archive: str, place: Path) -> Path:
    """Unpack an archive, and return where it is."""
    assert run("unpack", archive, str(place)).code == 0
    return place


def files_in(archive: str | Path) -> dict[str, bytes]:
    """Return the bytes of all files in an archive."""
    return {name: each[1] for name, each in contents(Path(archive)).items() if isinstance(each[1], bytes)}


def says(venv: Path, script: str) -> str:
    """Return what a script of the venv prints."""
    done = subprocess.run([venv / "bin" / script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


# --------------------------------------------------------------------------- pack


def test_a_venv_is_packed_and_nothing_else_is_written(run: Run, venv: Path, tmp_path: Path) -> None:
    """No config, no store, no state: only the archive with what stands beside it. It works elsewhere."""
    before = below(venv)
    answer = run("pack", str(venv), "-o", "env.tar.gz")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"{venv}: packed: {tmp_path}/desk/env.tar.gz, ")
    assert below(venv) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "desk"]
    assert sorted(os.listdir()) == ["env.tar.gz", "env.tar.gz.json", "env.tar.gz.sha256"]
    place = unpacked(run, "env.tar.gz", tmp_path / "there")
    shutil.rmtree(venv)
    assert says(place, "pkg1") == "pkg1 runs"


def test_the_archive_is_the_one_of_the_configured_way(project: Project, tmp_path: Path) -> None:
    """Byte for byte, but for name and key: the same members in the same order, bytecode and times."""
    assert project.run("restore", "api").code == 0
    by_name = project.run("pack", "api", "-o", "a.tar", "--json").record
    copy = tmp_path / "copy/api"
    shutil.copytree(project.root / "api/.venv", copy, symlinks=True)
    (copy / ".venvflow.json").unlink()
    for path in copy.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            path.chmod(0o644 | path.stat().st_mode & 0o111)
            path.write_bytes(data.replace(os.fsencode(project.root / "api/.venv"), os.fsencode(copy)))
    for name in ("RECORD", "*.pyc"):  # of scripts that name another place, and of sources with other times
        for path in copy.rglob(name):
            path.unlink() if name == "*.pyc" else path.write_bytes(_with_own_hashes(path))
    by_path = project.run("pack", str(copy), "-o", "b.tar", "--json").record
    assert by_path["did"] == "packed"
    one, other = contents(project.root / "a.tar"), contents(project.root / "b.tar")
    assert [*one] == [*other]
    differing = [name for name in one if one[name] != other[name]]
    assert differing == [f"{METADATA}/pack.json"]
    documents = [json.loads(files_in(name)[f"{METADATA}/pack.json"]) for name in ("a.tar", "b.tar")]
    assert documents[0]["description"].pop("key")["digest"]
    assert documents[0]["description"].pop("venv") == "api"
    for document in documents:
        document.pop("announced")
    assert documents[0] == documents[1]
    assert by_name["figures"]["entries"] == by_path["figures"]["entries"]


def _with_own_hashes(record: Path) -> bytes:
    import csv
    import io

    from venvflow.pure import relocate

    site, rows = record.parent.parent, []
    for row in csv.reader(io.StringIO(record.read_text())):
        path = site / row[0]
        if row[1] and path.is_file():
            row[1:] = relocate.record_fields(*relocate.digest_of(path.read_bytes())).decode().split(",")
        rows.append(",".join(row))
    return ("\n".join(rows) + "\n").encode()


@pytest.mark.parametrize("ending", ["tgz", "tbz2", "txz", "tzst", "tar.xz", "tar", "zip"])
def test_the_ending_says_the_format(run: Run, venv: Path, ending: str) -> None:
    """Short ones too."""
    document = run("pack", str(venv), "-o", f"e.{ending}", "--json").record
    assert document["archive"].endswith(f"/e.{ending}")
    described = json.loads(Path(f"e.{ending}.json").read_text())
    assert described["format"] == named_format(f"x.{ending}")
    with open(f"e.{ending}", "rb") as file:
        magic = {
            "tgz": b"\x1f\x8b",
            "tbz2": b"BZh",
            "txz": b"\xfd7zXZ",
            "tzst": b"\x28\xb5\x2f\xfd",
            "zip": b"PK",
        }
        assert file.read(6).startswith(magic.get(ending, b""))


def test_formats_that_contradict_the_name(run: Run, venv: Path) -> None:
    """A short name of a format is one, in an option too."""
    assert run("pack", str(venv), "-o", "e.tgz", "--archive-format", "tar.gz").code == 0
    assert run("pack", str(venv), "-o", "f.tar.gz", "--archive-format", "tgz").code == 0
    assert Path("e.tgz").read_bytes() == Path("f.tar.gz").read_bytes()
    answer = run("pack", str(venv), "-o", "g.tgz", "--archive-format", "zip")
    assert (answer.code, "does not end in .zip" in answer.err) == (2, True)


@pytest.mark.parametrize(
    ("path", "name"),
    [("/p/demo/.venv", "demo"), ("/p/demo/venv", "demo"), ("/p/env-1", "env-1"), ("/.venv", ".venv")],
)
def test_what_a_venv_is_called(path: str, name: str) -> None:
    """As its directory, or as that of its project if that says nothing."""
    assert venv_name(path) == name


def test_names_are_filled_in(run: Run, venv: Path) -> None:
    """Without --output it is NAME.tar.zst here; there is no key of a venv that no lock file describes."""
    assert run("pack", str(venv)).code == 0
    assert Path("demo.tar.zst").exists()
    named = run("pack", str(venv), "-o", "out/{venv}-{platform}-{version:pkg1}.zip", "--json").record[
        "archive"
    ]
    assert os.path.basename(named) == f"demo-linux-{os.uname().machine}-1.0.zip"
    answer = run("pack", str(venv), "-o", "{key}.tar")
    assert answer.code == 2
    assert "{key}, which is not known" in answer.err
    assert platform_field("linux x86_64 musl 1.2.3") == "linux-x86_64-musl"


def test_several_at_once(run: Run, venv: Path, tmp_path: Path) -> None:
    """Each under its own name, or none is written."""
    other = shutil.copytree(venv, tmp_path / "other/venv", symlinks=True)
    for output in ("all.tar", "{python}.tar"):
        answer = run("pack", str(venv), str(other), "-o", output)
        assert answer.code == 2
        assert "Put {venv} into --output" in answer.err
    twin = shutil.copytree(venv, tmp_path / "more/demo/.venv", symlinks=True)
    answer = run("pack", str(venv), str(twin), "-o", "out/")
    assert (answer.code, f"{venv}, {twin}" in answer.err) == (2, True)
    assert os.listdir() == []
    assert run("pack", str(venv), str(other), "-o", "out/", "-q").code == 0
    assert sorted(path.name for path in Path("out").glob("*.zst")) == ["demo.tar.zst", "other.tar.zst"]
    answer = run("pack", str(tmp_path / "nothing"), str(venv), "-o", "more/", "--json")
    assert [each["did"] for each in answer.document["venvs"]] == ["failed", "packed"]
    assert answer.code == 2


def test_the_active_venv_is_meant_without_a_word(
    run: Run, venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is gone is told with the variable."""
    assert run("pack", "-o", "e.tar").code == 2
    monkeypatch.setenv("VIRTUAL_ENV", str(venv))
    assert run("pack", "-o", "e.tar").out.startswith(f"{venv}: packed: ")
    assert run("export", "copy").code == 0
    shutil.rmtree(venv)
    answer = run("pack", "-o", "f.tar")
    assert answer.code == 2
    assert "$VIRTUAL_ENV names it" in answer.err
    assert not Path("f.tar").exists()


def test_patterns_choose_files_and_the_last_one_wins(run: Run, venv: Path, tmp_path: Path) -> None:
    """What is left out is not in RECORD either; bytecode goes with its source."""
    run(
        "pack",
        str(venv),
        "-o",
        "a.tar",
        "--exclude",
        "*.bin",
        "--include",
        "**/pkg2/*.bin",
        "--exclude",
        "pkg3/",
    )
    names = contents(Path("a.tar"))
    assert {name for name in names if name.endswith("data.bin")} == {f"{SITE}/pkg2/data.bin"}
    assert not any("/pkg3/" in name for name in names)
    record = files_in("a.tar")[f"{SITE}/pkg1-1.0.dist-info/RECORD"]
    assert b"data.bin" not in record
    assert b"pkg1/__init__.py" in record
    run("pack", str(venv), "-o", "b.tar", "--include", "**/pkg2/*.bin", "--exclude", "*.bin")
    assert not any(name.endswith("data.bin") for name in contents(Path("b.tar")))
    assert run("pack", str(venv), "-o", "c.tar", "--exclude", "a//b").code == 2
    run("pack", str(venv), "-o", "d.tar", "--exclude", "*.pyc")
    assert not any(name.endswith(".pyc") for name in contents(Path("d.tar")))


def test_patterns_for_one_archive_of_a_venv_of_the_config(project: Project) -> None:
    """Whatever its config excludes besides; what is packed else stays as it is."""
    assert project.run("restore", "api").code == 0
    assert project.run("pack", "api", "-o", "a.tar", "--exclude", "**/site-packages/demo.py").code == 0
    names = contents(project.root / "a.tar")
    assert not any("/demo." in name for name in names)
    (record,) = (data for name, data in files_in("a.tar").items() if name.endswith("RECORD"))
    assert b"**/site-packages/demo.py" not in record
    assert project.run("export", "api", "out", "--exclude", "**/site-packages/demo.py").code == 0
    assert not list((project.root / "out").rglob("demo.py"))
    assert project.run("pack", "api", "-o", "b.tar").code == 0
    assert any(name.endswith("/demo.py") for name in contents(project.root / "b.tar"))


# --------------------------------------------------------------------------- what is not as it should be


def test_a_venv_that_is_not_whole_is_refused_with_names(run: Run, venv: Path) -> None:
    """Files that are gone or have other bytes; packed all the same if that is meant, with a warning."""
    (venv / SITE / "pkg1/data.bin").unlink()
    (venv / SITE / "pkg2/__init__.py").write_text("changed = True\n")
    answer = run("pack", str(venv), "-o", "e.tar")
    assert answer.code == 6
    assert "pkg1 1.0 lacks pkg1/data.bin; pkg2 1.0 has other bytes in pkg2/__init__.py" in answer.err
    assert "--ignore-missing-files" in answer.err
    assert run("export", str(venv), "out").code == 6
    assert os.listdir() == []
    answer = run("pack", str(venv), "-o", "e.tar", "--ignore-missing-files")
    assert answer.code == 0
    assert "warning: " in answer.err
    assert "lacks pkg1/data.bin" in answer.err


def test_what_is_left_out_may_be_gone(run: Run, venv: Path) -> None:
    """Nobody misses it in the archive."""
    (venv / SITE / "pkg1/data.bin").unlink()
    assert run("pack", str(venv), "-o", "e.tar", "--exclude", "*.bin").code == 0


def test_strict_writes_nothing_if_there_is_a_warning(run: Run, venv: Path, project: Project) -> None:
    """And answers 1, by path and by name, for archives and copies."""
    os.mkfifo(venv / "share/pipe")
    for words in (("pack", str(venv), "-o", "e.tar"), ("export", str(venv), "out")):
        assert run(*words, "--strict").code == 1
        assert not Path(words[-1]).exists()
        answer = run(*words, "--strict", "--json")
        found = answer.record if words[0] == "pack" else answer.document
        assert (found["did"], answer.code) == ("warned", 1)
        assert "share/pipe" in found["warnings"][0]
        assert run(*words).code == 0
    assert project.run("restore", "api").code == 0
    assert project.run("pack", "api", "-o", "good.tar", "--strict").code == 0
    (project.site / "added.py").write_text("")
    assert project.run("pack", "api", "-o", "changed.tar", "--strict").code == 1
    assert not (project.root / "changed.tar").exists()
    assert project.run("pack", "api", "-o", "changed.tar").code == 0


def test_editables_and_the_interpreters_packages_are_told(run: Run, tmp_path: Path, venv: Path) -> None:
    """Their code is not in the venv."""
    info = venv / SITE / "mine-1.0.dist-info"
    info.mkdir()
    (info / "direct_url.json").write_text('{"dir_info": {"editable": true}, "url": "file:///src/mine"}')
    (info / "RECORD").write_text("mine-1.0.dist-info/direct_url.json,,\nmine-1.0.dist-info/RECORD,,\n")
    with (venv / "pyvenv.cfg").open("a") as file:
        file.write("include-system-site-packages = true\n")
    answer = run("pack", str(venv), "-o", "e.tar")
    assert answer.code == 0
    assert "the code of mine stays behind" in answer.err
    assert "system-site-packages" in answer.err
    assert run("pack", str(venv), "-o", "f.tar", "--strict").code == 1


def test_a_venv_that_was_moved_is_packed_as_what_it_is(run: Run, venv: Path, tmp_path: Path) -> None:
    """Its files name where it was; what is made of it is the same as if it had stayed."""
    assert run("pack", str(venv), "-o", "before.tar").code == 0
    (tmp_path / "moved").mkdir()
    moved = venv.rename(tmp_path / "moved/a\n\x1b[31mb")
    answer = run("pack", str(moved), "-o", "after.tar")
    assert f"moved or copied: its files name {venv}" in answer.err
    assert "\x1b" not in answer.err + answer.out
    assert run("pack", str(moved)).code == 0
    assert Path("a\n\x1b[31mb.tar.zst").exists()
    assert Path("before.tar").read_bytes() == Path("after.tar").read_bytes()


def test_a_path_through_a_link_is_a_path_of_the_same_venv(run: Run, tmp_path: Path) -> None:
    """Whichever of its paths its files name, and both at once."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    venv = make_venv(tmp_path / "link/demo")
    script = venv / "bin/pkg2"
    text = script.read_text().replace("/link/", "/real/")
    script.write_text(text)
    for path in ("link/demo", "real/demo"):
        answer = run("pack", str(tmp_path / path), "-o", f"{path[:4]}.tar", "--ignore-missing-files")
        assert "moved" not in answer.err
    assert Path("link.tar").read_bytes() == Path("real.tar").read_bytes()
    assert not any(os.fsencode(tmp_path) in data for data in files_in("link.tar").values())
    (tmp_path / "direct").symlink_to("real/demo")
    assert run("pack", str(tmp_path / "direct"), "-o", "demo.tar", "--ignore-missing-files").code == 0


def test_links_that_lead_out_to_files_become_those_files(run: Run, venv: Path, tmp_path: Path) -> None:
    """If a RECORD says so, as in a venv whose files are links into a cache; all others are refused."""
    (tmp_path / "cache").mkdir()
    source = venv / SITE / "pkg1/__init__.py"
    source.rename(tmp_path / "cache/a")
    source.symlink_to(tmp_path / "cache/a")
    answer = run("pack", str(venv), "-o", "e.tar")
    assert answer.code == 0
    assert f"what they lead to is packed: {SITE}/pkg1/__init__.py" in answer.err
    place = unpacked(run, "e.tar", tmp_path / "there")
    shutil.rmtree(tmp_path / "cache")
    assert says(place, "pkg1") == "pkg1 runs"
    (tmp_path / "secret").write_text("mine")
    for target in ("/etc", str(tmp_path / "secret")):
        (venv / "share/out").symlink_to(target)
        answer = run("pack", str(venv), "-o", "f.tar", "--ignore-missing-files")
        assert answer.code == 6
        assert "cannot pack share/out: it is a link that leads out" in answer.err
        assert run("export", str(venv), "out", "--ignore-missing-files").code == 6
        (venv / "share/out").unlink()
    (venv / "share/out").symlink_to("/etc")
    assert run("pack", str(venv), "-o", "f.tar", "--exclude", "out", "--exclude", "pkg1").code == 0


def test_links_into_the_venv_by_its_path_work_where_it_is_unpacked(
    run: Run, venv: Path, tmp_path: Path
) -> None:
    """They are relative in the archive: tar makes them, and nothing is left to be done."""
    (venv / "share/pkg").symlink_to(venv / SITE / "pkg1")
    (venv / "bin/py").symlink_to(venv / "bin/python")
    (venv / "share/gone").symlink_to(venv / "nothing")
    assert run("pack", str(venv), "-o", "e.tar", "--strict").code == 0
    assert run("diff", str(venv), "e.tar").code == 0
    place = tmp_path / "there"
    place.mkdir()
    subprocess.run(["tar", "xf", "e.tar", "-C", place], check=True)
    shutil.rmtree(venv)
    assert (place / "share/pkg").resolve() == place / SITE / "pkg1"
    assert os.readlink(place / "bin/py") == "python"
    assert os.readlink(place / "share/gone") == "../nothing"
    assert unpacked(run, "e.tar", tmp_path / "other").joinpath("share/pkg/__init__.py").exists()


def test_odd_things_inside(run: Run, venv: Path) -> None:
    """Sockets and FIFOs are left out, circles of links are links, names are shown with escapes."""
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(venv / "share")
        listening.bind("socket")
        os.chdir(venv.parent.parent / "desk")
        (venv / "share/one").symlink_to("two")
        (venv / "share/two").symlink_to("one")
        (venv / "share/a\n\x1b[31mb").write_text("odd")
        os.mkfifo(venv / "share/c\x1b[31md")
        answer = run("pack", str(venv), "-o", "e.tar")
    assert answer.code == 0
    assert "\x1b" not in answer.err + answer.out
    assert ", like 1 more, is a device, FIFO or socket: left out" in answer.err
    names = contents(Path("e.tar"))
    assert names["share/one"] == ("link", "two")
    assert "share/a\n\x1b[31mb" in names
    assert "share/socket" not in names


def test_secrets_stay(run: Run, venv: Path) -> None:
    """As in the store: what programs look for passwords in, and what nobody else can read."""
    (venv / "pip.conf").write_text("[global]\nindex-url = https://u:p@h/\n")
    (venv / "share/mine").write_text("private")
    (venv / "share/mine").chmod(0o600)
    answer = run("pack", str(venv), "-o", "e.tar")
    names = contents(Path("e.tar"))
    assert "pip.conf" not in names
    assert "share/mine" not in names
    assert "pip.conf holds credentials: left out" in answer.err
    assert "share/mine cannot be read by other users: left out" in answer.err


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (("conda-meta/history", "bin/python"), "conda environment"),
        (("lib/python3.12/encodings/__init__.py", "bin/python3.12"), "Python installation"),
        (("some/file",), "it has no pyvenv.cfg"),
        ((), "the directory is empty"),
    ],
)
def test_what_is_not_a_venv(run: Run, tmp_path: Path, files: tuple[str, ...], told: str) -> None:
    """Is said to be what it is."""
    place = tmp_path / "other"
    place.mkdir()
    for name in files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    for words in (("pack", str(place), "-o", "e.tar"), ("export", str(place), "out")):
        answer = run(*words)
        assert answer.code == 2
        assert told in answer.err
    assert os.listdir() == []


def test_a_file_and_nothing_are_no_venvs(run: Run, venv: Path, tmp_path: Path) -> None:
    """A project is told which venv it has."""
    (tmp_path / "file").touch()
    assert "it is a file" in run("pack", str(tmp_path / "file")).err
    assert "there is no such directory" in run("pack", str(tmp_path / "gone/env")).err
    assert f"Did you mean {venv}?" in run("pack", str(venv.parent)).err


def test_a_venv_without_its_interpreter(run: Run, venv: Path) -> None:
    """Nobody can say what it needs."""
    (venv / "bin/python").unlink()
    (venv / "bin/python").symlink_to("/gone/bin/python3")
    answer = run("pack", str(venv), "-o", "e.tar")
    assert answer.code == 3
    assert "Install that interpreter again, or make the venv anew" in answer.err
    assert os.listdir() == []


def test_a_record_that_is_garbage(run: Run, venv: Path) -> None:
    """Says nothing, and is packed as it is."""
    (venv / SITE / "pkg1-1.0.dist-info/RECORD").write_bytes(
        b'\xff\0"a,,\n"../../../../../../etc/passwd,x,y\n' * 9
    )
    assert run("pack", str(venv), "-o", "e.tar").code == 0
    found = contents(Path("e.tar"))[f"{SITE}/pkg1-1.0.dist-info/RECORD"]
    assert found[1] == (venv / SITE / "pkg1-1.0.dist-info/RECORD").read_bytes()


def test_outputs_that_cannot_be(run: Run, venv: Path, tmp_path: Path) -> None:
    """Inside of the venv, below a file, or what somebody else wrote, which --force replaces."""
    before = below(venv)
    for output in (f"{venv}/e.tar", f"{venv}/new/"):
        answer = run("pack", str(venv), "-o", output)
        assert (answer.code, "lies inside of the venv" in answer.err) == (6, True)
    assert run("export", str(venv), f"{venv}/copy").code == 6
    assert below(venv) == before
    Path("mine.tar").write_text("mine")
    assert run("pack", str(venv), "-o", "mine.tar/e.tar").code == 3
    answer = run("pack", str(venv), "-o", "mine.tar")
    assert (answer.code, Path("mine.tar").read_text()) == (6, "mine")
    assert run("pack", str(venv), "-o", "mine.tar", "--force").code == 0
    assert run("pack", str(venv), "-o", "mine.tar").code == 0


def test_a_venv_that_changes_meanwhile(run: Run, venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read must be what is written; else nothing is."""
    real = PackSource.write

    def change_first(self: Any, *args: Any, **how: Any) -> Any:
        (venv / SITE / "pkg1/data.bin").write_text("another\n" * 2000)
        return real(self, *args, **how)

    monkeypatch.setattr(PackSource, "write", change_first)
    answer = run("pack", str(venv), "-o", "e.tar")
    assert answer.code == 3
    assert "it changed, or became unreadable, while it was packed" in answer.err
    assert os.listdir() == []


@needs_root
def test_no_room_for_what_is_compiled(
    run: Run, venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary directory is meant; nothing is written."""
    (venv / SITE / "large.py").write_text("x = [" + "1.5, " * 200_000 + "]\n")
    (tmp_path / "small").mkdir()
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        monkeypatch.setenv("TMPDIR", str(tmp_path / "small"))
        answer = run("pack", str(venv), "-o", "e.tar")
        assert os.listdir(tmp_path / "small") == []
    assert answer.code == 3
    assert "no space left" in answer.err.lower()
    assert "TMPDIR" in answer.err
    assert os.listdir() == []


@needs_root
def test_a_venv_of_another_user_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading it is enough; a file that cannot be read is told."""
    if in_child(lambda: os.stat(BASE), user=NOBODY):
        pytest.skip("other users cannot reach the interpreter")
    with for_everybody() as place:
        venv, out = make_venv(place / ".venv"), place / "out"
        out.mkdir()
        out.chmod(0o777)
        monkeypatch.setenv("TMPDIR", str(out))

        def packs(name: str) -> None:
            os._exit(main(["pack", str(venv), "-o", f"{out}/{name}", "-q"]))

        assert in_child(lambda: packs("e.tar"), user=NOBODY) == 0
        (venv / SITE / "pkg1/data.bin").chmod(0)
        assert in_child(lambda: packs("f.tar"), user=NOBODY) == 3
        assert not (out / "f.tar").exists()


# --------------------------------------------------------------------------- names and paths


def test_a_name_means_what_doit_made_and_a_path_what_lies_there(project: Project) -> None:
    """Of a venv that nobody changed it is the same archive, with the key."""
    assert project.run("restore", "api").code == 0
    by_name = project.run("pack", "api", "-o", "a.tar", "--json").record
    by_path = project.run("pack", "api/.venv", "-o", "b.tar", "--json").record
    assert by_path["figures"]["sha256"] == by_name["figures"]["sha256"]
    assert (by_path["venv"], by_path["warnings"]) == ("api", [])
    (project.site / "added.py").write_text("x = 1\n")
    changed = project.run("pack", "api", "-o", "c.tar", "--json").record
    assert "changed since it was shared" in changed["warnings"][0]
    assert changed["figures"]["sha256"] == by_name["figures"]["sha256"]
    lying = project.run("pack", "api/.venv", "-o", "d.tar", "--json").record
    assert (lying["did"], lying["venv"]) == ("packed", f"{project.root}/api/.venv")
    assert any(name.endswith("/added.py") for name in contents(project.root / "d.tar"))


def test_an_edit_in_place_is_told_by_pack_and_a_venv_that_looks_as_made_is_not_walked(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look at each file's stat tells that; what changed is found by a walk only if something did."""
    assert project.run("restore", "api").code == 0
    walked: list[str] = []

    def noting(root: str, **more: Any) -> list[Found]:
        walked.append(root)
        return walk(root, **more)

    monkeypatch.setattr(changes, "walk", noting)
    assert project.run("pack", "api", "-o", "a.tar", "--json").record["warnings"] == []
    assert not walked
    with (project.root / "api/.venv/pyvenv.cfg").open("a") as file:
        file.write("mine = 1\n")
    packed = project.run("pack", "api", "-o", "b.tar", "--json").record
    assert "changed since it was shared (edited: pyvenv.cfg)" in packed["warnings"][0]
    assert walked == [f"{project.root}/api/.venv"]


def test_a_foreign_venv_at_a_place_of_the_config(project: Project) -> None:
    """By name there is none yet; the hint says how to pack what is there."""
    foreign = project.make_foreign_venv("web")
    answer = project.run("pack", "web", "-o", "web.tar")
    assert answer.code == 3
    assert f"Name its path, {foreign}, for what lies there now." in answer.err
    before = project.hashes()
    assert project.run("pack", "web/.venv", "-o", "../web.tar").code == 0
    assert project.hashes() == before


def test_the_project_of_an_editable_install_is_where_the_venv_is(
    run: Run, venv: Path, tmp_path: Path
) -> None:
    """So its path can be given where the archive is unpacked."""
    project = venv.parent
    (project / "pyproject.toml").touch()
    (venv / SITE / "mine.pth").write_text(f"{project}/src\n")
    assert run("pack", str(venv), "-o", "e.tar").code == 0
    (tmp_path / "elsewhere").mkdir()
    assert run("unpack", "e.tar", str(tmp_path / "there"), "--project", str(tmp_path / "elsewhere")).code == 0
    assert (tmp_path / "there" / SITE / "mine.pth").read_text() == f"{tmp_path}/elsewhere/src\n"


def test_a_directory_that_is_no_project_is_not_taken_for_one(run: Run, tmp_path: Path) -> None:
    """A venv in a home directory says nothing about what else is in it."""
    venv = make_venv(tmp_path / "demo")
    (venv / SITE / "mine.pth").write_text(f"{tmp_path}/lib\n")
    assert run("pack", str(venv), "-o", "e.tar").code == 0
    assert files_in("e.tar")[f"{SITE}/mine.pth"] == f"{tmp_path}/lib\n".encode()


def add_kernel(venv: Path) -> None:
    """Give a venv a file that names it and has no form that is right everywhere."""
    kernel = venv / KERNEL
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": [f"{venv}/bin/python", "-m", "kernel"]}))


KERNEL = "share/jupyter/kernels/demo/kernel.json"


def test_an_archive_for_one_place_needs_nothing_there(run: Run, venv: Path, tmp_path: Path) -> None:
    """Plain tar makes it: nothing is left to be filled in, and nothing is asked about this machine."""
    add_kernel(venv)
    assert "kernel.json must be filled in" in run("pack", str(venv), "-o", "any.tar").err
    place = tmp_path / "srv/my app"
    answer = run("pack", str(venv), "-o", "e.tar", "--dest-prefix", f"{place}/", "--strict")
    assert answer.code == 0
    place.mkdir(parents=True)
    subprocess.run(["tar", "xf", "e.tar", "-C", place], check=True)
    shutil.rmtree(venv)
    assert json.loads((place / KERNEL).read_text())["argv"][0] == f"{place}/bin/python"
    assert says(place, "pkg1") == "pkg1 runs"
    script = [sys.executable, str(place / "postinstall.py"), "--dry-run"]
    said = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert "0 files to be filled in" in said
    other = unpacked(run, "e.tar", tmp_path / "other")
    assert json.loads((other / KERNEL).read_text())["argv"][0] == f"{other}/bin/python"


def test_an_interpreter_that_only_the_target_has(run: Run, venv: Path, tmp_path: Path) -> None:
    """Nobody looks for it here; another version of Python is a mistake."""
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    there = f"/opt/far/bin/python{minor}"
    words = ("--python", there, "--dest-prefix", "/srv/app")
    assert run("pack", str(venv), "-o", "e.tar", *words).code == 0
    assert contents(Path("e.tar"))["bin/python"] == ("link", there)
    assert b"home = /opt/far/bin\n" in files_in("e.tar")["pyvenv.cfg"]
    said = json.loads(Path("e.tar.json").read_text())["description"]
    assert (said["place"], said["python"]["executable"]) == ("/srv/app", there)
    for wrong in (("--python", "/opt/far/bin/python2.7"), ("--python", "python3"), ("--dest-prefix", "app")):
        answer = run("pack", str(venv), "-o", "f.tar", *wrong)
        assert answer.code == 2
        assert not Path("f.tar").exists()


def test_check_and_smoke_of_any_venv(run: Run, venv: Path) -> None:
    """As for those of the config."""
    answer = run(
        "pack", str(venv), "-o", "e.tar.zst", "--check", "--smoke", "import pkg1; pkg1.main()", "--json"
    )
    found = answer.record
    assert found["check"]["reproducible"]
    assert found["check"]["traces"] == []
    assert found["smoke"] == {"status": 0, "output": "pkg1 runs"}


def test_whoever_waits_is_told_what_is_done(run: Run, venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading and compiling a venv may take longer than writing its archive; -q says nothing of it."""
    monkeypatch.setattr(progress_display, "LINE_SECONDS", 0)
    for words in (("pack", str(venv), "-o", "e.tar"), ("export", str(venv), "out")):
        told = run(*words).err
        assert all(word in told for word in (": reading, ", ": compiling, 3 of 3 files", ": 100 %, "))
    assert run("pack", str(venv), "-o", "e.tar", "-q").err == ""


def test_real_venvs(run: Run, tmp_path: Path) -> None:
    """One that Python made, and one that has no packages at all."""
    for venv in (foreign_venv(tmp_path / "one"), Path(bare_venv(tmp_path / "two"))):
        assert run("pack", str(venv), "-o", f"{venv.name}.tgz").code == 0
        place = unpacked(run, f"{venv.name}.tgz", tmp_path / "there" / venv.name)
        code = "import sys; print(sys.prefix, sys.base_prefix)"
        said = subprocess.run([place / "bin/python", "-c", code], capture_output=True, text=True, check=True)
        assert said.stdout.split() == [str(place), os.path.dirname(os.path.dirname(BASE))]


# --------------------------------------------------------------------------- export


def test_an_export_of_any_venv_works(run: Run, venv: Path, tmp_path: Path) -> None:
    """As what unpacking its archive gives, all filled in; it shares no file with it."""
    add_kernel(venv)
    answer = run("export", str(venv), str(tmp_path / "place"), "--strict")
    assert (answer.code, answer.err) == (0, "")
    run("pack", str(venv), "-o", "e.tar")
    unpacked(run, "e.tar", tmp_path / "back")
    here, there = picture(tmp_path / "place"), picture(tmp_path / "back")
    assert here.keys() == there.keys()
    shutil.rmtree(venv)
    assert says(tmp_path / "place", "pkg1") == "pkg1 runs"
    assert run("export", str(tmp_path / "place"), "again", "--hardlink").code == 2


def test_an_export_may_be_named_by_what_is_in_it(run: Run, venv: Path, tmp_path: Path) -> None:
    """By the fields that archives have, and by no others; the directory where it is made has any name."""
    below = tmp_path / "{key}"
    below.mkdir()
    version = ".".join(map(str, sys.version_info[:3]))
    answer = run("-C", str(below), "export", str(venv), "a/{venv}-{python}-{version:pkg1}")
    assert answer.code == 0, answer.err
    assert os.listdir(below / "a") == [f"demo-{version}-1.0"]
    answer = run("-C", str(below), "export", str(venv), "{key}-{what}")
    assert (answer.code, "{key}" in answer.err, os.listdir(below)) == (2, True, ["a"])


def test_an_export_for_a_place_that_only_the_target_has(run: Run, venv: Path, tmp_path: Path) -> None:
    """It is filled in for that place, and names the interpreter that is there."""
    add_kernel(venv)
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    words = ("--dest-prefix", "/srv/app", "--python", f"/opt/far/bin/python{minor}", "--strict")
    assert run("export", str(venv), str(tmp_path / "place"), *words).code == 0
    assert json.loads((tmp_path / "place" / KERNEL).read_text())["argv"][0] == "/srv/app/bin/python"
    assert os.readlink(tmp_path / "place/bin/python") == f"/opt/far/bin/python{minor}"


def test_an_older_export_is_replaced_as_a_whole(run: Run, venv: Path, tmp_path: Path) -> None:
    """With --force only; an empty directory and nothing at all are no obstacle with it."""
    place = tmp_path / "srv/app"
    assert run("export", str(venv), str(place), "--force").code == 0
    (place / "left behind").touch()
    assert run("export", str(venv), str(place)).code == 6
    (venv / SITE / "new.py").write_text("x = 1\n")
    assert run("export", str(venv), str(place), "--force").code == 0
    assert (place / SITE / "new.py").exists()
    assert not (place / "left behind").exists()
    assert says(place, "pkg1") == "pkg1 runs"
    assert os.listdir(place.parent) == ["app"]


def test_what_is_no_export_is_never_replaced(run: Run, venv: Path, tmp_path: Path, project: Project) -> None:
    """A venv, a directory of files, a link to an export, a file; nor what has the venv in it."""
    export = tmp_path / "export"
    assert run("export", str(venv), str(export)).code == 0
    (tmp_path / "link").symlink_to("export")
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a").touch()
    (tmp_path / "file").touch()
    inner = shutil.copytree(venv, export / "inner/.venv", symlinks=True)
    assert project.run("restore", "api").code == 0
    ours = project.root / "api/.venv"
    targets = [venv, tmp_path / "link", tmp_path / "files", tmp_path / "file", ours]
    for source, target in [*((export, each) for each in targets), (inner, export)]:
        before = below(tmp_path)
        answer = run("export", str(source), str(target), "--force")
        assert answer.code == 6, target
        assert below(tmp_path) == before
