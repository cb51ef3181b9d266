"""Exclude patterns: gitignore rules for a walk that does not enter what is excluded.

The rules are git's own, compared with ``git check-ignore`` in the tests: a pattern decides about the very
path that it matches, and what lies below an excluded directory is excluded with it. They are translated
here, because a library that answers for whole paths at once cannot tell these two apart (``*`` with
``!keep/`` would bring back everything below ``keep``), and because its regular expressions take
exponential time on patterns with many stars. Ours never go back to an earlier star, so no pattern hangs.

Where they differ from git: ``?`` and sets match one character, not one byte, and named character classes
(``[[:digit:]]``) are refused.

Whatever the patterns say, a venv keeps its skeleton: without ``pyvenv.cfg``, its interpreter and the RECORD
files, it would be no venv any more, and nobody could tell what is installed in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from venvflow.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_SKELETON = re.compile(
    r"pyvenv\.cfg"
    r"|bin/(?:python|pypy)[^/]*"
    r"|lib(?:64)?/[^/]+/site-packages/[^/]+\.dist-info/RECORD"
)
_WAY_TO_SKELETON = re.compile(r"bin|lib(?:64)?(?:/[^/]+(?:/site-packages(?:/[^/]+\.dist-info)?)?)?")

# What a part of a pattern is made of: an escaped character, stars, a question mark, a set, any other.
_TOKEN = re.compile(
    r"\\(?P<escaped>.)|(?P<stars>\*+)|(?P<one>\?)|\[(?P<set>[!^]?\]?(?:\\.|[^]\\])*)\]|(?P<other>[^\\*?[])",
    re.DOTALL,
)
_SET_MEMBER = re.compile(r"\\?(.)(?:-\\?(.))?", re.DOTALL)


class _Rule(NamedTuple):
    line: str
    brings_back: bool
    dirs_only: bool
    by_name: bool
    matches: Callable[[str], object]


def is_skeleton(rel: str) -> bool:
    """Return whether the file *rel* (relative to the venv) is one that no pattern may exclude."""
    return _SKELETON.fullmatch(rel) is not None


def problems(lines: Sequence[str]) -> list[str]:
    """Return what is wrong with patterns, one sentence each; none for patterns that can be compiled."""
    return [f"pattern {line!r} {problem}" for line in lines if (problem := _problem(line))]


def compile_patterns(lines: Sequence[str]) -> Matcher:
    """Return a matcher for gitignore *lines*, later ones winning; ConfigError if one is not valid."""
    if found := problems(lines):
        raise ConfigError(found)
    return Matcher(lines)


class Matcher:
    """Decides for paths relative to a venv (POSIX, no leading slash) whether patterns exclude them.

    What is below an excluded directory is excluded, and ``!`` does not bring it back, as in git. Only the
    skeleton stays, and so do the directories that lead to it. False if there are no patterns.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self._rules = tuple(_rule(line) for line in reversed(lines) if not _is_blank(line))
        self._decided: dict[str, _Rule | None] = {}  # for directories: each of their files asks again

    def __bool__(self) -> bool:
        return bool(self._rules)

    def excludes_dir(self, rel: str) -> bool:
        """Return whether the directory *rel* need not be entered."""
        return _excludes(self._for_dir(rel)) and not _WAY_TO_SKELETON.fullmatch(rel)

    def excludes_file(self, rel: str) -> bool:
        """Return whether *rel*, which is not a directory (links never are), is excluded."""
        return _excludes(self._for_path(rel, is_dir=False)) and not is_skeleton(rel)

    def deciding(self, rel: str) -> str | None:
        """Return the pattern that decides about *rel*, which ends in a slash if it is a directory.

        A pattern with ``!`` is one that brought *rel* back. ``None``: no pattern matches, or the skeleton
        stays in spite of them.
        """
        name = rel.rstrip("/")
        is_dir = name != rel
        if _WAY_TO_SKELETON.fullmatch(name) if is_dir else is_skeleton(rel):
            return None
        rule = self._for_path(name, is_dir=is_dir)
        return None if rule is None else rule.line

    def _for_dir(self, rel: str) -> _Rule | None:
        if rel not in self._decided:
            self._decided[rel] = self._for_path(rel, is_dir=True)
        return self._decided[rel]

    def _for_path(self, rel: str, *, is_dir: bool) -> _Rule | None:
        parent, _, name = rel.rpartition("/")
        if parent and _excludes(above := self._for_dir(parent)):
            return above
        for rule in self._rules:
            if (is_dir or not rule.dirs_only) and rule.matches(name if rule.by_name else rel):
                return rule
        return None


def _excludes(rule: _Rule | None) -> bool:
    return rule is not None and not rule.brings_back


def _is_blank(line: str) -> bool:
    return not line.strip(" ") or line.startswith("#")


# --------------------------------------------------------------------------- from pattern to rule


def _rule(line: str) -> _Rule:
    negated, pattern = _parts(line)
    body = pattern.removesuffix("/")
    by_name = "/" not in body
    segments = body.removeprefix("/").split("/")
    matches = re.compile(_path_expression(segments), re.DOTALL).fullmatch
    return _Rule(line, negated, body != pattern, by_name, matches)


def _parts(line: str) -> tuple[bool, str]:
    """Return whether *line* starts with ``!``, and the rest without spaces at its end, if not escaped."""
    pattern = line.rstrip(" ")
    backslashes = len(pattern) - len(pattern.rstrip("\\"))
    if backslashes % 2 and pattern != line:
        pattern += " "
    return pattern.startswith("!"), pattern.removeprefix("!")


def _path_expression(segments: Iterable[str]) -> str:
    """Return a regular expression for a path, given the parts of a pattern between its slashes.

    ``**`` stands for any number of directories, at the end for all that is below. What lies between two of
    them is looked for once, from left to right: a later match of it could not succeed where the first
    fails.
    """
    groups: list[list[str]] = [[]]
    names = _Names()
    for segment in segments:
        if segment == "**":
            groups.append([])
        else:
            groups[-1].append(_part_expression(segment, names))
    first, *middle = groups
    if not middle:
        return "/".join(first)
    last = middle.pop()
    found = "".join(names.once("(?:[^/]+/)*?" + _as_directories(group)) for group in middle if group)
    return _as_directories(first) + found + ("(?:.*/)?" + "/".join(last) if last else ".+")


def _as_directories(expressions: Iterable[str]) -> str:
    return "".join(expression + "/" for expression in expressions)


def _part_expression(segment: str, names: _Names) -> str:
    """Return a regular expression for one part: stars stop at slashes and never give back what they took."""
    pieces = [""]
    for token in _TOKEN.finditer(segment):
        if token["stars"]:
            pieces.append("")
        else:
            pieces[-1] += _one_character(token)
    first, *middle = pieces
    if not middle:
        return first
    last = middle.pop()
    return first + "".join(names.once("[^/]*?" + piece) for piece in middle if piece) + "[^/]*" + last


def _one_character(token: re.Match[str]) -> str:
    if token["one"]:
        return "[^/]"
    if token["set"] is not None:
        return _set_expression(token["set"])
    return re.escape(token["escaped"] or token["other"])


def _set_expression(inside: str) -> str:
    """Return a set that matches one character, and never the slash, whatever its ranges span."""
    negated = inside[:1] in {"!", "^"}
    members = ""
    for low, high in _SET_MEMBER.findall(inside[negated:]):
        if not high:
            members += re.escape(low)
        elif low <= high:  # git lets a range that is empty match nothing
            members += f"{re.escape(low)}-{re.escape(high)}"
    if negated:
        return f"[^/{members}]"
    return f"(?!/)[{members}]" if members else "(?!)"


class _Names:
    """Hands out group names, for parts of an expression that are matched once and not tried again."""

    def __init__(self) -> None:
        self._count = 0

    def once(self, expression: str) -> str:
        # An atomic group, spelled for Python 3.10, which does not have them.
        self._count += 1
        return f"(?=(?P<g{self._count}>{expression}))(?P=g{self._count})"


# --------------------------------------------------------------------------- what is wrong with a pattern


def _problem(line: str) -> str:
    if _is_blank(line):
        return ""
    if "\n" in line or "\0" in line:
        return "contains a line break or a NUL"
    _, pattern = _parts(line)
    if "" in pattern.removeprefix("/").removesuffix("/").split("/"):
        return "matches nothing: there is nothing between two slashes, or nothing else"
    return next((found for part in pattern.split("/") if (found := _problem_of_part(part))), "")


def _problem_of_part(part: str) -> str:
    rest = _TOKEN.sub("", part)
    if rest.startswith("["):
        return "has a [ without its ]; write \\[ for the character itself"
    if rest:
        return "ends a part in a backslash; write \\\\ for the character itself"
    if "***" in part:
        return "has three stars in a row; * stops at slashes, and ** between slashes does not"
    if any("[:" in token["set"] for token in _TOKEN.finditer(part) if token["set"]):
        return "names a character class; list the characters, as in [0-9]"
    return ""
