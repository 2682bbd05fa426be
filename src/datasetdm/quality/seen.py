"""What a teacher is: a model of the user's that says what it sees in an image, to compare annotations with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int64

from datasetdm.errors import ConfigError
from datasetdm.records import Keypoints, Labels, Sample

LEAST_SCORE = 0.5
"""Objects of a lower score are not seen."""
UNNAMED = "N/A"
"""What models of COCO call the numbers that mean nothing; there may be several."""


@dataclass(frozen=True)
class Boxes:
    """Objects as boxes (x, y, width, height) in pixels, with their labels."""

    xywh: Float64[np.ndarray, "n 4"]
    label_ids: Int64[np.ndarray, "n"]

    @classmethod
    def from_corners(cls, corners: np.ndarray, label_ids: np.ndarray) -> Boxes:
        """From f[n 4] (left, top, right, bottom)."""
        xyxy = np.asarray(corners, np.float64).reshape(-1, 4)
        return cls(np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], 1), np.asarray(label_ids, np.int64))


@dataclass(frozen=True)
class Seen:
    """What a teacher sees in one image; None is what it does not look for.

    Args:
        probabilities: of every label at every pixel; their sum is at most 1.
        boxes: the objects.
        keypoints: those of the sample's own objects, in their order.
    """

    probabilities: Float32[np.ndarray, "l h w"] | None = None
    boxes: Boxes | None = None
    keypoints: Keypoints | None = None


@runtime_checkable
class Teacher(Protocol):
    """A model that says what it sees."""

    @property
    def labels(self) -> Labels:
        """What it can see."""
        ...

    def look(self, sample: Sample) -> Seen:
        """What it sees in the sample's image, at the image's own size.

        Args:
            sample: in the teacher's labels. Of its annotations only the objects' places may be used, and only by a model
                that cannot do without, as one of keypoints.
        """
        ...


def labels_of(names: Sequence[str], where: Path) -> Labels:
    """Raises ConfigError for names that are there twice."""
    own = [f"{n} {i}" if n == UNNAMED else n for i, n in enumerate(names)]
    if len({n.lower() for n in own}) < len(own):
        raise ConfigError("two labels of the teacher have one name", where=where, expected="different names")
    return Labels(tuple(own))


def read_json(path: Path) -> dict[str, Any]:
    """A file beside a model. Raises ConfigError if it cannot be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as e:
        raise ConfigError(f"the file cannot be read: {e}", where=path, expected="JSON of transformers") from e
