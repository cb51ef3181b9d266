"""Values of a config: each rule has its own words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from configs import one_venv, problems, project, read

from venvflow.errors import ConfigError, Refused, UsageError
from venvflow.model import TrimPolicy, VenvSpec


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a lock file at its top, and a home beside it."""
    return project(tmp_path)


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


@pytest.mark.parametrize("written", ["null", "~"])
def test_no_limit_is_written_out(root: Path, written: str) -> None:
    """A written null means no limit; a key with nothing behind it is a mistake."""
    text = "trim: {keep: %s, max_size: %s}\nvenvs: {}"
    assert read(root, text % (written, written)).trim == TrimPolicy(keep=None, max_size=None)
    assert [problem.split(", ")[-1] for problem in problems(root, text % ("", ""))] == ["found nothing"] * 2
    assert "5: venvs.api.pack: expected a mapping" in problems(root, one_venv("pack:"))[0]


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
        ("pack: {format: tar.zst, level: 0}", "5: venvs.api.pack: tar.zst has levels from 1 to 19, not 0"),
        ("pack: {format: tar.gz, level: 10}", "5: venvs.api.pack: tar.gz has levels from 1 to 9, not 10"),
        ("pack: {level: 99}", "5: venvs.api.pack.level: expected a whole number from 0 to 19"),
        (
            "pack: {name: a/b}",
            "5: venvs.api.pack.name: expected the name of a file, no dot at its start",
        ),
        ("pack: {name: .hidden}", "5: venvs.api.pack.name: expected the name of a file, no dot"),
        ("pack: {name: api.tar.gz}", "5: venvs.api.pack.name: 'api.tar.gz' must not end in .tar.gz"),
        ('pack: {name: "{vnev}"}', "5: venvs.api.pack.name: '{vnev}' cannot be filled in; known are {venv}"),
        ('pack: {name: "a}"}', "5: venvs.api.pack.name: '}' cannot be filled in"),
        (
            "pack: {arcroot: /opt}",
            "5: venvs.api.pack.arcroot: expected the name of a directory",
        ),
        (
            "pack: {arcroot: a/../b}",
            "5: venvs.api.pack.arcroot: expected the name of a directory",
        ),
        ("pack: {bundle_python: true, python: /x/python3}", "5: venvs.api.pack: bundle_python packs the"),
        ("pack: {layers: []}", "5: venvs.api.pack.layers: the list must not be empty"),
        ("pack: {layers: [torch]}", "5: venvs.api.pack.layers[0]: expected a list, such as [a, b]"),
        ("pack: {layers: [[]]}", "5: venvs.api.pack.layers[0]: the list must not be empty"),
        ("pack: {layers: [[a/b]]}", "5: venvs.api.pack.layers[0][0]: expected the name of a distribution"),
        ("pack: {layers: [['*'], [a]]}", "5: venvs.api.pack: layers[0] has '*', which leaves nothing"),
        ('pack: {name: "{digest}"}', "5: venvs.api.pack: {digest} in its name is known for an archive in"),
        ("pack: {threads: 0}", "5: venvs.api.pack.threads: expected a whole number from 1 to 64, found 0"),
        ("build: []", "5: venvs.api.build: the list must not be empty"),
        ("build: [[]]", "5: venvs.api.build[0]: the list must not be empty"),
        ("build: [['', a]]", "5: venvs.api.build[0]: the first word"),
        (
            "build: [make venv]",
            "5: venvs.api.build[0]: expected a list, such as [a, b], found the text make venv",
        ),
        ("build: make", "5: venvs.api.build: the text make is not possible here"),
        ("squish: {link: [copy, copy]}", "5: venvs.api.squish.link: the list has an item twice"),
        ("squish: {link: []}", "5: venvs.api.squish.link: the list must not be empty"),
        ("key: {env: [A=B]}", "5: venvs.api.key.env[0]: expected the name of an environment variable"),
        ("python: pyhton3", "5: venvs.api.python: expected a version such as 3.12, or a path"),
        ("exclude: '*.pyi'", "5: venvs.api.exclude: expected a list"),
        ("exclude: ['']", "5: venvs.api.exclude[0]: expected text, found empty text"),
        ("exclude: [a, 'a[b']", "5: venvs.api.exclude[1]: pattern 'a[b' has a ["),
        ("exclude: ['*a*a*a*a*b']", "5: venvs.api.exclude[0]: pattern '*a*a*a*a*b' has too many stars"),
    ],
)
def test_what_makes_no_sense_is_told_with_line_and_key(root: Path, line: str, problem: str) -> None:
    """Each rule of a value has its own words."""
    found = problems(root, one_venv(line))
    assert [text for text in found if text.startswith(problem)], found


def test_a_wrong_key_file_is_told_though_the_defaults_have_right_ones(root: Path) -> None:
    """Those of the defaults are not compared with the lines of the wrong ones."""
    text = "defaults: {key: {files: [lock.txt, gone.txt]}}\n" + one_venv("key: {files: [3]}")
    assert problems(root, text) == [
        '6: venvs.api.key.files[0]: YAML reads 3 as a number: write it in quotes, "3"'
    ]


EITHER = "expected a lock file, or a mapping such as {path: .venv, locks: [requirements.txt]}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a:", f"a: {EITHER}, found nothing"),
        ("a: 3.10", f"a: {EITHER}, found the number 3.10"),
        ("a: ''", "a.locks[0]: expected text, found empty text"),
        ("a: '*.txt'", "a: the key 'path' is missing: *.txt is not one file, beside which the venv would be"),
        ("a: {locks: ['*.txt', lock.txt]}",
         "a: the key 'path' is missing: *.txt is not one file, beside which the venv would be"),
        ("a: {path: 3, locks: [lock.txt]}", 'a.path: YAML reads 3 as a number: write it in quotes, "3"'),
        ("a: lock.txt\n  b: ./lock.txt", "b.path: ROOT/.venv is also the path of 'a'"),
    ],
)  # fmt: skip
def test_a_venv_without_a_path_lies_beside_one_lock_file(root: Path, text: str, problem: str) -> None:
    """The short form says in its own words what it can be."""
    line = 2 + text.count("\n")
    with pytest.raises((ConfigError, Refused)) as caught:
        read(root, f"venvs:\n  {text}\n")
    lines = caught.value.problems if isinstance(caught.value, ConfigError) else caught.value.lines
    assert list(lines) == [f"{root}/venvflow.yaml:{line}: venvs.{problem.replace('ROOT', str(root))}"]


CHOICES = """
locks: [r.txt], groups: [docs]
> groups: uv and pip cannot do that with a requirements file; possible with uv.lock, poetry.lock, pdm.lock,
| Pipfile.lock

locks: [deps], dev: false
> dev: uv and pip cannot do that with a requirements file; possible with uv.lock, poetry.lock, pdm.lock,
| Pipfile.lock

locks: [pylock.toml], extras: [pg]
> extras: uv and pip cannot do that with pylock.toml; possible with uv.lock, poetry.lock, pdm.lock

locks: [Pipfile.lock], extras: [pg]
> extras: pipenv cannot do that with Pipfile.lock; possible with uv.lock, poetry.lock, pdm.lock

locks: [poetry.lock], packages: all
> packages: poetry cannot do that with poetry.lock; possible with uv.lock

locks: [pdm.lock], packages: [a]
> packages: pdm cannot do that with pdm.lock; possible with uv.lock

locks: [uv.lock, pyproject.toml], editable: [.]
> editable: uv cannot do that with uv.lock; possible with a requirements file, pylock.toml

locks: [uv.lock], packages: [all, '']
> packages[1]: expected text, found empty text

locks: [uv.lock], packages: some
> packages: the text some is not possible here; known are: all

locks: [uv.lock], groups: [--frozen]
> groups[0]: expected a name: letters, digits, dots, dashes and underscores, found the text --frozen

locks: [uv.lock], groups: [a, a]
> groups: the list has an item twice

locks: [r.txt], editable: [..]
> editable[0]: .. lies outside the project: other checkouts would not have it

locks: [r.txt], editable: ['{venv}']
> editable[0]: the path cannot have braces in it: commands would fill them in

locks: [r.txt], prompt: '{venv}'
> prompt: expected a word or more in one line, without braces, found the text {venv}

locks: [r.txt], prompt: .
> prompt: expected a word or more in one line, without braces, found the text .

locks: [r.txt], prompt: "a\\nhome = /"
> prompt: expected a word or more in one line, without braces, found the text a\\nhome = /

locks: [r.txt], build: [[make]], dev: false
> dev: the commands under 'build' say that themselves: leave it out

locks: [r.txt], build: [[make]], prompt: x
> prompt: the commands under 'build' say that themselves: leave it out

locks: [r.txt], build: [[make]], system_site_packages: true
> system_site_packages: the commands under 'build' say that themselves: leave it out
"""
"""Keys of a venv, then what is wrong with them: after ``>``, and in further lines after ``|``."""


@pytest.mark.parametrize("case", CHOICES.strip().split("\n\n"))
def test_what_a_tool_cannot_choose_is_told_with_the_locks_that_can(root: Path, case: str) -> None:
    """By the name of the tool and the key, before anything is built."""
    keys, problem = case.replace("\n|", "").split("\n> ")
    for lock in ("r.txt", "deps", "pylock.toml", "uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock"):
        (root / lock).touch()
    assert problems(root, f"venvs:\n  api: {{path: v, {keys}}}\n") == [f"2: venvs.api.{problem}"]


def test_a_choice_in_the_defaults_is_one_of_every_venv(root: Path) -> None:
    """It is told for each venv whose tool cannot make it."""
    (root / "uv.lock").touch()
    text = "defaults: {dev: false}\nvenvs:\n  a: uv.lock\n  b: {path: b, locks: [lock.txt]}\n"
    (problem,) = problems(root, text)
    assert problem.startswith(
        "4: venvs.b.dev: uv and pip cannot do that with a requirements file; possible with uv"
    )


def test_what_is_usual_may_be_said_of_every_lock(root: Path) -> None:
    """``dev: true`` and empty lists choose nothing."""
    (root / "uv.lock").touch()
    usual = "dev: true, groups: [], extras: [], packages: [], editable: [], system_site_packages: false"
    for lock in ("lock.txt", "uv.lock"):
        assert read(root, f"venvs: {{api: {{path: v, locks: [{lock}], {usual}}}}}").venvs["api"] == VenvSpec(
            "api", f"{root}/v", (f"{root}/{lock}",)
        )
    made = read(root, f"venvs: {{api: {{path: v, locks: [lock.txt], build: [[make]], {usual}}}}}")
    assert made.venvs["api"].build == (("make",),)


def test_what_is_chosen_arrives_in_its_record(root: Path) -> None:
    """A local project is named as in every checkout; one that is not there is the fault of its venv."""
    for name in ("uv.lock", "pyproject.toml", "libs/core/setup.py", "libs/none/x"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    text = """\
defaults: {prompt: "the venv", system_site_packages: true}
venvs:
  uv: {path: u, locks: [uv.lock], groups: [docs], extras: [a.b], dev: false, packages: [core]}
  all: {path: a, locks: [uv.lock], packages: all}
  pip: {path: p, locks: [lock.txt], editable: [., ./libs/core/, "${HERE}/libs/none"]}
"""
    config = read(root, text, HERE=str(root))
    spec = config.venvs["uv"]
    assert (spec.groups, spec.extras, spec.dev, spec.packages) == (("docs",), ("a.b",), False, ("core",))
    assert (spec.prompt, spec.system_site_packages) == ("the venv", True)
    assert config.venvs["all"].packages == "all"
    assert config.venvs["pip"].editable == (".", "libs/core", "libs/none")
    fault = f"5: venvs.pip.editable[2]: {root}/libs/none has no pyproject.toml or setup.py"
    assert config.missing_files == {"pip": (f"{root}/venvflow.yaml:{fault}",)}


TWO = """venvs:
  api: {path: a, locks: [lock.txt], pack: {name: 'app%s'}}
  web: {path: b, locks: [lock.txt], pack: {name: %s, format: %s, output: %s}}
"""


@pytest.mark.parametrize(
    "other",
    [
        ("", "app", "tar.zst", "dist"),
        ("-{key}", "'APP-{key}'", "tar.zst", "./dist/"),
        ("", "app", "tar.zst", "x/../dist"),
    ],
)
def test_two_venvs_cannot_have_one_archive(root: Path, other: tuple[str, ...]) -> None:
    """Each would replace the other's, on some disks in capitals too; the second one is told."""
    assert problems(root, TWO % other) == [
        "3: venvs.web.pack: its archive has the same name as that of 'api': put {venv} into pack.name"
    ]


@pytest.mark.parametrize(
    "other",
    [
        ("", "app", "tar.gz", "dist"),
        ("", "app", "tar.zst", "other"),
        ("-{venv}", "'app-{venv}'", "tar.zst", "dist"),
    ],
)
def test_archives_that_differ_are_as_many_as_there_are_venvs(root: Path, other: tuple[str, ...]) -> None:
    """In format, directory, or the venv's name."""
    assert len(read(root, TWO % other).venvs) == 2


KEYS = 'keys: {main: "ed25519:GLwqJO1zW2mrcvzWk4rS6y5mAcJXgtVcGZzaXCUsW+A="}'
WRONG_URLS = [
    "bucket", "s3:/bucket", "s3://", "ftp://host/x", "file://share", "s3://key:secret@bucket", "s3://b?versionId=1",
    "https://cdn.example.org/x#y", "s3:///prefix", "s3://bucket//prefix", "s3://bucket/../prefix",
]  # fmt: skip


@pytest.mark.parametrize("url", WRONG_URLS)
def test_the_url_of_a_remote_is_checked_wherever_it_stands(root: Path, url: str) -> None:
    """In the config, and in the variable that goes before it; what it says of a user is not repeated."""
    remote = f"store: {{remote: {{url: %s, {KEYS}}}}}\nvenvs: {{}}"
    (wrong,) = problems(root, remote % json.dumps(url))
    assert "1: store.remote.url: " in wrong
    with pytest.raises(UsageError) as caught:
        read(root, remote % "s3://bucket", VENVFLOW_REMOTE=url)
    assert caught.value.where == "VENVFLOW_REMOTE"
    assert wrong.endswith(caught.value.what)
    assert "secret" not in wrong


def test_a_remote_of_the_environment_has_no_server_of_the_configs(root: Path) -> None:
    """And needs none: a mirror or a directory takes the place of a bucket, and its keys stay."""
    remote = f"url: 's3://b/p', endpoint: 'https://s3.lan', mode: write, {KEYS}"
    text = f"store: {{remote: {{{remote}}}}}\nvenvs: {{}}"
    own, other = (
        read(root, text, VENVFLOW_REMOTE=url).store.remote
        for url in ("s3://c/", "https://cdn.example.org/p/")
    )
    assert own is not None
    assert (own.url, own.endpoint) == ("s3://c", "https://s3.lan")
    assert other is not None
    assert (other.url, other.endpoint, other.keys) == ("https://cdn.example.org/p", "", own.keys)
    assert read(root, text, VENVFLOW_REMOTE="off").store.remote is None
    assert read(root, "venvs: {}", VENVFLOW_REMOTE="nonsense").store.remote is None


def test_a_mode_of_the_environment_that_is_none_is_not_overlooked(root: Path) -> None:
    """Who misspells it wants a run to do less, which would do what the config says."""
    text = f"store: {{remote: {{url: 's3://b/p', mode: write, {KEYS}}}}}\nvenvs: {{}}"
    for mode in ("off", "read", "auto", "write", ""):
        assert read(root, text, VENVFLOW_REMOTE_MODE=mode).store.remote is not None
    for mode in ("none", "READ", "readonly", " off"):
        with pytest.raises(UsageError) as caught:
            read(root, text, VENVFLOW_REMOTE_MODE=mode)
        assert caught.value.where == "VENVFLOW_REMOTE_MODE"
    assert read(root, "venvs: {}", VENVFLOW_REMOTE_MODE="none").store.remote is None
