"""What may happen to files, names, disks and databases while venvs are shared: nothing is lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from contents import shown
from machines import FILES, Machine, machine
from tiers import first_quick

from venvflow.disk.places import RECEIPT

__all__ = ["machine"]


def test_names_of_all_kinds_are_shared_and_taken_back(machine: Machine) -> None:
    """Long ones, those that are not UTF-8, those with line ends and quotes, twins but for the end."""
    names = [
        "n" * 255,
        "a\nb",
        "it's",
        "[1]",
        "*",
        "\udcff\udcfe",
        "a;touch PWNED",
        "a.py",
        "a.so",
        "-rf",
        " ",
    ]
    files = {**FILES, **{f"demo/{name}": f"{number} content".encode() for number, name in enumerate(names)}}
    venvs = [machine.venv("a", files=files), machine.venv("b [1]", files=files)]
    before = [shown(venv) for venv in venvs]
    machine.done("squish", *venvs)
    assert [shown(venv) for venv in venvs] == before
    for name in names:
        assert os.path.samefile(*(machine.site(venv) / "demo" / name for venv in venvs)), name
    assert machine.done("verify", "--full").code == 0
    machine.done("unsquish", *venvs)
    shutil.rmtree(machine.store)
    assert [shown(venv) for venv in venvs] == before


def test_what_nests_too_deep_is_an_error_and_changes_nothing(machine: Machine) -> None:
    """A clear one: no recursion ends it."""
    venv = machine.venv("a")
    deep = venv / "deep"
    deep.mkdir()
    here = os.open(deep, os.O_RDONLY)
    try:
        for _ in range(600):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    answer = machine.run("squish", venv)
    assert answer.code == 3
    assert "nested deeper" in answer.err
    assert not (venv / RECEIPT).exists()
    shutil.rmtree(deep)


@pytest.mark.slow
@pytest.mark.parametrize("link", ["hardlink", "copy"])
def test_sparse_files_stay_sparse(machine: Machine, link: str) -> None:
    """Holes take no room: not in the store, not when they are shared, not when they are taken back."""
    venvs = [machine.venv("a"), machine.venv("b")]
    for venv in venvs:
        with (machine.site(venv) / "sparse.bin").open("wb") as file:
            file.write(b"head")
            file.truncate(4 << 20)
    before = [shown(venv) for venv in venvs]
    files = [machine.site(venv) / "sparse.bin" for venv in venvs]
    if files[0].stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system has no holes")
    machine.done("squish", "--link", link, *venvs)
    assert [shown(venv) for venv in venvs] == before
    machine.done("unsquish", *venvs)
    assert [shown(venv) for venv in venvs] == before
    kept = [path for path in (machine.store / "objects").rglob("*") if path.stat().st_size == 4 << 20]
    assert len(kept) == 1
    assert all(path.stat().st_blocks * 512 < 1 << 20 for path in (*files, *kept))


def test_a_database_is_never_shared(machine: Machine) -> None:
    """A writer of one venv would write into the other."""
    venvs = [machine.venv("a"), machine.venv("b")]
    for venv in venvs:
        with sqlite3.connect(venv / "state.db") as database:
            database.execute("CREATE TABLE t (x)")
        database.close()
    machine.done("squish", *venvs)
    with sqlite3.connect(venvs[0] / "state.db") as database:
        database.execute("INSERT INTO t VALUES (1)")
    database.close()
    assert (venvs[1] / "state.db").stat().st_nlink == 1
    assert (venvs[0] / "state.db").read_bytes() != (venvs[1] / "state.db").read_bytes()


def test_a_file_that_somebody_has_open_to_write_is_theirs(machine: Machine) -> None:
    """What is written through the old descriptor reaches no other venv and no object."""
    venvs = [machine.venv("a"), machine.venv("b")]
    with (machine.site(venvs[0]) / "demo/table.bin").open("r+b") as file:
        machine.done("squish", *venvs)
        file.write(b"late")
    assert (machine.site(venvs[1]) / "demo/table.bin").read_bytes() == FILES["demo/table.bin"]
    assert machine.done("verify", "--full").code == 0


@pytest.mark.parametrize("damage", first_quick(["deleted", "empty", "half", "garbage", "page", "directory"]))
def test_whatever_happens_to_the_database_venvs_are_shared_and_taken_back(
    machine: Machine, damage: str
) -> None:
    """It is a cache: who comes next makes it again."""
    venvs = [machine.venv("a"), machine.venv("b")]
    before = [shown(venv) for venv in venvs]
    machine.done("squish", venvs[0])
    index = machine.store / "index.db"
    for suffix in ("-wal", "-shm"):
        Path(f"{index}{suffix}").unlink(missing_ok=True)
    data = bytearray(index.read_bytes())
    index.unlink()
    if damage == "directory":
        index.mkdir()
    elif damage != "deleted":
        middle = len(data) // 2 // 4096 * 4096
        data[middle : middle + 4096] = b"\xff" * 4096
        index.write_bytes(
            {
                "empty": b"",
                "half": bytes(data[: len(data) // 2]),
                "garbage": b"?" * 9000,
                "page": bytes(data),
            }[damage]
        )
    for _ in range(3):  # what is found damaged while it is used is put aside, and the next run goes on
        answer = machine.run("squish", *venvs)
        if answer.code == 0:
            break
        assert answer.code == 3
    assert answer.code == 0
    assert [shown(venv) for venv in venvs] == before
    sites = [machine.site(venv) / "demo/data.py" for venv in venvs]
    assert os.path.samefile(*sites)
    assert machine.done("verify", "--full").code == 0
    machine.done("unsquish", *venvs)
    assert [shown(venv) for venv in venvs] == before


@pytest.mark.slow
def test_no_flipped_byte_of_the_database_costs_a_venv_a_byte(machine: Machine) -> None:
    """Rows are hints: what is replaced is compared on disk first."""
    one, two = machine.venv("a"), machine.venv("b")
    before = shown(two)
    machine.done("squish", one)
    index = machine.store / "index.db"
    for suffix in ("-wal", "-shm"):
        Path(f"{index}{suffix}").unlink(missing_ok=True)
    data = index.read_bytes()
    for position in range(0, len(data), len(data) // 60):
        index.write_bytes(data[:position] + bytes([data[position] ^ 0x41]) + data[position + 1 :])
        for _ in range(3):
            if machine.run("squish", two).code == 0:
                break
        assert shown(two) == before, position
        assert machine.works(two), position
        machine.run("unsquish", two)
        assert shown(two) == before, position
        for path in machine.store.glob("index.db*"):
            path.unlink()


def test_a_store_and_venvs_of_different_times_agree_again(machine: Machine) -> None:
    """The store deleted, then the venvs' turn; then an old store put back."""
    venvs = [machine.venv("a"), machine.venv("b")]
    before = [shown(venv) for venv in venvs]
    machine.done("squish", *venvs)
    shutil.copytree(machine.store, machine.root / "old", symlinks=True)
    (machine.site(venvs[0]) / "later.py").write_bytes(b"LATER = 1\n")
    before[0] = shown(venvs[0])
    machine.done("squish", *venvs)
    shutil.rmtree(machine.store)
    machine.done("squish", *venvs)
    assert [shown(venv) for venv in venvs] == before
    shutil.rmtree(machine.store)
    (machine.root / "old").rename(machine.store)
    machine.done("squish", *venvs)
    assert [shown(venv) for venv in venvs] == before
    assert machine.done("verify", "--full").code == 0
    assert os.path.samefile(*(machine.site(venv) / "demo/data.py" for venv in venvs))


@pytest.mark.slow
def test_a_store_that_was_copied_by_links_goes_its_own_way(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``cp -al``: one database under two names would be destroyed by two programs that write to it."""
    venvs = [machine.venv(name) for name in "abc"]
    before = [shown(venv) for venv in venvs]
    machine.done("squish", venvs[0])
    copy = machine.root / "copy"
    subprocess.run(["cp", "-al", machine.store, copy], check=True)
    machine.done("squish", venvs[1])
    monkeypatch.setenv("VENVFLOW_STORE", str(copy))
    machine.done("squish", venvs[2])
    for store in (machine.store, copy):
        monkeypatch.setenv("VENVFLOW_STORE", str(store))
        assert machine.done("verify", "--full").code == 0
        with sqlite3.connect(store / "index.db") as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        database.close()
        assert not list(store.glob("*.damaged-*"))
    assert [shown(venv) for venv in venvs] == before


@pytest.mark.slow
def test_an_old_database_beside_a_newer_log_costs_no_byte(machine: Machine) -> None:
    """SQLite would play the log into a file that it does not belong to."""
    venvs = [machine.venv(name) for name in "ab"]
    before = [shown(venv) for venv in venvs]
    machine.done("squish", venvs[0])
    index = machine.store / "index.db"
    old = index.read_bytes()
    with sqlite3.connect(index, isolation_level=None) as holder:  # so that the log is not written back
        holder.execute("SELECT count(*) FROM objects").fetchone()
        machine.done("squish", venvs[1])
        log = Path(f"{index}-wal").read_bytes()
    holder.close()
    machine.done("unsquish", venvs[1])
    index.write_bytes(old)
    Path(f"{index}-wal").write_bytes(log[: len(log) // 2])
    for _ in range(3):
        if machine.run("squish", *venvs).code == 0:
            break
    assert [shown(venv) for venv in venvs] == before
    assert machine.done("verify", "--full").code == 0
    machine.done("unsquish", *venvs)
    assert [shown(venv) for venv in venvs] == before
