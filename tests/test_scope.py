"""Where venvflow writes: in venvs, store, state and the temporary directory, and nowhere else.

Every call of the system that changes something is watched, in all processes that a command starts.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from forks import CALLS, again
from pythons import BASE

if TYPE_CHECKING:
    from cli_project import Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

CHANGING = (
    "mkdir,mkdirat,rmdir,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,chmod,fchmod,"
    "fchmodat,chown,fchown,lchown,fchownat,truncate,ftruncate,utimensat,mknod,mknodat,creat,open,openat,setxattr,"
    "fsetxattr,removexattr"
)
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+|\?)")
_TEXT = r"((?:[^\"\\]|\\.)*)"
_IN = r"<((?:[^>\\]|\\.)*)>"
_PATH = re.compile(rf"(?:(?:AT_FDCWD|\d+){_IN}, )?\"{_TEXT}\"|\d+{_IN}")
_READING = re.compile(r"O_RDONLY|O_PATH")


def changed(trace: str, cwd: str) -> set[str]:
    """Return the absolute paths that the calls of a *trace* changed, made or opened for writing.

    Programs begin in *cwd*; those that go elsewhere before they start others are not followed.
    """
    found = set()
    where: dict[str, str] = {}
    for line in trace.splitlines():
        call = _CALL.match(line)
        if call is None or call[4].startswith("-"):
            continue
        pid, name, words = call[1], call[2], call[3]
        here = where.get(pid, cwd)
        paths = [
            opened or os.path.normpath(os.path.join(directory or here, path))
            for directory, path, opened in _PATH.findall(words)
        ]
        if name in ("chdir", "fchdir"):
            where[pid] = paths[0]
        elif not (name.startswith("open") and _READING.search(words) and "O_CREAT" not in words):
            # The first path of these two is what is linked to, and stays as it is.
            found.update(paths[-1:] if name.startswith(("link", "symlink")) else paths)
    return found


def outside(paths: set[str], *allowed: str) -> set[str]:
    """Return those of *paths* that lie in none of the *allowed* directories."""
    real = tuple(os.path.realpath(each) for each in allowed)
    devices = ("/dev/null", "/dev/tty", "/dev/pts", "pipe:", "socket:", "anon_inode:", "/proc/", "/memfd:")
    within = (*devices, *(f"{each}/" for each in real))
    return {path for path in paths if path not in real and not path.startswith(within)}


def watched(project: Project, words: list[str]) -> set[str]:
    """Run a program in the project, and return what it changed."""
    log = project.root.parent / "trace"
    temporary = project.root.parent / "temporary"
    temporary.mkdir(exist_ok=True)
    own = {
        "TMPDIR": str(temporary),
        "HOME": str(project.root.parent / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    strace = ["strace", "-f", "--seccomp-bpf", "-y", "-qq", "-s", "4096", "-o", str(log)]
    done = subprocess.run(
        [*strace, "-e", f"trace={CHANGING},chdir,fchdir", *words],
        cwd=project.root, env={**os.environ, **own}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "ptrace" in done.stderr and not log.stat().st_size:
        pytest.skip(f"strace may not watch here: {done.stderr.strip()}")
    assert done.returncode in (0, 1, 6), done
    return changed(log.read_text(encoding="utf-8", errors="replace"), str(project.root))


def test_every_command_writes_only_where_it_says(ready: Project) -> None:
    """What was asked to be written elsewhere (an archive, a copy) is there, and nothing besides."""
    from cli_project import command

    base = ready.root.parent
    wrote = 0
    for words in CALLS.values():
        again(ready)
        paths = watched(ready, [*command(), *words.split()])
        names = ("project", "store", "temporary", "out", "unpacked", "exported", "report.html")
        there = [base / name for name in names]
        beside = {str(base)} | {path for path in paths if re.search(r"/\.vf-[^/]*(/|$)", path)}
        assert outside(paths, *map(str, there)) - beside == set(), words
        wrote += bool(paths)
    assert wrote > 5


def test_who_only_looks_changes_nothing_but_what_sqlite_keeps_beside_its_database(ready: Project) -> None:
    """Questions leave project and store as they are."""
    from cli_project import command

    for name in ("status", "explain", "list", "stats", "diff", "version", "schema", "completion"):
        paths = watched(ready, [*command(), *CALLS[name].split()])
        assert {path for path in outside(paths) if not re.search(r"index\.db-(wal|shm)$", path)} == set(), (
            name
        )


def test_a_run_of_doit_writes_only_where_it_says(ready: Project) -> None:
    """From nothing to everything: build, share, pack, store, trim."""
    from cli_project import command

    text = ready.config.read_text(encoding="utf-8")
    ready.config.write_text(text.replace("web: {", "web: {pack: {format: tar.gz}, "), encoding="utf-8")
    shutil.rmtree(ready.root / "web" / ".venv")
    (ready.root / "dodo.py").write_text("from venvflow.tasks import *\n", encoding="utf-8")
    paths = watched(ready, [str(Path(command()[0]).parent / "doit")])
    base = ready.root.parent
    caches = (os.environ["UV_CACHE_DIR"], str(base / "home" / ".local" / "share" / "uv"))
    assert outside(paths, str(ready.root), str(ready.store), str(base / "temporary"), *caches) == set()
    assert any(path.startswith(f"{ready.root}/web/.venv/") for path in paths)


def test_the_watch_sees_what_it_must(ready: Project) -> None:
    """A program that does write elsewhere is caught, whatever call it uses and however it names the path."""
    base = ready.root.parent
    script = (
        "import os; os.chdir('..'); fd = os.open('.', os.O_RDONLY); os.mkdir('one', dir_fd=fd);"
        "os.symlink('x', 'two', dir_fd=fd); open('three', 'w').close(); os.rename('three', 'four');"
        "os.chmod('one', 0o700); os.utime('one'); os.unlink('two', dir_fd=fd); os.link('four', 'five')"
    )
    paths = watched(ready, [BASE, "-B", "-I", "-c", script])
    names = {os.path.relpath(path, base) for path in outside(paths, str(ready.root))}
    assert {"one", "two", "four", "five"} <= {os.path.basename(name) for name in names}
