"""Objects: masks (as run lengths), boxes and labels of separate things, and the named points on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from datasetdm.records.checks import checked_array, require, require_text

Runs = np.ndarray
"""Lengths i64[n] of the runs of one mask, column by column, off and on in turn, off first (COCO's uncompressed form)."""


class MaskStack:
    """The masks of one image, any number of them, each as run lengths. Dense masks `bool[h w]` are made on demand.

    `len`, iteration and an integer index give dense masks; a slice, an index array or a boolean array gives another stack.

    Args:
        runs: one array per mask; each sums to height times width. They are kept in their shortest form.
        size: (height, width) in pixels.
    """

    __slots__ = ("runs", "size")

    def __init__(self, runs: Iterable[Any], size: tuple[int, int]):
        self.size = (int(size[0]), int(size[1]))
        self.runs: tuple[Runs, ...] = tuple(_shortest(checked_array(r, np.int64, (None,), "masks")) for r in runs)
        pixels = self.size[0] * self.size[1]
        for i, r in enumerate(self.runs):
            good = bool((r >= 0).all()) and int(r.sum()) == pixels
            require(good, f"the run lengths of mask {i} do not fill the image", f"a sum of {pixels}", "masks")

    @classmethod
    def from_dense(cls, masks: Any) -> MaskStack:
        """Masks bool[n h w], or any sequence of bool[h w]."""
        dense = np.asarray(masks) if not isinstance(masks, MaskStack) else None
        if dense is None:
            return masks
        dense = checked_array(dense, np.bool_, (None, None, None), "Instances.masks")
        return cls._checked(map(encode_runs, dense), (dense.shape[1], dense.shape[2]))

    @classmethod
    def _checked(cls, runs: Iterable[Runs], size: tuple[int, int]) -> MaskStack:
        """Of runs that are known to be in their shortest form and to fill the image."""
        stack = object.__new__(cls)
        stack.size, stack.runs = size, tuple(runs)
        for r in stack.runs:
            r.flags.writeable = False
        return stack

    @property
    def shape(self) -> tuple[int, int, int]:
        """(number of masks, height, width)."""
        return len(self), *self.size

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Bool[np.ndarray, "h w"]]:
        return (decode_runs(r, self.size) for r in self.runs)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> MaskStack: ...
    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> np.ndarray | MaskStack:
        if isinstance(index, (int, np.integer)):
            return decode_runs(self.runs[index], self.size)
        return self._checked((self.runs[i] for i in np.arange(len(self))[index]), self.size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MaskStack):
            return NotImplemented
        same = self.size == other.size and len(self) == len(other)
        return same and all(np.array_equal(a, b) for a, b in zip(self.runs, other.runs, strict=True))

    def __hash__(self) -> int:
        return hash((self.size, tuple(r.tobytes() for r in self.runs)))

    def __repr__(self) -> str:
        return f"MaskStack({len(self)} masks of {self.size[0]}x{self.size[1]})"

    def dense(self) -> Bool[np.ndarray, "n h w"]:
        """All masks at once: objects times pixels bytes."""
        out = np.zeros(self.shape, bool)
        for i, mask in enumerate(self):
            out[i] = mask
        return out

    def crop(self, index: int) -> tuple[Bool[np.ndarray, "h w"], tuple[int, int]]:
        """One mask within its tight box, and the box's top left corner (x, y) in pixels."""
        height, runs = self.size[0], self.runs[index]
        x, y, w, h = _box(runs, height)
        flat = np.zeros(w * height, bool)
        ends = np.cumsum(runs) - x * height
        for start, end in zip(ends[:-1:2].tolist(), ends[1::2].tolist(), strict=False):
            flat[max(start, 0) : end] = True
        return flat.reshape(w, height).T[y : y + h], (x, y)

    def union(self) -> Bool[np.ndarray, "h w"]:
        """The pixels that belong to any of the masks."""
        out = np.zeros(self.size, bool)
        for mask in self:
            out |= mask
        return out

    @property
    def areas(self) -> Int64[np.ndarray, "n"]:
        """Pixels per mask."""
        return np.array([int(r[1::2].sum()) for r in self.runs], np.int64)

    @property
    def boxes(self) -> Int64[np.ndarray, "n 4"]:
        """The tight (x, y, width, height) of every mask in pixels; zeros for an empty one."""
        return np.array([_box(r, self.size[0]) for r in self.runs], np.int64).reshape(-1, 4)


def spans(values: np.ndarray) -> tuple[Int64[np.ndarray, "s"], Int64[np.ndarray, "s"]]:
    """(starts, lengths) of the stretches of equal values in a flat array: few in masks and label maps."""
    if not values.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    return starts, np.diff(starts, append=values.size)


def encode_runs(mask: Bool[np.ndarray, "h w"]) -> Runs:
    """Run lengths of a dense mask, the shortest form: no run is empty but the first."""
    flat = np.ascontiguousarray(mask.T).reshape(-1)
    lengths = spans(flat)[1]
    return np.concatenate([[0], lengths]) if not flat.size or flat[0] else lengths


def _shortest(runs: Runs) -> Runs:
    """The same mask without empty runs but the first: two turns at one pixel cancel each other."""
    if runs[1:].all():
        return runs
    turns, count = np.unique(np.cumsum(runs)[:-1], return_counts=True)
    pixels = int(runs.sum())
    return np.diff(turns[(count % 2 == 1) & (turns < pixels)], prepend=0, append=pixels)


def decode_runs(runs: Runs, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The dense mask of run lengths."""
    h, w = size
    flat = np.zeros(h * w, bool)
    ends = np.cumsum(runs)
    for start, end in zip(ends[:-1:2].tolist(), ends[1::2].tolist(), strict=True) if len(runs) > 1 else ():
        flat[start:end] = True
    return np.ascontiguousarray(flat.reshape(w, h).T)


def _box(runs: Runs, h: int) -> tuple[int, int, int, int]:
    ends = np.cumsum(runs)
    starts, stops = ends[:-1:2], ends[1::2]
    starts, stops = starts[: len(stops)], stops[: len(starts)]
    filled = stops > starts
    starts, lasts = starts[filled], stops[filled] - 1
    if not len(starts):
        return 0, 0, 0, 0
    left, right = int(starts[0] // h), int(lasts[-1] // h)
    across = starts // h != lasts // h  # such a run holds a last and a first row
    top = 0 if across.any() else int((starts % h).min())
    bottom = h - 1 if across.any() else int((lasts % h).max())
    return left, top, right - left + 1, bottom - top + 1


@dataclass(frozen=True)
class Instances:
    """Separate objects: a mask, a label, a score and a box each. `Instances.from_masks` takes dense masks.

    Args:
        masks: run lengths of every object; none is empty.
        label_ids: index into the sample's `Labels`.
        scores: confidence, 0 to 1; ones unless given.
        boxes: (x, y, width, height) in pixels from the top left corner, with fractions where the source has them; the masks'
            tight boxes unless given.
        crowd: objects that stand for an uncounted group (COCO's `iscrowd`): known to be there, but neither trained on nor
            scored; none unless given.
        boxed: the source knew boxes only, and the masks are those boxes filled; no format writes them as outlines.

    Raises:
        DataError: arrays of different lengths, or an empty mask.
    """

    masks: MaskStack
    label_ids: Int64[np.ndarray, "n"]
    scores: Float32[np.ndarray, "n"] = None  # ty: ignore[invalid-assignment]  (ones, unless given)
    boxes: Float64[np.ndarray, "n 4"] = None  # ty: ignore[invalid-assignment]  (the masks', unless given)
    crowd: Bool[np.ndarray, "n"] = None  # ty: ignore[invalid-assignment]  (none, unless given)
    boxed: bool = False

    def __post_init__(self) -> None:
        n = len(self.masks)
        empty = np.flatnonzero(self.masks.areas == 0).tolist()
        require(not empty, f"instances {empty} have an empty mask", "at least one pixel each", "Instances.masks")
        defaults = {"scores": np.ones, "crowd": np.zeros}
        kinds: list[tuple[str, type, tuple[int, ...]]] = [
            ("label_ids", np.int64, (n,)), ("scores", np.float32, (n,)), ("boxes", np.float64, (n, 4)), ("crowd", np.bool_, (n,)),
        ]  # fmt: skip
        for name, dtype, shape in kinds:
            value = getattr(self, name)
            if value is None:
                value = self.masks.boxes if name == "boxes" else defaults[name](n)
            object.__setattr__(self, name, checked_array(value, dtype, shape, f"Instances.{name}"))
        good = bool(np.isfinite(self.boxes).all() and (self.boxes[:, 2:] > 0).all())
        require(good, "a box is empty or not finite", "a width and height above 0", "Instances.boxes")

    @classmethod
    def from_masks(cls, masks: Any, label_ids: Any, scores: Any = None, **others: Any) -> Instances:
        """Objects of dense masks bool[n h w]; the other arguments are the record's."""
        return cls(MaskStack.from_dense(masks), label_ids, scores, **others)

    @classmethod
    def none(cls, size: tuple[int, int]) -> Instances:
        """No object in an image of this (height, width)."""
        return cls(MaskStack((), size), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.masks)

    def take(self, rows: Any) -> Instances:
        """The chosen objects: a boolean array over all, or indices in the order wanted."""
        chosen = np.arange(len(self))[rows]
        return Instances(
            self.masks[chosen], self.label_ids[chosen], self.scores[chosen], self.boxes[chosen], self.crowd[chosen], self.boxed
        )  # fmt: skip

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.masks.size


@dataclass(frozen=True)
class Keypoints:
    """Named points of objects; row `i` belongs to object `i` of the same sample's `instances`.

    Args:
        xy: pixels from the image's top left corner.
        visibility: 0 absent, 1 hidden, 2 seen.
        names: one tuple of point names per object (a person's differ from a bird's); rows are padded to the longest.
        scores: confidence of a predicted place, 0 to 1. A predicted point that is absent keeps its best place.
    """

    xy: Float32[np.ndarray, "n k 2"]
    visibility: UInt8[np.ndarray, "n k"]
    names: tuple[tuple[str, ...], ...]
    scores: Float32[np.ndarray, "n k"] | None = None

    def __post_init__(self) -> None:
        xy = checked_array(self.xy, np.float32, (None, None, 2), "Keypoints.xy")
        n, k, _ = xy.shape
        object.__setattr__(self, "xy", xy)
        object.__setattr__(self, "visibility", checked_array(self.visibility, np.uint8, (n, k), "Keypoints.visibility"))
        object.__setattr__(self, "names", tuple(tuple(s) for s in self.names))
        require(len(self.names) == n, f"{len(self.names)} name lists for {n} objects", "one each", "Keypoints.names")
        require(all(len(s) <= k for s in self.names), f"more than {k} names", f"at most {k}", "Keypoints.names")
        require_text((p for s in self.names for p in s), "Keypoints.names")
        require(bool(np.isfinite(xy).all()), "a keypoint is not finite", "finite pixels", "Keypoints.xy")
        require(bool((self.visibility <= 2).all()), "visibility above 2", "0, 1 or 2", "Keypoints.visibility")
        if self.scores is not None:
            object.__setattr__(self, "scores", checked_array(self.scores, np.float32, (n, k), "Keypoints.scores"))

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Any) -> Keypoints:
        """The points of the chosen objects: a boolean array over all, or indices in the order wanted."""
        chosen = np.arange(len(self))[rows]
        names = tuple(self.names[i] for i in chosen.tolist())
        scores = None if self.scores is None else self.scores[chosen]
        return Keypoints(self.xy[chosen], self.visibility[chosen], names, scores)
