"""Transforms: a stream of samples in, a stream of samples out. A new one is a file here and one line in `TRANSFORMS`.

A transform is its own configuration: a frozen pydantic model with a name, JSON-ready. Transforms run in the order in which
they are listed. A filter never deletes a sample: it writes scores and reasons (`Sample.quality`), the row stays, and
exporting, fitting and evaluation skip what was rejected (`accepted`).

Filters that compare samples with labelled data lie in `datasetdm.quality`. An installed package adds a transform by an entry
point of the group `datasetdm.transforms`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from datasetdm.io.registry import Registry
from datasetdm.io.settings import validated
from datasetdm.records import Labels, Sample


class Transform(BaseModel, ABC):
    """One step on a stream of samples; its fields are its settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    """What recipes and stores call it."""
    selects: ClassVar[bool] = False
    """Whether it passes on a part of the samples. Only a choice of the source's samples does; filters write reasons."""

    compares: ClassVar[bool] = False
    """Whether what it says of a sample depends on the samples before it: such a filter reads a source from its start."""

    @abstractmethod
    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples, changed, in their order. Raises DataError for one that it cannot change."""

    def vocabulary(self, labels: Labels) -> Labels:
        """The labels of the samples that leave, from those of the samples that enter. Raises ConfigError if impossible."""
        return labels

    def to_json(self) -> dict[str, Any]:
        """Name and settings, JSON-ready; `transform_from_json` reads it."""
        return {"name": self.name, **self.model_dump(mode="json")}

    def origin(self) -> dict[str, Any]:
        """All that the samples which leave depend on, JSON-ready: the settings, and what else it reads, by hash."""
        return self.to_json()


TRANSFORMS: Registry[type[Transform]] = Registry(
    "transform",
    "datasetdm.transforms",
    {
        "apply-reviews": "datasetdm.transforms.reviews:ApplyReviews",
        "choose": "datasetdm.transforms.choose:Choose",
        "filter-by-area": "datasetdm.transforms.objects:FilterByArea",
        "filter-by-boundary": "datasetdm.transforms.objects:FilterByBoundary",
        "filter-by-clipping": "datasetdm.transforms.images:FilterByClipping",
        "filter-by-confidence": "datasetdm.transforms.threshold:FilterByConfidence",
        "filter-by-contrast": "datasetdm.transforms.images:FilterByContrast",
        "filter-by-limbs": "datasetdm.quality.limbs:FilterByLimbs",
        "filter-by-prompt": "datasetdm.transforms.prompted:FilterByPrompt",
        "filter-by-teacher": "datasetdm.quality.agreement:FilterByTeacher",
        "filter-by-score": "datasetdm.transforms.threshold:FilterByScore",
        "filter-copies": "datasetdm.quality.copies:FilterCopies",
        "filter-duplicates": "datasetdm.transforms.duplicates:FilterDuplicates",
        "filter-fragments": "datasetdm.transforms.objects:FilterFragments",
        "mask-by-confidence": "datasetdm.transforms.threshold:MaskByConfidence",
        "mask-by-loss": "datasetdm.quality.agreement:MaskByLoss",
        "mask-outlines": "datasetdm.transforms.outlines:MaskOutlines",
        "paste-objects": "datasetdm.transforms.paste:PasteObjects",
        "remap-labels": "datasetdm.transforms.remap:RemapLabels",
        "splice": "datasetdm.transforms.splice:Splice",
        "split": "datasetdm.transforms.split:Split",
    },
)
"""Name -> the `Transform`."""


def transform_from_json(value: Mapping[str, Any]) -> Transform:
    """A transform from its name and settings. Raises ConfigError for an unknown name or setting."""
    settings = dict(value)
    return validated(TRANSFORMS.load(str(settings.pop("name", ""))), **settings)


@dataclass(frozen=True)
class _Step:
    """A stream that can be read again, as its source can."""

    transform: Transform
    samples: Iterable[Sample]

    def __iter__(self) -> Iterator[Sample]:
        return self.transform(self.samples)


def apply(
    samples: Iterable[Sample], labels: Labels, transforms: Sequence[Transform]
) -> tuple[Iterable[Sample], Labels]:
    """The stream after all transforms, and its labels. Vocabularies are worked out before the first sample is read.

    Args:
        samples: a reader, a store, a list, or an iterator; the stream can be read as often as they can.
        labels: the samples' vocabulary.
        transforms: in the order in which they run.

    Raises:
        ConfigError: a transform that does not fit the labels.
    """
    once = isinstance(samples, Iterator)
    for transform in transforms:
        labels = transform.vocabulary(labels)
        samples = transform(samples) if once else _Step(transform, samples)
    return samples, labels


def accepted(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Only the samples that no filter rejected: what exporting, fitting and evaluation use."""
    return (s for s in samples if s.accepted)
