"""One real record of each kind, as the product writes it, with its decoder: for tests that are cruel to them.

*sign* gives a changed body the name or the checksum that goes with it, as somebody who means harm would.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contents import name_of

from venvflow.disk.objects import MtimeMode
from venvflow.disk.places import RECEIPT, decode_receipt, write_receipt
from venvflow.model import (
    INSTALLER_NOTE,
    Config,
    Entry,
    Interpreter,
    PackOptions,
    Receipt,
    Saved,
    Slot,
    Snapshot,
    StoreConfig,
    TrimPolicy,
    VenvSpec,
)
from venvflow.pure.expiry import decode_mark, encode_mark
from venvflow.pure.keys import make_key
from venvflow.pure.manifest import (
    decode_objects,
    decode_snapshot,
    decode_tree,
    encode_snapshot,
    encode_tree,
    make_tree,
)
from venvflow.pure.retention import Usage
from venvflow.state import registry
from venvflow.state.file_stats import decode_head, decode_stats, stats_of, write_stats
from venvflow.state.holds import VenvHolds, decode_holder
from venvflow.state.registry import Registration, decode_registration
from venvflow.state.store import Store
from venvflow.state.sweeping import LastSweep, decode_last_sweep
from venvflow.steps import state_files as records
from venvflow.steps.job import Job

A, B, C = (letter * 64 for letter in "abc")
SITE = "lib/python3.12/site-packages"
KEY = make_key({"python": "cpython 3.12.4", "abi": "cpython-312", "lock:requirements ☃\udcff.txt": A})
TREE = make_tree(
    "six",
    "1.17.0",
    [
        Entry("bin/six", "template", A, True, 120, "", (Slot(0, "venv", "shebang", "bin/python"),)),
        Entry("bin/python", "link", slots=(Slot(0, "python", "raw"),)),
        Entry(f"{SITE}/six.py", "file", B, False, 34703),
        Entry(f"{SITE}/six.dist-info/RECORD", "template", C, size=9, slots=(Slot(9, "file", "record", "x"),)),
        Entry(f"{SITE}/odd/na me\n\udcff☃", "file", B, True, 0),
        Entry(f"{SITE}/odd/empty", "dir"),
    ],
)  # fmt: skip
SNAPSHOT = Snapshot(
    KEY.digest, KEY, (TREE.digest, A), None, "api", 1_700_000_000.25, "host", "doit", "3.12.4", 3, 99,
    ("demo needs more\0",), {"lock:r.txt": {"six\ud800": "1.17.0\0"}},
    {f"{SITE}/six{INSTALLER_NOTE}": A}, ("build\udcff",), "/src/p",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of record: *decode* takes bytes that *sign* made of a body, *paths* are all that it may name.

    *name* is that of the decoder, *type* that of what it returns. *digests* are the names of what it lists.
    """

    name: str
    type: type
    body: bytes
    decode: Callable[[bytes], Any]
    sign: Callable[[bytes], bytes] = bytes
    paths: Callable[[Any], Any] = lambda _: ()
    digests: Callable[[Any], Any] = lambda _: ()


def _job(root: Path) -> Job:
    spec = VenvSpec(
        "api", f"{root}/api/.venv", (f"{root}/r.txt",), check=("-c", "pass"),
        pack=PackOptions(f"{root}/dist", name="{venv}"),
    )  # fmt: skip
    config = Config(f"{root}/v.yaml", str(root), StoreConfig(f"{root}/store"), TrimPolicy(), {"api": spec})
    return Job(config, spec, {}, time.time)


def _named(decode: Callable[[str, bytes], Any]) -> Callable[[bytes], Any]:
    """Return what decodes bytes under the name that they should have."""
    return lambda data: decode(hashlib.sha256(data).hexdigest(), data)


def _with_checksum_behind(body: bytes) -> bytes:
    return body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n"


def kinds(root: Path) -> dict[str, Kind]:
    """Return all kinds of records, by the names of their decoders, after letting the product write each."""
    job = _job(root)
    (root / "dist").mkdir(parents=True)
    (root / "dist" / "api.tar.zst").touch()
    record = records.KeyRecord(
        KEY, Interpreter("/usr/bin/python3.12", "/usr/bin", "cpython", "3.12.4", "a", "linux", "t", "magic"),
        {f"{root}/r.txt": records.InputFile("lock:r.txt", B)}, A, ("demo is not pinned\0\ud800",),
    )  # fmt: skip
    records.write_key(job, record)
    records.write_answer(job, record, hit=True, reason="\0\ud800")
    records.write_excluded(job, KEY.digest, [Saved("*.h", 1, 100)])
    records.write_pack(
        job, KEY.digest, [TREE.digest], job.spec.pack or PackOptions(""), f"{root}/dist/api.tar.zst"
    )
    venv = root / "api" / ".venv"
    venv.mkdir(parents=True)
    receipt = Receipt(
        KEY.digest, str(venv), "shared", "built", "/usr/bin/python3.12", (TREE.digest,), True, "hardlink", A,
        "", ("demo needs\0 more",), {"": 0o640, "bin/six": 0o755}, {"bin/six": 5}, {f"{SITE}/six.py": B}, 77,
        ("/srv/x",), "copy; 1", (f"{SITE}/six.pyi",), "AAAABBBB",
        {f"{SITE}/odd": 315_532_800_000_000_000, "bin": 7},
    )  # fmt: skip
    write_receipt(str(venv), receipt)
    with Store(StoreConfig(f"{root}/store", durability="none")) as store:
        registration = Registration(
            str(venv), str(root), "api", KEY.digest, "api", "symlink", (TREE.digest,), 12, 5.5
        )  # fmt: skip
        registry.add(store.layout, registration)
        (registered,) = Path(store.path, "venvs").iterdir()
        store.hold(VenvHolds(str(root), "api", str(venv), "/", True, {KEY.digest: Usage(7, 5.5)}))
        (holds,) = Path(store.path, "holds").iterdir()
        write_stats(
            f"{root}/.stats",
            store.path,
            {TREE.digest: stats_of(TREE.entries, {name_of(b""): MtimeMode(5, 0o644)})},
        )
    state = root / ".venvflow" / "api"
    _, head, looks = (root / ".stats").read_bytes().split(b"\n")
    snapshot = encode_snapshot(SNAPSHOT).rpartition(b"}")[0] + b"}"
    settled = json.dumps(LastSweep(A, B, 99, {KEY.digest: 7})._asdict()).encode()
    pushed = json.dumps(records.PushNote(A, "s3://bucket/prefix", 1_800_000_000.0)._asdict()).encode()
    pulled = json.dumps(records.PullNote(A, "s3://bucket", "no snapshot", 5.5)._asdict()).encode()
    trimmed = records.encode_trims({"TrimPolicy()": records.TrimNote(5.5, 7)})
    found = [
        Kind(
            "decode_receipt", Receipt, (venv / RECEIPT).read_bytes(), decode_receipt,
            paths=lambda it: [*it.directories, *it.private, *(it.modes.keys() - {"", "/"})],
            digests=lambda it: [*it.trees, *it.private.values()],
        ),
        Kind(
            "decode_registration", Registration, registered.read_bytes(), decode_registration,
            paths=lambda it: [it.name or "none"], digests=lambda it: [*it.trees],
        ),
        Kind(
            "decode_holder", VenvHolds, holds.read_bytes(), decode_holder,
            paths=lambda it: [it.name], digests=lambda it: [*it.held],
        ),
        Kind("decode_key", records.KeyRecord, (state / "key.json").read_bytes(), records.decode_key,
             digests=lambda it: [it.key.digest, it.fingerprint]),
        Kind("decode_answer", records.Answer, (state / "restore.json").read_bytes(), records.decode_answer,
             digests=lambda it: [it.key, it.unfit or A]),
        Kind("decode_excluded", records.Excluded, (state / "excluded.json").read_bytes(),
             records.decode_excluded,
             digests=lambda it: [it.key]),
        Kind("decode_pack", records.PackNote, (state / "pack.json").read_bytes(), records.decode_pack,
             digests=lambda it: [it.key, *it.inputs.trees]),
        Kind("decode_push", records.PushNote, pushed, records.decode_push, digests=lambda it: [it.snapshot]),
        Kind("decode_pull", records.PullNote, pulled, records.decode_pull, digests=lambda it: [it.key]),
        Kind("decode_mark", tuple, encode_mark([A]).strip(), decode_mark, digests=lambda it: [*it]),
        Kind("decode_trims", dict, trimmed, records.decode_trims),
        Kind("decode_last_sweep", LastSweep, settled, decode_last_sweep, digests=lambda it: [*it.own]),
        Kind("decode_head", tuple, head, decode_head, digests=lambda it: [*it.trees]),
        Kind(
            "decode_stats", tuple, looks, decode_stats,
            paths=lambda it: [*it.paths, *filter(None, it.objects)],
        ),
        Kind(
            "decode_tree", type(TREE), encode_tree(TREE), _named(decode_tree),
            paths=lambda it: [entry.path for entry in it.entries],
            digests=lambda it: [entry.digest for entry in it.entries if entry.kind in ("file", "template")],
        ),
        Kind("decode_objects", list, encode_tree(TREE), _named(decode_objects),
             digests=lambda it: [digest for digest, _, _ in it]),
        Kind("decode_snapshot", Snapshot, snapshot, decode_snapshot, _with_checksum_behind,
             paths=lambda it: [*it.notes], digests=lambda it: [it.id, it.key.digest, *it.trees]),
    ]  # fmt: skip
    return {kind.name: kind for kind in found}
