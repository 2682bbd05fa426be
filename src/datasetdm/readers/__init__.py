"""Labelled data in other formats, as samples. A new format is a file here and one line in `READERS`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from datasetdm.errors import ConfigError, unknown_name
from datasetdm.types import Labels, Sample

READERS = {
    "coco": "datasetdm.readers.coco:CocoReader",
    "images": "datasetdm.readers.images:ImagesReader",
    "mini": "datasetdm.readers.mini:MiniReader",
    "store": "datasetdm.readers.store:StoreReader",
    "yolo": "datasetdm.readers.yolo:YoloReader",
}
"""Format name -> its reader, called with (path, images)."""


@runtime_checkable
class Reader(Protocol):
    """A labelled set: everything is checked when it is opened, pictures are read while it is iterated."""

    labels: Labels

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]:
        """Samples in a fixed order, from the start each time."""
        ...


def read(data: str, images: Path | str | None = None) -> Reader:
    """Open labelled data named as FORMAT:PATH.

    Args:
        data: for instance `mini:train`, `coco:annotations/instances.json`, `store:out`.
        images: folder of the pictures, where the format does not say.

    Raises:
        ConfigError: an unknown format. DataError: data that are not what they say.
    """
    name, colon, path = data.partition(":")
    if not colon or not path:
        raise ConfigError(f"data {data!r} names no format", expected="FORMAT:PATH, for instance coco:annotations.json")
    if name not in READERS:
        raise unknown_name("format", name, READERS)
    module, cls = READERS[name].split(":")
    return getattr(importlib.import_module(module), cls)(path, Path(images) if images is not None else None)
