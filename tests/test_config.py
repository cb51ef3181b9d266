"""The config file: finding it, reading it with care, checking all of it, refusing dangerous paths."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from venvflow import config as config_module
from venvflow.config import find_config, load, schema
from venvflow.errors import ConfigError, EnvironmentFailure, Refused, UsageError
from venvflow.model import Config, PackOptions, StoreConfig, TrimPolicy, VenvSpec

ROOT_USER = os.geteuid() == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a lock file at its top, and a home beside it."""
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "home").mkdir()
    (project / "lock.txt").write_text("six==1.17.0\n")
    return project


def read(root: Path, text: str | bytes, *, require_locks: bool = True, **environ: str) -> Config:
    """Load *text* as the config of *root*."""
    file = root / "venvflow.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    variables = {"HOME": str(root.parent / "home"), **environ}
    return load(str(file), str(root), variables, require_locks=require_locks)


def problems(root: Path, text: str | bytes, **environ: Any) -> list[str]:
    """Return the problems of *text*, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        read(root, text, **environ)
    prefix = f"{root}/venvflow.yaml:"
    assert all(problem.startswith(prefix) for problem in caught.value.problems)
    assert caught.value.exit_code == 2
    return [problem.removeprefix(prefix) for problem in caught.value.problems]


def one_venv(line: str = "", path: str = ".venv") -> str:
    """Return a config of one venv with *line* added to it."""
    return f"venvs:\n  api:\n    path: {path}\n    locks: [lock.txt]\n    {line}\n"


# --------------------------------------------------------------------------- finding


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


# --------------------------------------------------------------------------- a good config


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
  adopt: false
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
    squish: {link: [reflink], min_size: 4KiB}
    pack: {format: tar.xz, level: 9, output: dist/}
    check: ["-c", "import api"]
    pin: true
""",
    )
    assert config == Config(
        file=f"{root}/venvflow.yaml",
        root=str(root),
        store=StoreConfig(f"{root.parent}/home/store", ("hardlink", "copy"), 4096, "full", False, "none"),
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


def test_paths_fill_in_home_and_variables_but_nothing_else_does(root: Path) -> None:
    """~/ and ${VAR} in paths, $$ for a dollar; a check is taken literally."""
    text = one_venv('check: ["~", "${A}"]', path='"~/${A}/$${A}"')
    spec = read(root, text, A="x y").venvs["api"]
    assert spec.path == f"{root.parent}/home/x y/${{A}}"
    assert spec.check == ("~", "${A}")
    assert read(root, one_venv("python: ./bin/python")).venvs["api"].python == f"{root}/bin/python"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("${NOPE}/x", "NOPE is not defined"),
        ("${EMPTY}/x", "EMPTY is empty"),
        ("${NOPE:-d}", "cannot read ${NOPE:-d}"),
        ("$HOME/x", "cannot read $HOME: write ${NAME}"),
        ("${HOME", "cannot read ${HOME"),
        ("${}", "cannot read ${}"),
        ("~other/x", "written ./~other/x"),
        ("x" * 5000, "longer than 4095 bytes"),
    ],
)
def test_paths_that_would_lead_elsewhere_are_errors(root: Path, path: str, problem: str) -> None:
    """An undefined variable must never become a path of its own."""
    assert problem in problems(root, one_venv(path=json.dumps(path)), EMPTY="")[0]


# --------------------------------------------------------------------------- lock files


def test_globs_are_sorted_and_name_each_file_once(root: Path) -> None:
    """Files from several globs come in their order, sorted within one, without repeats."""
    for name in ("r/b.txt", "r/a.txt", "r/deep/er/c.txt", "r/.hidden/d.txt", "r/v/e.txt", "r/v/pyvenv.cfg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "r" / "loop").symlink_to(root / "r")
    config = read(root, one_venv().replace("[lock.txt]", '["r/b*", "r/**/*.txt", "**/c.txt", r/b.txt]'))
    names = [os.path.relpath(path, root) for path in config.venvs["api"].locks]
    assert names == ["r/b.txt", "r/a.txt", "r/deep/er/c.txt"]


def test_names_and_variables_with_glob_characters_are_taken_as_they_are(root: Path) -> None:
    """A file called lock[1].txt is itself; a variable's value is never a pattern."""
    (root / "d[1]").mkdir()
    for name in ("lock[1].txt", "lock1.txt", "d[1]/x.txt"):
        (root / name).touch()
    config = read(root, one_venv().replace("[lock.txt]", '["lock[1].txt", "${D}/*.txt"]'), D="d[1]")
    assert config.venvs["api"].locks == (f"{root}/lock[1].txt", f"{root}/d[1]/x.txt")


def test_a_project_whose_path_has_glob_characters_works(tmp_path: Path) -> None:
    """The project's own directory is never part of the pattern."""
    project = tmp_path / "p[x]*"
    project.mkdir()
    (project / "lock.txt").touch()
    assert read(project, one_venv().replace("lock.txt", "'l*'")).venvs["api"].locks == (
        f"{project}/lock.txt",
    )


def test_missing_and_strange_locks_are_all_named(root: Path) -> None:
    """Missing files, empty globs, directories and pipes are errors; a pipe is not waited for."""
    (root / "dir").mkdir()
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("nowhere")
    text = one_venv().replace("[lock.txt]", "[no.txt, 'n*.txt', dir, pipe, loop, dangling, lock.txt/x]")
    found = problems(root, text)
    expected = [
        "no.txt does not exist",
        "n*.txt matches no file",
        "dir is a directory, not a file",
        "pipe is not a regular file",
        "loop cannot be reached",
        "dangling does not exist",
        "lock.txt/x does not exist",
    ]
    assert len(found) == len(expected)
    for index, (problem, text) in enumerate(zip(found, expected, strict=True)):
        assert problem.startswith(f"4: venvs.api.locks[{index}]: ")
        assert text in problem


def test_questions_can_be_asked_without_locks(root: Path) -> None:
    """Without require_locks, missing files are named all the same, and empty globs match nothing."""
    text = one_venv("key: {files: ['c*.txt']}").replace("[lock.txt]", "[no.txt, 'n*.txt']")
    spec = read(root, text, require_locks=False).venvs["api"]
    assert (spec.locks, spec.key_files) == ((f"{root}/no.txt",), ())


@pytest.mark.skipif(ROOT_USER, reason="root may look into every directory")
def test_a_glob_over_an_unreadable_directory_is_an_error(root: Path) -> None:
    """What cannot be seen must not silently be left out."""
    (root / "closed").mkdir(mode=0)
    assert "cannot look into" in problems(root, one_venv().replace("[lock.txt]", "['**/lock.txt']"))[0]


# --------------------------------------------------------------------------- problems


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


@pytest.mark.parametrize(
    "written",
    ["3.10", "3", "on", "no", "010", "1:30", "2024-01-01", "true", "null", "~", "0x1f", ".5"],
)
def test_values_that_yaml_mangles_must_be_quoted(root: Path, written: str) -> None:
    """The message shows what was written, not what YAML makes of it."""
    if isinstance(yaml.safe_load(written), str):
        pytest.skip("YAML takes this for text")
    found = problems(root, one_venv(f"check: [{written}]"))
    assert len(found) == 1
    assert "expected text, found nothing" in found[0] or f'in quotes, "{written}"' in found[0]
    assert read(root, one_venv(f'check: ["{written}"]')).venvs["api"].check == (written,)


@pytest.mark.parametrize("written", ["010", "1_000", "0x10", "1:30", "1.5", "'5'", "+5", "-1", "true", "[5]"])
def test_whole_numbers_are_plain_digits(root: Path, written: str) -> None:
    """Spellings that YAML reads in its own way are no numbers here."""
    assert problems(root, f"trim: {{keep: {written}}}\nvenvs: {{}}")[0].startswith(
        "1: trim.keep: expected a whole"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1: the file is empty"),
        ("# nothing\n", "1: the file is empty"),
        ("~", "1: the file is empty"),
        ("- a", "1: expected a mapping (key: value), found a list"),
        ("just text", "1: expected a mapping"),
        ("venvs: {}\n---\nvenvs: {}", "2: a second document"),
        ("venvs:\n\tapi: {}", "2: this is not YAML: "),
        ("venvs: {", "this is not YAML"),
        ("\ufeffvenvs: {}", "1: the file starts with a byte order mark"),
        ("venvs: {}".encode("utf-16"), "1: the file starts with a byte order mark"),
        (b"venvs: {}\n#\xff", "2: this is not UTF-8"),
        (b"venvs: {}\n\n#\0", "3: there is a NUL byte"),
        ("venvs: {}\nexclude: ['ü\x07']", "2: YAML does not allow this character: 0x07"),
        ('exclude: ["\\0"]\nvenvs: {}', "1: exclude[0]: text cannot hold a NUL"),
        ("#" * (1 << 20) + "\nvenvs: {}", "1: the file is larger"),
        ("venvs: !!python/object/apply:os.system [id]", "1: tags are not understood"),
        ("venvs: !x {}", "1: tags are not understood here: leave out !x"),
        ("venvs: {}\nexclude: [! a]", "2: tags are not understood"),
        ("a: &a [*a]", "1: the alias *a lies inside"),
        ("a: &a {b: &b {c: *a}}", "1: the alias *a lies inside"),
        ("a: *b", "1: the alias *b refers to nothing"),
        ("[" * 60, "1: lists and mappings are nested more than 50 deep"),
        ("\n" + "- " * 60, "2: lists and mappings are nested more than 50 deep"),
        ("{a: " * 100_000, "1: lists and mappings are nested more than 50 deep"),
        ("venvs: {}\n[a]: b", "2: a key must be text, found a list"),
        ("venvs: {}\n<<: {version: 1}", "2: merge keys"),
        ("venvs:", "1: venvs: expected a mapping of names, found nothing"),
        ("trim:\nvenvs: {}", "1: trim: expected a mapping (key: value), found nothing"),
        ("version: 1", "1: the key 'venvs' is missing"),
    ],
)
def test_documents_that_are_no_config_are_refused(root: Path, text: str | bytes, problem: str) -> None:
    """Whatever the file holds, the answer is a line and a sentence."""
    assert any(problem in found for found in problems(root, text)), problems(root, text)


@pytest.mark.parametrize("written", ["null", "~"])
def test_no_limit_is_written_out(root: Path, written: str) -> None:
    """A written null means no limit; a key with nothing behind it is a mistake."""
    text = "trim: {keep: %s, max_size: %s}\nvenvs: {}"
    assert read(root, text % (written, written)).trim == TrimPolicy(keep=None, max_size=None)
    assert [problem.split(", ")[-1] for problem in problems(root, text % ("", ""))] == ["found nothing"] * 2
    assert "5: venvs.api.pack: expected a mapping" in problems(root, one_venv("pack:"))[0]


def test_tabs_get_a_word_of_advice(root: Path) -> None:
    """What the parser says of a tab is hard to understand without it."""
    assert "indent with spaces" in problems(root, "venvs:\n\tapi: {}")[0]


def test_duplicate_keys_name_both_lines(root: Path) -> None:
    """YAML would keep the last one without a word."""
    text = one_venv("path: other")
    assert problems(root, text) == ["5: the key 'path' is here twice: first in line 3"]


def test_keys_that_yaml_mangles_must_be_quoted(root: Path) -> None:
    """A venv called 3.10 would be 3.1 to other readers of the file."""
    text = "venvs:\n  3.10: {path: x, locks: [lock.txt]}\n"
    assert problems(root, text) == ["2: YAML reads the key '3.10' as a number: write it in quotes"]
    assert set(read(root, text.replace("3.10", '"3.10"')).venvs) == {"3.10"}


def test_a_bomb_of_aliases_is_refused(root: Path) -> None:
    """Ten levels of ten would be ten thousand million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert any("aliases make the config larger" in problem for problem in problems(root, "\n".join(lines)))


def test_aliases_in_reason_work(root: Path) -> None:
    """A value may be written once and used twice, in lists and as a whole."""
    text = """\
venvs:
  a: {path: a, locks: &locks [lock.txt], squish: &squish {min_size: 5}}
  b: {path: b, locks: *locks, squish: *squish}
"""
    venvs = read(root, text).venvs
    assert venvs["a"].locks == venvs["b"].locks
    assert venvs["b"].min_size == 5


def test_many_wrong_keys_cost_no_minutes(root: Path) -> None:
    """Suggestions stop where a file is all wrong, and long words are shown in part."""
    text = "\n".join(f"venvz{i}: 1" for i in range(5000)) + "\n? " + "x" * 50_000 + "\n: 1\n"
    found = problems(root, text)
    assert len(found) == 5002
    assert sum("did you mean" in problem for problem in found) < 200
    assert max(map(len, found)) < 300


@pytest.mark.parametrize(
    "name",
    ["-a", ".a", "a b", "a/b", "ä", "a" * 101, "a=b", "a:b", "a*", "", "state.db", "State.db-wal", "a\n"],
)
def test_names_that_cannot_be_tasks_or_directories_are_refused(root: Path, name: str) -> None:
    """Names become names of tasks and of directories in the state."""
    text = json.dumps({"venvs": {name: {"path": "x", "locks": ["lock.txt"]}}})
    assert "cannot be the name of a venv" in problems(root, text)[0]


def test_names_that_differ_only_in_case_are_refused(root: Path) -> None:
    """Their state would be one directory on some disks."""
    text = "venvs:\n  a: {path: x, locks: [lock.txt]}\n  A: {path: y, locks: [lock.txt]}\n"
    assert problems(root, text) == [
        "3: venvs: 'A' and 'a' differ only in case: some disks cannot tell them apart"
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("pack: {format: tar.zst, level: 0}", "5: venvs.api.pack: tar.zst has levels from 1 to 22, not 0"),
        ("pack: {format: tar.gz, level: 10}", "5: venvs.api.pack: tar.gz has levels from 0 to 9, not 10"),
        ("pack: {level: 99}", "5: venvs.api.pack.level: expected a whole number from 0 to 22"),
        ("build: []", "5: venvs.api.build: the list must not be empty"),
        ("build: [[]]", "5: venvs.api.build[0]: the list must not be empty"),
        ("build: [['', a]]", "5: venvs.api.build[0]: the first word"),
        (
            "build: [make venv]",
            "5: venvs.api.build[0]: expected a list, such as [a, b], found the text make venv",
        ),
        ("build: make", "5: venvs.api.build: the text make is not possible here"),
        ("squish: {link: [copy, copy]}", "5: venvs.api.squish.link: the list says something twice"),
        ("squish: {link: []}", "5: venvs.api.squish.link: the list must not be empty"),
        ("key: {env: [A=B]}", "5: venvs.api.key.env[0]: expected the name of an environment variable"),
        ("python: pyhton3", "5: venvs.api.python: expected a version such as 3.12, or a path"),
        ("exclude: '*.pyi'", "5: venvs.api.exclude: expected a list"),
        ("exclude: ['']", "5: venvs.api.exclude[0]: expected text, found empty text"),
        ("exclude: ['*a*a*a*a*b']", "5: venvs.api.exclude[0]: too many stars"),
    ],
)
def test_what_makes_no_sense_is_told_with_line_and_key(root: Path, line: str, problem: str) -> None:
    """Each rule of a value has its own words."""
    found = problems(root, one_venv(line))
    assert [text for text in found if text.startswith(problem)], found


@pytest.mark.parametrize(
    "pattern", ["**/tests/", "*-*.dist-info/*.py[co]", "a/**/b/**/*.*", "\\*" * 20, "*" * 50]
)
def test_ordinary_patterns_have_few_stars(pattern: str) -> None:
    """What people write passes; escaped stars are none, a run of stars is one."""
    limit_stars(pattern)


@pytest.mark.parametrize("pattern", ["*a" * 5, "**/a" * 7, "*a*a*a*/*a*a*a*/b", "x/*a*b*c*d*e/y"])
def test_patterns_that_could_hang_are_refused(pattern: str) -> None:
    """Too many stars in one segment, or in all."""
    with pytest.raises(ValueError, match="too many stars"):
        limit_stars(pattern)


# --------------------------------------------------------------------------- files that cannot be read


def test_directories_and_pipes_are_no_configs(root: Path) -> None:
    """Neither is waited for."""
    os.mkfifo(root / "pipe")
    for name, text in (("pipe", "not a regular file"), (".", "a directory")):
        with pytest.raises(ConfigError, match=text):
            load(str(root / name), str(root), {"HOME": "/home/x"})


def test_a_missing_or_looping_file_is_an_error_of_the_environment(root: Path) -> None:
    """What the system says is passed on, with exit code 3."""
    (root / "loop").symlink_to("loop")
    for name in ("nope", "loop"):
        with pytest.raises(EnvironmentFailure, match="cannot be read") as caught:
            load(str(root / name), str(root), {"HOME": "/home/x"})
        assert caught.value.exit_code == 3


@pytest.mark.skipif(ROOT_USER, reason="root may read every file")
def test_an_unreadable_file_is_an_error_of_the_environment(root: Path) -> None:
    """A file without permission is named."""
    (root / "venvflow.yaml").touch(mode=0)
    with pytest.raises(EnvironmentFailure, match="Permission denied"):
        load(str(root / "venvflow.yaml"), str(root), {"HOME": "/home/x"})


def test_a_config_that_all_may_write_is_warned_of(root: Path) -> None:
    """Whoever can write the config can run commands as its reader."""
    file = root / "venvflow.yaml"
    assert read(root, one_venv()).warnings == ()
    file.chmod(0o666)
    assert "chmod o-w" in load(str(file), str(root), {"HOME": "/home/x"}).warnings[0]


def test_without_home_the_user_database_is_asked(root: Path) -> None:
    """An unset or relative HOME is no reason to stop."""
    (root / "venvflow.yaml").write_text(one_venv())
    for environ in ({}, {"HOME": ""}, {"HOME": "relative"}):
        config = load(str(root / "venvflow.yaml"), str(root), environ)
        assert os.path.isabs(config.store.path)
        assert "relative" not in config.store.path


# --------------------------------------------------------------------------- dangerous paths


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/", "is or contains your home directory"),
        ("~", "is or contains your home directory"),
        ("~/", "is or contains your home directory"),
        ("..", "is or contains"),
        (".", "is or contains the project"),
        ("./", "is or contains the project"),
        ("a/..", "is or contains the project"),
        ("a/../../project", "is or contains the project"),
        ("../alias-of-top/project", "is or contains the project"),
        ("~/store", "is or contains the store"),
        ("~/store/objects", "lies inside the store"),
        ("to-store/objects", "lies inside the store"),
        (".venvflow", "is or contains the tasks' own state"),
        (".venvflow/api", "lies inside the tasks' own state"),
        ("venvflow.yaml", "is or contains the config"),
        ("src", "contains what it is made from or becomes"),
        ("one/.venv", "is also the path of 'one'"),
        ("one/x/../.venv", "is also the path of 'one'"),
        ("also-one/.venv", "is also the path of 'one'"),
        ("one/.venv/lib", "lies inside the venv 'one'"),
        ("also-one/.venv/lib", "lies inside the venv 'one'"),
    ],
)
def test_paths_that_belong_to_others_are_refused(root: Path, path: str, reason: str) -> None:
    """Every spelling of a place where removing would lose something, also through symlinks above it."""
    (root / "one").mkdir()
    (root / "src").mkdir()
    (root / "src" / "lock.txt").touch()
    (root / "also-one").symlink_to("one")
    (root / "to-store").symlink_to(root.parent / "home" / "store")
    (root.parent / "alias-of-top").symlink_to(root.parent)
    text = f"""\
store: {{path: ~/store}}
venvs:
  one: {{path: one/.venv, locks: [lock.txt]}}
  two: {{path: {json.dumps(path)}, locks: [src/lock.txt]}}
"""
    with pytest.raises(Refused) as caught:
        read(root, text)
    assert caught.value.exit_code == 6
    assert "two: " in caught.value.what
    assert reason in caught.value.what


def test_all_dangerous_paths_are_named_at_once(root: Path) -> None:
    """One refusal for the whole file, each venv once; problems of the config come first."""
    venvs = [
        f"  v{i}: {{path: {path}, locks: [lock.txt]}}" for i, path in enumerate(["/", ".", "ok", "ok/x"])
    ]
    text = "\n".join(["venvs:", *venvs, ""])
    with pytest.raises(Refused, match="3 paths") as caught:
        read(root, text)
    assert [line.split(":")[0].strip() for line in caught.value.what.splitlines()[1:]] == ["v0", "v1", "v3"]
    assert "ok lies" not in caught.value.what
    assert len(problems(root, text + "nope: 1\n")) == 1


def test_an_archive_inside_its_venv_is_refused(root: Path) -> None:
    """It would be packed into itself, and lost with the next restore."""
    with pytest.raises(Refused, match="becomes"):
        read(root, one_venv("pack: {output: .venv/dist}"))


def test_paths_that_only_look_dangerous_are_fine(root: Path) -> None:
    """A store inside the project, neighbours with a common prefix, venvs elsewhere and symlinked venvs."""
    (root / "link").symlink_to("nowhere")
    paths = [".venv", ".venv2", "~/venvs/a", ".venvflow2", "link", "a/b", "a/b.c", "store2"]
    text = "store: {path: store}\nvenvs:\n"
    text += "".join(f"  v{i}: {{path: {path}, locks: [lock.txt]}}\n" for i, path in enumerate(paths))
    assert len(read(root, text).venvs) == len(paths)


def test_case_counts_only_where_the_disk_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two spellings of one directory are one place where the disk cannot tell them apart."""
    text = "venvs:\n  a: {path: venv, locks: [lock.txt]}\n  b: {path: Venv, locks: [lock.txt]}\n"
    monkeypatch.setattr(config_module, "_folds_case", lambda _directory: False)
    assert len(read(root, text).venvs) == 2
    monkeypatch.setattr(config_module, "_folds_case", lambda _directory: True)
    with pytest.raises(Refused, match=r"b: .*Venv is also the path of 'a'"):
        read(root, text)


def test_each_directory_is_looked_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of venvs must not cost hundreds of walks down the same parents."""
    seen: list[str] = []
    lstat = os.lstat
    text = "venvs:\n"
    text += "".join(f"  v{i}: {{path: services/s{i}/.venv, locks: [lock.txt]}}\n" for i in range(50))

    def counted(path: str) -> os.stat_result:
        seen.append(path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", counted)
    read(root, text)
    assert len(seen) > 50
    assert len(seen) == len(set(seen))


# --------------------------------------------------------------------------- without libyaml


def test_the_python_parser_sees_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no libyaml, values, lines and refusals are the same."""
    text = "version: 3\n" + one_venv("python: 3.10") + "a: [\x07]\n"
    good = one_venv('python: "3.10"')
    with_c = (problems(root, text), problems(root, text.replace("\x07", "")), read(root, good))
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert (problems(root, text), problems(root, text.replace("\x07", "")), read(root, good)) == with_c
    assert "nested more than 50" in problems(root, "[" * 1000)[0]


def test_nothing_heavy_is_imported_for_an_ordinary_config(root: Path) -> None:
    """Loading is on the path of a run that has nothing to do."""
    (root / "venvflow.yaml").write_text(one_venv())
    code = (
        "import sys, yaml; before = set(sys.modules); from venvflow import config; "
        "config.load(sys.argv[1] + '/venvflow.yaml', sys.argv[1], {'HOME': '/home/x'}); "
        "new = set(sys.modules) - before; print(*new & {'json', 'glob', 'difflib', 'pathlib', 'subprocess'})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# --------------------------------------------------------------------------- the schema for editors

GOOD: dict[str, Any] = {
    "version": 1,
    "store": {
        "path": "~/s",
        "link": ["copy"],
        "min_size": 1,
        "verify": "full",
        "adopt": True,
        "durability": "full",
    },
    "trim": {"keep": 1, "keep_per_venv": 0, "max_age": "1d", "max_size": "1GiB", "min_free": 0},
    "exclude": ["a"],
    "defaults": {"python": "3.12"},
    "venvs": {
        "api": {
            "path": "v",
            "locks": ["text"],
            "python": "3.12",
            "build": "auto",
            "key": {"files": ["text"], "env": ["A"]},
            "bytecode": "keep",
            "exclude": ["a"],
            "restore": True,
            "squish": {"link": ["copy"], "min_size": "1KiB"},
            "pack": {"format": "tar.zst", "level": 3, "output": "dist"},
            "check": ["-c"],
            "pin": False,
        }
    },
}
VALUES: list[Any] = [
    None, True, 0, 1, 3, -1, 2.5, 10**7, "", "text", "3.12", "3.13t", "./x", "~", "true", "auto",
    "none", "copy",
    "5GiB", "5 MB", "0", "0B", "10G", "14d", "0d", "2 w", "tar.gz", "full", "pypy3.11", "2.7", "3.12.4rc1t",
    [], ["text"], [""], ["copy"], ["copy", "copy"],
    [1], [None], [[]], [["text"]], [["text", ""]], [[""]], [[1]], {}, {"nope": 1}, {"a": {}},
]  # fmt: skip


def keys_of(check: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the key path of everything that the loader knows; the name of a venv is ``api``."""
    if closure := getattr(check, "__closure__", None):
        for cell in closure:
            if isinstance(cell.cell_contents, Table):  # a table that may be null
                yield from keys_of(cell.cell_contents, at)
    if isinstance(check, Named):
        yield from keys_of(check.check, (*at, "api"))
    if isinstance(check, Table):
        for key, below in check.fields.items():
            yield (*at, key)
            yield from keys_of(below, (*at, key))


def keys_in_schema(
    part: dict[str, Any], whole: dict[str, Any], at: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the key path of everything that the schema knows; each must have a description."""
    if ref := part.get("$ref"):
        part = whole["$defs"][ref.rpartition("/")[2]]
    if at and at[-1] != "api":
        assert part.get("description"), at
    if isinstance(part.get("additionalProperties"), dict):
        yield from keys_in_schema(part["additionalProperties"], whole, (*at, "api"))
    for key, below in part.get("properties", {}).items():
        assert part["additionalProperties"] is False
        yield (*at, key)
        yield from keys_in_schema(below, whole, (*at, key))


def changed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return the good config with *value* at *path*."""
    document = copy.deepcopy(GOOD)
    place = document
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    return document


def accepts(root: Path, document: Any) -> bool:
    """Return whether the loader has no problem with *document*."""
    try:
        read(root, json.dumps(document))
    except ConfigError:
        return False
    except Refused:
        pass
    return True


PATHS = sorted(set(keys_of(TOP)))


def test_schema_and_loader_know_the_same_keys() -> None:
    """No key is known to only one of them, and the schema describes each."""
    described = schema()
    jsonschema.Draft202012Validator.check_schema(described)
    assert sorted(set(keys_in_schema(described, described))) == PATHS
    assert len(PATHS) > 45


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_schema_and_loader_agree_on_every_value(root: Path, path: tuple[str, ...]) -> None:
    """Each key with values of every type: an editor flags exactly what loading refuses."""
    for name in ("text", "copy"):
        (root / name).touch()
    validator = jsonschema.Draft202012Validator(schema())
    verdicts = []
    for value in VALUES:
        document = changed(path, value)
        expected = validator.is_valid(document)
        assert accepts(root, document) == expected, (
            value,
            [e.message for e in validator.iter_errors(document)],
        )
        verdicts.append(expected)
    assert not all(verdicts)


@pytest.mark.parametrize("path", [(), *PATHS], ids=lambda path: ".".join(path) or "top")
def test_schema_and_loader_agree_on_missing_and_unknown_keys(root: Path, path: tuple[str, ...]) -> None:
    """Each key taken away, and each mapping with a key too many."""
    (root / "text").touch()
    validator = jsonschema.Draft202012Validator(schema())
    document = copy.deepcopy(GOOD)
    assert accepts(root, document)
    assert validator.is_valid(document)
    place = document
    for key in path[:-1]:
        place = place.setdefault(key, {})
    if path:
        place.pop(path[-1], None)
        assert accepts(root, document) == validator.is_valid(document)
    if path[:-1] in {(), *PATHS} and path[:-1] != ("venvs",):
        place["nope"] = 1
        assert not accepts(root, document)
        assert not validator.is_valid(document)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_quoted_text_reads_back_as_itself(text: str) -> None:
    """Whatever a name is made of, YAML gives it back, and takes it for text."""
    written = config_module.quoted(text)
    assert yaml.safe_load(f"{written}: [{written}]") == {text: [text]}


@pytest.mark.parametrize(
    "text", ["no", "null", "3.10", "~", "a: b", "- a", "#", "", "'", "a\nb", "1_0", "true"]
)
def test_text_that_yaml_would_mangle_is_quoted(text: str) -> None:
    """Words that YAML takes for something else, and signs that it reads itself."""
    assert config_module.quoted(text).startswith('"')
    assert config_module.quoted("services/api/.venv") == "services/api/.venv"


@given(st.text(alphabet="ab0-_.+ :/é", max_size=6))
def test_schema_and_loader_agree_on_names(name: str) -> None:
    """A name that an editor accepts is one that loads."""
    pattern = schema()["properties"]["venvs"]["propertyNames"]["pattern"]
    allowed = jsonschema.Draft202012Validator({"type": "object", "propertyNames": {"pattern": pattern}})
    try:
        config_module._allowed_name(name, [])
    except ValueError:
        assert not allowed.is_valid({name: 1})
    else:
        assert allowed.is_valid({name: 1})
