"""COCO: `images/*.png` and `annotations/instances.json`, `annotations/captions.json`.

Every object is one annotation with run lengths and `iscrowd` 0 (evaluation ignores crowds). Where a sample has no
instances, each label of its semantic map is one annotation; `background` and ignored pixels are none. Depth maps, which
COCO cannot hold, go to `depth/*.png`: 16 bits, 1/256 m a step, 0 where there is none (KITTI's convention).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datasetdm.codecs import encode_png, encode_rle, rle_box
from datasetdm.exporters.objects import objects_of
from datasetdm.files import claim_name, write_bytes, write_json
from datasetdm.types import BACKGROUND, DepthMap, Instances, Keypoints, Labels, Sample

DEPTH_STEP = 1 / 256
DESCRIPTION = "made by datasetdm"


def export(samples: Iterable[Sample], labels: Labels, folder: Path) -> Iterator[None]:
    """Write pictures as they come, then the annotation files."""
    category = {i: i + 1 for i, n in enumerate(labels.names) if n != BACKGROUND}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for sample in samples:
        images.append(_image(sample, len(images) + 1, folder))
        objects = objects_of(sample)
        for n, (mask, label) in enumerate(zip(objects.masks, objects.label_ids.tolist(), strict=True)):
            if label in category:
                rle = encode_rle(mask)
                box, area = rle_box(rle)
                annotations.append(
                    _points(sample, n)
                    | {
                        "id": len(annotations) + 1,
                        "image_id": images[-1]["id"],
                        "category_id": category[label],
                        "segmentation": rle,
                        "bbox": box,
                        "area": area,
                        "iscrowd": 0,
                        "score": round(float(objects.scores[n]), 4),
                    }
                )
        yield
    categories = [_category(k, labels.names[i], labels) for i, k in category.items()]
    info = {"description": DESCRIPTION}
    content = dict(info=info, licenses=[], images=images, annotations=annotations, categories=categories)
    write_json(folder / "annotations" / "instances.json", content, indent=None)
    write_json(folder / "annotations" / "captions.json", _captions(images, info), indent=None)


def _image(sample: Sample, number: int, folder: Path) -> dict[str, Any]:
    """Write one picture and its depth; its entry in the file."""
    name = claim_name(folder / "images", sample.key, ".png")
    write_bytes(folder / "images" / name, encode_png(sample.image))
    depth = sample.annotations.get("depth")
    if isinstance(depth, DepthMap) and depth.unit == "metre":
        steps = np.clip(np.rint(depth.depth / DEPTH_STEP), depth.valid, 65535).astype(np.uint16)
        write_bytes(folder / "depth" / name, encode_png(steps))
    h, w = sample.size
    entry = {"id": number, "file_name": name, "width": w, "height": h}
    return entry | ({"caption": sample.prompt.text} if sample.prompt else {})


def _points(sample: Sample, n: int) -> dict[str, Any]:
    """The keypoints of the n-th object as x, y, v, in the order of its label's skeleton."""
    points, objects = sample.annotations.get("keypoints"), sample.annotations.get("instance")
    if not (isinstance(points, Keypoints) and isinstance(objects, Instances)):
        return {}
    skeleton = sample.labels.skeletons.get(sample.labels.names[int(objects.label_ids[n])])
    if skeleton is None or not points.names[n]:
        return {}
    own = {p: i for i, p in enumerate(points.names[n])}
    rows = [(points.xy[n, own[p]], int(points.visibility[n, own[p]])) if p in own else None for p in skeleton.points]
    flat = [v for r in rows for v in ((float(r[0][0]), float(r[0][1]), r[1]) if r and r[1] else (0, 0, 0))]
    return {"keypoints": flat, "num_keypoints": sum(v > 0 for v in flat[2::3])}


def _category(number: int, name: str, labels: Labels) -> dict[str, Any]:
    """COCO counts points from 1."""
    bones = labels.skeletons.get(name)
    extra = {"keypoints": list(bones.points), "skeleton": [[a + 1, b + 1] for a, b in bones.edges]} if bones else {}
    return {"id": number, "name": name, "supercategory": ""} | extra


def _captions(images: list[dict[str, Any]], info: dict[str, str]) -> dict[str, Any]:
    told = [i for i in images if "caption" in i]
    rows = [{"id": n, "image_id": i["id"], "caption": i["caption"]} for n, i in enumerate(told, 1)]
    return {"info": info, "images": images, "annotations": rows}
