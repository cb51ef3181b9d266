"""``trim --remote``: takes out of a remote what its policy does not keep, and then what nothing needs.

Why no push can lose by it what it needs, :mod:`venvflow.pure.expiry` says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from venvflow.disk.remote.channel import Channel
from venvflow.errors import shown
from venvflow.pure.expiry import (
    MOST_IN_MARK,
    Expiry,
    WantedRecords,
    due,
    needed_by,
    plan_expiry,
    settled,
)
from venvflow.pure.parcels import parcel_path
from venvflow.pure.records import SeenRecord, record_path
from venvflow.state.remote import Progress, Remote, boot_seconds, using
from venvflow.state.remote_contents import RemoteContents, delete, look_into
from venvflow.state.remote_marks import remove_marks, time_of_mark, write_mark

_LONGEST_DELETION = 300.0
"""Seconds for which a trim deletes what it has doomed: much less than others take it for dead after."""


@dataclass(frozen=True, slots=True)
class RemoteTrimmed:
    """What a trim of a remote decided, of which *records*; *size* are the bytes of its parcels before.

    *deleted* are the parcels that went, None for a dry run, and *freed* their bytes, or of those that would.
    """

    plan: Expiry
    records: Mapping[str, SeenRecord]
    size: int
    deleted: int | None = None
    freed: int = 0


def trim_remote(
    remote: Remote,
    wanted: WantedRecords,
    *,
    now: float,
    dry_run: bool = False,
    progress: Progress = lambda _done, _of: None,
) -> RemoteTrimmed:
    """Apply the policy of the config to the remote; *now* is for a dry run, which has no other clock.

    Raises EnvironmentFailure when the remote cannot be used: a trim that is stopped anywhere leaves a remote
    whose records have all of their parcels, and the next one goes on.
    """
    state = "Records went before what they need, and every record that is there has all that it needs."
    with using(remote, state if not dry_run else "Nothing was changed.") as channel:
        if not dry_run:
            now = _begun(channel)
        contents = look_into(remote, channel, progress=progress)
        plan = plan_expiry(
            list(contents.records.values()),
            contents.parcels,
            contents.marks,
            remote.config.keep,
            now=now,
            wanted=wanted,
        )
        size = sum(parcel.size for parcel in contents.parcels.values())
        if contents.strange:
            path = shown(min(contents.strange))
            text = f"{len(contents.strange):,} of what is there is not ours and stays, such as {path}"
            plan = replace(plan, problems=(*plan.problems, text))
        trimmed = RemoteTrimmed(plan, contents.records, size)
        if dry_run:
            return replace(trimmed, freed=sum(contents.parcels[tree].size for tree in plan.due))
        return _carried_out(_Trim(remote, channel, now), contents, trimmed)


def _begun(channel: Channel) -> float:
    """Return what time the server has; raises ChannelFailure if we may not write, or not delete."""
    name = write_mark(channel, "run", ())
    now = time_of_mark(channel, name)
    remove_marks(channel, [name])
    return now


@dataclass(frozen=True, slots=True)
class _Trim:
    remote: Remote
    channel: Channel
    now: float

    @property
    def grace(self) -> float:
        return self.remote.config.keep.grace


def _carried_out(trim: _Trim, contents: RemoteContents, trimmed: RemoteTrimmed) -> RemoteTrimmed:
    plan, connections = trimmed.plan, trim.remote.config.connections
    delete(trim.channel, [record_path(each.id) for each in plan.drop], connections)
    for start in range(0, len(plan.condemn), MOST_IN_MARK):
        write_mark(trim.channel, "condemned", plan.condemn[start : start + MOST_IN_MARK])
    deleted = freed = 0
    for start in range(0, len(plan.due), MOST_IN_MARK):
        contents, gone = _deleted(trim, contents, plan.due[start : start + MOST_IN_MARK])
        deleted += len(gone)
        freed += sum(contents.parcels[tree].size for tree in gone)
        left = {tree: parcel for tree, parcel in contents.parcels.items() if tree not in gone}
        contents = replace(contents, parcels=left)
    dropped = {each.id for each in plan.drop}
    records = [record for record in contents.records.values() if record.id not in dropped]
    needed = needed_by(records)
    over = settled(
        contents.marks,
        contents.parcels,
        needed if needed is not None else contents.parcels,
        now=trim.now,
        grace=trim.grace,
    )
    remove_marks(trim.channel, over)
    return replace(trimmed, deleted=deleted, freed=freed)


def _deleted(trim: _Trim, before: RemoteContents, trees: Collection[str]) -> tuple[RemoteContents, set[str]]:
    """Doom *trees*, look again, and delete those that may still go; return what is there now, and these."""
    end = boot_seconds() + _LONGEST_DELETION
    name = write_mark(trim.channel, "doomed", trees)
    now = look_into(trim.remote, trim.channel, before.records)
    needed = needed_by(now.records.values())
    going: set[str] = set()
    if needed is not None:
        going = due(now.marks, now.parcels, needed, now=trim.now, grace=trim.grace) & {*trees}

    delete(trim.channel, map(parcel_path, going), trim.remote.config.connections, end)
    remove_marks(trim.channel, [name])
    return now, going
