"""``list``, ``erase`` and ``trim``: the snapshots of a store."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from cli_project import Project


@pytest.fixture
def two(project: Project) -> Project:
    """Return a project with two snapshots in its store: the stocked one, and one of a bare venv."""
    project.make_foreign_venv("web")
    assert project.run("store", "web", "--force").code == 0
    return project


def names(project: Project) -> list[str]:
    """Return the names of the venvs that have snapshots."""
    return [each["venv"] for each in project.run("list", "--json").document["snapshots"]]


# --------------------------------------------------------------------------- list


def test_list_has_one_line_for_each_snapshot(two: Project) -> None:
    """The one that was used last first, in at most 80 columns."""
    answer = two.run("list")
    header, web, api = answer.out.splitlines()
    assert " ".join(header.split()) == "ID VENV PYTHON CREATED LAST USED SIZE UNIQUE HELD BY"
    assert (api.split()[1], api.split()[-1]) == ("api", "~/project:api")
    assert (web.split()[1], web.split()[-1]) == ("web", "~/project:web")
    assert max(map(len, answer.out.splitlines())) <= 80


def test_list_as_json(two: Project) -> None:
    """The document has these keys."""
    from cli_project import blurred

    document = two.run("list", "--json").document
    assert blurred(document, two.root.parent) == {
        "store": "<base>/store",
        "project": "<base>/project",
        "snapshots": [
            {
                "id": "<digest>",
                "key": "<digest>",
                "venv": venv,
                "place": None,
                "python": "str",
                "created": "str",
                "last_used": "str",
                "host": "str",
                "command": document["snapshots"][number]["command"],
                "files": "int",
                "size": "int",
                "unique_size": "int",
                "used_by": [{"path": "<base>/project/web/.venv", "project": "<base>/project", "name": "web"}]
                if venv == "web"
                else [],
                "held_by": [{"project": "<base>/project", "name": venv, "last_used": "str"}],
            }
            for number, venv in enumerate(("web", "api"))
        ],
    }


def test_unique_is_what_nobody_else_has(project: Project) -> None:
    """The bytes of a snapshot's own objects, counted here the slow way; a twin leaves it none."""
    project.run("restore", "api")
    web = project.make_foreign_venv("web")
    # The same bytes in another tree: they belong to nobody alone.
    shutil.copy(project.site / "demo.py", web / "demo.py")
    assert project.run("store", "web", "--force").code == 0
    assert unique_sizes(project) == slowly_counted(project)
    assert min(unique_sizes(project).values()) > 0
    lock = project.root / "api" / "requirements.txt"
    lock.write_text(f"{lock.read_text(encoding='utf-8')}--no-binary another\n", encoding="utf-8")
    assert project.run("store", "api").out.startswith("api: stored")
    assert unique_sizes(project) == slowly_counted(project)
    assert sorted(unique_sizes(project).values())[:2] == [0, 0]


def unique_sizes(project: Project) -> dict[str, int]:
    """Return what ``list`` says of each snapshot."""
    listed = project.run("list", "--json").document["snapshots"]
    return {each["id"]: each["unique_size"] for each in listed}


def slowly_counted(project: Project) -> dict[str, int]:
    """Return the same from the sets of objects that the snapshots need."""
    from venvflow.disk.objects import object_names
    from venvflow.model import StoreConfig
    from venvflow.state.store import Store

    with Store(StoreConfig(str(project.store))) as store:
        needs = {
            snapshot.id: {name for tree in store.load(snapshot).trees for name in object_names(tree)}
            for snapshot in store.snapshots()
        }
        own = {
            each: names.difference(*(other for key, other in needs.items() if key != each))
            for each, names in needs.items()
        }
        return {
            each: sum(os.stat(store.objects.path(name)).st_size for name in names)
            for each, names in own.items()
        }


def test_a_project_lists_its_own_snapshots(two: Project) -> None:
    """What its venvs are, were or want; --all lists those of others, too."""
    assert two.run("restore", "api").code == 0
    other = two.root.with_name("other")
    shutil.copytree(two.root, other, ignore=shutil.ignore_patterns(".venv", ".venvflow"))
    lock = other / "api/requirements.txt"
    lock.write_text(f"{lock.read_text()}--no-binary own\n")
    (other / "web/requirements.txt").write_text("# nothing\n")
    assert names(two) == ["api", "web"]
    none = two.run("-C", str(other), "list")
    assert none.out == ""
    assert "no snapshots of this project" in none.err
    assert "--all lists 2 of others" in none.err
    assert len(two.run("-C", str(other), "list", "--all").out.splitlines()) == 3
    lock.write_bytes((two.root / "web/requirements.txt").read_bytes())  # wanted now
    assert [line.split()[1] for line in two.run("-C", str(other), "list").out.splitlines()[1:]] == ["web"]
    (two.root / "web/requirements.txt").write_text("# nothing\n")  # wanted no more
    assert names(two) == ["api", "web"]  # but its venv is of it
    assert two.run("-C", str(other), "list", "--json").document["project"] == str(other)
    assert two.run("list", "--all", "--json").document["project"] is None


def test_a_project_counts_its_own_venvs(two: Project) -> None:
    """What they share with others is not their own; --all counts all venvs, and the store with them."""
    assert two.run("restore", "api").code == 0
    other = two.root.with_name("other")
    shutil.copytree(two.root, other, ignore=shutil.ignore_patterns(".venv", ".venvflow"))
    two.run("-C", str(other), "restore", "*")
    mine, everything = (
        two.run("-C", str(other), "stats", *all_, "--json").document for all_ in ((), ("--all",))
    )
    assert [each["path"] for each in mine["venvs"]] == [f"{other}/{name}/.venv" for name in ("api", "web")]
    assert len(everything["venvs"]) == 4
    assert mine["venvs"] == [each for each in everything["venvs"] if each["path"].startswith(f"{other}/")]
    assert mine["totals"]["disk"] <= mine["totals"]["alone"] < everything["totals"]["alone"]
    assert mine["totals"]["frees"] < mine["totals"]["disk"]
    assert (mine["project"], everything["project"]) == (str(other), None)
    assert "2 venvs of" in two.run("-C", str(other), "stats").out
    for words, count in (((), 1), (("--all",), 2)):
        (counted,) = two.run("stats", "--packages", *words, "--json").document["packages"]
        assert (counted["name"], counted["venvs"]) == ("demo", count)
    lone = two.root.with_name("lone")
    shutil.copytree(two.root, lone, ignore=shutil.ignore_patterns(".venv", ".venvflow"))
    assert "no venv of this project" in two.run("-C", str(lone), "stats").err


def test_list_of_one_venv(two: Project) -> None:
    """A name chooses the snapshots of venvs of that name; one without snapshots has none."""
    assert [each["venv"] for each in two.run("list", "web", "--json").document["snapshots"]] == ["web"]
    two.run("erase", "web", "--yes")
    answer = two.run("list", "web")
    assert (answer.code, answer.out, "no snapshots" in answer.err) == (0, "", True)


def test_list_knows_venvs_of_other_projects(two: Project) -> None:
    """A name that is in the store but not in this config is no mistake."""
    text = two.config.read_text(encoding="utf-8")
    two.config.write_text(
        "".join(line for line in text.splitlines(True) if "web" not in line), encoding="utf-8"
    )
    assert [each["venv"] for each in two.run("list", "web", "--json").document["snapshots"]] == ["web"]
    assert two.run("list", "ghost").code == 2


def test_list_says_who_uses_a_snapshot(project: Project) -> None:
    """The venv where there is one, else how many; -v names them, the one that used it last first."""
    project.run("restore", "api")
    other = project.root.with_name("another-checkout")
    shutil.copytree(project.root, other, symlinks=True, ignore=shutil.ignore_patterns(".venv", ".venvflow"))
    assert project.run("list").out.splitlines()[1].endswith("  ~/project:api")
    project.run("-C", str(other), "restore", "api")
    assert project.run("list").out.splitlines()[1].endswith("  2 venvs")
    lines = project.run("list", "-v").out.splitlines()
    assert lines[2:] == ["  ~/another-checkout:api, now", "  ~/project:api, now"]


def test_a_long_project_loses_its_middle_on_a_terminal_only(project: Project) -> None:
    """Its beginning and its end are there; in a pipe, all of it."""
    deep = project.root.parent / ("d" * 60) / "mono"
    deep.parent.mkdir()
    project.root.rename(deep)
    text = (deep / "venvflow.yaml").read_text(encoding="utf-8")
    (deep / "venvflow.yaml").write_text(text.replace("../store", str(project.store)), encoding="utf-8")
    project.run("-C", str(deep), "restore", "api")
    assert project.run("-C", str(deep), "list").out.splitlines()[1].endswith(f"  ~/{'d' * 60}/mono:api")
    line = project_lines(project, 80, "-C", str(deep))[1]
    assert (len(line), "  ~/ddd" in line, "dd.." in line, line.endswith("o:api")) == (
        80,
        True,
        True,
        True,
    )


def test_the_key_is_shown_where_it_is_not_the_id(two: Project) -> None:
    """Only a snapshot that is bound to its place has another id than its key."""
    from dataclasses import replace

    from venvflow.model import StoreConfig
    from venvflow.pure.keys import snapshot_id
    from venvflow.state.store import Store

    assert "KEY" not in two.run("list").out
    with Store(StoreConfig(str(two.store))) as store:
        first = store.snapshots()[0]
        bound = replace(first, id=snapshot_id(first.key.digest, "here"), place="here", created=1.0)
        store.publish(bound, 1.0)
    header, *_, line = project_lines(two, 120, "--all")
    assert header.endswith("  KEY")
    assert (line.split()[0], line.split()[-1]) == (bound.id[:12], bound.key.digest[:12])
    assert two.run("list", "--all", "--json").document["snapshots"][-1]["place"] == "here"


def project_lines(project: Project, columns: int, *words: str) -> list[str]:
    """Return what list says on a terminal that is so many *columns* wide."""
    from unittest import mock

    from venvflow.cli.render import Output

    with (
        mock.patch.object(Output, "width", return_value=columns),
        mock.patch.object(Output, "on_terminal", new=True),
    ):
        return project.run("list", *words).out.splitlines()


def test_list_needs_no_project(two: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of all projects the store of the environment is listed, or the usual one."""
    monkeypatch.setenv("VENVFLOW_STORE", str(two.store))
    (tmp_path / "elsewhere").mkdir()
    answer = two.run("-C", str(tmp_path / "elsewhere"), "list")
    assert (answer.code, len(answer.out.splitlines())) == (0, 3)


@pytest.mark.parametrize("command", ["list", "status", "stats"])
@pytest.mark.parametrize("obstacle", ["file", "directory", "below a file", "unreadable"])
def test_what_is_no_store_is_not_an_empty_one(
    command: str, obstacle: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that leads to something else is 3, says so, and is left as it is."""
    path = tmp_path / "thing"
    if obstacle == "directory":
        (path / "photos").mkdir(parents=True)
    else:
        path.write_text("mine", encoding="utf-8")
    if obstacle == "unreadable":
        monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setenv("VENVFLOW_STORE", f"{path}/store" if obstacle == "below a file" else str(path))
    answer = project.run(command)
    assert (answer.code, answer.out) == (3, "")
    assert f"{path}" in answer.err
    assert "this is not a store" in answer.err
    assert "VENVFLOW_STORE" in answer.err


def refuse(path: str) -> list[str]:
    """Answer as a directory that one may not read."""
    raise PermissionError(13, "Permission denied", path)


@pytest.mark.parametrize("command", ["list", "status", "stats"])
def test_a_store_that_is_yet_to_be_made_is_no_error(
    command: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty directory, and none at all, hold no snapshots; neither becomes a store by looking."""
    (tmp_path / "empty").mkdir()
    for name in ("empty", "none", "none/below"):
        monkeypatch.setenv("VENVFLOW_STORE", str(tmp_path / name))
        assert project.run(command).code == 0
    assert (list((tmp_path / "empty").iterdir()), (tmp_path / "none").exists()) == ([], False)


def test_list_changes_nothing(two: Project) -> None:
    """Looking at snapshots, a damaged one among them, leaves the store as it is."""
    (first, *_) = sorted((two.store / "snapshots").iterdir())
    first.chmod(0o644)
    first.write_bytes(b"garbage")
    before = two.hashes()
    assert len(names(two)) == 1
    assert two.hashes() == before


# --------------------------------------------------------------------------- erase


def test_erase_without_yes_shows_and_refuses(two: Project) -> None:
    """What would go is shown with who has its key, the exit code is 6, and nothing is gone."""
    before = two.hashes()
    answer = two.run("erase")
    assert answer.code == 6
    assert [line.split()[1] for line in answer.out.splitlines()] == ["VENV", "api", "web"]
    assert "say --yes" in answer.err
    assert two.hashes() == before


def test_erase_one_venv(two: Project) -> None:
    """The snapshots of one venv go, the other's stays, and both venvs stay whole."""
    two.run("restore", "api")
    venvs = {line for line in two.hashes() if "/.venv" in line}
    answer = two.run("erase", "web", "--yes")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("erased 1 snapshot, freed ")
    assert names(two) == ["api"]
    assert {line for line in two.hashes() if "/.venv" in line} == venvs
    assert two.run("restore", "api", "--force").code == 0


def test_erase_all(two: Project) -> None:
    """Every snapshot goes, and with them every object; a restore is a miss then."""
    assert two.run("erase", "--yes").code == 0
    assert names(two) == []
    assert [path for path in (two.store / "objects").rglob("*") if path.is_file()] == []
    assert two.run("restore", "api").code == 1
    again = two.run("erase", "--yes")
    assert (again.code, again.out, "nothing to erase" in again.err) == (0, "", True)
    assert two.run("erase").code == 0


def test_erase_as_json(two: Project) -> None:
    """The document says what would go, or went, and whose key it has."""
    from cli_project import blurred

    def expected(freed: str | None, *, erased: bool) -> object:
        venv = {"id": "<digest>", "venv": "web", "size": "int", "created": "str"}
        return {
            "store": "<base>/store",
            "erased": erased,
            "freed": freed,
            "snapshots": [{**venv, "key_of": ["<base>/project/web/.venv"], "stays_for": []}],
        }

    asked = two.run("erase", "web", "--json")
    assert asked.code == 6
    assert blurred(asked.document, two.root.parent) == expected(None, erased=False)
    done = two.run("erase", "web", "--yes", "--json")
    assert done.code == 0
    assert blurred(done.document, two.root.parent) == expected("int", erased=True)
    assert done.document["freed"] > 0


def test_erase_gives_up_what_this_project_holds_only(two: Project) -> None:
    """Another project's snapshots stay; one that both hold is given up, and goes with the other's word."""
    other = two.root.with_name("other")
    shutil.copytree(two.root, other, ignore=shutil.ignore_patterns(".venv", ".venvflow"))
    lock = other / "web/requirements.txt"
    lock.write_text("# nothing\n")
    assert two.run("restore", "api").code == two.run("-C", str(other), "restore", "api").code == 0
    asked = two.run("erase")
    assert asked.code == 6
    assert asked.out.splitlines()[1].endswith("/other:api")
    assert "1 snapshot would be erased, 1 given up that others hold" in asked.err
    (shared,) = two.run("erase", "api", "--json").document["snapshots"]
    assert shared["stays_for"] == [{"project": str(other), "name": "api"}]
    assert two.run("erase", "--yes").out.startswith("erased 1 snapshot, 1 given up that others hold, freed")
    assert [each["venv"] for each in two.run("list", "--all", "--json").document["snapshots"]] == ["api"]
    assert "nothing to erase" in two.run("erase", "web", "--yes").err
    assert two.run("-C", str(other), "erase", "api", "--yes").out.startswith("erased 1 snapshot, freed")
    assert two.run("list", "--all", "--json").document["snapshots"] == []


def test_erase_of_all_projects(two: Project) -> None:
    """By the name of a venv, or everything: for the owner of the store."""
    other = two.root.with_name("other")
    shutil.copytree(two.root, other, ignore=shutil.ignore_patterns(".venv", ".venvflow"))
    assert two.run("restore", "api").code == two.run("-C", str(other), "restore", "api").code == 0
    (other / "api/requirements.txt").write_text("# other\n")
    assert two.run("-C", str(other), "erase", "web").code == 0
    assert two.run("-C", str(other), "erase", "web", "--all", "--yes").out.startswith("erased 1 snapshot, f")
    assert names(two) == ["api"]
    assert two.run("-C", str(other), "erase", "--all", "--yes").out.startswith("erased 1 snapshot, freed")
    assert names(two) == []
    assert list((two.store / "holds").iterdir()) == []


# --------------------------------------------------------------------------- trim


def test_store_applies_the_policy(project: Project) -> None:
    """Whoever never runs doit would fill the disk else; the message is no part of the answer."""
    text = project.config.read_text(encoding="utf-8")
    project.config.write_text(f"{text}trim: {{keep: 2, keep_per_venv: 1}}\n", encoding="utf-8")
    lock = project.root / "api/requirements.txt"
    whole = lock.read_text(encoding="utf-8")
    project.run("restore", "api")
    for number in range(4):
        lock.write_text(f"{whole}--no-binary other-{number}\n", encoding="utf-8")
        answer = project.run("store", "api", "--json")
        assert answer.code == 0
        assert ("trim dropped 1 of 3 snapshots" in answer.err) == (number > 0)
        assert len(project.run("list", "--all", "--json").document["snapshots"]) == 2
    assert project.run("store", "api").err == ""


def test_trim_gives_a_reason_for_each_snapshot(two: Project) -> None:
    """A dry run says what would be kept and dropped, and why, and does nothing."""
    text = two.config.read_text(encoding="utf-8")
    two.config.write_text(f"{text}trim: {{keep: 1, keep_per_venv: 0}}\n", encoding="utf-8")
    before = {line for line in two.hashes() if "/objects/" in line or "/snapshots" in line}
    answer = two.run("trim", "--dry-run")
    assert answer.code == 0
    rows = [line.split()[:3:2] for line in answer.out.splitlines()[1:] if line.startswith(("keep", "drop"))]
    assert rows == [["keep", "web"], ["drop", "api"]]
    assert "current for web" in answer.out
    assert "keep is 1" in answer.out
    assert answer.out.splitlines()[-1].startswith("would drop 1 of 2 snapshots and free ")
    assert max(map(len, answer.out.splitlines())) <= 80
    assert {line for line in two.hashes() if "/objects/" in line or "/snapshots" in line} == before


def test_trim_drops_and_sweeps(two: Project) -> None:
    """What the policy does not keep is gone, with the objects that only it needed."""
    text = two.config.read_text(encoding="utf-8")
    two.config.write_text(f"{text}trim: {{keep: 1, keep_per_venv: 0}}\n", encoding="utf-8")
    planned = two.run("trim", "--dry-run", "--json").document
    done = two.run("trim", "--json").document
    assert [each["venv"] for each in done["drop"]] == ["api"]
    reasons = [document["drop"][0]["reason"].partition(", last used")[0] for document in (planned, done)]
    assert reasons == ["2 snapshots, keep is 1"] * 2
    assert done["objects"] > 0
    assert 0 < planned["freed"] <= done["freed"]  # trees and other records come on top of objects
    assert names(two) == ["web"]
    assert "dropped 0 of 1 snapshot, freed" in two.run("trim").out


def test_trim_as_json(two: Project) -> None:
    """The document has these keys, in a dry run and in earnest."""
    from cli_project import blurred

    for dry_run in (True, False):
        words = ("trim", "--json", *(["--dry-run"] if dry_run else []))
        document = two.run(*words).document
        for kept in document["keep"]:
            assert kept.pop("reasons")
            assert [each["name"] for each in kept.pop("held_by")] == [kept["venv"]]
        assert blurred(document, two.root.parent) == {
            "store": "<base>/store",
            "dry_run": dry_run,
            "keep": [{"id": "<digest>", "venv": "web"}, {"id": "<digest>", "venv": "api"}],
            "drop": [],
            "freed": "int",
            "objects": None if dry_run else "int",
            "forgotten": [],
            "problems": [],
        }


def test_limits_that_cannot_be_met_are_told(two: Project) -> None:
    """A limit that pinned and current snapshots stand against is a warning."""
    text = two.config.read_text(encoding="utf-8")
    two.config.write_text(f"{text}trim: {{max_size: 1B}}\n", encoding="utf-8")
    answer = two.run("trim", "--dry-run")
    assert answer.code == 0
    assert "max_size" in answer.err
    assert two.run("trim", "--dry-run", "--json").document["problems"] != []
