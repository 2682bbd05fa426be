"""COCO: `images/*.png` and `annotations/instances.json`, `annotations/captions.json`; with splits `images/train/*.png`,
`annotations/instances_train.json` and so on.

Every object is one annotation with run lengths; `iscrowd` is 1 for objects that stand for a group. Where a sample has no
instances, each label of its semantic map is one annotation; `background` and ignored pixels are none. Objects known as boxes
only have a `bbox` and an empty `segmentation`. Depth maps, which COCO cannot hold, go to `depth/*.png`: 16 bits, 1/256 m per
step, 0 where there is none (KITTI's convention).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from datasetdm.exporters.coco_rows import INFO, category_row, object_rows, write_image_row
from datasetdm.exporters.streams import JsonLists
from datasetdm.exporters.target import ByPart, Target
from datasetdm.records import BACKGROUND, Sample


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write images and annotations as they come."""
    category = {i: i + 1 for i, n in enumerate(target.labels.names) if n != BACKGROUND}
    categories = [category_row(k, target.labels.names[i], target.labels) for i, k in category.items()]
    with ExitStack() as files:

        def opened(part: str) -> tuple[JsonLists, JsonLists]:
            kinds = (f"instances_{part}.json", f"captions_{part}.json") if part else ("instances.json", "captions.json")
            both = [JsonLists(target.folder / "annotations" / name, "images", "annotations") for name in kinds]
            for file in both:
                files.enter_context(file).head |= {"info": INFO, "licenses": []}
            both[0].head |= {"categories": categories}
            return both[0], both[1]

        by_part = ByPart(opened, target.parts)
        for sample in samples:
            instances, captions = by_part[sample.split]
            number = instances.count["images"] + 1
            image = write_image_row(sample, number, target)
            for annotation in object_rows(sample, category):
                instances.add(
                    "annotations", {"id": instances.count["annotations"] + 1, "image_id": number} | annotation
                )
            instances.add("images", image)
            captions.add("images", image)
            if "caption" in image:
                row = {"id": captions.count["annotations"] + 1, "image_id": number, "caption": image["caption"]}
                captions.add("annotations", row)
            yield
        by_part.at_least("")
