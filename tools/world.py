"""The small world in which the sessions of the documents run: a home, packages, and a project to begin with.

Everything in it is real but the package index: builders install small wheels of our own, which have the
names and versions of well-known packages and next to nothing in them.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pythons import interpreters
from wheels import make_wheel, offline_environment, repack, requirements

from tools.index import serving

BIN = os.path.dirname(sys.executable)
_TOML = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

_PACKAGES = {"click": "8.3.1", "packaging": "25.0", "tabulate": "0.9.0"}
_OLDER = {"click": "8.2.1"}

_SETTINGS = (
    *("VENVFLOW_", "PIP_", "UV_", "VIRTUAL_ENV", "PYTHON", "XDG_", "DOIT_", "GIT_", "MAKE", "MFLAGS"),
    *("PYTEST_", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "TOX_", "NOX_", "CI"),
)
"""Beginnings of the names of variables that could change what programs print."""

_CONFIG = """\
version: 1
venvs:
  api:
    path: services/api/.venv
    locks: [services/api/requirements.txt]
  worker:
    path: services/worker/.venv
    locks: [services/worker/requirements.txt]
"""
_DODO = "from venvflow.tasks import *\n"
TOOLS = {
    "uv": "",
    "poetry": '[[tool.poetry.source]]\nname = "local"\nurl = "{index}"\n',
    "pdm": "",
    "pip-tools": "",
}
"""What the project of a tool says in its pyproject.toml for that tool alone: poetry knows no other way."""

_PYPROJECT = """\
[build-system]
requires = ["flit_core"]
build-backend = "flit_core.buildapi"

[project]
name = "my-app"
version = "1.0"
description = "Greets"
requires-python = ">=3.10"
dependencies = ["click==8.2.1"]

[project.scripts]
my-app = "my_app:main"

"""
_APP = 'import click\n\n\ndef main():\n    print("hello from click", click.__version__)\n'
_TEST = "import unittest\n\n\nclass Smoke(unittest.TestCase):\n    def test_it(self):\n        import click\n"


class World:
    """A home directory below *root*, with wheels for its builders; *wheelhouse* may be shared by several."""

    def __init__(self, root: Path, wheelhouse: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.project = self.home / "my-monorepo"
        self.wheelhouse = wheelhouse
        self.settings: dict[str, str] = {}
        self.programs: list[str] = []
        """Directories with programs that are to be found before ours."""
        self.project.mkdir(parents=True)
        for name, version in (*_PACKAGES.items(), *_OLDER.items()):
            self.wheel(name, version)

    def wheel(self, name: str, version: str) -> Path:
        """Return the wheel of a package, made when it is not there."""
        made = self.wheelhouse / f"{name}-{version}-py3-none-any.whl"
        if made.exists():
            return made
        source = f'"""The package {name}."""\n\n__version__ = "{version}"\n'
        filling = {f"{name}/part_{number}.py": _filling(number) for number in range(8)}
        return make_wheel(self.wheelhouse, name, version, modules={f"{name}/__init__.py": source, **filling})

    def furnish(self, *, config: bool = True) -> None:
        """Put the project that the how-tos begin with into the home: two services, locked; no venvs yet."""
        wheel = {name: self.wheel(name, version) for name, version in _PACKAGES.items()}
        requirements(self.project / "services/api", [wheel["click"]])
        requirements(self.project / "services/worker", [wheel["click"], wheel["tabulate"]])
        for service in ("api", "worker"):
            package = self.project / "services" / service / "tests"
            package.mkdir()
            (package / "test_smoke.py").write_text(_TEST)
        if config:
            (self.project / "venvflow.yaml").write_text(_CONFIG)
            (self.project / "dodo.py").write_text(_DODO)
        (self.project / ".gitignore").write_text(".venv/\n*.before-venvflow/\n__pycache__/\n")

    @contextmanager
    def app(self, tool: str) -> Iterator[Path]:
        """Put a project that *tool* manages into the home, serve an index for it, and give its path."""
        repack(["flit_core"], self.wheelhouse)
        project = self.home / "my-app"
        with serving(self.wheelhouse) as index:
            project.mkdir()
            (project / "pyproject.toml").write_text(_PYPROJECT + TOOLS[tool].format(index=index))
            (project / "my_app.py").write_text(_APP)
            (project / ".gitignore").write_text(".venv/\n*.before-venvflow/\n__pycache__/\n")
            for name in ("UV_OFFLINE", "UV_NO_INDEX", "UV_FIND_LINKS", "PIP_NO_INDEX", "PIP_FIND_LINKS"):
                self.settings[name] = ""
            self.settings |= {
                "UV_DEFAULT_INDEX": index,
                "PIP_INDEX_URL": index,
                "PDM_PYPI_URL": index,
                "PDM_CHECK_UPDATE": "0",
            }
            yield project

    def clone(self, repository: Path, *, uv: bool = False) -> None:
        """Put a clone of our *repository* into the home, and let pip, or *uv* too, find what it needs."""
        command = [
            "git",
            "-C",
            str(repository),
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]
        tracked = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        for name in filter(None, tracked.split("\0")):
            if (repository / name).is_file():  # else it is gone, and that is not committed yet
                (self.home / "venvflow" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(repository / name, self.home / "venvflow" / name)
        house = self.wheelhouse / "installed"
        if not house.exists():
            project = _TOML.loads((repository / "pyproject.toml").read_text("utf-8"))
            needed = *project["project"]["dependencies"], *project["build-system"]["requires"]
            repack([*needed, *project["project"]["optional-dependencies"]["uv"]], house)
        self.settings |= {"PIP_FIND_LINKS": house.as_uri(), "PIP_NO_COMPILE": "1"}
        if uv:
            self.settings["UV_FIND_LINKS"] = house.as_uri()

    @property
    def environ(self) -> Mapping[str, str]:
        """Return the environment of a person who works here: no settings but where packages come from."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
        others = [os.path.dirname(python) for python in interpreters().values()]
        identity = {
            f"GIT_{who}_{what}": "you" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        found = {
            **own,
            **identity,
            **offline_environment(self.wheelhouse),
            # A page may change the modes of files that are in it, too.
            "UV_CACHE_DIR": str(self.root / "uv-cache"),
            "HOME": str(self.home),
            "PATH": os.pathsep.join([*self.programs, BIN, os.environ["PATH"], *others]),
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(self.root),
            "GIT_CONFIG_GLOBAL": os.devnull,
            **self.settings,
        }
        return {name: value for name, value in found.items() if value}

    def as_told(self, text: str) -> str:
        """Return what a program printed as the reader is told it: the home is theirs, programs are usual."""
        text = text.replace(str(self.home), "/home/you")
        text = re.sub(rf"\bon {re.escape(socket.gethostname())}\b", "on laptop", text)
        text = re.sub(rf"{re.escape(sys.base_prefix)}/bin/", "/usr/bin/", text)
        return re.sub(r"(?:/[^\s/]+)+/versions/3\.[^\s/]+/bin/", "/usr/bin/", text)


def _filling(number: int) -> str:
    lines = "".join(f"VALUE_{index} = {index * number}\n" for index in range(200))
    return f'"""Part {number}."""\n\n{lines}'
