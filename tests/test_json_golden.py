"""The JSON of every command: as its golden file has it, as its schema says, and every key explained there.

``pytest tests/test_json_golden.py --update-golden`` writes the golden files anew; look at what changed before
it is committed: scripts of users read these keys.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from json_schemas import SCHEMAS, WITHOUT, checked, schema_of

from venvflow import __version__
from venvflow.cli.parser import COMMANDS

if TYPE_CHECKING:
    from cli_project import Project


GOLDEN = Path(__file__).parent / "golden" / "json"


def nothing(_: Project) -> None:
    """Leave the project as it is: ``api`` in its place, ``web`` never built."""


def damage(project: Project) -> None:
    """Add a file, and edit one in place."""
    (project.site / "added.py").write_text("", encoding="utf-8")
    edited = project.site / "demo.py"
    edited.chmod(0o644)
    edited.write_text("EDITED = True\n", encoding="utf-8")


def change_lock(project: Project) -> None:
    """Ask for the packages of ``web``."""
    lock = project.root / "web" / "requirements.txt"
    (project.root / "api" / "requirements.txt").write_bytes(lock.read_bytes())


def lose_lock(project: Project) -> None:
    """Delete the lock file of ``api``."""
    (project.root / "api" / "requirements.txt").unlink()


def take_away(project: Project) -> None:
    """Delete the venv ``api``."""
    shutil.rmtree(project.root / "api" / ".venv")


def make_by_hand(project: Project) -> None:
    """Let another tool make the venv ``web``."""
    project.make_foreign_venv("web")


def lose_the_store(project: Project) -> None:
    """Delete the store."""
    shutil.rmtree(project.store)


def outgrow(project: Project) -> None:
    """Allow the store less than it has, and give the venv another lock, so that its snapshot may go."""
    take_away(project)
    text = project.config.read_text(encoding="utf-8").replace("api/requirements.txt", "web/requirements.txt")
    project.config.write_text(f"{text}trim: {{max_size: 1B, keep_per_venv: 0}}\n", encoding="utf-8")


def put_locks_there(project: Project) -> None:
    """Make another project that has no config."""
    service = project.root.parent / "fresh" / "service"
    service.mkdir(parents=True)
    (service / "requirements.txt").write_text("demo==1.0\n", encoding="utf-8")
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"  # one that is there for sure
    (service / ".python-version").write_text(f"{minor}\n", encoding="utf-8")


def put_an_archive_there(project: Project) -> None:
    """Make an archive of the venv ``api``."""
    assert project.run("pack", "api", "-o", "../api.tar").code == 0


def damage_after_packing(project: Project) -> None:
    """Make an archive of the venv ``api``, then add a file to it and edit another."""
    put_an_archive_there(project)
    damage(project)


def have_a_remote(project: Project) -> None:
    """Set a remote that is empty, on a machine that is nobody's CI."""
    text = project.config.read_text(encoding="utf-8")
    remote = f"{{url: 'file://{project.root.parent}/bucket', mode: write, unsigned: true}}"
    project.config.write_text(text.replace("durability: none", f"durability: none, remote: {remote}"))


def push(project: Project) -> None:
    """Have the snapshot of ``api`` in the remote."""
    have_a_remote(project)
    assert project.run("push", "api").code == 0


def lose_a_parcel(project: Project) -> None:
    """Have the snapshot of ``api`` in the remote, without one of its trees."""
    push(project)
    min((project.root.parent / "bucket/v1/trees").glob("*/*")).unlink()


def have_an_old_record(project: Project) -> None:
    """Have a snapshot in the remote that no venv of the config wants, and that was pushed long ago."""
    push(project)
    text = project.config.read_text(encoding="utf-8")
    project.config.write_text(text.replace("api: {path: api/.venv", "other: {path: api/.venv"))
    change_lock(project)
    (record,) = (project.root.parent / "bucket/v1/records").glob("*/*")
    old = time.time() - 100 * 86_400 - 60
    os.utime(record, (old, old))


def push_and_lose_the_store(project: Project) -> None:
    """Have the snapshot of ``api`` in the remote, and nothing here."""
    push(project)
    lose_the_store(project)


def have_a_remote_alone(project: Project) -> None:
    """Have a remote that is empty, and nothing here."""
    have_a_remote(project)
    lose_the_store(project)


CASES: dict[str, tuple[str, Callable[[Project], None], int]] = {
    "init": ("init ../fresh", put_locks_there, 0),
    "init-check": ("init --check ../fresh", put_locks_there, 1),
    "status": ("status", nothing, 0),
    "status-changed": ("status", damage, 0),
    "status-foreign": ("status web", make_by_hand, 0),
    "build": ("build api", take_away, 0),
    "build-failed": ("build api", lose_lock, 2),
    "restore-kept": ("restore api", nothing, 0),
    "restore-hit": ("restore api", take_away, 0),
    "restore-miss": ("restore web", nothing, 1),
    "store-kept": ("store api", nothing, 0),
    "store-foreign": ("store web --force", make_by_hand, 0),
    "squish": ("squish api", nothing, 0),
    "squish-foreign": ("squish web", make_by_hand, 0),
    "squish-dry-run": ("squish web --dry-run", make_by_hand, 0),
    "squish-failed": ("squish web", nothing, 2),
    "unsquish": ("unsquish api", nothing, 0),
    "verify": ("verify", nothing, 0),
    "verify-findings": ("verify --full", damage, 1),
    "verify-healed": ("verify --heal", damage, 1),
    "verify-no-store": ("verify", lose_the_store, 0),
    "stats": ("stats", nothing, 0),
    "history": ("history", take_away, 0),
    "history-nothing": ("history", lose_the_store, 0),
    "stats-packages": ("stats --packages", nothing, 0),
    "report": ("report -o ../report.html", nothing, 0),
    "report-no-store": ("report -o ../report.html", lose_the_store, 0),
    "pack": ("pack api -o ../out/", nothing, 0),
    "pack-proved": ("pack api -o ../out/ --check --smoke pass", nothing, 0),
    "pack-disproved": ("pack api -o ../out/ --smoke 1/0", nothing, 1),
    "unpack": ("unpack ../api.tar ../unpacked", put_an_archive_there, 0),
    "export": ("export api ../exported", nothing, 0),
    "explain-remote": ("explain api --remote", push_and_lose_the_store, 0),
    "list": ("list", nothing, 0),
    "list-nothing": ("list", lose_the_store, 0),
    "erase-refused": ("erase", nothing, 6),
    "erase": ("erase --yes", nothing, 0),
    "erase-nothing": ("erase", lose_the_store, 0),
    "trim": ("trim", nothing, 0),
    "trim-dry-run": ("trim --dry-run", outgrow, 0),
    "trim-dropped": ("trim", outgrow, 0),
    "trim-no-store": ("trim", lose_the_store, 0),
    "explain": ("explain api", nothing, 0),
    "explain-miss": ("explain web", nothing, 0),
    "explain-lock-changed": ("explain api", change_lock, 0),
    "explain-lock-missing": ("explain api", lose_lock, 0),
    "explain-no-store": ("explain web", lose_the_store, 0),
    "explain-equal": ("explain api api", nothing, 0),
    "explain-different": ("explain api web", nothing, 1),
    "diff-equal": ("diff api api", nothing, 0),
    "diff-different": ("diff ../api.tar api", damage_after_packing, 1),
    "diff-archive": ("diff api ../api.tar", put_an_archive_there, 0),
    "push": ("push api", have_a_remote, 0),
    "push-dry-run": ("push api --dry-run", have_a_remote, 0),
    "push-kept": ("push api", push, 0),
    "pull": ("pull api", push_and_lose_the_store, 0),
    "pull-miss": ("pull api", have_a_remote_alone, 1),
    "list-remote": ("list --remote", push, 0),
    "verify-remote": ("verify --remote", lose_a_parcel, 1),
    "verify-remote-healed": ("verify --remote --heal", lose_a_parcel, 0),
    "trim-remote": ("trim --remote", push, 0),
    "trim-remote-dry-run": ("trim --remote --dry-run", have_an_old_record, 0),
    "keygen": ("keygen main -o ../main.key", nothing, 0),
    "doctor": ("doctor", nothing, 0),
    "version": ("version", nothing, 0),
}
"""The words of each golden file, what is done to the project before, and the exit code."""


@pytest.mark.parametrize("name", CASES)
def test_the_json_of_a_command_is_as_its_golden_file_and_its_schema(
    name: str, project: Project, request: pytest.FixtureRequest
) -> None:
    """Keys and words are what scripts rely on; numbers, times and paths are blurred."""
    words, prepare, code = CASES[name]
    assert project.run("restore", "api").code == 0
    prepare(project)
    answer = project.run(*words.split(), "--json")
    assert answer.code == code or name == "doctor", answer
    is_as_its_schema(words.split()[0], answer.document)
    document = answer.document
    if name == "doctor":  # which checks there are depends on the machine
        document["checks"], document["ok"] = document["checks"][:1], True
    found = f"{json.dumps(blurred(document, project.root.parent), indent=2)}\n"
    file = GOLDEN / f"{name}.json"
    if request.config.getoption("--update-golden"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")


def is_as_its_schema(command: str, document: dict[str, Any]) -> None:
    """Assert that a document fits, and that it would not with a key less or a key more."""
    checked(command, document)
    schema = schema_of(command)
    forms = [set(form["required"]) for form in schema.get("oneOf", [schema])]
    (required,) = [form for form in forms if form <= set(document)]
    for key in required:
        with pytest.raises(AssertionError):
            checked(command, {other: value for other, value in document.items() if other != key})
    with pytest.raises(AssertionError):
        checked(command, {**document, "surprise": 1})


def test_every_command_with_json_has_golden_files_and_a_schema() -> None:
    """None is forgotten, and none is left of a command that is gone."""
    answering = set(COMMANDS) - WITHOUT
    assert {words.split()[0] for words, _, _ in CASES.values()} == answering
    assert {file.stem for file in SCHEMAS.iterdir()} == answering
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize("file", sorted(SCHEMAS.iterdir()), ids=lambda file: file.stem)
def test_a_schema_is_one_and_explains_every_key(file: Path) -> None:
    """It is valid itself, closed (a key that is not in it is an error), and has words for every key."""
    from jsonschema import Draft202012Validator

    schema = schema_of(file.stem)
    Draft202012Validator.check_schema(schema)
    assert schema["description"].endswith(".")
    for part in _parts(schema):
        if "properties" in part:
            assert part["additionalProperties"] is False
            assert set(part["required"]) <= set(part["properties"])
            assert all(each["description"] for each in part["properties"].values())


def test_the_schema_of_a_command_is_printed(project: Project) -> None:
    """Byte for byte the file that ships; another word gets the nearest."""
    for file in SCHEMAS.iterdir():
        assert project.run("schema", file.stem).out == file.read_text(encoding="utf-8")
    answer = project.run("schema", "statsu")
    assert (answer.code, "Did you mean stat" in answer.err) == (2, True)


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every object within a schema."""
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from _parts(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _parts(value)


# --------------------------------------------------------------------------- what differs from run to run


def blurred(value: Any, base: Path, key: str = "") -> Any:
    """Return *value* without what differs from run to run, from Python to Python, and from host to host."""
    if isinstance(value, dict):
        return {_text(name, base): blurred(each, base, name) for name, each in value.items()}
    if isinstance(value, list):
        return [blurred(each, base, key) for each in value]
    if key in _OF_THE_MACHINE and value:
        return f"<{key}>"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "<number>"
    return _text(value, base) if isinstance(value, str) else value


_OF_THE_MACHINE = {"abi", "command", "host", "output", "platform", "remedy", "text", "verdict"}
_BLURS = (
    (r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", "<digest>"),
    (r"\b[0-9a-f]{12}\b", "<id>"),
    (r"/[^ ]*/\.uv-cache/archive-v0/[^/]+", "<uv's cache>"),
    (r"ed25519:[A-Za-z0-9+/]{43}=", "<public key>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>"),
    (r"^/.*/bin/python3\.\d+$", "<interpreter>"),
    (r"\b3\.\d+\.\d+\b", "<version>"),
    (r"python3\.\d+", "<python>"),
    (r"^3\.\d+$", "<minor>"),
    (r"\b\d[\d,.]* (ms|s)\b", "<duration>"),
    (r"\b\d[\d,.]* (B|KiB|MiB|files?|objects?|members?|entries)\b", r"<number> \1"),
)


def _text(text: str, base: Path) -> str:
    text = text.replace(str(base), "<base>").replace(__version__, "<venvflow>")
    for pattern, blur in _BLURS:
        text = re.sub(pattern, blur, text)
    return text
