"""The key: everything that decides a venv's content is in it, by name, and nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvflow.model import Interpreter, PackOptions, VenvSpec
from venvflow.pure.comparison import changes
from venvflow.pure.keys import Input, file_parts, make_key, parts_of, snapshot_id

PYTHON = Interpreter(
    "/usr/bin/python3.12", "/usr/bin", "cpython", "3.12.4", "cpython-312", "linux", "cpython-312", "m"
)
SPEC = VenvSpec(
    "api", "/srv/api/.venv", ("/srv/api/requirements.txt",), key_env=("INDEX", "UNSET"), exclude=("a", "b")
)
INPUTS = (Input("lock", "requirements.txt", b"six==1.17.0\n"), Input("file", "constraints.txt", b"x"))
ENVIRON = {"INDEX": "https://user:secret@index.example/simple", "OTHER": "o"}

texts = st.text(st.characters(exclude_categories=[]), max_size=6)
maps = st.dictionaries(texts, texts, max_size=5)
inputs = st.lists(
    st.builds(
        Input,
        st.sampled_from(["lock", "file"]),
        st.sampled_from(["a", "a#2", "b", "#2:a"]),
        st.binary(max_size=1),
    ),
    max_size=6,
)


def parts(spec: VenvSpec = SPEC, interpreter: Interpreter = PYTHON, **changes: Any) -> dict[str, str]:
    """Return the parts of a key with some of what decides it changed."""
    words = {"builder": "uv", "commands": [["uv", "sync"]], "inputs": INPUTS, "environ": ENVIRON, **changes}
    return parts_of(spec, interpreter, **words)


@given(maps, maps)
def test_two_sets_of_parts_never_share_a_digest(one: dict[str, str], other: dict[str, str]) -> None:
    """No text in a name or value can make one set look like another."""
    assert (make_key(one).digest == make_key(other).digest) == (one == other)


@given(maps)
def test_the_order_of_parts_does_not_matter(one: dict[str, str]) -> None:
    """A key keeps its parts sorted, and its digest is that of a SHA-256."""
    key = make_key(dict(reversed(one.items())))
    assert key == make_key(one)
    assert list(key.parts) == sorted(one)
    assert len(key.digest) == 64


@given(inputs, inputs)
def test_files_are_the_same_parts_only_with_the_same_roles_names_and_bytes(
    one: list[Input], other: list[Input]
) -> None:
    """No file's bytes get lost, also where several have one name or a name looks like our numbering."""
    assert (file_parts(one) == file_parts(other)) == (sorted(one) == sorted(other))
    assert len(file_parts(one)) == len(one)


@given(inputs)
def test_the_order_of_files_does_not_matter(one: list[Input]) -> None:
    """Nor does their directory, which is not even asked for."""
    assert file_parts(one[::-1]) == file_parts(one)


def test_parts_are_named_by_role_and_base_name() -> None:
    """Files of one name are told apart by number."""
    sha = hashlib.sha256(b"x").hexdigest()
    two = [Input("lock", "a.txt", b"x"), Input("lock", "a.txt", b"x"), Input("file", "a.txt", b"x")]
    assert file_parts(two) == {"lock:a.txt": sha, "lock#2:a.txt": sha, "file:a.txt": sha}


def test_every_part_has_a_name_that_people_understand() -> None:
    """These names are shown where a miss is explained."""
    assert set(parts()) == {
        "format", "lock:requirements.txt", "file:constraints.txt", "python", "abi", "platform", "builder",
        "commands", "exclude", "bytecode", "env:INDEX", "env:UNSET",
    }  # fmt: skip
    assert parts()["python"] == "cpython 3.12.4"
    assert parts()["env:UNSET"] == "unset"


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        (parts(replace(SPEC, bytecode="keep")), "bytecode"),
        (parts(replace(SPEC, exclude=("b", "a"))), "exclude"),
        (parts(SPEC, replace(PYTHON, version="3.12.5")), "python"),
        (parts(SPEC, replace(PYTHON, implementation="pypy")), "python"),
        (parts(SPEC, replace(PYTHON, abi="cpython-312 debug")), "abi"),
        (parts(SPEC, replace(PYTHON, platform="linux musl")), "platform"),
        (parts(builder="pip"), "builder"),
        (parts(commands=[["uv sync"]]), "commands"),
        (parts(environ={**ENVIRON, "INDEX": ""}), "env:INDEX"),
        (parts(environ={**ENVIRON, "UNSET": ""}), "env:UNSET"),
        (parts(inputs=[INPUTS[0]._replace(data=b"six==1.17.1\n"), INPUTS[1]]), "lock:requirements.txt"),
        (parts(inputs=INPUTS[:1]), "file:constraints.txt"),
    ],
)
def test_what_decides_the_content_changes_exactly_its_part(changed: dict[str, str], name: str) -> None:
    """And the difference is named."""
    assert [each.name for each in changes(parts(), changed)] == [name]
    assert make_key(changed).digest != make_key(parts()).digest


def test_what_does_not_decide_the_content_is_not_in_the_key() -> None:
    """Paths, names, links, packing, order of files, other variables and where Python lies do not matter."""
    spec = replace(
        SPEC, name="web", path="/elsewhere", locks=("/x/requirements.txt",), link=("copy",), min_size=9,
        pack=PackOptions("/dist"), check=("-c", "1"), pin=True, restore=False,
    )  # fmt: skip
    interpreter = replace(PYTHON, executable="/opt/python", home="/opt")
    assert parts(spec, interpreter, inputs=INPUTS[::-1], environ={**ENVIRON, "OTHER": "p"}) == parts()


def test_values_of_variables_cannot_be_read_from_the_key() -> None:
    """They may hold secrets, so only their hash is kept; bytes that are no text are fine."""
    assert "secret" not in repr(make_key(parts()))
    assert parts(environ={"INDEX": "\udcff"})["env:INDEX"].startswith("sha256:")


def test_only_bound_snapshots_have_a_name_of_their_own() -> None:
    """The id is the key unless there is a place; each place has its own."""
    assert snapshot_id("a" * 64, None) == "a" * 64
    ids = {snapshot_id(key, place) for key in ("a" * 64, "b" * 64) for place in (None, "", "a", "b\udcff")}
    assert len(ids) == 8
    assert all(len(identifier) == 64 for identifier in ids)
