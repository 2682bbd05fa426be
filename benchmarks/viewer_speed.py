"""How fast the viewer is on a store of 100,000 samples: `python -m benchmarks.viewer_speed`.

The first page counts from the start of a fresh server process until its page, its data and its first images have come;
a filter from the request to the last of its two answers, rows and histograms. The server runs as its users run it, and the
page is asked for as the browser does: after the first rows come the histograms of the whole store, which no filter precedes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode, urljoin
from urllib.request import HTTPCookieProcessor, build_opener

import numpy as np
import pyarrow as pa

from datasetdm.records import DepthMap, Instances, Labels, Prompt, Provenance, Sample, SemanticMap
from datasetdm.store import Writer
from datasetdm.store.manifest import Manifest
from datasetdm.store.rows import to_row, to_table
from datasetdm.store.schema import SCHEMA
from datasetdm.store.writer import write_parquet

LABELS = Labels(tuple(f"label {i}" for i in range(30)))
SHARD = 256
FILTERS: tuple[dict[str, Any], ...] = (
    {"class": "label 3"},
    {"prompt": "number 99"},
    {"score_min": 0.25, "score_max": 0.75},
    {"class": "label 7", "objects_min": 1, "score_min": 0.5, "prompt": "photo"},
    {"order": "-score"},
)


def make_store(folder: Path, count: int, side: int = 16, seed: int = 0) -> None:
    """A store of `count` samples: few different images, but keys, prompts, labels and scores of their own."""
    rng = np.random.default_rng(seed)
    base = to_table([to_row(_sample(i, side, rng)) for i in range(SHARD)])
    shard = folder.parent / "shard.parquet"
    with Writer(folder, LABELS, {"source": "samples"}, SHARD) as writer:
        for first in range(0, count, SHARD):
            n = min(SHARD, count - first)
            found = [[LABELS.names[k] for k in row] for row in rng.integers(0, len(LABELS), (n, 4)).tolist()]
            fresh: dict[str, list[Any]] = {
                "key": [f"{i:08d}" for i in range(first, first + n)],
                "prompt": [
                    f"a photo of {names[0]} and {names[1]}, number {first + i}" for i, names in enumerate(found)
                ],
                "found": [sorted(set(names)) for names in found],
                "objects": [names[: rng.integers(0, 5)] for names in found],
                "score": rng.random(n).tolist(),
            }
            table = base.slice(0, n)
            for name, values in fresh.items():
                field = SCHEMA.field(name)
                table = table.set_column(SCHEMA.get_field_index(name), field, pa.array(values, field.type))
            write_parquet(table, shard)
            writer.append_shard(shard, Manifest.of_file(shard, fresh["key"]))
            shard.unlink()


def _sample(i: int, side: int, rng: np.random.Generator) -> Sample:
    ids = np.full((side, side), i % len(LABELS), np.uint16)
    ids[side // 2 :] = (i + 1) % len(LABELS)
    semantic = SemanticMap(ids, rng.random((side, side)))
    depth = DepthMap(rng.uniform(1, 9, (side, side)), np.ones((side, side), bool))
    return Sample(
        f"{i:08d}",
        rng.integers(0, 256, (side, side, 3), dtype=np.uint8),
        LABELS,
        Prompt("a photo", (), i),
        semantic=semantic,
        depth=depth,
        instances=Instances.from_masks((ids == i % len(LABELS))[None], np.array([i % len(LABELS)])),
        provenance=Provenance(index=i),
    )


def viewer_speed(count: int = 100_000, repeats: int = 3) -> dict[str, float]:
    """`viewer_first_page_seconds`: the median of fresh servers; `viewer_filter_seconds`: the slowest kind of filter's median."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "store"
        folder.mkdir()
        make_store(folder, count)
        runs = [_measure(folder) for _ in range(repeats)]
    filters = {name: median(run[1][name] for run in runs) for name in runs[0][1]}
    return {"viewer_first_page_seconds": median(run[0] for run in runs), "viewer_filter_seconds": max(filters.values())}


@contextmanager
def viewing(folder: Path) -> Generator[str]:
    """The address that `datasetdm view` prints, while it runs in a process of its own."""
    command = [sys.executable, "-u", "-m", "datasetdm.cli", "view", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield next(m[0] for line in server.stdout if (m := re.search(r"http://127\.0\.0\.1:\d+/\S+", line)))
        finally:
            server.terminate()


def _measure(folder: Path) -> tuple[float, dict[str, float]]:
    started = time.perf_counter()
    with viewing(folder) as address:
        opener = build_opener(HTTPCookieProcessor())

        def get(path: str) -> bytes:
            with opener.open(urljoin(address, path), timeout=60) as answer:
                return answer.read()

        get(address)
        page = json.loads(get("api/samples?limit=48"))
        for item in page["items"][:24]:
            get(f"image/{item['row']}/image")
        first = time.perf_counter() - started
        get("api/summary")
        times = {}
        for asked in FILTERS:
            rows = asked | {"limit": 48}
            begun = time.perf_counter()
            for path in (f"api/samples?{urlencode(rows)}", f"api/summary?{urlencode(asked)}"):
                get(path)
            times[json.dumps(asked)] = time.perf_counter() - begun
    return first, times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    print(json.dumps({name: round(value, 3) for name, value in viewer_speed().items()}, indent=2))


if __name__ == "__main__":
    main()
