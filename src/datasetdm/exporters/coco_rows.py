"""The entries of COCO's JSON files, which other formats hold as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from datasetdm.exporters.maps import depth_steps, write_map
from datasetdm.exporters.objects import caption_of, objects_of, points_of
from datasetdm.exporters.target import Target
from datasetdm.io.codecs import compress_runs
from datasetdm.records import Labels, Sample

DESCRIPTION = "made by datasetdm"
INFO = {"description": DESCRIPTION}
"""The head of every file in COCO's style."""


def category_row(number: int, name: str, labels: Labels) -> dict[str, Any]:
    """A category of COCO, which counts points from 1."""
    skeleton = labels.skeletons.get(name)
    points = (
        {"keypoints": list(skeleton.points), "skeleton": [[a + 1, b + 1] for a, b in skeleton.edges]}
        if skeleton
        else {}
    )
    return {"id": number, "name": name, "supercategory": ""} | points


def write_image_row(sample: Sample, number: int, target: Target) -> dict[str, Any]:
    """Write one image and its depth; its entry in the file."""
    name = target.write_image(sample, "images", sample.split)
    if (steps := depth_steps(sample)) is not None:
        write_map((target.folder / "depth" / sample.split / name).with_suffix(".png"), steps)
    h, w = sample.size
    caption = caption_of(sample)
    entry = {"id": number, "file_name": name, "width": w, "height": h}
    return entry if caption is None else entry | {"caption": caption}


def object_rows(sample: Sample, category: Mapping[int, int]) -> Iterator[dict[str, Any]]:
    """The objects as COCO's annotations: category_id (by label id), segmentation (compressed run lengths; empty where only
    boxes are known), bbox, area, iscrowd, score, keypoints."""
    objects = objects_of(sample)
    areas = objects.masks.areas.tolist()
    for n, (runs, label) in enumerate(zip(objects.masks.runs, objects.label_ids.tolist(), strict=True)):
        if label in category:
            rle = {"size": list(objects.size), "counts": compress_runs(runs, objects.size)}
            points = points_of(sample, n)
            flat = [] if points is None else [v for x, y, s in points.tolist() for v in (x, y, int(s))]
            yield ({"keypoints": flat, "num_keypoints": sum(v > 0 for v in flat[2::3])} if flat else {}) | {
                "category_id": category[label],
                "segmentation": [] if objects.boxed else rle,
                "bbox": objects.boxes[n].tolist(),
                "area": float(areas[n]),
                "iscrowd": int(objects.crowd[n]),
                "score": round(float(objects.scores[n]), 4),
            }
