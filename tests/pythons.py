"""The interpreters of this machine that tests may run, and venvs made by hand in no time."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from venvflow.pure.elf import is_of_every_system, linked

SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
BASE = os.path.realpath(getattr(sys, "_base_executable", sys.executable))


@lru_cache(maxsize=1)
def interpreters() -> dict[str, str]:
    """Return real paths of released CPythons by minor version, from beside the running one or PATH."""
    minors = [f"3.{minor}" for minor in range(8, 16)]
    beside = Path(BASE).parent.parent.parent
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": BASE}
    for minor in minors:
        if minor not in found:  # what is on PATH may be a script that looks for a Python itself
            candidates = [str(path) for path in sorted(beside.glob(f"{minor}.*/bin/python3"))]
            for candidate in (*candidates, shutil.which(f"python{minor}") or ""):
                answer = _ask(candidate)
                if answer[:1] == [minor]:
                    found[minor] = answer[1]
                    break
    return found


def _ask(python: str) -> list[str]:
    code = (
        "import sys, os; print('%d.%d' % sys.version_info[:2], os.path.realpath(sys.executable), sep='\\n')"
    )
    try:
        answer = subprocess.run([python, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return answer.stdout.splitlines()


def bare_venv(place: Path | str, python: str = BASE) -> str:
    """Make a venv without packages at *place* and return its path."""
    root = os.fspath(place)
    minor = next(minor for minor, path in interpreters().items() if path == python)
    os.makedirs(f"{root}/lib/python{minor}/site-packages")
    os.mkdir(f"{root}/bin")
    with open(f"{root}/pyvenv.cfg", "w", encoding="utf-8") as file:
        file.write(f"home = {os.path.dirname(python)}\ninclude-system-site-packages = false\n")
    os.symlink(python, f"{root}/bin/python")
    os.symlink("python", f"{root}/bin/python3")
    return root


def foreign_venv(place: Path) -> Path:
    """Make a venv without packages at *place*, as ``python -m venv`` would, and return it."""
    model = _model()
    shutil.copytree(model, place, symlinks=True)
    for path in (place / "pyvenv.cfg", *(place / "bin").glob("*ctivate*")):
        path.write_bytes(path.read_bytes().replace(os.fsencode(model), os.fsencode(place)))
    return place


@lru_cache(maxsize=1)
def _model() -> str:
    """Return the path of one that ``python -m venv`` made."""
    path = os.path.join(tempfile.mkdtemp(prefix="venvflow-tests-"), ".venv")
    subprocess.run([BASE, "-m", "venv", "--without-pip", path], check=True)
    atexit.register(shutil.rmtree, os.path.dirname(path), ignore_errors=True)
    return path


_LEFT_OUT = {
    "site-packages", "test", "tests", "__pycache__", "idlelib", "lib2to3", "ensurepip", "tkinter", "venv",
    "turtledemo", "unittest", "asyncio", "xml", "xmlrpc", "pydoc_data", "multiprocessing",
    "wsgiref", "sqlite3", "curses", "dbm", "http", "concurrent", "ctypes", "msilib", "turtle.py",
}  # fmt: skip
"""What a small CPython does without: it is read, compiled and packed by tests."""
if sys.version_info >= (3, 11):  # before, uv asks distutils where files of a distribution go
    _LEFT_OUT |= {"distutils", "email"}


def make_relocatable(prefix: Path, python: str = BASE, *, leave: frozenset[str] = frozenset()) -> str:
    """Make a CPython at *prefix* that works at any place, of that at *python*; return why not, or nothing.

    It is the same program with less of its standard library: what needs a library of this machine is left
    out, but for the modules to *leave*. It looks for its own library beside itself.
    """
    old, name = os.path.dirname(os.path.dirname(python)), os.path.basename(python)
    library = f"lib/{name}"
    if not os.path.isfile(f"{old}/{library}/os.py") or old in ("/usr", "/usr/local"):
        return f"{python} has its standard library elsewhere"

    def left_out(_directory: str, names: list[str]) -> list[str]:
        return [each for each in names if each in _LEFT_OUT or each.startswith("config-")]

    shutil.copytree(f"{old}/{library}", prefix / library, symlinks=True, ignore=left_out)
    encodings = prefix / library / "encodings"
    for path in encodings.iterdir():
        if path.stem not in ("__init__", "aliases", "ascii", "cp437", "latin_1", "utf_8"):
            path.unlink()
    for found in Path(old, "lib").glob("libpython*.so.*"):
        shutil.copy(found, prefix / "lib" / found.name)
    (prefix / "bin").mkdir()
    program = prefix / "bin" / name
    data = Path(python).read_bytes()
    rpath = os.fsencode(f"{old}/lib") + b"\0"
    program.write_bytes(data.replace(rpath, b"$ORIGIN/../lib".ljust(len(rpath), b"\0")))
    program.chmod(0o755)
    for settings in (prefix / library).glob("_sysconfigdata*.py"):  # which say where it is, as uv lets them
        settings.write_text(settings.read_text().replace(f"{old}/", f"{prefix}/"))
    own = {path.name for path in (prefix / "lib").iterdir()}
    for module in (prefix / library / "lib-dynload").iterdir():
        needed = linked(module.read_bytes()).libraries
        foreign = [each for each in needed if not is_of_every_system(each) and each not in own]
        if foreign and module.name.split(".")[0] not in leave:
            module.unlink()
    return "" if linked(program.read_bytes()).libraries else "it is no ELF"
