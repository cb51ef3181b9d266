"""Drift: what looks changed is compared; what was only touched gets its time back; whose file it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from contents import file_entry, name_of, open_store, stock, time_of

from venvflow.disk.objects import MtimeMode
from venvflow.disk.scan import lstat, walk
from venvflow.model import Entry, Receipt
from venvflow.state.changes import (
    Drift,
    Touched,
    drift_of,
    give_bytecode_back,
    give_stats_back,
    known_of,
    known_placed,
    look_at,
    may_hold,
)
from venvflow.state.index import Stamped
from venvflow.state.materialise import Placed

RECORD = "lib/one-1.0.dist-info/RECORD"
PYC = "lib/__pycache__/one.cpython-312.pyc"
FILES = {"lib/one.py": b"ONE = 1\n", "lib/two.py": b"TWO = 2\n", RECORD: b"one.py,,\n", PYC: b"compiled"}
ONE = "lib/one.py"


class Venv:
    """A venv of two files, shared by *link*, and its store."""

    def __init__(self, root: Path, link: str) -> None:
        self.store = open_store(root / "store")
        (tree,) = stock(self.store, FILES).trees
        self.path = root / "venv"
        self.link = link
        for path in (RECORD, PYC):
            (self.path / path).parent.mkdir(parents=True)
        for path, data in FILES.items():
            self._place(path, data)
        self.receipt = Receipt("key", str(self.path), "shared", "built", trees=(tree.digest,), link=link)

    def _place(self, path: str, data: bytes) -> None:
        source, target = self.store.objects.path(name_of(data)), self.path / path
        if self.link == "copy":
            target.write_bytes(data)
            os.utime(target, ns=(time_of(data), time_of(data)))
        else:
            (os.link if self.link == "hardlink" else os.symlink)(source, target)

    def drift(self) -> Drift:
        """Return what was changed."""
        return drift_of(str(self.path), self.receipt, self.store)

    def write(self, data: bytes) -> None:
        """Write into a file in place."""
        (self.path / ONE).chmod(0o644)
        (self.path / ONE).write_bytes(data)


NewVenv = Callable[..., Venv]


@pytest.fixture
def new_venv() -> Iterator[NewVenv]:
    """Give what makes a venv and its store, which are closed at the end."""
    with ExitStack() as stack:

        def make(root: Path, link: str) -> Venv:
            venv = Venv(root, link)
            stack.callback(venv.store.close)
            return venv

        yield make


@pytest.fixture(params=["hardlink", "copy", "symlink"])
def venv(request: pytest.FixtureRequest, new_venv: NewVenv, tmp_path: Path) -> Venv:
    """Give a venv, shared in each way."""
    return new_venv(tmp_path, request.param)


def test_nothing_changed_is_no_drift(venv: Venv) -> None:
    """Nor is anything touched."""
    assert venv.drift() == Drift()


@pytest.mark.parametrize("data", [b"ONE = 2\n", b"ONE = 1\n# longer\n", b""])
def test_other_bytes_are_an_edit(venv: Venv, data: bytes) -> None:
    """Of the same size or not; shared with all, unless the venv has a copy."""
    venv.write(data)
    drift = venv.drift()
    assert drift == Drift(edited=(ONE,), shared=() if venv.link == "copy" else (ONE,))
    assert drift.by_hand


def test_the_same_bytes_with_another_time_are_no_edit(venv: Venv) -> None:
    """The file gets its time back, and looks as made then."""
    os.utime(venv.path / ONE)
    drift = venv.drift()
    assert not drift
    assert str(drift) == ""
    assert [os.path.samefile(each.path, venv.path / ONE) for each in drift.touched] == [True]
    give_stats_back(venv.store, str(venv.path), drift.touched, venv.receipt, 1)
    assert (venv.path / ONE).stat().st_mtime_ns == time_of(FILES[ONE])
    assert venv.drift() == Drift()


def test_a_file_that_was_replaced_is_no_edit_of_the_stores_own(new_venv: NewVenv, tmp_path: Path) -> None:
    """As by an editor that renames: the other venvs keep their bytes."""
    venv = new_venv(tmp_path, "hardlink")
    (venv.path / "new").write_bytes(b"ONE = 2\n")
    os.replace(venv.path / "new", venv.path / ONE)
    assert venv.drift() == Drift(edited=(ONE,))


def test_an_edit_that_comes_while_a_time_is_given_back_still_shows(new_venv: NewVenv, tmp_path: Path) -> None:
    """The file was compared before: it has other bytes by now."""
    venv = new_venv(tmp_path, "copy")
    os.utime(venv.path / ONE)
    touched = venv.drift().touched
    venv.write(b"ONE = 3\n")
    give_stats_back(venv.store, str(venv.path), touched, venv.receipt, 1)
    assert venv.drift().edited == (ONE,)


def test_an_installers_note_is_no_change_whatever_becomes_of_it(venv: Venv) -> None:
    """It comes, changes and goes."""
    note = (venv.path / RECORD).parent / "uv_cache.json"
    for text in ("1", "22"):
        note.write_text(text)
        assert venv.drift() == Drift()


def test_bytecode_that_is_gone_is_given_back(venv: Venv) -> None:
    """Who installs a package again deletes it. It is damage if the store has none, as any other file is."""
    shutil.rmtree((venv.path / PYC).parent)
    drift = venv.drift()
    assert not drift
    assert [entry.path for entry in drift.lost] == [PYC]
    give_bytecode_back(venv.store, str(venv.path), drift.lost, venv.link)
    assert (venv.path / PYC).read_bytes() == FILES[PYC]
    assert venv.drift() == Drift()
    shutil.rmtree((venv.path / PYC).parent)
    os.unlink(venv.store.objects.path(name_of(FILES[PYC])))
    assert venv.drift().missing == (PYC,)


def test_bytecode_of_a_source_that_is_gone_is_not_given_back(venv: Venv) -> None:
    """Who uninstalls a package by hand would find its directory again, and import it as an empty one."""
    shutil.rmtree((venv.path / PYC).parent)
    (venv.path / ONE).unlink()
    assert (venv.drift().missing, venv.drift().lost) == ((ONE,), ())


def test_bytecode_in_a_record_is_no_edit(new_venv: NewVenv, tmp_path: Path) -> None:
    """Pip, which compiles what it installs, installed the same again. Any other row is an edit."""
    venv = new_venv(tmp_path, "hardlink")
    (venv.path / RECORD).unlink()
    (venv.path / RECORD).write_bytes(FILES[RECORD] + b"__pycache__/one.cpython-312.pyc,,\n")
    drift = venv.drift()
    assert not drift
    give_stats_back(venv.store, str(venv.path), drift.touched, venv.receipt, 1)
    assert (venv.path / RECORD).read_bytes() == FILES[RECORD]
    assert venv.drift() == Drift()
    assert not os.path.samefile(venv.path / RECORD, venv.store.objects.path(name_of(FILES[RECORD])))
    (venv.path / RECORD).chmod(0o644)
    (venv.path / RECORD).write_bytes(FILES[RECORD] + b"two.py,,\n")
    assert venv.drift().edited == (RECORD,)


@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_a_file_that_uv_installed_again_is_shared_again(link: str, new_venv: NewVenv, tmp_path: Path) -> None:
    """Nobody is blamed for its mode: it is a name of one in uv's cache, and of none that other venvs have."""
    venv = new_venv(tmp_path, link)
    (tmp_path / "cache").write_bytes(FILES[ONE])
    (venv.path / ONE).unlink()
    os.link(tmp_path / "cache", venv.path / ONE)
    drift = venv.drift()
    assert not drift
    assert [each.relabelled for each in drift.touched] == [False]
    give_stats_back(venv.store, str(venv.path), drift.touched, venv.receipt, 1)
    assert os.path.samefile(venv.path / ONE, venv.store.objects.path(name_of(FILES[ONE])))
    assert (venv.path / ONE).is_symlink() == (link == "symlink")
    assert (tmp_path / "cache").stat().st_nlink == 1


def test_a_strangers_file_keeps_its_time_and_the_venv_gets_its_own(tmp_path: Path) -> None:
    """One with other names that may be written to is perhaps uv's; one that is gone is nobody's."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    os.link(file, tmp_path / "another name")
    os.utime(file, ns=(5, 5))
    touched = Touched(str(file), file_entry("file", b"x"), MtimeMode(time_of(b"x"), 0o444), lstat(str(file)))
    with open_store(tmp_path / "store") as store:
        gone = touched._replace(path=str(tmp_path / "gone"))
        receipt = Receipt("key", str(tmp_path), "shared", "built", link="copy")
        give_stats_back(store, str(tmp_path), [touched, gone], receipt, 1)
    assert (tmp_path / "another name").stat().st_mtime_ns == 5
    assert (file.stat().st_mtime_ns, file.stat().st_nlink, file.read_bytes()) == (time_of(b"x"), 1, b"x")


def test_what_an_adopted_object_had_is_what_it_gets_back(new_venv: NewVenv, tmp_path: Path) -> None:
    """Its time is not ours, because it is not ours alone."""
    venv = new_venv(tmp_path, "hardlink")
    name = name_of(FILES[ONE])
    with venv.store.index.writing():
        venv.store.index.add_objects({name: len(FILES[ONE])}, {name: MtimeMode(77, 0o444)})
    assert venv.store.adopted() == {name: MtimeMode(77, 0o444)}
    os.utime(venv.path / ONE)
    give_stats_back(venv.store, str(venv.path), venv.drift().touched, venv.receipt, 1)
    assert (venv.path / ONE).stat().st_mtime_ns == 77


def test_a_symlink_that_leads_nowhere_is_left_to_others(new_venv: NewVenv, tmp_path: Path) -> None:
    """What was lost of the store is no change by hand."""
    venv = new_venv(tmp_path, "symlink")
    os.unlink(venv.store.objects.path(name_of(FILES[ONE])))
    assert not venv.drift().by_hand


@pytest.mark.parametrize("kind", ["file", "template"])
def test_what_is_too_large_to_be_the_file_is_not_read(
    new_venv: NewVenv, tmp_path: Path, kind: Literal["file", "template"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hole of a terabyte takes hours to read, and no room."""
    assert not may_hold(Entry("a", kind, "0" * 64, size=1), 1 << 40)
    assert may_hold(Entry("a", kind, "0" * 64, size=1), 1)
    assert may_hold(Entry("a", kind, "0" * 64, size=1), 1000) == (kind == "template")
    venv = new_venv(tmp_path, "copy")
    os.truncate(venv.path / ONE, 1 << 40)
    monkeypatch.setattr("venvflow.state.changes.read", None)
    assert venv.drift().edited == (ONE,)


# --------------------------------------------------------------------------- what need not be read


def built(venv: Venv) -> Receipt:
    """Return the receipt of a venv that was built, and let the index know how its files looked then."""
    entries = {path: file_entry(path, data) for path, data in FILES.items()}
    found = {item.path: item for item in walk(str(venv.path))}
    stamped = {path: Stamped(found[path].stamp, entries[path]) for path in FILES}
    venv.store.index.set_stamps(str(venv.path), stamped)
    return replace(venv.receipt, state="built")


def known(venv: Venv, receipt: Receipt) -> set[str]:
    """Return the paths that need not be read."""
    seen = look_at(str(venv.path), receipt, venv.store)
    return {*known_of(venv.store, receipt, seen).stamped}


def test_a_link_that_others_get_makes_nobody_read_an_object_again(new_venv: NewVenv, tmp_path: Path) -> None:
    """It moves the ctime of the file; that of a file that is no object tells of an edit."""
    linked, copied = new_venv(tmp_path / "a", "hardlink"), new_venv(tmp_path / "b", "copy")
    receipts = {venv: built(venv) for venv in (linked, copied)}
    for venv in (linked, copied):
        os.link(venv.path / ONE, tmp_path / f"{venv.link}.py")
    assert known(linked, receipts[linked]) == {*FILES}
    assert known(copied, receipts[copied]) == {*FILES} - {ONE}


@pytest.mark.parametrize("link", ["hardlink", "copy"])
def test_an_edit_since_the_build_is_read(link: str, new_venv: NewVenv, tmp_path: Path) -> None:
    """Through a link to an object, too."""
    venv = new_venv(tmp_path, link)
    receipt = built(venv)
    venv.write(b"ONE = 2\n")
    assert known(venv, receipt) == {*FILES} - {ONE}


def placed(venv: Venv) -> dict[str, Placed]:
    """Return what a materialiser says of the venv's files."""
    found = {item.path: item.stamp for item in walk(str(venv.path))}
    files = {path: (file_entry(path, data), found[path]) for path, data in FILES.items()}
    return {
        path: Placed(entry, stamp.inode, stamp.size, stamp.mtime_ns, 0o444)
        for path, (entry, stamp) in files.items()
    }


def _edit(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(b"ONE = 2\n")


def _install(file: Path) -> None:
    times = file.stat()
    data = file.read_bytes()
    file.rename(file.with_name("kept.py"))  # or the file system may use the inode again
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("change", [_edit, _install, lambda file: file.chmod(0o755), os.unlink])
def test_what_a_builder_left_as_it_was_placed_is_known(
    change: Callable[[Path], object], new_venv: NewVenv, tmp_path: Path
) -> None:
    """By inode, size, mtime and executable bit; a further name of the object changes nothing."""
    venv = new_venv(tmp_path, "hardlink")
    before = placed(venv)
    os.link(venv.path / "lib/two.py", tmp_path / "two.py")
    change(venv.path / ONE)
    found = walk(str(venv.path))
    now = known_placed(before, found)
    assert now.keys() == FILES.keys() - {ONE}
    assert all(item.stamp == now[item.path].stamp for item in found if item.path in now)
