"""The schema for editors and the loader say the same."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from configs import project, read
from hypothesis import given
from hypothesis import strategies as st
from tiers import first_quick

from venvflow.cli.schema import schema_text
from venvflow.config import checks
from venvflow.config.checks import TOP, Named, Table, _allowed_name
from venvflow.errors import ConfigError, Refused

GOOD: dict[str, Any] = {
    "version": 1,
    "store": {
        "path": "~/s",
        "link": ["copy"],
        "min_size": 1,
        "verify": "full",
        "adopt": True,
        "durability": "full",
        "remote": {
            "url": "s3://b/p",
            "endpoint": "https://s3.example.org",
            "region": "eu",
            "mode": "read",
            "keys": {"main": f"ed25519:{'A' * 43}="},
            "unsigned": False,
            "not_before": "2026-11-01",
            "required": False,
            "silence": "10s",
            "limit": "5m",
            "connections": 16,
            "origin": False,
            "keep": {"max_age": "30d", "max_size": "1GiB", "grace": "2d"},
        },
    },
    "trim": {"keep": 1, "keep_per_venv": 0, "max_age": "1d", "max_size": "1GiB", "min_free": 0},
    "exclude": ["a"],
    "ignore": ["a"],
    "sets": {"all": ["*"]},
    "defaults": {"python": "3.12"},
    "venvs": {
        "api": {
            "path": "v",
            "locks": ["text"],
            "python": "3.12",
            "build": "auto",
            "dev": True,
            "prompt": "api",
            "system_site_packages": False,
            "key": {"files": ["text"], "env": ["A"]},
            "bytecode": "keep",
            "exclude": ["a"],
            "restore": True,
            "squish": {"link": ["copy"], "min_size": "1KiB", "private": ["**/starter/"]},
            "pack": {
                "format": "tar.zst",
                "level": 3,
                "output": "dist",
                "name": "{venv}-{version:a.b}-{key}",
                "arcroot": "opt/{venv}",
                "threads": 2,
                "bundle_python": False,
                "layers": [["a-*"], ["*"]],
                "python": "/usr/bin/python3",
            },
            "check": ["-c"],
            "pin": False,
        }
    },
}
GOOD["each"] = [GOOD["venvs"]["api"] | {"locks": ["d/text"], "name": "{dir}", "path": "{parent}/v"}]
VALUES: list[Any] = [
    None, True, 0, 1, 3, -1, 2.5, 10**7, "", "text", "3.12", "3.13t", "./x", "~", "true", "auto",
    "none", "copy",
    "5GiB", "5 MB", "0", "0B", "10G", "14d", "0d", "2 w", "tar.gz", "full", "pypy3.11", "2.7", "3.12.4rc1t",
    "a/b", "/a", "a//b", "a/", "..", ".x", "a.tar.gz", "a.zip", "{venv}-{version:x}", "{nope}", "a{",
    "s3://b", "https://h/x", "ftp://h", "http://u@h", f"ed25519:{'B' * 43}=", "2026-11-01",
    "a\nb", ["a b"], ["--x"], [], ["text"], [""], ["copy"], ["copy", "copy"],
    [1], [None], [[]], [["text"]], [["text", ""]], [[""]], [[1]], [["a b"]], {}, {"nope": 1}, {"a": {}},
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a lock file at its top, and a home beside it."""
    return project(tmp_path)


def keys_of(check: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the key path of everything that the loader knows; a venv is ``api``, a template number ``0``."""
    for cell in getattr(check, "__closure__", None) or ():  # a table that may be null, or is in a list
        yield from keys_of(cell.cell_contents, at)
    if isinstance(check, Named):
        yield from keys_of(check.check, (*at, "api"))
    if isinstance(check, Table):
        for key, below in check.fields.items():
            yield (*at, key)
            yield from keys_of(below, (*at, key, "0") if key == "each" else (*at, key))


def keys_in_schema(
    part: dict[str, Any], whole: dict[str, Any], at: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the key path of everything that the schema knows; each must have a description."""
    if ref := part.get("$ref"):
        part = whole["$defs"][ref.rpartition("/")[2]]
    if at and at[-1] != "api":
        assert part.get("description"), at
    if isinstance(part.get("additionalProperties"), dict):
        yield from keys_in_schema(part["additionalProperties"], whole, (*at, "api"))
    if "properties" in part.get("items", {}):
        yield from keys_in_schema(part["items"], whole, (*at, "0"))
    for key, below in part.get("properties", {}).items():
        assert part["additionalProperties"] is False
        yield (*at, key)
        yield from keys_in_schema(below, whole, (*at, key))


def below(part: Any, key: str, default: Any = None) -> Any:
    """Return what a mapping has at *key*, or a list at that number."""
    return part[int(key)] if isinstance(part, list) else part.setdefault(key, default)


def changed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return a good config with *value* at *path*, and of the rest only what is needed: it is read often."""
    pack = {"format": "tar.zst", "level": 3}
    lock = "uv.lock" if path[-1] in {"groups", "extras", "packages", "dev"} else "text"
    document: dict[str, Any] = {"venvs": {"api": {"path": "v", "locks": [lock], "pack": pack}}}
    if path[0] == "each":
        template = {"path": "v", "locks": [f"d/{lock}"], "name": "x", "python": "3.12", "pack": pack}
        document = {"each": [template]}
    place, good = document, copy.deepcopy(GOOD)
    for key in path[:-1]:
        good = below(good, key, {})
        place = below(place, key, copy.copy(good))
    place[path[-1]] = value
    return document


def files(root: Path) -> None:
    """Make the lock files that the documents name."""
    (root / "d").mkdir()
    for name in ("text", "copy", "uv.lock", "d/text", "d/uv.lock"):
        (root / name).touch()


def accepts(root: Path, document: Any) -> bool:
    """Return whether the loader has no problem with *document*."""
    try:
        read(root, json.dumps(document))
    except ConfigError:
        return False
    except Refused:
        pass
    return True


PATHS = sorted(set(keys_of(TOP)))
SCHEMA = json.loads(schema_text())


def test_schema_and_loader_know_the_same_keys() -> None:
    """No key is known to only one of them, and the schema describes each."""
    described = SCHEMA
    jsonschema.Draft202012Validator.check_schema(described)
    assert sorted(set(keys_in_schema(described, described))) == PATHS
    assert len(PATHS) > 45


OF_TEMPLATES = {"locks", "name", "path", "python"}
"""Keys that are checked in another way in a template than in a venv."""

VALUE_PATHS = [
    path
    for path in PATHS
    if path[0] not in {"defaults", "each"} or len(path) == 1 or path[2:] in {(key,) for key in OF_TEMPLATES}
]


def test_the_keys_of_a_venv_are_the_same_wherever_they_stand() -> None:
    """In defaults and templates, schema and loader have the very checks of a venv."""
    venv = SCHEMA["properties"]["venvs"]["additionalProperties"]["properties"]
    defaults, template = SCHEMA["properties"]["defaults"], SCHEMA["properties"]["each"]["items"]
    assert defaults["properties"].items() <= venv.items()
    assert {key: template["properties"][key] for key in venv.keys() - OF_TEMPLATES} == {
        key: value for key, value in venv.items() if key not in OF_TEMPLATES
    }
    for key, check in checks._COMMON.items():
        assert checks._OF_A_VENV[key] is check


@pytest.mark.parametrize("path", first_quick(VALUE_PATHS, every=6), ids=".".join)
def test_schema_and_loader_agree_on_every_value(root: Path, path: tuple[str, ...]) -> None:
    """Each key with values of every type: an editor flags exactly what loading refuses."""
    files(root)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    verdicts = []
    for value in VALUES:
        document = changed(path, value)
        expected = validator.is_valid(document)
        assert accepts(root, document) == expected, (
            value,
            [e.message for e in validator.iter_errors(document)],
        )
        verdicts.append(expected)
    assert not all(verdicts)


@pytest.mark.parametrize("path", [(), *PATHS], ids=lambda path: ".".join(path) or "top")
def test_schema_and_loader_agree_on_missing_and_unknown_keys(root: Path, path: tuple[str, ...]) -> None:
    """Each key taken away, and each mapping with a key too many."""
    files(root)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    document = copy.deepcopy(GOOD)
    assert accepts(root, document)
    assert validator.is_valid(document)
    place = document
    for key in path[:-1]:
        place = below(place, key, {})
    if path:
        place.pop(path[-1], None)
        assert accepts(root, document) == validator.is_valid(document)
    if path[:-1] in {(), *PATHS} and path[:-1] not in {("venvs",), ("each",)}:
        place["nope"] = 1
        assert not accepts(root, document)
        assert not validator.is_valid(document)


def examples_in(part: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every example of the schema, with the key path that it is one for."""
    if ref := part.get("$ref"):
        part = SCHEMA["$defs"][ref.rpartition("/")[2]]
    if at and at[-1] not in {"api", "0"}:
        assert part["examples"], at
        yield from ((at, example) for example in part["examples"])
    if isinstance(below_names := part.get("additionalProperties"), dict) and at != ("sets",):
        yield from examples_in(below_names, (*at, "api"))
    if "properties" in part.get("items", {}):
        yield from examples_in(part["items"], (*at, "0"))
    for key, value in part.get("properties", {}).items():
        yield from examples_in(value, (*at, key))


@pytest.mark.parametrize(
    ("path", "example"),
    [*examples_in(SCHEMA)],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_every_example_of_the_reference_loads(root: Path, path: tuple[str, ...], example: Any) -> None:
    """Each key has one, which an editor and the loader take where it stands."""
    files(root)
    for name in ("services/api/requirements.txt", "services/api/requirements-dev.txt", "libs/core/uv.lock"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "constraints").mkdir()
    (root / "constraints" / "a.txt").touch()
    document = changed(path, example)
    if path == ("sets",):
        document["venvs"]["lib-a"] = "libs/core/uv.lock"
    if path == ("each", "0", "python"):
        document["each"][0]["name"] = "x-{python}"
        document["each"][0]["path"] = "v-{python}"
    assert [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)] == []
    config = read(root, json.dumps(document))
    assert not config.missing_files or path[-1] == "editable"


@pytest.mark.parametrize("key", ["name", "path"])
def test_a_template_without_a_python_has_none_to_fill_in(root: Path, key: str) -> None:
    """Editor and loader say so; with one it is filled in."""
    files(root)
    document = changed(("each", "0", key), "x-{python}")
    validator = jsonschema.Draft202012Validator(SCHEMA)
    assert accepts(root, document)
    assert validator.is_valid(document)
    del document["each"][0]["python"]
    assert not accepts(root, document)
    assert not validator.is_valid(document)


def test_an_archive_with_its_interpreter_names_none_that_is_there(root: Path) -> None:
    """Editor and loader say so; with one of both they are content."""
    files(root)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    document = changed(("venvs", "api", "pack", "python"), "/usr/bin/python3.12")
    for bundled in (False, True):
        document["venvs"]["api"]["pack"]["bundle_python"] = bundled
        assert accepts(root, document) == validator.is_valid(document) == (not bundled)


ANYWHERE = [
    path
    for path in PATHS
    if path[-1] not in {"venvs", "each", "sets", "locks", "path", "name", "build", "editable"}
    and path[-1] not in {"level", "bundle_python"}
    and path != ("each", "0", "python")
]
"""Keys whose values are judged by themselves, whatever the others and the files are.

Not so those of an archive that do not go with every format or every Python: these may stand in ``defaults``.
"""


@pytest.mark.slow
@given(st.data())
def test_schema_and_loader_agree_on_documents(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any values at any keys at once: what an editor flags is what loading refuses."""
    root = project(tmp_path_factory.mktemp("documents"))
    files(root)
    template = {"locks": ["d/uv.lock"], "name": "x", "path": "w", "python": "3.12"}
    document: dict[str, Any] = {"venvs": {"api": {"path": "v", "locks": ["uv.lock"]}}, "each": [template]}
    right = dict(examples_in(SCHEMA))
    for path in data.draw(st.lists(st.sampled_from(ANYWHERE), min_size=1, max_size=6)):
        place: Any = document
        for key in path[:-1]:
            fits = isinstance(place, dict) or (isinstance(place, list) and key.isdigit() and place)
            place = below(place, key, {}) if fits else None
        if isinstance(place, dict):
            value = data.draw(st.one_of(st.just(right[path]), st.sampled_from(VALUES)))
            place[path[-1]] = copy.deepcopy(value)
    assert accepts(root, document) == jsonschema.Draft202012Validator(SCHEMA).is_valid(document), document


@given(st.text(alphabet="ab0-_.+ :/é", max_size=6))
def test_schema_and_loader_agree_on_names(name: str) -> None:
    """A name that an editor accepts is one that loads."""
    pattern = SCHEMA["properties"]["venvs"]["propertyNames"]["pattern"]
    allowed = jsonschema.Draft202012Validator({"type": "object", "propertyNames": {"pattern": pattern}})
    try:
        _allowed_name(name, [])
    except ValueError:
        assert not allowed.is_valid({name: 1})
    else:
        assert allowed.is_valid({name: 1})
