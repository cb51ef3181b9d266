"""One project's flow: its config, a job per venv, and for every step the question whether it must run.

The questions are asked on every run, of every venv, so they only read small files and ask for stats. What
was read is kept for as long as its file does not change.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache, cached_property

from venvflow import config as configs
from venvflow.disk.places import RECEIPT, Receipt, read_receipt
from venvflow.errors import shown
from venvflow.model import Config
from venvflow.pure.manifest import snapshot_id
from venvflow.pure.redaction import redact_words
from venvflow.steps.inputs import key_is_current
from venvflow.steps.job import Job
from venvflow.steps.patrol import Post, patrol
from venvflow.steps.records import (
    has_passed,
    is_recent,
    pack_is_current,
    read_answer,
    read_key,
    read_trims,
    stamp_of,
)


class Flow:
    """A loaded config with the world around it. *command* goes into the provenance of snapshots.

    *named* are the venvs that somebody asks for by name: these are looked at, whatever their number of files,
    and no others. Empty: all, as far as a run's budget goes.
    """

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        *,
        now: Callable[[], float] = time.time,
        say: Callable[[str], None] = lambda _: None,
        command: str = "",
    ) -> None:
        self.config = config
        self.environ = environ
        self.now = now
        self.say = say
        self.command = command
        self.named: frozenset[str] = frozenset()
        self._jobs: dict[tuple[str, bool], Job] = {}

    def job(self, venv: str, *, force: bool = False) -> Job:
        """Return the job for one venv of the config."""
        job = self._jobs.get((venv, force))
        if job is None:
            spec = self.config.venvs[venv]
            job = Job(self.config, spec, self.environ, self.now, self.say, force=force, command=self.command)
            self._jobs[venv, force] = job
        return job

    # ----------------------------------------------------------------------- must a step run?

    def is_hashed(self, venv: str) -> bool:
        """Return whether the key is that of the lock files as they are now."""
        return key_is_current(self.job(venv))

    def is_in_place(self, venv: str) -> bool:
        """Return whether the venv is there, for its key, checked, and untouched as far as a look tells.

        And whether nothing was left beside it: a run that was killed may have got so far, or no further.
        """
        job = self.job(venv)
        receipt = self._receipt_for_key(job)
        if receipt is None or not has_passed(job, receipt.key) or job.place.is_unsettled():
            return False
        looks_whole = job.place.untouched(receipt) and not self._is_hollow(receipt)
        return looks_whole and venv not in self._suspects

    def is_built(self, venv: str) -> bool:
        """Return whether there is a venv for the key that the last restore or build was content with."""
        job = self.job(venv)
        receipt, answer = self._receipt_for_key(job), read_answer(job)
        if receipt is None:
            return False
        if answer is not None and answer.key == receipt.key:
            return answer.hit
        return job.place.untouched(receipt) and not self._is_hollow(receipt)

    def is_squished(self, venv: str) -> bool:
        """Return whether the venv's files are the store's."""
        job = self.job(venv)
        receipt = self._receipt_for_key(job)
        return receipt is not None and receipt.state == "shared"

    def is_stored(self, venv: str) -> bool:
        """Return whether the store has the snapshot of the venv's manifest."""
        job = self.job(venv)
        receipt = self._receipt_for_key(job)
        if receipt is None or receipt.state != "shared":
            return False
        identifier = snapshot_id(receipt.key, job.position if receipt.bound else None)
        return os.path.lexists(os.path.join(self.config.store.path, "snapshots", f"{identifier}.json"))

    def is_packed(self, venv: str) -> bool:
        """Return whether the archive is there, or none is asked for."""
        return pack_is_current(self.job(venv))

    def is_trimmed(self) -> bool:
        """Return whether there is nothing to trim: no snapshot came or went since, no interval passed."""
        return self.why_trim() == ""

    def why_trim(self) -> str:
        """Return why the trim policy has to be applied, empty if it need not."""
        noted = read_trims(self.config.store.path).get(repr(self.config.trim))
        generation = stamp_of(os.path.join(self.config.store.path, "snapshots"))
        if not generation:
            return ""  # there is no store yet
        if noted is None:
            return "this policy was not applied to the store lately"
        if noted.generation != generation[-1]:
            return "snapshots came or went since the last time"
        return "" if is_recent(noted, self.now()) else "the last time was more than a day ago"

    def _is_hollow(self, receipt: Receipt) -> bool:
        """Return whether the venv's symlinks lead into another store, or into one that was made anew."""
        if receipt.link != "symlink":
            return False
        first = next(iter(receipt.trees), "")
        here = os.path.realpath(self.config.store.path)
        return receipt.store != here or not os.path.lexists(f"{here}/trees/{first[:2]}/{first[2:]}")

    @cached_property
    def _suspects(self) -> frozenset[str]:
        """Return the venvs with files that do not look as they were made; looked for once in a run."""
        jobs = [self.job(venv) for venv in self.config.venvs if venv in self.named or not self.named]
        receipts = [(job, self._receipt_for_key(job)) for job in jobs]
        posts = [Post(job, each) for job, each in receipts if each is not None and each.state == "shared"]
        return patrol(posts, whole=bool(self.named))

    def _key(self, job: Job) -> str:
        record = read_key(job)
        return record.key.digest if record is not None else ""

    def _receipt_for_key(self, job: Job) -> Receipt | None:
        receipt = _receipt(job.place.path, stamp_of(f"{job.place.path}/{RECEIPT}"))
        matches = receipt is not None and receipt.key == self._key(job) and receipt.path == job.place.path
        return receipt if matches else None


@cache
def _receipt(venv: str, stamp: tuple[int, ...]) -> Receipt | None:
    return read_receipt(venv) if stamp else None


def load(
    directory: str,
    environ: Mapping[str, str],
    *,
    explicit: str | None = None,
) -> Flow:
    """Return the flow of the project that *directory* lies in.

    *explicit* (or VENVFLOW_CONFIG) names the config file. Raises ConfigError, Refused or UsageError.
    """
    file, root = configs.find_config(directory, explicit or environ.get("VENVFLOW_CONFIG") or None)
    return Flow(configs.load(file, root, environ), environ, command=command_line())


def command_line() -> str:
    """Return what was typed, for the provenance of snapshots: the program's name and its words."""
    return shown(" ".join(redact_words([os.path.basename(sys.argv[0]), *sys.argv[1:]])))
