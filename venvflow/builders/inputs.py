"""What the commands of a config read in the project, as far as their words tell.

A word counts in any position: a script, ``--config=build.toml``, ``@words.txt``, ``{project}/x.sh``, the
words of ``sh -c``. What a command writes is no input: the word behind ``>`` or ``-o``. Runs nothing and reads
no file.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from venvflow.builders.recipe import BUILD_FILES

_MAKE = ("GNUmakefile", "makefile", "Makefile")
_RUNNERS = {
    "make": _MAKE,
    "gmake": _MAKE,
    "just": ("justfile", "Justfile", ".justfile"),
    "task": ("Taskfile.yml", "Taskfile.yaml"),
    "nox": ("noxfile.py",),
    "tox": ("tox.ini", "tox.toml", "pyproject.toml"),
    "invoke": ("tasks.py",),
    "inv": ("tasks.py",),
    "doit": ("dodo.py",),
    "rake": ("Rakefile",),
    **dict.fromkeys(("npm", "npx", "pnpm", "yarn", "bun"), ("package.json",)),
    **dict.fromkeys(("hatch", "poe", "pdm run", "poetry run", "pipenv run"), ("pyproject.toml", "Pipfile")),
}
"""Programs that run what a file says, and the names of that file: what they read besides cannot be seen."""

_WRITES = re.compile(r"\d*>>?|&>>?|-o|--(?:out|log)[a-z-]*|tee|touch|mkdir|rm")
_ENDS = re.compile(r"[;&|()]+")


@dataclass(slots=True)
class Inputs:
    """What commands read: absolute paths of *files*, and of *projects*, directories with a pyproject.toml.

    *directories* are others that they name, relative to the root, and *runners* programs that read what no
    word names. All in order, each once.
    """

    files: dict[str, None] = field(default_factory=dict)
    projects: dict[str, None] = field(default_factory=dict)
    directories: dict[str, None] = field(default_factory=dict)
    runners: dict[str, None] = field(default_factory=dict)


def inputs_of(commands: Iterable[Iterable[str]], root: str) -> Inputs:
    """Return what *commands*, as the config has them, read below the project's *root*, where they run."""
    found = Inputs()
    for command in commands:
        words = [*command]
        if words and words[0].strip("{}") in ("poetry", "pdm", "pipenv") and words[1:2] == ["run"]:
            words[:2] = [f"{words[0].strip('{}')} run"]
        _read(words, root, found)
    return found


def _read(words: list[str], root: str, found: Inputs) -> None:
    """Add what the *words* of one command, or of a line for a shell, name."""
    first, before = True, ""
    for word in words:
        program = os.path.basename(word)
        if first and program in _RUNNERS:
            found.runners[program] = None
            _add(
                next(filter(os.path.isfile, (f"{root}/{name}" for name in _RUNNERS[program])), ""),
                root,
                found,
            )
        if re.search(r"\s", word):
            _read(_words_of(word), root, found)
        if not _WRITES.fullmatch(before):
            for name in filter(None, _names_in(word, before)):
                _add(os.path.normpath(os.path.join(root, name)), root, found)
        first, before = _ENDS.fullmatch(word) is not None, word


def _words_of(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return [*lexer]
    except ValueError:
        return line.split()


def _names_in(word: str, before: str) -> Iterator[str]:
    """Yield the names of files that a word may stand for, behind the word *before* it."""
    word = word.replace("{project}/", "").replace("{project}", ".")
    option, equals, value = word.partition("=")
    yield word
    if equals and not _WRITES.fullmatch(option):
        yield value
    yield from re.findall(r"\A(?:@|-[A-Za-z])(.+)\Z", word)
    yield re.sub(r"\[[\w,.-]*\]\Z", "", word)  # a project with extras
    if before == "-m":
        module = word.replace(".", "/")
        yield from (f"{module}.py", f"{module}/__main__.py")


def _add(path: str, root: str, found: Inputs) -> None:
    if path != root and not path.startswith(f"{root}/"):
        return
    if os.path.isfile(path):
        found.files[path] = None
    elif any(os.path.isfile(f"{path}/{name}") for name in BUILD_FILES):
        found.projects[path] = None
    elif path != root and os.path.isdir(path):
        found.directories[os.path.relpath(path, root)] = None
