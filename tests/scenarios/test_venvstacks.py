"""venvstacks with our ``pack_venv`` in place of its own: its layers are exported, published and run.

Its runtime is a copy of the interpreter that is here: what it would download lies on GitHub.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

STACK = """
[[runtimes]]
name = "runtime"
python_implementation = "cpython@{version}"
requirements = ["six"]
[[frameworks]]
name = "web"
runtime = "runtime"
requirements = ["idna"]
[[applications]]
name = "hello"
launch_module = "hello.py"
frameworks = ["web"]
requirements = ["certifi"]
"""

DRIVE = """
import shutil, sys
from pathlib import Path
from venvstacks import cli, stacks
sys.path.append(sys.argv.pop(1))
import venvflow.pack_venv
stacks.pack_venv = venvflow.pack_venv

def copied(target, request):
    base, made = Path(sys.base_prefix), Path(target) / request.partition("@")[2]
    name = "python%d.%d" % sys.version_info[:2]
    (made / "bin").mkdir(parents=True)
    shutil.copy2(base / "bin" / name, made / "bin")
    for alias in ("python", "python3"):
        (made / "bin" / alias).symlink_to(name)
    unused = ("__pycache__", "test", "config-*", "idlelib", "tkinter", "lib2to3", "pydoc_data", "turtledemo")
    left_out = shutil.ignore_patterns("site-packages", *unused, "ensurepip", "unittest", "distutils")
    shutil.copytree(base / "lib" / name, made / "lib" / name, ignore=left_out, symlinks=True)
    (made / "lib" / name / "site-packages").mkdir()
    return made

stacks._pdm_python_install = copied
cli.main(sys.argv[1:])
"""


@pytest.mark.network
@pytest.mark.timeout(1800)
def test_layers_of_venvstacks_are_exported_and_published_by_us(tmp_path: Path) -> None:
    """Each layer finds the ones below it, where it was exported, and where its archive was unpacked."""
    tools, stack = tmp_path / "tools", tmp_path / "stack"
    venv.create(tools, with_pip=True)
    run([tools / "bin/pip", "install", "-q", "venvstacks==0.7.0"])
    # What its annotations and ours need is there; of what we need, only what packing imports.
    run([tools / "bin/pip", "install", "-q", 'backports.zstd; python_version < "3.14"', "PyYAML", "pathspec"])
    stack.mkdir()
    version = ".".join(map(str, sys.version_info[:3]))
    (stack / "venvstacks.toml").write_text(STACK.format(version=version))
    (stack / "hello.py").write_text("import certifi, idna, six, sys\nprint(sys.prefix)\n")
    (tmp_path / "drive.py").write_text(DRIVE)
    source = Path(__file__).parent.parent.parent
    for words in ("lock", "build", "local-export --output-dir out", "publish --force --output-dir art"):
        drive: list[str | Path] = [
            tools / "bin/python",
            tmp_path / "drive.py",
            source,
            *words.split(),
            "venvstacks.toml",
        ]
        run(drive, stack, PATH=f"{tools}/bin:{os.environ['PATH']}")
    exported, unpacked = stack / "out", tmp_path / "unpacked"
    unpacked.mkdir()
    for archive in sorted((stack / "art").glob("*.tar.xz")):
        run(["tar", "-xf", archive, "-C", unpacked])
    python = unpacked / "runtime/bin/python3"
    for layer in ("runtime", "framework-web", "app-hello"):
        run([python, unpacked / layer / "postinstall.py"])
    for place in (exported, unpacked):
        app = place / "app-hello"
        assert run([app / "bin/python", "-m", "hello"]) == f"{app}\n"


def run(words: Sequence[str | Path], cwd: Path | None = None, **more: str) -> str:
    """Run a program that must succeed, and return what it wrote."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "UV_"))}
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env={**environ, **more}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
