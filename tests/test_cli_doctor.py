"""``doctor``: what it finds, how it says so, and that it leaves nothing behind."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from contents import elsewhere, for_everybody, fork, mounted, needs_root

from venvflow.disk.mounts import Mount
from venvflow.steps.doctor import probes, storage

if TYPE_CHECKING:
    from cli_project import Project

    from venvflow.steps.doctor import CheckContext

pytestmark = pytest.mark.slow


NOBODY = 65_534


_SAID: dict[tuple[str, ...], str] = {}


@pytest.fixture(autouse=True)
def _tools_answer_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each tool be asked once for all tests: what it says does not change meanwhile."""
    from venvflow.steps.doctor import project, storage

    ask = project.said_by

    def said_by(world: CheckContext, argv: list[str]) -> str:
        key = (*argv, world.environ.get("UV_CACHE_DIR", ""))
        if key not in _SAID:
            _SAID[key] = ask(world, argv)
        return _SAID[key]

    monkeypatch.setattr(project, "said_by", said_by)
    monkeypatch.setattr(storage, "said_by", said_by)


def names_below(root: Path) -> set[str]:
    """Return the paths of all that lies below *root*."""
    return {str(path) for path in root.rglob("*")}


def examined(project: Project, *words: str) -> dict[str, list[dict[str, str]]]:
    """Return the checks by their names, after seeing that nothing was left and each has what it needs."""
    base = project.root.parent
    before = names_below(base)
    answer = project.run(*words, "doctor", "--json")
    assert names_below(base) == before
    checks = answer.document["checks"]
    failed = any(each["verdict"] == "fail" for each in checks)
    assert (answer.code, answer.document["ok"]) == (int(failed), not failed)
    found: dict[str, list[dict[str, str]]] = {}
    for each in checks:
        assert set(each) == {"name", "verdict", "text", "remedy"}
        assert bool(each["remedy"]) == (each["verdict"] != "ok"), each
        found.setdefault(each["name"], []).append(each)
    return found


def verdict(project: Project, name: str) -> tuple[str, str, str]:
    """Return how the worst check of a name went, what it says, and what to do."""
    rank = ("ok", "warn", "fail")
    worst = max(examined(project)[name], key=lambda each: rank.index(each["verdict"]))
    return worst["verdict"], worst["text"], worst["remedy"]


def set_in_store(project: Project, words: str) -> None:
    """Add keys to the store's part of the config."""
    text = project.config.read_text(encoding="utf-8")
    project.config.write_text(text.replace("store: {", f"store: {{{words}, "), encoding="utf-8")


# --------------------------------------------------------------------------- all is well


def test_a_healthy_project_passes(project: Project) -> None:
    """Every check is there, and none fails."""
    found = examined(project)
    assert set(found) >= {
        "config", "venvflow", "doit", "sqlite", "clock", "umask", "lock timeout", "lock files", "python",
        "builder", "project", "state", "leftovers", "store", "space", "index", "locks", "links", "uv cache",
    }  # fmt: skip
    bad = [each for checks in found.values() for each in checks if each["verdict"] == "fail"]
    assert bad == []
    version = ".".join(map(str, sys.version_info[:3]))
    assert f"cpython {version}" in found["python"][0]["text"]
    assert found["builder"][0]["text"].startswith("uv 0.")
    assert "(api, web)" in found["links"][0]["text"]


def test_each_check_is_a_line_and_its_remedy_stands_below(project: Project) -> None:
    """At most 80 columns, but for a path that is longer; with -q only what is not well."""
    answer = project.run("doctor")
    assert answer.code == 0
    assert all(line.startswith(("ok    ", "warn  ", "fail  ", "      ")) for line in answer.out.splitlines())
    assert max(len(line) for line in answer.out.splitlines() if "/" not in line) <= 80
    quiet = project.run("doctor", "-q").out
    assert "durability: none" in quiet
    assert "\n      -> Leave durability out" in quiet
    assert "ok    " not in quiet


def test_without_a_config_the_machine_is_looked_at(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a store too; nothing is made of it."""
    (tmp_path / "bare").mkdir()
    monkeypatch.setenv("VENVFLOW_STORE", str(tmp_path / "none" / "store"))
    found = examined(project, "-C", str(tmp_path / "bare"))
    assert "usual store" in found["config"][0]["text"]
    assert "made by the first doit" in found["store"][0]["text"]
    assert (found["locks"][0]["verdict"], found["links"][0]["verdict"]) == ("ok", "ok")
    assert "python" not in found


def test_a_config_that_is_named_must_be_there(project: Project) -> None:
    """A typing error is no reason to look at something else."""
    assert project.run("-c", "nothing.yaml", "doctor").code == 2


def test_a_broken_config_does_not_end_it(project: Project) -> None:
    """Its mistakes are the first finding, and the machine is looked at all the same."""
    project.config.write_text("version: 1\nvenvs: {api: {pat: x}}\n", encoding="utf-8")
    found = examined(project)
    assert (found["config"][0]["verdict"], "pat" in found["config"][0]["text"]) == ("fail", True)
    assert "locks" in found


# --------------------------------------------------------------------------- nothing is left


def test_a_probe_that_was_killed_is_cleared_by_the_next(project: Project) -> None:
    """What kill -9 leaves is hidden from git, marked as ours, and goes when doctor runs again."""
    text = (
        "import os, signal, sys\n"
        "from venvflow.steps.doctor import probes\n"
        "with probes.workshop(sys.argv[1]) as path:\n"
        "    open(path + '/object', 'x').close()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    place = project.store / "tmp"
    before = names_below(project.root.parent)
    killed = subprocess.run([sys.executable, "-c", text, str(place)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = place.iterdir()
    assert left.name.startswith(".vf-")
    assert (left / ".gitignore").read_text(encoding="utf-8").endswith("*\n")
    assert project.run("doctor").code == 0
    assert names_below(project.root.parent) == before


def test_what_a_killed_probe_left_beside_a_venv_goes(project: Project) -> None:
    """Wherever a venv belongs, also where nothing is tried this time; what is not ours stays."""
    with probes.workshop(str(project.root / "web")) as path:
        name = Path(path).parent.name
    before = names_below(project.root)
    (project.root / "web" / name).mkdir()
    project.run("doctor")
    assert names_below(project.root) == before
    (project.root / "web" / name).mkdir()
    (project.root / "web" / name / "mine").write_text("", encoding="utf-8")
    project.run("doctor")
    assert (project.root / "web" / name / "mine").exists()


def test_two_doctors_do_not_meet(tmp_path: Path) -> None:
    """Who comes second says so, and leaves the first one's directory alone."""
    with probes.workshop(str(tmp_path)) as path:
        with pytest.raises(probes.Unusable, match="just now"), probes.workshop(str(tmp_path)):
            pass
        assert os.path.isdir(path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    """A directory of that name which we did not make keeps what is in it."""
    with probes.workshop(str(tmp_path)) as path:
        name = Path(path).parent.name
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").write_text("", encoding="utf-8")
    with pytest.raises(probes.Unusable), probes.workshop(str(tmp_path)):
        pass
    assert (tmp_path / name / "mine").exists()


# --------------------------------------------------------------------------- links


def test_links_are_those_that_the_file_system_has(tmp_path: Path) -> None:
    """Between two directories of one disk there are hard links and symlinks; each is really tried."""
    with probes.workshop(str(tmp_path)) as one:
        os.mkdir(f"{one}/other")
        found = probes.links(one, f"{one}/other")
    assert {"hardlink", "symlink"} <= set(found.modes)


def test_links_do_not_cross_file_systems(project: Project, tmp_path: Path) -> None:
    """A store on another disk is warned about, with what to do."""
    with elsewhere(tmp_path) as other:
        with probes.workshop(str(tmp_path)) as here, probes.workshop(str(other)) as there:
            assert set(probes.links(here, there).modes) == {"symlink"}
        text = project.config.read_text(encoding="utf-8").replace("path: ../store", f"path: {other}/store")
        project.config.write_text(text, encoding="utf-8")
        level, said, remedy = verdict(project, "links")
        assert (level, "different file systems" in said, "symlink" in remedy) == ("warn", True, True)
        locks = examined(project)["locks"]
        assert all(
            str(place) in each["text"] for place, each in zip((other, project.root), locks, strict=True)
        )
        assert list(other.iterdir()) == []


@needs_root
@pytest.mark.parametrize(("kind", "options"), [("xfs", ["-q"]), ("btrfs", ["-q"])])
def test_reflinks_are_found_where_there_are_some(
    kind: str, options: list[str], project: Project, tmp_path: Path
) -> None:
    """On a real file system that has them they come first, as the config asks."""
    maker = shutil.which(f"mkfs.{kind}")
    if maker is None:
        pytest.skip(f"there is no mkfs.{kind} on this machine")
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run([maker, *options, str(image)], check=True, capture_output=True)
    with mounted(tmp_path / "disk", "-o", "loop", str(image)) as place:
        moved = place / "project"
        shutil.copytree(project.root, moved)
        found = examined(project, "-C", str(moved))
        assert found["links"][0]["text"].startswith("reflink (api, web); hardlink, symlink would work too")
        assert [path.name for path in place.rglob(".vf-*")] == []
        assert "store" not in {path.name for path in place.iterdir()}


def test_a_read_only_disk_is_told(project: Project, tmp_path: Path) -> None:
    """Nothing can be tried there, and nothing can be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for mounts")
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=16m", "tmpfs") as place:
        moved = place / "project"
        shutil.copytree(project.root, moved)
        (place / "store").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        found = examined(project, "-C", str(moved))
    assert found["project"][0]["text"].endswith("is on a read-only file system")
    assert (found["store"][0]["verdict"], "links" in found) == ("fail", False)


def test_a_ladder_without_links_is_told_what_would_work(project: Project) -> None:
    """Copies by mistake cost what venvflow is for."""
    set_in_store(project, "link: [copy]")
    level, said, remedy = verdict(project, "links")
    assert (level, said) == ("warn", "files are copied, though hardlink would work (api, web)")
    assert "hardlink" in remedy


def test_a_swap_that_does_not_work_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no failure: there is another way."""
    monkeypatch.setattr(probes, "exchange", lambda *_, **__: False)
    assert verdict(project, "swap")[0] == "warn"


def test_a_directory_that_cannot_be_written_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The venv that would be made there is named; the others are tried."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "/api" not in str(path) and real(path, mode))
    level, said, _ = verdict(project, "venvs")
    assert (level, said.startswith("api: nothing can be made in ")) == ("fail", True)
    assert "(web)" in verdict(project, "links")[1]


# --------------------------------------------------------------------------- locks, clock, log


def test_locks_that_do_not_work_fail(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of flock and a flock that lets everybody in are the same to us."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with probes.workshop(str(project.root)) as path:
        file = Path(path) / "file"
        file.touch()
        assert probes._locks(str(file)) is True
        for broken in (refuse, lambda *_: None):
            monkeypatch.setattr(fcntl, "flock", broken)
            assert probes._locks(str(file)) is False
            monkeypatch.undo()
    monkeypatch.setattr(probes, "_locks", lambda _: False)
    level, _, remedy = verdict(project, "locks")
    assert (level, "local file system" in remedy) == ("fail", True)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p"])
def test_a_network_file_system_is_named(kind: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks may work there, and yet not be seen by other machines."""
    monkeypatch.setattr(storage, "mount_of", lambda _: Mount(kind, "/"))
    level, said, _ = verdict(project, "locks")
    assert (level, kind in said) == ("warn", True)


def test_a_disk_with_another_clock_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that a server gives may differ from ours."""
    monkeypatch.setattr(probes, "abilities", lambda *_: probes.Abilities(locks=True, wal=False, skew=-90))
    assert "-90 s" in verdict(project, "disk clock")[1]
    assert verdict(project, "sqlite log")[0] == "fail"


def test_a_clock_that_cannot_be_right_fails(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines without a battery wake up in 1970; files from then on seem to come from the future."""
    import time

    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    level, said, _ = verdict(project, "clock")
    assert (level, said) == ("fail", "it says 1970-01-12 13:46:40 UTC")
    assert verdict(project, "lock files")[0] == "warn"
    assert "in the future" in verdict(project, "store")[1]


# --------------------------------------------------------------------------- interpreters and builders


def set_in_config(project: Project, name: str, words: str) -> None:
    """Add keys to a venv of the config."""
    text = project.config.read_text(encoding="utf-8")
    project.config.write_text(text.replace(f"{name}: {{", f"{name}: {{{words}, "), encoding="utf-8")


def test_an_interpreter_that_is_missing_fails(project: Project) -> None:
    """With the venvs that ask for it; the others' are shown."""
    set_in_config(project, "web", 'python: "3.99"')
    first, second = examined(project)["python"]
    assert (first["verdict"], "(api)" in first["text"]) == ("ok", True)
    assert (second["verdict"], second["text"]) == ("fail", "there is no Python 3.99 on this machine (web)")
    assert "uv python install 3.99" in second["remedy"]


def test_a_builder_that_is_missing_or_broken_fails(project: Project, tmp_path: Path) -> None:
    """One that is not there, one that does not run, and one that cannot install these files."""
    set_in_config(project, "web", 'build: [["{uv}", venv]]')
    assert "commands" in str(examined(project)["builder"])
    text = project.config.read_text(encoding="utf-8").replace('[["{uv}", venv]]', "poetry")
    project.config.write_text(text, encoding="utf-8")
    assert "poetry cannot install from" in str(examined(project)["builder"])
    (project.root / "web" / "poetry.lock").write_text("", encoding="utf-8")
    (project.root / "web" / "pyproject.toml").write_text("", encoding="utf-8")
    project.config.write_text(text.replace("web/requirements.txt", "web/poetry.lock"), encoding="utf-8")
    program = tmp_path / "bin" / "poetry"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(program.parent / "python"))  # beside ours there is a poetry
        patch.setenv("PATH", str(tmp_path))
        assert verdict(project, "builder")[:2] == ("fail", "poetry is not installed (web)")
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(program.parent / "python"))
        patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        level, said, _ = verdict(project, "builder")
    assert (level, "does not say its version (web)" in said) == ("fail", True)


def test_a_lock_file_that_is_missing_fails(project: Project) -> None:
    """It is said where the config names it."""
    (project.root / "web" / "requirements.txt").unlink()
    level, said, _ = verdict(project, "lock files")
    assert (level, "web:" in said, "requirements.txt" in said) == ("fail", True, True)


# --------------------------------------------------------------------------- the environment


def test_variables_that_reach_into_venvs_are_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its name; values, which may be secret, are shown for none of the tools' variables."""
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/gone")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:s3cret@example.invalid/simple")
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    found = examined(project)
    assert found["PYTHONPATH"][0]["verdict"] == "warn"
    assert found["VIRTUAL_ENV"][0]["verdict"] == "warn"
    assert found["PYTHONDONTWRITEBYTECODE"][0]["verdict"] == "ok"
    hidden, deciding = found["tool variables"]
    assert ("PIP_TARGET" in hidden["text"], "PIP_INDEX_URL" in deciding["text"]) == (True, True)
    assert "s3cret" not in str(found)
    text = project.config.read_text(encoding="utf-8")
    named = "defaults: {bytecode: none, key: {env: [PIP_INDEX_URL, PIP_FIND_LINKS, UV_FIND_LINKS]}}\n"
    project.config.write_text(text + named, encoding="utf-8")
    found = examined(project)
    assert "PIP_INDEX_URL" not in str(found["tool variables"])
    assert found["PYTHONDONTWRITEBYTECODE"][0]["verdict"] == "warn"


@pytest.mark.parametrize(
    ("mask", "level"), [(0o022, "ok"), (0o077, "ok"), (0o002, "ok"), (0o000, "warn"), (0o277, "fail")]
)
def test_the_umask_is_looked_at(mask: int, level: str) -> None:
    """One that lets everybody write makes stores that are refused; one that keeps oneself out is worse."""
    from venvflow.model import StoreConfig, TrimPolicy
    from venvflow.steps.doctor import CheckContext, CheckResult, machine

    old = os.umask(mask)
    try:
        found = machine.CHECKS["umask"](CheckContext("/", {}, 0.0, StoreConfig("/"), TrimPolicy()))
        assert isinstance(found, CheckResult)
        assert (found.verdict, os.umask(mask)) == (level, mask)
    finally:
        os.umask(old)


def test_a_check_that_cannot_look_keeps_none_from_running(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the file system is a finding like others."""
    from venvflow.steps.doctor import storage

    def refuse(_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/some/where")

    monkeypatch.setitem(storage.CHECKS, "space", refuse)
    found = examined(project)
    assert found["space"][0]["text"] == "it cannot be checked: /some/where: permission denied"
    assert found["links"][0]["verdict"] == "ok"


def test_a_timeout_that_is_none_fails(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end every step."""
    monkeypatch.setenv("VENVFLOW_LOCK_TIMEOUT", "soon")
    assert verdict(project, "lock timeout")[0] == "fail"


def test_a_doit_of_another_python_is_told(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doit of a tool manager does not know venvflow, and says so with a traceback."""
    other = tmp_path / "bin" / "doit"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n", encoding="utf-8")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{other.parent}:{os.environ['PATH']}")
    level, said, remedy = verdict(project, "doit")
    assert (level, str(other) in said, sys.prefix in remedy) == ("warn", True, True)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert verdict(project, "doit")[1] == "not on PATH"


def test_an_old_sqlite_fails(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index has strict tables."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    assert verdict(project, "sqlite")[0] == "fail"


# --------------------------------------------------------------------------- the store


@pytest.mark.parametrize("wrong", ["file", "photos", "format", "world", "mkdir"])
def test_what_is_wrong_with_a_store_is_told(
    wrong: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something else in its place, a newer one, one that everybody may write to, one that cannot be made."""
    thing = tmp_path / "thing"
    if wrong == "file":
        thing.write_text("", encoding="utf-8")
    elif wrong == "photos":
        (thing / "photos").mkdir(parents=True)
    elif wrong == "mkdir":
        monkeypatch.setattr(os, "access", lambda *_: False)
    else:
        shutil.copytree(project.store, thing)
        if wrong == "world":
            thing.chmod(0o777)
        else:
            (thing / "format").chmod(0o644)
            (thing / "format").write_text("99\n", encoding="utf-8")
    monkeypatch.setenv("VENVFLOW_STORE", str(thing))
    level, said, _ = verdict(project, "store")
    assert (level, str(thing) in said) == ("fail", True)
    assert "links" not in examined(project)


def test_a_store_that_is_read_only_is_no_failure(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hits work, and it is said what does not."""
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).endswith("objects") and real(path, mode)
    )
    level, said, _ = verdict(project, "store")
    assert (level, "read-only for you" in said) == ("warn", True)


@pytest.mark.parametrize("damage", ["garbage", "page", "newer"])
def test_an_index_that_is_no_use_is_told(damage: str, project: Project) -> None:
    """It is looked at as it is: neither made anew nor moved aside."""
    index = project.store / "index.db"
    if damage == "newer":
        with sqlite3.connect(index) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
    else:
        data = bytearray(index.read_bytes())
        data[:] = data if damage == "page" else b"garbage" * 1000
        if damage == "page":
            data[4096:8192] = bytes(range(256)) * 16
        index.write_bytes(data)
    before = index.read_bytes()
    level, _, remedy = verdict(project, "index")
    assert (level, bool(remedy), index.read_bytes() == before) == ("fail", True, True)
    index.unlink()
    assert "index" not in examined(project)


def test_too_little_space_is_told(project: Project) -> None:
    """By what trim is to keep free."""
    text = project.config.read_text(encoding="utf-8")
    project.config.write_text(f"{text}trim: {{min_free: 9000TiB}}\n", encoding="utf-8")
    level, said, _ = verdict(project, "space")
    assert (level, "less than trim.min_free: 9,000 TiB" in said.replace("9000", "9,000")) == ("warn", True)


def test_the_last_inodes_are_counted(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A venv is ten thousand files: a disk may be full with half of its bytes free."""
    real = os.statvfs(project.root)

    class Full:
        f_bavail, f_frsize, f_flag = real.f_bavail, real.f_frsize, 0
        f_files, f_favail = 1_000_000, 900

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    assert "only 900 more files" in verdict(project, "space")[1]


def test_durability_none_is_named(project: Project) -> None:
    """Whoever switched it on knows what a power cut may do."""
    assert verdict(project, "durability")[0] == "warn"
    text = project.config.read_text(encoding="utf-8")
    project.config.write_text(text.replace(", durability: none", ""), encoding="utf-8")
    assert "durability" not in examined(project)


def test_a_cache_on_another_disk_is_told(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only within one file system can uv link into venvs, and venvflow adopt what it has."""
    assert verdict(project, "uv cache")[0] == "ok"
    with elsewhere(tmp_path) as other:
        monkeypatch.setenv("UV_CACHE_DIR", str(other / "cache"))
        assert verdict(project, "uv cache")[0] == "warn"


# --------------------------------------------------------------------------- owners and leftovers


def test_what_lies_about_is_told(project: Project) -> None:
    """What a killed run left, and a venv that was put beside; both with what becomes of them."""
    from venvflow.disk.places import KEPT_SUFFIX, Place

    project.run("restore", "api")
    place = Place(str(project.root / "api" / ".venv"))
    os.makedirs(place.staging)
    assert verdict(project, "leftovers")[1] == "killed runs left something beside 1 venv"
    os.rmdir(place.staging)
    with place.staged():
        assert verdict(project, "leftovers")[:2] == ("ok", "none; a run is making api")
    for kept in (KEPT_SUFFIX, f".3{KEPT_SUFFIX}"):
        os.mkdir(place.path + kept)
        level, _, remedy = verdict(project, "leftovers")
        assert (level, place.path + kept in remedy) == ("warn", True)


def test_state_that_cannot_be_written_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a run as root: the file is named, and its owner."""
    project.run("restore", "api")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "key.json" not in str(path) and real(path, mode))
    level, said, remedy = verdict(project, "state")
    assert (level, ".venvflow/api/key.json" in said, "chown" in remedy) == ("fail", True, True)


@needs_root
def test_root_in_somebody_elses_project_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What doit makes would be root's, and the owner locked out; a store is refused unless it is trusted."""
    os.chown(project.root, NOBODY, NOBODY)
    os.chown(project.store, NOBODY, NOBODY)
    assert verdict(project, "store")[0] == "fail"
    monkeypatch.setenv("VENVFLOW_TRUST", f"{project.root}:{project.store}")
    found = examined(project)
    assert (found["project"][0]["verdict"], found["store"][0]["verdict"]) == ("warn", "warn")
    assert "you are root" in found["project"][0]["text"]


@needs_root
def test_another_user_may_ask(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who may write nowhere gets answers, no traceback, and leaves nothing."""
    with for_everybody() as place:
        for name in ("project", "store"):
            shutil.copytree(project.root.parent / name, place / name, symlinks=True)
        monkeypatch.chdir(place / "project")
        before = names_below(place)
        reading, writing = os.pipe()
        child = fork(os.fork)
        if child == 0:  # the interpreter may lie where that user cannot start it
            _ask_as_nobody(writing)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        assert said.startswith("1 ")
        assert "cannot be written by nobody; it belongs to root" in said
        assert names_below(place) == before


def _ask_as_nobody(writing: int) -> None:
    from unittest import mock

    from venvflow.cli.parser import parse
    from venvflow.cli.render import Output

    try:
        said: list[str] = []
        args = parse(["doctor"], os.environ)
        import_module("venvflow.steps.doctor")
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with mock.patch.object(Output, "answer", lambda _, text: said.append(text)):
            code: Any = args.run(args, Output(os.environ))
        os.write(writing, f"{code} {' '.join(' '.join(said).split())}".encode())
    except BaseException as error:  # noqa: BLE001 - a child of fork must not go on as a test
        os.write(writing, repr(error).encode())
    finally:
        os._exit(0)


def test_output_that_nobody_reads_is_no_error(project: Project) -> None:
    """As with ``| head -1``."""
    words = f"{sys.executable} -m venvflow doctor | head -1"
    done = subprocess.run(
        ["sh", "-c", words], cwd=project.root, capture_output=True, text=True, check=False, timeout=60
    )
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")
