"""How long reading COCO's annotations takes, as a multiple of pycocotools' load time.

`CocoFile` parses and checks a whole annotation file, `COCO` of pycocotools parses and indexes it; neither opens an image.
Runs alternate, so that a busy machine slows both, and the figure is the median of the paired ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from datasetdm.readers.coco_file import CocoFile

IMAGES, OBJECTS, POINTS, CROWDS = 5_000, 7, 22, 0.01
"""Images; objects per image and points per outline (means, near COCO 2017's); share of crowds, which are run lengths."""


def write_annotations(path: Path, images: int = IMAGES, seed: int = 0) -> None:
    """A file as COCO's `instances_*.json`: 640x480 images, 80 categories, outlines with hundredths of a pixel."""
    rng = np.random.default_rng(seed)
    content: dict[str, Any] = {
        "info": {"description": "synthesised"},
        "images": [
            {"id": i, "file_name": f"{i:012d}.jpg", "width": 640, "height": 480, "license": 1} for i in range(images)
        ],
        "categories": [{"id": i, "name": f"category {i}", "supercategory": "thing"} for i in range(1, 81)],
        "annotations": [],
    }
    for image in range(images):
        for _ in range(rng.poisson(OBJECTS)):
            number = len(content["annotations"]) + 1
            content["annotations"].append(_annotation(rng, number, image))
    path.write_text(json.dumps(content))


def _annotation(rng: np.random.Generator, number: int, image: int) -> dict[str, Any]:
    own = {"id": number, "image_id": image, "category_id": int(rng.integers(1, 81)), "area": 1.0, "bbox": [0, 0, 9, 9]}
    if rng.random() < CROWDS:
        runs = rng.multinomial(640 * 480, np.full(301, 1 / 301)).tolist()
        return own | {"iscrowd": 1, "segmentation": {"size": [480, 640], "counts": runs}}
    return own | {"iscrowd": 0, "segmentation": [_outline(rng) for _ in range(1 + (rng.random() < 0.2))]}


def _outline(rng: np.random.Generator) -> list[float]:
    """A star around a point, inside the image."""
    turns = np.sort(rng.random(max(3, rng.poisson(POINTS)))) * 2 * np.pi
    radius = rng.uniform(10, 60) * rng.uniform(0.6, 1, len(turns))
    x, y = rng.uniform(70, 570) + radius * np.cos(turns), rng.uniform(70, 410) + radius * np.sin(turns)
    return np.stack([x, y], -1).ravel().round(2).tolist()


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - start
    del kept  # freeing it is not counted
    return seconds


def _pycocotools(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def coco_read_ratio(images: int = IMAGES, repeats: int = 9) -> float:
    """Our time over pycocotools', the median of paired runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        write_annotations(path, images)
        pairs = [(_seconds(lambda: CocoFile(path)), _seconds(lambda: _pycocotools(path))) for _ in range(repeats + 1)]
    return statistics.median(ours / theirs for ours, theirs in pairs[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, default=IMAGES, help="images of the annotation file (default: %(default)s)"
    )
    options = parser.parse_args()
    print(json.dumps({"coco_read_ratio": round(coco_read_ratio(options.images), 3)}))


if __name__ == "__main__":
    main()
