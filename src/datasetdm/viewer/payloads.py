"""What the viewer's server answers: one dataclass per JSON object that the page reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from datasetdm.store.reviews import Review

Box = tuple[float, float, float, float]
"""(x, y, width, height) in pixels."""


@dataclass(frozen=True)
class Label:
    """A label and the CSS colour of its regions."""

    name: str
    colour: str


class LayerName(StrEnum):
    """An overlay of an image, as pages and addresses name it."""

    SEMANTIC = "semantic"
    UNCERTAINTY = "uncertainty"
    INSTANCES = "instance"
    DEPTH = "depth"
    DEPTH_UNCERTAINTY = "depth-uncertainty"
    KEYPOINTS = "keypoints"


LAYER_TEXTS = {
    LayerName.SEMANTIC: "Semantic",
    LayerName.UNCERTAINTY: "Uncertainty",
    LayerName.INSTANCES: "Instances",
    LayerName.DEPTH: "Depth",
    LayerName.DEPTH_UNCERTAINTY: "Depth uncertainty",
    LayerName.KEYPOINTS: "Keypoints",
}
"""Overlay -> its switch's text, in the order of the switches."""


@dataclass(frozen=True)
class Layer:
    """An overlay that can be switched on, and its button's text."""

    name: LayerName
    text: str


@dataclass(frozen=True)
class About:
    """What the page shows before any sample."""

    title: str
    count: int
    labels: Sequence[Label]
    layers: Sequence[Layer]


@dataclass(frozen=True)
class Item:
    """One sample in a list.

    labels: those with a pixel or an object. objects: their number. confidence: mean over the labels, 0 to 1.
    reasons: why filters rejected it. revision: changes whenever its images would look different.
    """

    row: int
    key: str
    prompt: str
    labels: Sequence[str]
    objects: int
    confidence: float | None
    reasons: Sequence[str]
    review: Review | None
    revision: str


@dataclass(frozen=True)
class Page:
    """A page of rows; `total` of the store's rows match the query."""

    total: int
    offset: int
    items: Sequence[Item]


@dataclass(frozen=True)
class Count:
    """How many rows have something."""

    name: str
    rows: int


@dataclass(frozen=True)
class Histogram:
    """How a score is distributed, in bins of equal width from `low` to `high`; `missing` rows do not have it.

    names: every score of the store that can be chosen instead; the first is the labels' confidence.
    accepted: of every bin's rows the number of those that neither a filter nor a person rejected.
    """

    names: Sequence[str]
    low: float
    high: float
    counts: Sequence[int]
    accepted: Sequence[int]
    missing: int


@dataclass(frozen=True)
class Verdicts:
    """Numbers of rows by what people, and filters, decided."""

    open: int
    accept: int
    reject: int
    fixed: int
    filtered: int


@dataclass(frozen=True)
class Summary:
    """How the rows that match a query are distributed; `reasons` counts all rows of the store."""

    total: int
    labels: Sequence[Count]
    score: Histogram
    reasons: Sequence[Count]
    verdicts: Verdicts


@dataclass(frozen=True)
class Preview:
    """What a threshold would reject of the `accepted` rows of the store.

    below, above: the rows on either side that are nearest to it. command: what sets it; empty if no command does.
    """

    accepted: int
    dropped: int
    below: Sequence[Item]
    above: Sequence[Item]
    command: str


@dataclass(frozen=True)
class Reviewed:
    """What changed by a review."""

    review: Review | None
    revision: str
    labels: Sequence[str]
    objects: int


@dataclass(frozen=True)
class Region:
    """A label of the semantic map and the fraction of all pixels that have it."""

    label: str
    fraction: float


@dataclass(frozen=True)
class Outline:
    """An object: `outline` is an SVG path in pixels (even-odd rule), `stored` its label before any review."""

    label: str
    stored: str
    score: float
    box: Box
    outline: str
    crowd: bool


@dataclass(frozen=True)
class Point:
    """A keypoint of object number `object`, in pixels."""

    object: int
    name: str
    x: float
    y: float
    hidden: bool


@dataclass(frozen=True)
class Edge:
    """Two joined keypoints of object number `object`, in pixels."""

    object: int
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Shapes:
    """Outlines, keypoints and skeletons of a sample."""

    height: int
    width: int
    objects: Sequence[Outline]
    points: Sequence[Point]
    edges: Sequence[Edge]


@dataclass(frozen=True)
class PromptFacts:
    """A prompt; `seed` is text, because JavaScript's numbers end at 2**53."""

    text: str
    labels: Sequence[str]
    seed: str
    origin: str


@dataclass(frozen=True)
class DepthScale:
    """The colours' scale: `ticks` from near to far, evenly spaced on the bar."""

    unit: str
    ticks: Sequence[float]


@dataclass(frozen=True)
class Detail:
    """Everything about one sample but its pixels. before: whether `/image/{row}/before` shows what it was edited from."""

    row: int
    key: str
    split: str
    prompt: PromptFacts | None
    shapes: Shapes
    regions: Sequence[Region]
    depth: DepthScale | None
    scores: Mapping[str, float]
    reasons: Sequence[str]
    before: bool
    provenance: Mapping[str, str]
    review: Review | None
    revision: str


@dataclass(frozen=True)
class Command:
    """A command to copy."""

    command: str


@dataclass(frozen=True)
class Problem:
    """Why a request was refused."""

    error: str


@dataclass(frozen=True)
class Conflict:
    """Why a review was not kept, and what counts instead."""

    error: str
    now: Reviewed
