"""The table of what is interrupted: how the world begins, what is done, and which venvs must survive it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from worlds import World, site


@dataclass(frozen=True)
class Scene:
    """An *action* in a world that *begin* made; *venvs* are paths below its root.

    Each of them must look, at any moment, as it did before or as it does after. *again* are the exit codes
    with which the action may end when it is done once more: some refuse what is there already. *damaged*:
    the store is not sound at the beginning, only in the end.
    """

    name: str
    begin: Callable[[World], object]
    action: str
    venvs: tuple[str, ...] = ("p/api/.venv",)
    again: tuple[int, ...] = (0,)
    damaged: bool = False


def _empty(world: World) -> None:
    world.project("1.0")


def _built(world: World) -> None:
    world.project("1.0")
    world.done("flow")


def _outdated(world: World) -> None:
    _built(world)
    world.lock("2.0")


def _near(world: World) -> None:
    world.project_of_uv("1.0")
    world.done("flow")
    world.project_of_uv("2.0")


def _changed_back(world: World) -> None:
    _outdated(world)
    world.done("flow")
    world.lock("1.0")


def _deleted(world: World) -> None:
    _built(world)
    shutil.rmtree(world.venv)


def _too_many(world: World) -> None:
    _outdated(world)
    world.done("flow")
    world.project("2.0", trim={"keep": 1, "keep_per_venv": 1})


def _foreign(world: World) -> None:
    _built(world)
    world.foreign("one")
    world.foreign("two", "1.1")


def _shared(world: World) -> None:
    _foreign(world)
    world.done("squished")


def _edited(world: World) -> None:
    _shared(world)
    file = site(world.root / "one") / "demo" / "table.bin"
    copy = site(world.root / "two") / "demo" / "table.bin"
    os.rename(shutil.copy2(copy, world.root / "copy"), copy)
    os.chmod(file, 0o644)
    with file.open("ab") as opened:
        opened.write(b"edited in place")


def _archived(world: World) -> None:
    _built(world)
    world.done("packed")


def _strange(world: World) -> None:
    _empty(world)
    world.foreign("p/api/.venv", "0.9")


_TWO = ("one", "two", "p/api/.venv")

SCENES = (
    Scene("a first build", _empty, "flow"),
    Scene("a build after a change", _outdated, "flow"),
    Scene("a build from the nearest snapshot", _near, "flow"),
    Scene("a restore over another venv", _changed_back, "restored"),
    Scene("a restore where nothing is", _deleted, "flow"),
    Scene("a trim", _too_many, "trimmed"),
    Scene("squish", _foreign, "squished", _TWO),
    Scene("squish once more", _shared, "squished", _TWO),
    Scene("unsquish", _shared, "unsquished", _TWO),
    Scene("healing", _edited, "healed", _TWO, damaged=True),
    Scene("erase", _built, "erased"),
    Scene("pack", _built, "packed"),
    Scene("unpack", _archived, "unpacked", ("p/api/.venv", "three"), (0, 6)),
    Scene("export", _built, "exported", ("p/api/.venv", "four"), (0, 6)),
)


def _steps_before(number: int, begin: Callable[[World], object]) -> Callable[[World], object]:
    def begun(world: World) -> None:
        begin(world)
        for step in STEPS[:number]:
            world.done(step)

    return begun


STEPS = ("hashed", "brought", "built", "shared", "put_by", "stored")
SINGLE = (
    *(Scene(f"{step}, alone", _steps_before(number, _outdated), step) for number, step in enumerate(STEPS)),
    Scene("brought back, alone", _steps_before(1, _changed_back), "brought"),
    *(scene for scene in SCENES if scene.action not in ("flow", "restored")),
)
"""One step, or one command: what it says of the state when it fails is about all that it did."""

LAYERED = (
    *(scene for scene in SCENES if scene.name in ("a build after a change", "a restore over another venv")),
    *(scene for scene in SCENES if scene.name in ("a trim", "squish", "squish once more", "unsquish")),
    Scene("a build over a stranger's venv", _strange, "flow", ("p/api/.venv", "p/api/.venv.before-venvflow")),
)
"""Those that are done to what lies in a layer of an image: there venvs are mixtures until the next run."""
