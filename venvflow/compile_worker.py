"""Compiles sources to canonical bytecode; run by the interpreter that will read it (Python 3.8 or newer).

Not imported by venvflow: it is a script that stands alone. When it is ready it says so on one line. Lines
of JSON come in on standard input, each ``[number, file, name, mtime]``: the source *file* is compiled under
the *name* (its path relative to the venv) and written to ``<number>.pyc`` in the directory given as the first
argument. One number goes out for each: :data:`DONE`, :data:`FAULTY` for a source that does not compile,
or else an errno, plus one. A source that overflows the stack ends the process.

The header carries that *mtime* (seconds) instead of the file's, and the name is relative, so the same source
gives the same bytes in every venv. Import puts the real path back.

Whoever starts this sets ``PYTHONHASHSEED=0``: before Python 3.11 sets are written in order of hashes. Those
that hold None stay undecided there, because its hash is an address.
"""

import sys

del sys.path[0]  # Our own directory: what is imported below must be the standard library's.

import errno  # noqa: E402
import importlib.util  # noqa: E402
import json  # noqa: E402
import marshal  # noqa: E402
import os  # noqa: E402
import stat  # noqa: E402
import types  # noqa: E402

DONE, FAULTY = 0, 1


def main() -> None:
    """Answer each line of standard input."""
    directory = sys.argv[1]
    answer("ready")
    for line in sys.stdin.buffer:
        number, path, name, mtime = json.loads(line)
        answer(str(outcome(os.path.join(directory, f"{number}.pyc"), path, name, mtime)))


def answer(text: str) -> None:
    """Say one line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def outcome(target: str, path: str, name: str, mtime: int) -> int:
    """Compile one source; return what is to be answered."""
    try:
        return DONE if translate(target, path, name, mtime) else FAULTY
    except OSError as error:
        return (error.errno or errno.EIO) + 1


def translate(target: str, path: str, name: str, mtime: int) -> bool:
    """Compile one source; return whether it compiles."""
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it may be a FIFO by now
    with open(reading, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        source = file.read()
    try:
        body = dumped(compile(source, name, "exec", dont_inherit=True, optimize=0))
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError, SystemError):
        return False
    header = importlib.util.MAGIC_NUMBER + bytes(4) + word(mtime) + word(len(source))
    with open(target, "wb") as file:
        file.write(header + body)
    return True


def dumped(code: types.CodeType) -> bytes:
    """Return *code* as bytes that do not depend on what this process compiled before.

    marshal marks the objects that somebody else refers to, so a name that happens to be known already
    would be written in another way. While *held* refers to all of them, all are marked.
    """
    held = []  # type: ignore[var-annotated] # anything that can be a constant
    hold(code, held)
    return marshal.dumps(code)


def hold(value: object, held: list) -> None:  # type: ignore[type-arg] # Python 3.8 cannot read list[object]
    """Append *value* and everything in it to *held*."""
    held.append(value)
    if isinstance(value, (tuple, frozenset)):
        for item in value:
            hold(item, held)
    elif isinstance(value, types.CodeType):
        for name in ("consts", "names", "varnames", "freevars", "cellvars", "filename", "name", "qualname"):
            hold(getattr(value, "co_" + name, None), held)
    elif isinstance(value, slice):
        hold((value.start, value.stop, value.step), held)


def word(number: int) -> bytes:
    """Return *number* as the header of a .pyc has it (PEP 552)."""
    return (number & 0xFFFFFFFF).to_bytes(4, "little")


if __name__ == "__main__":
    main()
