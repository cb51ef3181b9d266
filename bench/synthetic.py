"""Builds a synthetic venv from a lock file of ``name==version`` lines: the build command of the fleets.

``python synthetic.py VENV LOCK --shape '{"directories": 12, …}'``. Equal lines give equal bytes, so that
venvs with most lines in common share most of their files, as real ones do. Only the standard library is
met here, and nothing of the benchmark: it runs isolated, in the interpreter of the venv to be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import venv
from dataclasses import dataclass

_NOISE = 64 << 20
"""Bytes of noise after which it repeats: more than any compressor looks back, fewer than Python refuses."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What one synthetic package looks like: numbers per package, sizes in bytes."""

    directories: int
    modules: int
    module_size: int
    data_files: int = 0
    data_size: int = 0
    library_size: int = 0


def build(target: str, lock: str, shape: Shape) -> None:
    """Make a venv without pip at *target* and install every package of the *lock* into it."""
    venv.create(target, symlinks=True, with_pip=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = os.path.join(target, "lib", version, "site-packages")
    with open(lock, encoding="ascii") as file:
        for line in file:
            name, separator, number = line.strip().partition("==")
            if separator:
                install(packages, name, number, shape)


def install(packages: str, name: str, version: str, shape: Shape) -> None:
    """Write one package and its ``.dist-info`` into the directory *packages*."""
    chance = random.Random(f"{name}=={version}")  # noqa: S311 - nothing secret, but the same every time
    written = [
        *_modules(packages, name, version, shape),
        *_data(packages, name, chance, shape),
    ]
    info = f"{name}-{version}.dist-info"
    _write(
        packages, f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    )
    _write(packages, f"{info}/WHEEL", b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    record = "".join(
        f"{path},,\n" for path in (*written, f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD")
    )
    _write(packages, f"{info}/RECORD", record.encode())


def _modules(packages: str, name: str, version: str, shape: Shape) -> list[str]:
    directories = _directories(name, shape)
    paths = [f"{directory}/__init__.py" for directory in directories]
    paths += [f"{directories[n % len(directories)]}/module_{n}.py" for n in range(shape.modules - len(paths))]
    for path in paths:
        _write(packages, path, _source(path, version, shape.module_size))
    return paths


def _data(packages: str, name: str, chance: random.Random, shape: Shape) -> list[str]:
    directories = _directories(name, shape)
    sizes = {
        f"{directories[n % len(directories)]}/data_{n}.bin": shape.data_size for n in range(shape.data_files)
    }
    if shape.library_size:
        sizes[f"{name}/library.bin"] = shape.library_size
    for path, size in sizes.items():
        half = _noise(chance, size // 2)  # the other half compresses, as libraries do by about half
        _write(packages, path, half + half[:64] * ((size - len(half)) // 64))
    return list(sizes)


def _noise(chance: random.Random, size: int) -> bytes:
    """Return *size* bytes that do not repeat within the window of a compressor."""
    block = chance.randbytes(min(size, _NOISE))
    return (block * (size // max(1, len(block)) + 1))[:size]


def _directories(name: str, shape: Shape) -> list[str]:
    return [name, *(f"{name}/part_{number}" for number in range(1, shape.directories))]


def _source(path: str, version: str, size: int) -> bytes:
    lines = [f'"""Synthetic {path}."""', f"VERSION = {version!r}"]
    line = "def function_{}(value):\n    return [value * number for number in range({})]\n"
    lines += [line.format(number, number) for number in range(size // 90)]
    return "\n".join(lines).encode("ascii")


def _write(packages: str, path: str, data: bytes) -> None:
    full = os.path.join(packages, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "wb") as file:
        file.write(data)


def main() -> None:
    """Build what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("venv")
    parser.add_argument("lock")
    parser.add_argument("--shape", type=json.loads, required=True)
    options = parser.parse_args()
    build(options.venv, options.lock, Shape(**options.shape))


if __name__ == "__main__":
    main()
