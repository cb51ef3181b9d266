"""Whose store it is: what somebody else can change is not linked to, and root is refused it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from contents import NOBODY, for_everybody, in_child, needs_root, open_store, snapshot_of, stock
from tiers import first_quick

from venvflow.disk.links import Linker
from venvflow.disk.objects import object_name
from venvflow.disk.trust import STORE_PARTS, is_trusted_store, store_doubts, store_warning
from venvflow.errors import Refused
from venvflow.pure.relocate import Places
from venvflow.state.materialise import Damaged, Materialiser

SOMEBODY = 1234
DATA = b"print('hello')\n"

pytestmark = [pytest.mark.root, needs_root]


@pytest.fixture
def store() -> Iterator[Path]:
    """Give a store of root's, with a snapshot, where everybody comes by."""
    with for_everybody() as place:
        furnish(place / "store")
        yield place / "store"


def furnish(path: Path) -> None:
    """Make a store that has a snapshot."""
    with open_store(path) as store:
        store.publish(snapshot_of(stock(store, {"lib/a.py": DATA})), 1.0)


def give(path: Path, owner: int) -> None:
    """Give a directory, and all that is in it, to somebody."""
    for each in (path, *path.rglob("*")):
        os.chown(each, owner, owner)


def open_to(path: Path, group: int) -> None:
    """Let a group write to a directory."""
    os.chown(path, -1, group)
    path.chmod(0o775)


CHANGES: dict[str, Callable[[Path], object]] = {
    "owner of the store": lambda store: give(store, SOMEBODY),
    "owner of a part": lambda store: os.chown(store / "snapshots", SOMEBODY, -1),
    "owner of a fan": lambda store: os.chown(min((store / "objects").iterdir()), SOMEBODY, -1),
    "owner above": lambda store: os.chown(store.parent, SOMEBODY, -1),
    "group of the store": lambda store: open_to(store, 100),
    "group of a part": lambda store: open_to(store / "trees", 100),
    "everybody above": lambda store: store.parent.chmod(0o777),
}


@pytest.mark.parametrize("change", CHANGES)
def test_root_is_refused_what_somebody_else_can_change(store: Path, change: str) -> None:
    """The refusal has the commands that end it; with the variable, files of others are copied."""
    CHANGES[change](store)
    with pytest.raises(Refused) as caught:
        open_store(store)
    assert "what root runs" in caught.value.what
    assert f"export VENVFLOW_TRUST={store}" in caught.value.hint
    with open_store(store, trusted=True) as opened:
        assert opened.untrusted == (not change.endswith("above"))
        assert not opened.read_only


@pytest.mark.parametrize(
    ("value", "trusted"),
    [
        ("", False),
        ("*", True),
        ("/a/store", True),
        ("/x:/a", True),
        ("/", True),
        ("/a/s", False),
        (":", False),
    ],
)
def test_a_store_is_trusted_with_what_it_lies_in(value: str, trusted: bool) -> None:
    """The project of a job that keeps its store in the checkout, for instance."""
    assert is_trusted_store("/a/store", {"VENVFLOW_TRUST": value}) is trusted


@pytest.mark.parametrize("mode", [0o777, 0o1777])
@pytest.mark.parametrize("part", first_quick(["", "objects", "venvs"]))
def test_what_everybody_may_write_is_refused_to_all(store: Path, part: str, mode: int) -> None:
    """Whoever says that it is trusted: others could add objects and snapshots."""
    (store / part).chmod(mode)
    for trusted in (False, True):
        with pytest.raises(Refused, match="everybody may write"):
            open_store(store, trusted=trusted)
        with pytest.raises(AssertionError):
            assert in_child(lambda: open_store(store), user=NOBODY) == 0


@pytest.mark.parametrize("sticky", [True, False])
def test_a_sticky_directory_above_is_as_good_as_ones_own(store: Path, sticky: bool) -> None:
    """As /tmp is; a group of the owner's own name is nobody else either."""
    store.parent.chmod(0o1777 if sticky else 0o775)
    with open_store(store) as opened:
        assert not opened.untrusted


def test_an_ordinary_user_gets_copies_and_one_warning(store: Path) -> None:
    """Nothing is written to the store of somebody else, even where its permissions would allow it."""
    give(store, SOMEBODY)
    for path in (store, *store.rglob("*")):
        path.chmod(0o775 if path.is_dir() else 0o664)
    os.chown(store, SOMEBODY, NOBODY)

    def work() -> None:
        with open_store(store) as opened:
            assert (opened.untrusted, opened.read_only) == (True, True)
            made(opened, store.parent / "made", "hardlink")
        (doubt, *_) = store_doubts(str(store), STORE_PARTS, NOBODY)
        assert "copied" in store_warning(doubt)

    store.parent.chmod(0o1777)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    assert in_child(work, user=NOBODY) == 0
    assert (store.parent / "made/lib/a.py").read_bytes() == DATA
    assert (store.parent / "made/lib/a.py").stat().st_uid == NOBODY
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def made(opened: object, target: Path, mode: object) -> None:
    """Make the venv of the one snapshot at *target*, linked by *mode* if the store allows it."""
    from venvflow.state.store import Store

    assert isinstance(opened, Store)
    manifest = opened.load(opened.snapshots()[0])
    Materialiser(
        opened.objects, Places(str(target), "/p", "/usr/bin/python3"), Linker((mode,)),  # type: ignore[arg-type]
        min_size=opened.smallest_shared(1), verify_all=opened.untrusted, untrusted=opened.untrusted,
    ).make(manifest, str(target))  # fmt: skip


def test_no_link_leads_into_a_store_of_somebody_else(store: Path, tmp_path: Path) -> None:
    """He edits his file afterwards, and the venv of root does not change."""
    give(store, SOMEBODY)
    with open_store(store, trusted=True) as opened:
        for mode in ("hardlink", "symlink", "reflink"):
            made(opened, tmp_path / mode, mode)
    for path in store.rglob("objects/*/*"):
        path.chmod(0o644)
        path.write_bytes(b"print('evil')\n")
    for mode in ("hardlink", "symlink", "reflink"):
        file = tmp_path / mode / "lib/a.py"
        assert (file.read_bytes(), file.is_symlink(), file.stat().st_nlink) == (DATA, False, 1)
        assert file.stat().st_uid == 0


def test_what_is_changed_between_look_and_copy_is_noticed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the copy that is hashed."""
    give(store, SOMEBODY)
    real = Linker.place

    def place(linker: Linker, source: str, name: str, fd: int, **more: bool) -> str:
        Path(source).chmod(0o644)
        Path(source).write_bytes(b"print('evil')\n")
        return real(linker, source, name, fd, **more)

    with open_store(store, trusted=True) as opened:
        (tree,) = opened.load(opened.snapshots()[0]).trees
        assert all(opened.objects.verified(object_name(entry)) for entry in tree.entries)
        monkeypatch.setattr(Linker, "place", place)
        with pytest.raises(Damaged):
            made(opened, tmp_path / "made", "hardlink")


def test_a_store_of_root_is_used_by_everybody(store: Path) -> None:
    """The administrator's: nobody else can change it."""
    for path in (store, *store.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o444)

    def work() -> None:
        with open_store(store) as opened:
            assert (opened.untrusted, opened.read_only) == (False, True)
            assert not [*store_doubts(str(store), STORE_PARTS, NOBODY)]

    assert in_child(work, user=NOBODY) == 0


def test_root_makes_no_store_where_others_could_change_it(tmp_path: Path) -> None:
    """It is refused before anything is made."""
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", SOMEBODY, SOMEBODY)
    with pytest.raises(Refused):
        open_store(tmp_path / "theirs/store")
    assert not os.listdir(tmp_path / "theirs")
    shutil.rmtree(tmp_path / "theirs")
