"""``venvflow init``: what it writes works, and it never overwrites."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from venvflow.model import StoreConfig
from venvflow.state.registry import Registration
from venvflow.state.store import Store

if TYPE_CHECKING:
    from cli_project import Project


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
    """--check prints the config and the dodo.py as init then writes them, and ends with 1 until then."""
    answer = bare.run("init", "--check")
    assert (answer.code, written(bare)) == (1, [])
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
    """A file in the way is named, and so is a config that is none; nothing is written."""
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
    expected = 6 if name.endswith(".json") else 3 if kind == "dangling link" else 2
    assert (answer.code, answer.out) == (expected, "")
    assert name in answer.err
    assert bare.hashes() == before


def test_a_second_init_finds_nothing_to_write(bare: Project) -> None:
    """The schema and dodo.py that init wrote are no obstacle themselves, and what is missing comes back."""
    bare.run("init")
    text = bare.config.read_bytes()
    for words in (["init"], ["init", "--check"]):
        answer = bare.run(*words)
        assert (answer.code, answer.out) == (0, "")
        assert "has all venvs that were found" in answer.err
    (bare.root / "dodo.py").unlink()
    (bare.root / "venvflow.schema.json").unlink()
    assert sorted(bare.run("init").out.splitlines()) == [f"wrote {bare.root / name}" for name in FILES[:2]]
    assert bare.config.read_bytes() == text
    bare.config.unlink()
    answer = bare.run("init")
    assert (answer.code, answer.out) == (0, f"wrote {bare.config}\n")


def test_a_project_that_grew_gets_the_entries_that_are_missing(bare: Project) -> None:
    """``--check`` ends with 1 and shows them, init shows them too and leaves the config as it is."""
    bare.run("init")
    for name in ("api/more", "new"):
        (bare.root / name).mkdir()
        (bare.root / name / "requirements.txt").write_text("six==1.17.0\n", encoding="utf-8")
    (bare.root / "api" / "requirements-dev.txt").write_text("pluggy==1.5.0\n", encoding="utf-8")
    before = bare.hashes()
    answer = bare.run("init", "--check")
    assert answer.code == 1
    head, _, entries = answer.out.partition("\n")
    assert head == f"# add to {bare.config}, below venvs:"
    assert "it lacks 3 venvs" in answer.err
    document = bare.run("init", "--check", "--json").document
    assert document["config"] == str(bare.config)
    assert document["entries"].strip() == entries.strip()
    assert [each["name"] for each in document["venvs"]] == ["api-dev", "more", "new"]
    again = bare.run("init")
    assert (again.code, again.out) == (0, answer.out)
    assert bare.hashes() == before
    with bare.config.open("a", encoding="utf-8") as file:
        file.write(entries)
    assert bare.run("init", "--check").code == 0
    states = {each["name"] for each in bare.run("status", "--json").document["venvs"]}
    assert states == {"api", "api-dev", "web", "more", "new"}


def test_new_entries_take_no_name_and_no_place_twice(bare: Project) -> None:
    """Where the config uses them already, for other lock files."""
    (bare.root / "deps").mkdir()
    os.rename(bare.root / "api" / "requirements.txt", bare.root / "deps" / "API.txt")
    bare.config.write_text("venvs:\n  web: {path: api/.venv, locks: [deps/API.txt]}\n", encoding="utf-8")
    (bare.root / "api" / "requirements.txt").write_text("six==1.17.0\n", encoding="utf-8")
    venvs = bare.run("init", "--check", "--json").document["venvs"]
    assert [(each["name"], each["path"]) for each in venvs] == [
        ("api", "api/.venv-api"), ("web-2", "web/.venv"),
    ]  # fmt: skip


def test_a_schema_of_another_version_is_told(bare: Project) -> None:
    """Beside a config, it is not in the way; it is left as it is."""
    bare.run("init")
    schema = bare.root / "venvflow.schema.json"
    schema.write_text("{}", encoding="utf-8")
    answer = bare.run("init")
    assert (answer.code, answer.out) == (0, "")
    assert "venvflow.schema.json is not that of this venvflow" in answer.err
    assert schema.read_text(encoding="utf-8") == "{}"


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


def test_what_the_machine_lacks_is_told(bare: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool or a Python that the first doit would miss; the config is written all the same."""
    (bare.root / "api" / ".python-version").write_text("3.98\n", encoding="utf-8")
    for name in ("poetry.lock", "pyproject.toml"):
        (bare.root / "web" / name).touch()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("venvflow.builders.recipe.sys.executable", "/nowhere/python")
    answer = bare.run("init")
    assert answer.code == 0
    assert "warning: api: there is no Python 3.98 on this machine" in answer.err
    assert "warning: web: poetry is not installed. Install it" in answer.err


def test_a_store_in_use_by_others_is_told(
    bare: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever joins a store learns who is there already."""
    monkeypatch.setenv("VENVFLOW_STORE", str(tmp_path / "stocked"))
    assert "in use" not in bare.run("init", "--check").err  # by nobody but this project
    place = str(tmp_path / "other" / ".venv")
    with Store(StoreConfig(str(tmp_path / "stocked"))) as store:
        store.register(Registration(place, str(tmp_path / "other"), "x", "", "", "", (), None, 0.0))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "stocked").rglob("*")}
    answer = bare.run("init", "--check")
    assert "in use already: 1 other project, 1 snapshot" in answer.err
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
    assert bare.run("init", "--check", str(tmp_path / "empty")).code == 1
    answer = bare.run("init", str(tmp_path / "empty"))
    assert (answer.code, "no lock file" in answer.err) == (0, True)
    status = bare.run("-C", str(tmp_path / "empty"), "status")
    assert (status.code, status.out, "no venvs" in status.err) == (0, "", True)


def test_what_cannot_be_written_leaves_nothing(bare: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last file cannot be written, the first ones are taken back."""
    import builtins

    from venvflow.init import draft

    def refuse(path: str, *rest: str, **how: str) -> object:
        if path.endswith("/project/venvflow.yaml"):
            raise OSError(28, "No space left on device", path)
        return builtins.open(path, *rest, **how)  # type: ignore[call-overload]

    monkeypatch.setattr(draft, "open", refuse, raising=False)
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
