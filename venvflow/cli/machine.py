"""What the commands about paths share: the store, in a project or outside of all, and venvs by path."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, NamedTuple

from venvflow.cli.render import Output
from venvflow.errors import UsageError

if TYPE_CHECKING:
    from venvflow.flow import Flow
    from venvflow.model import StoreConfig
    from venvflow.steps.job import Job


class Machine(NamedTuple):
    """The store to work with, and the flow of the project that we are in, if we are in one."""

    store: StoreConfig
    flow: Flow | None

    def job_at(self, path: str) -> Job | None:
        """Return the job of the config's venv at the absolute *path*, resolved but for its last name."""
        if self.flow is not None:
            for name in self.flow.config.venvs:
                job = self.flow.job(name)
                if job.place.path == path:
                    return job
        return None

    def path_of(self, word: str, directory: str) -> str:
        """Return the absolute path that *word* means: a venv of the config by name, or a path.

        Where a word is both, the path counts if there is a venv. Paths are those from *directory*.
        """
        path = os.path.normpath(os.path.join(os.path.abspath(directory), word))
        named = self.flow is not None and word in self.flow.config.venvs
        if self.flow is not None and named and not os.path.lexists(f"{path}/pyvenv.cfg"):
            return self.flow.job(word).place.path
        return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def open_machine(args: argparse.Namespace, out: Output) -> Machine:
    """Return the store that *args* and the environment mean; a config is used where there is one.

    Raises as :func:`venvflow.cli.project.open_flow` does, but for a config that is not there.
    """
    from venvflow.cli.project import open_flow  # noqa: PLC0415
    from venvflow.pure import config as configs  # noqa: PLC0415 - imports the YAML library

    try:
        configs.find_config(args.work_dir, args.config)
    except UsageError:
        if args.config is not None:
            raise
        return Machine(configs.usual_store(args.work_dir, os.environ), None)
    flow = open_flow(args, out)
    return Machine(flow.config.store, flow)
