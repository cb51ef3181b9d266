"""``venvflow history``: what people and scripts are told of what ran."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from venvflow.state.history import Event, note
from venvflow.state.index import VERSION, Index

if TYPE_CHECKING:
    from cli_project import Project

NOW = 1_790_000_000.0
PACKAGES = (("alpha", "1.0", "2.0"), ("beta", None, "3"), ("gamma", "4", None), ("delta", "5", "6"))


@pytest.fixture
def told(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a project that a week of work is written down of, beside another one."""
    monkeypatch.setattr(time, "time", lambda: NOW)
    root = os.path.realpath(project.root)
    rows = [
        Event(NOW - 6 * 86_400, root, "api", "build-venv", "built", 75.0, packages=PACKAGES),
        Event(NOW - 6 * 86_400, root, "api", "squish", "squished", 2.0, 5_000),
        Event(NOW - 3_600, root, "api", "restore", "hit", 0.5, 2_000_000, 74.5, (), "ci-1", "a" * 64),
        Event(NOW - 60, root, "gone", "restore", "refused", 0.1),
        Event(NOW - 30, "/src/other", "api", "build-venv", "failed", 3.0),
        Event(NOW, root, "", "trim", "trimmed", 1.0, 7_000),
    ]
    with closing(Index(str(project.store / "index.db"))) as index:
        with index.writing() as db:
            db.execute("DELETE FROM history")
        note(index, rows)
    return project


def lines(text: str) -> list[list[str]]:
    """Return the words of each line of a table, without its titles and times."""
    return [line.split()[2:] for line in text.splitlines()[1:]]


def test_people_are_told_what_matters_newest_first(told: Project) -> None:
    """Of this project; what a step spared, and which packages changed; -v shows every step and package."""
    usual = lines(told.run("history").out)
    assert [" ".join(row) for row in usual] == [
        "(all) trim trimmed 1.0 s 6.8 KiB",
        "gone restore refused 0.1 s -",
        "api restore hit 0.5 s 1.9 MiB 1 min 14 s spared",
        "api build-venv built 1 min 15 s - alpha 1.0 -> 2.0, +beta 3, -gamma 4 and 1 more",
    ]
    every = lines(told.run("history", "-v").out)
    assert [row[1] for row in every] == ["trim", "restore", "restore", "squish", "build-venv"]
    assert every[-1][-3:] == ["5", "->", "6"]


def test_a_hit_that_took_longer_than_a_build_says_so(told: Project) -> None:
    """A remote far away may be slower; the sum counts it, too."""
    with closing(Index(str(told.store / "index.db"))) as index, index.writing() as db:
        db.execute("UPDATE history SET spared = -2.5 WHERE outcome = 'hit'")
    assert "2.5 s slower than builds" in told.run("history").out
    assert told.run("restore", "api").code == 0
    assert told.run("stats", "--json").document["history"]["spared"] < 60


def test_it_can_be_narrowed(told: Project) -> None:
    """By venv (one that is in no config any more too), pattern, age, date and number; and widened."""
    assert [row[:2] for row in lines(told.run("history", "gone").out)] == [["gone", "restore"]]
    assert len(lines(told.run("history", "a*").out)) == 2
    assert [row[0] for row in lines(told.run("history", "--since", "2h").out)] == ["(all)", "gone", "api"]
    day = time.strftime("%Y-%m-%d", time.localtime(NOW - 6 * 86_400))
    assert len(lines(told.run("history", "--since", day).out)) == 4
    short = told.run("history", "--limit", "1")
    assert len(lines(short.out)) == 1
    assert "the last 1 step; --limit 0 shows all" in short.err
    assert len(lines(told.run("history", "--limit", "0").out)) == 4
    others = lines(told.run("history", "--all", "--limit", "2").out)
    assert [row[0] for row in others] == ["~/project", "/src/other:api"]


@pytest.mark.parametrize(
    ("words", "told_of"),
    [
        ("--since 3x", "3d"),
        ("--since 2026-13-01", "2026-11-30"),
        ("--since 99999999999999999999d", "14d"),
        ("--limit -1", "0 to 50000"),
        ("--limit ten", "0 to 50000"),
        ("nobody", "api, gone, web"),
    ],
)
def test_what_makes_no_sense_is_refused(told: Project, words: str, told_of: str) -> None:
    """With what would."""
    answer = told.run("history", *words.split())
    assert answer.code == 2
    assert told_of in answer.err


def test_stats_sums_what_restores_spared(told: Project) -> None:
    """As the view does; before the line about bytes, which scripts take from the end."""
    with closing(Index(str(told.store / "index.db"))) as index:
        spent, spared = index.rows(
            "SELECT total(spent), total(spared) FROM history_days WHERE project NOT LIKE '/src%'"
        )[0]
    assert told.run("restore", "api").code == 0
    found = told.run("stats", "--json").document["history"]
    assert (found["hits"], found["misses"], found["builds"], found["spent"]) == (2, 0, 1, spent)
    assert spared - 14 < found["spared"]
    assert told.run("stats").out.splitlines()[-2].startswith("2 restores: 1 min ")
    assert told.run("stats", "--all", "--json").document["history"]["spent"] == spent + 3


def test_what_goes_to_a_remote_and_comes_from_there_is_remembered(project: Project) -> None:
    """On a machine that never built it, a hit spares what the build took elsewhere, as its record says."""
    text = project.config.read_text(encoding="utf-8")
    remote = f"{{url: 'file://{project.root.parent}/bucket', mode: write, unsigned: true}}"
    project.config.write_text(text.replace("durability: none", f"durability: none, remote: {remote}"))
    assert project.run("restore", "api").code == 0
    assert project.run("push", "api").code == 0
    assert project.run("push", "api").code == 0  # it is there
    built = project.run("history", "--json").document["steps"]
    assert [(each["step"], each["outcome"]) for each in built[:2]] == [("push", "pushed"), ("restore", "hit")]
    assert built[0]["bytes"] > 0
    shutil.rmtree(project.store)
    shutil.rmtree(project.root / "api" / ".venv")
    assert project.run("restore", "api", "web").code == 1
    steps = project.run("history", "--json").document["steps"]
    assert [(each["venv"], each["step"], each["outcome"]) for each in steps if each["outcome"] != "new"] == [
        ("web", "restore", "miss"),
        ("web", "pull", "miss"),
        ("api", "restore", "hit"),
        ("api", "pull", "pulled"),
    ]
    hit, pulled = (each for each in steps if each["outcome"] in {"hit", "pulled"})
    assert pulled["bytes"] > 0
    assert hit["seconds"] > pulled["seconds"] > 0
    assert hit["spared"] + hit["seconds"] == pytest.approx(built[1]["spared"] + built[1]["seconds"])


def test_where_there_is_nothing_it_says_so(project: Project) -> None:
    """That others have a history, if so; without a store too. Looking makes none."""
    assert "of this project" in project.run("history").err
    assert "--all" in project.run("history").err
    shutil.rmtree(project.store)
    answer = project.run("history")
    assert (answer.code, answer.out) == (0, "")
    assert "nothing is written down yet" in answer.err
    assert project.run("history", "--json").document["steps"] == []
    assert not project.store.exists()


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_a_store_of_another_version_has_no_history_for_this_one(told: Project, version: int) -> None:
    """Whatever its table looks like."""
    with closing(Index(str(told.store / "index.db"))) as index, index.writing() as db:
        db.execute("ALTER TABLE history RENAME COLUMN outcome TO result")
        db.execute(f"PRAGMA user_version = {version}")
    answer = told.run("history")
    assert (answer.code, answer.out) == (0, "")


def test_names_of_others_are_data(told: Project) -> None:
    """Whoever wrote into the index: nothing that a terminal would obey comes out."""
    bad = "\x1b]0;owned\x07\u202eevil\r"
    with closing(Index(str(told.store / "index.db"))) as index, index.writing() as db:
        db.execute(
            "UPDATE history SET venv = ?, step = ?, outcome = ?, packages = ?, project = ?",
            (bad, bad, bad, '[["\\u001b[2J", "\\u202e", null]]', f"/src/{bad}"),
        )
    answer = told.run("history", "--all")
    assert answer.code == 0
    assert not {"\x1b", "\x07", "\u202e", "\r"} & {*answer.out}
    assert "\\x1b]0;owned" in answer.out
