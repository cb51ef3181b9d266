"""A second S3 server, Ceph's radosgw, with one who may write a bucket and one who may only read it.

A monitor, an object store that keeps all in memory, and the gateway: from the packages ceph-mon, ceph-osd and
radosgw of a distribution. Nothing of a Ceph that the machine has is used.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import obstore
import pytest

from bench.object_storage import Bucket, free_ports

_PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
_PATIENCE = 90.0
_CONFIG = """\
[global]
fsid = {fsid}
mon host = {monitor}
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
ms mon client mode = crc
ms client mode = crc
ms service mode = crc
ms cluster mode = crc
ms mon service mode = crc
ms mon cluster mode = crc
run dir = {directory}
log file = {directory}/$name.log
mon cluster log file = {directory}/cluster.log
admin socket =
pid file =
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 0
osd objectstore = memstore
memstore device bytes = 2G
osd class dir = {library}/rados-classes
erasure code dir = {library}/ceph/erasure-code
plugin dir = {library}/ceph
[mon.a]
mon data = {directory}/mon
mon addr = {monitor}
[osd.0]
osd data = {directory}/osd
[client]
rgw frontends = beast endpoint=127.0.0.1:{port}
"""


@contextmanager
def radosgw(directory: Path) -> Iterator[Bucket]:
    """Run the gateway with an empty bucket for a ``with`` block; skips the test where it is not installed."""
    lacking = [name for name in _PROGRAMS if shutil.which(name) is None]
    libraries = glob.glob(f"{os.path.dirname(shutil.which('ceph-osd') or '/')}/../lib/*/rados-classes")
    if lacking or not libraries:
        pytest.skip(f"{', '.join(lacking) or 'rados-classes'} not installed: ceph-mon ceph-osd radosgw")
    directory.mkdir(parents=True)
    monitor, port = free_ports(2)
    fsid, address = str(uuid.uuid4()), f"v2:127.0.0.1:{monitor}"
    text = _CONFIG.format(
        fsid=fsid, monitor=address, directory=directory, port=port, library=os.path.dirname(libraries[0])
    )
    (directory / "ceph.conf").write_text(text)

    def run(*words: str) -> str:
        command = [words[0], "-c", "ceph.conf", *words[1:]]
        done = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout

    with ExitStack() as stack:

        def start(*words: str) -> None:
            with open(directory / f"{words[0]}.out", "wb") as out:
                command = [words[0], "-c", "ceph.conf", *words[1:], "-f"]
                server = subprocess.Popen(command, cwd=directory, stdout=out, stderr=out)
            stack.callback(server.wait)
            stack.callback(server.kill)

        (directory / "osd").mkdir()
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[{address}]", "monmap")
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap")
        start("ceph-mon", "-i", "a")
        identity = str(uuid.uuid4())
        run("ceph", "osd", "new", identity)
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity)
        start("ceph-osd", "-i", "0")
        run("ceph", "osd", "crush", "add", "osd.0", "1", "root=default", "host=here")
        writer = ("--uid", "writer", "--access-key", "writer", "--secret-key", "writer-secret")
        run("radosgw-admin", "user", "create", "--display-name", "writer", *writer)
        reader = ("--uid", "writer", "--subuser", "writer:reader")
        run("radosgw-admin", "subuser", "create", *reader, "--access", "read")
        keys = ("--key-type", "s3", "--access-key", "reader", "--secret-key", "reader-secret")
        run("radosgw-admin", "key", "create", *reader, *keys)
        start("radosgw", "-n", "client.admin")
        bucket = Bucket(f"http://127.0.0.1:{port}")
        _make_bucket(bucket)
        yield bucket


def _make_bucket(bucket: Bucket) -> None:
    """Make the bucket as soon as the server is up."""
    url = obstore.sign(bucket.store("writer"), "PUT", "", timedelta(minutes=5))
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            with urlopen(Request(url, data=b"", method="PUT"), timeout=10):  # noqa: S310 - loopback
                return
        except URLError:
            assert time.monotonic() < end, "radosgw does not come up"
            time.sleep(0.3)
