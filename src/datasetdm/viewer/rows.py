"""Single rows of a store of any size, and the columns that lists and filters need. Only what is looked at is decoded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from datasetdm.io.codecs import png_size
from datasetdm.io.files import parse_json
from datasetdm.records import Sample
from datasetdm.store.store import HEADER, Store

LISTED = ("key", "prompt", "found", "objects", "score", "quality_reasons", "quality_scores")
"""Columns of a store that `Listed` holds."""

KEPT_BYTES = 64_000_000
"""Decoded samples that stay in memory."""

BYTES_PER_PIXEL = 16
"""Of a sample with all annotations, about."""

LARGE = 2_000_000
"""Images of more pixels are decoded and painted one at a time, so that memory does not grow with the number of requests."""

Value = TypeVar("Value")


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


class Recent(Generic[Value]):
    """The values used last, up to a total weight; safe to share among threads."""

    def __init__(self, limit: int, weight: Callable[[Value], int]):
        self._limit, self._weight = limit, weight
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._total = 0
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of `key`, made if it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._total += self._weight(value)
            while self._total > self._limit:
                self._total -= self._weight(self._values.popitem(last=False)[1])
        return value


class Rows:
    """The rows that `store` holds; safe to share among threads."""

    def __init__(self, store: Store):
        self.store = store
        self._one_large = Lock()
        self._is_large = lru_cache(100_000)(lambda number: _pixels(self.encoded(number)) > LARGE)
        self._samples: Recent[Sample] = Recent(KEPT_BYTES, lambda s: s.size[0] * s.size[1] * BYTES_PER_PIXEL)

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
        with self._one_large:
            large = self._is_large(number)
            if large:
                yield
        if not large:
            yield

    def listed(self, start: int, stop: int) -> Listed:
        """The rows from `start` to before `stop`, without reading others."""
        return Listed.from_table(self.store.table(LISTED, start, stop))

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
