"""The context of a command: the project whose config it uses, if there is one, and the store."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from venvflow import config as configs
from venvflow.cli.render import Output
from venvflow.errors import UsageError
from venvflow.flow import Flow, load
from venvflow.model import Config, StoreConfig, TrimPolicy, VenvSpec
from venvflow.pure.variables import unknown_variables
from venvflow.steps.job import Job


class Context(NamedTuple):
    """The *store* to work with, the *flow* of the project that we are in, if any, the work *directory*."""

    store: StoreConfig
    flow: Flow | None
    directory: str

    @property
    def venvs(self) -> Mapping[str, VenvSpec]:
        """Return the venvs of the config by name; none without a config."""
        return self.flow.config.venvs if self.flow is not None else {}

    @property
    def sets(self) -> Mapping[str, tuple[str, ...]]:
        """Return the venvs of each set of the config; none without a config."""
        return self.flow.config.sets if self.flow is not None else {}

    def scope(self, *, everything: bool) -> str | None:
        """Return the resolved root of the project that an answer is about, None if it is about the store."""
        return None if everything or self.flow is None else os.path.realpath(self.flow.config.root)

    @property
    def jobs(self) -> list[Job]:
        """Return the jobs of all venvs of the config."""
        return list(map(self.flow.job, self.venvs)) if self.flow is not None else []

    def job(self, name: str) -> Job | None:
        """Return the job of the config's venv *name*."""
        return self.flow.job(name) if self.flow is not None and name in self.venvs else None

    def job_at(self, path: str) -> Job | None:
        """Return the job of the config's venv at the absolute *path*, resolved but for its last name."""
        return next((job for job in self.jobs if job.place.path == path), None)

    def any_job(self, path: str, say: Callable[[str], None]) -> Job:
        """Return the job of the venv at *path*; one that is in no config has the store's settings."""
        return self.job_at(path) or self.unnamed_job(path, os.path.dirname(path), say)

    def unnamed_job(self, path: str, root: str, say: Callable[[str], None]) -> Job:
        """Return a job of the venv at *path*, in the project at *root*, as if no config named it."""
        spec = VenvSpec("", path, (), link=self.store.link, min_size=self.store.min_size)
        return Job(Config("", root, self.store, TrimPolicy(), {}), spec, os.environ, time.time, say)

    def absolute(self, word: str) -> str:
        """Return the absolute path that *word* is, from the work directory; its last name is not resolved."""
        path = os.path.normpath(os.path.join(os.path.abspath(self.directory), word))
        return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def open_flow(args: argparse.Namespace, out: Output) -> Flow:
    """Return the flow of the project that *args* name. Raises ConfigError, Refused or UsageError."""
    flow = load(args.work_dir, os.environ, explicit=args.config)
    flow.say = out.say
    flow.command = ("venvflow", *args.words)
    for warning in flow.config.warnings:
        out.warn(warning)
    return flow


def open_context(args: argparse.Namespace, out: Output) -> Context:
    """Return the store that *args* and the environment mean; a config is used where there is one.

    Raises as :func:`open_flow` does, but for a config that is not there.
    """
    try:
        configs.find_config(args.work_dir, args.config)
    except UsageError:
        if args.config is not None:
            raise
        for warning in unknown_variables(os.environ):
            out.warn(warning)
        return Context(configs.usual_store(args.work_dir, os.environ), None, args.work_dir)
    flow = open_flow(args, out)
    return Context(flow.config.store, flow, args.work_dir)
