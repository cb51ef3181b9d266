"""The config file: found, and all of it in the records; the environment and warnings."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from configs import one_venv, problems, project, read

from venvflow.config import find_config, load
from venvflow.errors import EnvironmentFailure, UsageError
from venvflow.model import Config, PackOptions, StoreConfig, TrimPolicy, VenvSpec


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a lock file at its top, and a home beside it."""
    return project(tmp_path)


def test_the_config_is_found_in_parents(tmp_path: Path) -> None:
    """From deep inside, the nearest config wins, and its directory is the root."""
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "venvflow.yaml").touch()
    assert find_config(str(deep)) == (f"{tmp_path}/venvflow.yaml", str(tmp_path))
    (deep.parent / "venvflow.yaml").touch()
    assert find_config(str(deep)) == (f"{tmp_path}/a/venvflow.yaml", f"{tmp_path}/a")


def test_a_config_directory_belongs_to_the_project_above(tmp_path: Path) -> None:
    """config/venvflow.yaml is found after venvflow.yaml, and its root is the parent of config/."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "venvflow.yaml").touch()
    assert find_config(str(tmp_path)) == (f"{tmp_path}/config/venvflow.yaml", str(tmp_path))
    (tmp_path / "venvflow.yaml").touch()
    assert find_config(str(tmp_path))[0] == f"{tmp_path}/venvflow.yaml"


@pytest.mark.parametrize(("explicit", "below"), [("x/other.yaml", "x"), ("x/config/v.yaml", "x")])
def test_an_explicit_config_decides_the_root(tmp_path: Path, explicit: str, below: str) -> None:
    """The root is the file's directory, or the parent of a directory called config."""
    file = tmp_path / explicit
    file.parent.mkdir(parents=True)
    file.touch()
    assert find_config(str(tmp_path), explicit) == (str(file), f"{tmp_path}/{below}")
    assert find_config("/", str(file)) == (str(file), f"{tmp_path}/{below}")


def test_without_a_config_the_error_says_what_to_do(tmp_path: Path) -> None:
    """Nothing found is a usage error that points to init, or to a name with the wrong ending."""
    with pytest.raises(UsageError, match="venvflow init") as caught:
        find_config(str(tmp_path))
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match="not there"):
        find_config(str(tmp_path), "nope.yaml")
    (tmp_path / "venvflow.yml").touch()
    with pytest.raises(UsageError, match=r"rename it to venvflow\.yaml"):
        find_config(str(tmp_path))


def test_a_deleted_working_directory_is_an_error_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative start needs a working directory that exists."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(EnvironmentFailure, match="working directory"):
        find_config(".")


def test_every_key_arrives_in_its_record(root: Path) -> None:
    """The whole example of the documentation, key by key."""
    (root / "constraints").mkdir()
    for name in ("b.txt", "a.txt"):
        (root / "constraints" / name).touch()
    config = read(
        root,
        """\
version: 1
store:
  path: ~/store
  link: [hardlink, copy]
  min_size: 4096
  verify: full
  adopt: true
  durability: none
trim: {keep: 5, keep_per_venv: 1, max_age: 60d, max_size: 20GiB, min_free: 0}
exclude: ["**/tests/", "!**/numpy/tests/"]
venvs:
  api:
    path: services/api/../api/.venv/
    locks: [lock.txt]
    python: "3.12"
    build: [[make, venv], [sh, ""]]
    key: {files: [constraints/*.txt], env: [PIP_INDEX_URL]}
    bytecode: none
    exclude: ["**/torch/include/"]
    restore: false
    squish: {link: [reflink], min_size: 4KiB, private: ["**/starter/"]}
    pack: {format: tar.xz, level: 9, output: dist/}
    check: ["-c", "import api"]
    pin: true
""",
    )
    assert config == Config(
        file=f"{root}/venvflow.yaml",
        root=str(root),
        store=StoreConfig(f"{root.parent}/home/store", ("hardlink", "copy"), 4096, "full", True, "none"),
        trim=TrimPolicy(5, 1, 60 * 86400, 20 << 30, 0),
        venvs={
            "api": VenvSpec(
                name="api",
                path=f"{root}/services/api/.venv",
                locks=(f"{root}/lock.txt",),
                python="3.12",
                build=(("make", "venv"), ("sh", "")),
                key_files=(f"{root}/constraints/a.txt", f"{root}/constraints/b.txt"),
                key_env=("PIP_INDEX_URL",),
                bytecode="none",
                exclude=("**/tests/", "!**/numpy/tests/", "**/torch/include/"),
                restore=False,
                link=("reflink",),
                min_size=4096,
                private=("**/starter/",),
                pack=PackOptions(f"{root}/dist", "tar.xz", 9),
                check=("-c", "import api"),
                pin=True,
            )
        },
    )
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own bytes


def test_what_is_left_out_has_defaults(root: Path) -> None:
    """Two keys are enough; link and min_size of a venv are the store's."""
    spec = read(root, "store: {link: [copy], min_size: 2}\n" + one_venv()).venvs["api"]
    assert spec == VenvSpec("api", f"{root}/.venv", (f"{root}/lock.txt",), link=("copy",), min_size=2)


def test_a_lock_file_alone_is_a_venv(root: Path) -> None:
    """Text is the one lock file of a venv, which lies beside it. A mapping may leave out the path, too."""
    (root / "web").mkdir()
    (root / "web" / "uv.lock").touch()
    venvs = read(
        root, "venvs: {api: lock.txt, web: web/uv.lock, docs: {locks: [web/uv.lock], path: d}}"
    ).venvs
    assert venvs["api"] == VenvSpec("api", f"{root}/.venv", (f"{root}/lock.txt",))
    assert (venvs["web"].path, venvs["web"].locks) == (f"{root}/web/.venv", (f"{root}/web/uv.lock",))
    assert venvs["docs"].path == f"{root}/d"
    long = read(root, "venvs: {api: {locks: [web/uv.lock, lock.txt], pin: true}}").venvs["api"]
    assert (long.path, len(long.locks)) == (f"{root}/web/.venv", 2)


def test_the_missing_lock_file_of_a_short_form_is_that_of_its_venv(root: Path) -> None:
    """It keeps no other venv from being made."""
    config = read(root, "venvs:\n  api: x/gone.txt\n  web: lock.txt\n")
    assert config.missing_files == {
        "api": (f"{root}/venvflow.yaml:2: venvs.api.locks[0]: {root}/x/gone.txt does not exist",)
    }


def test_what_init_does_not_look_at_is_kept(root: Path) -> None:
    """The patterns are checked like those of exclude."""
    assert read(root, 'ignore: [examples/, "!examples/a"]\nvenvs: {}').ignore == ("examples/", "!examples/a")
    assert problems(root, "ignore: ['a[b']\nvenvs: {}")[0].startswith("1: ignore[0]: pattern 'a[b' has a [")


SETS = """\
defaults: {}
venvs: {web: x/lock.txt, lib-b: y/lock.txt, api: lock.txt}
each: [{locks: ["libs/*/lock.txt"], name: "lib-{dir}"}]
sets:
"""


THERE_ARE = "known are: web, lib-b, api, lib-a"
TOO_MANY_STARS = (
    "has too many stars: at most 4 between two slashes and 6 in all, or matching could take for ever"
)
NAMES = (
    "at most 100 letters, digits, dots, dashes, underscores and plus signs, the first of them no dot or dash"
)


def test_sets_name_several_venvs(root: Path) -> None:
    """By name or pattern, in the order of the config, each once; those of templates as well."""
    (root / "libs" / "a").mkdir(parents=True)
    (root / "libs" / "a" / "lock.txt").touch()
    config = read(root, SETS + "  ci: [api, 'lib-*', lib-a, '[w]eb']\n  libs: [lib-?]\n")
    assert config.sets == {"ci": ("web", "lib-b", "api", "lib-a"), "libs": ("lib-b", "lib-a")}
    assert config.groups["api"] == ("api",)
    assert config.groups["libs"] == ("lib-b", "lib-a")
    assert [*config.groups] == ["web", "lib-b", "api", "lib-a", "ci", "libs"]


@pytest.mark.parametrize(
    ("sets", "problem"),
    [
        ("ci: [apy]", "5: sets.ci[0]: 'apy' names no venv; did you mean 'api'?"),
        ("ci: [api, 'x-*']", f"5: sets.ci[1]: 'x-*' names no venv; {THERE_ARE}"),
        ("ci: []", "5: sets.ci: the list must not be empty"),
        ("ci: api", "5: sets.ci: expected a list, such as [a, b], found the text api"),
        ("ci: ['*a*a*a*a*b']", f"5: sets.ci[0]: *a*a*a*a*b {TOO_MANY_STARS}"),
        ("ci: [ci]", f"5: sets.ci[0]: 'ci' is a set, and a set lists venvs; {THERE_ARE}"),
        (
            "a: [api]\n  b:\n    - web\n    - a",
            f"8: sets.b[1]: 'a' is a set, and a set lists venvs; {THERE_ARE}",
        ),
        ("API: [web]", "5: sets.API: 'api' is the name of a venv"),
        ("lib-a: [web]", "5: sets.lib-a: 'lib-a' is the name of a venv"),
        ("store: [web]", "5: sets: 'store' cannot be the name of a set: it is a task"),
        ("trim: [web]", "5: sets: 'trim' cannot be the name of a set: it is a task"),
        ("list: [web]", "5: sets: 'list' cannot be the name of a set: \"doit list\" is a command"),
        ("-x: [web]", f"5: sets: '-x' cannot be the name of a set: {NAMES}"),
        (
            "ci: [web]\n  CI: [api]",
            "6: sets: 'CI' and 'ci' differ only in case: some disks cannot tell them apart",
        ),
    ],
)
def test_a_set_that_names_no_venv_is_told(root: Path, sets: str, problem: str) -> None:
    """With its line, and what may be meant."""
    (root / "libs" / "a").mkdir(parents=True)
    (root / "libs" / "a" / "lock.txt").touch()
    assert problems(root, f"{SETS}  {sets}\n") == [problem]


def test_a_set_of_venvs_with_mistakes_is_no_mistake(root: Path) -> None:
    """It is the venv that has to be corrected."""
    assert problems(root, "sets: {ci: [api]}\nvenvs: {api: {path: a, locks: [3]}}") == [
        '2: venvs.api.locks[0]: YAML reads 3 as a number: write it in quotes, "3"'
    ]


def test_defaults_fill_in_and_are_overridden(root: Path) -> None:
    """A venv's own keys win; squish, pack and key are joined key by key; null takes a pack away."""
    text = """\
defaults:
  python: "3.12"
  exclude: [common]
  squish: {link: [copy], min_size: 9}
  pack: {format: tar.gz, output: out}
exclude: [everywhere]
venvs:
  a: {path: a, locks: [lock.txt]}
  b: {path: b, locks: [lock.txt], python: "3.13", exclude: [own], squish: {min_size: 1}, pack: {level: 9}}
  c: {path: c, locks: [lock.txt], pack: null}
"""
    venvs = read(root, text).venvs
    assert (venvs["a"].python, venvs["a"].exclude) == ("3.12", ("everywhere", "common"))
    assert venvs["a"].pack == PackOptions(f"{root}/out", "tar.gz", 6)
    assert (venvs["b"].python, venvs["b"].exclude) == ("3.13", ("everywhere", "own"))
    assert (venvs["b"].link, venvs["b"].min_size) == (("copy",), 1)
    assert venvs["b"].pack == PackOptions(f"{root}/out", "tar.gz", 9)
    assert venvs["c"].pack is None


def test_the_store_is_where_the_environment_says(root: Path) -> None:
    """VENVFLOW_STORE beats the file, the file beats XDG_DATA_HOME, and that beats the default."""
    home = f"{root.parent}/home"
    assert read(root, "venvs: {}").store.path == f"{home}/.local/share/venvflow"
    assert read(root, "venvs: {}", XDG_DATA_HOME="/data").store.path == "/data/venvflow"
    assert read(root, "venvs: {}", XDG_DATA_HOME="data").store.path == f"{home}/.local/share/venvflow"
    text = "store: {path: '${CACHE}/s'}\nvenvs: {}"
    assert read(root, text, XDG_DATA_HOME="/data", CACHE="/c").store.path == "/c/s"
    assert read(root, text, VENVFLOW_STORE="/env").store.path == "/env"
    assert read(root, text, VENVFLOW_STORE="~/env").store.path == f"{home}/env"
    assert read(root, text, VENVFLOW_STORE="env").store.path == f"{root}/env"


def test_all_problems_are_told_at_once_in_order(root: Path) -> None:
    """One reading finds everything, each with its line, its key path and the nearest word."""
    text = """\
version: 2
stor: {}
venvs:
  api:
    path: .venv
    lock: [lock.txt]
    bytecode: cannonical
    restore: yes
trim: {keep: 0, max_size: 10G, max_age: 3}
defaults: {path: x}
"""
    assert problems(root, text) == [
        "1: version: this venvflow reads version 1 of the config, found 2",
        "2: unknown key 'stor'; did you mean 'store'?",
        "4: venvs.api: the key 'locks' is missing",
        "6: venvs.api: unknown key 'lock'; did you mean 'locks'?",
        "7: venvs.api.bytecode: the text cannonical is not possible here; did you mean 'canonical'?",
        "8: venvs.api.restore: expected true or false, found the truth value yes",
        "9: trim.keep: expected a whole number from 1 to 1000000, found 0",
        "9: trim.max_size: '10G' has no known unit: write 10GiB or 10GB",
        "9: trim.max_age: 3 has no unit: write 3s, 3m (minutes), 3h, 3d or 3w",
        "10: defaults: unknown key 'path'; each venv has a path of its own",
    ]


def test_a_config_that_all_may_write_is_warned_of(root: Path) -> None:
    """Whoever can write the config can run commands as its reader."""
    file = root / "venvflow.yaml"
    assert read(root, one_venv()).warnings == ()
    file.chmod(0o666)
    environ = {"HOME": "/home/x", "VENVFLOW_TRUST": str(root)}
    assert "chmod o-w" in load(str(file), str(root), environ).warnings[0]


def test_without_home_the_user_database_is_asked(root: Path) -> None:
    """An unset or relative HOME is no reason to stop."""
    (root / "venvflow.yaml").write_text(one_venv())
    for environ in ({}, {"HOME": ""}, {"HOME": "relative"}):
        config = load(str(root / "venvflow.yaml"), str(root), environ)
        assert os.path.isabs(config.store.path)
        assert "relative" not in config.store.path


def test_nothing_heavy_is_imported_for_an_ordinary_config(root: Path) -> None:
    """Loading is on the path of a run that has nothing to do."""
    (root / "venvflow.yaml").write_text(one_venv('exclude: ["**/tests/", "!x/[a-c]*"]'))
    code = (
        "import sys, yaml; before = set(sys.modules); from venvflow import config; "
        "config.load(sys.argv[1] + '/venvflow.yaml', sys.argv[1], {'HOME': '/home/x'}); "
        "new = set(sys.modules) - before; "
        "print(*new & {'json', 'glob', 'difflib', 'pathlib', 'pathspec', 'subprocess'})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
