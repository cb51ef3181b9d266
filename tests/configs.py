"""Configs for tests: a project to read them in, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from venvflow.config import load
from venvflow.errors import ConfigError
from venvflow.model import Config


def project(parent: Path) -> Path:
    """Make a project with a lock file at its top, and a home beside it."""
    root = parent / "project"
    root.mkdir()
    (parent / "home").mkdir()
    (root / "lock.txt").write_text("six==1.17.0\n")
    return root


def read(root: Path, text: str | bytes, **environ: str) -> Config:
    """Load *text* as the config of *root*."""
    file = root / "venvflow.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    variables = {"HOME": str(root.parent / "home"), **environ}
    return load(str(file), str(root), variables)


def problems(root: Path, text: str | bytes, **environ: Any) -> list[str]:
    """Return the problems of *text*, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        read(root, text, **environ)
    prefix = f"{root}/venvflow.yaml:"
    assert all(problem.startswith(prefix) for problem in caught.value.problems)
    assert caught.value.exit_code == 2
    return [problem.removeprefix(prefix) for problem in caught.value.problems]


def one_venv(line: str = "", path: str = ".venv") -> str:
    """Return a config of one venv with *line* added to it."""
    return f"venvs:\n  api:\n    path: {path}\n    locks: [lock.txt]\n    {line}\n"
