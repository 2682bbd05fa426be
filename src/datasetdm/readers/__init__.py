"""Labelled data in other formats, as samples. A new format is a file in `formats` and one line in `READERS`.

An installed package adds one by an entry point of the group `datasetdm.readers` (see `examples/plugin`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from datasetdm.errors import ConfigError, DataError, DatasetDMError, unknown_name
from datasetdm.io.registry import Registry
from datasetdm.readers.source import OnError, Source, ValidatingReader, as_data_error
from datasetdm.records import Labels, Sample

READERS: Registry[Callable[[str, Path | None], Source]] = Registry(
    "format",
    "datasetdm.readers",
    {
        "cityscapes": "datasetdm.readers.formats.cityscapes:CityscapesSource",
        "coco": "datasetdm.readers.formats.coco:CocoSource",
        "coco-panoptic": "datasetdm.readers.formats.coco_panoptic:PanopticSource",
        "deepfashion": "datasetdm.readers.formats.deepfashion:DeepFashionSource",
        "hf": "datasetdm.readers.formats.hf:HfSource",
        "images": "datasetdm.readers.formats.images:ImagesSource",
        "kitti": "datasetdm.readers.formats.kitti:KittiSource",
        "lvis": "datasetdm.readers.formats.lvis:LvisSource",
        "masks": "datasetdm.readers.formats.masks:MasksSource",
        "mini": "datasetdm.readers.formats.mini:MiniSource",
        "nyu": "datasetdm.readers.formats.nyu:open_nyu",
        "store": "datasetdm.readers.formats.store:StoreSource",
        "vkitti": "datasetdm.readers.formats.vkitti:VkittiSource",
        "voc": "datasetdm.readers.formats.voc:VocSource",
        "yolo": "datasetdm.readers.formats.yolo:YoloSource",
    },
)
"""Format name -> its `Source`, called with the path and the folder of the images (None: where the format has them)."""


@runtime_checkable
class Reader(Protocol):
    """A labelled data set: everything is checked when it is opened, images are read while it is iterated."""

    labels: Labels

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]:
        """Samples in a fixed order, from the start each time."""
        ...


def read(data: str, images: Path | str | None = None, on_error: OnError = "stop") -> ValidatingReader:
    """Open labelled data named as FORMAT:PATH.

    Args:
        data: for instance `mini:train`, `coco:annotations/instances.json`, `voc:VOC2012@val`, `store:out`.
        images: folder of the images, where the format does not say.
        on_error: what a bad sample does: "stop" the work, or "skip" it, counted in the reader's `skipped`.

    Returns:
        A reader whose samples were checked, as far as that needs no pixels.

    Raises:
        ConfigError: an unknown format.
        DataError: data that are not what they say.
    """
    name, colon, path = data.partition(":")
    if not colon or not path:
        raise ConfigError(f"data {data!r} names no format", expected="FORMAT:PATH, for instance coco:annotations.json")
    if on_error not in ("stop", "skip"):
        raise unknown_name("on_error", on_error, ("stop", "skip"))
    try:
        source = READERS.load(name)(path, Path(images) if images is not None else None)
    except DataError as e:
        if str(e.where).startswith("Labels"):  # which do not know the file that names them
            e.where, e.remedy = path, e.remedy or "rename one of the classes there"
        raise
    except (DatasetDMError, ImportError):
        raise
    except Exception as e:  # of the format's files, or of a plug-in
        raise as_data_error(e, Path(path)) from e
    return ValidatingReader(source, on_error)
