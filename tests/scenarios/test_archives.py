"""Archives of whole projects: the same bytes from everybody, remade in a moment, at work where they land."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contents import mounted, needs_root, picture
from pythons import interpreters
from scenario import BESIDE, MINOR, TAG, UV, Machine, Project
from test_file_systems import disk

VENVFLOW = os.path.join(BESIDE, "venvflow")
PACKED = {"pack": {"output": "dist/"}}
FORMATS = ["tar.zst", "tar.xz", "tar.gz", "tar.bz2", "tar", "zip"]


def wheels(machine: Machine) -> list[Path]:
    """Return two wheels: one with tests and data, one with a script."""
    files = {"__init__.py": "VERSION = '1.0'\n", "tests/__init__.py": "", "tests/test_x.py": "X = 1\n" * 500}
    modules = {f"heavy/{path}": text for path, text in files.items()}
    heavy = machine.wheel("heavy", scripts={}, modules=modules, data={"heavy/a.h": b"h" * 900})
    return [machine.wheel("alpha"), heavy]


def packing(machine: Machine, name: str, **venv: Any) -> Project:
    """Return a project with one venv, ``api``, that is packed."""
    project = machine.project(name, {"api": {**PACKED, **venv}})
    project.lock("api", *wheels(machine))
    return project


def sha256(project: Project, name: str = "api.tar.zst") -> str:
    """Return the SHA-256 of an archive of the project."""
    return hashlib.sha256((project.root / "dist" / name).read_bytes()).hexdigest()


def venvflow(project: Project, *words: str, code: int = 0, **env: str) -> Any:
    """Run a command and return its answer as JSON; of ``pack``, the record of the only venv."""
    run = project.run([VENVFLOW, *words, "--json"], env=env)
    assert run.code == code, run.text
    if not run.out:
        return run.err
    answer = json.loads(run.out)
    return answer["venvs"][0] if words[0] == "pack" else answer


# --------------------------------------------------------------------------- the same bytes from everybody


@pytest.mark.slow
def test_everybody_packs_the_same_bytes(machine: Machine) -> None:
    """Two checkouts, each with its own store and build, in other umask, time zone, locale and link mode."""
    digests = []
    made = wheels(machine)
    for number, (link, umask, env) in enumerate(
        [
            ("hardlink", 0o022, {"TZ": "UTC", "LC_ALL": "C"}),
            ("copy", 0o077, {"TZ": "Asia/Kolkata", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "7"}),
        ]
    ):
        project = packing(machine, f"checkout {'x' * number}")
        project.configure({"api": PACKED}, store={"durability": "none", "link": [link]})
        for wheel in made:  # as a fresh clone would have them
            os.utime(wheel, (1_600_000_000 + number, 1_600_000_000 + number))
        before = os.umask(umask)
        try:
            project.doit(env={**env, "VENVFLOW_STORE": str(machine.root / f"store{number}")})
        finally:
            os.umask(before)
        digests.append(sha256(project))
    assert len(set(digests)) == 1


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_reflinked_venvs_are_packed_to_the_same_bytes(kind: str, machine: Machine) -> None:
    """On a file system that shares blocks, and lists directories in another order."""
    here = packing(machine, "here")
    here.doit()
    with disk(machine.root, kind) as place:
        there = packing(machine, str(place / "a much longer path to another checkout"))
        there.configure({"api": PACKED}, store={"durability": "none", "link": ["reflink"]})
        ran = there.doit(env={"VENVFLOW_STORE": str(place / "store")})
        assert "by reflink" in ran.did["squish:api"]
        assert sha256(there) == sha256(here)


@pytest.mark.slow
def test_threads_and_the_state_of_the_venv_change_nothing(machine: Machine) -> None:
    """Built, squished or restored, one thread or two, in every format: one SHA-256 for each."""
    one, two = packing(machine, "one"), packing(machine, "two")
    one.doit()
    assert two.doit().did["restore:api"].startswith("hit")
    assert sha256(one) == sha256(two)
    for name in FORMATS:
        packed = [
            venvflow(project, "pack", "api", "-o", f"out/api.{name}", "--threads", threads)
            for project in (one, two)
            for threads in ("1", "2")
        ]
        found = {document["figures"]["sha256"] for document in packed}
        assert len(found) == 1, name


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
def test_every_python_that_runs_venvflow_packs_the_same_bytes(version: str, machine: Machine) -> None:
    """The same manifest from the same store, packed by a venvflow in a venv of another Python."""
    python = interpreters().get(version)
    if python is None:
        pytest.skip(f"there is no Python {version}")
    project = packing(machine, "one")
    project.configure({"api": {**PACKED, "python": os.path.realpath(interpreters()[MINOR])}})
    project.doit()
    tools = machine.root / "tools"
    source = Path(__file__).parent.parent.parent
    online = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    subprocess.run([UV, "venv", "-q", "-p", python, tools], check=True, env=online)
    subprocess.run([UV, "pip", "install", "-q", "-p", tools, "-e", f"{source}[uv]"], check=True, env=online)
    for name in ("tar.zst", "tar.xz", "tar.gz", "tar.bz2", "zip"):
        digests = set()
        for program in (VENVFLOW, str(tools / "bin/venvflow")):
            run = project.run([program, "pack", "api", "-o", f"out/api.{name}", "--json"])
            assert run.code == 0, run.text
            digests.add(json.loads(run.out)["venvs"][0]["figures"]["sha256"])
        assert len(digests) == 1, name


# --------------------------------------------------------------------------- remade in a moment


def test_only_the_frames_of_what_changed_are_made_anew(machine: Machine) -> None:
    """Another version of one package: all other frames are taken from the store, by every venv."""
    project = packing(machine, "one")
    assert "pack:api" in project.doit().did
    frames = {path.name for path in (machine.store / "frames").rglob("*") if path.is_file()}
    project.lock("api", machine.wheel("alpha", "2.0"), wheels(machine)[1])
    project.doit()
    described = venvflow(project, "pack", "api", "--force")["figures"]
    after = {path.name for path in (machine.store / "frames").rglob("*") if path.is_file()}
    assert described["frames_reused"] == described["frames"] == 3
    assert frames < after
    assert len(after) == len(frames) + 1


def test_an_archive_that_was_altered_or_lost_is_written_again(machine: Machine) -> None:
    """Truncated, edited, deleted, or without its checksum: the next run brings the same bytes."""
    project = packing(machine, "one")
    project.doit()
    good = sha256(project)
    assert project.doit().nothing_to_do
    path = project.root / "dist/api.tar.zst"

    def truncate() -> None:
        path.write_bytes(path.read_bytes()[:-100])

    for damage in (
        truncate,
        lambda: path.write_bytes(b"other"),
        path.unlink,
        Path(f"{path}.sha256").unlink,
        Path(f"{path}.json").unlink,
    ):
        damage()
        assert [*project.doit().did] == ["pack:api"]
        assert sha256(project) == good
    assert project.doit().nothing_to_do


def test_another_key_of_the_same_packages_is_another_archive(machine: Machine) -> None:
    """The archive says its key: a new input of the key that changes no file still needs a new description."""
    project = packing(machine, "one")
    project.doit()
    described = project.root / "dist/api.tar.zst.json"
    before = json.loads(described.read_text())
    project.configure({"api": {**PACKED, "key": {"env": ["STAGE"]}}})
    assert project.doit().did["pack:api"].startswith("packed")
    after = json.loads(described.read_text())
    assert after["distributions"] == before["distributions"]
    assert after["description"]["key"]["digest"] == project.key("api")["digest"]
    assert project.doit().nothing_to_do


# --------------------------------------------------------------------------- at work where they land


@pytest.mark.parametrize("python", sorted({*interpreters().values()}))
def test_tar_and_the_injected_script_are_enough(python: str, machine: Machine) -> None:
    """Any Python runs the script; in a long path with blanks scripts, activation and imports work."""
    project = packing(machine, "one")
    project.doit()
    place = machine.root / ("deep " * 20).strip() / ("er" * 60) / "venv"
    place.mkdir(parents=True)
    subprocess.run(["tar", "--zstd", "-xf", project.root / "dist/api.tar.zst", "-C", place], check=True)
    shutil.rmtree(project.venv("api"))
    base = os.path.realpath(interpreters()[MINOR])
    done = project.run([python, "-I", str(place / "postinstall.py"), "--python", base])
    assert done.code == 0, done.text
    assert project.run([str(place / "bin/alpha")]).out.strip() == "1.0"
    activated = '. "$1/bin/activate" && alpha && python -c "import heavy, sys; print(sys.prefix)"'
    run = project.run(["sh", "-c", activated, "sh", str(place)])
    assert run.out.split("\n")[:2] == ["1.0", str(place)], run.text


def test_a_venv_moves_again_and_refuses_a_wrong_python(machine: Machine) -> None:
    """After another move the script is run again; a Python of another version is refused in words."""
    project = packing(machine, "one")
    project.doit()
    venvflow(project, "unpack", "dist/api.tar.zst", "first")
    (project.root / "first").rename(project.root / "second")
    done = project.run([sys.executable, "second/postinstall.py"])
    assert done.code == 0, done.text
    assert project.run(["second/bin/alpha"]).out.strip() == "1.0"
    others = [path for version, path in interpreters().items() if version != MINOR]
    if others:
        wrong = project.run([sys.executable, "second/postinstall.py", "--python", others[0]])
        assert wrong.code == 3
        assert f"but the packages are for cpython {MINOR}" in wrong.err


def test_excluded_files_are_counted_and_in_no_record(machine: Machine) -> None:
    """What each pattern saved is told, and RECORD lists exactly what is there."""
    project = packing(machine, "one", exclude=["**/tests/", "*.h"])
    project.doit()
    document = venvflow(project, "pack", "api", "--check", "--smoke", "import heavy, alpha")
    assert {each["pattern"]: each["files"] for each in document["saved"]} == {"**/tests/": 2, "*.h": 1}
    assert {each["pattern"]: each["bytes"] for each in document["saved"]} == {"**/tests/": 3000, "*.h": 900}
    assert document["smoke"]["status"] == 0
    venvflow(project, "unpack", "dist/api.tar.zst", "there")
    (site,) = (project.root / "there/lib").glob("python*/site-packages")
    for record in site.glob("*.dist-info/RECORD"):
        for path, digest, size in csv.reader(record.read_text().splitlines()):
            if not path.endswith("uv_cache.json"):  # which stays in its venv
                data = (site / path).read_bytes()
                assert not digest or len(data) == int(size), path
    assert not (site / "heavy/tests").exists()

    other = packing(machine, "two", exclude=["**/tests/", "*.h"])
    other.doit()
    assert venvflow(other, "pack", "api")["saved"] is None
    assert sha256(other) == sha256(project)


def test_bytecode_is_valid_at_the_target(machine: Machine) -> None:
    """Nothing is compiled anew there: the archive's bytecode fits its sources."""
    project = packing(machine, "one")
    project.doit()
    venvflow(project, "unpack", "dist/api.tar.zst", "there")
    before = picture(project.root / "there/lib")
    assert project.run(["there/bin/python", "-c", "import alpha, heavy"]).code == 0
    assert picture(project.root / "there/lib") == before
    assert list((project.root / "there/lib").rglob(f"alpha.{TAG}.pyc"))


# --------------------------------------------------------------------------- bad input


@pytest.fixture
def full_disk(machine: Machine) -> Iterator[Path]:
    """Give a directory on a file system that is nearly full."""
    with mounted(machine.root / "full", "-t", "tmpfs", "-o", "size=8k", "tmpfs") as place:
        yield place


@needs_root
def test_a_full_disk_fails_with_a_message_and_leaves_no_archive(machine: Machine, full_disk: Path) -> None:
    """Exit 3, the venv untouched, and no half archive under the final name or any other."""
    project = packing(machine, "one", pack={"output": str(full_disk)})
    run = project.doit(code=3)
    assert "No space left" in run.text
    assert "Nothing half-written is kept" in run.text
    assert "Traceback" not in run.text
    assert list(full_disk.iterdir()) == []
    assert project.output("api", "alpha") == "1.0"


def test_an_output_inside_the_venv_is_refused(machine: Machine) -> None:
    """It would be packed into itself: before anything runs, or when the words ask for it."""
    project = packing(machine, "one", pack={"output": "api/.venv/dist"})
    assert project.doit(code=None).code in (2, 6)
    assert not project.venv("api").exists()
    good = packing(machine, "two")
    good.doit()
    before = picture(good.venv("api"))
    run = good.run([VENVFLOW, "pack", "api", "-o", "api/.venv/a.tar"])
    assert run.code == 6, run.text
    assert "lies inside of the venv" in run.err
    assert picture(good.venv("api")) == before


def test_a_directory_in_the_way(machine: Machine) -> None:
    """It is not replaced, and the message names it."""
    project = packing(machine, "one")
    (project.root / "dist/api.tar.zst").mkdir(parents=True)
    run = project.doit(code=6)
    assert "dist/api.tar.zst is a directory" in run.text
    assert list((project.root / "dist").rglob("*")) == [project.root / "dist/api.tar.zst"]


# --------------------------------------------------------------------------- what cannot be packed


def _made(machine: Machine) -> Project:
    project = packing(machine, "one")
    project.doit()
    return project


@pytest.fixture
def built(machine: Machine) -> Project:
    """Return a project whose venv is built and packed."""
    return machine.made_once(_made)


def fill(site: Path, case: str) -> None:
    """Put something into a venv that is hard to pack."""
    if case == "socket":
        server = socket.socket(socket.AF_UNIX)
        with server:
            here = os.getcwd()
            os.chdir(site)  # the names of sockets are short
            try:
                server.bind("server")
            finally:
                os.chdir(here)
    elif case == "FIFO":
        os.mkfifo(site / "pipe")
    elif case == "name that is not UTF-8":
        Path(os.fsdecode(os.fsencode(site) + b"/caf\xe9.txt")).write_text("x")
    elif case == "longest name":
        (site / ("n" * 255)).write_text("x")
    elif case == "newline in a name":
        (site / "two\nlines").write_text("x")
    else:
        target = {
            "dangling link": "nowhere",
            "cyclic link": "link",
            "link out": "../../../../../out",
            "link to an absolute path": str(site.parents[4] / "requirements.txt"),
        }[case]
        (site / "link").symlink_to(target)


HARD = [
    "socket", "FIFO", "name that is not UTF-8", "longest name", "newline in a name", "dangling link",
    "cyclic link", "link out", "link to an absolute path",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tar.zst", "zip"])
@pytest.mark.parametrize("case", HARD)
def test_what_is_hard_to_pack_is_packed_told_or_refused(case: str, name: str, machine: Machine) -> None:
    """From a venv that was there before; it is never changed, and no half archive is left."""
    project = packing(machine, "one", pack={"output": "dist/", "format": name})
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project.venv("api")], check=True)
    fill(project.site("api"), case)
    stored = project.run([VENVFLOW, "store", "api", "--force"])
    before = picture(project.venv("api"))
    packed = project.run([VENVFLOW, "pack", "api"])
    assert "Traceback" not in stored.text + packed.text
    assert picture(project.venv("api")) == before
    if case == "link out" or (case == "name that is not UTF-8" and name == "zip"):
        assert packed.code == 6, packed.text
        assert "Nothing was written." in packed.err
        assert not list((project.root / "dist").rglob("*"))
        return
    assert packed.code == 0, packed.text
    unpacked = project.run([VENVFLOW, "unpack", f"dist/api.{name}", "there"])
    assert unpacked.code == 0, unpacked.text
    left_out = {*os.listdir(project.site("api"))} - {
        name for site in project.root.glob("there/lib/*/site-packages") for name in os.listdir(site)
    }
    assert left_out == {"socket": {"server"}, "FIFO": {"pipe"}}.get(case, set())
    assert all(f"{name} is a device, FIFO or socket" in stored.err for name in left_out), stored.err


@pytest.mark.slow
def test_a_file_that_changes_while_it_is_packed_is_never_half_of_each(built: Project) -> None:
    """The archive is of objects: an edit in the venv is not in it, and one of an object is found."""
    victim = built.site("api") / "heavy/__init__.py"
    good = sha256(built)
    victim.unlink()
    victim.write_text("VERSION = 'edited'\n")
    assert venvflow(built, "pack", "api", "-o", "again.tar.zst")["figures"]["sha256"] == good
    shutil.rmtree(built.machine.store / "frames")
    for path in (built.machine.store / "objects").glob("*/*"):
        if path.read_bytes() == b"VERSION = '1.0'\n":
            os.chmod(path, 0o644)
            path.write_bytes(b"VERSION = '9.9'\n")
    run = built.run([VENVFLOW, "pack", "api", "-o", "wrong.tar.zst"])
    assert run.code == 3, run.text
    assert "has other bytes than its name says" in run.err
    assert "venvflow verify --heal" in run.err
    assert not list(built.root.glob("wrong*"))


@pytest.mark.parametrize(("where", "code"), [("not/a/directory", 3), ("there", 6), ("dist", 6)])
def test_what_is_in_the_way_of_unpacking_stays(where: str, code: int, built: Project) -> None:
    """A file as a parent, a file, a directory that is not empty: all as they were, nothing beside them."""
    (built.root / "not").write_text("a file")
    (built.root / "there").write_text("a file")
    before = picture(built.root)
    run = built.run([VENVFLOW, "unpack", "dist/api.tar.zst", where])
    assert run.code == code, run.text
    assert "Nothing was unpacked." in run.err
    assert picture(built.root) == before


@needs_root
@pytest.mark.slow
def test_a_full_disk_leaves_nothing_unpacked_or_exported(machine: Machine, built: Project) -> None:
    """By bytes and by inodes: exit 3, and the disk is as empty as before."""
    for option in ("size=16k", "nr_inodes=20"):
        with mounted(machine.root / "full", "-t", "tmpfs", "-o", option, "tmpfs") as place:
            for words in (("unpack", "dist/api.tar.zst"), ("export", "api")):
                run = built.run([VENVFLOW, *words, str(place / "venv")])
                assert run.code == 3, run.text
                assert "No space left" in run.err
                assert list(place.iterdir()) == []


def test_what_is_left_of_the_place_where_it_was_built_is_found_in_every_checkout(machine: Machine) -> None:
    """A file that is too large to be looked into names the first one, in the archive of the second, too."""
    code = (
        "import os, sys; os.chdir(sys.argv[2]); os.mkdir('etc');"
        "open('etc/big.txt', 'w').write(sys.argv[1] + '\\n' * (5 << 20))"
    )
    build = [
        ["{python}", "-m", "venv", "--without-pip", "{venv}"],
        ["{python}", "-c", code, "{project}", "{venv}"],
    ]
    projects = [packing(machine, name, build=build) for name in ("the first", "other")]
    assert [project.doit().did["restore:api"][:4] for project in projects] == ["miss", "hit "]
    for project in projects:
        traces = venvflow(project, "pack", "api", "--check")["check"]["traces"]
        found = {(trace["member"], trace["path"]) for trace in traces}
        assert found == {("etc/big.txt", str(projects[0].root))}
