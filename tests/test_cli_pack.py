"""``pack``, ``unpack`` and ``export``: archives of venvs from the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from cli_project import Project

pytest_plugins = ("cli_project",)


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
    """Without options and without pack: in the config, VENV.tar.zst here."""
    answer = api.run("pack", "api")
    assert answer.code == 0
    assert answer.err == ""
    assert answer.out.startswith(f"api: packed: {api.root}/api.tar.zst, ")
    assert archives(api) == ["api.tar.zst", "api.tar.zst.json", "api.tar.zst.sha256"]
    described = json.loads((api.root / "api.tar.zst.json").read_text())
    assert described["distributions"] == [["demo", "1.0"]]
    assert described["sha256"] in answer.out


def test_pack_as_json(api: Project) -> None:
    """The document has these keys; what no option asked for is null."""
    document = api.run("pack", "api", "--json").document
    assert sorted(document) == ["archive", "check", "did", "figures", "saved", "smoke", "venv", "warnings"]
    assert document["saved"] == []
    assert (document["check"], document["smoke"]) == (None, None)
    assert document["figures"]["frames"] == 2


def test_the_name_can_hold_key_and_versions(api: Project) -> None:
    """What stands in braces is filled in; what is not known is told with what is."""
    key = api.run("restore", "api", "--json").document["key"]
    named = api.run("pack", "api", "-o", "out/{venv}-{version:Demo}-{key}.tar.gz", "--json").document
    assert named["archive"] == f"{api.root}/out/api-1.0-{key[:12]}.tar.gz"
    wrong = api.run("pack", "api", "-o", "{version:other}.tar")
    assert wrong.code == 2
    assert "{version:other}, which is not known" in wrong.err
    assert api.run("pack", "api", "-o", "api.rar").code == 2


def test_a_directory_as_output(api: Project) -> None:
    """Ending in a slash, or there already, it gets the usual name; relative to --work-dir."""
    (api.root / "there").mkdir()
    for output, expected in (("new/", "new/api.tar.xz"), ("there", "there/api.tar.xz")):
        document = api.run("pack", "api", "-o", output, "--archive-format", "tar.xz", "--json").document
        assert document["archive"] == f"{api.root}/{expected}"
    document = api.run("-C", "there", "pack", "api", "--json").document
    assert document["archive"] == f"{api.root}/there/api.tar.zst"


def test_what_the_config_asks_for_is_kept_when_it_is_whole(api: Project) -> None:
    """And written again after it was altered, or with --force."""
    text = api.config.read_text().replace(
        "requirements.txt]}", "requirements.txt], pack: {output: dist/, format: tar.gz}}", 1
    )
    api.config.write_text(text, encoding="utf-8")
    did = [api.run("pack", "api", *words, "--json").document["did"] for words in ((), (), ("--force",))]
    assert did == ["packed", "kept", "packed"]
    path = api.root / "dist/api.tar.gz"
    path.write_bytes(path.read_bytes()[:-1])
    assert api.run("pack", "api", "--check", "--json").document["did"] == "packed"


def test_level_threads_and_arcroot(api: Project) -> None:
    """They do what they say, and wrong ones are usage errors."""
    packed = [api.run("pack", "api", "--threads", threads, "--json").document for threads in "12"]
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
    (venv / "share/leak.txt").write_text(f"built by {api.root}/somebody\n")
    assert api.run("store", "web").code == 0
    document = api.run("pack", "web", "--check", "--json").document["check"]
    assert {"member": "share/leak.txt", "path": str(api.root), "times": 1} in document["traces"]
    assert f"share/leak.txt names {api.root}, 1 times" in api.run("pack", "web", "--check").out


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
    assert "smoke test passed\n1.0 " in passed.out
    assert str(api.root) not in passed.out.splitlines()[-1]
    failed = api.run("pack", "api", "--smoke", "import nothing_like_that", "--json")
    assert failed.code == 1
    assert failed.document["smoke"]["status"] == 1
    assert "No module named 'nothing_like_that'" in failed.document["smoke"]["output"]


def test_pack_without_a_venv(project: Project) -> None:
    """It says what to run; nothing is written."""
    answer = project.run("pack", "api")
    assert answer.code == 3
    assert 'Run "doit *:api"' in answer.err
    assert archives(project) == []
    assert project.run("pack", "apo").code == 2


@pytest.mark.parametrize("where", ["api.tar.zst", "file/below/"])
def test_something_in_the_way_of_the_archive(where: str, api: Project) -> None:
    """A directory of that name, or a file where a directory must be: told, and nothing is changed."""
    (api.root / "api.tar.zst").mkdir()
    (api.root / "file").write_text("mine")
    answer = api.run("pack", "api", "-o", f"{where}/api.tar" if where.endswith("/") else "./", "--level", "3")
    assert answer.code in (3, 6)
    assert (api.root / "file").read_text() == "mine"
    assert archives(api) == ["api.tar.zst"]


def test_progress_is_for_terminals_and_not_with_quiet(api: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar on standard error; the answer is the same."""
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    loud, quiet = api.run("pack", "api"), api.run("-q", "pack", "api")
    assert "venvflow: packing api [" in loud.err
    assert quiet.err == ""


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
    for words in (("--python", "/bin/true"), ("--python", "/nothing", "--force")):
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
    """From the store it is made also when the venv is gone; without both there is nothing to make it of."""
    api.run("export", "api", "first")
    shutil.rmtree(api.root / "api/.venv")
    assert api.run("export", "api", "new").code == 0
    assert demo(api.root / "new") == "1.0"
    (api.root / ".venvflow/api/manifest.json").unlink()
    answer = api.run("export", "api", "other")
    assert answer.code == 3
    assert "there is no venv for this key" in answer.err
    assert not (api.root / "other").exists()
