"""No archive, however made, writes outside its target or more than it may."""

from __future__ import annotations

import io
import os
import random
import stat
import struct
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from archives import (
    DESCRIPTION,
    FORMATS,
    NEEDS,
    TAR_FORMATS,
    Objects,
    Raw,
    add_odd_names,
    add_to_tar,
    compressed,
    contents,
    document,
    make_venv,
    pack,
    read_venv,
)
from contents import needs_proc, time_of
from pythons import SITE
from tiers import first_quick, tries

from venvflow import postinstall
from venvflow.disk import archive, descriptors, scratch
from venvflow.disk.archive import (
    METADATA,
    Limits,
    Options,
    extract,
    extraction,
    reading,
    unpack,
    write_archive,
)
from venvflow.disk.archive import tar as headers
from venvflow.disk.archive import zipfile as records
from venvflow.disk.archive.formats import Malformed
from venvflow.errors import EnvironmentFailure, Refused, VenvflowError
from venvflow.pure import relocate


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """Return an empty store of objects."""
    return Objects(tmp_path / "objects")


def _tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Return everything below *root*, like ``contents`` does for archives."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(root):
        for name in [*names, *files]:
            path = Path(directory, name)
            key = os.path.relpath(path, root)
            if path.is_symlink():
                found[key] = ("link", os.readlink(path))
            elif path.is_dir():
                found[key] = ("dir", path.stat().st_mode & 0o7777)
            else:
                found[key] = ("file", path.read_bytes(), path.stat().st_mode & 0o7777)
    return found


# --------------------------------------------------------------------------- what is right


@pytest.mark.parametrize("name", first_quick(FORMATS, every=2))
def test_what_was_packed_is_extracted(name: str, tmp_path: Path, objects: Objects) -> None:
    """Names, bytes, modes and links come out as other readers find them, with their times."""
    root = make_venv(tmp_path / "venv")
    add_odd_names(root)
    written = pack(read_venv(root, objects), objects, tmp_path / f"a.{name}")
    found = extract(written.path, str(tmp_path / "out"))
    assert _tree(tmp_path / "out") == contents(tmp_path / f"a.{name}")
    assert (found.entries, found.size) == (written.entries, written.content_size)
    assert found.verified
    assert found.pack is not None
    assert found.pack.description == DESCRIPTION
    assert all(p.stat().st_mtime_ns == time_of(p.read_bytes()) for p in (tmp_path / "out").rglob("*.py"))


def test_what_is_new_is_made_without_being_looked_for(
    tmp_path: Path, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call opens each directory and each file, as tar does: at first nothing is there."""
    pack(read_venv(make_venv(tmp_path / "venv"), objects), objects, tmp_path / "a.tar.zst")
    opened: list[str] = []
    real = os.open

    def noting(path: Any, *arguments: Any, **more: Any) -> int:
        if more.get("dir_fd") is not None:
            opened.append(path)
        return real(path, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", noting)
        extract(str(tmp_path / "a.tar.zst"), str(tmp_path / "out"))
    made = [path.name for path in (tmp_path / "out").rglob("*") if not path.is_symlink()]
    assert {name: opened.count(name) for name in made} == {name: made.count(name) for name in made}


def test_the_umask_is_respected(tmp_path: Path, objects: Objects) -> None:
    """Who keeps files private gets private files, and may still enter the directories."""
    pack(read_venv(make_venv(tmp_path / "venv"), objects), objects, tmp_path / "a.tar.zst")
    before = os.umask(0o077)
    try:
        extract(str(tmp_path / "a.tar.zst"), str(tmp_path / "out"))
    finally:
        os.umask(before)
    modes = {path.lstat().st_mode & 0o7777 for path in (tmp_path / "out").rglob("*") if not path.is_symlink()}
    assert modes == {0o700, 0o600}


@pytest.mark.parametrize("name", first_quick(FORMATS, every=2))
def test_an_arcroot_is_found_again(name: str, tmp_path: Path, objects: Objects) -> None:
    """With an arcroot the venv lies one directory deeper, and the answer says where."""
    manifest = read_venv(make_venv(tmp_path / "venv"), objects)
    pack(manifest, objects, tmp_path / f"a.{name}", arcroot="api-1")
    found = extract(str(tmp_path / f"a.{name}"), str(tmp_path / "out"))
    assert found.root == str(tmp_path / "out/api-1")
    assert (tmp_path / "out/api-1/pyvenv.cfg").is_file()


def test_an_empty_directory_may_be_there(tmp_path: Path, objects: Objects) -> None:
    """An empty directory is replaced; one with something in it, a file or a link is in the way."""
    pack(read_venv(make_venv(tmp_path / "venv"), objects), objects, tmp_path / "a.tar.zst")
    (tmp_path / "empty").mkdir()
    extract(str(tmp_path / "a.tar.zst"), str(tmp_path / "empty"))
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_text("mine")
    for taken in ("empty", "link", "file"):
        with pytest.raises(Refused, match="not an empty directory"):
            extract(str(tmp_path / "a.tar.zst"), str(tmp_path / taken))
    assert (tmp_path / "file").read_text() == "mine"


def test_archives_of_other_tools_can_be_extracted(tmp_path: Path) -> None:
    """A plain tar of somebody else's, with implied directories and odd modes, is fine when it is harmless."""
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as out:
        add_to_tar(out, "a/b/c.txt", b"content", mode=0o6777)
        add_to_tar(out, "locked/x", b"y", mode=0)
        closed = tarfile.TarInfo("closed")
        closed.type, closed.mode = tarfile.DIRTYPE, 0
        out.addfile(closed)
        add_to_tar(out, "closed/in", b"z")
    found = extract(str(tmp_path / "a.tar"), str(tmp_path / "out"))
    assert (found.pack, found.verified, found.entries) == (None, False, 4)
    assert stat.S_IMODE((tmp_path / "out/a/b/c.txt").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "out/locked/x").stat().st_mode) == 0o644
    assert (tmp_path / "out/closed/in").read_bytes() == b"z"
    with pytest.raises(Refused, match="not written by venvflow"):
        unpack(str(tmp_path / "a.tar"), str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


# --------------------------------------------------------------------------- the hostile corpus


def _lexically_inside(raw: Raw) -> None:
    raw.file("a/b/c/x")
    raw.link("a/b/c/s", "../../..")
    raw.link("e", "a/b/c/s/..")
    raw.file("z")


def _through_link(raw: Raw) -> None:
    raw.link("d", "../outside")
    raw.file("d/pwned")


def _through_inner_link(raw: Raw) -> None:
    raw.file("real/x")
    raw.link("d", "real")
    raw.file("d/pwned")


def _link_then_file(raw: Raw) -> None:
    raw.link("x", "y")
    raw.file("x")


def _file_then_below(raw: Raw) -> None:
    raw.file("x")
    raw.file("x/pwned")


def _twice(raw: Raw) -> None:
    raw.file("x")
    raw.file("x")


def _case(raw: Raw) -> None:
    raw.file("Lib/x")
    raw.file("lib/y")


def _unicode(raw: Raw) -> None:
    raw.file(unicodedata.normalize("NFC", "é"))
    raw.file(unicodedata.normalize("NFD", "é"))


def _deep(raw: Raw) -> None:
    raw.file("/".join(["d"] * 300))


HOSTILE: dict[str, tuple[Callable[[Raw], None], str]] = {
    "climbs": (lambda raw: raw.file("../pwned"), "climbs"),
    "climbs later": (lambda raw: raw.file("a/../../pwned"), "climbs"),
    "absolute": (lambda raw: raw.file("/tmp/pwned"), "absolute"),  # noqa: S108
    "empty part": (lambda raw: raw.file("a//b"), "empty part"),
    "dot": (lambda raw: raw.file("./b"), "empty part"),
    "long name": (lambda raw: raw.file("x" * 300), "cannot hold"),
    "deep": (_deep, "too deep"),
    "absolute link": (lambda raw: raw.link("x", "/etc/passwd"), "lead out"),
    "climbing link": (lambda raw: raw.link("a/x", "../../outside"), "lead out"),
    "link in the middle": (lambda raw: raw.link("x", "a/../../outside"), "lead out"),
    "link to nothing": (lambda raw: raw.link("x", ""), "lead out|content"),
    "lexically inside": (_lexically_inside, "lead out"),
    "file through link": (_through_link, "lead out"),
    "file through inner link": (_through_inner_link, "twice, or lies|not a directory"),
    "file over link": (_link_then_file, "twice"),
    "file below file": (_file_then_below, "not a directory"),
    "character device": (lambda raw: raw.other("x", tarfile.CHRTYPE), "device"),
    "block device": (lambda raw: raw.other("x", tarfile.BLKTYPE), "device"),
    "fifo": (lambda raw: raw.other("x", tarfile.FIFOTYPE), "FIFO"),
    "hard link": (lambda raw: raw.other("x", tarfile.LNKTYPE, "/etc/passwd"), "hard link|device"),
    "twice": (_twice, "twice"),
}


@contextmanager
def _nothing_happens_outside(tmp_path: Path) -> Iterator[None]:
    """Assert that the directory around the target is the same afterwards."""
    (tmp_path / "outside").mkdir(exist_ok=True)
    (tmp_path / "outside/canary").write_text("alive")
    before = _tree(tmp_path)
    yield
    assert _tree(tmp_path) == before


@pytest.mark.parametrize("name", first_quick(FORMATS, every=3))
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused(case: str, name: str, tmp_path: Path) -> None:
    """The entry is named, and nothing is written: neither outside nor in the target."""
    attack, why = HOSTILE[case]
    raw = Raw(name)
    attack(raw)
    raw.write(tmp_path / f"evil.{name}")
    with _nothing_happens_outside(tmp_path), pytest.raises(Refused, match=why) as caught:
        extract(str(tmp_path / f"evil.{name}"), str(tmp_path / "target"))
    assert " holds " in caught.value.what


@pytest.mark.parametrize("name", first_quick(FORMATS, every=2))
def test_harmless_looking_neighbours_of_attacks_are_extracted(name: str, tmp_path: Path) -> None:
    """The rules do not refuse what is safe: links to links, upwards as far as the root, dangling ones."""
    raw = Raw(name)
    raw.file("a/b/c/x")
    raw.link("a/b/c/up", "../../..")
    raw.link("e", "a/b/c/up/a")
    raw.link("dangling", "nowhere/at/all")
    raw.link("loop", "loop")
    raw.file("..a/b..")
    raw.write(tmp_path / f"a.{name}")
    extract(str(tmp_path / f"a.{name}"), str(tmp_path / "target"))
    assert (tmp_path / "target/e/b/c/x").read_bytes() == b"evil"


@pytest.mark.parametrize("name", first_quick(FORMATS, every=2))
def test_names_with_a_nul_are_refused(name: str, tmp_path: Path) -> None:
    """A NUL would end the name for some readers and not for others."""
    path = tmp_path / f"evil.{name}"
    if name == "zip":
        record = records.Record(b"a\0b", stat.S_IFREG | 0o644, records.STORED, 0, 0, 0)
        line = records.directory_record(record)
        local = records.local_header(record)
        path.write_bytes(local + line + records.end_records(1, len(line), len(local)))
    else:
        pax = b"12 path=a\0b\n"
        data = headers._block(b"x", headers.PAX, b"0000644\0", len(pax)) + pax.ljust(512, b"\0")
        path.write_bytes(compressed(name, data + headers.file_header("z", 0, executable=False) + headers.END))
    with _nothing_happens_outside(tmp_path), pytest.raises(Refused, match="NUL"):
        extract(str(path), str(tmp_path / "target"))


@pytest.mark.parametrize("pair", [_case, _unicode])
def test_names_that_are_nearly_the_same_are_two_where_the_file_system_tells_them_apart(
    pair: Callable[[Raw], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is tried, where it is unpacked; where it does not, the second one is refused."""
    raw = Raw("tar")
    pair(raw)
    raw.write(tmp_path / "a.tar")
    extract(str(tmp_path / "a.tar"), str(tmp_path / "target"))
    assert len(os.listdir(tmp_path / "target")) == 2
    kind_of = postinstall.kind_of

    def folding(name: str, directory: int) -> os.stat_result | None:
        """Answer as a file system does that takes them for the same."""
        same = {postinstall.folded(each): each for each in os.listdir(directory)}
        return kind_of(same.get(postinstall.folded(name), name), directory)

    monkeypatch.setattr(postinstall, "kind_of", folding)
    with _nothing_happens_outside(tmp_path), pytest.raises(Refused, match="this file system takes for"):
        extract(str(tmp_path / "a.tar"), str(tmp_path / "other"))


def test_paths_are_told_apart_by_any_of_their_names(tmp_path: Path) -> None:
    """Names of any length are tried, and nothing of that is left."""
    with descriptors.directory(str(tmp_path)) as fd:
        assert extraction.tells_apart(fd, "x" * 250 + "A", "x" * 250 + "a")
        assert extraction.tells_apart(fd, "same/Lib/x", "same/lib/X")
        assert not extraction.tells_apart(fd, "same", "same")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "extra",
    [
        {"GNU.sparse.major": "1"},
        {"GNU.sparse.name": "../x"},
        {"SCHILY.xattr.user.x": "y"},
        {"size": "99999999999999999999999"},
        {"size": "-1"},
    ],
)
def test_pax_records_that_change_the_meaning_are_refused(extra: dict[str, str], tmp_path: Path) -> None:
    """Sparse files, attributes and impossible sizes mean different things to different readers."""
    info = tarfile.TarInfo("x")
    info.pax_headers = extra
    data = info.create_pax_header(info.get_info(), "utf-8") + headers.END
    (tmp_path / "a.tar").write_bytes(data)
    with _nothing_happens_outside(tmp_path), pytest.raises(Refused, match="damaged"):
        extract(str(tmp_path / "a.tar"), str(tmp_path / "target"))


def test_global_headers_and_old_formats_are_refused(tmp_path: Path) -> None:
    """A global header would change members that it does not stand with; GNU names are not what we write."""
    for number, kind in enumerate((b"g", b"L", b"S", b"7")):
        block = headers._block(b"x", kind, b"0000644\0", 0)
        (tmp_path / f"{number}.tar").write_bytes(block + headers.END)
        with pytest.raises(Refused, match="holds x, which"):
            extract(str(tmp_path / f"{number}.tar"), str(tmp_path / "target"))


# --------------------------------------------------------------------------- too much


@pytest.mark.parametrize("name", first_quick(FORMATS, every=2))
def test_a_bomb_is_refused_while_it_unfolds(name: str, tmp_path: Path) -> None:
    """More bytes or entries than are allowed are refused, and what was written until then is removed."""
    raw = Raw(name)
    for number in range(6):
        raw.file(f"zeros{number}", bytes(1 << 20))
    raw.write(tmp_path / f"evil.{name}")
    for limits in (Limits(size=5 << 20), Limits(entries=3)):
        with _nothing_happens_outside(tmp_path), pytest.raises(Refused, match="allowed"):
            extract(str(tmp_path / f"evil.{name}"), str(tmp_path / "target"), limits=limits)


@pytest.mark.parametrize("name", first_quick(FORMATS, every=2))
def test_what_does_not_fit_ends_before_the_disk_is_full(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an archive that announces nothing, what unfolds is counted against what is free."""
    raw = Raw(name)
    for number in range(3):
        raw.file(f"zeros{number}", bytes(1 << 10))
    raw.write(tmp_path / f"a.{name}")
    space = SimpleNamespace(f_bavail=2, f_frsize=1 << 10)
    monkeypatch.setattr(os, "fstatvfs", lambda _: space)
    with _nothing_happens_outside(tmp_path), pytest.raises(EnvironmentFailure, match="more than 2048 bytes"):
        extract(str(tmp_path / f"a.{name}"), str(tmp_path / "target"))


@pytest.mark.parametrize("name", first_quick(FORMATS, every=2))
@pytest.mark.parametrize(("entries", "size"), [(2, 1000), (5, 3), (3, 4), (1, 1), (4, 4)])
def test_an_archive_holds_what_it_announces(name: str, entries: int, size: int, tmp_path: Path) -> None:
    """An archive that announces itself must hold exactly that: not more, and not less."""
    raw = Raw(name)
    announced = {"entries": entries, "bytes": size, "directories": 0, "files": entries, "links": 0}
    raw.file(f"{METADATA}/pack.json", document(announced=announced))
    raw.file(f"{METADATA}/templates", b"")
    raw.file("a")
    raw.file("b", b"")
    raw.write(tmp_path / f"a.{name}")
    if (entries, size) == (3, 4):
        extract(str(tmp_path / f"a.{name}"), str(tmp_path / "target"))
        return
    why = "are allowed" if entries < 3 or size < 4 else "else than it announces"
    with _nothing_happens_outside(tmp_path), pytest.raises(Refused, match=why):
        extract(str(tmp_path / f"a.{name}"), str(tmp_path / "target"))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b'{"announced": 1}', b'{"announced": {"entries": "1"}}', b"[" * 9999]
)
def test_an_announcement_that_cannot_be_read_is_refused(data: bytes, tmp_path: Path) -> None:
    """Metadata is as untrusted as everything else."""
    raw = Raw("tar")
    raw.file(f"{METADATA}/pack.json", data)
    raw.write(tmp_path / "a.tar")
    with _nothing_happens_outside(tmp_path), pytest.raises(Refused, match=r"pack\.json"):
        extract(str(tmp_path / "a.tar"), str(tmp_path / "target"))


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path: Path) -> None:
    """The content must be as long as the directory says, and have its checksum."""
    data = b"x" * 5000
    for field, value in (("size", 10), ("size", 6000), ("crc", 1)):
        raw = Raw("zip")
        assert raw.zip is not None
        raw.file("x", data)
        setattr(raw.zip.filelist[0], "file_size" if field == "size" else "CRC", value)
        raw.write(tmp_path / "a.zip")
        with _nothing_happens_outside(tmp_path), pytest.raises(Refused, match="not what was packed"):
            extract(str(tmp_path / "a.zip"), str(tmp_path / "target"))


# --------------------------------------------------------------------------- damaged


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a small archive of every format, without checksums beside them."""
    root = tmp_path_factory.mktemp("small")
    objects = Objects(root / "objects")
    manifest = read_venv(make_venv(root / "venv"), objects)
    for name in FORMATS:
        pack(manifest, objects, root / f"a.{name}")
        os.unlink(root / f"a.{name}.sha256")
    return root


@pytest.mark.parametrize("name", first_quick(FORMATS, every=2))
def test_a_truncated_archive_is_refused(name: str, small: Path, tmp_path: Path) -> None:
    """Wherever it was cut off, even at the end of a frame or block, that is noticed."""
    data = (small / f"a.{name}").read_bytes()
    cuts = [0, 1, 511, 512, len(data) // 3, len(data) // 2, len(data) - 600, len(data) - 20, len(data) - 1]
    for cut in cuts:
        (tmp_path / f"a.{name}").write_bytes(data[:cut])
        with _nothing_happens_outside(tmp_path), pytest.raises(Refused):
            extract(str(tmp_path / f"a.{name}"), str(tmp_path / "target"))


@pytest.mark.parametrize("name", first_quick(FORMATS, every=2))
def test_the_checksum_beside_an_archive_is_compared(
    name: str, small: Path, tmp_path: Path, objects: Objects
) -> None:
    """One changed bit is refused before anything is visible, and so is another archive than expected."""
    written = pack(read_venv(make_venv(tmp_path / "venv"), objects), objects, tmp_path / f"a.{name}")
    with pytest.raises(Refused):
        extract(written.path, str(tmp_path / "target"), expected="0" * 64)
    data = bytearray((tmp_path / f"a.{name}").read_bytes())
    data[-1] ^= 1
    (tmp_path / f"a.{name}").write_bytes(data)
    with pytest.raises(Refused):
        extract(written.path, str(tmp_path / "target"))
    (tmp_path / f"a.{name}.sha256").write_text("nothing of use")
    with pytest.raises(Refused):
        extract(written.path, str(tmp_path / "target"))
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("name", first_quick(FORMATS, every=2))
def test_flipped_bits_never_do_harm(name: str, small: Path, tmp_path: Path) -> None:
    """Whatever is damaged, the answer is an error of ours or a directory, and nothing happens elsewhere."""
    rng = random.Random(name)
    data = (small / f"a.{name}").read_bytes()
    if name == "tar":
        data = compressed("tar", data)[: 40 * 512] + headers.END
    path = tmp_path / f"a.{name}"
    refused = 0
    for number in tries(60):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 4))):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        target = tmp_path / f"t{number}"
        try:
            extract(str(path), str(target))
        except VenvflowError:
            refused += 1
            assert not target.exists()
    left = {entry for entry in os.listdir(tmp_path) if not entry.startswith("t")}
    assert left == {f"a.{name}"}
    assert refused


@pytest.mark.parametrize("name", TAR_FORMATS)
def test_hostile_headers_never_do_harm(name: str, tmp_path: Path) -> None:
    """Headers with right checksums and random fields are refused or harmless, inside every compression."""
    rng = random.Random(name)
    for number in range(60):
        out = b""
        for _ in range(4):
            kind = rng.choice([b"0", b"1", b"2", b"5", b"x", b"g", b"\0"])
            parts = rng.choices(["..", ".", "a", "b", "", "x" * 101, "é"], k=rng.randint(1, 4))
            body = rng.choice([b"", b"12 path=a/b\n", b"16 path=../../x\n", b"20 linkpath=../../x\n"])
            body = body if kind == b"x" else b""
            block = headers._block(
                "/".join(parts).encode()[:100],
                kind,
                b"%07o\0" % rng.randrange(0o10000),
                len(body),
                link="/".join(parts).encode()[:100],
            )
            out += block + body + bytes(-len(body) % 512)
        path = tmp_path / f"a.{name}"
        path.write_bytes(compressed(name, out + headers.END))
        with _nothing_happens_outside_but(tmp_path, f"t{number}"):
            extract(str(path), str(tmp_path / f"t{number}"))


@contextmanager
def _nothing_happens_outside_but(tmp_path: Path, target: str) -> Iterator[None]:
    before = set(os.listdir(tmp_path)) | {target}
    try:
        yield
    except VenvflowError:
        before -= {target}
    assert set(os.listdir(tmp_path)) == before
    for path in (tmp_path / target).rglob("*"):
        assert os.path.realpath(path).startswith(str(tmp_path / target))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    """Text, an empty file, a missing file and a directory are told apart from archives."""
    (tmp_path / "text").write_text("hello" * 300)
    with pytest.raises(Refused, match="damaged"):
        extract(str(tmp_path / "text"), str(tmp_path / "target"))
    for missing in ("gone", "."):
        with pytest.raises(EnvironmentFailure):
            extract(str(tmp_path / missing), str(tmp_path / "target"))
    assert os.listdir(tmp_path) == ["text"]


# --------------------------------------------------------------------------- zip and tar by themselves


def test_zip64_records_are_written_where_numbers_need_them() -> None:
    """Sizes, offsets and counts beyond the old limits come back, from us and from the standard library."""
    mode = stat.S_IFREG | 0o644
    large = records.Record(b"x", mode, records.DEFLATED, 7, 5 << 30, 9 << 30, 6 << 30)
    lines = [large._replace(name=b"n%d" % number, offset=number) for number in range(3)]
    lines.append(large)
    body = b"".join(map(records.directory_record, lines))
    data = io.BytesIO(body + records.end_records(len(lines), len(body), 0))
    assert list(records.read_directory(data, 10)) == lines
    local = records.local_header(large)
    extra = struct.unpack_from("<HHQQ", local, 31)
    assert extra == (1, 16, 9 << 30, 5 << 30)


@pytest.mark.slow
def test_a_zip_may_have_more_entries_than_the_old_limit() -> None:
    """70,000 entries are counted right by the standard library and by us, and refused beyond the limit."""
    record = records.Record(b"", stat.S_IFDIR | 0o755, records.STORED, 0, 0, 0)
    body = b"".join(records.directory_record(record._replace(name=b"%d/" % n)) for n in range(70_000))
    data = io.BytesIO(body + records.end_records(70_000, len(body), 0))
    assert len(zipfile.ZipFile(data).namelist()) == 70_000
    assert sum(1 for _ in records.read_directory(data, 70_000)) == 70_000
    with pytest.raises(Malformed, match="70000 entries"):
        next(records.read_directory(data, 69_999))


@pytest.mark.parametrize("length", [1, 99, 100, 101, 155, 200, 255, 256, 257, 300])
@pytest.mark.parametrize("cut", [1, 50, 99, 100, 101, 154])
def test_every_length_of_name_comes_back(length: int, cut: int) -> None:
    """Names are written plainly, split or as PAX, and read the same by us and the standard library."""
    name = "d" * cut + "/" + "f" * length
    data = headers.file_header(name, 0, executable=False) + headers.END
    with tarfile.open(fileobj=io.BytesIO(data)) as out:
        assert out.getnames() == [name]
    header = headers.parse_header(data[-1536:-1024])
    assert len(data) == 1536 or length > 100 or cut > 155 or len(name) > 256
    if len(data) == 1536:
        assert header.name.decode() == name


@pytest.mark.parametrize("length", range(80, 110))
def test_pax_records_count_their_own_length(length: int) -> None:
    """A record whose length gains a digit by its own digits is read back whole."""
    name = "é" + "x" * length
    data = headers.file_header(name, 0, executable=False) + headers.END
    with tarfile.open(fileobj=io.BytesIO(data)) as out:
        assert out.getnames() == [name]


def test_a_file_is_only_ever_created(tmp_path: Path) -> None:
    """A file that appears in the target while we extract is not written to."""
    fd = os.open(tmp_path, os.O_RDONLY)
    target = extraction._Target("a.tar", fd, Limits(), str(tmp_path))
    os.close(fd)
    (tmp_path / "x").write_text("mine")
    with pytest.raises(Refused, match="twice, or lies"):
        target.add(reading.Item("x", "file", 4, False, "", iter([b"evil"]), 0))
    target.close()
    assert (tmp_path / "x").read_text() == "mine"


def test_a_member_of_a_zip_never_gives_more_than_it_says() -> None:
    """Content that unfolds to more than announced is stopped there, not after it was written."""
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packed.compress(bytes(50 << 20)) + packed.flush()
    record = records.Record(b"x", stat.S_IFREG, records.DEFLATED, 0, len(body), 10)
    parts = reading._zip_parts(io.BytesIO(records.local_header(record) + body), record)
    with pytest.raises(Malformed, match="not what was packed"):
        next(parts)


def test_files_of_eight_gigabytes_have_their_size_in_a_pax_header() -> None:
    """The old field ends there; one byte less still fits."""
    for size in ((1 << 33) - 1, 1 << 33, 1 << 40):
        data = headers.file_header("x", size, executable=True)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as out:
            member = out.next()
        assert member is not None
        assert member.size == size


def test_a_size_in_a_pax_header_counts_for_what_follows(tmp_path: Path) -> None:
    """The content and its padding are as long as it says, whatever the old field holds."""
    pax = b"10 size=5\n"
    data = (
        headers._block(b"PaxHeader", headers.PAX, b"0000644\0", len(pax))
        + pax.ljust(512, b"\0")
        + headers._block(b"x", headers.FILE, b"0000644\0", 0)
        + b"12345".ljust(512, b"\0")
        + headers.file_header("after", 0, executable=False)
        + headers.END
    )
    (tmp_path / "a.tar").write_bytes(data)
    assert extract(str(tmp_path / "a.tar"), str(tmp_path / "out")).size == 5
    assert (tmp_path / "out/x").read_bytes() == b"12345"
    assert (tmp_path / "out/after").exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_paths_that_no_system_call_could_name_are_refused(kind: str, tmp_path: Path) -> None:
    """Each part is opened from its parent, so they could be made, but hardly be deleted again."""
    long = "/".join(["d" * 200] * 21)
    raw = Raw("tar")
    if kind == "file":
        raw.file(long, b"")
    else:
        raw.link("link", long)
    raw.write(tmp_path / "a.tar")
    with _nothing_happens_outside(tmp_path), pytest.raises(Refused, match=r"too deep|may lead out"):
        extract(str(tmp_path / "a.tar"), str(tmp_path / "target"))


def test_metadata_too_large_for_memory_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what its header says."""
    monkeypatch.setattr(postinstall, "LARGEST_DOCUMENT", 100)
    raw = Raw("tar")
    raw.file(f"{METADATA}/pack.json", b'{"announced": {"entries": 0, "bytes": 0}}' + b" " * 100)
    raw.write(tmp_path / "a.tar")
    with _nothing_happens_outside(tmp_path), pytest.raises(Refused, match=r"pack\.json, which has 141 bytes"):
        extract(str(tmp_path / "a.tar"), str(tmp_path / "target"))


@needs_proc
def test_what_is_unpacked_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content, then the name, then the directory that the name is in: what a power cut leaves is whole."""
    calls: list[str] = []
    out = str(tmp_path / "out")
    real = os.rename

    def sync(fd: int) -> None:
        calls.append("content" if os.listdir(fd) == ["x"] else "something else")

    def rename(*names: str, **directories: Any) -> None:
        calls.append("name")
        real(*names, **directories)

    monkeypatch.setattr(scratch, "sync_file_system", sync)
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(os.readlink(f"/proc/self/fd/{fd}")))
    raw = Raw("tar")
    raw.file("x", b"content")
    raw.write(tmp_path / "a.tar")
    extract(str(tmp_path / "a.tar"), out)
    assert calls == ["content", "name", str(tmp_path)]


@pytest.mark.parametrize("version", first_quick(["3.10", "3.12", "3.13"]))
def test_names_are_refused_on_every_python(version: str, tmp_path: Path) -> None:
    """The rules are our own: they hold on Pythons whose own filters let links escape."""
    pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python3"))
    if not pyenv:
        pytest.skip(f"there is no Python {version}")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from venvflow.disk.archive import extract\nfrom venvflow.errors import Refused\n"
        "for number, path in enumerate(sys.argv[2:]):\n"
        "    try: extract(path, f'{path}.target')\n"
        "    except Refused: continue\n"
        "    print('extracted', path)\n"
    )
    paths = []
    for number, (attack, _) in enumerate(HOSTILE.values()):
        for name in ("tar", "tar.gz", "zip"):
            raw = Raw(name)
            attack(raw)
            paths.append(tmp_path / f"{number}.{name}")
            raw.write(paths[-1])
    words = [str(pyenv[0]), "-c", script, str(Path(__file__).parent.parent), *map(str, paths)]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (answer.stdout, answer.stderr) == ("", "")
    assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in paths)


# --------------------------------------------------------------------------- unpack


@pytest.mark.parametrize("name", first_quick(FORMATS))
def test_what_is_unpacked_runs(name: str, tmp_path: Path, objects: Objects) -> None:
    """After unpack the scripts run at that place, also below directories with spaces, and RECORD is right."""
    pack(read_venv(make_venv(tmp_path / "venv"), objects), objects, tmp_path / f"a.{name}", arcroot="api")
    target = tmp_path / "a place with spaces"
    found, report = unpack(str(tmp_path / f"a.{name}"), str(target))
    assert found.root == str(target / "api") == report.place
    answer = subprocess.run([target / "api/bin/pkg2"], capture_output=True, text=True, check=True)
    assert answer.stdout == "pkg2 runs\n"
    record = (target / "api" / SITE / "pkg2-1.0.dist-info/RECORD").read_text()
    script = (target / "api/bin/pkg2").read_bytes()
    assert f"bin/pkg2,{relocate.record_fields(*relocate.digest_of(script)).decode()}\n" in record


def test_unpack_is_all_or_nothing(tmp_path: Path, objects: Objects) -> None:
    """Without a fitting interpreter nothing is unpacked, and the error says in words what is missing."""
    manifest = read_venv(make_venv(tmp_path / "venv"), objects)
    description = {"python": {**NEEDS, "version": "3.99.0", "abi": ""}}
    write_archive(manifest, objects, str(tmp_path / "a.tar.zst"), Options(), description=description)
    with pytest.raises(EnvironmentFailure, match=r"the packages are for cpython 3\.99"):
        unpack(str(tmp_path / "a.tar.zst"), str(tmp_path / "out"), sys.executable)
    assert not (tmp_path / "out").exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".vf")]
    unpack(str(tmp_path / "a.tar.zst"), str(tmp_path / "out"), sys.executable, force=True)


def test_unpack_can_compile(tmp_path: Path, objects: Objects) -> None:
    """On request the packages are compiled where they lie, so that the bytecode is valid there."""
    pack(read_venv(make_venv(tmp_path / "venv"), objects), objects, tmp_path / "a.tar.zst")
    unpack(str(tmp_path / "a.tar.zst"), str(tmp_path / "out"), compile_library=True)
    compiled = list((tmp_path / "out").rglob("*.pyc"))
    assert sorted(path.parent.parent.name for path in compiled) == ["pkg1", "pkg2", "pkg3"]


def test_the_public_names_are_there() -> None:
    """The package offers what it says it offers."""
    assert all(hasattr(archive, name) for name in archive.__all__)
