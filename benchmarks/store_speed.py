"""How fast a store is written and read, and whether memory grows with it: `python -m benchmarks.store_speed --json PATH`.

The samples are renders of 128 x 128 pixels with all four tasks and confidences, used again under other keys. Rates are wall
time, from the first sample to a store that is closed (or read to its end); seconds of CPU stand beside them, because the
machine may have other work. Peak memory is that of a process of its own which writes a store and then reads it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import stamp
from datasetdm.io.files import write_json
from datasetdm.readers import read
from datasetdm.records import DepthMap, Sample, SemanticMap
from datasetdm.store.store import Store
from datasetdm.store.writer import write_store

DIFFERENT = 64
"""Samples that are not the same again."""


def make_samples(count: int) -> Iterator[Sample]:
    """`count` samples with keys of their own."""
    base = [_with_confidence(s, i) for i, s in enumerate(islice(read("mini:test"), DIFFERENT))]
    return (replace(base[i % len(base)], key=f"{i:08d}") for i in range(count))


def _with_confidence(sample: Sample, seed: int) -> Sample:
    """As a decoder is: sure inside of regions, unsure where its features' 8 x 8 cells change."""
    assert sample.semantic is not None and sample.depth is not None
    rng = np.random.default_rng(seed)
    h, w = sample.size
    cells = rng.beta(8, 1, (h // 8 + 1, w // 8 + 1)).repeat(8, 0).repeat(8, 1)[:h, :w]
    confidence = np.clip(cells + rng.normal(0, 0.01, (h, w)), 0, 1)
    depth = sample.depth
    return replace(
        sample,
        semantic=SemanticMap(sample.semantic.ids, confidence),
        depth=DepthMap(depth.depth, depth.valid, depth.unit, confidence).quantised(),
    )


def store_speed(count: int) -> dict[str, float]:
    """Samples per second, CPU milliseconds and bytes per sample."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "store"
        samples = list(make_samples(count))
        wall, cpu = time.perf_counter(), time.process_time()
        write_store(samples, folder, samples[0].labels)
        write_wall, write_cpu = time.perf_counter() - wall, time.process_time() - cpu
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        wall, cpu = time.perf_counter(), time.process_time()
        read_count = sum(1 for _ in Store(folder))
        read_wall, read_cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert read_count == count
    return {
        "store_per_second": round(count / write_wall, 1),
        "store_cpu_ms": round(write_cpu / count * 1e3, 3),
        "read_per_second": round(count / read_wall, 1),
        "read_cpu_ms": round(read_cpu / count * 1e3, 3),
        "bytes_per_sample": round(size / count),
    }


def peak_memory(count: int) -> float:
    """MB at most of a process that writes a store of `count` samples and reads it."""
    command = [sys.executable, "-m", "benchmarks.store_speed", "--memory-of", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _write_and_read(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        samples = make_samples(count)
        first = next(samples)
        write_store(samples, folder, first.labels)
        assert sum(1 for _ in Store(folder)) == count - 1
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs=2, default=(1000, 16_000), help="samples, for peak memory")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory_of:
        _write_and_read(options.memory_of)
        return
    load = os.getloadavg()[0]
    runs = [store_speed(options.samples) for _ in range(options.repeats)]
    figures: dict[str, Any] = dict(max(runs, key=lambda r: r["store_per_second"]))
    figures["read_per_second"] = max(r["read_per_second"] for r in runs)
    figures["runs"] = runs
    figures["peak_memory_mb"] = {str(n): round(peak_memory(n), 1) for n in options.sizes}
    figures["load_average_before_and_after"] = [round(load, 1), round(os.getloadavg()[0], 1)]
    if options.json:
        write_json(options.json, figures | stamp([0]))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
