"""What filters ask for, as columns in memory: which rows match, and how they are distributed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Int64
from pydantic import BaseModel, ConfigDict, Field

from datasetdm.store.reviews import Review
from datasetdm.viewer.payloads import Count, Histogram, Summary, Verdicts
from datasetdm.viewer.rows import Listed

SCORE_BINS = 20
NO_REASON = "no reason given"
CONFIDENCE = "confidence"
"""Name of the score that every labelled sample has: its labels' mean confidence."""

LARGEST_COUNT = 2**31
Entries = tuple[np.ndarray, np.ndarray]
"""(row, number of the text in a vocabulary) of every entry of a column of lists, in any order."""


class Query(BaseModel):
    """A filter. Empty texts and None ask for nothing.

    cls: a label with a pixel or an object. objects_min, objects_max: number of objects, of that label if one is given.
    score: which one `score_min`, `score_max` and `order` mean; empty is the labels' confidence.
    prompt: text that it contains, in any case. reason: why a filter or a person rejected it.
    verdict: of people; "open" has none, "fixed" has corrected labels, "filtered" was rejected by a filter.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cls: str = Field("", alias="class")
    objects_min: int | None = Field(None, ge=0, le=LARGEST_COUNT)
    objects_max: int | None = Field(None, ge=0, le=LARGEST_COUNT)
    score: str = ""
    score_min: float | None = Field(None, allow_inf_nan=False)
    score_max: float | None = Field(None, allow_inf_nan=False)
    prompt: str = ""
    reason: str = ""
    verdict: Literal["", "open", "accept", "reject", "fixed", "filtered"] = ""
    order: Literal["row", "score", "-score"] = "row"

    @property
    def everything(self) -> bool:
        """Whether all rows match, in their order."""
        return self == Query(score=self.score)


class Limit(BaseModel):
    """A threshold that is being thought of: reject the rows whose `score` (empty: the labels' confidence) is `below` it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    score: str = ""
    below: float = Field(allow_inf_nan=False)


@dataclass(frozen=True)
class Border:
    """What a `Limit` would do to the rows that nothing has rejected yet.

    accepted, dropped: their number, and how many of them it would reject. below, above: the rows on either side that are
    nearest to it, nearest first.
    """

    accepted: int
    dropped: int
    below: Int64[np.ndarray, "n"]
    above: Int64[np.ndarray, "m"]


@dataclass(frozen=True)
class Relabelled:
    """A row's labels with a pixel or an object, and every object's label, after a review."""

    labels: Sequence[str]
    objects: Sequence[str]


class Index:
    """Columns of a whole store, with what people decided.

    Args:
        listed: the columns of all rows.
        names: of the vocabulary.
        reviews: by key.
    """

    def __init__(self, listed: Listed, names: Sequence[str], reviews: Mapping[str, Review]):
        self.listed, self.names, self.count = listed, tuple(names), len(listed)
        vocabulary = pa.array(self.names, pa.string())
        self._labels, self._objects = _entries(listed.labels, vocabulary), _entries(listed.objects, vocabulary)
        self._reasons = listed.reasons.flatten().unique()
        self._rejections = _entries(listed.reasons, self._reasons)
        self._verdicts, self._fixed = np.full(self.count, "", "U6"), np.zeros(self.count, bool)
        self._review_reasons = np.full(self.count, "", object)
        found = _positions(listed.keys, pa.array(list(reviews), pa.string()))
        rows = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
        for row, key in zip(rows.tolist(), listed.keys.take(pa.array(rows)).to_pylist(), strict=True):
            self.review(row, reviews[key])

    def review(self, row: int, review: Review) -> None:
        """Take note of a review of a row."""
        self._verdicts[row], self._fixed[row] = review.verdict, review.fixes
        self._review_reasons[row] = (review.reason or NO_REASON) if review.verdict == "reject" else ""

    def relabel(self, changed: Mapping[int, Relabelled]) -> None:
        """Take note of rows whose labels were corrected."""
        self._labels = self._replaced(self._labels, {row: c.labels for row, c in changed.items()})
        self._objects = self._replaced(self._objects, {row: c.objects for row, c in changed.items()})

    def _replaced(self, entries: Entries, names: Mapping[int, Sequence[str]]) -> Entries:
        others = ~np.isin(entries[0], list(names))
        added = [(row, self.names.index(name)) for row, found in names.items() for name in found]
        rows, codes = np.array(added, np.int64).reshape(-1, 2).T
        return np.concatenate([entries[0][others], rows]), np.concatenate([entries[1][others], codes])

    def rows(self, query: Query) -> Int64[np.ndarray, "n"]:
        """The rows that match, in the query's order; rows without the score come last."""
        rows = np.flatnonzero(self._matches(query))
        if query.order != "row":
            sign = -1 if query.order == "-score" else 1
            rows = rows[np.argsort(sign * self._scores(query)[rows], kind="stable")]
        return rows

    def border(self, limit: Limit, most: int) -> Border:
        """What a threshold would reject, with at most `most` rows on either side of it; rows without the score stay."""
        scores = self._scores(limit)
        accepted = self._accepted
        low = accepted & (scores < np.float32(limit.below))
        dropped, kept = np.flatnonzero(low), np.flatnonzero(accepted & ~low & np.isfinite(scores))
        below = dropped[np.argsort(-scores[dropped], kind="stable")[:most]]
        above = kept[np.argsort(scores[kept], kind="stable")[:most]]
        return Border(int(accepted.sum()), len(dropped), below, above)

    def _scores(self, query: Query | Limit) -> Float32[np.ndarray, "n"]:
        if query.score in ("", CONFIDENCE):
            return self.listed.confidence
        return self.listed.scores.get(query.score, np.full(self.count, np.nan, np.float32))

    def _matches(self, query: Query) -> Bool[np.ndarray, "n"]:
        fits = np.ones(self.count, bool)
        if query.cls:
            fits &= self._counts(self._labels, query.cls) > 0
        if query.objects_min is not None or query.objects_max is not None:
            counts = self._counts(self._objects, query.cls)
            fits &= counts >= (query.objects_min or 0)
            if query.objects_max is not None:
                fits &= counts <= query.objects_max
        if query.score_min is not None:
            fits &= self._scores(query) >= np.float32(query.score_min)
        if query.score_max is not None:
            fits &= self._scores(query) <= np.float32(query.score_max)
        if query.prompt:
            fits &= _contains(self.listed.prompts, query.prompt)
        if query.reason:
            fits &= (self._review_reasons == query.reason) | self._has_reason(query.reason)
        if query.verdict == "fixed":
            fits &= self._fixed
        elif query.verdict == "filtered":
            fits &= self._filtered
        elif query.verdict:
            fits &= self._verdicts == query.verdict.replace("open", "")
        return fits

    @property
    def _filtered(self) -> Bool[np.ndarray, "n"]:
        return np.bincount(self._rejections[0], minlength=self.count) > 0

    @property
    def _accepted(self) -> Bool[np.ndarray, "n"]:
        return ~self._filtered & (self._verdicts != "reject")

    def _has_reason(self, reason: str) -> Bool[np.ndarray, "n"]:
        rows, codes = self._rejections
        code = self._reasons.index(reason).as_py()
        return np.bincount(rows[codes == code], minlength=self.count) > 0

    def _counts(self, entries: Entries, name: str) -> Int64[np.ndarray, "n"]:
        """How often each row has a label; an empty name counts all labels."""
        rows, codes = entries
        code = self.names.index(name) if name in self.names else -1
        return np.bincount(rows[codes == code] if name else rows, minlength=self.count)

    def summary(self, query: Query) -> Summary:
        """How the rows that match are distributed; labels with most rows first."""
        matching = self._matches(query)
        rows, codes = self._labels
        labels = np.bincount(codes[matching[rows]], minlength=len(self.names))
        verdicts = self._verdicts[matching]
        return Summary(
            total=int(matching.sum()),
            labels=[Count(self.names[i], int(labels[i])) for i in np.argsort(-labels, kind="stable")],
            score=self._histogram(self._scores(query), matching),
            reasons=self._reason_counts(),
            verdicts=Verdicts(
                open=int((verdicts == "").sum()),
                accept=int((verdicts == "accept").sum()),
                reject=int((verdicts == "reject").sum()),
                fixed=int(self._fixed[matching].sum()),
                filtered=int(self._filtered[matching].sum()),
            ),
        )

    def _histogram(self, scores: Float32[np.ndarray, "n"], matching: Bool[np.ndarray, "n"]) -> Histogram:
        """From 0 to 1 where all values of the store lie between, else from the least to the largest."""
        known = scores[np.isfinite(scores)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        elif low == high:
            high = low + 1
        chosen = matching & np.isfinite(scores)
        every, accepted = (
            np.histogram(scores[rows], SCORE_BINS, (low, high))[0].tolist()
            for rows in (chosen, chosen & self._accepted)
        )
        names = [CONFIDENCE, *sorted(set(self.listed.scores) - {CONFIDENCE})]
        return Histogram(names, low, high, every, accepted, int(matching.sum() - chosen.sum()))

    def _reason_counts(self) -> list[Count]:
        counts = dict(zip(self._reasons.to_pylist(), np.bincount(self._rejections[1]).tolist(), strict=True))
        texts, numbers = np.unique(self._review_reasons[self._review_reasons != ""].astype(str), return_counts=True)
        for text, number in zip(texts.tolist(), numbers.tolist(), strict=True):
            counts[text] = counts.get(text, 0) + number
        return [Count(text, counts[text]) for text in sorted(counts)]


def _entries(lists: pa.ListArray, vocabulary: pa.Array) -> Entries:
    """The entries of a column of lists; those that are not in the vocabulary are left out."""
    codes = pc.fill_null(_positions(lists.flatten(), vocabulary), -1).to_numpy(zero_copy_only=False)
    return lists.value_parent_indices().to_numpy()[codes >= 0], codes[codes >= 0]


def _positions(texts: Any, vocabulary: pa.Array) -> Any:
    """Where in `vocabulary` each text is, or null."""
    return pc.call_function("index_in", [texts], pc.SetLookupOptions(vocabulary))


def _contains(texts: Any, part: str) -> Bool[np.ndarray, "n"]:
    found = pc.call_function("match_substring", [texts], pc.MatchSubstringOptions(part, ignore_case=True))
    return pc.fill_null(found, False).to_numpy(zero_copy_only=False)
