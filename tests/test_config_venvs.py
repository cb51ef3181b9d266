"""Templates for many venvs: what is filled in, for which files, and what is told of those that go wrong."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from configs import problems, project, read
from hypothesis import given
from hypothesis import strategies as st

from venvflow.errors import ConfigError, Refused
from venvflow.model import Config


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with two services and two libraries, each with a lock file and another one for its tests."""
    root = project(tmp_path)
    lay(root, *(f"{place}/requirements{end}.txt" for place in MEMBERS for end in ("", "-dev")))
    return root


MEMBERS = ("libs/core", "libs/io", "services/api", "services/web")


def lay(root: Path, *files: str) -> None:
    """Make empty files, and the directories that they lie in."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def template(**keys: Any) -> str:
    """Return a config with one template, in which each key has a line of its own, the first in line 2."""
    lines = [f"{name}: {json.dumps(value)}" for name, value in keys.items()]
    return "each:\n  - " + "\n    ".join(lines) + "\n"


def venvs_of(config: Config) -> dict[str, tuple[str, str]]:
    """Return path, relative to the project root, and Python of each venv."""
    return {
        name: (os.path.relpath(spec.path, config.root), spec.python) for name, spec in config.venvs.items()
    }


# --------------------------------------------------------------------------- what comes out


def test_two_lines_make_a_venv_for_each_lock_file(root: Path) -> None:
    """Name and path come from the directory. A service that is added is a venv without a change."""
    text = template(locks=["*/*/requirements.txt"])
    before = read(root, text)
    assert venvs_of(before) == {os.path.basename(place): (f"{place}/.venv", "") for place in MEMBERS}
    assert before.venvs["api"].locks == (f"{root}/services/api/requirements.txt",)
    lay(root, "services/new/requirements.txt")
    assert [*read(root, text).venvs] == ["core", "io", "api", "new", "web"]


def test_a_list_of_pythons_is_a_matrix(root: Path) -> None:
    """One venv for each file and Python; the same with all templates written out."""
    short = template(locks=["libs/*/requirements.txt"], python=["3.11", "pypy3.11"])
    assert venvs_of(read(root, short)) == {
        "core-3.11": ("libs/core/.venv-3.11", "3.11"),
        "core-pypy3.11": ("libs/core/.venv-pypy3.11", "pypy3.11"),
        "io-3.11": ("libs/io/.venv-3.11", "3.11"),
        "io-pypy3.11": ("libs/io/.venv-pypy3.11", "pypy3.11"),
    }
    long = {"name": "{dir}-{python}", "path": "{parent}/.venv-{python}", "locks": ["libs/*/requirements.txt"]}
    assert (
        read(root, template(**long, python=["3.11", "pypy3.11"])).venvs.keys()
        == read(root, short).venvs.keys()
    )
    one = template(locks=["libs/*/requirements.txt"], python="3.11", name="{parent}-{stem}-py{python}")
    assert [*read(root, one).venvs] == ["libs-core-requirements-py3.11", "libs-io-requirements-py3.11"]


def test_locks_may_be_taken_away_and_added(root: Path) -> None:
    """What ! finds has no venv; a lock file with a field belongs to each venv, after the one found."""
    globs = ["*/*/requirements.txt", "libs/core/requirements.txt", "!services/w*/*"]
    text = template(locks=[*globs, "{parent}/requirements-dev.txt"])
    config = read(root, text)
    assert [*config.venvs] == ["core", "io", "api"]
    assert config.venvs["io"].locks == (
        f"{root}/libs/io/requirements.txt", f"{root}/libs/io/requirements-dev.txt",
    )  # fmt: skip


def test_every_key_may_have_fields(root: Path) -> None:
    """What has braces of its own keeps them, and {python} there is what it is for every venv."""
    lay(root, "libs/core/limits.txt")
    text = template(
        locks=["libs/core/requirements.txt"], name="x-{dir}", path="~/venvs/${A}/{dir}", python="3.12",
        build=[["make", "{dir}", "{venv}", "{python}", "{lock}", "{}"]],
        key={"files": ["{parent}/limits.txt"], "env": ["A"]}, exclude=["**/{dir}/tests/", "{{x}}"],
        pack={"output": "dist/{parent}", "name": "{dir}-{venv}-{python}-{version:six}"}, pin=True,
        check=["-c", "import {dir}; print({}, f'{dir.x} {x}')"], squish={"min_size": 3}, bytecode="keep",
    )  # fmt: skip
    spec = read(root, text, A="a").venvs["x-core"]
    assert spec.path == f"{root.parent}/home/venvs/a/core"
    assert spec.build == (("make", "core", "{venv}", "{python}", "{lock}", "{}"),)
    assert (spec.key_files, spec.key_env) == ((f"{root}/libs/core/limits.txt",), ("A",))
    assert spec.exclude == ("**/core/tests/", "{{x}}")
    assert spec.pack is not None
    assert (spec.pack.output, spec.pack.name) == (
        f"{root}/dist/libs/core", "core-{venv}-{python}-{version:six}",
    )  # fmt: skip
    assert spec.check == ("-c", "import core; print({}, f'{dir.x} {x}')")
    assert (spec.pin, spec.min_size, spec.bytecode, spec.python) == (True, 3, "keep", "3.12")


def test_a_venv_of_a_template_is_one_like_any_other(root: Path) -> None:
    """It gets the defaults, and differs from one that is written out only in its origin."""
    text = template(locks=["services/a*/requirements.txt"])
    rest = "defaults: {check: ['-c', '0'], python: '3.12'}\n"
    (made,) = read(root, text + rest).venvs.values()
    (named,) = read(root, "venvs: {api: services/api/requirements.txt}\n" + rest).venvs.values()
    assert made.origin == "each[0] in line 2, for services/api/requirements.txt"
    assert named.origin == ""
    assert {field: getattr(made, field) for field in made.__slots__ if field != "origin"} == {
        field: getattr(named, field) for field in named.__slots__ if field != "origin"
    }


def test_names_of_directories_are_never_read_as_anything_else(root: Path) -> None:
    """A directory called like a variable, the home, a field or a glob is that directory."""
    odd = ("${HOME}", "~", "~root", "$$", "{dir}", "{nope}", "a[b]", "*", "sp ace", "n\nl", "!x", "'\"#: ")
    lay(root, *(f"odd/{name}/{number}.txt" for number, name in enumerate(odd)))
    lay(root, *(f"{name}/top{number}.txt" for number, name in enumerate(odd)))
    config = read(root, template(locks=["odd/*/*.txt", "*/top*.txt"], name="v{stem}", path="{parent}/.venv"))
    for number, name in enumerate(odd):
        for venv, place in ((f"v{number}", f"odd/{name}"), (f"vtop{number}", name)):
            assert config.venvs[venv].path == f"{root}/{place}/.venv"
            assert [os.path.dirname(lock) for lock in config.venvs[venv].locks] == [f"{root}/{place}"]
    assert not config.missing_files


def test_what_is_installed_has_no_venv(root: Path) -> None:
    """The files of the very venvs that were made, of node_modules and of hidden directories are not found."""
    text = template(locks=["**/requirements.txt"], path="{parent}/{stem}-venv")
    expected = venvs_of(read(root, text))
    for place in (".", *MEMBERS):
        for venv in ("requirements-venv", "venv", ".venv"):
            lay(
                root,
                f"{place}/{venv}/pyvenv.cfg",
                f"{place}/{venv}/lib/python3/site-packages/x/requirements.txt",
            )
        lay(root, f"{place}/node_modules/x/requirements.txt", f"{place}/.git/x/requirements.txt")
    assert venvs_of(read(root, text)) == expected
    assert len(expected) == 4


def test_a_glob_reads_no_directory_that_it_need_not(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with nothing to do asks each time: of a large tree, it reads the directories with a wildcard."""
    lay(root, *(f"services/{name}/src/deep/{name}.py" for name in ("api", "web")))
    lay(
        root, "services/api/venv/pyvenv.cfg", "services/api/venv/lib/x.py", "services/web/node_modules/x/y.js"
    )
    asked: list[str] = []
    scandir = os.scandir

    def counted(path: Any) -> Any:
        asked.append(os.path.relpath(path, root))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    read(root, template(locks=["services/*/requirements.txt", "libs/core/requirements.txt"]))
    assert asked == ["services"]
    asked.clear()
    read(root, template(locks=["services/**/requirements.txt"]))
    assert sorted(asked) == sorted({"services", "services/api/venv", *(
        f"services/{name}{deep}" for name in ("api", "web") for deep in ("", "/src", "/src/deep")
    )})  # fmt: skip


NAMES = st.from_regex("[ab]([ab.-]?[ab])?", fullmatch=True)


@pytest.mark.slow
@given(st.sets(st.tuples(NAMES, NAMES), min_size=1, max_size=12), st.integers(1, 3), st.randoms())
def test_expansion_is_a_function_of_the_files(
    places: set[tuple[str, str]], pythons: int, chance: random.Random
) -> None:
    """Names are unique, there is one venv per file and Python, and the order of making files is no matter."""
    versions = [f"3.{11 + number}" for number in range(pythons)]
    files = sorted(f"{outer}/x{inner}/uv.lock" for outer, inner in places)
    text = template(locks=["*/*/uv.lock"], name="{parent}-{python}", python=versions)
    seen: list[list[Any]] = []
    for _ in range(2):
        chance.shuffle(files)
        root = scratch_project(files)
        try:
            config = read(root, text)
        except ConfigError as clash:  # a/xb-c and a-xb/xc are one name
            told = [problem for problem in clash.problems if "is also the name of the venv for" in problem]
            assert len(told) == len(clash.problems)  # noqa: PT017 - there need not be any
            seen.append([problem.split(": ", 1)[1] for problem in told])
        else:
            seen.append([*venvs_of(config).items()])
            assert len(config.venvs) == len(files) * pythons
            assert len({spec.path for spec in config.venvs.values()}) == len(config.venvs)
            assert {os.path.relpath(spec.locks[0], root) for spec in config.venvs.values()} == set(files)
        shutil.rmtree(root.parent)
    assert seen[0] == seen[1]


def scratch_project(files: list[str]) -> Path:
    """Return a project of its own with these files, made in their order."""
    import tempfile

    root = project(Path(tempfile.mkdtemp()))
    lay(root, *files)
    return root


# --------------------------------------------------------------------------- what goes wrong


def lines_of(root: Path, text: str) -> list[str]:
    """Return all that is wrong with *text*, be it mistakes or dangers, with its line."""
    with pytest.raises((ConfigError, Refused)) as caught:
        read(root, text)
    found = caught.value.problems if isinstance(caught.value, ConfigError) else caught.value.lines
    return [line.removeprefix(f"{root}/venvflow.yaml:").replace(str(root), "ROOT") for line in found]


FOR_API = "(for services/api/requirements.txt)"
MISTAKES = """
locks: ["libs/*/uv.lock"]
> 2: each[0].locks[0]: libs/*/uv.lock matches no file in ROOT; what is hidden, installed or in node_modules
| is passed over

locks: ["../home/*"]
> 2: each[0].locks[0]: PARENT/home/x lies outside the project: such a venv needs a name, under 'venvs'

locks: ["*/*/requirements.txt", "!**"]
> 2: each[0].locks: no lock file is left: each item takes one away (!) or has a field in it

locks: ["{parent}/x"]
> 2: each[0].locks: no lock file is left: each item takes one away (!) or has a field in it

locks: []
> 2: each[0].locks: the list must not be empty

locks: "*/uv.lock"
> 2: each[0].locks: expected a list, such as [a, b], found the text */uv.lock

locks: [3]
> 2: each[0].locks[0]: YAML reads 3 as a number: write it in quotes, "3"

locks: ["*a*a*a*a*b"]
> 2: each[0].locks[0]: *a*a*a*a*b has too many stars: at most 4 between two slashes and 6 in all, or
| matching could take for ever

name: x
> 2: each[0]: the key 'locks' is missing

locks: ["*/*/requirements.txt"]
name: "{service}"
> 3: each[0].name: '{service}' cannot be filled in; known are {dir}, {parent}, {stem}, {python}

locks: ["*/*/requirements.txt"]
path: "{}/.venv"
> 3: each[0].path: '{}' cannot be filled in; known are {dir}, {parent}, {stem}, {python}

locks: ["*/*/requirements.txt", "!{parent}/x.txt"]
> 2: each[0].locks[1]: what ! takes away is the same for all venvs: {parent} is not filled in

locks: ["{dirr}/requirements.txt"]
> 2: each[0].locks[0]: '{dirr}' cannot be filled in; known are {dir}, {parent}, {stem}, {python}

locks: ["{libs,services}/*/requirements.txt"]
> 2: each[0].locks[0]: '{libs,services}' is no choice here, as it is in a shell: list each

locks: ["*/*/requirements.txt", "{parent}/{x}.txt"]
> 2: each[0].locks[1]: '{x}' cannot be filled in; known are {dir}, {parent}, {stem}, {python}

locks: ["*/*/requirements.txt"]
name: "{dir}-{python}"
> 3: each[0].name: {python} is empty: the template has no 'python'

locks: [lock.txt]
> 2: each[0].name: {dir} is empty: the lock file lies in the project root (for lock.txt)

locks: [services/api/requirements.txt]
name: "a {dir}"
> 3: each[0].name: 'a api' cannot be the name of a venv: at most 100 letters, digits, dots, dashes,
| underscores and plus signs, the first of them no dot or dash (for services/api/requirements.txt)

locks: [services/api/requirements.txt]
python: ["3.11", 3.12, "three"]
> 3: each[0].python: YAML reads 3.12 as a number: write it in quotes, "3.12"
| (for services/api/requirements.txt)
> 3: each[0].python: expected a version such as 3.12, or a path with a slash, found the text three
| (for services/api/requirements.txt)

locks: [services/api/requirements.txt]
python: []
> 3: each[0].python: the list must not be empty

locks: ["services/*/requirements.txt"]
path: "../{dir}"
> 3: each[0].path: PARENT/api lies outside the project: if that is meant, begin it with / or ~/
| (for services/api/requirements.txt)
> 3: each[0].path: PARENT/web lies outside the project: if that is meant, begin it with / or ~/
| (for services/web/requirements.txt)

locks: [services/api/requirements.txt]
path: "{parent}"
> 3: each[0].path: ROOT/services/api contains what it is made from or becomes:
| ROOT/services/api/requirements.txt (for services/api/requirements.txt)

locks: [services/api/requirements.txt]
path: .
> 3: each[0].path: ROOT is or contains the project (for services/api/requirements.txt)

locks: ["services/*/requirements.txt"]
path: .venv
> 3: each[0].path: ROOT/.venv is also the path of 'api' (for services/web/requirements.txt)

locks: ["services/*/requirements.txt"]
path: "v/{dir}/../{stem}"
> 3: each[0].path: ROOT/v/requirements is also the path of 'api' (for services/web/requirements.txt)

locks: [services/api/requirements.txt, services/web/requirements.txt]
path: "v/{dir}/../api/{dir}/.."
> 3: each[0].path: ROOT/v/api is also the path of 'api' (for services/web/requirements.txt)

locks: ["libs/io/*.txt"]
path: ".v/{stem}"
> 2: each[0].name: 'io' is also the name of the venv for libs/io/requirements-dev.txt: put {stem} into it
| (for libs/io/requirements.txt)

locks: [libs/io/requirements.txt, services/api/requirements.txt]
name: x
> 3: each[0].name: 'x' is also the name of the venv for libs/io/requirements.txt: put {parent} into it
| (for services/api/requirements.txt)

locks: [services/api/requirements.txt]
python: ["3.11", "3.12"]
name: x
> 4: each[0].name: 'x' is also the name of the venv for services/api/requirements.txt: put {python} into it
| (for services/api/requirements.txt)

locks: ["*/*/requirements.txt"]
lock: 1
bytecode: non
> 3: each[0]: unknown key 'lock'; did you mean 'locks'?
> 4: each[0].bytecode: the text non is not possible here; did you mean 'none'?

locks: [services/api/requirements.txt]
python: ["3.11", "3.12"]
pack: {name: x}
> 4: each[0].pack: its archive has the same name as that of 'api-3.11': put {venv} into pack.name
| (for services/api/requirements.txt)

locks: [services/api/requirements.txt]
pack: {name: "{parent}-{stm}"}
> 3: each[0].pack.name: '{stm}' cannot be filled in; known are {venv}, {key}, {python}, {platform}, and
| {version:NAME} of what is installed (for services/api/requirements.txt)
"""
"""A template, then all that is wrong with it: after ``>``, and in further lines after ``|``."""


@pytest.mark.parametrize("case", MISTAKES.strip().split("\n\n"))
def test_each_mistake_of_a_template_is_told_with_its_line_and_file(root: Path, case: str) -> None:
    """Once, if it is one for all files; else with the file that it is one for."""
    lay(root.parent, "home/x")
    keys, *expected = case.replace("\n|", "").split("\n> ")
    text = "each:\n  - " + keys.replace("\n", "\n    ") + "\n"
    assert [line.replace(str(root.parent), "PARENT") for line in lines_of(root, text)] == expected


def test_a_name_of_its_own_is_not_taken_by_a_template(root: Path) -> None:
    """Both are named, and how to tell the template; also in capitals, which some disks cannot tell apart."""
    text = template(locks=["services/*/requirements.txt"]) + "venvs:\n  API: {path: x, locks: [lock.txt]}\n"
    both = "2: each[0].name: 'api' is also the name of the venv in line 4"
    assert lines_of(root, text) == [
        f'{both}: "!services/api/requirements.txt" under locks takes it away {FOR_API}'
    ]
    text = template(locks=["services/api/requirements.txt", "libs/io/requirements.txt"], name="V{dir}")
    (problem,) = lines_of(root, text + "venvs:\n  vio: {path: x, locks: [lock.txt]}\n")
    assert problem.startswith("3: each[0].name: 'Vio' is also the name of the venv in line 5: ")
    text = template(locks=["services/*/requirements.txt"]) + "venvs: {x: services/web/requirements-dev.txt}\n"
    assert lines_of(root, text) == [
        "2: each[0].path: ROOT/services/web/.venv is also the path of 'x' (for services/web/requirements.txt)"
    ]


def test_a_link_makes_no_second_venv_of_a_directory(root: Path) -> None:
    """It would be the same place under another name."""
    (root / "services" / "also").symlink_to("api")
    assert lines_of(root, template(locks=["services/*/requirements.txt"])) == [
        f"2: each[0].path: ROOT/services/api/.venv is also the path of 'also' {FOR_API}"
    ]


def test_a_template_makes_no_thousands_of_venvs(root: Path) -> None:
    """A glob that finds too much is one mistake, and is told at once."""
    lay(root, *(f"many/{number}/x.txt" for number in range(501)))
    assert len(read(root, template(locks=["many/*/x.txt"], name="v{dir}")).venvs) == 501
    assert lines_of(root, template(locks=["many/*/x.txt"], name="v{dir}", python=["3.11", "3.12"])) == [
        "2: each[0].locks: 501 lock files match for 2 Pythons: all templates make at most 1,000 venvs"
    ]
    lay(root, *(f"many/{number}/y.txt" for number in range(500)))
    assert problems(root, template(locks=["many/*/*.txt"])) == [
        "2: each[0].locks: 1,001 lock files match: all templates make at most 1,000 venvs"
    ]
    both = template(locks=["many/*/x.txt"], name="v{dir}") + "  - {locks: ['many/*/y.txt'], name: 'w{dir}'}\n"
    assert problems(root, both) == [
        "4: each[1].locks: 500 lock files match: all templates make at most 1,000 venvs"
    ]


def test_fields_without_quotes_are_explained(root: Path) -> None:
    """To YAML they are mappings."""
    quotes = "text that begins with { needs quotes"
    assert lines_of(root, "each:\n  - locks: ['*/*/requirements.txt']\n    name: {dir}\n") == [
        f"3: each[0].name: expected text, found a mapping: {quotes}"
    ]
    for line in ("path: {parent}/.venv", "check: [{dir}/x]", "build:\n      - - {dir}/x"):
        text = f"each:\n  - locks: ['*/*/requirements.txt']\n    {line}\n"
        assert lines_of(root, text)[0].endswith(f"({quotes})"), line


def test_a_lock_file_that_is_missing_is_the_fault_of_its_venv(root: Path) -> None:
    """All others can be made; the file is named, with the one that the template was filled in for."""
    lost = root / "libs/io/requirements-dev.txt"
    lost.unlink()
    config = read(
        root, template(locks=["libs/*/requirements.txt", "gone/x.txt", "{parent}/requirements-dev.txt"])
    )
    assert [*config.venvs] == ["gone", "core", "io"]
    file = f"{root}/venvflow.yaml"
    assert config.missing_files == {
        "gone": (
            f"{file}:2: each[0].locks[0]: {root}/gone/x.txt does not exist (for gone/x.txt)",
            f"{file}:2: each[0].locks[1]: {root}/gone/requirements-dev.txt does not exist (for gone/x.txt)",
        ),
        "io": (f"{file}:2: each[0].locks[1]: {lost} does not exist (for libs/io/requirements.txt)",),
    }  # fmt: skip


def test_templates_may_all_be_in_comments(root: Path) -> None:
    """As venvs may."""
    assert read(root, "each:\n# - locks: ['*/*/requirements.txt']\n").venvs == {}


PASSED_OVER = "what is hidden, installed or in node_modules is passed over"


def test_one_wrong_template_does_not_hide_the_mistakes_of_another(root: Path) -> None:
    """All mistakes of a file are told at once."""
    text = (
        template(locks=["x/*"])
        + "  - {locks: ['libs/*/requirements.txt'], pin: maybe}\n  - x\nvenvs: {a: b/*}\n"
    )
    assert lines_of(root, text) == [
        f"2: each[0].locks[0]: x/* matches no file in ROOT; {PASSED_OVER}",
        "3: each[1].pin: expected true or false, found the text maybe",
        "4: each[2]: expected a mapping (key: value), found the text x",
        "5: venvs.a: the key 'path' is missing: b/* is not one file, beside which the venv would be",
    ]
    assert lines_of(root, "version: 1\n") == ["1: the key 'venvs' is missing"]
