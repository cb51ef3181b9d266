"""Files that a venv has for itself, by the config or because programs copy them; settings that change."""

from __future__ import annotations

import json
import os
import shutil
import stat

import pytest
from scenario import BESIDE, PIP, Machine, Project

VENVFLOW = os.path.join(BESIDE, "venvflow")

pytestmark = pytest.mark.slow


FILES = {
    "kit/__init__.py": "", "kit/templates/env.py": "a = 1\n",
    "kit/starter/a.txt": "start\n", "kit/table.csv": "1,2\n",
}  # fmt: skip
SEALED, OWN = (0o444, True), (0o644, False)


@pytest.fixture(params=["uv", PIP])
def project(machine: Machine, request: pytest.FixtureRequest) -> Project:
    """Give a project with a package that has a template, a starter and a table."""
    project = machine.project("p", {"api": {"build": request.param, "squish": {"link": ["hardlink"]}}})
    project.lock("api", machine.wheel("kit", modules=FILES, scripts={}))
    project.doit()
    return project


def looks(project: Project) -> dict[str, tuple[int, bool]]:
    """Return the modes of the files of the package, and whether they have other names."""
    found = {}
    for path in ("templates/env.py", "starter/a.txt", "table.csv"):
        st = os.stat(project.site("api") / "kit" / path)
        found[path] = stat.S_IMODE(st.st_mode), st.st_nlink > 1
    return found


def settle(project: Project, **squish: object) -> None:
    """Change the settings: the next run shares the venv anew and does no more, the one after it nothing."""
    built, config = project.built_at("api"), json.loads(project.config.read_text())
    config["venvs"]["api"]["squish"] = {"link": ["hardlink"], **squish}
    project.config.write_text(json.dumps(config))
    told = json.loads(project.run([VENVFLOW, "explain", "api", "--json"]).out)["tasks"]
    planned = {each["task"]: each["reason"] for each in told if each["would"] == "run"}
    assert planned == {"squish:api": "squish: its settings changed"}
    assert [*project.doit().did] == ["squish:api"]
    assert project.doit().nothing_to_do
    assert project.built_at("api") == built
    assert project.run([VENVFLOW, "verify"]).code == 0


def test_what_programs_copy_out_is_the_venvs_own_and_can_be_saved(project: Project) -> None:
    """As ``alembic init`` does: other files are read-only, whoever built the venv, and by whatever links."""
    assert looks(project) == {"templates/env.py": OWN, "starter/a.txt": SEALED, "table.csv": SEALED}
    shutil.rmtree(project.venv("api"))
    assert project.doit().did["restore:api"].startswith("hit")
    assert looks(project) == {"templates/env.py": OWN, "starter/a.txt": SEALED, "table.csv": SEALED}


def test_changed_settings_are_applied_by_the_next_run(project: Project) -> None:
    """The venv is shared anew, and not built: patterns, sizes and ways to link, there and back again."""
    settle(project, private=["**/starter/"])
    assert looks(project) == {"templates/env.py": OWN, "starter/a.txt": OWN, "table.csv": SEALED}
    settle(project, min_size=5)
    assert looks(project) == {"templates/env.py": OWN, "starter/a.txt": SEALED, "table.csv": OWN}
    settle(project, link=["copy"])
    assert set(looks(project).values()) == {OWN}
    settle(project)
    assert looks(project) == {"templates/env.py": OWN, "starter/a.txt": SEALED, "table.csv": SEALED}


def test_a_private_file_is_restored_as_such_and_its_edit_is_seen(project: Project) -> None:
    """It is stored as others are; who writes into it changes this venv alone, by hand."""
    settle(project, private=["*.csv"])
    shutil.rmtree(project.venv("api"))
    project.doit()
    assert looks(project)["table.csv"] == OWN
    assert project.doit().nothing_to_do
    (project.site("api") / "kit" / "table.csv").write_text("3,4\n")
    assert "changed by hand (edited: kit/table.csv)" in project.doit().text
    assert project.run([VENVFLOW, "verify", "--heal"]).code == 0
    assert (project.site("api") / "kit" / "table.csv").read_text() == "3,4\n"


def test_a_venv_that_was_changed_by_hand_keeps_its_ways(project: Project) -> None:
    """What is somebody's is not shared: new settings wait until it is settled, and no run fails for them."""
    (project.site("api") / "mine.py").write_text("mine = 1\n")
    config = json.loads(project.config.read_text())
    config["venvs"]["api"]["squish"] = {"link": ["copy"]}
    project.config.write_text(json.dumps(config))
    assert "squish:api" not in project.doit().did
    (project.site("api") / "mine.py").unlink()
    assert [*project.doit().did] == ["squish:api"]
