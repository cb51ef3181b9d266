"""Pushes and trims of one remote at once, in every order of their requests: no record ever lacks a parcel.

An actor is the product's own push or trim. It runs until it makes a request whose answer is not known yet,
and begins anew with one answer more when that request was served. So a state of the world is a bucket and,
for each actor, the answers that it got, and every state can be gone on from in every way.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from venvflow.disk.remote import transfers
from venvflow.disk.remote import worker as workers
from venvflow.disk.remote.channel import ChannelFailure
from venvflow.disk.remote.client import RemoteFailure, Stored
from venvflow.disk.remote.worker import _Worker
from venvflow.errors import EnvironmentFailure
from venvflow.model import Entry, Manifest, RemoteConfig, RemoteKeep, Snapshot, Tree
from venvflow.pure.expiry import (
    Mark,
    Parcel,
    WantedRecords,
    decode_mark,
    encode_mark,
    kind_of,
    plan_expiry,
)
from venvflow.pure.keys import make_key, snapshot_id
from venvflow.pure.manifest import make_tree
from venvflow.pure.parcels import parcel_path
from venvflow.pure.records import RemoteRecord, Trust, encode_record, record_path, seen
from venvflow.state import remote_contents, remote_marks, remote_push
from venvflow.state.remote import FORMAT, FORMAT_TEXT, Remote, RemoteDown, Signer
from venvflow.state.remote_contents import RemoteContents
from venvflow.state.remote_push import Push
from venvflow.steps import trim_remote as trims

GRACE, LIMIT, DAY = 3600, 1800, 86_400
START = 100.0 * DAY


# --------------------------------------------------------------------------- the world


class Bucket(NamedTuple):
    """What is there, each with the time at which it was written, and what time it is."""

    objects: Mapping[str, tuple[bytes, float]]
    now: float

    def put(self, path: str, data: bytes, written: float | None = None) -> Bucket:
        """Return the bucket with an object more."""
        return Bucket({**self.objects, path: (data, self.now if written is None else written)}, self.now)

    @property
    def key(self) -> object:
        """What tells it from others."""
        return frozenset(self.objects.items()), self.now


class Request(NamedTuple):
    """What an actor asks the bucket, and until when somebody waits for the answer."""

    do: str
    path: str = ""
    data: bytes = b""
    until: float = float("inf")


def served(request: Request, bucket: Bucket) -> tuple[Any, Bucket]:
    """Return the answer to a request, and the bucket after it."""
    do, path, data, until = request
    if do == "sleep":
        return None, bucket._replace(now=bucket.now + float(path))
    if bucket.now > until:
        return "late", bucket
    if do == "put":
        return None, bucket.put(path, data)
    if do == "delete":
        left = {name: each for name, each in bucket.objects.items() if name != path}
        return None, bucket._replace(objects=left)
    return _read(do, path, bucket.objects), bucket


def _read(do: str, path: str, objects: Mapping[str, tuple[bytes, float]]) -> Any:
    if do == "list":
        return tuple(
            Stored(name, len(data), written)
            for name, (data, written) in sorted(objects.items())
            if name.startswith(f"{path}/")
        )
    found = objects.get(path)
    if found is None or do == "get":
        return found
    return Stored(path, len(found[0]), found[1])


class Waiting(BaseException):
    """An actor has made a request that nobody has answered yet."""

    def __init__(self, request: Request) -> None:
        self.request = request


@dataclass
class Script:
    """The answers that the actor that is running has got so far."""

    name: str = ""
    answers: Sequence[Any] = ()
    given: int = 0
    until: float = float("inf")
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def ask(self, do: str, path: str = "", data: bytes = b"") -> Any:
        """Return the answer to a request."""
        if self.given == len(self.answers):
            raise Waiting(Request(do, path, data, self.until))
        answer = self.answers[self.given]
        self.given += 1
        if isinstance(answer, str) and answer == "late":
            raise ChannelFailure("late", "it took longer than it may")
        return answer

    def clock(self) -> float:
        """Return what time it is."""
        return float(self.ask("clock"))


SCRIPT = Script()


class _FakeClient:
    """What the worker sees of the bucket."""

    def whole(self, path: str, _most: int, _counted: object) -> tuple[Stored, bytes]:
        found = SCRIPT.ask("get", path)
        if found is None:
            raise RemoteFailure("absent", "it is not there")
        return Stored(path, len(found[0]), found[1]), found[0]

    def head(self, path: str) -> Any:
        return SCRIPT.ask("head", path)

    def put(self, path: str, data: bytes) -> None:
        SCRIPT.ask("put", path, data)

    def put_file(self, path: str, _file: str) -> int:
        SCRIPT.ask("put", path, b"parcel")
        return 6

    def listed(self, path: str) -> Iterator[Any]:
        yield SCRIPT.ask("list", path)

    def delete(self, path: str) -> None:
        SCRIPT.ask("delete", path)


class _FakeChannel:
    """The way to the bucket: the worker's own code, in this process."""

    silence = 10.0

    def ask(
        self,
        do: str,
        *,
        heard: Callable[[dict[str, Any]], object] = lambda _answer: None,
        within: float = float("inf"),
        **request: Any,
    ) -> Any:
        answers = SimpleNamespace(say=lambda **answer: heard(answer), count=lambda *_: None, moved=0)
        worker = _Worker(answers)  # type: ignore[arg-type]
        worker._client = _FakeClient()  # type: ignore[assignment]
        SCRIPT.until = SCRIPT.clock() + min(LIMIT, within)
        try:
            return getattr(worker, do)({**request, "connections": 1})
        except RemoteFailure as error:
            raise ChannelFailure(error.kind, str(error)) from error  # type: ignore[arg-type]

    def close(self) -> None:
        pass


def in_turn(do: Callable[[Any], Any], each: Iterable[Any], _most: int) -> list[Any]:
    """Do it for one after the other, in this thread; return what came of it."""
    return [do(one) for one in each]


# --------------------------------------------------------------------------- actors

TREES: list[Tree] = [make_tree(f"t{number}", "1", [Entry(f"d{number}", "dir")]) for number in range(4)]
A, B, C, D = (each.digest for each in TREES)
CONFIG = RemoteConfig(
    "memory://", mode="write", unsigned=True, limit=LIMIT, keep=RemoteKeep(max_age=30 * DAY, grace=GRACE)
)


def snapshot(name: str, *trees: str) -> Snapshot:
    """Return a snapshot of some trees."""
    key = make_key({"format": "1", "python": name})
    return Snapshot(snapshot_id(key.digest, None), key, trees, None, name, START, "", "", "3.12.4", 1, 1)


def record_of(made: Snapshot) -> bytes:
    """Return its record."""
    return encode_record(RemoteRecord(made, tuple(1 for _ in made.trees)), None)


def a_remote() -> Remote:
    """Return the remote as an actor has it."""
    remote = Remote(CONFIG, {}, "/nonexistent/store")
    remote._channels = [_FakeChannel()]  # type: ignore[list-item]
    return remote


Actor = Callable[[], object]


def pushing(made: Snapshot, scratch: Path, before: Snapshot | None = None) -> Actor:
    """Return the push of a snapshot; it answers whether the snapshot is there, as far as it knows."""

    def manifest(trees: Sequence[str]) -> Manifest:
        return Manifest(tuple(tree for tree in TREES if tree.digest in trees))

    store: Any = SimpleNamespace(path="/nonexistent/store", manifest=manifest)

    def act() -> object:
        push = Push(a_remote(), store, made, Signer("", None), str(scratch), lambda _done, _of: None, before)
        try:
            push.run()
        except RemoteDown as error:
            return str(error)
        return True

    return act


def trimming(*, times: int = 1) -> Actor:
    """Return a trim, or several with a grace between them, which does not pass at once."""

    def act() -> object:
        for number in range(times):
            for _ in range(3 if number else 0):
                SCRIPT.ask("sleep", str(GRACE / 2.5))
            try:
                trims.trim_remote(a_remote(), WantedRecords(), now=0)
            except EnvironmentFailure as error:
                return str(error)
        return True

    return act


# --------------------------------------------------------------------------- every order


class Seat(NamedTuple):
    """An actor in a state of the world: the answers that it got, and its next request, or how it ended."""

    answers: tuple[Any, ...]
    request: Request | None
    end: object = None


@dataclass
class Explorer:
    """Goes on from a state of the world in every way, and looks at every bucket that comes about.

    With *most*, it looks at so many states, which chance chooses.
    """

    actors: Sequence[Actor]
    kills: bool = False
    most: int = 0
    states: int = 0
    ends: set[tuple[object, ...]] = field(default_factory=set)
    last: list[Bucket] = field(default_factory=list)

    def run(self, bucket: Bucket) -> None:
        """Try every order of the actors' requests, from *bucket* on."""
        seats = []
        for number in range(len(self.actors)):
            bucket, seat = self._until_request(number, (), bucket)
            seats.append(seat)
        known = set()
        way: tuple[str, ...] = ()
        stack = [(bucket, tuple(seats), self.kills, way)]
        chance = Random(1)
        while stack and not 0 < self.most <= self.states:
            if self.most:
                one = chance.randrange(len(stack))
                stack[one], stack[-1] = stack[-1], stack[one]
            bucket, now, may_kill, way = stack.pop()
            key = (bucket.key, tuple((seat.answers, seat.end) for seat in now), may_kill)
            if key in known:
                continue
            known.add(key)
            self.states += 1
            sound(bucket, way)
            if all(seat.request is None for seat in now):
                self.ends.add(tuple(seat.end for seat in now))
                self.last.append(bucket)
                continue
            for number, seat in enumerate(now):
                if seat.request is None:
                    continue
                answer, after = served(seat.request, bucket)
                after, next_seat = self._until_request(number, (*seat.answers, answer), after)
                step = f"{number}: {seat.request.do} {seat.request.path[:30]}"
                others = (*now[:number], next_seat, *now[number + 1 :])
                stack.append((after, others, may_kill, (*way, step)))
                if may_kill:
                    dead = seat._replace(request=None, end="killed")
                    others = (*now[:number], dead, *now[number + 1 :])
                    stack.append((bucket, others, False, (*way, f"{number}: killed")))

    def wander(self, bucket: Bucket, chance: Random) -> None:
        """Try one order, by chance: an actor goes on for some requests, then perhaps another does."""
        seats = []
        for number in range(len(self.actors)):
            bucket, seat = self._until_request(number, (), bucket)
            seats.append(seat)
        way = []
        while at_work := [number for number, seat in enumerate(seats) if seat.request is not None]:
            number = chance.choice(at_work)
            for _ in range(chance.choice((1, 2, 5, 20, 80))):
                request = seats[number].request
                if request is None:
                    break
                answer, bucket = served(request, bucket)
                bucket, seats[number] = self._until_request(number, (*seats[number].answers, answer), bucket)
                way.append(f"{number}: {request.do} {request.path[:30]}")
                self.states += 1
                sound(bucket, way)
        self.ends.add(tuple(seat.end for seat in seats))

    def _until_request(self, number: int, answers: tuple[Any, ...], bucket: Bucket) -> tuple[Bucket, Seat]:
        """Let an actor run until it makes a request that is more than a look at the clock, or ends."""
        while True:
            SCRIPT.__init__(f"{number}", answers)  # type: ignore[misc]
            try:
                end = self.actors[number]()
            except Waiting as waiting:
                if waiting.request.do != "clock":
                    return bucket, Seat(answers, waiting.request)
                answers = (*answers, bucket.now)
            else:
                return bucket, Seat(answers, None, end)


def sound(bucket: Bucket, way: Sequence[str]) -> None:
    """Assert that every record that is there has all of its parcels."""
    for path, (data, written) in bucket.objects.items():
        if path.startswith("v1/records/"):
            record = seen(data, path.rpartition("/")[2], written, Trust({}, unsigned=True))
            missing = [tree for tree in record.trees or () if parcel_path(tree) not in bucket.objects]
            assert not missing, "\n".join([f"{record.venv} lacks {missing}", *way])


@pytest.fixture(autouse=True)
def virtual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing but the bucket have a clock, and marks have names that come again."""
    for module in (remote_push, trims, remote_contents):
        monkeypatch.setattr(module, "boot_seconds", SCRIPT.clock)
    monkeypatch.setattr(remote_push, "time", SimpleNamespace(time=SCRIPT.clock))

    def urandom(size: int) -> bytes:
        return f"{SCRIPT.name}{next(SCRIPT.numbers)}".encode().rjust(size, b"-")

    for module in (workers, transfers):
        monkeypatch.setattr(module, "at_once", in_turn)
    monkeypatch.setattr(remote_marks, "os", SimpleNamespace(urandom=urandom))
    monkeypatch.setattr(transfers.Sending, "_make", lambda _push, _digest, file: Path(file).write_bytes(b""))


def begun(
    *loose: str, records: Sequence[tuple[Snapshot, float]] = (), condemned: float | None = None
) -> Bucket:
    """Return a bucket with parcels that no record needs, perhaps condemned so long ago, and with records."""
    bucket = Bucket({}, START).put(FORMAT, FORMAT_TEXT, 0)
    for made, days in records:
        bucket = bucket.put(record_path(made.id), record_of(made), START - days * DAY)
    for tree in {*loose, *(tree for made, _ in records for tree in made.trees)}:
        bucket = bucket.put(parcel_path(tree), b"parcel", START - 50 * DAY)
    if condemned is not None:
        bucket = bucket.put(f"v1/gc/condemned-{'f' * 32}", encode_mark(loose), START - condemned)
    return bucket


ONE, TWO = snapshot("one", A), snapshot("two", A, B)
OLD = snapshot("old", A, C)


def test_a_push_beside_a_trim_that_deletes(tmp_path: Path) -> None:
    """What the push needs was condemned a grace ago: it is sent anew, or the push gives up."""
    explorer = Explorer([pushing(ONE, tmp_path), trimming()])
    explorer.run(begun(A, condemned=GRACE + 1))
    assert {end[0] is True for end in explorer.ends} == {True, False}
    assert all(end[1] is True for end in explorer.ends)
    assert explorer.states > 100


def asked_alone(actor: Actor, bucket: Bucket) -> list[tuple[str, str]]:
    """Return what an actor asks that nobody disturbs: what to do, and where."""
    explorer, found = Explorer([actor]), []
    bucket, seat = explorer._until_request(0, (), bucket)
    while seat.request is not None:
        found.append((seat.request.do, seat.request.path))
        answer, bucket = served(seat.request, bucket)
        bucket, seat = explorer._until_request(0, (*seat.answers, answer), bucket)
    assert seat.end is True
    return found


def test_what_the_record_before_needs_is_not_looked_for(tmp_path: Path) -> None:
    """It has all that it needs for as long as it is there; without it, all is looked for."""
    there = begun(records=[(ONE, 1)])
    heads = [path for do, path in asked_alone(pushing(TWO, tmp_path, ONE), there) if do == "head"]
    assert heads == [parcel_path(B)]
    for bucket, before in ((there, None), (there, snapshot("gone", A)), (begun(A), ONE)):
        heads = [path for do, path in asked_alone(pushing(TWO, tmp_path, before), bucket) if do == "head"]
        assert sorted(heads) == sorted([parcel_path(A), parcel_path(B)]), before


def test_where_something_is_amiss_all_is_looked_for(tmp_path: Path) -> None:
    """A record lacks a parcel, so the one before may, too: a push mends it."""
    whole = begun(records=[(TWO, 1), (ONE, 1)])
    left = {path: each for path, each in whole.objects.items() if path != parcel_path(A)}
    asked = asked_alone(pushing(TWO, tmp_path, ONE), whole._replace(objects=left))
    assert ("put", parcel_path(A)) in asked


@pytest.mark.slow
def test_the_record_before_may_go_meanwhile(tmp_path: Path) -> None:
    """A trim drops it, and deletes what it needed: that was condemned a grace ago, so it is sent anew."""
    explorer = Explorer([pushing(ONE, tmp_path, OLD), trimming()])
    bucket = begun(records=[(OLD, 40)])
    explorer.run(bucket.put(f"v1/gc/condemned-{'e' * 32}", encode_mark([A]), START - GRACE - 1))
    assert {end[0] is True for end in explorer.ends} == {True, False}


def careless(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Take one rule away."""
    if how == "a push counts what is condemned as there":
        monkeypatch.setattr(remote_push, "condemned_since", lambda _marks: {})
    elif how == "a push does not look again":
        monkeypatch.setattr(Push, "_give_up_late", lambda *_: None)
    elif how == "a trim does not look again":
        monkeypatch.setattr(trims, "look_into", once(remote_contents.look_into))
    elif how == "a trim does not say what it deletes":
        monkeypatch.setattr(trims, "write_mark", lambda _channel, _kind, _trees: "none")
        monkeypatch.setattr(trims, "time_of_mark", lambda _channel, _name: START)
    elif how == "a push forgets what it sent anew":
        monkeypatch.setattr(remote_push, "doomed", lambda _marks: set())


def once(look: Callable[..., Any]) -> Callable[..., Any]:
    """Return a look that, asked with what is known, answers with just that."""
    last: list[Any] = []

    def looked(remote: Remote, channel: Any, known: object = None, **how: Any) -> Any:
        if known is None:
            last[:] = [look(remote, channel, **how)]
        return last[0]

    return looked


@pytest.mark.parametrize(
    "how",
    [
        "a push counts what is condemned as there",
        "a push does not look again",
        "a push forgets what it sent anew",
        "a trim does not look again",
        "a trim does not say what it deletes",
    ],
)
def test_each_rule_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Without it, some order leaves a record that lacks a parcel: so this would be seen."""
    careless(monkeypatch, how)
    with pytest.raises(AssertionError, match="lacks"):
        Explorer([pushing(ONE, tmp_path), trimming()]).run(begun(A, condemned=GRACE + 1))


def test_what_is_condemned_is_looked_for_whatever_needed_it(tmp_path: Path) -> None:
    """Without that rule, some order leaves a record that lacks a parcel: so this would be seen."""
    act = pushing(ONE, tmp_path, OLD)

    def careless_push() -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Push, "_known", lambda _push, _channel, _there: {A: 1})
            return act()

    bucket = begun(records=[(OLD, 40)])
    bucket = bucket.put(f"v1/gc/condemned-{'e' * 32}", encode_mark([A]), START - GRACE - 1)
    with pytest.raises(AssertionError, match="lacks"):
        Explorer([careless_push, trimming()]).run(bucket)


@pytest.mark.slow
def test_either_may_be_killed(tmp_path: Path) -> None:
    """Between any two requests; an hour after, a trim and a push do all that is left."""
    explorer = Explorer([pushing(ONE, tmp_path), trimming()], kills=True)
    explorer.run(begun(A, C, condemned=GRACE + 1))
    assert ("killed", True) in explorer.ends
    assert (True, "killed") in explorer.ends
    ends = {bucket.key: bucket for bucket in explorer.last}
    for bucket in ends.values():
        later = bucket._replace(now=bucket.now + 2 * GRACE)
        for actor in (trimming(times=2), pushing(ONE, tmp_path)):
            (later,) = alone(actor, later)
        assert record_path(ONE.id) in later.objects
        assert parcel_path(C) not in later.objects
        assert not [path for path in later.objects if path.startswith("v1/gc/")]


def alone(actor: Actor, bucket: Bucket) -> list[Bucket]:
    """Return what an actor leaves that nobody disturbs."""
    explorer = Explorer([actor])
    explorer.run(bucket)
    assert explorer.ends == {(True,)}
    return explorer.last


@pytest.mark.slow
def test_a_push_of_what_is_there_beside_a_trim_that_drops_it(tmp_path: Path) -> None:
    """It is written again, or is gone: with it goes nothing that another record needs."""
    explorer = Explorer([pushing(OLD, tmp_path), trimming()])
    explorer.run(begun(records=[(OLD, 40), (ONE, 1)]))
    assert {record_path(OLD.id) in bucket.objects for bucket in explorer.last} == {True, False}
    assert all(record_path(ONE.id) in bucket.objects for bucket in explorer.last)


@pytest.mark.slow
@pytest.mark.parametrize("condemned", [(A,), (A, C)])
def test_forged_marks_take_nothing_that_is_needed(tmp_path: Path, condemned: tuple[str, ...]) -> None:
    """Whoever may write can condemn anything; a trim believes the records."""
    bucket = begun(records=[(OLD, 1)]).put(
        f"v1/gc/condemned-{'e' * 32}", encode_mark(condemned), START - 2 * GRACE
    )
    explorer = Explorer([pushing(ONE, tmp_path), trimming()])
    explorer.run(bucket)
    assert all(record_path(OLD.id) in bucket.objects for bucket in explorer.last)


@pytest.mark.slow
def test_nothing_goes_beside_what_cannot_be_read(tmp_path: Path) -> None:
    """A record of another version may need any parcel."""
    future = begun(A, C, condemned=2 * GRACE).put(f"v1/records/aa/{'a' * 64}", b"{}", START - DAY)
    explorer = Explorer([pushing(ONE, tmp_path), trimming()])
    explorer.run(future)
    assert all(parcel_path(tree) in bucket.objects for bucket in explorer.last for tree in (A, C))


def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the requests that nobody else can disturb or see: of the format, and of the mark of a run."""
    monkeypatch.setattr(trims, "_begun", lambda _channel: SCRIPT.clock())
    for module in (remote_push, remote_contents):
        monkeypatch.setattr(module, "has_format", lambda _channel: True)


@pytest.mark.slow
def test_a_push_beside_trims_a_grace_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes while they run: what a push saw before it was condemned stays as long as that may take."""
    brief(monkeypatch)
    explorer = Explorer([pushing(ONE, tmp_path), trimming(times=2)])
    explorer.run(begun(A))
    assert {end[0] is True for end in explorer.ends} == {True, False}
    assert ("it took longer than it may", True) in explorer.ends


@pytest.mark.parametrize("patience", [LIMIT, 10 * GRACE])
@pytest.mark.parametrize(
    "is_there",
    [
        pytest.param(True, marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
        pytest.param(False, marks=pytest.mark.slow),
    ],
)
def test_a_push_beside_trims_a_grace_apart_that_drop_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool, patience: int
) -> None:
    """Its own, or the one before; also where a request may take longer than any push."""
    brief(monkeypatch)
    monkeypatch.setitem(globals(), "LIMIT", patience)
    monkeypatch.setitem(globals(), "CONFIG", replace(CONFIG, limit=patience))
    push = pushing(OLD, tmp_path) if is_there else pushing(ONE, tmp_path, OLD)
    explorer = Explorer([push, trimming(times=2)])
    explorer.run(begun(records=[(OLD, 40)]))
    assert {end[0] is True for end in explorer.ends} == {True, False}
    assert ("it took longer than it may", True) in explorer.ends


@pytest.mark.parametrize(
    "times",
    [
        3,
        pytest.param(60, marks=pytest.mark.slow),
        pytest.param(3000, marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_pushes_beside_many_trims_with_records_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """What is there, what follows it, and something new, while trims go on for several graces: by chance."""
    brief(monkeypatch)
    monkeypatch.setitem(globals(), "LIMIT", 10 * GRACE)
    monkeypatch.setitem(globals(), "CONFIG", replace(CONFIG, limit=10 * GRACE))
    new = snapshot("new", B, D)
    actors = [
        pushing(OLD, tmp_path),
        pushing(ONE, tmp_path, OLD),
        pushing(new, tmp_path, TWO),
        trimming(times=4),
    ]
    explorer = Explorer(actors)
    for seed in range(times):
        explorer.wander(begun(D, records=[(OLD, 40), (TWO, 29.95)], condemned=GRACE / 2), Random(seed))
    assert times < 60 or {end[0] is True for end in explorer.ends} == {True, False}
    assert all(end[-1] is True for end in explorer.ends)


def deleting(bucket: Bucket) -> Actor:
    """Return a trim that has had its first look, when the bucket was as it begins, and goes on from there."""
    marks = [
        Mark(path.rpartition("/")[2], "condemned", written, decode_mark(data))
        for path, (data, written) in bucket.objects.items()
        if path.startswith("v1/gc/")
    ]
    there = {
        path.rpartition("/")[2]: Parcel(len(data), written)
        for path, (data, written) in bucket.objects.items()
        if path.startswith("v1/trees/")
    }
    plan = plan_expiry([], there, marks, CONFIG.keep, now=START, wanted=WantedRecords())
    assert plan.due

    def act() -> object:
        remote = a_remote()
        with remote.asking() as channel:
            trim = trims._Trim(remote, channel, START)
            trims._carried_out(trim, RemoteContents({}, there, marks), trims.RemoteTrimmed(plan, {}, 0))
        return True

    return act


def hasty(channel: Any, connections: int) -> list[Mark]:
    """Read the marks that are still there when they are read, as if the others had never been."""
    listed = channel.ask("list", path="v1/gc")["listed"]
    found = channel.ask("get", paths=[path for path, _, _ in listed], most=99_999, connections=connections)[
        "found"
    ]
    return [
        Mark(path, kind, written, decode_mark(base64.b64decode(found[path][0])))
        for path, _, written in listed
        if found[path] is not None and (kind := kind_of(path.rpartition("/")[2])) is not None
    ]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("is_hasty", [False, True])
def test_a_push_beside_two_trims_that_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_hasty: bool
) -> None:
    """One takes away the marks by which the other goes; a push that looks past that is seen to fail."""
    brief(monkeypatch)
    bucket = begun(A, condemned=GRACE + 1)
    most = 0 if is_hasty else 30_000  # there are too many of them all
    explorer = Explorer([pushing(ONE, tmp_path), deleting(bucket), deleting(bucket)], most=most)
    if is_hasty:
        monkeypatch.setattr(remote_push, "read_marks", hasty)
        with pytest.raises(AssertionError, match="lacks"):
            explorer.run(bucket)
    else:
        explorer.run(bucket)
        assert explorer.states == most


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_pushes_beside_a_trim_that_deletes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One relies on what the other has sent anew."""
    brief(monkeypatch)
    bucket = begun(A, condemned=GRACE + 1)
    other = snapshot("other", A)
    explorer = Explorer([pushing(ONE, tmp_path), pushing(other, tmp_path), deleting(bucket)])
    explorer.run(bucket)
    assert (True, True, True) in explorer.ends
