"""A plain tar gives a venv that works where it lies: nothing is run there before, not even postinstall.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from archives import NEEDS, Objects, make_venv, pack, read_venv
from archives import contents as contents_of
from contents import linux_only, mounted, needs_root
from pythons import BASE, SITE
from tiers import first_quick

from venvflow import postinstall
from venvflow.disk.archive import METADATA, NEUTRAL, inventory_of, unpack

pytestmark = pytest.mark.programs

ODD = """with 'quotes' "two" $x é [1] (2) !; & \\ place"""
LONG = "/".join(["l" * 100] * 3)
UV = os.path.join(os.path.dirname(sys.executable), "uv")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with archives: of a small venv, and of one by each tool that writes for shells."""
    root = tmp_path_factory.mktemp("made")
    objects = Objects(root / "objects")
    makers = {
        "venv": [BASE, "-m", "venv", "--without-pip"],
        "uv": [UV, "venv", "-q", "--offline", "-p", BASE],
        "relocatable": [UV, "venv", "-q", "--offline", "--relocatable", "-p", BASE],
        "virtualenv": [sys.executable, "-m", "virtualenv", "-q", "--no-seed", "--no-download", "-p", BASE],
    }
    make_venv(root / "small")
    for name, words in makers.items():
        subprocess.run([*words, root / name], check=True, stdin=subprocess.DEVNULL)
    for name in ("small", *makers):
        pack(read_venv(root / name, objects), objects, root / f"{name}.tar", python=BASE)
        shutil.rmtree(root / name)
    return root


@pytest.fixture
def unpacked(made: Path) -> Callable[..., Path]:
    """Return a function that unpacks an archive to a place by plain tar."""

    def at(place: Path, name: str = "small") -> Path:
        place.mkdir(parents=True)
        subprocess.run(["tar", "-xf", made / f"{name}.tar", "-C", place], check=True)
        return place

    return at


def run(*words: str | Path, cwd: Path | None = None, **environ: str) -> tuple[int, str, str]:
    """Run a program without anything of this environment; return exit code, output and errors."""
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "LC_ALL": "C.UTF-8", **environ}
    found = subprocess.run(
        words, cwd=cwd, env=environ, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return found.returncode, found.stdout, found.stderr


# --------------------------------------------------------------------------- programs


@pytest.mark.parametrize("place", first_quick([ODD, "plain", LONG]), ids=["odd", "plain", "long"])
def test_python_and_scripts_work_where_tar_left_them(
    place: str, unpacked: Callable[..., Path], tmp_path: Path
) -> None:
    """By their path, by a relative one, by PATH, by a link from elsewhere, after a move; read-only, too."""
    root = unpacked(tmp_path / place)
    assert run(root / "bin/python3", "-c", "import pkg2, sys; print(sys.prefix)") == (0, f"{root}\n", "")
    assert run(root / "bin/pkg1") == (0, "pkg1 runs\n", "")
    assert run("./bin/pkg1", cwd=root) == (0, "pkg1 runs\n", "")
    assert run("sh", "pkg1", cwd=root / "bin") == (0, "pkg1 runs\n", "")
    assert run("sh", "-c", "pkg1", PATH=f"{root}/bin:/usr/bin:/bin") == (0, "pkg1 runs\n", "")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/one").symlink_to(root / "bin/pkg1")
    (tmp_path / "tools/two").symlink_to("one")
    assert run(tmp_path / "tools/two") == (0, "pkg1 runs\n", "")
    other = unpacked(tmp_path / "other")
    (other / "bin/theirs").symlink_to(root / "bin/pkg1")
    (other / SITE / "pkg1/__init__.py").unlink()
    assert run(other / "bin/theirs") == (0, "pkg1 runs\n", "")
    (tmp_path / "store").mkdir()
    (root / "bin/pkg2").rename(tmp_path / "store/object")  # as a store shares files by symlink
    (root / "bin/pkg2").symlink_to(tmp_path / "store/object")
    assert run(root / "bin/pkg2") == (0, "pkg2 runs\n", "")
    (tmp_path / "environment").symlink_to(root)
    code = "import pkg3, sys; print(sys.prefix, sys.executable)"
    place = f"{tmp_path}/environment"
    assert run("./environment/bin/python", "-c", code, cwd=tmp_path)[1] == f"{place} {place}/bin/python\n"
    moved = root.rename(tmp_path / "moved")
    assert run(moved / "bin/pkg1") == (0, "pkg1 runs\n", "")
    assert run(moved / "bin/python", "-m", "pkg1")[2].endswith("cannot be directly executed\n")


def test_a_script_keeps_its_options_and_words(unpacked: Callable[..., Path], tmp_path: Path) -> None:
    """Options of its first line come before it, what it is called with after it; its exit code is its own."""
    root = unpacked(tmp_path / "venv")
    head = postinstall.script_head("shebang", "bin/x", "bin/python -I -W ignore")
    code = "import sys\nprint(sys.argv, sys.flags.isolated, sys.warnoptions)\nsys.exit(7)\n"
    (root / "bin/x").write_bytes(head + code.encode())
    (root / "bin/x").chmod(0o755)
    said = f"['{root}/bin/x', 'a b', '', '*'] 1 ['ignore']\n"
    assert run(root / "bin/x", "a b", "", "*") == (7, said, "")


@pytest.mark.parametrize("form", ["shebang", "first-line"])
def test_a_script_keeps_the_variables_of_its_first_line(
    form: str, unpacked: Callable[..., Path], tmp_path: Path
) -> None:
    """Those that ``env`` sets for its interpreter, and that it gets no others."""
    root = unpacked(tmp_path / ODD)
    code = "import os, sys\nprint(os.environ['A_B'], 'MINE' in os.environ, sys.flags.isolated)\n"
    for words, others in (("A_B=/x:y ", True), ("-i A_B=/x:y ", False)):
        head = postinstall.script_head(form, "bin/x", f"{words}bin/python -I")
        (root / "bin/x").write_bytes(head + code.encode())
        (root / "bin/x").chmod(0o755)
        assert run(root / "bin/x", MINE="1", PATH="/usr/bin:/bin") == (0, f"/x:y {others} 1\n", "")


@pytest.mark.parametrize("form", ["shebang", "first-line"])
def test_a_script_may_lie_anywhere(form: str, unpacked: Callable[..., Path], tmp_path: Path) -> None:
    """Deep below, beside no interpreter; and what cannot be written in this way has no such form."""
    root = unpacked(tmp_path / ODD)
    (root / "share/x").mkdir()
    (root / "share/x/y").write_bytes(
        postinstall.script_head(form, "share/x/y", "bin/python3") + b"print(1)\n"
    )
    (root / "share/x/y").chmod(0o755)
    assert run(root / "share/x/y") == (0, "1\n", "")
    for argument in ("bin/py$(x)", "../python", "/bin/python", "bin/python -c '''x'''", "bin/python \\x"):
        assert postinstall.script_head(form, "bin/x", argument) == b"", argument
        assert postinstall.portably("bin/x", "venv", form, argument, NEUTRAL)


def test_a_script_keeps_its_docstring_and_encoding(tmp_path: Path) -> None:
    """What means something only at the beginning of a script stays there, deep in the venv, too."""
    objects = Objects(tmp_path / "objects")
    scripts = {
        "bin/doc": b'# Copyright\n\n"""Usage: doc"""\nfrom __future__ import annotations\nprint(__doc__)\n',
        "bin/latin": b"# -*- coding: latin-1 -*-\nprint('\xe9')\n",
        "bin/utf": b"# -*- coding: utf-8 -*-\nimport sys\nprint(sys.prefix)\n",
    }
    root = make_venv(tmp_path / "venv")
    for path, text in scripts.items():
        (root / path).write_bytes(os.fsencode(f"#!{root}/bin/python\n") + text)
        (root / path).chmod(0o755)
    (root / "bin/awk").symlink_to(shutil.which("awk") or "")  # a program of the venv that is no Python
    (root / "bin/other").write_text(f'#!{root}/bin/awk -f\nBEGIN {{ print ENVIRON["HOME"] }}\n')
    (root / "bin/other").chmod(0o755)
    manifest = read_venv(root, objects)
    pack(manifest, objects, tmp_path / "a.tar", python=BASE, external="keep")
    shutil.rmtree(root)
    place = tmp_path / "a b"
    place.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "a.tar", "-C", place], check=True)
    assert run(place / "bin/doc") == (0, "Usage: doc\n", "")
    assert run(place / "bin/latin") == (0, "é\n", "")
    assert run(place / "bin/utf") == (0, f"{place}\n", "")
    assert run(place / "bin/other") == (0, "/nowhere\n", "")
    (tmp_path / "link").symlink_to(place / "bin/doc")
    assert run(tmp_path / "link") == (0, "Usage: doc\n", "")
    assert inventory_of(str(tmp_path / "a.tar")).manifest == manifest
    assert postinstall.complete(str(place), python=BASE).written == []


@pytest.mark.parametrize("shell", first_quick(["dash", "bash", "busybox", "ksh", "mksh", "zsh"]))
def test_the_first_lines_of_a_script_are_understood_by_every_sh(
    shell: str, unpacked: Callable[..., Path], tmp_path: Path
) -> None:
    """Whatever /bin/sh is."""
    words = [shell, "sh"] if shell == "busybox" else [shell]
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    root = unpacked(tmp_path / ODD)
    assert run(*words, root / "bin/pkg1") == (0, "pkg1 runs\n", "")
    (tmp_path / "one").symlink_to(root / "bin/pkg1")
    assert run(*words, tmp_path / "one") == (0, "pkg1 runs\n", "")
    (root / "bin/python").unlink()
    code, said, error = run(*words, tmp_path / "one")
    assert (code, said) == (127, "")
    minor = ".".join(NEEDS["version"].split(".")[:2])
    assert f"no Python at {root}/bin/python. Run: python{minor} {root}/postinstall.py\n" in error


def test_a_record_describes_what_lies_there(unpacked: Callable[..., Path], tmp_path: Path) -> None:
    """So that installers see no damage, before anything was filled in and after."""
    root = unpacked(tmp_path / "venv")
    for _ in range(2):
        record = (root / SITE / "pkg1-1.0.dist-info/RECORD").read_bytes()
        assert postinstall.record_fields((root / "bin/pkg1").read_bytes()) in record
        postinstall.complete(str(root), python=BASE)


# --------------------------------------------------------------------------- activation

POSIX = """
. "$ACTIVATE" || exit 9
cd /
printf '%s\\n' "$VIRTUAL_ENV"
python -c 'import sys; print(sys.executable); print(sys.prefix)'
printf '%s\\n' "$VIRTUAL_ENV_PROMPT"
deactivate
printf '%s\\n' "${VIRTUAL_ENV-none}" "$PATH"
"""
FISH = """
source $ACTIVATE; or exit 9
cd /
printf '%s\\n' $VIRTUAL_ENV
python -c 'import sys; print(sys.executable); print(sys.prefix)'
printf '%s\\n' $VIRTUAL_ENV_PROMPT
deactivate
set -q VIRTUAL_ENV; or echo none
string join : $PATH
"""
CSH = """
set prompt = "% "
source "$ACTIVATE:q"
if ($status) exit 9
cd /
printf '%s\\n' "$VIRTUAL_ENV:q"
python -c 'import sys; print(sys.executable); print(sys.prefix)'
printf '%s\\n' "$VIRTUAL_ENV_PROMPT:q"
deactivate
if (! $?VIRTUAL_ENV) echo none
printf '%s\\n' "$PATH:q"
"""
XONSH = """
source @ACTIVATE@
cd /
print($VIRTUAL_ENV, flush=True)
python -c 'import sys; print(sys.executable); print(sys.prefix)'
print($VIRTUAL_ENV_PROMPT)
aliases["deactivate"]()
print(${...}.get("VIRTUAL_ENV", "none"))
print(":".join($PATH))
"""
NU = """
overlay use @ACTIVATE@
cd /
print $env.VIRTUAL_ENV
python -c 'import sys; print(sys.executable); print(sys.prefix)'
print $env.VIRTUAL_ENV_PROMPT
deactivate
print ($env.VIRTUAL_ENV? | default none)
print ($env.PATH | str join :)
"""
PWSH = """
. $env:ACTIVATE
cd /
$env:VIRTUAL_ENV
python -c 'import sys; print(sys.executable); print(sys.prefix)'
$env:VIRTUAL_ENV_PROMPT
deactivate
if ($env:VIRTUAL_ENV) { $env:VIRTUAL_ENV } else { 'none' }
$env:PATH
"""
SHELLS = {
    "bash": (["bash", "--norc"], "bin/activate", POSIX),
    "dash": (["dash"], "bin/activate", POSIX),
    "zsh": (["zsh", "-f"], "bin/activate", POSIX),
    "ksh": (["ksh"], "bin/activate", POSIX),
    "mksh": (["mksh"], "bin/activate", POSIX),
    "busybox": (["busybox", "sh"], "bin/activate", POSIX),
    "fish": (["fish", "--no-config"], "bin/activate.fish", FISH),
    "tcsh": (["tcsh", "-f"], "bin/activate.csh", CSH),
    "bsd-csh": (["bsd-csh", "-f"], "bin/activate.csh", CSH),
    "xonsh": (["xonsh", "--no-rc"], "bin/activate.xsh", XONSH),
    "nu": (["nu", "--no-config-file"], "bin/activate.nu", NU),
    "pwsh": (["pwsh", "-NoProfile", "-File"], "bin/activate.ps1", PWSH),
}
"""How each is started without its user's settings, the file that it reads, and words that do so."""


def started(shell: str) -> tuple[list[str], str, str]:
    """Return what SHELLS says, with the path of the shell; skip the test if it is not there."""
    words, file, text = SHELLS[shell]
    program = shutil.which(words[0])
    if program is None:
        pytest.skip(f"there is no {words[0]}")
    return [program, *words[1:]], file, text


OWN_WAYS = {
    # what these tools' own files cannot do, wherever they lie
    ("relocatable", "dash"), ("relocatable", "mksh"), ("relocatable", "busybox"),
}  # fmt: skip


@pytest.mark.parametrize("shell", first_quick(SHELLS))
def test_activation_finds_its_place(shell: str, unpacked: Callable[..., Path], tmp_path: Path) -> None:
    """In each shell that a tool writes a file for: from anywhere, for good, and deactivate takes it back."""
    words, file, text = started(shell)
    tried = 0
    for tool in ("venv", "uv", "relocatable", "virtualenv"):
        root = unpacked(tmp_path / ODD / tool, tool)
        if not (root / file).exists() or (tool, shell) in OWN_WAYS:
            continue
        tried += 1
        ways = [(tmp_path, root / file), (root, Path(file))]
        for cwd, path in ways[: 1 if shell == "nu" else 2]:  # nu looks beside the script, not where it works
            script = tmp_path / f"script-{tool}{Path(file).suffix}"
            script.write_text(
                text.replace("@ACTIVATE@", json.dumps(str(path), ensure_ascii=False)), encoding="utf-8"
            )
            code, said, error = run(*words, script, cwd=cwd, ACTIVATE=str(path))
            assert (code, error) == (0, ""), tool
            lines = said.splitlines()
            assert lines[:3] == [str(root), f"{root}/bin/python", str(root)], tool
            assert tool in lines[3]
            assert lines[4:] == ["none", "/usr/bin:/bin"], tool
    assert tried


CAREFUL = """
set -eu
before=$PATH
begin() { . "$ACTIVATE"; }
begin
begin
test "$PATH" = "$VIRTUAL_ENV/bin:$before"
. "$OTHER"
test "$PATH" = "$VIRTUAL_ENV/bin:$before"
python -c 'import sys; print(sys.prefix)'
(. "$ACTIVATE"; python -c 'import sys; print(sys.prefix)')
deactivate
test "$PATH" = "$before"
printf 'done\\n'
"""


@pytest.mark.parametrize("shell", first_quick(["bash", "dash", "zsh", "ksh"]))
def test_activation_in_careful_scripts(shell: str, unpacked: Callable[..., Path], tmp_path: Path) -> None:
    """With set -e and -u, from a function, twice, another venv after it, in a subshell."""
    words, file, _ = started(shell)
    one, two = (unpacked(tmp_path / "a b" / name, "venv") for name in ("one", "two"))
    script = tmp_path / "script"
    script.write_text(CAREFUL, encoding="utf-8")
    code, said, error = run(*words, script, ACTIVATE=f"{one}/{file}", OTHER=f"{two}/{file}")
    assert (code, said.splitlines(), error) == (0, [str(two), str(one), "done"], "")


LOST = {
    "": '. "$ACTIVATE"\necho "status $?" "${VIRTUAL_ENV-none}"\n',
    ".fish": "source $ACTIVATE\necho status $status (set -q VIRTUAL_ENV; or echo none)\n",
    ".csh": 'set prompt = "% "\nsource "$ACTIVATE:q"\necho "status $status" none$?VIRTUAL_ENV\n',
    ".xsh": 'source @ACTIVATE@\nprint("went on")\n',
    ".nu": "overlay use @ACTIVATE@\nprint went on\n",
}
"""Words that tell what becomes of an activation, by the ending of the file."""


@pytest.mark.parametrize("shell", first_quick(name for name in SHELLS if name != "pwsh"))
def test_activation_says_that_the_interpreter_is_not_there(
    shell: str, unpacked: Callable[..., Path], tmp_path: Path
) -> None:
    """And what to do; nothing is activated, and no Python of the machine is taken for the environment's."""
    words, file, _ = started(shell)
    for tool in ("venv", "uv", "relocatable", "virtualenv"):
        root = unpacked(tmp_path / "a b" / tool, tool)
        if not (root / file).exists():
            continue
        (root / "bin/python").unlink()
        (root / "bin/python").symlink_to("/nowhere/python3")
        script = tmp_path / f"script{Path(file).suffix}"
        named = LOST[Path(file).suffix].replace("@ACTIVATE@", json.dumps(f"{root}/{file}"))
        script.write_text(named, encoding="utf-8")
        code, said, error = run(*words, script, cwd=tmp_path, ACTIVATE=f"{root}/{file}")
        assert "postinstall.py" in error, tool
        assert str(root) in error.replace("\n", "") or shell == "nu", tool
        assert (code != 0 and "went on" not in said) or said in ("status 1 none\n", "status 1 none0\n"), tool


def test_an_archive_without_an_interpreter_says_so_too(made: Path, tmp_path: Path) -> None:
    """One that nobody gave a path: its scripts wait for postinstall.py, and say so."""
    objects = Objects(tmp_path / "objects")
    pack(read_venv(make_venv(tmp_path / "venv"), objects), objects, tmp_path / "a.tar")
    (tmp_path / "place").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "a.tar", "-C", tmp_path / "place"], check=True)
    assert not os.path.lexists(tmp_path / "place/bin/python")
    assert "postinstall.py" in run(tmp_path / "place/bin/pkg1")[2]
    assert run(BASE, tmp_path / "place/postinstall.py")[0] == 0
    assert run(tmp_path / "place/bin/pkg1") == (0, "pkg1 runs\n", "")


@pytest.mark.skipif(shutil.which("unzip") is None, reason="there is no unzip")
def test_a_zip_is_alive_where_links_come_with_it(tmp_path: Path) -> None:
    """As the common unzip makes them."""
    objects = Objects(tmp_path / "objects")
    pack(read_venv(make_venv(tmp_path / "venv"), objects), objects, tmp_path / "a.zip", python=BASE)
    shutil.rmtree(tmp_path / "venv")
    subprocess.run(["unzip", "-q", tmp_path / "a.zip", "-d", tmp_path / "a b"], check=True)
    assert run(tmp_path / "a b/bin/pkg2") == (0, "pkg2 runs\n", "")
    assert run(tmp_path / "a b/bin/python3", "-c", "import pkg2; print(1)") == (0, "1\n", "")


def test_a_zip_without_its_links_needs_postinstall(tmp_path: Path) -> None:
    """The standard library makes files of them: that to the interpreter is a link again, once it ran."""
    objects = Objects(tmp_path / "objects")
    pack(read_venv(make_venv(tmp_path / "venv"), objects), objects, tmp_path / "a.zip", python=BASE)
    shutil.rmtree(tmp_path / "venv")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "there")
    assert (tmp_path / "there/bin/python").read_text() == BASE
    assert "no Python at" in run("sh", tmp_path / "there/bin/pkg1")[2]
    assert postinstall.complete(str(tmp_path / "there"), python=BASE).linked == ["bin/python"]
    assert run("sh", tmp_path / "there/bin/pkg1") == (0, "pkg1 runs\n", "")


# --------------------------------------------------------------------------- on a node


@contextmanager
def container(root: Path) -> Iterator[None]:
    """Give a root directory in which there are a system and the interpreter, and nothing else from here."""
    with ExitStack() as mounts:
        for place in ("/usr", "/bin", "/lib", "/lib64", os.path.dirname(os.path.dirname(BASE))):
            inside = root / place[1:]
            inside.parent.mkdir(parents=True, exist_ok=True)
            if os.path.islink(place):
                inside.symlink_to(os.readlink(place))
            elif os.path.isdir(place) and not inside.exists():
                mounts.enter_context(mounted(inside, "-o", "bind,ro", place))
        yield


@needs_root
@linux_only
def test_a_node_of_a_cluster_runs_it_as_another_user(unpacked: Callable[..., Path], tmp_path: Path) -> None:
    """In another root, without /proc, with an empty environment, from a tree that it cannot write."""
    root = tmp_path / "root"
    unpacked(root / "cache/filecache/10/env.tar.gz")
    (root / "job").mkdir()
    (root / "job/environment").symlink_to("/cache/filecache/10/env.tar.gz")
    cache = root / "cache"

    def on_the_node(command: str) -> tuple[int, str, str]:
        words = ["chroot", "--userspec=12345:12345", str(root), "/usr/bin/env", "-i", "/bin/bash", "-c"]
        return run(*words, f"cd /job && {command}", PATH="/usr/sbin:/usr/bin:/sbin:/bin")

    with container(root), mounted(cache, "-o", "bind,ro", str(cache)):
        code = "import sys, os, pkg2; print(os.getuid(), sys.prefix, pkg2.__file__)"
        place = "/job/environment"
        said = f"12345 {place} {place}/{SITE}/pkg2/__init__.py\n"
        assert on_the_node(f"./environment/bin/python -c '{code}'") == (0, said, "")
        assert on_the_node("./environment/bin/pkg1") == (0, "pkg1 runs\n", "")
        assert on_the_node("PATH=$PWD/environment/bin:$PATH pkg1") == (0, "pkg1 runs\n", "")
        assert on_the_node(". environment/bin/activate && cd / && pkg3") == (0, "pkg3 runs\n", "")
        code_, _, error = on_the_node("sh -c '. environment/bin/activate'")
        if os.path.basename(os.path.realpath("/bin/sh")) == "dash":  # which cannot tell without /proc
            assert (code_, "does not tell where this file lies" in error) == (1, True)
        assert on_the_node("touch environment/x")[0] != 0


# --------------------------------------------------------------------------- unpacked by us


def test_unpacking_changes_nothing_that_works_already(made: Path, tmp_path: Path) -> None:
    """Scripts and activation files stay as they are in the archive, and so do RECORDs that describe them."""
    _, report = unpack(str(made / "small.tar"), str(tmp_path / "venv"), BASE)
    assert report.written == []
    assert report.linked == ["bin/python"]
    for path, found in contents_of(made / "small.tar").items():
        if found[0] == "file":
            assert (tmp_path / "venv" / path).read_bytes() == found[1], path
    assert run(tmp_path / "venv/bin/pkg1") == (0, "pkg1 runs\n", "")


@pytest.mark.parametrize("tool", ["small", "venv", "uv"])
def test_what_was_unpacked_can_be_packed_again(tool: str, made: Path, tmp_path: Path) -> None:
    """Again and again: nothing is put before what finds its place already."""
    objects = Objects(tmp_path / "objects")
    unpack(str(made / f"{tool}.tar"), str(tmp_path / "venv"), BASE)
    pack(read_venv(tmp_path / "venv", objects), objects, tmp_path / "a.tar", python=BASE)
    ours = (METADATA, "postinstall.py")
    first, second = contents_of(made / f"{tool}.tar"), contents_of(tmp_path / "a.tar")
    assert {path: one for path, one in first.items() if not path.startswith(ours)} == {
        path: one for path, one in second.items() if not path.startswith(ours)
    }


def test_a_pth_that_names_the_venv_is_alive(tmp_path: Path) -> None:
    """Python looks for its lines from where the file lies: code in the venv is found wherever that is."""
    root = make_venv(tmp_path / "venv")
    (root / "src").mkdir()
    (root / "src/mine.py").write_text("print('mine')\n")
    (root / SITE / "mine.pth").write_text(f"# a comment\n{root}/src\nimport os; x = {str(root)!r}\n")
    (root / "etc").mkdir()
    objects = Objects(tmp_path / "objects")
    written = pack(read_venv(root, objects), objects, tmp_path / "a.tar", python=BASE)
    shutil.rmtree(root)
    assert [text for text in written.warnings if "mine.pth" in text]  # for its line of code
    (tmp_path / "a b").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "a.tar", "-C", tmp_path / "a b"], check=True)
    assert run(tmp_path / "a b/bin/python", "-c", "import mine") == (0, "mine\n", "")
