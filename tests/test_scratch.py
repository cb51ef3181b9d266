"""Directories to work in: where they are, what is left of them, and when new ones get their name."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from contents import NOBODY, needs_proc, needs_root

from venvflow import interrupts
from venvflow.disk import scratch as scratch_module
from venvflow.disk.scratch import new_directory, place, scratch
from venvflow.errors import EnvironmentFailure


def fill(path: str) -> None:
    """Leave what builders leave: a tree that nobody may write to, and a link out of it."""
    os.makedirs(f"{path}/deep/er")
    Path(path, "deep/file").write_text("x")
    os.symlink("/etc", f"{path}/deep/link")
    os.chmod(f"{path}/deep/er", 0)
    os.chmod(f"{path}/deep", 0o500)


def test_a_scratch_directory_is_private_short_and_gone_afterwards(tmp_path: Path) -> None:
    """With all that was left in it, whatever its mode."""
    with scratch(environ={"TMPDIR": str(tmp_path)}) as temporary:
        assert os.path.dirname(temporary.path) == str(tmp_path)
        assert os.stat(temporary.path).st_mode & 0o777 == 0o700
        assert len(os.path.basename(temporary.path)) <= len(".vf--1234") + len(str(os.getpid()))
        assert os.path.samestat(os.stat(temporary.path), os.fstat(temporary.fd))
        fill(temporary.path)
    assert os.listdir(tmp_path) == []


def test_a_signal_leaves_none_behind(tmp_path: Path) -> None:
    """Whatever is cleaned up is cleaned up."""
    with pytest.raises(KeyboardInterrupt), interrupts.raised(), scratch(str(tmp_path)):
        signal.raise_signal(signal.SIGTERM)
    interrupts.exit_code()
    assert os.listdir(tmp_path) == []


def killed(parent: Path, then: str = "") -> subprocess.Popen[str]:
    """Return a killed process that had filled a scratch directory, and, before that, done something else."""
    code = (
        "import os, signal, subprocess, sys\nfrom test_scratch import fill\n"
        "from venvflow.disk.scratch import scratch\n"
        "with scratch(sys.argv[1]) as temporary:\n"
        f"    fill(temporary.path)\n    {then or 'pass'}\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    words = [sys.executable, "-c", code, str(parent)]
    child = subprocess.Popen(
        words, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True
    )
    assert child.wait(60) == -signal.SIGKILL
    return child


def test_the_next_one_removes_what_a_kill_left(tmp_path: Path) -> None:
    """And nothing that has another name, or is somebody's who lives."""
    with killed(tmp_path) as _:
        pass
    (tmp_path / ".vf-mine").mkdir()
    assert len(os.listdir(tmp_path)) == 2
    with scratch(str(tmp_path)) as one, scratch(str(tmp_path)) as other:
        names = {os.path.basename(path) for path in (one.path, other.path)}
        assert set(os.listdir(tmp_path)) == {".vf-mine", *names}
    assert os.listdir(tmp_path) == [".vf-mine"]


@needs_proc
def test_what_an_orphan_still_uses_is_left(tmp_path: Path) -> None:
    """A builder has the descriptor, too, until it has ended."""
    then = "print(subprocess.Popen(['sleep', '600'], pass_fds=[temporary.fd], stdout=2).pid, flush=True)"
    with killed(tmp_path, then) as child:
        assert child.stdout is not None
        orphan = int(child.stdout.readline())
    with scratch(str(tmp_path)):
        assert len(os.listdir(tmp_path)) == 2
    os.kill(orphan, signal.SIGKILL)
    while os.path.exists(f"/proc/{orphan}/fd/0"):
        pass
    with scratch(str(tmp_path)):
        assert len(os.listdir(tmp_path)) == 1


@needs_root
@pytest.mark.root
def test_what_others_left_is_left_to_them(tmp_path: Path) -> None:
    """Everybody has temporary files in the same directory."""
    with killed(tmp_path) as _:
        pass
    (left,) = tmp_path.iterdir()
    os.chown(left, NOBODY, NOBODY)
    with scratch(str(tmp_path)):
        assert left.exists()


def test_a_place_that_is_none_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python itself chooses; what cannot be written is named."""
    assert place({"TMPDIR": str(tmp_path)}) == str(tmp_path)
    for wrong in ("", "relative", str(tmp_path / "nothing")):
        assert place({"TMPDIR": wrong}) == place()
    with pytest.raises(EnvironmentFailure, match=rf"^{tmp_path}/no: no temporary files can be made: No such"):
        scratch(str(tmp_path / "no")).__enter__()


# --------------------------------------------------------------------------- new directories


@pytest.mark.parametrize("there", [False, True])
def test_a_disk_that_cannot_keep_the_name_leaves_nothing(
    tmp_path: Path, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last sync fails when the directory is in its place already: it is taken away again."""
    place = tmp_path / "above" / "place"
    if there:
        place.mkdir(parents=True)

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"), new_directory(str(place)) as staging:
        Path(staging.path, "file").touch()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["above"] * there


def test_a_new_directory_has_its_name_when_all_that_is_in_it_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that name, too, before anybody is told: a power cut leaves all of it or nothing."""
    place = tmp_path / "place"
    seen: list[tuple[str, bool]] = []
    for module, name in ((scratch_module, "sync_file_system"), (os, "fsync")):
        monkeypatch.setattr(module, name, lambda _, name=name: seen.append((name, place.exists())))
    with new_directory(str(place)) as staging:
        Path(staging.path, "file").touch()
        assert seen == []
    assert (seen[0], seen[-1]) == (("sync_file_system", False), ("fsync", True))
