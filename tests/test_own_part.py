"""What a lock file says for one venv: what counts, what does not, and that in doubt it counts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from wheels import toml_of

from venvflow.model import VenvSpec
from venvflow.pure.lockfiles import listed, references
from venvflow.pure.own_part import Chosen, Markers, names_in, requirements_part, tool_part

VALUES = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "6.1.0",
    "platform_system": "Linux",
    "platform_version": "#1 SMP",
    "python_full_version": "3.11.7",
    "python_version": "3.11",
    "sys_platform": "linux",
}
MARKERS = Markers(VALUES)
SPEC = VenvSpec("api", "/p/.venv", ("/p/uv.lock",))
A, B = "a" * 64, "b" * 64


# --------------------------------------------------------------------------- markers


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("sys_platform == 'win32'", False),
        ('sys_platform == "linux"', True),
        ("'linux' in sys_platform", True),
        ("sys_platform not in 'win32,darwin'", True),
        ("python_version < '3.8'", False),
        ("python_version >= '3'", True),
        ("python_full_version < '3.11.8'", True),
        ("python_full_version == '3.11.*'", True),
        ("python_version != '3.11.*'", False),
        ("(os_name == 'nt' or platform_machine == 'x86_64') and python_version > '3.10'", True),
        ("python_version == '3.11' and (sys_platform == 'darwin' or platform_system == 'Windows')", False),
    ],
)
def test_a_marker_that_all_tools_read_alike_is_known(text: str, *, holds: bool) -> None:
    """Comparisons of words, and of final versions."""
    assert MARKERS.hold(text) is holds


@pytest.mark.parametrize(
    "text",
    [
        "extra == 'pg'",
        "sys_platform == 'win32' and extra == 'extra-3-one-x'",
        "'pg' in extras",
        "platform_release >= '5'",
        "platform_version == '#1 SMP'",
        "implementation_version < '3.8'",
        "python_version in '3.10 3.11'",
        "python_version ~= '3.8'",
        "python_version < '3.8rc1'",
        "sys_platform >= 'a'",
        "sys_platform == sys_platform",
        "python_version",
        "",
        "1 or 1",
        "sys_platform == 'linux' sys_platform == 'linux'",
        "xsys_platform == 'linux'",
        "sys_platform == 'linux",
    ],
)
def test_of_any_other_it_is_not_known_whether_it_holds(text: str) -> None:
    """Extras are the tool's affair, kernels change, and who knows what a tool makes of the rest."""
    assert MARKERS.hold(text) is None


def test_without_a_final_version_no_marker_is_known() -> None:
    """Tools do not agree whether 3.14.0rc1 is 3.14."""
    for values in ({}, {**VALUES, "python_full_version": "3.14.0rc1"}):
        assert Markers(values).hold("sys_platform == 'linux'") is None


# --------------------------------------------------------------------------- requirements files

LOCK = f"""\
# made by a tool
--index-url https://index.example/simple
alpha==1.0 \\
    --hash=sha256:{A} \\
    --hash=sha256:{B}
    # via beta
beta[x]==2.0 ; python_version >= '3.8'  # why
gamma==3.0 ; sys_platform == 'win32'
delta @ https://example.com/delta-1.0-py3-none-any.whl ; sys_platform == 'linux'
-e ./local
"""


def says(text: str, asked: frozenset[str] | None = None) -> str | None:
    """Return the part of a requirements file as text."""
    part = requirements_part(text.encode(), MARKERS, asked)
    return part.decode() if part is not None else None


def test_a_requirements_file_says_its_options_and_what_is_for_this_venv() -> None:
    """In one form, which is a requirements file itself."""
    assert says(LOCK) == (
        "--index-url https://index.example/simple\n"
        "-e ./local\n"
        f"alpha==1.0 --hash=sha256:{A} --hash=sha256:{B}\n"
        "beta[x]==2.0\n"
        "delta @ https://example.com/delta-1.0-py3-none-any.whl\n"
    )
    assert says(str(says(LOCK))) == says(LOCK)
    assert listed("requirements.txt", str(says(LOCK)).encode()) == {
        "alpha": "1.0", "beta": "2.0", "delta": "@ https://example.com/delta-1.0-py3-none-any.whl"
    }  # fmt: skip
    assert references("requirements.txt", str(says(LOCK)).encode()).local == ("./local",)


@pytest.mark.parametrize(
    "changed",
    [
        LOCK + "# more\n\n",
        LOCK.replace("# made by a tool\n", ""),
        LOCK.replace("  # why", ""),
        LOCK.replace("\n", "\r\n"),
        LOCK.replace(
            f"    --hash=sha256:{A} \\\n    --hash=sha256:{B}", f"  --hash sha256:{B} --hash=sha256:{A}"
        ),
        LOCK.replace("gamma==3.0", "gamma==3.1"),
        LOCK.replace("gamma==3.0 ; sys_platform == 'win32'\n", ""),
        LOCK.replace("python_version >= '3.8'", "python_version >= '3.9'"),
        LOCK.replace("beta[x]==2.0 ; python_version >= '3.8'", "beta[x]==2.0;python_version>='3.8'"),
        LOCK.replace(" ; sys_platform == 'linux'", ""),
        "\ufeff" + LOCK,
    ],
)
def test_what_does_not_reach_the_venv_does_not_count(changed: str) -> None:
    """Comments, order of hashes, lines of other platforms, markers that hold anyway."""
    assert changed != LOCK
    assert says(changed) == says(LOCK)


def test_the_order_of_requirements_does_not_count_that_of_options_does() -> None:
    """The first index is asked first."""
    assert says("b==1\na==1\n") == says("a==1\nb==1\n")
    assert says("--index-url x\n--extra-index-url y\n") != says("--extra-index-url y\n--index-url x\n")


@pytest.mark.parametrize(
    "changed",
    [
        LOCK.replace("alpha==1.0", "alpha==1.1"),
        LOCK.replace(A, "c" * 64),
        LOCK.replace(f" \\\n    --hash=sha256:{B}", ""),
        LOCK.replace("beta[x]", "beta[y]"),
        LOCK.replace("sys_platform == 'win32'", "sys_platform == 'linux'"),
        LOCK.replace("python_version >= '3.8'", "python_version >= '3.12'"),
        LOCK.replace("python_version >= '3.8'", "platform_release >= '5'"),
        LOCK.replace("delta-1.0", "delta-1.1"),
        LOCK.replace("index.example", "other.example"),
        LOCK.replace("./local", "./other"),
        LOCK + "--no-binary alpha\n",
        LOCK + "--pre\n",
        LOCK + "-r more.txt\n",
        LOCK + "-c constraints.txt\n",
        LOCK + "epsilon==1.0\n",
        LOCK + "https://example.com/zeta-1.0-py3-none-any.whl\n",
        LOCK.replace("beta[x]==2.0 ;", "beta[x]==2.0 --config-settings=a=b ;"),
    ],
)
def test_what_may_reach_the_venv_counts(changed: str) -> None:
    """Versions, hashes, extras, markers that hold now, URLs, indexes, options."""
    assert changed != LOCK
    assert says(changed) != says(LOCK)


def test_a_line_whose_marker_is_not_known_stays_as_it_is() -> None:
    """The tool decides, when the venv is built."""
    line = f"alpha==1.0 ; platform_release >= '5' --hash=sha256:{A}\n"
    assert says(line) == line


def test_one_hash_for_another_platform_asks_for_all_of_them() -> None:
    """So pip would refuse the line that has none."""
    windows = f"gamma==1.0 ; sys_platform == 'win32' --hash=sha256:{A}\n"
    assert says(windows + "alpha==1.0\n") == "--require-hashes\nalpha==1.0\n"


@pytest.mark.parametrize("text", ["alpha==1.0\x0cbeta==1.0\n", "alph\u00e4==1.0\n", "alpha==1.0 \ufffd\n"])
def test_what_tools_may_read_in_another_way_has_no_part(text: str) -> None:
    """Then its bytes count. A comment may be in any language."""
    assert says(text) is None
    assert requirements_part(b"alpha==1.0\xff\n", MARKERS) is None
    assert says("alpha==1.0  # f\u00fcr alle\n") == "alpha==1.0\n"


def test_constraints_count_by_the_names_that_are_asked_for() -> None:
    """Names are compared as tools do; a constraint without a name always counts."""
    text = "Alpha_One==1.0\nbeta<2\n--pre\nhttps://example.com/x.whl\n"
    asked = names_in(b"alpha-one[x]==1.0\n--index-url x\n-c c.txt\n")
    assert asked == frozenset({"alpha-one"})
    assert says(text, asked) == "--pre\nAlpha_One==1.0\nhttps://example.com/x.whl\n"


@pytest.mark.parametrize(
    "line",
    [
        "-r https://example.com/r.txt",
        "-e ./local",
        "--editable=./local",
        "./local",
        "https://example.com/x",
        "x.whl",
        "dir/x.tar.gz",
    ],
)
def test_a_project_without_a_name_may_be_meant_by_any_constraint(line: str) -> None:
    """Then all of them count."""
    assert names_in(f"alpha==1.0\n{line}\n".encode()) is None


# --------------------------------------------------------------------------- uv.lock


def uv_lock(**changes: Any) -> dict[str, Any]:
    """Return a workspace of two members, ``one`` and ``two``, as TOML says it."""
    registry = {"registry": "https://index.example/simple"}

    def package(name: str) -> dict[str, Any]:
        wheel = {"url": f"https://files.example/{name}-1.0.whl", "hash": f"sha256:{A}", "size": 1}
        return {"name": name, "version": "1.0", "source": registry, "wheels": [wheel]}

    one = {
        "name": "one", "version": "0.1", "source": {"editable": "packages/one"},
        "dependencies": [
            {"name": "alpha", "extra": ["more"]},
            {"name": "gamma", "marker": "sys_platform == 'win32'"},
        ],
        "optional-dependencies": {"pg": [{"name": "epsilon"}]},
        "dev-dependencies": {"dev": [{"name": "zeta"}], "docs": [{"name": "eta"}]},
        "metadata": {"requires-dist": [{"name": "alpha"}]},
    }  # fmt: skip
    two = {
        "name": "two", "version": "0.1", "source": {"editable": "packages/two"},
        "dependencies": [{"name": "beta"}, {"name": "one"}],
    }  # fmt: skip
    return {
        "version": 1,
        "requires-python": ">=3.8",
        "manifest": {"members": ["one", "two"]},
        "package": [
            {
                **package("alpha"),
                "dependencies": [{"name": "delta"}],
                "optional-dependencies": {"more": [{"name": "theta"}], "less": [{"name": "iota"}]},
            },
            *map(package, ("beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota")),
            one,
            two,
        ],
        **changes,
    }


def part(
    kind: str, document: dict[str, Any], spec: VenvSpec = SPEC, **manifests: str
) -> dict[str, Any] | None:
    """Return what a lock file says for *spec*; *manifests* are pyproject.toml by their directories."""
    data = json.dumps(document) if kind == "pipenv" else toml_of(document)
    texts = {name.replace("_", "/"): text for name, text in manifests.items()}
    found = tool_part(kind, data.encode(), Chosen(spec, MARKERS, lambda name: texts.get(name, "").encode()))
    return json.loads(found) if found is not None else None


def names(document: dict[str, Any] | None, key: str = "package") -> str:
    """Return the names of the packages of a part."""
    assert document is not None
    return " ".join(sorted(each["name"] for each in document[key]))


def change(document: dict[str, Any], package: str, **values: Any) -> dict[str, Any]:
    """Return a lock file with other values in one package."""
    tables = [{**each, **values} if each["name"] == package else each for each in document["package"]]
    return {**document, "package": tables}


ONE = replace(SPEC, packages=("one",))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (ONE, "alpha delta one theta zeta"),
        (replace(ONE, dev=False), "alpha delta one theta"),
        (replace(ONE, dev=False, groups=("docs",)), "alpha delta eta one theta"),
        (replace(ONE, dev=False, extras=("PG",)), "alpha delta epsilon one theta"),
        (replace(SPEC, packages=("two",), dev=False), "alpha beta delta one theta two"),
        (replace(SPEC, packages=("two",)), "alpha beta delta one theta two"),
        (replace(SPEC, packages="all"), "alpha beta delta one theta two zeta"),
        (SPEC, "alpha beta delta one theta two zeta"),
    ],
)
def test_of_a_workspace_counts_what_a_member_needs(spec: VenvSpec, expected: str) -> None:
    """Its dependencies with the extras that they ask for, its groups and extras, not other platforms."""
    assert names(part("uv", uv_lock(), spec)) == expected


def test_a_project_at_the_root_is_what_is_installed() -> None:
    """Unless all members are asked for."""
    root = {"name": "root", "version": "0", "source": {"virtual": "."}, "dependencies": [{"name": "beta"}]}
    lock = uv_lock()
    lock["package"].append(root)
    lock["manifest"]["members"].append("root")
    assert names(part("uv", lock)) == "beta root"
    assert (
        names(part("uv", lock, replace(SPEC, packages="all", dev=False)))
        == "alpha beta delta one root theta two"
    )
    alone = {**lock, "manifest": {}}
    assert names(part("uv", alone)) == names(part("uv", alone, replace(SPEC, packages="all"))) == "beta root"


@pytest.mark.parametrize(
    ("lock", "manifests"),
    [
        (change(uv_lock(), "one", **{"default-groups": ["docs"]}), {}),
        (change(uv_lock(), "one", **{"default-groups": "all"}), {}),
        (uv_lock(), {"packages_one": "[tool.uv]\ndefault-groups = ['Docs']\n"}),
        (uv_lock(), {".": "[tool.uv]\ndefault-groups = 'all'\n"}),
    ],
)
def test_groups_that_are_installed_unasked_count(lock: dict[str, Any], manifests: dict[str, str]) -> None:
    """Whether the lock file says so or the project does."""
    assert "eta" in names(part("uv", lock, ONE, **manifests)).split()


def test_groups_of_a_workspace_count_for_each_member() -> None:
    """Whether uv installs them with one member differs by its version; with several, it always does."""
    lock = uv_lock()
    lock["manifest"]["dependency-groups"] = {"dev": [{"name": "iota"}], "lint": [{"name": "eta"}]}
    assert "iota" in names(part("uv", lock, ONE)).split()
    assert "iota" in names(part("uv", lock)).split()
    assert "iota" not in names(part("uv", lock, replace(ONE, dev=False))).split()
    assert "eta" in names(part("uv", lock, replace(ONE, groups=("lint",)))).split()
    assert "eta" not in names(part("uv", lock)).split()
    assert "eta" in names(part("uv", lock, replace(SPEC, groups=("lint",)))).split()


def test_an_edge_means_the_version_that_it_names_or_all() -> None:
    """A package may be there in several versions, for several platforms or extras."""
    lock = uv_lock()
    other = {"name": "beta", "version": "2.0", "source": {"registry": "https://index.example/simple"}}
    lock["package"].append(other)
    two = replace(SPEC, packages=("two",))
    assert names(part("uv", lock, two)).count("beta") == 2
    named = change(lock, "two", dependencies=[{**other, "marker": "python_version >= '3.8'"}])
    found = part("uv", named, two)
    assert found is not None
    assert [each["version"] for each in found["package"] if each["name"] == "beta"] == ["2.0"]
    # That another member brought another version changes nothing for this one.
    only = change(uv_lock(), "two", dependencies=[{"name": "beta"}])
    with_edge = change(
        only, "two", dependencies=[{key: only["package"][1][key] for key in ("name", "version", "source")}]
    )
    with_edge["package"].append(other)
    assert part("uv", with_edge, two) == part("uv", only, two)


@pytest.mark.parametrize(
    "changed",
    [
        change(uv_lock(), "beta", version="2.0"),
        change(uv_lock(), "gamma", version="2.0"),
        change(uv_lock(), "eta", version="2.0"),
        change(uv_lock(), "iota", wheels=[]),
        change(uv_lock(), "two", dependencies=[{"name": "gamma"}]),
        change(uv_lock(), "one", metadata={}),
        change(uv_lock(), "one", dependencies=[{"name": "alpha", "extra": ["more"]}]),
        change(uv_lock(), "one", **{"optional-dependencies": {}}),
        uv_lock(manifest={"members": ["one", "three", "two"]}),
        uv_lock(package=uv_lock()["package"][::-1]),
    ],
)
def test_what_is_not_for_a_member_does_not_count(changed: dict[str, Any]) -> None:
    """Other members, other platforms, other groups and extras, the order."""
    assert changed != uv_lock()
    assert part("uv", changed, ONE) == part("uv", uv_lock(), ONE)


WHEEL = {"url": "https://files.example/delta-1.0.whl", "hash": f"sha256:{A}", "size": 1}


@pytest.mark.parametrize(
    "changed",
    [
        change(uv_lock(), "delta", version="2.0"),
        change(uv_lock(), "delta", wheels=[{**WHEEL, "hash": f"sha256:{B}"}]),
        change(uv_lock(), "delta", wheels=[{**WHEEL, "url": "https://other.example/delta-1.0.whl"}]),
        change(uv_lock(), "delta", wheels=[WHEEL, {**WHEEL, "url": "https://files.example/delta-cp311.whl"}]),
        change(uv_lock(), "delta", wheels=[], sdist={"url": "https://files.example/delta-1.0.tar.gz"}),
        change(uv_lock(), "delta", source={"registry": "https://other.example/simple"}),
        change(uv_lock(), "delta", source={"git": f"https://example.com/delta#{'1' * 40}"}),
        change(uv_lock(), "delta", **{"resolution-markers": ["sys_platform == 'linux'"]}),
        change(uv_lock(), "zeta", version="2.0"),
        change(uv_lock(), "one", source={"directory": "packages/one"}),
        change(uv_lock(), "one", dependencies=[{"name": "gamma", "marker": "sys_platform == 'linux'"}]),
        change(uv_lock(), "one", dependencies=[{"name": "alpha", "extra": ["less", "more"]}]),
        change(uv_lock(), "one", **{"default-groups": ["docs"]}),
        uv_lock(**{"requires-python": ">=3.9"}),
        uv_lock(**{"resolution-markers": ["sys_platform == 'linux'"]}),
        uv_lock(**{"supported-markers": ["sys_platform == 'linux'"]}),
        uv_lock(conflicts=[[{"package": "one", "extra": "pg"}]]),
        uv_lock(options={"exclude-newer": "2026-01-01T00:00:00Z"}),
        uv_lock(manifest={"members": ["one", "two"], "overrides": [{"name": "delta", "specifier": "<2"}]}),
        uv_lock(manifest={"members": ["one", "two"], "constraints": [{"name": "delta", "specifier": "<2"}]}),
        uv_lock(manifest={"members": ["one", "two"], "build-constraints": [{"name": "hatchling"}]}),
        uv_lock(manifest={"members": ["one", "two"], "dependency-metadata": [{"name": "delta"}]}),
    ],
)
def test_what_may_reach_a_member_counts(changed: dict[str, Any]) -> None:
    """Versions, hashes, sources, files, markers, groups, and what holds for the whole lock file."""
    assert part("uv", changed, ONE) != part("uv", uv_lock(), ONE)


def test_a_step_in_doubt_is_taken_and_its_marker_counts() -> None:
    """Conflicting extras are told apart by markers that uv alone understands."""
    doubtful = [{"name": "gamma", "marker": "extra == 'extra-3-one-pg'"}]
    found = part("uv", change(uv_lock(), "one", dependencies=doubtful), ONE)
    assert names(found) == "gamma one zeta"
    doubtful[0]["marker"] = "extra != 'extra-3-one-pg'"
    assert part("uv", change(uv_lock(), "one", dependencies=doubtful), ONE) != found


@pytest.mark.parametrize(
    "lock",
    [
        {},
        {"package": 3},
        {"package": [{"name": "one"}]},
        change(uv_lock(), "one", dependencies=[{"name": "unheard-of"}]),
        change(uv_lock(), "one", dependencies=[3]),
        change(uv_lock(), "one", dependencies=[{"name": "alpha", "version": "9"}]),
        change(uv_lock(), "one", source={"registry": "x"}),
        uv_lock(package=[]),
    ],
)
def test_what_is_not_as_uv_makes_it_has_no_part(lock: dict[str, Any]) -> None:
    """Then its bytes count."""
    assert part("uv", lock, ONE) is None


def test_only_projects_that_a_member_needs_are_named_by_its_part() -> None:
    """Their build files are in its key, and those of other members are not."""
    data = json.dumps(part("uv", uv_lock(), ONE)).encode()
    assert references("uv.lock", data).local == ("packages/one",)
    assert listed("uv.lock", data) == {
        "alpha": "1.0", "delta": "1.0", "one": "@ packages/one", "theta": "1.0", "zeta": "1.0"
    }  # fmt: skip


# --------------------------------------------------------------------------- other tools

POETRY = {
    "package": [
        {"name": "alpha", "version": "1.0", "groups": ["main"]},
        {"name": "beta", "version": "1.0", "groups": ["dev"]},
        {"name": "gamma", "version": "1.0", "groups": ["main"], "markers": "sys_platform == 'win32'"},
        {
            "name": "delta", "version": "1.0", "groups": ["main", "docs"],
            "markers": {"main": "sys_platform == 'win32'", "docs": "python_version >= '3.8'"},
        },
        {"name": "eps", "version": "1.0", "groups": ["main"], "optional": True, "markers": "extra == 'pg'"},
    ],
    "metadata": {"lock-version": "2.1", "content-hash": A},
}  # fmt: skip
PDM = {
    "metadata": {"groups": ["default", "dev", "docs"], "strategy": ["inherit_metadata"], "content_hash": A},
    "package": [
        {"name": "alpha", "version": "1.0", "groups": ["default"]},
        {"name": "beta", "version": "1.0", "groups": ["dev"]},
        {"name": "gamma", "version": "1.0", "groups": ["default"], "marker": "sys_platform == 'win32'"},
        {"name": "delta", "version": "1.0", "groups": ["docs"]},
    ],
}
PYLOCK = {
    "lock-version": "1.0",
    "created-by": "tests",
    "packages": [
        {"name": "alpha", "version": "1.0"},
        {"name": "gamma", "version": "1.0", "marker": "sys_platform == 'win32'"},
        {"name": "delta", "version": "1.0", "marker": "python_version >= '3.8'"},
        {"name": "eps", "version": "1.0", "marker": "'pg' in extras"},
    ],
}
PRODUCTION = replace(SPEC, dev=False)


@pytest.mark.parametrize(
    ("kind", "lock", "spec", "expected"),
    [
        ("poetry", POETRY, SPEC, "alpha beta delta eps"),
        ("poetry", POETRY, PRODUCTION, "alpha eps"),
        ("poetry", POETRY, replace(PRODUCTION, groups=("docs",)), "alpha delta eps"),
        ("pdm", PDM, SPEC, "alpha beta delta"),
        ("pdm", PDM, PRODUCTION, "alpha"),
        ("pdm", PDM, replace(PRODUCTION, groups=("Docs",)), "alpha delta"),
    ],
)
def test_of_poetry_and_pdm_counts_what_is_for_the_groups(
    kind: str, lock: dict[str, Any], spec: VenvSpec, expected: str
) -> None:
    """Where development dependencies are installed, all groups count: which of them are, the project says."""
    found = part(kind, lock, spec)
    assert names(found) == expected
    assert found is not None
    assert found["metadata"] == lock["metadata"]
    assert part(kind, change(lock, "alpha", version="2.0"), spec) != found
    assert part(kind, change(lock, "gamma", version="2.0"), spec) == found
    assert part(kind, change(lock, "alpha", files=[{"hash": B}]), spec) != found
    assert (part(kind, change(lock, "beta", version="2.0"), spec) == found) is not spec.dev


def test_a_lock_that_does_not_say_for_which_groups_a_package_is_has_no_part() -> None:
    """Then the tool works it out itself."""
    old = {**POETRY, "package": [{"name": "alpha", "version": "1.0"}]}
    assert part("poetry", old) is None
    assert part("pdm", {**PDM, "metadata": {"strategy": ["cross_platform"]}}) is None
    assert part("pdm", {**PDM, "metadata": {}}) is None


def test_what_a_project_makes_of_the_commands_of_pdm_is_not_known() -> None:
    """Its options may choose further groups."""
    texts = {".": "[tool.pdm.options]\nsync = ['-G', 'docs']\n"}
    assert part("pdm", PDM, PRODUCTION, **texts) is None


def test_of_pylock_counts_what_its_markers_leave() -> None:
    """Who made it does not."""
    found = part("pylock", PYLOCK)
    assert names(found, "packages") == "alpha delta eps"
    assert part("pylock", {**PYLOCK, "created-by": "others"}) == found
    assert part("pylock", {**PYLOCK, "default-groups": ["a"]}) != found


def test_of_pipenv_counts_what_is_in_its_categories() -> None:
    """And its head, which has the indexes."""
    lock = {
        "_meta": {"sources": [{"url": "https://index.example"}]},
        "default": {
            "alpha": {"version": "==1.0"},
            "gamma": {"version": "==1.0", "markers": "sys_platform == 'win32'"},
        },
        "develop": {"beta": {"version": "==1.0"}},
        "docs": {"delta": {"version": "==1.0"}},
    }
    assert part("pipenv", lock) == {
        "_meta": lock["_meta"], "default": {"alpha": {"version": "==1.0"}}, "develop": lock["develop"]
    }  # fmt: skip
    assert part("pipenv", lock, PRODUCTION) == {
        "_meta": lock["_meta"],
        "default": {"alpha": {"version": "==1.0"}},
    }
    assert part("pipenv", lock, replace(PRODUCTION, groups=("docs",))) == {
        "_meta": lock["_meta"], "default": {"alpha": {"version": "==1.0"}}, "docs": lock["docs"]
    }  # fmt: skip


def test_what_no_tool_makes_has_no_part() -> None:
    """Nor has what cannot be read."""
    assert tool_part("other", b"", Chosen(SPEC, MARKERS, lambda _: b"")) is None
    for kind in ("uv", "poetry", "pdm", "pylock", "pipenv"):
        assert tool_part(kind, b"\xff[[", Chosen(SPEC, MARKERS, lambda _: b"")) is None
