"""Which venvs the words of a command mean: by name, by pattern, or left out where there is only one."""

from __future__ import annotations

import pytest
from cli_project import CONFIG, Project, project, stock

from venvflow.cli.operands import select, select_one
from venvflow.errors import UsageError

__all__ = ["project", "stock"]

KNOWN = ["web", "lib-b", "lib-a"]
SETS = {"ci": ("lib-b", "web"), "one": ("lib-a",)}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], KNOWN),
        (["lib-a", "web", "lib-a"], ["web", "lib-a"]),
        (["lib-*"], ["lib-b", "lib-a"]),
        (["lib-[!b]", "w??"], ["web", "lib-a"]),
        (["ci"], ["web", "lib-b"]),
        (["one", "ci", "web"], KNOWN),
    ],
)
def test_names_patterns_and_sets_mean_venvs(words: list[str], found: list[str]) -> None:
    """Each once, in the order of the config."""
    assert select(words, KNOWN, SETS) == found


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("lib", "no venv called 'lib'. Nothing was changed. Did you mean lib-a?"),
        ("lob-*", "no venv fits 'lob-*'. Nothing was changed. Did you mean lib-"),
        ("x*", "no venv fits 'x*'. Nothing was changed. There are: ci, lib-a, lib-b, one, web."),
        ("on", "no venv called 'on'. Nothing was changed. Did you mean one?"),
        ("c*", "no venv fits 'c*'"),
    ],
)
def test_a_word_that_means_none_is_an_error(word: str, says: str) -> None:
    """With the nearest name, also beside words that mean one."""
    with pytest.raises(UsageError) as caught:
        select(["web", word], KNOWN, SETS)
    assert says in str(caught.value)


def test_one_venv_may_be_left_out_or_fit_a_pattern() -> None:
    """Where there are several, they are named."""
    assert select_one(None, ["only"], {}) == "only"
    assert select_one("w*", KNOWN, SETS) == "web"
    assert select_one("one", KNOWN, SETS) == "lib-a"
    for word, says in ((None, "web, lib-b, lib-a."), ("lib-*", "lib-b, lib-a."), ("ci", "web, lib-b.")):
        with pytest.raises(UsageError, match=f"Name one: {says}"):
            select_one(word, KNOWN, SETS)
    with pytest.raises(UsageError, match=r"^venvs: the config names no venv"):
        select_one(None, [], {})


@pytest.mark.slow
def test_every_command_takes_a_set(project: Project) -> None:
    """Where it takes venvs, the set means its own; where it takes one, it is the one of the set."""
    project.config.write_text(CONFIG + "sets: {ci: [a*]}\n")
    assert project.run("restore", "ci", "--json").document["venvs"][0]["venv"] == "api"
    (row,) = project.run("status", "ci", "--json").document["venvs"]
    assert (row["name"], row["state"]) == ("api", "up to date")
    assert project.run("explain", "ci", "--json").document["venv"] == "api"
    assert project.run("diff", "ci", "api").code == 0
    assert project.run("verify", "ci", "--json").document["venvs"] == 1
    assert len(project.run("list", "ci", "--json").document["snapshots"]) == 1
    assert project.run("squish", "ci", "--dry-run").code == 0
    assert project.run("erase", "ci", "--yes").code == 0


def test_the_only_venv_need_not_be_named(project: Project) -> None:
    """By any command that takes one."""
    several = project.run("restore")
    assert several.code == 2
    assert "Name one: api, web." in several.err
    project.config.write_text(CONFIG.replace("  web:", "  #"))
    for words in (["restore"], ["store"], ["explain"], ["pack", "-o", "../"], ["export", "../exported"]):
        answer = project.run(*words)
        assert answer.code == 0, answer.err
        assert answer.out.startswith("api: ")


def test_several_are_served_whatever_becomes_of_one(project: Project) -> None:
    """A miss is 1, and an error goes before it; JSON has a record for each."""
    missed = project.run("restore", "*")
    assert missed.code == 1
    assert [line[:8] for line in missed.out.splitlines()] == ["api: hit", "web: mis"]
    failed = project.run("store", "web", "api", "--json")
    assert failed.code == 3
    assert [each["did"] for each in failed.document["venvs"]] == ["kept", "failed"]
    assert failed.document["venvs"][1]["reason"] == "there is no venv to store"
    assert "there is no venv to store" in failed.err


def test_patterns_are_known_to_commands_that_take_paths_or_snapshots(project: Project) -> None:
    """A path stays a path."""
    assert project.run("restore", "api").code == 0
    assert project.run("verify", "a*").code == 0
    assert (
        project.run("squish", "[a]pi", "--json").document["venvs"][0]["path"] == f"{project.root}/api/.venv"
    )
    assert "api" in project.run("list", "?pi").out
    assert project.run("list", "x*").code == 2
    assert [each["name"] for each in project.run("status", "w*", "--json").document["venvs"]] == ["web"]
    assert project.run("diff", "a*", "api").code == 0
    assert project.run("erase", "w*", "--yes").err.endswith("there is nothing to erase\n")
    odd = project.root / "w*"
    odd.mkdir()
    (odd / "pyvenv.cfg").touch()
    assert f"{odd}" in project.run("unsquish", "w*").out


def test_archives_of_several_do_not_share_a_name(project: Project) -> None:
    """Nothing is written then."""
    project.config.write_text(CONFIG.replace("web/requirements", "api/requirements"))
    assert project.run("restore", "*").code == 0
    answer = project.run("pack", "*", "-o", "../{key}.tar")
    assert answer.code == 2
    assert "Put {venv} into --output" in answer.err
    assert len(list(project.root.parent.glob("*.tar"))) == 0
    assert project.run("pack", "*", "-o", "../{venv}.tar").code == 0
