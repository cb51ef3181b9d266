"""What our writer announces is what unpacking makes, and no change of an archive makes it do more."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from archives import FORMATS, Objects, make_venv, pack, read_venv
from contents import MEMORY
from forgery import Forgery, taken_apart
from hypothesis import given
from hypothesis import strategies as st
from tiers import tries

from venvflow import postinstall
from venvflow.disk.archive import inventory_of, unpack
from venvflow.disk.archive.contents import NEUTRAL
from venvflow.errors import EnvironmentFailure, Refused
from venvflow.model import Entry, Manifest, Slot
from venvflow.pure.manifest import make_tree


@contextmanager
def workplace() -> Iterator[Path]:
    """Give an empty directory of which nobody asks what was in it: hypothesis needs many."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as path:
        yield Path(path)


# --------------------------------------------------------------------------- what is right

_NAMES = st.sampled_from(["a", "b", "lib", "bin", "é", "x y", "\udcff", "n" * 120, "Z"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=4).map("/".join)
_SLOTS = st.lists(
    st.one_of(
        st.builds(
            Slot,
            st.integers(0, 30),
            st.sampled_from(postinstall.KINDS),
            st.sampled_from(sorted(postinstall.WRITERS)),
            st.just(""),
        ),
        st.builds(Slot, st.integers(0, 30), st.just("venv"), st.just("shebang"), st.just("bin/python -s")),
        st.builds(Slot, st.integers(0, 30), st.just("file"), st.just("record"), st.just("")),
    ),
    max_size=6,
)
_LINKS = st.one_of(
    st.tuples(st.sampled_from(["", "/lib", "/a/b"]), st.sampled_from(["venv", "project"])),
    st.tuples(st.just(""), st.just("python")),
    st.tuples(st.sampled_from(["a", "lib/x"]), st.just("")),
)
_THINGS = st.dictionaries(
    _PATHS,
    st.one_of(
        st.tuples(st.just("file"), st.binary(max_size=40)),
        st.tuples(st.just("template"), st.tuples(st.binary(max_size=30), _SLOTS)),
        st.tuples(st.just("link"), _LINKS),
        st.tuples(st.just("dir"), st.none()),
    ),
    max_size=12,
)


def _manifest(things: dict[str, tuple[str, Any]], objects: Objects) -> Manifest:
    """Return a manifest of what there may be together: nothing below a file, no two names but for case."""
    chosen: dict[str, tuple[str, Any]] = {}
    taken: set[str] = set()
    for path, thing in sorted(things.items()):
        folded = postinstall.folded(path)
        above = {folded[:end] for end in range(len(folded)) if folded[end] == "/"}
        if folded not in taken and not above & {postinstall.folded(each) for each in chosen}:
            chosen[path] = thing
            taken |= {folded, *above}
    plain = [
        path for path, (kind, about) in chosen.items() if kind == "template" and not _described(about[1])
    ]
    return Manifest((make_tree("x", "", [_entry(*each, plain, objects) for each in chosen.items()]),))


def _described(slots: list[Slot]) -> bool:
    return any(slot.form == "record" for slot in slots)


def _entry(path: str, thing: tuple[str, Any], plain: list[str], objects: Objects) -> Entry:
    kind, about = thing
    if kind == "file":
        return Entry(path, "file", objects.put(about), bool(len(about) % 2), len(about))
    if kind == "dir":
        return Entry(path, "dir")
    if kind == "link":
        target, place = about
        return Entry(path, "link", target=target, slots=(Slot(0, place, "raw"),) if place else ())
    data, slots = about
    fitting = []
    for slot in sorted(slot._replace(offset=min(slot.offset, len(data))) for slot in slots):
        if slot.form != "record":
            fitting.append(slot)
        elif plain:
            fitting.append(slot._replace(argument=plain[slot.offset % len(plain)]))
    return Entry(path, "template", objects.put(data), bool(len(data) % 2), len(data), "", tuple(fitting))


@given(_THINGS, st.sampled_from(["tar", "tar.gz", "tar.zst"]), st.sampled_from(["", "root", "two/deep"]))
def test_what_is_announced_is_what_unpacking_makes(
    things: dict[str, tuple[str, Any]], name: str, arcroot: str
) -> None:
    """Every file, link, directory and byte, at any place: what the writer writes, the reader takes."""
    with workplace() as root:
        objects = Objects(root / "objects")
        written = pack(_manifest(things, objects), objects, root / f"a.{name}", arcroot=arcroot)
        place = root / "a rather long place" / "venv"
        extracted, report = unpack(written.path, str(place), sys.executable, project="/project")
        announced = extracted.pack
        assert announced is not None
        venv = Path(extracted.root)
        counts = {"dir": 0, "file": 0, "link": 0}
        sizes = {}
        for path in venv.rglob("*"):
            kind = "link" if path.is_symlink() else "dir" if path.is_dir() else "file"
            counts[kind] += 1
            if kind == "file":
                sizes[os.path.relpath(path, venv)] = path.lstat().st_size
        said = announced.announced
        assert counts == {
            "dir": said.directories + 1,  # the one that the announcement lies in, and the announcement
            "file": said.files + 1,
            "link": said.links + len(announced.links),
        }
        places = postinstall.Places(str(venv), "/project", report.python)
        here = postinstall.filled_sizes(announced.lengths, places)
        neutral = postinstall.filled_sizes(announced.lengths, postinstall.Places(*NEUTRAL))
        assert {path: sizes[path] for path in here} == here
        own = sizes.pop(f"{postinstall.METADATA}/pack.json")
        assert written.content_size == said.bytes + own
        assert sum(sizes.values()) - sum(here.values()) == said.bytes - sum(neutral.values())


# --------------------------------------------------------------------------- what is changed


def _real_archives(root: Path) -> dict[str, bytes]:
    objects = Objects(root / "objects")
    manifest = read_venv(make_venv(root / "venv"), objects)
    for name in FORMATS:
        pack(manifest, objects, root / f"a.{name}")
    return {name: (root / f"a.{name}").read_bytes() for name in FORMATS}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return a small archive of every format."""
    return _real_archives(tmp_path_factory.mktemp("mutations"))


_ODD: list[Any] = [
    None, True, False, -1, 0, 1, 7, 1 << 62, 10**25, 0.5, "", "x", "../x", "/x", "lib", "a\0b", "\ud800",
    "\udcff", "venv", "raw", "record", "shebang", [], {}, [[]], [0, "venv", "raw", ""],
    {"a": []}, "\x1b[2J", "lib64/x",
]  # fmt: skip


def _spots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container in a document with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _spots(value[key])


def _mutate(document: Any, chance: random.Random) -> None:
    """Change one thing in a document."""
    container, key = chance.choice(list(_spots(document)))
    how = chance.randrange(5)
    if how == 0:
        del container[key]
    elif how == 1 and isinstance(container, list):
        container.insert(key, deepcopy(container[key]))
    elif how == 2 and type(container[key]) is int:
        container[key] += chance.choice([-1, 1, 1 << 40])
    elif how == 3:
        other, place = chance.choice(list(_spots(document)))
        container[key] = deepcopy(other[place])
    else:
        container[key] = deepcopy(chance.choice(_ODD))


def _changed_document(forged: Forgery, chance: random.Random) -> None:
    (_, document), *_ = [
        (name, json.loads(part.data)) for name, part in forged.members() if "pack.json" in name
    ]
    for _ in range(chance.choice([1, 1, 2, 4])):
        _mutate(document, chance)
    forged.raw_document = json.dumps(document).encode()


@given(st.randoms(use_true_random=False))
def test_a_changed_document_is_decoded_or_refused(archives: dict[str, bytes], chance: random.Random) -> None:
    """One of our own errors, whatever stands there; and what is decoded can be counted."""
    forged = taken_apart(archives["tar"])
    _changed_document(forged, chance)
    assert forged.raw_document is not None
    with suppress(postinstall.InvalidPack):
        decoded = postinstall.decode(forged.raw_document)
        postinstall.filled_sizes(decoded.lengths, postinstall.Places("/v", "/p", "/bin/python"))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    """Those that are no document at all."""
    with pytest.raises(postinstall.InvalidPack):
        postinstall.decode(data)


def _unpacked(root: Path, archive: Path) -> bool:
    """Unpack it with a canary beside; return whether it could be. Only our own errors are let through."""
    (root / "precious.txt").write_text("alive", encoding="utf-8")
    before = set(os.listdir(root))
    with suppress(Refused, EnvironmentFailure):
        inventory_of(str(archive))
    try:
        unpack(str(archive), str(root / "box/venv"), sys.executable)
    except (Refused, EnvironmentFailure):
        assert set(os.listdir(root)) == before
        return False
    assert set(os.listdir(root)) == before | {"box"}
    assert os.listdir(root / "box") == ["venv"]
    assert (root / "precious.txt").read_text(encoding="utf-8") == "alive"
    for path in (root / "box/venv").rglob("*"):
        real = os.path.realpath(path)
        assert real.startswith(str(root / "box")) or path.is_symlink(), path
    shutil.rmtree(root / "box")
    return True


def _completed(root: Path, archive: Path) -> None:
    """Let tar unpack it, and what is in it complete it: whatever there is beside stays as it is."""
    (root / "outside").mkdir(exist_ok=True)
    (root / "alone").mkdir()
    words = ["tar", "-x", "-f", str(archive), "-C", str(root / "alone")]
    subprocess.run(words, check=False, capture_output=True)
    before = {name for name in os.listdir(root) if name != "alone"}
    with suppress(postinstall.Problem):
        postinstall.complete(str(root / "alone"), project=str(root / "outside"), python=sys.executable)
    assert {name for name in os.listdir(root) if name != "alone"} == before
    assert os.listdir(root / "outside") == []
    assert (root / "precious.txt").read_text(encoding="utf-8") == "alive"
    shutil.rmtree(root / "alone")


def _with_changed_document(archives: dict[str, bytes], chance: random.Random, root: Path) -> Path:
    forged = taken_apart(archives["tar"])
    _changed_document(forged, chance)
    return Path(forged.write(root / f"a.{chance.choice(['tar', 'zip'])}"))


def _with_changed_bytes(archives: dict[str, bytes], chance: random.Random, root: Path) -> Path:
    name = chance.choice(FORMATS)
    data = bytearray(archives[name])
    for _ in range(chance.choice([1, 1, 3])):
        start = chance.randrange(len(data))
        end = min(len(data), start + chance.choice([1, 4, 512]))
        how = chance.randrange(4)
        if how == 0:
            data[start] ^= 1 << chance.randrange(8)
        elif how == 1:
            del data[start:end]
        elif how == 2:
            data[start:start] = data[start:end]
        else:
            data[start:end] = chance.randbytes(end - start)
    path = root / f"a.{name}"
    path.write_bytes(data)
    return path


def _with_changed_members(archives: dict[str, bytes], chance: random.Random, root: Path) -> Path:
    forged = taken_apart(archives["tar"])
    for _ in range(chance.choice([1, 2])):
        names = list(forged.parts)
        one, other = chance.choice(names), chance.choice(names)
        how = chance.randrange(4)
        if how == 0:
            del forged.parts[one]
        elif how == 1:
            forged.parts[f"{other}/{chance.choice(['x', '..', '.vf-1-1', ''])}"] = forged.parts[one]
        elif how == 2:
            target = chance.choice(["..", "/etc", other, "../outside", ""])
            forged.parts[one] = forged.parts[one]._replace(kind="link", data=b"", target=target)
        else:
            forged.parts[one], forged.parts[other] = forged.parts[other], forged.parts[one]
    return Path(forged.write(root / "a.tar"))


_WAYS = [_with_changed_document, _with_changed_bytes, _with_changed_members]


@pytest.mark.parametrize("way", _WAYS)
def test_a_changed_archive_is_unpacked_or_refused(
    way: Callable[..., Path], archives: dict[str, bytes], tmp_path: Path
) -> None:
    """Whole or not at all, in its directory and nowhere else."""
    chance = random.Random(way.__name__)
    outcomes = set()
    for _ in tries(30):
        archive = way(archives, chance, tmp_path)
        outcomes.add(_unpacked(tmp_path, archive))
        _completed(tmp_path, archive)
    assert False in outcomes


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", _WAYS)
def test_many_changed_archives_are_unpacked_or_refused(
    way: Callable[..., Path], archives: dict[str, bytes]
) -> None:
    """The same five hundred times, with another chance on each run: its seed is in the error."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    with workplace() as root:
        for number in range(500):
            for path in root.glob("a.*"):
                path.unlink()
            archive = way(archives, chance, root)
            try:
                _unpacked(root, archive)
                _completed(root, archive)
            except BaseException as error:
                raise AssertionError(f"archive {number} of seed {seed}") from error
