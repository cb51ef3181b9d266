"""Decoding: whatever stands in a record, what comes out is sound, or it is refused; nothing else happens."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import Kind, kinds

import venvflow
from venvflow.pure import decoding
from venvflow.pure.decoding import Corrupt

NAMES = (
    "decode_receipt", "decode_registration", "decode_holder", "decode_key", "decode_answer",
    "decode_excluded",
    "decode_pack", "decode_pull", "decode_push",
    "decode_trims", "decode_last_sweep", "decode_head", "decode_stats", "decode_tree",
    "decode_objects", "decode_snapshot", "decode_mark",
)  # fmt: skip

PARTS = {"decode_entry", "decode_slots"}
"""Decoders of what is a part of a record above."""

A = "a" * 64


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    """Give a real record of each kind."""
    return kinds(tmp_path_factory.mktemp("records"))


def _decoders() -> Iterator[str]:
    """Yield the names of all functions that decode a record; archives, and their script, have their own."""
    files = {*Path(venvflow.__file__).parent.rglob("*.py")}
    for file in files - {each for each in files if each.name == "postinstall.py" or "archive" in each.parts}:
        yield from re.findall(r"^def (decode_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_decoder_is_tried_here(every: dict[str, Kind]) -> None:
    """A new record comes with a real one for these tests."""
    assert {*_decoders()} == {*NAMES} | PARTS
    assert {*every} == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_real_record_is_read(every: dict[str, Kind], name: str) -> None:
    """What the product writes decodes, and has something in each of its fields."""
    kind = every[name]
    value = kind.decode(kind.sign(kind.body))
    assert isinstance(value, kind.type)
    _is_sound(kind, value)


# --------------------------------------------------------------------------- cruelty

HOSTILE: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, -(10**400), 0.5, -0.0, 1e308,
    math.inf, -math.inf, math.nan, "", "x", ".", "..", "../x", "../../../../etc/passwd", "/", "/etc/passwd",
    "a/../../b", "a//b", "a/", "~/x", "..//../../../ABS/f", "a\0b", "\ud800", "\udcff", "\x1b]0;x\a",
    "line\nbreak", "x" * 5000, A, A.upper(), A + "\n", A[:-1], "é" * 64, "٣" * 64, [], {}, [[]], [None], [A],
    ["../x"], {"": ""}, {"../../x": 0o4755}, {"/abs": 1}, {"a\0": 1}, {A: A}, list(range(300)), "shared",
    "symlink", "file", 0o4777,
]  # fmt: skip
DEEP = "[" * 100_000


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where something stands in a document: the keys and positions that lead there."""
    yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, each in value.items() if isinstance(value, dict) else ():
        yield from _places(each, (*path, key))


def _changed(document: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """Return a copy of *document* in which *change* was done to the holder of what is at *path*."""
    copy = [json.loads(json.dumps(document))]
    holder: Any = copy
    steps = (0, *path)
    for step in steps[:-1]:
        holder = holder[step]
    change(holder, steps[-1])
    return copy[0] if copy else None


def _delete(holder: Any, key: Any) -> None:
    del holder[key]


def _double(holder: Any, key: Any) -> None:
    if isinstance(holder, list):
        holder.append(holder[key])
    else:
        holder[f"{key}x"] = holder[key]


def _put(value: Any) -> Callable[[Any, Any], None]:
    def put(holder: Any, key: Any) -> None:
        holder[key] = value

    return put


def _name(value: str) -> Callable[[Any, Any], None]:
    def name(holder: Any, key: Any) -> None:
        if isinstance(holder, dict):
            holder[value] = holder.pop(key)

    return name


@st.composite
def _documents(draw: st.DrawFn, body: bytes) -> bytes:
    """Draw JSON that is like *body*, but for some places."""
    document = json.loads(body)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([*_places(document)]))
        change = draw(
            st.sampled_from([_delete, _double])
            | st.sampled_from(HOSTILE).map(_put)
            | st.sampled_from([each for each in HOSTILE if isinstance(each, str)]).map(_name)
        )
        document = _changed(document, path, change)
    return json.dumps(document).encode("ascii")


@st.composite
def _bytes(draw: st.DrawFn, body: bytes) -> bytes:
    """Draw bytes that are like *body*, but for some that were cut out, put in, doubled or changed."""
    data = bytearray(body)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        twice = bytes(data[start:end]) * 2
        pieces = [b"", twice, b"-", b"9" * 30, b"NaN", b"1e999", b'"', b"}", b"\\u0000"]
        data[start:end] = draw(st.binary(max_size=4) | st.sampled_from(pieces))
    return bytes(data)


def _be_cruel(kind: Kind, data: bytes) -> None:
    """Decode *data*, with and without the name or checksum that goes with it."""
    for signed in (kind.sign(data), data):
        with suppress(Corrupt):
            value = kind.decode(signed)
            assert isinstance(value, kind.type)
            _is_sound(kind, value)


def _is_sound(kind: Kind, value: Any) -> None:
    """See that a value is made of what its type says, and names nothing that it should not."""
    _is_plain(value)
    for path in kind.paths(value):
        assert isinstance(path, str)
        assert path
        assert not path.startswith("/")
        assert not {"", ".", ".."} & {*path.split("/")}
        assert "\0" not in path
    for digest in kind.digests(value):
        assert re.fullmatch(r"[0-9a-f]{64}", digest, re.ASCII)


def _is_plain(value: Any) -> None:
    """See that all in a value is text that can be written, or a number that can be handled."""
    if isinstance(value, str):
        assert value.encode("utf-8", "surrogateescape") is not None
    elif isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, int):
        assert abs(value) < 2**94
    elif isinstance(value, dict):
        _is_plain([*value.keys(), *value.values()])
    elif isinstance(value, (tuple, list)):
        for each in value:
            _is_plain(each)
    elif is_dataclass(value):
        _is_plain([getattr(value, field.name) for field in fields(value)])
    else:
        assert value is None


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_a_record_that_was_changed_is_sound_or_refused(
    every: dict[str, Kind], name: str, data: st.DataObject
) -> None:
    """In its structure or in its bytes, by accident or on purpose."""
    kind = every[name]
    _be_cruel(kind, data.draw(_documents(kind.body) | _bytes(kind.body)))


@pytest.mark.parametrize("name", NAMES)
def test_every_value_in_every_place_is_sound_or_refused(every: dict[str, Kind], name: str) -> None:
    """Each place of a real record once with each value that somebody who means harm might try."""
    kind = every[name]
    document = json.loads(kind.body)
    for path in _places(document):
        for value in HOSTILE:
            _be_cruel(kind, json.dumps(_changed(document, path, _put(value))).encode("ascii"))
        _be_cruel(kind, json.dumps(_changed(document, path, _delete)).encode("ascii"))
        deep = json.dumps(_changed(document, path, _put("DEEP"))).replace('"DEEP"', DEEP + "]" * len(DEEP))
        with pytest.raises(Corrupt):
            kind.decode(kind.sign(deep.encode("ascii")))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b"\0" * 1000,
        b"7",
        b'"x"',
        DEEP.encode(),
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_record_at_all_is_refused(every: dict[str, Kind], name: str, body: bytes) -> None:
    """Nothing is guessed."""
    for data in (body, every[name].sign(body)):
        if name == "decode_trims" and data.endswith(b"{}"):  # no policy was applied
            continue
        with pytest.raises(Corrupt):
            every[name].decode(data)


# --------------------------------------------------------------------------- the words


def test_a_document_with_more_values_than_any_record_is_refused_unread() -> None:
    """A list of lists is forty times as large in memory as it is in the file."""
    with pytest.raises(Corrupt, match="too many values"):
        decoding.parse(b"[" + b"[]," * decoding.MOST_VALUES + b"[]]")


def test_fields_are_all_there_and_no_others() -> None:
    """A record of another version is not ours to guess at."""
    assert decoding.fields({"a": 1}, a=decoding.count) == {"a": 1}
    for document in ({}, {"a": 1, "b": 2}, {"b": 1}):
        with pytest.raises(Corrupt, match="it lacks fields, or has others"):
            decoding.fields(document, a=decoding.count)


def test_what_is_wrong_says_where() -> None:
    """The way to a value stands before what is wrong with it."""
    with pytest.raises(Corrupt, match="a: b: 'x' is not a SHA-256"):
        decoding.fields({"a": {"b": "x"}}, a=lambda value: decoding.fields(value, b=decoding.digest))


_names = st.sampled_from(["a", "..", ".", "", "..a", "a.", "b c", "\udcff", "\ud800", "\0", "é"])


@given(st.lists(st.lists(_names, min_size=1, max_size=4).map("/".join), max_size=4))
def test_many_paths_are_judged_as_one_by_one(paths: list[str]) -> None:
    """Looking at all at once is only quicker."""

    def is_safe(path: str) -> bool:
        return not ({"", ".", ".."} & {*path.split("/")} or "\0" in path or "\ud800" in path)

    safe = all(map(is_safe, paths))
    try:
        decoding.check_paths(paths)
    except Corrupt:
        assert not safe
    else:
        assert safe


@given(
    st.lists(
        st.sampled_from([A, "0" * 64, A.upper(), A[:-1], A + "a", A[:-2] + " a", "", "٣" * 64, "g" * 64])
    )
)
def test_many_digests_are_judged_as_one_by_one(digests: list[str]) -> None:
    """Looking at all at once is only quicker."""
    sound = all(map(decoding.is_digest, digests))
    try:
        decoding.check_digests(digests)
    except Corrupt:
        assert not sound
    else:
        assert sound


@given(st.text(st.characters() | st.sampled_from("\0\ud800\udc80\udcff\udfff"), max_size=9))
def test_words_of_others_are_stored_so_that_they_can_be_read(words: str) -> None:
    """A lock file or a builder may say anything; the record that quotes it decodes."""
    assert decoding.text(decoding.storable(words)) is not None
    if "\0" not in words:
        with suppress(UnicodeEncodeError):
            words.encode("utf-8", "surrogateescape")
            assert decoding.storable(words) == words


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 2**63, -1])
def test_what_is_no_count_is_refused(value: object) -> None:
    """A truth value is no number, and none is larger than the kernel's."""
    with pytest.raises(Corrupt):
        decoding.count(value)
    with pytest.raises(Corrupt):
        decoding.check_integers([0, value], 0, 2**63 - 1)  # type: ignore[list-item]


@pytest.mark.parametrize("value", [True, math.inf, -math.inf, math.nan, 1e300, -1e300, "1", None, 10**400])
def test_what_is_no_time_is_refused(value: object) -> None:
    """Whatever passes has a date."""
    with pytest.raises(Corrupt):
        decoding.moment(value)
