"""Jobs for workers without a real model: samples by number, and what may go wrong with some of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from datasetdm.engines.local import write
from datasetdm.engines.parts import Task
from datasetdm.engines.progress import Seen
from datasetdm.errors import ConfigError, DataError
from datasetdm.pipelines.made import made_by
from datasetdm.pipelines.stream import Keys
from datasetdm.records import Labels, Sample
from datasetdm.store.store import Store
from engines.in_process import Ended
from factory import LABELS, make_sample

BATCH = 4


@dataclass
class NumberedSamples:
    """Samples 0, 1, ... in batches of four.

    Args:
        folder: where files are noted that say what was tried.
        faults: number -> what happens whenever it is made; with a `1` at the end only when it is made first, or until another
            worker makes it ("worker1"). "wait" waits until the folder has a file "go".
        seconds: that a batch takes.
    """

    folder: Path
    faults: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    name: str = "numbered"
    labels: Labels = LABELS
    endless: bool = True

    def origin(self) -> dict[str, Any]:
        return {"source": self.name}

    def check(self, store: Store) -> None:
        """Nothing to check."""

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        for number in pending(done):
            yield sample(number)

    def groups(self, numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
        return (tuple(numbers[i : i + BATCH]) for i in range(0, len(numbers), BATCH))

    def make(self, group: Sequence[int], without: Collection[int] = ()) -> list[Sample]:
        time.sleep(self.seconds)
        made = [self._made(n, alone=False) for n in group if n not in without]
        return [s for s in made if s is not None]

    def make_alone(self, number: int) -> list[Sample]:
        return [self._made(number, alone=True)]

    def describe(self, number: int) -> tuple[str, str]:
        return sample(number).key, f"prompt {number}"

    def _made(self, number: int, alone: bool) -> Sample:
        fault = self.faults.get(number, "")
        if fault == "wait":
            while not (self.folder / "go").exists():
                time.sleep(0.05)
            return sample(number)
        tried = [p.name.partition("-")[2] for p in self.folder.glob(f"{number}-*")]
        own = f"{os.getpid()}-{id(self)}"
        once = fault.endswith("1") and ({*tried} - {own} if fault.startswith("worker") else tried)
        if fault and not once and not (fault.startswith("together") and alone):
            (self.folder / f"{number}-{own}").touch()
            if fault.startswith("kill"):
                self.end()
            if fault.startswith("memory"):
                raise MemoryError
            if fault.startswith("setting"):
                raise ConfigError("this cannot be")
            if fault.startswith("data"):
                raise DataError("this image cannot be read", where=f"{number:04d}.png")
            if fault.startswith("CUDA"):
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            raise RuntimeError(f"sample {number} cannot be made")
        return sample(number)

    def end(self) -> None:
        """End the worker: its process, if it has one of its own."""
        if "PYTEST_CURRENT_TEST" in os.environ:
            raise Ended
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class NumberedJob:
    source: NumberedSamples

    def count(self, samples: Sequence[Sample]) -> Seen:
        seen = Seen()
        for made in samples:
            seen.add(made)
        return seen

    def skipped(self) -> list[tuple[str, str]]:
        return []

    def made_by(self) -> dict[str, Any]:
        return made_by(self.source)

    def notes(self) -> list[str]:
        return ["a note"]


def sample(number: int) -> Sample:
    return make_sample(f"{number:04d}", (8, 12), number)


def pending(done: Keys | None) -> Iterator[int]:
    return (n for n in count() if done is None or f"{n:04d}" not in done)


def open_job(folder: Path, faults: dict[int, str], seconds: float, opening: str) -> NumberedJob:
    """A job as a worker opens it.

    Args:
        folder, faults, seconds: of `NumberedSamples`.
        opening: what happens meanwhile: "end", "broken"; or "other", which makes the second job another one.
    """
    source = NumberedSamples(folder, faults, seconds)
    if opening == "end":
        source.end()
    if opening == "broken":
        raise ZeroDivisionError
    if opening == "other":
        source.name = f"numbered by {len(list(folder.glob('opened-*')))}"
        (folder / f"opened-{id(source)}").touch()
    return NumberedJob(source)


def make_task(
    folder: Path, total: int | None, faults: dict[int, str] | None = None, seconds: float = 0.0, opening: str = ""
) -> Task:
    folder.mkdir(exist_ok=True)
    return Task(partial(open_job, folder, faults or {}, seconds, opening), pending, BATCH, total)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def undisturbed(folder: Path, count: int, shard: int = 8) -> dict[str, bytes]:
    """The files of a store that one process wrote."""
    write(NumberedSamples(folder), folder / "right", count, shard)
    return contents(folder / "right")


def command(code: str, *arguments: object) -> tuple[list[str], dict[str, str]]:
    """Another process with this one's paths; what Ray leaves open concerns nobody there."""
    known = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return [sys.executable, "-c", code, *map(str, arguments)], known | paths
