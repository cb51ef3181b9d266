"""The documents' own tools: pages are read right, sessions run and compared, sections filled in."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

import pytest

from tools.markdown import Exchange, anchors, as_session, blocks, exchanges, links, with_sections
from tools.pages import all_pages
from tools.sessions import matches, run, written_down
from tools.shape import Source, counted
from tools.world import World

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of the packages that worlds install."""
    return tmp_path_factory.mktemp("packages")


def test_a_section_is_filled_in_where_it_stands() -> None:
    """What was generated before goes, what is around it stays, and an unknown name is an error."""
    page = "before\n<!-- generated: one -->\nold\n<!-- end -->\nafter\n"

    assert with_sections(page, {"one": "new\n"}) == page.replace("old", "\nnew\n")
    assert with_sections(with_sections(page, {"one": "new"}), {"one": "new"}).count("new") == 1
    with pytest.raises(KeyError):
        with_sections(page, {})


def test_a_session_is_read_as_it_is_written() -> None:
    """Commands, their further lines and what they print are told apart, and put together again."""
    page = "# A\n\n```console\n$ one\n> more\nsays\n\n$ two\n```\n"
    (block,) = blocks(page)

    parts = exchanges(block)

    assert parts == [Exchange("one\nmore", ("says", ""), 4), Exchange("two", (), 8)]
    assert as_session(parts) == block.text


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        (["new 563515834f73, 1 file"], ["new aaaaaaaaaaaa, 2 files"]),
        (["built in 0.3 s"], ["built in 12 ms"]),
        (["a", "...", "z"], ["a", "b", "c", "z"]),
        (["..."], []),
        (["Python 3.11.7  12 KiB"], ["Python 3.13.0 4 B"]),
        (["hit ..."], ["hit it"]),
    ],
)
def test_what_differs_from_machine_to_machine_is_not_compared(said: list[str], printed: list[str]) -> None:
    """Ids, times, sizes and versions of Python may be others."""
    assert matches(said, printed)


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        (["restore:api  hit"], ["restore:api  miss"]),
        (["one"], ["one", "two"]),
        (["one", "two"], ["one"]),
        (["click 8.3.1"], ["click 8.2.1"]),
        ([], ["something"]),
        (["1 task done"], ["2 tasks done"]),
    ],
)
def test_what_a_program_says_is_compared(said: list[str], printed: list[str]) -> None:
    """A word more, or less, or another one, is a difference."""
    assert not matches(said, printed)


def test_a_page_is_run_and_written_down(tmp_path: Path, wheels: Path) -> None:
    """Files are written where the shell is; a wrong line is found, and set right; exit codes count."""
    world = World(tmp_path, wheels)
    page = (
        "# A\n\n`sub/note.txt`:\n\n```text\nhello\n```\n\n```console\n$ cat sub/note.txt\nhello\n$ cd sub\n"
        "$ ls\nwrong\n$ false\n$ echo $?\n1\n$ exit_code() { return 3; }; exit_code\n$ touch after\n```\n"
    )

    answers = run(page, world, start=world.home)

    assert [bool(answer.problem) for answer in answers] == [False, False, True, False, False, True]
    assert "exit code 3" in answers[-1].problem
    assert not (world.home / "sub/after").exists()  # what follows a failure is not run


def test_what_is_printed_is_written_down(tmp_path: Path, wheels: Path) -> None:
    """A wrong line is set right; one that is right but for what differs stays, unless all is recorded."""
    world = World(tmp_path, wheels)
    page = "```console\n$ echo right\nwrong\n$ echo 12 ms\n1.0 s\n```\n\n```console\n$ echo a b\na ...\n```\n"

    answers = run(page, world, start=world.home)

    assert written_down(page, answers) == page.replace("wrong", "right")
    assert written_down(page, answers, all_of_it=True) == page.replace("wrong", "right").replace(
        "1.0 s", "12 ms"
    )


def test_a_block_may_print_to_a_terminal(tmp_path: Path, wheels: Path) -> None:
    """Of 80 columns, where the shell of the page is; an exit code counts as ever."""
    world = World(tmp_path, wheels)
    page = (
        "```console\n$ mkdir sub && cd sub\n$ test -t 1\n$ echo $?\n1\n```\n\n```console terminal\n"
        "$ test -t 1 && basename $PWD && stty size\nsub\n0 80\n$ exit 3\n```\n"
    )

    answers = run(page, world, start=world.home)

    assert written_down(page, answers) == page
    assert [bool(answer.problem) for answer in answers] == [*[False] * 4, True]
    assert "exit code 3" in answers[-1].problem


def test_a_shell_that_ends_early_is_noticed(tmp_path: Path, wheels: Path) -> None:
    """A command that ends the shell does not hide those after it."""
    world = World(tmp_path, wheels)

    with pytest.raises(RuntimeError, match="after 0 of 2 commands"):
        run("```console\n$ exit 0\n$ false\n```\n", world, start=world.home)


def test_code_in_backquotes_and_blocks_has_no_links() -> None:
    """Only what is a link for the reader is followed."""
    page = "[a](b.md) `[c](d.md)`\n\n```text\n[e](f.md)\n```\n"

    assert links(page) == ["b.md"]


def test_what_is_recorded_names_no_place_of_the_machine(tmp_path: Path, wheels: Path) -> None:
    """The reader's home and usual programs stand for those of the machine that recorded."""
    world = World(tmp_path, wheels)
    said = f"{world.home}/a {os.path.realpath(sys.executable)} made now on {socket.gethostname()}"

    assert re.fullmatch(r"/home/you/a /usr/bin/python3[.\d]* made now on laptop", world.as_told(said))
    for page in all_pages():
        named = re.findall(r"/(?:root|opt/pypi|tmp/pytest|tmp/tmp)\S*", page.read_text(encoding="utf-8"))
        assert named == [], page.name


def test_headings_have_the_anchors_of_forges() -> None:
    """Lower case, dashes for blanks, no punctuation, a number for the second one of a name."""
    page = "# A `b` c?\n\n## Same\n\n## Same\n\n```text\n# none\n```\n"

    assert anchors(page) == {"a-b-c", "same", "same-1"}


def test_the_source_is_counted(tmp_path: Path) -> None:
    """Private functions by how often their own module names them, classes by name over all modules."""
    one = "class A: ...\ndef _once(): ...\ndef _twice():\n    import os\n_once()\n_twice(_twice)\n"
    (tmp_path / "one.py").write_text(one, encoding="utf-8")
    (tmp_path / "two.py").write_text("class A: ...\nclass B: ...\ndef f(): ...\n", encoding="utf-8")
    assert counted(tmp_path) == Source(2, 9, 3, 1, ("A",), 1)
