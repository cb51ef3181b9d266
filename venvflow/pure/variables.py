"""The environment variables that are ours: which ones there are, and which config they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from venvflow.errors import shown
from venvflow.pure.names import did_you_mean

_CONFIG = ("VENVFLOW_CONFIG", "VENVFLOW_CONFIG_PATH")
"""Either names the config; the first goes before the second."""

_OURS = (
    *_CONFIG,
    *("VENVFLOW_WORK_DIR", "VENVFLOW_FORMAT", "VENVFLOW_STORE", "VENVFLOW_LOCK_TIMEOUT", "VENVFLOW_TRUST"),
    *("VENVFLOW_REMOTE", "VENVFLOW_REMOTE_MODE", "VENVFLOW_TRUSTED_REF"),
    *("VENVFLOW_SIGNING_KEY", "VENVFLOW_SIGNING_KEY_FILE"),
)
_GIVEN = ("VENVFLOW_VENV", "VENVFLOW_PYTHON", "VENVFLOW_PROJECT")
"""What builders are given, who may start us again."""


def named_config(environ: Mapping[str, str]) -> str | None:
    """Return the path of the config that *environ* names, None if it names none."""
    return next((environ[name] for name in _CONFIG if environ.get(name)), None)


def unknown_variables(environ: Mapping[str, str], config: bytes = b"") -> Iterator[str]:
    """Yield a warning for each variable that is called like ours and is none; those of *config* are its own.

    *config* is the text of the file: it may name variables in ``key: env:`` and in paths.
    """
    for name in sorted(environ):
        is_known = not name.startswith("VENVFLOW_") or name in _OURS or name in _GIVEN or not environ[name]
        if not is_known and name.encode("utf-8", "surrogateescape") not in config:
            yield f"there is no variable {shown(name)}, so it does nothing. {did_you_mean(name, _OURS)}"
