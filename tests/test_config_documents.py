"""From a file to nodes: whatever it holds, the answer is a line and a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from configs import one_venv, problems, project, read
from hypothesis import given
from hypothesis import strategies as st

from venvflow.config import load, quoted
from venvflow.errors import ConfigError, EnvironmentFailure

ROOT_USER = os.geteuid() == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a lock file at its top, and a home beside it."""
    return project(tmp_path)


def test_directories_and_pipes_are_no_configs(root: Path) -> None:
    """Neither is waited for."""
    os.mkfifo(root / "pipe")
    for name, text in (("pipe", "not a regular file"), (".", "a directory")):
        with pytest.raises(ConfigError, match=text):
            load(str(root / name), str(root), {"HOME": "/home/x"})


def test_a_missing_or_looping_file_is_an_error_of_the_environment(root: Path) -> None:
    """What the system says is passed on, with exit code 3."""
    (root / "loop").symlink_to("loop")
    for name in ("nope", "loop"):
        with pytest.raises(EnvironmentFailure, match="cannot be read") as caught:
            load(str(root / name), str(root), {"HOME": "/home/x"})
        assert caught.value.exit_code == 3


@pytest.mark.skipif(ROOT_USER, reason="root may read every file")
def test_an_unreadable_file_is_an_error_of_the_environment(root: Path) -> None:
    """A file without permission is named."""
    (root / "venvflow.yaml").touch(mode=0)
    with pytest.raises(EnvironmentFailure, match="Permission denied"):
        load(str(root / "venvflow.yaml"), str(root), {"HOME": "/home/x"})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1: the file is empty"),
        ("# nothing\n", "1: the file is empty"),
        ("~", "1: the file is empty"),
        ("- a", "1: expected a mapping (key: value), found a list"),
        ("just text", "1: expected a mapping"),
        ("venvs: {}\n---\nvenvs: {}", "2: a second document"),
        ("venvs:\n\tapi: {}", "2: this is not YAML: "),
        ("venvs: {", "this is not YAML"),
        ("\ufeffvenvs: {}", "1: the file starts with a byte order mark"),
        ("venvs: {}".encode("utf-16"), "1: the file starts with a byte order mark"),
        (b"venvs: {}\n#\xff", "2: this is not UTF-8"),
        (b"venvs: {}\n\n#\0", "3: there is a NUL byte"),
        ("venvs: {}\nexclude: ['ü\x07']", "2: YAML does not allow this character: 0x07"),
        ('exclude: ["\\0"]\nvenvs: {}', "1: exclude[0]: text cannot hold a NUL"),
        ("#" * (1 << 20) + "\nvenvs: {}", "1: the file is larger"),
        ("venvs: !!python/object/apply:os.system [id]", "1: tags are not supported"),
        ("venvs: !x {}", "1: tags are not supported: leave out !x"),
        ("venvs: {}\nexclude: [! a]", "2: tags are not supported"),
        ("a: &a [*a]", "1: the alias *a lies inside"),
        ("a: &a {b: &b {c: *a}}", "1: the alias *a lies inside"),
        ("a: *b", "1: the alias *b refers to nothing"),
        ("[" * 60, "1: lists and mappings are nested more than 50 deep"),
        ("\n" + "- " * 60, "2: lists and mappings are nested more than 50 deep"),
        ("\n" + "- " * 100_000, "2: lists and mappings are nested more than 50 deep"),
        ("x: 1\ny: " + "[" * 100_000, "2: lists and mappings are nested more than 50 deep"),
        ("{a: " * 100_000, "1: lists and mappings are nested more than 50 deep"),
        ("venvs: {}\n[a]: b", "2: a key must be text, found a list"),
        ("venvs: {}\n<<: {version: 1}", "2: merge keys"),
        ("venvs: []", "1: venvs: expected a mapping of names, found a list"),
        ("trim:\nvenvs: {}", "1: trim: expected a mapping (key: value), found nothing"),
        ("version: 1", "1: the key 'venvs' is missing"),
    ],
)
def test_documents_that_are_no_config_are_refused(root: Path, text: str | bytes, problem: str) -> None:
    """Whatever the file holds, the answer is a line and a sentence."""
    assert any(problem in found for found in problems(root, text)), problems(root, text)


def test_tabs_get_a_word_of_advice(root: Path) -> None:
    """What the parser says of a tab is hard to understand without it."""
    assert "indent with spaces" in problems(root, "venvs:\n\tapi: {}")[0]


def test_duplicate_keys_name_both_lines(root: Path) -> None:
    """YAML would keep the last one without a word."""
    text = one_venv("path: other")
    assert problems(root, text) == ["5: the key 'path' is here twice: first in line 3"]


def test_keys_that_yaml_mangles_must_be_quoted(root: Path) -> None:
    """A venv called 3.10 would be 3.1 to other readers of the file."""
    text = "venvs:\n  3.10: {path: x, locks: [lock.txt]}\n"
    assert problems(root, text) == ["2: YAML reads the key '3.10' as a number: write it in quotes"]
    assert set(read(root, text.replace("3.10", '"3.10"')).venvs) == {"3.10"}


def test_a_bomb_of_aliases_is_refused(root: Path) -> None:
    """Ten levels of ten would be ten thousand million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert any("aliases make the config larger" in problem for problem in problems(root, "\n".join(lines)))


def test_aliases_in_reason_work(root: Path) -> None:
    """A value may be written once and used twice, in lists and as a whole."""
    text = """\
venvs:
  a: {path: a, locks: &locks [lock.txt], squish: &squish {min_size: 5}}
  b: {path: b, locks: *locks, squish: *squish}
"""
    venvs = read(root, text).venvs
    assert venvs["a"].locks == venvs["b"].locks
    assert venvs["b"].min_size == 5


def test_a_name_of_an_anchor_may_be_used_again(root: Path) -> None:
    """Each alias is the last value of that name before it, as YAML says."""
    text = """\
exclude: &a ["x"]
venvs:
  a: {path: a, locks: &a [lock.txt], exclude: *a}
  b: {path: b, locks: *a}
"""
    venvs = read(root, text).venvs
    assert venvs["a"].exclude == ("x", "lock.txt")
    assert venvs["b"].locks == (f"{root}/lock.txt",)


@pytest.mark.slow
def test_many_wrong_keys_cost_no_minutes(root: Path) -> None:
    """Suggestions stop where a file is all wrong, and long words are shown in part."""
    text = "\n".join(f"venvz{i}: 1" for i in range(5000)) + "\n? " + "x" * 50_000 + "\n: 1\n"
    found = problems(root, text)
    assert len(found) == 5002
    assert sum("did you mean" in problem for problem in found) < 200
    assert max(map(len, found)) < 300


def test_the_python_parser_sees_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no libyaml, values, lines and refusals are the same."""
    text = "version: 3\n" + one_venv("python: 3.10") + "a: [\x07]\n"
    good = one_venv('python: "3.10"')
    with_c = (problems(root, text), problems(root, text.replace("\x07", "")), read(root, good))
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert (problems(root, text), problems(root, text.replace("\x07", "")), read(root, good)) == with_c
    assert "nested more than 50" in problems(root, "[" * 1000)[0]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_quoted_text_reads_back_as_itself(text: str) -> None:
    """Whatever a name is made of, YAML gives it back, and takes it for text."""
    written = quoted(text)
    assert yaml.safe_load(f"{written}: [{written}]") == {text: [text]}


@pytest.mark.parametrize(
    "text", ["no", "null", "3.10", "~", "a: b", "- a", "#", "", "'", "a\nb", "1_0", "true"]
)
def test_text_that_yaml_would_mangle_is_quoted(text: str) -> None:
    """Words that YAML takes for something else, and signs that it reads itself."""
    assert quoted(text).startswith('"')
    assert quoted("services/api/.venv") == "services/api/.venv"
