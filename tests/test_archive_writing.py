"""Archives depend on content alone, and every tool can read them."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import pickle
import random
import resource
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from archives import (
    DESCRIPTION,
    FORMATS,
    NOT_UTF8,
    ODD_NAMES,
    TAR_FORMATS,
    Objects,
    add_odd_names,
    contents,
    make_venv,
    pack,
    plain_tar,
    read_venv,
)
from contents import NOBODY, for_everybody, in_child, linux_only, needs_root, time_of
from pythons import SITE
from tiers import first_quick

from venvflow import postinstall
from venvflow.disk.archive import (
    METADATA,
    DamagedObject,
    FrameDirectory,
    Options,
    extract,
    is_current,
    named_format,
    needs_of,
    write_archive,
    writing,
)
from venvflow.disk.archive.contents import Member
from venvflow.disk.archive.reading import items
from venvflow.disk.zstandard import zstd, zstd_compressor, zstd_version
from venvflow.errors import EnvironmentFailure, Refused, UsageError
from venvflow.model import FORMATS as KNOWN
from venvflow.model import Entry, Interpreter, Manifest, Slot, Tree
from venvflow.pure import relocate
from venvflow.pure.manifest import make_tree


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """Return an empty store of objects."""
    return Objects(tmp_path / "objects")


@pytest.fixture
def manifest(tmp_path: Path, objects: Objects) -> Manifest:
    """Return the manifest of a small venv, odd names included."""
    root = make_venv(tmp_path / "builder" / "venv")
    add_odd_names(root)
    return read_venv(root, objects)


def _one_file(objects: Objects, data: bytes, path: str = "big") -> Manifest:
    return Manifest((make_tree("big", "1", [Entry(path, "file", objects.put(data), False, len(data))]),))


# --------------------------------------------------------------------------- what is in it


@pytest.mark.parametrize("name", first_quick(FORMATS, every=2))
def test_an_archive_holds_the_venv_with_scripts_that_find_it(
    name: str, tmp_path: Path, objects: Objects, manifest: Manifest
) -> None:
    """Every format holds the same members; scripts name no place, and their RECORD describes them so."""
    written = pack(manifest, objects, tmp_path / f"a.{name}", python="/opt/python/bin/python3")
    found = contents(tmp_path / f"a.{name}")
    head = postinstall.script_head("shebang", "bin/pkg1", "bin/python")
    script = head + b"import sys\nfrom pkg1 import main\nsys.exit(main())\n"
    assert found["bin/pkg1"] == ("file", script, 0o755)
    assert found["lib64"] == ("link", "lib")
    assert found["bin/python3"] == ("link", "python")
    assert found["share/empty"] == ("dir", 0o755)
    assert found["share/nothing"] == ("file", b"", 0o644)
    assert found["bin/python"] == ("link", "/opt/python/bin/python3")
    assert b"home = /opt/python/bin\n" in cast("bytes", found["pyvenv.cfg"][1])
    assert f"odd/{ODD_NAMES[0]}" in found
    record = found[f"{SITE}/pkg1-1.0.dist-info/RECORD"][1]
    assert isinstance(record, bytes)
    assert b"bin/pkg1," + relocate.record_fields(*relocate.digest_of(script)) + b"\n" in record
    assert written.entries == len(found)
    assert written.content_size == sum(len(m[1]) for m in found.values() if isinstance(m[1], bytes))


def test_all_formats_hold_the_same(tmp_path: Path, objects: Objects, manifest: Manifest) -> None:
    """The tar inside is the same bytes in all tar formats, and a zip holds the same members."""
    for name in FORMATS:
        pack(manifest, objects, tmp_path / f"a.{name}")
    tars = {plain_tar(tmp_path / f"a.{name}") for name in TAR_FORMATS}
    assert len(tars) == 1
    assert contents(tmp_path / "a.zip") == contents(tmp_path / "a.tar")


def test_nothing_names_the_builder(tmp_path: Path, objects: Objects, manifest: Manifest) -> None:
    """No path of the machine that wrote it is anywhere in an archive."""
    pack(manifest, objects, tmp_path / "a.tar")
    assert os.fsencode(tmp_path) not in (tmp_path / "a.tar").read_bytes()


def test_headers_tell_nothing_of_who_wrote_them_when(
    tmp_path: Path, objects: Objects, manifest: Manifest
) -> None:
    """Owner, times and modes are constant, there are no hard links and no global headers."""
    pack(manifest, objects, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        members = archive.getmembers()
        assert archive.pax_headers == {}
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
    assert all(m.mtime % 2 == 0 and 315_619_200 <= m.mtime < 1_704_067_200 for m in members)
    assert {m.mode for m in members if m.isfile()} == {0o644, 0o755}
    assert not any(m.islnk() for m in members)


def test_directories_come_before_what_is_in_them(
    tmp_path: Path, objects: Objects, manifest: Manifest
) -> None:
    """A reader that makes no parents by itself can extract it."""
    pack(manifest, objects, tmp_path / "a.tar")
    seen = {""}
    for name in contents(tmp_path / "a.tar"):
        assert os.path.dirname(name) in seen
        seen.add(name)


def test_names_that_are_not_utf8_are_kept_exactly(tmp_path: Path, objects: Objects) -> None:
    """A tar keeps the bytes of such a name; a zip, which cannot, is refused with the name."""
    manifest = _one_file(objects, b"x", f"dir/{NOT_UTF8}")
    pack(manifest, objects, tmp_path / "a.tar")
    assert contents(tmp_path / "a.tar")[f"dir/{NOT_UTF8}"] == ("file", b"x", 0o644)
    assert b"21 hdrcharset=BINARY\n" in (tmp_path / "a.tar").read_bytes()
    with pytest.raises(Refused, match=r"latin-\\xe9 is not UTF-8"):
        pack(manifest, objects, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_arcroot_is_the_directory_of_everything(tmp_path: Path, objects: Objects, manifest: Manifest) -> None:
    """With an arcroot every name lies below it, in frames as in streams."""
    for name in ("tar.zst", "tar", "zip"):
        pack(manifest, objects, tmp_path / f"a.{name}", arcroot="api-1.0")
        found = list(contents(tmp_path / f"a.{name}"))
        assert found[0] == "api-1.0"
        assert all(path.startswith("api-1.0/") for path in found[1:])


def test_links_can_become_copies(tmp_path: Path, objects: Objects, manifest: Manifest) -> None:
    """For targets without links, links to files are copies; others are left to postinstall.py."""
    pack(manifest, objects, tmp_path / "a.zip", symlinks="copy")
    found = contents(tmp_path / "a.zip")
    assert not [name for name, member in found.items() if member[0] == "link"]
    assert found["odd/link-to-odd"] == found[f"odd/{ODD_NAMES[0]}"]
    document = json.loads(found[f"{METADATA}/pack.json"][1])  # type: ignore[arg-type]
    assert [row[:2] for row in document["links"]] == [
        ["bin/python", ""],
        ["bin/python3", "python"],
        ["lib64", "lib"],
    ]


def test_a_link_to_a_script_becomes_a_template_too(tmp_path: Path, objects: Objects) -> None:
    """A copy of a script must be filled in at the target like the script itself."""
    root = make_venv(tmp_path / "venv")
    (root / "bin/again").symlink_to("../lib64/../bin/pkg1")
    with pytest.raises(Refused, match="leads out"):
        pack(read_venv(root, objects), objects, tmp_path / "a.zip")
    (root / "bin/again").unlink()
    (root / "bin/again").symlink_to("pkg1")
    pack(read_venv(root, objects), objects, tmp_path / "a.zip", symlinks="copy")
    found = contents(tmp_path / "a.zip")
    document = json.loads(found[f"{METADATA}/pack.json"][1])  # type: ignore[arg-type]
    assert "bin/again" in [row[0] for row in document["templates"]]


# --------------------------------------------------------------------------- always the same bytes


@pytest.mark.parametrize("name", first_quick(FORMATS))
def test_bytes_do_not_depend_on_threads_umask_zone_or_order(
    name: str, tmp_path: Path, objects: Objects, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One content, one SHA-256: whatever the number of threads, umask, time zone, and order of entries."""
    rng = random.Random(1)
    large = rng.randbytes(300_000) + bytes(17 << 20)  # more than a block of any format
    manifest = Manifest((*manifest.trees, *_one_file(objects, large).trees))
    level = KNOWN[name].lowest
    digests = set()
    for threads, umask, zone in ((1, 0o022, "UTC"), (2, 0o077, "Asia/Kolkata"), (5, 0, "America/St_Johns")):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        before = os.umask(umask)
        try:
            shuffled = Manifest(tuple(_shuffled(tree, rng) for tree in manifest.trees))
            written = pack(shuffled, objects, tmp_path / f"{threads}.{name}", threads=threads, level=level)
        finally:
            os.umask(before)
        digests.add(written.sha256)
    monkeypatch.undo()
    time.tzset()
    assert len(digests) == 1


def _shuffled(tree: Tree, rng: random.Random) -> Tree:
    entries = list(tree.entries)
    rng.shuffle(entries)
    return make_tree(tree.name, tree.version, entries)


@pytest.mark.parametrize("times", [2, 60])
def test_a_frame_is_what_any_number_of_workers_would_write(times: int) -> None:
    """However often zstd is fed, and by how many workers, a frame is the same, and tells its size."""
    data = random.Random(4).randbytes(50_000) * times + bytes(times * 150_000)
    frames = set()
    for workers, piece in ((1, 70_000), (2, 70_000), (4, 1 << 20), (2, len(data))):
        compressor = zstd_compressor(3, len(data), workers)
        pieces = [compressor.compress(data[start : start + piece]) for start in range(0, len(data), piece)]
        frames.add(b"".join(pieces) + compressor.flush())
    (frame,) = frames
    assert zstd().get_frame_info(frame).decompressed_size == len(data)
    assert zstd().decompress(frame) == data


def test_bytes_do_not_depend_on_where_the_venv_was_built(tmp_path: Path, objects: Objects) -> None:
    """Two venvs of the same content at two paths, of other length, give one archive."""
    digests = set()
    for place in ("a", "another place/of quite another length"):
        root = make_venv(tmp_path / place / "venv")
        digests.add(pack(read_venv(root, objects), objects, tmp_path / "out.tar.zst").sha256)
    assert len(digests) == 1


@pytest.mark.slow
@needs_root
def test_another_user_packs_the_same_bytes(tmp_path: Path, objects: Objects, manifest: Manifest) -> None:
    """Whoever reads the objects, under whatever umask: nothing of the user is in an archive."""
    with for_everybody() as place:
        shutil.copytree(objects.root, place / "objects")
        (place / "out").mkdir()
        (place / "out").chmod(0o777)

        def work() -> None:
            os.umask(0o077)
            for name in FORMATS:
                pack(manifest, Objects(place / "objects"), place / f"out/a.{name}")

        assert in_child(work, user=NOBODY) == 0
        for name in FORMATS:
            theirs = hashlib.sha256((place / f"out/a.{name}").read_bytes()).hexdigest()
            assert theirs == pack(manifest, objects, tmp_path / f"a.{name}").sha256, name


_OTHER = """
import pickle, sys
sys.path[:0] = sys.argv[1:3]
from archives import Objects
from pathlib import Path
from venvflow.disk.archive import Options, write_archive
manifest, description = pickle.loads(Path(sys.argv[3]).read_bytes())
for name in sys.argv[6:]:
    out = sys.argv[5] + "/other." + name
    written = write_archive(manifest, Objects(Path(sys.argv[4])), out, Options(name), description=description)
    print(written.sha256)
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("names", [["tar.zst"], ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"]], ids="+".join)
def test_every_python_writes_the_same_bytes(
    version: str, names: list[str], tmp_path: Path, objects: Objects, manifest: Manifest
) -> None:
    """The Python that runs venvflow has no say in the bytes (its libraries do, in their version)."""
    python = _other_python(version, needs_zstd=names == ["tar.zst"])
    expected = [pack(manifest, objects, tmp_path / f"mine.{name}").sha256 for name in names]
    (tmp_path / "pickle").write_bytes(pickle.dumps((manifest, DESCRIPTION)))
    project = Path(__file__).parent.parent
    paths = [project, project / "tests", tmp_path / "pickle", objects.root, tmp_path]
    words = [python, "-c", _OTHER, *map(str, paths), *names]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert answer.stdout.split() == expected, answer.stderr


def _other_python(version: str, *, needs_zstd: bool) -> str:
    """Return a Python of that version that can run the writer, or skip with the reason."""
    pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python3"))
    python = str(pyenv[0]) if pyenv else shutil.which(f"python{version}")
    if python is None:
        pytest.skip(f"there is no Python {version}")
    probe = f"import lzma, bz2, zlib; assert zlib.ZLIB_RUNTIME_VERSION == {zlib.ZLIB_RUNTIME_VERSION!r}"
    if needs_zstd:
        module = "compression.zstd" if version >= "3.14" else "backports.zstd"
        probe += f"; from {module} import zstd_version as v; assert v == {zstd_version()!r}"
    answer = subprocess.run([python, "-c", probe], capture_output=True, check=False)
    if answer.returncode:
        pytest.skip(f"Python {version} has not the same compression libraries")
    return python


# --------------------------------------------------------------------------- other tools read it


@pytest.mark.parametrize("name", TAR_FORMATS)
def test_tar_reads_it(name: str, tmp_path: Path, objects: Objects, manifest: Manifest) -> None:
    """The tar command extracts every name exactly, without a word of complaint."""
    helper = {"tar.zst": "zstd", "tar.gz": "gzip", "tar.xz": "xz", "tar.bz2": "bzip2"}.get(name, "tar")
    if shutil.which("tar") is None or shutil.which(helper) is None:
        pytest.skip(f"tar or {helper} is not installed")
    manifest = Manifest((*manifest.trees, *_one_file(objects, b"x", f"raw/{NOT_UTF8}").trees))
    pack(manifest, objects, tmp_path / f"a.{name}")
    (tmp_path / "out").mkdir()
    command = ["tar", "-C", str(tmp_path / "out"), "-axf", str(tmp_path / f"a.{name}")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0
    assert [line for line in answer.stderr.splitlines() if "hdrcharset" not in line] == []
    assert (tmp_path / "out/raw" / NOT_UTF8).read_bytes() == b"x"
    for odd in ODD_NAMES:
        assert (tmp_path / "out/odd" / odd).read_text(encoding="utf-8") == odd
    assert (tmp_path / "out/odd/long-link").read_text() == "y" * 200


def test_unzip_reads_it_in_any_time_zone(tmp_path: Path, objects: Objects, manifest: Manifest) -> None:
    """The unzip command finds the times, in UTC, wherever it runs."""
    if shutil.which("unzip") is None:
        pytest.skip("unzip is not installed")
    pack(manifest, objects, tmp_path / "a.zip")
    environ = {**os.environ, "TZ": "Asia/Kolkata"}
    command = ["unzip", "-q", str(tmp_path / "a.zip"), "-d", str(tmp_path / "out")]
    subprocess.run(command, check=True, env=environ)
    assert (tmp_path / "out/bin/pkg1").stat().st_mtime_ns == time_of((tmp_path / "out/bin/pkg1").read_bytes())
    assert (tmp_path / "out/bin/pkg1").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out/lib64").is_symlink()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {member.extra[:5] for member in archive.infolist()} == {b"UT\x05\x00\x01"}


def test_sha256sum_checks_it(tmp_path: Path, objects: Objects, manifest: Manifest) -> None:
    """The checksum beside an archive is in the form that sha256sum reads, whatever the name."""
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    for name in ("plain.tar", "line\nbreak\\.tar"):
        pack(manifest, objects, tmp_path / name)
        subprocess.run(["sha256sum", "--quiet", "-c", name + ".sha256"], cwd=tmp_path, check=True)


# --------------------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize("name", first_quick(FORMATS, every=3))
@pytest.mark.parametrize("damage", ["altered", "truncated", "gone", "link"])
def test_a_damaged_object_stops_the_writer(
    name: str, damage: str, tmp_path: Path, objects: Objects, manifest: Manifest
) -> None:
    """The error names the object and the file; the archive that was there stays, and no litter is left."""
    out = tmp_path / "out"
    first = pack(manifest, objects, out / f"a.{name}")
    before = sorted(os.listdir(out))
    victim = next(e for t in manifest.trees for e in t.entries if e.path == f"{SITE}/pkg2/data.bin")
    _damage(objects.root / victim.digest, damage)
    with pytest.raises(DamagedObject, match=r"pkg2/data\.bin") as caught:
        pack(manifest, objects, out / f"a.{name}")
    assert caught.value.digest == victim.digest
    assert sorted(os.listdir(out)) == before
    assert is_current(first.path)


def _damage(path: Path, damage: str) -> None:
    path.chmod(0o644)
    if damage == "altered":
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "truncated":
        os.truncate(path, 100)
    else:
        path.rename(f"{path}.moved")
        if damage == "link":
            path.symlink_to(f"{path}.moved")


def test_a_damaged_template_stops_the_writer(tmp_path: Path, objects: Objects, manifest: Manifest) -> None:
    """Templates are read before anything is written, and checked like everything else."""
    victim = next(e for t in manifest.trees for e in t.entries if e.kind == "template")
    _damage(objects.root / victim.digest, "altered")
    with pytest.raises(DamagedObject, match="other bytes"):
        pack(manifest, objects, tmp_path / "a.tar.zst")
    assert not (tmp_path / "a.tar.zst").exists()


@pytest.mark.parametrize("name", first_quick(FORMATS, every=2))
def test_a_full_disk_leaves_nothing(name: str, tmp_path: Path, objects: Objects) -> None:
    """When no more can be written, the error says so, and no half archive or temporary file is left."""
    manifest = _one_file(objects, random.Random(2).randbytes(400_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(EnvironmentFailure, match="cannot write"):
            pack(manifest, objects, tmp_path / "out" / f"a.{name}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path / "out") == []


def test_an_archive_is_current_only_when_it_is_whole(
    tmp_path: Path, objects: Objects, manifest: Manifest
) -> None:
    """Altered, cut off, or without what stands beside it, an archive is not up to date."""
    path = tmp_path / "a.tar.zst"
    assert not is_current(str(path))
    pack(manifest, objects, path)
    assert is_current(str(path))
    good = path.read_bytes()
    for bad in (good[:-1], good[:100] + bytes([good[100] ^ 1]) + good[101:], good + b"\0", b""):
        path.write_bytes(bad)
        assert not is_current(str(path))
    path.write_bytes(good)
    for beside in (".json", ".sha256"):
        kept = Path(f"{path}{beside}").read_bytes()
        Path(f"{path}{beside}").write_bytes(b"{}")
        assert not is_current(str(path))
        os.unlink(f"{path}{beside}")
        assert not is_current(str(path))
        Path(f"{path}{beside}").write_bytes(kept)
    assert is_current(str(path))


@pytest.mark.parametrize("stopped_at", ["a.tar.json", "a.tar.sha256"])
def test_an_archive_is_not_current_before_the_last_of_its_files(
    stopped_at: str, tmp_path: Path, objects: Objects, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If writing stops between the archive and its checksum, an older checksum does not vouch for it."""
    pack(_one_file(objects, b"older"), objects, tmp_path / "a.tar")
    rename = os.replace

    def failing(source: str, target: str) -> None:
        if os.path.basename(target) == stopped_at:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(EnvironmentFailure, match="No space left"):
        pack(manifest, objects, tmp_path / "a.tar")
    assert not is_current(str(tmp_path / "a.tar"))


def test_the_description_tells_what_is_inside(tmp_path: Path, objects: Objects, manifest: Manifest) -> None:
    """The JSON beside an archive says which distributions it holds, its size, and what it needs."""
    written = pack(manifest, objects, tmp_path / "a.tar.xz", level=0)
    document = json.loads((tmp_path / "a.tar.xz.json").read_text())
    assert document["distributions"] == [["pkg1", "1.0"], ["pkg2", "1.0"], ["pkg3", "1.0"]]
    assert document["sha256"] == written.sha256
    assert document["size"] == written.size == (tmp_path / "a.tar.xz").stat().st_size
    assert document["level"] == 0
    assert document["description"] == DESCRIPTION


def test_progress_is_told_in_bytes(tmp_path: Path, objects: Objects, manifest: Manifest) -> None:
    """Progress grows from one call to the next, never beyond the total, in every format."""
    for name in FORMATS:
        calls: list[tuple[int, int]] = []
        written = write_archive(
            manifest,
            objects,
            str(tmp_path / f"a.{name}"),
            Options(name),
            description={},
            progress=lambda done, total, calls=calls: calls.append((done, total)),  # type: ignore[misc]
        )
        assert {total for _, total in calls} == {written.content_size}
        assert [done for done, _ in calls] == sorted({done for done, _ in calls})
        assert calls[-1][0] == written.content_size


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (Entry("a/out", "link", target="../../x"), "leads out"),
        (Entry("out", "link", target="/etc/passwd"), "leads out"),
        (Entry("out", "link", target="a/../../x"), "leads out"),
        (Entry("out", "link", target=""), "leads out"),
        (Entry("postinstall.py", "dir"), "is there already"),
        (Entry("a//b", "dir"), "empty part"),
        (Entry("../b", "dir"), "climbs"),
        (Entry("/b", "dir"), "absolute"),
        (Entry("b\0", "dir"), "NUL"),
    ],
)
def test_what_could_not_be_unpacked_is_not_packed(
    entry: Entry, why: str, tmp_path: Path, objects: Objects
) -> None:
    """The writer holds itself to the rules of extraction, and names the entry."""
    with pytest.raises(Refused, match=why):
        pack(Manifest((make_tree("x", "", [entry]),)), objects, tmp_path / "a.tar")
    assert os.listdir(tmp_path) == ["objects"]


def test_a_file_below_a_link_is_not_packed(tmp_path: Path, objects: Objects) -> None:
    """Nothing can lie below something that is not a directory."""
    entries = [Entry("a", "link", target="b"), Entry("a/c", "dir")]
    with pytest.raises(EnvironmentFailure, match="'a' is an entry and a directory"):
        pack(Manifest((make_tree("x", "", entries),)), objects, tmp_path / "a.tar")


def test_a_manifest_that_contradicts_itself_is_not_packed(tmp_path: Path, objects: Objects) -> None:
    """A path in two trees, and slots beyond the end of a template, are errors and no surprise."""
    trees = tuple(make_tree(name, "", [Entry("a", "dir")]) for name in "xy")
    with pytest.raises(EnvironmentFailure, match="two trees"):
        pack(Manifest(trees), objects, tmp_path / "a.tar")
    broken = Entry("bin/x", "template", objects.put(b"abc"), True, 3, "", (Slot(9, "venv", "raw"),))
    with pytest.raises(EnvironmentFailure, match="slots of bin/x"):
        pack(Manifest((make_tree("x", "", [broken]),)), objects, tmp_path / "a.tar")


def test_a_directory_in_the_way_is_refused(tmp_path: Path, objects: Objects, manifest: Manifest) -> None:
    """An archive replaces a file, never a directory."""
    (tmp_path / "a.tar").mkdir()
    with pytest.raises(Refused, match="is a directory"):
        pack(manifest, objects, tmp_path / "a.tar")


def test_names_that_differ_by_case_only_are_warned_of(tmp_path: Path, objects: Objects) -> None:
    """They are packed, because this file system holds both, with a warning for those that do not."""
    tree = make_tree("x", "", [Entry("A", "dir"), Entry("a", "dir")])
    written = pack(Manifest((tree,)), objects, tmp_path / "a.tar")
    assert written.warnings == ("A and a differ by case only: not every target can hold both",)


def test_what_an_archive_left_in_a_venv_is_not_packed_again(tmp_path: Path, objects: Objects) -> None:
    """A venv that came from an archive gives the same archive again."""
    root = make_venv(tmp_path / "venv")
    plain = pack(read_venv(root, objects), objects, tmp_path / "a.tar")
    (root / METADATA).mkdir()
    (root / METADATA / "pack.json").write_text("{}")
    (root / "postinstall.py").write_text("an older one")
    assert pack(read_venv(root, objects), objects, tmp_path / "b.tar").sha256 == plain.sha256


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "rar"},
        {"level": 99},
        {"level": 22},
        {"threads": 0},
        {"arcroot": "../x"},
        {"arcroot": "/x"},
        {"format": "tar.gz", "level": -1},
    ],
)
def test_options_that_cannot_be_are_usage_errors(wrong: dict[str, Any]) -> None:
    """Format, level, threads and arcroot are checked before anything is done."""
    with pytest.raises(UsageError):
        Options(**wrong)


def test_the_format_is_known_by_the_name() -> None:
    """The longest ending decides."""
    assert [named_format(f"x/api-1.0.{name}") for name in FORMATS] == FORMATS
    assert named_format("api.rar") == ""


def test_an_archive_asks_for_the_interpreter_it_was_built_with() -> None:
    """What postinstall.py compares is taken from the interpreter as it described itself."""
    interpreter = Interpreter(
        "/usr/bin/python3", "/usr/bin", "cpython", "3.12.4", "cpython-312", "linux", "c", "m"
    )
    needs = {"implementation": "cpython", "version": "3.12.4", "abi": "cpython-312", "platform": "linux"}
    assert needs_of(interpreter) == needs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tar.zst", pytest.param("tar.xz", marks=pytest.mark.long)])
def test_memory_does_not_grow_with_the_venv(name: str, tmp_path: Path, objects: Objects) -> None:
    """Packing 400 MB needs hardly more memory than packing 100 MB, and never 200 MB."""
    peaks = []
    for megabytes in (100, 400):
        path = tmp_path / str(megabytes)
        with path.open("wb") as file:
            for number in range(megabytes):
                file.write(number.to_bytes(4, "big") * 262144)
        script = (
            "import hashlib, re, sys; sys.path[:0] = sys.argv[1:3]\n"
            "from pathlib import Path\nfrom archives import Objects, pack\n"
            "from venvflow.model import Entry, Manifest\nfrom venvflow.pure.manifest import make_tree\n"
            "path = Path(sys.argv[3]); digest = hashlib.file_digest(path.open('rb'), 'sha256').hexdigest()\n"
            "objects = Objects(path.parent / 'o'); path.rename(objects.root / digest)\n"
            "entry = Entry('big', 'file', digest, False, (objects.root / digest).stat().st_size)\n"
            "pack(Manifest((make_tree('big', '', [entry]),)), objects, path.parent / sys.argv[4])\n"
            # Not ru_maxrss, which begins with the memory of the process that was forked.
            "print(re.search(r'VmHWM:\\s*([0-9]+) kB', Path('/proc/self/status').read_text())[1])\n"
        )
        project = Path(__file__).parent.parent
        words = [sys.executable, "-c", script, str(project), str(project / "tests"), str(path), f"a.{name}"]
        answer = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks.append(int(answer.stdout))
    assert peaks[1] < min(peaks[0] + 30_000, 200_000)


@pytest.mark.slow
def test_a_stream_of_the_writer_is_read_back_in_pieces(tmp_path: Path, objects: Objects) -> None:
    """A file larger than every buffer comes out as it went in, in every format."""
    data = random.Random(3).randbytes(1 << 16) * 90
    for name in FORMATS:
        pack(_one_file(objects, data), objects, tmp_path / f"a.{name}", level=KNOWN[name].lowest)
        assert contents(tmp_path / f"a.{name}")["big"] == ("file", data, 0o644)


# --------------------------------------------------------------------------- members with times of their own


@pytest.mark.parametrize("name", first_quick(FORMATS, every=2))
def test_members_can_have_their_own_times(
    name: str, tmp_path: Path, objects: Objects, manifest: Manifest
) -> None:
    """Asked for by name, without arcroot; nothing of it gets into kept frames."""
    frames = FrameDirectory(str(tmp_path / "frames"))
    path = tmp_path / f"a.{name}"
    asked: list[str] = []

    def mtime_of(member: Member) -> int:
        asked.append(member.name)
        return 1_600_000_000

    write_archive(
        manifest, objects, str(path), Options(name, arcroot="top"), description=DESCRIPTION,
        frames=frames, mtime_of=mtime_of, scratch=str(tmp_path), beside=False,
    )  # fmt: skip
    assert "" in asked
    assert not [member for member in asked if member.startswith("top")]
    assert not (tmp_path / "frames").exists()
    assert not Path(f"{path}.json").exists()
    if name == "zip":
        with zipfile.ZipFile(path) as zipped:
            assert {info.date_time for info in zipped.infolist()} == {(2020, 9, 13, 12, 26, 40)}
    else:
        with tarfile.open(fileobj=io.BytesIO(plain_tar(path))) as archive:
            assert {member.mtime for member in archive} == {1_600_000_000}


@pytest.mark.parametrize(("mtime", "in_tar", "in_zip"), [(-5, 0, 1980), (1 << 40, (1 << 33) - 1, 2038)])
def test_times_that_a_format_cannot_hold_become_the_nearest(
    mtime: int, in_tar: int, in_zip: int, tmp_path: Path, objects: Objects
) -> None:
    """Before 1970, before 1980, and far ahead."""
    manifest = _one_file(objects, b"x")
    for name in ("tar", "zip"):
        write_archive(
            manifest, objects, str(tmp_path / f"a.{name}"), Options(name), description={},
            mtime_of=lambda _: mtime,
        )  # fmt: skip
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert {member.mtime for member in archive} == {in_tar}
    with zipfile.ZipFile(tmp_path / "a.zip") as zipped:
        assert {info.date_time[0] for info in zipped.infolist()} == {in_zip}


def test_external_links_are_kept_only_when_that_is_asked_for(tmp_path: Path, objects: Objects) -> None:
    """By default they are refused, with their names."""
    manifest = Manifest((make_tree("x", "", [Entry("bin/x", "link", target="/usr/bin/env")]),))
    with pytest.raises(Refused, match="bin/x"):
        pack(manifest, objects, tmp_path / "a.tar")
    pack(manifest, objects, tmp_path / "a.tar", external="keep")
    assert contents(tmp_path / "a.tar")["bin/x"] == ("link", "/usr/bin/env")


def test_an_archive_is_on_disk_before_it_has_its_name(
    tmp_path: Path, objects: Objects, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content, then name; the checksum in the same way after it, and the names of all three at the end."""
    calls: list[str] = []
    real_sync, real_rename = os.fsync, os.replace

    def sync(fd: int) -> None:
        calls.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "content")
        real_sync(fd)

    def rename(old: str, new: str) -> None:
        calls.append(os.path.basename(new))
        real_rename(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    pack(manifest, objects, tmp_path / "a.tar")
    assert calls == ["content", "a.tar", "a.tar.json", "content", "a.tar.sha256", "directory"]


@linux_only
def test_a_reader_that_fails_discards_what_it_was_writing(
    tmp_path: Path, objects: Objects, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file without a name stays open, none with a temporary one stays there."""
    frames = FrameDirectory(str(tmp_path / "frames"))
    out = str(tmp_path / "a.tar.zst")
    monkeypatch.setattr(writing, "zstd_compressor", _second_time_fails())
    with pytest.raises(ZeroDivisionError):
        write_archive(manifest, objects, out, Options(), description=DESCRIPTION, frames=frames)
    assert [path.name for path in tmp_path.rglob(".vf-*")] == []


def _second_time_fails() -> Callable[..., Any]:
    times = itertools.count()

    def compressor(level: int, size: int, threads: int = 1) -> Any:
        return zstd_compressor(level, size, threads) if next(times) == 0 else 1 / 0

    return compressor


# --------------------------------------------------------------------------- beyond old limits

ZEROS = {
    (8 << 30) + 1: "b47800cd5a0c0bd2a7d6c2ac9402cc117bbe89363299bdc51f8a72aef8543693",
    (4 << 30) + 1: "fbb82f7b353676bb562eb82157fcf0ea42c36492ca13ee56dbf82c08b6802c5c",
}
"""SHA-256 of so many zero bytes."""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("name", "size"), [("tar.zst", (8 << 30) + 1), ("zip", (4 << 30) + 1)])
def test_files_beyond_the_old_limits_are_written_and_read(
    name: str, size: int, tmp_path: Path, objects: Objects
) -> None:
    """More than eight gigabytes in a tar, more than four in a zip: we, and others, read their true size."""
    with (objects.root / ZEROS[size]).open("wb") as file:
        file.truncate(size)
    entry = Entry(f"{SITE}/huge.bin", "file", ZEROS[size], False, size)
    manifest = Manifest((make_tree("huge", "1", [entry, _small(objects)]),))
    path = tmp_path / f"a.{name}"
    pack(manifest, objects, path, level=1)
    assert path.stat().st_size < size / 100
    with path.open("rb") as raw:
        read = {item.name: sum(map(len, item.parts)) for item in items(str(path), raw, 100)}
    assert read[entry.path] == size
    assert read[f"{SITE}/small.txt"] == 5
    listed = {"tar.zst": ["tar", "--zstd", "-tvf"], "zip": ["unzip", "-l"]}[name]
    if shutil.which(listed[0]) and (name == "zip" or shutil.which("zstd")):
        text = subprocess.check_output([*listed, path], text=True)
        assert any(str(size) in line and "huge.bin" in line for line in text.splitlines())


def _small(objects: Objects) -> Entry:
    return Entry(f"{SITE}/small.txt", "file", objects.put(b"small"), False, 5)


@pytest.mark.long
@pytest.mark.parametrize("name", ["zip", "tar.zst"])
def test_more_entries_than_the_old_limit_of_zip(name: str, tmp_path: Path, objects: Objects) -> None:
    """70,000 files: the standard library finds them all, and ours extracts them."""
    digest = objects.put(b"small")
    entries = [Entry(f"lib/{n // 1000}/{n}", "file", digest, False, 5) for n in range(70_000)]
    path = tmp_path / f"a.{name}"
    written = pack(Manifest((make_tree("many", "1", entries),)), objects, path)
    assert written.entries > 70_000
    if name == "zip":
        with zipfile.ZipFile(path) as archive:
            assert len(archive.namelist()) == written.entries
            assert archive.read("lib/69/69999") == b"small"
    found = extract(str(path), str(tmp_path / "out"))
    assert found.entries == written.entries
    assert len(os.listdir(tmp_path / "out/lib/69")) == 1000
