"""What is published is whole: RECORDs are held against venvs of other tools, and against new wheels."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from scenario import BESIDE, PIP, UV, Machine, Project, Run, bytecode_is_valid
from wheels import make_wheel

VENVFLOW = os.path.join(BESIDE, "venvflow")

pytestmark = pytest.mark.slow


@pytest.fixture
def project(machine: Machine) -> Project:
    """Give a project with the lock of one package, whose venv was not made yet."""
    project = machine.project("p", {"api": {}})
    project.lock("api", package(machine))
    return project


def package(machine: Machine) -> Path:
    """Return a wheel of two modules, data and a script."""
    modules = {"alpha/__init__.py": "def main():\n    print('1.0')\n", "alpha/core.py": "CORE = 1\n"}
    scripts, data = {"alpha": "alpha:main"}, {"alpha/table.txt": b"table"}
    machine.wheelhouse = machine.root / "own wheelhouse"  # others have another alpha
    return make_wheel(machine.wheelhouse, "alpha", "1.0", modules=modules, data=data, scripts=scripts)


def install(project: Project, tool: str = "uv") -> None:
    """Let another tool make the venv of the lock."""
    venv = str(project.venv("api"))
    python, lock = f"{venv}/bin/python", str(project.root / "api/requirements.txt")
    commands = {
        "uv": [[UV, "venv", "-q", venv], [UV, "pip", "install", "-q", "--python", python, "-r", lock]],
        "pip": [[sys.executable, "-m", "venv", venv], [python, "-m", "pip", "install", "-q", "-r", lock]],
    }
    for words in commands[tool]:
        run = project.run(words)
        assert run.code == 0, run.text


def venvflow(project: Project, *words: str) -> Run:
    """Run a command."""
    return project.run([VENVFLOW, *words])


@pytest.mark.parametrize("tool", ["uv", PIP])
def test_a_venv_of_another_tool_that_is_not_whole_is_not_stored(
    machine: Machine, project: Project, tool: str
) -> None:
    """Whether a file is gone or has other bytes of the same size; by name, and not at all."""
    install(project, tool)
    core, main = project.site("api") / "alpha/core.py", project.site("api") / "alpha/__init__.py"
    was = core.read_text(), main.read_text()
    core.unlink()
    run = venvflow(project, "store", "api")
    assert (run.code, machine.snapshots()) == (6, []), run.text
    assert "alpha 1.0 lacks alpha/core.py" in run.err
    core.write_text(was[0])
    main.unlink()  # or the edit would be made in uv's cache, too
    main.write_text(was[1].replace("1.0", "2.0"))
    run = venvflow(project, "store", "api")
    assert (run.code, machine.snapshots()) == (6, []), run.text
    assert "alpha 1.0 has other bytes in alpha/__init__.py" in run.err
    main.write_text(was[1])
    script = project.venv("api") / "bin/alpha"
    script.rename(project.root / "alpha")
    assert "lacks bin/alpha" in venvflow(project, "store", "api").err
    (project.root / "alpha").rename(script)
    for cache in project.venv("api").rglob("__pycache__/*.pyc"):
        cache.unlink()
    assert venvflow(project, "store", "api").code == 0
    assert len(machine.snapshots()) == 1


def test_force_stores_what_is_meant_and_says_so_again_elsewhere(machine: Machine, project: Project) -> None:
    """Somebody deleted files to make the venv smaller."""
    install(project)
    (project.site("api") / "alpha/table.txt").unlink()
    said = "not what the RECORDs say: alpha 1.0 lacks alpha/table.txt"
    run = venvflow(project, "store", "api", "--force")
    assert (run.code, said in run.err) == (0, True), run.text
    other = machine.project("other", {"api": {}})
    other.lock("api", package(machine))
    assert other.doit().did["restore:api"].startswith("hit")
    assert said in venvflow(other, "status", "-v").text
    assert other.doit().nothing_to_do


def test_what_the_config_excludes_is_not_damage(machine: Machine, project: Project) -> None:
    """It may be gone before it is shared."""
    project.configure({"api": {"exclude": ["*.txt"]}})
    install(project)
    (project.site("api") / "alpha/table.txt").unlink()
    assert venvflow(project, "store", "api").code == 0


def test_a_stored_venv_that_was_unshared_and_broken_is_not_stored_again(
    machine: Machine, project: Project
) -> None:
    """Its receipt tells, whoever made it."""
    install(project)
    assert venvflow(project, "store", "api").code == 0
    assert venvflow(project, "unsquish", "api").code == 0
    assert venvflow(project, "erase", "--yes").code == 0
    (project.site("api") / "alpha/core.py").unlink()
    run = venvflow(project, "store", "api")
    assert (run.code, machine.snapshots()) == (3, []), run.text
    assert "1 of its files" in run.err


def test_a_venv_that_lacks_files_is_not_shared_by_path_and_an_edit_is_named(project: Project) -> None:
    """An edit of a venv in no config is nobody else's affair; --force shares the other, too."""
    install(project)
    main, core = project.site("api") / "alpha/__init__.py", project.site("api") / "alpha/core.py"
    text = main.read_text()
    main.unlink()
    main.write_text(text.replace("1.0", "2.0"))
    run = venvflow(project, "squish", "api/.venv")
    assert (run.code, "has other bytes in alpha/__init__.py" in run.err) == (0, True), run.text
    core.unlink()
    run = venvflow(project, "squish", "api/.venv")
    assert (run.code, "lacks alpha/core.py" in run.err) == (6, True), run.text
    run = venvflow(project, "squish", "--force", "api/.venv")
    assert (run.code, "lacks alpha/core.py" in run.err) == (0, True), run.text


def test_a_wheel_whose_record_lies_is_told_and_published(machine: Machine, project: Project) -> None:
    """Each build gives the same: it is no venv that broke."""
    honest = make_wheel(machine.root / "honest", "liar", "1.0", scripts={"liar": "liar:main"})
    lying = machine.wheelhouse / honest.name
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(lying, "w") as target:
        for item in source.infolist():
            data = source.read(item)
            target.writestr(item, data + b"# more\n" if item.filename == "liar.py" else data)
    project.lock("api", lying)
    said = "not what the RECORDs say: liar 1.0 has other bytes in liar.py"
    run = project.doit()
    assert run.warnings == f"build-venv:api  warning: {said}"
    assert run.did["store:api"].startswith("stored")
    assert json.loads((project.venv("api") / ".venvflow.json").read_text())["warnings"] == [said]
    lying.unlink()
    assert venvflow(project, "unsquish", "api").code == 0
    assert "build-venv:api" not in project.doit().did  # and no dead end


def test_verify_names_what_came_since_and_is_not_whole(project: Project) -> None:
    """An installer was killed: what it added is named, and what it did not is, too."""
    project.doit()
    info = project.site("api") / "beta-1.0.dist-info"
    info.mkdir()
    empty = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0"
    (info / "RECORD").write_text(f"beta.py,{empty}\nbeta.so,{empty}\n")
    (project.site("api") / "beta.so").write_bytes(b"half")
    shutil.copytree(info, info.parent / "gamma-1.0.dist-info")
    run = venvflow(project, "verify", "api")
    for name in ("beta", "gamma"):
        note = f"  note: {name} 1.0 lacks beta.py and has other bytes in beta.so\n"
        assert (run.code, note in run.out) == (1, True), run.text
    (project.site("api") / "beta.py").touch()
    (project.site("api") / "beta.so").write_bytes(b"")
    run = venvflow(project, "verify", "api")
    assert (run.code, "note:" in run.out) == (1, False), run.text


# --------------------------------------------------------------------------- archives and exports


def test_an_archive_of_a_changed_venv_says_what_is_not_in_it(project: Project) -> None:
    """In one line, whether it is written, there already, or an export; it is of the snapshot."""
    project.configure({"api": {"pack": {"output": "out"}}})
    project.doit()
    words = (["pack", "api"], ["pack", "api", "-o", "out/b.tar"], ["export", "api", "out/{}"])
    for number, each in enumerate(words):
        assert venvflow(project, *(word.format(number) for word in each)).code == 0
    (project.site("api") / "mine.py").touch()
    said = "api: changed since it was shared (added: mine.py): that is not in it\n"
    for number, each in enumerate(words, 3):
        run = venvflow(project, *(word.format(number) for word in each))
        assert (run.code, run.err.count(said)) == (0, 1), run.text
    assert [*(project.root / "out").rglob("alpha/core.py")]
    assert not [*(project.root / "out").rglob("mine.py")]


# --------------------------------------------------------------------------- bytecode


def compiling(then: str) -> list[list[str]]:
    """Return a ``build:`` that compiles what it installs, and *then* runs some Python there."""
    return [
        ["{uv}", "venv", "-q", "--python", "{python}", "{venv}"],
        ["{uv}", "pip", "install", "-q", "--python", "{venv}/bin/python", "-r", "{locks}"],
        ["{venv}/bin/python", "-m", "compileall", "-q", "{venv}/lib"],
        ["{venv}/bin/python", "-B", "-c", then],
    ]


def test_bytecode_that_is_kept_is_valid_wherever_it_comes(machine: Machine, project: Project) -> None:
    """What the build made stale is left out; what is checked by a hash stays as it is."""
    change = (
        "import alpha.core, alpha, os, py_compile; os.utime(alpha.core.__file__, (1, 1));"
        "py_compile.compile(alpha.__file__, cfile=alpha.__file__[:-3] + '.hashed.pyc',"
        "invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH);"
        "file = open(py_compile.compile(alpha.__file__, optimize=1), 'r+b');"
        "file.write(bytes(2)); file.close()"
    )
    venv = {"bytecode": "keep", "build": compiling(change)}
    project.configure({"api": venv})
    project.doit()
    other = machine.project("other", {"api": venv})
    other.lock("api", package(machine))
    assert other.doit().did["restore:api"].startswith("hit")
    caches = [*other.site("api").rglob("__pycache__/*.pyc")]
    sources = {path.parent.parent / f"{path.name.partition('.')[0]}.py" for path in caches}
    assert other.site("api") / "alpha/__init__.py" in sources
    assert other.site("api") / "alpha/core.py" not in sources
    assert [path.name for path in caches if ".opt-1." in path.name] == []  # of another build of this Python
    for root in (project, other):
        site = root.site("api")
        assert [
            path for path in sources if not bytecode_is_valid(site / path.relative_to(other.site("api")))
        ] == []
    assert (other.site("api") / "alpha/__init__.hashed.pyc").exists()
    assert venvflow(project, "squish", "api/.venv").code == 0
    assert project.doit().nothing_to_do


@pytest.mark.parametrize("pattern", ["*.pyc", "__pycache__/"])
def test_bytecode_that_is_excluded_is_in_no_venv(machine: Machine, project: Project, pattern: str) -> None:
    """Neither in one that was built nor in one that was restored; other files are there."""
    venv = {"exclude": [pattern]}
    project.configure({"api": venv})
    project.doit()
    other = machine.project("other", {"api": venv})
    other.lock("api", package(machine))
    assert other.doit().did["restore:api"].startswith("hit")
    for root in (project, other):
        assert [*root.venv("api").rglob("*.pyc")] == []
        assert root.output("api", "alpha") == "1.0"
