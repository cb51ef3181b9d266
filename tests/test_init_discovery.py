"""What init finds in a project, and that the config it writes always loads."""

from __future__ import annotations

import ast
import os
import re
import tempfile
from pathlib import Path

import pytest
import yaml
from contents import grow
from hypothesis import given
from hypothesis import strategies as st

from venvflow.config import load
from venvflow.init.discovery import Discovery, discover
from venvflow.init.draft import DODO_TEMPLATE, SCHEMA_NAME, render
from venvflow.model import Config

PINNED = "six==1.17.0 \\\n    --hash=sha256:00\n"


def reload(root: Path, found: Discovery) -> Config:
    """Return the config that is rendered from *found*, loaded as a run would load it."""
    file = root / "venvflow.yaml"
    file.write_text(render(found), encoding="utf-8")
    return load(str(file), str(root), {"HOME": "/home/nobody-here"})


def locks_of(root: Path) -> dict[str, list[str]]:
    """Return the lock files of each venv that is found and loads again, relative to *root*."""
    config = reload(root, discover(str(root)))
    return {
        os.path.relpath(spec.path, root): [os.path.relpath(lock, root) for lock in spec.locks]
        for spec in config.venvs.values()
    }


def notes_of(root: Path) -> str:
    """Return all that is said about the venvs and the project."""
    found = discover(str(root))
    return "\n".join([*found.notes, *(note for venv in found.venvs for note in venv.notes)])


# --------------------------------------------------------------------------- lock files


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"requirements.txt": PINNED}, ["requirements.txt"]),
        ({"requirements.txt": "six\n"}, ["requirements.txt"]),
        ({"requirements.txt": ""}, ["requirements.txt"]),
        ({"requirements-prod.txt": PINNED, "requirements.txt": "six>=1\n"}, ["requirements-prod.txt"]),
        ({"requirements/base.txt": PINNED, "requirements/dev.txt": "-r base.txt\na==1\n"}, None),
        ({"requirements.txt": PINNED, "requirements-dev.txt": "pytest==8.4.0\n"}, None),
        ({"requirements.txt": "a==1", "requirements-dev.txt": "A==2"}, ["requirements.txt"]),
        ({"requirements-b.txt": "a==1", "requirements-a.txt": "a==2"}, ["requirements-a.txt"]),
        ({"requirements.txt": "a==1; os_name<'2'\na==2; os_name>='2'", "requirements-dev.txt": "a==2"}, None),
        ({"requirements.txt": "a", "requirements-dev.txt": "b"}, []),
        ({"pylock.toml": "", "requirements.txt": PINNED}, ["pylock.toml"]),
        ({"pylock.toml": "", "pylock.dev.toml": ""}, ["pylock.toml"]),
        ({"pylock.dev.toml": ""}, ["pylock.dev.toml"]),
        ({"uv.lock": "", "pyproject.toml": "", "pylock.toml": ""}, ["uv.lock"]),
        ({"uv.lock": "", "requirements.txt": PINNED}, ["requirements.txt"]),
        ({"uv.lock": ""}, []),
        ({"poetry.lock": "", "pyproject.toml": ""}, ["poetry.lock"]),
        ({"pdm.lock": "", "pyproject.toml": "", "poetry.lock": ""}, ["poetry.lock"]),
        ({"Pipfile.lock": "", "Pipfile": ""}, ["Pipfile.lock"]),
        ({"constraints.txt": PINNED, "my-requirements.txt": PINNED}, []),
    ],
)
def test_one_kind_of_lock_is_taken(tmp_path: Path, files: dict[str, str], expected: list[str] | None) -> None:
    """The best kind, all its files if they fit together; None stands for all that are there."""
    found = locks_of(grow(tmp_path, files))
    assert found.get(".venv", []) == (sorted(files) if expected is None else expected)


@pytest.mark.parametrize(
    ("text", "pinned"),
    [
        ("a==1", True),
        ("a[x,y] == 1.0 ; python_version < '3.9'\na===2", True),
        ("# only a comment\n-i https://x/simple\na @ https://x/a.whl", True),
        ("-r other.txt", True),
        ("a==1.*", False),
        ("a==1,<2", False),
        ("a==1\nb", False),
        ("a==1\nb>=2", False),
        ("./local", False),
        ("--pre", False),
    ],
)
def test_what_looks_pinned_is_told_from_what_does_not(tmp_path: Path, text: str, pinned: bool) -> None:
    """Beside a pinned file, only another pinned one is taken."""
    grow(tmp_path, {"requirements.txt": PINNED, "requirements-x.txt": text})
    assert ("requirements-x.txt" in locks_of(tmp_path)[".venv"]) == pinned


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"uv.lock": "", "pyproject.toml": "", "requirements.txt": PINNED},
            "Taken: uv.lock, not requirements.txt",
        ),
        ({"pylock.toml": "", "pylock.b.toml": ""}, "Taken: pylock.toml, not pylock.b.toml"),
        ({"requirements.txt": "a==1", "requirements-x.txt": "a==2"}, "pin different versions of a"),
        ({"requirements.txt": "a==1", "requirements-x.txt": "b==2"}, "Several files, one venv"),
        ({"requirements.txt": "a==1", "requirements-x.txt": "b"}, "Not taken, since not every version"),
        ({"requirements.txt": "a"}, "Not every version in requirements.txt is pinned"),
        ({"x/requirements.txt": "a", "x/requirements-b.txt": "b"}, "No venv for x: "),
        ({"uv.lock": ""}, "uv.lock was not taken: there is no pyproject.toml beside it"),
        ({"requirements.txt": "a==1", "env/pyvenv.cfg": ""}, "There is a venv at env; it is left alone"),
        ({"requirements.txt": "a==1"}, "python: nothing here pins one"),
        (
            {"uv.lock": "", "pyproject.toml": '[tool.uv.workspace]\nmembers = [\n  "pkgs/*",\n  "app",\n]\n'},
            "A uv workspace: one lock file for its members (pkgs/*, app).",
        ),
    ],
)
def test_choices_are_explained(tmp_path: Path, files: dict[str, str], words: str) -> None:
    """Whatever was decided is said, and stands in the config as a comment."""
    grow(tmp_path, files)
    assert words in notes_of(tmp_path)
    assert words in re.sub(r"\n *# +", " ", render(discover(str(tmp_path))))


def test_only_the_project_is_walked(tmp_path: Path) -> None:
    """Not what is hidden, built, installed or elsewhere behind a link."""
    skipped = [
        ".git",
        ".tox/x",
        "node_modules/x",
        "third_party/x",
        "vendor",
        "build",
        "dist",
        "__pycache__",
        ".venvflow",
        "venv",
        "a/.b",
    ]
    grow(tmp_path, {f"{name}/requirements.txt": PINNED for name in [*skipped, "a/b", "elsewhere"]})
    grow(tmp_path, {"venv/pyvenv.cfg": "", "venv/lib/requirements.txt": PINNED})
    (tmp_path / "a" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert sorted(locks_of(tmp_path)) == ["a/b/.venv", "elsewhere/.venv"]


def test_pipes_directories_and_dangling_links_are_no_lock_files(tmp_path: Path) -> None:
    """What only has the name of a lock file is not waited for and not taken."""
    grow(tmp_path, {"a/requirements.txt": PINNED})
    for name in ("requirements.txt", "pyproject.toml", ".python-version", "a/pyproject.toml"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "uv.lock").mkdir()
    (tmp_path / "pylock.toml").symlink_to("nowhere")
    assert locks_of(tmp_path) == {"a/.venv": ["a/requirements.txt"]}


def test_deep_trees_are_no_problem(tmp_path: Path) -> None:
    """Where a path gets too long for the system, the walk goes on elsewhere and that is said."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("x" * 200, dir_fd=descriptor)
        below = os.open("x" * 200, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    assert "File name too long" in notes_of(tmp_path)
    assert locks_of(tmp_path) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every directory")
def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A closed directory is left out with a word."""
    (tmp_path / "closed").mkdir(mode=0)
    assert "closed was left out: Permission denied." in notes_of(tmp_path)


def test_a_missing_project_is_named_too(tmp_path: Path) -> None:
    """Nothing is found, and why."""
    assert discover(str(tmp_path / "nope")).notes == ("The project was left out: No such file or directory.",)


def test_names_that_are_not_text_are_left_out(tmp_path: Path) -> None:
    """A config is UTF-8: other names cannot be written in it."""
    bad = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    try:
        os.mkdir(bad)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    with open(os.path.join(bad, b"requirements.txt"), "w", encoding="utf-8"):
        pass
    assert "its name is not UTF-8" in notes_of(tmp_path)
    assert locks_of(tmp_path) == {}


# --------------------------------------------------------------------------- names and text


def test_venvs_are_called_after_their_directories(tmp_path: Path) -> None:
    """By the last part of the path; where two are the same, by all of it, and never twice the same."""
    places = [
        "services/api",
        "tools/API",
        "web",
        "a b/ü",
        "-x",
        "state.db",
        "c/state.db",
        "x/y",
        "x-y/y",
        "x/-y",
    ]
    root = tmp_path / "My Project"
    grow(root, {f"{place}/requirements.txt": PINNED for place in [*places, "."]})
    names = {venv.directory: venv.name for venv in discover(str(root)).venvs}
    assert names == {
        "": "My-Project",
        "-x": "x",
        "a b/ü": "venv",
        "c/state.db": "c-state.db",
        "services/api": "services-api",
        "state.db": "venv-state.db",
        "tools/API": "tools-API",
        "web": "web",
        "x/-y": "x--y",
        "x-y/y": "x-y-y",
        "x/y": "x-y",
    }
    assert set(reload(root, discover(str(root))).venvs) == set(names.values())


def test_names_stay_unique_when_they_are_cut(tmp_path: Path) -> None:
    """Long names lose their ends, and must not become one."""
    places = [f"{'x' * 120}{i}" for i in range(12)]
    grow(tmp_path, {f"{place}/requirements.txt": PINNED for place in places})
    assert len(locks_of(tmp_path)) == 12


def test_an_empty_project_gets_an_example(tmp_path: Path) -> None:
    """The config loads, names nothing, and shows how to name something that loads as well."""
    text = render(discover(str(tmp_path)))
    assert "No lock file was found" in text
    assert "nothing to do" in reload(tmp_path, discover(str(tmp_path))).warnings[0]
    lines = text.replace("\nvenvs: {}\n", "\n").splitlines()
    example = lines.index("# venvs:")
    lines[example:] = [line.removeprefix("# ") for line in lines[example:]]
    grow(tmp_path, {"venvflow.yaml": "\n".join(lines), "services/api/requirements.txt": PINNED})
    assert list(load(f"{tmp_path}/venvflow.yaml", str(tmp_path), {"HOME": "/home/x"}).venvs) == ["api"]


def test_the_options_in_comments_load(tmp_path: Path) -> None:
    """Whoever takes away the comment signs gets a config that works."""
    text = render(discover(str(grow(tmp_path, {"requirements.txt": PINNED}))))
    keys = ("# trim:", "# exclude:", "# defaults:")
    lines = [line.removeprefix("# ") if line.startswith(keys) else line for line in text.splitlines()]
    (tmp_path / "venvflow.yaml").write_text("\n".join(lines))
    config = load(f"{tmp_path}/venvflow.yaml", str(tmp_path), {"HOME": "/home/x"})
    assert config.trim.max_size == 20 << 30
    assert next(iter(config.venvs.values())).exclude == ("**/tests/", "!**/numpy/tests/")


def test_the_first_line_is_for_editors(tmp_path: Path) -> None:
    """Editors look for the schema in the first line."""
    assert (
        render(Discovery(str(tmp_path))).splitlines()[0] == f"# yaml-language-server: $schema=./{SCHEMA_NAME}"
    )


def test_comments_are_wrapped(tmp_path: Path) -> None:
    """Whoever reads the config in an editor need not scroll."""
    locks = {f"requirements-{name * 9}.txt": f"a=={number}" for number, name in enumerate("abcdefgh")}
    text = render(discover(str(grow(tmp_path, {"requirements.txt": "a==9", **locks}))))
    assert max(map(len, text.splitlines())) <= 110
    assert all(line.lstrip().startswith("#") for line in text.splitlines() if "pin different" in line)


def test_what_is_found_is_the_same_each_time(tmp_path: Path) -> None:
    """Whatever order the disk has, the text is the same."""
    grow(tmp_path, {f"{name}/requirements.txt": PINNED for name in "hbgacfed"})
    texts = {render(discover(str(tmp_path))) for _ in range(3)}
    assert len(texts) == 1
    assert [venv.name for venv in discover(str(tmp_path)).venvs] == list("abcdefgh")


def test_the_dodo_file_is_three_lines_of_python() -> None:
    """A docstring, and one import."""
    body = ast.parse(DODO_TEMPLATE).body
    assert isinstance(body[1], ast.ImportFrom)
    assert (len(DODO_TEMPLATE.splitlines()), len(body), body[1].module) == (3, 2, "venvflow.tasks")


NASTY = st.one_of(
    st.sampled_from(
        [
            *(
                "a b",
                "#x",
                "a: b",
                "- a",
                "-x",
                "'",
                '"',
                "a'b\"c",
                "$HOME",
                "${X}",
                "$$",
                "~",
                "~user",
                "*",
                "[x]",
            ),
            *(
                "no",
                "null",
                "3.10",
                "1e3",
                "{a}",
                "&a",
                "!t",
                "%x",
                "@",
                "`",
                "|",
                ">",
                "?",
                "a\nb",
                "a\tb",
                "\x7f",
            ),
            *(
                "\x85",
                "\u2028",
                "\ufeff",
                "ü",
                "😀",
                "\\n",
                "requirements",
                "state.db",
                "?*",
                "=",
                "<<",
                "a\r",
                " ",
            ),
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=12),
).filter(lambda name: name not in {".", ".."} and len(name.encode()) < 100)


@given(st.lists(st.tuples(NASTY, NASTY), min_size=1, max_size=5))
def test_whatever_directories_are_called_the_config_loads(names: list[tuple[str, str]]) -> None:
    """Every venv and lock file found is in the loaded config, spelled as on the disk."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(os.path.realpath(directory)) / "p"
        for outer, inner in names:
            lock = root / outer / inner / "requirements.txt"
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.write_text(PINNED)
        root.mkdir(exist_ok=True)
        found = discover(str(root))
        text = render(found)
        config = reload(root, found)
        expected = {os.path.join(root, venv.path): venv.name for venv in found.venvs}
        assert {spec.path: spec.name for spec in config.venvs.values()} == expected
        for venv in found.venvs:
            assert config.venvs[venv.name].locks == tuple(os.path.join(root, lock) for lock in venv.locks)
        assert yaml.safe_load(text)["version"] == 1


@given(NASTY)
def test_whatever_a_lock_file_is_called_the_config_loads(name: str) -> None:
    """Requirements files may have any name between ``requirements`` and ``.txt``."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(os.path.realpath(directory))
        lock = root / f"requirements{name}.txt"
        lock.write_text(PINNED)
        (spec,) = reload(root, discover(str(root))).venvs.values()
        assert spec.locks == (str(lock),)
