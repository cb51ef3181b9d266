"""A venv packed with its interpreter: real ones that work at any place, and those that are refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from archives import contents, document
from pythons import BASE, interpreters, make_relocatable

from venvflow import postinstall
from venvflow.disk.interpreters import resolve
from venvflow.errors import Refused
from venvflow.pure.elf import Linked, is_of_every_system, linked
from venvflow.steps.bundle import interpreter_bundle, settings_without_base

if TYPE_CHECKING:
    from cli_project import Project

PROGRAM = os.path.basename(BASE)


@pytest.fixture(scope="module")
def relocatable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a small CPython that works at any place."""
    prefix = tmp_path_factory.mktemp("pythons") / "cpython"
    if why_not := make_relocatable(prefix):
        pytest.skip(f"no interpreter can be made that works at any place: {why_not}")
    return prefix


def configure(project: Project, python: str, pack: str, more: str = "") -> None:
    """Let the venv ``api`` have an interpreter of its own, and be packed."""
    project.config.write_text(
        "version: 1\nstore: {path: ../store, durability: none}\nvenvs:\n"
        f"  api: {{locks: [api/requirements.txt], python: {python}{more}, pack: {{output: dist, {pack}}}}}\n",
        encoding="utf-8",
    )


def pack(project: Project, prefix: Path, options: str, *words: str, bytecode: str = "none") -> Any:
    """Build ``api`` with a copy of the interpreter, pack it, and return the record; the copy is gone then."""
    own = project.root.parent / "own"
    shutil.copytree(prefix, own, symlinks=True)
    for settings in own.glob("lib/*/_sysconfigdata*.py"):
        settings.write_text(settings.read_text().replace(f"{prefix}/", f"{own}/"))
    configure(project, f"{own}/bin/{PROGRAM}", f"bundle_python: true, {options}", f", bytecode: {bytecode}")
    answer = project.run("build", "api")
    assert answer.code == 0, answer.err
    answer = project.run("pack", "api", "--json", *words)
    assert answer.code == 0, answer.out + answer.err
    shutil.rmtree(own)
    return answer.record


def run(*words: str | Path) -> str:
    """Run a program in an empty environment, and return what it says."""
    done = subprocess.run(words, env={}, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


WHERE = "import demo, sys, os, site; print(demo.__file__, sys.prefix, os.__file__, site.ENABLE_USER_SITE)"


@pytest.mark.skipif(not os.path.exists("/proc/self/exe"), reason="the loader needs /proc to know where it is")
def test_it_runs_where_it_is_unpacked_and_nothing_is_run_for_it(
    project: Project, relocatable: Path, tmp_path: Path
) -> None:
    """The interpreter that it was built with is gone; no path of it is left, and none of a user is seen."""
    record = pack(project, relocatable, "format: tar", "--check", "--smoke", WHERE)
    assert record["check"]["reproducible"]
    assert record["check"]["traces"] == []
    place = tmp_path / "some place"
    place.mkdir()
    subprocess.run(["tar", "-xf", record["archive"], "-C", place], check=True)
    site = f"{place}/lib/{PROGRAM}"
    expected = f"{site}/site-packages/demo.py {place} {site}/os.py False"
    assert run(place / "bin/python", "-c", WHERE) == expected
    assert not (place / f"bin/{PROGRAM}").is_symlink()
    assert run(place / "bin/demo")
    assert {os.readlink(place / "bin" / name) for name in ("python", "python3")} <= {PROGRAM, "python"}
    # postinstall.py fills in what names the place, also after a move; it asks no other Python.
    moved = place.rename(tmp_path / "moved")
    assert f"Python: {moved}/bin/{PROGRAM}" in run(sys.executable, moved / "postinstall.py")
    assert run(moved / "bin/demo")
    variables = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    assert run(moved / "bin/python", "-c", variables) == f"{moved}/lib"
    refused = subprocess.run(
        [sys.executable, moved / "postinstall.py", "--python", sys.executable],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (refused.returncode, "brings its own Python" in refused.stderr) == (2, True)


@pytest.mark.slow
def test_unpack_and_layers(project: Project, relocatable: Path, tmp_path: Path) -> None:
    """The interpreter is a layer of its own, the first one, which stays the same file."""
    record = pack(project, relocatable, "layers: [[demo]]", bytecode="canonical")
    assert [part["layer"] for part in record["parts"]] == ["python", "1", "2"]
    python = contents(Path(record["parts"][0]["archive"]))
    assert f"bin/{PROGRAM}" in python
    assert "pyvenv.cfg" not in python
    assert f"lib/{PROGRAM}/json/__pycache__/decoder.{sys.implementation.cache_tag}.pyc" in python
    assert not [path for path in python if "site-packages" in path]
    answer = project.run("unpack", record["archive"], "../there", "--compile", "--json")
    there = tmp_path / "there"
    assert (answer.code, answer.document["python"]) == (0, f"{there}/bin/{PROGRAM}")
    assert run(there / "bin/demo")
    answer = project.run("unpack", record["archive"], "../elsewhere", "--python", sys.executable)
    assert (answer.code, "brings its own Python" in answer.err) == (3, True)
    assert not (tmp_path / "elsewhere").exists()
    shutil.copytree(relocatable, tmp_path / "own", symlinks=True)
    again = project.run("pack", "api", "--force", "--json").record  # of the same interpreter
    shutil.copy("web/requirements.txt", "api/requirements.txt")
    assert project.run("build", "api").code == 0
    after = json.loads((project.root / "dist/api.json").read_text())["parts"]
    assert [part["sha256"] for part in again["parts"]][:2] == [part["sha256"] for part in after][:2]
    assert again["parts"][2]["sha256"] != after[2]["sha256"]


@pytest.mark.slow
def test_what_the_config_excludes_stays_behind(project: Project, relocatable: Path) -> None:
    """Of the interpreter, too; without bundle_python it is another archive."""
    record = pack(project, relocatable, "format: tar")
    found = contents(Path(record["archive"]))
    assert f"lib/{PROGRAM}/json/decoder.py" in found
    config = project.config.read_text()
    shutil.copytree(relocatable, project.root.parent / "own", symlinks=True)
    project.config.write_text(config + f"exclude: ['lib/{PROGRAM}/json/']\n")
    assert project.run("build", "api").code == 0
    found = contents(project.root / "dist/api.tar")
    assert f"lib/{PROGRAM}/json/decoder.py" not in found
    assert f"lib/{PROGRAM}/os.py" in found
    project.config.write_text(config.replace("bundle_python: true", "bundle_python: false"))
    assert project.run("build", "api").code == 0
    assert f"lib/{PROGRAM}/os.py" not in contents(project.root / "dist/api.tar")


OTHERS = sorted(python for python in interpreters().values() if python != BASE)


@pytest.mark.slow
@pytest.mark.parametrize("python", OTHERS, ids=os.path.basename)
def test_every_python_finds_all_by_its_own_place(python: str, tmp_path: Path) -> None:
    """With the settings of a venv that names no base: its library, the packages, and none of a user."""
    if why_not := make_relocatable(tmp_path / "made", python):
        pytest.skip(why_not)
    name, place = os.path.basename(python), tmp_path / "some place"
    (tmp_path / "made").rename(place)
    (place / "pyvenv.cfg").write_bytes(settings_without_base(b"home = /nowhere/bin\nversion = 3\n"))
    (place / f"lib/{name}/site-packages").mkdir()
    (place / f"lib/{name}/site-packages/demo.py").write_text("")
    (place / "bin/python").symlink_to(name)
    library = f"{place}/lib/{name}"
    expected = f"{library}/site-packages/demo.py {place} {library}/os.py False"
    assert run(place / "bin/python", "-W", "error", "-c", WHERE) == expected


# --------------------------------------------------------------------------- refused


def refusal(python: str, scratch: Path) -> str:
    """Return why an interpreter is not packed."""
    interpreter = resolve(python, root="/", environ=os.environ)
    with pytest.raises(Refused) as refused:
        interpreter_bundle(interpreter, str(scratch), None, "none")
    assert "uv python install" in str(refused.value)
    return str(refused.value)


def test_an_interpreter_that_works_at_its_place_only_is_refused(
    relocatable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its library is found by an absolute path, or a module of it needs a library of this machine."""
    foreign = tmp_path / "foreign"
    assert make_relocatable(foreign, leave=frozenset({"zlib"})) == ""
    said = refusal(f"{foreign}/bin/{PROGRAM}", tmp_path)
    assert re.search(r"lib-dynload/zlib\.[\w.-]+ needs libz\.so\.1, which is not beside it", said)
    fixed = tmp_path / "fixed"
    shutil.copytree(relocatable, fixed, symlinks=True)
    program = fixed / "bin" / PROGRAM
    before = b"$ORIGIN/../lib"
    if before not in (data := program.read_bytes()):
        pytest.skip("it has no library of its own")
    program.write_bytes(data.replace(before, b"/somewhere/lib"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fixed / "lib"))
    said = refusal(str(program), tmp_path)
    assert re.search(rf"bin/{PROGRAM} looks for libpython[\w.]+ at a place of this machine", said)
    (fixed / "conda-meta").mkdir()
    assert "belongs to a conda environment" in refusal(str(program), tmp_path)


def test_the_systems_interpreter_is_refused(project: Project) -> None:
    """It is a part of the system; nothing is written."""
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("there is no /usr/bin/python3")
    configure(project, python, "bundle_python: true")
    answer = project.run("build", "api")
    assert answer.code == 6
    assert "it is a part of the system, in /usr" in answer.err
    assert not [*project.root.glob("dist/*")]


# --------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("path", ["../x", "bin/../../x", "/bin/sh", "lib/x", "bin/", "bin/a b", "bin/a/b"])
def test_a_bundled_python_lies_where_one_belongs(path: str) -> None:
    """A hostile archive names no other program."""
    with pytest.raises(postinstall.InvalidPack, match="not where one belongs"):
        postinstall.decode(document(description={"python": {"bundled": path}}))
    right = postinstall.decode(document(description={"python": {"bundled": "bin/python3.13t"}}))
    assert right.needs["bundled"] == "bin/python3.13t"


def test_settings_name_no_base() -> None:
    """What is the venv's own stays."""
    data = b"home = /x\nversion = 3.12.1\nprompt = api\nexecutable = /x/p\nuv = 0.9\n"
    data += b"include-system-site-packages = FALSE\n"
    assert settings_without_base(data) == (
        b"version = 3.12.1\nprompt = api\nuv = 0.9\ninclude-system-site-packages = false\n"
    )
    with pytest.raises(ValueError, match="Include-System"):
        settings_without_base(b"Include-System-Site-Packages=true\n")


def test_what_an_elf_needs() -> None:
    """As the linker's own tool sees it; whatever is damaged needs nothing, and raises nothing."""
    data = Path(BASE).read_bytes()
    found = linked(data)
    assert "libc.so.6" in found.libraries or any(name.startswith("libc.") for name in found.libraries)
    assert all(name.startswith(("lib", "ld")) for name in found.libraries)
    if readelf := shutil.which("readelf"):
        said = subprocess.run([readelf, "-d", BASE], capture_output=True, text=True, check=True).stdout
        assert [*found.libraries] == re.findall(r"\(NEEDED\).*\[(.*)\]", said)
        assert [*found.directories] == [
            each for path in re.findall(r"\(RU?N?PATH\).*\[(.*)\]", said) for each in path.split(":")
        ]
    for end in (0, 4, 6, 20, 63, 64, 100, 500, 5000, len(data) // 2):
        assert isinstance(linked(data[:end]), Linked)
    for at in range(4, 64):
        assert isinstance(linked(data[:at] + b"\xff" + data[at + 1 :]), Linked)
    assert linked(b"\x7fELF" + b"\xff" * 200) == Linked((), ())


@pytest.mark.parametrize("name", ["libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "libc.musl-x86_64.so.1"])
def test_libraries_of_every_system(name: str) -> None:
    """The libc's own, and no other."""
    assert is_of_every_system(name)
    assert not is_of_every_system(f"x{name}")
    foreign = ("libssl.so.3", "libz.so.1", "libpython3.12.so.1.0", "libcc.so.1")
    assert not any(map(is_of_every_system, foreign))
