"""Row 3: three copies of one venv shared, against the tools that link equal files."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from bench import checks, peers
from bench.project import PYTHON
from bench.rounds import in_turn
from bench.table import Line
from bench.world import Unavailable, World

_COPIES = ("a", "b", "c")

_NOTE = (
    "three venvs by uv, each with its own bytes, no bytecode; copied anew for every run, all in the page "
    "cache; whole processes, ours `venvflow squish PATH PATH PATH --bytecode none` into a store that is not "
    "there yet, which also indexes, makes durable and compares every byte; before any timing, all files are "
    "compared with the original, and it is seen that the copies share them"
)

_LARGE = 4096
"""Bytes from which on everybody shares a file; ours shares smaller ones, too, as the linkers do."""


class _Contender(NamedTuple):
    """How to share what is at a path, and what else it needs to start from nothing."""

    commands: Callable[[str], peers.Commands]
    settings: Callable[[], dict[str, str]] = dict


def measure_sharing(world: World) -> list[Line]:
    """Measure ``web`` (quick: ``tiny``): ours, every linker that is installed, and ienv."""
    name = "tiny" if world.quick else "web"
    pristine = _pristine(world, name)
    contenders = {"ours": _Contender(partial(_ours, world), partial(_empty_store, world))}
    linkers, skipped = _linkers(world)
    contenders |= linkers
    try:
        contenders["ienv"] = _Contender(peers.ienv(world), partial(_empty_home, world))
    except Unavailable as error:
        skipped["ienv"] = str(error)
    for who, contender in contenders.items():
        _run(world, pristine, contender, check=partial(_check, who))
    world.say(f"row 3: {world.rounds} rounds of {', '.join(contenders)}")
    seconds = in_turn(
        {who: partial(_run, world, pristine, each) for who, each in contenders.items()}, world.rounds
    )
    _profile(world, pristine, name)
    return _lines(name, pristine, seconds, skipped)


def _lines(
    name: str,
    pristine: str,
    seconds: dict[str, tuple[float, ...]],
    skipped: dict[str, str],
) -> list[Line]:
    files = sum(checks.count(os.path.join(pristine, copy, ".venv")) for copy in _COPIES)
    job = f"squish of three copies of {name}, {files:,} files"
    present = [who for who in peers.LINKERS if who in seconds]
    lines = [Line(3, job, who, 1.0, skipped=skipped[who]) for who in peers.LINKERS if who in skipped]
    if present:
        fastest = min(present, key=lambda who: statistics.median(seconds[who]))
        others = ", ".join(who for who in present if who != fastest) or "no other"
        against = f"{fastest}, the fastest ({others} there, too)"
        lines.append(Line(3, job, against, 1.0, seconds["ours"], seconds[fastest], note=_NOTE))
    if "ienv" in skipped:
        return [*lines, Line(3, job, "ienv", 0.4, skipped=skipped["ienv"])]
    note = f"ienv in three runs, its cache empty; it leaves small files (< {_LARGE} bytes) as they are"
    return [*lines, Line(3, job, "ienv", 0.4, seconds["ours"], seconds["ienv"], note=note)]


def _linkers(world: World) -> tuple[dict[str, _Contender], dict[str, str]]:
    """Return the linkers that are installed, and why the others are skipped."""
    found: dict[str, _Contender] = {}
    skipped: dict[str, str] = {}
    for who in peers.LINKERS:
        try:
            found[who] = _Contender(peers.linker(world, who))
        except Unavailable as error:
            skipped[who] = str(error)
    return found, skipped


# --------------------------------------------------------------------------- what is shared


def _pristine(world: World, name: str) -> str:
    """Return a directory with three venvs that share nothing, made by uv and kept between runs."""
    place = world.kept(f"copies-{name}")
    if os.path.isdir(place):
        return place
    making = world.path("copies")
    for copy in _COPIES:
        world.say(f"row 3: making {name}, copy {copy}")
        venv = os.path.join(making, copy, ".venv")
        world.run([world.uv, "venv", "--quiet", "--offline", "--python", PYTHON, venv])
        sync = [world.uv, "pip", "sync", "--quiet", "--offline", "--link-mode", "copy", "--python"]
        world.run([*sync, os.path.join(venv, "bin", "python"), world.lock_file(name)])
    os.rename(making, place)
    return place


def _run(
    world: World, pristine: str, contender: _Contender, check: Callable[[str, str], None] | None = None
) -> float:
    """Return the seconds that a contender takes to share fresh copies."""
    place = world.path("sharing")
    _copy(world, pristine, place)
    seconds = world.timed(*contender.commands(place), cwd=place, settings=contender.settings())
    (check or check_shared)(pristine, place)
    world.put_aside(place)
    return seconds


def _copy(world: World, pristine: str, place: str) -> None:
    world.run([world.tool("cp"), "-a", pristine, place])


def _ours(world: World, place: str) -> peers.Commands:
    venvs = [os.path.join(place, copy, ".venv") for copy in _COPIES]
    return [world.venvflow("squish", *venvs, "--bytecode", "none")]


def _empty_store(world: World) -> dict[str, str]:
    world.put_aside(world.path("sharing-store"))
    return {"VENVFLOW_STORE": world.path("sharing-store")}


def _empty_home(world: World) -> dict[str, str]:
    world.put_aside(world.path("home"))
    os.mkdir(world.path("home"))
    return {"HOME": world.path("home")}


def _profile(world: World, pristine: str, name: str) -> None:
    if world.profiling:
        place = world.path("sharing")
        _copy(world, pristine, place)
        (ours,) = _ours(world, place)
        title = f"row 3: squish of three copies of {name}"
        world.profile(title, list(ours), place, settings=_empty_store(world))
        world.put_aside(place)


# --------------------------------------------------------------------------- checks


def _check(who: str, pristine: str, place: str) -> None:
    """Raise WrongResult unless all three venvs are what they were, and share what is large."""
    for copy in _COPIES:
        made, original = (os.path.join(root, copy, ".venv") for root in (place, pristine))
        checks.compare(made, original, who=who)
    check_shared(pristine, place)


def check_shared(pristine: str, place: str) -> None:
    """Raise WrongResult unless nine of ten large files of one copy are the same file in another."""
    first, second = (os.path.join(place, copy, ".venv") for copy in _COPIES[:2])
    large = list(_large(os.path.join(pristine, "a", ".venv")))
    shared = sum(os.path.samefile(os.path.join(first, path), os.path.join(second, path)) for path in large)
    if not large or shared < 0.9 * len(large):
        raise checks.WrongResult(f"{shared} of {len(large)} large files are shared")


def _large(venv: str) -> Iterator[str]:
    for path in checks.files(venv):
        full = os.path.join(venv, path)
        if "/site-packages/" in path and not os.path.islink(full) and os.path.getsize(full) >= _LARGE:
            yield path
