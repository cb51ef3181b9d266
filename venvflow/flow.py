"""The flow of one project: its config, a job for each venv, and the answer whether a step must run.

Every run asks that for every venv, so this only reads small files and calls ``stat``. What
was read is kept for as long as its file does not change.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property

from venvflow import config as configs
from venvflow.disk.places import RECEIPT, read_receipt
from venvflow.errors import VenvflowError
from venvflow.model import Config, Receipt
from venvflow.pure.plan import Action, VenvFacts, plan
from venvflow.pure.sharing import is_resettled
from venvflow.pure.variables import named_config
from venvflow.state.file_stats import learn_stats, suspect_venvs
from venvflow.steps.job import Job
from venvflow.steps.key_inputs import still_holds
from venvflow.steps.state_files import (
    archive_facts,
    has_passed,
    is_published,
    is_pushed,
    is_recent,
    name_of_trim,
    read_answer,
    read_key,
    read_trims,
    stamp_of,
)


@dataclass(eq=False)
class Flow:
    """A loaded config with the world around it. *command* are the words of the command, for snapshots.

    *named* are the venvs that the user named: only their files are checked, all of them. If it is empty,
    files of all venvs are checked, as many as a run has time for. *given_up* are the venvs that are to be
    replaced although they were changed by hand (:meth:`give_up`), *fresh* those that are to be built from
    nothing, whatever is there. *waits* is called again and again while a step waits for what another process
    builds, *at_work* are the venvs that another process of this run is making.
    """

    config: Config
    environ: Mapping[str, str]
    now: Callable[[], float] = time.time
    say: Callable[[str], None] = lambda _: None
    command: tuple[str, ...] = ()
    named: frozenset[str] = frozenset()
    given_up: set[str] = field(default_factory=set)
    fresh: frozenset[str] = frozenset()
    waits: Callable[[], None] = lambda: None
    at_work: set[str] = field(default_factory=set)
    _jobs: dict[tuple[str, bool], Job] = field(default_factory=dict)
    _plans: dict[str, dict[str, Action]] = field(default_factory=dict)
    _has_shared: bool = False

    def job(self, venv: str, *, force: bool = False) -> Job:
        """Return the job for one venv of the config."""
        force = force or venv in self.given_up
        job = self._jobs.get((venv, force))
        if job is None:
            spec = self.config.venvs[venv]
            environ, credentials = self._environments
            job = Job(
                self.config, spec, environ, self.now, self.say,
                force=force, fresh=venv in self.fresh, command=self.command, credentials=credentials,
                waits=self._waits, run=self._run,
            )  # fmt: skip
            self._jobs[venv, force] = job
        return job

    @cached_property
    def _environments(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return the environment of builders and checks, and that of the remote, if there is one."""
        if self.config.store.remote is None:
            return self.environ, {}
        from venvflow.pure.ci import without_credentials  # noqa: PLC0415 - most projects have no remote

        named = {name for spec in self.config.venvs.values() for name in spec.key_env}
        return without_credentials(self.environ, named), self.environ

    @cached_property
    def _run(self) -> Collection[str]:
        """Return the venvs that this run is about."""
        return [name for name in self.config.venvs if name in self.named] if self.named else self.config.venvs

    def _waits(self) -> None:
        self.waits()

    def give_up(self, venvs: Iterable[str]) -> None:
        """Let the next run make those of *venvs* anew that were changed by hand.

        It is the run that replaces them, so one that ends early loses nothing. A venv that cannot be looked
        at is left to its own tasks, which say why.
        """
        from venvflow.steps.facts import find_venv  # noqa: PLC0415 - no other run looks at all bytes

        for name in venvs:
            job = self.job(name)
            with suppress(VenvflowError), job.locked(), job.open_store() as store, store.use():
                job.place.settle()
                if find_venv(job, store, "bytes").drift.by_hand:
                    self.given_up.add(name)

    # ----------------------------------------------------------------------- must a step run?

    def is_due(self, verb: str, venv: str) -> bool:
        """Return whether a task of the venv has to run, as far as small files and stats tell."""
        found = self._plans.get(venv)  # at once: a step that ends in another thread forgets them
        if found is None:
            found = self._plans[venv] = plan(self._facts(venv))
        return found[verb].due

    def forget_plans(self, *, shared: bool = False) -> None:
        """Forget the plans, because a step has run for some venv; *shared*: the step shared its files."""
        self._plans.clear()
        self._has_shared = self._has_shared or shared

    def keeps(self, venv: str) -> bool:
        """Return whether this process keeps in memory what it made of a venv, for the steps that follow."""
        return any(job.built or job.manifests for (name, _), job in self._jobs.items() if name == venv)

    def prepare_next(self) -> None:
        """Write down what the next run needs to see by stats alone that there is nothing to do."""
        if self._has_shared:
            learn_stats(self.config, self._shared(self.config.venvs).values())

    def _facts(self, venv: str) -> VenvFacts:
        """Return the facts that are cheap: the key is the noted one, whether it holds or not."""
        job = self.job(venv)
        record, receipt, answer = read_key(job), self._receipt_for_key(job), read_answer(job)
        key = record.key.digest if record is not None else ""
        holds = record is not None and still_holds(job, record)
        return VenvFacts(
            venv=venv,
            path=job.place.path,
            fresh=job.fresh,
            noted_key=key,
            key=key,
            key_holds=holds,
            receipt=receipt,
            # Of one that is about to be replaced, the steps look at all.
            suspect=receipt is not None and holds and self._is_suspect(job, receipt),
            passed_check=has_passed(job, key),
            unsettled=job.place.is_unsettled(),
            came_last_time=answer.hit if answer is not None and answer.key == key else None,
            published=receipt is not None and is_published(job, receipt),
            archive=archive_facts(job),
            resettled=is_resettled(receipt, job.spec),
        )

    def _is_suspect(self, job: Job, receipt: Receipt) -> bool:
        """Return whether the venv does not look as it was made, or its symlinks lead nowhere.

        The steps that come after its build in this process look themselves.
        """
        if job.built or job.manifests or job.spec.name in self.at_work:
            return False
        if not job.place.has_same_directories(receipt) or job.spec.name in self._suspects:
            return True
        if receipt.link != "symlink":
            return False
        first = next(iter(receipt.trees), "")
        here = os.path.realpath(self.config.store.path)
        return receipt.store != here or not os.path.lexists(f"{here}/trees/{first[:2]}/{first[2:]}")

    def may_push(self) -> bool:
        """Return whether this run may write to a remote."""
        remote = self.config.store.remote
        if remote is None:
            return False
        from venvflow.pure.ci import access_of  # noqa: PLC0415 - most projects have no remote

        return access_of(remote, self.environ).write

    def to_push(self) -> list[str]:
        """Return the venvs whose snapshots are not noted to be in the remote, or were more than a day ago."""
        jobs = map(self.job, self.config.venvs)
        return [job.spec.name for job in jobs if not is_pushed(job, self._receipt_for_key(job))]

    def is_trimmed(self) -> bool:
        """Return whether there is nothing to trim: no snapshot came or went since, no interval passed."""
        return self.why_trim() == ""

    def why_trim(self) -> str:
        """Return why the trim policy has to be applied, empty if it need not."""
        noted = read_trims(self.config.store.path).get(name_of_trim(self.config))
        generation = stamp_of(os.path.join(self.config.store.path, "snapshots"))
        if not generation:
            return ""  # there is no store yet
        if noted is None:
            return "this policy was not applied to the store lately"
        if noted.generation != generation[-1]:
            return "snapshots came or went since the last time"
        return "" if is_recent(noted, self.now()) else "the last time was more than a day ago"

    @cached_property
    def _suspects(self) -> frozenset[str]:
        """Return the venvs with files that do not look as they were made; looked for once in a run."""
        return suspect_venvs(self.config, self._shared(self._run), whole=bool(self.named))

    def _shared(self, names: Iterable[str]) -> dict[str, Receipt]:
        """Return the receipts of those venvs that are shared, for the key that is noted."""
        receipts = ((name, self._receipt_for_key(self.job(name))) for name in names)
        return {name: each for name, each in receipts if each is not None and each.state == "shared"}

    def _receipt_for_key(self, job: Job) -> Receipt | None:
        record = read_key(job)
        receipt = _receipt(job.place.path, stamp_of(f"{job.place.path}/{RECEIPT}"))
        if record is None or receipt is None or not receipt.is_for(record.key.digest, job.place.path):
            return None
        return receipt


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

    *explicit*, or else *environ*, may name the config file. Raises ConfigError, Refused or UsageError.
    """
    file, root = configs.find_config(directory, explicit or named_config(environ))
    return Flow(
        configs.load(file, root, environ), environ, command=(os.path.basename(sys.argv[0]), *sys.argv[1:])
    )
