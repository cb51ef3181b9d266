"""A kernel without Linux's extras: what other POSIX systems, old kernels and sandboxes are.

:func:`hide` takes them from this process and from all that it starts. System calls answer as if the kernel
did not know them (a seccomp filter does that), Python has not the names that it has on Linux only, and
``/proc`` is empty, if we may mount something there. There is no way back.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import shutil
import struct

_CALLS = {
    "x86_64": (0xC000003E, {"ioctl": 16, "fcntl": 72, "posix_fadvise": 221, "syncfs": 306, "renameat2": 316,
                            "memfd_create": 319, "copy_file_range": 326, "pidfd_open": 434}),
    "aarch64": (0xC00000B7, {"ioctl": 29, "fcntl": 25, "posix_fadvise": 223, "syncfs": 267, "renameat2": 276,
                             "memfd_create": 279, "copy_file_range": 285, "pidfd_open": 434}),
}  # fmt: skip
_REQUESTS = {
    "fcntl": ([10, 1024, 1025], errno.EINVAL),  # F_SETSIG, F_SETLEASE, F_GETLEASE
    "ioctl": ([0x40049409, 0x4020940D, 0xC0189436], errno.ENOTTY),  # FICLONE, FICLONERANGE, FIDEDUPERANGE
}
_OF_LINUX = {
    fcntl: ["F_SETLEASE", "F_GETLEASE", "F_SETSIG", "F_GETSIG", "F_NOTIFY"],
    os: ["copy_file_range", "posix_fadvise", "memfd_create", "pidfd_open", "sched_getaffinity",
         "SEEK_DATA", "SEEK_HOLE", "listxattr", "getxattr", "setxattr", "removexattr"],
}  # fmt: skip

_NUMBER, _ARCHITECTURE, _SECOND_ARGUMENT = 0, 4, 24  # where a filter finds them
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000


left = ""
"""What could not be hidden, and why."""


def hide() -> None:
    """Hide all of it, or note what is :data:`left`."""
    global left  # noqa: PLW0603 - there is one process
    for module, names in _OF_LINUX.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    shutil._copyxattr = lambda *_args, **_options: None  # type: ignore[attr-defined] # it asked for the names before
    left = "; ".join(filter(None, [_hide_proc(), _hide_calls()]))


def _hide_proc() -> str:
    library = ctypes.CDLL(None, use_errno=True)
    namespace, private, recursive = 0x20000, 1 << 18, 1 << 14
    if (
        library.unshare(namespace)
        or library.mount(b"none", b"/", None, private | recursive, None)
        or library.mount(b"none", b"/proc", b"tmpfs", 0, b"size=4k")
    ):
        return f"/proc is there: {os.strerror(ctypes.get_errno())}"
    return ""


def _hide_calls() -> str:
    if platform.machine() not in _CALLS:
        return f"the system calls are there: their numbers on {platform.machine()} are not known"
    program = _filter(*_CALLS[platform.machine()])
    code = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    library = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, seccomp, filtered = 38, 22, 2
    if os.geteuid() != 0:
        library.prctl(no_new_privileges, 1, 0, 0, 0)
    if library.prctl(seccomp, filtered, header, 0, 0):
        return f"the system calls are there: {os.strerror(ctypes.get_errno())}"
    return ""


def _filter(architecture: int, numbers: dict[str, int]) -> bytes:
    """Return a program that lets the calls with these *numbers* fail, or some of their requests."""
    code = [(_LOAD, 0, 0, _ARCHITECTURE), (_IF_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _ALLOW)]
    for name, number in numbers.items():
        requests, error = _REQUESTS.get(name, ([], errno.ENOSYS))
        refuse = [(_RETURN, 0, 0, _FAIL | error)]
        body = [(_LOAD, 0, 0, _SECOND_ARGUMENT)] if requests else refuse
        for request in requests:
            body += [(_IF_EQUAL, 0, 1, request), *refuse]
        if requests:
            body.append((_RETURN, 0, 0, _ALLOW))
        code += [(_LOAD, 0, 0, _NUMBER), (_IF_EQUAL, 0, len(body), number), *body]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *line) for line in code)
