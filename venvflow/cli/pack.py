"""``venvflow pack``: writes the archive of one venv, and proves that it is a good one."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from venvflow import progress_display
from venvflow.cli.arguments import Parser, add_shard, pattern
from venvflow.cli.context import open_context, open_flow
from venvflow.cli.operands import any_venvs, chosen, serve_jobs
from venvflow.cli.render import Output
from venvflow.disk import archive
from venvflow.errors import UsageError, shown, some
from venvflow.model import PackOptions, Part, Saved
from venvflow.pure.names import venv_name
from venvflow.pure.units import counted, show_duration, show_size
from venvflow.steps import pack as steps
from venvflow.steps import pack_check
from venvflow.steps.hash_lockfiles import hash_lockfiles
from venvflow.steps.job import Job
from venvflow.steps.pack import Packed
from venvflow.steps.pack_check import Checked, Smoke
from venvflow.steps.pack_source import Choice

MORE = """\
PATH is a venv that any tool made: it is packed as it lies there, without a config, a lock file
or a store. VENV is one of the config, as doit made it: it is written from its manifest and the
store, so only what changed since the last archive is compressed. Without either it is the only
venv of the config, or else the active one.
Beside the archive come its SHA-256 and a description as JSON. Without options it is the archive
that pack: of the config asks for, or NAME.tar.zst here; that of project/.venv is project.tar.zst.
--output may name a file, whose ending says the format, or a directory (ending in /). {venv},
{key}, {python}, {platform} and {version:NAME} in it and in --arcroot are filled in.
Exits with 1 when --check or --smoke fails, or with warnings if it is --strict."""
EXAMPLE = "venvflow pack .venv -o env.tar.gz --exclude tests/ --smoke 'import numpy'"

_SHOWN = 20
"""Members with local paths that are listed; with -v, and as JSON, all are."""


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    add_venvs(parser, "*")
    add_shard(parser, "of the config's venvs, or those named, the share of the Nth of M machines")
    parser.add_argument("-o", "--output", metavar="PATH", help="where to write it")
    parser.add_argument(
        "--archive-format",
        metavar="FORMAT",
        help="tar.zst, tar.xz, tar.gz, tar.bz2, tar, zip, or tzst, txz, tgz, tbz2 (by the name)",
    )
    parser.add_argument("--level", type=int, metavar="N", help="how hard to compress")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads that compress; never changes a byte"
    )
    parser.add_argument("--arcroot", metavar="NAME", help="put everything into a directory of this name")
    parser.add_argument(
        "--python", metavar="PATH", help="the interpreter at the target, which need not be here"
    )
    parser.add_argument(
        "--dest-prefix",
        metavar="PATH",
        help="where it will be unpacked, so that nothing is to be filled in there",
    )
    parser.add_argument(
        "--force", action="store_true", help="write it even if it is there and whole, or not ours"
    )
    add_choice(parser)
    parser.add_argument(
        "--check",
        action="store_true",
        help="pack twice more and compare; list local paths that are left in it",
    )
    parser.add_argument("--smoke", metavar="CODE", help="unpack it to a temporary place and run CODE there")


def add_venvs(parser: Parser, nargs: str) -> None:
    """Add the words that name venvs to read."""
    what = "venvs: their directories, or names, sets or patterns in the config"
    parser.add_argument("venvs", metavar="PATH|VENV", nargs=nargs, help=what)


def add_choice(parser: Parser) -> None:
    """Add the options that say what of a venv is packed."""
    parser.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        default=[],
        type=pattern,
        help="leave these out (gitignore rules); of --exclude and --include, the last that fits decides",
    )
    parser.add_argument(
        "--include",
        metavar="PATTERN",
        action="append",
        default=[],
        type=pattern,
        help="but not these",
    )
    parser.add_argument(
        "--ignore-missing-files",
        action="store_true",
        help="even if files of packages are gone, or are not what was installed",
    )
    parser.add_argument("--strict", action="store_true", help="write nothing if there are warnings")


def choice_of(args: argparse.Namespace) -> Choice:
    """Return what of the venvs is packed."""
    rules = (f"!{text}" if dest == "include" else text for dest, text in getattr(args, "in_order", ()))
    return Choice((*rules,), args.ignore_missing_files)


def run(args: argparse.Namespace, out: Output) -> int:
    """Pack the venvs; 1 when a proof fails, or if it is strict and there are warnings.

    JSON: ``venvs``, each with ``venv`` (name or path), ``did`` (packed, kept, warned: nothing was written, or
    failed), ``reason`` (why it failed),
    ``archive`` (its path), ``figures`` (``bytes``, ``sha256`` …), ``warnings``, ``saved`` (a list of
    ``pattern``, ``files``, ``bytes``; null if not known), ``check`` (``reproducible``, ``sha256``, ``again``,
    ``python`` and ``traces`` with ``member``, ``path``, ``times``) and ``smoke`` (``status``, ``output``),
    each null without its option. Of a venv in layers ``archive`` is the list of its archives, and ``parts``
    are these: ``layer``, ``archive``, ``did``, ``sha256``, ``bytes``, ``distributions`` (versions by name).
    """
    if args.shard is not None:
        flow = open_flow(args, out)
        shared = chosen(args, flow, out)
        jobs: dict[str, Callable[[], Job]] = {n: partial(flow.job, n, force=args.force) for n in shared}
    else:
        jobs = any_venvs(open_context(args, out), args.venvs, out.say, force=args.force)
    if len(jobs) > 1:
        _need_names(args, [*jobs])

    def serve(job: Job) -> tuple[dict[str, Any], int]:
        answer = _pack(job, args, out)
        if not out.as_json:
            answer.show(out)
        return answer.document(), 0 if answer.good else 1

    return serve_jobs(jobs, out, serve, otherwise=_FAILED)


_FAILED: dict[str, Any] = {
    "archive": None,
    "parts": [],
    "saved": None,
    "check": None,
    "smoke": None,
    "figures": {},
    "warnings": [],
}


def _pack(job: Job, args: argparse.Namespace, out: Output) -> _Answer:
    """Pack one venv."""
    name = called(job)
    noted = hash_lockfiles(job).warnings if job.spec.name else ()
    options, choice = _options(job, args), choice_of(args)
    output = "" if _is_configured(job, args) else _output(job, args, options, out)
    with shown_progress(out, f"packing {shown(name)}", job) as progress:
        if args.strict and noted:
            outcome = Packed("warned")
        elif output:
            outcome = steps.pack_to(job, output, options, progress, choice=choice, strict=args.strict)
        else:
            outcome = steps.pack(job, progress, threads=args.threads, strict=args.strict)
    checked = smoked = None
    if args.check and outcome.did != "warned":
        with shown_progress(out, f"checking {shown(name)}", job) as progress:
            if outcome.parts:
                checked = pack_check.check_parts(job, outcome.parts, progress)
            else:
                checked = pack_check.check(job, outcome.reason, options, choice, progress)
    if args.smoke is not None and outcome.did != "warned":
        with shown_progress(out, f"unpacking {shown(name)}") as progress:
            paths = [part.path for part in outcome.parts] or [outcome.reason]
            smoked = pack_check.smoke(job, paths, args.smoke, progress)
    for warning in (*noted, *outcome.warnings):
        out.warn(f"{shown(name)}: {warning}")
    saved = steps.saved(job) if job.spec.name and job.spec.exclude else []
    warned = args.strict and bool(noted or outcome.warnings)
    return _Answer(name, outcome, saved, checked, smoked, warned=warned)


def called(job: Job) -> str:
    """Return what answers call the venv of a job: its name in the config, or its path."""
    return job.spec.name or job.place.path


def shown_progress(
    out: Output, label: str, job: Job | None = None
) -> AbstractContextManager[archive.Progress | None]:
    """Return what shows progress on standard error, that of a *job* too, or does nothing with ``-q``."""
    if out.quiet:
        return nullcontext()
    meter = job.meter if job is not None else None
    return progress_display.progress(sys.stderr, f"venvflow: {label}", meter=meter)


# --------------------------------------------------------------------------- options


def _is_configured(job: Job, args: argparse.Namespace) -> bool:
    """Return whether the archive is the one that the config asks for."""
    asked = (args.output, args.archive_format, args.level, args.arcroot, args.python, args.dest_prefix)
    is_asked = any(each is not None for each in asked) or bool(args.exclude or args.include)
    return bool(job.spec.name) and job.spec.pack is not None and not is_asked


def _need_names(args: argparse.Namespace, venvs: list[str]) -> None:
    """Raise UsageError if archives of several venvs, given by name or path, would have one name."""
    output = args.output or "./"
    if "{venv}" not in output and not output.endswith("/") and not os.path.isdir(_below(args, output)):
        raise UsageError(
            "the archives of all these venvs would have one name",
            where=shown(output),
            state="Nothing was written.",
            hint="Put {venv} into --output, or name a directory with a / at its end.",
        )
    names = [venv_name(each) if "/" in each else each for each in venvs]
    if twice := [each for each, name in zip(venvs, names, strict=True) if names.count(name) > 1]:
        raise UsageError(
            f"these venvs have one name, and so would their archives: {shown(some(twice, 4))}",
            state="Nothing was written.",
            hint="Pack them one by one, and name each archive.",
        )


def _below(args: argparse.Namespace, path: str) -> str:
    return os.path.join(os.path.abspath(args.work_dir), path)


def _options(job: Job, args: argparse.Namespace) -> archive.Options:
    """Return how to write: as the words say, else as the name of the output, else as the config."""
    configured = job.spec.pack or PackOptions("")
    asked = args.archive_format and archive.SHORT.get(args.archive_format, args.archive_format)
    name, level = asked or archive.named_format(args.output or ""), args.level
    if not name:
        name = configured.format
        level = configured.level if level is None else level
    threads = configured.threads if args.threads is None else args.threads
    arcroot = configured.arcroot if args.arcroot is None else args.arcroot
    python, place = args.python or configured.python, (args.dest_prefix or "").rstrip("/")
    return archive.Options(name, level, threads, arcroot, python=python, place=place)


def _output(job: Job, args: argparse.Namespace, options: archive.Options, out: Output) -> str:
    """Return the path to write, still with braces; relative ones are below the work directory."""
    pack = job.spec.pack if job.spec.name else None
    output = _below(args, args.output or (f"{pack.output}/" if pack is not None else "./"))
    if output.endswith("/") or os.path.isdir(output):
        path = os.path.join(
            os.path.normpath(output), f"{pack.name if pack is not None else '{venv}'}.{options.format}"
        )
        if job.spec.name and pack is None and args.output is None:
            where = shown(path.replace("{venv}", job.spec.name))
            out.say(f"{shown(job.spec.name)}: the config has no pack: for it, so it goes to {where}")
        return path
    if archive.named_format(output) != options.format:
        raise UsageError(
            f"the name {shown(args.output)!r} does not end in .{options.format}",
            state="Nothing was written.",
            hint="Name the format at its end, or a directory with a / at its end.",
        )
    return output


# --------------------------------------------------------------------------- the answer


def _part_document(part: Part) -> dict[str, Any]:
    return {
        "layer": part.layer,
        "archive": part.path,
        "did": "kept" if part.kept else "packed",
        "sha256": part.sha256,
        "bytes": part.size,
        "distributions": dict(part.distributions),
    }


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was packed and proved."""

    venv: str
    outcome: Packed
    saved: list[Saved] | None
    checked: Checked | None
    smoked: Smoke | None
    warned: bool

    @property
    def good(self) -> bool:
        """Return whether all proofs that were asked for hold, and nothing was said that must not be."""
        if self.warned:
            return False
        proved = self.checked is None or self.checked.reproducible
        return proved and (self.smoked is None or self.smoked.status == 0)

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        checked, smoked = self.checked, self.smoked
        return {
            "venv": self.venv,
            "did": self.outcome.did,
            "reason": "",
            "archive": None if self.outcome.did == "warned" else self.outcome.reason,
            "parts": [*map(_part_document, self.outcome.parts)],
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
                "python": checked.python,
                "traces": [trace._asdict() for trace in checked.traces],
            },
            "smoke": smoked and asdict(smoked),
        }

    def show(self, out: Output) -> None:
        """Say it to people."""
        out.answer(f"{shown(self.venv)}: {self._written()}")
        for part in self.outcome.parts:
            kept = ", kept" if part.kept and self.outcome.did == "packed" else ""
            what = counted(len(part.distributions), "distribution")
            out.answer(f"  {shown(part.path)}: {what}, {show_size(part.size)}{kept}\n  sha256 {part.sha256}")
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
        if self.outcome.did == "warned":
            return "not packed: there are warnings"
        if self.outcome.did != "packed":
            return f"{self.outcome.did}: {shown(self.outcome.reason)}"
        if self.outcome.parts:
            return self._written_parts()
        parts = [f"packed: {shown(self.outcome.reason)}", show_size(int(figures["bytes"]))]
        if figures["frames"]:
            parts.append(f"{figures['frames_reused']} of {counted(int(figures['frames']), 'frame')} re-used")
        return (
            f"{', '.join(parts)} in {show_duration(float(figures['seconds']))}\n  sha256 {figures['sha256']}"
        )

    def _written_parts(self) -> str:
        figures = self.outcome.figures
        kept = f", {figures['parts_kept']} of them kept" if figures["parts_kept"] else ""
        size, took = show_size(int(figures["bytes"])), show_duration(float(figures["seconds"]))
        archives = counted(int(figures["parts"]), "archive")
        return f"packed: {shown(self.outcome.reason)}, {archives}{kept}, {size} in {took}"

    def _show_check(self, out: Output, checked: Checked) -> None:
        if checked.reproducible:
            out.answer(f"  reproducible: packed twice more, each {checked.sha256}")
        else:
            out.answer(f"  not reproducible: {checked.sha256}, packed again {', '.join(checked.again)}")
        traces = checked.traces if out.verbose else checked.traces[:_SHOWN]
        members = counted(len({trace.member for trace in checked.traces}), "member")
        out.answer(f"  local paths: {f'in {members}' if traces else 'none is left in it'}")
        if checked.python:
            out.answer(f"  interpreter, named as it should be: {shown(checked.python)}")
        for trace in traces:
            out.answer(f"    {shown(trace.member)} names {shown(trace.path)}, {counted(trace.times, 'time')}")
        if len(traces) < len(checked.traces):
            out.answer(f"    and {len(checked.traces) - len(traces)} more (-v lists all)")
