"""The plan: what doit does to one venv, task by task, and why; decided from facts and nothing else.

doit calls it to see which tasks are due, each step calls it again inside its locks and then acts, and
``explain`` prints it: so what is forecast, skipped and done cannot differ. :mod:`venvflow.steps.facts`
gathers the facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from venvflow.errors import VenvflowError, shown
from venvflow.model import PlaceState, Receipt, Snapshot

VERBS = ("hash-lockfiles", "restore", "build-venv", "squish", "pack", "store")
"""The tasks of a venv, in their order."""

Would = Literal["run", "nothing", "fail", "not run"]


class Action(NamedTuple):
    """What one task does.

    *would*: ``run`` (*did* is what it answers then: new, hit, miss, built …), ``nothing`` (it is up to date,
    or finds nothing to do), ``fail`` (with *error*), or ``not run``, because a task before it fails. *reason*
    says why. It is not *certain* where a build may give just what was there before. *due*: the task has to
    run, if only to look more closely or to warn.
    """

    verb: str
    would: Would
    did: str = ""
    reason: str = ""
    certain: bool = True
    due: bool = True
    error: VenvflowError | None = None


class ArchiveFacts(NamedTuple):
    """What is known of the archive that a config asks for.

    *written*: one was, with these options (*same_options*), for this *key*, of these *trees* (digests).
    *touched* names a file of it that is gone or looks altered, empty if none does.
    """

    written: bool = False
    same_options: bool = False
    touched: str = ""
    key: str = ""
    trees: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VenvFacts:
    """What is known of a venv, its place, its store and its config, before anything is done."""

    venv: str
    path: str

    # the key
    noted_key: str = ""
    """The digest in key.json; empty: none."""
    key: str = ""
    """The digest of the key that the venv must have."""
    key_holds: bool = False
    """Nothing changed that the noted key was made from."""
    others_changed: str = ""
    """Which of its lock files changed in what they say for others only, in words."""
    changed_parts: tuple[str, ...] = ()
    """The parts in which the two keys differ."""
    key_problem: VenvflowError | None = None
    """Why there is no key."""

    # the place
    unreadable: VenvflowError | None = None
    """Why the place cannot be read."""
    there: PlaceState = "absent"
    """What is at *path*."""
    bare: bool = False
    """It is another tool's venv with nothing in it: no loss."""
    receipt: Receipt | None = None
    """The receipt, if the venv there is ours."""
    by_hand: str = ""
    """What was added or edited, in words."""
    damage: str = ""
    """What is missing, in words."""
    suspect: bool = False
    """Something looks changed, and was not compared."""
    passed_check: bool = True
    """The venv is known to have passed its check."""
    unsettled: bool = False
    """Another run left something beside the place, or works there."""
    came_last_time: bool | None = None
    """The last restore or build left a venv for the key; None where that does not matter."""
    why_not_replaced: VenvflowError | None = None
    """Why what is there must not be replaced."""
    why_not_published: VenvflowError | None = None
    """Why what is there must not be published."""
    reinstalled: bool = False
    """What installers note of the distributions in the venv changed since we made it."""
    as_locked: bool = False
    """The venv there is what its lock says, as far as the builder tells."""
    force: bool = False
    """The user allows losing what was changed by hand."""
    fresh: bool = False
    """The user wants it built from nothing."""

    # config and store
    may_restore: bool = True
    """The config's ``restore:``."""
    builder: str = ""
    no_builder: VenvflowError | None = None
    """Why there is no builder."""
    snapshot: Snapshot | None = None
    """The snapshot for the key."""
    snapshot_whole: bool = True
    """The store has all its trees."""
    lacking: str = ""
    """A path outside of the venv that the snapshot needs, and that is not here."""
    published: bool = False
    """There is a snapshot of what is at the place."""
    promised_by: str = ""
    """The task of another venv that publishes a snapshot for the key before this venv needs it."""
    remote: Literal["", "asked", "has it"] = ""
    """On a miss a remote is asked; or it is known to have *snapshot*, which the store has not."""
    read_only: VenvflowError | None = None
    """Why the store cannot be written."""
    resettled: bool = False
    """The venv is shared in another way than the config asks for by now."""
    trees_lost: bool = False
    """The store lacks trees of the venv that is there."""
    archive: ArchiveFacts | None = None

    @property
    def is_for_key(self) -> bool:
        """Return whether a venv of ours is at the place, made for the key, and for this place."""
        receipt = self.receipt
        return receipt is not None and receipt.is_for(self.key, self.path)

    @property
    def may_be_taken(self) -> bool:
        """Return whether a tool may have brought the venv there to its lock; to ask takes a second."""
        if self.force or self.fresh or self.unreadable or self.read_only or not self.builder:
            return False
        if self.receipt is None:
            return self.there == "venv"
        changed = self.reinstalled if self.is_for_key else bool(self.by_hand or self.damage)
        return changed and self.receipt.is_at(self.path)

    @property
    def is_whole(self) -> bool:
        """Return whether nothing of the venv at the place is missing; changed by hand counts as whole."""
        return bool(self.by_hand) or not (self.damage or self.suspect)


def plan(facts: VenvFacts) -> dict[str, Action]:
    """Return what each task does to a venv of which these are the facts, by its verb."""
    actions: dict[str, Action] = {}
    failed, unsure = "", False
    for action in _in_turn(facts):
        unsure |= facts.remote == "asked" and action.did == "miss"
        if unsure and action.would == "run":  # if the remote has it, nothing of this is so
            action = action._replace(certain=False)  # noqa: PLW2901
        actions[action.verb] = (
            action if not failed else Action(action.verb, "not run", reason=f"{failed} fails")
        )
        if action.would == "fail" and not failed:
            failed = f"{action.verb}:{facts.venv}"
    return actions


@dataclass(frozen=True, slots=True)
class _Coming:
    """The venv that the tasks after restore and build find; *trees* None: the build decides them.

    *came* is how it came there: ``kept`` (it was there before), ``hit``, ``taken`` or ``built``. *bound* is
    None where that is not known.
    """

    came: Literal["kept", "hit", "taken", "built"]
    trees: tuple[str, ...] | None = None
    bound: bool | None = None
    shared: bool = False


def _in_turn(facts: VenvFacts) -> Iterator[Action]:
    yield _hash(facts)
    restored, coming = _restore(facts)
    yield restored
    yield _build(facts, coming)
    coming = coming or _Coming("built")
    squished = _squish(facts, coming)
    yield squished
    if coming.came == "kept" and facts.resettled:  # the same files, linked in another way
        coming = replace(coming, shared=True)
    elif squished.would == "run":  # trees of what is not shared yet are not known
        coming = _Coming(coming.came, None, coming.bound)
    yield _pack(facts, coming)
    yield _store(facts, coming)


def _runs(verb: str, did: str, reason: str, *, certain: bool = True) -> Action:
    return Action(verb, "run", did, reason, certain)


def _nothing(verb: str, reason: str, *, certain: bool = True, due: bool = False) -> Action:
    return Action(verb, "nothing", reason=reason, certain=certain, due=due)


def _fails(verb: str, error: VenvflowError) -> Action:
    return Action(verb, "fail", reason=" ".join(error.what.split()), error=error)


# --------------------------------------------------------------------------- key


def _hash(facts: VenvFacts) -> Action:
    verb = "hash-lockfiles"
    if facts.key_problem is not None:
        return _fails(verb, facts.key_problem)
    if not facts.noted_key:
        return _runs(verb, "new", "no key is written down yet")
    if facts.noted_key != facts.key:
        return _runs(verb, "new", f"changed: {', '.join(map(shown, facts.changed_parts))}")
    if facts.others_changed:
        return _runs(verb, "unaffected", facts.others_changed)
    return _nothing(verb, "the key is the same", due=not facts.key_holds)


# --------------------------------------------------------------------------- the venv comes


def _restore(facts: VenvFacts) -> tuple[Action, _Coming | None]:
    """Return what restore does, and the venv that is there afterwards, None if a build has to make it."""
    receipt = facts.receipt
    if facts.unreadable is not None:
        return _fails("restore", facts.unreadable), None
    if facts.as_locked and facts.may_be_taken:  # its files are looked at then
        why = "by what its builder says, the venv there is what its lock says"
        return _runs("restore", "taken", why, certain=False), _Coming("taken", shared=True)
    if receipt is not None and facts.is_for_key and not (facts.force or facts.fresh):
        shared = receipt.state == "shared" and not facts.resettled
        kept = _Coming("kept", receipt.trees, receipt.bound, shared)
        if facts.suspect:
            looks = _runs("restore", "kept", "it looks changed: restore compares it", certain=False)
            return looks, kept if facts.came_last_time else None
        if facts.is_whole:
            return _kept(facts), kept if facts.came_last_time is not False else None
    action, coming = _brought(facts, _why_not_kept(facts))
    if facts.there == "absent" and facts.unsettled:
        first = f"{action.reason}; first a run that is at work, or was killed, has to be settled"
        action = action._replace(reason=first, certain=False)
    return action, coming


def _kept(facts: VenvFacts) -> Action:
    if facts.by_hand:
        return _nothing("restore", f"changed by hand ({facts.by_hand}): left as it is", due=True)
    if not facts.passed_check:
        why = "the venv is what its key says, if it passes its new check"
        return _nothing("restore", why, certain=False, due=True)
    return _nothing("restore", "the venv is what its key says", due=facts.unsettled)


def _brought(facts: VenvFacts, why: str) -> tuple[Action, _Coming | None]:
    """Return what restore does where there is no venv that it can keep, *why* there is none."""
    verb, snapshot = "restore", facts.snapshot if facts.snapshot_whole else None
    if facts.fresh or not facts.may_restore:
        return _runs(verb, "miss", FRESH if facts.fresh else f"{why}; the config says restore: false"), None
    if snapshot is not None and facts.lacking:
        return _runs(verb, "miss", f"{why}; {without(facts.lacking)}"), None
    if snapshot is None and not facts.promised_by:
        asks = ", and the remote is asked" if facts.remote == "asked" else ""
        return _runs(verb, "miss", f"{why}; the store has no snapshot for the key{asks}"), None
    if facts.why_not_replaced is not None:
        return _fails(verb, facts.why_not_replaced), None
    if snapshot is None:  # one that names files of the project would not fit: that is not known before
        promise = f"{why}; {facts.promised_by} adds a snapshot for the key"
        return _runs(verb, "hit", promise, certain=False), _Coming("hit", shared=True)
    coming = _Coming("hit", snapshot.trees, snapshot.place is not None, shared=True)
    has = "remote" if facts.remote == "has it" else "store"
    return _runs(verb, "hit", f"{why}; the {has} has a snapshot for the key"), coming


FRESH = "it is to be built from nothing"


def without(path: str) -> str:
    """Return why the snapshot for a key is of no use where *path* is not."""
    return f"the snapshot for the key needs {shown(path)}, which is not here"


def _why_not_kept(facts: VenvFacts) -> str:
    receipt = facts.receipt
    if receipt is None:
        nothing = "there is no venv"
        there = {"absent": nothing, "empty": nothing, "venv": "another tool made the venv"}
        return there.get(facts.there, "what is there is not a whole venv")
    if not receipt.is_at(facts.path):
        return f"the venv was made for {shown(receipt.path)}"
    if receipt.key != facts.key:
        return f"the venv is for another key ({receipt.key[:12]})"
    return f"the venv is damaged ({facts.damage})" if facts.damage else "it is to be made anew"


def _build(facts: VenvFacts, coming: _Coming | None) -> Action:
    verb = "build-venv"
    if coming is not None:
        return _nothing(verb, "restore brings the venv" if coming.came == "hit" else "the venv is there")
    error = facts.why_not_replaced or facts.no_builder
    if error is not None:
        return _fails(verb, error)
    beside = "; the venv there is kept beside" if facts.there == "venv" and not facts.bare else ""
    return _runs(verb, "built", f"restore misses; by {facts.builder}{beside}")


# --------------------------------------------------------------------------- the venv is shared and published


def _squish(facts: VenvFacts, coming: _Coming) -> Action:
    verb = "squish"
    if coming.shared:
        return _nothing(verb, "its files are the store's")
    if facts.read_only is not None:
        return _fails(verb, facts.read_only)
    if coming.came == "built":
        return _runs(verb, "squished", "the venv is built anew")
    if facts.why_not_published is not None:
        return _fails(verb, facts.why_not_published)
    why = "squish: its settings changed" if facts.resettled else "its files are not the store's yet"
    return _runs(verb, "squished", why)


def _pack(facts: VenvFacts, coming: _Coming) -> Action:
    verb = "pack"
    if facts.archive is None:
        return _nothing(verb, "the config asks for no archive")
    why = why_pack(facts.archive, facts.key, coming.trees)
    if not why:
        return _nothing(verb, "the archive is of this manifest")
    error = _why_not_filled(facts, coming)
    if error is not None:
        return _fails(verb, error)
    if coming.trees is None and why == _OTHER_MANIFEST:
        return _runs(verb, "packed", "unless the build gives the same as before", certain=False)
    return _runs(verb, "packed", why)


_OTHER_MANIFEST = "the archive is of another manifest"


def why_pack(archive: ArchiveFacts, key: str, trees: tuple[str, ...] | None) -> str:
    """Return why the archive has to be written for a venv of *key* and *trees*, empty if it need not.

    *trees* is None while they are not known: no archive can be of them.
    """
    if not archive.written:
        return "no archive is known"
    if not archive.same_options:
        return "the options of pack: changed"
    if archive.touched:
        return f"{shown(archive.touched)} is gone or was altered"
    if key and archive.key != key:
        return "the archive is for another key"
    return "" if trees == archive.trees else _OTHER_MANIFEST


def _store(facts: VenvFacts, coming: _Coming) -> Action:
    verb = "store"
    if facts.fresh and coming.came == "built":
        return _runs(verb, "stored", "it is compared with the snapshot for the key", certain=False)
    if coming.came == "hit" or (
        coming.came in ("taken", "built") and facts.snapshot is not None and facts.snapshot_whole
    ):
        return _nothing(verb, "the snapshot is there")
    if coming.came == "kept":
        if facts.published:
            return _nothing(verb, "the snapshot is there")
        if facts.promised_by and not coming.bound:
            return _nothing(verb, f"{facts.promised_by} adds the snapshot")
        error = _why_not_filled(facts, coming)
        if error is not None:
            return _fails(verb, error)
    return _runs(verb, "stored", "the store has no snapshot for the key")


def _why_not_filled(facts: VenvFacts, coming: _Coming) -> VenvflowError | None:
    """Return why a store that has lost what the venv is made of may not be filled from it again, if so."""
    if coming.came == "kept" and coming.shared and facts.trees_lost:
        return facts.read_only or facts.why_not_published
    return None
