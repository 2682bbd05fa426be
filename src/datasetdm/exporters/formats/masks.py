"""Images and label maps in folders: `images/NAME.png`, `masks/NAME.png`, `depth/NAME.png`, `instances/NAME.png`.

`masks`: palette PNG, a pixel's value is its label's id, 255 is ignored; with more than 255 labels 16 bits and 65535.
`classes.json` says which label a value is. `depth`: 16 bits, millimetres (NYU Depth v2's common convention), 0 where unknown
or beyond 65.5 m. `instances`: 16 bits, the object's number from 1, smaller objects on top, none where only boxes are known.
With splits every folder has one folder per split. Scores, confidences, crowds and points have no place here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from datasetdm.exporters.maps import IGNORED, NYU, depth_steps, encode_palette_png, small_ids, write_legend, write_map
from datasetdm.exporters.objects import paint, without_crowds
from datasetdm.exporters.target import Target
from datasetdm.io.files import write_bytes
from datasetdm.records import Sample


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write every kind of label that a sample has."""
    write_legend(target)
    small = len(target.labels) <= IGNORED
    for sample in map(without_crowds, samples):
        name = Path(sample.split, target.write_image(sample, "images", sample.split)).with_suffix(".png")
        semantic, objects = sample.semantic, sample.instances
        if semantic is not None and small:
            write_bytes(target.folder / "masks" / name, encode_palette_png(small_ids(semantic)))
        elif semantic is not None:
            write_map(target.folder / "masks" / name, semantic.ids)
        if (steps := depth_steps(sample, NYU)) is not None:
            write_map(target.folder / "depth" / name, steps)
        if objects is not None and not objects.boxed:
            write_map(
                target.folder / "instances" / name,
                paint(objects.masks, np.arange(1, len(objects) + 1, dtype=np.uint16)),
            )
        yield
