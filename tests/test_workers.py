"""Steps in processes: several venvs at once on several cores, and nothing that one process did less well."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path

import pytest
from contents import needs_proc
from flows import World
from scenario import Machine, Project, finished, wait_until
from test_locks import holder, needs_proc_locks

from venvflow.disk import locks
from venvflow.errors import EnvironmentFailure, Refused
from venvflow.pure.plan import VERBS
from venvflow.pure.signing import encode_secret, public_of, secret_key
from venvflow.step_worker import Orders, _Steps
from venvflow.workers import _HOST, Workers

SECRET = encode_secret(bytes(32))
NOTED = 'echo "$PPID" > parent; while test ! -e go; do sleep 0.02; done'
"""Says which process runs it, and waits to be told to go on."""


def build_of(name: str) -> list[list[str]]:
    """Return the builder of a venv, which waits as NOTED does."""
    return [
        ["{python}", "-I", "-m", "venv", "--without-pip", "{venv}"],
        ["sh", "-c", f"cd {name}; {NOTED}"],
    ]


@pytest.fixture
def project(machine: Machine) -> Project:
    """Give a project of three venvs, each of which is built when its directory has a file ``go``."""
    project = machine.project("p", {})
    names = ("a", "b", "c")
    project.configure({name: {"build": build_of(name)} for name in names})
    for name in names:
        (project.root / name).mkdir()
        (project.root / name / "requirements.txt").write_text(f"# {name}\n")
    return project


def parents(project: Project) -> list[int]:
    """Return the processes that build now, or have built."""
    texts = [path.read_text() for path in sorted(project.root.glob("*/parent"))]
    return [int(text) for text in texts if text.endswith("\n")]


def go(project: Project, *names: str) -> None:
    """Let builds of these venvs end."""
    for name in names:
        (project.root / name / "go").touch()


def stat_of(pid: int) -> list[str]:
    """Return what the kernel says of a process: its state, its parent, and so on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", "0"]


def is_there(pid: int) -> bool:
    """Return whether a process runs."""
    return stat_of(pid)[0] not in ("Z", "X")


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(each) for each in os.listdir("/proc") if each.isdigit() and stat_of(int(each))[1] == str(pid)]


def test_venvs_are_worked_on_in_as_many_processes_as_asked_for(project: Project) -> None:
    """One of them is doit's own, so that one venv alone needs no other; all end with the run."""
    run = project.start("-n", "2")
    wait_until(lambda: len(parents(project)) == 2)
    time.sleep(0.1)
    first, second = parents(project)
    assert first != second
    assert run.pid in (first, second)
    go(project, "a", "b", "c")
    end = finished(run)
    assert (end.code, end.err) == (0, ""), end
    assert len(set(parents(project))) == 2
    wait_until(lambda: not any(map(is_there, parents(project))))
    assert project.doit("-n", "2").nothing_to_do


def remote_at(place: Path) -> dict[str, object]:
    """Return what a config says of a remote that has nothing yet."""
    place.mkdir()
    return {"url": f"file://{place}", "mode": "read", "keys": {"main": public_of(secret_key(SECRET))}}


def test_what_is_not_in_the_remote_is_built_in_as_many_processes(project: Project) -> None:
    """Only what asks the remote stays in one."""
    names = ("a", "b", "c")
    builds = {name: {"build": build_of(name)} for name in names}
    remote = remote_at(project.root / "bucket")
    project.configure(builds, store={"durability": "none", "remote": remote})
    run = project.start("-n", "2")
    wait_until(lambda: len(parents(project)) == 2)
    time.sleep(0.1)
    assert len({*parents(project), run.pid}) == 2
    go(project, *names)
    end = finished(run)
    assert (end.code, end.err) == (0, ""), end
    assert project.doit("-n", "2").nothing_to_do


def test_a_worker_that_is_killed_fails_its_step_alone(project: Project) -> None:
    """As when memory runs out: the run says so, does the rest, and the next one finishes the job."""
    run = project.start("-n", "2")
    wait_until(lambda: len(parents(project)) == 2)
    worker = next(pid for pid in parents(project) if pid != run.pid)
    os.kill(worker, signal.SIGKILL)
    go(project, "a", "b", "c")
    end = finished(run)
    assert end.code == EnvironmentFailure.exit_code, end
    assert f"the process that worked on it (pid {worker}) was ended (out of memory?)" in end.err
    assert end.err.count("\n") == 1
    assert "1 failed, 3 not run because of that" in end.out
    again = project.doit("-n", "2")
    assert (again.code, again.err) == (0, "")
    assert project.doit().nothing_to_do
    assert not list(project.machine.root.rglob(".vf-*"))


def test_workers_end_with_a_run_that_is_killed(project: Project) -> None:
    """Whoever kills doit gets rid of all of it."""
    run = project.start("-n", "3")
    wait_until(lambda: len(parents(project)) == 3)
    run.send_signal(signal.SIGKILL)
    finished(run)
    wait_until(lambda: not any(map(is_there, parents(project))))


@needs_proc
def test_workers_end_with_a_run_that_is_killed_after_their_host(project: Project) -> None:
    """With what they have started: nobody waits for them, and the next run would wait for their locks."""
    run = project.start("-n", "3")
    wait_until(lambda: len(parents(project)) == 3)
    workers = [pid for pid in parents(project) if pid != run.pid]
    builders = {pid for worker in workers for pid in children(worker)}
    (host,) = {int(stat_of(pid)[1]) for pid in workers}
    os.kill(host, signal.SIGKILL)
    wait_until(lambda: not is_there(host))
    assert all(map(is_there, workers))
    run.send_signal(signal.SIGKILL)
    finished(run)
    wait_until(lambda: not any(map(is_there, {*workers, *builders})))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_lets_its_workers_clean_up(project: Project, number: signal.Signals) -> None:
    """And says so in one line."""
    run = project.start("-n", "3")
    wait_until(lambda: len(parents(project)) == 3)
    run.send_signal(number)
    end = finished(run)
    assert (end.code, end.err.count("\n")) == (-number, 1), end
    assert not list(project.machine.root.rglob(".vf-*"))
    assert not any(map(is_there, parents(project)))


def test_a_module_of_the_project_is_not_taken_for_one_of_pythons(project: Project) -> None:
    """Doit lets a dodo.py import what lies beside it; by then it has imported its own."""
    for name in ("contextlib", "importlib", "typing"):
        (project.root / f"{name}.py").write_text(
            f"open({str(project.root / 'ran')!r}, 'w')\nraise SystemExit\n"
        )
    go(project, "a", "b", "c")
    end = project.doit("-n", "3")
    assert end.err == ""
    assert not (project.root / "ran").exists()
    assert len(set(parents(project))) > 1


# --------------------------------------------------------------------------- without doit


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give a project with two venvs that nothing is done for."""
    world = World(tmp_path, tmp_path)
    world.configure({"api": {}, "web": {}})
    for name in ("api", "web"):
        world.lock(name, world.wheel("alpha"))
    return world


@pytest.fixture
def workers(world: World) -> Iterator[Workers]:
    """Give workers, of which the one that is this process is busy."""
    made = Workers(world.flow(), VERBS)
    here = made._all[0]
    here.lock.acquire()
    yield made
    here.lock.release()
    made.close()


def test_a_venv_comes_back_to_the_process_that_knows_it(workers: Workers) -> None:
    """And a process that knows nothing is there for any venv."""
    assert not workers.do("hash-lockfiles", "api").keeps
    assert not workers.do("hash-lockfiles", "web").keeps
    (worker,) = workers._all[1:]
    assert workers.do("restore", "api").values["did"] == "miss"
    assert workers.do("build-venv", "api").keeps
    assert worker.venv == "api"
    assert workers._flow.at_work == {"api"}
    workers.do("restore", "web")
    assert len(workers._all) == 3
    assert workers.do("squish", "api").values["did"] == "squished"
    assert not workers.do("store", "api").keeps
    assert workers._flow.at_work == set()
    assert len(workers._all) == 3


def test_what_a_step_cannot_know_is_raised_here_with_its_traceback(workers: Workers) -> None:
    """A fault of ours in a worker is seen as one; the next step has another process."""
    with pytest.raises(RuntimeError, match=r"(?s)in the process of api:.*Traceback.*No module named"):
        workers.do("no-such-step", "api")
    assert workers.do("hash-lockfiles", "api").values["did"] == "new"


def test_an_expected_error_is_what_it_is_anywhere(world: World, workers: Workers) -> None:
    """With its message, and its exit code."""
    (world.root / "api" / "requirements.txt").unlink()
    failure = workers.do("hash-lockfiles", "api").failure
    assert failure is not None
    assert (failure.exit_code, failure.what in failure.message) == (3, True)


@needs_proc_locks
def test_what_a_worker_says_reaches_the_run(world: World) -> None:
    """Who waits for what, and how far a step is."""
    flow = world.flow(VENVFLOW_LOCK_TIMEOUT=str(locks.NOTICE_AFTER + 0.5))
    workers = Workers(flow, VERBS)
    try:
        with workers._all[0].lock, holder(flow.job("api").file("lock")) as child:
            workers.do("hash-lockfiles", "api")
            failure = workers.do("restore", "api").failure
            assert failure is not None
            assert f"pid {child.pid} (" in failure.message
            assert any("waiting for the venv api, which is locked by pid" in text for text in world.said)
        with workers._all[0].lock:
            for verb in ("restore", "build-venv"):
                workers.do(verb, "api")
        assert str(flow.job("api").meter)
    finally:
        workers.close()


def test_who_waits_for_a_worker_is_told_the_command_of_its_run(
    world: World, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's own command line says nothing to anybody."""
    for verb in ("hash-lockfiles", "restore", "build-venv"):
        workers.do(verb, "api")
    (claim,) = (world.store / "locks").glob("key-*")
    monkeypatch.setattr(locks, "kin", set())  # as another run sees it
    assert str(locks.holder(str(claim))).endswith("(test)")


def test_a_step_that_waits_for_a_build_lets_the_idle_publish_it(world: World) -> None:
    """What would publish it may wait for the very thread that waits."""
    world.lock("web", world.wheel("alpha"))
    flow = world.flow(VENVFLOW_LOCK_TIMEOUT="30")
    workers = Workers(flow, VERBS)
    try:
        for verb in ("hash-lockfiles", "restore", "build-venv"):
            workers.do(verb, "api")  # here: nobody else is at work
        assert workers._all[0].venv == "api"
        for verb in ("hash-lockfiles", "restore", "build-venv"):
            answer = workers.do(verb, "web")  # there
        assert answer.values["did"] == "hit"
        assert not workers.do("store", "api").keeps
    finally:
        workers.close()


def test_what_is_given_up_is_known_when_a_step_begins(world: World) -> None:
    """Not when the process was made that does it: a change by hand after that is not lost."""
    world.run("api")
    flow = world.flow()
    flow.given_up.add("api")
    workers = Workers(flow, VERBS)
    try:
        workers._all[0].lock.acquire()
        workers.do("hash-lockfiles", "web")
        flow.given_up.clear()
        next(Path(flow.job("api").place.path).glob("lib/*/site-packages")).joinpath("mine.py").touch()
        world.lock("api", world.wheel("beta"))
        for given_up, codes in ((set[str](), [Refused.exit_code]), ({"api"}, [])):
            flow.given_up = given_up
            answers = [workers.do(verb, "api") for verb in ("hash-lockfiles", "restore", "build-venv")]
            assert [each.failure.exit_code for each in answers if each.failure is not None][:1] == codes
    finally:
        workers.close()


def test_what_comes_from_a_remote_starts_no_process(world: World, tmp_path: Path) -> None:
    """What is known of a remote, and the connections to it, are those of one process."""
    world.configure({"api": {}, "web": {}}, store={"path": "../store", "remote": remote_at(tmp_path / "r")})
    workers = Workers(world.flow(), VERBS)
    with workers._all[0].lock:
        for verb in ("hash-lockfiles", "restore"):
            assert workers.do(verb, "api").failure is None
    assert workers._host is None
    workers.close()


def test_threads_of_a_worker_say_one_thing_after_the_other(world: World) -> None:
    """However much each has to say: compilers tell how far they are while a step answers."""
    ours, theirs = Pipe()
    flow = world.flow()
    orders = Orders(os.getpid(), flow.config, {}, (), frozenset(), frozenset())
    steps = _Steps(theirs, orders)
    words = [str(number) * 40_000 for number in range(4)]

    def say(text: str) -> None:
        for _ in range(50):
            steps._send("say", text)

    threads = [threading.Thread(target=say, args=(text,)) for text in words]
    for thread in threads:
        thread.start()
    heard = Counter(ours.recv() for _ in range(200))
    for thread in threads:
        thread.join()
    assert heard == {("say", text): 50 for text in words}


def test_few_idle_processes_keep_what_they_know(world: World) -> None:
    """Of a large venv that is megabytes; a venv that lost it goes on all the same."""
    names, before = [f"v{number}" for number in range(7)], {*threading.enumerate()}
    world.configure({name: {} for name in names})
    for number, name in enumerate(names):
        world.lock(name, world.wheel("alpha", f"1.{number}"))
    workers = Workers(world.flow(), VERBS)
    try:
        with workers._all[0].lock:
            for name in names:
                for verb in ("hash-lockfiles", "restore", "build-venv"):
                    assert workers.do(verb, name).failure is None
            assert len([each for each in workers._all if each.venv]) <= 5
            for name in names:
                assert workers.do("squish", name).failure is None
                assert workers.do("store", name).values["did"] == "stored"
    finally:
        workers.close()
    assert {*threading.enumerate()} <= before


def test_where_no_process_can_be_made_one_does_it_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is full of processes is slow, and no more than that."""
    monkeypatch.setattr("venvflow.workers._HOST", "raise SystemExit")
    workers = Workers(world.flow(), VERBS)
    try:
        with workers._all[0].lock:
            for verb in ("hash-lockfiles", "restore", "build-venv", "squish", "store"):
                assert workers.do(verb, "api").failure is None
        assert workers.do("restore", "api").values["did"] == "kept"
    finally:
        workers.close()


FORK_FAILS = (
    "import itertools, os; fork, forks = os.fork, itertools.count();"
    "os.fork = lambda: os.read(-1, 1) if next(forks) == 1 else fork();"
)
"""Lets the second process not come."""


def test_a_process_that_cannot_be_made_costs_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes them is still there: for the next one, and to end those that are there."""
    monkeypatch.setattr("venvflow.workers._HOST", FORK_FAILS + _HOST)
    workers = Workers(world.flow(), VERBS)
    try:
        with workers._all[0].lock:
            assert workers.do("hash-lockfiles", "api").failure is None
            with workers._all[1].lock:
                assert workers.do("hash-lockfiles", "web").failure is None  # here
                assert workers.do("restore", "web").failure is None  # in a third
            assert [each.has_ended for each in workers._all] == [False] * 3
        assert workers._host is not None
        assert workers._host.poll() is None
    finally:
        workers.close()


def test_what_was_built_here_instead_is_published_for_whom_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process is bound to such a venv."""
    monkeypatch.setattr("venvflow.workers._HOST", FORK_FAILS + _HOST)
    world.lock("web", world.wheel("alpha"))
    workers = Workers(world.flow(VENVFLOW_LOCK_TIMEOUT="5"), VERBS)
    try:
        with workers._all[0].lock:
            for name in ("api", "web"):
                for verb in ("hash-lockfiles", "restore"):
                    workers.do(verb, name)
            (worker,) = workers._all[1:]
            with worker.lock:
                assert workers.do("build-venv", "api").keeps
        worker.venv = "web"
        assert workers.do("build-venv", "web").values["did"] == "hit"
    finally:
        workers.close()


def test_where_no_more_files_can_be_open_one_process_does_it_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs fewer of them."""

    def socketpair() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("venvflow.workers.socket.socketpair", socketpair)
    workers = Workers(world.flow(), VERBS)
    with workers._all[0].lock:
        assert workers.do("hash-lockfiles", "api").failure is None
    workers.close()
