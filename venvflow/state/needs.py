"""What a venv needs outside of itself: what its editable installs lead to and was there when it was built.

Sources come with a checkout; what a build left beside them does not: meson-python's build directory, an
extension module in the source tree. A snapshot remembers such paths, those in the project relative to it.
Where one is not there, the snapshot would give a venv whose imports fail.
"""

from __future__ import annotations

import ast
import glob
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from venvflow.disk.files import read_small
from venvflow.pure.lockfiles import read_json

_FILES = ("*.pth", "*.egg-link", "__editable__*.py", "_*editable*.py", "*.dist-info/direct_url.json")
_MOST_NAMES = 20_000
"""Names below the directories of editable installs that are looked at."""


def remember(venv: str, root: str, cache_tag: str) -> tuple[str, ...]:
    """Return the paths that the venv at path *venv* of the project at *root* needs outside of it.

    *cache_tag* is that of its Python: extension modules for others are not needed.
    """
    found: set[str] = set()
    for pattern in _FILES:
        for path in glob.iglob(f"{glob.escape(venv)}/lib/*/site-packages/{pattern}"):
            with suppress(OSError, ValueError):
                found.update(_named_in(path, read_small(path)))
    # normpath leaves two slashes at the beginning, which mean something else to other systems.
    there = {os.path.normpath(f"/{path.lstrip('/')}") for path in found if os.path.exists(path)}
    # What the project lies in is no source of it, by whatever name: compiled modules there are anybody's.
    project = os.path.realpath(root)
    real = {path: os.path.realpath(path) for path in there}
    sources = {path for path in there if real[path] == project or not _is_below(project, real[path])}
    there.update(_extension_modules(filter(os.path.isdir, sources), cache_tag))
    return tuple(
        sorted(path for path in there if path not in ("/", root) and not f"{path}/".startswith(f"{venv}/"))
    )


def _is_below(path: str, directory: str) -> bool:
    return os.path.commonpath((path, directory)) == directory


def portable(needs: Iterable[str], root: str) -> tuple[str, ...]:
    """Return *needs* as a snapshot has them: those below the project at *root* relative to it."""
    return tuple(os.path.relpath(path, root) if path.startswith(f"{root}/") else path for path in needs)


def lacking(needs: Iterable[str], root: str) -> str:
    """Return the first of *needs* that is not there for the project at *root*, empty if all are."""
    return next((path for path in needs if not os.path.exists(os.path.join(root, path))), "")


def _named_in(path: str, data: bytes) -> Iterator[str]:
    """Yield the absolute paths that a file of an editable install names."""
    text = os.fsdecode(data)
    if path.endswith(".json"):
        document = read_json(data)
        details, url = document.get("dir_info"), urlsplit(str(document.get("url")))
        if isinstance(details, dict) and details.get("editable") is True and url.scheme == "file":
            yield unquote(url.path)
    elif path.endswith(".py"):
        yield from _literals(text)
    else:
        for line in text.splitlines():
            if line.startswith(("import ", "import\t")):
                yield from _literals(line)
            elif line.startswith("/"):
                yield line.rstrip()


def _literals(source: str) -> Iterator[str]:
    with suppress(SyntaxError, ValueError, RecursionError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("/"):
                yield node.value


def _extension_modules(directories: Iterable[str], cache_tag: str) -> Iterator[str]:
    """Yield the compiled modules for this Python in *directories* of sources, not in those of other venvs."""
    ours = re.compile(rf"\.(?:{re.escape(cache_tag)}[^.]*|abi3)\.so\Z")
    names = 0
    for top in sorted(directories):
        for parent, below, files in os.walk(top):
            names += len(below) + len(files)
            if names > _MOST_NAMES:
                return
            kept = () if "pyvenv.cfg" in files else below
            below[:] = [name for name in kept if not name.startswith(".") and name != "node_modules"]
            yield from (os.path.join(parent, name) for name in files if ours.search(name))
