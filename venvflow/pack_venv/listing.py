"""Lists any environment (venv, layer or neither) as a manifest whose objects are its own files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from venvflow.disk.archive import NEUTRAL
from venvflow.disk.interpreters import python_of, venv_settings
from venvflow.disk.scan import Changing, Found, read, walk
from venvflow.errors import EnvironmentFailure, Refused, shown, some
from venvflow.model import Entry, Manifest, Slot
from venvflow.pack_venv.layers import Layer, is_generated, layer_of, way_out
from venvflow.pack_venv.links import Way, way_of
from venvflow.pure.manifest import group
from venvflow.pure.relocate import Places
from venvflow.pure.sharing import notes_urls
from venvflow.state.confidential import credentials
from venvflow.state.listing import Listing, left_out_special
from venvflow.state.survey import Survey, survey, unusual_modes


@dataclass(slots=True)
class Environment(Listing):
    """What is in an environment; its files name *python*, its archive is to say *description* of it."""

    python: str = ""
    description: dict[str, Any] = field(default_factory=dict)

    def mtime(self, name: str, otherwise: int) -> int:
        """Return the time of the member *name* in seconds; *otherwise* if it is none of the source's."""
        try:
            return int(os.lstat(os.path.join(self.root, name)).st_mtime)
        except OSError:
            return otherwise


def list_directory(root: str, scratch: str, *, copies: bool, origin: str = "") -> Environment:
    """List the directory *root*, a real path. What is not there as a file (templates) goes into *scratch*.

    With *copies* there are files in place of symlinks. *origin* is the directory that *root* is a copy of:
    its files name that one, and relative links that lead out may lead nowhere. Raises EnvironmentFailure for
    what cannot be read, Refused for a symlink that cannot become a copy.
    """
    settings = venv_settings(root)
    layer = layer_of(root, origin or root)
    needs = _needs(root, settings, layer)
    listing = Environment(
        root, scratch, python=_interpreter_of(root, settings), description={"python": needs}
    )
    # No project is known here. The venv stands in for it, where it is found first: nothing is taken for one.
    place = origin or root
    surveyed = survey(
        root,
        Places(place, place, listing.python),
        bytecode="keep",
        excludes_file=lambda path: _is_left_out(root, path),
        excludes_directory=_is_cache,
    )
    # What lies beside the packages: these may bring sample keys, and no RECORD says so here.
    found = credentials(root, surveyed)
    secret = [path for path in found if not path.startswith("lib/") or notes_urls(path)]
    surveyed.withhold(secret)
    listing.take(surveyed)
    _customize(listing, surveyed, layer)
    kept = {path: entry for path, entry in surveyed.entries.items() if entry.kind != "link"}
    links = [entry for entry in surveyed.entries.values() if entry.kind == "link"]
    expand = _Copies(listing, kept).instead_of if copies else partial(_as_link, listing, layer, bool(origin))
    to_interpreter = (Slot(0, "python", "raw"),)  # such a link is made at the target
    for link in links:
        if link.slots == to_interpreter:
            kept[link.path] = link
        elif copies and layer.python and way_out(f"{root}/{link.path}", root) == layer.python:
            kept[link.path] = link._replace(target="", slots=to_interpreter)
        else:
            kept.update({entry.path: entry for entry in expand(link)})
    filled = {os.path.dirname(path) for path in kept}  # also directories that were empty until copies came
    kept = {path: entry for path, entry in kept.items() if entry.kind != "dir" or path not in filled}
    listing.manifest = Manifest(group(kept, surveyed.distributions))
    listing.warnings += [left_out_special(path) for path in surveyed.special]
    listing.warnings += [f"{shown(path)} holds credentials: left out" for path in secret]
    listing.warnings += [f"{shown(path)}: mode bits are not kept" for path in unusual_modes(surveyed)]
    if closed := _closed(surveyed):
        listing.warnings.append(f"not everybody can read {some(closed, 3)} here; at the target everybody can")
    return listing


def _customize(listing: Listing, surveyed: Survey, layer: Layer) -> None:
    """Add the ``sitecustomize.py`` of a layer, in place of one that names where its packages are here."""
    path, data = layer.customization
    if path:
        surveyed.entries[path] = Entry(path, "file", listing.add(data), size=len(data))


def _closed(surveyed: Survey) -> list[str]:
    """Return files that their owner, or a group, alone can read; empty ones have nothing to tell."""
    files = (item for path, item in surveyed.found.items() if path in surveyed.entries)
    return [shown(item.path) for item in files if _is_closed(item)]


def _is_closed(item: Found) -> bool:
    return item.kind == "file" and item.stamp.size > 0 and not item.mode & stat.S_IROTH


# --------------------------------------------------------------------------- what is left out


def _is_cache(path: str) -> bool:
    return os.path.basename(path) == "__pycache__"


def _is_left_out(root: str, path: str) -> bool:
    if os.path.basename(path) == "sitecustomize.py":
        return is_generated(os.path.join(root, path))
    return path.endswith(".dist-info/RECORD")


# --------------------------------------------------------------------------- the interpreter


def _needs(root: str, settings: Mapping[str, str], layer: Layer) -> dict[str, str]:
    """Return what ``postinstall.py`` is to ask of an interpreter; nothing where there is no venv."""
    needs = {"beside": layer.python} if layer.python else {}
    if version := python_of(root):
        needs["implementation"] = settings.get("implementation", "cpython").lower()
        needs["version"] = version
    return needs


def _interpreter_of(root: str, settings: Mapping[str, str]) -> str:
    """Return the interpreter outside of *root* that its files name, or one that nothing names."""
    for name in ("bin/python", "bin/python3"):
        real = os.path.realpath(os.path.join(root, name))
        if os.path.isfile(real) and not real.startswith(root + "/"):
            return real
    return os.path.join(settings["home"], "python3") if settings.get("home") else NEUTRAL.python


# --------------------------------------------------------------------------- links


def _as_link(listing: Listing, layer: Layer, moved: bool, link: Entry) -> Iterator[Entry]:
    """Yield a symlink as it is written: relative if it leads inside, else as it is.

    It is *moved* in a copy: what lies outside is at the target, and cannot be judged here.
    """
    path = os.path.join(listing.root, link.path)
    way = way_of(path, listing.root)
    unknown = moved and not way.end.startswith(listing.root + "/")
    if way.state != "there" and not unknown:
        listing.warnings.append(f"{shown(link.path)} is a {way.state} link")
    elif not way.inside and os.path.relpath(way.hop, listing.root) != layer.python:
        listing.warnings.append(f"{shown(link.path)} leads out, to {shown(way.text)}")
    target = os.path.relpath(way.hop, os.path.dirname(path)) if way.inside else way.text
    yield Entry(link.path, "link", target=target)


class _Copies:
    """Files and directories in place of symlinks."""

    def __init__(self, listing: Listing, entries: Mapping[str, Entry]) -> None:
        self._listing = listing
        self._entries = dict(entries)

    def instead_of(self, link: Entry) -> Iterator[Entry]:
        """Yield what stands in the place of a symlink; Refused for one that leads nowhere or in a circle.

        A second name for ``lib``, which would double the venv, stays a link: ``postinstall.py`` makes it, or
        a copy, at the target.
        """
        root = self._listing.root
        way = way_of(os.path.join(root, link.path), root)
        if link.path == "lib64" and way.hop == f"{root}/lib":
            yield Entry("lib64", "link", target="lib")
        else:
            yield from self._copy(link.path, os.path.join(root, link.path), way, ())

    def _copy(self, path: str, link: str, way: Way, above: tuple[str, ...]) -> Iterator[Entry]:
        """Yield the entries at *path* for the symlink *link*, in the middle of copying those *above*."""
        if way.state != "there":
            raise self._refused(path, "leads nowhere" if way.state == "dangling" else "leads in a circle")
        if not os.path.isdir(way.end):
            yield from self._file(path, way.end)
            return
        if way.end in above or f"{link}/".startswith(f"{way.end}/"):
            raise self._refused(path, "leads to a directory that it lies in")
        items = walk(way.end, enter=lambda name: not _is_cache(name))
        filled = {os.path.dirname(item.path) for item in items}
        for item in items:
            yield from self._item(path, way.end, item, filled, (*above, way.end))
        if not items:
            yield Entry(path, "dir")

    def _item(
        self, prefix: str, directory: str, item: Found, filled: set[str], above: tuple[str, ...]
    ) -> Iterator[Entry]:
        """Yield the entries of one thing in a directory that is copied to *prefix*."""
        path, real = f"{prefix}/{item.path}", os.path.join(directory, item.path)
        if item.kind == "link":
            yield from self._copy(path, real, way_of(real, self._listing.root), above)
        elif item.kind == "file":
            yield from self._file(path, real)
        elif item.kind == "dir" and item.path not in filled and not _is_cache(item.path):
            yield Entry(path, "dir")

    def _file(self, path: str, real: str) -> Iterator[Entry]:
        """Yield the entry at *path* of a copy of the file at *real*, unless that is left out itself."""
        inside = real.startswith(self._listing.root + "/")
        below = real[len(self._listing.root) + 1 :] if inside else os.path.basename(path)
        base = self._listing.root if inside else os.path.dirname(real)
        if _is_left_out(base, below):
            return
        known = self._entries.get(below) if inside else None
        if known is not None:
            yield known._replace(path=path)
            return
        try:
            content = read(real)
            executable = bool(os.stat(real).st_mode & 0o100)
        except (OSError, Changing) as error:
            why = error.strerror if isinstance(error, OSError) else "it keeps changing"
            raise EnvironmentFailure(
                f"cannot copy what {shown(path)} leads to: {why}",
                where=shown(real),
                state="Nothing was written.",
                hint="Fix that file, or exclude the link, then try again.",
            ) from error
        self._listing.files[content.digest] = real
        yield Entry(path, "file", content.digest, executable, content.stamp.size)

    def _refused(self, path: str, why: str) -> Refused:
        return Refused(
            f"the link {shown(path)} cannot become a copy: it {why}",
            where=shown(self._listing.root),
            state="Nothing was written.",
            hint="Fix or delete it, or use a tar format.",
        )
