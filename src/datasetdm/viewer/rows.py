"""Single rows of a store of any size, and the columns that lists and filters need. Only what is looked at is decoded."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock, Semaphore

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from datasetdm.io.codecs import png_size
from datasetdm.io.files import parse_json
from datasetdm.io.recent import Recent
from datasetdm.records import Sample
from datasetdm.store.store import HEADER, Store

LISTED = ("key", "prompt", "found", "objects", "score", "quality_reasons", "quality_scores")
"""Columns of a store that `Listed` holds."""

KEPT_BYTES = 64_000_000
"""Decoded samples that stay in memory."""

KEPT_COLUMN_BYTES = 32_000_000
"""Columns of `LISTED` that stay in memory."""

PAINTERS = 4
"""Images that are decoded and painted at a time: more would take more memory and no less time."""

BYTES_PER_PIXEL = 16
"""Of a sample with all annotations, about."""

LARGE = 2_000_000
"""Images of more pixels are decoded and painted one at a time, so that memory does not grow with the number of requests."""


@dataclass(frozen=True)
class Listed:
    """What lists and filters need to know about some rows.

    labels: lists of labels with a pixel or an object. objects: lists of every object's label.
    confidence: the labels' mean, 0 to 1; NaN if they have none. reasons: lists of why filters rejected the row.
    scores: of filters, by name; NaN where a row has none.
    """

    keys: pa.Array
    prompts: pa.Array
    labels: pa.Array
    objects: pa.Array
    confidence: Float32[np.ndarray, "n"]
    reasons: pa.Array
    scores: Mapping[str, Float32[np.ndarray, "n"]]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: np.ndarray) -> Listed:
        """The chosen rows, in this order."""
        columns = (self.keys, self.prompts, self.labels, self.objects)
        scores = {name: values[rows] for name, values in self.scores.items()}
        chosen = pa.array(rows, pa.int64())
        return Listed(*(c.take(chosen) for c in columns), self.confidence[rows], self.reasons.take(chosen), scores)

    @classmethod
    def from_table(cls, table: pa.Table) -> Listed:
        """The columns as a store holds them."""
        keys, prompts, labels, objects, confidence = (table[n].combine_chunks() for n in LISTED[:5])
        reasons = table["quality_reasons"].combine_chunks()
        found = {row: parse_json(t) for row, t in enumerate(table["quality_scores"].to_pylist()) if t != "{}"}
        scores = {
            name: np.full(len(table), np.nan, np.float32) for name in sorted({n for s in found.values() for n in s})
        }
        for row, values in found.items():
            for name, value in values.items():
                scores[name][row] = value
        return cls(keys, prompts, labels, objects, confidence.to_numpy(False).astype(np.float32), reasons, scores)


class Rows:
    """The rows that `store` holds; safe to share among threads."""

    def __init__(self, store: Store):
        self.store = store
        self._one_large, self._few_small = Lock(), Semaphore(PAINTERS)
        self._is_large = lru_cache(100_000)(lambda number: _pixels(self.encoded(number)) > LARGE)
        self._samples: Recent[Sample] = Recent(
            KEPT_BYTES, lambda s: s.size[0] * s.size[1] * BYTES_PER_PIXEL, at_once=PAINTERS
        )
        self._tables: Recent[pa.Table] = Recent(KEPT_COLUMN_BYTES, lambda table: table.nbytes, at_once=PAINTERS)

    def __len__(self) -> int:
        return len(self.store)

    def sample(self, number: int) -> Sample:
        """The sample of row `number`, with a black image.

        Raises:
            IndexError: no such row. StoreError: a damaged file.
        """
        return self._samples.get(number, lambda: self.store.without_pixels(number))

    def encoded(self, number: int) -> pa.Buffer:
        """The stored image of row `number`, not copied. Raises as `sample`."""
        return self.store.encoded(number)

    @contextmanager
    def turn(self, number: int) -> Generator[None]:
        """Held while row `number` is decoded and painted; waits for other large images if it is large itself."""
        with self._one_large if self._is_large(number) else self._few_small:
            yield

    def listed(self, start: int, stop: int) -> Listed:
        """The rows from `start` to before `stop`, without reading others."""
        return Listed.from_table(self.store.table(LISTED, start, stop))

    def page(self, start: int, stop: int) -> Listed:
        """The same, of few rows: the columns of their shards stay in memory."""
        shards = [s for s in self.store.shards if s.start < stop and start < s.start + s.rows]
        tables = [
            self._tables.get(s.start, lambda s=s: self.store.table(LISTED, s.start, s.start + s.rows)) for s in shards
        ]
        return Listed.from_table(pa.concat_tables(tables).slice(start - shards[0].start, stop - start))

    def annotated(self) -> set[str]:
        """Annotation columns that the first or the last shard has values of."""
        return self.store.filled()


def _pixels(encoded: pa.Buffer) -> int:
    """Of an encoded image, by its header; 0 if it is none."""
    try:
        height, width = png_size(encoded[:HEADER].to_pybytes())
        return height * width
    except ValueError:
        return 0
