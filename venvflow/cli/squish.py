"""``venvflow squish``: shares the files of any venvs, made by any tool."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from venvflow.cli.arguments import Parser, pattern
from venvflow.cli.context import open_context
from venvflow.cli.operands import need_venv, paths_of
from venvflow.cli.render import Output, outcome_text
from venvflow.errors import VenvflowError, shown
from venvflow.model import Outcome, VenvSpec
from venvflow.pure.units import counted, parse_size, show_size
from venvflow.state.reader import open_reader
from venvflow.state.usage import Balance, Ledger
from venvflow.steps.any_venv import refuse_unless_sharable
from venvflow.steps.estimate import Foresight, estimate
from venvflow.steps.job import Job
from venvflow.steps.squish import squish_any

MORE = """\
Files that several venvs have are kept once, in the store; their content does not change.
A venv may be in a config or in none. What other programs share with it stays as it is.
Run again, it shares what is new. unsquish takes it back."""
EXAMPLE = "venvflow squish ~/src/*/.venv"

MODES = ("reflink", "hardlink", "copy", "symlink")


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="a venv: its directory, or name, set or pattern in the config",
    )
    parser.add_argument("--force", action="store_true", help="even if files of its packages are gone")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be saved")
    parser.add_argument(
        "--min-size", metavar="SIZE", type=_size, help="leave smaller files private (the config's, or 1)"
    )
    parser.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        default=[],
        type=pattern,
        help="leave these alone (gitignore rules)",
    )
    parser.add_argument(
        "--link",
        metavar="MODE[,MODE]",
        type=_modes,
        help=f"how to share, in this order: {', '.join(MODES)} (the config's)",
    )
    parser.add_argument(
        "--bytecode",
        choices=("canonical", "keep", "none"),
        help="compile it alike for all venvs, share it as it is, or leave it alone (the config's, canonical)",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Share the venvs; the exit code is that of the first one that could not be, or 0.

    JSON: ``store`` (its path), ``dry_run``, ``venvs`` and ``disk``. Each venv has ``path``, ``did``
    (squished, kept, failed; would squish), ``reason``, ``figures`` (counts, bytes and seconds) and
    ``warnings``. ``disk`` is null for a dry run and when nothing was done, else it has ``before`` and
    ``after``: what ``du`` says of these venvs and the store, ``saved``, and ``elsewhere``: bytes that left
    these directories and that other programs still hold.
    """
    return (_DryRun if args.dry_run else _Squishing)(args, out).run()


class EachVenv:
    """Does something to one venv after the other, and answers when all are done.

    The first failure decides how it ends; the other venvs are served all the same.
    """

    def __init__(self, args: argparse.Namespace, out: Output) -> None:
        self.args = args
        self.out = out
        self.context = open_context(args, out)
        self.records: list[dict[str, Any]] = []

    def run(self) -> int:
        """Serve all venvs; return the exit code of the first one that failed, or 0."""
        codes = [self._serve(path) for path in paths_of(self.context, self.args.paths)]
        self.close()
        return next((code for code in codes if code), 0)

    def _serve(self, path: str) -> int:
        try:
            need_venv(self.context, path)
            outcome = self.act(self.context.any_job(path, self.out.say))
        except VenvflowError as error:
            self.out.fail(str(error))
            self._note(path, Outcome("failed", error.what))
            return error.exit_code
        self._note(path, outcome)
        if not self.out.as_json:
            self.out.answer(f"{shown(path)}: {self.text(outcome)}")
        for warning in outcome.warnings:
            self.out.warn(f"{shown(path)}: {warning}")
        return 0

    def _note(self, path: str, outcome: Outcome) -> None:
        self.records.append({"path": path, **outcome.values()})

    def act(self, job: Job) -> Outcome:
        """Serve one venv."""
        raise NotImplementedError

    def text(self, outcome: Outcome) -> str:
        """Return what became of one venv, in one line."""
        return outcome_text(outcome)

    def close(self) -> None:
        """Answer for all venvs."""
        raise NotImplementedError

    def document(self, **more: Any) -> None:
        """Answer with the JSON document: the store, the venvs, and *more*."""
        self.out.document({"store": self.context.store.path, "venvs": self.records, **more})

    def on_file(self, job: Job) -> Callable[[str, str], None]:
        """Return what gets the news of each file of the venv, and prints it if asked to."""

        def on_file(file: str, how: str) -> None:
            if self.out.verbose:
                self.out.say(f"{shown(job.place.path)}/{shown(file)}: {how}")

        return on_file


class _Squishing(EachVenv):
    """Shares each venv."""

    def __init__(self, args: argparse.Namespace, out: Output) -> None:
        super().__init__(args, out)
        self._ledger = Ledger(os.path.realpath(self.context.store.path))

    def act(self, job: Job) -> Outcome:
        """Share the venv."""
        refuse_unless_sharable(job.place, os.path.realpath(self.context.store.path))  # before it is made
        with job.open_store() as store:
            how = _asked_for(self.args, job.spec)
            job = replace(job, force=self.args.force)
            return squish_any(job, store, how, ledger=self._ledger, on_file=self.on_file(job))

    def close(self) -> None:
        """Answer with what was saved."""
        done = any(record["did"] == "squished" for record in self.records)
        balance = self._ledger.close() if done else None
        if self.out.as_json:
            disk = None if balance is None else {**balance._asdict(), "saved": balance.saved}
            self.document(dry_run=False, disk=disk)
            return
        if balance is not None:
            self.out.answer(_balanced(balance, self.context.store.path))
            if any(record["figures"].get("link") == "reflink" for record in self.records):
                self.out.say("blocks shared by reflink are seen by df, not by du")
        adopted = sum(record["figures"].get("adopted_bytes", 0) for record in self.records)
        if adopted:
            self.out.say(
                f"{show_size(adopted)} of the store are files that another program, like uv's cache, has too"
            )


class _DryRun(EachVenv):
    """Says what sharing each venv would save."""

    def __init__(self, args: argparse.Namespace, out: Output) -> None:
        super().__init__(args, out)
        self._foresight = Foresight()

    def act(self, job: Job) -> Outcome:
        """Say what sharing the venv would save."""
        with open_reader(self.context.store) as store:
            where = os.path.realpath(self.context.store.path)
            asked = replace(job, spec=_asked_for(self.args, job.spec))
            found = estimate(store, asked, self._foresight, store_path=where)
        return Outcome("would squish", "", asdict(found))

    def text(self, outcome: Outcome) -> str:
        """Return what would be saved, in one line."""
        files, size, all_files = (int(outcome.figures[name]) for name in ("files", "bytes", "all_files"))
        return f"{files:,} of {counted(all_files, 'file')} would become links, saving {show_size(size)}"

    def close(self) -> None:
        """Answer with the sum."""
        if self.out.as_json:
            self.document(dry_run=True, disk=None)
        elif len(self.records) > 1:
            files, size = (
                sum(record["figures"].get(name, 0) for record in self.records) for name in ("files", "bytes")
            )
            self.out.answer(f"would save {show_size(size)} by sharing {counted(files, 'file')}")


def _balanced(balance: Balance, store: str) -> str:
    saved = balance.saved
    change = f"saved {show_size(saved)}" if saved >= 0 else f"took {show_size(-saved)} more"
    text = (
        f"{change}: these venvs and the store ({shown(store)}) occupied {show_size(balance.before)}, "
        f"now {show_size(balance.after)}"
    )
    if balance.elsewhere:
        text += f"; {show_size(balance.elsewhere)} of that is still held by other programs"
    return text


# --------------------------------------------------------------------------- options


def _asked_for(args: argparse.Namespace, spec: VenvSpec) -> VenvSpec:
    """Return how to share one venv: what the words leave open, its own settings decide."""
    return replace(
        spec,
        link=args.link or spec.link,
        min_size=args.min_size or spec.min_size,
        exclude=(*spec.exclude, *args.exclude),
        bytecode=args.bytecode or spec.bytecode,
    )


def _modes(text: str) -> tuple[str, ...]:
    modes = text.split(",")
    for mode in modes:
        if mode not in MODES:
            raise argparse.ArgumentTypeError(
                f"there is no link mode {shown(mode)!r}; there are {', '.join(MODES)}"
            )
        if modes.count(mode) > 1:
            raise argparse.ArgumentTypeError(f"it names {mode!r} twice")
    return tuple(modes)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
