"""Training samples at random: the first ones decoded in memory, the rest encoded in one file, so that memory does not grow.

A batch depends on the seed and the number of its step alone. Batches are made ahead in threads.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from datasetdm.backbones.canvas import Placement
from datasetdm.downstream import Batch, Student
from datasetdm.errors import DataError
from datasetdm.io.files import writing
from datasetdm.records import ANNOTATIONS, IGNORE, Labels, Sample
from datasetdm.records.edits import relabel
from datasetdm.store.rows import from_row, to_row, to_table
from datasetdm.store.schema import SCHEMA
from datasetdm.training.processes import ALONE, Processes

MEMORY_BYTES = 2**30
"""Of decoded samples that a pool keeps; the rest lies in its file."""

AHEAD, THREADS = 2, 2
"""Batches that are made before they are asked for, and threads that make them."""


class Pool:
    """Examples by number: what the student can learn from, in the student's labels.

    Args:
        samples: read once; labels are matched by name, unless the student learns what has none, as depth.
        student: which annotations are kept, and who observes every sample.
        spill: the file for what does not fit into `memory` bytes.
        labelled: else the samples are images alone, whatever is known about them.

    Raises:
        DataError: no label in common, or no sample with the annotations that the student learns from.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        student: Student[Any],
        spill: Path,
        memory: int = MEMORY_BYTES,
        labelled: bool = True,
    ):
        self.labels, self.spill = student.labels, spill
        self.read = self.without_labels = 0
        self._held: list[Sample] = []
        self._rows: Any = None
        digest, writer, left = hashlib.sha256(), None, memory
        by_label = student.by_label
        try:
            for sample in samples:
                self.read += 1
                if labelled:
                    needed = _needed(sample, student.reads)
                    own = in_labels(needed, self.labels) if by_label else replace(needed, labels=self.labels)
                    examples = student.examples(own)
                else:
                    examples = [Sample(sample.key, sample.image, student.labels)]
                self.without_labels += not examples
                for example in examples:
                    digest.update((example.key + example.digest()).encode())
                    student.observe(example)
                    left -= _bytes(example)
                    if left >= 0:
                        self._held.append(example)
                        continue
                    with writing(spill):
                        if writer is None:
                            spill.parent.mkdir(parents=True, exist_ok=True)
                            writer = pa.ipc.new_file(str(spill), SCHEMA)
                        writer.write_table(to_table([to_row(example)]))
        finally:
            if writer is not None:
                writer.close()
        self.digest = digest.hexdigest()
        if writer is not None:
            self._rows = pa.ipc.open_file(pa.memory_map(str(spill)))
        if not labelled and not len(self):
            raise DataError("there is no image without labels to learn from", expected="at least one image")
        if not len(self):
            raise DataError(
                f"no sample has labels that the student {student.name} learns from",
                expected=f"samples with {' and '.join(student.reads)}",
                remedy="choose another --student, or other data",
            )

    @property
    def images(self) -> int:
        """How many samples give examples."""
        return self.read - self.without_labels

    def __len__(self) -> int:
        return len(self._held) + (0 if self._rows is None else self._rows.num_record_batches)

    def __getitem__(self, index: int) -> Sample:
        if index < len(self._held):
            return self._held[index]
        row = self._rows.get_batch(index - len(self._held)).to_pylist()[0]
        return from_row(row, self.labels)


def in_labels(sample: Sample, labels: Labels) -> Sample:
    """The sample in other labels of the same names; pixels of others are ignored, their objects left out.

    Raises:
        DataError: no name in common.
    """
    if sample.labels == labels:
        return sample
    ids = _matched(sample.labels.names, labels.names)
    if all(i == IGNORE for i in ids):
        raise DataError(
            "the data have no label of the student's",
            where=f"sample {sample.key!r}, labels {', '.join(sample.labels.names[:6])}, ...",
            expected=f"some of: {', '.join(labels.names[:6])}, ...",
            remedy="rename labels with the transform remap-labels",
        )
    return relabel(sample, labels, ids)


@lru_cache(8)
def _matched(names: tuple[str, ...], wanted: tuple[str, ...]) -> list[int]:
    return [wanted.index(n) if n in wanted else IGNORE for n in names]


def _needed(sample: Sample, fields: Sequence[str]) -> Sample:
    """The image and the annotations that are learnt from."""
    unknown = {name: None for name in ANNOTATIONS if name not in fields}
    return replace(sample, **unknown, encoded=None, prompt=None)


def _bytes(sample: Sample) -> int:
    """About what a decoded sample holds: image, and two bytes per pixel and dense map."""
    pixels = sample.size[0] * sample.size[1]
    return pixels * (3 + 4 * (sample.depth is not None) + 2 * (sample.semantic is not None)) + 4096


class Batches:
    """The batches of a training.

    Args:
        student: who views the samples.
        real, synthetic: pools; without a synthetic one all is real.
        fraction: of every batch that is synthetic, on average over steps.
        batch: images per step.
        side: of the views in pixels.
        seed: of the order of the samples and of random views.
        unlabelled: images, as many per step as labelled ones.
        processes: those that train together; each makes its part of every batch.
    """

    def __init__(
        self,
        student: Student[Any],
        real: Pool,
        synthetic: Pool | None,
        fraction: float,
        batch: int,
        side: int,
        seed: int,
        unlabelled: Pool | None = None,
        processes: Processes = ALONE,
    ):
        self.student, self.batch, self.side, self.seed, self.processes = student, batch, side, seed, processes
        self._part = slice(processes.rank, None, processes.count)
        self.pools = {i: p for i, p in enumerate((real, synthetic, unlabelled)) if p is not None}
        self.fraction = fraction if synthetic is not None else 0.0
        self._epoch = lru_cache(2 * len(self.pools) + 2)(self._shuffled)

    def from_step(self, first: int, last: int) -> Generator[Batch[Any]]:
        """The batches of the steps `first` to before `last`."""
        with ThreadPoolExecutor(THREADS) as threads:
            waiting: deque[Future[Batch[Any]]] = deque()
            steps = iter(range(first, last))
            try:
                for step in steps:
                    waiting.append(threads.submit(self.make, step))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                threads.shutdown(cancel_futures=True)

    def chosen(self, step: int) -> list[tuple[int, int]]:
        """(pool, number) of the labelled samples of a step. Every sample of a pool is used once before any is used again."""
        made = [round_down(s * self.batch * self.fraction) for s in (step, step + 1)]
        rows = [(1, self._number(1, k)) for k in range(*made)]
        real = [s * self.batch - m for s, m in zip((step, step + 1), made, strict=True)]
        return [(0, self._number(0, k)) for k in range(*real)] + rows

    def make(self, step: int) -> Batch[Any]:
        """The batch of a step, or this process' part of it, not augmented."""
        chosen = list(enumerate(self.chosen(step)))[self._part]
        views = [
            self.student.view(self.pools[p][n], self.side, np.random.default_rng((self.seed, step, row)))
            for row, (p, n) in chosen
        ]
        images, targets = zip(*views, strict=True)
        return Batch(
            torch.cat(images),
            self.student.collate(targets),
            torch.tensor([p == 1 for _, (p, _) in chosen], dtype=torch.bool),
            self._unlabelled(step),
        )

    def _unlabelled(self, step: int) -> Float[Tensor, "u 3 H W"] | None:
        if (pool := self.pools.get(2)) is None:
            return None
        numbers = [self._number(2, k) for k in range(step * self.batch, (step + 1) * self.batch)[self._part]]
        frame = self.student.frame(self.side)
        return torch.cat([Placement(pool[n].size, frame, frame).image(pool[n].image) for n in numbers])

    def _number(self, pool: int, k: int) -> int:
        size = len(self.pools[pool])
        return int(self._epoch(pool, k // size)[k % size])

    def _shuffled(self, pool: int, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, pool, epoch)).permutation(len(self.pools[pool]))


def round_down(value: float) -> int:
    """The whole part, safe against the last bit of a product."""
    return int(value + 1e-9)
