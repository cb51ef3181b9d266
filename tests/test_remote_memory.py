"""A file of a gigabyte goes into a remote and comes out of it in the memory of any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import fleet
from bench.costs import cost_of
from bench.project import Project
from bench.site import configure
from bench.synthetic import Shape
from bench.world import World
from venvflow.pure.signing import encode_secret, public_of

LIMIT = 250_000_000
SECRET = bytes(range(32))
_LARGE = Shape(
    directories=1, modules=2, module_size=500, data_files=1, data_size=1000, library_size=1_000_000_000
)


@pytest.mark.long
def test_a_file_of_a_gigabyte_needs_no_more_memory_than_any_other(tmp_path: Path) -> None:
    """Command and child together, when it is pushed and when it is pulled."""
    world = World(str(tmp_path / "work"), quick=True, profile=False)
    remote = {"url": f"file://{tmp_path}/bucket", "mode": "write", "keys": {"main": public_of(SECRET)}}
    (tmp_path / "work").mkdir()
    with world.opened():
        peaks = {}
        for verb in ("push", "pull"):
            project = Project(world, verb, {"large": fleet.entry("large", _LARGE, bytecode="none")})
            project.write("large/requirements.txt", fleet.lock_text(1, 0))
            if verb == "push":
                project.run()
            configure(project, remote)
            settings = project.settings | {"VENVFLOW_SIGNING_KEY": encode_secret(SECRET)}
            words = world.venvflow(verb, "large", "--json")
            peaks[verb] = cost_of(world, words, cwd=project.root, settings=settings).memory
            said = json.loads(Path(world.path("said")).read_text())
            assert str(said["venvs"][0]["did"]).startswith(verb), said
        assert sum(path.stat().st_size for path in (tmp_path / "bucket").rglob("*") if path.is_file()) > 4e8
    assert all(30_000_000 < peak < LIMIT for peak in peaks.values()), peaks
