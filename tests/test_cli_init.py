"""``venvflow init``: what it writes works, and it never overwrites."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli_project import Project

pytest_plugins = ("cli_project",)

FILES = ["dodo.py", "venvflow.schema.json", "venvflow.yaml"]


@pytest.fixture
def bare(project: Project) -> Project:
    """Return a project that has lock files only, and a store of its own that is not there yet."""
    project.config.unlink()
    os.rename(project.store, project.root.parent / "stocked")
    return project


def written(project: Project) -> list[str]:
    """Return what lies in the project's root besides the lock files."""
    return sorted(path.name for path in project.root.iterdir() if path.name not in ("api", "web"))


def test_init_writes_config_schema_and_dodo(bare: Project) -> None:
    """Three files are written, named on standard output, and the next step is told."""
    answer = bare.run("init")
    assert answer.code == 0
    assert written(bare) == FILES
    assert sorted(answer.out.splitlines()) == [f"wrote {bare.root / name}" for name in FILES]
    assert 'run "doit"' in answer.err
    status = bare.run("status", "--json").document
    assert [(each["name"], each["state"]) for each in status["venvs"]] == [
        ("api", "not built"), ("web", "not built"),
    ]  # fmt: skip


def test_the_schema_beside_the_config_is_the_shipped_one(bare: Project) -> None:
    """The config's first line points to a schema that is there."""
    bare.run("init")
    first = bare.config.read_text(encoding="utf-8").splitlines()[0]
    assert first.endswith("$schema=./venvflow.schema.json")
    schema = (bare.root / "venvflow.schema.json").read_text(encoding="utf-8")
    assert schema == bare.run("schema").out


def test_check_shows_all_and_writes_nothing(bare: Project) -> None:
    """--check prints the config and the dodo.py as init then writes them."""
    answer = bare.run("init", "--check")
    assert (answer.code, written(bare)) == (0, [])
    document = bare.run("init", "--check", "--json").document
    assert document["written"] is False
    assert written(bare) == []
    bare.run("init")
    for name in ("dodo.py", "venvflow.yaml"):
        assert (bare.root / name).read_text(encoding="utf-8") in answer.out
    assert {Path(each["path"]).name: each["text"] for each in document["files"]} == {
        name: (bare.root / name).read_text(encoding="utf-8") for name in FILES
    }


def test_json_says_what_was_found(bare: Project) -> None:
    """Venvs, locks and notes are in the document."""
    document = bare.run("init", "--json").document
    assert document["written"] is True
    assert [(each["name"], each["path"], each["locks"]) for each in document["venvs"]] == [
        ("api", "api/.venv", ["api/requirements.txt"]),
        ("web", "web/.venv", ["web/requirements.txt"]),
    ]
    assert written(bare) == FILES


@pytest.mark.parametrize("name", ["venvflow.yaml", "config/venvflow.yaml", "venvflow.schema.json"])
@pytest.mark.parametrize("kind", ["file", "dangling link", "directory"])
def test_init_overwrites_nothing(name: str, kind: str, bare: Project) -> None:
    """A file in the way is named, with exit code 6, and nothing is written."""
    path = bare.root / name
    path.parent.mkdir(exist_ok=True)
    if kind == "file":
        path.write_text("mine", encoding="utf-8")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    before = bare.hashes()
    answer = bare.run("init")
    assert (answer.code, answer.out) == (6, "")
    assert name in answer.err
    assert bare.hashes() == before


def test_a_second_init_names_the_config_alone(bare: Project) -> None:
    """The schema and dodo.py that init wrote are no obstacle themselves."""
    bare.run("init")
    answer = bare.run("init")
    assert answer.code == 6
    assert "venvflow.yaml is there already" in answer.err
    bare.config.unlink()
    answer = bare.run("init")
    assert (answer.code, answer.out) == (0, f"wrote {bare.config}\n")


@pytest.mark.parametrize(
    ("files", "has_dodo", "advice"),
    [
        ({"dodo.py": "x = 1\n"}, True, "from venvflow.tasks import *"),
        ({"dodo.py": "from venvflow.tasks import *\n"}, True, ""),
        ({"pyproject.toml": '[tool.doit]\nloader = "venvflow"\n'}, False, ""),
        ({"pyproject.toml": '[tool.doit]\nloader = "other"\n'}, False, "venvflow.tasks"),
        ({"pyproject.toml": '[tool.black]\nloader = "other"\n'}, True, ""),
    ],
)
def test_doit_that_is_set_up_already_is_left_alone(
    files: dict[str, str], has_dodo: bool, advice: str, bare: Project
) -> None:
    """A dodo.py or a loader of the user stays as it is; what to add is said."""
    for name, text in files.items():
        (bare.root / name).write_text(text, encoding="utf-8")
    answer = bare.run("init")
    assert answer.code == 0
    assert (bare.root / "dodo.py").exists() == has_dodo
    for name, text in files.items():
        assert (bare.root / name).read_text(encoding="utf-8") == text
    assert advice in answer.err
    assert ("warning" in answer.err) == bool(advice)


def test_a_store_in_use_by_others_is_told(
    bare: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever joins a store learns who is there already."""
    monkeypatch.setenv("VENVFLOW_STORE", str(tmp_path / "stocked"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "stocked").rglob("*")}
    answer = bare.run("init", "--check")
    assert "in use already: 0 other projects, 1 snapshot" in answer.err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "stocked").rglob("*")} == before
    monkeypatch.setenv("VENVFLOW_STORE", str(tmp_path / "new"))
    assert "in use" not in bare.run("init", "--check").err
    assert not (tmp_path / "new").exists()


def test_a_config_above_is_told(bare: Project) -> None:
    """Whoever makes a project in a project learns which config counts where."""
    bare.run("init")
    answer = bare.run("init", "api")
    assert answer.code == 0
    assert str(bare.config) in answer.err
    assert (bare.root / "api" / "venvflow.yaml").exists()


def test_a_directory_without_lock_files_gets_a_config_to_fill(tmp_path: Path, bare: Project) -> None:
    """With nothing to find, init says so and the config still loads."""
    (tmp_path / "empty").mkdir()
    answer = bare.run("init", str(tmp_path / "empty"))
    assert (answer.code, "no lock file" in answer.err) == (0, True)
    status = bare.run("-C", str(tmp_path / "empty"), "status")
    assert (status.code, status.out, "no venvs" in status.err) == (0, "", True)


def test_what_cannot_be_written_leaves_nothing(bare: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last file cannot be written, the first ones are taken back."""
    import builtins

    from venvflow.cli import init

    def refuse(path: str, *rest: str, **how: str) -> object:
        if path.endswith("/project/venvflow.yaml"):
            raise OSError(28, "No space left on device", path)
        return builtins.open(path, *rest, **how)  # type: ignore[call-overload]

    monkeypatch.setattr(init, "open", refuse, raising=False)
    answer = bare.run("init")
    assert (answer.code, answer.out) == (3, "")
    assert "No space left" in answer.err
    assert written(bare) == []


def test_a_venv_at_a_dangerous_place_is_refused(bare: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store below a future venv is refused with 6, before anything is written."""
    monkeypatch.setenv("VENVFLOW_STORE", str(bare.root / "api" / ".venv" / "store"))
    answer = bare.run("init")
    assert (answer.code, answer.out, written(bare)) == (6, "", [])


@pytest.mark.slow
def test_init_then_doit_is_all_there_is_to_it(bare: Project) -> None:
    """The written config and dodo.py work as they stand: doit builds, and then has nothing to do."""
    assert bare.spawn("init").returncode == 0
    # Its own bin is on the path, so that doit finds uv there.
    bin_directory = str(Path(sys.executable).parent)
    environ = {**os.environ, "PATH": f"{bin_directory}:{os.environ['PATH']}"}
    for summary in ("done", "nothing to do"):
        result = subprocess.run(
            [f"{bin_directory}/doit"],
            cwd=bare.root, env=environ, text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert summary in result.stdout
    states = {each["state"] for each in bare.run("status", "--json").document["venvs"]}
    assert states == {"up to date"}
