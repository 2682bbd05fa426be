"""Dense annotations: a label for every pixel, a distance for every pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float16, Float32, UInt16

from datasetdm.records.checks import checked_array, checked_confidence, require


@dataclass(frozen=True)
class SemanticMap:
    """A label for every pixel.

    Args:
        ids: index into the sample's `Labels`, or `IGNORE`.
        confidence: probability that the id is right, 0 to 1, in steps of 1/255.
    """

    ids: UInt16[np.ndarray, "h w"]
    confidence: Float16[np.ndarray, "h w"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", checked_array(self.ids, np.uint16, (None, None), "SemanticMap.ids"))
        confidence = checked_confidence(self.confidence, self.ids.shape, "SemanticMap.confidence")
        object.__setattr__(self, "confidence", confidence)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.ids.shape


@dataclass(frozen=True)
class DepthMap:
    """Distance along the optical axis (z-depth).

    Args:
        depth: metres if `unit` is "metre"; "relative" is 0..1 of an unknown range. 0 where it is not valid.
        valid: False where there is no depth (sky, missing measurement).
        confidence: probability that the depth is right within a factor of 1.25, 0 to 1, in steps of 1/255; 0 where not valid.
    """

    depth: Float32[np.ndarray, "h w"]
    valid: Bool[np.ndarray, "h w"]
    unit: Literal["metre", "relative"] = "metre"
    confidence: Float16[np.ndarray, "h w"] | None = None

    def __post_init__(self) -> None:
        valid = checked_array(self.valid, np.bool_, (None, None), "DepthMap.valid")
        depth = checked_array(self.depth, np.float32, valid.shape, "DepthMap.depth")
        cleaned = np.where(valid, depth, np.float32(0))
        good = bool(cleaned.min(initial=0) >= 0 and cleaned.max(initial=0) < np.inf)  # NaN is neither
        require(good, "valid depth is negative or not finite", "finite values of at least 0", "DepthMap.depth")
        require(self.unit in ("metre", "relative"), f"unknown unit {self.unit!r}", "metre | relative", "DepthMap.unit")
        object.__setattr__(self, "valid", valid)
        object.__setattr__(self, "depth", checked_array(cleaned, np.float32, valid.shape, "DepthMap.depth"))
        confidence = checked_confidence(self.confidence, valid.shape, "DepthMap.confidence")
        if confidence is not None:
            bits = confidence.view(np.uint16) * valid  # many times as fast as a product of half floats
            confidence = checked_array(bits.view(np.float16), np.float16, valid.shape, "DepthMap.confidence")
        object.__setattr__(self, "confidence", confidence)

    @property
    def step(self) -> float:
        """Size of one step of 16-bit storage: 1/256 m (KITTI's convention) up to 255 m, coarser beyond."""
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
