"""``venvflow init --add``: what is new goes into a config that is there, and every other byte stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from contents import grow

from venvflow.init.addition import with_entries

if TYPE_CHECKING:
    from cli_project import Project

ENTRIES = [["a: x.txt"], ["", "b:", "  path: y"]]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("venvs:\n  c: z\n", "venvs:\n  c: z\n{}"),
        ("venvs:\n  c: z", "venvs:\n  c: z\n{}"),
        ("venvs:\r\n    c: z\r\n", "venvs:\r\n    c: z\r\n    a: x.txt\r\n\r\n    b:\r\n      path: y\r\n"),
        ("venvs: {}\n", "venvs:\n{}"),
        ("venvs: { } # none\ntrim: {}\n", "venvs: # none\n{}trim: {}\n"),
        ("venvs:\n", "venvs:\n{}"),
        (
            "venvs:  # ours\n\n  # one\n  c: z # x\n  # no: more\n\n# next\ntrim: {}\n# end\n",
            "venvs:  # ours\n\n  # one\n  c: z # x\n  # no: more\n{}\n# next\ntrim: {}\n# end\n",
        ),
        (
            'version: 1\n"venvs":\n  c:\n    locks:\n    - z\n...\n',
            'version: 1\n"venvs":\n  c:\n    locks:\n    - z\n{}...\n',
        ),
        ("venvs: {c: z}\n", ""),
        ("venvs: &all\n  c: z\n", ""),
        ("trim: {}\r\n", "trim: {}\r\n\r\nvenvs:\r\n{}"),
        ("each: []", "each: []\n\nvenvs:\n{}"),
        ('venvs:\n  c: "\x85\u2028x"\n', 'venvs:\n  c: "\x85\u2028x"\n{}'),
    ],
)
def test_entries_go_to_the_end_of_the_venvs(before: str, after: str) -> None:
    """With the indentation and line ends that are there; comments at the margin belong to what follows."""
    newline = "\r\n" if "\r\n" in before else "\n"
    added = newline.join(["  a: x.txt", "", "  b:", "    path: y", ""])
    assert with_entries(before, ENTRIES) == after.replace("\n{}", f"\n{added}", 1)


MINE = "# Mine.\nversion: 1\nvenvs:\n  api: {locks: [api/requirements.txt]}   # by hand\n\n# The end.\n"


@pytest.fixture
def grown(project: Project) -> Project:
    """Return a project with a config of its own, and a lock file that is in no venv of it."""
    grow(project.root, {"new/requirements.txt": "six==1.17.0\n"})
    project.config.write_text(MINE, encoding="utf-8")
    project.run("init")  # the files beside it are there
    return project


def test_what_is_new_is_added(grown: Project) -> None:
    """The entries that --check shows stand in the config then, and nothing is left to add."""
    entries = grown.run("init", "--check").out.partition("\n")[2].rstrip("\n")
    answer = grown.run("init", "--add")
    assert (answer.code, answer.out) == (0, f"added to {grown.config}: new, web\n")
    assert grown.config.read_text(encoding="utf-8") == MINE.replace("by hand\n", f"by hand\n{entries}\n")
    after = grown.hashes()
    for words in (["init", "--add"], ["init", "--check"], ["init"]):
        answer = grown.run(*words)
        assert (answer.code, answer.out) == (0, "")
    assert grown.hashes() == after


def test_mode_and_link_of_the_config_stay(grown: Project) -> None:
    """A config that is a link to one elsewhere is added to there."""
    elsewhere = grown.root / "config.d" / "mine.yaml"
    elsewhere.parent.mkdir()
    os.rename(grown.config, elsewhere)
    elsewhere.chmod(0o640)
    grown.config.symlink_to("config.d/mine.yaml")
    document = grown.run("init", "--add", "--json").document
    assert (document["written"], document["files"]) == (True, [])
    assert os.readlink(grown.config) == "config.d/mine.yaml"
    assert elsewhere.stat().st_mode & 0o777 == 0o640
    assert "new: new/requirements.txt" in elsewhere.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("venvs: {api: api/requirements.txt}\n", 6, "in a way that only a person can add to"),
        ("venvs:\n  api: &a {locks: [api/requirements.txt]}\n  {new2: x}\n", 2, "venvflow.yaml:4"),
        ("venvs: [", 2, "this is not YAML"),
        ("venvs:\n  api: 3\n", 2, "venvs.api"),
    ],
)
def test_what_cannot_be_added_to_is_left(grown: Project, text: str, code: int, words: str) -> None:
    """A config that does not parse, or has its venvs in braces: nothing is written."""
    grown.config.write_text(text, encoding="utf-8")
    before = grown.hashes()
    answer = grown.run("init", "--add")
    assert (answer.code, answer.out) == (code, "")
    assert words in answer.err
    assert grown.hashes() == before


@pytest.mark.parametrize("whose", ["ours", "somebody's"])
def test_a_read_only_config_is_left(whose: str, grown: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever took the right to write away, root too, has to give it back."""
    if whose == "ours":
        grown.config.chmod(0o444)
    else:
        monkeypatch.setattr("venvflow.init.draft.os.access", lambda *_: False)
    before = grown.hashes()
    answer = grown.run("init", "--add")
    assert (answer.code, answer.out) == (6, "")
    assert "the config is read-only" in answer.err
    assert grown.hashes() == before


def test_a_config_that_somebody_else_writes_meanwhile_is_left(
    grown: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they wrote is not lost."""
    from venvflow.init import draft

    text = f"{MINE}# Theirs.\n"

    def late(before: str, entries: list[list[str]]) -> str:
        grown.config.write_text(text, encoding="utf-8")
        return with_entries(before, entries)

    monkeypatch.setattr(draft, "with_entries", late)
    answer = grown.run("init", "--add")
    assert (answer.code, "changed by somebody else meanwhile" in answer.err) == (6, True)
    assert grown.config.read_text(encoding="utf-8") == text
    assert [path.name for path in grown.root.iterdir() if path.name.startswith(".vf")] == []


def test_ignore_says_no_for_good(grown: Project) -> None:
    """What it names is neither written nor asked for; a venv that is made from it stays, with a word."""
    with grown.config.open("a", encoding="utf-8") as file:
        file.write("ignore: [/new/, web, api/]\n")
    answer = grown.run("init", "--check")
    assert (answer.code, answer.out) == (0, "")
    assert f"ignore hides {grown.root}/api/requirements.txt; api, which is made from it, stays" in answer.err
    assert [venv["name"] for venv in grown.run("status", "--json").document["venvs"]] == ["api"]
    assert grown.run("init", "--add").out == ""


def test_add_without_a_config_is_init(grown: Project) -> None:
    """There is nothing to add to yet: it is written."""
    grown.config.unlink()
    assert grown.run("init", "--add").out == f"wrote {grown.config}\n"
    assert grown.run("init", "--check").code == 0


def test_add_and_check_are_one_too_many(grown: Project) -> None:
    """One writes, the other does not."""
    assert grown.run("init", "--add", "--check").code == 2


# --------------------------------------------------------------------------- a config of another name


@pytest.mark.parametrize("name", ["envs.yaml", "config/envs.yaml"])
def test_the_config_is_written_where_it_is_asked_for(name: str, grown: Project) -> None:
    """With the schema beside it, and a dodo.py in the project that finds it."""
    for file in ("venvflow.yaml", "dodo.py", "venvflow.schema.json"):
        (grown.root / file).unlink()
    (grown.root / "config").mkdir()
    answer = grown.run("-c", name, "init")
    place = grown.root / name
    schema, dodo = place.parent / "venvflow.schema.json", grown.root / "dodo.py"
    assert (answer.code, set(answer.out.splitlines())) == (0, {f"wrote {x}" for x in (place, schema, dodo)})
    assert list(grown.run("status", "-c", name, "--json").document["venvs"]) != []
    assert f"os.environ.setdefault('VENVFLOW_CONFIG', {name!r})".replace(
        "'", '"'
    ) in dodo.read_text().replace("'", '"')
    assert grown.run("-c", name, "init", "--check").code == 0
    grow(grown.root, {"newer/requirements.txt": "six==1.17.0\n"})
    assert grown.run("-c", name, "init", "--add").out == f"added to {place}: newer\n"
    assert not grown.config.exists()


def test_a_config_of_another_project_is_refused(grown: Project) -> None:
    """The project of a config is where it lies; a directory that is not there has none."""
    answer = grown.run("-c", "api/envs.yaml", "init", "web")
    assert (answer.code, "is the config of" in answer.err) == (2, True)
    assert grown.run("-c", "ghost/envs.yaml", "init").code == 2
    assert not Path(grown.root, "api", "envs.yaml").exists()
