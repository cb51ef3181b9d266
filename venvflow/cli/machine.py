"""What the commands about paths share: the store, in a project or outside of all, and venvs by path."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from venvflow.cli.render import Output
from venvflow.errors import UsageError, shown

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

    def need_venv(self, path: str, directory: str) -> None:
        """Raise UsageError, with the nearest venv there is, if *path* was misspelled.

        It is that of :meth:`path_of` for a word that was written in *directory*. A venv of the config need
        not be there. What lies at *path* is not judged, but for a directory that has its venv inside.
        """
        inside = os.path.isdir(path) and not os.path.lexists(f"{path}/pyvenv.cfg")
        if self.job_at(path) is not None or (os.path.lexists(path) and not inside):
            return
        found = list(_venvs_in(path)) if inside else self._meant(path, directory)
        if inside and not found:
            return
        raise UsageError(
            "it is not a venv: it has no pyvenv.cfg" if inside else "there is no such directory",
            where=shown(path),
            hint=f"Did you mean {shown(found[0])}?" if found else self._known(),
        )

    def _meant(self, path: str, directory: str) -> list[str]:
        """Return what may have been meant: a venv's name in the config, or a path with a venv."""
        from venvflow.pure.nearest import nearest  # noqa: PLC0415 - only for mistakes

        above, word = os.path.split(path)
        is_name = self.flow is not None and above == os.path.realpath(directory)
        names = nearest(word, self.flow.config.venvs) if is_name and self.flow is not None else []
        return names or list(nearest_venvs(path))

    def _known(self) -> str:
        """Return what can be named."""
        names = sorted(self.flow.config.venvs) if self.flow is not None else []
        listed = f" There are: {', '.join(map(shown, names))}." if names else ""
        return f"Name a venv: its directory, with a pyvenv.cfg in it, or its name in the config.{listed}"


_USUAL = (".venv", "venv", "env", ".env")
"""What the directory of a project's venv is usually called."""


def _venvs_in(directory: str) -> Iterator[str]:
    """Yield the venvs that a project has in its *directory*."""
    for name in _USUAL:
        if os.path.lexists(f"{directory}/{name}/pyvenv.cfg"):
            yield f"{directory}/{name}"


def nearest_venvs(path: str) -> Iterator[str]:
    """Yield venvs whose path differs from *path* in the first name that is not there, or lies below such."""
    from venvflow.pure.nearest import nearest  # noqa: PLC0415 - only for mistakes

    above, missing = os.path.split(path)
    below = ""
    while not os.path.isdir(above) and above != "/":
        below = f"/{missing}{below}"
        above, missing = os.path.split(above)
    with suppress(OSError):  # who may not look there gets no advice
        for name in nearest(missing, os.listdir(above), 5):
            candidate = os.path.join(above, name) + below
            if os.path.lexists(f"{candidate}/pyvenv.cfg"):
                yield candidate
            yield from _venvs_in(candidate)


def open_machine(args: argparse.Namespace, out: Output) -> Machine:
    """Return the store that *args* and the environment mean; a config is used where there is one.

    Raises as :func:`venvflow.cli.project.open_flow` does, but for a config that is not there.
    """
    from venvflow import config as configs  # noqa: PLC0415 - imports the YAML library
    from venvflow.cli.project import open_flow  # noqa: PLC0415

    try:
        configs.find_config(args.work_dir, args.config)
    except UsageError:
        if args.config is not None:
            raise
        return Machine(configs.usual_store(args.work_dir, os.environ), None)
    flow = open_flow(args, out)
    return Machine(flow.config.store, flow)
