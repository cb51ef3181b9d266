"""The post-checkout hook of a git clone: where it is, and our lines in it.

A hook may be there already, a person's or another tool's. Our lines stand below its first line, so it goes on
as it did, with its own name, arguments, input and exit code, and taking them out gives its bytes back.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Mapping
from typing import NamedTuple

from venvflow.disk import processes
from venvflow.disk.files import new_file, read_small
from venvflow.errors import EnvironmentFailure, Refused, UsageError, shown

NAME = "post-checkout"
"""The hook that git runs after ``worktree add``, ``switch``, ``checkout`` and ``clone``."""

_BEGIN = b'# >>> venvflow >>> restores venvs after a checkout; "venvflow hook remove" takes these lines out\n'
_END = b"# <<< venvflow <<<\n"
_NEW = b"#!/bin/sh\n"
_SHELLS = frozenset({"sh", "ash", "bash", "dash", "ksh", "zsh"})

# A checkout decides what lies in the working directory, so nothing may be imported from there.
_START = (
    "import sys; sys.path = [p for p in sys.path if p]; from venvflow.__main__ import main; sys.exit(main())"
)
_RUN = ("-C", ".", "hook", "run")

_PATIENCE = 20.0
"""Seconds that git has for an answer."""


class Clone(NamedTuple):
    """A git clone: the *top* of one checkout, the clone's git *directory*, and the *hook* that git runs."""

    top: str
    directory: str
    hook: str

    @property
    def own_hook(self) -> str:
        """Return where git runs the hook of a clone unless it is told to look elsewhere."""
        return os.path.join(self.directory, "hooks", NAME)


class Hook(NamedTuple):
    """Our lines in a hook: the *python* that they start, and for which *configs*, from a checkout's top."""

    python: str
    configs: tuple[str, ...]


def find_clone(directory: str, environ: Mapping[str, str]) -> Clone | None:
    """Return the clone whose checkout *directory* lies in, or None if it lies in none.

    Raises EnvironmentFailure where git is not there or gives no answer.
    """
    # In a hook, git sets GIT_DIR for its own commands: alone, it makes every directory the top of a checkout.
    hides = () if "GIT_WORK_TREE" in environ else ("GIT_DIR",)
    seen = {name: each for name, each in environ.items() if not name.startswith(("GIT_TRACE", *hides))}
    asked = ("--show-toplevel", "--git-common-dir", "--git-path hooks")
    said = [_said_by_git(directory, words.split(), {**seen, "LC_ALL": "C"}) for words in asked]
    if "" in said:
        return None
    top, common, hooks = (os.path.normpath(os.path.join(directory, each)) for each in said)
    return Clone(os.path.realpath(top), os.path.realpath(common), os.path.join(hooks, NAME))


_NO_CHECKOUT = ("not a git repository", "must be run in a work tree")


def _said_by_git(directory: str, words: list[str], environ: Mapping[str, str]) -> str:
    """Return a path that git answers with; nothing where there is no checkout."""
    said = bytearray()
    argv = ["git", "rev-parse", *words]
    try:
        status = processes.run(argv, environ=environ, on_output=said.extend, cwd=directory, timeout=_PATIENCE)
        text = os.fsdecode(bytes(said).removesuffix(b"\n"))
    except (OSError, TimeoutError) as error:
        status, text = -1, str(error)
    if status and not any(each in text for each in _NO_CHECKOUT):
        raise EnvironmentFailure(
            f"git does not tell where its hooks are: {shown(text.partition(chr(10))[0])}",
            where=shown(directory),
            state="Nothing was changed.",
            hint=f'Run "{" ".join(argv)}" there to see why.',
        )
    return "" if status else text


# --------------------------------------------------------------------------- reading and writing


def read_hook(path: str) -> Hook | None:
    """Return what our lines in the hook at *path* say, or None if it has none. Raises ``OSError``."""
    _, ours, _ = _parted(_read(path))
    words = shlex.split(os.fsdecode(ours), comments=True)
    if _START not in words:
        return None
    start = words.index(_START)
    return Hook(words[start - 2], tuple(words[start + 1 + len(_RUN) : words.index("</dev/null", start)]))


def command(python: str, *words: str) -> list[str]:
    """Return the words that start venvflow as the hook does."""
    return [python, "-c", _START, *words]


def install(clone: Clone, python: str, config: str) -> bool:
    """Let the hook of *clone* restore the venvs of *config* with *python*; return whether that is new.

    *config* is a path below the clone's top. Raises Refused where the hook is not the clone's alone, or is
    not a shell script that git runs, and ``OSError``.
    """
    path = os.path.realpath(clone.hook)
    _refuse_shared(clone, path)
    known = read_hook(path)
    configs = tuple(dict.fromkeys([*(known.configs if known else ()), os.path.join(".", config)]))
    script = _read(path)
    if script:
        _refuse_unfit(path, script)
    before, _, after = _parted(script or _NEW)
    fresh = before + _lines(Hook(python, configs), path) + after
    if fresh == script:
        return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _write(path, fresh)
    return True


def remove(clone: Clone) -> list[str]:
    """Take our lines out of the hooks of *clone*; return the paths of those that had any.

    A hook that holds nothing else is deleted. Raises ``OSError``.
    """
    paths = dict.fromkeys(map(os.path.realpath, (clone.hook, clone.own_hook)))
    changed = [path for path in paths if _is_own(clone, path) and _parted(_read(path))[1]]
    for path in changed:
        before, _, after = _parted(_read(path))
        if before + after == _NEW:
            os.unlink(path)
        else:
            _write(path, before + after)
    return changed


def _read(path: str) -> bytes:
    try:
        return read_small(path)
    except FileNotFoundError:
        return b""


def _write(path: str, script: bytes) -> None:
    """Write a hook with the mode that it had; a new one may be run by all whom the umask allows it."""
    with new_file(path) as file:
        file.write(script)
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except FileNotFoundError:
            now = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            mode = now | (now & 0o444) >> 2
        os.fchmod(file.fileno(), mode)


def _parted(script: bytes) -> tuple[bytes, bytes, bytes]:
    """Return what stands before our lines, our lines, and what stands after them.

    Where there are none, ours come below the first line.
    """
    before, begin, rest = script.partition(_BEGIN)
    ours, end, after = rest.partition(_END)
    if begin and end:
        return before, begin + ours + end, after
    first = script.find(b"\n") + 1 or len(script)
    return script[:first], b"", script[first:]


def _lines(hook: Hook, path: str) -> bytes:
    run = shlex.join([*command(hook.python, *_RUN), *hook.configs])
    gone = shlex.quote(
        f"venvflow: the Python of the git hook is gone ({shown(hook.python)}). "
        f'Run "venvflow hook install" again, or delete the lines in {shown(path)}.'
    )
    text = (
        f'if [ "${{3-}}" != 1 ]; then :  # single files were checked out\n'
        f"elif [ -x {shlex.quote(hook.python)} ]; then {run} </dev/null || :\n"
        f"else printf '%s\\n' {gone} >&2\n"
        "fi\n"
    )
    return _BEGIN + os.fsencode(text) + _END


# --------------------------------------------------------------------------- what is refused


def _is_own(clone: Clone, path: str) -> bool:
    return path.startswith(f"{clone.directory}/")


BY_HAND = (
    "To restore venvs after a checkout all the same, put this line into that hook: "
    '[ "$3" != 1 ] || venvflow hook run || :'
)
"""What to do where git runs a hook that is not the clone's."""


def _refuse_shared(clone: Clone, path: str) -> None:
    """Raise Refused for a hook that git versions, or that other clones have, too."""
    if not _is_own(clone, path):
        raise Refused(
            "git runs a hook here that is not this clone's alone (core.hooksPath, or a link)",
            where=shown(path),
            state="Nothing was changed.",
            hint=BY_HAND,
        )


def _refuse_unfit(path: str, script: bytes) -> None:
    """Raise Refused for a hook to which no lines of shell can be added, or that git does not run."""
    first = os.fsdecode(script.partition(b"\n")[0])
    words = first.removeprefix("#!").split() if first.startswith("#!") and b"\n" in script else []
    programs = (os.path.basename(word) for word in words if not word.startswith("-"))
    if next((name for name in programs if name != "env"), "") not in _SHELLS:
        what = "the hook that is there is not a script of a shell"
    elif not os.access(path, os.X_OK):
        what = "the hook that is there cannot be executed, so git does not run it"
    else:
        return
    raise Refused(what, where=shown(path), state="It was left as it is.", hint=BY_HAND)


def config_below(clone: Clone, file: str) -> str:
    """Return the path of a config *file* below the top of the clone's checkout. Raises UsageError."""
    path = os.path.join(os.path.realpath(os.path.dirname(file)), os.path.basename(file))
    if not path.startswith(f"{clone.top}/"):
        raise UsageError(
            "the config is not in the git checkout that it belongs to",
            where=shown(file),
            hint=f"The checkout is {shown(clone.top)}.",
        )
    return os.path.relpath(path, clone.top)
