"""The documents are true: their examples run, their tables list what there is."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wheels import make_wheel, offline_environment, requirements

from venvflow import config, errors, tasks
from venvflow.cli.parser import COMMANDS
from venvflow.cli.schema import schema_text

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DESIGN = (ROOT / "DESIGN.md").read_text(encoding="utf-8")
CONFIG = (ROOT / "docs/reference/config.md").read_text(encoding="utf-8")
BIN = os.path.dirname(sys.executable)


def block(text: str, language: str, word: str) -> str:
    """Return the fenced block of *language* that contains *word*."""
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return next(found for found in blocks if word in found)


def first_column(text: str, heading: str) -> list[str]:
    """Return the first cells of the table whose header row begins with *heading*."""
    table = text[text.index(f"| {heading} |") :].split("\n\n", 1)[0]
    return [row.split("|")[1].strip() for row in table.splitlines()[2:]]


def test_the_config_that_shows_all_loads(tmp_path: Path) -> None:
    """Somebody who copies the whole example has a config that works."""
    for name in ("services/api/requirements.txt", "constraints/a.txt", "libs/core/uv.lock", "web/uv.lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    file = tmp_path / "venvflow.yaml"
    file.write_text(block(CONFIG, "yaml", "keep_per_venv"), encoding="utf-8")

    loaded = config.load(str(file), str(tmp_path), {"HOME": str(tmp_path)})

    assert list(loaded.venvs) == ["api", "web", "lib-core-3.11", "lib-core-3.12"]
    assert loaded.store.path == str(tmp_path / ".local/share/venvflow")


def test_the_config_that_shows_all_has_every_key() -> None:
    """A key that is not in the example is a key that nobody finds."""
    example = yaml.safe_load(block(CONFIG, "yaml", "keep_per_venv"))
    whole = json.loads(schema_text())
    properties = whole["properties"]
    venv = properties["venvs"]["additionalProperties"]["properties"]

    assert set(example) == set(properties)
    for name in ("store", "trim"):
        assert set(example[name]) == set(properties[name]["properties"])
    assert set(example["venvs"]["api"]) | set(example["venvs"]["web"]) == set(venv)
    remote = properties["store"]["properties"]["remote"]
    assert set(example["store"]["remote"]) == set(remote["properties"])
    for name in ("key", "squish", "pack"):
        assert set(example["venvs"]["api"][name]) == set(whole["$defs"][name]["properties"])


def test_the_reference_lists_every_task() -> None:
    """Both tables of tasks are those of the task loader, in its order."""
    page = (ROOT / "docs/reference/tasks.md").read_text(encoding="utf-8")
    known = [*tasks.TASK_DOCS, "push", "trim"]

    assert [name.strip("`").partition(":")[0] for name in first_column(page, "task")] == known
    assert [name.strip("`") for name in first_column(page, "task | leaves")] == known


def test_the_costs_are_what_their_prices_make() -> None:
    """The example computes: each row from the figures of the page, by hand."""
    page = (ROOT / "docs/explanation/costs.md").read_text(encoding="utf-8")
    pushes, restores = 200 * 30, 4_000 * 30
    stored = 50 * 0.363 + pushes * 0.021
    rows = [
        (round(stored), 0.023 * stored, 0.015 * stored),
        (pushes * 5, 5e-6 * pushes * 5, 4.5e-6 * pushes * 5),
        (pushes * 116, 4e-7 * pushes * 116, 3.6e-7 * pushes * 116),
        (restores * 136, 4e-7 * restores * 136, 3.6e-7 * restores * 136),
    ]
    found = re.findall(r"^\| [^|]+ \| ([\d,]+)(?: GB)? \| \$([\d.,]+) \| \$([\d.,]+) \|$", page, re.MULTILINE)
    told = [tuple(each.replace(",", "") for each in row) for row in found]
    assert told[:4] == [(f"{much}", f"{one:.1f}", f"{other:.1f}") for much, one, other in rows]
    assert told[4] == (f"{restores * 0.363:.0f}", f"{round(restores * 0.363 * 0.09, -1):.0f}", "0")
    assert f"${restores * 33_638 * 4e-7:,.0f} a month" in page


def test_the_readme_lists_every_command() -> None:
    """The table of commands is that of the command line: none is missing, and none is made up."""
    rows = first_column(README, "command")
    listed = {word for cell in rows for word in re.findall(r"`(?:venvflow )?([a-z]+)", cell)}

    assert listed == set(COMMANDS)


def test_the_reference_lists_every_exit_code() -> None:
    """Each error class ends with a code that the table explains; so do a hit, a miss, and Ctrl-C."""
    page = (ROOT / "docs/reference/exit-codes.md").read_text(encoding="utf-8")
    codes = {
        str(kind.exit_code)
        for kind in vars(errors).values()
        if isinstance(kind, type) and hasattr(kind, "exit_code")
    }

    assert codes | {"0", "1", "130"} == set(first_column(page, "exit code"))


def test_the_two_commands_are_there() -> None:
    """What the README tells to run in a fresh clone is in the Makefile, and "make help" explains it."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    told = re.findall(r"^make (\w+)", block(README, "text", "make run"), re.MULTILINE)

    assert told == ["run", "test"]
    for target in (*told, "docs", "recording"):
        assert re.search(rf"^{target}:.* ## \w", makefile, re.MULTILINE), target
        assert re.search(rf"^\.PHONY:.*\b{target}\b", makefile, re.MULTILINE), target


def rooms() -> dict[str, set[str]]:
    """Return the modules that the design's table names, by the directory that they are in."""
    table = DESIGN[DESIGN.index("| layer | room | modules |") :].split("\n\n", 1)[0]
    found: dict[str, set[str]] = {}
    for row in table.splitlines()[2:]:
        _, _, room, names, _, _ = row.split("|")
        found.setdefault(room.strip(" `/"), set()).update(re.findall(r"`(\w+)`", names))
    return found


def test_the_design_names_every_module() -> None:
    """Whoever looks for the room of a module finds it in the table; none is there that is gone."""
    package = ROOT / "venvflow"
    there: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        if path.stem != "__init__":
            there.setdefault(path.parent.relative_to(package).as_posix().strip("."), set()).add(path.stem)

    assert rooms() == there


def test_the_design_is_short() -> None:
    """It is read in one sitting; reasons are in the pages on decisions."""
    assert len(DESIGN.splitlines()) <= 150


DECISIONS = sorted((ROOT / "docs/decisions").glob("0*.md"))


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem[:4])
def test_a_decision_has_a_context_and_consequences(page: Path) -> None:
    """Each page has the same three sections, a number, and no more than a screen of text."""
    lines = page.read_text(encoding="utf-8").splitlines()
    headings = [line for line in lines if line.startswith("#")]

    assert headings[0].startswith(f"# {page.stem[:4]}: ")
    assert headings[1:] == ["## Context", "## Decision", "## Consequences"]
    assert 10 <= len(lines) <= 40


def test_every_decision_is_listed() -> None:
    """The index of the decisions has each, once, in the order of their numbers."""
    index = (ROOT / "docs/decisions/index.md").read_text(encoding="utf-8")

    assert re.findall(r"\]\((0[\w-]+)\.md\)", index) == [page.stem for page in DECISIONS]


def test_the_way_of_a_venv_names_functions_that_are_there() -> None:
    """Whoever follows it through the code finds each function in its module."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page[page.index("| what happens | module |") :].split("\n\n", 1)[0]
    walked = [re.findall(r"`([\w/.]+)`", row.split("|", 2)[2]) for row in table.splitlines()[2:]]
    pairs = [pair for row in walked for pair in zip(row[: len(row) // 2], row[len(row) // 2 :], strict=True)]

    assert len(pairs) >= 15
    for module, function in pairs:
        text = (ROOT / "venvflow" / module).read_text(encoding="utf-8")
        for part in function.split("."):
            assert re.search(rf"^ *(def|class) {part}\b", text, re.MULTILINE), (module, function)


@pytest.mark.parametrize(
    "page", [ROOT / "DESIGN.md", ROOT / "CONTRIBUTING.md", *DECISIONS], ids=lambda page: page.stem
)
def test_modules_that_pages_name_are_there(page: Path) -> None:
    """A file that was renamed is not looked for in vain."""
    named = set(re.findall(r"`((?:\w+/)*\w+\.py)`", page.read_text(encoding="utf-8"))) - {"dodo.py"}

    assert {
        name for name in named if not any((base / name).is_file() for base in (ROOT, ROOT / "venvflow"))
    } == set()


PUZZLES = re.compile(
    r"\b[Mm]end(s|ed|ing)?\b|\bnobody knows\b|\bwho asks\b|\bas if it were\b"
    r"|\b(?<!here )(is|are) no (number|venv|terminal|task|change|file|directory|error|findings?|failures?)\b"
)
"""Words that take two readings; "there is no venv" takes one."""


def texts_of(module: Path) -> list[str]:
    """Return all texts of a module: docstrings, messages, and parts of messages."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_words_are_plain() -> None:
    """In pages and in what the program says: "fix", not "mend"; "is not a venv", not "is no venv"."""
    pages = [path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"] + [
        *(ROOT / "docs").rglob("*.md")
    ]
    texts = [(page.name, page.read_text(encoding="utf-8")) for page in pages]
    texts += [(path.name, text) for path in (ROOT / "venvflow").rglob("*.py") for text in texts_of(path)]

    assert [(name, found[0]) for name, text in texts for found in PUZZLES.finditer(text)] == []
    assert PUZZLES.search("that is no venv")
    assert not PUZZLES.search("there is no venv")


@pytest.mark.slow
def test_a_first_project_in_five_lines(tmp_path: Path) -> None:
    """The README's commands, run in a small monorepo, do what it says."""
    wheel = make_wheel(tmp_path / "house", "demo", "1.0", scripts={"demo": "demo:main"})
    project = tmp_path / "my-monorepo"
    requirements(project / "services/api", [wheel])
    environ = {
        **os.environ,
        **offline_environment(tmp_path / "house"),
        "HOME": str(tmp_path),
        "VENVFLOW_STORE": str(tmp_path / "store"),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    commands = [
        line.split("#")[0].split()
        for line in block(README, "text", "venvflow init").splitlines()
        if line.startswith(("venvflow", "doit"))
    ]
    assert [words[0] for words in commands] == ["venvflow", "doit", "doit"]

    said = [
        subprocess.run(words, cwd=project, env=environ, check=True, capture_output=True, text=True).stdout
        for words in commands
    ]

    assert "build-venv:api  built" in said[1]
    assert said[2].startswith("nothing to do")
    demo = subprocess.run(
        [project / "services/api/.venv/bin/demo"], check=True, capture_output=True, text=True
    )
    assert demo.stdout.strip() == "1.0"
