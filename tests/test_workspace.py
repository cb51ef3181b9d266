"""One lock file for several venvs: a change of it concerns those of which it says something else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from flows import World
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from scenario import manifest_of
from wheels import make_project, make_wheel, offline_environment, requirements, toml_of, uv_lock

from venvflow.builders import choose, tool
from venvflow.builders.build import Build
from venvflow.builders.pins import marker_values
from venvflow.disk import interpreters
from venvflow.model import Outcome, VenvSpec
from venvflow.pure.own_part import Chosen, Markers, requirements_part, tool_part
from venvflow.steps import key_inputs
from venvflow.steps.hash_lockfiles import compute_key, hash_lockfiles
from venvflow.steps.restore import restore
from venvflow.steps.state_files import need_key

MEMBERS = ("one", "two", "three")
UV = tool("uv", os.environ)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give two versions of each of five packages; ``eps`` needs ``delta`` for an extra."""
    house = tmp_path_factory.mktemp("house")
    for name in ("alpha", "beta", "gamma", "delta"):
        for version in ("1.0", "2.0"):
            make_wheel(house, name, version)
    for version in ("1.0", "2.0"):
        make_wheel(house, "eps", version, requires=["delta; extra == 'more'"])
    return house


def workspace(root: Path, house: Path, needs: dict[str, list[str]]) -> None:
    """Write a workspace whose members need what is said, and let uv lock it."""
    for name, each in needs.items():
        file = make_project(root / "libs" / name, name, requires=each) / "pyproject.toml"
        sources = "[tool.uv.sources]\none = {workspace = true}\n" if "one" in each else ""
        file.write_text(f"{file.read_text()}{sources}")
    (root / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["libs/*"]\n')
    uv_lock(root, house, UV, sys.executable)


def project(tmp_path: Path, house: Path, needs: dict[str, list[str]], store: Path) -> World:
    """Return a project with a venv for each member of a workspace."""
    world = World(tmp_path, house)
    workspace(world.root, house, needs)
    venvs = {name: {"locks": ["uv.lock"], "packages": [name]} for name in needs}
    world.configure(venvs, store={"path": str(store)})
    return world


NEEDS = {"one": ["alpha==1.0"], "two": ["beta==1.0", "one"], "three": ["gamma==1.0"]}


def did(outcomes: dict[str, Outcome]) -> list[str]:
    """Return what the steps answered."""
    return [each.did for each in outcomes.values()]


def test_a_change_for_one_member_builds_that_one_alone(tmp_path: Path, house: Path) -> None:
    """The others are told of it, once, and keep their venvs, though a bump touches lock and project file."""
    world = project(tmp_path, house, NEEDS, tmp_path / "store")
    for name in ("one", "two"):
        assert did(world.run(name))[:3] == ["new", "miss", "built"]
    hash_lockfiles(world.job("three"))
    inode = world.venv("one").stat().st_ino
    workspace(world.root, house, {**NEEDS, "two": ["beta==2.0", "one"]})
    told = world.run("one")
    assert told["hash_lockfiles"] == Outcome("unaffected", "uv.lock changed, not for one")
    assert did(told)[1:] == ["kept", "kept", "kept", "none", "kept"]
    assert world.venv("one").stat().st_ino == inode
    assert hash_lockfiles(world.job("one")).did == "same"
    assert hash_lockfiles(world.job("three")).reason == "uv.lock changed, not for three"
    assert did(world.run("two"))[:3] == ["new", "miss", "built"]
    assert 'VERSION = "2.0"' in world.module("beta", "two").read_text()
    # What a member needs by way of another is its own affair, too.
    workspace(world.root, house, {**NEEDS, "one": ["alpha==2.0"], "two": ["beta==2.0", "one"]})
    assert [hash_lockfiles(world.job(name)).did for name in MEMBERS] == ["new", "new", "unaffected"]


def test_two_locks_that_say_the_same_share_one_snapshot(tmp_path: Path, house: Path) -> None:
    """Another project with other members restores what this one built."""
    store = tmp_path / "store"
    first = project(tmp_path / "a", house, NEEDS, store)
    first.run("one")
    other = project(tmp_path / "b", house, {"one": ["alpha==1.0"], "four": ["eps[more]==1.0"]}, store)
    assert first.root.joinpath("uv.lock").read_bytes() != other.root.joinpath("uv.lock").read_bytes()
    assert hash_lockfiles(other.job("one")).did == "new"
    assert restore(other.job("one")).did == "hit"
    assert need_key(other.job("one")).key == need_key(first.job("one")).key


def test_constraints_of_others_and_comments_do_not_build(tmp_path: Path, house: Path) -> None:
    """Of a file of constraints that many share, those on packages that are asked for count."""
    world = World(tmp_path, house)
    world.configure({"api": {}})
    lock = requirements(world.root / "api", [house / "alpha-1.0-py3-none-any.whl"], extra=["-c ../all.txt"])
    shared = world.root / "all.txt"
    shared.write_text("alpha<2\nbeta==1.0\n")
    assert hash_lockfiles(world.job()).did == "new"
    for text in ("alpha<2\nbeta==2.0\n", "# all\nbeta==2.0\nalpha<2\ngamma==1.0\n"):
        shared.write_text(text)
        assert hash_lockfiles(world.job()) == Outcome("unaffected", "all.txt changed, not for api")
    shared.write_text("alpha<1.5\n")
    assert hash_lockfiles(world.job()).did == "new"
    lock.write_text(f"{lock.read_text()}-e ./local\n")  # whatever that is called
    hash_lockfiles(world.job())
    shared.write_text("alpha<1.5\nbeta==1.0\n")
    assert hash_lockfiles(world.job()).did == "new"
    # What is required is no constraint, though it is called one elsewhere.
    lock.write_text("-c ../all.txt\n-r ../all.txt\nalpha==1.0\n")
    hash_lockfiles(world.job())
    shared.write_text("alpha<1.5\nbeta==2.0\n")
    assert hash_lockfiles(world.job()).did == "new"


@pytest.mark.parametrize("more", ["-r ../../outside.txt", "-r more.toml"])
def test_constraints_count_where_not_all_requirements_are_read(
    tmp_path: Path, house: Path, more: str
) -> None:
    """Who knows what is asked for there."""
    world = World(tmp_path, house)
    world.configure({"api": {}})
    requirements(world.root / "api", [], extra=[more, "-c ../all.txt"])
    (world.root / "api" / "more.toml").touch()
    shared = world.root / "all.txt"
    shared.write_text("beta==1.0\n")
    hash_lockfiles(world.job())
    shared.write_text("beta==2.0\n")
    assert hash_lockfiles(world.job()).did == "new"


def test_a_lock_file_of_many_venvs_is_read_once_in_a_run(
    tmp_path: Path, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it has just changed: then another change might look the same."""
    world = World(tmp_path, house)
    world.configure({name: {"locks": ["all.txt"]} for name in ("api", "web")})
    lock = requirements(world.root, [house / "alpha-1.0-py3-none-any.whl"], name="all.txt")
    jobs = [world.job(name) for name in ("api", "web")]
    records = [compute_key(job) for job in jobs]
    read: list[str] = []
    really = key_inputs.read_input

    def reading(path: str, venv: str) -> bytes:
        read.append(venv)
        return really(path, venv)

    monkeypatch.setattr(key_inputs, "read_input", reading)

    def hold() -> list[bool]:
        read.clear()
        return [key_inputs.still_holds(job, record) for job, record in zip(jobs, records, strict=True)]

    assert (hold(), read) == ([True, True], ["api", "web"])
    monkeypatch.setattr(key_inputs, "_QUIET", 0)
    assert (hold(), read) == ([True, True], ["api"])
    assert (hold(), read) == ([True, True], [])
    st = lock.stat()
    lock.write_text(lock.read_text().replace("alpha==1.0", "alpha==2.0"))
    os.utime(lock, ns=(st.st_atime_ns, st.st_mtime_ns))
    assert (hold(), read) == ([False, False], ["api"])
    lock.unlink()
    assert hold() == [False, False]


def test_commands_may_read_all_of_a_lock(tmp_path: Path, house: Path) -> None:
    """What they make of a comment, nobody knows."""
    world = World(tmp_path, house)
    world.configure({"api": {"build": [["sh", "-c", "true", "{lock}"]]}})
    lock = world.lock("api", world.wheel("alpha"))
    assert hash_lockfiles(world.job()).did == "new"
    lock.write_text(f"{lock.read_text()}# more\n")
    assert hash_lockfiles(world.job()).did == "new"


def test_what_the_config_lists_as_a_file_of_the_key_counts_whole(tmp_path: Path, house: Path) -> None:
    """A lock file, and the project file of a workspace."""
    world = project(tmp_path, house, NEEDS, tmp_path / "store")
    files = [world.root / "uv.lock", world.root / "pyproject.toml"]
    for key in ({}, {"key": {"files": ["uv.lock", "pyproject.toml"]}}):
        world.configure({"one": {"locks": ["uv.lock"], "packages": ["one"], **key}})
        hash_lockfiles(world.job("one"))
        for file in files:
            file.write_text(f"{file.read_text()}# more\n")
            assert hash_lockfiles(world.job("one")).did == ("new" if key else "unaffected")


def test_a_tool_that_is_told_more_by_variables_may_read_all_of_a_lock(tmp_path: Path, house: Path) -> None:
    """``UV_PYTHON_PLATFORM`` makes other markers hold. Where from is installed is another matter."""
    world = World(tmp_path, house)
    lock = world.lock("api", world.wheel("alpha"))
    for name, did in (("UV_PYTHON_PLATFORM", "new"), ("UV_INDEX", "unaffected"), ("FLAVOUR", "unaffected")):
        world.configure({"api": {"key": {"env": [name]}}})
        hash_lockfiles(world.job(**{name: "windows"}))
        lock.write_text(f"{lock.read_text()}beta==1.0 ; sys_platform == 'win32'\n")
        assert hash_lockfiles(world.job(**{name: "windows"})).did == did


# --------------------------------------------------------------------------- equal parts, equal venvs

EXAMPLES = max(4, settings().max_examples // 10)
VERSIONS = st.sampled_from(["1.0", "2.0"])
WHERE = st.sampled_from(
    ["", "sys_platform == 'win32'", "python_version >= '3.8'", "os_name == 'nt' or extra == 'x'"]
)
NAMES = ("alpha", "beta", "gamma", "delta", "eps")


def _edge(name: str, where: str) -> dict[str, Any]:
    more = {"extra": ["more"]} if name == "eps" else {}
    return {"name": name, **more, **({"marker": where} if where else {})}


edges = st.lists(
    st.builds(_edge, st.sampled_from(NAMES), WHERE), max_size=3, unique_by=lambda edge: str(edge["name"])
)
locks = st.fixed_dictionaries(
    {**dict.fromkeys(NAMES, VERSIONS), "one": edges, "three": edges, "more": edges, "dev": edges}
)
"""What is drawn of a ``uv.lock``: versions of packages, and what members and extras need."""
changes = st.sets(st.sampled_from([*NAMES, "one", "three", "more", "dev"]), min_size=1)


def as_lock(drawn: dict[str, Any], house: Path) -> str:
    """Return the text of a ``uv.lock``."""

    def package(name: str) -> dict[str, Any]:
        wheel = house / f"{name}-{drawn[name]}-py3-none-any.whl"
        more = {"optional-dependencies": {"more": drawn["more"]}} if name == "eps" else {}
        return {
            "name": name, "version": drawn[name], "source": {"registry": str(house)},
            "wheels": [{"path": str(wheel)}], **more,
        }  # fmt: skip

    def local(name: str) -> dict[str, Any]:
        needs = {
            "dependencies": drawn[name],
            "dev-dependencies": {"dev": drawn["dev"]} if name == "one" else {},
        }
        return {"name": name, "version": "0.1", "source": {"editable": f"libs/{name}"}, **needs}

    packages = [*map(package, NAMES), local("one"), local("three")]
    return toml_of(
        {
            "version": 1,
            "requires-python": ">=3.8",
            "manifest": {"members": ["one", "three"]},
            "package": packages,
        }
    )


class Builds:
    """Builds of locks in a workspace of two members, from nothing, by the tools themselves."""

    def __init__(self, root: Path, house: Path) -> None:
        self.root = root
        self.house = house
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(root), **offline_environment(house)}
        self.python = interpreters.resolve("", root=str(root), environ=self.environ)
        self.markers = Markers(marker_values(self.python))
        for name in ("one", "three"):
            make_project(root / "libs" / name, name)
        (root / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["libs/*"]\n')

    def spec(self, lock: str, **more: Any) -> VenvSpec:
        """Return the spec of a venv of that lock file."""
        return VenvSpec("api", str(self.root / ".venv"), (str(self.root / lock),), **more)

    def built(self, spec: VenvSpec, text: str) -> dict[str, Any]:
        """Build a venv, always at the same place, and return all that was in it."""
        Path(spec.locks[0]).write_text(text)
        root, venv = str(self.root), self.root / "new"
        shutil.rmtree(venv, ignore_errors=True)
        Build(
            spec, choose(spec, self.environ), root, str(venv), self.python, self.environ, f"{root}/log"
        ).run()
        found = manifest_of(venv)
        found.pop(".lock", None)  # uv locks a venv only if there is something to do in it
        return dict(found)


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory, house: Path) -> Builds:
    """Give the workspace of this module."""
    return Builds(tmp_path_factory.mktemp("workspace"), house)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(st.tuples(locks, locks), changes, st.sampled_from(["one", "three"]), st.booleans())
def test_uv_locks_that_say_the_same_give_the_same_venv(
    builds: Builds, pair: tuple[dict[str, Any], dict[str, Any]], changed: set[str], name: str, dev: bool
) -> None:
    """Whatever is changed in a lock file: if the part of a member is the same, its fresh venv is."""
    first, other = pair
    second = {**first, **{key: other[key] for key in changed}}
    spec = builds.spec("uv.lock", packages=(name,), dev=dev)
    texts = [as_lock(each, builds.house) for each in (first, second)]
    chosen = Chosen(spec, builds.markers, lambda _: b"")
    one, two = (tool_part("uv", text.encode(), chosen) for text in texts)
    assert one is not None
    event(f"equal: {one == two}")
    if one == two and texts[0] != texts[1]:
        assert builds.built(spec, texts[0]) == builds.built(spec, texts[1])


RICH = """
[project.optional-dependencies]
x = ["gamma<2"]
y = ["gamma>=2"]
[dependency-groups]
dev = ["eps[more]"]
docs = ["beta<2"]
[tool.uv]
default-groups = ["docs"]
conflicts = [[{extra = "x"}, {extra = "y"}]]
"""
CHOICES: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"packages": "all"}, "--all-packages"),
    ({"packages": ("one",)}, "--package one"),
    ({"packages": ("one",), "dev": False}, "--package one --no-dev"),
    ({"packages": ("one",), "extras": ("x",)}, "--package one --extra x"),
    ({"packages": ("one",), "groups": ("lint",)}, "--package one --group lint"),
    ({"packages": ("two", "three")}, "--package two --package three"),
    ({"packages": ("three",), "dev": False}, "--package three --no-dev"),
]


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory, house: Path) -> Path:
    """Give a workspace that has all that a ``uv.lock`` may have: conflicting extras, groups, forks."""
    root = tmp_path_factory.mktemp("rich")
    needs = {"one": ["alpha"], "two": ["beta", "one"], "three": ["gamma; sys_platform=='win32'", "delta<2"]}
    for name, each in needs.items():
        make_project(root / "libs" / name, name, requires=each)
    for name, text in {"one": RICH, "two": "[tool.uv.sources]\none = {workspace = true}\n"}.items():
        with (root / "libs" / name / "pyproject.toml").open("a") as file:
            file.write(text)
    (root / "pyproject.toml").write_text(
        '[tool.uv.workspace]\nmembers = ["libs/*"]\n[dependency-groups]\ndev = ["delta"]\nlint = ["gamma"]\n'
    )
    uv_lock(root, house, UV, sys.executable)
    return root


@pytest.mark.parametrize(("choice", "options"), CHOICES)
def test_all_that_uv_would_install_counts(
    rich: Path, builds: Builds, choice: dict[str, Any], options: str
) -> None:
    """By its own word. More may count, where versions of uv differ or it alone knows."""
    spec = VenvSpec("api", "/.venv", (str(rich / "uv.lock"),), **choice)
    chosen = Chosen(spec, builds.markers, lambda name: (rich / name / "pyproject.toml").read_bytes())
    part = tool_part("uv", (rich / "uv.lock").read_bytes(), chosen)
    assert part is not None
    words = ["export", "--frozen", "--no-hashes", "--no-header", "--no-annotate", *options.split()]
    said = subprocess.run(
        [UV, *words], cwd=rich, env=builds.environ, check=True, capture_output=True, text=True
    )
    lines = [line.partition(" ; ") for line in said.stdout.splitlines()]
    here = [asked for asked, _, marker in lines if not marker or builds.markers.hold(marker) is not False]
    counts = json.loads(part)["package"]
    named = {f"{each['name']}=={each['version']}" for each in counts}
    named |= {f"-e ./libs/{each['name']}" for each in counts}
    assert here
    assert set(here) <= named


lines = st.lists(
    st.builds(
        "{}=={}{}{}".format,
        st.sampled_from(NAMES), VERSIONS,
        st.sampled_from(["", " ; sys_platform == 'win32'", ";python_version>='3.8'", " ; os_name=='posix'"]),
        st.sampled_from(["", "  # why", "\n# via\n"]),
    ),
    max_size=4, unique_by=lambda line: line[:3],
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("builder", ["uv", pytest.param("pip", marks=pytest.mark.long)])
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(st.tuples(lines, lines), st.randoms())
def test_requirements_that_say_the_same_give_the_same_venv(
    builds: Builds, builder: str, pair: tuple[list[str], list[str]], random: Random
) -> None:
    """In another order, with other comments, with lines of other platforms."""
    first, second = pair[0], [*pair[0], *(line for line in pair[1] if "win32" in line)]
    random.shuffle(second)
    spec = builds.spec("requirements.txt", build=builder)
    texts = ["".join(f"{line}\n" for line in each) for each in (first, second)]
    one, two = (requirements_part(text.encode(), builds.markers) for text in texts)
    assert one == two
    if texts[0] != texts[1]:
        assert builds.built(spec, texts[0]) == builds.built(spec, texts[1])
