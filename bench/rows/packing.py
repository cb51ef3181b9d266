"""Row 5: packing, first, after one package changed, and as xz, against tar with zstd and venvstacks."""

from __future__ import annotations

import os
import shlex
from functools import partial

from bench import checks, peers
from bench.bumps import bumped
from bench.project import Project, built
from bench.rounds import in_turn
from bench.table import Line
from bench.world import Unavailable, World

_NOTE = "store and page cache warm; whole processes; archives are read by tar and counted before any timing"


def measure_pack(world: World) -> list[Line]:
    """Measure ``data`` and ``data'`` (quick: ``small``) as zstd, and ``web`` (quick: ``tiny``) as xz."""
    name = world.main
    project = built(world, name)
    lines = _against_tar(world, project, name)
    lines.append(_after_a_change(world, project, name))
    lines.append(_as_xz(world, "tiny" if world.quick else "web"))
    return lines


# --------------------------------------------------------------------------- zstd


def _against_tar(world: World, project: Project, name: str) -> list[Line]:
    """Return the lines of a first pack: its time, and the size of the archive."""
    peer = "tar | zstd -3 -T2"
    theirs = project.path("theirs.tar.zst")
    tar, zstd = world.tool("tar"), world.tool("zstd")
    pipe = f"{tar} -C .venv -cf - . | {zstd} -q -f -3 -T2 -o {shlex.quote(theirs)}"
    world.run(["sh", "-c", pipe], project.root)
    _first(project, name)
    archive = project.path("dist", f"{name}.tar.zst")
    _check(world, archive, project.path(".venv"))
    world.say(f"row 5: {world.rounds} rounds of ours, {peer}")
    seconds = in_turn(
        {
            "ours": partial(_first, project, name),
            "theirs": partial(world.timed, ["sh", "-c", pipe], cwd=project.root),
        },
        world.rounds,
    )
    size, other = ((os.path.getsize(path) / 1e6,) for path in (archive, theirs))
    world.put_aside(theirs)
    _forget(project)
    project.profile(f"row 5: first pack of {name}", f"pack:{name}")
    note = f"no frame is kept; ours is `doit pack:{name}`, durable, with SHA-256 and description; {_NOTE}"
    job = f"first pack of {name}, {checks.count(project.path('.venv')):,} files"
    return [
        Line(5, job, peer, 1.2, seconds["ours"], seconds["theirs"], note=note),
        Line(5, f"size of the archive of {name}", peer, 1.0, size, other, "MB"),
    ]


def _first(project: Project, name: str) -> float:
    """Return the seconds of a pack for which nothing is there."""
    _forget(project)
    return project.timed(f"pack:{name}")


def _forget(project: Project) -> None:
    for path in (project.path("dist"), os.path.join(project.store, "frames")):
        project.world.put_aside(path)
    os.mkdir(os.path.join(project.store, "frames"))


def _check(world: World, archive: str, venv: str) -> None:
    """Raise WrongResult unless a tar of the venv's files, and little more, is in the archive."""
    listed = world.run([world.tool("tar"), "-tf", archive]).splitlines()
    packed = sum(1 for line in listed if line.startswith(("bin/", "lib/")) and not line.endswith("/"))
    there = checks.count(venv)
    if not 0 <= there - packed <= 5:  # the links to the interpreter are not in it
        raise checks.WrongResult(f"{archive} has {packed} of {there} files")


def _after_a_change(world: World, project: Project, name: str) -> Line:
    """Return the line of the pack of a venv that differs in one package, after the first."""
    first: list[float] = []
    second: list[float] = []
    for round_ in range(world.few_rounds):
        world.say(f"row 5: {name} and then {name}', round {round_ + 1} of {world.few_rounds}")
        for number, seconds in enumerate((first, second)):
            project.use_lock(bumped(world, name, number))
            project.run(f"squish:{name}")
            if seconds is first:
                _forget(project)
            seconds.append(project.timed(f"pack:{name}"))
    _check(world, project.path("dist", f"{name}.tar.zst"), project.path(".venv"))
    if world.profiling:
        world.put_aside(project.path("dist"))
        project.profile(f"row 5: pack of {name}' after {name}", f"pack:{name}")
    note = "all frames but those of the changed package are kept; whole processes of doit"
    return Line(
        5, f"pack of {name}' after {name}", "its first pack", 0.15, tuple(second), tuple(first), note=note
    )


# --------------------------------------------------------------------------- xz


def _as_xz(world: World, name: str) -> Line:
    """Return the line of a pack as xz against venvstacks."""
    job, peer = f"pack of {name}, xz", "venvstacks create_archive"
    project = built(world, name, bytecode="none")
    try:
        theirs = peers.venvstacks(world, project.path(".venv"), project.path("theirs"))
    except Unavailable as error:
        return Line(5, job, peer, 0.6, skipped=str(error))
    archive = project.path("dist", f"{name}.tar.xz")
    ours = world.venvflow("pack", name, "--level", "6", "--force", "--output", archive)
    world.run(ours, project.root, settings=project.settings)
    _check(world, archive, project.path(".venv"))
    world.say(f"row 5: {world.few_rounds} rounds of ours, {peer}")
    seconds = in_turn(
        {
            "ours": partial(world.timed, ours, cwd=project.root, settings=project.settings),
            "theirs": partial(world.timed, *theirs, cwd=project.root),
        },
        world.few_rounds,
    )
    world.profile(f"row 5: pack of {name}, xz", ours, project.root, settings=project.settings)
    note = f"a venv without bytecode, which theirs leaves out, as it does scripts and RECORDs; {_NOTE}"
    return Line(5, job, peer, 0.6, seconds["ours"], seconds["theirs"], note=note)
