"""The shape of the code: who may import whom, who meets which library, who prints, what import costs."""

from __future__ import annotations

import ast
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest

import venvflow

ROOT = Path(venvflow.__file__).parent

LAYERS = [
    # words, and scripts for other Pythons, which import nothing of ours
    "model errors __init__ compile_worker postinstall",
    # pure decisions
    "pure",
    # disk and processes, the config file
    "disk config",
    # how venvs are made of lock files
    "builders",
    # the store, and between it and directories
    "state",
    # what steps work on and tell each other, then the steps
    "steps.job steps.meter steps.state_files steps.key_inputs",
    "steps",
    # flow
    "flow forecast init",
    # faces
    (
        "streams interrupts tasks workers step_worker reporter progress_display doit_state cli report"
        " pack_venv __main__"
    ),
]
"""Lowest first: a module imports from its own layer and those above it here, not from below."""

RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer.split()}
SCRIPTS = {"compile_worker", "postinstall"}

LIBRARIES = {
    "doit": {"tasks", "reporter", "doit_state"},
    "sqlite_utils": {"state.schema"},
    "yaml": {"config"},
    "pathspec": {"pure.patterns"},
    "backports": {"disk.zstandard"},
    "compression": {"disk.zstandard"},
    "tomli": {"pure.lockfiles"},
    "tomllib": {"pure.lockfiles"},
    "packaging": {"builders.checks", "builders.commands", "builders.pins", "init", "pure.own_part"},
    "rich": {"progress_display"},
    "argcomplete": {"cli.completion"},
    "jinja2": {"report.page"},
    "plotly": {"report.page"},
    "obstore": {"disk.remote.client"},
    "cryptography": {"pure.signing"},
}
"""The rooms in which each third-party library (or its successor in the standard library) is met."""

PROCESSES = {"disk.processes", "disk.bytecode", "disk.remote.channel", "postinstall", "workers"}
HEAVY = {
    "sqlite3", "sqlite_utils", "pathspec", "backports", "compression", "subprocess", "click",
    "rich", "packaging", "argcomplete", "tomli", "tomllib", "obstore", "cryptography", "jinja2", "plotly",
}  # fmt: skip
"""What must not be imported at once on the way to every run; the config is YAML, so that is always needed."""


class Module(NamedTuple):
    """A module of ours: its dotted name below the package, and what it imports when and later."""

    name: str
    tree: ast.Module
    at_once: frozenset[str]
    later: frozenset[str]

    @property
    def room(self) -> str:
        """Return the name in the table of layers: that of the module, or of a package that it is in."""
        return room_of(self.name)

    def is_in(self, rooms: set[str]) -> bool:
        """Return whether it is one of *rooms* or in one of them."""
        return any(f"{self.name}.".startswith(f"{room}.") for room in rooms)


def room_of(name: str) -> str:
    """Return the longest beginning of a module's name that the table of layers has."""
    return name if name in RANK or "." not in name else room_of(name.rpartition(".")[0])


def imported(node: ast.AST) -> set[str]:
    """Return what one statement imports, as dotted names."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        return {f"{node.module}.{alias.name}" for alias in node.names}
    return set()


def parse(name: str, text: str) -> Module:
    """Return a module as far as its shape matters. What only a type checker imports does not count."""
    tree = ast.parse(text)
    at_once: set[str] = set()
    everywhere: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue
        for node in ast.walk(statement):
            everywhere |= imported(node)
        if not isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            for node in ast.walk(statement):
                at_once |= imported(node)
    return Module(name, tree, frozenset(at_once), frozenset(everywhere - at_once))


@lru_cache(maxsize=1)
def modules() -> dict[str, Module]:
    """Return all modules of ours by name; a package has its own name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        name = name.removesuffix(".__init__")
        found[name] = parse(name, path.read_text(encoding="utf-8"))
    return found


def ours(names: frozenset[str]) -> set[str]:
    """Return the modules of ours among imported names, as they are called below the package."""
    known = set(modules())
    found = set()
    for name in names:
        if name.split(".")[0] == "venvflow":
            below = name.split(".")[1:]
            while below and ".".join(below) not in known:
                below.pop()
            found.add(".".join(below) or "__init__")
    return found


def libraries(names: frozenset[str]) -> set[str]:
    """Return the libraries among imported names that are neither ours nor part of every Python."""
    tops = {name.split(".")[0] for name in names} - {"venvflow", "__future__"}
    return {top for top in tops if top not in sys.stdlib_module_names or top in LIBRARIES}


def climbs(module: Module) -> set[str]:
    """Return what a module imports from a layer above its own."""
    return {name for name in ours(module.at_once | module.later) if RANK[room_of(name)] > RANK[module.room]}


def test_every_module_has_its_place_in_the_table() -> None:
    """A new one is put there on purpose, and none is left there that is gone."""
    assert {module.room for module in modules().values()} == set(RANK)


def test_imports_point_downwards() -> None:
    """Also those inside of functions."""
    assert {name: climbs(module) for name, module in modules().items() if climbs(module)} == {}


def test_an_upward_import_would_be_seen() -> None:
    """However it is written, and wherever."""
    for text in (
        "from venvflow.state.store import Store",
        "import venvflow.steps.trim",
        "from venvflow import flow",
        "def f():\n    from venvflow.cli import main",
        "class A:\n    from venvflow.steps.job import Job",
    ):
        assert climbs(parse("disk.scan", text))
    assert not climbs(parse("cli.x", "from venvflow import flow, errors"))
    assert not climbs(
        parse("disk.scan", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import venvflow.cli")
    )


def test_no_module_imports_itself_through_others() -> None:
    """Within a layer too, what is imported at once has an order."""
    waiting = {name: ours(module.at_once) - {name} for name, module in modules().items()}
    for package in {name for name in waiting if f"{name}." in " ".join(waiting)}:
        waiting[package] = set()  # a package collects its modules, and they may ask it for each other
    while waiting:
        free = {name for name, needs in waiting.items() if not needs & waiting.keys()}
        assert free, f"a circle among {sorted(waiting)}"
        waiting = {name: needs for name, needs in waiting.items() if name not in free}


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_for_other_pythons_stand_alone(name: str) -> None:
    """They run where venvflow is not installed."""
    module = modules()[name]
    assert ours(module.at_once | module.later) == set()
    assert libraries(module.at_once | module.later) == set()


def test_each_library_is_met_in_its_own_rooms() -> None:
    """A library that nobody listed is met nowhere."""
    for name, module in modules().items():
        for library in libraries(module.at_once | module.later):
            assert module.is_in(LIBRARIES.get(library, set())), f"{name}: {library}"
        if "subprocess" in module.at_once | module.later:
            assert module.is_in(PROCESSES), name


@pytest.mark.parametrize("name", ["doit_state", "reporter", "tasks", "flow"])
def test_what_every_run_of_doit_imports_is_light(name: str) -> None:
    """Every run of doit imports these modules, also when there is nothing to do."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        current = todo.pop()
        seen.add(current)
        module = modules()[current]
        heavy = {top.split(".")[0] for top in module.at_once} & HEAVY
        assert not heavy, f"{current} imports {heavy} at once"
        parents = {needed.rpartition(".")[0] for needed in ours(module.at_once)} - {""}
        todo += (ours(module.at_once) | parents) - seen
    assert "state.schema" not in seen


def prints(module: Module) -> list[int]:
    """Return the lines in which a module prints or takes one of the standard streams."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and node.id == "print":
            found.append(node.lineno)
        elif isinstance(node, ast.Attribute) and node.attr.strip("_") in ("stdout", "stderr"):
            found += [node.lineno] * (isinstance(node.value, ast.Name) and node.value.id == "sys")
    return sorted(found)


def test_only_faces_print() -> None:
    """Everybody else returns values, raises errors, or calls what it was given to say something."""
    others = {
        name: module
        for name, module in modules().items()
        if RANK[module.room] < len(LAYERS) - 1 and name not in SCRIPTS
    }
    assert {name: prints(module) for name, module in others.items() if prints(module)} == {}
    assert prints(parse("x", "import sys\nprint(1)\nsys.stderr.write('')\nsys.__stdout__\n")) == [2, 3, 4]


PURE = {
    *(
        "base64",
        "collections",
        "cryptography",
        "csv",
        "dataclasses",
        "difflib",
        "fnmatch",
        "functools",
        "hashlib",
        "io",
    ),
    *("itertools", "json", "os", "packaging", "pathspec", "re", "shlex", "struct", "sys", "tomli", "tomllib"),
    *("typing", "urllib", "venvflow"),
}
"""What decisions import: none of it meets files, clocks, processes or streams, or else it is named below."""

PURE_NAMES = {
    "os": {"fsencode", "fsdecode", "path"},
    "os.path": {"basename", "dirname", "isabs", "join", "normpath", "split"},
    "io": {"StringIO"},
    "sys": {"version_info"},
}
"""What they use of these: text and values alone."""


def impure(module: Module) -> set[str]:
    """Return what in a module could meet the world outside."""
    imports = (module.at_once | module.later) - {"__future__.annotations"}
    found = {name.split(".")[0] for name in imports} - PURE
    found |= {name for name in imports if name.rpartition(".")[0] in PURE_NAMES}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name):
            found |= {node.id} & {"open", "print", "input", "exec", "eval", "__import__"}
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            if node.attr not in PURE_NAMES.get(owner, {node.attr}):
                found.add(f"{owner}.{node.attr}")
    return found


def test_decisions_meet_nothing_but_values() -> None:
    """What is in pure/ opens no file, asks no clock, no environment and no system."""
    pure = {name: module for name, module in modules().items() if module.is_in({"pure"})}
    assert {name: impure(module) for name, module in pure.items() if impure(module)} == {}
    text = "import os, time\nopen(os.path.realpath('x'))\nos.environ['HOME']\nfrom os import stat\n"
    assert impure(parse("x", text)) == {"time", "open", "os.path.realpath", "os.environ", "os.stat"}


def test_open_directories_are_listed_by_one_function() -> None:
    """It rewinds: btrfs shows through a descriptor only what was there when it was opened."""
    found = {
        name: ast.unparse(node)
        for name, module in modules().items()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("os.listdir", "os.scandir")
        and re.fullmatch(r"(.*\.)?_?(fd|tmp|staging)|parent", ", ".join(map(ast.unparse, node.args)))
    }
    del found["disk.descriptors"]
    # These list what they have just opened, in two cases once for each directory of a venv.
    assert set(found) == {"disk.scan", "postinstall", "state.carried"}


def undescribed(module: Module) -> list[str]:
    """Return the public names of a module that have no docstring; its own too, if it has none."""
    found = []
    todo: list[ast.Module | ast.ClassDef | ast.FunctionDef] = [module.tree]
    while todo:
        node = todo.pop()
        label = getattr(node, "name", module.name)
        if label.startswith("_") and not isinstance(node, ast.Module):
            continue
        if not ast.get_docstring(node):
            found.append(label)
        if not isinstance(node, ast.FunctionDef):
            todo += [child for child in node.body if isinstance(child, (ast.ClassDef, ast.FunctionDef))]
    return found


def test_every_public_name_says_what_it_is() -> None:
    """Modules, classes, functions and methods without an underscore have a docstring."""
    assert {name: undescribed(module) for name, module in modules().items() if undescribed(module)} == {}
    silent = "class A:\n    'A.'\n    def f(self): pass\n    def _g(self): pass\n"
    assert undescribed(parse("x", silent)) == ["x", "f"]


def spells(module: Module) -> set[str]:
    """Return what a module writes out that has one place: open flags, and how temporary names begin."""
    attributes = {node.attr for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
    formats = [ast.unparse(node) for node in ast.walk(module.tree) if isinstance(node, ast.JoinedStr)]
    found = set()
    if attributes & {"O_NOFOLLOW", "O_DIRECTORY"}:
        found.add("flags")
    if attributes & {"mkdtemp", "mkstemp", "NamedTemporaryFile"}:
        found.add("temporary names")
    if any(".vf-" in text and "getpid" in text for text in formats):
        found.add("temporary names")
    return found


def test_there_is_one_of_each() -> None:
    """Who opens a file safely, or gives it a name for the time being, does it as everybody else does."""
    owners = {"disk.descriptors": {"flags"}, "disk.files": {"temporary names"}}
    found = {name: spells(module) for name, module in modules().items() if name not in SCRIPTS}
    assert {name: what for name, what in found.items() if what} == owners
    assert spells(parse("x", "import os\nos.O_NOFOLLOW\nf'.vf-{os.getpid()}'")) == {
        "flags",
        "temporary names",
    }


def test_a_class_name_stands_for_one_thing() -> None:
    """In the whole package, so that nobody has to ask which one is meant."""
    classes = [
        node.name
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    ]
    assert {name for name in classes if classes.count(name) > 1} == set()


DECIDES = {"model", "pure.plan"}
"""Where a venv's receipt is compared with what is wanted."""

LOOKS = {"disk.places", "state.changes", "state.file_stats"}
"""Where a venv is compared with what its receipt says that it was."""

ASKS = {"flow", "steps.restore"}
"""Who asks these by the mtimes of directories alone, because that is all it has to know."""

_EVIDENCE = {"key", "path", "stats", "top", "directories", "contents"}


def _compared_with_a_receipt(module: Module) -> set[str]:
    """Return which parts of a receipt the module compares with something."""
    return {
        side.attr
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if isinstance(side, ast.Attribute) and side.attr in _EVIDENCE and "receipt" in ast.unparse(side.value)
    }


def _methods_called(module: Module) -> set[str]:
    calls = (node.func for node in ast.walk(module.tree) if isinstance(node, ast.Call))
    return {function.attr for function in calls if isinstance(function, ast.Attribute)}


_MAY_NAME_KEYS = {
    "steps.squish": {"key"},  # which venv is meant: the one for this key
    "cli.venv_states": {"key"},  # for which key it was made, to say what changed since
}


def test_what_must_be_done_and_what_changed_are_decided_in_one_place_each() -> None:
    """Nobody else compares receipts, keys and stats; whoever wants to know asks the plan, or for changes."""
    for name, module in modules().items():
        if name not in DECIDES | LOOKS:
            assert _compared_with_a_receipt(module) <= {"key"} & _MAY_NAME_KEYS.get(name, set()), name
        if name not in LOOKS | ASKS:
            assert not {"untouched", "as_made"} & _methods_called(module), name
