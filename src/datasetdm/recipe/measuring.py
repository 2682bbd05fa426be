"""What a little of a stage's work costs, done by its own models now: a few optimiser steps, a few batches of samples."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from datasetdm.decoder.inference import BATCH
from datasetdm.engines.progress import Measured, Progress, Report
from datasetdm.errors import DataError
from datasetdm.pipelines.fit import iter_fit
from datasetdm.recipe import on_ray
from datasetdm.recipe.data import open_data
from datasetdm.recipe.estimate import written_bytes
from datasetdm.recipe.plan import Step
from datasetdm.recipe.schema import AnnotateStage, EditStage, FitStage, GenerateStage
from datasetdm.recipe.sources import OpenedStream, default_batch, open_annotator, open_editor, open_fit, open_generator
from datasetdm.store.writer import Writer

FEW = 2
"""Images of a batch on a CPU, where the time of an image hardly depends on the batch; on a GPU it is the stage's own batch."""
BATCHES, PATIENCE = 3, 30.0
"""Batches that are made, unless so many seconds have passed before. The first one warms up, and is left out if others follow."""
FIT_IMAGES, FIT_STEPS = 4, 3


@dataclass
class _Clock:
    """Seconds and processor seconds between its calls."""

    walls: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    _last: tuple[float, float] = (0.0, 0.0)

    def begin(self) -> None:
        self._last = time.perf_counter(), time.process_time()

    def lap(self) -> None:
        wall, processor = self._last
        self.begin()
        self.walls.append(self._last[0] - wall)
        self.processor.append(self._last[1] - processor)

    def after_warming(self) -> tuple[int, float, float]:
        """Laps, their seconds and processor seconds; without the first one if there are others."""
        first = min(1, len(self.walls) - 1)
        return len(self.walls) - first, sum(self.walls[first:]), sum(self.processor[first:])


def fit(step: Step, folder: Path, report: Report) -> Measured:
    """Features of a few images and a few optimiser steps; the decoder that they give is in `folder`."""
    stage = step.stage
    assert isinstance(stage, FitStage)
    images = min(FIT_IMAGES, step.left or FIT_IMAGES)
    small = {"limit": images, "variants": 1, "steps": FIT_STEPS, "evaluate_every": FIT_STEPS}
    began = time.perf_counter()
    data, frozen, config = open_fit(stage.model_copy(update=small))
    loading = time.perf_counter() - began
    clocks = {"features": _Clock(), "steps": _Clock()}
    clocks["features"].begin()
    with closing(iter_fit(data, folder, backbone=frozen, config=config)) as work:
        for event in work:
            clocks[event.stage].lap()
            clocks["steps"].begin()
            report(Progress(f"measure {step.name}", event.done, event.total, "step"))
    _, views, views_processor = clocks["features"].after_warming()
    laps, steps, steps_processor = clocks["steps"].after_warming()
    of_views, of_steps = (step.left or images) * stage.variants / images, stage.steps / laps
    seconds = views * of_views + steps * of_steps
    processor = views_processor * of_views + steps_processor * of_steps
    return Measured(
        f"features of {images} images and {laps} steps", views + steps, seconds / (views + steps), 1, loading,
        frozen.device.type, processor if frozen.device.type == "cpu" else seconds, float(written_bytes(folder)),
    )  # fmt: skip


def fill(step: Step, folder: Path, report: Report) -> Measured:
    """A few samples of a stage that fills a store; they are in `folder`."""
    stage, left = step.stage, step.left
    assert isinstance(stage, GenerateStage | AnnotateStage | EditStage)
    began = time.perf_counter()
    opened, batch = _opened(stage, step)
    loading = time.perf_counter() - began
    samples, clock, timed = iter(opened.stream.samples()), _Clock(), 0
    with Writer(folder, opened.stream.labels, opened.stream.origin()) as writer:
        while len(clock.walls) < BATCHES and sum(clock.walls) < PATIENCE:
            clock.begin()
            for sample in islice(samples, batch):
                writer.add(sample)
            if writer.written == timed:
                break
            clock.lap()
            timed = writer.written
            report(Progress(f"measure {step.name}", len(clock.walls), BATCHES, "batch"))
    if not timed:
        raise DataError("these data give no sample to measure", expected="one at least")
    laps, seconds, processor = clock.after_warming()
    count, what = timed - (len(clock.walls) - laps) * batch, "images"
    if (target := getattr(stage, "target", None)) is not None:
        left, what = target, "images, as if filters rejected none,"
    times = (timed if left is None else left) / count
    return Measured(
        f"{count} {what}", seconds, times, _workers(stage), loading, opened.backbone.device.type,
        (processor if opened.backbone.device.type == "cpu" else seconds) * times, written_bytes(folder) / timed * count * times,
    )  # fmt: skip


def _opened(stage: GenerateStage | AnnotateStage | EditStage, step: Step) -> tuple[OpenedStream, int]:
    """The stage's stream with its models, and how many of its samples pass them together."""
    if isinstance(stage, GenerateStage):
        batch = stage.batch or default_batch(step.out, stage.count or stage.target or 1)
        few = FEW if stage.device == "cpu" or not torch.cuda.is_available() else batch
        batch = min(batch, few)
        return open_generator(stage.model_copy(update={"batch": batch}))[1], batch
    data = open_data(stage.data, stage.model_copy(update={"transforms": ()}))
    if isinstance(stage, EditStage):
        return open_editor(stage, data), stage.batch
    return open_annotator(stage, data), BATCH


def _workers(stage: GenerateStage | AnnotateStage | EditStage) -> int:
    """That share the work; on another cluster than this machine alone as many as were asked for, or one."""
    if isinstance(stage, EditStage) or not on_ray.chosen(stage):
        return 1
    return stage.workers or (1 if stage.address else max(1, torch.cuda.device_count()))
