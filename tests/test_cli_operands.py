"""Which venvs the words of a command mean: by name, by pattern, or left out where there is only one."""

from __future__ import annotations

import pytest
from cli_project import CONFIG, Project, project, stock

from venvflow.cli.operands import select, select_one
from venvflow.errors import UsageError

__all__ = ["project", "stock"]

KNOWN = ["web", "lib-b", "lib-a"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], KNOWN),
        (["lib-a", "web", "lib-a"], ["web", "lib-a"]),
        (["lib-*"], ["lib-b", "lib-a"]),
        (["lib-[!b]", "w??"], ["web", "lib-a"]),
    ],
)
def test_names_and_patterns_mean_venvs(words: list[str], found: list[str]) -> None:
    """Each once, in the order of the config."""
    assert select(words, KNOWN) == found


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("lib", "no venv called 'lib'. Nothing was changed. Did you mean lib-a?"),
        ("lob-*", "no venv fits 'lob-*'. Nothing was changed. Did you mean lib-"),
        ("x*", "no venv fits 'x*'. Nothing was changed. There are: lib-a, lib-b, web."),
    ],
)
def test_a_word_that_means_none_is_an_error(word: str, says: str) -> None:
    """With the nearest name, also beside words that mean one."""
    with pytest.raises(UsageError) as caught:
        select(["web", word], KNOWN)
    assert says in str(caught.value)


def test_one_venv_may_be_left_out_or_fit_a_pattern() -> None:
    """Where there are several, they are named."""
    assert select_one(None, ["only"]) == "only"
    assert select_one("w*", KNOWN) == "web"
    for word, says in ((None, "Name one: web, lib-b, lib-a."), ("lib-*", "Name one: lib-b, lib-a.")):
        with pytest.raises(UsageError, match=says):
            select_one(word, KNOWN)
    with pytest.raises(UsageError, match="names no venv"):
        select_one(None, [])


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
    """The first is kept."""
    project.config.write_text(CONFIG.replace("web/requirements", "api/requirements"))
    assert project.run("restore", "*").code == 0
    answer = project.run("pack", "*", "-o", "../{key}.tar")
    assert answer.code == 2
    assert "Put {venv} into --output" in answer.err
    assert len(list(project.root.parent.glob("*.tar"))) == 1
    assert project.run("pack", "*", "-o", "../{venv}.tar").code == 0
