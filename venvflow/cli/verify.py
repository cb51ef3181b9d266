"""``venvflow verify``: checks store and venvs against their records, and fixes them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from venvflow.cli.arguments import Parser, add_shard
from venvflow.cli.context import Context, open_context, open_flow
from venvflow.cli.operands import chosen, need_venv, paths_of
from venvflow.cli.render import Output
from venvflow.disk import locks
from venvflow.errors import UsageError, shown, some
from venvflow.progress_display import progress
from venvflow.pure.units import counted, show_size
from venvflow.state.reader import StoreReader, open_reader
from venvflow.state.registry import Registration
from venvflow.state.store import Store
from venvflow.steps.verify import Finding, Verified, heal, verify

MORE = """\
Reads what changed in time or size; --full reads everything.
--heal puts good copies in the place of damaged files. An edit becomes a private file of the venv
in which it was made: the one that is named here, or the one that shows traces of it.
Exits with 1 when findings are left.
With --remote, every tree that a believed snapshot needs is fetched from the remote and checked to the last
byte, or a sample of them; --heal sends anew what this store has whole."""
EXAMPLE = "venvflow verify ~/src/demo/.venv --heal"

_SHOWN = 20
"""Files that are added, and that are listed; with -v, and as JSON, all are."""


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument(
        "venvs",
        metavar="VENV",
        nargs="*",
        help="only these, by name, set or pattern in the config, or by path",
    )
    add_shard(parser, "of the config's venvs, or those named, the share of the Nth of M machines")
    parser.add_argument("--full", action="store_true", help="read every file again")
    parser.add_argument("--heal", action="store_true", help="fix what can be fixed")
    parser.add_argument("--remote", action="store_true", help="check the remote, not the store")
    parser.add_argument(
        "--sample", metavar="N", type=int, help="with --remote: read only so many parcels, by chance"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Verify, perhaps fix; 1 when findings are left.

    JSON: ``store`` (its path), ``venvs``, ``objects``, ``files`` and ``read`` (counts; bytes that were
    hashed), ``private`` (edits that are known as their venvs' own), ``left`` (how many findings are), and
    ``findings``, each with ``kind`` (object damaged, object missing, file edited, file missing, file added,
    mtime moved, mode changed, venv moved), ``venv``, ``path`` (below the venv, or of the object), ``others``
    (files of other venvs that are the same), ``healed`` (what was done, empty: it is left) and ``note``.
    With ``--remote`` as :func:`~venvflow.cli.remote.verify_in_remote` has it.
    """
    if args.remote:
        from venvflow.cli.remote import refuse_local_words, verify_in_remote  # noqa: PLC0415 - few ask

        words = [*args.venvs, *(["--full"] if args.full else []), *(["--shard"] if args.shard else [])]
        refuse_local_words(args, words)
        return verify_in_remote(args, out)
    if args.sample is not None:
        raise UsageError(
            "--sample goes with --remote only", where="verify", hint="Leave it out, or add --remote."
        )
    context = open_context(args, out)
    if args.shard is not None:
        flow = open_flow(args, out)
        only = frozenset(flow.job(name).place.path for name in chosen(args, flow, out))
    else:
        only = frozenset(paths_of(context, args.venvs))
    is_empty = args.shard is not None and not only
    result = Verified() if is_empty else _checked(context, only, args, out)
    if result is None:
        _refuse_unshared(context, only)
    if out.as_json:
        document = asdict(result or Verified())
        out.document({**document, "left": len(result.left) if result else 0, "store": context.store.path})
    elif result is None:
        out.say(f"there is no store at {shown(context.store.path)} yet")
    else:
        _answer(out, result)
    return 1 if result is not None and result.left else 0


def _checked(
    context: Context, only: frozenset[str], args: argparse.Namespace, out: Output
) -> Verified | None:
    """Verify what there is, and fix it if that was asked for; None if there is no store."""
    timeout = locks.lock_timeout(os.environ)
    if args.heal and os.path.lexists(os.path.join(context.store.path, "format")):
        with Store(context.store, timeout=timeout, on_wait=out.say) as store, store.alone():
            return _shown(partial(heal, store, _known(context, store, only)), only, args, out)
    with open_reader(context.store, timeout=timeout, on_wait=out.say) as reader:
        if reader is None:
            return None
        with reader.use():  # or a trim would take away what is looked at
            return _shown(partial(verify, reader, _known(context, reader, only)), only, args, out)


def _refuse_unshared(context: Context, only: frozenset[str]) -> None:
    """Raise UsageError for venvs that were named where there is no store."""
    for path in sorted(only):
        need_venv(context, path)
    if only:
        raise UsageError(
            "there is no store yet, so nothing is shared",
            where=shown(context.store.path),
            hint="Share venvs first (doit, or squish), or name another store (VENVFLOW_STORE).",
        )


def _known(context: Context, store: StoreReader, only: frozenset[str]) -> list[Registration]:
    """Return the venvs that share the store; raises UsageError if one that was named does not."""
    registrations = store.registrations()
    unknown = only - {each.path for each in registrations}
    if unknown:
        need_venv(context, min(unknown))
        raise UsageError(
            "it is not shared through this store",
            where=shown(min(unknown)),
            hint="Share it first (squish), or name another store (VENVFLOW_STORE).",
        )
    return registrations


def _shown(
    check: Callable[..., Verified], only: frozenset[str], args: argparse.Namespace, out: Output
) -> Verified:
    """Run the check, with a progress bar where everything is read."""
    if not args.full or out.quiet:
        return check(full=args.full, only=only)
    with progress(sys.stderr, "verifying") as shows:
        return check(full=True, only=only, progress=shows)


def _answer(out: Output, result: Verified) -> None:
    added = [finding for finding in result.findings if finding.kind == "file added"]
    hidden = set() if out.verbose else {id(finding) for finding in added[_SHOWN:]}
    for finding in result.findings:
        if id(finding) not in hidden:
            out.answer(_line(out, finding))
    if hidden:
        out.answer(f"file added: {len(hidden):,} more")
    checked = f"{counted(result.venvs, 'venv')}, {counted(result.objects, 'object')}"
    read = f", {show_size(result.read)} read" if result.read else ""
    healed = len(result.findings) - len(result.left)
    fixed = f", {healed:,} fixed" if healed else ""
    if result.private:
        checked += f", {counted(result.private, 'edit')} known as private"
    out.answer(f"{counted(len(result.left), 'finding')} left{fixed} ({checked}{read})")


def _line(out: Output, finding: Finding) -> str:
    where = f"{shown(finding.venv)}/{shown(finding.path)}" if finding.venv else shown(finding.path)
    parts = [f"{out.paint(finding.kind, 'green' if finding.healed else 'red')}: {where.rstrip('/')}"]
    if finding.others:
        parts.append(f"  the same file: {shown(some(finding.others, 3))}")
    parts += [
        f"  {word}: {shown(text)}"
        for word, text in (("fixed", finding.healed), ("note", finding.note))
        if text
    ]
    return "\n".join(parts)
