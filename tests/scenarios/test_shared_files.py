"""What venvs share: sources, bytecode, trees; and what each keeps for itself."""

from __future__ import annotations

import shutil

import pytest
from scenario import TAG, Machine, bytecode_is_valid


def test_a_restored_venv_has_valid_bytecode_for_every_source(machine: Machine) -> None:
    """After build and after restore, Python takes the ``.pyc`` of every module as it is."""
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"), machine.wheel("beta"))
    project.doit()
    for _ in range(2):
        sources = list(project.site("api").rglob("*.py"))
        assert len(sources) >= 2
        assert all(bytecode_is_valid(source) for source in sources)
        run = project.run([str(project.venv("api") / "bin" / "python"), "-v", "-c", "import alpha, beta"])
        for name in ("alpha", "beta"):
            pyc = project.site("api") / "__pycache__" / f"{name}.{TAG}.pyc"
            assert f"{pyc} matches" in run.err
        shutil.rmtree(project.venv("api"))
        project.doit()


def test_two_venvs_share_the_inodes_of_sources_and_bytecode(machine: Machine) -> None:
    """The second venv compiles only what no venv had before."""
    project = machine.project("p", {"a": {"path": "a/venv"}, "b": {}})
    shared = [machine.wheel("alpha"), machine.wheel("beta")]
    project.lock("a", *shared)
    project.lock("b", *shared, machine.wheel("own"))
    run = project.doit()
    assert "1 compiled" in run.did["squish:b"], run.text
    a = next((project.root / "a" / "venv" / "lib").glob("python*/site-packages"))
    b = project.site("b")
    for name in ("alpha", "beta"):
        assert (a / f"{name}.py").stat().st_ino == (b / f"{name}.py").stat().st_ino
        (one,) = (a / "__pycache__").glob(f"{name}.*.pyc")
        (two,) = (b / "__pycache__").glob(f"{name}.*.pyc")
        assert one.stat().st_ino == two.stat().st_ino


def test_what_must_stay_private_is_never_shared(machine: Machine) -> None:
    """pyvenv.cfg, activate, RECORD, ``.pth``, prefixed scripts and empty files have one name each."""
    data = {
        "odd.pth": b"# nothing\n",
        "odd/empty.txt": b"",
        "odd/state.db": b"SQLite format 3\0" + bytes(500),
    }
    odd = machine.wheel("odd", modules={"odd/__init__.py": "X = 1\n"}, data=data, scripts={"odd": "odd:X"})
    project = machine.project("p", {"a": {}, "b": {}})
    for name in "ab":
        project.lock(name, odd)
    project.doit()
    for name in "ab":
        venv, site = project.venv(name), project.site(name)
        private = [
            venv / "pyvenv.cfg", venv / "bin" / "activate", venv / "bin" / "odd", site / "odd.pth",
            site / "odd" / "empty.txt", site / "odd" / "state.db", *site.glob("*.dist-info/RECORD"),
        ]  # fmt: skip
        shared = [str(path) for path in private if path.stat().st_nlink != 1]
        assert shared == []
        assert (site / "odd" / "__init__.py").stat().st_nlink >= 3


def test_the_next_snapshot_adds_only_what_changed(machine: Machine) -> None:
    """One package of many changed: store and index grow by that package."""
    names = [f"part{number}" for number in range(12)]
    project = machine.project("p", {"api": {}})
    parts = [
        machine.wheel(
            name, modules={f"{name}/m{i}.py": f"N = {name!r}, {i}\n" for i in range(20)}, scripts={}
        )
        for name in names
    ]
    project.lock("api", *parts)
    project.doit()
    objects, trees = machine.objects(), machine.trees()
    rows = machine.query("SELECT count(*) FROM files")[0][0]
    newer = machine.wheel(
        "part3", "2.0", modules={f"part3/m{i}.py": f"N = 'new', {i}\n" for i in range(2)}, scripts={}
    )
    project.lock("api", *parts[:3], newer, *parts[4:])
    project.doit()
    new_objects, new_trees = machine.objects() - objects, machine.trees() - trees
    assert len(machine.snapshots()) == 2
    # Two sources with their bytecode, METADATA, RECORD's template; the tree of part3, perhaps the root's.
    assert 4 <= len(new_objects) <= 8, sorted(new_objects)
    assert 1 <= len(new_trees) <= 2
    assert machine.query("SELECT count(*) FROM files")[0][0] - rows <= 40
    assert objects <= machine.objects()


def test_the_index_answers_who_uses_a_package(machine: Machine) -> None:
    """The views are part of the product."""
    project = machine.project("p", {"a": {}, "b": {}})
    project.lock("a", machine.wheel("alpha"))
    project.lock("b", machine.wheel("alpha", "2.0"), machine.wheel("beta"))
    project.doit()
    used = machine.query("SELECT package, version, venv FROM package_usage ORDER BY 1, 2, 3")
    assert used == [("alpha", "1.0", "a"), ("alpha", "2.0", "b"), ("beta", "1.0", "b")]
    assert {row[0] for row in machine.query("SELECT venv FROM venv_sizes")} == {"a", "b"}
    assert machine.query("SELECT snapshots FROM savings") == [(2,)]


@pytest.mark.parametrize("mode", ["hardlink", "copy", "symlink", "reflink"])
def test_every_link_mode_makes_the_same_venv(machine: Machine, mode: str) -> None:
    """Links, copies and symlinks differ in what they share, not in what programs see."""
    link = [mode, "copy"] if mode == "reflink" else [mode]
    project = machine.project("p", {"api": {}}, store={"durability": "none", "link": link})
    project.lock("api", machine.wheel("alpha"), machine.wheel("beta"))
    project.doit()
    assert project.output("api", "alpha") == "1.0"
    shutil.rmtree(project.venv("api"))
    assert project.doit().did["restore:api"].startswith("hit")
    assert project.output("api", "beta") == "1.0"
    assert (project.site("api") / "alpha.py").is_symlink() == (mode == "symlink")
    assert all(bytecode_is_valid(source) for source in project.site("api").rglob("*.py"))
    assert project.doit().nothing_to_do
