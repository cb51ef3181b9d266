"""Compiles sources to canonical bytecode; run by the interpreter that will read it (Python 3.8 or newer).

Not imported by venvflow: it is a script that stands alone. Lines of JSON come in on standard input, each
``[number, file, name]``: the source *file* is compiled under the *name* (its path relative to the venv)
and written to ``<number>.pyc`` in the directory given as the first argument. One line goes out for each:
``[number, true]``, or ``[number, false]`` for a source that does not compile.

The header carries the constant mtime (second argument, seconds) instead of the file's, and the name is
relative, so the same source gives the same bytes in every venv. Import puts the real path back.
"""

import importlib.util
import json
import marshal
import os
import sys


def main() -> None:
    """Answer each line of standard input."""
    directory, mtime = sys.argv[1], int(sys.argv[2])
    for line in sys.stdin:
        number, path, name = json.loads(line)
        done = translate(os.path.join(directory, f"{number}.pyc"), path, name, mtime)
        sys.stdout.write(json.dumps([number, done]) + "\n")
        sys.stdout.flush()


def translate(target: str, path: str, name: str, mtime: int) -> bool:
    """Compile one source; return whether it compiles."""
    with open(path, "rb") as file:
        source = file.read()
    try:
        code = compile(source, name, "exec", dont_inherit=True, optimize=0)
        body = marshal.dumps(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    header = importlib.util.MAGIC_NUMBER + bytes(4) + word(mtime) + word(len(source))
    with open(target, "wb") as file:
        file.write(header + body)
    return True


def word(number: int) -> bytes:
    """Return *number* as the header of a .pyc has it (PEP 552)."""
    return (number & 0xFFFFFFFF).to_bytes(4, "little")


if __name__ == "__main__":
    main()
