"""The records that all modules share: config, venv, key, entry, tree, manifest, snapshot, receipt, outcome.

All other modules may import this one; it imports nothing of ours. DESIGN.md explains the terms.
Paths inside a venv are POSIX text relative to the venv's root; bytes that are not UTF-8 are kept as
surrogate escapes (``os.fsdecode``), so every name that a file system can hold has exactly one spelling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

FORMAT = 3
"""Version of keys, trees, snapshots and store layout. Another number never matches."""

INSTALLER_NOTE = ".dist-info/uv_cache.json"
"""How the path ends of what uv notes of a local package: when its sources changed last, in one checkout."""

LinkMode = Literal["reflink", "hardlink", "copy", "symlink"]
BytecodePolicy = Literal["canonical", "keep", "none"]
Durability = Literal["full", "none"]
VerifyMode = Literal["changed", "full"]

# --------------------------------------------------------------------------- what the config says


@dataclass(frozen=True, slots=True)
class RemoteKeep:
    """``store.remote.keep:`` of the config: what ``trim --remote`` leaves there.

    Ages are in seconds since a record was last pushed, sizes in bytes; None is no limit. *grace* is for how
    long a parcel stays that no record needs: at least twice the longest ``limit`` of a push.
    """

    max_age: int | None = 30 * 86_400
    max_size: int | None = None
    grace: int = 2 * 86_400


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """``store.remote:`` of the config: a store in object storage that many machines share.

    *url* is that of a bucket and a prefix, a directory (``file:``) or a mirror to be read (``https:``).
    *keys* are the public keys of those whose snapshots are believed, by their names, as the config has them;
    without any, *unsigned* must be true. *not_before* is in seconds since 1970, *silence* and *limit* are in
    seconds: how long no byte may come, and how long one pull or push may take. *required*: what cannot be
    reached is an error, and not a miss. *origin*: what is pushed says which job of which CI service did so.
    *keep* is what a trim of it leaves.
    """

    url: str
    endpoint: str = ""
    region: str = ""
    mode: Literal["off", "read", "write", "auto"] = "auto"
    keys: Mapping[str, str] = field(default_factory=dict)
    unsigned: bool = False
    not_before: float = 0.0
    required: bool = False
    silence: int = 10
    limit: int = 300
    connections: int = 16
    origin: bool = True
    keep: RemoteKeep = RemoteKeep()


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """``store:`` of the config. *path* is absolute; *min_size* is in bytes.

    *trusted*: the user says that others may change it. *remote*: what it shares with other machines, if any.
    """

    path: str
    link: tuple[LinkMode, ...] = ("reflink", "hardlink", "copy")
    min_size: int = 1
    verify: VerifyMode = "changed"
    adopt: bool = False
    durability: Durability = "full"
    trusted: bool = False
    remote: RemoteConfig | None = None


@dataclass(frozen=True, slots=True)
class TrimPolicy:
    """``trim:`` of the config. Sizes in bytes, ages in seconds, ``None`` for no limit."""

    keep: int | None = 25
    keep_per_venv: int = 2
    max_age: int | None = None
    max_size: int | None = None
    min_free: int | None = None


class Format(NamedTuple):
    """A format of archives: its usual level of compression, the *lowest* and the *highest*.

    *block* bytes are compressed on their own; zero: the format divides in its own way.
    """

    default: int
    lowest: int
    highest: int
    block: int = 0


FORMATS = {
    "tar.zst": Format(3, 1, 19),
    "tar.xz": Format(6, 0, 9, 8 << 20),
    "tar.gz": Format(6, 1, 9, 4 << 20),
    "tar.bz2": Format(9, 1, 9, 4 << 20),
    "tar": Format(0, 0, 0, 4 << 20),
    "zip": Format(6, 1, 9),
}
"""All formats by name, which is also how their files end. Levels above zstd's 19 need too much memory."""


@dataclass(frozen=True, slots=True)
class PackOptions:
    """``pack:`` of a venv.

    *output* is an absolute directory, *name* the archive's name there without ``.format``. It and *arcroot*,
    the directory in the archive that everything lies in, may hold fields (see :mod:`venvflow.pure.names`).
    *threads* never changes a byte. *layers* are patterns of the distributions that go into an archive of
    their own (see :mod:`venvflow.pure.parts`); none: everything is in one. *python* is the interpreter's path
    where it is unpacked; empty: that of the one that the venv is made with.
    With *bundle_python* the interpreter is packed, too.
    """

    output: str
    format: str = "tar.zst"
    level: int = 3
    name: str = "{venv}"
    arcroot: str = ""
    threads: int = 2
    layers: tuple[tuple[str, ...], ...] = ()
    python: str = ""
    bundle_python: bool = False


@dataclass(frozen=True, slots=True)
class VenvSpec:
    """One venv as the config asks for it, with all defaults filled in.

    *path* is absolute and normalised, but not resolved: a symlink there is found when it is used.
    *locks* and *key_files* are absolute paths in the order of the config, globs expanded.
    *python* is a version (``3.12``), a path, or empty for the Python that runs venvflow.
    *build* is the name of a builder or a tuple of commands, each a tuple of words. *origin* says which
    template under ``each:`` it was made of, and for which lock file. *private* are gitignore patterns of
    files that are copied into the venv, never linked.

    What of the lock files is installed: *groups* and *extras* beside those that the tool takes by itself,
    development dependencies unless *dev* is false, *packages* of a workspace (``all``, or their names; none:
    as the tool does). *editable* are projects below the project root, relative to that, that are installed
    without their dependencies. *prompt* and *system_site_packages* are those of ``python -m venv``.
    """

    name: str
    path: str
    locks: tuple[str, ...]
    python: str = ""
    build: str | tuple[tuple[str, ...], ...] = "auto"
    key_files: tuple[str, ...] = ()
    key_env: tuple[str, ...] = ()
    bytecode: BytecodePolicy = "canonical"
    exclude: tuple[str, ...] = ()
    restore: bool = True
    link: tuple[LinkMode, ...] = ("reflink", "hardlink", "copy")
    min_size: int = 1
    private: tuple[str, ...] = ()
    pack: PackOptions | None = None
    check: tuple[str, ...] = ()
    pin: bool = False
    origin: str = ""
    groups: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    dev: bool = True
    packages: Literal["all"] | tuple[str, ...] = ()
    editable: tuple[str, ...] = ()
    prompt: str = ""
    system_site_packages: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """A whole config file. *root* is the project root, *file* the file itself, both absolute.

    *missing_files* are, by the name of a venv, the files that it lists and that are missing, as ``file:line:
    text``: such a venv has no key, the others are as good as ever. *ignore* are the gitignore patterns of
    what ``init`` does not look at. *sets* are names for several venvs each.
    """

    file: str
    root: str
    store: StoreConfig
    trim: TrimPolicy
    venvs: dict[str, VenvSpec]
    warnings: tuple[str, ...] = ()
    missing_files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    sets: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def state_dir(self) -> str:
        """Return the directory in which this project's tasks keep what they tell each other."""
        return f"{self.root}/.venvflow"

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Return the venvs that each name means: that of a venv itself, that of a set all in it."""
        return {**{venv: (venv,) for venv in self.venvs}, **self.sets}


# --------------------------------------------------------------------------- interpreters and keys


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A base interpreter and what it says of itself.

    *executable* is the real path of the interpreter outside any venv, *home* its directory.
    *version* is the full version (``3.12.4``, ``3.14.0rc1``), *abi* its SOABI with ``debug`` and
    ``freethreaded`` marks, *platform* operating system, architecture and libc with its version.
    *cache_tag* and *magic* name the bytecode that it reads.
    """

    executable: str
    home: str
    implementation: str
    version: str
    abi: str
    platform: str
    cache_tag: str
    magic: str


@dataclass(frozen=True, slots=True)
class Key:
    """Hash of everything that decides a venv's content, with the named parts that it was made of."""

    digest: str
    parts: dict[str, str]


# --------------------------------------------------------------------------- what is in a venv


class Slot(NamedTuple):
    """A place in a template where something local is filled in.

    *offset* counts bytes of the template. *kind* says what goes there and *form* how it is written;
    *argument* is what some kinds need besides (the path below the venv of a shebang's interpreter,
    the path of the file that a RECORD line describes). See :mod:`venvflow.pure.relocate`.
    """

    offset: int
    kind: str
    form: str
    argument: str = ""


class Entry(NamedTuple):
    """One path of a venv.

    *kind* is ``file`` (content is the object *digest*), ``template`` (content is the object *digest*
    with *slots* filled in), ``link`` (*target*, also with *slots*) or ``dir`` (an empty directory).
    *size* is in bytes: of the content, or of the template.
    """

    path: str
    kind: Literal["file", "template", "link", "dir"]
    digest: str = ""
    executable: bool = False
    size: int = 0
    target: str = ""
    slots: tuple[Slot, ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """The manifest of one installed unit: *entries* sorted by path, named by *digest*.

    A distribution has a *version*; the rest of a venv is grouped by directory and has none.
    """

    digest: str
    name: str
    version: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything in a venv: its trees in order of name, no path twice.

    *bound*: some entry refers to the project itself (editable or local-path installs).
    """

    trees: tuple[Tree, ...]
    bound: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Key + trees + provenance: what ``store`` publishes and ``restore`` looks up.

    *place* is the venv's path below the project root when the manifest is bound, else ``None``.
    *trees* are digests. *created* is in seconds since 1970. *files* and *size* count regular files
    and their bytes as they appear (not as they are shared). *warnings* are what the build said about what
    is in it (dependencies that no lock file names), for as long as it is used. *host* is the machine that
    made it; of one that came from a remote, that, who signed it, and which job pushed it. *packages* are what
    each lock file lists, by the name of its part in the key: name and version, or what is asked of it.
    *notes* are those that an installer left of local packages, by path: a hash of what they stand for
    (:mod:`venvflow.state.notes`). *needs* are what editable installs lead to outside of the venv
    (:mod:`venvflow.state.needs`), *root* is the project that it was built in. *entries* are what the lock
    files say of each package, as hashes (:mod:`venvflow.pure.entries`); none if no build may start from it.
    *build_seconds* is how long the build took that made it; 0: not known.
    """

    id: str
    key: Key
    trees: tuple[str, ...]
    place: str | None
    venv: str
    created: float
    host: str
    command: str
    python: str
    files: int
    size: int
    warnings: tuple[str, ...] = ()
    packages: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    root: str = ""
    entries: dict[str, str] = field(default_factory=dict, repr=False)
    build_seconds: float = 0.0


# --------------------------------------------------------------------------- what is at a venv's place

PlaceState = Literal["absent", "venv", "ours", "empty", "symlink", "file", "mount", "stranger", "other-owner"]
"""What is at a venv's place; ``ours`` is a venv that venvflow made, ``venv`` any other."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What venvflow knows of a venv that it made; written last, so a venv without one was not finished.

    A venv that somebody else made, and that was shared all the same, has an empty *key*.

    *path* is where it was made for, *state* how far it is: ``built`` (not shared yet) or ``shared``
    (its files are the store's, *trees* its manifest). *directories* are directories of the venv with
    their mtimes in nanoseconds: a file added or removed moves one of them. *stats* is a hash of how all
    files looked (:mod:`venvflow.state.file_stats`), *contents* tell what is in them
    (:mod:`venvflow.state.contents`; empty: not known), *store* is the one that its symlinks lead into.
    *warnings* are what the build said of what is in it. *modes* are those that its files had
    (:mod:`venvflow.disk.attributes`), *times* their mtimes in nanoseconds (if venvflow did not make it),
    *private* files that somebody edited and that verify knows as the venv's own, with their SHA-256.
    *written* is the mtime in nanoseconds of the files that were written for it alone
    (:func:`venvflow.pure.sharing.is_written`; 0: they have their own).
    *needs* are paths outside of it that its editable installs lead to and that were there
    (:mod:`venvflow.state.needs`). *settings* say how it was shared
    (:func:`venvflow.pure.sharing.settings_of`), *copies* are the files that these keep from being linked.
    *build_seconds* is how long the build took that made what is in it; 0: not known.
    *top* is the mtime of its own directory; :func:`write_receipt` fills it in.
    """

    key: str
    path: str
    state: Literal["built", "shared"]
    made: Literal["built", "restored", "taken", "shared"]
    python: str = ""
    trees: tuple[str, ...] = ()
    bound: bool = False
    link: str = ""
    stats: str = ""
    store: str = ""
    warnings: tuple[str, ...] = ()
    modes: Mapping[str, int] = field(default_factory=dict, repr=False)
    times: Mapping[str, int] = field(default_factory=dict, repr=False)
    private: Mapping[str, str] = field(default_factory=dict, repr=False)
    written: int = 0
    needs: tuple[str, ...] = ()
    settings: str = ""
    copies: tuple[str, ...] = field(default=(), repr=False)
    contents: str = field(default="", repr=False)
    directories: Mapping[str, int] = field(default_factory=dict, repr=False)
    build_seconds: float = 0.0
    top: int = field(default=0, repr=False, compare=False)

    def is_at(self, path: str) -> bool:
        """Return whether the venv was made for *path*: one that was copied or moved there was not."""
        return self.path == path

    def is_for(self, key: str, path: str) -> bool:
        """Return whether the venv was made for *key*, at *path*."""
        return self.key == key and self.path == path

    def is_shared_for(self, key: str) -> bool:
        """Return whether the venv is shared and was made for *key*: then its trees are its manifest."""
        return self.state == "shared" and self.key == key


# --------------------------------------------------------------------------- what steps answer


class Saved(NamedTuple):
    """What one pattern left out: *files* regular files of *size* bytes in all."""

    pattern: str
    files: int
    size: int


class Remembered(NamedTuple):
    """What only the history is told of a step.

    *snapshot* is the id of the one that it is about, empty if it is about none. *build_seconds* is how long
    the build took that made what is in the venv; 0: not known. *packages* are those that changed in the venv,
    each with its version before and after (None where it is not there); None if it is not known what was
    there before.
    """

    snapshot: str = ""
    build_seconds: float = 0.0
    packages: tuple[tuple[str, str | None, str | None], ...] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step did, as values: the faces turn it into text.

    *did* is one word for the result (``hit``, ``miss``, ``built``, ``kept``, ``stored`` …), *reason*
    says why where that helps, *figures* holds counts, bytes and seconds by name.
    """

    did: str
    reason: str = ""
    figures: dict[str, int | float | str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    remembered: Remembered = field(default_factory=Remembered)

    def values(self) -> dict[str, Any]:
        """Return all of it by name, but for what only the history is told."""
        return {name: value for name, value in asdict(self).items() if name != "remembered"}


@dataclass(frozen=True, slots=True)
class Part:
    """One of the archives that are a venv together: of which *layer*, what names its *content*, its *path*.

    *size* is that of the file, *content_size* that of all files in it, in bytes; *kept*: it was there.
    *frames_reused* of its *frames* were compressed before.
    """

    layer: str
    content: str
    path: str
    sha256: str
    size: int
    content_size: int
    entries: int
    distributions: tuple[tuple[str, str], ...]
    kept: bool
    frames: int = 0
    frames_reused: int = 0
