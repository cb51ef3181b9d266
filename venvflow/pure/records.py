"""Records: snapshots as they lie in a remote, each in an envelope that says who vouches for it.

The envelope is that of DSSE (https://github.com/secure-systems-lab/dsse, v1.0.2): a payload of bytes, its
type, and signatures of both, so that nothing has to be parsed before it is believed. The payload is JSON with
sorted keys and no spaces::

    {"format": 1, "issuer": "main-2026", "origin": "acme/shop@main", "raw": [5120, …], "snapshot": "{…"}

*snapshot* is the text of the snapshot without what names a machine; *raw* are the plain sizes of its trees'
parcels, in bytes and in its order.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from venvflow.model import Snapshot
from venvflow.pure import decoding
from venvflow.pure.decoding import Corrupt
from venvflow.pure.keys import is_honest, snapshot_id
from venvflow.pure.manifest import decode_snapshot, encode_snapshot
from venvflow.pure.signing import is_signed, sign

LARGEST = 1 << 20
"""Bytes that a record may have."""

_TYPE = "application/vnd.venvflow.snapshot+json;v=1"
_FORMAT = 1
_MOST_SIGNATURES = 16
_LARGEST_VENV = 1 << 40


class Disbelieved(Exception):
    """A record is not to be believed; the text says why, and has no words of the record but its issuer."""


class Trust(NamedTuple):
    """Whose records are believed: public *keys* by the name of their issuer, and how young they have to be.

    With *unsigned* any record is. *not_before* is in seconds since 1970.
    """

    keys: Mapping[str, bytes]
    unsigned: bool = False
    not_before: float = 0.0


class RemoteRecord(NamedTuple):
    """A snapshot of a remote: *raw* are the plain sizes of its parcels, *origin* says where it was made."""

    snapshot: Snapshot
    raw: tuple[int, ...]
    issuer: str = ""
    origin: str = ""


class SeenRecord(NamedTuple):
    """What a look at all records of a remote keeps of one: *written* is when, by the clock of the server.

    *trees* are None if it cannot be read. *doubt* is why it is not believed; what else it says is not to be
    relied on then.
    """

    id: str
    written: float
    trees: tuple[str, ...] | None = None
    raw: tuple[int, ...] = ()
    venv: str = ""
    key: str = ""
    place: str | None = None
    python: str = ""
    created: float | None = None
    issuer: str = ""
    origin: str = ""
    doubt: str = ""


def record_path(identifier: str) -> str:
    """Return where the record of a snapshot lies in a remote."""
    return f"v1/records/{identifier[:2]}/{identifier}"


def encode_record(record: RemoteRecord, secret: bytes | None) -> bytes:
    """Return the envelope of *record*, signed if there is a *secret* key.

    Host and command stay behind: they say something of a machine, and nothing of a venv.
    """
    snapshot = replace(record.snapshot, host="", command="", root="")
    payload = json.dumps(
        {
            "format": _FORMAT,
            "issuer": record.issuer,
            "origin": decoding.storable(record.origin),
            "raw": list(record.raw),
            "snapshot": encode_snapshot(snapshot).decode("ascii"),
        },
        sort_keys=True,
        separators=(",", ":"),
    ).encode("ascii")
    signatures = []
    if secret is not None:
        signatures = [{"keyid": record.issuer, "sig": _base64(sign(_signed_bytes(payload), secret))}]
    envelope = {"payload": _base64(payload), "payloadType": _TYPE, "signatures": signatures}
    return json.dumps(envelope, sort_keys=True).encode("ascii") + b"\n"


def judged(data: bytes, trust: Trust, *, key: str, place: str | None) -> RemoteRecord:
    """Return the record in *data*, if it is one for *key* and *place* and *trust* allows it to be believed.

    Raises Disbelieved with the reason. Nothing of the payload is read before its signature was checked.
    """
    try:
        payload, signatures = _opened(data)
        issuer = "" if trust.unsigned and not trust.keys else _issuer(payload, signatures, trust)
        record = _decoded(payload)
    except Corrupt as error:
        raise Disbelieved(f"it is not a record ({error})") from error
    if record.issuer != issuer and not trust.unsigned:
        raise Disbelieved("it names another issuer than the one who signed it")
    _check(record, trust, key=key, place=place)
    return record


def seen(data: bytes, identifier: str, written: float, trust: Trust) -> SeenRecord:
    """Return what is to be known of the record that lies under *identifier*, whoever vouches for it.

    For who counts and tidies up: nothing of it may be used to make a venv.
    """
    try:
        record = _decoded(_opened(data)[0])
    except Corrupt as error:
        return SeenRecord(identifier, written, doubt=f"it cannot be read ({error})")
    snapshot, doubt = record.snapshot, ""
    try:
        judged(data, trust, key=snapshot.key.digest, place=snapshot.place)
        if snapshot.id != identifier:
            doubt = "it is the record of another snapshot"
    except Disbelieved as error:
        doubt = str(error)
    return SeenRecord(
        identifier, written, snapshot.trees, record.raw, snapshot.venv, snapshot.key.digest, snapshot.place,
        snapshot.python, snapshot.created, record.issuer, record.origin, doubt,
    )  # fmt: skip


def _opened(data: bytes) -> tuple[bytes, Sequence[tuple[str, bytes]]]:
    """Return the payload of an envelope, and issuers and their signatures."""
    if len(data) > LARGEST:
        raise Corrupt("it is too large")
    envelope = decoding.fields(
        decoding.parse(data),
        payload=_bytes,
        payloadType=decoding.one_of(_TYPE),
        signatures=decoding.listed(lambda each: decoding.fields(each, keyid=decoding.text, sig=_bytes)),
    )
    signatures = [(each["keyid"], each["sig"]) for each in envelope["signatures"]]
    if len(signatures) > _MOST_SIGNATURES:
        raise Corrupt("it has too many signatures")
    return envelope["payload"], signatures


def _issuer(payload: bytes, signatures: Sequence[tuple[str, bytes]], trust: Trust) -> str:
    """Return who of those that are believed has signed; raises Disbelieved."""
    known = [(name, signature) for name, signature in signatures if name in trust.keys]
    for name, signature in known:
        if is_signed(_signed_bytes(payload), signature, trust.keys[name]):
            return name
    if trust.unsigned:
        return ""
    if known:
        raise Disbelieved(f"its signature is not that of {known[0][0]}")
    if signatures:
        raise Disbelieved("no key of the config belongs to who signed it")
    raise Disbelieved("nobody signed it")


def _signed_bytes(payload: bytes) -> bytes:
    """Return the pre-authentication encoding of DSSE: what is signed."""
    kind = _TYPE.encode("ascii")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _decoded(payload: bytes) -> RemoteRecord:
    found = decoding.fields(
        decoding.parse(payload),
        format=decoding.integer(_FORMAT, _FORMAT),
        issuer=decoding.text,
        origin=decoding.text,
        raw=decoding.listed(decoding.integer(1, _LARGEST_VENV)),
        snapshot=decoding.text,
    )
    snapshot = decode_snapshot(found["snapshot"].encode("utf-8", "surrogateescape"))
    return RemoteRecord(snapshot, found["raw"], found["issuer"], found["origin"])


def _check(record: RemoteRecord, trust: Trust, *, key: str, place: str | None) -> None:
    """Raise Disbelieved unless a record answers what was asked, and agrees with itself."""
    snapshot = record.snapshot
    is_asked = snapshot.key.digest == key and snapshot.place == place
    if not is_asked or not is_honest(snapshot, snapshot_id(key, place)):
        raise Disbelieved("it is the record of another snapshot")
    if snapshot.created < trust.not_before:
        raise Disbelieved("it is older than store.remote.not_before allows")
    if len(set(snapshot.trees)) != len(snapshot.trees) or len(record.raw) != len(snapshot.trees):
        raise Disbelieved("its trees are not each there once, with a size")
    if sum(record.raw) > _LARGEST_VENV:
        raise Disbelieved("no venv is as large as it says")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(decoding.text(value), validate=True)
    except ValueError as error:
        raise decoding.unlike(value, "base64") from error
