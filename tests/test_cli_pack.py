"""``pack``, ``unpack`` and ``export``: archives of venvs from the command line."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from archives import contents
from screens import states
from tiers import first_quick

from venvflow import progress_display

if TYPE_CHECKING:
    from pathlib import Path

    from cli_project import Project


@pytest.fixture
def api(project: Project) -> Project:
    """Return a project whose venv ``api`` is in its place."""
    assert project.run("restore", "api").code == 0
    return project


def demo(venv: Path) -> str:
    """Return what the console script of a venv says."""
    return subprocess.run([venv / "bin/demo"], check=True, capture_output=True, text=True).stdout.strip()


def archives(project: Project) -> list[str]:
    """Return the names of what lies in the project that looks like an archive."""
    return sorted(path.name for path in project.root.rglob("*.tar.*") if ".venvflow" not in path.parts)


# --------------------------------------------------------------------------- pack


def test_pack_writes_an_archive_and_what_stands_beside_it(api: Project) -> None:
    """Without options and without pack: in the config, VENV.tar.zst here, and that is said."""
    answer = api.run("pack", "api")
    assert answer.code == 0
    assert "api: the config has no pack: for it, so it goes to " in answer.err
    assert answer.out.startswith(f"api: packed: {api.root}/api.tar.zst, ")
    assert archives(api) == ["api.tar.zst", "api.tar.zst.json", "api.tar.zst.sha256"]
    described = json.loads((api.root / "api.tar.zst.json").read_text())
    assert described["distributions"] == [["demo", "1.0"]]
    assert described["sha256"] in answer.out


def test_pack_as_json(api: Project) -> None:
    """The document has these keys; what no option asked for is null."""
    document = api.run("pack", "api", "--json").record
    assert sorted(document) == [
        *("archive", "check", "did", "figures", "parts", "reason", "saved", "smoke", "venv", "warnings")
    ]
    assert document["saved"] == []
    assert (document["check"], document["smoke"]) == (None, None)
    assert document["figures"]["frames"] == 2


def test_the_name_can_hold_key_and_versions(api: Project) -> None:
    """What stands in braces is filled in; what is not known is told with what is."""
    key = api.run("restore", "api", "--json").record["key"]
    named = api.run("pack", "api", "-o", "out/{venv}-{version:Demo}-{key}.tar.gz", "--json").record
    assert named["archive"] == f"{api.root}/out/api-1.0-{key[:12]}.tar.gz"
    wrong = api.run("pack", "api", "-o", "{version:other}.tar")
    assert wrong.code == 2
    assert "{version:other}, which is not known" in wrong.err
    assert api.run("pack", "api", "-o", "api.rar").code == 2


def test_a_directory_as_output(api: Project) -> None:
    """Ending in a slash, or there already, it gets the usual name; relative to --work-dir."""
    (api.root / "there").mkdir()
    for output, expected in (("new/", "new/api.tar.xz"), ("there", "there/api.tar.xz")):
        document = api.run("pack", "api", "-o", output, "--archive-format", "tar.xz", "--json").record
        assert document["archive"] == f"{api.root}/{expected}"
    document = api.run("-C", "there", "pack", "api", "--json").record
    assert document["archive"] == f"{api.root}/there/api.tar.zst"


def test_what_the_config_asks_for_is_kept_when_it_is_whole(api: Project) -> None:
    """And written again after it was altered, or with --force."""
    text = api.config.read_text().replace(
        "requirements.txt]}", "requirements.txt], pack: {output: dist/, format: tar.gz}}", 1
    )
    api.config.write_text(text, encoding="utf-8")
    did = [api.run("pack", "api", *words, "--json").record["did"] for words in ((), (), ("--force",))]
    assert did == ["packed", "kept", "packed"]
    path = api.root / "dist/api.tar.gz"
    path.write_bytes(path.read_bytes()[:-1])
    assert api.run("pack", "api", "--check", "--json").record["did"] == "packed"


def configure(project: Project, pack: str, venv: str = "", name: str = "api") -> None:
    """Write the config again: *pack* and other keys of one venv."""
    base = {"api": "api/requirements.txt]", "web": "web/requirements.txt]"}[name]
    original = ORIGINAL.setdefault(project.config, project.config.read_text(encoding="utf-8"))
    text = original.replace(base, f"{base}{venv}, pack: {{output: dist/{pack}}}", 1)
    project.config.write_text(text, encoding="utf-8")


ORIGINAL: dict[Path, str] = {}


def test_the_interpreter_of_the_config_is_where_the_archive_leads(api: Project) -> None:
    """Another path is another archive; it need not be here. A name that says another version is refused."""
    there = f"/opt/python/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    digests = []
    for python in ("", f", python: {there}"):
        configure(api, python)
        packed = api.run("pack", "api", "--check", "--json").record
        assert (packed["did"], packed["check"]["reproducible"]) == ("packed", True)
        digests.append(packed["figures"]["sha256"])
        assert api.run("pack", "api", "--json").record["did"] == "kept"
    assert digests[0] != digests[1]
    assert (packed["check"]["python"], packed["check"]["traces"]) == (there, [])
    described = json.loads((api.root / "dist/api.tar.zst.json").read_text())
    assert described["description"]["python"]["executable"] == there
    found = contents(api.root / "dist/api.tar.zst")
    assert ("link", there) in found.values()
    assert os.fsencode(f"home = {os.path.dirname(there)}\n") in found["pyvenv.cfg"][1]  # type: ignore[operator]
    configure(api, ", python: /opt/bin/python3.1")
    answer = api.run("pack", "api")
    assert answer.code == 2
    assert "/opt/bin/python3.1 is no Python" in answer.err
    configure(api, ", python: bin/python3")
    assert api.run("pack", "api").code == 2


def test_name_arcroot_and_threads_of_the_config(api: Project) -> None:
    """Fields are filled in; another name, arcroot or level is another archive, more threads are not."""
    answers = []
    for pack in (
        ", name: '{venv}-{version:demo}', arcroot: '{venv}-{python}'",
        ", name: '{venv}-{version:demo}', arcroot: '{venv}-{python}', threads: 1",
        ", name: '{venv}-{version:demo}', arcroot: '{venv}'",
        ", name: '{venv}-{version:demo}', arcroot: '{venv}', level: 4",
        ", name: app, arcroot: '{venv}', level: 4",
    ):
        configure(api, pack)
        answers.append(api.run("pack", "api", "--json").record)
    assert [answer["did"] for answer in answers] == ["packed", "kept", "packed", "packed", "packed"]
    assert {answer["archive"] for answer in answers[:4]} == {f"{api.root}/dist/api-1.0.tar.zst"}
    assert answers[4]["archive"] == f"{api.root}/dist/app.tar.zst"
    assert answers[3]["figures"]["sha256"] == answers[4]["figures"]["sha256"]
    described = json.loads((api.root / "dist/app.tar.zst.json").read_text())
    assert (described["arcroot"], described["level"]) == ("api", 4)
    assert {name.split("/")[0] for name in contents(api.root / "dist/app.tar.zst")} == {"api"}
    assert api.run("pack", "api", "--check").code == 0


@pytest.mark.parametrize("name", ["tar.zst", "tar", "zip"])
def test_a_file_that_somebody_else_wrote_is_not_replaced(name: str, api: Project) -> None:
    """Whatever it is; an archive of ours is, also one that a killed run left without its checksum."""
    path = api.root / f"dist/api.{name}"
    path.parent.mkdir()
    for content in (b"notes", b"", bytes(2048), b"PK\5\6" + bytes(18)):
        path.write_bytes(content)
        for words in ((), ("--json",)):
            answer = api.run("pack", "api", "-o", f"dist/api.{name}", *words)
            assert answer.code == 6
            assert "is there already, and venvflow did not write it" in answer.err
        assert path.read_bytes() == content
    assert api.run("pack", "api", "-o", f"dist/api.{name}", "--force").code == 0
    for option in ((), ("--arcroot", "top")):
        for beside in path.parent.glob("*.sha256"):
            beside.unlink()
        assert api.run("pack", "api", "-o", f"dist/api.{name}", *option).code == 0
        path.with_name(f"{path.name}.sha256").unlink()
        assert api.run("pack", "api", "-o", f"dist/api.{name}", *option).code == 0


def test_a_name_that_asks_for_what_is_not_installed(api: Project) -> None:
    """It can only be seen when the venv is there; nothing is written."""
    configure(api, ", name: '{version:nothing}'")
    answer = api.run("pack", "api")
    assert answer.code == 2
    assert "asks for {version:nothing}, which is not known" in answer.err
    assert not (api.root / "dist").exists()


def test_a_store_that_lost_objects_is_filled_again_from_the_venv(api: Project) -> None:
    """Only what is read can be missed: without kept frames, the archive is written on a second try."""
    first = api.run("pack", "api", "--json").record
    shutil.rmtree(api.store / "frames")
    victim = max((path for path in api.store.glob("objects/*/*")), key=lambda path: path.stat().st_size)
    victim.unlink()
    second = api.run("pack", "api", "--json").record
    assert second["figures"]["sha256"] == first["figures"]["sha256"]
    assert victim.exists()


def install(venv: Path, name: str, files: dict[str, str]) -> Path:
    """Install a distribution by hand, as another tool would, and return site-packages."""
    (site,) = venv.glob("lib/python*/site-packages")
    files = {
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        **files,
    }
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text, encoding="utf-8")
    rows = [*files, f"{name}-1.0.dist-info/RECORD"]
    (site / f"{name}-1.0.dist-info/RECORD").write_text(
        "".join(f"{row},,\n" for row in rows), encoding="utf-8"
    )
    return site


def test_records_list_what_is_left_of_a_venv_that_was_there_before(api: Project) -> None:
    """It keeps its excluded files, and so its RECORD keeps their rows; archives and exports have none."""
    venv = api.make_foreign_venv("web")
    (venv / "bin").mkdir(exist_ok=True)
    tool = venv / "bin/tool"
    tool.write_text(f"#!{venv}/bin/python\nprint('tool')\n")
    tool.chmod(0o755)
    site = install(
        venv,
        "big",
        {"big/__init__.py": "", "big/tests/t.py": "X = 1\n", "../../../bin/tool": tool.read_text()},
    )
    tool.chmod(0o755)
    before = (site / "big-1.0.dist-info/RECORD").read_bytes()
    configure(api, "", ", exclude: ['**/tests/']", "web")
    assert api.run("store", "web", "--force").code == 0
    assert api.run("pack", "web", "--json").record["did"] == "packed"
    assert api.run("unpack", "dist/web.tar.zst", "there").code == 0
    assert api.run("export", "web", "other").code == 0
    for place in ("there", "other"):
        (found,) = (api.root / place).glob("lib/python*/site-packages/big-1.0.dist-info/RECORD")
        rows = [line.split(",")[0] for line in found.read_text().splitlines()]
        assert rows == [
            "big-1.0.dist-info/METADATA", "big/__init__.py", "../../../bin/tool", "big-1.0.dist-info/RECORD",
        ]  # fmt: skip
        assert not (found.parent.parent / "big/tests").exists()
        ran = subprocess.run([api.root / place / "bin/tool"], check=True, capture_output=True, text=True)
        assert ran.stdout == "tool\n"
    assert (site / "big-1.0.dist-info/RECORD").read_bytes() == before
    assert (site / "big/tests/t.py").exists()
    assert api.run("pack", "web", "--check").code == 0


def test_what_is_installed_editable_is_told_and_described(api: Project) -> None:
    """Its code is not in the archive: once where it is packed, once where it is unpacked."""
    venv = api.make_foreign_venv("web")
    (api.root / "src").mkdir()
    (api.root / "src/own.py").write_text("print('own')\n")
    url = {"dir_info": {"editable": True}, "url": f"file://{api.root}"}
    plain = {"dir_info": {}, "url": f"file://{api.root}/other"}
    install(
        venv, "own", {"own-1.0.dist-info/direct_url.json": json.dumps(url), "own.pth": f"{api.root}/src\n"}
    )
    outside = {"dir_info": {"editable": True}, "url": "file:///elsewhere/far"}
    install(
        venv, "far", {"far-1.0.dist-info/direct_url.json": json.dumps(outside), "far.pth": "/elsewhere\n"}
    )
    brought = {"dir_info": {"editable": True}, "url": f"file://{venv}/src/brought"}
    install(venv, "brought", {"brought-1.0.dist-info/direct_url.json": json.dumps(brought)})
    install(venv, "wheeled", {"wheeled-1.0.dist-info/direct_url.json": json.dumps(plain), "wheeled.py": ""})
    configure(api, "", "", "web")
    assert api.run("store", "web", "--force").code == 0
    answer = api.run("pack", "web")
    assert answer.code == 0
    assert answer.err.count("the code of own stays behind") == 1
    assert "uv sync --no-editable" in answer.err
    assert "the code of far stays behind: it is installed editable, from a place outside" in answer.err
    assert "--project" not in answer.err.split("far stays")[1].split("\n")[0]
    assert "wheeled" not in answer.err
    assert "brought" not in answer.err
    needs = json.loads((api.root / "dist/web.tar.zst.json").read_text())["postinstall"]
    assert (needs["editable"], needs["needs_project"]) == (["far", "own"], True)
    unpacked = api.run("unpack", "dist/web.tar.zst", "there", "--project", str(api.root))
    assert (
        f"the code of own is not in here: it is installed editable, and looked for in {api.root}"
        in unpacked.err
    )
    assert "the code of far is not in here" in unpacked.err
    said = subprocess.run(
        ["there/bin/python", "-c", "import own"], check=True, capture_output=True, text=True
    )
    assert said.stdout == "own\n"
    exported = api.run("export", "web", "other")
    assert "the code of own stays behind" in exported.err
    assert "stays behind" not in api.run("pack", "web").err


def test_level_threads_and_arcroot(api: Project) -> None:
    """They do what they say, and wrong ones are usage errors."""
    packed = [api.run("pack", "api", "--threads", threads, "--json").record for threads in "12"]
    sha256 = {document["figures"]["sha256"] for document in packed}
    assert len(sha256) == 1
    assert api.run("pack", "api", "-o", "r.tar", "--arcroot", "api-1").code == 0
    listed = subprocess.run(["tar", "-tf", "r.tar"], check=True, capture_output=True, text=True).stdout
    assert {line.split("/")[0] for line in listed.splitlines()} == {"api-1"}
    for words in (("--level", "99"), ("--threads", "0"), ("--arcroot", "../x"), ("--archive-format", "rar")):
        assert api.run("pack", "api", *words).code == 2


def test_check_proves_it_and_lists_what_names_the_builder(api: Project) -> None:
    """Packed twice more; a local path in a member is listed with the member."""
    good = api.run("pack", "api", "--check")
    assert good.code == 0
    assert "reproducible: packed twice more, each " in good.out
    assert "local paths: none is left in it" in good.out

    venv = api.make_foreign_venv("web")
    (venv / "share").mkdir()
    (venv / "share/leak.bin").write_bytes(f"\0built by {api.root}/somebody\n".encode())  # no text to relocate
    assert api.run("store", "web", "--force").code == 0
    document = api.run("pack", "web", "--check", "--json").record["check"]
    assert {"member": "share/leak.bin", "path": str(api.root), "times": 1} in document["traces"]
    assert f"share/leak.bin names {api.root}, 1 time" in api.run("pack", "web", "--check").out


def test_check_says_no_when_the_archive_is_not_what_is_written_again(
    api: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive that was altered after it was written: exit 1."""
    from venvflow.steps import pack

    real = pack.pack_to

    def then_alter(*args: object, **kwargs: object) -> object:
        outcome = real(*args, **kwargs)  # type: ignore[arg-type]
        shutil.copy(outcome.reason, "copy.tar")
        with open(outcome.reason, "ab") as file:
            file.write(bytes(512))
        return outcome

    monkeypatch.setattr(pack, "pack_to", then_alter)
    answer = api.run("pack", "api", "-o", "a.tar", "--check")
    assert answer.code == 1
    assert "not reproducible" in answer.out


def test_smoke_runs_the_code_where_it_was_unpacked(api: Project) -> None:
    """By the venv's interpreter, far from the project; its exit code decides."""
    passed = api.run("pack", "api", "--smoke", "import demo, sys; print(demo.VERSION, sys.prefix)")
    assert passed.code == 0
    assert "smoke test passed\n  | 1.0 " in passed.out
    assert str(api.root) not in passed.out.splitlines()[-1]
    failed = api.run("pack", "api", "--smoke", "import nothing_like_that", "--json")
    assert failed.code == 1
    assert failed.record["smoke"]["status"] == 1
    assert "No module named 'nothing_like_that'" in failed.record["smoke"]["output"]


def test_pack_without_a_venv(project: Project) -> None:
    """It says what to run; nothing is written."""
    answer = project.run("pack", "api")
    assert answer.code == 3
    assert 'Run "doit api"' in answer.err
    assert archives(project) == []
    assert project.run("pack", "apo").code == 2


@pytest.mark.parametrize("where", ["api.tar.zst", "file/below/"])
def test_something_in_the_way_of_the_archive(where: str, api: Project) -> None:
    """A directory of that name, or a file where a directory must be: told, and nothing is changed."""
    (api.root / "api.tar.zst").mkdir()
    (api.root / "file").write_text("mine")
    answer = api.run("pack", "api", "-o", f"{where}/api.tar" if where.endswith("/") else "./")
    assert answer.code in (3, 6)
    assert (api.root / "file").read_text() == "mine"
    assert archives(api) == ["api.tar.zst"]


LONG = {
    "pack": ("pack", "api", "-o", "./", "--check", "--smoke", "import demo"),
    "unpack": ("unpack", "there.tar.zst", "here"),
    "export": ("export", "api", "here"),
}


@pytest.mark.slow
@pytest.mark.parametrize("words", first_quick(LONG.values()), ids=[*LONG])
def test_a_terminal_gets_a_bar_with_bytes_rate_and_time_left(words: tuple[str, ...], api: Project) -> None:
    """On a real one, on standard error only; nothing of it is left when the work is done, nothing with -q."""
    assert api.run("pack", "api", "-o", "there.tar.zst").code == 0
    shown = on_a_terminal(api, *words)
    bars = [rows[0] for rows in states(shown) if rows]
    label = {"pack": "packing api", "unpack": "unpacking there.tar.zst", "export": "exporting api"}[words[0]]
    assert bars[0].startswith(f"venvflow: {label} [")
    assert any(re.search(r"\d %, [\d.]+ \w*B of [\d.]+ \w*B, [\d.]+ \w*B/s, .+ left", part) for part in bars)
    assert states(shown)[-1] == []
    shutil.rmtree(api.root / "here", ignore_errors=True)
    assert on_a_terminal(api, "-q", *words) == ""


def test_a_bar_never_goes_on_in_the_next_line(api: Project) -> None:
    """In a narrow terminal it is cut off, or it would fill the screen with its beginnings."""
    shown = on_a_terminal(api, "pack", "api", "-o", "./", columns=40)
    bars = [rows for rows in states(shown) if rows]
    assert bars[0][0].startswith("venvflow: packing api [")
    assert max(len(row) for rows in bars for row in rows) < 40
    assert {len(rows) for rows in bars} == {1}


def on_a_terminal(project: Project, *words: str, columns: int = 200) -> str:
    """Run a command whose standard error is a terminal and return what that was shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        run = [sys.executable, "-m", "venvflow", *words]
        with subprocess.Popen(
            run,
            cwd=project.root,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
        ) as child:
            os.close(theirs)
            shown = b""
            with suppress(OSError):  # the other end was closed
                while part := os.read(ours, 4096):
                    shown += part
        assert child.returncode == 0
        return shown.decode()
    finally:
        os.close(ours)


@pytest.mark.slow
@pytest.mark.parametrize("words", first_quick(LONG.values()), ids=[*LONG])
def test_without_a_terminal_a_line_comes_now_and_then(
    words: tuple[str, ...], api: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every few seconds, so that a log shows that it goes on; no control characters, nothing with -q."""
    assert api.run("pack", "api", "-o", "there.tar.zst").err == ""
    monkeypatch.setattr(progress_display, "LINE_SECONDS", 0)
    err = api.run(*words).err
    line = r"venvflow: \w+ (api|there\.tar\.zst): +\d+ %, [\d.]+ \w*B of [\d.]+ \w*B(, .*)?"
    assert err.count("\n") > 3
    assert all(re.fullmatch(line, each) for each in err.splitlines()), err
    shutil.rmtree(api.root / "here", ignore_errors=True)
    assert api.run("-q", *words).err == ""


# --------------------------------------------------------------------------- unpack


def test_an_archive_comes_back_as_a_working_venv(api: Project) -> None:
    """In a path with blanks, without the project; what was verified is said."""
    api.run("pack", "api")
    place = api.root.parent / "far away" / "venv"
    shutil.rmtree(api.root / "api")
    answer = api.run("unpack", "api.tar.zst", str(place))
    assert answer.code == 0
    assert answer.out.startswith(f"{place}: ")
    assert ", verified\n" in answer.out
    assert demo(place) == "1.0"

    (api.root / "api.tar.zst.sha256").unlink()
    again = api.run("unpack", "api.tar.zst", "again", "--compile", "--json").document
    assert again["verified"] is False
    assert sorted(again) == ["entries", "linked", "notes", "path", "python", "size", "verified", "written"]
    assert list((api.root / "again/lib").rglob("demo.*.pyc"))


def test_an_altered_archive_and_a_taken_place_are_refused(api: Project) -> None:
    """Exit 6, and nothing is left or changed."""
    api.run("pack", "api")
    (api.root / "taken").mkdir()
    (api.root / "taken/file").write_text("mine")
    assert api.run("unpack", "api.tar.zst", "taken").code == 6
    assert api.run("unpack", "api.tar.zst", "new", "--sha256", "0" * 64).code == 6
    data = bytearray((api.root / "api.tar.zst").read_bytes())
    data[len(data) // 2] ^= 1
    (api.root / "api.tar.zst").write_bytes(data)
    assert api.run("unpack", "api.tar.zst", "new").code == 6
    assert not (api.root / "new").exists()
    assert [path.name for path in (api.root / "taken").iterdir()] == ["file"]


def test_a_wrong_interpreter_is_refused_in_words(api: Project) -> None:
    """Also one that is none; --force takes one that does not fit, but not one that is none."""
    api.run("pack", "api")
    for words in (("--python", "/bin/true"), ("--python", "/bin/true", "--force"), ("--python", "/nothing")):
        answer = api.run("unpack", "api.tar.zst", "new", *words)
        assert answer.code == 3
        assert "cannot run" in answer.err
    assert not (api.root / "new").exists()
    missing = api.run("unpack", "none.tar.zst", "new")
    assert missing.code == 3
    assert "there is no such archive" in missing.err


# --------------------------------------------------------------------------- export


@pytest.mark.parametrize("words", [(), ("--hardlink",)], ids=" ".join)
def test_an_export_works_and_shares_files_only_when_asked(words: tuple[str, ...], api: Project) -> None:
    """It is independent of the project's venv."""
    document = api.run("export", "api", "../ex port", *words, "--json").document
    place = api.root.parent / "ex port"
    assert document["path"] == str(place)
    shutil.rmtree(api.root / "api")
    assert demo(place) == "1.0"
    shared = [path for path in place.rglob("*") if not path.is_dir() and path.lstat().st_nlink > 1]
    assert bool(shared) == bool(words)


def test_an_export_is_what_unpacking_gives(api: Project) -> None:
    """File by file, but for the names of the place."""
    from contents import picture

    api.run("pack", "api")
    api.run("unpack", "api.tar.zst", "unpacked/v")
    assert api.run("export", "api", "exported/v").code == 0
    exported, unpacked = picture(api.root / "exported/v"), picture(api.root / "unpacked/v")
    assert exported.keys() == unpacked.keys()
    for name, (kind, data, executable) in exported.items():
        here = data.replace(b"/exported/v", b"/unpacked/v") if isinstance(data, bytes) else data
        if not name.endswith("RECORD"):
            assert (kind, here, executable) == unpacked[name]


def test_an_export_replaces_nothing(api: Project) -> None:
    """A place that is taken, in the venv or in the store is refused; without a venv there is no export."""
    from contents import picture

    assert api.run("export", "api", "free").code == 0
    places = [api.root / "api/.venv", api.store / "objects"]
    before = [picture(place) for place in places]
    for place in (".", "api/.venv/copy", "../store/copy", "api/.venv"):
        answer = api.run("export", "api", place)
        assert answer.code == 6, place
        assert "Nothing was" in answer.err
    assert [picture(place) for place in places] == before


def test_an_export_needs_the_manifest_and_no_venv(api: Project) -> None:
    """From the snapshot it is made when the venv is gone; without both there is nothing to make it of."""
    api.run("export", "api", "first")
    shutil.rmtree(api.root / "api/.venv")
    assert api.run("export", "api", "new").code == 0
    assert demo(api.root / "new") == "1.0"
    for snapshot in (api.root.parent / "store/snapshots").glob("*.json"):
        snapshot.unlink()
    answer = api.run("export", "api", "other")
    assert answer.code == 3
    assert "there is no venv for this key" in answer.err
    assert not (api.root / "other").exists()


def test_an_interpreter_that_only_the_target_has(api: Project) -> None:
    """It is taken at its word with --force; one that is here has to run."""
    assert api.run("pack", "api", "-o", "a.tar").code == 0
    words = ("unpack", "a.tar", "there", "--python")
    assert api.run(*words, "/nowhere/bin/python3").code == 3
    assert api.run(*words, str(api.config), "--force").code == 3
    answer = api.run(*words, "/nowhere/bin/python3", "--force", "--json")
    assert (answer.code, answer.document["python"]) == (0, "/nowhere/bin/python3")
    assert os.readlink("there/bin/python") == "/nowhere/bin/python3"
