"""The catalogue of faults: each is told in four parts, with its exit code, and nothing is lost or changed.

A message says what failed, where, what state things are in, and what to do next. The faults are made to the
real product: to its config, to its surroundings, to the calls that it makes of the system.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from contents import mounted, needs_root, open_descriptors, picture
from forks import Said, forked

from venvflow.disk import locks, objects

if TYPE_CHECKING:
    from cli_project import Answer, Project

pytestmark = pytest.mark.slow


def told(said: Said | Answer, code: int, *parts: str) -> None:
    """Assert that a command failed with one message: what, where, state, hint; and without a traceback."""
    assert said.code == code, said
    assert said.out == "", said
    messages = [part for part in re.split(r"^venvflow: ", said.err, flags=re.MULTILINE) if part]
    failure = " ".join(message for message in messages if not message.startswith("warning: "))
    assert "Traceback" not in failure
    assert "should not happen" not in failure
    assert len(parts) == 4
    for part in parts:
        assert re.search(part, failure, re.DOTALL), f"{part!r} is not in {failure!r}"


# --------------------------------------------------------------------------- the config


class Wrong(NamedTuple):
    """A config that is wrong: its bytes, what is said of which lines, and the exit code."""

    name: str
    text: str | bytes
    says: tuple[str, ...]
    code: int = 2


def one(line: str, path: str = "api/.venv") -> str:
    """Return a config of one venv that has *path* at line 5, and *line* at line 6."""
    head = "version: 1\nstore: {path: ../store}\nvenvs:\n  api:\n"
    return f"{head}    path: {path}\n    {line}\n    locks: [api/requirements.txt]\n"


def nested(depth: int) -> str:
    """Return lists in lists, so many deep."""
    return f"venvs: {'[' * depth}{']' * depth}\n"


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 11))

CONFIGS = (
    Wrong("unknown keys", one("lokcs: [x]"), (":6: venvs.api: unknown key 'lokcs'; did you mean 'locks'",)),
    Wrong("wrong types", one("restore: [1]"), (":6: venvs.api.restore: expected",)),
    Wrong("missing keys", "venvs:\n  api: {path: x}\n", (":2: venvs.api: .*locks",)),
    Wrong(
        "several problems at once",
        "version: 1\nstoer: {}\nvenvs:\n  api: {path: 3.10, lokcs: [x]}\ntrim: {keep: many}\n",
        (":2: .*'store'", ":4: venvs.api.path: .*in quotes", ":4: .*'locks'", ":5: trim.keep: expected"),
    ),
    Wrong("duplicate keys", one("path: other/.venv"), (":6: .*path.*line 5",)),
    Wrong("another version", "version: 2\nvenvs: {}\n", (":1: version: ",)),
    Wrong("a version that is none", "version: one\nvenvs: {}\n", (":1: version: ",)),
    *(
        Wrong(f"{written} where text belongs", one(f"python: {written}"), (f':6: .*in quotes, "{written}"',))
        for written in ("3.10", "3.1", "010", "1:30", "on", "no", "2024-01-01", "0x1f")
    ),
    Wrong("a tag of Python", one("check: !!python/object/apply:os.system [touch PWNED]"), (":6: .*tag",)),
    Wrong("a million laughs", f"{LAUGHS}venvs: *a10\n", (r":\d+: aliases make",)),
    Wrong("a list that contains itself", "venvs: &a [*a]\n", (":1: the alias .a lies inside",)),
    Wrong("nesting of 100", nested(100), (":1: .*nested",)),
    Wrong("nesting of 50,000", nested(50_000), (":1: .*nested",)),
    Wrong("more than a mebibyte", "#" * (1 << 20) + "\nvenvs: {}\n", (":1: the file is larger",)),
    Wrong("nothing", "", (":1: the file is empty",)),
    Wrong("a list at the top", "- venvs\n", (":1: expected a mapping",)),
    Wrong("two documents", "venvs: {}\n---\nvenvs: {}\n", (":2: a second document",)),
    Wrong("a tab", "venvs:\n\tapi: {}\n", (":2: .*[Tt]ab",)),
    Wrong("no text", b"venvs: {}\n# \xff\n", (":2: this is not UTF-8",)),
    Wrong("a byte order mark", b"\xef\xbb\xbfvenvs: {}\n", (":1: .*byte order mark",)),
    Wrong("a NUL", b"venvs: {}\n\0", (":2: there is a NUL byte",)),
    Wrong("a NUL in quotes", 'venvs: {}\nexclude: ["\\0"]\n', (":2: exclude",)),
    Wrong("broken YAML", "venvs: {api: [\n", (":2: this is not YAML",)),
    Wrong("a pattern that never ends", one("exclude: ['*a*a*a*a*a*a*a*a*a*ab']"), (":6: .*too many stars",)),
    Wrong("many stars", one("exclude: ['**/a/**/a/**/a/**/a/**/a/**/a/**']"), (":6: .*too many stars",)),
    Wrong("an undefined variable", one("x: y", "${NOBODY_SET_THIS}/.venv"), (":5: .*NOBODY_SET_THIS",)),
    Wrong("an empty variable", one("x: y", "${EMPTY}/.venv"), (":5: .*EMPTY",)),
    Wrong("a default for a variable", one("x: y", "${HOME:-x}/.venv"), (":5: ",)),
    *(
        Wrong(f"{path} as the path of a venv", one("pin: false", f'"{path}"'), (":5: venvs.api.path: ",), 6)
        for path in (
            "/", "~", ".", "..", "../project", "../store", "../store/objects", "a/../..", "api",
            ".venvflow", "/usr/../..",
        )
    ),
    Wrong(
        "one path for two venvs",
        f"{one('pin: false')}  web: {{path: api/x/../.venv, locks: [web/requirements.txt]}}\n",
        (":8: venvs.web.path: .*'api'",),
        6,
    ),
    Wrong(
        "a venv in a venv",
        f"{one('pin: false')}  web: {{path: api/.venv/lib, locks: [web/requirements.txt]}}\n",
        (":8: venvs.web.path: .*'api'",),
        6,
    ),
)  # fmt: skip


@pytest.mark.parametrize("wrong", CONFIGS, ids=lambda wrong: wrong.name)
def test_a_config_that_is_wrong_is_told_with_file_and_line(
    wrong: Wrong, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who only looks and by who acts, all at once, quickly; nothing is run and nothing is changed."""
    monkeypatch.setenv("EMPTY", "")
    project.config.write_bytes(wrong.text if isinstance(wrong.text, bytes) else wrong.text.encode())
    before = project.hashes()
    for words in ("status", "restore api", "trim"):
        for says in wrong.says:
            told(
                project.run(*words.split()),
                wrong.code,
                f"venvflow.yaml{says}",
                re.escape(str(project.config)),
                r"Nothing .*(?:changed|done)",
                "Fix|Give each venv",
            )
    assert project.hashes() == before


def test_a_config_is_read_once(project: Project) -> None:
    """What is written into it while a command works counts for the next one."""
    text = project.config.read_text(encoding="utf-8")

    def change_it() -> None:
        import venvflow.config as configs

        real = vars(configs)["read"]

        def read_and_change(file: str) -> Any:
            found = real(file)
            project.config.write_text("broken: [", encoding="utf-8")
            return found

        vars(configs)["read"] = read_and_change

    said = forked("restore api", first=change_it)
    assert (said.code, "hit" in said.out) == (0, True), said
    assert forked("status").code == 2
    project.config.write_text(text, encoding="utf-8")
    assert forked("status").code == 0


# --------------------------------------------------------------------------- the system


class Fault(NamedTuple):
    """Something that the system refuses: what is done to the process, the words, and what must be said."""

    name: str
    words: str
    make: Callable[[], object]
    what: str
    where: str
    state: str
    hint: str
    code: int = 3


def failing(module: Any, name: str, code: int, *, only: str = "", once: bool = False) -> Callable[[], None]:
    """Return what makes a function fail with an errno; for paths with *only* in them, or just *once*."""
    real = getattr(module, name)
    failed: list[str] = []

    def fails(*args: Any, **kwargs: Any) -> Any:
        if only in str(args) and not (once and failed):
            failed.append(name)
            raise OSError(code, os.strerror(code), *[arg for arg in args if isinstance(arg, str)][:1])
        return real(*args, **kwargs)

    return lambda: setattr(module, name, fails)


def few_files() -> None:
    """Allow the process hardly any more open files."""
    used = open_descriptors()
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2, used + 2))


FAULTS = (
    Fault(
        "no space while a venv is restored", "restore api", failing(os, "mkdir", errno.ENOSPC, only="new"),
        "No space left", "api", "unchanged|still there|whole|Nothing", "[Ff]ree space",
    ),
    Fault(
        "the quota is used up", "restore api", failing(os, "mkdir", errno.EDQUOT, only="new"),
        "quota", "api", "unchanged|still there|whole|Nothing", "[Ff]ree space|quota",
    ),
    Fault(
        "no space while a venv is stored", "store web --force",
        failing(objects, "sync_file_system", errno.ENOSPC),
        "No space left", "web|store", "unchanged|still there|whole|Nothing|as it was", "[Ff]ree space",
    ),
    Fault(
        "the disk fails while a venv is stored", "store web --force",
        failing(objects, "sync_file_system", errno.EIO),
        "Input/output error", "web|store", "unchanged|still there|whole|Nothing|as it was", "run|disk",
    ),
    Fault(
        "a project that cannot be written", "restore api",
        failing(os, "mkdir", errno.EROFS, only=".venvflow"),
        "Read-only file system", ".venvflow", "whole", "Make it writable",
    ),
    Fault(
        "too many open files", "restore api", few_files,
        "Too many open files", "", "still there|whole|Nothing|No venv|unchanged", "ulimit|again",
    ),
    Fault(
        "a file system without locks", "restore api", failing(fcntl, "flock", errno.ENOLCK),
        "no locks|cannot be locked", "lock|store", "Nothing", "another|local|store",
    ),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_the_system_refuses_is_told(fault: Fault, project: Project) -> None:
    """The venvs stay as they were, nothing half-made is left, and afterwards the same words succeed."""
    project.make_foreign_venv("web")
    project.config.write_text(project.config.read_text().replace("durability: none", "durability: full"))
    venvs = picture(project.root)
    told(forked(fault.words, first=fault.make), fault.code, *fault[3:7])
    after = {name: item for name, item in picture(project.root).items() if ".venvflow" not in name}
    assert after == venvs
    assert forked(fault.words).code in (0, 1)


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS])
def test_where_no_links_can_be_made_files_are_copied(code: int, project: Project) -> None:
    """Without an error, and the answer says so."""
    said = forked("restore api", first=failing(os, "link", code))
    assert (said.code, said.err) == (0, "")
    assert "by copy" in said.out
    assert forked("status api --json").code == 0
    assert all(path.stat().st_nlink == 1 for path in project.site.rglob("*.py"))


def test_a_sync_that_fails_is_not_tried_again(project: Project) -> None:
    """The system may report such a failure only once: what was not synced must not be published."""
    project.make_foreign_venv("web")
    project.config.write_text(project.config.read_text().replace("durability: none", "durability: full"))
    said = forked("store web --force", first=failing(objects, "sync_file_system", errno.EIO, once=True))
    assert said.code == 3, said
    assert [each["venv"] for each in project.run("list", "--json").document["snapshots"]] == ["api"]


# --------------------------------------------------------------------------- locks


@pytest.mark.parametrize("words", ["restore api", "erase --yes", "trim"])
def test_who_holds_a_lock_is_named(words: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its number and its command line; the lock ends with it, and nothing has to be deleted."""
    monkeypatch.setenv("VENVFLOW_LOCK_TIMEOUT", "0")
    with locks.exclusive(f"{project.store}/locks/store", timeout=0, what="the store"):
        said = forked(words)
    told(
        said, 5, rf"the store is locked by .*{os.getpid()}", re.escape(f"{project.store}/locks/store"),
        "nothing was changed", "run again, .*wait longer with VENVFLOW_LOCK_TIMEOUT=",
    )  # fmt: skip
    assert f"pid {os.getpid()} ({os.path.basename(sys.argv[0])}" in said.err
    assert forked(words).code == 0


def test_who_waits_says_for_whom(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """After two seconds, once; and goes on as soon as the lock is free."""
    monkeypatch.setenv("VENVFLOW_LOCK_TIMEOUT", "30")
    from cli_project import command

    with locks.exclusive(f"{project.store}/locks/store", timeout=0, what="the store"):
        waiting = subprocess.Popen(
            [*command(), "trim"], cwd=project.root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert waiting.stderr is not None
        line = waiting.stderr.readline()
    assert re.match(rf"venvflow: waiting for the store, which is locked by .*{os.getpid()}", line)
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, err) == (0, "")
    assert "dropped" in out


# --------------------------------------------------------------------------- real file systems


@needs_root
@pytest.mark.root
def test_a_full_disk_stops_a_step_and_trim_works_without_a_byte_free(project: Project) -> None:
    """The step changes nothing and says how to get room; trim gives room when nothing at all is free."""
    shutil.move(project.store, f"{project.store}.before")
    with mounted(project.store, "-t", "tmpfs", "-o", "size=8m", "none"):
        shutil.copytree(f"{project.store}.before", project.store, dirs_exist_ok=True)
        venv = project.make_foreign_venv("web")
        before = picture(venv)
        filler = project.store / "tmp" / "filler"
        _fill(filler)
        told(
            forked("store web --force"),
            3,
            "[Nn]o space left|I/O",
            "store|web",
            "whole",
            f"mounted at {project.store} is full.*trim",
        )
        assert {name: item for name, item in picture(venv).items() if name in before} == before
        text = project.config.read_text(encoding="utf-8").replace(
            "api: {path: api/.venv, locks: [api", "api: {path: a/.venv, locks: [web"
        )
        project.config.write_text(f"{text}trim: {{max_size: 1B, keep_per_venv: 0}}\n", encoding="utf-8")
        said = forked("trim")
        assert (said.code, "dropped 1 of 1 snapshot" in said.out) == (0, True), said
        filler.unlink(missing_ok=True)


@needs_root
@pytest.mark.root
def test_a_store_that_is_read_only_gives_venvs_and_takes_none(project: Project) -> None:
    """Restoring works, by copies; what would have to write says so, and the venv is whole."""
    shutil.move(project.store, f"{project.store}.before")
    with mounted(project.store, "-t", "tmpfs", "-o", "size=64m", "none"):
        shutil.copytree(f"{project.store}.before", project.store, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", project.store], check=True)
        said = forked("restore api")
        assert (said.code, "by copy" in said.out) == (0, True), said
        venv = project.make_foreign_venv("web")
        before = picture(venv)
        told(
            forked("store web --force"), 3, "[Rr]ead-only", "store", "its own|unchanged|Nothing", "store|writ"
        )
        assert picture(venv) == before
        for words in ("status", "list", "stats", "verify --full", "explain api", "trim --dry-run", "doctor"):
            said = forked(words)
            assert said.code in (0, 1), said
        told(forked("trim"), 3, "[Rr]ead-only|cannot be locked", "store", "Nothing", "owner|writ|store")


def _fill(path: Path) -> None:
    """Write until nothing more can be written."""
    with path.open("wb", 0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - it ends in no other way
