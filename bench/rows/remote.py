"""Row 16: a venv from a bucket over a slow link, against an archive of it and against building it."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from bench import checks, mirror, ranges
from bench.bumps import bumped
from bench.costs import Cost, cost_of
from bench.link import GIGABIT, Link, Speed, Traffic, through
from bench.object_storage import BUCKET
from bench.project import PYTHON, Project
from bench.site import Site, configure, linked, site
from bench.table import Line
from bench.world import Unavailable, World
from venvflow.pure.parcels import parcel_path

MB = 1e6
_ONE_CONNECTION = 90e6
_NEAR, _FAR = 0.02, 0.1
_MEMORY = 250.0
_START = 0.15
"""Seconds that the process which talks to the remote may take to start."""

_SILENCE = 2
_VENVS = 100
_CACHE = "cache.tar.zst"
_NOTE = (
    "simulated link, 1 Gbit/s for all and 90 MB/s for one connection, no TLS; SeaweedFS on the same cores; "
    "an empty store and a warm page cache; whole processes"
)


class _Way(NamedTuple):
    """One way to get the venv once: what it cost, and what went over the link."""

    cost: Cost
    traffic: Traffic


def measure_remote(world: World) -> list[Line]:
    """Measure all that a machine asks of a remote, with the main input."""
    with site(world) as fleet:
        world.say("row 16: cold pulls")
        lines = _cold(fleet)
        for part in (_bump, _misses, _dead, _nothing):
            world.say(f"row 16: {part.__name__.strip('_')}")
            lines.extend(part(fleet))
    return lines


def _speed(round_trip: float) -> Speed:
    return Speed(round_trip, GIGABIT, _ONE_CONNECTION)


# --------------------------------------------------------------------------- a cold machine


def _cold(fleet: Site) -> list[Line]:
    """Measure a machine that has nothing, at two distances."""
    world = fleet.world
    archive = _archive(fleet)
    ours: dict[float, list[_Way]] = {_NEAR: [], _FAR: []}
    theirs: dict[float, list[_Way]] = {_NEAR: [], _FAR: []}
    built: list[_Way] = []
    trees = len(checks.trees(fleet.home.path(".venv")))
    page, why = _mirror(fleet)
    for distance in (_NEAR, _FAR):
        speed = _speed(distance)
        with linked(fleet, speed) as way, through(fleet.bucket.files, speed) as to_mirror:
            contenders: list[tuple[list[_Way], Callable[[], _Way]]] = [
                (ours[distance], partial(_pull, fleet, way)),
                (theirs[distance], partial(_unpack, fleet, way)),
            ]
            if page and distance == _NEAR:
                contenders.append((built, partial(_install, fleet, to_mirror, page)))
            for number in range(world.few_rounds):
                for done, contender in contenders[:: 1 if number % 2 == 0 else -1]:
                    done.append(contender())
    return [*_sizes(fleet, ours[_NEAR], archive, trees), *_times(fleet, ours, theirs, built, why)]


def _sizes(fleet: Site, ours: list[_Way], archive: int, trees: int) -> Iterator[Line]:
    name = fleet.world.main
    down = tuple(way.traffic.down / MB for way in ours)
    job = f"cold restore of {name}"
    yield Line(16, f"{job}: bytes", "tar | zstd -3", 1.05, down, (archive / MB,), "MB", _NOTE)
    most = tuple(trees + way.traffic.down / (8 << 20) + 2 for way in ours)
    asked = tuple(float(way.traffic.requests) for way in ours)
    yield Line(16, f"{job}: requests", "trees + stored / 8 MiB + 2", 1.0, asked, most, "", _NOTE)
    memory = tuple(way.cost.memory / MB for way in ours)
    note = "peaks of the command and of the processes that talk to the remote, added"
    yield Line(16, f"{job}: memory", "limit", 1.0, memory, (_MEMORY,), "MB", note)


def _times(
    fleet: Site,
    ours: Mapping[float, list[_Way]],
    theirs: Mapping[float, list[_Way]],
    built: list[_Way],
    why: str,
) -> Iterator[Line]:
    job = f"cold restore of {fleet.world.main}"
    for distance, limit in ((_NEAR, 1.15), (_FAR, 1.35)):
        far = f"{distance * 1000:.0f} ms"
        floor = tuple(way.traffic.down / GIGABIT for way in ours[distance])
        fetch = tuple(way.traffic.seconds for way in ours[distance])
        note = f"first request to last byte; {_NOTE}"
        yield Line(16, f"{job}: fetch at {far}", "its bytes at 1 Gbit/s", limit, fetch, floor, note=note)
        here, there = ([way.cost.seconds for way in each[distance]] for each in (ours, theirs))
        against = f"one tar.zst in {ranges.CONNECTIONS} connections, then tar -x"
        yield Line(16, f"{job} at {far}", against, 0.8, tuple(here), tuple(there), note=_NOTE)
    against = "uv sync --compile-bytecode, cold cache, mirror"
    if why:
        yield Line(16, f"{job}: CPU", against, 0.2, unit="CPU s", skipped=why)
        return
    near = ours[_NEAR]
    here = [way.cost.processor for way in near]
    there = [way.cost.processor for way in built]
    note = f"all processes of the command, not the server's; {_NOTE}"
    yield Line(16, f"{job}: CPU", against, 0.2, tuple(here), tuple(there), "CPU s", note)
    seconds = tuple(way.cost.seconds for way in near), tuple(way.cost.seconds for way in built)
    yield Line(16, f"{job} at {_NEAR * 1000:.0f} ms", against, 0.3, *seconds, note=_NOTE)


def _archive(fleet: Site) -> int:
    """Put the venv into the bucket as an archive of tar and zstd; return its bytes."""
    world = fleet.world
    path = world.path(_CACHE)
    for tool in ("tar", "zstd"):
        world.tool(tool)
    venv = fleet.home.path(".venv")
    with open(path, "wb") as file:
        tar = subprocess.Popen(
            ["tar", "-C", os.path.dirname(venv), "-c", os.path.basename(venv)], stdout=subprocess.PIPE
        )
        subprocess.run(["zstd", "-3", "-T2", "-q", "-c"], stdin=tar.stdout, stdout=file, check=True)
        tar.wait()
    with open(path, "rb") as file:
        fleet.bucket.store("writer").put(_CACHE, file)
    return os.stat(path).st_size


def _pull(fleet: Site, way: Link) -> _Way:
    """Restore the venv on a machine that has nothing."""
    world = fleet.world
    machine = fleet.machine(fleet.remote(way.url))
    way.taken()
    words = world.venvflow("restore", world.main)
    cost = cost_of(world, words, cwd=machine.root, settings=fleet.settings(machine))
    checks.compare(machine.path(".venv"), fleet.home.path(".venv"), who="ours")
    return _Way(cost, way.taken())


def _unpack(fleet: Site, way: Link) -> _Way:
    """Download the archive and unpack it, as CI services do."""
    world = fleet.world
    place = world.path(f"unpacked-{next(_numbers)}")
    os.mkdir(place)
    way.taken()
    cost = cost_of(
        world,
        [sys.executable, ranges.__file__, way.url, BUCKET, _CACHE, f"{place}/{_CACHE}"],
        ["tar", "--zstd", "-xf", _CACHE],
        cwd=place,
        settings=fleet.bucket.environ("reader"),
    )
    checks.compare(f"{place}/.venv", fleet.home.path(".venv"), who="tar")
    return _Way(cost, way.taken())


_numbers = itertools.count(1)


def _mirror(fleet: Site) -> tuple[str, str]:
    """Return the page of a mirror that uv can install from, or why there is none."""
    try:
        return mirror.fill(fleet.world, fleet.world.main, fleet.bucket.files), ""
    except Unavailable as error:
        return "", str(error)


def _install(fleet: Site, way: Link, page: str) -> _Way:
    """Let uv make the venv, from a mirror and with an empty cache."""
    world = fleet.world
    number = next(_numbers)
    place = world.path(f"by-uv-{number}")
    way.taken()
    cost = cost_of(
        world,
        [world.uv, "venv", "--quiet", "--python", PYTHON, place],
        [
            world.uv, "pip", "sync", "--quiet", "--no-index", "--find-links", f"{way.url}{page}",
            "--compile-bytecode", "--link-mode", "hardlink", "--require-hashes",
            "--python", f"{place}/bin/python", world.lock_file(world.main),
        ],
        cwd=world.run_dir,
        settings={"UV_CACHE_DIR": world.path(f"uv-cache-{number}"), "UV_OFFLINE": "0"},
    )  # fmt: skip
    if checks.count(place) < checks.count(fleet.home.path(".venv")) - 50:
        raise checks.WrongResult(f"uv made {checks.count(place)} files only")
    return _Way(cost, way.taken())


# --------------------------------------------------------------------------- one package at another version


def _bump(fleet: Site) -> list[Line]:
    """Measure what one package at another version costs: its push, and its pull where the rest is."""
    world, home = fleet.world, fleet.home
    name = world.main
    with linked(fleet, _speed(_NEAR)) as way:
        configure(home, fleet.remote(way.url, mode="write", prefix="bump"))
        reader = fleet.machine(fleet.remote(way.url, prefix="bump"))
        push = partial(
            cost_of, world, world.venvflow("push", name), cwd=home.root, settings=fleet.settings(home)
        )
        pull = partial(
            cost_of, world, world.venvflow("restore", name), cwd=reader.root, settings=fleet.settings(reader)
        )
        first, before = push(), checks.trees(home.path(".venv"))
        pull()
        for project in (home, reader):
            project.use_lock(bumped(world, name, 1))
        world.run(home.doit(f"*:{name}"), home.root, settings=home.settings | {"VENVFLOW_REMOTE": "off"})
        way.taken()
        second, sent = push(), way.taken()
        pull()
        came, after = way.taken(), checks.trees(home.path(".venv"))
    checks.same_trees(reader.path(".venv"), home.path(".venv"))
    bucket = fleet.bucket.store("reader")
    changed = sum(bucket.head(f"bump/{parcel_path(tree)}")["size"] for tree in set(after) - set(before))
    if not 0 < changed < sent.up:
        raise checks.WrongResult(f"{changed} bytes of parcels changed, and {sent.up} were sent")
    job, parcel = f"one package of {name} changed", f"its parcels ({changed / MB:.2f} MB) + 64 KiB"
    limit = ((changed + (64 << 10)) / MB,)
    return [
        Line(16, f"{job}: bytes pulled", parcel, 1.0, (came.down / MB,), limit, "MB"),
        Line(16, f"{job}: requests of the pull", "limit", 1.0, (float(came.requests),), (6.0,), ""),
        Line(16, f"{job}: bytes pushed", parcel, 1.0, (sent.up / MB,), limit, "MB"),
        Line(
            16, f"{job}: CPU of the push", "first push", 0.1,
            (second.processor,), (first.processor,), "CPU s",
            f"{sent.requests} requests",
        ),
    ]  # fmt: skip


# --------------------------------------------------------------------------- no snapshot, no server, no work


def _misses(fleet: Site) -> list[Line]:
    """Measure what a remote costs that has no snapshot: for one venv, and for many over one process."""
    world = fleet.world
    locks = {f"v{number:03}": f"six==1.16.0 --hash=sha256:{number:064x}\n" for number in range(_VENVS)}
    venvs = {name: {"path": f"{name}/.venv", "locks": [f"{name}/requirements.txt"]} for name in locks}
    with linked(fleet, _speed(_FAR)) as way:
        one = fleet.machine(fleet.remote(way.url, prefix="empty"))
        many = fleet.machine(fleet.remote(way.url, prefix="empty"), venvs)
        for name, lock in locks.items():
            many.write(f"{name}/requirements.txt", lock)
        for project, tasks in ((one, 1), (many, _VENVS)):
            said = world.run(project.doit("restore"), project.root, settings=fleet.settings(project))
            if said.count("remote: no snapshot") != tasks:
                raise checks.WrongResult(f"that was no miss of {tasks} venvs:\n{said[-500:]}")
        asked = way.taken().requests
        here, there = _against_none(fleet, one, _FAR + _START)
        all_here, all_there = _against_none(fleet, many, _VENVS * _FAR + _START, rounds=1)
    note = f"doit restore at {_FAR * 1000:.0f} ms, in turn with VENVFLOW_REMOTE=off; {_NOTE}"
    return [
        Line(16, "a miss", "without a remote + 1 round trip + 0.15 s", 1.0, here, there, note=note),
        Line(
            16, f"{_VENVS} misses", f"without + {_VENVS} round trips + 0.15 s", 1.0, all_here, all_there,
            note=f"{asked - 2:.0f} requests; {note}",
        ),
    ]  # fmt: skip


def _against_none(
    fleet: Site, project: Project, more: float, *, rounds: int = 0
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the seconds of ``doit restore`` with its remote, and those without, with *more* added."""
    world = fleet.world
    here: list[float] = []
    there: list[float] = []
    for _ in range(rounds or world.few_rounds):
        ways: list[tuple[list[float], dict[str, str]]] = [(here, {}), (there, {"VENVFLOW_REMOTE": "off"})]
        for seconds, settings in ways:
            world.put_aside(project.store)  # in which it is written that a remote was down
            seconds.append(
                cost_of(
                    world, project.doit("restore"), cwd=project.root,
                    settings=fleet.settings(project) | settings,
                ).seconds
            )  # fmt: skip
    return tuple(here), tuple(seconds + more for seconds in there)


def _dead(fleet: Site) -> list[Line]:
    """Measure a remote that refuses connections, and one that takes them and says nothing."""
    lines = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        for how, server, more in (("refused", closed, 4.0), ("silent", silent, _SILENCE + 2.0)):
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            machine = fleet.machine(fleet.remote(url, silence=f"{_SILENCE}s"))
            settings = fleet.settings(machine)
            said = fleet.world.run(machine.doit("restore"), machine.root, settings=settings)
            if "cannot be used" not in said:
                raise checks.WrongResult(f"nothing was said of a remote that is {how}:\n{said[-500:]}")
            here, there = _against_none(fleet, machine, more)
            against = f"without a remote + {more:g} s"
            note = f"once per run; silence: {_SILENCE}s"
            lines.append(Line(16, f"a remote that is {how}", against, 1.0, here, there, note=note))
    return lines


def _nothing(fleet: Site) -> list[Line]:
    """Count the modules that doit loads with nothing to do, with a remote and without."""
    world, home = fleet.world, fleet.home
    job, against = f"doit with nothing to do, {world.main}: modules", "without a remote"
    try:
        strace = world.tool("strace")
    except Unavailable as error:
        return [Line(16, job, against, 1.01, unit="modules", skipped=str(error))]
    home.use_lock(world.lock_file(world.main))
    configure(home, fleet.remote(fleet.bucket.endpoint, mode="write"))
    settings = fleet.settings(home)
    loaded = {}
    for who, more in (("with", {}), ("without", {"VENVFLOW_REMOTE": "off"})):
        for _ in range(3):  # what one run made, the next one may want to look at once
            said = world.run(home.doit(), home.root, settings=settings | more)
        if "nothing to do" not in said:
            raise checks.WrongResult(f"{who} a remote there is something to do:\n{said[-500:]}")
        output = world.path(f"calls-{who}")
        world.run([strace, "-f", "-qq", "-o", output, *home.doit()], home.root, settings=settings | more)
        with open(output, encoding="utf-8", errors="replace") as file:
            calls = [line.split(maxsplit=1)[1] for line in file]
        for call in calls:
            if call.startswith(("socket(", "connect(")) or "/obstore/" in call or "/cryptography/" in call:
                raise checks.WrongResult(f"a run with nothing to do asks the remote: {call}")
        loaded[who] = float(sum(call.startswith("openat(") and '.pyc"' in call for call in calls))
    note = "by strace: no socket is opened, nor any of the libraries that a remote needs"
    return [Line(16, job, against, 1.01, (loaded["with"],), (loaded["without"],), "modules", note)]
