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
from venvflow.errors import EnvironmentFailure, UsageError, shown, some
from venvflow.flow import Flow
from venvflow.forecast import forecast
from venvflow.pure.comparison import KeyComparison, Keyed, compare_keys
from venvflow.pure.plan import Action
from venvflow.pure.units import counted, show_size
from venvflow.state.reader import StoreReader, open_reader
from venvflow.steps.base import Base
from venvflow.steps.explain import Explanation, Nearest, explain, keyed_of
from venvflow.steps.gathering import packages_of
from venvflow.steps.hash_lockfiles import key_now
from venvflow.steps.pull import RemoteView, close_remotes

MORE = """\
With one VENV (of the config): its key with all parts, whether the store has a venv for it, the
nearest snapshot and how it differs, what was warned of, and what doit would do now and why.
Nothing is changed, and a remote is only asked with --remote; else what it answered the last run is told.
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
    parser.add_argument("--remote", action="store_true", help="ask the remote what it has for the key")
    parser.add_argument("other", metavar="OTHER", nargs="?", help="what to compare with, old before new")


def run(args: argparse.Namespace, out: Output) -> int:
    """Explain one venv, always 0; or compare two keys, 0 if they are equal, else 1.

    JSON for one: ``venv``, ``path``, ``origin`` (the template that made it, or null); ``key`` (``digest``,
    ``parts`` by name, ``current``: it is that of the inputs as they are, else that of the last run; null
    without one), ``problem`` (why it is not, or null),
    ``files`` (their paths, by part), ``packages`` (by the part of each lock file, by name), ``made_for`` (the
    key of the venv in its place, or null), ``store`` (``path``, ``exists``, ``snapshot``: an id, null on a
    miss), ``nearest`` (null unless one is near; ``id``, ``key``, ``venv``, ``place``, ``created``,
    ``last_used``, and a comparison), ``start`` (what a build would start from, null: from nothing; ``id``,
    ``venv``, ``kept``: how many packages, and ``installs``, each with ``name`` and ``version``), ``since``
    (what changed since the venv was made: a comparison, null where nothing did or not known), ``warnings``
    (about the lock files, and of the venv's build), ``remote`` (null where there is none; ``url``, ``read``
    and ``write``: what this run may do there, ``reason``: why it may do no more, ``asked``: when it was asked
    for the key, null if nobody did, ``answer``: what it said then, and, if it was asked now and has a
    snapshot that is believed, else null: ``snapshot``, its id, ``issuer``, ``origin``, and ``trees`` and
    ``bytes``, before compression, that would come), ``tasks``,
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
            if args.remote:
                raise UsageError(
                    "one venv is asked for, and two are named",
                    where="--remote",
                    hint="Leave it out, or name no second one.",
                )
            return _compare(out, store, target, finder.find(args.other))
        return _explain(out, context, store, target, ask_remote=args.remote)


# --------------------------------------------------------------------------- one venv


def _explain(
    out: Output, context: Context, store: StoreReader | None, target: Operand, *, ask_remote: bool
) -> int:
    if target.job is None or context.flow is None:
        raise UsageError(
            f"{target.label} is not in the config that is used here, so doit does nothing to it",
            hint='Name a second one to compare its key with; "venvflow diff" compares what two contain.',
        )
    try:
        found = explain(target.job, store, ask_remote=ask_remote)
    finally:
        close_remotes()
    tasks = forecast(context.flow, target.job.spec.name, store, found.key, found.remote)
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
    yield from _on_base(out, found)
    yield from _on_remote(out, found, now)
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
    where = f"and came from {snapshot.host}" if "://" in snapshot.host else f"on {snapshot.host}"
    made = f"made {_ago(snapshot.created, now)} {shown(where)}"
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


def _on_base(out: Output, found: Explanation) -> Iterator[str]:
    """Yield from what a build would start, and what it would install."""
    base = found.base
    if base is not None:
        lacks = [" ".join(filter(None, each)) for each in _lacked(base, found)]
        install = f"installs {some(lacks, 8)}" if lacks else "installs nothing"
        yield ""
        which = f"{base.snapshot.id[:DIGITS]} of {shown(base.snapshot.venv)}"
        kept = counted(len(base.division.kept), "package")
        lent = "".join(
            f" and {len(loan.trees)} of {each.id[:DIGITS]} of {shown(each.venv)}" for each, loan in base.loans
        )
        text = f"a build starts from {which}, with {kept} of it{lent}, and {install}"
        yield from _wrapped(out, shown(text))


def _on_remote(out: Output, found: Explanation, now: float) -> Iterator[str]:
    """Yield what the remote has for the key: now, if it was asked, else as far as the last run was told."""
    remote = found.remote
    if remote is None:
        return
    if not remote.answer:
        said = "not asked for this key yet; --remote does so" if remote.may.read else ""
    elif remote.is_now:
        size = show_size(sum(raw for _, raw in remote.wanted))
        come = f"; {counted(len(remote.wanted), 'tree')} would come, {size} before compression"
        said = f"{remote.answer}{come if remote.record is not None else ''}"
    else:
        said = f"{_ago(remote.at or now, now)} it answered: {remote.answer}"
    yield ""
    yield from _wrapped(
        out, shown(f"remote {remote.url}: {'; '.join(filter(None, (said, str(remote.may))))}")
    )


def _lacked(base: Base, found: Explanation) -> Iterator[tuple[str, str]]:
    """Yield what a build from *base* installs: names, and what the locks list of them for this venv."""
    listed = {name: version for each in found.packages.values() for name, version in each.items()}
    yield from ((name, listed[name]) for name in base.missing if name in listed)


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
        "start": _base_record(found.base, found) if found.base is not None else None,
        "since": record_of(found.since) if found.since is not None else None,
        "warnings": list(found.warnings),
        "remote": _remote_record(found.remote) if found.remote is not None else None,
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


def _remote_record(remote: RemoteView) -> dict[str, Any]:
    record = remote.record
    return {
        "url": remote.url,
        "read": remote.may.read,
        "write": remote.may.write,
        "reason": remote.may.reason or None,
        "asked": moment(remote.at),
        "answer": remote.answer or None,
        "snapshot": record.snapshot.id if record is not None else None,
        "issuer": (record.issuer or None) if record is not None else None,
        "origin": (record.origin or None) if record is not None else None,
        "trees": len(remote.wanted) if record is not None else None,
        "bytes": sum(raw for _, raw in remote.wanted) if record is not None else None,
    }


def _base_record(base: Base, found: Explanation) -> dict[str, Any]:
    return {
        "id": base.snapshot.id,
        "venv": base.snapshot.venv,
        "kept": len(base.division.kept),
        "loans": [
            {"id": each.id, "venv": each.venv, "packages": [tree.name for tree in loan.trees]}
            for each, loan in base.loans
        ],
        "installs": [{"name": name, "version": version or None} for name, version in _lacked(base, found)],
    }


def _compared_document(
    old: tuple[Operand, str], new: tuple[Operand, str], compared: KeyComparison
) -> dict[str, Any]:
    sides = {
        word: {"kind": target.kind, "name": target.name, "key": key}
        for word, (target, key) in (("old", old), ("new", new))
    }
    return {**sides, "equal": not compared.parts, **record_of(compared)}
