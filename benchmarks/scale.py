"""Whether memory grows with the size of a store, what workers gain and engines cost, and the viewer under load.

    python -m benchmarks.scale --json PATH [--work FOLDER] [--only memory engines store viewer]

memory    For every size a driver and a worker of their own (Ray) write a store of simulated samples; other processes continue
          it and read it to its end. Each says its peak memory; growth is the largest ratio of a peak to that of the smallest size.
engines   In rounds, the same samples of the embedded model are made by a plain loop, by the local engine, by one worker and by
          two; `two_workers_speedup` and `engine_overhead` (the larger one of the two engines) are medians.
store     Samples written per second (`benchmarks.store_speed`).
viewer    Seconds that 99 of 100 requests take at most, 200 at a time (`benchmarks.viewer_load`): the worst of rows and
          thumbnails, of images of 128 and of 512 pixels. The store of the large ones takes 3 GB for a while.

What was measured is kept in the work folder: a run that was stopped goes on after it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import Work, stamp
from benchmarks.engine_speed import alone_seconds, workers_seconds
from benchmarks.simulated import SIDE, STEPS
from benchmarks.store_speed import store_speed
from benchmarks.viewer_load import viewer_load
from datasetdm.io.files import write_json

PARTS = ("memory", "engines", "store", "viewer")
VIEWED = {128: 4096, 512: 2048}
"""Pixels of an image's edge -> samples of the store that is viewed."""


# ---------------------------------------------------------------------- memory
def memory(work: Work, sizes: Sequence[int]) -> dict[str, Any]:
    """Peaks of every size, and how much the largest of them grows."""
    peaks: dict[int, dict[str, float]] = {}
    for size in sizes:
        folder = work.folder / f"store-{size}"
        folder.mkdir(exist_ok=True)
        steps = [work.unit(f"{size}-{step}", lambda step=step: _in_a_process(step, folder, size)) for step in STEPS]  # noqa: B023
        peaks[size] = {name: value for step in steps for name, value in step.items()}
    first, last = peaks[sizes[0]], peaks[sizes[-1]]
    growth = {name: round(last[name] / first[name], 3) for name in first if not name.endswith("_s")}
    name = f"rss_growth_{_short(sizes[0])}_to_{_short(sizes[-1])}"
    return {"peaks_mb": {str(n): v for n, v in peaks.items()}, "growth": growth, name: max(growth.values())}


def _in_a_process(step: str, folder: Path, count: int) -> dict[str, float]:
    began = time.perf_counter()
    main = "from benchmarks.simulated import main; main()"  # a module: workers find by name what is sent to them
    command = [sys.executable, "-c", main, step, str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout), f"{step}_s": round(time.perf_counter() - began, 1)}


def _short(count: int) -> str:
    """1000 as 1k, 1000000 as 1m."""
    for size, letter in ((10**6, "m"), (1000, "k")):
        if count % size == 0:
            return f"{count // size}{letter}"
    return str(count)


# ---------------------------------------------------------------------- speed
def engines(work: Work, rounds: int, count: int) -> dict[str, Any]:
    """Medians of the ratios of all rounds."""
    found: list[dict[str, float]] = []
    for number in range(rounds):
        one = work.unit(f"alone-{number}", lambda: _in_a_folder(alone_seconds, count))
        found.append(one | work.unit(f"workers-{number}", lambda: _in_a_folder(workers_seconds, count)))
    local = median(one["local_s"] / one["plain_s"] - 1 for one in found)
    worker = median(one["workers_1_s"] / one["plain_s"] - 1 for one in found)
    return {
        "engine_rounds": found,
        "two_workers_speedup": round(median(one["workers_1_s"] / one["workers_2_s"] for one in found), 3),
        "local_overhead": round(local, 4),
        "worker_overhead": round(worker, 4),
        "engine_overhead": round(max(local, worker), 4),
    }


def _in_a_folder(measure: Callable[[Path, int], dict[str, float]], count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        return measure(Path(folder), count)


def viewer_p99() -> dict[str, Any]:
    """Seconds that 99 of 100 rows, and thumbnails, of the viewer take at most under 200 parallel requests; the worst of all."""
    found = {str(side): viewer_load(count, side) for side, count in VIEWED.items()}
    rounded = {side: {name: round(value, 3) for name, value in times.items()} for side, times in found.items()}
    return {"viewer_load": rounded, "viewer_p99": max(value for times in rounded.values() for value in times.values())}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not measured yet, and write the figures beside those of other parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=Path, default=Path("/tmp/datasetdm-scale"), help="folder of what was measured")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--sizes", type=int, nargs="+", default=(1000, 1_000_000), help="samples, ascending")
    parser.add_argument("--rounds", type=int, default=5, help="of engines")
    parser.add_argument("--count", type=int, default=64, help="samples of each engine")
    options = parser.parse_args(arguments)
    work = Work(options.work, {"side": SIDE, "count": options.count})
    figures = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    for part in options.only:
        if part == "memory":
            figures |= memory(work, options.sizes)
        elif part == "engines":
            figures |= engines(work, options.rounds, options.count)
        elif part == "store":
            figures |= work.unit("store", lambda: store_speed(1500))
        else:
            figures |= work.unit("viewer", viewer_p99)
        if options.json:
            write_json(options.json, figures | stamp([0]))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
