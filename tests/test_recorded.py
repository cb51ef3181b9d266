"""RECORDs, held against the files of a venv: what is gone, what has other bytes, and what says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from pythons import SITE
from test_lock_part import PLACES, Venv, sha256, venv

from venvflow.pure.patterns import compile_patterns
from venvflow.pure.relocate import Places
from venvflow.state.recorded import broken_in, told
from venvflow.state.survey import survey

__all__ = ["venv"]


def unlike(venv: Venv, *excluded: str) -> str:
    """Return in words how the venv is not what its RECORDs say."""
    matcher = compile_patterns(excluded) if excluded else None
    surveyed = survey(str(venv.path), Places(*PLACES))
    return told(broken_in(str(venv.path), surveyed, matcher)).removeprefix("not what the RECORDs say: ")


def test_a_whole_venv_is_what_its_records_say(venv: Venv) -> None:
    """What lies there besides is of no distribution."""
    venv.write(f"{SITE}/mine.py")
    assert unlike(venv) == ""


def test_each_distribution_is_named_with_what_is_wrong(venv: Venv) -> None:
    """What is gone and what has other bytes of the same size; a pattern of the config excuses the first."""
    venv.install("b", f"{SITE}/b/x.py", f"{SITE}/b/y.py", f"{SITE}/b/z.py")
    for name in ("x", "y"):
        (venv.path / SITE / f"b/{name}.py").unlink()
    venv.write(f"{SITE}/b/z.py", f"{SITE}/b/Z.py".encode())
    venv.write("bin/a", b"another")
    assert (
        unlike(venv)
        == "a 1.0 has other bytes in bin/a; b 1.0 lacks b/x.py and 1 more and has other bytes in b/z.py"
    )
    assert unlike(venv, "x.py", "y.py") == "a 1.0 has other bytes in bin/a; b 1.0 has other bytes in b/z.py"


def test_what_a_distribution_carries_in_itself_is_no_distribution(venv: Venv) -> None:
    """It was installed elsewhere: the wheel in setuptools lists a script that was never brought along."""
    venv.write(f"{SITE}/_vendor/c-1.0.dist-info/RECORD", f"../bin/c,{sha256(b'x')},1\n".encode())
    assert unlike(venv) == ""


def test_a_file_of_two_distributions_may_be_that_of_either(venv: Venv) -> None:
    """But it has to be there."""
    venv.install("b", rows=f"a.py,{sha256(b'other')},5\n")
    assert unlike(venv) == ""
    venv.write(f"{SITE}/a.py", b"other")
    assert unlike(venv) == ""
    venv.write(f"{SITE}/a.py", b"third")
    assert unlike(venv) == "a 1.0 has other bytes in a.py; b 1.0 has other bytes in a.py"
    (venv.path / SITE / "a.py").unlink()
    assert unlike(venv) == "a 1.0 lacks a.py; b 1.0 lacks a.py"


@pytest.mark.parametrize(
    "row",
    [
        "b.py,,", "__pycache__/b.cpython-311.pyc,sha256=x,3", "b-1.0.dist-info/uv_cache.json,sha256=x,3",
        "/etc/no-such-file,sha256=x,3", "../../../../no-such-file,sha256=x,3", "b.py", "b.py,a,b,c", "a,b",
        "b.py,sha256=x,many", "b.py,sha256=ä,3", "a.py,md5=x,3", ",,",
    ],
)  # fmt: skip
def test_a_row_that_says_nothing_of_the_venv_is_no_damage(venv: Venv, row: str) -> None:
    """It has no hash, lists what lies outside, or cannot be read; the other rows are read all the same."""
    venv.install("b", f"{SITE}/c.py", rows=f"{row}\n")
    assert unlike(venv) == ""
    (venv.path / SITE / "c.py").unlink()
    assert unlike(venv) == "b 1.0 lacks c.py"


def test_a_file_with_a_hash_of_another_kind_has_to_be_there(venv: Venv) -> None:
    """Which bytes it has is not known."""
    venv.install("b", rows="b.py,sha512=abcd,3\n")
    assert unlike(venv) == "b 1.0 lacks b.py"
    venv.write(f"{SITE}/b.py")
    assert unlike(venv) == ""


def test_what_lies_behind_a_link_of_the_venv_is_there(venv: Venv) -> None:
    """Some systems record files below ``lib64``, which is ``lib``."""
    (venv.path / "lib64").symlink_to("lib")
    venv.install("b", rows=f"../../../{SITE.replace('lib', 'lib64', 1)}/a.py,{sha256(b'x')},1\n")
    assert unlike(venv) == ""


def test_names_reach_nobody_as_they_are(venv: Venv) -> None:
    """A RECORD may name what turns the terminal upside down."""
    venv.install("b", rows=f'"\x1b[2J\n.py",{sha256(b"x")},1\n')
    assert unlike(venv) == r"b 1.0 lacks \x1b[2J\n.py"


def test_a_distribution_without_a_record_is_not_whole(venv: Venv) -> None:
    """An installer writes it last: the installation did not end. Eggs, and what others carry, have none."""
    for path in ("x-2.0.dist-info/METADATA", "y.egg-info/PKG-INFO", "_vendor/c-1.0.dist-info/METADATA"):
        venv.write(f"{SITE}/{path}")
    assert unlike(venv) == "x 2.0 lacks x-2.0.dist-info/RECORD"
    venv.write(f"{SITE}/x-2.0.dist-info/RECORD")
    assert unlike(venv) == ""


def test_a_record_that_cannot_be_read_says_nothing(venv: Venv, tmp_path: Path) -> None:
    """It is a link, or another one since the venv was surveyed."""
    surveyed = survey(str(venv.path), Places(*PLACES))
    (venv.path / SITE / "a.py").unlink()
    record = venv.install("a", rows=f"a.py,{sha256(b'x')},1\n")
    assert broken_in(str(venv.path), surveyed, None) == []
    record.unlink()
    record.symlink_to(tmp_path / "elsewhere")
    assert unlike(venv) == ""
