"""Samples in other formats. A new format is a file in `formats` and one line in `EXPORTERS`.

An installed package adds one by an entry point of the group `datasetdm.exporters`.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from datasetdm.errors import DataError, OutputError
from datasetdm.exporters.prefetch import ahead
from datasetdm.exporters.provenance import ExportProvenance
from datasetdm.exporters.target import Target
from datasetdm.io.files import locked, remove_leftovers, safe_name, writing
from datasetdm.io.registry import Registry
from datasetdm.io.remote import Place
from datasetdm.records import Labels, Sample
from datasetdm.store.store import Store
from datasetdm.transforms import Transform, accepted, apply
from datasetdm.transforms.reviews import reviews_of, store_of
from datasetdm.transforms.split import Split


@runtime_checkable
class Exporter(Protocol):
    """Writes one format."""

    def __call__(self, samples: Iterable[Sample], target: Target) -> Iterator[None]:
        """Write the samples into `target.folder`, an empty folder, in constant memory.

        Every sample of one part (`Sample.split`) belongs together; a sample without one belongs to the only part.

        Yields:
            None, once for every sample written. What is left to write follows after the last one.

        Raises:
            DataError: a sample that the format cannot hold.
            OSError: a place that cannot be written.
        """
        ...


EXPORTERS: Registry[Exporter] = Registry(
    "format",
    "datasetdm.exporters",
    {
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
    },
)
"""Format name -> its `Exporter`."""


def export(
    store: Store | Place | str,
    format: str,
    out: Path | str,
    transforms: Sequence[Transform] = (),
    *,
    link: bool = False,
    licence: str = "unknown",
) -> int:
    """Write a store in another format, its reviews applied; returns the number of samples. See `iter_export`."""
    opened = store if isinstance(store, Store) else Store(store)
    steps = (*reviews_of(opened), *transforms)
    return sum(1 for _ in iter_export(opened, opened.labels, format, out, steps, link=link, licence=licence))


def iter_export(
    samples: Iterable[Sample],
    labels: Labels,
    format: str,
    out: Path | str,
    transforms: Sequence[Transform] = (),
    *,
    link: bool = False,
    licence: str = "unknown",
    counts: Counter[str] | None = None,
) -> Iterator[None]:
    """Write samples in another format; yields after every sample. The folder appears when all of it is there.

    Args:
        samples: those that a filter rejected are left out.
        labels: their vocabulary.
        format: a name in `EXPORTERS`.
        out: a new or empty folder.
        transforms: what is done to the samples first, in this order.
        link: images that are files become links instead of copies.
        licence: of the data, an SPDX-like name, for formats that say so.
        counts: gets in how many of the images each label occurs.

    Raises:
        ConfigError: an unknown format, or a transform that does not fit the labels.
        OutputError: `out` holds files already, or cannot be written.
        DataError: a sample that the format cannot hold, or two samples of one key.
    """
    write, folder = EXPORTERS.load(format), Path(out)
    require_free(folder)
    stream, labels = apply(samples, labels, transforms)
    parts = next((tuple(t.parts) for t in reversed(transforms) if isinstance(t, Split)), ())
    made = ExportProvenance(store_of(samples), transforms)
    exportable = _exportable(made.counted(accepted(stream)), counts)
    return _export(write, format, exportable, Target(folder, labels, parts, link, licence), made)


def _export(
    write: Exporter, format: str, samples: Generator[Sample], target: Target, made: ExportProvenance
) -> Iterator[None]:
    """Write beside the folder, then give it its name."""
    folder = target.folder
    with _one_error(folder), locked(folder.parent / f".{folder.name}.lock", "folder"):
        remove_leftovers(folder.parent, folder.name)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        opened = os.open(temporary, os.O_RDONLY)  # open, so that no other folder gets its number
        try:
            own = replace(target, folder=temporary)
            yield from write(ahead(samples, size=lambda s: s.image.nbytes), own)
            made.write(format, own)
            if not os.path.samestat(os.fstat(opened), temporary.stat()):
                raise OutputError("the folder was deleted while it was written", where=folder, remedy="export again")
            temporary.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            temporary.rename(folder)
        finally:
            os.close(opened)
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _one_error(folder: Path) -> Generator[None]:
    """Whatever cannot be written below the folder, also what only closing a file finds out, as one error."""
    try:
        with writing(folder):
            yield
    except OutputError as e:
        full = e.remedy is not None and e.remedy.startswith("free some space")
        remedy = "free some space, then export again; nothing was left behind" if full else e.remedy
        raise OutputError(e.what, where=folder, expected=e.expected, remedy=remedy) from e


def _exportable(samples: Iterable[Sample], counts: Counter[str] | None) -> Generator[Sample]:
    """The samples, checked. The keys seen lie in a database on the disk, for any number of samples."""
    with closing(sqlite3.connect("")) as seen:
        seen.execute("create table keys (key text primary key) without rowid")
        try:
            for sample in samples:
                if not seen.execute("insert or ignore into keys values (?)", (sample.key,)).rowcount:
                    raise DataError(
                        f"two samples have the key {sample.key!r}", expected="unique keys", remedy="rename one of them"
                    )
                if safe_name(sample.split) != sample.split:
                    where, expected = f"sample {sample.key!r}", "letters, digits, `.`, `_` and `-`"
                    raise DataError(f"the split {sample.split!r} is no file name", where=where, expected=expected)
                if counts is not None:
                    counts.update(sample.labels.names[i] for i in sample.annotations.labels_in())
                yield sample
        except OSError as e:  # else it would be taken for one of writing
            raise DataError(f"a sample cannot be read: {e}") from e


def require_free(folder: Path) -> None:
    """Refuse an output folder that holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            "the output folder is not empty",
            where=folder,
            expected="a new folder",
            remedy="choose another --out, or delete it",
        )
