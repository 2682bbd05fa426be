"""What people said of a store's samples. The transform `ApplyReviews` applies it.

`STORE/reviews.jsonl` is only ever appended to, one JSON object a line; of several lines with one key the last counts:

    {"key": "00000007", "verdict": "reject", "reason": "wrong mask", "labels": {"cow": "sheep"}, "objects": {"0": "dog"}}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from datasetdm.errors import DataError, unknown_name
from datasetdm.io.files import shared, writing
from datasetdm.io.remote import Place
from datasetdm.records import Sample
from datasetdm.records.edits import relabel
from datasetdm.store.quality import append_lines, read_latest

REVIEWS = "reviews.jsonl"
LOCK = ".reviews.lock"
Verdict = Literal["", "accept", "reject"]


@dataclass(frozen=True)
class Review:
    """What somebody said of the sample `key`.

    Args:
        key: of the sample.
        verdict: empty if there is none.
        reason: of a rejection.
        labels: label -> the one that it should have been, for all pixels and objects of this sample.
        objects: number of an instance, from 0 -> its label; goes before `labels`, and takes the instance's pixels along.
    """

    key: str
    verdict: Verdict = ""
    reason: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    objects: Mapping[int, str] = field(default_factory=dict)

    @property
    def fixes(self) -> bool:
        """Whether it changes labels."""
        return bool(self.labels or self.objects)

    @classmethod
    def from_json(cls, value: Any) -> Review:
        """One line of the file.

        Raises:
            DataError: a value that is no review.
        """
        try:
            verdict, reason = value.get("verdict", ""), value.get("reason", "")
            labels = dict(value.get("labels", {}))
            objects = {int(k): v for k, v in value.get("objects", {}).items()}
            texts = [value["key"], reason, *labels, *labels.values(), *objects.values()]
            if verdict not in ("", "accept", "reject") or not all(isinstance(t, str) for t in texts):
                raise TypeError("a verdict is accept, reject or empty; keys, reasons and labels are texts")
            return cls(value["key"], verdict, reason, labels, objects)
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            expected = '{"key": ..., "verdict": "accept" | "reject" | "", ...}'
            raise DataError(f"this is no review: {e!r}", expected=expected) from e

    def apply(self, sample: Sample) -> Sample:
        """The sample with its labels fixed.

        Raises:
            ConfigError: a label that the vocabulary lacks. DataError: an instance that the sample lacks.
        """
        if not self.fixes:
            return sample
        labels = sample.labels
        for name in (*self.labels, *self.labels.values(), *self.objects.values()):
            if name not in labels.index:
                raise unknown_name("label", name, labels.names)
        count = 0 if sample.instances is None else len(sample.instances)
        if strangers := [n for n in self.objects if not 0 <= n < count]:
            where = f"review of {sample.key!r}"
            raise DataError(f"object {strangers[0]} is not there", where=where, expected=f"one of {count}, from 0")
        new_ids = [labels.index[self.labels.get(name, name)] for name in labels.names]
        return relabel(sample, labels, new_ids, {n: labels.index[name] for n, name in self.objects.items()})


def read_reviews(folder: Place) -> dict[str, Review]:
    """Key -> what was said last.

    Raises:
        StoreError: a line that is no review.
    """

    def parse(value: Any) -> tuple[str, Review]:
        review = Review.from_json(value)
        return review.key, review

    return read_latest(folder / REVIEWS, "a review", parse)


def append_review(folder: Place, review: Review, check: Callable[[], None] = lambda: None) -> int:
    """Write one review; it is on the disk when this returns. Any number of processes may do so at once.

    Args:
        folder: of the store.
        review: the one that counts from now on.
        check: called when no other process can write, before this one does; what it raises keeps the review out.

    Returns:
        The size of the file of reviews, in bytes.

    Raises:
        OutputError: the store cannot be written.
    """
    return append_reviews(folder, [review], check)


def append_reviews(folder: Place, reviews: Iterable[Review], check: Callable[[], None] = lambda: None) -> int:
    """Write several reviews at once."""
    with writing(folder), shared(folder / LOCK, "file of reviews"):
        check()
        return append_lines(folder / REVIEWS, map(asdict, reviews))
