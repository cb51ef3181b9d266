"""A real S3 server on loopback, SeaweedFS, with one who may write a bucket and one who may only read it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from obstore.exceptions import GenericError
from obstore.store import S3Store

from bench.world import Unavailable

BUCKET = "fleet"
_PATIENCE = 60.0


@dataclass(frozen=True)
class Bucket:
    """A bucket at an *endpoint*; both identities have secrets made of their names.

    *files* is where the same server serves what lies beside the bucket by plain HTTP, to everybody. *pid* is
    the server's process.
    """

    endpoint: str
    files: str = ""
    pid: int = 0

    def environ(self, who: str) -> dict[str, str]:
        """Return the credentials of ``writer`` or ``reader``, as a job gets them."""
        return {"AWS_ACCESS_KEY_ID": who, "AWS_SECRET_ACCESS_KEY": f"{who}-secret"}

    def store(self, who: str, *, endpoint: str = "") -> S3Store:
        """Return the bucket as *who* sees it, at another *endpoint* if one is given."""
        return S3Store(
            BUCKET,
            endpoint=endpoint or self.endpoint,
            region="us-east-1",
            access_key_id=who,
            secret_access_key=f"{who}-secret",
            client_options={"allow_http": True, "timeout": "10s"},
            retry_config={"max_retries": 0},
        )


@contextmanager
def seaweedfs(directory: str, environ: Mapping[str, str] | None = None) -> Iterator[Bucket]:
    """Run a server with an empty bucket for a ``with`` block, all in *directory*; raises Unavailable."""
    weed = shutil.which("weed", path=os.path.dirname(sys.executable))
    if weed is None:
        raise Unavailable("SeaweedFS is not installed: it comes with the group tools")
    os.makedirs(f"{directory}/data")
    identities = [
        {"name": who, "credentials": [{"accessKey": who, "secretKey": f"{who}-secret"}], "actions": may}
        for who, may in (
            ("writer", ["Admin", "Read", "List", "Write"]),
            ("reader", [f"Read:{BUCKET}", f"List:{BUCKET}"]),
        )
    ]
    with open(f"{directory}/s3.json", "w", encoding="ascii") as file:
        json.dump({"identities": identities}, file)
    ports = dict(zip(("master", "volume", "filer", "s3"), free_ports(4), strict=True))
    words = [
        weed, "server", f"-dir={directory}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
        f"-s3.config={directory}/s3.json", "-master.telemetry=false", "-metricsPort=0", "-s3.port.iceberg=0",
        "-s3.port.lance=0", "-volume.max=100", "-master.volumeSizeLimitMB=512",
        *(f"-{part}.port={port}" for part, port in ports.items()),
    ]  # fmt: skip
    with open(f"{directory}/log", "wb") as log:
        server = subprocess.Popen(
            words, stdout=log, stderr=log, start_new_session=True, cwd=directory, env=environ
        )
    try:
        s3, filer = (f"http://127.0.0.1:{ports[part]}" for part in ("s3", "filer"))
        bucket = Bucket(s3, filer, server.pid)
        _make_bucket(bucket, weed, ports["master"])
        yield bucket
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # it takes 15 s to end by itself
        server.wait()


def free_ports(count: int) -> list[int]:
    """Return ports on which nothing listens, nor 10,000 above: SeaweedFS listens there, too."""
    found: list[int] = []
    while len(found) < count:
        with socket.create_server(("127.0.0.1", 0)) as one:
            port = one.getsockname()[1]
        port = port % 20_000 + 20_000
        with (
            suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("127.0.0.1", port + 10_000)),
        ):
            found.append(port)
    return found


def _make_bucket(bucket: Bucket, weed: str, master: int) -> None:
    """Make the bucket as soon as the server is up; raises Unavailable if it does not come up."""
    end = time.monotonic() + _PATIENCE
    words = [weed, "shell", f"-master=127.0.0.1:{master}"]
    while True:
        subprocess.run(
            words, input=f"s3.bucket.create -name {BUCKET}\n", text=True, capture_output=True, check=False
        )
        try:
            bucket.store("writer").put("probe", b"x")
        except (GenericError, OSError) as error:
            if time.monotonic() > end:
                raise Unavailable("SeaweedFS does not come up") from error
            time.sleep(0.3)
        else:
            bucket.store("writer").delete("probe")
            return
