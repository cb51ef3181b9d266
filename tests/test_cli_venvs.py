"""``restore`` and ``store``: the venvs of a project, acted on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli_project import Project


# --------------------------------------------------------------------------- restore


def test_restore_answers_with_hit_kept_or_miss(project: Project) -> None:
    """A hit and a venv that is there already are 0, a miss is 1 and makes nothing."""
    hit = project.run("restore", "api")
    assert (hit.code, hit.err) == (0, "")
    assert hit.out.startswith("api: hit: ")
    kept = project.run("restore", "api")
    assert (kept.code, kept.out) == (0, "api: kept: it is what its key says\n")
    miss = project.run("restore", "web")
    assert (miss.code, miss.out) == (1, "web: miss: no snapshot for this key\n")
    assert not (project.root / "web" / ".venv").exists()


def test_restored_scripts_run(project: Project) -> None:
    """The venv that a hit brings works at its place."""
    project.run("restore", "api")
    script = project.root / "api" / ".venv" / "bin" / "demo"
    assert subprocess.run([script], capture_output=True, check=True, text=True).stdout == "1.0\n"


def test_restore_as_json(project: Project) -> None:
    """The document says what was done, for hit and miss alike."""
    from cli_project import blurred

    hit = project.run("restore", "api", "--json").record
    assert hit["figures"]["files"] > 10
    hit["figures"].pop("link")
    assert blurred(hit, project.root) == {
        "venv": "api",
        "key": "<digest>",
        "did": "hit",
        "reason": "<id>",
        "figures": {"bytes": "int", "files": "int", "seconds": "float"},
        "warnings": [],
    }
    miss = project.run("restore", "web", "--json")
    assert miss.code == 1
    assert blurred(miss.record, project.root) == {
        "venv": "web",
        "key": "<digest>",
        "did": "miss",
        "reason": "no snapshot for this key",
        "figures": {},
        "warnings": [],
    }


def test_work_by_hand_is_lost_by_force_only(project: Project) -> None:
    """A changed venv is left alone with a warning, refused for another lock, replaced with --force."""
    project.run("restore", "api")
    mine = project.site / "mine.py"
    mine.write_text("x = 1\n", encoding="utf-8")
    kept = project.run("restore", "api")
    assert (kept.code, "mine.py" in kept.err, mine.exists()) == (0, True, True)
    forced = project.run("restore", "api", "--force")
    assert (forced.code, mine.exists()) == (0, False)


def test_a_changed_venv_of_another_key_is_6(project: Project) -> None:
    """Where a hit would replace somebody's work, it is refused, and it is said what to do."""
    project.run("restore", "api")
    shutil.copytree(project.root / "api", project.root / "web", symlinks=True, dirs_exist_ok=True)
    project.config.write_text(
        project.config.read_text(encoding="utf-8").replace("web: {", "web: {pin: true, "), encoding="utf-8"
    )
    receipt = project.root / "web" / ".venv" / ".venvflow.json"
    said = receipt.read_text(encoding="utf-8").replace("/api/.venv", "/web/.venv")
    receipt.write_text(re.sub('"key": "[0-9a-f]+"', f'"key": "{"0" * 64}"', said), encoding="utf-8")
    (project.root / "web" / ".venv" / "mine.py").write_text("x = 1\n", encoding="utf-8")
    next((project.root / "web" / ".venv").glob("lib/*/site-packages/demo*/METADATA")).unlink()
    answer = project.run("restore", "web")
    assert (answer.code, answer.out) == (6, "")
    assert 'To drop them, run "venvflow build web --force".' in answer.err
    assert (project.root / "web" / ".venv" / "mine.py").exists()


@pytest.mark.parametrize("obstacle", ["symlink", "file", "stranger"])
def test_what_is_no_venv_is_never_replaced(obstacle: str, project: Project) -> None:
    """Neither restore, nor restore by force, nor store touches something that is no venv."""
    place = project.root / "api" / ".venv"

    def kept() -> set[str]:
        return {line for line in project.hashes() if line.startswith((f"{place} ", f"{place}/"))}

    if obstacle == "symlink":
        place.symlink_to(project.root / "web", target_is_directory=True)
    elif obstacle == "file":
        place.write_text("mine", encoding="utf-8")
    else:
        place.mkdir()
        (place / "mine").write_text("mine", encoding="utf-8")
    before = kept()
    for words in ("restore api", "restore api --force", "store api"):
        answer = project.run(*words.split())
        assert (answer.code, answer.out) == (6, "")
    assert kept() == before


@pytest.mark.slow
def test_an_unknown_interpreter_is_3(project: Project) -> None:
    """A Python that this machine does not have is the environment's failure, not a miss."""
    text = project.config.read_text(encoding="utf-8").replace("api: {", 'api: {python: "3.99", ')
    project.config.write_text(text, encoding="utf-8")
    answer = project.run("restore", "api")
    assert (answer.code, "3.99" in answer.err) == (3, True)


# --------------------------------------------------------------------------- store


def _made_by_hand(project: Project) -> Path:
    """Make a venv as another tool would, with traces of what its lock asks for, and return it."""
    venv = project.make_foreign_venv("web")
    (site,) = venv.glob("lib/python*/site-packages")
    for name in ("demo-1.0", "other-2.0"):
        (site / f"{name}.dist-info").mkdir()
        for file in ("METADATA", "RECORD"):
            (site / f"{name}.dist-info" / file).touch()
    return venv


def test_a_venv_of_another_tool_can_be_stored(project: Project) -> None:
    """What somebody made by hand is shared, comes back after it was deleted, and is ours then."""
    venv = _made_by_hand(project)
    stored = project.run("store", "web")
    assert (stored.code, stored.err) == (0, "")
    assert stored.out.startswith("web: stored: ")
    assert project.run("status", "web", "--check").code == 0
    before = sorted(path.relative_to(venv) for path in venv.rglob("*") if "__pycache__" not in path.parts)
    shutil.rmtree(venv)
    assert project.run("restore", "web").code == 0
    after = sorted(path.relative_to(venv) for path in venv.rglob("*") if "__pycache__" not in path.parts)
    assert after == before
    snapshots = project.run("list", "web", "--json").document["snapshots"]
    assert [each["command"] for each in snapshots] == ["venvflow store web"]


def test_storing_twice_is_no_more_than_once(project: Project) -> None:
    """A venv that is stored already is kept, and so is one that was restored."""
    _made_by_hand(project)
    project.run("store", "web")
    again = project.run("store", "web")
    assert (again.code, again.out.startswith("web: kept: ")) == (0, True)
    project.run("restore", "api")
    assert project.run("store", "api").out.startswith("api: kept: ")
    assert len(project.run("list", "--json").document["snapshots"]) == 2


def test_store_without_a_venv_is_3(project: Project) -> None:
    """With nothing there, and with an empty directory, there is nothing to store."""
    for _ in range(2):
        answer = project.run("store", "web")
        assert (answer.code, answer.out) == (3, "")
        assert "there is no venv to store" in answer.err
        (project.root / "web" / ".venv").mkdir(exist_ok=True)


def test_a_venv_that_lacks_what_its_lock_asks_for_is_not_stored(project: Project) -> None:
    """An installer that was stopped, or told to leave something out, leaves such: everybody would get it."""
    venv = _made_by_hand(project)
    (gone,) = venv.glob("lib/python*/site-packages/other-2.0.dist-info")
    shutil.rmtree(gone)
    answer = project.run("store", "web")
    assert (answer.code, answer.out) == (6, "")
    assert "not what its lock files say: it lacks other" in answer.err
    assert project.run("list", "web", "--json").document["snapshots"] == []
    assert project.run("store", "web", "--force").code == 0


@pytest.mark.parametrize("leads", ["nowhere", "to what is gone"])
def test_a_venv_without_its_interpreter_is_not_stored(leads: str, project: Project) -> None:
    """Every restore of it would be a miss."""
    python = _made_by_hand(project) / "bin" / "python"
    python.unlink()
    if leads == "to what is gone":
        python.symlink_to("/gone/bin/python3")
    answer = project.run("store", "web", "--force")
    assert (answer.code, answer.out) == (3, "")
    assert "cannot be used: it does not exist" in answer.err
    assert project.run("list", "web", "--json").document["snapshots"] == []


@pytest.mark.parametrize(
    "line", ["version = 3.1.0", "version_info = 3.1.0.final.0", "version = 20.26.0\nversion_info = 3.1.0"]
)
def test_a_venv_on_another_python_is_refused(line: str, project: Project) -> None:
    """A snapshot that lies about its Python would be restored everywhere: it is not made."""
    venv = _made_by_hand(project)
    config = venv / "pyvenv.cfg"
    lines = [each for each in config.read_text(encoding="utf-8").splitlines() if "version" not in each]
    config.write_text("\n".join([*lines, line, ""]), encoding="utf-8")
    answer = project.run("store", "web")
    assert (answer.code, answer.out) == (6, "")
    assert 'python: "3.1"' in answer.err
    assert project.run("list", "web", "--json").document["snapshots"] == []


def test_other_tools_spell_versions_their_own_way(project: Project) -> None:
    """A tool that writes its own version, and Python's with the release level, is understood."""
    venv = _made_by_hand(project)
    config = venv / "pyvenv.cfg"
    lines = [each for each in config.read_text(encoding="utf-8").splitlines() if "version" not in each]
    version = ".".join(map(str, sys.version_info[:3]))
    config.write_text(
        "\n".join([*lines, "version = 20.26.0", f"version_info = {version}.final.0", ""]), encoding="utf-8"
    )
    assert project.run("store", "web").code == 0


def test_work_by_hand_does_not_slip_into_a_snapshot(project: Project) -> None:
    """Storing a shared venv that was changed since says that the change is not in the snapshot."""
    project.run("restore", "api")
    (project.site / "mine.py").write_text("x = 1\n", encoding="utf-8")
    answer = project.run("store", "api")
    assert answer.code == 0
    assert "mine.py" in answer.err
    project.run("restore", "api", "--force")
    assert not (project.site / "mine.py").exists()


@pytest.mark.slow
def test_the_cache_recipe(project: Project, tmp_path: Path) -> None:
    """``restore || (make it && store)`` makes a venv once; the second time and elsewhere it is a hit."""
    bin_directory = str(Path(sys.executable).parent)
    environ = {**os.environ, "PATH": f"{bin_directory}:{os.environ['PATH']}"}
    recipe = (
        "venvflow restore web || (echo MAKING && "
        f"uv venv --quiet --python {sys.executable} web/.venv && "
        "uv pip install --quiet --python web/.venv -r web/requirements.txt && venvflow store web)"
    )

    def follow(root: Path) -> str:
        result = subprocess.run(
            ["sh", "-c", recipe], cwd=root, env=environ, text=True, capture_output=True, check=False
        )
        assert result.returncode == 0, result.stderr
        scripts = subprocess.run(
            [root / "web" / ".venv" / "bin" / "demo"], capture_output=True, check=True, text=True
        )
        assert scripts.stdout == "1.0\n"
        return result.stdout

    assert "MAKING" in follow(project.root)
    shutil.rmtree(project.root / "web" / ".venv")
    assert "MAKING" not in follow(project.root)
    other = tmp_path / "another checkout"
    shutil.copytree(project.root, other, ignore=shutil.ignore_patterns(".venv", ".venvflow"))
    assert "MAKING" not in follow(other)
    assert str(project.root) not in (other / "web" / ".venv" / "bin" / "demo").read_text(encoding="utf-8")
