"""How long the viewer's answers take under 200 parallel requests: `python -m benchmarks.viewer_load`.

As many browsers as have 200 connections, six each, look at pages at random places of a store: first at the rows, which all ask
for at once, then at the 48 thumbnails of their pages, six at a time, as an ordinary screen and then as a dense one asks for them.
A time is that of one request. Images have 128 x 128 pixels, as the embedded model makes them, or `--side`, of noise, which no
compression makes smaller. The browsers share the machine with the server, a process of its own that has made no thumbnail before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import numpy as np

from benchmarks.viewer_speed import make_store, viewing

PARALLEL = 200
CONNECTIONS = 6
"""Of a browser to one server."""

PAGE = 48
"""Rows per page."""

SIDES = {"thumbnails": 256, "dense_thumbnails": 512}
"""Pixels of a thumbnail, as the page asks for them on an ordinary screen, and on a dense one."""


def viewer_load(count: int = 4096, side: int = 128, parallel: int = PARALLEL) -> dict[str, float]:
    """The 99th percentile of the seconds that rows and thumbnails take, over a fresh store of `count` samples."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "store"
        folder.mkdir()
        make_store(folder, count, side)
        return load(folder, count, parallel)


def load(folder: Path, count: int, parallel: int = PARALLEL) -> dict[str, float]:
    """The same over a store that is there."""
    rng = random.Random(0)
    places = [rng.randrange(0, count, PAGE) for _ in range(-(-parallel // CONNECTIONS))]
    rows = [f"/api/samples?limit={PAGE}&offset={rng.randrange(0, count, PAGE)}" for _ in range(parallel)]
    times: dict[str, list[float]] = {"rows": []}
    for name, side in SIDES.items():
        images = [(f"/image/{row}/image?side={side}" for row in range(p, min(p + PAGE, count))) for p in places]
        with viewing(folder) as address:
            times["rows"] += asyncio.run(_all(address, [iter([path] * 5) for path in rows]))
            times[name] = asyncio.run(_all(address, [images[i % len(images)] for i in range(parallel)]))
    return {f"viewer_{name}_p99": float(np.percentile(found, 99)) for name, found in times.items()}


async def _all(address: str, asked: list[Iterator[str]]) -> list[float]:
    """The seconds of all requests; each connection takes its next one from its iterator, which others may share."""
    return [
        t for times in await asyncio.gather(*(_connection(urlsplit(address), paths) for paths in asked)) for t in times
    ]


async def _connection(place: SplitResult, paths: Iterator[str]) -> list[float]:
    times = []
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=2**24)
    for path in paths:
        writer.write(f"GET {path}&{place.query} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 200 "), head
        await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
        times.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    writer.close()
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4096, help="samples of the store")
    parser.add_argument("--side", type=int, default=128, help="pixels of an image's edge")
    options = parser.parse_args()
    found = viewer_load(options.count, options.side)
    print(json.dumps({name: round(value, 3) for name, value in found.items()}, indent=2))


if __name__ == "__main__":
    main()
