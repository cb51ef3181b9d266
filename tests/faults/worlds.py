"""Worlds in which faults happen, the way back to their beginning, and what must hold of them at any time.

Directories are copied with their hard links and times, so a world is at its beginning again in no time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from contents import picture, write
from pythons import BASE, SITE, bare_venv
from shim import Answer, Server
from wheels import make_wheel, requirements

from venvflow.disk.objects import Name, Objects, object_name
from venvflow.disk.places import RECEIPT, read_receipt
from venvflow.model import INSTALLER_NOTE, StoreConfig
from venvflow.state.store import Store

Picture = Mapping[str, tuple[str, "bytes | str", bool]]

_BUILD = """\
cp -a "$(cat "$1")" "$2"
printf '#!%s/bin/python\\nimport demo\\nprint(demo.NAME)\\n' "$2" > "$2/bin/demo"
chmod +x "$2/bin/demo"
"""

_SCRIPTS = {"other": "other:main"}

_PACKAGE = {
    "demo/__init__.py": b"import demo.data\nNAME = 'demo'\n",
    "demo/table.bin": bytes(range(256)) * 20,
    "demo/empty.py": b"",
}


def _record(files: Mapping[str, bytes], info: str) -> bytes:
    return b"".join(f"{path},,\n".encode() for path in (*files, f"{info}/METADATA", f"{info}/RECORD"))


def package(version: str) -> dict[str, bytes]:
    """Return the files of the distribution ``demo`` in a version; all but one are the same in all."""
    info = f"demo-{version}.dist-info"
    files = {**_PACKAGE, "demo/data.py": f"VERSION = {version!r}\n".encode()}
    metadata = f"Metadata-Version: 2.1\nName: demo\nVersion: {version}\n".encode()
    return {**files, f"{info}/METADATA": metadata, f"{info}/RECORD": _record(files, info)}


def site(venv: Path) -> Path:
    """Return the site-packages of a venv."""
    return venv / SITE


def look(venv: Path) -> Picture | None:
    """Return what a venv holds, None if there is none.

    It holds its receipt and bytecode besides, an installer's note of what was not there before, and perhaps
    what a killed run was just about to rename.
    """
    if not venv.is_dir():
        return None
    found = picture(venv)
    return {
        path: what
        for path, what in found.items()
        if not path.startswith(RECEIPT)
        and not path.endswith((".pyc", "__pycache__", INSTALLER_NOTE))
        and ".vf-" not in path
    }


@dataclass
class World:
    """A directory in which an action is done again and again, from the same beginning.

    *root* is where it happens; beside it, in *base*, lie a copy of its beginning and what the builder copies.
    """

    base: Path
    root: Path
    server: Server

    @property
    def venv(self) -> Path:
        """Return the place of the project's venv."""
        return self.root / "p" / "api" / ".venv"

    @property
    def store(self) -> Path:
        """Return the store."""
        return self.root / "store"

    # ----------------------------------------------------------------------- beginnings

    def project(self, version: str, **settings: Any) -> None:
        """Write the config, and the lock for a version of the distribution."""
        build = [["sh", "-c", _BUILD, "build", "{lock}", "{venv}"]]
        venv = {"path": "api/.venv", "locks": ["api/lock"], "build": build, "pack": {"output": "../out"}}
        document = {
            "version": 1,
            "store": {"path": "../store", "durability": "full"},
            "venvs": {"api": venv},
            **settings,
        }
        write(self.root / "p", {"venvflow.yaml": json.dumps(document).encode()})
        self.lock(version)
        (self.root / "home").mkdir(exist_ok=True)

    def project_of_uv(self, version: str) -> None:
        """Write the config of a venv that uv builds; in its lock one of two distributions has a version."""
        house, api = self.base / "house", self.root / "p" / "api"
        wheels = [make_wheel(house, "demo", version), make_wheel(house, "other", "1.0", scripts=_SCRIPTS)]
        venv = {"path": "api/.venv", "locks": ["api/requirements.txt"], "build": "uv"}
        store = {"path": "../store", "durability": "full"}
        document = {"version": 1, "store": store, "venvs": {"api": venv}}
        write(self.root / "p", {"venvflow.yaml": json.dumps(document).encode()})
        requirements(api, wheels)
        (self.root / "home").mkdir(exist_ok=True)

    def lock(self, version: str) -> None:
        """Let the project want a version of the distribution."""
        template = self.base / f"template-{version}"
        if not template.exists():
            self._fill(template, version)
        write(self.root / "p" / "api", {"lock": f"{template}\n".encode()})

    def foreign(self, name: str, version: str = "1.0") -> Path:
        """Make a venv that no project names."""
        venv = self.root / name
        self._fill(venv, version)
        return venv

    def _fill(self, venv: Path, version: str) -> None:
        bare_venv(venv, BASE)
        write(site(venv), package(version))

    def done(self, action: str) -> Answer:
        """Do an action without a fault; it must succeed."""
        answer = self.server.do(action, self.root)
        assert answer.code == 0, f"{action}: {answer.code}\n{answer.output}"
        return answer

    def begin(self) -> None:
        """Call what is there now the beginning."""
        self._copy(self.root, self.base / "begun")

    def reset(self) -> None:
        """Go back to the beginning."""
        self._copy(self.base / "begun", self.root)

    def end(self) -> None:
        """Be done with it; its directory is deleted next."""

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", source, target], check=True)

    # ----------------------------------------------------------------------- what must hold

    def wrong(self, *, rows: bool = True) -> Iterator[str]:
        """Say what is wrong with the store and with receipts, whatever was interrupted.

        Without *rows*, those of the index may outlive what they are about: on a full disk it cannot be
        written, and what was last written to it does not survive a power cut.
        """
        for receipt in self.root.rglob(RECEIPT):
            if not _is_nobodys(receipt) and read_receipt(str(receipt.parent)) is None:
                yield f"{receipt} makes no sense"
        if not (self.store / "objects").is_dir():
            return
        yield from self._wrong_index(rows=rows)
        with closing(Store(StoreConfig(str(self.store), durability="none"))) as store:
            yield from self._wrong_objects(store)
            for snapshot in store.snapshots():
                for tree in store.load(snapshot).trees:
                    for entry in tree.entries:
                        # Of empty files nobody needs an object, and what was pulled brings none.
                        if entry.size and not os.path.exists(store.objects.path(object_name(entry))):
                            yield f"snapshot {snapshot.id[:8]} lacks the object of {entry.path}"

    @staticmethod
    def _wrong_objects(store: Store) -> Iterator[str]:
        adopted = store.adopted()
        for name, looks in store.objects.names():
            path = Path(store.objects.path(name))
            if hashlib.sha256(path.read_bytes()).hexdigest() != name.digest:
                yield f"object {name.digest[:8]} holds something else"
            if not store.objects.is_as_made(looks, name, looks.st_size, adopted.get(name)):
                yield f"object {name.digest[:8]} looks edited"

    def _wrong_index(self, *, rows: bool) -> Iterator[str]:
        path = self.store / "index.db"
        if not path.exists():
            return
        objects = Objects(str(self.store), "none")
        with closing(sqlite3.connect(path)) as db:
            (sound,) = db.execute("PRAGMA integrity_check").fetchone()
            if sound != "ok":
                yield f"the index is damaged: {sound}"
            made = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'objects'").fetchone()
            if made is None or not rows:
                return
            for digest, executable in db.execute("SELECT digest, executable FROM objects"):
                if not os.path.exists(objects.path(Name(digest, bool(executable)))):
                    yield f"the index has a row for {digest[:8]}, which is no object"

    def litter(self) -> list[str]:
        """Return what interrupted work left anywhere in the world."""
        found = [path for path in self.root.rglob("*") if ".vf-" in path.name]
        temporary = self.store / "tmp"
        found += list(temporary.iterdir()) if temporary.is_dir() else []
        return sorted(str(path.relative_to(self.root)) for path in found)


@dataclass
class LayeredWorld(World):
    """A world that lies, at its beginning, in the lower layer of an overlay: as in an image.

    The kernel moves no directory of that layer, and whoever changes a file there gets another one.
    """

    def begin(self) -> None:
        """Let what is there now be the lower layer."""
        super().begin()
        self.reset()

    def reset(self) -> None:
        """Put an empty layer upon the beginning."""
        self.end()
        upper, work = self.base / "upper", self.base / "work"
        for directory in (upper, work):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        options = f"lowerdir={self.base / 'begun'},upperdir={upper},workdir={work},redirect_dir=off"
        words = ["mount", "-t", "overlay", "overlay", "-o", options, str(self.root)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount an overlay here: {done.stderr.strip()}")

    def end(self) -> None:
        """Take the overlay away."""
        if os.path.ismount(self.root):
            subprocess.run(["umount", "-l", self.root], check=True)


def _is_nobodys(path: Path) -> bool:
    """Return whether something lies in a venv that is not in its place yet, or will never be there again.

    The next run deletes it unread; one that may have to go back (``old/``) must be whole.
    """
    parts = path.parts
    staged = [parts[number + 1] for number, part in enumerate(parts[:-1]) if part.startswith(".vf-")]
    return bool({"new", "gone"}.intersection(staged))


def pictures(world: World, venvs: tuple[str, ...]) -> dict[str, Picture | None]:
    """Return how the venvs at these paths below the root look."""
    return {venv: look(world.root / venv) for venv in venvs}


def interesting(total: int, wanted: int | None) -> list[int]:
    """Return which of *total* calls get a fault: all, or about *wanted* of them, evenly."""
    if wanted is None or total <= wanted:
        return list(range(1, total + 1))
    return sorted({1 + round(number * (total - 1) / (wanted - 1)) for number in range(wanted)})
