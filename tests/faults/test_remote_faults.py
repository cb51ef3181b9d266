"""Death, and a full disk, at the calls of those who push to a remote, pull from it and trim it.

Either the command dies, or the process that talks to the remote for it. The venv is as before or as after,
the store is sound, and the remote has no record that lacks a parcel, or has one of other bytes.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fixtures import MADE, memory, sample, server, shim, world
from rehearsal import Rehearsal, rehearsed
from scenes import Scene
from worlds import World, interesting

from venvflow.disk.remote.parcels import Cutter
from venvflow.disk.remote.transfers import _Nobody
from venvflow.pure.decoding import Corrupt
from venvflow.pure.expiry import encode_mark
from venvflow.pure.records import Trust, seen

__all__ = ["memory", "sample", "server", "shim", "world"]

pytestmark = pytest.mark.slow

DAY = 86_400


def _bucket(world: World) -> Path:
    return world.root / "bucket"


def _project(world: World, version: str) -> None:
    remote = {"url": f"file://{_bucket(world)}", "mode": "write", "unsigned": True, "silence": "2s"}
    store = {"path": "../store", "durability": "full", "remote": remote}
    world.project(version, store=store)


def _built(world: World) -> None:
    _project(world, "1.0")
    world.done("flow")


def _pushed(world: World) -> None:
    _built(world)
    world.done("pushed")


def _changed(world: World) -> None:
    _pushed(world)
    _project(world, "2.0")
    world.done("flow")


def _elsewhere(world: World) -> None:
    _pushed(world)
    shutil.rmtree(world.store)
    shutil.rmtree(world.venv)
    shutil.rmtree(world.root / "p/.venvflow")


def _aged(world: World) -> None:
    """Have a snapshot that is old, one that is wanted, and a parcel that was condemned long ago."""
    _pushed(world)
    for path in _bucket(world).rglob("*"):
        _age(path, 40)
    _project(world, "2.0")
    world.done("flow")
    world.done("pushed")
    loose = _bucket(world) / "v1/trees/00" / ("0" * 64)
    loose.parent.mkdir(exist_ok=True)
    loose.write_bytes(b"loose")
    mark = _bucket(world) / f"v1/gc/condemned-{'0' * 32}"
    mark.parent.mkdir()
    mark.write_bytes(encode_mark([loose.name]))
    _age(loose, 9)
    _age(mark, 3)


def _age(path: Path, days: int) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


SCENES = (
    Scene("a first push", _built, "pushed"),
    Scene("a push after a change", _changed, "pushed"),
    Scene("a pull", _elsewhere, "restored"),
    Scene("a trim of a remote", _aged, "trimmed_remote"),
)


@dataclass(frozen=True)
class RemoteFault:
    """A fault at a call of the command, or of who talks to the remote for it, and how it may end."""

    name: str
    mode: str
    error: int
    remote: bool
    codes: tuple[int, ...]


FAULTS = (
    RemoteFault("kill", "kill", 0, False, (-9,)),
    RemoteFault("full disk", "lasting", errno.ENOSPC, False, (0, 1, 3)),
    RemoteFault("killed helper", "kill", 0, True, (0, 1, 3)),
    RemoteFault("stopped helper", "stop", 0, True, (0, 1, 3)),
    RemoteFault("helper's disk full", "lasting", errno.ENOSPC, True, (0, 1, 3)),
)


OFTEN = {
    ("a push after a change", "kill"),
    ("a push after a change", "helper's disk full"),
    ("a pull", "killed helper"),
    ("a trim of a remote", "killed helper"),
}
"""What ``make test`` tries; ``make long`` and ``make faults`` try all."""


@pytest.mark.parametrize(
    ("scene", "fault"),
    [
        pytest.param(
            scene,
            fault,
            marks=[] if (scene.name, fault.name) in OFTEN else [pytest.mark.long],
            id=f"{scene.name}, {fault.name}",
        )
        for scene in SCENES
        for fault in FAULTS
        if fault.mode != "stop" or scene.action == "restored"  # else a minute of silence is waited for
        if fault.remote or scene.action != "trimmed_remote"  # which writes nothing by itself
    ],
)
def test_no_record_lacks_a_parcel(world: World, scene: Scene, fault: RemoteFault, sample: int | None) -> None:
    """Whatever is interrupted; and doing it again leads to the end."""
    rehearsal = rehearsed(world, scene)
    names = _names(world)
    assert not list(_wrong_remote(world))
    world.reset()
    calls = world.server.do(scene.action, world.root, remote=fault.remote).calls
    assert calls
    for call in interesting(calls, 2 if sample is not None else None):
        world.reset()
        answer = world.server.do(scene.action, world.root, fault.mode, call, fault.error, remote=fault.remote)
        at = f"{fault.name} at call {call} of {calls} ({answer.call})\n{answer.output}"
        MADE[f"{fault.name}, remote"] += bool(answer.fired)
        assert answer.code in (fault.codes if answer.fired else (0,)), f"{answer.code}: {at}"
        assert "Traceback" not in answer.output, at
        assert not rehearsal.mixtures(), at
        wrong = [*world.wrong(rows=fault.mode == "kill"), *_wrong_remote(world)]
        assert not wrong, f"{wrong} {at}"
        _finishes(rehearsal, names, at)


def _finishes(rehearsal: Rehearsal, names: set[str], at: str) -> None:
    world, scene = rehearsal.world, rehearsal.scene
    (world.store / "locks/remote").unlink(missing_ok=True)  # or it is left alone for a minute
    again = world.server.do(scene.action, world.root)
    assert again.code == 0, f"{again.code}: {again.output}\nafter {at}"
    assert rehearsal.looks() == rehearsal.after, f"not finished after {at}"
    assert _names(world) == names, f"not finished there after {at}"
    world.done("trimmed")
    wrong = [*world.wrong(), *_wrong_remote(world)]
    assert not wrong, f"{wrong} in the end, after {at}"
    assert not world.litter(), f"{world.litter()} after {at}"


def _names(world: World) -> set[str]:
    """Return which records and parcels the remote has."""
    found = [*_bucket(world).glob("v1/records/*/*"), *_bucket(world).glob("v1/trees/*/*")]
    return {path.name for path in found if "#" not in path.name}  # that is an upload which was cut short


def _wrong_remote(world: World) -> Iterator[str]:
    """Say what is wrong with the records, and with what they need."""
    for path in _bucket(world).glob("v1/records/*/*"):
        if "#" in path.name:
            continue
        record = seen(path.read_bytes(), path.name, 0, Trust({}, unsigned=True))
        if record.doubt:
            yield f"record {path.name[:8]}: {record.doubt}"
        for tree, raw in zip(record.trees or (), record.raw, strict=True):
            try:
                cutter = Cutter(tree, raw, _Nobody())
                cutter.feed((_bucket(world) / "v1/trees" / tree[:2] / tree).read_bytes())
                cutter.close()
            except (OSError, Corrupt) as error:
                yield f"record {path.name[:8]} needs {tree[:8]}: {error}"
