"""Transforms: a stream of samples in, a stream of samples out. A new one is a file here and one line in `TRANSFORMS`.

A transform is its own configuration: a frozen pydantic model with a name, JSON-ready. Transforms run in the order in which
they are listed. A filter never deletes a sample: it writes scores and reasons (`Sample.quality`), the row stays, and
exporting, fitting and evaluation skip what was rejected (`accepted`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

    @abstractmethod
    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples, changed, in their order. Raises DataError for one that it cannot change."""

    def vocabulary(self, labels: Labels) -> Labels:
        """The labels of the samples that leave, from those of the samples that enter. Raises ConfigError if impossible."""
        return labels

    def to_json(self) -> dict[str, Any]:
        """Name and settings, JSON-ready; `transform_from_json` reads it."""
        return {"name": self.name, **self.model_dump(mode="json")}


TRANSFORMS: Registry[type[Transform]] = Registry("transform", "datasetdm.transforms", {})
"""Name -> the `Transform`."""


def transform_from_json(value: Mapping[str, Any]) -> Transform:
    """A transform from its name and settings. Raises ConfigError for an unknown name or setting."""
    settings = dict(value)
    return validated(TRANSFORMS.load(str(settings.pop("name", ""))), **settings)


def apply(
    samples: Iterable[Sample], labels: Labels, transforms: Sequence[Transform]
) -> tuple[Iterator[Sample], Labels]:
    """The stream after all transforms, and its labels. Vocabularies are worked out before the first sample is read."""
    stream = iter(samples)
    for transform in transforms:
        labels, stream = transform.vocabulary(labels), transform(stream)
    return stream, labels


def accepted(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Only the samples that no filter rejected: what exporting, fitting and evaluation use."""
    return (s for s in samples if s.accepted)
