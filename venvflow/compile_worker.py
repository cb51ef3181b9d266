"""Compiles sources to canonical bytecode; run by the interpreter that will read it (Python 3.8 or newer).

Not imported by venvflow: it is a script that stands alone. When it is ready it says so on one line. Lines
of JSON come in on standard input, each ``[number, file, digest, name, mtime]``: the source *file*, if it has
the SHA-256 *digest* (empty: any), is compiled under the *name* (its path relative to the venv) and written to
``<number>.pyc`` in the directory given as the first argument. A second one is the descriptor of the directory
below which files are named, where they are not named from the root: it may get another name. One line goes
out for each, in their order: :data:`DONE` with SHA-256 and size of what was written, :data:`FAULTY` for a
source that does not compile, :data:`CHANGED` for one that has another SHA-256, or else an errno, plus one. A
source that overflows the stack ends the process.

The header carries that *mtime* (seconds) instead of the file's, and the name is relative, so the same source
gives the same bytes in every venv. Import puts the real path back.

Whoever starts this sets ``PYTHONHASHSEED=0``: before Python 3.11 sets are written in order of hashes. Those
that hold None stay undecided there, because its hash is an address.
"""

import sys

del sys.path[0]  # Our own directory: what is imported below must be the standard library's.

import errno  # noqa: E402
import hashlib  # noqa: E402
import importlib.util  # noqa: E402
import json  # noqa: E402
import marshal  # noqa: E402
import os  # noqa: E402
import stat  # noqa: E402
import types  # noqa: E402

DONE, FAULTY, CHANGED = 0, 1, -1


def main() -> None:
    """Answer each line of standard input."""
    directory, *home = sys.argv[1:]
    for number in home:
        os.fchdir(int(number))
    answer("ready")
    for line in sys.stdin.buffer:
        number, path, digest, name, mtime = json.loads(line)
        answer(outcome(os.path.join(directory, f"{number}.pyc"), path, digest, name, mtime))


def answer(text: str) -> None:
    """Say one line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def outcome(target: str, path: str, digest: str, name: str, mtime: int) -> str:
    """Compile one source; return what is to be answered."""
    try:
        source = content(path)
        if digest not in ("", hashlib.sha256(source).hexdigest()):
            return str(CHANGED)
        made = translated(source, name, mtime)
        if not made:
            return str(FAULTY)
        with open(target, "wb") as file:
            file.write(made)
    except OSError as error:
        return str((error.errno or errno.EIO) + 1)
    return f"{DONE} {hashlib.sha256(made).hexdigest()} {len(made)}"


def content(path: str) -> bytes:
    """Return the bytes of a source."""
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it may be a FIFO by now
    with open(reading, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return file.read()


def translated(source: bytes, name: str, mtime: int) -> bytes:
    """Return the bytecode of a source; nothing if it does not compile."""
    try:
        body = dumped(compile(source, name, "exec", dont_inherit=True, optimize=0))
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError, SystemError):
        return b""
    return importlib.util.MAGIC_NUMBER + bytes(4) + word(mtime) + word(len(source)) + body


def dumped(code: types.CodeType) -> bytes:
    """Return *code* as bytes that do not depend on what this process compiled before.

    marshal marks the objects that somebody else refers to, so a name that happens to be known already
    would be written in another way. While *held* refers to all of them, all are marked.
    """
    held = []  # type: ignore[var-annotated] # anything that can be a constant
    hold(code, held)
    return marshal.dumps(code)


def hold(code: types.CodeType, held: list) -> None:  # type: ignore[type-arg] # Python 3.8 cannot read list[object]
    """Append *code* and everything in it to *held*."""
    codes = [code]
    for each in codes:  # it grows
        held += (each, each.co_consts, each.co_filename, each.co_name, getattr(each, "co_qualname", None))
        for names in (each.co_names, each.co_varnames, each.co_freevars, each.co_cellvars):
            held.append(names)
            held += names
        for value in each.co_consts:
            held.append(value)
            if isinstance(value, types.CodeType):
                codes.append(value)
            elif isinstance(value, (tuple, frozenset, slice)):
                hold_parts(value, held)


def hold_parts(value: object, held: list) -> None:  # type: ignore[type-arg] # as above
    """Append everything in a constant that has parts to *held*."""
    parts = (value.start, value.stop, value.step) if isinstance(value, slice) else value
    for part in parts:  # type: ignore[attr-defined] # a tuple or frozenset
        held.append(part)
        if isinstance(part, (tuple, frozenset, slice)):
            hold_parts(part, held)


def word(number: int) -> bytes:
    """Return *number* as the header of a .pyc has it (PEP 552)."""
    return (number & 0xFFFFFFFF).to_bytes(4, "little")


if __name__ == "__main__":
    main()
