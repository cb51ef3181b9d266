"""Downloads an object as CI services' caches do, in ranges over eight connections: started as a file.

``python bench/ranges.py ENDPOINT BUCKET KEY FILE``; credentials are in the environment.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import obstore
from obstore.store import S3Store

CONNECTIONS = 8
_RANGE = 4 << 20


def download(store: S3Store, key: str, path: str) -> None:
    """Write the object *key* to a file."""
    size = obstore.head(store, key)["size"]
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def one(start: int) -> None:
        os.pwrite(fd, obstore.get_range(store, key, start=start, end=min(start + _RANGE, size)), start)

    try:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(one, range(0, size, _RANGE)))
    finally:
        os.close(fd)


if __name__ == "__main__":
    endpoint, bucket, key, path = sys.argv[1:]
    store = S3Store(bucket, endpoint=endpoint, region="us-east-1", client_options={"allow_http": True})
    download(store, key, path)
    os._exit(0)
