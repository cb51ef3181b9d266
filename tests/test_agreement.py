"""Whether a venv is what its lock says: what tools say of it, and what is compared for those that cannot."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from venvflow.builders import agreement as module
from venvflow.builders import pins
from venvflow.builders.agreement import Agreement, agreement, lacking
from venvflow.builders.build import Build
from venvflow.builders.recipe import Recipe
from venvflow.model import Interpreter, VenvSpec

VERSION = ".".join(map(str, sys.version_info[:3]))
PYTHON = Interpreter(
    os.path.realpath(sys.executable), "", "cpython", VERSION, "", "", str(sys.implementation.cache_tag), ""
)
URL = "https://host.example/beta-1.0-py3-none-any.whl"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def build_of(tmp_path: Path, recipe: Recipe, lock: str = "requirements.txt", text: str = "") -> Build:
    """Return the order to build what a lock file says, for a venv that is in its place."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / lock).write_text(text)
    venv = tmp_path / ".venv"
    (venv / "lib" / "python3" / "site-packages").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    spec = VenvSpec("api", str(venv), (str(tmp_path / lock),))
    return Build(spec, recipe, str(tmp_path), str(venv), PYTHON, {}, os.devnull)


def install(build: Build, name: str, version: str, origin: Mapping[str, object] | None = None) -> None:
    """Put the traces of a distribution into the venv."""
    directory = Path(build.staging) / "lib" / "python3" / "site-packages" / f"{name}-{version}.dist-info"
    directory.mkdir()
    (directory / "METADATA").write_text("")
    if origin is not None:
        (directory / "direct_url.json").write_text(json.dumps(origin))


# --------------------------------------------------------------------------- what tools say

UV_NOTHING = "Would use project environment at: .venv\nChecked 2 packages in 1ms\nWould make no changes\n"
UV_REMOVE = "Resolved 1 package in 9ms\nWould uninstall 1 package\n - six==1.17.0\n"
POETRY = "Installing dependencies from lock file\n\nPackage operations: {}\n\n"
NONE = "0 installs, 0 updates,"
SKIPPED = "  - Installing demo (1.0): Skipped for the following reason: Already installed\n"
PDM = "STATUS: Resolving packages from lockfile...\n"

SAYS: dict[str, tuple[str, str, set[str] | None]] = {
    "uv: nothing": ("uv", UV_NOTHING, set()),
    "uv: one beyond": ("uv", UV_REMOVE, {"six"}),
    "uv: two beyond": ("uv", "Would uninstall 2 packages\n - six==1\n - Zope.I==2\n", {"six", "zope-i"}),
    "uv: fewer named than counted": ("uv", "Would uninstall 2 packages\n - six==1\n", None),
    "uv: other versions": (
        "uv", "Would uninstall 1 package\nWould install 1 package\n - a==1\n + a==2\n", None,
    ),
    "uv: again": ("uv", "Would uninstall 1 package\nWould install 1 package\n ~ a==1\n", None),
    "uv: another venv": ("uv", "Would replace project environment at: .venv\nWould make no changes\n", None),
    "uv: silence": ("uv", "", None),
    "poetry: nothing": ("poetry", POETRY.format(f"{NONE} 0 removals, 1 skipped") + SKIPPED, set()),
    "poetry: nothing, in other words": ("poetry", "No dependencies to install or update\n", set()),
    "poetry: beyond": (
        "poetry", POETRY.format(f"{NONE} 1 removal") + "  - Removing six (1.17)\n" + SKIPPED, {"six"},
    ),
    "poetry: missing": ("poetry", POETRY.format("1 install, 0 updates, 0 removals"), None),
    "poetry: older": ("poetry", POETRY.format("0 installs, 1 update, 0 removals"), None),
    "poetry: itself": (
        "poetry", POETRY.format(f"{NONE} 0 removals") + "Installing the current project: x (1)\n", None
    ),
    "poetry: something new": ("poetry", "All is well\n", None),
    "pdm: nothing": ("pdm", PDM + "All packages are synced to date, nothing to do.\n", set()),
    "pdm: beyond": ("pdm", PDM + "Packages to remove:\n  - six 1.17.0\n", {"six"}),
    "pdm: older": ("pdm", PDM + "Packages to update:\n  - idna 3.8 -> 3.7\n", None),
    "pdm: missing": ("pdm", PDM + "Packages to add:\n  - a 1\nPackages to remove:\n  - six 1.17.0\n", None),
    "pdm: silence": ("pdm", "", None),
}  # fmt: skip


@pytest.mark.parametrize(("tool", "said", "beyond"), SAYS.values(), ids=SAYS)
def test_what_a_tool_says_is_understood_or_a_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, said: str, beyond: set[str] | None
) -> None:
    """To remove something contradicts no lock; what is not known, does."""
    build = build_of(tmp_path, Recipe(tool, (("create",), ("fill",))))
    (tmp_path / "pyproject.toml").write_text("[tool.pdm]\ndistribution = false\n")
    monkeypatch.setattr(module, "check_venv", lambda _build: None)
    monkeypatch.setattr(module, "_said", lambda _build, *_options: said)
    assert agreement(build) == (None if beyond is None else Agreement(frozenset(beyond)))


PIPFILE = '{"default": {"six": {"version": "==1"}}, "develop": {}}'
LACKS: dict[str, tuple[str, str, str, str, list[str]]] = {
    "requirements": ("uv", "requirements.txt", "Six==1.17\nidna==3\n", "", ["six"]),
    "for another platform": ("pip", "requirements.txt", "x==1 ; sys_platform == 'win32'\n", "", []),
    "pylock": ("pip", "pylock.toml", "packages = [{name = 'six', version = '1'}]", "", ["six"]),
    "pipenv": ("pipenv", "Pipfile.lock", PIPFILE, "", ["six"]),
    "all is there": ("pip", "requirements.txt", "idna==3\n", "", []),
    "left open": ("pip", "requirements.txt", "idna\nsix==1\n", "", []),
    "the user's own commands": ("commands", "requirements.txt", "six==1\n", "", []),
    "uv": ("uv", "uv.lock", "", " - a==1\n + a==2\n + Zope.I==2\n", ["zope-i"]),
    "uv fails": ("uv", "uv.lock", "", "", []),
    "poetry": ("poetry", "poetry.lock", "", "  - Installing six (1.17)\n" + SKIPPED, ["six"]),
    "pdm": ("pdm", "pdm.lock", "", "Packages to add:\n  - a 1\n", []),
}  # fmt: skip


@pytest.mark.parametrize("case", LACKS.values(), ids=LACKS)
def test_what_a_venv_lacks_is_named_where_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, str, str, str, list[str]]
) -> None:
    """What is for other platforms is not missing; of a lock that leaves something open nothing is said."""
    tool, lock, text, said, names = case
    build = build_of(tmp_path, Recipe(tool, (("create",), ("fill",))), lock, text)
    install(build, "idna", "3")
    monkeypatch.setattr(module, "_said", lambda _build, *_options: said)
    assert lacking(build) == names


def test_what_the_system_has_is_not_missing(tmp_path: Path) -> None:
    """A venv that sees it needs none of its own."""
    build = build_of(tmp_path, Recipe("pip", (("create",), ("fill",))), text="six==1\n")
    assert lacking(build) == ["six"]
    spec = replace(build.spec, system_site_packages=True)
    assert lacking(replace(build, spec=spec)) == []


def test_a_tool_that_fails_hangs_or_is_not_there_is_a_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it said before."""
    monkeypatch.setattr(module, "check_venv", lambda _build: None)
    monkeypatch.setattr(module, "_SECONDS", 0.2)
    build = build_of(tmp_path, Recipe("uv", (("true",), ("sh", "-c", "echo Would make no changes", "sh"))))
    assert agreement(build) == Agreement(frozenset())
    for words in (
        ("sh", "-c", "echo Would make no changes; exit 2"),
        ("sh", "-c", "echo Would make no changes; sleep 9"),
        ("/no/such/tool",),
        ("{pdm}{uv}",),
    ):
        build.recipe = Recipe("uv", (("true",), words))
        assert agreement(build) is None, words
    build.recipe = Recipe("commands", (("true",), ("echo", "Would make no changes")))
    assert agreement(build) is None


@pytest.mark.parametrize("line", ["include-system-site-packages = true", "Include-System-Site-Packages=TRUE"])
def test_a_venv_that_sees_the_packages_of_the_system_is_a_no(tmp_path: Path, line: str) -> None:
    """A build makes none like it."""
    build = build_of(tmp_path, Recipe("pip", (("create",), ("fill",))))
    Path(build.staging, "pyvenv.cfg").write_text(f"home = /usr/bin\n{line}\n")
    assert agreement(build) is None


# --------------------------------------------------------------------------- what is compared

EDITABLE = {"url": "file:///project/pkg", "dir_info": {"editable": True}}
PINNED: dict[str, tuple[str, list[tuple[str, str, Mapping[str, object] | None]], list[str] | None]] = {
    "the same": ("a==1.0 --hash=sha256:00\n", [("a", "1.0", None)], []),
    "spelled otherwise": ("A_b==1\n", [("a.b", "1.0.0", None)], []),
    "one beyond": ("a==1.0\n", [("a", "1.0", None), ("b", "2", None)], ["b"]),
    "another version": ("a==1.0\n", [("a", "1.1", None)], None),
    "a local version": ("a==1.0\n", [("a", "1.0+cpu", None)], None),
    "one missing": ("a==1.0\nb==1\n", [("a", "1.0", None)], None),
    "not pinned": ("a>=1.0\n", [("a", "1.0", None)], None),
    "not pinned at all": ("a\n", [("a", "1.0", None)], None),
    "any of a series": ("a==1.*\n", [("a", "1.0", None)], None),
    "of another platform": ('a==1.0\nb==1; sys_platform == "win32"\n', [("a", "1.0", None)], []),
    "of another Python": ('b==1; python_version < "3"\n', [], []),
    "from elsewhere": ("a==1.0\n", [("a", "1.0", {"url": URL})], None),
    "from its URL": (f"b @ {URL}#sha256=00\n", [("b", "1.0", {"url": URL})], []),
    "from another URL": (f"b @ {URL}\n", [("b", "1.0", {"url": f"{URL}.zip"})], None),
    "from its commit": (
        f"a @ git+https://host.example/a@{COMMIT}\n",
        [("a", "1.0", {"url": "https://host.example/a", "vcs_info": {"commit_id": COMMIT}})],
        [],
    ),
    "from a branch": (
        "a @ git+https://host.example/a@main\n",
        [("a", "1.0", {"url": "https://host.example/a", "vcs_info": {"commit_id": COMMIT}})],
        None,
    ),
    "editable": ("-e /project/pkg\n", [("pkg", "1.0", EDITABLE)], []),
    "editable, not from there": ("-e /project/other\n", [("pkg", "1.0", EDITABLE)], None),
    "copied from a directory": (
        "pkg @ file:///project/pkg\n", [("pkg", "1.0", {"url": "file:///project/pkg", "dir_info": {}})], None
    ),
    "twice": ("a==1.0\n", [("a", "1.0", None), ("A", "1.1", None)], None),
    "no requirement": ("???\n", [], None),
    "no file": ("-r nowhere.txt\n", [], None),
    "no file, written together": ("-rnowhere.txt\n", [], None),
    "no file, behind a tab": ("--requirement\tnowhere.txt\n", [], None),
    "editable, written together": ("-e/project/other\n", [("pkg", "1.0", EDITABLE)], None),
    "itself, for ever": ("-r requirements.txt\n", [], None),
    "a note that makes no sense": ("a==1.0\n", [("a", "1.0", {"url": 3})], None),
}  # fmt: skip


@pytest.mark.parametrize(("text", "there", "beyond"), PINNED.values(), ids=PINNED)
def test_names_versions_and_origins_are_compared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    there: list[tuple[str, str, Mapping[str, object] | None]],
    beyond: list[str] | None,
) -> None:
    """What is left open, or cannot be told for sure, agrees with no venv."""
    build = build_of(tmp_path, Recipe("pip", (("create",), ("fill",))), text=text)
    monkeypatch.setattr(module, "check_venv", lambda _build: None)
    for each in there:
        install(build, *each)
    assert agreement(build) == (None if beyond is None else Agreement(frozenset(beyond)))


def test_other_lock_files_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they pin for this machine; of pipenv, without what is for developers."""
    monkeypatch.setattr(module, "check_venv", lambda _build: None)
    pipfile = {
        "default": {"a": {"version": "==1.0"}},
        "develop": {"b": {"version": "==2", "markers": "os_name=='x'"}},
    }
    pylock = 'packages = [{name="a", version="1.0"}, {name="b", version="2", marker="os_name==\'x\'"}]'
    for lock, text in (("Pipfile.lock", json.dumps(pipfile)), ("pylock.toml", pylock)):
        build = build_of(tmp_path / lock.lower(), Recipe("pip", (("create",), ("fill", "--dev"))), lock, text)
        assert agreement(build) is None
        install(build, "a", "1.0")
        assert agreement(build) == Agreement(frozenset())
        Path(tmp_path / lock.lower() / lock).write_text("[]")
        assert agreement(build) is None


def test_a_project_itself_is_installed_with_its_commands(tmp_path: Path) -> None:
    """An editable project from here, whose commands are those that it has now."""
    build = build_of(tmp_path, Recipe("poetry", (("create",), ("fill",))))
    scripts = '[project]\nname = "x"\n[project.scripts]\nx = "x:main"\n'
    (tmp_path / "pyproject.toml").write_text(scripts)
    assert not module._has_itself(build, "x", "1", str(tmp_path))
    install(build, "x", "1", {"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    assert not module._has_itself(build, "x", "1", str(tmp_path))
    points = next(Path(build.staging).glob("lib/*/*/*.dist-info")) / "entry_points.txt"
    points.write_text("[console_scripts]\nx = x:main\n")
    assert pins.installed(build.staging)["x"].commands == {"console_scripts": {"x": "x:main"}}
    assert module._has_itself(build, "x", "1", str(tmp_path))
    assert not module._has_itself(build, "x", "2", str(tmp_path))
    (tmp_path / "pyproject.toml").write_text(f'{scripts}y = "x:other"\n')
    assert not module._has_itself(build, "x", "1", str(tmp_path))


def test_a_project_of_a_setup_py_is_as_it_says_if_it_was_installed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only running it would tell its name and its commands."""
    monkeypatch.setattr(module, "check_venv", lambda _build: None)
    build = build_of(tmp_path, Recipe("pip", (("create",), ("fill",))))
    build.spec = replace(build.spec, editable=("lib",))
    lib = tmp_path / "lib"
    lib.mkdir()
    (lib / "setup.py").touch()
    install(build, "other", "1", {"url": lib.as_uri()})
    metadata = Path(build.staging) / "lib" / "python3" / "site-packages" / "x-1.dist-info" / "METADATA"
    install(build, "x", "1", {"url": lib.as_uri(), "dir_info": {"editable": True}})
    changed = (lib / "setup.py").stat().st_ctime_ns
    for since, agrees in ((-1, False), (0, False), (1, True)):
        os.utime(metadata, ns=(changed + since, changed + since))
        assert (agreement(build) is not None) == agrees
    os.utime(metadata, ns=(changed + 10**12, changed + 10**12))
    assert agreement(build) == Agreement(frozenset({"other"}))
    os.utime(lib / "setup.py", (0, 0))  # its time says nothing, when that was given to it does
    os.utime(metadata, ns=(changed + 1, changed + 1))
    assert agreement(build) is None
