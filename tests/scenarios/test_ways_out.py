"""Whatever happened to a venv or its store: the next run works, or says what does, and that works."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from contents import KILLED, NOBODY, dies_at, in_child, needs_root
from ways import World, finished_world, world

from venvflow.disk.places import Place
from venvflow.errors import Refused
from venvflow.flow import load
from venvflow.steps.clean import clean

__all__ = ["finished_world", "world"]


def test_the_world_is_as_the_tests_believe(world: World) -> None:
    """Nothing is left to do, files are shared, WHEEL is the cache's own."""
    assert world.doit().nothing_to_do
    assert world.works("a")
    wheel = world.site("a") / "own-1.dist-info" / "WHEEL"
    assert os.path.samefile(wheel, world.cache / "1" / "own-1.dist-info" / "WHEEL")
    assert os.path.samefile(world.site("a") / "demo" / "more.py", world.site("b") / "demo" / "more.py")


@pytest.mark.slow
@pytest.mark.quick
def test_a_copy_without_its_times_is_taken(world: World) -> None:
    """As by ``cp -r``, into an image, from git: looked at by its bytes once, and made right for its place."""
    other = world.root / "other"
    subprocess.run(["cp", "-r", str(world.project), str(other)], check=True)
    shutil.rmtree(world.project)
    ran = world.doit(project=other)
    assert ran.code == 0, ran.said
    assert "build-venv:a" not in ran.did
    assert world.works("a", other)
    assert world.doit(project=other).nothing_to_do


def test_a_squish_that_was_killed_anywhere_is_finished_by_the_next_run(world: World) -> None:
    """Between two renames a file may be an adopted object already, which stands for another distribution."""
    for call in range(1, 40):
        shutil.rmtree(world.venv("b"))
        world.lock("b", 3 + call)
        assert world.doit("b", until="build-venv").code == 0

        def dying(call: int = call) -> None:
            os.rename = dies_at("rename", call)
            assert world.doit("b").code == 0

        status = in_child(dying)
        ran = world.doit("b")
        assert ran.code == 0, (call, ran.said)
        if status == 0:
            break
        assert status == KILLED
    else:
        raise AssertionError("it never got to its end")
    assert call > 3


# --------------------------------------------------------------------------- what doit alone makes right


def _copied(path: Path) -> None:
    """Copy without times, and put the copy in the place of what was copied."""
    subprocess.run(["cp", "-r", str(path), f"{path}.copy"], check=True)
    shutil.rmtree(path)
    os.rename(f"{path}.copy", path)


def _without_times(world: World) -> None:
    _copied(world.project)


def _without_times_and_store(world: World) -> None:
    _copied(world.project)
    shutil.rmtree(world.store)


def _without_times_store_and_state(world: World) -> None:
    _without_times_and_store(world)
    shutil.rmtree(world.project / ".venvflow")


def _links_followed(world: World) -> None:
    """As ``cp -L`` and zip files copy: programs and directories in the place of links."""
    copy = world.root / "copy"
    subprocess.run(["cp", "-rL", str(world.project), str(copy)], check=True)
    shutil.rmtree(world.project)
    copy.rename(world.project)


def _home_copied(world: World) -> None:
    _copied(world.project)
    _copied(world.store)


def _links_broken(world: World) -> None:
    """As a backup that knows no hard links does it: times stay."""
    for path in (world.project, world.store):
        subprocess.run(["cp", "-a", "--no-preserve=links", str(path), f"{path}.copy"], check=True)
        shutil.rmtree(path)
        os.rename(f"{path}.copy", path)


def _missing(world: World) -> None:
    os.unlink(world.site("a") / "demo" / "more.py")


def _missing_and_erased(world: World) -> None:
    _missing(world)
    assert world.run("erase", "--yes") == 0


def _missing_and_no_store(world: World) -> None:
    _missing(world)
    shutil.rmtree(world.store)


def _erased(world: World) -> None:
    assert world.run("erase", "--yes") == 0


def _erased_and_touched(world: World) -> None:
    _erased(world)
    for path in world.site("a").rglob("*"):
        os.utime(path, follow_symlinks=False)


def _built_only(world: World) -> None:
    shutil.rmtree(world.venv("a"))
    world.lock("a", 7)
    assert world.doit("a", until="build-venv").code == 0


def _built_and_copied(world: World) -> None:
    _built_only(world)
    _copied(world.project)


def _built_and_no_store(world: World) -> None:
    _built_only(world)
    shutil.rmtree(world.store)
    _copied(world.project)


def _killed_and_no_index(world: World) -> None:
    """A squish was killed half-way, and its database was lost."""
    _built_only(world)

    def dying() -> None:
        os.rename = dies_at("rename", 2)
        world.doit("a")

    assert in_child(dying) == KILLED
    for file in world.store.glob("index.db*"):
        file.unlink()


def _no_bytecode(world: World) -> None:
    for cache in world.venv("a").rglob("__pycache__"):
        shutil.rmtree(cache)


def _other_bytecode(world: World) -> None:
    python = str(world.venv("a") / "bin" / "python")
    subprocess.run([python, "-O", "-m", "compileall", "-q", "-f", str(world.site("a"))], check=True)


def _touched(world: World) -> None:
    for path in world.venv("a").rglob("*"):
        if not path.is_symlink():
            os.utime(path)


def _deduplicated(world: World) -> None:
    """As jdupes does it: equal files become one, whose times and modes one of them had."""
    mine = world.root / "mine.py"
    shutil.copyfile(world.site("a") / "demo" / "more.py", mine)
    os.unlink(world.site("a") / "demo" / "more.py")
    os.link(mine, world.site("a") / "demo" / "more.py")


def _installed_and_removed(world: World) -> None:
    (world.site("a") / "extra.py").write_text("")
    os.unlink(world.site("a") / "extra.py")


def _coarse_times(world: World) -> None:
    """As on a file system that keeps seconds, two of them, or none before its own beginning."""
    for path in world.venv("a").rglob("*"):
        if not path.is_symlink():
            st = path.stat()
            seconds = st.st_mtime_ns // 2_000_000_000 * 2_000_000_000 + 2_000_000_000
            os.utime(path, ns=(seconds, seconds))


def _state_lost(world: World) -> None:
    shutil.rmtree(world.project / ".venvflow")


def _index_lost(world: World) -> None:
    for file in world.store.glob("index.db*"):
        file.unlink()


def _lock_changed_after_a_copy(world: World) -> None:
    _copied(world.project)
    world.lock("a", 9)


def _compiled_by_programs(world: World) -> None:
    """As numba keeps what it has compiled."""
    (world.site("a") / "demo" / "__pycache__" / "more.f-1.py311.nbi").write_bytes(b"x")
    world.lock("a", 8)


def _chmod(mode: str, *paths: Path) -> None:
    subprocess.run(["chmod", "-R", mode, *map(str, paths)], check=True)


def _closed_to_others(world: World) -> None:
    _chmod("go-rwx", world.venv("a"))


def _closed_and_gone(world: World) -> None:
    _chmod("go-rwx", world.venv("a"))
    shutil.rmtree(world.venv("b"))


def _writable(world: World) -> None:
    _chmod("u+w", world.venv("a"))


def _writable_and_gone(world: World) -> None:
    _chmod("u+w", world.venv("a"))
    shutil.rmtree(world.venv("a"))


def _setuid(world: World) -> None:
    _chmod("u+s", world.site("a") / "demo" / "more.py")


def _executable(world: World) -> None:
    _chmod("+x", world.site("a") / "demo" / "more.py")


def _killed_beside_a_whole_venv(world: World) -> None:
    """As ``restore --force`` before its swap, or any run after it."""

    def dying() -> None:
        with Place(str(world.venv("a"))).staged() as new:
            shutil.copytree(world.venv("a"), new, symlinks=True)
            os._exit(9)

    assert in_child(dying) == 9


def _scripts_disabled(world: World) -> None:
    """As a copy without modes leaves them, for the venv alone."""
    (world.venv("a") / "bin" / "tool").chmod(0o644)


def _links_led_elsewhere(world: World) -> None:
    """As ``ln -sf`` of another program does it, or a tool that thinks the venv is its own."""
    for name, target in (("bin/python", "/bin/true"), ("lib64", "bin")):
        (world.venv("a") / name).unlink()
        (world.venv("a") / name).symlink_to(target)


def _open_to_all(world: World) -> None:
    _chmod("a+rwX", world.venv("a"))


def _cache_opened_to_all(world: World) -> None:
    _chmod("777", world.cache)


def _cache_closed(world: World) -> None:
    _chmod("go-rwx", world.cache)


def _cache_opened_and_gone(world: World) -> None:
    _cache_opened_to_all(world)
    shutil.rmtree(world.venv("a"))


def _cache_opened_and_index_lost(world: World) -> None:
    _cache_opened_to_all(world)
    _index_lost(world)
    shutil.rmtree(world.venv("a"))


def _given_away(world: World) -> None:
    """As ``chown`` by root does it to a single file, and so to the store's."""
    os.chown(world.site("a") / "demo" / "more.py", NOBODY, NOBODY)


def _all_given_away(world: World) -> None:
    subprocess.run(["chown", "-R", str(NOBODY), str(world.venv("a"))], check=True)


def _wrong_looks(world: World) -> list[str]:
    """Return objects that anybody could change, or that others cannot read."""
    found = []
    for path in (world.store / "objects").glob("*/*"):
        st = path.stat()
        ours = not st.st_mode & 0o222 or st.st_mode & 0o7777 == 0o644  # those of the cache
        if not ours or st.st_mode & 0o444 != 0o444 or st.st_uid != os.geteuid():
            found.append(f"{path} {st.st_mode:o} {st.st_uid}")
    return found


RIGHT_AGAIN: list[Any] = [
    _links_followed,
    _without_times, _without_times_and_store, _without_times_store_and_state, _home_copied, _links_broken,
    _missing, _missing_and_erased, _missing_and_no_store, _erased, _erased_and_touched, _built_and_copied,
    _built_and_no_store, _killed_and_no_index, _no_bytecode, _other_bytecode, _touched, _deduplicated,
    _installed_and_removed, _coarse_times, _state_lost, _index_lost, _lock_changed_after_a_copy,
    _compiled_by_programs, _closed_to_others, _writable, _writable_and_gone,
    _closed_and_gone, _setuid, _executable, _scripts_disabled, _links_led_elsewhere,
    _killed_beside_a_whole_venv, _open_to_all,
    _cache_opened_to_all, _cache_closed, _cache_opened_and_gone,
    pytest.param(_given_away, marks=[pytest.mark.root, needs_root]),
    pytest.param(_all_given_away, marks=[pytest.mark.root, needs_root]),
]  # fmt: skip
"""States that no hand made, or that nobody's work is in."""


@pytest.mark.parametrize("happens", RIGHT_AGAIN, ids=lambda happens: happens.__name__.strip("_"))
def test_the_next_run_makes_it_right(world: World, happens: Callable[[World], None]) -> None:
    """It ends with 0 and calls nothing changed by hand; the one after it has nothing to do; verify agrees."""
    happens(world)
    ran = world.doit()
    assert ran.code == 0, ran.said
    assert not [text for text in ran.warnings if "by hand" in text]
    assert world.works("a")
    assert world.works("b")
    assert (world.venv("a") / "bin" / "tool").stat().st_mode & 0o100
    assert not (world.venv("a") / "lib64").is_symlink() or os.readlink(world.venv("a") / "lib64") == "lib"
    assert not list(world.project.rglob(".vf-*"))
    again = world.doit()
    assert again.nothing_to_do, again
    assert world.run("verify") == 0
    assert not _wrong_looks(world)


def test_an_edit_of_another_venvs_file_is_not_told_as_a_mode_that_was_made_right(world: World) -> None:
    """The object is not this venv's file any more: it has other bytes, and nobody gave it anything back."""
    data = (world.site("a") / "demo" / "more.py").read_bytes()
    name = hashlib.sha256(data).hexdigest()
    path = world.store / "objects" / name[:2] / name[2:]
    path.unlink()
    path.write_bytes(data + b"EDITED = 1\n")
    assert not world.doit().warnings
    assert world.run("verify") == 1
    assert world.run("verify", "--heal") == 0
    assert world.doit().nothing_to_do


def test_verify_names_a_script_that_cannot_be_run_any_more_and_lets_it_run(world: World) -> None:
    """Nobody wrote to it, so neither size nor time tells."""
    _scripts_disabled(world)
    assert world.run("verify") == 1
    assert world.run("verify", "--heal") == 0
    assert (world.venv("a") / "bin" / "tool").stat().st_mode & 0o777 == 0o755
    assert world.run("verify") == 0


def test_what_another_program_has_done_to_its_files_is_named_and_undone_here(world: World) -> None:
    """The index was lost, so nobody knows how they came: verify parts the venv from them."""
    _cache_opened_and_index_lost(world)
    assert world.doit().code == 0
    assert world.run("verify") == 1
    assert world.run("verify", "--heal") == 0
    assert world.run("verify") == 0
    assert world.doit().nothing_to_do
    assert not _wrong_looks(world)


# --------------------------------------------------------------------------- what doit refuses


class Refusal(NamedTuple):
    """A state that ends in 6: how it comes, what the message says, and what it says that helps."""

    happens: Callable[[World], object]
    says: str
    way_out: Callable[[World], object]


def _all(*steps: Callable[[World], object]) -> Callable[[World], object]:
    """Return what takes all *steps*, one after the other."""
    return lambda world: [step(world) for step in steps]


def _work_in(world: World) -> Path:
    """Do some work in a venv: what somebody would miss."""
    file = world.site("a") / "mine.py"
    file.write_text("MINE = 1\n")
    return file


def _delete(world: World) -> None:
    shutil.rmtree(world.venv("a"))


def _in_the_place(world: World, kind: str) -> None:
    _delete(world)
    place = world.venv("a")
    if kind == "link":
        os.symlink(world.venv("b"), place)
    elif kind == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "mine").write_text("mine")


def _staging(world: World) -> Path:
    return Path(Place(str(world.venv("a"))).staging)


def _foreign_staging(world: World) -> None:
    _delete(world)
    _staging(world).mkdir()
    (_staging(world) / "mine").write_text("mine")


def _no_store(world: World) -> None:
    shutil.rmtree(world.store)
    world.store.mkdir()
    (world.store / "mine").write_text("mine")
    _delete(world)


def _linked_objects(world: World) -> None:
    _delete(world)
    (world.store / "objects").rename(world.root / "objects")
    os.symlink(world.root / "objects", world.store / "objects")


def _unlinked_objects(world: World) -> None:
    (world.store / "objects").unlink()
    (world.root / "objects").rename(world.store / "objects")


def _linked_lock(world: World) -> None:
    _delete(world)
    lock = world.project / ".venvflow" / "a" / "lock"
    lock.unlink()
    os.symlink("elsewhere", lock)


REFUSALS = {
    "added, and the lock changed": Refusal(
        _all(_work_in, lambda world: world.lock("a", 5)), "changed by hand (added: mine.py)", _delete
    ),
    "added, and the snapshot erased": Refusal(
        _all(_work_in, _erased), "changed by hand since it was made", _delete
    ),
    "added, and the store lost": Refusal(
        _all(_work_in, lambda world: shutil.rmtree(world.store)), "added: mine.py", _delete
    ),
    "added before it was shared": Refusal(
        _all(_built_only, _work_in), "changed by hand since it was made", _delete
    ),
    "a symlink in the place": Refusal(
        lambda world: _in_the_place(world, "link"), "is a symlink", lambda world: world.venv("a").unlink()
    ),
    "a file in the place": Refusal(
        lambda world: _in_the_place(world, "file"),
        "there is a file where the venv should be",
        lambda world: world.venv("a").rename(world.root / "away"),
    ),
    "something else in the place": Refusal(
        lambda world: _in_the_place(world, "directory"),
        "neither empty nor a venv",
        lambda world: world.venv("a").rename(world.root / "away"),
    ),
    "a stranger's staging directory": Refusal(
        _foreign_staging,
        "the name of a staging directory",
        lambda world: _staging(world).rename(world.root / "away"),
    ),
    "no store in its place": Refusal(
        _no_store, "not empty and not a store", lambda world: world.store.rename(world.root / "away")
    ),
    "a store that all may write": Refusal(
        _all(_delete, lambda world: world.store.chmod(0o777)),
        "everybody may write to the store",
        lambda world: subprocess.run(["chmod", "o-w", str(world.store)], check=True),
    ),
    "a part of the store elsewhere": Refusal(
        _linked_objects, "a part of the store is a symbolic link", _unlinked_objects
    ),
    "a lock file elsewhere": Refusal(
        _linked_lock,
        "the lock file is a symbolic link",
        lambda world: (world.project / ".venvflow" / "a" / "lock").unlink(),
    ),
}


def _shared_edit(world: World) -> None:
    """Write into a file that the store and another venv have, too."""
    file = world.site("a") / "demo" / "more.py"
    file.chmod(0o644)
    file.write_text("MORE = 'mine'\n")


def _clean_refuses(world: World) -> None:
    with pytest.raises(Refused, match="venvflow build a --force"):
        clean(load(str(world.project), os.environ).job("a"), "build-venv", (), dry_run=False)


BY_HAND: dict[str, Callable[[World], object]] = {
    "with a snapshot": _work_in,
    "without a snapshot": _all(_work_in, _erased),
    "without a store": _all(_work_in, lambda world: shutil.rmtree(world.store)),
    "before it was shared": _all(_built_only, _work_in),
    "and the lock changed": _all(_work_in, lambda world: world.lock("a", 5)),
    "in a file that others share": _shared_edit,
    "in a file that others share, and the lock changed": _all(_shared_edit, lambda world: world.lock("a", 5)),
    "in a file that others share, without a snapshot": _all(_shared_edit, _erased),
    "and clean refuses it": _all(_work_in, _clean_refuses),
}


FIRST_OF_ALL = ("with a snapshot", "before it was shared", "in a file that others share")


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change, id=name, marks=[] if name in FIRST_OF_ALL else pytest.mark.long)
        for name, change in BY_HAND.items()
    ],
)
def test_the_command_that_drops_changes_by_hand_does(
    world: World, change: Callable[[World], object], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the venv that it names, or of all: others may share the edit. Without the word, nothing is lost."""
    change(world)
    before = _mine(world)
    assert before
    world.run("build", "a")
    assert _mine(world) == before
    said = capsys.readouterr()
    assert "changed by hand" in said.out + said.err
    assert world.run("build", "a", "--force") == 0
    assert _mine(world) == []
    assert world.works("a")
    assert world.doit("a").nothing_to_do
    assert world.run("build", "--force") == 0
    assert world.doit().nothing_to_do
    assert world.run("verify") == 0


def _mine(world: World) -> list[str]:
    return [
        str(path)
        for path in world.site("a").rglob("*.py")
        if path.name == "mine.py" or "mine" in path.read_text()
    ]


@pytest.mark.slow
def test_what_was_not_changed_by_hand_is_not_made_anew(world: World) -> None:
    """``--force`` is about changes by hand: where there are none, it does what there is to do."""
    _work_in(world)
    before = {name: world.venv(name).stat().st_ino for name in "ab"}
    for words in (("a",), ()):
        assert world.run("build", *words, "--force") == 0
    after = {name: world.venv(name).stat().st_ino for name in "ab"}
    assert (after["a"] == before["a"], after["b"] == before["b"]) == (False, True)


@pytest.mark.slow
def test_a_venv_that_cannot_be_looked_at_keeps_no_other_from_being_made(world: World) -> None:
    """Its own tasks say what is wrong with it."""
    _work_in(world)
    place = Path(Place(str(world.venv("b"))).staging)
    place.mkdir()
    (place / "mine").write_text("mine")
    assert world.run("build", "--force") == 6
    assert _mine(world) == []


@pytest.mark.slow
def test_a_build_that_fails_gives_nothing_up(world: World) -> None:
    """The venv is replaced when the new one is whole, and not before; it is asked for once more then."""
    mine = _work_in(world)
    world.lock("a", 5)
    world.configure(a={"build": [["false"]]}, b={})
    assert world.run("build", "a", "--force") == 4
    assert mine.exists()
    assert world.works("a")
    world.configure(a={}, b={})
    assert world.run("build", "a") == 6
    assert world.run("build", "a", "--force") == 0
    assert not mine.exists()


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_what_doit_refuses_has_a_way_out(world: World, refusal: Refusal) -> None:
    """The message says what is wrong; nothing is lost; after what it says to do, the next run works."""
    refusal.happens(world)
    mine = [path for path in world.root.rglob("mine*") if path.is_file()]
    ran = world.doit("a")
    assert ran.code == 6, ran
    assert refusal.says in ran.said
    assert all(path.exists() for path in mine)
    refusal.way_out(world)
    ran = world.doit()
    assert ran.code == 0, ran.said
    assert world.works("a")
    assert world.doit().nothing_to_do


def test_what_is_built_from_a_cache_that_is_closed_is_whole_for_all(world: World) -> None:
    """A package's files have no secrets: they are in the snapshot, whatever mode they have in the cache."""
    _erased(world)
    _cache_closed(world)
    _delete(world)
    assert world.doit("a").did["build-venv:a"].startswith("built")
    _delete(world)
    assert world.doit("a").did["restore:a"].startswith("hit")
    assert (world.site("a") / "own" / "table.txt").exists()
    assert world.run("verify") == 0


def test_what_no_directory_misses_is_missed_before_it_is_published(world: World) -> None:
    """As after ``shutil.copytree``, which follows links and keeps times; run again, it works."""
    copy = world.root / "copy"
    shutil.copytree(world.project, copy)
    shutil.rmtree(world.project)
    copy.rename(world.project)
    shutil.rmtree(world.store)
    for name in "ab":
        ran = world.doit(name)
        assert (ran.code, "files of the venv are missing" in ran.said) == (3, True)
    assert world.doit().code == 0
    assert world.works("a")
    assert world.doit().nothing_to_do
    assert world.run("verify") == 0


@pytest.mark.quick
def test_a_venv_whose_snapshot_was_erased_is_not_damaged(world: World) -> None:
    """Verify judges it by what its receipt knows, and still sees what somebody did to it."""
    _erased(world)
    assert world.run("verify") == 0
    _missing(world)
    assert world.run("verify") == 1


def test_a_change_by_hand_is_reported_with_a_command_that_drops_it(world: World) -> None:
    """The same one whether the store has a snapshot or not: only a build needs none."""
    mine = _work_in(world)
    (said,) = world.doit("a").warnings
    ways = (
        'To keep the changes, put them into the lock file, then run "doit a". '
        'To drop them, run "venvflow build a --force".'
    )
    assert said.endswith(ways)
    assert world.run("restore", "a", "--force") == 0
    assert not mine.exists()
    _work_in(world)
    _erased(world)
    (said,) = world.doit("a", until="restore").warnings
    assert said.endswith(ways)
