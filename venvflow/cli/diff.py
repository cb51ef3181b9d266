"""``venvflow diff``: what differs between two venvs, snapshots or archives."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from venvflow.cli.arguments import Parser
from venvflow.cli.context import open_context
from venvflow.cli.key_differences import SIGNS
from venvflow.cli.operands import Operand, OperandFinder
from venvflow.cli.render import Column, Output, table
from venvflow.disk.archive import inventory_of
from venvflow.errors import UsageError, shown
from venvflow.model import Entry, Manifest
from venvflow.pure.comparison import Change, FileChange, ManifestComparison, Weight, compare_manifests
from venvflow.pure.units import show_size
from venvflow.state.reader import StoreReader, open_reader
from venvflow.steps.diff import manifest_of_snapshot, manifest_of_venv

MORE = """\
Venvs by their name in the config, or any by its path; snapshots and keys by their first digits;
archives by their path. Distributions come first, then files; files that name local paths are
compared without these, so the same venv in two checkouts is equal, and so is its archive.
Bytecode in __pycache__ follows from its source, and is left out.
Exits with 0 if they are equal, with 1 if not.
A word that could mean several things needs a prefix: venv:api, path:api, snapshot:3f2a,
key:3f2a and archive:api.zip each mean one thing.
"""
EXAMPLE = "venvflow diff api 3f2a9c --files"

_LARGEST = 5
"""Files that are shown without ``-v``."""

_DISTRIBUTIONS = (
    Column(""),
    Column("distribution", least=12),
    Column("old", least=6),
    Column("new", least=6),
    Column("files", right=True, rank=1),
    Column("size", right=True),
)


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument("old", metavar="A", help="a venv, snapshot, key or archive")
    parser.add_argument("new", metavar="B", help="what it is compared with")
    parser.add_argument(
        "--files", action="store_true", help="list all files, as -v does, not the largest only"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Compare two things by what is in them; 0 if they are equal, else 1.

    JSON: ``old``, ``new`` (``kind``: venv, path, archive, snapshot or key; ``name``), ``equal``, ``counts``
    (``distributions`` and ``files``, each with ``added``, ``removed``, ``changed``), ``distributions``, each
    with ``name``, ``change`` (added, removed, changed), ``old`` and ``new`` (``version``, ``files``, ``size``
    in bytes; null where there is none), and ``files``, always all, each with ``path``, ``change``, ``what``
    (of a changed one: kind, content, mode or target; else null), ``old`` and ``new`` (``kind``: file,
    template, link or dir; ``size`` in bytes, of a template without local paths).
    """
    context = open_context(args, out)
    with open_reader(context.store) as store:
        finder = OperandFinder(context, store, out.say)
        targets = old, new = finder.find(args.old), finder.find(args.new)
        before = _manifest(out, store, old)
        same = old.path != "" and os.path.realpath(old.path) == os.path.realpath(new.path)
        compared = compare_manifests(before, before if same else _manifest(out, store, new))
    if out.as_json:
        out.document(_as_document(*targets, compared))
    else:
        for line in _lines(out, *targets, compared, everything=args.files or out.verbose):
            out.answer(line)
    return 0 if compared.equal else 1


def _manifest(out: Output, store: StoreReader | None, target: Operand) -> Manifest:
    """Return what is in a target. Raises UsageError for a venv or a snapshot that is not there."""
    if target.kind == "archive":
        found = inventory_of(target.path)
        if not found.ours:
            unlike = "its local paths are compared as they are"
            out.warn(f"{target.label} was not written by venvflow: {unlike}")
        return found.manifest
    if target.kind in ("venv", "path"):
        return manifest_of_venv(target.path, store, target.job)
    if store is None or not target.snapshots:
        raise UsageError(
            f"the store has no snapshot for the {target.label}",
            hint='"venvflow explain" compares keys by their parts.',
        )
    if len(target.snapshots) > 1:
        several = ", ".join(f"{each.id[:12]} ({shown(each.place or each.venv)})" for each in target.snapshots)
        raise UsageError(
            f"there are several snapshots for the {target.label}: {several}",
            hint="Name one of them.",
        )
    return manifest_of_snapshot(store, target.snapshots[0])


# --------------------------------------------------------------------------- text


def _lines(
    out: Output, old: Operand, new: Operand, compared: ManifestComparison, *, everything: bool
) -> Iterator[str]:
    if compared.equal:
        yield f"{old.label} and {new.label} are equal"
        return
    yield f"{old.label} -> {new.label}"
    yield f"distributions: {_counted(compared.distributions)}"
    if compared.distributions:
        rows = [_distribution_cells(each) for each in compared.distributions]
        colours = [(0, SIGNS[each.how][1]) for each in compared.distributions]
        yield table(out, _DISTRIBUTIONS, rows, colours)
    files = compared.files
    shortened = not everything and len(files) > _LARGEST
    yield f"files: {_counted(files)}{'; the largest (--files lists all):' if shortened else ''}"
    if shortened:
        files = tuple(sorted(files, key=lambda each: (-each.weight, each.name))[:_LARGEST])
    for each in files:
        yield _file_line(out, each)


def _counted(found: Sequence[Change[Any]]) -> str:
    counts = _counts(found)
    return ", ".join(f"{number:,} {how}" for how, number in counts.items() if number) or "none differ"


def _counts(found: Iterable[Change[Any]]) -> dict[str, int]:
    counts = Counter(each.how for each in found)
    return {how: counts[how] for how in ("added", "removed", "changed")}


def _distribution_cells(change: Change[Weight]) -> tuple[str, ...]:
    old, new = change.old, change.new
    return (
        SIGNS[change.how][0],
        shown(change.name),
        shown(old.version) if old is not None else "-",
        shown(new.version) if new is not None else "-",
        _grown(old.files if old else None, new.files if new else None, lambda number: f"{number:,}"),
        _grown(old.size if old else None, new.size if new else None, show_size),
    )


def _grown(old: int | None, new: int | None, spelled: Any) -> str:
    """Return a number that is there on one side only, or by how much it grew."""
    if old is None or new is None:
        return str(spelled(new if old is None else old))
    return f"+{spelled(new - old)}" if new > old else str(spelled(new - old)) if new < old else "="


def _file_line(out: Output, change: FileChange) -> str:
    sign, colour = SIGNS[change.how]
    sizes = [show_size(each.size) for each in (change.old, change.new) if each is not None]
    text = " -> ".join(dict.fromkeys(sizes)) if change.what in ("", "content") else change.what
    return f"  {out.paint(sign, colour)} {shown(change.name)}  {text}"


# --------------------------------------------------------------------------- JSON


def _as_document(old: Operand, new: Operand, compared: ManifestComparison) -> dict[str, Any]:
    return {
        "old": {"kind": old.kind, "name": old.name},
        "new": {"kind": new.kind, "name": new.name},
        "equal": compared.equal,
        "counts": {"distributions": _counts(compared.distributions), "files": _counts(compared.files)},
        "distributions": [
            {"name": each.name, "change": each.how, "old": _weight(each.old), "new": _weight(each.new)}
            for each in compared.distributions
        ],
        "files": [
            {
                "path": each.name,
                "change": each.how,
                "what": each.what or None,
                "old": _entry(each.old),
                "new": _entry(each.new),
            }
            for each in compared.files
        ],
    }


def _weight(weight: Weight | None) -> dict[str, Any] | None:
    return weight._asdict() if weight is not None else None


def _entry(entry: Entry | None) -> dict[str, Any] | None:
    return {"kind": entry.kind, "size": entry.size} if entry is not None else None
