"""A remote, on a directory: what one machine pushes another pulls, and nothing wrong gets in."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_project import Answer, Project, command
from hostile_server import serving
from mirrors import mirror

from venvflow.disk.remote.channel import Channel, ChannelFailure
from venvflow.errors import EnvironmentFailure
from venvflow.flow import load
from venvflow.model import Outcome, RemoteConfig, StoreConfig
from venvflow.pure import parcels
from venvflow.pure.expiry import encode_mark
from venvflow.pure.signing import encode_secret, public_of, secret_key
from venvflow.state import remote as remotes
from venvflow.state import remote_pull, remote_push
from venvflow.state.reader import StoreReader
from venvflow.state.remote import FORMAT, FORMAT_TEXT, Remote, RemoteDown
from venvflow.state.store import Store
from venvflow.steps import pull as pulls
from venvflow.steps import state_files
from venvflow.steps.doctor import remote as doctor_remote

SECRET = encode_secret(os.urandom(32))


@dataclass(frozen=True)
class Fleet:
    """A project whose store has the venv ``api``, and a remote that is empty."""

    project: Project
    bucket: Path
    monkeypatch: pytest.MonkeyPatch

    def configure(self, more: str = "", url: str = "") -> None:
        """Write the config anew, with the public key of SECRET and *more* keys of the remote."""
        text = self.project.config.read_text().partition("store:")[0] + "store:\n  path: ../store\n"
        text += f"  remote:\n    url: {url or f'file://{self.bucket}'}\n    mode: write\n"
        text += f'    keys: {{main-2026: "{public_of(secret_key(SECRET))}"}}\n{more}'
        self.project.config.write_text(
            f"{text}venvs:\n  api: {{path: api/.venv, locks: [api/requirements.txt]}}\n"
        )

    def read_only(self) -> None:
        """Let the config say that nothing is pushed."""
        config = self.project.config
        config.write_text(config.read_text().replace("mode: write", "mode: read"))

    def run(self, *words: str) -> Answer:
        """Run a command as another run does: it knows nothing of the ones before."""
        pulls.close_remotes()
        return self.project.run(*words)

    def elsewhere(self, name: str = "other") -> Path:
        """Go to a machine with an empty store, and return that."""
        store = self.project.root.parent / name
        self.monkeypatch.setenv("VENVFLOW_STORE", str(store))
        return store

    def pushed(self) -> None:
        """Push the stocked snapshot, from the machine that has it."""
        answer = self.run("push", "api")
        assert answer.code == 0, answer.err

    def parcels(self) -> list[Path]:
        """Return the parcels, largest first."""
        return sorted((self.bucket / "v1/trees").glob("*/*"), key=lambda path: -path.stat().st_size)

    def record(self) -> Path:
        """Return the only record."""
        (path,) = (self.bucket / "v1/records").glob("*/*")
        return path


@pytest.fixture
def fleet(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Give a project with a remote."""
    monkeypatch.setenv("VENVFLOW_SIGNING_KEY", SECRET)
    fleet = Fleet(project, tmp_path / "bucket", monkeypatch)
    fleet.configure()
    yield fleet
    pulls.close_remotes()


def test_what_is_pushed_is_pulled_elsewhere(fleet: Fleet) -> None:
    """Whole: restore is a hit there, says from where and signed by whom, and verify finds nothing."""
    fleet.pushed()
    store = fleet.elsewhere()
    hit = fleet.run("restore", "api")
    assert hit.code == 0
    assert f"from file://{fleet.bucket}, signed by main-2026" in hit.out
    assert fleet.run("verify").code == 0
    assert subprocess.run([fleet.project.root / "api/.venv/bin/demo"], check=False).returncode == 0
    assert {path.name for path in (store / "trees").glob("*/*")} >= {
        path.name[2:] for path in fleet.parcels()
    }


@pytest.mark.parametrize(("processors", "connections", "readers"), [(1, 16, 1), (2, 16, 2), (2, 1, 1)])
def test_large_parcels_are_read_by_as_many_processes_as_there_are_processors(
    fleet: Fleet, processors: int, connections: int, readers: int
) -> None:
    """And connections. Each brings its share, all end with the run; checks of a remote read as pulls do."""
    fleet.configure(f"    connections: {connections}\n")
    fleet.pushed()
    fleet.elsewhere()
    fleet.monkeypatch.setattr(parcels, "_SHARE", 1)
    fleet.monkeypatch.setattr(remotes, "cores", lambda: processors)
    started = count_starts(fleet.monkeypatch)
    assert fleet.run("pull", "api").code == 0
    assert len(started) == readers
    assert fleet.run("verify").code == 0
    checked = fleet.run("verify", "--remote")
    assert checked.code == 0
    assert f"{len(fleet.parcels())} parcels" in checked.out
    assert len(started) == 2 * readers
    pulls.close_remotes()
    assert all(child.poll() is not None for child in started)


def count_starts(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Return a list that gets each process that is started to talk to a remote."""
    started: list[subprocess.Popen[bytes]] = []
    start = Channel._start

    def starting(channel: Channel) -> None:
        start(channel)
        assert channel._child is not None
        started.append(channel._child)

    monkeypatch.setattr(Channel, "_start", starting)
    return started


@pytest.mark.parametrize("which", [0, 1])
def test_one_process_that_is_killed_ends_the_pull_and_the_next_one_goes_on(fleet: Fleet, which: int) -> None:
    """It is a miss with its reason; no process stays, and the store has nothing half."""
    fleet.pushed()
    fleet.elsewhere()
    fleet.monkeypatch.setattr(parcels, "_SHARE", 1)
    fleet.monkeypatch.setattr(remotes, "cores", lambda: 2)
    started = count_starts(fleet.monkeypatch)
    send = Channel.send

    def killing(channel: Channel, request: Mapping[str, Any]) -> None:
        send(channel, request)
        if request["do"] == "pull" and len(started) == which + 1:
            os.kill(started[which].pid, signal.SIGKILL)

    with fleet.monkeypatch.context() as patch:
        patch.setattr(Channel, "send", killing)
        missed = fleet.run("pull", "api")
    assert "ended by itself, with status -9" in missed.err
    assert "miss" in missed.out
    assert all(child.poll() is not None for child in started)
    assert fleet.run("verify").code == 0
    assert "pulled" in fleet.run("pull", "api").out


def test_what_two_venvs_of_a_run_share_is_fetched_once(fleet: Fleet) -> None:
    """Though both knew what they lack before one of them began: threads of a run pull at the same time."""
    config = fleet.project.config
    config.write_text(f"{config.read_text()}  web: {{path: web/.venv, locks: [web/requirements.txt]}}\n")
    fleet.pushed()
    assert [fleet.run(verb, "web").code for verb in ("build", "push")] == [0, 0]
    fleet.elsewhere()
    pulls.close_remotes()
    flow = load(str(fleet.project.root), os.environ)
    both, find = threading.Barrier(2), Remote.find

    def finding(remote: Remote, *words: Any) -> Any:
        found = find(remote, *words)
        both.wait(10)
        return found

    fleet.monkeypatch.setattr(Remote, "find", finding)
    came: list[Outcome] = []
    pulling = [
        threading.Thread(target=lambda name=name: came.append(pulls.pull(flow.job(name))))
        for name in flow.config.venvs
    ]
    for thread in pulling:
        thread.start()
    for thread in pulling:
        thread.join(30)
    assert [each.did for each in came] == ["pulled", "pulled"]
    assert sum(int(each.figures["trees"]) for each in came) == len(fleet.parcels())


def count_lookups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets of each request for records how many it asks for."""
    counts: list[int] = []
    ask = Channel.ask

    def asking(channel: Channel, do: str, **request: Any) -> Any:
        if do == "get" and "v1/records/" in request["paths"][0]:
            counts.append(len(request["paths"]))
        return ask(channel, do, **request)

    monkeypatch.setattr(Channel, "ask", asking)
    return counts


def test_records_of_all_venvs_of_a_run_are_asked_for_at_once(fleet: Fleet) -> None:
    """In one round trip; that there is none is believed for some seconds. Only for named ones."""
    fleet.pushed()
    fleet.elsewhere()
    venvs = "".join(f"  {name}: {{path: {name}/.venv, locks: [{name}/requirements.txt]}}\n" for name in "bcd")
    for name in "bcd":
        (fleet.project.root / name).mkdir()
        (fleet.project.root / name / "requirements.txt").write_text(f"six==1.{ord(name)}.0\n")
    fleet.read_only()
    fleet.project.config.write_text(fleet.project.config.read_text() + venvs)
    counts = count_lookups(fleet.monkeypatch)
    assert fleet.run("restore", "b", "c").code == 1
    assert counts == [2, 2], "the key of the second one was not known yet"
    fleet.run("restore", "b", "d")
    counts.clear()
    said = fleet.run("restore", "d", "c", "api").out
    assert counts == [6]
    assert said.count("remote: no snapshot for this key") == 2
    assert "hit" in said
    counts.clear()
    fleet.monkeypatch.setattr(remotes, "_FRESH", -1.0)
    fleet.run("restore", "b", "c", "d")
    assert counts == [6, 2, 2], "another machine may have pushed it by now"


def test_a_large_record_comes_alone(fleet: Fleet) -> None:
    """Or some hundred of them would need more memory than a pull."""
    fleet.pushed()
    fleet.elsewhere()
    fleet.monkeypatch.setattr(remotes, "_SMALL", 100)
    counts = count_lookups(fleet.monkeypatch)
    assert fleet.run("restore", "api").code == 0
    assert counts == [2, 2]


def test_a_snapshot_says_which_job_pushed_it(fleet: Fleet) -> None:
    """As restore, list and explain tell; unless the config forbids it."""
    job = {
        "GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "push", "GITHUB_REF_PROTECTED": "true",
        "GITHUB_REPOSITORY": "acme/shop", "GITHUB_REF_NAME": "main", "GITHUB_RUN_ID": "17",
        "GITHUB_SERVER_URL": "https://github.com",
    }  # fmt: skip
    for name, value in job.items():
        fleet.monkeypatch.setenv(name, value)
    fleet.pushed()
    fleet.elsewhere()
    assert "signed by main-2026, pushed by acme/shop@main, " in fleet.run("restore", "api").out
    (listed,) = fleet.run("list", "--json").document["snapshots"]
    run = "https://github.com/acme/shop/actions/runs/17"
    assert listed["host"] == f"file://{fleet.bucket}, signed by main-2026, pushed by acme/shop@main {run}"
    assert f"  from {listed['host']}" in fleet.run("list", "-v").out.splitlines()
    assert run in fleet.run("explain", "api").out
    shutil.rmtree(fleet.bucket)
    fleet.configure("    origin: false\n")
    fleet.pushed()
    fleet.elsewhere("third")
    assert "acme" not in fleet.run("restore", "api").out


def test_a_mirror_is_read_and_never_written(fleet: Fleet) -> None:
    """By plain HTTP, without credentials, and without a list; a run with a key pushes nothing there."""
    fleet.pushed()
    with mirror(fleet.bucket) as (url, asked):
        fleet.elsewhere()
        fleet.monkeypatch.setenv("VENVFLOW_REMOTE", f"{url}/")
        assert (
            f"remote {url}: only read: a mirror by http can only be read"
            in fleet.run("status", "--remote").err
        )
        found = fleet.run("explain", "api", "--remote", "--json").document["remote"]
        assert (found["issuer"], found["write"]) == ("main-2026", False)
        assert f"from {url}, signed by main-2026" in fleet.run("restore", "api").out
        assert fleet.run("push", "api").code == 3
        checks = {each["name"]: each["verdict"] for each in fleet.run("doctor", "--json").document["checks"]}
        assert (checks["remote-answers"], checks["remote-speed"], checks["remote-clock"]) == (
            "ok",
            "ok",
            "ok",
        )
        assert fleet.run("verify").code == 0
    assert {line.partition(" ")[0] for line in asked} == {"GET", "HEAD"}


def test_pull_fills_a_store_and_makes_no_venv(fleet: Fleet) -> None:
    """A second one has nothing to do; without the remote, restore is a hit then."""
    fleet.pushed()
    fleet.elsewhere()
    assert "pulled" in fleet.run("pull", "api").out
    assert not (fleet.project.root / "api/.venv").exists()
    assert "kept" in fleet.run("pull", "api").out
    fleet.monkeypatch.setenv("VENVFLOW_REMOTE", "off")
    assert fleet.run("restore", "api").code == 0


def test_pull_brings_a_tree_that_the_store_has_lost(fleet: Fleet) -> None:
    """Though its snapshot is there; nobody says that another run has fetched it."""
    fleet.pushed()
    store = fleet.elsewhere()
    assert fleet.run("pull", "api").code == 0
    lost = next((store / "trees").glob("*/*"))
    lost.unlink()
    answer = fleet.run("pull", "api")
    assert (answer.code, lost.exists()) == (0, True)
    assert "another run" not in answer.out
    assert fleet.run("verify").code == 0


@pytest.mark.parametrize("verb", ["pull", "push"])
def test_a_store_that_is_read_only_is_told(fleet: Fleet, verb: str) -> None:
    """It can take nothing, and what is sent is made there; that the config has a remote is not in doubt."""
    opened = StoreReader._open

    def read_only(self: StoreReader) -> None:
        opened(self)
        self.read_only = True

    fleet.monkeypatch.setattr(StoreReader, "_open", read_only)
    if verb == "pull":
        fleet.elsewhere()
    answer = fleet.run(verb, "api")
    assert answer.code == 3
    assert "the store is read-only" in answer.err
    assert not fleet.bucket.exists()


def test_who_reads_makes_no_directory(fleet: Fleet) -> None:
    """Where a share is not mounted, its place stays as it is, and that is a miss."""
    fleet.elsewhere()
    for words in ("restore api", "status --remote", "explain api --remote", "list --remote", "doctor"):
        if words == "doctor":  # one that may write tries to
            fleet.monkeypatch.setenv("VENVFLOW_REMOTE_MODE", "read")
        assert "Traceback" not in fleet.run(*words.split()).err
        assert not fleet.bucket.exists(), words


def test_push_sends_once(fleet: Fleet) -> None:
    """The second one finds the record, and sends nothing."""
    fleet.pushed()
    before = {path: path.stat().st_mtime_ns for path in fleet.bucket.rglob("*")}
    answer = fleet.run("push", "api", "--json")
    assert answer.record["did"] == "kept"
    assert {path: path.stat().st_mtime_ns for path in fleet.bucket.rglob("*")} == before


def test_push_sends_again_what_went_of_a_snapshot(fleet: Fleet) -> None:
    """A record whose parcels are not all there, or are to go, is a miss for others until that is mended."""
    fleet.pushed()
    lost = fleet.parcels()[0]
    lost.unlink()
    assert fleet.run("push", "api", "--json").record["figures"]["trees"] == 1
    assert lost.exists()
    trees = tuple(each.name for each in fleet.parcels())
    marks = fleet.bucket / "v1/gc"
    marks.mkdir()
    mark = marks / f"condemned-{'0' * 32}"
    mark.write_bytes(encode_mark(trees[:2]))
    os.utime(mark, (2_000_000_000, 2_000_000_000))
    assert fleet.run("push", "api", "--json").record["figures"]["trees"] == 2
    os.utime(mark, (1_000_000_000, 1_000_000_000))  # both were sent since
    assert fleet.run("push", "api", "--json").record["did"] == "kept"


def test_a_dry_run_of_push_says_what_would_be_sent_and_writes_nothing(fleet: Fleet) -> None:
    """All, what was lost, or nothing: as many trees as the push sends then."""
    assert fleet.run("restore", "api").code == 0

    def foreseen() -> Any:
        before = {path: path.stat().st_mtime_ns for path in fleet.bucket.rglob("*")}
        record = fleet.run("push", "api", "--dry-run", "--json").record
        assert {path: path.stat().st_mtime_ns for path in fleet.bucket.rglob("*")} == before
        return record

    for is_first in (True, False):
        if not is_first:
            fleet.parcels()[0].unlink()
        would = foreseen()
        assert would["did"] == "would push"
        pushed = fleet.run("push", "api", "--json").record["figures"]
        assert would["figures"]["trees"] == pushed["trees"] > 0
        assert would["figures"]["plain_bytes"] > 0
    assert foreseen()["did"] == "kept"
    fleet.record().unlink()
    assert foreseen()["figures"]["trees"] == 0


def test_push_waits_for_a_trim_that_is_deleting(fleet: Fleet) -> None:
    """What it sends might be what the trim deletes next: no record names that."""
    fleet.pushed()
    tree = fleet.parcels()[0].name
    fleet.record().unlink()
    (fleet.bucket / "v1/gc").mkdir()
    mark = fleet.bucket / f"v1/gc/doomed-{'0' * 32}"
    mark.write_bytes(encode_mark([tree]))
    answer = fleet.run("push", "api")
    assert answer.code == 1
    assert f"deleting tree {tree[:12]}" in answer.out
    assert not list((fleet.bucket / "v1/records").glob("*/*"))
    mark.unlink()
    fleet.pushed()


def test_a_record_that_is_used_is_written_again_once_a_day(fleet: Fleet) -> None:
    """Its very bytes, by whoever may write; that a run cannot say so is nobody's trouble."""
    fleet.pushed()
    flow = load(str(fleet.project.root), os.environ)
    assert fleet.run("restore", "api").code == 0
    assert flow.to_push() == []
    data = fleet.record().read_bytes()
    old = time.time() - 2 * 86_400
    os.utime(fleet.record(), (old, old))
    assert fleet.run("push", "api", "--json").record["did"] == "kept"
    assert fleet.record().stat().st_mtime > old
    assert fleet.record().read_bytes() == data
    assert flow.to_push() == []
    later = load(str(fleet.project.root), os.environ)
    later.now = lambda: time.time() + 2 * 86_400
    assert later.to_push() == ["api"]
    shutil.rmtree(fleet.bucket)
    fleet.bucket.write_text("not a directory")
    fleet.configure()
    answer = fleet.run("push", "api", "--json")
    assert answer.record["did"] == "kept"
    assert "cannot be used" in answer.record["reason"]


def test_a_record_is_not_written_again_by_who_is_late(fleet: Fleet) -> None:
    """A trim may have dropped it meanwhile, and what it needs: a run may be stopped in between for days."""
    fleet.pushed()
    old = time.time() - 2 * 86_400
    os.utime(fleet.record(), (old, old))
    moments = iter([0.0])
    fleet.monkeypatch.setattr(remote_push, "boot_seconds", lambda: next(moments, 86_400.0))
    answer = fleet.run("push", "api", "--json")
    assert answer.record["did"] == "kept"
    assert "took longer than it may" in answer.record["reason"]
    assert fleet.record().stat().st_mtime == old


def test_a_key_is_changed_without_a_gap(fleet: Fleet) -> None:
    """Who has pulled what the old key signed signs it anew, and sends nothing else; others read on."""
    fleet.pushed()
    both = fleet.project.config.read_text()
    new = encode_secret(os.urandom(32))
    both = both.replace("keys: {", f'keys: {{main-2027: "{public_of(secret_key(new))}", ')
    fleet.project.config.write_text(both)
    fleet.elsewhere()
    fleet.monkeypatch.setenv("VENVFLOW_SIGNING_KEY", new)
    assert fleet.run("pull", "api", "--json").record["did"] == "pulled"
    after = re.sub(r'main-2026: "[^"]*"', "", both).replace(", }", "}")
    fleet.project.config.write_text(after)
    answer = fleet.run("push", "api", "--json")
    assert answer.record["did"] == "pushed"
    assert "0 new trees" in answer.record["reason"]
    for config in (both, after):
        fleet.project.config.write_text(config)
        shutil.rmtree(fleet.elsewhere("third"), ignore_errors=True)
        assert "signed by main-2027" in fleet.run("pull", "api").out


def test_a_remote_of_another_format_is_left_alone(fleet: Fleet) -> None:
    """It was written by another version of ours."""
    fleet.bucket.joinpath("v1").mkdir(parents=True)
    (fleet.bucket / "v1/format").write_text('{"format": 2}\n')
    answer = fleet.run("push", "api")
    assert answer.code == 1
    assert "another version" in answer.out
    assert not (fleet.bucket / "v1/trees").exists()


@pytest.mark.parametrize("readable", [True, False])
def test_a_key_that_is_denied_is_a_miss_if_the_format_can_be_read(tmp_path: Path, readable: bool) -> None:
    """S3 denies what is not there to who may not list; that is told from credentials that are wrong."""

    class Denying:
        def ask(self, _do: str, *, paths: list[str], **_: object) -> object:
            denied = {path: "403 Forbidden" for path in paths if path != FORMAT or not readable}
            return {"found": dict.fromkeys(paths), "heads": dict.fromkeys(paths), "denied": denied}

    remote = Remote(RemoteConfig("s3://bucket/venvs", unsigned=True), {}, str(tmp_path))
    remote._channels = [Denying()]  # type: ignore[list-item]
    if readable:
        assert remote.find("a" * 64, "api") == (None, "no snapshot for this key", "", 0)
        assert remote.there([("a" * 64, "api")]) == {"a" * 64: False}
    else:
        with pytest.raises(RemoteDown, match="credentials do not allow it"):
            remote.find("a" * 64, "api")


_ROWS = (
    "SELECT digest, executable, size FROM objects WHERE size > 0",
    """SELECT trees.digest, path, objects.digest FROM files
    JOIN trees ON trees.id = tree JOIN objects ON objects.id = object WHERE objects.size > 0""",
    """SELECT source.digest, made.digest, path FROM bytecode
    JOIN objects source ON source.id = source JOIN objects made ON made.id = object""",
)


def rows(store: Path) -> list[set[tuple[object, ...]]]:
    """Return what the index of a store says of objects, files of trees, and bytecode, without its numbers."""
    with closing(sqlite3.connect(store / "index.db")) as db:
        return [set(db.execute(sql)) for sql in _ROWS]


@pytest.mark.parametrize("before", ["nothing", "another venv", "a pull that was cut off"])
def test_the_index_knows_what_was_pulled(fleet: Fleet, before: str) -> None:
    """As if it had been made from what lies on disk, whatever it knew before."""
    fleet.pushed()
    store = fleet.elsewhere()
    if before != "nothing":
        fleet.monkeypatch.setenv("VENVFLOW_REMOTE", "off")
        assert fleet.run("stats").code == 0
        with Store(StoreConfig(str(store))) as opened:
            assert opened.index.rows("SELECT count(*) FROM objects") == [(0,)]
        fleet.monkeypatch.delenv("VENVFLOW_REMOTE")
    if before == "a pull that was cut off":

        def cut_off(*_: object) -> None:
            raise EnvironmentFailure("cut off", state="", hint="")

        with fleet.monkeypatch.context() as patch:
            patch.setattr(remote_pull._Arrivals, "learn", cut_off)
            assert fleet.run("pull", "api").code == 3
        assert not rows(store)[0]
    assert fleet.run("pull", "api").code == 0
    known = rows(store)
    assert all(known[:2])
    (store / "index.db").unlink()
    with Store(StoreConfig(str(store))) as opened:
        opened.rebuild_index()
    assert rows(store) == known


def drop_snapshots(store: Path) -> None:
    """Take snapshots away and leave all that they are made of."""
    for path in (store / "snapshots").iterdir():
        path.unlink()


def test_a_pull_brings_only_what_is_missing(fleet: Fleet) -> None:
    """Trees that are whole are not asked for; one that lost an object is fetched again, and healed."""
    fleet.pushed()
    store = fleet.elsewhere()
    fleet.run("pull", "api")
    drop_snapshots(store)
    answer = fleet.run("pull", "api", "--json")
    assert (answer.record["did"], answer.record["figures"]["trees"]) == ("pulled", 0)
    drop_snapshots(store)
    victim = max((store / "objects").glob("*/*"), key=lambda path: path.stat().st_size)
    victim.unlink()
    assert fleet.run("pull", "api", "--json").record["figures"]["trees"] == 1
    assert victim.exists()
    assert fleet.run("verify").code == 0


def poison(path: Path, how: str, fleet: Fleet) -> None:
    """Do to a parcel what somebody with the right to write could."""
    data = path.read_bytes()
    other = next(each for each in fleet.parcels() if each != path)
    middle = len(data) // 2
    path.write_bytes(
        {
            "bit in the middle": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "tail": data + b"\0",
            "another tree": other.read_bytes(),
            "HTML": b"<html>Sign in</html>",
            "empty": b"",
        }[how]
    )


@pytest.mark.parametrize("how", ["bit in the middle", "tail", "another tree", "HTML", "empty"])
def test_a_poisoned_parcel_is_a_miss_with_a_warning(fleet: Fleet, how: str) -> None:
    """Nothing of it gets a name, and no venv is made."""
    fleet.pushed()
    victim = fleet.parcels()[0]
    poison(victim, how, fleet)
    store = fleet.elsewhere()
    answer = fleet.run("restore", "api")
    assert answer.code == 1
    assert f"tree {victim.name[:12]} was refused" in answer.err
    assert not [*(store / "snapshots").iterdir()]
    assert fleet.run("verify").code == 0
    assert not (fleet.project.root / "api/.venv").exists()


def test_a_push_mends_what_the_pull_before_it_refused(fleet: Fleet) -> None:
    """Who built the venv for want of it sends it anew, and nothing else; the next one pulls."""
    fleet.pushed()
    victim = fleet.parcels()[0]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    fleet.elsewhere()
    assert fleet.run("build", "api").code == 0
    answer = fleet.run("push", "api", "--json")
    assert (answer.record["did"], answer.record["figures"].get("trees")) == ("pushed", 1)
    assert fleet.run("push", "api", "--json").record["did"] == "kept"
    fleet.elsewhere("third")
    assert fleet.run("restore", "api").code == 0


@pytest.mark.parametrize("lost", ["v1", "v1/records"])
def test_what_the_remote_has_lost_is_sent_anew_by_who_sent_it(fleet: Fleet, lost: str) -> None:
    """The run was told so, and has built it: that it was sent today is no reason to leave it."""
    assert fleet.run("build").code == 0
    assert fleet.record().exists()
    shutil.rmtree(fleet.bucket / lost)
    fleet.elsewhere()
    shutil.rmtree(fleet.project.root / "api/.venv")
    assert fleet.run("build").code == 0
    fleet.elsewhere("third")
    assert fleet.run("pull", "--json").record["did"] == "pulled"


@pytest.mark.parametrize("needed", [True, False])
def test_only_what_was_sent_anew_is_said_to_be(fleet: Fleet, needed: bool) -> None:
    """A build that is not like the one before may need no such tree: what was refused stays so."""
    fleet.pushed()
    job = load(str(fleet.project.root), os.environ).job("api")
    record = state_files.need_key(job)
    refused = fleet.parcels()[0].name if needed else "0" * 64
    state_files.write_pull(job, record.key.digest, "it was refused", refused)
    assert fleet.run("push", "api").code == 0
    noted = state_files.read_pull(job, record.key.digest)
    assert noted is not None
    assert (noted.answer.endswith("was sent anew"), noted.refused) == (needed, "" if needed else refused)


def test_a_missing_parcel_is_a_miss_that_says_so(fleet: Fleet) -> None:
    """It needs no warning: a push that was cut short, or a trim, may leave that; the next push mends it."""
    fleet.pushed()
    fleet.parcels()[0].unlink()
    fleet.elsewhere()
    answer = fleet.run("restore", "api")
    assert answer.code == 1
    assert "is missing" in answer.out
    assert "warning" not in answer.err


def test_a_record_of_a_stranger_is_a_miss_with_a_warning(fleet: Fleet) -> None:
    """And one that nobody signed; the next push of ours takes its place."""
    fleet.pushed()
    good = fleet.record().read_bytes()
    envelope = json.loads(good)
    envelope["signatures"] = []
    fleet.record().write_text(json.dumps(envelope))
    fleet.elsewhere()
    answer = fleet.run("restore", "api")
    assert answer.code == 1
    assert "nobody signed it" in answer.err
    fleet.monkeypatch.delenv("VENVFLOW_STORE")
    fleet.pushed()
    fleet.elsewhere("third")
    assert fleet.run("restore", "api").code == 0


def test_what_is_empty_hinders_nobody(fleet: Fleet) -> None:
    """A power cut leaves files without a byte, of which there are no parts: the next push mends them."""
    fleet.pushed()
    for path in (fleet.record(), fleet.bucket / FORMAT):
        path.write_bytes(b"")
    checks = fleet.run("doctor", "--json").document["checks"]
    assert [each["verdict"] for each in checks if each["name"] == "remote-answers"] == ["warn"]
    fleet.elsewhere()
    answer = fleet.run("restore", "api")
    assert answer.code == 1
    assert "not believed: it is not a record" in answer.err
    (listed,) = fleet.run("list", "--remote", "--json").document["records"]
    assert listed["believed"] is False
    assert fleet.run("trim", "--remote").code == 0
    fleet.monkeypatch.delenv("VENVFLOW_STORE")
    fleet.pushed()
    assert (fleet.bucket / FORMAT).read_bytes() == FORMAT_TEXT
    fleet.elsewhere("third")
    assert fleet.run("restore", "api").code == 0


def test_a_killed_pull_goes_on_where_it_was(fleet: Fleet) -> None:
    """Trees that came whole before are not fetched again."""
    fleet.pushed()
    held = fleet.parcels()[-1]
    data = held.read_bytes()
    held.unlink()
    fleet.elsewhere()
    fleet.monkeypatch.setattr(remote_pull, "_GROUP", 1)
    fleet.configure("    connections: 1\n")
    assert fleet.run("pull", "api").code == 1
    held.write_bytes(data)
    assert fleet.run("pull", "api", "--json").record["figures"]["trees"] == 1


@pytest.mark.parametrize(
    "secret",
    ["", "AAAA", "not a key", encode_secret(os.urandom(32))],
    ids=["none", "short", "words", "stranger's"],
)
def test_a_key_that_nobody_believes_pushes_nothing(fleet: Fleet, secret: str) -> None:
    """And the message holds nothing of it."""
    fleet.monkeypatch.setenv("VENVFLOW_SIGNING_KEY", secret)
    answer = fleet.run("push", "api")
    assert answer.code in (2, 3)
    assert not fleet.bucket.exists()
    assert not secret or secret not in answer.err


def test_builders_and_checks_see_no_credentials(fleet: Fleet) -> None:
    """What they run could write to the remote else; what the config names for the key stays."""
    seen = fleet.project.root / "seen"
    program = f"import os; open({str(seen)!r}, 'w').write(repr(sorted(os.environ)))"
    more = f"check: ['-c', {json.dumps(program)}], key: {{env: [AWS_REGION]}}"
    text = fleet.project.config.read_text().replace("requirements.txt]}", f"requirements.txt], {more}}}")
    fleet.project.config.write_text(text)
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_REGION", "VENVFLOW_SIGNING_KEY"):
        fleet.monkeypatch.setenv(name, "xxxxxxxx")
    assert fleet.run("build", "api").code == 0
    names = seen.read_text()
    assert "AWS_REGION" in names
    assert "SECRET" not in names
    assert "SIGNING" not in names


DOCTOR = ("remote", "remote-keys", "remote-answers", "remote-writes")


def test_doctor_tells_whether_the_remote_works(fleet: Fleet) -> None:
    """It reads, writes and deletes again; a stranger's key, and a server that refuses, are failures."""

    def checks() -> dict[str, str]:
        found = fleet.run("doctor", "--json").document["checks"]
        ours = (each for each in found if each["name"].startswith("remote"))
        return {each["name"]: each["verdict"] for each in ours}

    assert checks() == dict.fromkeys(DOCTOR, "ok")
    with serving("404") as url:
        fleet.configure(url=url)
        fleet.read_only()
        assert checks()["remote-answers"] == "warn"
    with serving("html") as url:
        fleet.configure(url=url)
        fleet.read_only()
        assert checks()["remote-answers"] == "fail"
    fleet.configure()
    assert not [path for path in fleet.bucket.rglob("*") if path.is_file()]
    fleet.monkeypatch.setenv("VENVFLOW_SIGNING_KEY", encode_secret(os.urandom(32)))
    assert checks()["remote-keys"] == "fail"
    fleet.monkeypatch.delenv("VENVFLOW_SIGNING_KEY")
    key = fleet.project.root / "main.key"
    fleet.monkeypatch.setenv("VENVFLOW_SIGNING_KEY_FILE", str(key))
    for mode, verdict in ((0o644, "warn"), (0o600, "ok")):
        key.write_text(SECRET)
        key.chmod(mode)
        assert checks()["remote-keys"] == verdict
    with serving("403") as url:
        fleet.configure(url=url)
        fleet.read_only()
        assert checks()["remote-answers"] == "fail"
    with serving("another clock") as url:
        fleet.configure(url=url)
        fleet.read_only()
        assert (checks()["remote-answers"], checks()["remote-clock"]) == ("fail", "fail")


def test_doctor_measures_with_a_parcel_that_is_there(fleet: Fleet) -> None:
    """One of a tree of the store: nothing is listed for it, and nothing is written."""
    fleet.pushed()
    fleet.configure("    connections: 4\n")
    fleet.read_only()
    said = {each["name"]: each["text"] for each in fleet.run("doctor", "--json").document["checks"]}
    assert re.search(r"came in .*/s over one connection", said["remote-speed"])
    assert "remote-writes" not in said


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"AWS_ACCESS_KEY_ID": "x"}, "a key of the environment"),
        ({"AWS_PROFILE": "acme"}, "AWS_PROFILE is set: profiles and single sign-on are not read"),
        ({"HOME": "{home}"}, "/.aws/config is there: profiles and single sign-on are not read"),
        ({}, "none in the environment: those of the machine are asked for, if it has some"),
    ],
)
def test_doctor_names_the_kind_of_credentials(tmp_path: Path, environ: dict[str, str], told: str) -> None:
    """And what it does not look at, though the tools of the service do."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text("[sso-session acme]\n")
    here = {name: value.format(home=tmp_path) for name, value in environ.items()}
    (found,) = doctor_remote._credentials("s3://bucket", here)
    assert told in found.text
    assert [*doctor_remote._credentials("file:///mnt", here)] == []


def test_status_names_what_somebody_has_to_build(fleet: Fleet) -> None:
    """For a matrix of jobs: what neither this machine nor the remote has."""

    def remote(*words: str) -> list[tuple[bool | None, bool | None]]:
        found = fleet.run("status", "--json", *words).document["venvs"]
        return [(each["stored"], each["remote"]) for each in found]

    assert remote() == [(True, None)]
    assert remote("--remote") == [(True, False)]
    fleet.pushed()
    fleet.elsewhere()
    assert remote("--remote") == [(False, True)]
    does = [fleet.run("status", *words, "--json").document["venvs"][0]["do"] for words in ([], ["--remote"])]
    assert does == ["doit builds it", "doit brings it"]
    shutil.rmtree(fleet.bucket)
    told = fleet.run("status", "--remote").err
    assert "neither here nor in the remote: api" in told
    assert f"remote file://{fleet.bucket}: read and written" in told
    with serving("500") as url:
        fleet.configure(url=url)
        fleet.read_only()
        assert fleet.run("status", "--remote").code == 3


def test_explain_asks_the_remote_only_when_it_is_told_to(fleet: Fleet) -> None:
    """Else it tells what the last run was answered, and that nobody knows; it opens no channel."""

    def explained(*words: str) -> tuple[dict[str, Any], dict[str, Any]]:
        found = fleet.run("explain", "api", "--json", *words).document
        return found["remote"], {each["task"].partition(":")[0]: each for each in found["tasks"]}

    fleet.elsewhere()
    with fleet.monkeypatch.context() as forbidden:
        forbidden.setattr(Channel, "ask", None)
        remote, tasks = explained()
        assert (remote["read"], remote["write"], remote["asked"], remote["answer"]) == (
            True,
            True,
            None,
            None,
        )
        assert (tasks["restore"]["did"], tasks["restore"]["certain"]) == ("miss", False)
        assert not any(tasks[verb]["certain"] for verb in ("build-venv", "squish", "store"))
        assert "not asked for this key yet; --remote does so" in fleet.run("explain", "api").out
    remote, tasks = explained("--remote")
    assert remote["answer"] == "no snapshot for this key"
    assert (tasks["restore"]["did"], tasks["restore"]["certain"]) == ("miss", True)
    fleet.monkeypatch.delenv("VENVFLOW_STORE")
    fleet.pushed()
    fleet.elsewhere()
    remote, tasks = explained("--remote")
    assert (remote["issuer"], remote["trees"]) == ("main-2026", len(fleet.parcels()))
    assert (tasks["restore"]["did"], tasks["restore"]["certain"]) == ("hit", True)
    assert tasks["restore"]["reason"].endswith("the remote has a snapshot for the key")
    assert tasks["build-venv"]["would"] == "nothing"
    assert "trees would come" in " ".join(fleet.run("explain", "api", "--remote").out.split())
    assert fleet.run("explain", "api", "web", "--remote").code == 2


def test_explain_tells_why_a_remote_missed_also_after_the_build(fleet: Fleet) -> None:
    """For the lock files as they are, and of this remote; one that fails is told as such."""
    fleet.elsewhere()
    assert fleet.run("build", "api").code == 0
    told = " ".join(fleet.run("explain", "api").out.split())
    assert "it answered: no snapshot for this key (" in told
    with serving("500") as url:
        fleet.configure(url=url)
        fleet.read_only()
        told = " ".join(fleet.run("explain", "api").out.split())
        assert "not asked for this key yet" in told
        assert "only read: store.remote.mode is read" in told
        assert "it cannot be used: " in " ".join(fleet.run("explain", "api", "--remote").out.split())


def test_shards_divide_all_venvs_between_them(project: Project) -> None:
    """Each venv is in one of so many, and stays there when others come."""
    lines = "".join(f"  v{n}: {{path: v{n}/.venv, locks: [api/requirements.txt]}}\n" for n in range(20))
    few = project.config.read_text()
    before = [share_of(project, f"{number}/3") for number in (1, 2, 3)]
    project.config.write_text(few + lines)
    after = [share_of(project, f"{number}/3") for number in (1, 2, 3)]
    assert sorted(name for share in after for name in share) == sorted(
        ["api", "web", *(f"v{n}" for n in range(20))]
    )
    assert all(old <= new for old, new in zip(before, after, strict=True))
    assert all(after)
    share = next(n for n in range(1, 100) if not {"api", "web"} & share_of(project, f"{n}/99"))
    project.config.write_text(few)
    answer = project.run("build", "--json", "--shard", f"{share}/99")
    assert (answer.code, answer.document["tasks"], answer.document["done"]) == (0, [], 0)
    assert "no venv is in the share" in answer.err
    assert not (project.root / ".venvflow").exists()
    for wrong in ("0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5", "1/99999", "", " 1/3", "\uff11/\uff13"):
        assert project.run("restore", "--shard", wrong).code == 2


SHARED = ["status", "build", "restore", "store", "pack", "verify", "push", "pull"]


@pytest.mark.parametrize("command", SHARED)
def test_every_command_that_acts_on_venvs_takes_a_share(project: Project, command: str) -> None:
    """One with no venv in it is nothing to do; paths are in none; the order of the config is of no matter."""
    text = project.config.read_text()
    names = [each["name"] for each in project.run("status", "--json").document["venvs"]]
    empty = next(
        f"{number}/99" for number in range(1, 100) if not {*names} & share_of(project, f"{number}/99")
    )
    answer = project.run(command, "--shard", empty)
    assert (answer.code, "no venv is in the share" in answer.err) == (0, True)
    assert project.run(command, "./api/.venv", "--shard", "1/1").code == 2
    (own,) = (number for number in (1, 2, 3) if "api" in share_of(project, f"{number}/3"))
    api, web = re.findall(r"^  (?:api|web): .*\n", text, re.MULTILINE)
    project.config.write_text(text.replace(api + web, web + api))
    assert "api" in share_of(project, f"{own}/3", "api")
    assert not share_of(project, f"{own}/3", "web") & {"api"}


def share_of(project: Project, word: str, *names: str) -> set[str]:
    """Return the venvs in a share, perhaps of those that are named."""
    found = project.run("status", "--json", *names, "--shard", word).document["venvs"]
    return {each["name"] for each in found}


SECRETS = (
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"),
    *(
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GITHUB_TOKEN",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "ACTIONS_RUNTIME_TOKEN",
    ),
    *("CI_JOB_TOKEN", "CI_JOB_JWT", "CI_JOB_JWT_V2", "CI_REGISTRY_PASSWORD", "CI_DEPLOY_PASSWORD"),
    *("BUILDKITE_AGENT_ACCESS_TOKEN", "CIRCLE_TOKEN", "CIRCLE_OIDC_TOKEN", "CIRCLE_OIDC_TOKEN_V2"),
    *("JENKINS_API_TOKEN", "SYSTEM_ACCESSTOKEN", "AZURE_CLIENT_SECRET"),
)
"""What services of CI and of storage put into the environment of a job, and nobody else may know."""


def test_secrets_reach_nothing(fleet: Fleet) -> None:
    """Neither key, credentials nor tokens are in what runs write, say or send, whatever the bucket does.

    Nor does a check see them, which is what a builder is started with.
    """
    canaries = {name: f"c4n4ry-{number:02}-{name[::-1].lower()}" for number, name in enumerate(SECRETS)}
    canaries["CI_REPOSITORY_URL"] = "https://gitlab-ci-token:c4n4ry-glcbt-64@gitlab.lan/acme/shop.git"
    for name, value in canaries.items():
        fleet.monkeypatch.setenv(name, value)
    seen = fleet.project.root / "seen"
    program = f"import os; open({str(seen)!r}, 'w').write(repr(dict(os.environ)))"
    text = fleet.project.config.read_text()
    check = f"requirements.txt], check: ['-c', {json.dumps(program)}]}}"
    fleet.project.config.write_text(text.replace("requirements.txt]}", check))
    said = [fleet.run("-v", "build", "api"), fleet.run("push", "api")]
    fleet.elsewhere()
    said += [fleet.run("-v", *words.split()) for words in ("restore api", "explain api --remote", "doctor")]
    with serving("403") as url:
        at_s3 = f"url: s3://bucket/prefix\n    endpoint: {url}\n"
        text = fleet.project.config.read_text().replace(f"url: file://{fleet.bucket}\n", at_s3)
        fleet.project.config.write_text(text)
        fleet.elsewhere("third")
        for words in ("restore api", "status --remote", "explain api --remote", "doctor", "push api"):
            said.append(fleet.run(*words.split()))
    texts = [each.out + each.err for each in said]
    files = (
        path for path in fleet.project.root.parent.rglob("*") if path.is_file() and not path.is_symlink()
    )
    texts += [path.read_bytes().decode("latin-1") for path in files]
    assert "VENVFLOW" not in seen.read_text()
    secret = re.compile(rf".{{0,40}}(?:c4n4ry|{re.escape(SECRET)}).{{0,40}}")
    assert not [found for text in texts for found in secret.findall(text)]


# --------------------------------------------------------------------------- never a dependency

BEHAVIOURS = [
    "403", "500", "503", "silent", "trickle", "reset", "html", "redirect", "truncated", "endless", "closed",
    "whole", "another range", "compressed", "unending", "talkative", "deep", "204", "304", "401",
    "busy for a day",
]  # fmt: skip


def test_a_mirror_that_does_not_list_is_told_from_a_network_that_fails(fleet: Fleet) -> None:
    """It answers who asks for one thing, and nobody who asks what there is."""
    with serving("403") as url:
        fleet.configure(url=url)
        fleet.read_only()
        answer = fleet.run("list", "--remote")
    assert answer.code == 3
    assert "Most mirrors do not list" in answer.err


@pytest.mark.parametrize("how", BEHAVIOURS)
def test_a_remote_that_fails_is_a_miss_told_once(fleet: Fleet, how: str) -> None:
    """For any failure: restore misses, and the run goes on; a second venv of the run is not asked again."""
    fleet.elsewhere()
    with serving(how) as url:
        fleet.configure("    silence: 1s\n" if how in ("silent", "trickle") else "", f"{url}/bucket/prefix")
        fleet.read_only()
        first = fleet.run("restore", "api")
        again = fleet.project.run("restore", "api")
    assert (first.code, again.code) == (1, 1)
    if how not in ("html", "truncated", "endless", "compressed", "deep", "204"):
        assert first.err.count("cannot be used") == 1
        assert "cannot be used:" not in again.err


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a file with a certificate that nobody vouches for, and its secret key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path = str(tmp_path_factory.mktemp("tls") / "server.pem")
    words = f"req -x509 -newkey ed25519 -nodes -subj /CN=127.0.0.1 -out {path} -keyout {path}"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
    return path


def failure_of(url: str, do: str, **request: Any) -> ChannelFailure:
    """Return how what is asked of a remote fails."""
    channel = Channel(url, {}, os.environ, silence=5, limit=10)
    try:
        with pytest.raises(ChannelFailure) as failure:
            channel.ask(do, **request)
    finally:
        channel.close()
    return failure.value


def why_not_reached(url: str) -> str:
    """Return what is said of a remote that cannot be reached."""
    return str(failure_of(url, "get", paths=["a"], most=9, connections=1))


def test_a_directory_that_may_not_be_written_is_told_from_a_network_that_fails() -> None:
    """Whoever runs: in the kernel's own file system nobody makes one. No minute has to pass then."""
    failure = failure_of("file:///sys/kernel", "put", path="v1/format", data="")
    assert failure.kind == "denied"
    assert "LocalFileSystem" not in str(failure)


def test_no_word_of_a_path_says_what_failed(tmp_path: Path) -> None:
    """A parcel that the system does not open is not one that is too short: that would be sent anew."""
    (tmp_path / "orange range").mkdir()
    (tmp_path / "orange range/v1").touch()
    failure = failure_of(f"file://{tmp_path}/orange range", "get", paths=["v1/a"], most=9, connections=1)
    assert (failure.kind, "Not a directory" in str(failure)) == ("unreachable", True)


def test_the_message_says_why_a_remote_cannot_be_reached(certificate: str) -> None:
    """A request that failed helps nobody to find a wrong name, or a certificate that is not installed."""
    assert why_not_reached("http://127.0.0.1:1/p") == "Connection refused"
    assert why_not_reached("http://nowhere.invalid/p") == "its name leads nowhere"
    with serving("404", certificate) as url:
        assert why_not_reached(url).startswith("its certificate is not believed (")
    for how, said in (
        ("closed", "closed without an answer"),
        ("whole", "whole files only"),
        ("500", "500 Inter"),
    ):
        with serving(how) as url:
            assert said in why_not_reached(url)


def test_a_required_remote_is_an_error(fleet: Fleet) -> None:
    """A miss stays a miss."""
    fleet.configure("    required: true\n")
    fleet.elsewhere()
    assert fleet.run("restore", "api").code == 1
    with serving("500") as url:
        fleet.configure("    required: true\n", url=url)
        fleet.read_only()
        answer = fleet.run("restore", "api")
    assert answer.code == 3
    assert "VENVFLOW_REMOTE=off" in answer.err


def test_a_run_with_nothing_to_do_asks_nobody(fleet: Fleet) -> None:
    """It imports no library for it and starts no process: there need not even be one."""
    fleet.pushed()
    environ = {**os.environ, "VENVFLOW_REMOTE": "s3://nowhere/at-all"}
    fleet.run("restore", "api")
    script = (
        "import sys; sys.argv = ['doit']; from doit.doit_cmd import DoitMain; "
        "code = DoitMain().run(['restore:api']); "
        "bad = {'obstore', 'cryptography', 'venvflow.state.remote', 'venvflow.disk.remote'}; "
        "print(code, sorted(bad & set(sys.modules)))"
    )
    (fleet.project.root / "pyproject.toml").write_text('[tool.doit]\nloader = "venvflow"\n')
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=fleet.project.root,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout.splitlines()[-1:] == ["0 []"], done.stdout + done.stderr


def test_a_push_without_a_key_or_a_remote_says_what_to_set(fleet: Fleet) -> None:
    """Also where the mode lets it write: then nothing but the key is missing."""
    fleet.monkeypatch.delenv("VENVFLOW_SIGNING_KEY")
    assert "VENVFLOW_SIGNING_KEY_FILE" in fleet.run("push", "api").err
    fleet.monkeypatch.setenv("VENVFLOW_REMOTE", "off")
    answer = fleet.run("push", "api")
    assert "there is no remote. Nothing was sent. Set store.remote" in answer.err


def test_without_the_libraries_a_message_says_what_to_install(fleet: Fleet) -> None:
    """The config is for others, too: who only reads goes on without; a run that was given a key does not."""
    fleet.monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    answer = fleet.run("push", "api")
    assert answer.code == 3
    assert 'Install "venvflow[remote]"' in answer.err
    answer = fleet.run("keygen", "main-2027")
    assert 'No key was made. Install "venvflow[remote]".' in answer.err  # no remote is in the way
    fleet.monkeypatch.delenv("VENVFLOW_SIGNING_KEY")
    fleet.elsewhere()
    answer = fleet.run("restore", "api")
    assert answer.code == 1
    assert answer.err.count('install "venvflow[remote]"') == 1
    assert fleet.run("status", "--remote").code == 3
    text = fleet.project.config.read_text()
    fleet.configure("    required: true\n")
    assert fleet.run("restore", "api").code == 3
    fleet.project.config.write_text(text)
    assert fleet.run("build", "api").code == 0


# --------------------------------------------------------------------------- keygen


def test_keygen_gives_a_line_for_the_config_and_a_secret(fleet: Fleet, tmp_path: Path) -> None:
    """To the terminal once, or to a file that only its owner reads."""
    shown = fleet.run("keygen", "main-2027").out.splitlines()
    name, _, public = shown[0].partition(": ")
    assert name == "main-2027"
    assert public_of(secret_key(shown[1])) == json.loads(public)
    target = tmp_path / "main.key"
    answer = fleet.run("keygen", "main-2027", "-o", str(target), "--json")
    assert target.stat().st_mode & 0o777 == 0o600
    assert public_of(secret_key(target.read_text())) == answer.document["public"]
    assert target.read_text().strip() not in answer.out + answer.err
    assert fleet.run("keygen", "main-2027", "-o", str(target)).code == 6
    assert fleet.run("keygen", "a b").code == 2


def test_commands_are_there(fleet: Fleet) -> None:
    """As a program of its own."""
    done = subprocess.run([*command(), "pull", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert shutil.which(command()[0])
