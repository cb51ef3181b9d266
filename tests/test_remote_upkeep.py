"""A remote is listed, verified and trimmed: on a directory, whose files are made as old as a test needs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hostile_server import serving
from test_remote import SECRET, Fleet, fleet

from venvflow.pure.expiry import encode_mark
from venvflow.pure.signing import encode_secret, public_of, secret_key

__all__ = ["fleet"]

DAY = 86_400


def age(path: Path, days: float) -> None:
    """Let a file of the remote have been written so many days ago."""
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def age_all(fleet: Fleet, days: float) -> None:
    """Let everything in the remote have been written so many days ago."""
    for path in fleet.bucket.rglob("*"):
        if path.is_file():
            age(path, days)


def forsake(fleet: Fleet) -> None:
    """Let no venv of the config want what is in the remote."""
    text = fleet.project.config.read_text()
    fleet.project.config.write_text(text.replace("  api: {path", "  other: {path"))
    lock = fleet.project.root / "api/requirements.txt"
    lock.write_bytes((fleet.project.root / "web/requirements.txt").read_bytes())


def marks(fleet: Fleet, kind: str = "*") -> list[Path]:
    """Return the marks in the remote."""
    return sorted((fleet.bucket / "v1/gc").glob(f"{kind}-*"))


# --------------------------------------------------------------------------- list


def test_list_says_who_signed_what_and_whether_it_is_believed(fleet: Fleet) -> None:
    """And what it lacks; a record that cannot be read is one, too."""
    fleet.pushed()
    (listed,) = fleet.run("list", "--remote", "--json").document["records"]
    assert (listed["venv"], listed["issuer"], listed["believed"]) == ("api", "main-2026", True)
    assert listed["size"] == listed["unique_size"] == sum(path.stat().st_size for path in fleet.parcels())
    lost = fleet.parcels()[0]
    lost.unlink()
    stranger = public_of(secret_key(encode_secret(os.urandom(32))))
    text = fleet.project.config.read_text()
    fleet.project.config.write_text(text.replace(public_of(secret_key(SECRET)), stranger))
    (listed,) = fleet.run("list", "--remote", "--json").document["records"]
    assert (listed["believed"], listed["missing"]) == (False, [lost.name])
    said = fleet.run("list", "--remote").out
    assert "not believed: its signature is not that of main-2026" in " ".join(said.split())
    fleet.record().write_text("{}")
    assert "it cannot be read" in " ".join(fleet.run("list", "--remote").out.split())
    assert fleet.run("list", "--remote", "--all").code == 2
    assert fleet.run("list", "nobody", "--remote").code == 2


@pytest.mark.parametrize("words", ["list --remote", "verify --remote", "trim --remote", "trim --remote -n"])
def test_a_remote_that_cannot_be_used_is_an_error(fleet: Fleet, words: str) -> None:
    """Also where there is none, or this run may not do so."""
    with serving("500") as url:
        fleet.configure(url=url)
        text = fleet.project.config.read_text().replace("mode: write", "mode: read")
        fleet.project.config.write_text(text)
        answer = fleet.run(*words.split())
        assert answer.code == 3
        assert ("may not write" if words == "trim --remote" else "cannot be used") in answer.err
    fleet.monkeypatch.setenv("VENVFLOW_REMOTE", "off")
    assert "there is no remote" in fleet.run(*words.split()).err


# --------------------------------------------------------------------------- verify


def test_verify_reads_all_and_heals_from_the_store(fleet: Fleet) -> None:
    """A flipped bit and a tree that is gone are named with who needs them; a good store sends them anew."""
    fleet.pushed()
    assert fleet.run("verify", "--remote").code == 0
    bad, gone = fleet.parcels()[:2]
    data = bad.read_bytes()
    bad.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    gone.unlink()
    answer = fleet.run("verify", "--remote", "--json")
    assert answer.code == 1
    found = {each["id"]: each for each in answer.document["findings"]}
    assert {name: each["kind"] for name, each in found.items()} == {
        bad.name: "parcel damaged",
        gone.name: "parcel missing",
    }
    assert found[bad.name]["needed_by"][0]["venv"] == "api"
    empty = fleet.elsewhere()
    fleet.run("pull", "api")
    assert "this store has not got it" in fleet.run("verify", "--remote", "--heal").out
    assert empty.exists()
    fleet.monkeypatch.delenv("VENVFLOW_STORE")
    assert fleet.run("verify", "--remote", "--heal").code == 0
    assert bad.read_bytes() == data
    assert gone.exists()
    sample = fleet.run("verify", "--remote", "--sample", "1", "--json").document
    assert (sample["parcels"], sample["left"]) == (1, 0)
    for words in ("--sample 1", "--remote --full", "--remote api", "--remote --sample 0"):
        assert fleet.run("verify", *words.split()).code == 2


def test_verify_does_not_care_for_what_a_stranger_names(fleet: Fleet) -> None:
    """Whoever may write could let it fail else; it says how many there are."""
    fleet.pushed()
    fleet.parcels()[0].unlink()
    assert fleet.run("verify", "--remote").code == 1
    envelope = json.loads(fleet.record().read_bytes())
    fleet.record().write_text(json.dumps({**envelope, "signatures": []}))
    answer = fleet.run("verify", "--remote", "--json")
    assert (answer.code, answer.document["disbelieved"], answer.document["parcels"]) == (0, 1, 0)


# --------------------------------------------------------------------------- trim


def test_trim_takes_what_nobody_uses_in_two_steps(fleet: Fleet) -> None:
    """The record at once, then its trees are condemned, and deleted a grace later."""
    fleet.pushed()
    trees = [path.name for path in fleet.parcels()]
    age_all(fleet, 40)
    kept = fleet.run("trim", "--remote", "--json").document
    assert [each["reasons"][0] for each in kept["keep"]] == ["current for api"]
    forsake(fleet)
    would = fleet.run("trim", "--remote", "--dry-run", "--json").document
    assert "max_age is 30 d" in would["drop"][0]["reason"]
    assert (would["deleted"], would["condemned"]) == (None, len(trees))
    assert fleet.record().exists()
    assert not marks(fleet)
    done = fleet.run("trim", "--remote", "--json").document
    assert (len(done["drop"]), done["condemned"], done["deleted"]) == (1, len(trees), 0)
    assert not list((fleet.bucket / "v1/records").glob("*/*"))
    assert [path.name for path in fleet.parcels()] == trees
    assert fleet.run("trim", "--remote", "--json").document["waiting"] == len(trees)
    (mark,) = marks(fleet)
    age(mark, 3)
    last = fleet.run("trim", "--remote")
    assert f"deleted {len(trees)} parcels" in last.out
    assert not fleet.parcels()
    assert not marks(fleet)


def test_trim_spares_what_was_sent_anew_or_is_needed_again(fleet: Fleet) -> None:
    """A mark says only that nobody needed them then."""
    fleet.pushed()
    needed = [path.name for path in fleet.parcels()]
    loose = fleet.bucket / f"v1/trees/{'0' * 2}/{'0' * 64}"
    loose.parent.mkdir()
    loose.write_bytes(b"x")
    age_all(fleet, 9)
    (fleet.bucket / "v1/gc").mkdir()
    mark = fleet.bucket / f"v1/gc/condemned-{'0' * 32}"
    mark.write_bytes(encode_mark([*needed, loose.name]))
    age(mark, 3)
    age(loose, 1)
    done = fleet.run("trim", "--remote", "--json").document
    assert (done["deleted"], done["condemned"]) == (0, 0)
    assert not marks(fleet)
    assert fleet.run("verify", "--remote").code == 0
    assert loose.exists()


def test_trim_touches_nothing_that_is_not_ours(fleet: Fleet) -> None:
    """It says that there is something; records of another form keep all trees."""
    fleet.pushed()
    strange = fleet.bucket / "v1/records/README"
    strange.write_text("hands off")
    beside = fleet.bucket.parent / "beside"
    beside.write_text("x")
    age_all(fleet, 100)
    forsake(fleet)
    answer = fleet.run("trim", "--remote")
    assert "not ours and stays, such as v1/records/README" in answer.err
    assert strange.exists()
    future = fleet.bucket / f"v1/records/ab/{'ab' * 32}"
    future.parent.mkdir(exist_ok=True)
    future.write_text(json.dumps({"payload": "e30=", "payloadType": "other", "signatures": []}))
    for mark in marks(fleet):
        age(mark, 5)
    done = fleet.run("trim", "--remote")
    assert "cannot be read" in done.err
    assert fleet.parcels()
    age(future, 100)
    assert fleet.run("trim", "--remote", "--json").document["condemned"]
    for mark in marks(fleet):
        age(mark, 5)
    assert fleet.run("trim", "--remote", "--json").document["deleted"]
    assert not fleet.parcels()


def test_trim_that_may_not_delete_does_nothing_by_half(fleet: Fleet) -> None:
    """It finds that out first."""
    fleet.pushed()
    age_all(fleet, 40)
    forsake(fleet)
    (fleet.bucket / "v1/gc").touch()  # so nothing can be made in it
    answer = fleet.run("trim", "--remote")
    assert answer.code == 3
    assert fleet.record().exists()


def test_a_trim_of_nothing_is_one(fleet: Fleet) -> None:
    """Of a remote to which nobody has pushed yet."""
    for words in ("list --remote", "verify --remote", "trim --remote", "trim --remote --dry-run"):
        answer = fleet.run(*words.split())
        assert answer.code == 0, answer.err
    assert not [path for path in fleet.bucket.rglob("*") if path.is_file()]
