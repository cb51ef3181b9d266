"""Who holds which snapshot: by the records of the store, and by the config of a project."""

from __future__ import annotations

import os
from collections.abc import Iterable

from venvflow.model import Config
from venvflow.pure.retention import Candidate, Hold, Usage, VenvName
from venvflow.state.holds import VenvHolds
from venvflow.state.index import SnapshotSummary
from venvflow.steps.state_files import read_key_of


class Holders:
    """The holds of all venvs, by snapshot. Of its project *config* knows what is pinned, current, gone.

    A venv of this config whose holds were lost, so that none are known, holds by its name what nobody else
    does.
    """

    def __init__(self, records: Iterable[VenvHolds], config: Config | None = None) -> None:
        self._root = os.path.realpath(config.root) if config is not None else ""
        self._specs = config.venvs if config is not None else {}
        self._by_snapshot: dict[str, list[Hold]] = {}
        self._lost = set(self._specs)
        self._wanted: dict[str, list[str]] = {}
        for each in records:
            self._add(each)
        if config is not None:
            for name in config.venvs:
                record = read_key_of(config, name)
                if record is not None:
                    self._wanted.setdefault(record.key.digest, []).append(name)

    def _add(self, holder: VenvHolds) -> None:
        pinned, gone = holder.pin, holder.gone
        if holder.project == self._root:
            spec = self._specs.get(holder.name)
            self._lost.discard(holder.name)
            pinned = spec.pin if spec is not None else pinned
            gone = spec is None and not os.path.lexists(holder.path)
        venv, current = holder.venv, holder.current
        for identifier, used in holder.held.items():
            hold = Hold(venv, used, pinned and not gone, identifier == current and not gone, gone)
            self._by_snapshot.setdefault(identifier, []).append(hold)

    @property
    def names(self) -> list[str]:
        """Return the names of all venvs that hold something."""
        return [each.venv.name for holds in self._by_snapshot.values() for each in holds]

    def holds_of(self, snapshot: SnapshotSummary) -> tuple[Hold, ...]:
        """Return who holds a snapshot, the one that used it last first."""
        used = snapshot.used or Usage(0, snapshot.created)
        holds = {each.venv: each for each in self._by_snapshot.get(snapshot.id, ())}
        if not holds and snapshot.venv in self._lost:
            holds[self._ours(snapshot.venv)] = self._held(snapshot.venv, used)
        for name in self._wanted.get(snapshot.key, ()):
            hold = holds.get(self._ours(name)) or self._held(name, used)
            holds[hold.venv] = hold._replace(current=True)
        return tuple(sorted(holds.values(), key=lambda each: (each.used, each.venv), reverse=True))

    def candidate(self, snapshot: SnapshotSummary) -> Candidate:
        """Return what the policy is to judge; what is in the snapshot is left out."""
        holds = self.holds_of(snapshot)
        known = snapshot.used or Usage(0, snapshot.created)
        return Candidate(snapshot.id, max(known, *(each.used for each in holds), known), holds)

    def _ours(self, name: str) -> VenvName:
        return VenvName(self._root, name)

    def _held(self, name: str, used: Usage) -> Hold:
        return Hold(self._ours(name), used, pinned=self._specs[name].pin)
