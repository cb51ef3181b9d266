"""``venvflow pack``: writes the archive of one venv, and proves that it is a good one."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from venvflow import progress_display
from venvflow.cli.arguments import Parser
from venvflow.cli.operands import serve_each
from venvflow.cli.render import Output
from venvflow.disk.archive import Options, Progress
from venvflow.errors import UsageError, shown
from venvflow.model import FORMATS, Outcome, PackOptions, Saved
from venvflow.pure.units import counted, show_duration, show_size
from venvflow.steps import pack as steps
from venvflow.steps import pack_check
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.job import Job
from venvflow.steps.pack_check import Checked, Smoke

MORE = """\
It is written from the venv's manifest and the store, so only what changed since the last
archive is compressed. Beside it come its SHA-256 and a description as JSON.
Without options it is the archive that pack: of the config asks for, or VENV.tar.zst here.
--output may name a file, or a directory (ending in /); {venv}, {key}, {python} and
{version:NAME} in it and in --arcroot are filled in.
Exits with 1 when --check or --smoke fails."""
EXAMPLE = "venvflow pack api -o 'dist/{venv}-{version:fastapi}-{key}.tar.zst' --smoke 'import api'"

_SHOWN = 20
"""Members with local paths that are listed; with -v, and as JSON, all are."""


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument(
        "venvs", metavar="VENV", nargs="*", help="names of venvs or sets in the config, or patterns"
    )
    parser.add_argument("-o", "--output", metavar="PATH", help="where to write it")
    parser.add_argument(
        "--archive-format",
        metavar="FORMAT",
        help="tar.zst, tar.xz, tar.gz, tar.bz2, tar or zip (by the name)",
    )
    parser.add_argument("--level", type=int, metavar="N", help="how hard to compress")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads that compress; never changes a byte"
    )
    parser.add_argument("--arcroot", metavar="NAME", help="put everything into a directory of this name")
    parser.add_argument(
        "--force", action="store_true", help="write it even if it is there and whole, or not ours"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="pack twice more and compare; list local paths that are left in it",
    )
    parser.add_argument("--smoke", metavar="CODE", help="unpack it to a temporary place and run CODE there")


def run(args: argparse.Namespace, out: Output) -> int:
    """Pack the venvs; 1 when a proof fails.

    JSON: ``venvs``, each with ``venv``, ``did`` (packed, kept or failed), ``reason`` (why it failed),
    ``archive`` (its path), ``figures`` (``bytes``, ``sha256`` …), ``warnings``, ``saved`` (a list of
    ``pattern``, ``files``, ``bytes``; null if not known), ``check`` (``reproducible``, ``sha256``, ``again``,
    and ``traces`` with ``member``, ``path``, ``times``) and ``smoke`` (``status``, ``output``), each null
    without its option.
    """
    outputs: set[str] = set()

    def serve(job: Job) -> tuple[dict[str, Any], int]:
        answer = _pack(job, args, out, outputs)
        if not out.as_json:
            answer.show(out)
        return answer.document(), 0 if answer.good else 1

    return serve_each(args, out, serve, force=args.force, otherwise=_FAILED)


_FAILED: dict[str, Any] = {
    "archive": None,
    "saved": None,
    "check": None,
    "smoke": None,
    "figures": {},
    "warnings": [],
}


def _pack(job: Job, args: argparse.Namespace, out: Output, outputs: set[str]) -> _Answer:
    """Pack one venv; *outputs* are the archives of those before, which it must not replace."""
    name = job.spec.name
    hashed = hash_lockfiles(job)
    options = _options(job, args)
    with shown_progress(out, f"packing {shown(name)}") as progress:
        if _is_configured(job, args):
            outcome = steps.pack(job, progress, threads=args.threads)
        else:
            output = _output(job, args, options)
            _refuse_twice(output.replace("{venv}", name), outputs)
            outcome = steps.pack_to(job, output, options, progress)
    checked = smoked = None
    if args.check:
        with shown_progress(out, f"checking {shown(name)}") as progress:
            checked = pack_check.check(job, outcome.reason, options, progress)
    if args.smoke is not None:
        with shown_progress(out, f"unpacking {shown(name)}") as progress:
            smoked = pack_check.smoke(job, outcome.reason, args.smoke, progress)
    for warning in (*hashed.warnings, *outcome.warnings):
        out.warn(f"{shown(name)}: {warning}")
    return _Answer(name, outcome, steps.saved(job) if job.spec.exclude else [], checked, smoked)


def shown_progress(out: Output, label: str) -> AbstractContextManager[Progress | None]:
    """Return what shows progress on standard error, or does nothing with ``-q``."""
    return nullcontext() if out.quiet else progress_display.progress(sys.stderr, f"venvflow: {label}")


# --------------------------------------------------------------------------- options


def _refuse_twice(output: str, outputs: set[str]) -> None:
    if output in outputs:
        raise UsageError(
            "its archive would have the name of the one before",
            where=shown(output),
            state="That one is whole.",
            hint="Put {venv} into --output, or name a directory with a / at its end.",
        )
    outputs.add(output)


def _is_configured(job: Job, args: argparse.Namespace) -> bool:
    """Return whether the archive is the one that the config asks for."""
    asked = (args.output, args.archive_format, args.level, args.arcroot)
    return job.spec.pack is not None and asked == (None,) * len(asked)


def _options(job: Job, args: argparse.Namespace) -> Options:
    """Return how to write: as the words say, else as the name of the output, else as the config."""
    configured = job.spec.pack or PackOptions("")
    named = (name for name in FORMATS if (args.output or "").endswith(f".{name}"))
    name, level = args.archive_format or next(named, None), args.level
    if name is None:
        name = configured.format
        level = configured.level if level is None else level
    threads = configured.threads if args.threads is None else args.threads
    return Options(name, level, threads, configured.arcroot if args.arcroot is None else args.arcroot)


def _output(job: Job, args: argparse.Namespace, options: Options) -> str:
    """Return the path to write, still with braces; relative ones are below the work directory."""
    default = (
        f"{job.spec.pack.output}/" if job.spec.pack is not None else f"{os.path.abspath(args.work_dir)}/"
    )
    output: str = os.path.join(args.work_dir, args.output or default)
    if output.endswith("/") or os.path.isdir(output):
        name = job.spec.pack.name if job.spec.pack is not None else "{venv}"
        return os.path.join(output, f"{name}.{options.format}")
    if not output.endswith(f".{options.format}"):
        raise UsageError(
            f"the name {args.output!r} does not end in .{options.format}",
            state="Nothing was written.",
            hint="Name the format at its end, or a directory with a / at its end.",
        )
    return output


# --------------------------------------------------------------------------- the answer


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was packed and proved."""

    venv: str
    outcome: Outcome
    saved: list[Saved] | None
    checked: Checked | None
    smoked: Smoke | None

    @property
    def good(self) -> bool:
        """Return whether all proofs that were asked for hold."""
        proved = self.checked is None or self.checked.reproducible
        return proved and (self.smoked is None or self.smoked.status == 0)

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        checked, smoked = self.checked, self.smoked
        return {
            "venv": self.venv,
            "did": self.outcome.did,
            "reason": "",
            "archive": self.outcome.reason,
            "figures": self.outcome.figures,
            "warnings": list(self.outcome.warnings),
            "saved": None
            if self.saved is None
            else [{"pattern": each.pattern, "files": each.files, "bytes": each.size} for each in self.saved],
            "check": checked
            and {
                "reproducible": checked.reproducible,
                "sha256": checked.sha256,
                "again": list(checked.again),
                "traces": [trace._asdict() for trace in checked.traces],
            },
            "smoke": smoked and asdict(smoked),
        }

    def show(self, out: Output) -> None:
        """Say it to people."""
        out.answer(f"{shown(self.venv)}: {self._written()}")
        if self.saved is None:
            out.answer("  what the exclude patterns saved is not known: the venv was not built here")
        for each in self.saved or ():
            out.answer(
                f"  {shown(each.pattern)} saved {show_size(each.size)} in {counted(each.files, 'file')}"
            )
        if self.checked is not None:
            self._show_check(out, self.checked)
        if self.smoked is not None:
            said = "".join(f"\n  | {shown(line)}" for line in self.smoked.output.splitlines())
            verdict = "passed" if self.smoked.status == 0 else f"failed with status {self.smoked.status}"
            out.answer(f"  smoke test {verdict}{said}")

    def _written(self) -> str:
        figures = self.outcome.figures
        if self.outcome.did != "packed":
            return f"{self.outcome.did}: {shown(self.outcome.reason)}"
        parts = [f"packed: {shown(self.outcome.reason)}", show_size(int(figures["bytes"]))]
        if figures["frames"]:
            parts.append(f"{figures['frames_reused']} of {counted(int(figures['frames']), 'frame')} re-used")
        return (
            f"{', '.join(parts)} in {show_duration(float(figures['seconds']))}\n  sha256 {figures['sha256']}"
        )

    def _show_check(self, out: Output, checked: Checked) -> None:
        if checked.reproducible:
            out.answer(f"  reproducible: packed twice more, each {checked.sha256}")
        else:
            out.answer(f"  not reproducible: {checked.sha256}, packed again {', '.join(checked.again)}")
        traces = checked.traces if out.verbose else checked.traces[:_SHOWN]
        members = counted(len({trace.member for trace in checked.traces}), "member")
        out.answer(f"  local paths: {f'in {members}' if traces else 'none is left in it'}")
        for trace in traces:
            out.answer(f"    {shown(trace.member)} names {shown(trace.path)}, {trace.times} times")
        if len(traces) < len(checked.traces):
            out.answer(f"    and {len(checked.traces) - len(traces)} more (-v lists all)")
