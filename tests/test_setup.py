"""What `make run` and `make test` install: locked whole, with hashes, for every Python that is supported."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOML = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
ROOT = Path(__file__).parent.parent
PYPROJECT = TOML.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYTHONS = [f"3.{minor}" for minor in range(10, 16)]

_PROJECT = [*PYPROJECT["project"]["dependencies"], *PYPROJECT["project"]["optional-dependencies"]["uv"]]
_GROUPS: dict[str, list[str]] = PYPROJECT["dependency-groups"]
ASKED = {
    "setup": _GROUPS["setup"],
    "run": [*_PROJECT, *_GROUPS["setup"]],
    "test": [*_PROJECT, *(word for group in _GROUPS.values() for word in group)],
}


def locked(name: str) -> list[str]:
    """Return what a lock file lists: a logical line each, without comments."""
    text = (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8").replace("\\\n", "")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def pins(name: str, python: str) -> dict[str, str]:
    """Return the versions by name that *python* gets from a lock file; none is there twice."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    found: dict[str, str] = {}
    for line in locked(name):
        requirement = Requirement(line.partition(" --hash")[0])
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert found.setdefault(canonicalize_name(requirement.name), str(requirement.specifier)[2:])
    return found


@pytest.mark.parametrize("name", ASKED)
def test_everything_is_pinned_with_hashes_and_from_nowhere_in_particular(name: str) -> None:
    """One version and its hashes a line; no index and no address, so whoever installs uses his own."""
    for line in locked(name):
        assert re.fullmatch(r"[a-z0-9-]+==[^ ]+( ; [^-]+)?( +--hash=sha256:[0-9a-f]{64})+", line), line
    assert "//" not in (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", ASKED)
def test_what_pyproject_asks_for_is_locked_for_every_python(name: str, python: str) -> None:
    """A dependency that is new there, or another limit, is not forgotten: make relock."""
    versions = pins(name, python)
    for word in ASKED[name]:
        requirement = Requirement(word)
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version, prereleases=True), (word, version)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_files_agree(python: str) -> None:
    """What ``make run`` installed, ``make test`` adds to and does not change."""
    everything = pins("test", python).items()
    assert pins("setup", python).items() <= pins("run", python).items() <= everything


def test_the_supported_pythons_are_named_alike_everywhere() -> None:
    """In the package's own description, in CI and in ``make pythons``."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    listed = re.search(r"^PYTHONS := (.*)$", MAKEFILE, re.MULTILINE)

    assert re.findall(r"Python :: (3\.\d+)", str(PYPROJECT["project"]["classifiers"])) == PYTHONS
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == PYTHONS
    assert listed
    assert listed.group(1).split() == PYTHONS
