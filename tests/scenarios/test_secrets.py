"""Canaries in all that has a credential: what is printed, logged, kept, packed and exported has none.

The index is real: a server on this machine that asks for a password and gives out signed links.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sqlite3
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from scenario import PIP, Machine, Project, Run
from wheels import make_wheel

pytestmark = pytest.mark.slow

VENVFLOW = os.path.join(os.path.dirname(sys.executable), "venvflow")
CANARY = "CANARY0123456789"
USER = f"me:pw-{CANARY}"
HIDDEN = (CANARY, base64.b64encode(USER.encode()).decode())
"""What must be nowhere: the canary, and the header that an index is asked with."""


class _Index(BaseHTTPRequestHandler):
    """Serves ``/simple/NAME/`` with signed links, and files to whoever signs; all to one user only."""

    house: Path

    def do_GET(self) -> None:
        """Answer like an index that is private."""
        path, _, query = self.path.partition("?")
        signed = CANARY in query
        known = self.headers.get("Authorization", "").endswith(HIDDEN[1])
        if not (signed or known):
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()
        elif path.startswith("/simple/"):
            wheels = self.house.glob(f"{path.split('/')[2].replace('-', '_')}-*.whl")
            links = [f'<a href="/files/{each.name}?{_signed(each)}">{each.name}</a>' for each in wheels]
            self._answer(f"<html><body>{''.join(links)}</body></html>".encode(), "text/html")
        elif (self.house / os.path.basename(path)).is_file():
            self._answer((self.house / os.path.basename(path)).read_bytes(), "application/zip")
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815 - the name is the standard library's

    def _answer(self, data: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _signed(wheel: Path) -> str:
    return f"X-Amz-Signature={CANARY}#sha256={_sha256(wheel)}"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give ``host:port`` of an index with the wheels listed, direct and other."""
    house = tmp_path_factory.mktemp("index")
    for name in ("listed", "direct", "other"):
        make_wheel(house, name, "1.0")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Index", (_Index,), {"house": house}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


ONLINE = {
    "UV_OFFLINE": "false", "UV_NO_INDEX": "false", "UV_FIND_LINKS": "", "UV_HTTP_RETRIES": "0",
    "PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0", "PIP_VERBOSE": "1",
    "UV_INDEX_CORP_PASSWORD": f"pw-{CANARY}", "MY_SETTING": f"setting-{CANARY}",
}  # fmt: skip


def _lock(project: Project, venv: str, *lines: str) -> None:
    (project.root / venv).mkdir(exist_ok=True)
    (project.root / venv / "requirements.txt").write_text("".join(f"{line}\n" for line in lines))


def _said(project: Project, *words: str, **more: str) -> str:
    """Run a program of ours with the credentials in its environment, and return all that it wrote."""
    run: Run = project.run([VENVFLOW, *words] if words[0] != "doit" else [_doit(), *words[1:]],
                           env={**_online(project), **more})  # fmt: skip
    assert "Traceback" not in run.text
    return f"{words}: {run.code}\n{run.text}"


def _doit() -> str:
    return os.path.join(os.path.dirname(sys.executable), "doit")


def _online(project: Project) -> dict[str, str]:
    cache = project.machine.root / "uv-cache"
    return {**ONLINE, "UV_CACHE_DIR": str(cache)}


_INPUTS = {"requirements.txt", "venvflow.yaml"}


def _everything(project: Project, tmp: Path) -> Mapping[str, bytes]:
    """Return all files that venvflow made for a project, archives and databases unpacked."""
    found: dict[str, bytes] = {}
    for root in (project.root, project.machine.store):
        for path in sorted(root.rglob("*")):
            if (
                path.is_file()
                and not path.is_symlink()
                and path.name not in {"requirements.txt", "venvflow.yaml"}
            ):
                found[str(path)] = path.read_bytes()
                if path.suffix == ".db":
                    found[f"{path}!"] = "\n".join(sqlite3.connect(path).iterdump()).encode()
    for archive in project.root.glob("*.tar.*"):
        if not archive.name.endswith((".sha256", ".json")):
            for name, data in _members(archive, tmp):
                found[f"{archive}!{name}"] = data
    return found


def _members(archive: Path, tmp: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            yield member.name, file.read() if file is not None else b""


def _leaks(found: Mapping[str, bytes]) -> list[str]:
    return [name for name, data in found.items() for hidden in HIDDEN if hidden.encode() in data]


@pytest.mark.parametrize("builder", ["uv", PIP])
def test_no_credential_of_an_index_or_a_link_is_told_or_kept(
    machine: Machine, index: str, builder: str, tmp_path: Path
) -> None:
    """Built, shared, stored, packed, exported, looked at: with a password, signed links, a token in a URL."""
    project = machine.project(
        "p", {"api": {"build": builder, "key": {"env": ["MY_SETTING"]}, "pack": {"format": "tar.gz"}}}
    )
    _lock(
        project, "api",
        f"--index-url http://{USER}@{index}/simple",
        "listed==1.0",
        f"direct @ http://{index}/files/direct-1.0-py3-none-any.whl?token={CANARY}",
    )  # fmt: skip
    said = [_said(project, "doit")]
    assert "build-venv:api  built" in said[0]
    assert project.output("api", "python", "-c", "import listed, direct; print(direct.VERSION)") == "1.0"
    commands = (
        "status -v", "status --json", "explain api -v", "explain api --json", "list -v", "stats --json",
        "verify --full", "pack api -o out.tar.xz", "export api exported", "diff api exported", "doctor",
        "store api --json",
    )  # fmt: skip
    said += [_said(project, *words.split()) for words in commands]
    found = _everything(project, tmp_path)
    assert any(name.endswith("direct_url.json") and "exported" in name for name in found)
    assert any(name.endswith("direct_url.json") and "tar.xz!" in name for name in found)
    found = {**found, **{f"output {number}": text.encode() for number, text in enumerate(said)}}
    assert _leaks(found) == []
    assert b"token=***" in found[str(project.root / ".venvflow/api/build.log")]


@pytest.mark.parametrize("builder", ["uv", PIP])
def test_a_build_that_fails_tells_no_credential(
    machine: Machine, index: str, builder: str, tmp_path: Path
) -> None:
    """A link to nothing, an index that refuses the password, a repository that is not there."""
    lines = {
        "gone": f"gone @ http://{index}/files/gone-1.0-py3-none-any.whl?token={CANARY}",
        "refused": f"--extra-index-url http://you:pw-{CANARY}@{index}/simple\nnothing==1.0",
        "git": f"x @ git+http://oauth2:{CANARY}@{index}/x.git@{'0' * 40}",
    }
    project = machine.project("p", {name: {"build": builder} for name in lines})
    for name, line in lines.items():
        _lock(project, name, line)
    said = [
        _said(project, "doit", "-c"),
        _said(project, "status"),
        _said(project, "explain", "gone", "--json"),
    ]
    assert said[0].count("| ") >= 3
    found = _everything(project, tmp_path)
    assert str(project.root / ".venvflow/gone/build.log") in found
    assert _leaks({**found, **{f"output {number}": text.encode() for number, text in enumerate(said)}}) == []


def test_words_of_commands_are_kept_without_credentials(machine: Machine, tmp_path: Path) -> None:
    """The key tells two passwords apart, and no file holds either; nor does the log, whatever is printed."""
    make = ["{python}", "-I", "-m", "venv", "--without-pip", "{venv}"]

    def configure(password: str) -> None:
        talk = (
            f"echo https://me:{password}@h/x?sig={password}; echo 'Authorization: Basic {password}';"
            f" printf '\\033]0;{password[:3]}\\007password={password}\\n'; env"
        )
        project.configure({
            "api": {
                "build": [make, ["sh", "-c", talk], ["true", "--index-url", f"https://me:{password}@h/"],
                          ["true", "--token", password], ["true", f"--password={password}"]],
                "key": {"env": ["MY_SETTING"]},
                "pack": {"format": "tar.gz", "output": "./"},
            }
        })  # fmt: skip

    project = machine.project("p", {"api": {}})
    _lock(project, "api", "# nothing")
    configure(CANARY)
    said = [_said(project, "doit")]
    first = project.key("api")["digest"]
    said += [_said(project, "explain", "api", "-v"), _said(project, "explain", "api", "--json")]
    configure(f"other-{CANARY}")
    said += [_said(project, *words.split()) for words in ("doit", f"explain api {first[:12]}", "list -v")]
    assert project.key("api")["digest"] != first
    found = _everything(project, tmp_path)
    assert _leaks({**found, **{f"output {number}": text.encode() for number, text in enumerate(said)}}) == []
    log = found[str(project.root / ".venvflow/api/build.log")]
    assert b"\x1b" not in log
    assert b"https://***@h/x?sig=***" in log
