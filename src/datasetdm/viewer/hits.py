"""One HTML page of hits and misses: the worst and the best images, each beside its truth and what was predicted."""

from __future__ import annotations

import heapq
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from datasetdm.io.codecs import encode_png
from datasetdm.io.files import write_text
from datasetdm.records import ANNOTATIONS, Labels, Sample
from datasetdm.records.edits import keep_objects
from datasetdm.viewer import detail, paint
from datasetdm.viewer.gallery import SMALLEST_FRACTION, data_address, legend_of, switches_of, template
from datasetdm.viewer.payloads import Edge, LayerName, Point

SIDE = 384
"""The longer edge of an image on the page, in pixels."""
MIN_SCORE = 0.3
"""Predicted objects of a lower score are not on the page."""


@dataclass(frozen=True)
class Shape:
    """The outline of an object as an SVG path, its label's colour, and its label and score in words."""

    path: str
    colour: str
    text: str
    crowd: bool


@dataclass(frozen=True)
class Side:
    """What is known, or was predicted, of one image; chips are (text, colour)."""

    height: int
    width: int
    layers: Mapping[LayerName, str]
    outlines: Sequence[Shape]
    points: Sequence[Point]
    edges: Sequence[Edge]
    chips: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Row:
    """One image of the page."""

    key: str
    prompt: str
    image: str
    height: int
    width: int
    truth: Side
    found: Side
    labels: Sequence[str]
    score: str
    scores: str

    def layers(self) -> Iterator[LayerName]:
        """The layers that there is something on."""
        for side in (self.truth, self.found):
            yield from side.layers
            if side.outlines:
                yield LayerName.INSTANCES
            if side.points:
                yield LayerName.KEYPOINTS


class HitsAndMisses:
    """The worst and the best of any number of images. Their images are made small at once, so memory does not grow with
    the number of images.

    Args:
        labels: of all samples.
        shown: so many of the worst and of the best.
    """

    def __init__(self, labels: Labels, shown: int):
        self.labels, self.shown, self.images = labels, shown, 0
        self.colours = [paint.css(c) for c in paint.label_colours(labels)]
        self.heaps: dict[int, list[tuple[float, int, Row]]] = {-1: [], 1: []}
        """-1: the worst, 1: the best; as (sign times score, minus the image's number, row), the first to leave first."""

    def add(self, true: Sample, found: Sample, scores: Mapping[str, float]) -> None:
        """Add an image by the mean of its scores, which are 0 to 1; one without scores is left out. Annotations that only one of
        the two has are not shown."""
        if not scores:
            return
        self.images += 1
        score, row = sum(scores.values()) / len(scores), None
        for sign, heap in self.heaps.items():
            place = (sign * score, -self.images)
            if len(heap) < self.shown or (heap and place > heap[0][:2]):
                row = row or self._row(true, found, score, scores)
                (heapq.heappush if len(heap) < self.shown else heapq.heapreplace)(heap, (*place, row))

    def write(self, path: Path, title: str) -> None:
        """Write the page, the worst images first; one that is among the worst is not shown again."""
        worst, best = (sorted(heap, key=lambda r: r[:2], reverse=True) for heap in self.heaps.values())
        worst_numbers = {number for _, number, _ in worst}
        best = [row for row in best if row[1] not in worst_numbers]
        parts = [(f"The worst {len(worst)} of {self.images} images", [r for *_, r in worst])]
        parts.append((f"The best {len(best)}", [r for *_, r in best]))
        rows = [row for _, part in parts for row in part]
        page = template("hits.html.j2").render(
            title=title,
            cards=rows,
            parts=parts,
            min_score=MIN_SCORE,
            switches=switches_of({layer for row in rows for layer in row.layers()}),
            legend=legend_of(self.labels, {label for row in rows for label in row.labels}),
        )
        write_text(path, page)

    def _row(self, true: Sample, found: Sample, score: float, scores: Mapping[str, float]) -> Row:
        alone: dict[str, Any] = {n: None for n in ANNOTATIONS if getattr(true, n) is None or getattr(found, n) is None}
        true, found = replace(true, **alone), replace(found, **alone)
        objects = found.instances
        sure = found if objects is None else keep_objects(found, objects.scores >= MIN_SCORE)
        span = None if true.depth is None else paint.depth_range(true.depth)
        names = {self.labels.names[i] for s in (true, sure) for i in s.annotations.labels_in()}
        return Row(
            key=true.key,
            prompt=true.caption,
            image=_small(true.image),
            height=true.size[0],
            width=true.size[1],
            truth=self._side(true, span),
            found=self._side(sure, span),
            labels=sorted(names),
            score=f"score {score:.3f}",
            scores=" · ".join(f"{name} {value:.3f}" for name, value in scores.items()),
        )

    def _side(self, sample: Sample, span: tuple[float, float] | None) -> Side:
        layers: dict[LayerName, str] = {}
        if sample.semantic is not None:
            layers[LayerName.SEMANTIC] = data_address(detail.layer(sample, LayerName.SEMANTIC, SIDE))
        if sample.depth is not None:
            small = paint.reduced_depth(sample.depth, SIDE)
            layers[LayerName.DEPTH] = data_address(encode_png(paint.paint_depth(small, span)))
        shapes = detail.shapes(sample, sample, SIDE)
        outlines = [
            Shape(o.outline, self.colours[self.labels.index[o.label]], f"{o.label} {o.score:.2f}", o.crowd)
            for o in shapes.objects
        ]
        counted = Counter(o.label for o in shapes.objects)
        chips = [
            (r.label, f"{r.label} {r.fraction:.0%}") for r in detail.regions(sample) if r.fraction >= SMALLEST_FRACTION
        ]
        chips += [(label, f"{count} x {label}") for label, count in counted.most_common()]
        coloured = [(text, self.colours[self.labels.index[label]]) for label, text in chips]
        return Side(*sample.size, layers, outlines, shapes.points, shapes.edges, coloured)


def _small(image: UInt8[np.ndarray, "h w 3"]) -> str:
    height, width = paint.reduced_size((image.shape[0], image.shape[1]), SIDE)
    out = io.BytesIO()
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    resized.save(out, "JPEG", quality=detail.JPEG_QUALITY)
    return data_address(out.getvalue(), "image/jpeg")
