"""Whether memory grows with the size of a store, and the viewer under load: `python -m benchmarks.scale --work FOLDER --json PATH`.

Every size is written, continued by one sample and read to its end by processes of their own, which report their peak memory.
The samples are simulated: 16 x 16 pixels, a semantic map, one object, depth, and keys of their own. Sizes that were measured
are kept in the work folder, and a run that was stopped goes on with the others.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Work, stamp
from benchmarks.viewer_load import viewer_load
from datasetdm.io.files import write_json
from datasetdm.records import DepthMap, Instances, Labels, Provenance, Sample, SemanticMap
from datasetdm.store.store import Store
from datasetdm.store.writer import Writer

LABELS = Labels(("ground", "box"))
SIDE = 16
STREAM = {"source": "simulated"}


def simulated(start: int, stop: int) -> Iterator[Sample]:
    """The samples of these numbers; their keys are in no order, as file names of a large data set may be."""
    box = np.zeros((SIDE, SIDE), bool)
    box[4:9, 3:12] = True
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    base = Sample(
        "",
        image,
        LABELS,
        semantic=SemanticMap(box.astype(np.uint16)),
        instances=Instances.from_masks(box[None], [1]),
        depth=DepthMap(np.full((SIDE, SIDE), 2.0), np.ones((SIDE, SIDE), bool)).quantised(),
    )
    for i in range(start, stop):
        key = f"{i * 0x9E3779B1 % 2**32:08x}-{i}"
        yield replace(base, key=key, provenance=Provenance(index=i))


def write(folder: Path, count: int) -> None:
    """Write a store of `count` samples, or continue one to so many."""
    with Writer(folder, LABELS, STREAM) as writer:
        for sample in simulated(writer.written, count):
            writer.add(sample)


def read(folder: Path, count: int) -> None:
    """Read a store of `count` samples to its end."""
    assert sum(1 for _ in Store(folder)) == count


def measure(count: int) -> dict[str, float]:
    """Peak memory in MB and samples per second of processes that write, continue and read a store of `count` samples."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as parent:
        steps = (("write", count), ("continue", count + 1), ("read", count + 1))
        for step, samples in steps:
            begin = time.perf_counter()
            command = [sys.executable, "-m", "benchmarks.scale", "--step", step, f"{parent}/store", str(samples)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            figures[f"{step}_peak_mb"] = float(done.stdout)
            figures[f"{step}_s"] = round(time.perf_counter() - begin, 1)
    return figures


def viewer_p99() -> dict[str, float]:
    """Seconds that 99 of 100 rows, and thumbnails, of the viewer take at most under 200 parallel requests."""
    return {"viewer_p99": round(max(viewer_load().values()), 3)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every size; growth is the largest ratio of peaks between the largest size and the smallest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=Path, default=Path("/tmp/datasetdm-scale"), help="folder of measured sizes")
    parser.add_argument("--sizes", type=int, nargs="+", default=(1000, 30_000, 1_000_000), help="samples, ascending")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        step, folder, count = options.step
        (read if step == "read" else write)(Path(folder), int(count))
        print(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1))
        return
    work = Work(options.work, {"side": SIDE})
    sizes = {n: work.unit(str(n), lambda n=n: measure(n)) for n in options.sizes}
    first, last = sizes[options.sizes[0]], sizes[options.sizes[-1]]
    growth = {k.removesuffix("_peak_mb"): round(last[k] / first[k], 3) for k in first if k.endswith("_peak_mb")}
    figures: dict[str, Any] = {"sizes": {str(n): v for n, v in sizes.items()}, "growth": growth}
    name = f"rss_growth_{_short(options.sizes[0])}_to_{_short(options.sizes[-1])}"
    figures[name] = max(growth.values())
    figures |= work.unit("viewer_p99", viewer_p99)
    if options.json:
        write_json(options.json, figures | stamp([0]))
    print(json.dumps(figures, indent=2))


def _short(count: int) -> str:
    """1000 as 1k, 1000000 as 1m."""
    for size, letter in ((10**6, "m"), (1000, "k")):
        if count % size == 0:
            return f"{count // size}{letter}"
    return str(count)


if __name__ == "__main__":
    main()
