"""Which files of a venv are its lock's: RECORDs are held against what lies there, and nothing else does."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pythons import SITE

from venvflow.disk.objects import Name
from venvflow.model import Entry
from venvflow.pure.patterns import compile_patterns
from venvflow.pure.relocate import Listed, Places, Template, listed_in
from venvflow.state.survey import Survey, survey
from venvflow.steps.lock_part import LockPart, NotTheLocks, Wanted, is_bare, lock_part

PLACES = "/p/.venv", "/p", "/usr/bin/python3"


def sha256(data: bytes) -> str:
    """Return a hash as RECORDs spell it."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


class Venv:
    """A directory that looks like a venv to whoever only reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pristine = Survey()
        self.write("pyvenv.cfg", b"home = /usr/bin\n")
        self.store: Any = SimpleNamespace(
            objects=SimpleNamespace(verified=lambda name: name in self.has, name_at=lambda _target: None)
        )
        self.has: set[Name] = set()
        self.more: dict[str, Any] = {}

    def write(self, name: str, data: bytes = b"x = 1\n") -> Path:
        """Write a file."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return file

    def install(self, name: str, *files: str, rows: str = "") -> Path:
        """Write what a distribution brings, and its RECORD; return that."""
        info = f"{name}-1.0.dist-info"
        for file in files:
            self.write(file, file.encode())
            rows += f"{os.path.relpath(file, SITE)},{sha256(file.encode())},{len(file)}\n"
        return self.write(f"{SITE}/{info}/RECORD", f"{rows}{info}/RECORD,,\n".encode())

    def part(self, *beyond: str) -> LockPart:
        """Return what of it is its lock's; *beyond* is what the tool says that is not."""
        surveyed = survey(str(self.path), Places(*PLACES))
        wanted = Wanted(
            frozenset(beyond), frozenset(), frozenset(), self.pristine,
            self.more.get("matcher"), self.more.get("compiled", frozenset()),
        )  # fmt: skip
        return lock_part(str(self.path), surveyed, self.store, wanted)


@pytest.fixture
def venv(tmp_path: Path) -> Venv:
    """Give a venv with one distribution in it."""
    made = Venv(tmp_path / ".venv")
    made.install("a", f"{SITE}/a.py", "bin/a")
    return made


def published(part: LockPart) -> set[str]:
    """Return the paths that are to be published."""
    return set(part.survey.entries)


A = {f"{SITE}/a.py", "bin/a", f"{SITE}/a-1.0.dist-info/RECORD"}


def test_files_that_are_recorded_are_the_locks(venv: Venv) -> None:
    """Others are told by name; what makers of venvs bring is not worth a word, and not published."""
    venv.write("bin/activate")
    venv.write(f"{SITE}/mine.py")
    venv.write(f"{SITE}/__pycache__/a.cpython-311.pyc")
    venv.write(".lock", b"")
    (venv.path / "include").mkdir()
    part = venv.part()
    assert published(part) == A
    assert (part.added, part.edited) == ([f"{SITE}/mine.py"], [])
    assert part.own.keys() == {"bin/activate", "pyvenv.cfg"}
    assert str(part.beyond) == "added: mine.py"


def test_a_further_distribution_is_told_and_a_seed_is_not(venv: Venv) -> None:
    """Whether the tool would remove the seed or not."""
    venv.install("pip", f"{SITE}/pip/__init__.py")
    venv.install("extra", f"{SITE}/extra.py")
    for beyond in (("extra",), ("extra", "pip")):
        part = venv.part(*beyond)
        assert published(part) == A
        assert part.beyond.added == (f"{SITE}/extra-1.0.dist-info/RECORD", f"{SITE}/extra.py")
        assert f"{SITE}/pip/__init__.py" in part.own
        assert [each.name for each in part.survey.distributions] == ["a"]


def test_a_file_that_two_distributions_name_is_that_of_the_lock(venv: Venv) -> None:
    """With the bytes that one of them brought."""
    venv.install("b", f"{SITE}/a.py")
    assert published(venv.part("b")) == A
    assert published(venv.part()) == A | {f"{SITE}/b-1.0.dist-info/RECORD"}
    other = sha256(b"other")
    venv.install("b", rows=f"a.py,{other},5\n")
    assert published(venv.part("b")) == A
    venv.write(f"{SITE}/a.py", b"other")
    with pytest.raises(NotTheLocks, match=r"a\.py was edited"):
        venv.part("b")
    assert f"{SITE}/a.py" in published(venv.part())


def test_an_edit_is_published_as_it_was_if_the_store_has_that(venv: Venv) -> None:
    """And its bytecode: else that would be compiled from the edit."""
    right = hashlib.sha256(f"{SITE}/a.py".encode()).hexdigest()
    venv.write(f"{SITE}/a.py", b"edited")
    for has, compiled in ((set(), {right}), ({right}, set())):
        venv.has = {Name(digest, executable=False) for digest in has}
        venv.more["compiled"] = frozenset((digest, f"{SITE}/a.py") for digest in compiled)
        with pytest.raises(NotTheLocks, match=r"a\.py was edited"):
            venv.part()
    venv.more["compiled"] = frozenset({(right, f"{SITE}/a.py")})
    part = venv.part()
    assert (part.added, part.edited) == ([], [f"{SITE}/a.py"])
    assert part.survey.entries[f"{SITE}/a.py"].digest == right


def test_what_is_excluded_may_be_gone(venv: Venv) -> None:
    """Nothing else may."""
    (venv.path / "bin" / "a").unlink()
    with pytest.raises(NotTheLocks, match="bin/a is missing"):
        venv.part()
    venv.more["matcher"] = compile_patterns(("bin/a",))
    assert published(venv.part()) == A - {"bin/a"}


def test_what_nothing_records_is_not_believed(venv: Venv) -> None:
    """A package of an old kind, or without its RECORD; unless the tool says that it lies beyond the lock."""
    for path in (
        "old-1.0-py3.11.egg-info/PKG-INFO",
        "old.egg-link",
        "old-1.0.dist-info/METADATA",
        "old.egg/old.py",
    ):
        file = venv.write(f"{SITE}/{path}")
        with pytest.raises(NotTheLocks, match="nothing records which files old has"):
            venv.part()
        assert venv.part("old").added == [f"{SITE}/{path}"]
        file.unlink()


@pytest.mark.parametrize(
    "row",
    [
        "/etc/passwd,,", "../../../../secret,,", "../../../..,,", "a.py,md5=abc,3", "a.py,sha256=short,3",
        "a.py,sha256=" + "A" * 43 + ",many", "a.py", "a.py,,,", '"a.py', "a.py,,",
    ],
)  # fmt: skip
def test_a_hostile_record_is_not_believed(venv: Venv, row: str) -> None:
    """It lists what lies outside, no hash, another kind of hash, or cannot be read."""
    venv.install("b", f"{SITE}/b.py", rows=f"{row}\n")
    if row == "a.py,,":
        assert f"{SITE}/a.py" in published(venv.part())  # another one has its hash
        venv.install("a", "bin/a")
    with pytest.raises(NotTheLocks):
        venv.part()


def test_a_record_that_does_not_list_itself_is_not_believed(venv: Venv) -> None:
    """It may be an empty one, or one that was cut short."""
    venv.write(f"{SITE}/a-1.0.dist-info/RECORD", b"")
    with pytest.raises(NotTheLocks, match="cannot be read"):
        venv.part()


def test_a_link_in_the_place_of_a_file_is_not_believed(venv: Venv) -> None:
    """Whatever it leads to."""
    (venv.path / "bin" / "a").unlink()
    (venv.path / "bin" / "a").symlink_to(venv.write("elsewhere", b"bin/a"))
    with pytest.raises(NotTheLocks, match="bin/a was edited"):
        venv.part()


def test_rows_are_read_by_path(tmp_path: Path) -> None:
    """However they spell it; a file that is there twice has both hashes."""
    record, data = f"{SITE}/a-1.0.dist-info/RECORD", b"bytes"
    text = f"a.py,{sha256(data)},5\n./a.py,,\n../../../bin/a,,\n{tmp_path}/x,,\na-1.0.dist-info/RECORD,,\n"
    listed = listed_in(record, text.encode(), str(tmp_path))
    assert listed == {
        f"{SITE}/a.py": {Listed(hashlib.sha256(data).hexdigest(), 5), Listed()},
        "bin/a": {Listed()},
        "x": {Listed()},
        record: {Listed()},
    }


def test_what_a_new_venv_has_is_published_as_it_has_it(venv: Venv) -> None:
    """Somebody may have written into the file that lies here; a link may lead to Python alone."""
    new = venv.path.parent / "new"
    for root, name in ((venv.path, "/p/.venv"), (new, "/new")):
        (root / "bin").mkdir(parents=True, exist_ok=True)
        (root / "bin" / "activate").write_text(f"VIRTUAL_ENV={name}\n")
        (root / "bin" / "python").symlink_to("python3")
    venv.pristine = survey(str(new), Places("/new", "/p", "/usr/bin/python3"), fresh=True)
    pristine = venv.pristine.entries["bin/activate"]
    assert venv.part().survey.entries["bin/activate"] == pristine
    (venv.path / "bin" / "activate").write_text("VIRTUAL_ENV=/p/.venv\nexport TOKEN=secret\n")
    part = venv.part()
    assert part.survey.entries["bin/activate"] == pristine
    assert b"TOKEN" not in part.survey.templates["bin/activate"].data
    assert "bin/activate" not in part.own
    venv.write("bin/activate_this.py", b"mine")
    this = Entry("bin/activate_this.py", "file", hashlib.sha256(b"its own").hexdigest(), size=7)
    venv.pristine.entries[this.path] = this
    venv.pristine.templates[this.path] = Template(b"its own", ())
    part = venv.part()
    assert part.survey.entries[this.path] == this._replace(kind="template")
    assert part.survey.templates[this.path].data == b"its own"
    assert part.survey.filled[this.path] == hashlib.sha256(b"mine").hexdigest()
    (venv.path / "bin" / "python3.11").symlink_to("python")
    assert {"bin/python", "bin/python3.11"} <= published(venv.part())
    for target in ("/evil", "../../evil", ".."):
        (venv.path / "bin" / "python").unlink()
        (venv.path / "bin" / "python").symlink_to(target)
        with pytest.raises(NotTheLocks, match="bin/python leads to"):
            venv.part()
    (venv.path / "bin" / "python").unlink()
    venv.write("bin/python")
    with pytest.raises(NotTheLocks, match="not what a new venv has"):
        venv.part()


# --------------------------------------------------------------------------- is it a loss?

BARE = {
    "venv": [sys.executable, "-m", "venv", "--without-pip"],
    "uv": [str(Path(sys.executable).with_name("uv")), "venv", "-q", "--no-config"],
    "virtualenv": [sys.executable, "-m", "virtualenv", "-q", "--no-periodic-update", "--without-pip"],
}


def made(tmp_path: Path, maker: str, *, seeded: bool) -> Path:
    """Return a new venv of a maker, *seeded* with a pip."""
    place = tmp_path / ".venv"
    subprocess.run([*BARE[maker], place], check=True, cwd=tmp_path)
    if seeded:
        site = next(place.glob("lib/python*/site-packages"))
        for file, data in {"pip/__init__.py": "", "pip-1.0.dist-info/INSTALLER": "pip\n"}.items():
            (site / file).parent.mkdir()
            (site / file).write_text(data)
        (place / "bin" / "pip").write_text("#!python\n")
        rows = (
            "pip/__init__.py",
            "pip-1.0.dist-info/RECORD",
            "pip-1.0.dist-info/INSTALLER",
            "../../../bin/pip",
        )
        (site / "pip-1.0.dist-info" / "RECORD").write_text("".join(f"{row},,\n" for row in rows))
        (site / "pip" / "__pycache__").mkdir()
        (site / "pip" / "__pycache__" / "__init__.cpython-311.pyc").write_bytes(b"compiled")
    return place


@pytest.mark.slow
@pytest.mark.parametrize("maker", BARE)
@pytest.mark.parametrize("seeded", [False, True])
def test_a_new_venv_holds_nothing(tmp_path: Path, maker: str, *, seeded: bool) -> None:
    """Whoever made it, with and without a pip."""
    assert is_bare(str(made(tmp_path, maker, seeded=seeded)))


def test_a_script_that_was_copied_with_its_time_was_not_written_into(tmp_path: Path) -> None:
    """As Python 3.13 does with one that names nothing of the venv."""
    place = made(tmp_path, "venv", seeded=False)
    os.utime(place / "bin/Activate.ps1", (1_700_000_000, 1_700_000_000))
    assert is_bare(str(place))
    os.utime(place / "bin/activate", (4_000_000_000, 4_000_000_000))
    assert not is_bare(str(place))


def test_what_the_wheel_of_a_new_venv_needs_is_nobodys(tmp_path: Path) -> None:
    """As ``uv venv --seed`` installs it; a packaging alone was asked for."""
    place = made(tmp_path, "venv", seeded=True)
    for name, holds_nothing in (("packaging", False), ("wheel", True), ("click", False)):
        info = place / SITE / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "RECORD").write_text(f"{info.name}/RECORD,,\n")
        assert is_bare(str(place)) == holds_nothing, name


@pytest.mark.parametrize(
    "name",
    [
        f"{SITE}/mine.py", f"{SITE}/mine.pth", f"{SITE}/alpha-1.0.dist-info/RECORD", "bin/mine", "mine.txt",
        "include/mine.h", "share/jupyter/kernels/mine/kernel.json", "conda-meta/history", "bin/pip.mine",
    ],
)  # fmt: skip
def test_a_venv_with_a_file_of_somebody_holds_something(tmp_path: Path, name: str) -> None:
    """Whatever it is, a package or a note of a few words."""
    place = made(tmp_path, "venv", seeded=True)
    assert is_bare(str(place))
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text("mine")
    assert not is_bare(str(place))


@pytest.mark.parametrize("name", ["bin/activate", "bin/activate.fish", "pyvenv.cfg"])
def test_a_venv_whose_scripts_were_written_into_holds_something(tmp_path: Path, name: str) -> None:
    """People keep variables in bin/activate: it is newer than what was made with it."""
    place = made(tmp_path, "venv", seeded=False)
    assert is_bare(str(place))
    later = (place / "bin" / "activate.csh").stat().st_mtime_ns + 3_000_000_000
    os.utime(place / name, ns=(later, later))
    assert not is_bare(str(place))


def test_what_only_looks_like_a_venv_holds_something(venv: Venv) -> None:
    """Without a script of its maker nobody knows who made it; a RECORD may list what lies outside."""
    shutil.rmtree(venv.path / "lib")
    (venv.path / "bin" / "a").unlink()
    assert not is_bare(str(venv.path))
    venv.write("bin/activate")
    assert is_bare(str(venv.path))
    venv.write(f"{SITE}/pip-1.0.dist-info/RECORD", b"/etc/passwd,,\n")
    assert not is_bare(str(venv.path))
