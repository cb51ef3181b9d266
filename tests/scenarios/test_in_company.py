"""The venv's own tool finds nothing to do after a build and a restore; what it does anyway is no change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scenario import BESIDE, UV, Machine, Project
from wheels import make_project, make_wheel, uv_lock

VENVFLOW = os.path.join(BESIDE, "venvflow")
NOTHING = "Would make no changes"


def company(machine: Machine, tmp_path: Path) -> Machine:
    """Return a machine with a wheelhouse of its own."""
    make_wheel(tmp_path / "house", "alpha", "1.0", scripts={"alpha": "alpha:main"})
    return Machine(machine.root, tmp_path / "house")


def local_packages(root: Path, requires: tuple[str, ...] = ()) -> None:
    """Make a project with a package to edit, one to copy, a wheel and an archive."""
    make_project(root, "demo", requires=requires)
    for name in ("lib1", "lib2", "lib3", "archive"):
        make_project(root / "libs" / name, name)
    make_wheel(root / "vendor", "beta", "1.0", scripts={"beta": "beta:main"})
    backend = "import in_tree_backend as backend; backend.build_sdist('../../vendor')"
    subprocess.run([sys.executable, "-B", "-c", backend], cwd=root / "libs" / "archive", check=True)


def commit(project: Project) -> None:
    """Put the project into git."""
    (project.root / ".gitignore").write_text(".venv\n.venvflow\n__pycache__\n*.before-venvflow\n")
    project.run(["git", "init", "--quiet"])
    project.run(["git", "add", "."])
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    assert project.run(["git", *name, "commit", "--quiet", "-m", "all"]).code == 0


def second_checkout(project: Project) -> Project:
    """Return a worktree, elsewhere, whose files are newer."""
    other = Project(project.machine, project.machine.root / "elsewhere" / "second")
    assert project.run(["git", "worktree", "add", "--quiet", str(other.root)]).code == 0
    return other


def up_to_date(project: Project) -> None:
    """Assert that doit has nothing to do and status knows of no change."""
    run = project.doit()
    assert (run.nothing_to_do, run.warnings) == (True, ""), run.text
    assert project.run([VENVFLOW, "status", "--check"]).code == 0
    assert project.run([VENVFLOW, "verify"]).code == 0


@pytest.mark.slow
def test_uv_finds_nothing_to_do_in_any_checkout(machine: Machine, tmp_path: Path) -> None:
    """After a build, in a new checkout, in a venv that was deleted; and what it does is as it was."""
    project = company(machine, tmp_path).project("p", {"api": {"locks": ["uv.lock"], "path": ".venv"}})
    local_packages(project.root, ("alpha==1.0", "lib1", "lib2", "lib3", "beta", "archive"))
    with (project.root / "pyproject.toml").open("a") as file:
        file.write(
            '[tool.uv.sources]\nlib1 = { path = "libs/lib1", editable = true }\n'
            'lib2 = { path = "libs/lib2" }\n'
            'beta = { path = "vendor/beta-1.0-py3-none-any.whl" }\n'
            'archive = { path = "vendor/archive-0.1.tar.gz" }\n'
            'lib3 = { workspace = true }\n[tool.uv.workspace]\nmembers = ["libs/lib3"]\n'
        )
    with (project.root / "libs" / "lib3" / "pyproject.toml").open("a") as file:
        file.write('[tool.uv]\ncache-keys = [{ git = true }, { file = "**/*.py" }, { env = "DEMO" }]\n')
    uv_lock(project.root, project.machine.wheelhouse, UV, sys.executable)
    commit(project)
    project.doit()
    other = second_checkout(project)
    assert other.doit().did["restore:api"].startswith("hit")
    project.run(["rm", "-rf", ".venv"])
    assert project.doit().did["restore:api"].startswith("hit")
    for checkout in (project, other):
        check = checkout.run([UV, "sync", "--frozen", "--check"])
        assert (check.code, NOTHING in check.err) == (0, True), check.text
        assert checkout.run([UV, "run", "python", "-c", "1"]).text == ""
        up_to_date(checkout)
    (other.root / "pyproject.toml").touch()
    assert "Built demo" in other.run([UV, "run", "python", "-c", "1"]).err
    up_to_date(other)


@pytest.mark.slow
def test_what_was_copied_from_other_sources_is_not_called_new(machine: Machine, tmp_path: Path) -> None:
    """The snapshot has the package as it was in another checkout: uv installs it from here."""
    project = company(machine, tmp_path).project("p", {"api": {"locks": ["uv.lock"], "path": ".venv"}})
    local_packages(project.root, ("lib2",))
    with (project.root / "pyproject.toml").open("a") as file:
        file.write('[tool.uv.sources]\nlib2 = { path = "libs/lib2" }\n')
    uv_lock(project.root, project.machine.wheelhouse, UV, sys.executable)
    commit(project)
    project.doit()
    other = second_checkout(project)
    (other.root / "libs" / "lib2" / "src" / "lib2.py").write_text('VERSION = "new"\n')
    assert other.doit().did["restore:api"].startswith("hit")
    run = other.run([UV, "run", "python", "-c", "import lib2; print(lib2.VERSION)"])
    assert (run.out, "lib2" in run.err) == ("new\n", True)
    assert "demo" not in run.err


@pytest.mark.slow
def test_uv_pip_finds_nothing_to_do(machine: Machine, tmp_path: Path) -> None:
    """All that a requirements file may name."""
    project = company(machine, tmp_path).project("p", {"api": {}})
    api = project.root / "api"
    local_packages(api)
    project.lock(
        "api",
        project.machine.wheelhouse / "alpha-1.0-py3-none-any.whl",
        extra=[
            "-e .", "-e ./libs/lib1", "./libs/lib2", "./vendor/beta-1.0-py3-none-any.whl",
            "./vendor/archive-0.1.tar.gz", f"lib3 @ file://{api}/libs/lib3",
        ],
    )  # fmt: skip
    commit(project)
    project.doit()
    other = second_checkout(project)
    other.doit()
    project.run(["rm", "-rf", "api/.venv"])
    project.doit()
    for checkout in (project, other):
        words = [UV, "pip", "sync", "--python", ".venv/bin/python", "requirements.txt"]
        check = checkout.run([*words, "--dry-run"], cwd=checkout.root / "api")
        assert NOTHING in check.err, check.text
        up_to_date(checkout)
        (checkout.root / "api" / "libs" / "lib2" / "pyproject.toml").touch()
        assert "lib2" in checkout.run(words, cwd=checkout.root / "api").err
        up_to_date(checkout)


@pytest.mark.long
def test_poetry_finds_nothing_to_do(machine: Machine, tmp_path: Path) -> None:
    """But for the project itself, which it installs every time: that is no change."""
    project = company(machine, tmp_path).project("p", {"api": {"locks": ["poetry.lock"], "path": ".venv"}})
    local_packages(project.root)
    with (project.root / "pyproject.toml").open("a") as file:
        file.write(
            '[tool.poetry.dependencies]\nlib1 = { path = "libs/lib1", develop = true }\n'
            'lib2 = { path = "libs/lib2" }\nbeta = { path = "vendor/beta-1.0-py3-none-any.whl" }\n'
        )
    poetry = os.path.join(BESIDE, "poetry")
    environ = {"POETRY_VIRTUALENVS_IN_PROJECT": "true", "POETRY_CACHE_DIR": str(tmp_path / "poetry")}
    assert project.run([poetry, "lock"], env=environ).code == 0
    commit(project)
    project.run(["rm", "-rf", ".venv"])
    project.doit()
    other = second_checkout(project)
    assert other.doit().did["restore:api"].startswith("hit")
    for checkout in (project, other):
        check = checkout.run([poetry, "sync", "--dry-run"], env=environ)
        assert "0 installs, 0 updates, 0 removals, 3 skipped" in check.out, check.text
    assert other.run([poetry, "sync"], env=environ).code == 0
    up_to_date(other)


PIPFILE = """\
[packages]
demo = { path = ".", editable = true }
lib2 = { path = "libs/lib2" }
beta = { path = "vendor/beta-1.0-py3-none-any.whl" }
"""
PDM = """\
[tool.pdm]
distribution = true
[tool.pdm.dev-dependencies]
dev = ["-e file:///${PROJECT_ROOT}/libs/lib2"]
"""
PROJECTS = {
    "pip": ("requirements.txt", "requirements.txt", "-e .\n./libs/lib2\n"),
    "pipenv": ("Pipfile.lock", "Pipfile", PIPFILE),
    "pdm": ("pdm.lock", "pyproject.toml", PDM),
}
AGAIN = {"pip": ["install", "--no-deps", "-r", "requirements.txt"], "pipenv": ["sync"], "pdm": ["sync"]}


@pytest.mark.long
@pytest.mark.parametrize("tool", PROJECTS)
def test_what_a_tool_installs_again_is_no_change(machine: Machine, tmp_path: Path, tool: str) -> None:
    """These install local directories each time, whatever is there."""
    lock, file, text = PROJECTS[tool]
    venv = {"locks": [lock], "path": ".venv", "build": tool}
    project = company(machine, tmp_path).project("p", {"api": venv})
    local_packages(project.root)
    with (project.root / file).open("a") as opened:
        opened.write(text)
    environ = {"PIPENV_VENV_IN_PROJECT": "1", "PIPENV_IGNORE_VIRTUALENVS": "1", "PDM_CHECK_UPDATE": "0"}
    program = os.path.join(BESIDE, tool)
    if tool == "pdm":
        assert project.run([program, "venv", "create"], env=environ).code == 0
    if tool != "pip":
        run = project.run([program, "lock"], env=environ)
        assert run.code == 0, run.text
        project.run(["rm", "-rf", ".venv"])
    commit(project)
    project.doit()
    other = second_checkout(project)
    assert other.doit().did["restore:api"].startswith("hit")
    for checkout in (project, other):
        again = checkout.root / ".venv" / "bin" / "pip" if tool == "pip" else program
        run = checkout.run([str(again), *AGAIN[tool]], env=environ)
        assert run.code == 0, run.text
        run = checkout.doit()
        assert (run.nothing_to_do, run.warnings) == (True, ""), run.text
        assert checkout.run([VENVFLOW, "status", "--check"]).code == 0
