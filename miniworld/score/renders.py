"""Labelled renders as arrays: what the oracle learns from and what generated images are compared with."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

CATEGORIES = (
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "table", "dog", "horse",
    "person", "plant", "sheep", "sofa", "tv",
)  # fmt: skip
"""Things, as the renders' column `objects` calls them."""
PLACES = ("airport", "beach", "desert", "grass", "room", "sea", "sky", "snow", "street", "studio", "tabletop")
CLASSES = 33
"""Ids of the pixel labels: 0 to 32."""
MOST = 3
"""Counts above are treated as this one."""
_IMPLIED = 50
"""Objects from this id on (chairs under people) are in no caption."""


@dataclass(frozen=True)
class Renders:
    """images: u8[n 3 128 128]. classes: u8[n 128 128]. counts: objects in the caption by category, i64[n c]. seen: all
    that cover at least 0.2 % of the image, chairs under people included. places: i64[n]."""

    images: Tensor
    classes: Tensor
    captions: list[str]
    counts: Tensor
    seen: Tensor
    places: Tensor

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, rows: slice) -> Renders:
        tensors = (self.images, self.classes, self.counts, self.seen, self.places)
        images, classes, counts, seen, places = (t[rows] for t in tensors)
        return Renders(images, classes, self.captions[rows], counts, seen, places)


def read_renders(folder: Path, splits: Sequence[str]) -> Renders:
    """All renders of these splits, in the files' order."""
    files = [f for split in splits for f in sorted(folder.glob(f"{split}-*.parquet"))]
    if not files:
        raise SystemExit(f"error: {folder} holds no {' or '.join(splits)} renders (*.parquet)")
    columns = ["caption", "place", "objects", "image", "classes"]
    rows = [row for f in files for row in pq.read_table(f, columns=columns).to_pylist()]
    with ThreadPoolExecutor() as pool:
        images = torch.from_numpy(np.stack(list(pool.map(lambda r: _pixels(r["image"], "RGB"), rows))))
        classes = torch.from_numpy(np.stack(list(pool.map(lambda r: _pixels(r["classes"], "L"), rows))))
    objects = [json.loads(row["objects"]) for row in rows]
    visible = [[o for o in own if o["id"] < _IMPLIED] for own in objects]
    seen = [[o for o in own if o["area"] >= 0.002] for own in objects]
    return Renders(
        images.movedim(-1, 1).contiguous(),
        classes,
        [row["caption"] for row in rows],
        _count(visible),
        _count(seen),
        torch.tensor([PLACES.index(row["place"]) for row in rows]),
    )


def _count(objects: Sequence[Sequence[dict]]) -> Tensor:
    counts = torch.zeros(len(objects), len(CATEGORIES), dtype=torch.int64)
    for row, own in zip(counts, objects, strict=True):
        for thing in own:
            row[CATEGORIES.index(thing["cat"])] += 1
    return counts


def _pixels(data: bytes, mode: str) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert(mode))
