"""Reads what builders write: why they failed, what they miss, and what they are at."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from venvflow.disk.mounts import mount_of
from venvflow.disk.system_errors import free_bytes
from venvflow.errors import shown, some
from venvflow.pure.comparison import SEEDS
from venvflow.pure.names import normalised
from venvflow.pure.units import counted

TAIL = 50
"""How many of the builder's last lines an error shows, if none is known to say why."""

_SHORT_TAIL = 15
"""How many it shows if some are."""

_LONGEST = 2000
"""Characters of a line that are kept."""


class Heard:
    """What a builder has written so far, line by line: what matters of it, and the last lines."""

    def __init__(self) -> None:
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._causes: dict[str, None] = {}
        self._is_named = False
        self.lacks: list[Lack] = []
        self.doing = Doing()

    def take(self, line: str) -> None:
        """Take note of the next line."""
        line = line[:_LONGEST]
        self._tail.append(line)
        self.doing.take(line)
        if (lack := lack_in(line)) is not None and lack not in self.lacks:
            self.lacks.append(lack)
        text = _FRAME.sub("", line)
        # poetry writes the name of an exception in a line of its own, and what it says in the next.
        if text and (self._is_named or is_cause(line)):
            self._causes.setdefault(text, None)
        self._is_named = bool(_NAME_ALONE.match(line)) or (self._is_named and not text)

    def forgive(self) -> None:
        """Take note that the program ended well: what it complained of is no reason for a later failure."""
        self._causes.clear()

    @property
    def tail(self) -> str:
        """The last lines, as many as are worth showing; none where the causes are all there is to say."""
        if not self._causes:
            return "\n".join(self._tail)
        if {_FRAME.sub("", line) for line in self._tail} <= {"", *self._causes}:
            return ""
        return "\n".join([*self._tail][-_SHORT_TAIL:])

    @property
    def causes(self) -> list[str]:
        """The lines that say why a build failed, without their frames; none if none is known to do that."""
        found = list(self._causes)
        half = _MOST_CAUSES // 2
        return found if len(found) <= _MOST_CAUSES else [*found[:half], "...", *found[-half:]]


# --------------------------------------------------------------------------- why it failed


_MOST_CAUSES = 8
"""Lines that say why which are shown: what came first, and what came last."""

_FRAME = re.compile(r"^(?:\s|[|│\u00d7╰├─▶>]|pdm\.termui: )+|\s+$")
"""What tools put before the lines of others, and of a chain of reasons."""

_NAME_ALONE = re.compile(r"\s+\w*(?:Error|Exception)$")

_CAUSES = re.compile(
    r"""
    (?:fatal\ )?error(?:\[\w+\])?:\           # uv, compilers, linkers, setuptools
    | \S+:\ (?:fatal\ )?error:\              # a compiler, of a line; a linker
    | WARNING:\ Retrying\ .*connection\ broken
    | ERROR:\s | CMake\ Error | npm\ ERR! | (?:E|fatal):\s
    | (?:cause|Caused\ by):\ | hint:\ |.+\ did\ not\ run\ successfully
    | (?:\w+(?:Error|Exception)|[\w.]+\.[A-Z]\w*):\ \S  # the last line of a traceback
    | \[\w+(?:Error|Exception)\]:\  | Error\ occurs\ adding\ \S
    | (?:So,\ )?[Bb]ecause\ .+ | .*version\ solving\ failed
    | This\ version\ of\ pip\ does\ not\ support
    | .*Python\ version\ .*is\ not\ (?:allowed|supported)
    | .*(?:changed\ significantly\ since|lock\ file\ is\ not\ up\ to\ date|is\ out\ of\ date)
    | .*Unable\ to\ find\ installation\ candidates | Cannot\ install\ \S+
    | Note:\ This\ error\ originates\ from\ the\ build\ backend
    | make(?:\[\d+\])?:\ \*\*\* | .*(?:command\ not\ found|:\ not\ found)$
    | .*(?:No\ such\ file\ or\ directory|Permission\ denied|No\ space\ left\ on\ device)
    """,
    re.VERBOSE,
)

_CONSEQUENCES = re.compile(
    r"subprocess-exited-with-error|failed-wheel-build-for-install|metadata-generation-failed"
    r"|returned non-zero exit status|CalledProcessError: |The build backend returned an error"
    r"|Call to `.*` failed|Failed to build installable wheels"
    r"|Failed building wheel|Could not build wheels|Couldn't install package"
    r"|Build backend raised error: Showing|Some package operations failed"
    r"|^hint: Build failures usually indicate"
)
"""What is said after a failure of which the cause was said."""


_CHAIN = re.compile(r"\s*(?:\u00d7|├─▶|╰─▶) ")
"""What pip, and uv in earlier versions, put before each link of a chain of reasons."""


def is_cause(line: str) -> bool:
    """Return whether a *line* says why a build failed, and not that it did."""
    is_known = _CHAIN.match(line) or _CAUSES.match(_FRAME.sub("", line))
    return bool(is_known) and not _CONSEQUENCES.search(line)


# --------------------------------------------------------------------------- what may help


_HINTS = (
    (
        r"(?:incompatible with|not \w+ by) the project|different python|not satisfy python|requires-python",
        'Set "python:" for this venv in the config to a version that the project allows.',
    ),
    (
        r"version of pip does not support python",
        'What installs is too new for this Python: use an older pipenv, or set "python:" to a newer Python.',
    ),
    (
        r"failed to (?:initialize|create|open) (?:the )?cache|cache.*permission denied",
        "The builder's cache cannot be written: fix its permissions, or set UV_CACHE_DIR or PIP_CACHE_DIR.",
    ),
    (
        r"hash mismatch|do not match the hashes|not found in known hashes|matches the environment or hashes",
        "The index offers other files than those that were locked: find out why before you lock again.",
    ),
    (
        r"changed significantly since|lock file is not up to date|Pipfile\.lock .*is out of date",
        "The lock file is older than the file beside it: lock again, then run doit again.",
    ),
    (
        r": (?:fatal )?error: .*\.h(?:pp)?'?:? |linker `?\w+`? not found|cannot find -l",
        "A package is compiled here, and lacks something: install that, or lock a version with a wheel.",
    ),
    (
        r"not a valid editable|Distribution not found at|Expected .* to be a|does not (?:exist|appear to be)",
        "Relative paths in a requirements file are looked for in the directory of that file.",
    ),
    (
        r"No module named '?(?:venv|ensurepip)|ensurepip is not",
        "This Python lacks venv: install python3-venv.",
    ),
    (
        r"temporary failure in name resolution|failed to fetch|connection|timed out|network",
        "The package index may be out of reach: check the network and the index, then run doit again.",
    ),
)

_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)

_LITTLE = 4 << 20
"""Bytes free from which on a build may have failed for want of space without saying so."""


def hint(said: str, *written: str) -> str:
    """Return what may help against what a builder *said*; *written* are directories that it writes to."""
    full = next((line for line in reversed(said.splitlines()) if _NO_SPACE.search(line)), None)
    if full is not None:
        # The last path in that line is what could not be written: its place, a cache, a temporary directory.
        named = re.findall(r"(?<![\w/])/[^\s'\"`:]+", full)
        mount = shown(mount_of(named[-1] if named else written[0]).point)
        return f"Free space on the file system mounted at {mount}, then run doit again."
    for pattern, advice in _HINTS:
        if re.search(pattern, said, re.IGNORECASE):
            return advice
    for path in written:
        left = free_bytes(path)
        if left is not None and left < _LITTLE:
            mount = shown(mount_of(path).point)
            return f"The file system mounted at {mount} is nearly full: free space there, then run again."
    return "Correct the lock files or the build, then run doit again."


# --------------------------------------------------------------------------- what it misses


class Lack(NamedTuple):
    """A *package* wants another one that is not there, or not as it wants it: what is there is *there*."""

    package: str
    wants: str
    there: str = ""


_LACKS = (
    re.compile(r"warning: The package `(.+?)` requires `(.+?)`, but (?:it's not|`(.+?)` is) installed"),
    re.compile(r"(\S+) \S+ requires (.+?), which is not installed()"),
    re.compile(r"(\S+) \S+ has requirement (.+?), but you have \S+ (\S+?)\.?$"),
)

_BY_PYTHON = re.compile(r";.*\bpython_(?:full_)?version\b")
"""In what a package wants, only on some Pythons."""


def lack_in(line: str) -> Lack | None:
    """Return what a line of uv or pip says is missing, None if it says nothing of the kind."""
    found = next((match for pattern in _LACKS if (match := pattern.match(line))), None)
    return Lack(found[1], found[2], found[3] or "") if found else None


def warnings_of(lacks: Iterable[Lack], locked_by: str) -> Iterator[str]:
    """Yield a line about each: packages that are missing, that only this Python misses, of another version.

    *locked_by* is the tool that made the lock files, empty if they do not say.
    """
    missing: dict[str, list[str]] = {}
    only_here: dict[str, list[str]] = {}
    others = []
    for package, wants, there in lacks:
        if there:
            others.append(f"{package} wants {wants}, not {there}")
        else:
            name = re.split(r"[^\w.-]", wants, maxsplit=1)[0]
            wanted = only_here if _BY_PYTHON.search(wants) else missing
            wanted.setdefault(normalised(name), []).append(package)
    if missing:
        advice = _how_to_lock(missing, locked_by)
        yield (
            "the lock file does not name what its packages need, so it is not installed: "
            f"{_named(missing)}. {advice}"
        )
    if only_here:
        yield (
            "the lock file was made for another Python: what its packages need on this one is not installed: "
            f'{_named(only_here)}. Say "python" as it was locked, or lock again for this Python'
        )
    if others:
        yield f"the lock file names versions that do not go together: {some(others, 3)}. Lock them together"


def _named(missing: Mapping[str, Sequence[str]]) -> str:
    """Return what is missing, and for whom."""
    return ", ".join(
        f"{name} (for {packages[0] if len(packages) == 1 else counted(len(packages), 'package')})"
        for name, packages in missing.items()
    )


def _how_to_lock(missing: Mapping[str, Sequence[str]], locked_by: str) -> str:
    """Return the advice that fits: each tool leaves out something else unless it is told."""
    if locked_by == "pip-compile":
        unsafe = " --allow-unsafe" if SEEDS & missing.keys() else ""
        return f'Lock again with "pip-compile{unsafe}"'
    if locked_by == "uv":
        return "Lock again with uv, without --no-deps, --no-emit-package and --unsafe-package"
    if missing.keys() <= SEEDS:
        return 'Lock with "uv pip compile", or with "pip freeze --all", which leaves out nothing'
    return 'Lock all of it, as in "uv pip compile requirements.in -o requirements.txt"'


# --------------------------------------------------------------------------- what it is at


class Doing:
    """What a builder is at: what it has begun and not ended, and how many packages are done of how many."""

    def __init__(self) -> None:
        self._begun: dict[str, str] = {}
        self._built = 0
        self._last = ""
        self.done = 0
        self.total = 0

    def take(self, line: str) -> None:
        """Take note of the next line."""
        self._last = ""
        if found := _EXPECTED.search(line):
            self.total = int(_word(found))
        elif found := _NEXT.search(line):  # nobody says when it ends: that is when the next one begins
            self.done = min(self.done + len(self._begun), self.total)
            self._begun = {_bare(found[1]): "installing"}
        elif found := _BEGUN.search(line):
            self._begun[_bare(_word(found))] = "downloading" if "Downloading" in line else "building"
        elif found := _ENDED.search(line):
            self._begun.pop(_bare(_word(found)), None)
            self._built += "Built" in line or line.endswith("'done'")
        elif found := _INSTALLED.search(line):
            self._begun.pop(_bare(found[1]), None)
            self.done += found[2] == "successful"
        else:
            self._begun = {} if _ALL_BUILT.match(line) else self._begun
            self._last = line.strip()

    def __str__(self) -> str:
        """Return what it is at; its last line if nothing else is known. What is over is only counted."""
        names = list(self._begun)
        if not names and self._last:
            return self._last
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        built = f"{self._built} built" if self._built else ""
        return ", ".join(filter(None, (f"{self._begun[names[0]]} {names[0]}{more}" if names else "", built)))


_EXPECTED = re.compile(r"^Package operations: (\d+) install|resolved packages: (\d+) to add")
_NEXT = re.compile(r"^\s*- (?:Installing|Updating|Downgrading) (\S+) \(")
_BEGUN = re.compile(
    r"Building (?:wheel|editable) for (\S+) .*: (?:started|still)|^\s+Building (?!wheel|editable)(\S+)"
    r"|to build a wheel for <Link (\S+)|^\s*Downloading (\S+) \([\d.]+[KMG]iB\)"
)
_ENDED = re.compile(
    r"Building (?:wheel|editable) for (\S+) .*: finished|^\s+Built (\S+)|^\s*Downloaded (\S+)$"
)
_INSTALLED = re.compile(r"^\s*\S Install (\S+) .*(successful|failed)")
_ALL_BUILT = re.compile(r"(?:Prepared|Installed|Installing collected packages)\b")


def _word(found: re.Match[str]) -> str:
    """Return the only group that matched."""
    return found[found.lastindex or 0]


def _bare(name: str) -> str:
    """Return the name of a package alone: without version, URL and the rest of the name of a file."""
    return normalised(re.sub(r"(?:==|@|-\d).*", "", name.rpartition("/")[2]))
