"""A venv that is what its lock says is taken, whoever made it so; what lies beyond the lock stays in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from scenario import BESIDE, PIP, UV, Machine, Project, Run
from wheels import make_project

VENVFLOW = os.path.join(BESIDE, "venvflow")
PYTHON = os.path.realpath(sys.executable)


def _made(machine: Machine) -> Project:
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"), machine.wheel("beta"))
    project.doit()
    return project


@pytest.fixture
def project(machine: Machine) -> Project:
    """Give a project whose venv was built by uv."""
    return machine.made_once(_made)


def update(project: Project) -> None:
    """Bring lock and venv to another version, as a tool does, before doit sees it."""
    project.lock("api", project.machine.wheel("alpha", "2.0"), project.machine.wheel("beta"))
    sync(project)


def sync(project: Project) -> None:
    """Let uv bring the venv to its lock."""
    uv(project, "sync", "-q", "api/requirements.txt")


def uv(project: Project, *words: str) -> None:
    """Let uv do something to the venv."""
    run = project.run([UV, "pip", *words, "--python", str(project.venv("api"))])
    assert run.code == 0, run.text


def taken(run: Run) -> str:
    """Return what a run said of taking the venv, after seeing that it built nothing."""
    assert "build-venv:api" not in run.did, run.text
    assert run.did["restore:api"].startswith("taken: "), run.text
    return run.did["restore:api"]


def elsewhere(project: Project) -> Project:
    """Return another checkout, whose venv was restored from what was published."""
    other = Project(project.machine, project.machine.root / "elsewhere")
    shutil.copytree(project.root, other.root, ignore=shutil.ignore_patterns(".venv", ".venvflow"))
    assert other.doit().did["restore:api"].startswith("hit")
    return other


def status(project: Project) -> tuple[str, str]:
    """Return the state of the venv, and why."""
    (row,) = json.loads(project.run([VENVFLOW, "status", "--json"]).out)["venvs"]
    return row["state"], row["reason"]


def test_a_venv_that_its_tool_brought_to_the_new_lock_is_taken(project: Project) -> None:
    """It is shared, stored and remembered, and other checkouts get what the tool made."""
    update(project)
    run = project.doit()
    assert taken(run).startswith("taken: uv made it what its lock says, ")
    assert run.warnings == ""
    assert run.did["store:api"].startswith("stored")
    assert project.doit().nothing_to_do
    assert status(project) == ("up to date", "")
    assert project.run([VENVFLOW, "verify"]).code == 0
    other = elsewhere(project)
    assert other.output("api", "alpha") == "2.0"
    assert os.path.samefile(project.site("api") / "alpha.py", other.site("api") / "alpha.py")
    assert str(project.root) not in (other.venv("api") / "bin" / "alpha").read_text()


def test_what_is_foretold_of_a_venv_that_is_taken_is_done(project: Project) -> None:
    """Asking the tool changes nothing; what it says is not the last word, so it is not certain."""
    update(project)
    before = {str(path): path.lstat().st_mtime_ns for path in project.root.rglob("*")}
    told = json.loads(project.run([VENVFLOW, "explain", "api", "--json"]).out)["tasks"]
    assert {str(path): path.lstat().st_mtime_ns for path in project.root.rglob("*")} == before
    foretold = {each["task"]: each["did"] for each in told if each["would"] == "run"}
    assert (foretold["restore:api"], foretold["store:api"]) == ("taken", "stored")
    assert set(project.doit().did) == set(foretold) - {"trim"}


@pytest.mark.slow
def test_a_local_project_that_the_config_wants_is_not_beyond_the_lock(machine: Machine) -> None:
    """Whoever installed it, from where the config says; without it, the venv is not what is asked for."""
    project = machine.project("p", {"api": {"editable": ["local"]}})
    make_project(project.root / "local", "local")
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    update(project)
    assert "missing: " in project.doit(code=6).err  # uv took away what its lock does not name
    uv(project, "install", "-q", "--no-deps", "-e", "local")
    run = project.doit()
    assert taken(run).startswith("taken: uv made it what its lock says, ")
    assert run.warnings == ""
    assert project.doit().nothing_to_do


@pytest.mark.slow
def test_a_venv_is_held_against_what_the_config_chooses_from_the_lock(machine: Machine) -> None:
    """Not against what the tool would install by itself."""
    project = machine.project("p", {"api": {"locks": ["api/uv.lock"], "dev": False, "groups": ["docs"]}})
    asked = {name: f'["{name} @ {machine.wheel(name).as_uri()}"]' for name in ("alpha", "beta", "gamma")}
    (project.root / "api").mkdir(exist_ok=True)
    (project.root / "api" / "pyproject.toml").write_text(
        f'[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = {asked["alpha"]}\n'
        f"[dependency-groups]\ndev = {asked['beta']}\ndocs = {asked['gamma']}\n"
    )
    for words in (["lock"], ["sync", "--no-dev", "--group=docs"]):
        assert project.run([UV, *words, "-q", "-p", PYTHON], cwd=project.root / "api").code == 0
    assert taken(project.doit()).startswith("taken: uv made it what its lock says, ")
    assert project.run([UV, "sync", "-q", "-p", PYTHON], cwd=project.root / "api").code == 0
    assert "missing: gamma 1.0" in project.doit().text


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["it's mine", "another"])
def test_a_venv_is_taken_if_it_has_the_prompt_that_is_asked_for(machine: Machine, prompt: str) -> None:
    """Else it is built, so that it has that one."""
    project = machine.project("p", {"api": {"prompt": "it's mine"}})
    project.lock("api", machine.wheel("alpha"))
    assert project.run([UV, "venv", "-q", "--prompt", prompt, str(project.venv("api"))]).code == 0
    sync(project)
    assert ("build-venv:api" in project.doit().did) == (prompt == "another")
    assert "prompt = it's mine" in (project.venv("api") / "pyvenv.cfg").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("builder", ["uv", PIP])
def test_a_venv_of_pip_is_taken_at_the_first_run(machine: Machine, builder: str) -> None:
    """As CI makes it, with a pip that no lock names: nothing is kept beside, nothing built."""
    project = machine.project("p", {"api": {"build": builder}})
    lock = project.lock("api", machine.wheel("alpha"))
    seeded = [] if builder == "pip" else ["--without-pip"]
    subprocess.run([PYTHON, "-m", "venv", *seeded, project.venv("api")], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(project.venv("api")), "install", "-q"]
    for words in (["-r", str(lock)], *([[str(machine.wheel("pip"))]] if seeded else [])):
        installed = project.run([*pip, *words])
        assert installed.code == 0, installed.text
    run = project.doit()
    assert taken(run).startswith("taken: pip made it what its lock says, ")
    assert run.warnings == ""
    assert not list((project.root / "api").glob(".venv.*"))
    assert project.doit().nothing_to_do
    assert status(project) == ("up to date", "")
    assert project.run([VENVFLOW, "verify"]).code == 0
    assert (project.site("api") / "pip-1.0.dist-info").exists() == bool(seeded)
    assert project.output("api", "pip", "--version")
    other = elsewhere(project)
    assert other.output("api", "alpha") == "1.0"
    assert (other.venv("api") / "bin" / "pip").exists() == (builder == "pip")


@pytest.mark.slow
def test_a_package_that_was_installed_again_is_taken(project: Project) -> None:
    """The lock is the same, and other bytes are in the venv: an installer put them there."""
    pip = [sys.executable, "-m", "pip", "--python", str(project.venv("api")), "install", "-q"]
    done = project.run([*pip, "--no-deps", "--force-reinstall", "alpha==1.0"])
    assert done.code == 0, done.text
    run = project.doit()
    taken(run)
    assert run.warnings == ""
    assert "store:api" not in run.did
    assert project.doit().nothing_to_do
    assert status(project) == ("up to date", "")


def test_what_lies_beyond_the_lock_is_told_kept_and_not_published(project: Project) -> None:
    """A further package, a loose file, an edit: the rest is shared and stored all the same."""
    update(project)
    uv(project, "install", "-q", str(project.machine.wheel("gamma")))
    site = project.site("api")
    (site / "mine.py").write_text("MINE = 1\n")
    beta = (site / "beta.py").read_bytes()
    (site / "beta.py").unlink()
    (site / "beta.py").write_bytes(beta + b"print('hello')\n")
    scripts = [project.venv("api") / "bin" / name for name in ("activate", "activate_this.py")]
    for script in scripts:
        script.write_text(script.read_text() + "TOKEN='secret'\n")
    run = project.doit()
    taken(run)
    assert "beyond the lock (added: gamma 1.0" in run.warnings
    assert "edited: beta.py" in run.warnings
    assert "while it was shared" not in run.warnings
    for _ in range(2):
        assert (site / "mine.py").read_text() == "MINE = 1\n"
        assert project.output("api", "gamma") == "1.0"
        assert (site / "beta.py").read_bytes() != beta
        assert all("TOKEN" in script.read_text() for script in scripts)
        again = project.doit()
        assert not again.did
        assert "changed by hand (added: gamma 1.0" in again.warnings
    assert status(project)[0] == "changed by hand"
    other = elsewhere(project)
    assert (other.site("api") / "beta.py").read_bytes() == beta
    for script in scripts:
        assert "TOKEN" not in (other.venv("api") / "bin" / script.name).read_text()
    assert {path.stem for path in other.site("api").glob("*.py")} == {"alpha", "beta"}
    assert not (other.venv("api") / "bin" / "gamma").exists()
    compiled = project.run([f"{other.venv('api')}/bin/python", "-c", "import beta"])
    assert compiled.out == ""


def older(project: Project) -> None:
    """Let the tool bring the venv to something else."""
    update(project)
    uv(project, "install", "-q", str(project.machine.wheel("alpha", "0.9")))


def incomplete(project: Project) -> None:
    """Let a package be missing."""
    update(project)
    uv(project, "uninstall", "-q", "beta")


def edited(project: Project) -> None:
    """Edit a file whose right bytes nobody has."""
    update(project)
    file = project.site("api") / "alpha.py"
    text = file.read_text()
    file.unlink()
    file.write_text(text + "# more\n")


def half_gone(project: Project) -> None:
    """Let a file of a package be missing, which the tool does not see."""
    update(project)
    (project.site("api") / "alpha.py").unlink()


def without_record(project: Project) -> None:
    """Let nothing say which files a package has."""
    update(project)
    next(project.site("api").glob("alpha-*/RECORD")).unlink()


def hostile(project: Project) -> None:
    """Let a RECORD list what is not in the venv."""
    update(project)
    record = next(project.site("api").glob("alpha-*/RECORD"))
    record.write_text(record.read_text() + "../../../../../../../etc/passwd,,\n")


def open_to_the_system(project: Project) -> None:
    """Let the venv see packages that are not in it."""
    update(project)
    settings = project.venv("api") / "pyvenv.cfg"
    settings.write_text(
        settings.read_text().replace("site-packages = false", "site-packages = true") + "x = y\n"
    )
    assert "= true" in settings.read_text()


@pytest.mark.parametrize(
    "change", [older, incomplete, edited, half_gone, without_record, hostile, open_to_the_system]
)
def test_what_is_not_the_lock_is_not_taken(project: Project, change: object) -> None:
    """Somebody's work comes first: it is left as it is, and nothing of it is stored."""
    assert callable(change)
    change(project)
    snapshots = project.machine.snapshots()
    files = sorted((str(path), path.lstat().st_size) for path in project.venv("api").rglob("*"))
    run = project.doit(code=6)
    assert "changed by hand" in run.err
    assert 'run "venvflow build api --force"' in run.err
    assert sorted((str(path), path.lstat().st_size) for path in project.venv("api").rglob("*")) == files
    assert project.machine.snapshots() == snapshots


@pytest.mark.slow
def test_what_lies_beyond_the_lock_is_dropped_by_the_command_that_is_named(project: Project) -> None:
    """The venv is what its lock says then, and nothing more."""
    update(project)
    uv(project, "install", "-q", str(project.machine.wheel("gamma")))
    run = project.doit()
    taken(run)
    assert 'To drop them, run "venvflow build api --force".' in run.warnings
    assert (project.site("api") / "gamma.py").exists()
    ran = project.run([VENVFLOW, "build", "api", "--force"])
    assert ran.code == 0, ran.text
    assert not (project.site("api") / "gamma.py").exists()
    assert project.output("api", "alpha") == "2.0"
    assert project.doit().nothing_to_do


# --------------------------------------------------------------------------- poetry, pdm, pipenv

HEAD = '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.10"\n'
POETRY = f'{HEAD}dependencies = ["{{}}"]\n[tool.poetry]\npackage-mode = false\n'
PDM = f'{HEAD}dependencies = ["{{}}"]\n[tool.pdm]\ndistribution = false\n'


@pytest.mark.long  # the pages on poetry and pdm show that their venvs are taken
@pytest.mark.parametrize(
    ("tool", "file", "text", "sync"),
    [
        ("poetry", "pyproject.toml", POETRY, ("sync",)),
        ("pdm", "pyproject.toml", PDM, ("sync",)),
        ("pipenv", "Pipfile", '[packages]\nalpha = {{file = "{}"}}\n', ("sync",)),
    ],
)
def test_other_tools_bring_their_venvs_to_the_lock(
    machine: Machine, tool: str, file: str, text: str, sync: tuple[str, ...]
) -> None:
    """Before doit was there, and after the lock changed; a package beyond it stays, and is not published."""
    lock = {"pipenv": "Pipfile.lock"}.get(tool, f"{tool}.lock")
    project = machine.project("p", {"api": {"locks": [f"api/{lock}"], "build": tool}})
    (project.root / "api").mkdir()

    def let(version: str) -> None:
        wheel = machine.wheel("alpha", version).as_uri()
        asked = f"alpha @ {wheel}" if tool != "pipenv" else wheel
        (project.root / "api" / file).write_text(text.format(asked))
        of_the_tool(project, tool, "lock")
        of_the_tool(project, tool, *sync)

    subprocess.run([PYTHON, "-m", "venv", "--without-pip", project.venv("api")], check=True)
    let("1.0")
    run = project.doit()
    installer = "pip" if tool == "pipenv" else tool
    assert taken(run).startswith(f"taken: {installer} made it what its lock says, ")
    unhashed = [line for line in run.warnings.splitlines() if line.endswith("there is no hash")]
    assert (len(unhashed), run.warnings.count("\n")) == (int(tool == "pipenv"), 0), run.warnings
    assert project.doit().nothing_to_do
    let("2.0")
    uv(project, "install", "-q", str(machine.wheel("gamma")))
    run = project.doit()
    taken(run)
    assert "beyond the lock (added: gamma 1.0" in run.warnings
    other = elsewhere(project)
    assert other.output("api", "alpha") == "2.0"
    assert not (other.site("api") / "gamma.py").exists()


def of_the_tool(project: Project, tool: str, *words: str) -> None:
    """Run a tool in the directory of the lock, for the venv there."""
    env = {"VIRTUAL_ENV": str(project.venv("api")), "PDM_IGNORE_SAVED_PYTHON": "1", "PDM_CHECK_UPDATE": "0"}
    run = project.run([os.path.join(BESIDE, tool), *words], cwd=project.root / "api", env=env)
    assert run.code == 0, run.text
