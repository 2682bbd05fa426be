"""The data that a stage reads: opened, reduced to the part that was asked for, with reviews and transforms applied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from datasetdm.errors import ConfigError, StoreError
from datasetdm.readers import read
from datasetdm.readers.source import OnError, ValidatingReader
from datasetdm.recipe.schema import DataOptions, ExportOptions
from datasetdm.records import Labels, Sample
from datasetdm.store.store import Store
from datasetdm.transforms import Transform, accepted, apply, transform_from_json
from datasetdm.transforms.choose import Choose
from datasetdm.transforms.remap import RemapLabels
from datasetdm.transforms.reviews import reviews_of
from datasetdm.transforms.split import Split
from datasetdm.transforms.threshold import FilterByScore, MaskByConfidence


class StageData:
    """A reader of the accepted samples after all transforms.

    Args:
        reader: the chosen part of the data.
        transforms: what is done to its samples, reviews first.
        format: of the data.
    """

    def __init__(self, reader: ValidatingReader, transforms: Sequence[Transform], format: str):
        self.reader, self.transforms, self.format = reader, tuple(transforms), format
        self.labels: Labels = apply((), reader.labels, transforms)[1]

    def __len__(self) -> int:
        return len(self.reader)

    def __iter__(self) -> Iterator[Sample]:
        return accepted(apply(self.reader, self.reader.labels, self.transforms)[0])


def open_data(data: str, options: DataOptions, seed: int = 0) -> StageData:
    """Open a store or labelled data.

    Args:
        data: a store's folder, or FORMAT:PATH.
        options: images, what errors do, the part to use, transforms.
        seed: of the random part.

    Raises:
        ConfigError: data that name no format; an unknown format or transform.
        DataError, StoreError: data that are not what they say, or a store without samples.
    """
    reader = open_reader(data, options.images, options.on_error)
    if options.limit is not None:
        reader = Choose(limit=options.limit, balance=options.balance, seed=seed).select(reader)
    own = tuple(transform_from_json(t) for t in options.transforms)
    return StageData(reader, (*reviews_of(reader), *own), format_of(data))


def open_reader(data: str, images: Path | None = None, on_error: OnError = "stop") -> ValidatingReader:
    """The reader of a store's folder or of FORMAT:PATH. Raises as `open_data` does."""
    if Path(data).is_dir():
        data = f"store:{data}"
    elif ":" not in data:
        raise ConfigError(
            f"data {data!r} names no format, and there is no such folder", expected="a store's folder, or FORMAT:PATH"
        )
    if data.startswith("store:") and not len(store := Store(data.partition(":")[2])):
        raise StoreError("the store holds no samples", where=store.folder, remedy="run the command that makes it again")
    return read(data, images, on_error)


def format_of(data: str) -> str:
    """The format's name; `store` for a folder."""
    return "store" if Path(data).is_dir() else data.partition(":")[0]


def export_transforms(options: ExportOptions) -> tuple[Transform, ...]:
    """The transforms that an export's options stand for, in their order."""
    steps: list[Transform] = []
    if options.min_score:
        steps.append(FilterByScore(minimum=options.min_score))
    if options.min_confidence:
        steps.append(MaskByConfidence(minimum=options.min_confidence))
    if options.remap:
        steps.append(RemapLabels(mapping=options.remap))
    if options.split:
        steps.append(Split(parts=options.split))
    return tuple(steps)
