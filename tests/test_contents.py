"""Contents: what was added, edited or lost, told by the receipt alone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from contents import write

from venvflow.disk.scan import walk
from venvflow.state.contents import Compared, Contents, compare, digest_in, encode_contents, without_copies

FILES = {"lib/one.py": b"1", "lib/two.py": b"2", "bin/three": b"3"}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    """Write three files and a link, and return what is noted of them."""
    write(tmp_path, FILES)
    os.symlink("lib", tmp_path / "lib64")
    noted = encode_contents([("lib64", ""), *((path, _digest(data)) for path, data in FILES.items())])
    return Contents(noted)


def _compared(venv: Path, contents: Contents, unread: tuple[str, ...] = ()) -> Compared:
    return compare(str(venv), {item.path: item for item in walk(str(venv))}, contents, unread)


def test_what_is_as_it_was_is_no_difference(tmp_path: Path, contents: Contents) -> None:
    """Whatever times and modes say, and whatever comes and goes without being a change."""
    for path in FILES:
        os.utime(tmp_path / path, ns=(1, 1))
        (tmp_path / path).chmod(0o700)
    write(tmp_path, {"lib/__pycache__/one.cpython-311.pyc": b"x", ".venvflow.json": b"{}"})
    assert _compared(tmp_path, contents) == Compared((), (), 0)


def test_added_edited_and_missing_are_told_apart(tmp_path: Path, contents: Contents) -> None:
    """Each by itself: somebody's work by name, damage by number."""
    write(tmp_path, {"lib/new.py": b"", "lib/one.py": b"2"})
    os.unlink(tmp_path / "bin" / "three")
    assert _compared(tmp_path, contents) == Compared(("lib/new.py",), ("lib/one.py",), 1)
    os.unlink(tmp_path / "lib" / "two.py")
    os.symlink("one.py", tmp_path / "lib" / "two.py")
    assert _compared(tmp_path, contents).edited == ("lib/one.py", "lib/two.py")


def test_what_is_known_to_be_as_it_was_is_not_read(tmp_path: Path, contents: Contents) -> None:
    """Whoever says so has its stamp."""
    write(tmp_path, {"lib/one.py": b"2"})
    assert _compared(tmp_path, contents, ("lib/one.py",)) == Compared((), (), 0)


def test_a_link_into_a_store_stands_for_its_object(tmp_path: Path, contents: Contents) -> None:
    """Its name says which bytes it has, even where the store is gone."""
    digest = _digest(b"1")
    target = f"/gone/objects/{digest[:2]}/{digest[2:]}"
    assert digest_in(target) == digest_in(target + "x.2") == digest
    assert digest_in("/usr/bin/python3") == ""
    os.unlink(tmp_path / "lib" / "one.py")
    os.symlink(target, tmp_path / "lib" / "one.py")
    assert _compared(tmp_path, contents) == Compared((), (), 0)


@pytest.mark.parametrize("text", ["", "!", "abc", "AAAA", "é", "A" * 10_000])
def test_a_note_that_makes_no_sense_knows_nothing_more(text: str) -> None:
    """Of a receipt that somebody wrote into; it is never an error."""
    contents = Contents(text)
    assert not contents.holds("lib/one.py", _digest(b"1"))


def test_the_order_of_files_decides_nothing() -> None:
    """A venv that was restored has the note of one that was built."""
    pairs = [("a", _digest(b"a")), ("b", _digest(b"b")), ("c", "")]
    assert encode_contents(pairs) == encode_contents(pairs[::-1])


def test_copies_of_what_links_led_to_are_not_found(tmp_path: Path) -> None:
    """What was changed in such a copy is somebody's, and so is another program in the place of a link."""
    program = tmp_path / "python"
    program.write_bytes(b"program")
    venv = tmp_path / "venv"
    files = {"bin/python": b"program", "bin/python3": b"mine", "lib/one.py": b"1", "lib/two.py": b"2"}
    write(venv, {**files, "lib64/one.py": b"1", "lib64/two.py": b"mine", "lib64/new.py": b""})
    found = {item.path: item for item in walk(str(venv))}
    links = {"bin/python", "bin/python3", "lib64"}
    left = without_copies(str(venv), found, links.__contains__, str(program))
    assert left.keys() - {"bin", "lib"} == {
        "bin/python3", "lib/one.py", "lib/two.py", "lib64/two.py", "lib64/new.py"
    }  # fmt: skip
    assert without_copies(str(venv), found, links.__contains__, "/gone") == found
    assert without_copies(str(venv), found, lambda _: False, str(program)) == found
