"""Runs in turn: every contender once per round, so that a busy machine is busy for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def in_turn(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, tuple[float, ...]]:
    """Call every contender once per round and return what each answered, by name.

    Every second round goes through them backwards: nobody always comes after the same neighbour.
    """
    answers: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders)[:: 1 if number % 2 == 0 else -1]
        for name in order:
            answers[name].append(contenders[name]())
    return {name: tuple(values) for name, values in answers.items()}
