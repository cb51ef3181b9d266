"""Looks: what an edit in place moves, what is looked at for it, and the list that a project keeps of that."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from contents import file_entry, name_of, put, time_of, tree_of
from contents import objects_in as objects_in_directory
from hypothesis import given
from hypothesis import strategies as st

from venvflow.disk.objects import MtimeMode
from venvflow.model import Entry, Receipt
from venvflow.state.file_stats import StatChecker, TreeStats, read_stats, stats_of, write_stats

FILES = {"lib/a.py": b"A = 1\n", "lib/b.py": b"B = 2\n", "lib/empty.py": b"", "lib/x.pth": b"# nothing\n"}
TREE = tree_of(FILES)
LINKED, PRIVATE = 2, 2


class Venvs:
    """Venvs of the one tree, made by hand in *root*, beside the store that they share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = objects_in_directory(root / "store")
        put(self.objects, *FILES.values())

    def make(self, name: str, link: str = "hardlink") -> Path:
        """Make a venv that is shared by *link*."""
        venv = self.root / name
        for path, data in FILES.items():
            file = venv / path
            file.parent.mkdir(parents=True, exist_ok=True)
            source = self.objects.path(name_of(data))
            if link == "hardlink" and data and not path.endswith(".pth"):
                os.link(source, file)
            else:
                file.write_bytes(data)
                os.utime(file, ns=(time_of(data), time_of(data)))
        return venv

    def watch(self, **known: TreeStats | None) -> StatChecker:
        """Return a watch that knows the tree, unless others are *known*."""
        looks = known or {TREE.digest: stats_of(TREE.entries, {})}
        return StatChecker(self.objects.root, looks.get)


@pytest.fixture
def venvs(tmp_path: Path) -> Venvs:
    """Give a store with the files of the tree."""
    return Venvs(tmp_path)


def receipt(link: str = "hardlink") -> Receipt:
    """Return a receipt for the tree."""
    return Receipt("key", "", "shared", "built", trees=(TREE.digest,), link=link)


def _write_through(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(b"Z = 9\n")


def _append_and_put_the_time_back(file: Path) -> None:
    file.chmod(0o644)
    time = file.stat().st_mtime_ns
    with open(file, "ab") as opened:
        opened.write(b"#\n")
    os.utime(file, ns=(time, time))


def _touch(file: Path) -> None:
    os.utime(file)


EDITS = [_write_through, _append_and_put_the_time_back, _touch]


@pytest.mark.parametrize("link", ["hardlink", "copy", "reflink"])
def test_what_nobody_changed_looks_as_made(venvs: Venvs, link: str) -> None:
    """However it was shared."""
    assert venvs.watch().as_made(str(venvs.make("v", link)), receipt(link), 1) is True


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("path", [path for path in FILES if path != "lib/empty.py"])
@pytest.mark.parametrize("link", ["hardlink", "copy"])
def test_an_edit_in_place_shows(venvs: Venvs, link: str, path: str, edit: Callable[[Path], None]) -> None:
    """Of a shared file and of a private one, by its time or its size; no directory moves."""
    venv = venvs.make("v", link)
    before = (venv / "lib").stat().st_mtime_ns
    edit(venv / path)
    assert (venv / "lib").stat().st_mtime_ns == before
    assert venvs.watch().as_made(str(venv), receipt(link), 1) is False


def test_an_edit_through_a_hard_link_shows_in_all_that_share_it(venvs: Venvs) -> None:
    """A copy of the same file is not concerned."""
    one, other, copy = venvs.make("one"), venvs.make("other"), venvs.make("copy", "copy")
    _write_through(one / "lib/a.py")
    watch = venvs.watch()
    assert watch.as_made(str(other), receipt(), 1) is False
    assert watch.as_made(str(copy), receipt("copy"), 1) is True


def test_an_edit_of_a_private_file_shows_in_its_venv_only(venvs: Venvs) -> None:
    """The other one shares everything else."""
    one, other = venvs.make("one"), venvs.make("other")
    (one / "lib/empty.py").write_bytes(b"print()\n")
    watch = venvs.watch()
    assert [watch.as_made(str(venv), receipt(), 1) for venv in (one, other)] == [False, True]


def test_an_object_is_looked_at_once_for_all_venvs(venvs: Venvs) -> None:
    """Private files are looked at one by one."""
    watch = venvs.watch()
    for number in range(5):
        assert watch.as_made(str(venvs.make(f"v{number}")), receipt(), 1)
    assert watch.looked == LINKED + 5 * PRIVATE


def test_below_min_size_files_are_looked_at_in_the_venv(venvs: Venvs) -> None:
    """They are copies there."""
    venv = venvs.make("v", "copy")
    _touch(venv / "lib/a.py")
    watch = venvs.watch()
    assert watch.as_made(str(venv), receipt(), 1) is True
    assert watch.as_made(str(venv), receipt(), 4096) is False


def test_without_its_objects_a_venv_is_looked_at_by_its_own_names(venvs: Venvs) -> None:
    """Hard links keep the bytes when the store is gone: that is no edit, and an edit still shows."""
    whole, edited = venvs.make("whole"), venvs.make("edited", "copy")
    _touch(edited / "lib/b.py")
    os.unlink(venvs.objects.path(name_of(FILES["lib/a.py"])))
    watch = venvs.watch()
    assert watch.as_made(str(whole), receipt(), 1) is True
    assert watch.as_made(str(edited), receipt(), 1) is False


def test_an_edit_of_what_is_not_the_object_any_more_shows_by_its_own_name(venvs: Venvs) -> None:
    """An object that was made anew has another inode: only the own names of the venv tell."""
    venv = venvs.make("v", "copy")
    checker = StatChecker(venvs.objects.root, lambda _: stats_of(TREE.entries, {}), by_own_names=True)
    assert checker.as_made(str(venv), receipt(), 1) is True
    _touch(venv / "lib/a.py")
    assert venvs.watch().as_made(str(venv), receipt(), 1) is True
    assert checker.as_made(str(venv), receipt(), 1) is False


@pytest.mark.parametrize("edit", EDITS)
def test_by_their_own_names_hard_links_are_as_made_until_they_are_edited(
    venvs: Venvs, edit: Callable[[Path], None]
) -> None:
    """As by their objects."""
    venv = venvs.make("v")
    checker = StatChecker(venvs.objects.root, lambda _: stats_of(TREE.entries, {}), by_own_names=True)
    assert checker.as_made(str(venv), receipt(), 1) is True
    edit(venv / "lib/a.py")
    assert checker.as_made(str(venv), receipt(), 1) is False


@pytest.mark.parametrize("gone", ["lib/x.pth", "lib", ""])
def test_what_is_gone_does_not_look_as_made(venvs: Venvs, gone: str) -> None:
    """A private file, a directory, the venv."""
    venv = venvs.make("v")
    os.rename(venv / gone, venvs.root / "elsewhere")
    assert venvs.watch().as_made(str(venv), receipt(), 1) is False


def test_a_venv_of_a_tree_that_nobody_knows_looks_changed(venvs: Venvs) -> None:
    """Unless its receipt knows how its files looked: somebody has to look closer."""
    assert not venvs.watch(other=None).as_made(str(venvs.make("v")), receipt(), 1)


def test_a_look_follows_no_link(venvs: Venvs) -> None:
    """A symlink in the place of a file is another thing, whatever it leads to."""
    venv = venvs.make("v", "copy")
    os.rename(venv / "lib/a.py", venvs.root / "moved.py")
    os.symlink(venvs.root / "moved.py", venv / "lib/a.py")
    assert venvs.watch().as_made(str(venv), receipt("copy"), 1) is False


def test_bytecode_is_not_looked_at_and_templates_may_have_any_size() -> None:
    """Python writes the one, every venv has its own of the other."""
    template = Entry("bin/tool", "template", name_of(b"#!").digest, executable=True, size=2)
    entries = [file_entry("lib/__pycache__/a.cpython-311.pyc", b"x"), template, Entry("lib/void", "dir")]
    stats = TreeStats(["bin/tool"], [""], [-1], [time_of(b"#!")], [0o544], {"bin/tool": -1})
    assert stats_of(entries, {}) == stats


def test_an_adopted_object_has_its_own_time_and_its_copies_have_ours(venvs: Venvs) -> None:
    """Both look as made."""
    name = name_of(FILES["lib/x.pth"])
    entries = [file_entry("lib/data.bin", FILES["lib/x.pth"])]
    os.utime(venvs.objects.path(name), ns=(7, 7))
    venv = venvs.make("v", "copy")
    (venv / "lib/x.pth").rename(venv / "lib/data.bin")
    for link in ("hardlink", "copy"):
        watch = venvs.watch(**{TREE.digest: stats_of(entries, {name: MtimeMode(7, 0o444)})})
        assert watch.as_made(str(venv), receipt(link), 1) is True
    os.utime(venvs.objects.path(name), ns=(8, 8))
    watch = venvs.watch(**{TREE.digest: stats_of(entries, {name: MtimeMode(7, 0o444)})})
    assert watch.as_made(str(venv), receipt(), 1) is False


# --------------------------------------------------------------------------- kept by a project

_text = st.text(st.characters(codec="utf-8", exclude_characters="\0/."), min_size=1, max_size=9) | st.just(
    "caf\udce9"
)
_digests = st.sampled_from(["a" * 64, "b" * 64, "0" * 64])
_rows = st.lists(
    st.tuples(_text, _text, st.integers(-1, 1 << 60), st.integers(0, 1 << 62), st.integers(0, 0o7777)),
    max_size=4,
)


@given(trees=st.dictionaries(_digests, _rows, max_size=3))
def test_what_is_kept_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, trees: dict[str, list[object]]
) -> None:
    """Whatever the files are called."""
    path = str(tmp_path_factory.mktemp("state") / ".stats")
    looks = {
        digest: TreeStats(
            *([row[column] for row in rows] for column in range(5)),  # type: ignore[index, arg-type, call-arg]
            {str(row[0]): 5 for row in rows[::2]},  # type: ignore[index]
        )
        for digest, rows in trees.items()
    }
    write_stats(path, "/store", looks)
    assert read_stats(path, "/store") == looks


def test_what_is_kept_for_another_store_is_not_taken(tmp_path: Path) -> None:
    """Objects keep other times there."""
    path = str(tmp_path / ".stats")
    write_stats(path, "/store", {TREE.digest: stats_of(TREE.entries, {})})
    assert read_stats(path, "/other") == {}


@given(st.data())
def test_what_is_damaged_counts_as_not_there(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """One byte is enough, or one that is missing."""
    path = tmp_path_factory.mktemp("state") / ".stats"
    write_stats(str(path), "/store", {TREE.digest: stats_of(TREE.entries, {})})
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.binary(max_size=1).filter(lambda byte: byte != whole[at : at + 1]))
    path.write_bytes(whole[:at] + other + whole[at + 1 :])
    assert read_stats(str(path), "/store") == {}


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 1, "store": "/store", "trees": [1]}'])
def test_what_makes_no_sense_counts_as_not_there(tmp_path: Path, text: str) -> None:
    """Even where its checksum is right."""
    path = tmp_path / ".stats"
    path.write_text(f"{name_of(text.encode()).digest}\n{text}", encoding="ascii")
    assert read_stats(str(path), "/store") == {}


def test_where_nobody_may_write_nothing_is_kept(tmp_path: Path) -> None:
    """And nothing is said."""
    write_stats(str(tmp_path / "nowhere" / ".stats"), "/store", {})
    assert not (tmp_path / "nowhere").exists()
