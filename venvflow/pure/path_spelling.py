r"""How local paths are written in the files of a venv: quoted in a shell script, percent-encoded in a URL.

How a path is written decides how it must be written elsewhere: a shell script wants quotes, a URL wants
percent signs, a shebang has a limited length and no spaces. Forms:

===========  =====================================================================================
``raw``      as it is: targets of symlinks
``line``     as it is, on one line: line breaks become spaces, because the file cannot hold them
``sh``       one whole word of a shell; the same spelling is right for POSIX shells, csh and fish
``url``      percent-encoded, as in ``file://`` URLs
``component``  the same with its slashes, as in the query of a URL
``py``       inside a Python string literal
``literal``  one whole string literal, with its quotes, of Python or nushell
``json``     inside a JSON string
``shebang``  the whole first line (or the ``/bin/sh`` trampoline) of a script for a program of the venv
``record``   ``sha256=…,size`` of a file that is itself a template, in a RECORD
===========  =====================================================================================

No form lets a path end the string or the line that it stands in, so no path can run a command. Shell
scripts are understood line by line: in a here-document, or in a string that began on an earlier line,
quotes are written where none are due, and a path with blanks or quotes in it comes out wrong there.

What writes them is in :mod:`venvflow.postinstall`, which does so where there is no venvflow.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from functools import lru_cache
from typing import Literal

from venvflow.postinstall import WRITERS, is_python, shell_word

# --------------------------------------------------------------------------- first lines


_TRAMPOLINE = re.compile(
    rb"""\A\#!/bin/sh\n'''exec'[ ](?P<command>.+?)[ ]"\$0"[ ]"\$@"\n'[ ]'''\n""", re.DOTALL | re.VERBOSE
)
_FIRST_LINE = re.compile(
    rb"""\A\#![ \t]*(?P<env>/(?:usr/)?bin/env[ \t]+(?:(?P<split>-i?S|--split-string[ =])[ \t]*)?)?
    (?P<command>[^\n]*)\n?""",
    re.VERBOSE,
)
_FOR_ENV = re.compile(rb"(?:(?:-i|[A-Za-z_][A-Za-z0-9_]*=[A-Za-z0-9_.,:@/+-]*)[ \t]+)*")
_PRINTED = re.compile(rb"""\A"\$\(printf '([^']*)'\)\"""")
_WORD = re.compile(rb"""\A(?:'[^']*'|"(?:[^"\\]|\\.)*"|\\.|[^\s'"\\])+""", re.DOTALL)


def parse_shebang(data: bytes, prefix: bytes) -> tuple[str, int] | None:
    """Return what ``postinstall.shebang`` needs to write the start of *data* anew, and where that start ends.

    *prefix* is the venv's path with a slash. None unless a program below it is to run the script, by a
    trampoline a Python. ``env -S`` and blanks before the path say nothing more, so they are not kept;
    variables for ``env``, and that there shall be no others, are.
    """
    trampoline = _TRAMPOLINE.match(data)
    found = trampoline or _FIRST_LINE.match(data)
    if found is None:
        return None
    command, env = found["command"].strip(), b""
    if trampoline is not None and command.startswith(b"env "):
        env, command = _words_for_env(command[4:])
    elif trampoline is None and found["split"]:
        env, command = _words_for_env((b"-i " if found["split"] == b"-iS" else b"") + command)
    if trampoline is None and command.startswith(prefix):
        below, *options = command[len(prefix) :].split(None, 1)
        word, rest = prefix + below, b"".join(b" " + each for each in options)
    elif trampoline or found["env"]:
        word, rest = _command(command, prefix)
    else:
        return None
    if not word.startswith(prefix) or (trampoline and not is_python(os.fsdecode(word))):
        return None
    return os.fsdecode(env + word[len(prefix) :] + rest), found.end()


def _words_for_env(command: bytes) -> tuple[bytes, bytes]:
    """Return the words of a command that are for ``env``, each with a space; and the rest."""
    words = _FOR_ENV.match(command)
    end = words.end() if words else 0
    return b"".join(word + b" " for word in command[:end].split()), command[end:]


def _command(command: bytes, prefix: bytes) -> tuple[bytes, bytes]:
    """Return the first word of a trampoline's command and the rest."""
    if command.startswith(b'"' + prefix):  # pip puts quotes around the path and escapes nothing in it
        word, _, rest = command[1 + len(prefix) :].partition(b'"')
        return prefix + word, rest
    printed = _PRINTED.match(command)
    if printed:
        octal = re.compile(rb"\\([0-7]{3})")
        return octal.sub(lambda match: bytes([int(match[1], 8) & 255]), printed[1]), command[printed.end() :]
    word_ = _WORD.match(command)
    if word_ is None:
        return b"", b""
    return os.fsencode("".join(shlex.split(os.fsdecode(word_[0])))), command[word_.end() :]


# --------------------------------------------------------------------------- reading


Language = Literal["shell", "nu", "python", "xonsh", "json", "pth", "other-script", "text"]

_LANGUAGES: tuple[tuple[str, Language], ...] = (
    (r"\.nu\Z", "nu"),
    (r"\.(?:bat|ps1)\Z", "other-script"),
    (r"\.py\Z", "python"),
    (r"\.xsh\Z", "xonsh"),
    (r"(?:\A|/)bin/activate[^/]*\Z|\.(?:c|fi|ba|z)?sh\Z", "shell"),
    (r"\.json\Z", "json"),
    (r"\.pth\Z", "pth"),
)
_SCRIPTS: tuple[tuple[bytes, Language], ...] = (
    (rb"\A#!/bin/sh\n'''(?:exec|:)' ", "python"),
    (rb"\A#![^\n]*(?:python|pypy)", "python"),
    (rb"\A#![^\n]*\b(?:ba|da|z|k|c|tc|fi)?sh\b", "shell"),
    (rb"\A#!", "other-script"),
)


def language(path: str, data: bytes) -> Language:
    """Return what the file *data* at *path* is written in, as far as it matters for a path in it."""
    for name, found in _LANGUAGES:
        if re.search(name, path):
            return found
    for start, found in _SCRIPTS:
        if re.match(start, data):
            return found
    return "text"


@lru_cache(maxsize=64)
def spellings(text: str, language: Language = "text") -> tuple[bytes, ...]:
    """Return every way in which tools write *text* in a *language*, longest first: ours, and those of others.

    In a script for a shell, the quotes around a word may belong to its spelling.
    """
    ways = {text, repr(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    spelled = {way.encode("utf-8", "surrogateescape") for way in ways}
    spelled |= {WRITERS[form](text) for form in ("url", "py", "json")}
    if language == "json":  # some writers escape each slash
        spelled |= {way.replace(b"/", rb"\/") for way in spelled}
    if language in ("shell", "nu"):
        inner = [text.replace("'", between) for between in ("'\"'\"'", "'\\''", "\\'", "''")]
        inner.append(re.sub(r'(["$`\\])', r"\\\1", text))
        spelled |= {os.fsencode(way) for way in (*inner, shlex.quote(text))} | {shell_word(text)}
    return tuple(sorted(spelled, key=lambda way: (-len(way), way)))


@lru_cache(maxsize=64)
def pattern(text: str, language: Language = "text") -> re.Pattern[bytes]:
    """Return a pattern for *text* in all its :func:`spellings`, and in URLs with any choice of escapes.

    With its slashes escaped it is the group ``component``.
    """
    escaped = b"".join(b"(?:%%(?i:%02x)|%s)" % (byte, re.escape(bytes([byte]))) for byte in os.fsencode(text))
    ways = b"|".join(re.escape(way) for way in spellings(text, language))
    whole = re.sub(rb"%(..)", rb"%(?i:\1)", re.escape(WRITERS["component"](text)).replace(rb"\%", b"%"))
    return re.compile(b"(?<=file://)" + escaped + b"|" + ways + b"|(?P<component>" + whole + b")")


def quoted_by(line: bytes) -> str:
    """Return what a shell is inside of after *line*: ``'``, ``"``, ``#`` (a comment), a backtick or nothing.

    Nested commands are followed, because they begin anew: ``"$(basename "`` is inside of one pair. Between
    backticks no quotes are safe, so the answer is the backtick then, whatever else there is.
    """
    outer: list[str] = []
    state = ""
    for mark in re.finditer(rb"""\\.|'|"|\$\(|\)|`|(?:\A|(?<=[\s;(]))\#|.""", line, re.DOTALL):
        state = _next_state(mark[0].decode("latin-1"), state, outer)
        if state == "#":
            break
    return "`" if any(frame.startswith("`") for frame in outer) else state


def _next_state(mark: str, state: str, outer: list[str]) -> str:
    if state == "'":
        return "" if mark == "'" else state
    if mark in ("$(", "`") and not (mark == "`" and outer and outer[-1][:1] == "`"):
        outer.append(mark[:1] + state)
        return ""
    if mark in (")", "`") and state == "" and outer:
        return outer.pop()[1:]
    if mark == '"':
        return "" if state else '"'
    return mark if state == "" and mark in ("'", "#") else state
