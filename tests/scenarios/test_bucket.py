"""A fleet on a real S3 server: machines that share nothing but a bucket, and what their credentials allow."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from object_storage import BUCKET, Bucket, seaweedfs
from obstore.exceptions import PermissionDeniedError
from radosgw import radosgw
from scenario import BESIDE, Machine, Project, Run

from venvflow.errors import EnvironmentFailure
from venvflow.flow import load
from venvflow.model import RemoteKeep, Snapshot
from venvflow.pure.expiry import WantedRecords
from venvflow.pure.keys import make_key, snapshot_id
from venvflow.pure.parcels import parcel_path
from venvflow.pure.records import RemoteRecord, encode_record, record_path
from venvflow.pure.signing import encode_secret, public_of, secret_key
from venvflow.state.remote import Remote, using
from venvflow.state.remote_contents import look_into
from venvflow.steps.trim_remote import trim_remote

SECRET = encode_secret(os.urandom(32))


@pytest.fixture(scope="module", params=["seaweedfs", pytest.param("radosgw", marks=pytest.mark.long)])
def bucket(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """Give a bucket on a server that runs for the tests of this file."""
    server = {"seaweedfs": seaweedfs, "radosgw": radosgw}[request.param]
    with server(tmp_path_factory.mktemp("bucket") / request.param) as found:
        yield found


class Host:
    """One machine of a fleet: the same project in a checkout of its own, with its own store and rights."""

    def __init__(self, machine: Machine, bucket: Bucket, name: str, who: str, prefix: str) -> None:
        remote: dict[str, Any] = {
            "url": f"s3://{BUCKET}/{prefix}", "endpoint": bucket.endpoint, "region": "us-east-1",
            "mode": "write", "keys": {"main-2026": public_of(secret_key(SECRET))},
        }  # fmt: skip
        store = {"path": str(machine.root / f"store-{name}"), "remote": remote}
        self.project: Project = machine.project(name, {"api": {}, "web": {}}, store=store)
        self.environ = bucket.environ(who)
        if who == "writer":
            self.environ["VENVFLOW_SIGNING_KEY"] = SECRET
        self.environ["VENVFLOW_STORE"] = str(machine.root / f"store-{name}")

    def doit(self, *words: str) -> Run:
        """Run doit on this machine."""
        return self.project.doit(*words, env=self.environ)

    def answer(self, *words: str, code: int = 0) -> Any:
        """Return what a command answers here, as JSON."""
        run = self.project.run([os.path.join(BESIDE, "venvflow"), *words, "--json"], env=self.environ)
        assert run.code == code, run.text
        return json.loads(run.out)


def test_one_machine_builds_and_the_others_pull(machine: Machine, bucket: Bucket) -> None:
    """Nothing is built twice; a reader pulls and cannot push; a run with nothing to do pushes nothing."""
    writer = Host(machine, bucket, "ci", "writer", "one")
    reader = Host(machine, bucket, "laptop", "reader", "one")
    for host in (writer, reader):
        host.project.lock("api", machine.wheel("alpha"), machine.wheel("beta"))
        host.project.lock("web", machine.wheel("alpha"))
    first = writer.doit()
    assert first.did["push"].startswith("pushed 2 of 2")
    assert writer.doit().nothing_to_do

    pulled = reader.doit()
    assert "build-venv:api" not in pulled.did
    assert f"from s3://{BUCKET}/one, signed by main-2026" in pulled.did["restore:api"]
    assert reader.project.output("api", "alpha") == "1.0"
    assert "push" not in reader.doit("list", "-q").out.split()

    reader.environ["VENVFLOW_SIGNING_KEY"] = SECRET  # the key alone does not help: the bucket refuses
    reader.project.lock("web", machine.wheel("beta"))
    refused = reader.doit()
    assert refused.code == 0
    assert "1 of 1 venv not pushed" in refused.warnings
    assert "403" in refused.warnings


def test_wrong_credentials_are_told_and_hinder_nobody(machine: Machine, bucket: Bucket) -> None:
    """A real server answers 403: doit builds, with one warning; doctor says what it is."""
    host = Host(machine, bucket, "stranger", "reader", "three")
    host.environ |= {"AWS_SECRET_ACCESS_KEY": "wr0ng-s3cret"}
    for name in ("api", "web"):
        host.project.lock(name, machine.wheel("alpha"))
    run = host.doit()
    assert run.text.count("the credentials do not allow it (403") == 1
    assert run.did["build-venv:api"].startswith("built")
    words = [os.path.join(BESIDE, "venvflow"), "doctor", "--json"]
    checks = json.loads(host.project.run(words, env=host.environ).out)["checks"]
    found = {each["name"]: each["verdict"] for each in checks if each["name"].startswith("remote")}
    assert (found["remote-credentials"], found["remote-answers"], found["remote-clock"]) == (
        "ok",
        "fail",
        "ok",
    )
    written = (path for path in machine.root.rglob("*") if path.is_file() and not path.is_symlink())
    assert not [path for path in written if b"wr0ng-s3cret" in path.read_bytes()]


def test_a_changed_package_costs_its_own_tree(machine: Machine, bucket: Bucket) -> None:
    """Trees that the bucket has are not sent again, nor fetched by who has them."""
    writer = Host(machine, bucket, "ci", "writer", "two")
    other = Host(machine, bucket, "laptop", "reader", "two")
    for host in (writer, other):
        host.project.lock("api", machine.wheel("alpha"), machine.wheel("beta"))
        host.project.lock("web", machine.wheel("alpha"))
    writer.doit()
    other.doit("api")
    store = bucket.store("writer")
    before = {each["path"] for page in store.list("two") for each in page}
    for host in (writer, other):
        host.project.lock("api", machine.wheel("alpha"), machine.wheel("beta", "2.0"))
    writer.doit()
    new = {each["path"] for page in store.list("two") for each in page} - before
    assert sorted(path.split("/")[2] for path in new if path.split("/")[2] == "records") == ["records"]
    assert (
        1 <= len([path for path in new if path.split("/")[2] == "trees"]) <= 2
    )  # beta, and bin/ that names it
    assert "from s3://" in other.doit("api").did["restore:api"]


def test_a_reader_cannot_poison(bucket: Bucket, tmp_path: Path) -> None:
    """What the page on trust says of credentials is so: no write below any prefix, and no deletion."""
    del tmp_path
    reader = bucket.store("reader")
    for path in ("one/v1/trees/00/0", "one/v1/records/00/0", "elsewhere"):
        with pytest.raises(PermissionDeniedError):
            reader.put(path, b"x")
    with pytest.raises(Exception):  # noqa: B017, PT011 - obstore does not say which
        reader.delete("one/v1/format")


def keeping(host: Host, **keep: int) -> Remote:
    """Return the remote of a machine, with a policy that no config can have: of seconds."""
    config = load(str(host.project.root), {**host.project.machine.environ, **host.environ}).config
    remote = config.store.remote
    assert remote is not None
    environ = {**os.environ, **host.environ}
    return Remote(replace(remote, keep=RemoteKeep(**keep)), environ, config.store.path)


def test_a_bucket_is_looked_after(machine: Machine, bucket: Bucket) -> None:
    """Damage is found and sent anew; what nobody wants goes in three trims, and only by who may delete."""
    writer = Host(machine, bucket, "keeper", "writer", "three")
    writer.project.lock("api", machine.wheel("alpha"))
    writer.project.lock("web", machine.wheel("alpha"))
    assert writer.doit("api", "push").did["push"].startswith("pushed 1 of")
    listed = writer.answer("list", "--remote")
    (record,) = listed["records"]
    assert (record["believed"], record["missing"], record["issuer"]) == (True, [], "main-2026")
    assert listed["size"] == record["size"] > 0

    store = bucket.store("writer")
    path = max((each["size"], each["path"]) for page in store.list("three/v1/trees") for each in page)[1]
    data = bytes(store.get(path).bytes())
    store.put(path, data[:-1] + bytes([data[-1] ^ 1]))
    (finding,) = writer.answer("verify", "--remote", code=1)["findings"]
    assert (finding["kind"], finding["id"]) == ("parcel damaged", path.rpartition("/")[2])
    assert writer.answer("verify", "--remote", "--heal")["left"] == 0
    assert bytes(store.get(path).bytes()) == data
    assert writer.answer("trim", "--remote")["drop"] == []  # it is what the venv is now

    refused = keeping(Host(machine, bucket, "reader", "reader", "three"), max_age=1, grace=1)
    with pytest.raises(EnvironmentFailure, match="403"):
        trim_remote(refused, WantedRecords(), now=time.time())
    refused.close()
    remote = keeping(writer, max_age=1, grace=1)
    done = []
    for _ in range(3):
        time.sleep(2.1)  # times are whole seconds there
        done.append(trim_remote(remote, WantedRecords(), now=0))
    remote.close()
    assert [len(each.plan.drop) for each in done] == [1, 0, 0]
    assert sum(each.deleted or 0 for each in done) == record["trees"]
    left = {each["path"] for page in store.list("three") for each in page}
    assert left == {"three/v1/format"}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_bucket_of_thousands_of_snapshots(machine: Machine, bucket: Bucket) -> None:
    """Lists have several pages, each of which counts; nothing is left but what a record needs."""
    writer = Host(machine, bucket, "many", "writer", "four")
    remote = keeping(writer, max_age=100_000, grace=1)
    store = bucket.store("writer")
    trees = [f"{number:064x}" for number in range(2500)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda tree: store.put(f"four/{parcel_path(tree)}", b"x"), trees))
        made = [_record(number, trees[number : number + 3]) for number in range(2400)]
        list(pool.map(lambda each: store.put(f"four/{each[0]}", each[1]), made))
    with using(remote, "") as channel:
        contents = look_into(remote, channel)
    assert (len(contents.records), len(contents.parcels)) == (2400, 2500)
    needed = {tree for record in contents.records.values() for tree in record.trees or ()}
    assert len(needed) == 2402
    done = []
    for _ in range(2):
        time.sleep(2.1)
        done.append(trim_remote(remote, WantedRecords(), now=0))
    assert [each.deleted for each in done] == [0, 98]
    with using(remote, "") as channel:
        assert {*look_into(remote, channel).parcels} == needed
    remote.close()


def _record(number: int, trees: list[str]) -> tuple[str, bytes]:
    """Return path and bytes of a record that is signed, of a snapshot that nobody has."""
    key = make_key({"format": "1", "python": str(number)})
    made = Snapshot(
        snapshot_id(key.digest, None), key, tuple(trees), None, "api", time.time(), "", "", "3.12.4", 3, 3
    )
    data = encode_record(RemoteRecord(made, (1, 1, 1), "main-2026"), secret_key(SECRET))
    return record_path(made.id), data
