"""The remote of a store: what it has for a key, what of that is missing here, and what it is given.

Nothing of it is believed that was not checked: a record by its signature, a tree by its name, an object by
its own. Whatever goes wrong there is a miss here, with the reason.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, NamedTuple

from venvflow.disk.files import read_small, write_whole
from venvflow.disk.kernel import cores
from venvflow.disk.remote.channel import Channel, ChannelFailure, ask_each, decoded
from venvflow.errors import EnvironmentFailure, UsageError, shown
from venvflow.model import RemoteConfig
from venvflow.pure import decoding
from venvflow.pure.ci import KEY, KEY_FILE, Access, access_of
from venvflow.pure.decoding import Corrupt
from venvflow.pure.keys import snapshot_id
from venvflow.pure.parcels import shared_out
from venvflow.pure.records import (
    LARGEST,
    Disbelieved,
    RemoteRecord,
    Trust,
    judged,
    record_path,
)
from venvflow.pure.redaction import redactor, secrets_of
from venvflow.pure.signing import NotKey, public_key, public_of, secret_key

_READERS = 2
"""Processes that read parcels at a time: each takes up to 90 MB of memory."""

_PAUSE = 60.0
"""Seconds for which no run on this machine asks a remote again that could not be reached."""

FORMAT = "v1/format"
FORMAT_TEXT = b'{"format": 1}\n'
"""What the first push writes there.

Who can read it, and is denied something else, knows that that is not there.
"""

_AHEAD = 100
"""Venvs whose records are asked for at once."""

_SMALL = 128 << 10
"""Bytes of a record that is asked for with others: what is larger comes alone."""

_FRESH = 10.0
"""Seconds for which it is believed that no record is there: others push meanwhile."""

_NETWORK = ("unreachable", "silent", "late")

Progress = Callable[[int, int], object]


class RemoteDown(Exception):
    """The remote cannot be used now; the text says why.

    *told*: somebody has said so, in this run, or in an *earlier* one, which was a moment ago.
    """

    def __init__(self, text: str, *, told: bool = False, earlier: bool = False) -> None:
        super().__init__(text)
        self.told, self.earlier = told, earlier


class Lookup(NamedTuple):
    """A record that is believed, or why there is none: *reason*. *doubt* is what must not be overlooked.

    *written* is when the record was, by the clock of the server.
    """

    record: RemoteRecord | None
    reason: str = ""
    doubt: str = ""
    written: float = 0.0


class Standing(NamedTuple):
    """A record that is there, as *data* at *path*: believed, or why not: *doubt*.

    *written* is when it was, by the clock of the server.
    """

    path: str
    data: bytes
    written: float
    record: RemoteRecord | None
    doubt: str = ""


class _Known(NamedTuple):
    """What was *there* for a key, as path, place, bytes and time of each record, at the moment *at*."""

    at: float
    there: Sequence[tuple[str, str | None, bytes, float]]

    def is_fresh(self) -> bool:
        """Return whether it is still to be believed: one that was there is looked at anyway."""
        return bool(self.there) or time.monotonic() < self.at + _FRESH


def _paths(key: str, places: Iterable[str | None]) -> dict[str, str | None]:
    """Return where the records for a key digest lie, each with its place."""
    return {record_path(snapshot_id(key, place)): place for place in places}


class Signer(NamedTuple):
    """Who vouches for what is pushed: name and *secret* key (None: nobody)."""

    issuer: str
    secret: bytes | None


@dataclass(eq=False)
class Remote:
    """A project's remote, for as long as a process lives. Who fetches has its *turn*."""

    config: RemoteConfig
    environ: Mapping[str, str]
    store: str
    _down: str = ""
    _channels: list[Channel] = field(default_factory=list, repr=False)
    _ahead: dict[tuple[str, str], _Known] = field(default_factory=dict, repr=False)
    _asked: set[tuple[str, str]] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        self._mutex = threading.Lock()
        self.turn = threading.Lock()
        self._hide = redactor(secrets_of(self.environ))

    # ------------------------------------------------------------------- who may do what

    @property
    def access(self) -> Access:
        """Return what this run may do."""
        return access_of(self.config, self.environ)

    def trust(self) -> Trust:
        """Return whose records are believed."""
        keys = {name: public_key(text) for name, text in self.config.keys.items()}
        return Trust(keys, self.config.unsigned, self.config.not_before)

    def signer(self) -> Signer:
        """Return who vouches for what this run pushes; raises UsageError for a key that nobody believes.

        Raises EnvironmentFailure where what signs is not installed.
        """
        refuse_without_libraries()
        secret = self._signing_key()
        if secret is None:
            return Signer("", None)
        public = public_of(secret)
        issuer = next((name for name, text in self.config.keys.items() if text == public), "")
        if not issuer:
            raise UsageError(
                "the signing key belongs to none of the keys in the config, so nobody would believe it",
                where="store.remote.keys",
                hint=f"Put its public key there: {public}",
            )
        return Signer(issuer, secret)

    def _signing_key(self) -> bytes | None:
        """Return the secret key of the environment, None if there is none."""
        text, where = self.environ.get(KEY, ""), KEY
        if not text and (path := self.environ.get(KEY_FILE)):
            where = KEY_FILE
            try:
                text = read_small(path).decode("ascii", "replace")
            except OSError as error:
                raise UsageError(
                    f"the signing key cannot be read: {error.strerror}",
                    where=shown(path),
                    hint=f"See {KEY_FILE}.",
                ) from error
        if not text:
            return None
        try:
            return secret_key(text)
        except NotKey as error:
            raise UsageError(
                str(error), where=where, hint='"venvflow keygen NAME" makes one that is.'
            ) from error

    # ------------------------------------------------------------------- asking

    def channel(self) -> Channel:
        """Return the way to the remote, made when it is first asked; raises EnvironmentFailure."""
        return self._ways(1)[0]

    def _ways(self, count: int) -> list[Channel]:
        """Return so many ways to the remote, of which each has a process of its own."""
        while len(self._channels) < count:
            refuse_without_libraries()
            options = {"endpoint": self.config.endpoint, "region": self.config.region}
            channel = Channel(
                self.config.url,
                {key: value for key, value in options.items() if value},
                _environment(self.environ),
                silence=self.config.silence,
                limit=self.config.limit,
            )
            self._channels.append(channel)
        return self._channels[:count]

    def read_parcels(
        self,
        do: Literal["pull", "verify"],
        trees: Sequence[tuple[str, int]],
        heard: Callable[[dict[str, Any]], object],
        **request: Any,
    ) -> None:
        """Let all parcels of *trees*, each with its plain size, be read: by two processes, if they are large.

        *heard* is told what comes of each. Raises ChannelFailure and EnvironmentFailure.
        """
        shares = shared_out(trees, min(_READERS, cores(), self.config.connections))
        each = self.config.connections // len(shares)
        requests = [
            (way, {"do": do, "trees": share, "prefix": f"r{number}-", "connections": each, **request})
            for number, (way, share) in enumerate(zip(self._ways(len(shares)), shares, strict=True))
        ]
        ask_each(requests, heard=heard)

    @contextmanager
    def asking(self) -> Iterator[Channel]:
        """Give the way to the remote; whatever fails there raises RemoteDown, and is remembered.

        Raises EnvironmentFailure where this machine cannot take what comes.
        """
        if self._down:
            raise RemoteDown(self._down, told=True)
        if left := self._pause_left():
            text = f"it could not be reached a moment ago, and is asked again in {left:.0f} s"
            raise RemoteDown(text, told=True, earlier=True)
        try:
            channel = self.channel()
        except EnvironmentFailure as error:  # the config is for others, too, who have what talks to it
            self._down = f'{error.what}; install "venvflow[remote]", or set VENVFLOW_REMOTE=off'
            raise RemoteDown(self._down) from error
        try:
            yield channel
        except ChannelFailure as error:
            text = self._hide(shown(str(error)))
            if error.kind == "local":
                raise EnvironmentFailure(
                    f"what came from the remote cannot be written: {text}",
                    where=shown(self.store),
                    state="The store and the venvs are as they were.",
                    hint="Make room, or fix its permissions, then run again.",
                ) from error
            self._down = f"the credentials do not allow it ({text})" if error.kind == "denied" else text
            if error.kind in _NETWORK:
                self._pause()
            raise RemoteDown(self._down) from error

    def _pause_file(self) -> str:
        return f"{self.store}/locks/remote"

    def _pause(self) -> None:
        text = json.dumps({"at": self._server, "until": boot_seconds() + _PAUSE})
        with suppress(OSError):
            write_whole(self._pause_file(), text.encode("ascii"))

    @property
    def _server(self) -> list[str]:
        return [self.config.url, self.config.endpoint]

    def _pause_left(self) -> float:
        """Return for how many seconds more nobody on this machine asks the remote."""
        try:
            found = decoding.parse(read_small(self._pause_file()))
            left = found["until"] - boot_seconds()
        except (OSError, Corrupt, TypeError, KeyError):
            return 0.0
        # After a new start of the machine the clock begins anew.
        return left if found.get("at") == self._server and 0 < left <= _PAUSE else 0.0

    # ------------------------------------------------------------------- pull

    def find(
        self, key: str, position: str, others: Callable[[], Iterable[tuple[str, str]]] = tuple
    ) -> Lookup:
        """Return the record for a key digest: one for any place, or one that is bound to *position*.

        *others* gives what is looked for soon, too: it is asked for at the same time, and kept until then.
        Raises RemoteDown and EnvironmentFailure.
        """
        asked = key, position
        with self._mutex:
            known = self._ahead.pop(asked, None)
            if known is None or not known.is_fresh():
                with self.asking() as channel:
                    if known is None:
                        new = (each for each in others() if each not in self._asked)
                        self._look_ahead(channel, {asked, *islice(new, _AHEAD)}, _SMALL)
                    if asked not in self._ahead:
                        self._look_ahead(channel, {asked}, LARGEST)
                known = self._ahead.pop(asked)
        found = self._judged(key, known.there)
        best = next((each for each in found if each.record is not None), None)
        if best is not None:
            return Lookup(best.record, written=best.written)
        doubts = [f"a snapshot for this key is there, and not believed: {each.doubt}" for each in found]
        return Lookup(None, doubts[0] if doubts else "no snapshot for this key", "".join(doubts[:1]))

    def _look_ahead(self, channel: Channel, asked: Collection[tuple[str, str]], most: int) -> None:
        """Ask for the records of key digests and positions; keep what is there of up to *most* bytes."""
        self._asked.update(asked)
        paths = {each: _paths(each[0], (None, each[1])) for each in asked}
        there = self._records(channel, [path for each in paths.values() for path in each], most)
        for each, own in paths.items():
            records = [(path, place, *there[path]) for path, place in own.items() if path in there]
            if most == LARGEST or all(len(data) <= most for _, _, data, _ in records):
                self._ahead[each] = _Known(time.monotonic(), records)

    def judged(self, channel: Channel, key: str, places: Iterable[str | None]) -> list[Standing]:
        """Return what is there for a key digest at *places*, each believed or not; raises ChannelFailure."""
        paths = _paths(key, places)
        there = self._records(channel, list(paths), LARGEST)
        return self._judged(key, [(path, paths[path], *found) for path, found in there.items()])

    def _records(self, channel: Channel, paths: Sequence[str], most: int) -> dict[str, tuple[bytes, float]]:
        """Return what is there of records at *paths*, and when it was written; raises ChannelFailure.

        Of what has more than *most* bytes, there is one byte more.
        """
        answer = channel.ask("get", paths=paths, most=most, connections=self.config.connections)
        self._check_rights(channel, answer["denied"])
        found = ((path, answer["found"][path]) for path in paths)
        return {path: (decoded(each[0]), each[1]) for path, each in found if each is not None}

    def _judged(self, key: str, there: Iterable[tuple[str, str | None, bytes, float]]) -> list[Standing]:
        trust, found = self.trust(), []
        for path, place, data, written in there:
            try:
                found.append(Standing(path, data, written, judged(data, trust, key=key, place=place)))
            except Disbelieved as error:
                found.append(Standing(path, data, written, None, str(error)))
        return found

    @staticmethod
    def _check_rights(channel: Channel, denied: Mapping[str, str]) -> None:
        """Raise ChannelFailure if what was *denied* may not be read; it may only not be there.

        Of what is not there, S3 says so to who may not list: then the format of the remote can be read.
        """
        if denied and channel.ask("get", paths=[FORMAT], most=LARGEST, connections=1)["denied"]:
            raise ChannelFailure("denied", next(iter(denied.values())))

    def there(self, asked: Sequence[tuple[str, str]]) -> dict[str, bool]:
        """Return for each key digest, asked with a position, whether there is a record; raises RemoteDown."""
        paths = {
            record_path(snapshot_id(key, place)): key for key, position in asked for place in (None, position)
        }
        with self.asking() as channel:
            answer = channel.ask("head", paths=list(paths), connections=self.config.connections)
            self._check_rights(channel, answer["denied"])
        found = {path for path, head in answer["heads"].items() if head is not None}
        return {key: any(paths[path] == key for path in found) for key, _ in asked}

    def close(self) -> None:
        """End the processes that talk to the remote."""
        for channel in self._channels:
            channel.close()


@contextmanager
def using(remote: Remote, state: str) -> Iterator[Channel]:
    """Give the way to a remote that has to be there; raises EnvironmentFailure, with the *state* of all."""
    try:
        with remote.asking() as channel:
            yield channel
    except RemoteDown as error:
        hint = "Check the network and the rights of the credentials, then run again: it goes on."
        if remote.config.url.startswith(("http:", "https:")):
            hint = "Most mirrors do not list what they have: ask the bucket or the directory behind it."
        raise EnvironmentFailure(
            f"the remote {shown(remote.config.url)} cannot be used: {error}",
            where="store.remote",
            state=state,
            hint=hint,
        ) from error


def has_format(channel: Channel) -> bool:
    """Return whether something was ever written there; raises ChannelFailure for another format."""
    found = channel.ask("get", paths=[FORMAT], most=LARGEST, connections=1)["found"][FORMAT]
    text = decoded(found[0]) if found is not None else b""
    if text not in (FORMAT_TEXT, b""):
        raise ChannelFailure("unusable", "another version of venvflow has written it")
    return bool(text)  # a power cut may leave it empty


def refuse_without_libraries(
    state: str = "Nothing was fetched or sent.", otherwise: str = ", or set VENVFLOW_REMOTE=off"
) -> None:
    """Raise EnvironmentFailure if what talks to remotes is not installed; *otherwise* ends the hint."""
    from importlib.util import find_spec  # noqa: PLC0415 - for projects with a remote only

    lacking = [name for name in ("obstore", "cryptography") if find_spec(name) is None]
    if lacking:
        raise EnvironmentFailure(
            f"a remote needs what is not installed: {' and '.join(lacking)}",
            where="store.remote",
            state=state,
            hint=f'Install "venvflow[remote]"{otherwise}.',
        )


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the process that talks to the remote may see: credentials, and no key to sign with."""
    return {name: value for name, value in environ.items() if name not in (KEY, KEY_FILE)}


def boot_seconds() -> float:
    """Return what time it is on a clock that nobody sets, and that goes on while a machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
