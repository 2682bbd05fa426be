"""What people said about a store's samples, applied: labels are fixed, rejected samples get a reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, ClassVar

from pydantic import PrivateAttr, model_validator

from datasetdm.errors import ConfigError
from datasetdm.io.settings import AnyPlace
from datasetdm.records import Sample
from datasetdm.records.edits import reject
from datasetdm.store.reviews import Review, read_reviews
from datasetdm.store.store import Store
from datasetdm.transforms import Transform


class ApplyReviews(Transform):
    """The reviews of a store, as they are when this is made.

    Args:
        store: its folder.
        reviews: the hash of its reviews that is expected; None for whatever they are.

    Raises:
        ConfigError: other reviews than expected.
        StoreError: a review that cannot be read.
    """

    name: ClassVar[str] = "apply-reviews"
    store: AnyPlace
    reviews: str | None = None
    _by_key: dict[str, Review] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _read(self) -> ApplyReviews:
        self._by_key = read_reviews(self.store)
        if self.reviews not in (None, self.digest):
            raise ConfigError(
                "the reviews of this store have changed",
                where=self.store,
                expected=f"reviews of hash {self.reviews}, not {self.digest}",
                remedy="leave `reviews` out to use the present ones",
            )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of all reviews that count, whatever their order."""
        rows = [asdict(self._by_key[key]) for key in sorted(self._by_key)]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()

    @property
    def rejected(self) -> int:
        """Number of samples that were rejected."""
        return len(self.rejected_keys)

    @property
    def rejected_keys(self) -> set[str]:
        """The keys of the samples that were rejected."""
        return {key for key, r in self._by_key.items() if r.verdict == "reject"}

    @property
    def fixed(self) -> int:
        """Number of samples with fixed labels."""
        return sum(r.fixes for r in self._by_key.values())

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        for sample in samples:
            review = self._by_key.get(sample.key)
            if review is None:
                yield sample
            elif review.verdict == "reject":
                yield reject(sample, f"review: {review.reason}" if review.reason else "review")
            else:
                yield review.apply(sample)

    def to_json(self) -> dict[str, Any]:
        """The store's name and the hash of its reviews: equal on every machine. To read it, be where the store lies."""
        return {"name": self.name, "store": self.store.resolve().name, "reviews": self.digest}


def reviews_of(samples: object) -> tuple[ApplyReviews, ...]:
    """What applies the reviews of a store, or of a reader of one; nothing for samples from elsewhere, or without reviews."""
    store = store_of(samples)
    found = () if store is None else (ApplyReviews(store=store.folder),)
    return tuple(t for t in found if t.rejected or t.fixed)


def store_of(samples: object) -> Store | None:
    """The store that samples are read from, by itself or by a reader of it; None for samples from elsewhere."""
    source = getattr(samples, "source", samples)
    store = getattr(source, "store", source)
    return store if isinstance(store, Store) else None
