"""What uv notes of local packages: computed as uv does, and given back only where it stands for the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wheels import make_project, make_wheel, offline_environment

from venvflow.disk import kernel
from venvflow.state import notes
from venvflow.state.notes import Noted, Uncertain, give, glob_expression, look_at_directory, remember

UV = os.path.join(os.path.dirname(sys.executable), "uv")
SITE = "lib/python3.12/site-packages"
NOTE = f"{SITE}/demo-1.0.dist-info/uv_cache.json"


def look(source: Path, *, whole: bool = False, **environ: str) -> Noted:
    """Return what uv would note of a project now."""
    return look_at_directory(str(source), environ, whole=whole)


def project(root: Path, keys: str | None = None, **files: str) -> Path:
    """Make a project with these cache keys (TOML) and *files*, in whose names ``__`` stands for a slash."""
    (root / "src").mkdir(parents=True)
    (root / "pyproject.toml").write_text("" if keys is None else f"[tool.uv]\ncache-keys = {keys}\n")
    for name, text in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def venv_of(root: Path, source: Path, *, editable: bool = True) -> Path:
    """Make what of a venv says that the package demo comes from *source*."""
    info = root / os.path.dirname(NOTE)
    info.mkdir(parents=True)
    details = {"dir_info": {"editable": editable}} if source.is_dir() else {"archive_info": {}}
    (info / "direct_url.json").write_text(json.dumps({"url": source.as_uri(), **details}))
    return root


def git(*words: str, cwd: Path) -> str:
    """Run git and return what it says."""
    name = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *name, *words], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout.strip()


# --------------------------------------------------------------------------- what is noted


def test_the_latest_time_of_the_usual_files_counts(tmp_path: Path) -> None:
    """That of change, not of modification; and when the directory of sources was made."""
    source = project(tmp_path / "p")
    (source / "setup.py").write_text("")
    (source / "setup.cfg").write_text("")
    os.utime(source / "setup.cfg", (1, 1))
    ctime = (source / "setup.cfg").stat().st_ctime_ns
    time.sleep(0.01)  # clocks of file systems are coarse
    (source / "src" / "a.py").write_text("")
    (source / "README").write_text("")
    born = kernel.birth_time(str(source / "src"))
    assert look(source).note == {
        "timestamp": {"secs_since_epoch": ctime // 10**9, "nanos_since_epoch": ctime % 10**9},
        "commit": None, "tags": None, "env": {},
        "directories": {
            "src": (source / "src").stat().st_ino
            if born is None
            else {"secs_since_epoch": born // 10**9, "nanos_since_epoch": born % 10**9}
        },
    }  # fmt: skip


@pytest.mark.parametrize("key", ['"a.txt"', '{file = "a.txt"}', "{git = {commit = false}}", "{git = false}"])
def test_keys_take_the_place_of_the_usual_ones(key: str, tmp_path: Path) -> None:
    """Also if they name nothing that is there."""
    source = project(tmp_path / "p", f"[{key}]")
    assert look(source).note == {**notes._EMPTY, "env": {}, "directories": {}}


@pytest.mark.parametrize(
    "keys",
    ['[{file = "a", dir = "src"}]', '["a", {what = "x"}]', "[1]", "[{git = {branch = true}}]",
     '[{git = "yes"}]', '"a"', "[{dir = 1}]", "[{git = {tags = 1}}]"],
)  # fmt: skip
def test_keys_that_make_no_sense_are_uncertain(keys: str, tmp_path: Path) -> None:
    """One uv takes the usual ones, another one fails."""
    with pytest.raises(Uncertain):
        look(project(tmp_path / "p", keys))


def test_directories_and_variables_are_noted_also_if_they_are_not_there(tmp_path: Path) -> None:
    """Then they are null; a file in the place of a directory is not noted."""
    source = project(tmp_path / "p", '[{dir = "gone"}, {dir = "file"}, {env = "A"}, {env = "B"}]', file="")
    note = look(source, A="1").note
    assert note == {"timestamp": None, "commit": None, "tags": None, "env": {"A": "1", "B": None},
                    "directories": {"gone": None}}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
def test_commit_and_tags_are_those_that_git_knows(tmp_path: Path, *, packed: bool) -> None:
    """On a branch, beside it, and in a worktree; a tag with a message is named by itself."""
    source = project(tmp_path / "p" / "libs" / "demo", "[{git = {commit = true, tags = true}}]")
    assert look(source).note["commit"] is look(source).note["tags"] is None
    git("init", cwd=tmp_path / "p")
    assert look(source).note["commit"] is None
    assert look(source).note["tags"] == {}
    git("add", ".", cwd=source)
    git("commit", "-m", "x", cwd=source)
    git("tag", "plain", cwd=source)
    git("tag", "-m", "x", "group/with-text", cwd=source)
    git("worktree", "add", "-b", "other", str(tmp_path / "q"), cwd=source)
    git("commit", "--allow-empty", "-m", "y", cwd=tmp_path / "q")
    if packed:
        git("pack-refs", "--all", cwd=source)
    names = "plain", "group/with-text"
    tags = {name: git("rev-parse", f"refs/tags/{name}", cwd=source) for name in names}
    for checkout in (tmp_path / "p", tmp_path / "q"):
        for branch in (None, "HEAD~0"):
            if branch:
                git("checkout", branch, cwd=checkout)
            note = look(checkout / "libs" / "demo").note
            assert note["commit"] == git("rev-parse", "HEAD", cwd=checkout)
            assert note["tags"] == tags
    plain = project(source / "plain", "[{git = true}]")
    assert look(plain).note["tags"] is None
    assert look(plain).note["commit"] == git("rev-parse", "HEAD", cwd=source)
    assert look(project(source / "none", "[{git = false}]")).note["commit"] is None


GLOBS = {
    "*.toml": (["a.toml", "x/y/a.toml"], ["a.tom", "a.toml/b"]),
    "**/*.toml": (["a.toml", "x/y/a.toml"], ["a.tom"]),
    "x/**": (["x/a", "x/y/a"], ["x", "y/x/a"]),
    "x/**/z/*": (["x/z/a", "x/y/y/z/a"], ["x/z", "x/z/a/b", "x/zz/a"]),
    "a?[0-9][!c-]": (["ab1d", "x/ab1d"], ["ab1c", "ab1-", "abxd", "a/1d"]),
    "*.{c,h{,pp}}": (["a.c", "a.h", "x/a.hpp"], ["a.", "a.cc", "a,c"]),
    "a,b": (["a,b"], ["a", "b"]),
    r"a\*": (["a*"], ["ab"]),
    "x.y+(z)": (["x.y+(z)"], ["xzy+(z)"]),
}


@pytest.mark.parametrize("pattern", GLOBS)
def test_globs_match_as_in_gitignore_and_have_braces(pattern: str) -> None:
    """Those without a slash match at any depth."""
    expression = re.compile(glob_expression(pattern))
    matched, others = GLOBS[pattern]
    assert [path for path in (*matched, *others) if expression.fullmatch(path)] == matched


@pytest.mark.parametrize("pattern", ["a[", "[^/]", "{a", "[z-a]", "[[:alpha:]]"])
def test_a_glob_that_is_not_known_for_sure_is_uncertain(pattern: str) -> None:
    """Better no note than a wrong one."""
    with pytest.raises(Uncertain):
        glob_expression(pattern)


@pytest.mark.parametrize("pattern", ["/etc/*", "../*.toml", "!*.toml", "*-*-*-*-*-*"])
def test_a_pattern_that_leads_out_or_takes_for_ever_is_uncertain(pattern: str, tmp_path: Path) -> None:
    """Nothing is looked for."""
    with pytest.raises(Uncertain):
        look(project(tmp_path / "p", f'["{pattern}"]'))


# --------------------------------------------------------------------------- what it stands for

NAMES = st.sampled_from(["pyproject.toml", "setup.py", "setup.cfg", "src/a.py", "src/b/c.py", "README"])


@given(st.dictionaries(NAMES, st.sampled_from(["", "x = 1\n", "# text\n"])), NAMES, st.booleans())
def test_the_evidence_is_that_of_bytes_and_not_of_times(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str], changed: str, whole: bool
) -> None:  # fmt: skip
    """A copy elsewhere has the same; other bytes in a file that counts give another, in all others not."""
    root = tmp_path_factory.mktemp("evidence")
    for name, text in {**files, changed: "y = 1\n"}.items():
        (root / "one" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "one" / name).write_text(text)
    shutil.copytree(root / "one", root / "two")
    before = look(root / "one", whole=whole)
    assert look(root / "two", whole=whole).evidence == before.evidence
    (root / "two" / changed).write_text("y = 2\n")
    counts = whole or changed in notes._USUAL
    assert (look(root / "two", whole=whole).evidence != before.evidence) == counts


@pytest.mark.parametrize(
    "name", [".hidden/a", "build/a", "x/dist/a", "x.egg-info/a", "x/__pycache__/a", "env/a"]
)
def test_what_was_built_or_is_hidden_is_no_source(name: str, tmp_path: Path) -> None:
    """Nor is a venv: a checkout that was built in is the same as a new one."""
    source = project(tmp_path / "p", x__a="")
    before = look(source, whole=True)
    (source / name).parent.mkdir(parents=True)
    (source / name).write_text("")
    if name.startswith("env/"):
        (source / "env" / "pyvenv.cfg").write_text("")
    assert look(source, whole=True).evidence == before.evidence
    (source / "x" / "b").write_text("")
    assert look(source, whole=True).evidence != before.evidence


# --------------------------------------------------------------------------- remembered and given


def noted(venv: Path) -> dict[str, Any] | None:
    """Return the note of the package demo."""
    note = venv / NOTE
    return json.loads(note.read_text()) if note.exists() else None


@pytest.mark.parametrize("editable", [True, False])
def test_a_note_is_given_where_it_stands_for_the_same(tmp_path: Path, *, editable: bool) -> None:
    """As of that place; and not where it does not."""
    first = project(tmp_path / "p", src__a__py="1")
    venv = venv_of(tmp_path / "first", first, editable=editable)
    assert remember(str(venv), {}) == {}
    (venv / NOTE).write_text(json.dumps(look(first).note))
    remembered = remember(str(venv), {})
    assert remembered.keys() == {NOTE}
    time.sleep(0.01)
    shutil.copytree(first, tmp_path / "q")
    second = venv_of(tmp_path / "second", tmp_path / "q", editable=editable)
    give(str(second), remembered, {})
    assert noted(second) == look(tmp_path / "q").note != noted(venv)
    (tmp_path / "q" / "src" / "a" / "py").write_text("2")
    third = venv_of(tmp_path / "third", tmp_path / "q", editable=editable)
    give(str(third), remembered, {})
    assert (noted(third) is not None) == editable, "what was copied into the venv is of other sources"


def test_of_a_file_the_bytes_count(tmp_path: Path) -> None:
    """A wheel, or an archive of sources."""
    (tmp_path / "a.whl").write_text("1")
    venv = venv_of(tmp_path / "venv", tmp_path / "a.whl")
    ctime = (tmp_path / "a.whl").stat().st_ctime_ns
    (venv / NOTE).write_text(json.dumps({"timestamp": notes._time(ctime), "commit": None, "tags": None}))
    remembered = remember(str(venv), {})
    (venv / NOTE).unlink()
    give(str(venv), remembered, {})
    assert (noted(venv) or {})["timestamp"] == notes._time(ctime)
    (venv / NOTE).unlink()
    (tmp_path / "a.whl").write_text("2")
    give(str(venv), remembered, {})
    assert noted(venv) is None


def test_a_note_that_is_not_what_uv_would_write_now_is_not_remembered(tmp_path: Path) -> None:
    """It is of older sources, or of a uv that notes other things."""
    source = project(tmp_path / "p")
    venv = venv_of(tmp_path / "venv", source)
    odd: object
    for odd in (look(source).note | {"more": 1}, look(source).note | {"timestamp": None}, [], 3):
        (venv / NOTE).write_text(json.dumps(odd))
        assert remember(str(venv), {}) == {}


@pytest.mark.parametrize("url", ["https://h/demo.whl", "file://host/demo", "demo", 3, None])
def test_what_is_not_local_has_no_note(url: object, tmp_path: Path) -> None:
    """Nor has what has no address that makes sense."""
    venv = venv_of(tmp_path / "venv", project(tmp_path / "p"))
    (venv / os.path.dirname(NOTE) / "direct_url.json").write_text(json.dumps({"url": url, "dir_info": {}}))
    give(str(venv), {NOTE: "0" * 64}, {})
    (venv / NOTE).write_text("{}")
    assert remember(str(venv), {}) == {}


def test_sources_that_are_too_many_or_too_large_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's home may be a project, too."""
    source = project(tmp_path / "p", '["*.py"]', a="12345", b="12345")
    look(source, whole=True)
    monkeypatch.setattr(notes, "_MOST_BYTES", 40)
    with pytest.raises(Uncertain):
        look(source, whole=True)
    monkeypatch.setattr(notes, "_MOST_NAMES", 3)
    with pytest.raises(Uncertain):
        look(source)


def test_nobody_waits_for_a_fifo(tmp_path: Path) -> None:
    """A key that names one names no file; in the place of the project's own file, it makes all uncertain."""
    source = project(tmp_path / "p", '["fifo", "pyproject.toml"]')
    os.mkfifo(source / "fifo")
    assert look(source).note["timestamp"] is not None
    (source / "pyproject.toml").unlink()
    os.mkfifo(source / "pyproject.toml")
    with pytest.raises(OSError, match="regular"):
        look(source)


def test_no_note_is_written_through_a_link(tmp_path: Path) -> None:
    """A snapshot that others made may have a link where a distribution should be."""
    source = project(tmp_path / "p")
    elsewhere = venv_of(tmp_path / "elsewhere", source)
    (tmp_path / "venv" / SITE).mkdir(parents=True)
    info = os.path.dirname(NOTE)
    (tmp_path / "venv" / info).symlink_to(elsewhere / info)
    with pytest.raises(OSError, match="demo"):
        give(str(tmp_path / "venv"), {NOTE: look(source).evidence}, {})
    assert noted(elsewhere) is None


def test_the_time_of_birth_is_the_inode_where_nobody_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As uv has it."""
    source = project(tmp_path / "p")
    before = time.time_ns() - 10**9
    born = kernel.birth_time(str(source))
    assert born is None or before - 10**9 < born < time.time_ns()
    assert kernel.birth_time(str(source / "gone")) is None
    monkeypatch.setattr(notes, "birth_time", lambda _path: None)
    assert look(source).note["directories"] == {"src": (source / "src").stat().st_ino}


# --------------------------------------------------------------------------- uv itself

KEYS: Mapping[str, str | None] = {
    "usual": None,
    "file": '["README", {file = "gone"}]',
    "globs": '[{file = "**/*.c"}, "src/*.txt"]',
    "together": '["*.gone", "src/*.txt"]',
    "alone": '["src/*.txt"]',
    "braces": '["src/*.{rs,txt}"]',
    "dirs": '[{dir = "src"}, {dir = "gone"}]',
    "git": "[{git = true}]",
    "tags": "[{git = {commit = true, tags = true}}, 'pyproject.toml']",
    "env": '[{env = "DEMO_KEY"}, {env = "DEMO_NONE"}]',
}


@pytest.mark.slow
def test_uv_itself_notes_the_same(tmp_path: Path) -> None:
    """Of directories with all kinds of keys, of a wheel and of an archive; editable or not."""
    home = tmp_path / "my projects"
    for name, keys in KEYS.items():
        source = make_project(home / name, f"demo-{name}")
        for file in ("README", "a.md", "src/b.txt", "src/x/c.txt", "src/x/d.c", "src/x/e.rs", "src/x/f.md"):
            (source / file).parent.mkdir(exist_ok=True)
            (source / file).write_text("")
            time.sleep(0.01)  # so that each has another time
        if keys is not None:
            with (source / "pyproject.toml").open("a") as file_:
                file_.write(f"[tool.uv]\ncache-keys = {keys}\n")
    git("init", cwd=home)
    git("add", ".", cwd=home)
    git("commit", "-m", "x", cwd=home)
    git("tag", "v1", cwd=home)
    wheel = make_wheel(home / "house", "alpha", "1.0")
    backend = "import in_tree_backend as backend; backend.build_sdist('../house')"
    subprocess.run([sys.executable, "-c", backend], cwd=make_project(home / "archive", "archive"), check=True)
    archive = home / "house" / "archive-0.1.tar.gz"
    environ = {**os.environ, **offline_environment(home / "house"), "DEMO_KEY": "1"}
    python = f"{tmp_path}/venv/bin/python"
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, tmp_path / "venv"], env=environ, check=True)
    lines = [f"-e {name}" if number % 2 else f"./{name}" for number, name in enumerate(KEYS)]
    lines += [f"./house/{file.name}" for file in (wheel, archive)]
    (home / "requirements.txt").write_text("\n".join(lines))
    words = [UV, "pip", "sync", "--python", python, "requirements.txt"]
    subprocess.run(words, env=environ, check=True, cwd=home)
    venv = tmp_path / "venv"
    remembered = remember(str(venv), environ)
    written = {str(path.relative_to(venv)) for path in venv.glob("lib/*/site-packages/*/uv_cache.json")}
    assert remembered.keys() == written
    assert len(written) == len(KEYS) + 2
    for path in written:
        (venv / path).unlink()
    give(str(venv), remembered, environ)
    again = subprocess.run(
        [*words, "--dry-run"], env=environ, check=True, capture_output=True, text=True, cwd=home
    )
    assert "Would make no changes" in again.stderr
