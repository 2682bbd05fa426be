"""Timed fits of ours and of baselines, by the one training loop of `datasetdm.pipelines.fit`, and their figures."""

from __future__ import annotations

import json
import math
import multiprocessing
import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from datasetdm.backbones import Backbone, load_backbone
from datasetdm.decoder.model import CONFIG, PDecoder
from datasetdm.decoder.tasks import TASKS, make_task
from datasetdm.io.files import write_json
from datasetdm.metrics import SemanticMeter
from datasetdm.pipelines.evaluate import evaluate
from datasetdm.pipelines.fit import Build, FitConfig, iter_fit
from datasetdm.readers import read
from datasetdm.records import Labels, Sample


@dataclass
class InMemoryReader:
    """A reader of samples that are already in memory."""

    samples: Sequence[Sample]
    labels: Labels

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


def fit(
    data: str | InMemoryReader,
    out: Path,
    backbone: Backbone,
    config: FitConfig,
    build: Build = PDecoder.for_backbone,
    views: Path | None = None,
) -> float:
    """Fit into `out` unless that is done, or go on; seconds of all runs together.

    views: a folder that keeps the views and their features, for fits that differ only in learning rate and steps.
    """
    clock = out.with_name(f"{out.name}.clock.json")
    seconds = json.loads(clock.read_text()) if clock.exists() else 0.0
    if (out / CONFIG).exists():
        return seconds
    start = last = time.perf_counter()
    first = True
    for event in iter_fit(data, out, backbone=backbone, config=config, build=build):
        if views and event.stage == "features":
            if first:
                _link(views, out / "work")
            if event.done == event.total:
                _link(out / "work", views)
            first = False
        if (now := time.perf_counter()) - last > 5:
            last = now
            write_json(clock, seconds + now - start)
    seconds += time.perf_counter() - start
    write_json(clock, seconds)
    return seconds


def _link(source: Path, target: Path) -> None:
    """Give the views in one folder a second name in another."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.glob("[!.c]*.safetensors"):  # not the checkpoint
        if not (target / path.name).exists():
            (target / path.name).hardlink_to(path)


def fit_ours(data: str, out: Path, backbone: str, config: FitConfig) -> dict[str, float]:
    """`fit_seconds` and `fit_peak_gb` of a P-Decoder, fitted in a process of its own so that the peak is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_fit_and_measure, data, out, backbone, config).result()


def _fit_and_measure(data: str, out: Path, backbone: str, config: FitConfig) -> dict[str, float]:
    return {"fit_seconds": fit(data, out, load_backbone(backbone), config), "fit_peak_gb": peak_bytes() / 1e9}


def peak_bytes() -> int:
    """The most memory that this process ever held (by Linux's own count where there is one: `ru_maxrss` may be of the
    process that started it)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# ---------------------------------------------------------------------- baselines
def seconds_per_step(
    samples: InMemoryReader, folder: Path, backbone: Backbone, config: FitConfig, build: Build
) -> float:
    """Median over a few steps."""
    few = InMemoryReader(samples.samples[: config.batch], samples.labels)
    short = config.model_copy(update={"steps": 7, "variants": 1, "held_out": 0.0, "evaluate_every": 100})
    times: list[float] = []
    last = time.perf_counter()
    for event in iter_fit(few, folder, backbone=backbone, config=short, build=build):
        now = time.perf_counter()
        if event.stage == "steps" and 1 < event.done < 7:
            times.append(now - last)
        last = now
    return float(np.median(times))


def steps_for(seconds: float, a_step: float, least: int = 50) -> int:
    """Steps that take at least `seconds`."""
    return max(least, math.ceil(seconds / a_step))


def held_out_score(decoder: PDecoder) -> float:
    """What learning rates are chosen by: the mean over tasks of their first figures on held-out images."""
    found: Any = (decoder.config.fitted or {})["held_out_figures"]
    scores = []
    for name, task in decoder.tasks.items():
        figure, more = task.meter().better
        value = found.get(f"{name}.{figure}", float("nan"))
        scores.append(value if more else -value)
    scores = [s for s in scores if math.isfinite(s)]
    return float(np.mean(scores)) if scores else float("-inf")


# ---------------------------------------------------------------------- figures
def main_figure(task: str) -> str:
    """The figure that stands for a task in the tables."""
    return "absrel" if task == "depth" else make_task(task).meter().better[0]


def figures(decoder: PDecoder, backbone: Backbone, samples: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """All figures by task; semantic also over things and over stuff."""
    meter = kept_meter(decoder) if "semantic" in decoder.tasks else None
    own = evaluate(decoder, backbone, samples)
    if meter and "semantic" in own:
        labels = decoder.config.labels
        stuff = np.array([n in labels.stuff for n in labels.names])
        own["semantic"] |= {
            "miou_things": known_mean(meter.iou()[~stuff]),
            "miou_stuff": known_mean(meter.iou()[stuff]),
        }
    return own


def kept_meter(decoder: PDecoder) -> SemanticMeter:
    """The accumulator that the next `evaluate` of this decoder will fill, for what its figures leave out."""
    task: Any = decoder.tasks["semantic"]
    meter = type(task).meter(task)
    task.meter = lambda: meter
    return meter


def known_mean(values: np.ndarray) -> float:
    """The mean of what is known, NaN if nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def available(samples: Sequence[Sample], tasks: Sequence[str] | None = None) -> tuple[str, ...]:
    """The tasks that exist here, that `samples` have labels for, and that are asked for."""
    found = (n for n in TASKS if any(make_task(n).target(s) is not None for s in samples))
    return tuple(n for n in found if tasks is None or n in tasks)


def load_samples(data: str, count: int | None = None) -> list[Sample]:
    """The first samples of FORMAT:PATH."""
    return list(islice(read(data), count))
