"""A venv in several archives: what is in which, what stays the same file, and what belongs together."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from archives import DESCRIPTION, FORMATS, Objects, contents, make_venv, pack, read_venv
from forgery import Forgery, Part, taken_apart
from pythons import SITE
from tiers import first_quick

from venvflow.disk.archive import (
    METADATA,
    Limits,
    Options,
    PartsWritten,
    extract,
    named_format,
    unpack,
    write_parts,
)
from venvflow.disk.archive import tar as headers
from venvflow.errors import Refused
from venvflow.model import Manifest, Tree
from venvflow.pure.names import part_name, set_name
from venvflow.pure.parts import layer_of, partition, with_rest

LAYERS = (("pkg1", "PKG.3*"), ("nothing-*",), ("*",))


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Objects]:
    """Return a venv of three distributions as a manifest, with its objects."""
    root = tmp_path_factory.mktemp("parts")
    objects = Objects(root / "objects")
    return read_venv(make_venv(root / "venv"), objects), objects


def pack_parts(
    venv: tuple[Manifest, Objects], place: Path, name: str = "tar", *, keep: bool = True, arcroot: str = ""
) -> PartsWritten:
    """Pack a venv in layers to *place*, each archive under the name of its layer and content."""
    manifest, objects = venv
    return write_parts(
        manifest,
        objects,
        LAYERS,
        lambda layer, content: str(place / f"v-{layer}-{content[:12]}.{name}"),
        Options(name, arcroot=arcroot),
        description=DESCRIPTION,
        keep=keep,
    )


def without_own(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Return what is in an archive without what it says of itself."""
    return {path: what for path, what in found.items() if not path.startswith(METADATA)}


# --------------------------------------------------------------------------- which goes where


def test_a_distribution_goes_with_the_first_layer_that_has_a_pattern_for_it(
    venv: tuple[Manifest, Objects],
) -> None:
    """Names are compared in their normal form; what no RECORD names goes with the last layer."""
    groups = partition(venv[0].trees, (("PKG2",), ("pkg[23]", "pkg1x"), ("pkg3",), ("*",)))
    assert [[tree.name for tree in group if tree.version] for group in groups] == [
        ["pkg2"],
        ["pkg3"],
        [],
        ["pkg1"],
    ]
    assert all(tree.version for group in groups[:-1] for tree in group)
    dotted = Tree("", "zope-interface", "1", ())
    assert layer_of(dotted, (("x", "Zope.*"), ("*",))) == layer_of(dotted, (("zope_interface",), ("*",))) == 0
    assert layer_of(Tree("", "zope-interface", "", ()), (("zope-*",), ("*",))) == 1


def test_the_last_layer_takes_what_is_left() -> None:
    """It need not be written down."""
    assert with_rest([["torch"]]) == (("torch",), ("*",)) == with_rest([["torch"], ["*"]])
    assert with_rest([["torch"], ["numpy", "*"]]) == (("torch",), ("numpy", "*"))


@pytest.mark.parametrize(
    ("name", "part", "whole"),
    [
        ("{venv}", "{venv}-{layer}-{digest}", "{venv}"),
        ("{layer}_{venv}", "{layer}_{venv}-{digest}", "{venv}"),
        ("{venv}.{digest}", "{venv}.{digest}", "{venv}"),
        ("heavy-{digest}-x", "heavy-{digest}-x", "heavy-x"),
        ("{digest}", "{digest}", "{venv}"),
    ],
)
def test_names_of_parts_and_of_the_set(name: str, part: str, whole: str) -> None:
    """A part's name holds its digest, the set's name nothing of one part."""
    assert (part_name(name), set_name(name)) == (part, whole)


# --------------------------------------------------------------------------- what is in them


@pytest.mark.parametrize("name", ["tar", "tar.zst", "zip"])
def test_the_parts_together_are_the_whole(name: str, venv: tuple[Manifest, Objects], tmp_path: Path) -> None:
    """Each path is in one of them, directories may be in several, scripts go with their distribution."""
    whole = pack(*venv, tmp_path / f"whole.{name}")
    written = pack_parts(venv, tmp_path, name)
    assert [part.layer for part in written.parts] == ["1", "3"]
    assert written.warnings == ("layer 2 takes nothing: there is no nothing-* in the venv",)
    heavy, last = (contents(Path(part.path)) for part in written.parts)
    assert "bin/pkg1" in heavy
    assert "bin/pkg2" in last
    assert {path for path in heavy.keys() & last.keys() if heavy[path][0] != "dir"} == set()
    assert without_own({**heavy, **last}) == without_own(contents(Path(whole.path)))
    # What tells of each lies under a name of its own, and what speaks for all in the last one.
    mark = f"{METADATA}/part-{written.parts[0].content}.json"
    assert [path for path in heavy if path.startswith(METADATA)] == [METADATA, mark]
    rows = json.loads(last[f"{METADATA}/pack.json"][1])["parts"]  # type: ignore[arg-type]
    assert [row[:4] for row in rows] == [
        ["1", written.parts[0].content, os.path.basename(written.parts[0].path), written.parts[0].sha256]
    ]


def test_parts_are_reproducible(venv: tuple[Manifest, Objects], tmp_path: Path) -> None:
    """And named by what is in them."""
    one, other = (pack_parts(venv, tmp_path / each, "tar.zst") for each in ("one", "other"))
    assert [part.sha256 for part in one.parts] == [part.sha256 for part in other.parts]
    for mine, theirs in zip(one.parts, other.parts, strict=True):
        assert Path(mine.path).read_bytes() == Path(theirs.path).read_bytes()
        for ending in (".json", ".sha256"):
            assert Path(mine.path + ending).read_bytes() == Path(theirs.path + ending).read_bytes()
    rooted = pack_parts(venv, tmp_path / "rooted", "tar.zst", arcroot="env")
    assert not {part.content for part in rooted.parts} & {part.content for part in one.parts}
    assert {path.split("/")[0] for part in rooted.parts for path in contents(Path(part.path))} == {"env"}


# --------------------------------------------------------------------------- after a change


def changed(venv: tuple[Manifest, Objects], root: Path) -> tuple[Manifest, Objects]:
    """Return the venv with another file in ``pkg2``, which the last layer takes."""
    place = make_venv(root / "changed")
    (place / SITE / "pkg2/data.bin").write_text("new\n")
    return read_venv(place, venv[1]), venv[1]


def test_a_change_elsewhere_leaves_a_part_the_same_file(
    venv: tuple[Manifest, Objects], tmp_path: Path
) -> None:
    """It is not written again, nor what stands beside it."""
    out = tmp_path / "out"
    before = pack_parts(venv, out)
    assert [part.kept for part in before.parts] == [False, False]
    looks = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    after = pack_parts(changed(venv, tmp_path), out)
    assert [part.kept for part in after.parts] == [True, False]
    assert after.parts[0].path == before.parts[0].path
    assert after.parts[1].path != before.parts[1].path
    assert {path: path.stat().st_mtime_ns for path in looks} == looks  # the old last one is still there, too
    again = pack_parts(venv, out)
    assert [part.kept for part in again.parts] == [True, True]
    assert pack_parts(venv, out, keep=False).parts[0].kept is False


@pytest.mark.parametrize("harm", ["content", "checksum", "description", "gone"])
def test_a_part_that_is_not_whole_is_written_again(
    harm: str, venv: tuple[Manifest, Objects], tmp_path: Path
) -> None:
    """What stands beside it tells."""
    heavy = Path(pack_parts(venv, tmp_path).parts[0].path)
    data = heavy.read_bytes()
    if harm == "content":
        heavy.write_bytes(data[:-1] + b"x")
    elif harm == "checksum":
        Path(f"{heavy}.sha256").write_text("0" * 64)
    elif harm == "description":
        Path(f"{heavy}.json").write_text("[]")
    else:
        heavy.unlink()
    assert [part.kept for part in pack_parts(venv, tmp_path).parts] == [False, True]
    assert heavy.read_bytes() == data


# --------------------------------------------------------------------------- unpacked by others


def unpacked_by_tar(parts: list[Path], target: Path) -> Path:
    """Unpack archives by tar, in their order."""
    target.mkdir()
    for part in parts:
        assert named_format(str(part)) == "tar"
        subprocess.run(["tar", "-xf", part, "-C", target], check=True)
    return target


def complete(target: Path) -> subprocess.CompletedProcess[str]:
    """Run the ``postinstall.py`` of what was unpacked."""
    words = [sys.executable, str(target / "postinstall.py"), "--python", sys.executable]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("order", [1, -1])
def test_any_order_will_do_for_tar(order: int, venv: tuple[Manifest, Objects], tmp_path: Path) -> None:
    """The scripts of each part work afterwards."""
    parts = [Path(part.path) for part in pack_parts(venv, tmp_path).parts]
    target = unpacked_by_tar(parts[::order], tmp_path / "target")
    done = complete(target)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("pkg1", "pkg2", "pkg3"):
        said = subprocess.run([target / "bin" / name], capture_output=True, text=True, check=True).stdout
        assert said == f"{name} runs\n"


def test_postinstall_names_the_part_that_is_missing(venv: tuple[Manifest, Objects], tmp_path: Path) -> None:
    """An older state of a part is not taken for it."""
    parts = [Path(part.path) for part in pack_parts(venv, tmp_path).parts]
    target = unpacked_by_tar([parts[1]], tmp_path / "target")
    done = complete(target)
    assert done.returncode == 4
    assert f"parts are missing. Unpack into the same directory: {parts[0].name} (layer 1)" in done.stderr
    shutil.copy(parts[0], tmp_path / "x.tar")
    subprocess.run(["tar", "-xf", parts[0], "-C", target], check=True)
    assert complete(target).returncode == 0


# --------------------------------------------------------------------------- unpacked by us


@pytest.mark.parametrize("name", first_quick(FORMATS, every=3))
@pytest.mark.parametrize("arcroot", ["", "env/deep"])
def test_unpack_takes_them_in_any_order(
    name: str, arcroot: str, venv: tuple[Manifest, Objects], tmp_path: Path
) -> None:
    """What it makes is what unpacking the whole makes."""
    whole = pack(*venv, tmp_path / f"whole.{name}", arcroot=arcroot)
    parts = [part.path for part in pack_parts(venv, tmp_path, name, arcroot=arcroot).parts]
    found = []
    for number, archives in enumerate(([whole.path], parts, parts[::-1])):
        target = tmp_path / f"{number}/target"
        target.parent.mkdir()
        extracted, report = unpack(archives, str(target), sys.executable)
        assert extracted.verified
        assert extracted.root == str(target / arcroot).rstrip("/")
        assert (report.place, len(report.linked)) == (extracted.root, 1)
        files = (path for path in Path(extracted.root).rglob("*") if METADATA not in path.parts)
        found.append(
            {
                str(path.relative_to(target)): path.read_bytes().replace(b"/%d/" % number, b"/N/")
                for path in files
                if path.is_file() and path.name != "RECORD"
            }
        )
    assert found[0] == found[1] == found[2]
    assert subprocess.run([Path(extracted.root) / "bin/pkg1"], check=True, capture_output=True).stdout


@contextmanager
def refused(tmp_path: Path, why: str) -> Iterator[None]:
    """Expect that what is unpacked is refused, for that reason, and that nothing is left of it."""
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*") if not path.is_dir()}
    with pytest.raises(Refused, match=why):
        yield
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*") if not path.is_dir()} == before
    assert not (tmp_path / "target").exists()


def test_what_does_not_belong_together_is_refused_by_name(
    venv: tuple[Manifest, Objects], tmp_path: Path
) -> None:
    """A part is missing, there twice, of another venv; none or two speak for all; one is a stranger."""
    one = [part.path for part in pack_parts(venv, tmp_path / "one").parts]
    other = [part.path for part in pack_parts(changed(venv, tmp_path), tmp_path / "other").parts]
    whole = pack(*venv, tmp_path / "whole.tar").path
    rooted = [part.path for part in pack_parts(venv, tmp_path / "rooted", arcroot="x").parts]
    copied = str(shutil.copy(one[0], tmp_path / "copied.tar"))
    subprocess.run(["tar", "-cf", tmp_path / "plain.tar", "-C", tmp_path / "one", "."], check=True)
    plain, target = str(tmp_path / "plain.tar"), str(tmp_path / "target")
    heavy = re.escape(os.path.basename(one[0]))
    for archives, why in (
        ([one[1]], f"is the last of 2 parts, without {heavy} .layer 1."),
        ([one[0]], "the last part is missing"),
        ([one[0], copied], "the last part is missing"),
        ([one[1], one[0], copied], f"{heavy} and .*copied.tar are the same part"),
        ([one[0], one[1], one[0]], f"{heavy} is named twice"),
        ([one[1], rooted[0]], "is not a part of the venv of"),
        ([*one, other[1]], "are not parts of one venv: each speaks for one of its own"),
        ([one[0], whole], f"{heavy} is not a part of the venv of .*whole.tar"),
        ([*one, plain], "plain.tar is not a part of a venv that venvflow packed"),
    ):
        with refused(tmp_path, why):
            unpack(archives, target, sys.executable)
    # The heavy part did not change, so it belongs to both.
    assert one[0] != other[0]
    assert Path(one[0]).read_bytes() == Path(other[0]).read_bytes()
    unpack([one[0], other[1]], target, sys.executable)
    assert (Path(target) / SITE / "pkg2/data.bin").read_text() == "new\n"


def test_extract_wants_all_parts_too(venv: tuple[Manifest, Objects], tmp_path: Path) -> None:
    """It takes one archive, so it takes no part that speaks for others."""
    last = pack_parts(venv, tmp_path).parts[-1].path
    with refused(tmp_path, "is the last of 2 parts"):
        extract(last, str(tmp_path / "target"))


# --------------------------------------------------------------------------- hostile ones


@dataclass
class ForgedSet:
    """The parts of a venv, taken apart: what the last one is made of, and all members of the other."""

    last: Forgery
    heavy: dict[str, Part]
    row: dict[str, Any] = field(default_factory=dict)

    def write(self, place: Path) -> list[str]:
        """Write both, with numbers and digests that are right but for what *row* says."""
        archive = place / "heavy.tar"
        out = []
        for name, part in self.heavy.items():
            if part.kind == "dir":
                out.append(headers.directory_header(name))
            elif part.kind == "link":
                out.append(headers.link_header(name, part.target))
            else:
                out += [headers.file_header(name, len(part.data), executable=part.executable), part.data]
                out.append(bytes(headers.padding(len(part.data))))
        archive.write_bytes(b"".join(out) + headers.END)
        kinds = [part.kind for part in self.heavy.values()]
        announced = {
            "bytes": sum(len(part.data) for part in self.heavy.values()),
            "entries": len(kinds),
            "directories": kinds.count("dir"),
            "files": kinds.count("file"),
            "links": kinds.count("link"),
        }
        ((layer, content, *_),) = self.last.document["parts"]
        right = {
            "layer": layer,
            "content": content,
            "archive": "heavy.tar",
            "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
            "announced": announced,
        }
        changed = {**right, **self.row}
        changed["announced"] = {**announced, **self.row.get("announced", {})}
        self.last.document["parts"] = [[*changed.values()]]
        return [str(archive), self.last.write(place / "last.tar")]


@pytest.fixture(scope="module")
def real(venv: tuple[Manifest, Objects], tmp_path_factory: pytest.TempPathFactory) -> ForgedSet:
    """Return a real set, taken apart."""
    place = tmp_path_factory.mktemp("real")
    heavy, last = (Path(part.path).read_bytes() for part in pack_parts(venv, place).parts)
    with tarfile.open(fileobj=io.BytesIO(heavy)) as members:
        found = {
            member.name: Part("dir")
            if member.isdir()
            else Part("file", content(members, member), executable=bool(member.mode & 0o100))
            for member in members
        }
    return ForgedSet(taken_apart(last), found)


def content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return the bytes of a file in a tar."""
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def test_the_forger_forges_well(real: ForgedSet, tmp_path: Path) -> None:
    """What is not changed is unpacked."""
    unpack(deepcopy(real).write(tmp_path), str(tmp_path / "target"), sys.executable)


HOSTILE: dict[str, tuple[Callable[[ForgedSet], object], str]] = {
    "a file that the last part has": (
        lambda it: it.heavy.update({"pyvenv.cfg": Part("file", b"evil")}), "is there twice",
    ),
    "a file where a link is to be made": (
        lambda it: it.heavy.update({"bin/python": Part("file", b"evil")}), "where a link is to be made",
    ),
    "a link where the other has a directory": (
        lambda it: (it.heavy.pop("share", None), it.heavy.update({"share": Part("link", target="lib")})),
        "is there twice, or lies where",
    ),
    "a link that the other writes through": (
        lambda it: (it.heavy.update({"lib/x": Part("link", target="../bin")}),
                    it.last.parts.update({"lib/x": Part("dir"), "lib/x/evil": Part("file", b"evil")})),
        "is there twice, or lies where",
    ),
    "a file that the other takes for a directory": (
        lambda it: (it.last.parts.update({"lib/x": Part("file", b"")}),
                    it.heavy.update({"lib/x": Part("dir"), "lib/x/evil": Part("file", b"evil")})),
        "is there twice|not a directory",
    ),
    "a link that leads out": (
        lambda it: it.heavy.update({"lib/x": Part("link", target="../../box")}), "may lead out",
    ),
    "a name that climbs": (
        lambda it: it.heavy.update({"../evil": Part("file", b"evil")}), "climbs",
    ),
    "a receipt": (
        lambda it: it.heavy.update({".venvflow.json": Part("file", b"{}")}), "only venvflow gives",
    ),
    "metadata of the other": (
        lambda it: it.heavy.update({f"{METADATA}/templates": Part("file", b"evil")}), "not its own to say",
    ),
    "the mark of another part": (
        lambda it: it.heavy.update({f"{METADATA}/part-{'0' * 64}.json": Part("file")}), "not its own to say",
    ),
    "a script in place of ours": (
        lambda it: it.heavy.update({"postinstall.py": Part("file", b"evil")}), "is there twice",
    ),
    "another file first": (
        lambda it: setattr(it, "heavy", {"evil": Part("file", b"evil"), **it.heavy}),
        "is not a part of a venv that venvflow packed",
    ),
    "a directory that does not come": (
        lambda it: it.heavy.update({"nowhere/evil": Part("file", b"evil")}), "does not come before it",
    ),
    "more than it announces": (
        lambda it: it.row.update({"announced": {"bytes": 5}}), "than it announces|that are allowed",
    ),
    "less than it announces": (
        lambda it: it.row.update({"announced": {"bytes": 1 << 20}}), "else than it announces",
    ),
    "more than anybody has": (
        lambda it: it.row.update({"announced": {"bytes": 1 << 61}}), "more than are allowed",
    ),
    "another archive": (
        lambda it: it.row.update({"sha256": "0" * 64}), "heavy.tar does not have the SHA-256",
    ),
    "an archive elsewhere": (
        lambda it: it.row.update({"archive": "../heavy.tar"}), "a part in",
    ),
    "an archive of no name": (
        lambda it: it.row.update({"content": "x"}), "a part without a SHA-256",
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_set_is_refused(attack: str, real: ForgedSet, tmp_path: Path) -> None:
    """Whatever one part does to the other, nothing is left."""
    forged = deepcopy(real)
    change, why = HOSTILE[attack]
    change(forged)
    archives = forged.write(tmp_path)
    for order in (archives, archives[::-1]):
        with refused(tmp_path, why):
            unpack(order, str(tmp_path / "target"), sys.executable)


def test_parts_are_counted_together(real: ForgedSet, tmp_path: Path) -> None:
    """Limits are those of the whole."""
    forged = deepcopy(real)
    archives = forged.write(tmp_path)
    sizes = [
        sum(len(part.data) for part in parts)
        for parts in (forged.heavy.values(), (part for _, part in forged.last.members()))
    ]
    size = max(sizes) + min(sizes) // 2
    with refused(tmp_path, "more than are allowed"):
        unpack(archives, str(tmp_path / "target"), sys.executable, limits=Limits(size=size))
