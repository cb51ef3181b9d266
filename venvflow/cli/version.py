"""``venvflow version``: which venvflow this is."""

from __future__ import annotations

import argparse
import sys

from venvflow import __version__
from venvflow.cli.render import Output
from venvflow.model import FORMAT

EXAMPLE = "venvflow version --json"


def run(args: argparse.Namespace, out: Output) -> int:
    """Print the version.

    JSON: ``venvflow`` (its version), ``format`` (of stores that it can use), ``python`` (that it runs on).
    """
    del args
    if out.as_json:
        out.document({"venvflow": __version__, "format": FORMAT, "python": sys.version.split()[0]})
    else:
        out.answer(f"venvflow {__version__}")
    return 0
