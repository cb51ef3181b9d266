"""What differs between two keys, two lists of packages, two manifests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvflow.model import Entry, Manifest, Slot
from venvflow.pure.comparison import (
    Change,
    FileChange,
    Keyed,
    ListChange,
    Weight,
    changes,
    compare_keys,
    compare_manifests,
    part_changes,
    role_of,
)
from venvflow.pure.keys import Input, file_parts
from venvflow.pure.manifest import make_tree

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
SITE = "lib/python3.11/site-packages"

values = st.dictionaries(st.sampled_from("abcde"), st.sampled_from("xyz"))


@given(values, values)
def test_changes_lead_from_old_to_new(old: dict[str, str], new: dict[str, str]) -> None:
    """Applied to the old values they give the new ones, and there is none too many."""
    found = changes(old, new)
    result = dict(old)
    for change in found:
        assert change.old == old.get(change.name) != change.new
        if change.new is None:
            assert change.how == "removed"
            del result[change.name]
        else:
            assert change.how == ("added" if change.old is None else "changed")
            result[change.name] = change.new
    assert result == new
    assert [each.name for each in found] == sorted({each.name for each in found})


# --------------------------------------------------------------------------- keys


def test_parts_are_compared_by_name() -> None:
    """One that only one key has is there, too."""
    old = {"python": "3.11", "lock:r.txt": A, "exclude": "[]", "env:X": "unset"}
    new = {"python": "3.12", "lock:r.txt": A, "exclude": "[]", "file:c.txt": B}
    assert part_changes(old, new) == (
        Change("env:X", "unset", None),
        Change("file:c.txt", None, B),
        Change("python", "3.11", "3.12"),
    )
    assert part_changes(old, old) == ()


def test_files_of_one_name_are_not_confused_by_their_numbers() -> None:
    """Their numbers follow from their digests: one that changed moves the others, which did not change."""
    old = {"lock:r.txt": B, "lock#2:r.txt": C}
    assert part_changes(old, {"lock:r.txt": A, "lock#2:r.txt": B}) == (Change("lock:r.txt", C, A),)
    assert part_changes(old, {"lock:r.txt": C}) == (Change("lock:r.txt", B, None),)
    assert part_changes({"lock:r.txt": C}, old) == (Change("lock:r.txt", None, B),)
    assert part_changes(old, {"lock:r.txt": A, "lock#2:r.txt": D}) == (
        Change("lock#2:r.txt", C, D),
        Change("lock:r.txt", B, A),
    )
    assert part_changes({"lock:r.txt": B, "lock#2:r.txt": B}, {"lock:r.txt": B}) == (
        Change("lock:r.txt", B, None),
    )


@given(st.lists(st.binary(max_size=1), max_size=5), st.lists(st.binary(max_size=1), max_size=5))
def test_as_many_files_differ_as_are_not_in_both(old: list[bytes], new: list[bytes]) -> None:
    """Whatever their order."""
    parts = [file_parts(Input("lock", "r.txt", data) for data in each) for each in (old, new)]
    both = sum(min(old.count(data), new.count(data)) for data in set(old))
    assert len(part_changes(*parts)) == max(len(old), len(new)) - both


def test_the_role_of_a_part_is_what_stands_before_its_name() -> None:
    """The number of a file is no part of it."""
    assert [role_of(part) for part in ("lock:a:b", "lock#12:a", "python", "env:X")] == [
        "lock", "lock", "python", "env",
    ]  # fmt: skip


def keyed(
    packages: dict[str, str] | None, *, digest: str = A, name: str = "lock:r.txt", **more: str
) -> Keyed:
    """Return a key with one lock file, and its list of packages if it could be read."""
    return Keyed({name: digest, **more}, {} if packages is None else {name: packages})


def test_a_lock_that_changed_is_compared_package_by_package() -> None:
    """Added, removed, and another version."""
    old, new = keyed({"a": "1", "b": "1", "c": "1"}), keyed({"a": "1", "b": "2", "d": "1"}, digest=B)
    found = compare_keys(old, new)
    assert found.parts == (Change("lock:r.txt", A, B),)
    packages = (Change("b", "1", "2"), Change("c", "1", None), Change("d", None, "1"))
    assert found.lists == (ListChange("lock:r.txt", "lock:r.txt", "lists", packages),)


def test_a_lock_may_change_without_its_packages() -> None:
    """A comment is a change of the key all the same."""
    (found,) = compare_keys(keyed({"a": "1"}), keyed({"a": "1"}, digest=B)).lists
    assert (found.basis, found.changes) == ("lists", ())


def test_a_lock_that_did_not_change_is_not_compared() -> None:
    """Though something else did."""
    found = compare_keys(keyed({"a": "1"}, python="3.11"), keyed({"a": "1"}, python="3.12"))
    assert (len(found.parts), found.lists) == (1, ())


def test_a_renamed_lock_is_one_lock() -> None:
    """It is gone under one name and there under another, in the same role."""
    found = compare_keys(keyed({"a": "1"}), keyed({"a": "2"}, digest=B, name="lock:new.txt"))
    assert len(found.parts) == 2
    assert found.lists == (ListChange("lock:r.txt", "lock:new.txt", "lists", (Change("a", "1", "2"),)),)
    assert found.lists[0].name == "lock:new.txt"


def test_a_new_lock_adds_all_its_packages_and_a_lost_one_removes_them() -> None:
    """Nothing is compared with nothing."""
    none = Keyed({"python": "3.11"})
    (found,) = compare_keys(none, keyed({"a": "1"}, python="3.11")).lists
    assert found == ListChange("", "lock:r.txt", "lists", (Change("a", None, "1"),))
    (found,) = compare_keys(keyed({"a": "1"}, python="3.11"), none).lists
    assert found == ListChange("lock:r.txt", "", "lists", (Change("a", "1", None),))


def test_a_lock_that_cannot_be_read_says_so() -> None:
    """On whichever side."""
    for old, new in ((None, {"a": "1"}), ({"a": "1"}, None), (None, None)):
        (found,) = compare_keys(keyed(old), keyed(new, digest=B)).lists
        assert (found.basis, found.changes) == ("nothing", ())


def test_without_an_old_list_what_was_installed_is_compared() -> None:
    """Seeds count for nothing, and what is not a plain version may well be what is installed."""
    installed = {"a": "1.0", "b": "1", "gone": "1", "pip": "24", "range": "2", "url": "3", "two": "2"}
    listed = {"a": "1.0+cpu", "b": "2", "come": "1", "range": ">=1", "url": "3 @ https://h/u", "two": "1, 2"}
    old, new = Keyed({"lock:r.txt": A}, {}, installed), keyed(listed, digest=B)
    packages = (Change("b", "1", "2"), Change("come", None, "1"), Change("gone", "1", None))
    (found,) = compare_keys(old, new).lists
    assert found == ListChange("lock:r.txt", "lock:r.txt", "installed", packages)
    (back,) = compare_keys(new, old).lists
    assert back.changes == tuple(Change(each.name, each.new, each.old) for each in packages)


def test_what_was_installed_is_told_once_for_all_locks() -> None:
    """It is that of all of them together."""
    old = Keyed({"lock:a.txt": A, "lock:b.txt": B}, {}, {"x": "1", "y": "1"})
    new = Keyed({"lock:a.txt": C, "lock:b.txt": D}, {"lock:a.txt": {"x": "1"}, "lock:b.txt": {"y": "2"}})
    assert [each.changes for each in compare_keys(old, new).lists] == [(Change("y", "1", "2"),)]


def test_two_sides_that_are_known_by_what_is_installed_are_compared_by_that() -> None:
    """As those of two archives are."""
    old, new = (Keyed({"lock:r.txt": each}, {}, {"a": each[:1]}) for each in (A, B))
    assert compare_keys(old, new).lists[0].changes == (Change("a", "a", "b"),)


# --------------------------------------------------------------------------- manifests


def file(path: str, digest: str = A, size: int = 1, *, executable: bool = False) -> Entry:
    """Return a file."""
    return Entry(path, "file", digest, executable, size)


def manifest(*trees: tuple[str, str, list[Entry]]) -> Manifest:
    """Return a manifest of trees by name, version and entries."""
    return Manifest(tuple(make_tree(*tree) for tree in trees))


def test_equal_manifests_do_not_differ() -> None:
    """Whatever the order of their entries."""
    entries = [file("b"), file("a")]
    found = compare_manifests(manifest(("x", "1", entries)), manifest(("x", "1", entries[::-1])))
    assert found.equal


def test_distributions_differ_by_version_by_files_or_by_being_there() -> None:
    """Each with its weight on both sides; what belongs to none is only a matter of files."""
    old = manifest(
        ("same", "1", [file("s")]), ("up", "1", [file("u", size=5)]), ("edited", "1", [file("e")]),
        ("gone", "1", [file("g", size=7), file("h")]), ("(venv)", "", [file("v")]),
    )  # fmt: skip
    new = manifest(
        ("same", "1", [file("s")]), ("up", "2", [file("u", B, 6)]), ("edited", "1", [file("e", B, 2)]),
        ("come", "1", []), ("(venv)", "", [file("v", B)]),
    )  # fmt: skip
    found = compare_manifests(old, new)
    assert found.distributions == (
        Change("come", None, Weight("1", 0, 0)),
        Change("edited", Weight("1", 1, 1), Weight("1", 1, 2)),
        Change("gone", Weight("1", 2, 8), None),
        Change("up", Weight("1", 1, 5), Weight("2", 1, 6)),
    )
    assert [each.how for each in found.distributions] == ["added", "changed", "removed", "changed"]
    assert [each.name for each in found.files] == ["e", "g", "h", "u", "v"]


def test_two_versions_of_one_distribution_are_both_named() -> None:
    """A careless upgrade leaves such a venv."""
    old = manifest(("x", "1", [file("a")]))
    new = manifest(("x", "1", [file("a")]), ("x", "2", [file("b")]))
    (found,) = compare_manifests(old, new).distributions
    assert (found.old, found.new) == (Weight("1", 1, 1), Weight("1, 2", 2, 2))


LINK = Entry("p", "link", target="x")
TEMPLATE = Entry("p", "template", A, False, 1, "", (Slot(0, "venv", "sh"),))


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (file("p"), file("p", B), "content"),
        (file("p"), file("p", executable=True), "mode"),
        (file("p"), file("p", B, executable=True), "content"),
        (LINK, LINK._replace(target="y"), "target"),
        (file("p"), LINK, "kind"),
        (Entry("p", "dir"), LINK, "kind"),
        (file("p"), TEMPLATE, "content"),
        (TEMPLATE, TEMPLATE._replace(executable=True), "mode"),
        (TEMPLATE, TEMPLATE._replace(slots=(Slot(1, "venv", "sh"),)), "content"),
    ],
)
def test_a_changed_file_says_in_what(old: Entry, new: Entry, what: str) -> None:
    """Kind before target, content before mode."""
    (found,) = compare_manifests(manifest(("x", "", [old])), manifest(("x", "", [new]))).files
    assert (found.how, found.what) == ("changed", what)


def test_the_larger_side_makes_a_file_matter() -> None:
    """On both sides, and with one side only."""
    small, large = file("p", size=3), file("p", B, size=9)
    assert [FileChange("p", *pair).weight for pair in ((small, large), (large, None), (None, small))] == [
        9,
        9,
        3,
    ]
    assert [FileChange("p", *pair).what for pair in ((large, None), (None, small))] == ["", ""]


def test_bytecode_follows_from_its_source() -> None:
    """It is not compared; a module that is there as bytecode only is a file like others."""
    source, compiled = file("m/a.py"), "m/__pycache__/a.cpython-311.pyc"
    with_it = manifest(("x", "1", [source, file(compiled)]))
    assert compare_manifests(manifest(("x", "1", [source])), with_it).equal
    alone = manifest(("x", "1", [file("m/a.pyc")]))
    assert not compare_manifests(alone, manifest(("x", "1", [file("m/a.pyc", B)]))).equal


def test_another_python_is_not_another_place() -> None:
    """Its library directory counts as the same one; what else the paths tell remains."""
    old = manifest(("x", "1", [file(f"{SITE}/x.py"), file(f"{SITE}/y.cpython-311.so")]))
    new = manifest(("x", "1", [file("lib/python3.12/site-packages/x.py")]))
    found = compare_manifests(old, new)
    assert [(each.name, each.how) for each in found.files] == [
        ("lib/python*/site-packages/y.cpython-311.so", "removed")
    ]
    both = manifest(("x", "1", [file("lib/python3.12/x.py"), file("lib/python3.13/x.py")]))
    assert {each.name for each in compare_manifests(old, both).files} == {
        f"{SITE}/x.py", f"{SITE}/y.cpython-311.so", "lib/python3.12/x.py", "lib/python3.13/x.py",
    }  # fmt: skip


paths = st.sampled_from(["a", "b", "c.py", "__pycache__/c.cpython-311.pyc", f"{SITE}/d", "bin/e"])
contents = st.dictionaries(paths, st.sampled_from([A, B]), max_size=5)


@given(contents, contents)
def test_comparing_the_other_way_round_turns_everything_round(
    one: dict[str, str], other: dict[str, str]
) -> None:
    """Added becomes removed, old becomes new; equal stays equal."""
    left, right = (
        manifest(("x", "1", [file(path, digest) for path, digest in each.items()])) for each in (one, other)
    )
    there, back = compare_manifests(left, right), compare_manifests(right, left)
    assert [(each.name, each.old, each.new) for each in there.files] == [
        (each.name, each.new, each.old) for each in back.files
    ]
    assert there.equal == back.equal
    assert there.equal or one != other
