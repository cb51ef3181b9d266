"""The config of virtualenv-cache is translated: its venv, its lock files, its store and its limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from contents import grow

from venvflow.config import load
from venvflow.init.discovery import discover
from venvflow.init.draft import render

SAID = """\
[virtualenv-cache]
cache_size = 25
cache_path = "${HOME}/.virtualenv-cache/my-project/cache/"
virtualenv_path = "venvs/main"
requirements_lock_paths = [
    "requirements.txt",
    "./requirements-dev.txt",
    "requirements.txt",
    "setup.py",
]
"""
LOCKS = {"requirements.txt": "six==1.17.0\n", "requirements-dev.txt": "tabulate==0.9.0\n", "setup.py": ""}
ENVIRON = {"HOME": "/home/nobody-here", "PATH": os.defpath}


def test_what_it_says_is_what_the_config_says(tmp_path: Path) -> None:
    """Other files belong to the key; its own entries are no store, so ours lies beside them."""
    root = grow(tmp_path, {**LOCKS, ".virtualenv_cache.toml": SAID, "docs/requirements.txt": "six==1.17.0\n"})
    text = render(discover(str(root), ENVIRON))
    (root / "venvflow.yaml").write_text(text, encoding="utf-8")
    config = load(f"{root}/venvflow.yaml", str(root), ENVIRON)
    assert config.trim.keep == 25
    assert config.store.path == "/home/nobody-here/.virtualenv-cache/my-project/cache/venvflow"
    first, docs = config.venvs.values()
    assert first.path == f"{root}/venvs/main"
    assert first.locks == (f"{root}/requirements.txt", f"{root}/requirements-dev.txt")
    assert first.key_files == (f"{root}/setup.py",)
    assert docs.name == "docs"
    assert "From .virtualenv_cache.toml." in text
    assert text.count("\ntrim:") == 1
    assert discover(str(root), ENVIRON, config).venvs == ()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[virtualenv-cache]\ncache_size = 0\n", []),
        ("[virtualenv-cache]\ncache_size = true\n", []),
        ('[virtualenv-cache]\ncache_path = "$GONE/x"\n', ["# store: "]),
        ('[virtualenv-cache]\ncache_path = "$HOME/x"\n', ["store: "]),
        ('[virtualenv-cache]\ncache_path = "~/x"\n', ["store: "]),
        ("[virtualenv-cache]\nrequirements_lock_paths = 3\nvirtualenv_path = 4\n", []),
        ("virtualenv-cache = 1\n", []),
        ("[[[", []),
        (
            '[virtualenv-cache]\nvirtualenv_path="/v"\nrequirements_lock_paths=["requirements.txt","../x"]',
            ["    # Not taken over, since it lies elsewhere: ../x, /v."],
        ),
    ],
)
def test_what_cannot_be_taken_over_does_no_harm(text: str, lines: list[str], tmp_path: Path) -> None:
    """The config loads all the same; places outside of the project, and unset variables, are told."""
    root = grow(tmp_path, {**LOCKS, ".virtualenv_cache.toml": text})
    written = render(discover(str(root), ENVIRON))
    (root / "venvflow.yaml").write_text(written, encoding="utf-8")
    config = load(f"{root}/venvflow.yaml", str(root), ENVIRON)
    assert f"{root}/.venv" in {spec.path for spec in config.venvs.values()}
    for line in lines:
        assert any(each.startswith(line) for each in written.splitlines())
    assert "\nstore: " not in written or lines == ["store: "]
