"""COCO: `images/*.png` and `annotations/instances.json`, `annotations/captions.json`; with splits `images/train/*.png`,
`annotations/instances_train.json` and so on.

Every object is one annotation with run lengths and `iscrowd` 0 (evaluation ignores crowds). Where a sample has no
instances, each label of its semantic map is one annotation; `background` and ignored pixels are none. Objects known as boxes
only have a `bbox` and an empty `segmentation`. Depth maps, which COCO cannot hold, go to `depth/*.png`: 16 bits, 1/256 m a
step, 0 where there is none (KITTI's convention).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from datasetdm.exporters.formats.depth import depth_steps, write_map
from datasetdm.exporters.objects import object_rows
from datasetdm.exporters.streams import JsonLists
from datasetdm.exporters.target import Target
from datasetdm.records import BACKGROUND, Labels, Sample

DESCRIPTION = "made by datasetdm"
INFO = {"description": DESCRIPTION}
"""The head of every file in COCO's style."""


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write pictures and annotations as they come."""
    category = {i: i + 1 for i, n in enumerate(target.labels.names) if n != BACKGROUND}
    categories = [category_row(k, target.labels.names[i], target.labels) for i, k in category.items()]
    with ExitStack() as files:
        instances, captions = (
            {p: files.enter_context(_file(target, kind, p)) for p in target.parts} for kind in ("instances", "captions")
        )
        for sample in samples:
            part = target.part(sample)
            number = instances[part].count["images"] + 1
            image = write_picture(sample, number, part, target)
            for annotation in object_rows(sample, category):
                row = {"id": instances[part].count["annotations"] + 1, "image_id": number} | annotation
                instances[part].add("annotations", row)
            instances[part].add("images", image)
            captions[part].add("images", image)
            if "caption" in image:
                row = {"id": captions[part].count["annotations"] + 1, "image_id": number, "caption": image["caption"]}
                captions[part].add("annotations", row)
            yield
        for file in instances.values():
            file.head |= {"categories": categories}


def _file(target: Target, kind: str, part: str) -> JsonLists:
    name = f"{kind}_{part}.json" if part else f"{kind}.json"
    file = JsonLists(target.folder / "annotations" / name, "images", "annotations")
    file.head |= {"info": INFO, "licenses": []}
    return file


def write_picture(sample: Sample, number: int, part: str, target: Target) -> dict[str, Any]:
    """Write one picture and its depth; its entry in the file."""
    name = target.picture(sample, "images", part)
    if (steps := depth_steps(sample)) is not None:
        write_map((target.folder / "depth" / part / name).with_suffix(".png"), steps)
    h, w = sample.size
    entry = {"id": number, "file_name": name, "width": w, "height": h}
    return entry | ({"caption": sample.prompt.text} if sample.prompt else {})


def category_row(number: int, name: str, labels: Labels) -> dict[str, Any]:
    """A category of COCO, which counts points from 1."""
    bones = labels.skeletons.get(name)
    extra = {"keypoints": list(bones.points), "skeleton": [[a + 1, b + 1] for a, b in bones.edges]} if bones else {}
    return {"id": number, "name": name, "supercategory": ""} | extra
