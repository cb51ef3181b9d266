"""What a hostile archive says of itself: refused by unpack, and by its own script after a plain tar."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from archives import NEEDS, Objects, Raw, make_venv, pack, read_venv
from forgery import Forgery, Part, taken_apart
from pythons import BASE, interpreters
from tiers import first_quick

from venvflow import postinstall
from venvflow.disk.archive import Limits, extract, extraction, file, inventory_of, unpack
from venvflow.disk.archive import tar as headers
from venvflow.disk.files import open_regular
from venvflow.errors import EnvironmentFailure, Refused

Attack = Callable[[Forgery], Any]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Forgery:
    """Return a real archive of a small venv, taken apart."""
    root = tmp_path_factory.mktemp("real")
    objects = Objects(root / "objects")
    pack(read_venv(make_venv(root / "venv"), objects), objects, root / "a.tar")
    return taken_apart((root / "a.tar").read_bytes())


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Forgery:
    """Return one that brings its link to the interpreter."""
    root = tmp_path_factory.mktemp("linked")
    objects = Objects(root / "objects")
    pack(read_venv(make_venv(root / "venv"), objects), objects, root / "a.tar", python=BASE)
    return taken_apart((root / "a.tar").read_bytes())


@contextmanager
def canaries(tmp_path: Path) -> Iterator[None]:
    """Assert that everything outside of the target is as it was, and that the target is not there."""
    for name in ("box/precious.txt", "outside/precious.txt", "precious.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("alive", encoding="utf-8")
    before = _picture(tmp_path)
    yield
    assert _picture(tmp_path) == before


def _picture(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        st = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        found[str(path)] = (st.st_mode, st.st_ino, content)
    return found


# --------------------------------------------------------------------------- the corpus


def _link_below_a_link(forged: Forgery) -> None:
    forged.link("lib/x", "", "project")
    forged.link("lib/x/precious.txt", "/bin/activate")


def _template_below_a_link(forged: Forgery) -> None:
    forged.link("lib/x", "", "project")
    forged.template("lib/x/precious.txt", b"evil", [], member=False)


def _deep_below_a_link(forged: Forgery) -> None:
    forged.link("lib/x", "", "project")
    forged.link("lib/x/box/precious.txt", "/bin/activate")


def _below_a_template(forged: Forgery) -> None:
    forged.template("lib/x", b"evil", [])
    forged.link("lib/x/y", "/bin/activate")


def _twice(forged: Forgery) -> None:
    forged.link("lib/x", "/bin")
    forged.link("lib/x", "", "project")


def _link_and_template(forged: Forgery) -> None:
    forged.link("lib/x", "", "project")
    forged.template("lib/x", b"evil", [])


def _templates_twice(forged: Forgery) -> None:
    forged.template("lib/x", b"evil", [])
    forged.template("lib/x", b"evil", [], member=False)


def _spelled_byte_by_byte(forged: Forgery) -> None:
    forged.link("lib/é", "", "project")
    forged.link("lib/\udcc3\udca9/precious.txt", "/bin/activate")


def _template_over_a_link(forged: Forgery) -> None:
    forged.template("lib/x", b"evil", [], member=False)
    forged.parts["lib/x"] = Part("link", target="../pyvenv.cfg")


def _template_over_a_directory(forged: Forgery) -> None:
    forged.template("lib/x", b"evil", [], member=False)
    forged.parts["lib/x"] = Part("dir")


def _link_over_a_file(forged: Forgery) -> None:
    forged.link("lib/x", "", "project")
    forged.parts["lib/x"] = Part("file", b"evil")


def _link_over_a_directory(forged: Forgery) -> None:
    forged.link("lib/x", "", "project")
    forged.parts["lib/x"] = Part("dir")
    forged.parts["lib/x/precious.txt"] = Part("file", b"evil")


def _link_over_a_link(forged: Forgery) -> None:
    forged.link("lib/x", "", "project")
    forged.parts["lib/x"] = Part("link", target="..")


def _template_through_a_member(forged: Forgery) -> None:
    forged.parts["lib/up"] = Part("link", target="..")
    forged.template("lib/up/box", b"evil", [], member=False)


def _same_piece(forged: Forgery) -> None:
    start = len(forged.blob)
    forged.blob += b"x" * 4096
    for number in range(150):
        forged.document["templates"].append([f"lib/t{number}", 0, start, 4096, []])
        forged.parts[f"lib/t{number}"] = Part("file", b"x" * 4096)


def _unused_piece(forged: Forgery) -> None:
    forged.blob += b"x" * 4096


def _many_slots(forged: Forgery) -> None:
    forged.template("lib/x", b"0123456789", [[5, "venv", "raw", ""]] * 100_000, member=False)
    forged.parts["lib/x"] = Part("file", b"01234" + b"/venvflow/venv" * 100_000 + b"56789")


def _slots_in_nothing(forged: Forgery) -> None:
    forged.template("lib/x", b"", [[0, "venv", "raw", ""]] * 17, member=False)
    forged.parts["lib/x"] = Part("file", b"/venvflow/venv" * 17)


def _more_than_the_member(forged: Forgery) -> None:
    forged.template("lib/x", b"evil", [[0, "venv", "raw", ""]] * 3)


def _implied_directories(forged: Forgery) -> None:
    for number in range(3):
        forged.parts["/".join([f"d{number}", *["x"] * 190, "f"])] = Part("file")


def _document(**changes: Any) -> Attack:
    return lambda forged: forged.document.update(changes)


def _bytes_of_document(data: bytes) -> Attack:
    def attack(forged: Forgery) -> None:
        forged.raw_document = data

    return attack


def _announced(**changes: Any) -> Attack:
    return lambda forged: forged.announced.update(changes)


def _template(*slots: list[Any], path: str = "lib/x") -> Attack:
    return lambda forged: forged.template(path, b"evil", [*slots])


def _link(path: str, target: str, kind: str = "venv") -> Attack:
    return lambda forged: forged.link(path, target, kind)


def _links(*paths: str) -> Attack:
    def attack(forged: Forgery) -> None:
        for path in paths:
            forged.link(path, "/bin")

    return attack


def _member(name: str, data: bytes = b"{}") -> Attack:
    def attack(forged: Forgery) -> None:
        forged.directories(name)
        forged.parts[name] = Part("file", data)

    return attack


SAID: dict[str, Attack] = {
    "link below a link": _link_below_a_link,
    "link deep below a link": _deep_below_a_link,
    "template below a link": _template_below_a_link,
    "link below a template": _below_a_template,
    "link twice": _twice,
    "template twice": _templates_twice,
    "link and template": _link_and_template,
    "name spelled byte by byte": _spelled_byte_by_byte,
    "template over a link": _template_over_a_link,
    "template over a directory": _template_over_a_directory,
    "link over a file": _link_over_a_file,
    "link over a directory": _link_over_a_directory,
    "template through a member": _template_through_a_member,
    "one piece many times": _same_piece,
    "unused piece": _unused_piece,
    "many slots": _many_slots,
    "slots in nothing": _slots_in_nothing,
    "home with a suffix": _link("lib/x", "/../../x", "home"),
    "home alone": _link("lib/x", "", "home"),
    "name": _link("lib/x", "/x", "name"),
    "python with a suffix": _link("bin/x", "-evil", "python"),
    "python with a path": _link("bin/x", "/../x", "python"),
    "venv that climbs": _link("lib/x", "/../precious.txt"),
    "venv and more letters": _link("lib/x", "-evil/x"),
    "project and more letters": _link("lib/x", "-evil", "project"),
    "two slots": _document(links=[["lib/x", "", [[0, "venv", "raw", ""], [0, "project", "raw", ""]]]]),
    "slot in the middle": _document(links=[["lib/x", "/etc", [[4, "venv", "raw", ""]]]]),
    "link in another form": _document(links=[["lib/x", "/x", [[0, "venv", "sh", ""]]]]),
    "link that describes": _document(links=[["lib/x", "", [[0, "file", "record", "pyvenv.cfg"]]]]),
    "absolute link": _link("lib/x", "/etc/passwd", ""),
    "climbing link": _link("lib/x", "../../precious.txt", ""),
    "absolute path": _template(path="/x"),
    "climbing path": _template(path="../x"),
    "empty part": _template(path="lib//x"),
    "dot": _template(path="./x"),
    "trailing slash": _template(path="lib/x/"),
    "deep": _template(path="/".join(["d"] * 300)),
    "own metadata": _template(path=".venvflow-pack/pack.json"),
    "own metadata in capitals": _template(path=".Venvflow-Pack/pack.json"),
    "own script": _link("postinstall.py", "/bin/x"),
    "receipt as a template": _template(path=".venvflow.json"),
    "receipt as a link": _link(".venvflow.json", "/x"),
    "record of a file outside": _template([0, "file", "record", "../../../etc/passwd"]),
    "record of a device": _template([0, "file", "record", "/dev/zero"]),
    "record of any file": _template([0, "file", "record", "lib/python3/site-packages/pkg1/data.bin"]),
    "record of itself": _template([0, "file", "record", "lib/x"]),
    "shebang with a newline": _template([0, "venv", "shebang", "bin/python\nrm -rf /"]),
    "shebang of the project": _template([0, "project", "shebang", "bin/python"]),
    "argument for nothing": _template([0, "venv", "raw", "x"]),
    "slot beyond": _template([5, "venv", "raw", ""]),
    "slots backwards": _template([2, "venv", "raw", ""], [1, "venv", "raw", ""]),
    "unknown form": _template([0, "venv", "rot13", ""]),
    "unknown kind": _template([0, "etc", "raw", ""]),
    "slot of floats": _template([0.0, "venv", "raw", ""]),
    "slot of truths": _template([True, "venv", "raw", ""]),
    "negative slot": _template([-1, "venv", "raw", ""]),
    "python of a path": _document(description={"python": {"version": "/../../tmp/x.1"}}),
    **{
        f"python beside, {path}": _document(description={"python": {"beside": path}})
        for path in (
            "",
            "/bin/python",
            "bin/python",
            "../python",
            "../../a/python",
            "../a/../../b/python",
            "..//a/b",
        )
    },
    **{
        f"python at {path!r}": _document(description={"python": {"executable": path}})
        for path in (
            "",
            "bin/python",
            "/",
            "//bin/sh",
            "/usr/../bin/sh",
            "/bin/./sh",
            "/bin/sh/",
            "/" + "x/" * 2100,
        )
    },
    "python of numbers": _document(description={"python": {"version": 3}}),
    "description is a list": _document(description=[]),
    "templates are a number": _document(templates=7),
    "templates are an object": _document(templates={"a": 1}),
    "empty rows": _document(templates=[[]], links=[[]]),
    "older format": _document(format=1),
    "format is true": _document(format=True),
    "format is a float": _document(format=3.0),
    "NUL": _document(editable=[["a\0b", 1]]),
    "lone surrogate": _document(editable=[["\ud800", 1]]),
    "editable by name": _document(editable=["a"]),
    "editable in two": _document(editable=[["a", 2]]),
    "lone surrogate in the description": _document(description={"key": "\ud800"}),
    "unknown key": _document(evil=1),
    "other templates": _document(templates_sha256="0" * 64),
    "distributions of numbers": _document(distributions=[[1, 2]]),
    "number of 400 digits": _document(description={"x": 10**400}),
    "not a number": _document(description={"x": float("nan")}),
    "infinite": _document(description={"x": float("inf")}),
    "not JSON": _bytes_of_document(b"{"),
    "nothing": _bytes_of_document(b""),
    "deep JSON": _bytes_of_document(b"[" * 1_000_000),
    "deep JSON in its place": _bytes_of_document(b'{"format": 3, "links": ' + b"[" * 900 + b"]" * 900 + b"}"),
    "long list": _bytes_of_document(b"[" + b"0," * 3_000_000 + b"0]"),
    "bytes": _bytes_of_document(b"\xff\xfe{}"),
    "names twice": _bytes_of_document(b'{"format": 3, "format": 3}'),
    "announced as text": _announced(bytes="1"),
    "announced as a float": _announced(bytes=1.0),
    "announced less than nothing": _announced(entries=-1),
    "announced and contradicted": _announced(entries=1 << 40),
}
"""What is refused whoever looks at it: unpack, and the archive's own script where tar unpacked it."""

HELD: dict[str, Attack] = {
    "link over a link": _link_over_a_link,
    "more than the member": _more_than_the_member,
    "template without a member": lambda forged: forged.template("lib/x", b"evil", [], member=False),
    "implied directories": _implied_directories,
    "receipt": _member(".venvflow.json"),
    "receipt in capitals": _member(".Venvflow.JSON"),
    "receipt below": _member("share/venv/.venvflow.json"),
    "staging": _member(".vf-1-2/new/venv/x"),
    "leftover": _member("lib/.vf-99999999-1"),
    "announced too little": _announced(bytes=10),
    "announced too much": _announced(bytes=1 << 61),
    "announced as much as there may be": _announced(bytes=(64 << 30) - 10),
}
"""What only unpack can know."""


def _forged(real: Forgery, attack: Attack) -> Forgery:
    forged = real.copy()
    attack(forged)
    return forged


@pytest.mark.parametrize("case", [*first_quick(SAID, every=4), *HELD])
def test_unpack_refuses(case: str, real: Forgery, tmp_path: Path) -> None:
    """Before anything is there, with words for people."""
    archive = _forged(real, {**SAID, **HELD}[case]).write(tmp_path / "evil.tar")
    kinds = (Refused, EnvironmentFailure) if "as there may be" in case else (Refused,)
    with canaries(tmp_path), pytest.raises(kinds) as caught:
        unpack(archive, str(tmp_path / "box/venv"), sys.executable)
    assert "Nothing was unpacked." in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["tar.gz", "tar.zst", "tar.xz", "zip"])
def test_unpack_refuses_in_every_format(name: str, real: Forgery, tmp_path: Path) -> None:
    """A few that stand for all."""
    for case in ("link below a link", "link over a directory", "implied directories", "receipt"):
        archive = _forged(real, {**SAID, **HELD}[case]).write(tmp_path / f"evil.{name}")
        with canaries(tmp_path), pytest.raises(Refused):
            unpack(archive, str(tmp_path / "box/venv"), sys.executable)


def test_what_was_not_changed_is_unpacked(real: Forgery, tmp_path: Path) -> None:
    """So it is the attack that is refused, and nothing about how the archive was put together."""
    for name in ("tar", "tar.gz", "zip"):
        archive = real.copy().write(tmp_path / f"a.{name}")
        extracted, report = unpack(archive, str(tmp_path / name / "venv"), sys.executable)
        assert report.written == ["pyvenv.cfg"]
        assert len(report.unchanged) == 7
        assert extracted.entries == len(real.parts) + 3


@pytest.mark.parametrize("case", first_quick(SAID, every=8))
def test_its_own_script_refuses_where_tar_unpacked_it(case: str, real: Forgery, tmp_path: Path) -> None:
    """Exit code 4, with words for people; nothing outside is touched, and nothing in it is written."""
    forged = _forged(real, SAID[case])
    root = _unpacked_by_tar(forged, tmp_path)
    with canaries(tmp_path), pytest.raises(postinstall.Problem) as caught:
        postinstall.complete(str(root), python=sys.executable)
    assert caught.value.code == postinstall.DAMAGED
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("case", HELD)
def test_its_own_script_writes_nothing_outside(case: str, real: Forgery, tmp_path: Path) -> None:
    """Whether it refuses or not."""
    root = _unpacked_by_tar(_forged(real, HELD[case]), tmp_path)
    outside = {path: text for path, text in _picture(tmp_path).items() if not path.startswith(str(root))}
    with suppress(postinstall.Problem):
        postinstall.complete(str(root), python=sys.executable)
    assert outside == {
        path: text for path, text in _picture(tmp_path).items() if not path.startswith(str(root))
    }


def _unpacked_by_tar(forged: Forgery, tmp_path: Path) -> Path:
    root = tmp_path / "box/venv"
    root.mkdir(parents=True)
    forged.write(tmp_path / "evil.tar")
    words = ["tar", "-x", "--warning=no-timestamp", "-f", str(tmp_path / "evil.tar"), "-C", str(root)]
    subprocess.run(words, check=False, capture_output=True)
    return root


_ONE_AFTER_THE_OTHER = """\
import contextlib, io, json, sys
codes, path, said = {}, list(sys.path), []
for script in json.load(sys.stdin):
    with open(script, "rb") as file:
        text = file.read()
    if text not in codes:
        codes[text] = compile(text, script, "exec")
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            exec(codes[text], {"__name__": "__main__", "__file__": script})
        except SystemExit as end:
            code = end.code
    sys.path[:] = path
    said.append((code, out.getvalue(), err.getvalue()))
json.dump(said, sys.stdout)
"""
"""Runs the scripts that standard input names, each as a program, with the words of the command line."""


@pytest.mark.parametrize(
    "version",
    [
        pytest.param("3.8", marks=pytest.mark.slow),
        *(pytest.param(f"3.{minor}", marks=pytest.mark.long) for minor in range(9, 16)),
    ],
)
def test_its_own_script_refuses_on_every_python(version: str, real: Forgery, tmp_path: Path) -> None:
    """All that the corpus has, one after the other in one process, from Python 3.8 on."""
    python = interpreters().get(version)
    if python is None:
        pytest.skip(f"there is no Python {version}")
    scripts = {
        case: _unpacked_by_tar(_forged(real, SAID[case]), tmp_path / str(number)) / "postinstall.py"
        for number, case in enumerate(SAID)
    }
    before = _picture(tmp_path)
    words = [python, "-I", "-c", _ONE_AFTER_THE_OTHER, "--python", sys.executable]
    done = subprocess.run(
        words, input=json.dumps([*map(str, scripts.values())]), capture_output=True, text=True, check=True
    )
    answers = json.loads(done.stdout)
    assert len(answers) == len(SAID)
    for case, (code, out, err) in zip(SAID, answers, strict=True):
        assert (code, out) == (4, ""), (case, err)
        assert err.startswith("postinstall: "), case
        assert err.count("\n") == 1, case
    assert _picture(tmp_path) == before


_ABOUT_MEMBERS = {case for case in SAID if " over a " in case} | {"template through a member"}


@pytest.mark.parametrize("case", first_quick(sorted(SAID.keys() - _ABOUT_MEMBERS), every=8))
def test_looking_into_it_refuses_too(case: str, real: Forgery, tmp_path: Path) -> None:
    """Whoever compares archives believes what they say as little."""
    archive = _forged(real, SAID[case]).write(tmp_path / "evil.tar")
    with pytest.raises(Refused) as caught:
        inventory_of(archive)
    assert caught.value.state == "Nothing was changed."


# --------------------------------------------------------------------------- links that appear meanwhile


@pytest.mark.parametrize("swapped", ["bin", "lib", "lib/inner"])
def test_a_directory_that_becomes_a_link_meanwhile_is_not_followed(
    swapped: str, real: Forgery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the writing somebody swaps it: what it leads to is not touched."""
    forged = real.copy()
    forged.template("lib/inner/precious.txt", b"evil", [])
    forged.link("lib/inner/link", "", "project")
    forged.template("bin/precious.txt", b"evil", [])
    root = _unpacked_by_tar(forged, tmp_path)
    (root / "bin/precious.txt").write_text("old", encoding="utf-8")
    looked = postinstall.check_places

    def look(*about: Any) -> None:
        looked(*about)
        (root / swapped).rename(root / "aside")
        (root / swapped).symlink_to(tmp_path / "outside")

    monkeypatch.setattr(postinstall, "check_places", look)
    (tmp_path / "outside/inner").mkdir(parents=True)
    (tmp_path / "outside/precious.txt").write_text("alive", encoding="utf-8")
    before = _picture(tmp_path / "outside")
    with pytest.raises(postinstall.Problem, match="not a directory all the way"):
        postinstall.complete(str(root), python=sys.executable)
    assert _picture(tmp_path / "outside") == before


def test_a_link_in_the_place_of_a_file_is_not_written_through(
    real: Forgery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is replaced by a rename, whatever it leads to, even if it came after the look."""
    root = _unpacked_by_tar(real, tmp_path)
    (tmp_path / "precious.txt").write_text("alive", encoding="utf-8")
    looked = postinstall.check_places

    def look(*about: Any) -> None:
        looked(*about)
        (root / "bin/activate").unlink()
        (root / "bin/activate").symlink_to(tmp_path / "precious.txt")

    monkeypatch.setattr(postinstall, "check_places", look)
    postinstall.complete(str(root), python=sys.executable)
    assert (tmp_path / "precious.txt").read_text(encoding="utf-8") == "alive"
    assert not (root / "bin/activate").is_symlink()


def test_a_target_that_is_swapped_while_it_is_filled_is_refused(
    real: Forgery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is put in its place gets no name, is not written to, and is not deleted either."""
    archive = real.copy().write(tmp_path / "a.tar")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious.txt").write_text("alive", encoding="utf-8")
    applied = postinstall.apply

    def apply(*about: Any, **more: Any) -> None:
        (staging,) = tmp_path.glob(".vf-*")
        staging.rename(tmp_path / "aside")
        staging.symlink_to(tmp_path / "outside")
        applied(*about, **more)

    monkeypatch.setattr(postinstall, "apply", apply)
    with pytest.raises(EnvironmentFailure, match="somebody replaced it"):
        unpack(archive, str(tmp_path / "venv"), sys.executable)
    assert os.listdir(tmp_path / "outside") == ["precious.txt"]
    assert not (tmp_path / "venv").exists()


# --------------------------------------------------------------------------- nothing of it is run


def _alarm(tmp_path: Path) -> bytes:
    return f"#!/bin/sh\ntouch {tmp_path}/PWNED\n".encode()


def _with_programs(real: Forgery, tmp_path: Path) -> Forgery:
    """Return an archive in which every program that anybody might run tells of it."""
    forged = real.copy()
    forged.document["links"] = [row for row in forged.document["links"] if row[0] != "bin/python"]
    for name in ("python", "python3.11", "python3.12", "python3.13", f"python3.{sys.version_info[1]}"):
        forged.parts[f"bin/{name}"] = Part("file", _alarm(tmp_path), executable=True)
    for name in ("json.py", "argparse.py", "hashlib.py", "subprocess.py", "sitecustomize.py"):
        forged.parts[name] = Part("file", f"open({str(tmp_path / 'PWNED')!r}, 'w')\n".encode())
    site = next(name for name in forged.parts if name.endswith("site-packages"))
    forged.parts[f"{site}/evil.pth"] = Part("file", f"import os; os.mkdir('{tmp_path}/PWNED')\n".encode())
    return forged


def test_unpack_runs_nothing_of_the_archive(
    real: Forgery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not its Python, which stands first on PATH; not its .pth files, although the packages are compiled."""
    archive = _with_programs(real, tmp_path).write(tmp_path / "evil.tar")
    monkeypatch.setenv("PATH", f"{tmp_path}/venv/bin:{os.path.dirname(os.path.realpath(sys.executable))}")
    monkeypatch.chdir(tmp_path)
    _, report = unpack(archive, str(tmp_path / "venv"), compile_library=True)
    assert not report.python.startswith(str(tmp_path))
    assert len(list((tmp_path / "venv").rglob("*.pyc"))) == 3
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("words", first_quick([[], ["--compile"], ["--python", "bin/python"]]))
def test_its_own_script_runs_nothing_else_of_the_archive(
    words: list[str], real: Forgery, tmp_path: Path
) -> None:
    """Wherever it is called, with its Python first on PATH, and even if that is asked for."""
    root = _unpacked_by_tar(_with_programs(real, tmp_path), tmp_path)
    path = f"{root}/bin:.:{os.environ['PATH']}"
    answer = subprocess.run(
        [os.path.realpath(sys.executable), "postinstall.py", *words],
        cwd=root,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == (3 if "--python" in words else 0), answer.stderr
    assert not (tmp_path / "PWNED").exists()


def test_no_interpreter_of_the_environment_is_asked(
    real: Forgery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if it is the only one that there is, or is reached by a link from outside."""
    root = _unpacked_by_tar(_with_programs(real, tmp_path), tmp_path)
    (tmp_path / "links").mkdir()
    (tmp_path / "links/python3").symlink_to(root / "bin/python3.11")
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.setenv("PATH", f"{root}/bin:{tmp_path}/links")
    with pytest.raises(postinstall.Problem, match="no fitting interpreter"):
        postinstall.complete(str(root))
    assert not (tmp_path / "PWNED").exists()


def test_compiling_follows_no_link(real: Forgery, tmp_path: Path) -> None:
    """No directory, no source and no cache that is a link: the project gets no bytecode."""
    forged = real.copy()
    site = next(name for name in forged.parts if name.endswith("site-packages"))
    forged.link(f"{site}/pkg1/__pycache__", "", "project")
    forged.link(f"{site}/linked", "", "project")
    forged.link(f"{site}/secret.py", "/secret.py", "project")
    project = tmp_path / "project"
    project.mkdir()
    (project / "secret.py").write_text("SECRET = 1\n", encoding="utf-8")
    before = _picture(project)
    _, report = unpack(
        forged.write(tmp_path / "a.tar"), str(tmp_path / "venv"), project=str(project), compile_library=True
    )
    assert _picture(project) == before
    assert len(list((tmp_path / "venv").rglob("*.pyc"))) == 2
    assert "pkg1/__init__.py" in report.notes[-1]


# --------------------------------------------------------------------------- too much


def test_what_does_not_fit_is_refused_before_anything_is_written(
    real: Forgery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bytes and in names: by what the archive announces and what its templates become here."""
    archive = real.copy().write(tmp_path / "a.tar")
    written: list[object] = []
    monkeypatch.setattr(extraction, "write_all", lambda *_: written.append(_))
    free = os.statvfs(tmp_path)
    fields = {name: getattr(free, name) for name in ("f_bavail", "f_frsize", "f_files", "f_favail")}
    for changes, words in (({"f_bavail": 5}, "bytes are needed"), ({"f_favail": 30}, "37 inodes are needed")):
        found = SimpleNamespace(**{**fields, "f_files": 1, **changes})
        monkeypatch.setattr(os, "statvfs", lambda _, found=found: found)
        with canaries(tmp_path), pytest.raises(EnvironmentFailure, match=words):
            unpack(archive, str(tmp_path / "venv"), sys.executable)
    assert written == []


def test_templates_are_counted_as_they_become_at_their_place(real: Forgery, tmp_path: Path) -> None:
    """Slots of a few letters in the archive are long where it is unpacked: that counts against the limit."""
    forged = real.copy()
    slots = [[number, "project", "raw", ""] for number in range(8_000)]
    forged.template("lib/x", b"x" * 8_000, slots, member=False)
    size = 8_000 * (1 + len("/venvflow/project"))
    forged.parts["lib/x"] = Part("file", b"x" * size)
    archive = forged.write(tmp_path / "a.tar")
    limits = Limits(size=4 * size)
    project = str(tmp_path / "p" / "/".join(["x" * 200] * 10))
    with canaries(tmp_path), pytest.raises(Refused, match="more than are allowed"):
        unpack(archive, str(tmp_path / "venv"), sys.executable, project=project, limits=limits)
    unpack(archive, str(tmp_path / "venv"), sys.executable, project="/p", limits=limits)
    assert (tmp_path / "venv/lib/x").stat().st_size == 8_000 * 3


def test_nothing_may_lie_beside_the_arcroot(real: Forgery, tmp_path: Path) -> None:
    """Where everything lies in one directory, what is beside it is not the venv's."""
    forged = real.copy()
    forged.prefix = "api/"
    (tmp_path / "a.tar").write_bytes(forged.tar())
    extracted, _ = unpack(str(tmp_path / "a.tar"), str(tmp_path / "good"), sys.executable)
    assert extracted.root == str(tmp_path / "good/api")
    more = headers.file_header("pyvenv.cfg", 0, executable=False)
    (tmp_path / "a.tar").write_bytes(forged.tar()[: -len(headers.END)] + more + headers.END)
    with canaries(tmp_path), pytest.raises(Refused, match="outside of the archive's directory"):
        unpack(str(tmp_path / "a.tar"), str(tmp_path / "venv"), sys.executable)


def test_a_directory_that_was_not_announced_is_refused(real: Forgery, tmp_path: Path) -> None:
    """In an archive of ours no name implies one."""
    archive = _forged(real, _implied_directories).write(tmp_path / "a.tar")
    with canaries(tmp_path), pytest.raises(Refused, match="a directory that does not come before it"):
        unpack(archive, str(tmp_path / "venv"), sys.executable)


def test_names_are_folded_where_case_is_not_told(real: Forgery, tmp_path: Path) -> None:
    """There a path in other letters is the link itself."""
    forged = real.copy()
    forged.link("lib/x", "", "project")
    forged.link("lib/X/precious.txt", "/bin/activate")
    root = _unpacked_by_tar(forged, tmp_path)
    (root / ".VENVFLOW-PACK").mkdir()  # as such a file system would answer
    with pytest.raises(postinstall.Problem, match="a path through a link") as caught:
        postinstall.complete(str(root), python=sys.executable)
    assert caught.value.code == postinstall.DAMAGED


@pytest.mark.parametrize("names", [("lib/Xy", "lib/xY"), ("lib/é", "lib/e\u0301")])
def test_links_that_are_one_on_a_file_system_are_refused_there(
    names: tuple[str, str], real: Forgery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is there; where they are two, both are made."""
    archive = _forged(real, _links(*names)).write(tmp_path / "a.tar")
    _, report = unpack(archive, str(tmp_path / "venv"), sys.executable)
    assert {*names} <= {*report.linked}
    monkeypatch.setattr(extraction, "tells_apart", lambda *_: False)
    with canaries(tmp_path), pytest.raises(Refused, match="this file system takes for"):
        unpack(archive, str(tmp_path / "box/venv"), sys.executable)


def test_directories_that_names_imply_count(tmp_path: Path) -> None:
    """In archives of other tools, too."""
    raw = Raw("tar.gz")
    for number in range(5):
        raw.file("/".join([f"d{number}", *["x"] * 100, "f"]), b"")
    raw.write(tmp_path / "a.tar.gz")
    with canaries(tmp_path), pytest.raises(Refused, match="allowed"):
        extract(str(tmp_path / "a.tar.gz"), str(tmp_path / "venv"), limits=Limits(entries=400))
    extract(str(tmp_path / "a.tar.gz"), str(tmp_path / "venv"), limits=Limits(entries=510))


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n" * 100])
def test_how_another_version_finds_its_place_does_not_matter(
    data: bytes, linked: Forgery, tmp_path: Path
) -> None:
    """Scripts and activation files become what they are here; what was announced bounds them until then."""
    forged = linked.copy()
    for path in ("bin/pkg1", "bin/activate"):
        forged.parts[path] = forged.parts[path]._replace(data=data)
    _, report = unpack(forged.write(tmp_path / "a.tar"), str(tmp_path / "venv"), sys.executable)
    assert report.written == ["bin/activate", "bin/pkg1"]
    for path in report.written:
        assert (tmp_path / "venv" / path).read_bytes() == linked.parts[path].data
    assert (
        inventory_of(str(tmp_path / "a.tar")).manifest
        == inventory_of(linked.write(tmp_path / "b.tar")).manifest
    )


# --------------------------------------------------------------------------- the link to the interpreter


def _to(forged: Forgery, python: str) -> None:
    """Let the archive bring an interpreter at *python*, and let all of it agree with that."""
    forged.document["description"]["python"]["executable"] = python
    forged.parts["bin/python"] = Part("link", target=python)
    settings = f"home = {os.path.dirname(python)}\nversion = {NEEDS['version']}\n"
    forged.parts["pyvenv.cfg"] = Part("file", settings.encode())


def _elsewhere(forged: Forgery) -> None:
    forged.parts["bin/python"] = Part("link", target="/bin/sh")


def _unannounced(forged: Forgery) -> None:
    _to(forged, BASE)
    del forged.document["description"]["python"]["executable"]


def _further(forged: Forgery) -> None:
    forged.parts["bin/python4"] = forged.parts["bin/python"]


def _of_another_kind(forged: Forgery) -> None:
    forged.link("lib/x", "", "project")
    forged.parts["lib/x"] = forged.parts["bin/python"]


def _below(forged: Forgery) -> None:
    _to(forged, "/etc")
    forged.parts["bin/python/x"] = Part("file", b"evil")


def _template_below_python(forged: Forgery) -> None:
    forged.template("bin/python/x", b"evil", [], member=False)


def _in_place_of_a_directory(forged: Forgery) -> None:
    python = os.path.dirname(BASE)
    _to(forged, python)
    forged.document["links"].append(["lib", "", [[0, "python", "raw", ""]]])
    forged.parts["lib"] = Part("link", target=python)


@pytest.mark.parametrize(
    "attack",
    [
        _elsewhere, _unannounced, _further, _of_another_kind, _below, _template_below_python,
        _in_place_of_a_directory,
    ],
)  # fmt: skip
def test_no_other_link_leads_out_than_the_one_that_is_announced(
    attack: Attack, linked: Forgery, tmp_path: Path
) -> None:
    """Letter for letter, where it was announced, and with nothing below it."""
    archive = _forged(linked, attack).write(tmp_path / "evil.tar")
    for read in (extract, partial(unpack, python=sys.executable)):
        with canaries(tmp_path), pytest.raises(Refused):
            read(archive, str(tmp_path / "box/venv"))
    good = linked.copy().write(tmp_path / "good.tar")
    extract(good, str(tmp_path / "venv"))
    assert os.readlink(tmp_path / "venv/bin/python") == BASE


@pytest.mark.parametrize(
    "target", ["of the archive", "beside it", "/bin/sh", "/nowhere/python3", "/dev/zero"]
)
def test_an_interpreter_that_an_archive_names_is_run_by_nobody(
    target: str, linked: Forgery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither to unpack nor to compile: one of ours is chosen, and the link leads there."""
    marker = tmp_path / "ran"
    script = f"#!/bin/sh\necho ran > {marker}\n".encode()
    (tmp_path / "evil").write_bytes(script)
    (tmp_path / "evil").chmod(0o755)
    places = {"of the archive": str(tmp_path / "venv/bin/evil"), "beside it": str(tmp_path / "evil")}
    forged = linked.copy()
    forged.parts["bin/evil"] = Part("file", script, executable=True)
    _to(forged, places.get(target, target))
    monkeypatch.setenv("PATH", f"{tmp_path / 'venv/bin'}:{os.environ['PATH']}")
    _, report = unpack(forged.write(tmp_path / "a.tar"), str(tmp_path / "venv"), compile_library=True)
    assert os.path.realpath(tmp_path / "venv/bin/python") == report.python
    assert not report.python.startswith(str(tmp_path))
    assert f"home = {os.path.dirname(report.python)}\n" in (tmp_path / "venv/pyvenv.cfg").read_text()
    root = _unpacked_by_tar(forged, tmp_path)
    assert os.readlink(root / "bin/python") == places.get(target, target)
    postinstall.complete(str(root))
    assert os.path.realpath(root / "bin/python") == report.python
    assert not marker.exists()


# --------------------------------------------------------------------------- what is no archive


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "socket"])
def test_what_is_no_file_is_no_archive(kind: str, tmp_path: Path, real: Forgery) -> None:
    """Nobody waits for it; beside an archive it is no checksum."""
    for name in ("a.tar", "b.tar.sha256"):
        if kind == "fifo":
            os.mkfifo(tmp_path / name)
        elif kind == "directory":
            (tmp_path / name).mkdir()
        elif kind == "device":
            (tmp_path / name).symlink_to("/dev/zero")
        else:
            with socket.socket(socket.AF_UNIX) as listening, working_in(tmp_path):
                listening.bind(name)
    for read in (lambda path: unpack(path, str(tmp_path / "venv")), inventory_of):
        with pytest.raises(EnvironmentFailure):
            read(str(tmp_path / "a.tar"))
    extracted, _ = unpack(real.copy().write(tmp_path / "b.tar"), str(tmp_path / "venv"), sys.executable)
    assert not extracted.verified


@contextmanager
def working_in(path: Path) -> Iterator[None]:
    """Work there: the path of a socket is short."""
    before = os.getcwd()
    os.chdir(path)
    yield
    os.chdir(before)


def test_what_was_hashed_cannot_change_afterwards(tmp_path: Path) -> None:
    """Whoever moves about in an archive gets the bytes that were hashed, or an error."""
    path = tmp_path / "a"
    path.write_bytes(b"x" * 3_000_000)
    with open_regular(str(path), follow=True) as raw, file.hashed(raw) as found:
        found.fix()
        assert found.seek(0, os.SEEK_END) == 3_000_000
        assert found.seek(2_999_990) == 2_999_990
        assert (found.read(20), found.tell()) == (b"x" * 10, 3_000_000)
        assert found.hexdigest() == sha256(b"x" * 3_000_000).hexdigest()
        with path.open("r+b") as changing:
            changing.seek(1_500_000)
            changing.write(b"y")
        found.seek(0)
        assert found.read(1 << 20) == b"x" * (1 << 20)
        with pytest.raises(OSError, match="it changed"):
            found.read(1 << 20)


@pytest.mark.parametrize("name", ["tar", "tar.gz", "zip"])
def test_what_is_hashed_is_what_is_extracted(
    name: str, real: Forgery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive that is overwritten in place while it is read is not the one whose SHA-256 was given."""
    good, evil = real.copy(), real.copy()
    good.parts["payload"] = Part("file", b"good" * 1_000_000)
    evil.parts["payload"] = Part("file", b"evil" * 1_000_000)
    path = Path(good.write(tmp_path / f"a.{name}"))
    digest, right = sha256(path.read_bytes()).hexdigest(), path.read_bytes()
    wrong = Path(evil.write(tmp_path / f"b.{name}")).read_bytes()
    read_document = extraction._Target._read_document

    def swapped(target: extraction._Target, item: Any) -> bytes:
        data: bytes = read_document(target, item)
        path.write_bytes(wrong)
        return data

    monkeypatch.setattr(extraction._Target, "_read_document", swapped)
    try:
        unpack(str(path), str(tmp_path / "venv"), sys.executable, expected=digest)
    except (Refused, EnvironmentFailure):
        assert not (tmp_path / "venv").exists()
    else:  # it had been read whole before
        assert (tmp_path / "venv/payload").read_bytes() == b"good" * 1_000_000
    monkeypatch.undo()
    path.write_bytes(right)
    shutil.rmtree(tmp_path / "venv", ignore_errors=True)
    unpack(str(path), str(tmp_path / "venv"), sys.executable, expected=digest)


# --------------------------------------------------------------------------- words


def test_names_cannot_speak_to_a_terminal(real: Forgery, tmp_path: Path) -> None:
    """Control characters, direction marks and line breaks are escapes in notes and errors."""
    forged = real.copy()
    nasty = "\x1b]0;pwned\x07\u202egnp\nnote: all is well"
    forged.document["editable"] = [[nasty, 1]]
    forged.link(f"lib/{nasty}", "", "project")
    forged.document["description"]["python"]["abi"] = ""
    archive = forged.write(tmp_path / "a.tar")
    place = tmp_path / "a\x1b[2J\nplace"
    _, report = unpack(archive, str(place), sys.executable)
    said = postinstall.described(report, dry_run=False)
    assert len(report.notes) == 2
    assert all(note.isprintable() for note in report.notes)
    assert all(line.isprintable() for line in said.rstrip("\n").split("\n"))
    assert said.count("\n") == 4
    forged.document["description"]["python"]["abi"] = nasty
    with pytest.raises(EnvironmentFailure) as caught:
        unpack(forged.write(tmp_path / "b.tar"), str(tmp_path / "other"), sys.executable)
    assert all(line.isprintable() for line in str(caught.value).split("\n"))
