"""Stages that fill stores, by several workers (Ray)."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from functools import partial

import torch

from datasetdm.decoder.inference import BATCH
from datasetdm.engines.cluster import Cluster, installed
from datasetdm.engines.failures import FAILED
from datasetdm.engines.parts import Job, Task
from datasetdm.engines.progress import Progress, Report
from datasetdm.engines.ray import Event, iter_write
from datasetdm.errors import ConfigError
from datasetdm.io.remote import Place
from datasetdm.pipelines.generate import pending
from datasetdm.pipelines.stream import Data
from datasetdm.recipe.data import StageData
from datasetdm.recipe.schema import AnnotateStage, EditStage, GenerateStage

Opener = Callable[[type[GenerateStage] | type[AnnotateStage], str, int], Job]
"""Opens a stage in a worker: its kind, its settings as JSON, and threads."""


def chosen(stage: GenerateStage | AnnotateStage) -> bool:
    """Whether workers do the work: if that was asked for, or several GPUs wait for it."""
    if stage.engine is not None:
        return stage.engine == "ray"
    if stage.address is not None or stage.workers is not None:
        return True
    if isinstance(stage, GenerateStage) and stage.target is not None:
        return False
    return stage.device == "auto" and torch.cuda.device_count() > 1 and installed()


def idle_notes(stage: GenerateStage | AnnotateStage | EditStage) -> list[str]:
    """That GPUs of this machine do nothing while the local engine does the work, if nobody chose it."""
    count = torch.cuda.device_count()
    if stage.device == "cpu" or count < 2 or getattr(stage, "engine", None) is not None:
        return []
    if isinstance(stage, EditStage) or getattr(stage, "target", None) is not None:
        how = "`edit` and --target have no other way"
    else:
        how = "--engine ray uses all" + ("" if installed() else " (pip install 'datasetdm[ray]')")
    return [f"one of the {count} GPUs of this machine did the work: {how}"]


def generate(stage: GenerateStage, out: Place, report: Report, opener: Opener) -> Event:
    """Bring a store to `count` generated samples; the stage's `batch` is known."""
    if stage.target is not None or stage.batch is None:
        raise ConfigError(
            "--target with the engine ray",
            expected="--count: every round of a target follows from the one before it",
            remedy="use --engine local, or a larger --count",
        )
    job = partial(opener, GenerateStage, stage.model_dump_json(), _threads(stage))
    task = Task(job, pending, stage.batch, stage.count)
    return _run(task, stage, out, stage.count, report)


def annotate(stage: AnnotateStage, data: StageData, out: Place, report: Report, opener: Opener) -> Event:
    """Annotate those images that the store does not hold yet."""
    job = partial(opener, AnnotateStage, stage.model_dump_json(), _threads(stage))
    source = Data(data, data.format)
    task = Task(job, source.pending, BATCH, len(data), fixed=False, check=source.check)
    return _run(task, stage, out, None, report)


def _run(task: Task, stage: GenerateStage | AnnotateStage, out: Place, count: int | None, report: Report) -> Event:
    cluster = Cluster(stage.address, stage.workers, gpu=stage.device != "cpu")
    event = Event()
    with closing(iter_write(task, out, cluster, count)) as work:
        for event in work:
            report(Progress("workers", event.workers, stage.workers, "worker"))
            report(Progress(stage.kind, event.made, None if task.total is None else max(event.made, task.total)))
    event.notes = [*event.notes, *_failure_notes(event, out)]
    return event


def _failure_notes(event: Event, out: Place) -> list[str]:
    """What was set aside."""
    if not event.failures:
        return []
    first = event.failures[0]
    named = f"{first.key} {first.prompt[:80]!r}" if first.prompt else first.key
    return [
        f"{len(event.failures)} samples were set aside, each after {first.tries} tries; the first: {named}: {first.error[:200]}. "
        f"{out / FAILED} lists them; without this file the next run tries them again"
    ]


def _threads(stage: GenerateStage | AnnotateStage) -> int:
    """Of one worker: OMP_NUM_THREADS where that is set, else its part of those that the local engine would use."""
    if asked := os.environ.get("OMP_NUM_THREADS"):
        return int(asked)
    return max(1, torch.get_num_threads() // (stage.workers or 1))
