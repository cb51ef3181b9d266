"""Venvs by hand and the command line over them, for the tests of what acts on paths."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli_project import Answer
from contents import write
from json_schemas import check_answer
from pythons import BASE, bare_venv, interpreters

from venvflow.cli import main

FILES = {
    "demo/__init__.py": b"import demo.data\nNAME = 'demo'\n",
    "demo/data.py": b"DATA = list(range(10))\n",
    "demo/table.bin": bytes(range(256)) * 64,
    "demo/empty.py": b"",
    "demo-1.0.dist-info/METADATA": b"Name: demo\nVersion: 1.0\n",
    "demo-1.0.dist-info/RECORD": b"demo/__init__.py,,\ndemo/data.py,,\ndemo/table.bin,,\ndemo/empty.py,,\n"
    b"demo-1.0.dist-info/METADATA,,\ndemo-1.0.dist-info/RECORD,,\n",
}


class Machine:
    """A directory with venvs and a store, outside of all projects."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.store = root / "store"
        self._capsys = capsys

    def venv(self, name: str, python: str = BASE, files: dict[str, bytes] | None = None) -> Path:
        """Make a venv with one distribution, as pip would, and return it."""
        venv = Path(bare_venv(self.root / name / ".venv", python))
        write(self.site(venv), FILES if files is None else files)
        script = venv / "bin" / "demo"
        script.write_bytes(f"#!{venv}/bin/python\nimport demo\nprint(demo.NAME)\n".encode())
        script.chmod(0o755)
        return venv

    def site(self, venv: Path) -> Path:
        """Return the site-packages of a venv."""
        (found,) = venv.glob("lib/python3*/site-packages")
        return found

    def run(self, *words: Any) -> Answer:
        """Run a command in this process."""
        self._capsys.readouterr()
        code = main([str(word) for word in ("-C", self.root, *words)])
        out, err = self._capsys.readouterr()
        assert "Traceback" not in err
        check_answer([str(word) for word in words], out)
        return Answer(code, out, err)

    def done(self, *words: Any) -> Answer:
        """Run a command that must succeed."""
        answer = self.run(*words)
        assert answer.code == 0, answer.err
        return answer

    def du(self, *paths: Path) -> int:
        """Return the bytes that du says *paths* occupy together."""
        said = subprocess.run(["du", "-s", "-B1", "-c", *paths], check=True, capture_output=True, text=True)
        return int(said.stdout.splitlines()[-1].split()[0])

    def works(self, venv: Path) -> bool:
        """Return whether the venv's script runs."""
        done = subprocess.run([venv / "bin/demo"], capture_output=True, text=True, check=False)
        return done.stdout == "demo\n"


@pytest.fixture
def machine(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Give a machine without venvs and without a store."""
    for name in [name for name in os.environ if name.startswith("VENVFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VENVFLOW_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return Machine(tmp_path, capsys)


def other_python() -> str:
    """Return an interpreter of another minor version than the running one, or skip the test."""
    others = [path for path in interpreters().values() if path != BASE]
    if not others:
        pytest.skip("there is only one Python on this machine")
    return others[-1]
