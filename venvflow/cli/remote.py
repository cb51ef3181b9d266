"""What ``list``, ``verify`` and ``trim`` answer about a remote, with ``--remote``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from venvflow.cli.context import Context, open_context, open_flow
from venvflow.cli.operands import select
from venvflow.cli.render import TRIMMED, Colour, Column, Output, moment, since, table
from venvflow.disk import locks
from venvflow.errors import EnvironmentFailure, UsageError, shown, some
from venvflow.model import StoreConfig
from venvflow.progress_display import progress
from venvflow.pure.expiry import WantedRecords
from venvflow.pure.keys import snapshot_id
from venvflow.pure.records import SeenRecord
from venvflow.pure.units import counted, show_size
from venvflow.state.remote import Progress, Remote, using
from venvflow.state.remote_contents import RemoteContents, look_into
from venvflow.state.store import Store
from venvflow.steps.hash_lockfiles import key_now
from venvflow.steps.trim_remote import RemoteTrimmed, trim_remote
from venvflow.steps.verify_remote import RemoteFinding, RemoteVerified, verify_remote

_LISTED = (
    Column("id"),
    Column("venv", least=8),
    Column("python", rank=5),
    Column("issuer", least=8, rank=2),
    Column("created", right=True, rank=6),
    Column("last pushed", right=True, rank=3),
    Column("size", right=True, rank=1),
    Column("unique", right=True, rank=4),
    Column("state", least=12, wrap=True),
)


@contextmanager
def _remote(store: StoreConfig, *, writes: str = "") -> Iterator[Remote]:
    """Give the remote of a store; raises EnvironmentFailure unless this run may use it so."""
    if store.remote is None:
        raise EnvironmentFailure(
            "there is no remote",
            where="store.remote",
            state="Nothing was changed.",
            hint="Set store.remote in the config, and see VENVFLOW_REMOTE.",
        )
    remote = Remote(store.remote, os.environ, store.path)
    may = remote.access
    if not may.read or (writes and not may.write):
        raise EnvironmentFailure(
            f"this run may not {writes or 'read'} the remote: {may.reason}",
            where="store.remote.mode",
            state="Nothing was changed.",
            hint="See store.remote.mode in the reference of the config.",
        )
    try:
        yield remote
    finally:
        remote.close()


@contextmanager
def _shows(out: Output, label: str) -> Iterator[Progress]:
    if out.quiet:
        yield lambda _done, _of: None
        return
    with progress(sys.stderr, label) as shows:
        yield shows


# --------------------------------------------------------------------------- list


def list_remote(args: argparse.Namespace, out: Output) -> int:
    """List the records of the remote, last pushed first; always 0."""
    context = open_context(args, out)
    with _remote(context.store) as remote:
        with using(remote, "Nothing was changed.") as channel:
            contents = look_into(remote, channel)
        url = remote.config.url
    records = sorted(contents.records.values(), key=lambda each: (-each.written, each.id))
    if args.venv is not None:
        known = {*context.venvs, *(record.venv for record in records)}
        names = {*select([args.venv], sorted(known), context.sets)}
        records = [record for record in records if record.venv in names]
    users = Counter(tree for record in contents.records.values() for tree in {*(record.trees or ())})
    sizes = [(record, contents.size(record), _unique(contents, record, users)) for record in records]
    loose = sum(parcel.size for tree, parcel in contents.parcels.items() if tree not in users)
    total = sum(parcel.size for parcel in contents.parcels.values())
    if out.as_json:
        out.document(
            {
                "remote": url,
                "records": [_as_record(contents, *each) for each in sizes],
                "size": total,
                "unneeded": loose,
            }
        )
        return 0
    if not sizes:
        out.say(f"no snapshots in {shown(url)}")
        return 0
    now = time.time()
    out.answer(table(out, _LISTED, [_cells(contents, *each, now=now) for each in sizes]))
    out.answer(
        f"{counted(len(sizes), 'snapshot')} in {shown(url)}, which has {show_size(total)}, "
        f"{show_size(loose)} of it needed by none"
    )
    return 0


def _unique(contents: RemoteContents, record: SeenRecord, users: Counter[str]) -> int:
    """Return the bytes of parcels that only this record needs."""
    alone = (tree for tree in record.trees or () if users[tree] == 1 and tree in contents.parcels)
    return sum(contents.parcels[tree].size for tree in alone)


def _cells(
    contents: RemoteContents, record: SeenRecord, size: int, unique: int, *, now: float
) -> tuple[str, ...]:
    return (
        record.id[:12],
        shown(record.venv) or "-",
        record.python or "-",
        shown(record.issuer) or "-",
        since(record.created, now),
        since(record.written, now),
        show_size(size),
        show_size(unique),
        _state(contents, record),
    )


def _state(contents: RemoteContents, record: SeenRecord) -> str:
    """Return what a reader makes of a record."""
    if record.trees is None:
        return shown(record.doubt)
    missing = len(contents.missing(record))
    lacks = f"lacks {counted(missing, 'tree')}" if missing else ""
    doubt = f"not believed: {shown(record.doubt)}" if record.doubt else ""
    return "; ".join(filter(None, (doubt, lacks))) or "whole"


def _as_record(contents: RemoteContents, record: SeenRecord, size: int, unique: int) -> dict[str, Any]:
    return {
        "id": record.id,
        "key": record.key or None,
        "venv": record.venv or None,
        "place": record.place,
        "python": record.python or None,
        "issuer": record.issuer,
        "origin": record.origin,
        "believed": not record.doubt,
        "doubt": record.doubt,
        "created": moment(record.created),
        "last_pushed": moment(record.written),
        "trees": None if record.trees is None else len(record.trees),
        "missing": contents.missing(record),
        "size": size,
        "unique_size": unique,
    }


# --------------------------------------------------------------------------- verify


def verify_in_remote(args: argparse.Namespace, out: Output) -> int:
    """Read what is in the remote, perhaps send it anew; 1 when findings are left."""
    if args.sample is not None and args.sample < 1:
        raise UsageError("--sample must be 1 or more", where="verify", hint="Leave it out to read all.")
    context = open_context(args, out)
    with _remote(context.store, writes="write to" if args.heal else "") as remote:
        with _shows(out, "verifying") as shows:
            result = _verified(context, remote, args, out, shows)
        url = remote.config.url
    if out.as_json:
        findings = [_finding_record(each) for each in result.findings]
        out.document(
            {
                "remote": url,
                "records": result.records,
                "disbelieved": result.disbelieved,
                "parcels": result.parcels,
                "read": result.bytes,
                "left": len(result.left),
                "findings": findings,
            }
        )
        return 1 if result.left else 0
    for finding in result.findings:
        out.answer(_finding_lines(out, finding))
    healed = len(result.findings) - len(result.left)
    fixed = f", {healed:,} fixed" if healed else ""
    read = f"{counted(result.parcels, 'parcel')} of {counted(result.records, 'snapshot')} read"
    out.answer(f"{counted(len(result.left), 'finding')} left{fixed} ({read}, {show_size(result.bytes)})")
    if result.disbelieved:
        out.say(f"{counted(result.disbelieved, 'snapshot')} not believed: list --remote says why")
    return 1 if result.left else 0


def _verified(
    context: Context, remote: Remote, args: argparse.Namespace, out: Output, shows: Progress
) -> RemoteVerified:
    if not args.heal:
        return verify_remote(remote, sample=args.sample, progress=shows)
    timeout = locks.lock_timeout(os.environ)
    with Store(context.store, timeout=timeout, on_wait=out.say) as store, store.use():
        return verify_remote(remote, sample=args.sample, store=store, progress=shows)


def _finding_lines(out: Output, finding: RemoteFinding) -> str:
    kind = out.paint(finding.kind, "green" if finding.healed else "red")
    lines = [f"{kind}: {finding.id[:12]}"]
    if finding.needed_by:
        names = dict.fromkeys(f"{each.venv} ({each.id[:12]})" for each in finding.needed_by)
        lines.append(f"  needed by: {shown(some(list(names), 3))}")
    lines.append("  fixed: it was sent anew" if finding.healed else f"  note: {shown(finding.note)}")
    return "\n".join(lines)


def _finding_record(finding: RemoteFinding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "id": finding.id,
        "needed_by": [{"id": each.id, "venv": each.venv} for each in finding.needed_by],
        "healed": finding.healed,
        "note": finding.note,
    }


# --------------------------------------------------------------------------- trim


def trim_in_remote(args: argparse.Namespace, out: Output) -> int:
    """Apply the policy of the remote, or show what that would do; always 0."""
    flow = open_flow(args, out)
    wanted = _wanted(flow.config.venvs, [flow.job(name) for name in flow.config.venvs])
    with _remote(flow.config.store, writes="" if args.dry_run else "write to") as remote:
        with _shows(out, "looking") as shows:
            trimmed = trim_remote(remote, wanted, now=flow.now(), dry_run=args.dry_run, progress=shows)
        url = remote.config.url
    if out.as_json:
        out.document({"remote": url, "dry_run": args.dry_run, **_as_document(trimmed)})
    else:
        _show(out, trimmed, url)
    for problem in trimmed.plan.problems:
        out.warn(problem)
    return 0


def _wanted(venvs: Any, jobs: Iterable[Any]) -> WantedRecords:
    """Return what the venvs of the config want of a remote."""
    current: dict[str, str] = {}
    for job in jobs:
        key = key_now(job)
        for record in (key.noted, key.now):
            if record is not None:
                for place in (None, job.position):
                    current[snapshot_id(record.key.digest, place)] = job.spec.name
    pinned = frozenset(name for name, spec in venvs.items() if spec.pin)
    return WantedRecords(frozenset(venvs), pinned, current)


def _show(out: Output, trimmed: RemoteTrimmed, url: str) -> None:
    plan, records = trimmed.plan, trimmed.records
    rows = [("keep", each.id, "-", "; ".join(each.reasons)) for each in plan.keep]
    rows += [("drop", each.id, show_size(each.freed_bytes), each.reason) for each in plan.drop]
    colours: list[tuple[int, Colour]] = [(0, "yellow" if row[0] == "drop" else "") for row in rows]
    cells = [
        (did, name[:12], shown(records[name].venv) or "-", frees, shown(why))
        for did, name, frees, why in rows
    ]
    if cells:
        out.answer(table(out, TRIMMED, cells, colours))
    number = f"{len(plan.drop)} of {counted(len(records), 'snapshot')} in {shown(url)}"
    if trimmed.deleted is None:
        parcels = f"{counted(len(plan.due), 'parcel')}, {show_size(trimmed.freed)}"
        out.answer(f"would drop {number}, and delete {parcels}")
    else:
        parcels = f"{counted(trimmed.deleted, 'parcel')}, {show_size(trimmed.freed)}"
        out.answer(f"dropped {number}, deleted {parcels}")
    if later := len(plan.condemn) + len(plan.waiting):
        out.say(f"{counted(later, 'parcel')} that no snapshot needs: to be deleted once the grace is over")


def _as_document(trimmed: RemoteTrimmed) -> dict[str, Any]:
    plan = trimmed.plan

    def record(identifier: str) -> dict[str, Any]:
        found = trimmed.records[identifier]
        return {"id": identifier, "venv": found.venv or None, "issuer": found.issuer}

    return {
        "keep": [{**record(each.id), "reasons": list(each.reasons)} for each in plan.keep],
        "drop": [{**record(each.id), "reason": each.reason, "freed": each.freed_bytes} for each in plan.drop],
        "condemned": len(plan.condemn),
        "waiting": len(plan.waiting),
        "deleted": trimmed.deleted,
        "freed": trimmed.freed,
        "size": trimmed.size,
        "problems": list(plan.problems),
    }


# --------------------------------------------------------------------------- options


def refuse_local_words(args: argparse.Namespace, words: Sequence[str]) -> None:
    """Raise UsageError for options that mean nothing of a remote; *words* are those that were given."""
    if words:
        raise UsageError(
            f"{words[0]} does not go with --remote",
            where=str(args.command),
            state="Nothing was done.",
            hint="Leave one of them out.",
        )
