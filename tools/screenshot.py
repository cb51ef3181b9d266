"""Takes the pictures of a report that are in the documents: of a fleet thought up, light and dark."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from browser import Scheme, browser, missing
from example_fleet import example

from tools.pages import ROOT
from venvflow.report.page import render

PICTURES: dict[Scheme, Path] = {
    "light": ROOT / "docs/images/report.png",
    "dark": ROOT / "docs/images/report-dark.png",
}

WIDTH, HEIGHT = 1200, 1180
"""Pixels: down to the end of the map."""


def take_pictures() -> int:
    """Write the pictures; return the exit code, 3 without a browser."""
    if reason := missing():
        sys.stderr.write(f"no picture was taken: {reason}\n")
        return 3
    with tempfile.TemporaryDirectory() as temporary:
        page = Path(temporary) / "report.html"
        page.write_text(render(example()), encoding="ascii")
        with browser(Path(temporary) / "profile") as opened:
            opened.open(page)
            for scheme, file in PICTURES.items():
                opened.look(WIDTH, HEIGHT, scheme)
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(opened.picture(WIDTH, HEIGHT))
                sys.stdout.write(f"wrote {file.relative_to(ROOT)}\n")
    return 0
