"""The benchmark's own logic: ratios and verdicts, who runs when, the checks, and the synthetic venvs."""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from contents import needs_proc, snapshot_of, stock

from bench import bumps, checks, crowd, peak, peers, session, synthetic
from bench.fleet import PACKAGES, SMALL, entry, lock_text
from bench.project import Project
from bench.rounds import in_turn
from bench.rows import Row, monorepo, sharing
from bench.synthetic import Shape
from bench.table import Line, document, lines_of, render, render_markdown, spread, verdict
from bench.world import CommandFailed, Unavailable, World, child_environment
from venvflow.disk.objects import object_names
from venvflow.model import StoreConfig
from venvflow.state.store import Store

pytestmark = pytest.mark.slow

TINY = Shape(directories=2, modules=3, module_size=200, data_files=2, data_size=1000, library_size=3000)


def a_line(**changes: object) -> Line:
    """Return a line whose ratios are 2, 1.5 and 4."""
    values: dict[str, object] = {
        "row": 1, "job": "restore", "against": "cp", "target": 1.5,
        "ours": (2.0, 3.0, 8.0), "theirs": (1.0, 2.0, 2.0),
    }  # fmt: skip
    return Line(**(values | changes))  # type: ignore[arg-type]


# --------------------------------------------------------------------------- the table


def test_ratios_are_made_pair_by_pair() -> None:
    """The ratio of the medians (1.5) is not the median of the ratios (2)."""
    assert a_line().ratios() == (2.0, 1.5, 4.0)
    assert spread(a_line().ratios()) == (1.5, 2.0, 4.0)


def test_a_limit_stands_against_every_run() -> None:
    """One value on the other side is compared with each of ours."""
    assert a_line(ours=(50.0, 100.0), theirs=(200.0,)).ratios() == (0.25, 0.5)


def test_runs_without_their_pair_are_an_error() -> None:
    """A run too few on one side is never dropped in silence."""
    with pytest.raises(ValueError, match="zip"):
        a_line(theirs=(1.0, 2.0)).ratios()


@pytest.mark.parametrize(
    ("target", "said"), [(2.0, "met"), (1.6, "missed by 25 %"), (0.5, "missed by 300 %")]
)
def test_the_verdict_says_by_how_much_the_median_misses(target: float, said: str) -> None:
    """The median ratio of the example is exactly 2."""
    assert verdict(a_line(target=target)) == said


def test_what_was_not_measured_is_in_the_table_with_its_reason() -> None:
    """A peer that is missing leaves its line and its name."""
    line = a_line(ours=(), theirs=(), skipped="cp is not installed")
    assert line.met is None
    assert verdict(line) == "skipped"
    assert "row 1: cp is skipped: cp is not installed" in render([line])


def test_the_table_is_aligned_and_tells_each_note_once() -> None:
    """All lines of the table begin their columns at the same place."""
    lines = [a_line(note="all warm"), a_line(job="a much longer job", note="all warm")]
    head, rule, first, second, *notes = render(lines).splitlines()
    place = head.index("against")
    assert rule[place - 1 : place + 1] == " -"
    assert first[place:].startswith("cp")
    assert second[place:].startswith("cp")
    assert notes == ["", "row 1: all warm"]
    assert "1.5 / 2 / 4" in first


def test_the_json_holds_every_single_value() -> None:
    """Whoever doubts a median can look at what it was made of."""
    record = json.loads(json.dumps(document([a_line()])))[0]
    assert record["ours"] == [2.0, 3.0, 8.0]
    assert record["ratio"] == {"least": 1.5, "median": 2.0, "most": 4.0}
    assert record["met"] is False


# --------------------------------------------------------------------------- runs


def test_contenders_run_in_turn_and_backwards_every_second_round() -> None:
    """Within each round everybody runs once, and nobody always follows the same neighbour."""
    order: list[str] = []

    def runner(name: str) -> float:
        order.append(name)
        return float(len(order))

    answers = in_turn({name: partial(runner, name) for name in "abc"}, 3)
    assert "".join(order) == "abccbaabc"
    assert answers == {"a": (1.0, 6.0, 7.0), "b": (2.0, 5.0, 8.0), "c": (3.0, 4.0, 9.0)}


def test_children_get_nothing_that_bends_the_measurement() -> None:
    """The user's store and uv cache stay out, and so does what would keep Python from compiling."""
    given = {
        "HOME": "/home/me", "PATH": "/bin", "UV_DEFAULT_INDEX": "https://index.example",
        "VENVFLOW_STORE": "/home/me/store", "UV_CACHE_DIR": "/home/me/cache",
        "PYTHONDONTWRITEBYTECODE": "1", "VIRTUAL_ENV": "/home/me/venv",
    }  # fmt: skip
    environ = child_environment(given, "/some/cache")
    assert set(environ) == {"HOME", "PATH", "UV_DEFAULT_INDEX", "UV_CACHE_DIR", "UV_NO_PROGRESS"}
    assert environ["UV_CACHE_DIR"] == "/some/cache"
    assert environ["PATH"].split(os.pathsep) == [os.path.dirname(sys.executable), "/bin"]


def test_a_failing_command_tells_its_last_words(tmp_path: Path) -> None:
    """A command that fails is never timed as if it had done its work."""
    world = World(str(tmp_path), quick=True, profile=False)
    with world.opened(), pytest.raises(CommandFailed, match="no such luck"):
        world.timed([sys.executable, "-c", "raise SystemExit('no such luck')"], cwd=str(tmp_path))


def test_a_run_leaves_nothing_but_what_was_there(tmp_path: Path) -> None:
    """What was moved aside during a run is gone when it is over; the rest of the work directory stays."""
    world = World(str(tmp_path), quick=True, profile=False)
    (tmp_path / "uv-cache").mkdir()
    with world.opened():
        for _ in range(2):
            Path(world.path("made")).mkdir()
            world.put_aside(world.path("made"))
        world.put_aside(world.path("never made"))
        assert sorted(os.listdir(world.path("aside"))) == ["1", "2"]
    kept = {"uv-cache", "inputs.lock", os.path.basename(os.path.dirname(world.kept("fleet")))}
    assert set(os.listdir(tmp_path)) == kept


def test_a_missing_tool_is_named(tmp_path: Path) -> None:
    """The reason for skipping a line holds the name of what is missing."""
    with pytest.raises(Unavailable, match="no-such-peer is not installed"):
        World(str(tmp_path), quick=True, profile=False).tool("no-such-peer")


@pytest.mark.slow
@needs_proc
def test_the_peak_of_a_process_is_its_own(tmp_path: Path) -> None:
    """A child that uses 80 MB more than its parent does not count as the parent's memory."""
    (tmp_path / "parent.py").write_text(
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'x = b\"x\" * 80_000_000'], check=True)\n"
        "x = b'x' * int(sys.argv[1])\n"
    )
    peaks = []
    for used in ("0", "40_000_000"):
        command = [sys.executable, peak.__file__, "peak", "parent", used]
        subprocess.run(command, cwd=tmp_path, check=True)
        peaks.append(int((tmp_path / "peak").read_text()))
    assert peaks[0] < 60_000_000
    assert 35_000_000 < peaks[1] - peaks[0] < 45_000_000


# --------------------------------------------------------------------------- synthetic venvs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic venv of three tiny packages."""
    return _build(tmp_path_factory.mktemp("made"), lock_text(3, 7))


def _build(directory: Path, lock: str) -> Path:
    (directory / "lock.txt").write_text(lock)
    synthetic.build(str(directory / "venv"), str(directory / "lock.txt"), TINY)
    return directory / "venv"


def _packages(venv: Path) -> dict[str, bytes]:
    root = next((venv / "lib").glob("python*/site-packages"))
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_synthetic_package_has_the_shape_that_was_asked_for(made: Path) -> None:
    """The numbers of a shape are numbers of files, and its sizes are sizes."""
    package = {path: data for path, data in _packages(made).items() if path.startswith("package_001/")}
    assert sum(path.endswith(".py") for path in package) == 3
    assert {os.path.dirname(path) for path in package} == {"package_001", "package_001/part_1"}
    assert len(package["package_001/data_0.bin"]) == pytest.approx(1000, abs=64)
    assert len(package["package_001/library.bin"]) == pytest.approx(3000, abs=64)
    for path, data in package.items():
        if path.endswith(".py"):
            compile(data, path, "exec")


def test_equal_lines_of_a_lock_give_equal_bytes(made: Path, tmp_path: Path) -> None:
    """Two venvs whose locks differ in one package differ in that package alone."""
    other = _packages(_build(tmp_path, lock_text(3, 8)))
    changed = {path.partition("/")[0] for path, data in _packages(made).items() if other.get(path) != data}
    assert changed == {"package_000", "package_000-7.dist-info"}


def test_a_fleets_venvs_differ_in_their_locks_and_share_their_builder() -> None:
    """Each venv has a key of its own, and the builder is the same words for all."""
    assert lock_text(2, 0) != lock_text(2, 1)
    assert lock_text(2, 1).splitlines() == ["package_000==1", "package_001==0"]
    first, second = entry("a", SMALL), entry("b", SMALL)
    assert first["build"] == second["build"]
    assert first["path"] != second["path"]
    assert PACKAGES * SMALL.directories > 250


# --------------------------------------------------------------------------- checks


@pytest.fixture
def pair(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A finished, compiled venv and a copy of it."""
    finished = tmp_path / "finished"
    shutil.copytree(made, finished, symlinks=True)
    for source in finished.rglob("package_*/**/*.py"):
        py_compile.compile(str(source), doraise=True)
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy", finished


def _first(venv: Path, pattern: str) -> Path:
    return min(venv.glob(f"lib/python*/site-packages/{pattern}"))


def test_a_faithful_copy_passes_the_check(pair: tuple[Path, Path]) -> None:
    """What is the same in all that counts is let through."""
    checks.compare(str(pair[0]), str(pair[1]), who="me")


@pytest.mark.parametrize(
    ("pattern", "change", "said"),
    [
        ("package_001/data_0.bin", None, "too many or too few"),
        ("package_001/data_0.bin", b"other", "data_0.bin differ"),
        ("package_001/__pycache__/*.pyc", None, "pyc are missing"),
        ("package_001/__pycache__/*.pyc", b"old", "not valid for their sources"),
    ],
)
def test_a_venv_that_lacks_something_is_not_timed(
    pair: tuple[Path, Path], pattern: str, change: bytes | None, said: str
) -> None:
    """A file gone, a byte changed, bytecode gone or stale: each is found and named."""
    copy, finished = pair
    victim = _first(copy, pattern)
    if change is None:
        victim.unlink()
    else:
        victim.write_bytes(change)
    with pytest.raises(checks.WrongResult, match=f"me: .*{said}"):
        checks.compare(str(copy), str(finished), who="me")


def test_bytecode_of_another_moment_is_stale(pair: tuple[Path, Path]) -> None:
    """A source that was touched makes its bytecode worthless, as Python sees it."""
    source = _first(pair[0], "package_002/__init__.py")
    os.utime(source, (1, 1))
    stale = list(checks.stale_bytecode(str(pair[0]), set(checks.files(str(pair[0])))))
    assert [os.path.basename(path).partition(".")[0] for path in stale] == ["__init__"]


# --------------------------------------------------------------------------- sessions


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A quick world in a directory of its own; rows in it need no lock files."""
    return World(str(tmp_path / "work"), quick=True, profile=False)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make rows 1 to 3 measure nothing but that they were asked; row 2 cannot be measured the first time."""
    seen: list[int] = []

    def answer(number: int, _: World) -> list[Line]:
        seen.append(number)
        if number == 2 and seen.count(2) == 1:
            raise checks.WrongResult("nothing was restored")
        return [a_line(row=number)]

    rows = {number: Row(partial(answer, number), quick=70 * number) for number in (1, 2, 3)}
    monkeypatch.setattr(session, "ROWS", rows)
    return seen


def _session(world: World, *, resume: bool) -> session.Session:
    os.makedirs(world.work_dir, exist_ok=True)
    with world.opened():
        return session.measure(world, [1, 2, 3], resume=resume)


def test_a_row_that_fails_leaves_the_others_alone(world: World, asked: list[int]) -> None:
    """It is told with its reason, and so is what the others measured."""
    answer = _session(world, resume=True)
    assert asked == [1, 2, 3]
    assert answer.failed == {2: "nothing was restored"}
    assert [line.row for line in answer.lines] == [1, 3]


def test_a_mistake_of_the_benchmark_fails_its_row_only(
    world: World, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is raised: an evening's measurements are not lost by it."""

    def broken(_: World) -> list[Line]:
        raise ZeroDivisionError("division by zero")

    rows = vars(session)["ROWS"]
    monkeypatch.setitem(rows, 1, rows[1]._replace(measure=broken))
    answer = _session(world, resume=False)
    assert answer.failed[1] == "ZeroDivisionError: division by zero"
    assert asked == [2, 3]


def test_a_session_that_was_cut_short_is_gone_on_with(world: World, asked: list[int]) -> None:
    """What was measured is taken over to the last figure; once all is there, the next session begins anew."""
    first = _session(world, resume=True)
    second = _session(world, resume=True)
    assert asked == [1, 2, 3, 2]
    assert second.failed == {}
    assert [line.row for line in second.lines] == [1, 2, 3]
    assert second.lines[0] == first.lines[0]
    assert _session(world, resume=True).failed == {}
    assert asked == [1, 2, 3, 2, 1, 2, 3]


@pytest.mark.parametrize("changed", ["code", "pairs", "resume", "record"])
def test_what_was_measured_otherwise_is_measured_again(
    world: World, asked: list[int], monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """Other code, another number of pairs, a fresh start, a record that makes no sense."""
    _session(world, resume=True)
    if changed == "code":
        monkeypatch.setattr(session, "fingerprint", lambda: "of other code")
    if changed == "pairs":
        world.rounds += 1
    if changed == "record":
        Path(world.work_dir, "measured", "quick-1.json").write_text('{"lines": [{}]}')
    _session(world, resume=changed != "resume")
    assert asked[3] == 1


def test_the_expected_time_is_that_of_the_last_run(
    world: World, asked: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before there was one, what is usual; spelled in the unit that people think in."""
    _session(world, resume=False)
    said = capsys.readouterr().err
    assert "row 1: takes about 70 s" in said
    assert "row 3: takes about 4 min" in said
    _session(world, resume=False)
    assert "row 1: takes about 0 s" in capsys.readouterr().err
    assert asked[:3] == [1, 2, 3]


def test_a_lock_that_cannot_be_installed_fails_its_rows_only(
    world: World, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that install nothing are measured all the same."""
    rows = vars(session)["ROWS"]
    monkeypatch.setitem(rows, 1, rows[1]._replace(quick_locks=("no-such-lock",)))
    answer = _session(world, resume=False)
    assert "no-such-lock.txt" in answer.failed[1]
    assert asked == [2, 3]


def test_lines_survive_being_written_and_read() -> None:
    """A skipped one as well."""
    lines = [a_line(), a_line(ours=(), theirs=(), skipped="cp is not installed")]
    assert lines_of(json.loads(json.dumps(document(lines)))) == lines


def test_the_markdown_table_holds_ratios_and_no_seconds() -> None:
    """An absolute time of some machine is nobody's business."""
    head, rule, row, pipe = render_markdown([a_line(), a_line(against="tar | zstd")]).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") == 7
    assert "| tar \\| zstd |" in pipe
    assert row == "| 1 | restore | cp | 1.5 / 2 / 4 | ≤ 1.5 | missed by 33 % |"


# --------------------------------------------------------------------------- what is kept


def test_inputs_are_kept_for_the_same_code_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of other code makes its own, and deletes those that nobody will use again."""
    os.makedirs(world.work_dir)
    with world.opened():
        kept = Path(world.kept("fleet"))
        kept.mkdir()
    with world.opened():
        assert Path(world.kept("fleet")) == kept
        assert kept.is_dir()
    monkeypatch.setattr("bench.world.fingerprint", lambda: "f" * 64)
    with world.opened():
        assert not kept.exists()
        assert Path(world.kept("fleet")) != kept


def test_two_runs_at_once_do_not_share_inputs(world: World) -> None:
    """The second one makes its own, which go with it."""
    os.makedirs(world.work_dir)
    other = World(world.work_dir, quick=True, profile=False)
    other.run_dir += "-other"
    with world.opened(), other.opened():
        assert other.kept("fleet") != world.kept("fleet")
        assert other.kept("fleet").startswith(other.run_dir)


def test_what_a_killed_run_left_is_deleted_by_the_next(world: World) -> None:
    """That of a run which is still alive stays."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, alive, else_ = (Path(world.work_dir, f"run-{name}") for name in (gone.pid, os.getppid(), "x"))
    for directory in (left, alive, else_):
        directory.mkdir(parents=True)
    with world.opened():
        assert [left.exists(), alive.exists(), else_.exists()] == [False, True, True]


# --------------------------------------------------------------------------- a crowd of snapshots


def test_a_crowd_is_made_of_sound_snapshots_unlike_each_other(tmp_path: Path) -> None:
    """Each can be found by its key, holds objects that are there, and differs from the first in one tree."""
    config = StoreConfig(str(tmp_path / "store"), durability="none")
    files = {f"demo/m{number}.py": b"x = %d\n" % number for number in range(crowd.CHANGED + 6)}
    with Store(config) as store:
        store.publish(snapshot_of(stock(store, files, {"other/a.py": b"a"}), parts={"lock:r.txt": "x"}), 1.0)
    crowd.add_snapshots(config, 5)
    with Store(config) as store:
        *added, first = store.snapshots()
        assert len({each.id for each in added}) == 5
        for each in added:
            assert store.find(each.key.digest, "") == each
            assert len(set(first.trees) - set(each.trees)) == 1
            for tree in store.load(each).trees:
                assert all(store.objects.verified(name) for name in object_names(tree))
        assert {each.id for each in store.summaries()} == {each.id for each in store.snapshots()}
        assert len(store.index.rows("SELECT * FROM files")) == 31 + 3 * 30 + 2


def test_a_store_without_a_snapshot_gets_no_crowd(tmp_path: Path) -> None:
    """There is nothing that others could differ from."""
    with pytest.raises(ValueError, match="no snapshot to start from"):
        crowd.add_snapshots(StoreConfig(str(tmp_path / "store"), durability="none"), 1)


# --------------------------------------------------------------------------- peers that link


@pytest.mark.parametrize("name", sorted(peers.LINKERS))
def test_a_linker_links_equal_files(tmp_path: Path, name: str) -> None:
    """With the words that the benchmark gives it, whatever the times of the files are."""
    world = World(str(tmp_path), quick=True, profile=False)
    try:
        commands = peers.linker(world, name)
    except Unavailable as error:
        pytest.skip(str(error))
    one, two = tmp_path / "files/a.py", tmp_path / "files/deep/b.py"
    two.parent.mkdir(parents=True)
    for number, path in enumerate((one, two)):
        path.write_bytes(b"x" * 5000)
        os.utime(path, (number, number))
    with world.opened():
        for command in commands(str(tmp_path / "files")):
            world.run(command)
    assert one.samefile(two)


def test_what_shares_nothing_is_not_timed(tmp_path: Path) -> None:
    """Nine of ten large files have to be one file in two copies."""
    for root in ("pristine", "place"):
        for copy in "abc":
            site = tmp_path / root / copy / ".venv/lib/python3/site-packages"
            site.mkdir(parents=True)
            (site / "large.py").write_bytes(b"x" * 5000)
    with pytest.raises(checks.WrongResult, match="0 of 1 large files are shared"):
        sharing.check_shared(str(tmp_path / "pristine"), str(tmp_path / "place"))
    first, second = (tmp_path / f"place/{copy}/.venv/lib/python3/site-packages/large.py" for copy in "ab")
    second.unlink()
    os.link(first, second)
    sharing.check_shared(str(tmp_path / "pristine"), str(tmp_path / "place"))


# --------------------------------------------------------------------------- bumps


def test_a_bumped_lock_differs_in_one_package(world: World) -> None:
    """All markers of the old one are gone, the new one is there once, and all else is what it was."""
    os.makedirs(world.work_dir)
    with world.opened():
        for name, package in bumps.BUMPED.items():
            before, after = (Path(bumps.bumped(world, name, number)).read_text() for number in (0, 1))
            old, new = (set(bumps.blocks_of(text)) for text in (before, after))
            assert "".join(bumps.blocks_of(after)) == after
            assert {block.partition("==")[0] for block in old ^ new} == {package}
            (block,) = new - old
            assert block.startswith(f"{package}=={bumps.VERSIONS[package][0]} ")


def test_each_bump_brings_what_was_never_there_and_is_downloaded_before(world: World) -> None:
    """Nothing is a hit that should be a build, and nothing is downloaded while time is taken."""
    for name in bumps.BUMPED:
        versions = [bumps.version(name, number + 1) for number in range(bumps.bumps(name))]
        assert len(set(versions)) == len(versions)
        text = Path(world.lock_file(name)).read_text()
        assert not any(version.replace("-", "==") + " " in text for version in versions)
        listed = list(bumps.locks_of(world, (name, f"{bumps.BUMPS_OF}{name}")))
        assert listed == [name, *(f"bumps/{version}" for version in versions)]
        assert all(os.path.exists(world.lock_file(lock)) for lock in listed)
    assert list(bumps.locks_of(world, (bumps.MAIN,))) == ["small"]


def test_services_of_a_monorepo_differ_but_for_the_package_that_is_bumped(world: World) -> None:
    """Twenty venvs are twenty keys, and each has something to do."""
    os.makedirs(world.work_dir)
    with world.opened():
        project = Project(world, "monorepo", {})
        services = [f"s{number}" for number in range(20)]
        monorepo.write_locks(project, services, "web", 1)
        locks = [Path(project.path(name, "requirements.txt")).read_text() for name in services]
    assert len(set(locks)) == 20
    assert all("\nrich==14.3.4 " in lock for lock in locks)


def test_a_venv_without_the_bump_is_not_timed(pair: tuple[Path, Path]) -> None:
    """An old version, or both, is no bump."""
    copy = pair[0]
    with pytest.raises(checks.WrongResult, match=r"package_000-7\.dist-info.*not package_000-8"):
        checks.installed(str(copy), "package_000-8")
    checks.installed(str(copy), "package_000-7")
    _first(copy, "package_000-7.dist-info").with_name("package_000-8.dist-info").mkdir()
    with pytest.raises(checks.WrongResult):
        checks.installed(str(copy), "package_000-8")


def test_venvs_of_other_trees_are_not_the_same(tmp_path: Path) -> None:
    """The order of a receipt's trees says nothing; one that has none says nothing either."""
    for name, digests in {"a": ["1", "2"], "b": ["2", "1"], "c": ["1", "3"], "d": [], "e": []}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / ".venvflow.json").write_text(json.dumps({"trees": digests}))
    paths = {name: str(tmp_path / name) for name in "abcde"}
    checks.same_trees(paths["a"], paths["b"])
    for odd in ("ac", "ad", "de"):
        with pytest.raises(checks.WrongResult, match="not what a fresh build gives"):
            checks.same_trees(*(paths[name] for name in odd))
