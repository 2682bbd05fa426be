"""Images that a model may have memorised: they look like a labelled one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from pydantic import PrivateAttr

from datasetdm.io.digests import place_name
from datasetdm.readers import read
from datasetdm.records import Sample
from datasetdm.transforms.duplicates import Descriptors, FilterByDistance, describe


class FilterCopies(FilterByDistance):
    """Rejects samples that look like a labelled image. Its score is the distance to the nearest.

    Args:
        data: the labelled images, FORMAT:PATH.
    """

    name: ClassVar[str] = "filter-copies"
    reason: ClassVar[str] = "looks like a labelled image"
    data: str
    _labelled: Descriptors | None = PrivateAttr(None)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        for sample in samples:
            yield self.judged(sample, self._descriptors().nearest(describe(sample.image)))

    def origin(self) -> dict[str, Any]:
        """The settings and the labelled images."""
        return {**self.to_json(), "data": place_name(self.data), "sha256": self._descriptors().digest()}

    def _descriptors(self) -> Descriptors:
        if self._labelled is None:
            self._labelled = Descriptors()
            for labelled in read(self.data):
                self._labelled.add(describe(labelled.image))
        return self._labelled
