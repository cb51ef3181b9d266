"""``squish`` and ``unsquish``: any venv by its path, shared and taken back, with nothing of it changed."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from contents import (
    KILLED,
    NOBODY,
    dies_at,
    elsewhere,
    for_everybody,
    in_child,
    killed_at_each,
    needs_root,
    objects_in,
    shown,
    time_of,
)
from machines import FILES, Machine, machine, other_python

from venvflow.cli import main
from venvflow.disk import scan
from venvflow.disk.places import RECEIPT, read_receipt
from venvflow.disk.scan import Content
from venvflow.state import survey

pytestmark = pytest.mark.slow

__all__ = ["machine"]


def modes(venv: Path) -> dict[str, int]:
    """Return the permissions of all files, but for receipt and bytecode."""
    return {path: (venv / path).lstat().st_mode for path in shown(venv)}


# --------------------------------------------------------------------------- sharing


def test_two_venvs_share_what_they_have_in_common(machine: Machine) -> None:
    """One inode for each file; nothing of what the venvs hold changes, and they run."""
    venvs = [machine.venv("a"), machine.venv("b")]
    before = [shown(venv) for venv in venvs]
    machine.done("squish", *venvs)
    assert [shown(venv) for venv in venvs] == before
    sites = [machine.site(venv) for venv in venvs]
    for path in ("demo/__init__.py", "demo/data.py", "demo/table.bin"):
        assert os.path.samefile(sites[0] / path, sites[1] / path), path
    for path in ("demo/empty.py", "demo-1.0.dist-info/RECORD"):
        assert (sites[0] / path).stat().st_nlink == 1, path
    assert all(machine.works(venv) for venv in venvs)


def test_what_is_reported_as_saved_is_what_du_says(machine: Machine) -> None:
    """Before and after, of the venvs and the store, to the block."""
    venvs = [machine.venv(name) for name in "abc"]
    before = machine.du(*venvs)
    disk = machine.done("squish", *venvs, "--json").document["disk"]
    assert disk["before"] == before
    assert disk["after"] == machine.du(*venvs, machine.store)
    assert disk["saved"] == disk["before"] - disk["after"]
    assert disk["elsewhere"] == 0


def test_a_second_time_only_looks(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One walk: no file is read, nothing is asked, nothing is written."""
    venv = machine.venv("a")
    machine.done("squish", venv)
    reads: list[str] = []
    monkeypatch.setattr("venvflow.state.survey.read", lambda path, **_: reads.append(path))
    monkeypatch.setattr("venvflow.disk.interpreters.resolve", lambda *_, **__: pytest.fail("it was asked"))
    before = {path: path.lstat().st_ctime_ns for path in venv.rglob("*")}
    (answer,) = machine.done("squish", venv, "--json").document["venvs"]
    assert (answer["did"], reads) == ("kept", [])
    assert {path: path.lstat().st_ctime_ns for path in venv.rglob("*")} == before


def test_what_comes_later_is_shared_the_next_time_and_the_rest_not_read_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that was installed since."""
    venvs = [machine.venv("a"), machine.venv("b")]
    machine.done("squish", *venvs)
    for venv in venvs:
        (machine.site(venv) / "more.py").write_bytes(b"MORE = 1\n")
    read: list[str] = []
    real = scan.read

    def reading(path: str, **how: Any) -> Content:
        read.append(path)
        return real(path, **how)

    monkeypatch.setattr(survey, "read", reading)
    machine.done("squish", *venvs)
    names = {os.path.basename(path) for path in read}
    assert names == {"more.py", "RECORD"}
    assert os.path.samefile(*(machine.site(venv) / "more.py" for venv in venvs))


def test_another_way_of_sharing_is_not_what_was_done(machine: Machine) -> None:
    """A venv that was shared with a higher limit is shared anew."""
    venv = machine.venv("a")
    machine.done("squish", venv, "--min-size", "1MiB")
    assert (machine.site(venv) / "demo/table.bin").stat().st_nlink == 1
    machine.done("squish", venv)
    assert (machine.site(venv) / "demo/table.bin").stat().st_nlink == 2


def test_excluded_files_are_left_alone(machine: Machine) -> None:
    """They keep inode, mode and time."""
    venv = machine.venv("a")
    path = machine.site(venv) / "demo/table.bin"
    before = looks(path.parent)[path]
    machine.done("squish", venv, "--exclude", "*.bin")
    assert looks(path.parent)[path] == before
    assert (machine.site(venv) / "demo/data.py").stat().st_nlink == 2


def test_a_stranger_keeps_its_bytes_its_mode_and_its_time(machine: Machine) -> None:
    """As uv's cache, which links its files into venvs; the report names the bytes that it has, too."""
    venv, cache = machine.venv("a"), machine.root / "cache"
    cache.mkdir()
    site = machine.site(venv)
    before = {}
    for name in ("data.py", "table.bin"):
        (site / "demo" / name).chmod(0o664)
        os.utime(site / "demo" / name, (5, 5))
        os.link(site / "demo" / name, cache / name)
        st = (cache / name).lstat()
        before[name] = (st.st_ino, st.st_mode, st.st_mtime_ns, (cache / name).read_bytes())
    (answer,) = machine.done("squish", venv, "--json").document["venvs"]
    for name, expected in before.items():
        st = (cache / name).lstat()
        assert (st.st_ino, st.st_mode, st.st_mtime_ns, (cache / name).read_bytes()) == expected
    assert answer["figures"]["adopted_bytes"] == 0
    assert (site / "demo/data.py").lstat().st_mtime_ns == time_of(FILES["demo/data.py"])


def looks(root: Path) -> dict[Path, tuple[int, ...]]:
    """Return all that a stat tells of every path, but for the time of reading, which reading moves."""
    found = {path: path.lstat() for path in root.rglob("*")}
    return {
        path: (st.st_ino, st.st_mode, st.st_nlink, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
        for path, st in found.items()
    }


def test_a_dry_run_says_what_du_will_say_of_the_venvs_and_writes_nothing(machine: Machine) -> None:
    """No store is made; the bytes are those that leave the venvs, less what becomes their first copy."""
    venvs = [machine.venv(name) for name in "ab"]
    before = looks(machine.root)
    answer = machine.done("squish", "--dry-run", *venvs, "--json").document
    assert looks(machine.root) == before
    first, second = (each["figures"] for each in answer["venvs"])
    assert first["files"] == 0
    machine.done("squish", *venvs)
    shared = [path for path in venvs[1].rglob("*") if path.is_file() and path.lstat().st_nlink > 1]
    sources = [path for path in shared if path.suffix != ".pyc"]
    assert second["files"] == len(sources)
    assert second["bytes"] == sum(path.stat().st_blocks * 512 for path in sources)


def test_every_file_is_named_when_asked(machine: Machine) -> None:
    """With ``-v``, what became of it."""
    venv = machine.venv("a")
    said = machine.done("squish", venv, "-v").err
    assert f"{machine.site(venv)}/demo/table.bin: hardlink" in said
    assert f"{machine.site(venv)}/demo/empty.py: private" in said


def test_symlinks_are_made_when_asked_for_and_taken_back(machine: Machine) -> None:
    """The store's object stands behind the name, until unsquish."""
    venv = machine.venv("a")
    before, rights = shown(venv), modes(venv)
    machine.done("squish", venv, "--link", "symlink")
    assert os.readlink(machine.site(venv) / "demo/data.py").startswith(str(machine.store))
    assert machine.works(venv)
    machine.done("unsquish", venv)
    shutil.rmtree(machine.store)
    assert (shown(venv), modes(venv)) == (before, rights)
    assert machine.works(venv)


def test_links_that_lead_out_dangle_or_go_round_stay_as_they_are(machine: Machine) -> None:
    """They are never followed."""
    venv = machine.venv("a")
    for name, target in (("out", "/etc/hostname"), ("dangling", "nowhere"), ("round", "round")):
        (machine.site(venv) / name).symlink_to(target)
    before = shown(venv)
    machine.done("squish", venv)
    assert shown(venv) == before


def test_modes_that_differ_become_one(machine: Machine) -> None:
    """Only the executable bit is content."""
    venvs = [machine.venv("a"), machine.venv("b")]
    (machine.site(venvs[0]) / "demo/table.bin").chmod(0o664)
    (machine.site(venvs[1]) / "demo/table.bin").chmod(0o755)
    machine.done("squish", *venvs)
    one, two = (machine.site(venv) / "demo/table.bin" for venv in venvs)
    assert not os.path.samefile(one, two)
    assert (one.stat().st_mode & 0o777, two.stat().st_mode & 0o777) == (0o444, 0o555)


# --------------------------------------------------------------------------- bytecode


def compiled(venv: Path, mode: str) -> None:
    """Compile a venv's modules as its interpreter would, in one of the ways there are."""
    words = [f"{venv}/bin/python", "-m", "compileall", "-q", "--invalidation-mode", mode, f"{venv}/lib"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(words, check=True, env=environ)


@pytest.mark.parametrize("state", ["none", "timestamp", "checked-hash", "unchecked-hash"])
def test_bytecode_is_shared_whatever_there_was(machine: Machine, state: str) -> None:
    """It is the same file in all venvs, valid, and no import makes it anew."""
    venvs = [machine.venv("a"), machine.venv("b")]
    if state != "none":
        for venv in venvs:
            compiled(venv, state)
    machine.done("squish", *venvs)
    one, two = (next(machine.site(venv).glob("demo/__pycache__/data.*.pyc")) for venv in venvs)
    assert os.path.samefile(one, two)
    assert one.read_bytes()[4:8] == b"\0\0\0\0"  # valid by its time, which is the source's
    said = subprocess.run(
        [venvs[0] / "bin/python", "-v", "-c", "import demo"], capture_output=True, text=True, check=True
    ).stderr
    assert f"matches {machine.site(venvs[0])}/demo/data.py" in said


def test_each_interpreter_has_its_own_bytecode(machine: Machine) -> None:
    """Two versions share sources, and neither loses what it compiled."""
    venvs = [machine.venv("a"), machine.venv("b", other_python())]
    machine.done("squish", *venvs)
    caches = [{path.name for path in machine.site(venv).glob("demo/__pycache__/*")} for venv in venvs]
    assert caches[0]
    assert caches[1]
    assert not caches[0] & caches[1]
    assert os.path.samefile(*(machine.site(venv) / "demo/data.py" for venv in venvs))


def test_sources_that_do_not_compile_are_left_alone_and_counted(machine: Machine) -> None:
    """As the templates that some packages bring."""
    venv = machine.venv("a", files={**FILES, "demo/template.py": b"class {{ name }}:\n"})
    answer = machine.done("squish", venv, "--json")
    (record,) = answer.document["venvs"]
    assert record["figures"]["uncompilable"] == 1
    assert "1 of its sources do not compile" in answer.err
    assert not list(machine.site(venv).glob("demo/__pycache__/template*"))


# --------------------------------------------------------------------------- taking back


def test_unsquish_gives_everything_back(machine: Machine) -> None:
    """Bytes, modes and targets; then the store can be deleted, and nothing tells that it was there."""
    venvs = [machine.venv("a"), machine.venv("b")]
    before, rights = [shown(venv) for venv in venvs], [modes(venv) for venv in venvs]
    machine.done("squish", *venvs)
    machine.done("unsquish", *venvs)
    shutil.rmtree(machine.store)
    assert [shown(venv) for venv in venvs] == before
    assert [modes(venv) for venv in venvs] == rights
    for venv in venvs:
        assert machine.works(venv)
        assert not (venv / RECEIPT).exists()
        assert all(path.lstat().st_nlink == 1 for path in venv.rglob("*") if path.is_file())


@pytest.mark.parametrize("link", ["hardlink", "symlink", "copy"])
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_unsquish_gives_back_modes_that_nobody_else_has(machine: Machine, link: str, umask: int) -> None:
    """Those of two venvs that differ, whatever the umask is by then, and squished twice."""
    venvs = [machine.venv("a"), machine.venv("b")]
    for venv, (plain, secret, program) in zip(
        venvs, ((0o664, 0o600, 0o700), (0o644, 0o640, 0o750)), strict=True
    ):
        for path in machine.site(venv).rglob("*.*"):
            if path.is_file():
                path.chmod(plain)
        (machine.site(venv) / "demo/table.bin").chmod(secret)
        (machine.site(venv) / "demo-1.0.dist-info/RECORD").chmod(secret)
        (venv / "bin/demo").chmod(program)
    os.link(machine.site(venvs[0]) / "demo-1.0.dist-info/RECORD", machine.root / "stranger")
    rights = [modes(venv) for venv in venvs]
    machine.done("squish", *venvs, "--link", link)
    (machine.site(venvs[0]) / "late.txt").write_bytes(b"came later")
    (machine.site(venvs[0]) / "late.txt").chmod(0o604)
    rights[0][str((machine.site(venvs[0]) / "late.txt").relative_to(venvs[0]))] = 0o100604
    machine.done("squish", *venvs, "--link", link)
    before = os.umask(umask)
    try:
        machine.done("unsquish", *venvs)
    finally:
        os.umask(before)
    assert [modes(venv) for venv in venvs] == rights


def test_unsquish_works_although_the_store_is_gone(machine: Machine) -> None:
    """Two venvs that had their files in common have not any more, and may be written to."""
    venvs = [machine.venv("a"), machine.venv("b")]
    machine.done("squish", *venvs)
    shutil.rmtree(machine.store)
    assert all(machine.works(venv) for venv in venvs)
    machine.done("unsquish", *venvs)
    for venv in venvs:
        st = (machine.site(venv) / "demo/table.bin").stat()
        assert (st.st_nlink, st.st_mode & 0o200) == (1, 0o200)


@pytest.mark.parametrize("function", ["open", "rename", "unlink", "chmod", "utime"])
def test_a_killed_unsquish_leaves_a_venv_that_works_and_the_next_finishes(
    machine: Machine, function: str
) -> None:
    """Wherever it was cut short; symlinks and hard links alike."""
    for number, call in enumerate((0, 1, 4, 9)):
        venv = machine.venv(f"v{number}")
        before = shown(venv)
        machine.done("squish", venv, "--link", "symlink" if number % 2 else "hardlink")

        def work(venv: Path = venv, call: int = call) -> None:
            setattr(os, function, dies_at(function, call))
            assert main(["-q", "unsquish", str(venv)]) == 0

        assert in_child(work) in (0, KILLED)
        assert machine.works(venv)
        machine.done("unsquish", venv)
        assert shown(venv) == before
        assert not list(venv.rglob(".vf-*"))


def test_a_killed_squish_leaves_a_venv_that_works_and_the_next_finishes(machine: Machine) -> None:
    """No receipt, no litter, no file that is not what it was."""
    for number, (function, call) in enumerate(
        [("link", 2), ("link", 15), ("rename", 1), ("rename", 4), ("replace", 0), ("utime", 9), ("unlink", 3)]
    ):
        venv = machine.venv(f"v{number}", files={**FILES, "demo/own.py": b"N = %d\n" % number})
        before = shown(venv)

        def work(venv: Path = venv, function: str = function, call: int = call) -> None:
            setattr(os, function, dies_at(function, call))
            assert main(["-q", "squish", str(venv)]) == 0

        assert in_child(work) in (0, KILLED)
        assert {path: what for path, what in shown(venv).items() if ".vf-" not in path} == before
        assert machine.works(venv)
        machine.done("squish", venv)
        assert shown(venv) == before
        assert not list(venv.rglob(".vf-*"))


@pytest.mark.parametrize(
    "function",
    [
        "link",
        "rename",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("unlink", "fchmod", "utime")),
    ],
)
def test_a_squish_killed_at_every_call_leaves_a_venv_that_works(machine: Machine, function: str) -> None:
    """Each in its turn; what the first copy of a file is, and that nobody else has it, is as before."""
    files = {**FILES, "demo/own.py": f"N = {function!r}\n".encode()}
    state: dict[str, Any] = {}

    def prepare() -> None:
        shutil.rmtree(machine.store, ignore_errors=True)
        shutil.rmtree(machine.root / "v", ignore_errors=True)
        state["venv"] = machine.venv("v", files=files)
        state["before"] = shown(state["venv"])

    def work() -> None:
        assert main(["-q", "squish", str(state["venv"]), "--bytecode", "none"]) == 0

    for death in killed_at_each(work, (function,), prepare):
        left = {path: what for path, what in shown(state["venv"]).items() if ".vf-" not in path}
        assert left == state["before"], death
        assert machine.works(state["venv"]), death
        answer = machine.done("squish", state["venv"], "--json").document
        assert answer["venvs"][0]["figures"].get("adopted", 0) == 0, death
        assert shown(state["venv"]) == state["before"], death
        assert machine.done("verify", "--full").code == 0, death
        assert not list(state["venv"].rglob(".vf-*")), death


def test_two_at_once_do_not_take_each_other_for_litter(machine: Machine) -> None:
    """What is staged is locked, and goes when its run is gone."""
    machine.done("squish", machine.venv("a"))
    store = objects_in(machine.store)
    with store.batch() as batch:
        batch.add_bytes(b"staged")
        other = Path(store.tmp) / ".vf-1-1"
        other.mkdir()
        (other / "1").write_bytes(b"left by a kill")
        machine.done("squish", machine.venv("b"))
        assert os.listdir(batch.staging)
        assert not other.exists()
        batch.publish()
    assert os.listdir(store.tmp) == []


def test_what_was_never_shared_is_kept(machine: Machine) -> None:
    """Nothing of it changes."""
    venv = machine.venv("a")
    before = looks(venv)
    (answer,) = machine.done("unsquish", venv, "--json").document["venvs"]
    assert answer["did"] == "kept"
    assert looks(venv) == before


# --------------------------------------------------------------------------- what must not be


def test_what_is_no_venv_is_refused(machine: Machine) -> None:
    """Each with a message and a code; the others are served all the same, and no store is made for these."""
    stranger = machine.root / "stranger"
    stranger.mkdir()
    (stranger / "file").touch()
    (machine.root / "link").symlink_to(machine.root / "a" / ".venv")
    for path, code in ((stranger, 2), (stranger / "file", 2), (machine.root / "absent", 2)):
        assert machine.run("squish", path).code == code
    assert not machine.store.exists()
    venv = machine.venv("a")
    before = shown(venv)
    answer = machine.run("squish", machine.root / "link", venv)
    assert answer.code == 6
    assert str(venv) in answer.err
    assert read_receipt(str(venv)) is not None
    assert shown(venv) == before


@pytest.mark.parametrize("inside", ["store in venv", "venv in store"])
def test_a_store_and_a_venv_inside_each_other_are_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    """Nothing is made or changed."""
    venv = machine.venv("a")
    store = venv / "store" if inside == "store in venv" else venv.parent
    monkeypatch.setenv("VENVFLOW_STORE", str(store))
    before = shown(venv)
    assert machine.run("squish", venv).code == 6
    assert shown(venv) == before


@needs_root
def test_a_venv_of_another_user_is_refused(machine: Machine) -> None:
    """For root, too: its files would become root's."""
    venv = machine.venv("a")
    os.chown(venv, NOBODY, NOBODY)
    assert machine.run("squish", venv).code == 6
    assert machine.run("unsquish", venv).code == 6


@needs_root
def test_somebody_else_cannot_share_what_is_not_theirs(machine: Machine) -> None:
    """It is refused, and nothing changed."""
    with for_everybody() as place:
        machine.root = place
        venv = machine.venv("a")

        def work() -> None:
            os.environ["VENVFLOW_STORE"] = str(place / "store")
            os._exit(main(["-C", str(place), "-q", "squish", str(venv)]))

        assert in_child(work, user=NOBODY) == 6
        assert not (venv / RECEIPT).exists()


def test_devices_and_sockets_are_left_alone_with_a_warning(machine: Machine) -> None:
    """They are not read, which might never end."""
    venv = machine.venv("a")
    os.mkfifo(machine.site(venv) / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(machine.site(venv))
        listener.bind("socket")
        os.chdir(here)
        answer = machine.done("squish", venv)
    assert "is a device, FIFO or socket" in answer.err


def test_a_venv_in_use_works_and_a_warning_names_the_process(machine: Machine) -> None:
    """It keeps the files that it has open, and goes on."""
    venv = machine.venv("a")
    path = str(machine.site(venv) / "demo/table.bin")
    code = f"f = open({path!r}, 'rb'); print(1, flush=True); input(); print(len(f.read()))"
    with subprocess.Popen(
        [venv / "bin/python", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        user.stdout.readline()
        answer = machine.done("squish", venv)
        said, _ = user.communicate("\n")
    assert f"in use by process {user.pid}" in answer.err
    assert int(said) == len(FILES["demo/table.bin"])


def test_a_file_that_keeps_changing_is_an_environment_failure(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing half-written is kept, the venv is whole."""
    venv = machine.venv("a")
    path = machine.site(venv) / "demo/data.py"
    real, times = os.read, itertools.count(1)

    def reading(fd: int, size: int) -> bytes:
        data = real(fd, size)
        if os.readlink(f"/proc/self/fd/{fd}") == str(path):
            os.utime(path, ns=(next(times), next(times)))
        return data

    monkeypatch.setattr(os, "read", reading)
    answer = machine.run("squish", venv)
    assert answer.code == 3
    assert "keeps changing" in answer.err
    monkeypatch.undo()
    assert not (venv / RECEIPT).exists()


def test_a_store_on_another_file_system_gives_copies(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything works; nothing is saved, and the report says so."""
    venv = machine.venv("a")
    before = shown(venv)
    with elsewhere(machine.root) as other:
        monkeypatch.setenv("VENVFLOW_STORE", str(other / "store"))
        answer = machine.done("squish", venv)
        assert "by copy" in answer.out
        assert "more:" in answer.out
        assert shown(venv) == before
        machine.done("verify", venv)
        machine.done("unsquish", venv)


def test_a_damaged_object_is_never_linked(machine: Machine) -> None:
    """It is put aside, and the file of the venv becomes the object anew."""
    one = machine.venv("a")
    machine.done("squish", one)
    victim = machine.site(one) / "demo/table.bin"
    machine.done("unsquish", one)
    (damaged,) = [
        path for path in (machine.store / "objects").glob("*/*") if path.read_bytes() == victim.read_bytes()
    ]
    damaged.chmod(0o644)
    damaged.write_bytes(b"damaged")
    two = machine.venv("b")
    machine.done("squish", two)
    assert (machine.site(two) / "demo/table.bin").read_bytes() == FILES["demo/table.bin"]
    assert damaged.read_bytes() == FILES["demo/table.bin"]
    assert [path.read_bytes() for path in (machine.store / "quarantine").iterdir()] == [b"damaged"]


def test_a_venv_whose_interpreter_is_gone_is_an_environment_failure(machine: Machine) -> None:
    """It says which, and changes nothing."""
    venv = machine.venv("a")
    before = shown(venv)
    (venv / "bin/python").unlink()
    (venv / "bin/python").symlink_to("/nowhere/python3")
    answer = machine.run("squish", venv)
    assert answer.code == 3
    assert f"{venv}/bin/python cannot be used" in answer.err
    assert "config" not in answer.err
    (venv / "bin/python").unlink()
    assert shown(venv).items() <= before.items()
    assert not (venv / RECEIPT).exists()


def test_wrong_words_are_wrong_words(machine: Machine) -> None:
    """Before anything is done."""
    venv = machine.venv("a")
    assert machine.run("squish", venv, "--link", "magic").code == 2
    assert machine.run("squish", venv, "--min-size", "much").code == 2
    assert machine.run("squish").code == 2
    assert not machine.store.exists()


def test_it_can_be_interrupted(machine: Machine) -> None:
    """The venv is whole, and the code says so."""
    venv = machine.venv("a")
    before = shown(venv)

    def work() -> None:
        real = os.rename

        def interrupted(*args: object, **how: object) -> None:
            os.rename = real
            os.kill(os.getpid(), signal.SIGTERM)

        os.rename = interrupted
        os._exit(main(["-q", "squish", str(venv)]))

    assert in_child(work) == 143
    assert {path: what for path, what in shown(venv).items() if ".vf-" not in path} == before


# --------------------------------------------------------------------------- extended attributes


def noted(file: Path) -> bytes | None:
    """Return what somebody noted on a file."""
    try:
        return os.getxattr(file, "user.note")
    except OSError:
        return None


def note(file: Path) -> None:
    """Note something on a file, or skip the test."""
    try:
        os.setxattr(file, "user.note", b"mine")
    except (OSError, AttributeError) as error:
        pytest.skip(f"no extended attributes here: {error}")


@pytest.mark.parametrize("first", [True, False], ids=["new to the store", "in the store already"])
def test_a_file_with_attributes_stays_private_and_keeps_them(machine: Machine, *, first: bool) -> None:
    """Capabilities, access lists and notes belong to one file; a warning names it; unsquish keeps it."""
    venvs = [machine.venv("a"), machine.venv("b")]
    mine, other = (machine.site(venv) / "demo/table.bin" for venv in (venvs if first else venvs[::-1]))
    note(mine)
    said = machine.done("squish", *venvs).err
    assert "table.bin has extended attributes" in said
    assert (mine.stat().st_nlink, noted(mine)) == (1, b"mine")
    assert noted(other) is None
    assert mine.stat().st_mtime_ns == time_of(FILES["demo/table.bin"])
    assert other.stat().st_nlink == 2
    assert machine.done("verify", "--full").code == 0
    (mine.parent / "later.py").write_bytes(b"LATER = 1\n")
    machine.done("squish", *venvs)
    assert noted(mine) == b"mine"
    machine.done("unsquish", *venvs)
    assert (mine.read_bytes(), noted(mine)) == (FILES["demo/table.bin"], b"mine")


def test_a_file_with_attributes_and_another_name_gets_an_inode_with_them(machine: Machine) -> None:
    """The other name keeps the old one, time and all."""
    venv = machine.venv("a")
    mine = machine.site(venv) / "demo/table.bin"
    note(mine)
    stranger = machine.root / "stranger"
    os.link(mine, stranger)
    before = stranger.stat()
    machine.done("squish", venv)
    time = time_of(FILES["demo/table.bin"])
    assert (mine.stat().st_nlink, noted(mine), mine.stat().st_mtime_ns) == (1, b"mine", time)
    assert (stranger.stat().st_ino, stranger.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert mine.read_bytes() == FILES["demo/table.bin"]
