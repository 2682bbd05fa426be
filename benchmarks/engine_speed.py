"""What several workers gain, and what the engines cost: seconds for the same samples of the embedded model.

A plain loop makes the samples and drops them; the local engine writes them into a store; one worker and two workers (Ray) write
stores, too. All use one thread per process. Loading models is not counted: workers wait for each other once they have made a batch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from datasetdm.engines.cluster import Cluster, connected
from datasetdm.engines.local import write
from datasetdm.engines.parts import Job, Task
from datasetdm.engines.ray import iter_write
from datasetdm.pipelines.generate import pending
from datasetdm.recipe.schema import GRAMMAR, GenerateStage
from datasetdm.recipe.sources import open_generator, open_job

BATCH, STEPS = 8, 4


def engine_speed(folder: Path, count: int) -> dict[str, float]:
    """Seconds of each way, and their ratios.

    Args:
        folder: new; for the stores.
        count: of samples.
    """
    torch.set_num_threads(1)
    stage = GenerateStage(prompts=(GRAMMAR,), count=count, batch=BATCH, steps=STEPS, device="cpu")
    stream = open_generator(stage)[1].stream
    stream.make(range(BATCH))
    seconds = {
        "plain": _timed(lambda: sum(1 for _ in islice(stream.samples(), count))),
        "local": _timed(lambda: write(stream, folder / "local", count)),
    }
    with connected(Cluster(workers=2, gpu=False)):
        for workers in (1, 2):
            seconds[f"workers_{workers}"] = _by_workers(stage, folder / f"workers-{workers}", workers)
    return {
        **{f"{name}_s": round(value, 2) for name, value in seconds.items()},
        "two_workers_speedup": round(seconds["workers_1"] / seconds["workers_2"], 3),
        "local_overhead": round(seconds["local"] / seconds["plain"] - 1, 4),
        "worker_overhead": round(seconds["workers_1"] / seconds["plain"] - 1, 4),
    }


def _by_workers(stage: GenerateStage, out: Path, workers: int) -> float:
    """From the moment when all workers are ready until the store is whole."""
    out.with_suffix(".ready").mkdir(parents=True)
    opener = partial(_open_together, stage.model_dump_json(), out.with_suffix(".ready"), workers)
    task = Task(opener, pending, BATCH, stage.count)
    with closing(iter_write(task, out, Cluster(workers=workers, gpu=False), stage.count)) as events:
        next(events)
        return _timed(lambda: sum(1 for _ in events))


def _open_together(stage: str, ready: Path, workers: int) -> Job:
    """A worker's job; it has made a batch, and all `workers` are as far."""
    job = open_job(GenerateStage, stage, threads=1)
    job.source.make(range(BATCH))
    (ready / str(os.getpid())).touch()
    while len(list(ready.iterdir())) < workers:
        time.sleep(0.01)
    return job


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
