"""The registry: what is believed of the files in ``venvs/``, and when a venv is gone."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from venvflow.disk.layout import Layout
from venvflow.errors import EnvironmentFailure
from venvflow.pure.decoding import Corrupt
from venvflow.state import registry
from venvflow.state.registry import Registration, decode_registration, registration_at, registrations_in


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Give a store without venvs."""
    (tmp_path / "store/venvs").mkdir(parents=True)
    return Layout(str(tmp_path / "store"))


def registered(path: str, project: str = "") -> Registration:
    """Return what is known of a venv."""
    return Registration(path, project, "api" if project else "", "", "", "hardlink", (), 7, 1.0)


def test_a_file_with_the_name_of_another_venv_is_not_believed(layout: Layout) -> None:
    """It would keep its own venv alive, and the other one would be forgotten with it."""
    registry.add(layout, registered("/one"))
    registry.add(layout, registered("/other"))
    os.replace(*(f"{layout.path}/{registry._file(path)}" for path in ("/one", "/other")))
    assert registration_at(layout.path, "/other") is None
    with pytest.raises(EnvironmentFailure, match="another venv"):
        list(registrations_in(layout.path))


def test_a_venv_that_is_forgotten_meanwhile_stops_nobody(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file was listed, and is gone when it is read."""
    registry.add(layout, registered("/one"))
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [*real(path), "gone.json"])
    assert [each.path for each in registrations_in(layout.path)] == ["/one"]


def test_other_files_are_none_of_its(layout: Layout) -> None:
    """What is being written, or was put there by hand, is no venv."""
    registry.add(layout, registered("/one"))
    Path(layout.path, "venvs", ".vf-1-1").write_text("{")
    assert [each.path for each in registrations_in(layout.path)] == ["/one"]


@pytest.mark.parametrize("name", ["../api", "a/b", "/"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    """It is a part of a path in the project's state."""
    document = {**asdict(registered("/v", "/p")), "name": name}
    with pytest.raises(Corrupt, match="name"):
        decode_registration(json.dumps(document).encode())


def test_a_project_behind_a_link_to_nothing_is_not_gone(tmp_path: Path) -> None:
    """What it leads to may only be unmounted."""
    (tmp_path / "p").symlink_to(tmp_path / "disk" / "p")
    assert not registered(str(tmp_path / "v"), str(tmp_path / "p")).gone
    (tmp_path / "p").unlink()
    assert registered(str(tmp_path / "v"), str(tmp_path / "p")).gone
