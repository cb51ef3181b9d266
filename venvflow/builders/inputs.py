"""What the commands of a config read in the project, as far as their words and their scripts tell.

A word counts in any position: a script, ``--config=build.toml``, ``@words.txt``, ``{project}/x.sh``, the
words of ``sh -c``. What a command writes is no input: the word behind ``>`` or ``-o``. So do the scripts that
a script runs, sources or imports from beside it, and what it gives to ``pip install -r``. Other words of
a script may name what it writes: a log that counted would make each run build. Runs nothing.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from venvflow.builders.recipe import BUILD_FILES
from venvflow.disk.files import read_small

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
    waiting = [*found.files]
    for script in waiting:  # which grows
        for path in _named_by(script, root):
            if path not in found.files:
                found.files[path] = None
                waiting.append(path)
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
        if before == "-c" and any("python" in each for each in words):
            found.files |= dict.fromkeys(_read_by_python(word, root, root))
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
    if os.path.isdir(path) and os.path.isfile(f"{path}/__main__.py"):
        path += "/__main__.py"  # Python runs it
    if os.path.isfile(path):
        found.files[path] = None
    elif any(os.path.isfile(f"{path}/{name}") for name in BUILD_FILES):
        found.projects[path] = None
    elif path != root and os.path.isdir(path):
        found.directories[os.path.relpath(path, root)] = None


# --------------------------------------------------------------------------- what scripts name

_LARGEST = 1 << 18
"""Bytes of the largest file that is looked at as a script."""

_SCRIPT_ENDS = (".sh", ".bash", ".zsh", ".py")
_BEFORE_LISTS = frozenset({".", "source", "-r", "--requirement", "-c", "--constraint"})
_STRING = re.compile(r"""'([^'\\\n]+)'|"([^"\\\n]+)\"""")
_IMPORT = re.compile(
    r"""(?mx)(?: ^ | ; )[ \t]*
    (?: import [ \t]+ (?P<modules> [\w.]+ (?: [ \t]* , [ \t]* [\w.]+ )* )
      | from [ \t]+ \.? (?P<package> [\w.]* ) [ \t]+ import [ \t]+ (?P<names> \( [^)]* | [\w, \t*]+ ) )
    """
)


def _named_by(script: str, root: str) -> Iterator[str]:
    """Yield the paths of the files of the project that a *script* runs, sources, imports or installs from."""
    try:
        text = read_small(script, largest=_LARGEST, follow=True).decode("utf-8", "replace")
    except OSError:
        return
    here, first = os.path.dirname(script), text.partition("\n")[0] if text.startswith("#!") else ""
    if script.endswith(".py") or "python" in first:
        yield from _read_by_python(text, here, root)
    elif script.endswith(_SCRIPT_ENDS) or re.search(r"\b(?:ba|da|z|k)?sh\b", first):
        for line in text.splitlines():
            yield from _scripts_among(_words_of(line), here, root)


def _read_by_python(text: str, here: str, root: str) -> Iterator[str]:
    """Yield the same of Python code: modules beside it, and what its strings name."""
    modules: list[str] = []
    for each in _IMPORT.finditer(text):
        modules += re.split(r"[\s,]+", each["modules"] or "")
        names = re.split(r"[\s,(]+", each["names"] or "")
        modules += [each["package"] or "", *(f"{each['package']}.{name}".lstrip(".") for name in names)]
    for module in filter(None, modules):
        for path in (f"{base}/{module.replace('.', '/')}.py" for base in (here, root)):
            if os.path.dirname(path) == here and os.path.isfile(path):
                yield path
    yield from _scripts_among([one or other for one, other in _STRING.findall(text)], here, root)


def _scripts_among(words: list[str], here: str, root: str) -> Iterator[str]:
    """Yield those of the *words* that are scripts, or lists of packages, below the *root* or *here*."""
    first, before = True, ""
    for word in words:
        inner = _words_of(word) if re.search(r"\s", word) else []
        if inner and inner != [word]:
            yield from _scripts_among(inner, here, root)
        # "$(dirname "$0")/common.sh", $HERE/common.sh
        name = word.lstrip("/") if before == ")" else re.sub(r"\A.*[)}]/|\A\$\w+/", "", word, flags=re.DOTALL)
        is_run = name.endswith(_SCRIPT_ENDS) or before in _BEFORE_LISTS or (first and "/" in name)
        if is_run and not _WRITES.fullmatch(before):
            for path in (os.path.normpath(os.path.join(base, name)) for base in (here, root)):
                if path.startswith(f"{root}/") and os.path.isfile(path):
                    yield path
                    break
        first, before = _ENDS.fullmatch(word) is not None, word
