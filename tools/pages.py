"""Which pages there are, and where the sessions of each begin.

The tutorial and the page on installing begin in a home with nothing but a clone of this repository, the
README in a project that does not know venvflow yet, the pages on tools in a project of that tool, and all
others with the project that the tutorial made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

from wheels import repack

from tools.markdown import blocks
from tools.sessions import Answer, run
from tools.world import TOOLS, World

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"


def all_pages() -> list[Path]:
    """Return README and every page below ``docs/``."""
    return [README, *sorted(DOCS.rglob("*.md"))]


def _has_session(page: Path) -> bool:
    return any(block.language == "console" for block in blocks(page.read_text(encoding="utf-8")))


SESSIONS = [page for page in all_pages() if _has_session(page)]
"""Pages with sessions in them."""


def answers_of(
    page: Path, root: Path, wheelhouse: Path, *, programs: Callable[[Mapping[str, str]], str] | None = None
) -> list[Answer]:
    """Run the sessions of *page* in a new world below *root*, and return what they answered.

    *programs* gives a directory with programs that are found before all others.
    """
    world = World(root, wheelhouse)
    if programs is not None:
        world.programs.append(programs(world.environ))
    tool = page.stem.removeprefix("with-")
    with world.app(tool) if tool in TOOLS else nullcontext(_start_of(page, world)) as start:
        return run(page.read_text(encoding="utf-8"), world, start=start)


def _start_of(page: Path, world: World) -> Path:
    """Return the directory in which the sessions of *page* begin, with what is there in *world* by then."""
    if page in (DOCS / "tutorial.md", DOCS / "howto/install.md"):
        world.project.rmdir()
        world.clone(ROOT, uv=page.name == "install.md")
        return world.home
    if page == DOCS / "howto/monorepo.md":
        repack(["flit_core"], world.wheelhouse)
    world.furnish(config=page not in (README, DOCS / "howto/monorepo.md"))
    return world.project
