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


def alone_seconds(folder: Path, count: int) -> dict[str, float]:
    """Seconds of `count` samples in this process: of a plain loop, and of the local engine, whose store is in the folder."""
    torch.set_num_threads(1)
    stream = open_generator(_stage(count))[1].stream
    stream.make(range(BATCH))
    return {
        "plain_s": _timed(lambda: sum(1 for _ in islice(stream.samples(), count))),
        "local_s": _timed(lambda: write(stream, folder / "local", count)),
    }


def workers_seconds(folder: Path, count: int) -> dict[str, float]:
    """The same of one worker and of two, whose stores are in the folder."""
    with connected(Cluster(workers=2, gpu=False)):
        return {f"workers_{n}_s": _by_workers(_stage(count), folder / f"workers-{n}", n) for n in (1, 2)}


def _stage(count: int) -> GenerateStage:
    return GenerateStage(prompts=(GRAMMAR,), count=count, batch=BATCH, steps=STEPS, device="cpu")


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
    return round(time.perf_counter() - began, 2)
