"""Records: what is signed is believed, if it answers what was asked; nothing else is."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from venvflow.model import Snapshot
from venvflow.pure.keys import make_key, snapshot_id
from venvflow.pure.records import LARGEST, Disbelieved, RemoteRecord, Trust, encode_record, judged
from venvflow.pure.signing import NotKey, encode_secret, is_key_name, public_key, public_of, secret_key

OURS, RETIRED, STRANGER = (secret_key(encode_secret(os.urandom(32))) for _ in range(3))
TRUST = Trust({"main-2026": public_key(public_of(OURS)), "other": public_key(public_of(RETIRED))})
KEY = make_key({"format": "1", "python": "3.12.4"})
OTHER_KEY = make_key({"format": "1", "python": "3.13.0"})


def snapshot(place: str | None = None, **fields: Any) -> Snapshot:
    """Return a snapshot for KEY."""
    usual: dict[str, Any] = {
        "id": snapshot_id(KEY.digest, place), "key": KEY, "trees": ("a" * 64, "b" * 64), "place": place,
        "venv": "api", "created": 1_800_000_000.0, "host": "runner-17", "command": "doit --token s3cr3t",
        "python": "3.12.4", "files": 3, "size": 30, "root": "/home/someone/project",
    }  # fmt: skip
    return Snapshot(**{**usual, **fields})


def record(secret: bytes | None = OURS, issuer: str = "main-2026", **fields: Any) -> bytes:
    """Return a record as it lies in a remote."""
    raw = fields.pop("raw", (10, 20))
    return encode_record(RemoteRecord(snapshot(**fields), raw, issuer, "acme/shop@main"), secret)


def judge(data: bytes, trust: Trust = TRUST, place: str | None = None, key: str = KEY.digest) -> RemoteRecord:
    """Judge a record that was asked for by KEY."""
    return judged(data, trust, key=key, place=place)


def opened(data: bytes) -> dict[str, Any]:
    """Return an envelope, with its payload decoded."""
    envelope: dict[str, Any] = json.loads(data)
    return {**envelope, "payload": json.loads(base64.b64decode(envelope["payload"]))}


def closed(envelope: dict[str, Any]) -> bytes:
    """Return an envelope as bytes."""
    payload = json.dumps(envelope["payload"], sort_keys=True, separators=(",", ":")).encode()
    return json.dumps({**envelope, "payload": base64.b64encode(payload).decode()}).encode()


def test_what_is_signed_is_believed() -> None:
    """All of it but what names the machine that made it."""
    found = judge(record())
    assert found.snapshot == replace(snapshot(), host="", command="", root="")
    assert (found.raw, found.issuer, found.origin) == ((10, 20), "main-2026", "acme/shop@main")
    assert judge(record(place="services/api/.venv"), place="services/api/.venv").snapshot.place


@pytest.mark.parametrize("canary", ["runner-17", "s3cr3t", "/home/someone"])
def test_nothing_of_the_machine_is_in_a_record(canary: str) -> None:
    """Nor what a command line had in it."""
    assert canary not in json.dumps(opened(record()))


Change = Callable[[dict[str, Any]], object]


def _payload(**fields: Any) -> Change:
    return lambda envelope: envelope["payload"].update(fields)


def _signature(**fields: Any) -> Change:
    return lambda envelope: envelope["signatures"][0].update(fields)


DRILLS: dict[str, Change] = {
    "another origin": _payload(origin="evil/shop@main"),
    "another size": _payload(raw=[10, 21]),
    "another snapshot": lambda each: each["payload"].update(
        snapshot=each["payload"]["snapshot"].replace("api", "web")
    ),
    "another issuer": _payload(issuer="other"),
    "a field more": _payload(more=1),
    "a key that is not of the config": _signature(keyid="nobody"),
    "our key's name on another's signature": _signature(keyid="other"),
    "no signature": lambda each: each.update(signatures=[]),
    "an empty signature": _signature(sig=""),
    "a signature that is not base64": _signature(sig="%%%"),
    "another type": lambda each: each.update(payloadType="application/json"),
    "many signatures": lambda each: each.update(signatures=each["signatures"] * 100_000),
    "as many signatures as a record has room for": lambda each: each.update(
        signatures=[*({"keyid": "main-2026", "sig": ""} for _ in range(25_000)), *each["signatures"]]
    ),
    "a nested payload": lambda each: each.update(payload={"a": 1}),
}


@pytest.mark.parametrize("drill", DRILLS)
def test_a_changed_record_is_refused(drill: str) -> None:
    """By its signature, or before that is looked at."""
    envelope = opened(record())
    DRILLS[drill](envelope)
    with pytest.raises(Disbelieved):
        judge(closed(envelope))


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>Sign in</html>", b"[" * 100_000, b"{}", b"null", b"\xff\xfe", b"{" + b" " * LARGEST + b"}"],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    """Whatever a server answers."""
    with pytest.raises(Disbelieved):
        judge(data)


def test_a_signature_of_somebody_else_is_refused() -> None:
    """A stranger's under our name, and a retired key's once it is out of the config."""
    with pytest.raises(Disbelieved, match="not that of main-2026"):
        judge(record(STRANGER))
    assert judge(record(RETIRED, "other")).issuer == "other"
    with pytest.raises(Disbelieved, match="no key of the config"):
        judge(record(RETIRED, "other"), Trust({"main-2026": TRUST.keys["main-2026"]}))


def test_a_signed_record_answers_its_own_question_only() -> None:
    """An honest record under another name is no answer."""
    for asked in ({"key": OTHER_KEY.digest}, {"place": "web/.venv"}):
        with pytest.raises(Disbelieved, match="another snapshot"):
            judge(record(), **asked)  # type: ignore[arg-type]
    with pytest.raises(Disbelieved, match="another snapshot"):
        judge(record(place="api/.venv"))
    lying = record(key=replace(KEY, parts=OTHER_KEY.parts))
    with pytest.raises(Disbelieved, match="another snapshot"):
        judge(lying)


@pytest.mark.parametrize(
    "fields",
    [
        {"raw": (10,)},
        {"trees": ("a" * 64, "a" * 64)},
        {"raw": (1 << 40, 1 << 40)},
        {"raw": (0, 5)},
        {"raw": (-1, 5)},
    ],
    ids=["a size is missing", "a tree twice", "more than any venv", "nothing", "less than nothing"],
)
def test_a_signed_record_that_contradicts_itself_is_refused(fields: dict[str, Any]) -> None:
    """A signature says who made it, not that it is sane."""
    with pytest.raises(Disbelieved):
        judge(record(**fields))


def test_records_from_before_an_incident_are_refused() -> None:
    """not_before is the switch."""
    young = TRUST._replace(not_before=1_800_000_001.0)
    with pytest.raises(Disbelieved, match="not_before"):
        judge(record(), young)
    assert judge(record(created=1_800_000_001.0), young)


def test_unsigned_records_are_believed_where_the_config_says_so() -> None:
    """Only there; and they still have to answer the question."""
    unsigned = record(None, "")
    with pytest.raises(Disbelieved, match="nobody signed"):
        judge(unsigned)
    assert judge(unsigned, Trust({}, unsigned=True)).issuer == ""
    assert judge(record(), Trust({}, unsigned=True))
    assert judge(record(), TRUST._replace(unsigned=True)).issuer == "main-2026"
    with pytest.raises(Disbelieved):
        judge(unsigned, Trust({}, unsigned=True), key=OTHER_KEY.digest)


def test_two_keys_overlap_for_as_long_as_both_are_in_the_config() -> None:
    """So a key is changed without a gap: first the new public key, then the new secret one."""
    new = secret_key(encode_secret(os.urandom(32)))
    both = Trust({**TRUST.keys, "main-2027": public_key(public_of(new))})
    assert judge(record(), both).issuer == "main-2026"
    assert judge(record(new, "main-2027"), both).issuer == "main-2027"


@pytest.mark.parametrize("text", ["", "ed25519:", "ed25519:AAAA", "rsa:" + "A" * 44, "ed25519:" + "!" * 44])
def test_what_is_no_key_is_told_without_its_text(text: str) -> None:
    """A secret key that was put in the place of a public one must not be shown."""
    with pytest.raises(NotKey) as told:
        public_key(text)
    assert "AAAA" not in str(told.value)
    with pytest.raises(NotKey):
        secret_key(text)


def test_names_of_keys() -> None:
    """They stand in messages and YAML."""
    assert is_key_name("main-2026")
    assert not any(map(is_key_name, ("", " a", "a b", "-a", "a/b", "a\n", "\x1b[31m")))
