"""Renders rows of a Parquet file again and compares them: python -m miniworld.verify PARQUET [--rows N] [--spp N].

Words, classes and instances must be the same. So are images and depths on the same kind of processor with the
same libraries; others change the noise of the path tracing and, here and there, the last bit of a depth.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from . import WORLD_VERSION
from .recipe import SPLITS, UNLABELLED_SPLIT
from .render import members

WORDS = ("caption", "place", "light", "objects", "keypoints")
MAPS = ("classes", "instances", "depth")


@dataclass
class Difference:
    """How a row differs from the same sample rendered again."""

    words: list[str]
    """Columns whose text differs."""
    pixels: dict[str, int]
    """Pixels that differ, by label map."""
    image: float
    """Mean difference of the images, in steps of 1/255."""

    @property
    def matters(self) -> bool:
        """Whether it is more than another processor's rounding, which the last bit of a depth may show."""
        return bool(self.words or self.pixels["classes"] or self.pixels["instances"])


def main(arguments: list[str] | None = None) -> None:
    """The command line; the exit status is 1 when a label or a word differs."""
    parser = argparse.ArgumentParser(prog="python -m miniworld.verify", description="Compare data with new renders.")
    parser.add_argument("parquet", type=Path)
    parser.add_argument("--rows", type=int, default=20, help="how many rows, from the first on")
    parser.add_argument("--spp", type=int, help="samples a pixel (9 for captioned, 16 for the labelled splits)")
    options = parser.parse_args(arguments)
    try:
        same = verify(options.parquet, options.rows, options.spp)
    except (RuntimeError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if same else 1)


def verify(parquet: Path, rows: int, samples_per_pixel: int | None) -> bool:
    """Prints every difference in the words and the labels and the mean one of the images."""
    from .renderer import use_one_thread

    use_one_thread()
    if not parquet.is_file():
        raise ValueError(f"there is no file {parquet}")
    table = pq.read_table(parquet)
    version = int((table.schema.metadata or {}).get(b"world_version", b"1"))
    if version != WORLD_VERSION:
        raise ValueError(f"{parquet} shows version {version} of the world, this is version {WORLD_VERSION}")
    differences = []
    for row in table.slice(0, rows).to_pylist():
        difference = compare(row, samples_per_pixel)
        differences.append(difference)
        if difference.matters:
            print(f"{row['key']}: other words in {difference.words}, other pixels {difference.pixels}", flush=True)
    total = {name: sum(d.pixels.get(name, 0) for d in differences) for name in MAPS}
    wrong_words = sum(bool(d.words) for d in differences)
    image = np.mean([d.image for d in differences])
    print(f"{len(differences)} samples: {wrong_words} with other words, pixels that differ {total}, ", end="")
    print(f"images {image:.3f}/255 apart on the mean")
    return not any(d.matters for d in differences)


def compare(row: dict, samples_per_pixel: int | None = None) -> Difference:
    """Renders a row's sample again."""
    from .sample import render_sample

    split, index = row["key"].split("-")
    labelled = split != UNLABELLED_SPLIT
    sample = render_sample(SPLITS[split] + int(index), samples_per_pixel or (16 if labelled else 9))
    files = {name.split(".", 1)[1]: data for name, data in members(row["key"], sample, labelled)}
    info = sample.info | {name: json.dumps(sample.info[name]) for name in ("objects", "keypoints")}
    image = _decoded(files["jpg" if labelled else "webp"]) - _decoded(row["image"])
    return Difference(
        words=[name for name in WORDS if info[name] != row[name]],
        pixels={
            name: int((_decoded(files[f"{name}.png"]) != _decoded(row[name])).sum())
            for name in MAPS
            if row[name] is not None
        },
        image=float(abs(image).mean()),
    )


def _decoded(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data))).astype(int)


if __name__ == "__main__":
    main()
