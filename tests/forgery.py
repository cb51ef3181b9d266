"""Archives as an attacker makes them: a real one of ours, changed, and put together with right numbers."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from archives import Raw

from venvflow.disk.archive import tar as headers
from venvflow.postinstall import METADATA

DOCUMENT, TEMPLATES = f"{METADATA}/pack.json", f"{METADATA}/templates"


class Part(NamedTuple):
    """One member: *kind*, and bytes or target."""

    kind: Literal["dir", "file", "link"]
    data: bytes = b""
    target: str = ""
    executable: bool = False


@dataclass
class Forgery:
    """An archive taken apart: what its metadata say, its templates, and all other members in their order."""

    document: dict[str, Any]
    blob: bytes
    parts: dict[str, Part]
    raw_document: bytes | None = None
    announced: dict[str, Any] = field(default_factory=dict)
    prefix: str = ""

    def copy(self) -> Forgery:
        """Return one that may be changed."""
        return deepcopy(self)

    def template(self, path: str, data: bytes, slots: list[list[Any]], *, member: bool = True) -> None:
        """Add a template that is right but for what its *path* and *slots* say."""
        self.document["templates"].append([path, 0, len(self.blob), len(data), slots])
        self.blob += data
        if member:
            self.directories(path)
            self.parts[path] = Part("file", data)

    def link(self, path: str, target: str, kind: str = "venv") -> None:
        """Add a link to a local path, with the directory that it lies in."""
        self.document["links"].append([path, target, [[0, kind, "raw", ""]] if kind else []])
        self.directories(path)

    def directories(self, path: str) -> None:
        """Add the directories that *path* lies in and that nothing else stands for."""
        rows = {row[0] for row in self.document["links"] + self.document["templates"]}
        names = path.split("/")[:-1]
        for end in range(1, len(names) + 1):
            name = "/".join(names[:end])
            if name not in rows:
                self.parts.setdefault(name, Part("dir"))

    def members(self) -> Iterator[tuple[str, Part]]:
        """Yield all members, the metadata first, with numbers and digests that are right."""
        kinds = [part.kind for part in self.parts.values()]
        sizes = sum(len(part.data) for part in self.parts.values()) + len(self.blob)
        right = {
            "bytes": sizes,
            "entries": len(kinds) + 1,
            "directories": kinds.count("dir"),
            "files": kinds.count("file") + 1,
            "links": kinds.count("link"),
        }
        digest = hashlib.sha256(self.blob).hexdigest()
        announced = {**right, **self.announced}
        document = {"templates_sha256": digest, **self.document, "announced": announced}
        data = json.dumps(document).encode() if self.raw_document is None else self.raw_document
        metadata = {METADATA: Part("dir"), DOCUMENT: Part("file", data), TEMPLATES: Part("file", self.blob)}
        for name, part in [*metadata.items(), *self.parts.items()]:
            yield self.prefix + name, part

    def tar(self) -> bytes:
        """Return it as a tar."""
        out = []
        for name, part in self.members():
            if part.kind == "dir":
                out.append(headers.directory_header(name))
            elif part.kind == "link":
                out.append(headers.link_header(name, part.target))
            else:
                out.append(headers.file_header(name, len(part.data), executable=part.executable))
                out.append(part.data + bytes(headers.padding(len(part.data))))
        return b"".join(out) + headers.END

    def write(self, path: Path) -> str:
        """Write it in the format that *path* ends with, and return the path."""
        if path.suffix == ".tar":
            path.write_bytes(self.tar())
            return str(path)
        raw = Raw(path.name.split(".", 1)[1])
        for name, part in self.members():
            if part.kind == "dir":
                raw.directory(name)
            elif part.kind == "link":
                raw.link(name, part.target)
            else:
                raw.file(name, part.data, 0o755 if part.executable else 0o644)
        raw.write(path)
        return str(path)


def taken_apart(archive: bytes) -> Forgery:
    """Return the members of a tar of ours."""
    parts: dict[str, Part] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8") as tar:
        for member in tar:
            if member.isdir():
                parts[member.name] = Part("dir")
            elif member.issym():
                parts[member.name] = Part("link", target=member.linkname)
            else:
                file = tar.extractfile(member)
                assert file is not None
                parts[member.name] = Part("file", file.read(), executable=bool(member.mode & 0o100))
    del parts[METADATA]
    document = json.loads(parts.pop(DOCUMENT).data)
    del document["announced"], document["templates_sha256"]
    return Forgery(document, parts.pop(TEMPLATES).data, parts)
