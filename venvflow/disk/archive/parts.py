"""A venv in several archives, its parts: each holds some of its trees, all unpack into one directory.

A part is named by what is in it, and says nothing of the venv or of the others: as long as its trees are the
same it is the same file, in every venv, and need not be packed or sent again. The last one is an archive as
any, with ``pack.json`` and ``postinstall.py``. These speak for all parts, and name each by its SHA-256: so
parts of two venvs, or of two states of one, are not taken for a whole. No path but of directories is in two
parts: the order in which they are unpacked does not matter.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from venvflow.disk.archive.contents import (
    ArchivePlan,
    Member,
    ObjectSource,
    Options,
    announced_of,
    directory_members,
    draft_archive,
    headed,
    text_member,
    with_head,
)
from venvflow.disk.archive.file import is_current
from venvflow.disk.archive.formats import Progress
from venvflow.disk.archive.frames import FrameDirectory
from venvflow.disk.archive.writing import Accept, accept_any, write_planned
from venvflow.disk.files import read_small
from venvflow.errors import shown
from venvflow.model import Manifest, Part, Tree
from venvflow.postinstall import PartRow, part_mark
from venvflow.pure.manifest import BUNDLED
from venvflow.pure.parts import Layers, partition

PART_FORMAT = 1
"""Version of what a part is named by, and of what it says of itself."""


@dataclass(frozen=True, slots=True)
class PartsWritten:
    """A whole set: the last of *parts* speaks for all."""

    parts: tuple[Part, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Job:
    source: ObjectSource
    options: Options
    path_of: Callable[[str, str], str]
    may_replace: Callable[[str], None]
    keep: bool
    unaltered: Collection[str]
    frames: FrameDirectory | None


def write_parts(
    manifest: Manifest,
    source: ObjectSource,
    layers: Layers,
    path_of: Callable[[str, str], str],
    options: Options,
    *,
    description: Mapping[str, Any],
    may_replace: Callable[[str], None] = lambda _: None,
    keep: bool = True,
    unaltered: Collection[str] = (),
    frames: FrameDirectory | None = None,
    progress: Progress | None = None,
    accept: Accept = accept_any,
) -> PartsWritten:
    """Write an archive of each layer of *manifest* that has something in it, or *keep* the one that is there.

    *path_of* returns where an archive goes, from the name of its layer and what names its content; what is
    there is replaced if *may_replace* does not raise. Files that are known to be *unaltered* since they were
    written are not read. Each is there as a whole or not at all, the last one
    when all others are. *accept* is called with all warnings first. Raises what it does, and what
    :func:`~.writing.write_archive` does.
    """
    draft = draft_archive(manifest, source, options)
    interpreter = tuple(tree for tree in draft.trees if tree.name == BUNDLED)
    groups = partition((tree for tree in draft.trees if tree not in interpreter), layers)
    warnings = (*draft.told, *_empty_layers(groups, layers))
    accept(warnings)
    job = _Job(source, options, path_of, may_replace, keep, unaltered, frames)
    named = [("python", interpreter), *((str(number), trees) for number, trees in enumerate(groups[:-1], 1))]
    plans = {layer: plan_part(draft, trees, options.arcroot) for layer, trees in named if trees}
    parts: list[Part] = []
    done, total = 0, sum(member.size for member in draft.all_members())
    for layer, plan in plans.items():
        parts.append(_written(job, layer, plan, _shifted(progress, done, total)))
        done += plan.size
    rows = [
        PartRow(part.layer, part.content, os.path.basename(part.path), part.sha256, announced_of(plan))
        for part, plan in zip(parts, plans.values(), strict=True)
    ]
    last = with_head(draft, options.arcroot, description, own=groups[-1], others=rows)
    last = replace(last, content=_content_of(last, options.arcroot))
    parts.append(_written(job, str(len(groups)), last, _shifted(progress, done, total)))
    return PartsWritten(tuple(parts), warnings)


def _empty_layers(groups: Sequence[Sequence[Tree]], layers: Layers) -> Iterator[str]:
    for number, (trees, patterns) in enumerate(zip(groups[:-1], layers, strict=False), 1):
        if not trees:
            named = " or ".join(map(shown, patterns))
            yield f"layer {number} takes nothing: there is no {named} in the venv"


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _: progress(min(before + done, total), total)


def _written(job: _Job, layer: str, plan: ArchivePlan, progress: Progress | None) -> Part:
    """Return the archive of *plan*, which is written if it is not there."""
    path = job.path_of(layer, plan.content)
    distributions = tuple((tree.name, tree.version) for tree in plan.trees if tree.version)
    if job.keep and (there := _described_there(path, plan, job)):
        size, digest = os.stat(path).st_size, there["sha256"]
        return Part(
            layer, plan.content, path, digest, size, plan.size, plan.entries, distributions, kept=True
        )
    job.may_replace(path)
    new = write_planned(plan, job.source, path, job.options, frames=job.frames, progress=progress)
    return Part(
        layer,
        plan.content,
        path,
        new.sha256,
        new.size,
        plan.size,
        plan.entries,
        distributions,
        kept=False,
        frames=new.frames,
        frames_reused=new.frames_reused,
    )


def _described_there(path: str, plan: ArchivePlan, job: _Job) -> dict[str, Any]:
    """Return what stands beside the archive at *path* if it is that of *plan*, whole; else nothing."""
    wanted = {"content": plan.content, "format": job.options.format, "level": job.options.effective_level}
    try:
        described = json.loads(read_small(path + ".json", follow=True))
        fits = all(described[name] == value for name, value in wanted.items())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    known = {path, f"{path}.json", f"{path}.sha256"} <= {*job.unaltered}
    return described if fits and (known or is_current(path)) else {}


# --------------------------------------------------------------------------- one part


def plan_part(draft: ArchivePlan, trees: Sequence[Tree], arcroot: str) -> ArchivePlan:
    """Return the plan of a part that is not the last one: of some *trees* of a *draft*."""
    after = (*directory_members(trees),)
    plan = replace(draft, trees=tuple(trees), warnings=(), links=(), editable=(), head=after)
    content = _content_of(plan, arcroot)
    document = {
        "format": PART_FORMAT,
        "distributions": [[tree.name, tree.version] for tree in trees if tree.version],
    }
    data = (json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n").encode("ascii")
    mark = text_member(part_mark(content), data)
    return headed(replace(plan, content=content), arcroot, mark, after, document)


def _content_of(plan: ArchivePlan, arcroot: str) -> str:
    """Return the hash of all that is in *plan*: names, kinds, modes, targets and bytes."""
    hasher = hashlib.sha256(json.dumps([PART_FORMAT, arcroot]).encode("ascii"))
    for member in plan.all_members():
        hasher.update(json.dumps(_row(member)).encode("ascii") + b"\n")
    return hasher.hexdigest()


def _row(member: Member) -> list[str | bool]:
    digest = member.digest if member.data is None else hashlib.sha256(member.data).hexdigest()
    return [member.name, member.kind, member.executable, digest, member.target]
