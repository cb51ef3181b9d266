"""How a command starts: with what it needs, and not with all that there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from flows import World

from venvflow.cli.parser import COMMANDS, make_parser, parse
from venvflow.disk import interpreters
from venvflow.errors import UsageError
from venvflow.steps.hash_lockfiles import hash_lockfiles

WORDS = [
    ["list", "api", "--json"],
    ["-C", ".", "restore", "api", "--force", "-q"],
    ["--format", "json", "list"],
    ["squish", "list", "status", "--min-size", "4KiB"],
    ["-c", "list", "status"],
    ["-c", "run", "status", "--", "api"],
    ["-c", "run", "run", "api"],
]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_one_parser_understands_what_all_understand(words: list[str]) -> None:
    """Also where the value of an option, or the name of a venv, is called like a command."""
    args = vars(parse(words, {}))
    expected = vars(make_parser().parse_args(words))
    assert args["run"] is expected["run"]
    for name, value in expected.items():
        if name not in ("parser", "work_dir", "config", "format"):
            assert args[name] == value


@pytest.mark.parametrize("words", [["lst"], ["list", "--jsn"], ["diff"], ["-C", "list"]], ids=" ".join)
def test_a_mistake_is_told_by_who_knows_all_words(words: list[str]) -> None:
    """The same message as if there were no shorter way."""
    with pytest.raises(UsageError) as short:
        parse(words, {})
    assert "Nothing was done" in str(short.value)
    if words == ["lst"]:
        assert "Did you mean list?" in str(short.value)


def test_a_command_does_not_import_the_others() -> None:
    """Each of them would cost every other one a millisecond or more."""
    text = (
        "import sys; from venvflow.cli import main; main(['version'])\n"
        "print(*[name for name in sys.modules if name.startswith('venvflow.cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("venvflow.cli.") for name in done.stdout.split()}
    assert "version" in loaded
    assert loaded.isdisjoint({*COMMANDS, "listing"} - {"version"})


def test_a_key_that_still_holds_asks_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To start one takes longer than many a restore; it is asked again as soon as something changed."""
    world = World(tmp_path, tmp_path / "house")
    world.configure({"api": {}})
    world.lock("api", world.wheel("alpha"))
    first = hash_lockfiles(world.job())
    asked: list[str] = []
    real = interpreters.resolve

    def resolve(python: str, **how: object) -> object:
        asked.append(python)
        return real(python, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(interpreters, "resolve", resolve)
    second = hash_lockfiles(world.job())
    assert asked == []
    assert (second.did, second.reason, second.figures) == ("same", first.reason, first.figures)
    assert second.warnings == first.warnings
    world.lock("api", world.wheel("beta"))
    assert hash_lockfiles(world.job()).did == "new"
    assert len(asked) == 1
