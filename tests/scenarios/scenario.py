"""What scenarios are made of: a machine with a store and a wheelhouse, projects on it, and runs of doit.

Everything is real: the ``doit`` beside this Python, in a process of its own; uv and pip; SQLite; the file
system. Only the package index is missing: wheels are made by the tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import preloaded
import pytest
from wheels import make_wheel, offline_environment, requirements

from venvflow.model import INSTALLER_NOTE

BESIDE = os.path.dirname(sys.executable)
DOIT = os.path.join(BESIDE, "doit")
UV = os.path.join(BESIDE, "uv")
PIP = pytest.param("pip", marks=pytest.mark.long)
"""Takes ten times as long as uv: what both do is tried with pip in ``make long``, and in test_builders.py."""
TAG = sys.implementation.cache_tag
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
STEPS = ("hash-lockfiles", "restore", "build-venv", "squish", "store")
"""What runs for a venv that has to be built and is not packed."""

COUNTING_BUILDER = """\
import os, subprocess, sys, time
python, venv, counter, seconds = sys.argv[1:5]
with open(counter, "a") as file:
    file.write(venv + "\\n")
end = time.monotonic() + float(seconds)
while time.monotonic() < end and not os.path.exists(counter + ".go"):
    time.sleep(0.02)
subprocess.run([python, "-I", "-m", "venv", "--without-pip", venv], check=True)
site = os.path.join(venv, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
for path in sys.argv[5:]:
    with open(path, "rb") as source, open(os.path.join(site, "gamma.py"), "wb") as target:
        target.write(b"TEXT = " + ascii(source.read()).encode() + b"\\n")
"""


@dataclass(frozen=True)
class Run:
    """A finished run of a program: its exit code, what it wrote, and what doit's tasks said."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Return everything it wrote."""
        return self.out + self.err

    @property
    def did(self) -> dict[str, str]:
        """Return what each task did, by its name; tasks that found nothing to do are not in it."""
        lines = re.findall(r"^([a-z-]+(?::\S+)?)  (?!warning: )(.*)$", self.out, re.MULTILINE)
        return dict(lines)

    @property
    def warnings(self) -> str:
        """Return all warnings, a line each."""
        return "\n".join(re.findall(r"^.*  warning: .*$", self.out, re.MULTILINE))

    @property
    def nothing_to_do(self) -> bool:
        """Return whether the run said that everything was up to date, and no task did anything."""
        return self.code == 0 and not self.did and "nothing to do" in self.out


class Machine:
    """A directory with a wheelhouse, a store and room for projects."""

    def __init__(self, root: Path, wheelhouse: Path) -> None:
        self.root = root
        self.wheelhouse = wheelhouse
        self.store = root / "store"
        self.processes: list[subprocess.Popen[bytes]] = []

    def end(self) -> None:
        """Kill what a failed test left running."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
            process.wait()

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment of every program of this machine: no index, no settings of the user."""
        own = {name: value for name, value in os.environ.items() if not _is_setting(name)}
        home = self.root / "home"
        home.mkdir(exist_ok=True)
        more = {"HOME": str(home), "LC_ALL": "C.UTF-8", "TMPDIR": str(self.root)}
        return {**own, **offline_environment(self.wheelhouse), **more, "VENVFLOW_STORE": str(self.store)}

    def wheel(self, name: str, version: str = "1.0", **more: Any) -> Path:
        """Return a wheel of this machine's wheelhouse, made when it is not there; all tests share it."""
        assert not (more and name in ("alpha", "beta")), "others expect it as it is: take another name"
        made = self.wheelhouse / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        if made.exists() and not more:
            return made
        more.setdefault("scripts", {name: f"{name.replace('-', '_')}:main"})
        return make_wheel(self.wheelhouse, name, version, **more)

    def project(self, name: str, venvs: Mapping[str, Any], **settings: Any) -> Project:
        """Return a new project with a config for *venvs* and a dodo.py."""
        project = Project(self, self.root / name)
        project.root.mkdir(parents=True)
        (project.root / "dodo.py").write_text("from venvflow.tasks import *\n")
        project.configure(venvs, **settings)
        return project

    def made_once(self, make: Callable[[Machine], Project]) -> Project:
        """Return the project that *make* makes, as it was then: the first test of this process has it made.

        The machine moves to the place of that project. What a test leaves there, the next one deletes. Each
        gets a copy with all links and times: what goes by inodes needs a project of its own.
        """
        if make not in _made:
            place = Path(tempfile.mkdtemp(prefix="made-", dir=self.wheelhouse.parent))
            self._move(place / "machine")
            self.root.mkdir()
            _made[make] = place, make(self).root
            subprocess.run(["cp", "-a", self.root, place / "kept"], check=True)
        place, root = _made[make]
        self._move(place / "machine")
        shutil.rmtree(self.root)
        subprocess.run(["cp", "-a", place / "kept", self.root], check=True)
        return Project(self, root)

    def _move(self, root: Path) -> None:
        self.root, self.store = root, root / "store"

    def snapshots(self) -> list[dict[str, Any]]:
        """Return the snapshots of the store as they lie on disk."""
        files = sorted((self.store / "snapshots").glob("*.json"))
        # A line with the checksum follows the document.
        return [json.JSONDecoder().raw_decode(file.read_text())[0] for file in files]

    def objects(self) -> set[str]:
        """Return the names of all objects, with their fan-out directory."""
        return {str(path.relative_to(self.store)) for path in (self.store / "objects").glob("*/*")}

    def trees(self) -> set[str]:
        """Return the names of all trees."""
        return {path.parent.name + path.name for path in (self.store / "trees").glob("*/*")}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return what the store's index answers."""
        connection = sqlite3.connect(self.store / "index.db")
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def occupied(self) -> int:
        """Return what ``du`` says of the whole machine but the wheelhouse, in bytes, each inode once."""
        done = subprocess.run(
            ["du", "-s", "-B1", "--exclude=index.db*", "--exclude=trim.json", str(self.root)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return int(done.stdout.split()[0])


_made: dict[Callable[[Machine], Project], tuple[Path, Path]] = {}
"""Where what was made once lies, with a copy of its machine, and the root of the project."""


class Project:
    """A checkout with lock files, a config, and venvs that doit makes."""

    def __init__(self, machine: Machine, root: Path) -> None:
        self.machine = machine
        self.root = root

    # ----------------------------------------------------------------------- inputs

    def configure(self, venvs: Mapping[str, Any], **settings: Any) -> None:
        """Write the config: each venv lies at ``<name>/.venv`` with the lock ``<name>/requirements.txt``."""
        entries = {
            name: {"path": f"{name}/.venv", "locks": [f"{name}/requirements.txt"], **venv}
            for name, venv in venvs.items()
        }
        document: dict[str, Any] = {"version": 1, "store": {"durability": "none"}, "venvs": entries}
        document.update(settings)
        # JSON is YAML.
        self.config.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")

    @property
    def config(self) -> Path:
        """Return the path of the config file."""
        return self.root / "venvflow.yaml"

    def lock(self, venv: str, *wheels: Path, extra: Sequence[str] = ()) -> Path:
        """Write the requirements of *venv*: pinned and hashed, unless there are *extra* lines."""
        return requirements(self.root / venv, wheels, hashes=not extra, extra=extra)

    def counting_builder(self, counter: Path, seconds: float = 0) -> list[list[str]]:
        """Return the ``build:`` of a venv that writes a line to *counter*, and waits.

        It waits for *seconds*, or for a file with the counter's name and ``.go`` behind it.
        """
        script = self.machine.root / "counting_builder.py"
        script.write_text(COUNTING_BUILDER)
        return [["{python}", str(script), "{python}", "{venv}", str(counter), str(seconds), "{locks}"]]

    # ----------------------------------------------------------------------- runs

    def doit(self, *words: str, code: int | None = 0, **more: Any) -> Run:
        """Run doit here and return what it did; *code* is the exit code that it must end with."""
        run = self.run([DOIT, *words], **more)
        if code is not None:
            assert run.code == code, f"exit code {run.code}\n{run.text}"
        return run

    def run(
        self,
        words: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Run:
        """Run a program here; doit and venvflow in a process that has their modules already."""
        words, where, environ = list(words), str(cwd or self.root), {**self.machine.environ, **(env or {})}
        if preloaded.can_run(words, env or {}):
            code, *written = preloaded.run(words, where, environ, timeout)
        else:
            done = subprocess.run(
                words, cwd=where, env=environ, timeout=timeout,
                stdin=subprocess.DEVNULL, capture_output=True, check=False,
            )  # fmt: skip
            code, *written = done.returncode, done.stdout, done.stderr
        return Run(code, *(text.decode("utf-8", "backslashreplace") for text in written))

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start doit in a process group of its own and do not wait for it."""
        process = subprocess.Popen(
            [DOIT, *words], cwd=self.root, env={**self.machine.environ, **(env or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.machine.processes.append(process)
        return process

    # ----------------------------------------------------------------------- results

    def venv(self, name: str) -> Path:
        """Return the place of a venv."""
        return self.root / name / ".venv"

    def site(self, name: str) -> Path:
        """Return the site-packages of a venv."""
        return next((self.venv(name) / "lib").glob("python3.*")) / "site-packages"

    def output(self, name: str, *words: str) -> str:
        """Return what a program of a venv's ``bin`` prints."""
        run = self.run([str(self.venv(name) / "bin" / words[0]), *words[1:]])
        assert run.code == 0, run.text
        return run.out.strip()

    def built_at(self, name: str) -> int:
        """Return when a venv's builder ran last, or 0."""
        log = self.root / ".venvflow" / name / "build.log"
        return log.stat().st_mtime_ns if log.exists() else 0

    def key(self, name: str) -> dict[str, Any]:
        """Return the key of a venv, with its parts."""
        document: dict[str, Any] = json.loads((self.root / ".venvflow" / name / "key.json").read_text())
        return document


def finished(process: subprocess.Popen[bytes], timeout: float = 60) -> Run:
    """Wait for a program that was started, and return what it did; kill its group when it hangs."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return Run(process.returncode, out.decode(), err.decode())


def wait_until(holds: Callable[[], object], timeout: float = 30) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < end, "what the test waited for did not come"
        time.sleep(0.02)


class Item:
    """One path of a directory, as far as two venvs can be compared: kind, bytes, executable bit, target."""

    def __init__(self, path: str) -> None:
        st = os.lstat(path)
        self.kind = stat.S_IFMT(st.st_mode)
        self.executable = stat.S_ISREG(st.st_mode) and bool(st.st_mode & 0o111)
        self.content = b""
        if stat.S_ISLNK(st.st_mode):
            self.content = os.fsencode(os.readlink(path))
        elif stat.S_ISREG(st.st_mode):
            with open(path, "rb") as file:
                self.content = file.read()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Item) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(self.content)

    def __repr__(self) -> str:
        return f"<{self.kind:o} {'x' if self.executable else '-'} {self.content[:200]!r}>"


def manifest_of(venv: Path, *, bytecode: bool = True) -> dict[str, Item]:
    """Return every path of *venv* but the receipt and installers' notes; *bytecode*: ``.pyc`` files, too."""
    found: dict[str, Item] = {}
    for directory, directories, files in os.walk(venv, onerror=_raise):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, venv)
            if not relative.endswith((".venvflow.json", INSTALLER_NOTE)) and (
                bytecode or "__pycache__" not in relative
            ):
                found[relative] = Item(path)
    return found


def _raise(error: OSError) -> None:
    raise error


def _is_setting(name: str) -> bool:
    prefixes = ("VENVFLOW_", "PIP_", "UV_", "PYTEST_", "VIRTUAL_ENV", "PYTHON", "XDG_", "DOIT_")
    return name.startswith(prefixes)


def bytecode_is_valid(source: Path) -> bool:
    """Return whether the interpreter of this test would take the ``.pyc`` of *source* as it is."""
    pyc = source.parent / "__pycache__" / f"{source.stem}.{TAG}.pyc"
    if not pyc.exists():
        return False
    header = pyc.read_bytes()[:16]
    st = source.stat()
    expected = (int(st.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + st.st_size.to_bytes(4, "little")
    return header[4:8] == b"\0\0\0\0" and header[8:16] == expected
