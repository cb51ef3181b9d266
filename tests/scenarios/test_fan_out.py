"""Many venvs, built by machines that share nothing but a bucket: each once in all, and then pulled."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from scenario import BESIDE, Machine, Project

from venvflow.pure.signing import encode_secret, public_of, secret_key

SECRET = encode_secret(os.urandom(32))
VENVFLOW = os.path.join(BESIDE, "venvflow")


class Node:
    """A machine with a home, a store and a checkout of the project; all see the *bucket*."""

    def __init__(self, root: Path, wheelhouse: Path, bucket: Path, count: int) -> None:
        self.machine = Machine(root, wheelhouse)
        root.mkdir()
        remote: dict[str, Any] = {
            "url": f"file://{bucket}", "mode": "write", "keys": {"main-2026": public_of(secret_key(SECRET))},
        }  # fmt: skip
        names = [f"v{number}" for number in range(count)]
        self.project: Project = self.machine.project(
            "project", {name: {} for name in names}, store={"durability": "none", "remote": remote}
        )
        for number, name in enumerate(names):  # no two locks are the same
            self.project.lock(name, self.machine.wheel("alpha"), self.machine.wheel("delta", f"1.{number}"))

    def run(self, *words: str, key: str = SECRET) -> str:
        """Run venvflow here, which must succeed, and return what it said."""
        done = self.project.run([VENVFLOW, *words], env={"VENVFLOW_SIGNING_KEY": key})
        assert done.code == 0, done.text
        return done.out

    def lacking(self) -> list[str]:
        """Return what neither this machine nor the bucket has, as a job that makes a matrix asks."""
        found = json.loads(self.run("status", "--remote", "--json"))["venvs"]
        return [each["name"] for each in found if not (each["remote"] or each["stored"])]

    def take_its_share(self, share: str) -> list[str]:
        """Build the venvs of a share, push them, and return which ones were built."""
        said = self.run("build", "--shard", share)
        self.run("push", "--shard", share)
        return re.findall(r"^build-venv:(\S+)  built", said, re.MULTILINE)


def fan_out(root: Path, wheelhouse: Path, count: int) -> None:
    """Let four machines build *count* venvs in turns of two, and a fifth take them all."""
    *nodes, last = (Node(root / f"node-{number}", wheelhouse, root / "bucket", count) for number in range(5))
    names = sorted(f"v{number}" for number in range(count))
    assert sorted(last.lacking()) == names

    with ThreadPoolExecutor(2) as pool:
        shares = [f"{number}/4" for number in range(1, 5)]
        built = [*pool.map(Node.take_its_share, nodes, shares)]

    assert sorted(name for each in built for name in each) == names
    assert last.lacking() == []
    said = last.run("build", key="")
    assert "build-venv" not in said
    assert sorted(re.findall(r"^restore:(\S+)  hit .* signed by main-2026", said, re.MULTILINE)) == names
    for number in (0, count - 1):
        assert last.project.output(f"v{number}", "delta") == f"1.{number}"
    assert len([*(root / "bucket/v1/records").glob("*/*")]) == count


def test_four_machines_build_each_venv_once_and_a_fifth_takes_all(tmp_path: Path, wheelhouse: Path) -> None:
    """By shares, which nobody has to agree on."""
    fan_out(tmp_path, wheelhouse, 8)


@pytest.mark.long
def test_four_machines_build_twenty_venvs_once(tmp_path: Path, wheelhouse: Path) -> None:
    """The same with more."""
    fan_out(tmp_path, wheelhouse, 20)


def test_who_builds_what_is_missing_leaves_the_rest(tmp_path: Path, wheelhouse: Path) -> None:
    """By what the bucket lacks: after a change of two locks these two are named, built, and nobody's else."""
    one, other = (Node(tmp_path / name, wheelhouse, tmp_path / "bucket", 4) for name in ("one", "other"))
    one.run("build")
    one.run("push")
    for node in (one, other):
        for name in ("v1", "v3"):
            node.project.lock(name, node.machine.wheel("alpha"), node.machine.wheel("delta", f"2.{name[1]}"))
    lacking = other.lacking()
    assert lacking == ["v1", "v3"]
    said = other.run("build", *lacking)
    assert re.findall(r"^build-venv:(\S+)  built", said, re.MULTILINE) == lacking
    other.run("push", *lacking)
    assert one.lacking() == []
    assert "build-venv" not in one.run("build", key="")
