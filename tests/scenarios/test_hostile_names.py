"""Names that a terminal would obey, in all places that a name can come from: every output shows them."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from scenario import DOIT, Machine, Project, Run

from venvflow.pure.manifest import decode_snapshot, encode_snapshot

pytestmark = pytest.mark.slow

VENVFLOW = os.path.join(os.path.dirname(sys.executable), "venvflow")
EVIL = "\x1b]0;EVIL\x07\u202e\x9b31m"
FORGING = f"{EVIL}\nvenvflow: forged"


def _builder() -> list[list[str]]:
    """Return commands that make a venv full of such names, and print them."""
    fill = (
        "import glob, os, sys; site = glob.glob(sys.argv[1] + '/lib/*/site-packages')[0]\n"
        f"evil, forging = {EVIL!a}, {FORGING!a}\n"
        "for name in ('x' + evil + '.txt', 'x' + forging + '.py', evil + '.py'):\n"
        "    open(site + '/' + name, 'w').write('x = 1')\n"
        "os.mkdir(site + '/d' + evil + '-1.0.dist-info')\n"
        "open(site + '/d' + evil + '-1.0.dist-info/RECORD', 'w').write('x' + evil + '.txt,,')\n"
        "open(site + '/binary' + forging, 'wb').write(bytes(1) + os.fsencode(sys.argv[1]) + bytes(1))\n"
        "print(forging, 'requires', evil, 'which is not installed')\n"
    )
    return [["{python}", "-I", "-m", "venv", "--without-pip", "{venv}"], ["{python}", "-c", fill, "{venv}"]]


def _look(run: Run) -> str:
    """Return what was said, after seeing that no line of it was forged or would be obeyed."""
    for line in run.text.split("\n"):
        assert line.replace("\t", "").isprintable(), ascii(line)
        assert not line.startswith("venvflow: forged"), line
    assert "Traceback" not in run.text
    return run.text


def _plant_in_snapshots(store: Path) -> None:
    """Let the snapshots of *store* say of themselves what another user might."""
    for file in (store / "snapshots").glob("*.json"):
        found = decode_snapshot(file.read_bytes())
        found = replace(
            found, venv=f"v{FORGING}", host=f"h{FORGING}", command=f"c{FORGING}", warnings=(f"w{FORGING}",),
            python=f"3{FORGING}", packages={part: {f"n{FORGING}": f"1{FORGING}"} for part in found.packages},
        )  # fmt: skip
        file.unlink()
        file.write_bytes(encode_snapshot(found))
    (store / "index.db").unlink()


def test_no_name_is_obeyed_or_forges_a_line(machine: Machine) -> None:
    """Of directories, files, distributions, builders' output, fields of snapshots, and words typed."""
    project: Project = machine.project(
        f"p{EVIL}", {"api": {"build": _builder(), "pack": {"format": "tar.gz", "output": "./"}},
                     "b": {"build": _builder()}},
    )  # fmt: skip
    for venv in ("api", "b"):
        (project.root / venv).mkdir()
        (project.root / venv / "requirements.txt").write_text("# nothing\n")
    said = [_look(project.doit())]
    assert said[0].count("\\x1b]0;EVIL") > 1
    _plant_in_snapshots(machine.store)
    (project.site("api") / f"added{FORGING}.py").write_text("x")
    (project.site("b") / f"x{EVIL}.txt").unlink()
    for words in (
        "status -v", "status --json", "explain api -v", "list -v", "stats", "stats --packages", "verify",
        "diff api b", "trim --dry-run", "erase", "pack api -o z.tar.gz --check", "unpack z.tar.gz unpacked",
        "export b exported", "diff exported api", "restore b", "store b", "squish b/.venv", "doctor",
        "unsquish b/.venv",
    ):  # fmt: skip
        said += [_look(project.run([VENVFLOW, *words.split()]))]
    for bad in (["explain", f"zz{FORGING}"], [f"--x{FORGING}"], ["verify", f"zz{FORGING}"], [f"x{FORGING}"]):
        said += [_look(project.run([VENVFLOW, *bad]))]
        assert "\\x1b]0;EVIL" in said[-1]
    for tasks in ([], [f"x{FORGING}"], ["clean"]):
        _look(project.run([DOIT, *tasks]))
    assert "\\nvenvflow: forged" in "".join(said)
    log = (project.root / ".venvflow/api/build.log").read_text()
    assert "\x1b" not in log
    assert "\\x1b]0;EVIL" in log
