"""How large the product is, and how far one has to walk in it: counted from its source and from real runs.

A run is followed from call to call. A module is *entered* when one of its functions is called, and each call
into another module than that of the call before is a *change* of module: what a reader does who follows it.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.pages import ROOT
from tools.table import table
from tools.world import BIN, World

PACKAGE = ROOT / "venvflow"

_WALKS: tuple[tuple[str, Sequence[str], Sequence[str]], ...] = (
    ("build to store", (), ("doit", "api")),
    ("no-op", (), ("doit", "api")),
    ("explain", (), ("venvflow", "explain", "api")),
    ("restore", ("services/api/.venv",), ("venvflow", "restore", "api")),
)
"""Runs in one project, in this order: name, what is deleted before, the command."""

_FOLLOWED = """
import json, runpy, sys, threading
entered, changes, last = set(), [0], threading.local()
def follow(frame, event, _argument):
    name = frame.f_globals.get("__name__", "")
    code = frame.f_code  # of a class's body, which runs when its module is imported, it is no function's
    is_function = code.co_flags & 1 and code.co_name[0] != "<" and code.co_name != "__create_fn__"
    if event == "call" and is_function and name.startswith("venvflow"):
        entered.add(name)
        changes[0] += name != getattr(last, "name", name)
        last.name = name
answer, sys.argv = sys.argv[1], sys.argv[2:]
threading.setprofile(follow)
sys.setprofile(follow)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    sys.setprofile(None)
    with open(answer, "w") as file:
        json.dump([len(entered), changes[0]], file)
"""


class Source(NamedTuple):
    """What is counted. *used_once* are private functions that their module names in one place only.

    *twice* are the names that several classes have.
    """

    modules: int
    lines: int
    functions: int
    used_once: int
    twice: tuple[str, ...]
    late_imports: int


class Walk(NamedTuple):
    """How far one run goes: the modules that it enters, and how often it changes from one to another."""

    modules: int
    changes: int


def shape() -> str:
    """Return the table of all figures as Markdown; runs four commands in a project of its own."""
    source = counted(PACKAGE)
    share = f"{source.used_once} ({100 * source.used_once / source.functions:.0f} %)"
    rows = [
        ("modules / lines", f"{source.modules} / {source.lines:,}"),
        ("private functions used once in their file", share),
        ("class names that stand for several things", str(len(source.twice))),
        ("imports inside functions", str(source.late_imports)),
    ]
    for name, walk in walks().items():
        rows.append((f"{name}: modules entered / changes of module", f"{walk.modules} / {walk.changes}"))
    named = f"\nSeveral classes are called: {', '.join(source.twice)}.\n" if source.twice else ""
    return table(("figure", "value"), rows) + named


def counted(package: Path) -> Source:
    """Return what the source of *package* counts up to."""
    modules = [path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))]
    trees = [ast.parse(text) for text in modules]
    private = [uses for tree in trees for uses in _uses_of_private_functions(tree)]
    classes = Counter(
        node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    )
    return Source(
        len(modules),
        sum(text.count("\n") for text in modules),
        sum(isinstance(node, ast.FunctionDef) for tree in trees for node in ast.walk(tree)),
        private.count(1),
        tuple(sorted(name for name, times in classes.items() if times > 1)),
        sum(_late_imports(tree) for tree in trees),
    )


def _uses_of_private_functions(tree: ast.Module) -> Iterator[int]:
    """Yield for each private function of a module how often the module names it elsewhere."""
    names = Counter(
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, (ast.Name, ast.Attribute))
    )
    for node in ast.walk(tree):
        is_private = isinstance(node, ast.FunctionDef) and node.name.startswith("_")
        if isinstance(node, ast.FunctionDef) and is_private and not node.name.startswith("__"):
            yield names[node.name]


def _late_imports(tree: ast.Module) -> int:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found = {
        node
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    return len(found)


def walks() -> Mapping[str, Walk]:
    """Return how far each run goes, by its name; raises ``CalledProcessError`` if one fails."""
    with tempfile.TemporaryDirectory() as temporary:
        world = World(Path(temporary), Path(temporary) / "wheels")
        world.furnish()
        return {name: _walk(world, gone, command) for name, gone, command in _WALKS}


def _walk(world: World, gone: Sequence[str], command: Sequence[str]) -> Walk:
    for path in gone:
        subprocess.run(["rm", "-rf", str(world.project / path)], check=True)
    answer = world.root / "walk.json"
    program = [sys.executable, "-c", _FOLLOWED, str(answer), os.path.join(BIN, command[0]), *command[1:]]
    subprocess.run(program, cwd=world.project, env=world.environ, check=True, capture_output=True)
    return Walk(*json.loads(answer.read_text(encoding="utf-8")))
