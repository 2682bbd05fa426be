"""Stores in other formats. A new format is a file here and one line in `EXPORTERS`."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from datasetdm.errors import OutputError, unknown_name
from datasetdm.exporters.reviews import reviewed
from datasetdm.files import writing
from datasetdm.store import Store
from datasetdm.types import Labels, Sample

EXPORTERS = {
    "coco": "datasetdm.exporters.coco:export",
    "yolo-detect": "datasetdm.exporters.yolo:export_detect",
    "yolo-pose": "datasetdm.exporters.yolo:export_pose",
    "yolo-seg": "datasetdm.exporters.yolo:export_seg",
}
"""Format name -> a function (samples, labels, folder) that yields once a sample written."""


Exporter = Callable[[Iterable[Sample], Labels, Path], Iterator[None]]


def export(store: Store | Path | str, format: str, out: Path | str) -> int:
    """Write a store in another format; returns the number of samples."""
    opened = store if isinstance(store, Store) else Store(store)
    return sum(1 for _ in iter_export(opened, opened.labels, format, out))


def iter_export(samples: Iterable[Sample], labels: Labels, format: str, out: Path | str) -> Iterator[None]:
    """`export` as a generator that yields after every sample; the folder appears when all of it is there.

    Of a store, samples that people rejected are left out, and labels that they fixed are fixed.

    Raises:
        ConfigError: an unknown format. OutputError: `out` holds files already.
    """
    if format not in EXPORTERS:
        raise unknown_name("format", format, EXPORTERS)
    module, function = EXPORTERS[format].split(":")
    folder = Path(out)
    require_free(folder)
    return _export(getattr(importlib.import_module(module), function), reviewed(samples), labels, folder)


def _export(write: Exporter, samples: Iterable[Sample], labels: Labels, folder: Path) -> Iterator[None]:
    """Write beside the folder, then give it its name."""
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        yield from write(samples, labels, temporary)
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
