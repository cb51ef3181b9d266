"""The canonical form of trees and snapshots: what it is, what it refuses, and who owns which path."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvflow.model import INSTALLER_NOTE, Entry, Key, Manifest, Slot, Snapshot
from venvflow.pure.manifest import (
    SCAFFOLD,
    Corrupt,
    Distribution,
    decode_snapshot,
    decode_tree,
    encode_snapshot,
    encode_tree,
    entries_of,
    first_difference,
    group,
    make_tree,
    source_of,
)

GOLDEN = Path(__file__).parent / "golden" / "tree.json"
SITE = "lib/python3.12/site-packages"
A, B = "a" * 64, "b" * 64

ENTRIES = [
    Entry("bin/six", "template", A, True, 120, "", (Slot(0, "venv", "shebang", "bin/python"),)),
    Entry("bin/python", "link", target="", slots=(Slot(0, "python", "raw"),)),
    Entry("pyvenv.cfg", "template", B, False, 40, "", (Slot(7, "home", "line"), Slot(9, "venv", "line"))),
    Entry(f"{SITE}/six.py", "file", A, False, 34703),
    Entry(f"{SITE}/six-1.17.0.dist-info/METADATA", "file", B, False, 1658),
    Entry(f"{SITE}/odd/na me\n\udcff☃", "file", B, True, 0),
    Entry(f"{SITE}/odd/empty", "dir"),
    Entry(f"{SITE}/odd-1/x", "link", target="../six.py"),
]

digests = st.sampled_from([A, B, "0" * 64])
names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]) | st.sampled_from("\udc80\udcff."),
    min_size=1,
    max_size=6,
).filter(lambda name: name not in (".", ".."))
tree_paths = st.lists(names, min_size=1, max_size=4).map("/".join)
slots = st.lists(
    st.builds(
        Slot, st.integers(0, 99), st.sampled_from(["venv", "project"]), st.sampled_from(["raw", "sh"]), names
    ),
    max_size=3,
).map(lambda found: tuple(sorted(found, key=lambda slot: slot.offset)))
sizes = st.integers(0, 1 << 40)
entries = st.lists(
    st.one_of(
        st.builds(lambda p, d, x, n: Entry(p, "file", d, x, n), tree_paths, digests, st.booleans(), sizes),
        st.builds(
            lambda p, d, x, n, s: Entry(p, "template", d, x, max(n, 99), "", s),
            tree_paths,
            digests,
            st.booleans(),
            sizes,
            slots,
        ),
        st.builds(
            lambda p, t, s: Entry(
                p, "link", target=t * 99, slots=tuple(each._replace(form="raw") for each in s)
            ),
            tree_paths,
            names,
            slots,
        ),
        st.builds(lambda p: Entry(p, "dir"), tree_paths),
    ),
    max_size=8,
    unique_by=lambda entry: entry.path,
)


def signed(document: Any) -> tuple[str, bytes]:
    """Return a document under its right name, as somebody who means harm would make it."""
    data = json.dumps(document).encode()
    return hashlib.sha256(data).hexdigest(), data


def tree_of(groups: Any, **changes: Any) -> tuple[str, bytes]:
    """Return a tree with these groups of rows, under its right name."""
    return signed({"entries": groups, "format": 3, "name": "n", "version": "1", **changes})


# --------------------------------------------------------------------------- the canonical form


def test_the_canonical_form_never_changes() -> None:
    """Stores on disk depend on it; ``UPDATE_GOLDEN=1`` writes the file anew when the format number moves."""
    data = encode_tree(make_tree("six", "1.17.0", ENTRIES))
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_bytes(data + b"\n")
    assert data + b"\n" == GOLDEN.read_bytes()


@given(entries, st.randoms(use_true_random=False))
def test_the_order_of_entries_does_not_matter(items: list[Entry], random: Any) -> None:
    """The same entries in any order are the same tree with the same name."""
    shuffled = random.sample(items, len(items))
    assert make_tree("n", "1", shuffled) == make_tree("n", "1", items)


@given(entries, names, names)
def test_a_tree_is_read_as_it_was_written(items: list[Entry], name: str, version: str) -> None:
    """Decoding gives the tree back, and its bytes are ASCII whose hash is its name."""
    tree = make_tree(name, version, items)
    data = encode_tree(tree)
    assert hashlib.sha256(data).hexdigest() == tree.digest
    assert data.isascii()
    assert decode_tree(tree.digest, data) == tree


@given(entries, st.data())
def test_every_field_is_in_the_name(items: list[Entry], data: st.DataObject) -> None:
    """Two trees that differ in any field have different digests."""
    other = data.draw(entries)
    same = sorted(items) == sorted(other)
    assert (make_tree("n", "1", items).digest == make_tree("n", "1", other).digest) == same
    assert make_tree("n", "2", items).digest != make_tree("n", "1", items).digest
    assert make_tree("m", "1", items).digest != make_tree("n", "1", items).digest


# --------------------------------------------------------------------------- what is refused


@given(st.integers(0, 1 << 20), st.integers(0, 7))
def test_any_flipped_bit_of_a_tree_is_noticed(position: int, bit: int) -> None:
    """Damage is one kind of exception, whichever bit it hits."""
    tree = make_tree("six", "1.17.0", ENTRIES)
    data = bytearray(encode_tree(tree))
    data[position % len(data)] ^= 1 << bit
    with pytest.raises(Corrupt, match="its hash is not its name"):
        decode_tree(tree.digest, bytes(data))
    with pytest.raises(Corrupt):  # the rest of the checks, too, have no other way to fail
        raise_unless_sound(bytes(data))


def raise_unless_sound(data: bytes) -> None:
    """Decode under the right name; a tree that decodes then must be canonical, or at least safe."""
    tree = decode_tree(hashlib.sha256(data).hexdigest(), data)
    for entry in tree.entries:
        assert not entry.path.startswith("/")
        assert not set(entry.path.split("/")) & {"", ".", ".."}
    raise Corrupt("it is a sound tree, though another one")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from([A, "file", "dir", "link"]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(["", "a", "a/b"]), st.lists(st.lists(JSON, max_size=6)))), JSON)
def test_nonsense_under_its_right_name_is_corrupt_or_a_tree(groups: Any, other: Any) -> None:
    """Nothing that JSON can spell leads to another exception, and what is read can be written again."""
    for digest, data in (tree_of(groups), tree_of(other), signed(other), tree_of([], name=other)):
        with suppress(Corrupt):
            tree = decode_tree(digest, data)
            again = make_tree(tree.name, tree.version, tree.entries)
            assert decode_tree(again.digest, encode_tree(again)) == again


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\0b", "\ud800", None, 7, ["x"]])
def test_unsafe_names_are_refused(name: object) -> None:
    """A path can never climb, be absolute, be empty or be none that a file system can hold."""
    with pytest.raises(Corrupt):
        decode_tree(*tree_of([["lib", [[name, "file", A, 0, 1]]]]))


@pytest.mark.parametrize(
    "where", ["/", "/etc", "..", "../x", "a/../b", "a//b", "a/", "./a", "a\0", "\ud800", None, 1]
)
def test_unsafe_directories_are_refused(where: object) -> None:
    """The same for the directory that a group of entries lies in."""
    with pytest.raises(Corrupt):
        decode_tree(*tree_of([[where, [["x", "file", A, 0, 1]]]]))


@pytest.mark.parametrize(
    "row",
    [
        ["x", "file", A, 0],
        ["x", "file", A, 0, 1, []],
        ["x", "file", A, 2, 1],
        ["x", "file", A, "0", 1],
        ["x", "file", A, 0, -1],
        ["x", "file", A, 0, 1.5],
        ["x", "file", A, 0, True],
        ["x", "file", A[:-1], 0, 1],
        ["x", "file", A.upper(), 0, 1],
        ["x", "file", "../" + A[3:], 0, 1],
        ["x", "file", None, 0, 1],
        ["x", "template", A, 0, 1],
        ["x", "template", A, 0, 1, [[0, "venv"]]],
        ["x", "dir", 1],
        ["x", "template", A, 0, 1, [["0", "venv", "raw", ""]]],
        ["x", "template", A, 0, 1, [[-1, "v", "r", ""]]],
        ["x", "link", 7, []],
        ["x", "link", "a\0b", []],
        ["x", "link", "a"],
        ["x", "fifo"],
        ["x"],
        [],
        None,
    ],
)
def test_rows_of_another_shape_are_refused(row: object) -> None:
    """Every field has its type; nothing is left for later code to stumble over."""
    with pytest.raises(Corrupt):
        decode_tree(*tree_of([["lib", [row]]]))


def test_other_formats_wrong_order_and_doubles_are_refused() -> None:
    """A tree of another format is not guessed at; two entries of one path are never believed."""
    row = ["x", "dir"]
    with pytest.raises(Corrupt, match="its format is 2, this venvflow reads 3"):
        decode_tree(*tree_of([], format=2))
    for groups in ([["a", [row, row]]], [["b", [row]], ["a", [row]]], [["a", [["y", "dir"], row]]]):
        with pytest.raises(Corrupt, match="out of order or there twice"):
            decode_tree(*tree_of(groups))
    nested = b"[" * 100_000
    with pytest.raises(Corrupt):
        decode_tree(hashlib.sha256(nested).hexdigest(), nested)


# --------------------------------------------------------------------------- grouping


def plain(*paths: str) -> dict[str, Entry]:
    """Return entries for files."""
    return {path: Entry(path, "file", A, False, 1) for path in paths}


@given(st.lists(tree_paths, unique=True, max_size=10), st.data())
def test_every_entry_is_in_exactly_one_tree(found: list[str], data: st.DataObject) -> None:
    """Whatever RECORDs claim, nothing is lost and nothing is there twice, and their order is irrelevant."""
    claims = st.builds(
        Distribution,
        st.sampled_from(["a", "b"]),
        st.sampled_from(["1", "2"]),
        st.frozensets(st.sampled_from([*found, "x"])),
    )
    distributions = data.draw(st.lists(claims, max_size=4))
    trees = group(plain(*found), distributions)
    assert sorted(entry.path for tree in trees for entry in tree.entries) == sorted(found)
    assert trees == group(dict(reversed(plain(*found).items())), distributions[::-1])


def test_paths_belong_to_their_distribution_their_package_or_the_scaffold() -> None:
    """Bytecode goes with its source; what nobody claims is grouped by its first name."""
    found = plain(
        "pyvenv.cfg",
        "bin/activate",
        "bin/six",
        f"{SITE}/six.py",
        f"{SITE}/__pycache__/six.cpython-312.pyc",
        f"{SITE}/__pycache__/six.cpython-312.opt-2.pyc",
        f"{SITE}/loose/a.py",
        f"{SITE}/loose/__pycache__/a.cpython-312.pyc",
        f"{SITE}/__pycache__/top.cpython-312.pyc",
        f"{SITE}/top.py",
    )
    six = Distribution("six", "1.17.0", frozenset({"bin/six", f"{SITE}/six.py", "gone"}))
    shape = {
        (tree.name, tree.version): {e.path.rpartition("/")[2] for e in tree.entries}
        for tree in group(found, [six])
    }
    assert shape == {
        (SCAFFOLD, ""): {"pyvenv.cfg", "activate"},
        ("six", "1.17.0"): {"six", "six.py", "six.cpython-312.pyc", "six.cpython-312.opt-2.pyc"},
        ("(loose)", ""): {"a.py", "a.cpython-312.pyc"},
        ("(top.py)", ""): {"top.py", "top.cpython-312.pyc"},
    }


def test_a_path_of_two_records_goes_to_the_first_name_and_takes_its_bytecode() -> None:
    """Even if the other RECORD claims the bytecode alone."""
    pyc = f"{SITE}/__pycache__/x.cpython-312.pyc"
    found = plain(f"{SITE}/x.py", pyc)
    claims = [Distribution("b", "1", frozenset(found)), Distribution("a", "1", frozenset({f"{SITE}/x.py"}))]
    assert [(tree.name, len(tree.entries)) for tree in group(found, claims)] == [("a", 2)]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("a/__pycache__/m.cpython-312.pyc", "a/m.py"),
        ("__pycache__/m.cpython-312.pyc", "m.py"),
        ("a/__pycache__/m.cpython-312.opt-1.pyc", "a/m.py"),
        ("a/__pycache__/m.n.pypy310-pp73.pyc", "a/m.n.py"),
        ("a/__pycache__/test_m.cpython-312-pytest-8.4.1.pyc", "a/test_m.py"),
        ("a/m.pyc", None),
        ("a/__pycache__/m.txt", None),
        ("a/__pycache__/m.pyc", None),
        ("a/__pycache__/.pyc", None),
        ("a/__pycache__x/m.c.pyc", None),
    ],
)
def test_the_source_of_bytecode_is_told_by_its_name(path: str, source: str | None) -> None:
    """Optimised bytecode and what pytest rewrote belong to the same source."""
    assert source_of(path) == source


# --------------------------------------------------------------------------- manifests


def test_trees_that_contradict_each_other_are_refused() -> None:
    """One path twice, or a link where another tree has a directory, would be written somewhere else."""
    one = make_tree("a", "1", [Entry("lib/x", "link", target="/etc")])
    for path in ("lib/x", "lib/x/passwd", "lib/x/deep/er"):
        other = make_tree("b", "1", plain(path).values())
        with pytest.raises(Corrupt, match="'lib/x' is"):
            entries_of(Manifest((one, other)))
    sound = make_tree("b", "1", plain("lib/x2", "lib/y/z").values())
    assert set(entries_of(Manifest((one, sound)))) == {"lib/x", "lib/x2", "lib/y/z"}


def test_the_first_difference_is_the_first_path_that_differs() -> None:
    """Added, removed and changed paths count; the same trees have none."""
    base = plain("a", "b", "c")
    one = Manifest((make_tree("n", "1", base.values()),))
    assert first_difference(one, one) == ""
    for changed, path in (
        ({**base, "b": replace_size(base["b"])}, "b"),
        ({**base, **plain("aa")}, "aa"),
        ({"b": base["b"]}, "a"),
    ):
        assert first_difference(one, Manifest((make_tree("n", "1", changed.values()),))) == path
    assert first_difference(one, Manifest((make_tree("m", "1", base.values()),))) == ""


def replace_size(entry: Entry) -> Entry:
    """Return the entry with another size."""
    return entry._replace(size=entry.size + 1)


# --------------------------------------------------------------------------- snapshots


SNAPSHOT = Snapshot(
    id=A,
    key=Key(B, {"python": "cpython 3.12.4", "lock:☃\udcff": A}),
    trees=(A, B),
    place=None,
    venv="api",
    created=1_700_000_000.25,
    host="h\udcff",
    command="doit",
    python="3.12.4",
    files=3,
    size=99,
    notes={f"lib/python3.12/site-packages/a{INSTALLER_NOTE}": A},
    needs=("/opt/x", "build/cp312\udcff"),
    root="/src/p\udcff",
)


def test_a_snapshot_is_read_as_it_was_written() -> None:
    """With and without a place, and whatever its words are made of."""
    for snapshot in (SNAPSHOT, replace(SNAPSHOT, place="services/a\udcff"), replace(SNAPSHOT, trees=())):
        assert decode_snapshot(encode_snapshot(snapshot)) == snapshot


def test_any_flipped_bit_of_a_snapshot_is_noticed() -> None:
    """Every bit of the file counts, its last line break too; so does a missing or additional byte."""
    data = encode_snapshot(SNAPSHOT)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(Corrupt):
            decode_snapshot(bytes(damaged))
    for damaged_ in (data[:-1], data + b"\n", b"", b"\n", data[1:], data + data):
        with pytest.raises(Corrupt):
            decode_snapshot(damaged_)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"trees": ["../x"]},
        {"trees": 7},
        {"key": None},
        {"key": {"digest": A, "parts": [1]}},
        {"key": {"digest": A, "parts": {"a": 1}}},
        {"place": 7},
        {"files": -1},
        {"size": "9"},
        {"created": "x"},
        {"host": None},
        {"venv": "a\0"},
        {"notes": {f"../a{INSTALLER_NOTE}": A}},
        {"notes": {f"/a{INSTALLER_NOTE}": A}},
        {"notes": {"bin/python": A}},
        {"notes": {f"a{INSTALLER_NOTE}": "7"}},
    ],
)
def test_snapshots_of_another_shape_are_refused(change: dict[str, object]) -> None:
    """A right checksum is no reason to believe the wrong types."""
    body = json.dumps({**json.loads(encode_snapshot(SNAPSHOT).rpartition(b"}")[0] + b"}"), **change}).encode()
    check = hashlib.sha256(body).hexdigest().encode()
    with pytest.raises(Corrupt):
        decode_snapshot(body + b"\n" + check + b"\n")


def test_a_document_that_is_no_snapshot_is_refused() -> None:
    """Lists, numbers and deep nesting under a right checksum are corrupt as well."""
    for body in (b"[]", b"7", b"null", b"{}", b"[" * 100_000):
        with pytest.raises(Corrupt):
            decode_snapshot(body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n")
