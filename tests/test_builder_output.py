"""What is made of the words of builders: why they failed, what they miss, what they are at.

``golden/builders`` holds what uv, pip, poetry, pdm and pipenv really said in 2026, with other paths: of a C
extension that lacks a header (``-c``), of a ``setup.py`` that raises (``-setup``), of other bytes than those
locked (``-hash``), of a version that no index has (``-nover``), of an index out of reach (``-noindex``), of
a lock that is too old (``-stale``), of a Python that is not allowed (``-python``), and of a success with
packages missing (``-ok``).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from venvflow.builders.output import Doing, Heard, Lack, hint, is_cause, lack_in, warnings_of
from venvflow.pure.lockfiles import locked_by

SAID = Path(__file__).with_name("golden") / "builders"


def heard(name: str) -> Heard:
    """Return what is heard of the words that were kept as *name*."""
    found = Heard()
    for line in (SAID / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        found.take(line)
    return found


# --------------------------------------------------------------------------- why it failed


MISSING_HEADER = "fatal error: libpq-fe.h: No such file or directory"


@pytest.mark.parametrize(
    ("name", "causes", "advice"),
    [
        (
            "uv-c",
            ["error: Failed to build `lrux", MISSING_HEADER, "hint: This error likely"],
            "compiled here",
        ),
        ("pip-c", ["Building wheel for lrux (pyproject.toml) did not", MISSING_HEADER], "compiled here"),
        ("poetry-c", [MISSING_HEADER, "issues with cext (1.0"], "compiled here"),
        ("pdm-c", [MISSING_HEADER, "Error occurs adding cext"], "compiled here"),
        ("pipenv-c", ["Building wheel for cext (pyproject.toml) did not", MISSING_HEADER], "compiled here"),
        ("uv-setup", ["error: Failed to build `badsetup", "RuntimeError: pg_config executable"], ""),
        ("pip-setup", ["Getting requirements to build wheel did", "RuntimeError: pg_config executable"], ""),
        ("uv-hash", ["error: Failed to download `alpha==1.0`", "cause: Hash mismatch for"], "other files"),
        ("pip-hash", ["ERROR: THESE PACKAGES DO NOT MATCH THE HASHES"], "other files"),
        (
            "poetry-hash",
            ["Hash for beta (1.0", "Cannot install beta", "Hash for cext (1.0", "Cannot install cext"],
            "other files",
        ),
        ("pdm-hash", ["Error occurs adding", "Hash mismatch for", "Error occurs", "Hash mis"], "other files"),
        ("uv-nover", ["error: No solution found", "cause: Because there is no version of alpha==9.0"], ""),
        ("pip-nover", ["ERROR: Could not find a version", "ERROR: No matching distribution"], ""),
        (
            "uv-noindex",
            ["error: Request failed", *["cause: "] * 4, "cause: Connection refused"],
            "out of reach",
        ),
        ("pip-noindex", ["WARNING: Retrying", "ERROR: Could not find", "ERROR: No matching"], "out of reach"),
        ("poetry-stale", ["pyproject.toml changed significantly since poetry.lock"], "lock again"),
        ("poetry-python", ["Current Python version (3.11.7) is not allowed"], '"python:"'),
        ("pip-ok", [], ""),
        ("uv-ok", [], ""),
    ],
)
def test_the_lines_that_say_why_are_found(name: str, causes: list[str], advice: str) -> None:
    """In their order, once each, without frames and without what only says that something failed."""
    found = heard(name)
    assert len(found.causes) == len(causes), found.causes
    assert all(cause in line for cause, line in zip(causes, found.causes, strict=True)), found.causes
    assert not any(line[:1] in " |│╰" for line in found.causes)
    assert advice in hint("\n".join([found.tail, *found.causes]), "/")


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("This version of pip does not support python 3.9 (requires >=3.10).", "an older pipenv, or"),
        ("error: `/p/docs` does not appear to be a Python project, as neither", "the directory of that file"),
    ],
)
def test_a_line_that_says_why_has_its_advice(line: str, advice: str) -> None:
    """Where the tool itself says what it lacks, and not what to do."""
    assert is_cause(line)
    assert advice in hint(line, "/")


@pytest.mark.parametrize(
    "line",
    [
        "/usr/bin/ld: error: cannot find -lpq",
        "error[E0432]: unresolved import `x`",
        "error: linker `cc` not found",
        "CMake Error at CMakeLists.txt:3 (find_package):",
        "bash: line 1: make: command not found",
        "make: *** [Makefile:3: all] Error 1",
        "ModuleNotFoundError: No module named 'numpy'",
        "my.own.ConfigError: no key",
        "zipfile.BadZipFile: File is not a zip file",
        "So, because app depends on a (2), version solving failed.",
        "Because app depends on demo9 (*) which doesn't match any versions, version solving failed.",
        "cat: x: No such file or directory",
        "OSError: [Errno 28] No space left on device: '/x'",
        "[PdmUsageError]: no lock file",
        "  \u00d7 No solution found when resolving dependencies:",
        "  ╰─▶ Because a depends on b>2 and b<1, we can conclude that",
        "  ╰─▶ Hash mismatch for `a==1.0`",
    ],
)
def test_what_other_tools_say_is_a_cause(line: str) -> None:
    """Compilers, linkers, make, shells, Python itself."""
    assert is_cause(line)


@pytest.mark.parametrize(
    "line",
    [
        "subprocess.CalledProcessError: Command '['cc', '-c', 'x.c']' returned non-zero exit status 1.",
        "error: subprocess-exited-with-error",
        "ERROR: Failed building wheel for cext",
        "cause: The build backend returned an error",
        "  ├─▶ The build backend returned an error",
        "╰─> See above for output.",
        "[InstallationError]: Some package operations failed.",
        "Installing dependencies from lock file",
        "copying errors.py -> build/lib/x/errors.py",
        "0 errors",
        "",
    ],
)
def test_what_only_says_that_something_failed_is_none(line: str) -> None:
    """The cause stands elsewhere, and would be hidden by it."""
    assert not is_cause(line)


def test_of_many_causes_the_first_and_the_last_are_kept() -> None:
    """A compiler says the same of each file; the end is short then, too."""
    found = Heard()
    for number in range(100):
        found.take(f"x.c:{number}:1: error: expected ';'")
        found.take("    1 | int x")
    assert len(found.causes) == 9
    assert found.causes[3:6] == ["x.c:3:1: error: expected ';'", "...", "x.c:96:1: error: expected ';'"]
    assert len(found.tail.splitlines()) == 15
    found = Heard()
    found.take("  error: that is all")
    assert (found.causes, found.tail) == (["error: that is all"], "")


# --------------------------------------------------------------------------- what it misses


@pytest.mark.parametrize(
    ("line", "lack"),
    [
        ("warning: The package `a` requires `b>=2`, but it's not installed", Lack("a", "b>=2")),
        ("warning: The package `a` requires `b>=2`, but `1.0` is installed", Lack("a", "b>=2", "1.0")),
        ("a 1.0 requires b, which is not installed.", Lack("a", "b")),
        ("a 1.0 has requirement b>=2, but you have b 1.0.", Lack("a", "b>=2", "1.0")),
        ("Successfully installed a-1.0", None),
    ],
)
def test_what_is_missing_is_read(line: str, lack: Lack | None) -> None:
    """From what uv and pip say."""
    assert lack_in(line) == lack


def test_each_kind_of_what_is_missing_is_one_line() -> None:
    """With counts, by what is missing, not by who misses it."""
    missing, others = warnings_of(heard("uv-ok").lacks, "")
    assert missing == (
        "the lock file does not name what its packages need, so it is not installed: setuptools (for 8 "
        'packages). Lock with "uv pip compile", or with "pip freeze --all", which leaves out nothing'
    )
    assert others == (
        "the lock file names versions that do not go together: alpha wants beta>=2, not 1.0, delta wants "
        "beta<1, not 1.0. Lock them together"
    )
    (told,) = warnings_of([Lack("a", "B[x]>=2"), Lack("a", "six")], "")
    assert "b (for a), six (for a)" in told
    assert [*warnings_of([], "uv")] == []


@pytest.mark.parametrize(
    ("locked", "wants", "advice"),
    [
        ("pip-compile", "setuptools", 'Lock again with "pip-compile --allow-unsafe"'),
        ("pip-compile", "six", 'Lock again with "pip-compile"'),
        ("uv", "setuptools", "Lock again with uv, without --no-deps, --no-emit-package and --unsafe-package"),
        ("", "six", 'Lock all of it, as in "uv pip compile requirements.in -o requirements.txt"'),
    ],
)
def test_the_advice_is_for_the_tool_that_made_the_lock(locked: str, wants: str, advice: str) -> None:
    """Each leaves out something else."""
    (told,) = warnings_of([Lack("a", wants)], locked)
    assert told.endswith(f". {advice}")


def test_what_only_this_python_needs_is_no_fault_of_the_lock() -> None:
    """Who locks it again as it was gets the same lock."""
    here = lack_in(
        "warning: The package `locust` requires `typing-extensions>=4.6.0 ; python_full_version < '3.12'`, "
        "but it's not installed"
    )
    assert here is not None
    (told,) = warnings_of([here], "uv")
    assert told == (
        "the lock file was made for another Python: what its packages need on this one is not installed: "
        'typing-extensions (for locust). Say "python" as it was locked, or lock again for this Python'
    )
    elsewhere = Lack("a", "six ; sys_platform == 'linux'")
    both = [*warnings_of([elsewhere, here], "uv")]
    assert ["six (for a)" in line for line in both] == [True, False]
    assert both[1:] == [told]


@pytest.mark.parametrize(
    ("text", "tool"),
    [
        ("#\n# This file is autogenerated by pip-compile with Python 3.11\n", "pip-compile"),
        ("# This file was autogenerated by uv via the following command:\n", "uv"),
        ("six==1.0\n", ""),
        ("six==1\n" * 1000 + "# autogenerated by uv", ""),
    ],
)
def test_a_lock_says_who_made_it(text: str, tool: str) -> None:
    """In its head."""
    assert locked_by(text.encode()) == tool


# --------------------------------------------------------------------------- what it is at


def at(*lines: str) -> list[tuple[str, int, int]]:
    """Return what a builder is at after each of *lines*."""
    doing, found = Doing(), []
    for line in lines:
        doing.take(line)
        found.append((str(doing), doing.done, doing.total))
    return found


def test_what_was_begun_and_has_not_ended_is_named() -> None:
    """By uv: what has ended is only counted."""
    assert [words for words, _, _ in at(
        "Resolved 3 packages in 2ms",
        "   Building lru-dict==1.3.0",
        "   Building other @ file:///x/other-1.0.tar.gz",
        "      Built lru-dict==1.3.0",
        "Downloading torch (800.0MiB)",
        "      Built other @ file:///x/other-1.0.tar.gz",
        " Downloaded torch",
        "Prepared 3 packages in 9ms",
    )] == [
        "Resolved 3 packages in 2ms",
        "building lru-dict",
        "building lru-dict and 1 more",
        "building other, 1 built",
        "building other and 1 more, 1 built",
        "downloading torch, 2 built",
        "2 built",
        "Prepared 3 packages in 9ms",
    ]  # fmt: skip


def test_pip_says_what_it_begins_and_ends() -> None:
    """A wheel at a time; other lines are shown while nothing is built."""
    assert [words for words, _, _ in at(
        "Collecting lru-dict==1.3.0",
        "  Downloading lru_dict-1.3.0.tar.gz (11 kB)",
        "  Building wheel for lru-dict (pyproject.toml): started",
        "  Building wheel for lru-dict (pyproject.toml): still running...",
        "  Building wheel for lru-dict (pyproject.toml): finished with status 'done'",
        "Installing collected packages: a, b",
    )] == [
        "Collecting lru-dict==1.3.0", "Downloading lru_dict-1.3.0.tar.gz (11 kB)", "building lru-dict",
        "building lru-dict", "1 built", "Installing collected packages: a, b",
    ]  # fmt: skip


def test_packages_are_counted_where_the_tool_tells() -> None:
    """One names each when it begins, the other when it is done."""
    poetry = (SAID / "poetry-c.txt").read_text(encoding="utf-8").splitlines()[:6]
    assert at(*poetry)[-3:] == [("", 0, 2), ("installing beta", 0, 2), ("installing cext", 1, 2)]
    pdm = (SAID / "pdm-c.txt").read_text(encoding="utf-8").splitlines()
    assert ("building cext", 1, 2) in at(*pdm)
    assert at(*pdm)[-1][1:] == (1, 2)
