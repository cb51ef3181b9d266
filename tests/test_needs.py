"""What a venv needs outside of itself: found in what installers write for editable installs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from venvflow.state.needs import lacking, portable, remember

TAG = "cpython-312"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with sources, build products and a venv; beside it, another project."""
    for name in ("app/.venv/lib/python3.12/site-packages/x-1.dist-info", "app/build/cp312", "app/src/pkg",
                 "app/src/other/lib", "app/src/.hidden", "away/src", "app/loose"):  # fmt: skip
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "app/src/other/pyvenv.cfg").touch()
    return tmp_path / "app"


def put(project: Path, name: str, text: str) -> None:
    """Write a file of site-packages."""
    text = text.replace("ROOT", str(project)).replace("AWAY", str(project.parent / "away"))
    (project / ".venv/lib/python3.12/site-packages" / name).write_text(text)


def needs_of(project: Path) -> tuple[str, ...]:
    """Return what the venv of *project* needs, as a snapshot has it."""
    found = remember(str(project / ".venv"), str(project), TAG)
    assert all(map(os.path.isabs, found))
    return portable(found, str(project))


@pytest.mark.parametrize(
    ("name", "text", "needs"),
    [
        ("a.pth", "ROOT/src\n# ROOT/loose\nROOT/gone\n../x\n", ["src"]),
        ("a.pth", "AWAY/src\n", ["AWAY/src"]),
        ("a.pth", "import sys; sys.path.append('ROOT/loose')\n", ["loose"]),
        ("a.egg-link", "ROOT/src\n.\n", ["src"]),
        (
            "_pkg_editable_loader.py",
            "install({'pkg'}, 'ROOT/build/cp312', ['ROOT/no/ninja'])\n",
            ["build/cp312"],
        ),
        ("__editable___pkg_1_finder.py", "MAPPING = {'pkg': 'ROOT/src/pkg'}\n", ["src/pkg"]),
        ("__editable___pkg_1_finder.py", "this is no Python 'ROOT/src'\n", []),
        ("pkg.py", "X = 'ROOT/src'\n", []),
        ("a.pth", "ROOT\nROOT/.venv/lib\n/\n", []),
    ],
)
def test_paths_that_editable_installs_lead_to_are_needed(
    project: Path, name: str, text: str, needs: list[str]
) -> None:
    """As far as they are there; not the project itself, and nothing in the venv."""
    put(project, name, text)
    away = str(project.parent / "away")
    assert [path.replace(away, "AWAY") for path in needs_of(project)] == needs


@pytest.mark.parametrize(("editable", "needs"), [(True, ("src",)), (False, ())])
def test_a_local_source_is_needed_only_if_it_is_editable(
    project: Path, editable: bool, needs: tuple[str, ...]
) -> None:
    """What was copied into the venv works without it."""
    url = {"url": f"file://{project}/src", "dir_info": {"editable": editable}}
    put(project, "x-1.dist-info/direct_url.json", json.dumps(url))
    assert needs_of(project) == needs


def test_extension_modules_in_the_sources_are_needed(project: Path) -> None:
    """Those for this Python; not those in other venvs, in hidden directories, or for other Pythons."""
    modules = ("pkg/a.cpython-312-x86_64-linux-gnu.so", "pkg/b.abi3.so")
    for name in (*modules, "pkg/c.cpython-310-x.so", "pkg/d.so", "other/lib/e.abi3.so", ".hidden/f.abi3.so"):
        (project / "src" / name).touch()
    put(project, "a.pth", "ROOT/src\n")
    assert needs_of(project) == ("src", *(f"src/{name}" for name in modules))


def test_compiled_modules_beside_the_project_are_not_its_own(project: Path) -> None:
    """A line may name what the project lies in, or the root of all: nobody looks through a whole disk."""
    (project.parent / "others").mkdir()
    (project.parent / "others/a.abi3.so").touch()
    (project.parent / "others/link").symlink_to(project.parent)
    lines = "{0}\n{0}/others/..\n{0}/others/link\n/{0}\n/\n//\n"
    put(project, "a.pth", lines.format(project.parent))
    assert needs_of(project) == (str(project.parent), f"{project.parent}/others/link")


def test_the_first_that_is_not_here_is_named(project: Path) -> None:
    """In the project by its path in it, elsewhere by its whole path."""
    needs = ("build/cp312", str(project.parent / "away"), "build/gone", "/nowhere/x")
    assert lacking(needs, str(project)) == "build/gone"
    assert lacking(needs[:2], str(project)) == ""
    assert lacking(needs[3:], str(project)) == "/nowhere/x"
