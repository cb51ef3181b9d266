"""Runs ``python -m MODULE …`` and writes down the most memory that its process used, without children's.

Started as a file, with its own name out of the way: ``python bench/peak.py OUTPUT MODULE ARGUMENT…``.
Only the standard library is met here, and little of it: what is imported counts.
"""

from __future__ import annotations

import atexit
import runpy
import sys


def peak_bytes() -> int:
    """Return the largest resident size of this process since it was started.

    Linux says it per address space. ``getrusage``, used elsewhere, would count what the parent had before
    this program was executed in its place.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    import resource  # noqa: PLC0415 - where it is not needed it would be measured too

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _note(path: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(f"{peak_bytes()}\n")


if __name__ == "__main__":
    output, module = sys.argv[1:3]
    sys.argv[:] = [module, *sys.argv[3:]]
    sys.path[0] = ""
    atexit.register(_note, output)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
