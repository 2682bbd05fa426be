"""The records that every part of the software exchanges. NumPy only, frozen, validated once when they are made.

A `Sample` is one image with whatever is known about it; an annotation's key in `Sample.annotations` is its task's name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int64, UInt8, UInt16

from datasetdm.errors import DataError

IGNORE = 65535
"""The id of a pixel whose label is unknown: no loss, no score and no export counts it."""

BACKGROUND = "background"
"""The label of pixels that belong to none of a vocabulary's categories (Pascal VOC's convention)."""


def _require(ok: bool, what: str, expected: str, where: str) -> None:
    if not ok:
        raise DataError(what, where=where, expected=expected)


def _array(value: Any, dtype: type, shape: Sequence[int | None], name: str) -> np.ndarray:
    """`value` as a read-only array of `dtype`, its shape held against `shape` (None: any size)."""
    array = np.asarray(value)
    fits = array.ndim == len(shape) and all(w is None or w == h for w, h in zip(shape, array.shape, strict=True))
    wanted = "x".join("any" if s is None else str(s) for s in shape)
    _require(fits, f"{name} has shape {array.shape}", f"shape {wanted}", name)
    array = np.ascontiguousarray(array, dtype=dtype)
    array.flags.writeable = False
    return array


def _confidence(value: Any, shape: Sequence[int], name: str) -> np.ndarray | None:
    """Probabilities in steps of 1/255, so that a store holds them exactly."""
    if value is None:
        return None
    c = _array(value, np.float32, shape, name)
    _require(bool(((c >= 0) & (c <= 1)).all()), "confidence outside 0..1", "0..1", name)
    return _array((np.rint(c * 255) / 255), np.float16, shape, name)


@dataclass(frozen=True)
class Skeleton:
    """The named points of one kind of object, and which of them are joined: pairs of indices into `points`."""

    points: tuple[str, ...]
    edges: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", tuple(str(p) for p in self.points))
        object.__setattr__(self, "edges", tuple((int(a), int(b)) for a, b in self.edges))
        twice = sorted({p for p in self.points if self.points.count(p) > 1})
        _require(not twice, f"points of one name: {', '.join(twice)}", "names that differ", "Skeleton.points")
        n = len(self.points)
        ok = all(0 <= a < n and 0 <= b < n for a, b in self.edges)
        _require(ok, "an edge joins a point that is not there", f"indices 0..{n - 1}", "Skeleton.edges")


@dataclass(frozen=True)
class Labels:
    """A vocabulary: label `i` is called `names[i]`; `synonyms[i]` are other words for it in prompts and captions.

    stuff: labels that are surroundings rather than countable things (panoptic formats tell them apart).
    skeletons: by label name, the points that its objects have.
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...] = ()
    stuff: tuple[str, ...] = ()
    skeletons: Mapping[str, Skeleton] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        names = tuple(str(n) for n in self.names)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "synonyms", tuple(tuple(s) for s in self.synonyms) or ((),) * len(names))
        _require(len(names) > 0, "the label set is empty", "at least one label name", "Labels.names")
        _require(len(names) < IGNORE, f"{len(names)} labels", f"fewer than {IGNORE}", "Labels.names")
        _require(all(n.strip() for n in names), "a label name is blank", "a word or a phrase", "Labels.names")
        folded = [n.strip().lower() for n in names]
        twice = sorted({n for n in folded if folded.count(n) > 1})
        _require(not twice, f"label names clash: {', '.join(twice)}", "names that differ", "Labels.names")
        _require(len(self.synonyms) == len(names), "synonyms do not match names", "one tuple a name", "Labels.synonyms")
        object.__setattr__(self, "stuff", tuple(self.stuff))
        object.__setattr__(self, "skeletons", dict(self.skeletons))
        strangers = sorted({*self.stuff, *self.skeletons} - set(names))
        _require(not strangers, f"no such label: {', '.join(strangers)}", "names of this vocabulary", "Labels")

    def __len__(self) -> int:
        return len(self.names)

    def to_json(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        value: dict[str, Any] = {"names": list(self.names), "synonyms": [list(s) for s in self.synonyms]}
        if self.stuff:
            value["stuff"] = list(self.stuff)
        if self.skeletons:
            bones = self.skeletons.items()
            value["skeletons"] = {k: {"points": list(s.points), "edges": [list(e) for e in s.edges]} for k, s in bones}
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Labels:
        """What `to_json` gave. Raises KeyError, TypeError, ValueError or DataError where it did not."""
        bones = {k: Skeleton(tuple(s["points"]), tuple(s["edges"])) for k, s in value.get("skeletons", {}).items()}
        synonyms = tuple(tuple(s) for s in value["synonyms"])
        return cls(tuple(value["names"]), synonyms, tuple(value.get("stuff", ())), bones)

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        words = [(n, *s) for n, s in zip(self.names, self.synonyms, strict=True)]
        return tuple(re.compile(r"\b(?:" + "|".join(map(_plural, w)) + r")\b", re.IGNORECASE) for w in words)

    def named_in(self, text: str) -> tuple[str, ...]:
        """The labels that `text` mentions (by name or synonym, singular or plural), in the vocabulary's order."""
        return tuple(n for n, p in zip(self.names, self._patterns, strict=True) if p.search(text))


def _plural(word: str) -> str:
    """A pattern for a word and its regular English plural."""
    stem = re.escape(word)
    return f"{stem[:-1]}(?:y|ys|ies)" if word.endswith("y") else f"{stem}(?:s|es)?"


@dataclass(frozen=True)
class Prompt:
    """What to draw: the text, the labels that it names, and the seed of its noise."""

    text: str
    labels: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class SemanticMap:
    """A label for every pixel.

    ids: index into the sample's `Labels`, or `IGNORE`.
    confidence: probability that the id is right, 0 to 1, in steps of 1/255.
    """

    ids: UInt16[np.ndarray, "h w"]
    confidence: Float16[np.ndarray, "h w"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", _array(self.ids, np.uint16, (None, None), "SemanticMap.ids"))
        object.__setattr__(self, "confidence", _confidence(self.confidence, self.ids.shape, "SemanticMap.confidence"))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.ids.shape


@dataclass(frozen=True)
class DepthMap:
    """Distance along the optical axis (z-depth).

    depth: metres if `unit` is "metre"; "relative" is 0..1 of an unknown range. 0 where it is not valid.
    valid: False where there is no depth (sky, missing measurement).
    confidence: probability that the depth is right within a factor of 1.25 if there is any, 0 to 1, in steps of 1/255; 0 where
        not valid.
    """

    depth: Float32[np.ndarray, "h w"]
    valid: Bool[np.ndarray, "h w"]
    unit: Literal["metre", "relative"] = "metre"
    confidence: Float16[np.ndarray, "h w"] | None = None

    def __post_init__(self) -> None:
        valid = _array(self.valid, np.bool_, (None, None), "DepthMap.valid")
        depth = _array(self.depth, np.float32, valid.shape, "DepthMap.depth")
        good = bool(np.isfinite(depth[valid]).all() and (depth[valid] >= 0).all())
        _require(good, "valid depth is negative or not finite", "finite values of at least 0", "DepthMap.depth")
        _require(self.unit in ("metre", "relative"), f"unknown unit {self.unit!r}", "metre | relative", "DepthMap.unit")
        object.__setattr__(self, "valid", valid)
        cleaned = np.where(valid, depth, np.float32(0))
        object.__setattr__(self, "depth", _array(cleaned, np.float32, valid.shape, "DepthMap.depth"))
        sure = _confidence(self.confidence, valid.shape, "DepthMap.confidence")
        if sure is not None:
            object.__setattr__(self, "confidence", _array(sure * valid, np.float16, valid.shape, "DepthMap.confidence"))

    @property
    def step(self) -> float:
        """What one step of 16-bit storage is worth: 1/256 m (KITTI's convention) up to 255 m, coarser beyond."""
        if self.unit == "relative":
            return 1 / 65535
        return max(1 / 256, float(self.depth.max(initial=0)) / 65535)

    def quantised(self) -> DepthMap:
        """A copy on the 16-bit grid, which a store holds exactly; valid depth is at least one step."""
        steps = np.clip(np.rint(self.depth / self.step), self.valid, 65535)
        return replace(self, depth=(steps * self.step).astype(np.float32))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.depth.shape


@dataclass(frozen=True)
class Instances:
    """Separate objects: a mask, a label and a score each.

    boxed: the source knew boxes only, and the masks are those boxes filled; no format writes them as outlines.
    """

    masks: Bool[np.ndarray, "n h w"]
    label_ids: Int64[np.ndarray, "n"]
    scores: Float32[np.ndarray, "n"] = None  # ty: ignore[invalid-assignment]  (ones, unless given)
    boxed: bool = False

    def __post_init__(self) -> None:
        masks = _array(self.masks, np.bool_, (None, None, None), "Instances.masks")
        n = len(masks)
        object.__setattr__(self, "masks", masks)
        object.__setattr__(self, "label_ids", _array(self.label_ids, np.int64, (n,), "Instances.label_ids"))
        scores = np.ones(n) if self.scores is None else self.scores
        object.__setattr__(self, "scores", _array(scores, np.float32, (n,), "Instances.scores"))
        empty = [i for i, m in enumerate(masks) if not m.any()]
        _require(not empty, f"instances {empty} have an empty mask", "at least one pixel each", "Instances.masks")

    def __len__(self) -> int:
        return len(self.masks)

    @cached_property
    def boxes(self) -> Int64[np.ndarray, "n 4"]:
        """(x, y, width, height) of every mask, in pixels."""
        out = np.zeros((len(self), 4), np.int64)
        for row, mask in zip(out, self.masks, strict=True):
            y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            row[:] = x[0], y[0], x[-1] - x[0] + 1, y[-1] - y[0] + 1
        return out

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.masks.shape[1], self.masks.shape[2]


@dataclass(frozen=True)
class Keypoints:
    """Named points of objects; row `i` belongs to instance `i` of the same sample.

    xy: pixels from the image's top left corner. visibility: 0 absent, 1 hidden, 2 seen.
    names: one tuple of point names an object (a person's differ from a bird's); rows are padded to the longest.
    scores: how sure a predicted place is, 0 to 1. A predicted point that is absent keeps its best place.
    """

    xy: Float32[np.ndarray, "n k 2"]
    visibility: UInt8[np.ndarray, "n k"]
    names: tuple[tuple[str, ...], ...]
    scores: Float32[np.ndarray, "n k"] | None = None

    def __post_init__(self) -> None:
        xy = _array(self.xy, np.float32, (None, None, 2), "Keypoints.xy")
        n, k, _ = xy.shape
        object.__setattr__(self, "xy", xy)
        object.__setattr__(self, "visibility", _array(self.visibility, np.uint8, (n, k), "Keypoints.visibility"))
        object.__setattr__(self, "names", tuple(tuple(s) for s in self.names))
        _require(len(self.names) == n, f"{len(self.names)} name lists for {n} objects", "one each", "Keypoints.names")
        _require(all(len(s) <= k for s in self.names), f"more than {k} names", f"at most {k}", "Keypoints.names")
        _require(bool(np.isfinite(xy).all()), "a keypoint is not finite", "finite pixels", "Keypoints.xy")
        _require(bool((self.visibility <= 2).all()), "visibility above 2", "0, 1 or 2", "Keypoints.visibility")
        if self.scores is not None:
            object.__setattr__(self, "scores", _array(self.scores, np.float32, (n, k), "Keypoints.scores"))


Annotation = SemanticMap | DepthMap | Instances | Keypoints


@dataclass(frozen=True)
class Sample:
    """One image and what is known about it.

    annotations: by task name ("semantic", "depth", "instance", "keypoints"); a missing task is not annotated.
    provenance: where it comes from (backbone, decoder, index, source file), as plain strings and numbers.
    encoded: the picture as its source holds it, a file or its bytes with exactly these pixels, where there is one: exporters
        copy it instead of encoding it again. Whoever changes `image` leaves it out.
    """

    key: str
    image: UInt8[np.ndarray, "h w 3"]
    labels: Labels
    prompt: Prompt | None = None
    annotations: Mapping[str, Annotation] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    encoded: Path | bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", _array(self.image, np.uint8, (None, None, 3), f"image of {self.key!r}"))
        for task, record in self.annotations.items():
            where = f"{task} of sample {self.key!r}"
            size = getattr(record, "size", self.size)
            _require(size == self.size, f"{task} is {size[0]}x{size[1]} pixels", f"the image's {self.size}", where)
            if isinstance(record, SemanticMap):
                known = (record.ids < len(self.labels)) | (record.ids == IGNORE)
                _require(bool(known.all()), "a label id is unknown", f"0..{len(self.labels) - 1} or {IGNORE}", where)
            if isinstance(record, Keypoints):
                self._check_keypoints(record, where)
            if isinstance(record, Instances):
                known = (record.label_ids >= 0) & (record.label_ids < len(self.labels))
                _require(bool(known.all()), "a label id is unknown", f"0..{len(self.labels) - 1}", where)

    def _check_keypoints(self, record: Keypoints, where: str) -> None:
        h, w = self.size
        outside = ((record.xy < 0) | (record.xy > (w, h))).any(-1) & (record.visibility > 0)
        lost = [f"({x:g}, {y:g})" for x, y in record.xy[outside].tolist()]
        _require(not lost, f"keypoints outside the image: {', '.join(lost[:3])}", f"0..{w}, 0..{h}", where)
        objects = self.annotations.get("instance")
        if not isinstance(objects, Instances):
            return
        n = len(record.names)
        _require(n == len(objects), f"{n} rows of keypoints", f"{len(objects)}, one an instance", where)
        for i, (points, label) in enumerate(zip(record.names, objects.label_ids.tolist(), strict=True)):
            bones = self.labels.skeletons.get(self.labels.names[label]) if 0 <= label < len(self.labels) else None
            odd = sorted(set(points) - set(bones.points)) if bones else []
            what = f"object {i} has points that are not of its skeleton: {', '.join(odd)}"
            _require(not odd, what, ", ".join(bones.points) if bones else "", where)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def with_annotations(self, **records: Annotation) -> Sample:
        """A copy with further or replaced annotations."""
        return replace(self, annotations={**self.annotations, **records})

    def digest(self) -> str:
        """SHA-256 of image and annotations: equal exactly when every pixel and label is."""
        h = hashlib.sha256(self.image.tobytes())
        for task in sorted(self.annotations):
            h.update(task.encode())
            record = self.annotations[task]
            for name in sorted(f.name for f in fields(record)):
                value = getattr(record, name)
                h.update(name.encode() + (value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()))
        return h.hexdigest()
