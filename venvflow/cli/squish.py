"""``venvflow squish``: share the files of any venvs, whoever made them."""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING, Any

from venvflow.cli.context import Context, open_context
from venvflow.cli.parser import Commands, add_command
from venvflow.cli.render import Output, counted, outcome_text
from venvflow.cli.resolve import need_venv, path_of
from venvflow.errors import UsageError, VenvflowError, shown
from venvflow.pure.units import parse_size, show_size

if TYPE_CHECKING:
    from venvflow.state.accounts import Balance, Ledger
    from venvflow.steps.estimate import Estimate
    from venvflow.steps.squish_path import Errand, Sharing

MODES = ("reflink", "hardlink", "copy", "symlink")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "squish",
        run,
        summary="share the files of any venvs, made by any tool",
        more="Files that several venvs have are kept once, in the store; nothing of what they hold changes.\n"
        "A venv may be in a config or in none. What other programs share with it stays as it is.\n"
        "Run again, it shares what came since. unsquish takes it back.",
        example="venvflow squish ~/src/*/.venv",
    )
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="a venv: its directory, or its name in the config"
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be saved")
    parser.add_argument("--min-size", metavar="SIZE", help="leave smaller files private (the config's, or 1)")
    parser.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        default=[],
        help="leave these alone (gitignore rules)",
    )
    parser.add_argument(
        "--link",
        metavar="MODE[,MODE]",
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
    context = open_context(args, out)
    # The first failure decides how it ends; the other venvs are served all the same.
    service = _DryRun(args, out, context) if args.dry_run else _Squishing(args, out, context)
    paths = list(dict.fromkeys(path_of(context, word) for word in args.paths))
    codes = [service.serve(path) for path in paths]
    service.close()
    return next((code for code in codes if code), 0)


class _Service:
    """Serves one venv after the other, and answers when all are done."""

    def __init__(self, args: argparse.Namespace, out: Output, context: Context) -> None:
        from venvflow.state.accounts import Ledger  # noqa: PLC0415 - not for wrong words

        self._args = args
        self.out = out
        self.context = context
        self.ledger: Ledger = Ledger(os.path.realpath(context.store.path))
        self._sharing: Sharing = _sharing(args, context)
        self.records: list[dict[str, Any]] = []

    def serve(self, path: str) -> int:
        """Serve the venv at *path*; return the exit code of what went wrong, or 0."""
        try:
            need_venv(self.context, path)
            self._serve(path)
        except VenvflowError as error:
            self.out.fail(str(error))
            self.note(path, "failed", error.what)
            return error.exit_code
        return 0

    def _serve(self, path: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Answer."""
        raise NotImplementedError

    def note(
        self, path: str, did: str, reason: str = "", figures: dict[str, Any] | None = None, warnings: Any = ()
    ) -> None:
        """Take a note for the JSON document."""
        self.records.append(
            {"path": path, "did": did, "reason": reason, "figures": figures or {}, "warnings": list(warnings)}
        )

    def errand(self, path: str) -> Errand:
        """Return what is to be done with the venv at *path*."""
        from venvflow.disk.places import Place  # noqa: PLC0415
        from venvflow.steps.squish_path import Errand  # noqa: PLC0415

        job = self.context.job_at(path)
        return Errand(
            Place(path), _of_job(self._sharing, self._args, job), os.environ, time.time, self.ledger, job,
            self.out.say, self._tell(path),
        )  # fmt: skip

    def _tell(self, path: str) -> Any:
        if not self.out.verbose:
            return lambda _path, _how: None
        return lambda file, how: self.out.say(f"{shown(path)}/{shown(file)}: {how}")

    def document(self, disk: dict[str, int] | None) -> None:
        """Answer with the JSON document."""
        store = self.context.store.path
        self.out.document(
            {"store": store, "dry_run": bool(self._args.dry_run), "venvs": self.records, "disk": disk}
        )


class _Squishing(_Service):
    """The real thing."""

    def _serve(self, path: str) -> None:
        from venvflow.disk import locks  # noqa: PLC0415
        from venvflow.state.store import Store  # noqa: PLC0415
        from venvflow.steps.squish_path import refuse_unless_sharable, squish_path  # noqa: PLC0415

        errand = self.errand(path)
        refuse_unless_sharable(
            errand.place, os.path.realpath(self.context.store.path)
        )  # before a store is made
        timeout = locks.lock_timeout(os.environ)
        with Store(self.context.store, timeout=timeout, on_wait=self.out.say) as store:
            outcome = squish_path(store, errand)
        self.note(path, outcome.did, outcome.reason, outcome.figures, outcome.warnings)
        if not self.out.as_json:
            self.out.answer(f"{shown(path)}: {outcome_text(outcome)}")
        for warning in outcome.warnings:
            self.out.warn(f"{shown(path)}: {warning}")

    def close(self) -> None:
        """Answer with what was saved."""
        done = any(record["did"] == "squished" for record in self.records)
        balance = self.ledger.close() if done else None
        if self.out.as_json:
            self.document(None if balance is None else {**balance._asdict(), "saved": balance.saved})
        elif balance is not None:
            self.out.answer(_balanced(balance, self.context.store.path))
            if any(record["figures"].get("link") == "reflink" for record in self.records):
                self.out.say("blocks shared by reflink are seen by df, not by du")
        adopted = sum(record["figures"].get("adopted_bytes", 0) for record in self.records)
        if adopted and not self.out.as_json:
            self.out.say(
                f"{show_size(adopted)} of the store are files that another program, like uv's cache, has too"
            )


class _DryRun(_Service):
    """What it would do."""

    def __init__(self, args: argparse.Namespace, out: Output, context: Context) -> None:
        super().__init__(args, out, context)
        from venvflow.steps.estimate import Foresight  # noqa: PLC0415

        self._foresight = Foresight()
        self._files = self._bytes = 0

    def _serve(self, path: str) -> None:
        from venvflow.state.reader import open_reader  # noqa: PLC0415
        from venvflow.steps.estimate import estimate  # noqa: PLC0415

        with open_reader(self.context.store) as store:
            where = os.path.realpath(self.context.store.path)
            found = estimate(store, self.errand(path), self._foresight, store_path=where)
        self._files += found.files
        self._bytes += found.bytes
        self.note(path, "would squish", figures=_figures(found))
        if not self.out.as_json:
            self.out.answer(
                f"{shown(path)}: {found.files:,} of {counted(found.all_files, 'file')} would become links, "
                f"saving {show_size(found.bytes)}"
            )

    def close(self) -> None:
        """Answer with the sum."""
        if self.out.as_json:
            self.document(None)
        elif len(self.records) > 1:
            self.out.answer(f"would save {show_size(self._bytes)} by sharing {counted(self._files, 'file')}")


def _figures(found: Estimate) -> dict[str, int]:
    return {
        "files": found.files,
        "bytes": found.bytes,
        "elsewhere": found.elsewhere,
        "all_files": found.all_files,
    }


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


def _sharing(args: argparse.Namespace, context: Context) -> Sharing:
    """Return how to share venvs that are in no config, by the words and the store's settings."""
    from venvflow.steps.squish_path import Sharing  # noqa: PLC0415

    store = context.store
    return Sharing(
        _modes(args) or store.link,
        _min_size(args) or store.min_size,
        _exclude(args),
        args.bytecode or "canonical",
    )


def _of_job(sharing: Sharing, args: argparse.Namespace, job: Any) -> Sharing:
    """Return how to share a venv of the config: what the words leave open, its settings there decide."""
    if job is None:
        return sharing
    from dataclasses import replace  # noqa: PLC0415

    spec = job.spec
    return replace(
        sharing,
        link=_modes(args) or spec.link,
        min_size=_min_size(args) or spec.min_size,
        exclude=(*spec.exclude, *_exclude(args)),
        bytecode=args.bytecode or spec.bytecode,
    )


def _modes(args: argparse.Namespace) -> Any:
    modes = tuple(args.link.split(",")) if args.link else ()
    wrong = [mode for mode in modes if mode not in MODES]
    if wrong:
        raise UsageError(f"there is no link mode {shown(wrong[0])!r}", hint=f"There are: {', '.join(MODES)}.")
    twice = next((mode for mode in modes if modes.count(mode) > 1), "")
    if twice:
        raise UsageError(f"--link names {twice!r} twice", hint="Name each mode once, the best one first.")
    return modes


def _exclude(args: argparse.Namespace) -> tuple[str, ...]:
    from venvflow.pure.patterns import problems  # noqa: PLC0415 - hardly ever needed

    wrong = problems(args.exclude)
    if wrong:
        raise UsageError(wrong[0], where="--exclude", hint="Patterns are those of .gitignore.")
    return tuple(args.exclude)


def _min_size(args: argparse.Namespace) -> int:
    if args.min_size is None:
        return 0
    try:
        return parse_size(args.min_size)
    except ValueError as error:
        raise UsageError(f"--min-size: {error}", hint="Write it like 4KiB, or as plain bytes.") from None
