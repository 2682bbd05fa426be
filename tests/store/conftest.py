"""Places behind a URL for the tests of stores."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from pathlib import Path

import pytest
from benchmarks.storage import ENVIRONMENT, S3

import datasetdm.io.remote as remote
from datasetdm.io.remote import Place, RemotePath, as_place


@pytest.fixture(scope="session")
def s3() -> Generator[S3]:
    """A server with a bucket `bucket`, found by the environment."""
    storage = S3()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": storage.url}).items():
            patch.setenv(name, value)
        fs = RemotePath.of("s3://bucket").fs
        fs.mkdir("bucket")
        patch.setattr(type(fs), "retries", 1)  # what is repeated is up to us
        yield storage
    storage.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that failed are sent again at once."""
    monkeypatch.setattr(remote, "WAITS", (0.01,) * 4)


@pytest.fixture(params=["memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A folder of its own behind a URL."""
    bucket = ""
    if request.param == "s3":
        request.getfixturevalue("s3")
        bucket = "bucket/"
    return as_place(f"{request.param}://{bucket}{uuid.uuid4().hex}/store")
