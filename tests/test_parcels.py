"""Parcels: what goes in comes out, in whatever pieces it is fed; and nothing else comes out of anything."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvflow.disk.remote.parcels import Cutter, DamagedPiece, write_parcel
from venvflow.disk.zstandard import zstd
from venvflow.model import Entry, Slot, Tree
from venvflow.pure import parcels
from venvflow.pure.decoding import Corrupt
from venvflow.pure.manifest import encode_tree, make_tree
from venvflow.pure.parcels import (
    ParcelHead,
    Piece,
    announced_size,
    encode_head,
    pieces_of,
    read_head,
    shared_out,
)


class Kept:
    """A sink that keeps in memory what it is given, and how much was ever under way."""

    def __init__(self, known: frozenset[str] = frozenset()) -> None:
        self.whole: dict[tuple[str, bool], bytes] = {}
        self._known = known
        self._begun = b""

    def begin(self, piece: Piece) -> bool:
        """Take a piece, unless it is known."""
        self._begun = b""
        return piece.digest not in self._known

    def write(self, data: memoryview) -> None:
        """Take more of it."""
        self._begun += data

    def end(self, piece: Piece) -> None:
        """Keep it."""
        self.whole[piece.digest, piece.executable] = self._begun


def digest(data: bytes) -> str:
    """Return the name of an object."""
    return hashlib.sha256(data).hexdigest()


class Parcel:
    """A tree of some files, the objects beside it, and the parcel of both."""

    def __init__(self, directory: Path, files: dict[str, bytes], *, templates: tuple[str, ...] = ()) -> None:
        entries = [
            Entry(path, "template", digest(data), size=len(data), slots=(Slot(0, "venv", "raw"),))
            if path in templates
            else Entry(path, "file", digest(data), executable=path.endswith(".sh"), size=len(data))
            for path, data in files.items()
        ]
        self.tree: Tree = make_tree("demo", "1.0", [*entries, Entry("z-link", "link", target="there")])
        self.encoded = encode_tree(self.tree)
        self.announced = announced_size(self.tree, len(self.encoded))
        for data in files.values():
            (directory / digest(data)).write_bytes(data)
        self._directory = directory

    def written(self) -> bytes:
        """Write the parcel."""
        file = io.BytesIO()
        write_parcel(
            file, self.encoded, pieces_of(self.tree), lambda piece: str(self._directory / piece.digest)
        )
        return file.getvalue()

    def cut(self, data: bytes, step: int = 1 << 20, sink: Kept | None = None) -> Kept:
        """Feed *data* in chunks of *step* bytes; raises Corrupt unless it is this parcel."""
        sink = sink or Kept()
        cutter = Cutter(self.tree.digest, self.announced, sink)
        for start in range(0, len(data), step):
            cutter.feed(data[start : start + step])
        cutter.close()
        assert cutter.tree == self.tree
        assert cutter.stored() == len(data)
        return sink


FILES = {
    "demo/__init__.py": b"NAME = 'demo'\n" * 50,
    "demo/run.sh": b"#!/bin/sh\necho demo\n",
    "demo/empty.py": b"",
    "demo/same.py": b"NAME = 'demo'\n" * 50,
    "demo/data.bin": bytes(range(256)) * 8,
    "bin/demo": b"#!/python\n",
}


@pytest.fixture
def parcel(tmp_path: Path) -> Parcel:
    """Give a parcel of a few files."""
    return Parcel(tmp_path, FILES, templates=("bin/demo",))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let parts be of a few hundred bytes."""
    monkeypatch.setattr(parcels, "PART", 700)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 20])
def test_what_goes_in_comes_out(parcel: Parcel, step: int) -> None:
    """Each object once, empty ones not at all, whatever the pieces in which it comes."""
    expected = {(digest(data), path.endswith(".sh")): data for path, data in FILES.items() if data}
    assert parcel.cut(parcel.written(), step).whole == expected


def test_the_same_tree_gives_the_same_bytes(parcel: Parcel) -> None:
    """Two pushers write the same."""
    assert parcel.written() == parcel.written()


def test_any_zstd_unpacks_a_parcel(parcel: Parcel) -> None:
    """The head is a frame that readers skip, so what is in it can be looked at without us."""
    data = parcel.written()
    _, start = read_head(data)
    assert zstd().decompress(data[start:]).startswith(parcel.encoded)


def test_objects_that_are_there_are_checked_and_not_written(parcel: Parcel) -> None:
    """A pull heals what is missing, and leaves the rest."""
    known = digest(FILES["demo/data.bin"])
    sink = parcel.cut(parcel.written(), sink=Kept(frozenset([known])))
    assert known not in {name for name, _ in sink.whole}
    assert len(sink.whole) == 3


@pytest.mark.parametrize("how", ["gone", "other", "longer", "shorter"])
def test_a_damaged_object_is_never_sent(parcel: Parcel, tmp_path: Path, how: str) -> None:
    """It is hashed while it is read."""
    path = tmp_path / digest(FILES["demo/data.bin"])
    data = path.read_bytes()
    path.write_bytes({"gone": b"", "other": data[::-1], "longer": data + b"x", "shorter": data[:-1]}[how])
    if how == "gone":
        path.unlink()
    with pytest.raises(DamagedPiece, match=path.name):
        parcel.written()


@pytest.mark.usefixtures("small_parts")
def test_every_changed_bit_and_every_cut_is_refused(parcel: Parcel) -> None:
    """Bytes of the head that only fill it may differ: nothing else."""
    data = parcel.written()
    _, start = read_head(data)
    text_end = data[:start].rindex(b"}") + 1
    for at in range(0, len(data), 17):
        if text_end <= at < start:
            continue
        changed = bytearray(data)
        changed[at] ^= 0x40
        with pytest.raises(Corrupt):
            parcel.cut(bytes(changed))
        with pytest.raises(Corrupt):
            parcel.cut(data[:at])
    for tail in (b"x", data, zstd().compress(b"more")):
        with pytest.raises(Corrupt):
            parcel.cut(data + tail)


def test_the_parcel_of_another_tree_is_refused(parcel: Parcel, tmp_path: Path) -> None:
    """Even if it is whole, and of the same size."""
    other = Parcel(tmp_path, {**FILES, "demo/run.sh": b"#!/bin/sh\necho DEMO\n"}, templates=("bin/demo",))
    assert other.announced == parcel.announced
    with pytest.raises(Corrupt, match=r"hash|another"):
        parcel.cut(other.written())


def crafted(manifest: int, parts: list[tuple[int, bytes]], *, window: int = 0) -> bytes:
    """Return a parcel as nobody's writer makes it: what parts say they are, and what they hold."""
    options = {zstd().CompressionParameter.window_log: window} if window else None
    packed = [(said, zstd().compress(data, options=options)) for said, data in parts]
    head = encode_head(ParcelHead(manifest, tuple((said, len(data)) for said, data in packed)))
    return head + b"".join(data for _, data in packed)


def bombs(parcel: Parcel) -> Iterator[tuple[str, bytes]]:
    """Yield parcels that would become more than they say, or cost more than they may."""
    plain = parcel.encoded + b"".join(
        FILES[path] for path in ("bin/demo", "demo/__init__.py", "demo/data.bin", "demo/run.sh")
    )
    said = parcel.announced
    yield "holds more than it says", crafted(len(parcel.encoded), [(said, plain + bytes(100_000_000))])
    yield "says more than its record", crafted(len(parcel.encoded), [(said + 1, plain + b"x")])
    yield "objects in another order", crafted(len(parcel.encoded), [(said, plain[::-1])])
    yield "tree longer than all", crafted(said + 1, [(said, plain)])
    yield "a window of 128 MiB", crafted(len(parcel.encoded), [(said, plain + bytes(1 << 20))], window=27)
    yield "no part", encode_head(ParcelHead(1, ()))
    many = tuple((1, 9) for _ in range(parcels._MOST_PARTS + 1))
    yield "too many parts", encode_head(ParcelHead(1, many))
    yield "a million parts", encode_head(ParcelHead(1, ((1, 9),) * 1_000_000))
    yield (
        "a head without end",
        encode_head(ParcelHead(1, ((1, 1),)))[:4] + b"\xff\xff\xff\x7f" + b"{" * 100_000,
    )
    yield (
        "a head that is deep",
        encode_head(ParcelHead(1, ((1, 1),)))[:4] + (60_000).to_bytes(4, "little") + b"[" * 60_000,
    )


def test_bombs_are_refused(parcel: Parcel) -> None:
    """Before more is made of them than was announced."""
    for name, data in bombs(parcel):
        sink = Kept()
        with pytest.raises(Corrupt):
            parcel.cut(data, sink=sink)
        assert sum(map(len, sink.whole.values())) <= parcel.announced, name


def test_a_signed_tree_with_an_unsafe_name_is_refused(tmp_path: Path) -> None:
    """The signature says who made it, not that it is sane."""
    for path in ("../out", "a/../../b", "a\0b"):
        bad = Parcel(tmp_path, {})
        bad.tree = make_tree("demo", "1.0", [Entry(path, "file", digest(b"x"), size=1)])
        bad.encoded = encode_tree(bad.tree)
        bad.announced = len(bad.encoded) + 1
        (tmp_path / digest(b"x")).write_bytes(b"x")
        with pytest.raises(Corrupt):
            bad.cut(bad.written())


sizes = st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=40)


@given(sizes, st.integers(1, 10**12))
def test_heads_survive(parts: list[tuple[int, int]], manifest: int) -> None:
    """What is written is read, with anything behind it."""
    head = ParcelHead(min(manifest, sum(plain for plain, _ in parts)), tuple(parts))
    data = encode_head(head)
    assert read_head(data + b"rest") == (head, len(data))


@given(st.lists(st.integers(1, 1 << 30), max_size=40), st.integers(1, 4))
def test_shares_are_about_as_large_as_each_other(sizes: list[int], most: int) -> None:
    """Each tree is in one of them, those of each in their order; and what is small is one share."""
    trees = [(f"{number:02}", size) for number, size in enumerate(sorted(sizes, reverse=True))]
    shares = shared_out(trees, most)
    assert sorted(tree for share in shares for tree in share) == trees
    assert all(share == sorted(share) for share in shares)
    if sum(sizes) < most * parcels._SHARE:
        assert shares == [trees]
    else:
        totals = [sum(size for _, size in share) for share in shares]
        assert max(totals) - (min(totals) if len(shares) == most else 0) <= max(sizes)
