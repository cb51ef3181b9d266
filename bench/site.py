"""A fleet on one machine: a bucket that has the snapshot of the main input, and machines that want it.

What is pushed and pulled goes over a :mod:`~bench.link`. Each machine is a project with a store of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench import link
from bench.link import Link, Speed
from bench.object_storage import BUCKET, Bucket, seaweedfs
from bench.project import Project, built
from bench.world import World
from venvflow.pure.signing import encode_secret, public_of

_SECRET = bytes(range(32))
_KEYS = {"bench": public_of(_SECRET)}


@dataclass
class Site:
    """A *bucket*, and the project *home* from whose venv it is filled."""

    world: World
    bucket: Bucket
    home: Project
    _machines: int = 0

    def settings(self, project: Project) -> dict[str, str]:
        """Return the variables of a run that may write."""
        return {
            **project.settings,
            **self.bucket.environ("writer"),
            "VENVFLOW_SIGNING_KEY": encode_secret(_SECRET),
        }

    def remote(
        self, endpoint: str, *, mode: str = "read", prefix: str = "main", **more: Any
    ) -> dict[str, Any]:
        """Return what a config says of the remote."""
        return {
            "url": f"s3://{BUCKET}/{prefix}",
            "endpoint": endpoint,
            "region": "us-east-1",
            "mode": mode,
            "keys": _KEYS,
            **more,
        }

    def machine(
        self, remote: Mapping[str, Any], venvs: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Project:
        """Return a project on a machine whose store is empty; its venv is the main input's."""
        self._machines += 1
        name = self.world.main
        one = {name: {"path": ".venv", "locks": ["requirements.txt"], "bytecode": "canonical"}}
        project = Project(self.world, f"machine-{self._machines}", venvs or one)
        configure(project, remote)
        project.use_lock(self.world.lock_file(name))
        return project

    def push(self, project: Project) -> str:
        """Push the main input's venv of *project*, over the link that its config names."""
        return self.world.run(
            self.world.venvflow("push", self.world.main), project.root, settings=self.settings(project)
        )


@contextmanager
def site(world: World) -> Iterator[Site]:
    """Give a site whose bucket is filled; raises Unavailable where there is no server."""
    with ExitStack() as stack:
        environ = world.environ | {"TMPDIR": world.run_dir}  # where the server puts its sockets and logs
        bucket = stack.enter_context(seaweedfs(world.path("bucket"), environ))
        home = built(world, world.main, packed=False)
        made = Site(world, bucket, home)
        stack.callback(configure, home, None)
        world.say(f"pushing {world.main}")
        configure(home, made.remote(bucket.endpoint, mode="write"))
        made.push(home)
        yield made


def configure(project: Project, remote: Mapping[str, Any] | None) -> None:
    """Give the config of *project* that remote, or none."""
    with open(project.path("venvflow.yaml"), encoding="ascii") as file:
        config = json.load(file)
    config["store"].pop("remote", None)
    if remote is not None:
        config["store"]["remote"] = dict(remote)
    project.write("venvflow.yaml", json.dumps(config, indent=1))


@contextmanager
def linked(site_: Site, speed: Speed) -> Iterator[Link]:
    """Give a link to the bucket."""
    with link.through(site_.bucket.endpoint, speed) as way:
        yield way
