"""Simulated samples that cost next to nothing, and workers that make them: what is measured is what holds them."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count as count_from
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from datasetdm.engines.cluster import Cluster
from datasetdm.engines.parts import Task
from datasetdm.engines.progress import Seen
from datasetdm.engines.ray import iter_write
from datasetdm.pipelines.divisible import Keys
from datasetdm.records import Labels, Provenance, Sample, SemanticMap
from datasetdm.store.store import Store
from datasetdm.store.writer import Writer

STEPS = ("workers", "continue", "read")

LABELS = Labels(("ground", "box"))
SIDE = 8
STREAM = {"source": "simulated"}
GROUP = 256
"""Samples that a worker makes at a time."""


def key(number: int) -> str:
    """Keys are in no order, as file names of a large data set may be."""
    return f"{number * 0x9E3779B1 % 2**32:08x}-{number}"


def simulated(numbers: Sequence[int]) -> Iterator[Sample]:
    """The samples of these numbers: an image and a semantic map."""
    box = np.zeros((SIDE, SIDE), np.uint16)
    box[4:, 3:6] = 1
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    base = Sample("", image, LABELS, semantic=SemanticMap(box))
    for number in numbers:
        yield replace(base, key=key(number), provenance=Provenance(index=number))


def peak_memory() -> float:
    """MB that this process held at most. (`ru_maxrss` would count the process that began this one, too.)"""
    status = Path("/proc/self/status").read_text()
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)


@dataclass(frozen=True)
class SimulatedSource:
    """Samples 0, 1, ... without end.

    Args:
        peak: a file in which the worker's peak memory stands.
    """

    peak: Path
    labels: ClassVar[Labels] = LABELS

    def origin(self) -> dict[str, Any]:
        """Of the store."""
        return STREAM

    def groups(self, numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Consecutive ones."""
        return (tuple(numbers[i : i + GROUP]) for i in range(0, len(numbers), GROUP))

    def make(self, group: Sequence[int], without: Collection[int] = ()) -> list[Sample]:
        """Those of the group."""
        self.peak.write_text(str(peak_memory()))
        return list(simulated([n for n in group if n not in without]))

    def make_alone(self, number: int) -> list[Sample]:
        """One."""
        return self.make([number])

    def describe(self, number: int) -> tuple[str, str]:
        """Its key."""
        return key(number), ""


@dataclass(frozen=True)
class SimulatedJob:
    """A worker's source."""

    source: SimulatedSource

    def count(self, samples: Sequence[Sample]) -> Seen:
        """How many there are."""
        return Seen(len(samples))

    def skipped(self) -> list[tuple[str, str]]:
        """Nothing is."""
        return []

    def made_by(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def notes(self) -> list[str]:
        """None."""
        return []


def pending(done: Keys | None) -> Iterator[int]:
    """Numbers of the samples that are not done."""
    return (n for n in count_from() if done is None or key(n) not in done)


def simulated_task(peak: Path, total: int) -> Task:
    """`total` samples for workers."""
    return Task(partial(_open, peak), pending, GROUP, total)


def _open(peak: Path) -> SimulatedJob:
    return SimulatedJob(SimulatedSource(peak))


def take_step(step: str, folder: Path, count: int) -> dict[str, float]:
    """Do one step on a store of `count` samples in `folder`; peak memory in MB of the processes that did it."""
    store, peak = folder / "store", folder / "worker-peak"
    if step == "workers":
        for _ in iter_write(simulated_task(peak, count), store, Cluster(workers=1, gpu=False), count):
            pass
        return {"driver": peak_memory(), "worker": float(peak.read_text())}
    if step == "continue":
        with Writer(store, LABELS, STREAM) as writer:
            for sample in simulated(range(writer.written, count + GROUP)):
                writer.add(sample)
    else:
        assert sum(1 for _ in Store(store)) == count + GROUP
    return {step: peak_memory()}


def main() -> None:
    """Take the step that the command line names: STEP FOLDER COUNT; prints the peaks."""
    step, folder, count = sys.argv[1:]
    print(json.dumps(take_step(step, Path(folder), int(count))))
