"""Exclude patterns decide as git does, keep the skeleton, and never hang."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec

from venvflow.errors import ConfigError
from venvflow.model import Saved
from venvflow.pure.patterns import (
    Matcher,
    compile_patterns,
    is_skeleton,
    problems,
    saved_by,
    star_problem,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pathspec.backend import BackendNamesHint
    from pathspec.pattern import Pattern

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git to compare with")

FILES = [
    "a", "b/a", "b/b/a", "b/src/a.py", "src/a", "src/b/a", "src/b/b.h", "src/x.d/a.py", "src/x.d/b/ab",
    "src/x.d/b/.a", ".a/b", ".a/src/.b", "ab/ab/ab", "ab/a.py", "ab/b.h/A", "ab/b.h/src/b", "A/b",
    "A/a[b", "A/a*b", "A/*a", "A/!a", "A/#a", "A/a\\b", "A/a\\", "A/a-b", "A/]a", "#a", "!a", "x/x/x/x",
    "x/x/x/a", "x/y/x/b", "x/+/x", "x/+x", "x/a+b", "x/1", "x/22", "a.py/a", "a.py/b.py/c.py", "x y", "b/x y",
    "A/trail ", "A/trail",
]  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a git repository with all FILES."""
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def directories() -> set[str]:
    """Return all directories above FILES."""
    found = set()
    for name in FILES:
        parts = name.split("/")
        found |= {"/".join(parts[:length]) for length in range(1, len(parts))}
    return found


def git_excludes(repository: Path, lines: Iterable[str]) -> set[str]:
    """Return which paths git says are ignored."""
    (repository / ".gitignore").write_text("\n".join(lines) + "\n")
    result = subprocess.run(
        ["git", "-C", str(repository), "check-ignore", "--no-index", "--stdin", "-z"],
        input="\0".join([*FILES, *directories()]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in {0, 1}, result.stderr
    return set(result.stdout.split("\0")) - {""}


def we_exclude(lines: Iterable[str]) -> set[str]:
    """Return which of the paths are excluded here."""
    matcher = compile_patterns(list(lines))
    dirs = directories()
    return {name for name in FILES if matcher.excludes_file(name)} | set(filter(matcher.excludes_dir, dirs))


# Each with commas between its lines.
CORPUS = [
    "a\\\\ ", "a\\\\",
    "a", "/a", "a/", "*", "*,!src", "*,!src/,!*.py", "src/*,!src/b/", "b/,!b/a", "b/*,!b/a", "**/a",
    "a/**", "x/**", "x/**/x", "x/**/a", "**", "**/", "/**", "x/**/", "**/x/**", "*/x", "x/*/x", "x/*",
    "/*/*", "*.py", "a.py", "a.py/", "!a,a", "a,!a", "#a", "\\#a", "\\!a", "!!a", "a\\[b", "a\\*b",
    "a[*]b", "a\\\\b", "a[b-]a", "x[+]x", "[!a]*", "*[^b]", "[!a-c][^0-9]", "*,![!a-]",
    "[a-c]*", "a.[p-q][y]", "?", "??", "x?x", "x y", "x\\ y", "trail ", "trail\\ ", "trail\\  ",
    "a  ", "A", "a?b", "*a*b*", "src/**/*.py", "src/**/b/*", "x/x/**/**/x", ",#,   ", "ab/,!ab/ab/", ".*",
    "*,!*/", "*,!*/,!*.py", "/src/x.d", "src/x.d/", "/src,!src/", " a", "a/b/", "2*2", "*/,!x/", "*/,!/x/",
    "x/**,!x/x", "/src/**,!/src/x.d/,!*.py", "src/**/,!src/x.d", "**.py", "a**b/", "src**", "src/**.py",
    "/**/", "**/*/", "x/*/**", "x/**/*", "x/**/*/", "!x/**/,x/**", "b,!b,!a,b/src", "**,!**/", "trail\\ /",
]  # fmt: skip


@needs_git
@pytest.mark.parametrize("text", CORPUS)
def test_patterns_decide_as_git_does(repository: Path, text: str) -> None:
    """Each construct of the gitignore manual, and where it is known to surprise."""
    lines = text.split(",")
    assert we_exclude(lines) == git_excludes(repository, lines)


ATOMS = [
    "a", "b", "ab", "A", "src", "x", "y", ".py", ".h", "x.d", ".", "*", "*", "?", "[ab]", "[!a]", "[^b]",
    "[a-c]", "[^.b]", "[a-]", "[*a]", "\\a", "\\*", "\\[", "1", " ", "**",
]  # fmt: skip
PARTS = st.lists(st.sampled_from(ATOMS), min_size=1, max_size=4).map("".join)
PATTERNS = st.builds(
    lambda negated, anchored, parts, end: negated + anchored + "/".join(parts) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(st.one_of(PARTS, PARTS, st.just("**")), min_size=1, max_size=4),
    st.sampled_from(["", "", "/", " "]),
)


@pytest.mark.slow
@needs_git
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(PATTERNS, min_size=1, max_size=6))
def test_any_patterns_decide_as_git_does(repository: Path, lines: list[str]) -> None:
    """Patterns put together at random, several at once."""
    assume(not problems(lines))
    # git compares pointers of two buffers for ** within a part: what it does there is not defined.
    assume(not any("**" in part and part != "**" for line in lines for part in line.lstrip("!").split("/")))
    assert we_exclude(lines) == git_excludes(repository, lines)


def test_without_patterns_nothing_is_excluded() -> None:
    """Comments and blank lines are no patterns."""
    for lines in ([], [""], ["# all", "  "]):
        matcher = compile_patterns(lines)
        assert not matcher
        assert not matcher.excludes_file("a")
        assert not matcher.excludes_dir("a")
        assert matcher.deciding("a/b") is None
    assert compile_patterns(["a"])


def test_negation_does_not_bring_back_what_lies_below_an_excluded_directory() -> None:
    """The walk does not enter it, so the answer for what is in it is the same."""
    matcher = compile_patterns(["**/tests/", "!**/tests/keep.py", "!**/numpy/tests/"])
    assert matcher.excludes_dir("lib/p/tests")
    assert matcher.excludes_file("lib/p/tests/keep.py")
    assert not matcher.excludes_dir("lib/numpy/tests")
    assert not matcher.excludes_file("lib/numpy/tests/test_a.py")


def test_the_deciding_pattern_is_named() -> None:
    """The last one that matches, or the one that excluded a directory above."""
    matcher = compile_patterns(["*.h ", "tests/", "!keep.h"])
    assert matcher.deciding("a.h") == "*.h "
    assert matcher.deciding("keep.h") == "!keep.h"
    assert matcher.deciding("p/tests/") == "tests/"
    assert matcher.deciding("p/tests/a/keep.h") == "tests/"
    assert matcher.deciding("tests") is None
    assert matcher.deciding("a.c") is None


SKELETON = [
    "pyvenv.cfg",
    "bin/python",
    "bin/python3",
    "bin/python3.12",
    "bin/pypy3",
    "lib/python3.12/site-packages/a-1.dist-info/RECORD",
    "lib64/pypy3.10/site-packages/a-1.dist-info/RECORD",
]


@pytest.mark.parametrize("rel", SKELETON)
def test_the_skeleton_stays_whatever_the_patterns_say(rel: str) -> None:
    """Neither the files nor a directory on the way to them is ever excluded."""
    assert is_skeleton(rel)
    for lines in (["*"], ["**/RECORD", "bin/", "lib*/", "*.cfg", "*.dist-info/"], ["/**"], [f"/{rel}"]):
        matcher = compile_patterns(lines)
        assert not matcher.excludes_file(rel)
        assert matcher.deciding(rel) is None
        parts = rel.split("/")
        for length in range(1, len(parts)):
            assert not matcher.excludes_dir("/".join(parts[:length]))


@pytest.mark.parametrize(
    "rel",
    [
        "bin/activate",
        "bin/sub/python",
        "bin/python/sub",
        "share/pyvenv.cfg",
        "lib/python3.12/site-packages/a-1.dist-info/METADATA",
        "lib/python3.12/site-packages/s/_vendor/a-1.dist-info/RECORD",
    ],
)
def test_what_is_not_skeleton_is_excluded_although_its_directory_is_entered(rel: str) -> None:
    """Entering a directory for the sake of the skeleton does not bring back the rest."""
    assert not is_skeleton(rel)
    assert compile_patterns(["*"]).excludes_file(rel)
    assert compile_patterns(["bin/", "lib/", "share/", "!RECORD", "!METADATA"]).excludes_file(rel)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("!", "nothing"),
        ("/", "nothing"),
        ("//", "nothing"),
        ("a//b", "nothing"),
        ("a//", "nothing"),
        ("\\", "backslash"),
        ("a\\/b", "backslash"),
        ("a[b", "does not start a list"),
        ("[", "does not start a list"),
        ("[a/b]", "does not start a list"),
        ("[[:digit:]]", "does not start a list"),
        ("[+-9]", "does not start a list"),
        ("[\\]]", "does not start a list"),
        ("[]a]", "does not start a list"),
        ("a[!b]c", "middle of a name"),
        ("x/a[^b]*/y", "middle of a name"),
        ("a \t", "white space"),
        ("a /", "white space"),
        ("a\u00a0/b", "white space"),
        ("a***", "three stars"),
        ("*a" * 5, "too many stars"),
        ("**/a" * 7, "too many stars"),
        ("*a*a*a*/*a*a*a*/b", "too many stars"),
        ("x/*a*b*c*d*e/y", "too many stars"),
        ("a\nb", "line break"),
        ("a\0", "NUL"),
    ],
)
def test_bad_patterns_are_named_with_the_reason(line: str, word: str) -> None:
    """What could never match, or means something else to git, is told before anything is excluded."""
    (problem,) = problems(["good", line, "*.py"])
    assert repr(line) in problem
    assert word in problem
    with pytest.raises(ConfigError, match="1 problem"):
        compile_patterns(["good", line])


@pytest.mark.parametrize(
    "pattern", ["**/tests/", "*-*.dist-info/*.py[co]", "a/**/b/**/*.*", "\\*" * 20, "*" * 50, "[*]" * 4]
)
def test_ordinary_patterns_have_few_stars(pattern: str) -> None:
    """What people write passes; escaped stars are none, a run of stars is one."""
    assert star_problem(pattern) == ""


def test_a_long_pattern_is_shown_in_part() -> None:
    """A message stays readable."""
    (problem,) = problems(["x" * 10_000 + "["])
    assert len(problem) < 250


@given(st.lists(st.text("ab*?[]!^-\\/ #\n\0é\udc80{}()|.+$"), max_size=5), st.text("ab/é\n]", min_size=1))
def test_any_text_either_is_a_problem_or_compiles(lines: list[str], rel: str) -> None:
    """No text fails in another way, and none is taken for a regular expression."""
    if problems(lines):
        return
    try:
        matcher = compile_patterns(lines)
    except ConfigError as error:
        assert "bad character range" in str(error)  # noqa: PT017 - most texts do not get here
    else:
        matcher.excludes_file(rel)
        matcher.excludes_dir(rel)


@pytest.mark.parametrize("line", ["[z-a]", "a/[b9-0]/"])
def test_what_only_the_library_finds_is_a_problem_of_the_config(line: str) -> None:
    """Loading does not compile patterns; the step that does fails in words."""
    assert problems([line]) == []
    with pytest.raises(ConfigError, match=r"cannot be compiled: .*range"):
        compile_patterns(["a", line])


def test_the_engine_does_not_depend_on_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would choose one by itself."""
    chosen = []
    make = GitIgnoreSpec._make_backend

    def noted(name: BackendNamesHint, patterns: Sequence[Pattern]) -> object:
        chosen.append(name)
        return make(name, patterns)

    monkeypatch.setattr(GitIgnoreSpec, "_make_backend", staticmethod(noted))
    assert compile_patterns(["*.h", "*.c"]).excludes_file("a/b.c")
    assert set(chosen) == {"simple"}


def test_names_may_hold_anything() -> None:
    """Newlines and bytes that are not UTF-8 are characters like others."""
    matcher = compile_patterns(["*.h", "caf?/", "(a|b)", "x/**", "**/y/z"])
    assert matcher.excludes_file("x/a\nb")
    assert matcher.excludes_file("a\nb/y/z")
    assert matcher.excludes_file("a\nb/c\n.h")
    assert not matcher.excludes_file("a.h\n")
    assert matcher.excludes_dir("caf\udce9")
    assert not matcher.excludes_file("a")
    assert matcher.excludes_file("(a|b)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "rel"),
    [
        ("*a*a*a*b", "a" * 255),
        pytest.param("**a**a**a**b", "a" * 255, marks=pytest.mark.slow),
        ("*a*a*a*b/*c*d", ("a" * 100 + "/") * 10 + "c"),
        pytest.param("**/a/**/a/**/a/**/a/**/a/**/b", "a/" * 30 + "c", marks=pytest.mark.slow),
        pytest.param("**/a/**/*a*a*a*b", "a/" * 30 + "a" * 100, marks=pytest.mark.slow),
        pytest.param("**/*a*/*a*/*b", ("a" * 30 + "/") * 15 + "c", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(10)
def test_no_pattern_hangs(pattern: str, rel: str) -> None:
    """The worst that the limit on stars allows, against names and depths beyond what is seen in venvs."""
    matcher = compile_patterns([pattern])
    assert not matcher.excludes_file(rel)
    assert not matcher.excludes_dir(rel)
    found = pattern.replace("**/", "").replace("*", "")
    assert matcher.excludes_file(found)


def test_no_depth_is_too_deep() -> None:
    """A path is walked down, not up: it can be longer than Python's stack."""
    matcher = compile_patterns(["x/", "!y"])
    assert not matcher.excludes_file("y/" * 3000 + "a")
    assert matcher.excludes_file("x/" + "y/" * 3000 + "a")


def test_importing_it_imports_nothing_heavy() -> None:
    """Venvs without patterns pay nothing."""
    code = (
        "import __future__, contextlib, errno, itertools, re, sys, typing, venvflow.model\n"
        "class Loads(typing.NamedTuple): what: 'needs'\n"
        "before = set(sys.modules)\n"
        "import venvflow.pure.patterns; print(*(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(name.startswith("venvflow") for name in out.split())


def test_a_matcher_remembers_directories_only() -> None:
    """A walk over many files does not fill memory with answers that are not asked again."""
    matcher = Matcher(["x"])
    for number in range(100):
        matcher.excludes_file(f"d/e/{number}")
    assert set(matcher._decided) == {"", "d", "d/e"}


def test_each_pattern_is_told_with_what_it_saved() -> None:
    """The pattern that decides counts; most bytes come first, and nothing is lost on the way to a file."""
    matcher = compile_patterns(["**/tests/", "*.h", "!keep.h"])
    site = "lib/python3.12/site-packages"
    sizes = {f"{site}/a/tests/x.h": 10, f"{site}/a/tests/y.py": 5, f"{site}/b.h": 100}
    found = saved_by(sizes, matcher)
    assert found == [Saved("*.h", 1, 100), Saved("**/tests/", 2, 15)]
