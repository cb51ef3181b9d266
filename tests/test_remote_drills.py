"""What somebody who can write a bucket, or whose signature is believed, may try; and runs that meet there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cli_project import command
from hostile_server import serving
from test_remote import SECRET, Fleet, fleet

from venvflow.disk.remote.channel import Channel
from venvflow.disk.remote.parcels import write_parcel
from venvflow.model import Entry, Snapshot, Tree
from venvflow.pure.manifest import encode_tree, make_tree
from venvflow.pure.parcels import announced_size, parcel_path, pieces_of
from venvflow.pure.records import LARGEST, RemoteRecord, encode_record, record_path
from venvflow.pure.signing import secret_key
from venvflow.state import remote as remotes
from venvflow.state.reader import open_reader
from venvflow.state.remote import boot_seconds

__all__ = ["fleet"]


def first_of(fleet: Fleet) -> tuple[Snapshot, list[Tree]]:
    """Return the snapshot of the store with its trees."""
    store = fleet.project.store
    from venvflow.model import StoreConfig

    with open_reader(StoreConfig(str(store))) as reader:
        assert reader is not None
        (identifier,) = reader.snapshot_ids()
        snapshot = reader.snapshot(identifier)
        assert snapshot is not None
        return snapshot, [reader.tree(digest) for digest in snapshot.trees]


def put(fleet: Fleet, tree: Tree) -> int:
    """Put the parcel of a tree of empty files into the bucket, and return its plain size."""
    path = fleet.bucket / parcel_path(tree.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = encode_tree(tree)
    with open(path, "wb") as file:
        write_parcel(file, encoded, pieces_of(tree), str)
    return announced_size(tree, len(encoded))


def sign(fleet: Fleet, snapshot: Snapshot, raw: list[int]) -> None:
    """Put a record into the bucket that our key has signed."""
    path = fleet.bucket / record_path(snapshot.id)
    path.write_bytes(encode_record(RemoteRecord(snapshot, tuple(raw), "main-2026"), secret_key(SECRET)))


def empty(path: str) -> Entry:
    """Return an empty file of a tree."""
    return Entry(path, "file", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", size=0)


def signed_anew(change: Callable[[list[Tree]], list[Tree]], *, lie: int = 0) -> Callable[[Fleet], None]:
    """Return what signs a record with a tree more, which *change* makes of all; sizes are off by *lie*."""

    def do(fleet: Fleet) -> None:
        snapshot, trees = first_of(fleet)
        more = change(trees)
        sizes = [announced_size(tree, len(encode_tree(tree))) for tree in trees]
        sizes += [put(fleet, tree) for tree in more]
        digests = tuple(tree.digest for tree in (*trees, *more))
        sign(fleet, replace(snapshot, trees=digests), [sizes[0] + lie, *sizes[1:]])

    return do


def a_path_of(trees: list[Tree]) -> str:
    """Return the path of a file that a tree has."""
    return next(entry.path for tree in trees for entry in tree.entries if entry.kind == "file")


def large_record(fleet: Fleet) -> None:
    """Put 2 MiB in the place of the record."""
    fleet.record().write_bytes(fleet.record().read_bytes() + b" " * (2 * LARGEST))


SIGNED: dict[str, Callable[[Fleet], None]] = {
    "a path in two trees": signed_anew(lambda trees: [make_tree("evil", "1", [empty(a_path_of(trees))])]),
    "a file where another tree has a directory": signed_anew(
        lambda trees: [make_tree("evil", "1", [empty(os.path.dirname(a_path_of(trees)))])]
    ),
    "a link out of the venv, and a file behind it": signed_anew(
        lambda _: [
            make_tree("evil", "1", [Entry("lib/out", "link", target="/tmp"), empty("lib/out/x")])  # noqa: S108
        ]
    ),
    "a size that is wrong": signed_anew(lambda _: [], lie=1),
    "a record of 2 MiB": large_record,
}


@pytest.mark.parametrize("drill", SIGNED)
def test_what_a_believed_key_signed_must_still_be_sane(fleet: Fleet, drill: str) -> None:
    """It is a miss, nothing is published or made, and the remote is as good as before for all else."""
    fleet.pushed()
    SIGNED[drill](fleet)
    store = fleet.elsewhere()
    answer = fleet.run("restore", "api")
    assert answer.code == 1, answer.out
    assert not (fleet.project.root / "api/.venv").exists()
    assert not [*(store / "snapshots").glob("*")]
    assert "warning" in answer.err
    assert "cannot be used" not in answer.err
    assert fleet.run("verify").code == 0


def test_two_pushers_of_the_same_venv_leave_one_record(fleet: Fleet) -> None:
    """At the same time: both end well, and who pulls gets a whole one."""
    pushers = [
        subprocess.Popen(
            [*command(), "push", "api", "--json"], cwd=fleet.project.root, text=True,
            env={**os.environ, "VENVFLOW_STORE": store}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for store in map(str, two_stores(fleet))
    ]  # fmt: skip
    for pusher in pushers:
        out, err = pusher.communicate(timeout=60)
        assert pusher.returncode == 0, err
        assert json.loads(out)["venvs"][0]["did"] in ("pushed", "kept")
    fleet.record()  # there is one
    fleet.elsewhere("third")
    assert fleet.run("restore", "api").code == 0
    assert fleet.run("verify").code == 0


def two_stores(fleet: Fleet) -> list[Path]:
    """Return two stores that have the snapshot; one of them is that of the project."""
    fleet.pushed()
    other = fleet.elsewhere()
    assert fleet.run("pull", "api").code == 0
    fleet.monkeypatch.delenv("VENVFLOW_STORE")
    for path in sorted(fleet.bucket.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    return [fleet.project.store, other]


def wait_until(holds: Callable[[], object]) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "what the test waited for did not come"
        time.sleep(0.02)


def is_running(process: str) -> bool:
    """Return whether a process is there, and not only waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_run_that_waits_for_a_silent_server_ends_at_once_when_asked(fleet: Fleet) -> None:
    """By Ctrl-C: with 130, in a moment, and the process that talks to the server is gone, too."""
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        pytest.skip("this kernel does not tell which processes a process has started")
    fleet.elsewhere()
    with serving("silent") as url:
        fleet.configure("    silence: 60s\n", f"{url}/bucket")
        fleet.read_only()
        run = subprocess.Popen(
            [*command(), "restore", "api"], cwd=fleet.project.root, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ},
        )  # fmt: skip
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
        wait_until(children.read_text)
        found = children.read_text().split()
        time.sleep(0.3)
        os.kill(run.pid, signal.SIGINT)
        begun = time.monotonic()
        run.communicate(timeout=20)
        assert run.returncode == 130
        assert time.monotonic() - begun < 15  # and not the minute of silence
    wait_until(lambda: not any(is_running(child) for child in found))
    assert not (fleet.project.root / "api/.venv").exists()


UNREACHABLE = {
    "a name that nobody has": "https://nothing.invalid/bucket",
    "a port where nobody listens": "http://127.0.0.1:1/bucket",
    "a server that knows no TLS": "https{}/bucket",
}


@pytest.mark.parametrize("how", UNREACHABLE)
def test_what_cannot_be_reached_is_asked_once_a_minute_by_all_runs(fleet: Fleet, how: str) -> None:
    """The first run says so; the next ones miss at once, without a word; after a minute one asks again."""
    fleet.elsewhere()
    with serving("500") as url:
        fleet.configure("    silence: 2s\n", UNREACHABLE[how].format(url.removeprefix("http")))
        fleet.read_only()
        first = fleet.run("restore", "api")
        assert first.code == 1
        assert first.err.count("cannot be used") == 1
        with fleet.monkeypatch.context() as forbidden:
            forbidden.setattr(Channel, "ask", None)  # no run may start a process for it
            again = fleet.run("restore", "api")
        assert (again.code, again.err) == (1, "")
        assert re.search(
            r"remote: it could not be reached a moment ago, and is asked again in \d+ s", again.out
        )
        fleet.monkeypatch.setattr(remotes, "boot_seconds", lambda: boot_seconds() + 61)
        assert fleet.run("restore", "api").err.count("cannot be used") == 1


def test_who_has_put_the_server_right_need_not_wait(fleet: Fleet) -> None:
    """Another endpoint is another server, although the bucket has the same name."""
    fleet.elsewhere()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        fleet.monkeypatch.setenv(name, "x")
    with serving("404") as url:
        for endpoint, said in (("http://127.0.0.1:1", "cannot be used"), (url, "no snapshot for this key (")):
            fleet.configure(f"    endpoint: {endpoint}\n    region: auto\n", "s3://bucket/prefix")
            fleet.read_only()
            assert said in fleet.run("restore", "api").out


def test_what_takes_longer_than_the_limit_is_given_up(fleet: Fleet) -> None:
    """However lively the server is: here it is only silent for less than ``silence``."""
    fleet.elsewhere()
    with serving("silent") as url:
        fleet.configure("    limit: 1s\n    silence: 60s\n", f"{url}/bucket")
        fleet.read_only()
        answer = fleet.run("restore", "api")
    assert answer.code == 1
    assert "it took longer than" in answer.err


def test_a_push_that_was_killed_is_seen_by_nobody(fleet: Fleet) -> None:
    """Parcels without a record are no snapshot; the next push goes on with them."""
    fleet.pushed()
    fleet.record().unlink()
    fleet.elsewhere()
    assert "no snapshot for this key" in fleet.run("restore", "api").out
    fleet.monkeypatch.delenv("VENVFLOW_STORE")
    pushed = fleet.run("push", "api", "--json").record
    assert (pushed["did"], pushed["figures"]["bytes"]) == ("pushed", 0)


@pytest.mark.slow
def test_threads_of_doit_share_one_way_to_the_remote(fleet: Fleet) -> None:
    """``doit -n 2``: one asks after the other, and each gets its own answer. Processes are refused."""
    text = fleet.project.config.read_text()
    fleet.project.config.write_text(f"{text}  web: {{path: web/.venv, locks: [web/requirements.txt]}}\n")
    (fleet.project.root / "dodo.py").write_text("from venvflow.tasks import *\n")
    words = [str(Path(command()[0]).parent / "doit"), "-n", "2"]
    said = []
    for store in ("store", "other"):
        environ = {**os.environ, "VENVFLOW_STORE": str(fleet.project.root.parent / store)}
        done = subprocess.run(
            words,
            cwd=fleet.project.root,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
        for name in ("api", "web"):
            shutil.rmtree(fleet.project.root / name / ".venv")
    assert "push  pushed 2 of 2 snapshots" in said[0]
    assert "build-venv" not in said[1]
    assert len([line for line in said[1].splitlines() if "signed by main-2026" in line]) == 2
