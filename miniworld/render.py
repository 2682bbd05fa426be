"""Renders a slice of a split into a tar: python -m miniworld.render OUT SPLIT FIRST COUNT [--spp N].

OUT/SPLIT-FIRST.tar holds, for every sample KEY:
  KEY.webp or .jpg    128 x 128 sRGB image (JPEG in the labelled splits)
  KEY.json            caption, place, light, field of view, objects, keypoints
  KEY.classes.png     uint8 class of every pixel: 1..20 things, 21..32 surroundings
  KEY.instances.png   uint8 object id of every pixel, 0 none
  KEY.depth.png       uint16 z-depth in 1/256 m, 0 none; labelled splits only
A finished tar is left alone, so a stopped job can be started again.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .recipe import SPLITS, UNLABELLED_SPLIT

if TYPE_CHECKING:
    from .sample import Sample

MAX_DEPTH = 255.9
"""Metres that a depth map can hold."""


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m miniworld.render", description="Render a slice of a split.")
    parser.add_argument("out", type=Path, help="folder for the tar")
    parser.add_argument("split", choices=SPLITS)
    parser.add_argument("first", type=_whole_number(0), help="index of the first sample")
    parser.add_argument("count", type=_whole_number(1), help="how many samples")
    parser.add_argument(
        "--spp", type=_whole_number(1), help="samples a pixel (9 for captioned, 16 for the labelled splits)"
    )
    options = parser.parse_args(arguments)
    if options.first + options.count > SPLITS["train"]:
        parser.error(f"a split holds {SPLITS['train']} samples")
    labelled = options.split != UNLABELLED_SPLIT
    samples_per_pixel = options.spp or (16 if labelled else 9)
    try:
        render_slice(options.out, options.split, options.first, options.count, samples_per_pixel)
    except (RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


def _whole_number(least: int):
    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more")
        return value

    parse.__name__ = "whole number"
    return parse


def render_slice(out: Path, split: str, first: int, count: int, samples_per_pixel: int) -> None:
    """Renders samples first .. first + count - 1 of a split, unless their tar is there already."""
    from .renderer import use_one_thread
    from .sample import render_sample

    path = out / f"{split}-{first:06d}.tar"
    if path.exists():
        print(f"{path} is there already")
        return
    out.mkdir(parents=True, exist_ok=True)
    use_one_thread()
    started = time.monotonic()
    part = path.with_suffix(".tar.part")
    with tarfile.open(part, "w") as tar:
        for index in range(first, first + count):
            sample = render_sample(SPLITS[split] + index, samples_per_pixel)
            for name, data in members(f"{split}-{index:06d}", sample, split != UNLABELLED_SPLIT):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    part.rename(path)
    seconds = (time.monotonic() - started) / count
    print(f"{path}: {seconds:.2f} s and {path.stat().st_size // count} bytes a sample", flush=True)


def members(key: str, sample: Sample, labelled: bool) -> Iterator[tuple[str, bytes]]:
    """The files of a sample: name and content."""
    if labelled:
        yield f"{key}.jpg", _encoded(sample.image, "JPEG", quality=95, subsampling=0)
        yield f"{key}.depth.png", _encoded(quantized_depth(sample.labels.depth), "PNG", optimize=True)
    else:
        yield f"{key}.webp", _encoded(sample.image, "WEBP", quality=92, method=6)
    yield f"{key}.classes.png", _encoded(sample.labels.classes, "PNG", optimize=True)
    yield f"{key}.instances.png", _encoded(sample.labels.instances, "PNG", optimize=True)
    yield f"{key}.json", json.dumps(sample.info, separators=(",", ":")).encode()


def quantized_depth(depth: np.ndarray) -> np.ndarray:
    """Depth (h, w) in metres as uint16 in 1/256 m, 0 where there is none or it is too far."""
    return np.where((depth > 0) & (depth < MAX_DEPTH), depth * 256 + 0.5, 0).astype(np.uint16)


def _encoded(image: np.ndarray, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, image_format, **options)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
