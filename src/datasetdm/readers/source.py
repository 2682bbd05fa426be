"""What every format gives, and the one place that decides what happens to wrong data.

A `Source` knows its samples by number, can check one without decoding its pixels, and raises a `DataError` for a bad one.
`ValidatingReader` makes a reader of it: the first bad sample stops the work, or bad samples are skipped and counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from datasetdm.errors import DataError, DatasetDMError, StoreError
from datasetdm.io.codecs import image_size, read_image
from datasetdm.prompts import describe
from datasetdm.readers.regions import labels_in
from datasetdm.records import BACKGROUND, Annotations, Labels, Prompt, Provenance, Sample

OnError = Literal["stop", "skip"]


class Source(ABC):
    """A format's samples by number.

    Attributes:
        orphan_errors: what is wrong with data that belong to no sample, for instance an annotation of an image that is not there.
    """

    labels: Labels
    orphan_errors: Sequence[DataError] = ()
    notes: Sequence[str] = ()
    """What was read leniently, one line each."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Sample `index`. Raises DataError if it is not what it says."""

    def check(self, index: int) -> None:  # noqa: B027  (optional: a format may have nothing to check)
        """Everything about sample `index` that can be known without decoding its pixels. Raises DataError."""


class ValidatingReader:
    """A reader over a source. Opening it checks all samples; `skipped` says what was left out, and grows while images
    are decoded, so until all have been read once `len` counts some that will be skipped.

    Raises:
        DataError: a bad sample and on_error is "stop"; or no good sample at all, when it is opened or has been read.
    """

    def __init__(self, source: Source, on_error: OnError = "stop"):
        self.labels, self.source, self.on_error = source.labels, source, on_error
        self.skipped: list[DataError] = []
        self._bad: set[int] = set()
        for index in range(len(source)):
            try:
                source.check(index)
            except Exception as e:
                self._report(as_data_error(e, source, index))
                self._bad.add(index)
        for error in source.orphan_errors:
            self._report(error)
        self._order = [i for i in range(len(source)) if i not in self._bad]
        self._require_some()

    def __len__(self) -> int:
        return len(self._order) - sum(i in self._bad for i in self._order)

    def __iter__(self) -> Iterator[Sample]:
        return (sample for _, sample in self.numbered())

    def numbered(self) -> Iterator[tuple[int, Sample]]:
        """The samples with their numbers in the source."""
        for index in self._order:
            if (sample := self.at(index)) is not None:
                yield index, sample
        self._require_some()

    def at(self, number: int) -> Sample | None:
        """The sample of this number in the source; None if it is bad and skipped. Raises DataError."""
        if number in self._bad:
            return None
        try:
            return self.source[number]
        except Exception as e:
            self._report(as_data_error(e, self.source, number))
            self._bad.add(number)
            return None

    def only(self, numbers: Sequence[int]) -> ValidatingReader:
        """A reader of some samples of the source, which shares this one's account of what was skipped."""
        chosen = ValidatingReader.__new__(ValidatingReader)
        chosen.__dict__.update(self.__dict__)
        chosen._order = [i for i in sorted(numbers) if i not in self._bad]
        return chosen

    @property
    def numbers(self) -> list[int]:
        """The samples' numbers in the source."""
        return [i for i in self._order if i not in self._bad]

    def _require_some(self) -> None:
        if not len(self):
            raise DataError(
                f"all {len(self.skipped)} samples were skipped",
                where=self.skipped[0].where if self.skipped else None,
                expected="at least one good sample",
                remedy="read with --on-error stop to see the first error",
            )

    def _report(self, error: DatasetDMError) -> None:
        if self.on_error == "stop":
            raise error
        self.skipped.append(error if isinstance(error, DataError) else DataError(error.what, where=error.where))


UNFORESEEN = "the data cannot be read:"
"""How an error begins that a reader did not foresee; whoever tests readers counts it as a fault of theirs."""


def as_data_error(error: Exception, source: object, index: int | None = None) -> DatasetDMError:
    """The error itself if it is one of ours that concerns data; else what a reader met and did not expect, as a DataError.

    Raises:
        DatasetDMError: one that concerns something else, for instance a library that is not installed.
    """
    if isinstance(error, DataError | StoreError):
        return error
    if isinstance(error, DatasetDMError):
        raise error
    what = f"{UNFORESEEN} {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if isinstance(error, MemoryError):  # an image header may declare up to MAX_PIXELS
        what = "there is not enough memory to read the data"
    place = source if isinstance(source, Path) else getattr(source, "path", None) or type(source).__name__
    found = DataError(
        what, where=place if index is None else f"{place}, sample {index} (from 0)", expected="data of this format"
    )
    found.__cause__ = error
    return found


@dataclass(frozen=True)
class Item:
    """One image of a format of files: its key, its file, and the files of its labels by kind."""

    key: str
    image: Path
    maps: Mapping[str, Path] = field(default_factory=dict)
    caption: str | None = None


class FilesSource(Source):
    """A format with one image file and one or more label maps of the same size a sample.

    A subclass finds `items` and turns an item's label files into records.
    """

    items: Sequence[Item]

    @abstractmethod
    def records(self, item: Item, size: tuple[int, int]) -> Annotations:
        """The annotations of an image of this size (height, width)."""

    def __len__(self) -> int:
        return len(self.items)

    def check(self, index: int) -> None:
        """Every file is there and all have the same size."""
        item = self.items[index]
        size = image_size(item.image, item.image)
        for path in item.maps.values():
            if not path.is_file():
                raise DataError("an image's label file is missing", where=path, expected=f"labels of {item.image}")
            if path.suffix.lower() not in (".npy", ".exr") and (found := image_size(path, path)) != size:
                raise other_size(path, found, size)

    def __getitem__(self, index: int) -> Sample:
        item = self.items[index]
        image = read_image(item.image, item.image)
        records = self.records(item, image.shape[:2])
        found = labels_in(records, self.labels)
        present = tuple(n for n in self.labels.names if n in found and n != BACKGROUND)
        known = records.semantic is not None or records.instances is not None
        prompt = caption_prompt(item.caption, present) if item.caption or known else None
        return Sample(
            item.key, image, self.labels, prompt,
            **records.fields(), provenance=Provenance(item.image.name), encoded=item.image,
        )  # fmt: skip


def caption_prompt(caption: str | None, present: Sequence[str]) -> Prompt:
    """The data's own caption as a prompt; without one, a caption composed of the labels in the image."""
    return Prompt(caption or describe(present), tuple(present), origin="caption" if caption else "labels")


def other_size(path: object, found: tuple[int, int], wanted: tuple[int, int]) -> DataError:
    """The error of labels that are not as large as their image; sizes are (height, width)."""
    return DataError(
        f"the labels have {found[1]}x{found[0]} pixels",
        where=path,
        expected=f"{wanted[1]}x{wanted[0]}, as their image",
        remedy="use the images that were annotated; an EXIF rotation must be applied in both or neither",
    )
