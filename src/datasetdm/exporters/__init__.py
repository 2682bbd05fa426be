"""Samples in other formats. A new format is a file here and one line in `EXPORTERS`."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from datasetdm.errors import OutputError, unknown_name
from datasetdm.exporters.options import Options, prepare
from datasetdm.exporters.prefetch import ahead
from datasetdm.exporters.target import Target
from datasetdm.io.files import writing
from datasetdm.records import Labels, Sample
from datasetdm.store import Store
from datasetdm.store.reviews import reviewed

EXPORTERS = {
    "coco": "datasetdm.exporters.formats.coco:export",
    "coco-panoptic": "datasetdm.exporters.formats.panoptic:export",
    "cvat": "datasetdm.exporters.formats.cvat:export",
    "depth-exr": "datasetdm.exporters.formats.depth:export_exr",
    "depth-kitti": "datasetdm.exporters.formats.depth:export_kitti",
    "depth-npy": "datasetdm.exporters.formats.depth:export_npy",
    "fiftyone": "datasetdm.exporters.formats.fiftyone:export",
    "hf": "datasetdm.exporters.formats.hf:export",
    "label-studio": "datasetdm.exporters.formats.labelstudio:export",
    "masks": "datasetdm.exporters.formats.masks:export",
    "voc": "datasetdm.exporters.formats.voc:export",
    "webdataset": "datasetdm.exporters.formats.webdataset:export",
    "yolo-detect": "datasetdm.exporters.formats.yolo:export_detect",
    "yolo-pose": "datasetdm.exporters.formats.yolo:export_pose",
    "yolo-seg": "datasetdm.exporters.formats.yolo:export_seg",
}
"""Format name -> a function (samples, target) that yields once a sample written, in constant memory."""


Exporter = Callable[[Iterable[Sample], Target], Iterator[None]]


def export(store: Store | Path | str, format: str, out: Path | str, options: Options | None = None) -> int:
    """Write a store in another format; returns the number of samples."""
    opened = store if isinstance(store, Store) else Store(store)
    return sum(1 for _ in iter_export(opened, opened.labels, format, out, options))


def iter_export(
    samples: Iterable[Sample], labels: Labels, format: str, out: Path | str, options: Options | None = None
) -> Iterator[None]:
    """`export` as a generator that yields after every sample; the folder appears when all of it is there.

    Of a store, samples that people rejected are left out, and labels that they fixed are fixed.

    Raises:
        ConfigError: an unknown format or label. OutputError: `out` holds files already.
        DataError: a sample that the format cannot hold, or two samples of one key.
    """
    if format not in EXPORTERS:
        raise unknown_name("format", format, EXPORTERS)
    module, function = EXPORTERS[format].split(":")
    folder, chosen = Path(out), options or Options()
    require_free(folder)
    write = getattr(importlib.import_module(module), function)
    stream, labels = prepare(reviewed(samples), labels, chosen)
    return _export(write, stream, Target(folder, labels, chosen.splits, chosen.link, chosen.licence))


def _export(write: Exporter, samples: Generator[Sample], target: Target) -> Iterator[None]:
    """Write beside the folder, then give it its name."""
    folder = target.folder
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        yield from write(ahead(samples), replace(target, folder=temporary))
        with writing(folder):
            temporary.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_free(folder: Path) -> None:
    """Refuse an output folder that holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            "the output folder is not empty",
            where=folder,
            expected="a new folder",
            remedy="choose another --out, or delete it",
        )
