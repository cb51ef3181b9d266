"""What of a lock file is installed, in the words of each tool: the same choice means the same for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from venvflow.model import VenvSpec


def options_for(tool: str, spec: VenvSpec) -> tuple[str, ...]:
    """Return the options of ``uv sync`` and its like for groups, extras and packages of *spec*."""
    return tuple(_OPTIONS[tool](spec))


def _each(option: str, values: Iterable[str]) -> list[str]:
    return [f"{option}={value}" for value in values]


def _uv(spec: VenvSpec) -> list[str]:
    all_packages = spec.packages == "all"
    packages = ["--all-packages"] if all_packages else _each("--package", spec.packages)
    choice = [*_each("--group", spec.groups), *_each("--extra", spec.extras), *packages]
    return choice if spec.dev else ["--no-dev", *choice]


def _poetry(spec: VenvSpec) -> list[str]:
    # To poetry, all groups but main are for development, whatever they are called.
    only = ",".join(("main", *spec.groups))
    return [
        *(_each("--with", spec.groups) if spec.dev else [f"--only={only}"]),
        *_each("--extras", spec.extras),
    ]


def _pdm(spec: VenvSpec) -> list[str]:
    # pdm installs all groups as they are for development, but only what is named if one of them is.
    named = [*(() if spec.dev else spec.groups), *spec.extras]
    is_production = not spec.dev and not spec.groups
    return ["--prod"] * is_production + _each("--group", named)


def _pipenv(spec: VenvSpec) -> list[str]:
    # Once a category is named, only what is named is installed.
    if spec.groups:
        return [f"--categories={' '.join(('default', *['develop'] * spec.dev, *spec.groups))}"]
    return ["--dev"] * spec.dev


_OPTIONS: Mapping[str, Callable[[VenvSpec], list[str]]] = {
    "uv": _uv, "poetry": _poetry, "pdm": _pdm, "pipenv": _pipenv
}  # fmt: skip
