"""``verify``: every kind of damage is found and named, and mended where there is a good copy."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from contents import NOBODY, needs_root, picture, time_of, write
from machines import FILES, Machine, machine
from tiers import first_quick

from venvflow.disk import locks
from venvflow.disk.archive import FrameDirectory, tar
from venvflow.disk.objects import Name, object_name
from venvflow.disk.places import read_receipt
from venvflow.disk.scan import read
from venvflow.model import Entry

__all__ = ["machine"]

DATA = FILES["demo/table.bin"]


@pytest.fixture
def venvs(machine: Machine) -> list[Path]:
    """Give three venvs that share their files."""
    made = [machine.venv(name) for name in "abc"]
    machine.done("squish", *made)
    return made


def table(machine: Machine, venv: Path) -> Path:
    """Return the file that tests damage."""
    return machine.site(venv) / "demo/table.bin"


def findings(machine: Machine, *words: Any) -> list[dict[str, Any]]:
    """Return what verify finds; its exit code says whether anything is left."""
    answer = machine.run("verify", *words, "--json")
    document = answer.document
    assert answer.code == (1 if document["left"] else 0)
    found: list[dict[str, Any]] = document["findings"]
    return found


def kinds(found: list[dict[str, Any]]) -> list[str]:
    """Return the kinds of findings, sorted."""
    return sorted(finding["kind"] for finding in found)


def put(path: Path, data: bytes) -> None:
    """Write in place, through whatever links there are, as an editor that may do anything."""
    path.chmod(0o644)
    path.write_bytes(data)


def looks(*roots: Path) -> set[tuple[Path, int, int, int]]:
    """Return how everything looks, but for when it was last read."""
    paths = [path for root in roots for path in root.rglob("*") if path.parent.name != "locks"]
    return {(path, st.st_ino, st.st_size, st.st_ctime_ns) for path in paths for st in [path.lstat()]}


def keep_copy(machine: Machine, venv: Path) -> None:
    """Give *venv* an inode of its own for the file, as copies and reflinks have."""
    path = table(machine, venv)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(time_of(data), time_of(data)))


def test_nothing_is_found_where_nothing_happened(machine: Machine, venvs: list[Path]) -> None:
    """Nothing is read, and nothing is written."""
    before = looks(machine.store, *venvs)
    answer = machine.done("verify", "--json").document
    assert (answer["findings"], answer["read"], answer["venvs"]) == ([], 0, 3)
    assert looks(machine.store, *venvs) == before
    assert "0 findings left" in machine.done("verify").out


def test_without_a_store_there_is_nothing_to_verify(machine: Machine) -> None:
    """A venv that is named must be known."""
    assert machine.done("verify").code == 0
    assert machine.run("verify", machine.venv("a")).code == 2
    assert not machine.store.exists()


def test_an_edit_through_a_link_names_who_shares_it(machine: Machine, venvs: list[Path]) -> None:
    """The venv that was asked about counts as the editor's."""
    put(table(machine, venvs[0]), b"edited")
    (found,) = findings(machine)
    assert found["kind"] == "object damaged"
    assert set(found["others"]) == {str(table(machine, venv)) for venv in venvs}
    (found,) = findings(machine, venvs[1])
    assert (found["kind"], found["venv"]) == ("file edited", str(venvs[1]))
    assert set(found["others"]) == {str(table(machine, venvs[i])) for i in (0, 2)}


def test_healing_gives_the_others_their_bytes_and_the_editor_its_edit(
    machine: Machine, venvs: list[Path]
) -> None:
    """From the copy that one venv still has; the edit is private then, and the store is whole."""
    keep_copy(machine, venvs[2])
    put(table(machine, venvs[0]), b"edited")
    (found,) = findings(machine, venvs[0], "--heal")
    assert "its bytes came from" in found["healed"]
    assert table(machine, venvs[0]).read_bytes() == b"edited"
    assert table(machine, venvs[0]).stat().st_nlink == 1
    assert table(machine, venvs[1]).read_bytes() == DATA
    assert table(machine, venvs[2]).read_bytes() == DATA
    assert findings(machine) == []
    assert findings(machine, "--full") == []
    assert "1 edit known as private" in machine.done("verify").out
    put(table(machine, venvs[0]), b"edited again")
    (left,) = findings(machine)
    assert (left["kind"], left["venv"], left["others"]) == ("file edited", str(venvs[0]), [])


def test_one_healing_is_enough_where_the_index_is_gone(machine: Machine, venvs: list[Path]) -> None:
    """The new index puts the damaged object aside; whoever has it gets its bytes back all the same."""
    keep_copy(machine, venvs[2])
    put(table(machine, venvs[0]), b"edited")
    for path in machine.store.glob("index.db*"):
        path.unlink()
    findings(machine, "--heal")
    assert [table(machine, venv).read_bytes() for venv in venvs] == [DATA] * 3
    assert findings(machine) == []


def test_an_edit_that_is_private_already_is_known_after_healing(machine: Machine, venvs: list[Path]) -> None:
    """Editors that write a new file leave the others alone; squish takes the edit in as it is."""
    path = table(machine, venvs[0])
    path.with_name("new").write_bytes(b"edited")
    path.with_name("new").rename(path)
    (found,) = findings(machine, "--heal")
    assert (found["kind"], bool(found["healed"])) == ("file edited", True)
    assert findings(machine) == []
    assert path.read_bytes() == b"edited"
    machine.done("squish", venvs[0])
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (b"edited", time_of(b"edited"))
    assert "known as private" not in machine.done("verify").out


def test_a_template_that_was_only_touched_is_not_an_edit(machine: Machine, venvs: list[Path]) -> None:
    """Its bytes are compared with what it is filled in to; its time is given back."""
    for name in ("bin/demo", "pyvenv.cfg"):
        os.utime(venvs[1] / name)
    found = findings(machine, "--heal")
    assert {each["path"] for each in found} == {"bin/demo", "pyvenv.cfg"}
    assert {(each["kind"], each["healed"]) for each in found} == {("mtime moved", "given back its time")}
    assert findings(machine, "--full") == []
    script = venvs[1] / "bin/demo"
    time = script.stat().st_mtime_ns
    script.write_bytes(script.read_bytes() + b"print(1)\n")
    os.utime(script, ns=(time, time))
    assert findings(machine) == []
    assert kinds(findings(machine, "--full")) == ["file edited"]


def test_a_good_copy_may_be_in_the_cache_of_uv(
    machine: Machine, venvs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps the files of wheels unpacked; what is there is hashed like anything else."""
    for archive, data in (("a1", b"another version"), ("b2", DATA)):
        write(machine.root / "uv/archive-v0" / archive, {"demo/table.bin": data})
    put(table(machine, venvs[0]), b"edited")
    monkeypatch.setenv("UV_CACHE_DIR", str(machine.root / "uv"))
    (found,) = findings(machine, "--heal")
    assert "uv/archive-v0/b2/demo/table.bin" in found["healed"]
    assert [table(machine, venv).read_bytes() for venv in venvs] == [DATA] * 3


def test_bytecode_is_compiled_again(machine: Machine, venvs: list[Path]) -> None:
    """Its source is the good copy."""
    (pyc,) = machine.site(venvs[0]).glob("demo/__pycache__/data.*.pyc")
    good = pyc.read_bytes()
    put(pyc, b"damaged")
    (found,) = findings(machine, "--heal")
    assert found["healed"] == "its bytes came from compiling it anew"
    assert pyc.read_bytes() == good
    assert findings(machine, "--full") == []


def test_a_good_copy_may_be_in_a_packed_tree(machine: Machine, venvs: list[Path]) -> None:
    """What pack keeps compressed has every file of a distribution; a damaged frame is passed over."""
    receipt = read_receipt(str(venvs[0]))
    assert receipt is not None
    frames = FrameDirectory(f"{machine.store}/frames")
    damaged = frames.new(f"{receipt.trees[1]}.f3.l1")
    damaged.write(gzip.compress(DATA)[:-9] + b"damaged")
    damaged.finish()
    frame = frames.new(f"{receipt.trees[1]}.f3.l3")
    name = table(machine, venvs[0]).relative_to(venvs[0])
    data = tar.file_header("x/lib/demo/other", 3, executable=False) + b"abc" + bytes(509)
    data += tar.file_header(f"x/{name}", len(DATA), executable=False) + DATA
    frame.write(gzip.compress(data))
    frame.finish()
    put(table(machine, venvs[0]), b"edited")
    (found,) = findings(machine, "--heal")
    assert found["healed"] == "its bytes came from a packed tree of the store"
    assert [table(machine, venv).read_bytes() for venv in venvs] == [DATA] * 3


def test_an_editor_leaves_traces(machine: Machine, venvs: list[Path]) -> None:
    """A backup beside the file tells where it was edited; nobody has to be named."""
    keep_copy(machine, venvs[2])
    shutil.copy(table(machine, venvs[1]), f"{table(machine, venvs[1])}~")
    put(table(machine, venvs[1]), b"edited")
    assert kinds(findings(machine, "--heal")) == ["file added", "file edited"]
    assert [table(machine, venv).read_bytes() for venv in venvs] == [DATA, b"edited", DATA]


def test_where_nobody_can_be_named_the_edit_is_put_aside(machine: Machine, venvs: list[Path]) -> None:
    """All venvs have their bytes back, and the report says where the edit is."""
    keep_copy(machine, venvs[2])
    put(table(machine, venvs[0]), b"edited")
    (found,) = findings(machine, "--heal")
    assert [table(machine, venv).read_bytes() for venv in venvs] == [DATA, DATA, DATA]
    (kept,) = (machine.store / "quarantine").iterdir()
    assert str(kept) in found["note"]
    assert kept.read_bytes() == b"edited"
    assert findings(machine) == []
    assert all(machine.works(venv) for venv in venvs)


def test_without_a_good_copy_nothing_is_made_worse(machine: Machine, venvs: list[Path]) -> None:
    """The finding is left, and what the venvs have stays."""
    put(table(machine, venvs[0]), b"edited")
    (found,) = findings(machine, "--heal")
    assert found["healed"] == ""
    assert "no good copy" in found["note"]
    assert [table(machine, venv).read_bytes() for venv in venvs] == [b"edited"] * 3


def test_a_good_copy_may_be_in_quarantine(machine: Machine, venvs: list[Path]) -> None:
    """What was put aside once may be what is wanted."""
    aside = machine.store / "quarantine"
    aside.mkdir()
    (aside / f"{read(str(table(machine, venvs[0]))).digest}.1").write_bytes(DATA)
    put(table(machine, venvs[0]), b"edited")
    assert findings(machine, "--heal")[0]["healed"]
    assert [table(machine, venv).read_bytes() for venv in venvs] == [DATA] * 3


def test_a_missing_object_comes_back(machine: Machine, venvs: list[Path]) -> None:
    """From any venv that has the file."""
    digest = read(str(table(machine, venvs[0]))).digest
    path = machine.store / "objects" / digest[:2] / digest[2:]
    path.unlink()
    assert kinds(findings(machine)) == ["object missing"]
    assert findings(machine, "--heal")[0]["healed"]
    assert path.read_bytes() == DATA
    assert findings(machine) == []


def test_what_is_too_large_to_be_the_file_is_not_read(machine: Machine, venvs: list[Path]) -> None:
    """A hole of a terabyte takes hours to read, and no room; nothing is filled in that is so large."""
    places = [machine.site(venvs[0]) / "demo/table.bin", venvs[0] / "pyvenv.cfg"]
    for place in places:
        place.unlink()
        place.touch()
        os.truncate(place, 1 << 40)
    assert kinds(findings(machine, venvs[0])) == ["file edited"] * 2


@pytest.mark.parametrize("above", [1, 2])
def test_nothing_is_mended_behind_a_link(
    machine: Machine, venvs: list[Path], tmp_path: Path, above: int
) -> None:
    """Somebody put one where a directory of the venv was: what is there is not the venv's."""
    elsewhere = tmp_path / "elsewhere"
    replaced = table(machine, venvs[0]).parents[above - 1]
    for path in [elsewhere, *(elsewhere / "demo",) * (above - 1)]:
        path.mkdir()
    shutil.rmtree(replaced)
    replaced.symlink_to(elsewhere)
    before = looks(elsewhere)
    found = findings(machine, "--heal")
    assert "file missing" in kinds(found)
    assert looks(elsewhere) == before


def test_a_disk_that_flips_a_bit_is_seen_by_a_full_reading(machine: Machine, venvs: list[Path]) -> None:
    """Size and time are what they were."""
    path = table(machine, venvs[0])
    put(path, b"X" + DATA[1:])
    os.utime(path, ns=(time_of(DATA), time_of(DATA)))
    path.chmod(0o444)
    assert findings(machine) == []
    assert kinds(findings(machine, "--full")) == ["object damaged"]


def test_files_missing_and_added_and_touched_are_named(machine: Machine, venvs: list[Path]) -> None:
    """And given back, left and given their time."""
    site = machine.site(venvs[0])
    (site / "demo/data.py").unlink()
    (site / "mine.py").write_bytes(b"MINE = 1\n")
    path = site / "demo/table.bin"
    keep_copy(machine, venvs[0])
    os.utime(path)
    found = findings(machine)
    assert kinds(found) == ["file added", "file missing", "mtime moved"]
    assert {finding["venv"] for finding in found} == {str(venvs[0])}
    assert kinds([each for each in findings(machine, "--heal") if each["healed"]]) == [
        "file missing", "mtime moved",
    ]  # fmt: skip
    assert (site / "demo/data.py").read_bytes() == FILES["demo/data.py"]
    assert kinds(findings(machine)) == ["file added"]


def test_a_touched_object_gets_its_time_back(machine: Machine, venvs: list[Path]) -> None:
    """Its bytes are right, so it is no damage."""
    os.utime(table(machine, venvs[0]))
    assert kinds(findings(machine, "--heal")) == ["mtime moved"]
    assert table(machine, venvs[1]).stat().st_mtime_ns == time_of(DATA)
    assert findings(machine) == []


def test_a_venv_that_was_moved_is_named(machine: Machine, venvs: list[Path]) -> None:
    """Its receipt says where it was."""
    shutil.rmtree(venvs[0])
    shutil.copytree(venvs[1], venvs[0], symlinks=True)
    assert kinds(findings(machine)) == ["venv moved"]


def test_healing_changes_no_bytes_of_what_is_whole(machine: Machine, venvs: list[Path]) -> None:
    """Nor does it leave litter."""
    before = [picture(venv) for venv in venvs]
    assert findings(machine, "--heal", "--full") == []
    assert [picture(venv) for venv in venvs] == before


def test_symlinked_venvs_get_the_bytes_of_the_healed_object(machine: Machine) -> None:
    """The one that is named keeps the edit in place of its link."""
    venvs = [machine.venv("a"), machine.venv("b"), machine.venv("c")]
    machine.done("squish", *venvs[:2], "--link", "symlink")
    machine.done("squish", venvs[2], "--link", "copy")
    put(Path(os.path.realpath(table(machine, venvs[0]))), b"edited")
    findings(machine, venvs[0], "--heal")
    assert [table(machine, venv).read_bytes() for venv in venvs] == [b"edited", DATA, DATA]
    assert not table(machine, venvs[0]).is_symlink()
    assert table(machine, venvs[1]).is_symlink()


def test_much_damage_costs_no_more_looks_than_little(
    machine: Machine, venvs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has an object is looked up, not searched for: a venv may have a million files."""
    asked: list[Entry] = []

    def counting(entry: Entry) -> Name:
        asked.append(entry)
        return object_name(entry)

    monkeypatch.setattr("venvflow.steps.verify.inspection.object_name", counting)
    put(table(machine, venvs[0]), b"edited")
    assert len(findings(machine)) == 1
    little = len(asked)
    asked.clear()
    for path in machine.site(venvs[0]).glob("demo/*.*"):
        if path.stat().st_size:
            put(path, b"edited, too")
    assert len(findings(machine)) == 3
    assert len(asked) == little


def test_progress_is_shown_for_a_full_reading(
    machine: Machine, venvs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that were read, of all there are."""
    monkeypatch.setattr("venvflow.progress_display.LINE_SECONDS", 0.0)
    assert "verifying:" in machine.done("verify", "--full").err
    assert len(venvs) == 3


# --------------------------------------------------------------------------- modes, and what is held


@pytest.mark.parametrize("mode", first_quick([0o400, 0o644, 0o4444, 0o555]))
def test_a_mode_that_was_changed_in_one_venv_is_named_and_given_back(
    machine: Machine, venvs: list[Path], mode: int
) -> None:
    """It is that of the object, and so of all that have the file."""
    table(machine, venvs[0]).chmod(mode)
    (found,) = findings(machine)
    assert (found["kind"], found["note"]) == ("mode changed", f"{mode:04o} in place of 0444")
    assert len(found["others"]) == 3
    (healed,) = findings(machine, "--heal")
    assert healed["healed"] == "given back its mode and owner"
    assert [table(machine, venv).stat().st_mode & 0o7777 for venv in venvs] == [0o444] * 3
    assert findings(machine, "--full") == []


@pytest.mark.root
@needs_root
def test_a_file_that_was_given_away_is_named_and_replaced_everywhere(
    machine: Machine, venvs: list[Path]
) -> None:
    """Its new owner could change it in all venvs."""
    os.chown(table(machine, venvs[0]), NOBODY, NOBODY)
    (found,) = findings(machine)
    assert (found["kind"], found["note"]) == ("mode changed", f"it belongs to user {NOBODY}")
    assert [each["healed"] for each in findings(machine, "--heal")] == ["given back its mode and owner"]
    assert [table(machine, venv).stat().st_uid for venv in venvs] == [os.geteuid()] * 3
    assert os.path.samefile(*(table(machine, venv) for venv in venvs[:2]))
    assert findings(machine, "--full") == []


def test_a_looking_verify_holds_the_store(
    machine: Machine, venvs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else trim would take away what it looks at, and that would look like damage."""
    monkeypatch.setenv("VENVFLOW_LOCK_TIMEOUT", "0")
    assert len(venvs) == 3
    with locks.exclusive(f"{machine.store}/locks/store", timeout=0, what="the store"):
        assert machine.run("verify").code == 5
    assert machine.done("verify").code == 0
