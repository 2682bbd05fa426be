"""The data that a stage reads: opened, reduced to the part that was asked for, with reviews and transforms applied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasetdm.errors import ConfigError, StoreError, first_names
from datasetdm.io.remote import is_url
from datasetdm.readers import read
from datasetdm.readers.formats.store import StoreSource
from datasetdm.readers.source import OnError, ValidatingReader
from datasetdm.recipe.schema import DataOptions, ExportOptions
from datasetdm.records import Labels, Sample
from datasetdm.store.store import Store
from datasetdm.transforms import Transform, accepted, apply, transform_from_json
from datasetdm.transforms.choose import Choose
from datasetdm.transforms.remap import RemapLabels
from datasetdm.transforms.reviews import ApplyReviews, reviews_of
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

    @property
    def numbers(self) -> list[int]:
        """The numbers of the samples in the reader's source."""
        return self.reader.numbers

    @property
    def whole(self) -> bool:
        """Whether nothing was said of a sample that may leave it out."""
        return not self.transforms and not isinstance(self.reader.source, StoreSource)

    def at(self, number: int) -> Sample | None:
        """The sample of this number, if it is good and accepted. Raises DataError."""
        sample = self.reader.at(number)
        found = () if sample is None else accepted(apply([sample], self.reader.labels, self.transforms)[0])
        return next(iter(found), None)


def open_data(data: str, options: DataOptions, seed: int = 0) -> StageData:
    """Open a store or labelled data. The part to use is chosen among the samples that are accepted after their reviews.

    Args:
        data: a store's folder or URL, or FORMAT:PATH.
        options: images, what errors do, the part to use, transforms.
        seed: of the random part.

    Raises:
        ConfigError: data that name no format; an unknown format or transform.
        DataError, StoreError: data that are not what they say, or a store without samples.
    """
    reader = open_reader(data, options.images, options.on_error)
    reviews = reviews_of(reader)
    if options.limit is not None:
        choose = Choose(limit=options.limit, balance=options.balance, seed=seed)
        reader = choose.select(_Reviewed(reader, reviews)).reader
    own = tuple(transform_from_json(t) for t in options.transforms)
    return StageData(reader, (*reviews, *own), format_of(data))


@dataclass(frozen=True)
class _Reviewed:
    """The accepted samples of a reader by their numbers, reviews applied, to choose from."""

    reader: ValidatingReader
    reviews: tuple[ApplyReviews, ...]

    @property
    def numbers(self) -> list[int]:
        """Of the accepted samples; those of a store are found without decoding anything."""
        source = self.reader.source
        if not isinstance(source, StoreSource):
            return self.reader.numbers
        rows = source.store.table(["key", "quality_reasons"]).to_pylist()
        rejected = {key for r in self.reviews for key in r.rejected_keys}
        return [n for n in self.reader.numbers if not rows[n]["quality_reasons"] and rows[n]["key"] not in rejected]

    def numbered(self) -> Iterator[tuple[int, Sample]]:
        """The accepted samples with their numbers."""
        for number, sample in self.reader.numbered():
            for reviewed in accepted(apply([sample], sample.labels, self.reviews)[0]):
                yield number, reviewed

    def only(self, numbers: Sequence[int]) -> _Reviewed:
        """The samples of these numbers."""
        return _Reviewed(self.reader.only(numbers), self.reviews)

    def __iter__(self) -> Iterator[Sample]:
        return (sample for _, sample in self.numbered())


def open_reader(data: str, images: Path | None = None, on_error: OnError = "stop") -> ValidatingReader:
    """The reader of a store's folder, of its URL, or of FORMAT:PATH. Raises as `open_data` does."""
    if is_url(data) or Path(data).is_dir():
        data = f"store:{data}"
    elif ":" not in data:
        raise ConfigError(
            f"data {data!r} names no format, and there is no such folder", expected="a store's folder, or FORMAT:PATH"
        )
    if data.startswith("store:") and not len(store := Store(data.partition(":")[2])):
        raise StoreError("the store holds no samples", where=store.folder, remedy="run the command that makes it again")
    return read(data, images, on_error)


def format_of(data: str) -> str:
    """The format's name; `store` for a folder or a URL."""
    return "store" if is_url(data) or Path(data).is_dir() else data.partition(":")[0]


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


def strange_labels(labels: Labels, known: Labels) -> str:
    """The first labels that others do not know, and how many more there are; empty if they know all."""
    return first_names([n for n in labels.names if n not in known.index])


def review_notes(data: StageData) -> list[str]:
    """What the reviews of a store change."""
    found = [t for t in data.transforms if isinstance(t, ApplyReviews)]
    return [f"reviews: {t.rejected} rejected are left out, {t.fixed} with fixed labels" for t in found]
