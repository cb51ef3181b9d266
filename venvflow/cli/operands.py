"""Finds what an operand of a command names: a venv (by name or path), a snapshot, a key or an archive.

In commands that explain or compare, a word that could name several of them names the first in this order: a
venv of the config, a venv by its path, an archive, a snapshot, a key. The command then says which it took;
``venv:``, ``path:``, ``archive:``, ``snapshot:`` or ``key:`` before the word leaves no choice.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import sha256
from typing import Any, Literal, TypeAlias

from venvflow.cli.context import Context, open_flow
from venvflow.cli.render import Output
from venvflow.errors import UsageError, VenvflowError, shown, some
from venvflow.flow import Flow
from venvflow.model import Key, Snapshot
from venvflow.pure.names import USUAL, did_you_mean, nearest
from venvflow.state.reader import StoreReader
from venvflow.steps.job import Job
from venvflow.steps.state_files import read_key

# --------------------------------------------------------------------------- venvs


Sets: TypeAlias = Mapping[str, Iterable[str]]
"""The venvs of each set of the config, by its name."""


def select(words: Iterable[str], known: Iterable[str], sets: Sets) -> list[str]:
    """Return those of the *known* venvs that *words* name, fit as patterns, or are sets of, in their order.

    All, if there are no words. Raises UsageError, with the nearest name there is, for a word that names none.
    """
    known, words = list(known), list(words)
    chosen: set[str] = set()
    for word in words:
        if not (meant := _meant(word, known, sets)):
            what = "no venv fits" if {*word} & {*"*?["} else "there is no venv called"
            names = sorted([*known, *sets])
            raise UsageError(f"{what} {shown(word)!r}", hint=did_you_mean(word.strip("*"), names))
        chosen.update(meant)
    return [name for name in known if name in chosen or not words]


def _meant(word: str, known: Iterable[str], sets: Sets) -> list[str]:
    """Return the venvs that a word means: those of a set, that of this name, or those that fit a pattern."""
    return [*sets.get(word, ())] or fnmatch.filter(known, word)


def chosen(args: argparse.Namespace, flow: Flow, out: Output) -> list[str]:
    """Return the venvs of the config that the words of a command mean, all without words; of these a share.

    A venv is always in the same of so many shares, whatever other venvs there are, and a share may be empty.
    Raises as :func:`select`.
    """
    names = select(args.venvs, flow.config.venvs, flow.config.sets)
    if args.shard is None:
        return names
    number, count = _shard(args.shard)
    share = [name for name in names if _share(name, count) == number]
    if not share:
        out.say(f"nothing to do: no venv is in the share {args.shard}")
    return share


_MOST_SHARES = 9999


def _shard(text: str) -> tuple[int, int]:
    """Return which share of how many a word such as ``3/10`` means; raises UsageError."""
    number, slash, count = text.partition("/")
    is_share = slash and all(each.isascii() and each.isdecimal() for each in (number, count))
    if not (is_share and len(text) < 10 and 1 <= int(number) <= int(count) <= _MOST_SHARES):
        raise UsageError(
            f"{shown(text)!r} is not a share", where="--shard", hint="Write 3/10 for the third of ten."
        )
    return int(number), int(count)


def _share(name: str, count: int) -> int:
    """Return in which of *count* shares, counted from 1, a venv of this name is."""
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big") % count + 1


def select_one(word: str | None, known: Iterable[str], sets: Sets) -> str:
    """Return the one of the *known* venvs that *word* means; it may be left out where there is only one.

    Raises UsageError where several are meant, or none is.
    """
    found = select([] if word is None else [word], known, sets)
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            "the config names no venv", where="venvs", hint='"venvflow init --add" looks for some.'
        )
    what = (
        "no venv is named, and the config has several"
        if word is None
        else f"{shown(word)!r} fits several venvs"
    )
    raise UsageError(what, hint=f"Name one: {some(list(map(shown, found)), 8)}.")


def serve_each(
    args: argparse.Namespace,
    out: Output,
    serve: Callable[[Job], tuple[dict[str, Any], int]],
    *,
    force: bool = False,
    every: bool = False,
    otherwise: Mapping[str, Any],
) -> int:
    """Serve one after the other the venvs that *args* name, by name, pattern or set, or a share of them.

    Without any name these are all for a command that is for *every* venv, for others the only one.

    *serve* returns the record of a venv for JSON, and its exit code. One that fails does not keep the others
    from being served; its record is *otherwise*. Returns the first exit code of an error, or else 1 if one
    was that. JSON: ``venvs``, a list of the records.
    """
    flow = open_flow(args, out)
    names = chosen(args, flow, out)
    if not (args.venvs or args.shard or every):
        names = [select_one(None, flow.config.venvs, flow.config.sets)]
    flow.named = frozenset(names)
    jobs = {name: partial(flow.job, name, force=force) for name in names}
    return serve_jobs(jobs, out, serve, otherwise=otherwise)


def serve_jobs(
    jobs: Mapping[str, Callable[[], Job]],
    out: Output,
    serve: Callable[[Job], tuple[dict[str, Any], int]],
    *,
    otherwise: Mapping[str, Any],
) -> int:
    """Serve *jobs*, by what their venvs are called, as :func:`serve_each` does."""
    records, codes = [], []
    for name, job in jobs.items():
        try:
            record, code = serve(job())
        except VenvflowError as error:
            out.fail(str(error))
            failed = {"venv": name, "did": "failed", "reason": error.what}
            record, code = {**otherwise, **failed}, error.exit_code
        records.append(record)
        codes.append(code)
    if out.as_json:
        out.document({"venvs": records})
    return next((code for code in codes if code > 1), max(codes, default=0))


def any_venvs(
    context: Context, words: Sequence[str], say: Callable[[str], None], *, force: bool = False
) -> dict[str, Callable[[], Job]]:
    """Return the venvs to read that *words* mean, each with what gives its job, by what they are called.

    A name, pattern or set means venvs of the config, as doit made them. A path means what lies there, whoever
    made it: its job has no name, unless doit made it and nothing changed since. Without words it is the only
    venv of the config, or else the active one (``$VIRTUAL_ENV``). Raises UsageError for a word that means
    nothing; a path is looked at when its job is made.
    """
    found: dict[str, Callable[[], Job]] = {}
    for word in words or _meant_without_words(context):
        path, is_name = context.absolute(word), not _is_path(context, word)
        if is_name and context.flow is not None:
            names = select([word], context.venvs, context.sets)
            found |= {name: partial(context.flow.job, name, force=force) for name in names}
        else:
            found[path] = partial(_job_of_path, context, path, say, force=force)
    return found


def _meant_without_words(context: Context) -> list[str]:
    active = os.environ.get("VIRTUAL_ENV", "")
    if len(context.venvs) == 1 or not active:
        return [select_one(None, context.venvs, context.sets)]
    path = os.path.abspath(active)
    if not os.path.isdir(path):
        raise UsageError(
            "the active venv is not there",
            where=shown(path),
            hint="$VIRTUAL_ENV names it: run deactivate, or name a venv.",
        )
    return [path]


def _is_path(context: Context, word: str) -> bool:
    """Return whether a word is a path rather than a name or a pattern: always if there is a venv."""
    path = context.absolute(word)
    if context.flow is None or "/" in word or os.path.lexists(f"{path}/pyvenv.cfg"):
        return True
    return os.path.lexists(path) and not _meant(word, context.venvs, context.sets)


def _job_of_path(context: Context, path: str, say: Callable[[str], None], *, force: bool) -> Job:
    from venvflow.steps.pack_source import is_as_shared  # noqa: PLC0415 - most commands read no venv

    need_venv(context, path)
    known = context.job_at(path) or context.job_at(os.path.realpath(path))
    if known is not None and is_as_shared(known):
        return replace(known, force=force)
    root = context.flow.config.root if context.flow is not None else ""
    if not root or not f"{os.path.realpath(path)}/".startswith(f"{os.path.realpath(root)}/"):
        root = _project_of(os.path.realpath(path))
    job = context.unnamed_job(path, root, say)
    spec = job.spec if known is None else replace(known.spec, name="", path=path)
    return replace(job, spec=spec, force=force)


_OF_A_PROJECT = ("pyproject.toml", "setup.py", "setup.cfg", ".git")
"""What lies at the top of the project that a venv is for."""


def _project_of(venv: str) -> str:
    """Return the directory of the project that the venv lies in; the venv itself if that is none."""
    above = os.path.dirname(venv)
    is_project = any(os.path.lexists(os.path.join(above, name)) for name in _OF_A_PROJECT)
    return above if is_project else venv


def paths_of(context: Context, words: Iterable[str]) -> list[str]:
    """Return the absolute paths of the venvs that *words* mean, each once: by name, pattern, set or path.

    All but paths are of the config. Where a word is a path as well, the path counts if there is a venv.
    """
    return list(dict.fromkeys(path for word in words for path in _paths_of(context, word)))


def _paths_of(context: Context, word: str) -> list[str]:
    path, names = context.absolute(word), _meant(word, context.venvs, context.sets)
    is_path = not names or os.path.lexists(f"{path}/pyvenv.cfg")
    jobs = () if is_path or context.flow is None else map(context.flow.job, names)
    return [path] if is_path else [job.place.path for job in jobs]


def need_venv(context: Context, path: str) -> None:
    """Raise UsageError, with the nearest venv there is, if *path*, of :func:`path_of`, was misspelled.

    A venv of the config need not be there. What lies at *path* is not judged, but for a directory that has
    its venv inside.
    """
    inside = os.path.isdir(path) and not os.path.lexists(f"{path}/pyvenv.cfg")
    if context.job_at(path) is not None or (os.path.lexists(path) and not inside):
        return
    found = list(_venvs_in(path)) if inside else _nearest_to(context, path)
    if inside and not found:
        return
    raise UsageError(
        "it is not a venv: it has no pyvenv.cfg" if inside else "there is no such directory",
        where=shown(path),
        hint=f"Did you mean {shown(found[0])}?" if found else _what_to_name(context),
    )


def _nearest_to(context: Context, path: str) -> list[str]:
    """Return what may have been meant: venvs' names in the config, or paths with a venv."""
    above, word = os.path.split(path)
    is_name = above == os.path.realpath(context.directory)
    return (nearest(word, context.venvs) if is_name else []) or list(_venvs_near(path))


def _what_to_name(context: Context) -> str:
    listed = f" There are: {', '.join(map(shown, sorted(context.venvs)))}." if context.venvs else ""
    return f"Name a venv: its directory, with a pyvenv.cfg in it, or its name in the config.{listed}"


def _venvs_in(directory: str) -> Iterator[str]:
    """Yield the venvs that a project has in its *directory*."""
    for name in USUAL:
        if os.path.lexists(f"{directory}/{name}/pyvenv.cfg"):
            yield f"{directory}/{name}"


def _venvs_near(path: str) -> Iterator[str]:
    """Yield venvs whose path differs from *path* in the first name that is not there, or lies below such."""
    above, missing = os.path.split(path)
    below = ""
    while not os.path.isdir(above) and above != "/":
        below = f"/{missing}{below}"
        above, missing = os.path.split(above)
    with suppress(OSError):  # who may not look there gets no advice
        for name in nearest(missing, os.listdir(above), 5):
            candidate = os.path.join(above, name) + below
            if os.path.lexists(f"{candidate}/pyvenv.cfg"):
                yield candidate
            yield from _venvs_in(candidate)


# --------------------------------------------------------------------------- anything with a key or files

Kind = Literal["venv", "path", "archive", "snapshot", "key"]

_ID = re.compile(r"[0-9a-f]{4,64}")
_SHORT = 12
"""Digits of an id, as they are shown."""

_KINDS: Mapping[Kind, str] = {
    "venv": "the venv of that name in the config",
    "path": "the venv at that path",
    "archive": "the archive at that path",
    "snapshot": "the snapshot",
    "key": "the key",
}


@dataclass(frozen=True, eq=False)
class Operand:
    """What an operand names.

    *kind* says what it is, *name* how to call it. A venv has a *path*, and a *job* if the config names it; an
    archive has a *path*; a snapshot is one; a key comes with the *snapshots* for it, if there are any.
    """

    kind: Kind
    name: str
    path: str = ""
    job: Job | None = None
    snapshots: tuple[Snapshot, ...] = ()
    key: Key | None = None

    @property
    def label(self) -> str:
        """Return what it is and how it is called, in one word or two."""
        kind = "venv" if self.kind == "path" else self.kind
        return f"{kind} {shown(self.name)}"


class OperandFinder:
    """Finds what operands name, in *context* and its store, if there is one; reports its choice to *say*."""

    def __init__(self, context: Context, store: StoreReader | None, say: Callable[[str], None]) -> None:
        self._context = context
        self._store = store
        self._say = say
        self._finders: dict[Kind, Callable[[str], Operand | None]] = {
            "venv": self._venv,
            "path": self._path,
            "archive": self._archive,
            "snapshot": self._snapshot,
            "key": self._key,
        }

    def find(self, word: str) -> Operand:
        """Return what *word* names. Raises UsageError, with the nearest name there is."""
        kind, _, rest = word.partition(":")
        for known, finder in self._finders.items():
            if known == kind and rest:
                if (target := finder(rest)) is not None:
                    return target
                raise self._unknown(rest, f"there is no {kind} {shown(rest)!r}")
        found = list(self._all(word))
        if not found:
            raise self._unknown(word, f"{shown(word)!r} is neither a venv, nor a snapshot, key or archive")
        if len(found) > 1:
            other = found[1].kind
            self._say(
                f"{shown(word)} means {_KINDS[found[0].kind]}; "
                f"write {other}:{shown(word)} for {_KINDS[other]}"
            )
        return found[0]

    def _all(self, word: str) -> Iterator[Operand]:
        """Yield everything that *word* may name, each once."""
        seen: set[str] = set()
        for finder in self._finders.values():
            target = finder(word)
            if target is not None:
                same = target.path or next((each.id for each in target.snapshots), target.name)
                if same not in seen:
                    seen.add(same)
                    yield target

    def _unknown(self, word: str, what: str) -> UsageError:
        if "/" in word and (venv := next(_venvs_near(self._context.absolute(word)), None)):
            hint = f"Did you mean {shown(venv)}?"
        elif self._context.flow is None:
            hint = "There is no venvflow.yaml here that names venvs: give a path, or say where with -C or -c."
        else:
            names = list(self._context.venvs)
            stored = {snapshot.venv for snapshot in self._stored}
            known = [*names, *(each.id[:_SHORT] for each in self._stored), *(stored - set(names))]
            hint = f'{did_you_mean(word, known, names)} "venvflow list" shows snapshots.'
        return UsageError(what, hint=hint)

    # ----------------------------------------------------------------------- each kind

    def _venv(self, word: str) -> Operand | None:
        venvs, sets = self._context.venvs, self._context.sets
        job = self._context.job(select_one(word, venvs, sets)) if _meant(word, venvs, sets) else None
        return Operand("venv", job.spec.name, job.place.path, job) if job is not None else None

    def _path(self, word: str) -> Operand | None:
        path = self._context.absolute(word)
        if not os.path.lexists(f"{path}/pyvenv.cfg"):
            return None
        job = self._context.job_at(path) or self._context.job_at(os.path.realpath(path))
        return Operand("path", path, path, job)

    def _archive(self, word: str) -> Operand | None:
        path = self._context.absolute(word)
        return Operand("archive", word, path) if os.path.isfile(path) else None

    @cached_property
    def _stored(self) -> list[Snapshot]:
        return self._store.snapshots() if self._store is not None else []

    def _snapshot(self, word: str) -> Operand | None:
        if not _ID.fullmatch(word):
            return None
        found = [each for each in self._stored if each.id.startswith(word)]
        if len(found) > 1:
            raise _ambiguous(word, "snapshots", {each.id: each.venv for each in found})
        return Operand("snapshot", word, snapshots=tuple(found), key=found[0].key) if found else None

    def _key(self, word: str) -> Operand | None:
        if not _ID.fullmatch(word):
            return None
        snapshots = tuple(each for each in self._stored if each.key.digest.startswith(word))
        known = [*(each.key for each in snapshots), *self._keys()]
        keys = {key.digest: key for key in known if key.digest.startswith(word)}
        if len(keys) > 1:
            raise _ambiguous(word, "keys", dict.fromkeys(keys, ""))
        return Operand("key", word, snapshots=snapshots, key=next(iter(keys.values()))) if keys else None

    def _keys(self) -> Iterator[Key]:
        """Yield the keys that the last runs of this project noted."""
        for name in self._context.venvs:
            job = self._context.job(name)
            record = read_key(job) if job is not None else None
            if record is not None:
                yield record.key


def _ambiguous(word: str, what: str, found: Mapping[str, str]) -> UsageError:
    listed = [
        f"{each[: max(_SHORT, len(word) + 4)]}{f' ({venv})' if venv else ''}" for each, venv in found.items()
    ]
    return UsageError(
        f"{len(found)} {what} begin with {word!r}: {shown(some(listed, 4))}",
        hint="Write more of its digits.",
    )
