"""``venvflow status``: one line for each venv of the config."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from venvflow.cli.arguments import Parser, add_venvs
from venvflow.cli.context import open_flow
from venvflow.cli.operands import chosen
from venvflow.cli.render import Bar, Colour, Column, Output, moment, since, table
from venvflow.cli.venv_states import StatusRow, as_in_remote, status_rows
from venvflow.errors import shown
from venvflow.flow import Flow
from venvflow.pure.ci import access_of
from venvflow.pure.units import counted, show_size
from venvflow.state.reader import open_reader
from venvflow.steps.hash_lockfiles import key_now

_COLUMNS = (
    Column("venv", least=8),
    Column("state"),
    Column("python", rank=2),
    Column("packages", right=True, rank=4, yields=True),
    Column("apparent", right=True, rank=1),
    Column("own", right=True, rank=3),
    Column("last used", right=True, rank=5),
)

_MOST_NOTES = 8
"""How many reasons are shown without ``-v``."""

MORE = """\
It only looks: by stat, at lock files, and at what the last run wrote down.
An edit that puts back size and time of a file is not seen; verify --full sees it.
Own is what no other venv of this machine has, in bytes as they appear; stats counts blocks.

states, and what --check answers (1: something is not as its lock files say):
  up to date                            0  (!) after it: the build warned of what is in it; -v shows it
  not built                             1  doit restores it, or builds it: -v says which
  lock, python, config changed          1  made for other lock files, another Python, other settings
  lock missing, lock unreadable         1  it cannot be made again, nor compared
  python missing, builder missing       1  the same: the interpreter or the tool is not installed
  changed by hand, damaged              1  files were added or edited; are gone
  not ours, in the way                  1  another tool made it; what is there is not a venv
With --check and -q only the venvs that are not up to date are shown.
"""
EXAMPLE = "venvflow status --check -q"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    add_venvs(parser, "only these, by name, set or pattern")
    parser.add_argument("--check", action="store_true", help="exit 1 unless all are up to date")
    parser.add_argument(
        "--remote", action="store_true", help="ask the remote, too: which venvs somebody has to build"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Show the state of the venvs; 0, or with ``--check`` 1 unless all are up to date.

    JSON: ``config``, ``root``, ``store`` (paths), ``ok`` (all are up to date), ``remote`` (null where there
    is none; ``url``, ``read`` and ``write``: what this run may do there, ``reason``: why no more), ``venvs``,
    in the order of the config, each with ``name``, ``path``, ``origin`` (the template under ``each`` that
    made it, and for which lock file, or null), ``state`` (of
    :func:`venvflow.cli.venv_states.state_of`),
    ``reason``, ``do`` (what to do about it), ``warnings`` (of its build, while it is there), ``stored`` (the
    store has a venv for the lock files as they are; null where that cannot be known), ``remote`` (the same of
    the remote; null also if it was not asked), ``python`` (version of
    the venv, null without one), ``packages``, ``size`` (bytes, as the files appear), ``own_size`` (what of
    that is in no other venv), ``last_used`` (when venvflow last made or stored it, ISO 8601 in UTC), ``key``
    (that it was made for), ``wanted`` (that of its lock files as they are, null if they have none), ``made``
    (built, restored or shared), ``shared`` (its files are the store's) and ``link``.
    """
    flow = open_flow(args, out)
    names = chosen(args, flow, out)
    with open_reader(flow.config.store) as store:
        rows = status_rows(list(map(flow.job, names)), store)
    remote = _remote(rows) if args.remote else None
    rows = [as_in_remote(row) if remote and remote[row.job.spec.name] else row for row in rows]
    wrong = [row for row in rows if row.judged.state != "up to date"]
    if out.as_json:
        out.document(_as_document(flow, rows, remote, ok=not wrong))
    else:
        _show(out, flow, wrong if args.check and out.quiet else rows)
        if remote is not None:
            _show_remote(out, flow, rows, remote)
    return 1 if args.check and wrong else 0


def _show(out: Output, flow: Flow, rows: Sequence[StatusRow]) -> None:
    if not flow.config.venvs:
        out.say(f"no venvs in {shown(flow.config.file)} yet")
    if not rows:
        return
    out.answer(_as_table(out, rows, flow.now()))
    notes = list(_notes(rows, verbose=out.verbose))
    listed = notes if out.verbose or len(notes) <= _MOST_NOTES else notes[: _MOST_NOTES - 1]
    for note in listed:
        out.say(note)
    if len(listed) < len(notes):
        out.say(f"{counted(len(notes) - len(listed), 'more note')}; -v shows all, and what to do")


def _remote(rows: Sequence[StatusRow]) -> dict[str, bool | None]:
    """Return by name which venvs the remote has."""
    from venvflow.steps.pull import close_remotes, in_remote  # noqa: PLC0415 - few ask for it

    try:
        return in_remote([row.job for row in rows])
    finally:
        close_remotes()


def _show_remote(
    out: Output, flow: Flow, rows: Sequence[StatusRow], remote: Mapping[str, bool | None]
) -> None:
    """Say what this run may do with the remote, and which venvs neither this machine nor the remote has."""
    if (config := flow.config.store.remote) is not None:
        out.say(f"remote {shown(config.url)}: {access_of(config, flow.environ)}")
    lacking = [row.job.spec.name for row in rows if not row.judged.stored and not remote[row.job.spec.name]]
    if lacking:
        out.say(f"neither here nor in the remote: {', '.join(map(shown, lacking))}")


def _notes(rows: Sequence[StatusRow], *, verbose: bool) -> Iterator[str]:
    """Yield why venvs are as they are; what is obvious, and what to do, only when *verbose*."""
    for row in rows:
        name, judged = shown(row.job.spec.name), row.judged
        if verbose and row.job.spec.origin:
            yield f"{name}: made by {row.job.spec.origin}"
        if judged.reason and (verbose or judged.state != "not built" or judged.stored):
            do = f"; {judged.do}" if judged.do and (verbose or judged.state == "not built") else ""
            yield f"{name}: {judged.state}: {judged.reason}{do}"
        if judged.state == "up to date" and verbose:
            yield from (f"{name}: warning: {warning}" for warning in judged.warnings)


def _as_table(out: Output, rows: Sequence[StatusRow], now: float) -> str:
    cells = [
        (
            shown(row.job.spec.name),
            _state_cell(row),
            row.figures.python or "-",
            "-" if row.figures.packages is None else f"{row.figures.packages:,}",
            "-" if row.figures.size is None else show_size(row.figures.size),
            "-" if row.figures.own is None else show_size(row.figures.own),
            since(row.figures.used, now),
        )
        for row in rows
    ]
    return table(out, _COLUMNS, cells, [(1, _colour(row)) for row in rows], list(map(_bar, rows)))


def _bar(row: StatusRow) -> Bar:
    """Return what a venv has alone and what it shares; nothing where that is not known."""
    size, own = row.figures.size, row.figures.own
    return Bar(own, max(size - own, 0)) if size is not None and own is not None else Bar(0, 0)


def _state_cell(row: StatusRow) -> str:
    warned = row.judged.state == "up to date" and row.judged.warnings
    return f"{row.judged.state} (!)" if warned else row.judged.state


def _colour(row: StatusRow) -> Colour:
    state = row.judged.state
    if state == "up to date":
        return "yellow" if row.judged.warnings else "green"
    broken = state in ("damaged", "in the way") or state.endswith(("missing", "unreadable"))
    return "red" if broken else "yellow"


def _as_document(
    flow: Flow, rows: Sequence[StatusRow], remote: Mapping[str, bool | None] | None, *, ok: bool
) -> dict[str, Any]:
    config = flow.config
    return {
        "config": config.file,
        "root": config.root,
        "store": config.store.path,
        "ok": ok,
        "remote": _remote_record(flow),
        "venvs": [_as_record(row, remote) for row in rows],
    }


def _remote_record(flow: Flow) -> dict[str, Any] | None:
    """Return what this run may do with the remote, and why no more; None where there is none."""
    if (config := flow.config.store.remote) is None:
        return None
    may = access_of(config, flow.environ)
    return {"url": config.url, "read": may.read, "write": may.write, "reason": may.reason or None}


def _as_record(row: StatusRow, remote: Mapping[str, bool | None] | None) -> dict[str, Any]:
    judged, figures, receipt = row.judged, row.figures, row.judged.receipt
    return {
        "name": row.job.spec.name,
        "path": row.job.spec.path,
        "origin": row.job.spec.origin or None,
        "state": judged.state,
        "reason": judged.reason,
        "do": judged.do,
        "warnings": list(judged.warnings),
        "stored": judged.stored,
        "remote": remote[row.job.spec.name] if remote is not None else None,
        "python": figures.python or None,
        "packages": figures.packages,
        "size": figures.size,
        "own_size": figures.own,
        "last_used": moment(figures.used),
        "key": receipt.key if receipt is not None else None,
        "wanted": now.key.digest if (now := key_now(row.job).now) is not None else None,
        "made": receipt.made if receipt is not None else None,
        "shared": receipt is not None and receipt.state == "shared",
        "link": (receipt.link or None) if receipt is not None else None,
    }
