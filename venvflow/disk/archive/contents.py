"""Decides what goes into an archive, before anything is written.

A venv names local paths in *templates* (see :mod:`venvflow.pure.relocate`). The archive carries each of them
twice: filled in so that it is right wherever it lies (what has no such form names the :data:`NEUTRAL`
places), so that a plain ``tar`` gives a venv that works, and as it is, in :data:`METADATA`, so that
``postinstall.py`` can fill in any place exactly, again and again. The links to the interpreter are the only
ones that lead out of an archive of ours, and it says where to. All others that name a local path are made by
``postinstall.py`` alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

from venvflow import postinstall
from venvflow.disk.files import open_regular
from venvflow.errors import EnvironmentFailure, Refused, UsageError, shown, some
from venvflow.model import FORMATS, Entry, Interpreter, Manifest, Slot, Tree
from venvflow.postinstall import METADATA, POSTINSTALL, is_plain, leads_out, reserved_name, unsafe_name
from venvflow.pure import relocate
from venvflow.pure.manifest import Corrupt, entries_of, make_tree
from venvflow.pure.manifest import directories as directories_in
from venvflow.pure.sharing import EARLIEST, mtime_of

NEUTRAL = relocate.Places("/venvflow/venv", "/venvflow/project", "/venvflow/python/bin/python3")
"""What an archive names where a venv names its own path, its project and an interpreter that is not known."""


def neutral_places(python: str, place: str = "") -> relocate.Places:
    """Return the places that files of an archive name: *python* and *place* are the target's, if known.

    The project is taken to be where the venv is, as ``postinstall.py`` does.
    """
    places = NEUTRAL._replace(python=python or NEUTRAL.python)
    return places._replace(venv=place, project=os.path.dirname(place)) if place else places


DOCUMENT, TEMPLATES = f"{METADATA}/pack.json", f"{METADATA}/templates"
"""What an archive says of itself, and the bytes of all templates."""

_BUILD_ANEW = "Build the venv anew (delete it, then doit), then try again."
_NOT_YET = relocate.digest_of(b"")
"""What a RECORD says, until it is filled in, of a file in another tree: a frame knows its own tree only."""


class ObjectSource(Protocol):
    """Where the bytes of files are: the store's objects, or anything that names files by SHA-256."""

    def path(self, digest: str, executable: bool) -> str:
        """Return the path of the object; it is read once and checked against its name while it is."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to write an archive; raises UsageError for what cannot be.

    *level* ``None`` means the format's own default; *threads* never changes a byte. *arcroot* is the name
    of a directory that everything lies in. With *symlinks* ``copy``, links become copies of the files that
    they lead to (for targets that hold no links), and links to directories are left to ``postinstall.py``.
    With *external* ``keep``, links that may lead out of the venv are written as they are: ``tar`` makes them,
    :func:`~venvflow.disk.archive.extract` refuses them.

    *python* is the interpreter at the target, an absolute path that nobody looks at here: links lead to it as
    soon as the archive is unpacked. Without one, ``postinstall.py`` makes them. *place* is where the venv
    will be, an absolute path, too: what has no form that is right everywhere names that.
    """

    format: str = "tar.zst"
    level: int | None = None
    threads: int = 2
    arcroot: str = ""
    symlinks: Literal["keep", "copy"] = "keep"
    external: Literal["refuse", "keep"] = "refuse"
    python: str = ""
    place: str = ""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"unknown format {self.format!r}", hint=f"Known are: {', '.join(FORMATS)}.")
        known = FORMATS[self.format]
        if self.level is not None and not known.lowest <= self.level <= known.highest:
            levels = f"Levels: {known.lowest} to {known.highest}."
            hint = levels if known.highest else "It is not compressed: leave the level out."
            raise UsageError(f"{self.format} has no level {self.level}", hint=hint)
        if self.threads < 1:
            raise UsageError(f"{self.threads} threads cannot compress", hint="At least one is needed.")
        if self.arcroot and unsafe_name(self.arcroot):
            raise UsageError(
                f"arcroot {self.arcroot!r} {unsafe_name(self.arcroot)}", hint="Give a plain name."
            )
        if self.python and not is_plain(self.python):
            raise UsageError(
                f"{shown(self.python)} is no path of an interpreter",
                hint="Give the absolute path that it has where the archive is unpacked.",
            )
        if self.place and not is_plain(self.place):
            raise UsageError(
                f"{shown(self.place)} is no path of a venv",
                hint="Give the absolute path of the directory that the archive is unpacked to.",
            )

    @property
    def effective_level(self) -> int:
        """Return the level that is used."""
        return FORMATS[self.format].default if self.level is None else self.level


class Member(NamedTuple):
    """One entry of an archive, its *name* without arcroot. *data* is there, or in the object *digest*."""

    name: str
    kind: Literal["file", "link", "dir"]
    size: int = 0
    executable: bool = False
    digest: str = ""
    data: bytes | None = None
    target: str = ""

    @property
    def mtime(self) -> int:
        """Return the time that it carries, in seconds since 1970: of a file, that of its content."""
        if self.kind != "file":
            return EARLIEST
        return mtime_of(self.digest or hashlib.sha256(self.data or b"").hexdigest())


class Filled(NamedTuple):
    """A template: its entry, its bytes as they are, and filled in with the neutral places."""

    entry: Entry
    raw: bytes
    neutral: bytes


@dataclass(frozen=True, slots=True)
class ArchivePlan:
    """Everything about an archive but its bytes.

    *head* comes first, then the members of each tree. *entries* counts all members, *size* the bytes of all
    files. *document* is what ``pack.json`` holds. *links* are those that are made where it is unpacked,
    *editable* is what is installed so. *content* names a part of several by what is in it.
    *python* is the interpreter at the target, if it is known, and *linked* if links lead to it. *place* is
    where the venv will be, if that is known.
    """

    trees: tuple[Tree, ...]
    templates: Mapping[str, Filled]
    warnings: tuple[str, ...]
    links: tuple[Entry, ...] = ()
    editable: tuple[Editable, ...] = ()
    content: str = ""
    head: tuple[Member, ...] = ()
    entries: int = 0
    size: int = 0
    document: Mapping[str, Any] = field(default_factory=dict)
    python: str = ""
    linked: bool = True
    place: str = ""

    @property
    def blob(self) -> bytes:
        """Return all templates in a row, as they are."""
        return b"".join(filled.raw for filled in self.templates.values())

    @property
    def filled_entries(self) -> Iterator[Entry]:
        """Yield the entries of all templates."""
        return (filled.entry for filled in self.templates.values())

    def all_members(self) -> Iterator[Member]:
        """Yield all members in their order."""
        yield from self.head
        for tree in self.trees:
            yield from self.members(tree)

    def members(self, tree: Tree) -> Iterator[Member]:
        """Yield the members of one tree, in its order."""
        for entry in tree.entries:
            if entry.path in self.templates:
                data = self.templates[entry.path].neutral
                yield Member(entry.path, "file", len(data), entry.executable, data=data)
            elif entry.kind == "file":
                yield Member(entry.path, "file", entry.size, entry.executable, entry.digest)
            elif entry.kind == "link" and not entry.slots:
                yield Member(entry.path, "link", target=entry.target)
            elif self.python and self.linked and leads_to_python(entry):
                yield Member(entry.path, "link", target=self.python)

    @property
    def told(self) -> tuple[str, ...]:
        """Return all warnings for those who fill in nothing where it lies."""
        return (*self.warnings, *_waiting(self.place_needed()))

    def place_needed(self) -> list[str]:
        """Return the paths of what does not do its work before it is filled in for a place."""
        templates = (filled.entry for filled in self.templates.values() if not self.place)
        return sorted(entry.path for entry in templates if postinstall.place_needed(entry.path, entry.slots))


def leads_to_python(entry: Entry) -> bool:
    """Return whether *entry* is a link to the interpreter."""
    return entry.kind == "link" and any(slot.kind == "python" for slot in entry.slots)


def names_python(tree: Tree) -> bool:
    """Return whether something in *tree* names the interpreter, as a link or in a file."""
    kinds = ("python", "home")
    return any(slot.kind in kinds for entry in tree.entries for slot in entry.slots)


def needs_of(interpreter: Interpreter) -> dict[str, str]:
    """Return what ``postinstall.py`` asks of an interpreter: to be put in a description as ``python``."""
    return {
        "implementation": interpreter.implementation,
        "version": interpreter.version,
        "abi": interpreter.abi,
        "platform": interpreter.platform,
    }


# --------------------------------------------------------------------------- deciding


def plan_archive(
    manifest: Manifest, source: ObjectSource, options: Options, description: Mapping[str, Any]
) -> ArchivePlan:
    """Return what an archive of *manifest* holds; *description* is kept in it.

    Raises what :func:`draft_archive` does.
    """
    return with_head(draft_archive(manifest, source, options), options.arcroot, description)


def draft_archive(manifest: Manifest, source: ObjectSource, options: Options) -> ArchivePlan:
    """Return what there is of *manifest* to be packed. Reads templates and a few small files, nothing else.

    Raises Refused when an entry could not be unpacked safely, EnvironmentFailure when the manifest
    contradicts itself or a template cannot be read.
    """
    trees = tuple(map(_with_own_links, _own_only(manifest)))
    entries = _checked(trees, external=options.external)
    links = [entry for entry in entries.values() if entry.kind == "link" and entry.slots]
    if options.symlinks == "copy":
        trees, left_out = _without_links(trees, entries)
        entries, links = _checked(trees, external=options.external), [*links, *left_out]
    places = neutral_places(options.python, options.place)
    templates = {filled.entry.path: filled for tree in trees for filled in _filled(tree, source, places)}
    directories = directories_in({**entries, **{link.path: link for link in links}})
    editable = _editable(trees, source)
    warnings = (*_left_behind(editable), *_case_pairs({*entries, *directories}))
    return ArchivePlan(
        trees,
        templates,
        warnings,
        tuple(sorted(links)),
        tuple(editable),
        python=options.python,
        linked=options.symlinks == "keep",
        place=options.place,
    )


def with_head(
    plan: ArchivePlan,
    arcroot: str,
    description: Mapping[str, Any],
    *,
    own: tuple[Tree, ...] | None = None,
    others: Iterable[postinstall.PartRow] = (),
) -> ArchivePlan:
    """Return *plan* with the head that tells the target what to make of it.

    Of a venv in parts it is the plan of the last part, whose *own* trees come behind the head. It speaks for
    the *others*, too: their templates and links are filled in with its own.
    """
    with open(postinstall.__file__, "rb") as file:
        script = file.read()
    own = plan.trees if own is None else own
    after = (
        text_member(TEMPLATES, plan.blob),
        *directory_members(own, plan.links),
        text_member(POSTINSTALL, script, executable=True),
    )
    document = {
        **_document(plan, announced_of(replace(plan, trees=own, head=after))),
        "description": _described(description, plan),
        "parts": [[*row[:-1], row.announced._asdict()] for row in others],
    }
    data = (json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n").encode("ascii")
    _check_readable(data)
    return headed(replace(plan, trees=own), arcroot, text_member(DOCUMENT, data), after, document)


def headed(
    plan: ArchivePlan, arcroot: str, first: Member, after: Iterable[Member], document: Mapping[str, Any]
) -> ArchivePlan:
    """Return *plan* with a head: *first*, the file that says what *after* it comes, in our directory."""
    roots = [Member("", "dir")] if arcroot else []
    plan = replace(plan, head=(*roots, Member(METADATA, "dir"), first, *after), document=document)
    announced = announced_of(plan)
    return replace(plan, entries=announced.entries, size=announced.bytes)


def directory_members(trees: Iterable[Tree], links: Iterable[Entry] = ()) -> Iterator[Member]:
    """Yield the directories that *trees* and *links* lie in or are, parents first."""
    entries = {entry.path: entry for tree in trees for entry in tree.entries}
    for name in directories_in({**entries, **{link.path: link for link in links}}):
        yield Member(name, "dir")


def _document(plan: ArchivePlan, announced: postinstall.Announced) -> dict[str, Any]:
    """Return what ``pack.json`` says of the contents; the row of a template tells where its bytes start."""
    templates: list[list[Any]] = []
    start = 0
    for entry, raw, _ in plan.templates.values():
        slots = [*map(list, entry.slots)]
        templates.append([entry.path, int(entry.executable), start, len(raw), slots])
        start += len(raw)
    return {
        "format": postinstall.FORMAT,
        "announced": announced._asdict(),
        "distributions": [[tree.name, tree.version] for tree in plan.trees if tree.version],
        "templates": templates,
        "templates_sha256": relocate.digest_of(plan.blob)[0].hex(),
        "links": [[link.path, link.target, [*map(list, link.slots)]] for link in plan.links],
        "editable": [[each.name, int(each.in_project)] for each in plan.editable],
    }


def _described(description: Mapping[str, Any], plan: ArchivePlan) -> dict[str, Any]:
    """Return the description with the paths of interpreter and venv in it, if they are known."""
    said = dict(description)
    if plan.python:
        said["python"] = {**description.get("python", {}), "executable": plan.python}
    if plan.place:
        said["place"] = plan.place
    return said


def announced_of(plan: ArchivePlan) -> postinstall.Announced:
    """Return how much *plan* holds, its head included."""
    size, kinds = 0, Counter[str]()
    for member in plan.all_members():
        size += member.size
        kinds[member.kind] += 1
    return postinstall.Announced(size, kinds["dir"], kinds.total(), kinds["file"], kinds["link"])


def _check_readable(document: bytes) -> None:
    """Raise Refused for what unpacking would refuse: it is read here as it will be there."""
    try:
        postinstall.decode(document)
    except postinstall.InvalidPack as error:
        raise Refused(
            f"cannot pack it: unpacking would refuse {error}",
            state="Nothing was written.",
            hint="Exclude it, or change it in the venv.",
        ) from error


def text_member(name: str, data: bytes, *, executable: bool = False) -> Member:
    """Return a file of our own that holds *data*."""
    return Member(name, "file", len(data), executable, data=data)


# --------------------------------------------------------------------------- what may be packed


def _own_only(manifest: Manifest) -> tuple[Tree, ...]:
    """Return the trees without what an earlier archive left in the venv, which it gets anew, or venvflow."""
    paths = {entry.path for tree in manifest.trees for entry in tree.entries}
    if POSTINSTALL in paths and DOCUMENT not in paths:
        raise _refused(POSTINSTALL, "is there already, and would be replaced by ours")
    kept = (
        (tree, [entry for entry in tree.entries if not (is_ours(entry.path) or reserved_name(entry.path))])
        for tree in manifest.trees
    )
    return tuple(
        tree if len(own) == len(tree.entries) else make_tree(tree.name, tree.version, own)
        for tree, own in kept
    )


def is_ours(path: str) -> bool:
    """Return whether every archive of ours brings what has that path in a venv."""
    return path in (POSTINSTALL, METADATA) or path.startswith(f"{METADATA}/")


def _checked(trees: tuple[Tree, ...], *, external: Literal["refuse", "keep"]) -> dict[str, Entry]:
    """Return all entries by path, each of which can be unpacked by the rules of extraction."""
    try:
        entries = entries_of(Manifest(trees))
    except Corrupt as error:
        raise EnvironmentFailure(
            f"the manifest is damaged: {error}", state="Nothing was written.", hint=_BUILD_ANEW
        ) from error
    for path, entry in entries.items():
        if unsafe_name(path):
            raise _refused(path, unsafe_name(path))
        plain = entry.kind == "link" and not entry.slots and external == "refuse"
        if plain and leads_out(path, entry.target):
            raise _refused(path, f"is a link that leads out of the venv (to {shown(entry.target)})")
    return entries


def _refused(path: str, why: str) -> Refused:
    return Refused(
        f"cannot pack {shown(path)}: it {why}",
        state="Nothing was written.",
        hint="Exclude it, or change it in the venv.",
    )


def _case_pairs(names: Iterable[str]) -> tuple[str, ...]:
    seen: dict[str, str] = {}
    warnings = []
    for name in sorted(names):
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            warnings.append(
                f"{shown(other)} and {shown(name)} differ by case only: not every target can hold both"
            )
    return tuple(warnings)


def _waiting(paths: list[str]) -> Iterator[str]:
    if paths:
        yield f"{some(paths, 3)} must be filled in where it is unpacked: run postinstall.py there"


_EDITABLE = re.compile(rb'"editable"\s*:\s*true')


class Editable(NamedTuple):
    """A distribution of which only a path to the code is in the venv, maybe one in its *project*."""

    name: str
    in_project: bool


def _editable(trees: Iterable[Tree], source: ObjectSource) -> list[Editable]:
    """Return what is installed editable, but for code that lies in the venv itself."""
    found = {
        Editable(tree.name if tree.version else _named_by(entry.path), "project" in kinds)
        for tree in trees
        for entry in tree.entries
        if _is_path_to_code(entry, source) and "venv" not in (kinds := {slot.kind for slot in entry.slots})
    }
    return sorted(found)


def _named_by(path: str) -> str:
    """Return the name of the distribution that a file is of which no RECORD lists."""
    if path.endswith(".egg-link"):
        return os.path.basename(path).removesuffix(".egg-link")
    return os.path.basename(os.path.dirname(path)).removesuffix(".dist-info").rpartition("-")[0]


def _is_path_to_code(entry: Entry, source: ObjectSource) -> bool:
    if entry.path.endswith(".dist-info/direct_url.json") and entry.digest:
        return bool(_EDITABLE.search(read_object(source, entry)))
    return entry.path.endswith(".egg-link")


def _left_behind(editable: list[Editable]) -> Iterator[str]:
    built = "Install it built (uv sync --no-editable, pip install without -e)"
    inside = [shown(each.name) for each in editable if each.in_project]
    outside = [shown(each.name) for each in editable if not each.in_project]
    if inside:
        yield (
            f"the code of {', '.join(inside)} stays behind: it is installed editable, so only its path is "
            f"in the venv. {built}, or copy the project, too, and name it with --project where it is unpacked"
        )
    if outside:
        yield (
            f"the code of {', '.join(outside)} stays behind: it is installed editable, from a place outside "
            f"of the project, which must be the same where it is unpacked. {built}"
        )


# --------------------------------------------------------------------------- links


def _with_own_links(tree: Tree) -> Tree:
    """Return *tree* with relative links in place of those that lead into the venv by its path."""
    entries = [*map(relocate.relative_link, tree.entries)]
    return tree if entries == [*tree.entries] else make_tree(tree.name, tree.version, entries)


# --------------------------------------------------------------------------- links as copies


def _without_links(
    trees: tuple[Tree, ...], entries: Mapping[str, Entry]
) -> tuple[tuple[Tree, ...], list[Entry]]:
    """Return the trees with files in place of the links to them, and the links that lead to no file."""
    left_out: list[Entry] = []
    made = []
    for tree in trees:
        kept: list[Entry] = []
        for entry in tree.entries:
            if entry.kind != "link" or entry.slots:
                kept.append(entry)
                continue
            found = _follow(entry.path, entries)
            if found is None:
                left_out.append(entry)
            else:
                kept.append(found._replace(path=entry.path))
        made.append(make_tree(tree.name, tree.version, kept))
    return tuple(made), left_out


_MOST_LINKS = 40  # as many as Linux follows


def _follow(path: str, entries: Mapping[str, Entry]) -> Entry | None:
    """Return the file that the link at *path* leads to, as the kernel would find it, or None."""
    todo, done = path.split("/")[::-1], [""]
    for _ in range(_MOST_LINKS):
        while todo:
            part = todo.pop()
            if part == "..":
                done.pop()
            elif part not in ("", "."):
                done.append(part)
            found = entries.get("/".join(done[1:]))
            if found is not None and found.kind == "link":
                break
        else:
            return found if found is not None and found.kind in ("file", "template") else None
        if found.slots:
            return None
        done.pop()
        todo += found.target.split("/")[::-1]
    return None


# --------------------------------------------------------------------------- templates


def _filled(tree: Tree, source: ObjectSource, places: relocate.Places) -> Iterator[Filled]:
    """Yield the templates of a tree, filled in by what the tree alone knows; RECORDs come last."""
    templates = [entry for entry in tree.entries if entry.kind == "template" or _finds_its_place(entry)]
    own: dict[str, tuple[bytes, int]] = {}
    for template in sorted(templates, key=relocate.is_record):
        raw = read_object(source, template)
        if template.kind == "file" and raw.startswith(postinstall.MARK):
            continue  # it was unpacked from an archive of ours
        entry = template._replace(slots=tuple(_portable_slots(raw, template.slots)))
        digests = {slot.argument: own.get(slot.argument, _NOT_YET) for slot in entry.slots}
        try:
            neutral = relocate.portable(entry.path, raw, entry.slots, places, digests)
        except (ValueError, KeyError) as error:
            raise EnvironmentFailure(
                f"the slots of {shown(entry.path)} are damaged: {error}",
                state="Nothing was written.",
                hint=_BUILD_ANEW,
            ) from error
        own[entry.path] = relocate.digest_of(neutral)
        yield Filled(entry, raw, neutral)


def _finds_its_place(entry: Entry) -> bool:
    """Return whether an activation file that names no local path gets what makes it say that it is lost."""
    return entry.path in postinstall.FINDERS and entry.kind == "file"


def _portable_slots(raw: bytes, slots: Iterable[Slot]) -> Iterator[Slot]:
    """Yield *slots*, those of a first line in the form that leaves the script below it as it is, if it must.

    It must for another program than Python, and where the beginning of the script means something.
    """
    for slot in slots:
        is_one_line = slot.form == "shebang" and (
            not postinstall.is_python(postinstall.parted(slot.argument)[1])
            or relocate.begins_with_meaning(raw[slot.offset :])
        )
        yield slot._replace(form="first-line") if is_one_line else slot


class DamagedObject(EnvironmentFailure):
    """The object *digest* is gone, or its bytes are not what its name says."""

    def __init__(self, digest: str, what: str) -> None:
        super().__init__(
            what,
            state="Nothing was written.",
            hint="Run venvflow verify --heal, or doit again to rebuild it.",
        )
        self.digest = digest


def damaged(entry_path: str, digest: str, why: str) -> DamagedObject:
    """Return the error that an object, of which *entry_path* is to be made, cannot be used."""
    return DamagedObject(digest, f"object {digest} (for {shown(entry_path)}) {why}")


def read_object(source: ObjectSource, entry: Entry) -> bytes:
    """Return the bytes of the object of a small file or a template, after comparing them with its name.

    A template is data, never executable itself, whatever the file is that it becomes. Raises DamagedObject.
    """
    executable = entry.executable and entry.kind == "file"
    try:
        with open_regular(source.path(entry.digest, executable=executable)) as file:
            data = file.read()
    except OSError as error:
        raise damaged(entry.path, entry.digest, f"cannot be read: {error.strerror}") from error
    if relocate.digest_of(data)[0].hex() != entry.digest:
        raise damaged(entry.path, entry.digest, "has other bytes than its name says")
    return data
