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
