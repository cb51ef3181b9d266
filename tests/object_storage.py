"""The real S3 server of the benchmark, for tests: they are skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench import object_storage
from bench.object_storage import BUCKET, Bucket
from bench.world import Unavailable

__all__ = ["BUCKET", "Bucket", "seaweedfs"]


@contextmanager
def seaweedfs(directory: Path) -> Iterator[Bucket]:
    """Run a server with an empty bucket for a ``with`` block; skips the test where there is none."""
    with ExitStack() as stack:
        try:
            bucket = stack.enter_context(object_storage.seaweedfs(str(directory)))
        except Unavailable as error:
            pytest.skip(str(error))
        yield bucket
