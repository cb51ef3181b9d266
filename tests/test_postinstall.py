"""postinstall.py makes an unpacked venv work at any place, again and again, with nothing but itself."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import NEEDS, Objects, make_venv, read_venv
from pythons import SITE, interpreters
from tiers import first_quick

from venvflow import postinstall
from venvflow.disk.archive import METADATA, Options, extract, write_archive

pytestmark = pytest.mark.programs

SCRIPT = Path(postinstall.__file__)
_SHELL = "sh" if os.path.exists("/proc/self/stat") else "bash"
"""One that tells which file it reads, where /proc does not."""


def test_slots_that_do_not_fit_are_errors() -> None:
    """Offsets that go back or beyond the end are damage."""
    for rows in ([[9, "venv", "raw", ""]], [[2, "venv", "raw", ""], [1, "venv", "raw", ""]]):
        with pytest.raises(ValueError, match="slot"):
            postinstall.fill(b"abc", rows, postinstall.Places("/a", "/b", "/c"), postinstall.no_digest)


def test_the_script_stands_alone() -> None:
    """It imports nothing but the standard library, and is written in the Python of 3.8."""
    source = SCRIPT.read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= set(sys.stdlib_module_names)


# --------------------------------------------------------------------------- end to end


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that extracts a small venv to a place, as plain tar would."""
    root = tmp_path_factory.mktemp("packed")
    objects = Objects(root / "objects")
    project = root / "project"
    make_venv(project / "venv")
    (project / "venv" / SITE / "project.pth").write_text(f"{project}/src\n")
    manifests = {
        "plain": read_venv(make_venv(root / "venv"), objects),
        "bound": read_venv(project / "venv", objects, project=str(project)),
    }

    def unpacked(place: Path, kind: str = "plain", **needs: str) -> Path:
        path = str(place.parent / "a.tar")
        description = {"python": {**NEEDS, **needs}}
        write_archive(manifests[kind], objects, path, Options("tar"), description=description)
        extract(path, str(place))
        return place

    return unpacked


def _run(
    root: Path, *words: str, python: str = sys.executable, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, str(root / "postinstall.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environ},
    )


def _output(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _files(root: Path) -> dict[str, bytes]:
    paths = [path for path in root.rglob("*") if path.is_file() or path.is_symlink()]
    return {
        os.path.relpath(path, root): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        for path in paths
    }


@pytest.mark.parametrize("place", first_quick(["plain", "with space and 'quote'", "l" * 200]))
def test_scripts_activation_and_imports_work_at_the_place(
    place: str, packed: Callable[..., Path], tmp_path: Path
) -> None:
    """At a plain, an odd and a very long path, scripts run, activation names the place, RECORD is right."""
    root = packed(tmp_path / place)
    answer = _run(root)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert str(root) in answer.stdout
    assert _output(root / "bin/pkg1") == "pkg1 runs\n"
    assert _output(root / "bin/python3", "-c", "import pkg2, sys; print(sys.prefix)") == f"{root}\n"
    shown = _output(_SHELL, "-c", '. "$0/bin/activate" && echo "$VIRTUAL_ENV" && pkg3', root)
    assert shown == f"{root}\npkg3 runs\n"
    record = (root / SITE / "pkg1-1.0.dist-info/RECORD").read_bytes()
    assert postinstall.record_fields((root / "bin/pkg1").read_bytes()) in record
    assert b"/venvflow/" not in b"".join(
        data for path, data in _files(root).items() if not path.startswith((METADATA, "postinstall.py"))
    )


def test_it_begins_anew_with_the_options_that_python_had(packed: Callable[..., Path], tmp_path: Path) -> None:
    """Whoever keeps the environment's modules from being imported means the whole run."""
    root = packed(tmp_path / "venv")
    (tmp_path / "shlex.py").write_text("print('imported')")
    answer = subprocess.run(
        [sys.executable, "-I", "-X", "utf8=0", root / "postinstall.py"],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "POSIX", "PYTHONPATH": str(tmp_path)},
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "imported" not in answer.stdout


@pytest.mark.slow
def test_it_can_be_run_again_after_another_move(packed: Callable[..., Path], tmp_path: Path) -> None:
    """Moved twice, the venv is the same as one that was unpacked there in the first place."""
    root = packed(tmp_path / "first")
    assert _run(root).returncode == 0
    for place in ("a second place that is longer", "3"):
        root = root.rename(tmp_path / place)
        assert _run(root).returncode == 0
        assert _output(root / "bin/pkg2") == "pkg2 runs\n"
    moved = _files(root)
    shutil.rmtree(root)
    assert _run(packed(root)).returncode == 0
    assert _files(root) == moved


def test_what_is_right_already_is_left_alone(packed: Callable[..., Path], tmp_path: Path) -> None:
    """A second run writes nothing."""
    root = packed(tmp_path / "venv")
    _run(root)
    before = {path: os.lstat(path).st_ino for path in root.rglob("*")}
    answer = _run(root)
    assert ": 0 files filled in" in answer.stdout
    assert {path: os.lstat(path).st_ino for path in root.rglob("*")} == before


def test_a_dry_run_writes_nothing_and_says_so(packed: Callable[..., Path], tmp_path: Path) -> None:
    """What would be done is told, nothing is done."""
    root = packed(tmp_path / "venv")
    before = _files(root)
    answer = _run(root, "--dry-run", "--compile")
    assert answer.returncode == 0
    assert "1 file to be filled in, 7 right already" in answer.stdout
    assert _files(root) == before


@pytest.mark.slow
def test_it_can_compile(packed: Callable[..., Path], tmp_path: Path) -> None:
    """With --compile there is bytecode, made by the venv's own interpreter."""
    root = packed(tmp_path / "venv")
    answer = _run(root, "--compile")
    assert answer.stdout.endswith("Compiled.\n")
    assert len(list(root.rglob("pkg*/__pycache__/*.pyc"))) == 3
    (root / SITE / "pkg1/broken.py").write_text("def")
    (root / SITE / "pkg1/sparse.py").touch()
    os.truncate(root / SITE / "pkg1/sparse.py", 1 << 40)
    said = _run(root, "--compile").stdout
    assert "broken.py" in said
    assert "sparse.py: it is larger than any source" in said


@pytest.mark.slow
def test_a_wrong_interpreter_is_refused_in_words(packed: Callable[..., Path], tmp_path: Path) -> None:
    """Version, implementation and ABI are compared; nothing is written; --force overrules."""
    for number, (wrong, words) in enumerate(
        [
            ({"version": "3.99.1", "abi": ""}, "the packages are for cpython 3.99"),
            ({"implementation": "pypy"}, "but the packages are for pypy"),
            ({"abi": "cpython-399-x"}, "the packages are for cpython-399-x"),
        ]
    ):
        root = packed(tmp_path / str(number), **wrong)
        before = _files(root)
        answer = _run(root, "--python", sys.executable)
        assert answer.returncode == 3
        assert words in answer.stderr
        assert _files(root) == before
        assert _run(root, "--python", sys.executable, "--force").returncode == 0
        assert _output(root / "bin/pkg1") == "pkg1 runs\n"


def test_the_first_fitting_interpreter_is_found(packed: Callable[..., Path], tmp_path: Path) -> None:
    """Candidates that do not fit are passed over; if none fits, each is told with its reason."""
    root = packed(tmp_path / "venv", abi="")
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    version = ".".join(NEEDS["version"].split(".")[:2])
    for name, text in ((f"python{version}", "exit 7"), ("python3", f'exec "{sys.executable}" "$@"')):
        (bin_directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin_directory / name).chmod(0o755)
    needs = {**NEEDS, "abi": ""}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", "")
        patch.setenv("PATH", str(bin_directory))
        chosen = postinstall.choose(needs, "", force=False, root=str(root))
        assert chosen == os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]
        with pytest.raises(postinstall.Problem, match=r"(?s)python3: it is .* 3\.98") as caught:
            postinstall.choose({**needs, "version": "3.98"}, "", force=False, root=str(root))
    assert caught.value.code == 3
    assert root.is_dir()


def test_an_interpreter_that_cannot_be_run_is_an_error(packed: Callable[..., Path], tmp_path: Path) -> None:
    """A path that is no Python is named."""
    root = packed(tmp_path / "venv")
    for path in ("/bin/false", str(tmp_path / "gone")):
        answer = _run(root, "--python", path)
        assert answer.returncode == 3
        assert path in answer.stderr
        assert "Traceback" not in answer.stderr


def test_the_project_can_be_told(packed: Callable[..., Path], tmp_path: Path) -> None:
    """Files that name the project name the one that is given, or the directory above, with a note."""
    root = packed(tmp_path / "venv", "bound")
    answer = _run(root)
    assert "note: some files name the project" in answer.stdout
    assert (root / SITE / "project.pth").read_text() == f"{tmp_path}/src\n"
    assert "note" not in _run(root, "--project", "/srv/the project").stdout
    assert (root / SITE / "project.pth").read_text() == "/srv/the project/src\n"


def test_wrong_words_are_a_usage_error(packed: Callable[..., Path], tmp_path: Path) -> None:
    """Exit code 2, as everywhere."""
    assert _run(packed(tmp_path / "venv"), "--nonsense").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.12", "3.13"])
def test_other_pythons_can_run_it(version: str, packed: Callable[..., Path], tmp_path: Path) -> None:
    """All it can do, on Pythons from 3.8 on; it still links the one that the packages are for."""
    other = interpreters().get(version)
    if other is None:
        pytest.skip(f"there is no Python {version}")
    root = packed(tmp_path / "venv", "bound")
    tried = _run(root, "--python", sys.executable, "--dry-run", python=other)
    assert (tried.returncode, tried.stderr) == (0, "")
    assert not (root / "bin/python").exists()
    answer = _run(root, "--python", sys.executable, "--compile", "--project", str(tmp_path), python=other)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "Compiled." in answer.stdout
    assert _output(root / "bin/pkg1") == "pkg1 runs\n"
    moved = tmp_path / ("a long and 'odd' place " * 8).strip() / "venv"
    moved.parent.mkdir()
    root.rename(moved)
    again = _run(moved, "--python", sys.executable, python=other)
    assert (again.returncode, again.stderr) == (0, "")
    assert _output(moved / "bin/pkg1") == "pkg1 runs\n"
    if version != f"{sys.version_info[0]}.{sys.version_info[1]}":
        wrong = _run(moved, "--python", other, python=other)
        assert wrong.returncode == 3
        assert f"{other} does not fit: it is cpython {version}" in wrong.stderr


@pytest.mark.slow
def test_it_needs_no_newer_python_than_it_says() -> None:
    """Its grammar is that of 3.8, it imports what 3.8 has, and calls nothing of str or os that came later."""
    tree = ast.parse(Path(postinstall.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(str(node.module))
    assert modules <= {
        "__future__", "argparse", "base64", "collections.abc", "contextlib", "errno", "hashlib",
        "importlib.util", "json", "marshal", "os",
        "re", "shlex", "stat", "subprocess", "sys", "typing", "unicodedata", "urllib.parse",
    }  # fmt: skip
    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not called & {
        "removeprefix",
        "removesuffix",
        "file_digest",
        "bit_count",
        "pairwise",
        "is_relative_to",
    }


# --------------------------------------------------------------------------- damage


def _change(root: Path, **changes: Any) -> None:
    path = root / METADATA / "pack.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, **changes}))


_HOSTILE: dict[str, dict[str, Any]] = {
    "absolute": {"templates": [["/tmp/pwned", 0, 0, 1, []]]},  # noqa: S108
    "climbing": {"templates": [["../pwned", 0, 0, 1, []]]},
    "through a link": {"templates": [["lib64/pwned", 0, 0, 1, []]]},
    "link out": {"links": [["out", "/etc/passwd", []]]},
    "link up": {"links": [["bin/out", "../../x", []]]},
    "link back": {"links": [["bin/out", "a/../../../x", []]]},
    "link up from the venv": {"links": [["out", "/../../etc", [[0, "venv", "raw", ""]]]]},
    "slot in the middle": {"links": [["out", "/etc", [[4, "venv", "raw", ""]]]]},
    "record of a device": {"templates": [["a", 0, 0, 0, [[0, "file", "record", "../../../../dev/zero"]]]]},
    "link to nothing": {"links": [["out", "", []]]},
    "no rows": {"templates": [[]]},
    "no list": {"templates": 7},
    "no description": {"description": []},
    "newer format": {"format": 99},
    "wrong slot": {"templates": [["a", 0, 0, 1, [[5, "venv", "raw", ""]]]]},
    "unknown form": {"templates": [["a", 0, 0, 1, [[0, "venv", "rot13", ""]]]]},
    "other templates": {"templates_sha256": hashlib.sha256(b"").hexdigest()},
}


@pytest.mark.parametrize("case", _HOSTILE)
def test_damaged_metadata_is_refused(
    case: str,
    packed: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 4, no traceback, and nothing is written where it does not belong."""
    root = packed(tmp_path / "venv")
    _change(root, **_HOSTILE[case])
    before = _files(tmp_path)
    monkeypatch.setattr(sys, "argv", ["postinstall.py", "--python", sys.executable])
    with pytest.raises(SystemExit) as ended:  # in this process: others tell that it runs in one of its own
        runpy.run_path(str(root / "postinstall.py"), run_name="__main__")
    assert ended.value.code == 4
    assert "damaged" in capsys.readouterr().err
    assert _files(tmp_path) == before


def test_records_are_filled_in_after_what_they_describe(packed: Callable[..., Path], tmp_path: Path) -> None:
    """Whatever the order of the templates, a RECORD describes the script as it is now."""
    root = packed(tmp_path / "venv")
    document = json.loads((root / METADATA / "pack.json").read_text())
    _change(root, templates=document["templates"][::-1])
    assert _run(root).returncode == 0
    fields = postinstall.record_fields((root / "bin/pkg3").read_bytes())
    assert b"bin/pkg3," + fields in (root / SITE / "pkg3-1.0.dist-info/RECORD").read_bytes()


def test_missing_metadata_is_an_error(packed: Callable[..., Path], tmp_path: Path) -> None:
    """Without what lies in .venvflow-pack nothing can be done, and that is said."""
    root = packed(tmp_path / "venv")
    shutil.rmtree(root / METADATA)
    answer = _run(root)
    assert answer.returncode == 3
    assert "pack.json" in answer.stderr


def test_a_file_is_replaced_whole_or_not_at_all(
    packed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a file cannot be written, it is as it was, no litter is left, and the error names it."""
    root = packed(tmp_path / "venv")
    before = _files(root)

    def failing(source: str, target: str, **_: int) -> None:
        raise OSError(28, "No space left on device", target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(postinstall.Problem, match=r"cannot write .*No space left") as caught:
        postinstall.complete(str(root))
    assert caught.value.code == 3
    assert _files(root) == before


def test_links_become_copies_where_links_cannot_be(
    packed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without links, files and directories are copied, once."""

    def failing(target: str, path: str, **_: int) -> None:
        raise OSError(1, "Operation not permitted")

    (tmp_path / "lib/x").mkdir(parents=True)
    (tmp_path / "tool").write_text("runs")
    monkeypatch.setattr(os, "symlink", failing)
    (tmp_path / "lib/x/y").write_text("deep")
    python = tmp_path / "python"
    python.write_text("interpreter")
    to_venv, to_python = [postinstall.SlotRow(0, kind, "raw", "") for kind in ("venv", "python")]
    for path, target, slots, content in (
        ("lib64", "lib", (), "lib64/x/y"),
        ("bin/alias", "../tool", (), "bin/alias"),
        ("bin/lib", "/lib/x", (to_venv,), "bin/lib/y"),
        ("bin/python", "", (to_python,), "bin/python"),
    ):
        link = postinstall.LinkRow(path, target, slots)
        assert _put_link(tmp_path, link, python=str(python)), path
        assert (tmp_path / content).read_text() in ("deep", "runs", "interpreter")
        assert not _put_link(tmp_path, link, python=str(python)), path
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".vf-")]


@pytest.mark.parametrize(
    ("path", "target", "kind"), [("lib/up", "..", ""), ("lib/up", "", "venv"), ("x", "", "project")]
)
def test_a_link_that_cannot_become_a_copy_is_refused(
    path: str, target: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory cannot hold a copy of itself, and a project is nothing to copy."""

    def failing(target: str, path: str, **_: int) -> None:
        raise OSError(1, "Operation not permitted")

    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(os, "symlink", failing)
    slots = (postinstall.SlotRow(0, kind, "raw", ""),) if kind else ()
    with pytest.raises(postinstall.Problem):
        _put_link(tmp_path, postinstall.LinkRow(path, target, slots))
    assert list(tmp_path.rglob("*")) == [tmp_path / "lib"]


def _put_link(root: Path, link: postinstall.LinkRow, *, python: str = sys.executable) -> bool:
    fd = os.open(root, os.O_RDONLY)
    try:
        places = postinstall.Places(str(root), "/project", python)
        return postinstall.put_link(link, fd, places, postinstall.Copier(fd, places), dry_run=False)
    finally:
        os.close(fd)


def _python_link(path: str) -> postinstall.LinkRow:
    return postinstall.LinkRow(path, "", (postinstall.SlotRow(0, "python", "raw", ""),))


def test_a_link_may_be_all_that_is_in_its_directory(tmp_path: Path) -> None:
    """Its directories are made, for whoever lost them."""
    assert _put_link(tmp_path, _python_link("a/b/python"))
    assert os.readlink(tmp_path / "a/b/python") == sys.executable


def test_a_link_replaces_what_is_wrong(tmp_path: Path) -> None:
    """A link to another interpreter is replaced, the right one is left alone."""
    (tmp_path / "python").symlink_to("/old/python")
    assert _put_link(tmp_path, _python_link("python"), python="/new/python")
    assert os.readlink(tmp_path / "python") == "/new/python"
    assert not _put_link(tmp_path, _python_link("python"), python="/new/python")
    assert os.listdir(tmp_path) == ["python"]


def test_main_runs_in_this_process_too(
    packed: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The function behind the script answers with an exit code and prints what it did."""
    root = packed(tmp_path / "venv")
    monkeypatch.setattr(postinstall, "__file__", str(root / "postinstall.py"))
    assert postinstall.main(["--python", sys.executable]) == 0
    assert "1 link made" in capsys.readouterr().out
    assert postinstall.main(["--python", "/bin/false"]) == 3
    assert capsys.readouterr().err.startswith("postinstall: cannot run /bin/false")
