"""Which files are shared, and how a file becomes an object."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from venvflow.model import Entry, LinkMode, Receipt, VenvSpec
from venvflow.pure.sharing import Intake, intake_of, is_resettled, settings_of, stays_private

SITE = "lib/python3.12/site-packages"


def file(path: str, size: int = 5000) -> Entry:
    """Return a file's entry."""
    return Entry(path, "file", "a" * 64, False, size)


@pytest.mark.parametrize(
    "path",
    [
        "pyvenv.cfg",
        "bin/activate",
        "bin/activate.fish",
        "bin/activate_this.py",
        f"{SITE}/x-1.dist-info/RECORD",
        f"{SITE}/x.pth",
        f"{SITE}/x.egg-link",
        "share/cache.db",
        "share/a.sqlite",
        "share/a.sqlite3",
        "a.db-wal",
        "a.db-shm",
        "a.db-journal",
    ],
)
def test_files_that_are_changed_in_place_stay_private(path: str) -> None:
    """Writing through a link would change every venv that shares the file."""
    assert stays_private(file(path), 1)


@pytest.mark.parametrize(
    "path",
    [
        f"{SITE}/alembic/templates/generic/env.py",
        f"{SITE}/pdm/cli/templates/default/pyproject.toml",
        f"{SITE}/reflex/.templates/web/package.json",
        f"{SITE}/django/conf/project_template/manage.py-tpl",
        f"{SITE}/x/skeleton/setup.py",
        f"{SITE}/x/scaffolds/a/b.txt",
        f"{SITE}/x/boilerplate/a.py",
        f"{SITE}/dbt/include/starter_project/dbt_project.yml",
        f"{SITE}/x/cookie/{{{{ cookiecutter.name }}}}/setup.py",
        f"{SITE}/x/{{{{cookiecutter.name}}}}-lib/setup.py",
        f"{SITE}/ipykernel/resources/logo-svg.svg",
        "share/jupyter/kernels/python3/kernel.json",
        f"{SITE}/zensical/bootstrap/docs/index.md",
        f"{SITE}/jupyterlab/staging/package.json",
        f"{SITE}/llama_index/core/_static/nltk_cache/corpora/stopwords/english",
        "share/nltk_data/tokenizers/punkt/english.pickle",
    ],
)
def test_files_that_programs_copy_out_or_want_for_themselves_stay_private(path: str) -> None:
    """What is copied has the mode of its source: read-only files in somebody's new project are no use."""
    assert stays_private(file(path), 1)


@pytest.mark.parametrize(
    "change",
    [{"link": ("copy",)}, {"min_size": 2}, {"private": ("a",)}, {"exclude": ("a",)}, {"bytecode": "none"}],
)
def test_a_venv_that_was_shared_by_other_settings_is_known(change: dict[str, Any]) -> None:
    """Only if it is shared at all, and not by what does not matter to that."""
    spec = VenvSpec("api", "/p/.venv", ())
    receipt = Receipt("", "/p/.venv", "shared", "built", settings=settings_of(spec))
    assert is_resettled(receipt, replace(spec, **change))
    assert not is_resettled(receipt, replace(spec, pin=True))
    assert not is_resettled(replace(receipt, state="built"), replace(spec, **change))
    assert not is_resettled(None, spec)
    assert settings_of(replace(spec, private=("a", "b"))) != settings_of(replace(spec, private=("a b",)))


@pytest.mark.parametrize(
    "path",
    [
        f"{SITE}/jinja/template/__init__.py",
        f"{SITE}/templates.py",
        f"{SITE}/alembic/templates/__pycache__/env.cpython-312.pyc",
        f"{SITE}/mytemplates/a.html",
        f"{SITE}/x/bootstrap/bootstrap.css",
        f"{SITE}/six.py",
        f"{SITE}/pyvenv.cfg",
        "bin/ruff",
        f"{SITE}/bin/activate",
        f"{SITE}/RECORD",
        f"{SITE}/x.dbx",
        f"{SITE}/x-1.dist-info/RECORDS",
        f"{SITE}/xpth",
        f"{SITE}/x-1.dist-info/METADATA",
        "bin/deactivate",
    ],
)
def test_all_other_files_are_shared(path: str) -> None:
    """A name that only looks like one of them makes no difference."""
    assert not stays_private(file(path), 1)


def test_small_empty_and_local_files_stay_private() -> None:
    """The limit itself is shared; an empty file never is, and a template is another file in every venv."""
    assert stays_private(file("a", 4095), 4096)
    assert not stays_private(file("a", 4096), 4096)
    assert stays_private(file("a", 0), 0)
    assert not stays_private(file("a", 1), 0)
    assert stays_private(file("a")._replace(kind="template"), 1)


def test_a_source_is_not_linked_to_an_adopted_object() -> None:
    """That has a time of its own, by which bytecode would be stale in one venv and not in the other."""
    assert stays_private(file("lib/a.py"), 1, adopted=True)
    assert not stays_private(file("lib/a.pyi"), 1, adopted=True)
    assert not stays_private(file("lib/a.py"), 1, adopted=False)


@pytest.mark.parametrize(
    ("name", "links", "built_here", "adopt", "mode", "expected"),
    [
        ("a.so", 1, True, True, "hardlink", "own"),
        ("a.py", 1, True, False, "hardlink", "own"),
        ("a.so", 1, True, True, "symlink", "own"),
        ("a.so", 1, False, True, "hardlink", "own"),
        ("a.so", 1, False, True, "symlink", "copy"),
        ("a.so", 2, True, True, "hardlink", "adopt"),
        ("a.so", 2, False, True, "hardlink", "adopt"),
        ("a.so", 2, True, False, "hardlink", "copy"),
        ("a.so", 2, True, True, "symlink", "copy"),
        ("a.py", 2, True, True, "hardlink", "copy"),
        ("a.so", 1, True, True, "reflink", "copy"),
        ("a.so", 2, True, True, "copy", "copy"),
    ],
)
def test_a_file_is_taken_over_only_if_nobody_minds(  # noqa: PLR0917 - a table's row
    name: str, links: int, built_here: bool, adopt: bool, mode: LinkMode, expected: Intake
) -> None:
    """Somebody else's file is never re-labelled, and a source always gets our mtime."""
    assert intake_of(name, links, built_here=built_here, adopt=adopt, mode=mode) == expected
