"""Exclude patterns: gitignore rules for a walk that does not enter what is excluded.

The pathspec library reads the patterns. What git does besides is done here: a pattern decides about the
very path that it matches, and what lies below an excluded directory stays excluded. The library answers
for whole paths, and lets a pattern that matches a directory decide about everything below it (``!keep/``
would bring all of it back). It gives git's answers if it is given every directory on the way as well,
and each *by its bare name*: a pattern that matches the path itself then goes before those that match a
directory above. So there are two sets of rules, and in the one for directories a pattern has no slash at
its end.

The tests compare this with ``git check-ignore``. What would be decided in another way than git does is
refused by :func:`problems`: named classes, escapes and signs inside ``[]``, ``[!…]`` in the middle of a
name (the library lets it match a slash), white space at the end of a name, three stars in a row; and so
are more stars than can be matched in good time. One difference is left: ``?`` and ``[…]`` match one
character here, and one byte in git.

Whatever the patterns say, a venv keeps its skeleton: without ``pyvenv.cfg``, its interpreter and the RECORD
files, it would not be a venv any more, and nothing would say what is installed in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from venvflow.errors import ConfigError
from venvflow.model import Saved

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_SKELETON = re.compile(
    r"pyvenv\.cfg"
    r"|bin/(?:python|pypy)[^/]*"
    r"|lib(?:64)?/[^/]+/site-packages/[^/]+\.dist-info/RECORD"
)
_WAY_TO_SKELETON = re.compile(r"bin|lib(?:64)?(?:/[^/]+(?:/site-packages(?:/[^/]+\.dist-info)?)?)?")

_STARS = re.compile(r"(\\.)|\*+", re.DOTALL)
_STARS_PER_SEGMENT = 4
_STARS_PER_PATTERN = 6

# Ranges are of word characters: all of these come after the slash, so that none of them can match it.
_SET = r"\[[!^]?(?:\w-\w|[\w.+*?@ ])+-?\]"
_NEGATED_SET = re.compile(r"\[[!^]")
_TOKEN = re.compile(rf"\\.|{_SET}|[^\\[]", re.DOTALL)


class _Decision(NamedTuple):
    excluded: bool
    line: str | None


_UNDECIDED = _Decision(excluded=False, line=None)


def is_skeleton(rel: str) -> bool:
    """Return whether the file *rel* (relative to the venv) is one that no pattern may exclude."""
    return _SKELETON.fullmatch(rel) is not None


def problems(lines: Iterable[str]) -> list[str]:
    """Return what is wrong with patterns, one sentence each; none for patterns that can be compiled.

    Does not need the library, whose import costs more than loading a config.
    """
    return [f"pattern {line[:60]!r} {problem}" for line in lines if (problem := _problem(line))]


def star_problem(pattern: str) -> str:
    """Return why matching the gitignore pattern or glob *pattern* could take for ever, or an empty text.

    A matcher that backtracks tries every way to share a name out among the stars before it gives up: with
    k stars and n characters about n^k/k! ways, and the ways of all segments of a path multiply. So stars are
    limited per segment (four: ``*-*.dist-info``, ``*.*.*``) and in all (six, ``**`` counted too), which
    keeps it a polynomial of low degree. A run of stars counts once, an escaped one not at all.
    """
    counts = [sum(not found[1] for found in _STARS.finditer(segment)) for segment in pattern.split("/")]
    if max(counts) <= _STARS_PER_SEGMENT and sum(counts) <= _STARS_PER_PATTERN:
        return ""
    return (
        f"has too many stars: at most {_STARS_PER_SEGMENT} between two slashes and {_STARS_PER_PATTERN} "
        "in all, or matching could take for ever"
    )


def compile_patterns(lines: Sequence[str]) -> Matcher:
    """Return a matcher for gitignore *lines*, later ones winning.

    Raises ConfigError for what :func:`problems` names, and for the rest that the library cannot read
    (``[z-a]``).
    """
    if found := problems(lines):
        raise ConfigError(found)
    return Matcher(lines)


class Matcher:
    """Decides for paths relative to a venv (POSIX, no leading slash) whether patterns exclude them.

    What is below an excluded directory is excluded, and ``!`` does not bring it back, as in git. Only the
    skeleton stays, and so do the directories that lead to it. False if there are no patterns.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = [line for line in lines if not _is_blank(line)]
        self._files = _compiled(map(_for_files, self._lines))
        self._directories = _compiled(map(_for_directories, self._lines))
        self._decided = {"": _UNDECIDED}  # for directories: each of their files asks again

    def __bool__(self) -> bool:
        return bool(self._lines)

    def excludes_dir(self, rel: str) -> bool:
        """Return whether the directory *rel* need not be entered."""
        return self._directory(rel).excluded and not _WAY_TO_SKELETON.fullmatch(rel)

    def excludes_file(self, rel: str) -> bool:
        """Return whether *rel*, which is not a directory (links never are), is excluded."""
        return self._file(rel).excluded and not is_skeleton(rel)

    def deciding(self, rel: str) -> str | None:
        """Return the pattern that decides about *rel*, which ends in a slash if it is a directory.

        A pattern with ``!`` is one that brought *rel* back, or a directory above it. ``None``: no pattern
        matches, or the skeleton stays in spite of them.
        """
        name = rel.rstrip("/")
        if name == rel:
            return None if is_skeleton(rel) else self._file(rel).line
        return None if _WAY_TO_SKELETON.fullmatch(name) else self._directory(name).line

    def _file(self, rel: str) -> _Decision:
        above = self._directory(rel.rpartition("/")[0])
        return above if above.excluded else self._ask(self._files, rel)

    def _directory(self, rel: str) -> _Decision:
        """Decide about the directories above *rel* first, outermost before all."""
        known, above = self._decided, _UNDECIDED
        if rel not in known:
            for path in accumulate(rel.split("/"), "{}/{}".format):
                if path not in known:
                    known[path] = above if above.excluded else self._ask(self._directories, path)
                above = known[path]
        return known[rel]

    def _ask(self, spec: GitIgnoreSpec, rel: str) -> _Decision:
        # To the library's expressions, a line break ends a text. No pattern holds one, so any sign will do.
        found = spec.check_file(rel.replace("\n", "\0"))
        line = None if found.index is None else self._lines[found.index]
        return _Decision(excluded=bool(found.include), line=line)


def saved_by(sizes: Mapping[str, int], matcher: Matcher) -> list[Saved]:
    """Return what each pattern saved, most bytes first, for files that were left out by path and size."""
    left_out: dict[str, list[int]] = {}
    for path, size in sizes.items():
        left_out.setdefault(matcher.deciding(path) or "", []).append(size)
    found = [Saved(pattern, len(of_it), sum(of_it)) for pattern, of_it in left_out.items()]
    return sorted(found, key=lambda each: (-each.size, each.pattern))


def _compiled(lines: Iterable[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # noqa: PLC0415 - 24 ms that only patterns cost

    # Left to itself, the library takes the fastest engine for regular expressions that happens to be
    # installed. One of them misses matches, and what is excluded must not depend on the machine at all.
    try:
        return GitIgnoreSpec.from_lines(lines, backend="simple")
    except (ValueError, re.error) as error:
        raise ConfigError([f"the exclude patterns cannot be compiled: {error}"]) from error


def _is_blank(line: str) -> bool:
    return not line.strip(" ") or line.startswith("#")


# --------------------------------------------------------------------------- as the library needs them


def _for_files(line: str) -> str:
    """Return *line* as it decides about files; a slash at its end makes it one for directories above them.

    To git, ``a/**/`` means the directories below ``a``; the library would count ``a`` itself.
    """
    sign, body = _parts(line)
    body = _with_single_stars(body)
    return sign + (body + "*/" if body.endswith("/**/") else body)


def _for_directories(line: str) -> str:
    sign, body = _parts(line)
    return sign + _with_single_stars(body).removesuffix("/")


def _parts(line: str) -> tuple[str, str]:
    """Return the ``!`` at the start of *line*, and the rest without spaces at its end, if not escaped."""
    pattern = line.rstrip(" ")
    backslashes = len(pattern) - len(pattern.rstrip("\\"))
    if backslashes % 2 and pattern != line:
        pattern += " "
    return ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)


def _with_single_stars(body: str) -> str:
    """Return *body* with one star for two wherever that means the same, and is matched much sooner."""
    segments = body.split("/")
    return "/".join(part if part == "**" else _STARS.sub(lambda f: f[1] or "*", part) for part in segments)


# --------------------------------------------------------------------------- what is wrong with a pattern


def _problem(line: str) -> str:
    if _is_blank(line):
        return ""
    if "\n" in line or "\0" in line:
        return "contains a line break or a NUL"
    _, body = _parts(line)
    segments = body.removeprefix("/").removesuffix("/").split("/")
    if "" in segments:
        return "matches nothing: there is nothing between two slashes, or nothing else"
    return star_problem(body) or next(filter(None, map(_problem_of_part, segments)), "")


def _problem_of_part(part: str) -> str:
    rest = _TOKEN.sub("", part)
    if rest.startswith("["):
        return (
            "has a [ that does not start a list of letters, digits and ranges of them, as in [a-z_]; write "
            "\\[ for the character itself"
        )
    if rest:
        return "ends a part in a backslash; write \\\\ for the character itself"
    if "***" in part:
        return "has three stars in a row; * stops at slashes, and ** between slashes does not"
    if part != part.rstrip() and not part.endswith("\\ "):
        return "has white space at the end of a name; write '\\ ' for a space that counts"
    if any(_NEGATED_SET.match(token) for token in _TOKEN.findall(part)[1:-1]):
        return "has a [!…] in the middle of a name; it can only stand at the start or the end of one"
    return ""
