"""A small factory for what builders install: wheels, local projects, and the lock files that name them.

Everything is made by hand, works without a package index, and is deterministic: the same arguments give
the same bytes. Typical use::

    wheel = make_wheel(tmp_path / "house", "demo", "1.0", scripts={"demo": "demo:main"})
    lock = requirements(tmp_path / "api", [wheel])
    environ = offline_environment(tmp_path / "house")
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sysconfig
import zipfile
from importlib.metadata import Distribution, distribution
from typing import TYPE_CHECKING, Any

from packaging import tags
from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_DATE = (1980, 1, 1, 0, 0, 0)


def make_wheel(
    directory: Path,
    name: str,
    version: str,
    *,
    modules: Mapping[str, str] | None = None,
    scripts: Mapping[str, str] | None = None,
    data: Mapping[str, bytes] | None = None,
    requires: Sequence[str] = (),
) -> Path:
    """Write the pure wheel *name* *version* into *directory* (made if needed) and return its path.

    *modules* maps paths below site-packages (``demo/__init__.py``) to source; without it there is one
    module of the distribution's name that holds ``VERSION`` and a ``main`` that prints it. *scripts* maps
    console commands to entry points (``demo:main``). *data* maps further paths to bytes; a path below
    ``<name>-<version>.data/scripts/`` becomes a script of ``bin``. *requires* are its dependencies.
    """
    stem = f"{_module(name)}-{version}"
    info = f"{stem}.dist-info"
    members = {path: text.encode() for path, text in (modules or _only_module(name, version)).items()}
    members.update(data or {})
    members[f"{info}/METADATA"] = _metadata(name, version, requires).encode()
    members[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    if scripts:
        lines = [f"{command} = {target}\n" for command, target in scripts.items()]
        members[f"{info}/entry_points.txt"] = ("[console_scripts]\n" + "".join(lines)).encode()
    members[f"{info}/RECORD"] = _record(members, f"{info}/RECORD").encode()
    directory.mkdir(parents=True, exist_ok=True)
    wheel = directory / f"{stem}-py3-none-any.whl"
    _write_zip(wheel, members)
    return wheel


def make_project(
    directory: Path, name: str, version: str = "0.1", source: str | None = None, requires: Sequence[str] = ()
) -> Path:
    """Write a local project into *directory* and return it: installable, also as editable, without an index.

    Its build backend lies in the project itself and needs nothing. The one module, *source*, lies in
    ``src``; an editable install is a ``.pth`` file that names that directory.
    """
    module = _module(name)
    (directory / "src").mkdir(parents=True, exist_ok=True)
    text = f'VERSION = "{version}"\n' if source is None else source
    (directory / "src" / f"{module}.py").write_text(text, encoding="utf-8")
    dependencies = "".join(f'  "{one}",\n' for one in requires)
    (directory / "pyproject.toml").write_text(
        _PYPROJECT.format(name=name, version=version, dependencies=dependencies), encoding="utf-8"
    )
    metadata = _metadata(name, version, requires)
    constants = f"MODULE = {module!r}\nVERSION = {version!r}\nMETADATA = {metadata!r}\n"
    (directory / "in_tree_backend.py").write_text(
        _BACKEND.replace("#CONSTANTS#", constants), encoding="utf-8"
    )
    return directory


def requirements(
    directory: Path,
    wheels: Iterable[Path],
    *,
    hashes: bool = True,
    extra: Sequence[str] = (),
    name: str = "requirements.txt",
) -> Path:
    """Write a requirements file that pins *wheels*, with their SHA-256 unless *hashes* is off.

    *extra* lines (``-e ./project``) come last. The wheels are found through :func:`offline_environment`.
    """
    lines = []
    for wheel in wheels:
        project, version = _name_and_version(wheel)
        pin = f"{project}=={version}"
        lines.append(f"{pin} \\\n    --hash=sha256:{_sha256(wheel)}" if hashes else pin)
    return _write(directory / name, "\n".join([*lines, *extra]) + "\n")


def pylock(directory: Path, wheels: Iterable[Path], *, name: str = "pylock.toml") -> Path:
    """Write a standard ``pylock.toml`` that names *wheels* by path relative to *directory*, with hashes."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = ['lock-version = "1.0"\ncreated-by = "tests"\n']
    for wheel in wheels:
        project, version = _name_and_version(wheel)
        path = json.dumps(os.path.relpath(wheel, directory))  # a JSON string is a TOML string
        parts.append(
            f'[[packages]]\nname = "{project}"\nversion = "{version}"\n[[packages.wheels]]\n'
            f'name = "{wheel.name}"\npath = {path}\nhashes = {{ sha256 = "{_sha256(wheel)}" }}\n'
        )
    return _write(directory / name, "\n".join(parts))


def uv_lock(project: Path, wheelhouse: Path, uv: str, python: str) -> Path:
    """Let the real *uv* lock *project* offline against *wheelhouse*, and return the ``uv.lock``."""
    environ = {**os.environ, **offline_environment(wheelhouse)}
    command = [uv, "lock", "--project", os.fspath(project), "--python", python]
    subprocess.run(command, env=environ, check=True, capture_output=True)
    return project / "uv.lock"


def toml_of(document: Mapping[str, Any]) -> str:
    """Return a *document* as TOML, tables within it inline: what people need not read."""

    def inline(value: Any) -> str:
        if isinstance(value, dict):
            return f"{{{', '.join(f'{json.dumps(key)} = {inline(each)}' for key, each in value.items())}}}"
        return f"[{', '.join(map(inline, value))}]" if isinstance(value, list) else json.dumps(value)

    return "".join(f"{json.dumps(key)} = {inline(value)}\n" for key, value in document.items())


def repack(needed: Iterable[str], directory: Path) -> Path:
    """Write wheels of what is installed beside the tests into *directory*, and return that.

    They are what the requirements *needed* name, and all that this needs: an installed distribution has all
    that its wheel had. So a project can be installed as from an index, without one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    left, seen = [(Requirement(each), {""}) for each in needed], set[str]()
    while left:
        one, extras = left.pop()
        if one.name not in seen and (
            one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)
        ):
            seen.add(one.name)
            found = distribution(one.name)
            _repack(found, directory)
            left += [(Requirement(each), one.extras or {""}) for each in found.requires or ()]
    return directory


def _repack(found: Distribution, directory: Path) -> None:
    scripts = os.path.realpath(sysconfig.get_path("scripts"))
    commands = {entry.name for entry in found.entry_points if entry.group == "console_scripts"}
    members, info, of_wheel = {}, "", set[str]()
    for file in found.files or ():
        path, name = os.path.realpath(str(file.locate())), file.as_posix()
        if name.endswith(".dist-info/WHEEL"):
            info = name.rpartition("/")[0]
            of_wheel = {line[5:] for line in file.read_text().splitlines() if line.startswith("Tag: ")}
        if os.path.dirname(path) == scripts and file.name not in commands:
            name = f"{found.name}-{found.version}.data/scripts/{file.name}"
        if not (name.startswith("../") or name.endswith(".pyc") or file.name in _OF_INSTALLERS):
            members[name] = file.read_binary()
    members[f"{info}/RECORD"] = _record(members, f"{info}/RECORD").encode()
    tag = next(tag for tag in map(str, tags.sys_tags()) if tag in of_wheel)
    _write_zip(directory / f"{info.removesuffix('.dist-info')}-{tag}.whl", members)


_OF_INSTALLERS = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")


def offline_environment(wheelhouse: Path) -> dict[str, str]:
    """Return the variables that make pip and uv install from *wheelhouse* and from nowhere else.

    The directory is given as a URL, because pip and uv split these variables at blanks and commas. uv's
    cache lies in the wheelhouse too, so that a test neither sees nor fills the user's.
    """
    url = wheelhouse.absolute().as_uri().replace(",", "%2C")
    return {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": url,
        "UV_CACHE_DIR": os.fspath(wheelhouse.absolute() / ".uv-cache"),
        "UV_NO_CONFIG": "1",
        "UV_OFFLINE": "1",
        "UV_NO_INDEX": "1",
        "UV_FIND_LINKS": url,
    }


def _only_module(name: str, version: str) -> dict[str, str]:
    source = f'"""The distribution {name}."""\n\nVERSION = "{version}"\n\n\ndef main():\n    print(VERSION)\n'
    return {f"{_module(name)}.py": source}


def _module(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _name_and_version(wheel: Path) -> tuple[str, str]:
    project, version = wheel.name.split("-")[:2]
    return project.replace("_", "-"), version


def _metadata(name: str, version: str, requires: Sequence[str]) -> str:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {one}" for one in requires]
    return "\n".join(lines) + "\n"


def _record(members: Mapping[str, bytes], own: str) -> str:
    rows = []
    for path, content in sorted(members.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(content)}")
    return "\n".join([*rows, f"{own},,"]) + "\n"


def _write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    # Stored, not deflated: deflate depends on the zlib that Python was built with.
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = (0o100755 if ".data/scripts/" in name else 0o100644) << 16
            archive.writestr(entry, content)


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


_PYPROJECT = """\
[build-system]
requires = []
build-backend = "in_tree_backend"
backend-path = ["."]

[project]
name = "{name}"
version = "{version}"
requires-python = ">=3.8"
dependencies = [
{dependencies}]
"""

_BACKEND = '''\
"""A build backend that lies in the project it builds and needs nothing but Python 3.8."""

import base64
import hashlib
import io
import os
import tarfile
import zipfile

#CONSTANTS#

INFO = "{}-{}.dist-info".format(MODULE, VERSION)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with open(os.path.join("src", MODULE + ".py"), "rb") as source:
        return _wheel(wheel_directory, {MODULE + ".py": source.read()})


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    line = os.path.abspath("src") + "\\n"
    return _wheel(wheel_directory, {"__editable__." + MODULE + ".pth": line.encode()})


def build_sdist(sdist_directory, config_settings=None):
    stem = "{}-{}".format(MODULE, VERSION)
    with tarfile.open(os.path.join(sdist_directory, stem + ".tar.gz"), "w:gz") as archive:
        for name in ("pyproject.toml", "in_tree_backend.py", "src"):
            archive.add(name, stem + "/" + name)
        content = METADATA.encode()
        entry = tarfile.TarInfo(stem + "/PKG-INFO")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return stem + ".tar.gz"


def _wheel(directory, members):
    members = dict(members)
    members[INFO + "/METADATA"] = METADATA.encode()
    members[INFO + "/WHEEL"] = b"Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    rows = []
    for name, content in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append("{},sha256={},{}\\n".format(name, digest, len(content)))
    rows.append(INFO + "/RECORD,,\\n")
    members[INFO + "/RECORD"] = "".join(rows).encode()
    wheel = "{}-{}-py3-none-any.whl".format(MODULE, VERSION)
    with zipfile.ZipFile(os.path.join(directory, wheel), "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return wheel
'''
