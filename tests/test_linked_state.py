"""The tasks' own state as symlinks, as a checkout may bring them: nothing is written behind one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cli_project import Project
from contents import grow, picture
from tiers import first_quick

NOTES = ("key.json", "restore.json", "build.log", "lock")


@pytest.mark.parametrize(
    "name", first_quick(["", "/api", "/.stats", "/.next", *(f"/api/{note}" for note in NOTES)])
)
def test_nothing_is_written_through_a_link_in_the_state(project: Project, tmp_path: Path, name: str) -> None:
    """A link to a directory, to a file, to nothing: it is refused, or replaced by what belongs there."""
    canary = grow(tmp_path / "canary", {"d/key.json": "precious", "f": "precious"})
    before = picture(canary)
    path = Path(f"{project.root}/.venvflow{name}")
    for target in ("d", "f", "none"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(canary / target)
        for words in (("restore", "api"), ("status",), ("squish", "api")):
            assert project.run(*words).code in (0, 2, 6) or target != "d", words
        assert picture(canary) == before, target
        (path.unlink if path.is_symlink() else lambda: None)()
        assert project.run("restore", "api").code == 0
        shutil.rmtree(project.root / ".venvflow")
        shutil.rmtree(project.root / "api/.venv")


def test_a_linked_state_directory_is_refused_with_what_to_do(project: Project, tmp_path: Path) -> None:
    """To delete a link loses nothing."""
    (tmp_path / "elsewhere").mkdir()
    (project.root / ".venvflow").symlink_to(tmp_path / "elsewhere")
    answer = project.run("restore", "api")
    assert (answer.code, "Delete the link" in answer.err) == (6, True)
    assert not os.listdir(tmp_path / "elsewhere")
