"""A scene played once without a fault: what it begins with, what it leads to, and how many calls it takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from scenes import Scene
from worlds import Picture, World, interesting, pictures


@dataclass
class Rehearsal:
    """A scene in a world: how its venvs look before and after, and the number of *calls* in between."""

    world: World
    scene: Scene
    before: dict[str, Picture | None] = field(init=False)
    after: dict[str, Picture | None] = field(init=False)
    calls: int = field(init=False)

    def begin(self) -> None:
        """Make the beginning of the scene."""
        self.scene.begin(self.world)
        self.before = self.looks()

    def play(self) -> None:
        """Do the action of the scene, which must succeed."""
        self.calls = self.world.done(self.scene.action).calls
        self.after = self.looks()

    def looks(self) -> dict[str, Picture | None]:
        """Return how the venvs of the scene look now."""
        return pictures(self.world, self.scene.venvs)

    def mixtures(self) -> list[str]:
        """Return the venvs that look neither as before nor as after."""
        now = self.looks()
        return [venv for venv in self.scene.venvs if now[venv] not in (self.before[venv], self.after[venv])]

    def faulty_calls(self, sample: int | None) -> list[int]:
        """Return at which calls a fault is to happen: all of them, or about *sample*."""
        return interesting(self.calls, sample)


def rehearsed(world: World, scene: Scene) -> Rehearsal:
    """Play a scene through in a world that can go back to its beginning."""
    rehearsal = Rehearsal(world, scene)
    rehearsal.begin()
    world.begin()
    rehearsal.play()
    return rehearsal
