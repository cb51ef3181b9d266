"""Write what is generated in the documents: ``python -m tools WHAT [PAGE…]``.

reference   fill in the generated sections of all pages
sessions    run the sessions of the pages, and write down what is printed differently now
recording   run the sessions of the pages, or of the README, and write down all that they print
screenshot  make the pictures of the report, light and dark, with a browser
shape       print how large the code is, and how far runs walk in it

``make docs``, ``make recording`` and ``make screenshot`` call this; the tests fail when the first two would
change anything.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.markdown import with_sections
from tools.pages import README, ROOT, SESSIONS, all_pages, answers_of
from tools.reference import sections
from tools.screenshot import take_pictures
from tools.sessions import written_down
from tools.shape import shape


def main(argv: Sequence[str] | None = None) -> int:
    """Do what is asked for, and return the exit code: 1 when a command of a session failed."""
    parser = argparse.ArgumentParser(prog="python -m tools", description=__doc__)
    parser.add_argument("what", choices=("reference", "sessions", "recording", "screenshot", "shape"))
    parser.add_argument("pages", nargs="*", type=Path, help="only these pages")
    args = parser.parse_args(argv)
    if args.what == "shape":
        sys.stdout.write(shape())
        return 0
    if args.what == "screenshot":
        return take_pictures()
    if args.what == "reference":
        for page in args.pages or all_pages():
            write(page, with_sections(page.read_text(encoding="utf-8"), sections()))
        return 0
    pages = args.pages or ([README] if args.what == "recording" else SESSIONS)
    return max([record(page.resolve(), all_of_it=args.what == "recording") for page in pages])


def record(page: Path, *, all_of_it: bool) -> int:
    """Run the sessions of a page and write down what they print; return 1 when a command failed."""
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        answers = answers_of(page, Path(temporary), Path(temporary) / "wheels")
    failed = [answer.problem for answer in answers if answer.failed]
    for problem in failed:
        sys.stderr.write(f"{page.relative_to(ROOT)}: {problem}\n")
    if not failed:
        write(page, written_down(text, answers, all_of_it=all_of_it))
    return 1 if failed else 0


def write(page: Path, text: str) -> None:
    """Write a page if it changes, and say so."""
    if page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    sys.exit(main())
