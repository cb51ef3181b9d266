"""Fields in braces are filled in, or told before anything is done."""

from __future__ import annotations

import pytest

from venvflow.pure.names import KNOWN, fill, wrong_field

VALUES = {"venv": "api", "key": "0123456789ab", "python": "3.12.1", "version:ruamel-yaml": "0.18/1"}


@pytest.mark.parametrize(
    ("name", "filled"),
    [
        ("plain", "plain"),
        ("{venv}-{key}", "api-0123456789ab"),
        ("py{python}.{venv}{venv}", "py3.12.1.apiapi"),
        ("{version:ruamel-yaml}", "0.18_1"),
        ("{version:Ruamel.__YAML}", "0.18_1"),
    ],
)
def test_fields_are_filled_in(name: str, filled: str) -> None:
    """Distributions are found however they are spelt, and no value can bring a directory with it."""
    assert fill(name, VALUES) == filled
    assert wrong_field(name) == ""


def test_what_is_not_installed_is_told_by_name() -> None:
    """The field comes back as it was written."""
    with pytest.raises(KeyError) as caught:
        fill("a{version:No.Such}", VALUES)
    assert caught.value.args == ("{version:No.Such}",)
    assert wrong_field("a{version:No.Such}") == ""


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("{vnev}", "{vnev}"),
        ("{}", "{}"),
        ("{version:}", "{version:}"),
        ("a{", "{"),
        ("a}b", "}"),
        ("{{venv}}", "{"),
    ],
)
def test_what_can_never_be_filled_in_is_found(name: str, wrong: str) -> None:
    """Unknown fields and lone braces."""
    assert wrong_field(name) == wrong


def test_the_known_fields_are_known() -> None:
    """What messages list is what is accepted."""
    assert wrong_field(KNOWN.replace("NAME", "x")) == ""
