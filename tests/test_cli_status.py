"""``status``: what it says of a venv in every state, how it looks, and what it costs."""

from __future__ import annotations

import os
import pty
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flows import World
from wheels import make_wheel

from venvflow.cli import main
from venvflow.state.reader import open_reader
from venvflow.steps.estimate import Foresight, estimate

if TYPE_CHECKING:
    from cli_project import Project

pytestmark = pytest.mark.slow


def state_of(project: Project, name: str = "api") -> tuple[str, str]:
    """Return state and reason of a venv, after seeing that nothing moved by asking."""
    before = project.hashes()
    document = project.run("status", name, "--json").document
    assert project.hashes() == before
    (venv,) = document["venvs"]
    return venv["state"], venv["reason"]


# --------------------------------------------------------------------------- status


def test_status_is_one_line_for_each_venv(project: Project) -> None:
    """State, Python, packages, size and last use, in at most 80 columns."""
    project.run("restore", "api")
    answer = project.run("status")
    header, api, web = answer.out.splitlines()
    assert header.split() == ["VENV", "STATE", "PYTHON", "PACKAGES", "APPARENT", "OWN", "LAST", "USED"]
    version = ".".join(map(str, sys.version_info[:3]))
    assert api.split()[:6] == ["api", "up", "to", "date", version, "1"]
    assert api.endswith("now")
    assert web.split() == ["web", "not", "built", "-", "-", "-", "-", "-"]
    assert max(map(len, answer.out.splitlines())) <= 80
    assert answer.err == ""


def test_a_venv_of_a_template_says_where_it_comes_from(project: Project) -> None:
    """With -v, status; explain and both in JSON name the template, its line, and the lock file."""
    template = "each:\n  - locks: ['*/requirements.txt']\n"
    project.config.write_text(f"store: {{path: ../store, durability: none}}\n{template}")
    origin = "each[0] in line 3, for web/requirements.txt"
    assert project.run("restore", "api").code == 0
    assert [line.split()[0] for line in project.run("status").out.splitlines()[1:]] == ["api", "web"]
    assert f"web: made by {origin}" in project.run("status", "-v", "web").err
    assert project.run("explain", "web").out.splitlines()[1] == f"made by {origin}"
    assert project.run("explain", "web", "--json").document["origin"] == origin
    assert project.run("status", "web", "--json").document["venvs"][0]["origin"] == origin


def test_status_as_json(project: Project) -> None:
    """The document has these keys, and nothing that depends on the terminal."""
    from cli_project import blurred

    project.run("restore", "api")
    document = project.run("status", "--json").document
    assert blurred(document, project.root.parent) == {
        "config": "<base>/project/venvflow.yaml",
        "root": "<base>/project",
        "store": "<base>/store",
        "ok": False,
        "remote": None,
        "venvs": [
            {
                "name": "api",
                "path": "<base>/project/api/.venv",
                "origin": None,
                "state": "up to date",
                "reason": "",
                "do": "",
                "warnings": [],
                "stored": True,
                "remote": None,
                "python": "str",
                "packages": "int",
                "size": "int",
                "own_size": document["venvs"][0]["size"],
                "last_used": "str",
                "key": "<digest>",
                "wanted": "<digest>",
                "made": "restored",
                "shared": True,
                "link": document["venvs"][0]["link"],
            },
            {
                "name": "web",
                "path": "<base>/project/web/.venv",
                "origin": None,
                "state": "not built",
                "reason": "it is not in the store",
                "do": "doit builds it",
                "warnings": [],
                "stored": False,
                "remote": None,
                "python": None,
                "packages": None,
                "size": None,
                "own_size": None,
                "last_used": None,
                "key": None,
                "wanted": "<digest>",
                "made": None,
                "shared": False,
                "link": None,
            },
        ],
    }


def test_sizes_are_those_of_the_snapshot_or_of_the_files(project: Project) -> None:
    """Status and list agree on what a stored venv takes; without its snapshot the files are counted."""

    def size() -> int:
        found: int = project.run("status", "api", "--json").document["venvs"][0]["size"]
        return found

    project.run("restore", "api")
    (snapshot,) = project.run("list", "--json").document["snapshots"]
    assert size() == snapshot["size"]
    project.run("erase", "--yes")
    files = (project.root / "api" / ".venv").rglob("*")
    assert size() == sum(path.stat().st_size for path in files if path.is_file() and not path.is_symlink())
    assert size() > snapshot["size"]


def test_status_of_some_venvs_only(project: Project) -> None:
    """Named venvs are shown, in the order of the config, each once."""
    document = project.run("status", "web", "api", "web", "--json").document
    assert [each["name"] for each in document["venvs"]] == ["api", "web"]
    assert [each["name"] for each in project.run("status", "web", "--json").document["venvs"]] == ["web"]


def test_a_restored_venv_is_up_to_date(project: Project) -> None:
    """What restore brings is as its lock says."""
    assert state_of(project) == ("not built", "it is in the store")
    project.run("restore", "api")
    assert state_of(project) == ("up to date", "")


def test_a_changed_lock_shows(project: Project) -> None:
    """An edited lock file makes the venv outdated, the edit undone makes it current again."""
    project.run("restore", "api")
    lock = project.root / "api" / "requirements.txt"
    text = lock.read_text(encoding="utf-8")
    lock.write_text(f"{text}# more\n", encoding="utf-8")
    assert state_of(project)[0] == "up to date"  # a comment is for nobody
    lock.write_text(f"{text}--no-binary other\n", encoding="utf-8")
    assert state_of(project) == ("lock changed", "changed since it was made: requirements.txt")
    lock.write_text(text, encoding="utf-8")
    assert state_of(project)[0] == "up to date"
    lock.unlink()
    state, reason = state_of(project)
    assert (state, str(lock) in reason) == ("lock missing", True)


def test_work_by_hand_shows(project: Project) -> None:
    """Files that somebody added or edited are named, also when the lock changed as well."""
    project.run("restore", "api")
    (project.site / "mine.py").write_text("x = 1\n", encoding="utf-8")
    state, reason = state_of(project)
    assert (state, "mine.py" in reason) == ("changed by hand", True)
    (project.root / "api" / "requirements.txt").write_text("demo==1.0\n", encoding="utf-8")
    assert state_of(project)[0] == "changed by hand"


def test_damage_shows(project: Project) -> None:
    """Files that are gone, a venv that was moved, and one without its receipt are damaged."""
    project.run("restore", "api")
    (project.site / "demo.py").unlink()
    state, reason = state_of(project)
    assert (state, "demo.py" in reason) == ("damaged", True)
    os.rename(project.root / "api" / ".venv", project.root / "web" / ".venv")
    assert state_of(project)[0] == "not built"
    state, reason = state_of(project, "web")
    assert (state, "moved here" in reason) == ("damaged", True)
    project.run("restore", "api")
    for name in (".venvflow.json", "pyvenv.cfg"):
        (project.root / "api" / ".venv" / name).unlink()
    assert state_of(project) == ("damaged", "its receipt is gone")


def test_what_is_not_ours_shows(project: Project) -> None:
    """A venv of another tool is told from something that is no venv at all."""
    venv = project.make_foreign_venv()
    assert state_of(project)[0] == "not ours"
    document = project.run("status", "api", "--json").document["venvs"][0]
    assert document["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (document["packages"], document["key"]) == (0, None)
    (venv / "pyvenv.cfg").unlink()
    assert state_of(project) == ("in the way", "the directory at its path is not a venv")
    shutil.rmtree(venv)
    venv.write_text("", encoding="utf-8")
    assert state_of(project) == ("in the way", "there is a file at its path")
    venv.unlink()
    venv.symlink_to(project.root / "web")
    assert state_of(project) == ("in the way", "there is a symlink at its path")


def test_a_lost_state_directory_is_no_matter(project: Project) -> None:
    """Without what the last run wrote down, the key is computed again, and nothing is written."""
    project.run("restore", "api")
    shutil.rmtree(project.root / ".venvflow")
    assert state_of(project) == ("up to date", "")
    lock = project.root / "api" / "requirements.txt"
    lock.write_text("demo==1.0\n", encoding="utf-8")
    assert state_of(project) == ("lock changed", "changed since it was made: requirements.txt")
    assert not (project.root / ".venvflow").exists()


def test_what_a_killed_run_left_is_not_settled_by_looking(project: Project) -> None:
    """Status sees the venv that a killed run had moved aside, and leaves it for the next run."""
    from venvflow.disk import places

    project.run("restore", "api")
    place = places.Place(str(project.root / "api" / ".venv"))
    os.makedirs(f"{place.staging}/old")
    (Path(place.staging) / ".gitignore").write_bytes(places._MARK_TEXT)
    os.rename(place.path, f"{place.staging}/old/.venv")
    state, reason = state_of(project)
    assert (state, "killed" in reason) == ("not built", True)
    assert project.run("restore", "api").out.startswith("api: kept")


@pytest.mark.parametrize("damage", ["gone", "garbage", "empty"])
def test_status_needs_no_index(damage: str, project: Project) -> None:
    """Without a readable index, status works, and neither makes one nor moves it aside."""
    project.run("restore", "api")
    index = project.store / "index.db"
    for suffix in ("-wal", "-shm"):
        Path(f"{index}{suffix}").unlink(missing_ok=True)
    index.unlink()
    if damage != "gone":
        index.write_bytes(b"garbage" * 1000 if damage == "garbage" else b"")
    assert state_of(project)[0] == "up to date"
    (project.site / "mine.py").write_text("x = 1\n", encoding="utf-8")
    assert state_of(project)[0] == "changed by hand"


def test_status_moves_nothing_that_is_damaged_in_the_store(project: Project) -> None:
    """A damaged tree and a damaged snapshot stay where they are for the next run to deal with."""
    project.run("restore", "api")
    records = [*(project.store / "trees").glob("*/*"), *(project.store / "snapshots").iterdir()]
    for path in records:
        path.chmod(0o644)
        path.write_bytes(b"garbage")
    (project.site / "mine.py").write_text("x = 1\n", encoding="utf-8")
    state, reason = state_of(project)
    assert (state, reason) == ("changed by hand", "added: mine.py")
    assert {path.read_bytes() for path in records} == {b"garbage"}


def test_a_place_out_of_reach_is_one_line_not_the_end(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A venv that one may not even look at is said in its line; the others are shown all the same."""
    from venvflow.disk.places import Place
    from venvflow.errors import EnvironmentFailure

    state = Place.state

    def refuse(self: Place, made_inode: int | None = None) -> str:
        if "/api/" in self.path:
            raise EnvironmentFailure("cannot look at the venv's place: Permission denied", where=self.path)
        return state(self, made_inode)

    monkeypatch.setattr(Place, "state", refuse)
    assert state_of(project) == ("in the way", "cannot look at the venv's place: Permission denied")
    assert len(project.run("status").out.splitlines()) == 3


# --------------------------------------------------------------------------- what can be acted upon


def set_in_config(project: Project, name: str, words: str) -> None:
    """Add keys to a venv of the config."""
    text = project.config.read_text(encoding="utf-8")
    project.config.write_text(text.replace(f"{name}: {{", f"{name}: {{{words}, "), encoding="utf-8")


def record_of(project: Project, name: str = "api") -> dict[str, Any]:
    """Return what the JSON says of one venv."""
    (record,) = project.run("status", name, "--json").document["venvs"]
    found: dict[str, Any] = record
    return found


def test_a_venv_that_is_not_built_says_where_it_will_come_from(project: Project) -> None:
    """In the store, doit brings it; otherwise, and with restore switched off, doit builds it."""
    assert (record_of(project)["do"], record_of(project)["stored"]) == ("doit brings it", True)
    assert (record_of(project, "web")["do"], record_of(project, "web")["stored"]) == ("doit builds it", False)
    assert "api: not built: it is in the store; doit brings it" in project.run("status").err
    assert "web: not built" not in project.run("status").err
    set_in_config(project, "api", "restore: false")
    assert (record_of(project)["do"], record_of(project)["stored"]) == ("doit builds it", False)


def test_a_python_that_is_not_installed_is_named(project: Project) -> None:
    """Neither "not built" nor "lock changed", but what has to be installed, and how."""
    project.run("restore", "api")
    set_in_config(project, "api", 'python: "3.99"')
    set_in_config(project, "web", 'python: "3.99"')
    for name in ("api", "web"):
        found = record_of(project, name)
        assert found["state"] == "python missing"
        assert found["reason"] == "there is no Python 3.99 on this machine"
        assert found["do"].startswith('install it ("uv python install 3.99"')
        assert (found["key"] is None) == (name == "web")  # what the venv that is there was made for


def test_a_builder_that_is_not_installed_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is missing is the tool, not the lock file."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))  # beside ours there is a poetry
    monkeypatch.setenv("PATH", os.defpath)
    set_in_config(project, "web", "build: poetry")
    lock = project.root / "web" / "poetry.lock"
    lock.write_text("", encoding="utf-8")
    (project.root / "web" / "pyproject.toml").write_text("", encoding="utf-8")
    text = project.config.read_text(encoding="utf-8")
    project.config.write_text(text.replace("web/requirements.txt", "web/poetry.lock"), encoding="utf-8")
    found = record_of(project, "web")
    assert (found["state"], found["reason"]) == ("builder missing", "poetry is not installed")
    assert "install poetry" in found["do"]


def test_a_lock_that_cannot_be_read_is_named(project: Project) -> None:
    """A directory in the place of a file that the lock includes stops this venv, and says which."""
    lock = project.root / "web" / "requirements.txt"
    lock.write_text("-r more.txt\n", encoding="utf-8")
    (project.root / "web" / "more.txt").mkdir()
    state, reason = state_of(project, "web")
    assert (state, "more.txt" in reason) == ("lock unreadable", True)


@pytest.mark.parametrize(
    ("words", "state", "told"),
    [
        ("exclude: [tests/]", "config changed", "exclude in the config"),
        ("bytecode: none", "config changed", "bytecode in the config"),
        ("key: {env: [SOME_INDEX]}", "config changed", "the variable SOME_INDEX"),
    ],
)
def test_another_setting_is_no_other_lock(words: str, state: str, told: str, project: Project) -> None:
    """What changed is called by its name."""
    project.run("restore", "api")
    set_in_config(project, "api", words)
    assert state_of(project) == (state, f"changed since it was made: {told}")


def test_another_python_is_no_other_lock(project: Project) -> None:
    """The versions before and now are said."""
    from pythons import BASE, interpreters

    others = [path for path in interpreters().values() if path != BASE]
    if not others:
        pytest.skip("there is only one Python on this machine")
    project.run("restore", "api")
    set_in_config(project, "api", f"python: {others[0]}")
    state, reason = state_of(project)
    assert state == "python changed"
    assert f"python (cpython {'.'.join(map(str, sys.version_info[:3]))}, now cpython 3." in reason


def test_a_changed_venv_says_that_its_lock_changed_as_well(project: Project) -> None:
    """Somebody's work comes first, but the other reason is not kept back, nor what can be done."""
    project.run("restore", "api")
    (project.site / "mine.py").write_text("x = 1\n", encoding="utf-8")
    assert "besides" not in record_of(project)["reason"]
    ways = 'to keep the changes, put them into the lock file, then run "doit api". To drop them, run'
    assert record_of(project)["do"].startswith(ways)
    (project.root / "api" / "requirements.txt").write_text("demo==1.0\n", encoding="utf-8")
    assert "besides, it was made for other lock files" in record_of(project)["reason"]
    (project.root / "api" / "requirements.txt").unlink()
    assert "requirements.txt is gone" in record_of(project)["reason"]
    assert record_of(project)["do"].startswith(ways)


def test_a_venv_of_another_tool_is_compared_with_the_lock(project: Project) -> None:
    """Before somebody stores it, it is said that it is something else."""
    venv = project.make_foreign_venv()
    lock = project.root / "api" / "requirements.txt"
    lock.write_text("demo==1.0\n", encoding="utf-8")
    assert state_of(project) == ("not ours", "made by another tool, with nothing in it")
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "demo-2.0.dist-info").mkdir()
    assert state_of(project)[1] == "made by another tool, and not what its lock says: demo 2.0 instead of 1.0"
    (site / "demo-2.0.dist-info").rename(site / "demo-1.0.dist-info")
    (site / "packaging-1.0.dist-info").mkdir()
    assert state_of(project)[1].endswith("packaging 1.0, which no lock names")
    (site / "wheel-1.0.dist-info").mkdir()  # which needs it, and comes with new venvs
    assert state_of(project)[1] == "made by another tool"


# --------------------------------------------------------------------------- --check


def test_check_is_0_only_when_all_is_as_the_locks_say(project: Project) -> None:
    """One venv that is not built is enough for a 1; a venv that is named alone decides alone."""
    project.run("restore", "api")
    assert project.run("status").code == 0
    assert project.run("status", "--check").code == 1
    assert project.run("status", "api", "--check").code == 0
    assert project.run("status", "--check", "--json").document["ok"] is False
    assert project.run("status", "--check", "api", "--json").document["ok"] is True


@pytest.mark.parametrize("wrong", ["lock", "missing", "edited", "gone", "moved", "foreign", "blocked"])
def test_check_is_1_for_whatever_is_wrong(wrong: str, project: Project) -> None:
    """A changed or missing lock, an edit, damage, a move, another tool's venv, a file in the way."""
    project.run("restore", "api")
    venv, lock = project.root / "api" / ".venv", project.root / "api" / "requirements.txt"
    if wrong == "lock":
        lock.write_text("demo==1.0\n", encoding="utf-8")
    elif wrong == "missing":
        lock.unlink()
    elif wrong == "edited":
        (project.site / "mine.py").write_text("", encoding="utf-8")
    elif wrong == "gone":
        (project.site / "demo.py").unlink()
    elif wrong == "moved":
        shutil.rmtree(project.root / "web", ignore_errors=True)
        project.root.rename(project.root.with_name("elsewhere"))
        os.chdir(project.root.with_name("elsewhere"))
    else:
        shutil.rmtree(venv)
        if wrong == "foreign":
            project.make_foreign_venv()
        else:
            venv.write_text("", encoding="utf-8")
    answer = project.run("status", "api", "--check")
    assert (answer.code, "up to date" in answer.out) == (1, False)


def test_a_quiet_check_shows_only_what_is_wrong(project: Project) -> None:
    """Nothing at all where everything is right: as CI and hooks like it."""
    project.run("restore", "api")
    fine = project.run("status", "api", "--check", "-q")
    assert (fine.code, fine.out, fine.err) == (0, "", "")
    answer = project.run("status", "--check", "-q")
    assert [line.split()[0] for line in answer.out.splitlines()] == ["VENV", "web"]
    assert (answer.code, answer.err) == (1, "")
    assert len(project.run("status", "-q").out.splitlines()) == 3


def test_every_state_is_in_the_help(project: Project) -> None:
    """What --check answers is decided for each state, and said."""
    from typing import get_args

    from venvflow.cli.venv_states import State

    said = " ".join(project.run("status", "--help").out.split())
    for state in get_args(State):
        first, _, last = state.rpartition(" ")
        assert first.split(" ")[0] in said
        assert last in said


# --------------------------------------------------------------------------- warnings that stay


def test_a_warning_of_the_build_stays_with_the_venv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a mark, and in words where they are asked for; for restored venvs too, until the lock is full."""
    world = World(tmp_path, tmp_path / "house")
    needy = make_wheel(world.house, "needy", "1.0", requires=["absent>=2"])
    world.configure({"api": {}})
    world.lock("api", needy)

    def said() -> tuple[str, str, list[str], int]:
        capsys.readouterr()
        assert main(["-C", str(world.root), "status", "--check"]) == 0
        assert capsys.readouterr().err == ""
        main(["-C", str(world.root), "explain", "api"])
        explained = " ".join(capsys.readouterr().out.split())
        code = main(["-C", str(world.root), "status", "--check", "-v"])
        out, err = capsys.readouterr()
        assert ("not installed: absent (for needy)" in explained) == ("absent" in err)
        main(["-C", str(world.root), "status", "--json"])
        import json

        (venv,) = json.loads(capsys.readouterr().out)["venvs"]
        return out, err, venv["warnings"], code

    assert any("absent" in warning for warning in world.run()["build_venv"].warnings)
    for _ in range(2):
        out, err, warnings, code = said()
        assert "up to date (!)" in out
        assert "needy" in err
        assert any("absent" in warning for warning in warnings)
        assert code == 0
        shutil.rmtree(world.venv())
        assert world.run()["restore"].warnings == ()
    world.lock("api", needy, make_wheel(world.house, "absent", "2.0"))
    world.run()
    out, err, warnings, _ = said()
    assert ("(!)" in out, err, warnings) == (False, "", [])


# --------------------------------------------------------------------------- own bytes, and edits in place


@pytest.fixture
def pair(tmp_path: Path) -> World:
    """Give two venvs that have one package in common, and one that only ``api`` has."""
    world = World(tmp_path, tmp_path / "house")
    common = make_wheel(world.house, "common", "1.0", data={"common.bin": bytes(500_000)})
    alone = make_wheel(world.house, "alone", "1.0", data={"alone.bin": bytes(range(256)) * 1000})
    world.configure({"api": {}, "web": {}})
    world.lock("api", common, alone)
    world.lock("web", common)
    for name in ("api", "web"):
        world.run(name)
    return world


def look(world: World) -> dict[str, Any]:
    """Return the venvs of a world as status finds them, by name."""
    from venvflow.cli.venv_states import status_rows

    flow = world.flow()
    with open_reader(flow.config.store) as store:
        return {
            each.job.spec.name: each
            for each in status_rows([flow.job(name) for name in flow.config.venvs], store)
        }


def test_own_is_what_no_other_venv_has(pair: World) -> None:
    """A package that two venvs have belongs to neither; deleting one venv gives it to the other."""
    found = look(pair)
    assert 256_000 <= found["api"].figures.own < 400_000
    assert found["web"].figures.own < 100_000
    shutil.rmtree(pair.venv("api"))
    assert look(pair)["web"].figures.own == pytest.approx(found["web"].figures.own + 500_000, abs=10_000)


def test_own_counts_bytes_and_not_packages(tmp_path: Path) -> None:
    """The same bytes in another package, in another venv, belong to neither; twice in one they count once."""
    world = World(tmp_path, tmp_path / "house")
    data = bytes(range(256)) * 2_000
    one = make_wheel(world.house, "one", "1.0", data={"one.bin": data})
    two = make_wheel(world.house, "two", "1.0", data={"two.bin": data, "more.bin": data})
    world.configure({"api": {}, "web": {}})
    world.lock("api", one)
    world.lock("web", two)
    world.run("web")
    assert len(data) < look(world)["web"].figures.own < 2 * len(data)
    world.run("api")
    assert {name for name, each in look(world).items() if each.figures.own > len(data)} == set()


def test_own_counts_what_a_venv_keeps_for_itself(pair: World) -> None:
    """By ``squish: {private: …}``: another venv has the same bytes, and not the same file. Once, too."""
    before = {name: each.figures.own for name, each in look(pair).items()}
    private = {"squish": {"private": ["common.bin", "alone.bin"]}}
    pair.configure({"api": private, "web": private})
    for name in ("api", "web"):
        pair.run(name)
    for name, each in look(pair).items():
        assert each.figures.own == pytest.approx(before[name] + 500_000, abs=10_000)
    with open_reader(pair.flow().config.store) as store:
        foreseen = estimate(store, pair.job("web"), Foresight(), store_path=str(pair.store))
    assert (foreseen.files, foreseen.bytes) == (0, 0)  # a dry run of squish, too


def test_own_counts_the_venvs_of_other_projects(pair: World) -> None:
    """What a venv of another config has too is not this one's own."""
    before = look(pair)["api"].figures.own
    pair.configure({"api": {}})
    assert look(pair)["api"].figures.own == before


def test_own_is_the_index_view_where_both_count(pair: World) -> None:
    """Objects are counted as the view ``venv_sizes`` counts them; private files come on top."""
    import sqlite3

    with sqlite3.connect(pair.store / "index.db") as db:
        views = dict(db.execute("SELECT venv, own_bytes FROM venv_sizes").fetchall())
    db.close()
    for name, each in look(pair).items():
        private = each.figures.own - views[name]
        assert 0 < private < 100_000, name


def test_no_venv_is_walked_that_looks_as_it_was_made(pair: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at the store's objects does for all venvs: a hundred of them are a matter of a moment."""
    from venvflow.cli import venv_states
    from venvflow.state import changes

    walked = []

    def walk(path: str) -> list[Any]:
        walked.append(path)
        return []

    monkeypatch.setattr(venv_states, "walk", walk)
    monkeypatch.setattr(changes, "walk", walk)
    assert {each.judged.state for each in look(pair).values()} == {"up to date"}
    assert walked == []
    pair.module("common").chmod(0o644)
    pair.module("common").write_text("edited\n", encoding="utf-8")
    look(pair)
    assert walked


def test_an_edit_through_a_hard_link_shows_in_every_venv(pair: World) -> None:
    """Who edits a shared file in place edits the store's: all venvs that have it are changed."""
    assert {each.judged.state for each in look(pair).values()} == {"up to date"}
    module = pair.module("common")
    module.chmod(0o644)
    with module.open("a", encoding="utf-8") as file:
        file.write("# debug\n")
    found = look(pair)
    assert {name: each.judged.state for name, each in found.items()} == dict.fromkeys(
        ("api", "web"), "changed by hand"
    )
    assert "common.py" in found["web"].judged.reason


def test_an_edit_of_a_private_file_shows_in_its_venv(pair: World) -> None:
    """Private files are looked at one by one, each in its own venv."""
    (record,) = pair.venv("web").glob("lib/python*/site-packages/common-1.0.dist-info/RECORD")
    for name, path in (("api", pair.venv("api") / "bin" / "activate"), ("web", record)):
        assert look(pair)[name].judged.state == "up to date"
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
        judged = look(pair)[name].judged
        assert (judged.state, path.name in judged.reason) == ("changed by hand", True)


def test_an_object_that_is_gone_is_no_edit(pair: World) -> None:
    """Venvs of hard links are whole without the store."""
    shutil.rmtree(pair.store / "objects")
    (pair.store / "objects").mkdir()
    assert {each.judged.state for each in look(pair).values()} == {"up to date"}


@pytest.mark.parametrize("mode", ["copy", "symlink"])
def test_an_edit_shows_however_a_venv_is_linked(mode: str, tmp_path: Path) -> None:
    """Copies are looked at file by file."""
    world = World(tmp_path, tmp_path / "house")
    world.configure({"api": {}}, store={"link": [mode]})
    world.lock("api", world.wheel("demo"))
    world.run()
    assert look(world)["api"].judged.state == "up to date"
    assert look(world)["api"].figures.own > 0
    script = world.venv() / "bin" / "activate"
    script.write_text(f"{script.read_text(encoding='utf-8')}\n", encoding="utf-8")
    assert look(world)["api"].judged.state == "changed by hand"


def test_without_its_store_a_venv_is_still_looked_at(pair: World) -> None:
    """It is whole, and an edit shows, though nobody can say of what."""
    shutil.rmtree(pair.store)
    assert {each.judged.state for each in look(pair).values()} == {"up to date"}
    (pair.venv("api") / "bin" / "activate").write_text("edited\n", encoding="utf-8")
    found = look(pair)
    assert (found["api"].judged.state, found["web"].judged.state) == ("changed by hand", "up to date")


def test_a_venv_of_symlinks_is_nothing_without_its_store(tmp_path: Path) -> None:
    """All of its files are gone with the store, and with another store they are nobody's."""
    world = World(tmp_path, tmp_path / "house")
    world.configure({"api": {}}, store={"link": ["symlink"]})
    world.lock("api", world.wheel("demo"))
    world.run()
    judged = look(world)["api"].judged
    assert (judged.state, judged.reason) == ("up to date", "its files are symlinks: it needs the store")
    (world.store / "objects").rename(world.store / "aside")
    assert look(world)["api"].judged.state == "damaged"
    (world.store / "aside").rename(world.store / "objects")
    assert look(world)["api"].judged.state == "up to date"
    shutil.rmtree(world.store)
    judged = look(world)["api"].judged
    assert (judged.state, judged.reason) == ("damaged", "missing: what its symlinks lead to")


# --------------------------------------------------------------------------- how it looks


def lines_at(project: Project, columns: int, *words: str, **environ: str) -> list[str]:
    """Return what a command writes to a terminal that is *columns* wide."""
    import subprocess

    from cli_project import command

    leader, follower = pty.openpty()
    try:
        done = subprocess.run(
            [*command(), *words], cwd=project.root, stdin=subprocess.DEVNULL, stdout=follower,
            stderr=subprocess.PIPE, check=False,
            env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm", **environ},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    finally:
        os.close(follower)
    written = b""
    while chunk := _read(leader):
        written += chunk
    os.close(leader)
    return written.decode().replace("\r\n", "\n").splitlines()


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65_536)
    except OSError:  # the other end is closed
        return b""


NAMES = ["a" * 70, "x.y_z-1", "b"]


@pytest.fixture
def fleet(project: Project) -> Project:
    """Give a project whose venvs have names of all lengths."""
    entries = [
        f"  {name}: {{path: {index}/.venv, locks: [api/requirements.txt]}}"
        for index, name in enumerate(NAMES)
    ]
    text = "version: 1\nstore: {path: ../store, durability: none}\nvenvs:\n" + "\n".join(entries)
    project.config.write_text(f"{text}\n", encoding="utf-8")
    project.run("restore", NAMES[0])
    return project


@pytest.mark.parametrize("columns", [20, 40, 80, 120])
def test_status_fits_the_terminal(columns: int, fleet: Project) -> None:
    """One line for each venv, whatever its name; columns go where there is no room, and come back."""
    lines = lines_at(fleet, columns, "status", NO_COLOR="1")
    assert len(lines) == 1 + len(NAMES)
    assert max(map(len, lines)) <= columns
    titles = lines[0].split()
    assert ("LAST" in titles) == (columns >= 80)
    assert ("STATE" in titles, "VENV" in titles) == (True, True)
    assert (NAMES[0] in lines[1]) == (columns >= 140)


def test_a_terminal_with_room_shows_own_and_shared_bytes(project: Project) -> None:
    """As bars behind the figures, in stats too, where paths begin at the project; a pipe gets neither."""
    assert project.run("restore", "api").code == 0
    titles, api, web = lines_at(project, 100, "status", NO_COLOR="1")
    assert titles.endswith("OWN/SHARED")
    assert set(api.split()[-1]) <= {"█", "░"}
    assert "█" not in web
    titles, api, *_ = lines_at(project, 80, "stats", NO_COLOR="1")
    assert titles.endswith("OWN/SHARED")
    assert api.startswith("api/.venv ")
    piped = project.run("stats").out.splitlines()
    assert piped[0].endswith("DELETING FREES")
    assert piped[1].startswith(f"{project.root}/api/.venv ")


def test_status_is_coloured_on_a_terminal_only(fleet: Project) -> None:
    """NO_COLOR wins over everything, FORCE_COLOR over the pipe; what is coloured is only the state."""
    assert "\x1b[32mup to date\x1b[0m" in lines_at(fleet, 100, "status")[1]
    assert "\x1b" not in "".join(lines_at(fleet, 100, "status", NO_COLOR="1", FORCE_COLOR="1"))
    assert "\x1b" not in "".join(lines_at(fleet, 100, "status", TERM="dumb"))
    assert "\x1b" not in fleet.spawn("status").stdout
    assert "\x1b[32m" in fleet.spawn("status", env={**os.environ, "FORCE_COLOR": "1"}).stdout


def test_many_reasons_are_not_all_told(project: Project) -> None:
    """A few lines say enough; -v shows all, and what to do about each."""
    entries = [f"  v{index}: {{path: {index}/.venv, locks: [none.txt]}}" for index in range(20)]
    text = "version: 1\nstore: {path: ../store}\nvenvs:\n" + "\n".join(entries)
    project.config.write_text(f"{text}\n", encoding="utf-8")
    short, long = project.run("status").err.splitlines(), project.run("status", "-v").err.splitlines()
    assert (len(short), len(long)) == (8, 20)
    assert short[-1] == "venvflow: 13 more notes; -v shows all, and what to do"
    assert all("put it back" in line for line in long)
