"""A mirror of a package index that has the wheels of one lock file, behind the same server as a bucket."""

from __future__ import annotations

import html
import os
import sys
from urllib.request import Request, urlopen

from bench.world import CommandFailed, Unavailable, World


def wheels(world: World, name: str) -> str:
    """Return the directory with the wheels of a lock file, downloaded once; raises Unavailable."""
    directory = os.path.join(world.work_dir, "wheels", name)
    if not os.path.isdir(directory):
        world.say(f"downloading the wheels of {name}, this once")
        words = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
            "--require-hashes", "--requirement", world.lock_file(name), "--dest", f"{directory}.part",
        ]  # fmt: skip
        try:
            world.run(words)
        except CommandFailed as error:
            raise Unavailable("no package index can be reached") from error
        os.rename(f"{directory}.part", directory)
    return directory


def fill(world: World, name: str, files: str) -> str:
    """Put the wheels of a lock file below the URL *files*; return the path of the page that lists them."""
    directory = wheels(world, name)
    names = sorted(os.listdir(directory))
    for each in names:
        with open(os.path.join(directory, each), "rb") as file:
            _put(f"{files}/mirror/{each}", file.read())
    page = "".join(f'<a href="{html.escape(each)}">{html.escape(each)}</a><br>\n' for each in names)
    _put(f"{files}/mirror/index.html", f"<!DOCTYPE html><html><body>\n{page}</body></html>\n".encode())
    return "/mirror/index.html"


def _put(url: str, data: bytes) -> None:
    kind = "text/html" if url.endswith(".html") else "application/octet-stream"
    request = Request(url, data=data, method="PUT", headers={"Content-Type": kind})  # noqa: S310 - loopback
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - see above
        answer.read()
