"""A venv whose name or path was misspelled: every command that takes one says which one may be meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from machines import Machine, machine

__all__ = ["machine"]

COMMANDS = (["squish"], ["squish", "--dry-run"], ["unsquish"], ["verify"])
BY_PATH = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


@pytest.fixture(autouse=True)
def project(machine: Machine) -> Path:
    """Give a project that names one venv, which is not built, with two that it does not name."""
    for name in ("services/web/.venv", "services/worker/.venv", "tools/venv"):
        (machine.root / name).mkdir(parents=True)
        (machine.root / name / "pyvenv.cfg").touch()
    (machine.root / "api.txt").touch()
    (machine.root / "venvflow.yaml").write_text(
        "version: 1\nvenvs:\n  api: {path: services/api/.venv, locks: [api.txt]}\n"
    )
    return machine.root


def advice(machine: Machine, *words: str) -> str:
    """Return what a command that must end with 2 and change nothing says."""
    answer = machine.run(*words)
    assert answer.code == 2, answer.err
    assert not machine.store.exists()
    assert answer.out == ""
    return answer.err


@BY_PATH
@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("apii", "api"),
        ("services/wep/.venv", "{root}/services/web/.venv"),
        ("services/web/.vnv", "{root}/services/web/.venv"),
        ("services/wrker", "{root}/services/worker/.venv"),
        ("servces/web/.venv/", "{root}/services/web/.venv"),
        ("./tool/venv", "{root}/tools/venv"),
        ("services/worker", "{root}/services/worker/.venv"),
        ("tools", "{root}/tools/venv"),
    ],
)
def test_the_nearest_venv_is_named(machine: Machine, words: list[str], word: str, meant: str) -> None:
    """By its name in the config, or by the path in which one name differs."""
    said = advice(machine, *words, word)
    assert f"Did you mean {meant.format(root=machine.root)}?" in said


@BY_PATH
def test_where_nothing_is_near_what_can_be_named_is_said(machine: Machine, words: list[str]) -> None:
    """The names of the config; a path far from all venvs gets no wrong advice."""
    assert "There are: api." in advice(machine, *words, "qqqq")
    assert "Did you mean" not in advice(machine, *words, "/no/where/at/all")


@BY_PATH
def test_a_name_of_the_config_is_never_taken_for_a_mistake(machine: Machine, words: list[str]) -> None:
    """It is only not built yet."""
    assert "Did you mean" not in advice(machine, *words, "api")


@pytest.mark.parametrize("command", ["explain", "diff"])
def test_other_commands_know_paths_too(machine: Machine, command: str) -> None:
    """A word with a slash is a path that was misspelled."""
    words = [command, "services/wep/.venv", *(["api"] if command == "diff" else [])]
    assert f"Did you mean {machine.root}/services/web/.venv?" in advice(machine, *words)


@pytest.mark.slow
def test_other_venvs_are_served_all_the_same(machine: Machine) -> None:
    """A misspelled word is the failure of that word only."""
    venv = machine.venv("real")
    answer = machine.run("squish", "--dry-run", "apii", venv, "--json")
    assert answer.code == 2
    assert [each["did"] for each in answer.document["venvs"]] == ["failed", "would squish"]
    assert "Did you mean api?" in answer.err
