"""``venvflow explain``: why doit would build or restore a venv, or what differs between two keys."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from venvflow.cli.arguments import Parser
from venvflow.cli.context import Context, open_context
from venvflow.cli.key_differences import DIGITS, difference_lines, fit_line, labels_of, record_of, value_of
from venvflow.cli.operands import Operand, OperandFinder, select_one
from venvflow.cli.render import Colour, Column, Output, moment, since, table
from venvflow.disk.archive import inventory_of
from venvflow.disk.places import read_receipt
from venvflow.errors import EnvironmentFailure, UsageError, shown
from venvflow.flow import Flow
from venvflow.forecast import forecast
from venvflow.pure.comparison import KeyComparison, Keyed, compare_keys
from venvflow.pure.plan import Action
from venvflow.pure.units import counted
from venvflow.state.reader import StoreReader, open_reader
from venvflow.steps.explain import Explanation, Nearest, explain, keyed_of
from venvflow.steps.hash_lockfiles import key_now
from venvflow.steps.key_inputs import packages_of

MORE = """\
With one VENV (of the config): its key with all parts, whether the store has a venv for it, the
nearest snapshot and how it differs, what was warned of, and what doit would do now and why.
Nothing is changed.
With two: the parts in which their keys differ; venvs, snapshots (by the first digits of their id),
keys and archives. Exits with 1 then if they differ.
A word that could mean several things needs a prefix: venv:api, path:api, snapshot:3f2a,
key:3f2a and archive:api.zip each mean one thing.
"""
EXAMPLE = """\
venvflow explain api
  venvflow explain api 3f2a9c"""

_COLOURS: dict[str, Colour] = {"run": "yellow", "fail": "red", "not run": "red"}
_TASKS = (Column("task", least=12), Column("would"), Column("because", least=20, wrap=True))


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument(
        "target", metavar="VENV", nargs="?", help="its name in the config (the only one), or its path"
    )
    parser.add_argument("other", metavar="OTHER", nargs="?", help="what to compare with, old before new")


def run(args: argparse.Namespace, out: Output) -> int:
    """Explain one venv, always 0; or compare two keys, 0 if they are equal, else 1.

    JSON for one: ``venv``, ``path``, ``origin`` (the template that made it, or null); ``key`` (``digest``,
    ``parts`` by name, ``current``: it is that of the inputs as they are, else that of the last run; null
    without one), ``problem`` (why it is not, or null),
    ``files`` (their paths, by part), ``packages`` (by the part of each lock file, by name), ``made_for`` (the
    key of the venv in its place, or null), ``store`` (``path``, ``exists``, ``snapshot``: an id, null on a
    miss), ``nearest`` (null unless one is near; ``id``, ``key``, ``venv``, ``place``, ``created``,
    ``last_used``, and a comparison), ``since`` (what changed since the venv was made: a comparison, null
    where nothing did or not known), ``warnings`` (about the lock files, and of the venv's build), ``tasks``,
    each with ``task``, ``would`` (run, nothing, fail, not run), ``did`` (what it will answer or null),
    ``reason`` and ``certain`` (false where a build may give what was there before, or trim may find nothing
    to drop).

    JSON for two: ``old``, ``new`` (``kind``: venv, path, archive, snapshot or key; ``name``; ``key``),
    ``equal``, and a comparison.

    A comparison is ``parts``, each with ``name``, ``old`` and ``new`` (null where there is none), and
    ``lists``, one for each lock file that changed: ``old`` and ``new`` (its parts, or null), ``basis`` (what
    was compared: lists, installed, nothing), ``packages``, each with ``name``, ``old`` and ``new``.
    """
    context = open_context(args, out)
    with open_reader(context.store) as store:
        finder = OperandFinder(context, store, out.say)
        target = finder.find(args.target or select_one(None, context.venvs, context.sets))
        if args.other is not None:
            return _compare(out, store, target, finder.find(args.other))
        return _explain(out, context, store, target)


# --------------------------------------------------------------------------- one venv


def _explain(out: Output, context: Context, store: StoreReader | None, target: Operand) -> int:
    if target.job is None or context.flow is None:
        raise UsageError(
            f"{target.label} is not in the config that is used here, so doit does nothing to it",
            hint='Name a second one to compare its key with; "venvflow diff" compares what two contain.',
        )
    found = explain(target.job, store)
    tasks = forecast(context.flow, target.job.spec.name, store, found.key)
    if out.as_json:
        out.document(_as_document(context.flow, target.job.spec.name, found, tasks, exists=store is not None))
    else:
        for line in _lines(out, context.flow, target.job.spec.name, found, tasks):
            out.answer(line)
    return 0


def _lines(
    out: Output, flow: Flow, venv: str, found: Explanation, tasks: Mapping[str, Action]
) -> Iterator[str]:
    now, job = flow.now(), flow.job(venv)
    inside = job.place.path.startswith(f"{job.root}/")
    yield f"{shown(venv)}: {shown(job.position if inside else job.place.path)}"
    if job.spec.origin:
        yield from _wrapped(out, f"made by {job.spec.origin}")
    yield from _on_key(out, found, now)
    record = found.key.now or found.key.noted
    if record is not None:
        paths = {name: os.path.relpath(path, job.root) for name, path in found.files.items()}
        labels = labels_of(record.key.parts, paths)
        yield from _parts(out, record.key.parts, labels)
        yield from _differences(
            out, found, now, {record.key.parts[name]: labels[name] for name in found.files}
        )
    for warning in found.warnings:
        yield from _wrapped(out, f"warning: {shown(warning)}", "warning", "yellow")
    yield ""
    yield (
        "doit would:" if any(task.would != "nothing" for task in tasks.values()) else "doit would do nothing:"
    )
    yield table(
        out,
        _TASKS,
        [_task_cells(name, task) for name, task in tasks.items()],
        [(1, _COLOURS.get(task.would, "")) for task in tasks.values()],
    )


def _on_key(out: Output, found: Explanation, now: float) -> Iterator[str]:
    """Yield which key it is, and whether the store has a venv for it."""
    key = found.key
    if key.now is None:
        why = " ".join(key.problem.what.split()) if key.problem is not None else ""
        earlier = f"; the last one was {key.noted.key.digest[:DIGITS]}" if key.noted is not None else ""
        yield from _wrapped(out, f"no key: {why}{earlier}", "no key", "red")
        return
    digest = key.now.key.digest[:DIGITS]
    if found.snapshot is None:
        far = "" if found.nearest else "; no snapshot is near: none has half of these packages"
        yield from _wrapped(out, f"key {digest}: not in the store{far}", "not in the store", "yellow")
        return
    snapshot = found.snapshot
    called = "" if snapshot.id == snapshot.key.digest else f" as {snapshot.id[:DIGITS]}, for this place"
    made = f"made {_ago(snapshot.created, now)} on {shown(snapshot.host)}"
    yield from _wrapped(out, f"key {digest}: in the store{called}, {made}", "in the store", "green")


def _ago(then: float, now: float) -> str:
    text = since(then, now)
    return "just now" if text == "now" else f"{text} ago"


def _wrapped(out: Output, text: str, phrase: str = "", colour: Colour = "") -> Iterator[str]:
    """Yield *text* in lines that fit, with the first *phrase* of it in a colour."""
    lines = textwrap.wrap(text, out.width(), subsequent_indent="  ", break_on_hyphens=False)
    for line in lines:
        yield line.replace(phrase, out.paint(phrase, colour), 1) if phrase else line


def _parts(out: Output, parts: Mapping[str, str], labels: Mapping[str, str]) -> Iterator[str]:
    width = min(max(map(len, labels.values())), 40)
    for name, label in labels.items():
        yield fit_line(out, f"  {label:{width}}  {value_of(name, parts[name])}")


def _differences(out: Output, found: Explanation, now: float, files: Mapping[str, str]) -> Iterator[str]:
    """Yield what changed since the venv was made, and the nearest snapshot; *files* are called by digest."""
    nearest, compared = found.nearest, found.since
    if nearest is not None and nearest.snapshot.key.digest == found.made_for:
        compared = None  # it is the same comparison
    if compared is not None:
        yield ""
        yield f"changed since the venv was made (for key {found.made_for[:DIGITS]}):"
        yield from difference_lines(out, compared, files)
    if nearest is not None:
        yield ""
        yield from _wrapped(out, _on_nearest(nearest, found, now))
        yield from difference_lines(out, nearest.comparison, files)


def _on_nearest(nearest: Nearest, found: Explanation, now: float) -> str:
    snapshot = nearest.snapshot
    used = "" if nearest.used is None else f", used {_ago(nearest.used, now)}"
    which = f"nearest snapshot: {snapshot.id[:DIGITS]} of {shown(snapshot.venv)}{used}"
    if not nearest.comparison.parts:
        place = shown(snapshot.place or "")
        return f"{which}; for the same key, but it names files of the project, so it fits only {place}"
    made = "; the venv was made from it" if snapshot.key.digest == found.made_for else ""
    return f"{which}{made}; differs in {counted(len(nearest.comparison.parts), 'part')}:"


def _task_cells(name: str, task: Action) -> tuple[str, str, str]:
    would = {"run": task.did, "nothing": "-"}.get(task.would, task.would)
    return name, would if task.certain else f"{would}?", shown(task.reason)


# --------------------------------------------------------------------------- two keys


def _compare(out: Output, store: StoreReader | None, one: Operand, other: Operand) -> int:
    (old_key, old), (new_key, new) = _keyed(store, one), _keyed(store, other)
    compared = compare_keys(old, new)
    if out.as_json:
        out.document(_compared_document((one, old_key), (other, new_key), compared))
    elif compared.parts:
        out.answer(f"{one.label} ({old_key[:DIGITS]}) -> {other.label} ({new_key[:DIGITS]}):")
        for line in difference_lines(out, compared, {}):
            out.answer(line)
    else:
        out.answer(f"{one.label} and {other.label} have the same key: {new_key[:DIGITS]}")
    return 1 if compared.parts else 0


def _keyed(store: StoreReader | None, target: Operand) -> tuple[str, Keyed]:
    """Return a target's key with what is known of its packages; of a venv of the config, as it is now."""
    if target.kind == "archive":
        return _keyed_archive(target)
    if target.job is not None:
        key = key_now(target.job)
        if key.now is None:
            raise key.problem or EnvironmentFailure(
                "its key cannot be computed",
                where=target.label,
                state="Nothing was changed.",
                hint="Run doit, which says why.",
            )
        return key.now.key.digest, Keyed(key.now.key.parts, packages_of(target.job, key.now))
    if target.kind == "path":
        return _keyed_path(store, target)
    if target.snapshots and store is not None:
        return target.snapshots[0].key.digest, keyed_of(store, target.snapshots[0])
    assert target.key is not None  # noqa: S101 - a key that no snapshot has is that of a venv
    return target.key.digest, Keyed(target.key.parts)


def _keyed_path(store: StoreReader | None, target: Operand) -> tuple[str, Keyed]:
    """Return the key that a venv of no config was made for: its snapshot knows the parts."""
    receipt = read_receipt(target.path)
    key = receipt.key if receipt is not None else ""
    if store is not None and key:
        for snapshot in store.snapshots():
            if snapshot.key.digest == key:
                return key, keyed_of(store, snapshot)
    why = "its snapshot is gone" if key else "venvflow did not make it"
    raise _no_key(target, f"the key of this venv is not known: {why}")


def _keyed_archive(target: Operand) -> tuple[str, Keyed]:
    found = inventory_of(target.path)
    if found.key is None:
        raise _no_key(target, "the archive does not say for which key it was made")
    installed = {tree.name: tree.version for tree in found.manifest.trees if tree.version}
    return found.key.digest, Keyed(found.key.parts, installed=installed)


def _no_key(target: Operand, what: str) -> UsageError:
    return UsageError(what, where=shown(target.path), hint="diff compares its content.")


# --------------------------------------------------------------------------- JSON


def _as_document(
    flow: Flow, venv: str, found: Explanation, tasks: Mapping[str, Action], *, exists: bool
) -> dict[str, Any]:
    record = found.key.now or found.key.noted
    problem = str(found.key.problem) if found.key.problem is not None else None
    return {
        "venv": venv,
        "path": flow.job(venv).place.path,
        "origin": flow.job(venv).spec.origin or None,
        "key": None
        if record is None
        else {"digest": record.key.digest, "parts": record.key.parts, "current": found.key.now is not None},
        "problem": problem,
        "files": found.files,
        "packages": found.packages,
        "made_for": found.made_for or None,
        "store": {
            "path": os.path.realpath(flow.config.store.path),
            "exists": exists,
            "snapshot": found.snapshot.id if found.snapshot is not None else None,
        },
        "nearest": _nearest_record(found.nearest) if found.nearest is not None else None,
        "since": record_of(found.since) if found.since is not None else None,
        "warnings": list(found.warnings),
        "tasks": [_task_record(name, task) for name, task in tasks.items()],
    }


def _task_record(name: str, task: Action) -> dict[str, Any]:
    return {
        "task": name,
        "would": task.would,
        "did": task.did or None,
        "reason": task.reason,
        "certain": task.certain,
    }


def _nearest_record(nearest: Nearest) -> dict[str, Any]:
    snapshot = nearest.snapshot
    return {
        "id": snapshot.id,
        "key": snapshot.key.digest,
        "venv": snapshot.venv,
        "place": snapshot.place,
        "created": moment(snapshot.created),
        "last_used": moment(nearest.used),
        **record_of(nearest.comparison),
    }


def _compared_document(
    old: tuple[Operand, str], new: tuple[Operand, str], compared: KeyComparison
) -> dict[str, Any]:
    sides = {
        word: {"kind": target.kind, "name": target.name, "key": key}
        for word, (target, key) in (("old", old), ("new", new))
    }
    return {**sides, "equal": not compared.parts, **record_of(compared)}
