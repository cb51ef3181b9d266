"""Building from the nearest snapshot: the result is that of a fresh build, whatever the two locks are."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from cli_project import Project
from flows import World
from wheels import make_project, make_wheel, offline_environment, requirements

from venvflow.builders import recipe
from venvflow.disk import bytecode
from venvflow.disk.scan import walk
from venvflow.errors import EnvironmentFailure, Refused
from venvflow.model import Interpreter, Manifest, Outcome
from venvflow.pure.comparison import compare_manifests
from venvflow.pure.manifest import entries_of, first_difference
from venvflow.pure.names import normalised
from venvflow.state import carried
from venvflow.state.changes import drift_of
from venvflow.state.file_stats import look_as_made
from venvflow.state.materialise import Materialised, Materialiser
from venvflow.state.reader import open_reader
from venvflow.steps import base as bases
from venvflow.steps import share as shares
from venvflow.steps.build_venv import build_venv
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.restore import restore
from venvflow.steps.squish import manifest_of, squish
from venvflow.steps.state_files import need_key
from venvflow.steps.store import store

SHARED = "from pkgutil import extend_path\n"


def wheel(house: Path, name: str, version: str, files: dict[str, str], *, build: str = "") -> Path:
    """Return a wheel with *files* of site-packages; *build* tells two of one version apart."""
    scripts = {f"{name}-do": f"{name}:main"}
    return make_wheel(house / build, name, version, modules=files, scripts=scripts)


def wheels_in(house: Path) -> dict[str, list[Path]]:
    """Return wheels by name, in versions and builds: with files, packages and namespaces that they share."""

    def module(name: str, version: str) -> dict[str, str]:
        return {f"{name}.py": f"VERSION = {version!r}\ndef main(): print(VERSION)\n"}

    def within(name: str) -> dict[str, str]:
        info = f"{name}/_vendor/inner-1.0.dist-info"
        files = {f"{name}/_vendor/inner.py": "X = 1\n", f"{info}/METADATA": "Name: inner\nVersion: 1.0\n"}
        record = [f"{name}/_vendor/inner.py,,", f"{info}/METADATA,,", f"{info}/RECORD,,"]
        rows = "\n".join(each.removeprefix(f"{name}/_vendor/") for each in record) + "\n"
        return {f"{name}/__init__.py": "def main(): pass\n", **files, f"{info}/RECORD": rows}

    return {
        "plain": [wheel(house, "plain", each, module("plain", each)) for each in ("1.0", "2.0")]
        + [wheel(house, "plain", "1.0", module("plain", "again"), build="again")],
        "part-a": [wheel(house, "part_a", each, {"part/a.py": f"A = {each}\n", f"part/a{each[0]}.py": ""})
                   for each in ("1.0", "2.0")],
        "part-b": [wheel(house, "part_b", each, {"part/b/c/d.py": each}) for each in ("1.0", "2.0")],
        "same-a": [wheel(house, "same_a", "1.0", {"same/__init__.py": SHARED, "same/a.py": ""}),
                   wheel(house, "same_a", "2.0", {"same/__init__.py": SHARED, "same/a.py": "A = 2\n"})],
        "same-b": [wheel(house, "same_b", "1.0", {"same/__init__.py": SHARED, "same/b.py": ""}),
                   wheel(house, "same_b", "2.0", {"same/b.py": "", "same/moved.py": ""})],
        "outer": [wheel(house, "outer", each, within("outer")) for each in ("1.0", "2.0")],
        "carrier": [make_wheel(house, "carrier", each, data={
            f"carrier-{each}.data/data/share/carrier/{each}.txt": each.encode(),
            f"carrier-{each}.data/scripts/carry": b"#!python\nprint(1)\n",
            "carrier.pth": b"import sys\n"}) for each in ("1.0", "2.0")],
    }  # fmt: skip


class Twins:
    """A world with two venvs of one lock: api starts from what the store has, other from nothing."""

    def __init__(self, root: Path, house: Path, **settings: object) -> None:
        house.mkdir(exist_ok=True)
        self.world = world = World(root, house)
        lock = {"locks": ["api/requirements.txt"], **settings}
        world.configure({"api": lock, "other": {**lock, "restore": False}})
        self.environ: dict[str, str] = {}

    def lock(self, *wheels: Path, extra: tuple[str, ...] = ()) -> None:
        """Write the lock of both; the index has these wheels."""
        for each in wheels:
            there = self.world.house / each.name
            if not there.exists() or there.read_bytes() != each.read_bytes():
                shutil.copyfile(each, there)
        requirements(self.world.root / "api", wheels, extra=extra)

    def build(self, name: str = "api") -> tuple[Outcome, Manifest]:
        """Build one of them; return what that answered, and what it is."""
        self.world.clock += 1
        flow = self.world.flow()
        flow.environ = self.environ or flow.environ
        job = flow.job(name)
        hash_lockfiles(job)
        restore(job)
        outcome = build_venv(job)
        squish(job)
        with job.locked(), job.open_store() as opened, opened.use():
            manifest = manifest_of(job, opened, need_key(job))
        if name == "api":
            store(job)
        return outcome, manifest

    def both(self) -> Outcome:
        """Build both, see that they are equal, and return what building the first one answered."""
        outcome, made = self.build()
        shutil.rmtree(self.world.venv("other"), ignore_errors=True)  # it may be what the lock says already
        fresh, expected = self.build("other")
        assert first_difference(made, expected) == "", compare_manifests(made, expected)
        assert (fresh.did, " from " in fresh.reason) == ("built", False)
        self.compare_receipts()
        return outcome

    def compare_receipts(self) -> None:
        """See that both receipts say the same, and that the first venv is what its own says."""
        job, other = self.world.job(), self.world.job("other")
        one, two = job.place.receipt(), other.place.receipt()
        assert one is not None
        assert two is not None
        kept = ("modes", "private") if one.made == "built" else ()  # of files as they were before
        for name in ("trees", "link", "copies", "settings", *kept):
            assert getattr(one, name) == getattr(two, name), name
        assert one.directories.keys() == two.directories.keys()
        with job.open_store() as opened:
            assert look_as_made(walk(job.place.path), one)
            drift = drift_of(job.place.path, one, opened, job.matcher)
            assert (bool(drift), drift.touched, drift.lost) == (False, (), ())
            by_receipt = drift_of(job.place.path, one, None, job.matcher)
            assert (bool(by_receipt), by_receipt.stats) == (False, "")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Give wheels by name; where an index for them belongs is beside them."""
    return wheels_in(tmp_path_factory.mktemp("made"))


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Give the directory that is the index."""
    house = tmp_path / "house"
    house.mkdir()
    return house


NAMES = ("plain", "part-a", "part-b", "same-a", "same-b", "outer", "carrier")


def choices(seed: int) -> Iterator[dict[str, int]]:
    """Yield which wheels of each name are in a lock: each time a few are others than the time before."""
    chance = random.Random(seed)
    now: dict[str, int] = dict.fromkeys(NAMES, 0)
    while True:
        yield dict(now)
        for name in chance.sample(NAMES, chance.choice((1, 1, 1, 2, 3))):
            now[name] = chance.choice((-1, 0, 1, 1, 2 if name == "plain" else 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "count"),
    [
        ("uv", 5),
        pytest.param("uv", 100, marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
        pytest.param("pip", 6, marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
    ],
)
def test_what_is_built_is_what_a_fresh_build_gives(
    tmp_path: Path, house: Path, made: dict[str, list[Path]], build: str, count: int
) -> None:
    """Whatever changes from lock to lock: the same trees, and seldom from nothing."""
    twins = Twins(tmp_path, house, build=build)
    outcomes = []
    for choice, _ in zip(choices(count), range(count), strict=False):
        twins.lock(*(made[name][which] for name, which in choice.items() if which >= 0))
        outcomes.append(twins.both())
    started = [each for each in outcomes if " from " in each.reason]
    built = [each for each in outcomes[1:] if each.did == "built"]
    assert len(started) >= 0.7 * len(built) - 1  # of few locks, one may change a file that two packages have
    assert all(each.figures["installed"] != each.figures["packages"] for each in started)


# --------------------------------------------------------------------------- by tools with projects


class _Index(SimpleHTTPRequestHandler):
    """Answers as a package index for the wheels of a directory."""

    house = Path()

    def do_GET(self) -> None:
        """List the wheels of one name, or send one."""
        name = self.path.strip("/").rpartition("/")[2].partition("#")[0]
        if name.endswith(".whl"):
            body = (self.house / name).read_bytes()
        else:
            files = (each for each in self.house.glob("*.whl") if normalised(each.name.split("-")[0]) == name)
            links = (f'<a href="/{each.name}#sha256={sha256(each)}">{each.name}</a>' for each in files)
            body = f"<html><body>{' '.join(links)}</body></html>".encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/zip" if name.endswith(".whl") else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def sha256(file: Path) -> str:
    """Return the hash of a file in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def index(house: Path) -> Iterator[str]:
    """Give the URL of a package index for the wheels of the house."""
    handler = type("_House", (_Index,), {"house": house})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def project_of(tool: str, index: str, asked: list[str], *, docs: str = "") -> str:
    """Return the project file that asks for packages, ``docs`` in a group of its own."""
    if tool == "pipenv":
        pins = "".join('"{}" = "=={}"\n'.format(*each.split("==")) for each in asked)
        source = f'[[source]]\nurl = "{index}/simple"\nverify_ssl = false\nname = "x"\n'
        return f"{source}[packages]\n{pins}"
    source = {
        "uv": f'[[tool.uv.index]]\nurl = "{index}/simple"\ndefault = true\n',
        "poetry": "[tool.poetry]\npackage-mode = false\n"
        f'[[tool.poetry.source]]\nname = "x"\nurl = "{index}/simple"\npriority = "primary"\n',
        "pdm": "[tool.pdm]\ndistribution = false\n"
        f'[[tool.pdm.source]]\nname = "pypi"\nurl = "{index}/simple"\nverify_ssl = false\n',
    }[tool]
    group = f"[dependency-groups]\ndev = {json.dumps([docs])}\n" if docs else ""
    head = '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\n'
    return f"{head}dependencies = {json.dumps(asked)}\n{group}{source}"


STAGES = [
    (["plain==1.0", "part-a==1.0", "needy==1.0", "outer==1.0"], "part-b==1.0"),
    (["plain==2.0", "part-a==1.0", "needy==1.0", "outer==1.0"], "part-b==1.0"),
    (["plain==2.0", "part-a==1.0", "needy==1.0", "carrier==1.0", "outer==1.0"], "part-b==1.0"),
    (["plain==2.0", "part-a==1.0", "carrier==1.0", "part-b==1.0"], ""),
    (["plain==2.0", "part-a==1.0", "needy==1.0", "part-b==1.0"], ""),
    (["plain==2.0", "part-a==2.0", "part-b==1.0"], "outer==2.0"),
]
"""What is asked for, and what for development: a bump, what was needed is asked for, groups change, less."""


@pytest.mark.parametrize(
    "tool",
    [
        pytest.param("uv", marks=pytest.mark.slow),
        *(pytest.param(each, marks=[pytest.mark.long, pytest.mark.timeout(1500)])
          for each in ("poetry", "pdm", "pipenv")),
    ],
)  # fmt: skip
def test_what_tools_with_projects_build_is_what_a_fresh_build_gives(
    tmp_path: Path, house: Path, made: dict[str, list[Path]], index: str, tool: str
) -> None:
    """Each by a lock of its own; what its own sync does to the rest is what the lock says."""
    lock = recipe._NOUNS[recipe._KINDS[tool][-1]]
    twins = Twins(tmp_path, house, locks=[f"api/{lock}"])
    for each in made.values():
        for wheel in each[:2]:
            shutil.copyfile(wheel, house / wheel.name)
    make_wheel(house, "needy", "1.0", requires=["carrier==1.0"])
    home = twins.world.root / "api"
    home.mkdir()
    environ = {
        **os.environ,
        **offline_environment(house),
        "POETRY_CACHE_DIR": str(tmp_path / "poetry"),
        "PDM_CACHE_DIR": str(tmp_path / "pdm"),
        "PIPENV_CACHE_DIR": str(tmp_path / "pipenv"),
    }
    for name in (
        "UV_OFFLINE",
        "UV_NO_INDEX",
        "UV_FIND_LINKS",
        "PIP_NO_INDEX",
        "PIP_FIND_LINKS",
        "UV_NO_CONFIG",
    ):
        environ.pop(name, None)
    twins.environ = environ
    outcomes = []
    for asked, docs in STAGES:
        file = home / ("Pipfile" if tool == "pipenv" else "pyproject.toml")
        file.write_text(project_of(tool, index, asked, docs=docs))
        (home / lock).unlink(missing_ok=True)
        program = recipe.tool(tool, environ)
        done = subprocess.run(
            [program, "lock"], cwd=home, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        shutil.rmtree(home / ".venv", ignore_errors=True)  # some make one to lock
        outcomes.append(twins.both())
    assert all(" from " in each.reason for each in outcomes[1:])


# --------------------------------------------------------------------------- of one kind each


REAL = Path(__file__).parents[1]


@pytest.mark.long
@pytest.mark.network
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["web", "tools", "data"])
def test_real_locks(tmp_path: Path, name: str) -> None:
    """With a package less, then with all of them again: compiled ones, scripts, data files, namespaces."""
    twins = Twins(tmp_path, tmp_path / "house")
    twins.environ = {key: value for key, value in os.environ.items() if not key.startswith("VENVFLOW_")}
    text = (REAL / "config" / "locks" / f"{name}.txt").read_text()
    pins = [each for each in re.split(r"(?m)^(?=[a-z])", text) if each[:1].isalpha()]
    lock = twins.world.lock("api")
    outcomes = []
    for kept in (pins, pins[: len(pins) // 2] + pins[len(pins) // 2 + 2 :], pins[3:]):
        lock.write_text("".join(kept))
        outcomes.append(twins.both())
    assert all(" from " in each.reason for each in outcomes[1:]), outcomes


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, made: dict[str, list[Path]]) -> Path:
    """Give the store in which a venv of the first wheels of all names is."""
    root = tmp_path_factory.mktemp("stored")
    twins = Twins(root, root / "house")
    twins.lock(*(made[name][0] for name in NAMES))
    twins.build()
    return twins.world.store


@pytest.fixture
def twins(tmp_path: Path, house: Path, stored: Path) -> Twins:
    """Give two venvs that are still to be built, and a store in which something near is."""
    twins = Twins(tmp_path, house)
    shutil.copytree(stored, twins.world.store)
    return twins


def bump(twins: Twins, made: dict[str, list[Path]], name: str = "plain") -> None:
    """Write a lock in which one package is another one."""
    twins.lock(*(made[each][1 if each == name else 0] for each in NAMES))


@pytest.mark.slow
def test_what_was_not_touched_is_carried_over(twins: Twins, made: dict[str, list[Path]]) -> None:
    """Of the rest, what came is surveyed and nothing else, and squish does not look at the venv again."""
    bump(twins, made, "part-b")
    job = twins.world.job()
    hash_lockfiles(job)
    assert build_venv(job).reason.startswith("uv from ")
    (known,) = job.built.values()
    assert known.carried is not None
    assert {tree.name for tree in known.carried.trees} == {*NAMES, "inner"} - {"part-b"}
    assert {each.name for each in known.survey.distributions} == {"part-b"}
    assert not [path for path in known.survey.entries if known.carried.has(path)]
    with mock.patch.object(shares, "look_at", side_effect=AssertionError):
        assert squish(job).did == "squished"


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["canonical", "none"])
def test_what_came_is_compiled_when_the_venv_is_in_its_place(
    twins: Twins, made: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """Squish starts no compiler, and answers what it would have answered; trim needs none of it before."""
    twins.world.configure({"api": {"locks": ["api/requirements.txt"], "bytecode": policy}})
    bump(twins, made)
    started: list[object] = []
    start = bytecode._start

    def watched(python: Interpreter, directory: str, home: int | None) -> Any:
        started.append(home)
        return start(python, directory, home)

    monkeypatch.setattr(bytecode, "_start", watched)
    job = twins.world.job()
    hash_lockfiles(job)
    build_venv(job)
    assert [home is not None for home in started] == [True] * (policy == "canonical")
    with job.open_store() as opened:
        before = {name for name, _ in opened.objects.names()}
    outcome = squish(job)
    assert outcome.figures["compiled"] == (policy == "canonical")
    assert len(started) == (policy == "canonical"), "squish has started one"
    with job.open_store() as opened:
        came = {name for name, _ in opened.objects.names()} - before
    assert outcome.figures["new_objects"] == len(came) + (policy == "canonical")


@pytest.mark.slow
def test_a_lock_may_only_remove_and_may_change_everything(twins: Twins, made: dict[str, list[Path]]) -> None:
    """Then nothing is installed; and what has next to nothing in common is built from nothing."""
    twins.lock(*(made[name][0] for name in NAMES if name != "carrier"))
    outcome = twins.both()
    assert (outcome.figures["installed"], outcome.figures["packages"]) == (0, 6)
    twins.lock(*(made[name][1] for name in NAMES))
    outcome = twins.both()
    assert (outcome.reason, outcome.warnings) == ("uv", ())


@pytest.mark.slow
def test_local_projects_are_installed_again(twins: Twins, made: dict[str, list[Path]]) -> None:
    """A venv that names its project may be started from at any other place."""
    local = make_project(twins.world.root / "api" / "local", "local", "1.0")
    twins.lock(*(made[name][0] for name in NAMES), extra=("-e ./local",))
    assert twins.both().figures["installed"] == 1
    (local / "src" / "local.py").write_text("X = 1\n")
    make_project(twins.world.root / "api" / "local", "local", "2.0")
    twins.lock(*(made[name][0] for name in NAMES[1:]), extra=("-e ./local",))
    assert twins.both().figures["installed"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"exclude": ["part/b/", "share/"]},
        {"exclude": ["**/part/b/**", "**/share/**"]},
        {"squish": {"private": ["**/plain.py", "**/part/"], "min_size": 10}, "bytecode": "none"},
    ],
    ids=str,
)
def test_settings_of_a_venv(
    tmp_path: Path, house: Path, made: dict[str, list[Path]], settings: dict[str, object]
) -> None:
    """What is kept is what they say."""
    twins = Twins(tmp_path, house, **settings)
    twins.lock(*(made[name][0] for name in NAMES))
    twins.build()
    bump(twins, made)
    assert " from " in twins.both().reason


@pytest.mark.parametrize(
    ("settings", "starts"),
    [
        ({}, True),
        ({"restore": False}, False),
        ({"bytecode": "keep"}, False),
        ({"squish": {"link": ["symlink"]}}, False),
        ({"squish": {"link": ["copy"]}}, False),
        ({"exclude": ["x"]}, False),
        ({"prompt": "x"}, False),
        ({"build": "pip"}, False),
        ({"build": [["{uv}", "venv", "{venv}"], ["{uv}", "pip", "sync", "{lock}"]]}, False),
    ],
    ids=str,
)
def test_where_nothing_is_won_or_known_nothing_is_kept(
    twins: Twins, made: dict[str, list[Path]], settings: dict[str, object], *, starts: bool
) -> None:
    """A base agrees in all but the locks; and its files are linked, not copied."""
    twins.world.configure({"api": settings})
    bump(twins, made)
    assert (base_now(twins) is not None) == starts


def base_now(twins: Twins) -> bases.Base | None:
    """Return from what the next build of a venv starts."""
    job = twins.world.job()
    hash_lockfiles(job)
    with open_reader(job.config.store) as opened:
        assert opened is not None
        return next(iter(bases.bases_for(job, opened, need_key(job))), None)


# --------------------------------------------------------------------------- what other snapshots lend


@pytest.fixture
def lone(tmp_path: Path, house: Path) -> Twins:
    """Give a world in which nothing was built yet."""
    return Twins(tmp_path, house)


def lend(lone: Twins, made: dict[str, list[Path]], *kept: Path, lent: Path) -> Outcome:
    """Build a lock, then one with *lent* alone, then both; return what building that answers."""
    lone.lock(*kept, made["plain"][0])
    lone.build()
    lone.lock(lent)
    lone.build()
    lone.lock(*kept, lent)
    return lone.both()


def test_what_another_snapshot_has_is_not_installed_again(lone: Twins, made: dict[str, list[Path]]) -> None:
    """A package that was bumped in one venv is there for all others, whichever version they had."""
    outcome = lend(lone, made, made["part-a"][0], made["carrier"][0], lent=made["plain"][1])
    assert (outcome.did, outcome.figures["installed"], outcome.figures["packages"]) == ("built", 0, 3)
    assert re.fullmatch(r"uv from [0-9a-f]{12} and [0-9a-f]{12}", outcome.reason)
    assert outcome.warnings == ()


def test_what_shares_a_file_is_not_lent(lone: Twins, made: dict[str, list[Path]]) -> None:
    """Which of two packages has it, only an installation of both tells."""
    outcome = lend(lone, made, made["part-a"][0], made["same-a"][0], lent=made["same-b"][0])
    assert (outcome.did, outcome.figures["installed"]) == ("built", 1), outcome
    assert outcome.reason.count(" and ") == 0


def test_what_had_to_share_a_file_is_not_lent(lone: Twins, made: dict[str, list[Path]]) -> None:
    """Where it was, another package may have had the file."""
    lone.lock(made["plain"][0], made["part-a"][0])
    lone.build()
    lone.lock(made["same-a"][0], made["same-b"][0])
    lone.build()
    lone.lock(made["plain"][0], made["part-a"][0], made["same-b"][0])
    outcome = lone.both()
    assert (outcome.did, outcome.figures.get("installed")) == ("built", 1), outcome


@pytest.fixture
def silent(tmp_path: Path) -> Path:
    """Give a wheel that carries another distribution, inner 1.0, and names no file of it."""
    carried, info = "silent/_vendor", "silent/_vendor/inner-1.0.dist-info"
    files = {f"{carried}/inner.py": "X = 1\n", f"{info}/METADATA": "Name: inner\nVersion: 1.0\n"}
    record = "".join(f"{each.removeprefix(carried)[1:]},,\n" for each in (*files, f"{info}/RECORD"))
    made = make_wheel(
        tmp_path / "made",
        "silent",
        "1.0",
        modules={"silent/__init__.py": "", **files, f"{info}/RECORD": record},
    )
    with zipfile.ZipFile(made) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in members.items():
            rows = [] if name != "silent-1.0.dist-info/RECORD" else data.splitlines(keepends=True)
            kept = b"".join(row for row in rows if carried.encode() not in row)
            archive.writestr(name, kept or data)
    return made


@pytest.fixture
def inner(tmp_path: Path) -> Path:
    """Give a wheel of what others carry, too."""
    return make_wheel(tmp_path / "made", "inner", "1.0")


@pytest.mark.parametrize("stays", ["silent", "inner"])
def test_what_is_carried_under_the_same_name_goes_with_what_carries_it(
    lone: Twins, made: dict[str, list[Path]], request: pytest.FixtureRequest, stays: str
) -> None:
    """A venv that has both has both in one tree: neither half of it is laid for the other's sake."""
    kept = [made["plain"][0], made["part-a"][0]]
    both = {name: request.getfixturevalue(name) for name in ("silent", "inner")}
    lone.lock(*kept, *both.values())
    lone.build()
    lone.lock(*kept, both[stays])
    assert lone.both().figures["installed"] == 1


def test_nothing_is_lent_to_what_carries_the_same(
    lone: Twins, made: dict[str, list[Path]], inner: Path
) -> None:
    """Both would be one tree."""
    outcome = lend(lone, made, made["part-a"][0], made["outer"][0], lent=inner)
    assert (outcome.did, outcome.figures["installed"]) == ("built", 1), outcome


def test_what_carries_another_is_not_lent(lone: Twins, made: dict[str, list[Path]], silent: Path) -> None:
    """Its RECORD need not say so."""
    outcome = lend(lone, made, made["part-a"][0], made["carrier"][0], lent=silent)
    assert (outcome.did, outcome.figures.get("installed")) == ("built", 1), outcome


def test_a_loan_that_fails_costs_no_more_than_itself(
    lone: Twins, made: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build starts from the nearest snapshot alone then."""
    judged = []

    def judge(base: bases.Base, *rest: Any) -> bool:
        judged.append(base.names)
        if base.loans:
            raise bases.Unsure("for a reason")
        return original(base, *rest)

    original = bases.judge
    monkeypatch.setattr("venvflow.steps.build_venv.judge", judge)
    outcome = lend(lone, made, made["part-a"][0], made["carrier"][0], lent=made["plain"][1])
    assert (outcome.did, outcome.figures["installed"]) == ("built", 1)
    assert [name.count(" and ") for name in judged[-2:]] == [1, 0]


def test_what_a_tool_does_to_a_loan_is_noticed(
    lone: Twins, made: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as with what is the base's own: nobody takes over what is not as it was laid."""
    real = carried.carry

    def carry(venv: str, *rest: Any) -> Any:
        for module in Path(venv).glob("lib/python*/site-packages/plain.py"):
            data = module.read_bytes()
            module.unlink()
            module.write_bytes(data + b"EDITED = 1\n" * (len(data) > 0 and bool(rest[-1])))
        return real(venv, *rest)

    monkeypatch.setattr(bases, "carry", carry)
    outcome = lend(lone, made, made["part-a"][0], made["carrier"][0], lent=made["plain"][1])
    assert (outcome.did, outcome.figures["installed"]) == ("built", 1)


def test_another_version_of_the_tool_starts_from_nothing(
    twins: Twins, made: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may install the same wheels in another way."""
    bump(twins, made)
    found = base_now(twins)
    assert found is not None
    assert found.missing == ["plain"]
    monkeypatch.setattr(bases, "version_of", lambda *_: "uv 99")
    assert base_now(twins) is None


@pytest.mark.long
def test_what_an_empty_venv_brings_is_not_kept(tmp_path: Path, house: Path) -> None:
    """``python -m venv`` has put a pip and setuptools there, which a lock may name, too."""
    twins = Twins(tmp_path, house, build="pip")
    alpha, beta = (make_wheel(tmp_path / "made", name, "1.0") for name in ("alpha", "beta"))
    files = {"setuptools/__init__.py": "X = 1\n"}
    tools = make_wheel(tmp_path / "made", "setuptools", "99.0", modules=files)
    twins.lock(alpha, beta, tools)
    twins.build()
    twins.lock(make_wheel(tmp_path / "made", "alpha", "2.0"), beta, tools)
    assert "pip from " in twins.both().reason


@pytest.mark.slow
def test_a_build_from_nothing_is_compared(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is there and in the store; what differs takes the place of the snapshot, and ends with 1."""
    house = tmp_path / "other"
    for name, value in offline_environment(house).items():
        monkeypatch.setenv(name, value)
    demo, lock = make_wheel(house, "demo", "1.0"), project.root / "web" / "requirements.txt"
    lock.write_text("demo==1.0\n")
    assert project.run("build", "web").code == 0
    answer = project.run("build", "web", "--fresh")
    assert (answer.code, "web  confirmed " in answer.out) == (0, True), answer
    assert "from nothing" in answer.out
    demo.unlink()
    make_wheel(house, "demo", "1.0", modules={"demo.py": "OTHER = 1\n"})
    shutil.rmtree(house / ".uv-cache")
    before = project.run("list", "--json").document["snapshots"]
    answer = project.run("build", "web", "--fresh", "--json")
    assert answer.code == 1, answer
    (stored,) = [each for each in answer.document["tasks"] if each["task"] == "store:web"]
    assert stored["did"] == "stored"
    assert "demo" in stored["figures"]["differs"]
    assert "what was built from nothing replaces it" in stored["warnings"][0]
    assert len(project.run("list", "--json").document["snapshots"]) == len(before)
    shutil.rmtree(project.root / "web" / ".venv")
    assert project.run("build", "web").code == 0
    assert next((project.root / "web" / ".venv").glob("lib/*/*/demo.py")).read_text() == "OTHER = 1\n"


# --------------------------------------------------------------------------- what may go wrong


def in_the_store(twins: Twins, path: str) -> Path:
    """Return the object of a file of site-packages in the venv that was built."""
    job = twins.world.job()
    with job.open_store() as opened:
        snapshot = opened.snapshots()[-1]
        entries = entries_of(opened.load(snapshot))
    (entry,) = [each for each in entries.values() if each.path.endswith(f"site-packages/{path}")]
    return twins.world.store / "objects" / entry.digest[:2] / entry.digest[2:]


def edit(twins: Twins) -> None:
    """Edit what is shared."""
    path = in_the_store(twins, "outer/__init__.py")
    path.chmod(0o644)
    path.write_text("edited\n")


def lose(twins: Twins) -> None:
    """Lose a file of a package."""
    in_the_store(twins, "outer/__init__.py").unlink()


def lose_tree(twins: Twins) -> None:
    """Lose a package."""
    job = twins.world.job()
    with job.open_store() as opened:
        snapshot = opened.snapshots()[-1]
        (outer,) = [each for each in opened.load(snapshot).trees if each.name == "outer"]
    (twins.world.store / "trees" / outer.digest[:2] / outer.digest[2:]).unlink()


@pytest.mark.slow
@pytest.mark.parametrize("damage", [edit, lose, lose_tree], ids=lambda each: str(each.__name__))
def test_a_base_that_is_damaged_is_none(
    twins: Twins, made: dict[str, list[Path]], damage: Callable[[Twins], None]
) -> None:
    """Then the venv is built from nothing, and one line says so, if that was seen only then."""
    damage(twins)
    bump(twins, made)
    outcome = twins.both()
    assert outcome.reason == "uv"
    assert all("built from nothing, not from" in each for each in outcome.warnings)
    assert len(outcome.warnings) == (damage is not lose_tree)


@pytest.mark.slow
def test_a_base_may_vanish_meanwhile(
    twins: Twins, made: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody holds the store while a base is chosen and the empty venv is made."""
    lay = bases.lay

    def late(*given: object) -> object:
        for name in ("objects", "trees", "snapshots"):
            for each in (twins.world.store / name).glob("**/*"):
                if each.is_file():
                    each.unlink()
        return lay(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("venvflow.steps.build_venv.lay", late)
    bump(twins, made)
    outcome = twins.both()
    assert outcome.reason == "uv"
    assert "built from nothing" in outcome.warnings[0]


def wrapped(monkeypatch: pytest.MonkeyPatch, directory: Path, then: str) -> None:
    """Let builds use a uv that runs lines of shell after ``pip sync``, if it has started from a base."""
    real = os.path.join(os.path.dirname(sys.executable), "uv")
    program = directory / "uv"
    program.write_text(
        f"#!/bin/sh\ncase $* in *pip*sync*) python=$5 ;; esac\n"
        f"site=$(dirname $(dirname $python) 2>/dev/null)/lib/python3.*/site-packages\n"
        f'test -e $site/outer-1.0.dist-info && started=1\n{real} "$@" || exit\n'
        f"if test $started; then\n"
        f"while test $(cat $site/outer/__init__.py | wc -c) = 0; do sleep 0.01; done\n{then}\nfi\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(recipe, "_which", lambda _name, _path: str(program))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("then", "says"),
    [
        ("echo broken >> $(echo $site/outer/__init__.py)", "its tool changed"),
        ("rm $site/outer/__init__.py", "its tool changed"),
        ("rm -r $site/carrier*", ""),
        ("kill -9 $$", "was killed"),
        ("exit 3", "exit status 3"),
    ],
    ids=lambda value: value.partition(" ")[0],
)
def test_what_a_tool_does_to_the_base_is_noticed(
    twins: Twins, made: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch, then: str, says: str
) -> None:
    """And never published: what is edited in place is no object any more, and comes into the store again."""
    wrapped(monkeypatch, twins.world.house, then)
    bump(twins, made)
    (warning,) = twins.build()[0].warnings
    assert "built from nothing, not from" in warning
    assert says in warning
    assert in_place(twins) == "def main(): pass\n"
    assert in_the_store(twins, "outer/__init__.py").read_text() == "def main(): pass\n"


def in_place(twins: Twins) -> str:
    """Return what is in a file of the venv that was built."""
    return twins.world.module("outer/__init__").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before the tool starts", "while it is at work"])
def test_a_disk_that_is_full_leaves_the_old_venv(
    twins: Twins, made: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """And nothing beside it."""
    begin = Materialiser.begin

    def full(
        self: Materialiser, manifest: Manifest, destination: str, **more: Any
    ) -> Callable[[], Materialised]:
        def fail() -> Materialised:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), destination)

        if when == "before the tool starts":
            fail()
        begin(self, manifest, destination, **more)
        return fail

    twins.lock(*(made[name][0] for name in NAMES))
    twins.build()
    before = in_place(twins)
    monkeypatch.setattr(Materialiser, "begin", full)
    bump(twins, made)
    with pytest.raises(EnvironmentFailure, match="No space left"):
        twins.build()
    assert in_place(twins) == before
    assert sorted(os.listdir(twins.world.venv().parent)) == [".venv", "requirements.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("near", [True, False], ids=["from a base", "from nothing"])
def test_an_edit_in_place_is_not_lost_by_a_build(
    twins: Twins, made: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch, *, near: bool
) -> None:
    """Of what is quick to make, it is seen when that is about to take the place; of the rest, before."""
    twins.lock(*(made[name][0] for name in NAMES))
    twins.build()
    script = twins.world.venv() / "bin" / "plain-do"
    script.write_text(script.read_text() + "# mine\n")
    bump(twins, made)
    if not near:
        monkeypatch.setattr("venvflow.steps.build_venv.bases_for", lambda *_: [])
        monkeypatch.setattr("venvflow.steps.build_venv.Build", None)
    with pytest.raises(Refused, match="changed by hand"):
        twins.build()
    assert script.read_text().endswith("# mine\n")
    assert sorted(os.listdir(twins.world.venv().parent)) == [".venv", "requirements.txt"]


@pytest.mark.slow
def test_two_venvs_may_start_from_one_base_at_once(
    twins: Twins, made: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them gets what its own lock says."""
    world = twins.world
    world.configure({"api": {}, "web": {}})
    world.lock("api", *(made[name][0] for name in NAMES[1:]))
    world.lock("web", *(made[name][0] for name in NAMES[:-1]))
    both, lay = threading.Barrier(2), bases.lay

    def together(*given: object) -> object:
        both.wait(60)
        return lay(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("venvflow.steps.build_venv.lay", together)
    outcomes: dict[str, Outcome] = {}
    threads = [
        threading.Thread(target=lambda venv=venv: outcomes.update({venv: world.run(venv)["build_venv"]}))
        for venv in ("api", "web")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(each.reason.startswith("uv from ") for each in outcomes.values())
    assert not world.module("plain", "api").exists()
    assert world.module("plain", "web").exists()
