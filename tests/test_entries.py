"""What lock files say of each package, where a build may start, and when what comes of that is sure."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from venvflow.model import Entry, Slot, Tree
from venvflow.pure.base import (
    Division,
    Made,
    Near,
    divide,
    may_be_base,
    ranked,
    same_entries,
    why_unsure,
)
from venvflow.pure.entries import BESIDE, entries_of
from venvflow.pure.manifest import Distribution, make_tree

PINS = "a==1 --hash=sha256:aa\nb==2 ; python_version < '4'\nc[x]==3\n"
UV = """
version = 1
[[package]]
name = "a"
version = "1"
source = { registry = "https://x" }
wheels = [{ url = "https://x/a", hash = "sha256:aa" }]
[[package]]
name = "b"
version = "1"
source = { editable = "." }
"""
PYLOCK = """
lock-version = "1.0"
created-by = "one"
[[packages]]
name = "a"
version = "1"
wheels = [{ name = "a-1-py3-none-any.whl", hashes = { sha256 = "aa" } }]
[[packages]]
name = "b"
version = "1"
directory = { path = "b" }
"""
POETRY = """
[[package]]
name = "a"
version = "1"
[[package]]
name = "b"
version = "1"
[package.source]
type = "git"
[metadata]
content-hash = "one"
[metadata.files]
a = [{ file = "a-1.whl", hash = "sha256:aa" }]
"""
PDM = """
[metadata]
content_hash = "one"
strategy = ["inherit_metadata"]
[[package]]
name = "a"
version = "1"
[[package]]
name = "b"
version = "1"
path = "./b"
"""
PIPENV = json.dumps(
    {
        "_meta": {"hash": {"sha256": "one"}, "sources": [{"url": "https://x"}]},
        "default": {"a": {"version": "==1", "hashes": ["aa"]}, "b": {"path": "./b", "editable": True}},
    }
)


@pytest.mark.parametrize(
    ("name", "old", "new", "same"),
    [
        ("r.txt", PINS, PINS, "a b c"),
        ("r.txt", PINS, "# other\n" + PINS.replace("b==2", "B==2  #x\n"), "a c"),
        ("r.txt", PINS, "c[x]==3\n# via b\na==1   \\\n  --hash=sha256:aa\n", "a c"),
        ("r.txt", PINS, PINS.replace("aa", "bb"), "b c"),
        ("r.txt", PINS, PINS.replace("< '4'", "< '3'"), "a c"),
        ("r.txt", PINS, PINS.replace("[x]", ""), "a b"),
        ("r.txt", PINS, PINS + "a==1\n", "b c"),
        ("r.txt", PINS, "--index-url https://y\n" + PINS, ""),
        ("r.txt", "--index-url https://y\n" + PINS, PINS + "--index-url https://y\n", "a b c"),
        ("r.txt", PINS + "-e ./p\nd @ https://x/d.whl\ne>=1\n./f\n", "./f\ne>=1\n" + PINS, "a b c"),
        ("r.txt", PINS + "a>=0\n", PINS + "a>=0\n", "b c"),
        ("r.txt", PINS + "-r ../elsewhere.txt\n", PINS + "-r ../elsewhere.txt\n", ""),
        ("uv.lock", UV, UV.replace("version = 1\n", "version = 1\nrevision = 3\n"), "a"),
        ("uv.lock", UV, UV.replace("sha256:aa", "sha256:bb"), ""),
        ("uv.lock", UV, UV.replace("https://x", "https://y"), ""),
        ("uv.lock", UV, "not toml", ""),
        ("pylock.toml", PYLOCK, PYLOCK.replace('"one"', '"two"'), "a"),
        ("pylock.toml", PYLOCK, PYLOCK.replace('"1.0"', '"1.1"'), ""),
        ("poetry.lock", POETRY, POETRY.replace("one", "two"), "a"),
        ("poetry.lock", POETRY, POETRY.replace("sha256:aa", "sha256:bb"), ""),
        ("pdm.lock", PDM, PDM.replace("one", "two"), "a"),
        ("pdm.lock", PDM, PDM.replace("inherit", "other"), ""),
        ("Pipfile.lock", PIPENV, PIPENV.replace("one", "two"), "a"),
        ("Pipfile.lock", PIPENV, PIPENV.replace("https://x", "https://y"), ""),
        ("unknown.yaml", PINS, PINS, ""),
    ],
)  # fmt: skip
def test_what_two_locks_say_the_same_of(name: str, old: str, new: str, same: str) -> None:
    """Everything that a lock says of a package counts, and what it says of all; comments and order do not."""
    found = [entries_of([(f"/p/{name}", text.encode())]) for text in (old, new)]
    assert same_entries(*found) == {*same.split()}


def test_what_is_included_counts_and_what_stands_beside() -> None:
    """A tool reads settings from its project file; most of that decides only what is locked."""
    both = [("/p/r.txt", b"-r c/d.txt\na==1\n"), ("/p/c/d.txt", b"b==2\n")]
    assert entries_of(both).keys() == {BESIDE, "a", "b"}

    def of(project: str, name: str = "pyproject.toml") -> dict[str, str]:
        return entries_of([("/p/uv.lock", UV.encode())], [(f"/p/{name}", project.encode())], ["uv 1"])

    plain = of('[project]\nname = "x"\n')
    assert of('[project]\nname = "y"\n[tool.uv.sources]\nz = { path = "z" }\n[tool.ruff]\n') == plain
    assert of("[tool.uv]\nno-binary = true\n") != plain
    assert of("[tool.uv]\nno-binary = true\n")["a"] == plain["a"]
    assert of("x = 1", "uv.toml") != of("x = 2", "uv.toml")
    assert of("[requires]\na = 1\n", "Pipfile") == of("[requires]\na = 2\n", "Pipfile")
    assert entries_of([("/p/uv.lock", UV.encode())], settings=["uv 2"]) != plain


def test_what_pdm_was_asked_for_counts() -> None:
    """It notes of a package whether somebody wanted it, or another package."""

    def of(lock: str, text: str, project: str) -> dict[str, str]:
        return entries_of([(f"/p/{lock}", text.encode())], [("/p/pyproject.toml", project.encode())])

    asked, moved = (
        '[project]\ndependencies = ["A>=1", "z"]\n',
        '[dependency-groups]\nx = ["a", {include = "y"}]\n',
    )
    plain = of("pdm.lock", PDM, "")
    found = [of("pdm.lock", PDM, project) for project in (asked, moved)]
    assert len({each["a"] for each in (plain, *found)}) == 3
    assert all(each.keys() == plain.keys() == {BESIDE, "a"} for each in found)
    assert of("uv.lock", UV, asked)["a"] == of("uv.lock", UV, "")["a"]


# --------------------------------------------------------------------------- which, and what of it

PARTS = {"lock:r.txt": "1", "python": "3.11", "local:pyproject.toml": "1", "file:x": "1", "exclude": "[]"}


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        ({}, True),
        ({"lock:r.txt": "2"}, True),
        ({"include:s.txt": "2"}, True),
        ({"local:pyproject.toml": "2"}, True),
        ({"python": "3.12"}, False),
        ({"file:x": "2"}, False),
        ({"exclude": '["x"]'}, False),
        ({"env:X": "unset"}, False),
    ],
)
def test_a_base_agrees_in_all_but_the_locks(changes: dict[str, str], *, may: bool) -> None:
    """Builder, Python, platform, patterns, files and variables that the config names."""
    assert may_be_base(PARTS, PARTS | changes) == may


def test_the_one_that_has_most_is_the_best() -> None:
    """Of several, the one that was used last; none that has next to nothing, or nothing in common."""
    wanted = {BESIDE: "0", **dict.fromkeys("abcdefghij", "1")}

    def of(name: str, *same: str, beside: str = "0") -> Near:
        return Near(name, {}, {BESIDE: beside, **dict.fromkeys(same, "1"), "z": "1"})

    given = [of("few", "a"), of("some", *"abc"), of("most", *"abcdef"), of("older", *"ghijab"), of("none")]
    other = of("other", *"abcdefghij", beside="1")
    assert [each.id for each in ranked([other, *given], wanted)] == ["most", "older", "some"]


SITE = "lib/python3.11/site-packages"


def tree(name: str, *paths: str, version: str = "1", slots: tuple[Slot, ...] = ()) -> Tree:
    """Return the tree of a distribution; its RECORD has the *slots*."""
    record = Entry(f"{SITE}/{name}-{version}.dist-info/RECORD", "template", "r" * 64, size=9, slots=slots)
    files = [Entry(path if "/" in path else f"{SITE}/{path}", "file", name[0] * 64, size=1) for path in paths]
    return make_tree(name, version, [record, *files] if version else files)


def test_a_base_is_divided_by_distribution() -> None:
    """What a package carries within it shares its fate; what names the project is left out."""
    within = make_tree("inner", "1", [Entry(f"{SITE}/outer/_v/inner-1.dist-info/RECORD", "file", "i" * 64)])
    outer, plain = tree("outer", f"{SITE}/outer/x.py"), tree("plain", "plain.py")
    local = tree("local", "local.pth", slots=(Slot(0, "project", "raw"),))
    twice = tree("twice", "t.py"), tree("twice", "t2.py", version="2")
    scaffold = tree("(venv)", "bin/activate", "__pycache__/x.cpython-311.pyc", version="")
    every = [within, outer, plain, local, *twice, scaffold]
    found = divide(every, {"outer", "local", "twice", "inner"})
    assert [each.name for each in found.kept] == ["inner", "outer"]
    assert [each.name for each in found.left_out] == ["plain", "local", "twice", "twice"]
    assert found.unowned == {"bin/activate"}
    assert [each.name for each in divide(every, {"plain", "inner"}).kept] == ["plain"]


KEPT = tree("kept", "kept.py", f"{SITE}/__pycache__/kept.cpython-311.pyc", "shared.py")
BASE = Division((KEPT,), (tree("old", "old.py"),), frozenset({"bin/activate"}), frozenset())
_PYC = f"{SITE}/__pycache__/kept.cpython-311.pyc"


def made(trees: list[Tree], *present: str, listing: dict[str, str] | None = None) -> Made:
    """Return a venv of *trees*, with further paths; distributions may list more than they have."""
    entries = {each.path: each for one in trees for each in one.entries if not each.path.endswith(".pyc")}
    entries["bin/activate"] = Entry("bin/activate", "file", "0" * 64)
    paths = {one.name: {each.path for each in one.entries} for one in trees}
    for name, path in (listing or {}).items():
        paths[name].add(f"{SITE}/{path}")
    found = [Distribution(name, "1", frozenset(each)) for name, each in paths.items()]
    return Made(entries, {*entries, *present}, found)


NEW = tree("new", "new.py")


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (made([KEPT, NEW], _PYC), ""),
        (made([NEW]), ""),
        (made([KEPT, NEW]), "its tool changed"),
        (made([NEW], _PYC), "its tool changed"),
        (made([replace(KEPT, entries=KEPT.entries[:-1]), NEW], _PYC), "its tool changed"),
        (made([tree("kept", "kept.py"), NEW], _PYC), "its tool changed"),
        (made([KEPT, NEW], _PYC, listing={"new": "shared.py"}), "two packages have"),
        (made([KEPT, NEW], _PYC, listing={"kept": "old.py"}), "two packages have"),
        (made([KEPT, tree("new", "late.py")], _PYC, listing={"kept": "late.py"}), "two packages have"),
    ],
)
def test_what_came_is_sure_or_it_says_why_not(result: Made, says: str) -> None:
    """What was kept is as it was, or gone as a whole, and nobody else's."""
    found = why_unsure(BASE, (), result, lambda _: False)
    assert says in found
    assert bool(says) == bool(found)


def test_a_file_that_all_agree_on_may_be_shared() -> None:
    """And so it is if what had it is left out; but a file that no RECORD names is nobody's."""
    result, path = made([KEPT, NEW], _PYC, listing={"new": "shared.py"}), f"{SITE}/shared.py"
    assert why_unsure(BASE, (), result, [path].__contains__) == ""
    assert "shared.py" in why_unsure(BASE, [path], made([KEPT], _PYC), lambda _: False)
    nobodys = BASE._replace(unowned=frozenset({"etc/x"}))
    assert "no package says" in why_unsure(nobodys, (), made([KEPT], _PYC), lambda _: False)
    emptied = made([NEW])
    directory = {SITE: Entry(SITE, "dir")}
    assert why_unsure(BASE, (), emptied._replace(entries={**emptied.entries, **directory}), lambda _: True)
