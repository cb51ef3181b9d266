"""Choosing a builder, running it for real on wheels of our own, and what happens when it fails."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from contents import mounted, needs_proc, needs_root
from hypothesis import given
from hypothesis import strategies as st
from wheels import make_project, make_wheel, offline_environment, pylock, requirements, uv_lock

import venvflow
from venvflow import interrupts
from venvflow.builders import Recipe, checks, choose, commands, output, recipe
from venvflow.builders.build import Build, reads_metadata_only
from venvflow.builders.environment import child_environment
from venvflow.builders.pins import marker_values
from venvflow.disk import interpreters, locks, processes
from venvflow.errors import BuildFailed, EnvironmentFailure, LockTimeout, UsageError
from venvflow.model import VenvSpec
from venvflow.pure.lockfiles import listed
from venvflow.pure.own_part import Chosen, Markers, tool_part
from venvflow.pure.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
UV = shutil.which("uv", path=os.path.dirname(sys.executable)) or shutil.which("uv") or ""
needs_uv = pytest.mark.skipif(not UV, reason="uv is not installed")
UV_AND_PIP = [pytest.param("uv", marks=needs_uv), pytest.param("pip", marks=pytest.mark.slow)]
UV_AND_LATER_PIP = [UV_AND_PIP[0], pytest.param("pip", marks=pytest.mark.long)]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Which programs there are is not remembered from one test to the next."""
    recipe._which.cache_clear()
    yield
    recipe._which.cache_clear()


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """Return a function that makes a machine on which only the named programs are installed."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere" / "python"))

    def machine(*programs: str) -> dict[str, str]:
        directory = tmp_path / "-".join(["bin", *programs])
        directory.mkdir()
        for name in programs:
            (directory / name).write_text("#!/bin/false\n")
            (directory / name).chmod(0o755)
        return {"PATH": str(directory)}

    return machine


def spec_of(directory: Path, *locks: str, **more: object) -> VenvSpec:
    """Return the spec of ``api`` with *locks* in *directory*; project files are put beside them."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("pyproject.toml", "Pipfile"):
        (directory / name).touch()
    paths = tuple(str(directory / lock) for lock in locks)
    return VenvSpec("api", str(directory / ".venv"), paths, **more)  # type: ignore[arg-type]


class Project:
    """A project with a wheelhouse, and one build in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.house = root / "house"
        self.api = root / "services" / "api"
        self.api.mkdir(parents=True)
        self.staging = self.api / ".vf-1" / ".venv"
        self.log = root / ".venvflow" / "api" / "build.log"
        self.environ = {"PATH": SYSTEM_PATH, "HOME": str(root.parent), **offline_environment(self.house)}

    def wheel(self, name: str = "demo", version: str = "1.0", **more: object) -> Path:
        """Put a wheel into the wheelhouse."""
        return make_wheel(self.house, name, version, **more)  # type: ignore[arg-type]

    def request(self, *locks: Path, recipe: Recipe | None = None, **more: object) -> Build:
        """Return the order to build ``api`` from *locks* at a fresh staging path."""
        spec = VenvSpec("api", str(self.api / ".venv"), tuple(map(str, locks)), **more)  # type: ignore[arg-type]
        self.staging.parent.mkdir(exist_ok=True)
        python = interpreters.resolve("", root=str(self.root), environ=self.environ)
        recipe = recipe or choose(spec, self.environ)
        return Build(
            spec, recipe, str(self.root), str(self.staging), python, dict(self.environ), str(self.log)
        )

    def build(self, *locks: Path, **more: object) -> tuple[str, ...]:
        """Build ``api`` from *locks* and return the warnings."""
        return self.request(*locks, **more).run()  # type: ignore[arg-type]

    def commands(self, *commands: tuple[str, ...], **more: object) -> tuple[str, ...]:
        """Build ``api`` by *commands* and return the warnings."""
        return self.build(build=commands, **more)

    def python(self, code: str) -> str:
        """Run *code* in the venv that was built and return what it prints."""
        argv = [str(self.staging / "bin" / "python"), "-I", "-B", "-c", code]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    def installed(self) -> set[str]:
        """Return the distributions in the venv that was built, without pip's own."""
        found = {path.name.split("-")[0] for path in self.staging.glob("lib/*/site-packages/*.dist-info")}
        return found - {"pip", "setuptools"}

    def bytecode(self) -> list[Path]:
        """Return all compiled files in the venv."""
        return list(self.staging.rglob("*.pyc"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project at a path with blanks and signs that a shell would take for its own."""
    # No dollar sign: pip's scripts hand their interpreter's path to sh in double quotes.
    return Project(tmp_path / "a b;touch PWNED & 'c")


MAKE = ("{python}", "-I", "-B", "-m", "venv", "--without-pip", "{venv}")
FOREIGN = """rm "$0"; printf '#!/bin/sh\\nexec %s "$@"' "$1" > "$0"; chmod +x "$0\""""


# --------------------------------------------------------------------------- choosing


@pytest.mark.parametrize(
    ("lock", "installed", "name"),
    [
        ("uv.lock", ["uv"], "uv"),
        ("poetry.lock", ["uv", "poetry"], "poetry"),
        ("pdm.lock", ["uv", "pdm"], "pdm"),
        ("Pipfile.lock", ["uv", "pipenv"], "pipenv"),
        ("requirements.txt", ["uv"], "uv"),
        ("requirements.txt", [], "pip"),
        ("requirements-dev.lock", [], "pip"),
        ("pylock.toml", ["uv"], "uv"),
        ("pylock.api.toml", [], "pip"),
    ],
)
def test_auto_goes_by_the_lock_file_and_by_what_is_installed(
    tmp_path: Path, alone: Callable[..., dict[str, str]], lock: str, installed: list[str], name: str
) -> None:
    """Each kind of lock file has its tool; requirements go to uv where there is one, else to pip."""
    assert choose(spec_of(tmp_path / "api", lock), alone(*installed)).name == name


@pytest.mark.parametrize(
    ("build_with", "locks", "message"),
    [
        ("auto", ["uv.lock", "requirements.txt"], "different kinds"),
        ("auto", ["uv.lock", "sub/uv.lock"], "from one uv.lock, not from 2"),
        ("auto", ["pylock.toml", "pylock.dev.toml"], "from one pylock.toml, not from 2"),
        ("auto", ["environment.yml"], "no builder knows environment.yml"),
        ("auto", ["pyproject.toml"], "no lock file"),
        ("auto", [], "no lock file"),
        ("pip", ["uv.lock"], "pip cannot install from uv.lock"),
        ("poetry", ["requirements.txt"], "poetry cannot install from a requirements file"),
        ("conda", ["requirements.txt"], "no builder 'conda'"),
    ],
)
def test_nonsense_is_refused_with_a_hint(
    tmp_path: Path, alone: Callable[..., dict[str, str]], build_with: str, locks: list[str], message: str
) -> None:
    """Lock files that cannot be combined, or not with that builder, are the user's error."""
    spec = spec_of(tmp_path / "api", *locks, build=build_with)
    with pytest.raises(UsageError, match=message) as caught:
        choose(spec, alone("uv", "poetry"))
    assert caught.value.where == "api"
    assert caught.value.hint


@pytest.mark.parametrize("name", ["uv", "poetry", "pdm", "pipenv"])
def test_a_builder_that_is_missing_is_an_error_that_says_how_to_get_it(
    tmp_path: Path, alone: Callable[..., dict[str, str]], name: str
) -> None:
    """The tool of a lock file is not replaced by another one in silence."""
    lock = recipe._NOUNS[recipe._KINDS[name][-1]]
    with pytest.raises(EnvironmentFailure, match=f"{name} is not installed.*[Ii]nstall") as caught:
        choose(spec_of(tmp_path / "api", lock), alone())
    assert caught.value.exit_code == 3


def test_a_plan_is_the_same_in_every_checkout(tmp_path: Path, alone: Callable[..., dict[str, str]]) -> None:
    """No path of this machine is in the commands, for they are a part of the key."""
    environ = alone("uv", "poetry", "pdm", "pipenv")
    for lock in ("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "requirements.txt"):
        here, there = (choose(spec_of(tmp_path / place, lock), environ) for place in ("here", "there"))
        assert here.commands == there.commands
        assert str(tmp_path) not in str(here.commands)


@pytest.mark.parametrize(
    ("lock", "present"),
    [
        ("uv.lock", ["pyproject.toml", "setup.py", "uv.toml"]),
        ("poetry.lock", ["pyproject.toml", "poetry.toml"]),
        ("pdm.lock", ["pyproject.toml", "setup.cfg"]),
        ("Pipfile.lock", ["Pipfile"]),
    ],
)
def test_what_the_tool_reads_beside_the_lock_belongs_to_the_recipe(
    tmp_path: Path, alone: Callable[..., dict[str, str]], lock: str, present: list[str]
) -> None:
    """The project file decides too, and so do the tool's own settings where there are any."""
    spec = spec_of(tmp_path / "api", lock)
    for name in present:
        (tmp_path / "api" / name).touch()
    plan = choose(spec, alone("uv", "poetry", "pdm", "pipenv"))
    assert plan.inputs == tuple(str(tmp_path / "api" / name) for name in present)


def test_a_lock_without_its_project_file_is_refused(
    tmp_path: Path, alone: Callable[..., dict[str, str]]
) -> None:
    """uv.lock alone does not say which project it locks."""
    spec = spec_of(tmp_path / "api", "uv.lock")
    (tmp_path / "api" / "pyproject.toml").unlink()
    with pytest.raises(UsageError, match=r"pyproject\.toml is missing beside"):
        choose(spec, alone("uv"))


def test_a_project_file_may_be_listed_with_its_lock(
    tmp_path: Path, alone: Callable[..., dict[str, str]]
) -> None:
    """``locks: [pyproject.toml, uv.lock]`` is what many people would write first."""
    assert choose(spec_of(tmp_path / "api", "pyproject.toml", "uv.lock"), alone("uv")).name == "uv"


def test_commands_are_taken_as_they_are(tmp_path: Path, alone: Callable[..., dict[str, str]]) -> None:
    """A list of commands needs no lock file and no tool."""
    commands = (("make", "{venv}"), ("echo", "{locks}"))
    assert choose(spec_of(tmp_path / "api", build=commands), alone()) == Recipe("commands", commands)


def test_only_the_policy_keep_compiles(tmp_path: Path, alone: Callable[..., dict[str, str]]) -> None:
    """The bytecode policy is in the commands of uv and pip."""
    environ = alone("uv")
    for name, yes, no in (
        ("uv", "--compile-bytecode", "--no-compile-bytecode"),
        ("pip", "--compile", "--no-compile"),
    ):
        for policy, word in (("keep", yes), ("canonical", no), ("none", no)):
            spec = spec_of(tmp_path / "api", "requirements.txt", build=name, bytecode=policy)
            assert {yes, no} & set(choose(spec, environ).commands[1]) == {word}


def test_choosing_loads_nothing_that_takes_long() -> None:
    """A run with nothing to do asks for the recipe of each venv, and must not pay for running builders."""
    code = (
        "import sys, venvflow.builders, venvflow.disk.interpreters, venvflow.model as m\n"
        "venvflow.builders.choose(m.VenvSpec('a', '/x/.venv', ('/x/requirements.txt',)), {'PATH': ''})\n"
        "print({'subprocess', 'shutil', 'selectors', 'importlib.metadata'} & set(sys.modules))"
    )
    said = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=_top(), check=True
    )
    assert said.stdout == "set()\n"


def _top() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(venvflow.__file__)))


# --------------------------------------------------------------------------- what children see


LEAKS = {
    "PYTHONPATH": "/leak",
    "PYTHONHOME": "/leak",
    "PYTHONDONTWRITEBYTECODE": "",
    "VIRTUAL_ENV": "/leak",
    "CONDA_PREFIX": "/leak",
    "PIP_TARGET": "/leak",
    "PIP_PREFIX": "/leak",
    "PIP_USER": "1",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_NO_DEPS": "1",
    "PIP_CONSTRAINT": "/leak",
    "UV_PROJECT_ENVIRONMENT": "/leak",
    "UV_PYTHON": "/leak",
    "UV_LINK_MODE": "symlink",
    "UV_EXTRA": "leak",
    "UV_COMPILE_BYTECODE": "1",
    "POETRY_VIRTUALENVS_CREATE": "true",
    "PDM_USE_VENV": "0",
    "PIPENV_PIPFILE": "/leak",
    "LD_PRELOAD": "/leak.so",
    "BASH_ENV": "/leak",
    "MY_SECRET": "leak",
    "DJANGO_SETTINGS_MODULE": "leak",
}
PASSES = {
    "PATH": "/bin",
    "HOME": "/home/x",
    "LC_ALL": "C",
    "XDG_CACHE_HOME": "/c",
    "https_proxy": "http://proxy",
    "SSL_CERT_FILE": "/cert",
    "CFLAGS": "-O2",
    "PIP_INDEX_URL": "https://index",
    "PIP_FIND_LINKS": "/wheels",
    "PIP_CACHE_DIR": "/c",
    "PIP_REQUIRE_HASHES": "1",
    "UV_DEFAULT_INDEX": "https://index",
    "UV_INDEX_CORP_PASSWORD": "secret",
    "UV_CACHE_DIR": "/c",
    "POETRY_HTTP_BASIC_CORP_PASSWORD": "secret",
    "PDM_PYPI_URL": "https://index",
    "PIPENV_PYPI_MIRROR": "https://index",
}


def test_children_see_where_from_but_not_what() -> None:
    """Index, cache and proxy settings pass; what would change the result does not."""
    assert child_environment({**LEAKS, **PASSES}) == PASSES


def test_names_of_the_key_pass_too() -> None:
    """What is in the key may decide what is installed, but not where or by which Python."""
    extra = ["MY_SECRET", "PIP_NO_DEPS", "PYTHONPATH", "VIRTUAL_ENV", "PIP_TARGET", "NOT_SET"]
    passed = child_environment({**LEAKS, **PASSES}, extra)
    assert set(passed) - set(PASSES) == {"MY_SECRET", "PIP_NO_DEPS"}


def test_children_always_have_a_path() -> None:
    """An empty environment still finds the system's programs."""
    assert child_environment({}) == {"PATH": os.defpath}


def test_the_users_environment_does_not_reach_the_build(project: Project) -> None:
    """A real child is asked: it sees nothing of what must not leak, and our own settings."""
    project.environ |= LEAKS
    project.commands(MAKE, ("env",))
    seen = dict(line.split("=", 1) for line in project.log.read_text().splitlines() if "=" in line)
    assert "leak" not in str(seen)
    assert seen["VIRTUAL_ENV"] == seen["VENVFLOW_VENV"] == str(project.staging)
    assert seen["VENVFLOW_PROJECT"] == str(project.root)
    assert seen["PYTHONDONTWRITEBYTECODE"] == "1"
    assert seen["PATH"].split(os.pathsep)[0] == f"{project.staging}/bin"


def test_the_policy_keep_leaves_out_what_forbids_bytecode(project: Project) -> None:
    """With ``keep``, children may write bytecode even where the user's shell forbids it."""
    project.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    project.commands(MAKE, ("env",), bytecode="keep")
    assert "PYTHONDONTWRITEBYTECODE" not in project.log.read_text()
    assert "PIP_NO_COMPILE" not in project.log.read_text()


# --------------------------------------------------------------------------- real builders


@pytest.mark.parametrize("builder", UV_AND_PIP)
def test_a_hashed_requirements_file_is_installed(project: Project, builder: str) -> None:
    """The venv holds what the file names, runs, has its scripts, and no bytecode."""
    dep = project.wheel("dep", "2")
    demo = project.wheel("demo", requires=["dep==2"], scripts={"demo": "demo:main"})
    lock = requirements(project.api, [demo, dep])
    warnings = project.build(lock, build=builder)
    assert project.installed() == {"demo", "dep"}
    assert project.python("import demo, dep; print(demo.VERSION, dep.VERSION)") == "1.0 2"
    assert subprocess.check_output([project.staging / "bin" / "demo"], text=True) == "1.0\n"
    assert project.bytecode() == []
    assert not [r for r in project.staging.rglob("RECORD") if ".pyc" in r.read_text()]
    assert warnings == ()
    assert project.log.read_text().count("\n$ ") + project.log.read_text().startswith("$ ") >= 2


@pytest.mark.slow
@pytest.mark.parametrize("builder", UV_AND_LATER_PIP)
def test_keep_compiles(project: Project, builder: str) -> None:
    """With ``bytecode: keep`` the builder's own bytecode is there."""
    project.build(requirements(project.api, [project.wheel()]), build=builder, bytecode="keep")
    assert "demo" in {path.name.split(".")[0] for path in project.bytecode()}


@pytest.mark.slow
@pytest.mark.parametrize("builder", UV_AND_LATER_PIP)
def test_a_relative_editable_project_is_found_beside_its_file(project: Project, builder: str) -> None:
    """``-e ./pkg`` in services/api/requirements.txt is services/api/pkg, whatever the working directory.

    Another requirements file, in another directory, comes first and does not change that.
    """
    make_project(project.api / "pkg", "local-pkg", source="VALUE = 1\n")
    common = requirements(project.root, [project.wheel()], hashes=False, name="common.txt")
    project.build(common, requirements(project.api, [], extra=["-e ./pkg"]), build=builder)
    assert project.installed() == {"demo", "local_pkg"}
    (project.api / "pkg" / "src" / "local_pkg.py").write_text("VALUE = 'edited'\n")
    assert project.python("import local_pkg; print(local_pkg.VALUE)") == "edited"


@pytest.mark.parametrize("builder", UV_AND_LATER_PIP)
def test_a_wrong_hash_is_refused(project: Project, builder: str) -> None:
    """A wheel that is not the locked one fails the build, with a hint that says so."""
    lock = requirements(project.api, [project.wheel()])
    project.wheel(modules={"demo.py": "EVIL = True\n"})
    with pytest.raises(BuildFailed) as caught:
        project.build(lock, build=builder)
    assert caught.value.exit_code == 4
    assert "other files than those" in caught.value.hint
    assert "hash" in caught.value.tail.lower()


@pytest.mark.parametrize("builder", UV_AND_LATER_PIP)
def test_a_pylock_is_installed(project: Project, builder: str) -> None:
    """The standard lock file works with both."""
    wheels = [project.wheel("demo"), project.wheel("dep", "2")]
    project.build(pylock(project.api, wheels), build=builder)
    assert project.installed() == {"demo", "dep"}


@pytest.mark.slow
@pytest.mark.parametrize("builder", UV_AND_LATER_PIP)
def test_a_pylock_with_a_wrong_hash_is_refused(project: Project, builder: str) -> None:
    """The hashes of the standard lock file are verified too."""
    lock = pylock(project.api, [project.wheel()])
    project.wheel(modules={"demo.py": "EVIL = True\n"})
    with pytest.raises(BuildFailed):
        project.build(lock, build=builder)


@pytest.mark.parametrize("builder", UV_AND_LATER_PIP)
def test_a_dependency_that_is_not_locked_is_reported_and_not_installed(
    project: Project, builder: str
) -> None:
    """The lock files decide alone, with both builders; what they forgot is a warning."""
    demo = project.wheel("demo", requires=["dep>=1"])
    project.wheel("dep", "2")
    warnings = project.build(requirements(project.api, [demo], hashes=False), build=builder)
    assert project.installed() == {"demo"}
    (warning,) = warnings
    assert "not installed: dep (for demo). Lock" in warning


@pytest.mark.slow
@needs_uv
def test_a_uv_lock_is_synced_into_the_staging_venv(project: Project) -> None:
    """The project itself comes as editable, its dependencies from the lock; the project stays as it was."""
    project.wheel("dep", "2")
    make_project(project.api, "local-pkg", requires=["dep"])
    python = interpreters.resolve("", root="/", environ=project.environ)
    lock = uv_lock(project.api, project.house, UV, python.executable)
    before = _listing(project.api)
    project.build(lock)
    assert project.installed() == {"dep", "local_pkg"}
    assert project.python("import dep, local_pkg; print(dep.VERSION)") == "2"
    assert project.bytecode() == []
    assert [path for path in _listing(project.api) if ".vf-1" not in path] == before


def _listing(directory: Path) -> list[str]:
    return sorted(str(path) for path in directory.rglob("*") if "__pycache__" not in str(path))


def _lock_with(tool: str, project: Project, *command: str) -> None:
    program = recipe.tool(tool, project.environ)  # it comes with the tests
    done = subprocess.run(
        [program, *command], cwd=project.api, env=project.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(project.api / ".venv", ignore_errors=True)
    (project.api / ".pdm-python").unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["poetry", "pdm", "pipenv"])
def test_other_tools_install_into_the_staging_venv(project: Project, tool: str) -> None:
    """poetry, pdm and pipenv use our venv, make none of their own, and leave nothing in the project."""
    wheel = project.wheel().as_uri()
    head = '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.10"\n'
    texts = {
        "poetry": f'{head}dependencies = ["demo @ {wheel}"]\n[tool.poetry]\npackage-mode = false\n',
        "pdm": f'{head}dependencies = ["demo"]\n[tool.pdm]\ndistribution = false\n[[tool.pdm.source]]\n'
        f'name = "pypi"\ntype = "find_links"\nurl = "{project.house.as_uri()}"\n',
        "pipenv": f'[docs]\ndemo = {{file = "{wheel}"}}\n',
    }
    (project.api / ("Pipfile" if tool == "pipenv" else "pyproject.toml")).write_text(texts[tool])
    _lock_with(tool, project, "lock")
    before = _listing(project.api)
    groups = ("docs",) if tool == "pipenv" else ()
    project.build(project.api / recipe._NOUNS[recipe._KINDS[tool][0]], groups=groups)
    assert project.installed() == {"demo"}
    assert project.bytecode() == []
    assert (project.staging / ".gitignore").read_text() == "*\n"
    assert [path for path in _listing(project.api) if ".vf-1" not in path] == before
    project.wheel(modules={"demo.py": "EVIL = True\n"}).write_bytes(b"no wheel")
    shutil.rmtree(project.staging)
    with pytest.raises(BuildFailed) as caught:
        project.build(project.api / recipe._NOUNS[recipe._KINDS[tool][0]], groups=groups)
    said = str(caught.value).partition("Nothing was put in place")[0]
    assert re.search(":\n.*(?:Hash for demo|No candidate is found for `demo`|Wheel 'demo')", said, re.DOTALL)


@pytest.mark.parametrize("builder", UV_AND_LATER_PIP)
def test_a_failed_build_says_why_before_all_else(project: Project, builder: str) -> None:
    """What a package's own build raised, not the end of the traceback of the tool around it."""
    package = make_project(project.api / "pkg", "local-pkg")
    (package / "in_tree_backend.py").write_text("raise RuntimeError('libpq is not installed')\n")
    with pytest.raises(BuildFailed) as caught:
        project.build(requirements(project.api, [], extra=["./pkg"]), build=builder)
    first, *lines = str(caught.value).splitlines()
    assert first.endswith("ended with exit status 1:")
    why = lines.index("  RuntimeError: libpq is not installed")
    state = next(number for number, line in enumerate(lines) if line.startswith("Nothing was put in place."))
    assert why < state <= 3
    assert lines[-1] == f"  whole log: {project.log}"


@pytest.mark.parametrize(
    ("lock", "choice", "words"),
    [
        ("uv.lock", {}, ""),
        ("uv.lock", {"dev": False, "groups": ("docs", "x"), "extras": ("pg",)},
         "--no-dev --group=docs --group=x --extra=pg"),
        ("uv.lock", {"packages": "all"}, "--all-packages"),
        ("uv.lock", {"packages": ("core", "api")}, "--package=core --package=api"),
        ("poetry.lock", {}, ""),
        ("poetry.lock", {"groups": ("a", "b"), "extras": ("c", "d")},
         "--with=a --with=b --extras=c --extras=d"),
        ("poetry.lock", {"dev": False}, "--only=main"),
        ("poetry.lock", {"dev": False, "groups": ("docs",), "extras": ("pg",)},
         "--only=main,docs --extras=pg"),
        ("pdm.lock", {}, ""),
        ("pdm.lock", {"groups": ("docs",)}, ""),
        ("pdm.lock", {"groups": ("docs",), "extras": ("pg",)}, "--group=pg"),
        ("pdm.lock", {"dev": False}, "--prod"),
        ("pdm.lock", {"dev": False, "extras": ("pg",)}, "--prod --group=pg"),
        ("pdm.lock", {"dev": False, "groups": ("docs",), "extras": ("pg",)}, "--group=docs --group=pg"),
        ("Pipfile.lock", {}, "--dev"),
        ("Pipfile.lock", {"dev": False}, ""),
        ("Pipfile.lock", {"groups": ("docs",)}, "--categories=default develop docs"),
        ("Pipfile.lock", {"dev": False, "groups": ("docs", "x")}, "--categories=default docs x"),
    ],
)  # fmt: skip
def test_each_tool_is_told_in_its_own_words_what_to_install(
    tmp_path: Path, alone: Callable[..., dict[str, str]], lock: str, choice: dict[str, Any], words: str
) -> None:
    """They are in its command, and so in the key; without a choice, there are none."""
    environ = alone("uv", "poetry", "pdm", "pipenv")
    chosen = choose(spec_of(tmp_path / "api", lock, **choice), environ).commands[1]
    fixed = {"uv": 6, "poetry": 3, "pdm": 2, "pipenv": 2}[chosen[0].strip("{}")]
    assert " ".join(chosen[fixed:]) == words


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_local_projects_and_the_words_of_venv_are_in_the_commands(
    tmp_path: Path, alone: Callable[..., dict[str, str]], tool: str
) -> None:
    """The same in every checkout."""
    more = {"editable": (".", "libs/core"), "prompt": "a b", "system_site_packages": True}
    spec = spec_of(tmp_path / "api", "requirements.txt", build=tool, **more)
    create, _, local = choose(spec, alone("uv")).commands
    assert {"--prompt=a b", "--system-site-packages"} <= set(create)
    assert create[-1] == "{venv}"
    assert local[-2:] == ("--editable={project}", "--editable={project}/libs/core")
    assert "--no-deps" in local
    plain = choose(spec_of(tmp_path / "api", "requirements.txt", build=tool), alone("uv", "pip"))
    assert len(plain.commands) == 2
    assert not {word for word in plain.commands[0] if word.startswith(("--prompt", "--system"))}


CHOICES: list[tuple[dict[str, Any], str]] = [
    ({"dev": False, "groups": ("docs",), "extras": ("pg",)}, "base doctool pgdriver"),
    ({"dev": False}, "base"),
    ({"extras": ("pg",)}, "base devtool pgdriver"),
]
"""What is chosen, and what is installed then, by whatever tool."""

USUAL = {("uv", 0), ("uv", 1), ("uv", 2), ("poetry", 0), ("pdm", 0)}
BY_TOOL = [
    pytest.param(tool, number, marks=pytest.mark.slow if (tool, number) in USUAL else pytest.mark.long)
    for tool in ("uv", "poetry", "pdm", "pipenv")
    for number in range(len(CHOICES))
]


@pytest.mark.parametrize(("tool", "number"), BY_TOOL)
def test_the_same_choice_installs_the_same_by_every_tool(project: Project, tool: str, number: int) -> None:
    """The real tools, each with a lock of its own that has all groups and extras."""
    choice, expected = CHOICES[number]
    wheel = {name: project.wheel(name).as_uri() for name in ("base", "devtool", "doctool", "pgdriver")}
    asked = {name: f'["{name} @ {uri}"]' for name, uri in wheel.items()}
    pep = (
        f'[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = {asked["base"]}\n'
        f"[project.optional-dependencies]\npg = {asked['pgdriver']}\n"
        f"[dependency-groups]\ndev = {asked['devtool']}\ndocs = {asked['doctool']}\n"
    )
    texts = {
        "uv": pep,
        "poetry": f"{pep}[tool.poetry]\npackage-mode = false\n[tool.poetry.group.docs]\noptional = true\n",
        "pdm": f"{pep}[tool.pdm]\ndistribution = false\n",
        "pipenv": f'[packages]\nbase = {{file = "{wheel["base"]}"}}\n[dev-packages]\n'
        f'devtool = {{file = "{wheel["devtool"]}"}}\n[docs]\ndoctool = {{file = "{wheel["doctool"]}"}}\n',
    }
    if tool == "pipenv":  # it has no extras
        choice, expected = {**choice, "extras": ()}, expected.replace(" pgdriver", "")
    elif tool == "pdm":  # to it, all groups are for development
        expected = expected.replace("devtool", "devtool doctool")
    (project.api / ("Pipfile" if tool == "pipenv" else "pyproject.toml")).write_text(texts[tool])
    _lock_with(tool, project, "lock", *["-G:all"] * (tool == "pdm"))
    lock = project.api / recipe._NOUNS[recipe._KINDS[tool][-1]]
    build = project.request(lock, **choice)
    build.run()
    assert project.installed() == set(expected.split())
    # All of it counts in the key; of other groups and extras at most what the lock file alone does not tell.
    chosen = Chosen(build.spec, Markers(marker_values(build.interpreter)), lambda _: texts[tool].encode())
    part = tool_part(tool, lock.read_bytes(), chosen)
    assert part is not None
    said = set(listed(lock.name, part) or ()) - {"x"}
    assert project.installed() <= said
    assert project.installed() == said or tool in {"poetry", "pdm"}


@needs_uv
@pytest.mark.slow
def test_members_of_a_uv_workspace_are_installed_when_asked_for(project: Project) -> None:
    """All, or by name; without a word, the project beside the lock file."""
    for name in ("core", "api"):
        make_project(project.api / name, name)
    (project.api / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.10"\n'
        '[tool.uv.workspace]\nmembers = ["core", "api"]\n'
    )
    _lock_with("uv", project, "lock")
    for packages, expected in (((), set()), ("all", {"core", "api"}), (("core",), {"core"})):
        project.build(project.api / "uv.lock", packages=packages)
        assert project.installed() == expected
        shutil.rmtree(project.staging)


@pytest.mark.parametrize("builder", UV_AND_LATER_PIP)
def test_local_projects_are_installed_editable_and_without_dependencies(
    project: Project, builder: str
) -> None:
    """Beside what the requirements file lists; what they need and it does not list is a warning."""
    make_project(project.api, "local", requires=["demo", "other"])
    lock = requirements(project.api, [project.wheel()])
    warnings = project.build(
        lock, build=builder, editable=("services/api",), prompt="it's", system_site_packages=True
    )
    assert project.installed() == {"demo", "local"}
    assert project.python("import local; print(local.__file__)") == f"{project.api}/src/local.py"
    assert [warning for warning in warnings if "other" in warning]
    settings = (project.staging / "pyvenv.cfg").read_text()
    assert "include-system-site-packages = true" in settings
    assert "prompt = " in settings
    assert "it" in settings.split("prompt = ")[1].splitlines()[0]


def test_an_old_poetry_installs_by_its_old_words(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before ``poetry sync`` there was ``poetry install --sync``."""
    tools = project.root / "tools"
    tools.mkdir()
    monkeypatch.setattr(sys, "executable", str(tools / "python"))  # beside ours there may be a poetry, too
    for version, words in (("1.8.5", "install --sync"), ("2.5.1", "sync")):
        (tools / "poetry").write_text(f"#!/bin/sh\n[ $1 = --version ] && echo 'Poetry (version {version})'\n")
        (tools / "poetry").chmod(0o755)
        (project.api / "pyproject.toml").touch()
        project.environ["PATH"] = os.pathsep.join((str(tools), SYSTEM_PATH))
        request = project.request(project.api / "poetry.lock", build="poetry")
        argv = commands.filled(request.recipe.commands[1], request)
        assert " ".join(argv[1:]) == f"{words} --no-interaction"


def test_relative_paths_of_two_directories_are_refused(project: Project) -> None:
    """Both tools would look for them in one directory, so one of them would be another project."""
    first = requirements(project.api, [], extra=["-e ./pkg"])
    second = requirements(project.root, [], extra=["../x"])
    with pytest.raises(UsageError, match="relative paths"):
        project.build(first, second, build="pip")


@pytest.mark.parametrize(
    ("line", "is_local"),
    [
        ("-e ./pkg", True),
        ("  --editable=pkg", True),
        ("../x[extra]", True),
        ("./x.whl", True),
        ("file:x", True),
        ("-e /abs", False),
        ("-e git+https://host/x", False),
        ("file:///abs/x.whl", False),
        ("demo==1.0", False),
        ("# -e ./pkg", False),
    ],
)
def test_lines_with_relative_paths_are_recognised(tmp_path: Path, line: str, is_local: bool) -> None:
    """Only what depends on the working directory counts."""
    (tmp_path / "r.txt").write_text(f"a==1\n{line}\n")
    assert commands._has_local_paths(str(tmp_path / "r.txt")) is is_local


def test_the_venvs_own_pip_serves_a_python_that_ours_does_not_support(project: Project) -> None:
    """An old Python is built with the pip that came with it; a pylock.toml it cannot do."""
    request = project.request(project.api / "requirements.txt", build="pip")
    old = dataclasses.replace(request.interpreter, version="3.6.15")
    assert commands._pip(request)[:1] == [sys.executable]
    assert commands._pip(dataclasses.replace(request, interpreter=old))[0] == f"{project.staging}/bin/python"
    request = project.request(project.api / "pylock.toml", build="pip")
    with pytest.raises(EnvironmentFailure, match=r"pip cannot install from pylock\.toml"):
        commands._pip(dataclasses.replace(request, interpreter=old))


def test_bytecode_is_dropped_without_writing_into_a_shared_record(tmp_path: Path) -> None:
    """RECORD may be a hard link into another tool's cache: the cache keeps its bytes."""
    site = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    (site / "x.dist-info").mkdir(parents=True)
    (site / "__pycache__").mkdir()
    (site / "__pycache__" / "x.cpython-311.pyc").touch()
    (site / "legacy.pyc").touch()
    record = "x.py,sha256=a,1\n__pycache__/x.cpython-311.pyc,,\nlegacy.pyc,sha256=b,0\n"
    (tmp_path / "cached").write_text(record)
    (site / "x.dist-info" / "RECORD").hardlink_to(tmp_path / "cached")
    checks.drop_bytecode(str(tmp_path / "venv"))
    assert (tmp_path / "cached").read_text() == record
    assert (site / "x.dist-info" / "RECORD").read_text() == "x.py,sha256=a,1\nlegacy.pyc,sha256=b,0\n"
    assert sorted(path.name for path in site.iterdir()) == ["legacy.pyc", "x.dist-info"]


def test_git_ignores_a_venv_unless_its_maker_said_what_git_ignores(project: Project) -> None:
    """The makers of venvs of Python 3.13, of uv and of virtualenv do so; the one of Python 3.12 does not."""
    ignore = project.staging / ".gitignore"
    project.commands(MAKE, ("rm", "-f", str(ignore)))
    assert ignore.read_text() == "*\n"
    shutil.rmtree(project.staging)
    project.commands(MAKE, ("sh", "-c", "echo '*.pyc' > \"$0\"", str(ignore)))
    assert ignore.read_text() == "*.pyc\n"


# --------------------------------------------------------------------------- commands


def test_placeholders_are_filled_in_words_and_no_shell_is_asked(project: Project) -> None:
    """Blanks, quotes and semicolons stay what they are, and unknown braces too."""
    first = requirements(project.api, [], name="a b.txt")
    second = requirements(project.api, [], name="c;d.txt")
    words = ("{venv}", "x{project}", "{python}", "{lock}", "-r{locks}", "{other}", "$HOME", "; touch x")
    show = ("{python}", "-c", "import sys; print(*sys.argv[1:], sep='|')", *words)
    project.build(first, second, build=(MAKE, show))
    python = interpreters.resolve("", root="/", environ=project.environ).executable
    expected = [project.staging, f"x{project.root}", python, first, f"-r{first}", f"-r{second}", "{other}"]
    assert "|".join(map(str, [*expected, "$HOME", "; touch x"])) in project.log.read_text()


def test_commands_run_in_the_project_root(project: Project) -> None:
    """So that they can name the project's own scripts."""
    project.commands(MAKE, ("pwd",))
    assert project.log.read_text().splitlines()[-1] == str(project.root)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("sh", "-c", "seq 100; echo oops >&2; exit 3"), "sh ended with exit status 3"),
        (("sh", "-c", "kill -9 $$"), r"sh was killed by SIGKILL \(out of memory\?\)"),
        (("sh", "-c", "kill -SEGV $$"), "sh was killed by SIGSEGV"),
    ],
)
def test_a_failed_command_says_how_it_ended(project: Project, command: tuple[str, ...], words: str) -> None:
    """Exit status or signal in words, the venv's name, and the state of things."""
    with pytest.raises(BuildFailed, match=words) as caught:
        project.commands(command)
    assert caught.value.where == "api"
    assert caught.value.state
    assert caught.value.log == str(project.log)


def test_a_failed_build_shows_its_last_lines(project: Project) -> None:
    """Fifty lines in the error, all of them in the log."""
    with pytest.raises(BuildFailed) as caught:
        project.commands(("sh", "-c", "seq 100; printf 'no end'; exit 1"))
    assert caught.value.tail.splitlines() == [*map(str, range(52, 101)), "no end"]
    assert project.log.read_text().splitlines()[1:] == [*map(str, range(1, 101)), "no end"]


def test_what_a_failed_build_says_of_its_staging_is_meant_for_the_place(project: Project) -> None:
    """The staging directory is gone when somebody reads it; the log keeps the words as they were."""
    with pytest.raises(BuildFailed) as caught:
        project.commands(("sh", "-c", 'echo "at: $VENVFLOW_VENV/bin"; exit 1'))
    assert caught.value.tail == f"at: {project.api}/.venv/bin"
    assert str(project.staging) in project.log.read_text()


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Python 3.11.7, which is incompatible with the project's Python requirement: `>=3.12`", "python:"),
        ("ERROR: Package 'a' requires a different Python: 3.11.7 not in '>=3.12'", "python:"),
        ("Because the current Python version (3.11.7) does not satisfy Python>=3.12 and a==1", "python:"),
        ("error: Failed to initialize cache at `/x`\n  Caused by: Permission denied", "UV_CACHE_DIR"),
        ("error: something else", "Correct the lock files"),
        ("one\ncannot copy /a to /proc/x: No space left on device (os error 28)\nlast", "mounted at /proc,"),
        ("OSError: [Errno 28] No space left on device: '/proc/x/y'", "mounted at /proc,"),
        ("No space left on device", "mounted at /"),
    ],
)  # fmt: skip
def test_the_hint_names_the_cure(said: str, hint: str) -> None:
    """What tools really say of the usual mishaps."""
    assert hint in output.hint(said, "/")


@needs_root
@pytest.mark.root
def test_a_build_that_failed_beside_a_full_disk_says_so(tmp_path: Path) -> None:
    """Programs that find no temporary directory end without a word about it."""
    with mounted(tmp_path / "t", "-t", "tmpfs", "-o", "size=64k", "none") as small:
        hint = output.hint("error: something else", "/", str(small / "below" / "it"))
        assert f"mounted at {small} is nearly full" in hint


def test_what_a_program_complained_of_that_ended_well_is_no_cause(project: Project) -> None:
    """The one that failed may have said nothing."""
    with pytest.raises(BuildFailed) as caught:
        project.commands(("sh", "-c", "echo 'error: harmless'"), ("sh", "-c", "exit 3"))
    assert (caught.value.what, caught.value.lines) == ("sh ended with exit status 3", ())
    assert caught.value.tail == "error: harmless"


def test_a_program_that_is_not_there_is_named(project: Project) -> None:
    """The environment lacks it, so it is not the build that failed."""
    with pytest.raises(EnvironmentFailure, match="no-such-program cannot be run") as caught:
        project.commands(("no-such-program", "x"))
    assert caught.value.where == "api"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("commands", "message"),
    [
        ((("true",),), "there is no venv"),
        ((MAKE, ("rm", "{venv}/bin/python")), "does not run"),
        ((MAKE, ("sh", "-c", 'ln -sf /bin/false "$0"', "{venv}/bin/python")), "does not run"),
        ((MAKE, ("sh", "-c", FOREIGN, "{venv}/bin/python", "{python}")), "belongs to"),
    ],
)
def test_success_without_a_working_venv_is_a_failure(
    project: Project, commands: tuple[tuple[str, ...], ...], message: str
) -> None:
    """Exit status 0 is not believed: the venv has to be there and to run."""
    with pytest.raises(BuildFailed, match=message):
        project.commands(*commands)


def test_a_venv_of_another_python_is_a_failure(project: Project) -> None:
    """The key names the Python, so a venv of another one must not get that key."""
    request = project.request(build=(MAKE,))
    other = dataclasses.replace(request.interpreter, version="3.8.1")
    with pytest.raises(BuildFailed, match=r"the venv runs Python .* not 3\.8\.1"):
        dataclasses.replace(request, interpreter=other).run()


def test_progress_hears_each_line(project: Project) -> None:
    """What the builder says is passed on while it runs; a progress bar becomes lines."""
    heard: list[str] = []
    request = project.request(build=(MAKE, ("printf", r"one\n\ntwo\rthree\r\nfour")))
    dataclasses.replace(request, progress=lambda words, _done, _of: heard.append(words)).run()
    assert heard == ["one", "two", "three", "four"]


def test_credentials_do_not_reach_log_error_or_progress(project: Project) -> None:
    """Neither from the command line, nor from what the builder prints of its environment."""
    project.environ |= {
        "PIP_INDEX_URL": "https://canary-user:canary%40pass@index.example/simple",
        "UV_INDEX_CORP_PASSWORD": "canary-password",
        "MY_SETTING": "https://canary-token@host/",
    }
    heard: list[str] = []
    talk = "env; echo $UV_INDEX_CORP_PASSWORD canary%40pass; exit 1"
    commands = (("sh", "-c", talk, "https://canary-cli@host/"),)
    request = project.request(build=commands, key_env=("MY_SETTING",))
    with pytest.raises(BuildFailed) as caught:
        dataclasses.replace(request, progress=lambda words, _done, _of: heard.append(words)).run()
    assert "canary" not in str(caught.value) + project.log.read_text() + str(heard)
    assert "***@index.example/simple" in project.log.read_text()


def test_the_log_is_private_and_never_written_through_a_link(project: Project) -> None:
    """It may hold more than we redact; and a planted link must not send it elsewhere."""
    project.commands(MAKE)
    assert project.log.stat().st_mode & 0o777 == 0o600
    project.log.unlink()
    (project.root / "precious").write_text("x")
    project.log.symlink_to(project.root / "precious")
    with pytest.raises(EnvironmentFailure, match="build log"):
        project.commands(MAKE)
    assert (project.root / "precious").read_text() == "x"


# --------------------------------------------------------------------------- children


def run(*argv: str, **more: object) -> tuple[int, bytes]:
    """Run a child and return its status and what it said."""
    said = bytearray()
    status = processes.run(argv, environ={"PATH": SYSTEM_PATH}, on_output=said.extend, **more)  # type: ignore[arg-type]
    return status, bytes(said)


def lives(number: int) -> bool:
    """Say whether the process *number* runs; a zombie does not."""
    with contextlib.suppress(OSError):
        os.kill(number, 0)
        shown = subprocess.run(["ps", "-o", "stat=", "-p", str(number)], capture_output=True, check=False)
        return bool(shown.stdout.strip()) and not shown.stdout.startswith(b"Z")
    return False


def test_output_and_status_of_a_child_are_returned() -> None:
    """Both streams arrive, in order, and a signal is a negative status."""
    assert run("sh", "-c", "echo a; echo b >&2; echo c; exit 7") == (7, b"a\nb\nc\n")
    assert run("sh", "-c", "kill -TERM $$") == (-signal.SIGTERM, b"")


def test_a_child_has_no_input_and_no_terminal() -> None:
    """So that nothing can ask a question and wait for ever."""
    kept, (reading, writing) = os.dup(0), os.pipe()
    os.write(writing, b"typed by the user")
    os.dup2(reading, 0)
    os.close(writing)
    try:
        status, said = run("sh", "-c", "cat; (: < /dev/tty) 2>/dev/null || echo none")
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(reading)
    assert (status, said) == (0, b"none\n")


@pytest.mark.slow
def test_a_child_that_closes_its_output_is_still_waited_for() -> None:
    """The end of the output is not the end of the work."""
    assert run("sh", "-c", "exec >&- 2>&-; sleep 0.3; exit 5") == (5, b"")


@pytest.mark.slow
def test_a_daemon_that_holds_the_output_open_is_ended() -> None:
    """What a command leaves running in its group is ended with it, and does not keep us waiting."""
    status, said = run("sh", "-c", "sleep 600 & echo $!")
    assert status == 0
    assert not lives(int(said))


@pytest.mark.slow
def test_a_child_that_takes_too_long_is_ended_with_all_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even when it does not listen to a polite request."""
    monkeypatch.setattr(processes, "GRACE", 0.2)
    said = bytearray()
    talk = "trap '' TERM; sleep 600 & echo $! $$; wait; sleep 600"
    with pytest.raises(TimeoutError):
        processes.run(["sh", "-c", talk], environ={"PATH": SYSTEM_PATH}, on_output=said.extend, timeout=0.5)
    numbers = [int(number) for number in said.split()]
    assert len(numbers) == 2
    assert not any(map(lives, numbers))


def test_an_interrupt_ends_the_group(project: Project) -> None:
    """Ctrl-C while a build runs leaves no process behind and comes through as what it is."""
    numbers: list[int] = []

    def interrupt(line: str, _done: int, _of: int) -> None:
        numbers.extend(int(word) for word in line.split())
        raise KeyboardInterrupt

    request = project.request(build=(("sh", "-c", "sleep 600 & echo $! $$; wait"),))
    with pytest.raises(KeyboardInterrupt):
        dataclasses.replace(request, progress=interrupt).run()
    assert len(numbers) == 2
    assert not any(map(lives, numbers))


def test_a_signal_that_comes_while_a_child_is_started_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would know the child if the interrupt came before it has a name."""
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(*arguments: Any, **how: Any) -> subprocess.Popen[bytes]:
        started.append(real(*arguments, **how))
        signal.raise_signal(signal.SIGINT)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(KeyboardInterrupt), interrupts.raised():
        run("sleep", "600")
    assert started[0].returncode == -signal.SIGTERM


def test_builds_in_other_threads_are_interrupted() -> None:
    """Python interrupts the main thread only: threads that run steps are told by us."""
    started, raised = threading.Event(), threading.Event()

    def work() -> None:
        try:
            with interrupts.working():
                processes.run(
                    ["sh", "-c", "echo; sleep 600"],
                    environ={"PATH": SYSTEM_PATH},
                    on_output=lambda _: started.set(),
                )
        except KeyboardInterrupt:
            raised.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(30)
    with contextlib.suppress(KeyboardInterrupt), interrupts.raised():
        signal.raise_signal(signal.SIGINT)
    thread.join(30)
    assert raised.is_set()


def test_a_second_signal_kills_what_does_not_want_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever presses Ctrl-C twice does not want to wait for builders that ask for time."""
    monkeypatch.setattr(processes, "GRACE", 600)
    said = bytearray()

    def take(chunk: bytes) -> None:
        said.extend(chunk)
        if said == b"ready\n":
            threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
            signal.raise_signal(signal.SIGINT)

    talk = "trap '' TERM; echo ready; sleep 600"
    with pytest.raises(KeyboardInterrupt), interrupts.raised():
        processes.run(["sh", "-c", talk], environ={"PATH": SYSTEM_PATH}, on_output=take)
    assert not processes._groups


def test_what_is_done_while_a_program_runs_may_end_it(tmp_path: Path) -> None:
    """It has been started by then; and what it says is taken afterwards."""
    flag, said = tmp_path / "flag", bytearray()

    def wait() -> None:
        while not flag.exists():
            time.sleep(0.01)
        assert not said

    talk = f"echo begun; touch '{flag}'; {{}}"
    argv = ["sh", "-c", talk.format("echo done")]
    assert processes.run(argv, environ={"PATH": SYSTEM_PATH}, on_output=said.extend, meanwhile=wait) == 0
    assert said == b"begun\ndone\n"

    def fail() -> None:
        wait()
        raise OSError(errno.ENOSPC, "full")

    flag.unlink()
    said.clear()
    argv = ["sh", "-c", talk.format("sleep 600")]
    with pytest.raises(OSError, match="full"):
        processes.run(argv, environ={"PATH": SYSTEM_PATH}, on_output=said.extend, meanwhile=fail)
    assert not processes._groups


@pytest.mark.parametrize(
    ("file", "text", "more", "late"),
    [
        ("", "", {}, True),
        ("services/api/pyproject.toml", "[tool.uv]\nlink-mode = 'copy'\n", {}, True),
        ("services/api/pyproject.toml", "[tool.uv]\nno-build-isolation-package = ['x']\n", {}, False),
        ("uv.toml", "no-build-isolation = true\n", {}, False),
        ("../.config/uv/uv.toml", "[pip]\nno-build-isolation = true\n", {}, False),
        ("", "", {"key_env": ("UV_NO_BUILD_ISOLATION",)}, False),
        ("", "", {"build": "pip"}, False),
    ],
    ids=str,
)
def test_what_a_tool_may_import_is_there_before_it_starts(
    project: Project, file: str, text: str, more: dict[str, Any], *, late: bool
) -> None:
    """But for uv, which imports nothing unless somebody has told it to build without isolation."""
    if file:
        (project.root / file).parent.mkdir(parents=True, exist_ok=True)
        (project.root / file).write_text(text)
    assert reads_metadata_only(project.request(project.api / "requirements.txt", **more)) is late


@needs_proc
def test_an_orphan_keeps_the_lock_it_was_given(project: Project) -> None:
    """The descriptors of locks are open in the builder, others are not."""
    lock, other = (os.open(project.root, os.O_RDONLY) for _ in range(2))
    try:
        os.set_inheritable(other, True)
        request = project.request(build=(("sh", "-c", "ls /dev/fd/; exit 1"),))
        with pytest.raises(BuildFailed) as caught:
            dataclasses.replace(request, inherit_fds=(lock,)).run()
    finally:
        os.close(lock)
        os.close(other)
    assert str(lock) in caught.value.tail.split()
    assert str(other) not in caught.value.tail.split()


KILLED_WHILE_IT_BUILDS = """
import fcntl, os, sys, threading
from venvflow.disk import processes
{first}
fd = os.open(sys.argv[1], os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX)
def build():
    processes.run(["sh", "-c", "sleep 600 & echo $! $$; wait"], environ={{"PATH": os.defpath}},
                  inherit_fds=[fd], on_output=lambda said: os.write(1, said))
threading.Thread(target=build).start()
"""


@contextlib.contextmanager
def killed_while_it_builds(path: Path, first: str = "") -> Iterator[list[int]]:
    """Kill a process that runs a build; give the numbers of the builder and of what that started."""
    path.touch()
    code = KILLED_WHILE_IT_BUILDS.format(first=first)
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, cwd=_top()) as parent:
        assert parent.stdout is not None
        numbers = [int(number) for number in parent.stdout.readline().split()]
        parent.kill()
    try:
        yield numbers
    finally:
        for number in filter(lives, numbers):
            os.kill(number, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps to see what runs")
@pytest.mark.parametrize("shell", ["/bin/sh", *filter(os.path.exists, ("/bin/dash", "/bin/bash"))])
def test_a_killed_venvflow_takes_its_builders_with_it(tmp_path: Path, shell: str) -> None:
    """With all that they started, so that their lock is free for the next run."""
    with killed_while_it_builds(tmp_path / "lock", f"processes._SHELL = {shell!r}") as numbers:
        _until(lambda: not any(map(lives, numbers)))
        with open(tmp_path / "lock", "rb") as again:
            _until(lambda: _can_lock(again.fileno()))


@needs_proc
@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps to see what runs")
def test_where_nobody_ends_a_builder_it_still_holds_its_lock(tmp_path: Path) -> None:
    """There may be no shell: then the builder goes on, others wait for it, and are told who it is."""
    with killed_while_it_builds(tmp_path / "lock", "processes._SHELL = '/nowhere'") as numbers:
        assert all(map(lives, numbers))
        with pytest.raises(LockTimeout, match=rf"pid {numbers[1]} \(sh -c sleep 600"):
            locks.exclusive(str(tmp_path / "lock"), timeout=0, what="it")


def test_what_a_builder_leaves_in_its_tmpdir_goes_with_it(project: Project, tmp_path: Path) -> None:
    """It has one of its own, in the user's, however the build ends."""
    (tmp_path / "t").mkdir()
    leave = (
        "sh",
        "-c",
        'echo "at $TMPDIR"; mkdir -p "$TMPDIR/pip-build-1/sub"; chmod 500 "$TMPDIR/pip-build-1"; exit 1',
    )
    request = project.request(build=(leave,))
    environ = {**request.environ, "TMPDIR": str(tmp_path / "t")}
    with pytest.raises(BuildFailed) as caught:
        dataclasses.replace(request, environ=environ).run()
    assert f"at {tmp_path}/t/.vf-{os.getpid()}-" in caught.value.tail
    assert os.listdir(tmp_path / "t") == []


def test_the_watchdog_knows_who_runs_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has ended must not be ended again: its number may be somebody else's by then."""
    reading, writing = os.pipe()
    monkeypatch.setattr(processes._watchdog, "_pipe", writing)
    status, said = run("sh", "-c", "echo $$")
    os.close(writing)
    with open(reading, "rb") as told:
        assert told.read() == b"\n-" + said + b"\n"
    assert status == 0


def _can_lock(descriptor: int) -> bool:
    import fcntl

    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@given(st.lists(st.sampled_from(["a", "bc", "é", "", "x" * 70]), max_size=6), st.data())
def test_lines_do_not_depend_on_where_chunks_are_cut(lines: list[str], data: st.DataObject) -> None:
    """However the bytes arrive, the same lines come out."""
    text = "".join(line + data.draw(st.sampled_from(["\n", "\r\n", "\r"])) + "." for line in lines).encode()
    whole = _lines([text])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert _lines(chunks) == whole


def _lines(chunks: list[bytes]) -> list[str]:
    taken: list[str] = []
    lines = processes.Lines(taken.append)
    for chunk in chunks:
        lines.feed(chunk)
    lines.close()
    return taken


@pytest.mark.slow
@pytest.mark.parametrize(("chunk", "step"), [(1000, 20), (1 << 16, 3), (1 << 20, 3)])
def test_a_line_without_an_end_does_not_fill_the_memory(chunk: int, step: int) -> None:
    """What lies beyond 128 KiB is dropped, and what stood at the cut with it: it may be half a secret."""
    text = b"x " * (1 << 16) + b" https://me:canary-at-the-cut@host/" + b"y" * 5000 + b"\nnext\n"
    for moved in range(0, 60, step):
        long = text[moved:]
        pieces = _lines([long[start : start + chunk] for start in range(0, len(long), chunk)])
        assert len(pieces) == 2
        assert pieces[1] == "next"
        assert len(pieces[0]) < (1 << 17) + 100
        assert "canary" not in pieces[0][:-8000]
        assert "canary" not in redact(pieces[0][-8000:])
