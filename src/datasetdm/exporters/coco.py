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
from datasetdm.errors import DataError
from datasetdm.files import safe_name, write_json, writing
from datasetdm.types import BACKGROUND, IGNORE, DepthMap, Instances, Labels, Sample, SemanticMap

DEPTH_STEP = 1 / 256
DESCRIPTION = "made by datasetdm"


def export(samples: Iterable[Sample], labels: Labels, folder: Path) -> Iterator[None]:
    """Write pictures as they come, then the annotation files."""
    category = {i: i + 1 for i, n in enumerate(labels.names) if n != BACKGROUND}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for sample in samples:
        images.append(_image(sample, len(images) + 1, folder))
        for label, rle, score in _regions(sample):
            if label in category:
                box, area = rle_box(rle)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": images[-1]["id"],
                        "category_id": category[label],
                        "segmentation": rle,
                        "bbox": box,
                        "area": area,
                        "iscrowd": 0,
                        "score": score,
                    }
                )
        yield
    categories = [{"id": k, "name": labels.names[i], "supercategory": ""} for i, k in category.items()]
    info = {"description": DESCRIPTION}
    content = dict(info=info, licenses=[], images=images, annotations=annotations, categories=categories)
    write_json(folder / "annotations" / "instances.json", content, indent=None)
    write_json(folder / "annotations" / "captions.json", _captions(images, info), indent=None)


def _image(sample: Sample, number: int, folder: Path) -> dict[str, Any]:
    """Write one picture and its depth; its entry in the file."""
    name = f"{safe_name(sample.key)}.png"
    if (folder / "images" / name).exists():
        raise DataError(f"two samples have the key {sample.key!r}", expected="unique keys", remedy="rename one of them")
    _write(folder / "images" / name, encode_png(sample.image))
    depth = sample.annotations.get("depth")
    if isinstance(depth, DepthMap) and depth.unit == "metre":
        steps = np.clip(np.rint(depth.depth / DEPTH_STEP), depth.valid, 65535).astype(np.uint16)
        _write(folder / "depth" / name, encode_png(steps))
    h, w = sample.size
    entry = {"id": number, "file_name": name, "width": w, "height": h}
    return entry | ({"caption": sample.prompt.text} if sample.prompt else {})


def _regions(sample: Sample) -> Iterator[tuple[int, dict[str, Any], float]]:
    """(label id, run lengths, score) of every object, or of every label of the semantic map."""
    objects, semantic = sample.annotations.get("instance"), sample.annotations.get("semantic")
    if isinstance(objects, Instances):
        for mask, label, score in zip(objects.masks, objects.label_ids.tolist(), objects.scores.tolist(), strict=True):
            yield label, encode_rle(mask), round(score, 4)
    elif isinstance(semantic, SemanticMap):
        for label in np.unique(semantic.ids[semantic.ids != IGNORE]).tolist():
            mask = semantic.ids == label
            sure = 1.0 if semantic.confidence is None else float(semantic.confidence[mask].astype(np.float64).mean())
            yield label, encode_rle(mask), round(sure, 4)


def _captions(images: list[dict[str, Any]], info: dict[str, str]) -> dict[str, Any]:
    told = [i for i in images if "caption" in i]
    rows = [{"id": n, "image_id": i["id"], "caption": i["caption"]} for n, i in enumerate(told, 1)]
    return {"info": info, "images": images, "annotations": rows}


def _write(path: Path, data: bytes) -> None:
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
