"""Real venvs, read the way squish reads them, for tests of archives."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pythons import SITE

from venvflow import postinstall
from venvflow.disk.archive import Options, Written, named_format, write_archive
from venvflow.disk.scan import walk
from venvflow.disk.zstandard import zstd
from venvflow.model import Entry, Manifest
from venvflow.pure import relocate
from venvflow.pure.manifest import Distribution, group

FORMATS = ["tar.zst", "tar.xz", "tar.gz", "tar.bz2", "tar", "zip"]
TAR_FORMATS = FORMATS[:-1]
NEEDS = {
    "implementation": sys.implementation.name,
    "version": ".".join(map(str, sys.version_info[:3])),
    "abi": str(sysconfig.get_config_var("SOABI")),
    "platform": "",
}
DESCRIPTION = {"python": NEEDS}

ODD_NAMES = [
    "grüße.txt",
    "with space and\nnewline",
    "y" * 200,
    "/".join(["deep" * 12] * 6),
    "d" * 90 + "/" + "e" * 99,
]
NOT_UTF8 = os.fsdecode(b"latin-\xe9")


class Objects:
    """A store of objects: read-only files named by their SHA-256."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes) -> str:
        """Keep *data* and return its digest."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.root / digest
        if not path.exists():
            path.write_bytes(data)
            path.chmod(0o444)
        return digest

    def path(self, digest: str, executable: bool) -> str:  # noqa: ARG002  # as the store has it
        """Return where the object is."""
        return str(self.root / digest)


def make_venv(root: Path) -> Path:
    """Make a small venv by hand: three distributions, scripts, activation, links, odd names."""
    site = root / SITE
    for number in (1, 2, 3):
        _install(root, site, f"pkg{number}")
    _write(root / "bin/activate", f'VIRTUAL_ENV={root}\nexport VIRTUAL_ENV\nPATH="$VIRTUAL_ENV/bin:$PATH"\n')
    python = os.path.realpath(sys.executable)
    _write(root / "pyvenv.cfg", f"home = {os.path.dirname(python)}\nversion = {NEEDS['version']}\n")
    (root / "bin/python").symlink_to(python)
    (root / "bin/python3").symlink_to("python")
    (root / "lib64").symlink_to("lib")
    (root / "share/empty").mkdir(parents=True)
    _write(root / "share/nothing", "")
    return root


def add_odd_names(root: Path) -> None:
    """Give the venv names that not every format can write plainly."""
    for name in ODD_NAMES:
        _write(root / "odd" / name, name)
    (root / "odd/link-to-odd").symlink_to("grüße.txt")
    (root / "odd/long-link").symlink_to("y" * 200)


def _install(root: Path, site: Path, name: str) -> None:
    _write(site / name / "__init__.py", f"def main():\n    print('{name} runs')\n")
    _write(site / name / "data.bin", "".join(f"{name} {number}\n" for number in range(2000)))
    script = f"#!{root}/bin/python\nimport sys\nfrom {name} import main\nsys.exit(main())\n"
    _write(root / "bin" / name, script)
    (root / "bin" / name).chmod(0o755)
    info = f"{name}-1.0.dist-info"
    paths = [f"../../../bin/{name}", f"{name}/__init__.py", f"{name}/data.bin"]
    lines = [f"{path},{_fields(site / path)}" for path in paths]
    _write(site / info / "METADATA", f"Name: {name}\nVersion: 1.0\n")
    _write(site / info / "RECORD", "\n".join([*lines, f"{info}/METADATA,,", f"{info}/RECORD,,"]) + "\n")


def _fields(path: Path) -> str:
    return relocate.record_fields(*relocate.digest_of(path.read_bytes())).decode()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def read_venv(root: Path, objects: Objects, *, project: str = "/nowhere") -> Manifest:
    """Return the manifest of the venv at *root*, with its objects kept in *objects*."""
    places = relocate.Places(str(root), project, os.path.realpath(root / "bin/python"))
    entries = {found.path: _entry(root, found.path, found.kind, places, objects) for found in walk(str(root))}
    directories = {os.path.dirname(path) for path in entries}
    entries = {path: e for path, e in entries.items() if e.kind != "dir" or path not in directories}
    rewritten = [path for path, entry in entries.items() if entry.kind == "template"]
    distributions = []
    for path in [path for path in entries if path.endswith("RECORD")]:
        data = (root / path).read_bytes()
        name, version = os.path.basename(os.path.dirname(path))[: -len(".dist-info")].split("-")
        distributions.append(Distribution(name, version, relocate.record_paths(path, data)))
        template = relocate.find_in_record(path, data, rewritten)
        if template:
            entries[path] = _template(path, template, objects, executable=False)
    return Manifest(group(entries, distributions))


def _entry(root: Path, path: str, kind: str, places: relocate.Places, objects: Objects) -> Entry:
    if kind == "dir":
        return Entry(path, "dir")
    if kind == "link":
        target, slots = relocate.find_link(os.readlink(root / path), places, os.path.realpath)
        return Entry(path, "link", target=target, slots=slots)
    data = (root / path).read_bytes()
    executable = bool((root / path).stat().st_mode & 0o100)
    template = relocate.find(path, data, places)
    if template:
        return _template(path, template, objects, executable=executable)
    return Entry(path, "file", objects.put(data), executable, len(data))


def _template(path: str, template: relocate.Template, objects: Objects, *, executable: bool) -> Entry:
    digest = objects.put(template.data)
    return Entry(path, "template", digest, executable, len(template.data), "", template.slots)


def pack(manifest: Manifest, objects: Objects, path: Path, **options: object) -> Written:
    """Write an archive whose format is that of its name."""
    name = path.name.split(".", 1)[1]
    chosen = Options(name, **options)  # type: ignore[arg-type]
    return write_archive(manifest, objects, str(path), chosen, description=DESCRIPTION)


class Raw:
    """Writes one hostile member after the other, as tar or as zip."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.out = io.BytesIO()
        self.zip = zipfile.ZipFile(self.out, "w") if name == "zip" else None
        self.tar = (
            None if self.zip else tarfile.TarFile(fileobj=self.out, mode="w", format=tarfile.PAX_FORMAT)
        )

    def file(self, name: str, data: bytes = b"evil", mode: int = 0o644) -> None:
        """Add a file."""
        if self.zip:
            self._zip(name, data, stat.S_IFREG | mode)
        else:
            assert self.tar is not None
            add_to_tar(self.tar, name, data, mode=mode)

    def link(self, name: str, target: str) -> None:
        """Add a symlink."""
        if self.zip:
            self._zip(name, target.encode(), stat.S_IFLNK | 0o777)
        else:
            self.other(name, tarfile.SYMTYPE, target)

    def directory(self, name: str) -> None:
        """Add a directory."""
        if self.zip:
            self._zip(name + "/", b"", stat.S_IFDIR | 0o755)
        else:
            self.other(name, tarfile.DIRTYPE)

    def other(self, name: str, kind: bytes, target: str = "") -> None:
        """Add something else, which a zip can only hint at by its mode."""
        if self.zip:
            modes = {
                tarfile.CHRTYPE: stat.S_IFCHR,
                tarfile.BLKTYPE: stat.S_IFBLK,
                tarfile.FIFOTYPE: stat.S_IFIFO,
            }
            self._zip(name, b"", modes.get(kind, stat.S_IFSOCK) | 0o644)
            return
        assert self.tar is not None
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        self.tar.addfile(info)

    def _zip(self, name: str, data: bytes, mode: int) -> None:
        assert self.zip is not None
        info = zipfile.ZipInfo("replaced")
        info.filename = name
        info.create_system, info.external_attr = 3, mode << 16
        info.flag_bits |= 0x800
        self.zip.NameToInfo.clear()  # or it would warn of names that are there twice
        self.zip.writestr(info, data)

    def write(self, path: Path) -> None:
        """Write the archive."""
        if self.zip:
            self.zip.close()
            path.write_bytes(self.out.getvalue())
        else:
            assert self.tar is not None
            self.tar.close()
            path.write_bytes(compressed(self.name, self.out.getvalue()))


def add_to_tar(out: tarfile.TarFile, name: str, data: bytes, *, mode: int = 0o644) -> None:
    """Add a file to a tar of the standard library's."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    out.addfile(info, io.BytesIO(data))


def document(**changes: Any) -> bytes:
    """Return a ``pack.json`` that announces nothing but an empty file of templates, with *changes*."""
    right: dict[str, Any] = {
        "announced": {"bytes": 0, "directories": 0, "entries": 1, "files": 1, "links": 0},
        "description": {},
        "distributions": [],
        "editable": [],
        "format": postinstall.FORMAT,
        "links": [],
        "parts": [],
        "templates": [],
        "templates_sha256": hashlib.sha256(b"").hexdigest(),
    }
    return json.dumps({**right, **changes}).encode()


def compressed(name: str, data: bytes) -> bytes:
    """Return a tar as a file of the tar format *name*."""
    import bz2
    import gzip
    import lzma

    return {
        "tar": lambda: data,
        "tar.gz": lambda: gzip.compress(data),
        "tar.bz2": lambda: bz2.compress(data),
        "tar.xz": lambda: lzma.compress(data, preset=0),
        "tar.zst": lambda: bytes(zstd().compress(data)),
    }[name]()


def plain_tar(path: Path) -> bytes:
    """Return the tar inside an archive, decompressed by the standard library's one-shot functions."""
    import bz2
    import gzip
    import lzma

    data = path.read_bytes()
    return {
        "tar": lambda: data,
        "tar.gz": lambda: gzip.decompress(data),
        "tar.bz2": lambda: bz2.decompress(data),
        "tar.xz": lambda: lzma.decompress(data),
        "tar.zst": lambda: _decompressed_frames(data),
    }[named_format(str(path))]()


def _decompressed_frames(data: bytes) -> bytes:
    with zstd().open(io.BytesIO(data)) as file:
        return bytes(file.read())


def contents(path: Path) -> dict[str, tuple[object, ...]]:
    """Return what the standard library reads from an archive: kind, bytes or target, mode, by name."""
    if path.name.endswith(".zip"):
        return dict(_zip_contents(path))
    return dict(_tar_contents(path))


def _tar_contents(path: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
    with tarfile.open(fileobj=io.BytesIO(plain_tar(path)), encoding="utf-8") as archive:
        for member in archive:
            if member.isdir():
                yield member.name, ("dir", member.mode)
            elif member.issym():
                yield member.name, ("link", member.linkname)
            else:
                file = archive.extractfile(member)
                assert file is not None
                yield member.name, ("file", file.read(), member.mode)


def _zip_contents(path: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for member in archive.infolist():
            mode = member.external_attr >> 16
            data = archive.read(member)
            if member.is_dir():
                yield member.filename.rstrip("/"), ("dir", mode & 0o7777)
            elif mode & 0o170000 == 0o120000:
                yield member.filename, ("link", data.decode())
            else:
                yield member.filename, ("file", data, mode & 0o7777)
