"""Hits and misses: test renders that a student labels better or worse than another, as one image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
from PIL import Image

from benchmarks.students.figures import MeanIoU
from benchmarks.students.rows import Bench
from benchmarks.students.tables import REAL
from datasetdm.downstream.files import TrainedModel
from datasetdm.records import Sample, SemanticMap
from datasetdm.viewer import paint

SHOWN = 6
"""Renders with the largest gain, and as many with the largest loss."""
EDGE = 4


def draw_sheet(bench: Bench, table: str, row: str = "both", seed: int = 0, limit: int | None = None) -> Image.Image:
    """Two columns, gains and losses; in each image, truth, what real only says, what `row` says.

    Args:
        table: of semantic segmentation.
        limit: test renders that are looked at; None for all.
    """
    exam = list(islice(bench.of(table).exam(), limit))
    base, other = (
        [found for _, found in TrainedModel.load(bench.student(table, r, seed)[0], bench.data.device).annotate(exam)]
        for r in (REAL, row)
    )
    gain = _accuracy(exam, other) - _accuracy(exam, base)
    order, half = np.argsort(-gain, kind="stable"), min(SHOWN, len(exam) // 2)
    columns = []
    for chosen in (order[:half], order[::-1][:half]):
        columns.append(np.concatenate([_strip(exam[i], base[i], other[i]) for i in chosen], 0))
    return Image.fromarray(np.concatenate(columns, 1))


def _accuracy(true: Sequence[Sample], found: Sequence[Sample]) -> np.ndarray:
    """Fraction of pixels right, f[images]."""
    counts = MeanIoU().look(zip(true, found, strict=True))["counts"].sum(1)
    return counts[:, 0] / np.maximum(counts[:, 1], 1)


def _strip(true: Sample, base: Sample, other: Sample) -> np.ndarray:
    """u8[h 4w 3] with white edges."""
    colours = paint.label_colours(true.labels)

    def mixed(found: SemanticMap | None) -> np.ndarray:
        assert found is not None
        return (0.35 * true.image + 0.65 * paint.paint_semantic(found, colours)[..., :3]).astype(np.uint8)

    tiles = [true.image, *(mixed(s.semantic) for s in (true, base, other))]
    framed = [np.pad(t, ((0, EDGE), (0, EDGE), (0, 0)), constant_values=255) for t in tiles]
    return np.pad(np.concatenate(framed, 1), ((0, 0), (0, 2 * EDGE), (0, 0)), constant_values=255)
