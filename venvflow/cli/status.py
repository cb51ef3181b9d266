"""``venvflow status``: every venv of the config, one line each."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

from venvflow.cli.parser import Commands, add_command
from venvflow.cli.project import need_known, open_flow
from venvflow.cli.render import Colour, Column, Output, moment, since, table
from venvflow.errors import shown
from venvflow.units import show_size

if TYPE_CHECKING:
    from venvflow.cli.venvs import Facts, Judged
    from venvflow.flow import Flow
    from venvflow.model import VenvSpec

_COLUMNS = (
    Column("venv", least=8),
    Column("state"),
    Column("python", rank=2),
    Column("packages", right=True, rank=3),
    Column("size", right=True, rank=1),
    Column("last used", right=True, rank=4),
)


class _Row(NamedTuple):
    spec: VenvSpec
    judged: Judged
    facts: Facts


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "status",
        run,
        summary="show every venv: up to date, or why not",
        more="It only looks: by stat, at lock files, and at what the last run wrote down.\n"
        "An edit that puts back size and time of a file is not seen; verify --full sees it.",
        example="venvflow status --json",
    )
    parser.add_argument("venvs", metavar="VENV", nargs="*", help="only these")


def run(args: argparse.Namespace, out: Output) -> int:
    """Show the state of the venvs; always 0.

    JSON: ``config``, ``root``, ``store`` (paths) and ``venvs``, in the order of the config, each with
    ``name``, ``path``, ``state`` (as in :func:`venvflow.cli.venvs.judge`), ``reason``, ``python``
    (version of the venv, null without one), ``packages``, ``size`` (bytes, as the files appear),
    ``last_used`` (when venvflow last made or stored it, ISO 8601 in UTC), ``key`` (that it was made for),
    ``made`` (built, restored or shared), ``shared`` (its files are the store's) and ``link`` (how).
    """
    flow = open_flow(args, out, require_locks=False)
    for name in args.venvs:
        need_known(name, flow.config.venvs)
    rows = _look(flow, set(args.venvs) or set(flow.config.venvs))
    if out.as_json:
        out.document(_as_document(flow, rows))
    elif rows:
        out.answer(_as_table(out, rows, flow.now()))
    else:
        out.say(f"no venvs in {shown(flow.config.file)} yet")
    if not out.as_json:
        for row in rows:
            if row.judged.reason:
                out.say(f"{shown(row.spec.name)}: {row.judged.state}: {row.judged.reason}")
    return 0


def _look(flow: Flow, names: set[str]) -> list[_Row]:
    from venvflow.cli.glance import open_glance  # noqa: PLC0415 - not for wrong words
    from venvflow.cli.venvs import facts_of, judge  # noqa: PLC0415

    rows = []
    with open_glance(flow.config.store) as store:
        for name, spec in flow.config.venvs.items():
            if name in names:
                job = flow.job(name)
                judged = judge(job, store)
                rows.append(_Row(spec, judged, facts_of(job, store, judged.receipt)))
    return rows


def _as_table(out: Output, rows: list[_Row], now: float) -> str:
    cells = [
        (
            shown(row.spec.name),
            row.judged.state,
            row.facts.python or "-",
            "-" if row.facts.packages is None else f"{row.facts.packages:,}",
            "-" if row.facts.size is None else show_size(row.facts.size),
            since(row.facts.used, now),
        )
        for row in rows
    ]
    return table(out, _COLUMNS, cells, [(1, _colour(row.judged.state)) for row in rows])


def _colour(state: str) -> Colour:
    if state == "up to date":
        return "green"
    return "red" if state in ("damaged", "in the way", "lock missing") else "yellow"


def _as_document(flow: Flow, rows: list[_Row]) -> dict[str, Any]:
    config = flow.config
    return {
        "config": config.file,
        "root": config.root,
        "store": config.store.path,
        "venvs": [_as_record(row) for row in rows],
    }


def _as_record(row: _Row) -> dict[str, Any]:
    receipt = row.judged.receipt
    return {
        "name": row.spec.name,
        "path": row.spec.path,
        "state": row.judged.state,
        "reason": row.judged.reason,
        "python": row.facts.python or None,
        "packages": row.facts.packages,
        "size": row.facts.size,
        "last_used": moment(row.facts.used),
        "key": receipt.key if receipt is not None else None,
        "made": receipt.made if receipt is not None else None,
        "shared": receipt is not None and receipt.state == "shared",
        "link": (receipt.link or None) if receipt is not None else None,
    }
