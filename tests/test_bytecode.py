"""Canonical bytecode: the same bytes wherever and whenever it is made, and used where it lies."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import marshal
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import CodeType

import pytest
from contents import time_of
from pythons import BASE, bare_venv, interpreters
from tiers import first_quick

from venvflow import interrupts
from venvflow.disk import bytecode
from venvflow.disk.bytecode import Bytecode, Compiling, Source, compile_sources, pyc_path
from venvflow.disk.scan import Changing
from venvflow.errors import EnvironmentFailure
from venvflow.model import Interpreter
from venvflow.pure.manifest import source_of

pytestmark = pytest.mark.programs

TEXT = """'''A module.'''
import os
NUMBERS = {1, 2.5, "three", b"four"}
def where():
    '''Return the path that this was loaded from.'''
    def inner(x, *, key="value"):
        return x in {"alpha", "beta", "gamma", "delta"}, key, NUMBERS, -1
    return inner.__code__.co_filename
class Thing:
    name: str = "-"
    def fail(self):
        raise RuntimeError(self.name)
"""


def interpreter(python: str = BASE) -> Interpreter:
    """Return what the compiler needs to know of an interpreter."""
    return Interpreter(python, os.path.dirname(python), "cpython", "3", "abi", "linux", "tag", "magic")


def compiled(directory: Path, texts: dict[str, bytes], python: str = BASE) -> dict[str, bytes | None]:
    """Compile sources, by their path below a venv at *directory*; return the bytecode of each."""
    sources = []
    for path, text in texts.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
        sources.append(Source(hashlib.sha256(text).hexdigest(), path, str(file)))
    target = directory / "made"
    target.mkdir()
    made = compile_sources(interpreter(python), sources, str(target))
    assert list(made) == sources
    found = {source.path: Path(each.file).read_bytes() if each else None for source, each in made.items()}
    said = {source.path: (each.digest, each.size) for source, each in made.items() if each}
    assert said == {
        path: (hashlib.sha256(data).hexdigest(), len(data)) for path, data in found.items() if data
    }
    return found


@pytest.mark.parametrize("minor", first_quick(sorted(interpreters())))
def test_bytecode_does_not_depend_on_the_place_or_on_what_was_compiled_before(
    minor: str, tmp_path: Path
) -> None:
    """Two venvs, the sources in another order and company, one or two processes: the same bytes."""
    texts = {f"lib/m{number}.py": TEXT.replace("-", chr(97 + number)).encode() for number in range(24)}
    python = interpreters()[minor]
    one = compiled(tmp_path / "one", texts, python)
    other = compiled(tmp_path / "a much longer place/é", dict(reversed(texts.items())), python)
    alone = compiled(tmp_path / "alone", {"lib/m3.py": texts["lib/m3.py"]}, python)
    assert one == other
    assert alone["lib/m3.py"] == one["lib/m3.py"]
    assert None not in one.values()
    assert not any(str(tmp_path).encode() in (data or b"") for data in one.values())


def test_objects_that_somebody_else_knows_are_written_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marshal alone would mark them; what a process has compiled before must leave no trace."""
    monkeypatch.setattr(sys, "path", ["dropped", *sys.path])
    dumped = runpy.run_path(bytecode._WORKER)["dumped"]

    def code() -> CodeType:
        return compile(
            "a_rare_name = 'no name', (b'1', 2.5), f'{a:>7}'\ndef f(x): y = x; return y\n", "m", "exec"
        )

    alone, known = code(), code()
    constants = [*known.co_consts, *known.co_names, known.co_filename]
    inner = [
        item for constant in constants if isinstance(constant, CodeType) for item in constant.co_varnames
    ]
    assert marshal.dumps(alone) != marshal.dumps(known)
    assert dumped(alone) == dumped(known)
    assert marshal.loads(dumped(alone)) == alone  # noqa: S302 - our own bytes
    assert inner == ["x", "y"]


@pytest.mark.parametrize("minor", first_quick(sorted(interpreters())))
def test_bytecode_is_used_and_speaks_of_the_real_path(minor: str, tmp_path: Path) -> None:
    """Import accepts it for a source with the time of its content, and tracebacks name the real file."""
    python = interpreters()[minor]
    venv = bare_venv(tmp_path / "my venv", python)
    path = f"lib/python{minor}/site-packages/module.py"
    Path(venv, path).write_text(TEXT)
    time = time_of(TEXT.encode())
    os.utime(f"{venv}/{path}", ns=(time, time))
    data = compiled(tmp_path / "elsewhere", {path: TEXT.encode()}, python)[path]
    tag = "cpython-" + minor.replace(".", "")
    pyc = Path(venv, pyc_path(path, tag))
    pyc.parent.mkdir()
    pyc.write_bytes(data or b"")
    code = "import module; print(module.where()); print(module.__spec__.cached); module.Thing().fail()"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [f"{venv}/bin/python", "-v", "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [f"{venv}/{path}", str(pyc)]
    assert f"{pyc} matches {venv}/{path}" in done.stderr
    assert f'File "{venv}/{path}", line 12, in fail' in done.stderr
    assert pyc.read_bytes() == data


def test_the_header_is_that_of_a_timestamp_that_follows_from_the_source(tmp_path: Path) -> None:
    """Magic number, no flags, a time, size of the source."""
    data = compiled(tmp_path, {"m.py": b"x = 1\n"})["m.py"] or b""
    mtime = (time_of(b"x = 1\n") // 10**9).to_bytes(4, "little")
    assert data[:16] == importlib.util.MAGIC_NUMBER + bytes(4) + mtime + (6).to_bytes(4, "little")


@pytest.mark.parametrize("minor", first_quick(sorted(interpreters())))
def test_sources_that_do_not_compile_do_no_harm(minor: str, tmp_path: Path) -> None:
    """Wrong syntax, wrong encodings, NULs and nesting that overflows the stack; the rest is compiled."""
    faulty = {
        "syntax.py": b"def f(:\n",
        "latin.py": b"x = '\xe9'\n",
        "cookie.py": b"# coding: no-such-codec\nx = 1\n",
        "nul.py": b"x = 1\0\n",
        "python2.py": b"print 'x'\n",
        "parens.py": b"(" * 5000 + b")" * 5000 + b"\n",
        "indent.py": b"if 1:\nx\n",
    }
    sound = {
        "empty.py": b"",
        "latin-cookie.py": b"# -*- coding: latin-1 -*-\nx = '\xe9'\n",
        "bom.py": b"\xef\xbb\xbfx = '\xc3\xa9'\n",
        "dos.py": b"x = 1\r\ny = 2\r\n",
        "warns.py": b"x = '\\d' is 'a'\n",
        "odd \udcff\n'\".py": b"x = 1\n",
    }
    deep = {"minus.py": b"-" * 200_000 + b"1\n", "attributes.py": b"x" + b".x" * 200_000 + b"\n"}
    texts = {**deep, **faulty, **sound, **{f"more{n}.py": b"x = %d\n" % n for n in range(20)}}
    made = compiled(tmp_path, texts, interpreters()[minor])
    assert {path for path, data in made.items() if data is None} - set(deep) == set(faulty)


CRASHING = """#!{python}
import os, signal, sys
marker = sys.argv[0]
print("ready", flush=True)
for line in sys.stdin:
    if "crash" in line:
        os.kill(os.getpid(), signal.{signal})
    print({answer}, flush=True)
"""


def fake(tmp_path: Path, text: str, **words: object) -> Interpreter:
    """Return an interpreter that does what a script says instead of running the worker."""
    script = tmp_path / "python"
    script.write_text(text.format(python=sys.executable, **words))
    script.chmod(0o700)
    return interpreter(str(script))


def sources(*names: str) -> list[Source]:
    """Return sources that a fake interpreter does not look at."""
    return [Source("0" * 64, name, name) for name in names]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL"])
def test_a_source_that_crashes_the_compiler_counts_as_faulty(name: str, tmp_path: Path) -> None:
    """Also if it is the first one, and if several follow each other; the others are still done."""
    python = fake(tmp_path, CRASHING, signal=name, answer="'0 ab 7'")
    asked = sources("crash1", "crash2", "a", "crash3", "b", *map(str, range(14)))
    made = compile_sources(python, asked, "/made")
    assert {source.path: each for source, each in made.items()} == {
        source.path: None if "crash" in source.path else Bytecode(f"/made/{number}.pyc", "ab", 7)
        for number, source in enumerate(asked)
    }


SLOW = """#!{python}
import os, sys, time
print("ready", flush=True)
for _ in sys.stdin:
    with open({log!r}, "w") as file:
        print(os.getsid(0), file=file)
    time.sleep(600)
"""


def test_a_compiler_is_not_for_the_terminal_and_waiting_for_it_can_be_interrupted(tmp_path: Path) -> None:
    """Ctrl-C is for us: it would look like a compiler that was killed; other threads are told of it."""
    log = tmp_path / "log"
    python = fake(tmp_path, SLOW, log=str(log))
    raised = threading.Event()

    def work() -> None:
        try:
            with interrupts.working():
                compile_sources(python, sources("a"), "/made")
        except KeyboardInterrupt:
            raised.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not (log.exists() and log.read_text()):
        time.sleep(0.01)
    with contextlib.suppress(KeyboardInterrupt), interrupts.raised():
        signal.raise_signal(signal.SIGINT)
    interrupts.exit_code()
    assert raised.wait(30)
    session = int(log.read_text())
    assert session != os.getsid(0)
    wait_until_gone(session)  # it does not go on behind our back


def wait_until_gone(process: int) -> None:
    """Wait until there is no such process; one that stays is killed, and an error."""
    with contextlib.suppress(ProcessLookupError):
        for _ in range(3000):
            os.kill(process, 0)
            time.sleep(0.01)
        os.kill(process, signal.SIGKILL)
        pytest.fail("the compiler is still there")


def test_when_who_waits_for_bytecode_fails_nothing_is_written_any_more(tmp_path: Path) -> None:
    """The compiler is killed, and what it was asked for is not done; the failure is the one of the block."""
    log = tmp_path / "log"
    python = fake(tmp_path, SLOW, log=str(log))

    def fail() -> None:
        while not (log.exists() and log.read_text()):
            time.sleep(0.01)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Compiling(python, sources(*"ab"), "/made"):
        fail()
    wait_until_gone(int(log.read_text()))


@pytest.mark.programs
def test_the_directory_of_sources_may_get_another_name_meanwhile(tmp_path: Path) -> None:
    """A venv is put in its place while what it got is compiled: its files are found all the same."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "made").mkdir()
    files = [f"m{number}.py" for number in range(60)]
    for number, name in enumerate(files):
        (home / name).write_text(f"x = {number}\n")
    digests = [hashlib.sha256((home / name).read_bytes()).hexdigest() for name in files]
    asked = [Source(digest, name, name) for digest, name in zip(digests, files, strict=True)]
    with Compiling(interpreter(), asked, str(tmp_path / "made"), workers=1, home=str(home)) as compiling:
        home.rename(tmp_path / "elsewhere")
        made = compiling.result()
    absolute = [each._replace(file=str(tmp_path / "elsewhere" / each.path)) for each in asked]
    (tmp_path / "again").mkdir()
    again = compile_sources(interpreter(), absolute, str(tmp_path / "again"))
    compiled = [[each.digest for each in found.values() if each] for found in (made, again)]
    assert compiled[0] == compiled[1]
    assert len(compiled[0]) == len(asked)


def test_a_source_with_other_bytes_has_no_bytecode(tmp_path: Path) -> None:
    """It was edited since it was read: all venvs that have what it was would get this; a filled one may."""
    (tmp_path / "a.py").write_text("x = 1\n")
    source = Source(hashlib.sha256(b"x = 2\n").hexdigest(), "a.py", str(tmp_path / "a.py"))
    with pytest.raises(Changing, match=r"a\.py"):
        compile_sources(interpreter(), [source], str(tmp_path))
    assert not list(tmp_path.glob("*.pyc"))
    filled = source._replace(filled=True)
    assert compile_sources(interpreter(), [filled], str(tmp_path))[filled]


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_worker_that_is_killed_is_an_error(name: str, tmp_path: Path) -> None:
    """It says nothing about the source, which must not be remembered as one that does not compile."""
    python = fake(tmp_path, CRASHING, signal=name, answer=1)
    number = getattr(signal, name).value
    with pytest.raises(EnvironmentFailure, match=f"cannot compile: it ended with status -{number}") as caught:
        compile_sources(python, sources("a", "crash", *map(str, range(50))), "/made")
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho hello\n", "#!/no/such/interpreter\n"]
)
def test_an_interpreter_that_cannot_run_is_an_error(text: str, tmp_path: Path) -> None:
    """No source is called faulty for it."""
    with pytest.raises(EnvironmentFailure, match=r"cannot (?:compile|run)"):
        compile_sources(fake(tmp_path, text), sources("a"), "/made")


def test_an_interpreter_that_is_gone_is_an_error() -> None:
    """The message names it."""
    with pytest.raises(EnvironmentFailure, match="cannot run /no/where/python: No such file"):
        compile_sources(interpreter("/no/where/python"), sources("a"), "/made")


def test_bytecode_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    """A full disk or a vanished source is no reason to call a source faulty."""
    (tmp_path / "a.py").write_text("x = 1\n")
    source = Source(hashlib.sha256(b"x = 1\n").hexdigest(), "a.py", str(tmp_path / "a.py"))
    with pytest.raises(FileNotFoundError):
        compile_sources(interpreter(), [source], str(tmp_path / "no/such/directory"))
    with pytest.raises(FileNotFoundError, match="gone"):
        compile_sources(interpreter(), [source._replace(file=str(tmp_path / "gone.py"))], str(tmp_path))
    full = fake(tmp_path, CRASHING, signal="SIGKILL", answer=errno.ENOSPC + 1)
    with pytest.raises(OSError, match="No space left") as caught:
        compile_sources(full, sources("a"), "/made")
    assert caught.value.errno == errno.ENOSPC


def test_nothing_to_compile_starts_nothing() -> None:
    """Not even an interpreter that is not there."""
    assert compile_sources(interpreter("/no/where"), [], "/made") == {}


def test_the_environment_of_the_user_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables for Python, and modules that shadow the standard library, are not seen."""
    plain = compiled(tmp_path / "plain", {"m.py": TEXT.encode()})
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap/json.py").write_text("raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path / "trap")
    for name, value in {
        "PYTHONPATH": str(tmp_path / "trap"),
        "PYTHONOPTIMIZE": "2",
        "PYTHONHASHSEED": "7",
    }.items():
        monkeypatch.setenv(name, value)
    assert compiled(tmp_path / "odd", {"m.py": TEXT.encode()}) == plain


def test_modules_beside_the_worker_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own modules may be called like one of the standard library."""
    shutil.copy(bytecode._WORKER, tmp_path / "worker.py")
    (tmp_path / "json.py").write_text("raise SystemExit(9)\n")
    monkeypatch.setattr(bytecode, "_WORKER", str(tmp_path / "worker.py"))
    assert compiled(tmp_path / "v", {"m.py": b"x = 1\n"})["m.py"]


@pytest.mark.parametrize("path", ["lib/a.py", "a.py", "lib/x.y.py", "lib/__init__.py"])
def test_bytecode_lies_where_import_looks_for_it(path: str) -> None:
    """As the standard library says, and so that its source can be told again."""
    assert pyc_path(path, "cpython-312") == importlib.util.cache_from_source(path).replace(
        sys.implementation.cache_tag or "", "cpython-312"
    )
    assert source_of(pyc_path(path, "cpython-312")) == path


def test_the_number_of_processes_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for a few sources, never more than asked for; else one for each core, eight at most."""
    started: list[str] = []
    real = bytecode._start

    def start(interpreter_: Interpreter, directory: str, home: int | None) -> subprocess.Popen[bytes]:
        started.append(directory)
        return real(interpreter_, directory, home)

    monkeypatch.setattr(bytecode, "_start", start)
    python = fake(tmp_path, CRASHING, signal="SIGKILL", answer=1)
    cases = ((1, 2, 1, 4), (19, 2, 1, 4), (200, 2, 2, 4), (200, 1, 1, 4), (200, 0, 3, 3), (200, 0, 8, 64))
    for count, workers, most, cores in cases:
        started.clear()
        monkeypatch.setattr(bytecode, "cores", lambda cores=cores: cores)
        made = compile_sources(python, sources(*map(str, range(count))), "/made", workers=workers)
        assert len(made) == count
        assert 1 <= len(started) <= most
