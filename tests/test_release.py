"""The release workflow: its shell steps are run on a clone, with wheels of what is installed as the index.

What only the forge can do (artifacts, attestations, trusted publishing) is held against what it must not do.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.pages import ROOT
from tools.world import World
from venvflow import __version__

WORKFLOWS = {
    file.stem: yaml.safe_load(file.read_text("utf-8")) for file in (ROOT / ".github/workflows").glob("*.yml")
}
RELEASE = WORKFLOWS["release"]


def run(world: World, script: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run what a step runs, as the forge does, in the clone."""
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script], cwd=world.home / "venvflow", check=False, timeout=240,
        env={**world.environ, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.fixture
def job(tmp_path: Path) -> World:
    """Give a machine with a clone; its setup has what requirements/setup.txt names from the tests."""
    world = World(tmp_path, tmp_path / "wheels")
    world.clone(ROOT, uv=True)
    (clone := world.home / "venvflow").joinpath(".make").mkdir()
    venv = clone / ".make/venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (site,) = venv.glob("lib/python3*/site-packages")
    beside = next(path for path in sys.path if path.endswith("site-packages"))
    for name in ("pip", "flit_core"):
        (site / name).symlink_to(f"{beside}/{name}")
    assert (
        run(world, "git init -q && git add -A && git commit -qm Release && touch .make/venv/setup").returncode
        == 0
    )
    return world


@pytest.mark.long
def test_the_steps_of_a_release_build_and_check_what_is_published(job: World) -> None:
    """Wheel and sdist are good, and the same bytes twice; another version or a file too many stops it."""
    build, check = (step["run"] for step in RELEASE["jobs"]["build"]["steps"] if "run" in step)

    def bytes_made() -> dict[str, bytes]:
        assert (made := run(job, build)).returncode == 0, made.stdout
        return {file.name: file.read_bytes() for file in (job.home / "venvflow/dist").iterdir()}

    first = bytes_made()
    checked = run(job, check, GITHUB_REF_NAME=f"v{__version__}")
    wrong = run(job, check, GITHUB_REF_NAME="v99.0")

    assert checked.returncode == 0, checked.stdout
    assert re.findall(r"(\S+): good", checked.stdout) == [
        f"dist/{name}" for name in sorted(first, key=len)[::-1]
    ]
    assert wrong.returncode != 0
    assert "is not what the tag says: v99.0" in wrong.stdout
    assert bytes_made() == first
    (job.home / "venvflow/venvflow/stray.py").touch()
    bytes_made()
    stray = run(job, check, GITHUB_REF_NAME=f"v{__version__}")
    assert stray.returncode != 0
    assert "differ: ['venvflow/stray.py']" in stray.stdout


def test_a_release_comes_from_a_tag_and_is_published_without_a_token() -> None:
    """Only what was built and checked is published; the job that may do that runs nothing of ours."""
    jobs: dict[str, Any] = RELEASE["jobs"]
    publish = jobs["publish"]

    assert RELEASE[True] == {"push": {"tags": ["v*"]}}
    assert (jobs["build"]["needs"], publish["needs"]) == ("test", "build")
    assert publish["environment"]
    assert [name for name, job in jobs.items() if "id-token" in job["permissions"]] == ["publish"]
    assert not any("run" in step or "checkout" in step["uses"] for step in publish["steps"])
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text("utf-8")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_do_no_more_than_it_needs(name: str) -> None:
    """Nothing writes to the repository, and each action is one of a known version."""
    workflow = WORKFLOWS[name]
    granted = [workflow["permissions"], *(job.get("permissions", {}) for job in workflow["jobs"].values())]
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]

    assert all(
        scope in ("id-token", "attestations") or right == "read"
        for each in granted
        for scope, right in each.items()
    )
    assert all(
        re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+|[0-9a-f]{40})", step["uses"])
        for step in steps
        if "uses" in step
    )
